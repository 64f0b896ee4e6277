"""Associations: requests out, responses and requests in, and how they end (PS3.7 7, PS3.8 7)."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import defer
from twisted.logger import capturedLogs

from netdicom_tx import (
    AE,
    Association,
    AssociationAbortedError,
    AssociationError,
    AssociationRejectedError,
    AssociationReleasedError,
    ClassNotSupportedError,
    ConnectionLostError,
    DCMTimeoutError,
    EventHandlingError,
    StatusError,
    Timeouts,
    Window,
    verification_scp,
    verification_scu,
)
from netdicom_tx.asceprovider import IDENTIFIER_LIMIT, PContextDef
from netdicom_tx.dimsemessages import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRSP,
    NEventReportRQ,
)
from netdicom_tx.dulprovider import TURN, DULProtocol
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.pdu import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    PresentationContextAC,
)
from netdicom_tx.statuses import SUCCESS
from netdicom_tx.testing import connected, failure_of, success_of
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    MaximumLength,
    RoleSelection,
    UserIdentity,
    UserIdentityResponse,
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
    File,
    Keeper,
    Node,
    RawPeer,
    Slow,
    acceptance,
    calling,
    context,
    echo,
    echo_rq,
    find_rq,
    keeping,
    message,
    p_data,
    pdu,
    request,
    run,
    serving,
    store_rq,
    wide,
)
from support.doubles import logged_failures as logged_failures

WIDE = Window(3, 3)
TIMEOUTS = Timeouts()


# -- responses find their requests -----------------------------------------------------------------------


def test_a_response_goes_to_its_request_whatever_its_status():
    caller, asce = calling()
    answer = echo(asce)
    (asked,) = caller.peer.messages()
    caller.peer.send(asked.response(0x0122, error_comment="not here"))
    response = success_of(answer)
    assert (response.status, response.error_comment) == (0x0122, "not here")
    assert asce.operations == 0


def test_message_ids_are_counted():
    caller, asce = wide()
    for _ in range(3):
        echo(asce)
    assert [each.message_id for each in caller.peer.messages()] == [1, 2, 3]


def test_a_message_id_may_be_given():
    caller, asce = calling()
    echo(asce, 0)
    (asked,) = caller.peer.messages()
    assert asked.message_id == 0


@pytest.mark.parametrize("first", ["outstanding", "waiting"])
def test_a_message_id_that_is_in_use_is_refused(first):
    """PS3.7 9.1.1.1.1: it distinguishes an operation from those that are in progress."""
    caller, asce = calling()
    if first == "waiting":
        echo(asce, 6)
    original = echo(asce, 7)
    error = failure_of(echo(asce, 7))
    assert isinstance(error, LocalProtocolError)
    assert "7 is in use" in str(error)
    for _ in range(2):
        for asked in caller.peer.messages():
            caller.peer.send(asked.response(0))
    assert success_of(original).status == 0


def test_a_message_id_is_free_again_when_its_request_is_answered():
    caller, asce = calling()
    for _ in range(2):
        answer = echo(asce, 7)
        caller.peer.send(caller.peer.messages()[0].response(0))
        assert success_of(answer).status == 0


def test_counting_skips_what_is_in_use_and_begins_anew_after_65535():
    caller, asce = wide(0, 0)
    for taken in (65535, 1, 2):
        echo(asce, taken)
    while asce.next_message_id() != 65533:
        pass
    echo(asce)
    echo(asce)
    assert [each.message_id for each in caller.peer.messages()] == [65535, 1, 2, 65534, 3]


def test_counting_skips_what_waits_for_its_turn():
    caller, asce = calling()
    for taken in (1, 2, 3):
        echo(asce, taken)
    echo(asce)
    for _ in range(3):
        caller.peer.send(caller.peer.messages()[0].response(0))
    assert caller.peer.messages()[0].message_id == 4


def test_there_are_65535_message_ids():
    _, asce = calling()
    for _ in range(65535):
        echo(asce).addErrback(lambda _: None)
    with pytest.raises(LocalProtocolError, match="no message ID left"):
        asce.next_message_id()


def test_responses_may_come_in_any_order():
    """PS3.7 7.5.2: with a negotiated window."""
    caller, asce = wide()
    answers = [echo(asce) for _ in range(3)]
    asked = caller.peer.messages()
    caller.peer.send(*(asked[n].response(n) for n in (2, 0, 1)))
    assert [success_of(each).status for each in answers] == [0, 1, 2]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_more_requests_are_outstanding_than_was_negotiated(limit):
    """PS3.7 D.3.3.3; further requests wait, in order."""
    caller, asce = wide(limit) if limit > 1 else calling()
    answers = [echo(asce) for _ in range(10)]
    assert asce.operations == 10
    seen: list[int] = []
    outstanding = caller.peer.messages()
    while outstanding:
        assert len(outstanding) <= limit
        seen.append(outstanding[0].message_id)
        caller.peer.send(outstanding.pop(0).response(0))
        outstanding += caller.peer.messages()
    assert seen == list(range(1, 11))
    assert all(success_of(each).status == 0 for each in answers)


def test_a_window_of_zero_is_no_limit():
    caller, asce = wide(0)
    for _ in range(50):
        echo(asce)
    assert len(caller.peer.messages()) == 50


def test_a_window_that_was_not_proposed_is_not_granted():
    _caller, asce = calling(items=(MaximumLength(0), AsynchronousOperationsWindow(5, 5)))
    assert asce.window == Window(1, 1)


def test_a_response_that_nobody_asked_for_is_ignored():
    caller, asce = calling()
    with capturedLogs() as logs:
        caller.peer.send(echo_rq(9).response(0))
    assert "not asked" in logs[0]["log_format"]
    answer = echo(asce)
    caller.peer.send(CEchoRSP(message_id_being_responded_to=7, status=0))
    caller.peer.send(CFindRSP(message_id_being_responded_to=1, status=0))
    assert asce.operations == 1
    caller.peer.send(CEchoRSP(message_id_being_responded_to=1, status=0))
    assert success_of(answer).status == 0


def test_a_pending_response_is_none_to_who_wants_one():
    caller, asce = calling()
    answer = echo(asce)
    caller.peer.send(echo_rq(1).response(0xFF00))
    assert not answer.called
    caller.peer.send(echo_rq(1).response(0))
    assert success_of(answer).status == 0


def test_a_response_has_its_data_set():
    caller, asce = calling({FIND: [IMPLICIT]})
    answer = asce.request(find_rq(), context(asce, FIND))
    caller.peer.send(p_data(1, 1, b""), message(find_rq(1).response(0x0000, b"identifier")))
    assert success_of(answer).data_set == b"identifier"


def test_the_answer_to_a_cancelled_request_is_swallowed():
    """DIMSE has no way to take such a request back."""
    caller, asce = calling()
    answer, following = echo(asce), echo(asce)
    caller.peer.take()
    answer.cancel()
    assert isinstance(failure_of(answer), defer.CancelledError)
    assert caller.peer.take() == [], "the window is still taken"
    caller.peer.send(echo_rq(1).response(0))
    assert caller.peer.messages()[0].message_id == 2
    caller.peer.send(echo_rq(2).response(0))
    assert success_of(following).status == 0


def test_a_request_with_many_responses_can_be_cancelled():
    """PS3.7 9.3.2.3; more of it is in test_requests."""
    caller, asce = calling({FIND: [IMPLICIT]})
    first, second = (
        asce.request_many(find_rq(), context(asce, FIND), lambda response: response)
        for _ in range(2)
    )
    second.cancel()
    assert success_of(second.done) == 0xFE00
    first.cancel()
    asked, cancelled = caller.peer.messages()
    assert isinstance(cancelled, CCancelRQ)
    assert cancelled.message_id_being_responded_to == asked.message_id


def test_a_request_that_was_cancelled_while_it_waited_is_never_sent():
    caller, asce = calling()
    answers = [echo(asce) for _ in range(3)]
    answers[1].cancel()
    assert isinstance(failure_of(answers[1]), defer.CancelledError)
    caller.peer.send(echo_rq(1).response(0))
    assert [each.message_id for each in caller.peer.messages()] == [1, 3]


def test_a_cancelled_request_does_not_hear_of_the_end():
    _, asce = calling()
    answer = echo(asce)
    answer.cancel()
    failure_of(answer)
    asce.abort()
    assert asce.operations == 0


def test_the_peer_has_the_next_request_before_an_answer_is_told():
    caller, asce = calling()
    first, second = echo(asce), echo(asce)
    written = caller.peer.transport.peer.written
    sizes = [len(written)]
    first.addCallback(lambda _: sizes.append(len(written)))
    caller.peer.send(echo_rq(1).response(0))
    assert sizes[1] > sizes[0]
    assert not second.called


class Damaged(io.BytesIO):
    """A file that the disk does not give."""

    def readinto(self, buffer: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_request_that_waits_is_read_while_the_peer_is_busy():
    """Not before what was sent ahead of it is on its way: that is the reactor's next turn."""
    caller, asce = calling({CT: [IMPLICIT]})
    asce.request(store_rq(None, b"\1\2"), context(asce, CT))
    source = io.BytesIO(bytes(4 * TURN))
    asce.request(store_rq(None, source), context(asce, CT))
    assert source.tell() == 0
    caller.clock.advance(0)
    assert 0 < source.tell() < 2 * TURN
    (first,) = caller.peer.messages()
    caller.peer.send(first.response(0))
    (second,) = caller.peer.messages()
    assert second.message_id == first.message_id + 1
    assert source.tell() == 4 * TURN


