"""What a key asks of an attribute, as an SQL clause and as a test of a value (PS3.4 C.2.2.2).

Both forms mean the same, so that values without a column, for example those in items of a sequence, are matched by the
same rules. A key becomes *tests*, one for each of its values:

============  =====================================================================================
Equal         single value matching, and list of UID matching as several of them
Like          wild card matching
Between       dates and times, and ranges of them; a single value is a range of one moment
Name          person names, by component group, where upper and lower case are equal
Fuzzy         person names, by sound
============  =====================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ..encoded.values import (
    Moment,
    PersonName,
    date_range,
    moment_range,
    number_key,
    person_name,
    shifted,
    sound,
    split,
    time_range,
)

__all__ = [
    "TESTS_LIMIT",
    "WILD_CARD_VRS",
    "Between",
    "Criterion",
    "Equal",
    "Fuzzy",
    "Like",
    "Name",
    "Number",
    "Test",
    "is_wild",
    "matches_wild_card",
    "range_of",
    "within",
]

#: The VRs whose keys may have wild cards (PS3.4 C.2.2.2.4).
WILD_CARD_VRS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))

#: How many values of one key become a clause each; a database compiles a long statement slowly, and runs it slowly.
TESTS_LIMIT = 64

Clause = sa.ColumnElement[bool]
Column = sa.ColumnElement[Any]


def is_wild(text: str) -> bool:
    """Whether a text contains a wild card."""
    return "*" in text or "?" in text


def matches_wild_card(pattern: str, text: str) -> bool:
    """Whether a pattern matches a whole text; takes at most the product of both lengths in time."""
    at = position = 0
    star, resume = -1, 0
    while position < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[position]):
            at += 1
            position += 1
        elif star >= 0:
            resume += 1
            at, position = star + 1, resume
        else:
            return False
    return pattern[at:].strip("*") == ""


def _like(column: Column, pattern: str) -> Clause:
    """LIKE, together with the range of the pattern's prefix, for which the database can use an index."""
    literal = pattern.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    clause: Clause = column.like(literal.replace("*", "%").replace("?", "_"), escape="!")
    prefix = pattern.replace("?", "*").partition("*")[0]
    if prefix and ord(prefix[-1]) not in (0xD7FF, 0x10FFFF):
        following = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        clause = sa.and_(column >= prefix, column < following, clause)
    return clause


def within(column: Column, first: str, last: str) -> Clause:
    """The clause that a key is in a range, both ends included.

    It is not BETWEEN, because PostgreSQL refuses what SQLAlchemy writes there for text with a collation.
    """
    return sa.and_(column >= first, column <= last)


class Test(ABC):
    """What one value of a key asks of one value of an attribute."""

    __slots__ = ()
    __test__ = False  # tells pytest that this is not a test case

    @abstractmethod
    def accepts(self, value: str) -> bool:
        """Whether a value passes, which is not empty."""

    @abstractmethod
    def clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        """The same as a clause, for the columns of an attribute that has one value."""


@dataclass(frozen=True, slots=True)
class Equal(Test):
    """The same text, in which upper and lower case differ."""

    value: str

    def accepts(self, value: str) -> bool:
        return value == self.value

    def clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        return text == self.value


@dataclass(frozen=True, slots=True)
class Number(Test):
    """The same number as a DS, however both are written."""

    value: str

    def accepts(self, value: str) -> bool:
        return number_key(value) == self.value

    def clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        return keys[0] == self.value


@dataclass(frozen=True, slots=True)
class Like(Test):
    """A pattern with wild cards, in which upper and lower case differ."""

    pattern: str

    def accepts(self, value: str) -> bool:
        return matches_wild_card(self.pattern, value)

    def clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        return _like(text, self.pattern)


