"""The tables of the index against PS3.4 C.6, and their versions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag
from sqlalchemy.dialects import postgresql, registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.schema import CreateTable

from netdicom_tx.archive.encoded import values
from netdicom_tx.archive.index import schema
from netdicom_tx.archive.index.schema import ATTRIBUTES, COMPUTED, IndexUnusableError, Level

MODELS = json.loads(
    (Path(__file__).parents[2] / "standard" / "qr_information_model.json").read_text()
)["models"]


def _keys() -> list[Any]:
    rows = []
    for model in ("patient_root", "study_root"):
        for level, keys in MODELS[model]["keys"].items():
            if isinstance(keys, str):
                continue  # "as patient_root"
            rows += [
                pytest.param(model, level, key, id=f"{model}-{level}-{key['keyword']}")
                for key in keys
                if not key.get("nesting")
            ]
    return rows


@pytest.mark.parametrize(("model", "level", "key"), _keys())
def test_every_key_of_the_standard_is_known(model: str, level: str, key: dict[str, str]) -> None:
    """PS3.4 C.6.1.1 and C.6.2.1: unique, required and optional keys of each level."""
    tag = int(key["tag"].replace(",", ""), 16)
    attribute = ATTRIBUTES.get(tag) or COMPUTED[tag]
    assert attribute.keyword == key["keyword"]
    assert attribute.vr == key["vr"]
    # In the study root the patient's attributes are the study's (PS3.4 C.6.2.1.2).
    is_of_patient = model == "study_root" and attribute.level is Level.PATIENT
    assert attribute.level == level or is_of_patient
    if not is_of_patient:
        assert attribute.key_type == key["type"]


@pytest.mark.parametrize("attribute", [*ATTRIBUTES.values(), *COMPUTED.values()])
def test_the_table_agrees_with_the_data_dictionary(attribute: schema.Attribute) -> None:
    assert keyword_for_tag(attribute.tag) == attribute.keyword
    assert dictionary_VR(attribute.tag) == attribute.vr
    if attribute.keyword == "AvailableTransferSyntaxUID":
        return  # an archive that keeps what it got has one
    multiplicity = dictionary_VM(attribute.tag)
    # A sequence is one value, and so is a name in an identifier of a patient.
    assert attribute.many == (multiplicity != "1" and attribute.vr != "SQ")


@pytest.mark.parametrize("attribute", ATTRIBUTES.values())
def test_every_attribute_has_its_columns(attribute: schema.Attribute) -> None:
    table = schema.TABLES[attribute.level]
    assert attribute.column in table.c
    forms = schema.KEY_FORMS.get(attribute.vr, ())
    assert len(attribute.key_columns) == (0 if attribute.many else len(forms))
    assert all(name in table.c for name in attribute.key_columns)
    if attribute.key_columns:
        assert len(values.keys_of(attribute.vr, "")) == len(forms)


def test_the_tables_can_be_made_by_postgresql() -> None:
    for table in schema.TABLES.values():
        ddl = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert "BIGSERIAL" in ddl
        assert 'COLLATE "C"' in ddl
    assert "BYTEA" in str(CreateTable(schema.header).compile(dialect=postgresql.dialect()))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'index.db'}"


def test_a_new_database_is_made_at_the_newest_version(url: str) -> None:
    engine = schema.open_engine(url)
    assert schema.migrate(engine) == 0
    assert schema.migrate(engine) == schema.VERSION
    assert set(sa.inspect(engine).get_table_names()) == {
        *schema.metadata.tables,
        "schema_version",
    }
    engine.dispose()


def test_steps_are_taken_one_after_the_other_and_once(url: str) -> None:
    engine = schema.open_engine(url)
    schema.migrate(engine)
    taken = []
    steps = {
        schema.VERSION + 1: lambda connection: taken.append(1),
        schema.VERSION + 2: lambda connection: taken.append(2),
    }
    assert schema.migrate(engine, steps, schema.VERSION + 2) == schema.VERSION
    assert schema.migrate(engine, steps, schema.VERSION + 2) == schema.VERSION + 2
    assert taken == [1, 2]
    engine.dispose()


def test_a_step_that_fails_is_taken_again(url: str) -> None:
    engine = schema.open_engine(url)
    schema.migrate(engine)
    number = schema.VERSION + 1

    def fail(connection: sa.Connection) -> None:
        connection.execute(schema.patient.insert().values(identity="half"))
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        schema.migrate(engine, {number: fail}, number)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.patient)) == 0
    assert schema.migrate(engine, {number: lambda connection: None}, number) == schema.VERSION
    engine.dispose()


def test_making_the_tables_goes_on_after_an_interruption(url: str) -> None:
    engine = schema.open_engine(url)
    with engine.begin() as connection:
        schema.patient.create(connection)
    assert schema.migrate(engine) == 0
    assert sa.inspect(engine).has_table("instance")
    engine.dispose()


def test_a_table_that_is_missing_is_made(url: str) -> None:
    """A new table needs no step: parts of an archive have theirs beside those of the index."""
    engine = schema.open_engine(url)
    schema.migrate(engine)
    with engine.begin() as connection:
        schema.header.drop(connection)
    assert schema.migrate(engine) == schema.VERSION
    assert sa.inspect(engine).has_table("header")
    engine.dispose()


def test_another_database_than_sqlite_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but opening it differs."""
    other = SimpleNamespace(dialect=SimpleNamespace(is_async=False))
    monkeypatch.setattr(sa, "create_engine", lambda url, **options: other)
    assert schema.open_engine("postgresql://host/archive") is other


