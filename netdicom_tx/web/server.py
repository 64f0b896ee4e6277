"""The HTTP server of the node, as a service.

A module of routes has a function ``register(web)`` that calls :meth:`~netdicom_tx.web.site.Web.route` for each;
:data:`MODULES` names these modules. When the page fails at run time, that is logged and the node goes on.
"""

from __future__ import annotations

from collections import deque
from io import BytesIO
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web import server
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource

from ..archive import ArchiveAE
from ..endpoints import failed_at_once, is_public, server_endpoint
from ..exceptions import LocalProtocolError
from ..logs import Logger
from . import live, metrics, pages, studies
from .site import Web, WebOptions

__all__ = ["MODULES", "WebOptions", "WebService"]

#: The modules that register routes.
MODULES: Final[tuple[Any, ...]] = (pages, studies, live, metrics)

# Forms have a few short fields.
_LARGEST_BODY: Final = 64 * 1024
# A connection on which nothing comes, or whose response nobody reads, is closed after these seconds.
_TIMEOUT: Final = 60.0
# Browsers open six connections each. The node needs its descriptors for associations.
_CONNECTIONS: Final = 64
# Seconds that a browser has to take the rest of a response when the page is closed.
_CLOSING: Final = 0.5


class _Request(server.Request):
    """A request with a bound for its body."""

    _is_refused = False

    def gotLength(self, length: int | None) -> None:
        self._is_refused = length is None or length > _LARGEST_BODY
        super().gotLength(0 if self._is_refused else length)  # type: ignore[no-untyped-call]
        if self._is_refused:
            self.content = BytesIO()
            transport: Any = self.channel.transport
            transport.write(
                b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            self.channel.loseConnection()

    def handleContentChunk(self, data: bytes) -> None:
        if not self._is_refused:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def process(self) -> None:
        if self._is_refused:
            return
        channel: Any = self.channel
        connection = channel.transport
        connection.is_answering = True
        self.notifyFinish().addBoth(connection.answered)
        if connection.has_asked:
            channel.site.answer_later(self)
        else:
            connection.has_asked = True
            self.answer()

    def answer(self) -> None:
        """Answer the request, unless the browser has gone."""
        if self.channel is not None:
            super().process()  # type: ignore[no-untyped-call]


class _Channel(HTTPChannel):
    """A channel that says why it ends when an address or a header is too long."""

    _rest: int | None = None

    def lineLengthExceeded(self, line: bytes) -> None:
        what = b"431 Request Header Fields Too Large" if self.requests else b"414 URI Too Long"
        transport: Any = self.transport
        transport.write(b"HTTP/1.1 " + what + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        # A close while more is coming would be a reset, and the browser would not read the answer.
        self._rest = _LARGEST_BODY
        transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._rest is None:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
            return
        self._rest -= len(data)
        if self._rest < 0:
            self.forceAbortClient()  # type: ignore[no-untyped-call]


class _Site(server.Site):
    """Serves the routes; the log has no line for each request, because queries name patients."""

    noisy = False
    displayTracebacks = False
    protocol = _Channel  # type: ignore[assignment]  # annotated as what chooses between HTTP/1 and HTTP/2

    def __init__(self, root: Resource, reactor: Any) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            root, requestFactory=_Request, timeout=_TIMEOUT, reactor=reactor
        )

        self._waiting: deque[_Request] = deque()

    def answer_later(self, request: _Request) -> None:
        """Answer a request that was not the first one of its connection when its turn comes.

        A client may send hundreds of requests at once. One of them is answered in each turn of the reactor, and peers
        are served in between.
        """
        self._waiting.append(request)
        if len(self._waiting) == 1:
            self.reactor.callLater(0, self._answer_next)

    def _answer_next(self) -> None:
        request = self._waiting.popleft()
        if self._waiting:
            self.reactor.callLater(0, self._answer_next)
        request.answer()

    def log(self, request: Any) -> None:
        """Write no line."""


class _Connection(ProtocolWrapper):
    """A connection of a browser.

    Attributes:
        has_asked: Whether a request has come.
        is_answering: Whether a request has come that is not answered yet.
        is_dropped: Whether it is being closed for another one.
    """

    has_asked = False
    is_answering = False
    is_dropped = False

    def answered(self, _: object) -> None:
        """Note that the request was answered."""
        self.is_answering = False

    def drop(self) -> None:
        """Close the connection at once."""
        self.is_dropped = True
        transport: Any = self.transport
        transport.abortConnection()


class _Bounded(WrappingFactory):
    """Bounds the connections.

    When there are too many, the oldest one gives way on which no request is being answered. So clients that send their
    requests very slowly, or nothing at all, cannot keep out the others.
    """

    noisy = False
    protocol = _Connection
    _when_empty: defer.Deferred[None] | None = None

    def buildProtocol(self, addr: Any) -> Any:
        connections = [each for each in self.protocols if not each.is_dropped]
        if len(connections) >= _CONNECTIONS:
            idle = next((each for each in connections if not each.is_answering), None)
            if idle is None:
                return None
            idle.drop()
        return super().buildProtocol(addr)

    def unregisterProtocol(self, p: Any) -> None:
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self._check_empty()

    def close(self, clock: IReactorTime) -> defer.Deferred[None]:
        """Close all connections, and abort those that are not closed soon; fires when there are none."""
        empty = self._when_empty = defer.Deferred()
        abort = clock.callLater(_CLOSING, self._abort)
        for each in list(self.protocols):
            each.loseConnection()
        self._check_empty()

        def closed(_: None) -> None:
            if abort.active():
                abort.cancel()

        return empty.addCallback(closed)

    def _check_empty(self) -> None:
        empty = self._when_empty
        if empty is not None and not self.protocols:
            self._when_empty = None
            empty.callback(None)

    def _abort(self) -> None:
        for each in list(self.protocols):
            each.transport.abortConnection()


class WebService(Service):
    """Serves the status page while the node runs.

    It is started before the node serves peers, and stopped when the last association has ended, so that it can say
    whether the node is ready.

    Args:
        ae: The node.
        options: How the page is served.
        threads: How many threads work for the page; 0 suits a test without a reactor.

    Raises:
        LocalProtocolError: The password file or the endpoint cannot be used.
    """

    _log = Logger()

    def __init__(self, ae: ArchiveAE, options: WebOptions, *, threads: int = 2) -> None:
        self.web = Web(ae, options, threads=threads)
        for module in MODULES:
            module.register(self.web)
        self._reactor = ae.reactor
        self._endpoint = server_endpoint(ae.reactor, options.listen)
        self._options = options
        site = _Site(self.web.resource(), ae.reactor)
        #: Makes a protocol for each connection.
        self.factory = _Bounded(site)  # type: ignore[no-untyped-call]
        #: The port, when it is open.
        self.port: IListeningPort | None = None
        self._opening: defer.Deferred[Any] | None = None

    def privilegedStartService(self) -> None:
        """Open the port.

        Raises:
            CannotListenError: The port cannot be opened.
            LocalProtocolError: Others could reach it without a login, and the options do not allow that.
        """
        self._opening = self._endpoint.listen(self.factory).addCallback(self._opened)
        failed_at_once(
            [self._opening],
            lambda failure: self._log.error(
                "the status page cannot be served: {error}", error=failure.getErrorMessage()
            ),
        )

    def _opened(self, port: IListeningPort) -> None:
        # No connection is accepted before the next turn of the reactor.
        host: Any = port.getHost()
        is_reachable = isinstance(host, IPv4Address | IPv6Address) and is_public(host.host)
        if is_reachable and not (self.web.has_users or self._options.allow_anonymous):
            port.stopListening()
            raise LocalProtocolError(
                f"the status page at {self._options.listen} could be reached from the network by everybody; name "
                "a password file by --http-users, serve it at 127.0.0.1, or allow that by --http-anonymous"
            )
        self.port = port

    def startService(self) -> None:
        """Serve; opens the port if that has not been done."""
        if self._opening is None:
            self.privilegedStartService()
        self.web.threads.start(self._reactor)
        self.web.prepare()
        super().startService()  # type: ignore[no-untyped-call]
        host: Any = None if self.port is None else self.port.getHost()
        if isinstance(host, IPv4Address | IPv6Address):
            name = f"[{host.host}]" if isinstance(host, IPv6Address) else host.host
            scheme = "https" if self._options.listen.startswith("ssl:") else "http"
            self._log.info(
                "status page at {scheme}://{name}:{port}/", scheme=scheme, name=name, port=host.port
            )

    def stopService(self) -> defer.Deferred[None]:
        """Close the port and all connections; fires when they are closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        port, self.port = self.port, None
        stopped = defer.succeed(None) if port is None else defer.maybeDeferred(port.stopListening)
        for each in self.web.at_end:
            each()
        self.web.threads.stop()
        return stopped.addCallback(lambda _: self.factory.close(self.web.ae.clock))
