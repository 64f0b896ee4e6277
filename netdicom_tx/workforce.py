"""Several processes that serve one port: the lead's side.

With ``--workers N`` the process that the user starts is the *lead*. It locks the storage directory, opens the ports,
makes files and index agree, performs the tasks of the queue, scrubs, and serves the status page. It accepts each
connection and hands it to the worker that has the fewest, so that all of them have the same share. The N *workers*
serve the associations, each with a journal and searches of its own, see :mod:`netdicom_tx.worker`.

A worker gets three things from the lead, apart from standard output and standard error::

    0   lines of JSON from the lead: orders
    3   lines of JSON to the lead: events, and what is to be logged
    4   a socket that connections arrive on, each with a record that names its port
    5   the memory that all processes share, see :mod:`netdicom_tx.archive.shared`
    6   the lock of the storage directory, which is held until the last process has ended

When a worker dies, the lead makes files and rows of what is in its journal and starts another one. When the lead dies,
the lines from it end, so its workers stop in order. They have not inherited the ports.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from .admission import ACCEPTS_PER_TURN
from .archive import ArchiveAE
from .archive.index.index import IndexUnavailableError
from .archive.shared import Shared
from .archive.snapshots import Snapshot, counters_of, merge
from .logs import Logger
from .proxied import WAITING_LIMIT, HeaderReader, Proxies
from .proxyheader import ProxyHeader

__all__ = [
    "CONNECTION",
    "CONNECTIONS",
    "EVENTS",
    "LOCK",
    "MEMORY",
    "Lines",
    "Workforce",
    "WorkforceError",
]

#: The descriptors of a worker, besides 0, 1 and 2.
EVENTS: Final = 3
CONNECTIONS: Final = 4
MEMORY: Final = 5
LOCK: Final = 6
#: The record that comes with a connection: its number, the number of its port, how many connections its host has with
#: other workers, and the host and port of its peer if a proxy has sent them.
CONNECTION: Final = struct.Struct("=QII45sH")

# The fields that the lead adds to a log line of a worker.
_OWN: Final = frozenset({"line", "worker", "event", "level", "format"})
# Seconds that a worker has to end after the time for its associations is over.
_MARGIN: Final = 5.0
# Seconds until the lead tries again to accept, when that has failed or no worker could take the connection.
_NO_DESCRIPTOR: Final = 1.0
_BUSY: Final = 0.005
# Seconds until a worker that has died is started again: none the first time, and then longer each time.
_LONGEST_PAUSE: Final = 30.0
# After how many deaths in a row the node ends, when no other worker serves.
_HOPELESS: Final = 6
# Seconds between two questions to a worker, and the number of unanswered ones after which it is killed.
_LOOKING: Final = 15.0
_SILENT: Final = 8
# A worker that has run for so many seconds did not fail at its start.
_STEADY: Final = 60.0
# Seconds until the next attempt at the journal of a worker that has ended.
_AGAIN: Final = 1.0
# Seconds that a worker has to send its snapshot; the previous one is used instead.
_TELLING: Final = 2.0
# Seconds that all processes have to empty their journals.
_FORGETTING: Final = 10.0


class WorkforceError(IndexUnavailableError):
    """Another process of the node cannot write files and rows for what it has acknowledged at the moment."""


class Lines:
    """Cuts a stream of octets into lines, and reads each as JSON."""

    def __init__(self, received: Callable[[dict[str, Any]], object]) -> None:
        self._received = received
        self._rest = b""

    def add(self, octets: bytes) -> None:
        """Add octets that have come."""
        *lines, self._rest = (self._rest + octets).split(b"\n")
        for line in lines:
            self._received(json.loads(line))

    @staticmethod
    def of(kind: str, values: Mapping[str, Any]) -> bytes:
        """A message as a line."""
        return json.dumps({"is": kind, **values}).encode() + b"\n"


class _Worker(ProcessProtocol):
    """The process of a worker, from its start to its end."""

    def __init__(self, workforce: Workforce, number: int, connections: socket.socket) -> None:
        self._workforce = workforce
        self.number = number
        self._socket = connections
        self.pid = 0
        self.since = workforce.clock.seconds()
        self.is_ready = False
        self.is_leaving = False  # it ends in order, and takes no more connections
        self.is_dismissed = False  # before it was ready
        #: How many questions it has not answered since its last message.
        self.unanswered = 0
        #: The host of each of its connections, by the number of the connection.
        self.hosts: dict[int, str] = {}
        self.forgetting: list[defer.Deferred[None]] = []
        self.telling: list[defer.Deferred[None]] = []
        #: The last snapshot that it has sent.
        self.snapshot: Snapshot | None = None
        self.ended: defer.Deferred[None] = defer.Deferred()
        self._lines = Lines(lambda said: workforce.heard(self, said))

    @property
    def takes_connections(self) -> bool:
        """Whether it serves, and goes on to do so."""
        return self.is_ready and not self.is_leaving

    def say(self, kind: str, **values: Any) -> None:
        """Send it a message; a message to a process that has ended is dropped."""
        transport: Any = self.transport
        if transport is not None and 0 in transport.pipes:
            transport.writeToChild(0, Lines.of(kind, values))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._lines.add(data)

    def processEnded(self, reason: Failure) -> None:
        self.is_ready = False
        self._socket.close()
        self._workforce.worker_ended(self, reason)

    def dismiss(self) -> None:
        """Let it end in order; one that is still starting has nothing in hand, and is not waited for."""
        if self.is_ready:
            self.say("stop")
        else:
            self.is_dismissed = True
            self.kill()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process, if it runs."""
        transport: Any = self.transport
        if transport is not None and transport.pid is not None:
            os.kill(transport.pid, number)

    def take(
        self,
        connection: socket.socket,
        number: int,
        port: int,
        elsewhere: int,
        source: tuple[str, int] | None,
    ) -> bool:
        """Hand it a connection; False when it cannot take one at the moment."""
        host, from_port = source or ("", 0)
        record = CONNECTION.pack(number, port, elsewhere, host.encode(), from_port)
        try:
            socket.send_fds(self._socket, [record], [connection.fileno()])
        except OSError:
            return False
        return True


