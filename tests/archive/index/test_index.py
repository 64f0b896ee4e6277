"""The index: what is added is there for good, once, and belongs to what it says."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from netdicom_tx.archive.index.index import (
    GROUP_LIMIT,
    Index,
    IndexUnavailableError,
    InstanceRecord,
    InstanceRef,
    record_of,
)
from netdicom_tx.archive.index.schema import IndexUnusableError
from netdicom_tx.archive.query.matching import InformationModel, QueryOptions
from netdicom_tx.archive.query.search import Search
from netdicom_tx.dsutils import encode
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.patients import data_set, find

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'index.db'}"


@pytest.fixture
def index(url: str) -> Iterator[Index]:
    with Index(url) as opened:
        yield opened


def record(uid: str = "1.1", path: str = "/files/a.dcm", **values: Any) -> InstanceRecord:
    """An instance of patient P, study 2.1 and series 3.1, unless it says another."""
    made = data_set(
        **{
            "SOPClassUID": CT_IMAGE_STORAGE,
            "SOPInstanceUID": uid,
            "PatientID": "P",
            "StudyInstanceUID": "2.1",
            "SeriesInstanceUID": "3.1",
            **values,
        }
    )
    octets = encode(made, EXPLICIT_VR_LITTLE_ENDIAN)
    return record_of(octets, EXPLICIT_VR_LITTLE_ENDIAN, path=path, size=1000)


def add(index: Index, *records: InstanceRecord) -> None:
    for future in [index.add(each) for each in records]:
        future.result(timeout=30)


def answers(index: Index, level: str, *keywords: str, **keys: Any) -> list[Dataset]:
    """What is found at a level, with these keywords in it."""
    identifier = data_set(QueryRetrieveLevel=level, **dict.fromkeys(keywords), **keys)
    return find(index, identifier, "r", model=InformationModel.PATIENT_ROOT)


# -- adding and removing ----------------------------------------------------------------------------------


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
    assert str(error) == "the index refuses: no such table: x"


def test_an_error_of_a_call_stays_what_it_is(index: Index) -> None:
    def fail(_: sa.Connection) -> None:
        raise ZeroDivisionError

    assert isinstance(index.write(fail).exception(timeout=30), ZeroDivisionError)


def test_a_lost_connection_fails_the_whole_group_at_once(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying each of them again would only take as many timeouts."""
    tries: list[int] = []

    def lose(connection: sa.Connection, records: object) -> None:
        tries.append(1)
        raise sa.exc.OperationalError("", None, Exception("gone"), connection_invalidated=True)

    monkeypatch.setattr(index._writer, "add", lose)
    with stopped(index):
        futures = [index.add(record(f"1.{number}")) for number in range(5)]
    assert all(isinstance(each.exception(30), IndexUnavailableError) for each in futures)
    assert len(tries) == 1


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


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"nothing like it" * 1000)
    with pytest.raises(IndexUnusableError, match=r"index\.db cannot be opened: .*not a database"):
        Index(f"sqlite:///{tmp_path / 'index.db'}").open()


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexUnusableError, match="unable to open"):
        Index(f"sqlite:///{tmp_path / 'nowhere' / 'index.db'}").open()


def test_a_newer_index_is_refused(url: str) -> None:
    with Index(url) as index:
        index.write(
            lambda connection: connection.execute(sa.text("UPDATE schema_version SET version = 99"))
        ).result(timeout=30)
    with pytest.raises(IndexUnusableError, match="version 99"):
        Index(url).open()


def test_an_archive_can_be_moved(tmp_path: Path) -> None:
    """Paths are kept relative to the root."""
    url = f"sqlite:///{tmp_path / 'index.db'}"
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


# -- pages --------------------------------------------------------------------------------------------------


def _pages(index: Index, **keys: Any) -> Any:
    return Search(index).find_pages(
        data_set(QueryRetrieveLevel="IMAGE", SOPInstanceUID="", **keys),
        model=InformationModel.STUDY_ROOT,
        options=QueryOptions(relational=True),
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        retrieve_ae_title="ARCHIVE",
    )


