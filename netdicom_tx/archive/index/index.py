"""The index of an archive: one writer that commits in groups, and readers (PS3.4 C).

Methods that write return at once with a :class:`concurrent.futures.Future`; all others block. An instance is found by
every query that begins after the future of :meth:`Index.add` is done. This module does not depend on Twisted.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa

from ...exceptions import NetDICOMError
from .engine import IndexUnusableError, file_of, is_refusal, migrate, open_engine, watched
from .record import InstanceRecord, record_of
from .schema import (
    instance,
    patient,
    series,
    study,
)
from .watch import SearchEndedError, Watch
from .writer import Writer

__all__ = [
    "Counts",
    "Entry",
    "Index",
    "IndexUnavailableError",
    "InstanceRecord",
    "InstanceRef",
    "PathRow",
    "SearchEndedError",
    "Watch",
    "record_of",
]

#: How many instances are added in one transaction, at most.
GROUP_LIMIT: Final = 64
# For how many seconds a refusal of the database holds for those who ask.
_REFUSES: Final = 1.0


class IndexUnavailableError(NetDICOMError):
    """The database of the index does not answer, or refuses. It may work again later."""


class InstanceRef(NamedTuple):
    """The facts about a kept instance that are needed to send it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    path: Path
    size: int


class Entry(NamedTuple):
    """The facts about a file that are needed to check it.

    Attributes:
        digest: The digest of the file; empty when it has not been computed.
        row: The number of the row.
    """

    sop_instance_uid: str
    path: Path
    size: int
    digest: str
    row: int


class PathRow(NamedTuple):
    """The facts that are needed to compare a file with its row; the path has the form that the index stores."""

    path: str
    size: int
    sop_instance_uid: str


class Counts(NamedTuple):
    """How much the index contains; the size is that of all files, in octets."""

    patients: int
    studies: int
    series: int
    instances: int
    size: int


_T = TypeVar("_T")


@dataclass(slots=True)
class _Task:
    """A task for the writer, and the future of its result: to add records, or to call a function."""

    records: Sequence[InstanceRecord]
    call: Callable[[sa.Connection], Any] | None
    future: Future[Any]


