"""Look through an encoded data set without decoding it: is it whole, and what does it say it is (PS3.5 7).

A data set that a node has promised to keep must be readable tomorrow, so its structure is walked
once, to its end, before Success is sent: every length fits, every sequence is closed. Values of a
few elements are picked up on the way. The walk is iterative and allocates nothing that the data
announces, so neither nesting nor a length of 4 GiB can hurt.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import NamedTuple

from ..dsutils import is_deflated, is_implicit_vr, is_little_endian
from ..exceptions import NetDICOMError

__all__ = ["InvalidDataSetError", "Scanned", "scan"]

#: Sequences within sequences; what is in use has less than 10.
NESTING_LIMIT = 64
#: Octets of a deflated data set that are inflated for the walk, and how many for one that came.
INFLATED_LIMIT = 1 << 24
INFLATION_RATIO = 200

_LONG_VRS = frozenset(
    (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_PICKED = frozenset((0x00080016, 0x00080018))

_Buffer = bytes | memoryview | mmap.mmap


class InvalidDataSetError(NetDICOMError):
    """The octets are no whole data set in their transfer syntax."""


class Scanned(NamedTuple):
    """What was found.

    Attributes:
        pixel_data: Offset of the first element from (7FE0,0010) on, or of the end.
        is_whole: False when the walk of a deflated data set stopped at its limit.
    """

    sop_class_uid: str
    sop_instance_uid: str
    pixel_data: int
    is_whole: bool


def scan(data: _Buffer, transfer_syntax: str, offset: int = 0) -> Scanned:
    """Walk a data set.

    Args:
        data: Octets that hold it, a memory map for a large file.
        offset: Where it begins in them; it ends with them.

    Raises:
        InvalidDataSetError: It is cut off, or is none in this transfer syntax.
    """
    if not is_deflated(transfer_syntax):
        return _Walk(data, transfer_syntax, is_cut=False).run(offset)
    limit = min(INFLATED_LIMIT, (len(data) - offset) * INFLATION_RATIO + 4096)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = stream.decompress(memoryview(data)[offset:], limit)
    except zlib.error as error:
        raise InvalidDataSetError(f"the deflated data set is damaged: {error}") from error
    if not stream.eof and not stream.unconsumed_tail and len(plain) < limit:
        raise InvalidDataSetError("the deflated data set ends in its middle")
    return _Walk(plain, transfer_syntax, is_cut=not stream.eof).run(0)


class _Walk:
    """The state of a walk; ``is_cut`` bears an end in the middle."""

    def __init__(self, data: _Buffer, transfer_syntax: str, *, is_cut: bool) -> None:
        self._data = data
        self._end = len(data)
        self._is_cut = is_cut
        self._is_implicit = is_implicit_vr(transfer_syntax)
        order = "<" if is_little_endian(transfer_syntax) else ">"
        self._tag_and_length = struct.Struct(order + "HHI")
        self._short = struct.Struct(order + "HH2sH")
        self._length = struct.Struct(order + "I")
        self._little = struct.Struct("<HHI")

    def run(self, offset: int) -> Scanned:
        picked: dict[int, str] = {}
        pixel_data = 0
        position = offset
        try:
            while position < self._end:
                tag, value, length, is_implicit = self._element(position, self._is_implicit)
                if tag >> 16 == 0xFFFE:
                    raise InvalidDataSetError(f"delimiter {_show(tag)} outside a sequence")
                if tag >= _PIXEL_DATA and not pixel_data:
                    pixel_data = position
                if tag in _PICKED:
                    picked[tag] = self._text(value, length)
                if length == _UNDEFINED:
                    position = self._sequence(value, tag, is_implicit)
                else:
                    position = value + length
                    if position > self._end:
                        raise self._cut(tag, length, value)
        except _EndOfCutDataError:
            return self._found(picked, pixel_data or self._end, is_whole=False)
        return self._found(picked, pixel_data or self._end, is_whole=True)

    @staticmethod
    def _found(picked: dict[int, str], pixel_data: int, *, is_whole: bool) -> Scanned:
        return Scanned(picked.get(0x00080016, ""), picked.get(0x00080018, ""), pixel_data, is_whole)

    def _text(self, value: int, length: int) -> str:
        if length > 64 or value + length > self._end:
            return ""
        return bytes(self._data[value : value + length]).decode("latin-1").rstrip("\0 ")

    def _cut(self, tag: int, length: int, value: int) -> Exception:
        if self._is_cut:
            return _EndOfCutDataError()
        return InvalidDataSetError(
            f"element {_show(tag)} says {length} octets, {max(self._end - value, 0)} are left"
        )

    def _element(self, position: int, is_implicit: bool) -> tuple[int, int, int, bool]:
        """Tag, offset of the value, its length, and whether what is inside has implicit VR."""
        if position + 8 > self._end:
            if self._is_cut:
                raise _EndOfCutDataError
            raise InvalidDataSetError(
                f"{self._end - position} stray octets where an element is expected"
            )
        if is_implicit:
            unpack = self._little if not self._is_implicit else self._tag_and_length
            group, element, length = unpack.unpack_from(self._data, position)
            return group << 16 | element, position + 8, length, True
        group, element, vr, short = self._short.unpack_from(self._data, position)
        tag = group << 16 | element
        if group == 0xFFFE:
            (length,) = self._length.unpack_from(self._data, position + 4)
            return tag, position + 8, length, False
        if vr in _LONG_VRS:
            if position + 12 > self._end:
                raise self._cut(tag, 0, position + 12)
            (length,) = self._length.unpack_from(self._data, position + 8)
            # PS3.5 6.2.2: UN of undefined length is encoded as implicit VR little endian.
            return tag, position + 12, length, vr == b"UN"
        if not (vr.isalpha() and vr.isupper()):
            raise InvalidDataSetError(f"element {_show(tag)} has no value representation: {vr!r}")
        return tag, position + 8, short, False

    def _sequence(self, position: int, tag: int, is_implicit: bool) -> int:
        """Walk a sequence, or encapsulated pixel data, of undefined length; the offset behind it."""
        # Each entry: inside an item of undefined length (True) or between items (False), and the
        # encoding there. Items and sequences of defined length are stepped over.
        stack: list[tuple[bool, bool]] = [(False, is_implicit)]
        while stack:
            in_item, is_implicit = stack[-1]
            inner, value, length, inside = self._element(position, is_implicit)
            if in_item:
                if inner == _ITEM_END:
                    stack.pop()
                    position = value
                    continue
                if inner >> 16 == 0xFFFE:
                    raise InvalidDataSetError(f"delimiter {_show(inner)} inside an item")
                if length == _UNDEFINED:
                    stack.append((False, inside))
                    if len(stack) > 2 * NESTING_LIMIT:
                        raise InvalidDataSetError(
                            f"sequences are nested more than {NESTING_LIMIT} deep"
                        )
                    position = value
                    continue
            else:
                if inner == _SEQUENCE_END:
                    stack.pop()
                    position = value
                    continue
                if inner != _ITEM:
                    raise InvalidDataSetError(
                        f"{_show(inner)} in sequence {_show(tag)}, where an item is expected"
                    )
                if length == _UNDEFINED:
                    stack.append((True, is_implicit))
                    position = value
                    continue
            position = value + length
            if position > self._end:
                raise self._cut(inner, length, value)
        return position


class _EndOfCutDataError(Exception):
    """The inflated part of a data set is over."""


def _show(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
