"""Threads for work that blocks."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from netdicom_tx.archive.workers import Rounds, Workers

Done = Future[None]


def done() -> Done:
    future = Done()
    future.set_result(None)
    return future


class BeforeTheStart(SynchronousTestCase):
    """Work that blocks is never done on the reactor thread by mistake."""

    def test_work_is_refused(self) -> None:
        workers = Workers("netdicom-writer", 2)
        called: list[int] = []
        for run in (workers.run, workers.run_then):
            failed: Deferred[None] = run(called.append, 1)
            error = self.failureResultOf(failed, RuntimeError).value
            assert str(error) == (
                "the netdicom-writer threads are not running: start the node first"
            )
        assert called == []

    def test_workers_that_were_never_started_can_be_stopped(self) -> None:
        Workers("netdicom-writer", 2).stop()

    def test_without_threads_the_caller_does_the_work(self) -> None:
        """On request only, for tests without a reactor."""
        workers = Workers("netdicom-writer", 0)
        assert self.successResultOf(workers.run(max, 1, 2)) == 2
        assert self.successResultOf(workers.run_then(lambda: ("kept", None))) == "kept"
        assert self.successResultOf(workers.run_then(lambda: ("kept", done()))) == "kept"
        self.failureResultOf(workers.run(int, "no number"), ValueError)
        self.failureResultOf(workers.run_then(lambda: int("no number")), ValueError)  # type: ignore[arg-type, return-value]


class Started(TestCase):
    """Real threads on the real reactor."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.workers = Workers("netdicom-writer", 2)
        self.workers.start(reactor)  # type: ignore[arg-type]
        self.addCleanup(self.workers.stop)

    async def test_work_is_done_in_a_thread_and_the_result_comes_back(self) -> None:
        names = await self.workers.run(lambda: threading.current_thread().name)
        assert "netdicom-writer" in names
        with pytest.raises(ValueError, match="no number"):
            await self.workers.run(int, "no number")

    async def test_the_result_waits_for_what_another_thread_must_do(self) -> None:
        future = Done()
        kept = self.workers.run_then(lambda: ("kept", future))
        assert not kept.called
        future.set_result(None)
        assert await kept == "kept"
        assert await self.workers.run_then(lambda: ("nothing to wait for", None))

    async def test_a_failure_of_either_part_is_the_failure(self) -> None:
        future = Done()
        future.set_exception(OSError("the disk is full"))
        with pytest.raises(OSError, match="the disk is full"):
            await self.workers.run_then(lambda: ("kept", future))
        with pytest.raises(ValueError, match="no number"):
            await self.workers.run_then(lambda: (int("no number"), None))

    async def test_a_result_that_nobody_wants_any_more_is_forgotten(self) -> None:
        future = Done()
        kept = self.workers.run_then(lambda: ("kept", future))
        kept.addErrback(lambda _: None)
        kept.cancel()
        future.set_result(None)
        assert await self.workers.run(max, 1, 2) == 2

    async def test_stopped_workers_refuse_work_and_can_start_again(self) -> None:
        from twisted.internet import reactor

        self.workers.stop()
        with pytest.raises(RuntimeError, match="not running"):
            await self.workers.run(max, 1, 2)
        self.workers.start(reactor)  # type: ignore[arg-type]
        assert await self.workers.run(max, 1, 2) == 2


class Counted(Rounds):
    """Counts its rounds, and takes two steps in each."""

    name = "counted"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, first=10, retry=3, holds=lambda: self.is_ours, threads=0)
        self.is_ours = True
        self.steps: list[str] = []
        self.failures: list[str] = []
        self.between: Callable[[], object] = lambda: None

    def _do(self) -> float:
        self.steps.append("first")
        self.between()
        self._go_on()
        self.steps.append("second")
        return 60

    def _failed(self, failure: Failure) -> None:
        self.failures.append(failure.getErrorMessage())


class RoundsTests(SynchronousTestCase):
    """What is done again and again ends between two steps, and goes on by itself."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rounds = Counted(self.clock)
        self.rounds.startService()

    def test_a_round_follows_the_other(self) -> None:
        self.clock.advance(10)
        self.clock.advance(59)
        assert self.rounds.steps == ["first", "second"]
        self.clock.advance(1)
        assert self.rounds.steps == ["first", "second"] * 2

    def test_a_round_that_has_failed_is_tried_again_earlier(self) -> None:
        self.rounds.between = lambda: int("no number")
        self.clock.advance(10)
        assert self.rounds.failures == ["invalid literal for int() with base 10: 'no number'"]
        self.rounds.between = lambda: None
        self.clock.advance(3)
        assert self.rounds.steps == ["first", "first", "second"]

    def test_a_round_that_another_node_does_ends_and_is_no_failure(self) -> None:
        self.rounds.is_ours = False
        self.clock.advance(10)
        assert (self.rounds.steps, self.rounds.failures) == (["first"], [])
        self.rounds.is_ours = True
        self.clock.advance(3)
        assert self.rounds.steps == ["first", "first", "second"]

    def test_a_round_of_a_service_that_stops_ends_and_is_the_last(self) -> None:
        self.rounds.between = self.rounds.stopService
        self.clock.advance(10)
        assert (self.rounds.steps, self.rounds.failures) == (["first"], [])
        assert self.clock.getDelayedCalls() == []
