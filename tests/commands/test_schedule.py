"""netdicom schedule: scheduled steps into a node's worklist and out of it, with the node and without."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import FileStore
from netdicom_tx.commands import run
from support.commands.running import Netdicom
from support.node import Node

Captured = pytest.CaptureFixture[str]
Run = Callable[..., int]

KEYWORDS = (
    "PatientID,PatientName,StudyInstanceUID,ScheduledProcedureStepID,Modality,"
    "ScheduledProcedureStepStartDate"
)
CSV = f"{KEYWORDS}\n4711,DOE^JOHN,1.2.3,S1,CT,20261123\n4712,Müller^Jürgen,1.2.4,S1,MR,20261124\n"


def item(step: dict[str, Any], **more: Any) -> dict[str, Any]:
    """In the DICOM JSON model."""
    values = {"00400009": ("SH", "S1"), "00080060": ("CS", "CT"), "00400002": ("DA", "20261123")}
    steps = {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in values.items()}
    return {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DOE^JOHN"}]},
        "00100020": {"vr": "LO", "Value": ["4711"]},
        "00080050": {"vr": "SH", "Value": ["A1"]},
        "00400100": {"vr": "SQ", "Value": [steps | step]},
        **more,
    }


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


@pytest.mark.slow
def test_a_step_that_comes_twice_is_told(schedule: Run, orders: Path, capsys: Captured) -> None:
    assert schedule("add", orders, orders) == 0
    said = capsys.readouterr()
    assert said.out == "2 steps added\n"
    assert "2 had the study and step ID of a later one" in said.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{KEYWORDS}\n4711,DOE,1.2,S1,CT,20261123,more\n", "line 2 has more values"),
        ("PatientID,Nonsense\n4711,1\n", "column 'Nonsense'"),
        ("[{]", "the text is not JSON"),
        ('[{"00100010": {"vr": "PN"}}]', "item 1 has no scheduled procedure step"),
        (f"{KEYWORDS}\n4711,D\xd6E,1.2,S1,CT,20261123\n".encode("latin-1"), "is not UTF-8"),
        (
            f"{CSV}\n4713,ROE,1.2,S1,CT,2026-11-23\n",
            "line 5: ScheduledProcedureStepStartDate '2026-11-23'; expected YYYYMMDD (DA)",
        ),
        (f"{CSV}4713,ROE,1.2,S1,CT,20261123-20261124\n", "line 4: ScheduledProcedureStepStartDate"),
        (
            f"{CSV}4713,ROE,1.2,S1,ct,20261123\n",
            "line 4: Modality 'ct'; expected at most 16 of A-Z, 0-9, space and underscore (CS)",
        ),
        (f"{CSV}4713,ROE,1.2.x,S1,CT,20261123\n", "line 4: StudyInstanceUID '1.2.x'; expected"),
        (f"{CSV}4713,ROE,1.2,{'S' * 17},CT,20261123\n", "expected at most 16 characters (SH)"),
        (
            f"{CSV}4713,,1.2,,CT,20261123\n",
            "line 4: PatientName, ScheduledProcedureStepID missing",
        ),
        (
            f"{CSV}4713,ROE,,S1,CT,20261123\n",
            "line 4: one of StudyInstanceUID, AccessionNumber, RequestedProcedureID is needed",
        ),
        (
            json.dumps([item({}), item({"00400003": {"vr": "TM", "Value": ["09:00"]}})]),
            "item 2: ScheduledProcedureStepStartTime '09:00'; expected HHMMSS or HHMM (TM)",
        ),
        (
            json.dumps(item({"00080060": {"vr": "CS", "Value": []}})),
            "item 1: Modality missing",
        ),
        (
            json.dumps(item({}, **{"00101010": {"vr": "AS", "Value": ["30"]}})),
            "item 1: PatientAge '30'; Invalid value for VR AS",
        ),
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


def test_all_mistakes_of_a_file_are_told_at_once(
    schedule: Run, tmp_path: Path, capsys: Captured
) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(KEYWORDS + "\n4711,DOE^JOHN,1.2.3,S1,CT,tomorrow" * 12, "utf-8")
    assert schedule("add", wrong) == 2
    said = capsys.readouterr().err
    assert said.count("tomorrow") == 10
    assert "line 2: " in said
    assert "and 2 more" in said


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_a_line_of_keywords_is_a_mistake(
    schedule: Run, tmp_path: Path, capsys: Captured, text: str
) -> None:
    """An export that failed leaves such files; one without steps has its keywords."""
    path = tmp_path / "empty.csv"
    path.write_text(text, "utf-8")
    assert schedule("add", path) == 2
    assert "is empty" in capsys.readouterr().err
    path.write_text(KEYWORDS + "\n", "utf-8")
    assert schedule("add", path) == 0


def test_json_is_added(schedule: Run, tmp_path: Path, capsys: Captured) -> None:
    """A list, with several values and values that are no text."""
    more = {
        "00101020": {"vr": "DS", "Value": [1.75]},
        "001021C0": {"vr": "US", "Value": [4]},
        "00102110": {"vr": "LO", "Value": ["Latex", "Pollen"]},
        "00091001": {"vr": "UN", "InlineBinary": "AAA="},
    }
    (tmp_path / "steps.json").write_text(json.dumps([item({}, **more)]))
    assert schedule("add", tmp_path / "steps.json") == 0
    assert capsys.readouterr().out == "1 step added\n"


def test_a_file_that_is_not_there_is_told(schedule: Run, tmp_path: Path, capsys: Captured) -> None:
    assert schedule("add", tmp_path / "none.csv") == 2
    assert "No such file" in capsys.readouterr().err


def test_a_step_that_is_not_there_is_told(schedule: Run, orders: Path, capsys: Captured) -> None:
    schedule("add", orders)
    assert schedule("remove", "1.2.3") == 2
    assert "no step without an ID of study 1.2.3" in capsys.readouterr().err


@pytest.mark.slow
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
