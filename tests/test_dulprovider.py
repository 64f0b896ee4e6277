"""DULProtocol: feeds bytes, performs outputs, keeps ARTIM, relays pressure."""

from __future__ import annotations

import io
import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import defer, task
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from netdicom_tx import dulprovider
from netdicom_tx.dulprovider import (
    OUTPUTS_PER_TURN,
    READ_BUFFER,
    RECEIVE_LIMIT,
    TURN,
    DULAcceptorFactory,
    DULProtocol,
    DULRequestorFactory,
    Timeouts,
)
from netdicom_tx.exceptions import AbortReason, DIMSEProcessingError, LocalProtocolError
from netdicom_tx.fragments import cut_up, fragment
from netdicom_tx.memory import Wire, join
from netdicom_tx.pdu import AAbort, AAssociateRJ, AReleaseRP, AReleaseRQ
from netdicom_tx.refusals import Refusal
from netdicom_tx.testing import failure_of, success_of
from netdicom_tx.upperlayer import Indication, ProviderAbort, TransportClosed
from netdicom_tx.userdataitems import MaximumLength
from support.doubles import (
    AC,
    CT,
    DATA,
    IMPLICIT,
    RELEASE_RQ,
    VERIFICATION,
    Node,
    RawPeer,
    acceptance,
    echo_rq,
    message,
    p_data,
    pdu,
    pdv,
    request,
    store_rq,
)
from support.doubles import logged_failures as logged_failures

ASKED = request({VERIFICATION: [IMPLICIT], CT: [IMPLICIT]})
TIMEOUTS = Timeouts(artim=30, send=60)


TIMERS = [each.name for each in fields(Timeouts)]


@pytest.mark.parametrize("timer", TIMERS)
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("3", TypeError),
        (b"3", TypeError),
        (None, TypeError),
        (True, TypeError),
        ([30], TypeError),
        (1j, TypeError),
        (0, ValueError),
        (-1, ValueError),
        (-0.0, ValueError),
        (math.inf, ValueError),
        (-math.inf, ValueError),
        (math.nan, ValueError),
    ],
    ids=repr,
)
def test_a_timeout_that_is_none_is_refused_when_it_is_made(timer, value, error):
    """Else it would hang, or fail, in the middle of an association."""
    with pytest.raises(error, match=rf"^Timeouts: {timer} is .*; expected seconds"):
        Timeouts(**{timer: value})


@pytest.mark.parametrize("value", [1, 0.001, 10**9, 1e9])
def test_a_timeout_is_a_number_of_seconds(value):
    """Whole or not, short or long."""
    assert {getattr(Timeouts(**dict.fromkeys(TIMERS, value)), each) for each in TIMERS} == {value}


class User:
    """Notes what the protocol tells; ``on_indicated`` may act on it at once."""

    dul: DULProtocol

    def __init__(self, on_indicated: Callable[[Indication], object] | None = None) -> None:
        self.events: list[Any] = []
        self.lost: defer.Deferred[None] = defer.Deferred()
        self._on_indicated = on_indicated

    def connected(self, dul: DULProtocol) -> None:
        self.dul = dul
        self.events.append("connected")

    def indicated(self, what: Indication) -> None:
        self.events.append(what)
        if self._on_indicated is not None:
            self._on_indicated(what)

    def refused(self, refusal: Refusal) -> None:
        self.events.append(refusal.kind)

    def stalled(self, seconds: float) -> None:
        self.events.append(("stalled", seconds))

    def sending_failed(self, error: Exception) -> None:
        self.events.append(error)

    def disconnected(self, reason: Failure) -> None:
        self.events.append(reason.type)
        self.lost.callback(None)

    def take(self) -> list[Any]:
        found = self.events[:]
        self.events.clear()
        return found


