"""How an association begins: the wait of the requestor, and the decision of the acceptor (PS3.8 7.1).

:mod:`netdicom_tx.negotiation` decides what is agreed on. :class:`Opening` asks the application entity, waits
for its verdict, and sends or awaits the answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeGuard

from twisted.internet import defer
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from . import negotiation
from .channel import Channel
from .closing import Closing
from .dulprovider import Timeouts
from .exceptions import (
    AssociationError,
    AssociationRejectedError,
    DCMTimeoutError,
    LocalProtocolError,
    NetDICOMError,
    PDUProcessingError,
    printable,
)
from .identity import NotAuthenticatedError
from .logs import Logger
from .negotiation import Agreed, Offer, Window
from .pdu import AAssociateAC, AAssociateRJ, AAssociateRQ
from .quirks import Quirks
from .refusals import Refusal, no_contexts, place
from .userdataitems import SOPClassExtendedNegotiation, UserIdentityResponse

__all__ = ["Opening", "Verdict"]

#: What ``on_association_request`` returns: None to accept, with a user identity response where the peer has asked
#: for one.
Verdict = UserIdentityResponse | None | Awaitable[UserIdentityResponse | None]


class Host(Protocol):
    """What the opening of an association needs of its application entity; ``asce`` is the association."""

    #: How many outstanding operations the AE grants.
    window: Window

    def quirks_of(self, asce: Any) -> Quirks:
        """What is agreed on with this peer, whatever the AE would negotiate."""

    def reject_reason(self, asce: Any, request: AAssociateRQ) -> AAssociateRJ | None:
        """Why a request is rejected before the hook is asked, or None."""

    def explain(self, asce: Any, request: AAssociateRQ, rejection: AAssociateRJ) -> Refusal:
        """Say why a request is rejected, in the words of an operator."""

    def offers_to(self, asce: Any) -> Callable[[str], Offer | None]:
        """What gives the offer to this peer for an abstract syntax; None when the AE has no service for it."""

    def check_user(self, asce: Any, request: AAssociateRQ) -> Verdict:
        """Check the identity of the user of a peer, before the hook is asked."""

    def on_association_request(self, asce: Any, assoc: AAssociateRQ) -> Verdict:
        """Decide on the association that a peer asks for."""

    def answer_extended(self, asce: Any, proposal: SOPClassExtendedNegotiation) -> bytes | None:
        """The answer to SOP class extended negotiation; None leaves it unanswered."""

    def on_association_response(self, response: AAssociateAC) -> Awaitable[None] | None:
        """A peer has accepted our association."""

    def association_accepted(self, asce: Any) -> None:
        """The association is established, on either side."""


class Party(Protocol):
    """What its opening needs of an association."""

    peer_address: IAddress | None
    called_ae_title: str

    @property
    def peer_title(self) -> str:
        """The AE title of the peer, safe for logs."""

    @property
    def is_check(self) -> bool:
        """Whether a balancer only looks if this side answers."""

    def refused(self, refusal: Refusal) -> None:
        """Let the log say that the peer is refused."""


class Opening:
    """The beginning of one association.

    Args:
        asce: The association.
        ae: The application entity that it belongs to.
        channel: The transport.
        closing: Is told when the association is open, and why it is not.
        adopt: Called with the agreement, before an acceptance goes out.
        clock: The time of all waits.
        timeouts: Uses ``associate``.
    """

    _log = Logger()

    def __init__(
        self,
        asce: Party,
        ae: Host,
        channel: Channel,
        closing: Closing,
        *,
        adopt: Callable[[Agreed], None],
        clock: IReactorTime,
        timeouts: Timeouts,
    ) -> None:
        self._asce = asce
        self._ae = ae
        self._channel = channel
        self._closing = closing
        self._adopt = adopt
        self._clock = clock
        self._timeouts = timeouts
        # Fires with the association; hence Any.
        self._established: defer.Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._asked: defer.Deferred[Any] | None = None  # a hook that has not answered yet

    # -- requestor ---------------------------------------------------------------------------------

    def established(self) -> defer.Deferred[Any]:
        """See :meth:`Association.established`."""

        def cancel(_: defer.Deferred[Any]) -> None:
            self._established = None
            self._closing.abort()

        self._established = defer.Deferred(cancel)
        return self._established

    def await_answer(self) -> None:
        """Start the timer, because the request goes out now: the answer may take ``timeouts.associate``."""
        seconds = self._timeouts.associate
        self._timer = self._clock.callLater(seconds, self._closing.time_out, "associate", seconds)

    def confirm(self, request: AAssociateRQ, answer: AAssociateAC) -> None:
        """A-ASSOCIATE-AC came."""
        self._stop_timer()
        try:
            agreed = negotiation.confirmed(request, answer)
        except PDUProcessingError as error:
            self._channel.dul.invalid(error)
            return
        except AssociationError as error:
            self._closing.fail(error)
            return
        self._take(agreed, self._ae.quirks_of(self._asce))
        self._closing.opened()
        self._closing.established(watch_idle=False)
        self._ae.association_accepted(self._asce)
        told = defer.Deferred.fromCoroutine(self._tell(answer))
        told.addBoth(self._confirmed)

    async def _tell(self, answer: AAssociateAC) -> None:
        result = self._ae.on_association_response(answer)
        if _is_awaitable(result):
            await self._settled(result)

    def _take(self, agreed: Agreed, quirks: Quirks) -> None:
        """Let what was agreed on hold, with what this peer needs."""
        send_limit = quirks.limit(agreed.send_limit)
        if send_limit != agreed.send_limit:
            agreed = replace(agreed, send_limit=send_limit)
        self._adopt(agreed)

    def _confirmed(self, outcome: object) -> None:
        """The hook has heard of the acceptance."""
        waiting, self._established = self._established, None
        if isinstance(outcome, Failure):
            # The caller that asked for the association gets the exception of the hook.
            self._closing.abort()
        if waiting is not None:
            waiting.callback(outcome if isinstance(outcome, Failure) else self._asce)

    # -- acceptor ----------------------------------------------------------------------------------

    def decide(self, request: AAssociateRQ) -> None:
        """A-ASSOCIATE-RQ came (Sta3): accept it, reject it, or abort.

        Hooks that answer at once cost neither a coroutine nor a Deferred.
        """
        try:
            if self._is_refused(request):
                return
            checked = self._ae.check_user(self._asce, request)
            verdict: Verdict = None
            if not _is_awaitable(checked) and self._closing.error is None:
                verdict = self._ae.on_association_request(self._asce, request)
            if not (_is_awaitable(checked) or _is_awaitable(verdict)):
                self._accept(request, _identity(checked, verdict))
                return
        except Exception:
            self._not_accepted(Failure())
            return
        later = self._decide_later(request, checked, verdict)
        defer.Deferred.fromCoroutine(later).addErrback(self._not_accepted)

    def _is_refused(self, request: AAssociateRQ) -> bool:
        """Abort or reject a request that no hook has to see."""
        try:
            negotiation.check_context_ids(request)
        except PDUProcessingError as error:
            self._channel.dul.invalid(error)
            return True
        rejection = self._ae.reject_reason(self._asce, request)
        if rejection is None:
            return False
        self._reject(rejection, self._ae.explain(self._asce, request, rejection))
        return True

    async def _decide_later(
        self, request: AAssociateRQ, checked: Verdict, verdict: Verdict
    ) -> None:
        """Wait for what the hooks say; the user is checked before the other hook is asked."""
        if _is_awaitable(checked):
            checked = await self._settled(checked)
            if self._closing.error is None:
                verdict = self._ae.on_association_request(self._asce, request)
        if _is_awaitable(verdict):
            verdict = await self._settled(verdict)
        self._accept(request, _identity(checked, verdict))

    async def _settled(self, result: Awaitable[Any]) -> Any:
        """What the Deferred or coroutine of a hook gives within ``timeouts.associate``."""
        asked: defer.Deferred[Any] = defer.ensureDeferred(result)  # type: ignore[arg-type]  # or a Deferred
        self._asked = asked
        seconds = self._timeouts.associate
        asked.addTimeout(seconds, self._clock)
        try:
            return await asked
        except defer.TimeoutError as error:
            raise DCMTimeoutError("associate", seconds) from error
        finally:
            self._asked = None

    def _accept(self, request: AAssociateRQ, identity: UserIdentityResponse | None) -> None:
        if self._closing.error is not None:
            return  # the peer went away meanwhile
        dul = self._channel.dul
        quirks = self._ae.quirks_of(self._asce)
        agreed = negotiation.answer(
            request,
            offers=self._ae.offers_to(self._asce),
            window=quirks.window_or(self._ae.window),
            receive_limit=quirks.limit(dul.machine.receive_limit),
            extended=partial(self._ae.answer_extended, self._asce),
            identity=identity,
        )
        self._take(agreed, quirks)
        self._closing.opened()
        # The peer goes on while this side writes its line.
        dul.accept(agreed.answer)
        self._log.emit(
            LogLevel.debug if self._asce.is_check else LogLevel.info,
            "association from {peer} at {address} to {called}: {accepted} of {proposed} contexts",
            peer=self._asce.peer_title,
            address=place(self._asce.peer_address),
            called=printable(self._asce.called_ae_title),
            accepted=len(agreed.contexts),
            proposed=len(agreed.answer.presentation_contexts),
            event="association-began",
        )
        if not agreed.contexts:
            self._asce.refused(no_contexts(request, agreed.answer))
        self._closing.established(watch_idle=True)
        if self._closing.error is None:
            self._ae.association_accepted(self._asce)

    def _not_accepted(self, failure: Failure) -> None:
        """A hook rejects the association, or has failed."""
        error = failure.value
        is_over = self._closing.error is not None
        if isinstance(error, AssociationRejectedError):
            if not is_over:
                refusal = Refusal("rejected", f"on_association_request rejects it: {error}")
                self._reject(
                    AAssociateRJ(error.result, error.source, error.diagnostic),
                    error.refusal if isinstance(error, NotAuthenticatedError) else refusal,
                )
            return
        if is_over and failure.check(defer.CancelledError, NetDICOMError):
            return  # the peer has left in the meantime, but a mistake is still logged
        self._log.failure("on_association_request failed", failure)
        if not is_over:
            self._reject(
                AAssociateRJ(2, 1, 1), Refusal("rejected", "on_association_request has failed")
            )

    def _reject(self, rejection: AAssociateRJ, refusal: Refusal) -> None:
        self._asce.refused(refusal)
        self._closing.end(
            AssociationRejectedError(rejection.result, rejection.source, rejection.reason)
        )
        self._channel.dul.reject(rejection)

    # -- the end -----------------------------------------------------------------------------------

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def end(self, error: NetDICOMError) -> None:
        """The association is over, perhaps before it was open."""
        self._stop_timer()
        if self._asked is not None:
            # Cancel in a fresh turn, because a coroutine can be cancelled only while it waits.
            self._clock.callLater(0, self._asked.cancel)
        established, self._established = self._established, None
        if established is not None:
            established.errback(error)


def _is_awaitable(value: object) -> TypeGuard[Awaitable[Any]]:
    return value is not None and inspect.isawaitable(value)


def _identity(checked: object, verdict: object) -> UserIdentityResponse | None:
    """The answer to the user identity: what the hook gives, or else what the check gives.

    Raises:
        LocalProtocolError: The hook has given something else.
    """
    if verdict is None:
        verdict = checked
    if verdict is None or isinstance(verdict, UserIdentityResponse):
        return verdict
    raise LocalProtocolError(
        f"on_association_request returned {verdict!r:.80}; expected None or a UserIdentityResponse, or "
        "AssociationRejectedError to be raised"
    )
