"""One test for each defect of the ancestor, the library whose API this one keeps.

The first part are faults that its users met, the second habits of its code that led there. None of
them may come back: each test fails when its fault is put in again.
"""

from __future__ import annotations

import dataclasses
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from netdicom_tx import (
    AE,
    AssociationAbortedError,
    AssociationRejectedError,
    DCMTimeoutError,
    EventHandlingError,
    RemoteAE,
    Timeouts,
    sop_classes,
    storage_scp,
    storage_scu,
    verification_scp,
    verification_scu,
)
from netdicom_tx.dimsemessages import (
    CCancelRQ,
    CMoveRQ,
    CStoreRQ,
    NActionRQ,
    NCreateRQ,
    NEventReportRQ,
    NEventReportRSP,
    decode_command,
    encode_command,
)
from netdicom_tx.dsutils import encode
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.pdu import AAssociateAC, AAssociateRQ, Fragment, PDUReader
from netdicom_tx.sopclass import (
    StorageCommitment,
    qr_find_scp,
    qr_get_scp,
    qr_get_scu,
    qr_move_scp,
    storage_commitment_scu,
)
from netdicom_tx.statuses import SUCCESS
from netdicom_tx.testing import connected, failure_of, success_of
from netdicom_tx.uids import (
    ALL_TRANSFER_SYNTAXES,
    GET_SOP_CLASSES,
    IMPLEMENTATION_CLASS_UID,
    MOVE_SOP_CLASSES,
    STORAGE_SOP_CLASSES,
)
from netdicom_tx.userdataitems import (
    ImplementationClassUID,
    MaximumLength,
    RoleSelection,
    UserIdentity,
)
from support.doubles import (
    ABORT,
    AC,
    COMMITMENT,
    CT,
    DATA,
    EXPLICIT,
    FIND,
    IMPLICIT,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    Caller,
    Line,
    Node,
    RawPeer,
    acceptance,
    calling,
    echo_rq,
    find_rq,
    message,
    p_data,
    pdu,
    request,
    run,
    store_rq,
)
from support.doubles import logged_failures as logged_failures

JPEG, RLE = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5"
MOVE, GET = MOVE_SOP_CLASSES[1], GET_SOP_CLASSES[1]


def instance(uid: str = "1.2.3", sop_class: str = CT) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID = sop_class
    data_set.SOPInstanceUID = uid
    data_set.PatientName = "DOE^JANE"
    return data_set


def data_of(pdus: list[tuple[int, bytes]]) -> bytes:
    """The data set octets of P-DATA-TF bodies, one PDV each."""
    assert {kind for kind, _ in pdus} == {DATA}
    return b"".join(body[6:] for _, body in pdus if not body[5] & 1)


# == faults that users met ===========================================================================


def test_an_ae_that_serves_all_storage_classes_can_request_an_association():
    """Its context IDs ran up to 277, in a field of one octet (PS3.8 9.3.2.2)."""
    both = AE("BOTH").add_scp(storage_scp).add_scu(verification_scu)
    with connected(both, AE("NODE").add_scp(verification_scp)) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == SUCCESS
    # What it must propose, for C-GET, is what there is room for.
    getter = AE("GETTER").add_scp(storage_scp).add_scu(qr_get_scu)
    with connected(getter, AE("NODE").add_scp(qr_get_scp)) as pair:
        proposed = pair.requestor.request_pdu
        assert proposed is not None
        ids = [context.context_id for context in proposed.presentation_contexts]
        assert ids == list(range(1, 256, 2))
    # And what there is no room for at all is said, instead of breaking while it is encoded.
    ae = AE("SENDER").add_scu(storage_scu, STORAGE_SOP_CLASSES)
    with pytest.raises(LocalProtocolError, match="128"):
        ae.request_association(RemoteAE("NODE", "tcp:127.0.0.1:1"))


