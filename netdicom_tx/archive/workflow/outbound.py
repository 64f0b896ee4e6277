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
inserted; whoever inserts them holds a lock of its own, such as that of the row that they are about. A task may be
performed twice if its performer was killed before it could report the end, so everything that is sent must be safe to
send again.

:class:`Queue` is the table; it blocks and does not depend on Twisted. :mod:`~netdicom_tx.archive.workflow.runner`
performs the tasks.

Several nodes may share a table on PostgreSQL:

* Rows are claimed by ``SELECT ... FOR UPDATE SKIP LOCKED``, and all times are those of the database server.
* A destination has no more tasks at once than :data:`PER_DESTINATION`, whatever node performs them. Whoever claims a
  task of it holds a lock of the destination while it counts, so that no two nodes count the same.
* The tasks of a node that is dead, see :mod:`~netdicom_tx.archive.group.members`, are free after half a lease. A node
  that could not renew its leases for nearly so long stops what it performs, because another node may claim it then. So
  no two nodes perform a task at the same time.
* Nodes look at the table every :data:`POLL_SHARED` seconds for what others have inserted. There is no ``NOTIFY``: its
  commits wait for each other, and a pool of connections that belong to transactions cannot ``LISTEN``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from ...exceptions import NetDICOMError
from ..group.members import is_dead
from ..index.database import Database
from ..index.schema import big_integer, metadata
from ..index.together import is_server, moment, try_lock

