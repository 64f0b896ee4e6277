"""The outbound queue of an archive: what it owes to peers, kept until they have it.

A task is a row, which is inserted by the transaction that makes it owed. It is *waiting* until its time has come. The
node that claims it has a *lease* and renews it while it works on the task, so a task whose owner was killed is claimed
again when the lease has run out. A task that fails waits longer each time, with jitter; the first wait is less than a
minute. A task that has failed for days, or cannot succeed, is *dead* and stays for an operator to see.

==========  ==========================================================
waiting     to be claimed when ``not_before`` has come
running     claimed by ``owner``, until ``lease_until``
dead        not to be tried again, unless an operator says so
==========  ==========================================================

A task that is done has no row. Tasks of one *chain* are performed one after the other, in the order in which they were
inserted. A task may be performed twice if its performer was killed before it could report the end, so everything that
is sent must be safe to send again.

:class:`Queue` is the table; it blocks and does not depend on Twisted. :class:`QueueRunner` performs the tasks. Several
nodes may share a table: rows are claimed by ``SELECT ... FOR UPDATE SKIP LOCKED`` where the database has it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ...exceptions import NetDICOMError
from ...logs import Logger
from ..index.database import Database
from ..index.index import IndexUnavailableError
from ..index.schema import big_integer, metadata

__all__ = [
    "DEAD",
    "RUNNING",
    "WAITING",
    "GiveUpError",
    "NotYetError",
    "Performer",
    "Queue",
    "QueueRunner",
    "Task",
    "task_table",
]

WAITING: Final = "waiting"
RUNNING: Final = "running"
DEAD: Final = "dead"

#: Seconds that a claim lasts without being renewed.
LEASE: Final = 60.0
#: Seconds to wait after the first failure. Each further failure doubles them, up to the longest wait.
FIRST_RETRY: Final = 20.0
LONGEST_RETRY: Final = 3600.0
#: Attempts before a task is dead; they take more than two days.
ATTEMPTS: Final = 80
#: Seconds between two looks at the table, for tasks that other nodes have inserted.
POLL: Final = 10.0
#: How many tasks one runner performs at once: in all, and for one peer.
CONCURRENCY: Final = 8
PER_DESTINATION: Final = 2
_ERROR_LENGTH: Final = 400

task_table = sa.Table(
    "task",
    metadata,
    sa.Column("id", big_integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.Text, nullable=False),
    # AE title.
    sa.Column("destination", sa.Text, nullable=False),
    # The tasks of one chain are performed in order; empty means that the order does not matter.
    sa.Column("chain", sa.Text, nullable=False, server_default=""),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    # Seconds since 1970.
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("lease_until", sa.Double, nullable=False, server_default="0"),
    sa.Column("owner", sa.Text, nullable=False, server_default=""),
    sa.Column("last_error", sa.Text, nullable=False, server_default=""),
    sa.Index("ix_task_state", "state", "not_before"),
    sa.Index("ix_task_chain", "chain"),
    # By default, SQLite would give the number of a deleted task to a new one.
    sqlite_autoincrement=True,
)
_C = task_table.c
_EARLIER = task_table.alias("earlier")
# Whether a task is the first of its chain; a task without a chain always is.
_IS_FIRST = sa.or_(
    _C.chain == "",
    sa.not_(
        sa.exists().where(
            _EARLIER.c.chain == _C.chain, _EARLIER.c.id < _C.id, _EARLIER.c.state != DEAD
        )
    ),
)


class GiveUpError(NetDICOMError):
    """A performer raises this when the task can never succeed; the task is dead then.

    Args:
        text: The message.
        comment: The Error Comment of the peer, which is kept with the task; it is not part of the message, because
            messages are logged.
    """

    def __init__(self, text: str, comment: str = "") -> None:
        super().__init__(text)
        self.comment = comment


class NotYetError(NetDICOMError):
    """A performer raises this when it is too early, which does not count as a failure.

    Args:
        seconds: The seconds to the next attempt.
    """

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Task(NamedTuple):
    """A row of the table.

    Attributes:
        kind: The name of its performer.
        destination: The AE title of the peer that it is for.
        attempt: How often it has been claimed, this time included.
        created: Seconds since 1970, as are ``not_before`` and ``lease_until``.
        last_error: The error of the previous attempt, or why the task is dead.
    """

    id: int
    kind: str
    destination: str
    chain: str
    payload: Any  # JSON
    state: str
    attempt: int
    created: float
    not_before: float
    lease_until: float
    owner: str
    last_error: str


class Queue:
    """The table.

    Args:
        owner: The name under which tasks are claimed. It must be the same after a restart, so that the owner can take
            back its own leases.
        now: Returns the seconds since 1970.
        jitter: Returns a random number from 0 to 1.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        *,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.database = database
        self.owner = owner
        self.now = now
        self._jitter = jitter

    # -- what is owed ------------------------------------------------------------------------------

    def put(
        self,
        connection: sa.Connection,
        kind: str,
        destination: str,
        payload: object,
        *,
        chain: str = "",
        after: float = 0.0,
        claimed: bool = False,
    ) -> int:
        """Insert a task, as part of the caller's transaction.

        Args:
            payload: A value that JSON can hold.
            after: The seconds to the first attempt.
            claimed: Whether the caller performs the task itself, by :meth:`QueueRunner.adopt`. If it does not, the
                lease runs out.

        Returns:
            The number of the task.
        """
        now = self.now()
        values = {
            "kind": kind,
            "destination": destination,
            "chain": chain,
            "payload": payload,
            "state": RUNNING if claimed else WAITING,
            "attempt": 1 if claimed else 0,
            "created": now,
            "not_before": now + after,
            "lease_until": now + LEASE if claimed else 0.0,
            "owner": self.owner if claimed else "",
        }
        made = connection.execute(task_table.insert(), values)
        assert made.inserted_primary_key is not None  # it is known when one row was inserted
        return int(made.inserted_primary_key[0])

    # -- performing --------------------------------------------------------------------------------

    def claim(self, *, kinds: Collection[str], busy: Collection[str] = ()) -> Future[Task | None]:
        """Take a task whose time has come, or whose owner does not renew its lease.

        Args:
            kinds: The kinds that can be performed here.
            busy: The destinations that have enough to do.
        """
        now = self.now()
        is_due = sa.or_(
            sa.and_(_C.state == WAITING, _C.not_before <= now),
            sa.and_(_C.state == RUNNING, _C.lease_until < now),
        )
        statement = (
            sa.select(task_table)
            .where(is_due, _C.kind.in_(kinds), _C.destination.not_in(busy), _IS_FIRST)
            .order_by(_C.not_before, _C.id)
            .limit(1)
            .with_for_update(skip_locked=True, of=task_table)
        )
        new: dict[str, Any] = {"state": RUNNING, "owner": self.owner, "lease_until": now + LEASE}

        def call(connection: sa.Connection) -> Task | None:
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            task = Task(*row)
            task = task._replace(**new, attempt=task.attempt + 1)
            values = {**new, "attempt": task.attempt}
            connection.execute(task_table.update().where(_C.id == task.id).values(values))
            return task

        return self.database.write(call)

    def renew(self, ids: Iterable[int]) -> Future[None]:
        """Renew the leases of tasks that are still being performed."""
        until = self.now() + LEASE
        statement = self._own().where(_C.id.in_(list(ids))).values(lease_until=until)
        return self._execute(statement)

    def done(self, task_id: int) -> Future[None]:
        """Note that a task has been performed."""
        return self.database.write(lambda connection: self.finish(connection, task_id))

    def finish(self, connection: sa.Connection, task_id: int) -> None:
        """Note that a task has been performed, as part of the caller's transaction."""
        connection.execute(
            task_table.delete().where(_C.id == task_id, _C.state == RUNNING, _C.owner == self.owner)
        )

    def failed(self, task: Task, error: BaseException) -> Future[None]:
        """Note that a task could not be performed; it waits again, or is dead."""
        comment = getattr(error, "comment", "")
        said = f"{error}: {comment}" if comment else f"{error}"
        reason = said[:_ERROR_LENGTH] or type(error).__name__
        values: dict[str, Any] = {"owner": "", "lease_until": 0.0, "last_error": reason}
        if isinstance(error, NotYetError):
            # This does not count as an attempt.
            values |= {"state": WAITING, "attempt": task.attempt - 1}
            values["not_before"] = self.now() + error.seconds
        elif isinstance(error, GiveUpError) or task.attempt >= ATTEMPTS:
            values["state"] = DEAD
        else:
            values |= {"state": WAITING, "not_before": self.now() + self.back_off(task.attempt)}
        return self._execute(self._own().where(_C.id == task.id).values(values))

    def back_off(self, attempt: int) -> float:
        """The seconds to the next attempt. Half of them are random, so that tasks do not come back all at once."""
        longest = min(FIRST_RETRY * 2.0 ** min(attempt - 1, 30), LONGEST_RETRY)
        return longest * (1 + self._jitter()) / 2

    def recover(self) -> Future[None]:
        """Take back the tasks that this owner was performing when it was killed; called once, at the start."""
        now = self.now()
        return self._execute(self._own().values(state=WAITING, owner="", not_before=now))

    def _own(self) -> sa.Update:
        return task_table.update().where(_C.state == RUNNING, _C.owner == self.owner)

    def _execute(self, statement: sa.Update) -> Future[None]:
        def call(connection: sa.Connection) -> None:
            connection.execute(statement)

        return self.database.write(call)

    # -- for operators -----------------------------------------------------------------------------

    def next_due(self, kinds: Collection[str]) -> float | None:
        """When the next task is due, in seconds since 1970; None when no task waits. Blocks."""
        due = sa.select(sa.func.min(_C.not_before)).where(
            _C.state == WAITING, _C.kind.in_(kinds), _IS_FIRST
        )
        with self.database.reading() as connection:
            found: float | None = connection.scalar(due)
        return found

    def list(self, state: str | None = None) -> list[Task]:
        """All tasks, or those in one state, in the order in which they were inserted. Blocks."""
        statement = sa.select(task_table).order_by(_C.id)
        if state is not None:
            statement = statement.where(_C.state == state)
        with self.database.reading() as connection:
            return [Task(*row) for row in connection.execute(statement)]

    def retry(self, ids: Collection[int] | None = None) -> Future[int]:
        """Let tasks be tried now, as if for the first time; without ``ids``, all dead tasks.

        Returns:
            Fires with the number of tasks.
        """
        chosen = _C.state == DEAD if ids is None else _C.id.in_(ids)
        statement = (
            task_table.update()
            .where(chosen, _C.state != RUNNING)
            .values(state=WAITING, attempt=0, not_before=self.now())
        )
        return self.database.write(lambda connection: connection.execute(statement).rowcount)

    def drop(self, ids: Collection[int]) -> Future[int]:
        """Forget tasks, except those that are being performed.

        Returns:
            Fires with the number of tasks.
        """
        statement = task_table.delete().where(_C.id.in_(ids), _C.state != RUNNING)
        return self.database.write(lambda connection: connection.execute(statement).rowcount)


