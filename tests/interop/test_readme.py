"""The table of README.md: the same jobs with ``netdicom`` and with DCMTK's tools, run in order."""

import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.node import Node, settled
from support.part10 import by_instance
from support.processes import Process, free_port, program
from support.shell import ROOT, environment, put_commands
from support.strict import assert_clean

pytestmark = [pytest.mark.interop, pytest.mark.slow]

# The study and the patient that the commands of the table name.
STUDY, PATIENT = "1.2.3", "DOE^JANE"
# Where the two retrieving commands leave the files.
RETRIEVED = {"netdicom": "study/**/*.dcm", "DCMTK": "??.1.*"}


def table() -> list[dict[str, str]]:
    """The rows: the job, and the command of each program, without the Markdown."""
    text = (ROOT / "README.md").read_text("utf-8")
    _, _, begun = text.partition("| to | netdicom | DCMTK |\n|---|---|---|\n")
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in begun.partition("\n\n")[0].splitlines()
    ]
    return [dict(zip(("job", "netdicom", "DCMTK"), row, strict=True)) for row in rows]


def of_set_up() -> list[str]:
    """The options that the set-up command gives the node."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"^python3 -m venv .*twistd -n dicom (.*)$", text, re.MULTILINE)
    assert found is not None
    return shlex.split(found[1])


def second() -> list[str]:
    """The command of the second node."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"`(netdicom serve --aet SECOND .*?)`", text)
    assert found is not None
    return shlex.split(found[1])


class Nodes:
    """The two nodes of the README, at free ports."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.ports = {port: str(free_port()) for port in ("8042", "11113")}
        self.first = Node(directory, *map(self.here, of_set_up()))
        stack.callback(self.first.stop)
        self.first.start()
        self.ports["11112"] = self.first.address.arguments[1]
        _, *words = map(self.here, second())
        log = directory / "second.log"
        process = Process(log, sys.executable, "-m", "netdicom_tx", *words, PYTHONPATH=str(ROOT))
        stack.callback(process.stop)
        process.ready(lambda: "listening on" in process.text(), "second node")
        self.of_second = directory / "second"

    def here(self, text: str) -> str:
        """The text with our ports."""
        return re.sub(r"\b(8042|11112|11113)\b", lambda found: self.ports[found[0]], text)

    def page(self) -> str:
        """The studies on the status page."""
        with urllib.request.urlopen(self.here("http://127.0.0.1:8042/studies"), timeout=60) as page:
            return str(page.read().decode())


class Shell:
    """A user's shell beside the nodes."""

    def __init__(self, directory: Path, nodes: Nodes) -> None:
        self._directory = directory
        self._nodes = nodes
        (commands := directory / "bin").mkdir()
        put_commands(commands)
        self._environment = environment(commands, directory)

    def type(self, command: str) -> str:
        """Run a command of the README at the nodes of the test; what it says, after a good end."""
        done = subprocess.run(
            ["sh", "-c", self._nodes.here(command)],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        assert_clean(done.stdout)
        return done.stdout


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    (directory := tmp_path / "nodes").mkdir()
    with ExitStack() as stack:
        yield Nodes(directory, stack)


@pytest.fixture
def shell(tmp_path: Path, nodes: Nodes) -> Shell:
    """A shell in a directory with ``images/``: two images of the study and the patient."""
    (here := tmp_path / "here").mkdir()
    (here / "images").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        image = dcmread(str(get_testdata_file(name)))
        image.StudyInstanceUID, image.PatientName, image.PatientID = STUDY, PATIENT, "4711"
        image.save_as(here / "images" / name)
    return Shell(here, nodes)


def test_the_table_has_the_five_jobs() -> None:
    """Each with the command of that program; the tests below find them by their place."""
    assert [row["netdicom"].split()[:2] for row in table()] == [
        ["netdicom", each] for each in ("echo", "store", "find", "get", "move")
    ]
    assert [row["DCMTK"].split()[0] for row in table()] == [
        "echoscu",
        "storescu",
        "findscu",
        "getscu",
        "movescu",
    ]


@pytest.mark.parametrize(
    "columns",
    [("netdicom",), ("DCMTK",), ("DCMTK", "netdicom"), ("netdicom", "DCMTK")],
    ids="-".join,
)
def test_the_table_runs_in_order(
    columns: tuple[str, ...], tmp_path: Path, nodes: Nodes, shell: Shell
) -> None:
    """On a fresh archive: the two images are there, are seen and found, come back, and reach a second node."""
    if "DCMTK" in columns:
        program("storescu")
    here = tmp_path / "here"
    sent = by_instance(here / "images").keys()
    checks: list[Callable[[str, str], bool]] = [
        lambda column, said: column == "DCMTK" or "Success" in said,  # echoscu is silent
        lambda column, said: nodes.first.instances().keys() == sent,
        lambda column, said: PATIENT in said,
        lambda column, said: by_instance(here, RETRIEVED[column]).keys() == sent,
        lambda column, said: settled(nodes.of_second).keys() == sent,
    ]
    for row, holds in zip(table(), checks, strict=True):
        for column in columns:
            said = shell.type(row[column])
            assert holds(column, said), f"$ {row[column]}\n{said}"
    assert "DOE" in nodes.page()
