"""The outbound queue: what is owed is kept, tried again, and performed in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.workflow.outbound import (
    ATTEMPTS,
    CONCURRENCY,
    DEAD,
    LEASE,
    PER_DESTINATION,
    POLL,
    RUNNING,
    WAITING,
    GiveUpError,
    NotYetError,
    Queue,
    QueueRunner,
    Task,
)
from netdicom_tx.exceptions import ConnectionLostError
from netdicom_tx.testing import success_of
from support.doubles import logged_lines as logged_lines

START = 1_800_000_000.0
KINDS = ["report", "send"]


class Time:
    """A clock for the queue and for Twisted, that agree."""

    def __init__(self) -> None:
        self.clock = Clock()

    def __call__(self) -> float:
        return START + self.clock.seconds()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[EngineDatabase]:
    database = EngineDatabase(f"sqlite:///{tmp_path / 'index.db'}")
    yield database
    database.close()


@pytest.fixture
def queue(database: EngineDatabase, time: Time) -> Queue:
    return Queue(database, "node-1", now=time, jitter=lambda: 0.5)


def put(queue: Queue, kind: str = "report", destination: str = "PEER", **options: Any) -> int:
    payload = options.pop("payload", {"uid": "1.2.3"})
    return queue.database.write(
        lambda connection: queue.put(connection, kind, destination, payload, **options)
    ).result()


def claim(queue: Queue, **options: Any) -> Task:
    task = queue.claim(**{"kinds": KINDS, **options}).result()
    assert task is not None
    return task


def nothing(queue: Queue, **options: Any) -> bool:
    return queue.claim(**{"kinds": KINDS, **options}).result() is None


# -- the table --------------------------------------------------------------------------------------


def test_what_is_put_in_is_claimed_with_all_that_it_says(queue: Queue, time: Time) -> None:
    number = put(queue, chain="c", payload={"uid": "1.2.3", "list": [1, None]})
    task = claim(queue)
    assert task == Task(
        id=number,
        kind="report",
        destination="PEER",
        chain="c",
        payload={"uid": "1.2.3", "list": [1, None]},
        state=RUNNING,
        attempt=1,
        created=time(),
        not_before=time(),
        lease_until=time() + LEASE,
        owner="node-1",
        last_error="",
    )
    assert queue.list() == [task]
    assert nothing(queue)


def test_a_task_of_a_transaction_that_fails_is_not_owed(queue: Queue) -> None:
    def call(connection: sa.Connection) -> None:
        queue.put(connection, "report", "PEER", None)
        raise ValueError("at fault")

    with pytest.raises(ValueError, match="at fault"):
        queue.database.write(call).result()
    assert queue.list() == []


def test_tasks_are_claimed_when_their_time_has_come(queue: Queue, time: Time) -> None:
    late, early = put(queue, after=10), put(queue, after=5)
    assert nothing(queue)
    assert queue.next_due(KINDS) == time() + 5
    time.advance(10)
    assert [claim(queue).id, claim(queue).id] == [early, late]
    assert queue.next_due(KINDS) is None


def test_only_what_can_be_performed_is_claimed(queue: Queue) -> None:
    put(queue, kind="other")
    put(queue, destination="BUSY")
    assert nothing(queue, busy={"BUSY"})
    assert claim(queue).destination == "BUSY"
    assert claim(queue, kinds=["other"]).kind == "other"
    assert queue.next_due(["other"]) is None


def test_what_is_done_is_gone(queue: Queue) -> None:
    put(queue)
    queue.done(claim(queue).id).result()
    assert queue.list() == []


def test_the_number_of_a_task_is_never_anothers(queue: Queue) -> None:
    """SQLite gives the highest one out again; who performs knows tasks by it."""
    numbers = []
    for _ in range(3):
        numbers.append(put(queue))
        queue.done(claim(queue).id).result()
    assert len(set(numbers)) == 3


def test_the_first_retry_comes_within_a_minute(queue: Queue) -> None:
    """Half of the time is chance, so that all peers of a node that was away do not come at once."""
    unlucky, lucky = (Queue(queue.database, "x", jitter=lambda at=at: at) for at in (1.0, 0.0))
    assert lucky.back_off(1) == 10
    assert unlucky.back_off(1) == 20
    assert [lucky.back_off(n) * 2 for n in (1, 2, 3, 4)] == [20, 40, 80, 160]
    assert unlucky.back_off(1_000_000) == 3600


@pytest.mark.slow
def test_what_failed_waits_longer_each_time_and_is_dead_at_last(queue: Queue, time: Time) -> None:
    put(queue)
    for attempt in range(1, ATTEMPTS):
        task = claim(queue)
        assert task.attempt == attempt
        queue.failed(task, ConnectionLostError("refused")).result()
        (task,) = queue.list(WAITING)
        assert task.last_error == "refused"
        assert task.not_before == time() + queue.back_off(attempt)
        assert nothing(queue)
        time.advance(queue.back_off(attempt))
    queue.failed(claim(queue), ConnectionLostError("refused again")).result()
    (task,) = queue.list(DEAD)
    assert task.last_error == "refused again"
    time.advance(1e6)
    assert nothing(queue)
    assert time() - START > 2 * 86400


def test_what_cannot_succeed_is_dead_at_once(queue: Queue) -> None:
    put(queue)
    queue.failed(claim(queue), GiveUpError("status 0x0112")).result()
    assert [task.state for task in queue.list()] == [DEAD]


@pytest.mark.slow
def test_what_is_too_early_was_no_attempt(queue: Queue, time: Time) -> None:
    put(queue)
    for _ in range(2 * ATTEMPTS):
        task = claim(queue)
        assert task.attempt == 1
        queue.failed(task, NotYetError("3 instances are missing", 15)).result()
        assert queue.next_due(KINDS) == time() + 15
        time.advance(15)


def test_an_error_without_words_is_its_name_and_a_long_one_is_cut(queue: Queue) -> None:
    for error, told in ((ValueError(), "ValueError"), (ValueError("x" * 1000), "x" * 400)):
        put(queue)
        queue.failed(claim(queue), error).result()
        assert queue.list()[-1].last_error == told


@pytest.mark.slow
def test_a_lease_that_ran_out_is_claimed_by_another(queue: Queue, time: Time) -> None:
    put(queue)
    claim(queue)
    other = Queue(queue.database, "node-2", now=time)
    time.advance(LEASE)
    assert nothing(other)
    time.advance(1)
    task = claim(other)
    assert (task.owner, task.attempt) == ("node-2", 2)
    # The late worker can no longer change the task.
    queue.done(task.id).result()
    queue.failed(task, ConnectionLostError("late")).result()
    queue.renew([task.id]).result()
    assert other.list() == [task]


def test_a_lease_that_is_renewed_stays(queue: Queue, time: Time) -> None:
    put(queue)
    task = claim(queue)
    time.advance(LEASE)
    queue.renew([task.id]).result()
    time.advance(LEASE)
    assert nothing(Queue(queue.database, "node-2", now=time))


def test_a_restart_takes_back_its_own_leases_and_no_others(queue: Queue, time: Time) -> None:
    first = put(queue)
    claim(queue)
    put(queue)
    claim(Queue(queue.database, "node-2", now=time))
    queue.recover().result()
    assert [task.id for task in queue.list(WAITING)] == [first]
    assert claim(queue).attempt == 2


@pytest.mark.slow
def test_a_chain_is_performed_in_order(queue: Queue, time: Time) -> None:
    """N-SET before its N-CREATE would be refused."""
    create, change = put(queue, chain="step"), put(queue, chain="step")
    alone, other = put(queue), put(queue, chain="another")
    assert [claim(queue).id for _ in range(3)] == [create, alone, other]
    assert nothing(queue)
    assert queue.next_due(KINDS) is None
    queue.failed(queue.list(RUNNING)[0], ConnectionLostError("refused")).result()
    assert queue.next_due(KINDS) == time() + 15
    assert nothing(queue)
    time.advance(15)
    task = claim(queue)
    assert task.id == create
    queue.done(task.id).result()
    assert claim(queue).id == change


def test_what_is_dead_holds_no_chain_up(queue: Queue) -> None:
    put(queue, chain="step")
    change = put(queue, chain="step")
    queue.failed(claim(queue), GiveUpError("refused")).result()
    assert claim(queue).id == change


def test_an_operator_tries_again(queue: Queue, time: Time) -> None:
    """What is dead, or what is named; from the first attempt on."""
    for error in (GiveUpError("refused"), ConnectionLostError("refused")):
        put(queue)
        queue.failed(claim(queue), error).result()
    put(queue)
    running = claim(queue)
    assert queue.retry().result() == 1
    assert claim(queue).attempt == 1
    (late,) = queue.list(WAITING)
    assert queue.retry([late.id, running.id]).result() == 1
    assert claim(queue).id == late.id


def test_an_operator_drops_what_is_not_being_performed(queue: Queue) -> None:
    put(queue)
    running = claim(queue)
    numbers = [put(queue), put(queue)]
    assert queue.drop([*numbers, running.id]).result() == 2
    assert queue.list() == [running]


def test_postgresql_skips_what_others_claim() -> None:
    """Nodes that share a table do not wait for each other."""
    seen: list[str] = []

    class Spy:
        def write(self, call: Callable[[Any], Any]) -> Any:
            class Connection:
                def execute(self, statement: Any) -> Any:
                    seen.append(str(statement.compile(dialect=postgresql.dialect())))  # type: ignore[no-untyped-call]
                    return self

                def one_or_none(self) -> None:
                    return None

            call(Connection())

    Queue(Spy(), "node-1").claim(kinds=KINDS)  # type: ignore[arg-type]
    assert seen[0].endswith("FOR UPDATE OF task SKIP LOCKED")


PROGRAM = """
import sys
from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.workflow.outbound import Queue
queue = Queue(EngineDatabase(sys.argv[1]), "node-1")
queue.database.write(lambda c: queue.put(c, "report", "PEER", {"uid": "1.2.3"})).result()
assert queue.claim(kinds=["report"]).result().attempt == 1
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_task_survives_the_kill_of_who_performs_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'index.db'}"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    database = EngineDatabase(url)
    try:
        queue = Queue(database, "node-1")
        assert nothing(queue)
        queue.recover().result()
        task = claim(queue)
        assert (task.payload, task.attempt) == ({"uid": "1.2.3"}, 2)
    finally:
        database.close()


# -- the runner -------------------------------------------------------------------------------------


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
    assert len(failures) == 3
    time.advance(LEASE / 3)
    broken.refuses = False
    time.advance(LEASE)
    time.advance(POLL)
    assert [task.attempt for task in work.begun] == [1, 2]
    failures.clear()
    success_of(runner.stop())


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
