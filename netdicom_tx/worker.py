"""A worker of a node with several processes: it serves the associations that the lead gives to it.

The lead runs this module; :mod:`netdicom_tx.workforce` describes what passes between the two. A worker is the node of
``twistd dicom`` without a port, without the lock of the storage directory and without the work that only one process
does. Each limit that the operator has set for all associations is divided among the workers.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from .archive.shared import Shared
from .exceptions import NetDICOMError
from .log_output import event_as_json
from .logs import Logger
from .options import Options
from .proxied import address_of, connect_protocol
from .tap import NodeService, StartError, auditor_of, make_ae
from .workforce import (
    CONNECTION,
    CONNECTIONS,
    EVENTS,
    LOCK,
    MEMORY,
    Lines,
    WorkforceError,
)

__all__ = ["main"]

# Seconds that the other processes have to empty their journals.
_FORGETTING: Final = 15.0
_LEAD_GONE: Final = "the lead of the node is gone"


@implementer(IListeningPort)
class HandedPort:
    """A port of the lead, as the worker sees it."""

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        factory.doStart()

    def startListening(self) -> None:
        """Do nothing: the lead listens."""

    def getHost(self) -> UNIXAddress:
        """An address without a name; only the lead knows the real one."""
        return UNIXAddress(None)

    def stopListening(self) -> None:
        """Take no more connections."""
        factory, self.factory = self.factory, None
        if factory is not None:
            factory.doStop()


@implementer(IStreamServerEndpoint)
class HandedEndpoint:
    """An endpoint of the lead."""

    def __init__(self) -> None:
        self.port: HandedPort | None = None

    def listen(self, factory: Any) -> defer.Deferred[IListeningPort]:
        self.port = HandedPort(factory)
        return defer.succeed(self.port)


class _Counted(Factory):
    """Makes the protocol of one connection, and reports when the connection is lost."""

    noisy = False

    def __init__(
        self, factory: Any, lost: Callable[[], None], source: IAddress | None = None
    ) -> None:
        self._factory = factory
        self._lost = lost
        self._source = source

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self._factory.buildProtocol(self._source or addr)
        if protocol is None:
            self._lost()
            return None
        connection_lost = protocol.connectionLost

        def lost(reason: Failure) -> None:
            self._lost()
            connection_lost(reason)

        protocol.connectionLost = lost
        if self._source is None:
            return protocol
        return _Proxied(protocol, self._source)


class _Proxied(Protocol):
    """Gives the transport to the protocol of a peer whose address a proxy has sent."""

    def __init__(self, protocol: Any, source: IAddress) -> None:
        self._protocol = protocol
        self._source = source

    def makeConnection(self, transport: Any) -> None:
        connect_protocol(self._protocol, transport, self._source)


class _Readable:
    """Calls functions when a descriptor can be read, and when its other end is gone; a reader for the reactor."""

    def __init__(self, descriptor: int, call: Callable[[], None], lost: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._call = call
        self._lost = lost

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "lead"

    def doRead(self) -> None:
        self._call()

    def connectionLost(self, reason: Failure) -> None:
        self._lost()


class _Speech:
    """Writes lines to the lead without waiting for it while the reactor runs; a writer for the reactor."""

    def __init__(self, descriptor: int, reactor: Any) -> None:
        self._descriptor = descriptor
        self._reactor = reactor
        self._unsaid = bytearray()
        self._guard = threading.Lock()
        self.is_heard = True
        os.set_blocking(descriptor, False)

    def add(self, line: bytes) -> None:
        """Write a line; any thread may call this."""
        with self._guard:
            was_idle = not self._unsaid
            self._unsaid += line
            if was_idle and not self._write():
                self._reactor.callFromThread(self._reactor.addWriter, self)

    def _write(self) -> bool:
        """Write what can be written now; False when something is left. The caller holds the guard."""
        while self._unsaid and self.is_heard:
            try:
                del self._unsaid[: os.write(self._descriptor, self._unsaid)]
            except BlockingIOError:
                return False
            except OSError:
                self.is_heard = False
        return True

    def finish(self) -> None:
        """Write the rest and wait until it is written, when the reactor has stopped."""
        os.set_blocking(self._descriptor, True)
        with self._guard:
            self._write()

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "lead"

    def doWrite(self) -> None:
        with self._guard:
            if self._write():
                self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the next line finds that nobody reads it."""


