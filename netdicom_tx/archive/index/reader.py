"""Reads the rows of an index; everything here blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from . import withdrawal
from .connections import Connections, IndexUnavailableError, translated
from .engine import take_time, watched
from .entries import Counts, Entry, Files, InstanceRef, PathRow
from .schema import instance, patient, series, study
from .watch import Watch
from .withdrawal import Standing

__all__ = ["Reader"]


class Reader:
    """The part of an index that reads.

    Args:
        root: The directory that stored paths are relative to.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._connections: Connections | None = None  # while the index is open
        #: Called before anything is read; it waits until what was acknowledged is in the index.
        self.settle: Callable[[], None] = _nothing
        #: Reads the files when they are not files of this machine; set it before the index is opened.
        self.files: Files | None = None

    def _opened(self) -> Connections:
        if self._connections is None:
            raise IndexUnavailableError("the index is not open")
        return self._connections

    def _path(self, text: str) -> Path:
        return Path(text) if self._root is None or self.files is not None else self._root / text

    @contextmanager
    def reading(self, watch: Watch | None = None) -> Iterator[sa.Connection]:
        """A connection to read with, in one transaction.

        Args:
            watch: Ends the statements when it is over; the block is one step.

        Raises:
            IndexUnavailableError: The index is not open, or the database fails, also inside the block.
            SearchEndedError: The watch is over.
        """
        connections = self._opened()
        self.settle()
        try:
            with connections.connect() as connection:
                if watch is None:
                    yield connection
                    return
                watch.step()
                with watched(connection, watch):
                    yield connection
        except sa.exc.SQLAlchemyError as error:
            if watch is not None and watch.is_over:
                raise watch.error() from error
            raise translated(error) from error

    def get(self, sop_instance_uid: str) -> InstanceRef | None:
        """The instance with a SOP Instance UID; None when the index does not have it."""
        statement = sa.select(*_REF).where(instance.c.sop_instance_uid == sop_instance_uid)
        with self.reading() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else self._ref(row)

    def known(self, sop_instance_uids: Sequence[str]) -> set[str]:
        """Those of some SOP Instance UIDs that the index has."""
        found: set[str] = set()
        with self.reading() as connection:
            for start in range(0, len(sop_instance_uids), _AT_ONCE):
                part = list(sop_instance_uids[start : start + _AT_ONCE])
                found.update(connection.scalars(_KNOWN, {"uids": part}))
        return found

    def paths(self) -> Iterator[PathRow]:
        """The files of all instances, sorted by the code points of their paths.

        The iteration holds a connection until it ends.
        """
        statement = sa.select(instance.c.path, instance.c.size, instance.c.sop_instance_uid)
        with self.reading() as connection:
            # All rows are sorted first, and files are indexed between the parts.
            take_time(connection)
            streaming = connection.execution_options(stream_results=True)
            rows = streaming.execute(statement.order_by(instance.c.path))
            for part in rows.partitions(4096):
                yield from map(PathRow._make, part)

    def without_study(self) -> list[str]:
        """The SOP Instance UIDs of instances that lack the UID of a study or of a series; no query finds them."""
        statement = sa.select(instance.c.sop_instance_uid).where(instance.c.parent_id.is_(None))
        with self.reading() as connection:
            return list(connection.scalars(statement.order_by(instance.c.sop_instance_uid)))

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
                yield Entry(uid, self._path(path), size, digest, row_id, self.files)

    def entry(self, sop_instance_uid: str) -> Entry | None:
        """The entry of one instance; None when the index does not have it."""
        statement = _ENTRY.where(instance.c.sop_instance_uid == sop_instance_uid)
        with self.reading() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            return None
        row_id, uid, path, size, digest = row
        return Entry(uid, self._path(path), size, digest, row_id, self.files)

    def digests(self, sop_instance_uids: Sequence[str]) -> dict[str, str]:
        """The digests that the index has of some instances, without waiting for what was acknowledged."""
        connections = self._opened()
        found: dict[str, str] = {}
        try:
            with connections.connect() as connection:
                for start in range(0, len(sop_instance_uids), _AT_ONCE):
                    part = list(sop_instance_uids[start : start + _AT_ONCE])
                    found.update(tuple(row) for row in connection.execute(_DIGESTS, {"uids": part}))
        except sa.exc.SQLAlchemyError as error:
            raise translated(error) from error
        return found

    def standing(self, sop_instance_uids: Collection[str]) -> dict[str, Standing]:
        """What the index has of some instances now, without waiting for what was acknowledged.

        Returns:
            One for each instance that is there, or whose file is to be deleted.

        Raises:
            IndexUnavailableError: The database does not answer.
        """
        connections = self._opened()
        try:
            with connections.connect() as connection:
                return withdrawal.standing(connection, sop_instance_uids)
        except sa.exc.SQLAlchemyError as error:
            raise translated(error) from error

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
        return InstanceRef(sop_class_uid, uid, transfer_syntax, self._path(path), size, self.files)


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
_KNOWN: Final = sa.select(instance.c.sop_instance_uid).where(
    instance.c.sop_instance_uid.in_(sa.bindparam("uids", expanding=True))
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
_DIGESTS: Final = sa.select(instance.c.sop_instance_uid, instance.c.digest).where(
    instance.c.sop_instance_uid.in_(sa.bindparam("uids", expanding=True))
)
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


def _nothing() -> None:
    """Wait for nothing."""


def _last(row: Sequence[Any]) -> Any:
    return row[-1]
