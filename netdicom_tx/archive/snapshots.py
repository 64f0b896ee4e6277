"""The shape of what a node tells about itself: plain values that JSON has words for.

:class:`Snapshot` is the whole. :func:`merge` makes one snapshot of those of several processes.

===================  ==========================================================  =================================
part of a snapshot   where it comes from                                         in :func:`merge`
===================  ==========================================================  =================================
``processes``        the process itself                                          one after the other
``health``           the state of the node, and what its parts cannot do          all must be ready
``associations``     the live associations, and counters of the hooks            one after the other; added
``operations``       ``AE.operation_performed``                                  added
``refusals``         ``AE.association_refused``, the last ones                   the last ones of all
``minutes``          differences of the counters, minute by minute               added
``intake``           what is acknowledged, and not yet files and rows            added
``shared``           the store that nodes share                                  that of the one process
``reactor``          :mod:`netdicom_tx.turns`                                    added; the longest of all
``memory``           :mod:`netdicom_tx.budget`                                   added
``disk``             ``statvfs``, in a thread                                    the newest
``storage``          the index, in a thread                                      the newest
``queue``            the outbound queue, in a thread                             the newest
``group``            the table of nodes, in a thread                             the newest
``forecast``         the use of the disk during the last day                     the one that has watched longest
===================  ==========================================================  =================================

Nothing here names a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict, TypeVar

__all__ = [
    "BOUNDS",
    "MINUTES",
    "REFUSALS",
    "STATES",
    "Associations",
    "Disk",
    "Forecast",
    "Group",
    "GroupNode",
    "Health",
    "Intake",
    "LiveAssociation",
    "Memory",
    "Minute",
    "Operation",
    "Process",
    "Queue",
    "Reactor",
    "RefusedPeer",
    "SharedStore",
    "Snapshot",
    "Storage",
    "counters_of",
    "last_hour",
    "merge",
    "new_minute",
]

_T = TypeVar("_T")

#: The upper bounds of the buckets of durations, in seconds. The last bucket has no bound.
BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
#: How many minutes of throughput are remembered, the current one included.
MINUTES: Final = 60
#: How many refused peers are remembered; one that is refused again for the same reason is remembered once.
REFUSALS: Final = 50
#: The states of a process, the worst first.
STATES: Final = ("stopped", "starting", "draining", "serving")


# -- the shape of a snapshot -------------------------------------------------------------------------


class Process(TypedDict):
    """One process of the node.

    Attributes:
        started: When it was started, in seconds since 1970; ``now`` is when the snapshot was taken.
        state: ``starting``, ``serving``, ``draining`` or ``stopped``.
        cpu: How many seconds of processor time it has used.
        resident: How many octets of memory it has.
    """

    pid: int
    ae_title: str
    version: str
    started: float
    now: float
    state: str
    cpu: float
    resident: int


class Health(TypedDict):
    """Whether the node can serve.

    Attributes:
        ready: Whether peers are served, and instances can be kept.
        state: The state of the process, as in :class:`Process`.
        reasons: Why it is not ready, in words; empty when it is.
    """

    ready: bool
    state: str
    reasons: list[str]


class LiveAssociation(TypedDict):
    """An association that is open, or about to be.

    Attributes:
        peer: The address of the peer, as host:port.
        title: The AE title of the peer.
        role: The role of this side, ``acceptor`` or ``requestor``.
        state: ``connected`` before the A-ASSOCIATE-RQ, then ``requested``, ``open`` and ``ending``.
        since: When the connection was opened, in seconds since 1970.
        operations: The operations that have no final response yet, those of the peer first.
        performed: How many requests of the peer came, by operation.
        requested: How many requests of ours went out, by operation.
        received: How many octets came; ``sent`` went.
        receiving: How many octets come in a second at the moment; ``sending`` go.
    """

    pid: int
    peer: str
    title: str
    calling: str
    called: str
    role: str
    state: str
    since: float
    operations: list[str]
    performed: dict[str, int]
    requested: dict[str, int]
    received: int
    sent: int
    receiving: float
    sending: float


class Associations(TypedDict):
    """All associations since the start.

    Attributes:
        live: Those that there are.
        limit: How many peers may have open; None means any number.
        accepted: How many were established, by the role of this side.
        ended: How many have ended, by how: ``released``, ``aborted by the peer``, ``aborted``, ``lost``, ``timeout``,
            ``rejected`` or ``failed``.
        refused: How many peers were refused something, by the kind of refusal.
        requested: How many requests of ours went out, by operation.
        received: How many octets came; ``sent`` went.
    """

    live: list[LiveAssociation]
    limit: int | None
    accepted: dict[str, int]
    ended: dict[str, int]
    refused: dict[str, int]
    requested: dict[str, int]
    received: int
    sent: int


class Operation(TypedDict):
    """The operations of one kind that were performed for peers, and ended in one status.

    Attributes:
        status: The status of the last response; None when there was nobody to send one to.
        count: How many there were.
        seconds: How long they took together, from when a request was complete until its last response.
        buckets: How many took up to each of :data:`BOUNDS`, and longer than the bound before; the last number is of
            those that took longer than the last bound.
    """

    operation: str
    status: int | None
    count: int
    seconds: float
    buckets: list[int]


class RefusedPeer(TypedDict):
    """A peer that was refused something.

    Attributes:
        time: When that was last, in seconds since 1970.
        count: How often since it was first remembered.
        reason: What came, and what was expected.
        hint: What to do about it; may be empty.
    """

    time: float
    count: int
    peer: str
    title: str
    kind: str
    verb: str
    reason: str
    hint: str


class Minute(TypedDict):
    """What happened in one minute.

    Attributes:
        time: When the minute began, in seconds since 1970.
        received: How many octets came; ``sent`` went.
        operations: How many operations for peers ended.
        instances_in: How many instances were kept; ``instances_out`` were sent.
    """

    time: float
    received: int
    sent: int
    operations: int
    instances_in: int
    instances_out: int


class Intake(TypedDict):
    """What is acknowledged, and not yet files and rows.

    Attributes:
        arriving: How many instances wait to be acknowledged.
        instances: How many are acknowledged.
        octets: How large those are.
        lag: For how many seconds none of those has become a file and a row.
        trouble: Why they cannot become files and rows; empty when they can.
    """

    arriving: int
    instances: int
    octets: int
    lag: float
    trouble: str


class SharedStore(TypedDict):
    """What was done with a store that several nodes share, since the start.

    Attributes:
        place: Where it is.
        put: How many objects were put, and in how many seconds.
        read: How many objects were read, and in how many seconds.
        failures: How many of these attempts have failed.
        cached: How many octets are in the cache of the node, and how many may be.
        hits: How many objects were in the cache, and how many were not.
    """

    place: str
    put: int
    put_seconds: float
    read: int
    read_seconds: float
    failures: int
    cached: int
    cache_limit: int
    hits: int
    misses: int


class Reactor(TypedDict):
    """How promptly the reactor serves.

    Attributes:
        busy: How many seconds it did not wait for anything.
        longest: How long the longest turn took, in seconds; ``recent`` is the longest of the last minute or two.
        held_up: How many turns took too long.
    """

    busy: float
    longest: float
    recent: float
    held_up: int


class Memory(TypedDict):
    """What the associations together have in memory.

    Attributes:
        held: How many octets.
        limit: How many they may have; None means any number.
        waiting: How many associations are not read because of that.
    """

    held: int
    limit: int | None
    waiting: int


class Disk(TypedDict):
    """The file system of the storage directory, in octets.

    Attributes:
        time: When that was found, in seconds since 1970.
        reserve: How much is left free.
    """

    time: float
    total: int
    free: int
    reserve: int


class Storage(TypedDict):
    """What the index contains; ``time`` is when that was counted, and the size is in octets."""

    time: float
    patients: int
    studies: int
    series: int
    instances: int
    size: int


class Queue(TypedDict):
    """The outbound queue.

    Attributes:
        time: When it was looked at, in seconds since 1970.
        oldest: When the oldest task that is not dead was inserted; None when there is no such task.
    """

    time: float
    waiting: int
    running: int
    dead: int
    oldest: float | None


class GroupNode(TypedDict):
    """A node that shares the database.

    Attributes:
        state: ``alive``, ``draining``, ``stopped`` or ``dead``.
        seen: How many seconds ago it was seen.
        duties: What it does that only one node does.
        associations: How many associations it has said that it has.
    """

    name: str
    host: str
    version: str
    state: str
    seen: float
    duties: list[str]
    associations: int


class Group(TypedDict):
    """The nodes that share the database.

    Attributes:
        time: When they were looked at, in seconds since 1970.
        node: The name of this node.
        duties: The duties that it has.
        skew: By how many seconds its clock is ahead of that of the database.
        nodes: All nodes, this one as well.
    """

    time: float
    node: str
    duties: list[str]
    skew: float
    nodes: list[GroupNode]


class Forecast(TypedDict):
    """How long the disk lasts.

    Attributes:
        watched: For how many seconds the use of the disk was watched, up to a day.
        per_day: By how many octets a day it has grown; None while too little is known.
        full_at: When only the reserve is free, in seconds since 1970; None when that is not to be expected.
    """

    watched: float
    per_day: float | None
    full_at: float | None


class Snapshot(TypedDict):
    """What a node is doing at one moment.

    Attributes:
        time: When the snapshot was taken, in seconds since 1970.
        bounds: :data:`BOUNDS`.
        refusals: The last refused peers, the last one first.
        minutes: The last minutes, the current one last.
    """

    time: float
    processes: list[Process]
    health: Health
    associations: Associations
    operations: list[Operation]
    bounds: list[float]
    refusals: list[RefusedPeer]
    minutes: list[Minute]
    intake: Intake | None
    shared: SharedStore | None
    reactor: Reactor | None
    memory: Memory | None
    disk: Disk | None
    storage: Storage | None
    queue: Queue | None
    group: Group | None
    forecast: Forecast


# -- several processes -------------------------------------------------------------------------------


def merge(snapshots: Sequence[Snapshot]) -> Snapshot:
    """One snapshot of those of several processes that share a storage directory.

    Args:
        snapshots: At least one; they are not changed.
    """
    now = max(each["time"] for each in snapshots)
    health = [each["health"] for each in snapshots]
    return Snapshot(
        time=now,
        processes=[process for each in snapshots for process in each["processes"]],
        health=Health(
            ready=all(each["ready"] for each in health),
            state=min((each["state"] for each in health), key=STATES.index),
            reasons=list(dict.fromkeys(reason for each in health for reason in each["reasons"])),
        ),
        associations=_merged_associations([each["associations"] for each in snapshots]),
        operations=_merged_operations(snapshots),
        bounds=list(snapshots[0]["bounds"]),
        refusals=sorted(
            (refusal for each in snapshots for refusal in each["refusals"]),
            key=lambda refusal: -refusal["time"],
        )[:REFUSALS],
        minutes=last_hour((minute for each in snapshots for minute in each["minutes"]), now),
        intake=_merged_intake([each["intake"] for each in snapshots if each["intake"]]),
        shared=next((each["shared"] for each in snapshots if each["shared"]), None),
        reactor=_merged_reactor([each["reactor"] for each in snapshots if each["reactor"]]),
        memory=_merged_memory([each["memory"] for each in snapshots if each["memory"]]),
        disk=_newest([each["disk"] for each in snapshots]),
        storage=_newest([each["storage"] for each in snapshots]),
        queue=_newest([each["queue"] for each in snapshots]),
        group=_newest([each["group"] for each in snapshots]),
        forecast=max((each["forecast"] for each in snapshots), key=lambda one: one["watched"]),
    )


def counters_of(snapshot: Snapshot) -> Snapshot:
    """What remains of a snapshot of a process that has ended: counters, refusals and the last hour."""
    return Snapshot(
        time=snapshot["time"],
        processes=[],
        health=Health(ready=True, state="serving", reasons=[]),
        associations={**snapshot["associations"], "live": [], "limit": 0},
        operations=snapshot["operations"],
        bounds=snapshot["bounds"],
        refusals=snapshot["refusals"],
        minutes=snapshot["minutes"],
        intake=None,
        shared=None,
        reactor=snapshot["reactor"],
        memory=None,
        disk=None,
        storage=None,
        queue=None,
        group=None,
        forecast=Forecast(watched=0.0, per_day=None, full_at=None),
    )


def _newest(parts: Sequence[_T | None]) -> _T | None:
    there: list[Any] = [each for each in parts if each is not None]
    return max(there, key=lambda each: each["time"]) if there else None


def _added(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counters:
        total.update(each)
    return dict(total)


def _sum_of_limits(limits: Iterable[int | None]) -> int | None:
    known = list(limits)
    return None if None in known else sum(each for each in known if each is not None)


def _merged_associations(parts: Sequence[Associations]) -> Associations:
    live = [one for each in parts for one in each["live"]]
    return Associations(
        live=sorted(live, key=lambda one: one["since"]),
        limit=_sum_of_limits(each["limit"] for each in parts),
        accepted=_added(each["accepted"] for each in parts),
        ended=_added(each["ended"] for each in parts),
        refused=_added(each["refused"] for each in parts),
        requested=_added(each["requested"] for each in parts),
        received=sum(each["received"] for each in parts),
        sent=sum(each["sent"] for each in parts),
    )


def _merged_operations(snapshots: Sequence[Snapshot]) -> list[Operation]:
    found: dict[tuple[str, int | None], Operation] = {}
    for each in (one for snapshot in snapshots for one in snapshot["operations"]):
        total = found.get((each["operation"], each["status"]))
        if total is None:
            found[each["operation"], each["status"]] = Operation(
                operation=each["operation"],
                status=each["status"],
                count=each["count"],
                seconds=each["seconds"],
                buckets=list(each["buckets"]),
            )
            continue
        total["count"] += each["count"]
        total["seconds"] += each["seconds"]
        total["buckets"] = [a + b for a, b in zip(total["buckets"], each["buckets"], strict=True)]
    return list(found.values())


def _merged_intake(parts: Sequence[Intake]) -> Intake | None:
    if not parts:
        return None
    return Intake(
        arriving=sum(each["arriving"] for each in parts),
        instances=sum(each["instances"] for each in parts),
        octets=sum(each["octets"] for each in parts),
        lag=max(each["lag"] for each in parts),
        trouble="; ".join(dict.fromkeys(each["trouble"] for each in parts if each["trouble"])),
    )


def _merged_reactor(parts: Sequence[Reactor]) -> Reactor | None:
    if not parts:
        return None
    return Reactor(
        busy=sum(each["busy"] for each in parts),
        longest=max(each["longest"] for each in parts),
        recent=max(each["recent"] for each in parts),
        held_up=sum(each["held_up"] for each in parts),
    )


def _merged_memory(parts: Sequence[Memory]) -> Memory | None:
    if not parts:
        return None
    return Memory(
        held=sum(each["held"] for each in parts),
        limit=_sum_of_limits(each["limit"] for each in parts),
        waiting=sum(each["waiting"] for each in parts),
    )


# -- minutes -----------------------------------------------------------------------------------------


def new_minute(begun: float) -> Minute:
    """A minute in which nothing has happened yet."""
    return Minute(time=begun, received=0, sent=0, operations=0, instances_in=0, instances_out=0)


def last_hour(minutes: Iterable[Minute], now: float) -> list[Minute]:
    """The last :data:`MINUTES` minutes, also those in which nothing was counted."""
    known: dict[float, Minute] = {}
    for each in minutes:
        total = known.setdefault(each["time"], new_minute(each["time"]))
        total["received"] += each["received"]
        total["sent"] += each["sent"]
        total["operations"] += each["operations"]
        total["instances_in"] += each["instances_in"]
        total["instances_out"] += each["instances_out"]
    last = now // 60 * 60
    times = [last - 60 * back for back in reversed(range(MINUTES))]
    return [known.get(each) or new_minute(each) for each in times]
