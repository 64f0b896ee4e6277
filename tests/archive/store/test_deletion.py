"""Instances are deleted so that rows, files and journal agree, whatever happens in the meantime."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from netdicom_tx.archive import Duplicates, FileStore, Index
from netdicom_tx.archive.index import withdrawal
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.index.schema import Level, deletion, patient, series, study
from netdicom_tx.archive.index.withdrawal import Chosen
from netdicom_tx.archive.node import ArchiveAE
from netdicom_tx.archive.shared import Shared
from netdicom_tx.archive.store.deletion import Deleted, Deleter, open_archive
from netdicom_tx.archive.store.filestore import Kept, Outcome
from netdicom_tx.archive.store.intake import Intake
from netdicom_tx.archive.store.reconcile import reconcile
from netdicom_tx.archive.store.sharing import Leases
from netdicom_tx.dsutils import encode
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.archives import archive
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.databases import database_url
from support.archive.intakes import Calls
from support.archive.patients import data_set
from support.archive.system import files
from support.processes import PATIENCE


def made(uid: str, text: str = "first") -> bytes:
    """An instance; ``1.2.3`` is of the study ``1.2`` and the series ``1.2.0``."""
    study_uid = uid.rpartition(".")[0]
    return encode(
        data_set(
            SOPClassUID=CT_IMAGE_STORAGE,
            SOPInstanceUID=uid,
            PatientID=f"P{study_uid}",
            StudyInstanceUID=study_uid,
            SeriesInstanceUID=f"{study_uid}.0",
            ImageComments=text,
        ),
        EXPLICIT_VR_LITTLE_ENDIAN,
    )


class Running:
    """An archive with its threads, on calls instead of a reactor."""

    def __init__(self, directory: Path, duplicates: Duplicates = Duplicates.KEEP) -> None:
        self.ae: ArchiveAE = archive(directory, duplicates=duplicates)
        assert self.ae.index is not None
        self.store: FileStore = self.ae.store
        self.index: Index = self.ae.index
        intake = self.ae._intake
        assert intake is not None
        self.intake: Intake = intake
        self.calls = Calls()
        self.deleter = self.ae.deleter
        open_archive(self.store, self.index)
        reconcile(self.index, self.store)
        self.index.settle = self.intake.settle
        self.intake.start(self.calls)  # type: ignore[arg-type]  # all that it needs

    def stop(self) -> None:
        self.intake.stop()
        self.index.close()
        self.store.close()

    def keep(self, uid: str, text: str = "first", *, by_journal: bool = True) -> Kept:
        """Store an instance as the node does."""
        spool = self.store.spool(CT_IMAGE_STORAGE, uid, EXPLICIT_VR_LITTLE_ENDIAN, "SENDER")
        spool.write(made(uid, text))
        kept: Kept | None = None
        if by_journal:
            kept = self.calls.until(self.intake.keep(spool))
        if kept is None:
            kept, row = self.ae._storing.keep_by_itself(spool)
            if row is not None:
                row.result(PATIENCE)
        spool.close()
        return kept

    def chosen(self, level: Level, key: str) -> list[Chosen]:
        with self.index.reading() as reading:
            return withdrawal.choose(reading, level, key)

    def delete(self, level: Level, key: str) -> Deleted:
        return self.deleter.delete(self.chosen(level, key))

    def rows(self) -> set[str]:
        return {each.sop_instance_uid for each in self.index.paths()}

    def listed(self) -> int:
        with self.index.reading() as reading:
            return int(reading.scalar(sa.select(sa.func.count()).select_from(deletion)) or 0)

    def kept(self) -> set[str]:
        """The instances that are there, when rows and files agree."""
        there = self.rows()
        names = {path.name for path in self.store.instances.rglob("*.dcm")}
        assert names == {self.store.path(uid).name for uid in there}
        return there


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    node = Running(tmp_path / "archive")
    yield node
    node.stop()


def restarted(directory: Path) -> set[str]:
    """What is there after a start, when rows and files agree, and nothing is on the list."""
    node = Running(directory)
    try:
        assert node.listed() == 0
        return node.kept()
    finally:
        node.stop()


# -- what goes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "key", "left"),
    [
        (Level.IMAGE, "1.2.3", {"1.2.4", "1.5.6"}),
        (Level.SERIES, "1.2.0", {"1.5.6"}),
        (Level.STUDY, "1.2", {"1.5.6"}),
        (Level.PATIENT, "P1.2", {"1.5.6"}),
        (Level.STUDY, "1.9", {"1.2.3", "1.2.4", "1.5.6"}),
    ],
)
def test_what_belongs_to_a_key_goes(
    running: Running, level: Level, key: str, left: set[str]
) -> None:
    for uid in ("1.2.3", "1.2.4", "1.5.6"):
        running.keep(uid)
    sizes = sum(each.size for each in running.chosen(level, key))
    done = running.delete(level, key)
    assert set(done.uids) == {"1.2.3", "1.2.4", "1.5.6"} - left
    assert done[1:] == (sizes, 0)
    assert running.deleter.octets == sizes
    assert running.kept() == left
    assert running.listed() == 0
    counts = running.index.counts()
    assert counts.studies == len({uid.rpartition(".")[0] for uid in left})


def test_nothing_is_left_of_the_last_patient(running: Running) -> None:
    running.keep("1.2.3")
    running.delete(Level.PATIENT, "P1.2")
    with running.index.reading() as reading:
        for table in (patient, study, series):
            assert reading.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_versions_go_with_their_instance(tmp_path: Path) -> None:
    node = Running(tmp_path, Duplicates.KEEP_BOTH)
    for uid in ("1.2.3", "1.2.4"):
        node.keep(uid)
        assert node.keep(uid, "second").outcome is Outcome.ASIDE
    node.delete(Level.IMAGE, "1.2.3")
    assert [each.sop_instance_uid for each in node.store.versions()] == ["1.2.4"]
    node.stop()


def test_more_than_one_statement_takes(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three statements for seven instances, and four changes of the list."""
    monkeypatch.setattr("netdicom_tx.archive.index.withdrawal._AT_ONCE", 3)
    monkeypatch.setattr("netdicom_tx.archive.index.writer._AT_ONCE", 3)
    monkeypatch.setattr("netdicom_tx.archive.store.deletion._AT_ONCE", 2)
    for number in range(7):
        running.keep(f"1.2.{number}")
    assert running.delete(Level.STUDY, "1.2").instances == 7
    assert running.kept() == set()
    assert running.listed() == 0


