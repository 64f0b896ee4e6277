"""What a node counts, and what it says of itself."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from netdicom_tx.archive import IndexUnavailableError
from netdicom_tx.archive.observations import TICK, Observations
from netdicom_tx.archive.snapshots import BOUNDS, MINUTES, REFUSALS, Snapshot, counters_of, merge
from netdicom_tx.archive.store.filestore import Room
from netdicom_tx.archive.workers import Workers
from netdicom_tx.exceptions import (
    AssociationAbortedError,
    AssociationRejectedError,
    AssociationReleasedError,
    ConnectionLostError,
    DCMTimeoutError,
    LocalProtocolError,
    NetDICOMError,
)
from netdicom_tx.refusals import Refusal
from netdicom_tx.summary import AssociationSummary
from support.archive.archives import Archive, stored
from support.archive.data_sets import ct
from support.doubles import RELEASE_RQ, pdu, run

NOON = 1_700_000_040.0 // 60 * 60
GIB = 1 << 30
RELEASED = AssociationReleasedError()


@dataclass(eq=False)
class Asce:
    """An association as it is observed."""

    title: str = "CT1"
    host: str = "192.0.2.7"
    is_requestor: bool = False
    error: NetDICOMError | None = None
    is_open: bool = True
    is_requested: bool = True
    age: float = 0.0
    under_way: list[str] = field(default_factory=list)
    received: int = 0
    sent: int = 0
    requested: dict[str, int] = field(default_factory=dict)
    called_ae_title: str = "NODE"

    @property
    def calling_ae_title(self) -> str:
        return self.title

    @property
    def peer_title(self) -> str:
        return self.title

    @property
    def peer_address(self) -> IPv4Address:
        return IPv4Address("TCP", self.host, 11112)

    @property
    def summary(self) -> AssociationSummary:
        return AssociationSummary(
            reason=self.error,
            is_accepted=True,
            duration=self.age,
            performed={},
            requested=self.requested,
            octets_received=self.received,
            octets_sent=self.sent,
        )


class Node:
    """Observations with everything around them in the hands of the test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.live: list[Asce] = []
        self.observations = Observations(
            "NODE",
            lambda: self.live,
            lambda: self.clock,
            defer.maybeDeferred,
            lambda: NOON + self.clock.seconds(),
        )
        self.observations.state = "serving"

    def passes(self, seconds: float) -> None:
        """Let time pass, a tick at a time."""
        for _ in range(int(seconds / TICK)):
            for each in self.live:
                each.age += TICK
            self.clock.advance(TICK)

    def ends(self, asce: Asce, error: NetDICOMError = RELEASED) -> None:
        asce.error = error
        self.live.remove(asce)
        self.observations.closed(asce)


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    node.observations.start()
    yield node
    node.observations.stop()
    assert node.clock.getDelayedCalls() == []


def full(free: int, total: int = 100 * GIB) -> Callable[[], dict[str, int]]:
    return lambda: Room(total, free, GIB)._asdict()


# -- counting ----------------------------------------------------------------------------------------


def test_operations_are_counted_by_status_with_their_durations(node: Node) -> None:
    for seconds in (0.0005, 0.001, 0.2, 1000.0):
        node.observations.performed("C-STORE", 0, seconds)
    node.observations.performed("C-STORE", 0xA700, 0.1)
    node.observations.performed("C-FIND", None, 0.1)
    store, refused, find = node.observations.snapshot()["operations"]
    assert (store["operation"], store["status"], store["count"]) == ("C-STORE", 0, 4)
    assert store["seconds"] == pytest.approx(1000.2015)
    assert store["buckets"][0] == 2
    assert store["buckets"][-1] == 1
    assert len(store["buckets"]) == len(BOUNDS) + 1
    assert (refused["status"], refused["count"]) == (0xA700, 1)
    assert (find["operation"], find["status"]) == ("C-FIND", None)


