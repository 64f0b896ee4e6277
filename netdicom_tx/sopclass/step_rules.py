"""What a performed procedure step must have, and how it may change (PS3.4 F.7.2).

PS3.4 Table F.7.2-1 is data here, and the functions are pure. A program that stores steps calls :func:`updated` in the
transaction that stores the result. When two final N-SETs arrive at the same time, only one finds the step IN PROGRESS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import chain
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from .. import dsutils, statuses
from ..dimsemessages import Request, Response
from ..exceptions import StatusError
from ..statuses import Status
from ..uids import EXPLICIT_VR_LITTLE_ENDIAN

__all__ = [
    "COMPLETED",
    "DISCONTINUED",
    "IN_PROGRESS",
    "RULES",
    "ProcedureStepError",
    "Rule",
    "check_create",
    "check_types",
    "selected",
    "state_of",
    "updated",
]

IN_PROGRESS: Final = "IN PROGRESS"
COMPLETED: Final = "COMPLETED"
DISCONTINUED: Final = "DISCONTINUED"
_STATES: Final = (IN_PROGRESS, COMPLETED, DISCONTINUED)

_STATUS, _CHARACTER_SET = 0x00400252, 0x00080005
# PS3.4 Table F.7.2-2.
_MAY_NO_LONGER_BE_UPDATED: Final = 0xA710
_NO_UPDATE: Final = "Performed Procedure Step Object may no longer be updated"

# PS3.4 Table F.7.2-1: each attribute with its type in N-CREATE, in N-SET (-: not allowed) and in a final state
# (.: as in N-CREATE). The items of a sequence follow it. Attributes that are missing here are optional.
_TABLE = """
    0008,0005     1C 1C .  SpecificCharacterSet
    0040,0270     1  -  .  ScheduledStepAttributesSequence
    >0020,000D    1  -  .  StudyInstanceUID
    >0008,1110    2  -  .  ReferencedStudySequence
    >>0008,1150   1  -  .  ReferencedSOPClassUID
    >>0008,1155   1  -  .  ReferencedSOPInstanceUID
    >0008,0050    2  -  .  AccessionNumber
    >0040,1001    2  -  .  RequestedProcedureID
    >0032,1060    2  -  .  RequestedProcedureDescription
    >0040,0009    2  -  .  ScheduledProcedureStepID
    >0040,0007    2  -  .  ScheduledProcedureStepDescription
    >0040,0008    2  -  .  ScheduledProtocolCodeSequence
    0010,0010     2  -  .  PatientName
    0010,0020     2  -  .  PatientID
    0010,0021     3  -  .  IssuerOfPatientID
    0010,0024     3  -  .  IssuerOfPatientIDQualifiersSequence
    0010,1002     3  -  .  OtherPatientIDsSequence
    0010,0030     2  -  .  PatientBirthDate
    0010,0040     2  -  .  PatientSex
    0008,1120     2  -  .  ReferencedPatientSequence
    >0008,1150    1  -  .  ReferencedSOPClassUID
    >0008,1155    1  -  .  ReferencedSOPInstanceUID
    0038,0010     3  -  .  AdmissionID
    0038,0014     3  -  .  IssuerOfAdmissionIDSequence
    0038,0060     3  -  .  ServiceEpisodeID
    0038,0064     3  -  .  IssuerOfServiceEpisodeIDSequence
    0038,0062     3  -  .  ServiceEpisodeDescription
    0040,0253     1  -  .  PerformedProcedureStepID
    0040,0241     1  -  .  PerformedStationAETitle
    0040,0242     2  -  .  PerformedStationName
    0040,0243     2  -  .  PerformedLocation
    0040,0244     1  -  .  PerformedProcedureStepStartDate
    0040,0245     1  -  .  PerformedProcedureStepStartTime
    0040,0252     1  1  .  PerformedProcedureStepStatus
    0040,0254     2  2  .  PerformedProcedureStepDescription
    0040,0255     2  2  .  PerformedProcedureTypeDescription
    0008,1032     2  2  .  ProcedureCodeSequence
    0040,1012     3  3  .  ReasonForPerformedProcedureCodeSequence
    0040,0250     2  1  1  PerformedProcedureStepEndDate
    0040,0251     2  1  1  PerformedProcedureStepEndTime
    0040,0280     3  3  .  CommentsOnThePerformedProcedureStep
    0040,0281     3  3  .  PerformedProcedureStepDiscontinuationReasonCodeSequence
    0008,0060     1  -  .  Modality
    0020,0010     2  -  .  StudyID
    0040,0260     2  2  .  PerformedProtocolCodeSequence
    0040,0340     2  1  1  PerformedSeriesSequence
    >0008,1050    2  2  2  PerformingPhysicianName
    >0018,1030    1  1  1  ProtocolName
    >0008,1070    2  2  2  OperatorsName
    >0020,000E    1  1  1  SeriesInstanceUID
    >0008,103E    2  2  2  SeriesDescription
    >0008,0054    2  2  2  RetrieveAETitle
    >0008,1140    2  2  .  ReferencedImageSequence
    >>0008,1150   1  1  .  ReferencedSOPClassUID
    >>0008,1155   1  1  .  ReferencedSOPInstanceUID
    >0040,0220    2  2  .  ReferencedNonImageCompositeSOPInstanceSequence
    >>0008,1150   1  1  .  ReferencedSOPClassUID
    >>0008,1155   1  1  .  ReferencedSOPInstanceUID