def test_a_peer_without_a_maximum_length_gets_all_of_a_data_set():
    """0 means no limit (PS3.8 D.1); it was taken for a limit, and nothing was ever sent."""
    caller, asce = calling({CT: [EXPLICIT]}, items=[MaximumLength(0)])
    assert asce.send_limit == 0
    data = bytes(range(256)) * 4000
    asce.request(store_rq(data=data), asce.contexts_for(CT)[0])
    assert data_of(caller.peer.take()) == data
    # And the other way round: the acceptor's answers to such a requestor.
    peer = Node().associate(None, MaximumLength(0))
    peer.send(echo_rq())
    assert peer.statuses() == [0]


def test_an_acceptor_answers_with_user_items_of_its_own():
    """It sent the requestor's items back, identity and roles among them (PS3.7 D.3.3)."""
    items = (
        UserIdentity(2, b"me", b"secret", positive_response_requested=False),
        RoleSelection(CT, True, True),
        ImplementationClassUID("1.2.3.4"),
        MaximumLength(5000),
    )
    node = Node(AE("NODE", max_pdu_length=30000).add_scp(verification_scp))
    peer = node.connect()
    peer.send(request(None, *items))
    ((kind, body),) = peer.take()
    assert kind == AC
    answer = AAssociateAC.decode(body)
    assert answer.maximum_length == 30000
    assert answer.user_item(ImplementationClassUID) == ImplementationClassUID(
        IMPLEMENTATION_CLASS_UID
    )
    assert not {UserIdentity, RoleSelection} & {type(item) for item in answer.user_information}
    assert b"secret" not in bytes(peer.received)
    # The maximum length was last, and was found nevertheless.
    assert node.association().send_limit == 5000


def test_a_context_is_refused_with_the_result_that_fits():
    """Every refusal was a 1, user rejection (PS3.8 Table 9-18: 3 and 4 say why)."""
    peer = Node().connect()
    peer.send(request({VERIFICATION: [RLE], CT: [IMPLICIT]}))
    ((kind, body),) = peer.take()
    assert kind == AC
    results = {c.context_id: c.result for c in AAssociateAC.decode(body).presentation_contexts}
    assert results == {1: 4, 3: 3}


class Mover(AE):
    """Performs a C-MOVE of given instances to a given destination."""

    destination: RemoteAE | None = None
    found: tuple[Dataset, ...] = ()

    def on_receive_move(self, context: Any, ds: Dataset, destination: str) -> Any:
        return self.destination, len(self.found), self.found


class Keeper(AE):
    """Answers each C-STORE with the next of its statuses, and notes what it was given."""

    def __init__(self, title: str, *statuses: int, reactor: Any = None) -> None:
        super().__init__(title, reactor=reactor)
        self.statuses = list(statuses)
        self.given: list[tuple[Any, Dataset]] = []
        self.asked: list[Any] = []
        self.add_scp(storage_scp)

    def get_file(self, asce: Any, context: Any, command_set: Any) -> Any:
        self.asked.append(command_set)
        return super().get_file(asce, context, command_set)

    def on_receive_store(self, context: Any, ds: Any) -> int:
        self.given.append((context, dcmread(ds)))
        return self.statuses.pop(0) if self.statuses else SUCCESS


def moved(*statuses: int) -> tuple[list[Any], list[CStoreRQ]]:
    """The responses to a C-MOVE, message 9 of PEER, and its sub-operations, so answered."""
    mover = Mover("NODE").add_scp(qr_move_scp)
    node = Node(mover)
    keeper = Keeper("KEEPER", *statuses, reactor=node.clock)
    acceptor = keeper.acceptor_factory().buildProtocol(None)
    mover.destination = RemoteAE("KEEPER", Line(node.wire, acceptor))
    mover.found = tuple(instance(f"1.2.3.{n}") for n, _ in enumerate(statuses))
    peer = node.associate({MOVE: [EXPLICIT]})
    peer.send(
        CMoveRQ(
            affected_sop_class_uid=MOVE,
            move_destination="KEEPER",
            message_id=9,
            data_set=encode(instance(), EXPLICIT),
        )
    )
    node.advance(0)
    responses = [each for each in peer.messages() if each.message_id_being_responded_to == 9]
    return responses, keeper.asked


