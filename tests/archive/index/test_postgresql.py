"""An index on a PostgreSQL server that is stopped, and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.index.engine import IndexUnusableError
from netdicom_tx.archive.index.index import Index, IndexUnavailableError
from support.archive.databases import PostgreSQL
from support.archive.records import add, record
from support.doubles import logged_lines  # noqa: F401 - a fixture
from support.processes import eventually

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    started = PostgreSQL()
    yield started
    started.end()


@pytest.fixture
def index(server: PostgreSQL, tmp_path: Path) -> Iterator[Index]:
    with Index(server.url(str(tmp_path))) as opened:
        yield opened


def test_what_is_added_is_found(index: Index) -> None:
    add(index, record("1.1"))
    found = index.get("1.1")
    assert found is not None
    assert found.sop_instance_uid == "1.1"


def test_the_password_is_in_the_environment_or_in_a_file(
    server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the command line, where everybody can read it."""
    for each in ("PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    url = server.secure("careful", "geheim")

    def is_refused() -> bool:
        try:
            with Index(url):
                return False
        except IndexUnusableError as error:
            return "password" in str(error)

    eventually(is_refused, "the server demands the password")
    monkeypatch.setenv("PGPASSWORD", "geheim")
    with Index(url) as index:
        add(index, record("1.1"))
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "passwords"
    file.touch(0o600)
    file.write_text("*:*:*:careful:geheim\n")
    monkeypatch.setenv("PGPASSFILE", str(file))
    with Index(url) as index:
        assert index.get("1.1") is not None
    wrong = url.replace("careful@", "careful:falsch@")
    with pytest.raises(IndexUnusableError) as caught:
        Index(wrong).open()
    assert "password authentication failed" in str(caught.value)
    assert "falsch" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_restart_of_the_server_is_not_noticed(index: Index, server: PostgreSQL) -> None:
    """Connections that were open before it are not used any more, neither to write nor to read."""
    add(index, record("1.1"))
    assert index.get("1.1") is not None
    server.stop()
    server.start()
    assert index.get("1.1") is not None
    add(index, record("1.2"))
    assert index.get("1.2") is not None


def test_while_the_server_is_away_the_index_refuses(
    index: Index, server: PostgreSQL, lines: list[str]
) -> None:
    """RELIABILITY D10: nothing is acknowledged that is not in the index, and nothing needs a restart of the node."""
    add(index, record("1.1"))
    server.stop()
    try:
        assert isinstance(index.add(record("1.2")).exception(timeout=30), IndexUnavailableError)
        for _ in range(5):
            with pytest.raises(IndexUnavailableError):
                index.get("1.1")
    finally:
        server.start()
    eventually(
        lambda: index.add(record("1.3")).exception(timeout=30) is None, "the index takes rows again"
    )
    assert [index.get(uid) is not None for uid in ("1.1", "1.2", "1.3")] == [True, False, True]
    said = [each for each in lines if "the database" in each]
    assert len(said) == 2
    assert "does not answer" in said[0]
    assert "the database answers again" in said[1]


class Numbered:
    """A table, and the number of the transaction that wrote to it last."""

    def __init__(self, engine: sa.Engine) -> None:
        self.table = sa.Table("named", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True))
        self.table.create(engine)
        self.last = 0

    def add(self, name: str) -> Callable[[sa.Connection], None]:
        def call(connection: sa.Connection) -> None:
            connection.execute(self.table.insert(), {"name": name})
            number = connection.scalar(sa.text("SELECT pg_current_xact_id()::text"))
            self.last = int(str(number))

        return call

    def names(self, connection: sa.Connection) -> list[str]:
        return list(connection.scalars(sa.select(self.table.c.name)))


@pytest.fixture
def numbered(database: EngineDatabase) -> Numbered:
    return Numbered(database.engine)


@pytest.fixture
def database(server: PostgreSQL, tmp_path: Path) -> Iterator[EngineDatabase]:
    opened = EngineDatabase(server.url(str(tmp_path)))
    yield opened
    opened.close()


def test_what_a_crash_has_lost_is_not_taken_for_the_transaction_that_has_its_number(
    server: PostgreSQL, database: EngineDatabase, numbered: Numbered, tmp_path: Path
) -> None:
    """A server that has crashed gives the numbers of transactions that it had not written to others."""
    other = EngineDatabase(server.url(str(tmp_path)))
    crashes = [True]

    def crash(_: sa.Connection) -> None:
        if not crashes:
            return
        crashes.clear()
        ours, count = numbered.last, 0
        server.stop()
        server.start()
        numbered.last = 0
        while numbered.last < ours:
            count += 1
            other.write(numbered.add(f"other {count}")).result()

    sa.event.listen(database.engine, "commit", crash)
    written = database.write(numbered.add("ours"))
    with other.reading() as reading:
        assert "ours" not in numbered.names(reading)
    assert isinstance(written.exception(), sa.exc.DBAPIError)
    other.close()


def test_a_commit_whose_answer_is_lost_is_known(
    server: PostgreSQL, database: EngineDatabase, numbered: Numbered
) -> None:
    """It is neither reported as failed nor done twice."""

    def lose(connection: Any) -> None:
        connection.commit()
        server.stop()
        server.start()

    with patched_commit(database.engine, lose):
        assert database.write(numbered.add("ours")).exception() is None
    with database.reading() as reading:
        assert numbered.names(reading) == ["ours"]


@contextmanager
def patched_commit(engine: sa.Engine, instead: Callable[[Any], None]) -> Iterator[None]:
    """Have the next commit done by a function, and then by the driver, which finds the connection lost."""
    dialect = engine.dialect
    commit = dialect.do_commit
    calls = [instead]

    def do_commit(connection: Any) -> None:
        if calls:
            calls.pop()(connection)
            connection.execute("SELECT 1")
        commit(connection)

    dialect.do_commit = do_commit  # type: ignore[method-assign]
    try:
        yield
    finally:
        dialect.do_commit = commit  # type: ignore[method-assign]


def test_the_notes_of_connections_that_are_gone_are_deleted(
    server: PostgreSQL, database: EngineDatabase, numbered: Numbered, tmp_path: Path
) -> None:
    database.write(numbered.add("first")).result()
    database.write(numbered.add("second")).result()
    with database.engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM ending")) == 1
        connection.execute(sa.text("UPDATE ending SET noted = noted - 90000"))
    other = EngineDatabase(server.url(str(tmp_path)))
    other.write(numbered.add("third")).result()
    other.close()
    with database.reading() as reading:
        assert reading.execute(sa.text("SELECT number FROM ending")).all() == [(1,)]


def test_who_changes_nothing_leaves_no_note(database: EngineDatabase, numbered: Numbered) -> None:
    assert database.write(numbered.names).result() == []
    with database.reading() as reading:
        assert reading.scalar(sa.text("SELECT count(*) FROM ending")) == 0
