"""``twistd dicom``: the service that it runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from . import __version__
from .archive import ArchiveAE, Index, IndexUnusableError, StorageError
from .archive.auditing import Auditor, this_process
from .archive.control import Control
from .archive.group.duties import Duty
from .archive.index.urls import PASSWORD_SEEN
from .archive.retention import Retention
from .archive.snapshots import Reactor
from .archive.store.inventory import Inventory
from .archive.store.scrub import Scrub
from .archive.store.sharedstore import SharedStore
from .archive.workflow.workflow import WorkflowOptions
from .audit_trails import FileTrail, Trail, syslog_trail
from .budget import LIMIT as MEMORY_LIMIT
from .budget import give_back_large_blocks
from .collector import spare_what_stays
from .config.tables import Node
from .descriptors import associations_for
from .endpoints import is_public, server_endpoint
from .exceptions import LocalProtocolError
from .log_output import give_observer
from .logs import Logger, quiet_pydicom
from .monotonic import use_monotonic_time
from .options import Options
from .proxied import ProxiedEndpoint, Proxies
from .reloading import Reloaded, apply, give_access, set_up_log
from .service import AEService
from .signals import Signals
from .systemd import Supervised
from .terminal import Terminal
from .tls import ServerContext, TLSOptions
from .turns import Turns
from .workforce import Workforce

__all__ = ["NodeService", "Options", "StartError", "makeService", "make_ae"]

# Seconds that running operations have to end when the node stops.
GRACE = 10.0
# Seconds for which the start waits for files and index to agree, before the reactor runs.
_PATIENCE = 1.0
# Seconds that a peer has to take an A-ABORT when the node must end at once.
_ABORTING = 0.5

# For how many seconds a thread may keep the interpreter while the reactor waits for it. Python's own value is 5 ms, and
# the reactor waits that long for each thread that computes.
_SWITCHING = 0.001

# How many threads the reactor has by itself.
_THREADS = 10

# What an operator can do when a port cannot be opened.
_REMEDIES = {
    errno.EADDRINUSE: "End the other program that listens there (ss -ltnp shows it), or name another port.",
    errno.EADDRNOTAVAIL: "Name an address of this machine (ip address shows them).",
    errno.EACCES: "Let systemd open a port below 1024 (netdicom service install --socket), or name another port.",
}


class StartError(SystemExit, Exception):
    """The node cannot start; the message is what the operator reads.

    It ends the process as SystemExit does. It is an Exception as well, because that is what twistd needs in the
    background to report the failure to the shell and to remove its pid file.
    """


def _told(start: Callable[[NodeService], None]) -> Callable[[NodeService], None]:
    """Let a failure to start be read on the terminal, also when the runner has left it."""

    @wraps(start)
    def telling(self: NodeService) -> None:
        try:
            start(self)
        except StartError as error:
            self.terminal.tell(str(error))
            raise

    return telling


def _with_remedy(error: CannotListenError) -> str:
    """The text of an error of listening, and what an operator can do about it."""
    remedy = _REMEDIES.get(getattr(error.socketError, "errno", None) or 0)
    return f"{error} {remedy}" if remedy else str(error)


class _Listener(AEService):
    """Ends the process when a port fails after the start, because a node that cannot listen is of no use."""

    # Log lines have the public name of the class, which an operator can look up in the reference.
    _log = Logger(namespace=f"{AEService.__module__}.{AEService.__qualname__}")

    def __init__(
        self,
        ae: ArchiveAE,
        listen: list[str],
        tls_listen: list[str],
        context: ServerContext | None,
        endpoint: Callable[[str], IStreamServerEndpoint] | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        def make(text: str) -> IStreamServerEndpoint:
            if endpoint is not None:
                return endpoint(text)
            plain = server_endpoint(ae.reactor, text)
            return plain if proxies is None else ProxiedEndpoint(plain, proxies, ae.reactor)

        self._is_silent = endpoint is not None
        endpoints = [make(each) for each in listen]
        if context is not None:
            endpoints += [context.wrap(make(each)) for each in tls_listen]
        super().__init__(ae, endpoints, GRACE)
        self._reactor = ae.reactor

    def _announce(self, port: IListeningPort) -> None:
        if not self._is_silent:
            super()._announce(port)

    def listening_failed(self, failure: Failure) -> None:
        super().listening_failed(failure)
        self._reactor.stop()


class NodeService(MultiService):
    """The running node: the store is open while it serves, and a little longer.

    Its ports are opened first, because that may need privileges that the store must not have. Until files and index
    agree, requests for associations are rejected as transient.

    Attributes:
        turns: Measures the turns of the reactor, and logs those that take too long.
        control: Answers commands for the running node, such as ``netdicom status``.
        terminal: The terminal of the operator, until the start has succeeded or failed.
        web: The status page, which is served from before the store is opened until it has been closed; or None.
    """

    _log = Logger()

    def __init__(
        self,
        ae: ArchiveAE,
        listen: list[str],
        tls_listen: list[str] | None = None,
        tls: TLSOptions | None = None,
        options: Options | None = None,
        web: IService | None = None,
        endpoint: Callable[[str], IStreamServerEndpoint] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ae = ae
        self.web = web
        self.terminal = Terminal()
        self._options = options
        self._context = ServerContext(tls) if tls is not None and tls_listen else None
        self._is_worker = endpoint is not None
        node = Node() if options is None else options.configured.node
        self._proxies = (
            Proxies(lambda: ae.proxies, ae.connection_refused) if node.proxy_protocol else None
        )
        self._listener = _Listener(
            ae, listen, tls_listen or [], self._context, endpoint, self._proxies
        )
        self._listener.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._workforce: Workforce | None = None
        self._draining: Deferred[Any] | None = None
        self._signals = Signals(ae.reactor, self.abort, self.reload)
        self.turns = Turns(ae.reactor)
        self._supervised = Supervised(lambda: ae.reactor, ae.observations.in_a_line)
        ae.observations.reactor = self._turns_taken
        if self._is_worker:
            ae.observations.history = None  # the lead writes it
        self.control = Control(ae.store.root, ae.reactor)
        self.control.register("status", ae.observations.current)
        self.control.register("reload", lambda: asdict(self.reloaded()))
        if ae.index is not None:
            self.control.register("delete", ae.delete)
        ae.on_replaced = lambda: ae.reactor.callFromThread(self._signals.fail)

    def setServiceParent(self, parent: Any) -> None:
        """Become the service of twistd's application, which then logs in the form that the options want."""
        options = self._options
        runner = None if options is None else options.parent
        if options is not None and isinstance(runner, usage.Options):
            if isinstance(parent, Componentized):
                give_observer(options["log-format"], runner, parent, self.ae.reactor)
            if not runner.get("nodaemon", True):
                self.terminal.keep()
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def employ(self, workers: int) -> None:
        """Let other processes serve the associations; call this before the start."""
        options = self._options
        assert options is not None
        orders = {
            "arguments": options.arguments,
            "config": options.config_source,
            # The runner changes it later.
            "directory": os.getcwd(),
        }
        self._workforce = Workforce(
            self.ae,
            workers,
            lambda: self._listener.ports,
            orders,
            GRACE,
            self._signals.fail,
            self._proxies,
        )
        self._workforce.setServiceParent(self)  # type: ignore[no-untyped-call]

    @_told
    def privilegedStartService(self) -> None:
        """Open the ports.

        Raises:
            StartError: A port cannot be opened.
        """
        give_back_large_blocks()
        use_monotonic_time(self.ae.reactor)
        self._set_up_logging()
        if self.ae.max_associations is not None and self._workforce is None:
            self.ae.max_associations = associations_for(self.ae.max_associations)
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            raise self._cannot_listen(error) from error
        if self.web is not None:
            self._start_web(self.web.privilegedStartService)

    def _start_web(self, start: Callable[[], object]) -> None:
        try:
            start()
        except (CannotListenError, LocalProtocolError) as error:
            self._listener.stopService()
            said = _with_remedy(error) if isinstance(error, CannotListenError) else error
            raise StartError(f"twistd dicom: the status page: {said}") from error

    @_told
    def startService(self) -> None:
        """Open the store as the user that the process has switched to, and begin to serve.

        Raises:
            StartError: The store or the index cannot be used, or a port cannot be opened.
        """
        use_monotonic_time(self.ae.reactor)
        self._set_up_logging()
        if self.web is not None:
            self._start_web(self.web.startService)
        # From now on, an operator may stop it.
        self._signals.install()
        self.ae.reactor.callWhenRunning(self._signals.install)
        self.ae.reactor.callWhenRunning(spare_what_stays)
        self._supervised.starting("files and index are being compared")
        try:
            started = self.ae.start_soon(_PATIENCE)
        except (StorageError, IndexUnusableError) as error:
            self._supervised.stop()
            self._signals.uninstall()
            self._listener.stopService()
            self._stop_web()
            raise StartError(f"twistd dicom: {error}") from error
        self.running = 1
        self.turns.startService()
        if not self._is_worker:
            self.control.start()
            self._say_starting()
        if started.called:
            self._serve()
        else:
            started.addCallback(lambda _: self._serve())
            started.addErrback(self._not_started)
        self.terminal.close()

    def _say_starting(self) -> None:
        """Say what the node is made of; the lead says it for its workers."""
        self._log.info(
            "netdicom_tx {version} starts with {configuration}",
            version=__version__,
            configuration=self._configuration(),
            event="started",
        )

    def _configuration(self) -> str:
        """Where the options come from."""
        options = self._options
        if options is None or options.config_path is None:
            return "its options alone, without a configuration file"
        return f"the configuration {options.config_path}"

    def _set_up_logging(self) -> None:
        """Keep what peers sent out of the log."""
        quiet_pydicom()
        if self._options is not None:
            set_up_log(self.ae, self._options)

    def _serve(self) -> None:
        """Begin to serve, when store and index agree."""
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            self.running = 0
            self.control.stop()
            self._supervised.stop()
            self._signals.uninstall()
            self.turns.stopService()
            # twist opens the ports only now. Threads that wait for work would keep the process alive.
            self.ae.stop()
            self._stop_web()
            raise self._cannot_listen(error) from error
        if self._options is not None and not self._options.is_access_configured:
            self._warn_of_openness()
        if self._options is not None and self._options.shows_password:
            self._log.warn(PASSWORD_SEEN)
        self._supervised.ready()

    def _not_started(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._supervised.stop()
        self.control.stop()
        self._log.critical("twistd dicom: {error}", error=failure.getErrorMessage())
        self._signals.fail()

    def _warn_of_openness(self) -> None:
        """Say that everybody may do everything, if others than this machine can reach the node."""
        hosts = [getattr(each.getHost(), "host", "") for each in self._listener.ports]
        if any(map(is_public, hosts)):
            self._log.warn(
                "{aet} can be reached from the network, and peers that are not configured may do everything: say "
                "what they may do by [access] default in the configuration file, or use --strict-peers",
                aet=self.ae.ae_title,
            )

    def _cannot_listen(self, error: CannotListenError) -> StartError:
        return StartError(f"{self.ae.ae_title} cannot listen: {_with_remedy(error)}")

    def _turns_taken(self) -> Reactor:
        turns = self.turns
        return Reactor(
            busy=turns.busy,
            longest=turns.longest,
            recent=turns.recent(),
            held_up=turns.count,
        )

    def stopService(self) -> Any:  # a Deferred, as IService allows
        is_serving = self.ae.observations.state == "serving"
        self.ae.begin_draining()
        seconds = self._drain_seconds() if is_serving else 0
        if not seconds:
            return self._stop()
        self._log.info(
            "not ready any more, so that balancers send nobody here; peers are served for {seconds} s more",
            seconds=seconds,
            event="draining",
        )
        self._supervised.stopping("balancers are given time to notice")
        self._draining = deferLater(self.ae.reactor, seconds)
        # A second signal ends the wait.
        self._draining.addErrback(lambda failure: failure.trap(CancelledError))
        return self._draining.addCallback(lambda _: self._stop())

    def _drain_seconds(self) -> int:
        """How many seconds peers are still served when the node is told to stop; the lead waits for its workers."""
        if self._options is None or self._is_worker:
            return 0
        return self._options.configured.node.drain

    def _stop(self) -> Any:  # a Deferred
        self._draining = None
        self._supervised.stopping("operations and associations are ending")
        stopped = super().stopService()  # type: ignore[no-untyped-call]
        stopped.addBoth(lambda _: self.ae.pause()).addBoth(self._stop_control)
        return stopped.addBoth(self._stopped)

    def _stop_control(self, result: object) -> Any:
        return self.control.stop().addCallback(lambda _: result)

    def reload(self) -> str:
        """As :meth:`reloaded`; returns a text that names what was read, and is empty when there is nothing."""
        return " and ".join(self.reloaded().read)

    def reloaded(self) -> Reloaded:
        """Read the configuration file and the TLS files again; associations that exist go on.

        Raises:
            NetDICOMError: One of them is wrong; nothing has changed.
        """
        self._supervised.reloading()
        try:
            return self._reloaded()
        finally:
            self._supervised.reloaded()

    def _reloaded(self) -> Reloaded:
        options = self._options
        fresh = None if options is None or options.config_path is None else options.again()
        read: list[str] = []
        applied: list[str] = []
        waiting: list[str] = []
        if self._context is not None:
            self._context.reload()
            read.append("the TLS certificate, key and authorities")
        if options is not None and fresh is not None:
            applied, waiting = apply(self.ae, options, fresh)
            if fresh.configured.node.proxy_protocol != (self._proxies is not None):
                waiting.append("[node] proxy_protocol")
            read.insert(0, str(options.config_path))
            if applied:
                self._log.info(
                    "{path}: {names} changed and took effect",
                    path=options.config_path,
                    names=", ".join(applied),
                    event="reloaded",
                )
        if options is not None and waiting:
            self._log.warn(
                "{path} has other values for {names}, which take effect when the node is restarted",
                path=options.config_path,
                names=", ".join(waiting),
                event="restart-needed",
            )
        if self._workforce is not None:
            self._workforce.reload()
        return Reloaded(tuple(read), tuple(applied), tuple(waiting))

    def abort(self) -> None:
        """End all associations now."""
        if self._draining is not None:
            self._draining.cancel()
        if self._workforce is not None:
            self._workforce.abort()
        for asce in self.ae.associations:
            asce.abort()
            asce.hang_up(_ABORTING)

    def _stopped(self, result: object) -> object:
        self._signals.uninstall()
        self.ae.stop()
        self.turns.stopService()
        self._supervised.stop()
        if not self._is_worker:
            self._log.info(
                "netdicom_tx {version} has stopped", version=__version__, event="stopped"
            )
        stopped = self._stop_web()
        return result if stopped is None else stopped.addCallback(lambda _: result)

    def _stop_web(self) -> Any:  # a Deferred, as IService allows
        return None if self.web is None else self.web.stopService()


def auditor_of(options: Options, reactor: Any) -> Auditor | None:
    """What writes the audit trail; None when the options name no trail."""
    source = this_process(options["aet"])
    trails: list[Trail] = [FileTrail(options["audit"])] if options["audit"] else []
    for address in options["audit-syslog"]:
        trails.append(syslog_trail(address, source, options["tls"], reactor))
    return Auditor(source, trails) if trails else None


def _web(ae: ArchiveAE, options: Options) -> IService:
    """The status page, whose packages only a node that has one loads."""
    from .web.server import WebOptions, WebService

    return WebService(
        ae,
        WebOptions(
            listen=options["http"],
            users_file=options["http-users"],
            operators=tuple(options["http-operator"]),
            allow_anonymous=bool(options["http-anonymous"]),
            hosts=tuple(options["http-host"]),
            title=options["http-title"] or "",
            endpoints=(*options["listen"], *options["tls-listen"]),
        ),
    )


def make_ae(options: Options) -> ArchiveAE:
    """The application entity of a node with these options; nothing is opened yet."""
    store = options.store_plan().store()
    ae = ArchiveAE(
        options["aet"],
        store,
        Index(
            options["database"] or f"sqlite:///{store.root / 'index.db'}",
            root=store.root,
            settings=options.configured.database.settings(
                options.configured.node.name or options["aet"]
            ),
        ),
        peers=options["peers"],
        unknown_sop_classes=bool(options["unknown-sop-classes"]),
        match_unknown=bool(options["match-unknown"]),
        max_associations=options["max-associations"],
        max_associations_per_host=options["max-associations-per-host"],
        max_associations_per_title=options["max-associations-per-title"],
        move_associations=options["move-associations"],
        memory_limit=MEMORY_LIMIT if options.part is None else MEMORY_LIMIT // options.part[1],
        workflow=WorkflowOptions(
            worklist=Path(options["worklist"]) if options["worklist"] else None,
            forward_mpps=tuple(options["forward-mpps"]),
            notify_mpps=tuple(options["notify-mpps"]),
            notify_availability=tuple(options["notify-availability"]),
        ),
    )
    give_access(ae, options)
    ae.node_name = options.configured.node.name or ae.node_name
    ae.node_address = " ".join((*options["listen"], *options["tls-listen"]))
    ae.keeper.rules = options.configured.retention.rules()
    return ae


def makeService(options: Options) -> NodeService:
    """The service for ``twistd dicom`` with these options."""
    ae = make_ae(options)
    ae.auditor = auditor_of(options, ae.reactor)
    node = NodeService(
        ae,
        options["listen"],
        options["tls-listen"],
        options["tls"],
        options,
        _web(ae, options) if options["http"] else None,
    )
    if options["workers"] > 1:
        node.employ(options["workers"])
    if options["scrub"] and ae.index is not None:
        rate = options["scrub"] * (1 << 20)
        scrub = Scrub(ae.index, ae.reactor, rate=rate, holds=lambda: ae.holds(Duty.SCRUB))
        scrub.setServiceParent(node)  # type: ignore[no-untyped-call]
    if ae.index is not None and isinstance(ae.store, SharedStore):
        # What is sent waits in these threads until it is here; they also look up host names.
        ae.reactor.suggestThreadPoolSize(_THREADS + ae.store.parallel)
        inventory = Inventory(
            ae.store, ae.index, ae.reactor, holds=lambda: ae.holds(Duty.RECONCILE)
        )
        inventory.setServiceParent(node)  # type: ignore[no-untyped-call]
    if ae.index is not None:
        retention = Retention(ae.keeper, ae.reactor)
        retention.setServiceParent(node)  # type: ignore[no-untyped-call]
    return node
