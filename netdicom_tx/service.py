"""An application entity as a Twisted service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["AEService", "Listener"]


class Listener(Protocol):
    """What a service needs of its application entity."""

    ae_title: str

    @property
    def reactor(self) -> Any:
        """The reactor on which the AE runs."""

    def about(self) -> str:
        """What is added to the line that is logged when a port opens."""

    def listen(self, endpoint: IStreamServerEndpoint) -> defer.Deferred[IListeningPort]:
        """Serve at an endpoint."""

    def drain(self, grace: float) -> defer.Deferred[None]:
        """Take no new association, and end the others."""


class AEService(Service):
    """An AE that listens while the service runs.

    Ports are opened by ``privilegedStartService``, and each is logged when the service runs as
    well, ``AETITLE listening on HOST:PORT``: whoever connects between waits for the reactor.
    ``stopService`` stops listening, rejects what still asks, lets operations end for ``grace``
    seconds, ends the associations, and fires when the last connection is gone.
    """

    _log = Logger()

    def __init__(
        self, ae: Listener, endpoints: Sequence[IStreamServerEndpoint], grace: float
    ) -> None:
        self.ae = ae
        self._endpoints = endpoints
        self._grace = grace
        self._listening: list[defer.Deferred[Any]] = []
        self._failures: list[str] = []
        self._is_starting = True
        #: The ports that are open.
        self.ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """Open the ports, while the process may still open those below 1024."""
        self._failures, self._is_starting = [], True
        self._listening = [self.ae.listen(endpoint) for endpoint in self._endpoints]
        for each in self._listening:
            each.addCallbacks(self._opened, self._failed)
        if self._failures:
            # A service that cannot listen says so and goes, instead of running deaf.
            raise SystemExit(self._failures[0])
        self._is_starting = False

    def startService(self) -> None:
        if not self._listening:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        for port in self.ports:
            self._announce(port)

    def _opened(self, port: IListeningPort) -> IListeningPort:
        self.ports.append(port)
        if self.running:
            self._announce(port)
        return port

    def _announce(self, port: IListeningPort) -> None:
        host: Any = port.getHost()  # an address of some kind
        self._log.info(
            "{aet} listening on {host}:{port}{more}",
            aet=self.ae.ae_title,
            host=getattr(host, "host", host),
            port=getattr(host, "port", ""),
            more=self.ae.about(),
        )

    def _failed(self, failure: Failure) -> None:
        if failure.check(defer.CancelledError):
            return
        sentence = f"{self.ae.ae_title} cannot listen: {failure.getErrorMessage()}"
        self._failures.append(sentence)
        if not self._is_starting:
            self._log.critical("{sentence}", sentence=sentence)
            self.ae.reactor.stop()

    def stopService(self) -> defer.Deferred[Any]:
        super().stopService()  # type: ignore[no-untyped-call]
        opening, self._listening = self._listening, []
        for each in opening:
            each.cancel()
        ports, self.ports = self.ports, []
        stopped = defer.gatherResults([defer.maybeDeferred(each.stopListening) for each in ports])
        return stopped.addCallback(lambda _: self.ae.drain(self._grace))
