r"""Query keys as they are written on a command line.

===========================================  ==============================================
``PatientName=DOE*``                         keyword and value
``PatientName``                              keyword: return its value
``0010,0010=DOE*``, ``(0010,0010)=DOE*``     tag
``StudyInstanceUID=1.2.3\1.2.4``             several values
``ScheduledProcedureStepSequence.Modality``  path into a sequence
``(0040,0100)[0].Modality=CT``               the same, as DCMTK writes it
===========================================  ==============================================
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from ...archive.encoded.values import Moment, date_range, moment_range, time_range
from .failures import bad_input

__all__ = ["Key", "identifier", "parse_key", "parse_keys", "text_of"]

_SYNTAX = "write Keyword=value or gggg,eeee=value; in a sequence Sequence.Keyword=value"
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?\s*([0-9A-Fa-f]{4})\)?", re.ASCII)
_STEP = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<item>\d+)\])?", re.ASCII)
# No key needs more items of a sequence, and each index up to this one makes items.
_MOST_ITEMS = 100
# VRs with one value, in which a backslash means nothing (PS3.5 6.4).
_NO_BACKSLASH = frozenset({"LT", "ST", "UT", "UR"})
_INTEGERS = {
    "US": range(1 << 16),
    "SS": range(-(1 << 15), 1 << 15),
    "UL": range(1 << 32),
    "SL": range(-(1 << 31), 1 << 31),
    "UV": range(1 << 64),
    "SV": range(-(1 << 63), 1 << 63),
}
_REALS = frozenset({"FL", "FD"})


class _Moment(NamedTuple):
    """How the values of a VR with dates or times are read, and written."""

    read: Callable[[str], Moment]
    form: re.Pattern[str]
    words: str
    range: str


_MOMENTS = {
    "DA": _Moment(date_range, re.compile(r"\d{8}"), "YYYYMMDD", "20261101-20261130"),
    "TM": _Moment(time_range, re.compile(r"[\d.]+"), "HHMMSS, HHMM or HH", "0900-1200"),
    "DT": _Moment(
        moment_range, re.compile(r"[\d.+-]+"), "YYYYMMDDHHMMSS", "20261101080000-20261101120000"
    ),
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        path: The sequences that the key is in, each with the number of the item.
        value: The value as written; None when the key is only to be returned.
    """

    path: tuple[tuple[BaseTag, int], ...]
    tag: BaseTag
    value: str | None

    @property
    def name(self) -> str:
        """The name of the key, for the head of a column."""
        return ".".join([*(_name(tag) for tag, _ in self.path), _name(self.tag)])

    def values(self, data_set: Dataset) -> list[Any]:
        """The elements of a data set that belong to the key: of all items, where it is in a sequence."""
        holders = [data_set]
        for tag, _ in self.path:
            holders = [
                item
                for holder in holders
                if tag in holder and holder[tag].VR == "SQ"
                for item in holder[tag].value
            ]
        return [holder[self.tag] for holder in holders if self.tag in holder]


def _name(tag: BaseTag) -> str:
    return keyword_for_tag(tag) or f"{tag.group:04X},{tag.element:04X}"


def parse_key(text: str) -> Key:
    """Read a key.

    Raises:
        CommandError: The text is not a key; the message suggests keywords that are similar.
    """
    path, given, value = text.partition("=")
    steps: list[tuple[BaseTag, int]] = []
    # A dot stands between steps: a tag and a keyword have none.
    parts = path.strip().split(".")
    for part in parts:
        match = _STEP.fullmatch(part.strip())
        if match is None:
            raise bad_input(f"{text!r} is not a query key", f"{part!r} cannot be read", _SYNTAX)
        item = int(match["item"] or 0)
        if item >= _MOST_ITEMS:
            raise bad_input(
                f"{text!r} is not a query key",
                f"expected an item from 0 to {_MOST_ITEMS - 1}, not {item}",
                "count the items of a sequence from 0",
            )
        steps.append((_tag(match["name"], text), item))
    *around, (tag, _) = steps
    for sequence, _ in around:
        if _vr(sequence) not in ("SQ", "UN"):
            raise bad_input(
                f"{text!r} is not a query key",
                f"{_name(sequence)} is not a sequence, so it contains no {_name(tag)}",
                _SYNTAX,
            )
    return Key(tuple(around), tag, value if given else None)


def parse_keys(texts: Iterable[str]) -> list[Key]:
    """Read keys, in their order."""
    return [parse_key(text) for text in texts]


def _tag(name: str, text: str) -> BaseTag:
    match = _TAG.fullmatch(name.strip())
    if match is not None:
        tag = Tag(int(match[1], 16), int(match[2], 16))
        if tag.group in (0x0000, 0x0002) or tag.element == 0:
            raise bad_input(
                f"{text!r} is not a query key",
                f"{tag} is not part of a data set",
                "groups 0000 and 0002 and group lengths are written by the program",
            )
        return tag
    number = keyword_dict.get(name)
    if number is None:
        near = _near(name)
        raise bad_input(
            f"{name!r} is not a DICOM keyword",
            f"the key is {text!r}; PS3.6 has no such keyword",
            f"did you mean {' or '.join(near)}?" if near else _SYNTAX,
        )
    return Tag(number)


