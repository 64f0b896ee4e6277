"""The code that find and worklist share: the query, and how its answers are shown."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from pydicom.dataset import Dataset

from ...applicationentity import AE
from ...asceprovider import ResponseStream
from ...sopclass import modality_work_list_scu, qr_find_scu
from ...statuses import Status
from .failures import ExitCode, StatusFailure
from .keys import Key, text_of
from .options import Common
from .output import Output, counted, printable_line
from .query import Query
from .session import Session, run

__all__ = ["Answers", "answer_format", "run_query"]


class Answers(Protocol):
    """Shows answers as they come."""

    def begin(self, columns: Sequence[Key]) -> None:
        """Called once, before the first answer."""

    async def show(self, found: Dataset) -> None:
        """Show one answer."""

    def end(self, *, is_complete: bool) -> None:
        """Called once, after the last answer.

        Args:
            is_complete: Whether the query has not failed.
        """


class _Rows:
    """Shows answers as a table."""

    def __init__(self, output: Output, has_head: bool) -> None:
        self._output = output
        self._has_head = has_head

    def begin(self, columns: Sequence[Key]) -> None:
        self._columns = columns
        self._table = self._output.table(_heads(columns), has_head=self._has_head)

    async def show(self, found: Dataset) -> None:
        await self._table.stream(text_of(key.values(found)) for key in self._columns)

    def end(self, *, is_complete: bool) -> None:
        self._table.close(is_complete=is_complete)


class _CSV:
    """Shows answers as comma-separated values, quoted where they must be (RFC 4180)."""

    def __init__(self, output: Output, has_head: bool) -> None:
        self._output = output
        self._has_head = has_head

    def begin(self, columns: Sequence[Key]) -> None:
        self._columns = columns

    def _write_head(self) -> None:
        if self._has_head:
            self._has_head = False
            self._output.line(_csv_line(_heads(self._columns)))

    async def show(self, found: Dataset) -> None:
        self._write_head()
        await self._output.stream(_csv_line(text_of(key.values(found)) for key in self._columns))

    def end(self, *, is_complete: bool) -> None:
        if is_complete:
            self._write_head()


def _heads(columns: Sequence[Key]) -> list[str]:
    """The names of the columns: the end of a path, unless two paths have the same end."""
    ends = Counter(key.name.rpartition(".")[2] for key in columns)
    short = [key.name.rpartition(".")[2] for key in columns]
    return [end if ends[end] == 1 else key.name for key, end in zip(columns, short, strict=True)]


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(map(printable_line, cells))
    return line.getvalue()


class _JSON:
    """Shows answers in the DICOM JSON model (PS3.18 Annex F), one on each line."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def begin(self, columns: Sequence[Key]) -> None:
        """A document names its attributes itself."""

    async def show(self, found: Dataset) -> None:
        document = found.to_json_dict(suppress_invalid_tags=True)
        await self._output.stream(json.dumps(document, ensure_ascii=False))

    def end(self, *, is_complete: bool) -> None:
        """Every line is written already."""


def answer_format(output: Output, is_csv: bool, has_head: bool) -> Answers:
    """The view that the options ask for."""
    if output.is_json:
        return _JSON(output)
    return (_CSV if is_csv else _Rows)(output, has_head)


def run_query(
    common: Common, query: Query, wanted: Sequence[Key], limit: int | None, answers: Answers
) -> int:
    """Send a query and show the answers; returns the exit code.

    Args:
        wanted: The keys to return in addition to those of the query.
        limit: The number of answers after which the query is cancelled; None means no limit.
    """
    identifier = query.identifier(wanted)
    columns = [*query.keys, *wanted]

    async def perform(session: Session) -> int:
        answers.begin(columns)
        is_complete = False
        try:
            number, status = await _ask(session, query, identifier, limit, answers)
            is_complete = not status.is_failure
        finally:
            answers.end(is_complete=is_complete)
        if number or not status.is_failure:
            common.output.note(counted(number, "answer"))
        if status.is_failure:
            raise StatusFailure("C-FIND", status)
        return ExitCode.OK

    return run(common, perform)


async def _ask(
    session: Session, query: Query, identifier: Dataset, limit: int | None, answers: Answers
) -> tuple[int, Status]:
    """Send a query; returns the number of answers and the final status."""
    address = session.common.address
    assert address is not None
    sop_class = query.sop_class("C-FIND")
    service = modality_work_list_scu if query.root == "W" else qr_find_scu
    ae = session.ae(AE, address).add_scu(service, [sop_class])
    number, status = 0, Status(0)
    async with session.association(ae, address) as asce:
        stream: ResponseStream[tuple[Dataset | None, Status]]
        stream = asce.get_scu(sop_class)(identifier)
        # After a C-CANCEL the stream is read to its end: the final response comes last.
        with session.on_interrupt(stream.cancel):
            async for found, status in stream:
                if found is None or not status.is_pending:
                    continue
                if session.is_interrupted or (limit is not None and number >= limit):
                    continue
                number += 1
                await answers.show(found)
                if number == limit:
                    stream.cancel()
    return number, status
