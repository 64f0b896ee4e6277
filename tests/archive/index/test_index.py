"""The index: what is added is there for good, once, and belongs to what it says."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from netdicom_tx.archive.index import writer
from netdicom_tx.archive.index.commits import GROUP_LIMIT
from netdicom_tx.archive.index.engine import IndexUnusableError
from netdicom_tx.archive.index.entries import InstanceRef
from netdicom_tx.archive.index.index import Index, IndexUnavailableError
from netdicom_tx.archive.index.record import InstanceRecord
from netdicom_tx.archive.query.matching import InformationModel, QueryOptions
from netdicom_tx.archive.query.search import Search
from netdicom_tx.archive.shared import Shared
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive import databases
from support.archive.databases import database_url
from support.archive.patients import data_set, find
from support.archive.records import CT_IMAGE_STORAGE, add, record
from support.processes import eventually


@pytest.fixture
def url(tmp_path: Path) -> str:
    return database_url(tmp_path / "index.db")


@pytest.fixture
def index(url: str) -> Iterator[Index]:
    with Index(url) as opened:
        yield opened


def answers(index: Index, level: str, *keywords: str, **keys: Any) -> list[Dataset]:
    """What is found at a level, with these keywords in it."""
    identifier = data_set(QueryRetrieveLevel=level, **dict.fromkeys(keywords), **keys)
    return find(index, identifier, "r", model=InformationModel.PATIENT_ROOT)


# -- adding and removing ----------------------------------------------------------------------------------


@pytest.mark.sqlite
def test_what_is_added_is_there_when_its_future_is_done(index: Index, tmp_path: Path) -> None:
    """RELIABILITY D1: success is answered only after the row is committed; seen from outside."""
    seen: list[Any] = []

    def look(_: Future[None]) -> None:
        with sqlite3.connect(tmp_path / "index.db") as outside:
            seen.extend(outside.execute("SELECT sop_instance_uid FROM instance"))
        outside.close()

    future = index.add(record())
    future.add_done_callback(look)
    assert future.result(timeout=30) is None
    index.close()  # the callback may still run in the writer
    assert seen == [("1.1",)]


def test_an_instance_is_had_by_its_uid(index: Index) -> None:
    add(index, record("1.1", "/files/a.dcm"))
    assert index.get("1.1") == InstanceRef(
        CT_IMAGE_STORAGE, "1.1", EXPLICIT_VR_LITTLE_ENDIAN, Path("/files/a.dcm"), 1000
    )
    assert index.get("1.2") is None


def test_instances_are_counted(index: Index) -> None:
    assert index.counts() == (0, 0, 0, 0, 0)
    add(
        index,
        record("1.1"),
        record("1.2"),
        record("1.3", SeriesInstanceUID="3.2"),
        record("1.4", StudyInstanceUID="2.2", PatientID="Q"),
    )
    assert index.counts() == (2, 2, 3, 4, 4000)


def test_an_instance_added_again_is_replaced(index: Index) -> None:
    add(index, record("1.1", "/files/a.dcm", InstanceNumber=1))
    add(index, record("1.1", "/files/b.dcm", InstanceNumber=2, Rows=8))
    (found,) = answers(index, "IMAGE", "InstanceNumber", "Rows")
    assert (found.InstanceNumber, found.Rows) == (2, 8)
    ref = index.get("1.1")
    assert ref is not None
    assert ref.path == Path("/files/b.dcm")


def test_of_two_alike_in_one_group_the_last_counts(index: Index) -> None:
    with stopped(index):
        futures = [index.add(record("1.1", InstanceNumber=number)) for number in (1, 2)]
    for future in futures:
        future.result(timeout=30)
    assert [each.InstanceNumber for each in answers(index, "IMAGE", "InstanceNumber")] == [2]


@pytest.mark.slow
def test_an_instance_that_moves_leaves_no_empty_series(index: Index) -> None:
    add(index, record("1.1"))
    add(index, record("1.1", SeriesInstanceUID="3.2", StudyInstanceUID="2.2", PatientID="Q"))
    assert index.counts() == (1, 1, 1, 1, 1000)
    assert [each.PatientID for each in answers(index, "PATIENT", "PatientID")] == ["Q"]


def test_a_removed_instance_takes_with_it_what_is_empty(index: Index) -> None:
    add(index, record("1.1"), record("1.2", SeriesInstanceUID="3.2"))
    assert index.remove("1.1").result(timeout=30) is True
    assert index.counts() == (1, 1, 1, 1, 1000)
    assert index.remove("1.2").result(timeout=30) is True
    assert index.counts() == (0, 0, 0, 0, 0)
    assert index.remove("1.2").result(timeout=30) is False
    # The writer has not kept the rows in mind.
    add(index, record("1.1"))
    assert index.counts() == (1, 1, 1, 1, 1000)


def test_what_belongs_to_no_patient_is_kept_and_not_queried(index: Index) -> None:
    """PS3.4 GG: a palette has no study; the models of C.6 do not have it."""
    add(index, record("1.1", StudyInstanceUID="", SeriesInstanceUID="", PatientID=""))
    assert index.counts() == (0, 0, 0, 1, 1000)
    assert answers(index, "IMAGE", "SOPInstanceUID") == []
    identifier = data_set(QueryRetrieveLevel="IMAGE", SOPInstanceUID="1.1")
    model = InformationModel.COMPOSITE_INSTANCE_ROOT
    assert [
        each.sop_instance_uid for each in Search(index).matches(identifier, model, QueryOptions())
    ] == ["1.1"]
    assert index.remove("1.1").result(timeout=30) is True


# -- what instances belong to -------------------------------------------------------------------------------


def test_the_first_instance_says_what_a_study_is(index: Index) -> None:
    add(index, record("1.1", StudyDescription="first", PatientName="A^B"))
    add(index, record("1.2", StudyDescription="second", PatientName="C^D"))
    (found,) = answers(index, "STUDY", "StudyDescription", "PatientName")
    assert (found.StudyDescription, found.PatientName) == ("first", "A^B")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_later_instance_fills_in_what_was_empty(url: str, is_restarted: bool) -> None:
    with Index(url) as index:
        add(index, record("1.1", StudyDate="", PatientName="A^B"))
        if is_restarted:
            index.close()
            index.open()
        add(index, record("1.2", StudyDate="20240101", PatientBirthDate="19700101"))
        add(index, record("1.3", StudyDate="20240102"))
        (found,) = answers(index, "STUDY", "PatientBirthDate", StudyDate="20231231-20240101")
        assert (found.StudyDate, found.PatientBirthDate) == ("20240101", "19700101")


def test_spaces_fill_nothing_in(index: Index) -> None:
    add(index, record("1.1"))
    add(index, record("1.2", StudyDescription="  "))
    add(index, record("1.3", StudyDescription="third"))
    (found,) = answers(index, "STUDY", "StudyDescription")
    assert found.StudyDescription == "third"


def test_a_study_stays_with_its_patient(index: Index) -> None:
    """A Study Instance UID is of one study, so of one patient, whomever an instance names."""
    add(index, record("1.1", PatientID="P"), record("1.2", PatientID="Q"))
    assert index.counts()[:2] == (1, 1)
    assert [each.PatientID for each in answers(index, "STUDY", "PatientID")] == ["P"]


def test_a_series_uid_of_two_studies_is_two_series(index: Index) -> None:
    add(index, record("1.1"), record("1.2", StudyInstanceUID="2.2"))
    assert index.counts()[:3] == (1, 2, 2)


def test_more_entities_than_are_remembered_are_found_again(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netdicom_tx.archive.index.writer._REMEMBERED", 2)
    for _ in range(2):
        add(
            index,
            *(record(f"1.{n}", StudyInstanceUID=f"2.{n}", PatientID=f"P{n}") for n in range(5)),
        )
    assert index.counts()[:4] == (5, 5, 5, 5)


# -- groups -------------------------------------------------------------------------------------------------


class stopped:
    """The writer waits while the block runs."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._go_on = threading.Event()

    def __enter__(self) -> None:
        waits = threading.Event()

        def wait(_: sa.Connection) -> None:
            waits.set()
            assert self._go_on.wait(30)

        self._index.write(wait)
        assert waits.wait(30)

    def __exit__(self, *_: object) -> None:
        self._go_on.set()


