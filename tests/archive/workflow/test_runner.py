"""The runner performs what is due, keeps its leases, and notes how each attempt has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from twisted.internet import defer
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from netdicom_tx.archive.group.members import DEAD_AFTER
from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.workflow.outbound import (
    LEASE,
    PER_DESTINATION,
    POLL,
    RUNNING,
    WAITING,
    GiveUpError,
    NotYetError,
    Queue,
    Task,
    task_table,
)
from netdicom_tx.archive.workflow.runner import CONCURRENCY, NOTE_AGAIN, QueueRunner
from netdicom_tx.exceptions import ConnectionLostError
from netdicom_tx.testing import success_of
from support.archive.queues import KINDS, Group, Time, claim, nothing, put
from support.archive.queues import database as database
from support.archive.queues import group as group
from support.archive.queues import queue as queue
from support.archive.queues import time as time
from support.doubles import logged_lines as logged_lines


class Work:
    """Performers that do what the test says, when it says so."""

    def __init__(self) -> None:
        self.begun: list[Task] = []
        self.open: dict[int, defer.Deferred[None]] = {}

    def __call__(self, task: Task) -> Awaitable[None]:
        self.begun.append(task)
        self.open[task.id] = defer.Deferred()
        return self.open[task.id]

    def finish(self, number: int, result: Any = None) -> None:
        self.open.pop(number).callback(result)


@pytest.fixture
def work() -> Work:
    return Work()


def at_once(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
    return defer.maybeDeferred(call, *arguments)


@pytest.fixture
def runner(queue: Queue, time: Time, work: Work) -> Iterator[QueueRunner]:
    runner = QueueRunner(queue, at_once, dict.fromkeys(KINDS, work))
    yield runner
    success_of(runner.stop())
    assert time.clock.getDelayedCalls() == []


@pytest.fixture(autouse=True)
def failures() -> Iterator[list[str]]:
    """What was logged as an error; a test fails that leaves some behind."""
    seen: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            seen.append(str(event.get("log_failure", event["log_format"])))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)
    assert seen == []


def test_what_is_due_is_performed_and_then_gone(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    number = put(queue)
    runner.start(time.clock)
    assert [task.id for task in work.begun] == [number]
    assert [task.id for task in runner.performing] == [number]
    work.finish(number)
    assert queue.list() == []
    assert runner.performing == []


def test_a_performer_may_be_done_at_once(queue: Queue, time: Time) -> None:
    async def perform(task: Task) -> None:
        return None

    for _ in range(3):
        put(queue)
    runner = QueueRunner(queue, at_once, {"report": perform})
    runner.start(time.clock)
    assert queue.list() == []
    success_of(runner.stop())


def test_what_is_put_in_later_is_performed_when_the_runner_is_woken(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    runner.start(time.clock)
    put(queue)
    assert work.begun == []
    runner.wake()
    assert len(work.begun) == 1
    work.finish(work.begun[0].id)


def test_what_others_put_in_is_found_by_itself(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    """A command, or another node."""
    runner.start(time.clock)
    put(queue)
    time.advance(POLL)
    assert len(work.begun) == 1


def test_what_is_due_later_is_performed_then(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    runner.start(time.clock)
    put(queue, after=3)
    runner.wake()
    time.advance(2.5)
    assert work.begun == []
    time.advance(0.5)
    assert len(work.begun) == 1


def test_the_queue_is_counted(queue: Queue, time: Time) -> None:
    """The age is that of the oldest task that is not dead."""
    assert queue.figures() == (0, 0, 0, None)
    put(queue)
    task = claim(queue)
    queue.failed(task, GiveUpError("never")).result()
    time.advance(10)
    put(queue, claimed=True)
    put(queue)
    put(queue, after=60)
    assert queue.figures() == (2, 1, 1, time())


def test_a_peer_that_is_away_for_long_is_two_lines(
    queue: Queue, runner: QueueRunner, work: Work, time: Time, lines: list[str]
) -> None:
    """However often its task is tried."""
    number = put(queue)
    runner.start(time.clock)
    for _ in range(4):
        work.open.pop(number).errback(ConnectionLostError("nobody is there"))
        while number not in work.open:
            time.advance(POLL)
    work.finish(number)
    about = [each for each in lines if "PEER" in each]
    assert about == [
        f"report {number} for PEER, attempt 1: nobody is there",
        "PEER takes what it is owed again; 4 attempts had failed",
    ]


@pytest.mark.slow
def test_a_peer_that_is_away_is_tried_again(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    number = put(queue)
    runner.start(time.clock)
    work.open.pop(number).errback(ConnectionLostError("refused"))
    (task,) = queue.list(WAITING)
    assert task.last_error == "refused"
    for _ in range(3):
        time.advance(5)
    assert [task.attempt for task in work.begun] == [1, 2]
    work.finish(number)
    assert queue.list() == []


def test_what_a_performer_must_not_raise_is_logged_and_tried_again(
    queue: Queue, runner: QueueRunner, work: Work, time: Time, failures: list[str]
) -> None:
    number = put(queue)
    runner.start(time.clock)
    work.open.pop(number).errback(KeyError("peer"))
    assert [task.state for task in queue.list()] == [WAITING]
    assert [each for each in failures if "KeyError" in each] == failures != []
    failures.clear()


def test_what_is_too_early_is_no_warning(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    number = put(queue)
    runner.start(time.clock)
    work.open.pop(number).errback(NotYetError("incomplete", 3))
    time.advance(3)
    assert [task.attempt for task in work.begun] == [1, 1]


@pytest.mark.slow
def test_a_peer_is_not_overrun(queue: Queue, runner: QueueRunner, work: Work, time: Time) -> None:
    """Neither is this node."""
    numbers = [put(queue, destination="A") for _ in range(PER_DESTINATION + 1)]
    numbers += [put(queue, destination=f"B{n}") for n in range(CONCURRENCY)]
    runner.start(time.clock)
    begun = [task.id for task in work.begun]
    assert len(begun) == CONCURRENCY
    assert numbers[PER_DESTINATION] not in begun
    work.finish(numbers[0])
    assert work.begun[-1].id == numbers[PER_DESTINATION]
    while work.open:
        work.finish(next(iter(work.open)))
    assert queue.list() == []
    assert sorted(task.id for task in work.begun) == numbers


@pytest.mark.slow
def test_leases_are_renewed_while_the_work_goes_on(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    put(queue)
    runner.start(time.clock)
    other = Queue(queue.database, "node-2", now=time)
    for _ in range(20):
        time.advance(LEASE / 3)
        assert nothing(other)
    assert len(work.begun) == 1


def test_a_stopped_runner_leaves_its_work_to_the_next(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    number = put(queue)
    runner.start(time.clock)
    runner.wake()
    success_of(runner.stop())
    assert [task.state for task in queue.list()] == [RUNNING]
    runner.wake()
    time.advance(2 * POLL)
    assert len(work.begun) == 1
    again = QueueRunner(queue, at_once, dict.fromkeys(KINDS, work))
    again.start(time.clock)
    assert [task.id for task in work.begun] == [number, number]
    work.finish(number)
    success_of(again.stop())
    assert queue.list() == []


def test_a_claimed_task_is_performed_in_a_way_of_its_own(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    """As a report on the association of its request; the kind's way is for when that fails."""
    number = put(queue, claimed=True)
    runner.start(time.clock)
    assert [task.id for task in work.begun] == [number]
    work.finish(number)
    number = put(queue, claimed=True)
    own = Work()
    adopted = runner.adopt(number, "report", "CT1", own)
    assert [task.id for task in own.begun] == [number]
    runner.wake()
    assert len(work.begun) == 1
    own.open.pop(number).errback(ConnectionLostError("released"))
    success_of(adopted)
    assert [task.state for task in queue.list()] == [WAITING]


