"""The outbound queue of several nodes: real processes perform the tasks of one table on PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.workflow.outbound import PER_DESTINATION, Queue
from netdicom_tx.archive.workflow.runner import CONCURRENCY
from support.archive.databases import PostgreSQL
from support.processes import CHECKOUT, eventually

pytestmark = pytest.mark.slow

PROGRAM = CHECKOUT / "tests/support/archive/queue_node.py"
LEASE = 20.0
DESTINATIONS = 5
CHAINS = 6
TASKS = 240


@pytest.fixture
def url(tmp_path: Path) -> str:
    return PostgreSQL.running().url(str(tmp_path))


@pytest.fixture
def database(url: str) -> Iterator[EngineDatabase]:
    database = EngineDatabase(url)
    yield database
    database.close()


class Performed(NamedTuple):
    """When a process performed a task.

    Attributes:
        how: ``end``, ``cancelled`` or ``killed``.
    """

    name: str
    number: int
    begin: float
    end: float
    how: str


class Nodes:
    """Processes that perform tasks, and what they have written down."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self.log = folder / "log"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._killed: dict[str, float] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(60)
        self._stack.close()

    def start(self, name: str, skew: float = 0.0) -> None:
        words = [self._url, name, str(self.log), str(LEASE), str(skew)]
        errors = self._stack.enter_context((self._folder / f"{name}.errors").open("wb"))
        self._processes[name] = subprocess.Popen(
            [sys.executable, str(PROGRAM), *words],
            stderr=errors,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        self._killed[name] = time.monotonic()

    def lines(self) -> list[list[str]]:
        if not self.log.exists():
            return []
        return [line.split() for line in self.log.read_text().splitlines()]

    def names(self) -> set[str]:
        """Those who have performed something."""
        return {name for name, *_ in self.lines()}

    def ends(self) -> int:
        return sum(what == "end" for _, _, what, _ in self.lines())

    def performed(self) -> list[Performed]:
        """What was performed, in the order in which it ended."""
        begun: dict[tuple[str, int], float] = {}
        found = []
        for name, number, what, moment in self.lines():
            key = name, int(number)
            if what == "begin":
                assert key not in begun
                begun[key] = float(moment)
            else:
                found.append(Performed(*key, begun.pop(key), float(moment), what))
        for key, start in begun.items():
            found.append(Performed(*key, start, self._killed[key[0]], "killed"))
        return sorted(found, key=lambda each: each.end)


def test_no_task_is_lost_or_performed_by_two_whatever_ends(
    url: str, database: EngineDatabase, tmp_path: Path
) -> None:
    """A node is killed, the server of the database is restarted, and the clock of a node is an hour ahead."""
    queue = Queue(database, "test")
    destination: dict[int, str] = {}
    chain: dict[int, str] = {}
    for count in range(TASKS):
        title, link = f"PEER{count % DESTINATIONS}", f"chain {count % CHAINS}" if count % 2 else ""
        number = database.write(
            lambda connection, title=title, link=link: queue.put(  # type: ignore[misc]
                connection, "report", title, {}, chain=link
            )
        ).result()
        destination[number], chain[number] = title, link
    with Nodes(url, tmp_path) as nodes:
        nodes.start("first")
        nodes.start("ahead", skew=3600.0)
        nodes.start("behind", skew=-3600.0)
        eventually(
            lambda: nodes.ends() > TASKS / 6 and "first" in nodes.names(),
            "tasks were performed, some by the first node",
            within=120,
        )
        nodes.kill("first")
        eventually(lambda: nodes.ends() > TASKS / 3, "others went on", within=120)
        server = PostgreSQL.running()
        server.stop()
        server.start()
        eventually(lambda: not queue.list(), "all tasks were performed", within=180)
        performed = nodes.performed()
        assert nodes.names() > {"first"}

    done = [each for each in performed if each.how == "end"]
    assert {each.number for each in done} == destination.keys()
    # Only what was killed before it could say that it has done a task leaves that to another.
    again = [each for each in done if sum(one.number == each.number for one in done) > 1]
    assert all(
        any(one.name == "first" for one in again if one.number == each.number) for each in again
    )
    assert len(again) <= 2 * CONCURRENCY

    for each in performed:
        beside = [one for one in performed if one is not each and one.begin <= each.begin < one.end]
        assert all(one.number != each.number for one in beside)
        same = [one for one in beside if destination[one.number] == destination[each.number]]
        assert len(same) < PER_DESTINATION
        link = chain[each.number]
        if link:
            earlier = [n for n in chain if chain[n] == link and n < each.number]
            ends = {one.number for one in done if one.end <= each.begin}
            assert ends.issuperset(earlier)