@dataclass(frozen=True, slots=True)
class Between(Test):
    """A date, a time, a date-time, or a range of them.

    Attributes:
        first: The first moment; None when the range has no beginning.
        last: The last moment, which is included; None when the range has no end.
        is_range: Whether it is a range instead of a single value.
    """

    vr: str
    first: Moment | None
    last: Moment | None
    is_range: bool

    @property
    def form(self) -> tuple[bool, bool]:
        """Whether the range has a beginning, and whether it has an end."""
        return self.first is not None, self.last is not None

    @property
    def ends(self) -> tuple[str, str]:
        """Both ends as keys; an end that is absent sorts before or behind all keys."""
        first = "0" if self.first is None else self.first.first
        if self.last is None:
            return first, "~"
        return first, self.last.last if self.is_range else self.last.first

    def accepts(self, value: str) -> bool:
        try:
            found = _READ[self.vr](value)
        except ValueError:
            return False
        if self.vr == "DT":
            return self._accepts_moment(found)
        first, last = self.ends
        return first <= found.first <= last

    def _accepts_moment(self, found: Moment) -> bool:
        first, last = self.ends
        if self.first is not None and _in_step(self.first, found, first) > found.first:
            return False
        return self.last is None or found.first <= _in_step(self.last, found, last)

    def clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        first, last = self.ends
        return keys[0] == first if first == last else within(keys[0], first, last)


_READ = {"DA": date_range, "TM": time_range, "DT": moment_range}


def _in_step(bound: Moment, found: Moment, key: str) -> str:
    """The key of a bound for comparison; when one side has no offset from UTC, both are local time."""
    if bound.offset is None or found.offset is not None:
        return key
    return shifted(key, bound.offset)


def range_of(vr: str, text: str) -> Between:
    """Read a value of a DA, TM or DT key, which may be a range.

    Raises:
        ValueError: The text is neither a value of the VR nor a range.
    """
    read = _READ[vr]
    if vr == "DT":
        try:
            moment = read(text)
        except ValueError:
            pass
        else:
            return Between(vr, moment, moment, is_range=False)
    elif "-" not in text:
        moment = read(text)
        return Between(vr, moment, moment, is_range=False)
    for number, character in enumerate(text):
        if character != "-":
            continue
        first, last = text[:number].strip(), text[number + 1 :].strip()
        if not first and not last:
            break
        try:
            return Between(
                vr, read(first) if first else None, read(last) if last else None, is_range=True
            )
        except ValueError:
            continue
    raise ValueError(f"{text!r:.60} is neither a {vr} nor a range")


@dataclass(frozen=True, slots=True)
class Name(Test):
    """A person name, with or without wild cards (PS3.4 C.2.2.2.1, C.2.2.2.4; PS3.5 6.2.1).

    A key with one component group is looked for in all three groups of a name. When a key has several groups, each one
    that is not empty is looked for in the corresponding group. Upper and lower case are equal, and empty components at
    the end do not count: ``Doe^*`` also matches a name that has only a family name.
    """

    groups: PersonName
    in_any: bool

    @classmethod
    def of(cls, text: str) -> Name:
        return cls(person_name(text), "=" not in text)

    def accepts(self, value: str) -> bool:
        found = person_name(value)
        if self.in_any:
            return any(_accepts(self.groups.alphabetic, group) for group in found)
        return all(
            _accepts(wanted, group)
            for wanted, group in zip(self.groups, found, strict=True)
            if wanted
        )

    def clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        if self.in_any:
            return sa.or_(*(_group_clause(self.groups.alphabetic, keys[n]) for n in range(3)))
        return sa.and_(
            sa.true(),
            *(
                _group_clause(wanted, keys[number])
                for number, wanted in enumerate(self.groups)
                if wanted
            ),
        )


def _shortened(wanted: str) -> list[str]:
    """The forms of a key, two at most: without the components at its end that match anything, and with one of them.

    A form with more of them finds nothing that the form with one does not, whose star also passes a ``^``.
    """
    longer = ""
    while wanted.endswith("^*"):
        longer, wanted = wanted, wanted[:-2].rstrip("^")
    # An empty form is left out, because it would match the empty groups that most names have.
    return [form for form in (wanted, longer) if form] or [wanted]


