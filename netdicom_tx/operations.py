"""The operations that this side performs for its peer.

The :class:`Performer` of an association takes the requests that come, keeps to the window, and makes an
:class:`Operation` of each. An operation runs the service, sends what it returns or yields, and turns what it raises
into a status. This is the only place with a broad catch.

========================================  ===========================================================================
a service                                 the peer gets
========================================  ===========================================================================
returns a status                          the response with this status
returns (status, data set)                the response with both (N-GET, N-CREATE, ...)
returns a response message                that message
returns a Deferred or a coroutine         as above, when it fires
yields data sets or (data set, status)    a Pending response each, then the final one; FE00 after C-CANCEL
yields response messages                  those messages; one that is not Pending is the last
  and has a coroutine ``cancelled``       after C-CANCEL, the response that this coroutine function returns
returns any other iterable of these       as if it had yielded them: a list, a tuple, ``dict.values()``, a Sequence
is not called: the peer may not do this   0x0124 Not authorized (:mod:`netdicom_tx.access`)
raises EventHandlingError                 the service's failure status, or the one it carries, and its comment
raises anything else                      0x0110 Processing failure; it is logged, the association lives on
has nothing for this operation            0x0211 Unrecognized operation
is not called: the command names another  0x0122 SOP class not supported; the exceptions are those of
SOP class than its presentation context   :data:`~netdicom_tx.dispatch.COMMAND_SOP_CLASSES`
========================================  ===========================================================================

When the association ends, no answer can be sent any more. The handlers of C-ECHO, C-FIND, C-GET, C-MOVE and N-GET
work for the peer alone, so they are cancelled at once, and their generators are closed. Every other handler has
``timeouts.response`` seconds to finish, because its work counts without the peer: a C-STORE is kept. The file of a
received data set is open until its handler has ended. A handler that takes longer is cancelled with a warning in the
log, and the file is closed when the handler has ended. Cancelling cannot stop a thread, so the file may be closed
while a thread is still reading it.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeGuard

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from . import statuses
from .channel import Channel
from .datasinks import give_up
from .dimsemessages import (
    DataSource,
    Message,
    NEventReportRQ,
    Request,
    Response,
    UnknownRQ,
)
from .dispatch import Dispatcher, Registration, Service, contradiction
from .dulprovider import Timeouts
from .encoding import is_data_set
from .exceptions import (
    AssociationError,
    EventHandlingError,
    LocalProtocolError,
    NetDICOMError,
    StatusError,
    afresh,
)
from .logs import Logger
from .negotiation import NO_WINDOW, PContextDef
from .refusals import Refusal
from .statuses import Status
from .streams import status_of
from .uids import name

__all__ = ["Operation", "Performer"]

# How many operations run at once, with the answers that the peer has not taken, when the window has no limit.
_MOST_OPERATIONS = 1024
# Requests that never have a data set (PS3.7 Tables 9.3-12, 10.3-3 and 10.3-11).
_WITHOUT_DATA_SET = frozenset({"C-ECHO", "N-GET", "N-DELETE"})
# The context, the message, and the reason if its data set could not be kept.
_Request = tuple[PContextDef, Request, EventHandlingError | None]

# How many responses of a generator are sent in one turn of the reactor; then a C-CANCEL can be seen.
_RESPONSES_PER_TURN = 16

_FAILURE = {
    "C-STORE": statuses.C_STORE_CANNOT_UNDERSTAND,
    "C-FIND": statuses.C_FIND_UNABLE_TO_PROCESS,
    "C-GET": statuses.C_GET_UNABLE_TO_PROCESS,
    "C-MOVE": statuses.C_MOVE_UNABLE_TO_PROCESS,
}
_PENDING = (0xFF00, 0xFF01)
_CANCELLABLE = ("C-FIND", "C-GET", "C-MOVE")
# The operations that work for the peer alone, and keep nothing.
_FOR_PEER = (*_CANCELLABLE, "C-ECHO", "N-GET")
_COUNTERS = (
    "number_of_remaining_suboperations",
    "number_of_completed_suboperations",
    "number_of_failed_suboperations",
    "number_of_warning_suboperations",
)


class Asked(Protocol):
    """What an operation needs of the association, which services get as their ``asce``."""

    @property
    def peer_title(self) -> str:
        """The AE title of the peer, safe for logs."""

    def refused(self, refusal: Refusal) -> None:
        """Let the log say that the peer is refused."""

    def scp_for(self, sop_class: str) -> Registration | None:
        """The service that answers requests of a SOP class."""

    def performed(
        self, ctx: PContextDef, msg: Request, response: Response | None, seconds: float
    ) -> None:
        """An operation has ended after so many seconds, with this last response if one could be sent."""

    def authorize(self, ctx: PContextDef, msg: Request) -> Awaitable[None] | None:
        """Check that the peer may have an operation performed."""


def _is_status(value: object) -> TypeGuard[int]:
    """Whether a value is a status; True and False are mistakes, not 0x0001 and 0x0000."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_final(response: Response) -> bool:
    """Whether no other response follows.

    Raises:
        ValueError: The status is none.
    """
    status = response.status
    if isinstance(status, int) and 0 <= status < statuses.CANCEL:
        return True  # almost all of them, of which no object has to be found
    return not status_of(response).is_pending