def test_the_number_of_statuses_that_are_counted_apart_is_bounded(node: Node) -> None:
    for status in range(600):
        node.observations.performed("C-STORE", status, 0.1)
    operations = node.observations.snapshot()["operations"]
    assert len(operations) == 513
    assert (operations[-1]["operation"], operations[-1]["count"]) == ("other", 88)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (RELEASED, "released"),
        (AssociationAbortedError(0), "aborted by the peer"),
        (AssociationAbortedError(0, by_peer=False), "aborted"),
        (AssociationRejectedError(1, 1, 7), "rejected"),
        (ConnectionLostError(), "lost"),
        (DCMTimeoutError("network", 60), "timeout"),
        (LocalProtocolError("?"), "failed"),
    ],
)
def test_the_ends_of_associations_are_counted(node: Node, error: NetDICOMError, word: str) -> None:
    asce = Asce()
    node.live.append(asce)
    node.ends(asce, error)
    assert node.observations.snapshot()["associations"]["ended"] == {word: 1}


def test_counters_stay_when_an_association_ends(node: Node) -> None:
    asce = Asce(received=1000, sent=10, requested={"C-STORE": 2}, is_requestor=True)
    node.live.append(asce)
    node.observations.accepted(asce)
    node.observations.accepted(Asce())
    before = node.observations.snapshot()["associations"]
    node.ends(asce)
    after = node.observations.snapshot()["associations"]
    for told in before, after:
        assert (told["received"], told["sent"]) == (1000, 10)
        assert told["requested"] == {"C-STORE": 2}
        assert told["accepted"] == {"requestor": 1, "acceptor": 1}
    assert len(before["live"]) == 1
    assert after["live"] == []


def test_the_last_refusals_are_told_with_what_to_do(node: Node) -> None:
    unknown = Refusal("calling", "calling AE title 'X'", "that of a known peer", "add it")
    node.observations.refused(Asce(title="X"), unknown)
    node.passes(10)
    node.observations.refused(Asce(title="Y", host="192.0.2.8"), Refusal("full", "all places"))
    node.observations.refused(Asce(title="X"), unknown)
    snapshot = node.observations.snapshot()
    first, second = snapshot["refusals"]
    assert (first["title"], first["count"], first["time"]) == ("X", 2, NOON + 10)
    assert first["peer"] == "192.0.2.7:11112"
    assert first["reason"] == "calling AE title 'X'; expected that of a known peer"
    assert first["hint"] == "add it"
    assert (second["reason"], second["hint"]) == ("all places", "")
    assert snapshot["associations"]["refused"] == {"calling": 2, "full": 1}


def test_a_health_check_that_says_nothing_is_only_counted(node: Node) -> None:
    node.observations.refused(Asce(), Refusal("silence", "nothing came", is_noise=True))
    snapshot = node.observations.snapshot()
    assert snapshot["refusals"] == []
    assert snapshot["associations"]["refused"] == {"silence": 1}


def test_a_flood_of_refusals_does_not_fill_the_memory(node: Node) -> None:
    for number in range(REFUSALS + 10):
        node.observations.refused(
            Asce(host=f"192.0.2.{number}"), Refusal("silence", "nothing came")
        )
    snapshot = node.observations.snapshot()
    assert len(snapshot["refusals"]) == REFUSALS
    assert snapshot["associations"]["refused"] == {"silence": REFUSALS + 10}


# -- what is live ------------------------------------------------------------------------------------


def test_a_live_association_is_told_with_its_rate(node: Node) -> None:
    asce = Asce(under_way=["C-STORE"])
    node.live.append(asce)
    node.passes(10)
    asce.received += 5000
    node.passes(TICK)
    (live,) = node.observations.snapshot()["associations"]["live"]
    assert (live["peer"], live["title"], live["role"]) == ("192.0.2.7:11112", "CT1", "acceptor")
    assert (live["state"], live["operations"]) == ("open", ["C-STORE"])
    assert live["since"] == NOON
    # The last tick is just past, so the rate is that since the tick before.
    assert live["receiving"] == 1000
    assert live["sending"] == 0


def test_the_rate_of_a_new_association_is_that_of_its_life(node: Node) -> None:
    node.live.append(Asce(age=2.0, received=3000))
    (live,) = node.observations.snapshot()["associations"]["live"]
    assert live["receiving"] == 1500


