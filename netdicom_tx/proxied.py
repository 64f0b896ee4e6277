"""Connections through a proxy: which proxies are trusted, and which peer a connection belongs to.

:class:`ProxiedEndpoint` reads the header of the PROXY protocol at the beginning of each connection, see
:mod:`netdicom_tx.proxyheader`, and only then makes the protocol of the connection. That protocol gets the transport
itself, whose peer is the one that the header names. TLS begins behind the header.

Twisted's own :mod:`twisted.protocols.haproxy` is not used for three reasons. Its wrapper stays between transport and
protocol, which costs time for each read. It makes the protocol before the header has come, so that limits and access
rules would see the proxy. And it accepts a header from everybody, but closes a connection whose first segment has fewer
than 16 octets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .access import Network, includes
from .proxyheader import LIMIT, ProxyHeader, ProxyHeaderError, read_header
from .refusals import Refusal, cut_off

__all__ = [
    "HEADER_TIMEOUT",
    "WAITING_LIMIT",
    "HeaderReader",
    "ProxiedEndpoint",
    "Proxies",
    "address_of",
    "connect_protocol",
]

#: How many seconds a proxy has to send the header. The specification asks for at least three, so that TCP can repeat a
#: lost segment.
HEADER_TIMEOUT: Final = 5.0
#: How many connections may wait for their header. When one more comes, the one that has waited longest is closed.
WAITING_LIMIT: Final = 1024

_HEADER: Final = "a header of the PROXY protocol"
_SEND: Final = "let the proxy send it (send-proxy-v2), or turn [node] proxy_protocol off"


class Proxies:
    """The proxies that a node trusts.

    Args:
        networks: Gives the networks of the proxies. A local socket is trusted, because its permissions decide who may
            connect.
        refused: Called for each connection that is refused, with its address and the reason.
    """

    def __init__(
        self,
        networks: Callable[[], Sequence[Network]],
        refused: Callable[[IAddress | None, Refusal], None],
    ) -> None:
        self._networks = networks
        self.refused = refused

    def admits(self, address: IAddress | None) -> bool:
        """Whether a connection may come from an address; otherwise the refusal is reported."""
        host = getattr(address, "host", None)
        networks = self._networks()
        if host is None or includes(networks, str(host)):
            return True
        refusal = Refusal(
            "past the proxies",
            "a connection came that is not from a proxy",
            f"one from {' or '.join(map(str, networks))}",
            "let the peer call the proxy; if this is a proxy, add its address to [node] proxies",
        )
        self.refused(address, refusal)
        return False

    def no_header(self, address: IAddress | None, error: ProxyHeaderError) -> None:
        """Report a connection that begins with something other than a header."""
        self.refused(address, Refusal("PROXY header", str(error), _HEADER, _SEND))

    def cut_off(self, address: IAddress | None, octets: int, end: str) -> None:
        """Report a connection that ends before its header is complete."""
        refusal = cut_off(octets, end)
        if octets:
            refusal = Refusal("PROXY header", refusal.came, f"the whole of {_HEADER}", _SEND)
        self.refused(address, refusal)


def address_of(host: str, port: int) -> IAddress:
    """The address of a peer."""
    kind = IPv6Address if ":" in host else IPv4Address
    address: IAddress = kind("TCP", host, port)
    return address


def connect_protocol(protocol: Any, transport: Any, address: IAddress | None) -> None:
    """Connect a protocol with a transport, whose peer is the given one.

    Args:
        protocol: The protocol, which has no transport yet.
        transport: A transport of Twisted.
        address: The peer; None means the one that the transport names.
    """
    if address is not None:
        transport.getPeer = lambda: address
    transport.protocol = protocol
    protocol.makeConnection(transport)


class _HeaderProtocol(Protocol):
    """Reads the header, and then gives the connection to the protocol of the peer."""

    def __init__(self, factory: _HeaderFactory) -> None:
        self.factory: _HeaderFactory = factory
        self._octets = b""
        self._address: IAddress | None = None
        self._timeout: IDelayedCall | None = None
        self._is_over = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._address = self.transport.getPeer()
        self._timeout = self.factory.clock.callLater(HEADER_TIMEOUT, self._timed_out)
        self.factory.wait_for(self)

    def dataReceived(self, data: bytes) -> None:
        if self._is_over:
            return
        self._octets += data
        try:
            header = read_header(self._octets)
        except ProxyHeaderError as error:
            self._done()
            self.factory.proxies.no_header(self._address, error)
            self._drop()
            return
        if header is not None:
            self._done()
            self._hand_over(header)

    def _hand_over(self, header: ProxyHeader) -> None:
        address = None if header.source is None else address_of(*header.source)
        rest, self._octets = self._octets[header.size :], b""
        protocol = self.factory.for_peers.buildProtocol(address or self._address)
        if protocol is None:
            self._drop()
            return
        connect_protocol(protocol, self.transport, address)
        if rest:
            protocol.dataReceived(rest)

    def _timed_out(self) -> None:
        self.give_up(f"within {HEADER_TIMEOUT:g} s")

    def give_up(self, end: str) -> None:
        """Close the connection, because its header has not come."""
        self._done()
        self.factory.proxies.cut_off(self._address, len(self._octets), end)
        self._drop()

    def _done(self) -> None:
        """Wait no longer."""
        self._is_over = True
        self.factory.waiting.pop(self, None)
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()

    def _drop(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._is_over:
            self._done()
            end = "before the connection was closed"
            self.factory.proxies.cut_off(self._address, len(self._octets), end)


class _HeaderFactory(Factory):
    """Makes the reader of the header for each connection of a proxy.

    Args:
        for_peers: Makes the protocols of the peers.
        proxies: The proxies that are trusted.
        clock: The clock by which a header is waited for.
    """

    noisy = False

    def __init__(self, for_peers: Any, proxies: Proxies, clock: IReactorTime) -> None:
        self.for_peers = for_peers
        self.proxies = proxies
        self.clock = clock
        # The connections whose header has not come, the oldest first.
        self.waiting: dict[_HeaderProtocol, None] = {}

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self.for_peers.doStart()

    def doStop(self) -> None:
        self.for_peers.doStop()
        super().doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> Any:  # as Factory has it
        return _HeaderProtocol(self) if self.proxies.admits(addr) else None

    def wait_for(self, protocol: _HeaderProtocol) -> None:
        """Note a connection that waits for its header."""
        self.waiting[protocol] = None
        if len(self.waiting) > WAITING_LIMIT:
            next(iter(self.waiting)).give_up(f"while {WAITING_LIMIT} newer connections came")


@implementer(IStreamServerEndpoint)
class ProxiedEndpoint:
    """An endpoint for proxies, which send a header at the beginning of each connection.

    Args:
        endpoint: The endpoint, without TLS.
        proxies: The proxies that are trusted.
        clock: The clock by which a header is waited for.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, proxies: Proxies, clock: IReactorTime
    ) -> None:
        self._endpoint = endpoint
        self._proxies = proxies
        self._clock = clock

    def listen(self, factory: Any) -> defer.Deferred[IListeningPort]:
        return self._endpoint.listen(_HeaderFactory(factory, self._proxies, self._clock))


