"""A program asks again for each match, on the association that still brings matches."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, PContextDef, RemoteAE, Window, verification_scp, verification_scu
from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.sopclass import qr_find_scp, qr_find_scu
from support.interop.peers import OUR_SCU, Orthanc, PynetdicomPeer

# On an idle machine nothing here takes half a minute; on one that has much else to do, it has its time.
PATIENCE = 600
pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(PATIENCE + 100)]

STUDIES = int(os.environ.get("NETDICOM_TX_MATCHES", "4000"))


class Promises:
    """What a program may do in the loop over matches, with far more of them than a stream keeps unread.

    Attributes:
        remote: The peer.
        studies: How many studies it has, with one series each.
    """

    timeout = PATIENCE  # of trial, whose default is two minutes
    remote: RemoteAE
    studies = STUDIES

    def scu(self, window: int = 1) -> AE:
        limits = Window(window, window)
        return AE(OUR_SCU, window=limits).add_scu(qr_find_scu).add_scu(verification_scu)

    async def _nested(self, window: int) -> None:
        seen = set()
        async with self.scu(window).associate(self.remote) as asce:
            async for study in asce.find("STUDY", StudyInstanceUID=""):
                uid = study.StudyInstanceUID
                (series,) = await asce.find("SERIES", StudyInstanceUID=uid, SeriesInstanceUID="")
                assert series.SeriesInstanceUID == f"{uid}.1"
                seen.add(uid)
        assert len(seen) == self.studies

    async def test_a_query_for_each_match_one_at_a_time(self) -> None:
        """PS3.7 D.3.3.3: without asynchronous operations, each query waits for the end of the first."""
        await self._nested(1)

    async def test_a_query_for_each_match_with_a_window_of_eight(self) -> None:
        await self._nested(8)

    async def test_an_echo_for_some_of_the_matches(self) -> None:
        number = 0
        async with self.scu().associate(self.remote) as asce:
            async for _ in asce.find("STUDY", StudyInstanceUID=""):
                if number % 50 == 0:
                    assert await asce.echo() == 0x0000
                number += 1
        assert number == self.studies

    async def test_a_release_at_the_first_match_leaves_the_others_to_be_read(self) -> None:
        number = 0
        async with self.scu().associate(self.remote) as asce:
            async for _ in asce.find("STUDY", StudyInstanceUID=""):
                await asce.release()
                number += 1
        assert number == self.studies

    async def test_a_reader_that_goes_away_holds_up_nobody(self) -> None:
        """By ``break``; the association is released, and the peer takes another."""
        for _ in range(3):
            async with self.scu().associate(self.remote) as asce:
                async for _ in asce.find("STUDY", StudyInstanceUID=""):
                    break
            assert not asce.is_open
            async with self.scu().associate(self.remote) as other:
                assert await other.echo() == 0x0000


class Archive(AE):
    """Has so many studies, with one series each."""

    def on_receive_find(self, context: PContextDef, ds: Dataset) -> Iterator[Dataset]:
        if ds.QueryRetrieveLevel == "SERIES":
            return iter([match(ds.StudyInstanceUID)])
        return (match(f"1.2.{number}") for number in range(STUDIES))


def match(study: str) -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.1"
    return ds


class OurTests(Promises, TestCase):
    """Ourselves."""

    async def setUp(self) -> None:
        ae = Archive("ARCHIVE", window=Window(8, 8)).add_scp(qr_find_scp).add_scp(verification_scp)
        port: Any = await ae.listen("tcp:0:interface=127.0.0.1")
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.remote = RemoteAE("ARCHIVE", f"tcp:127.0.0.1:{port.getHost().port}")


# Pynetdicom takes 20 ms of processor time for a query and its answer.
PYNETDICOM_STUDIES = 2_000


@pytest.fixture(scope="module")
def pynetdicom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PynetdicomPeer]:
    peer = PynetdicomPeer(tmp_path_factory.mktemp("pynetdicom"), "answer", str(PYNETDICOM_STUDIES))
    yield peer
    peer.close()


class PynetdicomTests(Promises, TestCase):
    """Pynetdicom, which negotiates no asynchronous operations."""

    studies = PYNETDICOM_STUDIES

    @pytest.fixture(autouse=True)
    def _peer(self, pynetdicom: PynetdicomPeer) -> None:
        self.remote = RemoteAE(pynetdicom.ae_title, pynetdicom.address.endpoint)


# Orthanc 1.10 looks through all of its studies for each query. With 10,000 of them that takes it 10 ms, and the whole
# loop two minutes; with 2,000, a few seconds.
ORTHANC_STUDIES = 2_000


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc of its own: the one of the other tests would have to forget so many studies one by one."""
    peer = Orthanc(tmp_path_factory.mktemp("orthanc"), known=[OUR_SCU])
    for first in range(0, ORTHANC_STUDIES, 1000):
        peer.upload_many(map(instance, range(first, first + 1000)))
    yield peer
    peer.close()


def instance(number: int) -> bytes:
    """The file of the one instance of a study."""
    ds = match(f"1.2.{number}")
    ds.PatientID, ds.Modality = "P", "CT"
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"1.2.{number}.1.1"
    header = part10_header(CTImageStorage, ds.SOPInstanceUID, ExplicitVRLittleEndian)
    return header + encode(ds, ExplicitVRLittleEndian)


class OrthancTests(Promises, TestCase):
    """Orthanc, which negotiates no asynchronous operations."""

    studies = ORTHANC_STUDIES

    @pytest.fixture(autouse=True)
    def _peer(self, archive: Orthanc) -> None:
        self.remote = RemoteAE(archive.ae_title, archive.address.endpoint)
