"""A database of each released version is brought up to this one, and answers as if it had been made by this one."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

import netdicom_tx.archive.workflow.workflow  # noqa: F401 - the tables of the workflow
from netdicom_tx.archive.index import migrations, schema
from netdicom_tx.archive.index.engine import IndexUnusableError, open_engine
from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.index.migrations import VERSION, migrate, version_of
from netdicom_tx.archive.index.record import Receipt, record_of
from netdicom_tx.archive.index.schema import metadata, study
from netdicom_tx.archive.query.matching import InformationModel
from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.databases import database_url
from support.archive.patients import data_set, find
from support.archive.released import released

# The SQL of the databases that released versions wrote. Version 1 has eight studies: four people of one Patient ID, one
# without an ID, and one whose name has changed. Versions 2 and 3 have two: one is a patient's without an ID.
RELEASED = {number: Path(__file__).with_name(f"version_{number}.sql") for number in (1, 2, 3)}


@pytest.fixture
def empty(tmp_path: Path) -> str:
    return database_url(tmp_path / "index.db")


@pytest.fixture
def engine(empty: str) -> Iterator[sa.Engine]:
    made = open_engine(empty)
    yield made
    made.dispose()


@pytest.fixture
def url(empty: str) -> str:
    """A database of version 1."""
    released(RELEASED[1], empty)
    return empty


# Releases have written a default as 0, '0' and '0'::double precision.
DEFAULT = re.compile(r"'|::[a-z ]+$")


def described(engine: sa.Engine) -> dict[str, object]:
    """The tables with their columns, indexes and references."""
    inspector = sa.inspect(engine)
    return {
        table: (
            {
                each["name"]: (
                    str(each["type"]),
                    each["nullable"],
                    DEFAULT.sub("", str(each["default"])),
                )
                for each in inspector.get_columns(table)
            },
            {
                each["name"]: (each["column_names"], bool(each["unique"]))
                for each in inspector.get_indexes(table)
            },
            inspector.get_pk_constraint(table)["constrained_columns"],
            [
                (each["constrained_columns"], each["referred_table"])
                for each in inspector.get_foreign_keys(table)
            ],
        )
        for table in inspector.get_table_names()
    }


def numbers(engine: sa.Engine) -> tuple[int, str]:
    """What both tables of versions say."""
    with engine.connect() as connection:
        said = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        return version_of(connection), said


# -- new databases ------------------------------------------------------------------------------------


def test_a_new_database_is_made_at_the_newest_version(engine: sa.Engine) -> None:
    assert migrate(engine) == 0
    assert migrate(engine) == VERSION
    assert numbers(engine) == (VERSION, f"{VERSION:04}")
    assert set(sa.inspect(engine).get_table_names()) == {
        *metadata.tables,
        "schema_version",
        "schema_support",
        "alembic_version",
    }


def test_making_the_tables_goes_on_after_an_interruption(engine: sa.Engine) -> None:
    """Earlier releases made the tables of SQLite one by one."""
    with engine.begin() as connection:
        schema.patient.create(connection)
    assert migrate(engine) == 0
    assert sa.inspect(engine).has_table("instance")


def test_a_table_that_is_missing_is_made(engine: sa.Engine) -> None:
    """A command that knows the index alone makes no tables of the workflow."""
    migrate(engine)
    with engine.begin() as connection:
        schema.kept_header.drop(connection)
    assert migrate(engine) == VERSION
    assert sa.inspect(engine).has_table("header")


def test_alembic_is_not_loaded_when_there_is_nothing_to_do(empty: str, engine: sa.Engine) -> None:
    migrate(engine)
    program = (
        "import sys, netdicom_tx.archive.workflow.workflow\n"
        "from netdicom_tx.archive.index.index import Index\n"
        "Index(sys.argv[1]).open()\n"
        "print('alembic' in sys.modules)"
    )
    words = [sys.executable, "-c", program, empty]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "False\n"


# -- databases of released versions -------------------------------------------------------------------


def test_each_version_has_a_revision_and_every_released_one_is_tested() -> None:
    """A revision whose number is taken, or that does not follow the last one, would leave databases behind."""
    names = sorted(each.name for each in migrations._REVISIONS[0].glob("v*.py"))
    assert [int(each[1:5]) for each in names] == list(range(1, VERSION + 1))
    for number, name in enumerate(names, 1):
        text = (migrations._REVISIONS[0] / name).read_text("utf-8")
        before = f'"{number - 1:04}"' if number > 1 else "None"
        assert f'revision: Final = "{number:04}"\ndown_revision: Final = {before}\n' in text


@pytest.mark.parametrize("number", RELEASED)
def test_the_tables_become_those_of_this_version(
    number: int, empty: str, engine: sa.Engine, tmp_path: Path
) -> None:
    released(RELEASED[number], empty)
    assert migrate(engine) == number
    assert migrate(engine) == VERSION
    assert numbers(engine) == (VERSION, f"{VERSION:04}")
    new = open_engine(database_url(tmp_path / "new.db"))
    migrate(new)
    assert described(engine) == described(new)
    new.dispose()


@pytest.mark.parametrize("number", RELEASED)
def test_rows_can_be_added_afterwards(number: int, empty: str) -> None:
    released(RELEASED[number], empty)
    with Index(empty) as index:
        before = index.counts()
        octets = instance_of("9.9", "9.9.1")
        index.add(record_of(octets, EXPLICIT_VR_LITTLE_ENDIAN, path="new.dcm", size=1)).result(30)
        assert index.counts().instances == before.instances + 1
        assert index.counts().studies == before.studies + 1


def instance_of(study_uid: str, uid: str) -> bytes:
    return encode(
        data_set(
            SOPClassUID=CT_IMAGE_STORAGE,
            SOPInstanceUID=uid,
            PatientID="P1",
            StudyInstanceUID=study_uid,
            SeriesInstanceUID=f"{study_uid}.1",
        ),
        EXPLICIT_VR_LITTLE_ENDIAN,
    )


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


@pytest.fixture
def revise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int, str], None]:
    """Add a revision to those of this program."""
    monkeypatch.setattr(migrations, "_REVISIONS", (*migrations._REVISIONS, tmp_path / "more"))
    (tmp_path / "more").mkdir()

    def revise(number: int, body: str) -> None:
        monkeypatch.setattr(migrations, "VERSION", number)
        text = "from alembic import op\n"
        text += f"revision, down_revision = '{number:04}', '{number - 1:04}'\n"
        (tmp_path / "more" / f"v{number:04}.py").write_text(f"{text}def upgrade():\n    {body}\n")

    return revise


ADD_A_PATIENT = "op.execute(\"INSERT INTO patient (identity) VALUES ('half')\")"


def patients(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        counting = sa.select(sa.func.count()).select_from(schema.patient)
        return connection.scalar(counting) or 0


def test_revisions_are_applied_one_after_the_other_and_once(
    engine: sa.Engine, revise: Callable[[int, str], None]
) -> None:
    migrate(engine)
    revise(VERSION + 1, ADD_A_PATIENT)
    revise(VERSION + 2, "op.execute(\"UPDATE patient SET patient_id = 'P'\")")
    assert migrate(engine) == VERSION
    assert migrate(engine) == VERSION + 2
    assert numbers(engine) == (VERSION + 2, f"{VERSION + 2:04}")
    with engine.connect() as connection:
        assert connection.execute(
            sa.select(schema.patient.c.identity, schema.patient.c.patient_id)
        ).all() == [("half", "P")]


def test_an_interrupted_migration_goes_on_where_it_ended(
    url: str, engine: sa.Engine, revise: Callable[[int, str], None]
) -> None:
    """Nothing of the revision that failed stays, and those before it are not taken again."""
    revise(
        VERSION + 1,
        f"op.execute('CREATE TABLE half (x INTEGER)'); {ADD_A_PATIENT}; raise OSError('power cut')",
    )
    with pytest.raises(OSError, match="power cut"):
        migrate(engine)
    assert numbers(engine) == (VERSION, f"{VERSION:04}")
    assert not sa.inspect(engine).has_table("half")
    before = patients(engine)
    revise(VERSION + 1, ADD_A_PATIENT)
    assert migrate(engine) == VERSION
    assert patients(engine) == before + 1


def test_an_interrupted_revision_of_a_release_is_taken_again(
    url: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2 changes rows for minutes when there are many."""

    def fail(*_: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(schema.patient, "delete", fail)
        with pytest.raises(OSError, match="power cut"):
            migrate(engine)
    with engine.connect() as connection:
        assert version_of(connection) == 1
    assert migrate(engine) == 1


def test_a_newer_database_is_refused_with_a_sentence(
    engine: sa.Engine, revise: Callable[[int, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "OLDEST", VERSION + 1)
    revise(VERSION + 1, "pass")
    migrate(engine)
    monkeypatch.setattr(migrations, "VERSION", VERSION)
    newer, ours = VERSION + 1, VERSION
    with pytest.raises(IndexUnusableError, match=rf"schema version {newer}.*up to {ours}.*newer"):
        migrate(engine)


def test_an_earlier_release_sees_that_a_database_is_newer(url: str, engine: sa.Engine) -> None:
    """Releases before Alembic read this table, and refuse a higher number."""
    migrate(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version FROM schema_version").scalar() == VERSION


def open_at_once(url: str, start: object, results: object) -> None:
    """Run in a process of its own: open the index when the others do."""
    start.wait(150)  # type: ignore[attr-defined]
    try:
        with Index(url) as index:
            results.put(index.counts().studies)  # type: ignore[attr-defined]
    except Exception as error:  # the test shows whatever it is
        results.put(repr(error))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "studies"), [(None, 0), (1, 8)])
def test_processes_that_start_at_once_migrate_once(
    number: int | None, studies: int, empty: str, engine: sa.Engine
) -> None:
    """N nodes of a new release start on one database: one changes the tables, and the others wait for it."""
    if number is not None:
        released(RELEASED[number], empty)
    spawning = multiprocessing.get_context("spawn")
    start, results = spawning.Barrier(3), spawning.Queue()
    processes = [
        spawning.Process(target=open_at_once, args=(empty, start, results)) for _ in range(3)
    ]
    for each in processes:
        each.start()
    assert [results.get(timeout=250) for _ in processes] == [studies] * 3
    for each in processes:
        each.join(60)
    assert numbers(engine) == (VERSION, f"{VERSION:04}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM schema_version").scalar() == 1


def test_version_2_gets_to_know_when_studies_were_received(empty: str, tmp_path: Path) -> None:
    """What version 2 did not note is 0 or empty, and the next instance fills it in."""
    released(RELEASED[2], empty)
    file = tmp_path / "more.dcm"
    file.write_bytes(
        part10_header(CT_IMAGE_STORAGE, "1.1.9", EXPLICIT_VR_LITTLE_ENDIAN)
        + instance_of("1.1", "1.1.9")
    )
    with Index(empty) as index:

        def receipts() -> list[tuple[str, float, str, str]]:
            with index.reading() as reading:
                columns = (
                    study.c.study_instance_uid,
                    study.c.received,
                    study.c.calling,
                    study.c.called,
                )
                rows = reading.execute(sa.select(*columns).order_by(study.c.id))
                return [(uid, time, calling, called) for uid, time, calling, called in rows]

        assert receipts() == [("1.1", 0.0, "", ""), ("1.2", 0.0, "", "")]
        for receipt in (Receipt(1000.0, "CT1", "NODE"), Receipt(1009.0, "CT2", "NODE")):
            index.add(replace(record_of(file), receipt=receipt)).result(30)
        assert receipts() == [("1.1", 1000.0, "CT1\\CT2", "NODE"), ("1.2", 0.0, "", "")]


@pytest.mark.parametrize("former", [None, 3])
def test_a_program_that_knows_one_directory_only_refuses_the_archive(
    former: int | None, empty: str, engine: sa.Engine
) -> None:
    """It reads schema_version alone, and would remove the rows of all files that another place has."""
    if former is not None:
        released(RELEASED[former], empty)
    migrate(engine)
    with engine.connect() as connection:
        assert version_of(connection) > 3
        oldest = connection.exec_driver_sql("SELECT oldest FROM schema_support").scalar()
    assert oldest is not None
    assert oldest > 3
