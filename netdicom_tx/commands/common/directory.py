"""A directory that instances are received into: every file in it is complete, and is on the disk.

An instance arrives under a hidden temporary name in the directory. When all of it is there, its structure is checked,
and it is synced to the disk and renamed to its place. There are two layouts:

=========  ===============================================
``study``  ``STUDY-UID/SERIES-UID/INSTANCE-UID.dcm``
``flat``   ``INSTANCE-UID.dcm``
=========  ===============================================

Names are made of UIDs that have been checked: digits, with single dots between them. Directories
are opened one by one without following links. So neither a UID of a peer nor a link in the directory
leads out of it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import mmap
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ... import dsutils, statuses
from ...archive.encoded.walk import InvalidDataSetError, Walked, walk
from ...exceptions import StatusError
from ...folders import entered
from .failures import bad_input

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from ...asceprovider import Association
    from ...negotiation import PContextDef

__all__ = ["Arrived", "Incoming", "OutputDirectory", "is_safe_uid"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_BUFFER = 1 << 18


def is_safe_uid(uid: object) -> bool:
    """Whether this is a UID that may be the name of a file; leading zeros are allowed."""
    return isinstance(uid, str) and len(uid) <= 64 and _UID.fullmatch(uid) is not None


@dataclass(frozen=True, slots=True)
class Arrived:
    """An instance that was kept.

    Attributes:
        path: The path of the file, below the output directory.
        size: The size of the file in octets.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    path: str
    size: int


class _File(io.FileIO):
    """A file that records the first error of the disk."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise


class Incoming(io.BufferedRandom):
    """A Part 10 file that is being received; closing it deletes it, unless it was kept.

    Attributes:
        temporary: Its name in the output directory, until it is kept.
        start: Where the data set begins.
        is_kept: Whether the file has its final name.
        is_told: Whether the watcher has been told what became of it.
    """

    def __init__(
        self,
        raw: _File,
        temporary: str,
        asce: Association,
        context: PContextDef,
        sop_class_uid: str,
        sop_instance_uid: str,
        start: int,
        on_closing: Callable[[Incoming], None],
    ) -> None:
        super().__init__(raw, _BUFFER)
        self._disk = raw
        self._on_closing = on_closing
        self.temporary = temporary
        self.asce = asce
        self.context = context
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.start = start
        self.is_kept = False
        self.is_told = False
        self._guard = threading.Lock()
        self._is_in_use = False
        self._is_given_up = False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Put off the work of :meth:`close` until the end of the block.

        The connection may be lost, and the file closed, while a thread keeps the instance. Its descriptor must not be
        given to another file in the meantime.

        Raises:
            StatusError: The file is closed already; the status is 0x0110.
        """
        with self._guard:
            if self.closed:
                raise StatusError(statuses.PROCESSING_FAILURE, "the association has ended")
            self._is_in_use = True
        try:
            yield
        finally:
            with self._guard:
                self._is_in_use = False
            if self._is_given_up:
                self.close()

    @property
    def failure(self) -> OSError | None:
        """Why something could not be written."""
        return self._disk.failure

    def close(self) -> None:
        with self._guard:
            if self._is_in_use:
                self._is_given_up = True
                return
        if not self.closed:
            try:
                super().close()
            finally:
                self._on_closing(self)


