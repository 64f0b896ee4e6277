"""An index on a PostgreSQL server that is stopped, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
