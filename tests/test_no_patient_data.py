"""Nothing of a patient or of a user is in the log, in a traceback, in a repr or in an Error Comment.

One marker stands in every attribute of every service: as conforming text, as a value of the wrong kind, in data sets
that are cut, and in what handlers raise. AE titles and UIDs may be logged; what is no UID may not, although it came in
the place of one.
"""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from twisted.internet import defer
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

import netdicom_tx
from netdicom_tx import AE, RemoteAE, storage_scp, uids, verification_scp
from netdicom_tx.access import Access, Profile, Rule
from netdicom_tx.archive import Duplicates
from netdicom_tx.archive.workflow.commitment import expect_success
from netdicom_tx.archive.workflow.outbound import GiveUpError
from netdicom_tx.dimsemessages import (
    CEchoRQ,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    Message,
    NActionRQ,
    NCreateRQ,
    NGetRQ,
    NSetRQ,
    decode_command,
)
from netdicom_tx.fragments import fragment
from netdicom_tx.identity import Identities, UserNames
from netdicom_tx.logs import quiet_pydicom
from netdicom_tx.sopclass import (
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    StorageCommitment,
    modality_work_list_scp,
    qr_find_scp,
    qr_get_scp,
    qr_move_scp,
    qr_move_scu,
    storage_commitment_scu,
)
from netdicom_tx.statuses import Status
from netdicom_tx.testing import Network, success_of
from netdicom_tx.userdataitems import MaximumLength, UserIdentity
from support.archive.archives import Archive
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT
from support.archive.worklists import asking
from support.doubles import DATA, Node, RawPeer, request
from support.steps import new_step, performed_series

