r"""Query keys, as they are written on a command line.

===========================================  ==============================================
``PatientName=DOE*``                         keyword and value
``PatientName``                              keyword: return it, whatever it is
``0010,0010=DOE*``, ``(0010,0010)=DOE*``     tag
``StudyInstanceUID=1.2.3\1.2.4``             several values
``ScheduledProcedureStepSequence.Modality``  path into a sequence
``(0040,0100)[0].Modality=CT``               the same, as DCMTK writes it
===========================================  ==============================================
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from .failures import bad_input

__all__ = ["Key", "identifier", "parse_key", "parse_keys", "text_of"]

_SYNTAX = "write Keyword=value or gggg,eeee=value; in a sequence Sequence.Keyword=value"
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?\s*([0-9A-Fa-f]{4})\)?", re.ASCII)
_STEP = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<item>\d+)\])?", re.ASCII)
# A sequence has no use for more, and each index up to it makes items.
_MOST_ITEMS = 100
# One value, whatever is in it (PS3.5 6.4).
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


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        path: The sequences it is in, each with the number of the item.
        value: As written; None when only its return is asked for.
    """

    path: tuple[tuple[BaseTag, int], ...]
    tag: BaseTag
    value: str | None

    @property
    def name(self) -> str:
        """For the head of a column."""
        return ".".join([*(_name(tag) for tag, _ in self.path), _name(self.tag)])

    def values(self, data_set: Dataset) -> list[Any]:
        """What a data set has for it; of all items, where it is in a sequence."""
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
    """A key.

    Raises:
        CommandError: It is none; the message has keywords that are near.
    """
    path, given, value = text.partition("=")
    steps: list[tuple[BaseTag, int]] = []
    # A dot stands between steps: a tag and a keyword have none.
    parts = path.strip().split(".")
    for part in parts:
        match = _STEP.fullmatch(part.strip())
        if match is None:
            raise bad_input(f"{text!r} is no query key", f"{part!r} cannot be read", _SYNTAX)
        item = int(match["item"] or 0)
        if item >= _MOST_ITEMS:
            raise bad_input(
                f"{text!r} is no query key", f"item {item} of a sequence", "begin with item 0"
            )
        steps.append((_tag(match["name"], text), item))
    *around, (tag, _) = steps
    for sequence, _ in around:
        if _vr(sequence) not in ("SQ", "UN"):
            raise bad_input(
                f"{text!r} is no query key",
                f"{_name(sequence)} is no sequence: nothing is inside it",
                _SYNTAX,
            )
    return Key(tuple(around), tag, value if given else None)


def parse_keys(texts: Iterable[str]) -> list[Key]:
    """Keys in their order."""
    return [parse_key(text) for text in texts]


def _tag(name: str, text: str) -> BaseTag:
    match = _TAG.fullmatch(name.strip())
    if match is not None:
        tag = Tag(int(match[1], 16), int(match[2], 16))
        if tag.group in (0x0000, 0x0002) or tag.element == 0:
            raise bad_input(
                f"{text!r} is no query key",
                f"{tag} is not part of a data set",
                "groups 0000 and 0002 and group lengths are made by the program",
            )
        return tag
    number = keyword_dict.get(name)
    if number is None:
        near = _near(name)
        raise bad_input(
            f"{name!r} is no DICOM keyword",
            f"the key is {text!r}; PS3.6 has no such keyword",
            f"did you mean {' or '.join(near)}?" if near else _SYNTAX,
        )
    return Tag(number)


def _near(name: str) -> list[str]:
    """At most three keywords that look like it."""
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
        keys: A later one takes the place of an earlier one.
        level: For Query/Retrieve Level (0008,0052); None leaves it out.

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
                f"{text!r} was given",
                f"write {key.name}.Keyword=value",
            )
        if key.tag not in holder:  # items that an earlier key has made stay
            holder.add(DataElement(key.tag, "SQ", []))
        return
    try:
        element = DataElement(
            key.tag,
            vr,
            _value(vr, text),
            # Wildcards, ranges and lists are none of the values that the VR allows (PS3.4 C.2.2.2).
            validation_mode=config.IGNORE,
        )
    except ValueError as error:
        raise bad_input(
            f"{text!r} is no value for {key.name}",
            f"its value representation is {vr}: {error}",
            "leave it empty to have it returned, and look through the answers",
        ) from error
    holder.add(element)


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
        raise ValueError("it cannot be matched")
    return parts[0] if len(parts) == 1 else parts


def text_of(values: Iterable[DataElement]) -> str:
    """Elements for a table: several values with a backslash, several items with a semicolon."""
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