"""


class Rule(NamedTuple):
    """A row of the table.

    Attributes:
        tag: The tag of the attribute.
        create: The type in N-CREATE.
        modify: The type in N-SET; ``-`` means not allowed.
        final: The type in a final state; ``.`` means that of N-CREATE.
        items: The rules of the items of a sequence.
    """

    tag: int
    create: str
    modify: str
    final: str
    items: tuple[Rule, ...]


def _read(lines: list[str], depth: int = 0) -> Iterator[Rule]:
    """The rules at one depth, which are removed from the front of the list."""
    while lines and lines[0].count(">") == depth:
        tag, create, modify, final, _ = lines.pop(0).lstrip(">").split()
        items = tuple(_read(lines, depth + 1))
        yield Rule(int(tag.replace(",", ""), 16), create, modify, final, items)


#: The attributes of a step, by tag.
RULES: Final = {rule.tag: rule for rule in _read(_TABLE.split("\n    ")[1:])}


class ProcedureStepError(StatusError):
    """A request about a step is refused.

    Args:
        status: The status of the answer.
        comment: The Error Comment of the answer.
        attributes: The tags for the Attribute Identifier List (0000,1005).
        error_id: The Error ID (0000,0903).
    """

    def __init__(
        self,
        status: int,
        comment: str = "",
        attributes: Iterable[int] = (),
        error_id: int | None = None,
    ) -> None:
        super().__init__(status, comment)
        self.attributes = tuple(attributes)
        self.error_id = error_id

    def response(self, msg: Request) -> Response:
        """The answer to the request."""
        assert self.status is not None
        return msg.response(
            self.status,
            error_comment=self.comment,
            error_id=self.error_id,
            attribute_identifier_list=self.attributes or None,
        )


def state_of(ds: Dataset) -> str:
    """The value of Performed Procedure Step Status; empty when the step has no value."""
    return str(ds.get("PerformedProcedureStepStatus", "") or "").strip()


def check_create(ds: Dataset) -> None:
    """Check that a step may be created with these attributes (PS3.4 F.7.2.1).

    Attributes of type 2 may be absent: many modalities leave out attributes that they have no value for.

    Raises:
        ProcedureStepError: The status is not IN PROGRESS (0x0106), or :func:`check_types` raises it.
    """
    check_types(ds, RULES.values())
    state = state_of(ds)
    if state != IN_PROGRESS:
        raise ProcedureStepError(
            statuses.INVALID_ATTRIBUTE_VALUE,
            f"a new step is {IN_PROGRESS}; it came with another status",
            [_STATUS],
        )


def check_types(ds: Dataset, rules: Iterable[Rule]) -> None:
    """Check that a data set has the attributes that N-CREATE requires.

    Raises:
        ProcedureStepError: An attribute is a sequence where it should not be, or the reverse, or a UID has several
            values (0x0106); an attribute of type 1 is missing (0x0120), or has no value (0x0121).
    """
    _check_form(ds, rules)
    absent, empty = _lacks(ds, rules, "create")
    if absent:
        raise _incomplete(statuses.MISSING_ATTRIBUTE, absent)
    if empty:
        raise _incomplete(statuses.MISSING_ATTRIBUTE_VALUE, empty)


def updated(current: Dataset, modifications: Dataset) -> Dataset:
    """The step after an N-SET (PS3.4 F.7.2.2).

    An attribute that may not be set is accepted if it repeats the value of the step. Optional attributes
    need not have been created. Text without a Specific Character Set of its own is in that of the step.

    Returns:
        A new data set; the arguments are not changed.

    Raises:
        ProcedureStepError: The step is in a final state (0x0110 with Error ID A710); an attribute may not be set
            (0x0105); the status is not one of the three, or an attribute has the wrong form (0x0106); an attribute
            that a sequence or a final state needs is missing (0x0121).
    """
    if state_of(current) != IN_PROGRESS:
        raise ProcedureStepError(
            statuses.PROCESSING_FAILURE, _NO_UPDATE, error_id=_MAY_NO_LONGER_BE_UPDATED
        )
    modifications = _in_character_set_of(current, modifications)
    _check_form(modifications, RULES.values())
    refused = [
        tag
        for tag, rule in RULES.items()
        if rule.modify == "-" and tag in modifications and modifications[tag] != current.get(tag)
    ]
    if refused:
        raise ProcedureStepError(
            statuses.NO_SUCH_ATTRIBUTE, f"may not be set: {_names(refused)}", refused
        )
    if _STATUS in modifications and state_of(modifications) not in _STATES:
        raise ProcedureStepError(
            statuses.INVALID_ATTRIBUTE_VALUE,
            f"expected one of {', '.join(_STATES)}",
            [_STATUS],
        )
    lacking: list[int] = []
    for tag, rule in RULES.items():
        if rule.items and tag in modifications:
            for item in _items(modifications[tag]):
                lacking += chain(*_lacks(item, rule.items, "modify"))
    result = _merged(current, modifications)
    if state_of(result) != IN_PROGRESS:
        lacking += chain(*_lacks(result, RULES.values(), "final"))
    if lacking:
        # PS3.7 10.1.3.1.9 has no 0x0120 for N-SET.
        raise _incomplete(statuses.MISSING_ATTRIBUTE_VALUE, lacking)
    return result


def selected(ds: Dataset, tags: Iterable[int] | None) -> tuple[Dataset, tuple[int, ...]]:
    """The attributes that N-GET answers with (PS3.4 F.8.2.1).

    Args:
        ds: All attributes of the step.
        tags: The tags that are asked for; None asks for all.

    Returns:
        The attributes, and the tags of those that are not supported. Attributes of Table F.7.2-1 that the step
        has no value for are empty.
    """
    found = Dataset()
    if tags is None:
        found.update(ds)
        return found, ()
    unsupported = []
    for tag in dict.fromkeys(tags):
        if tag in ds:
            found[tag] = ds[tag]
        elif tag in RULES:
            found.add_new(tag, dictionary_VR(tag), None)
        else:
            unsupported.append(tag)
    if _CHARACTER_SET in ds:
        found[_CHARACTER_SET] = ds[_CHARACTER_SET]
    return found, tuple(unsupported)


def _check_form(ds: Dataset, rules: Iterable[Rule]) -> None:
    wrong = list(_misshapen(ds, rules))
    if wrong:
        raise ProcedureStepError(
            statuses.INVALID_ATTRIBUTE_VALUE, f"form differs from PS3.6: {_names(wrong)}", wrong
        )


def _misshapen(ds: Dataset, rules: Iterable[Rule]) -> Iterator[int]:
    """The tags of attributes of the wrong form: a value instead of items, or the reverse, or several UIDs."""
    for rule in rules:
        element: DataElement | None = ds.get(rule.tag, None)
        if element is None:
            continue
        is_shaped = (element.VR == "SQ") == (dictionary_VR(rule.tag) == "SQ")
        if not is_shaped or (element.VR == "UI" and element.VM > 1):
            yield rule.tag
        for item in _items(element):
            yield from _misshapen(item, rule.items)


def _items(element: DataElement | None) -> Iterable[Dataset]:
    if element is None or element.VR != "SQ":
        return ()
    items: Iterable[Dataset] = element.value or ()
    return items


def _lacks(ds: Dataset, rules: Iterable[Rule], column: str) -> tuple[list[int], list[int]]:
    """The tags of attributes of type 1 that are absent, and of those that have no value."""
    absent, empty = [], []
    for rule in rules:
        element: DataElement | None = ds.get(rule.tag, None)
        if getattr(rule, column) == "1":
            if element is None:
                absent.append(rule.tag)
            elif element.is_empty or not str(element.value).strip():
                empty.append(rule.tag)
        if rule.items:
            for item in _items(element):
                more = _lacks(item, rule.items, column)
                absent += more[0]
                empty += more[1]
    return absent, empty


def _names(tags: Iterable[int]) -> str:
    return ", ".join(keyword_for_tag(tag) or f"{tag:08X}" for tag in dict.fromkeys(tags))


def _incomplete(status: Status, tags: list[int]) -> ProcedureStepError:
    word = "missing" if status == statuses.MISSING_ATTRIBUTE else "without a value"
    return ProcedureStepError(status, f"{word}: {_names(tags)}", dict.fromkeys(tags))


def _in_character_set_of(current: Dataset, modifications: Dataset) -> Dataset:
    """The modifications, with text in the character set of the step unless they name their own."""
    if _CHARACTER_SET in modifications or not current.get("SpecificCharacterSet"):
        return modifications
    said = Dataset()
    said[_CHARACTER_SET] = current[_CHARACTER_SET]
    octets = [dsutils.encode(each, EXPLICIT_VR_LITTLE_ENDIAN) for each in (said, modifications)]
    return dsutils.decode(b"".join(octets), EXPLICIT_VR_LITTLE_ENDIAN)


def _merged(current: Dataset, modifications: Dataset) -> Dataset:
    result, news = deepcopy(current), deepcopy(modifications)
    one, other = (each.get("SpecificCharacterSet") for each in (result, news))
    if one != other:
        # Each is Unicode before the two get one character set that holds both.
        result.decode()
        news.decode()
        news.SpecificCharacterSet = "ISO_IR 192"
    result.update(news)
    return result
