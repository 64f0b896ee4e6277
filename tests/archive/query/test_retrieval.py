"""C-GET and C-MOVE from the node, beyond sending files as they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID
from twisted.internet import defer

from netdicom_tx import AE, RequestContext, StatusError, statuses, storage_scp, uids
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.query.retrieval import refusing
from netdicom_tx.dsutils import part10_header
from netdicom_tx.logs import Logger, Trouble
from netdicom_tx.sopclass import qr_move_scu
from netdicom_tx.testing import Pair, success_of
from netdicom_tx.userdataitems import RoleSelection, SOPClassExtendedNegotiation
from netdicom_tx.verbs import Association
from support.archive.archives import Archive, stored
from support.archive.data_sets import (
    BIG_ENDIAN,
    CT_IMAGE_STORAGE,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    Encoding,
    ct,
    deflated,
    padded,
)
from support.decoders import need_decoders
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture

COMPRESSED = str(get_testdata_file("JPEG2000.dcm"))
GET = uids.StudyRootQueryRetrieveInformationModelGet
WITHOUT_BULK_DATA = uids.WITHOUT_BULK_DATA_GET_SOP_CLASS


class Net:
    """An archive, and an SCU that asks it."""

    def __init__(self, node: Archive) -> None:
        self.node = node
        self.scu = AE("SCU")
        self.pair = Pair(self.scu, self.node.ae)

    def associate(self, *services: Any, **options: Any) -> Association:
        return success_of(self.scu.associate(self.pair.remote(), *services, **options))

    def keep(self, file: str | Path) -> str:
        """Store a file; its SOP Instance UID."""
        asce = self.associate(files=[file])
        assert success_of(asce.store(file)) == 0x0000
        return str(dcmread(file).SOPInstanceUID)

    def get(
        self, asce: Association, level: str = "STUDY", **keys: Any
    ) -> tuple[list[tuple[str, Dataset]], int]:
        """The transfer syntaxes and data sets of what came, and the final status."""
        came: list[tuple[str, Dataset]] = []

        async def work() -> int:
            stream = asce.get(level, **keys)
            try:
                async for each in stream:
                    came.append((each.transfer_syntax, each.dataset()))
            except StatusError as error:
                return int(error.status)
            return 0x0000

        return came, success_of(defer.Deferred.fromCoroutine(work()))

    def get_without_bulk_data(self, instance: str) -> tuple[list[tuple[str, Dataset]], int]:
        asce = self.associate(WITHOUT_BULK_DATA, GET)
        return self.get(asce, level="IMAGE", model=WITHOUT_BULK_DATA, SOPInstanceUID=instance)

    def get_study(self, *services: Any, **options: Any) -> tuple[list[tuple[str, Dataset]], int]:
        study = str(dcmread(COMPRESSED).StudyInstanceUID)
        return self.get(self.associate(*services, **options), StudyInstanceUID=study)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    made = Net(Archive(tmp_path / "archive"))
    yield made
    made.pair.close()
    made.node.close()


def _roles(sop_class: str = uids.SecondaryCaptureImageStorage) -> list[RoleSelection]:
    return [RoleSelection(sop_class, True, True)]


def decompressed(ds: Dataset) -> None:
    """Stands for ``Dataset.decompress``, and needs no decoder."""
    ds.PixelData = b"decoded!"
    ds["PixelData"].is_undefined_length = False
    ds.file_meta.TransferSyntaxUID = UID(uids.ExplicitVRLittleEndian)


# -- other transfer syntaxes than that of the file ----------------------------------------------------------


def test_a_compressed_instance_is_decompressed_for_a_peer_that_takes_it_only_so(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PS3.4 C.4.3.3.1 leaves the transfer syntax to what was accepted; the decoder is not the subject."""
    monkeypatch.setattr(Dataset, "decompress", decompressed)
    net.keep(COMPRESSED)
    ((syntax, ds),), status = net.get_study()
    assert (syntax, ds.PixelData, status) == (uids.ExplicitVRLittleEndian, b"decoded!", 0x0000)


