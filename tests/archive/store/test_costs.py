"""What an instance costs on its way into the archive, in units that no machine changes.

A rate depends on the machine, and so no test measures one (``python -m tests.bench`` does). The numbers here are what
rates come from: syncs, hops between threads, statements, octets that are written, walks and digests.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from archive.store.test_intake import Running, hold
from netdicom_tx.archive.store import intake as intakes
from netdicom_tx.archive.store.journal import PAGE
from support.archive.data_sets import ct

COUNT = 64


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """An intake that has a series already, so that only instances are new."""
    made = Running(tmp_path / "archive")
    made.start()
    made.keep("1.2.0")
    made.intake.settle()
    yield made
    made.stop()


@pytest.fixture
def costs(running: Running, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What has been counted since the series is there."""
    found: Counter[str] = Counter()

    def count(target: Any, name: str, what: str = "") -> None:
        real: Callable[..., Any] = getattr(target, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            found[what or name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(target, name, counted)

    def pwritev(descriptor: int, buffers: list[bytes], position: int) -> int:
        found["journalled octets"] += sum(map(len, buffers))
        return real_pwritev(descriptor, buffers, position)

    real_pwritev = os.pwritev
    for each in ("fsync", "fdatasync"):
        count(os, each, "syncs")
    count(os, "rename")
    count(hashlib, "sha256")
    count(intakes, "walk")
    count(intakes, "sync_files", "syncs of the file system")
    count(running.calls, "callFromThread", "hops")
    monkeypatch.setattr(os, "pwritev", pwritev)

    def executed(*_: Any) -> None:
        found["statements"] += 1

    assert running.index._engine is not None
    sa.event.listen(running.index._engine, "before_cursor_execute", executed)
    return found


def test_instances_that_come_one_by_one(
    running: Running, costs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sender that waits for each answer: a sync and a hop each, and rows in one group."""
    go_on = hold(monkeypatch, running.store, "place")
    size = 0
    for n in range(1, COUNT + 1):
        data = ct(f"1.2.{n}")
        size += len(data)
        assert running.keep(f"1.2.{n}", data) is not None
    assert costs["syncs"] == COUNT
    assert costs["hops"] == COUNT
    assert costs["walk"] == COUNT
    # One of the octets, and one of the UID, which names the file.
    assert costs["sha256"] == 2 * COUNT
    assert costs["journalled octets"] <= size + COUNT * (PAGE + 512)
    assert costs["statements"] == 0
    go_on()
    running.intake.settle()
    # At most two groups: the first instance alone may be one.
    assert costs["statements"] <= 2 * 5
    assert costs["rename"] == COUNT
    assert costs["syncs"] == COUNT
    assert costs["syncs of the file system"] == 0


def test_instances_that_come_together(
    running: Running, costs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many senders: those that wait share a sync and a hop."""
    go_on = hold(monkeypatch, running.store, "has_room")
    waiting = [running.submit(f"1.2.{n}", ct(f"1.2.{n}")) for n in range(1, COUNT + 1)]
    go_on()
    assert all(running.calls.until(each) is not None for each in waiting)
    assert costs["syncs"] <= 2
    assert costs["hops"] <= 2
    assert costs["walk"] == COUNT
