"""CTN, dcmjs-dimse, GDCM, odil and PixelMed ask the node, and send to it."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.commands.running import Netdicom
from support.interop.dcmtk import received
from support.interop.peers import StoreSCP
from support.interop.population import write_part10
from support.interop.qr_peers import worklist_entry
from support.interop.samples import Sample, read
from support.interop.toolkits import (
    GDCM,
    REQUESTORS,
    Dcmjs,
    PixelMed,
    Requestor,
    netdicom_peer,
)
from support.node import Address, Node
from support.part10 import by_instance, data_set_bytes
from support.processes import free_port

pytestmark = [pytest.mark.interop, pytest.mark.slow]

#: A sample of each kind that all of them send.
KINDS = (
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "JPEGLSNearLossless_08.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "chrJapMulti.dcm",
    "examples_jpeg2k.dcm",
    "reportsi.dcm",
    "rtplan.dcm",
    "waveform_ecg.dcm",
)
#: dcmjs-dimse sends in implicit VR where it is accepted; of these the judge below would get explicit VR.
_TRANSCODED = {
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "chrJapMulti.dcm",
    "reportsi.dcm",
    "rtplan.dcm",
    "waveform_ecg.dcm",
}
#: The UID of the study that is asked for.
PATIENT, STUDY = "1CT1", "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
#: An instance in the series for which PixelMed asks.
BUILT_IN = "1.2.826.0.1.3680043.10.1.85"


def those_that(operation: str) -> pytest.MarkDecorator:
    """A test for each toolkit that can do this."""
    return pytest.mark.parametrize(
        "toolkit",
        [each for each in REQUESTORS if operation in each.can],
        ids=lambda each: each.ae_title,
    )


@dataclass(frozen=True)
class Stocked:
    """A node with some studies and a worklist.

    Attributes:
        ours: The port of the move destination with the title GDCM.
        storescp: The move destination STORESCP.
    """

    node: Node
    kept: dict[str, Path]
    ours: int
    storescp: StoreSCP

    @property
    def address(self) -> Address:
        return self.node.address


@pytest.fixture(scope="module")
def stocked(
    samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stocked]:
    directory = tmp_path_factory.mktemp("stocked")
    steps = directory / "steps"
    steps.mkdir()
    for number, (name, modality) in enumerate((("Doe^Jane", "CT"), ("Roe^Richard", "MR"))):
        write_part10(worklist_entry(number, name, modality), steps / f"{number}.wl")
    ours = free_port()
    with ExitStack() as stack:
        storescp = StoreSCP(directory / "storescp", "--bit-preserving", "--accept-all")
        stack.callback(storescp.close)
        node = Node(
            directory,
            f"--peer={GDCM.ae_title}@127.0.0.1:{ours}",
            f"--peer=STORESCP@127.0.0.1:{storescp.address.port}",
            *("--worklist", str(steps)),
        )
        node.start()
        stack.callback(node.stop)
        held = [sample.path for sample in samples if sample.name in KINDS]
        asked = read(next(path for path in held if path.name.endswith("CT_small.dcm")))
        asked.StudyInstanceUID, asked.SeriesInstanceUID = PixelMed.built_in
        asked.PatientID = "SOMEBODY"
        asked.SOPInstanceUID = asked.file_meta.MediaStorageSOPInstanceUID = BUILT_IN
        held.append(directory / "built-in.dcm")
        asked.save_as(held[-1])
        done = Netdicom(directory)("store", netdicom_peer(node.address), *held)
        assert done.returncode == 0, done.stderr
        yield Stocked(node, node.instances(), ours, storescp)
    assert "Traceback" not in node.log, node.log


def of_study(kept: dict[str, Path], study: str) -> dict[str, Path]:
    """The instances of one study."""
    return {uid: path for uid, path in kept.items() if read(path).get("StudyInstanceUID") == study}


@those_that("echo")
def test_echo_is_answered(toolkit: Requestor, stocked: Stocked) -> None:
    """PS3.4 Annex A."""
    toolkit.echo(stocked.address)


@those_that("store")
def test_what_it_sends_is_kept_octet_for_octet(
    toolkit: Requestor, node: Node, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """Toolkits encode again what they read, so DCMTK's bit-preserving receiver is sent the same."""
    left_out = _TRANSCODED if isinstance(toolkit, Dcmjs) else set()
    paths = [each.path for each in samples if each.name in KINDS and each.name not in left_out]
    toolkit.store(node.address, paths)
    judge = received(lambda to: toolkit.store(to, paths), tmp_path / "judge")
    kept = node.instances()
    assert len(judge) == len(paths)
    assert kept.keys() == judge.keys()
    assert [
        uid for uid, path in kept.items() if data_set_bytes(path) != data_set_bytes(judge[uid])
    ] == []


