"""The node that ``twistd dicom`` runs: an AE that keeps what it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from .. import statuses
from ..applicationentity import AE
from ..asceprovider import Association
from ..dimsemessages import Request
from ..dispatch import UNKNOWN_SOP_CLASSES
from ..exceptions import StatusError
from ..negotiation import PContextDef
from ..sopclass import storage_scp, verification_scp
from ..uids import ALL_TRANSFER_SYNTAXES, STORAGE_SOP_CLASSES
from .filestore import FileStore, Kept, MismatchError, Outcome, Spool
from .header import InvalidDataSetError

__all__ = ["ArchiveAE"]

_T = TypeVar("_T")

# Threads that write and sync; more than the disk's queue needs do not help.
_WRITERS = 4


class ArchiveAE(AE):
    """An AE with a file store: verification and storage of every storage SOP class.

    Every transfer syntax is taken, and data sets are kept as they come. Success is answered when
    the instance is on the disk for good.

    Args:
        ae_title: As for :class:`~netdicom_tx.AE`.
        store: Opened by :meth:`start`.
        unknown_sop_classes: Also keep instances of SOP classes that no registry knows.
        options: Of :class:`~netdicom_tx.AE`.
    """

    _log = Logger()

    def __init__(
        self,
        ae_title: str,
        store: FileStore,
        *,
        unknown_sop_classes: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(ae_title, **options)
        self.store = store
        self._writers: ThreadPool | None = None
        self.add_scp(verification_scp)
        sop_classes = STORAGE_SOP_CLASSES
        if unknown_sop_classes:
            sop_classes = (*STORAGE_SOP_CLASSES, UNKNOWN_SOP_CLASSES)
        self.add_scp(storage_scp, sop_classes, ALL_TRANSFER_SYNTAXES)

    def about(self) -> str:
        return f", storage {self.store.root}"

    # -- running ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the store and start the threads that write.

        Raises:
            StorageError: The storage directory cannot be used.
        """
        self.store.open()
        self._writers = ThreadPool(1, _WRITERS, "netdicom-archive")
        self._writers.start()

    def stop(self) -> None:
        """Finish what is being written, and give the store back."""
        if self._writers is not None:
            self._writers.stop()
            self._writers = None
        self.store.close()

    def in_thread(self, call: Callable[..., _T], *arguments: Any) -> defer.Deferred[_T]:
        """Run blocking work off the reactor thread.

        Cancelling the Deferred forgets the result; the work itself goes on.
        """
        if self._writers is None:
            return defer.maybeDeferred(call, *arguments)
        reactor: IReactorFromThreads = self.reactor
        return deferToThreadPool(reactor, self._writers, call, *arguments)

    # -- storage -----------------------------------------------------------------------------------

    def get_file(
        self, asce: Association, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        """A spool of the store.

        Raises:
            StatusError: 0xA700, the disk is full up to its reserve.
        """
        if not self.store.has_room():
            raise StatusError(statuses.C_STORE_OUT_OF_RESOURCES, "out of resources: disk space")
        spool = self.store.spool(
            command_set.sop_class_uid or "",
            command_set.sop_instance_uid or "",
            context.supported_ts,
            asce.calling_ae_title,
        )
        return cast(BinaryIO, spool), 0

    async def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
        """Keep an instance.

        Returns:
            0x0000 when it is on the disk, 0x0111 when another data set has its UID and stays,
            0xA700 when the disk refuses, 0xA900 when the data set is another instance than the
            command says, 0xC000 when it is no whole data set.
        """
        spool = cast(Spool, ds)
        try:
            kept = await self.in_thread(self.store.keep, spool)
        except InvalidDataSetError as error:
            raise StatusError(statuses.C_STORE_CANNOT_UNDERSTAND, str(error)) from error
        except MismatchError as error:
            raise StatusError(statuses.C_STORE_DATA_SET_DOES_NOT_MATCH, str(error)) from error
        except OSError as error:
            self._log.error("an instance cannot be kept: {error}", error=error)
            raise StatusError(
                statuses.C_STORE_OUT_OF_RESOURCES, "out of resources: the disk refuses"
            ) from error
        return self.stored(kept)

    def stored(self, kept: Kept) -> int:
        """The status for what became of an instance."""
        if kept.outcome is Outcome.REFUSED:
            return statuses.Status(
                statuses.DUPLICATE_SOP_INSTANCE,
                "C-STORE",
                "another data set with this SOP Instance UID is kept",
            )
        return statuses.SUCCESS
