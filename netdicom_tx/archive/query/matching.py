"""Makes a query of the index from an identifier of C-FIND, C-MOVE or C-GET (PS3.4 C.2.2.2, C.4).

===================  =============================================================================
universal            a key without a value, or ``*`` alone where wild cards are allowed
single value         the same text in the same case; dates, times and numbers by what they mean
list of UID          any of the UIDs; keys of other VRs with several values are treated likewise
wild card            ``*`` and ``?``, for the VRs that allow them
range                DA, TM, DT
sequence             some item passes all keys in the item of the identifier
empty value          ``""``, when negotiated
multiple value       all of the values, when negotiated
===================  =============================================================================

An attribute without a value passes no key. With ``match_unknown`` it passes every key of its own, as in PS3.4
C.2.2.1.2, except unique keys and keys in items. The standard leaves these rules to the implementation:

* **Person names**: Upper and lower case are equal. A key with one component group is looked for in all three groups.
  Empty components at the end may be left out. When fuzzy matching is negotiated, a name also passes when it has a
  word of similar sound (Soundex) for each word of the key, in any order.
* **Dates and times**: ``1015`` is 10:15:00 as a single value, and the whole minute at the end of a range, because
  PS3.5 6.2 calls such a time *not precise* to the second.
* **Time zones**: When the adjustment is negotiated and the identifier has (0008,0201), dates are compared together
  with their times in that time zone. An instance without a time zone is taken to be in that of the node.
* **Keys of other levels** are matched as well. The unique keys above the level must be present unless relational
  queries are negotiated. For keys below the level, one instance must pass all of them.
* **Attributes without a column** are answered from the kept header. They are matched at IMAGE level only; at a higher
  level, the status of the answers (0xFF01) tells that a key was not matched.

An identifier that cannot be answered raises :class:`MatchingError`, with a status and a comment that has no value of a
key in it.
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

#: Each date and the time that belongs to it. The time zone of a patient's birth is unknown.
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
        minutes: The requestor's offset from UTC.
        of_date: What is asked of the date in that time zone; None when nothing is.
        of_time: What is asked of the time in that time zone; None when nothing is.
        combined: The first and the last moment, when date and time are one range; then it replaces the other two.
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
        """Whether an entity passes, given the keys of its date and time, and its own offset from UTC."""
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
    """A query of the index.

    Attributes:
        level: The level of the rows that are searched.
        keys: The keys that each answer contains.
        terms: The values of the request's Specific Character Set.
        clauses: Clauses for the rows, and for those above them, each with its level.
        below: Clauses for one instance below the row, each with its level.
        residual: Columns of the row, or of one above, that no clause matches completely.
        in_header: Keys of attributes of the instance that have no column.
        zones: Dates and times that are compared in another time zone.
        is_partial: Whether some key with a value is not matched (0xFF01).
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
        """The status of each answer: 0xFF00, or 0xFF01 when a key is not matched (PS3.4 Table C.4-1)."""
        return statuses.C_FIND_PENDING_WARNING if self.is_partial else statuses.PENDING

    @property
    def has_residual(self) -> bool:
        """Whether the rows that the statement finds must be checked further."""
        return bool(self.residual or self.in_header or self.zones)

    def ids(self) -> sa.Select[tuple[int]]:
        """The statement for the ids of the rows that pass all clauses."""
        highest = min((level.depth for level, _ in self.clauses), default=self.level.depth)
        table = TABLES[self.level]
        statement = sa.select(table.c.id).select_from(self.joined(LEVELS[highest]))
        statement = statement.where(*(clause for _, clause in self.clauses))
        if self.below:
            deepest = max(level.depth for level, _ in self.below)
            tables, start = _descend(self.level, deepest)
            top = tables[LEVELS[self.level.depth + 1]]
            # IN instead of EXISTS, so that the rows below are looked up once, and not for every row.
            passing = sa.select(top.c.parent_id).select_from(start)
            passing = passing.where(*(make(tables) for _, make in self.below))
            statement = statement.where(table.c.id.in_(passing))
        return statement

    def joined(self, highest: Level) -> sa.FromClause:
        """The table of the level, joined with those above it."""
        depth = self.level.depth
        if self.level is Level.IMAGE and InformationModel.COMPOSITE_INSTANCE_ROOT is not self.model:
            # Instances without a series are part of the model of single instances only.
            highest = LEVELS[min(highest.depth, Level.SERIES.depth)]
        found: sa.FromClause = TABLES[self.level]
        for upper in range(depth - 1, highest.depth - 1, -1):
            lower, table = TABLES[LEVELS[upper + 1]], TABLES[LEVELS[upper]]
            found = found.join(table, lower.c.parent_id == table.c.id)
        return found

    def representative(self) -> sa.ColumnElement[int]:
        """The id of the first instance below a row that passes the clauses for instances below."""
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
    """Make the query of a C-FIND.

    Args:
        match_unknown: Whether an attribute without a value passes every key of its own, as in PS3.4 C.2.2.1.2,
            except the unique keys of the model.

    Raises:
        MatchingError: The identifier cannot be answered.
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
    """Make the query of a C-MOVE or C-GET, whose rows are instances.

    The unique key of the level must have a value, or several when it is a UID. Such an identifier should have no other
    keys (PS3.4 C.4.2.1.4). If it has some with values, they can only reduce the number of instances.

    Args:
        match_unknown: As for :func:`find_query`.

    Raises:
        MatchingError: The identifier cannot be answered.
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
        raise mismatch("expected one PatientID at PATIENT level")
    _place(query, by_tag, read.minutes)
    return query


