"""What we perform for the peer: the backlog and the window, refusals, C-CANCEL (PS3.7 7)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx import (
    AE,
    Association,
    AssociationAbortedError,
    AssociationReleasedError,
    Window,
    uids,
    verification_scp,
    verification_scu,
)
from netdicom_tx.asceprovider import PContextDef
from netdicom_tx.dimsemessages import (
    CCancelRQ,
    CEchoRQ,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
)
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    MaximumLength,
)
from support.doubles import (
    COMMITMENT,
    CT,
    FIND,
    IMPLICIT,
    VERIFICATION,
    File,
    Node,
    Slow,
    calling,
    context,
    echo_rq,
    find_rq,
    keeping,
    message,
    serving,
    store_rq,
)
from support.doubles import logged_failures as logged_failures

# -- requests of the peer --------------------------------------------------------------------------


def test_a_request_is_answered_on_its_context():
    node = Node(AE("NODE").add_scp(verification_scp).add_scp(lambda asce, ctx, msg: 0, [CT]))
    peer = node.associate({CT: [IMPLICIT], VERIFICATION: [IMPLICIT]})
    peer.send(message(echo_rq(5), 3))
    ((_, body),) = peer.take()
    assert body[4] == 3


def test_a_cancel_goes_to_its_operation():
    """PS3.7 9.3.2.3; more of it is in test_operations."""
    slow = Slow()
    node = serving(slow, FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.send(find_rq(1), CCancelRQ(message_id_being_responded_to=2))
    assert slow.cancelled == []
    peer.send(CCancelRQ(message_id_being_responded_to=1))
    assert slow.cancelled == [1]
    assert peer.statuses() == [0xFE00]


def test_pending_responses_are_sent_as_they_come():
    def service(asce: Association, ctx: PContextDef, msg: Any) -> int:
        asce.send(msg.response(0xFF00), ctx)
        return 0

    node = serving(service, FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.send(find_rq(1))
    assert peer.statuses() == [0xFF00, 0]


def test_a_reused_message_id_is_refused_and_the_first_operation_goes_on():
    """PS3.7 Annex C: 0210, duplicate invocation."""
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1), echo_rq(1))
    assert peer.statuses() == [0x0210]
    slow.answer(1)
    assert peer.statuses() == [0]
    peer.send(echo_rq(1))
    slow.answer(1, 0x0110)
    assert peer.statuses() == [0x0110]


def test_a_message_id_that_waits_for_its_turn_is_in_use():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1), echo_rq(2), echo_rq(2))
    assert peer.statuses() == [0x0210]
    slow.answer(1)
    slow.answer(2)
    assert peer.statuses() == [0, 0]


def test_a_refused_duplicate_does_not_answer_for_the_first(failures):
    """The first handler gave back nothing: its peer is told so all the same."""
    waiting: defer.Deferred[None] = defer.Deferred()
    node = serving(lambda asce, ctx, msg: waiting)
    peer = node.associate()
    peer.send(echo_rq(1), echo_rq(1))
    assert peer.statuses() == [0x0210]
    waiting.callback(None)
    assert peer.statuses() == [0x0110]
    assert "no final status" in failures.texts()[0]


def test_no_more_operations_run_than_was_negotiated():
    """PS3.7 D.3.3.3, our side of it; the transport pauses meanwhile."""
    slow = Slow()
    node = serving(slow, window=Window(1, 2))
    peer = node.associate(None, MaximumLength(0), AsynchronousOperationsWindow(9, 1))
    peer.send(*(echo_rq(n) for n in range(1, 6)))
    assert list(slow.running) == [1, 2]
    assert node.association().operations == 5
    peer.send(echo_rq(6))
    assert node.association().operations == 5, "nothing is read meanwhile"
    for n in range(1, 7):
        assert len(slow.running) <= 2
        slow.answer(n)
    assert peer.statuses() == [0] * 6


def test_without_negotiation_operations_run_one_after_the_other():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(*(echo_rq(n) for n in range(1, 4)))
    for n in range(1, 4):
        assert list(slow.running) == [n]
        slow.answer(n)
    assert peer.statuses() == [0, 0, 0]


def test_thousands_of_requests_at_once_are_answered_in_order():
    """They come in one segment; neither recursion nor a quadratic search may follow."""
    first: defer.Deferred[int] = defer.Deferred()
    node = serving(lambda asce, ctx, msg: first if msg.message_id == 1 else 0)
    peer = node.associate()
    peer.send(*(echo_rq(n) for n in range(1, 5001)))
    assert peer.take() == []
    first.callback(0)
    answered = [each.message_id_being_responded_to for each in peer.messages()]
    assert answered == list(range(1, 5001))


def test_answers_that_the_peer_does_not_take_keep_it_from_asking_more():
    """An operation is over when its answer has gone out: what waits is bounded by the window."""
    performed: list[int] = []
    node = serving(lambda asce, ctx, msg: (performed.append(msg.message_id), 0)[1])
    peer = node.associate()
    peer.transport.pauseProducing()
    for n in range(1, 5001):
        peer.send(echo_rq(n))
    assert len(performed) < 2000
    peer.transport.resumeProducing()
    assert len(peer.statuses()) == len(performed) == 5000


# -- what is answered without a service ------------------------------------------------------------


def test_an_event_goes_to_the_scu_that_is_registered():
    """PS3.7 10.1.1: N-EVENT-REPORT is reported to an SCU."""
    seen: list[int] = []
    ae = AE("CALLER").add_scu(
        lambda asce, ctx, msg: (seen.append(msg.event_type_id), 0)[1], [COMMITMENT]
    )
    caller, _ = calling({COMMITMENT: [IMPLICIT]}, ae)
    event = NEventReportRQ(
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid="1.2.3",
        event_type_id=1,
        message_id=1,
    )
    caller.peer.send(event)
    assert caller.peer.statuses() == [0]
    assert seen == [1]


def test_a_data_set_where_none_belongs_is_mistyped():
    """PS3.7 C.5.15: 0212."""
    peer = Node().associate()
    peer.send(CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=1, data_set=b"????"))
    assert peer.statuses() == [0x0212]


def test_a_response_that_cannot_be_encoded_is_not_counted_as_an_answer():
    node = Node()
    peer = node.associate()
    asce = node.association()
    with pytest.raises(LocalProtocolError):
        asce.send(echo_rq(1).response(0, error_id=70000), 1)
    assert peer.take() == []
    peer.send(*(echo_rq(n) for n in range(5)))
    assert peer.statuses() == [0] * 5


def test_pending_responses_that_differ_in_their_data_set_share_a_command():
    node = serving(lambda asce, ctx, msg: defer.Deferred(), FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    asce = node.association()
    ctx = context(asce, FIND)
    command = asce.pending_command(find_rq(1).response(0xFF00, b""), ctx)
    for data_set in (b"one!", b"two!"):
        asce.send_pending(command, data_set, ctx)
    parts = [body for _, body in peer.take()]
    assert [part[6:] for part in parts if not part[5] & 1] == [b"one!", b"two!"]
    asce.release().addErrback(lambda _: None)
    with pytest.raises(AssociationReleasedError):
        asce.send_pending(command, b"????", ctx)
    asce.abort()
    with pytest.raises(AssociationAbortedError):
        asce.send_pending(command, b"????", ctx)


_OF_CT: dict[str, Any] = {
    "requested_sop_class_uid": CT,
    "requested_sop_instance_uid": "1.2",
    "message_id": 1,
}


@pytest.mark.parametrize(
    "asked",
    [
        CEchoRQ(affected_sop_class_uid=CT, message_id=1),
        CFindRQ(affected_sop_class_uid=CT, message_id=1, data_set=b""),
        CMoveRQ(affected_sop_class_uid=CT, message_id=1, move_destination="D", data_set=b""),
        CGetRQ(affected_sop_class_uid=CT, message_id=1, data_set=b""),
        store_rq(1),
        NGetRQ(**_OF_CT),
        NSetRQ(**_OF_CT, data_set=b""),
        NActionRQ(**_OF_CT, action_type_id=1),
        NCreateRQ(affected_sop_class_uid=CT, message_id=1),
        NDeleteRQ(**_OF_CT),
        NEventReportRQ(
            affected_sop_class_uid=CT,
            affected_sop_instance_uid="1.2",
            event_type_id=1,
            message_id=1,
        ),
    ],
    ids=lambda asked: str(asked.OPERATION),
)
def test_a_command_names_the_sop_class_of_its_context(asked: Any):
    """PS3.7 9.1 and 10.1: 0x0122, SOP class not supported; no service sees the request."""
    seen: list[Any] = []
    node = serving(lambda asce, ctx, msg: seen.append(msg), VERIFICATION)
    peer = node.associate({VERIFICATION: [IMPLICIT]})
    peer.send(message(asked))
    (answer,) = peer.messages()
    assert answer.status == 0x0122
    assert answer.error_comment in (
        "Affected SOP Class UID is not that of the presentation context",
        "Requested SOP Class UID is not that of the presentation context",
    )
    assert not seen
    assert node.association().is_open


_GRAYSCALE = uids.BasicGrayscalePrintManagementMeta
_COLOR = uids.BasicColorPrintManagementMeta
_STEP = uids.ModalityPerformedProcedureStep
_PUSH = uids.UnifiedProcedureStepPush


@pytest.mark.parametrize(
    ("negotiated", "named", "status"),
    [
        (_GRAYSCALE, uids.BasicFilmSession, 0),
        (_GRAYSCALE, uids.Printer, 0),
        (_GRAYSCALE, uids.BasicGrayscaleImageBox, 0),
        (_GRAYSCALE, uids.BasicColorImageBox, 0x0122),
        (_GRAYSCALE, uids.PresentationLUT, 0x0122),
        (_COLOR, uids.BasicColorImageBox, 0),
        (_COLOR, uids.BasicGrayscaleImageBox, 0x0122),
        (uids.BasicFilmSession, uids.BasicFilmBox, 0x0122),
        (uids.ModalityPerformedProcedureStepRetrieve, _STEP, 0),
        (uids.ModalityPerformedProcedureStepNotification, _STEP, 0),
        (_STEP, uids.ModalityPerformedProcedureStepRetrieve, 0x0122),
        (uids.UnifiedProcedureStepPull, _PUSH, 0),
        (uids.UnifiedProcedureStepWatch, _PUSH, 0),
        (uids.UnifiedProcedureStepEvent, _PUSH, 0),
        (_PUSH, uids.UnifiedProcedureStepPull, 0x0122),
        (uids.PullStoredPrintManagementMeta, uids.PullPrintRequest, 0),
    ],
    ids=uids.name,
)
def test_some_commands_name_a_sop_class_besides_that_of_their_context(
    negotiated: str, named: str, status: int
):
    """PS3.4 H.3.2.2 (meta SOP classes), F.8.2.1 (performed procedure steps), CC.3.1 (unified procedure steps)."""
    node = serving(lambda asce, ctx, msg: 0, negotiated)
    peer = node.associate({negotiated: [IMPLICIT]})
    asked = {"requested_sop_class_uid": named, "requested_sop_instance_uid": "1.2"}
    peer.send(message(NGetRQ(**asked, message_id=1)))
    assert peer.statuses() == [status]


def test_a_service_names_further_sop_classes_of_its_commands():
    """PS3.7 10.1.2: only its service knows what belongs to a private meta SOP class."""

    def service(asce: Association, ctx: PContextDef, msg: Any) -> int:
        return 0

    service.command_sop_classes = (CT,)  # type: ignore[attr-defined]
    peer = serving(service, "1.2.3.4").associate({"1.2.3.4": [IMPLICIT]})
    peer.send(message(NGetRQ(**_OF_CT)))
    assert peer.statuses() == [0]


def test_an_operation_that_the_service_does_not_have_is_refused_as_that():
    """PS3.7 C.5.18: 0x0211 says more than 0x0122 to a peer that has chosen the wrong context."""
    peer = Node().associate()
    peer.send(message(find_rq(1)))
    assert peer.statuses() == [0x0211]


@pytest.mark.parametrize("ae", [AE("CALLER"), AE("CALLER").add_scu(verification_scu)])
def test_an_operation_that_we_do_not_serve_is_refused(ae):
    """PS3.7 Annex C: 0122. An SCU answers nothing but events."""
    caller, asce = calling(ae=ae)
    caller.peer.send(echo_rq(1))
    assert caller.peer.statuses() == [0x0122]
    assert asce.is_open


def test_refusals_that_the_peer_does_not_take_keep_it_from_asking_more():
    """They are no operations, so the window does not bound them."""
    _, ae, peer = keeping(*(File() for _ in range(3001)))
    ae.answer = defer.Deferred()
    peer.send(store_rq(1))
    peer.transport.pauseProducing()
    for _ in range(3000):
        peer.send(store_rq(1))
    assert len(ae.files) > 1000, "the data sets of the others have not been read"
    peer.transport.resumeProducing()
    assert peer.statuses() == [0x0210] * 3000
    assert ae.files == []