def test_a_request_that_waits_and_cannot_be_read_fails_alone():
    """Nothing of it has been sent; in its middle it would end the association."""
    caller, asce = calling({CT: [IMPLICIT]})
    first = asce.request(store_rq(None, b"\1\2"), context(asce, CT))
    damaged = asce.request(store_rq(None, Damaged()), context(asce, CT))
    last = asce.request(store_rq(None, b"\3\4"), context(asce, CT))
    caller.clock.advance(0)
    assert isinstance(failure_of(damaged), OSError)
    for answer in (first, last):
        (asked,) = caller.peer.messages()
        caller.peer.send(asked.response(0))
        assert success_of(answer).status == SUCCESS


# -- what may be sent ------------------------------------------------------------------------------------


def test_a_request_needs_a_context_of_this_association():
    _, asce = calling()
    for wrong in (PContextDef(3, VERIFICATION, IMPLICIT), PContextDef(1, CT, IMPLICIT)):
        error = failure_of(asce.request(echo_rq(None), wrong))
        assert isinstance(error, LocalProtocolError)
        assert "not a context of this association" in str(error)


def test_a_request_needs_the_role_of_the_scu():
    """PS3.7 D.3.3.4: an acceptor is SCP unless it was negotiated otherwise."""
    node = serving(verification_scp)
    node.associate()
    asce = node.association()
    error = failure_of(echo(asce))
    assert isinstance(error, LocalProtocolError)
    assert "C-ECHO needs the other role" in str(error)


def test_an_event_report_needs_the_role_of_the_scp():
    """PS3.7 10.1.1: it is the SCP that invokes N-EVENT-REPORT."""
    event = NEventReportRQ(
        affected_sop_class_uid=COMMITMENT, affected_sop_instance_uid="1.2.3", event_type_id=1
    )
    _, asce = calling({COMMITMENT: [IMPLICIT]})
    error = failure_of(asce.request(event, context(asce, COMMITMENT)))
    assert "needs the other role" in str(error)
    node = serving(verification_scp, COMMITMENT)
    peer = node.associate({COMMITMENT: [IMPLICIT]})
    answer = node.association().request(event, context(node.association(), COMMITMENT))
    (asked,) = peer.messages()
    peer.send(asked.response(0))
    assert success_of(answer).status == 0


def test_an_acceptor_may_request_in_a_role_that_was_negotiated():
    node = Node(AE("NODE").add_scu(verification_scu))
    peer = node.associate(None, MaximumLength(0), RoleSelection(VERIFICATION, False, True))
    answer = node.association().get_scu(VERIFICATION)()
    peer.send(peer.messages()[0].response(0))
    assert success_of(answer) == SUCCESS


def test_a_request_that_cannot_be_encoded_fails_alone():
    caller, asce = calling()
    error = failure_of(
        asce.request(CEchoRQ(affected_sop_class_uid="1.\N{GREEK SMALL LETTER BETA}"), context(asce))
    )
    assert isinstance(error, LocalProtocolError)
    assert caller.peer.take() == []
    answer = echo(asce)
    caller.peer.send(caller.peer.messages()[0].response(0))
    assert success_of(answer).status == 0


def test_nothing_can_be_requested_before_and_after_the_association():
    caller = Caller()
    (asce,) = caller.ae.associations
    with pytest.raises(LocalProtocolError, match="no transport"):
        Association(caller.ae, is_requestor=True, clock=caller.clock, timeouts=TIMEOUTS).send(
            echo_rq().response(0), 1
        )
    asce.abort()
    assert isinstance(failure_of(caller.opening), AssociationAbortedError)
    with pytest.raises(AssociationAbortedError):
        asce.send(echo_rq().response(0), 1)