def test_a_claimed_task_that_nobody_adopts_is_claimed_when_its_lease_has_run_out(
    queue: Queue, time: Time
) -> None:
    put(queue, claimed=True)
    time.advance(LEASE + 1)
    assert claim(queue).attempt == 2


def test_a_node_that_stops_leaves_its_tasks_to_the_others(
    group: Group, time: Time, work: Work
) -> None:
    a, b = group.queues
    number = put(a)
    runner = QueueRunner(a, at_once, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    assert nothing(b)
    success_of(runner.stop())
    assert claim(b).id == number


def test_a_node_that_cannot_leave_its_tasks_says_so(
    group: Group, database: EngineDatabase, time: Time, work: Work, lines: list[str]
) -> None:
    """Its leases run out."""
    broken = Broken(database)
    broken.refuses = False
    queue = Queue(broken, "x", now=time)
    queue.join(group.uuids[0])
    put(queue)
    runner = QueueRunner(queue, at_once, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    broken.refuses = True
    success_of(runner.stop())
    assert sum("could not be left to others" in each for each in lines) == 1


def test_a_node_that_was_refused_at_its_start_has_no_tasks_to_leave(
    group: Group, database: EngineDatabase, time: Time, work: Work, lines: list[str]
) -> None:
    broken = Broken(database)
    queue = Queue(broken, "x", now=time)
    queue.join(group.uuids[0])
    success_of(QueueRunner(queue, at_once, dict.fromkeys(KINDS, work)).stop())
    assert not [each for each in lines if "could not be left to others" in each]


def test_a_node_of_a_group_gives_up_before_others_take_it_for_dead(
    group: Group, database: EngineDatabase, time: Time, work: Work, failures: list[str]
) -> None:
    broken = Broken(database)
    broken.refuses = False
    queue = Queue(broken, "x", now=time)
    queue.join(group.uuids[0])
    number = put(group.queues[1])
    runner = QueueRunner(queue, at_once, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    broken.refuses = True
    while runner.performing:
        assert nothing(group.queues[1])
        time.advance(LEASE / 12)
    assert work.open[number].called
    assert nothing(group.queues[1])
    time.advance(DEAD_AFTER)
    assert claim(group.queues[1]).id == number
    success_of(runner.stop())
    failures.clear()


class Broken:
    """A database that refuses, as long as it is told to."""

    def __init__(self, database: EngineDatabase) -> None:
        self._database = database
        self.refuses = True

    def write(self, call: Callable[[sa.Connection], Any]) -> Any:
        if self.refuses:
            raise ConnectionLostError("the database is away")
        return self._database.write(call)

    def reading(self) -> Any:
        return self._database.reading()


def test_a_database_that_refuses_is_asked_again(
    database: EngineDatabase, time: Time, work: Work, failures: list[str]
) -> None:
    broken = Broken(database)
    queue = Queue(broken, "node-1", now=time)
    number = put(Queue(database, "command", now=time))
    runner = QueueRunner(queue, at_once, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    assert len(failures) == 1
    broken.refuses = False
    time.advance(POLL)
    assert [task.id for task in work.begun] == [number]
    broken.refuses = True
    work.finish(number)
    assert len(failures) == 2
    time.advance(NOTE_AGAIN)
    broken.refuses = False
    time.advance(NOTE_AGAIN)
    assert queue.list() == []
    # What was done is not performed again.
    time.advance(LEASE)
    assert [task.attempt for task in work.begun] == [1]
    failures.clear()
    success_of(runner.stop())


def test_a_node_gives_up_what_another_node_may_claim(
    database: EngineDatabase, time: Time, work: Work, failures: list[str], lines: list[str]
) -> None:
    """It cannot renew its lease, because the database does not answer it. No two perform a task at once."""
    broken = Broken(database)
    broken.refuses = False
    number = put(Queue(database, "command", now=time))
    runner = QueueRunner(Queue(broken, "node-1", now=time), at_once, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    broken.refuses = True
    other = Queue(database, "node-2", now=time)
    while runner.performing:
        assert nothing(other)
        time.advance(LEASE / 6)
    assert work.open[number].called
    assert sum("given up" in each for each in lines) == 1
    time.advance(LEASE / 6)
    assert nothing(other)
    time.advance(1)
    assert claim(other).id == number
    failures.clear()
    success_of(runner.stop())


def test_what_is_given_up_is_not_claimed_again_before_its_work_has_ended(
    database: EngineDatabase, time: Time, failures: list[str]
) -> None:
    """The work may take a while to end, for example to release its association, and the lease runs out meanwhile."""
    broken = Broken(database)
    broken.refuses = False
    put(Queue(database, "command", now=time))
    begun: list[int] = []
    ends: defer.Deferred[None] = defer.Deferred()

    async def perform(task: Task) -> None:
        begun.append(task.attempt)
        if task.attempt == 1:
            try:
                await defer.Deferred()
            finally:
                await ends

    runner = QueueRunner(Queue(broken, "node-1", now=time), at_once, {"report": perform})
    runner.start(time.clock)
    broken.refuses = True
    time.advance(LEASE)
    time.advance(1)
    broken.refuses = False
    failures.clear()
    runner.wake()
    assert begun == [1]
    assert [task.attempt for task in runner.performing] == [1]
    ends.callback(None)
    assert begun == [1, 2]
    assert runner.performing == []
    success_of(runner.stop())


def test_a_node_gives_up_what_another_node_has_claimed(
    queue: Queue, runner: QueueRunner, work: Work, time: Time
) -> None:
    """It was stopped for longer than its lease, and does not know."""
    number = put(queue)
    runner.start(time.clock)
    queue.database.write(
        lambda connection: connection.execute(task_table.update().values(owner="node-2"))
    ).result()
    time.advance(LEASE / 6)
    assert work.open[number].called
    assert runner.performing == []
    assert [task.owner for task in queue.list(RUNNING)] == ["node-2"]


def test_an_end_that_cannot_be_noted_while_the_lease_lasts_is_left_to_others(
    database: EngineDatabase, time: Time, work: Work, failures: list[str], lines: list[str]
) -> None:
    broken = Broken(database)
    broken.refuses = False
    number = put(Queue(database, "command", now=time))
    runner = QueueRunner(Queue(broken, "node-1", now=time), at_once, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    broken.refuses = True
    work.finish(number)
    for _ in range(6):
        time.advance(LEASE / 6)
    assert runner.performing == []
    assert sum("could not be noted" in each for each in lines) == 1
    assert sum("cannot be noted" in each for each in lines) == 1
    failures.clear()
    success_of(runner.stop())


def test_a_stopped_runner_does_not_wait_for_a_database_that_is_away(
    database: EngineDatabase, time: Time, work: Work, failures: list[str]
) -> None:
    broken = Broken(database)
    broken.refuses = False
    number = put(Queue(database, "command", now=time))
    runner = QueueRunner(Queue(broken, "node-1", now=time), at_once, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    broken.refuses = True
    work.finish(number)
    failures.clear()
    success_of(runner.stop())
    assert time.clock.getDelayedCalls() == []
    failures.clear()


def test_an_index_that_refuses_for_long_is_two_lines(
    queue: Queue, time: Time, work: Work, failures: list[str], lines: list[str]
) -> None:
    """However often it is asked: it is locked, and that is no fault of the program."""
    refuses = True

    def in_thread(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        if refuses:
            return defer.fail(IndexUnavailableError("the index refuses: database is locked"))
        return at_once(call, *arguments)

    runner = QueueRunner(queue, in_thread, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    for _ in range(3):
        time.advance(POLL)
    refuses = False
    time.advance(POLL)
    assert len(failures) == 1
    failures.clear()
    assert sum("database is locked" in each for each in lines) == 1
    assert sum("can be looked at again" in each for each in lines) == 1
    success_of(runner.stop())


def test_leases_that_cannot_be_renewed_are_said(
    database: EngineDatabase, time: Time, work: Work, failures: list[str]
) -> None:
    broken = Broken(database)
    broken.refuses = False
    runner = QueueRunner(Queue(broken, "node-1", now=time), at_once, dict.fromkeys(KINDS, work))
    put(Queue(database, "command", now=time))
    runner.start(time.clock)
    broken.refuses = True
    time.advance(LEASE / 3)
    assert any("database is away" in each for each in failures)
    failures.clear()
    success_of(runner.stop())


def test_waking_is_not_lost_while_the_table_is_looked_at(
    queue: Queue, time: Time, work: Work
) -> None:
    pending: list[tuple[defer.Deferred[Any], Callable[[], Any]]] = []

    def later(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        waiting: defer.Deferred[Any] = defer.Deferred()
        pending.append((waiting, lambda: call(*arguments)))
        return waiting

    def proceed() -> None:
        waiting, call = pending.pop(0)
        waiting.callback(call())

    runner = QueueRunner(queue, later, dict.fromkeys(KINDS, work))
    runner.start(time.clock)
    proceed()  # recover
    proceed()  # claim: nothing
    put(queue)
    runner.wake()
    proceed()  # when is the next due
    proceed()  # claim
    assert len(work.begun) == 1
    stopped = runner.stop()
    assert not stopped.called
    while pending:
        proceed()
    success_of(stopped)


def test_a_table_that_is_closed_while_the_runner_stops_is_no_error(
    queue: Queue, time: Time
) -> None:
    waiting: list[defer.Deferred[Any]] = []

    def later(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    runner = QueueRunner(queue, later)
    runner.start(time.clock)
    stopped = runner.stop()
    waiting[0].errback(ConnectionLostError("the index is not open"))
    success_of(stopped)


def test_what_is_performed_when_the_runner_stops_is_noted_all_the_same(
    queue: Queue, time: Time, work: Work
) -> None:
    """Else it would be sent twice."""
    pending: list[tuple[defer.Deferred[Any], Callable[[], Any]]] = []

    def later(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        waiting: defer.Deferred[Any] = defer.Deferred()
        pending.append((waiting, lambda: call(*arguments)))
        return waiting

    runner = QueueRunner(queue, later)
    number = put(queue, claimed=True)
    runner.adopt(number, "report", "CT1", work)
    work.finish(number)
    stopped = runner.stop()
    assert not stopped.called
    ((waiting, call),) = pending
    waiting.callback(call())
    success_of(stopped)
    assert queue.list() == []
