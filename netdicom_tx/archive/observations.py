"""What a node is doing, in one plain model that the status page, the metrics and ``netdicom status`` read.

:class:`Observations` counts what the hooks of the node tell it, and asks the parts of the node for the rest when
somebody wants to know. What has to be asked of a disk or a database is asked in a thread, and kept for some seconds, so
that a snapshot never waits for either. :meth:`Observations.snapshot` gives everything as plain values that JSON has
words for; its shape is :class:`~netdicom_tx.archive.snapshots.Snapshot`.

Nothing here names a patient.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from twisted.internet import defer
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ..exceptions import (
    AssociationAbortedError,
    AssociationRejectedError,
    AssociationReleasedError,
    ConnectionLostError,
    DCMTimeoutError,
    NetDICOMError,
)
from ..logs import Logger
from ..refusals import Refusal, place
from ..statuses import Status
from ..summary import AssociationSummary
from .snapshots import (
    BOUNDS,
    MINUTES,
    REFUSALS,
    Associations,
    Disk,
    Forecast,
    Health,
    Intake,
    LiveAssociation,
    Memory,
    Minute,
    Operation,
    Process,
    Reactor,
    RefusedPeer,
    SharedStore,
    Snapshot,
    last_hour,
    merge,
    new_minute,
)
from .workers import NotRunningError

__all__ = ["Observations"]

_T = TypeVar("_T")

#: Seconds between two looks at the counters.
TICK: Final = 5.0
#: How old what a thread has found may be when somebody asks, in seconds.
FRESH: Final = 5.0
#: How many seconds somebody who asks waits for a disk or a database before getting what was found last.
PATIENCE: Final = 2.0
# How often disk, database and queue are looked at when nobody asks.
_LOOK: Final = 60.0
# After how many seconds without an answer the node is not ready: a server that is stopped gives no error.
_LATE: Final = 10.0
# A search of the database that takes a second is repeated after this many seconds, or less often.
_COST: Final = 100.0
# Seconds between two samples of the use of the disk, how long they are kept, and how far apart two must be for a
# forecast.
_SAMPLE: Final = 600.0
_SAMPLES_KEPT: Final = 86400.0
_FORECAST: Final = 3600.0
_DAY: Final = 86400.0
# How many pairs of operation and status are counted apart.
_TALLIES: Final = 512
# How many seconds pass at least between the two ends of a rate.
_RATE_SECONDS: Final = 1.0


# -- what is observed --------------------------------------------------------------------------------


class Observed(Protocol):
    """An association, as it is seen here."""

    @property
    def is_requestor(self) -> bool:
        """Whether this side has requested it."""

    @property
    def calling_ae_title(self) -> str:
        """The AE title of the requestor."""

    @property
    def called_ae_title(self) -> str:
        """The AE title of the acceptor."""

    @property
    def peer_address(self) -> IAddress | None:
        """The address of the peer."""

    @property
    def peer_title(self) -> str:
        """The AE title of the peer, safe for logs."""

    @property
    def error(self) -> NetDICOMError | None:
        """Why it is over; None while it is not."""

    @property
    def is_open(self) -> bool:
        """Whether it is established and not over."""

    @property
    def is_requested(self) -> bool:
        """Whether the A-ASSOCIATE-RQ has come, or gone."""

    @property
    def age(self) -> float:
        """How many seconds ago the connection was opened."""

    @property
    def under_way(self) -> list[str]:
        """The operations that have no final response yet."""

    @property
    def summary(self) -> AssociationSummary:
        """What has happened on it."""


class _Tally:
    """The operations of one kind with one status."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0


