"""SCUs for C-FIND, C-GET and C-MOVE that take almost no time, like :mod:`tests.bench.raw_sender`.

They count what they receive and discard it. From a response they read only the status and the counters.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from tests.bench.peers import Peer
from tests.bench.raw_sender import (
    ASSOCIATE_AC,
    COMMAND,
    LAST,
    P_DATA_TF,
    RELEASE_RP,
    RELEASE_RQ,
    associate_rq,
    element,
    item,
    pdv_head,
    uid_value,
)

FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # study root
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_PENDING = (0xFF00, 0xFF01)


@dataclass(slots=True)
class Outcome:
    """The outcome of an operation.

    Attributes:
        status: The final status.
        responses: The number of Pending responses.
        instances: The number of instances received here or sent elsewhere.
        octets: The bytes of the data sets received here.
    """

    status: int = -1
    responses: int = 0
    instances: int = 0
    octets: int = 0


class RawSCU:
    """An association for the Study Root model; a context manager.

    Args:
        storage: The SOP class of the instances that C-GET retrieves.
    """

    def __init__(self, peer: Peer, *, storage: str = "") -> None:
        self._name = peer.name
        self._socket = socket.create_connection(("127.0.0.1", peer.port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb", buffering=1 << 18)
        self._contexts = {FIND: 1, MOVE: 3, GET: 5}
        contexts = [(number, uid, _IMPLICIT) for uid, number in self._contexts.items()]
        roles = b""
        if storage:
            self._contexts[storage] = 7
            contexts.append((7, storage, _EXPLICIT))
            # PS3.7 D.3.3.4: propose the SCP role too for this SOP class.
            own = storage.encode()
            roles = item(0x54, struct.pack(">H", len(own)) + own + b"\1\1")
        self._socket.sendall(associate_rq(peer.ae_title, contexts, roles))
        kind, _ = self._pdu()
        if kind != ASSOCIATE_AC:
            raise RuntimeError(f"{peer.name} does not accept the association: PDU {kind}")

    def __enter__(self) -> "RawSCU":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._socket.sendall(RELEASE_RQ)
            while self._pdu()[0] != RELEASE_RP:
                pass
        self._stream.close()
        self._socket.close()

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._stream.read(6))
        return kind, self._stream.read(length)

    def _parts(self) -> Iterator[tuple[int, bytes, bool]]:
        """Yield the context ID and the bytes of each PDV, and whether it belongs to a command."""
        while True:
            kind, body = self._pdu()
            if kind != P_DATA_TF:
                raise RuntimeError(f"{self._name}: PDU {kind} {body[:40].hex()}")
            at = 0
            while at < len(body):
                (length,) = struct.unpack_from(">I", body, at)
                control = body[at + 5]
                yield control, body[at + 6 : at + 4 + length], bool(control & COMMAND)
                at += 4 + length

    def run(self, operation: str, identifier: bytes, destination: str = "") -> Outcome:
        """Send the request, answer sub-operations, and count until the final response.

        Args:
            identifier: The encoded identifier, in Implicit VR Little Endian.
            destination: The destination of a C-MOVE.

        Raises:
            RuntimeError: The peer behaved unexpectedly.
        """
        field = {FIND: 0x0020, GET: 0x0010, MOVE: 0x0021}[operation]
        command = element(0x0002, uid_value(operation))
        command += element(0x0100, struct.pack("<H", field))
        command += element(0x0110, struct.pack("<H", 1))
        if destination:
            title = destination.encode()
            command += element(0x0600, title + b" " * (len(title) % 2))
        command += element(0x0700, struct.pack("<H", 0)) + element(0x0800, struct.pack("<H", 1))
        self._send(self._contexts[operation], command, identifier)
        outcome = Outcome()
        octets, waiting = 0, None
        for control, part, is_command in self._parts():
            if not is_command:
                octets += len(part)
                if control & LAST and waiting is not None:
                    self._stored(waiting)
                    outcome.instances += 1
                    outcome.octets += octets
                    waiting = None
                continue
            octets, waiting = 0, None
            found = _command(part)
            if found[0x0100] == 0x0001:
                waiting = found
                continue
            outcome.status = found[0x0900]
            if outcome.status not in _PENDING:
                outcome.instances = max(outcome.instances, found.get(0x1021, 0))
                if outcome.status:
                    raise RuntimeError(f"{self._name}: status 0x{outcome.status:04X}")
                return outcome
            outcome.responses += 1
        raise AssertionError("it goes on for ever")

    def _send(self, context: int, command: bytes, data_set: bytes = b"") -> None:
        command = element(0x0000, struct.pack("<I", len(command))) + command
        pdus = pdv_head(len(command), COMMAND | LAST, context) + command
        if data_set:
            pdus += pdv_head(len(data_set), LAST, context) + data_set
        self._socket.sendall(pdus)

    def _stored(self, request: dict[int, int]) -> None:
        command = element(0x0100, struct.pack("<H", 0x8001))
        command += element(0x0120, struct.pack("<H", request[0x0110]))
        command += element(0x0800, struct.pack("<H", 0x0101))
        command += element(0x0900, struct.pack("<H", 0))
        self._send(7, command)


def _command(part: bytes) -> dict[int, int]:
    """Return the US elements of a command set, by element number."""
    found, at = {}, 0
    while at < len(part):
        _, number, length = struct.unpack_from("<HHI", part, at)
        at += 8
        if length == 2:
            (found[number],) = struct.unpack_from("<H", part, at)
        at += length
    return found


def identifier(level: str, **uids: str) -> bytes:
    """Return an identifier with unique keys, in Implicit VR Little Endian.

    Args:
        uids: The values of ``study``, ``series`` and ``instance``; an empty value asks for the attribute.
    """
    tags = {"instance": (0x0008, 0x0018), "study": (0x0020, 0x000D), "series": (0x0020, 0x000E)}
    text = level.encode() + b" " * (len(level) % 2)
    elements = (
        {(0x0008, 0x0052): text, (0x0020, 0x0013): b""}
        if level == "IMAGE"
        else {(0x0008, 0x0052): text}
    )
    elements |= {tags[name]: uid_value(uid) for name, uid in uids.items()}
    return b"".join(
        struct.pack("<HHI", *tag, len(value)) + value for tag, value in sorted(elements.items())
    )
