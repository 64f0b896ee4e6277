"""The programs of README.md and of the pages under docs/, run as they stand."""

import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.measuring import variables
from support.processes import eventually

ROOT = Path(__file__).resolve().parent.parent
_EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def examples(page: Path) -> dict[str, str]:
    """The programs of a page that have a name."""
    return dict(_EXAMPLE.findall(page.read_text()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether somebody listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with the README's programs in it."""
    for name, text in examples(ROOT / "README.md").items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.slow
def test_the_programs_of_the_readme_are_short_and_work_with_each_other(programs: Path) -> None:
    """The SCU of the README stores a CT at its SCP."""
    for name, lines in (("scu.py", 6), ("scp.py", 8)):
        text = (programs / name).read_text()
        assert len(text.splitlines()) <= lines
        assert not re.search(r"\d+\.\d+\.\d+\.\d+\.\d+", text), "a UID is a constant"
    port = str(free_port())
    with subprocess.Popen(
        [sys.executable, "scp.py", f"tcp:{port}:interface=127.0.0.1"],
        cwd=programs,
        env={"PYTHONPATH": str(ROOT), "PATH": "", **variables()},
    ) as scp:
        try:
            eventually(lambda: accepts(int(port)), "the SCP listens")
            image = get_testdata_file("CT_small.dcm")
            scu = subprocess.run(
                [sys.executable, "scu.py", f"RECEIVER@127.0.0.1:{port}", str(image)],
                cwd=programs,
                env={"PYTHONPATH": str(ROOT), "PATH": "", **variables()},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (scu.stdout, scu.stderr) == ("Success (0x0000)\nSuccess (0x0000)\n", "")
        finally:
            scp.kill()
    received = dcmread(programs / "received.dcm")
    sent = dcmread(str(image))
    assert received.SOPInstanceUID == sent.SOPInstanceUID
    assert received.PixelData == sent.PixelData


def test_the_readme_has_exactly_two_set_up_commands() -> None:
    """One installs and starts the node, one installs and runs the tests."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [len(block.strip().splitlines()) for block in blocks] == [1, 1]
    assert "twistd -n dicom" in blocks[0]
    assert "pytest" in blocks[1]


class Helper:
    """A process that serves something until the test is over."""

    def __init__(self, cwd: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env={"PYTHONPATH": str(ROOT), "PATH": "", **variables()},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


PACS = """
import sys
import urllib.request
from collections.abc import Iterator
from pydicom.dataset import Dataset
from twisted.internet import defer, task
from netdicom_tx import AE, verification_scp
from netdicom_tx.sopclass import qr_find_scp

class Pacs(AE):
    def on_receive_find(self, ctx, ds):
        for number in range(3):
            match = Dataset()
            match.QueryRetrieveLevel = "STUDY"
            match.StudyInstanceUID = f"1.2.{number}"
            match.PatientName = f"{ds.PatientID}^{number}"
            yield match

async def main(reactor):
    ae = Pacs("PACS").add_scp(qr_find_scp).add_scp(verification_scp)
    port = await ae.listen("tcp:0:interface=127.0.0.1")
    print(port.getHost().port, flush=True)
    await defer.Deferred()

task.react(main)
"""


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[str]:
    """The port of an SCP that verifies and finds."""
    (tmp_path / "pacs.py").write_text(PACS)
    with Helper(tmp_path, "pacs.py") as helper:
        yield helper.first_line.strip()


@pytest.mark.slow
def test_an_scu_is_driven_from_asyncio(tmp_path: Path, pacs: str) -> None:
    """The program of docs/howto/asyncio.md, on the asyncio reactor."""
    for name, text in examples(ROOT / "docs/howto/asyncio.md").items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "from_asyncio.py", pacs],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", **variables()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("Success (0x0000)\n" * 3, "")


@pytest.mark.slow
def test_a_web_resource_queries_a_pacs_and_streams_the_answer(tmp_path: Path, pacs: str) -> None:
    """The program of docs/howto/web.md: a line of JSON for each match."""
    for name, text in examples(ROOT / "docs/howto/web.md").items():
        (tmp_path / name).write_text(text)
    port = str(free_port())
    with Helper(tmp_path, "web.py", pacs, port) as web:
        assert web.first_line == "serving\n"
        for patient in ("P1", "P2"):  # the second is asked on the association of the first
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/?patient={patient}") as answer:
                lines = [json.loads(line) for line in answer]
            assert lines == [
                {"study": f"1.2.{number}", "patient": f"{patient}^{number}"} for number in range(3)
            ]
