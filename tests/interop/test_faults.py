"""Peers that refuse, abort, hang or die, and a node that is full: each side is told what it is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, Timeouts, storage_scu, verification_scu
from netdicom_tx.exceptions import (
    AssociationAbortedError,
    AssociationRejectedError,
    ConnectionLostError,
    DCMTimeoutError,
)
from netdicom_tx.sopclass import qr_find_scu
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS
from support.interop.archives import Dcmqrscp
from support.interop.peers import OUR_SCU, StoreSCP
from support.interop.samples import Sample
from support.node import Address, Node
from support.processes import eventually, free_port, program, run

pytestmark = pytest.mark.interop


class FaultTests(TestCase):
    """Against DCMTK's ``storescp``, which can be told to misbehave."""

    @pytest.fixture(autouse=True)
    def _fixtures(
        self, samples: tuple[Sample, ...], start_storescp: Callable[..., StoreSCP]
    ) -> None:
        self.sample = next(s for s in samples if s.name == "examples_overlay.dcm")
        self.start_storescp = start_storescp

    async def store(self, address: Address) -> int:
        """The status of one C-STORE."""
        ae = AE(OUR_SCU).add_scu(storage_scu, [self.sample.sop_class])
        remote = RemoteAE(address.ae_title, address.endpoint)
        async with await ae.request_association(remote) as asce:
            return int(await asce.get_scu(self.sample.sop_class)(self.sample.path))

    async def test_nobody_listens(self) -> None:
        """PS3.8 9.2: Transport Connection closed indication in Sta4, AA-4."""
        with pytest.raises(ConnectionLostError):
            await self.store(Address("NOBODY", free_port()))

    async def test_the_association_is_rejected(self) -> None:
        """PS3.8 9.3.4, AE-4; the error has the three numbers of the PDU."""
        with pytest.raises(AssociationRejectedError) as caught:
            await self.store(self.start_storescp("--refuse").address)
        error = caught.value
        assert (error.result, error.source, error.diagnostic) == (1, 1, 1)

    async def test_the_association_is_aborted_instead_of_a_response(self) -> None:
        """PS3.8 AA-3: the outstanding request fails, the peer is named as the one who aborted."""
        with pytest.raises(AssociationAbortedError) as caught:
            await self.store(self.start_storescp("--abort-after").address)
        assert caught.value.by_peer
        assert caught.value.source == 0

    async def test_the_association_is_aborted_while_the_data_set_goes_out(self) -> None:
        """The producer that sends it stops too."""
        with pytest.raises(AssociationAbortedError) as caught:
            await self.store(self.start_storescp("--abort-during").address)
        assert caught.value.by_peer

    async def test_the_peer_dies_before_it_answers(self) -> None:
        """A connection that closes without release or abort has its own error.

        The peer waits with its answer, so that it cannot come before the signal does.
        """
        scp = self.start_storescp("--sleep-during", "60")
        ae = AE(OUR_SCU).add_scu(storage_scu, [self.sample.sop_class])
        asce = await ae.request_association(RemoteAE(scp.ae_title, scp.address.endpoint))
        outstanding = asce.get_scu(self.sample.sop_class)(self.sample.path)
        scp.kill()
        with pytest.raises(ConnectionLostError):
            await outstanding
        assert isinstance(await asce.closed(), ConnectionLostError)

    async def test_the_peer_hangs(self) -> None:
        """No response in time: the error says which timeout, and ARTIM ends the connection."""
        scp = self.start_storescp("--sleep-during", "60")
        ae = AE(OUR_SCU, timeouts=Timeouts(response=0.3, artim=0.3))
        ae.add_scu(storage_scu, [self.sample.sop_class])
        remote = RemoteAE(scp.ae_title, scp.address.endpoint)
        asce = await ae.request_association(remote)
        with pytest.raises(DCMTimeoutError) as caught:
            await asce.get_scu(self.sample.sop_class)(self.sample.path)
        assert caught.value.timer == "response"
        await asce.closed()


class EmptyTests(TestCase):
    """A data set without elements, seen by DCMTK's ``dcmqrscp``."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.archive = Dcmqrscp(tmp_path, known=[OUR_SCU])
        yield
        self.archive.close()

    async def test_an_identifier_without_elements_arrives(self) -> None:
        """PS3.8 E.2: announced, it has a last fragment, of no octets; 0xA900 is the peer's answer to it."""
        remote = RemoteAE(self.archive.ae_title, self.archive.address.endpoint)
        ae = AE(OUR_SCU).add_scu(qr_find_scu)
        async with await ae.request_association(remote) as asce:
            answers = asce.get_scu(STUDY_ROOT_FIND_SOP_CLASS)(Dataset())
            assert [(ds, int(status)) async for ds, status in answers] == [(None, 0xA900)]


class LimitTests(TestCase):
    """Our node at its limit, seen by DCMTK."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, start_node: Callable[..., Node]) -> None:
        self.node = start_node("--max-associations", "1")

    async def test_echoscu_is_rejected_while_the_only_slot_is_taken(self) -> None:
        """PS3.8 Table 9-21: transient, by the presentation provider, local limit exceeded."""
        command = [program("echoscu"), "--verbose", *self.node.address.arguments]
        ae = AE(OUR_SCU).add_scu(verification_scu)
        remote = RemoteAE(self.node.ae_title, self.node.address.endpoint)
        async with await ae.request_association(remote) as asce:
            done = await deferToThread(run, *command)
            assert "Result: Rejected Transient" in done.stdout, done.stdout
            assert "Reason: Local Limit Exceeded" in done.stdout, done.stdout
        await asce.closed()
        await deferToThread(
            eventually, lambda: run(*command).returncode == 0, "free slot for echoscu"
        )
