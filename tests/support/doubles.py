"""Doubles for the tests of the shell: peers that speak octets, a node in memory, a watch on the log.

The transports are those of :mod:`netdicom_tx.testing`, time is a Clock: whatever an input causes has
happened when the call that made it returns.
"""

from __future__ import annotations

import errno
import io
import struct
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

import pytest
from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from netdicom_tx import (
    AE,
    PContextDef,
    RemoteAE,
    Window,
    applicationentity,
    store_in_file,
    verification_scp,
)
from netdicom_tx.asceprovider import Association
from netdicom_tx.dimsemessages import CEchoRQ, CFindRQ, CStoreRQ, Message, decode_command
from netdicom_tx.fragments import fragment
from netdicom_tx.memory import MemoryTransport, Wire, join
from netdicom_tx.pdu import (
    AAssociateAC,
    AAssociateRQ,
    PresentationContextAC,
    PresentationContextRQ,
)
from netdicom_tx.testing import success_of
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    MaximumLength,
    UserDataItem,
    UserIdentity,
)

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
COMMITMENT = "1.2.840.10008.1.20.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

#: PDU types (PS3.8 9.3.1).
RQ, AC, RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

Contexts = Mapping[str, Sequence[str]] | Sequence[tuple[str, Sequence[str]]]
_T = TypeVar("_T")


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that has all it waits for."""
    return success_of(defer.Deferred.fromCoroutine(coroutine))


# -- octets -------------------------------------------------------------------------------------------


def pdu(kind: int, body: bytes = bytes(4), length: int | None = None) -> bytes:
    """A PDU by hand; ``length`` is what its header says."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def pdv(context_id: int, flags: int, value: bytes, length: int | None = None) -> bytes:
    """A PDV by hand; flags: 1 command, 2 last."""
    said = len(value) + 2 if length is None else length
    return struct.pack(">IBB", said, context_id, flags) + value


def p_data(context_id: int, flags: int, value: bytes) -> bytes:
    """A P-DATA-TF of one PDV."""
    return pdu(DATA, pdv(context_id, flags, value))


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """An item by hand."""
    return struct.pack(">BxH", kind, len(body) if length is None else length) + body


def message(what: Message, context_id: int = 1) -> bytes:
    """A DIMSE message as P-DATA-TF PDUs."""
    return b"".join(fragment(what, context_id=context_id, limit=0))


def element(number: int, value: bytes) -> bytes:
    """An element of a command set by hand."""
    return struct.pack("<HHI", 0, number, len(value)) + value


def command(*elements: tuple[int, bytes], group_length: int | None = None) -> bytes:
    """A command set by hand."""
    body = b"".join(element(number, value) for number, value in elements)
    said = len(body) if group_length is None else group_length
    return element(0, struct.pack("<I", said)) + body


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def echo_rq(message_id: int = 1) -> CEchoRQ:
    return CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=message_id)


def store_rq(message_id: int = 1, data: Any = b"\0" * 8, uid: str = "1.2.3") -> CStoreRQ:
    return CStoreRQ(
        affected_sop_class_uid=CT,
        affected_sop_instance_uid=uid,
        message_id=message_id,
        data_set=data,
    )


def find_rq(message_id: int | None = None, identifier: bytes = b"\0" * 8) -> CFindRQ:
    return CFindRQ(affected_sop_class_uid=FIND, message_id=message_id, data_set=identifier)


def request(
    contexts: Mapping[str, Sequence[str]] | None = None,
    *items: UserDataItem,
    **fields: Any,
) -> AAssociateRQ:
    """An A-ASSOCIATE-RQ whose contexts are numbered 1, 3, 5, ..."""
    wanted = {VERIFICATION: [IMPLICIT]} if contexts is None else contexts
    proposed = tuple(
        PresentationContextRQ(2 * n + 1, abstract, tuple(transfer))
        for n, (abstract, transfer) in enumerate(wanted.items())
    )
    fields = {"called_ae_title": "NODE", "calling_ae_title": "PEER"} | fields
    return AAssociateRQ(
        presentation_contexts=proposed,
        user_information=items or (MaximumLength(0),),
        **fields,
    )


def acceptance(asked: AAssociateRQ, *items: UserDataItem, **fields: Any) -> AAssociateAC:
    """The answer that accepts each context with its first transfer syntax."""
    return AAssociateAC(
        presentation_contexts=tuple(
            PresentationContextAC(each.context_id, 0, each.transfer_syntaxes[0])
            for each in asked.presentation_contexts
        ),
        user_information=items or (MaximumLength(0),),
        **fields,
    )


# -- peers -------------------------------------------------------------------------------------------


