"""Connections that come by a proxy: whose they are, who may bring them, and what ends those without a header."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from twisted.internet import defer
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from netdicom_tx.access import network
from netdicom_tx.proxied import (
    HEADER_TIMEOUT,
    WAITING_LIMIT,
    HeaderReader,
    ProxiedEndpoint,
    Proxies,
)
from netdicom_tx.proxyheader import ProxyHeader
from netdicom_tx.refusals import Refusal
from support.proxies import binary, tcp4

PROXY = IPv4Address("TCP", "10.0.0.5", 40000)
HEADER = tcp4("192.0.2.7", 49152)


class Transport(StringTransport):
    """Has a protocol, as one of TCP."""

    protocol: Any = None

    def __init__(self, address: IAddress) -> None:
        super().__init__(peerAddress=address)  # type: ignore[no-untyped-call]


class Peer(Protocol):
    """The protocol that a connection is for."""

    def __init__(self) -> None:
        self.received = b""
        self.called_by: IAddress | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.called_by = self.transport.getPeer()

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class Peers(Factory):
    """Makes these protocols."""

    def __init__(self) -> None:
        self.made: list[Peer] = []
        self.asked: list[IAddress | None] = []
        self.has_place = True

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self.asked.append(addr)
        if not self.has_place:
            return None
        self.made.append(Peer())
        return self.made[-1]


class Listening:
    """An endpoint for proxies, without a network."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.peers = Peers()
        self.refusals: list[tuple[IAddress | None, Refusal]] = []
        proxies = Proxies(lambda: [network("10.0.0.0/8")], lambda *both: self.refusals.append(both))
        ProxiedEndpoint(self, proxies, self.clock).listen(self.peers)  # type: ignore[arg-type]

    def listen(self, factory: Any) -> defer.Deferred[Any]:
        self.factory = factory
        return defer.succeed(None)

    def call(self, address: IAddress = PROXY) -> Any:
        transport = cast(Any, Transport(address))
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            transport.abortConnection()
        else:
            transport.protocol = protocol
            protocol.makeConnection(transport)
        return transport

    @property
    def said(self) -> list[str]:
        return [str(each) for _, each in self.refusals]


@pytest.mark.parametrize("size", [1, 7, 28, 1000])
def test_the_protocol_has_the_transport_which_names_the_peer(size: int) -> None:
    """However the stream is cut, and nothing stays between the two."""
    listening = Listening()
    transport = listening.call()
    octets = HEADER + b"request"
    for start in range(0, len(octets), size):
        transport.protocol.dataReceived(octets[start : start + size])
    (peer,) = listening.peers.made
    assert cast(Any, peer.transport) is transport
    assert transport.protocol is peer
    assert peer.called_by == transport.getPeer() == IPv4Address("TCP", "192.0.2.7", 49152)
    assert listening.peers.asked == [peer.called_by]
    assert peer.received == b"request"
    assert not listening.clock.getDelayedCalls()


def test_no_protocol_is_made_before_the_header_has_come() -> None:
    """So that limits and access rules never see the proxy."""
    listening = Listening()
    listening.call().protocol.dataReceived(HEADER[:-1])
    assert not listening.peers.made


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", binary(0, 0, b""), binary(1, 0, b"")])
def test_a_header_without_a_source_leaves_the_address_of_the_proxy(header: bytes) -> None:
    """The proxy speaks for itself, as in its checks."""
    listening = Listening()
    listening.call().protocol.dataReceived(header + b"x")
    (peer,) = listening.peers.made
    assert (peer.called_by, peer.received) == (PROXY, b"x")


def test_a_connection_past_the_proxies_is_refused_at_once() -> None:
    listening = Listening()
    other = IPv4Address("TCP", "192.0.2.99", 1)
    assert listening.call(other).disconnected
    assert [each for each, _ in listening.refusals] == [other]
    assert listening.said == [
        "a connection came that is not from a proxy; expected one from 10.0.0.0/8; "
        "let the peer call the proxy; if this is a proxy, add its address to [node] proxies"
    ]


def test_a_local_socket_is_trusted() -> None:
    """Its permissions say who may connect."""
    listening = Listening()
    listening.call(UNIXAddress(None)).protocol.dataReceived(HEADER)
    assert str(getattr(listening.peers.made[0].called_by, "host", "")) == "192.0.2.7"


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"\x01\0\0\0\0\xcd", "octets came without a header (01 00 00 00 00 cd)"),
        (binary(1, 0x11, b"", 65000), "a header of 65016 octets came"),
        (b"PROXY nonsense\r\n", "malformed"),
    ],
)
def test_without_a_proper_header_the_connection_is_closed(octets: bytes, said: str) -> None:
    listening = Listening()
    transport = listening.call()
    protocol = transport.protocol
    protocol.dataReceived(octets)
    assert transport.disconnected
    assert said in listening.said[0]
    protocol.dataReceived(HEADER)
    protocol.connectionLost(Failure(ConnectionError()))
    assert not listening.peers.made
    assert len(listening.refusals) == 1
    assert not listening.clock.getDelayedCalls()