def test_a_data_set_that_cannot_be_read_ends_the_association(failures):
    """What has gone out cannot be taken back; the peer must not take it for whole."""

    class Broken(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            raise OSError(errno.EIO, "the disk is gone")

    caller, asce = calling({CT: [IMPLICIT]})
    error = failure_of(asce.request(store_rq(None, Broken()), context(asce, CT)))
    assert isinstance(error, LocalProtocolError)
    assert "the disk is gone" in str(error)
    assert asce.error is error
    assert caller.peer.abort() == (0, 0)
    assert "the disk is gone" in failures.texts()[0]


# -- facts -----------------------------------------------------------------------------------------------


def test_an_association_says_with_whom_it_is():
    caller, asce = calling()
    assert repr(asce) == "<Association to PEER, open>"
    assert asce.peer_title == "PEER"
    assert asce.remote_ae is caller.remote
    asce.abort()
    assert repr(asce) == "<Association to PEER, over>"
    node = Node()
    node.associate()
    assert repr(node.association()) == "<Association from PEER, open>"
    assert node.association().called_ae_title == "NODE"
    assert node.association().peer_address is not None


def test_the_title_of_a_peer_is_safe_for_logs():
    node = Node()
    peer = node.connect()
    peer.send(request(calling_ae_title="A\nB\x1b[2J"))
    (asce,) = node.ae.associations
    assert asce.peer_title == "A\\nB\\x1b[2J"


def test_contexts_come_in_the_order_they_were_proposed():
    _, asce = calling([(CT, [EXPLICIT]), (MR, [IMPLICIT]), (CT, [IMPLICIT])])
    assert [each.supported_ts for each in asce.contexts_for(CT)] == [EXPLICIT, IMPLICIT]
    assert asce.contexts_for(FIND) == ()


def test_refusals_are_told():
    caller = Caller(AE("CALLER").add_scu(verification_scu), {VERIFICATION: [IMPLICIT]})
    (asce,) = caller.ae.associations
    assert asce.refusals(VERIFICATION) == {}
    caller.peer.send(AAssociateAC(presentation_contexts=(PresentationContextAC(1, 3),)))
    assert success_of(caller.opening) is asce
    assert asce.refusals(VERIFICATION) == {IMPLICIT: "abstract syntax not supported"}
    with pytest.raises(ClassNotSupportedError, match="abstract syntax not supported"):
        asce.get_scu(VERIFICATION)


def test_an_scu_must_have_been_registered():
    _, asce = calling()
    with pytest.raises(ClassNotSupportedError, match="add_scu"):
        asce.get_scu(VERIFICATION)


def test_an_event_needs_a_context_and_takes_consent_for_granted():
    """Many SCUs do not answer role selection, and take N-EVENT-REPORT nevertheless."""
    _, asce = calling({COMMITMENT: [IMPLICIT]})
    ctx = asce.context_as_scp(COMMITMENT)
    assert ctx.as_scp
    assert asce.accepted_contexts[1] is ctx
    assert asce.context_as_scp(COMMITMENT) is ctx
    with pytest.raises(ClassNotSupportedError):
        asce.context_as_scp(CT)


def test_an_scu_needs_its_role():
    ae = AE("CALLER").add_scu(verification_scu)
    roles = [RoleSelection(VERIFICATION, True, True)]
    caller = Caller(ae, roles=roles)
    asce = caller.accept(MaximumLength(0), RoleSelection(VERIFICATION, False, True))
    with pytest.raises(ClassNotSupportedError):
        asce.get_scu(VERIFICATION)


# -- establishment ---------------------------------------------------------------------------------------


def test_a_rejection_is_told_with_its_codes():
    caller = Caller()
    caller.peer.send(AAssociateRJ(1, 1, 7))
    error = failure_of(caller.opening)
    assert isinstance(error, AssociationRejectedError)
    assert (error.result, error.source, error.diagnostic) == (1, 1, 7)
    assert not caller.ae.associations


def test_an_answer_that_was_not_proposed_is_aborted():
    """PS3.8 9.3.3.2: data in another transfer syntax would be misread."""
    caller = Caller()
    caller.peer.send(AAssociateAC(presentation_contexts=(PresentationContextAC(1, 0, EXPLICIT),)))
    error = failure_of(caller.opening)
    assert isinstance(error, AssociationAbortedError)
    assert (error.source, error.reason_diag, error.by_peer) == (2, 6, False)
    assert caller.peer.abort() == (2, 6)


def test_the_peer_must_answer_the_request_in_time():
    caller = Caller()
    caller.advance(TIMEOUTS.associate - 1)
    assert not caller.opening.called
    caller.advance(1)
    error = failure_of(caller.opening)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "associate"
    assert caller.peer.abort() == (0, 0)


def test_an_answer_in_time_ends_that_wait():
    caller, asce = calling()
    caller.advance(TIMEOUTS.associate)
    assert asce.is_open


def test_cancelling_while_the_answer_is_awaited_aborts():
    caller = Caller()
    caller.opening.cancel()
    assert isinstance(failure_of(caller.opening), defer.CancelledError)
    assert caller.peer.abort() == (0, 0)
    caller.peer.send(acceptance(caller.asked))
    assert not any(each.is_open for each in caller.ae.associations)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda peer: peer.send(AAbort(0, 0)), AssociationAbortedError),
        (lambda peer: peer.send(AAbort(2, 1)), AssociationAbortedError),
        (lambda peer: peer.transport.loseConnection(), ConnectionLostError),
        (lambda peer: peer.transport.abortConnection(), ConnectionLostError),
        (lambda peer: peer.send(pdu(0xFF)), AssociationAbortedError),
        (lambda peer: peer.send(pdu(RELEASE_RQ)), AssociationAbortedError),
    ],
)
def test_a_request_fails_with_what_ended_the_negotiation(end, expected):
    caller = Caller()
    end(caller.peer)
    assert isinstance(failure_of(caller.opening), expected)


def test_a_hook_sees_the_acceptance():
    class Curious(AE):
        seen: Any = None

        def on_association_response(self, response: AAssociateAC) -> None:
            self.seen = response

    ae = Curious("CALLER")
    _, asce = calling(ae=ae)
    assert ae.seen is asce.response_pdu


def test_a_hook_that_fails_fails_the_request():
    class Picky(AE):
        def on_association_response(self, response: AAssociateAC) -> None:
            raise ValueError("not this one")

    caller = Caller(Picky("CALLER"))
    caller.peer.send(acceptance(caller.asked))
    error = failure_of(caller.opening)
    assert isinstance(error, ValueError)
    assert caller.peer.abort() == (0, 0)


def test_a_hook_that_aborts_fails_the_request():
    class Fickle(AE):
        def on_association_response(self, response: AAssociateAC) -> None:
            for each in self.associations:
                each.abort()

    caller = Caller(Fickle("CALLER"))
    caller.peer.send(acceptance(caller.asked))
    assert isinstance(failure_of(caller.opening), AssociationAbortedError)
    assert caller.peer.abort() == (0, 0)


@pytest.mark.parametrize("confirmed", [True, False])
def test_an_identity_that_must_be_confirmed_is_waited_for(confirmed):
    """PS3.7 D.3.3.7.2: an acceptor that does not check identities sends no response item."""
    caller = Caller(user_items=[UserIdentity(1, b"user", b"", True)])
    response = (UserIdentityResponse(b""),) if confirmed else ()
    caller.peer.send(acceptance(caller.asked, MaximumLength(0), *response))
    if confirmed:
        assert success_of(caller.opening).is_open
    else:
        assert "did not confirm" in str(failure_of(caller.opening))
        assert caller.peer.abort() == (0, 0)


class Doorkeeper(AE):
    """Decides by what the test says; more of it is in test_applicationentity."""

    verdict: Callable[[], Any]

    def on_association_request(self, asce: Association, assoc: Any) -> Any:
        return self.verdict()


def asking(verdict: Callable[[], Any], **fields: Any) -> tuple[Node, RawPeer]:
    ae = Doorkeeper("NODE").add_scp(verification_scp)
    ae.verdict = verdict
    node = Node(ae)
    peer = node.connect()
    peer.send(request(**fields))
    return node, peer


def test_an_acceptor_may_be_asked_and_waited_for():
    verdict: defer.Deferred[None] = defer.Deferred()
    node, peer = asking(lambda: verdict)
    assert not node.association().is_open
    verdict.callback(None)
    assert peer.kinds() == [AC]
    assert node.association().is_open


@pytest.mark.parametrize(
    ("error", "codes"),
    [(AssociationRejectedError(1, 1, 3), (1, 1, 3)), (ZeroDivisionError("a bug"), (2, 1, 1))],
)
def test_an_acceptor_may_reject(error, codes, failures):
    node, peer = asking(lambda: defer.fail(error))
    assert peer.rejection() == codes
    assert isinstance(node.association().error, AssociationRejectedError)
    assert failures.texts() == ([] if codes[0] == 1 else ["a bug"])


