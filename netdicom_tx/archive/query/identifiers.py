"""The keys of an identifier, as tests of values (PS3.4 C.2.2.2).

The elements of an identifier, which may contain anything, become a :class:`Key` each, or a :class:`MatchingError` is
raised. The rows that they ask for are the subject of :mod:`netdicom_tx.archive.query.matching`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from pydicom.datadict import dictionary_VM, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from ... import statuses, uids
from ...exceptions import StatusError
from ..encoded.elements import vr_of
from ..encoded.values import codecs_of, number_key, offset_minutes, split, text_of, trimmed
from ..index.schema import ATTRIBUTES, COMPUTED, LEVELS, STUDY_ROOT_ATTRIBUTES, Attribute, Level
from .criteria import (
    TESTS_LIMIT,
    WILD_CARD_VRS,
    Criterion,
    Equal,
    Fuzzy,
    Like,
    Name,
    Number,
    Test,
    is_wild,
    range_of,
)

__all__ = [
    "UNIQUE_KEYS",
    "Identifier",
    "InformationModel",
    "Key",
    "MatchingError",
    "QueryOptions",
    "SequenceKey",
    "mismatch",
    "name_of",
    "unable",
]

#: How many values all keys may have together.
VALUE_LIMIT: Final = 10_000
#: How many keys an identifier may have.
KEY_LIMIT: Final = 512
#: How many values with wild cards all keys may have together. Each costs a comparison for each row.
PATTERNS_LIMIT: Final = 64
#: How many values may be compared by more than their text: ranges, names, and decimal numbers.
COMPARISONS_LIMIT: Final = 256
#: How many characters a value may have before anything parses it. PS3.5 6.2 admits fewer: 54 for a range of DT, 64
#: for UI and LO, and 194 for PN with its three groups.
VALUE_LENGTHS: Final = {
    **dict.fromkeys(("DA", "TM", "DT", "AS", "DS", "IS", "FD", "FL", "SL", "SS", "UL", "US"), 64),
    **dict.fromkeys(("AE", "AT", "CS", "LO", "SH", "SV", "UI", "UV"), 256),
    "PN": 512,
}
#: How many characters a value of a text VR may have; these VRs admit far more than queries need.
TEXT_LENGTH: Final = 1_024
#: How deeply the sequences of an identifier may be nested.
DEPTH_LIMIT: Final = 8

_CHARACTER_SET, _LEVEL, _TIMEZONE = 0x00080005, 0x00080052, 0x00080201
# The elements of an identifier that are not keys: with these also view, AE title, availability and media.
_NO_KEYS: Final = frozenset(
    (_CHARACTER_SET, _LEVEL, 0x00080053, 0x00080054, 0x00080056, _TIMEZONE, 0x00880130, 0x00880140)
)
#: The unique key of each level (PS3.4 C.6). In the Study Root model, the patient has none.
UNIQUE_KEYS: Final = {each.level: each.tag for each in ATTRIBUTES.values() if each.key_type == "U"}
_OCTETS: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
#: The VRs for which multiple value matching is defined (PS3.4 C.2.2.2.8).
_MULTIPLE_VRS: Final = frozenset(("AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"))


class MatchingError(StatusError):
    """An identifier cannot be answered: 0xA900 when something is missing in it, 0xC000 when a value is wrong."""


def mismatch(comment: str) -> MatchingError:
    """The error for an identifier that does not fit the SOP class."""
    return MatchingError(statuses.C_FIND_IDENTIFIER_DOES_NOT_MATCH, comment)


def unable(comment: str) -> MatchingError:
    """The error for a key that cannot be matched."""
    return MatchingError(statuses.C_FIND_UNABLE_TO_PROCESS, comment)


class InformationModel(Enum):
    """An information model, which is the levels that it has, from the highest on (PS3.4 C.6, Y, Z)."""

    PATIENT_ROOT = LEVELS
    STUDY_ROOT = LEVELS[1:]
    PATIENT_STUDY_ONLY = LEVELS[:2]
    COMPOSITE_INSTANCE_ROOT = LEVELS[3:]

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.value

    @property
    def attributes(self) -> Mapping[int, Attribute]:
        """The attributes with columns, each at the level that it has in this model (PS3.4 C.6)."""
        return ATTRIBUTES if Level.PATIENT in self.value else STUDY_ROOT_ATTRIBUTES

    @classmethod
    def of(cls, sop_class_uid: str) -> InformationModel:
        """The model of a FIND, MOVE or GET SOP class.

        Raises:
            KeyError: The UID is not that of such a SOP class.
        """
        return _MODELS[sop_class_uid]


_MODELS: Final = {
    uids.PATIENT_ROOT_FIND_SOP_CLASS: InformationModel.PATIENT_ROOT,
    uids.PATIENT_ROOT_MOVE_SOP_CLASS: InformationModel.PATIENT_ROOT,
    uids.PATIENT_ROOT_GET_SOP_CLASS: InformationModel.PATIENT_ROOT,
    uids.STUDY_ROOT_FIND_SOP_CLASS: InformationModel.STUDY_ROOT,
    uids.STUDY_ROOT_MOVE_SOP_CLASS: InformationModel.STUDY_ROOT,
    uids.STUDY_ROOT_GET_SOP_CLASS: InformationModel.STUDY_ROOT,
    uids.PATIENT_STUDY_ONLY_FIND_SOP_CLASS: InformationModel.PATIENT_STUDY_ONLY,
    uids.PATIENT_STUDY_ONLY_MOVE_SOP_CLASS: InformationModel.PATIENT_STUDY_ONLY,
    uids.PATIENT_STUDY_ONLY_GET_SOP_CLASS: InformationModel.PATIENT_STUDY_ONLY,
    "1.2.840.10008.5.1.4.1.2.4.2": InformationModel.COMPOSITE_INSTANCE_ROOT,  # MOVE
    "1.2.840.10008.5.1.4.1.2.4.3": InformationModel.COMPOSITE_INSTANCE_ROOT,  # GET
    "1.2.840.10008.5.1.4.1.2.5.3": InformationModel.COMPOSITE_INSTANCE_ROOT,  # without bulk data
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """The options that were negotiated for a SOP class (PS3.4 C.5.1.1, Tables C.5-1 and C.5-2).

    The fifth byte, enhanced multi-frame image conversion, is not supported.
    """

    relational: bool = False
    combined_datetime: bool = False
    fuzzy_names: bool = False
    timezone_adjustment: bool = False
    empty_value: bool = False
    multiple_value: bool = False

    @classmethod
    def of(cls, application_information: bytes) -> QueryOptions:
        """Read the service-class-application-information that both sides have agreed on."""
        offered = application_information.ljust(7, b"\0")
        return cls(**{name: offered[at] == 1 for at, name in _OPTION_BYTES.items()})

    @staticmethod
    def answer(application_information: bytes) -> bytes:
        """The acceptor's answer to what a requestor offers: 1 for each option that both sides support."""
        return bytes(
            1 if at in _OPTION_BYTES and value == 1 else 0
            for at, value in enumerate(application_information)
        )


