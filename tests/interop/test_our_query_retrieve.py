"""Our own SCUs ask the node that ``test_query_retrieve.py`` has the others ask."""

import io
from typing import Any, BinaryIO

import pydicom
import pytest
from pydicom.dataset import Dataset
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, Status, StatusError, storage_scp
from netdicom_tx.asceprovider import Association
from netdicom_tx.dimsemessages import Response
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.pdu import AAssociateRQ
from netdicom_tx.sopclass import qr_find_scu, qr_get_scu, qr_move_scu
from netdicom_tx.uids import (
    ALL_TRANSFER_SYNTAXES,
    STUDY_ROOT_FIND_SOP_CLASS,
    STUDY_ROOT_GET_SOP_CLASS,
    STUDY_ROOT_MOVE_SOP_CLASS,
)
from netdicom_tx.userdataitems import SOPClassExtendedNegotiation
from support.archive.patients import data_set, study_uid
from support.interop.archives import Loaded
from support.interop.peers import OUR_SCU
from support.interop.population import BULK
from support.interop.queries import QUERIES, Asked, expected, identifier, labels

pytestmark = pytest.mark.interop


class Destination(AE):
    """Receives in the test, and counts.

    Attributes:
        kept: SOP Instance UIDs of what it has taken.
        refuse_after: It answers 0xA700 to all beyond so many.
        abort_at: It aborts at this one, and rejects from then on.
    """

    def __init__(self, title: str = OUR_SCU) -> None:
        super().__init__(title)
        self.kept: dict[str, bytes] = {}
        self.refuse_after: int | None = None
        self.abort_at: int | None = None
        self.open: set[Association] = set()
        self.add_scp(storage_scp, transfer_syntaxes=ALL_TRANSFER_SYNTAXES)

    def on_association_request(self, asce: Association, request: AAssociateRQ) -> None:
        self.open.add(asce)

    def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
        octets = ds.read()
        ds.seek(0)
        uid = str(pydicom.dcmread(ds, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        if self.abort_at is not None and len(self.kept) + 1 >= self.abort_at:
            for each in self.open:
                each.abort()
            return 0xA700
        if self.refuse_after is not None and len(self.kept) >= self.refuse_after:
            raise StatusError(0xA700, "full")
        self.kept[uid] = octets
        return 0x0000


def study(label: str) -> Dataset:
    uid = "1.2.4.1" if label == BULK else study_uid(label)
    return data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid)


class OurTests(TestCase):
    """Find, get and move with the library, all of it on one node."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.remote = RemoteAE(loaded.address.ae_title, loaded.address.endpoint)

    def scu(self) -> AE:
        return Destination().add_scu(qr_find_scu).add_scu(qr_get_scu).add_scu(qr_move_scu)

    async def ask(self, asce: Association, asked: Asked) -> list[str]:
        stream = asce.get_scu(STUDY_ROOT_FIND_SOP_CLASS)(identifier(asked))
        found = [item async for item in stream]
        assert found[-1] == (None, 0x0000)
        answers = [ds for ds, _ in found[:-1]]
        return labels(self.loaded.population, asked, answers)

    async def find(self, asked: Asked, options: bytes) -> list[str]:
        item = SOPClassExtendedNegotiation(STUDY_ROOT_FIND_SOP_CLASS, options)
        async with await self.scu().request_association(self.remote, user_items=[item]) as asce:
            return await self.ask(asce, asked)

    async def test_our_scu_finds_what_findscu_finds(self) -> None:
        """The study root part of the table, on one association."""
        async with await self.scu().request_association(self.remote) as asce:
            for asked in QUERIES:
                if asked.model == "S":
                    found = await self.ask(asce, asked)
                    assert found == expected(self.loaded.population, asked), asked.what

    async def test_empty_values_are_matched_by_negotiation(self) -> None:
        """PS3.4 C.2.2.2.7, the sixth byte: two quotation marks."""
        asked = Asked("", "STUDY", {"StudyDate": '""'}, "")
        unknown = self.loaded.population.unknown("STUDY", "S", ["StudyDate"])
        assert await self.find(asked, bytes(5) + b"\1") == sorted(unknown)
        assert len(unknown) > 10

    async def test_multiple_values_are_matched_by_negotiation(self) -> None:
        """PS3.4 C.2.2.2.8, the seventh byte: each value must be there."""
        asked = Asked("", "STUDY", {"ModalitiesInStudy": ["PT", "CT"]}, "A2 M1 B1")
        found = await self.find(asked, bytes(6) + b"\1")
        assert set(found) == {"A2", "M1", "B1"}

    async def test_get_brings_each_instance_once(self) -> None:
        """PS3.4 C.4.3: roles proposed by themselves, counters at the end."""
        wanted = self.loaded.population.instances("STUDY", BULK)
        ae = self.scu()
        got = []
        async with await ae.request_association(self.remote) as asce:
            stream = asce.get_scu(STUDY_ROOT_GET_SOP_CLASS)(study(BULK))
            async for context, item in stream:
                if context is None:
                    assert item == 0x0000
                else:
                    ds = pydicom.dcmread(item, specific_tags=["SOPInstanceUID"])
                    got.append(str(ds.SOPInstanceUID))
        assert sorted(got) == sorted(wanted)
        assert stream.progress.number_of_completed_suboperations == len(wanted)

    async def move(
        self, label: str, to: "str | AE"
    ) -> tuple[list[tuple[Status, Response]], list[Any]]:
        async with await self.scu().request_association(self.remote) as asce:
            stream = asce.get_scu(STUDY_ROOT_MOVE_SOP_CLASS)(study(label), to)
            responses = [each async for each in stream]
        return responses, stream.arrivals

    async def listen(self, **behaviour: Any) -> Destination:
        """A destination of this process, known to the node as ``HERE``."""
        here = Destination("HERE")
        for name, value in behaviour.items():
            setattr(here, name, value)
        port = await here.listen(f"tcp:{self.loaded.here}:interface=127.0.0.1")

        async def close() -> None:
            await port.stopListening()
            await here.drain(0)

        self.addCleanup(lambda: _deferred(close()))
        return here

    async def test_move_says_what_arrived_here(self) -> None:
        """PS3.7 9.1.1.1: by the Move Originator of each C-STORE."""
        here = await self.listen()
        wanted = self.loaded.population.instances("STUDY", BULK)
        responses, arrivals = await self.move(BULK, here)
        assert responses[-1][0] == 0x0000
        assert here.kept.keys() == wanted
        # The AE that asks and the one that receives have two titles, so nothing is said of it.
        final = responses[-1][1]
        assert final.number_of_completed_suboperations == len(wanted)
        assert final.number_of_failed_suboperations == 0
        assert {each.sop_instance_uid for each in arrivals} == wanted

    async def test_counters_go_down_to_nothing(self) -> None:
        """PS3.4 C.4.2.1.6: each Pending response has all four, which add up."""
        await self.listen()
        responses, _ = await self.move("S1", "HERE")
        counted = [
            (
                each.number_of_remaining_suboperations,
                each.number_of_completed_suboperations,
                each.number_of_failed_suboperations,
                each.number_of_warning_suboperations,
            )
            for _, each in responses
        ]
        assert counted == [(3, 1, 0, 0), (2, 2, 0, 0), (1, 3, 0, 0), (None, 4, 0, 0)]

    async def test_a_destination_that_refuses_some(self) -> None:
        """PS3.4 C.4.2.3.1: 0xB000, with the list of those that failed (0008,0058)."""
        here = await self.listen(refuse_after=2)
        responses, _ = await self.move("S1", "HERE")
        status, final = responses[-1]
        assert status == 0xB000
        assert final.number_of_completed_suboperations == 2
        assert final.number_of_failed_suboperations == 2
        failed = pydicom.dcmread(_part(final), force=True).FailedSOPInstanceUIDList
        wanted = self.loaded.population.instances("STUDY", "S1")
        assert set(failed) == wanted - here.kept.keys()

    async def test_a_destination_that_aborts(self) -> None:
        """The rest of the association's instances are tried again, and counted as failed at last."""
        here = await self.listen(abort_at=3)
        responses, _ = await self.move("S1", "HERE")
        status, final = responses[-1]
        assert status == 0xB000
        assert final.number_of_completed_suboperations == len(here.kept) == 2
        assert final.number_of_failed_suboperations == 2

    async def test_a_destination_that_rejects_or_is_dead(self) -> None:
        """PS3.4 C.4.2.3.1: all failed, 0xA702."""
        for destination in ("REFUSING", "DEAD"):
            responses, _ = await self.move("S1", destination)
            status, final = responses[-1]
            assert status == 0xA702
            assert final.number_of_completed_suboperations == 0
            assert final.number_of_failed_suboperations == 4

    async def test_an_unknown_destination_is_said_with_its_name(self) -> None:
        """PS3.4 Table C.4-2, with an Error Comment."""
        responses, _ = await self.move("S1", "NOBODY")
        status, _ = responses[-1]
        assert len(responses) == 1
        assert status == 0xA801
        assert "NOBODY" in status.comment


def _part(response: Response) -> BinaryIO:
    assert isinstance(response.data_set, bytes)
    return io.BytesIO(response.data_set)


def _deferred(coroutine: Any) -> Any:
    return Deferred.fromCoroutine(coroutine)
