"""What the signals of an operator do to a node."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, signals, verification_scu
from netdicom_tx.fragments import fragment
from netdicom_tx.signals import Signals
from support import doubles
from support.doubles import VERIFICATION
from support.node import Node
from support.processes import eventually


class Reactor(Clock):
    """Notes what it is asked for, and calls what comes from a signal handler when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0
        self.is_running = True
        self._exitSignal: int | None = None
        self._from_handlers: list[Any] = []

    def sigTerm(self, number: int, frame: object) -> None:
        raise AssertionError  # pragma: no cover - ours are in its place

    def sigInt(self, number: int, frame: object) -> None:
        raise AssertionError  # pragma: no cover - ours are in its place

    def callFromThread(self, call: Any, *arguments: Any, **named: Any) -> None:
        self._from_handlers.append((call, arguments, named))

    def turn(self) -> None:
        calls, self._from_handlers = self._from_handlers, []
        for call, arguments, named in calls:
            call(*arguments, **named)

    def stop(self) -> None:
        if not self.is_running:
            raise ReactorNotRunning
        self.stops += 1
        self.is_running = False


class World:
    """A process whose reactor has installed its handlers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reactor = Reactor()
        self.aborted = 0
        self.ended: list[int] = []
        self.at_exit: list[Any] = []
        monkeypatch.setattr("os._exit", self.ended.append)
        monkeypatch.setattr("atexit.register", self.at_exit.append)
        monkeypatch.setattr(signals, "_AT_ONCE", 3600)
        self.signals = Signals(self.reactor, self.abort)

    def abort(self) -> None:
        self.aborted += 1

    def send(self, number: int) -> None:
        signal.raise_signal(number)
        self.reactor.turn()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    made = World(monkeypatch)
    signal.signal(signal.SIGTERM, made.reactor.sigTerm)
    signal.signal(signal.SIGINT, made.reactor.sigInt)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield made
    for timer in threading.enumerate():
        if isinstance(timer, threading.Timer):  # it would end the process of the tests
            timer.cancel()
            timer.join()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_the_reactor(world: World, number: signal.Signals) -> None:
    world.signals.install()
    world.send(number)
    assert (world.reactor.stops, world.aborted, world.ended) == (1, 0, [])
    assert world.at_exit == [], "the exit status is that of the runner, 0"


def test_the_second_signal_aborts_and_the_process_ends_with_status_1(world: World) -> None:
    world.signals.install()
    world.send(signal.SIGTERM)
    world.send(signal.SIGINT)
    assert (world.reactor.stops, world.aborted) == (1, 1)
    (last,) = world.at_exit
    last()
    assert world.ended[-1] == 1


def test_a_process_whose_threads_do_not_end_ends_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reactor waits for its threads, and is not there to do anything."""
    monkeypatch.setattr(signals, "_AT_ONCE", 0.01)
    world.signals.install()
    world.send(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    eventually(lambda: world.ended == [1], "end")


def test_the_third_signal_ends_at_once(world: World) -> None:
    world.signals.install()
    for _ in range(3):
        signal.raise_signal(signal.SIGTERM)
    assert world.ended == [1]


def test_a_signal_while_the_reactor_stops_by_itself_is_no_error(world: World) -> None:
    world.signals.install()
    world.reactor.stop()
    world.send(signal.SIGTERM)
    assert world.reactor.stops == 1


def test_a_node_that_cannot_do_its_work_ends_with_status_1(world: World) -> None:
    """The reactor stops in order."""
    world.signals.fail()
    assert world.reactor.stops == 1
    (last,) = world.at_exit
    last()
    assert world.ended == [1]


def test_a_hang_up_changes_nothing(world: World) -> None:
    world.signals.install()
    world.send(signal.SIGHUP)
    assert (world.reactor.stops, world.aborted, world.ended) == (0, 0, [])


def test_many_hang_ups_are_two(world: World) -> None:
    """The first one at once, the others together a second later: none is lost, and the node serves meanwhile."""
    read: list[float] = []

    def reload() -> str:
        read.append(world.reactor.seconds())
        return "node.toml"

    Signals(world.reactor, world.abort, reload).install()
    for _ in range(100):
        world.send(signal.SIGHUP)
    assert read == [0]
    world.reactor.advance(1)
    assert read == [0, 1]
    world.reactor.advance(4)
    world.send(signal.SIGHUP)
    assert read == [0, 1, 5]


def test_a_signal_that_comes_before_the_reactor_runs_is_not_lost(world: World) -> None:
    """The node says where it listens a moment before."""
    for number, default in (
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    ):
        signal.signal(number, default)
    world.signals.install()
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, world.reactor.sigTerm)
    world.signals.install()
    world.reactor.turn()
    assert (world.reactor.stops, world.ended) == (1, [])
    world.send(signal.SIGTERM)
    assert world.aborted == 1


