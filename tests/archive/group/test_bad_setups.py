"""A setup that cannot work is refused with one sentence: what was expected, what came, what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from netdicom_tx.archive import ArchiveAE, FileStore, Index, IndexUnusableError, StorageError
from netdicom_tx.archive.group import members
from netdicom_tx.archive.index import migrations
from netdicom_tx.archive.store.objects import DirectoryObjects
from netdicom_tx.archive.store.s3 import S3Objects, S3Options
from netdicom_tx.archive.store.sharedstore import SharedStore
from support.archive.buckets import Simulated
from support.archive.databases import PostgreSQL, database_url
from support.archive.objectstore import Bucket


def node(
    folder: Path,
    url: str,
    *,
    name: str = "one",
    shared: Path | None = None,
    bucket: Bucket | None = None,
) -> ArchiveAE:
    """A node without threads; its directory has its name."""
    root = folder / name
    store = FileStore(root, fsync=False)
    if shared is not None:
        store = SharedStore(root, DirectoryObjects(shared, fsync=False), fsync=False)
    if bucket is not None:
        options = S3Options(bucket.endpoint, "x", bucket.access_key, bucket.secret_key, checksum="")
        store = SharedStore(root, S3Objects(bucket.url, options), fsync=False)
    return ArchiveAE("NODE", store, Index(url, root=root), threads=0)


def refused(ae: ArchiveAE) -> str:
    """Why a node does not start: one sentence, and nothing of it is left."""
    with pytest.raises((IndexUnusableError, StorageError)) as caught:
        ae.start()
    said = str(caught.value)
    assert "\n" not in said
    assert ae.index is not None
    assert not ae.index.is_open
    return said


def started(ae: ArchiveAE) -> ArchiveAE:
    ae.start()
    ae.stop()
    return ae


@pytest.fixture
def url(tmp_path: Path) -> str:
    return database_url(tmp_path / "index.db")


def test_a_newer_schema(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "OLDEST", migrations.VERSION)
    started(node(tmp_path, url))
    monkeypatch.setattr(migrations, "VERSION", migrations.VERSION - 1)
    assert re.search(
        r"schema version \d, but this netdicom_tx supports versions up to \d: start the netdicom_tx that wrote it",
        refused(node(tmp_path, url)),
    )


def test_an_empty_or_wrong_directory(tmp_path: Path, url: str) -> None:
    started(node(tmp_path, url))
    said = refused(node(tmp_path, url, name="other"))
    assert re.search(r"belongs to the store in .*/one, and .*/other has no identity\.json", said)
    assert os.listdir(tmp_path / "other") == ["lock"]


def test_the_database_of_another_archive(tmp_path: Path, url: str) -> None:
    other = database_url(tmp_path / "other.db")
    started(node(tmp_path, url))
    started(node(tmp_path, other, name="other"))
    said = refused(node(tmp_path, other))
    assert re.search(r"/one belongs to another database than .*name the database of this", said)


def test_two_nodes_in_one_directory(tmp_path: Path, url: str) -> None:
    first = node(tmp_path, url)
    first.start()
    try:
        assert "is in use by another node: stop that node" in refused(node(tmp_path, url))
    finally:
        first.stop()


@pytest.mark.sqlite
def test_two_nodes_with_sqlite(tmp_path: Path, url: str) -> None:
    (tmp_path / "shared").mkdir()
    first = node(tmp_path, url, shared=tmp_path / "shared")
    first.start()
    second = node(tmp_path, url, name="two", shared=tmp_path / "shared")
    assert first.membership is not None
    assert second.membership is not None
    # The first one sends a heartbeat while it is watched.
    second.membership.sleep = lambda _, beat=first.membership.beat: beat()  # type: ignore[misc]
    try:
        said = refused(second)
    finally:
        first.stop()
    assert re.search(r"the SQLite database .* serves one node: give .* a PostgreSQL database", said)


def test_a_clock_that_is_wrong(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    right = members.database_time
    monkeypatch.setattr(members, "database_time", lambda each: right(each) + 600)
    said = refused(node(tmp_path, url, shared=shared))
    assert re.search(r"is 600 s behind that of the database, and at most 60 s .* NTP", said)


def test_a_shared_directory_that_is_not_there(tmp_path: Path, url: str) -> None:
    said = refused(node(tmp_path, url, shared=tmp_path / "shared"))
    assert "shared does not exist: mount it, or create it once" in said


@pytest.mark.sqlite
def test_a_shared_directory_that_is_not_mounted(tmp_path: Path, url: str) -> None:
    (tmp_path / "shared").mkdir()
    started(node(tmp_path, url, shared=tmp_path / "shared"))
    (tmp_path / "shared").rename(tmp_path / "away")
    (tmp_path / "shared").mkdir()
    said = refused(node(tmp_path, url, shared=tmp_path / "shared"))
    assert "/shared has no identity.json: name the right storage" in said
    assert os.listdir(tmp_path / "shared") == []


def test_an_empty_or_another_bucket(tmp_path: Path, url: str) -> None:
    server = Simulated.running()
    first, empty, other = server.bucket(), server.bucket(), server.bucket()
    started(node(tmp_path, url, bucket=first))
    said = refused(node(tmp_path, url, bucket=empty))
    assert re.search(
        rf"s3://{empty.name} at .* has no identity\.json: name the right storage", said
    )
    started(node(tmp_path, database_url(tmp_path / "b.db"), name="other", bucket=other))
    said = refused(node(tmp_path, url, bucket=other))
    assert re.search(rf"s3://{other.name} at .* belongs to another database than", said)
    started(node(tmp_path, url, bucket=first))


def test_a_read_only_sqlite_database(tmp_path: Path, url: str) -> None:
    started(node(tmp_path, url))
    path = quote(str(tmp_path / "index.db"))
    said = refused(node(tmp_path, f"sqlite:///file:{path}?mode=ro&uri=true"))
    assert re.search(r"readonly database; a node has to write: .* let the user of the node", said)


class Role:
    """A user of a PostgreSQL database who has no rights at first."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.schema = self.execute("SELECT current_schema()")
        self.name = f"role_{self.schema}"
        self.execute(f"CREATE ROLE {self.name} LOGIN")
        self.execute(f"GRANT USAGE ON SCHEMA {self.schema} TO {self.name}")
        self.url = url.replace("//tests@", f"//{self.name}@")

    def execute(self, sql: str) -> str:
        with self._engine.begin() as connection:
            result = connection.exec_driver_sql(sql)
            return str(result.scalar()) if result.returns_rows else ""

    def end(self) -> None:
        self.execute(f"DROP OWNED BY {self.name}")
        self.execute(f"DROP ROLE {self.name}")