def test_what_was_acknowledged_before_is_deleted(running: Running) -> None:
    """An instance that is in the journal only is chosen, because who reads the index waits for it."""
    running.keep("1.2.3")
    chosen = running.chosen(Level.STUDY, "1.2")
    assert [each.sop_instance_uid for each in chosen] == ["1.2.3"]


def test_the_decision_is_made_inside_the_transaction(running: Running) -> None:
    running.keep("1.2.3")
    chosen = running.chosen(Level.STUDY, "1.2")
    assert running.deleter.delete(chosen, lambda *_: []) == Deleted()
    assert running.kept() == {"1.2.3"}


def test_what_is_gone_already_is_left_out(running: Running) -> None:
    running.keep("1.2.3")
    running.keep("1.2.4")
    chosen = running.chosen(Level.STUDY, "1.2")
    running.delete(Level.IMAGE, "1.2.3")
    # SQLite gives the number of the last row to the next one.
    running.delete(Level.IMAGE, "1.2.4")
    running.keep("1.5.6")
    assert running.deleter.delete(chosen) == Deleted()
    assert running.kept() == {"1.5.6"}


# -- what comes again --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["first", "second"])
@pytest.mark.parametrize("by_journal", [True, False])
def test_stored_again_it_is_a_fresh_instance(
    running: Running, text: str, by_journal: bool, tmp_path: Path
) -> None:
    running.keep("1.2.3", by_journal=by_journal)
    running.delete(Level.STUDY, "1.2")
    assert running.keep("1.2.3", text, by_journal=by_journal).outcome is Outcome.STORED
    assert running.kept() == {"1.2.3"}
    assert running.store.path("1.2.3").read_bytes().endswith(made("1.2.3", text))
    running.stop()
    assert restarted(running.store.root) == {"1.2.3"}


