"""The audit trail of an archive: DCMTK and our SCU store, query and retrieve; each leaves its message."""

import base64
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from pydicom.dataset import Dataset
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scp, storage_scu, verification_scu
from netdicom_tx.archive import ArchiveAE
from netdicom_tx.archive.auditing import Auditor, this_process
from netdicom_tx.archive.index import withdrawal
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.audit_trails import FileTrail
from netdicom_tx.dsutils import decode
from netdicom_tx.exceptions import AssociationError, AssociationRejectedError
from netdicom_tx.identity import Identities, UserNames
from netdicom_tx.sopclass import qr_find_scu, qr_get_scu, qr_move_scu
from netdicom_tx.uids import (
    STUDY_ROOT_FIND_SOP_CLASS,
    STUDY_ROOT_GET_SOP_CLASS,
    STUDY_ROOT_MOVE_SOP_CLASS,
)
from netdicom_tx.userdataitems import UserIdentity
from support.archive.archives import archive, shut_down
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.patients import data_set, instances
from support.audit_schema import checked

NAMES = {
    "110100": "activity",
    "110102": "begun",
    "110103": "accessed",
    "110104": "transferred",
    "110105": "deleted",
    "110112": "query",
    "110113": "alert",
    "110114": "login",
}


def kind(message: Element) -> str:
    """The event of a message, in a word."""
    code = message.find("EventIdentification/EventID")
    assert code is not None
    return NAMES[code.attrib["csd-code"]]


def roles(message: Element) -> list[str]:
    """The user IDs of the participants."""
    return [each.attrib["UserID"] for each in message.findall("ActiveParticipant")]


def objects(message: Element) -> list[str]:
    """The IDs of the objects."""
    found = message.findall("ParticipantObjectIdentification")
    return [each.attrib["ParticipantObjectID"] for each in found]


def outcome(message: Element) -> str:
    """The outcome of the event."""
    found = message.find("EventIdentification")
    assert found is not None
    return found.attrib["EventOutcomeIndicator"]


def count(message: Element) -> int:
    """How many instances it is about."""
    return sum(int(each.attrib["NumberOfInstances"]) for each in message.iter("SOPClass"))


class Viewer(AE):
    """Takes what C-GET brings."""

    def on_receive_store(self, context: Any, ds: Any) -> int:
        return 0x0000


