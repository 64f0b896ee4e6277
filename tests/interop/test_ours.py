"""Our SCU, our SCP and our node with each other, through real sockets."""

import hashlib
import os
from typing import BinaryIO, cast

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, MultiFrameGrayscaleByteSecondaryCaptureImageStorage
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scp, storage_scu, verification_scp
from support.interop.ours import changed, echo, store
from support.interop.peers import OUR_SCU
from support.interop.samples import BROKEN, Sample, broken
from support.node import Address, Node

pytestmark = pytest.mark.interop


@pytest.fixture(scope="session")
def big_sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A multi-frame instance of 64 MiB of pixels."""
    ds = Dataset()
    ds.SOPClassUID = MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    ds.SOPInstanceUID = "2.25.201648912730159368402196573081"
    ds.PatientID = "BIG"
    ds.StudyInstanceUID = "2.25.201648912730159368402196573082"
    ds.SeriesInstanceUID = "2.25.201648912730159368402196573083"
    ds.Modality = "OT"
    ds.NumberOfFrames = 16
    ds.Rows = ds.Columns = 2048
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    # A period that divides no size of a PDU or a buffer: octets in a wrong place show.
    noise = os.urandom(1_000_003)
    ds.PixelData = (noise * 68)[: 64 << 20]
    ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path_factory.mktemp("big") / "big.dcm"
    ds.save_as(path, enforce_file_format=True)
    return Sample(
        path=path,
        name=path.name,
        sop_class=str(ds.SOPClassUID),
        instance=str(ds.SOPInstanceUID),
        transfer_syntax=str(ExplicitVRLittleEndian),
        conforms=True,
        in_hierarchy=True,
    )


class NodeTests(TestCase):
    """Our SCU to ``twistd dicom``."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, samples: tuple[Sample, ...], big_sample: Sample, node: Node) -> None:
        self.samples = samples
        self.big = big_sample
        self.node = node

    async def test_echo_is_answered(self) -> None:
        """PS3.4 Annex A."""
        assert await echo(self.node.address) == 0x0000

    async def test_every_sample_is_kept_as_it_is_in_the_file(self) -> None:
        """The palettes too, and the files that DCMTK does not read."""
        statuses = await store(self.node.address, self.samples)
        assert statuses == {sample.path.name: 0x0000 for sample in self.samples}
        assert changed(self.samples, self.node.instances()) == []

    async def test_a_big_instance_is_kept_as_it_is_in_the_file(self) -> None:
        """64 MiB, in and out by streams."""
        assert await store(self.node.address, [self.big]) == {"big.dcm": 0x0000}
        assert changed([self.big], self.node.instances()) == []


class BrokenTests(TestCase):
    """Incomplete data sets, sent to ``twistd dicom``."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, node: Node, samples: tuple[Sample, ...]) -> None:
        self.node = node
        self.whole = samples[0]

    async def test_it_is_refused_and_not_kept(self) -> None:
        """PS3.4 B.2.3: 0xC000, Cannot understand; and the association goes on."""
        paths = [broken(name) for name in BROKEN] + [self.whole.path]
        metas = [read_file_meta_info(path) for path in paths]
        contexts = {
            str(meta.MediaStorageSOPClassUID): [
                str(each.TransferSyntaxUID)
                for each in metas
                if each.MediaStorageSOPClassUID == meta.MediaStorageSOPClassUID
            ]
            for meta in metas
        }
        ae = AE(OUR_SCU).add_scu(storage_scu, contexts)
        remote = RemoteAE(self.node.ae_title, self.node.address.endpoint)
        async with await ae.request_association(remote, contexts) as asce:
            statuses = [
                await asce.get_scu(meta.MediaStorageSOPClassUID)(path)
                for path, meta in zip(paths, metas, strict=True)
            ]
        assert statuses == [0xC000, 0xC000, 0xC000, 0x0000]
        assert list(self.node.instances()) == [self.whole.instance]


class Keeper(AE):
    """An SCP that remembers a digest of each file it receives."""

    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title)
        self.received: list[str] = []

    async def on_receive_store(self, ctx: object, ds: BinaryIO) -> int:
        """The hook of netdicom2: the file is at its Part 10 header."""
        # Preamble, prefix, and File Meta Information Group Length, whose value is the rest of it.
        header = ds.read(144)
        assert header[128:136] == b"DICM\x02\x00\x00\x00"
        ds.seek(int.from_bytes(header[140:], "little"), os.SEEK_CUR)
        digest = hashlib.sha256(ds.read()).hexdigest()
        self.received.append(digest)
        return 0x0000


class SCPTests(TestCase):
    """Our SCU to an AE of the library with a hook, both in this process."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, samples: tuple[Sample, ...], big_sample: Sample) -> None:
        self.sent = [*samples[:20], big_sample]

    async def test_the_hook_gets_each_data_set_as_it_is_in_the_file(self) -> None:
        """Over real sockets and in one thread: neither side may keep the other waiting."""
        keeper = Keeper("KEEPER").add_scp(storage_scp).add_scp(verification_scp)
        port = await keeper.listen("tcp:0:interface=127.0.0.1")
        try:
            address = Address("KEEPER", cast(IPv4Address, port.getHost()).port)
            assert await echo(address) == 0x0000
            statuses = await store(address, self.sent)
        finally:
            await maybeDeferred(port.stopListening)
        assert statuses == {sample.path.name: 0x0000 for sample in self.sent}
        digests = [hashlib.sha256(sample.data_set).hexdigest() for sample in self.sent]
        assert keeper.received == digests
