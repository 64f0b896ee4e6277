"""Storage commitment of the node, with pynetdicom and Orthanc in both roles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE
from netdicom_tx.sopclass import (
    CommitmentResult,
    StorageCommitment,
    request_commitment,
    storage_commitment_scu,
)
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT

from .ours import store
from .peers import Address, Node, Orthanc, eventually, free_port, need_pynetdicom
from .samples import Sample

pytestmark = pytest.mark.interop

need_pynetdicom()

from .pynetdicom_workflow import Told, ask, associated, committing, listening  # noqa: E402

NOWHERE = ("1.2.840.10008.5.1.4.1.1.2", "1.2.826.0.1.3680043.10.1.99")


def reference(sample: Sample) -> tuple[str, str]:
    return sample.sop_class, sample.instance


@pytest.fixture(scope="session")
def few(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Three images."""
    names = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm")
    return tuple(sample for sample in samples if sample.name in names)


def file_of(node: Node, sample: Sample) -> Path:
    return node.instances()[sample.instance]


class PynetdicomTests(TestCase):
    """pynetdicom asks the node."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, start_node: Callable[..., Node], few: tuple[Sample, ...]) -> None:
        self.start, self.samples = start_node, few
        self.references = [reference(sample) for sample in few]

    async def kept(self, node: Node) -> None:
        statuses = await store(node.address, self.samples)
        assert set(statuses.values()) == {0}

    async def test_on_the_same_association(self) -> None:
        node = self.start()
        await self.kept(node)
        told = Told()
        with associated(node.address, "PYSCU", [COMMITMENT], told) as association:
            assert ask(association, "1.2.1", [*self.references, NOWHERE]) == 0
            event, transaction, kept, failed = told.next()
            assert (event, transaction) == (2, "1.2.1")
            assert kept == [uid for _, uid in self.references]
            assert failed == {NOWHERE[1]: 0x0112}
            # The association goes on; and the same UID again is a duplicate.
            assert ask(association, "1.2.1", self.references[:1]) == 0
            assert told.next() == (2, "1.2.1", [], {self.references[0][1]: 0x0131})
            assert ask(association, "1.2.2", self.references) == 0
            assert told.next()[0] == 1

    async def test_on_an_association_of_the_node(self) -> None:
        told = Told()
        with listening("PYSCU", told) as here:
            node = self.start(f"--peer=PYSCU@127.0.0.1:{here.port}")
            await self.kept(node)
            with associated(node.address, "PYSCU", [COMMITMENT]) as association:
                assert ask(association, "1.2.1", self.references) == 0
            assert told.next() == (1, "1.2.1", [uid for _, uid in self.references], {})

    async def test_a_damaged_file_is_failed_and_never_committed(self) -> None:
        node = self.start()
        await self.kept(node)
        path = file_of(node, self.samples[1])
        octets = bytearray(path.read_bytes())
        octets[-1000] ^= 0x10
        path.write_bytes(octets)
        file_of(node, self.samples[2]).unlink()
        told = Told()
        with associated(node.address, "PYSCU", [COMMITMENT], told) as association:
            assert ask(association, "1.2.1", self.references) == 0
            assert told.next() == (
                2,
                "1.2.1",
                [self.references[0][1]],
                {self.references[1][1]: 0x0110, self.references[2][1]: 0x0110},
            )

    async def test_a_kill_between_request_and_report_loses_nothing(self) -> None:
        """RELIABILITY D11: Success was answered, so the report is owed for good."""
        port, told = free_port(), Told()
        node = self.start(f"--peer=PYSCU@127.0.0.1:{port}")
        await self.kept(node)
        with associated(node.address, "PYSCU", [COMMITMENT]) as association:
            assert ask(association, "1.2.1", self.references) == 0
            node.kill()
        with listening("PYSCU", told, port):
            node.start()
            assert told.next() == (1, "1.2.1", [uid for _, uid in self.references], {})

    async def test_a_requestor_that_is_away_has_its_report_within_a_minute(self) -> None:
        port, told = free_port(), Told()
        node = self.start(f"--peer=PYSCU@127.0.0.1:{port}")
        await self.kept(node)
        with associated(node.address, "PYSCU", [COMMITMENT]) as association:
            assert ask(association, "1.2.1", self.references) == 0
        eventually(lambda: "attempt 1: no connection to PYSCU" in node.log, "failed attempt")
        with listening("PYSCU", told, port):
            assert told.next(60) == (1, "1.2.1", [uid for _, uid in self.references], {})


class Modality(AE):
    """Our SCU; it listens for reports too."""

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.add_scu(storage_commitment_scu).add_scp(StorageCommitment())


class OurTests(TestCase):
    """Our SCU asks pynetdicom, Orthanc and the node; the report comes on either association."""

    @pytest.fixture(autouse=True)
    def _fixtures(
        self,
        start_node: Callable[..., Node],
        few: tuple[Sample, ...],
        request: pytest.FixtureRequest,
    ) -> None:
        self.start, self.samples, self.request = start_node, few, request
        self.references = [reference(sample) for sample in few]

    async def listen(self, ae: Modality) -> Address:
        port: Any = await ae.listen("tcp:0:interface=127.0.0.1")
        self.addCleanup(ae.drain, 1)
        self.addCleanup(port.stopListening)
        return Address(ae.ae_title, port.getHost().port)

    async def commit(
        self,
        ae: Modality,
        address: Address,
        transaction: str = "1.2.1",
        *,
        hold: bool,
        references: Any = None,
    ) -> CommitmentResult:
        remote = RemoteAE(address.ae_title, address.endpoint)
        asce = await ae.request_association(remote)
        wanted = self.references if references is None else references
        waiting = ensureDeferred(
            request_commitment(asce, wanted, transaction_uid=transaction, timeout=60)
        )
        if not hold:
            # It waits for the answer to the request.
            await asce.release()
        result = await waiting
        if hold:
            # The report is answered first: who releases in the turn in which it came leaves it owed.
            await deferLater(ae.reactor, 0)
            await asce.release()
        for each in ae.associations:
            # The peer has opened it, and ends it when it has our answer.
            await each.closed()
        return result

    async def test_the_node_on_both_associations(self) -> None:
        ae = Modality("OURSCU")
        here = await self.listen(ae)
        node = self.start(f"--peer=OURSCU@127.0.0.1:{here.port}")
        await store(node.address, self.samples)
        result = await self.commit(
            ae, node.address, hold=True, references=[*self.references, NOWHERE]
        )
        assert result == ("1.2.1", tuple(self.references), ((*NOWHERE, 0x0112),))
        result = await self.commit(ae, node.address, "1.2.2", hold=False)
        assert result == ("1.2.2", tuple(self.references), ())
        again = await self.commit(ae, node.address, hold=False)
        assert {reason for *_, reason in again.failed} == {0x0131}

    async def test_pynetdicom_reports_on_either_association(self) -> None:
        """On the one that we hold; or on one that it opens, on which it is SCP by role selection."""
        ae = Modality("OURSCU")
        here = await self.listen(ae)
        with committing("PYSCP", here) as there:
            for hold in (True, False):
                result = await self.commit(
                    ae, there, hold=hold, references=[*self.references, NOWHERE]
                )
                assert result == ("1.2.1", tuple(self.references), ((*NOWHERE, 0x0112),))

    async def test_orthanc_reports_on_an_association_of_its_own(self) -> None:
        """Orthanc looks an instance up in its database."""
        orthanc: Orthanc = self.request.getfixturevalue("orthanc")
        ae = Modality("COMMITSCU")
        here = await self.listen(ae)
        orthanc.modality(here)
        for sample in self.samples[:2]:
            orthanc.upload(sample.path)
        result = await self.commit(ae, orthanc.address, hold=False)
        assert set(result.committed) == set(self.references[:2])
        assert result.failed == ((*self.references[2], 0x0112),)

    async def test_orthanc_asks_the_node(self) -> None:
        """Orthanc takes the report on an association that the node opens, by role selection."""
        orthanc: Orthanc = self.request.getfixturevalue("orthanc")
        node = self.start(f"--peer=ORTHANC@127.0.0.1:{orthanc.address.port}")
        await store(node.address, self.samples[:2])
        modality = orthanc.modality(node.address)
        for references, expected in (
            (self.references[:2], ("Success", 2, {})),
            (self.references, ("Failure", 2, {self.references[2][1]: 0x0112})),
        ):
            asked = orthanc.rest(
                f"{modality}/storage-commitment", {"DicomInstances": [list(r) for r in references]}
            )

            def done(asked: Any = asked) -> Any:
                found = orthanc.rest(asked["Path"])
                return None if found["Status"] == "Pending" else found

            report = eventually(done, "report at Orthanc")
            failures = {
                each["SOPInstanceUID"]: each["FailureReason"] for each in report["Failures"]
            }
            assert (report["Status"], len(report["Success"]), failures) == expected
            assert report["RemoteAET"] == "NETDICOM"
