"""Levels and information models."""

import pytest

from netdicom_tx.commands.common.failures import CommandError
from netdicom_tx.commands.common.query import Query
from netdicom_tx.uids import (
    MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS,
    PATIENT_ROOT_GET_SOP_CLASS,
    PATIENT_STUDY_ONLY_FIND_SOP_CLASS,
    STUDY_ROOT_FIND_SOP_CLASS,
    STUDY_ROOT_MOVE_SOP_CLASS,
)


@pytest.mark.parametrize(
    ("root", "operation", "sop_class"),
    [
        ("S", "C-FIND", STUDY_ROOT_FIND_SOP_CLASS),
        ("s", "C-MOVE", STUDY_ROOT_MOVE_SOP_CLASS),
        ("P", "C-GET", PATIENT_ROOT_GET_SOP_CLASS),
        ("O", "C-FIND", PATIENT_STUDY_ONLY_FIND_SOP_CLASS),
        ("W", "C-FIND", MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS),
    ],
)
def test_a_letter_chooses_the_sop_class(root: str, operation: str, sop_class: str) -> None:
    """PS3.4 C.6, K.6."""
    assert Query([], root, None).sop_class(operation) == sop_class


@pytest.mark.parametrize(
    ("keys", "root", "level", "expected"),
    [
        ([], "S", None, "STUDY"),
        (["PatientID=1"], "S", None, "STUDY"),
        (["PatientID=1"], "P", None, "PATIENT"),
        (["StudyInstanceUID=1", "SeriesInstanceUID"], "S", None, "SERIES"),
        (["SOPInstanceUID", "StudyInstanceUID=1"], "S", None, "IMAGE"),
        (["SOPInstanceUID"], "S", "STUDY", "STUDY"),
        (["QueryRetrieveLevel=series"], "S", None, "SERIES"),
        (["0008,0052=IMAGE"], "P", None, "IMAGE"),
        (["QueryRetrieveLevel=IMAGE"], "S", "STUDY", "STUDY"),
        (["StudyInstanceUID"], "W", None, None),
    ],
)
def test_the_level_is_said_or_follows_from_the_unique_keys(
    keys: list[str], root: str, level: str | None, expected: str | None
) -> None:
    """PS3.4 C.4.1.2.1: an identifier has exactly one level; a worklist has none (K.4.1.2)."""
    query = Query(keys, root, level)
    assert query.level == expected
    assert query.identifier().get("QueryRetrieveLevel") == expected


@pytest.mark.parametrize(
    ("keys", "root", "level"),
    [
        (["QueryRetrieveLevel=FOO"], "S", None),
        (["QueryRetrieveLevel"], "S", None),
        ([], "S", "PATIENT"),
        ([], "O", "SERIES"),
        (["SOPInstanceUID"], "O", None),
    ],
)
def test_a_level_that_the_model_lacks_is_told(
    keys: list[str], root: str, level: str | None
) -> None:
    """PS3.4 C.6.2.1 begins at the study, C.6.3.1 ends there."""
    with pytest.raises(CommandError) as caught:
        Query(keys, root, level)
    assert caught.value.problem.code == 2