@pytest.mark.parametrize(
    ("statuses", "final", "counters"),
    [
        ((), 0x0000, (0, 0, 0)),
        ((0x0000, 0x0000), 0x0000, (2, 0, 0)),
        ((0x0000, 0xA700), 0xB000, (1, 1, 0)),
        ((0x0000, 0xB000), 0xB000, (1, 0, 1)),
        ((0xC000, 0xA700), 0xA702, (0, 2, 0)),
    ],
)
def test_a_c_move_ends_with_what_became_of_it(statuses, final, counters):
    """It said Success whatever failed, went on after 0 matches, and counted from message ID 0."""
    responses, stored = moved(*statuses)
    assert [each.status for each in responses[:-1]] == [0xFF00] * (len(responses) - 1)
    last = responses[-1]
    assert last.status == final
    assert (
        last.number_of_completed_suboperations,
        last.number_of_failed_suboperations,
        last.number_of_warning_suboperations,
    ) == counters
    assert [each.message_id for each in stored] == list(range(1, len(statuses) + 1))


def test_a_c_cancel_stops_the_matches_and_is_answered():
    """Nobody listened to C-CANCEL (PS3.7 9.3.2.3): FE00, and the generator is closed."""
    ends: list[str] = []

    class Endless(AE):
        def on_receive_find(self, context: Any, ds: Dataset) -> Iterator[Dataset]:
            try:
                while True:
                    yield instance()
            finally:
                ends.append("closed")

    node = Node(Endless("NODE").add_scp(qr_find_scp))
    peer = node.associate({FIND: [EXPLICIT]})
    # A peer that does not read for a while, and cancels.
    peer.transport.pauseProducing()
    peer.send(find_rq(3, encode(instance(), EXPLICIT)))
    peer.send(CCancelRQ(message_id_being_responded_to=3))
    peer.transport.resumeProducing()
    node.advance(0)
    *pending, final = peer.statuses()
    assert set(pending) <= {0xFF00}
    assert final == 0xFE00
    assert ends == ["closed"]


def test_a_c_get_is_performed():
    """There was no C-GET SCP at all (PS3.4 C.4.3): instances come on the same association."""

    class Getter(AE):
        def on_receive_get(self, context: Any, ds: Dataset) -> Any:
            return 2, [instance("1.2.3.1"), instance("1.2.3.2")]

    keeper = Keeper("KEEPER")
    keeper.add_scu(qr_get_scu)
    with connected(keeper, Getter("NODE").add_scp(qr_get_scp)) as pair:
        stream = pair.requestor.get_scu(GET)(instance())
        assert success_of(stream.done) == 0x0000
    assert [ds.SOPInstanceUID for _, ds in keeper.given] == ["1.2.3.1", "1.2.3.2"]


class Committer(AE):
    """Keeps everything, and reports to a given AE."""

    report_to: RemoteAE | None = None

    def on_commitment_request(self, remote_ae: str, uids: Any) -> Any:
        return self.report_to, list(uids), []

    def on_commitment_response(self, transaction_uid: str, success: Any, failure: Any) -> None:
        raise EventHandlingError("this transaction is not ours")


def test_a_commitment_report_that_fails_is_answered_with_its_message_id():
    """It was not answered at all, or without Message ID Being Responded To (PS3.7 10.1.1)."""
    ae = Committer("CALLER").add_scp(StorageCommitment()).add_scu(storage_commitment_scu)
    caller, _ = calling({COMMITMENT: [EXPLICIT]}, ae)
    report = Dataset()
    report.TransactionUID = "1.2.9"
    caller.peer.send(
        NEventReportRQ(
            message_id=77,
            affected_sop_class_uid=COMMITMENT,
            affected_sop_instance_uid=COMMITMENT + ".1",
            event_type_id=1,
            data_set=encode(report, EXPLICIT),
        )
    )
    (answer,) = caller.peer.messages()
    assert isinstance(answer, NEventReportRSP)
    assert (answer.message_id_being_responded_to, answer.status) == (77, 0x0110)


