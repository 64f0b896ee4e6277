"""The lead of a node with several processes, without processes: whom it starts again, kills, and gives connections."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from netdicom_tx.access import network
from netdicom_tx.proxied import Proxies
from netdicom_tx.refusals import Refusal
from netdicom_tx.workforce import CONNECTION, Lines, Workforce, WorkforceError
from support.doubles import logged_lines as logged_lines


class Process:
    """What the lead sees of a worker's process."""

    def __init__(self, pid: int, protocol: Any, child_fds: dict[int, Any]) -> None:
        self.pid = pid
        self.pipes = {0: None, 3: None}
        self.protocol = protocol
        self.connections = socket.socket(fileno=socket.dup(child_fds[4]))
        self.connections.setblocking(False)
        self.told: list[dict[str, Any]] = []
        protocol.makeConnection(self)
        self.is_there = True

    def writeToChild(self, descriptor: int, octets: bytes) -> None:
        assert descriptor == 0
        self.told += map(json.loads, octets.splitlines())

    def says(self, kind: str, **values: Any) -> None:
        self.protocol.childDataReceived(3, Lines.of(kind, values))

    def ends(self, status: int = 1) -> None:
        self.is_there = False
        self.pipes.clear()
        self.connections.close()
        reason: Any = ProcessTerminated(status) if status else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))

    def taken(self) -> list[tuple[Any, ...]]:
        """The records of the connections that it has been given."""
        found: list[tuple[Any, ...]] = []
        while True:
            try:
                record, descriptors, _, _ = socket.recv_fds(self.connections, CONNECTION.size, 1)
            except BlockingIOError:
                return found
            for each in descriptors:
                socket.close(each)
            found.append(CONNECTION.unpack(record))


class Reactor(Clock):
    """Starts processes that do not exist."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def callWhenRunning(self, call: Any) -> None:
        call()

    def spawnProcess(self, protocol: Any, *_: Any, childFDs: dict[int, Any], **__: Any) -> Process:
        self.processes.append(Process(100 + len(self.processes), protocol, childFDs))
        return self.processes[-1]

    @property
    def there(self) -> list[Process]:
        return [each for each in self.processes if each.is_there]


class Port:
    """A port of the lead."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.is_reading = True
        self.doRead: Any = None

    def startReading(self) -> None:
        self.is_reading = True

    def stopReading(self) -> None:
        self.is_reading = False


class Lead:
    """A workforce of two, and what it needs."""

    def __init__(self, *networks: str) -> None:
        self.reactor = Reactor()
        self.port: Any = Port()
        self.refusals: list[Refusal] = []
        proxies = Proxies(
            lambda: [network(each) for each in networks],
            lambda _, refusal: self.refusals.append(refusal),
        )
        self.taken_over: list[int] = []
        self.refusal: Exception | None = None
        self.is_given_up = False
        self.woken = 0
        ae: Any = SimpleNamespace(
            reactor=self.reactor,
            share=lambda shared: None,
            forget=lambda: None,
            in_thread=defer.maybeDeferred,
            take_over=self.take_over,
            store=SimpleNamespace(descriptor=0),
            workflow=SimpleNamespace(wake=self.wake),
            observations=SimpleNamespace(troubles=[]),
        )
        self.ae = ae
        self.workforce = Workforce(
            ae, 2, lambda: [self.port], {}, 10.0, self.give_up, proxies if networks else None
        )

    def take_over(self, worker: int, process: int) -> int:
        if self.refusal is not None:
            raise self.refusal
        self.taken_over.append(worker)
        return 0

    def wake(self) -> None:
        self.woken += 1

    def give_up(self) -> None:
        self.is_given_up = True

    def start(self) -> tuple[Process, Process]:
        """Start it, and let both workers serve."""
        self.workforce.startService()
        for each in self.reactor.there:
            each.says("ready")
        first, second = self.reactor.there
        return first, second

    def connect(self, count: int) -> list[socket.socket]:
        made = [socket.create_connection(self.port.socket.getsockname()) for _ in range(count)]
        self.port.doRead()
        return made


@pytest.fixture
def lead() -> Iterator[Lead]:
    lead = Lead()
    yield lead
    for each in lead.reactor.there:
        each.ends()
    lead.port.socket.close()


