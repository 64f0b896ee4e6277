"""An outbound queue on a clock of the test's own, alone and in a group."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from netdicom_tx.archive.group.tables import node_table
from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.workflow.outbound import Queue, Task

from .databases import database_url

START = 1_800_000_000.0
KINDS = ["report", "send"]


class Time:
    """A clock for the queue and for Twisted, that agree."""

    def __init__(self) -> None:
        self.clock = Clock()

    def __call__(self) -> float:
        return START + self.clock.seconds()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[EngineDatabase]:
    database = EngineDatabase(database_url(tmp_path / "index.db"))
    yield database
    database.close()


@pytest.fixture
def queue(database: EngineDatabase, time: Time) -> Queue:
    return Queue(database, "node-1", now=time, jitter=lambda: 0.5)


def put(queue: Queue, kind: str = "report", destination: str = "PEER", **options: Any) -> int:
    payload = options.pop("payload", {"uid": "1.2.3"})
    return queue.database.write(
        lambda connection: queue.put(connection, kind, destination, payload, **options)
    ).result()


def claim(queue: Queue, **options: Any) -> Task:
    task = queue.claim(**{"kinds": KINDS, **options}).result()
    assert task is not None
    return task


def nothing(queue: Queue, **options: Any) -> bool:
    return queue.claim(**{"kinds": KINDS, **options}).result() is None


class Group:
    """Two nodes of a group, and when they were seen."""

    def __init__(self, database: EngineDatabase, time: Time) -> None:
        self.time = time
        self._database = database
        self.uuids = [str(uuid.UUID(int=number)) for number in range(2)]
        for each in self.uuids:
            self._write(
                node_table.insert().values(uuid=each, name=each, state="alive", seen=time())
            )
        self.queues = [Queue(database, "x", now=time, jitter=lambda: 0.5) for _ in self.uuids]
        for queue, each in zip(self.queues, self.uuids, strict=True):
            queue.join(each)

    def _write(self, statement: Any) -> None:
        self._database.write(lambda connection: connection.execute(statement)).result()

    def saw(self, node: int, state: str = "alive") -> None:
        own = node_table.c.uuid == self.uuids[node]
        self._write(node_table.update().where(own).values(seen=self.time(), state=state))


@pytest.fixture
def group(database: EngineDatabase, time: Time) -> Group:
    return Group(database, time)