async def _awaited(result: Awaitable[object]) -> object:
    return await result


def _is_many(result: object) -> TypeGuard[Iterable[object]]:
    """Whether a result is an iterable of items, and not one item that happens to be iterable."""
    if isinstance(result, tuple) and any(map(_is_status, result)):
        return False  # a pair (status, data set), or one match with its status
    is_one = isinstance(result, Mapping | str | bytes | bytearray | memoryview) or is_data_set(
        result
    )
    return isinstance(result, Iterable) and not is_one and not hasattr(result, "read")


class Operation:
    """One request that this side performs.

    Args:
        performer: The part of the association that the request came to.
        ctx: The presentation context of the request.
        msg: The request. A data set in a file is closed when the service has ended.
        service: The service that answers.
    """

    _log = Logger()

    # Most operations end with none of these changed, so they are not set for each one.
    _is_answered = False  # the final response has been sent
    _last: Response | None = None  # the last response that was sent
    _emitted = 0
    _match_commands: dict[int, bytes] | None = None
    _is_cancelled = False  # C-CANCEL has come
    _is_over = False  # the service has come to its end
    _is_handed_over = False  # the reader of a C-GET has the instance
    _is_late = False  # and was answered for its handler
    _interrupt: IDelayedCall | None = None
    _running: defer.Deferred[Any] | None = None

    def __init__(
        self, performer: Performer, ctx: PContextDef, msg: Request, service: Service
    ) -> None:
        self._performer = performer
        self.ctx = ctx
        self.msg = msg
        self._service = service
        #: The clock's time of the beginning.
        self.began = performer.clock.seconds()
        #: The clock's time of the last answer, or of the beginning.
        self.last_answer = self.began

    def start(self) -> None:
        """Run the service; the performer is told when the operation has ended.

        A service that returns its answer at once costs neither a coroutine nor a Deferred.
        """
        running: defer.Deferred[None] | None = None
        try:
            result = self._call()
            if _is_status(result):
                self._respond(result, comment=getattr(result, "comment", ""))
            else:
                running = self._running = self._take(result)
        except Exception as error:
            # Whatever a handler raises must not end the association of its peer, nor others.
            running = None
            try:
                self._raised(error)
            except Exception:  # the failure itself could not be sent, as its status is none
                self._failed(Failure())
        if running is None:
            self._ended(None)
            return
        running.addErrback(self._failed_later)
        running.addBoth(self._ended)
        if self._is_stopped:  # the service itself has ended the association, before it first waited
            self.stop()

    def cancel(self) -> None:
        """C-CANCEL-RQ came (PS3.7 9.3.2.3): close the generator, and answer FE00."""
        if self.msg.OPERATION in _CANCELLABLE and not self._is_cancelled:
            self._is_cancelled = True
            self._interrupt_soon()

    def stop(self) -> None:
        """The association has ended, and the peer no longer waits for an answer.

        A handler that produces for the peer alone is cancelled at once. Every other one, such as that of a C-STORE,
        may still be reading what has come, perhaps in a thread: it has ``timeouts.response`` to end.
        """
        if self.msg.OPERATION in _FOR_PEER:
            self._interrupt_soon()
        elif self._running is not None and not self._is_over:
            self._interrupt = self._performer.clock.callLater(
                self._performer.timeouts.response, self._too_late
            )

    def give_up(self) -> None:
        """The handler has given no answer for ``timeouts.handler`` seconds: answer for it, and cancel it."""
        if self._is_answered or self._is_over or self._is_late:
            return
        self._is_late = True
        self._log.error(
            "{operation} {id} from {peer}: the handler has given no answer for {seconds:g} s; it is cancelled (timeout "
            "'handler')",
            operation=self.msg.OPERATION,
            id=self.msg.message_id,
            peer=self._performer.asce.peer_title,
            seconds=self._performer.timeouts.handler,
        )
        self._respond(
            _FAILURE.get(self.msg.OPERATION, statuses.PROCESSING_FAILURE),
            comment="no answer from the handler in time",
        )
        self._interrupt_soon()

    def _too_late(self) -> None:
        self._log.warn(
            "{operation} {id} from {peer}: the handler is still at work {seconds:g} s after the end of the "
            "association; it is cancelled (timeout 'response')",
            operation=self.msg.OPERATION,
            id=self.msg.message_id,
            peer=self._performer.asce.peer_title,
            seconds=self._performer.timeouts.response,
        )
        self._interrupt_now()

    @property
    def last(self) -> Response | None:
        """The last response that was sent."""
        return self._last

    @property
    def _is_stopped(self) -> bool:
        return self._performer.error is not None

    def _interrupt_soon(self) -> None:
        # Cancel in a fresh turn, because a coroutine can be cancelled only while it waits.
        if self._interrupt is None and self._running is not None and not self._is_over:
            self._interrupt = self._performer.clock.callLater(0, self._interrupt_now)

    def _interrupt_now(self) -> None:
        self._interrupt = None
        assert self._running is not None
        self._running.cancel()

    def _ended(self, result: object) -> None:
        self._is_over = True
        if self._interrupt is not None:
            self._interrupt.cancel()
        if isinstance(result, Failure):
            self._failed(result)  # the failure response could not be sent either
        try:
            if (
                not self._is_answered
                and not self._is_stopped
                and not self._performer.has_answered(self)
            ):
                self._log.error(
                    "{operation} {id}: the handler gave no final status; expected one",
                    operation=self.msg.OPERATION,
                    id=self.msg.message_id,
                )
                self._respond(statuses.PROCESSING_FAILURE)
        finally:
            if self.msg.data_set is not None and not self._is_handed_over:
                give_up(self.msg.data_set)
            self._performer.ended(self)

    # -- running the service -------------------------------------------------------------------

    def _call(self) -> object:
        operations = getattr(self._service, "operations", None)
        if isinstance(self.msg, UnknownRQ) or (
            operations is not None and self.msg.OPERATION not in operations
        ):
            raise StatusError(
                statuses.UNRECOGNIZED_OPERATION,
                f"{self.msg.OPERATION} is not an operation of this SOP class",
            )
        waiting = self._performer.asce.authorize(self.ctx, self.msg)
        if waiting is not None:
            return self._when_authorized(waiting)
        return self._service(self._performer.asce, self.ctx, self.msg)

    async def _when_authorized(self, waiting: Awaitable[None]) -> Any:
        """What the service returns, when the AE has allowed the operation."""
        await waiting
        result = self._service(self._performer.asce, self.ctx, self.msg)
        return await result if inspect.isawaitable(result) else result

    def _take(self, result: object) -> defer.Deferred[None] | None:
        """Answer with what the service has returned.

        Returns:
            None when that was done at once; otherwise a Deferred that fires when it is done.
        """
        if result is None or _is_status(result) or isinstance(result, Response):
            self._finish(result)
            return None
        if isinstance(result, defer.Deferred):
            return result.addCallback(self._take)
        if inspect.iscoroutine(result):
            return defer.Deferred.fromCoroutine(result).addCallback(self._take)
        if inspect.isawaitable(result):
            return defer.Deferred.fromCoroutine(_awaited(result)).addCallback(self._take)
        if isinstance(result, AsyncIterable):
            return defer.Deferred.fromCoroutine(self._stream_async(result))
        if _is_many(result):
            return defer.Deferred.fromCoroutine(self._stream(iter(result)))
        self._finish(result)
        return None

    def _failed_later(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, Exception):
            self._raised(error, failure)
        else:
            self._failed(failure)

    def _raised(self, error: Exception, failure: Failure | None = None) -> None:
        """Turn what the service has raised into a status."""
        if isinstance(error, defer.CancelledError):
            if self._is_cancelled:
                self._respond_cancelled()
            elif not (self._is_stopped or self._is_late):
                self._log.failure(
                    "{operation} {id}: the handler's Deferred was cancelled",
                    failure or Failure(),
                    operation=self.msg.OPERATION,
                    id=self.msg.message_id,
                )
                self._respond(statuses.PROCESSING_FAILURE)
        elif isinstance(error, EventHandlingError):
            status = error.status
            if status is None:
                status = _FAILURE.get(self.msg.OPERATION, statuses.PROCESSING_FAILURE)
            self._respond(status, comment=error.comment)
        else:
            reason = self._performer.error
            if reason is None or reason not in (error, error.__cause__):
                self._failed(failure or Failure())
            # Otherwise it waited for something on the association, which is over.

    def _failed(self, failure: Failure) -> None:
        self._log.failure(
            "{operation} {id} from {peer}: the handler failed",
            failure,
            operation=self.msg.OPERATION,
            id=self.msg.message_id,
            peer=self._performer.asce.peer_title,
        )
        self._respond(statuses.PROCESSING_FAILURE)

    def _finish(self, result: object) -> None:
        if result is None:
            pass  # the service has sent the response itself, or _ended notices that it has not
        elif isinstance(result, Response):
            self._send(result)
        elif _is_status(result):
            self._respond(result, comment=getattr(result, "comment", ""))
        elif isinstance(result, tuple) and len(result) == 2 and _is_status(result[0]):
            self._respond(result[0], result[1])
        else:
            raise LocalProtocolError(
                f"a handler returned {type(result).__name__}; expected a status, a response, (status, data set), "
                "an iterable of matches, a Deferred or a coroutine"
            )

    async def _stream(self, items: Iterator[object]) -> None:
        try:
            for item in items:
                if inspect.isawaitable(item):
                    item = await item
                if await self._emit(item):
                    break
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        self._complete()

    async def _stream_async(self, items: AsyncIterable[object]) -> None:
        cancelled = getattr(items, "cancelled", None)
        try:
            try:
                async for item in items:
                    if await self._emit(item):
                        break
            except defer.CancelledError:
                if cancelled is None or not self._is_cancelled:
                    raise
            if cancelled is not None and self._is_cancelled and not self._is_stopped:
                self._send(await cancelled())
        finally:
            aclose = getattr(items, "aclose", None)
            if aclose is not None:
                await aclose()
        self._complete()

    def _respond_cancelled(self) -> None:
        """The response FE00, with the counters of the last Pending response if there was one."""
        counters = {
            name: value
            for name in _COUNTERS
            if (value := getattr(self._last, name, None)) is not None
        }
        self._send(self.msg.response(statuses.CANCEL, **counters))

    def _complete(self) -> None:
        if self._is_cancelled:
            self._respond_cancelled()
        elif not self._is_answered:
            self._respond(statuses.SUCCESS)

    async def _emit(self, item: object) -> bool:
        """Send one item of a generator; True when it was the last one, or the peer wants no more."""
        if self._is_cancelled or self._is_stopped or self._is_late:
            return True
        self.last_answer = self._performer.clock.seconds()
        if isinstance(item, Response):
            self._send(item)
        elif _is_status(item):
            self._respond(item, comment=getattr(item, "comment", ""))
        else:
            status: int = statuses.PENDING
            if isinstance(item, tuple) and len(item) == 2 and _is_status(item[1]):
                item, status = item
            if is_data_set(item):
                item = self._encode(item)
            if isinstance(item, bytes) and status in _PENDING:
                self._send_match(status, item)
            else:
                self._respond(status, item, getattr(status, "comment", ""))
        if self._is_answered:
            return True
        self._emitted += 1
        channel = self._performer.channel
        if channel.is_congested or self._emitted % _RESPONSES_PER_TURN == 0:
            await channel.breathe()
        # In a memory transport the peer has already read what was sent, and may have left because of it.
        return self._is_cancelled or self._is_stopped

    # -- answering -----------------------------------------------------------------------------

    def _send_match(self, status: int, data_set: bytes) -> None:
        """Send a Pending response. All of an operation have the same command set, which is encoded once."""
        if self._match_commands is None:
            self._match_commands = {}
        command = self._match_commands.get(status)
        try:
            if command is None:
                self._last = self.msg.response(status, data_set)
                command = self._performer.channel.command(self._last, self.ctx.id)
                self._match_commands[status] = command
            self._performer.send_pending(command, data_set, self.ctx.id)
        except AssociationError as error:
            self._log.debug("a response could not be sent: {error}", error=error)

    def _respond(self, status: int, data_set: object = None, comment: str = "") -> None:
        encoded = None if data_set is None else self._encode(data_set)
        elements: dict[str, Any] = {"error_comment": comment} if comment else {}
        self._send(self.msg.response(status, encoded, **elements))

    def _encode(self, data_set: object) -> DataSource | None:
        if is_data_set(data_set):
            from . import dsutils

            return dsutils.encode(data_set, self.ctx.supported_ts)
        if data_set is None or isinstance(data_set, bytes) or hasattr(data_set, "read"):
            return data_set  # type: ignore[return-value]  # a file, by its read
        raise LocalProtocolError(
            f"a handler gave {type(data_set).__name__}; expected a Dataset, bytes or a file"
        )

    def _send(self, response: Response) -> None:
        if self._is_answered or self._performer.error is not None:
            return
        is_final = _is_final(response)
        if is_final and self.msg.OPERATION == "C-STORE":
            response = self._hand_over(response)
        try:
            self._performer.send(response, self.ctx.id)
        except AssociationError as error:
            # The association is about to be released, so the peer cannot be told any more.
            self._log.debug("a response could not be sent: {error}", error=error)
        self._last = response
        self._is_answered = is_final

    def _hand_over(self, response: Response) -> Response:
        """Give the instance to the reader of the C-GET that it came for, before the peer hears of Success."""
        if status_of(response).is_failure:
            return response
        try:
            self._is_handed_over = self._performer.hand_over(self.ctx, self.msg)
        except Exception:
            self._log.failure(
                "{operation} {id} from {peer}: the instance cannot be handed to its reader",
                operation=self.msg.OPERATION,
                id=self.msg.message_id,
                peer=self._performer.asce.peer_title,
            )
            return self.msg.response(statuses.PROCESSING_FAILURE)
        return response


