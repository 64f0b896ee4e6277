"""An identifier of C-FIND, C-MOVE or C-GET to a query of the index (PS3.4 C.2.2.2, C.4).

===================  =============================================================================
universal            a key without value, or of ``*`` only where wild cards are admitted
single value         in its case; by meaning for dates, times and numbers
list of UID          each of them; of other VRs several values mean any of them
wild card            ``*`` and ``?``, for the VRs that admit them
range                DA, TM, DT
sequence             some item passes all keys of the item in the key
empty value          ``""``, by negotiation
multiple value       all of the values, by negotiation
===================  =============================================================================

An attribute without a value passes no key, unless ``match_unknown`` asks for PS3.4 C.2.2.1.2, by which it passes
any key of its own; unique keys, and keys of items, excepted. Where a rule is left to the implementation:

* **Person names**: case does not matter; a key of one component group is looked for in all three;
  empty components at the end may be left out. Fuzzy matching, when negotiated, also takes a name in
  which each word of the key sounds like some word (Soundex), in any order.
* **Dates and times**: ``1015`` as a single value is 101500, and as the end of a range all of that
  minute, since PS3.5 6.2 calls it *not precise* to the second.
* **Time zones**: with the adjustment negotiated and (0008,0201) in the identifier, dates with their
  times are compared in that zone; what an instance does not say is taken as the node's own zone.
* **Keys of other levels** are matched too; without relational queries negotiated the unique keys
  above the level must be there all the same. An instance *below* the level must pass all such keys.
* **Attributes without a column** are answered from the header, and matched at IMAGE level only:
  above, the answer's status says that a key was not matched (0xFF01).

What cannot be answered is :class:`MatchingError`, with the status and a comment that holds no value.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from pydicom.dataset import Dataset

from ... import statuses
from ..encoded.values import shifted
from ..index.schema import ATTRIBUTES, COMPUTED, LEVELS, TABLES, Attribute, Level
from .criteria import Between, Criterion, Equal, Test, within
from .identifiers import (
    UNIQUE_KEYS,
    Identifier,
    InformationModel,
    Key,
    MatchingError,
    QueryOptions,
    SequenceKey,
    mismatch,
    name_of,
)

__all__ = [
    "InformationModel",
    "Key",
    "MatchingError",
    "Query",
    "QueryOptions",
    "SequenceKey",
    "ZoneTest",
    "computed",
    "find_query",
    "retrieve_query",
]

#: Dates and the times that belong to them; of a patient's birth no time zone is known.
_PAIRS: Final = {
    0x00080020: 0x00080030,
    0x00080021: 0x00080031,
    0x00080023: 0x00080033,
    0x00400244: 0x00400245,
    0x00100030: 0x00100032,
}
_WITHOUT_ZONE: Final = frozenset((0x00100030, 0x00100032))


@dataclass(frozen=True, slots=True)
class ZoneTest:
    """A date and its time, compared in the requestor's time zone.

    Attributes:
        date: The tag of the date; the time's follows from it.
        minutes: From UTC, of the requestor.
        of_date: What is asked of the date there; None when nothing is.
        of_time: The same of the time.
        combined: The first and the last moment instead, when both are one range.
    """

    date: int
    minutes: int
    of_date: Criterion | None
    of_time: Criterion | None
    combined: tuple[str, str] | None

    @property
    def time(self) -> int:
        """The tag of the time."""
        return _PAIRS[self.date]

    @property
    def level(self) -> Level:
        return ATTRIBUTES[self.date].level

    def accepts(self, day: str, time: str, minutes: int) -> bool:
        """Whether an entity passes, by its keys and its own offset from UTC."""
        if day and time:
            moment = shifted(day + time, self.minutes - minutes)
            if self.combined is not None:
                return self.combined[0] <= moment <= self.combined[1]
            day, time = moment[:8], moment[8:]
        written = f"{time[:6]}.{time[6:]}" if time else ""
        return (self.of_date is None or self.of_date.accepts(day)) and (
            self.of_time is None or self.of_time.accepts(written)
        )


@dataclass(slots=True)
class Query:
    """What is asked of the index.

    Attributes:
        level: Of the rows that are looked for.
        keys: What each answer holds.
        terms: The request's Specific Character Set.
        clauses: For the rows and those above them.
        below: For one instance below the row, each with the level it is of.
        residual: Columns of the row or above that no clause matches, in whole or in part.
        in_header: Attributes of the instance that have no column.
        zones: Dates with times in another time zone.
        is_partial: Whether a key that was asked to match is not matched (0xFF01).
    """

    model: InformationModel
    level: Level
    options: QueryOptions
    keys: tuple[Key, ...]
    terms: tuple[str, ...]
    clauses: list[tuple[Level, sa.ColumnElement[bool]]] = field(default_factory=list)
    below: list[tuple[Level, Callable[[Tables], sa.ColumnElement[bool]]]] = field(
        default_factory=list
    )
    residual: list[tuple[Attribute, Criterion | SequenceKey]] = field(default_factory=list)
    in_header: list[Key] = field(default_factory=list)
    zones: list[ZoneTest] = field(default_factory=list)
    is_partial: bool = False

    @property
    def attributes(self) -> Mapping[int, Attribute]:
        """The attributes with columns, at their levels in the model of this query."""
        return self.model.attributes

    @property
    def pending_status(self) -> int:
        """Of each answer: 0xFF00, or 0xFF01 when a key was not matched (PS3.4 Table C.4-1)."""
        return statuses.C_FIND_PENDING_WARNING if self.is_partial else statuses.PENDING

    @property
    def has_residual(self) -> bool:
        """Whether rows that are found must still be looked at."""
        return bool(self.residual or self.in_header or self.zones)

    def ids(self) -> sa.Select[tuple[int]]:
        """The rows that pass all clauses."""
        highest = min((level.depth for level, _ in self.clauses), default=self.level.depth)
        table = TABLES[self.level]
        statement = sa.select(table.c.id).select_from(self.joined(LEVELS[highest]))
        statement = statement.where(*(clause for _, clause in self.clauses))
        if self.below:
            deepest = max(level.depth for level, _ in self.below)
            tables, start = _descend(self.level, deepest)
            top = tables[LEVELS[self.level.depth + 1]]
            # Not EXISTS: what is below is looked up once, and not for every row.
            passing = sa.select(top.c.parent_id).select_from(start)
            passing = passing.where(*(make(tables) for _, make in self.below))
            statement = statement.where(table.c.id.in_(passing))
        return statement

    def joined(self, highest: Level) -> sa.FromClause:
        """The table of the level with those above it."""
        depth = self.level.depth
        if self.level is Level.IMAGE and InformationModel.COMPOSITE_INSTANCE_ROOT is not self.model:
            # What is of no series is in no model but that of single instances.
            highest = LEVELS[min(highest.depth, Level.SERIES.depth)]
        found: sa.FromClause = TABLES[self.level]
        for upper in range(depth - 1, highest.depth - 1, -1):
            lower, table = TABLES[LEVELS[upper + 1]], TABLES[LEVELS[upper]]
            found = found.join(table, lower.c.parent_id == table.c.id)
        return found

    def representative(self) -> sa.ColumnElement[int]:
        """The row of the first instance of a row, that passes what is asked of one below."""
        if self.level is Level.IMAGE:
            return TABLES[Level.IMAGE].c.id
        tables, start = _descend(self.level, Level.IMAGE.depth)
        own, top = TABLES[self.level], tables[LEVELS[self.level.depth + 1]]
        first = sa.select(sa.func.min(tables[Level.IMAGE].c.id)).select_from(start)
        first = first.where(top.c.parent_id == own.c.id)
        first = first.where(*(make(tables) for _, make in self.below))
        return first.correlate(own).scalar_subquery()


def find_query(
    identifier: Dataset,
    model: InformationModel,
    options: QueryOptions,
    *,
    match_unknown: bool = False,
) -> Query:
    """The query of a C-FIND.

    Args:
        match_unknown: Whether an attribute without value passes every key of its own, as PS3.4
            C.2.2.1.2 has it; the unique keys of the model excepted.

    Raises:
        MatchingError: It cannot be answered.
    """
    read = Identifier(identifier, model, options, match_unknown=match_unknown)
    query = Query(model, read.level, options, read.keys, read.terms)
    by_tag = {key.tag: key for key in query.keys}
    if not options.relational:
        _check_above(by_tag, model, read.level)
    _place(query, by_tag, read.minutes)
    return query


def retrieve_query(
    identifier: Dataset,
    model: InformationModel,
    options: QueryOptions,
    *,
    match_unknown: bool = False,
) -> Query:
    """The query of a C-MOVE or C-GET: its rows are instances.

    The unique key of the level must have a value, or several when it is a UID. Other keys than
    unique ones have no place in such an identifier (PS3.4 C.4.2.1.4); with values they may only make
    less of what is sent.

    Raises:
        MatchingError: It cannot be answered.
    """
    read = Identifier(identifier, model, options, match_unknown=match_unknown)
    level = read.level
    query = Query(model, Level.IMAGE, options, read.keys, read.terms)
    by_tag = {key.tag: key for key in query.keys}
    if not options.relational:
        _check_above(by_tag, model, level)
    key = by_tag.get(UNIQUE_KEYS[level])
    if key is None or not isinstance(key.criterion, Criterion):
        raise mismatch(f"no {name_of(UNIQUE_KEYS[level])}, the unique key of {level} level")
    if level is Level.PATIENT and key.criterion.single is None:
        raise mismatch("one PatientID is expected at PATIENT level")
    _place(query, by_tag, read.minutes)
    return query


def _check_above(by_tag: Mapping[int, Key], model: InformationModel, level: Level) -> None:
    """PS3.4 C.4.1.2.1: one value for the unique key of every level above."""
    for above in model.levels[: model.levels.index(level)]:
        tag = UNIQUE_KEYS[above]
        key = by_tag.get(tag)
        if key is None or key.criterion is None:
            raise mismatch(f"no {name_of(tag)}, the unique key of {above} level")
        if not isinstance(key.criterion, Criterion) or key.criterion.single is None:
            raise mismatch(f"{name_of(tag)} must be one value, above the level")


def _place(query: Query, by_tag: Mapping[int, Key], minutes: int | None) -> None:
    """Put every key where it is matched."""
    done = _place_dates(query, by_tag, minutes)
    for key in query.keys:
        if key.is_universal or key.tag in done:
            continue
        attribute = query.attributes.get(key.tag) or COMPUTED.get(key.tag)
        if attribute is None:
            if query.level is Level.IMAGE:
                query.in_header.append(key)
            else:
                query.is_partial = True
        elif attribute.level.depth > query.level.depth:
            _place_below(query, attribute, key.criterion)
        elif isinstance(key.criterion, SequenceKey):
            query.residual.append((attribute, key.criterion))
        elif key.criterion is not None:
            clause = _clause(attribute, key.criterion, TABLES[attribute.level])
            if clause is None:
                query.residual.append((attribute, key.criterion))
            else:
                query.clauses.append((attribute.level, clause))


def _place_below(
    query: Query, attribute: Attribute, criterion: Criterion | SequenceKey | None
) -> None:
    if not isinstance(criterion, Criterion) or attribute.tag in COMPUTED:
        query.is_partial = True
        return
    if _clause(attribute, criterion, TABLES[attribute.level]) is None:
        query.is_partial = True
        return

    def make(tables: Tables) -> sa.ColumnElement[bool]:
        clause = _clause(attribute, criterion, tables[attribute.level])
        assert clause is not None  # it was none of these above
        return clause

    query.below.append((attribute.level, make))


def _clause(
    attribute: Attribute, criterion: Criterion, table: sa.FromClause
) -> sa.ColumnElement[bool] | None:
    """Of a row; None when a clause cannot say it."""
    if attribute.tag in COMPUTED:
        return _computed_clause(attribute, criterion)
    text = table.c[attribute.column]
    if attribute.many:
        return criterion.clause_of_many(text)
    return criterion.clause(text, [table.c[name] for name in attribute.key_columns])


def _place_dates(query: Query, by_tag: Mapping[int, Key], minutes: int | None) -> set[int]:
    """Match dates together with their times, where that was negotiated; the tags so done."""
    done: set[int] = set()
    for date, time in _PAIRS.items():
        attribute = query.attributes[date]
        if attribute.level.depth > query.level.depth:
            continue
        day, hour = _criterion_of(by_tag.get(date)), _criterion_of(by_tag.get(time))
        combined = _combined(day, hour) if query.options.combined_datetime else None
        if minutes is not None and date not in _WITHOUT_ZONE and (day or hour) is not None:
            query.zones.append(ZoneTest(date, minutes, day, hour, combined))
            if day is not None:
                query.clauses.append((attribute.level, _widened(attribute, day)))
            done |= {date, time}
        elif combined is not None and day is not None:
            other = query.attributes[time]
            query.clauses.append((attribute.level, _together(attribute, other, day, combined)))
            done |= {date, time}
    return done


def _criterion_of(key: Key | None) -> Criterion | None:
    return key.criterion if key is not None and isinstance(key.criterion, Criterion) else None


def _combined(date: Criterion | None, time: Criterion | None) -> tuple[str, str] | None:
    """The ends of one range, when date and time are ranges of one form (PS3.4 C.2.2.2.5.4)."""
    if date is None or time is None or len(date.tests) != 1 or len(time.tests) != 1:
        return None
    (day,), (hour,) = date.tests, time.tests
    assert isinstance(day, Between)  # no other test is made for a DA
    assert isinstance(hour, Between)  # nor for a TM
    if not (day.is_range and hour.is_range and day.form == hour.form):
        return None
    return day.ends[0] + hour.ends[0], day.ends[1] + hour.ends[1]


def _together(
    attribute: Attribute, other: Attribute, asked: Criterion, ends: tuple[str, str]
) -> sa.ColumnElement[bool]:
    table = TABLES[attribute.level]
    day, time = table.c[attribute.key_columns[0]], table.c[other.key_columns[0]]
    # An instance without a time may be of any time of its day.
    clause = sa.and_(time != "", within(day.concat(time), *ends))
    if asked.takes_empty:
        clause = sa.or_(day == "", table.c[other.column] == "", clause)
    # The date alone narrows it down by its index.
    return sa.and_(asked.clause(table.c[attribute.column], [day]), clause)


def _widened(attribute: Attribute, asked: Criterion) -> sa.ColumnElement[bool]:
    """The date a day earlier and later: no zone is farther away."""
    table = TABLES[attribute.level]
    day = table.c[attribute.key_columns[0]]
    clauses: list[sa.ColumnElement[bool]] = []
    for test in asked.tests:
        assert isinstance(test, Between)  # no other test is made for a DA
        first, last = test.ends
        clauses.append(
            within(
                day,
                shifted(first + "0" * 12, -1440)[:8] if test.first is not None else first,
                shifted(last + "0" * 12, 1440)[:8] if test.last is not None else last,
            )
        )
    if asked.takes_empty:
        clauses.append(sa.and_(day == "", table.c[attribute.column] == ""))
    return sa.or_(sa.false(), *clauses)


# -- what is below a row ----------------------------------------------------------------------------------


#: The tables of a chain downwards; aliases, since the same may stand outside.
Tables = Mapping[Level, sa.FromClause]


def _descend(level: Level, deepest: int) -> tuple[Tables, sa.FromClause]:
    """Aliases of the tables below a level, and their join."""
    tables: dict[Level, sa.FromClause] = {}
    start: sa.FromClause | None = None
    for depth in range(level.depth + 1, deepest + 1):
        alias = TABLES[LEVELS[depth]].alias()
        tables[LEVELS[depth]] = alias
        if start is None:
            start = alias
            continue
        start = start.join(alias, alias.c.parent_id == tables[LEVELS[depth - 1]].c.id)
    assert start is not None  # level is not the last
    return tables, start


def computed(attribute: Attribute) -> sa.ColumnElement[Any]:
    """The value of a computed attribute of the row in its level's table.

    A number; or text with backslashes between, in no order.
    """
    source, target = _COMPUTED[attribute.keyword]
    tables, start = _descend(attribute.level, source.depth)
    own = TABLES[attribute.level]
    top = tables[LEVELS[attribute.level.depth + 1]]
    if target is None:
        return (
            sa.select(sa.func.count())
            .select_from(start)
            .where(top.c.parent_id == own.c.id)
            .correlate(own)
            .scalar_subquery()
        )
    column = tables[source].c[target]
    values = (
        sa.select(column.label("value"))
        .select_from(start)
        .where(top.c.parent_id == own.c.id, column != "")
        .distinct()
        .correlate(own)
        .subquery()
    )
    return sa.select(sa.func.aggregate_strings(values.c.value, "\\")).scalar_subquery()


# What is counted, or collected.
_COMPUTED: Final[Mapping[str, tuple[Level, str | None]]] = {
    "NumberOfPatientRelatedStudies": (Level.STUDY, None),
    "NumberOfPatientRelatedSeries": (Level.SERIES, None),
    "NumberOfPatientRelatedInstances": (Level.IMAGE, None),
    "ModalitiesInStudy": (Level.SERIES, "modality"),
    "SOPClassesInStudy": (Level.IMAGE, "sop_class_uid"),
    "NumberOfStudyRelatedSeries": (Level.SERIES, None),
    "NumberOfStudyRelatedInstances": (Level.IMAGE, None),
    "NumberOfSeriesRelatedInstances": (Level.IMAGE, None),
}


def _computed_clause(attribute: Attribute, criterion: Criterion) -> sa.ColumnElement[bool]:
    source, target = _COMPUTED[attribute.keyword]
    if target is None:
        numbers = [
            int(each.value)
            for each in criterion.tests
            if isinstance(each, Equal) and _COUNT.fullmatch(each.value)
        ]
        return computed(attribute).in_(numbers)
    own = TABLES[attribute.level]

    def some(test: Callable[[Any], sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
        tables, start = _descend(attribute.level, source.depth)
        top = tables[LEVELS[attribute.level.depth + 1]]
        inner = sa.select(sa.literal(1)).select_from(start)
        inner = inner.where(top.c.parent_id == own.c.id, test(tables[source].c[target]))
        return sa.exists(inner.correlate(own))

    tests = [some(functools.partial(_of_column, each)) for each in criterion.tests]
    found = sa.and_(*tests) if criterion.is_all else sa.or_(sa.false(), *tests)
    if criterion.takes_empty:
        found = sa.or_(found, sa.not_(some(lambda column: column != "")))
    return found


def _of_column(test: Test, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    return test.clause(column, ())


_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)
