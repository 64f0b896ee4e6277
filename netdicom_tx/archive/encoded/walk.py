"""The walk through an encoded data set: is it whole, which instance is it, and what is in its header (PS3.5 7).

A data set that the node has promised to keep must be readable tomorrow. Therefore the node walks through its structure
to the end before it sends Success: every length must fit, and every sequence must be closed. The same walk finds the
elements that the index wants and assembles the header that the index keeps, so that the data set is read once.

The walk decodes no value and allocates no memory that the data announces, so a length of 4 GiB does no harm. Programs
that read the data set later may be less careful; so a data set is refused when it has more elements, or more deeply
nested sequences, than an instance can need.

Senders in the field write data sets that PS3.5 does not describe. What harms nobody is kept as it came, and named in
:attr:`Walked.oddities`: a file header in front of the first element, a VR that does not exist, a delimiter that ends
nothing, zeros behind the last element. What is refused is cut off, is not in its transfer syntax, or exceeds a limit.

:func:`elements` and :func:`items` go through one level of a data set that has been walked.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Final, NamedTuple

from ...encoding import (
    ELEMENT_LIMIT,
    IMPLICIT,
    NESTING_LIMIT,
    UNDEFINED,
    VRS,
    Buffer,
    Coding,
    DataSetError,
    coding_of,
    file_header_size,
    heads,
    inflate_part,
    is_deflated,
)
from .elements import Element, element_of

__all__ = [
    "ELEMENT_LIMIT",
    "HEADER_LIMIT",
    "INFLATED_LIMIT",
    "NESTING_LIMIT",
    "VALUE_LIMIT",
    "InvalidDataSetError",
    "Plain",
    "Walked",
    "behind_undefined",
    "check_end",
    "check_item",
    "cut",
    "elements",
    "find",
    "is_delimiter",
    "is_sequence_end",
    "items",
    "plain",
    "walk",
]

#: How long an element of the header may be, in octets. Longer ones are bulk data, which no query asks for.
VALUE_LIMIT: Final = 8192
#: How many octets of a header are kept. The header of an image has about 3000.
HEADER_LIMIT: Final = 1 << 18
#: How many octets of a deflated data set are inflated for the walk: in all, and for each octet that was received.
INFLATED_LIMIT = 1 << 24
INFLATION_RATIO = 200

_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_IDENTITY: Final = frozenset((_SOP_CLASS, _SOP_INSTANCE))
_UID_LENGTH = 64
# The group of pixel data, and that of items and delimiters.
_PIXELS, _DELIMITERS = 0x7FE00000, 0xFFFE0000
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_TAG = b"\xfe\xff\x00\xe0"
# Delimiters as they are encoded, in either order of octets.
_ENDS: Final = frozenset(
    struct.pack(f"{order}HHI", tag >> 16, tag & 0xFFFF, 0)
    for order in "<>"
    for tag in (_ITEM_END, _SEQUENCE_END)
)
# Octets that are compared with zeros at once.
_PIECE: Final = 1 << 16
# An element in implicit VR has no VR.
_KNOWN_VRS = VRS | {b""}
# Octets of an item's head, and of the shortest head of a sequence together with that of its item.
_HEAD, _SMALLEST_LEVEL = 8, 16


class InvalidDataSetError(DataSetError):
    """The octets are not a whole data set in their transfer syntax."""


class _CutError(InvalidDataSetError):
    """The octets end too early, which they may when a data set was inflated only in part."""


class _LimitError(InvalidDataSetError):
    """The data set exceeds a limit, no matter where."""


class Walked(NamedTuple):
    """The results of a walk.

    Attributes:
        sop_class_uid: The SOP Class UID (0008,0016); empty when it is absent or has more than 64 characters.
        sop_instance_uid: The SOP Instance UID (0008,0018); empty likewise.
        header: The elements before group 7FE0 as they are encoded (inflated), without elements of more than
            :data:`VALUE_LIMIT` octets, up to :data:`HEADER_LIMIT` octets.
        elements: The wanted elements of the header that have a value, by tag; their offsets are in ``header``.
        header_end: The offset of the first element of group 7FE0 or a higher one, or of the end.
        is_whole: False when the walk of a deflated data set ended at the limit of what is inflated.
        oddities: What is written otherwise than PS3.5 has it, for a log; the first of each kind.
    """

    sop_class_uid: str
    sop_instance_uid: str
    header: bytes
    elements: dict[int, Element]
    header_end: int
    is_whole: bool
    oddities: tuple[str, ...] = ()


def walk(
    data: Buffer,
    transfer_syntax: str,
    offset: int = 0,
    wanted: Collection[int] = (),
    *,
    limit: int | None = None,
) -> Walked:
    """Walk through a data set.

    Args:
        data: The octets that contain the data set, and end with it; a memory map for a large file.
        offset: The offset in ``data`` where the data set begins.
        wanted: The tags of the elements that are returned.
        limit: How many elements the data set may have; None means :data:`ELEMENT_LIMIT`.

    Raises:
        InvalidDataSetError: The data set is cut off, is not encoded in this transfer syntax, or has too many
            elements.
    """
    found = plain(data, transfer_syntax, offset)
    limit = ELEMENT_LIMIT if limit is None else limit
    count = itertools.chain(itertools.repeat(None, limit), _Refusal(limit))
    header = _Header(found, coding_of(transfer_syntax), _IDENTITY.union(wanted))
    try:
        header.run(count)
    except _CutError:
        if found.is_whole:
            raise
    return header.walked(found.is_whole)


class Plain(NamedTuple):
    """A data set as it is when it is inflated, behind a file header that a sender may have put in front of it.

    Attributes:
        data: The octets that contain the elements, and end with them.
        offset: Where the first element begins.
        is_whole: False when not all of a deflated data set was inflated.
        before: How many octets of ``data`` before the first element are part of the data set, too.
        has_file_header: Whether there was a file header.
    """

    data: Buffer
    offset: int
    is_whole: bool
    before: int
    has_file_header: bool


def plain(data: Buffer, transfer_syntax: str, offset: int) -> Plain:
    """Find the elements of a data set that begins at an offset of some octets; inflate it up to the limit.

    Raises:
        InvalidDataSetError: A deflated stream is damaged or cut off.
    """
    before = file_header_size(data, offset)
    if not is_deflated(transfer_syntax):
        return Plain(data, offset + before, True, before, before > 0)
    octets, is_whole = _inflated(data, offset + before)
    inside = file_header_size(octets)
    return Plain(octets, inside, is_whole, inside, before + inside > 0)


def _inflated(data: Buffer, offset: int) -> tuple[bytes, bool]:
    """What a deflated data set holds, up to the limit; and whether that is all of it.

    Raises:
        InvalidDataSetError: The stream is damaged or cut off.
    """
    limit = min(INFLATED_LIMIT, (len(data) - offset) * INFLATION_RATIO + 4096)
    try:
        octets, is_whole = inflate_part(data, limit, offset)
    except DataSetError as error:
        raise InvalidDataSetError(str(error)) from error
    if not is_whole and len(octets) < limit:
        raise InvalidDataSetError("the deflated data set ends before its stream does")
    return octets, is_whole


class _Refusal(Iterator[object]):
    """An iterator to continue with when the limit is reached: its first step raises."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __next__(self) -> object:
        raise _LimitError(f"the data set has more than {self._limit} elements")