class Side:
    """A protocol on a transport that only keeps what is written."""

    def __init__(self, dul: DULProtocol, user: User, clock: Clock) -> None:
        self.dul, self.user, self.clock = dul, user, clock
        self.transport = StringTransport()
        dul.makeConnection(self.transport)

    def sent(self) -> bytes:
        """What was written since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return data

    def lose(self) -> None:
        self.dul.connectionLost(Failure(ConnectionDone()))


def acceptor(user: User | None = None, **options: Any) -> Side:
    clock, user = Clock(), user or User()
    factory = DULAcceptorFactory(lambda: user, clock=clock, timeouts=TIMEOUTS, **options)
    return Side(factory.buildProtocol(None), user, clock)


def requestor(user: User | None = None) -> Side:
    clock, user = Clock(), user or User()
    factory = DULRequestorFactory(ASKED, user, clock=clock, timeouts=TIMEOUTS)
    return Side(factory.buildProtocol(None), user, clock)


def established(user: User | None = None, **options: Any) -> Side:
    side = acceptor(user, **options)
    side.dul.dataReceived(ASKED.encode())
    side.dul.accept(acceptance(ASKED))
    side.sent()
    side.user.take()
    return side


def conversation() -> tuple[DULProtocol, User, RawPeer, Clock]:
    """An established acceptor and a raw peer in memory."""
    clock, user, peer = Clock(), User(), RawPeer()
    dul = DULAcceptorFactory(lambda: user, clock=clock, timeouts=TIMEOUTS).buildProtocol(None)
    join(peer, dul, Wire(clock))
    peer.send(ASKED)
    dul.accept(acceptance(ASKED))
    assert peer.kinds() == [AC]
    user.take()
    return dul, user, peer, clock


def pdus(octets: int, count: int = 1) -> Iterator[bytes | bytearray]:
    """P-DATA-TF PDUs of a C-STORE-RQ with a data set of that size."""
    return fragment(store_rq(data=bytes(octets)), context_id=3, limit=16384 + 6)


# -- more input than a turn is for ----------------------------------------------------------------------


def flood(count: int) -> bytes:
    """A segment of PDVs with one octet each; the last octet counts them up."""
    return pdu(DATA, b"".join(pdv(3, 0, bytes((n % 251,))) for n in range(count)))


def next_turn(side: Side) -> None:
    """One turn of the reactor; ``Clock.advance`` runs what is due in it, too."""
    (call,) = (each for each in side.clock.getDelayedCalls() if not each.getTime())
    run, arguments = call.func, call.args
    call.cancel()
    run(*arguments)


def octets_of(events: list[Any]) -> bytes:
    return b"".join(bytes(each.data) for each in events)


def test_a_flood_of_tiny_pdvs_is_performed_in_turns():
    """1 MiB of them in one turn would hold up all other associations for a second."""
    side = established()
    count = 2 * OUTPUTS_PER_TURN + 50
    side.dul.dataReceived(flood(count))
    seen = []
    for expected in (OUTPUTS_PER_TURN, OUTPUTS_PER_TURN, 50):
        seen += (now := side.user.take())
        assert len(now) == expected
        assert side.transport.producerState == ("producing" if expected == 50 else "paused")
        if expected > 50:
            next_turn(side)
    assert octets_of(seen) == bytes(n % 251 for n in range(count))
    assert side.user.take() == []


def test_what_comes_meanwhile_stands_behind_it():
    """A transport may deliver what it had read when it was paused; TLS does."""
    side = established()
    side.dul.dataReceived(flood(OUTPUTS_PER_TURN + 1))
    side.dul.dataReceived(pdu(DATA, pdv(3, 2, b"last")))
    side.clock.advance(0)
    events = side.user.take()
    assert len(events) == OUTPUTS_PER_TURN + 2
    assert bytes(events[-1].data) == b"last"
    assert side.transport.producerState == "producing"


def test_what_comes_while_an_output_is_performed_stands_behind_it():
    """A transport in memory may answer at once."""
    side = established(user := User())
    echoes = iter([b"second"])

    def answer(what: Indication) -> None:
        for data in echoes:
            side.dul.dataReceived(pdu(DATA, pdv(3, 0, data)))

    user._on_indicated = answer
    side.dul.dataReceived(pdu(DATA, pdv(3, 0, b"first") + pdv(3, 2, b"third")))
    assert [bytes(each.data) for each in user.take()] == [b"first", b"third", b"second"]


@pytest.mark.parametrize("when", ["before", "in the flood"])
def test_a_user_that_has_paused_stays_paused_behind_a_flood(when):
    """Only the user knows when its sink takes more."""
    side = established()
    if when == "before":
        side.dul.pause_reading()
    side.dul.dataReceived(flood(OUTPUTS_PER_TURN + 1))
    if when == "in the flood":
        side.dul.pause_reading()
    side.clock.advance(0)
    assert side.transport.producerState == "paused"
    side.dul.resume_reading()
    assert side.transport.producerState == "producing"


def test_a_user_that_resumes_does_not_let_more_in_before_its_turn():
    side = established()
    side.dul.dataReceived(flood(OUTPUTS_PER_TURN + 1))
    side.dul.pause_reading()
    side.dul.resume_reading()
    assert side.transport.producerState == "paused"
    side.clock.advance(0)
    assert side.transport.producerState == "producing"


def test_what_came_before_the_connection_was_lost_counts():
    """A final response may be in it."""
    side = established()
    side.dul.dataReceived(flood(OUTPUTS_PER_TURN + 1))
    side.lose()
    assert ConnectionDone not in side.user.take()
    side.clock.advance(0)
    fragment_, *rest = side.user.take()
    assert bytes(fragment_.data) == bytes((OUTPUTS_PER_TURN % 251,))
    assert [type(each) for each in rest[:-1]] == [TransportClosed]
    assert rest[-1] is ConnectionDone
    assert side.clock.getDelayedCalls() == []


def test_a_flood_that_fills_the_turn_to_the_output_ends_like_any_other():
    side = established()
    side.dul.dataReceived(flood(OUTPUTS_PER_TURN))
    assert len(side.user.take()) == OUTPUTS_PER_TURN
    side.clock.advance(0)
    assert side.transport.producerState == "producing"
    side.lose()
    assert side.user.take()[-1] is ConnectionDone


def test_an_abort_ends_a_flood():
    """AA-6: what the peer still says is ignored; and a connection that we drop has no more to say."""
    side = established()
    side.dul.dataReceived(flood(3 * OUTPUTS_PER_TURN))
    side.user.take()
    side.dul.abort()
    next_turn(side)
    assert side.user.take() == []
    side.dul.abort_transport()
    side.lose()
    assert side.user.take()[-1] is ConnectionDone
    assert side.clock.getDelayedCalls() == []


def test_a_user_that_fails_in_a_later_turn_loses_the_connection(failures):
    """As it does when dataReceived raises: nobody knows in which state the user is."""

    def fail(what: Indication) -> None:
        if len(user.events) == OUTPUTS_PER_TURN + 1:
            raise RuntimeError("the user is broken")

    side = established(user := User())
    user._on_indicated = fail
    side.dul.dataReceived(flood(3 * OUTPUTS_PER_TURN))
    side.clock.advance(0)
    assert failures.texts() == ["the user is broken"]
    assert side.transport.disconnecting or side.transport.disconnected
    side.lose()
    assert user.events[-1] is ConnectionDone
    assert side.clock.getDelayedCalls() == []


# -- establishment and end -----------------------------------------------------------------------------


def test_a_requestor_sends_its_request_when_the_transport_is_open():
    """PS3.8 9.2, AE-2."""
    side = requestor()
    assert side.sent() == ASKED.encode()
    assert side.user.take() == ["connected"]
    answer = acceptance(ASKED)
    side.dul.dataReceived(answer.encode())
    assert side.user.take() == [answer]
    assert side.dul.machine.is_established


def test_an_acceptor_says_nothing_until_it_is_asked():
    side = acceptor()
    assert side.sent() == b""
    assert side.user.take() == ["connected"]
    side.dul.dataReceived(ASKED.encode())
    assert side.user.take() == [ASKED]
    side.dul.accept(acceptance(ASKED))
    assert side.sent() == acceptance(ASKED).encode()


def test_an_acceptor_may_reject():
    side = acceptor()
    side.dul.dataReceived(ASKED.encode())
    side.dul.reject(AAssociateRJ(1, 1, 3))
    assert side.sent() == AAssociateRJ(1, 1, 3).encode()
    side.clock.advance(TIMEOUTS.artim)
    assert side.transport.disconnecting


def test_the_peer_can_release():
    side = established()
    side.dul.dataReceived(AReleaseRQ().encode())
    assert side.user.take() == [AReleaseRQ()]
    side.dul.answer_release()
    assert side.sent() == AReleaseRP().encode()


def test_we_can_release():
    side = established()
    side.dul.release()
    assert side.sent() == AReleaseRQ().encode()
    side.dul.dataReceived(AReleaseRP().encode())
    assert side.user.take() == [AReleaseRP()]
    assert side.transport.disconnecting


def test_what_is_not_possible_now_is_an_error_of_ours():
    side = acceptor()
    for ask in (side.dul.release, side.dul.answer_release):
        with pytest.raises(LocalProtocolError):
            ask()
    with pytest.raises(LocalProtocolError, match="no message can be sent in Sta2"):
        side.dul.send_message(pdus(8))


def test_an_abort_is_sent_once_and_only_when_there_is_something_to_abort():
    """PS3.8 Table 9-10: Evt15 has no cell in Sta2 and Sta13."""
    side = acceptor()
    side.dul.abort()
    assert side.sent() == b""
    side = established()
    side.dul.abort()
    side.dul.abort()
    assert side.sent() == AAbort(0, 0).encode()


def test_data_that_only_the_user_can_judge_is_aborted_with_its_reason():
    """AA-8."""
    side = established()
    side.dul.invalid(DIMSEProcessingError("no", AbortReason.UNEXPECTED_PARAMETER))
    assert side.sent() == AAbort(2, 5).encode()
    assert side.user.take() == [ProviderAbort(AbortReason.UNEXPECTED_PARAMETER, "no")]


def test_a_lost_connection_is_indicated_and_ends_all_waits():
    side = established()
    side.lose()
    assert side.user.take() == [TransportClosed("Connection was closed cleanly."), ConnectionDone]
    assert side.clock.getDelayedCalls() == []


def test_an_answer_may_come_from_within_the_indication():
    user = User(lambda what: what == ASKED or user.dul.abort())
    side = established(user)
    side.dul.dataReceived(message(echo_rq()) + message(echo_rq()))
    assert side.sent() == AAbort(0, 0).encode()
    assert len(side.user.take()) == 1, "an abort stops the rest of the segment (AA-6)"


def test_a_protocol_without_a_transport_can_be_asked_without_harm():
    user = User()
    dul = DULAcceptorFactory(lambda: user, clock=Clock()).buildProtocol(None)
    assert dul.peer is None
    dul.pause_reading()
    dul.resume_reading()
    dul.abort()
    dul.abort_transport()
    assert user.events == []


def test_the_factories_pass_on_what_they_were_given():
    clock = Clock()
    factory = DULAcceptorFactory(User, clock=clock)
    assert factory.receive_limit == RECEIVE_LIMIT
    assert factory.timeouts == Timeouts()
    protocol = factory.buildProtocol(None)
    assert protocol.factory is factory
    assert protocol.machine.receive_limit == RECEIVE_LIMIT
    assert (
        DULAcceptorFactory(User, clock=clock, receive_limit=0)
        .buildProtocol(None)
        .machine.receive_limit
        == 0
    )
    asked = request(None, MaximumLength(12345))
    ours = DULRequestorFactory(asked, User(), clock=clock).buildProtocol(None)
    assert ours.machine.receive_limit == 12345
    assert ours.machine.is_requestor
    ours.makeConnection(StringTransport())
    ours.abort()
    (artim,) = clock.getDelayedCalls()
    assert artim.getTime() == Timeouts().artim


# -- ARTIM ---------------------------------------------------------------------------------------------


def test_a_connection_without_a_request_is_closed_when_artim_ends():
    """PS3.8 9.1.5, AA-2 in Sta2."""
    side = acceptor()
    side.clock.advance(TIMEOUTS.artim - 1)
    assert not side.transport.disconnecting
    side.clock.advance(1)
    assert side.transport.disconnecting
    assert side.sent() == b""


def test_artim_counts_from_the_connection_and_not_from_the_last_octet():
    side = acceptor()
    for octet in ASKED.encode()[:29]:
        side.dul.dataReceived(bytes((octet,)))
        side.clock.advance(1)
    assert not side.transport.disconnecting
    side.clock.advance(1)
    assert side.transport.disconnecting


def test_artim_stops_when_the_request_is_complete():
    """AE-6."""
    side = acceptor()
    side.dul.dataReceived(ASKED.encode())
    side.clock.advance(1000)
    assert not side.transport.disconnecting


def test_a_peer_that_does_not_close_after_the_end_is_closed_when_artim_ends():
    """AA-2 in Sta13."""
    side = established()
    side.dul.abort()
    side.clock.advance(TIMEOUTS.artim - 1)
    assert not side.transport.disconnecting
    side.clock.advance(1)
    assert side.transport.disconnecting


def test_artim_starts_anew_with_each_start():
    """AA-1 in Sta2: start, or restart if already started."""
    side = acceptor()
    side.clock.advance(TIMEOUTS.artim - 1)
    side.dul.dataReceived(pdu(RELEASE_RQ))
    assert side.sent() == AAbort(0, 0).encode()
    side.clock.advance(TIMEOUTS.artim - 1)
    assert not side.transport.disconnecting
    side.clock.advance(1)
    assert side.transport.disconnecting


# -- closing -------------------------------------------------------------------------------------------


def test_a_close_gives_up_the_producer_and_reads_again():
    """A transport with a producer does not close, a paused one does not see the peer close."""
    side = established()
    side.dul.pause_reading()
    assert side.transport.producer is side.dul
    side.dul.dataReceived(AAbort(0, 0).encode())
    assert side.transport.producer is None
    assert side.transport.producerState == "producing"
    assert side.transport.disconnecting


def test_a_close_that_takes_too_long_is_an_abort():
    side = established()
    side.dul.dataReceived(AAbort(0, 0).encode())
    assert not side.transport.disconnected
    side.clock.advance(TIMEOUTS.artim)
    assert side.transport.disconnected
    side.lose()
    assert side.clock.getDelayedCalls() == []


def test_a_close_does_not_wait_for_a_peer_that_takes_nothing():
    side = established()
    side.dul.pauseProducing()
    side.dul.dataReceived(AAbort(0, 0).encode())
    assert side.transport.disconnected


def test_a_close_leaves_no_timer_behind():
    _dul, user, peer, clock = conversation()
    peer.send(AAbort(0, 0))
    assert peer.is_lost
    assert user.take() == [AAbort(0, 0), ConnectionDone]
    assert clock.getDelayedCalls() == []


def test_a_close_by_artim_leaves_no_timer_behind():
    dul, _user, peer, clock = conversation()
    dul.abort()
    clock.advance(TIMEOUTS.artim)
    assert peer.is_lost
    assert clock.getDelayedCalls() == []


# -- messages out --------------------------------------------------------------------------------------


def test_a_message_goes_out_in_turns_of_several_pdus():
    side = established()
    writes: list[int] = []
    write = side.transport.write
    side.transport.write = lambda data: (writes.append(len(data)), write(data))
    side.dul.send_message(pdus(4 * TURN))
    assert side.sent() == b"".join(pdus(4 * TURN))
    assert len(writes) == 4
    assert all(size < TURN + 16384 + 12 for size in writes)


def test_small_messages_share_a_turn():
    side = established()
    side.dul.pauseProducing()
    for _ in range(10):
        side.dul.send_message(pdus(8))
    writes: list[bytes] = []
    side.transport.write = writes.append
    side.dul.resumeProducing()
    assert writes == [b"".join(pdus(8)) * 10]


def test_nothing_is_made_while_the_transport_has_enough():
    made: list[int] = []

    def counted() -> Iterator[bytes]:
        for number in range(10):
            made.append(number)
            yield p_data(3, 0, bytes(TURN))

    side = established()
    side.dul.pauseProducing()
    side.dul.send_message(counted())
    assert made == [0], "the first PDU, of the command set, is made at once"
    assert side.dul.is_congested
    side.transport.write = lambda data: side.dul.pauseProducing()
    side.dul.resumeProducing()
    assert made == [0]
    side.dul.resumeProducing()
    assert made == [0, 1]


def test_a_slow_peer_costs_no_memory():
    dul, _user, peer, _clock = conversation()
    peer.transport.pauseProducing()
    source = io.BytesIO(bytes(1 << 24))
    sent: list[bool] = []
    dul.send_message(
        fragment(store_rq(data=source), context_id=3, limit=0), lambda: sent.append(True)
    )
    assert source.tell() < 1 << 20
    assert not sent
    peer.transport.resumeProducing()
    assert source.tell() == 1 << 24
    assert sent
    assert len(peer.received) > 1 << 24
    assert not dul.is_congested


def test_the_fragments_of_two_messages_never_interleave():
    """PS3.8 Annex E knows one message at a time on each side."""
    dul, _user, peer, _clock = conversation()
    peer.transport.pauseProducing()
    for number in range(5):
        dul.send_message(
            fragment(store_rq(number, bytes((number,)) * 300_000), context_id=3, limit=16384)
        )
    peer.transport.resumeProducing()
    seen: list[int] = []
    for kind, body in peer.take():
        assert kind == DATA
        if not body[5] & 1:  # a data set: its octets are the number of the message
            seen.append(body[6])
    assert seen == sorted(seen)
    assert set(seen) == set(range(5))


def test_what_was_handed_to_the_transport_is_told_once_in_order():
    side = established()
    sent: list[str] = []
    side.dul.pauseProducing()
    for name in ("first", "second"):
        side.dul.send_message(pdus(8), lambda name=name: sent.append(name))
    side.dul.send_message(pdus(8))
    assert sent == []
    side.dul.resumeProducing()
    assert sent == ["first", "second"]


def test_a_message_may_be_sent_while_another_is_told_to_be_sent():
    side = established()
    side.dul.send_message(pdus(8), lambda: side.dul.send_message(pdus(16)))
    assert side.sent() == b"".join(pdus(8)) + b"".join(pdus(16))


def test_what_is_queued_goes_out_after_the_peer_asked_for_release():
    """AR-7."""
    side = established()
    side.dul.pauseProducing()
    side.dul.send_message(pdus(8))
    side.dul.dataReceived(AReleaseRQ().encode())
    side.dul.resumeProducing()
    assert side.sent() == b"".join(pdus(8))


def test_what_is_queued_is_dropped_with_the_association():
    side = established()
    side.dul.pauseProducing()
    side.dul.send_message(pdus(8), lambda: pytest.fail("it was not sent"))
    side.dul.abort()
    side.dul.resumeProducing()
    assert side.sent() == AAbort(0, 0).encode()
    assert not side.dul.is_congested


def test_an_abort_of_the_peer_drops_what_is_queued():
    side = established()
    side.dul.pauseProducing()
    side.dul.send_message(pdus(8), lambda: pytest.fail("it was not sent"))
    side.dul.dataReceived(pdu(0x0A))
    side.dul.resumeProducing()
    assert side.sent() == AAbort(2, 1).encode()


def test_a_message_that_cannot_be_encoded_is_an_error_of_ours_and_sends_nothing():
    """The command set is made before the message is queued: the association lives on."""
    side = established()
    with pytest.raises(LocalProtocolError, match="AffectedSOPInstanceUID"):
        side.dul.send_message(
            fragment(store_rq(uid="1.2.\N{GREEK SMALL LETTER ALPHA}"), context_id=3, limit=0)
        )
    assert side.sent() == b""
    assert side.user.take() == []
    assert not side.dul.is_congested
    side.dul.send_message(pdus(8))
    assert side.sent() == b"".join(pdus(8))


class Broken(io.BytesIO):
    """A file whose disk fails."""

    def readinto(self, buffer: Any) -> int:
        raise OSError("the disk is gone")


def test_a_data_set_that_cannot_be_read_is_told_and_ends_the_queue(failures):
    side = established()
    side.dul.pauseProducing()
    side.dul.send_message(
        fragment(store_rq(data=Broken()), context_id=3, limit=0), lambda: pytest.fail("sent")
    )
    side.dul.send_message(pdus(8), lambda: pytest.fail("sent"))
    side.dul.resumeProducing()
    (error,) = side.user.take()
    assert isinstance(error, OSError)
    assert failures.texts() == ["the disk is gone"]
    assert not side.dul.is_congested
    # What the user then does: the peer must not take the rest for a whole message.
    side.dul.abort()
    assert side.sent() == AAbort(0, 0).encode()


# -- pressure ------------------------------------------------------------------------------------------


def test_room_is_there_at_once_when_nothing_waits():
    assert success_of(established().dul.when_writable()) is None


def test_who_waits_for_room_is_told_when_all_has_gone():
    side = established()
    side.dul.pauseProducing()
    side.dul.pauseProducing()
    waits = [side.dul.when_writable() for _ in range(2)]
    told: list[int] = []
    for number, each in enumerate(waits):
        each.addCallback(lambda _, number=number: told.append(number))
    assert told == []
    side.dul.resumeProducing()
    assert told == [0, 1]


def test_who_waits_for_room_while_others_still_go_out_is_told():
    """The transport takes all, so nobody else would tell."""
    side = established()
    waits: list[defer.Deferred[None]] = []
    side.dul.pauseProducing()
    side.dul.send_message(pdus(2 * TURN), lambda: waits.append(side.dul.when_writable()))
    side.dul.send_message(pdus(2 * TURN))
    side.dul.resumeProducing()
    (waiting,) = waits
    assert success_of(waiting) is None


def test_many_who_wait_for_room_are_told_without_recursion():
    """Each of them sends something, as an operation with a result does."""
    side = established()
    side.dul.pauseProducing()
    waits = [side.dul.when_writable() for _ in range(1000)]
    for each in waits:
        each.addCallback(lambda _: side.dul.send_message(pdus(8)))
    side.dul.resumeProducing()
    assert [success_of(each) for each in waits] == [None] * 1000
    assert side.sent() == b"".join(pdus(8)) * 1000


def test_a_wait_for_room_can_be_forgotten():
    side = established()
    side.dul.pauseProducing()
    first, second = side.dul.when_writable(), side.dul.when_writable()
    second.addCallback(lambda _: "second")
    first.cancel()
    assert isinstance(failure_of(first), defer.CancelledError)
    side.dul.resumeProducing()
    assert success_of(second) == "second"


def test_who_is_told_of_room_may_end_the_wait_of_another():
    side = established()
    side.dul.pauseProducing()
    first, second = side.dul.when_writable(), side.dul.when_writable()
    first.addCallback(lambda _: second.cancel())
    side.dul.resumeProducing()
    success_of(first)
    assert isinstance(failure_of(second), defer.CancelledError)


@pytest.mark.parametrize("end", ["abort", "invalid", "lose"])
def test_a_wait_for_room_ends_with_the_association(end):
    """The user has been told before: what it stops then is not a failure."""
    side = established()
    side.dul.pauseProducing()
    waiting = side.dul.when_writable()
    told: list[list[Any]] = []
    waiting.addErrback(lambda failure: (told.append(side.user.take()), failure)[1])
    {
        "abort": side.dul.abort,
        "invalid": lambda: side.dul.invalid(DIMSEProcessingError("no")),
        "lose": side.lose,
    }[end]()
    assert isinstance(failure_of(waiting), defer.CancelledError)
    if end != "abort":
        assert isinstance(told[0][0], TransportClosed if end == "lose" else ProviderAbort)


def test_a_peer_that_takes_nothing_is_told_after_a_while():
    side = established()
    side.dul.pauseProducing()
    side.clock.advance(TIMEOUTS.send - 1)
    assert side.user.take() == []
    side.clock.advance(1)
    assert side.user.take() == [("stalled", TIMEOUTS.send)]


def test_a_peer_that_takes_something_is_not_stalled():
    side = established()
    for _ in range(5):
        side.dul.pauseProducing()
        side.clock.advance(TIMEOUTS.send - 1)
        side.dul.resumeProducing()
    side.clock.advance(TIMEOUTS.send)
    assert side.user.take() == []


class Line(StringTransport):
    """A transport on a socket; ``far`` is the peer's end of it."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = socket.socketpair()
        self.dataBuffer, self.offset = b"", 0

    def fileno(self) -> int:
        return self.near.fileno()

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def behind(line: Line) -> Side:
    """An association whose peer is behind on this line."""
    side = established()
    side.dul.transport = line
    side.dul.pauseProducing()
    return side