def test_a_header_that_does_not_come_is_waited_for_some_seconds() -> None:
    """At least three, says the specification; nothing at all is as little noise as at any port."""
    listening = Listening()
    silent, slow = listening.call(), listening.call()
    slow.protocol.dataReceived(b"PROXY TCP4 ")
    assert HEADER_TIMEOUT > 3
    listening.clock.advance(HEADER_TIMEOUT)
    assert silent.disconnected
    assert slow.disconnected
    assert [each.is_noise for _, each in listening.refusals] == [True, False]
    assert "11 octets came within 5 s; expected the whole of a header" in listening.said[1]


def test_a_connection_that_only_opens_and_closes_is_noise() -> None:
    """Balancers look in this way if the port is open."""
    listening = Listening()
    listening.call().protocol.connectionLost(Failure(ConnectionError()))
    assert [each.is_noise for _, each in listening.refusals] == [True]
    assert not listening.clock.getDelayedCalls()


def test_so_many_wait_for_their_header_at_most() -> None:
    listening = Listening()
    waiting = [listening.call() for _ in range(WAITING_LIMIT + 1)]
    assert [each.disconnected for each in waiting] == [True] + [False] * WAITING_LIMIT
    assert len(listening.clock.getDelayedCalls()) == WAITING_LIMIT


def test_a_connection_for_which_there_is_no_protocol_is_closed() -> None:
    listening = Listening()
    listening.peers.has_place = False
    transport = listening.call()
    transport.protocol.dataReceived(HEADER)
    assert transport.disconnected


def test_the_factory_starts_and_stops_with_the_port() -> None:
    listening = Listening()
    listening.factory.doStart()
    assert listening.peers.numPorts == 1
    listening.factory.doStop()
    assert listening.peers.numPorts == 0


class Reactor(Clock):
    """Knows readers."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)


class Reading:
    """A connection whose header is read before another process gets it."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.found: list[ProxyHeader | None] = []
        self.refusals: list[Refusal] = []
        proxies = Proxies(list, lambda _, refusal: self.refusals.append(refusal))
        self.reader = HeaderReader(
            self.ours, None, proxies, self.reactor, lambda _, header: self.found.append(header)
        )

    def comes(self, octets: bytes) -> None:
        self.theirs.sendall(octets)
        self.reader.doRead()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def reading() -> Iterator[Reading]:
    with closing(Reading()) as made:
        yield made


@pytest.mark.parametrize("size", [1, 5, 28, 1000])
@pytest.mark.parametrize("header", [HEADER, b"PROXY TCP4 192.0.2.7 192.0.2.1 49152 104\r\n"])
def test_the_header_is_taken_and_not_an_octet_more(
    reading: Reading, size: int, header: bytes
) -> None:
    octets = header + b"request"
    for start in range(0, len(octets), size):
        if reading.found:
            reading.theirs.sendall(octets[start : start + size])
        else:
            reading.comes(octets[start : start + size])
    assert reading.found == [ProxyHeader(len(header), ("192.0.2.7", 49152))]
    assert reading.ours.recv(100) == b"request"
    assert not reading.reactor.readers
    assert not reading.reactor.getDelayedCalls()


def test_a_reader_gives_up_what_has_no_header(reading: Reading) -> None:
    assert reading.reader.fileno() == reading.ours.fileno()
    assert reading.reader.logPrefix() == "PROXY"
    reading.reader.doRead()  # there is nothing
    reading.comes(b"\x01\0")
    assert reading.found == [None]
    assert "without a header (01 00)" in str(reading.refusals[0])
    assert not reading.reactor.readers


def test_a_reader_notices_the_end_of_the_connection(reading: Reading) -> None:
    reading.theirs.close()
    reading.reader.doRead()
    assert reading.found == [None]
    assert reading.refusals[0].is_noise


def test_a_reader_notices_a_reset_connection() -> None:
    """As the checks of balancers end."""
    with socket.create_server(("127.0.0.1", 0)) as port, closing(Reading()) as reading:
        with socket.create_connection(port.getsockname()) as theirs:
            ours, _ = port.accept()
            # Zero seconds to linger make the end a reset.
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with ours:
            reading.reader.connection = ours
            reading.reader.doRead()
    assert reading.found == [None]


def test_the_reactor_may_find_the_end_of_the_connection(reading: Reading) -> None:
    reading.reader.connectionLost(Failure(ConnectionError()))
    assert reading.found == [None]


def test_a_reader_waits_some_seconds(reading: Reading) -> None:
    reading.comes(HEADER[:5])
    reading.reactor.advance(HEADER_TIMEOUT)
    assert reading.found == [None]
    assert "5 octets came within 5 s" in str(reading.refusals[0])