def _check_above(by_tag: Mapping[int, Key], model: InformationModel, level: Level) -> None:
    """Check that the unique key of every level above has one value (PS3.4 C.4.1.2.1)."""
    for above in model.levels[: model.levels.index(level)]:
        tag = UNIQUE_KEYS[above]
        key = by_tag.get(tag)
        if key is None or key.criterion is None:
            raise mismatch(f"no {name_of(tag)}, the unique key of {above} level")
        if not isinstance(key.criterion, Criterion) or key.criterion.single is None:
            raise mismatch(f"{name_of(tag)} must have one value above the level")


def _place(query: Query, by_tag: Mapping[int, Key], minutes: int | None) -> None:
    """Sort the keys by where they are matched."""
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
        assert clause is not None  # this was checked above
        return clause

    query.below.append((attribute.level, make))


def _clause(
    attribute: Attribute, criterion: Criterion, table: sa.FromClause
) -> sa.ColumnElement[bool] | None:
    """The clause for a row; None when no clause can express the criterion."""
    if attribute.tag in COMPUTED:
        return _computed_clause(attribute, criterion)
    text = table.c[attribute.column]
    if attribute.many:
        return criterion.clause_of_many(text)
    return criterion.clause(text, [table.c[name] for name in attribute.key_columns])


def _place_dates(query: Query, by_tag: Mapping[int, Key], minutes: int | None) -> set[int]:
    """Match dates together with their times where that was negotiated, and return the tags that are done."""
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
    """The ends of the combined range, when date and time are ranges of the same form (PS3.4 C.2.2.2.5.4)."""
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
    """The clause for a date, widened by a day at both ends, because no two time zones are farther apart."""
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


#: The tables below a level. They are aliases, because the query around may use the same tables.
Tables = Mapping[Level, sa.FromClause]


def _descend(level: Level, deepest: int) -> tuple[Tables, sa.FromClause]:
    """Make aliases of the tables below a level, and join them."""
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
    """The expression for a computed attribute of a row in the table of its level.

    It is a number, or the values with backslashes between them, in no particular order.
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


# The level whose rows are counted; or whose values are collected, with the column that they are in.
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

    if criterion.is_all:
        found = sa.and_(*(some(functools.partial(_of_column, each)) for each in criterion.tests))
    else:
        found = some(lambda column: criterion.some_clause(column, ()))
    if criterion.takes_empty:
        found = sa.or_(found, sa.not_(some(lambda column: column != "")))
    return found


def _of_column(test: Test, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    return test.clause(column, ())


_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)