QUARTER = TIMEOUTS.send / 4


@pytest.mark.parametrize("holder", ["transport", "kernel"])
def test_a_slow_peer_is_not_stalled(line, holder):
    """It takes a little now and then: seen where it goes, in the transport or in the kernel."""
    line.dataBuffer = bytes(1000)
    for _ in range(20):
        line.near.send(b"x")
    side = behind(line)
    for _ in range(10):
        side.clock.advance(TIMEOUTS.send - QUARTER)
        if holder == "transport":
            line.offset += 1
        else:
            line.far.recv(1)
    assert side.user.take() == []
    side.clock.pump([QUARTER] * 4)
    assert side.user.take() == []
    side.clock.pump([QUARTER])
    assert side.user.take() == [("stalled", TIMEOUTS.send)]


def test_what_only_goes_from_the_transport_to_the_kernel_was_not_taken(line):
    """The peer's end has still to acknowledge it."""
    line.dataBuffer = bytes(1 << 20)
    side = behind(line)
    side.clock.pump([QUARTER] * 3)
    before = side.dul.unsent
    line.near.send(b"x")
    line.offset = side.dul.unsent - before
    assert side.dul.unsent == before
    side.clock.pump([QUARTER])
    assert side.user.take() == [("stalled", TIMEOUTS.send)]