@pytest.fixture
def role(tmp_path: Path) -> Iterator[Role]:
    made = Role(PostgreSQL.running().url(str(tmp_path / "rights")))
    yield made
    made.end()


def test_a_role_that_may_make_no_tables(tmp_path: Path, role: Role) -> None:
    said = refused(node(tmp_path, role.url))
    assert re.search(r"permission denied for schema .*; the user .* GRANT CREATE ON SCHEMA", said)


def test_a_role_that_may_only_read(tmp_path: Path, role: Role) -> None:
    own = role.url.replace(role.name, "tests")
    started(node(tmp_path, own))
    role.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {role.schema} TO {role.name}")
    said = refused(node(tmp_path, role.url))
    assert "may not change the table archive_identity and" in said
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES" in said


def test_a_standby_server(tmp_path: Path, role: Role) -> None:
    own = role.url.replace(role.name, "tests")
    started(node(tmp_path, own))
    said = refused(
        node(
            tmp_path,
            own.replace("csearch_path", "cdefault_transaction_read_only%3Don%20-csearch_path"),
        )
    )
    assert "is read-only; a node has to write: name the primary server" in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"database": "missing"}, "does not exist; create it, or correct"),
        ({"username": "nobody"}, "does not exist; create it, or correct"),
        ({"query": {}, "host": "127.0.0.1", "port": 1}, "refused; start the server, or correct"),
        ({"query": {"host": "/nowhere"}}, "No such file or directory.*; start the server"),
        ({"query": {"host": "/nowhere", "odd": "1"}}, 'option "odd"; correct'),
    ],
    ids=["database", "user", "port", "socket", "option"],
)
def test_a_server_that_cannot_be_reached(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    """The URL is told as it was given, without what the node adds to it."""
    url = sa.make_url(PostgreSQL.running().url(str(tmp_path / "reached")))
    asked = url.set(**changes).render_as_string(hide_password=False)
    said = refused(node(tmp_path, asked))
    assert re.search(expected, said)
    assert "keepalives" not in said


def test_a_server_that_has_too_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    def full(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already")

    monkeypatch.setattr(psycopg, "connect", full)
    said = refused(node(tmp_path, "postgresql+psycopg://somebody@127.0.0.1/archive"))
    assert "raise its max_connections, or let the nodes have fewer threads" in said
