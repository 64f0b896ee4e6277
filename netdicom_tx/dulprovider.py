"""The upper layer on a Twisted transport: feed bytes, perform outputs, keep ARTIM, relay pressure.

:class:`DULProtocol` decides nothing: :mod:`netdicom_tx.upperlayer` does. The machine's indications
go to a *user*, which in this package is an :class:`~netdicom_tx.asceprovider.Association`.

Outgoing messages queue, and the fragments of two messages never interleave. The protocol is a push
producer of its transport: it writes :data:`TURN` octets of PDUs at a time until the transport has
enough, and goes on when the transport has drained. A data set of any size, and any number of small
responses, therefore cost bounded memory. (A pull producer would be registered anew for each message
and could not hold back a stream of small ones.) For incoming data, the user pauses the transport
for as long as it is behind.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import chain
from typing import Any
from typing import Protocol as TypingProtocol

from twisted.internet import defer
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    IUNIXTransport,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .arguments import check_seconds
from .exceptions import ConnectionLostError, LocalProtocolError
from .fragments import PDU
from .fsm import State
from .logs import Logger
from .pdu import MAXIMUM_CONTROL_PDU_LENGTH, AAssociateAC, AAssociateRJ, AAssociateRQ
from .refusals import Refusal, cut_off, not_asked, tls_failed
from .upperlayer import (
    CloseTransport,
    Indicate,
    Indication,
    Output,
    Send,
    StartARTIM,
    StopARTIM,
    UpperLayer,
)

__all__ = [
    "OUTPUTS_PER_TURN",
    "READ_BUFFER",
    "RECEIVE_LIMIT",
    "TURN",
    "DULAcceptorFactory",
    "DULProtocol",
    "DULRequestorFactory",
    "Timeouts",
    "UpperLayerUser",
    "made_ahead",
]

#: The octets that are read, and held for writing, at a time. Bulk throughput nearly doubles against
#: Twisted's 64 KiB.
READ_BUFFER = 1 << 20

# Each read makes a buffer of that size and gives it back. glibc takes such sizes from the kernel and
# returns them at once, which costs page faults and TLB shootdowns at every read, until a larger one
# has been freed: from then on it keeps them.
_warm_up = bytearray(2 * READ_BUFFER)
del _warm_up

#: The octets of PDUs that are written in one turn and in one system call. A CT image fits, so that
#: its transfer costs one turn of the reactor.
TURN = 3 << 18

#: How many outputs of the machine are performed in one turn of the reactor, for each connection. 1 MiB of large PDVs
#: makes a hundred of them; 1 MiB of tiny ones would take a second, and hold up every other association.
OUTPUTS_PER_TURN = 250

#: The default of the maximum length that we advertise, in octets. PDUs are not buffered, so a large
#: one costs nothing, and peers that send as much as is admitted need fewer headers.
RECEIVE_LIMIT = 1 << 20

_TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)

# The octets of an output that are given to the kernel at once; larger ones are parts of a message, of which each pump
# gives one turn's worth.
_AT_ONCE = 1 << 14
# How many pieces one system call takes (IOV_MAX of Linux, macOS and the BSDs).
_MOST_PIECES = 1024
# How many octets at the beginning of a connection tell which protocol it speaks.
_FIRST_OCTETS = 16
# How many times within its timeout we look at a peer that is behind.
_LOOKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each wait may take, in seconds: numbers greater than 0, and finite.

    Attributes:
        connect: The time from the attempt to the open transport.
        artim: ARTIM (PS3.8 9.1.5): the time from the open transport to a complete A-ASSOCIATE-RQ,
            and from the end of an association to the closed transport.
        associate: The time from A-ASSOCIATE-RQ to its answer.
        response: The time from a request to its response. Each Pending response renews it, and so do
            the instances of a C-GET while they arrive. It is also the time that the handler of a C-STORE, or of
            another request that is not a query or retrieve, still has when the association has ended before it.
        total: The time from a request to its final response, with any number of pending ones.
        handler: The time in which a handler gives no answer to a request of the peer, not even a Pending one, while the
            peer reads. The handler is cancelled then, and the peer gets a failure.
        send: The time in which the peer takes none of the octets that we send. It is noticed up to
            a quarter later.
        release: The time from A-RELEASE-RQ to its answer, and the time that operations for the peer
            still have when either side wants to release.
        idle: The time without anything received and without an operation, for an acceptor. A
            requestor decides itself when to release.

    Raises:
        TypeError: One of them is not a number.
        ValueError: One of them is not greater than 0, or is not finite.
    """

    connect: float = 30
    artim: float = 30
    associate: float = 30
    response: float = 60
    total: float = 86400
    handler: float = 300
    send: float = 60
    release: float = 10
    idle: float = 60

    def __post_init__(self) -> None:
        for each in fields(self):
            check_seconds(f"Timeouts: {each.name}", getattr(self, each.name))


