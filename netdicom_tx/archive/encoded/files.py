"""The walk through the data set of a file, which is read and never mapped.

If a mapped file is truncated, a signal ends the process. A file is read up to its pixel data, which is little. In the
pixel data, only the heads of the elements and fragments are read, and so it is with other long values, such as an
encapsulated document.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

from ...encoding import (
    FILE_HEADER_LIMIT,
    UNDEFINED,
    Coding,
    coding_of,
    file_header_size,
    heads,
    is_deflated,
)
from .walk import (
    InvalidDataSetError,
    Walked,
    behind_undefined,
    check_end,
    check_item,
    cut,
    is_delimiter,
    is_sequence_end,
    walk,
)

__all__ = ["before_pixels", "walk_file"]

_PIXELS: Final = 0x7FE00000
#: The largest data set that is read at once, in octets.
_WHOLE: Final = 1 << 22
#: How many octets of a longer data set, or of a run of heads, are read first.
_FIRST: Final = 1 << 17
_RUN: Final = 1 << 12
#: How many octets tell whether a file header stands in front of the data set.
_GLANCE: Final = 256
#: How long a value is that is not read, in octets; more than any that is kept of a header.
_LONG: Final = 1 << 20
#: Values of these VRs are read whole, because they may contain sequences.
_MAY_BE_SEQUENCES: Final = frozenset((b"", b"SQ", b"UN"))
# The longest head: a tag, a VR, two octets, and 32 bits of length.
_HEAD: Final = 12


def walk_file(
    descriptor: int, transfer_syntax: str, offset: int = 0, wanted: Collection[int] = ()
) -> Walked:
    """Walk through the data set of a file, which begins at an offset and ends with the file.

    Args:
        descriptor: The open file. Its position is neither used nor changed.
        transfer_syntax: The transfer syntax of the data set.
        offset: Where the data set begins.
        wanted: The tags of the elements that are returned.

    Raises:
        InvalidDataSetError: The data set is cut off, or is not encoded in this transfer syntax.
        OSError: The file cannot be read.
    """
    size = os.fstat(descriptor).st_size - offset
    if size <= _WHOLE or is_deflated(transfer_syntax):
        return walk(_read(descriptor, offset, size), transfer_syntax, 0, wanted)
    if file_header_size(_read(descriptor, offset, _GLANCE)):
        before = file_header_size(_read(descriptor, offset, FILE_HEADER_LIMIT))
        offset, size = offset + before, size - before
    coding, length = coding_of(transfer_syntax), _FIRST
    while length < size:
        data = _read(descriptor, offset, length)
        pixels = _pixels(data, coding)
        if pixels is not None:
            found = walk(data[:pixels], transfer_syntax, 0, wanted)
            _Behind(descriptor, coding, offset + size).check(offset + pixels)
            return found
        length *= 4
        if length > _WHOLE:
            return _walk_by_heads(descriptor, transfer_syntax, offset, size, wanted)
    return walk(_read(descriptor, offset, size), transfer_syntax, 0, wanted)


def _walk_by_heads(
    descriptor: int, transfer_syntax: str, offset: int, size: int, wanted: Collection[int]
) -> Walked:
    """Walk through a data set without the long values in front of its pixel data, which no header has."""
    coding, end = coding_of(transfer_syntax), offset + size
    behind = _Behind(descriptor, coding, end)
    parts: list[bytes] = []
    start = position = offset
    left_out = 0
    while (found := behind.head(position)) is not None:
        tag, vr, length, value = found
        if tag >= _PIXELS and not is_delimiter(tag):
            break
        if not tag:
            # Zeros behind the last element: what they may be, the walk knows.
            found = None
            break
        if length == UNDEFINED:
            # The end of a sequence is known only to those who go through it.
            return walk(_read(descriptor, offset, size), transfer_syntax, 0, wanted)
        if length > _LONG and vr not in _MAY_BE_SEQUENCES:
            if value + length > end:
                raise cut(tag, length, value, end)
            parts.append(_read(descriptor, start, position - start))
            start = value + length
            left_out += start - position
        position = value + length
        if position > end:
            raise cut(tag, length, value, end)
    parts.append(_read(descriptor, start, position - start))
    if found is None:
        parts.append(_read(descriptor, position, end - position))
    walked = walk(b"".join(parts), transfer_syntax, 0, wanted)
    if found is not None:
        behind.check(position)
    return walked._replace(header_end=walked.header_end + left_out)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    """This many octets, or fewer at the end of the file."""
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, offset)):
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def before_pixels(data: bytes, transfer_syntax: str, offset: int) -> bytes | None:
    """What a data set has in front of its pixel data, when the first octets of a file have all of it.

    Nothing is said about the rest of the file.

    Args:
        data: The first octets of the file.
        transfer_syntax: The transfer syntax of the data set, which is not a deflated one.
        offset: Where the data set begins.
    """
    start = offset + file_header_size(data, offset)
    pixels = _pixels(data[start:], coding_of(transfer_syntax), is_cut=True)
    return None if pixels is None else data[offset : start + pixels]


def _pixels(data: bytes, coding: Coding, *, is_cut: bool = False) -> int | None:
    """Where the elements of group 7FE0 and higher ones begin; None when that is not in these octets.

    Args:
        is_cut: Whether fragments of pixel data may go on behind these octets.
    """
    position, end = 0, len(data) - _HEAD
    inside = behind_undefined(data, coding, len(data))

    def behind_value(tag: int, vr: bytes, start: int) -> int:
        return len(data) if is_cut and tag >= _PIXELS else inside(tag, vr, start)

    try:
        for tag, _, _, _, behind in heads(data, coding, 0, len(data), behind_value):
            if tag >= _PIXELS and not is_delimiter(tag):
                return position
            if behind > end:
                return None
            position = behind
    except InvalidDataSetError:
        # A sequence may go on behind these octets; if there is a fault in it, the walk of more of them finds it.
        return None
    return None


class _Behind:
    """The elements from the pixel data on, of which only the heads are read."""

    def __init__(self, descriptor: int, coding: Coding, end: int) -> None:
        self._descriptor = descriptor
        self._coding = coding
        self._end = end
        self._start = 0
        self._run = b""

    def head(self, position: int) -> tuple[int, bytes, int, int] | None:
        """Tag, VR, length, and the offset of the value; None when the head is not complete."""
        at = position - self._start
        if not 0 <= at <= len(self._run) - _HEAD:
            self._start, at = position, 0
            self._run = _read(self._descriptor, position, min(_RUN, self._end - position))
        for tag, vr, value, length, _ in heads(self._run, self._coding, at, len(self._run)):
            return tag, vr, length, self._start + value
        return None

    def check(self, position: int) -> None:
        """Go through the elements to the end of the file.

        Raises:
            InvalidDataSetError: An element is not complete, or is not an element.
        """
        while position < self._end:
            head = self.head(position)
            if head is None or is_delimiter(head[0]) or not head[0]:
                check_end(_read(self._descriptor, position, self._end - position))
                return
            tag, _, length, value = head
            position = self._fragments(tag, value) if length == UNDEFINED else value + length
            if position > self._end:
                raise cut(tag, length, value, self._end)

    def _fragments(self, tag: int, position: int) -> int:
        """Go through the fragments of encapsulated pixel data, and return the offset behind their delimiter."""
        while (head := self.head(position)) is not None:
            found, _, length, value = head
            if is_sequence_end(found):
                return value
            check_item(found, tag, 1)
            if length == UNDEFINED:
                raise InvalidDataSetError("a fragment of pixel data has no length")
            position = value + length
        raise cut(tag, UNDEFINED, position, self._end)