#: Nothing else has these letters.
MARK = "ZQXVWJ"
OTHER_STUDY = "1.2.826.0.1.3680043.10.99"
STEP = "1.2.826.0.1.3680043.10.7"
TEXT = {"LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
# Without these, a request would never come to its own service.
STRUCTURE = {"QueryRetrieveLevel", "SOPClassUID", "SOPInstanceUID", "PerformedProcedureStepStatus"}


# -- what is sent ------------------------------------------------------------------------------------


def data_set(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def written(ds: Dataset, wrong: str | None = None) -> bytes:
    """A data set with the marker in all its text, and as the whole value of the attribute ``wrong``."""
    parts = []
    for each in ds:
        if each.VR == "SQ":
            items = [written(item, wrong) for item in each.value]
            parts.append(EXPLICIT.sequence(each.tag, *items))
            continue
        value = str("\\".join(map(str, each.value)) if each.VM > 1 else each.value or "").encode()
        if each.keyword == wrong or (wrong is None and each.VR in TEXT):
            value = f"{MARK}^{each.keyword}".encode()[:64]
        padding = b"\0" if each.VR in ("UI", "OB", "UN") else b" "
        parts.append(EXPLICIT.element(each.tag, each.VR, value + padding * (len(value) % 2)))
    return b"".join(parts)


def keywords(ds: Dataset) -> Iterator[str]:
    for each in ds:
        if each.VR == "SQ":
            for item in each.value:
                yield from keywords(item)
        else:
            yield each.keyword


def variants(ds: Dataset) -> Iterator[bytes]:
    """The data set well formed, with each attribute wrong in turn, cut, and replaced by something else."""
    whole = written(ds)
    yield whole
    for keyword in dict.fromkeys(keywords(ds)):
        yield written(ds, keyword)
    for cut in (3, len(whole) // 2, len(whole) - 5):
        yield whole[:-cut]
    text = MARK.encode()
    yield text * 20
    yield whole + text * 3
    # A length that points past the end, and one that is odd.
    yield whole + EXPLICIT.element(0x00104000, "LT", text, 9999)
    yield whole + EXPLICIT.element(0x00104000, "LT", text + b"!", 7)
    yield whole + struct.pack("<HH2sH", 0x0011, 0x1001, b"ZQ", 6) + text  # an unknown VR
    yield EXPLICIT.element(0x00080005, "CS", text) + whole  # an unknown character set
    yield whole + EXPLICIT.element(0x00101030, "DS", text * 40)


PATIENT = data_set(
    PatientName="Doe^Jane",
    PatientID="P1",
    PatientBirthDate="19700101",
    PatientBirthTime="101500",
    PatientSex="O",
    PatientAge="050Y",
    PatientWeight="70",
    PatientComments="none",
)
STUDY = data_set(
    StudyDate="20260101",
    StudyTime="101500",
    AccessionNumber="A1",
    StudyID="S1",
    StudyInstanceUID=OTHER_STUDY,
    StudyDescription="Abdomen",
    ReferringPhysicianName="House^Gregory",
    ModalitiesInStudy="CT",
)
SERIES = data_set(
    Modality="CT",
    SeriesInstanceUID=f"{OTHER_STUDY}.1",
    SeriesNumber="1",
    SeriesDescription="axial",
    InstanceNumber="1",
)


def joined(*parts: Dataset, **more: Any) -> Dataset:
    made = data_set(**more)
    for part in parts:
        made.update(part)
    return made


class Sent(NamedTuple):
    """A kind of request.

    Attributes:
        name: What it is called in the report of the test.
        sop_class: Of its presentation context.
        ds: Its data set, well formed.
        message: Makes the message from the octets of the data set.
    """

    name: str
    sop_class: str
    ds: Dataset
    message: Callable[..., Message]


def finds() -> Iterator[Sent]:
    for model in uids.FIND_SOP_CLASSES:
        for level in ("PATIENT", "STUDY", "SERIES", "IMAGE"):
            yield Sent(
                f"find {uids.name(model)} {level}",
                model,
                joined(PATIENT, STUDY, SERIES, QueryRetrieveLevel=level, SOPInstanceUID="1.2.3"),
                partial(CFindRQ, affected_sop_class_uid=model, message_id=1),
            )
    worklist = uids.MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS
    yield Sent(
        "find worklist",
        worklist,
        asking(
            PatientName="Doe*",
            PatientID="P1",
            PatientBirthDate="19700101",
            AccessionNumber="A1",
            Modality="CT",
            ScheduledStationAETitle="CT1",
            ScheduledProcedureStepStartDate="20260101",
            ScheduledProcedureStepStartTime="1015",
        ),
        partial(CFindRQ, affected_sop_class_uid=worklist, message_id=1),
    )


def retrievals() -> Iterator[Sent]:
    for model in uids.MOVE_SOP_CLASSES:
        for destination in ("NOWHERE", "SINK"):
            yield Sent(
                f"move {uids.name(model)} to {destination}",
                model,
                joined(PATIENT, STUDY, QueryRetrieveLevel="STUDY"),
                partial(
                    CMoveRQ,
                    affected_sop_class_uid=model,
                    message_id=1,
                    move_destination=destination,
                ),
            )
    for model in uids.GET_SOP_CLASSES:
        yield Sent(
            f"get {uids.name(model)}",
            model,
            joined(PATIENT, STUDY, QueryRetrieveLevel="STUDY"),
            partial(CGetRQ, affected_sop_class_uid=model, message_id=1),
        )


def stores() -> Iterator[Sent]:
    instance = "1.2.826.0.1.3680043.10.5"
    for uid in (instance, f"1.2.{MARK}"):
        yield Sent(
            f"store {uid}",
            CT_IMAGE_STORAGE,
            joined(PATIENT, STUDY, SERIES, SOPClassUID=CT_IMAGE_STORAGE, SOPInstanceUID=instance),
            partial(
                CStoreRQ,
                affected_sop_class_uid=CT_IMAGE_STORAGE,
                affected_sop_instance_uid=uid,
                message_id=1,
            ),
        )


MPPS = uids.ModalityPerformedProcedureStep
COMMITMENT = uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS
AVAILABILITY = uids.InstanceAvailabilityNotification


def steps() -> Iterator[Sent]:
    step = joined(PATIENT, new_step(PerformedProcedureStepDescription="Abdomen"))
    end = data_set(
        PerformedProcedureStepStatus="COMPLETED",
        PerformedProcedureStepEndDate="20261123",
        PerformedProcedureStepEndTime="1030",
        PerformedSeriesSequence=performed_series(),
        CommentsOnThePerformedProcedureStep="none",
    )
    retrieve = uids.ModalityPerformedProcedureStepRetrieve
    for uid in (STEP, f"1.2.{MARK}"):
        yield Sent(
            f"create {uid}",
            MPPS,
            step,
            partial(
                NCreateRQ, affected_sop_class_uid=MPPS, affected_sop_instance_uid=uid, message_id=1
            ),
        )
        yield Sent(
            f"set {uid}",
            MPPS,
            end,
            partial(
                NSetRQ, requested_sop_class_uid=MPPS, requested_sop_instance_uid=uid, message_id=1
            ),
        )
        yield Sent(
            f"get step {uid}",
            retrieve,
            Dataset(),
            partial(
                NGetRQ,
                requested_sop_class_uid=retrieve,
                requested_sop_instance_uid=uid,
                message_id=1,
            ),
        )


def references() -> Iterator[Sent]:
    asked = data_set(
        TransactionUID="1.2.826.0.1.3680043.10.3",
        ReferencedSOPSequence=Sequence(
            [
                data_set(
                    ReferencedSOPClassUID=CT_IMAGE_STORAGE,
                    ReferencedSOPInstanceUID="1.2.826.0.1.3680043.10.5",
                )
            ]
        ),
        StorageMediaFileSetID="disk",
    )
    yield Sent(
        "commit",
        COMMITMENT,
        asked,
        partial(
            NActionRQ,
            requested_sop_class_uid=COMMITMENT,
            requested_sop_instance_uid=uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE,
            action_type_id=1,
            message_id=1,
        ),
    )
    available = data_set(
        StudyInstanceUID=OTHER_STUDY,
        ReferencedPerformedProcedureStepSequence=Sequence(),
        ReferencedSeriesSequence=Sequence(
            [
                data_set(
                    SeriesInstanceUID=f"{OTHER_STUDY}.1",
                    ReferencedSOPSequence=Sequence(
                        [
                            data_set(
                                ReferencedSOPClassUID=CT_IMAGE_STORAGE,
                                ReferencedSOPInstanceUID="1.2.3",
                                InstanceAvailability="ONLINE",
                                RetrieveAETitle="NODE",
                            )
                        ]
                    ),
                )
            ]
        ),
    )
    yield Sent(
        "available",
        AVAILABILITY,
        joined(available, PATIENT),
        partial(
            NCreateRQ,
            affected_sop_class_uid=AVAILABILITY,
            affected_sop_instance_uid=STEP,
            message_id=1,
        ),
    )


SENT = [*finds(), *retrievals(), *stores(), *steps(), *references()]


# -- where it may not be ------------------------------------------------------------------------------


@implementer(ILogObserver)
class Watch:
    """What is logged, warned of and answered."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self.warnings: list[str] = []
        self.comments: list[str] = []
        self.answers = 0

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] >= LogLevel.info:
            self.events.append(event)

    def emit_warning(self, message: Any, *_: Any, **__: Any) -> None:
        self.warnings.append(str(message))

    def answered(self, peer: RawPeer) -> None:
        """Keep the command sets of what a peer has got."""
        for kind, body in peer.take():
            if kind != DATA:
                self.comments.append(repr(body))
                continue
            length, _, flags = struct.unpack_from(">IBB", body)
            if flags & 1:
                answer = decode_command(body[6 : length + 4])[0]
                self.answers += 1
                self.comments.append(str(getattr(answer, "error_comment", "")))

    def leaks(self) -> list[str]:
        """Everything that has the marker."""
        texts = [*self.warnings, *self.comments]
        for event in self.events:
            texts.append(eventAsText(event))
            for name, value in event.items():
                texts.append(f"{name} of {event['log_format']}: {value} {value!r}")
                if isinstance(value, Failure):
                    texts.append(value.getErrorMessage() + value.getTraceback(detail="brief"))
                    texts.append(value.getTraceback(detail="verbose"))
        return [each for each in texts if MARK in each]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Watch]:
    watched = Watch()
    globalLogPublisher.addObserver(watched)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", watched.emit_warning)
        with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, "pydicom"):
            quiet_pydicom()  # as the node does
            yield watched
    globalLogPublisher.removeObserver(watched)
    watched.warnings += caplog.messages


def sent_to(node: Node, each: Sent, watch: Watch) -> None:
    """Send all variants of a request; each on an association of its own if the one before was aborted."""
    peer: RawPeer | None = None
    for data in variants(each.ds):
        if peer is None or peer.is_lost:
            peer = node.associate(
                {each.sop_class: [EXPLICIT.transfer_syntax]},
                MaximumLength(0),
                UserIdentity(2, f"{MARK}-user".encode(), f"{MARK}-secret".encode()),
            )
        peer.send(*fragment(each.message(data_set=data or None), context_id=1, limit=0))
        node.advance(1)
        watch.answered(peer)
    assert peer is not None
    peer.send(b"\x05\0\0\0\0\x04\0\0\0\0")
    node.advance(60)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    node = Archive(
        tmp_path / "archive",
        duplicates=Duplicates.KEEP,
        peers={"SINK": RemoteAE("SINK", "tcp:127.0.0.1:1")},
    )
    node.ae.add_scp(InstanceAvailabilityNotification(on_available=lambda *_: 0))
    yield node
    node.close()


@pytest.mark.parametrize("each", SENT, ids=lambda each: each.name)
def test_the_archive_tells_nothing_of_a_patient(archive: Archive, watch: Watch, each: Sent) -> None:
    """PS3.15 A.5 has a place for it, and the log is another one."""
    sent_to(archive, each, watch)
    assert watch.answers
    assert watch.leaks() == []


# -- handlers that raise ------------------------------------------------------------------------------


class Careless(AE):
    """Its handlers raise what they were given."""

    def on_receive_store(self, context: Any, ds: Any) -> int:
        raise ValueError(f"what is {ds.read()!r}?")

    def on_receive_find(self, context: Any, ds: Dataset) -> Any:
        yield from ()
        raise KeyError(str(ds))

    def on_receive_get(self, context: Any, ds: Dataset) -> Any:
        raise RuntimeError(str(ds))

    def on_receive_move(self, context: Any, ds: Dataset, destination: str) -> Any:
        raise TypeError(str(ds)) from ValueError(str(ds))

    def on_commitment_request(self, remote_ae: str, uids: Any) -> Any:
        raise ValueError(MARK)

    def on_mpps_create(self, uid: str, ds: Dataset) -> Any:
        raise ExceptionGroup(MARK, [ValueError(str(ds))])

    def on_mpps_set(self, uid: str, ds: Dataset) -> Any:
        return str(ds)

    def on_available(self, context: Any, uid: str, ds: Dataset) -> Any:
        return str(ds)

    def on_mpps_get(self, uid: str, tags: Any) -> Any:
        raise LookupError(MARK)

    def on_association_accepted(self, asce: Any) -> None:
        raise ValueError(asce.request_pdu.user_item(UserIdentity).primary)


@pytest.fixture
def careless() -> Node:
    ae = Careless("NODE")
    for service in (
        verification_scp,
        qr_find_scp,
        qr_get_scp,
        qr_move_scp,
        modality_work_list_scp,
        StorageCommitment(),
        ModalityPerformedProcedureStep(),
        InstanceAvailabilityNotification(on_available=ae.on_available),
    ):
        ae.add_scp(service)
    ae.add_scp(storage_scp, transfer_syntaxes=uids.ALL_TRANSFER_SYNTAXES)
    return Node(ae)


@pytest.mark.parametrize("each", SENT, ids=lambda each: each.name)
def test_what_a_handler_raises_is_told_without_what_it_quotes(
    careless: Node, watch: Watch, each: Sent
) -> None:
    """The log has the type and the lines of code, which lead to the mistake."""
    sent_to(careless, each, watch)
    assert watch.answers
    assert watch.leaks() == []


def test_a_traceback_names_the_type_and_the_lines(careless: Node, watch: Watch) -> None:
    find = next(finds())
    sent_to(careless, find, watch)
    texts = [eventAsText(each) for each in watch.events if "log_failure" in each]
    assert any("KeyError: (its message is not logged" in each for each in texts)
    assert any("in on_receive_find" in each and "raise KeyError" in each for each in texts)


# -- users and their identities ------------------------------------------------------------------------


class Failing:
    """A checker of users that fails."""

    def checks(self, identity: UserIdentity) -> bool:
        return True

    def check(self, identity: UserIdentity) -> Any:
        raise ValueError(identity.primary)


@pytest.mark.parametrize("identities", [None, Identities([UserNames(["jane"])]), Failing()])
@pytest.mark.parametrize("is_required", [False, True])
@pytest.mark.parametrize("kind", range(7))
def test_an_identity_is_not_logged(
    watch: Watch, identities: Any, is_required: bool, kind: int
) -> None:
    """PS3.7 D.3.3.7: user names, passcodes, tickets, assertions and tokens."""
    ae = AE("NODE", identities=identities).add_scp(verification_scp)
    ae.access = Access((Rule(title="PEER", profile=Profile(require_identity=is_required)),))
    node = Node(ae)
    identity = UserIdentity(kind, MARK.encode(), MARK.encode() if kind == 2 else b"", True)
    peer = node.connect()
    peer.send(request(None, MaximumLength(0), identity))
    watch.answered(peer)
    peer.send(CEchoRQ(affected_sop_class_uid=uids.VERIFICATION_SOP_CLASS, message_id=1))
    node.advance(60)
    for asce in ae.associations:
        watch.comments += [repr(asce), repr(asce.user), repr(asce.request_pdu), repr(asce.caller)]
    watch.answered(peer)
    assert watch.comments
    assert watch.leaks() == []


# -- what other peers answer -----------------------------------------------------------------------------


class Talking(AE):
    """Refuses everything, with a comment that quotes it."""

    def __init__(self) -> None:
        super().__init__("SINK")
        self.add_scp(self.refuse, [CT_IMAGE_STORAGE, MPPS, COMMITMENT, AVAILABILITY])
        self.add_scp(self.refuse, [uids.ModalityPerformedProcedureStepNotification])

    @staticmethod
    def refuse(asce: Any, ctx: Any, msg: Any) -> Any:
        return msg.response(0xA700 if msg.OPERATION == "C-STORE" else 0x0110, error_comment=MARK)


class Moving(AE):
    """Sends what its test says."""

    def __init__(self, remote: RemoteAE | None = None) -> None:
        super().__init__("NODE")
        self.remote = remote
        for service in (qr_move_scp, qr_get_scp, StorageCommitment()):
            self.add_scp(service)

    def instance(self) -> Dataset:
        ds = joined(PATIENT, SOPClassUID=CT_IMAGE_STORAGE, SOPInstanceUID="1.2.3")
        ds.PatientName = MARK
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = UID(EXPLICIT.transfer_syntax)
        return ds

    def on_receive_move(self, context: Any, ds: Dataset, destination: str) -> Any:
        return self.remote, 1, [self.instance()]

    def on_commitment_request(self, remote_ae: str, uids: Any) -> Any:
        return self.remote, list(uids), None


async def move(asce: Any) -> None:
    wanted = joined(PATIENT, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2")
    async for _ in asce.get_scu(uids.STUDY_ROOT_MOVE_SOP_CLASS)(wanted, "SINK"):
        continue


async def commit(asce: Any) -> None:
    await asce.get_scu(COMMITMENT)("1.2.826.0.1.3680043.10.3", [(CT_IMAGE_STORAGE, "1.2.3")])


@pytest.mark.parametrize("ask", [move, commit])
def test_the_error_comment_of_a_peer_is_not_logged(watch: Watch, ask: Any) -> None:
    """PS3.7 Annex C: it is free text, and some peers quote the data set in it."""
    sink, node = Talking(), Moving()
    caller = AE("PEER").add_scu(qr_move_scu).add_scu(storage_commitment_scu)
    with Network(sink, node, caller) as network:
        node.remote = network.remote(sink)
        asce = success_of(caller.request_association(network.remote(node)))
        asking_for = defer.Deferred.fromCoroutine(ask(asce))
        network.advance(30)
        success_of(asking_for)
    assert any(
        "0xA700" in eventAsText(each) or "0x0110" in eventAsText(each) for each in watch.events
    )
    assert watch.leaks() == []


def test_a_task_keeps_the_comment_and_its_log_line_does_not() -> None:
    """What the database holds, ``netdicom queue`` shows to an operator."""
    with pytest.raises(GiveUpError) as raised:
        expect_success(Status(0x0112, "N-SET", MARK))
    assert MARK not in str(raised.value)
    assert raised.value.comment == MARK


def test_every_module_logs_by_the_same_logger() -> None:
    """One that used Twisted's own would show what exceptions quote."""
    package = Path(netdicom_tx.__file__).parent
    using = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"from twisted\.logger import .*\bLogger\b", path.read_text("utf-8"))
    ]
    assert using == ["logs.py"]
