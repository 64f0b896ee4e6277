"""The journal of a store: instances that were acknowledged, and are not yet files and rows.

To make a small file durable costs an fsync of the file, a rename, and an fsync of its folder. To append the same octets
to a file that exists costs one fdatasync, which all instances that wait share. So the node appends an instance to the
journal, syncs it, and answers Success; files and rows are made from many instances at a time behind the answer. After a
crash, the next start makes the files that are missing from the journal.

The journal consists of *segments*, files of one size under ``journal/``. A segment is a sequence of records::

    offset  octets  of a record
    0       8       the magic octets
    8       8       its number, which is one more than that of the record before it in the segment
    16      8       the length of its octets
    24      32      the SHA-256 of its octets
    56      4       the CRC-32 of the 56 octets above
    60      4       zero
    64      length  its octets: a Part 10 file

Each record begins at a multiple of :data:`PAGE`, so no page has to be read before it is written. A record whose first
64 octets are damaged or missing, or that has another number than expected, ends its segment. One whose other octets are
damaged is left out. After a crash such a record was never acknowledged, because that happens after the sync.

Where the file system allows it, records go to the disk past the page cache (``O_DIRECT``): nobody reads them there, and
the copy into it costs more than the one that puts them into whole pages. What is written is then a multiple of a page,
from memory that begins at a page.

To sync blocks that were never written costs three times as much as to sync others. So when half of a segment is used,
:meth:`Journal.prepare` makes the next one and fills it with zeros, in a thread that nobody waits for.

A segment that is full is *retired* when all its instances are files that are on the disk, with their rows. Its first
record is overwritten, and the segment is used again: its blocks are allocated already, so a sync has less to write.

A page behind the records, the *mark*, says how many of them need no start any more, although the segment is not retired
yet::

    offset  octets  of the mark
    0       8       the magic octets
    8       8       the number of the first record in the segment, so that the mark of an earlier use says nothing
    16      8       how many records from the first one on are done with
    24      4       the CRC-32 of the 24 octets above

It is written when nodes share the store: what one of them has put there, another one may delete or replace, and a start
of the first one must not bring it back. It is not synced by itself, because that would cost as much as a record. It
outlives the process at once, and a power cut when the next record is synced.

All functions block. This module knows neither Twisted nor the index.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import re
import stat
import struct
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

__all__ = ["PAGE", "SEGMENT_SIZE", "Journal", "JournalError", "Segment", "sync_files"]

#: The size of a segment in octets.
SEGMENT_SIZE: Final = 1 << 25
#: How many segments there are at most, unless the journal is told otherwise.
SEGMENTS: Final = 4
#: Records begin at multiples of this.
PAGE: Final = 4096

_MAGIC: Final = b"netdicom"
_FACTS: Final = struct.Struct(">8sQQ32s")
_CHECK: Final = struct.Struct(">II")
_MARK_MAGIC: Final = b"finished"
_MARK: Final = struct.Struct(">8sQQ")
_MARK_CHECK: Final = struct.Struct(">I")
_HEAD: Final = _FACTS.size + _CHECK.size
_PADDING: Final = bytes(PAGE)
# How many octets of a new segment are filled with zeros at a time.
_AHEAD: Final = 1 << 22
# From how many octets on no zeros are written first.
_LARGE: Final = 1 << 18
# The kernel's limit for the buffers of one write, IOV_MAX, is 1024.
_BUFFERS: Final = 1023
# How many octets are written past the page cache at a time.
_DIRECT: Final = 1 << 22
# 0 where the system has no such way.
_O_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


class JournalError(Exception):
    """The journal cannot take more at the moment; the instance must be stored without it."""


class Segment:
    """One file of the journal.

    Attributes:
        position: Where the next record begins.
        written: Up to where something was written, records or zeros.
        is_direct: Whether it is written past the page cache.
        is_bad: Whether the disk has refused to write or to sync it.
        is_doubtful: Whether records may be in it that :meth:`Journal.append` has not confirmed.
        first: The number of its first record.
        unfinished: How many of its records are not yet files and rows.
        marked: How many of its records are marked as done with.
        paths: The files that were made from its records.
    """

    __slots__ = (
        "descriptor",
        "first",
        "is_bad",
        "is_direct",
        "is_doubtful",
        "marked",
        "path",
        "paths",
        "position",
        "unfinished",
        "written",
    )

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.is_direct = False
        self.is_bad = False
        self.is_doubtful = False
        self.position = 0
        self.written = 0
        self.first = 0
        self.unfinished = 0
        self.marked = 0
        self.paths: list[str] = []


class Entry(NamedTuple):
    """What :meth:`Journal.append` takes: the octets of a Part 10 file, and their SHA-256."""

    octets: bytes
    digest: bytes


class Journal:
    """The journal of one storage directory, which one process uses at a time. Any thread may call the methods.

    Args:
        folder: The folder of the segments; it must exist.
        fsync: Whether records survive a power cut. They survive a crash of the process in any case.
        has_room: Tells whether the disk has room for so many octets more, before a segment is made.
        segments: How many segments there are at most. When more than :data:`SEGMENTS` are free, the others are deleted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool = True,
        has_room: Callable[[int], bool] = lambda _: True,
        segments: int = SEGMENTS,
    ) -> None:
        self._folder = folder
        self._segments = segments
        self._fsync = fsync
        self._has_room = has_room
        self._active: Segment | None = None
        self._free: list[Segment] = []
        self._full: list[Segment] = []
        self._made = 0
        self._wants_segment = False
        self._number = 0
        self._pages: memoryview | None = None  # what is written past the page cache stands here
        self._guard = threading.RLock()

    # -- after a start -------------------------------------------------------------------------------

    def recover(self) -> Iterator[tuple[bytes, str]]:
        """The records that an earlier process has left, in the order of their numbers, with their digests.

        Those that are marked are left out.

        Raises:
            OSError: A segment cannot be read.
        """
        found: list[tuple[int, Path]] = []
        for path in self._folder.glob("*.segment"):
            with _opened(path) as file:
                head = _read_head(file.read(_HEAD))
            if head is not None:
                found.append((head[0], path))
        for _, path in sorted(found):
            yield from _records(path)

    def clear(self) -> None:
        """Delete all segments. Call this when all that is in them is on the disk elsewhere.

        Raises:
            OSError: The folder cannot be written.
        """
        self.close()
        for path in self._folder.glob("*.segment"):
            path.unlink()
        self._sync_folder()

    def close(self) -> None:
        """Close all segments, and leave them for :meth:`recover`."""
        self.seal()
        segments, self._free, self._full = (*self._free, *self._full), [], []
        for segment in segments:
            with suppress(OSError):  # all that counts was synced
                os.close(segment.descriptor)

    # -- the way in ----------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> list[Segment]:
        """Append records, and sync them. When this returns, they are on the disk for good.

        Returns:
            The segment of each record that was appended; the last ones are missing when they need another segment,
            and there is none.

        Raises:
            JournalError: No segment is free, so one must be retired first; or the disk has no room for another one.
                Nothing was appended.
            OSError: The disk has failed. Some of the records may be in the journal nevertheless, see
                :attr:`is_doubtful`.
        """
        segments: list[Segment] = []
        with self._guard:
            try:
                self._append(entries, segments)
            except BaseException:
                self.seal()
                for each in segments:
                    each.is_doubtful = True
                raise
            for each in segments:
                each.unfinished += 1
        return segments

    def _append(self, entries: Sequence[Entry], segments: list[Segment]) -> None:
        batch: list[bytes] = []
        batch_size = 0
        segment = self._active
        for octets, digest in entries:
            size = _HEAD + len(octets)
            padding = -size % PAGE
            if segment is None or segment.position + batch_size + size + padding > SEGMENT_SIZE:
                if segment is not None:
                    self._write(segment, batch)
                    batch, batch_size = [], 0
                try:
                    segment = self._next_segment()
                except (OSError, JournalError):
                    if segments:
                        return
                    raise
            self._number += 1
            facts = _FACTS.pack(_MAGIC, self._number, len(octets), digest)
            batch += (facts, _CHECK.pack(zlib.crc32(facts), 0), octets, _PADDING[:padding])
            batch_size += size + padding
            segments.append(segment)
        if segment is not None:
            self._write(segment, batch)

    def _write(self, segment: Segment, buffers: list[bytes]) -> None:
        if not buffers:
            return
        position = segment.position
        try:
            self._write_ahead(segment, sum(map(len, buffers)))
            if segment.is_direct:
                position = self._write_direct(segment.descriptor, buffers, position)
            else:
                for start in range(0, len(buffers), _BUFFERS):
                    position += _write_all(
                        segment.descriptor, buffers[start : start + _BUFFERS], position
                    )
            if self._fsync:
                os.fdatasync(segment.descriptor)
        except OSError:
            # What a sync that failed has left of the segment is not known, so append() seals it.
            segment.is_bad = True
            raise
        if self._fsync and segment.position <= SEGMENT_SIZE // 2 < position:
            self._wants_segment = True
        segment.position = position
        segment.written = max(segment.written, position)

    def _write_direct(self, descriptor: int, buffers: list[bytes], position: int) -> int:
        """Write records past the page cache, and return where they end; the guard is held."""
        pages = self._pages
        if pages is None:
            pages = self._pages = _in_pages(_DIRECT)
        filled = 0
        for each in buffers:
            left = memoryview(each)
            while left:
                size = min(len(left), _DIRECT - filled)
                pages[filled : filled + size] = left[:size]
                left = left[size:]
                filled += size
                if filled == _DIRECT:
                    position += _write_all(descriptor, [pages], position)
                    filled = 0
        if filled:
            position += _write_all(descriptor, [pages[:filled]], position)
        return position

    @staticmethod
    def _write_ahead(segment: Segment, size: int) -> None:
        """Write zeros where small records will stand in a segment that was not prepared.

        Zeros for large records would cost more than they save.
        """
        if size < _LARGE and segment.position + size > segment.written:
            _fill(
                segment, min(max(segment.position + size, segment.written + _AHEAD), SEGMENT_SIZE)
            )

    def wants_segment(self) -> bool:
        """Whether it is time for :meth:`prepare`, in a thread that has time; this is said once for each segment."""
        wanted, self._wants_segment = self._wants_segment, False
        return wanted

    def prepare(self) -> None:
        """Make the segment that follows, if there is none yet and there may be one more.

        Raises:
            OSError: The disk has failed.
        """
        with self._guard:
            if self._free or len(self._full) >= self._segments - 1:
                return
        if not self._has_room(SEGMENT_SIZE):
            return
        segment = self._make_segment()
        try:
            _fill(segment, SEGMENT_SIZE)
            os.fdatasync(segment.descriptor)
        except OSError:
            self._discard(segment)
            raise
        with self._guard:
            self._free.append(segment)

    def _next_segment(self) -> Segment:
        self.seal()
        if self._free:
            segment = self._free.pop()
        elif len(self._full) >= self._segments:
            raise JournalError("all segments of the journal are full")
        elif not self._has_room(SEGMENT_SIZE):
            raise JournalError("the disk has no room for a segment of the journal")
        else:
            segment = self._make_segment()
        segment.position = 0
        segment.first = self._number + 1
        segment.marked = 0
        self._active = segment
        return segment

    def _make_segment(self) -> Segment:
        with self._guard:
            self._made += 1
            path = self._folder / f"{os.getpid()}-{self._made}.segment"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        segment = Segment(path, descriptor)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, SEGMENT_SIZE + PAGE)
            else:
                os.ftruncate(descriptor, SEGMENT_SIZE + PAGE)
            if self._fsync:
                os.fsync(descriptor)
                self._sync_folder()
                segment.is_direct = _bypass_cache(descriptor)
        except OSError:
            self._discard(segment)
            raise
        return segment

    @staticmethod
    def _discard(segment: Segment) -> None:
        """Delete a segment that was never used."""
        os.close(segment.descriptor)
        with suppress(OSError):
            segment.path.unlink()

    # -- the way out ---------------------------------------------------------------------------------

    def finish(self, segments: Iterable[Segment]) -> None:
        """Note that records of these segments are files and rows now, one for each time that a segment is named."""
        with self._guard:
            for each in segments:
                each.unfinished -= 1

    def mark(self, segments: Iterable[Segment]) -> None:
        """Mark records that no start needs, the first ones of each segment; call this before :meth:`finish`.

        Args:
            segments: As for :meth:`finish`.

        Raises:
            OSError: The disk has failed. A start brings back what is not marked.
        """
        with self._guard:
            for segment, count in Counter(segments).items():
                segment.marked += count
                mark = _MARK.pack(_MARK_MAGIC, segment.first, segment.marked)
                page = _in_pages(PAGE)
                octets = mark + _MARK_CHECK.pack(zlib.crc32(mark))
                page[: len(octets)] = octets
                _write_all(segment.descriptor, [page], SEGMENT_SIZE)

    @property
    def finished(self) -> list[Segment]:
        """The full segments all of whose records are files and rows; :meth:`retire` takes them."""
        with self._guard:
            return [each for each in self._full if not each.unfinished]

    @property
    def is_doubtful(self) -> bool:
        """Whether records may be in the journal that were not confirmed; a start would bring them back."""
        with self._guard:
            return any(each.is_doubtful for each in self._full)

    @property
    def is_empty(self) -> bool:
        """Whether no record is left that a start would bring back."""
        with self._guard:
            return not self._full and (self._active is None or not self._active.position)

    def retire(self, segments: Iterable[Segment]) -> None:
        """Use full segments again; what was made from their records must be on the disk.

        Raises:
            OSError: The disk has failed; the segments stay as they are.
        """
        with self._guard:
            for segment in segments:
                if segment not in self._full or segment.unfinished:
                    continue  # another thread was faster, and it may be in use again
                if segment.is_bad or len(self._free) >= SEGMENTS:
                    segment.path.unlink(missing_ok=True)
                    self._sync_folder()
                    os.close(segment.descriptor)
                else:
                    self._overwrite(segment)
                    segment.paths.clear()
                    segment.is_doubtful = False
                    self._free.append(segment)
                self._full.remove(segment)

    def _overwrite(self, segment: Segment) -> None:
        try:
            os.pwrite(segment.descriptor, _in_pages(PAGE), 0)
            if self._fsync:
                os.fdatasync(segment.descriptor)
        except OSError:
            segment.is_bad = True
            raise

    def seal(self) -> None:
        """Regard the segment that is being written as full, so that it can be retired."""
        with self._guard:
            if self._active is not None:
                self._full.append(self._active)
                self._active = None

    def _sync_folder(self) -> None:
        if self._fsync:
            _sync(str(self._folder), os.O_RDONLY | os.O_DIRECTORY)