@pytest.mark.parametrize(
    "name",
    [
        *("JPEG2000.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        *("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle_2frame.dcm"),
    ],
)
def test_the_pixels_of_a_decompressed_instance_are_those_of_the_compressed_one(
    net: Net, name: str
) -> None:
    """With the decoders of the extra: JPEG 2000, RLE, JPEG-LS and JPEG."""
    need_decoders()
    file = str(get_testdata_file(name))
    net.keep(file)
    sent = dcmread(file)
    ((syntax, ds),), status = net.get(net.associate(), StudyInstanceUID=sent.StudyInstanceUID)
    assert (syntax, status) == (uids.ExplicitVRLittleEndian, 0x0000)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    assert (ds.Rows, ds.Columns) == (sent.Rows, sent.Columns)
    # A decompressed image is RGB, and so is the array of a compressed one, whatever its colour space.
    assert ds.pixel_array.shape == sent.pixel_array.shape
    assert (ds.pixel_array == sent.pixel_array).all()


def test_an_instance_that_cannot_be_decompressed_fails_alone(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decoder, or damaged pixel data."""

    def decompress(_: Dataset) -> None:
        raise RuntimeError("no decoder")

    monkeypatch.setattr(Dataset, "decompress", decompress)
    net.keep(COMPRESSED)
    assert net.get_study() == ([], 0xA702)


def test_nothing_is_decompressed_for_a_peer_that_takes_only_another_compression(
    net: Net, lines: list[str]
) -> None:
    """The operator of the node cannot name files, but the peer can propose what it lacks."""
    net.keep(COMPRESSED)
    contexts = [
        (GET, [uids.ImplicitVRLittleEndian]),
        (uids.SecondaryCaptureImageStorage, [uids.JPEGBaseline8Bit]),
    ]
    assert net.get_study(contexts=contexts, roles=_roles()) == ([], 0xA702)
    (line,) = (each for each in lines if "presentation context" in each and "failed" in each)
    assert line.endswith("which the peer has not proposed: let it propose this transfer syntax)")


def test_an_instance_that_is_not_compressed_is_not_transcoded(net: Net) -> None:
    """A peer that does not take its transfer syntax does not get it."""
    ds = dcmread(get_testdata_file("CT_small.dcm"))
    net.keep(get_testdata_file("CT_small.dcm"))
    contexts = [
        (GET, [uids.ImplicitVRLittleEndian]),
        (uids.CTImageStorage, [uids.JPEGBaseline8Bit]),
    ]
    asce = net.associate(contexts=contexts, roles=_roles(uids.CTImageStorage))
    assert net.get(asce, StudyInstanceUID=str(ds.StudyInstanceUID)) == ([], 0xA702)


class Destination(AE):
    """Where a C-MOVE sends to, with the transfer syntaxes that it accepts."""

    def __init__(self, *transfer_syntaxes: str) -> None:
        super().__init__("DEST")
        self.add_scp(storage_scp, [uids.SecondaryCaptureImageStorage], transfer_syntaxes)
        self.kept: list[tuple[str, bytes]] = []

    def on_receive_store(self, context: RequestContext, ds: BinaryIO) -> int:
        data_set = dcmread(ds)
        self.kept.append((context.supported_ts, data_set.PixelData))
        return 0x0000


def moved_to(destination: Destination, net: Net) -> int:
    """Move the study of the compressed instance; the final status."""
    net.keep(COMPRESSED)
    network = net.pair.network
    net.node.ae.peers["DEST"] = network.add(destination)
    asce = net.associate(qr_move_scu)

    async def work() -> int:
        study = str(dcmread(COMPRESSED).StudyInstanceUID)
        try:
            await asce.move("STUDY", to="DEST", StudyInstanceUID=study)
        except StatusError as error:
            return int(error.status or 0)
        return 0x0000

    running = defer.Deferred.fromCoroutine(work())
    network.advance(0)
    return success_of(running)


def test_a_compressed_instance_is_decompressed_for_a_destination_that_takes_it_only_so(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the requestor of a C-GET."""
    monkeypatch.setattr(Dataset, "decompress", decompressed)
    destination = Destination(uids.ImplicitVRLittleEndian, uids.ExplicitVRLittleEndian)
    assert moved_to(destination, net) == 0x0000
    assert destination.kept == [(uids.ExplicitVRLittleEndian, b"decoded!")]


def test_a_compressed_instance_stays_so_for_a_destination_that_takes_it(net: Net) -> None:
    destination = Destination(uids.ExplicitVRLittleEndian, uids.JPEG2000)
    assert moved_to(destination, net) == 0x0000
    assert destination.kept == [(uids.JPEG2000, dcmread(COMPRESSED).PixelData)]


def test_what_no_decoder_reads_fails_for_its_destination(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decompress(_: Dataset) -> None:
        raise RuntimeError("no decoder")

    monkeypatch.setattr(Dataset, "decompress", decompress)
    destination = Destination(uids.ExplicitVRLittleEndian)
    assert moved_to(destination, net) == 0xA702
    assert destination.kept == []


# -- Composite Instance Retrieve Without Bulk Data (PS3.4 Annex Z) ------------------------------------------


def test_bulk_data_is_left_out_at_every_depth(net: Net, tmp_path: Path) -> None:
    """PS3.4 Z.1.3 names the attributes. The private element is not one of them, although it looks like one."""
    ds = dcmread(get_testdata_file("CT_small.dcm"))
    icon, smallest = Dataset(), Dataset()
    icon.Rows = smallest.Rows = 1
    icon.add_new("PixelData", "OW", b"\1\2")
    ds.IconImageSequence = [icon]
    ds.add_new(0x60003000, "OW", b"\0\0")  # Overlay Data
    ds.add_new(0x60000010, "US", 4)  # Overlay Rows
    ds.add_new(0x50003000, "OW", b"\0\0")  # Curve Data
    ds.add_new(0x60010030, "LO", "OURS")
    ds.add_new(0x60013000, "LO", "kept")
    ds.save_as(tmp_path / "bulk.dcm")
    ((_, found),), status = net.get_without_bulk_data(net.keep(tmp_path / "bulk.dcm"))
    assert status == 0x0000
    bulk = {0x7FE00010, 0x60003000, 0x50003000}
    assert set(found.keys()) == set(ds.keys()) - bulk
    assert found.IconImageSequence[0] == smallest


def test_without_its_bulk_data_a_compressed_instance_is_sent_uncompressed(net: Net) -> None:
    ((syntax, ds),), status = net.get_without_bulk_data(net.keep(COMPRESSED))
    assert (syntax, status) == (uids.ExplicitVRLittleEndian, 0x0000)
    assert "PixelData" not in ds


@pytest.mark.parametrize(
    "encoding", [EXPLICIT, IMPLICIT, BIG_ENDIAN, EXPLICIT._replace(transfer_syntax=DEFLATED)]
)
@pytest.mark.parametrize("is_file", [True, False])
def test_without_its_bulk_data_an_instance_that_came_with_group_2_is_all_there(
    net: Net, encoding: Encoding, is_file: bool
) -> None:
    """PS3.10 7.1: the header of the kept file ends where its group length says."""
    syntax = encoding.transfer_syntax
    front = part10_header(CT_IMAGE_STORAGE, "1.2.3", syntax)
    data = ct("1.2.3", encoding=encoding) + encoding.element(0xFFFCFFFC, "OB", bytes(2000))
    if not is_file:
        front = b""
        data = encoding.element(0x00020010, "UI", padded(uids.ImplicitVRLittleEndian)) + data
    octets = front + (deflated(front + data) if syntax == DEFLATED else data)
    assert stored(net.node.sender(encoding), octets, "1.2.3") == 0x0000
    ((_, found),), status = net.get_without_bulk_data("1.2.3")
    assert status == 0x0000
    assert found.SOPInstanceUID == "1.2.3"
    assert len(found[0xFFFCFFFC].value) == 2000
    assert {each.tag.group for each in found}.isdisjoint({0x0002, 0x7FE0})


def test_a_compressed_instance_that_came_with_group_2_is_decompressed(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decompress(ds: Dataset) -> None:
        assert ds.file_meta.TransferSyntaxUID == uids.JPEG2000
        ds.PixelData = ds.SOPInstanceUID.encode()
        ds["PixelData"].is_undefined_length = False
        ds.file_meta.TransferSyntaxUID = UID(uids.ExplicitVRLittleEndian)

    monkeypatch.setattr(Dataset, "decompress", decompress)
    whole = Path(COMPRESSED).read_bytes()
    (uid,) = {str(dcmread(COMPRESSED).SOPInstanceUID)}
    sender = net.node.sender(
        EXPLICIT._replace(transfer_syntax=uids.JPEG2000), uids.SecondaryCaptureImageStorage
    )
    assert stored(sender, whole, uid, uids.SecondaryCaptureImageStorage) == 0x0000
    ((_, ds),), status = net.get_study()
    assert (ds.PixelData.strip(b"\0").decode(), status) == (uid, 0x0000)


# -- extended negotiation ------------------------------------------------------------------------------------


def test_extended_negotiation_of_another_service_is_not_answered(net: Net) -> None:
    """PS3.7 D.3.3.5: without an answer, the default holds."""
    item = SOPClassExtendedNegotiation(uids.Verification, b"\1")
    asce = net.associate(uids.Verification, user_items=[item])
    assert asce.extended == {}


def test_an_index_that_is_gone_for_long_is_two_lines(lines: list[str]) -> None:
    """However many queries are refused."""
    trouble = Trouble(Logger())
    for _ in range(3):
        with (
            pytest.raises(StatusError) as caught,
            refusing(statuses.C_FIND_OUT_OF_RESOURCES, trouble),
        ):
            raise IndexUnavailableError("the server has closed the connection")
        assert caught.value.status == 0xA700
    for _ in range(2):
        with refusing(statuses.C_FIND_OUT_OF_RESOURCES, trouble):
            pass
    assert lines == [
        "the index does not answer: the server has closed the connection",
        "the index answers again; 3 requests were refused",
    ]
