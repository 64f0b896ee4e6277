"""The index of an archive: one writer that commits in groups, and readers (PS3.4 C).

All methods block, but for :meth:`Index.add` and :meth:`Index.remove`, which return at once with a
:class:`concurrent.futures.Future`. What was added is found by every query that begins after its
future is done. Nothing here knows Twisted.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa

from ...exceptions import NetDICOMError
from .engine import IndexUnusableError, migrate, open_engine
from .record import InstanceRecord, record_of
from .schema import (
    instance,
    patient,
    series,
    study,
)
from .writer import Writer

__all__ = [
    "Counts",
    "Entry",
    "Index",
    "IndexUnavailableError",
    "InstanceRecord",
    "InstanceRef",
    "PathRow",
    "record_of",
]

#: Instances in one transaction.
GROUP_LIMIT: Final = 64


class IndexUnavailableError(NetDICOMError):
    """The database of the index does not answer, or refuses; it may do so again later."""


class InstanceRef(NamedTuple):
    """An instance that is kept, for who sends it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    path: Path
    size: int


class Entry(NamedTuple):
    """A row, for who checks files; the digest is empty when nobody computed it."""

    sop_instance_uid: str
    path: Path
    size: int
    digest: str


class PathRow(NamedTuple):
    """A row, for who compares files; the path is as it stands in the index."""

    path: str
    size: int
    sop_instance_uid: str


class Counts(NamedTuple):
    """How much there is; size in octets of files."""

    patients: int
    studies: int
    series: int
    instances: int
    size: int


_T = TypeVar("_T")


@dataclass(slots=True)
class _Task:
    """Something for the writer, and who waits for it."""

    record: InstanceRecord | None
    call: Callable[[sa.Connection], Any] | None
    future: Future[Any]


