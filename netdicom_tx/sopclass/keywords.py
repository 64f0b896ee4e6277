"""Identifiers from keyword arguments: ``PatientName="DOE*", StudyInstanceUID=""`` (PS3.4 C.4.1.1.3, K.4.1.1.3).

The keywords are those of PS3.6. The peer matches the attribute against the value; an empty value asks the peer to
return the attribute. The calls of :mod:`netdicom_tx.verbs` make their identifiers here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import date, datetime, time
from typing import Any, Final, cast

from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_dict
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from ..arguments import check_type
from ..exceptions import LocalProtocolError

__all__ = ["UNIQUE_KEYS", "identifier", "unique", "worklist_identifier"]

#: The unique key of each query/retrieve level (PS3.4 C.6.1.1, C.6.2.1), the highest level first.
UNIQUE_KEYS: Final[Mapping[str, str]] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_INTEGERS = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
_REALS = frozenset({"FD", "FL"})
_STEP = "ScheduledProcedureStepSequence"
# The attributes that belong into the Scheduled Procedure Step Sequence (PS3.4 Table K.6-1).
_OF_STEP = frozenset(
    {
        "Modality",
        "PreMedication",
        "RequestedContrastAgent",
        "ScheduledPerformingPhysicianName",
        "ScheduledProcedureStepDescription",
        "ScheduledProcedureStepEndDate",
        "ScheduledProcedureStepEndTime",
        "ScheduledProcedureStepID",
        "ScheduledProcedureStepLocation",
        "ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepStartTime",
        "ScheduledProcedureStepStatus",
        "ScheduledProtocolCodeSequence",
        "ScheduledStationAETitle",
        "ScheduledStationName",
    }
)
# The attributes that a worklist query asks for by default: those that a modality puts into its images.
_WORKLIST_KEYS = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "RequestedProcedureDescription",
    "RequestedProcedureID",
    "StudyInstanceUID",
    "Modality",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "ScheduledStationAETitle",
)


def identifier(level: str, given: Dataset | None, keys: Mapping[str, object]) -> Dataset:
    """The identifier of a C-FIND, C-GET or C-MOVE.

    Args:
        level: PATIENT, STUDY, SERIES or IMAGE, in any case.
        given: An identifier to begin with, which is copied; None begins with an empty one.
        keys: Values by keyword. A list is a list of values, a dict or a :class:`pydicom.Dataset` is an item
            of a sequence. Text outside ASCII is sent as UTF-8 (``ISO_IR 192``).

    Raises:
        TypeError: ``given`` is not a data set.
        LocalProtocolError: The level or a keyword is unknown, or a value does not fit its attribute.
    """
    upper = level.upper() if isinstance(level, str) else level
    if upper not in UNIQUE_KEYS:
        raise LocalProtocolError(
            f"{level!r} is not a query/retrieve level; expected {', '.join(UNIQUE_KEYS)} (PS3.4 C.6)"
        )
    made = _begun(given)
    made.QueryRetrieveLevel = upper
    if UNIQUE_KEYS[upper] not in made:
        setattr(made, UNIQUE_KEYS[upper], "")
    _fill(made, keys)
    _name_character_set(made)
    return made


def unique(wanted: Dataset) -> Dataset:
    """The identifier of a retrieve, which must say what to retrieve (PS3.4 C.4.2.2.1).

    Raises:
        LocalProtocolError: The unique key of its level has no value.
    """
    keyword = UNIQUE_KEYS[wanted.QueryRetrieveLevel]
    if not wanted.get(keyword):
        raise LocalProtocolError(
            f"nothing says what to retrieve: at level {wanted.QueryRetrieveLevel} give {keyword} a value"
        )
    return wanted


def worklist_identifier(given: Dataset | None, keys: Mapping[str, object]) -> Dataset:
    """The identifier of a modality worklist query.

    Attributes of the scheduled step, such as ``Modality``, are put into the Scheduled Procedure Step
    Sequence (0040,0100). Without ``given``, the query also asks for the attributes that a modality puts into its
    images.

    Raises:
        LocalProtocolError: A keyword is unknown, or a value does not fit its attribute.
    """
    made = _begun(given)
    wanted: dict[str, object] = {} if given is not None else dict.fromkeys(_WORKLIST_KEYS, "")
    wanted.update(keys)
    inside = {name: wanted.pop(name) for name in list(wanted) if name in _OF_STEP}
    if inside:
        if not made.get(_STEP):
            made.add(DataElement(keyword_dict[_STEP], "SQ", [Dataset()]))
        _fill(made[_STEP].value[0], inside)
    _fill(made, wanted)
    _name_character_set(made)
    return made


def _begun(given: Dataset | None) -> Dataset:
    if given is None:
        return Dataset()
    check_type("the identifier", given, Dataset, "a pydicom.Dataset")
    return deepcopy(given)


def _fill(made: Dataset, keys: Mapping[str, object]) -> None:
    for keyword, value in keys.items():
        made.add(_element(keyword, value))


def _name_character_set(made: Dataset) -> None:
    if "SpecificCharacterSet" not in made and not all(map(str.isascii, _texts(made))):
        made.SpecificCharacterSet = "ISO_IR 192"


def _texts(data_set: Dataset) -> Iterable[str]:
    for element in data_set:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif not isinstance(element.value, bytes):
            yield str(element.value)


def _element(keyword: str, value: object) -> DataElement:
    tag = keyword_dict.get(keyword)
    if tag is None:
        near = difflib.get_close_matches(keyword, keyword_dict, n=2, cutoff=0.75)
        hint = f"did you mean {' or '.join(near)}?" if near else "PS3.6 lists the keywords"
        raise LocalProtocolError(f"{keyword!r} is not the keyword of a DICOM attribute; {hint}")
    vr = dictionary_VR(tag).split(" or ")[0]
    try:
        # Wildcards, ranges and lists are not among the values that a VR allows (PS3.4 C.2.2.2).
        return DataElement(tag, vr, _value(vr, value), validation_mode=config.IGNORE)
    except (TypeError, ValueError) as error:
        raise LocalProtocolError(
            f"{value!r} is not a value for {keyword}, whose value representation is {vr}: {error}"
        ) from error


def _value(vr: str, value: object) -> Any:  # the types that pydicom accepts for this VR
    if vr == "SQ":
        items = [value] if isinstance(value, Mapping | Dataset) else list(_listed(value))
        return [_item(each) for each in items]
    if value is None or value == "":
        return None
    if isinstance(value, list | tuple):
        return [_value(vr, each) for each in value]
    if vr in _INTEGERS:
        return int(cast(Any, value))
    if vr in _REALS:
        return float(cast(Any, value))
    if isinstance(value, datetime) and vr == "DT":
        return value.strftime("%Y%m%d%H%M%S.%f%z")
    if isinstance(value, date) and vr in ("DA", "DT"):
        return value.strftime("%Y%m%d")
    if isinstance(value, time) and vr == "TM":
        return value.strftime("%H%M%S.%f")
    return value


def _listed(value: object) -> Iterable[object]:
    if value is None or value == "":
        return ()
    if isinstance(value, list | tuple):
        return value
    raise TypeError("expected a dict, a Dataset or a list of them")


def _item(value: object) -> Dataset:
    if isinstance(value, Dataset):
        return value
    if isinstance(value, Mapping):
        made = Dataset()
        _fill(made, value)
        return made
    raise TypeError("expected a dict or a Dataset for each item")