__all__ = [
    "DEAD",
    "RUNNING",
    "WAITING",
    "GiveUpError",
    "NotYetError",
    "Queue",
    "QueueFigures",
    "Task",
    "owner_of",
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
#: Seconds between two looks at the table, for tasks that other programs have inserted.
POLL: Final = 10.0
#: The same on a database that other nodes may share: for what they have inserted, and for a task that is due while
#: others perform as many of its destination as there may be.
POLL_SHARED: Final = 2.0
POLL_BUSY: Final = 0.5
#: How many tasks of one peer are performed at once, by all nodes together.
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
_RUNNING = task_table.alias("running")
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


class QueueFigures(NamedTuple):
    """How many tasks there are.

    Attributes:
        oldest: When the oldest task that is not dead was inserted, in seconds since 1970; None when there is none.
    """

    waiting: int
    running: int
    dead: int
    oldest: float | None


class Queue:
    """The table.

    Args:
        owner: The name under which tasks are claimed. It must be the same after a restart, so that the owner can take
            back its own leases.
        now: Returns the seconds since 1970; None means the clock of the database, or of this machine.
        jitter: Returns a random number from 0 to 1.
        lease: How many seconds a claim lasts without being renewed; the same for all nodes.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        *,
        now: Callable[[], float] | None = None,
        jitter: Callable[[], float] = random.random,
        lease: float = LEASE,
    ) -> None:
        self.database = database
        self.owner = owner
        #: The seconds since 1970, by the clock of this machine.
        self.now = now or time.time
        self.lease = lease
        # How many characters of an owner's name identify its node, in a group.
        self._node_length: int | None = None
        self._jitter = jitter
        self._moment = moment if now is None else lambda _: self.now()

    def join(self, node: str) -> None:
        """Be one of several nodes that know which of them are dead.

        Args:
            node: The UUID of this node, under which tasks are claimed from now on.
        """
        self.owner = node
        self._node_length = len(node)

    def time(self) -> float:
        """The seconds since 1970 by the clock that all nodes have; blocks."""
        with self.database.reading() as connection:
            moment: Any = self._moment(connection)  # a value or an expression
            return float(connection.scalar(sa.select(moment)) or 0.0)

    @property
    def is_of_group(self) -> bool:
        """Whether other nodes may claim the tasks that this one leaves."""
        return self._node_length is not None

    @property
    def held(self) -> float:
        """How many seconds a task is surely this owner's after its lease was renewed."""
        return self.lease / 2 if self.is_of_group else self.lease

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
            claimed: Whether the caller performs the task itself, by
                :meth:`~netdicom_tx.archive.workflow.runner.QueueRunner.adopt`. If it does not, the lease runs out.

        Returns:
            The number of the task.
        """
        now = self._moment(connection)
        values = {
            "kind": kind,
            "destination": destination,
            "chain": chain,
            "payload": payload,
            "state": RUNNING if claimed else WAITING,
            "attempt": 1 if claimed else 0,
            "created": now,
            "not_before": now + after,
            "lease_until": now + self.lease if claimed else 0.0,
            "owner": self.owner if claimed else "",
        }
        made = connection.execute(task_table.insert().values(values))
        assert made.inserted_primary_key is not None  # it is known when one row was inserted
        return int(made.inserted_primary_key[0])

    # -- performing --------------------------------------------------------------------------------

    def claim(
        self,
        *,
        kinds: Collection[str],
        busy: Collection[str] = (),
        performing: Collection[int] = (),
    ) -> Future[Task | None]:
        """Take a task whose time has come, or whose owner does not renew its lease.

        Args:
            kinds: The kinds that can be performed here.
            busy: The destinations that have enough to do.
            performing: The tasks whose work has not ended here, though their leases may have run out.
        """

        def call(connection: sa.Connection) -> Task | None:
            now = self._moment(connection)
            is_held = sa.and_(_RUNNING.c.state == RUNNING, sa.not_(self._is_free(_RUNNING.c, now)))
            full = (
                sa.select(_RUNNING.c.destination)
                .where(is_held)
                .group_by(_RUNNING.c.destination)
                .having(sa.func.count() >= PER_DESTINATION)
            )
            # Two statements are read in the order of the index; one with OR would sort all tasks that are due.
            left = sa.and_(
                _C.state == RUNNING, self._is_free(_C, now), _C.id.not_in(list(performing))
            )
            due = sa.and_(_C.state == WAITING, _C.not_before <= now)
            others = set(busy)
            row = None
            for chosen in (left, due):
                first = (
                    sa.select(task_table)
                    .where(chosen, _C.kind.in_(kinds), _C.destination.not_in(full), _IS_FIRST)
                    .order_by(_C.not_before, _C.id)
                    .limit(1)
                    .with_for_update(skip_locked=True, of=task_table)
                )
                while True:
                    found = first.where(_C.destination.not_in(others))
                    row = connection.execute(found).one_or_none()
                    if row is None or self._takes_place(connection, row.destination, is_held):
                        break
                    others.add(row.destination)
                if row is not None:
                    break
            if row is None:
                return None
            new = {
                "state": RUNNING,
                "owner": self.owner,
                "lease_until": now + self.lease,
                "attempt": _C.attempt + 1,
            }
            claimed = task_table.update().where(_C.id == row.id).values(new).returning(task_table)
            return Task(*connection.execute(claimed).one())

        return self.database.write(call)

    def _takes_place(
        self, connection: sa.Connection, destination: str, is_held: sa.ColumnElement[bool]
    ) -> bool:
        """Whether one more task of a destination may be performed, which no other node decides at the same time."""
        # Whoever claims another task of the destination has this lock until that is committed, so that it is counted.
        if not try_lock(connection, f"task {destination}"):
            return False
        own = _RUNNING.c.destination == destination
        counted = sa.select(sa.func.count()).select_from(_RUNNING).where(is_held, own)
        return (connection.scalar(counted) or 0) < PER_DESTINATION

    def _is_free(self, columns: Any, now: Any) -> sa.ColumnElement[bool]:
        """Whether the owner of a running task has lost it."""
        has_run_out: sa.ColumnElement[bool] = columns.lease_until < now
        if self._node_length is None:
            return has_run_out
        node = sa.func.substr(columns.owner, 1, self._node_length)
        is_left = sa.and_(columns.lease_until < now + (self.lease - self.held), is_dead(node, now))
        return sa.or_(has_run_out, is_left)

    def renew(self, ids: Collection[int]) -> Future[set[int]]:
        """Renew the leases of tasks that are still being performed.

        Returns:
            Fires with the tasks that this owner still has.
        """

        def call(connection: sa.Connection) -> set[int]:
            until = self._moment(connection) + self.lease
            own = self._own().where(_C.id.in_(ids)).values(lease_until=until)
            return set(connection.scalars(own.returning(_C.id)))

        return self.database.write(call)

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
        after: float | None = None
        if isinstance(error, NotYetError):
            # This does not count as an attempt.
            values |= {"state": WAITING, "attempt": task.attempt - 1}
            after = error.seconds
        elif isinstance(error, GiveUpError) or task.attempt >= ATTEMPTS:
            values["state"] = DEAD
        else:
            values["state"] = WAITING
            after = self.back_off(task.attempt)
        own = self._own().where(_C.id == task.id)

        def call(connection: sa.Connection) -> None:
            later = {} if after is None else {"not_before": self._moment(connection) + after}
            connection.execute(own.values({**values, **later}))

        return self.database.write(call)

    def back_off(self, attempt: int) -> float:
        """The seconds to the next attempt. Half of them are random, so that tasks do not come back all at once."""
        longest = min(FIRST_RETRY * 2.0 ** min(attempt - 1, 30), LONGEST_RETRY)
        return longest * (1 + self._jitter()) / 2

    def recover(self, owner: str | None = None) -> Future[None]:
        """Take back the tasks that an owner was performing when it was killed.

        Args:
            owner: A worker that has ended, see :func:`owner_of`. None means this owner and all of its workers; this is
                for the start.
        """
        if owner is not None:
            killed = _C.owner == owner
        else:
            workers = _C.owner.startswith(owner_of(self.owner, ""), autoescape=True)
            killed = sa.or_(_C.owner == self.owner, workers)

        def call(connection: sa.Connection) -> None:
            new = {"state": WAITING, "owner": "", "not_before": self._moment(connection)}
            connection.execute(task_table.update().where(_C.state == RUNNING, killed).values(new))

        return self.database.write(call)

    def _own(self) -> sa.Update:
        return task_table.update().where(_C.state == RUNNING, _C.owner == self.owner)

    # -- for operators -----------------------------------------------------------------------------

    def next_due(self, kinds: Collection[str]) -> float | None:
        """The seconds until the next task is due, none when it has been due; None when no task waits. Blocks."""
        with self.database.reading() as connection:
            return self._next_due(connection, kinds)

    def _next_due(self, connection: sa.Connection, kinds: Collection[str]) -> float | None:
        left = sa.func.min(_C.not_before) - self._moment(connection)
        due = sa.select(left).where(_C.state == WAITING, _C.kind.in_(kinds), _IS_FIRST)
        found: float | None = connection.scalar(due)
        return None if found is None else max(found, 0.0)

    def look_again(self, kinds: Collection[str]) -> float:
        """The seconds until the table is to be looked at again by a runner that has just claimed all it can. Blocks."""
        with self.database.reading() as connection:
            due = self._next_due(connection, kinds)
            is_shared = is_server(connection)
        poll = POLL_SHARED if is_shared else POLL
        if due == 0 and is_shared:
            return POLL_BUSY
        # Alone, a task that is due and was not claimed waits for the end of another, which wakes the runner.
        return min(due or poll, poll)

    def figures(self) -> QueueFigures:
        """How many tasks there are in each state, and how old the oldest is. Blocks."""
        oldest = sa.select(sa.func.min(_C.created)).where(_C.state != DEAD)
        with self.database.reading() as connection:
            state = self._state(connection)
            counted = sa.select(state, sa.func.count()).group_by(state)
            counts = {state: int(count) for state, count in connection.execute(counted)}
            return QueueFigures(
                counts.get(WAITING, 0),
                counts.get(RUNNING, 0),
                counts.get(DEAD, 0),
                connection.scalar(oldest),
            )

    def _state(self, connection: sa.Connection) -> sa.ColumnElement[str]:
        """The state of a task, for people: one whose owner was killed waits when its lease has run out."""
        lost = sa.and_(_C.state == RUNNING, _C.lease_until < self._moment(connection))
        return sa.case((lost, sa.literal_column(f"'{WAITING}'")), else_=_C.state).label("state")

    def list(self, state: str | None = None, limit: int | None = None) -> list[Task]:
        """All tasks, or those in one state, in the order in which they were inserted, up to a number. Blocks."""
        with self.database.reading() as connection:
            found = self._state(connection)
            columns = (found if each is _C.state else each for each in task_table.columns)
            statement = sa.select(*columns).order_by(_C.id).limit(limit)
            if state is not None:
                statement = statement.where(found == state)
            return [Task(*row) for row in connection.execute(statement)]

    def retry(self, ids: Collection[int] | None = None) -> Future[int]:
        """Let tasks be tried now, as if for the first time; without ``ids``, all dead tasks.

        Returns:
            Fires with the number of tasks.
        """
        chosen = _C.state == DEAD if ids is None else _C.id.in_(ids)

        def call(connection: sa.Connection) -> int:
            now = self._moment(connection)
            new = {"state": WAITING, "attempt": 0, "not_before": now, "owner": ""}
            free = sa.or_(_C.state != RUNNING, _C.lease_until < now)
            return connection.execute(task_table.update().where(chosen, free).values(new)).rowcount

        return self.database.write(call)

    def drop(self, ids: Collection[int]) -> Future[int]:
        """Forget tasks, except those that are being performed.

        Returns:
            Fires with the number of tasks.
        """

        def call(connection: sa.Connection) -> int:
            free = sa.or_(_C.state != RUNNING, _C.lease_until < self._moment(connection))
            return connection.execute(task_table.delete().where(_C.id.in_(ids), free)).rowcount

        return self.database.write(call)


def owner_of(node: str, worker: int | str) -> str:
    """The name under which a worker claims tasks, by that of its node."""
    return f"{node}#{worker}"
