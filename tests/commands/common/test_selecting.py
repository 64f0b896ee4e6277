"""What is retrieved by unique keys, and what is found first (PS3.4 C.4.2.1.4)."""

import pytest

from netdicom_tx.commands.common.failures import CommandError
from netdicom_tx.commands.common.selecting import selection


@pytest.mark.parametrize(
    ("keys", "root", "level", "expected", "is_found_first"),
    [
        (["StudyInstanceUID=1"], "S", None, "STUDY", False),
        (["SeriesInstanceUID=1.2\\1.3", "StudyInstanceUID=1"], "S", None, "SERIES", False),
        (["SOPInstanceUID=1"], "S", None, "IMAGE", False),
        (["PatientID=1"], "P", None, "PATIENT", False),
        (["PatientID=1"], "S", None, "STUDY", True),
        (["PatientID=4*"], "P", None, "PATIENT", True),
        (["PatientName=A"], "P", "PATIENT", "PATIENT", True),
        (["StudyInstanceUID=1"], "P", "PATIENT", "PATIENT", True),
        (["StudyInstanceUID=1"], "S", "SERIES", "SERIES", True),
        (["StudyInstanceUID=1", "Modality=CT"], "S", None, "SERIES", True),
        (["StudyInstanceUID=1", "Modality=CT"], "S", "STUDY", "STUDY", True),
        (["StudyDate=20260101-", "Modality"], "S", None, "STUDY", True),
        (["StudyDate=20260101-", "SeriesInstanceUID"], "S", None, "SERIES", True),
        (["RequestAttributesSequence.ScheduledProcedureStepID=1"], "S", None, "SERIES", True),
    ],
)
def test_keys_that_a_retrieval_does_not_carry_are_found_first(
    keys: list[str], root: str, level: str | None, expected: str, is_found_first: bool
) -> None:
    found = selection(keys, root, level)
    assert (found.level, found.is_found_first) == (expected, is_found_first)


@pytest.mark.parametrize(
    ("keys", "root"),
    [([], "S"), (["StudyInstanceUID"], "S"), (["StudyInstanceUID="], "S"), (["Modality=CT"], "O")],
)
def test_a_retrieval_of_everything_is_refused(keys: list[str], root: str) -> None:
    """Some archives send everything when the unique key is empty."""
    with pytest.raises(CommandError) as caught:
        selection(keys, root, None)
    assert caught.value.problem.code == 2


def test_a_retrieval_by_unique_keys_has_them_in_its_identifier() -> None:
    found = selection(["SeriesInstanceUID=1.2\\1.3", "StudyInstanceUID=1"], "S", None)
    assert found.identifier().SeriesInstanceUID == ["1.2", "1.3"]
