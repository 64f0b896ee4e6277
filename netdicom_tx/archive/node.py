"""The node that ``twistd dicom`` runs: an AE that stores instances, answers queries and sends instances on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any, BinaryIO, Final, NoReturn, TypeVar, cast
from weakref import WeakSet

from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from .. import statuses
from ..applicationentity import AE, RemoteAE
from ..asceprovider import Association
from ..audit import Action
from ..dimsemessages import Request, Response
from ..dispatch import UNKNOWN_SOP_CLASSES
from ..encoding import DataSetError
from ..exceptions import StatusError
from ..hooks import RequestContext
from ..logs import Logger
from ..negotiation import PContextDef
from ..pdu import AAssociateRJ, AAssociateRQ
from ..refusals import Refusal
from ..sopclass import (
    Instance,
    QueryRetrieveFind,
    QueryRetrieveGet,
    QueryRetrieveMove,
    storage_scp,
    verification_scp,
)
from ..uids import (
    ALL_TRANSFER_SYNTAXES,
    COMPOSITE_INSTANCE_ROOT_GET_SOP_CLASS,
    COMPOSITE_INSTANCE_ROOT_MOVE_SOP_CLASS,
    GET_SOP_CLASSES,
    MOVE_SOP_CLASSES,
    STORAGE_SOP_CLASSES,
    WITHOUT_BULK_DATA_GET_SOP_CLASS,
)
from .auditing import Auditor, StudyRow
from .encoded.walk import Walked
from .index.engine import IndexUnusableError
from .index.index import Index, IndexUnavailableError, InstanceRef
from .index.record import WANTED, InstanceRecord, record_of
from .index.watch import SECONDS, Watches
from .query.retrieval import Retrieval
from .query.search import Search
from .store.filestore import FileStore, Kept, MismatchError, Outcome, Spool, StorageError
from .store.intake import Intake
from .store.reconcile import Reconciled, reconcile
from .workers import Workers
from .workflow.workflow import Workflow, WorkflowOptions

__all__ = ["ArchiveAE"]

_T = TypeVar("_T")

# Seconds between two lines about a comparison of files and index that takes long.
_PROGRESS: Final = 10.0
# For how many seconds the release of a peer waits for files and rows; they usually take a twentieth of one.
_RELEASE_WAITS: Final = 1.0
# Four threads keep the queue of a disk full; more do not make it faster.
_THREADS = 4
_MOVE_SOP_CLASSES = (*MOVE_SOP_CLASSES, COMPOSITE_INSTANCE_ROOT_MOVE_SOP_CLASS)
_GET_SOP_CLASSES = (
    *GET_SOP_CLASSES,
    COMPOSITE_INSTANCE_ROOT_GET_SOP_CLASS,
    WITHOUT_BULK_DATA_GET_SOP_CLASS,
)

# What is logged of an instance when another one with its UID is here, or was.
_DUPLICATES: Final = {
    Outcome.REFUSED: "is refused",
    Outcome.ASIDE: "is kept aside as versions/{name}",
    Outcome.REPLACED: "replaces the one that was here",
}


# What an instance that comes is to the archive, for the audit trail.
_ACTIONS: Final = {
    Outcome.SAME: Action.READ,
    Outcome.ASIDE: Action.UPDATE,
    Outcome.REPLACED: Action.UPDATE,
}


class ArchiveAE(AE):
    """An AE with a file store and an index: verification, storage, query and retrieve.

    It accepts every storage SOP class and transfer syntax, and keeps each data set as it was received. It answers
    Success when the file is on the disk for good and its row is committed.

    Args:
        ae_title: The AE title of the node, 1 to 16 characters.
        store: The file store; :meth:`start` opens it.
        index: The index; :meth:`start` opens it and makes it agree with the store. With None the node keeps files
            only, and answers no queries.
        peers: The peers by AE title. C-MOVE sends to these and to no other address.
        unknown_sop_classes: Whether instances of private and unknown SOP classes are kept, too.
        match_unknown: Whether an attribute without a value matches every key (PS3.4 C.2.2.1.2). By default it
            matches no key, as in other archives: a wrong patient on the screen is worse than a missing one.
        search_seconds: How many seconds each step of a search may take: the search itself, and each page of its
            answers.
        auditor: Writes an audit trail of what peers do; None writes none. It is started and stopped with the archive.
        workflow: The options for worklist, performed procedure steps and storage commitment, which need an index.
        threads: How many threads write, and how many read. With 0 all work is done on the reactor thread, even
            before :meth:`start`, which suits a test without a reactor.
        options: Further arguments of :class:`~netdicom_tx.AE`, such as ``max_associations``.
    """

    _log = Logger()

    def __init__(
        self,
        ae_title: str,
        store: FileStore,
        index: Index | None = None,
        *,
        peers: Mapping[str, RemoteAE] | None = None,
        unknown_sop_classes: bool = False,
        match_unknown: bool = False,
        search_seconds: float = SECONDS,
        auditor: Auditor | None = None,
        workflow: WorkflowOptions | None = None,
        threads: int = _THREADS,
        **options: Any,
    ) -> None:
        super().__init__(ae_title, **options)
        self.store = store
        self.index = index
        self.peers = dict(peers or {})
        self.auditor = auditor
        self._is_audited = False
        # Why the last instance could not be kept, and how many could not be.
        self._refusing: tuple[type[BaseException], int | None] | None = None
        self._refused = 0
        # The associations on which something was kept.
        self._senders: WeakSet[Association] = WeakSet()
        self._queue_starts: IDelayedCall | None = None
        self._preparing: threading.Thread | None = None
        self._prepared: defer.Deferred[None] | None = None
        self._is_given_up = threading.Event()
        self._watches = Watches(search_seconds)
        self._writers = Workers("netdicom-writer", threads)
        self._readers = Workers("netdicom-reader", threads)
        self._intake: Intake | None = None
        if threads and index is not None and type(store).keep is FileStore.keep:
            # Otherwise each instance is kept by itself: a store with a keep() of its own decides about all of them.
            self._intake = Intake(store, index)
        self.add_scp(verification_scp)
        sop_classes = STORAGE_SOP_CLASSES
        if unknown_sop_classes:
            sop_classes = (*STORAGE_SOP_CLASSES, UNKNOWN_SOP_CLASSES)
        self.add_scp(storage_scp, sop_classes, ALL_TRANSFER_SYNTAXES)
        if index is not None:
            self.retrieval = Retrieval(
                Search(index, match_unknown=match_unknown),
                self._readers,
                self.peers,
                self.ae_title,
                self._watches,
            )
            self.retrieval.on_selected = self._selected
            extended = self.retrieval.answer_extended
            self.add_scp(QueryRetrieveFind(on_extended=extended))
            self.add_scp(QueryRetrieveMove(on_extended=extended), _MOVE_SOP_CLASSES)
            self.add_scp(QueryRetrieveGet(on_extended=extended), _GET_SOP_CLASSES)
            self.workflow = Workflow(
                self,
                index,
                self._readers,
                self.peers,
                workflow or WorkflowOptions(),
                # Nodes that share a database may have the same title, but never the same directory of the same host.
                owner=f"{socket.gethostname()}:{store.root}",
                watches=self._watches,
                has_room=store.has_room,
            )

    def about(self) -> str:
        more = f", storage {self.store.root}"
        return more if self.index is None else f"{more}, index {self.index.url}"

    # -- running ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Open store and index, make them agree, and start the threads.

        Raises:
            StorageError: The storage directory cannot be used.
            IndexUnusableError: The index cannot be used.
        """
        self._open()
        try:
            self._agree()
        except BaseException:
            self.stop()
            raise
        self._serve()

    def start_soon(self, patience: float = 0.0) -> defer.Deferred[None]:
        """Start as :meth:`start` does, but make store and index agree in a thread.

        Until they agree, requests for associations are rejected as transient (PS3.8 9.3.4: temporary congestion), and
        the log says every ten seconds how far the comparison has come. :meth:`stop` ends it at once.

        Args:
            patience: How many seconds the caller is held up before the rest is left to the thread. What takes no longer
                is done, or has failed, when this method returns.

        Returns:
            Fires when peers are served. Fails with IndexUnusableError, and with CancelledError when the archive is
            stopped before. Cancelling it stops the comparison; call :meth:`stop` then.

        Raises:
            StorageError: The storage directory cannot be used.
            IndexUnusableError: The index cannot be used.
        """
        self._open()
        future: Future[None] = Future()

        def agree() -> None:
            try:
                self._agree()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

        self._preparing = threading.Thread(target=agree, name="netdicom-start", daemon=True)
        self._preparing.start()
        wait([future], patience)
        self._prepared = defer.Deferred(lambda _: self._is_given_up.set())
        prepared = self._prepared
        if future.done():
            self._is_prepared(future)
            error = future.exception()
            if error is not None:
                prepared.addErrback(lambda _: None)
                raise error
        else:
            self._log.info(
                "files and index are being compared; requests for associations are rejected until that is done"
            )
            reactor = self.reactor
            future.add_done_callback(lambda _: reactor.callFromThread(self._is_prepared, future))
        return prepared

    def _is_prepared(self, future: Future[None]) -> None:
        prepared, self._prepared = self._prepared, None
        self._preparing = None
        if prepared is None or prepared.called:
            return
        error = future.exception()
        if error is None:
            self._serve()
            prepared.callback(None)
        else:
            self.stop()
            prepared.errback(error)

    def reject_reason(self, asce: Association, request: AAssociateRQ) -> AAssociateRJ | None:
        """Why this request is rejected before the hook is asked, or None."""
        if self._preparing is not None:
            return AAssociateRJ(2, 3, 1)
        return super().reject_reason(asce, request)

    def _open(self) -> None:
        """Open store and index."""
        self._is_given_up.clear()
        self.store.open()
        if self.store.recovered:
            self._log.warn(
                "the node did not end in order: {recovered} files were made from the journal",
                recovered=self.store.recovered,
            )
        try:
            if self.auditor is not None:
                self.auditor.start()
                self._is_audited = True
            if self.index is not None:
                self.index.open()
        except OSError as error:
            self.stop()
            raise StorageError(
                f"the audit trail {error.filename} cannot be written: {error.strerror}"
            ) from error
        except BaseException:
            self.stop()
            raise

    def _agree(self) -> None:
        """Make files and rows agree, before the node serves anybody; blocks."""
        if self.index is None:
            return
        said = monotonic()

        def step(done: Reconciled) -> None:
            nonlocal said
            if self._is_given_up.is_set():
                raise defer.CancelledError("the archive is being stopped")
            if monotonic() - said >= _PROGRESS:
                said = monotonic()
                self._log.info(
                    "{files} files have been compared with the index, and {indexed} of them were indexed",
                    files=done.files,
                    indexed=len(done.indexed),
                )

        try:
            found = reconcile(self.index, self.store, step)
        except IndexUnavailableError as error:
            raise IndexUnusableError(
                f"{error}; if the file is damaged, move it away: the node makes a new index from "
                "the stored instances"
            ) from error
        except OSError as error:
            raise StorageError(
                f"the storage directory {self.store.root} cannot be read: {error.strerror}"
            ) from error
        if found.indexed or found.removed or found.unreadable:
            self._log.warn(
                "index and files did not agree: {indexed} files were indexed, {removed} rows without "
                "a file were removed; {unreadable} files cannot be read and are not served",
                indexed=len(found.indexed),
                removed=len(found.removed),
                unreadable=len(found.unreadable),
            )

    def _serve(self) -> None:
        """Start the threads."""
        if self._intake is not None and self.index is not None:
            self._intake.start(self.reactor)
            self.index.settle = self._intake.settle
        self._writers.start(self.reactor)
        self._readers.start(self.reactor)
        if self.index is not None:
            # The queue starts in the reactor's next turn, because a node that cannot listen is stopped before that.
            self._queue_starts = self.clock.callLater(0, self.workflow.start, self.clock)

    def pause(self) -> defer.Deferred[None]:
        """Stop sending what is in the queue, and end the audit trail; fires when no task of the queue is running."""
        self._forget_queue_start()
        paused = defer.succeed(None) if self.index is None else self.workflow.stop()
        return paused.addCallback(lambda _: self._end_audit())

    def _end_audit(self) -> defer.Deferred[None]:
        if self.auditor is None or not self._is_audited:
            return defer.succeed(None)
        self._is_audited = False
        return defer.Deferred.fromCoroutine(self.auditor.stop())

    def _forget_queue_start(self) -> None:
        if self._queue_starts is not None and self._queue_starts.active():
            self._queue_starts.cancel()

    def stop(self) -> None:
        """Finish what is being written, end all searches, and close store and index."""
        self._forget_queue_start()
        self._give_up()
        self._refusals.catch_up(at_end=True)
        self._watches.cancel()
        if self.index is not None:
            self.workflow.close()
        self._writers.stop()
        self._readers.stop()
        if self._intake is not None:
            self._intake.stop()
        if self.index is not None:
            self.index.close()
        self.store.close()

    def _give_up(self) -> None:
        """End the comparison of files and index, if it is under way."""
        self._is_given_up.set()
        preparing, self._preparing = self._preparing, None
        prepared, self._prepared = self._prepared, None
        if preparing is not None:
            preparing.join()
        if prepared is not None:
            prepared.cancel()

    def in_thread(self, call: Callable[..., _T], *arguments: Any) -> defer.Deferred[_T]:
        """Run blocking work off the reactor thread.

        Cancelling the Deferred drops the result; the work itself continues.
        """
        return self._writers.run(call, *arguments)

    # -- the audit trail -----------------------------------------------------------------------------

    def association_accepted(self, asce: Association) -> None:
        super().association_accepted(asce)
        if self.auditor is not None:
            self.auditor.accepted(asce)

    def association_refused(self, asce: Association, refusal: Refusal) -> None:
        super().association_refused(asce, refusal)
        if self.auditor is not None:
            self.auditor.refused(asce, refusal)

    def association_closed(self, asce: Association) -> None:
        super().association_closed(asce)
        if self.auditor is not None:
            self.auditor.ended(asce)

    def operation_performed(
        self, asce: Association, ctx: PContextDef, msg: Request, response: Response | None
    ) -> None:
        if self.auditor is not None:
            self.auditor.performed(asce, ctx, msg, response)

    def _studies_of(self, sop_instance_uids: Sequence[str]) -> defer.Deferred[list[StudyRow]]:
        assert self.index is not None  # only a retrieve asks
        found = self._readers.run(self.index.studies_of, sop_instance_uids)
        return found.addCallback(lambda rows: [StudyRow(*row) for row in rows])

    def _selected(self, context: RequestContext, found: Sequence[InstanceRef]) -> None:
        if self.auditor is None:
            return
        uids = (each.sop_instance_uid for each in found)
        self.auditor.selected(context.association, context.request, uids, self._studies_of)

    # -- storage -----------------------------------------------------------------------------------

    def get_file(
        self, asce: Association, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        """Give a spool of the store.

        Raises:
            StatusError: The disk is full up to its reserve; the status is 0xA700.
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

    def on_receive_store(self, context: RequestContext, ds: BinaryIO) -> defer.Deferred[int]:
        """Keep an instance.

        Returns:
            0x0000 when the instance is on the disk and in the index, was there already with the same content, or is
            kept aside; 0x0111 when another data set with this UID is kept; 0xA700 when the disk or the index cannot
            take it; 0xA900 when the data set is another instance than the command says; 0xC000 when the data set is
            not complete or cannot be read.
        """
        spool = cast(Spool, ds)
        if self._intake is None:
            keeping = self._decide(None, spool)
        else:
            keeping = self._intake.keep(spool).addCallback(self._decide, spool)
        return keeping.addCallbacks(self._kept, self._not_kept, (context, spool))

    def _decide(self, kept: Kept | None, spool: Spool) -> defer.Deferred[Kept]:
        """Let the store decide what becomes of an instance that the intake has not kept."""
        if kept is not None:
            return defer.succeed(kept)
        return self._writers.run_then(self._keep, spool)

    def finish_work(self, asce: Association) -> defer.Deferred[Any] | None:
        """Make files and rows of what was acknowledged, so that they are there when the association has ended.

        Only a peer that has stored something waits for that, and not for a disk or a database that stalls.
        """
        if self._intake is None or asce not in self._senders:
            return None
        waiting = self._intake.when_settled()
        return waiting and waiting.addTimeout(_RELEASE_WAITS, self.clock)

    def _not_kept(self, failure: Failure) -> NoReturn:
        """Answer with the reason why an instance cannot be kept."""
        error = failure.value
        if isinstance(error, DataSetError):
            raise StatusError(statuses.C_STORE_CANNOT_UNDERSTAND, str(error)) from error
        if isinstance(error, MismatchError):
            raise StatusError(statuses.C_STORE_DATA_SET_DOES_NOT_MATCH, str(error)) from error
        if isinstance(error, OSError | IndexUnavailableError):
            # A full disk refuses thousands of instances; the log has a line when that begins, and one when it ends.
            reason = type(error), getattr(error, "errno", None)
            if reason != self._refusing:
                self._refusing = reason
                self._log.error("an instance cannot be kept: {error}", error=error)
            self._refused += 1
            refused = "disk" if isinstance(error, OSError) else "index"
            raise StatusError(
                statuses.C_STORE_OUT_OF_RESOURCES, f"out of resources: the {refused} refuses"
            ) from error
        failure.raiseException()

    def _kept(self, kept: Kept, context: RequestContext, spool: Spool) -> int:
        self._senders.add(context.association)
        if self._refusing is not None:
            self._log.info("instances are kept again; {count} were refused", count=self._refused)
            self._refusing, self._refused = None, 0
        if self.auditor is not None and kept.outcome is not Outcome.REFUSED:
            action = _ACTIONS.get(kept.outcome, Action.CREATE)
            self.auditor.arrived(context.association, kept.walked, spool.transfer_syntax, action)
        if kept.walked.oddities:
            self._log.info(
                "{uid} from {peer} is kept as it was received; it does not conform to PS3.5: {oddities}",
                uid=spool.sop_instance_uid,
                peer=context.association.peer_title,
                oddities="; ".join(kept.walked.oddities),
            )
        if kept.outcome in _DUPLICATES:
            self._log.warn(
                "{uid} from {peer} {outcome}: an instance with this UID and other content came from {first}",
                uid=spool.sop_instance_uid,
                peer=context.association.peer_title,
                outcome=_DUPLICATES[kept.outcome].format(name=kept.path.name),
                first=kept.earlier_sender or "an unknown AE",
            )
        return self.stored(kept)

    def _keep(self, spool: Spool) -> tuple[Kept, Future[Any] | None]:
        """Keep the file, then add its row, whose future is returned; runs in a thread.

        When the row cannot be written, the file stays. The scan of the next start or the sender's next attempt adds
        the row. So an instance that was not acknowledged may be there, but never a part of one.
        """
        if self.index is None:
            return self.store.keep(spool), None
        if self._intake is None:
            return self._keep_with(self.index, spool, lambda: None)
        with self._intake.claim(spool.sop_instance_uid):
            return self._keep_with(self.index, spool, self._intake.forget)

    def _keep_with(
        self, index: Index, spool: Spool, forget: Callable[[], None]
    ) -> tuple[Kept, Future[Any] | None]:
        """See :meth:`_keep`; ``forget`` is called before a file is replaced."""
        records: list[InstanceRecord] = []
        rows: list[Future[Any]] = []

        def read(walked: Walked) -> None:
            records.append(
                InstanceRecord.of(
                    walked,
                    spool.transfer_syntax,
                    path=self.store.path(spool.sop_instance_uid),
                    size=spool.size,
                    digest=spool.digest(),
                )
            )

        def replaced() -> None:
            # All others that replace something wait for this one.
            index.check()
            forget()
            index.remove(spool.sop_instance_uid).result()

        kept = self.store.keep(
            spool,
            wanted=WANTED,
            when_walked=read,
            before_replacing=replaced,
            when_named=lambda: rows.append(index.add(records[0])),
        )
        if kept.outcome is Outcome.SAME and index.get(spool.sop_instance_uid) is None:
            # The thread that brought the file has not added the row yet, or could not. The row describes the
            # file that is here, because its header may be another.
            rows.append(index.add(record_of(self.store.path(spool.sop_instance_uid))))
        return kept, rows[0] if rows else None

    def stored(self, kept: Kept) -> int:
        """The status that answers what has become of an instance."""
        if kept.outcome is Outcome.REFUSED:
            return statuses.Status(
                statuses.DUPLICATE_SOP_INSTANCE,
                "C-STORE",
                "another data set with this SOP Instance UID is kept",
            )
        return statuses.SUCCESS

    # -- query and retrieve --------------------------------------------------------------------------

    def on_receive_find(self, context: RequestContext, ds: Dataset) -> Any:
        """Answer a query from the index; a worklist query does not come here."""
        return self.retrieval.find(context, ds)

    def on_receive_move(self, context: RequestContext, ds: Dataset, destination: str) -> Any:
        """Find the instances that a C-MOVE asks for, and the address of its destination."""
        return self.retrieval.move(context, ds, destination)

    def on_receive_get(self, context: RequestContext, ds: Dataset) -> Any:
        """Find the instances that a C-GET asks for."""
        return self.retrieval.get(context, ds)

    def transcode(self, asce: Association, instance: Instance) -> Any:
        """Give another form of an instance whose transfer syntax the peer of an association does not accept.

        The peer is the requestor of a C-GET, or the destination of a C-MOVE.
        """
        return None if self.index is None else self.retrieval.transcode(asce, instance)

    # These hooks had the following names in 0.1, when on_receive_find and the others did not get the association.

    def find_for(self, asce: Association, context: RequestContext, ds: Dataset) -> Any:
        return self.on_receive_find(context, ds)

    def move_for(
        self, asce: Association, context: RequestContext, ds: Dataset, destination: str
    ) -> Any:
        return self.on_receive_move(context, ds, destination)

    def get_for(self, asce: Association, context: RequestContext, ds: Dataset) -> Any:
        return self.on_receive_get(context, ds)

    # -- performed procedure steps -------------------------------------------------------------------

    def on_mpps_create(self, uid: str, ds: Dataset) -> Any:
        """Keep a performed procedure step that begins (PS3.4 F.7.2.1)."""
        return self.workflow.steps.create(uid, ds)

    def on_mpps_set(self, uid: str, modifications: Dataset) -> Any:
        """Change a performed procedure step (PS3.4 F.7.2.2)."""
        return self.workflow.steps.change(uid, modifications)

    def on_mpps_get(self, uid: str, tags: Collection[int] | None) -> Any:
        """Give a performed procedure step to a peer that asks for it (PS3.4 F.8)."""
        return self.workflow.steps.get(uid, tags)