class RawPeer(Protocol):
    """The other end of a connection: it sends what it is told, and keeps what it gets."""

    transport: MemoryTransport

    def __init__(self) -> None:
        self.received = bytearray()
        self.is_lost = False
        self._seen = 0

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True

    def send(self, *parts: Any) -> None:
        """Octets, PDUs, or messages (on context 1); in one segment."""
        self.transport.write(b"".join(_octets(part) for part in parts))

    def take(self) -> list[tuple[int, bytes]]:
        """(type, variable field) of the whole PDUs that came since the last call."""
        found = []
        while len(self.received) - self._seen >= 6:
            kind, length = struct.unpack_from(">BxI", self.received, self._seen)
            end = self._seen + 6 + length
            if end > len(self.received):
                break
            found.append((kind, bytes(self.received[self._seen + 6 : end])))
            self._seen = end
        return found

    def kinds(self) -> list[int]:
        """Types of the PDUs that came since the last call."""
        return [kind for kind, _ in self.take()]

    def messages(self) -> list[Any]:
        """The DIMSE messages that came since the last call, without their data sets."""
        found = []
        for kind, body in self.take():
            assert kind == DATA, f"PDU type {kind:02X}H among messages: {body!r}"
            length, _, flags = struct.unpack_from(">IBB", body)
            assert length + 4 == len(body)
            if flags & 1:
                found.append(decode_command(body[6:])[0])
        return found

    def statuses(self) -> list[int]:
        """Statuses of the responses that came since the last call."""
        return [each.status for each in self.messages()]

    def abort(self) -> tuple[int, int]:
        """Source and reason of the A-ABORT that came, alone, since the last call."""
        ((kind, body),) = self.take()
        assert kind == ABORT, f"PDU type {kind:02X}H, expected A-ABORT"
        return body[2], body[3]

    def rejection(self) -> tuple[int, int, int]:
        """Result, source and reason of the A-ASSOCIATE-RJ that came, alone."""
        ((kind, body),) = self.take()
        assert kind == RJ, f"PDU type {kind:02X}H, expected A-ASSOCIATE-RJ"
        return body[1], body[2], body[3]


def _octets(part: Any) -> bytes:
    if isinstance(part, bytes | bytearray):
        return bytes(part)
    if isinstance(part, Message):
        return message(part)
    encoded: bytes = part.encode()
    return encoded


class Node:
    """An AE whose peers are raw; each connection is a new pair of queues."""

    ae: applicationentity.AE

    def __init__(self, ae: applicationentity.AE | None = None) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock)
        self.ae = AE("NODE").add_scp(verification_scp) if ae is None else ae
        self.ae._reactor = self.clock

    def connect(self) -> RawPeer:
        """A new connection to the node."""
        peer = RawPeer()
        join(peer, self.ae.acceptor_factory().buildProtocol(None), self.wire)
        return peer

    def associate(
        self, contexts: Mapping[str, Sequence[str]] | None = None, *items: UserDataItem
    ) -> RawPeer:
        """A new, accepted association with the node."""
        peer = self.connect()
        peer.send(request(contexts, *items))
        assert peer.kinds() == [AC]
        return peer

    def association(self) -> Association:
        """The only one of the node."""
        (asce,) = self.ae.associations
        return asce

    def advance(self, seconds: float) -> None:
        """Let time pass, and deliver what that causes."""
        self.clock.advance(seconds)
        self.wire.run()

    def lives(self) -> bool:
        """Whether C-ECHO on a new association succeeds."""
        peer = self.associate()
        peer.send(echo_rq())
        answered = peer.statuses() == [0]
        peer.send(pdu(RELEASE_RQ))
        return answered and peer.kinds() == [RELEASE_RP]


@implementer(IStreamClientEndpoint)
class Line:
    """An endpoint that leads to a raw peer in memory."""

    def __init__(self, wire: Wire, peer: Protocol) -> None:
        self._wire = wire
        self._peer = peer

    def connect(self, protocolFactory: IProtocolFactory) -> defer.Deferred[Any]:
        client = protocolFactory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 0))
        assert client is not None
        join(client, self._peer, self._wire)
        return defer.succeed(client)


class Caller:
    """An AE that requests an association of a raw peer.

    Args:
        contexts: None proposes Verification; with ``registered`` what the AE has.

    Attributes:
        opening: What ``request_association`` gave.
        asked: The A-ASSOCIATE-RQ.
    """

    def __init__(
        self,
        ae: AE | None = None,
        contexts: Contexts | None = None,
        *,
        registered: bool = False,
        identity: UserIdentity | None = None,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock)
        self.peer = RawPeer()
        self.ae = AE("CALLER") if ae is None else ae
        self.ae._reactor = self.clock
        self.remote = RemoteAE("PEER", Line(self.wire, self.peer), identity)
        wanted = contexts
        if contexts is None and not registered and "for_files" not in options:
            wanted = {VERIFICATION: [IMPLICIT]}
        self.opening = self.ae.request_association(self.remote, wanted, **options)
        ((kind, body),) = self.peer.take()
        assert kind == RQ
        self.asked = AAssociateRQ.decode(body)

    def accept(self, *items: UserDataItem, **fields: Any) -> Association:
        """Let the peer accept all that was proposed."""
        self.peer.send(acceptance(self.asked, *items, **fields))
        return success_of(self.opening)

    def advance(self, seconds: float) -> None:
        """Let time pass, and deliver what that causes."""
        self.clock.advance(seconds)
        self.wire.run()