class Worker:
    """The messages between the lead and this process."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._lines = Lines(self._heard)
        self._speech = _Speech(EVENTS, reactor)
        os.set_blocking(0, False)
        self._orders = _Readable(0, self._read, self._lost)
        reactor.addReader(self._orders)
        self._node: NodeService | None = None
        self._connections: socket.socket | None = None
        self._endpoints: list[HandedEndpoint] = []
        self._families: list[int] = []
        # What waits until the other processes have emptied their journals, and fires with the reason if one cannot.
        self._forgetting: dict[int, Future[str]] = {}
        self._questions = itertools.count()
        self._is_stopping = False
        #: The status with which the process ends.
        self.status = 0

    # -- the lines -----------------------------------------------------------------------------------

    def _read(self) -> None:
        octets = os.read(0, 1 << 16)
        if octets:
            self._lines.add(octets)
        else:
            self._reactor.removeReader(self._orders)
            self._lost()

    def _lost(self) -> None:
        """End in order, because the lead is gone: nobody hands over connections or would replay the journal."""
        self._speech.is_heard = False
        for number in list(self._forgetting):
            self._forgetting.pop(number).set_result(_LEAD_GONE)
        if not self._is_stopping:
            self._log.error("the lead of this node is gone: this worker ends in order")
            self._stop()

    def say(self, kind: str, **values: Any) -> bool:
        """Send the lead a message; any thread may call this. Returns whether the lead is there."""
        self._speech.add(Lines.of(kind, values))
        return self._speech.is_heard

    def finish(self) -> None:
        """Write the messages that are left, when the reactor has stopped."""
        self._speech.finish()

    def _heard(self, said: dict[str, Any]) -> None:
        kind = said.pop("is")
        node = self._node
        if kind == "start":
            self._start(**said)
        elif kind == "stop":
            self._stop()
        elif kind == "forgotten":
            self._forgetting.pop(said["number"]).set_result(said["error"])
        elif node is None:
            return
        elif kind == "abort":
            node.abort()
        elif kind == "reload":
            self._reload(node)
        elif kind == "snapshot":
            self.say("snapshot", snapshot=node.ae.observations.snapshot())
        elif kind == "event":
            node.ae.workflow.steps.tell_watchers(said["uid"], said["event"])
        elif kind == "forget":
            threading.Thread(target=self._forget, args=(node,), daemon=True).start()

    # -- running -------------------------------------------------------------------------------------

    def _start(
        self,
        number: int,
        workers: int,
        arguments: list[str],
        directory: str,
        directory_now: str,
        config: str | None,
        families: list[int],
        is_reloaded: bool,
    ) -> None:
        try:
            # Paths are relative to where the node was started; it may run elsewhere.
            os.chdir(directory)
            options = Options()
            options.config_text = config
            options.part = number, workers
            options.parse(arguments)
            ae = make_ae(options)
            ae.auditor = auditor_of(options, self._reactor)
            os.chdir(directory_now)
            ae.share(Shared(MEMORY, number))
            ae.forget_elsewhere = self._forget_elsewhere
            ae.workflow.work_for(
                number,
                lambda: self.say("wake"),
                lambda uid, event: self.say("event", uid=uid, event=event),
            )
            self._families = families
            node = NodeService(
                *(ae, options["listen"], options["tls-listen"], options["tls"], options),
                endpoint=self._endpoint,
            )
            node.privilegedStartService()
            node.startService()
        except Exception as error:  # whatever it is, a worker that does not serve must end
            if isinstance(error, NetDICOMError | StartError | OSError):
                self._log.critical("the worker cannot start: {error}", error=str(error))
            else:
                self._log.failure("the worker cannot start")
            self.status = 1
            self._reactor.stop()
            return
        self._node = node
        self._ae = ae
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping, node)
        self._connections = socket.socket(fileno=CONNECTIONS)
        self._connections.setblocking(False)
        self._arrivals = _Readable(CONNECTIONS, self._take, _nothing)
        self._reactor.addReader(self._arrivals)
        if is_reloaded:
            self._reload(node)
        self.say("ready")

    def _endpoint(self, text: str) -> HandedEndpoint:
        self._endpoints.append(HandedEndpoint())
        return self._endpoints[-1]

    def _stop(self) -> None:
        self._is_stopping = True
        if self._reactor.running:
            self._reactor.stop()

    def _stopping(self, node: NodeService) -> Any:  # a Deferred, for which the reactor waits
        self._is_stopping = True
        # An operator may have ended this process alone, and the node takes connections.
        self.say("leaving")
        return node.stopService()

    def _reload(self, node: NodeService) -> None:
        try:
            node.reload()
        except NetDICOMError as error:
            self._log.error(
                "nothing was reloaded, and the former options stay in effect: {error}", error=error
            )

    # -- connections ---------------------------------------------------------------------------------

    def _take(self) -> None:
        """Receive the connections that have come."""
        assert self._connections is not None
        while True:
            try:
                record, descriptors, _, _ = socket.recv_fds(self._connections, CONNECTION.size, 1)
            except BlockingIOError:
                return
            if not record:
                self._reactor.removeReader(self._arrivals)
                return
            for each in descriptors:
                self._arrive(each, *CONNECTION.unpack(record))

    def _arrive(
        self, descriptor: int, number: int, port: int, elsewhere: int, host: bytes, from_port: int
    ) -> None:
        """Serve a connection."""
        name = host.rstrip(b"\0").decode()
        source = (name, from_port) if name else None
        handed = self._endpoints[port].port

        def lost() -> None:
            self.say("closed", number=number)

        try:
            if handed is None or handed.factory is None:
                lost()
                return
            self._ae.note_elsewhere(name or _host_of(descriptor), elsewhere)
            self._reactor.adoptStreamConnection(
                descriptor,
                self._families[port],
                _Counted(handed.factory, lost, source and address_of(*source)),
            )
        except OSError:
            lost()  # the peer has gone already
        finally:
            os.close(descriptor)

    # -- journals ------------------------------------------------------------------------------------

    def _forget(self, node: NodeService) -> None:
        """Empty the journal of this process, in a thread."""
        error = ""
        try:
            node.ae.forget()
        except (NetDICOMError, OSError) as failure:
            error = str(failure)
        self.say("forgotten", error=error)

    def _forget_elsewhere(self) -> None:
        """Let the other processes empty their journals; blocks.

        Raises:
            WorkforceError: One of them cannot at the moment.
        """
        answered: Future[str] = Future()
        number = next(self._questions)
        # Before the question, because the answer may come at once.
        self._forgetting[number] = answered
        if not self.say("forget", number=number):
            raise WorkforceError(_LEAD_GONE)
        try:
            error = answered.result(_FORGETTING)
        except TimeoutError as late:
            raise WorkforceError(
                "the other processes of the node do not empty their journals"
            ) from late
        if error:
            raise WorkforceError(f"another process of the node cannot empty its journal: {error}")


def _nothing() -> None:
    """The lines from the lead end as well."""


def _host_of(descriptor: int) -> str:
    """The host of a connection's peer; empty for a local socket."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        peer = connection.getpeername()
    return str(peer[0]) if isinstance(peer, tuple) else ""


@implementer(ILogObserver)
class _Log:
    """Sends each event of the log to the lead, or prints it when the lead is gone."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __call__(self, event: LogEvent) -> None:
        text = event_as_json(event)
        if not self._worker.say("log", line=text):
            os.write(2, f"{text}\n".encode())


def main() -> None:
    """Run as a worker until the lead orders the end, or is gone."""
    from twisted.internet import reactor

    any_reactor: Any = reactor
    # A terminal, or an operator, may send these to all processes of the node, and the lead decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (EVENTS, CONNECTIONS, MEMORY, LOCK):
        fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    worker = Worker(any_reactor)
    globalLogBeginner.beginLoggingTo([_Log(worker)], redirectStandardIO=False)
    any_reactor.run()
    worker.finish()
    sys.exit(worker.status)


if __name__ == "__main__":
    main()
