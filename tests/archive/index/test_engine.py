"""The engine of the index's database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine.default import DefaultDialect

from netdicom_tx.archive.index.engine import (
    IndexUnusableError,
    is_on_network,
    open_engine,
)
from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.shared import Shared


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'index.db'}"


def test_a_database_of_another_kind_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but opening it differs."""
    other = SimpleNamespace(dialect=SimpleNamespace(is_async=False))
    monkeypatch.setattr(sa, "create_engine", lambda url, **options: other)
    assert open_engine("mysql://host/archive") is other


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


class Busy(sqlite3.Connection):
    """A connection to a database that another process is giving its log, which SQLite does not wait for."""

    busy = 3

    def cursor(self, *_: Any) -> Any:
        return BusyCursor(self)


class BusyCursor(sqlite3.Cursor):
    """Its cursor."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if "journal_mode" in sql and Busy.busy:
            Busy.busy -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(sql, *arguments)


def test_processes_that_make_a_database_at_once_wait_for_each_other(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Busy, "busy", 3)
    engine = open_engine(url)

    def connect(_: object, __: object, arguments: list[str], options: dict[str, Any]) -> Busy:
        return sqlite3.connect(*arguments, **options, factory=Busy)

    sa.event.listen(engine, "do_connect", connect)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert Busy.busy == 0
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


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ext4", False),
        ("overlay", False),
        ("fuse.ntfs", False),
        ("nfs4", True),
        ("cifs", True),
        ("fuse.sshfs", True),
    ],
)
def test_a_network_file_system_is_known(tmp_path: Path, kind: str, expected: bool) -> None:
    """The longest mount point counts, and blanks in it are octal numbers."""
    place = tmp_path / "the archive"
    mounts = tmp_path / "mounts"
    quoted = str(place).replace(" ", r"\040")
    mounts.write_text(f"root / ext4 rw 0 0\nhost:/a {quoted} {kind} rw 0 0\n")
    assert is_on_network(str(place / "deep" / "index.db"), str(mounts)) is expected
    assert not is_on_network(str(tmp_path / "index.db"), str(mounts))


def test_without_a_list_of_mounts_nothing_is_refused(tmp_path: Path) -> None:
    assert not is_on_network("/data/index.db", str(tmp_path / "nothing"))


def test_several_processes_refuse_sqlite_on_a_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's log needs memory that all processes map."""
    monkeypatch.setattr("netdicom_tx.archive.index.index.is_on_network", lambda path: True)
    index = Index(f"sqlite:///{tmp_path / 'index.db'}")
    index.shared = Shared.create()
    with pytest.raises(IndexUnusableError, match="network file system"):
        index.open()