class _Looked:
    """What a thread finds out, and has found out last."""

    def __init__(
        self, look: Callable[[], Any], now: Callable[[], float], *, may_cost: bool
    ) -> None:
        self.look = look
        self.found: Any = None
        self.error = ""
        self._now = now
        self._may_cost = may_cost
        self._at: float | None = None
        self._cost = 0.0
        self._began = 0.0
        self._running: list[defer.Deferred[None]] | None = None

    def silence(self, now: float) -> float:
        """For how many seconds a look has lasted that should be short; 0 when none is late."""
        lasts = 0.0 if self._running is None or self._may_cost else now - self._began
        return lasts if lasts >= _LATE else 0.0

    def refresh(
        self,
        run: Callable[..., defer.Deferred[Any]],
        seconds: Callable[[], float],
        fresh: float,
    ) -> defer.Deferred[None] | None:
        """Look again, unless what is known is fresh enough; fires when the look is over."""
        began = seconds()
        if self._running is None:
            pause = max(fresh, self._cost * _COST) if self._may_cost else fresh
            if self._at is not None and began - self._at < pause:
                return None
            self._running, self._began = [], began

            def over(outcome: Any) -> None:
                self._note(outcome, began, seconds())
                waiting, self._running = self._running or [], None
                for each in waiting:
                    if not each.called:
                        each.callback(None)

            run(self.look).addBoth(over)
            # Without threads it is over already; a callback has changed what mypy believes to know.
            if cast(object, self._running) is None:
                return None
        mine: defer.Deferred[None] = defer.Deferred(lambda _: None)
        self._running.append(mine)
        return mine

    def _note(self, outcome: Any, began: float, now: float) -> None:
        """Keep what the look has found, or why it has found nothing."""
        if isinstance(outcome, Failure) and outcome.check(NotRunningError):
            return  # the node starts or stops, and its state says so
        self._at, self._cost = now, now - began
        if isinstance(outcome, Failure):
            self.error = str(outcome.value) or type(outcome.value).__name__
        else:
            self.found, self.error = outcome and {"time": self._now(), **outcome}, ""


