"""A backup has what the archive had, and makes the archive again."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from netdicom_tx.archive import Duplicates, FileStore, Index
from netdicom_tx.archive import backup as backups
from netdicom_tx.archive.backup import BackupError, back_up, check
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.index.withdrawal import choose
from netdicom_tx.archive.store.deletion import Deleter, open_archive
from netdicom_tx.archive.store.importing import import_files, opened_for_import, readers
from netdicom_tx.archive.store.journal import Entry
from netdicom_tx.archive.store.reconcile import reconcile, verify
from support.archive.part10_files import write


class Archive:
    def __init__(self, root: Path) -> None:
        self.store = FileStore(root, fsync=False, duplicates=Duplicates.KEEP_BOTH)
        self.index = Index(f"sqlite:///{root / 'index.db'}", root=root)

    def take(self, *files: Path) -> None:
        with opened_for_import(self.store, self.index), readers(self.store) as reader:
            self.index.open()
            list(import_files(self.store, self.index, reader, map(str, files)))
            self.index.close()

    def back_up(self, target: Path, files: str = "") -> backups.BackedUp:
        return back_up(self.store, self.index, target, files=files)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Three instances, and other content of one of them."""
    made = Archive(tmp_path / "archive")
    made.take(
        *(write(tmp_path / "in" / f"{number}", f"1.{number}") for number in range(3)),
        write(tmp_path / "in" / "other", "1.0", PatientName="OTHER"),
    )
    yield made
    made.index.close()


def lines(target: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (target / "files.jsonl").read_text().splitlines()]