@pytest.mark.parametrize(
    ("asce", "state"),
    [
        (Asce(is_open=False, is_requested=False), "connected"),
        (Asce(is_open=False), "requested"),
        (Asce(), "open"),
        (Asce(error=RELEASED), "ending"),
    ],
)
def test_the_state_of_an_association_is_told(node: Node, asce: Asce, state: str) -> None:
    node.live.append(asce)
    (live,) = node.observations.snapshot()["associations"]["live"]
    assert live["state"] == state


# -- the last hour -----------------------------------------------------------------------------------


def test_the_last_hour_is_told_minute_by_minute(node: Node) -> None:
    asce = Asce()
    node.live.append(asce)
    asce.received = 600
    node.observations.performed("C-STORE", 0, 0.1)
    node.observations.performed("C-STORE", 0xB000, 0.1)
    node.observations.performed("C-STORE", 0xA700, 0.1)
    node.passes(120)
    asce.sent, asce.requested = 70, {"C-STORE": 3}
    minutes = node.observations.snapshot()["minutes"]
    assert len(minutes) == MINUTES
    assert [each["time"] for each in minutes[-3:]] == [NOON, NOON + 60, NOON + 120]
    assert [each["received"] for each in minutes[-3:]] == [600, 0, 0]
    assert [each["sent"] for each in minutes[-3:]] == [0, 0, 70]
    assert minutes[-3]["operations"] == 3
    assert minutes[-3]["instances_in"] == 2
    assert minutes[-1]["instances_out"] == 3


def test_what_is_older_than_an_hour_is_forgotten(node: Node) -> None:
    node.observations.performed("C-ECHO", 0, 0.1)
    node.passes(2 * 3600)
    minutes = node.observations.snapshot()["minutes"]
    assert sum(each["operations"] for each in minutes) == 0
    assert minutes[-1]["time"] == NOON + 2 * 3600


# -- what has to be asked ----------------------------------------------------------------------------


def test_disk_and_database_are_asked_when_somebody_wants_to_know() -> None:
    node = Node()
    asked = []

    def ask() -> dict[str, int]:
        asked.append("disk")
        return full(5 * GIB)()

    node.observations.look("disk", ask)
    assert node.observations.snapshot()["disk"] is None
    for _ in range(2):
        assert node.observations.refresh().called
        disk = node.observations.snapshot()["disk"]
        assert disk == {"time": NOON, "total": 100 * GIB, "free": 5 * GIB, "reserve": GIB}
    assert asked == ["disk"]
    node.clock.advance(5)
    node.observations.refresh()
    assert asked == ["disk", "disk"]


def test_what_costs_much_is_not_counted_often() -> None:
    """A count that has taken 2 s is 1 % of the time at most."""
    node = Node()
    counts = []

    def count() -> dict[str, int]:
        counts.append(1)
        node.clock.advance(2)
        return {"instances": len(counts)}

    node.observations.look("storage", count, may_cost=True)
    node.observations.refresh()
    node.clock.advance(199)
    node.observations.refresh()
    assert len(counts) == 1
    node.clock.advance(1)
    node.observations.refresh()
    assert len(counts) == 2


def test_a_disk_that_hangs_does_not_hold_up_who_asks() -> None:
    node = Node()
    hanging: defer.Deferred[Any] = defer.Deferred()
    observations = Observations(
        "NODE", list, lambda: node.clock, lambda call: hanging, lambda: NOON
    )
    observations.look("disk", full(GIB))
    first = observations.refresh(patience=2)
    second = observations.refresh(patience=60)
    node.clock.advance(2)
    assert (first.called, second.called) == (True, False)
    assert observations.snapshot()["disk"] is None
    hanging.callback(full(GIB)())
    assert second.called
    assert observations.snapshot()["disk"] is not None


