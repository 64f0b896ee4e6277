"""``/metrics`` for Prometheus, ``/live`` and ``/ready`` for whoever restarts or balances.

The figures are those of :mod:`netdicom_tx.archive.observations`, read when somebody asks. :func:`families` makes the
metrics of a snapshot; ``docs/reference/metrics.md`` lists them.

A node whose page has users shows its metrics to those who have logged in, and to those who name a user by HTTP Basic
authentication (RFC 7617), because Prometheus cannot fill in a form. The two health checks are open to everybody.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from ..archive.group.members import NodeState
from ..archive.observations import Observations
from ..archive.snapshots import STATES, SharedStore, Snapshot
from ..statuses import Status
from .site import Needs, Visit, Web

__all__ = ["families", "register", "render"]

# For how many seconds a password that was right is not checked again; a check takes a tenth of a second of work.
_REMEMBERED: Final = 300.0


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """The metrics of a snapshot, in the order in which the documentation lists them."""
    yield from _node(snapshot)
    yield from _associations(snapshot)
    yield from _operations(snapshot)
    yield from _inside(snapshot)
    yield from _storage(snapshot)
    yield from _group(snapshot)


def _group(snapshot: Snapshot) -> Iterator[Metric]:
    group = snapshot["group"]
    if group is None:
        return
    states = Counter(each["state"] for each in group["nodes"])
    yield _by(
        GaugeMetricFamily,
        "netdicom_group_nodes",
        "The nodes that share the database, by state.",
        "state",
        {each.value: states[each.value] for each in NodeState},
    )
    yield _by(
        GaugeMetricFamily,
        "netdicom_group_duty",
        "1 for each duty that this node has, which only one node of a group has.",
        "duty",
        dict.fromkeys(group["duties"], 1),
    )
    yield _gauge(
        "netdicom_group_clock_skew_seconds",
        "By how many seconds the clock of the node is ahead of that of the database.",
    )(group["skew"])


def _node(snapshot: Snapshot) -> Iterator[Metric]:
    processes = snapshot["processes"]
    group = snapshot["group"]
    labels = {"ae_title": processes[0]["ae_title"], "version": processes[0]["version"]}
    yield InfoMetricFamily(
        "netdicom_node", "The node.", labels if group is None else {**labels, "node": group["node"]}
    )
    yield _gauge(
        "netdicom_ready", "1 when peers are served and instances can be kept, otherwise 0."
    )(int(snapshot["health"]["ready"]))
    states = [each["state"] for each in processes]
    yield _by(
        GaugeMetricFamily,
        "netdicom_processes",
        "The processes of the node, by state.",
        "state",
        {each: states.count(each) for each in STATES},
    )
    yield _gauge(
        "netdicom_start_time_seconds",
        "When the oldest process of the node was started, in seconds since 1970.",
    )(min(each["started"] for each in processes))
    yield CounterMetricFamily(
        "netdicom_cpu_seconds",
        "Processor time that the processes of the node have used.",
        sum(each["cpu"] for each in processes),
    )
    yield _gauge(
        "netdicom_resident_memory_bytes", "Memory that the processes of the node have now."
    )(sum(each["resident"] for each in processes))


def _associations(snapshot: Snapshot) -> Iterator[Metric]:
    part = snapshot["associations"]
    live = GaugeMetricFamily(
        "netdicom_associations",
        "The associations that there are now, by the role of this side and by state.",
        labels=["role", "state"],
    )
    for role in ("acceptor", "requestor"):
        for state in ("connected", "requested", "open", "ending"):
            found = sum((each["role"], each["state"]) == (role, state) for each in part["live"])
            live.add_metric([role, state], found)
    yield live
    if part["limit"] is not None:
        yield _gauge("netdicom_associations_limit", "How many associations peers may have open.")(
            part["limit"]
        )
    yield _by(
        CounterMetricFamily,
        "netdicom_associations_accepted",
        "The associations that were established, by the role of this side.",
        "role",
        part["accepted"],
    )
    yield _by(
        CounterMetricFamily,
        "netdicom_associations_ended",
        "The associations and connections that have ended, by how.",
        "end",
        part["ended"],
    )
    yield _by(
        CounterMetricFamily,
        "netdicom_refusals",
        "How often a peer was refused something, by the kind of refusal.",
        "kind",
        part["refused"],
    )
    yield CounterMetricFamily(
        "netdicom_received_bytes", "The octets that came from peers.", part["received"]
    )
    yield CounterMetricFamily("netdicom_sent_bytes", "The octets that went to peers.", part["sent"])


def _operations(snapshot: Snapshot) -> Iterator[Metric]:
    counts = CounterMetricFamily(
        "netdicom_operations",
        "The operations that were performed for peers, by operation, by the status of the last response, and by what "
        "that status means.",
        labels=["operation", "status", "outcome"],
    )
    durations: dict[str, tuple[list[int], float]] = {}
    for each in snapshot["operations"]:
        status = each["status"]
        labels = (
            ["none", "none"]
            if status is None
            else [f"{status:04X}", _outcome(status, each["operation"])]
        )
        counts.add_metric([each["operation"], *labels], each["count"])
        buckets, seconds = durations.get(each["operation"], ([0] * len(each["buckets"]), 0.0))
        durations[each["operation"]] = (
            [a + b for a, b in zip(buckets, each["buckets"], strict=True)],
            seconds + each["seconds"],
        )
    yield counts
    histogram = HistogramMetricFamily(
        "netdicom_operation_duration_seconds",
        "How long operations for peers took, from when the request was complete until the last response.",
        labels=["operation"],
    )
    bounds = [*(f"{each:g}" for each in snapshot["bounds"]), "+Inf"]
    for operation, (buckets, seconds) in durations.items():
        added = [sum(buckets[: number + 1]) for number in range(len(buckets))]
        histogram.add_metric([operation], list(zip(bounds, added, strict=True)), seconds)
    yield histogram
    yield _by(
        CounterMetricFamily,
        "netdicom_requests",
        "The requests that the node has sent to peers, by operation.",
        "operation",
        snapshot["associations"]["requested"],
    )


def _shared(shared: SharedStore | None) -> Iterator[Metric]:
    if shared is None:
        return
    for name, about, value in (
        ("put", "The objects that were put into the shared store.", shared["put"]),
        ("put_seconds", "For how many seconds objects were put.", shared["put_seconds"]),
        ("read", "The objects that were read from the shared store.", shared["read"]),
        ("read_seconds", "For how many seconds objects were read.", shared["read_seconds"]),
        ("failures", "The attempts to put or read an object that have failed.", shared["failures"]),
        ("cache_hits", "The objects that were in the cache of the node.", shared["hits"]),
        ("cache_misses", "The objects that were not in the cache.", shared["misses"]),
    ):
        yield CounterMetricFamily(f"netdicom_shared_store_{name}", about, value)
    yield _gauge("netdicom_shared_store_cache_bytes", "The size of the cache of the node.")(
        shared["cached"]
    )
    yield _gauge(
        "netdicom_shared_store_cache_limit_bytes", "The size that the cache of the node may have."
    )(shared["cache_limit"])


def _inside(snapshot: Snapshot) -> Iterator[Metric]:
    intake, reactor, memory = snapshot["intake"], snapshot["reactor"], snapshot["memory"]
    if intake is not None:
        yield _gauge(
            "netdicom_intake_arriving_instances", "The instances that wait for the journal."
        )(intake["arriving"])
        yield _gauge(
            "netdicom_intake_instances",
            "The instances that are acknowledged and in the journal, and not yet files and rows.",
        )(intake["instances"])
        yield _gauge(
            "netdicom_intake_bytes", "The size of the instances of netdicom_intake_instances."
        )(intake["octets"])
        yield _gauge(
            "netdicom_intake_lag_seconds",
            "For how many seconds none of the instances of netdicom_intake_instances has become a file and a row.",
        )(intake["lag"])
    yield from _shared(snapshot["shared"])
    if reactor is not None:
        yield CounterMetricFamily(
            "netdicom_reactor_busy_seconds",
            "For how many seconds the reactor was at work; a process that adds 1 in each second is saturated.",
            reactor["busy"],
        )
        yield _gauge(
            "netdicom_reactor_longest_turn_seconds",
            "The longest turn of the reactor in the last minute or two; all peers have waited for it.",
        )(reactor["recent"])
        yield CounterMetricFamily(
            "netdicom_reactor_held_up",
            "The turns of the reactor that took too long.",
            reactor["held_up"],
        )
    if memory is not None:
        yield _gauge(
            "netdicom_associations_memory_bytes",
            "The size of what all associations together have in memory.",
        )(memory["held"])
        if memory["limit"] is not None:
            yield _gauge(
                "netdicom_associations_memory_limit_bytes",
                "The size of what all associations together may have in memory.",
            )(memory["limit"])
        yield _gauge(
            "netdicom_associations_paused",
            "The associations that are not read at the moment, because of the memory that they use.",
        )(memory["waiting"])


def _storage(snapshot: Snapshot) -> Iterator[Metric]:
    disk, storage, queue = snapshot["disk"], snapshot["storage"], snapshot["queue"]
    if disk is not None:
        yield _gauge(
            "netdicom_disk_size_bytes", "The size of the file system of the storage directory."
        )(disk["total"])
        yield _gauge(
            "netdicom_disk_free_bytes", "What is free on the file system of the storage directory."
        )(disk["free"])
        yield _gauge(
            "netdicom_disk_reserve_bytes",
            "What the node leaves free on that file system; when no more is free, it refuses instances.",
        )(disk["reserve"])
    forecast = snapshot["forecast"]
    if forecast["per_day"] is not None:
        yield _gauge(
            "netdicom_disk_growth_bytes_per_day",
            "By how much the use of that file system grows in a day, seen over the last day or since the start.",
        )(forecast["per_day"])
    if forecast["full_at"] is not None:
        yield _gauge(
            "netdicom_disk_full_time_seconds",
            "When only the reserve will be free if it grows on at this rate, in seconds since 1970.",
        )(forecast["full_at"])
    if storage is not None:
        yield _gauge("netdicom_storage_patients", "The patients in the index.")(storage["patients"])
        yield _gauge("netdicom_storage_studies", "The studies in the index.")(storage["studies"])
        yield _gauge("netdicom_storage_series", "The series in the index.")(storage["series"])
        yield _gauge("netdicom_storage_instances", "The instances in the index.")(
            storage["instances"]
        )
        yield _gauge("netdicom_storage_bytes", "The size of all instances in the index.")(
            storage["size"]
        )
    if queue is not None:
        yield _by(
            GaugeMetricFamily,
            "netdicom_queue_tasks",
            "The tasks of the outbound queue, by state.",
            "state",
            {state: queue[state] for state in ("waiting", "running", "dead")},
        )
        oldest = queue["oldest"]
        yield _gauge(
            "netdicom_queue_oldest_seconds",
            "The age of the oldest task of the outbound queue that is not dead; 0 when there is none.",
        )(0.0 if oldest is None else max(0.0, snapshot["time"] - oldest))


def _gauge(name: str, text: str) -> Callable[[float], Metric]:
    """A gauge without labels, which wants its value."""
    return lambda value: GaugeMetricFamily(name, text, value)


def _by(
    kind: Any, name: str, text: str, label: str, values: dict[str, int]
) -> Metric:  # kind: a family with labels
    """A metric with one label."""
    family: Any = kind(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    found: Metric = family
    return found


def _outcome(status: int, operation: str) -> str:
    """What a status means, in the words of PS3.7 Annex C."""
    told = Status(status, operation)
    for word in ("success", "warning", "cancel", "pending"):
        if getattr(told, f"is_{word}"):
            return word
    return "failure"


class _Snapshot(Collector):
    """Gives a registry the metrics of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that the registry does not ask for all metrics when it is made."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        return families(self._snapshot)