@pytest.fixture
def commits(index: Index) -> list[int]:
    """One entry for each commit from now on."""
    made: list[int] = []
    assert index._engine is not None
    sa.event.listen(index._engine, "commit", lambda connection: made.append(1))
    return made


def test_waiting_instances_share_commits(index: Index, commits: list[int]) -> None:
    with stopped(index):
        futures = [index.add(record(f"1.{number}")) for number in range(2 * GROUP_LIMIT + 1)]
    for future in futures:
        future.result(timeout=30)
    assert len(commits) == 1 + 3


def test_a_row_that_fails_fails_alone(index: Index) -> None:
    """One bad instance must not fail those that came at the same time."""
    bad = dataclasses.replace(record("1.2"), size=1 << 70)
    with stopped(index):
        futures = [index.add(each) for each in (record("1.1"), bad, record("1.3"))]
    assert futures[0].result(timeout=30) is None
    assert futures[2].result(timeout=30) is None
    assert futures[1].exception(timeout=30) is not None
    assert index.get("1.2") is None
    assert index.counts().instances == 2


def test_what_the_database_says_becomes_one_error(index: Index) -> None:
    future = index.write(lambda connection: connection.execute(sa.text("SELECT y FROM x")))
    error = future.exception(timeout=30)
    assert isinstance(error, IndexUnavailableError)
    said = "no such table: x" if databases.is_sqlite() else 'relation "x" does not exist'
    assert str(error) == f"the index refuses: {said}"


