"""Instances that are received into a directory: whole, durable, and nowhere else.

An instance arrives under a hidden temporary name in the directory. When all of it is there, it is
synced and renamed to its place, and the peer gets Success. Two layouts:

=========  ===============================================
``study``  ``STUDY-UID/SERIES-UID/INSTANCE-UID.dcm``
``flat``   ``INSTANCE-UID.dcm``
=========  ===============================================

Names are made of UIDs that have been checked: digits, with single dots between them. Directories
are opened one by one without following links, so nothing that a peer says, and nothing planted in
the directory, leads out of it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from ... import dsutils, statuses
from ...applicationentity import AE
from ...asceprovider import Association
from ...dimsemessages import Request
from ...dispatch import UNKNOWN_SOP_CLASSES
from ...exceptions import StatusError
from ...negotiation import PContextDef
from ...pdu import AAssociateRQ
from ...sopclass import storage_scp, verification_scp
from ...uids import ALL_TRANSFER_SYNTAXES, STORAGE_SOP_CLASSES
from .failures import bad_input

__all__ = [
    "Arrived",
    "Incoming",
    "OutputDirectory",
    "ReceivingAE",
    "Watcher",
    "is_safe_uid",
    "serve",
]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
# Octets of a deflated data set that are looked at; what names it stands at its beginning.
_DEFLATED_HEAD = 1 << 20
_BEYOND_IDENTITY = 0x0020000F
_BUFFER = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_safe_uid(uid: object) -> bool:
    """Whether this is a UID that may be the name of a file; leading zeros are let through."""
    return isinstance(uid, str) and len(uid) <= 64 and _UID.fullmatch(uid) is not None


@dataclass(frozen=True, slots=True)
class Arrived:
    """An instance that was kept.

    Attributes:
        path: Below the output directory.
        size: Octets of the file.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    path: str
    size: int


class Incoming(io.BufferedRandom):
    """A Part 10 file on its way in; closing it deletes it, unless it was kept."""

    def __init__(
        self,
        raw: io.FileIO,
        forget: Callable[[], None],
        asce: Association,
        context: PContextDef,
        sop_class_uid: str,
        sop_instance_uid: str,
        start: int,
    ) -> None:
        super().__init__(raw, _BUFFER)
        self._forget = forget
        self.asce = asce
        self.context = context
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.start = start
        self.temporary = ""
        self.is_kept = False

    def close(self) -> None:
        if not self.closed:
            super().close()
            if not self.is_kept:
                self._forget()


