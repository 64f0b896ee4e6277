"""The outbound queue: what is owed is kept, tried again, and performed in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time as clocks
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from netdicom_tx.archive.group.members import DEAD_AFTER
from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.workflow.outbound import (
    ATTEMPTS,
    DEAD,
    LEASE,
    PER_DESTINATION,
    RUNNING,
    WAITING,
    GiveUpError,
    NotYetError,
    Queue,
    Task,
    owner_of,
)
from netdicom_tx.exceptions import ConnectionLostError
from support.archive.databases import PostgreSQL, database_url, is_sqlite
from support.archive.queues import KINDS, START, Group, Time, claim, nothing, put
from support.archive.queues import database as database
from support.archive.queues import group as group
from support.archive.queues import queue as queue
from support.archive.queues import time as time


def test_a_task_whose_owner_was_killed_is_not_said_to_run(queue: Queue, time: Time) -> None:
    """And it can be tried again or dropped, also when no node is there that would take it back."""
    number = put(queue)
    claim(queue)
    time.advance(LEASE)
    assert [task.state for task in queue.list()] == [RUNNING]
    assert queue.figures()[:3] == (0, 1, 0)
    assert queue.drop([number]).result() == queue.retry([number]).result() == 0
    time.advance(1)
    assert [task.state for task in queue.list()] == [WAITING]
    assert queue.list(RUNNING) == []
    assert queue.list(WAITING) == queue.list()
    assert queue.figures()[:3] == (1, 0, 0)
    assert queue.retry([number]).result() == 1
    assert claim(queue).attempt == 1
    time.advance(LEASE + 1)
    assert queue.drop([number]).result() == 1
    assert queue.list() == []


def test_its_time_is_that_of_the_clock_that_all_nodes_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this machine may jump while the node runs."""
    database = EngineDatabase(PostgreSQL.running().url(str(tmp_path)))
    right = clocks.time
    monkeypatch.setattr(clocks, "time", lambda: right() + 86400)
    assert abs(Queue(database, "node-1").time() - right()) < 3600
    database.close()


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
    assert queue.next_due(KINDS) == 5
    time.advance(10)
    assert queue.next_due(KINDS) == 0
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
        assert queue.next_due(KINDS) == 15
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


@pytest.mark.parametrize("worker", [None, 3])
def test_the_tasks_of_a_dead_node_are_free_before_their_leases_run_out(
    group: Group, time: Time, worker: int | None
) -> None:
    """A worker dies with its node."""
    a, b = group.queues
    if worker is not None:
        a.owner = owner_of(a.owner, worker)
    put(a)
    number = claim(a).id
    time.advance(DEAD_AFTER)
    assert nothing(b)
    time.advance(1)
    assert claim(b).id == number


def test_the_tasks_of_a_node_that_lives_are_its_own(group: Group, time: Time) -> None:
    """The same for one that has been taken for dead, and still renews its leases."""
    a, b = group.queues
    put(a)
    number = claim(a).id
    time.advance(DEAD_AFTER + 1)
    group.saw(0)
    assert nothing(b)
    time.advance(LEASE - DEAD_AFTER - 1)
    a.renew([number]).result()
    time.advance(DEAD_AFTER)
    assert nothing(b)


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
    alone, other = put(queue), put(queue, destination="OTHER", chain="another")
    assert [claim(queue).id for _ in range(3)] == [create, alone, other]
    assert nothing(queue)
    assert queue.next_due(KINDS) is None
    queue.failed(queue.list(RUNNING)[0], ConnectionLostError("refused")).result()
    assert queue.next_due(KINDS) == 15
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
    put(queue, destination="OTHER")
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


def test_a_claim_reads_tasks_in_the_order_of_an_index(
    queue: Queue, database: EngineDatabase
) -> None:
    """A peer that is away leaves a hundred thousand tasks; sorting them took two seconds for each claim."""
    if not is_sqlite():
        pytest.skip("the plan is read as SQLite writes it")
    seen: list[tuple[str, Any]] = []
    put(queue)

    def note(*arguments: Any) -> None:
        _, _, statement, parameters, *_ = arguments
        if statement.startswith("SELECT task.id"):
            seen.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    claim(queue)
    sa.event.remove(database.engine, "before_cursor_execute", note)
    assert seen
    for statement, parameters in seen:
        with database.reading() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        steps = [row[-1] for row in plan if row[1] == 0]
        assert any("ix_task_state" in each for each in steps)
        assert not any("ORDER BY" in each for each in steps)


def test_a_peer_is_not_overrun_by_several_nodes(queue: Queue, time: Time) -> None:
    """What an owner has lost does not count."""
    for _ in range(PER_DESTINATION + 1):
        put(queue)
    other = Queue(queue.database, "node-2", now=time)
    for _ in range(PER_DESTINATION):
        first = claim(queue)
    assert nothing(other)
    elsewhere = put(queue, destination="ELSEWHERE")
    assert claim(other).id == elsewhere
    queue.done(first.id).result()
    assert claim(other).destination == "PEER"
    put(queue)
    assert nothing(other)
    time.advance(LEASE + 1)
    assert claim(other).destination == "PEER"


def test_postgresql_skips_what_others_claim() -> None:
    """Nodes that share a table do not wait for each other."""
    seen: list[str] = []

    class Spy:
        def write(self, call: Callable[[Any], Any]) -> Any:
            class Connection:
                dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

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
    url = database_url(tmp_path / "index.db")
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