def _near(name: str) -> list[str]:
    """At most three keywords that are similar."""
    by_lower = {keyword.lower(): keyword for keyword in keyword_dict if keyword}
    lowered = name.lower().replace(" ", "").replace("_", "")
    near = difflib.get_close_matches(lowered, by_lower, n=3, cutoff=0.75)
    if not near:
        near = sorted((each for each in by_lower if lowered and lowered in each), key=len)[:3]
    return [by_lower[each] for each in near]


def _vr(tag: BaseTag) -> str:
    try:
        # "US or SS", "OB or OW": the first will do for a key.
        return dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        return "UN"


def identifier(keys: Sequence[Key], level: str | None = None) -> Dataset:
    """The identifier of a C-FIND, C-GET or C-MOVE.

    Args:
        keys: The keys; a later one replaces an earlier one for the same attribute.
        level: The value of Query/Retrieve Level (0008,0052); None leaves it out.

    Raises:
        CommandError: A value does not fit its attribute.
    """
    made = Dataset()
    if any(key.value is not None and not key.value.isascii() for key in keys):
        made.SpecificCharacterSet = "ISO_IR 192"
    if level is not None:
        made.QueryRetrieveLevel = level
    for key in keys:
        holder = made
        for tag, item in key.path:
            if tag not in holder:
                holder.add(DataElement(tag, "SQ", []))
            items = holder[tag].value
            while len(items) <= item:
                items.append(Dataset())
            holder = items[item]
        _put(holder, key)
    return made


def _put(holder: Dataset, key: Key) -> None:
    vr = _vr(key.tag)
    text = key.value or ""
    if vr == "SQ":
        if text:
            raise bad_input(
                f"{key.name} is a sequence and has no value of its own",
                f"the value is {text!r}",
                f"write {key.name}.Keyword=value",
            )
        if key.tag not in holder:  # items that an earlier key has made stay
            holder.add(DataElement(key.tag, "SQ", []))
        return
    try:
        _check_moments(vr, text)
        element = DataElement(
            key.tag,
            vr,
            _value(vr, text),
            # Wildcards, ranges and lists are not values that the VR allows (PS3.4 C.2.2.2).
            validation_mode=config.IGNORE,
        )
    except ValueError as error:
        hint = "leave it empty to have it returned, and look through the answers"
        if vr in _MOMENTS:
            hint = f"write {_MOMENTS[vr].words}, or a range such as {_MOMENTS[vr].range}"
        raise bad_input(
            f"{text!r} is not a value for {key.name}",
            f"its value representation is {vr}: {error}",
            hint,
        ) from error
    holder.add(element)


def _check_moments(vr: str, text: str) -> None:
    """See that dates and times, and ranges of them, can be matched (PS3.4 C.2.2.2.5).

    Raises:
        ValueError: One cannot.
    """
    if vr in _MOMENTS:
        for part in text.split("\\"):
            if part not in ("", "*"):
                _check_moment(_MOMENTS[vr], part)


def _check_moment(kind: _Moment, text: str) -> None:
    if _moment(kind, text) is not None:
        return
    # The offset of a DT has a minus, too: a range may be cut at any of them.
    cuts = [each.start() for each in re.finditer("-", text)]
    for first, last in ((text[:cut].strip(), text[cut + 1 :].strip()) for cut in cuts):
        begin, end = _moment(kind, first), _moment(kind, last)
        if (begin or not first) and (end or not last) and (begin or end):
            if begin and end and begin.first > end.last:
                raise ValueError(f"the range is reversed: {first} is after {last}")
            return
    digits = re.sub(r"\D", "", text)
    meant = f"; did you mean {digits}?" if _moment(kind, digits) and digits != text else ""
    raise ValueError(f"expected {kind.words}{meant}")


def _moment(kind: _Moment, text: str) -> Moment | None:
    if kind.form.fullmatch(text) is None:
        return None
    try:
        return kind.read(text)
    except ValueError:
        return None


def _value(vr: str, text: str) -> Any:  # what pydicom takes for this VR
    if vr == "UN":
        octets = text.encode()
        return octets + b" " * (len(octets) % 2)  # PS3.5 7.1.1; pydicom pads no UN
    if not text:
        return None
    if vr in _NO_BACKSLASH:
        return text
    parts: list[Any] = text.split("\\")
    if vr in _INTEGERS:
        parts = [int(part) for part in parts]
        if any(number not in _INTEGERS[vr] for number in parts):
            limits = _INTEGERS[vr]
            raise ValueError(f"expected {limits[0]} to {limits[-1]}")
    elif vr in _REALS:
        parts = [float(part) for part in parts]
    elif vr == "AT":
        found = [_TAG.fullmatch(part) for part in parts]
        if not all(found):
            raise ValueError("expected gggg,eeee")
        parts = [Tag(int(each[1], 16), int(each[2], 16)) for each in found if each]
    elif vr.startswith("O"):
        raise ValueError("such a value cannot be matched")
    return parts[0] if len(parts) == 1 else parts


def text_of(values: Iterable[DataElement]) -> str:
    """Elements as text: a backslash separates values, a semicolon the items of a sequence."""
    return "; ".join(_text(each) for each in values)


def _text(element: DataElement) -> str:
    value = element.value
    if value is None:
        return ""
    if element.VR == "SQ":
        return f"{len(value)} item{'' if len(value) == 1 else 's'}"
    if isinstance(value, bytes):
        return f"{len(value)} octets"
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join("" if each is None else str(each) for each in value)
    return str(value)
