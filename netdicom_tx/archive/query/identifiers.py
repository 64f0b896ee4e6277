"""The keys of an identifier, as tests of values (PS3.4 C.2.2.2).

Here is read what came: elements that may be anything at all become :class:`Key`, or a
:class:`MatchingError`. Which rows they ask for is in :mod:`netdicom_tx.archive.query.matching`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

#: Values of all keys together, keys, characters of a key with wild cards, and such keys.
VALUE_LIMIT: Final = 10_000
KEY_LIMIT: Final = 512
PATTERN_LIMIT: Final = 1_024
PATTERNS_LIMIT: Final = 100
#: Sequences within sequences of an identifier.
DEPTH_LIMIT: Final = 8

_CHARACTER_SET, _LEVEL, _TIMEZONE = 0x00080005, 0x00080052, 0x00080201
# Parts of an identifier that are no keys: also view, AE title, availability, media.
_NO_KEYS: Final = frozenset(
    (_CHARACTER_SET, _LEVEL, 0x00080053, 0x00080054, 0x00080056, _TIMEZONE, 0x00880130, 0x00880140)
)
#: What names an entity of a level for good (PS3.4 C.6); in the study root the patient has none.
UNIQUE_KEYS: Final = {each.level: each.tag for each in ATTRIBUTES.values() if each.key_type == "U"}
_OCTETS: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
#: PS3.4 C.2.2.2.8.
_MULTIPLE_VRS: Final = frozenset(("AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"))


class MatchingError(StatusError):
    """An identifier cannot be answered: 0xA900 for what is missing in it, 0xC000 for a bad value."""


def mismatch(comment: str) -> MatchingError:
    """The identifier is not one of the SOP class."""
    return MatchingError(statuses.C_FIND_IDENTIFIER_DOES_NOT_MATCH, comment)


def unable(comment: str) -> MatchingError:
    """A key cannot be matched."""
    return MatchingError(statuses.C_FIND_UNABLE_TO_PROCESS, comment)


class InformationModel(Enum):
    """Which levels there are, and which SOP classes ask for them (PS3.4 C.6, Y, Z)."""

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
            KeyError: It is none of these.
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
    """What was negotiated for a SOP class (PS3.4 C.5.1.1, Tables C.5-1 and C.5-2).

    Enhanced multi-frame image conversion, the fifth byte, is not supported.
    """

    relational: bool = False
    combined_datetime: bool = False
    fuzzy_names: bool = False
    timezone_adjustment: bool = False
    empty_value: bool = False
    multiple_value: bool = False

    @classmethod
    def of(cls, application_information: bytes) -> QueryOptions:
        """From the service-class-application-information that both sides agreed on."""
        offered = application_information.ljust(7, b"\0")
        return cls(**{name: offered[at] == 1 for at, name in _OPTION_BYTES.items()})

    @staticmethod
    def answer(application_information: bytes) -> bytes:
        """What an acceptor returns for what a requestor offers: 1 where both sides can."""
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
        keys: Of the item; without any, the whole sequence is answered.
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
        criterion: None is universal matching. Of a sequence there is always one.
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
    """An identifier that was read.

    Counts what must have an end: keys, values, wild cards.

    Attributes:
        terms: Its Specific Character Set.
        level: Its Query/Retrieve Level, which the model has.
        keys: In the order of their tags.
        minutes: From UTC, of the zone that its times are to be compared in; None without such.

    Raises:
        MatchingError: It cannot be answered.
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
        self._keys = self._values = self._patterns = 0
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
        raise mismatch("the Query/Retrieve Level is none of the model's")

    def _minutes(self, data_set: Dataset) -> int | None:
        text = self._text(data_set, _TIMEZONE, "SH")
        if not self._options.timezone_adjustment or not text:
            return None
        try:
            return offset_minutes(text)
        except ValueError:
            raise unable("TimezoneOffsetFromUTC is no offset") from None

    def _text(self, data_set: Dataset, tag: int, vr: str) -> str:
        """The values of an element that is no sequence."""
        if tag not in data_set:
            return ""
        element = data_set.get_item(tag)
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
            # Private elements, group lengths, and groups before 0008 are no keys either.
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
        element = data_set.get_item(tag)
        said = element.VR
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
            raise unable(f"{name_of(tag)} is no sequence")
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
        is_all = (
            self._options.multiple_value
            and len(values) > 1
            and vr in _MULTIPLE_VRS
            and not any(map(is_wild, values))
            and _is_multiple(tag)
        )
        # An item without the attribute is not the item that is looked for.
        takes_empty = self._match_unknown and depth == 0 and tag not in self._unique
        return Criterion(vr, tuple(tests), is_all, takes_empty)

    def _tests(self, tag: int, vr: str, value: str) -> list[Test]:
        """The tests for one value; none when anything passes."""
        if vr in ("DA", "TM", "DT"):
            try:
                return [range_of(vr, value)]
            except ValueError:
                raise unable(f"{name_of(tag)} is neither a {_KINDS[vr]} nor a range") from None
        if vr in WILD_CARD_VRS and is_wild(value):
            value = _collapsed(value)
            self._patterns += 1
            if self._patterns > PATTERNS_LIMIT or len(value) > PATTERN_LIMIT:
                raise unable(f"too many or too long wild cards in {name_of(tag)}")
            if value == "*":
                return []
        if vr == "PN":
            name = Name.of(value)
            if self._options.fuzzy_names and not is_wild(value):
                fuzzy = Fuzzy.of(value)
                return [name, fuzzy] if fuzzy.words else [name]
            return [name]
        if vr in WILD_CARD_VRS and is_wild(value):
            return [Like(value)]
        if vr == "DS" and number_key(value):
            return [Number(number_key(value))]
        return [Equal(value)]


_KINDS: Final = {"DA": "date", "TM": "time", "DT": "date-time"}


def _collapsed(pattern: str) -> str:
    """Many stars in a row are one."""
    while "**" in pattern:
        pattern = pattern.replace("**", "*")
    return pattern


def _holds_items(value: Sequence[Any]) -> bool:
    return any(isinstance(each, Dataset) for each in value)


def _is_multiple(tag: int) -> bool:
    try:
        return dictionary_VM(tag) != "1"
    except KeyError:
        return False


def name_of(tag: int) -> str:
    """For a comment: it has 64 characters in all."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
