"""What the study browser shows, from the index: studies by what they are searched for, series and instances.

Every function blocks and belongs in a thread; the :class:`~netdicom_tx.archive.index.index.Index` is open, and a
:class:`~netdicom_tx.archive.index.watch.Watch` can end the search.

A study, a series and an instance are named by *keys*: the number of the row, and a digest of the UID. Peers choose UIDs
and may put anything into them, and the number alone may be that of another patient's study after a deletion.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa

from ..archive.encoded.values import date_range, fold
from ..archive.index.entries import InstanceRef
from ..archive.index.index import Index
from ..archive.index.schema import instance, protection, series, study
from ..archive.index.watch import Watch

__all__ = [
    "COUNTED",
    "ORDERS",
    "SECONDS",
    "Found",
    "Wanted",
    "instance_of",
    "instances_of",
    "last_row",
    "series_above",
    "series_of",
    "series_with",
    "studies",
    "study_above",
    "study_of",
    "with_file",
]

_T = TypeVar("_T")

#: How many studies are counted at most.
COUNTED: Final = 10_000
#: For how many seconds a search may run.
SECONDS: Final = 10.0
_LONGEST_TEXT: Final = 64

_S, _R, _I = study.c, series.c, instance.c
#: The orders of studies, by their names in a query.
ORDERS: Final[Mapping[str, tuple[Any, ...]]] = {
    "received": (_S.received.desc(), _S.id.desc()),
    "date": (_S.study_date_key.desc(), _S.study_time_key.desc(), _S.id.desc()),
    "name": (_S.patient_name_alphabetic, _S.study_date_key.desc(), _S.id.desc()),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for; an empty text does not matter.

    Attributes:
        name: Parts of the patient's name, in upper or lower case and in any order.
        patient_id: The beginning of a Patient ID, as is ``accession`` of an Accession Number.
        first: The first Study Date, as YYYY-MM-DD; ``last`` is the last one.
        modality: A modality of the study.
    """

    name: str = ""
    patient_id: str = ""
    accession: str = ""
    first: str = ""
    last: str = ""
    modality: str = ""

    @property
    def is_anything(self) -> bool:
        """Whether all studies are wanted."""
        return not any(getattr(self, each.name) for each in fields(self))

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """The clauses for the table of studies.

        Raises:
            ValueError: A date cannot be read; the message is for people.
        """
        found = [_has_name(word) for word in _words(self.name)]
        for column, text in (
            (_S.patient_id, self.patient_id),
            (_S.accession_number, self.accession),
        ):
            if text:
                found.append(_begins(column, text[:_LONGEST_TEXT]))
        if self.first:
            found.append(_S.study_date_key >= _key(self.first))
        if self.last:
            found.append(_S.study_date_key <= _key(self.last))
            found.append(_S.study_date_key != "")
        if self.modality:
            having = sa.select(_R.parent_id).where(
                _R.modality == self.modality[:_LONGEST_TEXT].upper()
            )
            found.append(_S.id.in_(having))
        return found


def _words(text: str) -> list[str]:
    words = fold(text[:_LONGEST_TEXT]).replace("^", " ").replace(",", " ").replace("*", " ").split()
    return words[:8]


def _has_name(word: str) -> sa.ColumnElement[bool]:
    columns = (_S.patient_name_alphabetic, _S.patient_name_ideographic, _S.patient_name_phonetic)
    return sa.or_(*(each.contains(word, autoescape=True) for each in columns))


