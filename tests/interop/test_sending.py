"""What our SCU sends reaches DCMTK, Orthanc and pynetdicom, byte for byte."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu
from netdicom_tx.exceptions import AssociationRejectedError, ClassNotSupportedError
from support.interop.dcmtk import sendable
from support.interop.ours import changed, echo, store
from support.interop.peers import (
    OUR_SCU,
    PYNETDICOM_PEER,
    Orthanc,
    PynetdicomReceiver,
    PynetdicomStoreSCP,
    StoreSCP,
)
from support.interop.samples import (
    COLOR_PALETTE_STORAGE,
    Sample,
    as_pydicom_writes,
    one_of_each,
    read,
)
from support.part10 import data_set_bytes
from support.processes import need_pynetdicom, succeed

pytestmark = pytest.mark.interop


class DCMTKTests(TestCase):
    """To ``storescp``."""

    @pytest.fixture(autouse=True)
    def _fixtures(
        self, samples: tuple[Sample, ...], start_storescp: Callable[..., StoreSCP]
    ) -> None:
        self.start_storescp = start_storescp
        self.samples = [s for s in samples if s.sop_class != COLOR_PALETTE_STORAGE]
        self.palettes = [s for s in samples if s.sop_class == COLOR_PALETTE_STORAGE]

    async def test_echo_is_answered(self) -> None:
        """PS3.4 Annex A, with DCMTK as shipped."""
        assert await echo(self.start_storescp().address) == 0x0000

    async def test_every_sample_arrives_as_it_is_in_the_file(self) -> None:
        """Compressed, deflated, big endian: a file goes out as it is, never decoded."""
        scp = self.start_storescp("--accept-all", "--bit-preserving")
        statuses = await store(scp.address, self.samples)
        assert statuses == {sample.path.name: 0x0000 for sample in self.samples}
        assert changed(self.samples, await deferToThread(scp.instances)) == []

    async def test_storescp_as_shipped_reads_what_arrives(self) -> None:
        """It takes uncompressed data sets, reads them and writes them in its own way."""
        scp = self.start_storescp()
        sent = [
            sample
            for sample in one_of_each(self.samples)
            if sample.transfer_syntax == ExplicitVRLittleEndian
        ]
        statuses = await store(scp.address, sent)
        assert statuses == {sample.path.name: 0x0000 for sample in sent}
        kept = await deferToThread(scp.instances)
        for sample in sent:
            assert read(kept[sample.instance]).SOPInstanceUID == sample.instance

    async def test_a_class_that_storescp_does_not_know_is_a_typed_error(self) -> None:
        """PS3.8 9.3.3.2: a context is refused; the accepted one is used all the same."""
        scp = self.start_storescp("--accept-all", "--bit-preserving")
        known, unknown = self.samples[0], self.palettes[0]
        ae = AE(OUR_SCU).add_scu(storage_scu, [unknown.sop_class, known.sop_class])
        remote = RemoteAE(scp.ae_title, scp.address.endpoint)
        async with await ae.request_association(remote) as asce:
            with pytest.raises(ClassNotSupportedError) as caught:
                await asce.get_scu(unknown.sop_class)(unknown.path)
            assert caught.value.sop_class == unknown.sop_class
            assert await asce.get_scu(known.sop_class)(known.path) == 0x0000
        assert changed([known], await deferToThread(scp.instances)) == []

    async def test_a_syntax_that_storescp_does_not_take_is_a_typed_error(self) -> None:
        """As shipped it takes nothing compressed, and we do not decompress behind its back."""
        scp = self.start_storescp()
        compressed = next(s for s in self.samples if s.name == "MR_small_RLE.dcm")
        plain = next(s for s in self.samples if s.name == "MR_small.dcm")
        ae = AE(OUR_SCU).add_scu(storage_scu, [plain.sop_class])
        remote = RemoteAE(scp.ae_title, scp.address.endpoint)
        async with await ae.request_association(remote) as asce:
            with pytest.raises(ClassNotSupportedError):
                await asce.get_scu(compressed.sop_class)(compressed.path)
            assert await asce.get_scu(plain.sop_class)(plain.path) == 0x0000
        assert list(await deferToThread(scp.instances)) == [plain.instance]


class OrthancTests(TestCase):
    """To Orthanc."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, samples: tuple[Sample, ...], orthanc: Orthanc, tmp_path: Path) -> None:
        self.samples = [sample for sample in one_of_each(sendable(samples)) if sample.in_hierarchy]
        self.orthanc = orthanc
        self.directory = tmp_path

    async def test_echo_is_answered(self) -> None:
        """PS3.4 Annex A, with Orthanc."""
        assert await echo(self.orthanc.address) == 0x0000

    async def test_it_holds_what_it_holds_when_pynetdicom_sends_the_files(self) -> None:
        """Orthanc encodes again what it receives, so it is asked what it makes of these bytes.

        Of the deflated ones the pixels are compared: pynetdicom does not pad them to an even
        length, which ends its association.
        """
        need_pynetdicom()
        deflated = [s for s in self.samples if s.transfer_syntax == DeflatedExplicitVRLittleEndian]
        plain = [s for s in self.samples if s not in deflated]
        await deferToThread(
            succeed,
            *(sys.executable, PYNETDICOM_PEER, "send", str(self.orthanc.address.port)),
            *(sample.path for sample in plain),
        )
        theirs = await deferToThread(self.orthanc.instances, self.directory / "theirs")
        await deferToThread(self.orthanc.clear)

        statuses = await store(self.orthanc.address, self.samples)
        assert statuses == {sample.path.name: 0x0000 for sample in self.samples}
        ours = await deferToThread(self.orthanc.instances, self.directory / "ours")
        for sample in plain:
            assert data_set_bytes(ours[sample.instance]) == data_set_bytes(theirs[sample.instance])
        for sample in deflated:
            assert read(ours[sample.instance]).PixelData == read(sample.path).PixelData

    async def test_a_caller_it_does_not_know_is_a_typed_error(self) -> None:
        """PS3.8 9.3.4: rejected permanent, by the service user, calling AE title not recognized."""
        with pytest.raises(AssociationRejectedError) as caught:
            await echo(self.orthanc.address, calling="STRANGER")
        error = caught.value
        assert (error.result, error.source, error.diagnostic) == (1, 1, 3)


