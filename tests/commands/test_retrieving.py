"""``netdicom get`` and ``netdicom move`` against a peer of this package."""

import json
from pathlib import Path

import pytest
from pydicom import dcmread

from netdicom_tx.uids import DEFAULT_TRANSFER_SYNTAXES
from support.commands.running import Netdicom, Peer, three_lines
from support.processes import free_port

pytestmark = pytest.mark.slow

STUDY = "StudyInstanceUID=1.2.3"


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
    assert f"{1 + len(DEFAULT_TRANSFER_SYNTAXES)} contexts accepted" in done.stderr
    same(netdicom.directory / "out", instances)


@pytest.mark.parametrize("command", ["get", "move", "move elsewhere"])
def test_an_unknown_study_is_not_a_success(
    netdicom: Netdicom, peer: Peer, command: str, instances: Path
) -> None:
    """Exit code 10; a script that goes on with an empty directory does harm."""
    port = free_port()
    more = {
        "get": ("-o", "out"),
        "move": ("-aet", f"PORT-{port}", f"--receive=127.0.0.1:{port}", "-o", "out"),
        "move elsewhere": ("--to", f"PORT-{port}"),
    }[command]
    done = netdicom(
        command.split()[0], peer.address(), "-k", "StudyInstanceUID=1.9", *more, "--json"
    )
    assert done.returncode == 10
    assert json.loads(done.stdout)["error"]["code"] == 10
    assert "nothing that matches" in done.stderr
    assert three_lines(done.stderr)


@pytest.mark.parametrize("command", ["get", "move"])
def test_a_full_disk_of_ours_is_not_said_to_be_the_peers(
    netdicom: Netdicom, peer: Peer, command: str
) -> None:
    """Exit code 11; ``ulimit -f`` stands for a full disk. Each image has 39 KB."""
    port = free_port()
    there = ["-aet", f"PORT-{port}", f"--receive=127.0.0.1:{port}"] if command == "move" else []
    done = netdicom(command, peer.address(), "-k", STUDY, "-o", "out", *there, file_limit=10_000)
    assert done.returncode == 11, done.stderr
    assert three_lines(done.stderr)
    assert "6 instances could not be written to out on this machine" in done.stderr
    assert "File too large" in done.stderr
    assert [path for path in (netdicom.directory / "out").rglob("*") if path.is_file()] == []


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
    assert "sent 6 instances, but 0 arrived here" in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == 1


def test_a_directory_that_turns_out_unusable_fails_the_instances(
    netdicom: Netdicom, peer: Peer
) -> None:
    """A link that was planted: 0xA700 to the peer; the log and the error say why."""
    (netdicom.directory / "out").mkdir()
    (netdicom.directory / "elsewhere").mkdir()
    (netdicom.directory / "out" / "1.2.3").symlink_to(netdicom.directory / "elsewhere")
    done = netdicom("get", peer.address(), "-k", STUDY, "-o", "out")
    assert done.returncode == 11
    assert "cannot write to out: Not a directory" in done.stderr
    assert "1.2.3: Not a directory; 0 written" in done.stderr
    assert list((netdicom.directory / "elsewhere").iterdir()) == []


def test_move_cannot_listen_where_another_one_does(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom(
        "move", peer.address(), "-k", STUDY, f"--receive=127.0.0.1:{peer.port}", "-o", "o"
    )
    assert done.returncode == 2
    assert "cannot listen" in done.stderr
