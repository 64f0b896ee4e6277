"""Queries of the index: pages, what they hold, and the time zone of an instance without one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.query.matching import InformationModel, QueryOptions
from netdicom_tx.archive.query.search import Search
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.databases import database_url
from support.archive.patients import data_set, find
from support.archive.records import add, record


@pytest.fixture
def url(tmp_path: Path) -> str:
    return database_url(tmp_path / "index.db")


@pytest.fixture
def index(url: str) -> Iterator[Index]:
    with Index(url) as opened:
        yield opened


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
    monkeypatch.setattr("netdicom_tx.archive.query.search.PAGE", 10)
    add(index, *(record(f"1.{number}", Rows=number + 1) for number in range(25)))
    return index


@pytest.mark.slow
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
    # The writer keeps its connection.
    assert many._engine.pool.checkedout() == 1  # type: ignore[attr-defined]
    many.remove("1.15").result(timeout=30)
    add(many, record("1.99"))
    assert [len(page) for page in pages] == [9, 5]


@pytest.mark.slow
def test_what_is_stored_is_found_by_the_next_query(index: Index) -> None:
    for number in range(20):
        add(index, record(f"1.{number}"))
        assert sum(map(len, _pages(index))) == number + 1


@pytest.mark.slow
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
    monkeypatch.setattr("netdicom_tx.archive.query.search._SORTED", 5)
    assert sum(map(len, _pages(many))) == 25


# None means the time zone of the machine.
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
        found = [
            each.StudyInstanceUID
            for each in find(index, identifier, "t", zone=zone, match_unknown=True)
        ]
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