class Index:
    """The index in a database.

    Args:
        url: The SQLAlchemy database URL, for example ``sqlite:///archive/index.db``.
        root: The directory that stored paths are relative to, so that the archive can be moved.
        readers: How many connections for queries are kept open.
    """

    def __init__(
        self,
        url: str,
        *,
        root: Path | None = None,
        readers: int = 4,
    ) -> None:
        self._url = url
        self._root = root
        self._prefix = "" if root is None else f"{root}{os.sep}"
        self._readers = readers
        self._engine: sa.Engine | None = None
        self._file: str | None = None
        self._file_identity: tuple[int, int] | None = None
        self._connection: sa.Connection | None = None  # of the writer's thread
        self._writer = Writer(self.path_text)
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # When the database has refused the last transaction, and why.
        self._refusal: tuple[float, BaseException] | None = None
        # Held when a task is queued, so that none is queued after the None that ends the thread.
        self._closing = threading.Lock()
        #: Called before anything is read; it waits until what was acknowledged is in the index.
        self.settle: Callable[[], None] = _nothing

    @property
    def url(self) -> str:
        """The URL of the database without its password, for people to read."""
        return sa.engine.make_url(self._url).render_as_string()

    # -- opening and closing -----------------------------------------------------------------------

    def open(self) -> None:
        """Open the database, create or migrate its tables, and start the writer.

        Raises:
            IndexUnusableError: The database cannot be opened, or a newer version has written it.
        """
        engine = open_engine(self._url, readers=self._readers)
        try:
            migrate(engine)
        except sa.exc.SQLAlchemyError as error:
            engine.dispose()
            raise IndexUnusableError(
                f"the index {engine.url.render_as_string()} cannot be opened: {_reason(error)}"
            ) from error
        except BaseException:
            engine.dispose()
            raise
        self._engine = engine
        self._file = file_of(engine)
        self._file_identity = None if self._file is None else _identity(self._file)
        self._writer.forget()
        self._refusal = None
        self._thread = threading.Thread(target=self._run, name="netdicom-index", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the writer's tasks, and close the database."""
        with self._closing:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._tasks.put(None)
        if thread is not None:
            thread.join()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def __enter__(self) -> Index:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def path_text(self, path: Path) -> str:
        """A path in the form that the index stores."""
        return str(path).removeprefix(self._prefix)

    def _path(self, text: str) -> Path:
        return Path(text) if self._root is None else self._root / text

    # -- writing -----------------------------------------------------------------------------------

    def add(self, record: InstanceRecord) -> Future[None]:
        """Add an instance, or replace the one with the same UID.

        Returns:
            Is done when the row is committed; fails with :class:`IndexUnavailableError`. The instance is not added
            when the future is cancelled before the transaction begins.

        Raises:
            IndexUnavailableError: The index is not open.
        """
        return self._submit((record,), None)

    def add_many(
        self, records: Sequence[InstanceRecord]
    ) -> Future[Mapping[str, BaseException] | None]:
        """Add instances in one transaction. Otherwise this is like :meth:`add`.

        Returns:
            Is done when the rows are committed. The result names the instances whose rows the database refuses
            for what is in them, by SOP Instance UID; it is None when there are none.
        """
        return self._submit(tuple(records), None)

    def write(self, call: Callable[[sa.Connection], _T]) -> Future[_T]:
        """Have the writer call a function inside a transaction, together with other tasks.

        The function may be called again after the transaction was rolled back. It must not write to the tables of
        the index. Otherwise this is like :meth:`add`.

        Returns:
            Is done, with what the function has returned, when the transaction is committed.
        """
        return self._submit((), call)

    def remove(self, sop_instance_uid: str) -> Future[bool]:
        """Remove an instance; the result tells whether it was there. Otherwise this is like :meth:`add`."""
        return self.write(lambda writer: self._writer.remove(writer, sop_instance_uid))

    def set_digest(self, sop_instance_uid: str, digest: str) -> Future[None]:
        """Store the digest of a file that had none. Otherwise this is like :meth:`add`."""
        return self.write(lambda writer: self._writer.set_digest(writer, sop_instance_uid, digest))

    def check(self) -> None:
        """Fail at once when the database has just refused, for callers who would hold up others while they wait.

        Raises:
            IndexUnavailableError: The database has refused the last transaction, not longer ago than a second.
        """
        refusal = self._refusal
        if refusal is not None and monotonic() - refusal[0] < _REFUSES:
            raise IndexUnavailableError(str(_translated(refusal[1])))

    def _submit(
        self, records: Sequence[InstanceRecord], call: Callable[[sa.Connection], Any] | None
    ) -> Future[Any]:
        task = _Task(records, call, Future())
        with self._closing:
            if self._thread is None:
                raise IndexUnavailableError("the index is not open")
            self._tasks.put(task)
        return task.future

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
                self._refusal = None if refusal is None else (monotonic(), refusal)
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
            results = self._transaction(group)
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
        """Add records one by one; the result names those that are refused for what is in them.

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

    def _check_file(self) -> None:
        """Check that the database's file still has its name, because rows written to a deleted file are lost.

        Raises:
            IndexUnavailableError: The database's file was deleted or replaced.
        """
        if self._file is not None and _identity(self._file) != self._file_identity:
            raise IndexUnavailableError(
                f"the file {self._file} of the index was deleted or replaced while the node runs: "
                "restart the node, which makes files and index agree"
            )

    def _transaction(self, group: Sequence[_Task]) -> list[Any]:
        assert self._engine is not None  # it outlives the thread
        self._check_file()
        results: list[Any] = []
        # One connection is kept, because taking one from the pool costs as much as a statement.
        connection = self._connection or self._engine.connect()
        self._connection = connection
        with connection.begin():
            records: list[InstanceRecord] = []
            for task in group:
                if task.call is None:
                    records += task.records
                    results.append(None)
                    continue
                if records:
                    self._writer.add(connection, records)
                    records = []
                results.append(task.call(connection))
            if records:
                self._writer.add(connection, records)
        return results

    # -- reading -----------------------------------------------------------------------------------

    @contextmanager
    def reading(self, watch: Watch | None = None) -> Iterator[sa.Connection]:
        """A connection to read with, in one transaction.

        Args:
            watch: Ends the statements when it is over; the block is one step.

        Raises:
            IndexUnavailableError: The index is not open, or the database fails, also inside the block.
            SearchEndedError: The watch is over.
        """
        engine = self._engine
        if engine is None:
            raise IndexUnavailableError("the index is not open")
        self.settle()
        try:
            with engine.connect() as connection:
                if watch is None:
                    yield connection
                    return
                watch.step()
                with watched(connection, watch):
                    yield connection
        except sa.exc.SQLAlchemyError as error:
            if watch is not None and watch.is_over:
                raise watch.error() from error
            raise _translated(error) from error

    def get(self, sop_instance_uid: str) -> InstanceRef | None:
        """The instance with a SOP Instance UID; None when the index does not have it."""
        statement = sa.select(*_REF).where(instance.c.sop_instance_uid == sop_instance_uid)
        with self.reading() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else self._ref(row)

    def paths(self) -> Iterator[PathRow]:
        """The files of all instances, sorted by the code points of their paths.

        The iteration holds a connection until it ends.
        """
        statement = sa.select(instance.c.path, instance.c.size, instance.c.sop_instance_uid)
        with self.reading() as connection:
            streaming = connection.execution_options(stream_results=True)
            rows = streaming.execute(statement.order_by(instance.c.path))
            for part in rows.partitions(4096):
                yield from map(PathRow._make, part)

    def entries(self, last: int = 0) -> Iterator[Entry]:
        """All instances with their files. The iteration may take hours, for it holds no connection between steps.

        Args:
            last: The iteration begins behind the row with this number.
        """
        while True:
            with self.reading() as connection:
                rows = connection.execute(_ENTRIES, {"last": last}).all()
            if not rows:
                return
            for row_id, uid, path, size, digest in rows:
                last = row_id
                yield Entry(uid, self._path(path), size, digest, row_id)

    def entry(self, sop_instance_uid: str) -> Entry | None:
        """The entry of one instance; None when the index does not have it."""
        statement = _ENTRY.where(instance.c.sop_instance_uid == sop_instance_uid)
        with self.reading() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            return None
        row_id, uid, path, size, digest = row
        return Entry(uid, self._path(path), size, digest, row_id)

    def last_row(self) -> int:
        """The highest number of a row of an instance; 0 when there is none."""
        with self.reading() as connection:
            return int(connection.scalar(sa.select(sa.func.max(instance.c.id))) or 0)

    def counts(self) -> Counts:
        """Count what the index contains."""
        numbers = [sa.select(sa.func.count()).select_from(each) for each in _TABLES]
        size = sa.select(sa.func.coalesce(sa.func.sum(instance.c.size), 0))
        with self.reading() as connection:
            return Counts(*(int(connection.scalar(each) or 0) for each in (*numbers, size)))

    def studies_of(
        self, sop_instance_uids: Sequence[str]
    ) -> list[tuple[str, str, str, str, str, int]]:
        """The studies of instances, one entry for each study and SOP class.

        Returns:
            Study Instance UID, Patient ID, Patient's Name, Accession Number, SOP Class UID, number of the instances.
        """
        found: list[tuple[str, str, str, str, str, int]] = []
        with self.reading() as connection:
            for start in range(0, len(sop_instance_uids), _AT_ONCE):
                part = list(sop_instance_uids[start : start + _AT_ONCE])
                found += (tuple(row) for row in connection.execute(_STUDIES_OF, {"uids": part}))
        return found

    def refs(self, connection: sa.Connection, ids: Sequence[int]) -> list[InstanceRef]:
        """The instances with some row numbers, in the order of these numbers."""
        rows = connection.execute(_REFS, {"ids": list(ids)}).all()
        return [self._ref(row) for row in sorted(rows, key=_last)]

    def _ref(self, row: Sequence[Any]) -> InstanceRef:
        sop_class_uid, uid, transfer_syntax, path, size, _ = row
        return InstanceRef(sop_class_uid, uid, transfer_syntax, self._path(path), size)


# How many values one statement is given.
_AT_ONCE: Final = 500
_STUDY_OF: Final = (
    study.c.study_instance_uid,
    study.c.patient_id,
    study.c.patient_name,
    study.c.accession_number,
    instance.c.sop_class_uid,
)
_STUDIES_OF: Final = (
    sa.select(*_STUDY_OF, sa.func.count())
    .select_from(
        instance.join(series, instance.c.parent_id == series.c.id).join(
            study, series.c.parent_id == study.c.id
        )
    )
    .where(instance.c.sop_instance_uid.in_(sa.bindparam("uids", expanding=True)))
    .group_by(*_STUDY_OF)
)
_TABLES: Final = (patient, study, series, instance)
_REF: Final = (
    instance.c.sop_class_uid,
    instance.c.sop_instance_uid,
    instance.c.available_transfer_syntax_uid,
    instance.c.path,
    instance.c.size,
    instance.c.id,
)
_REFS: Final = sa.select(*_REF).where(instance.c.id.in_(sa.bindparam("ids", expanding=True)))
_ENTRY: Final = sa.select(
    instance.c.id,
    instance.c.sop_instance_uid,
    instance.c.path,
    instance.c.size,
    instance.c.digest,
)
_ENTRIES: Final = (
    _ENTRY.where(instance.c.id > sa.bindparam("last")).order_by(instance.c.id).limit(1000)
)


def _identity(path: str) -> tuple[int, int] | None:
    """What distinguishes a file from a later one with the same name; None when the file does not exist."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _nothing() -> None:
    """Wait for nothing."""


def _last(row: Sequence[Any]) -> Any:
    return row[-1]


def _reason(error: BaseException) -> str:
    """The message of the database, without the statement and its values."""
    original = getattr(error, "orig", None)
    said = error if original is None else original
    return (str(said).splitlines() or [type(said).__name__])[0]


def _fail(group: Sequence[_Task], error: BaseException) -> None:
    for task in group:
        task.future.set_exception(_translated(error))


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, sa.exc.SQLAlchemyError):
        return IndexUnavailableError(f"the index refuses: {_reason(error)}")
    return error
