"""A proxy, as a peer behind it sees it: an endpoint that sends a header first."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

__all__ = ["SIGNATURE", "Proxied", "binary", "tcp4"]

#: The first octets of a header of version 2.
SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"


def binary(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    """A header of version 2."""
    head = struct.pack("!BBH", 0x20 | command, family, len(body) if length is None else length)
    return SIGNATURE + head + body


def tcp4(source: str, port: int, more: bytes = b"") -> bytes:
    """A header of version 2 for a peer over IPv4."""
    hosts = socket.inet_aton(source) + socket.inet_aton("192.0.2.1")
    return binary(1, 0x11, hosts + struct.pack("!HH", port, 104) + more)


@implementer(IStreamClientEndpoint)
class Proxied:
    """Calls for another peer: the header goes out before the protocol has the connection."""

    def __init__(self, endpoint: IStreamClientEndpoint, header: bytes) -> None:
        self._endpoint = endpoint
        self._header = header

    def connect(self, factory: Any) -> Deferred[Any]:
        return self._endpoint.connect(_HeaderFirst(factory, self._header))


class _HeaderFirst(Factory):
    noisy = False

    def __init__(self, factory: Any, header: bytes) -> None:
        self._factory = factory
        self._header = header

    def buildProtocol(self, addr: Any) -> Any:
        protocol = self._factory.buildProtocol(addr)
        make = protocol.makeConnection

        def after_the_header(transport: Any) -> None:
            transport.write(self._header)
            make(transport)

        protocol.makeConnection = after_the_header
        return protocol