def test_an_error_of_a_call_stays_what_it_is(index: Index) -> None:
    def fail(_: sa.Connection) -> None:
        raise ZeroDivisionError

    assert isinstance(index.write(fail).exception(timeout=30), ZeroDivisionError)


def test_a_connection_that_is_lost_twice_fails_the_whole_group(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection is tried once. Trying each instance again would only take as many timeouts."""
    tries: list[int] = []

    def lose(connection: sa.Connection, records: object) -> None:
        tries.append(1)
        raise sa.exc.OperationalError("", None, Exception("gone"), connection_invalidated=True)

    monkeypatch.setattr(index._writer, "add", lose)
    with stopped(index):
        futures = [index.add(record(f"1.{number}")) for number in range(5)]
    assert all(isinstance(each.exception(30), IndexUnavailableError) for each in futures)
    assert len(tries) == 2


@pytest.mark.parametrize("is_one_task", [True, False])
def test_a_refusal_ends_the_attempts_one_by_one(
    index: Index, monkeypatch: pytest.MonkeyPatch, is_one_task: bool
) -> None:
    """The database is locked when a group is taken apart: nothing was refused for what is in it."""
    tries: list[int] = []

    def refuse(connection: sa.Connection, records: Sequence[InstanceRecord]) -> None:
        tries.append(len(records))
        if len(records) > 1:
            raise ValueError("one of them is at fault")
        raise sa.exc.OperationalError("", None, Exception("database is locked"))

    monkeypatch.setattr(index._writer, "add", refuse)
    records = [record(f"1.{number}") for number in range(5)]
    futures: list[Future[Any]] = []
    with stopped(index):
        if is_one_task:
            futures.append(index.add_many(records))
        else:
            futures += (index.add(each) for each in records)
    assert all(isinstance(each.exception(30), IndexUnavailableError) for each in futures)
    assert tries == [5, 1]


@pytest.mark.sqlite
def test_a_lock_is_waited_for_once_however_many_instances_wait(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came while the first waited was answered only after a wait of its own, and so on."""
    assert index._engine is not None
    tries: list[int] = []

    def quickly(connection: Any, *_: object) -> None:
        connection.connection.dbapi_connection.execute("PRAGMA busy_timeout = 1")
        tries.append(1)

    sa.event.listen(index._engine, "begin", quickly)
    with sqlite3.connect(tmp_path / "index.db") as other:
        other.execute("BEGIN IMMEDIATE")
        with stopped(index):
            futures = [index.add(record(f"1.{number}")) for number in range(3 * GROUP_LIMIT)]
        errors = [each.exception(timeout=30) for each in futures]
        other.rollback()
    other.close()
    assert {str(each) for each in errors} == {"the index refuses: database is locked"}
    committer = index._committer
    assert committer is not None
    refused_at, _ = eventually(lambda: committer.refusal, "refusal")
    now = [refused_at + 0.9]
    monkeypatch.setattr("netdicom_tx.archive.index.commits.monotonic", lambda: now[0])
    with pytest.raises(IndexUnavailableError, match="the index refuses: database is locked"):
        index.check()
    now[0] = refused_at + 1.1
    index.check()
    assert len(tries) <= 2  # the group that waits in the fixture, and the first of ours
    add(index, record("1.1"))
    assert index.get("1.1") is not None
    eventually(lambda: committer.refusal is None, "end of the refusal")


@pytest.mark.sqlite
@pytest.mark.parametrize("happens", ["is deleted", "is replaced"])
def test_nothing_is_written_to_a_database_that_has_lost_its_name(
    index: Index, tmp_path: Path, happens: str
) -> None:
    """It would be lost with the file, though it was acknowledged."""
    add(index, record("1.1"))
    file = tmp_path / "index.db"
    file.rename(tmp_path / "moved.db")
    if happens == "is replaced":
        file.write_bytes((tmp_path / "moved.db").read_bytes())
    error = index.add(record("1.2")).exception(timeout=30)
    assert isinstance(error, IndexUnavailableError)
    assert "deleted or replaced" in str(error)


@pytest.mark.sqlite
@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_the_database_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    """Names of patients are in it, also in the files that SQLite keeps beside it."""
    before = os.umask(umask)
    try:
        with Index(database_url(tmp_path / "index.db")) as index:
            add(index, record("1.1"))
            modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert set(modes) >= {"index.db", "index.db-wal"}
    assert set(modes.values()) == {0o600}


def test_calls_and_instances_keep_their_order(index: Index) -> None:
    with stopped(index):
        futures: list[Future[Any]] = [
            index.add(record("1.1")),
            index.remove("1.1"),
            index.add(record("1.2")),
            index.write(lambda connection: connection.scalar(sa.text("SELECT 42"))),
        ]
    assert [each.result(timeout=30) for each in futures] == [None, True, None, 42]
    assert index.counts().instances == 1


def test_a_cancelled_instance_is_not_added(index: Index) -> None:
    with stopped(index):
        future = index.add(record("1.1"))
        assert future.cancel()
        other = index.add(record("1.2"))
    other.result(timeout=30)
    assert index.get("1.1") is None


# -- opening and closing ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_closing_finishes_what_was_given(url: str) -> None:
    with Index(url) as index:
        with stopped(index):
            futures = [index.add(record(f"1.{number}")) for number in range(200)]
        index.close()
        assert all(each.done() for each in futures)
    with Index(url) as index:
        assert index.counts().instances == 200


def test_a_closed_index_says_so(url: str) -> None:
    index = Index(url)
    with pytest.raises(IndexUnavailableError, match="not open"):
        index.add(record())
    with pytest.raises(IndexUnavailableError, match="not open"):
        index.counts()
    index.close()


@pytest.mark.sqlite
def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"nothing like it" * 1000)
    with pytest.raises(IndexUnusableError, match=r"index\.db cannot be opened: .*not a database"):
        Index(database_url(tmp_path / "index.db")).open()