def render(snapshot: Snapshot, accept: str = "") -> tuple[str, bytes]:
    """The metrics of a snapshot in a format of Prometheus, or of OpenMetrics.

    Args:
        accept: The Accept header of the request.

    Returns:
        The Content-Type, and the text.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(snapshot))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is not one
        encode, content_type = choose_encoder("")
    return content_type, encode(registry)


class _Basic:
    """HTTP Basic authentication for programs, by the users of the page."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._key = secrets.token_bytes(32)
        # What was right, with the time, the user and the hash of the password.
        self._known: dict[bytes, tuple[float, str, str]] = {}

    async def allows(self, visit: Visit) -> bool:
        """Whether a request comes from somebody who has logged in, or names a user with the right password."""
        accounts = self._web.accounts
        if accounts is None or visit.user is not None:
            return True
        scheme, _, encoded = visit.header("authorization").partition(" ")
        if scheme.lower() != "basic":
            return False
        digest = hmac.new(self._key, encoded.encode(), sha256).digest()
        now = self._web.ae.clock.seconds()
        self._known = {
            each: (when, user, found)
            for each, (when, user, found) in self._known.items()
            if now - when < _REMEMBERED and accounts.hash_of(user) == found
        }
        if digest in self._known:
            return True
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
        host = getattr(visit.request.getClientAddress(), "host", "a local socket")
        found = await self._web.check_password(user, password, host)
        if found is not None:
            self._known[digest] = now, user, found
        return found is not None


def register(web: Web) -> None:
    """Register the routes."""
    observations: Observations = web.ae.observations
    basic = _Basic(web)

    def say(visit: Visit, code: int, text: str) -> bytes:
        visit.request.setResponseCode(code)
        visit.request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return text.encode()

    @web.route("/metrics", Needs.NOTHING)
    async def metrics(visit: Visit) -> bytes:
        if not await basic.allows(visit):
            visit.request.setHeader("WWW-Authenticate", 'Basic realm="netdicom", charset="UTF-8"')
            return say(visit, 401, "Expected a user of this node; see basic_auth of Prometheus.\n")
        content_type, text = render(await observations.current(), visit.header("accept"))
        visit.request.setHeader("Content-Type", content_type)
        return text

    @web.route("/live", Needs.NOTHING)
    def live(visit: Visit) -> bytes:
        return say(visit, 200, "alive\n")

    @web.route("/ready", Needs.NOTHING)
    async def ready(visit: Visit) -> bytes:
        health = (await observations.current())["health"]
        if health["ready"]:
            return say(visit, 200, "ready\n")
        return say(visit, 503, "".join(f"{each}\n" for each in ["not ready", *health["reasons"]]))