class OutputDirectory:
    """A directory that instances are received into.

    Args:
        path: Made, with its parents, when absent.
        layout: One of :data:`.options.LAYOUTS`.

    Raises:
        CommandError: It cannot be written.
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
                raise PermissionError(0, "it may not be written")
        except OSError as error:
            raise bad_input(
                f"the output directory {path} cannot be used",
                str(error.strerror),
                "name another one with -o DIR",
            ) from error

    def close(self) -> None:
        os.close(self._root)

    def open(
        self, asce: Association, context: PContextDef, sop_class_uid: str, sop_instance_uid: str
    ) -> Incoming:
        """A temporary file that begins with the Part 10 header.

        Raises:
            StatusError: 0xA900, the UID is none.
            OSError: The disk refuses.
        """
        if not is_safe_uid(sop_instance_uid):
            raise StatusError(
                statuses.C_STORE_DATA_SET_DOES_NOT_MATCH, "Affected SOP Instance UID is no UID"
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
        file = Incoming(
            io.FileIO(descriptor, "r+"),
            lambda: self._remove(name),
            asce,
            context,
            sop_class_uid,
            sop_instance_uid,
            len(header),
        )
        file.temporary = name
        file.write(header)
        return file

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._root)

    def keep(self, file: Incoming) -> Arrived:
        """Give a complete file its name; when this returns it is on the disk. It blocks.

        Raises:
            StatusError: 0xA900, it is another instance than was announced; 0xC000, it cannot be read.
            OSError: The disk refuses.
        """
        file.flush()
        found = _identity(file)
        for what, announced in (
            ("SOP Class UID", file.sop_class_uid),
            ("SOP Instance UID", file.sop_instance_uid),
        ):
            if found[what] != announced:
                raise StatusError(
                    statuses.C_STORE_DATA_SET_DOES_NOT_MATCH,
                    f"{what} of the data set is not that of the command"
                    if found[what]
                    else f"the data set has no {what}",
                )
        folders: list[str] = []
        if self._layout == "study":
            folders = [found["Study Instance UID"], found["Series Instance UID"]]
            if not all(map(is_safe_uid, folders)):
                folders = []  # objects without a patient have none
        os.fsync(file.fileno())
        name = f"{file.sop_instance_uid}.dcm"
        folder = self._enter(folders)
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

    def _enter(self, folders: list[str]) -> int:
        """The descriptor of a directory below ours, made when absent."""
        here = os.dup(self._root)
        try:
            for name in folders:
                try:
                    os.mkdir(name, dir_fd=here)
                except FileExistsError:
                    pass
                else:
                    os.fsync(here)
                inner = os.open(name, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = inner
        except BaseException:
            os.close(here)
            raise
        return here


_IDENTITY = {
    "SOP Class UID": 0x00080016,
    "SOP Instance UID": 0x00080018,
    "Study Instance UID": 0x0020000D,
    "Series Instance UID": 0x0020000E,
}


def _identity(file: Incoming) -> dict[str, str]:
    """What names an instance; empty where the data set does not say.

    Raises:
        StatusError: 0xC000, this is no data set.
    """
    syntax = file.context.supported_ts
    file.seek(file.start)
    source: BinaryIO = cast(BinaryIO, file)

    def beyond(tag: BaseTag, vr: str | None, length: int) -> bool:
        return int(tag) >= _BEYOND_IDENTITY

    try:
        if dsutils.is_deflated(syntax):
            head = file.read(_DEFLATED_HEAD)
            source = io.BytesIO(
                zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _DEFLATED_HEAD)
            )
        found = read_dataset(
            source,
            is_implicit_VR=dsutils.is_implicit_vr(syntax),
            is_little_endian=dsutils.is_little_endian(syntax),
            stop_when=beyond,
            defer_size=1 << 16,
        )
    except OSError:
        raise
    except Exception as error:  # pydicom documents no closed set of errors
        raise StatusError(
            statuses.C_STORE_CANNOT_UNDERSTAND, "the data set cannot be read"
        ) from error
    return {name: _uid(found.get_item(tag)) for name, tag in _IDENTITY.items()}


def _uid(element: object) -> str:
    """A UID as it stands there; not converted, so that whatever it is, it is only compared."""
    value = getattr(element, "value", None)
    return value.decode("latin-1").rstrip("\0 ") if isinstance(value, bytes) else ""


class Watcher(Protocol):
    """Follows what a :class:`ReceivingAE` receives."""

    def began(self, asce: Association) -> None:
        """An association was requested of us."""

    def kept(self, asce: Association, arrived: Arrived) -> None:
        """An instance is on the disk under its name."""

    def refused(self, asce: Association, error: Exception) -> None:
        """An instance was not kept: OSError when the disk failed, else StatusError."""


class ReceivingAE(AE):
    """An AE that keeps what is stored to it in a directory.

    Args:
        ae_title: As for :class:`~netdicom_tx.AE`.
        output: Where to.
        watcher: Told of each association and of each instance.
        options: Of :class:`~netdicom_tx.AE`.
    """

    _log = Logger()

    def __init__(
        self,
        ae_title: str,
        output: OutputDirectory,
        watcher: Watcher,
        **options: Any,
    ) -> None:
        super().__init__(ae_title, **options)
        self._output = output
        self._watcher = watcher

    def on_association_request(self, asce: Association, assoc: AAssociateRQ) -> None:
        self._watcher.began(asce)

    def get_file(
        self, asce: Association, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        """A temporary file in the output directory.

        Raises:
            StatusError: 0xA900, the SOP Instance UID is none.
        """
        try:
            file = self._output.open(
                asce,
                context,
                command_set.sop_class_uid or "",
                command_set.sop_instance_uid or "",
            )
        except (StatusError, OSError) as error:
            self._watcher.refused(asce, error)
            raise
        return cast(BinaryIO, file), 0

    async def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
        """Keep an instance; Success when it is on the disk under its name."""
        file = cast(Incoming, ds)
        try:
            arrived = await deferToThreadPool(
                self.reactor, self.reactor.getThreadPool(), self._output.keep, file
            )
        except OSError as error:
            self._watcher.refused(file.asce, error)
            self._log.error("an instance cannot be kept: {error}", error=error)
            raise StatusError(
                statuses.C_STORE_OUT_OF_RESOURCES, "out of resources: the disk refuses"
            ) from error
        except StatusError as error:
            self._watcher.refused(file.asce, error)
            raise
        self._watcher.kept(file.asce, arrived)
        return statuses.SUCCESS


def serve(ae: AE, *, takes_all: bool) -> None:
    """Verification and storage, in every transfer syntax.

    Args:
        takes_all: Also SOP classes that no registry knows.
    """
    classes = (*STORAGE_SOP_CLASSES, UNKNOWN_SOP_CLASSES) if takes_all else STORAGE_SOP_CLASSES
    ae.add_scp(verification_scp).add_scp(storage_scp, classes, ALL_TRANSFER_SYNTAXES)
