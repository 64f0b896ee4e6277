"""A worker's side of what passes between it and the lead, without a lead."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from netdicom_tx import worker as module
from netdicom_tx.worker import Worker
from netdicom_tx.workforce import WorkforceError
from support.processes import PATIENCE


class Reactor:
    """A reactor that waits for its descriptors, and has not come to what threads want of it."""

    running = False

    def addReader(self, reader: Any) -> None:
        """Nothing is read."""

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        """It is called later."""


class Asking:
    """A worker that asks the lead, in a thread, to have all journals emptied."""

    def __init__(self, descriptor: int) -> None:
        self.worker = Worker(Reactor())
        self._questions = os.fdopen(descriptor, "rb", buffering=0)
        self._threads = ThreadPoolExecutor(2)

    def ask(self) -> tuple[int, Future[None]]:
        """Ask, and wait for the question; returns its number, and what becomes of it."""
        future = self._threads.submit(self.worker._forget_elsewhere)
        said = json.loads(self._questions.readline())
        assert said["is"] == "forget"
        return said["number"], future

    def close(self) -> None:
        self._threads.shutdown()
        self._questions.close()


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    ours, theirs = os.pipe()
    monkeypatch.setattr(module, "EVENTS", theirs)
    asking = Asking(ours)
    yield asking
    asking.close()
    os.close(theirs)


def test_the_lead_may_answer_at_once(asking: Asking) -> None:
    """Before the reactor has come to anything else; several threads may ask at once."""
    first, one = asking.ask()
    second, two = asking.ask()
    asking.worker._heard({"is": "forgotten", "number": second, "error": "the disk is full"})
    asking.worker._heard({"is": "forgotten", "number": first, "error": ""})
    one.result(PATIENCE)
    with pytest.raises(WorkforceError, match="cannot empty its journal: the disk is full"):
        two.result(PATIENCE)


def test_nobody_waits_for_a_lead_that_is_gone(asking: Asking) -> None:
    """Neither those that wait already, nor those that come while the worker ends."""
    _, waiting = asking.ask()
    asking.worker._lost()
    with pytest.raises(WorkforceError, match="the lead of the node is gone"):
        waiting.result(PATIENCE)
    with pytest.raises(WorkforceError, match="the lead of the node is gone"):
        asking.worker._forget_elsewhere()