@pytest.fixture
def proxied() -> Iterator[Lead]:
    """A lead behind a proxy on this machine."""
    lead = Lead("127.0.0.1")
    yield lead
    for each in lead.reactor.there:
        each.ends()
    lead.port.socket.close()


def test_connections_wait_until_a_worker_serves(lead: Lead) -> None:
    """They wait in the kernel, and are not refused."""
    lead.workforce.startService()
    assert not lead.port.is_reading
    first, second = lead.reactor.there
    first.says("ready")
    assert lead.port.is_reading
    first.ends()
    assert not lead.port.is_reading
    second.says("ready")
    assert lead.port.is_reading


def test_the_worker_with_the_fewest_gets_the_next_connection(lead: Lead) -> None:
    first, second = lead.start()
    made = lead.connect(4)
    numbers = [number for number, *_ in first.taken()]
    assert len(numbers) == len(second.taken()) == 2
    for number in numbers:
        first.says("closed", number=number)
    made += lead.connect(2)
    assert (len(first.taken()), len(second.taken())) == (2, 0)
    for each in made:
        each.close()


def test_a_worker_knows_how_many_a_host_has_elsewhere(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the limit for each host is that of the whole node."""
    monkeypatch.setattr("netdicom_tx.workforce._host", lambda address: "192.0.2.1")
    first, second = lead.start()
    made = lead.connect(5)
    assert [elsewhere for _, _, elsewhere, *_ in first.taken()] == [0, 1, 2]
    assert [elsewhere for _, _, elsewhere, *_ in second.taken()] == [1, 2]
    for each in made:
        each.close()


def test_the_lead_reads_the_header_of_a_proxy(proxied: Lead) -> None:
    """So that the worker has the address of the peer, and how many associations that has elsewhere."""
    first, second = proxied.start()
    made = proxied.connect(4)
    assert not first.taken()
    for number, each in enumerate(made, 1):
        each.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 %d 104\r\nrequest" % number)
        proxied.reactor.readers[0].doRead()
    told = [each[2:] for each in (*first.taken(), *second.taken())]
    host = b"192.0.2.7".ljust(45, b"\0")
    assert told == [(0, host, 1), (1, host, 3), (1, host, 2), (2, host, 4)]
    for each in made:
        each.close()


def test_the_lead_closes_what_comes_without_a_header(proxied: Lead) -> None:
    first, second = proxied.start()
    (wrong,) = proxied.connect(1)
    wrong.sendall(b"\x01\0\0\0")
    proxied.reactor.readers[0].doRead()
    wrong.settimeout(10)
    with pytest.raises(ConnectionResetError):  # octets of it have not been read
        wrong.recv(1)
    wrong.close()
    assert [first.taken(), second.taken(), proxied.reactor.readers] == [[], [], []]
    assert [each.kind for each in proxied.refusals] == ["PROXY header"]


def test_the_lead_bounds_how_many_wait_for_their_header(
    proxied: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netdicom_tx.workforce.WAITING_LIMIT", 2)
    proxied.start()
    made = proxied.connect(3)
    assert len(proxied.reactor.readers) == 2
    proxied.workforce.stopService()
    assert not proxied.reactor.readers
    for each in made:
        assert each.recv(1) == b""
        each.close()


def test_the_lead_refuses_connections_past_the_proxies() -> None:
    lead = Lead("192.0.2.1")
    lead.start()
    (made,) = lead.connect(1)
    assert made.recv(1) == b""
    assert [each.kind for each in lead.refusals] == ["past the proxies"]
    made.close()
    for each in lead.reactor.there:
        each.ends()
    lead.port.socket.close()


def test_a_worker_that_dies_is_started_again_after_its_journal_was_taken_over(lead: Lead) -> None:
    first, second = lead.start()
    first.ends()
    assert lead.taken_over == [1]
    lead.reactor.advance(0)
    assert lead.reactor.there[0] is second
    assert lead.reactor.there[1].told[0]["number"] == 1


def test_a_journal_that_cannot_be_taken_over_is_tried_again(lead: Lead, lines: list[str]) -> None:
    """Every second, with one line in the log."""
    first, _ = lead.start()
    lead.refusal = OSError(28, "No space left on device")
    first.ends()
    for _ in range(3):
        lead.reactor.advance(1)
    assert len(lead.reactor.there) == 1
    lead.refusal = None
    lead.reactor.advance(1)
    lead.reactor.advance(0)
    assert lead.taken_over == [1]
    assert len(lead.reactor.there) == 2
    assert sum("tries again" in each for each in lines) == 1


def test_the_stop_does_not_wait_for_a_journal_that_cannot_be_taken_over(lead: Lead) -> None:
    first, second = lead.start()
    lead.refusal = OSError(28, "No space left on device")
    first.ends()
    stopped = lead.workforce.stopService()
    second.ends(0)
    assert stopped.called
    assert lead.reactor.getDelayedCalls() == []


def test_a_journal_that_is_not_taken_over_before_the_stop_is_not_told_as_empty(lead: Lead) -> None:
    """Otherwise the next start would bring back what is deleted now."""
    first, second = lead.start()
    lead.refusal = OSError(28, "No space left on device")
    first.ends()
    second.says("forget", number=7)
    lead.workforce.stopService()
    (answer,) = (each for each in second.told if each["is"] == "forgotten")
    assert answer == {"is": "forgotten", "number": 7, "error": "[Errno 28] No space left on device"}


def test_no_deletion_waits_for_a_worker_that_does_not_serve_yet(lead: Lead) -> None:
    first, second = lead.start()
    first.ends()
    lead.reactor.advance(0)
    another = lead.reactor.there[1]
    second.says("forget", number=7)
    assert second.told[-1] == {"is": "forgotten", "number": 7, "error": ""}
    another.says("ready")
    second.says("forget", number=8)
    assert another.told[-1] == {"is": "forget"}
    another.says("forgotten", error="")
    assert second.told[-1] == {"is": "forgotten", "number": 8, "error": ""}


def test_a_worker_that_dies_again_and_again_waits_longer(lead: Lead) -> None:
    _, second = lead.start()
    pauses: list[float] = []
    while len(pauses) < 9:
        (first,) = (each for each in lead.reactor.there if each is not second)
        first.ends()
        began = lead.reactor.seconds()
        while len(lead.reactor.there) < 2:
            lead.reactor.advance(0.5)
        pauses.append(lead.reactor.seconds() - began)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert not lead.is_given_up


def test_the_node_ends_when_no_worker_can_serve(lead: Lead) -> None:
    """A supervisor notices that, and not a node that only listens."""
    lead.workforce.startService()
    for _ in range(100):
        for each in lead.reactor.there:
            each.ends()
        lead.reactor.advance(1)
    assert lead.is_given_up


def test_a_worker_that_hangs_is_killed(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not answered eight questions; the other one has."""
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    first, second = lead.start()
    for _ in range(9):
        assert killed == []
        lead.reactor.advance(15)
        second.says("snapshot", snapshot=None)
    assert killed == [first.pid]


def test_a_worker_that_hangs_while_it_starts_is_killed(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the node would be without it until it is started again. One that logs something is not."""
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    lead.workforce.startService()
    first, second = lead.reactor.there
    for _ in range(9):
        assert killed == []
        lead.reactor.advance(15)
        second.says("wake")
    assert killed == [first.pid]
    assert not any(each["is"] == "snapshot" for each in (*first.told, *second.told))


def test_a_worker_that_is_ended_alone_gets_no_more_connections(lead: Lead) -> None:
    """It would close them; they go to the other one, or wait in the kernel until a worker serves."""
    first, second = lead.start()
    first.says("leaving")
    made = lead.connect(3)
    assert first.taken() == []
    assert len(second.taken()) == len(made)
    second.says("forget", number=7)
    assert first.told[-1] == {"is": "forget"}
    second.says("leaving")
    assert not lead.port.is_reading
    first.ends(0)
    lead.reactor.advance(0)
    assert not lead.port.is_reading
    lead.reactor.there[-1].says("ready")
    assert lead.port.is_reading
    for each in made:
        each.close()


def test_the_stop_waits_for_all_workers(lead: Lead) -> None:
    first, second = lead.start()
    stopped = lead.workforce.stopService()
    assert first.told[-1] == second.told[-1] == {"is": "stop"}
    first.ends(0)
    assert stopped.called is False
    second.ends(0)
    done: bool = stopped.called
    assert done
    assert lead.reactor.getDelayedCalls() == []


def test_the_stop_does_not_wait_for_workers_that_are_still_starting(
    lead: Lead, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine they need many seconds before they read that they are to stop."""
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    lead.workforce.startService()
    first, second = lead.reactor.there
    first.says("ready")
    stopped = lead.workforce.stopService()
    assert first.told[-1] == {"is": "stop"}
    assert killed == [second.pid]
    second.ends(9)
    first.ends(0)
    assert stopped.called
    assert not any("in order" in each for each in lines)


def test_a_worker_that_does_not_stop_is_killed(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    first, second = lead.start()
    lead.workforce.stopService()
    first.ends(0)
    lead.reactor.advance(15)
    assert killed == [second.pid]
    second.ends()


def test_all_others_empty_their_journals(lead: Lead) -> None:
    """The worker that asks is answered when they have, and told why when one cannot."""
    first, second = lead.start()
    first.says("forget", number=7)
    assert second.told[-1] == {"is": "forget"}
    second.says("forgotten", error="")
    assert first.told[-1] == {"is": "forgotten", "number": 7, "error": ""}
    first.says("forget", number=8)
    second.says("forgotten", error="the disk is full")
    assert first.told[-1] == {"is": "forgotten", "number": 8, "error": "the disk is full"}


def test_the_journal_of_a_dead_worker_counts_as_emptied_when_it_was_taken_over(lead: Lead) -> None:
    first, second = lead.start()
    first.says("forget", number=7)
    second.ends()
    assert first.told[-1] == {"is": "forgotten", "number": 7, "error": ""}


def test_a_worker_that_has_stopped_in_order_has_emptied_its_journal(lead: Lead) -> None:
    """Another one may still be replacing an instance, and its peer waits for that."""
    first, second = lead.start()
    lead.workforce.stopService()
    first.says("forget", number=7)
    second.ends(0)
    assert first.told[-1] == {"is": "forgotten", "number": 7, "error": ""}
    first.says("forget", number=8)
    assert first.told[-1] == {"is": "forgotten", "number": 8, "error": ""}


def test_nothing_is_replaced_when_a_worker_has_died_while_the_node_stops(lead: Lead) -> None:
    """The next start would bring back what is in its journal."""
    first, second = lead.start()
    lead.workforce.stopService()
    first.says("forget", number=7)
    second.ends()
    first.says("forget", number=8)
    answers = [each for each in first.told if each["is"] == "forgotten"]
    assert [each["number"] for each in answers] == [7, 8]
    assert all("has not emptied its journal" in each["error"] for each in answers)


def test_nothing_is_replaced_when_a_journal_was_left_while_the_node_stops(lead: Lead) -> None:
    """Those who have asked before and afterwards get an answer at once."""
    first, second = lead.start()
    first.says("forget", number=7)
    lead.refusal = OSError(28, "No space left on device")
    second.ends()
    lead.workforce.stopService()
    first.says("forget", number=8)
    answers = [each for each in first.told if each["is"] == "forgotten"]
    assert [each["number"] for each in answers] == [7, 8]
    assert all(each["error"] for each in answers)


def test_the_lead_looks_at_the_queue_when_a_worker_says_so(lead: Lead) -> None:
    first, _ = lead.start()
    first.says("wake")
    assert lead.woken == 1


def test_the_lead_looks_at_the_queue_when_it_has_taken_the_tasks_of_a_worker(lead: Lead) -> None:
    """The worker has owed them, and nobody waits until the queue is looked at anyway."""
    first, _ = lead.start()
    first.ends()
    assert lead.taken_over == [1]
    assert lead.woken == 1


def test_an_event_is_told_to_the_other_workers(lead: Lead) -> None:
    first, second = lead.start()
    before = len(first.told)
    first.says("event", uid="1.2", event=3)
    assert second.told[-1] == {"is": "event", "uid": "1.2", "event": 3}
    assert len(first.told) == before


def test_nothing_but_its_own_thread_may_wait_for_workers(lead: Lead) -> None:
    """The reactor's thread would wait for itself."""
    lead.start()
    with pytest.raises((AssertionError, WorkforceError)):
        lead.ae.forget_elsewhere()


def test_a_connection_that_nobody_takes_waits(lead: Lead) -> None:
    """It is closed, and the port waits a moment, because the workers do not keep up."""
    lead.start()
    with closing(socket.create_connection(lead.port.socket.getsockname())):
        for each in lead.workforce._workers.values():
            each._socket.close()
        lead.port.doRead()
        assert not lead.port.is_reading
        lead.reactor.advance(1)
        assert lead.port.is_reading
