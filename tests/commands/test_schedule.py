"""netdicom schedule: scheduled steps into a node's worklist and out of it, with the node and without."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from interop.peers import Node

from netdicom_tx.archive import FileStore
from netdicom_tx.commands import run

from .running import Netdicom

Captured = pytest.CaptureFixture[str]
Run = Callable[..., int]

KEYWORDS = "PatientID,PatientName,StudyInstanceUID,ScheduledProcedureStepID,Modality"
CSV = f"{KEYWORDS}\n4711,DOE^JOHN,1.2.3,S1,CT\n4712,Müller^Jürgen,1.2.4,S1,MR\n"


@pytest.fixture
def schedule(tmp_path: Path) -> Run:
    """Runs the command on the archive of a node that does not run."""
    store = FileStore(tmp_path / "archive", fsync=False)
    store.open()
    store.close()

    def call(*arguments: object) -> int:
        return run(["schedule", *map(str, arguments), "--storage", str(store.root)])

    return call


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_text(CSV, "utf-8")
    return path


def test_steps_are_added_shown_and_taken_out(schedule: Run, orders: Path, capsys: Captured) -> None:
    assert schedule("add", orders) == 0
    assert capsys.readouterr().out == "2 steps added\n"
    assert schedule("list") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("\t")[-3:] == ["patient", "patient ID", "study"]
    assert [row.split("\t")[-3:] for row in rows] == [
        ["DOE^JOHN", "4711", "1.2.3"],
        ["Müller^Jürgen", "4712", "1.2.4"],
    ]
    assert schedule("remove", "1.2.3", "S1", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 1}
    schedule("list", "--json")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_what_is_listed_as_json_can_be_added(
    schedule: Run, orders: Path, tmp_path: Path, capsys: Captured
) -> None:
    schedule("add", orders)
    capsys.readouterr()
    schedule("list", "--json")
    listed = capsys.readouterr().out
    (tmp_path / "steps.json").write_text(listed, "utf-8")
    schedule("remove", "1.2.3", "S1")
    assert schedule("add", tmp_path / "steps.json", "--json") == 0
    capsys.readouterr()
    schedule("list", "--json")
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(listed.splitlines())


def test_a_step_that_comes_twice_is_told(schedule: Run, orders: Path, capsys: Captured) -> None:
    assert schedule("add", orders, orders) == 0
    said = capsys.readouterr()
    assert said.out == "2 steps added\n"
    assert "2 came twice" in said.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{KEYWORDS}\n4711,DOE,1.2,S1,CT,more\n", "line 2 has more values"),
        ("PatientID,Nonsense\n4711,1\n", "column 'Nonsense'"),
        ("[{]", "no JSON"),
        ('[{"00100010": {"vr": "PN"}}]', "item 1 has no scheduled procedure step"),
        (f"{KEYWORDS}\n4711,D\xd6E,1.2,S1,CT\n".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_a_file_with_a_fault_adds_nothing(
    schedule: Run, orders: Path, tmp_path: Path, capsys: Captured, content: str | bytes, words: str
) -> None:
    """Nor do those before it."""
    bad = tmp_path / "bad"
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert schedule("add", orders, bad) == 2
    said = capsys.readouterr().err
    assert f"{bad} cannot be imported" in said
    assert words in said
    schedule("list")
    assert len(capsys.readouterr().out.splitlines()) == 1  # the head


def test_a_file_that_is_not_there_is_told(schedule: Run, tmp_path: Path, capsys: Captured) -> None:
    assert schedule("add", tmp_path / "none.csv") == 2
    assert "No such file" in capsys.readouterr().err


def test_a_step_that_is_not_there_is_told(schedule: Run, orders: Path, capsys: Captured) -> None:
    schedule("add", orders)
    assert schedule("remove", "1.2.3") == 2
    assert "no step without an ID of study 1.2.3" in capsys.readouterr().err


def test_a_running_node_has_what_was_added(netdicom: Netdicom, tmp_path: Path) -> None:
    (netdicom.directory / "orders.csv").write_text(CSV, "utf-8")
    node = Node(tmp_path)
    node.start()
    peer = f"NETDICOM@127.0.0.1:{node.address.port}"
    try:
        before = netdicom("worklist", peer, "--json")
        assert (before.returncode, before.stdout) == (0, "")
        done = netdicom("schedule", "add", "orders.csv", "-s", node.storage)
        assert done.returncode == 0, done.stderr
        found = netdicom("worklist", peer, "--modality", "MR", "--json")
        (answer,) = found.stdout.splitlines()
        assert "4712" in answer
    finally:
        node.stop()