_OPTION_BYTES: Final = {
    0: "relational",
    1: "combined_datetime",
    2: "fuzzy_names",
    3: "timezone_adjustment",
    5: "empty_value",
    6: "multiple_value",
}


# -- keys -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SequenceKey:
    """What a key of VR SQ asks of the items of a sequence (PS3.4 C.2.2.2.6).

    Attributes:
        keys: The keys in the item of the identifier; without any, the whole sequence is answered.
        takes_empty: Whether a sequence without items passes.
    """

    keys: tuple[Key, ...]
    takes_empty: bool = False

    @property
    def is_universal(self) -> bool:
        return all(key.is_universal for key in self.keys)


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute that is asked for.

    Attributes:
        criterion: What is asked; None for universal matching. A sequence always has one.
    """

    tag: int
    vr: str
    criterion: Criterion | SequenceKey | None

    @property
    def is_universal(self) -> bool:
        if isinstance(self.criterion, SequenceKey):
            return self.criterion.is_universal
        return self.criterion is None


class Identifier:
    """An identifier that has been read; the numbers of its keys, values and wild cards are bounded.

    Attributes:
        terms: The values of Specific Character Set.
        level: The Query/Retrieve Level, which is one of the model's.
        keys: The keys in the order of their tags.
        minutes: The offset from UTC of the time zone in which times are compared; None when the identifier has none.

    Raises:
        MatchingError: The identifier cannot be answered.
    """

    def __init__(
        self,
        data_set: Dataset,
        model: InformationModel,
        options: QueryOptions,
        *,
        match_unknown: bool,
    ) -> None:
        self._options = options
        self._match_unknown = match_unknown
        self._unique = {UNIQUE_KEYS[level] for level in model.levels}
        self._keys = self._values = self._patterns = self._comparisons = 0
        self._codecs = codecs_of(())
        terms = self._text(data_set, _CHARACTER_SET, "CS")
        self.terms = tuple(terms.split("\\")) if terms else ()
        self._codecs = codecs_of(self.terms)
        self.level = self._level(data_set, model)
        self.minutes = self._minutes(data_set)
        self.keys = self._read(data_set, 0)

    def _level(self, data_set: Dataset, model: InformationModel) -> Level:
        text = self._text(data_set, _LEVEL, "CS")
        if not text:
            raise mismatch("no Query/Retrieve Level (0008,0052)")
        for level in model.levels:
            if level.value == text:
                return level
        raise mismatch("the Query/Retrieve Level is not one of the model's")

    def _minutes(self, data_set: Dataset) -> int | None:
        text = self._text(data_set, _TIMEZONE, "SH")
        if not self._options.timezone_adjustment or not text:
            return None
        try:
            return offset_minutes(text)
        except ValueError:
            raise unable("TimezoneOffsetFromUTC is not an offset like +0130") from None

    def _text(self, data_set: Dataset, tag: int, vr: str) -> str:
        """The text of an element that is not a sequence."""
        if tag not in data_set:
            return ""
        element = _item(data_set, tag)
        value = element.value
        if value is None or (isinstance(value, Sequence) and not value):
            return ""
        if isinstance(value, bytes):
            little = element.is_little_endian if isinstance(element, RawDataElement) else True
            return text_of(vr, value, self._codecs, little_endian=little)
        if isinstance(value, Dataset) or (
            isinstance(value, Sequence) and not isinstance(value, str) and _holds_items(value)
        ):
            raise unable(f"{name_of(tag)} is a sequence, where VR {vr} is expected")
        values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
        return trimmed(vr, "\\".join("" if each is None else str(each) for each in values))

    def _read(self, data_set: Dataset, depth: int) -> tuple[Key, ...]:
        found = []
        for number in sorted(data_set.keys()):
            tag = int(number)
            # Private elements, group lengths, and groups before 0008 are not keys either.
            if tag in _NO_KEYS or not tag & 0xFFFF or tag >> 16 & 1 or tag < _CHARACTER_SET:
                continue
            self._keys += 1
            if self._keys > KEY_LIMIT:
                raise unable(f"more than {KEY_LIMIT} keys")
            found.append(self._key(data_set, tag, depth))
        return tuple(found)

    def _key(self, data_set: Dataset, tag: int, depth: int) -> Key:
        vr = self._vr(data_set, tag)
        if vr == "SQ":
            return Key(tag, vr, self._sequence(data_set, tag, depth))
        return Key(tag, vr, self._criterion(tag, vr, self._text(data_set, tag, vr), depth))

    @staticmethod
    def _vr(data_set: Dataset, tag: int) -> str:
        known = ATTRIBUTES.get(tag) or COMPUTED.get(tag)
        if known is not None:
            return known.vr
        said = _item(data_set, tag).VR
        return vr_of(tag) if said is None or said == "UN" or len(said) != 2 else str(said)

    def _sequence(self, data_set: Dataset, tag: int, depth: int) -> SequenceKey:
        unknown = self._match_unknown and depth == 0
        try:
            value = data_set[tag].value
        except Exception as error:  # pydicom documents no closed set of errors for bad input
            raise unable(f"{name_of(tag)} cannot be read") from error
        if not value:
            return SequenceKey((), unknown)
        if not isinstance(value, Sequence) or not all(isinstance(each, Dataset) for each in value):
            raise unable(f"{name_of(tag)} is not a sequence")
        if len(value) > 1:
            raise unable(f"{name_of(tag)} has more than one item")
        if depth == DEPTH_LIMIT:
            raise unable(f"sequences are nested more than {DEPTH_LIMIT} deep")
        return SequenceKey(self._read(value[0], depth + 1), unknown)

    def _criterion(self, tag: int, vr: str, text: str, depth: int) -> Criterion | None:
        values = [each for each in split(vr, text) if each]
        self._values += len(values)
        if self._values > VALUE_LIMIT:
            raise unable(f"more than {VALUE_LIMIT} values in the keys")
        if not values or vr in _OCTETS:
            return None
        if self._options.empty_value and values == ['""']:
            return Criterion(vr, (), takes_empty=True)
        tests: list[Test] = []
        for value in values:
            found = self._tests(tag, vr, value)
            if not found:
                return None  # any value passes
            tests += found
        self._comparisons += sum(not isinstance(each, Equal) for each in tests)
        if self._comparisons > COMPARISONS_LIMIT:
            raise unable(f"more than {COMPARISONS_LIMIT} ranges, names and wild cards in the keys")
        is_all = (
            self._options.multiple_value
            and len(values) > 1
            and vr in _MULTIPLE_VRS
            and not any(map(is_wild, values))
            and _is_multiple(tag)
        )
        if is_all and len(tests) > TESTS_LIMIT:
            raise unable(f"more than {TESTS_LIMIT} values to be all found in {name_of(tag)}")
        # In a sequence, an item without the attribute never matches.
        takes_empty = self._match_unknown and depth == 0 and tag not in self._unique
        return Criterion(vr, tuple(tests), is_all, takes_empty)

    def _tests(self, tag: int, vr: str, value: str) -> list[Test]:
        """The tests for one value; none when any value of the attribute passes."""
        if vr in WILD_CARD_VRS and is_wild(value):
            value = self._pattern(tag, value)
            if value == "*":
                return []
        longest = VALUE_LENGTHS.get(vr, TEXT_LENGTH)
        if len(value) > longest:
            raise unable(f"a value of {name_of(tag)} has more than {longest} characters")
        return _TESTS.get(vr, Identifier._text_tests)(self, tag, vr, value)

    def _pattern(self, tag: int, value: str) -> str:
        """A value with wild cards, which are counted."""
        value = _collapsed(value)
        self._patterns += 1
        if self._patterns > PATTERNS_LIMIT:
            raise unable(f"more than {PATTERNS_LIMIT} values with wild cards")
        return value

    def _moment_tests(self, tag: int, vr: str, value: str) -> list[Test]:
        # PS3.4 C.2.2.2.4 and C.2.2.2.5.1 allow neither, but consoles that fill every key send them for any value.
        if not value.strip("* ") or value.strip() == "-":
            return []
        try:
            return [range_of(vr, value)]
        except ValueError:
            raise unable(f"{name_of(tag)} is neither a {_KINDS[vr]} nor a range") from None

    def _name_tests(self, tag: int, vr: str, value: str) -> list[Test]:
        tests: list[Test] = [Name.of(value)]
        if self._options.fuzzy_names and not is_wild(value):
            fuzzy = Fuzzy.of(value)
            tests += [fuzzy] if fuzzy.words else []
        return tests

    def _number_tests(self, tag: int, vr: str, value: str) -> list[Test]:
        number = number_key(value)
        return [Number(number) if number else Equal(value)]

    def _text_tests(self, tag: int, vr: str, value: str) -> list[Test]:
        return [Like(value) if vr in WILD_CARD_VRS and is_wild(value) else Equal(value)]


# How the tests for a value are made; text and all other VRs are compared as they are.
_TESTS: Final[Mapping[str, Callable[[Identifier, int, str, str], list[Test]]]] = {
    "DA": Identifier._moment_tests,
    "TM": Identifier._moment_tests,
    "DT": Identifier._moment_tests,
    "PN": Identifier._name_tests,
    "DS": Identifier._number_tests,
}
_KINDS: Final = {"DA": "date", "TM": "time", "DT": "date-time"}


def _collapsed(pattern: str) -> str:
    """A pattern with each run of stars made one star."""
    while "**" in pattern:
        pattern = pattern.replace("**", "*")
    return pattern


def _item(data_set: Dataset, tag: int) -> Any:  # a DataElement, or pydicom's raw form of one
    try:
        return data_set.get_item(tag)
    except Exception as error:  # pydicom documents no closed set of errors for bad input
        raise unable(f"{name_of(tag)} cannot be read") from error


def _holds_items(value: Sequence[Any]) -> bool:
    return any(isinstance(each, Dataset) for each in value)


def _is_multiple(tag: int) -> bool:
    try:
        return dictionary_VM(tag) != "1"
    except KeyError:
        return False


def name_of(tag: int) -> str:
    """The name of an attribute for an error comment, which has room for 64 characters."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
