"""The table of README.md: the same jobs with ``netdicom`` and with DCMTK's tools, run in order."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.node import Node
from support.part10 import by_instance
from support.processes import program
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


class Shell:
    """A user's shell beside the node."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = str(port)
        (commands := directory / "bin").mkdir()
        put_commands(commands)
        self._environment = environment(commands, directory)

    def type(self, command: str) -> str:
        """Run a command of the README at the node of the test; what it says, after a good end."""
        done = subprocess.run(
            ["sh", "-c", command.replace("11112", self._port)],
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
def shell(tmp_path: Path, node: Node) -> Shell:
    """A shell in a directory with ``images/``: two images of the study and the patient."""
    (here := tmp_path / "here").mkdir()
    (here / "images").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        image = dcmread(str(get_testdata_file(name)))
        image.StudyInstanceUID, image.PatientName, image.PatientID = STUDY, PATIENT, "4711"
        image.save_as(here / "images" / name)
    return Shell(here, node.address.port)


def test_the_table_has_the_four_jobs() -> None:
    """Each with the command of that program; the tests below find them by their place."""
    assert [row["netdicom"].split()[:2] for row in table()] == [
        ["netdicom", each] for each in ("echo", "store", "find", "get")
    ]
    assert [row["DCMTK"].split()[0] for row in table()] == [
        "echoscu",
        "storescu",
        "findscu",
        "getscu",
    ]


@pytest.mark.parametrize(
    "columns", [("netdicom",), ("DCMTK",), ("DCMTK", "netdicom")], ids="-".join
)
def test_the_table_runs_in_order(
    columns: tuple[str, ...], tmp_path: Path, node: Node, shell: Shell
) -> None:
    """On a fresh archive: the two images are there, are found, and come back."""
    if "DCMTK" in columns:
        program("storescu")
    here = tmp_path / "here"
    sent = by_instance(here / "images").keys()
    checks: list[Callable[[str, str], bool]] = [
        lambda column, said: column == "DCMTK" or "Success" in said,  # echoscu is silent
        lambda column, said: node.instances().keys() == sent,
        lambda column, said: PATIENT in said,
        lambda column, said: by_instance(here, RETRIEVED[column]).keys() == sent,
    ]
    for row, holds in zip(table(), checks, strict=True):
        for column in columns:
            said = shell.type(row[column])
            assert holds(column, said), f"$ {row[column]}\n{said}"
