"""A transport in memory: what one end writes, the other reads, in order and never from within a delivery.

:mod:`netdicom_tx.testing` joins application entities by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IConsumer, IProtocol, IPushProducer, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["PORT", "Cut", "MemoryTransport", "Wire", "join"]

#: The port of each address in memory.
PORT = 104
#: Cuts a written segment on its way.
Cut = Callable[[bytes], Iterable[bytes]]


class Wire:
    """Delivers what two transports write to each other, in order, never from within a delivery.

    Args:
        clock: Its zero-delay calls are run as part of the delivery.
        cut: How a written segment is cut on its way; None delivers it as it was written.
    """

    def __init__(self, clock: Clock, cut: Cut | None = None) -> None:
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

    Args:
        wire: Delivers what is written.
        host: The name of the host at this end.
        port: The port at this end.

    Attributes:
        written: All octets that were written at this end, for assertions.
        high_water: Octets on their way to a peer that has paused, above which the producer of this
            end is paused.
    """

    high_water = 1 << 16

    def __init__(self, wire: Wire, host: str, port: int = PORT) -> None:
        self._wire = wire
        self._address = IPv4Address("TCP", host, port)
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
        """A transport that is not read does not notice that the peer has closed."""
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
        return self._address


def join(
    client: IProtocol,
    server: IProtocol,
    wire: Wire,
    *,
    client_address: tuple[str, int] = ("requestor", PORT),
    server_address: tuple[str, int] = ("acceptor", PORT),
) -> tuple[MemoryTransport, MemoryTransport]:
    """Connect two protocols; the server's connection is made first."""
    one, other = MemoryTransport(wire, *client_address), MemoryTransport(wire, *server_address)
    one.peer, other.peer = other, one
    one.protocol, other.protocol = client, server
    server.makeConnection(other)
    client.makeConnection(one)
    wire.run()
    return one, other
