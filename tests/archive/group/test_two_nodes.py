"""Two real nodes on one PostgreSQL and one shared directory: what a killed node did passes to the other one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.group.duties import Duty
from netdicom_tx.archive.group.members import Node, members_of
from support.archive.databases import PostgreSQL
from support.processes import CHECKOUT, Process, eventually, free_port

pytestmark = pytest.mark.slow

# Without a worklist directory, nobody wants that duty.
DUTIES = tuple(sorted(each.value for each in Duty if each is not Duty.WORKLIST))


class Group:
    """A folder with the configurations of nodes that share a directory and a database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = PostgreSQL.running().url(str(folder))
        (folder / "shared").mkdir()
        self._engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        self._nodes: list[Process] = []

    def launch(self, name: str, directory: str = "", **keys: str) -> Process:
        """Start a node, without waiting for it."""
        storage = self.folder / (directory or name)
        path = self.folder / f"{name}.toml"
        url = keys.get("url", self.url)
        path.write_text(
            f'[node]\nname = "{keys.get("called", name)}"\n'
            f'listen = ["tcp:{free_port()}:interface=127.0.0.1"]\n'
            f'[storage]\ndirectory = "{storage}"\nurl = "file://{self.folder}/shared"\n'
            f'[database]\nurl = "{url}"\n'
        )
        python = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
        twistd = Path(sys.executable).with_name("twistd")
        made = Process(
            self.folder / f"{name}.log",
            *(sys.executable, twistd, "--pidfile=", "-n", "dicom", "--config", path),
            PYTHONPATH=python,
        )
        self._nodes.append(made)
        return made

    def start(self, name: str) -> Process:
        """Start a node, and wait until it is alive."""
        made = self.launch(name)
        made.ready(lambda: self.states().get(name) == "alive", f"life of {name}")
        return made

    def nodes(self) -> dict[str, Node]:
        with self._engine.connect() as connection:
            return {each.name: each for each in members_of(connection)}

    def states(self) -> dict[str, str]:
        return {name: each.state.value for name, each in self.nodes().items()}

    def duties(self) -> dict[str, tuple[str, ...]]:
        return {name: each.duties for name, each in self.nodes().items()}

    def end(self) -> None:
        for each in self._nodes:
            if not each.ended():
                each.kill()
        self._engine.dispose()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    made = Group(tmp_path)
    yield made
    made.end()


def test_the_duties_of_a_node_pass_to_another_when_it_stops_or_is_killed(group: Group) -> None:
    one = group.start("one")
    eventually(lambda: group.duties()["one"] == DUTIES, "duties of one")
    two = group.start("two")
    assert group.duties() == {"one": DUTIES, "two": ()}

    assert one.stop() == 0
    assert group.states()["one"] == "stopped"
    eventually(lambda: group.duties()["two"] == DUTIES, "duties of two")

    group.start("one")
    os.kill(two.pid, signal.SIGKILL)
    two.wait()
    killed = time.monotonic()
    eventually(lambda: group.duties()["one"] == DUTIES, "duties of one again", within=90)
    # They are held for 30 s, and the other one looks every 5 s.
    assert time.monotonic() - killed < 60
    eventually(lambda: group.states()["two"] == "dead", "death of two", within=90)

    # It is started again on its directory, and waits for nobody.
    group.start("two")
    assert group.states() == {"one": "alive", "two": "alive"}


def refusal(process: Process, code: int = 1) -> str:
    """What a node says that does not start, and ends with an exit code."""
    eventually(process.ended, "end of the node")
    assert process.wait() == code
    return process.text()


def test_two_nodes_cannot_be_one(group: Group) -> None:
    group.start("one")
    started = group.launch("again", directory="one")
    assert "is in use by another node: stop that node, or give this one another" in refusal(started)
    started = group.launch("two", called="one")
    assert "another node called one runs on" in refusal(started)
    assert group.states() == {"one": "alive"}


def test_nodes_of_a_group_need_one_server(group: Group) -> None:
    group.start("one")
    said = refusal(group.launch("two", url=f"sqlite:///{group.folder}/two.db"), 78)
    assert "PostgreSQL" in said
    other = PostgreSQL.running().url(str(group.folder / "other"))
    said = refusal(group.launch("three", url=other))
    assert "belongs to another database than" in said
    assert group.states() == {"one": "alive"}