class UpperLayerUser(TypingProtocol):
    """The *service user* of PS3.8, which :class:`DULProtocol` tells what happens."""

    def connected(self, dul: DULProtocol) -> None:
        """The transport is open."""

    def indicated(self, what: Indication) -> None:
        """The machine indicates or confirms this. It may call again before this call returns."""

    def refused(self, refusal: Refusal) -> None:
        """The peer has sent something other than an acceptable association request; the machine has answered it."""

    def stalled(self, seconds: float) -> None:
        """The peer has not taken any of the octets that we send for this many seconds."""

    def sending_failed(self, error: Exception) -> None:
        """The data set of a message could not be read to its end."""

    def disconnected(self, reason: Failure) -> None:
        """The transport is gone. Nothing follows."""


class _Outgoing:
    """A message on its way out."""

    __slots__ = ("on_sent", "pdus")

    def __init__(self, pdus: Iterator[PDU], on_sent: Callable[[], None] | None) -> None:
        self.pdus = pdus
        self.on_sent = on_sent


def made_ahead(pdus: Iterator[PDU]) -> Iterator[PDU]:
    """Make the PDUs that one turn writes now; the others follow lazily."""
    made: list[PDU] = []
    size = 0
    for pdu in pdus:
        made.append(pdu)
        size += _size(pdu)
        if size >= TURN:
            break
    return chain(made, pdus)


def _size(pdu: PDU) -> int:
    return len(pdu[0]) + len(pdu[1]) if isinstance(pdu, tuple) else len(pdu)


