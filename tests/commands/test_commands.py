"""The commands against a peer of this package, each in a process of its own."""

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from interop.peers import eventually, free_port
from pydicom import dcmread
from pydicom.dataset import Dataset

from .running import Netdicom, Peer, environment, on_a_terminal

pytestmark = pytest.mark.slow

STUDY = "StudyInstanceUID=1.2.3"


def three_lines(err: str) -> bool:
    """Whether the last of what was said is an error in its form."""
    heads = [line[:7] for line in err.splitlines()[-3:]]
    return heads == ["error: ", "       ", "hint:  "]


# -- echo -----------------------------------------------------------------------------------------------


def test_echo_says_how_long_it_took_and_who_answered(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("echo", peer.address())
    assert (done.returncode, done.stderr) == (0, "")
    head, row = (line.split("\t") for line in done.stdout.splitlines())
    answer = dict(zip(head, row, strict=True))
    assert answer["peer"] == peer.address()
    assert answer["status"] == "Success (0x0000)"
    assert float(answer["ms"]) > 0
    assert "NETDICOM_TX" in answer["implementation"]


def test_echo_asks_several_peers_at_once(netdicom: Netdicom, peer: Peer) -> None:
    """Exit code 1: one of them was not there."""
    done = netdicom(
        *("echo", peer.address(), f"127.0.0.1:{free_port()}", peer.address("OTHER")),
        *("-n", 2, "--interval", 0.01, "--json"),
    )
    assert done.returncode == 1
    one, two, three = json.loads(done.stdout)
    assert len(one["milliseconds"]) == len(three["milliseconds"]) == 2
    assert two["error"]["code"] == 3
    assert three_lines(done.stderr)


def test_echo_that_is_refused_has_its_code(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("echo", peer.address("NOECHO"), "-n", 3)
    assert done.returncode == 8
    assert "0x0122" in done.stderr
    assert three_lines(done.stderr)


def test_ctrl_c_between_two_echoes_says_what_there_was(
    netdicom: Netdicom, start_peer: Callable[[], Peer]
) -> None:
    peer = start_peer()
    with netdicom.start("echo", peer.address(), "-n", 9, "--interval", 60, "--json") as run:
        eventually(lambda: "echo" in peer.log, "C-ECHO")
        run.interrupt()
        code, out, err = run.end()
    assert code == 130, err
    assert len(json.loads(out)["milliseconds"]) == 1
    eventually(lambda: "end AssociationReleasedError" in peer.log, "release at the peer")


def test_ctrl_c_while_nobody_answers_gives_up(
    netdicom: Netdicom, start_peer: Callable[[], Peer]
) -> None:
    """There is no association yet that could be released."""
    peer = start_peer()
    with netdicom.start("find", peer.address("SILENT")) as run:
        eventually(lambda: "association" in peer.log, "association request")
        run.interrupt()
        code, out, err = run.end()
    assert (code, len(out.splitlines())) == (130, 1), err
    assert "Traceback" not in err


def test_a_peer_may_be_a_name_of_the_configuration_file(netdicom: Netdicom, peer: Peer) -> None:
    (netdicom.directory / "netdicom.toml").write_text(
        f'ae_title = "HERE"\n[peers.archive]\naddress = "{peer.address("NAMED")}"\nae_title = "KNOWN"\n'
        f'[peers.other]\naddress = "{peer.address("OTHER")}"\n'
    )
    assert netdicom("echo", "archive", "other").returncode == 0
    assert netdicom("echo", "archive", "-aet", "OPTION", "-aec", "CALLED").returncode == 0
    for said in ("KNOWN NAMED", "HERE OTHER", "OPTION CALLED"):
        assert f"association {said}\n" in peer.log


@pytest.mark.parametrize(
    ("title", "code"), [("STRICT", 4), ("SILENT", 7)], ids=["rejected", "no answer"]
)
def test_an_association_that_does_not_come_about_has_its_code(
    netdicom: Netdicom, peer: Peer, title: str, code: int
) -> None:
    done = netdicom("echo", peer.address(title), "-ta", 0.5, within=15)
    assert (done.returncode, done.stdout) == (code, "")
    assert three_lines(done.stderr)


@pytest.mark.parametrize("command", ["echo", "find", "worklist", "store", "get", "move"])
def test_a_dead_port_has_its_code(netdicom: Netdicom, command: str, instances: Path) -> None:
    more = {
        "store": [instances],
        "get": ["-k", STUDY],
        "move": ["-k", STUDY, "--to", "X"],
    }.get(command, [])
    done = netdicom(command, f"NOBODY@127.0.0.1:{free_port()}", *more)
    assert done.returncode == 3
    assert "nobody listens" in done.stderr
    assert three_lines(done.stderr)


# -- find -----------------------------------------------------------------------------------------------


def test_find_shows_the_keys_as_columns(netdicom: Netdicom, peer: Peer) -> None:
    """What came is on one line each, whatever is in it."""
    done = netdicom(
        *("find", peer.address(), "-k", "PatientName=*", "-r", "StudyDate", "-k", "PatientID")
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "PatientName\tPatientID\tStudyDate",
        "DOE^JOHN\t4711\t20260101",
        "DOE^JANE\t4712\t20260102",
        "山田^太郎\t4713\t20260103",
        "EVIL\\x1b[31m^TAB\\tHERE\t4714\t20260104",
    ]
    assert done.stderr == "4 answers\n"


def test_find_asks_for_the_usual_keys_when_nobody_says_what_to_return(
    netdicom: Netdicom, peer: Peer
) -> None:
    done = netdicom("find", peer.address(), "-k", "PatientID=4711")
    head, row = (line.split("\t") for line in done.stdout.splitlines())
    answer = dict(zip(head, row, strict=True))
    assert (answer["PatientID"], answer["StudyInstanceUID"]) == ("4711", "1.2.4711")
    assert "AccessionNumber" in answer


def test_find_speaks_the_dicom_json_model(netdicom: Netdicom, peer: Peer) -> None:
    """PS3.18 F.2, an answer on each line."""
    done = netdicom("find", peer.address(), "-r", "PatientName", "-r", "PatientID", "--json", "-q")
    assert done.stderr == ""
    answers = [Dataset.from_json(line) for line in done.stdout.splitlines()]
    assert [answer.PatientID for answer in answers] == ["4711", "4712", "4713", "4714"]
    assert answers[2].PatientName == "山田^太郎"


def test_find_writes_csv(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("find", peer.address(), "-r", "PatientName", "-r", "PatientID", "--csv")
    rows = list(csv.reader(done.stdout.splitlines()))
    assert rows[0] == ["PatientName", "PatientID"]
    assert rows[3] == ["山田^太郎", "4713"]
    bare = netdicom("find", peer.address(), "-r", "PatientID", "--csv", "--no-header")
    assert bare.stdout.splitlines()[0] == "4711"


def test_find_stops_at_its_limit(netdicom: Netdicom, peer: Peer) -> None:
    """C-CANCEL, and the association is released in order."""
    ends = peer.log.count("end AssociationReleasedError")
    done = netdicom(
        "find", peer.address(), "-k", "PatientID=many", "-r", "PatientName", "--limit", 5
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 6)
    assert peer.log.count("end AssociationReleasedError") == ends + 1


def test_find_takes_ten_thousand_answers(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom(
        "find", peer.address(), "-k", "PatientID=many", "-r", "PatientName", "--no-header"
    )
    assert done.returncode == 0
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == [
        f"PATIENT^{number}" for number in range(10_000)
    ]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_failure_status_has_its_code(netdicom: Netdicom, peer: Peer, form: list[str]) -> None:
    done = netdicom("find", peer.address(), "-k", "PatientID=refused", *form)
    assert done.returncode == 8
    assert "out of resources (0xA700): no room" in done.stderr
    assert three_lines(done.stderr)
    if form:
        assert json.loads(done.stdout)["error"]["code"] == 8


def test_a_refused_context_has_its_code(netdicom: Netdicom, peer: Peer, instances: Path) -> None:
    done = netdicom("store", peer.address("NOSTORE"), instances)
    assert done.returncode == 5
    assert "abstract syntax not supported" in done.stderr
    assert three_lines(done.stderr)


def test_a_peer_that_dies_in_the_middle_has_its_code(
    netdicom: Netdicom, start_peer: Callable[[], Peer]
) -> None:
    """What had come is shown."""
    done = netdicom("find", start_peer().address(), "-k", "PatientID=die", "-r", "PatientName")
    assert done.returncode == 6
    assert len(done.stdout.splitlines()) == 4
    assert "was lost" in done.stderr
    assert three_lines(done.stderr)


def test_a_peer_that_falls_silent_has_its_code(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom(
        *("find", peer.address(), "-k", "PatientID=slow", "-r", "PatientName", "-td", 0.5),
        within=15,
    )
    assert done.returncode == 7
    assert "-td" in done.stderr
    assert three_lines(done.stderr)


@pytest.mark.parametrize("press", [1, 2])
def test_ctrl_c_cancels_and_twice_aborts(
    netdicom: Netdicom, start_peer: Callable[[], Peer], press: int
) -> None:
    """Once: C-CANCEL (PS3.7 9.3.2.3) and A-RELEASE. Twice: A-ABORT."""
    peer = start_peer()
    with netdicom.start("find", peer.address(), "-k", "PatientID=slow", "-r", "PatientName") as run:
        seen = [run.stdout.readline() for _ in range(4)]
        if press == 2:
            # Nobody there who could answer the C-CANCEL.
            peer.pause()
        run.interrupt()
        assert "once more aborts" in run.stderr.readline()
        if press == 2:
            run.interrupt()
        code, _, err = run.end()
        if press == 2:
            peer.resume()
    assert code == 130
    assert seen[3] == "2\tPATIENT^2\n"
    assert "Traceback" not in err
    end = "AssociationReleasedError" if press == 1 else "AssociationAbortedError"
    eventually(lambda: f"end {end}" in peer.log, f"{end} at the peer")


def test_a_reader_who_has_enough_ends_the_query(netdicom: Netdicom, peer: Peer) -> None:
    """``netdicom find … | head``: no traceback, and the peer is told."""
    with netdicom.start("find", peer.address(), "-k", "PatientID=many", "-r", "PatientName") as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == ""


# -- worklist -------------------------------------------------------------------------------------------


def test_worklist_shows_the_step(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("worklist", peer.address(), "--modality", "CT", "--date", "20260101-")
    assert done.returncode == 0
    head, *rows = (line.split("\t") for line in done.stdout.splitlines())
    answer = dict(zip(head, rows[0], strict=True))
    assert (answer["Modality"], answer["ScheduledStationAETitle"]) == ("CT", "CT1")
    assert answer["PatientName"] == "DOE^JOHN"


def test_find_in_the_worklist_model_is_the_worklist(netdicom: Netdicom, peer: Peer) -> None:
    key = "ScheduledProcedureStepSequence[0].Modality=CT"
    done = netdicom("find", "-W", peer.address(), "-k", key, "-k", "PatientID", "--no-header")
    assert done.stdout.splitlines()[0] == "CT\t4711"


# -- store ----------------------------------------------------------------------------------------------


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
    assert done.stderr.startswith("9 stored, 0 failed, 1 skipped (1 no DICOM files)")
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
        whole.replace(b"\x02\x00\x03\x00UI", b"\x02\x00\x04\x00UI", 1)
    )
    (directory / "2.dcm").write_bytes(whole[:180])
    (directory / "3.dcm").write_bytes(whole)
    done = netdicom("store", peer.address(), "images")
    assert done.returncode == 1
    assert "failed: images/1.dcm: the file header has no SOP Instance UID" in done.stderr
    assert "failed: images/2.dcm:" in done.stderr
    assert "1 stored, 2 failed" in done.stderr


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
    """Its UID is none that could be a name (0xA900)."""
    whole = (instances / "ct0.dcm").read_bytes()
    (netdicom.directory / "bad.dcm").write_bytes(whole.replace(b"1.2.3.0", b"1..3./0"))
    with netdicom.start("receive", "--listen", "127.0.0.1:0", "-o", "inbox") as run:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", run.stderr.readline())[1])
        done = netdicom("store", f"127.0.0.1:{port}", "bad.dcm", instances / "ct1.dcm")
        assert "1 instance, 1 refused" in run.stdout.readline()
    assert done.returncode == 1
    assert "0xA900" in done.stderr


# -- get and move -----------------------------------------------------------------------------------------


def same(directory: Path, instances: Path, number: int = 6) -> None:
    """The CT images are there, as they were."""
    found = sorted(directory.rglob("*"), key=lambda path: path.name)
    files = [path for path in found if path.is_file()]
    assert [path.name for path in files] == [f"1.2.3.{each}.dcm" for each in range(number)]
    for each, path in enumerate(files):
        assert dcmread(path) == dcmread(instances / f"ct{each}.dcm")


def test_get_brings_a_study(netdicom: Netdicom, peer: Peer, instances: Path) -> None:
    done = netdicom("get", peer.address(), "-k", STUDY, "-o", "out")
    assert done.returncode == 0, done.stderr
    directory = netdicom.directory / "out"
    assert sorted(done.stdout.splitlines()) == [
        f"out/1.2.3/1.2.3.100/1.2.3.{number}.dcm" for number in range(6)
    ]
    same(directory, instances)
    assert "6 instances" in done.stderr


def test_get_says_json_and_lays_out_flat(netdicom: Netdicom, peer: Peer, instances: Path) -> None:
    done = netdicom("get", peer.address(), "-k", STUDY, "-o", "out", "--layout", "flat", "--json")
    *arrived, end = map(json.loads, done.stdout.splitlines())
    assert sorted(each["file"] for each in arrived) == [f"out/1.2.3.{n}.dcm" for n in range(6)]
    assert (end["status"], end["completed"], end["kept"]) == ("0000", 6, 6)
    same(netdicom.directory / "out", instances)


@pytest.mark.parametrize(
    ("options", "code", "kept"),
    [([], 8, 0), (["-x", "JPEG2000Lossless"], 8, 0), (["-x", "JPEG2000"], 0, 1)],
)
def test_get_takes_a_compressed_image_when_asked(
    netdicom: Netdicom, peer: Peer, instances: Path, options: list[str], code: int, kept: int
) -> None:
    """The peer does not decompress: without a context for it the sub-operation fails (PS3.4 C.4.3)."""
    uid = dcmread(instances / "JPEG2000.dcm").SOPInstanceUID
    done = netdicom("get", peer.address(), "-k", f"SOPInstanceUID={uid}", "-o", "out", *options)
    assert (done.returncode, len(done.stdout.splitlines())) == (code, kept), done.stderr


def test_get_with_one_class_proposes_little(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    done = netdicom(
        *("get", peer.address(), "-k", STUDY, "-o", "out", "--sop-class", "CTImageStorage", "-v")
    )
    assert done.returncode == 0
    assert "2 contexts accepted" in done.stderr
    same(netdicom.directory / "out", instances)


def test_get_of_nothing_is_no_failure(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("get", peer.address(), "-k", "StudyInstanceUID=1.9", "-o", "out")
    assert (done.returncode, done.stdout) == (0, "")
    assert "0 instances" in done.stderr


def test_get_that_is_refused_has_its_code(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("get", peer.address(), "-k", STUDY, "-k", "PatientID=refused", "-o", "out")
    assert done.returncode == 8
    assert three_lines(done.stderr)
    assert list((netdicom.directory / "out").iterdir()) == []


@pytest.mark.parametrize("command", ["get", "move"])
def test_a_hostile_peer_writes_nowhere_else(netdicom: Netdicom, peer: Peer, command: str) -> None:
    """RELIABILITY: C-STORE sub-operations whose UIDs are paths; 0xA900 for them, the rest is kept."""
    port = free_port()
    there = ["-aet", f"PORT-{port}", f"--receive=127.0.0.1:{port}"] if command == "move" else []
    keys = ("-k", STUDY, "-k", "PatientID=hostile")
    done = netdicom(command, peer.address(), *keys, *there, "-o", "a/b/out", "--json")
    assert done.returncode == 1, done.stderr
    *_, end = map(json.loads, done.stdout.splitlines())
    assert (end["status"], end["completed"], end["failed"]) == ("B000", 2, 1)
    assert end["failed_sop_instance_uids"] == ["../../../escaped"]
    assert {
        str(path.relative_to(netdicom.directory)) for path in netdicom.directory.rglob("*")
    } == {*("a", "a/b", "a/b/out", "a/b/out/1.2.3.0.dcm", "a/b/out/1.2.3.1.dcm")}


def test_move_receives_here(netdicom: Netdicom, peer: Peer, instances: Path) -> None:
    port = free_port()
    done = netdicom(
        *("move", peer.address(), "-k", STUDY, "-aet", f"PORT-{port}"),
        *(f"--receive=127.0.0.1:{port}", "-o", "out", "--json"),
    )
    assert done.returncode == 0, done.stderr
    *arrived, end = map(json.loads, done.stdout.splitlines())
    assert (len(arrived), end["status"], end["completed"], end["kept"]) == (6, "0000", 6, 6)
    same(netdicom.directory / "out", instances)


def test_move_receives_compressed_images_as_they_are(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    port = free_port()
    image = dcmread(instances / "JPEG2000.dcm")
    done = netdicom(
        *("move", peer.address(), "-k", f"SOPInstanceUID={image.SOPInstanceUID}"),
        *("-aem", f"PORT-{port}", f"--receive=tcp:{port}:interface=127.0.0.1", "-o", "out"),
    )
    assert done.returncode == 0, done.stderr
    (path,) = done.stdout.splitlines()
    assert dcmread(netdicom.directory / path) == image


def test_move_to_somebody_else(netdicom: Netdicom, peer: Peer) -> None:
    """Here the peer itself."""
    done = netdicom("move", peer.address(), "-k", STUDY, "--to", f"PORT-{peer.port}")
    assert done.returncode == 0
    assert "6 instances sent" in done.stderr
    assert (peer.storage / "1.2.3.5").exists()


def test_move_to_an_unknown_destination(netdicom: Netdicom, peer: Peer) -> None:
    """A801 (PS3.4 C.4.2.1.5)."""
    done = netdicom("move", peer.address(), "-k", STUDY, "--to", "NOBODY")
    assert done.returncode == 8
    assert "0xA801" in done.stderr
    assert three_lines(done.stderr)


def test_move_to_a_destination_that_is_not_there(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("move", peer.address(), "-k", STUDY, "--to", f"PORT-{free_port()}", "--json")
    assert done.returncode == 8
    end = json.loads(done.stdout)
    assert (end["status"], end["failed"]) == ("A702", 6)
    assert sorted(end["failed_sop_instance_uids"]) == [f"1.2.3.{number}" for number in range(6)]


def test_move_that_goes_elsewhere_is_told(netdicom: Netdicom, peer: Peer) -> None:
    """The peer has another address for our title: Success there, and nothing here."""
    done = netdicom(
        *("move", peer.address(), "-k", STUDY, "--to", f"PORT-{peer.port}"),
        *("--receive=127.0.0.1:0", "-o", "out", "--json"),
    )
    assert done.returncode == 1
    assert "6 instances, 0 arrived" in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == 1


def test_a_directory_that_turns_out_unusable_fails_the_instances(
    netdicom: Netdicom, peer: Peer
) -> None:
    """A link that was planted: 0xA700 to the peer, and the log says why."""
    (netdicom.directory / "out").mkdir()
    (netdicom.directory / "elsewhere").mkdir()
    (netdicom.directory / "out" / "1.2.3").symlink_to(netdicom.directory / "elsewhere")
    done = netdicom("get", peer.address(), "-k", STUDY, "-o", "out")
    assert done.returncode == 8
    assert "an instance cannot be kept" in done.stderr
    assert list((netdicom.directory / "elsewhere").iterdir()) == []


def test_move_cannot_listen_where_another_one_does(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom(
        "move", peer.address(), "-k", STUDY, f"--receive=127.0.0.1:{peer.port}", "-o", "o"
    )
    assert done.returncode == 2
    assert "cannot listen" in done.stderr


# -- receive ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("end", ["interrupt", "terminate"])
def test_receive_takes_what_store_sends(
    netdicom: Netdicom, instances: Path, form: list[str], end: str
) -> None:
    """One line for each association; Ctrl-C is the end that is meant, so exit code 0."""
    listen = ("receive", "--listen", "127.0.0.1:0", "-o", "inbox", "-aet", "INBOX")
    with netdicom.start(*listen, *form) as run:
        said = run.stderr.readline()
        port = re.search(r"INBOX listening on 127\.0\.0\.1:(\d+), writes to inbox", said)[1]
        sent = netdicom("store", f"127.0.0.1:{port}", instances, "--jobs", 1)
        assert sent.returncode == 0, sent.stderr
        assert netdicom("echo", f"127.0.0.1:{port}").returncode == 0
        getattr(run, end)()
        code, out, err = run.end()
    assert code == 0, err
    lines = out.splitlines()
    if form:
        documents = [json.loads(line) for line in lines]
        assert documents[0]["listening"] == {
            "ae_title": "INBOX",
            "host": "127.0.0.1",
            "port": int(port),
        }
        ended = [each["association"] for each in documents if "association" in each]
        assert [each["kept"] for each in ended] == [8, 0]
        assert len([each for each in documents if "file" in each]) == 8
    else:
        assert "8 instances, 0 refused" in lines[0]
        assert lines[0].startswith("NETDICOM-SCU@127.0.0.1: ")
        assert lines[0].endswith("; released")
    for path in instances.iterdir():
        sent_image = dcmread(path)
        (kept,) = (netdicom.directory / "inbox").rglob(f"{sent_image.SOPInstanceUID}.dcm")
        assert dcmread(kept) == sent_image


def test_receive_leaves_nothing_of_what_was_cut_off(netdicom: Netdicom) -> None:
    """The sender dies in the middle of an instance (RELIABILITY: temporary file removed)."""
    import socket

    from netdicom_tx.dimsemessages import CStoreRQ
    from netdicom_tx.fragments import fragment
    from netdicom_tx.pdu import AAssociateRQ, PresentationContextRQ
    from netdicom_tx.userdataitems import ImplementationClassUID, MaximumLength

    ct, plain = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"
    request = AAssociateRQ(
        called_ae_title="INBOX",
        calling_ae_title="DYING",
        presentation_contexts=(PresentationContextRQ(1, ct, (plain,)),),
        user_information=(MaximumLength(16384), ImplementationClassUID("1.2.3")),
    )
    store = CStoreRQ(
        message_id=1,
        affected_sop_class_uid=ct,
        affected_sop_instance_uid="1.2.3.4",
        data_set=b"\x08\x00\x16\x00" + bytes(300_000),
    )
    pieces = [bytes(each) for each in fragment(store, context_id=1, limit=16384)]
    with netdicom.start("receive", "--listen", "127.0.0.1:0", "-o", "inbox") as run:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", run.stderr.readline())[1])
        inbox = netdicom.directory / "inbox"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request.encode())
            assert connection.recv(1) == b"\x02"
            for piece in pieces[:10]:
                connection.sendall(piece)
            eventually(lambda: any(inbox.iterdir()), "file on its way in")
        line = run.stdout.readline()
        assert "0 instances" in line
        assert "the connection was lost" in line
        assert list(inbox.iterdir()) == []