def test_a_commitment_report_has_a_message_id_and_the_context_of_its_own_association():
    """It had no message ID, and the context ID of the association of the request (PS3.4 J.3.3)."""
    ae = Committer("NODE").add_scp(StorageCommitment()).add_scp(verification_scp)
    node = Node(ae)
    reported = RawPeer()
    ae.report_to = RemoteAE("CALLER", Line(node.wire, reported))
    # The request comes on context 3, the report goes out on context 1 of another association.
    peer = node.associate({VERIFICATION: [IMPLICIT], COMMITMENT: [EXPLICIT]})
    wanted = Dataset()
    wanted.TransactionUID = "1.2.9"
    wanted.ReferencedSOPSequence = [Dataset()]
    wanted.ReferencedSOPSequence[0].ReferencedSOPClassUID = CT
    wanted.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    asked = NActionRQ(
        message_id=5,
        requested_sop_class_uid=COMMITMENT,
        requested_sop_instance_uid=COMMITMENT + ".1",
        action_type_id=1,
        data_set=encode(wanted, EXPLICIT),
    )
    peer.send(message(asked, 3))
    assert peer.statuses() == [0]
    peer.send(pdu(RELEASE_RQ))
    assert peer.kinds() == [RELEASE_RP]
    node.advance(2)
    ((_, body),) = reported.take()
    role = RoleSelection(COMMITMENT, scu_role=False, scp_role=True)
    reported.send(acceptance(AAssociateRQ.decode(body), role, MaximumLength(0)))
    pdvs = reported.take()
    assert {body[4] for _, body in pdvs} == {1}
    report, _ = decode_command(pdvs[0][1][6:])
    assert isinstance(report, NEventReportRQ)
    assert report.message_id == 1
    assert data_of(pdvs) != b""


def test_a_plain_c_store_names_no_move_originator():
    """Every C-STORE-RQ had one; it belongs to the sub-operations of a C-MOVE (PS3.7 9.3.1.1)."""
    caller, asce = calling({CT: [EXPLICIT]})
    storage_scu(asce, asce.contexts_for(CT)[0], instance())
    (sent,) = caller.peer.messages()
    assert isinstance(sent, CStoreRQ)
    assert sent.move_originator_application_entity_title is None
    assert sent.move_originator_message_id is None


def test_an_instance_that_c_get_brings_is_read_in_its_own_transfer_syntax():
    """It was decoded as the identifier of the C-GET was, and the hook got the wrong context."""

    class Getter(AE):
        def on_receive_get(self, context: Any, ds: Dataset) -> Any:
            return 1, [instance("1.2.3.1")]

    keeper = Keeper("KEEPER")
    keeper.add_scu(qr_get_scu)
    contexts = {GET: [EXPLICIT], CT: [IMPLICIT]}
    read: list[Any] = []
    with connected(keeper, Getter("NODE").add_scp(qr_get_scp), contexts) as pair:

        async def get() -> None:
            async for ctx, what in pair.requestor.get_scu(GET)(instance()):
                read.append((ctx, dcmread(what) if ctx else what))

        run(get())
    ((context, stored),) = keeper.given
    assert (context.sop_class, context.transfer_syntax) == (CT, IMPLICIT)
    assert stored.file_meta.TransferSyntaxUID == IMPLICIT
    assert stored.PatientName == "DOE^JANE"
    (ctx, again), (_, final) = read
    assert ctx == context
    assert again.PatientName == "DOE^JANE"
    assert final == 0x0000


def test_a_refused_association_is_an_error_and_no_result():
    """It came back as a return value, for the caller to stumble over later."""
    caller = Caller()
    caller.peer.send(pdu(3, b"\0\1\1\7"))
    error = failure_of(caller.opening)
    assert isinstance(error, AssociationRejectedError)
    assert (error.result, error.source, error.diagnostic) == (1, 1, 7)


