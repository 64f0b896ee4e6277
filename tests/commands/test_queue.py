"""netdicom queue: what a node owes to peers, seen and set right, with the node and without."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import FileStore
from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.workflow.outbound import GiveUpError, Queue
from netdicom_tx.commands import run
from netdicom_tx.commands.common.failures import CommandError
from netdicom_tx.commands.common.output import Output
from netdicom_tx.commands.queue import _conclude, _for_all
from support.commands.running import Netdicom
from support.node import Node
from support.processes import eventually

Captured = pytest.CaptureFixture[str]
START = 1_800_000_000.0


class Owed:
    """Puts tasks into the queue of an archive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = EngineDatabase(f"sqlite:///{root / 'index.db'}")
        self.queue = Queue(self.database, "node", now=lambda: START, jitter=lambda: 0.5)

    def waiting(self, kind: str = "report", **options: Any) -> int:
        """One that is to be tried in an hour."""
        payload = options.pop("payload", None)
        return self.database.write(
            lambda connection: self.queue.put(
                connection, kind, "CT1", payload, **{"after": 3600.0, **options}
            )
        ).result()

    def running(self) -> int:
        return self.waiting(claimed=True)

    def dead(self, kind: str = "report", **options: Any) -> int:
        number = self.waiting(kind, after=0, **options)
        task = self.queue.claim(kinds=[kind]).result()
        assert task is not None
        assert task.id == number
        self.queue.failed(task, GiveUpError("the peer answered\tNo such SOP class")).result()
        return number

    def states(self) -> dict[int, str]:
        return {task.id: task.state for task in self.queue.list()}

    def run(self, *arguments: object) -> int:
        return run(["queue", *map(str, arguments), "--storage", str(self.root)])


@pytest.fixture
def owed(tmp_path: Path) -> Iterator[Owed]:
    """The queue of a node that does not run."""
    store = FileStore(tmp_path / "archive", fsync=False)
    store.open()
    store.close()
    made = Owed(store.root)
    yield made
    made.database.close()


def rows(out: str) -> list[dict[str, str]]:
    head, *lines = [line.split("\t") for line in out.splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]


