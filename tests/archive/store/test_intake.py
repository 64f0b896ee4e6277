"""The way of small instances through the journal: what was acknowledged is found, and outlives a power cut."""

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from netdicom_tx.archive import Duplicates, FileStore, Index
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.index.record import InstanceRecord
from netdicom_tx.archive.store import intake as intakes
from netdicom_tx.archive.store.filestore import Kept, Outcome, StorageError
from netdicom_tx.archive.store.intake import Intake
from netdicom_tx.archive.store.journal import (
    SEGMENTS,
    Entry,
    Journal,
    JournalError,
    Segment,
)
from netdicom_tx.archive.store.reconcile import reconcile, verify
from netdicom_tx.dsutils import part10_header
from netdicom_tx.encoding import DataSetError
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.archive.databases import database_url
from support.archive.intakes import Calls
from support.doubles import logged_lines as logged_lines
from support.processes import PATIENCE, eventually


class Running:
    """A store and an index with a running intake."""

    def __init__(self, directory: Path, duplicates: Duplicates = Duplicates.KEEP) -> None:
        self.directory = directory
        self.store = FileStore(directory, duplicates=duplicates)
        self.index = Index(database_url(directory / "index.db"), root=directory)
        self.intake = Intake(self.store, self.index)
        self.calls = Calls()
        self.is_running = False

    def start(self) -> None:
        self.store.open()
        self.index.open()
        reconcile(self.index, self.store)
        self.index.settle = self.intake.settle
        self.intake.start(self.calls)  # type: ignore[arg-type]  # all that it needs
        self.is_running = True

    def stop(self) -> None:
        if self.is_running:
            self.is_running = False
            self.intake.stop()
            self.index.close()
            self.store.close()

    def submit(self, uid: str, data: bytes) -> Deferred[Kept | None]:
        """Let an instance arrive."""
        spool = self.store.spool(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax, "SENDER")
        spool.write(data)
        return self.intake.keep(spool)

    def keep(self, uid: str, data: bytes | None = None) -> Kept | None:
        """Let an instance arrive, and wait for the answer."""
        kept: Kept | None = self.calls.until(self.submit(uid, ct(uid) if data is None else data))
        return kept

    def octets(self, uid: str) -> bytes:
        """The data set in the file of an instance."""
        octets = self.store.path(uid).read_bytes()
        return octets[octets.index(ct(uid)[:8]) :]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """An intake in an empty directory."""
    made = Running(tmp_path / "archive")
    made.start()
    yield made
    made.stop()


def hold(monkeypatch: pytest.MonkeyPatch, target: Any, name: str) -> Callable[[], None]:
    """Let the calls of a method wait until the result is called."""
    may_go_on = threading.Event()
    real = getattr(target, name)

    def held(*arguments: Any) -> Any:
        assert may_go_on.wait(PATIENCE)
        return real(*arguments)

    monkeypatch.setattr(target, name, held)
    return may_go_on.set


def test_an_acknowledged_instance_is_found(running: Running) -> None:
    """A query that begins after the answer finds it, and its file is there then."""
    kept = running.keep("1.2.3")
    assert kept is not None
    assert (kept.outcome, kept.path) == (Outcome.STORED, running.store.path("1.2.3"))
    found = running.index.get("1.2.3")
    assert found is not None
    assert found.path.read_bytes().endswith(ct("1.2.3"))
    assert list(verify(running.index)) == []