def _begins(column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
    text = text.rstrip("*")
    clause = column.startswith(text, autoescape=True)
    # The range lets the database use its index.
    return sa.and_(column >= text, column < f"{text}\U0010ffff", clause)


def _key(text: str) -> str:
    try:
        return date_range(text.replace("-", "")).first
    except ValueError as error:
        raise ValueError(f"{text!r:.40} is not a date; expected one such as 2026-11-28.") from error


class Found(NamedTuple):
    """A page of studies.

    Attributes:
        rows: The studies, with what is below each: ``modalities``, ``series``, ``instances`` and ``size``.
        total: How many there are, up to one more than :data:`COUNTED`.
    """

    rows: list[dict[str, Any]]
    total: int


def studies(
    index: Index, watch: Watch, wanted: Wanted, order: str, start: int, count: int
) -> Found:
    """Search for studies.

    Raises:
        ValueError: What is wanted cannot be searched for.
        IndexUnavailableError: The database does not answer.
        SearchEndedError: The search takes too long.
    """
    clauses = wanted.clauses()
    statement = sa.select(*_STUDY).where(*clauses).order_by(*ORDERS[order])
    counted = sa.select(_S.id).where(*clauses).limit(COUNTED + 1).subquery()
    with index.reading(watch) as connection:
        rows = _rows(connection, statement.limit(count).offset(start))
        total = connection.scalar(sa.select(sa.func.count()).select_from(counted)) or 0
        _add_below(connection, rows)
    return Found(rows, total)


def study_of(index: Index, watch: Watch, key: str) -> dict[str, Any] | None:
    """The study with a key; None when there is none."""
    with index.reading(watch) as connection:
        rows = _rows(connection, sa.select(*_STUDY).where(_S.id == _number(key)), key)
        _add_below(connection, rows)
    return rows[0] if rows else None


def study_above(index: Index, watch: Watch, number: int) -> dict[str, Any] | None:
    """The study that a series names as ``parent_id``; None when it is gone."""
    with index.reading(watch) as connection:
        rows = _rows(connection, sa.select(*_STUDY).where(_S.id == number))
    return rows[0] if rows else None


def series_above(index: Index, watch: Watch, number: int) -> dict[str, Any] | None:
    """The series that an instance names as ``parent_id``; None when it is gone."""
    with index.reading(watch) as connection:
        rows = _rows(connection, sa.select(*_SERIES).where(_R.id == number))
    return rows[0] if rows else None


def series_of(index: Index, watch: Watch, study_number: int) -> list[dict[str, Any]]:
    """The series of a study, in the order of their numbers."""
    counts = (sa.func.count(_I.id).label("instances"), sa.func.sum(_I.size).label("size"))
    statement = (
        sa.select(*_SERIES, *counts)
        .select_from(series.outerjoin(instance, _I.parent_id == _R.id))
        .where(_R.parent_id == study_number)
        .group_by(*_SERIES)
        .order_by(_R.id)
        .limit(_MOST)
    )
    with index.reading(watch) as connection:
        rows = _rows(connection, statement)
    return sorted(rows, key=lambda each: _order(each["series_number"]))


def series_with(index: Index, watch: Watch, key: str) -> dict[str, Any] | None:
    """The series with a key, and the number of its study as ``parent_id``; None when there is none."""
    number = _number(key)
    counts = sa.select(sa.func.count()).select_from(instance).where(_I.parent_id == number)
    with index.reading(watch) as connection:
        rows = _rows(connection, sa.select(*_SERIES).where(_R.id == number), key)
        for each in rows:
            each["instances"] = connection.scalar(counts) or 0
    return rows[0] if rows else None


def instances_of(
    index: Index, watch: Watch, series_number: int, start: int, count: int
) -> list[dict[str, Any]]:
    """Instances of a series, in the order of their numbers."""
    # A number is text; shorter numbers are smaller.
    order = (sa.func.length(_I.instance_number), _I.instance_number, _I.id)
    statement = sa.select(*_INSTANCE).where(_I.parent_id == series_number).order_by(*order)
    with index.reading(watch) as connection:
        return _rows(connection, statement.limit(count).offset(start))


def instance_of(index: Index, watch: Watch, key: str) -> dict[str, Any] | None:
    """The instance with a key, and the number of its series as ``parent_id``; None when there is none.

    Its ``file`` is what the index says of its file.
    """
    number = _number(key)
    with index.reading(watch) as connection:
        rows = _rows(connection, sa.select(*_INSTANCE).where(_I.id == number), key)
        for each in rows:
            each["file"] = index.refs(connection, [number])[0]
    return rows[0] if rows else None


def with_file(ref: InstanceRef, call: Callable[..., _T], *arguments: Any) -> _T:
    """Call a function with the path of an instance's file, and further arguments; blocks.

    Raises:
        OSError: The file cannot be read.
    """
    if ref.files is None:
        return call(ref.path, *arguments)
    with ref.files.file(ref.path, ref.size) as file:
        # The file may have no name; another process of the node can open it so, too.
        return call(Path(f"/proc/{os.getpid()}/fd/{file.fileno()}"), *arguments)


def last_row(index: Index, watch: Watch) -> int:
    """A number that changes when an instance comes."""
    with index.reading(watch) as connection:
        return int(connection.scalar(sa.select(sa.func.max(_I.id))) or 0)


# -- rows --------------------------------------------------------------------------------------------

# How many series of one study are shown.
_MOST: Final = 2000
_STUDY: Final = (
    _S.id,
    _S.patient_name,
    _S.patient_id,
    _S.patient_birth_date,
    _S.patient_sex,
    _S.study_date,
    _S.study_time,
    _S.study_description,
    _S.accession_number,
    _S.study_id,
    _S.referring_physician_name,
    _S.study_instance_uid,
    _S.received,
    _S.calling,
    sa.exists()
    .where(protection.c.study_instance_uid == _S.study_instance_uid)
    .label("is_protected"),
)
_SERIES: Final = (
    _R.id,
    _R.parent_id,
    _R.modality,
    _R.series_number,
    _R.series_date,
    _R.series_time,
    _R.series_description,
    _R.body_part_examined,
    _R.manufacturer,
    _R.station_name,
    _R.series_instance_uid,
)
_INSTANCE: Final = (
    _I.id,
    _I.parent_id,
    _I.instance_number,
    _I.number_of_frames,
    _I.sop_class_uid,
    _I.sop_instance_uid,
    _I.available_transfer_syntax_uid,
    _I.size,
)


_UIDS: Final = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")


def _rows(
    connection: sa.Connection, statement: sa.Select[Any], key: str | None = None
) -> list[dict[str, Any]]:
    """The rows of a statement, each with its ``key``; with a key, only the row that has it."""
    found = []
    for row in connection.execute(statement).mappings():
        uid = next(row[name] for name in _UIDS if name in row)
        own = f"{row['id']}-{sha256(uid.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
        if key is None or key == own:
            found.append({**row, "key": own})
    return found


def _number(key: str) -> int:
    """The number of the row in a key; 0, which no row has, when it is not a key."""
    digits = key.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 18 else 0


def _add_below(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Add to studies what is below them."""
    by_id = {each["id"]: each for each in rows}
    for each in rows:
        each.update(modalities=[], series=0, instances=0, size=0)
    statement = (
        sa.select(
            _R.parent_id,
            _R.modality,
            sa.func.count(sa.distinct(_R.id)),
            sa.func.count(_I.id),
            sa.func.coalesce(sa.func.sum(_I.size), 0),
        )
        .select_from(series.outerjoin(instance, _I.parent_id == _R.id))
        .where(_R.parent_id.in_(list(by_id)))
        .group_by(_R.parent_id, _R.modality)
        .order_by(_R.modality)
    )
    for number, modality, count, instances, size in connection.execute(statement):
        each = by_id[number]
        each["modalities"] += [modality] if modality else []
        each["series"] += count
        each["instances"] += instances
        each["size"] += int(size)


def _order(text: str) -> tuple[int, int, str]:
    """Sorts numbers by their values, and before what is not a number."""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= 12:
        return 0, int(text), ""
    return 1, 0, text
