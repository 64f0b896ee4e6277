"""Storage commitment of the node, with pynetdicom and Orthanc in both roles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE
from netdicom_tx.sopclass import (
    CommitmentResult,
    StorageCommitment,
    request_commitment,
    storage_commitment_scu,
)
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT
from support.interop.ours import store
from support.interop.peers import Orthanc
from support.interop.samples import Sample
from support.node import Address, Node
from support.processes import WITH_PYNETDICOM, eventually, free_port, need_pynetdicom

pytestmark = WITH_PYNETDICOM

need_pynetdicom()

import pynetdicom  # noqa: E402

from support.interop.pynetdicom_workflow import (  # noqa: E402
    WELL_KNOWN,
    Told,
    ask,
    associated,
    committing,
    data_set,
    listening,
    reporting,
    request_information,
)

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

    async def test_a_restart_between_request_and_report_loses_nothing(self) -> None:
        """RELIABILITY D11: Success was answered, so the report is owed for good."""
        port, told = free_port(), Told()
        node = self.start(f"--peer=PYSCU@127.0.0.1:{port}")
        await self.kept(node)
        for transaction, end in (("1.2.1", node.kill), ("1.2.2", node.stop)):
            with associated(node.address, "PYSCU", [COMMITMENT]) as association:
                assert ask(association, transaction, self.references) == 0
                end()
            with listening("PYSCU", told, port):
                node.start()
                assert told.next(60) == (1, transaction, [uid for _, uid in self.references], {})

    async def test_a_bad_request_has_its_status_and_the_association_lives_on(self) -> None:
        """PS3.7 10.1.4.1.10, PS3.4 J.3.2; nothing is written down of it, so nothing is reported."""
        node = self.start()
        await self.kept(node)
        told = Told()
        good = request_information("1.2.1", self.references)
        no_transaction, no_instance = (
            request_information("1.2.1", self.references) for _ in range(2)
        )
        del no_transaction.TransactionUID
        del no_instance.ReferencedSOPSequence[1].ReferencedSOPInstanceUID
        no_sequence = data_set(TransactionUID="1.2.1")
        with associated(node.address, "PYSCU", [COMMITMENT], told) as association:

            def request(ds: Dataset | None, action: int = 1, instance: str = WELL_KNOWN) -> int:
                answer = association.send_n_action(ds, action, UID(COMMITMENT), UID(instance))
                return int(answer[0].Status)

            def others(ds: Dataset = good) -> list[int]:
                answers = (
                    association.send_n_create(ds, UID(COMMITMENT), UID(WELL_KNOWN)),
                    association.send_n_set(ds, UID(COMMITMENT), UID(WELL_KNOWN)),
                    association.send_n_get([0x00081195], UID(COMMITMENT), UID(WELL_KNOWN)),
                )
                return [int(status.Status) for status, _ in answers]

            assert request(no_transaction) == 0x0120
            assert request(request_information("", self.references)) == 0x0120
            assert request(None) == 0x0115
            assert request(no_sequence) == 0x0115
            assert request(request_information("1.2.1", [])) == 0x0115
            assert request(no_instance) == 0x0115
            assert request(good, action=2) == 0x0123
            assert request(good, instance="1.2.3") == 0x0112
            assert others() == [0x0211] * 3
            # The transaction UID is as good as new.
            assert request(good) == 0
            assert told.next() == (1, "1.2.1", [uid for _, uid in self.references], {})
            assert told.is_empty

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
        self.commitment = StorageCommitment()
        self.add_scu(storage_commitment_scu).add_scp(self.commitment)


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

    async def test_a_bad_report_has_its_status_and_the_association_lives_on(self) -> None:
        """PS3.7 10.1.1.1.8; who waits for a report waits on."""
        ae = Modality("OURSCU")
        here = await self.listen(ae)
        waiting = ae.commitment.await_report("1.2.1")
        good = request_information("1.2.1", self.references)
        foreign = request_information("1.2.99", self.references)
        no_transaction = data_set(ReferencedSOPSequence=good.ReferencedSOPSequence)

        def report() -> list[int]:
            scp = pynetdicom.AE("PYSCP")
            scp.add_requested_context(COMMITMENT)
            with reporting(scp, here) as association:
                answers = [
                    association.send_n_event_report(ds, event, UID(COMMITMENT), UID(WELL_KNOWN))
                    for ds, event in (
                        (good, 3),
                        (no_transaction, 1),
                        (None, 1),
                        (foreign, 1),
                        (good, 1),
                    )
                ]
            return [int(status.Status) for status, _ in answers]

        assert await deferToThread(report) == [0x0113, 0x0115, 0x0115, 0x0110, 0x0000]
        assert await waiting == ("1.2.1", tuple(self.references), ())

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
