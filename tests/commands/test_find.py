"""``netdicom find`` and ``netdicom worklist`` against a peer of this package."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from support.commands.running import Netdicom, Peer, three_lines
from support.processes import eventually

pytestmark = pytest.mark.slow

STUDY = "StudyInstanceUID=1.2.3"


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


@pytest.mark.parametrize("form", [(), ("--csv",)])
def test_a_query_that_fails_before_its_first_answer_shows_no_head(
    netdicom: Netdicom, peer: Peer, form: tuple[str, ...]
) -> None:
    done = netdicom("find", peer.address(), "-k", "PatientID=refused", *form)
    assert done.stdout == ""
    done = netdicom("find", peer.address("STRICT"), "-k", "PatientID=1", *form)
    assert (done.returncode, done.stdout) == (4, "")


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