class AuditTests(TestCase):
    """On the real reactor, with a file."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "archive"
        self.path = tmp_path / "audit.log"

    async def start(self, **options: Any) -> ArchiveAE:
        ae = archive(self.directory, **options)
        ae.auditor = Auditor(this_process("NODE"), [FileTrail(str(self.path))])
        ae.start()
        port = await ae.listen("tcp:0:interface=127.0.0.1")
        host: Any = port.getHost()
        self.remote = RemoteAE("NODE", f"tcp:127.0.0.1:{host.port}")
        self.is_running = True

        async def stop() -> None:
            if self.is_running:
                self.is_running = False
                await maybeDeferred(port.stopListening)
                await shut_down(ae)

        self.stop = stop
        self.addCleanup(stop)
        return ae

    async def test_deletions_are_audited_by_study(self) -> None:
        """PS3.15 A.5.3.6 for a part of a study, A.5.3.8 for the whole."""
        ae = await self.start()
        assert ae.index is not None
        scu = AE("CT1").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        async with await scu.request_association(self.remote) as asce:
            for uid in ("1.2.1", "1.2.2", "1.3.1"):
                ds = data_set(
                    SOPClassUID=CT_IMAGE_STORAGE,
                    SOPInstanceUID=uid,
                    PatientID="P1",
                    StudyInstanceUID=uid[:3],
                    SeriesInstanceUID=f"{uid[:3]}.0",
                )
                assert await asce.get_scu(CT_IMAGE_STORAGE)(ds) == 0x0000
        index = ae.index

        def delete() -> None:
            for level, key, user in (
                (Level.IMAGE, "1.2.1", "anna"),
                (Level.STUDY, "1.2", ""),
                (Level.STUDY, "1.3", ""),
            ):
                with index.reading() as reading:
                    chosen = withdrawal.choose(reading, level, key)
                ae.deleter.delete(chosen, user=user)

        await deferToThread(delete)
        found = [each for each in await self.messages() if kind(each) in ("accessed", "deleted")]
        assert [(kind(each), roles(each), objects(each), count(each)) for each in found] == [
            ("accessed", ["anna"], ["1.2", "P1"], 1),
            ("deleted", ["NODE"], ["1.2", "P1"], 1),
            ("deleted", ["NODE"], ["1.3", "P1"], 1),
        ]

    async def messages(self) -> list[Element]:
        """All messages, when the node has stopped; each conforms to the schema."""
        await self.stop()
        return [checked(each) for each in self.path.read_bytes().splitlines()]

    async def store(self) -> list[Any]:
        """Store the made instances of one study; they are returned."""
        made = [each for label, each in instances() if label.startswith("A1.1")]
        ae = AE("SCU").add_scu(storage_scu, sorted({str(each.SOPClassUID) for each in made}))
        async with await ae.request_association(self.remote) as asce:
            for each in made:
                assert await asce.get_scu(str(each.SOPClassUID))(each) == 0x0000
        return made

    async def test_a_start_a_study_and_a_stop(self) -> None:
        """One message for the study, with its patient and the number of its instances."""
        await self.start()
        made = await self.store()
        start, stored, stop = await self.messages()
        assert [kind(each) for each in (start, stored, stop)] == [
            "activity",
            "transferred",
            "activity",
        ]
        assert roles(stored) == ["SCU", "NODE"]
        assert objects(stored) == [str(made[0].StudyInstanceUID), str(made[0].PatientID)]
        counts = stored.findall(".//SOPClass")
        assert sum(int(each.attrib["NumberOfInstances"]) for each in counts) == len(made)
        event = stored.find("EventIdentification")
        assert event is not None
        assert event.attrib["EventActionCode"] == "C"

    async def test_a_query_and_retrieves(self) -> None:
        """The identifier comes back from the message; a move names its destination and who has asked."""
        ae = await self.start(peers={"DEST": RemoteAE("DEST", "tcp:127.0.0.1:1")})
        made = await self.store()
        uid = str(made[0].StudyInstanceUID)
        asked = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid)
        classes = sorted({str(each.SOPClassUID) for each in made})
        viewer = Viewer("VIEWER").add_scu(qr_find_scu).add_scu(qr_get_scu).add_scu(qr_move_scu)
        viewer.add_scp(storage_scp, classes)
        async with await viewer.request_association(self.remote) as asce:
            async for _ in asce.get_scu(STUDY_ROOT_FIND_SOP_CLASS)(asked):
                pass
            async for _ in asce.get_scu(STUDY_ROOT_GET_SOP_CLASS)(asked):
                pass
            async for _ in asce.get_scu(STUDY_ROOT_MOVE_SOP_CLASS)(asked, "DEST"):
                pass
        assert ae.index is not None
        found = await self.messages()
        # Studies are looked up in a thread, so the messages of two operations may come in any order.
        assert sorted(kind(each) for each in found) == [
            *("activity", "activity", "begun", "begun", "query", *["transferred"] * 3)
        ]
        (query,) = (each for each in found if kind(each) == "query")
        transfers = {
            tuple(roles(each)): [kind(other) for other in found if roles(other) == roles(each)]
            for each in found
            if kind(each) == "begun"
        }
        assert transfers == {
            ("NODE", "VIEWER"): ["begun", "transferred"],
            ("NODE", "DEST", "VIEWER"): ["begun", "transferred"],
        }
        got, moved = sorted(
            (each for each in found if kind(each) == "transferred" and roles(each)[0] == "NODE"),
            key=lambda each: len(roles(each)),
        )
        text = query.findtext(".//ParticipantObjectQuery")
        assert text is not None
        detail = query.find(".//ParticipantObjectDetail")
        assert detail is not None
        syntax = base64.b64decode(detail.attrib["value"]).decode()
        identifier: Dataset = decode(base64.b64decode(text), syntax)
        assert identifier.StudyInstanceUID == uid
        assert roles(got) == ["NODE", "VIEWER"]
        assert roles(moved) == ["NODE", "DEST", "VIEWER"]
        for each, outcome in ((got, "0"), (moved, "4")):
            assert objects(each) == [uid, str(made[0].PatientID)]
            event = each.find("EventIdentification")
            assert event is not None
            assert event.attrib["EventOutcomeIndicator"] == outcome

    async def test_what_succeeds_and_what_fails_have_messages_of_their_own(self) -> None:
        """A.5.2: not one message with mixed results."""
        await self.start()
        made = await self.store()
        uid = str(made[0].StudyInstanceUID)
        asked = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid)
        taken = {str(made[0].SOPInstanceUID)}

        class Picky(AE):
            def on_receive_store(self, context: Any, ds: Any) -> int:
                return 0 if context.request.sop_instance_uid in taken else 0xA700

        viewer = Picky("VIEWER").add_scu(qr_get_scu)
        viewer.add_scp(storage_scp, sorted({str(each.SOPClassUID) for each in made}))
        async with await viewer.request_association(self.remote) as asce:
            async for _ in asce.get_scu(STUDY_ROOT_GET_SOP_CLASS)(asked):
                pass
        _, _, begun, kept, failed, _ = await self.messages()
        assert [kind(each) for each in (begun, kept, failed)] == ["begun", *["transferred"] * 2]
        assert [outcome(each) for each in (kept, failed)] == ["0", "4"]
        assert [count(each) for each in (begun, kept, failed)] == [len(made), 1, len(made) - 1]

    async def test_a_retrieve_that_is_cut_off_is_told(self) -> None:
        """Some of its instances may have been sent."""
        await self.start()
        made = await self.store()
        uid = str(made[0].StudyInstanceUID)
        asked = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid)

        class Leaving(AE):
            def on_receive_store(self, context: Any, ds: Any) -> int:
                context.association.abort()
                return 0

        viewer = Leaving("VIEWER").add_scu(qr_get_scu)
        viewer.add_scp(storage_scp, sorted({str(each.SOPClassUID) for each in made}))
        asce = await viewer.request_association(self.remote)
        with pytest.raises(AssociationError):
            async for _ in asce.get_scu(STUDY_ROOT_GET_SOP_CLASS)(asked):
                pass
        _, _, begun, cut, _ = await self.messages()
        assert [kind(each) for each in (begun, cut)] == ["begun", "transferred"]
        assert outcome(cut) == "4"
        assert count(cut) == len(made)

    async def test_an_instance_that_was_here_is_no_new_one(self) -> None:
        """Table A.5.3.7-1: the action is R when the receiver has the same instances already."""
        await self.start()
        await self.store()
        await self.store()
        _, first, second, _ = await self.messages()
        actions = [each.find("EventIdentification") for each in (first, second)]
        assert [each.attrib["EventActionCode"] for each in actions if each is not None] == [
            *("C", "R")
        ]

    async def test_users_and_refused_peers(self) -> None:
        """A user who is known, one who is not, and an AE title that is not."""
        await self.start(identities=Identities([UserNames(["ann"])]), calling_ae_titles=["SCU"])

        async def call(title: str, user: str) -> bool:
            ae = AE(title).add_scu(verification_scu)
            remote = RemoteAE("NODE", self.remote.endpoint, identity=UserIdentity(1, user.encode()))
            try:
                async with await ae.request_association(remote):
                    return True
            except AssociationRejectedError:
                return False

        assert await call("SCU", "ann")
        assert not await call("SCU", "eve")
        assert not await call("STRANGER", "ann")
        _, accepted, wrong, alert, _ = await self.messages()
        assert [kind(each) for each in (accepted, wrong, alert)] == ["login", "login", "alert"]
        assert roles(accepted)[0] == "ann"
        assert roles(wrong)[0] == "eve"
        assert roles(alert)[1] == "STRANGER"

    async def test_a_trail_that_cannot_be_written_stops_the_start(self) -> None:
        ae = archive(self.directory)
        ae.auditor = Auditor(this_process("NODE"), [FileTrail(str(self.directory / "no" / "log"))])
        with pytest.raises(Exception, match=r"audit trail .* cannot be written"):
            await deferToThread(ae.start)
