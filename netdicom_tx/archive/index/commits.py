"""The thread that writes to an index: it performs the tasks that wait together in one transaction.

A commit costs the same for one instance and for fifty, so what has come while the last one was under way shares the
next. A task that fails is tried alone, so that the others of its group do not fail with it. When the database refuses,
everything that waits is refused at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import sqlalchemy as sa

from ..shared import Alone
from .connections import Connections, IndexUnavailableError, attempts, translated
from .engine import DisturbedError, be_brief, begin_to_write, is_conflict, is_loss, is_refusal
from .record import InstanceRecord
from .writer import Writer

__all__ = ["GROUP_LIMIT", "Committer"]

#: How many tasks are performed in one transaction, at most.
GROUP_LIMIT: Final = 64
# For how many seconds a refusal of the database is repeated to callers.
_REFUSES: Final = 1.0


@dataclass(slots=True)
class _Task:
    """A task for the writer, and the future of its result: to add records, or to call a function."""

    records: Sequence[InstanceRecord]
    call: Callable[[sa.Connection], Any] | None
    future: Future[Any]
    #: Whether the records are added only if their instances are not there.
    only_new: bool = False


class Committer:
    """Performs tasks in a thread, from its making until :meth:`close`.

    Args:
        connections: The connections of the index.
        writer: Writes the rows; it is used in the thread only.
        shared: Coordinates the processes that write to the same index.
        check_database: Called before each transaction; what it raises fails the tasks.
    """

    def __init__(
        self,
        connections: Connections,
        writer: Writer,
        shared: Alone,
        check_database: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._writer = writer
        self._shared = shared
        self._check_database = check_database
        self._connection: sa.Connection | None = None  # of the thread
        #: When the database has refused the last transaction, and why; None when it has not.
        self.refusal: tuple[float, BaseException] | None = None
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        # Held when a task is queued, so that none is queued after the None that ends the thread.
        self._closing = threading.Lock()
        self._is_closed = False
        writer.forget()
        self._thread = threading.Thread(target=self._run, name="netdicom-index", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the tasks, and end the thread; blocks."""
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._tasks.put(None)
        self._thread.join()

    def submit(
        self,
        records: Sequence[InstanceRecord] = (),
        call: Callable[[sa.Connection], Any] | None = None,
        *,
        only_new: bool = False,
    ) -> Future[Any]:
        """Have records added, or a function called, in the next transaction.

        Args:
            only_new: Whether the records are added only if their instances are not there.

        Returns:
            Is done when the transaction is committed.

        Raises:
            IndexUnavailableError: The thread is ending.
        """
        task = _Task(records, call, Future(), only_new)
        with self._closing:
            if self._is_closed:
                raise IndexUnavailableError("the index is not open")
            self._tasks.put(task)
        return task.future

    def check(self) -> None:
        """Fail at once when the database has just refused.

        Raises:
            IndexUnavailableError: The database has refused the last transaction, not longer ago than a second.
        """
        refusal = self.refusal
        if refusal is not None and monotonic() - refusal[0] < _REFUSES:
            raise IndexUnavailableError(str(translated(refusal[1])))

    # -- groups of tasks ---------------------------------------------------------------------------

    def _run(self) -> None:
        is_open = True
        while is_open:
            group: list[_Task] = []
            task = self._tasks.get()
            is_open = task is not None
            if task is not None:
                self._join(task, group)
                is_open = self._gather(group, GROUP_LIMIT)
            refusal = self._commit(group)
            if group:
                self.refusal = None if refusal is None else (monotonic(), refusal)
            if refusal is not None and is_open:
                # Tasks that have come in the meantime would wait as long again, and then be refused as well.
                waiting: list[_Task] = []
                is_open = self._gather(waiting, None)
                _fail(waiting, refusal)
        self._leave_connection()

    def _gather(self, group: list[_Task], limit: int | None) -> bool:
        """Take waiting tasks, up to a number; False when the index is being closed."""
        while limit is None or len(group) < limit:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return True
            if task is None:
                return False
            self._join(task, group)
        return True

    @staticmethod
    def _join(task: _Task, group: list[_Task]) -> None:
        if task.future.set_running_or_notify_cancel():
            group.append(task)

    def _leave_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _commit(self, group: Sequence[_Task]) -> BaseException | None:
        """Perform a group of tasks; returns the reason if the database refuses."""
        if not group:
            return None
        try:
            results = self._attempted(group)
        except Exception as error:  # whatever it is, the waiting callers get it
            self._writer.forget()
            self._leave_connection()
            refuses = isinstance(error, IndexUnavailableError) or is_refusal(error)
            if len(group) > 1 and not refuses:
                # One task is at fault. Run alone, it does not make the others fail.
                for number, task in enumerate(group):
                    refusal = self._commit([task])
                    if refusal is not None:
                        _fail(group[number + 1 :], refusal)
                        return refusal
                return None
            if len(group[0].records) > 1 and not refuses:
                return self._add_singly(group[0])
            _fail(group, error)
            return error if refuses else None
        for task, result in zip(group, results, strict=True):
            task.future.set_result(result)
        return None

    def _add_singly(self, many: _Task) -> BaseException | None:
        """Add records one by one; the result names those whose values the database refuses.

        Returns:
            The reason if the database refuses; then the whole task has failed.
        """
        refused: dict[str, BaseException] = {}
        for record in many.records:
            task = _Task((record,), None, Future())
            refusal = self._commit([task])
            if refusal is not None:
                _fail([many], refusal)
                return refusal
            error = task.future.exception()
            if error is not None:
                refused[record.sop_instance_uid] = error
        many.future.set_result(refused)
        return None

    # -- one transaction ---------------------------------------------------------------------------

    def _attempted(self, group: Sequence[_Task]) -> list[Any]:
        """Perform a group of tasks; they are tried again when another process has changed the same rows.

        When the connection is lost, one new connection is tried.
        """
        was_lost = False
        for is_last in attempts(self._connections.engine.dialect.name):
            try:
                return self._transaction(group)
            except (sa.exc.DBAPIError, DisturbedError) as error:
                self._writer.forget()
                self._leave_connection()
                is_lost = is_loss(error)
                if is_last or not (is_conflict(error) or is_lost) or (was_lost and is_lost):
                    raise
                was_lost = was_lost or is_lost
        raise AssertionError("there is a last attempt")

    def _transaction(self, group: Sequence[_Task]) -> list[Any]:
        self._check_database()
        # One connection is kept, because taking one from the pool costs as much as a statement.
        connection = self._connection or self._connections.connect()
        self._connection = connection
        # Adding an instance twice has the same effect as adding it once.
        may_repeat = all(task.call is None for task in group)
        with self._shared.writing() as is_stale:
            return self._connections.transact(
                connection,
                lambda writer: self._perform(writer, group, is_stale),
                may_repeat=may_repeat,
            )

    def _perform(
        self, connection: sa.Connection, group: Sequence[_Task], is_stale: bool
    ) -> list[Any]:
        if self._shared.is_shared:
            begin_to_write(connection)
        be_brief(connection)
        if is_stale:
            self._writer.forget()
        try:
            return self._results(connection, group)
        finally:
            if self._writer.has_changed:
                self._writer.has_changed = False
                self._shared.changed()

    def _results(self, connection: sa.Connection, group: Sequence[_Task]) -> list[Any]:
        results: list[Any] = []
        records: list[InstanceRecord] = []
        new: dict[int, InstanceRecord] = {}  # by the place of their results

        def add() -> None:
            if records:
                self._writer.add(connection, records)
                records.clear()
            if new:
                found = self._writer.add_new(connection, new.values())
                for number, each in new.items():
                    results[number] = found.get((each.sop_instance_uid, str(each.path)))
                new.clear()

        for number, task in enumerate(group):
            if (records and task.only_new) or (new and not task.only_new):
                add()
            if task.call is not None:
                add()
                results.append(task.call(connection))
                continue
            results.append(None)
            if task.only_new:
                new[number] = task.records[0]
            else:
                records += task.records
        add()
        return results


def _fail(group: Sequence[_Task], error: BaseException) -> None:
    for task in group:
        task.future.set_exception(translated(error))
