"""Elements of encoded data sets, taken out and encoded anew without decoding the rest (PS3.5 7).

The index looks at some fifty elements of each instance and answers with some ten, and both often: so
here octets become octets, by rules that fit on this page. No value is interpreted but text, whose
characters are made UTF-8. Depth and number of what is read are bounded.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR

from ...dsutils import is_implicit_vr, is_little_endian
from .values import NUMBERS, TEXT_VRS, codecs_of, decode
from .walk import NESTING_LIMIT, InvalidDataSetError

__all__ = [
    "CANONICAL",
    "LONG_VRS",
    "Buffer",
    "Coding",
    "Element",
    "coding_of",
    "elements",
    "encode_element",
    "encode_item",
    "is_binary",
    "items",
    "recode",
    "swapped",
    "vr_of",
]

Buffer = bytes | memoryview | mmap.mmap

#: VRs whose length has four octets in explicit VR (PS3.5 7.1.2), as they are encoded.
LONG_VRS: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# Octets of the units that VRs consist of, for the order of octets.
_UNITS: Final = {
    **{vr: struct.calcsize(form) for vr, form in NUMBERS.items()},
    "AT": 2,
    "OD": 8,
    "OF": 4,
    "OL": 4,
    "OV": 8,
    "OW": 2,
}
_SHORT_LIMIT = 0xFFFE


class Coding(NamedTuple):
    """How elements are written."""

    implicit: bool
    little: bool

    @property
    def order(self) -> str:
        """The sign of :mod:`struct`."""
        return "<" if self.little else ">"


#: Explicit VR little endian: what the index keeps sequences in, with text in UTF-8.
CANONICAL: Final = Coding(implicit=False, little=True)
_IMPLICIT: Final = Coding(implicit=True, little=True)


def coding_of(transfer_syntax: str) -> Coding:
    """Of a transfer syntax, inflated."""
    return Coding(is_implicit_vr(transfer_syntax), is_little_endian(transfer_syntax))


class Element(NamedTuple):
    """Where an element of a data set is.

    Attributes:
        start: Of the value.
        end: Of the value; a sequence's delimiter is not part of it.
        behind: Where the next element begins.
        inside: How the items of a sequence are written.
    """

    tag: int
    vr: str
    start: int
    end: int
    behind: int
    inside: Coding

    def moved(self, shift: int) -> Element:
        """The same element where its data set begins elsewhere."""
        tag, vr, start, end, behind, inside = self
        return Element(tag, vr, start + shift, end + shift, behind + shift, inside)


@lru_cache(maxsize=8192)
def vr_of(tag: int) -> str:
    """The VR in the data dictionary; UN when there is none. Of several, the one that holds them."""
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    if " or " in vr:
        return "OW" if "OW" in vr else "US"
    return vr if len(vr) == 2 else "UN"


def elements(
    data: Buffer, coding: Coding, start: int, end: int, *, depth: int = 0
) -> Iterator[Element]:
    """The elements of a data set or of an item, one after the other.

    Raises:
        InvalidDataSetError: The octets are none.
    """
    implicit = coding.implicit
    head = struct.Struct(coding.order + ("HHI" if implicit else "HH2sH")).unpack_from
    long = struct.Struct(coding.order + "I").unpack_from
    position = start
    while position < end:
        if position + 8 > end:
            raise InvalidDataSetError("stray octets where an element is expected")
        inside = coding
        if implicit:
            group, number, length = head(data, position)
            tag = group << 16 | number
            vr = vr_of(tag)
            value = position + 8
        else:
            group, number, octets, length = head(data, position)
            tag = group << 16 | number
            vr = octets.decode("latin-1")
            value = position + 8
            if octets in LONG_VRS:
                if position + 12 > end:
                    raise InvalidDataSetError("an element is cut off in its length")
                (length,) = long(data, value)
                value += 4
                if vr == "UN":
                    # PS3.5 6.2.2: what was known as implicit VR only, and still is written so.
                    vr, inside = vr_of(tag), _IMPLICIT
        if group == 0xFFFE:
            raise InvalidDataSetError("a delimiter where an element is expected")
        if length == _UNDEFINED:
            stop, position = _sequence_end(data, inside, value, end, depth)
            vr = "SQ" if vr == "UN" else vr
        else:
            stop = position = value + length
            if stop > end:
                raise InvalidDataSetError("an element is cut off in its value")
        yield Element(tag, vr, value, stop, position, inside)


def items(
    data: Buffer, coding: Coding, start: int, end: int, *, depth: int = 0
) -> Iterator[tuple[int, int]]:
    """Where the items of a sequence's value begin and end.

    Raises:
        InvalidDataSetError: The octets are no items.
    """
    position = start
    while position < end:
        tag, length, value = _delimiter(data, coding, position, end)
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise InvalidDataSetError("an item is expected")
        if length == _UNDEFINED:
            stop, position = _item_end(data, coding, value, end, depth)
        else:
            stop = position = value + length
            if stop > end:
                raise InvalidDataSetError("an item is cut off")
        yield value, stop


def _delimiter(data: Buffer, coding: Coding, position: int, end: int) -> tuple[int, int, int]:
    if position + 8 > end:
        raise InvalidDataSetError("stray octets where an item is expected")
    group, number, length = struct.unpack_from(coding.order + "HHI", data, position)
    return group << 16 | number, length, position + 8


def _sequence_end(
    data: Buffer, coding: Coding, start: int, end: int, depth: int
) -> tuple[int, int]:
    """Where a value of undefined length ends, and where its delimiter does."""
    if depth > NESTING_LIMIT:
        raise InvalidDataSetError(f"sequences are nested more than {NESTING_LIMIT} deep")
    position = start
    while True:
        tag, length, value = _delimiter(data, coding, position, end)
        if tag == _SEQUENCE_END:
            return position, value
        if tag != _ITEM:
            raise InvalidDataSetError("an item is expected")
        if length == _UNDEFINED:
            _, position = _item_end(data, coding, value, end, depth)
        else:
            position = value + length


def _item_end(data: Buffer, coding: Coding, start: int, end: int, depth: int) -> tuple[int, int]:
    """Where an item of undefined length ends, and where its delimiter does."""
    position = start
    while True:
        tag, _, value = _delimiter(data, coding, position, end)
        if tag == _ITEM_END:
            return position, value
        # One element: the next may be the delimiter, which is none.
        position = next(elements(data, coding, position, end, depth=depth + 1)).behind


def encode_element(tag: int, vr: str, value: bytes, coding: Coding) -> bytes:
    """One element, its value padded to an even length.

    Raises:
        InvalidDataSetError: The value is too long for its VR.
    """
    if len(value) % 2:
        value += b"\0" if vr in ("OB", "UI", "UN") else b" "
    group, number, order = tag >> 16, tag & 0xFFFF, coding.order
    if coding.implicit:
        return struct.pack(order + "HHI", group, number, len(value)) + value
    octets = vr.encode("latin-1")
    if octets in LONG_VRS:
        return struct.pack(order + "HH2s2xI", group, number, octets, len(value)) + value
    if len(value) > _SHORT_LIMIT:
        raise InvalidDataSetError(f"{len(value)} octets in an element of VR {vr}")
    return struct.pack(order + "HH2sH", group, number, octets, len(value)) + value


def encode_item(content: bytes, coding: Coding) -> bytes:
    """An item of a sequence, of defined length."""
    return struct.pack(coding.order + "HHI", 0xFFFE, 0xE000, len(content)) + content


def recode(
    data: Buffer, element: Element, little: bool, codecs: Sequence[str], target: Coding
) -> bytes:
    """The value of an element, written in another way, its text in UTF-8.

    Args:
        little: The order of octets in ``data``.
        codecs: Of the text in ``data``; an item may say its own (PS3.5 7.5.3).

    Raises:
        InvalidDataSetError: A sequence cannot be read, or not be written in ``target``.
    """
    if element.vr == "SQ":
        return _sequence(data, element.start, element.end, element.inside, codecs, target, 0)
    value = bytes(data[element.start : element.end])
    return _value(element.vr, value, little, codecs, target)


def _value(vr: str, value: bytes, little: bool, codecs: Sequence[str], target: Coding) -> bytes:
    if vr in TEXT_VRS:
        return value if value.isascii() and b"\x1b" not in value else decode(value, codecs).encode()
    return value if little == target.little else swapped(vr, value)


def is_binary(vr: str) -> bool:
    """Whether values of this VR are numbers or octets, and no text."""
    return vr in _UNITS or vr in ("OB", "UN")


def swapped(vr: str, value: bytes) -> bytes:
    """The same numbers in the other order of octets."""
    unit = _UNITS.get(vr)
    if unit is None:
        return value
    value = value[: len(value) // unit * unit]
    turned = bytearray(len(value))
    for number in range(unit):
        turned[number::unit] = value[unit - 1 - number :: unit]
    return bytes(turned)


def _sequence(
    data: Buffer,
    start: int,
    end: int,
    coding: Coding,
    codecs: Sequence[str],
    target: Coding,
    depth: int,
) -> bytes:
    if depth > NESTING_LIMIT:
        raise InvalidDataSetError(f"sequences are nested more than {NESTING_LIMIT} deep")
    parts = []
    for first, last in items(data, coding, start, end, depth=depth):
        body = []
        own = codecs
        for element in elements(data, coding, first, last, depth=depth + 1):
            if element.tag == 0x00080005:
                terms = decode(bytes(data[element.start : element.end]), codecs)
                own = codecs_of(tuple(each.strip(" \0") for each in terms.split("\\")))
                continue
            if not element.tag & 0xFFFF:
                continue  # group lengths would be wrong now
            if element.vr == "SQ":
                value = _sequence(
                    data, element.start, element.end, element.inside, own, target, depth + 1
                )
            else:
                value = bytes(data[element.start : element.end])
                value = _value(element.vr, value, element.inside.little, own, target)
            body.append(encode_element(element.tag, element.vr, value, target))
        parts.append(encode_item(b"".join(body), target))
    return b"".join(parts)
