"""The programs of README.md and of the pages under docs/, run as they stand."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

ROOT = Path(__file__).resolve().parent.parent
_EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def examples(page: Path) -> dict[str, str]:
    """The programs of a page that have a name."""
    return dict(_EXAMPLE.findall(page.read_text()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with the README's programs in it."""
    for name, text in examples(ROOT / "README.md").items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_programs_of_the_readme_are_short_and_work_with_each_other(programs: Path) -> None:
    """The SCU of the README stores a CT at its SCP."""
    port = str(free_port())
    with subprocess.Popen(
        [sys.executable, "scp.py", port],
        cwd=programs,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        text=True,
    ) as scp:
        try:
            assert scp.stdout is not None
            assert scp.stdout.readline() == "listening\n"
            image = get_testdata_file("CT_small.dcm")
            scu = subprocess.run(
                [sys.executable, "scu.py", port, str(image)],
                cwd=programs,
                env={"PYTHONPATH": str(ROOT), "PATH": ""},
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
