"""Requests of ours that have no final response yet (PS3.7 7.5).

:class:`SingleRequest` has one response and a Deferred of it; :class:`ResponseStream` has many, and is
read by ``async for``. The association that sent them routes the responses here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall

from .dimsemessages import Request, Response
from .exceptions import LocalProtocolError
from .negotiation import PContextDef
from .statuses import Status

__all__ = ["HIGH_WATER", "Outstanding", "ResponseStream", "SingleRequest", "status_of"]

#: Unread responses of a stream above which the transport pauses; it goes on below a quarter.
HIGH_WATER = 256

_T = TypeVar("_T")


def status_of(response: Response) -> Status:
    """The status of a response, with its words and its Error Comment."""
    return _status(response.status, response.OPERATION, response.error_comment or "")


# The same for each of ten thousand Pending responses.
@lru_cache(maxsize=256)
def _status(value: int, command: str, comment: str) -> Status:
    return Status(value, command, comment)


class Outstanding:
    """A request that was made, or waits for its turn.

    Args:
        message: With its message ID.
        timeout: Seconds to a response.
    """

    __slots__ = ("ctx", "deadline", "is_forgotten", "message", "pdus", "timeout", "timer")

    #: Whether sub-operations of this request bring instances to its reader.
    takes_instances: ClassVar[bool] = False

    def __init__(self, message: Request, ctx: PContextDef, timeout: float) -> None:
        self.message = message
        self.ctx = ctx
        self.timeout = timeout
        self.timer: IDelayedCall | None = None
        #: By the clock, when even Pending responses do not help any more.
        self.deadline = float("inf")
        self.is_forgotten = False  # the caller does not want the answer any more
        #: When they were made before its turn.
        self.pdus: Iterator[bytes | bytearray] | None = None

    def respond(self, response: Response) -> None:
        """A response came, Pending or final."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """There will be no response."""
        raise NotImplementedError

    def take_instance(self, ctx: PContextDef, message: Request) -> bool:
        """An instance was stored by a sub-operation of this request; True to keep its file open."""
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
    """What a stream needs of its association."""

    def cancel_request(self, one: Outstanding) -> None:
        """Send C-CANCEL-RQ."""

    def pause(self, holder: object) -> None:
        """Read nothing for now."""

    def resume(self, holder: object) -> None:
        """Go on reading."""


class ResponseStream(Outstanding, Generic[_T]):
    """The responses to one C-FIND, C-GET or C-MOVE.

    Iterate with ``async for``; inside ``async with``, leaving early sends C-CANCEL-RQ. The final
    response is the last item, so a failure is seen by whoever reads to the end. Above a high-water
    mark of unread items the transport is paused, and the peer waits; no timeout runs meanwhile.

    Iterating raises what ended the association, if that came before the final response.
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
        # Responses, or what else a subclass puts in: what _convert takes.
        self._unread: deque[Any] = deque()
        self._next: defer.Deferred[Any] | None = None
        self._watchers: list[defer.Deferred[Status]] = []
        self._final: Response | None = None
        self._error: Exception | None = None
        self._is_cancelled = False
        self._is_holding = False  # the transport is paused for us
        self._is_read = False  # somebody iterates

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
        """Something to read."""
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
        """Nobody will read this."""

    def _drop_all(self) -> None:
        self.is_forgotten = True
        unread, self._unread = self._unread, deque()
        for item in unread:
            self._drop(item)

    def _hold(self) -> None:
        if self._watchers and not self._is_read:
            # Somebody waits for the end and nobody reads: holding would wait for ever.
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
        """The final response, with its counters; None while there is none."""
        return self._final

    @property
    def done(self) -> defer.Deferred[Status]:
        """Fires with the final status; a new Deferred at each access.

        Who waits for this and never iterates has the responses dropped. Cancelling it forgets the
        wait and does not cancel the operation.
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
        """Send C-CANCEL-RQ, once; the peer answers with a final response, FE00 if it obeys."""
        if not self._is_cancelled and self._final is None and self._error is None:
            self._is_cancelled = True
            self._asce.cancel_request(self)
            # Its final response must be read, whatever the reader does.
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
        """The reader is gone: cancel, and read on to the final response."""
        self._drop_all()
        self.cancel()
        self._release()