def test_a_database_that_hangs_is_a_reason_not_to_be_ready() -> None:
    """A server that is stopped, or behind a cable that is cut, gives no error."""
    node = Node()
    hanging: list[defer.Deferred[Any]] = []

    def run(_: Any) -> defer.Deferred[Any]:
        hanging.append(defer.Deferred())
        return hanging[-1]

    observations = Observations("NODE", list, lambda: node.clock, run, lambda: NOON)
    observations.state = "serving"
    observations.look("database", dict)
    observations.look("storage", dict, may_cost=True)
    observations.refresh(patience=2)
    node.clock.advance(9)
    assert observations.reasons() == []
    node.clock.advance(3)
    assert observations.reasons() == ["the database has not answered for 12 s"]
    hanging[0].callback({})
    assert observations.reasons() == []


def test_a_database_that_is_gone_is_a_reason_not_to_be_ready(node: Node) -> None:
    answers: list[Any] = [{"instances": 1}]

    def ask() -> dict[str, int]:
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        found: dict[str, int] = answers[-1]
        return found

    node.observations.look("storage", ask)
    node.observations.refresh()
    assert node.observations.snapshot()["health"]["ready"]
    answers.append(IndexUnavailableError("the server has closed the connection"))
    node.clock.advance(TICK)
    node.observations.refresh()
    snapshot = node.observations.snapshot()
    assert snapshot["health"] == {
        "ready": False,
        "state": "serving",
        "reasons": ["the server has closed the connection"],
    }
    # What was known last is still told, with its time.
    assert snapshot["storage"] == {"time": NOON, "instances": 1}
    answers.append({"instances": 2})
    node.clock.advance(TICK)
    node.observations.refresh()
    assert node.observations.snapshot()["health"]["ready"]


def test_a_full_disk_is_a_reason_not_to_be_ready(node: Node) -> None:
    node.observations.look("disk", full(GIB))
    node.observations.refresh()
    health = node.observations.snapshot()["health"]
    assert health["reasons"] == [
        "the disk is full: 1024 MiB are free, and 1024 MiB are the reserve"
    ]


def test_a_node_whose_threads_do_not_run_yet_is_only_starting() -> None:
    """It is ready as soon as it serves."""
    clock, workers = Clock(), Workers("netdicom-reader", 1)
    observations = Observations("NODE", list, lambda: clock, workers.run, lambda: NOON)
    observations.look("disk", full(50 * GIB))
    assert observations.refresh().called
    assert observations.reasons() == ["the node is starting"]
    observations.state = "serving"
    assert observations.reasons() == []


@pytest.mark.parametrize("state", ["starting", "draining", "stopped"])
def test_a_node_that_does_not_serve_is_not_ready(node: Node, state: str) -> None:
    node.observations.state = state
    assert node.observations.snapshot()["health"] == {
        "ready": False,
        "state": state,
        "reasons": [f"the node is {state}"],
    }


# -- the forecast ------------------------------------------------------------------------------------


def test_the_disk_is_forecast_by_what_it_has_grown() -> None:
    node = Node()
    node.observations.start()
    free = 50 * GIB

    def disk() -> dict[str, int]:
        return full(free)()

    node.observations.look("disk", disk)
    node.passes(3000)
    assert node.observations.snapshot()["forecast"]["per_day"] is None
    node.passes(6 * 3600 - 3000)
    free -= GIB
    node.passes(60)
    forecast = node.observations.snapshot()["forecast"]
    assert forecast["per_day"] == pytest.approx(4 * GIB, rel=0.01)
    assert forecast["full_at"] == pytest.approx(NOON + 12.25 * 86400 + 6 * 3600, rel=0.01)
    node.observations.stop()


def test_a_disk_that_does_not_grow_is_not_forecast(node: Node) -> None:
    node.observations.look("disk", full(50 * GIB))
    node.passes(2 * 3600)
    forecast = node.observations.snapshot()["forecast"]
    assert (forecast["per_day"], forecast["full_at"]) == (0, None)


def test_only_the_last_day_counts(node: Node) -> None:
    node.observations.look("disk", full(50 * GIB))
    node.passes(2 * 86400)
    assert 86000 < node.observations.snapshot()["forecast"]["watched"] <= 86400


