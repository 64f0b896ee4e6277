"""A data set in another uncompressed transfer syntax: octet by octet, at constant memory (PS3.5 7, A.1 to A.3, A.5).

:func:`reencode` reads a data set once, from its beginning to its end, and writes it as it goes. It changes how the data
set is written and nothing else: no value is decoded, and an element that the receiver could not read as the sender
meant it is refused by its name.

What it decides                                       why
====================================================  ==================================================================
sequences and items get an undefined length           their new length is known only at their end (PS3.5 7.5.1)
a VR that implicit VR would hide is refused           the receiver infers it from the dictionary (PS3.5 7.1.3, A.1)
elements without a known VR become UN                 PS3.5 6.2.2; inside, UN is always implicit VR little endian
a value too long for its explicit VR becomes UN       PS3.5 6.2.2 note 2
group lengths, group 0002, a file header: left out    the former would be wrong (PS3.5 7.2), the others belong to a file
====================================================  ==================================================================
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from .encoding import (
    ELEMENT_LIMIT,
    FILE_HEADER_LIMIT,
    IMPLICIT,
    LONG_VRS,
    NESTING_LIMIT,
    UNDEFINED,
    UNITS,
    VRS,
    Coding,
    DataSetError,
    Inflating,
    coding_of,
    file_header_size,
    is_deflated,
    turned,
)

__all__ = ["check_inferable", "reencode"]

#: How many octets a deflated data set may have when it is inflated.
INFLATED_LIMIT: Final = 1 << 30
# Octets of a value that are held at once; a multiple of the size of every number.
_PIECE: Final = 1 << 18
_SHORT_LIMIT: Final = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_TAG = b"\xfe\xff\x00\xe0"
_DELIMITERS, _PIXEL_DATA, _PIXEL_REPRESENTATION = 0xFFFE, 0x7FE00010, 0x00280103
_OCTETS: Final = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"))
_INTEGERS: Final = frozenset((b"SL", b"SS", b"SV", b"UL", b"US", b"UV"))
_TEXT: Final = VRS - _OCTETS - UNITS.keys() - {b"SQ", b"UN"}
# Text that may contain a backslash, and text that may have characters outside the default repertoire (PS3.5 6.2).
_SINGLE_VALUED: Final = frozenset((b"LT", b"ST", b"UR", b"UT"))
_WITH_CHARACTER_SET: Final = frozenset((b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"))


def reencode(
    read: Callable[[int], bytes],
    write: Callable[[bytes], object],
    source: str,
    target: str,
    leave_out: Callable[[int], bool] | None = None,
) -> None:
    """Write a data set in another transfer syntax, or in the same one without some elements.

    Args:
        read: Returns up to so many octets of the data set, fewer only at its end.
        write: Takes the octets of the result, in pieces. What it has got is worthless when an error is raised.
        source: The transfer syntax of what is read, an uncompressed one.
        target: The transfer syntax of what is written, an uncompressed one.
        leave_out: Called with the tag of each element, at every depth; True leaves the element out. When it leaves out
            all pixel data, the source may be in a compressed transfer syntax.

    Raises:
        DataSetError: The data set is damaged, or the receiver would misread an element, which is named.
    """
    read = _behind_file_header(read)
    if is_deflated(source):
        read = _behind_file_header(Inflating(read, INFLATED_LIMIT).read)
    deflating = _Deflating(write) if is_deflated(target) else None
    output = _Output(write if deflating is None else deflating.write)
    inside, outside = coding_of(source), coding_of(target)
    if inside == outside and leave_out is None:
        while octets := read(_PIECE):
            output.write(octets)
    else:
        _Reencoder(_Input(read), output, outside, leave_out).data_set(inside)
    output.flush()
    if deflating is not None:
        deflating.close()


def _behind_file_header(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Leave out a file header that a sender has put in front of the data set."""
    ahead = b""
    while len(ahead) < FILE_HEADER_LIMIT and (more := read(FILE_HEADER_LIMIT)):
        ahead += more
    ahead = ahead[file_header_size(ahead) :]

    def read_behind(size: int) -> bytes:
        nonlocal ahead
        found, ahead = ahead[:size], ahead[size:]
        return found or read(size)

    return read_behind