def calling(
    contexts: Contexts | None = None,
    ae: AE | None = None,
    items: Iterable[UserDataItem] = (),
    **options: Any,
) -> tuple[Caller, Association]:
    """A requestor with an established association to a raw peer."""
    caller = Caller(ae, contexts, **options)
    return caller, caller.accept(*items)


# -- services and requests ------------------------------------------------------------------------------


def context(asce: Association, sop_class: str = VERIFICATION) -> PContextDef:
    return asce.contexts_for(sop_class)[0]


def echo(asce: Association, message_id: int | None = None, **options: Any) -> Any:
    return asce.request(
        CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=message_id),
        context(asce),
        **options,
    )


def wide(invoked: int = 3, performed: int = 3) -> tuple[Caller, Association]:
    """A requestor that may have so many requests outstanding."""
    ae = AE("CALLER", window=Window(invoked, performed))
    return calling(
        ae=ae, items=(MaximumLength(0), AsynchronousOperationsWindow(invoked, performed))
    )


class Slow:
    """A service whose answers the test gives, each when it likes."""

    def __init__(self) -> None:
        self.running: dict[int, defer.Deferred[int]] = {}
        self.cancelled: list[int] = []

    def __call__(self, asce: Association, ctx: PContextDef, msg: Any) -> defer.Deferred[int]:
        def cancel(_: object) -> None:
            self.cancelled.append(msg.message_id)

        self.running[msg.message_id] = defer.Deferred(cancel)
        return self.running[msg.message_id]

    def answer(self, message_id: int, status: int = 0) -> None:
        self.running.pop(message_id).callback(status)


def serving(service: Any, *uids: str, **options: Any) -> Node:
    """A node with this service."""
    return Node(AE("NODE", **options).add_scp(service, uids or [VERIFICATION]))


class File(io.BytesIO):
    """A file that fails where it is told to, and says when it is closed."""

    def __init__(self, *failing: str, error: Exception | None = None) -> None:
        super().__init__()
        self._failing = failing
        self._error = error or OSError(errno.ENOSPC, "no space left")

    def _try(self, what: str) -> None:
        if what in self._failing:
            raise self._error

    def write(self, data: Any) -> int:
        self._try("write")
        return super().write(data)

    def seek(self, *where: int) -> int:
        self._try("seek")
        return super().seek(*where)

    def close(self) -> None:
        super().close()
        self._try("close")


class Keeper(AE):
    """Receives data sets into files that the test has made."""

    def __init__(self, *files: Any, start: int = 0) -> None:
        super().__init__("NODE")
        self.files = list(files)
        self.start = start
        self.seen: list[bytes] = []
        self.answer: Any = 0

        @store_in_file
        def keep(asce: Association, ctx: PContextDef, msg: Any) -> Any:
            self.seen.append(msg.data_set.read())
            return self.answer

        self.add_scp(keep, [CT])

    def get_file(
        self, asce: Association, context: PContextDef, command_set: Any
    ) -> tuple[BinaryIO, int]:
        assert command_set.data_set is None
        file = self.files.pop(0)
        if isinstance(file, Exception):
            raise file
        return file, self.start


def keeping(*files: Any, **options: Any) -> tuple[Node, Keeper, RawPeer]:
    ae = Keeper(*files, **options)
    node = Node(ae.add_scp(verification_scp))
    return node, ae, node.associate({CT: [IMPLICIT], VERIFICATION: [IMPLICIT]})


# -- the log -----------------------------------------------------------------------------------------


class LoggedFailures(list[LogEvent]):
    """Errors in the log; a test that expects one takes it."""

    def texts(self) -> list[str]:
        """The text of each failure, and forget them."""
        found = [
            str(event["log_failure"].value) if "log_failure" in event else event["log_format"]
            for event in self
        ]
        self.clear()
        return found


@pytest.fixture(autouse=True, name="failures")
def logged_failures() -> Iterator[LoggedFailures]:
    """What was logged as an error; a test fails that leaves some behind."""
    seen = LoggedFailures()

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            seen.append(event)

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)
    assert not seen.texts()


@pytest.fixture(name="lines")
def logged_lines() -> Iterator[list[str]]:
    """The lines that are logged."""
    found: list[str] = []

    @provider(ILogObserver)
    def note(event: LogEvent) -> None:
        found.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    yield found
    globalLogPublisher.removeObserver(note)