def test_an_acceptor_that_was_left_decides_nothing():
    cancelled: list[bool] = []
    verdict: defer.Deferred[None] = defer.Deferred(
        lambda d: (cancelled.append(True), d.callback(None))
    )
    _, peer = asking(lambda: verdict)
    peer.send(AAbort(0, 0))
    assert cancelled == [True]
    assert peer.take() == []
    cancelled.clear()
    _, peer = asking(lambda: defer.Deferred(lambda _: cancelled.append(True)))
    peer.transport.abortConnection()
    assert cancelled == [True]


def test_an_acceptor_has_its_own_view_of_the_window():
    node = serving(verification_scp, window=Window(4, 5))
    node.associate(None, MaximumLength(0), AsynchronousOperationsWindow(2, 9))
    assert node.association().window == Window(4, 2)


def test_a_request_that_cannot_be_answered_is_aborted():
    node = Node()
    peer = node.connect()
    peer.send(request({}))
    assert peer.abort() == (2, 6)
    assert not node.association().is_open


def test_an_acceptor_rejects_by_itself():
    node = serving(verification_scp, called_ae_titles=["OTHER"])
    peer = node.connect()
    peer.send(request())
    assert peer.rejection() == (1, 1, 7)


# -- release ---------------------------------------------------------------------------------------------


def test_a_release_is_asked_and_answered():
    caller, asce = calling()
    released = asce.release()
    assert caller.peer.kinds() == [RELEASE_RQ]
    assert not released.called
    caller.peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None
    assert isinstance(asce.error, AssociationReleasedError)
    assert caller.peer.is_lost
    assert caller.clock.getDelayedCalls() == []


def test_everybody_who_releases_is_told():
    caller, asce = calling()
    releases = [asce.release(), asce.release()]
    assert caller.peer.kinds() == [RELEASE_RQ]
    caller.peer.send(pdu(RELEASE_RP))
    assert [success_of(each) for each in releases] == [None, None]
    assert success_of(asce.release()) is None


def test_a_release_after_another_end_fails_with_that():
    _, asce = calling()
    asce.abort()
    assert failure_of(asce.release()) is asce.error


def test_a_release_waits_for_what_was_requested():
    """PS3.8 7.2: a release must not lose data in transit."""
    caller, asce = calling()
    answers = [echo(asce), echo(asce)]
    released = asce.release()
    assert isinstance(failure_of(echo(asce)), AssociationReleasedError)
    for answer in answers:
        (asked,) = caller.peer.messages()
        caller.peer.send(asked.response(0))
        assert success_of(answer).status == 0
    assert caller.peer.kinds() == [RELEASE_RQ]
    caller.peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None


def test_a_release_waits_for_what_the_peer_has_requested():
    """PS3.8 7.2.1: who asked for release sends nothing any more, and the peer would wait in vain."""
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1))
    released = node.association().release()
    peer.send(echo_rq(2))
    slow.answer(1)
    assert peer.statuses() == [0]
    node.advance(TIMEOUTS.release - 1)
    assert peer.take() == []
    slow.answer(2)
    assert peer.kinds() == [DATA, RELEASE_RQ]
    node.advance(TIMEOUTS.release - 1)
    peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None
    assert slow.cancelled == []


def test_a_release_waits_for_a_request_that_has_begun_to_come():
    """Its answer could not be sent either."""
    node = serving(lambda asce, ctx, msg: 0, FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    whole = message(find_rq(1))
    peer.send(whole[:-1])
    released = node.association().release()
    assert peer.take() == []
    peer.send(whole[-1:])
    assert peer.kinds() == [DATA, RELEASE_RQ]
    peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None


def test_a_release_goes_on_when_the_request_that_came_is_refused():
    """No service sees it, so no operation ends."""
    ae = AE("NODE").add_scu(Slow(), [FIND])
    node = Node(ae)
    peer = node.associate({FIND: [IMPLICIT]}, MaximumLength(0), RoleSelection(FIND, False, True))
    whole = message(find_rq(1))
    peer.send(whole[:-1])
    node.association().release()
    peer.send(whole[-1:])
    assert peer.kinds() == [DATA, RELEASE_RQ]


def test_operations_have_a_time_to_end_before_a_release():
    """What is not answered then is cancelled when the peer agrees; our release does not fail for it."""
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1))
    released = node.association().release()
    node.advance(TIMEOUTS.release)
    assert peer.kinds() == [RELEASE_RQ]
    assert slow.cancelled == []
    peer.send(pdu(RELEASE_RP))
    node.advance(0)
    assert success_of(released) is None
    assert slow.cancelled == [1]
    assert peer.take() == []


def test_a_release_that_waits_for_operations_ends_with_the_association():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1))
    released = node.association().release()
    peer.send(pdu(ABORT))
    assert isinstance(failure_of(released), AssociationAbortedError)
    node.advance(TIMEOUTS.release)
    assert slow.cancelled == [1]