def uids_in(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as opened:
        return {uid for (uid,) in opened.execute("SELECT sop_instance_uid FROM instance")}


@pytest.mark.parametrize("files", ["", "copy", "link"])
def test_a_backup_has_index_list_and_files(archive: Archive, tmp_path: Path, files: str) -> None:
    target = tmp_path / "backup"
    done = archive.back_up(target, files)
    assert (done.files, done.added, done.damaged) == (4, 4 if files else 0, [])
    assert uids_in(target / "index.db") == {"1.0", "1.1", "1.2"}
    assert {each["sop_instance_uid"] for each in lines(target)} == {"1.0", "1.1", "1.2", ""}
    assert list(check(target)) == []
    stored = archive.store.path("1.1")
    copy = target / stored.relative_to(archive.store.root)
    assert copy.exists() is bool(files)
    if files:
        assert copy.samefile(stored) is (files == "link")
    assert not [each for each in target.rglob("*") if ".part" in each.name]
    assert target.stat().st_mode & 0o077 == 0


def test_a_later_backup_adds_what_is_new_and_removes_what_is_gone(
    archive: Archive, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    archive.back_up(target, "copy")
    before = (target / archive.store.path("1.1").relative_to(archive.store.root)).stat().st_ino
    archive.take(write(tmp_path / "in" / "new", "1.9"))
    open_archive(archive.store, archive.index)
    with archive.index.reading() as reading:
        chosen = choose(reading, Level.IMAGE, "1.2")
    Deleter(archive.store, archive.index).delete(chosen)
    archive.index.close()
    archive.store.close()
    done = archive.back_up(target)
    assert (done.files, done.added, done.removed) == (4, 1, 1)
    assert uids_in(target / "index.db") == {"1.0", "1.1", "1.9"}
    after = (target / archive.store.path("1.1").relative_to(archive.store.root)).stat().st_ino
    assert after == before
    assert list(check(target)) == []


def test_a_backup_has_the_identity_of_the_archive(archive: Archive, tmp_path: Path) -> None:
    open_archive(archive.store, archive.index)
    archive.index.close()
    archive.store.close()
    archive.back_up(tmp_path / "backup")
    document = tmp_path / "backup/identity.json"
    assert document.read_bytes() == (archive.store.root / "identity.json").read_bytes()
    document.write_text("other")
    assert [each.path for each in check(tmp_path / "backup")] == ["identity.json"]


def test_replaced_content_is_backed_up_again(archive: Archive, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    for mode in ("link", "copy"):
        archive.back_up(target, mode)
        archive.store.duplicates = Duplicates.REPLACE
        archive.take(write(tmp_path / "in" / mode, "1.1", PatientName=mode.upper()))
        assert archive.back_up(target, mode).added == 1
        assert list(check(target)) == []


def test_an_interrupted_backup_is_completed(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backup"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("_finish", "_remove_others"):
        with monkeypatch.context() as patched:
            patched.setattr(backups._Making, step, killed)
            with pytest.raises(KeyboardInterrupt):
                archive.back_up(target, "link")
        if step == "_finish":
            with pytest.raises(BackupError, match="not a complete backup"):
                list(check(target))
    assert archive.back_up(target, "link").files == 4
    assert list(check(target)) == []
    assert not [each for each in target.rglob("*") if ".part" in each.name]


def test_what_is_damaged_is_named_and_a_good_copy_stays(archive: Archive, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    archive.back_up(target, "copy")
    for uid in ("1.1", "1.2"):
        path = archive.store.path(uid)
        octets = path.read_bytes()
        path.write_bytes(octets[:-1] + b"\1")
    assert archive.back_up(target, "copy").damaged == []
    assert list(check(target)) == []
    fresh = archive.back_up(tmp_path / "fresh", "copy")
    assert len(fresh.damaged) == 2
    assert fresh.files == 2


def test_a_check_finds_what_is_wrong(archive: Archive, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    archive.back_up(target, "copy")
    gone, cut, changed = (
        target / archive.store.path(f"1.{number}").relative_to(archive.store.root)
        for number in range(3)
    )
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    changed.write_bytes(changed.read_bytes()[:-1] + b"\1")
    assert sorted(each.reason.split()[-1] for each in check(target)) == ["missing", "up", "up"]
    with (target / "index.db").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 100)
    assert any(each.path == "index.db" for each in check(target))
    (target / "files.jsonl").write_text("{")
    assert [each.path for each in check(target) if each.path != "index.db"] == ["files.jsonl"]


def test_a_directory_of_another_kind_is_refused(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="is not the directory of a backup"):
        archive.back_up(tmp_path / "in")
    with pytest.raises(BackupError):
        archive.back_up(archive.store.root)
    with pytest.raises(BackupError, match="not a complete backup"):
        list(check(tmp_path / "in"))


def test_what_is_in_the_journal_only_is_in_the_backup(archive: Archive, tmp_path: Path) -> None:
    """A crash has left it there; the backup begins with what the next start would do."""
    octets = write(tmp_path / "in" / "last", "1.7").read_bytes()
    archive.store.open()
    archive.store.journal.append([Entry(octets, _sha256(octets))])
    archive.store.journal.close()
    archive.store.close()
    target = tmp_path / "backup"
    assert archive.back_up(target, "copy").files == 5
    assert "1.7" in uids_in(target / "index.db")
    assert list(check(target)) == []


def test_a_node_that_does_not_finish_is_told(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = write(tmp_path / "in" / "last", "1.7").read_bytes()
    node = FileStore(archive.store.root, fsync=False)
    node.open()
    node.journal.append([Entry(octets, _sha256(octets))])
    monkeypatch.setattr(backups, "_PATIENCE", 0.1)
    with pytest.raises(BackupError, match="acknowledged"):
        archive.back_up(tmp_path / "backup", "copy")
    node.journal.close()
    node.close()


def _sha256(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


def test_a_restored_archive_is_the_same(archive: Archive, tmp_path: Path) -> None:
    """As docs/howto/backup.md says."""
    target, restored = tmp_path / "backup", tmp_path / "restored"
    archive.back_up(target, "copy")
    shutil.copytree(target, restored)
    for name in ("backup.json", "files.jsonl"):
        (restored / name).unlink()
    again = Archive(restored)
    open_archive(again.store, again.index)
    done = reconcile(again.index, again.store)
    assert (done.compared, done.indexed, done.removed, done.unreadable) == (3, [], [], [])
    assert list(verify(again.index)) == []
    assert again.index.counts().instances == 3
    assert len(list(again.store.versions())) == 1
    again.index.close()
    again.store.close()
