"""The identity of a patient, by Patient ID and issuer, and the patient that a study shows (PS3.4 C.6.1, C.6.2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.query.matching import InformationModel
from support.archive.databases import database_url
from support.archive.patients import data_set, find
from support.archive.records import add, record

PATIENT_ROOT = InformationModel.PATIENT_ROOT


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(database_url(tmp_path / "index.db")) as opened:
        yield opened


def instance(number: int, **values: Any) -> Any:
    return record(
        f"1.{number}",
        **{
            "StudyInstanceUID": f"2.{number}",
            "SeriesInstanceUID": f"3.{number}",
            "PatientID": "4711",
            **values,
        },
    )


def universal(entity: str) -> dict[str, str]:
    return {"UniversalEntityID": entity, "UniversalEntityIDType": "ISO"}


def studies(
    index: Index, model: InformationModel = InformationModel.STUDY_ROOT, **keys: Any
) -> Any:
    asked = {"StudyInstanceUID": "", "PatientName": "", "PatientBirthDate": "", **keys}
    flags = "r" if model is PATIENT_ROOT else ""
    found = find(index, data_set(QueryRetrieveLevel="STUDY", **asked), flags, model=model)
    return [
        (each.StudyInstanceUID, str(each.PatientName), each.PatientBirthDate or "")
        for each in found
    ]


ANNA = {"PatientName": "Smith^Anna", "IssuerOfPatientID": "HOSP_A", "PatientBirthDate": "19500101"}
BOB = {"PatientName": "Jones^Bob", "IssuerOfPatientID": "HOSP_B", "PatientBirthDate": "19900909"}


@pytest.mark.parametrize("model", [InformationModel.STUDY_ROOT, PATIENT_ROOT])
@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"StudyInstanceUID": "2.2"}, ["2.2"]),
        ({"PatientName": "Jones*"}, ["2.2"]),
        ({"PatientName": "Smith*"}, ["2.1"]),
        ({"PatientID": "4711", "IssuerOfPatientID": "HOSP_B"}, ["2.2"]),
        ({"PatientBirthDate": "19500101"}, ["2.1"]),
        ({"PatientID": "4711"}, ["2.1", "2.2"]),
    ],
)
def test_two_people_of_one_id_are_not_mixed(
    index: Index, model: InformationModel, keys: dict[str, str], found: list[str]
) -> None:
    add(index, instance(1, **ANNA), instance(2, **BOB))
    people = {
        "2.1": ("2.1", "Smith^Anna", "19500101"),
        "2.2": ("2.2", "Jones^Bob", "19900909"),
    }
    assert studies(index, model, **keys) == [people[each] for each in found]


@pytest.mark.parametrize(
    ("one", "other", "patients"),
    [
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, 2),
        ({"IssuerOfPatientID": "A"}, {}, 2),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": " A "}, 1),
        (
            {"IssuerOfPatientIDQualifiersSequence": [universal("1.2.3")]},
            {"IssuerOfPatientIDQualifiersSequence": [universal("1.2.4")]},
            2,
        ),
        (
            {"IssuerOfPatientIDQualifiersSequence": [universal("1.2.3")]},
            {"IssuerOfPatientIDQualifiersSequence": [universal("1.2.3")]},
            1,
        ),
        (
            {"IssuerOfPatientID": "A", "IssuerOfPatientIDQualifiersSequence": [universal("1.2.3")]},
            {"IssuerOfPatientID": "A"},
            2,
        ),
        ({}, {"IssuerOfPatientIDQualifiersSequence": [{"UniversalEntityIDType": "ISO"}]}, 1),
        ({"PatientID": ""}, {"PatientID": ""}, 2),
        ({}, {}, 1),
    ],
)
def test_an_identity_is_id_and_issuer(
    index: Index, one: dict[str, Any], other: dict[str, Any], patients: int
) -> None:
    """PS3.3 C.2.1: (0010,0021), and (0010,0024) of Table 10-18, say in whose eyes an ID is unique."""
    add(index, instance(1, **one), instance(2, **other))
    assert index.counts().patients == patients


def test_a_study_has_the_patient_as_its_own_instances_name_it(index: Index) -> None:
    """PS3.4 C.6.2.1: in Study Root, the attributes of a patient are attributes of the study."""
    add(index, instance(1, PatientName="Maiden^Eve"), instance(2, PatientName="Married^Eve"))
    assert [name for _, name, _ in studies(index)] == ["Maiden^Eve", "Married^Eve"]
    assert studies(index, PatientName="Married*") == [("2.2", "Married^Eve", "")]
    # In Patient Root they are one patient, whose first study says its name.
    assert [name for _, name, _ in studies(index, PATIENT_ROOT)] == ["Maiden^Eve", "Maiden^Eve"]


def test_a_missing_value_is_filled_from_the_same_person_only(index: Index) -> None:
    add(index, instance(1, PatientName="Jones^Bob", IssuerOfPatientID="HOSP_B"))
    # This instance is of another person, in the same study; nothing of that person is shown with the study.
    add(index, record("1.11", **{**ANNA, "PatientID": "4711", "StudyInstanceUID": "2.1"}))
    assert studies(index) == [("2.1", "Jones^Bob", "")]
    # This instance is of the same person.
    add(index, record("1.12", **{**BOB, "PatientID": "4711", "StudyInstanceUID": "2.1"}))
    assert studies(index) == [("2.1", "Jones^Bob", "19900909")]
    assert studies(index, PATIENT_ROOT) == [("2.1", "Jones^Bob", "19900909")]


@pytest.mark.parametrize("key", ["PatientID", "PatientName", "AccessionNumber", "StudyDate"])
def test_an_unknown_value_matches_no_key(index: Index, key: str) -> None:
    """A wrong patient on the screen is worse than a missing one."""
    add(index, instance(1, PatientID="", PatientName="", StudyDate=""))
    value = "20240101" if key == "StudyDate" else "4MR1"
    assert studies(index, **{key: value}) == []
    assert len(studies(index, **{key: ""})) == 1