class _Deflating:
    """Deflates what is written (PS3.5 A.5)."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._size = 0

    def write(self, octets: bytes) -> None:
        self._put(self._stream.compress(octets))

    def close(self) -> None:
        self._put(self._stream.flush())
        if self._size % 2:
            self._put(b"\0")  # PS3.5 A.5: padded to an even length.

    def _put(self, octets: bytes) -> None:
        self._size += len(octets)
        self._write(octets)


class _Output:
    """Gathers small writes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, octets: bytes) -> None:
        self._parts.append(octets)
        self._size += len(octets)
        if self._size >= _PIECE:
            self.flush()

    def flush(self) -> None:
        self._write(b"".join(self._parts))
        self._parts.clear()
        self._size = 0


class _Input:
    """Reads exactly what is asked for, and knows how far it has read.

    Attributes:
        position: How many octets have been read.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._ahead = b""
        self._start = 0
        self.position = 0

    def some(self, size: int) -> bytes:
        """So many octets, or fewer at the end of the data set."""
        left = len(self._ahead) - self._start
        if left < size:
            self._ahead = self._ahead[self._start :]
            self._start = 0
            while len(self._ahead) < size and (more := self._read(max(_PIECE, size))):
                self._ahead += more
        found = self._ahead[self._start : self._start + size]
        self._start += len(found)
        self.position += len(found)
        return found

    def peek(self, size: int) -> bytes:
        """What :meth:`some` would return, which stays to be read."""
        found = self.some(size)
        self._start -= len(found)
        self.position -= len(found)
        return found

    def exactly(self, size: int) -> bytes:
        found = self.some(size)
        if len(found) < size:
            raise DataSetError("the data set is damaged: it ends inside an element")
        return found

    def pieces(self, size: int) -> Iterator[bytes]:
        """So many octets, piece by piece."""
        while size > 0:
            piece = self.exactly(min(size, _PIECE))
            size -= len(piece)
            yield piece


class _Head(NamedTuple):
    """The head of an element; the VR is empty in implicit VR."""

    tag: int
    vr: bytes
    length: int


class _Level(NamedTuple):
    """What is known of the data set or item that is being written.

    Attributes:
        depth: The number of sequences around it.
        source: How it is written in the input.
        target: How it is written in the output.
        end: Where it ends; None when a delimiter or the end of the input ends it.
    """

    depth: int
    source: Coding
    target: Coding
    end: int | None


class _Reencoder:
    """Writes one data set."""

    def __init__(
        self,
        source: _Input,
        output: _Output,
        target: Coding,
        leave_out: Callable[[int], bool] | None,
    ) -> None:
        self._input = source
        self._leave_out = leave_out
        self._write = output.write
        self._target = target
        self._sequences: list[int] = []  # the tags of the sequences around what is read
        self._heads = 0  # that were read

    def data_set(self, source: Coding) -> None:
        self._elements(_Level(0, source, self._target, None), is_signed=False)

    # -- heads -------------------------------------------------------------------------------------

    def _head(self, level: _Level) -> _Head | None:
        """The next head; None at the end of the data set or item."""
        if level.end is not None:
            if self._input.position == level.end:
                return None
            if self._input.position + 8 > level.end:
                raise self._error("an item ends inside an element")
        octets = self._input.some(8)
        self._heads += 1
        if self._heads > 2 * ELEMENT_LIMIT:  # an item or sequence may have a head at its end, too
            raise self._error(f"the data set has more than {ELEMENT_LIMIT} elements and items")
        if len(octets) < 8:
            # A NUL makes the last fragment even (PS3.8 Annex E), and some senders add more.
            if level.depth == 0 and not octets.strip(b"\0"):
                return None
            raise self._error("the data set is damaged: it ends inside an element")
        order = level.source.order
        group, element = struct.unpack_from(order + "HH", octets)
        tag = group << 16 | element
        if level.source.implicit or group == _DELIMITERS:
            (length,) = struct.unpack_from(order + "I", octets, 4)
            return _Head(tag, b"", length)
        vr = octets[4:6]
        if vr in LONG_VRS:
            (length,) = struct.unpack(order + "I", self._input.exactly(4))
        else:
            (length,) = struct.unpack_from(order + "H", octets, 6)
            if tag and not length and vr not in VRS and not self._is_head(level):
                # A VR that this code does not know, and that comes with 32 bits of length, as all new ones do.
                (length,) = struct.unpack(order + "I", self._input.exactly(4))
        return _Head(tag, vr, length)

    def _is_head(self, level: _Level) -> bool:
        """Whether an element may begin here in explicit VR, or the elements end."""
        if self._input.position == level.end:
            return True
        octets = self._input.peek(8)
        if len(octets) < 8:
            return not octets
        (group,) = struct.unpack_from(level.source.order + "H", octets)
        return group == _DELIMITERS or octets[4:6] in VRS

    def _put_head(self, target: Coding, tag: int, vr: bytes, length: int) -> None:
        group, element, order = tag >> 16, tag & 0xFFFF, target.order
        if target.implicit or not vr:
            self._write(struct.pack(order + "HHI", group, element, length))
        elif vr in LONG_VRS:
            self._write(struct.pack(order + "HH2s2xI", group, element, vr, length))
        else:
            self._write(struct.pack(order + "HH2sH", group, element, vr, length))

    # -- elements ----------------------------------------------------------------------------------

    def _elements(self, level: _Level, *, is_signed: bool) -> None:
        """Write the elements of a data set or of an item.

        Args:
            is_signed: Whether the Pixel Representation that applies says so; it decides between US and SS.
        """
        while (head := self._head(level)) is not None:
            tag, _, length = head
            if tag >> 16 == _DELIMITERS:
                if level.depth and level.end is None and tag == _ITEM_END:
                    return
                if level.depth or length:
                    raise self._error(f"{_show(tag)} stands in place of an element")
                continue  # a stray delimiter, which says nothing
            if not tag and not level.depth:
                self._check_tail(length)
                return
            if level.end is not None and length != UNDEFINED:
                self._check_room(level, head)
            if not tag & 0xFFFF or (tag >> 16 == 2 and not level.depth):
                self._skip(head)
                continue
            if self._leave_out is not None and self._leave_out(tag):
                self._skip_value(level, head)
                continue
            if tag == _PIXEL_REPRESENTATION and length == 2:
                octets = self._input.peek(2)
                is_signed = octets == (b"\1\0" if level.source.little else b"\0\1")
            self._element(level, head, is_signed)

    def _check_tail(self, length: int) -> None:
        """Pass over the zeros that some senders write behind the last element; they are no elements."""
        is_zero = not length
        while is_zero and (octets := self._input.some(_PIECE)):
            is_zero = not octets.strip(b"\0")
        if not is_zero:
            raise self._error("something follows that begins with zeros and is not an element")

    def _check_room(self, level: _Level, head: _Head) -> None:
        assert level.end is not None
        if self._input.position + head.length > level.end:
            raise self._error(f"{_name(head.tag)} is longer than its item")

    def _skip(self, head: _Head) -> None:
        if head.length == UNDEFINED:
            raise self._error(f"{_name(head.tag)} has no defined length")
        for _ in self._input.pieces(head.length):
            pass

    def _skip_value(self, level: _Level, head: _Head) -> None:
        """Leave out a value, which may be fragments of pixel data (PS3.5 A.4)."""
        if head.length != UNDEFINED:
            self._skip(head)
            return
        inside = level._replace(depth=level.depth + 1, end=None)
        while (item := self._head(inside)) is not None and item.tag == _ITEM:
            self._skip(item)
        if item is None or item.tag != _SEQUENCE_END:
            raise self._error(f"{_name(head.tag)} is not ended")

    def _element(self, level: _Level, head: _Head, is_signed: bool) -> None:
        if level.source.implicit and level.target.implicit:
            self._same(level, head)
        elif level.source.implicit:
            self._from_implicit(level, head, is_signed)
        elif level.target.implicit:
            self._to_implicit(level, head, is_signed)
        else:
            self._from_explicit(level, head, is_signed)

    def _same(self, level: _Level, head: _Head) -> None:
        """Copy an element of a value that stays in implicit VR."""
        is_sequence = head.length == UNDEFINED
        if self._leave_out is not None and b"SQ" in _known_vrs(head.tag):
            is_sequence = is_sequence or self._input.peek(4) == _ITEM_TAG
        if is_sequence:
            self._sequence(level, head, b"", level.source, is_signed=False)
            return
        self._put_head(level.target, *head)
        for piece in self._input.pieces(head.length):
            self._write(piece)

    def _from_implicit(self, level: _Level, head: _Head, is_signed: bool) -> None:
        tag, _, length = head
        vr = _vr_of(tag, is_signed)
        if length == UNDEFINED:
            if tag == _PIXEL_DATA:
                raise self._error("the pixel data is encapsulated")
            self._sequence(level, head, b"SQ", level.source, is_signed)
        elif vr == b"SQ":
            self._check_items(head, level.source)
            self._sequence(level, head, b"SQ", level.source, is_signed)
        else:
            is_too_long = vr not in LONG_VRS and length > _SHORT_LIMIT
            self._value(level, head, b"UN" if is_too_long else vr)

    def _from_explicit(self, level: _Level, head: _Head, is_signed: bool) -> None:
        """Write an element of explicit VR in the other order of octets, or in the same one."""
        tag, vr, length = head
        if vr == b"SQ":
            self._sequence(level, head, vr, level.source, is_signed)
        elif length == UNDEFINED:
            self._check_undefined(head)
            # PS3.5 6.2.2: such a value is a sequence in implicit VR little endian, in whatever it is.
            self._put_head(level.target, tag, vr, UNDEFINED)
            self._sequences.append(tag)
            self._items(_Level(level.depth, IMPLICIT, IMPLICIT, None), is_signed)
            self._sequences.pop()
        elif vr not in VRS and length and level.source != level.target:
            raise self._error(
                f"{_name(tag)} has the unknown VR {vr!r}; the order of its octets cannot be changed"
            )
        else:
            self._value(level, head, vr)

    def _to_implicit(self, level: _Level, head: _Head, is_signed: bool) -> None:
        tag, vr, length = head
        known = _known_vrs(tag)
        if vr == b"SQ":
            if length and known and b"SQ" not in known:
                raise self._misread(tag, vr, known)
            self._sequence(level, head, vr, level.source, is_signed)
        elif length == UNDEFINED:
            self._check_undefined(head)
            if known and b"SQ" not in known:
                raise self._misread(tag, b"UN with items", known)
            self._sequence(level, head, vr, IMPLICIT, is_signed)
        elif not length:
            self._put_head(level.target, tag, vr, 0)
        elif b"SQ" in known:
            if vr in VRS - {b"UN"}:
                raise self._misread(tag, vr, known)
            # PS3.5 6.2.2: a sender that did not know the VR copied the value from implicit VR.
            self._check_items(head, IMPLICIT)
            self._sequence(level, head, vr, IMPLICIT, is_signed)
        else:
            if vr not in VRS and not level.source.little:
                raise self._error(
                    f"{_name(tag)} has the unknown VR {vr!r}; the order of its octets cannot be changed"
                )
            self._value(level, head, vr, _suspect(vr, known))

    def _check_undefined(self, head: _Head) -> None:
        if head.tag == _PIXEL_DATA:
            raise self._error("the pixel data is encapsulated")
        if head.vr != b"UN":
            raise self._error(
                f"{_name(head.tag)} has no defined length, which its VR {_shown(head.vr)} cannot have"
            )

    def _check_items(self, head: _Head, coding: Coding) -> None:
        """Refuse a value that the dictionary calls a sequence, but that does not begin as one."""
        begin = self._input.peek(min(head.length, 14))
        is_item = len(begin) >= 8 and begin[:4] == struct.pack(coding.order + "HH", 0xFFFE, 0xE000)
        # In explicit VR, which some senders copy into UN, the VR stands where implicit VR has the length.
        is_explicit = begin[4:8] != bytes(4) and begin[12:14] in VRS
        if head.length and (not is_item or is_explicit):
            raise self._error(
                f"{_name(head.tag)} is a sequence by the data dictionary, but its value holds no items in "
                "implicit VR"
            )

    def _misread(self, tag: int, vr: bytes, known: frozenset[bytes]) -> DataSetError:
        expected = " or ".join(sorted(map(_shown, known)))
        return self._error(
            f"{_name(tag)} has the VR {_shown(vr)}, and the data dictionary says {expected}; implicit VR does not "
            "say the VR, so the receiver would misread it"
        )

    def _error(self, message: str) -> DataSetError:
        where = "".join(f", in {_name(tag)}" for tag in reversed(self._sequences))
        return DataSetError(message + where)

    # -- values ------------------------------------------------------------------------------------

    def _value(
        self,
        level: _Level,
        head: _Head,
        vr: bytes,
        suspect: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Write a value of defined length, padded to an even one.

        Args:
            vr: The VR that is written, and that says how long its numbers are.
            suspect: Whether a piece of the value, in little endian, would be misread.
        """
        tag, said, length = head
        unit = UNITS.get(vr, 1) if level.source.little != level.target.little else 1
        padding = length % 2
        if unit > 1 and (length + padding * (vr in _OCTETS)) % unit:
            raise self._error(
                f"{_name(tag)} has {length} octets; expected a multiple of {unit} for the VR {_shown(vr)}"
            )
        if length + padding > _SHORT_LIMIT and vr not in LONG_VRS and not level.target.implicit:
            raise self._error(
                f"{_name(tag)} has {length} octets; expected an even number for the VR {_shown(vr)}"
            )
        self._put_head(level.target, tag, vr, length + padding)
        pad = b" " if padding and vr in _TEXT - {b"UI"} else b"\0"
        left = length
        for piece in self._input.pieces(length):
            left -= len(piece)
            if padding and not left:
                piece += pad
            if unit > 1:
                piece = turned(piece, unit)
            if suspect is not None and suspect(piece):
                raise self._misread(tag, said, _known_vrs(tag))
            self._write(piece)

    def _sequence(
        self, level: _Level, head: _Head, vr: bytes, inside: Coding, is_signed: bool
    ) -> None:
        """Write a sequence with all its items.

        Args:
            vr: The VR that is written, where there is one.
            inside: How the items are written in the input.
        """
        if not head.length:
            self._put_head(level.target, head.tag, vr, 0)
            return
        end = None if head.length == UNDEFINED else self._input.position + head.length
        self._put_head(level.target, head.tag, vr, UNDEFINED)
        self._sequences.append(head.tag)
        self._items(_Level(level.depth, inside, level.target, end), is_signed)
        self._sequences.pop()

    def _items(self, level: _Level, is_signed: bool) -> None:
        """Write the items of a sequence, and its delimiter."""
        depth = level.depth + 1
        if depth > NESTING_LIMIT:
            raise self._error(f"sequences are nested more than {NESTING_LIMIT} deep")
        level = level._replace(depth=depth)
        while (head := self._head(level)) is not None:
            if head.tag == _SEQUENCE_END and level.end is None:
                break
            if head.tag != _ITEM:
                raise self._error(f"{_show(head.tag)} stands in place of an item")
            end = None if head.length == UNDEFINED else self._input.position + head.length
            if level.end is not None and (end or level.end) > level.end:
                raise self._error("an item is longer than its sequence")
            self._put_head(level.target, _ITEM, b"", UNDEFINED)
            self._elements(level._replace(end=end), is_signed=is_signed)
            self._put_head(level.target, _ITEM_END, b"", 0)
        self._put_head(level.target, _SEQUENCE_END, b"", 0)


