"""Storage as a node performs it: what becomes of each instance that a peer sends (PS3.4 B).

The intake keeps what is simply new, in groups. What it leaves is kept here one at a time, because the store must decide
about it. Either way the outcome is logged and audited here, and a failure becomes the status that the peer gets.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, NoReturn
from weakref import WeakSet

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from .. import statuses
from ..amounts import in_units
from ..asceprovider import Association
from ..audit import Action
from ..dimsemessages import Request
from ..encoding import DataSetError
from ..exceptions import StatusError
from ..hooks import RequestContext
from ..logs import Logger, Trouble
from ..negotiation import PContextDef
from .encoded.walk import Walked
from .index.index import Index, IndexUnavailableError
from .store.filestore import FileStore, Kept, MismatchError, Outcome
from .store.intake import Intake
from .store.keeping import keep_claimed, keep_with_row
from .store.objects import ObjectStoreError
from .store.owing import OwedRows
from .store.spool import Spool
from .workers import Workers

__all__ = ["Storing"]

# For how many seconds the release of a peer waits for files and rows; they usually take a twentieth of one.
_RELEASE_WAITS: Final = 1.0

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


class Storing:
    """Keeps what peers send.

    Args:
        store: The file store.
        index: The index; with None only files are kept.
        intake: Keeps what is simply new; with None each instance is kept by itself.
        workers: The threads that keep the others.
        forget: Empties the journals of all processes of the node before a file is replaced; blocks.
        arrived: Called for each instance that is kept, with its association, its header, its transfer syntax, and
            what it is to the archive.
    """

    _log = Logger()

    def __init__(
        self,
        store: FileStore,
        index: Index | None,
        intake: Intake | None,
        workers: Workers,
        forget: Callable[[], None],
        arrived: Callable[[Association, Walked, str, Action], None],
    ) -> None:
        self._store = store
        self._index = index
        self._intake = intake
        self._workers = workers
        self._forget = forget
        self._owed: OwedRows | None = None
        if index is not None and intake is not None:
            self._owed = OwedRows(store, index, intake.claim)
        self._arrived = arrived
        # A full disk refuses thousands of instances, and so does a database that is gone.
        self._trouble = Trouble(self._log)
        # The associations on which something was kept.
        self._senders: WeakSet[Association] = WeakSet()

    def start(self) -> None:
        """Write the rows that are owed from now on; store and index are open."""
        if self._owed is not None:
            self._owed.start()

    def stop(self) -> None:
        """Write no more rows that are owed, before store and index are closed; blocks."""
        if self._owed is not None:
            self._owed.stop()

    def spool(self, asce: Association, context: PContextDef, command_set: Request) -> Spool:
        """Give what an instance is received into.

        Raises:
            StatusError: The disk is full up to its reserve; the status is 0xA700.
        """
        if not self._store.has_room():
            room = self._store.room()
            self._trouble.met(
                "full",
                "instances are refused with 0xA700: {free} of the disk are free, and {reserve} are its reserve; "
                "make room, or let [retention] delete what is old",
                level=LogLevel.warn,
                free=in_units(room.free),
                reserve=in_units(room.reserve),
            )
            raise StatusError(statuses.C_STORE_OUT_OF_RESOURCES, "out of resources: disk space")
        return self._store.spool(
            command_set.sop_class_uid or "",
            command_set.sop_instance_uid or "",
            context.supported_ts,
            asce.calling_ae_title,
            asce.called_ae_title,
        )

    def keep(self, context: RequestContext, spool: Spool) -> defer.Deferred[Kept]:
        """Keep an instance.

        Returns:
            Fires with what has become of it. Fails with :class:`StatusError` when it cannot be kept: 0xA700 when the
            disk or the index cannot take it; 0xA900 when the data set is another instance than the command says; 0xC000
            when the data set is not complete or cannot be read.
        """
        if self._intake is None:
            keeping = self._decide(None, spool)
        else:
            keeping = self._intake.keep(spool).addCallback(self._decide, spool)
        return keeping.addCallbacks(self._kept, self._not_kept, (context, spool))

    def _decide(self, kept: Kept | None, spool: Spool) -> defer.Deferred[Kept]:
        """Let the store decide what becomes of an instance that the intake has not kept."""
        if kept is not None:
            return defer.succeed(kept)
        return self._workers.run_then(self.keep_by_itself, spool)

    def keep_by_itself(self, spool: Spool) -> tuple[Kept, Future[Any] | None]:
        """Keep the file of one instance, then add its row, whose future is returned; runs in a thread."""
        if self._index is None:
            return self._store.keep(spool), None
        if self._intake is None:
            return keep_with_row(self._store, self._index, spool, lambda: None)
        assert self._owed is not None
        return keep_claimed(
            *(self._store, self._index, spool),
            *(self._intake.claim, self._forget, self._owed.owe),
        )

    def when_settled(self, asce: Association, clock: IReactorTime) -> defer.Deferred[Any] | None:
        """Wait for the files and rows of what was acknowledged on an association that ends.

        Only a peer that has stored something waits for that, and not for a disk or a database that stalls.
        """
        if self._intake is None or asce not in self._senders:
            return None
        waiting = self._intake.when_settled()
        return waiting and waiting.addTimeout(_RELEASE_WAITS, clock)

    # -- the log and the answer ----------------------------------------------------------------------

    def _kept(self, kept: Kept, context: RequestContext, spool: Spool) -> Kept:
        self._senders.add(context.association)
        if self._trouble.count:
            self._trouble.over("instances are kept again; {count} were refused")
        if kept.outcome is not Outcome.REFUSED:
            action = _ACTIONS.get(kept.outcome, Action.CREATE)
            self._arrived(context.association, kept.walked, spool.transfer_syntax, action)
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
        return kept

    def _not_kept(self, failure: Failure) -> NoReturn:
        """Answer with the reason why an instance cannot be kept."""
        error = failure.value
        if isinstance(error, DataSetError):
            raise StatusError(statuses.C_STORE_CANNOT_UNDERSTAND, str(error)) from error
        if isinstance(error, MismatchError):
            raise StatusError(statuses.C_STORE_DATA_SET_DOES_NOT_MATCH, str(error)) from error
        if isinstance(error, OSError | IndexUnavailableError):
            reason = type(error), getattr(error, "errno", None)
            self._trouble.met(reason, "an instance cannot be kept: {error}", error=error)
            refused = (
                "shared store"
                if isinstance(error, ObjectStoreError)
                else "disk"
                if isinstance(error, OSError)
                else "index"
            )
            raise StatusError(
                statuses.C_STORE_OUT_OF_RESOURCES, f"out of resources: the {refused} refuses"
            ) from error
        failure.raiseException()
