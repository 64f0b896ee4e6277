"""What we asked and wait for (PS3.7 7.5).

:class:`SingleRequest` has one response and a Deferred of it; :class:`ResponseStream` has many, and is
read by ``async for``. The :class:`Invoker` of an association counts message IDs, records a request before it writes
it, keeps to the window, and routes each response by *Message ID Being Responded To*.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from . import statuses
from .channel import Channel
from .dimsemessages import CCancelRQ, NEventReportRQ, Request, Response
from .dulprovider import Timeouts, made_ahead
from .exceptions import LocalProtocolError, NetDICOMError
from .negotiation import NO_WINDOW, PContextDef
from .statuses import Status

__all__ = [
    "HIGH_WATER",
    "Invoker",
    "Outstanding",
    "ResponseStream",
    "SingleRequest",
    "status_of",
]

#: Unread responses of a stream above which the transport pauses; it goes on below a quarter.
HIGH_WATER = 256

_T = TypeVar("_T")
_Stream = TypeVar("_Stream", bound="ResponseStream[Any]")


def status_of(response: Response) -> Status:
    """The status of a response, with its words and its Error Comment."""
    return _status(response.status, response.OPERATION, response.error_comment or "")


# A long search gets the same status with each of its ten thousand Pending responses.
@lru_cache(maxsize=256)
def _status(value: int, command: str, comment: str) -> Status:
    return Status(value, command, comment)


class Outstanding:
    """A request that has been sent, or waits for its turn.

    Args:
        message: The request, with its message ID.
        ctx: The presentation context.
        timeout: The seconds in which a response must come.
    """

    __slots__ = ("ctx", "deadline", "is_forgotten", "message", "pdus", "timeout", "timer")

    #: Whether sub-operations of this request bring instances to its reader.
    takes_instances: ClassVar[bool] = False

    def __init__(self, message: Request, ctx: PContextDef, timeout: float) -> None:
        self.message = message
        self.ctx = ctx
        self.timeout = timeout
        self.timer: IDelayedCall | None = None
        #: The time, by the clock, after which not even Pending responses renew the wait.
        self.deadline = float("inf")
        self.is_forgotten = False  # the caller no longer wants the response
        #: The PDUs of the request, if they were made before its turn.
        self.pdus: Iterator[bytes | bytearray] | None = None

    def respond(self, response: Response) -> None:
        """A response came, Pending or final."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """There will be no response."""
        raise NotImplementedError

    def take_instance(self, ctx: PContextDef, message: Request) -> bool:
        """Take an instance that a sub-operation of this request has stored; True keeps its file open."""
        return False


class SingleRequest(Outstanding):
    """A request with one response."""

    __slots__ = ("deferred",)

    def __init__(self, message: Request, ctx: PContextDef, timeout: float) -> None:
        super().__init__(message, ctx, timeout)
        self.deferred: defer.Deferred[Response] = defer.Deferred(self._cancel)

    def _cancel(self, _: defer.Deferred[Response]) -> None:
        self.is_forgotten = True

    def respond(self, response: Response) -> None:
        if not self.is_forgotten and not Status(response.status).is_pending:
            self.deferred.callback(response)

    def fail(self, error: Exception) -> None:
        if not self.is_forgotten:
            self.deferred.errback(error)


class Sender(Protocol):
    """What a stream needs of the association that sent its request."""

    def cancel_request(self, one: Outstanding) -> None:
        """Send C-CANCEL-RQ."""

    def pause(self, holder: object) -> None:
        """Read nothing for now."""

    def resume(self, holder: object) -> None:
        """Go on reading."""


class ResponseStream(Outstanding, Generic[_T]):
    """The responses to one C-FIND, C-GET or C-MOVE.

    Iterate with ``async for``. Inside ``async with``, leaving early sends C-CANCEL-RQ. The final response is the
    last item, so a program that reads to the end sees a failure. Above a high-water mark of unread items the
    transport is paused, and the peer waits; no timeout runs meanwhile.

    Iterating raises whatever has ended the association before the final response came.
    """

    __slots__ = (
        "_asce",
        "_convert",
        "_error",
        "_final",
        "_high_water",
        "_is_cancelled",
        "_is_holding",
        "_is_read",
        "_next",
        "_unread",
        "_watchers",
    )

    def __init__(
        self,
        asce: Sender,
        message: Request,
        ctx: PContextDef,
        timeout: float,
        convert: Callable[[Any], _T],
        high_water: int = HIGH_WATER,
    ) -> None:
        super().__init__(message, ctx, timeout)
        self._asce = asce
        self._convert = convert
        self._high_water = high_water
        # Responses, or whatever else a subclass puts in for _convert to take.
        self._unread: deque[Any] = deque()
        self._next: defer.Deferred[Any] | None = None
        self._watchers: list[defer.Deferred[Status]] = []
        self._final: Response | None = None
        self._error: Exception | None = None
        self._is_cancelled = False
        self._is_holding = False  # the transport is paused for us
        self._is_read = False  # the program iterates over it

    # -- what the association tells --------------------------------------------------------------

    def respond(self, response: Response) -> None:
        if not status_of(response).is_pending:
            self._final = response
        self._put(response)
        if self._final is not None:
            self._tell_watchers()

    def fail(self, error: Exception) -> None:
        self._error = error
        if self._next is not None:
            waiting, self._next = self._next, None
            waiting.errback(error)
        self._tell_watchers()

    def _put(self, item: Any) -> None:
        """Hand an item to the reader, or keep it until it is read."""
        if self._next is not None:
            waiting, self._next = self._next, None
            waiting.callback(item)
        elif self.is_forgotten:
            self._drop(item)
        else:
            self._unread.append(item)
            if len(self._unread) > self._high_water and not self._is_holding and not self._final:
                self._hold()

    def _drop(self, item: Any) -> None:
        """Free what an item holds that will not be read."""

    def _drop_all(self) -> None:
        self.is_forgotten = True
        unread, self._unread = self._unread, deque()
        for item in unread:
            self._drop(item)

    def _hold(self) -> None:
        if self._watchers and not self._is_read:
            # The program waits for the end and does not read: a hold would last for ever.
            self._drop_all()
            return
        self._is_holding = True
        self._asce.pause(self)

    def _release(self) -> None:
        if self._is_holding:
            self._is_holding = False
            self._asce.resume(self)

    def _tell_watchers(self) -> None:
        while self._watchers:
            self._tell(self._watchers.pop(0))

    def _tell(self, watcher: defer.Deferred[Status]) -> None:
        if self._final is not None:
            watcher.callback(status_of(self._final))
        else:
            assert self._error is not None
            watcher.errback(self._error)

    # -- what users do -----------------------------------------------------------------------------

    @property
    def final(self) -> Response | None:
        """The final response, with its counters; None before it has come."""
        return self._final

    @property
    def done(self) -> defer.Deferred[Status]:
        """Fires with the final status; a new Deferred at each access.

        When a program waits for this and never iterates, the responses are dropped. Cancelling it forgets the wait
        and does not cancel the operation.
        """
        watcher: defer.Deferred[Status] = defer.Deferred(self._watchers.remove)
        if self._final is not None or self._error is not None:
            self._tell(watcher)
        else:
            self._watchers.append(watcher)
            if self._is_holding and not self._is_read:
                self._drop_all()
                self._release()
        return watcher

    def cancel(self) -> None:
        """Send C-CANCEL-RQ, once. The peer sends a final response, with status FE00 if it has cancelled."""
        if not self._is_cancelled and self._final is None and self._error is None:
            self._is_cancelled = True
            self._asce.cancel_request(self)
            # The final response must be read, whatever the reader does.
            self._release()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        self._is_read = True
        if self._unread:
            item = self._unread.popleft()
            if len(self._unread) <= self._high_water // 4:
                self._release()
            return self._convert(item)
        if self._final is not None:
            raise StopAsyncIteration
        if self._error is not None:
            raise self._error
        if self._next is not None:
            raise LocalProtocolError("the stream is being read already")
        self._next = defer.Deferred(self._next_cancelled)
        return self._convert(await self._next)

    def _next_cancelled(self, _: defer.Deferred[Any]) -> None:
        self._next = None
        self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._final is None and self._error is None:
            self._leave()
            if kind is None:
                await self.done
        else:
            self._drop_all()

    def _leave(self) -> None:
        """The reader has left: cancel the operation, and read on to the final response."""
        self._drop_all()
        self.cancel()
        self._release()


class Invoker:
    """The requests of one association, from the call to the final response.

    Args:
        channel: Where requests go out.
        contexts: The accepted presentation contexts, by ID.
        clock: The time of the response timers.
        timeouts: Uses ``response`` and ``total``.
        on_quiet: Called when a final response has come.
        on_timeout: Called with the name of a timer and its seconds when a response is overdue.

    Attributes:
        limit: Requests that may be outstanding at once; 0 means no limit.
        is_told: Whether some caller knows why the association is over.
        counts: How many requests have gone out, by operation.
    """

    def __init__(
        self,
        channel: Channel,
        contexts: Mapping[int, PContextDef],
        *,
        clock: IReactorTime,
        timeouts: Timeouts,
        on_quiet: Callable[[], None],
        on_timeout: Callable[[str, float], None],
    ) -> None:
        self.limit = NO_WINDOW.invoked
        self.is_told = False
        self.counts: Counter[str] = Counter()
        self._channel = channel
        self._contexts = contexts
        self._clock = clock
        self._timeouts = timeouts
        self._on_quiet = on_quiet
        self._on_timeout = on_timeout
        self._refusal: NetDICOMError | None = None  # why no request is taken any more
        self._is_over = False
        self._last_message_id = 0
        self._outstanding: dict[int, Outstanding] = {}
        self._waiting: OrderedDict[int, Outstanding] = OrderedDict()
        self._preparing: IDelayedCall | None = None

    def __len__(self) -> int:
        """Requests that have no final response yet."""
        return len(self._outstanding) + len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether any request has no final response yet."""
        return bool(self._outstanding or self._waiting)

    # -- requests --------------------------------------------------------------------------------

    def next_message_id(self) -> int:
        """A message ID that is not in use: 1 to 65535."""
        for _ in range(0xFFFF):
            self._last_message_id = self._last_message_id % 0xFFFF + 1
            candidate = self._last_message_id
            if candidate not in self._outstanding and candidate not in self._waiting:
                return candidate
        raise LocalProtocolError("65535 requests are outstanding: there is no message ID left")

    def request(
        self, message: Request, ctx: PContextDef, timeout: float | None
    ) -> defer.Deferred[Response]:
        """See :meth:`Association.request`."""
        one = SingleRequest(self._numbered(message), ctx, timeout or self._timeouts.response)
        self._submit(one)
        return one.deferred

    def request_many(
        self,
        message: Request,
        ctx: PContextDef,
        convert: Callable[[Any], Any],
        timeout: float | None,
        kind: type[_Stream],
        high_water: int,
    ) -> _Stream:
        """See :meth:`Association.request_many`."""
        stream = kind(
            self,
            self._numbered(message),
            ctx,
            timeout or self._timeouts.response,
            convert,
            high_water,
        )
        self._submit(stream)
        return stream

    def _numbered(self, message: Request) -> Request:
        if message.message_id is not None:
            return message
        return replace(message, message_id=self.next_message_id())

    def _submit(self, one: Outstanding) -> None:
        """Send a request now, or when the window has room for it."""
        problem = self._problem(one)
        if problem is not None:
            self.is_told = self.is_told or self._is_over
            one.fail(problem)
        elif self._waiting or (self.limit and len(self._outstanding) >= self.limit):
            assert one.message.message_id is not None
            self._waiting[one.message.message_id] = one
            self._prepare_later()
        else:
            self._send(one)

    def _problem(self, one: Outstanding) -> NetDICOMError | None:
        if self._is_over:
            return self._refusal
        if self._contexts.get(one.ctx.id) != one.ctx:
            return LocalProtocolError(
                f"presentation context {one.ctx.id} is not a context of this association"
            )
        if self._refusal is not None:
            return self._refusal
        may = one.ctx.as_scp if isinstance(one.message, NEventReportRQ) else one.ctx.as_scu
        if not may:
            return LocalProtocolError(
                f"{one.message.OPERATION} needs the other role on context {one.ctx.id}"
            )
        if one.message.message_id in self._outstanding or one.message.message_id in self._waiting:
            return LocalProtocolError(f"message ID {one.message.message_id} is in use")
        return None

    def _send_waiting(self) -> None:
        while self._waiting and not (self.limit and len(self._outstanding) >= self.limit):
            _, one = self._waiting.popitem(last=False)
            if not one.is_forgotten:
                self._send(one)

    def _send(self, one: Outstanding) -> None:
        message_id = one.message.message_id
        assert message_id is not None
        # Recorded before it is written, so that an immediate answer finds it.
        self._outstanding[message_id] = one
        self.counts[one.message.OPERATION] += 1
        pdus, one.pdus = one.pdus or self._channel.pdus(one.message, one.ctx.id), None
        try:
            self._channel.dul.send_message(pdus, partial(self._sent, one))
        except NetDICOMError as error:
            del self._outstanding[message_id]
            self.counts[one.message.OPERATION] -= 1
            one.fail(error)

    def cancel_request(self, one: Outstanding) -> None:
        """Send C-CANCEL-RQ for a request that is out; take back one that still waits."""
        assert one.message.message_id is not None
        if self._waiting.get(one.message.message_id) is one:
            del self._waiting[one.message.message_id]
            one.respond(one.message.response(statuses.CANCEL))
        else:
            cancel = CCancelRQ(message_id_being_responded_to=one.message.message_id)
            self._channel.send(cancel, one.ctx.id)

    def pause(self, holder: object) -> None:
        """Read nothing for now: a stream is not read."""
        self._channel.pause(holder)

    def resume(self, holder: object) -> None:
        """Go on reading."""
        self._channel.resume(holder)

    # -- preparing the next one ------------------------------------------------------------------

    def _prepare_later(self) -> None:
        """Make the PDUs of the next request while the peer is busy with the one before.

        In the turn after next of the reactor: the next one sends what was written in this one.
        """
        if self._preparing is None:
            self._preparing = self._clock.callLater(0, self._prepare_now)

    def _prepare_now(self) -> None:
        self._preparing = self._clock.callLater(0, self._prepare)

    def _prepare(self) -> None:
        self._preparing = None
        if not self._waiting:
            return
        message_id, one = next(iter(self._waiting.items()))
        if one.pdus is not None or one.is_forgotten:
            return
        try:
            one.pdus = made_ahead(self._channel.pdus(one.message, one.ctx.id))
        except Exception as error:  # raised by the file of its data set, or whatever stands for one
            # Nothing of it has been sent, so it fails alone.
            del self._waiting[message_id]
            one.fail(error)

    # -- responses -------------------------------------------------------------------------------

    def respond(self, response: Response) -> bool:
        """A response came; False when no request of ours waits for it."""
        message_id = response.message_id_being_responded_to
        outstanding = self._outstanding.get(message_id)
        if (
            outstanding is None
            or response.command_field != outstanding.message.COMMAND_FIELD | 0x8000
        ):
            return False
        if Status(response.status).is_pending:
            self._start_timer(outstanding)
            outstanding.respond(response)
            return True
        _stop(outstanding.timer)
        del self._outstanding[message_id]
        # The peer has its next request before whoever waits for this response goes on.
        self._send_waiting()
        outstanding.respond(response)
        self._on_quiet()
        return True

    @property
    def is_retrieving(self) -> bool:
        """Whether somebody reads the instances that a C-GET of ours brings."""
        return any(
            each.takes_instances and not each.is_forgotten for each in self._outstanding.values()
        )

    def take_instance(self, ctx: PContextDef, message: Request) -> bool:
        """Give an instance that C-GET brought to the stream of that C-GET; True when it was taken."""
        return any(each.take_instance(ctx, message) for each in self._outstanding.values())

    # -- waiting for them ------------------------------------------------------------------------

    def _sent(self, one: Outstanding) -> None:
        one.deadline = self._clock.seconds() + self._timeouts.total
        if self._outstanding.get(one.message.message_id or 0) is one:
            self._start_timer(one)

    def _start_timer(self, one: Outstanding) -> None:
        left = min(one.timeout, max(0.0, one.deadline - self._clock.seconds()))
        if one.timer is not None and one.timer.active():
            one.timer.reset(left)
        else:
            one.timer = self._clock.callLater(left, self._overdue, one)

    def _overdue(self, one: Outstanding, unsent_before: int = 0) -> None:
        unsent = self._channel.dul.unsent
        if self._channel.is_behind:
            # The answer may be here already, and we do not read it.
            one.timer = self._clock.callLater(one.timeout, self._overdue, one)
        elif self._clock.seconds() >= one.deadline:
            self._on_timeout("total", self._timeouts.total)
        elif unsent and unsent != unsent_before:
            # On a slow line the end of the request is still under way.
            one.timer = self._clock.callLater(one.timeout, self._overdue, one, unsent)
        else:
            self._on_timeout("response", one.timeout)

    # -- the end ---------------------------------------------------------------------------------

    def close(self, reason: NetDICOMError) -> None:
        """Refuse further requests; those that were taken still get their responses."""
        self._refusal = reason

    def fail_all(self, reason: NetDICOMError) -> None:
        """Refuse further requests, and fail those that have no final response: none will come."""
        self._refusal = reason
        _stop(self._preparing)
        self._preparing = None
        taken = [*self._outstanding.values(), *self._waiting.values()]
        self._outstanding.clear()
        self._waiting.clear()
        for each in taken:
            _stop(each.timer)
            each.fail(reason)

    def end(self, reason: NetDICOMError) -> None:
        """The association is over."""
        self._is_over = True
        self.is_told = self.is_told or self.is_busy
        self.fail_all(reason)


def _stop(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