class _Header:
    """A walk along the top level of a data set, which collects the header."""

    def __init__(self, found: Plain, coding: Coding, wanted: frozenset[int]) -> None:
        self._data = found.data
        self._coding = coding
        self._offset = found.offset
        self._begin = found.offset - found.before
        self._wanted = wanted
        self._end = len(found.data)
        self._left_out: list[tuple[int, int]] = []
        self.found: dict[int, Element] = {}
        self.header_end = self._end
        self._oddities: dict[str, str] = {}  # by kind
        if found.has_file_header:
            self._note("header", "a file header in front of the data set")

    def run(self, count: Iterator[object]) -> None:  # noqa: C901 - the hot loop of every stored instance; calls would cost more
        """Go through all elements. This is on the receive path."""
        data, coding, end, known_vrs = self._data, self._coding, self._end, _KNOWN_VRS
        inside = _Inside(data, count)
        behind_undefined = partial(inside.value, coding, end, 0)
        wanted: Collection[int] = self._wanted
        # A smaller value cannot contain sequences that are nested too deeply, and is not too long for the header.
        large = NESTING_LIMIT * _SMALLEST_LEVEL + _HEAD
        position = self._offset
        shift = -position
        bound = min(position + HEADER_LIMIT, end)
        looked = 0
        try:
            for tag, vr, value, length, behind in heads(
                data, coding, position, end, behind_undefined, count
            ):
                if tag >= _DELIMITERS or not tag:
                    # Only the first of many delimiters looks behind all of them.
                    if position >= looked:
                        looked = _behind_delimiters(data, position)
                        if _is_zero(data, looked, end):
                            break
                    # A delimiter that ends nothing is skipped, and does not belong to the header.
                    _check_stray(tag, length)
                    self._note("delimiter", f"delimiter {_show(tag)} outside a sequence")
                    self._leave_out(position, behind)
                    shift -= behind - position
                    position = behind
                    continue
                if tag >= _PIXELS and position < self.header_end:
                    self.header_end = position
                    wanted, bound = (), end
                if vr not in known_vrs:
                    self._check_vr(tag, vr)
                if length >= large or behind > bound:
                    if length != UNDEFINED:
                        inside.look(tag, vr, coding, value, min(behind, end), 0)
                    if behind > end:
                        raise cut(tag, length, value, end)
                    if wanted and (behind > bound or behind - position > VALUE_LIMIT):
                        self._leave_out(position, behind)
                        shift -= behind - position
                        bound = min(bound + behind - position, end)
                        position = behind
                        continue
                if length and tag in wanted:
                    found = element_of(tag, vr, value, length, behind, coding, shift)
                    if found.end > found.start:
                        self.found[tag] = found
                position = behind
        finally:
            self.header_end = min(self.header_end, position)
        left = end - position
        if not left:
            return
        # A sender whose last value has an odd length may add a NUL to make the fragment even (PS3.8 Annex E).
        is_padding = left == 1 and (position - self._begin) % 2 and not data[position]
        # Behind pixel data no tag begins with a zero. Before it, a few zeros may be what is left of a head.
        is_tail = left >= _HEAD or self.header_end < position
        if not is_padding:
            if not (is_tail and _ends_here(data, position, end)):
                raise _CutError(f"{left} stray octets in place of an element")
            self._note("tail", f"{left} octets of zeros or delimiters behind the data set")

    def _check_vr(self, tag: int, vr: bytes) -> None:
        _check_vr(tag, vr)
        self._note("VR", f"element {_show(tag)} has the unknown VR {vr!r}")

    def _note(self, kind: str, words: str) -> None:
        self._oddities.setdefault(kind, words)

    def _leave_out(self, start: int, end: int) -> None:
        if self._left_out and self._left_out[-1][1] == start:
            start, _ = self._left_out.pop()
        self._left_out.append((start, end))

    def walked(self, is_whole: bool) -> Walked:
        """The results of :meth:`run`."""
        parts = []
        position = self._offset
        for start, end in self._left_out:
            parts.append(bytes(self._data[position:start]))
            position = end
        parts.append(bytes(self._data[position : self.header_end]))
        header = b"".join(parts)
        return Walked(
            self._uid(header, _SOP_CLASS),
            self._uid(header, _SOP_INSTANCE),
            header,
            self.found,
            self.header_end,
            is_whole,
            tuple(self._oddities.values()),
        )

    def _uid(self, header: bytes, tag: int) -> str:
        element = self.found.get(tag)
        if element is None or element.end - element.start > _UID_LENGTH:
            return ""
        return header[element.start : element.end].decode("latin-1").rstrip("\0 ")


