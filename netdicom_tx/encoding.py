"""How data sets are encoded: transfer syntaxes, the heads of elements, deflation (PS3.5 7.1, A.1 to A.5).

:func:`heads` is the one walk over encoded elements. It goes from head to head and decodes no value; what a caller
wants to know about the elements, the caller looks at. Data sets as objects are in :mod:`netdicom_tx.dsutils`.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from .exceptions import NetDICOMError
from .uids import (
    DEFLATED_TRANSFER_SYNTAXES,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from typing_extensions import TypeIs

__all__ = [
    "ELEMENT_LIMIT",
    "EXPLICIT",
    "FILE_HEADER_LIMIT",
    "IMPLICIT",
    "LONG_VRS",
    "NESTING_LIMIT",
    "UNDEFINED",
    "UNITS",
    "VRS",
    "Buffer",
    "Coding",
    "DataSetError",
    "Inflating",
    "coding_of",
    "file_header_size",
    "heads",
    "identity",
    "inflate_part",
    "is_data_set",
    "is_deflated",
    "is_implicit_vr",
    "is_little_endian",
    "turned",
]

Buffer = bytes | bytearray | memoryview | mmap.mmap

#: VRs whose length has 32 bits in explicit VR (PS3.5 7.1.2), as they are encoded.
LONG_VRS: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
#: All VRs of PS3.5 6.2, as they are encoded.
VRS: Final = LONG_VRS | {
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO"),
    *(b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}
#: How many octets a number of a VR has; they are turned around when the order of octets changes (PS3.5 7.3).
UNITS: Final = {
    **dict.fromkeys((b"AT", b"OW", b"SS", b"US"), 2),
    **dict.fromkeys((b"FL", b"OF", b"OL", b"SL", b"UL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
#: How many elements, items and fragments a data set may have. Enhanced multi-frame instances and whole slide images
#: have about 15 for each of up to 100,000 frames.
ELEMENT_LIMIT: Final = 1 << 21
#: How deeply sequences may be nested; real instances have fewer than 10 levels.
NESTING_LIMIT: Final = 64
#: The length of a value that ends with a delimiter (PS3.5 7.5).
UNDEFINED: Final = 0xFFFFFFFF
# Octets of a deflated data set that zlib is given at once; it copies what it does not take.
_PIECE: Final = 1 << 16
_DELIMITERS: Final = 0xFFFE
# The two UIDs of an instance, and within how many octets they stand in a usual data set.
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_IDENTITY_OCTETS = 1 << 14
# A file header in front of a data set: its preamble and prefix, its first tag's group, and how long it may be.
_PREAMBLE: Final = 128
_PREFIX: Final = b"DICM"
_GROUP_2: Final = b"\2\0"
#: How many octets of file headers are passed over in front of a data set.
FILE_HEADER_LIMIT: Final = 1 << 16


class DataSetError(NetDICOMError):
    """A data set or its Part 10 header cannot be read or written."""


class Coding(NamedTuple):
    """How elements are written: with a VR or without one, and in which order of octets."""

    implicit: bool
    little: bool

    @property
    def order(self) -> str:
        """The character that :mod:`struct` has for the order of octets."""
        return "<" if self.little else ">"


EXPLICIT: Final = Coding(implicit=False, little=True)
IMPLICIT: Final = Coding(implicit=True, little=True)

# Group, element and length; the same with a VR and 16 bits of length; a length of 32 bits.
_STRUCTS: Final = {
    coding: tuple(struct.Struct(coding.order + form).unpack_from for form in ("HHI", "HH2sH", "I"))
    for coding in (Coding(*pair) for pair in itertools.product((True, False), repeat=2))
}


def is_implicit_vr(transfer_syntax: str) -> bool:
    """Whether elements are written without a VR (PS3.5 A.1)."""
    return transfer_syntax in (IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.20")


def is_little_endian(transfer_syntax: str) -> bool:
    """Whether the lowest octet of a number comes first; in all transfer syntaxes but one (PS3.5 A.3)."""
    return transfer_syntax != EXPLICIT_VR_BIG_ENDIAN


def is_deflated(transfer_syntax: str) -> bool:
    """Whether the data set is deflated as a whole (PS3.5 A.5)."""
    return transfer_syntax in DEFLATED_TRANSFER_SYNTAXES


def coding_of(transfer_syntax: str) -> Coding:
    """The coding of a transfer syntax; that of a deflated one is the coding of the inflated octets."""
    return Coding(is_implicit_vr(transfer_syntax), is_little_endian(transfer_syntax))


def is_data_set(value: object) -> TypeIs[Dataset]:
    """Whether a value is a data set of pydicom; only a program that has loaded pydicom can have made one."""
    pydicom = sys.modules.get("pydicom.dataset")
    return pydicom is not None and isinstance(value, pydicom.Dataset)


_ENDLESS: Final[Iterator[object]] = itertools.repeat(None)
#: Given the tag, the VR and the offset of a value of undefined length: the offset behind its delimiter.
Behind = Callable[[int, bytes, int], int]


def heads(
    data: Buffer,
    coding: Coding,
    start: int,
    end: int,
    behind_undefined: Behind | None = None,
    count: Iterator[object] = _ENDLESS,
) -> Iterator[tuple[int, bytes, int, int, int]]:
    """Go from the head of one element to the head of the next, without a look at the values.

    Items and delimiters (PS3.5 7.5) have heads as well, so that the value of a sequence can be gone through in the
    same way. Nothing is checked: a value may reach beyond ``end``, and a VR may be any two octets. One that PS3.5 6.2
    does not have is taken to have 16 bits of length, unless these are 0 and no element follows them. The walk ends
    where less than a head is left.

    This stands on the receive path: each element costs a tuple and no other object.

    Args:
        start: The offset of the first head in ``data``.
        end: The offset where the elements end.
        behind_undefined: Says where a value of undefined length ends. Without it such a value reaches beyond ``end``.
        count: Ends the walk when it is exhausted, or raises then; one element takes one value of it.

    Yields:
        The tag, the VR (empty in implicit VR, and of an item or a delimiter), the offset of the value, its length,
        which may be :data:`UNDEFINED`, and the offset of the next head.
    """
    implicit_head, explicit_head, long_length = _STRUCTS[coding]
    is_explicit = not coding.implicit
    position, last, vr = start, end - 8, b""
    for _ in count:
        if position > last:
            return
        value = position + 8
        if is_explicit:
            group, element, vr, length = explicit_head(data, position)
            if group == _DELIMITERS:
                vr = b""
                (length,) = long_length(data, position + 4)
            elif vr in LONG_VRS:
                value += 4
                # A head that is cut has a value that begins beyond the end.
                length = long_length(data, position + 8)[0] if value <= end else 0
            elif not length and vr not in VRS and not _is_head(data, coding, value, end):
                # A VR that this code does not know, and that comes with 32 bits of length, as all new ones do.
                value += 4
                length = long_length(data, position + 8)[0] if value <= end else 0
        else:
            group, element, length = implicit_head(data, position)
        tag = group << 16 | element
        if length == UNDEFINED and behind_undefined is not None:
            position = behind_undefined(tag, vr, value)
        else:
            position = value + length
        yield tag, vr, value, length, position


def _is_head(data: Buffer, coding: Coding, position: int, end: int) -> bool:
    """Whether an element may begin here in explicit VR, or the elements end."""
    if position + 8 > end:
        return position == end
    group, _, vr, _ = _STRUCTS[coding][1](data, position)
    return group == _DELIMITERS or vr in VRS


def turned(octets: bytes, unit: int) -> bytes:
    """Numbers in the other order of octets.

    Args:
        octets: Any number of them.
        unit: How many octets each has.
    """
    result = bytearray(len(octets))
    for place in range(unit):
        result[place::unit] = octets[unit - 1 - place :: unit]
    return bytes(result)


class Inflating:
    """Undoes the deflation of a data set (PS3.5 A.5) piece by piece, at constant memory.

    Args:
        read: Returns up to so many octets of the stream, none at its end.
        limit: How many octets the result may have, so that a small message cannot fill memory or disk.

    Attributes:
        is_whole: Whether the end of the stream has come.
    """

    def __init__(self, read: Callable[[int], bytes], limit: int) -> None:
        self._read = read
        self._limit = self._left = limit
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._tail = b""

    @property
    def is_whole(self) -> bool:
        return self._stream.eof

    def some(self, size: int) -> bytes:
        """Up to so many octets; none at the end, at the limit, and where the stream is cut off.

        Raises:
            DataSetError: The stream is damaged.
        """
        size = min(size, self._left)
        found = b""
        while size > 0 and not found and not self._stream.eof:
            piece = self._tail or self._read(_PIECE)
            try:
                found = self._stream.decompress(piece, size)
            except zlib.error as error:
                raise DataSetError(f"the deflated data set is damaged: {error}") from error
            self._tail = self._stream.unconsumed_tail
            if not piece:
                break
        self._left -= len(found)
        return found

    def read(self, size: int) -> bytes:
        """Up to so many octets; none at the end of the stream.

        Raises:
            DataSetError: The stream is damaged or cut off, or its result is longer than the limit.
        """
        found = self.some(size)
        if size > 0 and not found and not self._stream.eof:
            # At the limit, one octet more tells whether there is more than that.
            self._left += 1
            if self.some(1):
                raise DataSetError(
                    f"the deflated data set has more than {self._limit} octets when inflated"
                )
            if not self._stream.eof:
                raise DataSetError(
                    "the deflated data set is damaged: it ends before its stream does"
                )
        return found


def file_header_size(data: Buffer, start: int = 0) -> int:
    """How many octets of file header stand in front of a data set, where only the data set belongs.

    Some senders take the header of a file (PS3.10 7.1) for a part of the data set: group 0002 in explicit VR little
    endian, whatever the transfer syntax, often with the preamble and the prefix. The header ends where its group length
    says, and otherwise before the first element of another group. When there are several headers, all are counted, as
    far as they are within :data:`FILE_HEADER_LIMIT` octets.

    Group 0002 that is written as the data set is, in implicit VR or in big endian, is not counted: its elements are
    read like all others.

    Args:
        data: The octets, of which the first :data:`FILE_HEADER_LIMIT` behind ``start`` are enough.
        start: The offset where the data set should begin.
    """
    end = min(len(data), start + FILE_HEADER_LIMIT)
    position = start
    while (behind := _behind_file_header(data, position, end)) > position:
        position = behind
    return position - start


def _behind_file_header(data: Buffer, start: int, end: int) -> int:
    """Where a file header ends that begins here; the same offset when none does."""
    begin = start
    for preamble in (_PREAMBLE, 0):
        prefix = start + preamble
        if bytes(data[prefix : prefix + len(_PREFIX)]) == _PREFIX:
            begin = prefix + len(_PREFIX)
            break
    position, said = begin, -1
    if bytes(data[begin : begin + 2]) == _GROUP_2:
        for tag, vr, value, length, behind in heads(data, EXPLICIT, begin, end):
            if tag >> 16 != 2 or vr not in VRS or behind > end:
                break
            if not tag & 0xFFFF and position == begin:
                said = behind + int.from_bytes(data[value : value + min(length, 4)], "little")
            position = behind
            if position == said:
                break
    if position > begin:
        return position
    # A prefix without group 0002 may be text; no data set begins with an empty preamble.
    has_preamble = begin == start + _PREAMBLE + len(_PREFIX)
    is_empty = has_preamble and begin <= end and not any(data[start : start + _PREAMBLE])
    return begin if is_empty else start


def inflate_part(data: Buffer, limit: int, start: int = 0) -> tuple[bytes, bool]:
    """Undo the deflation of a data set (PS3.5 A.5), up to a limit.

    Args:
        limit: How many octets the result may have.
        start: The offset of the stream in ``data``.

    Returns:
        The octets, and whether the stream ends with them.

    Raises:
        DataSetError: The stream is damaged.
    """
    position = start

    def read(size: int) -> bytes:
        nonlocal position
        position += size
        return bytes(data[position - size : position])

    stream = Inflating(read, limit)
    parts = []
    while part := stream.some(limit):
        parts.append(part)
    return b"".join(parts), stream.is_whole


def identity(file: BinaryIO, transfer_syntax: str) -> tuple[str, str] | None:
    """Read the SOP class and the SOP instance from the first octets of a data set.

    Args:
        file: A file that is positioned at the data set. Its position afterwards is undefined.

    Returns:
        The two UIDs, empty where absent; None when something unusual, such as a long element,
        stands before them.
    """
    raw = file.read(_IDENTITY_OCTETS)
    start = file_header_size(raw)
    if is_deflated(transfer_syntax):
        try:
            raw, _ = inflate_part(raw, _IDENTITY_OCTETS, start)
        except DataSetError:
            return None
        start = file_header_size(raw)
    found = {_SOP_CLASS: "", _SOP_INSTANCE: ""}
    for tag, _, value, _, behind in heads(raw, coding_of(transfer_syntax), start, len(raw)):
        if tag > _SOP_INSTANCE:
            return found[_SOP_CLASS], found[_SOP_INSTANCE]
        if behind > len(raw):
            return None
        if tag in found:
            found[tag] = raw[value:behind].decode("latin-1").rstrip("\0 ")
    return None
