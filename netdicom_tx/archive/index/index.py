"""The index of an archive: one writer that commits in groups, and readers (PS3.4 C).

All methods block, but for :meth:`Index.add` and :meth:`Index.remove`, which return at once with a
:class:`concurrent.futures.Future`. What was added is found by every query that begins after its
future is done. Nothing here knows Twisted.
"""

from __future__ import annotations

import os
import queue
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa
from pydicom.dataset import Dataset

from ...exceptions import NetDICOMError
from ..encoded.values import offset_minutes
from ..query.answers import Answers
from ..query.matching import InformationModel, Query, QueryOptions, find_query, retrieve_query
from .record import NO_HEADER, Header, InstanceRecord, record_of
from .schema import (
    IndexUnusableError,
    header,
    instance,
    migrate,
    open_engine,
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
    "Pages",
    "PathRow",
    "record_of",
]

#: Instances in one transaction.
GROUP_LIMIT: Final = 64
#: Answers in one page, and instances whose headers are read at once.
PAGE: Final = 500


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


class Pages(Iterator[list[bytes]]):
    """The answers to a C-FIND, a page at a time; nothing is held in the database in between.

    Each step reads and blocks. A page may be empty, when no row of it passed: time to look whether
    anybody still waits.

    Attributes:
        status: Of each answer, 0xFF00 or 0xFF01.
    """

    def __init__(self, status: int, pages: Iterator[list[bytes]]) -> None:
        self.status = status
        self._pages = pages

    def __next__(self) -> list[bytes]:
        return next(self._pages)

    def close(self) -> None:
        """End it in its middle."""
        self._pages = iter(())


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
        match_unknown: As for :func:`~netdicom_tx.archive.query.matching.find_query`.
        zone: The time zone of instances that do not say theirs; None is the machine's.
    """

    def __init__(
        self,
        url: str,
        *,
        root: Path | None = None,
        readers: int = 4,
        match_unknown: bool = True,
        zone: tzinfo | None = None,
    ) -> None:
        self._url = url
        self._root = root
        self._prefix = "" if root is None else f"{root}{os.sep}"
        self._readers = readers
        self._match_unknown = match_unknown
        self._zone = zone
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

    def find(
        self,
        identifier: Dataset,
        *,
        model: InformationModel,
        options: QueryOptions,
        transfer_syntax: str,
        retrieve_ae_title: str,
    ) -> Iterator[bytes]:
        """The answers to a C-FIND, one encoded identifier after the other; see :meth:`find_pages`."""
        pages = self.find_pages(
            identifier,
            model=model,
            options=options,
            transfer_syntax=transfer_syntax,
            retrieve_ae_title=retrieve_ae_title,
        )
        return (each for page in pages for each in page)

    def find_pages(
        self,
        identifier: Dataset,
        *,
        model: InformationModel,
        options: QueryOptions,
        transfer_syntax: str,
        retrieve_ae_title: str,
    ) -> Pages:
        """The answers to a C-FIND, a page at a time.

        What was found is remembered as numbers, eight octets each; rows are read as they are asked
        for. What is removed in the meantime is left out.

        Args:
            transfer_syntax: Of the presentation context.
            retrieve_ae_title: Where instances can be had from.

        Raises:
            MatchingError: The identifier cannot be answered.
            IndexUnavailableError: Also by the iteration.
        """
        query = find_query(identifier, model, options, match_unknown=self._match_unknown)
        answers = Answers(query, transfer_syntax, retrieve_ae_title, self._minutes)
        return Pages(query.pending_status, self._pages(answers))

    def _pages(self, answers: Answers) -> Iterator[list[bytes]]:
        ids = self._ids(answers.query)
        for start in range(0, len(ids), PAGE):
            rows = self._rows(answers, ids[start : start + PAGE])
            yield [answers.encode(row, header) for row, header in rows]

    def matches(
        self, identifier: Dataset, model: InformationModel, options: QueryOptions
    ) -> list[InstanceRef]:
        """The instances that a C-MOVE or C-GET asks for, in the order in which they came.

        Raises:
            MatchingError: The identifier cannot be answered.
            IndexUnavailableError: The database does not answer.
        """
        query = retrieve_query(identifier, model, options, match_unknown=self._match_unknown)
        answers = Answers(query, "", "", self._minutes) if query.has_residual else None
        found = []
        ids = self._ids(query)
        for start in range(0, len(ids), PAGE):
            part = list(ids[start : start + PAGE])
            if answers is not None:
                part = [row[0] for row, _ in self._rows(answers, part)]
            with self.reading() as connection:
                rows = connection.execute(_REFS, {"ids": part}).all()
            found += [self._ref(row) for row in sorted(rows, key=_last)]
        return found

    def _ids(self, query: Query) -> array[int]:
        found = array("q")
        with self.reading() as connection:
            streaming = connection.execution_options(stream_results=True)
            for part in streaming.execute(query.ids()).partitions(8192):
                found.extend(row.id for row in part)
        if len(found) <= _SORTED:
            found = array("q", sorted(found))
        return found

    def _rows(self, answers: Answers, ids: Sequence[int]) -> list[tuple[Sequence[Any], Header]]:
        """The rows of a page that pass, each with the header of an instance where needed."""
        with self.reading() as connection:
            rows = connection.execute(answers.statement(), {"ids": list(ids)}).all()
            by_id = {row[0]: row for row in rows}
            ordered = [by_id[row_id] for row_id in ids if row_id in by_id]
            headers: dict[int | None, Header] = {}
            if answers.wanted:
                instances = [answers.representative(row) for row in ordered]
                headers = self._headers(connection, instances, answers.wanted)
        pairs: list[tuple[Sequence[Any], Header]] = [
            (row, headers.get(answers.representative(row), NO_HEADER)) for row in ordered
        ]
        if not answers.query.has_residual:
            return pairs
        return [pair for pair in pairs if answers.accepts(*pair)]

    @staticmethod
    def _headers(
        connection: sa.Connection, instances: Sequence[int | None], wanted: frozenset[int]
    ) -> dict[int | None, Header]:
        ids = [each for each in instances if each is not None]
        rows = connection.execute(_HEADERS, {"ids": ids})
        return {row_id: Header.of(data, syntax, wanted) for row_id, syntax, data in rows}

    def _ref(self, row: Sequence[Any]) -> InstanceRef:
        sop_class_uid, uid, transfer_syntax, path, size, _ = row
        return InstanceRef(sop_class_uid, uid, transfer_syntax, self._path(path), size)

    def _minutes(self, text: str, day: str, time: str) -> int:
        """The offset from UTC of an instance: its own, or that of this node at its date."""
        try:
            return offset_minutes(text)
        except ValueError:
            pass
        try:
            # Without a zone of its own it is the machine's.
            moment = datetime.fromisoformat(f"{day}T{(time or '12')[:4]}")
            offset = moment.replace(tzinfo=self._zone).astimezone(self._zone).utcoffset()
        except (OSError, OverflowError, ValueError):
            return 0
        return 0 if offset is None else int(offset.total_seconds()) // 60


# Sets of answers that are put in order; a larger one comes as the database has it.
_SORTED: Final = 100_000
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
_HEADERS: Final = (
    sa.select(instance.c.id, instance.c.available_transfer_syntax_uid, header.c.data)
    .select_from(instance.join(header, header.c.instance_id == instance.c.id))
    .where(instance.c.id.in_(sa.bindparam("ids", expanding=True)))
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