def test_a_restart_does_not_forget_how_the_disk_fills(tmp_path: Path) -> None:
    node = Node()
    node.observations.history = tmp_path / "disk-use.json"
    node.observations.look("disk", full(50 * GIB))
    node.observations.start()
    node.passes(6 * 3600)
    node.observations.stop()
    again = Node()
    again.clock.advance(6 * 3600 + 600)
    again.observations.history = node.observations.history
    again.observations.look("disk", full(49 * GIB))
    again.observations.start()
    again.passes(TICK)
    forecast = again.observations.snapshot()["forecast"]
    assert forecast["watched"] == pytest.approx(6 * 3600 + 600, abs=10)
    assert forecast["per_day"] == pytest.approx(GIB * 86400 / (6 * 3600 + 600), rel=0.01)
    again.observations.stop()


@pytest.mark.parametrize("content", ["", "{}", "[[1]]", '[["x", 1]]', "[[1e12, 1]]", "[[0, 1]]"])
def test_a_history_that_is_of_no_use_is_none(tmp_path: Path, content: str) -> None:
    """Damaged, in the future, or long ago."""
    node = Node()
    node.observations.history = tmp_path / "disk-use.json"
    node.observations.history.write_text(content)
    node.observations.start()
    node.observations.look("disk", full(50 * GIB))
    node.passes(TICK)
    assert node.observations.snapshot()["forecast"]["watched"] == 0
    node.observations.stop()


def test_a_history_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    node = Node()
    node.observations.history = tmp_path / "nowhere" / "disk-use.json"
    node.observations.look("disk", full(50 * GIB))
    node.observations.start()
    node.passes(TICK)
    assert node.observations.snapshot()["health"]["ready"]
    node.observations.stop()


# -- several processes -------------------------------------------------------------------------------


def test_snapshots_of_processes_are_added() -> None:
    nodes = [Node(), Node()]
    for number, node in enumerate(nodes):
        observations = node.observations
        node.clock.advance(number)
        asce = Asce(title=f"CT{number}", received=1000, age=0.0)
        node.live.append(asce)
        observations.accepted(asce)
        observations.refused(asce, Refusal("full", "all places"))
        observations.performed("C-STORE", 0, 0.1)
        observations.limit = lambda: 10
        observations.intake = lambda: {
            "arriving": 1,
            "instances": 2,
            "octets": 3,
            "lag": 0.5,
            "trouble": "the disk",
        }
        observations.reactor = lambda: {
            "busy": 1.0,
            "longest": 2.0,
            "recent": 0.5,
            "held_up": 1,
        }
        observations.memory = lambda: {"held": 100, "limit": None, "waiting": 0}
        observations.look("disk", full(5 * GIB))
        observations.refresh()
    nodes[1].observations.performed("C-ECHO", 0, 0.1)
    nodes[1].observations.state = "draining"
    together = merge([node.observations.snapshot() for node in nodes])
    assert together["time"] == NOON + 1
    assert [each["state"] for each in together["processes"]] == ["serving", "draining"]
    assert together["health"] == {
        "ready": False,
        "state": "draining",
        "reasons": ["the node is draining"],
    }
    associations = together["associations"]
    assert [each["title"] for each in associations["live"]] == ["CT0", "CT1"]
    assert (associations["limit"], associations["received"]) == (20, 2000)
    assert associations["accepted"] == {"acceptor": 2}
    assert associations["refused"] == {"full": 2}
    counts = [(each["operation"], each["count"]) for each in together["operations"]]
    assert counts == [("C-STORE", 2), ("C-ECHO", 1)]
    assert sum(together["operations"][0]["buckets"]) == 2
    assert [each["title"] for each in together["refusals"]] == ["CT1", "CT0"]
    assert together["minutes"][-1]["operations"] == 3
    assert together["intake"] == {
        "arriving": 2,
        "instances": 4,
        "octets": 6,
        "lag": 0.5,
        "trouble": "the disk",
    }
    assert together["reactor"] == {"busy": 2.0, "longest": 2.0, "recent": 0.5, "held_up": 2}
    assert together["memory"] == {"held": 200, "limit": None, "waiting": 0}
    assert together["disk"] is not None
    assert together["disk"]["time"] == NOON + 1
    assert together["queue"] is None


