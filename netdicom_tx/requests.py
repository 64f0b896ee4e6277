"""The requests of this side, and the wait for their responses (PS3.7 7.5).

:class:`SingleRequest` has one response and a Deferred of it. :class:`StreamRequest` has many, and hands them to a
:class:`~netdicom_tx.streams.ResponseStream`. The :class:`Invoker` of an association counts message IDs, records a
request before it writes it, keeps to the window, and routes each response by *Message ID Being Responded To*.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from . import statuses
from .arguments import (
    check_callable,
    check_data_source,
    check_kind,
    check_number,
    check_seconds,
    check_type,
)
from .channel import Channel
from .dimsemessages import CCancelRQ, NEventReportRQ, Request, Response
from .dulprovider import Timeouts, made_ahead
from .exceptions import LocalProtocolError, NetDICOMError, afresh
from .fragments import PDU
from .logs import Logger
from .negotiation import NO_WINDOW, PContextDef
from .streams import HIGH_WATER, ResponseStream, status_of

__all__ = [
    "HIGH_WATER",
    "Invoker",
    "Outstanding",
    "ResponseStream",
    "SingleRequest",
    "StreamRequest",
    "status_of",
]

_Stream = TypeVar("_Stream", bound="ResponseStream[Any]")

# Data sets that need not be read from a file.
_OCTETS = (bytes, bytearray, memoryview)


class Outstanding(ABC):
    """A request that has gone out, or waits for its turn.

    Args:
        message: The request, with its message ID.
        ctx: The presentation context.
        timeout: How many seconds a response may take.
    """

    __slots__ = (
        "ctx",
        "deadline",
        "heard",
        "is_forgotten",
        "is_prepared",
        "message",
        "pdus",
        "problem",
        "timeout",
        "timer",
    )

    def __init__(self, message: Request, ctx: PContextDef, timeout: float) -> None:
        self.message = message
        self.ctx = ctx
        self.timeout = timeout
        self.timer: IDelayedCall | None = None
        #: The time, by the clock, after which not even Pending responses renew the wait.
        self.deadline = float("inf")
        #: The time, by the clock, at which a part of an instance came for it.
        self.heard = float("-inf")
        self.is_forgotten = False  # the caller no longer wants the response
        #: The PDUs of the request, before its turn.
        self.pdus: Iterator[PDU] | None = None
        self.is_prepared = False  # whether the first of them have been made
        #: Why the request cannot be sent now, although it is correct.
        self.problem: NetDICOMError | None = None

    @property
    def is_waited_for(self) -> bool:
        """Whether a caller waits for the response."""
        return not self.is_forgotten

    @property
    def is_retrieve(self) -> bool:
        """Whether sub-operations of this request bring instances."""
        return False

    @property
    def takes_instances(self) -> bool:
        """Whether sub-operations of this request bring instances to its reader."""
        return False

    @abstractmethod
    def respond(self, response: Response) -> None:
        """Take a response, Pending or final."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """There will be no response."""

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
        if not self.is_forgotten and not status_of(response).is_pending:
            self.deferred.callback(response)

    def fail(self, error: Exception) -> None:
        if not self.is_forgotten:
            self.deferred.errback(error)


class StreamRequest(Outstanding):
    """A request with many responses, which its stream hands to a reader.

    The stream itself belongs to its reader. It is held here only while a caller waits for it, so that a stream that its
    reader has lost is noticed.

    Attributes:
        is_over: Whether no further response will come.
    """

    __slots__ = ("_calls", "_is_retrieve", "_stream", "is_over", "kept", "unread")

    def __init__(self, message: Request, ctx: PContextDef, timeout: float) -> None:
        super().__init__(message, ctx, timeout)
        self.kept: ResponseStream[Any] | None = None
        self._calls: list[Callable[[], None]] = []
        self.is_over = False
        self._stream: weakref.ref[ResponseStream[Any]] | None = None

    def attach(self, stream: ResponseStream[Any], on_lost: Callable[[StreamRequest], None]) -> None:
        """Pass responses on to a stream. When its reader has lost it, ``on_lost`` is called, in any thread."""
        self.unread = stream.unread
        self._is_retrieve = stream.takes_instances
        self._stream = weakref.ref(stream)
        # The callback of a weak reference would not be called when the two are lost together.
        weakref.finalize(stream, on_lost, self).atexit = False

    @property
    def stream(self) -> ResponseStream[Any] | None:
        """The stream; None when its reader has lost it."""
        return None if self._stream is None else self._stream()

    @property
    def is_waited_for(self) -> bool:
        return self.kept is not None

    @property
    def is_retrieve(self) -> bool:
        return self._is_retrieve

    @property
    def takes_instances(self) -> bool:
        return self._is_retrieve and not self.is_forgotten and self.stream is not None

    def respond(self, response: Response) -> None:
        stream = self.stream
        if not status_of(response).is_pending:
            self._over()
        if stream is not None:
            stream.respond(response)

    def fail(self, error: Exception) -> None:
        stream = self.stream
        self._over()
        if stream is not None:
            stream.fail(error)

    def when_over(self, call: Callable[[], None]) -> None:
        """Make this call when the operation is over, however it ends; this does not count as waiting for it."""
        self._calls.append(call)
        if self.is_over:
            self._over()

    def _over(self) -> None:
        self.is_over = True
        while self._calls:
            self._calls.pop()()

    def take_instance(self, ctx: PContextDef, message: Request) -> bool:
        stream = self.stream
        return stream is not None and stream.take_instance(ctx, message)


class Invoker:
    """The requests of one association, from the call to the final response.

    Args:
        channel: Sends the requests.
        contexts: The accepted presentation contexts, by ID.
        clock: The time of the response timers.
        timeouts: Uses ``response`` and ``total``.
        on_quiet: Called when a final response has come.
        on_timeout: Called with the name of a timer and its seconds when a response is overdue.

    Attributes:
        limit: How many requests may be outstanding at once; 0 means no limit.
        is_told: Whether a caller knows why the association is over.
        counts: How many requests have gone out, by operation.
    """

    _log = Logger()

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
        self.counts: defaultdict[str, int] = defaultdict(int)
        self._channel = channel
        self._contexts = contexts
        self._clock = clock
        self._timeouts = timeouts
        self._on_quiet = on_quiet
        self._on_timeout = on_timeout
        self._refusal: NetDICOMError | None = None  # why no request is taken any more
        self._is_over = False
        self._is_leaving = False
        self._last_message_id = 0
        self._outstanding: dict[int, Outstanding] = {}
        self._waiting: OrderedDict[int, Outstanding] = OrderedDict()
        self._preparing: IDelayedCall | None = None
        self._holding: list[Outstanding] = []  # streams for which the transport is not read

    def __len__(self) -> int:
        """Requests that have no final response yet."""
        return len(self._outstanding) + len(self._waiting)

    @property
    def under_way(self) -> list[str]:
        """The operations that have no final response yet."""
        return [each.message.OPERATION for each in self._all()]

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
        one = SingleRequest(message, ctx, self._seconds(timeout))
        self._check(one)
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
        check_callable("convert", convert)
        check_kind("kind", kind, ResponseStream)
        check_number("high_water", high_water, 0)
        one = StreamRequest(message, ctx, self._seconds(timeout))
        self._check(one)
        stream = kind(self, one, convert, high_water)
        one.attach(stream, self._lost)
        self._submit(one)
        return stream

    def _seconds(self, timeout: float | None) -> float:
        if timeout is None:
            return self._timeouts.response
        check_seconds("timeout", timeout)
        return timeout

    def _check(self, one: Outstanding) -> None:
        """Refuse a request that is wrong in itself, and encode its command set.

        Raises:
            TypeError, ValueError, LocalProtocolError: An argument is wrong.
        """
        message, ctx = one.message, one.ctx
        check_type("message", message, Request, "a request, such as CEchoRQ(...)")
        check_type(
            "ctx", ctx, PContextDef, "a presentation context, such as asce.contexts_for(uid)[0]"
        )
        if message.message_id is not None:
            check_number("message_id", message.message_id, 0, most=0xFFFF)
        check_data_source("data_set", message.data_set)
        own = self._contexts.get(ctx.id)
        if own is not ctx and own != ctx:
            raise LocalProtocolError(
                f"presentation context {ctx.id} is not a context of this association"
            )
        if not (ctx.as_scp if isinstance(message, NEventReportRQ) else ctx.as_scu):
            raise LocalProtocolError(
                f"{message.OPERATION} needs the other role on context {ctx.id}"
            )
        if message.message_id is None:
            try:
                one.message = replace(message, message_id=self.next_message_id())
            except LocalProtocolError as error:
                one.problem = error
                return
        one.pdus = self._channel.pdus(one.message, ctx.id)

    def _submit(self, one: Outstanding) -> None:
        """Send a request now, or when the window has room for it."""
        problem = self._problem(one)
        if problem is not None:
            self.is_told = self.is_told or self._is_over
            one.fail(_unsent(problem) if self._is_over else afresh(problem))
            return
        if self._waiting or (self.limit and len(self._outstanding) >= self.limit):
            assert one.message.message_id is not None
            self._waiting[one.message.message_id] = one
            if isinstance(one.message.data_set, _OCTETS):
                self._prepare()
            else:
                self._prepare_later()
        else:
            self._send(one)
        # The request is recorded, so a response that comes now finds its caller.
        self._let_go(one)

    def _problem(self, one: Outstanding) -> NetDICOMError | None:
        if self._is_over:
            return self._refusal
        if self._refusal is not None:
            return self._refusal
        if one.problem is not None:
            return one.problem
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
        # Record before writing, so that an immediate answer finds the request.
        self._outstanding[message_id] = one
        self.counts[one.message.OPERATION] += 1
        pdus, one.pdus = one.pdus, None
        assert pdus is not None
        try:
            self._channel.dul.send_message(pdus, partial(self._sent, one))
        except NetDICOMError as error:
            del self._outstanding[message_id]
            self.counts[one.message.OPERATION] -= 1
            one.fail(error)

    def cancel_request(self, one: Outstanding) -> None:
        """Send C-CANCEL-RQ for a request that has gone out; take back one that still waits."""
        assert one.message.message_id is not None
        if self._waiting.get(one.message.message_id) is one:
            del self._waiting[one.message.message_id]
            one.respond(one.message.response(statuses.CANCEL))
        else:
            cancel = CCancelRQ(message_id_being_responded_to=one.message.message_id)
            self._channel.send(cancel, one.ctx.id)

    def withdraw(self, message_id: int) -> bool:
        """Take back a request that still waits for its turn; its Deferred fails with CancelledError.

        Returns:
            Whether it was waiting. If not, its response may still come.
        """
        one = self._waiting.pop(message_id, None)
        if one is None:
            return False
        one.fail(defer.CancelledError())
        return True

    # -- streams that are not read ---------------------------------------------------------------

    def hold(self, one: Outstanding) -> bool:
        """Stop reading, because a stream is not read; False when another caller waits."""
        if self._is_leaving or any(
            other is not one and other.is_waited_for for other in self._all()
        ):
            return False
        self._holding.append(one)
        self._channel.pause(one)
        return True

    def go_on(self, one: Outstanding) -> None:
        """Continue reading."""
        if one in self._holding:
            self._holding.remove(one)
        self._channel.resume(one)

    def waits(self, one: Outstanding) -> None:
        """A caller waits for this request, so a stream that is not read must not delay it."""
        self._let_go(one)

    @property
    def held(self) -> int:
        """How many octets of unread responses are in memory."""
        return sum(
            each.unread.octets_in_memory for each in self._all() if isinstance(each, StreamRequest)
        )

    def _all(self) -> Iterator[Outstanding]:
        yield from self._outstanding.values()
        yield from self._waiting.values()

    def _let_go(self, but: Outstanding | None = None) -> None:
        """Let the streams that are not read keep their responses, so that they do not stop the transport."""
        for one in list(self._holding):
            if one is not but and isinstance(one, StreamRequest) and one.stream is not None:
                one.stream.go_on()

    def _lost(self, one: StreamRequest) -> None:
        """Handle the loss of the last reference to a stream; this may run in any thread."""
        one.is_forgotten = True
        one.unread.drop_all()
        if one.is_over and one not in self._holding:
            return
        # The rest is done in a turn of the reactor, because the garbage collector may call at any time.
        from_thread = getattr(self._clock, "callFromThread", None)
        if from_thread is not None:
            from_thread(self._abandon, one)
        else:
            self._clock.callLater(0, self._abandon, one)

    def _abandon(self, one: StreamRequest) -> None:
        if one in self._all():
            self._log.warn(
                "a stream of {operation} {id} was dropped before its end; it is cancelled. Read it to its end, "
                "or inside 'async with'",
                operation=one.message.OPERATION,
                id=one.message.message_id,
            )
            try:
                self.cancel_request(one)
            except NetDICOMError as error:  # the association is about to end
                self._log.debug("C-CANCEL could not be sent: {error}", error=error)
        self.go_on(one)

    # -- preparing the next one ------------------------------------------------------------------

    def _prepare_later(self) -> None:
        """Read the PDUs of the next request from a file while the peer is busy with the one before.

        They are made in the turn after next of the reactor, because the next turn sends what was written in this one.
        """
        if self._preparing is None:
            self._preparing = self._clock.callLater(0, self._prepare_now)

    def _prepare_now(self) -> None:
        self._preparing = self._clock.callLater(0, self._prepare_at_last)

    def _prepare_at_last(self) -> None:
        self._preparing = None
        self._prepare()

    def _prepare(self) -> None:
        """Make the PDUs of the next request that one turn writes."""
        if not self._waiting:
            return
        message_id, one = next(iter(self._waiting.items()))
        if one.is_prepared or one.is_forgotten:
            return
        assert one.pdus is not None
        one.is_prepared = True
        try:
            one.pdus = made_ahead(one.pdus)
        except (
            Exception
        ) as error:  # raised by the file of its data set, or by an object that stands for one
            # Nothing of this request has been sent, so it fails alone.
            del self._waiting[message_id]
            one.fail(error)

    # -- responses -------------------------------------------------------------------------------

    def respond(self, response: Response) -> bool:
        """Take a response; False when no request of this side waits for it."""
        message_id = response.message_id_being_responded_to
        outstanding = self._outstanding.get(message_id)
        if (
            outstanding is None
            or response.command_field != outstanding.message.COMMAND_FIELD | 0x8000
        ):
            return False
        if status_of(response).is_pending:
            self._start_timer(outstanding)
            outstanding.respond(response)
            return True
        _stop(outstanding.timer)
        del self._outstanding[message_id]
        # The next request goes out before the caller that waits for this response goes on.
        self._send_waiting()
        outstanding.respond(response)
        self._on_quiet()
        return True

    @property
    def is_retrieving(self) -> bool:
        """Whether a reader takes the instances that a C-GET of this side brings."""
        return any(each.takes_instances for each in self._outstanding.values())

    def take_instance(self, ctx: PContextDef, message: Request) -> bool:
        """Give an instance that C-GET brought to the stream of that C-GET; True when it was taken."""
        return any(each.take_instance(ctx, message) for each in self._outstanding.values())

    def hear(self) -> None:
        """A data set is arriving: a C-GET that brings instances need not say Pending as well (PS3.4 C.4.3.3)."""
        for each in self._outstanding.values():
            if each.is_retrieve:
                each.heard = self._clock.seconds()

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
        left = one.deadline - self._clock.seconds()
        if left <= 0:
            self._on_timeout("total", self._timeouts.total)
        elif self._channel.is_behind:
            # The answer may be here already, but this side does not read it.
            one.timer = self._clock.callLater(min(one.timeout, left), self._overdue, one)
        elif (quiet := self._clock.seconds() - one.heard) < one.timeout:
            one.timer = self._clock.callLater(
                min(one.timeout - quiet, left), self._overdue, one, unsent
            )
        elif unsent and unsent != unsent_before:
            # On a slow line the end of the request is still under way.
            one.timer = self._clock.callLater(one.timeout, self._overdue, one, unsent)
        else:
            self._on_timeout("response", one.timeout)

    # -- the end ---------------------------------------------------------------------------------

    def close(self, reason: NetDICOMError) -> None:
        """Refuse further requests; those that were taken still get their responses."""
        self._refusal = reason
        self.let_go()

    def let_go(self) -> None:
        """The association is about to end, so a stream that is not read must not delay it."""
        self._is_leaving = True
        self._let_go()

    def fail_all(self, reason: NetDICOMError) -> None:
        """Refuse further requests, and fail those without a final response, because none will come."""
        self._refusal = reason
        _stop(self._preparing)
        self._preparing = None
        sent, unsent = list(self._outstanding.values()), list(self._waiting.values())
        self._outstanding.clear()
        self._waiting.clear()
        # Each caller gets its own exception; a shared one would collect the tracebacks of all.
        for each in sent:
            _stop(each.timer)
            each.fail(afresh(reason))
        for each in unsent:
            each.fail(_unsent(reason))

    def end(self, reason: NetDICOMError) -> None:
        """The association is over."""
        self._is_over = True
        self.is_told = self.is_told or self.is_busy
        self.fail_all(reason)


def _unsent(reason: NetDICOMError) -> NetDICOMError:
    error = afresh(reason)
    error.is_unsent = True
    return error


def _stop(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
