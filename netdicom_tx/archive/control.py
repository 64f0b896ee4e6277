"""The local socket by which commands speak to a running node: ``control.sock`` in its storage directory.

Only the user of the node, and root, can open the socket (mode 0600). A client sends a line of JSON for each request and
gets a line of JSON for each answer::

    {"verb": "status"}                     {"result": {...}}
    {"verb": "status", "full": 1}          {"error": "status takes no full", "kind": "request"}

The node registers its verbs with :meth:`Control.register`. :func:`ask` is the side of a command; it blocks.

The path of a socket has about a hundred octets. A longer one is reached through the descriptor of its directory.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IPushProducer
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from ..exceptions import NetDICOMError
from ..logs import Logger

__all__ = ["NAME", "Control", "NoNodeError", "NodeAnswerError", "ask"]

#: The name of the socket in the storage directory.
NAME: Final = "control.sock"
# sun_path has 104 octets on BSD and 108 on Linux, the NUL included.
_PATH_LENGTH: Final = 103
# How long a request may be, and how many connections there may be.
_LINE: Final = 1 << 16
_CONNECTIONS: Final = 16
# How many seconds a client may be silent.
_SILENCE: Final = 60.0
# How many seconds a client has to read what was answered before the node stopped.
_LEAVING: Final = 1.0

#: Answers a request, at once or later; its arguments are the other members of the request.
Verb = Callable[..., Any]


class NoNodeError(NetDICOMError):
    """No node runs on the storage directory."""


class NodeAnswerError(NetDICOMError):
    """The node refuses the request, or does not answer it.

    Attributes:
        kind: ``request`` when the node does not know the request, ``refused`` when it could not do what was asked,
            ``failed`` when it has failed in doing it, ``silent`` when it has not answered in time.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@contextmanager
def _reachable(root: Path) -> Iterator[str]:
    """A path of the socket that is short enough, while the block runs."""
    path = str(root.absolute() / NAME)
    if len(os.fsencode(path)) <= _PATH_LENGTH:
        yield path
        return
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{NAME}"
    finally:
        os.close(directory)


