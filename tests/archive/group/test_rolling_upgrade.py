"""Nodes of two releases work side by side while a group is upgraded, and refuse it when they cannot."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.group.members import MemberError, Members, OwnNode, check_upgrade
from netdicom_tx.archive.index import migrations
from netdicom_tx.archive.index.engine import IndexUnusableError
from netdicom_tx.archive.index.index import Index
from support.archive.databases import database_url
from support.archive.records import add, record

OLD = migrations.VERSION
NEW = OLD + 1

REVISION = f'''
import sqlalchemy as sa
from alembic import op

revision = "{NEW:04}"
down_revision = "{OLD:04}"


def upgrade():
    op.add_column("instance", sa.Column("novelty", sa.Text, nullable=True))
    op.create_table("novelty", sa.Column("id", sa.Integer, primary_key=True))
'''

NewRelease = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def new_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewRelease:
    """The next release, while the block runs: it adds a column and a table."""
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / f"v{NEW:04}_novelty.py").write_text(REVISION)

    @contextmanager
    def running(oldest: int = OLD) -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr(migrations, "_REVISIONS", (*migrations._REVISIONS, folder))
            patched.setattr(migrations, "VERSION", NEW)
            patched.setattr(migrations, "OLDEST", oldest)
            yield

    return running


@pytest.fixture
def url(tmp_path: Path) -> str:
    return database_url(tmp_path / "index.db")


def uids(index: Index) -> list[str]:
    return [each.sop_instance_uid for each in index.paths()]


def columns(index: Index) -> set[str]:
    with index.reading() as reading:
        return {each["name"] for each in sa.inspect(reading).get_columns("instance")}


def test_an_old_node_goes_on_beside_a_new_one(url: str, new_release: NewRelease) -> None:
    with Index(url) as old:
        add(old, record("1.1", path="/files/a.dcm"))
        with new_release():
            with Index(url) as new:
                assert "novelty" in columns(new)
                add(new, record("1.2", path="/files/b.dcm"))
            # The old one still runs; it stores, finds and removes.
            add(old, record("1.3", path="/files/c.dcm"))
            assert uids(old) == ["1.1", "1.2", "1.3"]
            assert old.remove("1.1").result()
        assert old.get("1.2") is not None


def test_an_old_node_can_be_started_beside_a_new_one(url: str, new_release: NewRelease) -> None:
    with new_release(), Index(url):
        pass
    with Index(url) as old:
        add(old, record("1.1"))
        assert uids(old) == ["1.1"]
        with old.reading() as reading:
            assert migrations.version_of(reading) == NEW


def test_an_old_node_refuses_tables_that_it_does_not_understand(
    url: str, new_release: NewRelease
) -> None:
    with new_release(oldest=NEW), Index(url):
        pass
    expected = rf"schema version {NEW}, but this netdicom_tx supports versions up to {OLD}"
    with pytest.raises(IndexUnusableError, match=expected):
        Index(url).open()


def test_tables_are_not_upgraded_under_a_node_that_would_not_understand_them(
    url: str, new_release: NewRelease
) -> None:
    with Index(url) as old:
        members = Members(
            old, OwnNode(uuid="old", name="old", host="here", version="1", schema=OLD)
        )
        members.join()
        with new_release(oldest=NEW):
            fresh = Index(url)
            with pytest.raises(MemberError, match=r"the node old on here \(netdicom_tx 1\) works"):
                fresh.open(check_upgrade)
            assert "novelty" not in columns(old)
            members.leave()
            fresh.open(check_upgrade)
            fresh.close()
            assert "novelty" in columns(old)


def test_tables_are_upgraded_under_a_node_that_goes_on(url: str, new_release: NewRelease) -> None:
    with Index(url) as old:
        Members(old, OwnNode(uuid="old", name="old", schema=OLD)).join()
        with new_release():
            fresh = Index(url)
            fresh.open(check_upgrade)
            fresh.close()
        assert "novelty" in columns(old)