def test_a_release_waits_until_all_has_gone_out():
    node = serving(lambda asce, ctx, msg: (0, bytes(1 << 20)), FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.transport.pauseProducing()
    peer.send(find_rq(1))
    released = node.association().release()
    peer.transport.resumeProducing()
    kinds = peer.kinds()
    assert kinds[-1] == RELEASE_RQ
    assert set(kinds[:-1]) == {DATA}
    peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None


def test_a_release_that_waits_for_room_ends_with_the_association():
    node = serving(lambda asce, ctx, msg: (0, bytes(1 << 20)), FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.transport.pauseProducing()
    peer.send(find_rq(1))
    released = node.association().release()
    peer.transport.abortConnection()
    assert isinstance(failure_of(released), ConnectionLostError)


def test_a_release_that_is_not_answered_is_an_abort():
    caller, asce = calling()
    released, waiting = asce.release(), asce.release()
    caller.advance(TIMEOUTS.release - 1)
    assert not released.called
    caller.advance(1)
    error = failure_of(released)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "release"
    assert failure_of(waiting) is error
    assert caller.peer.kinds() == [RELEASE_RQ, ABORT]
    caller.advance(TIMEOUTS.artim)
    assert caller.peer.is_lost


def test_a_peer_may_close_instead_of_answering_a_release():
    caller, asce = calling()
    released = asce.release()
    caller.peer.transport.loseConnection()
    assert success_of(released) is None
    assert isinstance(asce.error, AssociationReleasedError)


def test_a_release_that_is_answered_with_an_abort_fails():
    caller, asce = calling()
    released = asce.release()
    caller.peer.send(AAbort(0, 0))
    assert isinstance(failure_of(released), AssociationAbortedError)


def test_cancelling_a_release_aborts():
    caller, asce = calling()
    released, other = asce.release(), asce.release()
    released.cancel()
    assert isinstance(failure_of(released), defer.CancelledError)
    assert isinstance(failure_of(other), AssociationAbortedError)
    assert caller.peer.kinds() == [RELEASE_RQ, ABORT]


def test_a_release_collision_at_the_requestor():
    """PS3.8 9.2: AR-8, AR-9, AR-3; the requestor answers first."""
    caller, asce = calling()
    released = asce.release()
    caller.peer.send(pdu(RELEASE_RQ))
    assert caller.peer.kinds() == [RELEASE_RQ, RELEASE_RP]
    assert not released.called
    caller.peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None
    assert caller.peer.is_lost


def test_a_release_collision_at_the_acceptor():
    """PS3.8 9.2: AR-8, AR-10, AR-4."""
    node = Node()
    peer = node.associate()
    released = node.association().release()
    peer.send(pdu(RELEASE_RQ))
    assert peer.kinds() == [RELEASE_RQ]
    assert not released.called
    peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None
    assert peer.kinds() == [RELEASE_RP]


def test_a_release_collision_of_two_of_ours():
    with connected(
        AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(verification_scp)
    ) as pair:
        both: list[Any] = []
        pair.wire.do(lambda: both.extend((pair.requestor.release(), pair.acceptor.release())))
        assert [success_of(each) for each in both] == [None, None]


@pytest.mark.parametrize("side", ["requestor", "acceptor"])
def test_a_release_collision_that_the_peer_does_not_end_is_an_abort(side):
    if side == "requestor":
        driver: Any
        driver, asce = calling()
        peer = driver.peer
    else:
        driver = Node()
        peer = driver.associate()
        asce = driver.association()
    released = asce.release()
    peer.send(pdu(RELEASE_RQ))
    driver.advance(TIMEOUTS.release)
    assert isinstance(failure_of(released), DCMTimeoutError)
    assert peer.kinds()[-1] == ABORT


def test_a_peer_may_release():
    node = Node()
    peer = node.associate()
    closed = node.association().closed()
    peer.send(pdu(RELEASE_RQ))
    assert peer.kinds() == [RELEASE_RP]
    assert not closed.called
    peer.transport.loseConnection()
    assert isinstance(success_of(closed), AssociationReleasedError)
    assert not node.ae.associations


def test_what_is_outstanding_fails_when_the_peer_releases():
    """PS3.8 7.2.1: who asked for release sends nothing any more."""
    caller, asce = calling()
    answers = [echo(asce), echo(asce)]
    caller.peer.send(pdu(RELEASE_RQ))
    errors = [failure_of(each) for each in answers]
    assert isinstance(errors[0], AssociationReleasedError)
    assert errors[0] is errors[1]
    assert caller.peer.kinds() == [DATA, RELEASE_RP]
    assert isinstance(failure_of(echo(asce)), AssociationReleasedError)


def test_an_operation_that_runs_is_answered_before_a_release():
    """AR-7: data may still be sent in Sta8."""
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1), pdu(RELEASE_RQ))
    assert peer.take() == []
    node.advance(TIMEOUTS.release - 1)
    slow.answer(1)
    ((kind, _), (then, _)) = peer.take()
    assert (kind, then) == (DATA, RELEASE_RP)
    node.advance(1)
    assert peer.take() == []


def test_an_operation_that_takes_too_long_is_cancelled_by_a_release():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1), pdu(RELEASE_RQ))
    node.advance(TIMEOUTS.release)
    assert peer.kinds() == [RELEASE_RP]
    assert slow.cancelled == [1]


def test_a_release_is_answered_when_all_has_gone_out():
    node = serving(lambda asce, ctx, msg: (0, bytes(1 << 20)), FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.transport.pauseProducing()
    peer.send(find_rq(1), pdu(RELEASE_RQ))
    peer.transport.resumeProducing()
    kinds = peer.kinds()
    assert kinds[-1] == RELEASE_RP
    assert len(kinds) > 2


def test_a_peer_that_takes_nothing_gets_no_answer_to_its_release():
    node = serving(lambda asce, ctx, msg: (0, bytes(1 << 20)), FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.transport.pauseProducing()
    peer.send(find_rq(1), pdu(RELEASE_RQ))
    node.advance(TIMEOUTS.send)
    assert peer.is_lost
    assert not node.ae.associations


def test_our_release_is_done_when_the_peer_asked_first():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1), pdu(RELEASE_RQ))
    released = node.association().release()
    slow.answer(1)
    assert success_of(released) is None
    assert peer.kinds() == [DATA, RELEASE_RP]


@pytest.mark.parametrize("service", [verification_scp, None])
def test_a_request_that_crosses_our_release_is_not_answered(service):
    """AR-6: it may come in Sta7, but there is no Evt9 there to answer it with."""
    ae = AE("CALLER")
    if service is not None:
        ae.add_scp(service)
    caller, asce = calling(ae=ae)
    released = asce.release()
    caller.peer.send(echo_rq(1), echo_rq(1), pdu(RELEASE_RP))
    assert success_of(released) is None
    assert caller.peer.kinds() == [RELEASE_RQ]


# -- abort and loss --------------------------------------------------------------------------------------


def test_an_abort_is_sent_once():
    """PS3.8 7.3."""
    caller, asce = calling()
    asce.abort()
    asce.abort()
    assert caller.peer.abort() == (0, 0)
    error = asce.error
    assert isinstance(error, AssociationAbortedError)
    assert (error.source, error.by_peer) == (0, False)


ENDS: dict[str, tuple[Callable[[Caller, Association], object], type[Exception]]] = {
    "abort": (lambda caller, asce: asce.abort(), AssociationAbortedError),
    "abort of the peer": (
        lambda caller, asce: caller.peer.send(AAbort(0, 0)),
        AssociationAbortedError,
    ),
    "invalid PDU": (lambda caller, asce: caller.peer.send(pdu(0x42)), AssociationAbortedError),
    "invalid message": (
        lambda caller, asce: caller.peer.send(p_data(1, 2, b"??")),
        AssociationAbortedError,
    ),
    "close": (lambda caller, asce: caller.peer.transport.loseConnection(), ConnectionLostError),
    "reset": (lambda caller, asce: caller.peer.transport.abortConnection(), ConnectionLostError),
    "no response": (lambda caller, asce: caller.advance(TIMEOUTS.response), DCMTimeoutError),
    "release of the peer": (
        lambda caller, asce: caller.peer.send(pdu(RELEASE_RQ)),
        AssociationReleasedError,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_all_that_is_outstanding_fails_with_the_same_reason(name):
    end, expected = ENDS[name]
    ae = AE("CALLER", window=Window(2, 1))
    caller, asce = calling(
        {VERIFICATION: [IMPLICIT], FIND: [IMPLICIT]},
        ae,
        (MaximumLength(0), AsynchronousOperationsWindow(2, 1)),
    )
    single = echo(asce)
    stream = asce.request_many(find_rq(), context(asce, FIND), lambda response: response)
    done, reading = stream.done, defer.Deferred.fromCoroutine(anext(stream))
    waiting = echo(asce)
    end(caller, asce)
    errors = [failure_of(each) for each in (single, done, reading, waiting)]
    assert isinstance(errors[0], expected)
    assert all(each is errors[0] for each in errors)
    assert type(asce.error) is type(errors[0])
    assert failure_of(echo(asce)) is asce.error
    assert asce.operations == 0
    # Nothing waits for ever: at most ARTIM is left.
    caller.advance(TIMEOUTS.artim)
    assert caller.peer.is_lost
    assert caller.clock.getDelayedCalls() == []


@pytest.mark.parametrize("name", ENDS)
def test_what_waits_for_a_release_is_told_of_the_end(name):
    end, expected = ENDS[name]
    caller, asce = calling()
    echo(asce).addErrback(lambda _: None)
    released = asce.release()
    end(caller, asce)
    if expected is AssociationReleasedError:
        assert success_of(released) is None
    else:
        assert isinstance(failure_of(released), expected)


def test_an_abort_of_the_peer_tells_who_and_why():
    caller, asce = calling()
    caller.peer.send(AAbort(2, 6))
    error = asce.error
    assert isinstance(error, AssociationAbortedError)
    assert (error.source, error.reason_diag, error.by_peer) == (2, 6, True)


def test_a_fault_of_the_peer_is_aborted_and_told():
    caller, asce = calling()
    caller.peer.send(p_data(3, 3, b""))
    error = asce.error
    assert isinstance(error, AssociationAbortedError)
    assert (error.source, error.reason_diag, error.by_peer) == (2, 5, False)
    assert "presentation context 3" in str(error)
    assert caller.peer.abort() == (2, 5)


def test_what_comes_after_the_end_is_not_looked_at():
    caller, asce = calling(ae=AE("CALLER").add_scp(verification_scp))
    asce.abort()
    caller.peer.send(echo_rq(1))
    assert caller.peer.abort() == (0, 0)


def test_an_abort_takes_effect_within_a_segment():
    """What stands behind it in the same segment is not performed."""
    seen: list[int] = []

    def once(asce: Association, ctx: PContextDef, msg: Any) -> int:
        seen.append(msg.message_id)
        asce.abort()
        return 0

    node = serving(once)
    peer = node.associate()
    peer.send(echo_rq(1), echo_rq(2))
    assert seen == [1]
    assert peer.abort() == (0, 0)


def test_an_abort_stops_what_runs():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1))
    node.association().abort()
    assert slow.cancelled == [1]
    assert peer.abort() == (0, 0)