def _in_pages(size: int) -> memoryview:
    """Zeros in memory that begins at a page."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def _bypass_cache(descriptor: int) -> bool:
    """Have a segment written past the page cache; returns whether its file system can do that.

    Raises:
        OSError: The disk has failed.
    """
    if not _O_DIRECT:  # pragma: no cover - Linux has it
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _O_DIRECT)
        # Some file systems refuse only the write, for example because their blocks are larger.
        os.pwrite(descriptor, _in_pages(PAGE), 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        return False
    return True


def _fill(segment: Segment, end: int) -> None:
    """Write zeros in a segment up to a position."""
    zeros = _in_pages(_AHEAD)
    while segment.written < end:
        size = min(end - segment.written, _AHEAD)
        segment.written += _write_all(segment.descriptor, [zeros[:size]], segment.written)


def _write_all(descriptor: int, buffers: Sequence[bytes | memoryview], position: int) -> int:
    """Write buffers at a position, and return their size."""
    size = sum(map(len, buffers))
    written = os.pwritev(descriptor, buffers, position)
    if written < size:
        # One buffer stays where it is, because it may have to begin at a page.
        rest = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers))
        while written < size:
            written += os.pwrite(descriptor, rest[written:], position + written)
    return size


def _read_head(head: bytes) -> tuple[int, int, bytes] | None:
    """The number, length and digest of a record; None when there is no record."""
    if len(head) < _HEAD:
        return None
    check, _ = _CHECK.unpack_from(head, _FACTS.size)
    if zlib.crc32(head[: _FACTS.size]) != check:
        return None
    magic, number, length, digest = _FACTS.unpack_from(head)
    return (number, length, digest) if magic == _MAGIC else None


def _read_mark(octets: bytes) -> tuple[int, int]:
    """The number of the first record of a segment, and how many of its records are marked; zeros without a mark."""
    if len(octets) < _MARK.size + _MARK_CHECK.size:
        return 0, 0
    magic, first, count = _MARK.unpack_from(octets)
    (check,) = _MARK_CHECK.unpack_from(octets, _MARK.size)
    if magic != _MARK_MAGIC or check != zlib.crc32(octets[: _MARK.size]):
        return 0, 0
    return first, count


def _opened(path: Path) -> BinaryIO:
    """Open a segment; only a regular file is one.

    Raises:
        OSError: It cannot be read.
    """
    # A pipe must not block, and a symbolic link is not ours.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file, so it must be moved away", str(path))
    return open(descriptor, "rb")


def _records(path: Path) -> Iterator[tuple[bytes, str]]:
    expected: int | None = None
    position = 0
    with _opened(path) as file:
        file.seek(SEGMENT_SIZE)
        first, marked = _read_mark(file.read(_MARK.size + _MARK_CHECK.size))
        while True:
            file.seek(position)
            head = _read_head(file.read(_HEAD))
            if head is None or (expected is not None and head[0] != expected):
                return
            number, length, digest = head
            if position + _HEAD + length > SEGMENT_SIZE:
                return
            if not first <= number < first + marked:
                octets = file.read(length)
                if hashlib.sha256(octets).digest() == digest:
                    yield octets, digest.hex()
            # Otherwise those behind it may be whole: a disk has lost octets, or has written in its own order.
            expected = number + 1
            position += _HEAD + length
            position += -position % PAGE


# -- durable together -----------------------------------------------------------------------------


def _tells_errors(release: str) -> bool:
    """Whether syncfs reports what could not be written; Linux does that since 5.8."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (5, 8)


def _libc_syncfs() -> object | None:
    if sys.platform != "linux" or not _tells_errors(os.uname().release):
        return None
    try:
        return ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None


# Syncs all files of a file system at once, and says when that has failed; None where the system cannot do both.
_SYNCFS = _libc_syncfs()


def sync_files(descriptor: int, paths: Iterable[str]) -> None:
    """Make files durable, with their names.

    Args:
        descriptor: Of any file in their file system. It was opened before they were written: what the system could
            not write since then is an error of this call, also when it has tried long ago.
        paths: The files. Where the system can sync a whole file system, they are not looked at one by one.

    Raises:
        OSError: The disk has failed. What is on it is not known then.
    """
    if _SYNCFS is not None:
        if _SYNCFS(descriptor):  # type: ignore[operator]  # a function of the C library
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return
    folders = set()
    for path in paths:
        _sync(path, os.O_RDONLY)
        folders.add(os.path.dirname(path))
    for each in folders:
        _sync(each, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
