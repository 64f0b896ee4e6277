"""The pairs of programs of docs/howto/pynetdicom.md: both of a pair do the same job with the same node."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from support.interop.workflow import write_wl
from support.node import Address, Node
from support.part10 import by_instance
from support.processes import Process, accepts_connections, free_port, need_pynetdicom
from support.shell import ROOT
from support.strict import STRICT, assert_clean

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PROGRAMS = ROOT / "docs" / "examples" / "pynetdicom"
JOBS = [
    "echo",
    "store",
    "find",
    "get",
    "move",
    "worklist",
    "commit",
    "perform",
    "receive",
    "answer",
]
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"  # of CT_small.dcm


@pytest.fixture(params=["pynetdicom", "netdicom_tx"])
def library(request: pytest.FixtureRequest) -> str:
    """The library whose programs a test runs."""
    if request.param == "pynetdicom":
        need_pynetdicom()
    return str(request.param)


class Programs:
    """Runs the programs of one library at a peer; ours with warnings as errors."""

    def __init__(self, library: str, directory: Path) -> None:
        self._library = library
        self._directory = directory
        self._environment = {"PYTHONPATH": str(ROOT)}
        if library == "netdicom_tx":
            self._environment |= STRICT

    def path(self, job: str) -> Path:
        return PROGRAMS / f"{job}_{self._library}.py"

    def run(self, job: str, address: Address, *arguments: object) -> list[str]:
        """The lines that a program prints, after a good end."""
        done = self.outcome(job, address, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        if self._library == "netdicom_tx":
            assert_clean(done.stderr)
        return done.stdout.splitlines()

    def outcome(
        self, job: str, address: Address, *arguments: object
    ) -> subprocess.CompletedProcess[str]:
        """What becomes of a program."""
        peer = [f"{address.ae_title}@127.0.0.1:{address.port}"]
        if self._library == "pynetdicom":
            peer = list(address.arguments)
        return subprocess.run(
            [sys.executable, str(self.path(job)), *peer, *map(str, arguments)],
            cwd=self._directory,
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextmanager
    def serving(self, job: str, *arguments: object) -> Iterator[Address]:
        """A program that serves; where it is reached."""
        port = free_port()
        process = Process(
            self._directory / f"{job}.log",
            *(sys.executable, self.path(job), str(port)),
            *map(str, arguments),
            **self._environment,
        )
        process.ready(lambda: accepts_connections(port), f"listening {job}")
        try:
            yield Address("ANY-SCP", port)
            if self._library == "netdicom_tx":
                process.stop()
                assert_clean(process.text())
        finally:
            process.kill()


@pytest.fixture
def programs(library: str, tmp_path: Path) -> Programs:
    """The programs of the library, run in a directory of their own."""
    (directory := tmp_path / "here").mkdir()
    return Programs(library, directory)


def image(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


def uid_of(path: Path) -> str:
    return str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


CT, MR, COMPRESSED = (image(f"{each}.dcm") for each in ("CT_small", "MR_small", "JPEG2000"))


def scheduled(station: str) -> Dataset:
    """A worklist item with a step for a station."""
    step, item = Dataset(), Dataset()
    step.ScheduledStationAETitle, step.Modality = station, station[:2]
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepID = "20261123", "7"
    item.PatientName, item.PatientID, item.StudyInstanceUID = "Doe^Jane", "4711", "1.2.3"
    item.AccessionNumber = f"A-{station}"
    item.ScheduledProcedureStepSequence = [step]
    return item


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the receiver that the archive sends to."""
    return tmp_path_factory.mktemp("moved")