@pytest.mark.sqlite
def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexUnusableError, match="unable to open"):
        Index(database_url(tmp_path / "nowhere" / "index.db")).open()


def test_a_newer_index_is_refused(url: str) -> None:
    with Index(url) as index:

        def change(connection: sa.Connection) -> None:
            for each in ("schema_version SET version", "schema_support SET oldest"):
                connection.execute(sa.text(f"UPDATE {each} = 99"))

        index.write(change).result(timeout=30)
    with pytest.raises(IndexUnusableError, match="version 99"):
        Index(url).open()


def test_an_archive_can_be_moved(tmp_path: Path) -> None:
    """Paths are kept relative to the root."""
    url = database_url(tmp_path / "index.db")
    with Index(url, root=tmp_path / "old") as index:
        add(
            index,
            record("1.1", str(tmp_path / "old" / "ab" / "x.dcm")),
            record("1.2", "/else/y.dcm"),
        )
    with Index(url, root=tmp_path / "new") as index:
        assert [each.path for each in index.entries()] == [
            tmp_path / "new" / "ab" / "x.dcm",
            Path("/else/y.dcm"),
        ]
        assert [each.path for each in index.paths()] == ["/else/y.dcm", "ab/x.dcm"]


# -- trouble --------------------------------------------------------------------------------------------------