# -- what the receiver infers -----------------------------------------------------------------------


@lru_cache(maxsize=8192)
def _known_vrs(tag: int) -> frozenset[bytes]:
    """The VRs that the data dictionary has for a tag; none for private tags and unknown ones."""
    from pydicom.datadict import dictionary_VR

    if tag >> 16 & 1:
        return frozenset()
    try:
        found = dictionary_VR(tag)
    except KeyError:
        return frozenset()
    return frozenset(each.encode() for each in found.split(" or ")) & VRS - {b"UN"}


def _vr_of(tag: int, is_signed: bool) -> bytes:
    """The VR that implicit VR stands for (PS3.5 A.1)."""
    if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
        return b"LO"  # a private creator (PS3.5 7.8.1)
    known = _known_vrs(tag)
    if len(known) <= 1:
        return next(iter(known), b"UN")
    if b"OW" in known:
        return b"OW"
    return b"SS" if is_signed else b"US"


def _suspect(vr: bytes, known: frozenset[bytes]) -> Callable[[bytes], bool] | None:
    """What tells whether a value would be misread by a VR of the dictionary; None when nothing can be.

    Args:
        vr: The VR that the sender says.
        known: The VRs of the dictionary, without SQ.
    """
    if not known or vr in known or vr not in VRS or vr == b"UN":
        return None
    if vr in _OCTETS and known & _OCTETS:
        return None
    for other in known:
        if {vr, other} <= _TEXT:
            return _suspect_text(vr, other)
        if {vr, other} <= _INTEGERS and UNITS[vr] == UNITS[other]:
            # The same number in both, unless its highest bit is set.
            unit = UNITS[vr]
            return lambda piece: any(octet & 0x80 for octet in piece[unit - 1 :: unit])
    return lambda _: True


