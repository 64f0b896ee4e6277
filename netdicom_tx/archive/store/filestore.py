"""Instances as files that survive a power cut: temporary name, fsync, rename, directory fsync.

The layout of the storage directory::

    lock                        locked while a node runs
    journal/                    what was acknowledged and is not a file yet, see :mod:`~.journal`
    journal/2/                  likewise, by the second worker of a node with several
    incoming/                   files that are arriving; deleted at the next start
    importing/                  files that are being imported, see :mod:`~.importing`; deleted by the next import
    instances/3f/3fa9….dcm      Part 10 files, named by the SHA-256 of their SOP Instance UID
    versions/3f/3fa9…-1b07….dcm other data sets with that SOP Instance UID, kept aside (:attr:`Duplicates.KEEP_BOTH`)
    locks/                      locks on files that are being sent or deleted, see :mod:`~.sharing`

File names come from digests and never from a peer's text. A file gets its name under ``instances/`` or ``versions/``
when all of it is on the disk, so nothing there is ever incomplete. A file contains the data set as it was received,
behind a Part 10 header. Nothing under ``versions/`` is in the index, so it is neither found nor sent.

All methods except :meth:`FileStore.spool` block, and belong in a thread.
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
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from ...amounts import Amount
from ...dsutils import FileMeta, part10_header, read_file_meta
from ...encoding import DataSetError
from ...exceptions import NetDICOMError
from ...folders import FOLDER
from ..encoded.content import same_content
from ..encoded.files import walk_file
from ..encoded.walk import Walked
from ..index.record import Receipt
from ..names import digest_of_uid
from ..shared import LEAD, Alone, Shared
from .disk import sync_folder, write_all
from .journal import SEGMENTS, Journal, sync_files
from .sharing import FolderLocks, Leases
from .spool import SPOOL_MEMORY, Spool

__all__ = [
    "Duplicates",
    "FileStore",
    "InUseError",
    "Kept",
    "MismatchError",
    "Outcome",
    "Replayed",
    "StorageError",
    "Version",
    "check_announced",
    "file_identity",
    "same_rest",
]

# Up to how many octets of a stored file are compared in memory; a larger one is copied.
_COPIED = 1 << 22
# The part of the disk that is left free for the system and other services: 5 %, at most 1 GiB.
_RESERVE_DIVISOR, _RESERVE_LIMIT = 20, 1 << 30
#: How many versions of an instance are kept aside; more are refused like any other duplicate.
VERSION_LIMIT: Final = 100
# Hexadecimal digits of the digest that tells the versions of an instance apart.
_VERSION_DIGITS: Final = 32


class StorageError(NetDICOMError):
    """The storage directory cannot be used."""


class InUseError(StorageError):
    """Another process uses the storage directory."""


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


class Room(NamedTuple):
    """The file system of a storage directory, in octets; the reserve is what is left free."""

    total: int
    free: int
    reserve: int


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


class Replayed(NamedTuple):
    """A file that was made from a journal.

    Attributes:
        digest: The digest of the file, as the index has it.
    """

    path: Path
    sop_instance_uid: str
    digest: str


class _Found(NamedTuple):
    """What an instance is to the file of its name.

    Attributes:
        identity: What tells this file from one that takes its name later; None when there was no file.
        sender: The AE title that its header says it came from.
    """

    outcome: Outcome
    identity: tuple[int, int] | None = None
    sender: str = ""


class FileStore:
    """The instances in one directory, which one process uses at a time.

    Args:
        root: The directory; it is created, with its parents, when it does not exist.
        fsync: Whether files survive a power cut. They survive a crash of the process in any case.
        duplicates: What happens when the store already has another data set with the same SOP Instance UID.
        reserve: How much of the disk is left free; None means 5 %, and at most 1 GiB.
    """

    #: Whether instances are objects that several nodes share, see :mod:`~netdicom_tx.archive.store.sharedstore`.
    is_shared = False
    #: How many segments the journal has at most.
    segments = SEGMENTS

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fsync: bool = True,
        duplicates: Duplicates = Duplicates.KEEP,
        reserve: Amount | None = None,
    ) -> None:
        self.root = Path(root).absolute()
        self.incoming = self.root / "incoming"
        self.instances = self.root / "instances"
        self.aside = self.root / "versions"
        #: Keep those apart who name and who delete files in a folder.
        self.folders = FolderLocks(self.root / "locks")
        #: Keep the files of deleted instances while they are being sent.
        self.leases = Leases(self.root / "locks" / "leases")
        self.duplicates = duplicates
        #: How much of the disk is left free; None means 5 %, and at most 1 GiB.
        self.reserve = reserve
        #: Whether files are synced, see ``fsync``.
        self.is_synced = fsync
        self.journal = Journal(
            self.root / "journal", fsync=fsync, has_room=self.has_room, segments=self.segments
        )
        #: How many files :meth:`open` has made from the journal that a crash has left.
        self.recovered = 0
        self._lock: int | None = None
        self._naming = threading.Lock()
        self._count = itertools.count()
        # Folders whose sync has failed. The kernel may have dropped what it could not write, and reports that once;
        # a further sync would succeed, and be worth nothing.
        self._unsafe: set[Path] = set()
        self._shared = Alone()
        self._is_member = False
        #: Instances of which :meth:`open` has found two data sets that were acknowledged; one of them is kept aside.
        self.conflicts: list[Path] = []

    def share(self, shared: Shared) -> None:
        """Use the directory together with other processes of the node; call this before :meth:`open`.

        The lead locks the directory and prepares it. A worker has a journal of its own, and inherits the lock.
        """
        self._shared = shared
        self._is_member = shared.slot != LEAD
        if self._is_member:
            self.journal = self.journal_of(shared.slot)

    @property
    def is_journalled(self) -> bool:
        """Whether small instances are acknowledged when they are in the journal."""
        # A subclass with a keep() of its own decides about all instances.
        return type(self).keep is FileStore.keep

    def journal_of(self, worker: int) -> Journal:
        """The journal of a worker."""
        folder = self.root / "journal" / str(worker)
        return Journal(folder, fsync=self.is_synced, has_room=self.has_room)

    # -- opening and closing -----------------------------------------------------------------------

    def open(
        self,
        before_recovery: Callable[[], object] | None = None,
        when_locked: Callable[[], object] | None = None,
    ) -> None:
        """Lock the directory, make its folders, and remove files that never became complete.

        Args:
            when_locked: Called when the directory is locked, before anything in it is changed; otherwise as
                ``before_recovery``.
            before_recovery: Called when the directory is locked, before files are made from the journal; a worker, for
                which the lead has done that, does not call it. An exception closes the store again.

        Raises:
            StorageError: Another process uses the directory, or it cannot be written.
        """
        self._unsafe.clear()
        if self._is_member:
            self._join()
            return
        try:
            made = [each for each in (self.root, *self.root.parents) if not each.exists()]
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(
                self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._lock, 0)
            os.write(self._lock, b"%d\n" % os.getpid())
            if when_locked is not None:
                when_locked()
            self._prepare(made)
            if before_recovery is not None:
                before_recovery()
            self._recover()
        except OSError as error:
            self.close()
            if error.errno in (errno.EAGAIN, errno.EACCES) and error.filename is None:
                raise InUseError(
                    f"the storage directory {self.root} is in use by another node: stop that node, or "
                    "give this one another directory"
                ) from error
            what = "" if error.filename in (None, str(self.root)) else f" ({error.filename})"
            raise StorageError(
                f"the storage directory {self.root} cannot be used: {error.strerror}{what}"
            ) from error
        except BaseException:
            self.close()
            raise

    def _prepare(self, made: Collection[Path]) -> None:
        """Make the folders of a locked directory, and remove files that never became complete.

        Args:
            made: The directory and those above it, as far as they were made a moment ago.
        """
        self.make_folders()
        for leftover in self.incoming.iterdir():
            leftover.unlink()
        for folder in dict.fromkeys((self.root.parent, *(each.parent for each in made))):
            # The directories above an existing one may belong to another user.
            with suppress(PermissionError):
                self._sync_directory(folder)

    def make_folders(self) -> None:
        """Make the folders that do not exist, all at once, so that keeping an instance needs to sync one folder only.

        Raises:
            OSError: The directory cannot be written.
        """
        folders = ["instances"]
        if self.duplicates is Duplicates.KEEP_BOTH:
            folders.append("versions")
        for name in (
            "incoming",
            "journal",
            "locks",
            "locks/leases",
            *folders,
            *(f"{each}/{n:02x}" for each in folders for n in range(256)),
        ):
            _make_folder(self.root / name)
        for folder in (*(self.root / each for each in folders), self.root):
            self._sync_directory(folder)
        self.folders.make()

    def _join(self) -> None:
        """Open a directory that the lead has prepared."""
        try:
            # A descriptor of its own: those that were opened together report an error of the disk only once.
            self._lock = os.open(self.root / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            _make_folder(self.root / "journal" / str(self._shared.slot))
        except OSError as error:
            self.close()
            raise StorageError(
                f"the storage directory {self.root} cannot be used: {error.strerror}"
            ) from error

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
        self.conflicts = []
        paths: list[str] = []
        workers = [
            self.journal_of(int(each.name))
            for each in sorted((self.root / "journal").iterdir())
            if each.name.isdecimal()
        ]
        own: frozenset[str] | None = None
        for journal in (self.journal, *workers):
            for octets, digest in journal.recover():
                uid = self._uid_of(octets)
                path = self.path_text(uid)
                if not _holds(path, digest, len(octets)):
                    self.recovered += 1
                    if self._may_be_another(Path(path), uid):
                        if own is None:
                            own = frozenset(each for _, each in self.journal.recover())
                        # What one process has acknowledged later takes the place of what it had before. Another worker
                        # and an import did not know of this one.
                        if workers or _digest_of(path) not in own:
                            self._move_aside(Path(path))
                            self.conflicts.append(Path(path))
                # A file that is whole is made again, too: a sync of it may have failed, and what is read is what the
                # kernel has in memory. Nothing that is made now was part of a sync before.
                self.place(path, octets)
                paths.append(path)
        if paths and self.is_synced:
            sync_files(self.descriptor, paths)
        for journal in (self.journal, *workers):
            journal.clear()

    def _uid_of(self, octets: bytes) -> str:
        """The SOP Instance UID of a record of a journal.

        Raises:
            StorageError: It is not a DICOM file.
        """
        try:
            return read_file_meta(io.BytesIO(octets)).sop_instance_uid
        except DataSetError as error:
            raise StorageError(
                f"the journal {self.root / 'journal'} has a record that is not a DICOM file: {error}; a node has "
                "not written it: move the segments away, and start again"
            ) from error

    def replay(
        self, worker: int, claim: Callable[[str], AbstractContextManager[None]]
    ) -> Iterator[Replayed]:
        """Make the files of what a worker that has ended had acknowledged, while others go on.

        When an instance with the same SOP Instance UID has come since then, it stays, and this one is kept aside.

        Args:
            claim: Lets this process alone decide about a SOP Instance UID while its block runs.

        Yields:
            The files whose rows are to be written. They are on the disk for good when the iteration has ended; call
            :meth:`drop_journal` when their rows are.

        Raises:
            StorageError: The journal has a record that is not a DICOM file.
            OSError: The disk has failed.
        """
        journal = self.journal_of(worker)
        paths: list[str] = []
        for octets, digest in journal.recover():
            uid = self._uid_of(octets)
            path = self.path(uid)
            with claim(uid):
                paths.append(self.place_beside(str(path), octets, digest, uid))
            if paths[-1] == str(path):
                yield Replayed(path, uid, f"sha256:{digest}")
        if paths and self.is_synced:
            sync_files(self.descriptor, paths)

    def drop_journal(self, worker: int) -> None:
        """Empty the journal of a worker that has ended.

        Raises:
            OSError: The disk has failed.
        """
        self.journal_of(worker).clear()

    def remove_leftovers(self, process: int) -> None:
        """Delete the files that a process which has ended has left while they arrived."""
        for leftover in self.incoming.glob(f"{process}-*"):
            leftover.unlink(missing_ok=True)

    @staticmethod
    def _may_be_another(path: Path, uid: str) -> bool:
        """Whether a file is a whole instance with a SOP Instance UID; another program may have damaged it."""
        try:
            with path.open("rb") as file:
                meta = read_file_meta(file)
                walked = walk_file(file.fileno(), meta.transfer_syntax, meta.offset)
        except (OSError, DataSetError):
            return False
        return walked.sop_instance_uid == uid

    def _version_path(self, path: Path, data_set_digest: str) -> Path:
        """The path of a version, whose folder is made."""
        folder = self.aside / path.parent.name
        _make_folder(self.aside)
        _make_folder(folder)
        return folder / f"{path.stem}-{data_set_digest[:_VERSION_DIGITS]}.dcm"

    def _move_aside(self, path: Path) -> None:
        """Make a stored file a version."""
        with path.open("rb") as file:
            read_file_meta(file)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        target = self._version_path(path, digest)
        os.rename(path, target)
        self._sync_directory(target.parent)

    def place_beside(self, path: str, octets: bytes, digest: str, uid: str) -> str:
        """Make the file of an instance as :meth:`place` does, unless another program or worker has made one meanwhile.

        When the contents differ, both count: the file that is there stays, and these octets are kept aside as a
        version.

        Args:
            digest: The SHA-256 of the octets, hexadecimal.

        Returns:
            The path that the octets have.

        Raises:
            OSError: The disk has failed.
        """
        if (
            os.path.lexists(path)
            and not _holds(path, digest, len(octets))
            and self._may_be_another(Path(path), uid)
        ):
            return str(self._keep_version(Path(path), octets))
        self.place(path, octets)
        return path

    def _keep_version(self, path: Path, octets: bytes) -> Path:
        """Keep a Part 10 file as a version of the one that has a path."""
        file = io.BytesIO(octets)
        read_file_meta(file)
        target = self._version_path(path, hashlib.sha256(file.read()).hexdigest())
        self.place(str(target), octets)
        return target

    # -- the way in ----------------------------------------------------------------------------------

    def has_room(self, octets: int = 0) -> bool:
        """Whether more of the disk is free than the reserve, when some octets more are written."""
        room = self.room()
        return room.free - octets > room.reserve

    def room(self) -> Room:
        """How much of the disk there is."""
        disk = os.statvfs(self.incoming)
        total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        reserve = min(total // _RESERVE_DIVISOR, _RESERVE_LIMIT)
        return Room(total, free, reserve if self.reserve is None else self.reserve.of(total))

    def spool(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        source_ae_title: str,
        called_ae_title: str = "",
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
            Receipt(time.time(), source_ae_title, called_ae_title),
        )

    def path(self, sop_instance_uid: str) -> Path:
        """The path that the file of an instance has, or would have."""
        return Path(self.path_text(sop_instance_uid))

    def time_of(self, sop_instance_uid: str) -> float:
        """When the file of an instance was written, in seconds since 1970.

        Raises:
            OSError: There is none.
        """
        return self.path(sop_instance_uid).stat().st_mtime

    def path_text(self, sop_instance_uid: str) -> str:
        """The same as text, which costs less."""
        return self._text_of(digest_of_uid(sop_instance_uid).hex())

    def _text_of(self, digest: str) -> str:
        return f"{self.instances}{os.sep}{digest[:2]}{os.sep}{digest}.dcm"

    def path_of_digest(self, digest: bytes) -> Path:
        """The path of an instance whose SOP Instance UID has this SHA-256."""
        return Path(self._text_of(digest.hex()))

    def name_of(self, sop_instance_uid: str, digest: str) -> str:
        """The path of an instance whose octets have this SHA-256, which does not matter here."""
        return self.path_text(sop_instance_uid)

    def taken(self, sop_instance_uids: Sequence[str]) -> set[str] | None:
        """Those instances that may not be journalled; None when the files tell."""
        return None

    def place(self, path: str, octets: bytes) -> None:
        """Make the file of an instance, without syncing it. An earlier file of that name is replaced.

        Raises:
            OSError: The disk has failed; nothing is left of the file.
        """
        parent, name = os.path.split(path)
        # No symbolic link is followed, as in keep().
        folder = os.open(parent, FOLDER)
        try:
            temporary = self._temporary()
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            try:
                write_all(descriptor, octets)
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
        is_there: Callable[[], bool] | None = None,
        when_same: Callable[[], object] | None = None,
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
            is_there: Called when a file has the name already: whether that instance is there, or only its file, which
                is to be deleted and counts as none.
            when_same: Called when the same content is here already, before anybody may delete it.

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
            folder = os.open(target.parent, FOLDER)
            try:
                with self.folders.shared(target.parent.name):
                    # Comparing large data sets takes long, so other instances do not wait for it.
                    found = self._look(spool, target.name, folder, is_there)
                    with self._naming:
                        if found.identity != file_identity(target.name, folder):
                            found = self._look(spool, target.name, folder, is_there)
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
                    if outcome is Outcome.ASIDE:
                        outcome, target = self._set_aside(spool, target.stem)
                    if outcome is Outcome.SAME and when_same is not None:
                        when_same()
            finally:
                os.close(folder)
        return Kept(outcome, target, walked, found.sender)

    def discard(self, folder: str, sop_instance_uids: Collection[str]) -> None:
        """Delete the files of instances, with the versions that are kept aside; when this returns, that is durable.

        Args:
            folder: The name of the folder that has them; the caller holds its lock alone, see :attr:`folders`.
            sop_instance_uids: The instances; one without a file is no error.

        Raises:
            OSError: The disk has failed.
        """
        names = {self.path(each).name for each in sop_instance_uids}
        digests = {name.removesuffix(".dcm") for name in names}
        self._unlink(self.instances / folder, names)
        with suppress(FileNotFoundError):
            aside = {each for each in os.listdir(self.aside / folder) if each[:64] in digests}
            self._unlink(self.aside / folder, aside)

    def _unlink(self, folder: Path, names: Collection[str]) -> None:
        """Delete files of a folder, and sync it."""
        if not names:
            return
        self._check_folder(folder)
        descriptor = os.open(folder, FOLDER)
        try:
            for name in names:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=descriptor)
            self._sync_folder(folder, descriptor)
        finally:
            os.close(descriptor)

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
        descriptor = os.open(folder, FOLDER)
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

    def _look(
        self, spool: Spool, name: str, folder: int, is_there: Callable[[], bool] | None
    ) -> _Found:
        """What an instance is to the one of the same name that is here, if that is not being deleted."""
        found = self._compare(spool, name, folder)
        if found.identity is not None and is_there is not None and not is_there():
            return _Found(Outcome.STORED, found.identity)
        return found

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
            if same_rest(spool, here):
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
        if folder in self._unsafe or self._shared.has_failed(self._number_of(folder)):
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
                self._shared.fail(self._number_of(folder))
                raise

    def _number_of(self, folder: Path) -> int:
        """The number of a folder of the store among all of them."""
        return int(folder.name, 16) + (256 if folder.parent == self.aside else 0)

    def _sync_directory(self, folder: Path) -> None:
        if self.is_synced:
            sync_folder(folder)


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


def _digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_folder(path: Path) -> None:
    """Make a folder that only we may use, if it does not exist; refuse a symbolic link to one."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, f"{path.name} is a symbolic link, not a directory")


def file_identity(name: str | Path, folder: int | None = None) -> tuple[int, int] | None:
    """What tells the file that has a name from one that takes the name later; None when there is none.

    Args:
        folder: The descriptor of the folder that the name is relative to.
    """
    try:
        return _identity_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def same_rest(a: io.RawIOBase, b: io.BufferedIOBase) -> bool:
    """Whether two files contain the same octets behind their positions."""
    while True:
        one = a.read(SPOOL_MEMORY) or b""
        if one != b.read(SPOOL_MEMORY):
            return False
        if not one:
            return True
