"""What holds up a reactor is measured, and named in the log."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from netdicom_tx import turns as module
from netdicom_tx.turns import Turns
from support.processes import eventually


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("netdicom_tx.turns"):
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def wait_for(condition: Callable[[], bool]) -> None:
    """Hold up the caller until a condition holds."""
    eventually(lambda: condition() or None, "condition", every=0.001)


class TurnsTests(TestCase):
    """On the reactor of the tests."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, lines: list[str]) -> None:
        self.lines = lines

    def started(self, limit: float) -> Turns:
        turns = Turns(reactor, limit)
        turns.startService()
        self.addCleanup(turns.stopService)
        return turns

    def held_up(self, turns: Turns, condition: Callable[[], bool]) -> Deferred[None]:
        """Hold up the reactor in a turn of its own until a condition holds; fires in a later turn."""
        done: Deferred[None] = Deferred()
        reactor.callLater(0, wait_for, condition)
        reactor.callLater(0, reactor.callLater, 0, done.callback, None)
        return done

    async def test_the_function_that_holds_up_the_reactor_is_named(self) -> None:
        """With the one of ours that has called it, and how long it took."""
        turns = self.started(0.02)
        before = turns.count
        await self.held_up(turns, lambda: len(turns._seen[1]) >= 3)
        assert turns.count > before
        assert turns.longest > 0.02
        assert turns.busy > 0.02
        (line,) = [each for each in self.lines if "eventually" in each]
        assert line.startswith("the reactor was held up for 0.")
        assert "support.processes.eventually (line " in line
        assert line.endswith("; all peers have waited for that")

    async def test_one_cause_has_one_line_a_minute(self) -> None:
        """The next line says how often it happened since."""
        turns = self.started(0.02)
        turns._tell("f", 0.3)
        turns._tell("f", 0.5)
        turns._tell("f", 0.4)
        turns._tell("g", 0.3)
        assert [line.partition(" by ")[2][:1] for line in self.lines] == ["f", "g"]
        turns._told["f"][0] -= module.INTERVAL
        turns._tell("f", 0.3)
        assert self.lines[-1] == (
            "the reactor was held up for 0.30 s by f; 2 times more since the last line, up to 0.50 s; "
            "all peers have waited for that"
        )

    async def test_the_memory_of_causes_is_bounded(self) -> None:
        turns = self.started(1.0)
        for number in range(1000):
            turns._tell(f"cause {number}", 1.0)
        assert len(turns._told) == 256

    async def test_what_never_ends_is_logged_before_it_ends(self) -> None:
        """Once for each turn; otherwise nobody would know why nothing happens any more."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_ENDLESS", 0.03)
            turns = self.started(0.02)

            def is_told() -> bool:
                told = [line for line in self.lines if "no peer is served" in line]
                return len(told) == 1 and len(turns._seen[1]) >= 4

            await self.held_up(turns, is_told)
        assert "the reactor has been held up for 0 s by " in "".join(self.lines)

    async def test_a_short_turn_is_no_warning(self) -> None:
        turns = self.started(1000.0)
        await deferToThread(lambda: None)
        assert 0 < turns.longest < 1000
        assert (turns.count, self.lines) == (0, [])

    async def test_the_reactor_is_given_back(self) -> None:
        """Also when two measure the same one."""
        before = dict(vars(reactor))
        threads = threading.active_count()
        first, second = Turns(reactor), Turns(reactor)
        first.startService()
        second.startService()
        await deferToThread(lambda: None)
        second.stopService()
        first.stopService()
        for name in ("doIteration", "_doReadOrWrite", "runUntilCurrent"):
            assert vars(reactor).get(name) is before.get(name)
        assert not [each for each in threading.enumerate() if each.name == "netdicom-turns"]
        assert threading.active_count() <= threads + 1  # the pool of the reactor may have grown


def test_a_function_in_c_is_named_by_the_connection_that_it_serves(lines: list[str]) -> None:
    """No other thread runs meanwhile, so nobody can look at the stack."""
    turns = Turns(Clock(), 0.02)

    class Port:
        pass

    class Reactor:
        def doIteration(self, delay: object) -> None:
            self._doReadOrWrite(Port(), 1, 1)

        def _doReadOrWrite(self, selectable: object, *event: object) -> None:
            begun = time.monotonic()
            while time.monotonic() - begun < 0.03:
                hashlib.sha256(b"").digest()

        def runUntilCurrent(self) -> None:
            pass

    turns._reactor = Reactor()
    turns._hook()
    turns._reactor.doIteration(0)
    turns._reactor.runUntilCurrent()
    turns._reactor.doIteration(0)
    assert len(lines) == 1
    assert "by a function in C that serves Port; all peers" in lines[0]


def test_a_reactor_that_does_not_poll_is_left_alone() -> None:
    """A clock, or the asyncio reactor."""
    clock = Clock()
    turns = Turns(clock)
    before = dict(vars(clock))
    turns.startService()
    assert vars(clock) == before
    assert turns.longest == 0.0
    turns.stopService()


@pytest.mark.slow
def test_a_turn_costs_next_to_nothing() -> None:
    """A few microseconds; a turn that serves a PDU takes hundreds."""

    def seconds(measured: bool) -> float:
        polls = EPollReactor()
        turns = Turns(polls)
        if measured:
            turns.startService()
        best = 1000.0
        for _ in range(5):
            begun = time.perf_counter()
            for _ in range(2000):
                polls.runUntilCurrent()
                polls.doIteration(0)
            best = min(best, time.perf_counter() - begun)
        turns.stopService()
        for each in polls.removeAll():
            each.connectionLost(None)
        return best / 2000

    without = seconds(measured=False)
    assert seconds(measured=True) - without < 20e-6


def test_what_is_recent_is_of_this_minute_and_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    clock = _Loop()
    turns = Turns(clock)
    turns.startService()

    def turn(seconds: float) -> None:
        nonlocal now
        clock.runUntilCurrent()
        now += seconds
        clock.doIteration(0)

    turn(0.1)
    assert turns.recent() == pytest.approx(0.1)
    turn(0.03)
    now += 60
    assert turns.recent() == pytest.approx(0.1)
    turn(0.05)
    now += 60
    assert turns.recent() == pytest.approx(0.05)
    assert turns.longest == pytest.approx(0.1)
    assert turns.busy == pytest.approx(0.18)
    turns.stopService()


class _Loop:
    """The hooks of a reactor that are measured."""

    def doIteration(self, delay: float) -> None:
        """Wait."""

    def _doReadOrWrite(self, selectable: object) -> None:
        """Serve."""

    def runUntilCurrent(self) -> None:
        """Call what is due."""

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        """Never run."""
