"""``netdicom store`` against a peer of this package."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from support.commands.running import Netdicom, Peer, environment, on_a_terminal, three_lines
from support.processes import eventually, free_port

pytestmark = pytest.mark.slow

STUDY = "StudyInstanceUID=1.2.3"


def test_store_sends_a_directory_and_counts_the_rest(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    (netdicom.directory / "notes.txt").write_text("no DICOM")
    (netdicom.directory / "deep" / "er").mkdir(parents=True)
    (netdicom.directory / "deep" / "er" / "image").write_bytes(
        (instances / "MR_small.dcm").read_bytes()
    )
    done = netdicom("store", peer.address(), instances, ".")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("9 stored, 0 failed, 1 skipped (1 not DICOM)")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["SOP class", "status", "files", "MB"]
    assert {row[0]: row[2] for row in rows[1:]} == {
        "CT Image Storage": "6",
        "MR Image Storage": "2",
        "Secondary Capture Image Storage": "1",
    }
    for path in instances.iterdir():
        sent = dcmread(path)
        assert dcmread(peer.storage / sent.SOPInstanceUID) == sent


def test_store_says_one_document(netdicom: Netdicom, peer: Peer, instances: Path) -> None:
    done = netdicom("store", peer.address("PICKY"), instances, "--json", "-q", "--jobs", 2)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["stored"], document["failed"]) == (4, 4)
    assert sum(each["instances"] for each in document["summary"]) == 8
    assert {each["outcome"] for each in document["summary"]} == {
        "Success (0x0000)",
        "Refused: out of resources (0xA700)",
    }
    assert all("0xA700" in each["reason"] for each in document["failures"])
    assert document["error"]["code"] == 1


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_file_that_ends_the_association_costs_no_other(
    netdicom: Netdicom, peer: Peer, instances: Path, jobs: int
) -> None:
    """PS3.4 C.4.2: the first and the fourth are bad; each has its reason, and the others arrive."""
    done = netdicom("store", peer.address("ALLERGIC"), instances, "--jobs", jobs, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["stored"], document["failed"]) == (6, 2)
    failures = {Path(each["file"]).name: each for each in document["failures"]}
    assert set(failures) == {"ct0.dcm", "ct3.dcm"}
    for each in failures.values():
        assert each["code"] == 6
        assert "ended the association" in each["reason"]


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--json"]])
def test_nothing_to_send_is_not_a_success(
    netdicom: Netdicom, instances: Path, more: list[str]
) -> None:
    """Exit code 10: a directory without DICOM is a mistake more often than not."""
    (netdicom.directory / "notes.txt").write_text("no DICOM")
    done = netdicom("store", "NOBODY@127.0.0.1:1", ".", *more)
    assert done.returncode == 10
    assert three_lines(done.stderr)
    assert "nothing to send" in done.stderr
    if "--json" in more:
        assert json.loads(done.stdout)["error"]["code"] == 10


@pytest.mark.parametrize(
    ("title", "code"), [("FULL", 8), ("STRICT", 4), ("ABORTING", 6), ("SILENT", 7)]
)
def test_store_that_cannot_succeed_has_the_code_of_the_reason(
    netdicom: Netdicom, peer: Peer, instances: Path, title: str, code: int
) -> None:
    done = netdicom("store", peer.address(title), instances, "-ta", 0.5, "--json", within=15)
    assert done.returncode == code
    document = json.loads(done.stdout)
    assert (document["stored"], document["failed"]) == (0, 8)
    assert document["error"]["code"] == code
    assert three_lines(done.stderr)


def test_store_goes_on_after_a_failure_unless_told_otherwise(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    done = netdicom("store", peer.address("FULL"), instances, "--fail-fast", "--json")
    document = json.loads(done.stdout)
    assert document["failed"] < 8
    assert done.returncode == 8


def test_files_of_a_directory_that_cannot_be_sent_are_failures(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    """Told, counted, and the others are sent."""
    whole = (instances / "MR_small.dcm").read_bytes()
    directory = netdicom.directory / "images"
    directory.mkdir()
    (directory / "1.dcm").write_bytes(
        whole.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI", 1)
    )
    (directory / "2.dcm").write_bytes(whole[:180])
    (directory / "3.dcm").write_bytes(whole)
    done = netdicom("store", peer.address(), "images")
    assert done.returncode == 1
    assert "failed: images/1.dcm: the file header has no Transfer Syntax UID" in done.stderr
    assert "failed: images/2.dcm:" in done.stderr
    assert "1 stored, 2 failed" in done.stderr


def test_a_reason_is_told_once_with_its_count(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    """Each file has a line with -v."""
    done = netdicom("store", peer.address("FULL"), instances)
    told = [each for each in done.stderr.splitlines() if each.startswith("failed: ")]
    assert len(told) == 1
    assert told[0].startswith("failed: 8 files, the first is ")
    assert "0xA700" in told[0]
    done = netdicom("store", peer.address("FULL"), instances, "-v")
    told = [each for each in done.stderr.splitlines() if each.startswith("failed: ")]
    assert len(told) == 8
    done = netdicom("store", peer.address("NOSTORE"), instances)
    told = [each for each in done.stderr.splitlines() if each.startswith("failed: ")]
    assert len(told) < 8
    assert len(told) == len(set(told))


def test_a_pipe_is_refused_at_once(netdicom: Netdicom, peer: Peer) -> None:
    os.mkfifo(netdicom.directory / "pipe")
    done = netdicom("store", peer.address(), "pipe", within=30)
    assert done.returncode == 2
    assert "pipe cannot be sent" in done.stderr
    assert "it is not a regular file" in done.stderr


def test_a_rehearsal_tells_what_cannot_be_sent(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    directory = netdicom.directory / "images"
    directory.mkdir()
    (directory / "1.dcm").write_bytes((instances / "MR_small.dcm").read_bytes())
    (directory / "2.dcm").write_bytes((instances / "MR_small.dcm").read_bytes()[:180])
    done = netdicom("store", peer.address(), "images", "--dry-run")
    assert done.returncode == 1
    assert "1 of 2 files cannot be sent" in done.stderr
    assert "the others would be sent; nothing was sent now" in done.stderr


def test_many_reasons_are_cut_short(netdicom: Netdicom, peer: Peer, tmp_path: Path) -> None:
    """A broken disk may have one for each file."""
    directory = netdicom.directory / "images"
    directory.mkdir()
    head = bytes(128) + b"DICM"
    for number in range(12):
        (directory / f"{number:02}.dcm").write_bytes(
            head + b"\x02\x00\x00\x00UL\x04\x00" + bytes([number]) * number
        )
    done = netdicom("store", peer.address(), "images", "--dry-run")
    told = [each for each in done.stderr.splitlines() if each.startswith("failed: ")]
    assert 1 <= len(told) <= 11


def test_bad_input_sends_nothing(netdicom: Netdicom, peer: Peer, instances: Path) -> None:
    """Not even the association is opened."""
    before = peer.log
    (netdicom.directory / "text").write_text("no DICOM")
    done = netdicom("store", peer.address(), instances, "text")
    assert (done.returncode, done.stdout) == (2, "")
    assert peer.log == before


def test_a_dry_run_calls_nobody(netdicom: Netdicom, instances: Path) -> None:
    done = netdicom("store", f"127.0.0.1:{free_port()}", instances, "--dry-run")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 8
    assert "JPEG 2000" in done.stdout


def test_resume_sends_only_what_was_not_acknowledged(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    """The first run has every second one refused; the second run sends the others."""
    first = netdicom("store", peer.address("PICKY"), instances, "--resume", "journal", "--json")
    assert first.returncode == 1
    stored = json.loads(first.stdout)["stored"]
    assert 0 < stored < 8
    second = netdicom(*("store", peer.address("PICKY"), instances, "--resume", "journal", "--json"))
    document = json.loads(second.stdout)
    assert document["skipped"]["acknowledged_before"] == stored
    assert document["stored"] + document["failed"] == 8 - stored
    other = netdicom("store", peer.address(), instances, "--resume", "journal")
    assert other.returncode == 2


def test_a_peer_that_dies_leaves_a_journal_to_resume(
    netdicom: Netdicom, start_peer: Callable[[], Peer], instances: Path
) -> None:
    """Exit code 6; what it had acknowledged is noted, and nothing else."""
    peer = start_peer()
    done = netdicom("store", peer.address("DYING"), instances, "--resume", "journal", "--json")
    assert done.returncode == 6, done.stderr
    assert json.loads(done.stdout)["stored"] == 2
    noted = (netdicom.directory / "journal").read_text().splitlines()[1:]
    assert {json.loads(line)["sop_instance_uid"] for line in noted} == {
        path.name for path in peer.storage.iterdir()
    }


def test_ctrl_c_lets_what_is_on_its_way_end(
    netdicom: Netdicom, start_peer: Callable[[], Peer], instances: Path
) -> None:
    """A-RELEASE, a summary, exit code 130; what was acknowledged is in the journal."""
    peer = start_peer()
    many = netdicom.directory / "many"
    many.mkdir()
    for number in range(3000):
        os.link(instances / "MR_small.dcm", many / f"{number}.dcm")
    with netdicom.start("store", peer.address(), many, "--resume", "journal", "--json") as run:
        journal = netdicom.directory / "journal"
        eventually(
            lambda: journal.exists() and journal.read_text().count("\n") > 20, "twenty acknowledged"
        )
        run.interrupt()
        code, out, err = run.end()
    assert code == 130, err
    document = json.loads(out)
    assert 20 <= document["stored"] < 3000
    assert document["failed"] == 0
    assert journal.read_text().count("\n") == document["stored"] + 1
    eventually(lambda: "end AssociationReleasedError" in peer.log, "release at the peer")


def test_on_a_terminal_store_shows_how_far_it_is(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    variables = {**environment(netdicom.directory), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "netdicom_tx", "store", peer.address(), str(instances)]
    code, seen = on_a_terminal(command, netdicom.directory, variables)
    assert code == 0
    assert "8/8 files" in seen
    assert "8 stored, 0 failed" in seen


def test_a_refused_instance_is_counted_on_both_sides(netdicom: Netdicom, instances: Path) -> None:
    """Its UID cannot be the name of a file (0xA900)."""
    whole = (instances / "ct0.dcm").read_bytes()
    (netdicom.directory / "bad.dcm").write_bytes(whole.replace(b"1.2.3.0", b"1..3./0"))
    with netdicom.start("receive", "--listen", "127.0.0.1:0", "-o", "inbox") as run:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", run.stderr.readline())[1])
        done = netdicom("store", f"127.0.0.1:{port}", "bad.dcm", instances / "ct1.dcm")
        assert "1 instance, 1 refused" in run.stdout.readline()
    assert done.returncode == 1
    assert "0xA900" in done.stderr