class _Inside:
    """A walk through the contents of sequences.

    The end of a value of undefined length can be found only when its contents are well-formed, so they must be. The
    end of a value of defined length is known, and no error in its contents can affect the rest of the data set;
    therefore only the limits are checked there, and other errors are ignored. The calls here recurse as the
    sequences do, and no deeper than the limit.
    """

    def __init__(self, data: Buffer, count: Iterator[object]) -> None:
        self._data = data
        self._count = count

    def value(self, coding: Coding, end: int, depth: int, tag: int, vr: bytes, start: int) -> int:
        """Go through a value of undefined length, and return the offset behind its delimiter.

        Args:
            depth: The number of sequences around the value.
        """
        if tag >= _DELIMITERS:
            raise _stray(tag, depth)
        # PS3.5 6.2.2: UN of undefined length has implicit VR little endian inside.
        return self._items(tag, IMPLICIT if vr == b"UN" else coding, start, end, depth + 1)

    def _items(self, tag: int, coding: Coding, start: int, end: int, depth: int) -> int:
        """Go through the items of a sequence, or the fragments of pixel data, up to their delimiter."""
        item = partial(self.item, tag, coding, end, depth)
        # A smaller item cannot contain sequences that are nested too deeply.
        large = (NESTING_LIMIT - depth + 1) * _SMALLEST_LEVEL if tag < _PIXELS else UNDEFINED
        for found, _, value, length, behind in heads(
            self._data, coding, start, end, item, self._count
        ):
            if found == _SEQUENCE_END:
                return value
            check_item(found, tag, depth)
            if large <= length < UNDEFINED:
                self._let_be(self._elements, tag, coding, value, min(behind, end), depth)
            if behind > end:
                raise cut(found, length, value, end)
        raise _CutError(f"sequence {_show(tag)} is not ended")

    def item(
        self, sequence: int, coding: Coding, end: int, depth: int, tag: int, _: bytes, start: int
    ) -> int:
        """Go through an item of undefined length, and return the offset behind its delimiter.

        Args:
            depth: The number of sequences around the item, with its own.
        """
        check_item(tag, sequence, depth)
        return self._elements(sequence, coding, start, end, depth)

    def _elements(self, sequence: int, coding: Coding, start: int, end: int, depth: int) -> int:
        """Go through the elements of an item up to its delimiter."""
        large = (NESTING_LIMIT - depth) * _SMALLEST_LEVEL + _HEAD
        behind_undefined = partial(self.value, coding, end, depth)
        for tag, vr, value, length, behind in heads(
            self._data, coding, start, end, behind_undefined, self._count
        ):
            if tag == _ITEM_END:
                return value
            if tag >= _DELIMITERS:
                raise _stray(tag, depth)
            if vr not in _KNOWN_VRS:
                _check_vr(tag, vr)
            if large <= length < UNDEFINED:
                self.look(tag, vr, coding, value, min(behind, end), depth)
            if behind > end:
                raise cut(tag, length, value, end)
        raise _CutError(f"sequence {_show(sequence)} is not ended")

    def look(self, tag: int, vr: bytes, coding: Coding, start: int, end: int, depth: int) -> None:
        """Check the limits in a value of defined length, if it is a sequence.

        Args:
            depth: The number of sequences around the value.
        """
        if vr in (b"", b"UN"):
            # Without a VR, only the first octets tell whether the value is a sequence.
            if self._data[start : start + 4] != _ITEM_TAG:
                return
            coding = IMPLICIT
        elif vr != b"SQ":
            return
        self._let_be(self._items, tag, coding, start, end, depth + 1)

    @staticmethod
    def _let_be(
        go_through: Callable[[int, Coding, int, int, int], int],
        tag: int,
        coding: Coding,
        start: int,
        end: int,
        depth: int,
    ) -> None:
        try:
            go_through(tag, coding, start, end, depth)
        except _LimitError:
            raise
        except InvalidDataSetError:
            pass