def test_a_signal_that_the_reactor_has_taken_ends_with_status_0_too(world: World) -> None:
    """It has its own handlers for a moment, and would end the process by the signal."""
    world.reactor._exitSignal = signal.SIGTERM
    world.signals.install()
    assert world.reactor._exitSignal is None
    world.send(signal.SIGTERM)
    assert (world.reactor.stops, world.aborted) == (0, 1), "it is the second one"


def test_the_handlers_are_given_back(world: World) -> None:
    world.signals.install()
    world.signals.uninstall()
    assert signal.getsignal(signal.SIGTERM) == world.reactor.sigTerm
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    world.signals.install()
    world.send(signal.SIGTERM)
    world.signals.uninstall()
    assert signal.getsignal(signal.SIGTERM) != world.reactor.sigTerm, "a second one may follow"


def test_the_handlers_of_others_stay(world: World) -> None:
    """A program that handles signals itself, and a process under nohup."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    world.signals.install()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) != world.reactor.sigInt
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Signals(world.reactor, world.abort).install()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_thread_installs_nothing(world: World) -> None:
    """Python lets only the main thread do so."""
    thread = threading.Thread(target=world.signals.install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == world.reactor.sigTerm


@pytest.mark.slow
class ProcessTests(TestCase):
    """``twistd -n dicom`` as a process."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.running = Node(tmp_path)
        yield
        self.running.kill()

    async def peer(self) -> doubles.RawPeer:
        """An association with a peer that says what the test says."""
        endpoint = clientFromString(reactor, self.running.address.endpoint)
        peer = await connectProtocol(endpoint, doubles.RawPeer())
        peer.send(
            doubles.request({VERIFICATION: [doubles.IMPLICIT], doubles.CT: [doubles.IMPLICIT]})
        )
        await self.until(lambda: peer.kinds() == [doubles.AC], "acceptance")
        return peer

    async def until(self, condition: Any, what: str) -> None:
        """Wait for a condition, while the reactor of the test runs."""
        await deferToThread(eventually, condition, what)

    async def test_a_silent_idle_peer_is_aborted_after_a_second(self) -> None:
        """PS3.8 7.2, 7.3: A-RELEASE-RQ, one second, A-ABORT."""
        self.running.start()
        peer = await self.peer()
        await deferToThread(self.running.stop)
        await self.until(lambda: peer.is_lost, "end of the connection")
        assert peer.kinds() == [doubles.RELEASE_RQ, doubles.ABORT]

    async def test_a_hang_up_does_not_end_the_node(self) -> None:
        self.running.start()
        os.kill(self.running.pid, signal.SIGHUP)
        await self.until(lambda: "nothing to reload" in self.running.log, "line")
        ae = AE("SCU").add_scu(verification_scu)
        remote = RemoteAE("X", self.running.address.endpoint)
        async with await ae.request_association(remote) as asce:
            assert await asce.get_scu(VERIFICATION)() == 0x0000
        await deferToThread(self.running.stop)

    async def test_a_second_signal_does_not_wait_for_operations(self) -> None:
        """PS3.8 7.3: A-ABORT to all, and exit status 1."""
        self.running.start()
        peer = await self.peer()
        store = doubles.store_rq(data=bytes(17 * 65530))
        pdus = list(fragment(store, context_id=3, limit=1 << 16))
        # The file begins when the last of these has been read, for they are just more than is kept in memory. Octets
        # that were not read would let the system reset the connection, which overtakes the A-ABORT.
        peer.send(*pdus[:-1])
        await self.until(lambda: any(self.running.storage.rglob("incoming/*")), "begin of the file")
        os.kill(self.running.pid, signal.SIGTERM)
        await self.until(lambda: "ending in order" in self.running.log, "line")
        os.kill(self.running.pid, signal.SIGTERM)
        await deferToThread(self.running.ended_with, 1)
        await self.until(lambda: peer.is_lost, "end of the connection")
        assert peer.kinds() == [doubles.ABORT]
        assert "aborting all associations" in self.running.log
        assert "Traceback" not in self.running.log