class Choosy(socket.socket):
    """A socket that takes as many octets at a time as the test says, and keeps them."""

    def __init__(self, most: list[int]) -> None:
        super().__init__()
        self.most, self.taken, self.calls = most, bytearray(), 0

    def sendmsg(self, buffers: Any, *_: Any) -> int:
        return self.send(b"".join(buffers))

    def send(self, data: Any, flags: int = 0) -> int:
        self.calls += 1
        most = self.most.pop(0) if self.most else 0
        if not most:
            raise BlockingIOError
        octets = bytes(data[:most])
        self.taken += octets
        return len(octets)


@implementer(ITCPTransport)
class Straight(StringTransport):
    """A transport as Twisted has it: what is written waits for the reactor to say that the socket is writable."""

    _tempDataBuffer = ()
    disconnecting = False

    def __init__(self, handle: Choosy) -> None:
        super().__init__()
        self.handle, self.dataBuffer = handle, b""

    def getHandle(self) -> Choosy:
        return self.handle

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to do."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing to do."""

    def write(self, data: Any) -> None:
        assert type(data) is bytes, "Twisted takes nothing else"
        self.dataBuffer += data
        if len(self.dataBuffer) > READ_BUFFER:
            self.producer.pauseProducing()

    def writable(self) -> None:
        """The socket is writable."""
        self.handle.taken += self.dataBuffer
        self.dataBuffer = b""
        self.producer.resumeProducing()


