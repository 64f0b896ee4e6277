"""Whether two encoded data sets have the same content, however each is written (PS3.5 7, Annex A).

Programs write a data set again when they pass it on: with or without VRs, in another order of octets, deflated,
with other kinds of length, without group lengths and trailing padding. None of that changes what the data set
says. The comparison goes through both data sets side by side and stops at the first difference. It decodes no text
and keeps no values, so a large data set needs no memory.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from operator import itemgetter
from typing import Final, NamedTuple

from ...encoding import IMPLICIT, UNDEFINED, Buffer, Coding, coding_of, heads
from ...uids import (
    DEFAULT_TRANSFER_SYNTAXES,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
from .elements import swapped, vr_of
from .walk import NESTING_LIMIT, InvalidDataSetError, behind_undefined, items, plain

__all__ = ["same_content"]

# The transfer syntaxes that write the same content in different ways (PS3.5 A.1 to A.3, A.5).
_UNCOMPRESSED: Final = frozenset(
    (*DEFAULT_TRANSFER_SYNTAXES, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
)
_ITEM, _DELIMITERS, _PADDING = 0xFFFEE000, 0xFFFE0000, 0xFFFCFFFC
# The VRs that do not say what a value is.
_UNSAID: Final = frozenset((b"", b"UN"))
# The VRs that a writer may choose between (PS3.5 A.2).
_OCTETS: Final = frozenset((b"OB", b"OW"))
# How many elements of one level are sorted by their tags (PS3.5 7.1), as programs do that write them again. The order
# of the elements behind them counts.
_SORTED_LIMIT: Final = 1 << 16
# How many octets of a value are compared at a time; a multiple of the size of every number.
_PIECE: Final = 1 << 20


class _Part(NamedTuple):
    """A part of a data set: an element with its value, or where a sequence or an item begins or ends.

    Attributes:
        mark: What begins or ends; empty for an element.
        vr: The VR as it is written; empty where the encoding does not say it.
        is_swapped: Whether the numbers of the value have their highest octet first.
    """

    mark: str
    tag: int = 0
    vr: bytes = b""
    data: Buffer = b""
    start: int = 0
    end: int = 0
    is_swapped: bool = False


def same_content(
    one: Buffer,
    one_syntax: str,
    one_offset: int,
    other: Buffer,
    other_syntax: str,
    other_offset: int,
) -> bool:
    """Whether two data sets have the same content; each begins at its offset and ends with its buffer.

    These do not count: group lengths (gggg,0000), Data Set Trailing Padding (FFFC,FFFC), group 0002, the kind of
    length of sequences and items, the order of elements, a VR that one side does not say, the order of octets,
    deflation, and the octet that makes the length of a value even (PS3.5 7.1.1). Compressed data sets of two
    transfer syntaxes are different.

    Data sets that cannot be read, or are inflated to more than
    :data:`~netdicom_tx.archive.encoded.walk.INFLATED_LIMIT` octets, count as different.
    """
    if one_syntax != other_syntax and not {one_syntax, other_syntax} <= _UNCOMPRESSED:
        return False
    try:
        ours = _parts_of(one, one_syntax, one_offset)
        theirs = _parts_of(other, other_syntax, other_offset)
        return all(a and b and _is_same(a, b) for a, b in itertools.zip_longest(ours, theirs))
    except InvalidDataSetError:
        return False


def _parts_of(data: Buffer, transfer_syntax: str, offset: int) -> Iterator[_Part]:
    found = plain(data, transfer_syntax, offset)
    if not found.is_whole:
        raise InvalidDataSetError("the deflated data set is too large to be compared")
    return _parts(found.data, coding_of(transfer_syntax), found.offset, len(found.data), 0)


def _parts(data: Buffer, coding: Coding, start: int, end: int, depth: int) -> Iterator[_Part]:  # noqa: C901 - one branch for each form of an element
    """The parts of a data set or of an item.

    Args:
        depth: The number of sequences around this data set or item.
    """
    if depth > NESTING_LIMIT:
        raise InvalidDataSetError(f"sequences are nested more than {NESTING_LIMIT} deep")
    found = heads(data, coding, start, end, behind_undefined(data, coding, end))
    first_ones = list(itertools.islice(found, _SORTED_LIMIT))
    if len(first_ones) < _SORTED_LIMIT:
        first_ones.sort(key=itemgetter(0))
    for tag, vr, value, length, behind in itertools.chain(first_ones, found):
        if behind > end:
            raise InvalidDataSetError(
                "an element is longer than the item or data set that contains it"
            )
        if not tag & 0xFFFF or tag == _PADDING or (tag >> 16 == 2 and not depth):
            continue
        if tag >= _DELIMITERS:
            continue  # a stray delimiter, which says nothing
        last = behind - 8 if length == UNDEFINED else behind
        inside = _coding_inside(data, coding, tag, vr, value, length)
        if inside is not None and (
            length == UNDEFINED or _is_sequence(data, inside, value, behind)
        ):
            yield _Part("sequence", tag)
            for first, past in items(data, inside, value, behind):
                yield _Part("item")
                yield from _parts(data, inside, first, past, depth + 1)
            yield _Part("end")
        elif length == UNDEFINED:
            yield _Part("fragments", tag)
            for _, _, fragment, _, past in heads(data, coding, value, last):
                yield _Part("", _ITEM, b"OB", data, fragment, past)
            yield _Part("end")
        else:
            yield _Part("", tag, vr, data, value, behind, not coding.little)


def _coding_inside(
    data: Buffer, coding: Coding, tag: int, vr: bytes, start: int, length: int
) -> Coding | None:
    """How the items of a sequence are encoded; None for a value that is not a sequence."""
    if vr == b"SQ":
        return coding
    if vr not in _UNSAID:
        return None
    # PS3.5 6.2.2: the value of UN has implicit VR little endian.
    inside = IMPLICIT if vr else coding
    known = vr_of(tag)
    if length == UNDEFINED or known == "SQ":
        return inside
    item = struct.pack(inside.order + "HH", _ITEM >> 16, _ITEM & 0xFFFF)
    return inside if known == "UN" and data[start : start + 4] == item else None


def _is_sequence(data: Buffer, coding: Coding, start: int, end: int) -> bool:
    """Whether a value of defined length is a sequence of items, each of which holds elements."""
    try:
        for first, last in items(data, coding, start, end):
            position = first
            for *_, position in heads(
                data, coding, first, last, behind_undefined(data, coding, last)
            ):
                if position > last:
                    return False
            if position != last:
                return False
    except InvalidDataSetError:
        return False
    return True


def _is_same(one: _Part, other: _Part) -> bool:
    if one[:2] != other[:2]:
        return False
    vrs = {one.vr, other.vr}
    if len(vrs) > 1 and not (vrs & _UNSAID or vrs <= _OCTETS):
        return False
    # PS3.5 7.1.1: an odd value is padded to an even length when it is written again.
    size = min(one.end - one.start, other.end - other.start)
    for each in (one, other):
        more = bytes(each.data[each.start + size : min(each.end, each.start + size + 2)])
        if more and not (size % 2 and more in (b"\0", b" ")):
            return False
    return all(
        _octets(one, position, size) == _octets(other, position, size)
        for position in range(0, size, _PIECE)
    )


def _octets(part: _Part, position: int, size: int) -> bytes:
    """A piece of a value, in little endian."""
    start = part.start + position
    octets = bytes(part.data[start : min(start + _PIECE, part.start + size)])
    if not part.is_swapped:
        return octets
    turned = swapped(part.vr.decode("latin-1"), octets)
    return turned + octets[len(turned) :]
