"""Queries of the index: rows that match an identifier, a page at a time (PS3.4 C.4).

:class:`Search` queries the database of an :class:`~netdicom_tx.archive.index.index.Index`. It blocks, and belongs in a
thread. This module does not depend on Twisted.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo
from typing import Any, Final

import sqlalchemy as sa
from pydicom.dataset import Dataset

from ..encoded.values import offset_minutes
from ..index.entries import InstanceRef
from ..index.index import Index
from ..index.record import NO_HEADER, KeptHeader
from ..index.schema import instance, kept_header
from ..index.watch import Watch
from .answers import Answers
from .matching import InformationModel, Query, QueryOptions, find_query, retrieve_query

__all__ = ["Pages", "Search"]

#: How many answers are in one page, and how many headers are read at once.
PAGE: Final = 500
# How many answers are sorted at most; a longer list has the order of the database.
_SORTED: Final = 100_000
_HEADERS: Final = (
    sa.select(instance.c.id, instance.c.available_transfer_syntax_uid, kept_header.c.data)
    .select_from(instance.join(kept_header, kept_header.c.instance_id == instance.c.id))
    .where(instance.c.id.in_(sa.bindparam("ids", expanding=True)))
)


class Pages(Iterator[list[bytes]]):
    """The answers to a C-FIND, a page at a time.

    Each step reads from the database and blocks. Between steps, no connection is held. A page is empty when none of
    its rows has passed, so that the caller can check whether the peer still waits.

    Attributes:
        status: The status of each answer, 0xFF00 or 0xFF01.
    """

    def __init__(self, status: int, pages: Iterator[list[bytes]]) -> None:
        self.status = status
        self._pages = pages

    def __next__(self) -> list[bytes]:
        return next(self._pages)

    def close(self) -> None:
        """End the iteration."""
        self._pages = iter(())


class Search:
    """Answers queries from an index.

    Args:
        index: The index to ask; its owner opens and closes it.
        match_unknown: As for :func:`~netdicom_tx.archive.query.matching.find_query`.
        zone: The time zone of instances that do not name their own; None means the machine's.
    """

    def __init__(
        self, index: Index, *, match_unknown: bool = False, zone: tzinfo | None = None
    ) -> None:
        self._index = index
        self._match_unknown = match_unknown
        self._zone = zone

    def find(
        self,
        identifier: Dataset,
        *,
        model: InformationModel,
        options: QueryOptions,
        transfer_syntax: str,
        retrieve_ae_title: str,
    ) -> Iterator[bytes]:
        """The answers to a C-FIND, one encoded identifier at a time; see :meth:`find_pages`."""
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
        watch: Watch | None = None,
    ) -> Pages:
        """The answers to a C-FIND, a page at a time.

        The ids of all matches are held in memory, eight octets each. Rows are read page by page; an instance that is
        removed in the meantime is left out.

        Args:
            identifier: The identifier of the request.
            model: The information model of the SOP class.
            options: The options that were negotiated.
            transfer_syntax: The transfer syntax of the presentation context.
            retrieve_ae_title: The AE title from which the instances can be retrieved.
            watch: Limits the time of each step, and can end the search from another thread.

        Raises:
            MatchingError: The identifier cannot be answered.
            IndexUnavailableError: The database does not answer. The iteration may raise it, too.
            SearchEndedError: The watch is over; from the iteration.
        """
        query = find_query(identifier, model, options, match_unknown=self._match_unknown)
        answers = Answers(query, transfer_syntax, retrieve_ae_title, self._minutes)
        return Pages(query.pending_status, self._pages(answers, watch or Watch()))

    def _pages(self, answers: Answers, watch: Watch) -> Iterator[list[bytes]]:
        ids = self._ids(answers.query, watch)
        for start in range(0, len(ids), PAGE):
            rows = self._rows(answers, ids[start : start + PAGE], watch)
            yield [answers.encode(row, header) for row, header in rows]

    def matches(
        self,
        identifier: Dataset,
        model: InformationModel,
        options: QueryOptions,
        watch: Watch | None = None,
    ) -> list[InstanceRef]:
        """The instances that a C-MOVE or C-GET asks for, in the order in which they were stored.

        Args:
            identifier: The identifier of the request.
            model: The information model of the SOP class.
            options: The options that were negotiated.
            watch: Limits the time of each step, and can end the search from another thread.

        Raises:
            MatchingError: The identifier cannot be answered.
            IndexUnavailableError: The database does not answer.
            SearchEndedError: The watch is over.
        """
        watch = watch or Watch()
        query = retrieve_query(identifier, model, options, match_unknown=self._match_unknown)
        answers = Answers(query, "", "", self._minutes) if query.has_residual else None
        found = []
        ids = self._ids(query, watch)
        for start in range(0, len(ids), PAGE):
            part = list(ids[start : start + PAGE])
            if answers is not None:
                part = [row[0] for row, _ in self._rows(answers, part, watch)]
            with self._index.reading(watch) as connection:
                found += self._index.refs(connection, part)
        return found

    def _ids(self, query: Query, watch: Watch) -> array[int]:
        found = array("q")
        with self._index.reading(watch) as connection:
            streaming = connection.execution_options(stream_results=True)
            for part in streaming.execute(query.ids()).partitions(8192):
                found.extend(row.id for row in part)
        if len(found) <= _SORTED:
            found = array("q", sorted(found))
        return found

    def _rows(
        self, answers: Answers, ids: Sequence[int], watch: Watch
    ) -> list[tuple[Sequence[Any], KeptHeader]]:
        """The rows of a page that pass, each with the kept header of an instance if it needs one."""
        with self._index.reading(watch) as connection:
            rows = connection.execute(answers.statement(), {"ids": list(ids)}).all()
            by_id = {row[0]: row for row in rows}
            ordered = [by_id[row_id] for row_id in ids if row_id in by_id]
            headers: dict[int | None, KeptHeader] = {}
            if answers.wanted:
                instances = [answers.representative(row) for row in ordered]
                headers = self._headers(connection, instances, answers.wanted)
        pairs: list[tuple[Sequence[Any], KeptHeader]] = [
            (row, headers.get(answers.representative(row), NO_HEADER)) for row in ordered
        ]
        if not answers.query.has_residual:
            return pairs
        passed = []
        for pair in pairs:
            watch.check()
            if answers.accepts(*pair):
                passed.append(pair)
        return passed

    @staticmethod
    def _headers(
        connection: sa.Connection, instances: Sequence[int | None], wanted: frozenset[int]
    ) -> dict[int | None, KeptHeader]:
        ids = [each for each in instances if each is not None]
        rows = connection.execute(_HEADERS, {"ids": ids})
        return {row_id: KeptHeader.of(data, syntax, wanted) for row_id, syntax, data in rows}

    def _minutes(self, text: str, day: str, time: str) -> int:
        """The offset from UTC of an instance in minutes: its own, or that of this node at its date."""
        try:
            return offset_minutes(text)
        except ValueError:
            pass
        try:
            # Without tzinfo, astimezone() takes the time zone of the machine.
            moment = datetime.fromisoformat(f"{day}T{(time or '12')[:4]}")
            offset = moment.replace(tzinfo=self._zone).astimezone(self._zone).utcoffset()
        except (OSError, OverflowError, ValueError):
            return 0
        return 0 if offset is None else int(offset.total_seconds()) // 60