@pytest.fixture
def straight() -> Iterator[Callable[..., tuple[DULProtocol, Straight]]]:
    """Makes an association on a socket that takes some octets at a time."""
    sockets = []

    def make(most: list[int]) -> tuple[DULProtocol, Straight]:
        handle = Choosy([1 << 20, *most])  # the first is for A-ASSOCIATE-AC
        sockets.append(handle)
        user = User()
        factory = DULAcceptorFactory(lambda: user, clock=Clock(), timeouts=TIMEOUTS)
        dul, transport = factory.buildProtocol(None), Straight(handle)
        dul.makeConnection(transport)
        dul.dataReceived(ASKED.encode())
        dul.accept(acceptance(ASKED))
        handle.taken.clear()
        handle.calls = 0
        return dul, transport

    yield make
    for each in sockets:
        each.close()


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, TURN + 9) | st.integers(0, 9000), min_size=1, max_size=4),
    limit=st.sampled_from([0, 1000, 16384, 99_999]),
    most=st.lists(st.integers(0, 40_000) | st.just(1 << 21), max_size=6),
    from_file=st.booleans(),
)
def test_the_octets_are_the_same_however_the_kernel_takes_them(
    straight, sizes, limit, most, from_file
):
    """All, some or none of a message goes past the transport; what is left stands before what follows."""
    dul, transport = straight(most)
    expected = b""
    for number, size in enumerate(sizes):
        data = (bytes((number, 1, 2, 3, 4, 5, 6)) * (size // 7 + 1))[:size]
        expected += b"".join(fragment(store_rq(number, data), context_id=3, limit=limit))
        source = io.BytesIO(data) if from_file else memoryview(data)
        dul.send_message(cut_up(store_rq(number, source), context_id=3, limit=limit))
    while transport.dataBuffer:
        transport.writable()
    assert transport.handle.taken == expected
    assert not dul.is_congested


def test_the_rest_of_one_piece_is_left_to_the_transport_as_octets(straight):
    message = store_rq(data=bytes(100_000))
    octets = b"".join(fragment(message, context_id=3, limit=0))
    dul, transport = straight([len(octets) - 50])
    dul.send_message(cut_up(message, context_id=3, limit=0))
    assert len(transport.dataBuffer) == 50
    transport.writable()
    assert transport.handle.taken == octets


def test_an_instance_is_one_call_of_the_kernel(straight):
    """And it is there when the call returns: the peer need not wait for the next turn of the reactor."""
    dul, transport = straight([1 << 20] * 9)
    data = bytes(1 << 19)
    dul.send_message(cut_up(store_rq(data=data), context_id=3, limit=0))
    assert transport.handle.taken == b"".join(fragment(store_rq(data=data), context_id=3, limit=0))
    assert transport.handle.calls == 1


def test_the_kernel_is_given_one_turn_at_once(straight):
    """A peer that takes all, and as fast as it is sent, must not keep the reactor from the others."""
    dul, transport = straight([1 << 30] * 9)
    dul.send_message(cut_up(store_rq(data=bytes(20 * TURN)), context_id=3, limit=0))
    assert transport.handle.calls == 1
    assert len(transport.handle.taken) < TURN + (1 << 18)
    assert dul.is_congested
    transport.writable()
    assert transport.handle.calls == 2


def test_tiny_pdus_are_not_too_many_pieces_for_the_kernel(straight):
    """IOV_MAX is 1024."""
    dul, transport = straight([1 << 20])
    data = bytes(100_000)
    dul.send_message(cut_up(store_rq(data=data), context_id=3, limit=50))
    assert transport.handle.taken == b"".join(fragment(store_rq(data=data), context_id=3, limit=50))


def test_a_stalled_peer_that_comes_back_is_not_forgotten():
    """What to do about a stall is the user's affair."""
    side = established()
    side.dul.pauseProducing()
    side.dul.send_message(pdus(8))
    side.clock.advance(TIMEOUTS.send)
    side.dul.resumeProducing()
    assert side.sent() == b"".join(pdus(8))


def test_the_peer_waits_while_we_are_behind():
    side = established()
    side.dul.pause_reading()
    assert side.transport.producerState == "paused"
    side.clock.advance(5)
    side.dul.resume_reading()
    assert side.transport.producerState == "producing"
    assert side.dul.last_received == 5, "it could not send meanwhile"


def test_a_connection_that_is_over_is_not_read_again():
    side = established()
    side.dul.dataReceived(AAbort(0, 0).encode())
    side.dul.resume_reading()  # the transport would complain
    assert side.transport.disconnecting


def test_when_something_came_is_known():
    clock = Clock()
    dul = DULAcceptorFactory(User, clock=clock).buildProtocol(None)
    clock.advance(3)
    dul.makeConnection(StringTransport())
    assert dul.last_received == 3
    side = established()
    side.clock.advance(7)
    side.dul.dataReceived(b"\x04")
    assert side.dul.last_received == 7


def test_a_transport_may_stop_its_producer():
    """IPushProducer; connectionLost follows."""
    side = established()
    side.dul.stopProducing()
    assert side.dul.machine.is_established


# -- real sockets --------------------------------------------------------------------------------------


class Kept(Protocol):
    """A peer that can be waited for."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: defer.Deferred[None] = defer.Deferred()
        self._awaited: tuple[int, defer.Deferred[bytes]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._awaited is not None and len(self.received) >= self._awaited[0]:
            (_, waiting), self._awaited = self._awaited, None
            waiting.callback(self.received)

    def octets(self, count: int) -> defer.Deferred[bytes]:
        if len(self.received) >= count:
            return defer.succeed(self.received)
        waiting: defer.Deferred[bytes] = defer.Deferred()
        self._awaited = (count, waiting)
        return waiting

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


def accepting() -> User:
    user = User(lambda what: what == ASKED and user.dul.accept(acceptance(ASKED)))
    return user


class SocketTests(TestCase):
    """What only a socket can show, on loopback."""

    timeout = 20

    async def _connect(self, timeouts: Timeouts, user: User) -> Kept:
        from twisted.internet import reactor

        factory = DULAcceptorFactory(lambda: user, clock=reactor, timeouts=timeouts)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        return await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(
            Factory.forProtocol(Kept)
        )

    async def test_a_socket_is_tuned_for_small_and_for_large_messages(self):
        """Nagle's algorithm and delayed acknowledgements would cost 40 ms a message."""
        options: list[tuple[Any, ...]] = []

        class Watched(socket.socket):
            def setsockopt(self, *option: Any) -> None:
                options.append(option)
                super().setsockopt(*option)

        self.patch(socket, "socket", Watched)
        user = accepting()
        peer = await self._connect(TIMEOUTS, user)
        peer.transport.write(ASKED.encode())
        await peer.octets(len(acceptance(ASKED).encode()))
        handle = user.dul.transport.getHandle()
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert user.dul.transport.bufferSize == READ_BUFFER
        assert str(user.dul.peer.host) == "127.0.0.1"
        if hasattr(socket, "TCP_QUICKACK"):  # pragma: no branch - Linux has it
            quickack = (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            assert quickack not in options, "the answer has carried the acknowledgement"
            for count in (1, 2):
                user.dul.dataReceived(b"")
                assert options.count(quickack) == count, "it is armed again with each read"
        user.dul.abort()
        await peer.octets(len(acceptance(ASKED).encode()) + 10)
        peer.transport.loseConnection()
        await peer.lost
        await user.lost

    async def test_a_socket_is_tuned_as_far_as_the_platform_goes(self):
        self.patch(dulprovider, "_TCP_QUICKACK", None)
        user = accepting()
        peer = await self._connect(TIMEOUTS, user)
        peer.transport.write(ASKED.encode())
        await peer.octets(len(acceptance(ASKED).encode()))
        handle = user.dul.transport.getHandle()
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        peer.transport.abortConnection()
        await peer.lost
        await user.lost

    async def _send(self, timeouts: Timeouts, size: int) -> tuple[Kept, User]:
        """An association on which the peer, who reads nothing yet, is sent an instance."""
        user = accepting()
        peer = await self._connect(timeouts, user)
        peer.transport.write(ASKED.encode())
        await peer.octets(len(acceptance(ASKED).encode()))
        for end, option in ((peer, socket.SO_RCVBUF), (user.dul, socket.SO_SNDBUF)):
            # Fixed, and small against what the transport holds.
            end.transport.getHandle().setsockopt(socket.SOL_SOCKET, option, 1 << 16)
        peer.transport.pauseProducing()
        user.take()
        source = io.BytesIO(bytes(size))
        user.dul.send_message(fragment(store_rq(data=source), context_id=3, limit=0))
        return peer, user

    @pytest.mark.slow
    async def test_a_line_that_is_slow_is_not_stalled(self):
        """A megabyte a second, where no second passes without a timeout, and the transport holds two."""
        from twisted.internet import reactor

        peer, user = await self._send(Timeouts(send=0.5), 3 << 20)
        peer.transport.bufferSize = 1 << 15
        reading = task.LoopingCall(peer.transport.doRead)
        reading.clock = reactor
        done = reading.start(0.03)
        await peer.octets(3 << 20)
        reading.stop()
        await done
        assert user.take() == []
        peer.transport.abortConnection()
        await peer.lost
        await user.lost

    async def test_a_line_that_stands_still_is_stalled(self):
        told: defer.Deferred[float] = defer.Deferred()
        self.patch(User, "stalled", lambda _, seconds: told.callback(seconds))
        peer, user = await self._send(Timeouts(send=0.1), 3 << 20)
        assert await told == 0.1
        peer.transport.abortConnection()
        await peer.lost
        await user.lost

    async def test_a_peer_that_reads_nothing_cannot_keep_the_connection(self):
        user = accepting()
        peer = await self._connect(Timeouts(artim=0.05), user)
        peer.transport.write(ASKED.encode())
        await peer.octets(len(acceptance(ASKED).encode()))
        peer.transport.pauseProducing()
        source = io.BytesIO(bytes(1 << 26))
        user.dul.send_message(fragment(store_rq(data=source), context_id=3, limit=0))
        assert source.tell() < 1 << 23
        user.dul.abort()
        await user.lost
        peer.transport.abortConnection()
        await peer.lost


def test_an_incomplete_pdu_is_not_kept_when_the_connection_is_gone():
    """The connection may stay in memory for a while, because it is garbage in circles."""
    node = Node()
    peer = node.connect()
    peer.send(pdu(1, bytes(10_000), 200_000))
    (asce,) = node.ae.associations
    assert asce.held == 10_000
    peer.transport.abortConnection()
    node.advance(0)
    assert asce.held == 0


def test_what_comes_while_the_connection_is_being_ended_is_not_looked_at():
    """A peer that sends as fast as it can must not hold up the end of the others."""
    node = Node()
    peer = node.associate()
    (asce,) = node.ae.associations
    asce.abort()
    asce.hang_up(1)
    machine = asce._channel.dul.machine
    seen: list[bytes] = []
    machine.receive_data = lambda data: seen.append(data) or iter(())
    peer.send(echo_rq(1))
    assert seen == []
    node.advance(1)
    assert not node.ae.associations
