"""How an association ends: release, abort, loss, and the idle rule (PS3.8 7.2, 7.3)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx import (
    AE,
    Association,
    AssociationAbortedError,
    AssociationError,
    AssociationReleasedError,
    ConnectionLostError,
    DCMTimeoutError,
    Timeouts,
    verification_scp,
    verification_scu,
)
from netdicom_tx.asceprovider import PContextDef
from netdicom_tx.closing import TIMED, TRANSITIONS, WAITS, Action, Event, State, Wait
from netdicom_tx.pdu import (
    AAbort,
)
from netdicom_tx.testing import connected, failure_of, success_of
from netdicom_tx.userdataitems import (
    MaximumLength,
    RoleSelection,
)
from support.doubles import (
    ABORT,
    AC,
    CT,
    DATA,
    FIND,
    IMPLICIT,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    Caller,
    File,
    Node,
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
    serving,
    store_rq,
)
from support.doubles import logged_failures as logged_failures

TIMEOUTS = Timeouts()


# -- the table -------------------------------------------------------------------------------------


def reachable(start: State) -> set[State]:
    """The states to which some row leads, from here on."""
    found = {start}
    while (
        more := {after for (state, _), (after, _) in TRANSITIONS.items() if state in found} - found
    ):
        found |= more
    return found


def test_every_state_can_be_reached_and_can_end():
    assert reachable(State.OPENING) == set(State)
    for state in set(State) - {State.OVER, State.GONE}:
        assert TRANSITIONS[state, Event.ENDED] == (State.OVER, None)


def test_what_a_state_waits_for_settles_and_what_has_a_time_expires():
    """And nothing else does: no wait is without an end."""
    assert {state for state, event in TRANSITIONS if event is Event.SETTLED} == set(WAITS)
    assert {state for state, event in TRANSITIONS if event is Event.EXPIRED} == TIMED
    # Requests have timers of their own, and so has a transport without room.
    assert not any(
        Wait.OPERATIONS in WAITS[state] for state in set(WAITS) - TIMED - {State.FINISHING}
    )


def test_every_event_and_every_action_has_a_row():
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert {action for _, action in TRANSITIONS.values()} == {None, *Action}


def test_once_over_it_is_over():
    assert reachable(State.OVER) == {State.OVER, State.GONE}
    assert not [state for state, _ in TRANSITIONS if state is State.GONE]


# -- release ---------------------------------------------------------------------------------------


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


def test_a_requestor_may_want_to_release_before_it_is_accepted():
    caller = Caller()
    (asce,) = caller.ae.associations
    released = asce.release()
    assert caller.peer.kinds() == []
    caller.peer.send(acceptance(caller.asked))
    assert caller.peer.kinds() == [RELEASE_RQ]
    caller.peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None
    assert success_of(caller.opening) is asce


def test_an_acceptor_may_want_to_release_before_it_has_accepted():
    class Hasty(AE):
        def on_association_request(self, asce: Association, assoc: Any) -> None:
            released.append(asce.release())

    released: list[defer.Deferred[None]] = []
    node = Node(Hasty("NODE").add_scp(verification_scp))
    peer = node.connect()
    peer.send(request())
    assert peer.kinds() == [AC, RELEASE_RQ]
    peer.send(pdu(RELEASE_RP))
    assert success_of(released[0]) is None


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
    assert failure_of(asce.release()).__cause__ is asce.error


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
    assert failure_of(waiting).__cause__ is error.__cause__
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
    assert errors[0].__cause__ is errors[1].__cause__
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


def test_nothing_is_requested_of_a_peer_that_wants_to_release():
    """PS3.8 7.2.1: it would not answer. An operation that still runs may keep the association open."""
    slow = Slow()
    node = Node(AE("NODE").add_scp(slow, [FIND]).add_scu(verification_scu))
    peer = node.associate(
        {FIND: [IMPLICIT], VERIFICATION: [IMPLICIT]},
        MaximumLength(0),
        RoleSelection(VERIFICATION, False, True),
    )
    peer.send(find_rq(1), pdu(RELEASE_RQ))
    asce = node.association()
    assert isinstance(failure_of(echo(asce)), AssociationReleasedError)
    slow.answer(1)
    assert peer.kinds() == [DATA, RELEASE_RP]


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


# -- abort and loss --------------------------------------------------------------------------------


def test_an_abort_is_sent_once():
    """PS3.8 7.3."""
    caller, asce = calling()
    asce.abort()
    asce.abort()
    assert caller.peer.abort() == (0, 0)
    error = asce.error
    assert isinstance(error, AssociationAbortedError)
    assert (error.source, error.by_peer) == (0, False)


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


# -- closed() --------------------------------------------------------------------------------------


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


# -- the idle rule ---------------------------------------------------------------------------------


def test_an_idle_peer_is_given_up():
    node = Node()
    peer = node.associate()
    node.advance(TIMEOUTS.idle - 1)
    assert peer.take() == []
    node.advance(1)
    assert peer.abort() == (2, 0)
    assert "'idle'" in str(node.association().error)


@pytest.mark.timeout(20)
def test_the_idle_time_ends_where_seconds_are_rounded():
    """In binary, 36.3 - 16.3 is a little less than 20, and 36.3 is the next that a clock has."""
    assert 36.3 - 16.3 < 20 == 36.3 - 16.3 + 4e-15
    node = Node(AE("NODE", timeouts=Timeouts(idle=20)).add_scp(verification_scp))
    node.clock.advance(16.3)
    peer = node.associate()
    node.advance(20)
    assert peer.abort() == (2, 0)


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
    node.advance(4 * TIMEOUTS.idle)
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


# -- finish ----------------------------------------------------------------------------------------


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


# -- what is left to do behind the answers -------------------------------------------------------------


class Busy(AE):
    """An AE that has work left when its peers want to release."""

    def __init__(self) -> None:
        super().__init__("NODE", timeouts=Timeouts(release=7))
        self.add_scp(verification_scp)
        self.work: defer.Deferred[None] = defer.Deferred(lambda _: None)
        self.asked = 0

    def finish_work(self, asce: Association) -> defer.Deferred[None]:
        self.asked += 1
        return self.work


@pytest.mark.parametrize("is_failed", [False, True])
def test_a_release_waits_for_work_behind_the_answers(is_failed: bool) -> None:
    """However it ends; the AE is asked once."""
    ae = Busy()
    node = Node(ae)
    peer = node.associate()
    peer.send(echo_rq(), pdu(RELEASE_RQ))
    assert peer.kinds() == [DATA]
    if is_failed:
        ae.work.errback(OSError())
    else:
        ae.work.callback(None)
    node.wire.run()
    assert peer.kinds() == [RELEASE_RP]
    assert ae.asked == 1


def test_work_behind_the_answers_has_the_time_of_a_release() -> None:
    """Then the release is answered all the same."""
    ae = Busy()
    node = Node(ae)
    peer = node.associate()
    peer.send(pdu(RELEASE_RQ))
    node.advance(6.9)
    assert peer.kinds() == []
    node.advance(0.2)
    assert peer.kinds() == [RELEASE_RP]


def test_work_may_end_when_the_peer_is_gone() -> None:
    """Nothing is sent to it."""
    ae = Busy()
    node = Node(ae)
    peer = node.associate()
    peer.send(pdu(RELEASE_RQ), pdu(ABORT))
    ae.work.callback(None)
    node.wire.run()
    assert peer.kinds() == []
    assert not ae.associations
