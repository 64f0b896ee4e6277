"""Instances as files that survive a power cut: temporary name, fsync, rename, directory fsync.

The layout of the storage directory::

    lock                        locked while a node runs
    journal/                    what was acknowledged and is not a file yet, see :mod:`~.journal`
    incoming/                   files that are arriving; deleted at the next start
    instances/3f/3fa9….dcm      Part 10 files, named by the SHA-256 of their SOP Instance UID
    versions/3f/3fa9…-1b07….dcm other data sets with that SOP Instance UID, kept aside (:attr:`Duplicates.KEEP_BOTH`)

File names come from digests and never from a peer's text. A file gets its name under ``instances/`` or ``versions/``
when all of it is on the disk, so nothing there is ever incomplete. A file contains the data set as it was received,
behind a Part 10 header. Nothing under ``versions/`` is in the index, so it is neither found nor sent.

All methods except :meth:`FileStore.spool` and :meth:`Spool.write` block, and belong in a thread.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import itertools
import mmap
import os
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ...dsutils import FileMeta, part10_header, read_file_meta
from ...encoding import DataSetError
from ...exceptions import NetDICOMError
from ..encoded.content import same_content
from ..encoded.files import walk_file
from ..encoded.walk import Walked, walk
from .journal import Journal, sync_files

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "Duplicates",
    "FileStore",
    "Kept",
    "MismatchError",
    "Outcome",
    "Spool",
    "StorageError",
    "Version",
    "check_announced",
]

# How many octets of an instance are held in memory. The thread that keeps a smaller instance writes it at once.
SPOOL_MEMORY = 1 << 20
# How many buffers one writev gets; the kernel's limit, IOV_MAX, is 1024.
_BUFFERS = 512
# Up to how many octets of a stored file are compared in memory; a larger one is copied.
_COPIED = 1 << 22
# After how many octets of a large instance the kernel is told to begin writing.
_WRITE_BACK = 1 << 23
# The flags with which the folder of an instance is opened.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# The part of the disk that is left free for the system and other services: 5 %, at most 1 GiB.
_RESERVE_DIVISOR, _RESERVE_LIMIT = 20, 1 << 30
#: How many versions of an instance are kept aside; more are refused like any other duplicate.
VERSION_LIMIT: Final = 100
# Hexadecimal digits of the digest that tells the versions of an instance apart.
_VERSION_DIGITS: Final = 32


class StorageError(NetDICOMError):
    """The storage directory cannot be used."""


class MismatchError(NetDICOMError):
    """The data set is another instance than the request has announced."""


class Duplicates(Enum):
    """What happens when the store already has another data set with the same SOP Instance UID.

    Attributes:
        KEEP: The first one stays; the other one is refused.
        REPLACE: The other one takes its place.
        KEEP_BOTH: The first one stays, and the other one is kept aside as a version, see :meth:`FileStore.versions`.
    """

    KEEP = "keep"
    REPLACE = "replace"
    KEEP_BOTH = "keep-both"


class Outcome(Enum):
    """What has become of an instance."""

    STORED = "stored"
    SAME = "a data set of the same content was here"
    REPLACED = "another data set was here, and is gone"
    REFUSED = "another data set is here, and stays"
    ASIDE = "another data set is here, and stays; this one is kept aside as a version"


class Kept(NamedTuple):
    """The result of :meth:`FileStore.keep`.

    Attributes:
        path: The path of the file that is kept; that of the version for :attr:`Outcome.ASIDE`.
        walked: What the walk through the data set has found.
        earlier_sender: The AE title that sent the instance which was here; empty when there was none, or when its
            file does not say.
    """

    outcome: Outcome
    path: Path
    walked: Walked
    earlier_sender: str = ""


class Version(NamedTuple):
    """A data set that was kept aside.

    Attributes:
        sop_instance_uid: The SOP Instance UID that it has in common with an instance of the store.
        sender: The AE title that sent it; empty when the file does not say.
        received: When it came, in seconds since the epoch.
        size: The size of its file in octets.
    """

    path: Path
    sop_instance_uid: str
    sender: str
    received: float
    size: int


class _Found(NamedTuple):
    """What an instance is to the file of its name.

    Attributes:
        identity: What tells this file from one that takes its name later; None when there was no file.
        sender: The AE title that its header says it came from.
    """

    outcome: Outcome
    identity: tuple[int, int] | None = None
    sender: str = ""


class Spool(io.RawIOBase):
    """A Part 10 file that is arriving: in memory while it is small, then under a temporary name.

    It can be read and positioned like any binary file. Closing it deletes it, unless it was kept. While
    :meth:`FileStore.keep` runs in another thread, the closing is put off until that is done.
    """

    def __init__(
        self,
        name: str,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        header: bytes,
    ) -> None:
        super().__init__()
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
        self._is_in_use = False
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
            self._is_in_use = True
        try:
            yield
        finally:
            with self._guard:
                self._is_in_use = False
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
            if self._is_in_use:
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


class FileStore:
    """The instances in one directory, which one process uses at a time.

    Args:
        root: The directory; it is created, with its parents, when it does not exist.
        fsync: Whether files survive a power cut. They survive a crash of the process in any case.
        duplicates: What happens when the store already has another data set with the same SOP Instance UID.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fsync: bool = True,
        duplicates: Duplicates = Duplicates.KEEP,
    ) -> None:
        self.root = Path(root).absolute()
        self.incoming = self.root / "incoming"
        self.instances = self.root / "instances"
        self.aside = self.root / "versions"
        self.duplicates = duplicates
        #: Whether files are synced, see ``fsync``.
        self.is_synced = fsync
        self.journal = Journal(self.root / "journal", fsync=fsync, has_room=self.has_room)
        #: How many files :meth:`open` has made from the journal that a crash has left.
        self.recovered = 0
        self._lock: int | None = None
        self._naming = threading.Lock()
        self._count = itertools.count()
        # Folders whose sync has failed. The kernel may have dropped what it could not write, and reports that once;
        # a further sync would succeed, and be worth nothing.
        self._unsafe: set[Path] = set()

    # -- opening and closing -----------------------------------------------------------------------

    def open(self) -> None:
        """Lock the directory, make its folders, and remove files that never became complete.

        Raises:
            StorageError: Another process uses the directory, or it cannot be written.
        """
        self._unsafe.clear()
        try:
            made = [each for each in (self.root, *self.root.parents) if not each.exists()]
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(
                self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._lock, 0)
            os.write(self._lock, b"%d\n" % os.getpid())
            # All folders are made now, so that keeping an instance needs to sync one directory only.
            folders = ["instances"]
            if self.duplicates is Duplicates.KEEP_BOTH:
                folders.append("versions")
            for name in (
                "incoming",
                "journal",
                *folders,
                *(f"{each}/{n:02x}" for each in folders for n in range(256)),
            ):
                _make_folder(self.root / name)
            for leftover in self.incoming.iterdir():
                leftover.unlink()
            for folder in (*(self.root / each for each in folders), self.root):
                self._sync_directory(folder)
            for folder in dict.fromkeys((self.root.parent, *(each.parent for each in made))):
                # The directories above an existing one may belong to another user.
                with suppress(PermissionError):
                    self._sync_directory(folder)
            self._recover()
        except OSError as error:
            self.close()
            if error.errno in (errno.EAGAIN, errno.EACCES) and error.filename is None:
                raise StorageError(
                    f"the storage directory {self.root} is in use by another node: stop that node, or "
                    "give this one another directory"
                ) from error
            what = "" if error.filename in (None, str(self.root)) else f" ({error.filename})"
            raise StorageError(
                f"the storage directory {self.root} cannot be used: {error.strerror}{what}"
            ) from error
        except StorageError:
            self.close()
            raise

    def close(self) -> None:
        """Unlock the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def descriptor(self) -> int:
        """The descriptor of a file of the directory, the same from :meth:`open` to :meth:`close`."""
        if self._lock is None:
            raise ValueError("the store is not open")
        return self._lock

    def _recover(self) -> None:
        """Make the files that a crash has left in the journal only."""
        self.recovered = 0
        paths: list[str] = []
        for octets, digest in self.journal.recover():
            try:
                meta = read_file_meta(io.BytesIO(octets))
            except DataSetError as error:
                raise StorageError(
                    f"the journal {self.root / 'journal'} has a record that is not a DICOM file: {error}; a node has "
                    "not written it: move the segments away, and start again"
                ) from error
            path = self.path_text(meta.sop_instance_uid)
            if not _holds(path, digest, len(octets)):
                self.recovered += 1
            # A file that is whole is made again, too: a sync of it may have failed, and what is read is what the
            # kernel has in memory. Nothing that is made now was part of a sync before.
            self.place(path, octets)
            paths.append(path)
        if paths and self.is_synced:
            sync_files(self.descriptor, paths)
        self.journal.clear()

    # -- the way in ----------------------------------------------------------------------------------

    def has_room(self, octets: int = 0) -> bool:
        """Whether more of the disk is free than the reserve, when some octets more are written."""
        disk = os.statvfs(self.incoming)
        total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        return free - octets > min(total // _RESERVE_DIVISOR, _RESERVE_LIMIT)

    def spool(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str
    ) -> Spool:
        """Make a spool for an instance that is about to arrive, without touching the disk."""
        return Spool(
            self._temporary(),
            sop_class_uid,
            sop_instance_uid,
            transfer_syntax,
            part10_header(
                sop_class_uid, sop_instance_uid, transfer_syntax, source_ae_title=source_ae_title
            ),
        )

    def path(self, sop_instance_uid: str) -> Path:
        """The path that the file of an instance has, or would have."""
        return Path(self.path_text(sop_instance_uid))

    def path_text(self, sop_instance_uid: str) -> str:
        """The same as text, which costs less."""
        digest = hashlib.sha256(sop_instance_uid.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{self.instances}{os.sep}{digest[:2]}{os.sep}{digest}.dcm"

    def place(self, path: str, octets: bytes) -> None:
        """Make the file of an instance, without syncing it. An earlier file of that name is replaced.

        Raises:
            OSError: The disk has failed; nothing is left of the file.
        """
        parent, name = os.path.split(path)
        # No symbolic link is followed, as in keep().
        folder = os.open(parent, _FOLDER)
        try:
            temporary = self._temporary()
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            try:
                left = memoryview(octets)
                while left:
                    left = left[os.write(descriptor, left) :]
                os.rename(temporary, name, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            finally:
                os.close(descriptor)
        finally:
            os.close(folder)

    def _temporary(self) -> str:
        return f"{self.incoming}{os.sep}{os.getpid()}-{next(self._count)}"

    def keep(
        self,
        spool: Spool,
        *,
        wanted: Collection[int] = (),
        when_walked: Callable[[Walked], object] | None = None,
        before_replacing: Callable[[], object] | None = None,
        when_named: Callable[[], object] | None = None,
    ) -> Kept:
        """Make a complete instance durable. When this returns, the instance is on the disk for good.

        Args:
            wanted: The tags of elements that the walk through the data set returns.
            when_walked: Called when the data set is known to be whole, with the results of the walk. An exception
                refuses the instance.
            before_replacing: Called before another data set is replaced, to take back what refers to that one. An
                exception leaves everything as it was.
            when_named: Called when the file has its name, before its folder is synced, so that other things can
                become durable at the same time. The calls come in the order in which files get their names.

        Raises:
            InvalidDataSetError: The data set is not whole.
            MismatchError: The data set is another instance than was announced.
            OSError: The disk has failed. When the spool is closed, nothing of the instance is left, unless only the
                sync of the folder has failed; then the file has its name, and is whole. That folder takes no
                instance any more until the store is opened again.
            ValueError: The spool is closed.
        """
        with spool.in_use():
            walked = spool.walk(wanted)
            if when_walked is not None:
                when_walked(walked)
            check_announced(spool, walked)
            target = self.path(spool.sop_instance_uid)
            self._check_folder(target.parent)
            descriptor = spool.flush_to_file()
            if self.is_synced:
                os.fsync(descriptor)
            # No symbolic link is followed: the folder is opened with O_NOFOLLOW, and names are relative to it.
            folder = os.open(target.parent, _FOLDER)
            try:
                # Comparing large data sets takes long, so other instances do not wait for it.
                found = self._compare(spool, target.name, folder)
                with self._naming:
                    if found.identity != _identity(target.name, folder):
                        found = self._compare(spool, target.name, folder)
                    outcome = found.outcome
                    if outcome is Outcome.REPLACED and before_replacing is not None:
                        before_replacing()
                    if outcome in (Outcome.STORED, Outcome.REPLACED):
                        # rename instead of link: one directory entry, one transaction of the journal.
                        os.rename(spool.path, target.name, dst_dir_fd=folder)
                        spool.is_named = True
                        if when_named is not None:
                            when_named()
                # Sync also when the file was there before: the thread that put it there may not have synced yet.
                self._sync_folder(target.parent, folder)
            finally:
                os.close(folder)
            if outcome is Outcome.ASIDE:
                outcome, target = self._set_aside(spool, target.stem)
        return Kept(outcome, target, walked, found.sender)

    def _set_aside(self, spool: Spool, digest: str) -> tuple[Outcome, Path]:
        """Keep a version of an instance, unless it is here or there are too many.

        Args:
            digest: The digest of the SOP Instance UID.
        """
        folder = self.aside / digest[:2]
        data_set = hashlib.sha256()
        for piece in spool.pieces(spool.header_size):
            data_set.update(piece)
        target = folder / f"{digest}-{data_set.hexdigest()[:_VERSION_DIGITS]}.dcm"
        self._check_folder(folder)
        descriptor = os.open(folder, _FOLDER)
        try:
            names = sorted(each for each in os.listdir(descriptor) if each.startswith(f"{digest}-"))
            for name in names:
                if self._compare(spool, name, descriptor).outcome is Outcome.SAME:
                    target, outcome = folder / name, Outcome.SAME
                    break
            else:
                if len(names) >= VERSION_LIMIT:
                    return Outcome.REFUSED, self.path(spool.sop_instance_uid)
                # Two threads that keep the same octets give them the same name.
                os.rename(spool.path, target.name, dst_dir_fd=descriptor)
                spool.is_named, outcome = True, Outcome.ASIDE
            self._sync_folder(folder, descriptor)
        finally:
            os.close(descriptor)
        return outcome, target

    def versions(self) -> Iterator[Version]:
        """The data sets that are kept aside, by the digest of their SOP Instance UID, the oldest of each first.

        Files that are not DICOM are left out. A node may be running.

        Raises:
            OSError: The directory cannot be read.
        """
        found: list[Version] = []
        with suppress(FileNotFoundError):
            for folder in sorted(self.aside.iterdir()):
                for path in folder.glob("*-*.dcm"):
                    if path.is_symlink() or not path.is_file():
                        continue
                    try:
                        with path.open("rb") as file:
                            meta, status = read_file_meta(file), os.fstat(file.fileno())
                    except DataSetError:
                        continue
                    found.append(
                        Version(
                            *(path, meta.sop_instance_uid, meta.source_ae_title),
                            *(status.st_mtime, status.st_size),
                        )
                    )
        return iter(sorted(found, key=lambda each: (each.path.name[:64], each.received, each.path)))

    def drop(self, version: Version) -> None:
        """Delete a data set that is kept aside. A node may be running.

        Raises:
            OSError: The file cannot be deleted, or was deleted by another program.
        """
        version.path.unlink()
        if self.is_synced:
            self._sync_directory(version.path.parent)

    def _compare(self, spool: Spool, name: str, folder: int) -> _Found:
        """What an instance is to the one of the same name that is here, if one is."""
        # O_NONBLOCK: a pipe under this name must not block the thread.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            here = open(  # noqa: SIM115 - closed below
                name, "rb", opener=lambda path, _: os.open(path, flags, dir_fd=folder)
            )
        except FileNotFoundError:
            return _Found(Outcome.STORED)
        with here:
            identity = _identity_of(os.fstat(here.fileno()))
            try:
                meta = read_file_meta(here)
            except DataSetError:
                # This file is not an instance, and cannot be served.
                return _Found(Outcome.REPLACED, identity)
            outcome = Outcome.REFUSED
            if self._is_same(spool, here, meta):
                outcome = Outcome.SAME
            elif self.duplicates is Duplicates.REPLACE:
                outcome = Outcome.REPLACED
            elif self.duplicates is Duplicates.KEEP_BOTH:
                outcome = Outcome.ASIDE
            return _Found(outcome, identity, meta.source_ae_title)

    def _is_same(self, spool: Spool, here: io.BufferedReader, meta: FileMeta) -> bool:
        """Whether the data set of a spool has the content of a file that is positioned at its data set."""
        if meta.transfer_syntax == spool.transfer_syntax:
            spool.seek(spool.header_size)
            if _same_rest(spool, here):
                return True
        with spool.octets() as ours, self._own_copy(here) as theirs:
            return same_content(
                *(ours, spool.transfer_syntax, spool.header_size),
                *(theirs, meta.transfer_syntax, meta.offset),
            )

    @contextmanager
    def _own_copy(self, file: io.BufferedReader) -> Iterator[bytes | mmap.mmap]:
        """The octets of a stored file: in memory when it is small, otherwise as a map of a copy without a name.

        A stored file is not mapped, because a program that cuts it off meanwhile would end this process.
        """
        file.seek(0)
        if os.fstat(file.fileno()).st_size <= _COPIED:
            yield file.read(_COPIED + 1)
            return
        path = self._temporary()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w+b", buffering=0) as copy:
            os.unlink(path)
            shutil.copyfileobj(file, copy, SPOOL_MEMORY)
            with mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ) as view:
                yield view

    def _check_folder(self, folder: Path) -> None:
        """Raise an OSError for a folder whose sync has failed."""
        if folder in self._unsafe:
            raise OSError(
                errno.EIO,
                "an earlier sync of this folder has failed, so no instance in it is safe; check the disk, "
                "then restart the node",
                str(folder),
            )

    def _sync_folder(self, folder: Path, descriptor: int) -> None:
        """Sync a folder, unless that has failed before."""
        self._check_folder(folder)
        if self.is_synced:
            try:
                os.fsync(descriptor)
            except OSError:
                self._unsafe.add(folder)
                raise

    def _sync_directory(self, folder: Path) -> None:
        if self.is_synced:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def check_announced(spool: Spool, walked: Walked) -> None:
    """Check that a data set is the instance that the command has announced.

    Raises:
        MismatchError: It is another one, or does not say.
    """
    for what, announced, found in (
        ("SOP Class UID (0008,0016)", spool.sop_class_uid, walked.sop_class_uid),
        ("SOP Instance UID (0008,0018)", spool.sop_instance_uid, walked.sop_instance_uid),
    ):
        if announced != found:
            raise MismatchError(
                f"{what} of the data set is not that of the command"
                if found
                else f"the data set has no {what}"
            )


def _holds(path: str, digest: str, size: int) -> bool:
    """Whether a regular file of this size and SHA-256 has a path."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _make_folder(path: Path) -> None:
    """Make a folder that only we may use, if it does not exist; refuse a symbolic link to one."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, f"{path.name} is a symbolic link, not a directory")


def _identity(name: str, folder: int) -> tuple[int, int] | None:
    """What tells the file that has a name from one that takes the name later."""
    try:
        return _identity_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _same_rest(a: io.RawIOBase, b: io.BufferedIOBase) -> bool:
    """Whether two files contain the same octets behind their positions."""
    while True:
        one = a.read(SPOOL_MEMORY) or b""
        if one != b.read(SPOOL_MEMORY):
            return False
        if not one:
            return True
