"""Read and check files, and give them their names in the archive."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ....amounts import Amount
from ....encoding import DataSetError
from ....part10 import FileMeta, part10_header, read_file_meta
from ....uids import STORAGE_SOP_CLASSES
from ...encoded.files import walk_file
from ...encoded.walk import Walked, walk
from ...index.record import WANTED, InstanceRecord, Receipt, digest_of_file
from ..disk import write_all
from ..filestore import FileStore, same_rest
from ..journal import sync_files
from .found import Found, Mark, Source, What
from .opening import beside

__all__ = [
    "OCTETS",
    "PART",
    "PIECE",
    "ArchiveFailedError",
    "FileReader",
    "Looking",
    "Settings",
    "in_parts",
]

#: How many paths a process gets at a time.
PART: Final = 512
#: After how many octets a process syncs what it has written, and hands it over.
OCTETS: Final = 1 << 26
#: Up to how many octets a file is read at once.
_WHOLE: Final = 1 << 22
PIECE: Final = 1 << 20
# Media Storage Directory: the index of a medium, which is not an instance to be stored (PS3.10 8).
_DICOMDIR: Final = "1.2.840.10008.1.3.10"
_KNOWN_CLASSES: Final = frozenset(STORAGE_SOP_CLASSES)
# What the system answers when a file cannot have a second name there.
_NO_LINK: Final = frozenset((errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process must know."""

    root: str
    is_synced: bool
    reserve: Amount | None
    source: Source
    unknown_sop_classes: bool


class _SkippedError(Exception):
    """A file is not an instance."""