def test_gdcm_sends_files_as_they_are(node: Node, samples: tuple[Sample, ...]) -> None:
    """The one of them that does; so here the octets are those of the files."""
    sent = [each for each in samples if each.name in KINDS]
    GDCM().store(node.address, [each.path for each in sent])
    kept = node.instances()
    assert [
        each.name for each in sent if data_set_bytes(kept[each.instance]) != each.data_set
    ] == []


def test_what_dcmjs_has_put_into_implicit_vr_is_kept(
    node: Node, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """The node takes the first transfer syntax that is proposed; so does a judge that takes no other."""
    paths = [each.path for each in samples if each.name in _TRANSCODED]
    Dcmjs().store(node.address, paths)
    judge = received(lambda to: Dcmjs().store(to, paths), tmp_path / "judge", "--implicit")
    kept = node.instances()
    assert len(judge) == len(paths)
    assert kept.keys() == judge.keys()
    for uid, path in kept.items():
        assert data_set_bytes(path) == data_set_bytes(judge[uid])


@those_that("find")
def test_it_finds_a_study_by_the_patient_id(toolkit: Requestor, stocked: Stocked) -> None:
    """PS3.4 C.4.1, in the Study Root."""
    assert toolkit.find(stocked.address, PATIENT) == {STUDY}


def test_gdcm_is_told_of_a_study(stocked: Stocked) -> None:
    """PS3.4 C.4.1; it ends before it shows what it has found."""
    assert GDCM().matches(stocked.address, PATIENT) == 1
    assert GDCM().matches(stocked.address, "NOBODY") == 0


def test_pixelmed_finds_the_instances_of_a_series(stocked: Stocked) -> None:
    """PS3.4 C.4.1, with the one query that its command has."""
    assert BUILT_IN in stocked.kept
    assert PixelMed().find_built_in(stocked.address) == {BUILT_IN}


@those_that("get")
def test_it_gets_a_study(toolkit: Requestor, stocked: Stocked, tmp_path: Path) -> None:
    """PS3.4 C.4.3; they write what they have made of the data set."""
    toolkit.get(stocked.address, STUDY, tmp_path)
    wanted = of_study(stocked.kept, STUDY)
    got = by_instance(tmp_path)
    assert got.keys() == wanted.keys()
    for uid, path in got.items():
        assert read(path).PixelData == read(wanted[uid]).PixelData


@those_that("move")
def test_it_has_a_study_sent_elsewhere(toolkit: Requestor, stocked: Stocked) -> None:
    """PS3.4 C.4.2; what is sent is what the node keeps."""
    toolkit.move(stocked.address, STUDY, "STORESCP")
    arrived = stocked.storescp.instances()
    for uid, path in of_study(stocked.kept, STUDY).items():
        assert data_set_bytes(arrived[uid]) == data_set_bytes(path)


def test_gdcm_has_a_study_sent_to_itself(stocked: Stocked, tmp_path: Path) -> None:
    """It leaves the release of the association with the destination, itself, unanswered."""
    GDCM().move_here(stocked.address, STUDY, stocked.ours, tmp_path)
    wanted = of_study(stocked.kept, STUDY)
    got = by_instance(tmp_path)
    assert got.keys() == wanted.keys()
    for uid, path in got.items():
        assert read(path).PixelData == read(wanted[uid]).PixelData


@those_that("worklist")
def test_it_has_the_worklist(toolkit: Requestor, stocked: Stocked, tmp_path: Path) -> None:
    """PS3.4 Annex K; all steps, with the Patient ID of each."""
    assert toolkit.worklist(stocked.address, tmp_path) == {"ID0", "ID1"}
