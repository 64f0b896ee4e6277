"""What get and move retrieve: by unique keys at once, or by other keys, which are found first.

A C-GET or C-MOVE carries the unique keys of its level and of those above, and no more (PS3.4 C.4.2.1.4). With other
keys, such as a date or a modality, a C-FIND for each level comes first: each has the keys of its level, and the unique
keys of what was found above (PS3.4 C.4.1.1.3.1). Then each patient, study or series that was found is retrieved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from .failures import StatusFailure, bad_input
from .keys import Key, identifier
from .options import LEVELS, ROOTS
from .output import counted
from .query import UNIQUE_KEYS, Query

if TYPE_CHECKING:
    from ...asceprovider import Association
    from .session import Session

__all__ = ["Found", "Selection", "find_first", "selection"]

#: Unique keys of what was found, by their tags.
Found = Mapping[BaseTag, str]

# The keys below the study that archives match (PS3.4 C.6.1.1.4, C.6.1.1.5); all others are of patient or study.
_BELOW: Final = {
    "SERIES": "Modality SeriesInstanceUID SeriesNumber SeriesDescription SeriesDate SeriesTime BodyPartExamined "
    "ProtocolName Laterality PerformingPhysicianName OperatorsName StationName Manufacturer ManufacturerModelName "
    "InstitutionName InstitutionalDepartmentName PerformedProcedureStepID PerformedProcedureStepStartDate "
    "PerformedProcedureStepStartTime PerformedProcedureStepDescription RequestAttributesSequence PatientPosition "
    "NumberOfSeriesRelatedInstances",
    "IMAGE": "SOPInstanceUID SOPClassUID InstanceNumber ContentDate ContentTime AcquisitionDate AcquisitionTime "
    "AcquisitionNumber AcquisitionDateTime ImageType ImageComments Rows Columns NumberOfFrames BitsAllocated "
    "AvailableTransferSyntaxUID ConceptNameCodeSequence ContentTemplateSequence CompletionFlag VerificationFlag "
    "DocumentTitle ContentLabel ContentDescription PresentationCreationDate PresentationCreationTime",
}
_PATIENT: Final = (
    "PatientName PatientID IssuerOfPatientID PatientBirthDate PatientBirthTime PatientSex OtherPatientIDsSequence "
    "EthnicGroup PatientComments NumberOfPatientRelatedStudies NumberOfPatientRelatedSeries "
    "NumberOfPatientRelatedInstances"
)
_MODALITY: Final = Tag(0x0008, 0x0060)
_MODALITIES: Final = Tag(0x0008, 0x0061)
# A response that says that a key was not used (PS3.4 Table C.4-1).
_KEYS_UNSUPPORTED: Final = 0xFF01
# How many instances one request names.
_AT_ONCE: Final = 100

_THINGS: Final = {"PATIENT": "patient", "STUDY": "study", "SERIES": "series", "IMAGE": "instance"}


def things(number: int, level: str) -> str:
    """A number of patients, studies, series or instances."""
    if level == "SERIES":
        return f"{number} series"
    return (
        counted(number, "study").replace("studys", "studies")
        if level == "STUDY"
        else counted(number, _THINGS[level])
    )


def _level_of(key: Key, root: str) -> str:
    """The level at which a key is matched."""
    tag = key.path[0][0] if key.path else key.tag
    for level, names in _BELOW.items():
        if tag in {tag_for_keyword(name) for name in names.split()}:
            return level
    is_patients = tag in {tag_for_keyword(name) for name in _PATIENT.split()}
    return "PATIENT" if is_patients and root != "S" else "STUDY"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be retrieved.

    Attributes:
        query: The keys.
        level: The level of the retrieval.
        is_found_first: Whether the keys are more than a retrieval carries.
        limit: How many studies, series or patients may be found.
    """

    query: Query
    level: str
    is_found_first: bool
    limit: int

    @property
    def thing(self) -> str:
        """What is retrieved, one by one."""
        return _THINGS[self.level]

    def identifier(self, found: Found | None = None) -> Dataset:
        """The identifier of a retrieval: of what was found, or by the keys themselves.

        Raises:
            CommandError: A value does not fit its attribute.
        """
        if found is None:
            return identifier(self.query.keys, self.level)
        return identifier([Key((), tag, value) for tag, value in found.items()], self.level)


def selection(texts: Sequence[str], root: str, level: str | None, limit: int = 1000) -> Selection:
    """Decide how to retrieve by some keys.

    Args:
        level: The level that was asked for; None means that of the deepest key.

    Raises:
        CommandError: No key has a value, a key cannot be read, or the model has no such level.
    """
    query = Query(texts, root, level)
    assert query.level is not None
    with_value = [key for key in query.keys if key.value]
    if not with_value:
        raise bad_input(
            "nothing says what to retrieve: no key has a value",
            f"the level is {query.level}",
            "pass -k StudyInstanceUID=VALUE, or other keys: -k Modality=CT -k StudyDate=20260101-20260131",
        )
    deepest = max((_level_of(key, query.root) for key in with_value), key=LEVELS.index)
    if query.root == "O" and deepest in ("SERIES", "IMAGE"):
        raise bad_input(
            f"the {ROOTS['O']} model has no {deepest} level",
            f"the keys are matched at that level: {', '.join(texts)}",
            "use -P or -S",
        )
    retrieved = query.level
    if not query.is_level_given:
        retrieved = max(retrieved, deepest, key=LEVELS.index)
    unique = UNIQUE_KEYS.values()
    carries = all(key.tag in unique and not key.path and _is_exact(key) for key in with_value)
    has_own = any(key.tag == UNIQUE_KEYS[retrieved] and not key.path for key in with_value)
    return Selection(query, retrieved, not (carries and has_own), limit)


