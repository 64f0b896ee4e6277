"""An application entity as a Twisted service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python.failure import Failure

from .associations import Associations
from .endpoints import failed_at_once
from .logs import Logger

__all__ = ["AEService", "ListeningAE"]


class ListeningAE(Protocol):
    """What a service needs of its application entity."""

    ae_title: str

    @property
    def clock(self) -> Any:
        """The clock of all waits."""

    def about(self) -> str:
        """What is added to the line that is logged when a port opens."""

    def listen(
        self, endpoint: IStreamServerEndpoint, *, associations: Associations
    ) -> defer.Deferred[IListeningPort]:
        """Serve at an endpoint, and note the associations."""


class AEService(Service):
    """An AE that listens while the service runs.

    ``privilegedStartService`` opens the ports; ``startService`` does so if that method was not called before. A line
    ``AETITLE listening on HOST:PORT`` is logged for each port when it is open and the service runs.
    ``stopService`` stops listening, rejects further association requests, lets operations end for ``grace``
    seconds, ends the associations that this service has accepted, and fires when the last connection is gone. A peer
    that does not answer A-RELEASE-RQ within a second gets an A-ABORT. Other services of the AE, and the associations
    that the AE has requested itself, continue.

    If a port cannot be opened, the start raises CannotListenError, the other ports of the service are closed, and the
    service can be started again. :meth:`listening_failed` is called for an endpoint that fails only later.

    Args:
        ae: The application entity.
        endpoints: The server endpoints that it listens at.
        grace: How many seconds running operations have to end when the service stops.
    """

    _log = Logger()

    def __init__(
        self, ae: ListeningAE, endpoints: Sequence[IStreamServerEndpoint], grace: float
    ) -> None:
        self.ae = ae
        self._endpoints = endpoints
        self._grace = grace
        self._listening: list[defer.Deferred[Any]] = []
        #: The associations that this service has accepted.
        self.associations = Associations(lambda: ae.clock)
        #: The ports that are open.
        self.ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """Open the ports, while the process may still open those below 1024.

        Raises:
            CannotListenError: A port cannot be opened.
        """
        self.associations.is_draining = False
        for endpoint in self._endpoints:
            opening = self.ae.listen(endpoint, associations=self.associations)
            self._listening.append(opening.addCallback(self._opened))
        try:
            failed_at_once(self._listening, self.listening_failed)
        except BaseException:
            self._stop_listening()
            raise

    def startService(self) -> None:
        """Serve; opens the ports if that has not been done.

        Raises:
            CannotListenError: A port cannot be opened.
        """
        if not self._listening:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        for port in self.ports:
            self._announce(port)

    def _opened(self, port: IListeningPort) -> None:
        self.ports.append(port)
        if self.running:
            self._announce(port)

    def _announce(self, port: IListeningPort) -> None:
        host: Any = port.getHost()  # an address of some kind
        self._log.info(
            "{aet} listening on {host}:{port}{more}",
            aet=self.ae.ae_title,
            host=getattr(host, "host", host),
            port=getattr(host, "port", ""),
            more=self.ae.about(),
            event="listening",
        )

    def listening_failed(self, failure: Failure) -> None:
        """Log that an endpoint has failed after the service was started.

        The other ports stay open. Override this method to do more, for example to stop the process.
        """
        self._log.critical(
            "{aet} cannot listen: {error}",
            aet=self.ae.ae_title,
            error=failure.getErrorMessage(),
        )

    def stopService(self) -> defer.Deferred[None]:
        """Stop listening, and end the associations of this service as the class says.

        Returns:
            Fires when the last connection is gone. Cancelling it while the associations end aborts them.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self._stop_listening().addCallback(lambda _: self.associations.drain(self._grace))

    def _stop_listening(self) -> defer.Deferred[Any]:
        """Close the ports, and give up those that are being opened; fires when they are closed."""
        opening, self._listening = self._listening, []
        for each in opening:
            each.cancel()
        ports, self.ports = self.ports, []
        return defer.gatherResults([defer.maybeDeferred(each.stopListening) for each in ports])
