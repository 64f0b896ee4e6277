"""The programs of docs/examples, which the pages show, do what the pages say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import trustme
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.processes import accepts_connections, eventually, free_port
from support.strict import STRICT, Serving, assert_clean

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
# The options that were given to these tests, for example that coverage is to be measured.
ENVIRONMENT.pop("PYTEST_ADDOPTS", None)


def run(*arguments: str) -> str:
    """Run Python to a good end, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=EXAMPLES,
        env={**ENVIRONMENT, **STRICT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert_clean(done.stdout)
    return done.stdout


@contextmanager
def serving(program: str, *arguments: str) -> Iterator[tuple[str, IO[str]]]:
    """A program of the examples on a free port: its endpoint, for SCUs, and what it says later."""
    with Serving(
        EXAMPLES, ENVIRONMENT, program, *arguments, "tcp:0:interface=127.0.0.1"
    ) as process:
        _, _, port = process.output.readline().strip(")\n").rpartition("port=")
        yield f"tcp:127.0.0.1:{port}", process.output


def test_the_scus_are_served_by_the_scp(tmp_path: Path) -> None:
    """Compressed images too: their contexts follow from the files."""
    names = ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"]
    images = [str(get_testdata_file(name)) for name in names]
    with serving("store_scp.py", str(tmp_path)) as (endpoint, _):
        assert run("echo_scu.py", endpoint) == "Success (0x0000)\n"
        told = run("store_scu.py", endpoint, *images)
    assert sorted(told.splitlines()) == sorted(f"{image} Success (0x0000)" for image in images)
    kept = {dcmread(path).SOPInstanceUID for path in tmp_path.glob("*/*.dcm")}
    assert kept == {dcmread(image).SOPInstanceUID for image in images}


def test_a_file_that_is_no_instance_is_said_and_the_others_go_out(tmp_path: Path) -> None:
    text, image = str(ROOT / "LICENSE"), str(get_testdata_file("CT_small.dcm"))
    with serving("store_scp.py", str(tmp_path)) as (endpoint, _):
        told = run("store_scu.py", endpoint, text, image)
    assert f"{text} the file is not a DICOM file" in told
    assert f"{image} Success (0x0000)" in told


def test_an_scp_that_watches_its_associations_tells_of_them() -> None:
    with serving("watch.py") as (endpoint, output):
        run("echo_scu.py", endpoint)
        accepted, ended = output.readline(), output.readline()
    assert accepted.endswith(" at 127.0.0.1\n")
    assert accepted.startswith("accepted ")
    assert "{'C-ECHO': 1}" in ended
    assert " bytes in, " in ended


def test_the_application_file_serves_both_entities(tmp_path: Path) -> None:
    """As it stands, but for the ports."""
    text = (EXAMPLES / "node.tac").read_text("utf-8")
    ports = {port: free_port() for port in ("11112", "11113")}
    for port, ours in ports.items():
        text = text.replace(port, f"{ours}")
    (tmp_path / "node.tac").write_text(text.replace("tcp:{port}", "tcp:{port}:interface=127.0.0.1"))
    twistd = str(Path(sys.executable).with_name("twistd"))
    with Serving(tmp_path, ENVIRONMENT, twistd, "--pidfile=", "-n", "-y", "node.tac"):
        for title, port in zip(("FIRST", "SECOND"), ports.values(), strict=True):
            eventually(lambda port=port: accepts_connections(port), f"listening {title}")
            assert run("echo_scu.py", f"{title}@127.0.0.1:{port}") == "Success (0x0000)\n"


def test_the_tests_of_the_examples_pass(tmp_path: Path) -> None:
    """As a reader would run them, without the settings of this project."""
    told = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull),
        *("--rootdir", str(tmp_path), "--basetemp", str(tmp_path / "temp"), "."),
    )
    assert "9 passed" in told


def image(name: str) -> str:
    return str(get_testdata_file(name))


def found_and_got(endpoint: str, patient: str, directory: Path) -> list[str]:
    """What query.py says; what it got is in the directory."""
    directory.mkdir(exist_ok=True)
    return run("query.py", endpoint, patient, str(directory)).splitlines()


def test_an_archive_with_a_hook_tells_what_it_keeps(tmp_path: Path) -> None:
    ct = dcmread(image("CT_small.dcm"))
    with serving("archive_hook.py", str(tmp_path / "archive")) as (endpoint, output):
        run("store_scu.py", endpoint, image("CT_small.dcm"), image("JPEG2000.dcm"))
        assert output.readline() == f"kept {ct.SOPInstanceUID}\n"
        told = found_and_got(endpoint, "1CT1", tmp_path / "got")
    assert told == [
        f"found {ct.PatientName} {ct.StudyInstanceUID}",
        f"saved {ct.SOPInstanceUID}",
    ]
    (copy,) = (tmp_path / "got").iterdir()
    assert dcmread(copy).PixelData == ct.PixelData


def test_an_archive_with_a_hook_refuses_what_the_hook_refuses(tmp_path: Path) -> None:
    document = dcmread(image("CT_small.dcm"))
    document.SOPClassUID = document.file_meta.MediaStorageSOPClassUID = (
        "1.2.840.10008.5.1.4.1.1.104.1"
    )
    document.save_as(tmp_path / "document.dcm")
    with serving("archive_hook.py", str(tmp_path / "archive")) as (endpoint, _):
        told = run("store_scu.py", endpoint, str(tmp_path / "document.dcm"))
    assert "0x0124): no PDF documents here" in told


def test_an_archive_with_a_store_of_its_own_has_two_copies(tmp_path: Path) -> None:
    """The second is there when Success has been answered."""
    (tmp_path / "second").mkdir()
    places = str(tmp_path / "archive"), str(tmp_path / "second")
    with serving("archive_store.py", *places) as (endpoint, _):
        for _ in range(2):  # the same once more
            told = run("store_scu.py", endpoint, image("CT_small.dcm"))
            assert told == f"{image('CT_small.dcm')} Success (0x0000)\n"
        (copy,) = (tmp_path / "second").iterdir()
        (first,) = (tmp_path / "archive" / "instances").glob("*/*.dcm")
        assert copy.read_bytes() == first.read_bytes()


def test_an_archive_with_an_index_of_its_own_answers_from_it(tmp_path: Path) -> None:
    """Also after a restart."""
    ct = dcmread(image("CT_small.dcm"))
    answer = [
        f"found {ct.PatientName} {ct.StudyInstanceUID}",
        f"saved {ct.SOPInstanceUID}",
    ]
    directory = str(tmp_path / "archive")
    with serving("archive_index.py", directory) as (endpoint, _):
        run("store_scu.py", endpoint, image("CT_small.dcm"), image("MR_small.dcm"))
        assert found_and_got(endpoint, "1CT1", tmp_path / "got") == answer
        assert found_and_got(endpoint, "NOBODY", tmp_path / "got") == []
    with serving("archive_index.py", directory) as (endpoint, _):
        assert found_and_got(endpoint, "1CT1", tmp_path / "again") == answer


def test_tls_is_spoken_with_certificates_on_both_sides(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("server", "client"):
        certificate = authority.issue_cert(f"{name}.example")
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    server, client, ca = (str(tmp_path / f"{name}.pem") for name in ("server", "client", "ca"))
    with serving("tls_scp.py", server, ca) as (endpoint, _):
        told = run("tls_scu.py", endpoint, client, ca, "server.example")
    assert told == "Success (0x0000)\n"