# -- one level of a data set ----------------------------------------------------------------------------


def behind_undefined(data: Buffer, coding: Coding, end: int) -> Callable[[int, bytes, int], int]:
    """What :func:`~netdicom_tx.encoding.heads` asks for the end of a value of undefined length.

    It raises an :class:`InvalidDataSetError` where the value is not ended.
    """
    return partial(_Inside(data, itertools.repeat(None)).value, coding, end, 0)


def elements(data: Buffer, coding: Coding, start: int, end: int) -> Iterator[Element]:
    """The elements of a data set or of an item, one after the other, without delimiters that end nothing.

    Raises:
        InvalidDataSetError: The octets are not elements.
    """
    inside = partial(_Inside(data, itertools.repeat(None)).value, coding, end, 0)
    position = start
    for tag, vr, value, length, behind in heads(data, coding, start, end, inside):
        if tag >= _DELIMITERS or not tag:
            if _ends_here(data, position, end):
                return
            _check_stray(tag, length)
            position = behind
            continue
        if behind > end:
            raise cut(tag, length, value, end)
        yield element_of(tag, vr, value, length, behind, coding)
        position = behind
    if not _ends_here(data, position, end):
        raise _CutError(f"{end - position} stray octets in place of an element")


def items(data: Buffer, coding: Coding, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The offsets where the items of a sequence begin and end.

    Raises:
        InvalidDataSetError: The octets are not items.
    """
    inside = partial(_Inside(data, itertools.repeat(None)).item, 0, coding, end, 1)
    position = start
    for tag, _, value, length, behind in heads(data, coding, start, end, inside):
        if tag == _SEQUENCE_END:
            return
        check_item(tag, 0, 1)
        if behind > end:
            raise cut(tag, length, value, end)
        yield value, behind - _HEAD if length == UNDEFINED else behind
        position = behind
    if position != end:
        raise _CutError(f"{end - position} stray octets in place of an item")


def find(data: Buffer, coding: Coding, wanted: Collection[int]) -> dict[int, Element]:
    """The elements of some tags in a header that a walk has assembled, as far as they have a value.

    The search ends at the highest of the tags.
    """
    end, last = len(data), max(wanted)
    inside = partial(_Inside(data, itertools.repeat(None)).value, coding, end, 0)
    found = {}
    for tag, vr, value, length, behind in heads(data, coding, 0, end, inside):
        if tag > last or behind > end:
            break
        if length and tag in wanted:
            element = element_of(tag, vr, value, length, behind, coding)
            if element.end > element.start:
                found[tag] = element
    return found


# -- what is wrong --------------------------------------------------------------------------------------


def _check_vr(tag: int, vr: bytes) -> None:
    """Tell a VR that somebody has written from octets that are none.

    Octets of a length in implicit VR, which a sender has mixed up, have a NUL and are hardly ever both printable.
    """
    if vr != b"\0\0" and not all(0x20 <= octet < 0x7F for octet in vr):
        raise InvalidDataSetError(f"element {_show(tag)} has no value representation: {vr!r}")


def _ends_here(data: Buffer, position: int, end: int) -> bool:
    """Whether nothing follows but zeros and delimiters that end nothing."""
    return _is_zero(data, _behind_delimiters(data, position), end)


def _behind_delimiters(data: Buffer, position: int) -> int:
    while bytes(data[position : position + _HEAD]) in _ENDS:
        position += _HEAD
    return position


def _is_zero(data: Buffer, position: int, end: int) -> bool:
    while position < end:
        piece = bytes(data[position : min(position + _PIECE, end)])
        if piece.strip(b"\0"):
            return False
        position += len(piece)
    return True


def _check_stray(tag: int, length: int) -> None:
    if tag not in (_ITEM_END, _SEQUENCE_END) or length:
        raise _stray(tag, 0)


def is_delimiter(tag: int) -> bool:
    """Whether a tag is that of an item or of a delimiter."""
    return tag >= _DELIMITERS


def is_sequence_end(tag: int) -> bool:
    """Whether a tag ends a sequence."""
    return tag == _SEQUENCE_END


def check_end(data: Buffer) -> None:
    """Check that what follows the last element is zeros and delimiters alone.

    Raises:
        InvalidDataSetError: There is something else.
    """
    if not _ends_here(data, 0, len(data)):
        raise _CutError(f"{len(data)} stray octets in place of an element")


def check_item(tag: int, sequence: int, depth: int) -> None:
    """Check that an item begins here.

    Raises:
        InvalidDataSetError: Something else does, or the items are nested too deeply.
    """
    if tag != _ITEM:
        raise InvalidDataSetError(
            f"expected an item in sequence {_show(sequence)}, found {_show(tag)}"
        )
    if depth > NESTING_LIMIT:
        raise _LimitError(f"sequences are nested more than {NESTING_LIMIT} deep")


def _stray(tag: int, depth: int) -> InvalidDataSetError:
    if tag not in (_ITEM, _ITEM_END, _SEQUENCE_END):
        return InvalidDataSetError(f"octets {tag:08X} in place of a tag")
    where = "inside an item" if depth else "outside a sequence"
    return InvalidDataSetError(f"delimiter {_show(tag)} {where}")


def cut(tag: int, length: int, value: int, end: int) -> InvalidDataSetError:
    """The error for an element that is longer than what is there."""
    left = max(end - value, 0)
    return _CutError(f"element {_show(tag)} says {length} octets, {left} are left")


def _show(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