def test_an_abort_while_the_peer_reads_nothing_still_ends():
    caller, asce = calling({CT: [IMPLICIT]})
    caller.peer.transport.pauseProducing()
    sent = asce.request(store_rq(None, bytes(1 << 24)), context(asce, CT))
    asce.abort()
    assert isinstance(failure_of(sent), AssociationAbortedError)
    caller.advance(TIMEOUTS.artim)
    assert caller.peer.is_lost


def test_an_abort_before_the_request_came_refuses_it():
    node = Node()
    peer = node.connect()
    node.association().abort()
    peer.send(request())
    assert peer.abort() == (0, 0)


def test_an_abort_of_a_paused_association_sees_the_peer_close():
    caller, asce = calling()
    asce.pause("reason")
    asce.abort()
    caller.peer.transport.loseConnection()
    assert success_of(asce.closed()) is asce.error


def test_a_dropped_connection_is_gone_at_once():
    caller, asce = calling()
    asce.drop()
    assert caller.peer.is_lost
    assert isinstance(asce.error, ConnectionLostError)
    assert caller.peer.take() == []


def test_a_connection_that_never_became_an_association_is_closed():
    node = Node()
    peer = node.connect()
    closed = node.association().closed()
    peer.transport.loseConnection()
    assert isinstance(success_of(closed), ConnectionLostError)


def test_there_is_nothing_to_drop_before_the_transport():
    ae = AE("CALLER")
    asce = Association(ae, is_requestor=True, clock=Node().clock, timeouts=TIMEOUTS)
    asce.drop()
    asce.abort()
    assert isinstance(asce.error, AssociationAbortedError)


# -- async with ------------------------------------------------------------------------------------------


def test_a_block_releases_at_its_end():
    scu, scp = AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(verification_scp)

    async def main(opening: Any) -> int:
        async with await opening as asce:
            return await asce.get_scu(VERIFICATION)()

    with connected(scu, scp) as pair:
        acceptor_over = pair.acceptor.closed()
        assert run(main(defer.succeed(pair.requestor))) == SUCCESS
        assert isinstance(pair.requestor.error, AssociationReleasedError)
        assert isinstance(success_of(acceptor_over), AssociationReleasedError)


def test_a_block_that_raises_aborts():
    caller, asce = calling()

    async def main() -> None:
        async with asce:
            raise KeyError("of mine")

    with pytest.raises(KeyError, match="of mine"):
        run(main())
    assert caller.peer.abort() == (0, 0)


def test_a_block_that_is_thrown_away_aborts_when_it_is_gone():
    """Not while it is being closed: its abort would wake it ("coroutine already executing")."""
    caller, asce = calling()
    ended: list[Any] = []

    async def main() -> None:
        async with asce:
            await echo(asce)

    block = main()
    defer.Deferred.fromCoroutine(block).addErrback(ended.append)
    block.close()
    assert ended == []
    caller.clock.advance(0)
    assert isinstance(asce.error, AssociationAbortedError)
    assert [each.type for each in ended] == [RuntimeError]  # of Twisted: its coroutine is gone


def test_a_block_whose_association_was_lost_says_so():
    caller, asce = calling()

    async def main() -> None:
        async with asce:
            caller.peer.transport.loseConnection()

    with pytest.raises(ConnectionLostError):
        run(main())


def test_a_block_that_was_told_why_is_not_told_again():
    caller, asce = calling()
    told: list[Exception] = []

    async def main() -> None:
        async with asce:
            answer = echo(asce)
            caller.peer.transport.loseConnection()
            try:
                await answer
            except ConnectionLostError as error:
                told.append(error)

    run(main())
    assert told == [asce.error]


def test_a_block_whose_request_was_refused_for_the_end_is_not_told_again():
    """The request was made when the association was over already."""
    caller, asce = calling()
    told: list[Exception] = []

    async def main() -> None:
        async with asce:
            caller.peer.transport.loseConnection()
            try:
                await echo(asce)
            except ConnectionLostError as error:
                told.append(error)

    run(main())
    assert told == [asce.error]


# -- closed() --------------------------------------------------------------------------------------------


def test_everybody_who_asks_is_told_of_the_close():
    """Each caller has a Deferred of its own: what one makes of it does not change the others'."""
    caller, asce = calling()
    first, second = asce.closed(), asce.closed()
    assert first is not second
    first.addCallback(lambda reason: None)
    asce.abort()
    assert not second.called, "the connection is still there"
    caller.peer.transport.loseConnection()
    assert success_of(first) is None
    assert success_of(second) is asce.error
    assert success_of(asce.closed()) is asce.error


def test_a_wait_for_the_close_can_be_forgotten():
    caller, asce = calling()
    first, second = asce.closed(), asce.closed()
    first.cancel()
    assert isinstance(failure_of(first), defer.CancelledError)
    caller.peer.transport.loseConnection()
    assert isinstance(success_of(second), ConnectionLostError)


def test_the_reason_of_a_close_is_always_an_association_error():
    caller, asce = calling()
    closed = asce.closed()
    echo(asce).addErrback(lambda _: None)
    caller.advance(TIMEOUTS.response)
    caller.advance(TIMEOUTS.artim)
    reason = success_of(closed)
    assert isinstance(reason, AssociationError)
    assert "'response'" in str(reason)


# -- timeouts --------------------------------------------------------------------------------------------


def test_a_response_must_come_in_time():
    caller, asce = calling()
    answer = echo(asce)
    caller.peer.take()
    caller.advance(TIMEOUTS.response - 1)
    assert not answer.called
    caller.advance(1)
    error = failure_of(answer)
    assert isinstance(error, DCMTimeoutError)
    assert (error.timer, error.seconds) == ("response", TIMEOUTS.response)
    assert caller.peer.abort() == (0, 0)


