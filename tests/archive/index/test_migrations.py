"""An index of an earlier version is brought up to this one, and answers as if it had been made by this one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.index.engine import VERSION, migrate, open_engine
from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.index.schema import metadata
from netdicom_tx.archive.query.matching import InformationModel
from support.archive.patients import data_set, find

# The SQL of an index that netdicom_tx 0.1 wrote. Eight studies: four people of one Patient ID, one without an
# ID, and one whose name has changed.
VERSION_1 = Path(__file__).with_name("version_1.sql")


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = tmp_path / "index.db"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1.read_text("utf-8"))
    connection.close()
    return f"sqlite:///{path}"


def test_the_tables_become_those_of_this_version(url: str) -> None:
    engine = open_engine(url)
    assert migrate(engine) == 1
    assert migrate(engine) == VERSION
    inspector = sa.inspect(engine)
    for table in metadata.tables.values():
        if inspector.has_table(table.name):
            assert {each["name"] for each in inspector.get_columns(table.name)} == {
                each.name for each in table.columns
            }
            assert {each["name"] for each in inspector.get_indexes(table.name)} >= {
                each.name for each in table.indexes
            }
    engine.dispose()


def test_each_study_has_its_own_patient_afterwards(url: str) -> None:
    """PS3.4 C.6.2.1; version 1 answered the second hospital's studies with the first one's patient."""
    with Index(url) as index:
        asked = data_set(
            QueryRetrieveLevel="STUDY",
            StudyInstanceUID="",
            PatientName="",
            IssuerOfPatientID="",
            PatientBirthDate="",
        )
        assert [
            (
                each.StudyInstanceUID,
                str(each.PatientName),
                each.IssuerOfPatientID or "",
                each.PatientBirthDate or "",
            )
            for each in find(index, asked)
        ] == [
            ("1.1", "Smith^Anna", "HOSP_A", "19500101"),
            ("1.2", "Jones^Bob", "HOSP_B", ""),
            ("1.3", "Jones^Bob", "HOSP_B", "19900909"),
            ("1.4", "Nobody^Known", "", ""),
            ("1.5", "Universal^Ada", "", "19700101"),
            ("1.6", "Anonymous^One", "", ""),
            ("1.7", "Maiden^Eve", "HOSP_A", "19800101"),
            ("1.8", "Married^Eve", "HOSP_A", ""),
        ]


def test_people_of_one_id_are_several_patients_afterwards(url: str) -> None:
    with Index(url) as index:
        asked = data_set(
            QueryRetrieveLevel="PATIENT",
            PatientID="4711",
            PatientName="",
            PatientBirthDate="",
            NumberOfPatientRelatedStudies="",
        )
        found = find(index, asked, model=InformationModel.PATIENT_ROOT)
        # What one study of a patient did not say, another one of the same patient did.
        assert sorted(
            (str(each.PatientName), each.PatientBirthDate or "", each.NumberOfPatientRelatedStudies)
            for each in found
        ) == [
            ("Jones^Bob", "19900909", 2),
            ("Nobody^Known", "", 1),
            ("Smith^Anna", "19500101", 1),
            ("Universal^Ada", "19700101", 1),
        ]
        assert index.counts().patients == 6


def test_an_interrupted_step_is_taken_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdicom_tx.archive.index import migrations

    def fail(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(migrations, "_filled", fail)
    engine = open_engine(url)
    with pytest.raises(OSError, match="power cut"):
        migrate(engine)
    monkeypatch.undo()
    assert migrate(engine) == 1
    engine.dispose()