def test_a_database_that_fails_while_reading_is_unavailable(index: Index) -> None:
    """RELIABILITY D10."""
    index.write(lambda connection: connection.execute(sa.text("DROP TABLE header"))).result(30)
    add_error = index.add(record()).exception(timeout=30)
    assert isinstance(add_error, IndexUnavailableError)
    index.write(lambda connection: connection.execute(sa.text("DROP TABLE instance"))).result(30)
    with pytest.raises(IndexUnavailableError, match=r"no such table|does not exist"):
        index.get("1.1")
    with pytest.raises(IndexUnavailableError, match=r"no such table|does not exist"):
        find(index, data_set(QueryRetrieveLevel="IMAGE", SOPInstanceUID=""), "r")


def test_the_url_is_shown_without_its_password() -> None:
    assert Index("postgresql://me:secret@host/db").url == "postgresql://me:***@host/db"


def test_a_database_is_asked_whether_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with Index(f"sqlite:///{path}") as index:
        index.probe()
        path.rename(tmp_path / "elsewhere.db")
        with pytest.raises(IndexUnavailableError, match="deleted or replaced"):
            index.probe()


def test_rows_that_another_process_has_deleted_are_not_remembered(tmp_path: Path) -> None:
    """A second process removes the only instance of a study; the first one then adds another instance of it."""
    url = f"sqlite:///{tmp_path / 'index.db'}"
    lead = Shared.create()
    first, second = Index(url), Index(url)
    first.shared, second.shared = lead, Shared(lead.descriptor, 1)
    with first, second:
        add(first, record("1.1"))
        assert second.remove("1.1").result() is True
        assert first.counts().studies == 0
        add(first, record("1.2"))
        add(second, record("1.3"))
        assert first.counts()[:4] == (1, 1, 1, 2)


@pytest.mark.parametrize("count", [1, 2])
def test_a_row_that_another_program_adds_at_the_same_moment_is_no_failure(
    index: Index, url: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """An import has the same instance in hand that is sent to the node."""
    records = [record(f"1.{number}") for number in range(1, count + 1)]
    look = writer._found
    with Index(url) as other:

        def looked(connection: sa.Connection, uids: Any) -> Any:
            found = list(look(connection, uids))
            monkeypatch.setattr(writer, "_found", look)
            other.add_many(records).result(timeout=30)
            return found

        monkeypatch.setattr(writer, "_found", looked)
        assert not index.add_many(records).result(timeout=30)
        assert index.counts().instances == count