def test_the_time_stands_still_while_we_do_not_read():
    """The answer may be here already."""
    caller, asce = calling()
    answer = echo(asce)
    reader = object()
    asce.pause(reader)
    caller.peer.send(echo_rq(1).response(0))
    caller.advance(5 * TIMEOUTS.response)
    assert not answer.called
    asce.resume(reader)
    assert success_of(answer).status == 0


def test_the_timeout_of_a_request_may_be_its_own():
    caller, asce = calling()
    answer = echo(asce, timeout=5)
    caller.advance(5)
    assert isinstance(failure_of(answer), DCMTimeoutError)


def test_the_time_counts_from_when_the_request_has_gone_out():
    caller, asce = calling()
    first, second = echo(asce), echo(asce)
    caller.advance(TIMEOUTS.response - 1)
    caller.peer.send(echo_rq(1).response(0))
    assert success_of(first).status == 0
    caller.advance(TIMEOUTS.response - 1)
    assert not second.called
    caller.peer.send(echo_rq(2).response(0))
    assert success_of(second).status == 0
    assert caller.clock.getDelayedCalls() == []


def test_the_time_does_not_count_while_the_request_goes_out_slowly(monkeypatch):
    """What the transport and the kernel have taken is not yet with the peer."""
    caller, asce = calling()
    answer = echo(asce)
    left = 1000
    monkeypatch.setattr(DULProtocol, "unsent", property(lambda _: left))
    for _ in range(3):
        caller.advance(TIMEOUTS.response)
        left -= 100
    assert not answer.called
    caller.advance(TIMEOUTS.response)
    assert not answer.called
    caller.advance(TIMEOUTS.response)  # it takes nothing more
    error = failure_of(answer)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "response"


def test_a_pending_response_renews_the_wait():
    caller, asce = calling({FIND: [IMPLICIT]})
    done = asce.request_many(find_rq(), context(asce, FIND), lambda response: response).done
    for _ in range(5):
        caller.advance(TIMEOUTS.response - 1)
        caller.peer.send(find_rq(1).response(0xFF00))
    assert not done.called
    caller.advance(TIMEOUTS.response)
    assert isinstance(failure_of(done), DCMTimeoutError)


def test_pending_responses_do_not_help_for_ever():
    timeouts = Timeouts(total=100)
    caller, asce = calling({FIND: [IMPLICIT]}, AE("CALLER", timeouts=timeouts))
    done = asce.request_many(find_rq(), context(asce, FIND), lambda response: response).done
    for _ in range(3):
        caller.advance(30)
        caller.peer.send(find_rq(1).response(0xFF00))
    assert not done.called
    caller.advance(10)
    error = failure_of(done)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "total"


def test_a_peer_that_takes_nothing_is_given_up():
    caller, asce = calling({CT: [IMPLICIT]})
    caller.peer.transport.pauseProducing()
    answer = asce.request(store_rq(None, bytes(1 << 24)), context(asce, CT))
    caller.advance(TIMEOUTS.send - 1)
    assert not answer.called
    caller.advance(1)
    error = failure_of(answer)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "send"
    assert caller.peer.is_lost, "the A-ABORT would stand behind what it does not take"


def test_an_idle_peer_is_given_up():
    node = Node()
    peer = node.associate()
    node.advance(TIMEOUTS.idle - 1)
    assert peer.take() == []
    node.advance(1)
    assert peer.abort() == (2, 0)
    assert "'idle'" in str(node.association().error)


def test_a_peer_that_is_owed_something_is_not_idle():
    """As a report of storage commitment, whose request has been answered."""
    node = serving(verification_scp)
    node.associate()
    with node.association().owing():
        node.advance(10 * TIMEOUTS.idle)
        assert node.association().is_open
    node.advance(TIMEOUTS.idle)
    assert not node.association().is_open


def test_whatever_comes_renews_the_idle_time():
    node = Node()
    peer = node.associate()
    for _ in range(3):
        node.advance(TIMEOUTS.idle - 1)
        peer.send(echo_rq(1))
        assert peer.statuses() == [0]
    node.advance(TIMEOUTS.idle - 1)
    assert node.association().is_open


def test_a_peer_that_waits_for_us_is_not_idle():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1))
    node.advance(10 * TIMEOUTS.idle)
    assert peer.take() == []
    slow.answer(1)
    assert peer.statuses() == [0]
    node.advance(TIMEOUTS.idle)
    node.advance(TIMEOUTS.idle)
    assert peer.abort() == (2, 0)


def test_a_peer_that_stops_in_the_middle_of_a_data_set_is_idle():
    """It is the peer that everybody waits for."""
    node = serving(lambda asce, ctx, msg: 0, CT)
    peer = node.associate({CT: [IMPLICIT]})
    peer.send(message(store_rq(1, bytes(1000)))[:-1])
    node.advance(TIMEOUTS.idle)
    assert peer.abort() == (2, 0)


def test_a_requestor_decides_itself_when_to_end():
    caller, asce = calling()
    caller.advance(100 * TIMEOUTS.idle)
    assert asce.is_open


# -- requests of the peer --------------------------------------------------------------------------------


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
    node = Node()
    peer = node.associate()
    peer.transport.pauseProducing()
    dul = node.association()._channel.dul
    for n in range(1, 5001):
        peer.send(echo_rq(n))
    assert len(peer.transport._inbox) < 2000
    assert len(dul._queue) <= 1
    peer.transport.resumeProducing()
    assert len(peer.statuses()) == 5000


def test_a_data_set_arrives_in_a_file_that_is_closed_at_the_end():
    file = File()
    file.write(b"head")
    waiting: defer.Deferred[int] = defer.Deferred()
    _, ae, peer = keeping(file, start=2)
    ae.answer = waiting
    peer.send(store_rq(1, b"data"))
    assert ae.seen == [b"addata"]
    assert not file.closed
    waiting.callback(0)
    assert file.closed
    assert peer.statuses() == [0]


@pytest.mark.parametrize("where", ["open", "write", "seek", "write close", "seek close"])
def test_a_file_that_fails_is_answered_and_the_association_lives_on(where, failures):
    """PS3.4 B.2.3: A7xx, out of resources."""
    error = OSError(errno.ENOSPC, "no space left")
    file = error if where == "open" else File(*where.split())
    _, ae, peer = keeping(file, File())
    peer.send(store_rq(1, bytes(100_000)), store_rq(2, b"good"))
    assert peer.statuses() == [0xA700, 0]
    assert ae.seen == [b"good"]
    assert where == "open" or file.closed
    (logged,) = failures.texts()
    assert "cannot be kept" in logged


def test_a_file_that_cannot_be_closed_does_not_keep_the_operation():
    _, _, peer = keeping(File("close"), File())
    peer.send(store_rq(1), store_rq(2))
    assert peer.statuses() == [0, 0]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StatusError(0xA700, "the quota is used up"), 0xA700),
        (EventHandlingError("not from you"), 0xC000),
    ],
)
def test_a_hook_may_refuse_a_data_set_before_it_comes(error, status, failures):
    """It is read to its end all the same: the peer is in the middle of sending it."""
    _, _, peer = keeping(error, File())
    peer.send(store_rq(1, bytes(100_000)), store_rq(2))
    (refused, taken) = peer.messages()
    assert (refused.status, refused.error_comment) == (status, error.comment)
    assert taken.status == 0