def test_the_called_ae_title_is_looked_at():
    """It never was (PS3.8 Table 9-21: rejected permanently, called AE title not recognized)."""
    node = Node(AE("NODE", called_ae_titles=["NODE"]).add_scp(verification_scp))
    peer = node.connect()
    peer.send(request(None, called_ae_title="OTHER"))
    assert peer.rejection() == (1, 1, 7)
    assert node.associate().kinds() == []


def test_artim_is_as_long_as_it_is_set():
    """It was 10 seconds, whatever was wanted (PS3.8 9.1.5)."""
    node = Node(AE("NODE", timeouts=Timeouts(artim=3)).add_scp(verification_scp))
    peer = node.connect()
    node.advance(2.9)
    assert not peer.is_lost
    node.advance(0.2)
    assert peer.is_lost


def forbid(name: str) -> Callable[..., Any]:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"{name} was called")

    return forbidden


def test_an_answer_waits_for_no_poll(monkeypatch):
    """Two threads for an association polled every 50 ms: here no time passes, and none is slept."""
    monkeypatch.setattr(time, "sleep", forbid("time.sleep"))
    monkeypatch.setattr(threading.Thread, "start", forbid("Thread.start"))
    scp = AE("NODE").add_scp(verification_scp)
    with connected(AE("CALLER").add_scu(verification_scu), scp) as pair:
        for _ in range(10):
            assert success_of(pair.requestor.get_scu(VERIFICATION)()) == SUCCESS
        assert pair.clock.seconds() == 0


@pytest.mark.parametrize("kind", [1, 2, 4, 5, 7])
def test_a_length_is_judged_by_its_header(kind):
    """4 GiB were waited for, and kept, because a peer had announced them (PS3.8 9.3.1)."""
    peer = Node().associate()
    peer.send(struct.pack(">BxI", kind, 0xFFFFFFFF))
    assert peer.abort() == (2, 6)


# == habits of its code ==============================================================================


def test_an_ae_stops_without_threads_and_without_sleeping(monkeypatch):
    """Stopping was a thousand sleeps of a thread, for another to notice."""
    monkeypatch.setattr(time, "sleep", forbid("time.sleep"))
    monkeypatch.setattr(threading.Thread, "start", forbid("Thread.start"))
    node = Node()
    peer = node.associate()
    stopped = node.ae.drain(10)
    node.advance(0)
    assert peer.take() != []
    peer.transport.loseConnection()
    node.wire.run()
    assert success_of(stopped) is None
    assert node.ae.associations == frozenset()


def test_a_remote_ae_is_a_value():
    """It was a dict of strings, probed for credentials that were then hidden on the PDU."""
    identity = UserIdentity(2, b"me", b"secret")
    remote = RemoteAE(" PEER ", "tcp:pacs.example:104", identity)
    assert remote == RemoteAE("PEER", "tcp:pacs.example:104", identity)
    assert "secret" not in repr(remote)
    with pytest.raises(dataclasses.FrozenInstanceError):
        remote.ae_title = "OTHER"  # type: ignore[misc]
    with pytest.raises(LocalProtocolError):
        RemoteAE("A TITLE THAT IS TOO LONG", "tcp:pacs.example:104")
    # Credentials are user information of the request, and nothing else.
    node = Node()
    ae = AE("CALLER", reactor=node.clock).add_scu(verification_scu)
    peer = RawPeer()
    ae.request_association(RemoteAE("PEER", Line(node.wire, peer), identity))
    ((_, body),) = peer.take()
    assert AAssociateRQ.decode(body).user_item(UserIdentity) == identity


def test_each_side_states_its_own_maximum_length():
    """The acceptor took the smaller of the two and sent it back (PS3.8 D.1)."""
    node = Node(AE("NODE", max_pdu_length=50_000).add_scp(storage_scp))
    peer = node.connect()
    peer.send(request({CT: [EXPLICIT]}, MaximumLength(100)))
    ((_, body),) = peer.take()
    assert AAssociateAC.decode(body).maximum_length == 50_000
    assert node.association().send_limit == 100
    # What we admit is judged by our number, what we send by the peer's.
    peer.send(p_data(1, 1, bytes(40_000)))
    assert peer.take() == []
    peer.send(p_data(1, 1, bytes(50_000)))
    assert peer.abort() == (2, 6)


