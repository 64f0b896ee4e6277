"""What the node promises about its index: found at once, cancelled at once, refused in time."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, Status, storage_scu
from netdicom_tx.archive import FileStore
from netdicom_tx.sopclass import qr_find_scu
from netdicom_tx.uids import (
    STUDY_ROOT_FIND_SOP_CLASS,
)
from support.archive.patients import data_set
from support.interop.peers import OUR_SCU
from support.interop.population import write_part10
from support.node import Address, Node
from support.processes import program, succeed

pytestmark = pytest.mark.interop


class AtOnceTests(TestCase):
    """What has been acknowledged is found by the next message."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, node: Node) -> None:
        self.node = node

    async def test_what_was_stored_is_found_in_the_next_message(self) -> None:
        """On the association of the C-STORE, and on another one: PS3.4 B.2.3 and RELIABILITY."""
        ae = AE(OUR_SCU).add_scu(storage_scu, [SecondaryCaptureImageStorage])
        ae.add_scu(qr_find_scu)
        remote = RemoteAE(self.node.ae_title, self.node.address.endpoint)
        async with (
            await ae.request_association(remote) as storing,
            await ae.request_association(remote) as asking,
        ):
            for number in range(1, 51):
                ds = data_set(
                    SOPClassUID=SecondaryCaptureImageStorage,
                    SOPInstanceUID=f"1.2.5.1.1.{number}",
                    StudyInstanceUID="1.2.5.1",
                    SeriesInstanceUID="1.2.5.1.1",
                    PatientID="NOW",
                    Modality="OT",
                )
                assert await storing.get_scu(SecondaryCaptureImageStorage)(ds) == 0x0000
                asked = data_set(
                    QueryRetrieveLevel="STUDY",
                    StudyInstanceUID="1.2.5.1",
                    NumberOfStudyRelatedInstances="",
                )
                for asce in (storing, asking):
                    stream = asce.get_scu(STUDY_ROOT_FIND_SOP_CLASS)(asked)
                    found = [each async for each, _ in stream]
                    assert [str(each.NumberOfStudyRelatedInstances) for each in found[:-1]] == [
                        str(number)
                    ]


MANY = 10_000


def fill(store: FileStore, count: int) -> None:
    """So many instances of one series, as files that the node finds when it starts."""
    ds = data_set(
        SOPClassUID=SecondaryCaptureImageStorage,
        SOPInstanceUID="1.2.6.1.1.100000",
        StudyInstanceUID="1.2.6.1",
        SeriesInstanceUID="1.2.6.1.1",
        PatientID="MANY",
        PatientComments="x" * 4000,
        Modality="OT",
        InstanceNumber=1,
    )
    first = store.root / "first.dcm"
    store.root.mkdir(parents=True)
    write_part10(ds, first)
    octets = first.read_bytes()
    first.unlink()
    for number in range(count):
        uid = f"1.2.6.1.1.{100_000 + number}"
        path = store.path(uid)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets.replace(b"1.2.6.1.1.100000", uid.encode()))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with ten thousand instances in one series."""
    directory = tmp_path_factory.mktemp("large")
    node = Node(directory)
    fill(FileStore(node.storage), MANY)
    node.start()
    yield node
    node.stop()
    assert "Traceback" not in node.log


def all_of_the_series(**more: str) -> Dataset:
    return data_set(
        QueryRetrieveLevel="IMAGE",
        StudyInstanceUID="1.2.6.1",
        SeriesInstanceUID="1.2.6.1.1",
        SOPInstanceUID="",
        InstanceNumber="",
        **more,
    )


def all_at_length() -> Dataset:
    """The same with 40 MB of answers: more than the buffers between two processes hold."""
    return all_of_the_series(PatientComments="")


class CancelTests(TestCase):
    """C-CANCEL in the middle of ten thousand answers."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, large: Node) -> None:
        self.node = large

    async def find(self, cancel_after: int | None) -> tuple[int, int]:
        ae = AE(OUR_SCU).add_scu(qr_find_scu)
        remote = RemoteAE(self.node.ae_title, self.node.address.endpoint)
        count = 0
        async with await ae.request_association(remote) as asce:
            asked = all_of_the_series() if cancel_after is None else all_at_length()
            stream = asce.get_scu(STUDY_ROOT_FIND_SOP_CLASS)(asked)
            async for ds, status in stream:  # noqa: B007 - the last one is returned
                count += ds is not None
                if count == cancel_after:
                    stream.cancel()
                    cancel_after = None
        return count, int(status)

    async def test_without_it_all_of_them_come(self) -> None:
        """Nobody is left out, and the stream ends with Success."""
        assert await self.find(None) == (MANY, 0x0000)

    async def test_it_is_answered_at_once(self) -> None:
        """PS3.7 9.3.2.3: FE00; what came before is not read to its end."""
        count, status = await self.find(100)
        assert status == 0xFE00
        assert 100 <= count < MANY // 2

    async def test_findscu_cancels(self) -> None:
        """DCMTK's option --cancel, which reads on until the final response."""
        printed = await deferToThread(
            findscu_cancelling, self.node.address, self.node.storage.parent / "cancel"
        )
        assert "Received Final Find Response (Cancel" in printed
        assert printed.count("Find Response:") < MANY