def _is_exact(key: Key) -> bool:
    return not set("*?") & set(key.value or "")


async def find_first(session: Session, asce: Association, wanted: Selection) -> list[Found]:
    """Find what is to be retrieved, each with the unique keys of its level and of those above.

    Raises:
        CommandError: More was found than the limit allows.
        StatusFailure: A C-FIND has failed.
    """
    query = wanted.query
    top = "STUDY" if query.root == "S" else "PATIENT"
    by_level: dict[str, list[Key]] = {level: [] for level in LEVELS}
    for key in query.keys:
        if key.value:
            by_level[_level_of(key, query.root)].append(key)
    deepest = max((each for each, keys in by_level.items() if keys), key=LEVELS.index)
    last = max(deepest, wanted.level, key=LEVELS.index)
    levels = LEVELS[LEVELS.index(top) : LEVELS.index(last) + 1]
    _add_modalities(by_level, levels)
    found: list[dict[BaseTag, str]] = [{}]
    for level in levels:
        below: list[dict[BaseTag, str]] = []
        for above in found:
            below += await _below(session, asce, query, level, by_level[level], above)
            if len(below) > wanted.limit and LEVELS.index(level) <= LEVELS.index(wanted.level):
                raise bad_input(
                    f"more than {things(wanted.limit, level)} match",
                    "nothing was retrieved",
                    "narrow the keys, or allow more: --limit N",
                )
            if session.is_interrupted:
                return []
        found = below
    keys = [UNIQUE_KEYS[level] for level in levels[: levels.index(wanted.level) + 1]]
    # Several series of a study may have matched when the study is retrieved.
    chosen = list({tuple(each[tag] for tag in keys): each for each in found}.values())
    session.output.note(f"{things(len(chosen), wanted.level)} found")
    return _together([{tag: each[tag] for tag in keys} for each in chosen], wanted.level)


def _add_modalities(by_level: Mapping[str, list[Key]], levels: Iterable[str]) -> None:
    """Ask for studies with the modality, so that not every study is looked into."""
    study = by_level["STUDY"]
    modality = [key for key in by_level["SERIES"] if key.tag == _MODALITY and not key.path]
    is_said = any(key.tag in (_MODALITIES, UNIQUE_KEYS["STUDY"]) for key in study)
    if modality and "STUDY" in levels and not is_said:
        study.append(Key((), _MODALITIES, modality[-1].value))


async def _below(
    session: Session,
    asce: Association,
    query: Query,
    level: str,
    keys: Sequence[Key],
    above: Mapping[BaseTag, str],
) -> list[dict[BaseTag, str]]:
    """What a level has below something that was found above."""
    unique = UNIQUE_KEYS[level]
    own = [key for key in keys if key.tag == unique and not key.path]
    others = [key for key in keys if key not in own]
    if own and not others and all(map(_is_exact, own)):
        return [
            {**above, unique: value.strip()} for value in (own[-1].value or "").split("\\") if value
        ]
    asked = [
        *(Key((), tag, value) for tag, value in above.items()),
        *others,
        *(own or [Key((), unique, "")]),
    ]
    answers = await _ask(session, asce, query, identifier(asked, level))
    values = (str(each.get(unique).value) for each in answers if each.get(unique))
    return [{**above, unique: value} for value in dict.fromkeys(values) if value]


async def _ask(session: Session, asce: Association, query: Query, asked: Dataset) -> list[Dataset]:
    stream: Any = asce.get_scu(query.sop_class("C-FIND"))(asked)
    answers: list[Dataset] = []
    is_partial = False
    with session.on_interrupt(stream.cancel):
        async for found, status in stream:
            if status.is_failure and not session.is_interrupted:
                raise StatusFailure("C-FIND", status)
            if found is not None and status.is_pending:
                answers.append(found)
                is_partial = is_partial or int(status) == _KEYS_UNSUPPORTED
    if is_partial:
        session.output.note("the peer does not match all of these keys, so it may send more")
    return answers


def _together(found: list[dict[BaseTag, str]], level: str) -> list[Found]:
    """Name instances of one series in one request (PS3.4 C.4.2.1.4.1); all else has a request of its own."""
    if level != "IMAGE":
        return list(found)
    unique = UNIQUE_KEYS[level]
    by_series: dict[tuple[str, ...], list[dict[BaseTag, str]]] = {}
    for each in found:
        above = tuple(value for tag, value in each.items() if tag != unique)
        by_series.setdefault(above, []).append(each)
    return [
        {**group[0], unique: "\\".join(each[unique] for each in group[start : start + _AT_ONCE])}
        for group in by_series.values()
        for start in range(0, len(group), _AT_ONCE)
    ]