class OutputDirectory:
    """A directory that instances are received into.

    Args:
        path: The directory; it is created, with its parents, if it does not exist.
        layout: One of :data:`.options.LAYOUTS`.

    Raises:
        CommandError: The directory cannot be written.
    """

    def __init__(self, path: str, layout: str = "study") -> None:
        self.path = path
        self._layout = layout
        self._count = itertools.count()
        try:
            os.makedirs(path, exist_ok=True)
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if not os.access(path, os.W_OK | os.X_OK):
                os.close(self._root)
                raise PermissionError(0, "Permission denied")
        except OSError as error:
            raise bad_input(
                f"the output directory {path} cannot be used",
                str(error.strerror),
                "name a directory that can be written: -o DIR",
            ) from error

    def close(self) -> None:
        os.close(self._root)

    def open(
        self,
        asce: Association,
        context: PContextDef,
        sop_class_uid: str,
        sop_instance_uid: str,
        on_closing: Callable[[Incoming], None] = lambda _: None,
    ) -> Incoming:
        """A temporary file that begins with the Part 10 header.

        Args:
            on_closing: Called when the file is closed.

        Raises:
            StatusError: The SOP Instance UID is not a UID; the status is 0xA900.
            OSError: The file cannot be written.
        """
        if not is_safe_uid(sop_instance_uid):
            raise StatusError(
                statuses.C_STORE_DATA_SET_DOES_NOT_MATCH, "Affected SOP Instance UID is not a UID"
            )
        name = f".netdicom-{os.getpid()}-{next(self._count)}.part"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(name, flags, 0o666, dir_fd=self._root)
        header = dsutils.part10_header(
            sop_class_uid,
            sop_instance_uid,
            context.supported_ts,
            source_ae_title=asce.calling_ae_title
            if not asce.is_requestor
            else asce.called_ae_title,
        )

        def closing(file: Incoming) -> None:
            if not file.is_kept:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._root)
            on_closing(file)

        raw = _File(descriptor, "r+")
        file = Incoming(
            raw, name, asce, context, sop_class_uid, sop_instance_uid, len(header), closing
        )
        file.write(header)
        return file

    def keep(self, file: Incoming) -> Arrived:
        """Give a complete file its name. When this returns, the file is on the disk. This method blocks.

        Raises:
            StatusError: The data set is not complete (0xC000), or is not the announced instance (0xA900).
            OSError: The file cannot be written.
        """
        with file.in_use():
            return self._keep(file)

    def _keep(self, file: Incoming) -> Arrived:
        file.flush()
        found = _walked(file)
        folders: list[str] = []
        if self._layout == "study":
            folders = _study_and_series(found)
            if not all(map(is_safe_uid, folders)):
                folders = []  # objects without a patient have none
        os.fsync(file.fileno())
        name = f"{file.sop_instance_uid}.dcm"
        folder = entered(self._root, folders)
        try:
            os.rename(file.temporary, name, src_dir_fd=self._root, dst_dir_fd=folder)
            file.is_kept = True
            os.fsync(folder)
        finally:
            os.close(folder)
        return Arrived(
            file.sop_class_uid,
            file.sop_instance_uid,
            file.context.supported_ts,
            os.path.join(self.path, *folders, name),
            os.fstat(file.fileno()).st_size,
        )


def _walked(file: Incoming) -> Walked:
    """Walk through a data set, which must be complete and the instance that was announced.

    Raises:
        StatusError: It is not complete (0xC000), or is another instance (0xA900).
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as octets:
        try:
            found = walk(octets, file.context.supported_ts, file.start, (_STUDY, _SERIES))
        except InvalidDataSetError as error:
            raise StatusError(statuses.C_STORE_CANNOT_UNDERSTAND, str(error)) from error
    for what, announced, said in (
        ("SOP Class UID", file.sop_class_uid, found.sop_class_uid),
        ("SOP Instance UID", file.sop_instance_uid, found.sop_instance_uid),
    ):
        if announced != said:
            raise StatusError(
                statuses.C_STORE_DATA_SET_DOES_NOT_MATCH,
                f"{what} of the data set is not that of the command"
                if said
                else f"the data set has no {what}",
            )
    return found


def _study_and_series(found: Walked) -> list[str]:
    """The Study and Series Instance UIDs of a data set that was walked through; empty where one is missing."""
    return [_uid(found, tag) for tag in (_STUDY, _SERIES)]


def _uid(found: Walked, tag: int) -> str:
    """A UID as it is written; it is only compared, so it is not converted."""
    element = found.elements.get(tag)
    if element is None:
        return ""
    return found.header[element.start : element.end].decode("latin-1").rstrip("\0 ")