@pytest.mark.parametrize("order", [(JPEG, EXPLICIT, IMPLICIT), (IMPLICIT, RLE, EXPLICIT, JPEG)])
def test_transfer_syntaxes_keep_their_order(order):
    """They were held in a frozenset; order is preference (PS3.8 9.3.2.2)."""
    caller = Caller(AE("CALLER"), [(CT, order)])
    assert caller.asked.presentation_contexts[0].transfer_syntaxes == order
    assert AE("CALLER", supported_ts=order).supported_ts == order
    # The requestor's preference decides, not the acceptor's.
    node = Node(AE("NODE", supported_ts=ALL_TRANSFER_SYNTAXES).add_scp(storage_scp))
    peer = node.connect()
    peer.send(request({CT: order}))
    ((_, body),) = peer.take()
    assert AAssociateAC.decode(body).presentation_contexts[0].transfer_syntax == order[0]


def test_user_items_are_found_wherever_they_stand():
    """The first was taken for the maximum length, the second for the implementation class UID."""
    items = (ImplementationClassUID("1.2.3.4"), UserIdentity(1, b"me"), MaximumLength(64))
    node = Node()
    peer = node.associate(None, *items)
    peer.send(echo_rq())
    answer = peer.take()
    assert len(answer) > 1
    assert max(len(body) for _, body in answer) <= 64


def test_ae_titles_are_padded_with_spaces():
    """They were padded with NUL (PS3.8 9.3.2)."""
    caller = Caller(AE("CALLER"))
    assert caller.asked.reserved[:32] == b"PEER".ljust(16) + b"CALLER".ljust(16)


def test_messages_behind_each_other_in_one_pdu_are_all_answered():
    """The decoder left its loop at the first last fragment, and dropped what followed (E.2)."""
    peer = Node().associate()
    pdvs = b"".join(
        struct.pack(">IBB", len(command) + 2, 1, 3) + command
        for command in (encode_command(echo_rq(n)) for n in (1, 2, 3))
    )
    peer.send(pdu(DATA, pdvs))
    assert [(each.message_id_being_responded_to, each.status) for each in peer.messages()] == [
        (1, 0),
        (2, 0),
        (3, 0),
    ]


def test_a_sub_operation_names_the_c_move_that_it_serves():
    """The other half of the fault above: where the originator belongs, it is said (9.3.1.1)."""
    _, (stored,) = moved(0x0000)
    assert stored.move_originator_application_entity_title == "PEER"
    assert stored.move_originator_message_id == 9


def test_an_abort_ends_what_waits_for_an_answer():
    """Aborts were swallowed, with a TODO, so a caller waited for ever."""
    caller, asce = calling()
    first = asce.request(echo_rq(1), asce.contexts_for(VERIFICATION)[0])
    queued = asce.request(echo_rq(2), asce.contexts_for(VERIFICATION)[0])
    caller.peer.send(pdu(ABORT, b"\0\0\2\0"))
    error = failure_of(first)
    assert isinstance(error, AssociationAbortedError)
    assert error.by_peer
    assert failure_of(queued).__cause__ is error.__cause__


def test_an_answer_that_does_not_come_is_a_timeout():
    """So were timeouts: the wait ends, with the name of the timer, and the association too."""
    caller, asce = calling(ae=AE("CALLER", timeouts=Timeouts(response=5)))
    waiting = asce.request(echo_rq(1), asce.contexts_for(VERIFICATION)[0])
    caller.peer.take()
    caller.advance(4.9)
    assert not waiting.called
    caller.advance(0.2)
    error = failure_of(waiting)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "response"
    assert caller.peer.kinds() == [ABORT]