def test_what_a_process_has_counted_stays_when_it_has_ended(node: Node) -> None:
    """Otherwise the sum of all processes would fall."""
    asce = Asce(received=1000)
    node.live.append(asce)
    node.observations.accepted(asce)
    node.observations.performed("C-STORE", 0, 0.1)
    node.observations.look("disk", full(GIB))
    node.observations.refresh()
    former = counters_of(node.observations.snapshot())
    other = Node()
    other.observations.state = "serving"
    other.observations.performed("C-STORE", 0, 0.1)
    together = merge([other.observations.snapshot(), merge([former]), former])
    assert together["health"]["ready"]
    assert len(together["processes"]) == 1
    assert together["associations"]["live"] == []
    assert together["associations"]["accepted"] == {"acceptor": 2}
    assert together["associations"]["received"] == 2000
    assert together["operations"][0]["count"] == 3
    assert together["disk"] is None


async def of_all(node: Node) -> Snapshot:
    return await node.observations.current()


def test_the_snapshot_of_a_node_is_that_of_all_its_processes(node: Node) -> None:
    other = Node()
    for each in (node, other):
        each.observations.performed("C-ECHO", 0, 0.1)

    async def others() -> list[Snapshot]:
        return [other.observations.snapshot()]

    assert run(of_all(node))["operations"][0]["count"] == 1
    node.observations.others = others
    assert run(of_all(node))["operations"][0]["count"] == 2


def test_a_node_is_told_in_a_line(node: Node) -> None:
    node.live.append(Asce(requested={"C-STORE": 2}))
    node.observations.performed("C-STORE", 0, 0.1)
    line = "serving: 1 associations; 1 instances kept and 2 sent since the start"
    assert run(node.observations.in_a_line()) == line


def test_the_line_counts_what_workers_do(node: Node) -> None:
    """Those that have ended, too; refused instances are not kept."""
    worker, former = Node(), Node()
    worker.live += [Asce(requested={"C-STORE": 2}), Asce()]
    for status in (0, 0xB000, 0xA700):
        worker.observations.performed("C-STORE", status, 0.1)
    former.observations.performed("C-STORE", 0, 0.1)

    async def others() -> list[Snapshot]:
        return [worker.observations.snapshot(), counters_of(former.observations.snapshot())]

    node.observations.others = others
    line = "serving: 2 associations; 3 instances kept and 2 sent since the start"
    assert run(node.observations.in_a_line()) == line


def test_one_snapshot_merged_is_itself(node: Node) -> None:
    node.live.append(Asce())
    node.observations.performed("C-ECHO", 0, 0.1)
    snapshot = node.observations.snapshot()
    assert merge([snapshot]) == snapshot


# -- the node ----------------------------------------------------------------------------------------


def test_a_node_tells_what_it_does(tmp_path: Path) -> None:
    node = Archive(tmp_path / "archive")
    try:
        peer = node.sender()
        data = ct("1.2.3")
        assert stored(peer, data) == 0
        observations = node.ae.observations
        observations.refresh()
        snapshot = observations.snapshot()
        json.dumps(snapshot)  # has words for all of it
        counts = {each["operation"]: each["count"] for each in snapshot["operations"]}
        assert counts == {"C-STORE": 1, "C-ECHO": 1}
        assert snapshot["storage"] is not None
        assert snapshot["storage"]["instances"] == 1
        assert snapshot["queue"] is not None
        assert snapshot["queue"]["oldest"] is None
        assert snapshot["disk"] is not None
        assert snapshot["memory"] is not None
        (live,) = snapshot["associations"]["live"]
        assert live["performed"] == {"C-STORE": 1, "C-ECHO": 1}
        assert live["received"] > len(data)
        peer.send(pdu(RELEASE_RQ))
        peer.transport.loseConnection()
        assert observations.snapshot()["associations"]["ended"] == {"released": 1}
    finally:
        node.close()
    assert node.ae.observations.state == "stopped"
