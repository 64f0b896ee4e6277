"""Rows that the database has refused follow when it takes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import Duplicates, FileStore, Index
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.store import owing as module
from netdicom_tx.archive.store.keeping import keep_with_row
from netdicom_tx.archive.store.owing import OwedRows
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.archive.databases import database_url
from support.doubles import LoggedFailures
from support.doubles import logged_failures as logged_failures
from support.doubles import logged_lines as logged_lines
from support.processes import eventually

UID = "1.2.3.4"


def refused() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(IndexUnavailableError("the database is locked"))
    return future


class Owing:
    """A store that replaces, whose rows may be refused."""

    def __init__(self, directory: Path) -> None:
        self.store = FileStore(directory / "archive", fsync=False, duplicates=Duplicates.REPLACE)
        self.store.open()
        self.index = Index(database_url(directory / "index.db"))
        self.index.open()
        self.owed = OwedRows(self.store, self.index, lambda _: nullcontext())
        self.owed.start()

    def keep(self, fill: int = 1, uid: str = UID) -> None:
        """Keep an instance, whose row may be refused."""
        spool = self.store.spool(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax, "SENDER")
        with spool:
            spool.write(ct(uid, fill=fill))
            _, row = keep_with_row(self.store, self.index, spool, lambda: None, self.owed.owe)
        assert row is not None
        row.result()

    def has_row(self, uid: str = UID) -> bool:
        """Whether the index has an instance as its file is."""
        row = self.index.get(uid)
        return row is not None and row.size == self.store.path(uid).stat().st_size

    def close(self) -> None:
        self.owed.stop()
        self.index.close()
        self.store.close()


@pytest.fixture
def owing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owing]:
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    owing = Owing(tmp_path)
    yield owing
    owing.close()


def test_a_row_follows_when_the_database_takes_it(
    owing: Owing, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """The sender was told that the instance is not kept; its file agrees with the index again."""
    attempts = []
    add_many = Index.add_many

    def refuse_twice(index: Index, records: Any) -> Future[Any]:
        attempts.append(1)
        return refused() if len(attempts) < 3 else add_many(index, records)

    monkeypatch.setattr(Index, "add_many", refuse_twice)
    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", lambda *_: refused())
        for uid in ("1.1", "1.2"):
            with pytest.raises(IndexUnavailableError):
                owing.keep(uid=uid)
    eventually(lambda: owing.has_row("1.1") and owing.has_row("1.2"), "rows")
    eventually(lambda: owing.owed._thread is None, "end of the thread")
    assert owing.index.counts().instances == 2
    assert sum("the database had refused are in the index now" in each for each in lines) == 1


def test_an_instance_that_could_not_be_replaced_is_found_again(
    owing: Owing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was taken back, and then the disk refused the name of the new file."""
    owing.keep()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(OSError, match="No space left"):
            owing.keep(2)
    eventually(owing.has_row, "row")
    assert owing.store.path(UID).read_bytes().endswith(ct(UID, fill=1))


def test_what_replaces_another_instance_is_found_although_its_row_was_refused(
    owing: Owing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise neither of them would be."""
    owing.keep()
    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", lambda *_: refused())
        with pytest.raises(IndexUnavailableError):
            owing.keep(2)
    eventually(owing.has_row, "row")


def test_one_file_that_cannot_be_read_does_not_keep_the_others_waiting(owing: Owing) -> None:
    owing.store.path("1.1").mkdir()
    owing.owed.owe("1.1")
    path = owing.store.path(UID)
    owing.keep()
    owing.index.remove(UID).result()
    owing.owed.owe(UID)
    eventually(owing.has_row, "row")
    assert path.is_file()


def test_a_fault_is_logged_and_not_repeated(
    owing: Owing, monkeypatch: pytest.MonkeyPatch, failures: LoggedFailures
) -> None:
    def fail(*_: Any) -> int:
        raise LookupError("a fault of the program")

    monkeypatch.setattr(module, "index_noted", fail)
    owing.owed.owe(UID)
    eventually(lambda: owing.owed._thread is None, "end of the thread")
    assert failures.texts() == ["a fault of the program"]


def test_nothing_is_owed_when_the_node_stops(owing: Owing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start compares files and index."""
    monkeypatch.setattr(module, "index_noted", lambda *_: pytest.fail("it is stopped"))
    owing.owed.stop()
    owing.keep()
    owing.owed.owe(UID)
    assert owing.owed._thread is None
    owing.owed.start()
    monkeypatch.setattr(module, "_AGAIN", 60)
    owing.owed.owe(UID)
    owing.owed.stop()
    assert owing.owed._thread is None
