"""``netdicom`` asks CTN, dcmjs-dimse, odil and PixelMed, and sends to them; so does the node."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.commands.running import Netdicom
from support.interop.samples import Sample, read
from support.interop.toolkits import ACCEPTORS, Acceptor, PixelMedServer, netdicom_peer
from support.node import Node
from support.part10 import by_instance, data_set_bytes
from support.processes import eventually

pytestmark = [pytest.mark.interop, pytest.mark.slow]

#: What each of them takes and shows; uncompressed, because without options none takes compressed ones as they are.
KINDS = ("CT_small.dcm", "MR_small_implicit.dcm", "examples_palette.dcm")
#: Another one, in a study of its own, that they get from the node.
FROM_NODE = "MR_small.dcm"
PATIENT, STUDY = "1CT1", "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"


def those_that(command: str) -> pytest.MarkDecorator:
    """A test for each toolkit that answers this command."""
    return pytest.mark.parametrize(
        "acceptor",
        [each for each in ACCEPTORS if command in each.can],
        indirect=True,
        ids=lambda each: each.ae_title,
    )


def successful(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def store(acceptor: Acceptor, directory: Path, sent: tuple[Sample, ...]) -> None:
    paths = [each.path for each in sent]
    with acceptor.listening() as address:
        successful(Netdicom(directory)("store", netdicom_peer(address), *paths))


@pytest.fixture(scope="module")
def sent(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    return tuple(each for each in samples if each.name in KINDS)


@pytest.fixture(scope="module")
def acceptor(
    request: pytest.FixtureRequest,
    sent: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Acceptor]:
    """A running one that ``netdicom store`` has sent instances to."""
    directory = tmp_path_factory.mktemp("acceptor")
    made = request.param(directory)
    try:
        store(made, directory, sent)
        yield made
    finally:
        made.close()


@pytest.fixture
def netdicom(tmp_path: Path) -> Netdicom:
    directory = tmp_path / "netdicom"
    directory.mkdir()
    return Netdicom(directory)


@those_that("echo")
def test_netdicom_echo_is_answered(acceptor: Acceptor, netdicom: Netdicom) -> None:
    """PS3.4 Annex A."""
    with acceptor.listening() as address:
        assert "Success" in successful(netdicom("echo", netdicom_peer(address)))


@those_that("store")
def test_netdicom_store_arrives(acceptor: Acceptor, sent: tuple[Sample, ...]) -> None:
    """PS3.4 Annex B; each writes what it has made of the data set."""
    for each in sent:
        stored = eventually(lambda uid=each.instance: acceptor.stored(uid), each.name)
        theirs, ours = read(stored), read(each.path)
        assert theirs.SOPClassUID == ours.SOPClassUID
        assert theirs.PatientName == ours.PatientName
        assert theirs.PixelData == ours.PixelData


@those_that("find")
def test_netdicom_find_finds_a_study(acceptor: Acceptor, netdicom: Netdicom) -> None:
    """PS3.4 C.4.1."""
    keys = ("-k", f"PatientID={PATIENT}", "-k", "StudyInstanceUID", "--json")

    def found() -> list[str] | None:
        with acceptor.listening() as address:
            shown = successful(netdicom("find", netdicom_peer(address), *keys))
        return [json.loads(line)["0020000D"]["Value"][0] for line in shown.splitlines()] or None

    # PixelMed answers a C-STORE before its database has the instance.
    assert eventually(found, "study in the answers") == [STUDY]


@those_that("get")
def test_netdicom_get_has_a_study(
    acceptor: Acceptor, netdicom: Netdicom, sent: tuple[Sample, ...], tmp_path: Path
) -> None:
    """PS3.4 C.4.3."""
    output = tmp_path / "got"
    keys = ("-k", f"StudyInstanceUID={STUDY}")

    def got() -> dict[str, Path] | None:
        with acceptor.listening() as address:
            done = netdicom("get", netdicom_peer(address), *keys, "-o", output)
        return by_instance(output) if done.returncode == 0 else None

    [(uid, path)] = eventually(got, "study").items()
    [ours] = [each for each in sent if each.instance == uid]
    assert read(path).PixelData == read(ours.path).PixelData


@those_that("worklist")
def test_netdicom_worklist_shows_its_step(acceptor: Acceptor, netdicom: Netdicom) -> None:
    """PS3.4 Annex K."""
    with acceptor.listening() as address:
        shown = successful(netdicom("worklist", netdicom_peer(address), "--json"))
    [step] = map(json.loads, shown.splitlines())
    assert step["00100020"]["Value"] == ["ID0"]
    [item] = step["00400100"]["Value"]
    assert item["00400001"]["Value"] == ["CT1"]


@those_that("store")
def test_the_node_sends_to_it(
    acceptor: Acceptor,
    netdicom: Netdicom,
    start_node: Callable[..., Node],
    samples: tuple[Sample, ...],
) -> None:
    """PS3.4 C.4.2: it is the destination of a C-MOVE."""
    [other] = [each for each in samples if each.name == FROM_NODE]
    with acceptor.listening() as address:
        node = start_node(f"--peer={netdicom_peer(address)}")
        successful(netdicom("store", netdicom_peer(node.address), other.path))
        keys = ("-k", f"StudyInstanceUID={read(other.path).StudyInstanceUID}")
        to = ("--to", address.ae_title)
        successful(netdicom("move", netdicom_peer(node.address), *to, *keys))
    stored = eventually(lambda: acceptor.stored(other.instance), "stored file")
    assert read(stored).PixelData == read(other.path).PixelData


def test_pixelmed_moves_to_the_node(
    netdicom: Netdicom, node: Node, sent: tuple[Sample, ...], tmp_path: Path
) -> None:
    """PS3.4 C.4.2; PixelMed keeps files as they came, and sends them as they are."""
    directory = tmp_path / "pixelmed"
    directory.mkdir()
    server = PixelMedServer(directory, [node.address])
    keys = ("-k", f"StudyInstanceUID={STUDY}")
    try:
        store(server, directory, sent)
        with server.listening() as address:

            def kept() -> dict[str, Path] | None:
                netdicom("move", netdicom_peer(address), "--to", node.ae_title, *keys)
                return node.instances() or None

            [(uid, path)] = eventually(kept, "instance in the node").items()
    finally:
        server.close()
    [ours] = [each for each in sent if each.instance == uid]
    assert data_set_bytes(path) == ours.data_set
