"""Associations in memory: what their transports do, real ones do too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    NoProtocol,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from netdicom_tx import (
    AE,
    Association,
    AssociationRejectedError,
    ClassNotSupportedError,
    ConnectionLostError,
    RemoteAE,
    verification_scp,
    verification_scu,
)
from netdicom_tx.testing import (
    MemoryTransport,
    Network,
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


# -- several pairs, and networks -------------------------------------------------------------------------


def echoes(asce: Association) -> bool:
    return success_of(asce.get_scu(VERIFICATION)()) == 0


def test_pairs_within_each_other_share_their_clock_and_keep_their_ends_apart():
    scu, scp = entities()
    other, _ = entities()
    with connected(scu, scp) as outer, connected(other, scp) as inner, connected(scu, scp) as third:
        assert outer.clock is inner.clock is third.clock
        ends = [outer.acceptor, inner.acceptor, third.acceptor]
        assert len(set(ends)) == 3
        assert [outer.requestor.ae, inner.requestor.ae, third.requestor.ae] == [scu, other, scu]
        for pair in (outer, inner, third):
            pair.acceptor.abort()
            assert not pair.requestor.is_open
    assert not scp.associations


def test_an_ae_has_its_own_reactor_back_when_its_pair_is_over():
    clock = Clock()
    scu, scp = AE("SCU", reactor=clock).add_scu(verification_scu), entities()[1]
    for _ in range(2):
        with connected(scu, scp) as pair:
            assert scu.clock.seconds() == 0
            pair.advance(1)
            assert scu.clock.seconds() == 1
        assert scu.reactor is clock
        assert scp._reactor is None


def test_an_ae_has_its_own_reactor_back_when_it_was_refused():
    clock = Clock()
    scu = AE("SCU", reactor=clock).add_scu(verification_scu)
    with (
        pytest.raises(AssociationRejectedError),
        connected(scu, AE("SCP", called_ae_titles=["NO"])),
    ):
        raise AssertionError("there is no association")  # pragma: no cover
    assert scu.reactor is clock


def test_an_ae_may_call_itself():
    ae = AE("ME").add_scu(verification_scu).add_scp(verification_scp)
    with connected(ae, ae) as pair:
        assert pair.requestor is not pair.acceptor
        assert echoes(pair.requestor)
        assert echoes(success_of(ae.request_association(RemoteAE("ME", "tcp:127.0.0.1:104"))))


def test_a_network_joins_any_number():
    scu, scp = entities()
    third = AE("THIRD").add_scp(verification_scp)
    with Network(scu, scp) as network:
        assert third not in network
        assert network.add(third) == network.remote(third) == network.add(third)
        for each in (scp, third):
            assert echoes(success_of(scu.request_association(network.remote(each))))
        assert len(scu.associations) == len(network.connections) == 2
        with connected(scu, third) as pair:
            assert pair.network is network
        assert third in network
    assert not scu.associations | scp.associations | third.associations


def test_entities_of_one_title_have_addresses_of_their_own():
    odd, same, none = AE("A b?"), AE("A b?"), AE("?")
    with Network(odd, same, none) as network:
        addresses = [network.remote(each).endpoint for each in (odd, same, none)]
        assert addresses == ["tcp:a-b:104", "tcp:a-b-2:104", "tcp:host:104"]


def test_an_ae_is_on_one_network():
    scu, scp = entities()
    with Network(scu) as one, Network(scp) as other:
        with pytest.raises(ValueError, match="on different networks"), connected(scu, scp):
            raise AssertionError("there is no association")  # pragma: no cover
        with pytest.raises(ValueError, match="SCU is on another network"):
            other.add(scu)
        one.remove(scu)
        other.add(scu)


def test_a_network_takes_the_clock_and_the_cut_of_the_test():
    clock = Clock()
    scu, scp = entities()
    with Network(scu, scp, clock=clock, cut=octets) as network:
        assert network.clock is scu.clock.network.clock is clock  # type: ignore[attr-defined]
        assert echoes(success_of(scu.request_association(network.remote(scp))))


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def test_entities_listen_and_call_by_endpoint_strings():
    """A gateway that is configured as usual can be tested as it is."""
    scu, scp = entities()
    with Network(scu, scp) as network:
        port = success_of(scp.listen("tcp:11112"))
        assert (port.getHost().host, port.getHost().port) == ("scp", 11112)
        asce = success_of(scu.request_association(RemoteAE("SCP", "scp:11112")))
        assert echoes(asce)
        assert asce.peer_address == port.getHost()
        with pytest.raises(CannotListenError):
            success_of(scp.listen("tcp:11112"))
        port.stopListening()
        port.stopListening()
        assert echoes(asce)
        for nobody in ("tcp:scp:11112", "tcp:elsewhere:104"):
            failed = failure_of(scu.request_association(RemoteAE("SCP", nobody)))
            assert isinstance(failed, ConnectionLostError)
        free = success_of(scp.listen("tcp:0"))
        remote = RemoteAE("SCP", f"tcp:scp:{free.getHost().port}")
        assert echoes(success_of(scu.request_association(remote)))
        assert len(network.connections) == 2


def test_a_service_runs_in_memory():
    scu, scp = entities()
    with Network(scu, scp) as network:
        service = scp.as_service("tcp:11112")
        service.startService()
        asce = success_of(scu.request_association(RemoteAE("SCP", "tcp:scp:11112")))
        stopping = service.stopService()
        success_of(stopping)
        assert not asce.is_open
        assert not network.clock.getDelayedCalls()


def test_an_attempt_to_connect_can_be_given_up():
    """Within a delivery nothing is connected yet."""
    scu, scp = entities()
    with Network(scu, scp) as network:
        asked: list[defer.Deferred[Any]] = []

        def ask_and_cancel() -> None:
            asked.append(scu.request_association(network.remote(scp)))
            asked[0].cancel()

        network.wire.do(ask_and_cancel)
        assert isinstance(failure_of(asked[0]), defer.CancelledError)
        assert not network.connections
        assert not network.clock.getDelayedCalls()


class Unwilling(Factory):
    def buildProtocol(self, addr: object) -> None:
        return None


def test_a_factory_that_wants_no_connection_gets_none():
    scu, scp = entities()
    with Network(scu, scp) as network:
        wants = network.remote(scp).connector(scu.reactor)
        assert isinstance(failure_of(wants.connect(Unwilling())), NoProtocol)
        scp.reactor.listenTCP(11112, Unwilling())
        refused = scu.request_association(RemoteAE("SCP", "tcp:scp:11112"))
        assert isinstance(failure_of(refused), ConnectionLostError)


def test_a_plain_connection_can_be_closed_by_its_connector():
    scu, scp = entities()
    with Network(scu, scp):
        factory = ClientFactory()
        factory.protocol = Listener
        connector = scu.reactor.connectTCP("scp", 104, factory)
        assert connector.getDestination().host == "scp"
        (asce,) = scp.associations
        assert scu.reactor.getDelayedCalls()  # the acceptor waits for a request
        connector.disconnect()
        assert asce.error is not None
        assert not scp.associations
        scu.reactor.connectTCP("nowhere", 104, factory).disconnect()  # it was refused already


def test_names_can_be_resolved_in_another_way():
    scu, scp = entities()
    with Network(scu, scp):

        class Elsewhere:
            def resolveHostName(self, receiver: Any, name: str, portNumber: int = 0) -> None:
                receiver.addressResolved(IPv4Address("TCP", "scp", portNumber))
                receiver.resolutionComplete()

        scu.reactor.installNameResolver(Elsewhere())
        asce = success_of(scu.request_association(RemoteAE("SCP", "pacs.example:104")))
        assert echoes(asce)


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