class Performer:
    """The operations of one association.

    A request that may not run yet waits in order. The peer waits too, because the transport is not read meanwhile.

    Args:
        asce: The association, which is handed to the services.
        channel: Sends the responses.
        clock: The time of all waits.
        timeouts: Uses ``response`` and ``handler``.
        scu: The services that make requests; they answer the event reports that come for them.
        take_instance: Offers an instance that came by C-STORE to the C-GET that asked for it. It returns True when
            the instance was taken, and then its file stays open.
        on_quiet: Called when no operation is left, and when a request was refused.

    Attributes:
        limit: How many operations may run at once; 0 means no limit.
        error: Why the association is over; None while it is not.
        counts: How many requests have come, by operation.
    """

    _log = Logger()

    def __init__(
        self,
        asce: Asked,
        channel: Channel,
        *,
        clock: IReactorTime,
        timeouts: Timeouts,
        scu: Dispatcher,
        take_instance: Callable[[PContextDef, Request], bool],
        on_quiet: Callable[[], None],
    ) -> None:
        self.asce = asce
        self.channel = channel
        self.clock = clock
        self.timeouts = timeouts
        self.limit = NO_WINDOW.performed
        self.error: NetDICOMError | None = None
        self.counts: defaultdict[str, int] = defaultdict(int)
        self._scu = scu
        self._take_instance = take_instance
        self._on_quiet = on_quiet
        self._refusal: NetDICOMError | None = None  # why no message may go out any more
        self._running: dict[int, Operation] = {}
        self._backlog: OrderedDict[int, _Request] = OrderedDict()
        self._is_starting = False  # operations of the backlog
        self._watch: IDelayedCall | None = None  # over the handlers
        self._unsent = 0  # final responses that the transport has no room for
        self._answered: set[int] = (
            set()
        )  # running operations whose service has sent the final response

    def __len__(self) -> int:
        """Requests that are being performed, or wait for their turn."""
        return len(self._running) + len(self._backlog)

    @property
    def held(self) -> int:
        """How many octets of data sets are in memory, of requests that are performed or wait."""
        found = [each.msg.data_set for each in self._running.values()]
        found += [message.data_set for _, message, _ in self._backlog.values()]
        return sum(len(each) for each in found if isinstance(each, bytes))

    @property
    def under_way(self) -> list[str]:
        """The operations that are performed, or wait for their turn."""
        waiting = [message.OPERATION for _, message, _ in self._backlog.values()]
        return [each.msg.OPERATION for each in self._running.values()] + waiting

    @property
    def is_busy(self) -> bool:
        """Whether the peer waits for a response of this side."""
        return bool(self._running or self._backlog)

    # -- requests --------------------------------------------------------------------------------

    def take(self, ctx: PContextDef, message: Request, failure: EventHandlingError | None) -> None:
        """A request came.

        Args:
            failure: Why its data set could not be kept; the request is answered with it.
        """
        assert message.message_id is not None
        self.counts[message.OPERATION] += 1
        if message.message_id in self._running or message.message_id in self._backlog:
            # PS3.7 C.5.9; the first operation is not affected.
            self._refuse(ctx, message, statuses.DUPLICATE_INVOCATION)
        elif self._is_starting or self._backlog or not self._has_room:
            self._backlog[message.message_id] = (ctx, message, failure)
            self._start()
        else:
            self._is_starting = True
            self._perform(ctx, message, failure)
            self._is_starting = False
            if self._backlog:
                self._start()

    def cancel(self, message_id: int) -> None:
        """C-CANCEL-RQ came; it is ignored if its operation does not run (PS3.7 9.3.2.3.3)."""
        operation = self._running.get(message_id)
        if operation is not None:
            operation.cancel()

    def _start(self) -> None:
        """Perform the requests that have come, in order, as far as the window allows.

        An operation counts until its answer has gone out, so a peer that does not read cannot fill the memory with
        answers. A peer that keeps to the window does not notice this.
        """
        if self._is_starting:
            return
        self._is_starting = True
        while self._backlog and self._has_room:
            self._perform(*self._backlog.popitem(last=False)[1])
        self._is_starting = False
        if self._backlog:
            self.channel.pause(self, for_peer=True)
        else:
            self.channel.resume(self)

    @property
    def _has_room(self) -> bool:
        """Whether the window admits another operation."""
        return len(self._running) + self._unsent < (self.limit or _MOST_OPERATIONS)

    def _perform(
        self, ctx: PContextDef, message: Request, failure: EventHandlingError | None
    ) -> None:
        assert message.message_id is not None
        if message.OPERATION in _WITHOUT_DATA_SET and message.data_set is not None:
            self._refuse(ctx, message, statuses.MISTYPED_ARGUMENT)
            return
        service: Service
        if failure is not None:
            service = self._failing(message, failure)
        else:
            registration = self._registration_for(ctx, message)
            if registration is None:
                self._refuse(ctx, message, statuses.SOP_CLASS_NOT_SUPPORTED)
                return
            named = message.sop_class_uid
            if named != ctx.sop_class and (
                wrong_class := contradiction(ctx, message, registration)
            ):
                self.asce.refused(
                    Refusal(
                        "SOP class",
                        f"{message.OPERATION}: {wrong_class}, but {name(message.sop_class_uid or '')}",
                        name(ctx.sop_class),
                        "send the command on a context of its own SOP class",
                    )
                )
                self._refuse(ctx, message, statuses.SOP_CLASS_NOT_SUPPORTED, wrong_class)
                return
            service = registration.service
        operation = Operation(self, ctx, message, service)
        self._answered.discard(message.message_id)
        self._running[message.message_id] = operation
        operation.start()
        if self._watch is None and message.message_id in self._running and self.error is None:
            self._watch = self.clock.callLater(self.timeouts.handler, self._look)

    def _look(self) -> None:
        """Give up the handlers that have given no answer for too long."""
        self._watch = None
        now, limit = self.clock.seconds(), self.timeouts.handler
        oldest = now
        for operation in list(self._running.values()):
            if self.channel.is_congested:
                operation.last_answer = now  # the peer does not read; timeouts.send is for that
            if now - operation.last_answer >= limit:
                operation.give_up()
            else:
                oldest = min(oldest, operation.last_answer)
        if self._running and self.error is None:
            self._watch = self.clock.callLater(oldest + limit - now, self._look)

    def _registration_for(self, ctx: PContextDef, message: Request) -> Registration | None:
        registration = self.asce.scp_for(ctx.sop_class)
        if registration is None and isinstance(message, NEventReportRQ):
            # An event is reported to an SCU (PS3.7 10.1.1).
            registration = self._scu.find(ctx.sop_class)
        return registration

    def _failing(self, message: Request, failure: EventHandlingError) -> Service:
        """A service that answers with a failure."""
        if failure.__cause__ is not None:
            self._log.error(
                "{operation} from {peer}: the data set cannot be kept: {error!r}",
                operation=message.OPERATION,
                peer=self.asce.peer_title,
                error=failure.__cause__,
            )

        def service(*_: object) -> None:
            raise failure

        return service

    def _refuse(
        self, ctx: PContextDef, message: Request, status: Status, comment: str | None = None
    ) -> None:
        """Answer a request that no service sees."""
        give_up(message.data_set)
        dul = self.channel.dul
        if self.error is not None or not dul.machine.may_send_data:
            return  # in Sta7 a request may come, but an answer may not be sent
        self.channel.send(message.response(status, error_comment=comment), ctx.id)
        if dul.is_congested and not self.channel.is_held_by(dul):
            # The window does not bound refusals, so a peer that does not take them is not read any more.
            self.channel.pause(dul)
            dul.when_writable().addBoth(lambda _: self.channel.resume(dul))
        self._on_quiet()

    # -- responses -------------------------------------------------------------------------------

    def send(self, message: Message, context_id: int) -> None:
        """See :meth:`Association.send`."""
        if self._refusal is not None:
            raise afresh(self._refusal)
        if not isinstance(message, Response) or not _is_final(message):
            if isinstance(message, Response):
                operation = self._running.get(message.message_id_being_responded_to)
                if operation is not None:
                    operation.last_answer = self.clock.seconds()
            self.channel.send(message, context_id)
            return
        self._unsent += 1
        try:
            self.channel.send(message, context_id, self._sent)
        except LocalProtocolError:
            self._unsent -= 1
            raise
        self._answered.add(message.message_id_being_responded_to)

    def send_pending(self, command: bytes, data_set: bytes, context_id: int) -> None:
        """See :meth:`Association.send_pending`."""
        if self._refusal is not None:
            raise afresh(self._refusal)
        self.channel.send_pending(command, data_set, context_id)

    def _sent(self) -> None:
        self._unsent -= 1
        if self._backlog:
            self._start()

    # -- what an operation tells -----------------------------------------------------------------

    def has_answered(self, operation: Operation) -> bool:
        """Whether a service has itself sent the final response of an operation."""
        return operation.msg.message_id in self._answered

    def hand_over(self, ctx: PContextDef, message: Request) -> bool:
        """Give an instance that C-GET brought to the stream of that C-GET.

        Returns:
            Whether it was taken; its file is then closed by the stream.
        """
        return self._take_instance(ctx, message)

    def ended(self, operation: Operation) -> None:
        """An operation has sent its final response, or the peer no longer waits for it."""
        assert operation.msg.message_id is not None
        self._running.pop(operation.msg.message_id, None)
        self._answered.discard(operation.msg.message_id)
        seconds = self.clock.seconds() - operation.began
        self.asce.performed(operation.ctx, operation.msg, operation.last, seconds)
        if self.error is not None:
            return
        if self._backlog:
            self._start()
        if not self.is_busy:
            self._on_quiet()

    # -- the end ---------------------------------------------------------------------------------

    def close(self, reason: NetDICOMError) -> None:
        """Send nothing more; A-RELEASE-RQ is about to go out."""
        self._refusal = reason

    def end(self, error: NetDICOMError) -> None:
        """The association is over, and the peer no longer waits for answers."""
        self.error = self._refusal = error
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for _, message, _ in self._backlog.values():
            give_up(message.data_set)
        self._backlog.clear()
        for operation in list(self._running.values()):
            operation.stop()