def test_sop_classes_makes_a_tuple_of_its_own():
    """The decorator extended the list it found: a parent's, when a class inherited it."""

    class Parent:
        sop_classes = ("1.2.1",)

    @sop_classes(["1.2.2", "1.2.1"])
    class Child(Parent):
        pass

    assert Child.sop_classes == ("1.2.1", "1.2.2")
    assert Parent.sop_classes == ("1.2.1",)

    shared = ["1.2.5"]

    def service() -> None: ...

    service.sop_classes = shared  # type: ignore[attr-defined]
    sop_classes(["1.2.6"])(service)
    assert shared == ["1.2.5"]
    assert service.sop_classes == ("1.2.5", "1.2.6")  # type: ignore[attr-defined]


def test_a_segment_of_many_pdus_is_not_copied_for_each_of_them():
    """What was left was sliced off anew for each PDU: quadratic. Here fragments are views."""
    segment = p_data(1, 0, bytes(64)) * 5_000
    reader = PDUReader()
    tracemalloc.start()
    try:
        count = sum(1 for _ in reader.feed(segment))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5_000
    assert peak < len(segment) // 16
    (fragment, *_) = PDUReader().feed(segment)
    assert isinstance(fragment, Fragment)
    assert fragment.data.obj is segment  # type: ignore[union-attr]


def test_the_association_counts_message_ids():
    """Callers had to invent them (PS3.7 7.5.1: unique among what is outstanding)."""
    caller, asce = calling(ae=AE("CALLER").add_scu(verification_scu))
    ids = []
    for _ in range(3):
        asce.get_scu(VERIFICATION)()
        (sent,) = caller.peer.messages()
        ids.append(sent.message_id)
        caller.peer.send(sent.response(0))
    assert ids == [1, 2, 3]


def test_services_are_functions_and_need_no_common_class():
    """Each service was a method to override on one AE class, so all were coupled to it."""
    called: list[str] = []

    @sop_classes([CT])
    def for_ct(asce: Any, ctx: Any, msg: Any) -> int:
        called.append("CT")
        return 0x0000

    def for_mr(asce: Any, ctx: Any, msg: Any) -> int:
        called.append("MR")
        return 0xB000

    ae = AE("NODE").add_scp(for_ct).add_scp(for_mr, [MR])
    node = Node(ae)
    peer = node.associate({CT: [EXPLICIT], MR: [EXPLICIT]})
    peer.send(message(store_rq(1), 1))
    peer.send(message(dataclasses.replace(store_rq(2), affected_sop_class_uid=MR), 3))
    assert peer.statuses() == [0x0000, 0xB000]
    assert called == ["CT", "MR"]
    # Another AE in the same process has services of its own.
    assert AE("OTHER").supported_scp.find(CT) is None


def test_a_request_goes_to_the_service_of_its_context():
    """It went by the message's SOP class, which differs under a meta SOP class (PS3.4 H.3)."""
    meta, film_session = "1.2.840.10008.5.1.1.9", "1.2.840.10008.5.1.1.1"
    asked: list[tuple[str, str | None]] = []

    def print_scp(asce: Any, ctx: Any, msg: Any) -> int:
        asked.append((ctx.sop_class, msg.sop_class_uid))
        return 0x0000

    def never(asce: Any, ctx: Any, msg: Any) -> int:
        raise AssertionError("the service of another context")

    node = Node(AE("NODE").add_scp(print_scp, [meta]).add_scp(never, [film_session]))
    peer = node.associate({meta: [IMPLICIT]})
    peer.send(NCreateRQ(message_id=1, affected_sop_class_uid=film_session))
    assert peer.statuses() == [0x0000]
    assert asked == [(meta, film_session)]


def test_the_whole_stack_runs_without_a_port(monkeypatch):
    """Its tests needed port 11112 and files, and had none of the state machine (test_fsm.py)."""
    monkeypatch.setattr(socket, "socket", forbid("socket.socket"))
    keeper = Keeper("NODE")
    with connected(AE("CALLER").add_scu(storage_scu, [CT]), keeper) as pair:
        assert success_of(pair.requestor.get_scu(CT)(instance())) == SUCCESS
        success_of(pair.requestor.release())
    assert [ds.SOPInstanceUID for _, ds in keeper.given] == ["1.2.3"]
