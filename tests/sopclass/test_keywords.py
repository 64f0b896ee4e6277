"""Identifiers from keyword arguments (PS3.4 C.4.1.1.3, K.4.1.1.3)."""

from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from pydicom.dataset import Dataset

from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.sopclass.keywords import identifier, unique, worklist_identifier


def data_set(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("keyword", "value", "encoded"),
    [
        ("PatientName", "DOE*", "DOE*"),
        ("PatientName", "", ""),
        ("PatientName", None, ""),
        ("StudyDate", "20260101-", "20260101-"),
        ("StudyDate", date(2026, 1, 2), "20260102"),
        ("StudyTime", time(12, 30, 1), "123001.000000"),
        ("AcquisitionDateTime", date(2026, 1, 2), "20260102"),
        (
            "AcquisitionDateTime",
            datetime(2026, 1, 2, 12, 30, tzinfo=UTC),
            "20260102123000.000000+0000",
        ),
        ("Rows", "512", 512),
        ("EventElapsedTimes", "1.5", 1.5),
        ("ModalitiesInStudy", ("CT", "MR"), ["CT", "MR"]),
        ("PixelData", b"\1", b"\1"),
    ],
)
def test_a_value_is_taken_as_its_attribute_has_it(keyword: str, value: Any, encoded: Any) -> None:
    found = identifier("STUDY", None, {keyword: value})[keyword].value
    assert (found or "") == encoded


def test_the_level_and_its_unique_key_are_always_there() -> None:
    """PS3.4 C.4.1.1.3.1: the identifier has the level, and the key of the level."""
    assert identifier("series", None, {}) == data_set(
        QueryRetrieveLevel="SERIES", SeriesInstanceUID=""
    )


def test_what_was_given_stays_as_it_was() -> None:
    given = data_set(StudyInstanceUID="1.2.3")
    made = identifier("STUDY", given, {"PatientID": "7"})
    assert made.StudyInstanceUID == "1.2.3"
    assert given == data_set(StudyInstanceUID="1.2.3")


@pytest.mark.parametrize(
    ("level", "keys", "words"),
    [
        ("PLANET", {}, "'PLANET' is not a query/retrieve level; expected PATIENT, STUDY"),
        (3, {}, "3 is not a query/retrieve level"),
        ("STUDY", {"PatientNam": ""}, "did you mean PatientName"),
        ("STUDY", {"Zzz": ""}, "PS3.6 lists the keywords"),
        ("STUDY", {"Rows": "many"}, "'many' is not a value for Rows, whose value .* US"),
        ("STUDY", {"OtherPatientIDsSequence": "7"}, "expected a dict, a Dataset or a list"),
        ("STUDY", {"OtherPatientIDsSequence": ["7"]}, "a dict or a Dataset for each item"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(
    level: Any, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        identifier(level, None, keys)


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("", []),
        (None, []),
        ({"PatientID": "7"}, [data_set(PatientID="7")]),
        (data_set(PatientID="7"), [data_set(PatientID="7")]),
        ([{}, data_set(PatientID="7")], [Dataset(), data_set(PatientID="7")]),
    ],
)
def test_a_sequence_is_given_as_dicts_or_data_sets(value: Any, items: list[Dataset]) -> None:
    made = identifier("STUDY", None, {"OtherPatientIDsSequence": value})
    assert list(made.OtherPatientIDsSequence) == items


@pytest.mark.parametrize(
    ("keys", "character_set"),
    [
        ({"PatientName": "DOE"}, None),
        ({"PatientName": "DÖE"}, "ISO_IR 192"),
        ({"OtherPatientIDsSequence": {"PatientID": "Ö"}}, "ISO_IR 192"),
        ({"PatientName": "DÖE", "SpecificCharacterSet": "ISO_IR 100"}, "ISO_IR 100"),
    ],
)
def test_text_beyond_ascii_names_its_character_set(
    keys: dict[str, Any], character_set: str | None
) -> None:
    """PS3.5 6.1.2.3; at every depth."""
    assert identifier("STUDY", None, keys).get("SpecificCharacterSet") == character_set


def test_a_retrieve_says_what_to_retrieve() -> None:
    """PS3.4 C.4.2.2.1."""
    wanted = identifier("STUDY", None, {"StudyInstanceUID": ["1.2", "1.3"]})
    assert unique(wanted) is wanted
    with pytest.raises(LocalProtocolError, match="at level STUDY give StudyInstanceUID a value"):
        unique(identifier("STUDY", None, {"PatientID": "7"}))


def test_a_worklist_is_asked_for_what_a_modality_needs() -> None:
    """PS3.4 Table K.6-1; what belongs to the step is put into its sequence."""
    made = worklist_identifier(None, {"Modality": "CT"})
    (step,) = made.ScheduledProcedureStepSequence
    assert step.Modality == "CT"
    assert "ScheduledStationAETitle" in step
    assert "AccessionNumber" in made
    assert "Modality" not in made


@pytest.mark.parametrize("inside", [False, True])
def test_a_worklist_query_that_is_given_is_only_added_to(inside: bool) -> None:
    given = data_set(PatientID="")
    if inside:
        given.ScheduledProcedureStepSequence = [data_set(Modality="MR")]
    made = worklist_identifier(given, {"ScheduledStationAETitle": "CT1", "PatientName": "DOE*"})
    expected = data_set(ScheduledStationAETitle="CT1")
    if inside:
        expected.Modality = "MR"
    assert list(made.ScheduledProcedureStepSequence) == [expected]
    assert (made.PatientName, made.PatientID) == ("DOE*", "")


def test_a_worklist_query_without_keys_of_the_step_has_no_step() -> None:
    assert worklist_identifier(data_set(PatientID=""), {"PatientName": "DOE*"}) == data_set(
        PatientID="", PatientName="DOE*"
    )