def test_a_newer_database_is_refused_with_a_sentence(url: str) -> None:
    engine = schema.open_engine(url)
    schema.migrate(engine, {schema.VERSION + 1: lambda connection: None}, schema.VERSION + 1)
    with pytest.raises(IndexUnusableError, match=r"schema version 2.*up to 1.*newer"):
        schema.migrate(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("journal_mode", "wal"),
        pytest.param("synchronous", 2, id="FULL: a commit survives a power cut"),
        ("foreign_keys", 1),
    ],
)
def test_sqlite_is_set_to_keep_what_it_commits(url: str, setting: str, value: object) -> None:
    engine = schema.open_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"PRAGMA {setting}").scalar() == value
    engine.dispose()


def test_wild_cards_are_case_sensitive_in_sqlite(url: str) -> None:
    """PS3.4 C.2.2.2.4; SQLite's LIKE is not, left to itself."""
    engine = schema.open_engine(url)
    with engine.connect() as connection:
        assert not connection.scalar(sa.select(sa.literal("CT").like("ct")))
    engine.dispose()


class Absent(DefaultDialect):
    """A dialect whose driver is not here."""

    @classmethod
    def import_dbapi(cls) -> Any:
        raise ImportError("No module named 'absent_driver'")


class Waiting(SQLiteDialect):
    """A dialect for asyncio."""

    is_async = True

    @classmethod
    def import_dbapi(cls) -> Any:
        return SimpleNamespace(sqlite_version_info=(3, 40), paramstyle="qmark")


class Fussy(DefaultDialect):
    """A dialect that finds a reason."""

    @classmethod
    def import_dbapi(cls) -> Any:
        raise sa.exc.ArgumentError("no, thanks")


_UNREADABLE = (
    "the database URL cannot be read; expected one such as sqlite:////data/index.db or "
    "postgresql://user@host/name"
)
_IN_MEMORY = (
    "the index needs a database file, not one in memory; expected a URL such as "
    "sqlite:////data/index.db"
)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("", _UNREADABLE),
        ("no url", _UNREADABLE),
        ("postgresql://me:secret@host:port/x", _UNREADABLE),
        (
            "nothing://x",
            "there is no database called 'nothing'; expected a URL such as "
            "sqlite:////data/index.db or postgresql://user@host/name",
        ),
        ("sqlite://", _IN_MEMORY),
        ("sqlite:///:memory:", _IN_MEMORY),
        ("sqlite:///file::memory:?uri=true", _IN_MEMORY),
        ("sqlite:///file:x?mode=memory&uri=true", _IN_MEMORY),
        (
            "absent://x",
            "the driver of the database 'absent' is not installed: No module named 'absent_driver'",
        ),
        (
            "postgresql+absent://x",
            "the driver of the database 'postgresql+absent' is not installed: No module named "
            "'absent_driver'; pip install 'netdicom-tx[postgres]'",
        ),
        (
            "sqlite+waiting:///x.db",
            "'sqlite+waiting' is a driver for asyncio; expected one that waits, such as 'sqlite' alone",
        ),
        (
            "fussy:///x.db",
            "the database URL cannot be used: no, thanks",
        ),
    ],
)
def test_a_useless_url_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, wrong: str, says: str
) -> None:
    """It says what was expected, in words of URLs and not of connection pools, and no password."""
    made = {
        "absent": Absent,
        "postgresql.absent": Absent,
        "sqlite.waiting": Waiting,
        "fussy": Fussy,
    }
    for name, dialect in made.items():
        monkeypatch.setitem(registry.impls, name, lambda dialect=dialect: dialect)
    with pytest.raises(IndexUnusableError) as caught:
        schema.open_engine(wrong)
    assert str(caught.value) == says