@pytest.mark.parametrize("text", ["first", "second"])
def test_stored_again_while_its_old_file_is_there_it_is_a_fresh_instance(
    running: Running, text: str
) -> None:
    """A retrieve needs the old file, which is replaced; nobody deletes the new one."""
    running.keep("1.2.3")
    lease = running.store.leases.take()
    assert running.delete(Level.STUDY, "1.2").waiting == 1
    assert running.keep("1.2.3", text).outcome is Outcome.STORED
    lease.release()
    assert running.deleter.finish() == 1
    assert running.kept() == {"1.2.3"}
    assert running.store.path("1.2.3").read_bytes().endswith(made("1.2.3", text))


def test_a_store_and_a_deletion_of_one_instance_come_one_after_the_other(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with the same content that is found before the deletion keeps it from the instance that it is now."""
    running.keep("1.2.3")
    lease = running.store.leases.take()
    running.delete(Level.STUDY, "1.2")
    lease.release()
    compared, may_go_on = threading.Event(), threading.Event()
    real = FileStore._compare

    def compare(*arguments: Any) -> Any:
        found = real(*arguments)
        compared.set()
        assert may_go_on.wait(PATIENCE)
        return found

    monkeypatch.setattr(FileStore, "_compare", compare)
    outcomes: list[Outcome] = []
    storing = threading.Thread(
        target=lambda: outcomes.append(running.keep("1.2.3", by_journal=False).outcome)
    )
    storing.start()
    assert compared.wait(PATIENCE)
    finishing = threading.Thread(target=running.deleter.finish)
    finishing.start()
    finishing.join(0.1)
    assert finishing.is_alive()
    may_go_on.set()
    storing.join(PATIENCE)
    finishing.join(PATIENCE)
    assert outcomes == [Outcome.STORED]
    assert running.kept() == {"1.2.3"}


# -- what is being sent ------------------------------------------------------------------------------


def test_files_stay_until_the_retrieves_have_ended(running: Running) -> None:
    """The rows go at once."""
    running.keep("1.2.3")
    running.keep("1.5.6")
    lease = running.store.leases.take()
    assert running.delete(Level.STUDY, "1.2")[::2] == (("1.2.3",), 1)
    later = running.store.leases.take()
    assert running.rows() == {"1.5.6"}
    assert running.store.path("1.2.3").exists()
    assert running.deleter.finish() == 0
    lease.release()
    assert running.deleter.finish() == 1
    assert running.kept() == {"1.5.6"}
    assert running.delete(Level.STUDY, "1.5").waiting == 1
    later.release()
    assert running.deleter.finish() == 1
    assert running.kept() == set()


# -- what goes wrong ---------------------------------------------------------------------------------


class Snapshots:
    """Copies of the archive, as a crash would leave it, before and after each step of a deletion."""

    def __init__(self, root: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root, self._to = root, to
        self.made: list[tuple[str, Path]] = []
        for owner, name in (
            (Intake, "forget"),
            (withdrawal, "withdraw"),
            (Leases, "turn"),
            (withdrawal, "mark"),
            (Leases, "ended"),
            (FileStore, "discard"),
            (FileStore, "_unlink"),
            (withdrawal, "strike"),
        ):
            self._around(monkeypatch, owner, name)

    def _around(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.take(f"before {name}")
            result = real(*arguments, **options)
            self.take(f"after {name}")
            return result

        monkeypatch.setattr(owner, name, call)

    def take(self, when: str) -> None:
        to = self._to / str(len(self.made))
        shutil.copytree(self._root, to)
        self.made.append((when, to))


@pytest.mark.sqlite  # a database of another kind is not copied with the directory
def test_after_a_crash_rows_and_files_agree(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is there or nothing, of what the deletion was about; the journal brings nothing back."""
    for uid in ("1.2.3", "1.2.4", "1.5.6"):
        running.keep(uid)
    chosen = running.chosen(Level.STUDY, "1.2")
    with monkeypatch.context() as patched:
        snapshots = Snapshots(running.store.root, tmp_path / "copies", patched)
        running.deleter.delete(chosen)
        snapshots.take("at the end")
    found = [(when, restarted(path)) for when, path in snapshots.made]
    everything, rest = {"1.2.3", "1.2.4", "1.5.6"}, {"1.5.6"}
    assert all(there in (everything, rest) for _, there in found), found
    decided = next(number for number, (_, there) in enumerate(found) if there == rest)
    assert [there for _, there in found[decided:]] == [rest] * (len(found) - decided)
    assert found[decided][0] in ("after withdraw", "before turn")
    assert len(found) > 15


@pytest.mark.sqlite
@pytest.mark.parametrize("by_journal", [True, False])
def test_after_a_crash_what_came_again_is_there(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_journal: bool
) -> None:
    """The instance comes again before its deletion is finished, and is acknowledged."""
    running.keep("1.2.3")
    chosen = running.chosen(Level.STUDY, "1.2")

    def strike(*_: Any, **options: Any) -> None:
        raise sa.exc.OperationalError("", {}, OSError("the database is gone"))

    with monkeypatch.context() as patched:
        patched.setattr(withdrawal, "strike", strike)
        with pytest.raises(IndexUnavailableError):
            running.deleter.delete(chosen)
    assert running.listed() == 1
    assert running.keep("1.2.3", "second", by_journal=by_journal).outcome is Outcome.STORED
    copy = tmp_path / "copy"
    shutil.copytree(running.store.root, copy)
    assert restarted(copy) == {"1.2.3"}
    assert running.deleter.finish() == 1
    assert running.kept() == {"1.2.3"}


def test_what_the_disk_refuses_is_deleted_later(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.keep("1.2.3")
    chosen = running.chosen(Level.STUDY, "1.2")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "_unlink", refuse)
        with pytest.raises(OSError, match="Read-only"):
            running.deleter.delete(chosen)
    assert running.rows() == set()
    assert running.store.path("1.2.3").exists()
    assert running.deleter.finish() == 1
    assert running.kept() == set()


def test_a_deletion_that_was_interrupted_before_it_was_marked_waits_for_all_leases(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.keep("1.2.3")
    chosen = running.chosen(Level.STUDY, "1.2")
    lease = running.store.leases.take()

    def refuse(*_: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Leases, "turn", refuse)
        with pytest.raises(OSError, match="Too many"):
            running.deleter.delete(chosen)
    assert running.deleter.finish() == 0
    lease.release()
    assert running.deleter.finish() == 1
    assert running.kept() == set()


def test_without_a_journal_nothing_has_to_be_forgotten(tmp_path: Path) -> None:
    """A command deletes in an archive on which no node runs."""
    node = Running(tmp_path)
    node.keep("1.2.3")
    node.stop()
    store = FileStore(tmp_path)
    index = Index(database_url(tmp_path / "index.db"), root=tmp_path)
    assert open_archive(store, index) == 0
    with index.reading() as reading:
        chosen = withdrawal.choose(reading, Level.IMAGE, "1.2.3")
    assert Deleter(store, index).delete(chosen).instances == 1
    index.close()
    store.close()
    assert files(tmp_path) - {"index.db"} == set()


@pytest.mark.sqlite
def test_a_store_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    index = Index(f"sqlite:///{tmp_path / 'index.db'}", root=tmp_path)
    store.open()
    other = FileStore(tmp_path)
    with pytest.raises(Exception, match="in use"):
        open_archive(other, index)
    store.close()
    tmp_path.joinpath("index.db").write_bytes(b"no database, for sure" * 100)
    with pytest.raises(Exception, match="cannot be opened"):
        open_archive(other, index)
    store.open()
    store.close()


def test_a_worker_leaves_the_list_to_the_lead(running: Running) -> None:
    """It opens store and index beside the lead, which has finished what was begun."""
    running.keep("1.2.3")
    lease = running.store.leases.take()
    running.delete(Level.STUDY, "1.2")
    store = FileStore(running.store.root)
    store.share(Shared(Shared.create().descriptor, 1))
    index = Index(database_url(running.store.root / "index.db"), root=running.store.root)
    assert open_archive(store, index) == 0
    assert running.listed() == 1
    index.close()
    store.close()
    lease.release()