class Workforce(Service):
    """The workers of a node, which run while the service runs.

    Args:
        ae: The archive of the lead, whose ports the workers serve.
        count: How many workers there are.
        ports: Gives the ports, once they are open.
        orders: What a worker is sent at its start, besides its number.
        grace: How many seconds the operations of a worker have to end when it stops.
        give_up: Ends the node, because no worker can serve.
        proxies: The proxies that name the peers by the PROXY protocol; None means that connections have no header.
    """

    _log = Logger()

    def __init__(
        self,
        ae: ArchiveAE,
        count: int,
        ports: Callable[[], Sequence[Any]],
        orders: Mapping[str, Any],
        grace: float,
        give_up: Callable[[], None],
        proxies: Proxies | None = None,
    ) -> None:
        self._ae = ae
        self._count = count
        self._ports = ports
        self._orders = dict(orders)
        self._grace = grace
        self._give_up = give_up
        self._proxies = proxies
        # Connections whose header has not come, in the order in which they came.
        self._readers: dict[HeaderReader, None] = {}
        self._shared = Shared.create()
        ae.share(self._shared)
        ae.forget_elsewhere = self._forget_from_thread
        self._workers: dict[int, _Worker] = {}
        self._failures: dict[int, int] = {}
        self._number = 0  # of the last connection
        self._delayed: set[IDelayedCall] = set()
        self._replaying: set[defer.Deferred[None]] = set()
        self._pauses: set[defer.Deferred[None]] = set()  # until a journal is tried again
        self._is_reloaded = False
        self._has_left_journal = False  # a worker that was killed while the node stopped
        self._former: Snapshot | None = None  # what workers have counted that have ended
        ae.observations.others = self.snapshots
        # The workers serve the associations, and apply the limits.
        ae.observations.limit = lambda: 0
        ae.observations.memory = None
        ae.associations_elsewhere = lambda: sum(
            len(each.hosts) for each in list(self._workers.values())
        )
        ae.observations.troubles.append(lambda: "" if self.processes else "no worker serves yet")

    @property
    def clock(self) -> Any:
        """The clock of all waits."""
        return self._ae.reactor

    @property
    def processes(self) -> dict[int, int]:
        """The process of each worker that serves, by the number of the worker."""
        return {each.number: each.pid for each in self._workers.values() if each.is_ready}

    # -- running -------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start the workers, and let the ports wait for the first one."""
        super().startService()  # type: ignore[no-untyped-call]
        for index, port in enumerate(self._ports()):
            port.doRead = partial(self._accept, index, port)
            port.stopReading()
        # The reactor learns of the end of a process only when it runs.
        self.clock.callWhenRunning(self._begin)

    def _begin(self) -> None:
        for number in range(1, self._count + 1):
            self._hire(number)
        self._later(_LOOKING, self._look)

    def _look(self) -> None:
        """Ask each worker for its snapshot, and kill one that has not answered for long: its peers would wait.

        One that is still starting is not asked, but must serve or log something in that time.
        """
        for worker in list(self._workers.values()):
            if worker.unanswered >= _SILENT:
                self._log.error(
                    "worker {worker}, process {pid}, has said nothing for {seconds:.0f} s and is killed",
                    worker=worker.number,
                    pid=worker.pid,
                    seconds=worker.unanswered * _LOOKING,
                )
                worker.kill()
            worker.unanswered += 1
            if worker.is_ready:
                worker.say("snapshot")
        self._later(_LOOKING, self._look)

    def _hire(self, number: int) -> None:
        if not self.running:
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        worker = _Worker(self, number, ours)
        try:
            worker.pid = self._spawn(worker, theirs)
        except OSError as error:
            ours.close()
            self._log.critical(
                "a worker cannot be started: {program}: {error}; the node ends",
                program=sys.executable,
                error=error.strerror,
            )
            self._give_up()
            return
        finally:
            theirs.close()
        self._workers[number] = worker
        worker.say(
            "start",
            number=number,
            workers=self._count,
            families=[int(port.socket.family) for port in self._ports()],
            is_reloaded=self._is_reloaded,
            directory_now=os.getcwd(),
            **self._orders,
        )

    def _spawn(self, worker: _Worker, connections: socket.socket) -> int:
        """Start the process of a worker, and return its number.

        Raises:
            OSError: It cannot be started.
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process: Any = self.clock.spawnProcess(
            worker,
            sys.executable,
            [sys.executable, "-P", "-m", "netdicom_tx.worker", str(worker.number)],
            env=environment,
            childFDs={
                0: "w",
                1: 1,
                2: 2,
                EVENTS: "r",
                CONNECTIONS: connections.fileno(),
                MEMORY: self._shared.descriptor,
                LOCK: self._ae.store.descriptor,
            },
        )
        return int(process.pid)

    def stopService(self) -> defer.Deferred[None]:
        """Stop all workers in order; those that do not end in time are killed.

        Returns:
            Fires when the last one has ended, and what it had acknowledged is in files and rows, or stays in its
            journal for the next start.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        delayed, self._delayed = self._delayed, set()
        for each in delayed:
            each.cancel()
        for reader in list(self._readers):
            reader.give_up("before the node stopped")
        workers = list(self._workers.values())
        for worker in workers:
            worker.dismiss()
        deadline = self.clock.callLater(self._grace + _MARGIN, self._kill_all)
        waits = [*(each.ended for each in workers), *self._replaying]
        ended = defer.DeferredList(waits, consumeErrors=True)
        for pause in list(self._pauses):
            pause.cancel()

        def over(_: object) -> None:
            if deadline.active():
                deadline.cancel()

        return ended.addCallback(over)

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            self._log.warn(
                "worker {worker} has not ended in time and is killed; what it has acknowledged is in its journal",
                worker=worker.number,
            )
            worker.kill()

    def abort(self) -> None:
        """Let all workers abort their associations."""
        for worker in self._workers.values():
            worker.say("abort")

    def reload(self) -> None:
        """Let all workers read the configuration file and the TLS files again."""
        self._is_reloaded = True
        for worker in self._workers.values():
            worker.say("reload")

    async def snapshots(self) -> list[Snapshot]:
        """The snapshots of the workers; for one that does not answer, its previous one."""
        waits: list[defer.Deferred[None]] = []
        for worker in self._workers.values():
            if worker.is_ready:
                told: defer.Deferred[None] = defer.Deferred()
                worker.telling.append(told)
                worker.say("snapshot")
                waits.append(told)
        if waits:
            # An answer that comes too late is kept for the next time.
            await _all_within(waits, _TELLING, self.clock)
        found = [each.snapshot for each in self._workers.values() if each.snapshot is not None]
        return found if self._former is None else [*found, self._former]

    def _later(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        def due() -> None:
            self._delayed.discard(delayed)
            call(*arguments)

        delayed = self.clock.callLater(seconds, due)
        self._delayed.add(delayed)

    # -- the end of a worker -------------------------------------------------------------------------

    def worker_ended(self, worker: _Worker, reason: Failure) -> None:
        """The process of a worker has ended."""
        number = worker.number
        del self._workers[number]
        if worker.snapshot is not None:
            counters = counters_of(worker.snapshot)
            self._former = merge([counters, self._former] if self._former else [counters])
        self._told(worker)
        self._pause_ports_of_none()
        if not self.running:
            worker.ended.callback(None)
            if reason.check(ProcessDone) is None and not worker.is_dismissed:
                self._has_left_journal = True
                self._log.warn(
                    "worker {worker} has not ended in order: {reason}",
                    worker=number,
                    reason=reason.getErrorMessage(),
                )
            # One that has ended in order has emptied its journal.
            self._forgot(worker, self._left_journal())
            return
        served = self.clock.seconds() - worker.since
        self._failures[number] = 0 if served > _STEADY else self._failures.get(number, 0) + 1
        self._log.error(
            "worker {worker}, process {pid}, has ended after {served:.0f} s: {reason}; what it has acknowledged is "
            "being made files and rows, then it is started again",
            worker=number,
            pid=worker.pid,
            served=served,
            reason=_words(reason),
        )
        replaying = self._replay(worker, is_first=True)
        self._replaying.add(replaying)

        def over(result: Any) -> Any:
            self._replaying.discard(replaying)
            return result

        replaying.addBoth(over)

    def _replay(self, worker: _Worker, *, is_first: bool) -> defer.Deferred[None]:
        """Write files and rows for what a worker had acknowledged, and start another one."""
        replaying = self._ae.in_thread(self._ae.take_over, worker.number, worker.pid)

        def replayed(made: int) -> None:
            self._shared.complete(worker.number)
            self._ae.workflow.wake()  # its tasks are due now
            self._forgot(worker, None)
            if made:
                self._log.info(
                    "worker {worker}: {made} instances that it had received are in the index now",
                    worker=worker.number,
                    made=made,
                )
            self._hire_later(worker.number)

        def failed(failure: Failure) -> defer.Deferred[None] | Failure:
            if is_first:
                self._log.error(
                    "the journal of worker {worker} cannot be made files and rows: {error}; nothing is lost, and the "
                    "node tries again every {seconds:g} s",
                    worker=worker.number,
                    error=failure.value,
                    seconds=_AGAIN,
                )
            if not self.running:
                self._has_left_journal = True
                self._forgot(worker, self._left_journal())
                return failure  # a deletion that waits for an empty journal must not begin
            pause: defer.Deferred[None] = deferLater(self.clock, _AGAIN)
            self._pauses.add(pause)

            def over(_: object) -> defer.Deferred[None] | Failure:
                self._pauses.discard(pause)
                # The stop waits for this, and ends the pause.
                if self.running:
                    return self._replay(worker, is_first=False)
                self._has_left_journal = True
                self._forgot(worker, self._left_journal())
                return failure

            return pause.addBoth(over)

        return replaying.addCallbacks(replayed, failed)

    def _hire_later(self, number: int) -> None:
        if not self.running:
            return
        failures = self._failures[number]
        if failures >= _HOPELESS and not self.processes:
            self._log.critical(
                "worker {worker} has ended {failures} times in a row, and no other one serves: the node ends",
                worker=number,
                failures=failures,
            )
            self._give_up()
            return
        pause = 0.0 if failures < 2 else min(2.0 ** (failures - 2), _LONGEST_PAUSE)
        self._later(pause, self._hire, number)

    # -- connections ---------------------------------------------------------------------------------

    def _pause_ports(self) -> None:
        """Accept nothing for a while: connections wait in the kernel."""
        for port in self._ports():
            port.stopReading()

    def _pause_ports_of_none(self) -> None:
        if not any(each.takes_connections for each in self._workers.values()):
            self._pause_ports()

    def _resume_ports(self) -> None:
        if self.running and any(each.takes_connections for each in self._workers.values()):
            for port in self._ports():
                port.startReading()

    def _accept(self, index: int, port: Any) -> None:
        """Accept some connections, and give each to the worker that has the fewest."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, address = port.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EPERM, errno.EPROTO):
                    continue
                self._log.error(
                    "no connection can be accepted: {error}; the node tries again in {seconds:g} s",
                    error=error,
                    seconds=_NO_DESCRIPTOR,
                )
                self._pause_ports()
                self._later(_NO_DESCRIPTOR, self._resume_ports)
                return
            connection.setblocking(False)
            if self._proxies is not None:
                self._introduce(connection, index, _address(address))
                continue
            with connection:
                if not self._assign(connection, index, _host(address)):
                    # The socket of every worker is full of connections.
                    self._pause_ports()
                    self._later(_BUSY, self._resume_ports)
                    return

    def _introduce(self, connection: socket.socket, index: int, address: IAddress | None) -> None:
        """Read the header of a connection, which names the peer, before a worker gets it."""
        assert self._proxies is not None
        if not self._proxies.admits(address):
            connection.close()
            return

        def done(reader: HeaderReader, header: ProxyHeader | None) -> None:
            self._readers.pop(reader, None)
            with connection:
                if header is not None:
                    source = header.source
                    host = _host(source or (getattr(address, "host", ""),))
                    # As without a header, a connection that no worker can take is closed, and its peer may call again.
                    self._assign(connection, index, host, source)

        reader = HeaderReader(connection, address, self._proxies, self.clock, done)
        self._readers[reader] = None
        if len(self._readers) > WAITING_LIMIT:
            next(iter(self._readers)).give_up(f"while {WAITING_LIMIT} newer connections came")

    def _assign(
        self,
        connection: socket.socket,
        port: int,
        host: str,
        source: tuple[str, int] | None = None,
    ) -> bool:
        ready = [each for each in self._workers.values() if each.is_ready]
        takers = [each for each in ready if each.takes_connections]
        for worker in sorted(takers, key=lambda each: len(each.hosts)):
            self._number += 1
            elsewhere = 0
            if host:
                others = (each for each in ready if each is not worker)
                elsewhere = sum(list(each.hosts.values()).count(host) for each in others)
            if worker.take(connection, self._number, port, elsewhere, source):
                worker.hosts[self._number] = host
                return True
        return False

    # -- what workers say ----------------------------------------------------------------------------

    def heard(self, worker: _Worker, said: dict[str, Any]) -> None:  # noqa: C901 - one branch for each kind
        """Handle a message of a worker."""
        kind = said.pop("is")
        worker.unanswered = 0
        if kind == "closed":
            worker.hosts.pop(said["number"], None)
        elif kind == "log":
            self._repeat(worker, **said)
        elif kind == "wake":
            self._ae.workflow.wake()
        elif kind == "event":
            for each in self._workers.values():
                if each is not worker:
                    each.say("event", **said)
        elif kind == "ready":
            worker.is_ready = True
            self._log.info(
                "worker {worker}, process {pid}, serves", worker=worker.number, pid=worker.pid
            )
            self._resume_ports()
        elif kind == "leaving":
            worker.is_leaving = True
            self._pause_ports_of_none()
        elif kind == "snapshot":
            worker.snapshot = said["snapshot"]
            self._told(worker)
        elif kind == "forget":
            self._forget(worker).addBoth(self._forgot_for, worker, said["number"])
        elif kind == "forgotten":
            waiting = worker.forgetting.pop(0)
            error = said["error"]
            waiting.callback(Failure(WorkforceError(error)) if error else None)

    @staticmethod
    def _told(worker: _Worker) -> None:
        """Fire what waits for the snapshot of a worker."""
        telling, worker.telling = worker.telling, []
        for each in telling:
            each.callback(None)

    @staticmethod
    def _repeat(worker: _Worker, line: str) -> None:
        """Log an event of a worker."""
        said = json.loads(line)
        text = said["message"]
        if said.get("traceback"):
            text += f"\n{said['traceback']}"
        fields = {f"{name}": value for name, value in said["fields"].items() if name not in _OWN}
        Logger(namespace=said["system"]).emit(
            LogLevel.lookupByName(said["level"]),
            "{line} worker={worker}",
            line=text,
            worker=worker.number,
            event=said["event"],
            log_time=datetime.fromisoformat(said["time"]).timestamp(),
            **fields,
        )

    # -- journals that must be emptied -----------------------------------------------------------------

    def _forget(self, asking: _Worker | None) -> defer.Deferred[Any]:
        """Let all other processes empty their journals."""
        left = self._left_journal()
        waiting: list[defer.Deferred[Any]] = [] if left is None else [defer.fail(left)]
        for worker in self._workers.values():
            # One that does not serve yet has acknowledged nothing, and would answer when it has started.
            if worker is not asking and worker.is_ready:
                forgotten: defer.Deferred[None] = defer.Deferred()
                worker.forgetting.append(forgotten)
                worker.say("forget")
                waiting.append(forgotten)
        # The journals of those that have ended are emptied when they have been replayed.
        for replaying in self._replaying:
            replayed: defer.Deferred[None] = defer.Deferred()
            replaying.chainDeferred(replayed)
            waiting.append(replayed)
        if asking is not None:
            waiting.append(self._ae.in_thread(self._ae.forget))
        return defer.gatherResults(waiting, consumeErrors=True)

    @staticmethod
    def _forgot(worker: _Worker, result: Failure | None) -> None:
        """Tell those who wait for the journal of a worker that has ended."""
        forgetting, worker.forgetting = worker.forgetting, []
        for each in forgetting:
            each.callback(result)

    def _left_journal(self) -> Failure | None:
        """Why not all journals can be emptied any more; None when they can."""
        if self._has_left_journal:
            return Failure(
                WorkforceError("the node stops, and a worker has not emptied its journal")
            )
        return None

    @staticmethod
    def _forgot_for(result: object, worker: _Worker, number: int) -> None:
        error = ""
        if isinstance(result, Failure):
            reason: Any = result.value
            error = str(getattr(reason, "subFailure", result).value)
        worker.say("forgotten", number=number, error=error)

    def _forget_from_thread(self) -> None:
        """Let all workers empty their journals; blocks.

        Raises:
            WorkforceError: One of them cannot at the moment.
        """
        done: Future[None] = Future()

        def ended(result: object) -> None:
            if isinstance(result, Failure):
                done.set_exception(WorkforceError("a worker cannot empty its journal"))
            else:
                done.set_result(None)

        assert threading.current_thread() is not threading.main_thread()
        self.clock.callFromThread(lambda: self._forget(None).addBoth(ended))
        try:
            done.result(_FORGETTING)
        except TimeoutError as error:
            raise WorkforceError("a worker does not empty its journal") from error


def _all_within(
    waits: Sequence[defer.Deferred[None]], seconds: float, clock: Any
) -> defer.Deferred[None]:
    """Fires when all have fired, or after some seconds; they are not cancelled."""
    over: defer.Deferred[None] = defer.Deferred()
    left = len(waits)
    deadline = clock.callLater(seconds, over.callback, None)

    def fired(_: None) -> None:
        nonlocal left
        left -= 1
        if not left and not over.called:
            deadline.cancel()
            over.callback(None)

    for each in waits:
        each.addCallback(fired)
    return over


def _words(reason: Failure) -> str:
    """How a process has ended, in words."""
    number = getattr(reason.value, "signal", None)
    if number is not None:
        return f"it was ended by {signal.Signals(number).name}"
    return f"exit status {getattr(reason.value, 'exitCode', None)}"


def _address(address: Any) -> IAddress | None:
    """Twisted's form of an address of the kernel; None for a local socket."""
    if not isinstance(address, tuple):
        return None
    kind = IPv6Address if len(address) > 2 else IPv4Address
    found: IAddress = kind("TCP", *address)
    return found


def _host(address: Any) -> str:
    """The host of a peer; empty when it is this machine."""
    host = str(address[0]) if isinstance(address, tuple) else ""
    try:
        return "" if not host or ip_address(host.partition("%")[0]).is_loopback else host
    except ValueError:
        return host