class Observations:
    """What a node has counted, and what it can tell of itself now.

    Everything but the looks is done in the thread of the reactor.

    Args:
        ae_title: The AE title of the node.
        live: Gives the live associations.
        clock: Gives the clock.
        run: Runs a blocking call in a thread.
        now: The seconds since 1970.

    Attributes:
        state: One of :data:`STATES`; the node says so.
        intake: Gives this part of a snapshot; None leaves it out. The same holds for ``shared``.
        reactor: Gives this part of a snapshot; None leaves it out.
        memory: Gives this part of a snapshot; None leaves it out.
        limit: Gives the number of associations that peers may have open.
        history: The file with the use of the disk in the last day, so that a restart does not forget it; None means
            that it is not written.
        others: Gives the snapshots of the other processes of the node; None means that there are none.
        troubles: Each gives a reason why the node is not ready, or nothing, and costs little.
    """

    _log = Logger()

    def __init__(
        self,
        ae_title: str,
        live: Callable[[], Iterable[Observed]],
        clock: Callable[[], IReactorTime],
        run: Callable[..., defer.Deferred[Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.ae_title = ae_title
        self.state = "starting"
        self.intake: Callable[[], Intake] | None = None
        self.shared: Callable[[], SharedStore] | None = None
        self.reactor: Callable[[], Reactor] | None = None
        self.memory: Callable[[], Memory] | None = None
        self.limit: Callable[[], int | None] = lambda: None
        self.history: Path | None = None
        self.others: Callable[[], Awaitable[Sequence[Snapshot]]] | None = None
        self.troubles: list[Callable[[], str]] = []
        self._live = live
        self._clock = clock
        self._run = run
        self._now = now
        self._started = now()
        self._looks: dict[str, _Looked] = {}
        self._accepted: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._requested: Counter[str] = Counter()
        self._received = self._sent = 0  # on associations that are over
        self._operations: dict[tuple[str, int | None], _Tally] = {}
        self._refusals: OrderedDict[tuple[str, str], RefusedPeer] = OrderedDict()
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self._before = _Totals(0, 0, 0, 0, 0)
        # When, and what had come and gone then: at the last tick, and at the one before.
        self._rates: WeakKeyDictionary[Any, list[tuple[float, int, int]]] = WeakKeyDictionary()
        self._samples: deque[tuple[float, int]] = deque()  # when, and how much of the disk was used
        self._tick: IDelayedCall | None = None
        self._looked: float | None = None

    # -- what the node tells -----------------------------------------------------------------------

    def look(self, part: str, call: Callable[[], Any], *, may_cost: bool = False) -> None:
        """Have a function called in a thread when its part of the snapshot is wanted.

        Args:
            part: ``disk``, ``storage``, ``queue`` or ``group``; another name is only for the trouble that the call has.
            call: Returns the part without its time; raises what the trouble is.
            may_cost: Whether the call may take long, so that it must not be made often.
        """
        self._looks[part] = _Looked(call, self._now, may_cost=may_cost)

    def accepted(self, asce: Observed) -> None:
        """An association is established."""
        self._accepted["requestor" if asce.is_requestor else "acceptor"] += 1

    def refused(self, asce: Observed, refusal: Refusal) -> None:
        """A peer is refused something."""
        self.connection_refused(asce.peer_address, refusal, asce.peer_title)

    def connection_refused(
        self, address: IAddress | None, refusal: Refusal, title: str = ""
    ) -> None:
        """A connection is refused, perhaps before it could become an association."""
        self._refused[refusal.kind] += 1
        if refusal.is_noise:  # such as a health check, which comes every few seconds
            return
        key = (str(getattr(address, "host", address)), refusal.kind)
        before = self._refusals.pop(key, None)
        if before is None and len(self._refusals) >= REFUSALS:
            self._refusals.popitem(last=False)
        expected = f"; expected {refusal.expected}" if refusal.expected else ""
        self._refusals[key] = RefusedPeer(
            time=self._now(),
            count=1 if before is None else before["count"] + 1,
            peer=place(address),
            title=title,
            kind=refusal.kind,
            verb=refusal.verb,
            reason=f"{refusal.came}{expected}",
            hint=refusal.advice,
        )

    def closed(self, asce: Observed) -> None:
        """The transport of an association is gone."""
        summary = asce.summary
        self._ended[_end(summary.reason)] += 1
        self._requested.update(summary.requested)
        self._received += summary.octets_received
        self._sent += summary.octets_sent
        self._rates.pop(asce, None)

    def performed(self, operation: str, status: int | None, seconds: float) -> None:
        """An operation for a peer has ended.

        Args:
            status: The status of its last response; None when none could be sent.
            seconds: How long it took.
        """
        tally = self._operations.get((operation, status))
        if tally is None:
            tally = self._tally(operation, status)
        tally.buckets[bisect_left(BOUNDS, seconds)] += 1
        tally.seconds += seconds

    def _tally(self, operation: str, status: int | None) -> _Tally:
        if len(self._operations) >= _TALLIES:
            operation, status = "other", None
        return self._operations.setdefault((operation, status), _Tally())

    # -- time passes -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch; :meth:`stop` ends it."""
        if self._tick is None:
            if self.history is not None and not self._samples:
                self._samples.extend(_samples_in(self.history, self._now()))
            self._tick = self._clock().callLater(TICK, self._ticked)

    def stop(self) -> None:
        """Watch no longer. What has been counted stays."""
        if self._tick is not None and self._tick.active():
            self._tick.cancel()
        self._tick = None

    def _ticked(self) -> None:
        self._tick = self._clock().callLater(TICK, self._ticked)
        self._count()
        if self.reactor is not None:
            self.reactor()  # which forgets what is not recent any more
        now = self._clock().seconds()
        for asce in self._live():
            self._rates[asce] = [*self._rates.get(asce, [])[-1:], _so_far(now, asce)]
        if self._looked is None or now - self._looked >= _LOOK:
            self._looked = now
            for part, looked in self._looks.items():
                if part != "storage":  # nobody asks for it now, and it costs most
                    looked.refresh(self._run, self._clock().seconds, FRESH)
        self._sample()

    def _count(self) -> None:
        """Add what has happened since the last time to the current minute."""
        before, self._before = self._before, self._totals()
        begun = self._now() // 60 * 60
        if not self._minutes or self._minutes[-1]["time"] != begun:
            self._minutes.append(new_minute(begun))
        minute, now = self._minutes[-1], self._before
        minute["received"] += now.received - before.received
        minute["sent"] += now.sent - before.sent
        minute["operations"] += now.operations - before.operations
        minute["instances_in"] += now.instances_in - before.instances_in
        minute["instances_out"] += now.instances_out - before.instances_out

    def _totals(self) -> _Totals:
        received, sent, out = self._received, self._sent, self._requested["C-STORE"]
        for asce in self._live():
            summary = asce.summary
            received += summary.octets_received
            sent += summary.octets_sent
            out += summary.requested.get("C-STORE", 0)
        operations = kept = 0
        for (operation, status), tally in self._operations.items():
            count = sum(tally.buckets)
            operations += count
            if operation == "C-STORE" and _is_kept(status):
                kept += count
        return _Totals(received, sent, operations, kept, out)

    def _sample(self) -> None:
        disk = self._found("disk")
        if disk is None:
            return
        now = self._now()
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE:
            self._samples.append((disk["time"], disk["total"] - disk["free"]))
            if self.history is not None:
                self._run(_keep_samples, self.history, list(self._samples)).addErrback(
                    lambda failure: self._log.debug(
                        "{path} cannot be written: {error}", path=self.history, error=failure.value
                    )
                )
        while now - self._samples[0][0] > _SAMPLES_KEPT:
            self._samples.popleft()

    # -- what somebody wants to know ---------------------------------------------------------------

    def refresh(self, fresh: float = FRESH, patience: float = PATIENCE) -> defer.Deferred[None]:
        """Find out what only a disk or a database knows, unless that is known.

        Args:
            fresh: How many seconds old it may be.
            patience: After how many seconds the Deferred fires even if that is not known yet.

        Returns:
            Fires when a snapshot has everything, and does not fail.
        """
        waits = [
            waiting
            for each in self._looks.values()
            if (waiting := each.refresh(self._run, self._clock().seconds, fresh)) is not None
        ]
        if not waits:
            return defer.succeed(None)
        all_there = defer.DeferredList(waits, consumeErrors=True)
        all_there.addTimeout(patience, self._clock(), lambda *_: None)
        return all_there.addCallback(lambda _: None)

    async def current(self) -> Snapshot:
        """A snapshot of all processes, with what disk and database know now, or knew some seconds ago."""
        await self.refresh()
        own = self.snapshot()
        if self.others is None:
            return own
        return merge([own, *await self.others()])

    def _found(self, part: str) -> Any:
        looked = self._looks.get(part)
        return None if looked is None else looked.found

    def reasons(self) -> list[str]:
        """Why the node is not ready, in words."""
        found = []
        if self.state != "serving":
            found.append(f"the node is {self.state}")
        found += filter(None, (each() for each in self.troubles))
        found += (looked.error for looked in self._looks.values() if looked.error)
        now = self._clock().seconds()
        found += (
            f"the {part} has not answered for {silence:.0f} s"
            for part, looked in self._looks.items()
            if (silence := looked.silence(now))
        )
        disk: Disk | None = self._found("disk")
        if disk is not None and disk["free"] <= disk["reserve"]:
            found.append(
                f"the disk is full: {disk['free'] >> 20} MiB are free, and {disk['reserve'] >> 20} MiB are the reserve"
            )
        return list(dict.fromkeys(found))

    def snapshot(self) -> Snapshot:
        """What the node is doing now, with what is known of disk and database; see :meth:`refresh`."""
        from .. import __version__

        self._count()
        now, reasons = self._now(), self.reasons()
        return Snapshot(
            time=now,
            processes=[
                Process(
                    pid=os.getpid(),
                    ae_title=self.ae_title,
                    version=__version__,
                    started=self._started,
                    now=now,
                    state=self.state,
                    cpu=time.process_time(),
                    resident=_resident(),
                )
            ],
            health=Health(ready=not reasons, state=self.state, reasons=reasons),
            associations=self._associations(now),
            operations=[
                Operation(
                    operation=operation,
                    status=None if status is None else int(status),
                    count=sum(tally.buckets),
                    seconds=tally.seconds,
                    buckets=list(tally.buckets),
                )
                for (operation, status), tally in self._operations.items()
            ],
            bounds=list(BOUNDS),
            refusals=[RefusedPeer(**each) for each in reversed(self._refusals.values())],
            minutes=last_hour(self._minutes, now),
            intake=self.intake and self.intake(),
            shared=self.shared and self.shared(),
            reactor=self.reactor and self.reactor(),
            memory=self.memory and self.memory(),
            disk=self._found("disk"),
            storage=self._found("storage"),
            queue=self._found("queue"),
            group=self._found("group"),
            forecast=self._forecast(now),
        )

    async def in_a_line(self) -> str:
        """What all processes of the node are doing, for a service manager."""
        self._count()
        live, totals = len(list(self._live())), self._before
        kept, sent = totals.instances_in, totals.instances_out
        for each in [] if self.others is None else await self.others():
            live += len(each["associations"]["live"])
            sent += each["associations"]["requested"].get("C-STORE", 0)
            kept += sum(
                one["count"]
                for one in each["operations"]
                if one["operation"] == "C-STORE" and _is_kept(one["status"])
            )
        return f"{self.state}: {live} associations; {kept} instances kept and {sent} sent since the start"

    def _associations(self, now: float) -> Associations:
        live = [self._one(asce, now) for asce in self._live()]
        live.sort(key=lambda each: each["since"])
        requested = self._requested.copy()
        for each in live:
            requested.update(each["requested"])
        return Associations(
            live=live,
            limit=self.limit(),
            accepted=dict(self._accepted),
            ended=dict(self._ended),
            refused=dict(self._refused),
            requested=dict(requested),
            received=self._before.received,
            sent=self._before.sent,
        )

    def _one(self, asce: Observed, now: float) -> LiveAssociation:
        summary = asce.summary
        receiving, sending = self._rate(asce)
        return LiveAssociation(
            pid=os.getpid(),
            peer=place(asce.peer_address),
            title=asce.peer_title,
            calling=asce.calling_ae_title,
            called=asce.called_ae_title,
            role="requestor" if asce.is_requestor else "acceptor",
            state=_state(asce),
            since=now - asce.age,
            operations=asce.under_way,
            performed=dict(summary.performed),
            requested=dict(summary.requested),
            received=summary.octets_received,
            sent=summary.octets_sent,
            receiving=receiving,
            sending=sending,
        )

    def _rate(self, asce: Observed) -> tuple[float, float]:
        """How many octets come and go in a second, since the last tick that is not just past."""
        seconds = self._clock().seconds()
        now, received, sent = _so_far(seconds, asce)
        began = (seconds - asce.age, 0, 0)
        past = [
            each
            for each in (began, *self._rates.get(asce, []))
            if now - each[0] >= _RATE_SECONDS or each is began
        ]
        then, received_then, sent_then = past[-1]
        lasted = max(now - then, _RATE_SECONDS)
        return (received - received_then) / lasted, (sent - sent_then) / lasted

    def _forecast(self, now: float) -> Forecast:
        disk: Disk | None = self._found("disk")
        if disk is None or not self._samples:
            return Forecast(watched=0.0, per_day=None, full_at=None)
        then, used = self._samples[0]
        watched = disk["time"] - then
        if watched < _FORECAST:
            return Forecast(watched=watched, per_day=None, full_at=None)
        per_day = (disk["total"] - disk["free"] - used) / watched * _DAY
        left = disk["free"] - disk["reserve"]
        full_at = now + max(left, 0) / per_day * _DAY if per_day > 0 else None
        return Forecast(watched=watched, per_day=per_day, full_at=full_at)


def _resident() -> int:
    """How much memory this process has; 0 where the kernel does not say it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _samples_in(path: Path, now: float) -> list[tuple[float, int]]:
    """The samples of the last day in a file; none when it is not there, or damaged."""
    try:
        found = json.loads(path.read_bytes())
        samples = [(float(when), int(used)) for when, used in found]
    except (OSError, ValueError, TypeError):
        return []
    return [each for each in samples if now - _SAMPLES_KEPT <= each[0] <= now]


def _keep_samples(path: Path, samples: Sequence[tuple[float, int]]) -> None:
    """Write samples to a file; blocks."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(samples))
    new.replace(path)


class _Totals:
    """What had happened at one moment."""

    __slots__ = ("instances_in", "instances_out", "operations", "received", "sent")

    def __init__(
        self, received: int, sent: int, operations: int, instances_in: int, instances_out: int
    ) -> None:
        self.received = received
        self.sent = sent
        self.operations = operations
        self.instances_in = instances_in
        self.instances_out = instances_out


def _is_kept(status: int | None) -> bool:
    """Whether a status of C-STORE says that the instance is kept: Success, or a Warning (PS3.4 B.2.3)."""
    if status is None:
        return False
    told = Status(status, "C-STORE")
    return told.is_success or told.is_warning


def _so_far(now: float, asce: Observed) -> tuple[float, int, int]:
    summary = asce.summary
    return now, summary.octets_received, summary.octets_sent


def _state(asce: Observed) -> str:
    if asce.error is not None:
        return "ending"
    if asce.is_open:
        return "open"
    return "requested" if asce.is_requested else "connected"


def _end(reason: NetDICOMError | None) -> str:
    """How an association has ended, in one word or two."""
    if isinstance(reason, AssociationAbortedError):
        return "aborted by the peer" if reason.by_peer else "aborted"
    ends: Mapping[type[NetDICOMError], str] = {
        AssociationReleasedError: "released",
        AssociationRejectedError: "rejected",
        ConnectionLostError: "lost",
        DCMTimeoutError: "timeout",
    }
    return next((word for kind, word in ends.items() if isinstance(reason, kind)), "failed")
