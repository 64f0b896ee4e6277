"""Two AEs joined in memory, without a port: for the tests of this package, and for yours.

The whole stack is real, from services to PDUs; only the transport is a pair of queues, and time
is a :class:`twisted.internet.task.Clock`. Octets are delivered by themselves, unless the receiver
has paused, so most tests need no pumping::

    with connected(scu, scp) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION_SOP_CLASS)()) == SUCCESS

What needs real threads or sockets (an archive, TLS) needs a real reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from .applicationentity import AE, RemoteAE
from .asceprovider import Association

__all__ = ["MemoryTransport", "Pair", "connected", "failure_of", "join", "success_of"]

_T = TypeVar("_T")


class Wire:
    """Delivers what two transports write to each other, in order, never from within a delivery.

    Args:
        clock: Its zero-delay calls are run as part of the delivery.
        cut: How a written segment is cut on its way; None delivers it as it was written.
    """

    def __init__(self, clock: Clock, cut: Callable[[bytes], Iterable[bytes]] | None = None) -> None:
        self.clock = clock
        self.cut = cut
        self._actions: deque[Callable[[], None]] = deque()
        self._is_running = False

    def do(self, action: Callable[[], None]) -> None:
        """Do something when all that was asked before is done."""
        self._actions.append(action)
        self.run()

    def run(self) -> None:
        """Deliver all there is."""
        if self._is_running:
            return
        self._is_running = True
        try:
            while True:
                while self._actions:
                    self._actions.popleft()()
                due = [
                    call
                    for call in self.clock.getDelayedCalls()
                    if call.getTime() <= self.clock.seconds()
                ]
                if not due:
                    return
                self.clock.advance(0)
        finally:
            self._is_running = False


@implementer(ITransport, IPushProducer, IConsumer)
class MemoryTransport:
    """One end of a connection in memory.

    Attributes:
        written: All octets that were written at this end, for assertions.
        high_water: Octets on their way to a peer that has paused, above which the producer of this
            end is paused.
    """

    high_water = 1 << 16

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self._name = name
        self.peer: MemoryTransport | None = None
        self.protocol: IProtocol | None = None
        self.written = bytearray()
        self.is_connected = True
        self.disconnecting = False
        self._is_paused = False
        self._has_peer_closed = False
        self._inbox: deque[bytes] = deque()
        self._inbox_size = 0
        self._producer: Any = None  # what registerProducer was given
        self._is_streaming = True
        self._producer_paused = False

    # -- writing -------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self.is_connected or self.disconnecting or not data:
            return
        self.written += data
        peer = self.peer
        assert peer is not None
        for piece in [data] if self._wire.cut is None else self._wire.cut(data):
            peer._inbox.append(piece)
            peer._inbox_size += len(piece)
        self._wire.do(peer._deliver)
        if peer._inbox_size > self.high_water and self._producer and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer, self._is_streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.disconnecting:
            self._wire.do(self._close)

    # -- reading -------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._wire.do(self._deliver)
            self._wire.do(self._see_close)

    def stopProducing(self) -> None:
        self.loseConnection()

    def _deliver(self) -> None:
        while self._inbox and not self._is_paused and self.is_connected:
            data = self._inbox.popleft()
            self._inbox_size -= len(data)
            assert self.protocol is not None
            self.protocol.dataReceived(data)
        peer = self.peer
        assert peer is not None
        if not self._inbox and peer._producer and (peer._producer_paused or not peer._is_streaming):
            peer._producer_paused = False
            peer._producer.resumeProducing()
        if peer.disconnecting:
            self._wire.do(peer._close)

    # -- the end -------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close when the producer has been unregistered and the peer has been given all."""
        if self.is_connected and not self.disconnecting:
            self.disconnecting = True
            self._wire.do(self._close)

    def _close(self) -> None:
        peer = self.peer
        assert peer is not None
        if not self._producer and not (peer._inbox and peer.is_connected):
            self._lost(ConnectionDone())
            peer._has_peer_closed = True
            self._wire.do(peer._see_close)

    def _see_close(self) -> None:
        """Who does not read does not see that the peer has closed."""
        if self._has_peer_closed and not self._is_paused:
            self._lost(ConnectionDone())

    def abortConnection(self) -> None:
        """Drop the connection and what is on its way."""
        if self.is_connected:
            peer = self.peer
            assert peer is not None
            peer._inbox.clear()
            peer._inbox_size = 0
            self._wire.do(lambda: self._lost(ConnectionAborted()))
            self._wire.do(lambda: peer._lost(ConnectionLost()))

    def _lost(self, reason: Exception) -> None:
        if self.is_connected:
            self.is_connected = False
            assert self.protocol is not None
            self.protocol.connectionLost(Failure(reason))

    def getPeer(self) -> IAddress:
        assert self.peer is not None
        return self.peer.getHost()

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", self._name, 104)


