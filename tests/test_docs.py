"""The programs of README.md and of the pages under docs/, run as they stand."""

import json
import re
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.measuring import variables
from support.processes import eventually
from support.sockets import full_listener
from support.strict import STRICT, Serving

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": "", **variables()}
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


def run(directory: Path, *arguments: str) -> str:
    """What a program prints that says nothing on stderr."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**ENVIRONMENT, **STRICT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


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
    image = get_testdata_file("CT_small.dcm")
    with Serving(programs, ENVIRONMENT, "scp.py", f"tcp:{port}:interface=127.0.0.1"):
        eventually(lambda: accepts(int(port)), "the SCP listens")
        said = run(programs, "scu.py", f"RECEIVER@127.0.0.1:{port}", str(image))
    assert said == "Success (0x0000)\nSuccess (0x0000)\n"
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


PACS = """
import sys
from itertools import count
from pydicom.dataset import Dataset
from twisted.internet import defer, task
from netdicom_tx import AE, verification_scp
from netdicom_tx.sopclass import qr_find_scp

class Pacs(AE):
    async def on_receive_find(self, ctx, ds):
        try:
            if ds.PatientID == "LATE":
                print("asked", flush=True)
                await defer.Deferred()
            for number in count() if ds.PatientID == "MANY" else range(3):
                match = Dataset()
                match.QueryRetrieveLevel = "STUDY"
                match.StudyInstanceUID = f"1.2.{number}"
                match.PatientName = f"{ds.PatientID}^{number}"
                yield match
        finally:
            print("ended", flush=True)

async def main(reactor):
    ae = Pacs("PACS").add_scp(qr_find_scp).add_scp(verification_scp)
    port = await ae.listen("tcp:0:interface=127.0.0.1")
    print(port.getHost().port, flush=True)
    await defer.Deferred()

task.react(main)
"""


class Pacs(NamedTuple):
    """An SCP that verifies and finds.

    Attributes:
        port: Where it listens.
        output: What it prints of its queries.
    """

    port: str
    output: IO[str]


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    (tmp_path / "pacs.py").write_text(PACS)
    with Serving(tmp_path, ENVIRONMENT, "pacs.py") as program:
        yield Pacs(program.output.readline().strip(), program.output)


@pytest.mark.slow
def test_an_scu_is_driven_from_asyncio(tmp_path: Path, pacs: Pacs) -> None:
    """The program of docs/howto/asyncio.md, on the asyncio reactor."""
    for name, text in examples(ROOT / "docs/howto/asyncio.md").items():
        (tmp_path / name).write_text(text)
    assert run(tmp_path, "from_asyncio.py", pacs.port) == "Success (0x0000)\n" * 3


class Web:
    """The program of docs/howto/web.md."""

    def __init__(self, port: str) -> None:
        self.port = int(port)

    def ask(self, patient: str) -> list[dict[str, str]]:
        """The lines of an answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/?patient={patient}") as answer:
            return [json.loads(line) for line in answer]

    def browser(self, patient: str) -> socket.socket:
        """Somebody who has asked, and has read nothing yet."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(f"GET /?patient={patient} HTTP/1.1\r\nHost: web\r\n\r\n".encode())
        return connection


@contextmanager
def web(directory: Path, pacs_port: str) -> Iterator[Web]:
    """The program, as it runs."""
    for name, text in examples(ROOT / "docs/howto/web.md").items():
        (directory / name).write_text(text)
    port = str(free_port())
    with Serving(directory, ENVIRONMENT, "web.py", pacs_port, port) as program:
        assert program.output.readline() == "serving\n"
        yield Web(port)


def matches(patient: str) -> list[dict[str, str]]:
    return [{"study": f"1.2.{number}", "patient": f"{patient}^{number}"} for number in range(3)]


@pytest.mark.slow
def test_a_web_resource_queries_a_pacs_and_streams_the_answer(tmp_path: Path, pacs: Pacs) -> None:
    """A line of JSON for each match."""
    with web(tmp_path, pacs.port) as site:
        for patient in ("P1", "P2"):  # the second is asked on the association of the first
            assert site.ask(patient) == matches(patient)


@pytest.mark.slow
def test_a_browser_that_goes_away_ends_the_query(tmp_path: Path, pacs: Pacs) -> None:
    """In the middle of the answer, or before it has begun; the next one is answered."""
    with web(tmp_path, pacs.port) as site:
        with site.browser("MANY") as browser:
            assert browser.recv(1000)
        assert pacs.output.readline() == "ended\n"
        with site.browser("LATE"):
            assert pacs.output.readline() == "asked\n"
        assert pacs.output.readline() == "ended\n"
        assert site.ask("P1") == matches("P1")


@pytest.mark.slow
def test_a_browser_that_goes_away_ends_the_request_for_an_association(tmp_path: Path) -> None:
    """Before the PACS has answered."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        web(tmp_path, str(silent.getsockname()[1])) as site,
    ):
        silent.settimeout(60)
        with site.browser("P1"):
            connection, _ = silent.accept()
            connection.settimeout(60)
            stream = connection.makefile("rb")
            assert pdu_type(stream) == 0x01  # A-ASSOCIATE-RQ
        with connection, stream:
            assert pdu_type(stream) == 0x07  # A-ABORT


@pytest.mark.slow
def test_a_browser_that_goes_away_ends_the_attempt_to_connect(tmp_path: Path) -> None:
    """The backlog of the PACS is full; "Unhandled error in Deferred" on stderr would fail the test."""
    with full_listener() as pacs, web(tmp_path, str(pacs.port)) as site:
        with site.browser("P1"):
            eventually(pacs.attempts, "call of the PACS")
        eventually(lambda: not pacs.attempts(), "end of the call")


def pdu_type(stream: IO[bytes]) -> int:
    """The type of the next PDU, which is read to its end."""
    kind, _, length = struct.unpack(">BBI", stream.read(6))
    stream.read(length)
    return int(kind)