def _accepts(wanted: str, group: str) -> bool:
    return any(
        matches_wild_card(form, group) if is_wild(form) else form == group
        for form in _shortened(wanted)
    )


def _group_clause(wanted: str, column: Column) -> Clause:
    return sa.or_(
        *(_like(column, form) if is_wild(form) else column == form for form in _shortened(wanted))
    )


@dataclass(frozen=True, slots=True)
class Fuzzy(Test):
    """A person name that has a word of similar sound for each word of the key; only after negotiation."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Fuzzy:
        return cls(tuple(sound(text).split()))

    def accepts(self, value: str) -> bool:
        return set(self.words) <= set(sound(value).split())

    def clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        return sa.and_(*(keys[3].contains(f" {word} ", autoescape=True) for word in self.words))


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a key asks of an attribute.

    Attributes:
        tests: One or more for each value of the key. One value of the attribute must pass.
        is_all: Whether each test must be passed by some value (PS3.4 C.2.2.2.8); otherwise one test is enough.
        takes_empty: Whether an attribute without a value passes.
    """

    vr: str
    tests: tuple[Test, ...]
    is_all: bool = False
    takes_empty: bool = False
    _equals: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A set, because a list of UIDs may have thousands.
        equals = frozenset(each.value for each in self.tests if isinstance(each, Equal))
        object.__setattr__(self, "_equals", equals)

    @property
    def single(self) -> str | None:
        """The value of the key, when it has exactly one, and that is compared as it is."""
        if len(self.tests) == 1 and isinstance(self.tests[0], Equal):
            return self.tests[0].value
        return None

    def accepts(self, text: str) -> bool:
        """Whether an attribute passes, given the text with all its values."""
        values = [each for each in split(self.vr, text) if each]
        if not values:
            return self.takes_empty
        if self.is_all:
            return all(any(map(test.accepts, values)) for test in self.tests)
        others = [each for each in self.tests if not isinstance(each, Equal)]
        return not self._equals.isdisjoint(values) or any(
            test.accepts(value) for value in values for test in others
        )

    def some_clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        """The clause that a value in these columns passes one test, whatever else is asked."""
        equal = sorted(self._equals)
        clauses = [each.clause(text, keys) for each in self.tests if not isinstance(each, Equal)]
        if equal:
            clauses.append(text == equal[0] if len(equal) == 1 else text.in_(equal))
        return sa.or_(sa.false(), *clauses)

    def clause(self, text: Column, keys: Sequence[Column]) -> Clause:
        """The same as :meth:`accepts`, for the columns of an attribute that has one value."""
        if self.is_all:
            found = sa.and_(*(each.clause(text, keys) for each in self.tests))
        else:
            found = self.some_clause(text, keys)
        return sa.or_(found, self._empty(text, keys)) if self.takes_empty else found

    def clause_of_many(self, text: Column) -> Clause | None:
        """The same as :meth:`accepts`, for an attribute that has several values; None when no clause can express it."""
        equal = [each.value for each in self.tests if isinstance(each, Equal)]
        if len(equal) < len(self.tests) or len(equal) > TESTS_LIMIT:
            return None
        clauses = [_among(text, each) for each in equal]
        found = sa.and_(*clauses) if self.is_all else sa.or_(sa.false(), *clauses)
        return sa.or_(found, text == "") if self.takes_empty else found

    @staticmethod
    def _empty(text: Column, keys: Sequence[Column]) -> Clause:
        # The first key is empty as well, and may have an index in the database.
        return sa.and_(keys[0] == "", text == "") if keys else text == ""


def _among(text: Column, value: str) -> Clause:
    return sa.or_(
        text == value,
        text.startswith(value + "\\", autoescape=True),
        text.endswith("\\" + value, autoescape=True),
        text.contains(f"\\{value}\\", autoescape=True),
    )
