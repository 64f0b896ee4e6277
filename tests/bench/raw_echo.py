"""A C-ECHO SCU that takes almost no time: plain sockets and octets that were made beforehand."""

import socket
import struct
from typing import BinaryIO

from tests.bench import raw_sender
from tests.bench.peers import Peer
from tests.bench.raw_sender import (
    ASSOCIATE_AC,
    COMMAND,
    LAST,
    P_DATA_TF,
    RELEASE_RP,
    RELEASE_RQ,
    element,
    pdv_head,
    uid_value,
)

_VERIFICATION = "1.2.840.10008.1.1"


class RawEcho:
    """One association for C-ECHO; a context manager that releases it."""

    def __init__(self, peer: Peer) -> None:
        self._name = peer.name
        self._socket = socket.create_connection(("127.0.0.1", peer.port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers: BinaryIO = self._socket.makefile("rb")
        self._socket.sendall(associate_rq(peer.ae_title))
        self._expect(ASSOCIATE_AC)

    def __enter__(self) -> "RawEcho":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendall(RELEASE_RQ)
        self._expect(RELEASE_RP)
        self.close()

    def close(self) -> None:
        """Close the connection without a release."""
        self._answers.close()
        self._socket.close()

    def echo(self, message_id: int = 1) -> None:
        """Send a C-ECHO-RQ, and wait for the response.

        Raises:
            RuntimeError: The peer behaved unexpectedly.
        """
        self._socket.sendall(echo_rq(message_id))
        self._expect(P_DATA_TF)

    def _expect(self, expected: int) -> None:
        kind, length = struct.unpack(">BxI", self._answers.read(6))
        body = self._answers.read(length)
        if kind != expected:
            raise RuntimeError(f"{self._name}: PDU {kind} {body[:40].hex()}")


def associate_rq(called: str) -> bytes:
    """Return a request for an association with one context, for verification."""
    return raw_sender.associate_rq(called, [(1, _VERIFICATION, "1.2.840.10008.1.2")])


def echo_rq(message_id: int) -> bytes:
    """Return a C-ECHO-RQ in its PDU."""
    command = element(0x0002, uid_value(_VERIFICATION))
    command += element(0x0100, struct.pack("<H", 0x0030))
    command += element(0x0110, struct.pack("<H", message_id))
    command += element(0x0800, struct.pack("<H", 0x0101))
    command = element(0x0000, struct.pack("<I", len(command))) + command
    return pdv_head(len(command), COMMAND | LAST) + command
