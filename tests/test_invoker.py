"""What we asked and wait for: message IDs, the window, the routing of responses, and their timers (PS3.7 7)."""

from __future__ import annotations

import errno
import io
from typing import Any

import pytest
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.logger import capturedLogs

from netdicom_tx import (
    AE,
    Association,
    AssociationAbortedError,
    DCMTimeoutError,
    Timeouts,
    Window,
    verification_scp,
    verification_scu,
)
from netdicom_tx.asceprovider import PContextDef
from netdicom_tx.dimsemessages import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRSP,
    NEventReportRQ,
)
from netdicom_tx.dsutils import encode
from netdicom_tx.dulprovider import TURN, DULProtocol
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.statuses import SUCCESS
from netdicom_tx.testing import failure_of, success_of
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    MaximumLength,
    RoleSelection,
)
from support.doubles import (
    COMMITMENT,
    CT,
    FIND,
    IMPLICIT,
    VERIFICATION,
    Caller,
    Node,
    calling,
    context,
    echo,
    echo_rq,
    find_rq,
    message,
    p_data,
    serving,
    store_rq,
    wide,
)
from support.doubles import logged_failures as logged_failures

TIMEOUTS = Timeouts()


# -- responses find their requests -----------------------------------------------------------------


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


@pytest.mark.slow
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
    caller, asce = calling({FIND: [IMPLICIT]})
    answer = asce.request(find_rq(), context(asce, FIND))
    caller.peer.send(find_rq(1).response(0xFF00))
    assert not answer.called
    caller.peer.send(find_rq(1).response(0))
    assert success_of(answer).status == 0


@pytest.mark.parametrize("status", [0xFF00, 0xFF01, 0xFE00])
def test_an_operation_with_one_response_ends_with_it(status: int):
    """PS3.7 9.1.5: C-ECHO has no Pending status, so nothing else is waited for."""
    caller, asce = calling()
    answer = echo(asce)
    caller.peer.send(echo_rq(1).response(status))
    assert success_of(answer).status == status
    assert asce.operations == 0


def test_a_request_that_waits_can_be_withdrawn():
    caller, asce = calling()
    sent, waiting = echo(asce), echo(asce)
    assert [asce.withdraw(number) for number in (1, 2, 3)] == [False, True, False]
    assert isinstance(failure_of(waiting), defer.CancelledError)
    caller.peer.send(echo_rq(1).response(0))
    assert success_of(sent).status == 0
    assert [each.message_id for each in caller.peer.messages()] == [1]


def test_an_error_says_whether_the_request_had_been_sent():
    """The peer may have performed what was sent; what only waited can be sent again without a second thought."""
    caller, asce = calling()
    sent, waiting = echo(asce), echo(asce)
    caller.peer.transport.abortConnection()
    caller.advance(0)
    assert [failure_of(each).is_unsent for each in (sent, waiting)] == [False, True]
    assert failure_of(echo(asce)).is_unsent


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


# -- what may be sent ------------------------------------------------------------------------------


def test_a_request_needs_a_context_of_this_association():
    _, asce = calling()
    for wrong in (PContextDef(3, VERIFICATION, IMPLICIT), PContextDef(1, CT, IMPLICIT)):
        with pytest.raises(LocalProtocolError, match="not a context of this association"):
            asce.request(echo_rq(None), wrong)


def test_a_request_needs_the_role_of_the_scu():
    """PS3.7 D.3.3.4: an acceptor is SCP unless it was negotiated otherwise."""
    node = serving(verification_scp)
    node.associate()
    asce = node.association()
    with pytest.raises(LocalProtocolError, match="C-ECHO needs the other role"):
        echo(asce)


def test_an_event_report_needs_the_role_of_the_scp():
    """PS3.7 10.1.1: it is the SCP that invokes N-EVENT-REPORT."""
    event = NEventReportRQ(
        affected_sop_class_uid=COMMITMENT, affected_sop_instance_uid="1.2.3", event_type_id=1
    )
    _, asce = calling({COMMITMENT: [IMPLICIT]})
    with pytest.raises(LocalProtocolError, match="needs the other role"):
        asce.request(event, context(asce, COMMITMENT))
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


@pytest.mark.parametrize("uid", ["1.\N{GREEK SMALL LETTER BETA}", 5])
def test_a_request_that_cannot_be_encoded_fails_alone(uid):
    caller, asce = calling()
    with pytest.raises(LocalProtocolError, match="AffectedSOPClassUID"):
        asce.request(CEchoRQ(affected_sop_class_uid=uid), context(asce))
    assert caller.peer.take() == []
    assert not asce.operations
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
    assert error.__cause__ is asce.error
    assert caller.peer.abort() == (0, 0)
    assert "the disk is gone" in failures.texts()[0]


# -- waiting for a response ------------------------------------------------------------------------


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


# -- a C-GET whose peer says nothing but instances ---------------------------------------------------------


def getting() -> tuple[Caller, Association, Any]:
    """A C-GET that is under way."""
    uid = STUDY_ROOT_GET_SOP_CLASS
    role = RoleSelection(CT, True, True)
    caller, asce = calling(
        {uid: [IMPLICIT], CT: [IMPLICIT], VERIFICATION: [IMPLICIT]},
        items=[MaximumLength(0), AsynchronousOperationsWindow(0, 0), role],
        ae=AE("CALLER", window=Window(0, 0)),
        roles=[role],
    )
    stream = asce.get(StudyInstanceUID="1.2")  # type: ignore[attr-defined]  # AE's
    caller.peer.take()
    return caller, asce, stream


def instance(number: int) -> bytes:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, f"1.2.{number}"
    return message(store_rq(number, encode(ds, IMPLICIT), f"1.2.{number}"), 3)


def test_an_instance_is_as_good_as_a_pending_response():
    """PS3.4 C.4.3.3: the SCP need not send Pending responses."""
    caller, asce, stream = getting()
    for number in range(1, 9):
        caller.advance(TIMEOUTS.response - 1)
        caller.peer.send(instance(number))
        assert asce.is_open
    caller.advance(TIMEOUTS.response - 1)
    assert asce.is_open
    caller.advance(1)
    assert isinstance(failure_of(stream.done), DCMTimeoutError)


def test_an_instance_may_take_long_to_arrive():
    caller, asce, stream = getting()
    octets = instance(1)
    for piece in (octets[:-9], octets[-9:-8], octets[-8:-7], octets[-7:]):
        caller.peer.send(piece)
        caller.advance(TIMEOUTS.response - 1)
        assert asce.is_open
    del stream


def test_other_traffic_does_not_prolong_a_get():
    caller, asce, stream = getting()
    for _ in range(3):
        caller.advance(TIMEOUTS.response / 3)
        if asce.is_open:
            asked = echo(asce)
            caller.peer.send(caller.peer.messages()[0].response(0))
            success_of(asked)
    assert isinstance(failure_of(stream.done), DCMTimeoutError)
