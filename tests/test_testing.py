"""Associations in memory: what their transports do, real ones do too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from netdicom_tx import (
    AE,
    AssociationRejectedError,
    ClassNotSupportedError,
    RemoteAE,
    verification_scp,
    verification_scu,
)
from netdicom_tx.testing import (
    MemoryTransport,
    Pair,
    Wire,
    connected,
    failure_of,
    join,
    success_of,
)
from support.doubles import CT, EXPLICIT, FIND, IMPLICIT, VERIFICATION
from support.doubles import logged_failures as logged_failures


class Listener(Protocol):
    """Notes what happens to it."""

    transport: MemoryTransport

    def __init__(self, on_data: Callable[[bytes], object] | None = None) -> None:
        self.events: list[Any] = []
        self._on_data = on_data

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)
        if self._on_data is not None:
            self._on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append(type(reason.value))

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")


def joined(
    one: Listener | None = None, other: Listener | None = None, **options: Any
) -> tuple[Listener, Listener]:
    one, other = one or Listener(), other or Listener()
    join(one, other, Wire(Clock(), **options))
    for each in (one, other):
        assert each.events == ["made"]
        each.events.clear()
    return one, other


# -- the transports ------------------------------------------------------------------------------------


def test_octets_arrive_in_order_and_as_they_were_written():
    one, other = joined()
    one.transport.write(b"first")
    one.transport.write(b"")
    one.transport.writeSequence([b"sec", b"ond"])
    assert other.events == [b"first", b"second"]
    assert one.transport.written == b"firstsecond"


def test_nothing_is_delivered_from_within_a_delivery():
    """A reactor does not call dataReceived from within write either."""
    one = Listener()
    other = Listener(lambda data: (other.transport.write(b"answer"), seen.append(one.events[:])))
    seen: list[Any] = []
    joined(one, other)
    one.transport.write(b"question")
    assert seen == [[]]
    assert one.events == [b"answer"]


def test_a_segment_can_be_cut_on_its_way():
    one, other = joined(cut=lambda data: [data[n : n + 1] for n in range(len(data))])
    one.transport.write(b"abc")
    assert other.events == [b"a", b"b", b"c"]


def test_zero_delay_calls_run_as_part_of_a_delivery():
    clock = Clock()
    one, other = Listener(), Listener(lambda _: clock.callLater(0, other.events.append, "later"))
    join(one, other, Wire(clock))
    one.transport.write(b"now")
    assert other.events == ["made", b"now", "later"]


def test_a_paused_end_gets_nothing_until_it_resumes():
    one, other = joined()
    other.transport.pauseProducing()
    one.transport.write(b"held")
    assert other.events == []
    other.transport.resumeProducing()
    other.transport.resumeProducing()
    assert other.events == [b"held"]


def test_an_end_that_pauses_in_the_middle_is_given_no_more():
    other = Listener(lambda _: other.transport.pauseProducing())
    one, _ = joined(None, other)
    other.transport.pauseProducing()
    one.transport.write(b"first")
    one.transport.write(b"second")
    other.transport.resumeProducing()
    assert other.events == [b"first"]


def test_a_producer_pauses_when_too_much_is_on_its_way_and_resumes_when_it_has_gone():
    one, other = joined()
    one.transport.registerProducer(one, True)
    other.transport.pauseProducing()
    one.transport.write(bytes(MemoryTransport.high_water))
    assert one.events == []
    one.transport.write(b"!")
    one.transport.write(b"!")
    assert one.events == ["pause"]
    other.transport.resumeProducing()
    assert one.events == ["pause", "resume"]


def test_a_pull_producer_is_asked_whenever_there_is_room():
    one, other = joined()
    one.transport.registerProducer(one, False)
    assert one.events == ["resume"]
    one.transport.write(b"piece")
    assert one.events == ["resume", "resume"]
    one.transport.unregisterProducer()
    one.transport.write(b"piece")
    assert one.events == ["resume", "resume"]
    assert other.events == [b"piece", b"piece"]


def test_closing_delivers_what_was_written_before():
    one, other = joined()
    other.transport.pauseProducing()
    one.transport.write(b"last words")
    one.transport.loseConnection()
    one.transport.loseConnection()
    one.transport.write(b"too late")
    assert (one.events, other.events) == ([], [])
    other.transport.resumeProducing()
    assert one.events == [ConnectionDone]
    assert other.events == [b"last words", ConnectionDone]


def test_an_end_that_does_not_read_does_not_see_the_other_close():
    """Nor does a socket: the end of the stream has to be read."""
    one, other = joined()
    other.transport.pauseProducing()
    one.transport.loseConnection()
    assert (one.events, other.events) == ([ConnectionDone], [])
    other.transport.resumeProducing()
    assert other.events == [ConnectionDone]


def test_closing_waits_for_the_producer():
    """As in Twisted: a transport closes when its producer has been unregistered."""
    one, other = joined()
    one.transport.registerProducer(one, True)
    one.transport.loseConnection()
    assert other.events == []
    one.transport.unregisterProducer()
    assert one.events == [ConnectionDone]
    assert other.events == [ConnectionDone]


def test_stopping_the_producer_side_closes():
    one, other = joined()
    one.transport.stopProducing()
    assert one.events == other.events == [ConnectionDone]


def test_aborting_drops_what_is_on_its_way():
    one, other = joined()
    other.transport.pauseProducing()
    one.transport.write(b"never seen")
    one.transport.abortConnection()
    one.transport.abortConnection()
    other.transport.resumeProducing()
    assert one.events == [ConnectionAborted]
    assert other.events == [ConnectionLost]


def test_nothing_is_said_to_an_end_that_is_gone():
    one, other = joined()
    one.transport.abortConnection()
    one.events.clear()
    other.events.clear()
    one.transport.write(b"?")
    other.transport.write(b"?")
    one.transport.loseConnection()
    assert (one.events, other.events) == ([], [])


def test_each_end_is_told_once():
    def both(_: bytes) -> None:
        other.transport.abortConnection()
        one.transport.abortConnection()

    one, other = joined(None, Listener(both))
    one.transport.write(b"go")
    assert one.events == [ConnectionLost]
    assert other.events == [b"go", ConnectionAborted]


def test_the_ends_have_addresses():
    one, other = joined()
    assert one.transport.getPeer() == other.transport.getHost()
    assert other.transport.getPeer() == one.transport.getHost()


# -- pairs ---------------------------------------------------------------------------------------------


def entities() -> tuple[AE, AE]:
    return AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(verification_scp)


def test_a_pair_is_an_established_association_seen_from_both_sides():
    scu, scp = entities()
    with connected(scu, scp) as pair:
        assert (pair.requestor.ae, pair.acceptor.ae) == (scu, scp)
        assert pair.requestor.is_requestor
        assert not pair.acceptor.is_requestor
        assert pair.requestor.is_open
        assert pair.acceptor.is_open
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == 0
        assert pair.transports[0].written[:1] == b"\x01"
        assert pair.transports[1].written[:1] == b"\x02"
    assert not pair.requestor.is_open
    assert not pair.acceptor.is_open
    assert not scu.associations | scp.associations


def test_a_pair_that_is_over_already_ends_well():
    with connected(*entities()) as pair:
        success_of(pair.requestor.release())


def test_the_contexts_of_a_pair_can_be_named():
    wanted = {VERIFICATION: [EXPLICIT], CT: [IMPLICIT]}
    with connected(*entities(), wanted) as pair:
        (ctx,) = pair.requestor.accepted_contexts.values()
        assert (ctx.sop_class, ctx.supported_ts) == (VERIFICATION, EXPLICIT)
        with pytest.raises(ClassNotSupportedError):
            pair.requestor.get_scu(CT)


def test_a_pair_that_is_refused_raises():
    scu, _ = entities()
    scp = AE("SCP", called_ae_titles=["OTHER"])
    with pytest.raises(AssociationRejectedError), connected(scu, scp):
        raise AssertionError("there is no association")  # pragma: no cover


def test_time_passes_at_both_ends():
    with connected(*entities()) as pair:
        pair.advance(pair.scp.timeouts.idle)
        assert pair.requestor.error is not None
        assert pair.acceptor.error is not None


def test_more_associations_can_be_made_between_a_pair():
    with connected(*entities()) as pair:
        another = success_of(pair.request_association())
        assert another is not pair.requestor
        assert len(pair.scp.associations) == 2
        another.abort()
        assert pair.requestor.is_open


def test_a_factory_that_wants_no_connection_gets_none():
    class Unwilling(Factory):
        def buildProtocol(self, addr: object) -> None:
            return None

    remote = Pair(*entities()).remote()
    assert isinstance(remote, RemoteAE)
    assert not isinstance(remote.endpoint, str)
    assert isinstance(failure_of(remote.endpoint.connect(Unwilling())), ConnectionLost)


# -- Deferreds -----------------------------------------------------------------------------------------


def test_the_result_of_a_deferred():
    assert success_of(defer.succeed(FIND)) == FIND
    with pytest.raises(ValueError, match="because"):
        success_of(defer.fail(ValueError("because")))
    with pytest.raises(AssertionError, match="has not fired"):
        success_of(defer.Deferred())


def test_the_failure_of_a_deferred():
    assert str(failure_of(defer.fail(ValueError("because")))) == "because"
    with pytest.raises(AssertionError, match="nothing yet"):
        failure_of(defer.Deferred())
    with pytest.raises(AssertionError, match="got \\['fine'\\]"):
        failure_of(defer.succeed("fine"))