def _suspect_text(vr: bytes, other: bytes) -> Callable[[bytes], bool] | None:
    """The same for two VRs of text: a backslash separates values, and characters have a character set, in some only."""
    splits = (vr in _SINGLE_VALUED) != (other in _SINGLE_VALUED)
    differs = (vr in _WITH_CHARACTER_SET) != (other in _WITH_CHARACTER_SET)
    if not splits and not differs:
        return None

    def suspect(piece: bytes) -> bool:
        is_plain = piece.isascii() and b"\x1b" not in piece
        return (splits and b"\\" in piece) or (differs and not is_plain)

    return suspect


def check_inferable(tag: int, vr: str) -> None:
    """Refuse a VR that is about to be written in implicit VR and that the dictionary has otherwise.

    Raises:
        DataSetError: The receiver would take the value for another kind.
    """
    octets, known = vr.encode(), _known_vrs(tag)
    if not known or octets in known or (octets == b"UN" and b"SQ" not in known):
        return
    kinds = {frozenset(_TEXT), _OCTETS, _INTEGERS}
    if not any(octets in kind and known & kind for kind in kinds):
        expected = " or ".join(sorted(map(_shown, known)))
        raise DataSetError(
            f"{_name(tag)} has the VR {vr}, and the data dictionary says {expected}; implicit VR does not say the "
            "VR, so the receiver would misread it"
        )


def _show(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _name(tag: int) -> str:
    from pydicom.datadict import keyword_for_tag

    keyword = keyword_for_tag(tag)
    return f"{keyword} {_show(tag)}" if keyword else _show(tag)


def _shown(vr: bytes) -> str:
    return vr.decode("latin-1")
