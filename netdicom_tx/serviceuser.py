"""The service user of the upper layer (PS3.8 7), which passes each event on to the part that it concerns.

:class:`ServiceUser` decides nothing itself. It joins six parts, each with one concern:

===============  ==============================  ==========================================================
part             module                          its concern
===============  ==============================  ==========================================================
``Channel``      :mod:`netdicom_tx.channel`      sends messages; stops reading while a part is behind
``Opening``      :mod:`netdicom_tx.opening`      the request, the verdict on it and the answer to it
``Reception``    :mod:`netdicom_tx.datasinks`    the message that is arriving, and where its data set goes
``Invoker``      :mod:`netdicom_tx.requests`     the requests of this side
``Performer``    :mod:`netdicom_tx.operations`   the operations that this side performs for the peer
``Closing``      :mod:`netdicom_tx.closing`      how the association ends; tells the other parts when it does
===============  ==============================  ==========================================================

Programs and services hold an :class:`~netdicom_tx.asceprovider.Association`, which is one of these.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from twisted.internet import defer
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from .access import Caller, Certificate, Network, includes
from .channel import Channel
from .closing import Closing
from .datasinks import Reception
from .dimsemessages import CCancelRQ, Request, Response
from .dispatch import Dispatcher, Registration
from .dulprovider import DULProtocol, Timeouts
from .exceptions import (
    ConnectionLostError,
    LocalProtocolError,
    NetDICOMError,
    RemoteProtocolError,
    printable,
)
from .identity import User, peer_certificate
from .logs import Logger
from .negotiation import NO_WINDOW, Agreed, PContextDef, Window
from .opening import Host, Opening
from .operations import Performer
from .pdu import AAssociateAC, AAssociateRQ, Fragment
from .refusals import Refusal, aborted
from .remoteae import RemoteAE
from .requests import Invoker
from .summary import AssociationSummary
from .uids import VERIFICATION_SOP_CLASS
from .upperlayer import Indication, ProviderAbort

__all__ = ["LocalAE", "ServiceUser"]

# As long as nobody has asked.
_NOBODY = Caller("")


class LocalAE(Host, Protocol):
    """What an association needs of the application entity that it belongs to; ``asce`` is the association."""

    ae_title: str
    supported_scp: Dispatcher
    supported_scu: Dispatcher

    @property
    def reactor(self) -> Any:
        """The reactor, which has many interfaces and no type that has them all."""

    def association_opened(self, asce: Any) -> None:
        """The transport of an association is open."""

    @property
    def proxies(self) -> Sequence[Network]:
        """The networks of proxies and balancers in front of this side."""

    def octets_came(self, octets: int) -> None:
        """Octets came on an association."""

    def association_refused(self, asce: Any, refusal: Refusal) -> None:
        """The peer of an association, or of a connection that has not become one, is refused something."""

    def finish_work(self, asce: Any) -> defer.Deferred[Any] | None:
        """End what is still done behind the answers to a peer that wants to release; None when there is nothing."""

    def operation_performed(
        self,
        asce: Any,
        ctx: PContextDef,
        msg: Request,
        response: Response | None,
        seconds: float,
    ) -> None:
        """An operation has ended after so many seconds, with this last response if one could be sent."""

    def authorize(self, asce: Any, ctx: PContextDef, msg: Request) -> Awaitable[None] | None:
        """Check that a peer may have an operation performed."""

    def association_closed(self, asce: Any) -> None:
        """The transport of an association is gone."""

    def get_file(
        self, asce: Any, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        """A file for an incoming data set, and the position at which it is handed on."""


class ServiceUser:
    """The user of one :class:`~netdicom_tx.dulprovider.DULProtocol`.

    Its attributes are described with :class:`~netdicom_tx.asceprovider.Association`.
    """

    _log = Logger()

    def __init__(
        self,
        ae: LocalAE,
        *,
        is_requestor: bool,
        clock: IReactorTime,
        timeouts: Timeouts,
        remote_ae: RemoteAE | None = None,
    ) -> None:
        self.ae = ae
        self.is_requestor = is_requestor
        self.clock = clock
        self.timeouts = timeouts
        self.remote_ae = remote_ae
        self.accepted_contexts: dict[int, PContextDef] = {}
        self.calling_ae_title = ""
        self.called_ae_title = ""
        self.window: Window = NO_WINDOW
        self.extended: Mapping[str, bytes] = {}
        self.peer_address: IAddress | None = None
        self.caller = _NOBODY
        self.user: User | None = None
        self.request_pdu: AAssociateRQ | None = None
        self.response_pdu: AAssociateAC | None = None
        self._channel = Channel(clock)
        self._reception = Reception(self.accepted_contexts, self._wants_file, self._open_file)
        self._invoker = Invoker(
            self._channel,
            self.accepted_contexts,
            clock=clock,
            timeouts=timeouts,
            on_quiet=lambda: self._closing.settle(),
            on_timeout=lambda timer, seconds: self._closing.time_out(timer, seconds),
        )
        self._performer = Performer(
            self,
            self._channel,
            clock=clock,
            timeouts=timeouts,
            scu=ae.supported_scu,
            take_instance=self._invoker.take_instance,
            on_quiet=lambda: self._closing.settle(),
        )
        self._closing = Closing(
            self._channel,
            requests=self._invoker,
            operations=self._performer,
            arrival=self._reception,
            clock=clock,
            timeouts=timeouts,
            finish_work=lambda: self.ae.finish_work(self),
            on_end=self._ended,
        )
        self._opening = Opening(
            self,
            ae,
            self._channel,
            self._closing,
            adopt=self._adopt,
            clock=clock,
            timeouts=timeouts,
        )
        self._deviations: set[str] = set()
        self._opened: float | None = None  # the time of the clock at which the transport was opened

    @property
    def error(self) -> NetDICOMError | None:
        """Why the association is over; None while it is not."""
        return self._closing.error

    @property
    def is_check(self) -> bool:
        """Whether a balancer only looks if this side answers: its association can do nothing but echo."""
        if self.is_requestor or not self.accepted_contexts or not self.ae.proxies:
            return False
        host = getattr(self.peer_address, "host", "")
        return includes(self.ae.proxies, host) and all(
            each.sop_class == VERIFICATION_SOP_CLASS for each in self.accepted_contexts.values()
        )

    @property
    def peer_title(self) -> str:
        """The AE title of the other side, safe for logs."""
        return printable(self.called_ae_title if self.is_requestor else self.calling_ae_title)

    @property
    def peer_certificate(self) -> Certificate | None:
        """The certificate that the peer has shown; None without TLS, or without a certificate."""
        return peer_certificate(self._channel.dul.transport)

    @property
    def summary(self) -> AssociationSummary:
        """What has happened so far, in numbers."""
        received, sent = self._channel.octets
        return AssociationSummary(
            reason=self.error,
            is_accepted=self.response_pdu is not None,
            duration=0.0 if self._opened is None else self.clock.seconds() - self._opened,
            performed=dict(self._performer.counts),
            requested=dict(self._invoker.counts),
            octets_received=received,
            octets_sent=sent,
        )

    @property
    def under_way(self) -> list[str]:
        """The operations that have no final response yet, those of the peer first."""
        return self._performer.under_way + self._invoker.under_way

    # -- what admission looks at -------------------------------------------------------------------

    @property
    def is_requested(self) -> bool:
        """Whether the A-ASSOCIATE-RQ has come."""
        return self.request_pdu is not None

    @property
    def is_owed(self) -> bool:
        """Whether the peer waits for something from this side other than a response."""
        return self._closing.is_owed

    @property
    def is_slow(self) -> bool:
        """Whether the peer has begun a message and hardly sends any of it."""
        return self._closing.is_slow

    @property
    def age(self) -> float:
        """How many seconds ago the connection was opened."""
        return 0.0 if self._opened is None else self.clock.seconds() - self._opened

    @property
    def silence(self) -> float:
        """How many seconds ago something came last."""
        return self.clock.seconds() - self._channel.dul.last_received

    def scp_for(self, sop_class: str) -> Registration | None:
        """The service that answers requests of a SOP class on this association; None when no service does."""
        return self.ae.supported_scp.find(sop_class)

    def performed(
        self, ctx: PContextDef, msg: Request, response: Response | None, seconds: float
    ) -> None:
        """An operation has ended after so many seconds, with this last response if one could be sent."""
        self.ae.operation_performed(self, ctx, msg, response, seconds)

    def authorize(self, ctx: PContextDef, msg: Request) -> Awaitable[None] | None:
        """Check that the peer may have an operation performed.

        Raises:
            StatusError: It may not.
        """
        return self.ae.authorize(self, ctx, msg)

    # -- what the upper layer tells ----------------------------------------------------------------

    def connected(self, dul: DULProtocol) -> None:
        self._channel.attach(dul)
        self._opened = self.clock.seconds()
        self.peer_address = dul.peer
        dul.on_octets = self.ae.octets_came
        self.ae.association_opened(self)
        if self.is_requestor:
            self._opening.await_answer()

    def indicated(self, what: Indication) -> None:
        if isinstance(what, Fragment):
            self._receive(what)
        elif isinstance(what, AAssociateRQ):
            self._requested(what)
        elif isinstance(what, AAssociateAC):
            assert self.request_pdu is not None
            self._tell(what.deviations(self.request_pdu))
            self._opening.confirm(self.request_pdu, what)
        else:
            if isinstance(what, ProviderAbort):
                self.refused(aborted(what.detail))
            self._closing.indicated(what)

    def refused(self, refusal: Refusal) -> None:
        """Let the log say, now or later, that this peer is refused."""
        self.ae.association_refused(self, refusal)

    def stalled(self, seconds: float) -> None:
        self._closing.time_out("send", seconds)
        # The A-ABORT is queued behind octets that the peer does not take.
        self._channel.drop()

    def sending_failed(self, error: Exception) -> None:
        self._closing.fail(
            LocalProtocolError(f"a data set could not be read to its end: {error!r:.200}")
        )

    def disconnected(self, reason: Failure) -> None:
        if self.error is None:
            self._closing.end(
                ConnectionLostError(f"the connection was lost: {reason.getErrorMessage()}")
            )
        self.ae.association_closed(self)
        self._closing.disconnected()

    def _requested(self, request: AAssociateRQ) -> None:
        if self.error is not None:
            self._channel.abort()  # this side has ended the association before it began
            return
        self.request_pdu = request
        self.calling_ae_title = request.calling_ae_title
        self.called_ae_title = request.called_ae_title
        self._tell(request.deviations)
        self._opening.decide(request)

    def _adopt(self, agreed: Agreed) -> None:
        self.response_pdu = agreed.answer
        self.accepted_contexts.update(agreed.contexts)
        self.window = agreed.window
        self._invoker.limit = agreed.window.invoked
        self._performer.limit = agreed.window.performed
        self._channel.send_limit = agreed.send_limit
        self.extended = agreed.extended

    def _ended(self, error: NetDICOMError) -> None:
        """The association is over, and its parts have been told."""
        self._opening.end(error)
        if self.response_pdu is not None:
            self._log.emit(
                LogLevel.debug if self.is_check else LogLevel.info,
                "association with {peer} is over: {error}; {summary}",
                peer=self.peer_title,
                error=error,
                summary=self.summary,
                event="association-ended",
            )

    # -- messages in -------------------------------------------------------------------------------

    def _receive(self, piece: Fragment) -> None:
        try:
            received = self._reception.receive(piece)
        except RemoteProtocolError as error:
            self._channel.dul.invalid(error)
            return
        if received is None:
            if self._reception.is_busy:
                self._invoker.hear()
            return
        ctx, message, failure = received
        self._tell(message.deviations)
        if isinstance(message, Response):
            if not self._invoker.respond(message):
                self._log.warn(
                    "{peer}: {operation} response to message {id}, which was not asked; ignored",
                    peer=self.peer_title,
                    operation=message.OPERATION,
                    id=message.message_id_being_responded_to,
                )
        elif isinstance(message, CCancelRQ):
            self._performer.cancel(message.message_id_being_responded_to)
        else:
            assert isinstance(message, Request)
            if message.OPERATION == "C-STORE":
                self._invoker.hear()
            self._performer.take(ctx, message, failure)

    def _wants_file(self, ctx: PContextDef) -> bool:
        registration = self.scp_for(ctx.sop_class)
        return registration is not None and registration.store_in_file

    def _open_file(self, ctx: PContextDef, message: Request) -> tuple[BinaryIO, int]:
        return self.ae.get_file(self, ctx, message)

    def _tell(self, deviations: Iterable[str]) -> None:
        """Log each kind of harmless deviation of the peer, once."""
        for each in deviations:
            if each not in self._deviations:
                self._deviations.add(each)
                self._log.debug("{peer}: {deviation}", peer=self.peer_title, deviation=each)