class PynetdicomTests(TestCase):
    """To an AE of pynetdicom that keeps the bytes that came."""

    @pytest.fixture(autouse=True)
    def _fixtures(
        self, samples: tuple[Sample, ...], pynetdicom_receiver: PynetdicomReceiver
    ) -> None:
        self.samples = samples
        self.peer = pynetdicom_receiver

    async def test_echo_is_answered(self) -> None:
        """PS3.4 Annex A, with pynetdicom."""
        assert await echo(self.peer.address) == 0x0000

    async def test_every_sample_arrives_as_it_is_in_the_file(self) -> None:
        """The palettes too, and the files that DCMTK does not read."""
        statuses = await store(self.peer.address, self.samples)
        assert statuses == {sample.path.name: 0x0000 for sample in self.samples}
        assert changed(self.samples, await deferToThread(self.peer.instances)) == []


class PynetdicomStoreSCPTests(TestCase):
    """To pynetdicom's own program."""

    @pytest.fixture(autouse=True)
    def _fixtures(
        self, samples: tuple[Sample, ...], pynetdicom_storescp: PynetdicomStoreSCP
    ) -> None:
        self.samples = one_of_each(sendable(samples))
        self.peer = pynetdicom_storescp

    async def test_it_reads_what_was_in_the_file(self) -> None:
        """Its files are what pydicom writes for what it has read; deflated ones it leaves alone."""
        statuses = await store(self.peer.address, self.samples)
        assert statuses == {sample.path.name: 0x0000 for sample in self.samples}
        kept = await deferToThread(self.peer.instances)
        expected = {
            s.instance: s.sent
            if s.transfer_syntax == DeflatedExplicitVRLittleEndian
            else as_pydicom_writes(s.path)
            for s in self.samples
        }
        assert {uid: data_set_bytes(path) for uid, path in kept.items()} == expected