class ArchiveFailedError(Exception):
    """The archive cannot take anything, for example because its disk is full."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def in_parts(paths: Iterable[str], size: int = PART) -> Iterator[list[str]]:
    """Cut the paths into parts."""
    rest = iter(paths)
    while part := list(itertools.islice(rest, size)):
        yield part


class Looking:
    """Looks at files as a C-STORE looks at what it gets; a subclass takes those that are instances."""

    def __init__(self, own: Sequence[str], *, unknown_sop_classes: bool) -> None:
        self._own = tuple(f"{each}{os.sep}" for each in own)
        self._unknown_sop_classes = unknown_sop_classes

    def _look(self, path: str) -> Found:
        if os.path.abspath(path).startswith(self._own):
            return Found(path, What.SKIPPED, reason="it is in the storage directory")
        try:
            # O_NONBLOCK: a pipe must not block.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return Found(path, What.FAILED, reason=error.strerror or str(error))
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            mark = Mark.of(status)
            if not stat.S_ISREG(status.st_mode):
                return Found(path, What.SKIPPED, reason="it is not a regular file")
            try:
                return self._read(path, file, mark)
            except _SkippedError as error:
                return Found(path, What.SKIPPED, mark, reason=str(error))
            except ArchiveFailedError as error:
                raise error.error from error
            except OSError as error:
                return Found(path, What.FAILED, mark, reason=error.strerror or str(error))
            except Exception as error:  # whatever a file has in it, the others are imported
                return Found(path, What.FAILED, mark, reason=str(error) or type(error).__name__)

    def _read(self, path: str, file: io.FileIO, mark: Mark) -> Found:
        """Read and check a file, and prepare it.

        Raises:
            Exception: It cannot be taken.
        """
        octets = file.read() if mark.size <= _WHOLE else None
        begin = os.pread(file.fileno(), 132, 0) if octets is None else octets[:132]
        source = file if octets is None else io.BytesIO(octets)
        try:
            meta = read_file_meta(source, is_lenient=True)
        except DataSetError as error:
            if begin[128:] != b"DICM":
                raise _SkippedError("it is not a DICOM file") from error
            raise
        if meta.sop_class_uid == _DICOMDIR:
            raise _SkippedError("it is a DICOMDIR")
        if octets is not None:
            walked = walk(octets, meta.transfer_syntax, meta.offset, WANTED)
        else:
            walked = walk_file(file.fileno(), meta.transfer_syntax, meta.offset, WANTED)
        self._check(walked)
        return self._prepared(path, file, mark, meta, walked, octets)

    def _check(self, walked: Walked) -> None:
        if not walked.sop_class_uid or not walked.sop_instance_uid:
            raise DataSetError("the data set has no SOP Class UID or no SOP Instance UID")
        if walked.sop_class_uid not in _KNOWN_CLASSES and not self._unknown_sop_classes:
            raise DataSetError(
                f"{walked.sop_class_uid} is not a storage SOP class of the standard; a node stores it with "
                "unknown_sop_classes"
            )

    def _prepared(
        self,
        path: str,
        file: io.FileIO,
        mark: Mark,
        meta: FileMeta,
        walked: Walked,
        octets: bytes | None,
    ) -> Found:
        """Take an instance.

        Args:
            octets: The whole file, if it is not large.

        Raises:
            ArchiveFailedError: The archive cannot take anything.
            Exception: This one cannot be taken.
        """
        raise NotImplementedError


class FileReader(Looking):
    """Reads and checks files, and gives them their names in the archive."""

    def __init__(self, settings: Settings) -> None:
        self.source = settings.source
        self._settings = settings
        store = FileStore(settings.root, fsync=settings.is_synced, reserve=settings.reserve)
        self._store = beside(store)
        self._descriptor = os.open(
            self._store.incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        self._count = itertools.count()
        super().__init__([str(self._store.root)], unknown_sop_classes=settings.unknown_sop_classes)
        self._held: list[Found] = []  # they have names, which are not synced

    def close(self) -> None:
        os.close(self._descriptor)

    def found(self, paths: Iterable[str]) -> Iterator[list[Found]]:
        for part in in_parts(paths):
            yield from self.take(part)
        yield self.rest()

    def take(self, paths: Sequence[str]) -> Iterator[list[Found]]:
        """Take a part of the files, and give those whose names are on the disk, which may be of an earlier part.

        Raises:
            OSError: The disk of the archive is full, or has failed.
        """
        group: list[Found] = []
        octets = 0
        for path in paths:
            found = self._look(path)
            group.append(found)
            octets += 0 if found.original is None else found.original.size
            if octets >= OCTETS:
                yield self._named(group)
                group, octets = [], 0
        if group:
            yield self._named(group)

    def rest(self) -> list[Found]:
        """Give those that :meth:`take` has not given yet.

        Raises:
            OSError: The disk of the archive has failed.
        """
        return self._named([])

    def _prepared(
        self,
        path: str,
        file: io.FileIO,
        mark: Mark,
        meta: FileMeta,
        walked: Walked,
        octets: bytes | None,
    ) -> Found:
        """Have everything ready for the name in the archive, unless that is taken."""
        uid = walked.sop_instance_uid
        target = self._store.path_text(uid)
        if os.path.lexists(target):
            return self._compared(path, file, mark, meta, uid, octets)
        can_link = (
            self._settings.source is not Source.COPY
            and meta.is_complete
            and (meta.sop_class_uid, meta.sop_instance_uid) == (walked.sop_class_uid, uid)
            and not os.path.islink(path)
            and mark.device == os.fstat(self._descriptor).st_dev
        )
        if can_link:
            temporary, size = "", mark.size
            digest = (
                hashlib.sha256(octets).hexdigest()
                if octets is not None
                else digest_of_file(Path(path)).removeprefix("sha256:")
            )
        else:
            # As for an instance that is sent, the UIDs of the data set count, and the header is ours.
            header = part10_header(
                *(walked.sop_class_uid, uid, meta.transfer_syntax),
                source_ae_title=meta.source_ae_title,
            )
            temporary, digest = self._write(header, file, meta.offset, octets)
            size = len(header) + mark.size - meta.offset
        record = InstanceRecord.of(
            walked,
            meta.transfer_syntax,
            path=Path(target),
            size=size,
            digest=f"sha256:{digest}",
            receipt=Receipt(time.time(), meta.source_ae_title),
        )
        return Found(
            path, What.STORED, mark, uid, record=record, temporary=temporary, is_linked=can_link
        )

    def _write(
        self, header: bytes, file: io.FileIO, offset: int, octets: bytes | None
    ) -> tuple[str, str]:
        """Write a header and the data set of a file under a temporary name, and return name and digest."""
        temporary = f"{self._store.incoming}{os.sep}{os.getpid()}-{next(self._count)}"
        digest = hashlib.sha256(header)
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise ArchiveFailedError(error) from error
        try:
            _write_all(descriptor, header)
            if octets is not None:
                data = memoryview(octets)[offset:]
                digest.update(data)
                _write_all(descriptor, data)
            else:
                file.seek(offset)
                while piece := file.read(PIECE):
                    digest.update(piece)
                    _write_all(descriptor, piece)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        return temporary, digest.hexdigest()

    def _compared(
        self,
        path: str,
        file: io.FileIO,
        mark: Mark,
        meta: FileMeta,
        uid: str,
        octets: bytes | None,
    ) -> Found:
        """The file of an instance whose SOP Instance UID has a file already."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self._store.path_text(uid), flags)
        except OSError:
            return Found(path, None, mark, uid)
        with open(descriptor, "rb") as here:
            if Mark.of(os.fstat(descriptor)) == mark:
                return Found(path, What.SAME, mark, uid, is_linked=True)
            try:
                theirs = read_file_meta(here)
            except DataSetError:
                return Found(path, None, mark, uid)
            if theirs.transfer_syntax != meta.transfer_syntax:
                return Found(path, None, mark, uid)
            if octets is not None:
                is_same = here.read(mark.size + 1) == memoryview(octets)[meta.offset :]
            else:
                file.seek(meta.offset)
                is_same = same_rest(file, here)
        return Found(path, What.SAME if is_same else None, mark, uid)

    def _named(self, group: list[Found]) -> list[Found]:
        """Sync the names of the last group and the octets of this one, and give this one its names.

        Returns:
            The last group.
        """
        held, self._held = self._held, []
        new = [each for each in group if each.record is not None]
        try:
            if new and not self._store.has_room():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._store.root))
            paths = [str(each.record.path) for each in held if each.record is not None]
            paths += [each.temporary or each.path for each in new]
            if paths and self._settings.is_synced:
                sync_files(self._descriptor, paths)
            for each in new:
                self._name(each)
        finally:
            for each in new:
                if each.temporary:
                    with suppress(OSError):
                        os.unlink(each.temporary)
        self._held = group
        return held

    def _name(self, found: Found) -> None:
        assert found.record is not None
        target = str(found.record.path)
        try:
            os.link(found.temporary or found.path, target)
        except FileExistsError:
            # Another file of this import has the same instance, or a node has stored it.
            found.what = found.record = None
            found.is_linked = False
            return
        except OSError as error:
            if found.is_linked and error.errno in _NO_LINK:
                self._copy_after_all(found)
                return
            raise
        status = os.stat(target, follow_symlinks=False)
        found.named = status.st_dev, status.st_ino
        if found.is_linked and Mark.of(status) != found.original:
            os.unlink(target)
            found.what, found.record, found.named = What.FAILED, None, None
            found.reason = "it was changed while it was read"

    def _copy_after_all(self, found: Found) -> None:
        """Leave a file that cannot have a second name to the way of single instances, which copies it."""
        found.what = found.record = None
        found.is_linked = False


def _write_all(descriptor: int, octets: bytes | memoryview) -> None:
    try:
        write_all(descriptor, octets)
    except OSError as error:
        raise ArchiveFailedError(error) from error
