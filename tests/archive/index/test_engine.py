"""The engine of the index's database, and the versions of its tables."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine.default import DefaultDialect

from netdicom_tx.archive.index import engine as module
from netdicom_tx.archive.index import schema
from netdicom_tx.archive.index.engine import IndexUnusableError, migrate, open_engine


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'index.db'}"


def test_a_new_database_is_made_at_the_newest_version(url: str) -> None:
    engine = open_engine(url)
    assert migrate(engine) == 0
    assert migrate(engine) == module.VERSION
    assert set(sa.inspect(engine).get_table_names()) == {
        *schema.metadata.tables,
        "schema_version",
    }
    engine.dispose()


def test_steps_are_taken_one_after_the_other_and_once(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    taken = []
    steps = {
        module.VERSION + 1: lambda connection: taken.append(1),
        module.VERSION + 2: lambda connection: taken.append(2),
    }
    assert migrate(engine, steps, module.VERSION + 2) == module.VERSION
    assert migrate(engine, steps, module.VERSION + 2) == module.VERSION + 2
    assert taken == [1, 2]
    engine.dispose()


def test_a_step_that_fails_is_taken_again(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    number = module.VERSION + 1

    def fail(connection: sa.Connection) -> None:
        connection.execute(schema.patient.insert().values(identity="half"))
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        migrate(engine, {number: fail}, number)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.patient)) == 0
    assert migrate(engine, {number: lambda connection: None}, number) == module.VERSION
    engine.dispose()


def test_making_the_tables_goes_on_after_an_interruption(url: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        schema.patient.create(connection)
    assert migrate(engine) == 0
    assert sa.inspect(engine).has_table("instance")
    engine.dispose()


def test_a_table_that_is_missing_is_made(url: str) -> None:
    """A new table needs no step: parts of an archive have theirs beside those of the index."""
    engine = open_engine(url)
    migrate(engine)
    with engine.begin() as connection:
        schema.kept_header.drop(connection)
    assert migrate(engine) == module.VERSION
    assert sa.inspect(engine).has_table("header")
    engine.dispose()


def test_another_database_than_sqlite_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but opening it differs."""
    other = SimpleNamespace(dialect=SimpleNamespace(is_async=False))
    monkeypatch.setattr(sa, "create_engine", lambda url, **options: other)
    assert open_engine("postgresql://host/archive") is other


def test_a_newer_database_is_refused_with_a_sentence(url: str) -> None:
    engine = open_engine(url)
    migrate(engine, {module.VERSION + 1: lambda connection: None}, module.VERSION + 1)
    with pytest.raises(IndexUnusableError, match=r"schema version 3.*up to 2.*newer"):
        migrate(engine)
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
    engine = open_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"PRAGMA {setting}").scalar() == value
    engine.dispose()


def test_wild_cards_are_case_sensitive_in_sqlite(url: str) -> None:
    """PS3.4 C.2.2.2.4; SQLite's LIKE is not, left to itself."""
    engine = open_engine(url)
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
            "'sqlite+waiting' is a driver for asyncio; expected a synchronous one, such as 'sqlite' alone",
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
        open_engine(wrong)
    assert str(caught.value) == says
