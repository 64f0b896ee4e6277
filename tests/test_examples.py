"""The programs of docs/examples, which the pages show, do what the pages say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*arguments: str) -> str:
    """Run Python to a good end, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=EXAMPLES,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def store_scp(directory: Path) -> Iterator[str]:
    """The SCP of the examples on a free port; its endpoint, for SCUs."""
    with subprocess.Popen(
        [sys.executable, "store_scp.py", str(directory), "tcp:0:interface=127.0.0.1"],
        cwd=EXAMPLES,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            _, _, port = process.stdout.readline().strip(")\n").rpartition("port=")
            yield f"tcp:127.0.0.1:{port}"
        finally:
            process.kill()


def test_the_scus_are_served_by_the_scp(tmp_path: Path) -> None:
    """Compressed images too: their contexts follow from the files."""
    names = ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"]
    images = [str(get_testdata_file(name)) for name in names]
    with store_scp(tmp_path) as endpoint:
        assert run("echo_scu.py", endpoint) == "Success (0x0000)\n"
        told = run("store_scu.py", endpoint, *images)
    assert sorted(told.splitlines()) == sorted(f"{image} Success (0x0000)" for image in images)
    kept = {dcmread(path).SOPInstanceUID for path in tmp_path.glob("*/*.dcm")}
    assert kept == {dcmread(image).SOPInstanceUID for image in images}


def test_a_file_that_is_no_instance_is_said_and_the_others_go_out(tmp_path: Path) -> None:
    text, image = str(ROOT / "LICENSE"), str(get_testdata_file("CT_small.dcm"))
    with store_scp(tmp_path) as endpoint:
        told = run("store_scu.py", endpoint, text, image)
    assert f"{text} no DICOM file" in told
    assert f"{image} Success (0x0000)" in told


def test_the_application_file_has_both_entities() -> None:
    program = """
import runpy
from twisted.application.service import IServiceCollection
application = runpy.run_path("node.tac")["application"]
print(*(service.ae.ae_title for service in IServiceCollection(application)))
"""
    assert run("-c", program) == "FIRST SECOND\n"


def test_the_tests_of_the_examples_pass(tmp_path: Path) -> None:
    """As a reader would run them, without the settings of this project."""
    told = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull),
        *("--rootdir", str(tmp_path), "--basetemp", str(tmp_path / "temp"), "."),
    )
    assert "3 passed" in told