class Index:
    """The index in a database.

    Args:
        url: Of SQLAlchemy: ``sqlite:///archive/index.db``.
        root: Paths are kept relative to it, so that an archive can be moved.
        readers: Connections for queries that are kept open.
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
        self._connection: sa.Connection | None = None  # of the writer's thread
        self._writer = Writer(self.path_text)
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # Nothing is put behind the None that ends the thread.
        self._closing = threading.Lock()

    @property
    def url(self) -> str:
        """Of the database, for people: without its password."""
        return sa.engine.make_url(self._url).render_as_string()

    # -- opening and closing -----------------------------------------------------------------------

    def open(self) -> None:
        """Open the database, make or migrate its tables, and start the writer.

        Raises:
            IndexUnusableError: It cannot be opened, or belongs to a newer version.
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
        self._writer.forget()
        self._thread = threading.Thread(target=self._run, name="netdicom-index", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what was given to the writer, and close the database."""
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
        """A path as it stands in the index."""
        return str(path).removeprefix(self._prefix)

    def _path(self, text: str) -> Path:
        return Path(text) if self._root is None else self._root / text

    # -- writing -----------------------------------------------------------------------------------

    def add(self, record: InstanceRecord) -> Future[None]:
        """Put an instance in, or in the place of the one of its UID.

        Returns:
            Done when the row is committed. Fails with :class:`IndexUnavailableError`. Cancelled
            before its transaction begins, the instance is not added.

        Raises:
            IndexUnavailableError: The index is not open.
        """
        return self._submit(record, None)

    def write(self, call: Callable[[sa.Connection], _T]) -> Future[_T]:
        """Have the writer run a call inside a transaction, with others of its group.

        It may be run again when the transaction was rolled back. It must leave the tables of the
        index alone. As :meth:`add` otherwise.

        Returns:
            Done with what the call returned when it is committed.
        """
        return self._submit(None, call)

    def remove(self, sop_instance_uid: str) -> Future[bool]:
        """Take an instance out; the result says whether it was there. As :meth:`add` otherwise."""
        return self.write(lambda writer: self._writer.remove(writer, sop_instance_uid))

    def set_digest(self, sop_instance_uid: str, digest: str) -> Future[None]:
        """Note the digest of a file that had none. As :meth:`add` otherwise."""
        return self.write(lambda writer: self._writer.set_digest(writer, sop_instance_uid, digest))

    def _submit(
        self, record: InstanceRecord | None, call: Callable[[sa.Connection], Any] | None
    ) -> Future[Any]:
        task = _Task(record, call, Future())
        with self._closing:
            if self._thread is None:
                raise IndexUnavailableError("the index is not open")
            self._tasks.put(task)
        return task.future

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = []
            task = self._tasks.get()
            try:
                while task is not None:
                    if task.future.set_running_or_notify_cancel():
                        group.append(task)
                    if len(group) == GROUP_LIMIT:
                        break
                    task = self._tasks.get_nowait()
                else:
                    is_open = False
            except queue.Empty:
                pass
            self._commit(group)
        self._leave_connection()

    def _leave_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _commit(self, group: Sequence[_Task]) -> None:
        if not group:
            return
        try:
            results = self._transaction(group)
        except Exception as error:  # whatever it is, it belongs to who waits
            self._writer.forget()
            self._leave_connection()
            is_lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
            if len(group) > 1 and not is_lost:
                # One of them is at fault: alone, it fails none of its neighbours.
                for task in group:
                    self._commit([task])
                return
            for task in group:
                task.future.set_exception(_translated(error))
            return
        for task, result in zip(group, results, strict=True):
            task.future.set_result(result)

    def _transaction(self, group: Sequence[_Task]) -> list[Any]:
        assert self._engine is not None  # it outlives the thread
        results: list[Any] = []
        # The same one again and again: taking one from the pool costs as much as a statement.
        connection = self._connection or self._engine.connect()
        self._connection = connection
        with connection.begin():
            records: list[InstanceRecord] = []
            for task in group:
                if task.record is not None:
                    records.append(task.record)
                    results.append(None)
                    continue
                if records:
                    self._writer.add(connection, records)
                    records = []
                assert task.call is not None  # a task is one or the other
                results.append(task.call(connection))
            if records:
                self._writer.add(connection, records)
        return results

    # -- reading -----------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read with, in one transaction.

        Raises:
            IndexUnavailableError: Also for what goes wrong with the database inside.
        """
        engine = self._engine
        if engine is None:
            raise IndexUnavailableError("the index is not open")
        try:
            with engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise _translated(error) from error

    def get(self, sop_instance_uid: str) -> InstanceRef | None:
        """The instance of a UID."""
        statement = sa.select(*_REF).where(instance.c.sop_instance_uid == sop_instance_uid)
        with self.reading() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else self._ref(row)

    def paths(self) -> Iterator[PathRow]:
        """Every file of the index, in the order of the paths' code points.

        Holds a connection until its end.
        """
        statement = sa.select(instance.c.path, instance.c.size, instance.c.sop_instance_uid)
        with self.reading() as connection:
            streaming = connection.execution_options(stream_results=True)
            rows = streaming.execute(statement.order_by(instance.c.path))
            for part in rows.partitions(4096):
                yield from map(PathRow._make, part)

    def entries(self) -> Iterator[Entry]:
        """Every instance with its file; holds nothing in between, so that it may take hours."""
        last = 0
        while True:
            with self.reading() as connection:
                rows = connection.execute(_ENTRIES, {"last": last}).all()
            if not rows:
                return
            for row_id, uid, path, size, digest in rows:
                last = row_id
                yield Entry(uid, self._path(path), size, digest)

    def counts(self) -> Counts:
        """How much there is."""
        numbers = [sa.select(sa.func.count()).select_from(each) for each in _TABLES]
        size = sa.select(sa.func.coalesce(sa.func.sum(instance.c.size), 0))
        with self.reading() as connection:
            return Counts(*(int(connection.scalar(each) or 0) for each in (*numbers, size)))

    def refs(self, connection: sa.Connection, ids: Sequence[int]) -> list[InstanceRef]:
        """The instances of some rows, in the order of the rows' numbers."""
        rows = connection.execute(_REFS, {"ids": list(ids)}).all()
        return [self._ref(row) for row in sorted(rows, key=_last)]

    def _ref(self, row: Sequence[Any]) -> InstanceRef:
        sop_class_uid, uid, transfer_syntax, path, size, _ = row
        return InstanceRef(sop_class_uid, uid, transfer_syntax, self._path(path), size)


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
_ENTRIES: Final = (
    sa.select(
        instance.c.id,
        instance.c.sop_instance_uid,
        instance.c.path,
        instance.c.size,
        instance.c.digest,
    )
    .where(instance.c.id > sa.bindparam("last"))
    .order_by(instance.c.id)
    .limit(1000)
)


def _last(row: Sequence[Any]) -> Any:
    return row[-1]


def _reason(error: BaseException) -> str:
    """What the database said, without the statement and its values."""
    original = getattr(error, "orig", None)
    said = error if original is None else original
    return (str(said).splitlines() or [type(said).__name__])[0]


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, sa.exc.SQLAlchemyError):
        return IndexUnavailableError(f"the index refuses: {_reason(error)}")
    return error
