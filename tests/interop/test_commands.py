"""``netdicom`` against the archives and worklists of others: the same answers as DCMTK's tools get."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from support.commands.running import Netdicom
from support.interop.archives import Dcmqrscp, dcmsend
from support.interop.dcmtk import storescu
from support.interop.peers import OUR_SCU, Orthanc, StoreSCP
from support.interop.qr_peers import PynetdicomQRSCP, WlmSCPFS
from support.interop.samples import Sample, copies, quiet
from support.node import Address, Node
from support.part10 import by_instance, data_set_bytes
from support.processes import free_port, need_pynetdicom, program, run, succeed

pytestmark = [pytest.mark.interop, pytest.mark.slow]

#: Under which they send to us when we receive a C-MOVE.
HERE = "OURHERE"
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


@pytest.fixture
def netdicom(tmp_path: Path) -> Netdicom:
    directory = tmp_path / "netdicom"
    directory.mkdir()
    return Netdicom(directory)


@pytest.fixture(scope="module")
def held(
    dcmtk_samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Sample, ...]:
    """What the archives hold: uncompressed instances of several patients, and one series of ten.

    They have the form in which DCMTK sends them, so that they are the same from every sender.
    """
    some = [
        sample
        for sample in dcmtk_samples
        if sample.in_hierarchy and sample.transfer_syntax in PLAIN
    ]
    ct = next(sample for sample in some if sample.name == "CT_small.dcm")
    return (*some[:12], *copies(ct, 10, tmp_path_factory.mktemp("held") / "ct"))


@dataclass
class Archive:
    """One that is queried.

    Attributes:
        receiving: The port at which it expects us as :data:`HERE`.
        destination: DCMTK's storescp, which it knows as well.
    """

    address: Address
    receiving: int
    destination: StoreSCP

    @property
    def peer(self) -> str:
        return f"{self.address.ae_title}@127.0.0.1:{self.address.port}"


#: The caller that fills them.
SENDER = "DCMSEND"


@pytest.fixture(scope="module", params=["dcmqrscp", "pynetdicom", "orthanc", "node"])
def archive(
    request: pytest.FixtureRequest,
    held: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Archive]:
    """Each of them, with the instances in it."""
    directory = tmp_path_factory.mktemp(request.param)
    receiving = free_port()
    paths = [sample.path for sample in held]
    with ExitStack() as stack:
        destination = StoreSCP(
            directory / "received", "--bit-preserving", "--accept-all", TCP_NODELAY="1"
        )
        stack.callback(destination.close)
        destinations = {HERE: receiving, StoreSCP.ae_title: destination.address.port}
        peer: Dcmqrscp | PynetdicomQRSCP | Orthanc | Node
        if request.param == "orthanc":
            peer = request.getfixturevalue("running_orthanc")
            peer.clear()
            for title, port in destinations.items():
                peer.rest(f"/modalities/{title}", [title, "127.0.0.1", port], "PUT")
            for path in paths:
                peer.upload(path)
        else:
            (home := directory / "archive").mkdir()
            if request.param == "dcmqrscp":
                known = [Address(title, port) for title, port in destinations.items()]
                peer = Dcmqrscp(home, known=[OUR_SCU, SENDER], destinations=known)
                stack.callback(peer.close)
            elif request.param == "pynetdicom":
                peer = PynetdicomQRSCP(home, destinations)
                stack.callback(peer.close)
            else:
                known_to_it = [f"--peer={t}@127.0.0.1:{p}" for t, p in destinations.items()]
                peer = Node(home, *known_to_it)
                peer.start()
                stack.callback(peer.stop)
            dcmsend(peer.address, paths, SENDER)
        yield Archive(peer.address, receiving, destination)


def canonical(answers: list[dict[str, Any]]) -> list[str]:
    """Answers in an order, each in a form that can be compared."""
    return sorted(json.dumps(each, sort_keys=True) for each in answers)


def findscu(archive: Address, directory: Path, model: str, *keys: str) -> list[dict[str, Any]]:
    """What DCMTK's findscu is answered, in the DICOM JSON model."""
    directory.mkdir()
    arguments = [each for key in keys for each in ("-k", key)]
    succeed(
        *(program("findscu"), f"-{model}", "-aet", OUR_SCU, "-aec", archive.ae_title),
        *("--extract", "--output-directory", directory, *archive.arguments, *arguments),
    )
    with quiet():
        return [
            dcmread(path, force=True).to_json_dict(suppress_invalid_tags=True)
            for path in sorted(directory.iterdir())
        ]


