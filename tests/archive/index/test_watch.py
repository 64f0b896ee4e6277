"""Searches end in time, and when nobody waits for them any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.index.watch import SearchEndedError, Watch, Watches
from support.archive.databases import database_url

#: Counts for hours.
ENDLESS = sa.text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000) "
    "SELECT count(*) FROM n"
)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(database_url(tmp_path / "index.db")) as opened:
        yield opened


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_step_has_its_time() -> None:
    time = Time()
    watch = Watch(10, now=time)
    for _ in range(3):
        watch.step()
        time.now += 9
        watch.check()
    time.now += 2
    with pytest.raises(SearchEndedError, match="more than 10 s; ask for less"):
        watch.check()
    watch.step()
    watch.check()


def test_a_search_that_was_cancelled_begins_no_step() -> None:
    watch = Watch()
    watch.cancel()
    with pytest.raises(SearchEndedError, match="cancelled"):
        watch.step()


def test_a_statement_ends_when_its_time_is_over(index: Index) -> None:
    with (
        pytest.raises(SearchEndedError, match=r"more than 0\.01 s"),
        index.reading(Watch(0.01)) as db,
    ):
        db.execute(ENDLESS)
    with index.reading() as db:  # the connection is as good as new
        assert db.scalar(sa.text("SELECT 1")) == 1


def test_a_statement_ends_when_its_search_is_cancelled_in_another_thread(index: Index) -> None:
    watch = Watch(3600)
    errors: list[BaseException] = []
    runs = threading.Event()

    def search() -> None:
        try:
            with index.reading(watch) as db:
                runs.set()
                db.execute(ENDLESS)
        except SearchEndedError as error:
            errors.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    assert runs.wait(30)
    watch.cancel()
    thread.join(30)
    assert not thread.is_alive()
    assert str(errors[0]) == "the search was cancelled"


def test_a_function_is_called_when_the_search_is_cancelled() -> None:
    """For databases that do not ask."""
    watch, called = Watch(), []
    watch.on_cancel(lambda: called.append("kept"))
    forget = watch.on_cancel(lambda: called.append("forgotten"))
    forget()
    watch.cancel()
    assert called == ["kept"]
    watch.on_cancel(lambda: called.append("too late"))
    assert called == ["kept", "too late"]


def test_all_searches_can_be_cancelled() -> None:
    watches = Watches(5)
    with watches.watching() as first, watches.watching() as second:
        watches.cancel()
        assert first.is_over
        assert second.is_over
    with watches.watching() as third:
        assert not third.is_over
    assert third.is_over  # nobody waits any more
