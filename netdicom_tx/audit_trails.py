"""Where audit messages go: to a file, or to a syslog server (PS3.15 A.6, A.7; RFC 5424 to 5426).

A trail never makes anybody wait. A file is written by a thread. Messages for a syslog server wait in a queue while it
cannot be reached; when that is full, the oldest are lost. The log says when that begins, and when it ends how many
were lost.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from twisted.application.internet import ClientService
from twisted.internet import defer
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ISSLTransport
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from .audit import AuditSource
from .exceptions import LocalProtocolError
from .logs import Logger
from .tls import TLSOptions

__all__ = [
    "QUEUE_LIMIT",
    "FileTrail",
    "SyslogTrail",
    "Trail",
    "check_syslog",
    "frame",
    "syslog_trail",
]

#: How many messages wait for a disk that hangs, or for a syslog server that takes none.
QUEUE_LIMIT: Final = 10_000
# RFC 5424 6.2.1: facility 10, security and authorization; severity 5, notice.
_PRIORITY: Final = 10 * 8 + 5
# PS3.15 A.6: the MSGID of audit messages.
_MESSAGE_ID: Final = "DICOM+RFC3881"
_BOM: Final = b"\xef\xbb\xbf"
_PORTS: Final = {"tls": 6514, "tcp": 601, "udp": 514}
_ADDRESS: Final = re.compile(r"(tls|tcp|udp)://(\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+)(?::([0-9]+))?")
# For how many seconds a stop waits for a server to take the last messages.
_LAST: Final = 5.0
# For how many seconds the log does not repeat that a server is away, which may accept and close each connection.
_QUIET: Final = 60.0


class Trail(Protocol):
    """Something that keeps audit messages."""

    def write(self, message: bytes) -> None:
        """Keep a message, without making anybody wait."""

    def start(self) -> None:
        """Begin to keep messages."""

    def stop(self) -> defer.Deferred[None]:
        """Keep what waits, and end; fires when that is done."""


class FileTrail:
    """Appends messages to a file, one in each line, which others than its owner cannot read.

    The file is opened anew for each group of messages, so it can be renamed at any time, as logrotate does.

    Args:
        path: The file; it is created if it does not exist.
    """

    _log = Logger()

    def __init__(self, path: str) -> None:
        self._path = path
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._dropped = 0
        self._is_torn = False

    def start(self) -> None:
        """Begin to write.

        Raises:
            OSError: The file cannot be opened.
        """
        self.check()
        self._thread = threading.Thread(target=self._run, name="netdicom-audit", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make the file, if it does not exist.

        Raises:
            OSError: It cannot be opened.
        """
        os.close(self._open())

    def write(self, message: bytes) -> None:
        if self._messages.qsize() < QUEUE_LIMIT:
            self._messages.put(message)
            return
        # The disk hangs, and the thread with it.
        if not self._dropped:
            self._log.error(
                "the audit trail {path} takes no messages, and {limit} wait; further ones are lost",
                path=self._path,
                limit=QUEUE_LIMIT,
            )
        self._dropped += 1

    def stop(self) -> defer.Deferred[None]:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._messages.put(None)
            thread.join(_LAST)
            if thread.is_alive():
                self._log.error(
                    "the audit trail {path} cannot be written, because the disk does not answer; what waits is lost",
                    path=self._path,
                )
        return defer.succeed(None)

    def _open(self) -> int:
        # Without O_NONBLOCK, the node would wait for somebody who reads when the file is a named pipe.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self._path, flags, 0o600)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            group = [self._messages.get()]
            while not self._messages.empty():
                group.append(self._messages.get())
            is_last = group[-1] is None
            self.append([each for each in group if each is not None])

    @property
    def lost(self) -> int:
        """How many messages were lost since the file could be written last."""
        return self._lost

    def append(self, messages: list[bytes]) -> None:
        """Write messages now, in this thread; for a program that may wait, and does not start the trail."""
        # A line that a full disk has cut is ended first, so that the next message is on a line of its own.
        octets = (b"\n" if self._is_torn else b"") + b"".join(each + b"\n" for each in messages)
        left = memoryview(octets)
        try:
            descriptor = self._open()
            try:
                while left:
                    left = left[os.write(descriptor, left) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            if not self._lost:
                self._log.error(
                    "the audit trail {path} cannot be written: {error}; its messages are lost until it can",
                    path=self._path,
                    error=error,
                )
            written = octets[: len(octets) - len(left)]
            if written:
                self._is_torn = not written.endswith(b"\n")
            self._lost += bytes(left).count(b"\n")
            return
        self._is_torn = False
        dropped, self._dropped = self._dropped, 0
        if self._lost or dropped:
            self._log.warn(
                "the audit trail {path} is written again; {lost} messages were lost",
                path=self._path,
                lost=self._lost + dropped,
            )
            self._lost = 0


def frame(source: AuditSource, message: bytes) -> bytes:
    """A syslog message (RFC 5424) of an audit message, as PS3.15 A.6 wants it."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = f"<{_PRIORITY}>1 {when} {source.host} netdicom_tx {source.process} {_MESSAGE_ID} - "
    return header.encode("ascii", "replace") + _BOM + message


@implementer(IPushProducer)
class _Connection(TwistedProtocol):
    """A connection to a syslog server: octet counting (RFC 6587 3.4.1, RFC 5425 4.3).

    Attributes:
        is_free: Whether the server takes what is sent; if it does not, nothing more is given to the transport.
    """

    transport: Any  # of TCP or TLS

    def __init__(self, trail: SyslogTrail) -> None:
        self._trail = trail
        self.is_free = True

    def connectionMade(self) -> None:
        if not ISSLTransport.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """The server can be trusted: what is sent during a handshake that fails would be lost."""
        self.transport.registerProducer(self, True)
        self._trail.connected(self)

    def pauseProducing(self) -> None:
        self.is_free = False

    def resumeProducing(self) -> None:
        self.is_free = True
        self._trail.send_waiting()

    def stopProducing(self) -> None:
        self.is_free = False

    def last(self) -> None:
        """Nothing more comes, except for what waits."""
        self.transport.unregisterProducer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._trail.disconnected(reason)

    def send(self, framed: bytes) -> None:
        """Send a message."""
        self.transport.write(b"%d " % len(framed) + framed)


class _HandshakeEndpoint:
    """An endpoint of TLS whose protocols learn that the handshake has succeeded.

    A :class:`~twisted.application.internet.ClientService` puts a proxy before its protocols, which does not declare it.
    """

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        build = factory.buildProtocol

        def listening(address: Any) -> Any:
            protocol = build(address)
            alsoProvides(protocol, IHandshakeListener)
            return protocol

        factory.buildProtocol = listening
        return self._endpoint.connect(factory)


class SyslogTrail:
    """Sends messages to a syslog server over TCP or TLS; it connects again as often as needed.

    Args:
        source: The application that writes the trail.
        endpoint: The endpoint of the server.
        where: The address of the server, for logs.
        reactor: The clock of the attempts to connect.
    """

    _log = Logger()

    def __init__(self, source: AuditSource, endpoint: Any, where: str, reactor: Any) -> None:
        self._source = source
        self._where = where
        self._clock = reactor
        self._waiting: deque[bytes] = deque()
        self._connection: _Connection | None = None
        self._lost = 0
        self._is_away = self._is_stopping = False
        self._told = -_QUIET
        self._emptied: defer.Deferred[None] | None = None
        self._service = ClientService(
            endpoint,
            Factory.forProtocol(lambda: _Connection(self)),
            clock=reactor,
            prepareConnection=None,
        )

    def start(self) -> None:
        """Begin to connect."""
        self._service.startService()
        self._service.whenConnected(failAfterFailures=1).addErrback(self._failed)

    def write(self, message: bytes) -> None:
        framed = frame(self._source, message)
        if self._connection is not None and self._connection.is_free and not self._waiting:
            self._connection.send(framed)
            return
        if len(self._waiting) >= QUEUE_LIMIT:
            self._waiting.popleft()
            if not self._lost:
                self._log.error(
                    "the syslog server {where} takes no messages, and {limit} audit messages wait for it; the oldest "
                    "are lost",
                    where=self._where,
                    limit=QUEUE_LIMIT,
                )
            self._lost += 1
        self._waiting.append(framed)

    def stop(self) -> defer.Deferred[None]:
        if self._waiting and self._connection is None:
            emptied: defer.Deferred[None] = defer.Deferred()
            emptied.addTimeout(_LAST, self._clock, lambda *_: self._given_up())
            self._emptied = emptied
            return emptied.addCallback(lambda _: self._end())
        return self._end()

    def _end(self) -> defer.Deferred[None]:
        """Close the connection; a server that does not take the rest in time loses it."""
        self._is_stopping = True
        connection = self._connection
        if connection is not None:
            while self._waiting:
                connection.send(self._waiting.popleft())
            connection.last()
        ending = defer.maybeDeferred(self._service.stopService)
        if connection is None:
            return ending
        transport = connection.transport

        def too_late() -> None:
            self._log.error(
                "the syslog server {where} does not take the last audit messages; they are lost",
                where=self._where,
            )
            transport.abortConnection()

        timer = self._clock.callLater(_LAST, too_late)

        def ended(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return ending.addBoth(ended)

    def _given_up(self) -> None:
        self._log.error(
            "the syslog server {where} cannot be reached: {count} audit messages are lost",
            where=self._where,
            count=len(self._waiting) + self._lost,
        )

    def _failed(self, failure: Failure) -> None:
        is_quiet = self._clock.seconds() - self._told < _QUIET
        if not self._is_away and not is_quiet and not failure.check(defer.CancelledError):
            self._is_away = True
            self._told = self._clock.seconds()
            self._log.error(
                "the syslog server {where} cannot be reached: {error}; audit messages wait for it",
                where=self._where,
                error=failure.getErrorMessage(),
            )

    def connected(self, connection: _Connection) -> None:
        """The server can be reached."""
        self._connection = connection
        if self._is_away or self._lost:
            self._log.warn(
                "the syslog server {where} is reached again; {lost} audit messages were lost",
                where=self._where,
                lost=self._lost,
            )
        self._is_away, self._lost = False, 0
        self.send_waiting()
        if self._emptied is not None:
            emptied, self._emptied = self._emptied, None
            # The service does not regard itself as connected before this call has returned.
            self._clock.callLater(0, emptied.callback, None)

    def send_waiting(self) -> None:
        """Send what waits, as far as the server takes it."""
        connection = self._connection
        while self._waiting and connection is not None and connection.is_free:
            connection.send(self._waiting.popleft())
        if self._lost and not self._waiting:
            self._log.warn(
                "the syslog server {where} takes messages again; {lost} audit messages were lost",
                where=self._where,
                lost=self._lost,
            )
            self._lost = 0

    def disconnected(self, reason: Failure) -> None:
        """The connection is gone; messages wait for the next one."""
        self._connection = None
        if self._is_stopping:
            return
        self._failed(reason)
        self._service.whenConnected(failAfterFailures=1).addErrback(self._failed)


class _DatagramTrail(DatagramProtocol):
    """Sends messages to a syslog server over UDP (RFC 5426), which may lose any of them."""

    _log = Logger()

    def __init__(self, source: AuditSource, host: str, port: int, reactor: Any) -> None:
        self._source = source
        self._server = host, port
        self._reactor = reactor
        self._port: Any = None
        self._lost = 0

    def start(self) -> None:
        interface = "::" if ":" in self._server[0] else ""
        self._port = self._reactor.listenUDP(0, self, interface=interface)

    def write(self, message: bytes) -> None:
        assert self.transport is not None
        try:
            self.transport.write(frame(self._source, message), self._server)
        except (OSError, MessageLengthError) as error:  # too long for a datagram, or no route
            if not self._lost:
                self._log.error(
                    "an audit message of {size} octets cannot be sent to the syslog server {host} over UDP: {error}; "
                    "use TLS or TCP for longer ones",
                    size=len(message),
                    host=self._server[0],
                    error=error,
                )
            self._lost += 1

    def stop(self) -> defer.Deferred[None]:
        if self._lost:
            self._log.error("{lost} audit messages could not be sent over UDP", lost=self._lost)
        return defer.maybeDeferred(self._port.stopListening)


def check_syslog(address: str) -> tuple[str, str, int]:
    """Read the address of a syslog server: its kind, host and port.

    Raises:
        LocalProtocolError: The address has another form.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[3] or 1) not in range(1, 65536):
        raise LocalProtocolError(
            f"{address!r} is no address of a syslog server; expected one such as tls://logs.example.org:6514"
        )
    host = found[2].strip("[]")
    if found[1] == "udp" and not isIPAddress(host) and not isIPv6Address(host):
        raise LocalProtocolError(
            f"{address!r} names a host, which UDP needs as a number; expected one such as udp://192.0.2.1:514"
        )
    return found[1], host, int(found[3] or _PORTS[found[1]])


def syslog_trail(address: str, source: AuditSource, tls: TLSOptions | None, reactor: Any) -> Trail:
    """Make the trail to a syslog server.

    Args:
        address: ``tls://host:port``, ``tcp://host:port`` or ``udp://address:port``, where the port may be left out
            and the address of UDP is a number.
        tls: How TLS is spoken; the server is trusted as a peer is.

    Raises:
        LocalProtocolError: The address has another form.
    """
    kind, host, port = check_syslog(address)
    if kind == "udp":
        return _DatagramTrail(source, host, port, reactor)
    endpoint: Any = HostnameEndpoint(reactor, host, port)
    if kind == "tls":
        own = replace(tls or TLSOptions(), clients=None)
        endpoint = _HandshakeEndpoint(own.wrap_client(endpoint, host))
    return SyslogTrail(source, endpoint, address, reactor)