def findscu_cancelling(address: Address, directory: Path) -> str:
    """What findscu prints when it cancels after a hundred responses."""
    directory.mkdir()
    query = directory / "query.dcm"
    write_part10(all_at_length(), query)
    return succeed(
        program("findscu"),
        *("--verbose", "--study", "--cancel", "100", "--call", address.ae_title),
        *address.arguments,
        query,
        TCP_NODELAY="1",
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB, where the tests may mount one."""
    directory = tmp_path / "archive"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


class FullDiskTests(TestCase):
    """A node whose disk fills up."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, small_disk: Path) -> Iterator[None]:
        # Its log is elsewhere.
        self.node = Node(small_disk.parent)
        self.ballast = small_disk / "ballast"
        self.ballast.write_bytes(bytes(12 << 20))
        self.node.start()
        yield
        self.node.stop()
        assert "Traceback" not in self.node.log

    def instance(self, number: int, frames: int = 1) -> Dataset:
        return data_set(
            SOPClassUID=SecondaryCaptureImageStorage,
            SOPInstanceUID=f"1.2.7.1.1.{number}",
            StudyInstanceUID="1.2.7.1",
            SeriesInstanceUID="1.2.7.1.1",
            PatientID="FULL",
            Modality="OT",
            Rows=512,
            Columns=512,
            SamplesPerPixel=1,
            BitsAllocated=8,
            NumberOfFrames=frames,
            PixelData=Random(number).randbytes(frames * 512 * 512),
        )

    async def test_it_refuses_serves_on_and_recovers(self) -> None:
        """PS3.4 Table B.2-1: 0xA700 out of resources; nothing acknowledged is lost."""
        ae = AE(OUR_SCU).add_scu(storage_scu, [SecondaryCaptureImageStorage])
        ae.add_scu(qr_find_scu)
        remote = RemoteAE(self.node.ae_title, self.node.address.endpoint)
        kept = []
        async with await ae.request_association(remote) as asce:
            store = asce.get_scu(SecondaryCaptureImageStorage)
            # Nobody knows beforehand that this one will not fit.
            assert await store(self.instance(1000, frames=64)) == 0xA700
            status, number = Status(0x0000), 0
            while status == 0x0000:
                number += 1
                assert number < 100, "the disk has more room than it was given"
                status = await store(self.instance(number))
                if status == 0x0000:
                    kept.append(f"1.2.7.1.1.{number}")
            assert status == 0xA700
            assert "out of resources" in status.comment
            assert await store(self.instance(number)) == 0xA700

            asked = data_set(
                QueryRetrieveLevel="IMAGE",
                StudyInstanceUID="1.2.7.1",
                SeriesInstanceUID="1.2.7.1.1",
                SOPInstanceUID="",
            )
            stream = asce.get_scu(STUDY_ROOT_FIND_SOP_CLASS)(asked)
            found = [str(ds.SOPInstanceUID) async for ds, _ in stream if ds is not None]
            assert sorted(found) == sorted(kept)
            assert sorted(self.node.instances()) == sorted(kept)

            self.ballast.unlink()
            assert await store(self.instance(number)) == 0x0000
        assert len(self.node.instances()) == len(kept) + 1