@pytest.fixture
def many(index: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Twenty-five instances, and pages of ten."""
    monkeypatch.setattr("netdicom_tx.archive.index.index.PAGE", 10)
    add(index, *(record(f"1.{number}", Rows=number + 1) for number in range(25)))
    return index


def test_answers_come_in_pages(many: Index) -> None:
    assert [len(page) for page in _pages(many)] == [10, 10, 5]


def test_a_page_may_be_empty(many: Index) -> None:
    """So that who asks for them can see in between that nobody waits any more."""
    assert [len(page) for page in _pages(many, Rows=15)] == [0, 1, 0]


def test_pages_can_be_closed_in_their_middle(many: Index) -> None:
    pages = _pages(many)
    next(pages)
    pages.close()
    assert list(pages) == []


def test_nothing_is_held_between_pages(many: Index) -> None:
    """A peer that does not read keeps no connection, and no snapshot that the log must keep."""
    pages = _pages(many)
    next(pages)
    assert many._engine is not None
    assert many._engine.pool.checkedout() == 1  # type: ignore[attr-defined]  # the writer's
    many.remove("1.15").result(timeout=30)
    add(many, record("1.99"))
    assert [len(page) for page in pages] == [9, 5]


def test_what_is_stored_is_found_by_the_next_query(index: Index) -> None:
    for number in range(20):
        add(index, record(f"1.{number}"))
        assert sum(map(len, _pages(index))) == number + 1


def test_queries_run_while_instances_come(index: Index) -> None:
    """Readers wait for no writer, and a writer for no reader."""
    futures = [index.add(record(f"1.{number}")) for number in range(1000)]
    seen = 0
    while not futures[-1].done():
        now = sum(map(len, _pages(index)))
        assert now >= seen
        seen = now
    assert sum(map(len, _pages(index))) == 1000


def test_a_large_set_is_answered_as_the_database_has_it(
    many: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netdicom_tx.archive.index.index._SORTED", 5)
    assert sum(map(len, _pages(many))) == 25


# -- trouble --------------------------------------------------------------------------------------------------


def test_a_database_that_fails_while_reading_is_unavailable(index: Index) -> None:
    """RELIABILITY D10."""
    index.write(lambda connection: connection.execute(sa.text("DROP TABLE header"))).result(30)
    add_error = index.add(record()).exception(timeout=30)
    assert isinstance(add_error, IndexUnavailableError)
    index.write(lambda connection: connection.execute(sa.text("DROP TABLE instance"))).result(30)
    with pytest.raises(IndexUnavailableError, match="no such table"):
        index.get("1.1")
    with pytest.raises(IndexUnavailableError, match="no such table"):
        list(_pages(index))


# Of the machine: it has no rule for the end of time, and the test none for the machine.
@pytest.mark.parametrize("zone", [None, ZoneInfo("Asia/Tokyo"), timezone(timedelta(hours=-5))])
def test_an_instance_without_zone_is_of_the_nodes_own(url: str, zone: tzinfo | None) -> None:
    """The offset of its date there, so that summer and winter differ."""
    moment = datetime(2024, 1, 1, 12, tzinfo=zone).astimezone(UTC)
    with Index(url) as index:
        add(index, record("1.1", StudyDate="20240101", StudyTime="12"))
        add(index, record("1.2", StudyInstanceUID="2.2", StudyDate="20240101", StudyTime=""))
        add(index, record("1.3", StudyInstanceUID="2.3", StudyDate="", StudyTime="12"))
        identifier = data_set(
            QueryRetrieveLevel="STUDY",
            TimezoneOffsetFromUTC="+0000",
            StudyInstanceUID="",
            StudyDate=f"{moment:%Y%m%d}",
            StudyTime=f"{moment:%H%M}",
        )
        found = [each.StudyInstanceUID for each in find(index, identifier, "t", zone=zone)]
        assert found[0] == "2.1"
        # Without a time it is of its day, and at any time of it.
        assert ("2.2" in found) == (identifier.StudyDate == "20240101")


def test_the_end_of_time_has_an_offset(index: Index) -> None:
    for day in ("00010101", "99991231"):
        identifier = data_set(
            QueryRetrieveLevel="STUDY", TimezoneOffsetFromUTC="+1400", StudyDate=f"{day}-"
        )
        add(index, record(f"1.{day}", StudyInstanceUID=f"2.{day}", StudyDate=day, StudyTime="0000"))
        find(index, identifier, "t")


def test_the_url_is_shown_without_its_password() -> None:
    assert Index("postgresql://me:secret@host/db").url == "postgresql://me:***@host/db"