@pytest.fixture(scope="module")
def archive(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A node with one study and two worklist items, for the programs that store nothing there."""
    directory = tmp_path_factory.mktemp("archive")
    for station in ("CT1", "MR1"):
        write_wl(scheduled(station), directory / "worklist" / f"{station}.wl")
    ours = Programs("netdicom_tx", directory)
    with ours.serving("receive", moved) as destination, ExitStack() as stack:
        node = Node(
            directory,
            f"--worklist={directory / 'worklist'}",
            f"--peer=DESTINATION@127.0.0.1:{destination.port}",
        )
        node.start()
        stack.callback(node.stop)
        ours.run("store", node.address, CT)
        yield node.address


def test_each_job_has_both_programs() -> None:
    """And nothing else is there but the data sets of one of the jobs."""
    assert sorted(path.name for path in PROGRAMS.glob("*.py")) == sorted(
        [f"{job}_{library}.py" for job in JOBS for library in ("pynetdicom", "netdicom_tx")]
        + ["step.py"]
    )


def lines_of_code(program: Path) -> int:
    """Lines that are not blank, behind the docstring."""
    text = program.read_text("utf-8")
    docstring = ast.parse(text).body[0]
    return sum(bool(line.strip()) for line in text.splitlines()[docstring.end_lineno or 0 :])


def test_the_page_has_the_programs_and_their_line_counts() -> None:
    """In the order of the jobs."""
    page = (ROOT / "docs" / "howto" / "pynetdicom.md").read_text("utf-8")
    told = re.findall(r"^\| \[.+\]\(#.+\) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    pairs = [
        [PROGRAMS / f"{job}_{library}.py" for library in ("pynetdicom", "netdicom_tx")]
        for job in JOBS
    ]
    assert told == [tuple(str(lines_of_code(each)) for each in pair) for pair in pairs]
    shown = re.findall(r"```\{literalinclude\} \.\./examples/pynetdicom/(.+)", page)
    assert shown == [each.name for pair in pairs for each in pair] + ["step.py"]


def test_a_connection_is_verified(programs: Programs, archive: Address) -> None:
    (line,) = programs.run("echo", archive)
    assert "0x0000" in line


def test_a_peer_that_is_not_there_is_a_failure(programs: Programs) -> None:
    assert programs.outcome("echo", Address("NOBODY", free_port())).returncode != 0


def test_files_are_sent(programs: Programs, node: Node) -> None:
    """Each in its transfer syntax."""
    paths = [CT, MR, COMPRESSED]
    lines = programs.run("store", node.address, *paths)
    assert [(line.split()[0], "0x0000" in line) for line in lines] == [
        (str(path), True) for path in paths
    ]
    assert set(node.instances()) == set(map(uid_of, paths))


def test_studies_are_found(programs: Programs, archive: Address) -> None:
    found = programs.run("find", archive, "CompressedSamples^CT*")
    assert found == [f"CompressedSamples^CT1 {STUDY}"]
    assert programs.run("find", archive, "Nobody") == []


def test_a_study_is_retrieved(programs: Programs, archive: Address, tmp_path: Path) -> None:
    (line,) = programs.run("get", archive, STUDY, tmp_path / "got")
    assert line == str(tmp_path / "got" / f"{uid_of(CT)}.dcm")
    assert dcmread(line).PixelData == dcmread(CT).PixelData


def test_a_study_is_moved(programs: Programs, archive: Address, moved: Path) -> None:
    for path in moved.iterdir():
        path.unlink()  # what the program of the other library had sent
    assert programs.run("move", archive, STUDY, "DESTINATION") == ["1 sent, 0 failed"]
    assert set(by_instance(moved)) == {uid_of(CT)}


def test_an_unknown_destination_is_a_failure(programs: Programs, archive: Address) -> None:
    done = programs.outcome("move", archive, STUDY, "ELSEWHERE")
    assert done.returncode != 0
    assert "move destination ELSEWHERE is not known here" in done.stderr


def test_the_worklist_of_a_station_is_read(programs: Programs, archive: Address) -> None:
    assert programs.run("worklist", archive, "CT1") == ["A-CT1 Doe^Jane 20261123"]


def test_stored_files_are_committed(programs: Programs, archive: Address) -> None:
    """What was not stored is not."""
    assert programs.run("commit", archive, CT, MR) == [
        f"committed {uid_of(CT)}",
        f"failed {uid_of(MR)} 0x0112",
    ]


def test_a_procedure_step_is_reported(programs: Programs, archive: Address) -> None:
    lines = programs.run("perform", archive)
    assert ["0x0000" in line for line in lines] == [True, True]


def test_files_are_received(programs: Programs, tmp_path: Path) -> None:
    """By the program of the library, from its own sender."""
    (received := tmp_path / "received").mkdir()
    with programs.serving("receive", received) as address:
        programs.run("echo", address)
        programs.run("store", address, CT, COMPRESSED)
    assert set(by_instance(received)) == {uid_of(CT), uid_of(COMPRESSED)}


def test_queries_are_answered(programs: Programs) -> None:
    with programs.serving("answer") as address:
        assert programs.run("find", address, "Doe*") == ["Doe^Jane 1.2.3", "Doe^John 1.2.4"]
