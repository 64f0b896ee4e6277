"""A backup of a store that nodes share has its objects, and can be used as a shared directory."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import Duplicates, Index
from netdicom_tx.archive.backup import BackedUp, BackupError, back_up, check
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store.deletion import open_archive
from netdicom_tx.archive.store.inventory import compare
from netdicom_tx.archive.store.objects import DirectoryObjects, ObjectStoreError
from netdicom_tx.archive.store.reconcile import verify
from netdicom_tx.archive.store.sharedstore import SharedStore
from support.archive.archives import stored
from support.archive.data_sets import ct
from support.archive.databases import database_url
from support.archive.groups import Member, shared_archive


class Backed:
    """A node that runs, another node's directory, and the directory of backups."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = Member(folder, duplicates=Duplicates.KEEP_BOTH)
        for number in range(3):
            assert stored(self.node.sender(), ct(f"1.{number}"), f"1.{number}") == 0x0000
        assert stored(self.node.sender(), ct("1.0", fill=9), "1.0") == 0x0000
        made = shared_archive(folder, "other", duplicates=Duplicates.KEEP_BOTH)
        store, index = made.store, made.index
        assert isinstance(store, SharedStore)
        assert isinstance(index, Index)
        self.store, self.index = store, index
        self.target = folder / "backup"

    def run(self, files: str = "copy", **options: Any) -> BackedUp:
        return back_up(self.store, self.index, self.target, files=files, **options)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.target / "files.jsonl").read_text().splitlines()]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Backed]:
    made = Backed(tmp_path)
    yield made
    made.node.close()


def test_a_backup_has_the_objects_and_their_list(archive: Backed) -> None:
    done = archive.run()
    assert (done.files, done.added, done.damaged) == (4, 4, [])
    keys = {*archive.node.keys(), *archive.node.keys("versions/")}
    assert {each["path"] for each in archive.lines()} == keys
    assert {each.key for each in DirectoryObjects(archive.target).list("instances/")} | {
        each.key for each in DirectoryObjects(archive.target).list("versions/")
    } == keys
    assert list(check(archive.target)) == []
    assert not [each for each in archive.target.rglob("*") if ".part" in each.name]


def test_a_later_backup_adds_what_is_new_and_removes_what_is_gone(archive: Backed) -> None:
    archive.run()
    archive.node.ae.deleter.delete_named(Level.IMAGE, "1.2")
    assert stored(archive.node.sender(), ct("1.9"), "1.9") == 0x0000
    done = archive.run(files="")
    assert (done.files, done.added, done.removed) == (4, 1, 1)
    assert list(check(archive.target)) == []


def test_objects_are_only_listed_unless_copies_are_wanted(archive: Backed) -> None:
    done = archive.run(files="")
    assert (done.files, done.added, done.has_files) == (4, 0, False)
    assert not (archive.target / "instances").exists()
    assert list(check(archive.target)) == []


def test_objects_cannot_have_second_names(archive: Backed) -> None:
    with pytest.raises(BackupError, match="--files copy"):
        archive.run(files="link")
    assert not archive.target.exists()


def test_an_object_that_is_missing_or_damaged_is_named(archive: Backed) -> None:
    first, second = archive.node.keys()[:2]
    objects = archive.node.store.objects
    size = objects.size(second)
    objects.delete([first])
    objects.put(second, [bytes(size)], size)
    done = archive.run()
    assert {path for path, _ in done.damaged} == {first, second}
    assert (done.files, done.added) == (2, 2)


def test_an_instance_that_is_deleted_meanwhile_is_not_missing(
    archive: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = archive.store.objects.read

    def deleting(key: str, start: int, end: int) -> bytes:
        ref = archive.index.get("1.1")
        if ref is not None and str(ref.path) == key:
            archive.node.ae.deleter.delete_named(Level.IMAGE, "1.1")
            archive.node.store.objects.delete([key])
        return read(key, start, end)

    monkeypatch.setattr(archive.store.objects, "read", deleting)
    done = archive.run()
    assert (done.files, done.damaged) == (3, [])
    assert "1.1" not in {each["sop_instance_uid"] for each in archive.lines()}


def test_a_store_that_does_not_answer_ends_the_backup(
    archive: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise ObjectStoreError("the store is away")

    monkeypatch.setattr(archive.store.objects, "read", away)
    with pytest.raises(ObjectStoreError, match="is away"):
        archive.run()
    assert not (archive.target / "backup.json").exists()


def test_a_backup_is_a_shared_directory_for_a_new_database(archive: Backed, tmp_path: Path) -> None:
    archive.run()
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copytree(archive.target, restored / "shared")
    store = SharedStore(restored / "node", DirectoryObjects(restored / "shared", fsync=False))
    store.bind(index := Index(database_url(restored / "index.db"), root=store.root))
    open_archive(store, index, adopt=True)
    compare(store, index, age=0, keeps_all=True)
    assert index.counts().instances == 3
    assert list(verify(index)) == []
    assert len(list(store.versions())) == 1
    index.close()
    store.close()