def join(
    client: IProtocol, server: IProtocol, wire: Wire
) -> tuple[MemoryTransport, MemoryTransport]:
    """Connect two protocols; the server's connection is made first."""
    one, other = MemoryTransport(wire, "requestor"), MemoryTransport(wire, "acceptor")
    one.peer, other.peer = other, one
    one.protocol, other.protocol = client, server
    server.makeConnection(other)
    client.makeConnection(one)
    wire.run()
    return one, other


@implementer(IStreamClientEndpoint)
class _MemoryEndpoint:
    """Connects to the acceptor's factory."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def connect(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IProtocol]:
        client = protocolFactory.buildProtocol(IPv4Address("TCP", "acceptor", 104))
        server = self._pair.scp.acceptor_factory().buildProtocol(None)
        if client is None:
            return defer.fail(ConnectionLost())
        self._pair.transports = join(client, server, self._pair.wire)
        return defer.succeed(client)


class Pair:
    """Two AEs and the association between them.

    Attributes:
        scu: The AE that asked.
        scp: The AE that was asked.
        clock: The time of both; advance it to let timeouts pass.
        requestor: The association as ``scu`` holds it.
        acceptor: The same association as ``scp`` holds it.
        transports: The ends of the connection, the requestor's first.
    """

    requestor: Association
    acceptor: Association
    transports: tuple[MemoryTransport, MemoryTransport]

    def __init__(
        self, scu: AE, scp: AE, cut: Callable[[bytes], Iterable[bytes]] | None = None
    ) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock, cut)
        self.scu, self.scp = scu, scp
        for each in (scu, scp):
            each._reactor = self.clock

    def remote(self) -> RemoteAE:
        """The acceptor, as an AE to call."""
        return RemoteAE(self.scp.ae_title, _MemoryEndpoint(self))

    def request_association(
        self, contexts: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> defer.Deferred[Association]:
        """As :meth:`AE.request_association`, to the acceptor."""
        return self.scu.request_association(self.remote(), contexts, **options)

    def advance(self, seconds: float) -> None:
        """Let time pass at both ends, and deliver what that causes."""
        self.clock.advance(seconds)
        self.wire.run()


@contextmanager
def connected(
    scu: AE,
    scp: AE,
    contexts: Mapping[str, Sequence[str]] | None = None,
    *,
    cut: Callable[[bytes], Iterable[bytes]] | None = None,
    **options: Any,
) -> Iterator[Pair]:
    """An association between two AEs; it is aborted at the end of the block if it is still open.

    Args:
        scu: Requests it.
        scp: Accepts it.
        contexts: As for :meth:`AE.request_association`.
        cut: How each written segment is cut on its way, such as octet by octet.
        options: Of :meth:`AE.request_association`.

    Raises:
        AssociationError: It was refused.
    """
    pair = Pair(scu, scp, cut)
    pair.requestor = success_of(pair.request_association(contexts, **options))
    pair.acceptor = next(iter(scp.associations - {pair.requestor}))
    try:
        yield pair
    finally:
        pair.requestor.abort()
        pair.wire.run()


def success_of(deferred: defer.Deferred[_T]) -> _T:
    """The result of a Deferred that has fired.

    Raises:
        AssertionError: It has not fired.
        Exception: What it failed with.
    """
    results: list[_T | Failure] = []
    deferred.addBoth(results.append)
    if not results:
        raise AssertionError("the Deferred has not fired")
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def failure_of(deferred: defer.Deferred[Any]) -> Exception:
    """What a Deferred has failed with.

    Raises:
        AssertionError: It has not fired, or it has succeeded.
    """
    results: list[Any] = []
    deferred.addBoth(results.append)
    if not results or not isinstance(results[0], Failure):
        raise AssertionError(f"expected a failure, got {results or 'nothing yet'}")
    error = results[0].value
    assert isinstance(error, Exception)
    return error
