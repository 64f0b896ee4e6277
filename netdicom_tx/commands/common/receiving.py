"""An AE that keeps what it receives in a directory (PS3.4 Annex B, SCP)."""

from __future__ import annotations

from typing import Any, BinaryIO, Protocol, cast

from twisted.internet.threads import deferToThreadPool

from ... import statuses
from ...applicationentity import AE
from ...asceprovider import Association
from ...dimsemessages import Request
from ...dispatch import UNKNOWN_SOP_CLASSES
from ...exceptions import StatusError
from ...logs import Logger
from ...negotiation import PContextDef
from ...pdu import AAssociateRQ
from ...sopclass import storage_scp, verification_scp
from ...uids import ALL_TRANSFER_SYNTAXES, STORAGE_SOP_CLASSES
from .directory import Arrived, Incoming, OutputDirectory

__all__ = ["ReceivingAE", "Watcher", "serve"]


class Watcher(Protocol):
    """Is told what a :class:`ReceivingAE` receives."""

    def began(self, asce: Association) -> None:
        """A peer asked for an association."""

    def kept(self, asce: Association, arrived: Arrived) -> None:
        """An instance is on the disk under its name."""

    def refused(self, asce: Association, error: Exception) -> None:
        """An instance was not kept: OSError when the disk failed, otherwise StatusError."""


class ReceivingAE(AE):
    """An AE that keeps what is stored to it in a directory.

    Args:
        ae_title: The AE title, 1 to 16 characters.
        output: The directory.
        watcher: Is told about each association and each instance.
        options: Further arguments of :class:`~netdicom_tx.AE`.
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
        # The errors of the disk so far; each kind of failure is logged once.
        self._disk_said: set[int | None] = set()

    def on_association_request(self, asce: Association, assoc: AAssociateRQ) -> None:
        self._watcher.began(asce)

    def get_file(
        self, asce: Association, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        """A temporary file in the output directory.

        Raises:
            StatusError: The SOP Instance UID is not a UID; the status is 0xA900.
            OSError: The file cannot be written.
        """
        try:
            file = self._output.open(
                asce,
                context,
                command_set.sop_class_uid or "",
                command_set.sop_instance_uid or "",
                self._closing,
            )
        except (StatusError, OSError) as error:
            self._refused(asce, error)
            raise
        return cast(BinaryIO, file), 0

    async def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
        """Keep an instance; the status is Success when it is on the disk under its name."""
        file = cast(Incoming, ds)
        try:
            arrived = await deferToThreadPool(
                self.reactor, self.reactor.getThreadPool(), self._output.keep, file
            )
        except (StatusError, OSError) as error:
            file.is_told = True
            self._refused(file.asce, error)
            if isinstance(error, StatusError):
                raise
            raise StatusError(
                statuses.C_STORE_OUT_OF_RESOURCES, "out of resources: the disk refuses"
            ) from error
        file.is_told = True
        self._watcher.kept(file.asce, arrived)
        return statuses.SUCCESS

    def _closing(self, file: Incoming) -> None:
        """Tell the watcher of a disk error during reception, which was answered with 0xA700 at once."""
        if file.failure is not None and not file.is_told:
            self._refused(file.asce, file.failure)

    def _refused(self, asce: Association, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno not in self._disk_said:
            self._disk_said.add(error.errno)
            self._log.error(
                "cannot write to {directory}: {reason}; instances are refused with 0xA700",
                directory=self._output.path,
                reason=error.strerror or str(error),
            )
        self._watcher.refused(asce, error)


def serve(ae: AE, *, takes_all: bool) -> None:
    """Let an AE serve verification, and storage in every transfer syntax.

    Args:
        takes_all: Whether to accept private and unknown SOP classes, too.
    """
    classes = (*STORAGE_SOP_CLASSES, UNKNOWN_SOP_CLASSES) if takes_all else STORAGE_SOP_CLASSES
    ae.add_scp(verification_scp).add_scp(storage_scp, classes, ALL_TRANSFER_SYNTAXES)