def test_all_that_wait_share_a_sync_and_a_hop(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight instances behind the first one: two syncs of the journal, and two calls of the reactor."""
    running.keep("1.2.0")  # makes the segment
    syncs: list[int] = []
    monkeypatch.setattr(Journal, "append", _counted(Journal.append, syncs))
    go_on = hold(monkeypatch, running.store, "has_room")
    waiting = [running.submit(f"1.2.{n}", ct(f"1.2.{n}")) for n in range(1, 10)]
    before = running.calls.hops
    go_on()
    for each in waiting:
        assert running.calls.until(each).outcome is Outcome.STORED
    assert sum(syncs) == 9
    assert len(syncs) <= 2
    assert running.calls.hops - before <= 2
    assert running.index.counts().instances == 10


def _counted(real: Callable[..., Any], counts: list[int]) -> Callable[..., Any]:
    def append(self: Journal, entries: list[Any]) -> Any:
        counts.append(len(entries))
        return real(self, entries)

    return append


def test_what_was_acknowledged_outlives_a_power_cut(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the journal reaches the disk: no file, no row. The next start has all of it."""
    go_on = hold(monkeypatch, running.store, "place")
    sent = [f"1.2.{n}" for n in range(200)]
    for uid in sent:
        assert running.keep(uid) is not None
    after = tmp_path / "after"
    shutil.copytree(running.directory / "journal", after / "journal")
    go_on()
    again = Running(after)
    again.start()
    assert again.store.recovered == len(sent)
    assert sorted(path.sop_instance_uid for path in again.index.paths()) == sorted(sent)
    assert all(again.octets(uid) == ct(uid) for uid in sent)
    assert list(verify(again.index)) == []
    assert list((after / "journal").iterdir()) == []
    again.stop()


def _never(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("damage", ["empty", "cut", "other octets", "link", "missing"])
def test_a_file_that_was_not_synced_is_made_again(
    running: Running, tmp_path: Path, damage: str
) -> None:
    """A power cut may leave a name without its octets."""
    running.keep("1.2.3")
    running.intake.settle()
    after = tmp_path / "after"
    shutil.copytree(running.directory, after, ignore=shutil.ignore_patterns("lock"))
    path = FileStore(after).path("1.2.3")
    octets = path.read_bytes()
    path.unlink()
    if damage == "empty":
        path.touch()
    elif damage == "cut":
        path.write_bytes(octets[:-7])
    elif damage == "other octets":
        path.write_bytes(octets[:-1] + b"?")
    elif damage == "link":
        path.symlink_to("/etc/passwd")
    again = Running(after)
    again.start()
    assert path.read_bytes() == octets
    assert not path.is_symlink()
    assert again.store.recovered == 1
    again.stop()


def test_a_segment_is_retired_when_its_files_are_synced(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: until then the next start needs it."""
    events: list[str] = []
    monkeypatch.setattr(intakes, "sync_files", lambda _, paths: events.extend(["sync", *paths]))
    real = Journal.retire

    def retire(self: Journal, which: list[Segment]) -> None:
        events.append("retire")
        real(self, which)

    monkeypatch.setattr(Journal, "retire", retire)
    running.keep("1.2.3")
    running.intake.settle()
    running.intake.forget()
    path = str(running.store.path("1.2.3"))
    assert events == ["sync", path, "retire"]
    assert list(Journal(running.directory / "journal").recover()) == []
    running.intake.forget()
    assert events == ["sync", path, "retire"]


def test_a_stop_leaves_no_journal(running: Running) -> None:
    """All is in files and rows, and synced."""
    for n in range(20):
        running.keep(f"1.2.{n}")
    running.stop()
    assert list((running.directory / "journal").iterdir()) == []
    running.start()
    assert running.store.recovered == 0
    assert running.index.counts().instances == 20


@pytest.mark.parametrize(
    ("uid", "data"),
    [
        pytest.param("1.2.3", ct("1.2.3")[:-5], id="cut off"),
        pytest.param("1.2.3", ct("1.2.4"), id="another instance"),
        pytest.param("1.2.3", ct("1.2.3") + EXPLICIT.element(0x00420011, "OB") * 5000, id="many"),
    ],
)
def test_what_is_not_simply_new_is_left_to_the_store(
    running: Running, uid: str, data: bytes
) -> None:
    """It says why, or takes its time."""
    assert running.keep(uid, data) is None
    assert running.index.get(uid) is None
    assert running.keep(uid) is not None


def test_a_known_uid_is_left_to_the_store(running: Running) -> None:
    """Whether its file is there, it is being made, or the store is about to decide."""
    assert running.keep("1.2.3") is not None
    assert running.keep("1.2.3") is None
    running.intake.settle()
    assert running.keep("1.2.3") is None
    with running.intake.claim("1.2.4"):
        assert running.keep("1.2.4") is None
    assert running.keep("1.2.4") is not None


def test_the_same_uid_twice_in_a_group(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one wins; the other is left to the store."""
    go_on = hold(monkeypatch, running.store, "has_room")
    waiting = [running.submit("1.2.3", ct("1.2.3", pixels=n)) for n in (512, 512, 1024)]
    go_on()
    results = [running.calls.until(each) for each in waiting]
    assert results[0] is not None
    assert results[1:] == [None, None]


def test_a_claim_waits_for_the_file(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the store compares with what was acknowledged."""
    go_on = hold(monkeypatch, running.store, "place")
    running.keep("1.2.3")
    seen: list[bool] = []

    def claim() -> None:
        with running.intake.claim("1.2.3"):
            seen.append(running.store.path("1.2.3").exists())

    thread = threading.Thread(target=claim)
    thread.start()
    go_on()
    thread.join(PATIENCE)
    assert seen == [True]


def test_what_another_program_has_made_meanwhile_stays(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import and a peer bring the same instance with other contents; both are kept."""
    go_on = hold(monkeypatch, running.index, "add_many")
    running.keep("1.2.1")  # the finisher is at work on this one
    waiting = running.submit("1.2.3", ct("1.2.3"))
    assert running.calls.until(waiting) is not None
    other = ct("1.2.3", pixels=2048)
    header = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax)
    running.store.place(running.store.path_text("1.2.3"), header + other)
    go_on()
    running.intake.settle()
    assert running.octets("1.2.3") == other
    (version,) = running.store.versions()
    assert version.path.read_bytes().endswith(ct("1.2.3"))
    assert running.index.get("1.2.3") is None, "the import writes its own row"


def test_what_is_kept_aside_is_told_once_and_synced(
    running: Running, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """Also when the database refuses, so that the group is finished again."""
    add_many, refusals = running.index.add_many, [IndexUnavailableError("not now")]

    def refusing(records: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return add_many(records)

    monkeypatch.setattr(intakes, "_AGAIN", 0.01)
    monkeypatch.setattr(running.index, "add_many", refusing)
    go_on = hold(monkeypatch, running.store, "place_beside")
    running.keep("1.2.3")
    header = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax)
    other = header + ct("1.2.3", pixels=2048)
    running.store.place(running.store.path_text("1.2.3"), other)
    go_on()
    eventually(lambda: not running.intake.figures().instances, "the second attempt")
    running.intake.settle()
    assert sum("is kept aside" in each for each in lines) == 1
    (segment,) = [running.store.journal._active]
    (version,) = running.store.versions()
    assert segment.paths == [str(version.path)]


def test_a_replaced_instance_does_not_come_back(tmp_path: Path) -> None:
    """The journal forgets the first one before the other takes its place."""
    running = Running(tmp_path / "archive", Duplicates.REPLACE)
    running.start()
    running.keep("1.2.3")
    other = ct("1.2.3", pixels=2048)
    spool = running.store.spool(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax, "SENDER")
    spool.write(other)
    with running.intake.claim("1.2.3"):
        kept = running.store.keep(spool, before_replacing=running.intake.forget)
    assert kept.outcome is Outcome.REPLACED
    after = tmp_path / "after"
    shutil.copytree(running.directory, after, ignore=shutil.ignore_patterns("lock"))
    running.stop()
    again = Running(after)
    again.start()
    assert again.octets("1.2.3") == other
    again.stop()


def test_the_reactor_can_wait_too(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a release: by then all is in files and rows. When nothing waits, it does not wait either."""
    assert running.intake.when_settled() is None
    go_on = hold(monkeypatch, running.store, "place")
    for n in range(5):
        running.keep(f"1.2.{n}")
    waiting = running.intake.when_settled()
    assert waiting is not None
    given_up = running.intake.when_settled()
    assert given_up is not None
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    go_on()
    running.calls.until(waiting)
    assert all(running.store.path(f"1.2.{n}").exists() for n in range(5))
    assert running.intake.when_settled() is None


def test_the_reactor_does_not_wait_for_a_disk_that_refuses(
    running: Running, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """The association may end; what was acknowledged is in the journal."""
    monkeypatch.setattr(intakes, "_AGAIN", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(running.store, "place", _never)
        running.keep("1.2.3")
        waiting = running.intake.when_settled()
        if waiting is not None:
            running.calls.until(waiting)
        with pytest.raises(IndexUnavailableError):
            running.intake.settle()
        assert running.intake.when_settled() is None


def test_how_far_files_and_rows_are_behind_is_told(
    running: Running, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr(intakes, "_AGAIN", 0.01)
    assert running.intake.figures() == (0, 0, 0, 0.0, "")
    with monkeypatch.context() as patch:
        patch.setattr(running.store, "place", _never)
        running.keep("1.2.3")
        with pytest.raises(IndexUnavailableError):
            running.intake.settle()
        told = running.intake.figures()
        assert (told.arriving, told.instances) == (0, 1)
        assert told.octets > len(ct("1.2.3"))
        assert told.lag > 0
        assert "Input/output error" in told.trouble
    eventually(lambda: running.intake.figures() == (0, 0, 0, 0.0, ""), "file and row")


def test_a_disk_that_refuses_a_file_is_tried_again(
    running: Running, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """Two lines of the log, and no instance is lost; meanwhile readers are told, and the journal takes no more."""
    monkeypatch.setattr(intakes, "_AGAIN", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(running.store, "place", _never)
        running.keep("1.2.3")
        with pytest.raises(IndexUnavailableError, match="Input/output error"):
            running.intake.settle()
        with pytest.raises(IndexUnavailableError), running.intake.claim("1.2.3"):
            pytest.fail("it is not a file yet")
        assert running.keep("1.2.4") is None
    while True:
        try:
            running.intake.settle()
            break
        except IndexUnavailableError:
            continue
    assert running.index.get("1.2.3") is not None
    assert running.keep("1.2.5") is not None
    assert sum("cannot be made files and rows" in each for each in lines) == 1
    assert sum("in files and rows now" in each for each in lines) == 1


def test_a_disk_that_refuses_the_journal(
    running: Running, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """One line; the instances are left to the store, which tries the disk itself."""
    with monkeypatch.context() as patch:
        patch.setattr(running.store.journal, "append", _never)
        assert running.keep("1.2.3") is None
        assert running.keep("1.2.4") is None
    assert sum("the disk refuses the journal" in each for each in lines) == 1
    assert running.keep("1.2.3") is not None


def test_a_failed_sync_ends_the_journal_for_this_run(
    running: Running, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """What is on the disk is not known (D4): the journal stays for the next start, and takes no more."""
    running.keep("1.2.3")
    running.intake.settle()
    monkeypatch.setattr(intakes, "sync_files", _never)
    with pytest.raises(OSError, match="Input/output"):
        running.intake.forget()
    assert len(list(Journal(running.directory / "journal").recover())) == 1
    assert running.keep("1.2.4") is None
    with pytest.raises(OSError, match="could not sync"):
        running.intake.forget()
    assert sum("cannot sync the files" in each for each in lines) == 1
    running.stop()
    assert len(list(Journal(running.directory / "journal").recover())) == 1


def test_a_row_that_the_database_refuses_for_itself(
    running: Running, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """The others of its group are indexed."""
    real = InstanceRecord.values

    def values(self: Any, level: Any) -> dict[str, Any]:
        if self.sop_instance_uid == "1.2.2":
            raise DataSetError("a value that cannot be read")
        return real(self, level)

    monkeypatch.setattr(InstanceRecord, "values", values)
    go_on = hold(monkeypatch, running.store, "place")
    for n in (1, 2, 3):
        assert running.keep(f"1.2.{n}") is not None
    go_on()
    assert running.index.get("1.2.1") is not None
    assert running.index.get("1.2.3") is not None
    assert running.index.get("1.2.2") is None
    assert sum("the index refuses its row" in each for each in lines) == 1


def test_a_stop_while_the_disk_refuses_leaves_the_journal(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start makes the file."""
    monkeypatch.setattr(running.store, "place", _never)
    running.keep("1.2.3")
    running.stop()
    monkeypatch.undo()
    running.start()
    assert running.store.recovered == 1
    assert running.index.get("1.2.3") is not None


def test_large_instances_do_not_go_through_the_journal(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in a file already."""
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", 4096)
    assert running.keep("1.2.3", ct("1.2.3", pixels=10_000)) is None


def test_a_full_backlog_holds_the_answers_back(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is acknowledged and not yet a file is bounded."""
    monkeypatch.setattr(intakes, "BACKLOG", 1)
    monkeypatch.setattr(intakes, "BACKLOG_OCTETS", 1 << 14)
    for n in range(40):
        assert running.keep(f"1.2.{n}", ct(f"1.2.{n}", pixels=2000)) is not None
    assert running.index.counts().instances == 40
    assert os.listdir(running.directory / "incoming") == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), RuntimeError("odd")])
def test_the_committer_goes_on_after_any_error(
    running: Running, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """All senders wait for this thread, so nothing may end it."""

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(running.store, "has_room", fail)
        assert running.keep("1.2.3") is None
    assert running.keep("1.2.3") is not None


def test_forgetting_waits_for_the_group_that_is_being_appended(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the same segment, and not counted yet; so the segment would be left with what is to be forgotten."""
    running.keep("1.2.3")
    running.intake.settle()
    is_appended, may_go_on = threading.Event(), threading.Event()
    real = Journal.append

    def append(self: Journal, entries: list[Any]) -> Any:
        segments = real(self, entries)
        is_appended.set()
        assert may_go_on.wait(PATIENCE)
        return segments

    monkeypatch.setattr(Journal, "append", append)
    answer = running.submit("1.2.4", ct("1.2.4"))
    assert is_appended.wait(PATIENCE)
    soon = threading.Timer(0.2, may_go_on.set)
    soon.start()
    running.intake.forget()
    records = list(Journal(running.directory / "journal").recover())
    assert not any(octets.endswith(ct("1.2.3")) for octets, _ in records)
    assert running.calls.until(answer) is not None
    soon.join()


def test_a_disk_that_refuses_some_syncs_gets_its_journal_back(
    running: Running, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """However many segments it has spoilt meanwhile; one line at the beginning, one at the end."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _never)
        for n in range(2 * SEGMENTS):
            assert running.keep(f"1.2.{n}") is None
    for n in range(2 * SEGMENTS):
        assert running.keep(f"1.2.{n}") is not None
    assert sum("the disk refuses the journal" in each for each in lines) == 1
    assert sum("takes the journal again" in each for each in lines) == 1


def test_what_the_journal_has_refused_does_not_come_back(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is there, although its sync has failed; then another data set with this UID is kept without it."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _never)
        assert running.keep("1.2.3") is None
    other = ct("1.2.3", pixels=2048)
    spool = running.store.spool(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax, "SENDER")
    spool.write(other)
    with running.intake.claim("1.2.3"):
        assert running.store.keep(spool).outcome is Outcome.STORED
    after = tmp_path / "after"
    shutil.copytree(running.directory, after, ignore=shutil.ignore_patterns("lock"))
    again = Running(after)
    again.start()
    assert again.octets("1.2.3") == other
    again.stop()


def test_a_claim_goes_on_when_the_journal_refuses(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for an instance that is no longer on its way."""
    monkeypatch.setattr(intakes, "_SETTLING", 1000 * PATIENCE)
    is_appending, may_go_on = threading.Event(), threading.Event()

    def append(*_: object) -> None:
        is_appending.set()
        assert may_go_on.wait(PATIENCE)
        raise JournalError("full")

    monkeypatch.setattr(Journal, "append", append)
    answer = running.submit("1.2.3", ct("1.2.3"))
    assert is_appending.wait(PATIENCE)
    is_claimed = threading.Event()

    def claim() -> None:
        with running.intake.claim("1.2.3"):
            is_claimed.set()

    threading.Thread(target=claim, daemon=True).start()
    eventually(lambda: "1.2.3" in running.intake._claimed, "claim")
    may_go_on.set()
    assert running.calls.until(answer) is None
    assert is_claimed.wait(PATIENCE)


def test_a_claim_is_refused_at_once_while_the_index_refuses(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an instance would wait for a locked database twice, longer than a sender does."""

    def refuse(*_: object) -> None:
        raise IndexUnavailableError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(running.index, "add_many", refuse)
        running.keep("1.2.3")
        with pytest.raises(IndexUnavailableError, match="locked"):
            running.intake.settle()
        with pytest.raises(IndexUnavailableError, match="locked"), running.intake.claim("1.2.4"):
            pytest.fail("its row would be refused")


def test_the_number_of_the_backlog_is_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only its octets."""
    monkeypatch.setattr(intakes, "BACKLOG", 4)
    monkeypatch.setattr(intakes, "GROUP_LIMIT", 2)
    backlogs: list[int] = []
    real = Journal.append

    def append(self: Journal, entries: list[Any]) -> Any:
        backlogs.append(len(running.intake._acknowledged) + len(entries))
        return real(self, entries)

    monkeypatch.setattr(Journal, "append", append)
    go_on = hold(monkeypatch, running.store, "place")
    waiting = [running.submit(f"1.2.{n}", ct(f"1.2.{n}")) for n in range(20)]
    soon = threading.Timer(0.2, go_on)
    soon.start()
    for each in waiting:
        assert running.calls.until(each) is not None
    assert max(backlogs) <= 4
    soon.join()


def test_a_file_is_made_again_although_it_looks_whole(running: Running, tmp_path: Path) -> None:
    """Its sync may have failed, and then only the memory of the kernel is whole (D4)."""
    running.keep("1.2.3")
    running.intake.settle()
    after = tmp_path / "after"
    shutil.copytree(running.directory, after, ignore=shutil.ignore_patterns("lock"))
    path = FileStore(after).path("1.2.3")
    with path.open("rb") as file:
        FileStore(after).open()
        assert os.stat(path).st_ino != os.fstat(file.fileno()).st_ino


def test_a_record_that_is_not_dicom_is_one_sentence(tmp_path: Path) -> None:
    """Nobody but another program has written it; the store is not left locked."""
    store = FileStore(tmp_path / "archive")
    store.open()
    store.journal.append([Entry(b"x" * 500, hashlib.sha256(b"x" * 500).digest())])
    store.journal.close()
    store.close()
    for _ in range(2):
        with pytest.raises(StorageError, match=r"not a DICOM file.*move the segments away"):
            store.open()


def test_all_syncs_use_what_was_opened_at_the_start(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells a descriptor of the errors since it was opened; a new one might miss an earlier error."""
    used: list[tuple[int, str]] = []

    def sync(descriptor: int, _: object) -> None:
        used.append((descriptor, os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(intakes, "sync_files", sync)
    before = running.store.descriptor
    for n in range(2):
        running.keep(f"1.2.{n}")
        running.intake.settle()
        running.intake.forget()
    assert used == [(before, str(running.directory / "lock"))] * 2


def test_nobody_waits_for_the_sync_of_a_full_segment(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes as long as the disk is busy with what other programs have written."""
    monkeypatch.setattr("netdicom_tx.archive.store.journal.SEGMENT_SIZE", 1 << 16)
    monkeypatch.setattr(intakes, "_SETTLING", 1000 * PATIENCE)
    is_syncing, may_go_on = threading.Event(), threading.Event()

    def sync(*_: object) -> None:
        is_syncing.set()
        assert may_go_on.wait(PATIENCE)

    monkeypatch.setattr(intakes, "sync_files", sync)
    sent = [f"1.2.{n}" for n in range(3)]
    for uid in sent[:2]:
        assert running.keep(uid, ct(uid, pixels=40_000)) is not None
    assert is_syncing.wait(PATIENCE)
    assert running.keep(sent[2], ct(sent[2], pixels=40_000)) is not None
    found: list[int] = []
    reader = threading.Thread(
        target=lambda: found.append(running.index.counts().instances), daemon=True
    )
    reader.start()
    reader.join(PATIENCE / 2)
    assert found == [len(sent)]
    may_go_on.set()
    running.stop()
    assert list((running.directory / "journal").iterdir()) == []