class HeaderReader:
    """Reads the header from a socket, and not an octet more; a reader for the reactor.

    The connection can then be given to another process.

    Args:
        connection: The connection, which does not block. It belongs to the caller again when ``done`` is called.
        address: The address that it comes from.
        proxies: Reports a connection without a header.
        reactor: The reactor, which is also the clock.
        done: Called once: with the header, or with None when the connection must be closed.
    """

    def __init__(
        self,
        connection: socket.socket,
        address: IAddress | None,
        proxies: Proxies,
        reactor: Any,
        done: Callable[[HeaderReader, ProxyHeader | None], None],
    ) -> None:
        self.connection = connection
        self._address = address
        self._proxies = proxies
        self._reactor = reactor
        self._tell_done = done
        self._octets = b""
        self._timeout: IDelayedCall = reactor.callLater(HEADER_TIMEOUT, self._timed_out)
        reactor.addReader(self)

    def fileno(self) -> int:
        return self.connection.fileno()

    def logPrefix(self) -> str:
        return "PROXY"

    def doRead(self) -> None:
        before = len(self._octets)
        try:
            peeked = self.connection.recv(LIMIT - before, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            peeked = b""
        if not peeked:
            self.give_up("before the connection was closed")
            return
        self._octets += peeked
        try:
            header = read_header(self._octets)
        except ProxyHeaderError as error:
            self._over()
            self._proxies.no_header(self._address, error)
            self._tell_done(self, None)
            return
        size = len(self._octets) if header is None else header.size
        self.connection.recv(size - before)  # these octets were peeked at
        if header is not None:
            self._over()
            self._tell_done(self, header)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has found that the descriptor is closed."""
        self.give_up("before the connection was closed")

    def _timed_out(self) -> None:
        self.give_up(f"within {HEADER_TIMEOUT:g} s")

    def give_up(self, end: str) -> None:
        """Stop waiting, and have the connection closed."""
        self._over()
        self._proxies.cut_off(self._address, len(self._octets), end)
        self._tell_done(self, None)

    def _over(self) -> None:
        self._reactor.removeReader(self)
        if self._timeout.active():
            self._timeout.cancel()