class Control:
    """The side of the node: it listens from :meth:`start` to :meth:`stop`.

    Args:
        root: The storage directory. The caller has its lock, so a socket that is there is of a node that was killed.
        reactor: The reactor.
    """

    _log = Logger()

    def __init__(self, root: Path, reactor: Any) -> None:
        self._root = root
        self._reactor = reactor
        self._verbs: dict[str, Verb] = {}
        self._port: IListeningPort | None = None
        self._path: Any = None  # the context of the path, while it listens
        self._address = ""
        self._factory = _Factory(self)

    def register(self, name: str, call: Verb) -> None:
        """Let requests with a verb be answered by what a function returns.

        Args:
            call: Gets the other members of the request as keyword arguments. It returns what JSON has words for, or a
                Deferred or coroutine of it. A NetDICOMError that it raises is told to the client.
        """
        self._verbs[name] = call

    def start(self) -> None:
        """Listen. Where that is not possible, the log says so, and the node goes on without."""
        if self._port is not None:
            return
        self._path = _reachable(self._root)
        try:
            self._address = self._path.__enter__()
            _make_way(self._address)
            self._port = self._reactor.listenUNIX(
                self._address, self._factory, backlog=_CONNECTIONS, mode=0o600
            )
        except (OSError, CannotListenError) as error:
            self._path.__exit__(None, None, None)
            self._log.warn(
                "netdicom status and netdicom reload cannot reach this node: {path}: {error}",
                path=self._root / NAME,
                error=error,
            )

    def stop(self) -> defer.Deferred[None]:
        """Listen no longer, and end the connections; fires when the socket is gone."""
        port, self._port = self._port, None
        if port is None:
            return defer.succeed(None)
        ended = self._factory.end(self._reactor)
        if not os.path.lexists(self._address):
            # Somebody has removed it; Twisted wants to do that.
            Path(self._address).touch()
        stopped = defer.maybeDeferred(port.stopListening).addCallback(lambda _: ended)

        def over(result: Any) -> None:
            self._path.__exit__(None, None, None)
            if isinstance(result, Failure):
                self._log.failure("the control socket cannot be closed", result)

        return stopped.addBoth(over)

    async def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to a request."""
        try:
            request = json.loads(line)
            verb = request.pop("verb")
            call = self._verbs.get(verb)
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            return _refusal('expected a JSON object with a "verb" on one line', "request")
        if call is None:
            known = ", ".join(sorted(self._verbs))
            return _refusal(f"this node does not know {verb!r}; expected one of {known}", "request")
        try:
            result = call(**request)
            if isinstance(result, Awaitable):
                result = await result
            json.dumps(result)
        except NetDICOMError as error:
            return _refusal(str(error), "refused")
        except TypeError as error:
            self._log.failure("{verb} cannot be answered", verb=verb)
            return _refusal(f"{verb}: {error}", "failed")
        except Exception as error:  # whatever it is, the client hears of it
            self._log.failure("{verb} cannot be answered", verb=verb)
            return _refusal(f"{verb}: {type(error).__name__}: {error}", "failed")
        return {"result": result}


def _refusal(text: str, kind: str) -> dict[str, Any]:
    return {"error": text, "kind": kind}


def _make_way(address: str) -> None:
    """Remove the socket that a node has left, and see whether there can be one.

    Raises:
        OSError: Another kind of file has its name, or the file system has no sockets.
    """
    if os.path.lexists(address):
        if not stat.S_ISSOCK(os.lstat(address).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is not a socket has this name")
        os.unlink(address)
    # Twisted leaves its socket open when it cannot bind it.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(address)
    os.unlink(address)


@implementer(IPushProducer)
class _Connection(LineOnlyReceiver, TimeoutMixin):
    """A command that is connected.

    No request is read while earlier ones are answered, and none is answered while the client does not take the answers.
    So a client that only sends costs bounded memory, and is dropped when it has taken nothing for a while.
    """

    delimiter = b"\n"
    MAX_LENGTH = _LINE

    def __init__(self, control: Control) -> None:
        self.is_connected = False
        self.ended: defer.Deferred[None] = defer.Deferred()
        self._control = control
        self._waiting: deque[bytes] = deque()
        self._is_answering = False
        self._is_congested = False
        self._room: defer.Deferred[None] | None = None

    def _wait(self, seconds: float | None) -> None:
        """How long the client may be silent from now on."""
        self.setTimeout(seconds if self.is_connected else None)  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        self.is_connected = True
        transport: Any = self.transport
        transport.registerProducer(self, True)
        self._wait(_SILENCE)

    def lineReceived(self, line: bytes) -> None:
        self._waiting.append(line)
        if not self._is_answering:
            self._is_answering = True
            self._read(False)
            defer.Deferred.fromCoroutine(self._answer_all())

    async def _answer_all(self) -> None:
        """Answer the requests, one after the other."""
        while self._waiting and self.is_connected:
            self._wait(None)
            answer = await self._control.answer(self._waiting.popleft())
            if self.is_connected:
                self.sendLine(json.dumps(answer).encode())  # type: ignore[no-untyped-call]
            self._wait(_SILENCE)
            if self._is_congested and self.is_connected:
                self._room = defer.Deferred()
                await self._room
        self._is_answering = False
        if self.is_connected:
            self._read(True)

    def _read(self, is_wanted: bool) -> None:
        transport: Any = self.transport
        if is_wanted:
            transport.resumeProducing()
        else:
            transport.pauseProducing()

    def pauseProducing(self) -> None:
        """The transport holds enough (IPushProducer)."""
        self._is_congested = True

    def resumeProducing(self) -> None:
        """The transport has room again (IPushProducer)."""
        self._is_congested = False
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """The transport is gone (IPushProducer). connectionLost does the rest."""

    def timeoutConnection(self) -> None:
        """The client says nothing, or does not take what is said."""
        self.abort()

    def lineLengthExceeded(self, line: bytes) -> None:
        self.end()

    def end(self) -> None:
        """Close the connection when what was answered has gone out."""
        transport: Any = self.transport
        # A transport does not close before its producer is done, and one that is not reading does not notice the peer.
        transport.unregisterProducer()
        transport.resumeProducing()
        transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_connected = False
        self._wait(None)
        self.resumeProducing()  # nobody waits any more
        self._control._factory.connections.discard(self)
        self.ended.callback(None)


class _Factory(Factory):
    noisy = False

    def __init__(self, control: Control) -> None:
        self._control = control
        self.connections: set[_Connection] = set()

    def logPrefix(self) -> str:
        return "control socket"

    def buildProtocol(self, addr: object) -> _Connection | None:
        if len(self.connections) >= _CONNECTIONS:
            return None
        connection = _Connection(self._control)
        self.connections.add(connection)
        return connection

    def end(self, clock: Any) -> defer.Deferred[None]:
        """End all connections when what was answered has gone out, or after a second; fires when they are gone."""
        connections = list(self.connections)
        ended = defer.DeferredList([each.ended for each in connections])
        for each in connections:
            each.end()

        def abort_all() -> None:
            for each in connections:
                each.abort()

        late = clock.callLater(_LEAVING, abort_all)

        def over(_: object) -> None:
            if late.active():
                late.cancel()

        return ended.addCallback(over)


# -- the side of a command ---------------------------------------------------------------------------


def ask(root: Path, verb: str, *, timeout: float = 30.0, **arguments: Any) -> Any:
    """Ask the node that runs on a storage directory; blocks.

    Args:
        root: The storage directory.
        timeout: How many seconds the answer may take.
        arguments: The other members of the request.

    Raises:
        NoNodeError: No node runs there.
        NodeAnswerError: The node refuses, or does not answer in time.
        OSError: The socket cannot be used, for example because it belongs to another user.
    """
    request = json.dumps({"verb": verb, **arguments}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            with _reachable(root) as address:
                client.connect(address)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NoNodeError(f"no node runs on {root}") from None
        try:
            client.sendall(request)
            with client.makefile("rb") as answers:
                line = answers.readline()
        except TimeoutError:
            raise NodeAnswerError(
                f"the node on {root} has not answered within {timeout:g} s", "silent"
            ) from None
        except (ConnectionResetError, BrokenPipeError):
            line = b""
    if not line.endswith(b"\n"):
        raise NodeAnswerError(f"the node on {root} has ended before it has answered", "silent")
    answer = json.loads(line)
    if "error" in answer:
        raise NodeAnswerError(answer["error"], answer["kind"])
    return answer["result"]