@pytest.mark.parametrize("name", ["list", "retry", "drop"])
def test_each_has_its_help_with_an_example(name: str, capsys: Captured) -> None:
    assert run(["queue", name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Examples:\n    netdicom queue {name}" in out
    assert "--storage" in out


def test_the_tasks_are_lines_with_their_state_and_last_error(owed: Owed, capsys: Captured) -> None:
    dead, waiting = owed.dead(), owed.waiting()
    assert owed.run("list") == 0
    out, err = capsys.readouterr()
    first, second = rows(out)
    assert (first["id"], first["kind"], first["destination"]) == (str(dead), "report", "CT1")
    assert (first["state"], first["attempt"]) == ("dead", "1")
    assert first["last error"] == r"the peer answered\tNo such SOP class"
    assert (second["id"], second["state"], second["last error"]) == (str(waiting), "waiting", "")
    assert datetime.fromisoformat(first["created"]).timestamp() == START
    assert datetime.fromisoformat(second["not before"]).timestamp() == START + 3600
    assert err == "2 tasks: 1 waiting, 1 dead\n"


def test_a_state_can_be_asked_for_and_the_answers_are_json_lines(
    owed: Owed, capsys: Captured
) -> None:
    owed.waiting()
    dead = owed.dead()
    assert owed.run("list", "--state", "dead", "--json") == 0
    (document,) = map(json.loads, capsys.readouterr().out.splitlines())
    created, due = (datetime.fromisoformat(document.pop(key)) for key in ("created", "not_before"))
    assert created.timestamp() == due.timestamp() == START
    assert created.tzinfo is not None
    assert document == {
        "id": dead,
        "kind": "report",
        "destination": "CT1",
        "state": "dead",
        "attempt": 1,
        "last_error": "the peer answered\tNo such SOP class",
    }


def test_an_empty_queue_says_so(owed: Owed, capsys: Captured) -> None:
    assert owed.run("list") == 0
    assert capsys.readouterr().err == "0 tasks\n"
    assert owed.run("retry") == 0
    assert capsys.readouterr().out == "0 tasks to be tried again\n"


def test_retry_takes_all_that_are_dead(owed: Owed, capsys: Captured) -> None:
    owed.dead()
    owed.dead()
    owed.waiting()
    running = owed.running()
    assert owed.run("retry") == 0
    assert capsys.readouterr().out == "2 tasks to be tried again\n"
    assert list(owed.states().values()) == ["waiting"] * 3 + ["running"]
    assert [task.attempt for task in owed.queue.list()][:2] == [0, 0]
    assert owed.states()[running] == "running"


def test_retry_takes_those_that_are_named(owed: Owed, capsys: Captured) -> None:
    """One that waits is tried earlier."""
    dead, other, waiting = owed.dead(), owed.dead(), owed.waiting()
    assert owed.run("retry", dead, waiting, dead, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"retried": 2}
    assert owed.states() == {dead: "waiting", other: "dead", waiting: "waiting"}
    due = {task.id: task.not_before for task in owed.queue.list()}
    assert due[waiting] != START + 3600


def test_drop_forgets_those_that_are_named(owed: Owed, capsys: Captured) -> None:
    first, second, third = owed.waiting(), owed.dead(), owed.waiting()
    assert owed.run("drop", first, second) == 0
    assert capsys.readouterr().out == "2 tasks dropped\n"
    assert owed.states() == {third: "waiting"}


def test_drop_forgets_all_that_are_dead(owed: Owed, capsys: Captured) -> None:
    owed.dead()
    owed.dead()
    waiting = owed.waiting()
    assert owed.run("drop", "--dead", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"dropped": 2}
    assert owed.states() == {waiting: "waiting"}


@pytest.mark.parametrize("name", ["retry", "drop"])
def test_an_unknown_number_is_told_and_nothing_is_done(
    owed: Owed, capsys: Captured, name: str
) -> None:
    dead = owed.dead()
    assert owed.run(name, dead, 17, 18) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: there is no task 17, 18",
        "       a task that is done leaves the queue; nothing was changed",
        "hint:  netdicom queue list shows the tasks",
    ]
    assert owed.states() == {dead: "dead"}


@pytest.mark.parametrize("name", ["retry", "drop"])
def test_what_is_being_performed_is_left_alone(owed: Owed, capsys: Captured, name: str) -> None:
    running, dead = owed.running(), owed.dead()
    assert owed.run(name, running, dead) == 2
    assert f"the node is running task {running} now" in capsys.readouterr().err
    assert owed.states() == {running: "running", dead: "dead"}


@pytest.mark.parametrize("arguments", [[], ["1", "--dead"], ["one"], ["--state", "dead"]])
def test_drop_wants_to_know_which(owed: Owed, capsys: Captured, arguments: list[str]) -> None:
    dead = owed.dead()
    assert owed.run("drop", *arguments) == 2
    assert [line[:7] for line in capsys.readouterr().err.splitlines()] == [
        "error: ",
        "       ",
        "hint:  ",
    ]
    assert owed.states() == {dead: "dead"}


def test_a_task_that_the_node_was_faster_with_is_told(owed: Owed, capsys: Captured) -> None:
    """Between looking and doing the node may have claimed one."""
    ids = [owed.dead(), owed.running()]
    done = _for_all(owed.queue.drop, ids)
    with pytest.raises(CommandError) as caught:
        _conclude(Output(), "dropped", "dropped", done, ids)
    assert capsys.readouterr().out == "1 task dropped\n"
    assert caught.value.problem.code == 1
    assert "1 task was left as it is" in str(caught.value.problem)


@pytest.mark.slow
def test_more_are_dropped_than_a_statement_has_room_for(owed: Owed) -> None:
    """SQLite takes 32766 values."""

    def put(connection: Any) -> None:
        for _ in range(33_000):
            owed.queue.put(connection, "report", "CT1", None)

    owed.database.write(put).result()
    ids = [task.id for task in owed.queue.list()]
    assert _for_all(owed.queue.drop, ids) == 33_000


def test_another_directory_is_refused_and_left_alone(tmp_path: Path, capsys: Captured) -> None:
    for arguments in (["list"], ["retry"], ["drop", "1"]):
        assert run(["queue", *arguments, "--storage", str(tmp_path)]) == 2
        assert "is not the storage directory of a node" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_none_is_told(owed: Owed, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database" * 100)
    assert owed.run("list", "--database", f"sqlite:///{tmp_path / 'x.db'}") == 78
    assert "file is not a database" in capsys.readouterr().err


def test_a_database_that_refuses_is_told(
    owed: Owed, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has made another table of it."""
    import sqlalchemy as sa

    with owed.database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE task RENAME COLUMN kind TO sort"))
    assert owed.run("list") == 78
    err = capsys.readouterr().err
    assert err.startswith("error: the database sqlite:///")
    assert "kind" in err


def test_the_help_of_the_group_loads_no_reactor() -> None:
    program = "import sys; from netdicom_tx.commands import run; run(['queue', '--help'])\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "print(*sys.modules, file=sys.stderr)"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "twisted.internet.reactor" not in done.stderr.split()


# -- beside a node that runs --------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.start()
    yield made
    made.stop()
    assert "Traceback" not in made.log, made.log


@pytest.mark.slow
def test_a_running_node_tries_again_what_it_is_told_to(node: Node, netdicom: Netdicom) -> None:
    """SQLite in WAL mode has readers beside its writer; the node looks at the queue every ten seconds.

    A commitment of a request that is not owed any more is performed by doing nothing.
    """
    owed = Owed(node.storage)
    dead = [owed.dead("commitment", payload={"row": 0}) for _ in range(3)]
    storage = ("--storage", node.storage)
    listed = netdicom("queue", "list", "--json", *storage)
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == dead
    assert netdicom("queue", "drop", dead[0], *storage).stdout == "1 task dropped\n"
    assert netdicom("queue", "retry", dead[1], *storage).returncode == 0
    eventually(lambda: owed.states() == {dead[2]: "dead"}, "task performed by the node")
    owed.database.close()


@pytest.mark.slow
def test_the_queue_is_written_while_the_node_stores(
    node: Node, netdicom: Netdicom, instances: Path
) -> None:
    """Two processes write: each waits for the other, and neither fails (busy timeout)."""
    owed = Owed(node.storage)
    is_over = threading.Event()
    codes = []

    def drop() -> None:
        while not is_over.is_set():
            codes.append(owed.run("drop", owed.waiting()))

    peer = f"NETDICOM@127.0.0.1:{node.address.port}"
    thread = threading.Thread(target=drop)
    thread.start()
    try:
        stored = netdicom("store", peer, *[instances] * 10, "--jobs", 4, "--json")
    finally:
        is_over.set()
        thread.join()
    assert stored.returncode == 0, stored.stderr
    assert len(codes) > 10
    assert set(codes) == {0}
    assert owed.states() == {}
    owed.database.close()
