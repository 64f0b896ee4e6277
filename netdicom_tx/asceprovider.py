"""An association as its users hold it: requests out, responses and requests in (PS3.7 7, PS3.8 7).

:class:`Association` is the service user of one :class:`~netdicom_tx.dulprovider.DULProtocol`. It decides nothing
itself; it holds six parts together, hands each what concerns it, and is what services and programs see:

===============  ==============================  ==========================================================
part             module                          its concern
===============  ==============================  ==========================================================
``Channel``      :mod:`netdicom_tx.channel`      messages go out; reading is held while a part is behind
``Opening``      :mod:`netdicom_tx.opening`      the request, the verdict on it and the answer to it
``Reception``    :mod:`netdicom_tx.datasinks`    the message that is arriving, and where its data set goes
``Invoker``      :mod:`netdicom_tx.requests`     what this side has asked and waits for
``Performer``    :mod:`netdicom_tx.operations`   what this side performs for the peer
``Closing``      :mod:`netdicom_tx.closing`      how the association ends; tells the others when it does
===============  ==============================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeVar

from twisted.internet import defer
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import negotiation
from .channel import Channel
from .closing import Closing
from .datasinks import IDENTIFIER_LIMIT, MEMORY_LIMIT, Reception
from .dimsemessages import CCancelRQ, Message, Request, Response
from .dispatch import Dispatcher, Registration
from .dulprovider import DULProtocol, Timeouts
from .exceptions import (
    AssociationError,
    ClassNotSupportedError,
    ConnectionLostError,
    LocalProtocolError,
    NetDICOMError,
    RemoteProtocolError,
    printable,
)
from .negotiation import NO_WINDOW, Agreed, PContextDef, Window
from .opening import Host, Opening
from .operations import Performer
from .pdu import (
    AAssociateAC,
    AAssociateRQ,
    Fragment,
)
from .remoteae import RemoteAE
from .requests import HIGH_WATER, Invoker, Outstanding, ResponseStream
from .summary import AssociationSummary
from .upperlayer import Indication, ProviderAbort

__all__ = [
    "IDENTIFIER_LIMIT",
    "MEMORY_LIMIT",
    "Association",
    "LocalAE",
    "PContextDef",
    "ResponseStream",
]

_Stream = TypeVar("_Stream", bound=ResponseStream[Any])


class LocalAE(Host, Protocol):
    """What an association needs of the application entity that it belongs to."""

    supported_scp: Dispatcher
    supported_scu: Dispatcher

    def association_opened(self, asce: Association) -> None:
        """The transport of an association is open."""

    def association_closed(self, asce: Association) -> None:
        """The transport of an association is gone."""

    def get_file(
        self, asce: Association, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        """A file for an incoming data set, and the position at which it is handed on."""


class Association:
    """One association, of either side.

    Attributes:
        ae: The application entity that this side is.
        is_requestor: Whether this side asks for the association.
        clock: The time of all waits.
        timeouts: How long each wait may take.
        remote_ae: The application entity that was called; None for an acceptor.
        accepted_contexts: The presentation contexts by their IDs.
        calling_ae_title: The AE title of the requestor.
        called_ae_title: The AE title by which the requestor has called the acceptor.
        window: How many operations may be outstanding at once, from this side's view.
        extended: What was agreed on by SOP class extended negotiation, by SOP class (PS3.7 D.3.3.5).
        peer_address: The address of the peer; None before there is a transport.
        request_pdu: The A-ASSOCIATE-RQ; None before it came.
        response_pdu: The A-ASSOCIATE-AC; None before the association was accepted.
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
        # Services ask the AE for hooks of which an association knows nothing; hence Any.
        self.ae: Any = ae
        self._ae = ae
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
        self._opened: float | None = None  # by the clock, when the transport was

    # -- facts -------------------------------------------------------------------------------------

    @property
    def send_limit(self) -> int:
        """The largest P-DATA-TF that the peer admits, in octets; 0 means no limit."""
        return self._channel.send_limit

    def __repr__(self) -> str:
        way = "to" if self.is_requestor else "from"
        return f"<Association {way} {self.peer_title}, {'open' if self.is_open else 'over'}>"

    @property
    def is_open(self) -> bool:
        """Whether the association is established and not over."""
        return self._closing.is_open

    @property
    def error(self) -> NetDICOMError | None:
        """Why the association is over; None while it is not."""
        return self._closing.error

    @property
    def peer_title(self) -> str:
        """The AE title of the other side, safe for logs."""
        return printable(self.called_ae_title if self.is_requestor else self.calling_ae_title)

    @property
    def operations(self) -> int:
        """How many requests of either side have no final response yet."""
        return len(self._performer) + len(self._invoker)

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

    def contexts_for(self, sop_class: str) -> tuple[PContextDef, ...]:
        """The accepted contexts of an abstract syntax, in the order in which they were proposed."""
        return tuple(
            ctx for _, ctx in sorted(self.accepted_contexts.items()) if ctx.sop_class == sop_class
        )

    def refusals(self, sop_class: str) -> dict[str, str]:
        """What the peer said to each transfer syntax that was proposed with a SOP class."""
        if self.request_pdu is None or self.response_pdu is None:
            return {}
        return negotiation.refusals(self.request_pdu, self.response_pdu, sop_class)

    def get_scu(self, sop_class: str) -> Callable[..., Any]:
        """The SCU service of a SOP class, bound to this association and its context.

        Returns:
            A callable that takes what the service takes after ``asce`` and ``ctx``.

        Raises:
            ClassNotSupportedError: The peer has accepted no context for the SOP class, or no SCU is registered
                for it.
        """
        registration = self._ae.supported_scu.find(sop_class)
        if registration is None:
            raise ClassNotSupportedError(
                sop_class, self.refusals(sop_class), "this AE has no SCU for it: add_scu"
            )
        for ctx in self.contexts_for(sop_class):
            if ctx.as_scu:
                return partial(registration.service, self, ctx)
        raise ClassNotSupportedError(sop_class, self.refusals(sop_class))

    def scp_for(self, sop_class: str) -> Registration | None:
        """The service that answers requests of a SOP class on this association; None when no service does."""
        return self._ae.supported_scp.find(sop_class)

    @property
    def is_retrieving(self) -> bool:
        """Whether a C-GET of ours is outstanding whose instances are read."""
        return self._invoker.is_retrieving

    def context_as_scp(self, sop_class: str) -> PContextDef:
        """The context of a SOP class on which we report events over an association that we have requested.

        Many SCUs accept such a context without answering the role selection. They take the report that they asked
        for by N-ACTION nevertheless, so accepting the context counts as consent.

        Raises:
            ClassNotSupportedError: The peer has accepted no context for the SOP class.
        """
        for ctx in self.contexts_for(sop_class):
            if not ctx.as_scp:
                ctx = self.accepted_contexts[ctx.id] = replace(ctx, as_scp=True)
            return ctx
        raise ClassNotSupportedError(sop_class, self.refusals(sop_class))

    async def pause_for(self, seconds: float) -> None:
        """Wait, but not longer than the association lasts."""
        over = self.closed()
        over.addTimeout(seconds, self.clock, lambda *_: None)
        await over

    def owing(self) -> AbstractContextManager[None]:
        """While the block runs, the peer waits for something of ours and is not idle."""
        return self._closing.owing()

    def closed(self) -> defer.Deferred[AssociationError]:
        """Wait until the connection is gone.

        Returns:
            A new Deferred at each call. It fires with the reason, which is an
            :class:`~netdicom_tx.exceptions.AssociationReleasedError` after a release. Cancelling it forgets the
            wait.
        """
        return self._closing.closed()

    # -- the user of the upper layer ---------------------------------------------------------------

    def connected(self, dul: DULProtocol) -> None:
        self._channel.attach(dul)
        self._opened = self.clock.seconds()
        self.peer_address = dul.peer
        self._ae.association_opened(self)
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
                self._log.warn(
                    "association with {peer}: aborted, {detail}",
                    peer=self.peer_title or self.peer_address,
                    detail=printable(what.detail, 200),
                )
            self._closing.indicated(what)

    def stalled(self, seconds: float) -> None:
        self._closing.time_out("send", seconds)
        # The A-ABORT stands behind what the peer does not take.
        self._channel.drop()

    def sending_failed(self, error: Exception) -> None:
        self._closing.fail(
            LocalProtocolError(f"a data set could not be read to its end: {error!r:.200}")
        )

    def disconnected(self, reason: Failure) -> None:
        self._closing.end(
            ConnectionLostError(f"the connection was lost: {reason.getErrorMessage()}")
        )
        self._ae.association_closed(self)
        self._closing.disconnected()

    # -- establishment -----------------------------------------------------------------------------

    def established(self) -> defer.Deferred[Association]:
        """Wait, as the requestor, until the peer has accepted the association.

        Returns:
            Fires with this association. Fails with what has ended it before. Cancelling it aborts the
            association, and it fails with CancelledError.
        """
        return self._opening.established()

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

    # -- the end -----------------------------------------------------------------------------------

    def _ended(self, error: NetDICOMError) -> None:
        """The association is over, and its parts have been told."""
        self._opening.end(error)
        if self.response_pdu is not None:
            self._log.info(
                "association with {peer} is over: {error}", peer=self.peer_title, error=error
            )

    def abort(self) -> None:
        """End the association at once: A-ABORT, source service-user (PS3.8 7.3).

        Everything outstanding fails with an AssociationAbortedError whose ``by_peer`` is False.
        """
        self._closing.abort()

    def drop(self) -> None:
        """Close the connection without waiting for the peer; what the peer has not taken is lost."""
        self._channel.drop()

    def finish(self) -> None:
        """Release the association as soon as nothing is under way; end it at once when it is not open."""
        self._closing.finish()

    def release(self) -> defer.Deferred[None]:
        """End the association in order, when what was requested has been answered (PS3.8 7.2).

        A release waits for the requests of both sides, because a side that has asked for it may send no
        response any more. Operations for the peer have ``timeouts.release`` to end; what is not answered then is
        cancelled when the peer agrees. A handler that waits for the release of its own association waits that
        long.

        Returns:
            Fires when the peer has agreed; at once when the association has been released already. Fails with
            whatever else has ended the association. Cancelling it aborts the association, and it fails with
            CancelledError.
        """
        return self._closing.release()

    async def __aenter__(self) -> Association:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the association; abort it when the block ends with an exception.

        What has ended the association before is raised only if nothing in the block has been told of it.
        """
        if kind is GeneratorExit:
            # The block was thrown away where it waited. What it waited for fails with the association, and
            # must not wake the block while it is being closed.
            self.clock.callLater(0, self.abort)
        elif kind is not None:
            self.abort()
        elif not (self.error is not None and self._invoker.is_told):
            await self.release()

    # -- messages in -------------------------------------------------------------------------------

    def _receive(self, piece: Fragment) -> None:
        try:
            received = self._reception.receive(piece)
        except RemoteProtocolError as error:
            self._channel.dul.invalid(error)
            return
        if received is None:
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
            self._performer.take(ctx, message, failure)

    def _wants_file(self, ctx: PContextDef) -> bool:
        registration = self.scp_for(ctx.sop_class)
        return registration is not None and registration.store_in_file

    def _open_file(self, ctx: PContextDef, message: Request) -> tuple[BinaryIO, int]:
        return self._ae.get_file(self, ctx, message)

    def _tell(self, deviations: Iterable[str]) -> None:
        """Log each kind of harmless deviation of the peer, once."""
        for each in deviations:
            if each not in self._deviations:
                self._deviations.add(each)
                self._log.debug("{peer}: {deviation}", peer=self.peer_title, deviation=each)

    # -- messages out ------------------------------------------------------------------------------

    def send(self, message: Message, ctx: PContextDef | int) -> None:
        """Send a response without waiting for anything; most services answer by what they return.

        Args:
            message: A response; use :meth:`request` for requests.
            ctx: The presentation context, or its ID.

        Raises:
            AssociationError: The association is over, or about to be.
            LocalProtocolError: A value of the command set does not fit.
        """
        self._performer.send(message, ctx if isinstance(ctx, int) else ctx.id)

    def pending_command(self, response: Response, ctx: PContextDef) -> bytes:
        """The PDUs of a Pending response without its data set, for :meth:`send_pending`."""
        return self._channel.pending_command(response, ctx.id)

    def send_pending(self, command: bytes, data_set: bytes, ctx: PContextDef) -> None:
        """Send a Pending response that differs from another in its data set alone.

        Raises:
            AssociationError: The association is over, or about to be.
        """
        self._performer.send_pending(command, data_set, ctx.id)

    @property
    def is_congested(self) -> bool:
        """Whether the peer is behind with reading what we send."""
        return self._channel.is_congested

    async def breathe(self) -> None:
        """Wait while the peer is behind with reading; otherwise for the reactor's next turn."""
        await self._channel.breathe()

    def next_message_id(self) -> int:
        """Count a message ID that is not in use, 1 to 65535.

        Raises:
            LocalProtocolError: All of them are in use.
        """
        return self._invoker.next_message_id()

    def request(
        self, message: Request, ctx: PContextDef, *, timeout: float | None = None
    ) -> defer.Deferred[Response]:
        """Send a request that has one response.

        Args:
            message: The request; the association counts its message ID when that is None.
            ctx: An accepted context of this association.
            timeout: The seconds in which the response must come; None means ``timeouts.response``.

        Returns:
            Fires with the response, whatever its status. Fails when the association ends (AssociationError) or
            the response does not come in time (DCMTimeoutError, and the association is aborted). Cancelling it
            sends nothing, because DIMSE cannot take such a request back; the late response is dropped.
        """
        return self._invoker.request(message, ctx, timeout)

    def request_many(
        self,
        message: Request,
        ctx: PContextDef,
        convert: Callable[[Any], Any],
        *,
        timeout: float | None = None,
        kind: type[_Stream] = ResponseStream,  # type: ignore[assignment]  # a default for a TypeVar
        high_water: int = HIGH_WATER,
    ) -> _Stream:
        """Send a request that has many responses.

        Args:
            message: The request, as for :meth:`request`.
            ctx: An accepted context of this association.
            convert: Makes an item of the stream of each response.
            timeout: The seconds in which each response must follow the one before.
            kind: The class of the stream.
            high_water: The number of unread items above which the transport is paused.
        """
        return self._invoker.request_many(message, ctx, convert, timeout, kind, high_water)

    def cancel_request(self, one: Outstanding) -> None:
        """Send C-CANCEL-RQ for a request that has been sent; take back one that still waits for its turn."""
        self._invoker.cancel_request(one)

    # -- pressure ----------------------------------------------------------------------------------

    def pause(self, holder: object) -> None:
        """Read nothing until every holder has called :meth:`resume`."""
        self._channel.pause(holder)

    def resume(self, holder: object) -> None:
        """Let go of one hold; see :meth:`pause`."""
        self._channel.resume(holder)
