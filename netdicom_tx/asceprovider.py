"""The association that programs and services hold: it sends requests and responses, and ends (PS3.7 7, PS3.8 7).

:class:`Association` is a facade. The work is done by its parts, which
:class:`~netdicom_tx.serviceuser.ServiceUser` joins and lists.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet import defer

from . import negotiation
from .arguments import check_type
from .datasinks import IDENTIFIER_LIMIT, MEMORY_LIMIT
from .dimsemessages import Message, Request, Response
from .exceptions import (
    AssociationError,
    ClassNotSupportedError,
)
from .negotiation import PContextDef
from .requests import HIGH_WATER, Outstanding, ResponseStream
from .serviceuser import LocalAE, ServiceUser

__all__ = [
    "IDENTIFIER_LIMIT",
    "MEMORY_LIMIT",
    "Association",
    "LocalAE",
    "PContextDef",
    "ResponseStream",
]

_Stream = TypeVar("_Stream", bound=ResponseStream[Any])


class Association(ServiceUser):
    """One association, of either side.

    Attributes:
        ae: The application entity of this side.
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
        caller: Who has asked for the association, as the rules of :mod:`netdicom_tx.access` see it; it is known to an
            acceptor when the request has come.
        user: The user of the peer, whose identity this side has checked; None when it has not.
        request_pdu: The A-ASSOCIATE-RQ; None before it came.
        response_pdu: The A-ASSOCIATE-AC; None before the association was accepted.
    """

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
    def operations(self) -> int:
        """How many requests of either side have no final response yet."""
        return len(self._performer) + len(self._invoker)

    @property
    def held(self) -> int:
        """How many octets are in memory: of incomplete PDUs and messages, and of what is unread on either side."""
        return self._channel.held + self._reception.held + self._performer.held + self._invoker.held

    def contexts_for(self, sop_class: str) -> tuple[PContextDef, ...]:
        """The accepted contexts of an abstract syntax, in the order in which they were proposed."""
        accepted = self.accepted_contexts
        found = [number for number, ctx in accepted.items() if ctx.sop_class == sop_class]
        return tuple(accepted[number] for number in sorted(found))

    def refusals(self, sop_class: str) -> dict[str, str]:
        """The peer's answer to each transfer syntax that was proposed with a SOP class."""
        if self.request_pdu is None or self.response_pdu is None:
            return {}
        return negotiation.refusals(self.request_pdu, self.response_pdu, sop_class)

    def get_scu(self, sop_class: str) -> Callable[..., Any]:
        """The SCU service of a SOP class, bound to this association and its context.

        Returns:
            A callable with the parameters of the service that follow ``asce`` and ``ctx``.

        Raises:
            ClassNotSupportedError: The peer has accepted no context for the SOP class, or no SCU is registered
                for it.
        """
        registration = self.ae.supported_scu.find(sop_class)
        if registration is None:
            raise ClassNotSupportedError(
                sop_class, self.refusals(sop_class), "this AE has no SCU for it: add_scu"
            )
        for ctx in self.contexts_for(sop_class):
            if ctx.as_scu:
                return partial(registration.service, self, ctx)
        role = self.role_of_scu if self.contexts_for(sop_class) else ""
        raise ClassNotSupportedError(sop_class, self.refusals(sop_class), role=role)

    @property
    def role_of_scu(self) -> str:
        """The role that must be negotiated for this side to be SCU, in words."""
        if self.is_requestor:
            return "the SCU role of this side"
        return f"the SCP role of its requestor, {self.peer_title}"

    @property
    def is_retrieving(self) -> bool:
        """Whether a reader takes the instances of an outstanding C-GET of this side."""
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
        """Wait, but not longer than the association lasts. Cancelling the Deferred ends the wait."""
        over = self.closed()
        over.addTimeout(seconds, self.clock, lambda *_: None)
        await over

    def owing(self) -> AbstractContextManager[None]:
        """Count the peer as waiting for this side, and so as not idle, while the block runs."""
        return self._closing.owing()

    def closed(self) -> defer.Deferred[AssociationError]:
        """Wait until the connection is gone.

        Returns:
            A new Deferred at each call. It fires with the reason, which is an
            :class:`~netdicom_tx.exceptions.AssociationReleasedError` after a release. Cancelling it forgets the
            wait.
        """
        return self._closing.closed()

    # -- the beginning and the end -----------------------------------------------------------------

    def established(self) -> defer.Deferred[Association]:
        """Wait, as the requestor, until the peer has accepted the association.

        Returns:
            Fires with this association. If the association ends before, it fails with the reason. Cancelling it
            aborts the association, and it fails with CancelledError.
        """
        return self._opening.established()

    def abort(self) -> None:
        """End the association at once: A-ABORT, source service-user (PS3.8 7.3).

        Everything outstanding fails with an AssociationAbortedError whose ``by_peer`` is False.
        """
        self._closing.abort()

    def drop(self) -> None:
        """Close the connection without waiting for the peer; octets that the peer has not taken are lost."""
        self._channel.drop()

    def hang_up(self, seconds: float) -> None:
        """Close the connection when all that was written has gone out, or after some seconds at the latest."""
        self._channel.hang_up(seconds)

    def finish(self, answer_within: float | None = None) -> None:
        """Release the association as soon as nothing is under way; end it at once when it is not open.

        Args:
            answer_within: How many seconds the peer has to answer A-RELEASE-RQ, and then to close the
                connection. None means ``timeouts.release``, and ``timeouts.artim`` to close.
        """
        self._closing.finish(answer_within)

    def release(self) -> defer.Deferred[None]:
        """End the association in order, when all requests have been answered (PS3.8 7.2).

        A release waits for the requests of both sides, because a side that has asked for release may not send a
        response any more. Operations for the peer have ``timeouts.release`` to end. Those that have not ended by
        then are cancelled when the peer agrees. A handler that waits for the release of its own association waits
        that long.

        Returns:
            Fires when the peer has agreed, or at once when the association was released before. If the association
            ends in another way, it fails with the reason. Cancelling it aborts the association, and it fails with
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

        If the association has ended before, the reason is raised only if no call in the block has raised it.
        """
        if kind is GeneratorExit:
            # The block was thrown away where it waited. What it waited for fails with the association, and
            # must not wake the block while it is being closed.
            self.clock.callLater(0, self.abort)
        elif kind is not None:
            self.abort()
        elif not (self.error is not None and self._invoker.is_told):
            await self.release()

    # -- messages ----------------------------------------------------------------------------------

    def send(self, message: Message, ctx: PContextDef | int) -> None:
        """Send a response without waiting. Most services do not need this, because they return their answer.

        Args:
            message: A response; use :meth:`request` for requests.
            ctx: The presentation context, or its ID.

        Raises:
            TypeError: ``message`` is not a response, or ``ctx`` is not a presentation context.
            AssociationError: The association is over, or about to be.
            LocalProtocolError: A value of the command set does not fit.
        """
        check_type("message", message, Response, "a response: request() sends requests")
        if not isinstance(ctx, int):
            check_type("ctx", ctx, PContextDef, "a presentation context, or its ID")
        self._performer.send(message, ctx if isinstance(ctx, int) else ctx.id)

    def pending_command(self, response: Response, ctx: PContextDef) -> bytes:
        """The PDUs of a Pending response without its data set, for :meth:`send_pending`."""
        return self._channel.command(response, ctx.id)

    def send_pending(self, command: bytes, data_set: bytes, ctx: PContextDef) -> None:
        """Send a Pending response that differs from another one only in its data set.

        Raises:
            AssociationError: The association is over, or about to be.
        """
        self._performer.send_pending(command, data_set, ctx.id)

    @property
    def is_congested(self) -> bool:
        """Whether the peer is slow to read what this side sends."""
        return self._channel.is_congested

    async def breathe(self) -> None:
        """Wait while the peer is slow to read, or else for the reactor's next turn.

        Cancelling the Deferred ends the wait. The end of the association cancels it.
        """
        await self._channel.breathe()

    def next_message_id(self) -> int:
        """Return the next message ID that is not in use, 1 to 65535.

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
            timeout: How many seconds the response may take, greater than 0; None means ``timeouts.response``.

        Returns:
            Fires with the response, whatever its status. Fails when the association ends (AssociationError) or
            the response does not come in time (DCMTimeoutError, and the association is aborted). Cancelling it
            sends nothing, because DIMSE cannot take such a request back; the late response is dropped. A request
            that still waits for its turn is not sent then.

        Raises:
            TypeError, ValueError, LocalProtocolError: An argument is wrong: an element of the request has a value
                that cannot be sent, or the context is not one of this association, or not one for requests of
                ours.
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
            convert: Converts each response to an item of the stream.
            timeout: How many seconds may pass between two responses.
            kind: The class of the stream.
            high_water: The number of unread items above which the transport is paused.

        Returns:
            A stream of the items that ``convert`` returns. If the association ends, its reader gets an exception
            with the reason.
            Cancelling a Deferred of its reader cancels the operation, as :class:`ResponseStream` says.

        Raises:
            TypeError, ValueError, LocalProtocolError: An argument is wrong, as for :meth:`request`.
        """
        return self._invoker.request_many(message, ctx, convert, timeout, kind, high_water)

    def cancel_request(self, one: Outstanding) -> None:
        """Send C-CANCEL-RQ for a request that has been sent; take back one that still waits for its turn."""
        self._invoker.cancel_request(one)

    def withdraw(self, message_id: int) -> bool:
        """Take back a request that still waits for its turn, whose Deferred then fails with CancelledError.

        Returns:
            Whether it was still waiting; nothing takes back a request that has been sent.
        """
        return self._invoker.withdraw(message_id)

    # -- pressure ----------------------------------------------------------------------------------

    def pause(self, holder: object) -> None:
        """Stop reading from the transport until every holder has called :meth:`resume`."""
        self._channel.pause(holder)

    def resume(self, holder: object) -> None:
        """Give up one hold; see :meth:`pause`."""
        self._channel.resume(holder)
