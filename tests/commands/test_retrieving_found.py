"""``netdicom get`` and ``netdicom move`` by keys that are found first, against a node."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from netdicom_tx.commands import run
from support.archive.part10_files import write
from support.commands.running import Netdicom, three_lines
from support.node import Node
from support.processes import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def destination() -> int:
    """The port of the AE DEST, which the node knows."""
    return free_port()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, destination: int) -> Iterator[Node]:
    """Four studies: of two patients, in two months, with CT and MR series of two images each."""
    directory = tmp_path_factory.mktemp("node")
    for study, (patient, date) in enumerate(
        [("P1", "20260105"), ("P1", "20260206"), ("P2", "20260115"), ("P2", "20250101")]
    ):
        for series, modality in enumerate(("CT", "MR") if study < 3 else ("MR",)):
            for number in range(2):
                uid = f"1.{study}.{series}.{number}"
                write(
                    directory / "in" / f"{uid}.dcm",
                    uid,
                    PatientID=patient,
                    StudyInstanceUID=f"1.{study}",
                    SeriesInstanceUID=f"1.{study}.{series}",
                    StudyDate=date,
                    Modality=modality,
                    InstanceNumber=str(number),
                )
    assert run(["import", str(directory / "in"), "-s", str(directory / "archive"), "-q"]) == 0
    made = Node(directory, "--peer", f"DEST@127.0.0.1:{destination}")
    made.start()
    yield made
    made.stop()


def address(node: Node) -> str:
    return f"{node.ae_title}@127.0.0.1:{node.address.port}"


def uids(directory: Path) -> set[str]:
    return {path.name.removesuffix(".dcm") for path in directory.rglob("*.dcm")}


@pytest.mark.parametrize(
    ("keys", "options", "expected"),
    [
        pytest.param(
            ["Modality=CT", "StudyDate=20260101-20260131"],
            [],
            {"1.0.0.0", "1.0.0.1", "1.2.0.0", "1.2.0.1"},
            id="CT series of studies in a month",
        ),
        pytest.param(
            ["Modality=CT", "StudyDate=20260201-"],
            ["--level", "STUDY"],
            {"1.1.0.0", "1.1.0.1", "1.1.1.0", "1.1.1.1"},
            id="studies with a CT series",
        ),
        pytest.param(["PatientID=P2", "StudyDate=-20251231"], [], {"1.3.0.0", "1.3.0.1"}, id="old"),
        pytest.param(
            ["StudyInstanceUID=1.0", "Modality=MR"], [], {"1.0.1.0", "1.0.1.1"}, id="one series"
        ),
        pytest.param(["StudyInstanceUID=1.0", "InstanceNumber=1"], [], {"1.0.0.1", "1.0.1.1"}, id="images"),
        pytest.param(
            ["PatientID=P1", "Modality=MR", "StudyDate=20260206"],
            ["-P"],
            {"1.1.1.0", "1.1.1.1"},
            id="patient root",
        ),
    ],
)  # fmt: skip
def test_get_finds_first_what_it_cannot_name(
    node: Node, netdicom: Netdicom, keys: list[str], options: list[str], expected: set[str]
) -> None:
    written = [word for key in keys for word in ("-k", key)]
    done = netdicom("get", address(node), *written, *options, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert uids(netdicom.directory) == expected


def test_get_tells_each_retrieval_in_json(node: Node, netdicom: Netdicom) -> None:
    done = netdicom("get", address(node), "-k", "Modality=CT", "-o", "out", "--json")
    *files, end = map(json.loads, done.stdout.splitlines())
    assert len(files) == end["kept"] == end["completed"] == 6
    assert end["found"] == 3
    assert {each["SeriesInstanceUID"] for each in end["retrievals"]} == {"1.0.0", "1.1.0", "1.2.0"}
    assert {each["status"] for each in end["retrievals"]} == {"0000"}


def test_nothing_found_is_a_code_of_its_own(node: Node, netdicom: Netdicom) -> None:
    for command in (["get"], ["move", "--to", "DEST"]):
        done = netdicom(*command, address(node), "-k", "StudyDate=19990101")
        assert done.returncode == 10
        assert "C-FIND found no studies" in done.stderr
        assert three_lines(done.stderr)


def test_a_value_that_does_not_fit_is_told(node: Node, netdicom: Netdicom) -> None:
    done = netdicom("get", address(node), "-k", "StudyDate=2025*", "-o", "out")
    assert done.returncode == 2
    assert three_lines(done.stderr)


def test_more_than_the_limit_retrieves_nothing(node: Node, netdicom: Netdicom) -> None:
    done = netdicom("get", address(node), "-k", "StudyDate=20000101-", "--limit", 3, "-o", "out")
    assert done.returncode == 2
    assert "more than 3 studies match" in done.stderr
    assert not uids(netdicom.directory)


def test_move_sends_each_study_that_was_found(
    node: Node, netdicom: Netdicom, destination: int
) -> None:
    keys = ("-k", "PatientID=P1", "-k", "StudyDate=20260101-")
    done = netdicom(
        *("move", address(node), *keys, "--to", "DEST"),
        *(f"--receive=127.0.0.1:{destination}", "-o", "out"),
    )
    assert done.returncode == 0, done.stderr
    assert len(uids(netdicom.directory)) == 8
    assert "2 of 2 studies: 8 instances" in done.stderr


def test_a_destination_that_does_not_answer_fails_each_of_them(
    node: Node, netdicom: Netdicom
) -> None:
    done = netdicom("move", address(node), "-k", "PatientID=P1", "--to", "DEST", "--json")
    assert done.returncode in (1, 8), done.stderr
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["found"] == 2
    assert end["completed"] == 0
