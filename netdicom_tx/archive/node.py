"""The node that ``twistd dicom`` runs: an AE that stores instances, answers queries and sends instances on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final, TypeVar, cast

from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.interfaces import IAddress, IDelayedCall

from .. import __version__, statuses
from ..applicationentity import AE, RemoteAE
from ..asceprovider import Association
from ..audit import Action
from ..dimsemessages import Request, Response
from ..dispatch import UNKNOWN_SOP_CLASSES
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
from . import snapshots
from .auditing import Auditor, StudyRow
from .encoded.walk import Walked
from .group.duties import Duty
from .group.members import NodeState, OwnNode, lock_of
from .group.membership import Membership
from .index.engine import IndexUnusableError
from .index.entries import InstanceRef
from .index.index import Index, IndexUnavailableError
from .index.migrations import VERSION
from .index.schema import Level
from .index.watch import SECONDS, Watches
from .index.withdrawal import Gone
from .observations import Observations
from .outcomes import tell_failure
from .query.retrieval import Retrieval
from .query.search import Search
from .retention import Keeper, Rules
from .shared import LEAD, Shared
from .starting import Preparation, make_agree, open_both
from .store.deletion import Deleter
from .store.filestore import FileStore, Kept, Outcome, StorageError
from .store.indexing import index_journal, index_noted
from .store.intake import Intake
from .store.place import node_uuid
from .store.sharedstore import SharedStore
from .store.sharing import Lease
from .store.spool import Spool
from .storing import Storing
from .workers import Workers
from .workflow.workflow import Workflow, WorkflowOptions

__all__ = ["ArchiveAE"]

_T = TypeVar("_T")

# For how many hosts a worker remembers how many associations they have with others.
_HOSTS: Final = 4096
# What every node of a group does if no other node does it.
_DUTIES: Final = (Duty.RETENTION, Duty.SCRUB, Duty.RECONCILE, Duty.DELETION)
# Four threads keep the queue of a disk full; more do not make it faster.
_THREADS = 4
_MOVE_SOP_CLASSES = (*MOVE_SOP_CLASSES, COMPOSITE_INSTANCE_ROOT_MOVE_SOP_CLASS)
_GET_SOP_CLASSES = (
    *GET_SOP_CLASSES,
    COMPOSITE_INSTANCE_ROOT_GET_SOP_CLASS,
    WITHOUT_BULK_DATA_GET_SOP_CLASS,
)


def _nothing() -> None:
    """There is no other process."""


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
        # Of the retrieves that are being performed, by association and message ID.
        self._leases: dict[tuple[Association, int | None], Lease] = {}
        self._queue_starts: IDelayedCall | None = None
        self._preparation = Preparation(self._agree, self._serve, self.stop)
        self._watches = Watches(search_seconds)
        # An object store takes long for each instance, but many at a time.
        writers = threads and max(threads, store.parallel if isinstance(store, SharedStore) else 0)
        self._writers = Workers("netdicom-writer", writers)
        self._readers = Workers("netdicom-reader", threads)
        self._intake: Intake | None = None
        self._is_worker = False
        self._taking_over = threading.Lock()
        #: The name of the node among those that share its archive; by default, its host and directory.
        self.node_name = f"{socket.gethostname()}:{store.root}"
        #: Where peers reach it, for ``netdicom node list``.
        self.node_address = ""
        #: Called in a thread when another process has taken the place of this node, which must stop.
        self.on_replaced: Callable[[], object] = _nothing
        #: The life of the node among others; None when no other node can use its database.
        self.membership = self._membership_of(index, threads)
        self._elsewhere: dict[str, int] = {}
        #: How many associations the other processes of the node have.
        self.associations_elsewhere: Callable[[], int] = int
        #: Empties the journals of the other processes of the node; blocks.
        self.forget_elsewhere: Callable[[], None] = _nothing
        if threads and index is not None and store.is_journalled:
            # Otherwise each instance is kept by itself: a store with a keep() of its own decides about all of them.
            self._intake = Intake(store, index)
        self._storing = Storing(
            store, index, self._intake, self._writers, self._forget_everywhere, self._arrived
        )
        if isinstance(store, SharedStore):
            if index is None:
                raise StorageError("a shared store needs an index: pass index=Index(...)")
            store.bind(index)
        self.add_scp(verification_scp)
        sop_classes = STORAGE_SOP_CLASSES
        if unknown_sop_classes:
            sop_classes = (*STORAGE_SOP_CLASSES, UNKNOWN_SOP_CLASSES)
        self.add_scp(storage_scp, sop_classes, ALL_TRANSFER_SYNTAXES)
        if index is not None:
            self._add_retrieval(index, match_unknown)
            self._add_deletion(index)
            self._add_workflow(index, workflow or WorkflowOptions())
        self.observations = self._observed()

    def _membership_of(self, index: Index | None, threads: int) -> Membership | None:
        is_shared = self.store.is_shared
        if index is None or not (is_shared or index.is_server):
            return None
        membership = Membership(index, is_group=is_shared and index.is_server, threads=threads)
        membership.doing = self._doing
        membership.state = self._member_state
        membership.on_replaced = lambda: self.on_replaced()
        return membership

    def _add_retrieval(self, index: Index, match_unknown: bool) -> None:
        self.retrieval = Retrieval(
            Search(index, match_unknown=match_unknown),
            self._readers,
            self.peers,
            self.ae_title,
            self._watches,
        )
        self.retrieval.on_selected = self._selected
        self.retrieval.on_begin = self._take_lease
        extended = self.retrieval.answer_extended
        self.add_scp(QueryRetrieveFind(on_extended=extended))
        self.add_scp(QueryRetrieveMove(on_extended=extended), _MOVE_SOP_CLASSES)
        self.add_scp(QueryRetrieveGet(on_extended=extended), _GET_SOP_CLASSES)

    def _add_deletion(self, index: Index) -> None:
        intake = self._intake
        #: Deletes instances while the archive is open.
        self.deleter = (
            Deleter(self.store, index)
            if intake is None
            else Deleter(self.store, index, self._forget_everywhere, intake.claim)
        )
        self.deleter.on_deleted = self._deleted
        #: Applies the rules of retention; none by default.
        self.keeper = Keeper(self.store, index, Rules(), self.deleter)
        self.keeper.holds = self.holds

    def _add_workflow(self, index: Index, options: WorkflowOptions) -> None:
        self.workflow = Workflow(
            self,
            index,
            self._readers,
            self.peers,
            options,
            # Nodes that share a database may have the same title, but never the same directory of the same host.
            owner=f"{socket.gethostname()}:{self.store.root}",
            watches=self._watches,
            has_room=self.store.has_room,
        )

    def about(self) -> str:
        more = f", storage {self.store.root}"
        if isinstance(self.store, SharedStore):
            more += f", shared store {self.store.objects.place}"
        return more if self.index is None else f"{more}, index {self.index.url}"

    # -- what is observed ------------------------------------------------------------------------

    def _observed(self) -> Observations:
        """What counts, and knows whom to ask."""
        seen = Observations(
            self.ae_title, lambda: self.associations, lambda: self.clock, self._readers.run
        )
        seen.limit = lambda: self.max_associations
        seen.memory = lambda: snapshots.Memory(
            held=self.memory.held, limit=self.memory.limit, waiting=self.memory.waiting
        )
        seen.look("disk", lambda: self.store.room()._asdict())
        seen.history = self.store.root / "disk-use.json"
        intake, index = self._intake, self.index
        if intake is not None:
            seen.intake = lambda: cast(snapshots.Intake, intake.figures()._asdict())
            seen.troubles.append(intake.trouble)
        store = self.store
        if isinstance(store, SharedStore):
            seen.shared = lambda: cast(snapshots.SharedStore, store.figures()._asdict())
        if self.membership is not None:
            seen.troubles.append(self.membership.trouble)
            seen.look("group", self.membership.figures)
        if index is not None:
            seen.look("database", index.probe)
            seen.look("storage", lambda: index.counts()._asdict(), may_cost=True)
            seen.look("queue", lambda: self.workflow.queue.figures()._asdict())
        return seen

    # -- one of several processes ------------------------------------------------------------------

    def share(self, shared: Shared) -> None:
        """Run as one of several processes of a node; call this before :meth:`start`.

        The lead prepares store and index and performs the tasks of the queue. A worker expects that this is done.

        Raises:
            StorageError: The archive has no index, or a store with a ``keep()`` of its own.
        """
        if self._intake is None or self.index is None:
            raise StorageError("several processes need an index, and a store that they can share")
        self._is_worker = shared.slot != LEAD
        self._admission.elsewhere = lambda host: self._elsewhere.get(host, 0)
        self.store.share(shared)
        self.index.shared = shared
        self._intake.share(shared)
        if self._is_worker:
            self._enroll()  # the lead has given the directory its identity

    # -- one of several nodes ------------------------------------------------------------------------

    def holds(self, duty: Duty | str) -> bool:
        """Whether this node may do what only one node of a group does; alone, it always may."""
        return self.membership is None or self.membership.holds(duty)

    def begin_draining(self) -> None:
        """Say that the node ends: it takes no more associations, and finishes those that it has."""
        self.observations.state = "draining"
        if self.membership is not None:
            self.membership.beat_soon()

    def _doing(self) -> dict[str, Any]:
        assert self.membership is not None
        return {
            "associations": len(self.associations) + self.associations_elsewhere(),
            "skew": round(self.membership.skew, 3),
        }

    def _member_state(self) -> NodeState:
        is_ending = self.observations.state in ("draining", "stopped")
        return NodeState.DRAINING if is_ending else NodeState.ALIVE

    def _enroll(self) -> None:
        """Know which node this is, when store and index are open."""
        membership = self.membership
        if membership is None:
            return
        node = node_uuid(self.store)
        duties = membership.prepare(node, (*_DUTIES, *self.workflow.duties))
        if membership.is_group:
            self.workflow.join(node, duties)

    def _join(self, membership: Membership, index: Index) -> None:
        """Join the nodes that share the archive; blocks, and for some seconds if another one seems to be this one."""
        only_one = ""
        if not index.is_server:
            only_one = (
                f"the SQLite database {index.url} serves one node: give a group of nodes a PostgreSQL database "
                "([database] url), or stop that node"
            )
        me = OwnNode(
            uuid=node_uuid(self.store),
            name=self.node_name,
            place=str(self.store.root),
            lock=lock_of(self.store.root),
            address=self.node_address,
            version=__version__,
            schema=VERSION,
        )
        others = membership.join(me, only_one=only_one)
        if membership.is_group:
            self._log.info(
                "the node {name} is one of a group; {others}",
                name=me.name,
                others=f"{', '.join(each.name for each in others)} run"
                if others
                else "no other node runs",
            )

    def note_elsewhere(self, host: str, count: int) -> None:
        """Note how many associations a host has with other processes; this counts for the limit for each host."""
        self._elsewhere[host] = count
        if len(self._elsewhere) > _HOSTS:
            del self._elsewhere[next(iter(self._elsewhere))]

    def forget(self) -> None:
        """Empty the journal of this process, so that no start brings back what is replaced or deleted now; blocks.

        Raises:
            IndexUnavailableError: What was acknowledged cannot be made files and rows at the moment.
            OSError: The disk has failed.
        """
        if self._intake is not None:
            self._intake.forget()

    def take_over(self, worker: int, process: int) -> int:
        """Make files and rows of what a worker had acknowledged or begun that has ended, and take its tasks; blocks.

        Args:
            worker: The number of the worker.
            process: The number of its process.

        Returns:
            How many instances had no row.

        Raises:
            NetDICOMError, OSError: This is not possible at the moment, and must be tried again.
        """
        assert self._intake is not None
        assert self.index is not None
        # Two journals may have the same instance, and a claim keeps other processes away, but not other threads.
        with self._taking_over:
            made = index_journal(self.store, self.index, worker, self._intake.claim)
            noted = map(self.store.path_of_digest, self.index.shared.noted(worker))
            made += index_noted(self.index, noted, self._intake.claim)
        self.store.remove_leftovers(process)
        self.workflow.take_over(worker).result()
        return made

    # -- running ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Open store and index, make them agree, and start the threads.

        Raises:
            StorageError: The storage directory cannot be used.
            IndexUnusableError: The index cannot be used.
        """
        self._open()
        self._preparation.run()

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
        return self._preparation.begin(self.reactor, patience)

    def reject_reason(self, asce: Association, request: AAssociateRQ) -> AAssociateRJ | None:
        """Why this request is rejected before the hook is asked, or None."""
        is_replaced = self.membership is not None and self.membership.is_replaced
        if self._preparation.is_under_way or is_replaced:
            return AAssociateRJ(2, 3, 1)
        return super().reject_reason(asce, request)

    def _open(self) -> None:
        """Open store and index."""
        self.observations.state = "starting"
        open_both(self.store, self.index)
        if not self._is_worker:
            self._enroll()
        try:
            if self.auditor is not None:
                self.auditor.start()
                self._is_audited = True
        except OSError as error:
            self.stop()
            raise StorageError(
                f"the audit trail {error.filename} cannot be written: {error.strerror}"
            ) from error
        except BaseException:
            self.stop()
            raise

    def _agree(self) -> None:
        """Join the other nodes, and make files and rows agree, before the node serves anybody; blocks."""
        if self.membership is not None and self.index is not None and not self._is_worker:
            try:
                self._join(self.membership, self.index)
            except IndexUnavailableError as error:
                raise IndexUnusableError(str(error)) from error
        if self.index is None or self._is_worker or self.store.is_shared:
            return  # what nodes share is compared while they run
        make_agree(self.store, self.index, self._preparation.go_on)

    def _serve(self) -> None:
        """Start the threads."""
        if self._intake is not None and self.index is not None:
            self._intake.start(self.reactor)
            self.index.settle = self._intake.settle
        self._storing.start()
        self._writers.start(self.reactor)
        self._readers.start(self.reactor)
        self.observations.state = "serving"
        self.observations.start()
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
        self.observations.state = "stopped"
        self.observations.stop()
        self._forget_queue_start()
        self._preparation.give_up()
        self._refusals.catch_up(at_end=True)
        self._watches.cancel()
        if self.index is not None:
            self.workflow.close()
        self._writers.stop()
        self._readers.stop()
        self._storing.stop()
        if self._intake is not None:
            self._intake.stop()
        if self.membership is not None:
            self.membership.leave()
        if self.index is not None:
            self.index.close()
        self.store.close()

    def in_thread(self, call: Callable[..., _T], *arguments: Any) -> defer.Deferred[_T]:
        """Run blocking work off the reactor thread.

        Cancelling the Deferred drops the result; the work itself continues.
        """
        return self._writers.run(call, *arguments)

    # -- what is counted, and the audit trail --------------------------------------------------------

    def association_accepted(self, asce: Association) -> None:
        super().association_accepted(asce)
        self.observations.accepted(asce)
        if self.auditor is not None:
            self.auditor.accepted(asce)

    def association_refused(self, asce: Association, refusal: Refusal) -> None:
        super().association_refused(asce, refusal)
        self.observations.refused(asce, refusal)
        if self.auditor is not None:
            self.auditor.refused(asce, refusal)

    def connection_refused(self, address: IAddress | None, refusal: Refusal) -> None:
        super().connection_refused(address, refusal)
        self.observations.connection_refused(address, refusal)

    def association_closed(self, asce: Association) -> None:
        super().association_closed(asce)
        self.observations.closed(asce)
        for key in [each for each in self._leases if each[0] is asce]:
            self._leases.pop(key).release()
        if self.auditor is not None:
            self.auditor.ended(asce)

    def operation_performed(
        self,
        asce: Association,
        ctx: PContextDef,
        msg: Request,
        response: Response | None,
        seconds: float,
    ) -> None:
        status = None if response is None else response.status
        self.observations.performed(msg.OPERATION, status, seconds)
        if status and response is not None:
            tell_failure(asce, msg, response)
        lease = self._leases.pop((asce, msg.message_id), None)
        if lease is not None:
            lease.release()
        if self.auditor is not None:
            self.auditor.performed(asce, ctx, msg, response)

    def _arrived(
        self, asce: Association, walked: Walked, transfer_syntax: str, action: Action
    ) -> None:
        if self.auditor is not None:
            self.auditor.arrived(asce, walked, transfer_syntax, action)

    def _studies_of(self, sop_instance_uids: Sequence[str]) -> defer.Deferred[list[StudyRow]]:
        assert self.index is not None  # only a retrieve asks
        found = self._readers.run(self.index.studies_of, sop_instance_uids)
        return found.addCallback(lambda rows: [StudyRow(*row) for row in rows])

    def _deleted(self, rows: Sequence[Gone], user: str) -> None:
        """Have a deletion audited; called in the thread that deletes."""
        auditor = self.auditor
        if auditor is None:
            return
        studies = [(StudyRow(*each[:-1]), each.is_whole) for each in rows]
        if self._readers.threads:
            self.reactor.callFromThread(auditor.deleted, studies, user)
        else:
            auditor.deleted(studies, user)

    def delete(
        self, level: str, keys: Sequence[str], user: str = ""
    ) -> defer.Deferred[list[list[int]]]:
        """Delete what an operator names; the answer to the verb ``delete`` of the control socket.

        Args:
            level: The level of the keys: PATIENT, STUDY, SERIES or IMAGE.
            keys: The identities of patients, or UIDs.
            user: The name of the operator.

        Returns:
            Fires with three numbers for each key: how many instances, how many octets, and how many of the files go
            when the retrieves that send them have ended. Fails with :class:`IndexUnavailableError` or
            :class:`StorageError` when the database or the disk refuses.
        """

        def delete() -> list[list[int]]:
            found = []
            try:
                for each in keys:
                    done = self.deleter.delete_named(Level(level), each, user)
                    found.append([done.instances, done.octets, done.waiting])
            except OSError as error:
                raise StorageError(f"the disk refuses: {error}") from error
            return found

        return self._readers.run(delete)

    def _take_lease(self, context: RequestContext) -> None:
        """Keep what a retrieve finds on the disk until it has ended, also if it is deleted in the meantime."""
        key = context.association, context.request.message_id
        if context.association.error is None and key not in self._leases:
            # Nothing is deleted on a disk that is read-only, and what is there can still be sent.
            with suppress(OSError):
                self._leases[key] = self.store.leases.take()

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
        return cast(BinaryIO, self._storing.spool(asce, context, command_set)), 0

    def on_receive_store(self, context: RequestContext, ds: BinaryIO) -> defer.Deferred[int]:
        """Keep an instance.

        Returns:
            0x0000 when the instance is on the disk and in the index, was there already with the same content, or is
            kept aside; 0x0111 when another data set with this UID is kept; 0xA700 when the disk or the index cannot
            take it; 0xA900 when the data set is another instance than the command says; 0xC000 when the data set is
            not complete or cannot be read.
        """
        return self._storing.keep(context, cast(Spool, ds)).addCallback(self.stored)

    def finish_work(self, asce: Association) -> defer.Deferred[Any] | None:
        """Make files and rows of what was acknowledged, so that they are there when the association has ended.

        Only a peer that has stored something waits for that, and not for a disk or a database that stalls.
        """
        return self._storing.when_settled(asce, self.clock)

    def _forget_everywhere(self) -> None:
        self.forget()
        self.forget_elsewhere()

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