def answers(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


QUERIES = [
    ("S", "STUDY", ["StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "StudyTime"]),
    ("S", "STUDY", ["StudyInstanceUID", "PatientID=1CT1"]),
    ("S", "STUDY", ["StudyInstanceUID", "PatientName=CompressedSamples*"]),
    ("S", "STUDY", ["StudyInstanceUID", "StudyDate=20040101-20041231", "0010,0020"]),
    ("S", "SERIES", ["StudyInstanceUID={study}", "SeriesInstanceUID", "Modality"]),
    (
        "S",
        "IMAGE",
        ["StudyInstanceUID={study}", "SeriesInstanceUID={series}", "SOPInstanceUID", "0020,0013"],
    ),
    ("P", "PATIENT", ["PatientID", "PatientName", "PatientSex"]),
    ("P", "STUDY", ["PatientID=1CT1", "StudyInstanceUID", "StudyDate"]),
    ("S", "STUDY", ["StudyInstanceUID=1.9.9.9", "PatientID"]),
]


@pytest.mark.parametrize(("model", "level", "keys"), QUERIES)
def test_find_has_the_answers_that_findscu_has(
    netdicom: Netdicom,
    archive: Archive,
    held: tuple[Sample, ...],
    tmp_path: Path,
    model: str,
    level: str,
    keys: list[str],
) -> None:
    """The same peer, the same data, the same keys: answer for answer, element for element."""
    ct = dcmread(held[-1].path)
    words = [f"QueryRetrieveLevel={level}"] + [
        key.format(study=ct.StudyInstanceUID, series=ct.SeriesInstanceUID) for key in keys
    ]
    expected = findscu(archive.address, tmp_path / "findscu", model, *words)
    done = netdicom(
        *("find", f"-{model}", archive.peer, "-aet", OUR_SCU, "--json"),
        *(each for word in words for each in ("-k", word)),
    )
    assert done.returncode == 0, done.stderr
    assert canonical(answers(done.stdout)) == canonical(expected)
    if "1.9.9.9" not in words[1]:
        assert expected  # else it would compare nothing


def getscu(archive: Address, directory: Path, *keys: str) -> dict[str, bytes]:
    """What DCMTK's getscu is sent, by SOP Instance UID."""
    directory.mkdir()
    arguments = [each for key in keys for each in ("-k", key)]
    succeed(
        *(program("getscu"), "-S", "-aet", OUR_SCU, "-aec", archive.ae_title, "+B"),
        *("--output-directory", directory, *archive.arguments, *arguments),
        TCP_NODELAY="1",
    )
    return contents(directory)


def contents(directory: Path) -> dict[str, bytes]:
    return {uid: data_set_bytes(path) for uid, path in by_instance(directory).items()}


def test_get_brings_what_getscu_brings(
    netdicom: Netdicom, archive: Archive, held: tuple[Sample, ...], tmp_path: Path
) -> None:
    """Octet for octet."""
    study = dcmread(held[-1].path).StudyInstanceUID
    keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}")
    expected = getscu(archive.address, tmp_path / "getscu", *keys)
    done = netdicom(
        *("get", archive.peer, "-aet", OUR_SCU, "-o", "out"),
        *(each for key in keys for each in ("-k", key)),
    )
    assert done.returncode == 0, done.stderr
    kept = contents(netdicom.directory / "out")
    assert kept == expected
    assert len(kept) == 10
    assert len(done.stdout.splitlines()) == len(kept)


def test_move_brings_what_movescu_brings(
    netdicom: Netdicom, archive: Archive, held: tuple[Sample, ...]
) -> None:
    """Received here, sent to DCMTK's storescp, and by movescu to it: all the same."""
    study = dcmread(held[-1].path).StudyInstanceUID
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
    directory = archive.destination.directory

    def at_the_destination() -> dict[str, bytes]:
        archive.destination.settled()
        found = contents(directory)
        shutil.rmtree(directory)
        directory.mkdir()
        return found

    succeed(
        *(program("movescu"), "-S", "-aet", OUR_SCU, "-aec", archive.address.ae_title),
        *("-aem", StoreSCP.ae_title, *archive.address.arguments, *keys),
    )
    expected = at_the_destination()
    assert len(expected) == 10

    sent = netdicom("move", archive.peer, "-aet", OUR_SCU, "--to", StoreSCP.ae_title, *keys)
    assert sent.returncode == 0, sent.stderr
    assert at_the_destination() == expected

    received = netdicom(
        *("move", archive.peer, "-aet", OUR_SCU, "--to", HERE, *keys),
        *(f"--receive=127.0.0.1:{archive.receiving}", "-o", "out", "--json"),
    )
    assert received.returncode == 0, received.stderr
    *_, end = answers(received.stdout)
    assert (end["kept"], end["failed"]) == (len(expected), 0)
    assert contents(netdicom.directory / "out") == expected


def test_get_and_move_find_first_what_a_retrieval_does_not_carry(
    netdicom: Netdicom, archive: Archive, held: tuple[Sample, ...]
) -> None:
    """The CT instances of some years, whichever study and series they belong to (PS3.4 C.4.2.1.4)."""
    headers = [dcmread(sample.path, stop_before_pixels=True) for sample in held]
    expected = {
        str(each.SOPInstanceUID)
        for each in headers
        if each.get("Modality") == "CT" and "19900101" <= each.get("StudyDate", "") <= "20301231"
    }
    assert 10 <= len(expected) < len(held)
    keys = ("-aet", OUR_SCU, "-k", "Modality=CT", "-k", "StudyDate=19900101-20301231")
    done = netdicom("get", archive.peer, *keys, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert set(by_instance(netdicom.directory / "out")) == expected
    moved = netdicom(
        *("move", archive.peer, *keys, "--to", HERE),
        *(f"--receive=127.0.0.1:{archive.receiving}", "-o", "moved"),
    )
    assert moved.returncode == 0, moved.stderr
    assert set(by_instance(netdicom.directory / "moved")) == expected
    nothing = netdicom("get", archive.peer, "-aet", OUR_SCU, "-k", "StudyDate=18990101")
    assert nothing.returncode == 10, nothing.stderr


def test_move_to_a_destination_that_the_archive_does_not_know(
    netdicom: Netdicom, archive: Archive, held: tuple[Sample, ...]
) -> None:
    """A801 by PS3.4 C.4.2.1.5; whatever failure it is, it is exit code 8."""
    study = dcmread(held[-1].path).StudyInstanceUID
    done = netdicom(
        *(
            "move",
            archive.peer,
            "-aet",
            OUR_SCU,
            "--to",
            "UNHEARD",
            "-k",
            f"StudyInstanceUID={study}",
        )
    )
    assert done.returncode == 8, done.stderr


def test_echo_and_store_reach_every_archive(
    netdicom: Netdicom, archive: Archive, held: tuple[Sample, ...]
) -> None:
    """The same instances again; what is there stays findable."""
    echo = netdicom("echo", archive.peer, "-aet", OUR_SCU, "--json")
    assert echo.returncode == 0, echo.stderr
    assert json.loads(echo.stdout)["status"] == "Success (0x0000)"
    paths = [sample.path for sample in held]
    done = netdicom("store", archive.peer, "-aet", OUR_SCU, "--json", *paths)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stored"] == len(paths)


# -- storage commitment ---------------------------------------------------------------------------------


def test_commit_is_told_by_orthanc_on_an_association_of_its_own(
    netdicom: Netdicom, orthanc: Orthanc, held: tuple[Sample, ...]
) -> None:
    """Orthanc never reports on ours: without --listen the hint says what to do."""
    here = Address("COMMITCMD", free_port())
    orthanc.modality(here)
    kept, missing = held[-1], held[-2]
    orthanc.upload(kept.path)
    peer = f"{orthanc.ae_title}@127.0.0.1:{orthanc.address.port}"
    asked = ("commit", peer, kept.path, missing.path, "-aet", here.ae_title, "--json")
    done = netdicom(*asked, "--listen", f"127.0.0.1:{here.port}")
    assert done.returncode == 1, done.stderr
    found = {each["sop_instance_uid"]: each for each in json.loads(done.stdout)["files"]}
    assert found[kept.instance]["committed"]
    assert found[missing.instance]["reason"] == "No such SOP instance (0x0112)"
    done = netdicom(*asked, "--timeout", 3)
    assert done.returncode == 7
    assert "--listen PORT" in done.stderr
    assert three_lines(done.stderr)


@pytest.mark.parametrize("listens", [False, True])
def test_commit_is_told_by_pynetdicom_on_either_association(
    netdicom: Netdicom, held: tuple[Sample, ...], listens: bool
) -> None:
    need_pynetdicom()
    from support.interop.pynetdicom_workflow import committing

    here = Address("COMMITCMD", free_port())
    options = ["--listen", f"127.0.0.1:{here.port}"] if listens else []
    with committing("PYSCP", here) as there:
        done = netdicom(
            *("commit", f"PYSCP@127.0.0.1:{there.port}", held[-1].path, "--json"),
            *("-aet", here.ae_title, *options),
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["committed"] == 1


def test_commit_to_a_peer_without_the_service_is_told(
    netdicom: Netdicom, start_storescp: Callable[..., StoreSCP], held: tuple[Sample, ...]
) -> None:
    """PS3.8 9.3.3.2: result 3, abstract syntax not supported."""
    scp = start_storescp()
    done = netdicom("commit", f"STORESCP@127.0.0.1:{scp.address.port}", held[-1].path)
    assert done.returncode == 5
    assert "abstract syntax not supported" in done.stderr
    assert three_lines(done.stderr)


# -- failures ---------------------------------------------------------------------------------------------


def three_lines(err: str) -> bool:
    return [line[:7] for line in err.splitlines()[-3:]] == ["error: ", "       ", "hint:  "]


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Callable[..., WlmSCPFS]]:
    """Start wlmscpfs with options; it has nine steps."""
    made: list[WlmSCPFS] = []

    def start(*options: str) -> WlmSCPFS:
        entries = [(f"DOE^{number}", "CT" if number % 3 else "MR") for number in range(9)]
        made.append(WlmSCPFS(tmp_path / f"worklist{len(made)}", entries, *options))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_the_worklist_is_the_one_that_findscu_sees(
    netdicom: Netdicom, worklist: Callable[..., WlmSCPFS], tmp_path: Path
) -> None:
    scp = worklist()
    keys = [
        "PatientName",
        "PatientID",
        "AccessionNumber",
        "ScheduledProcedureStepSequence[0].Modality=CT",
        "ScheduledProcedureStepSequence[0].ScheduledStationAETitle",
        "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate=20260101-20260105",
    ]
    expected = findscu(scp.address, tmp_path / "findscu", "W", *keys)
    peer = f"{scp.ae_title}@127.0.0.1:{scp.address.port}"
    arguments = [each for key in keys for each in ("-k", key)]
    done = netdicom("worklist", peer, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    assert canonical(answers(done.stdout)) == canonical(expected)
    assert len(expected) > 1
    short = netdicom("worklist", peer, "--json", "--modality", "CT", "--date", "20260101-20260105")
    names = {each["00100010"]["Value"][0]["Alphabetic"] for each in answers(short.stdout)}
    assert names == {each["00100010"]["Value"][0]["Alphabetic"] for each in expected}


@pytest.mark.parametrize("way", ["limit", "ctrl-c"])
def test_a_query_is_cancelled_in_its_middle(
    netdicom: Netdicom, worklist: Callable[..., WlmSCPFS], way: str
) -> None:
    """wlmscpfs takes a second for each answer, and looks for C-CANCEL between them."""
    scp = worklist("--sleep-during", "1", "--verbose")
    peer = f"{scp.ae_title}@127.0.0.1:{scp.address.port}"
    arguments = ("worklist", peer, "-r", "PatientName", "--no-header")
    if way == "limit":
        done = netdicom(*arguments, "--limit", 2, within=20)
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
        return
    with netdicom.start(*arguments) as running:
        running.stdout.readline()
        running.interrupt()
        code, out, err = running.end(within=20)
    assert code == 130, err
    assert len(out.splitlines()) < 8


def test_a_wrong_called_title_is_told(
    netdicom: Netdicom, worklist: Callable[..., WlmSCPFS], tmp_path: Path
) -> None:
    """PS3.8 9.3.4: result 1, source 1, reason 7."""
    for scp in (worklist(), Dcmqrscp(tmp_path / "qr", known=[OUR_SCU])):
        try:
            done = netdicom("find", "-W", f"WRONG@127.0.0.1:{scp.address.port}", "-aet", OUR_SCU)
        finally:
            scp.close()
        assert done.returncode == 4
        assert "called AE title not recognized" in done.stderr
        assert "-aec TITLE" in done.stderr
        assert three_lines(done.stderr)


def test_a_stranger_is_told_that_he_is_one(netdicom: Netdicom, orthanc: Orthanc) -> None:
    """Orthanc answers only those it knows."""
    address = f"{orthanc.ae_title}@127.0.0.1:{orthanc.address.port}"
    done = netdicom("echo", address, "-aet", "STRANGER")
    assert done.returncode in (4, 5), done.stderr
    assert three_lines(done.stderr)


def test_a_service_that_the_peer_does_not_have_is_told(
    netdicom: Netdicom, start_storescp: Callable[..., StoreSCP]
) -> None:
    """PS3.8 9.3.3.2: result 3, abstract syntax not supported."""
    scp = start_storescp()
    done = netdicom("find", f"STORESCP@127.0.0.1:{scp.address.port}")
    assert done.returncode == 5
    assert "abstract syntax not supported" in done.stderr
    assert three_lines(done.stderr)


@pytest.mark.parametrize(
    ("option", "code"),
    [("--refuse", 4), ("--abort-after", 6), ("--abort-during", 6)],
)
def test_a_peer_that_misbehaves_has_its_code(
    netdicom: Netdicom,
    start_storescp: Callable[..., StoreSCP],
    held: tuple[Sample, ...],
    option: str,
    code: int,
) -> None:
    scp = start_storescp(option)
    done = netdicom("store", f"STORESCP@127.0.0.1:{scp.address.port}", held[-1].path)
    assert done.returncode == code, done.stderr
    assert three_lines(done.stderr)


def test_a_peer_that_hangs_is_given_up_in_time(
    netdicom: Netdicom, start_storescp: Callable[..., StoreSCP], held: tuple[Sample, ...]
) -> None:
    scp = start_storescp("--sleep-during", "60")
    done = netdicom(
        *("store", f"STORESCP@127.0.0.1:{scp.address.port}", held[-1].path, "-td", 0.5), within=20
    )
    assert done.returncode == 7, done.stderr
    assert three_lines(done.stderr)


def test_a_peer_that_is_killed_in_the_middle_has_its_code(
    netdicom: Netdicom, worklist: Callable[..., WlmSCPFS]
) -> None:
    """The connection is gone, without release and without abort: at once, not after a timeout."""
    scp = worklist("--single-process", "--sleep-during", "1")
    peer = f"{scp.ae_title}@127.0.0.1:{scp.address.port}"
    with netdicom.start("worklist", peer, "-r", "PatientName", "--no-header") as running:
        running.stdout.readline()
        scp.close()
        code, _, err = running.end(within=20)
    assert code == 6, err
    assert "was lost" in err
    assert three_lines(err)


def test_storescu_and_receive_understand_each_other(
    netdicom: Netdicom, dcmtk_samples: tuple[Sample, ...]
) -> None:
    """What DCMTK sends is kept octet by octet."""
    with netdicom.start("receive", "--listen", "127.0.0.1:0", "-o", "inbox") as running:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", running.stderr.readline())[1])
        storescu(Address("ANY", port), dcmtk_samples, TCP_NODELAY="1")
        assert run(program("echoscu"), "127.0.0.1", str(port)).returncode == 0
        running.interrupt()
        code, out, err = running.end()
    assert code == 0, err
    kept = by_instance(netdicom.directory / "inbox")
    assert {uid: data_set_bytes(path) for uid, path in kept.items()} == {
        sample.instance: sample.sent for sample in dcmtk_samples
    }
    assert "; released" in out