@pytest.mark.parametrize("where", ["open", "write", "seek"])
def test_a_hook_that_fails_is_answered_and_the_association_lives_on(where, failures):
    error = ZeroDivisionError("a bug")
    file = error if where == "open" else File(where, error=error)
    _, _, peer = keeping(file, File())
    peer.send(store_rq(1), store_rq(2))
    assert peer.statuses() == [0x0110, 0]
    assert failures.texts()


@pytest.mark.parametrize("end", ["abort", "reset"])
def test_a_data_set_that_does_not_come_to_its_end_is_given_up(end):
    file = File()
    node, ae, peer = keeping(file)
    peer.send(message(store_rq(1, bytes(1000)))[:-1])
    assert not file.closed
    if end == "abort":
        peer.send(b"!", AAbort(0, 0))
        assert ae.seen
    else:
        peer.transport.abortConnection()
        assert not ae.seen
    assert file.closed
    assert node.lives()


def test_a_file_that_cannot_be_closed_does_not_keep_the_association():
    file = File("close")
    node, _, peer = keeping(file)
    peer.send(message(store_rq(1, bytes(1000)))[:-1])
    peer.transport.abortConnection()
    assert file.closed
    assert not node.ae.associations


def test_files_that_wait_for_their_turn_are_closed_with_the_association():
    files = [File("close"), File(), File()]
    _, ae, peer = keeping(*files)
    ae.answer = defer.Deferred()
    peer.send(*(store_rq(n) for n in (1, 2, 3)))
    assert len(ae.seen) == 1
    peer.transport.abortConnection()
    assert [each.closed for each in files] == [True, True, True]


def test_the_file_of_a_refused_duplicate_is_closed():
    files = [File(), File()]
    _, ae, peer = keeping(*files)
    ae.answer = defer.Deferred()
    peer.send(store_rq(1), store_rq(1))
    assert peer.statuses() == [0x0210]
    assert [each.closed for each in files] == [False, True]


def test_an_instance_may_arrive_in_memory():
    seen: list[bytes] = []
    node = serving(lambda asce, ctx, msg: (seen.append(msg.data_set), 0)[1], CT)
    peer = node.associate({CT: [IMPLICIT]})
    peer.send(store_rq(1, bytes(IDENTIFIER_LIMIT + 2)))
    assert peer.statuses() == [0]
    assert seen == [bytes(IDENTIFIER_LIMIT + 2)]


def test_what_arrives_in_memory_has_a_limit(monkeypatch):
    monkeypatch.setattr("netdicom_tx.datasinks.MEMORY_LIMIT", 1000)
    node = serving(lambda asce, ctx, msg: 0, CT)
    peer = node.associate({CT: [IMPLICIT]})
    peer.send(store_rq(1, bytes(1000)))
    assert peer.statuses() == [0]
    peer.send(store_rq(1, bytes(1002)))
    assert peer.abort() == (2, 6)


def test_an_identifier_has_a_limit():
    node = serving(lambda asce, ctx, msg: 0, FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.send(find_rq(1, bytes(IDENTIFIER_LIMIT)))
    assert peer.statuses() == [0]
    peer.send(find_rq(1, bytes(IDENTIFIER_LIMIT + 2)))
    assert peer.abort() == (2, 6)


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


def test_what_c_get_brings_may_be_taken_by_nobody():
    """A C-STORE that comes to a requestor with no such request outstanding is closed at its end."""
    ae = Keeper(File())
    roles = [RoleSelection(CT, False, True)]
    caller = Caller(ae, {CT: [IMPLICIT]}, roles=roles)
    caller.accept(MaximumLength(0), *roles)
    file = ae.files[0]
    caller.peer.send(store_rq(1))
    assert caller.peer.statuses() == [0]
    assert file.closed
    ae.files.append(File())
    ae.answer = 0xA700
    file = ae.files[0]
    caller.peer.send(store_rq(1))
    assert file.closed


@pytest.mark.parametrize("ae", [AE("CALLER"), AE("CALLER").add_scu(verification_scu)])
def test_an_operation_that_we_do_not_serve_is_refused(ae):
    """PS3.7 Annex C: 0122. An SCU answers nothing but events."""
    caller, asce = calling(ae=ae)
    caller.peer.send(echo_rq(1))
    assert caller.peer.statuses() == [0x0122]
    assert asce.is_open


# -- pressure --------------------------------------------------------------------------------------------


def test_refusals_that_the_peer_does_not_take_keep_it_from_asking_more():
    """They are no operations, so the window does not bound them."""
    node = serving(lambda asce, ctx, msg: defer.Deferred(), VERIFICATION)
    peer = node.associate()
    peer.send(echo_rq(1))
    peer.transport.pauseProducing()
    for _ in range(5000):
        peer.send(echo_rq(1))
    assert len(node.association()._channel.dul._queue) < 10
    peer.transport.resumeProducing()
    assert peer.statuses() == [0x0210] * 5000


def test_a_pause_lasts_no_longer_than_the_association():
    node = Node()
    peer = node.associate()
    whole = defer.Deferred.fromCoroutine(node.association().pause_for(5))
    cut = defer.Deferred.fromCoroutine(node.association().pause_for(50))
    node.advance(5)
    assert success_of(whole) is None
    assert not cut.called
    peer.transport.abortConnection()
    assert success_of(cut) is None
    assert node.clock.getDelayedCalls() == []


# -- the end of a node -----------------------------------------------------------------------------------


def test_what_is_to_finish_is_released_when_nothing_runs():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    peer.send(echo_rq(1))
    node.association().finish()
    assert peer.take() == []
    slow.answer(1)
    assert peer.kinds() == [DATA, RELEASE_RQ]


def test_what_is_to_finish_is_released_at_once_when_nothing_runs():
    node = Node()
    peer = node.associate()
    node.association().finish()
    assert peer.kinds() == [RELEASE_RQ]


def test_what_is_to_finish_waits_for_a_data_set_that_is_arriving():
    node, _, peer = keeping(File())
    whole = message(store_rq(1, bytes(1000)))
    peer.send(whole[:-1])
    node.association().finish()
    assert peer.take() == []
    peer.send(whole[-1:])
    assert peer.kinds() == [DATA, RELEASE_RQ]


def test_what_is_to_finish_waits_for_our_own_requests():
    caller, asce = calling()
    echo(asce)
    asce.finish()
    assert caller.peer.kinds() == [DATA]
    caller.peer.send(echo_rq(1).response(0))
    assert caller.peer.kinds() == [RELEASE_RQ]
    caller.peer.send(AAbort(0, 0))  # told to nobody; at debug in the log
    assert isinstance(asce.error, AssociationAbortedError)


def test_what_is_not_open_yet_finishes_at_once():
    node = Node()
    peer = node.connect()
    node.association().finish()
    assert peer.is_lost
    assert not node.ae.associations


def test_a_message_of_an_acceptor_keeps_to_what_the_peer_admits():
    """PS3.8 D.1."""
    node = serving(lambda asce, ctx, msg: (0, bytes(1000)), FIND)
    peer = node.associate({FIND: [IMPLICIT]}, MaximumLength(100))
    peer.send(find_rq(1))
    sizes = [len(body) for _, body in peer.take()]
    assert max(sizes) == 100
    assert len(sizes) > 10


def test_a_message_of_a_requestor_keeps_to_what_the_peer_admits():
    caller, asce = calling({CT: [IMPLICIT]}, items=(MaximumLength(100),))
    asce.request(store_rq(None, bytes(1000)), context(asce, CT))
    assert max(len(body) for _, body in caller.peer.take()) == 100