class _Performance(NamedTuple):
    """A task that is being performed.

    Attributes:
        work: The work of the performer; it is cancelled when the runner stops.
        ended: Fires when the work has ended and its end has been noted.
    """

    task: Task
    work: defer.Deferred[None]
    ended: defer.Deferred[None]


#: Performs a task. It returns when the peer has what it is owed, and raises when the peer does not have it.
Performer = Callable[[Task], Awaitable[object]]


class QueueRunner:
    """Performs the tasks that are due, several at once, each by the performer of its kind.

    Args:
        queue: The table.
        in_thread: Runs a blocking call off the reactor thread.
        performers: The performers by kind. More may be added until :meth:`start`.
    """

    _log = Logger()

    def __init__(
        self,
        queue: Queue,
        in_thread: Callable[..., defer.Deferred[Any]],
        performers: Mapping[str, Performer] | None = None,
    ) -> None:
        self.queue = queue
        self.performers: dict[str, Performer] = dict(performers or {})
        self._clock: IReactorTime | None = None  # while it is started
        self._in_thread = in_thread
        self._running: dict[int, _Performance] = {}
        self._looking: defer.Deferred[None] | None = None
        self._is_refused = False  # by the database, the last time
        self._is_awake = False  # something may have become due since the table was looked at
        self._timer: IDelayedCall | None = None
        self._heart: IDelayedCall | None = None

    # -- running -----------------------------------------------------------------------------------

    def start(self, clock: IReactorTime) -> None:
        """Take back the tasks that were being performed when this owner was killed, and begin."""
        self._clock = clock
        self._beat(clock)
        self._look(self._in_thread(lambda: self.queue.recover().result()))

    def stop(self) -> defer.Deferred[None]:
        """Claim no more tasks, and give up those that are being performed; they stay in the table.

        Returns:
            Fires when no task is being performed.
        """
        self._clock = None
        for timer in (self._timer, self._heart):
            if timer is not None and timer.active():
                timer.cancel()
        running = list(self._running.values())
        waiting = [each.ended for each in running]
        if self._looking is not None:
            waiting.append(self._looking)
        ended = defer.DeferredList([_follow(each) for each in waiting])
        for each in running:
            # A task that has been performed is still noted as done.
            each.work.cancel()
        return ended.addCallback(lambda _: None)

    def wake(self) -> None:
        """Look at the table now, because a task has become due."""
        self._is_awake = True
        if self._clock is not None and self._looking is None:
            self._look(defer.succeed(None))

    def adopt(
        self, task_id: int, kind: str, destination: str, perform: Performer
    ) -> defer.Deferred[None]:
        """Perform a task that was inserted as claimed, by a performer of the caller's own.

        Args:
            kind: The kind with which the task was inserted.
            destination: The destination with which the task was inserted.

        Returns:
            Fires when the attempt is over, whether it succeeded or not.
        """
        now = self.queue.now()
        task = Task(
            id=task_id,
            kind=kind,
            destination=destination,
            chain="",
            payload=None,
            state=RUNNING,
            attempt=1,
            created=now,
            not_before=now,
            lease_until=now + LEASE,
            owner=self.queue.owner,
            last_error="",
        )
        return self._perform(task, perform)

    @property
    def performing(self) -> list[Task]:
        """The tasks that are being performed."""
        return [each.task for each in self._running.values()]

    # -- looking at the table ----------------------------------------------------------------------

    def _look(self, ready: defer.Deferred[Any]) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        # Set before it begins: it may end at once.
        looking: defer.Deferred[None] = defer.Deferred()
        self._looking = looking

        def ended(_: object) -> None:
            self._looking = None
            looking.callback(None)

        defer.Deferred.fromCoroutine(self._look_until_idle(ready)).addBoth(ended)

    async def _look_until_idle(self, ready: defer.Deferred[Any]) -> None:
        due: float | None = None
        try:
            await ready
            self._is_awake = True
            while self._is_awake and self._clock is not None:
                self._is_awake = False
                while self._clock is not None and await self._claim():
                    pass
                kinds = list(self.performers)
                due = await self._in_thread(self.queue.next_due, kinds)
        except IndexUnavailableError as error:
            if self._clock is not None and not self._is_refused:
                self._is_refused = True
                self._log.error(
                    "the queue cannot be looked at: {error}; the node tries again every {seconds:g} s",
                    error=error,
                    seconds=POLL,
                )
        except Exception:  # whatever it is, it may work again soon
            if self._clock is not None:
                self._log.failure("the queue cannot be looked at")
        else:
            if self._is_refused:
                self._is_refused = False
                self._log.info("the queue can be looked at again")
        left = POLL if due is None else due - self.queue.now()
        if self._clock is not None:
            # A task that is due and was not claimed waits for room; the end of another task wakes the runner.
            self._timer = self._clock.callLater(left if 0 < left < POLL else POLL, self.wake)

    async def _claim(self) -> bool:
        """Claim a task that is due and begin to perform it; returns whether there was one."""
        if len(self._running) >= CONCURRENCY:
            return False
        at_work = [task.destination for task in self.performing]
        busy = {each for each in at_work if at_work.count(each) >= PER_DESTINATION}
        kinds = list(self.performers)
        task: Task | None = await self._in_thread(
            lambda: self.queue.claim(kinds=kinds, busy=busy).result()
        )
        if task is not None:
            self._perform(task, self.performers[task.kind])
        return task is not None

    def _beat(self, clock: IReactorTime) -> None:
        self._heart = clock.callLater(LEASE / 3, self._beat, clock)
        if self._running:
            ids = list(self._running)
            self._in_thread(lambda: self.queue.renew(ids).result()).addErrback(
                lambda failure: self._log.failure("leases cannot be renewed", failure)
            )

    # -- performing --------------------------------------------------------------------------------

    def _perform(self, task: Task, perform: Performer) -> defer.Deferred[None]:
        async def work() -> None:
            await perform(task)

        ended: defer.Deferred[None] = defer.Deferred()
        working = defer.Deferred.fromCoroutine(work())
        self._running[task.id] = _Performance(task, working, ended)

        def over(_: object) -> None:
            del self._running[task.id]
            ended.callback(None)
            self.wake()

        defer.Deferred.fromCoroutine(self._see_to_the_end(task, working)).addBoth(over)
        return ended

    async def _see_to_the_end(self, task: Task, working: defer.Deferred[None]) -> None:
        failure: BaseException | None = None
        try:
            await working
        except defer.CancelledError:
            # The runner was stopped. The lease runs out, or is taken back at the next start.
            return
        except Exception as error:  # whatever a peer or a performer raises, the task is kept
            failure = error
            self._tell(task, error)
        try:
            await self._in_thread(self._note, task, failure)
        except Exception:  # whatever the database raises
            # The lease will run out, and the task will be performed again.
            self._log.failure("the end of task {id} cannot be noted", id=task.id)

    def _note(self, task: Task, failure: BaseException | None) -> None:
        noting = self.queue.done(task.id) if failure is None else self.queue.failed(task, failure)
        noting.result()

    def _tell(self, task: Task, error: BaseException) -> None:
        say: Callable[..., None] = self._log.failure
        if isinstance(error, NetDICOMError):
            # A peer that does not answer, or refuses, is not a fault of this program.

            say = self._log.debug if isinstance(error, NotYetError) else self._log.warn
        say(
            "{kind} {id} for {destination}, attempt {attempt}: {error}",
            kind=task.kind,
            id=task.id,
            destination=task.destination,
            attempt=task.attempt,
            error=error,
        )


def _follow(deferred: defer.Deferred[None]) -> defer.Deferred[None]:
    """Fires when another does, and leaves that one its result."""
    following: defer.Deferred[None] = defer.Deferred()

    def fire(result: None) -> None:
        following.callback(None)
        return result

    deferred.addBoth(fire)
    return following
