"""An instance that is arriving, in memory or in a file that has no name yet under which anybody looks for it."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..encoded.files import walk_file
from ..encoded.walk import Walked, walk
from ..index.record import UNKNOWN, Receipt

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["SPOOL_MEMORY", "Spool"]

# How many octets of an instance are held in memory. The thread that keeps a smaller instance writes it at once.
SPOOL_MEMORY = 1 << 20
# How many buffers one writev gets; the kernel's limit, IOV_MAX, is 1024.
_BUFFERS = 512
# After how many octets of a large instance the kernel is told to begin writing.
_WRITE_BACK = 1 << 23


class Spool(io.RawIOBase):
    """A Part 10 file that is arriving: in memory while it is small, then under a temporary name.

    It can be read and positioned like any binary file. Closing it deletes it, unless it was kept. While
    another thread keeps it, the closing is put off until that is done. All methods except :meth:`write` may block.
    """

    def __init__(
        self,
        name: str,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        header: bytes,
        receipt: Receipt = UNKNOWN,
    ) -> None:
        super().__init__()
        #: When it arrives, and from whom.
        self.receipt = receipt
        self._name = name
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.transfer_syntax = transfer_syntax
        #: The size of the Part 10 header before the data set, in octets.
        self.header_size = len(header)
        self._held: list[ReadableBuffer] = [header]
        self._held_size = len(header)
        self._size = len(header)
        self._position = 0
        self._descriptor: int | None = None
        self._written = 0  # octets that were written to the file
        self._advised = 0  # octets that the kernel was told to write to the disk
        #: Whether the file has its final name under instances/ instead of the temporary one.
        self.is_named = False
        self._guard = threading.Lock()
        self._uses = 0  # of in_use(), which may be nested
        self._is_given_up = False

    @property
    def path(self) -> Path:
        """The path under which the octets are written that are not in memory."""
        return Path(self._name)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Put off the work of :meth:`close` until the end of the block.

        The connection may be lost, and the spool closed, while a thread keeps the instance. Its descriptor must not
        be given to another file in the meantime.

        Raises:
            ValueError: The spool is closed.
        """
        with self._guard:
            if self.closed:
                raise ValueError("the spool is closed")
            self._uses += 1
        try:
            yield
        finally:
            with self._guard:
                self._uses -= 1
            if self._is_given_up:
                self.close()

    def write(self, data: ReadableBuffer) -> int:
        """Append octets; a view of them is kept, not a copy."""
        size = memoryview(data).nbytes
        self._held.append(data)
        self._held_size += size
        self._size += size
        if self._held_size >= SPOOL_MEMORY or len(self._held) >= _BUFFERS:
            self.flush_to_file()
        return size

    def in_memory(self) -> bytes | None:
        """All of the file, when none of it was written to the disk."""
        if self._descriptor is not None:
            return None
        if len(self._held) > 1:
            self._held = [b"".join(self._held)]
        return bytes(self._held[0])

    @property
    def octets_in_memory(self) -> int:
        """How many octets have not been written to the file."""
        return self._held_size

    def flush_to_file(self) -> int:
        """Write the octets that are in memory, and return the descriptor of the file."""
        if self._descriptor is None:
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        held, self._held, left = self._held, [], self._held_size
        self._held_size = 0
        while left:
            written = os.writev(self._descriptor, held)
            self._written += written
            left -= written
            if left:
                held = _behind(held, written)
        if self._written - self._advised >= _WRITE_BACK:
            # The disk begins now with what fsync would otherwise give it all at once.
            start, self._advised = self._advised, self._written
            os.posix_fadvise(self._descriptor, start, self._advised - start, os.POSIX_FADV_DONTNEED)
        return self._descriptor

    @property
    def size(self) -> int:
        """How many octets have arrived, with the header."""
        return self._size

    def pieces(self, start: int = 0) -> Iterator[ReadableBuffer]:
        """The octets from an offset on, a mebibyte at a time if they are not in memory."""
        whole = self.in_memory()
        if whole is not None:
            yield memoryview(whole)[start:]
            return
        descriptor = self.flush_to_file()
        while piece := os.pread(descriptor, SPOOL_MEMORY, start):
            yield piece
            start += len(piece)

    def digest(self) -> str:
        """The digest of the file, as the index has it."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return f"sha256:{digest.hexdigest()}"

    def walk(self, wanted: Collection[int] = ()) -> Walked:
        """Walk through the data set. A file is read, and not mapped.

        Raises:
            InvalidDataSetError: The data set is not whole.
            OSError: The file cannot be read.
        """
        whole = self.in_memory()
        if whole is not None:
            return walk(whole, self.transfer_syntax, self.header_size, wanted)
        found = walk_file(self.flush_to_file(), self.transfer_syntax, self.header_size, wanted)
        return found._replace(header_end=found.header_end + self.header_size)

    @contextmanager
    def octets(self) -> Iterator[bytes | mmap.mmap]:
        """All of the file: joined when it is in memory, otherwise as a memory map that the end of the block closes.

        No other program knows the file, so nobody cuts it off meanwhile, which would end this process.
        """
        whole = self.in_memory()
        if whole is not None:
            yield whole
        else:
            with mmap.mmap(self.flush_to_file(), 0, access=mmap.ACCESS_READ) as view:
                yield view

    # -- the file interface ----------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        whole = self.in_memory()
        if whole is not None:
            data = whole[self._position : self._position + len(room)]
        else:
            data = os.pread(self.flush_to_file(), len(room), self._position)
        room[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """Close and delete the file. Errors are ignored; a file that is left over is deleted at the next start."""
        with self._guard:
            if self._uses:
                self._is_given_up = True
                return
            self._held = []
            descriptor, self._descriptor = self._descriptor, None
            super().close()
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)
            if not self.is_named:
                with suppress(OSError):
                    self.path.unlink()


def _behind(buffers: list[ReadableBuffer], written: int) -> list[ReadableBuffer]:
    """The rest of some buffers, without the octets that were written, which are not all."""
    views = [memoryview(each).cast("B") for each in buffers]
    index = 0
    while written >= len(views[index]):
        written -= len(views[index])
        index += 1
    return [views[index][written:], *views[index + 1 :]]