@implementer(IPushProducer)
class DULProtocol(Protocol):
    """One transport connection, one upper layer, one user.

    Args:
        machine: A new machine for this side of the connection.
        user: The object that is told what happens.
        clock: The clock of ARTIM and of the other waits.
        timeouts: The timeouts, of which ``artim`` and ``send`` are used.
    """

    _log = Logger()

    def __init__(
        self,
        machine: UpperLayer,
        user: UpperLayerUser,
        *,
        clock: IReactorTime,
        timeouts: Timeouts,
    ) -> None:
        self.machine = machine
        self._user = user
        self._clock = clock
        self._timeouts = timeouts
        self._artim_end: float | None = (
            None  # the clock's time at which ARTIM expires, while it runs
        )
        # What looks whether it has expired. Most associations are over before, so it is set once and cancelled once.
        self._artim: IDelayedCall | None = None
        self._closing: IDelayedCall | None = None
        self._stall: IDelayedCall | None = None
        # What was received and has not been performed: the rest of a segment, and later segments.
        self._outputs: Iterator[Output] | None = None
        self._segments: deque[bytes] = deque()
        self._is_performing_input = False
        self._next_turn: IDelayedCall | None = None
        self._is_paused = False  # by the user
        self._is_dropped = False
        self._is_deaf = False  # to what the peer sends
        self._is_gone = False  # the transport, and the user has been told
        self._lost: Failure | None = None  # the transport, with input still to be performed
        self._queue: deque[_Outgoing] = deque()
        self._is_pumping = False
        self._room = 0  # how many octets this pump may still give to the kernel
        self._is_congested = False
        self._waiting: deque[defer.Deferred[None]] = deque()
        self._quickack: Callable[[], object] | None = None
        self._socket: socket.socket | None = None  # on which octets can be sent past the transport
        self._first_octets = b""
        self._has_refused = False  # and has told the user of it
        #: The clock's time of the last receipt.
        self.last_received = clock.seconds()
        #: Called with the number of octets of each segment that came, when it has been performed.
        self.on_octets: Callable[[int], object] | None = None
        #: The octets that came and went on the transport.
        self.octets_received = 0
        self.octets_sent = 0

    # -- transport to machine ------------------------------------------------------------------

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._tune_transport()
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]  # an IConsumer
        self.last_received = self._clock.seconds()
        self._user.connected(self)
        self._perform(self.machine.transport_opened())

    def _tune_transport(self) -> None:
        transport: Any = self.transport  # its class depends on the reactor and on TLS
        if hasattr(transport, "bufferSize"):
            transport.bufferSize = READ_BUFFER
        if hasattr(transport, "SEND_LIMIT"):
            transport.SEND_LIMIT = TURN
        if ITCPTransport.providedBy(transport):
            # Without this, the second of two small writes waits for the peer's delayed
            # acknowledgement, 40 ms.
            transport.setTcpNoDelay(True)
            # A peer that has lost power does not close the connection, and while a handler works, its silence
            # means nothing.
            transport.setTcpKeepAlive(True)
            handle = self.transport.getHandle()  # type: ignore[union-attr]
            if not isinstance(handle, socket.socket):
                return  # over TLS the handle is no socket
            if hasattr(handle, "sendmsg"):
                self._socket = handle
            # Twisted regards a local socket as one of TCP, which the kernel does not.
            if _TCP_QUICKACK is not None and not IUNIXTransport.providedBy(transport):
                self._quickack = partial(handle.setsockopt, socket.IPPROTO_TCP, _TCP_QUICKACK, 1)

    def dataReceived(self, data: bytes) -> None:
        self.last_received = self._clock.seconds()
        before = self.octets_sent
        if self.octets_received < _FIRST_OCTETS:
            self._first_octets += data[:_FIRST_OCTETS]
        self.octets_received += len(data)
        if self._is_deaf:
            return
        self._segments.append(data)
        if self._next_turn is None and not self._is_performing_input:
            self._perform_input()
        # A sender with Nagle's algorithm on (DCMTK's as shipped) waits for our acknowledgement. An answer has carried
        # it; otherwise it is sent now. The kernel leaves this mode by itself, so it is set each time.
        if self._quickack is not None and self.octets_sent == before:
            self._quickack()
        if self.on_octets is not None:
            self.on_octets(len(data))

    def _perform_input(self) -> bool:
        """Perform what was received, up to a turn's worth; the transport waits for the rest.

        Returns:
            Whether it was all.
        """
        left = OUTPUTS_PER_TURN
        self._is_performing_input = True
        try:
            while left and (self._outputs is not None or self._segments):
                if self._outputs is None:
                    self._outputs = self.machine.receive_data(self._segments.popleft())
                for output in self._outputs:
                    self._perform_output(output)
                    left -= 1
                    if not left:
                        break
                else:
                    self._outputs = None
        finally:
            self._is_performing_input = False
        if self._queue and not self.machine.may_send_data:
            self._drop_queue()
        if self.machine.refusal:
            self._refuse(not_asked(self._first_octets, self.machine.refusal))
        if left:
            return True
        assert self.transport is not None
        self.transport.pauseProducing()  # type: ignore[attr-defined]  # an IPushProducer
        self._next_turn = self._clock.callLater(0, self._perform_more_input)
        return False

    def _perform_more_input(self) -> None:
        self._next_turn = None
        try:
            if not self._perform_input():
                return
        except Exception:  # as Twisted does it for an exception of dataReceived
            self._log.failure("what the peer sent could not be handled; the connection is dropped")
            self.abort_transport()
        if self._lost is not None:
            self._end(self._lost)
        elif not (self._is_paused or self._is_dropped):
            assert self.transport is not None
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # an IPushProducer

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._next_turn is not None and (self._outputs is not None or self._segments):
            self._lost = reason  # the input that came before still counts
        else:
            self._end(reason)

    def _end(self, reason: Failure) -> None:
        self._is_gone = True
        if self.machine.state is State.Sta2 and not self._is_dropped:
            self._missed(reason)
        for call in (self._artim, self._closing, self._stall, self._next_turn):
            if call is not None and call.active():
                call.cancel()
        failed = self._tls_failed(reason)
        if failed is not None:
            # OpenSSL's own words are a list of tuples.
            reason = Failure(ConnectionLostError(f"TLS: {failed}"))
        self._perform(self.machine.transport_closed(reason.getErrorMessage()))
        # Connections are garbage in circles, which may stay in memory for a while.
        self._segments.clear()
        self.machine.discard()
        self._drop_queue()
        self._user.disconnected(reason)

    def _missed(self, reason: Failure) -> None:
        """The connection ends without an association request."""
        end = "before the connection was closed"
        self._refuse(self._tls_failed(reason) or cut_off(self.octets_received, end))

    def _tls_failed(self, reason: Failure) -> Refusal | None:
        is_client = self.machine.is_requestor
        return tls_failed(reason.value, self.transport, is_client=is_client)

    def _refuse(self, refusal: Refusal) -> None:
        if not self._has_refused:
            self._has_refused = True
            self._user.refused(refusal)

    # -- machine to transport ------------------------------------------------------------------

    def _perform(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self._perform_output(output)

    def _perform_output(self, output: Output) -> None:
        if isinstance(output, Indicate):
            self._user.indicated(output.what)
        elif isinstance(output, Send):
            self._write(output.data)
        elif output is StartARTIM:
            if not self._is_gone:  # writing the PDU before it may have ended the connection
                self._artim_end = self._clock.seconds() + self._timeouts.artim
                if self._artim is None:
                    self._artim = self._clock.callLater(self._timeouts.artim, self._look_at_artim)
        elif output is StopARTIM:
            self._artim_end = None
        elif (
            output is CloseTransport
        ):  # pragma: no branch - the endpoint has performed OpenTransport
            self._close(self._timeouts.artim)

    def _write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write octets; give them to the kernel at once when nothing is before them.

        The transport would copy them, and wait for the reactor to say that the socket is writable, which costs more
        than all else that a small answer costs. A peer that waits for a large message has it earlier.
        """
        assert self.transport is not None
        size = sum(map(len, pieces))
        self.octets_sent += size
        if self._socket is not None and (size <= _AT_ONCE or self._room > 0) and self._is_free:
            self._room -= size
            taken = _give(self._socket, pieces)
            if taken == size:
                return
            if taken:
                pieces = _behind(pieces, taken)
        self.transport.write(b"".join(pieces))

    @property
    def _is_free(self) -> bool:
        """Whether nothing waits in the transport, so that octets may go out past it."""
        transport: Any = self.transport  # its attributes depend on its class
        return (
            transport.connected
            and not (transport.dataBuffer or transport.disconnecting)
            # Where this attribute has another name, the transport writes as it always does.
            and not getattr(transport, "_tempDataBuffer", True)
        )

    def _look_at_artim(self) -> None:
        """The time for which ARTIM was first set is over; it may have been stopped since, and started anew."""
        self._artim = None
        if self._artim_end is None:
            return
        left = self._artim_end - self._clock.seconds()
        if left > 0:
            self._artim = self._clock.callLater(left, self._look_at_artim)
            return
        self._artim_end = None
        self._log.debug("ARTIM expired in {state}", state=self.machine.state.name)
        if self.machine.state is State.Sta2:
            self._refuse(cut_off(self.octets_received, f"within {self._timeouts.artim:g} s"))
        self._perform(self.machine.artim_expired())

    def _close(self, seconds: float) -> None:
        assert self.transport is not None
        was_congested = self._is_congested
        # A transport does not close before its producer is done.
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # an IConsumer
        # The user may have paused it, and a paused transport would not notice that the peer closes.
        self.transport.resumeProducing()  # type: ignore[attr-defined]  # an IPushProducer
        if was_congested:
            self.abort_transport()
            return
        # A peer that takes nothing any more must not keep the connection open.
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._closing = self._clock.callLater(seconds, self.abort_transport)
        self.transport.loseConnection()

    def hang_up(self, seconds: float) -> None:
        """Close the connection when what was written has gone out, whatever the peer does.

        What comes from the peer is not looked at any more: a peer that sends as fast as it can must not hold up the end
        of all others.

        Args:
            seconds: The time after which the connection is dropped.
        """
        if not self._is_gone:
            self._is_deaf = True
            self._outputs = None
            self._segments.clear()
            self._close(seconds)

    def abort_transport(self) -> None:
        """Drop the connection, with all that is unsent, or received but not performed."""
        self._outputs = None
        self._segments.clear()
        self._is_dropped = True
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # an ITCPTransport

    # -- the user's requests -------------------------------------------------------------------

    @property
    def peer(self) -> IAddress | None:
        """The address of the peer, by the transport."""
        return self.transport.getPeer() if self.transport is not None else None

    def accept(self, answer: AAssociateAC) -> None:
        self._perform(self.machine.accept(answer))

    def reject(self, answer: AAssociateRJ) -> None:
        self._perform(self.machine.reject(answer))

    def release(self) -> None:
        self._perform(self.machine.release())

    def answer_release(self) -> None:
        self._perform(self.machine.answer_release())

    def abort(self) -> None:
        """Send A-ABORT, in any state in which there is something to abort."""
        if self.machine.may_abort:
            self._perform(self.machine.abort())
        self._drop_queue()

    def invalid(self, error: Exception) -> None:
        """Send A-P-ABORT because the peer's data breaks a rule that only the user can check."""
        self._perform(self.machine.invalid_data(error))
        self._drop_queue()

    def pause_reading(self) -> None:
        """Stop reading, so that the peer must wait."""
        self._is_paused = True
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # an IPushProducer

    def resume_reading(self) -> None:
        """Continue reading."""
        self._is_paused = False
        if self.transport is not None and not self.machine.is_over:
            self.last_received = self._clock.seconds()
            if self._next_turn is None:
                self.transport.resumeProducing()  # type: ignore[attr-defined]  # an IPushProducer

    # -- messages out --------------------------------------------------------------------------

    @property
    def is_congested(self) -> bool:
        """Whether a message that is sent now has to wait until the peer takes earlier ones."""
        return self._is_congested or bool(self._queue)

    @property
    def unsent(self) -> int:
        """The octets that the transport and the kernel hold and the peer's kernel does not have yet.

        On a system that is not Linux, and without a socket, the kernel's part is unknown and counts 0.
        """
        transport: Any = self.transport  # its attributes depend on its class
        descriptor = transport.fileno() if hasattr(transport, "fileno") else -1
        return self._buffered + (_held_by_kernel(descriptor) if descriptor >= 0 else 0)

    @property
    def held(self) -> int:
        """The octets in memory that were received and not performed, or written and not taken by the kernel."""
        return self.machine.held + sum(map(len, self._segments)) + self._buffered

    @property
    def _buffered(self) -> int:
        # The octets that the transport holds and the kernel has not taken.
        transport: Any = self.transport  # its attributes depend on its class
        return len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)

    def send_message(
        self,
        pdus: Iterator[PDU] | bytes,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        """Queue the PDUs of a message. They are made when there is room for them.

        Args:
            pdus: Encoded P-DATA-TF PDUs. The first one, which begins the command set, is made at
                once. Octets are all PDUs of a small message.
            on_sent: A function that is called when the last PDU has been handed to the transport,
                perhaps before this method returns. It is not called when the association ends
                before.

        Raises:
            LocalProtocolError: The state admits no message, or the command set cannot be encoded.
                Nothing of the message is sent.
        """
        if not self.machine.may_send_data:
            raise LocalProtocolError(
                f"no message can be sent in {self.machine.state.name} ({self.machine.state.value}); "
                "expected an established association"
            )
        if not isinstance(pdus, bytes):
            pdus = chain((next(pdus, b""),), pdus)
        elif not (self._queue or self._is_congested or self._is_pumping):
            # Nothing waits, so nothing has to be queued.
            for output in self.machine.send_data((pdus,)):
                self._perform_output(output)
            if on_sent is not None:
                on_sent()
            return
        else:
            pdus = iter((pdus,))
        self._queue.append(_Outgoing(pdus, on_sent))
        self._pump()

    def when_writable(self) -> defer.Deferred[None]:
        """Wait for the end of :attr:`is_congested`.

        Returns:
            A Deferred that fires with None when it has ended. It is cancelled when the association
            ends before. Cancelling it forgets the wait and changes nothing else.
        """
        if not self.is_congested:
            return defer.succeed(None)
        waiting: defer.Deferred[None] = defer.Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def _pump(self) -> None:
        if self._is_pumping:
            return
        self._is_pumping = True
        self._room = TURN
        try:
            while not self._is_congested:
                if self._queue and self.machine.may_send_data:
                    self._write_turn()
                elif self._waiting and not self._queue:
                    # They are fired one after the other: the first may fill the room again.
                    self._waiting.popleft().callback(None)
                else:
                    break
        finally:
            self._is_pumping = False
            self._room = 0

    def _write_turn(self) -> None:
        """Write up to TURN octets, of as many messages as there are."""
        turn: list[bytes | bytearray | memoryview] = []
        sent: list[_Outgoing] = []
        size = 0
        while self._queue and size < TURN:
            outgoing = self._queue[0]
            try:
                pdu = next(outgoing.pdus, None)
            except (
                Exception
            ) as error:  # raised by the file of the data set, or by an object that stands for one
                self._log.failure("a message could not be sent to its end")
                self._user.sending_failed(error)
                self._drop_queue()
                return
            if pdu is None:
                self._queue.popleft()
                sent.append(outgoing)
            else:
                turn.extend(pdu if isinstance(pdu, tuple) else (pdu,))
                size += _size(pdu)
        if turn:
            self._perform(self.machine.send_data(turn))
        for outgoing in sent:
            if outgoing.on_sent is not None:
                outgoing.on_sent()

    def _drop_queue(self) -> None:
        self._queue.clear()
        while self._waiting:
            self._waiting[0].cancel()

    def pauseProducing(self) -> None:
        """The transport holds enough (IPushProducer)."""
        if not self._is_congested:
            self._is_congested = True
            self._watch_stall(self.unsent, self._clock.seconds())

    def resumeProducing(self) -> None:
        """The transport has room again (IPushProducer)."""
        self._is_congested = False
        if self._stall is not None and self._stall.active():
            self._stall.cancel()
        self._pump()

    def stopProducing(self) -> None:
        """The transport is gone (IPushProducer). connectionLost does the rest."""

    def _watch_stall(self, unsent: int, since: float) -> None:
        """Notice a peer that takes nothing. A peer that takes some octets is slow, but not stalled."""
        now = self._clock.seconds()
        if unsent != self.unsent:
            unsent, since = self.unsent, now
        left = since + self._timeouts.send - now
        if left > 0:
            self._stall = self._clock.callLater(
                min(left, self._timeouts.send / _LOOKS), self._watch_stall, unsent, since
            )
        else:
            self._user.stalled(self._timeouts.send)


def _give(to: socket.socket, pieces: Sequence[bytes | bytearray | memoryview]) -> int:
    """Give octets to the kernel, and return how many it has taken."""
    try:
        if len(pieces) == 1:
            return to.send(pieces[0])
        return to.sendmsg(pieces if len(pieces) <= _MOST_PIECES else (b"".join(pieces),))
    except OSError:
        # Its buffer is full, or the connection is lost, which the transport finds out by itself.
        return 0


def _behind(
    pieces: Sequence[bytes | bytearray | memoryview], taken: int
) -> list[bytes | bytearray | memoryview]:
    """What is left of pieces when the first octets have been taken."""
    for number, piece in enumerate(pieces):
        if taken < len(piece):
            return [memoryview(piece)[taken:], *pieces[number + 1 :]]
        taken -= len(piece)
    return []


if sys.platform == "linux":
    import fcntl
    import termios

    def _held_by_kernel(descriptor: int) -> int:
        """The octets that the peer has not acknowledged (SIOCOUTQ, the same number as TIOCOUTQ)."""
        answer: bytes = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

else:  # pragma: no cover - tests run on Linux

    def _held_by_kernel(descriptor: int) -> int:
        return 0


class DULAcceptorFactory(Factory):
    """Makes the protocol of each incoming connection.

    Args:
        make_user: A function that makes the user for a connection, the acceptor's side of an
            association.
        clock: The clock of all waits.
        receive_limit: The most octets that we admit in a P-DATA-TF; 0 means no limit.
        associate_limit: The most octets that we admit in an A-ASSOCIATE-RQ.
        timeouts: The timeouts of the connections to come.
    """

    noisy = False

    def __init__(
        self,
        make_user: Callable[[], UpperLayerUser],
        *,
        clock: IReactorTime,
        receive_limit: int = RECEIVE_LIMIT,
        associate_limit: int = MAXIMUM_CONTROL_PDU_LENGTH,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._make_user = make_user
        self._clock = clock
        self.receive_limit = receive_limit
        self.associate_limit = associate_limit
        self.timeouts = timeouts or Timeouts()

    def buildProtocol(self, addr: IAddress | None) -> DULProtocol:
        protocol = DULProtocol(
            UpperLayer(
                is_requestor=False,
                receive_limit=self.receive_limit,
                associate_limit=self.associate_limit,
            ),
            self._make_user(),
            clock=self._clock,
            timeouts=self.timeouts,
        )
        protocol.factory = self
        return protocol


class DULRequestorFactory(ClientFactory):
    """Makes the protocol of one outgoing connection, whose A-ASSOCIATE-RQ is already known."""

    noisy = False

    def __init__(
        self,
        request: AAssociateRQ,
        user: UpperLayerUser,
        *,
        clock: IReactorTime,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._request = request
        self._user = user
        self._clock = clock
        self._timeouts = timeouts or Timeouts()

    def buildProtocol(self, addr: IAddress | None) -> DULProtocol:
        machine = UpperLayer(is_requestor=True, receive_limit=self._request.maximum_length)
        protocol = DULProtocol(machine, self._user, clock=self._clock, timeouts=self._timeouts)
        # Evt1 and AE-1: the transport that the action opens is the one being built.
        for _ in machine.associate(self._request):
            pass
        protocol.factory = self
        return protocol
