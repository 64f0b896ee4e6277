"""The many responses to one request, for their reader (PS3.7 9.1.2, 9.1.3, 9.1.4).

C-FIND, C-GET and C-MOVE return a :class:`ResponseStream`. Its reader sets the pace: above a high-water mark of unread
items the transport is not read, and the peer waits. That lasts only while no other caller waits for something on the
association. When another request is made, when a caller waits for another stream, or when the association is to be
released, reading continues, and unread items are kept in a temporary file, up to a bound. A stream that its reader has
lost is cancelled.
"""

from __future__ import annotations

import pickle
import tempfile
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import IO, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar

from twisted.internet import defer

from .dimsemessages import Request, Response
from .exceptions import LocalProtocolError, afresh
from .negotiation import PContextDef
from .statuses import Status

__all__ = ["HIGH_WATER", "ResponseStream", "StreamRequest", "Unread", "status_of"]

#: How many unread responses of a stream pause the transport; it resumes below a quarter of that.
HIGH_WATER: Final = 256
#: How many octets of unread data sets pause the transport.
HIGH_WATER_OCTETS: Final = 4 << 20
#: How many octets of unread responses a temporary file may hold; above that the operation is cancelled.
SPILL_LIMIT: Final = 1 << 30
# How many octets a response takes in addition to its data set.
_OVERHEAD: Final = 200

_T = TypeVar("_T")


def status_of(response: Response) -> Status:
    """The status of a response, with its words and its Error Comment."""
    return _status(response.status, response.OPERATION, response.error_comment or "")


# One object serves ten thousand Pending responses.
@lru_cache(maxsize=256)
def _status(value: int, command: str, comment: str) -> Status:
    return Status(value, command, comment)


class Unread:
    """Items that wait for their reader, the first in memory and the rest in a temporary file.

    Args:
        drop: Called with each item that will not be read.
        memory: How many items are kept in memory; None keeps all, for items that no file can hold.

    Attributes:
        octets: The size of the items, in memory and in the file.
    """

    __slots__ = ("_drop", "_file", "_first", "_in_file", "_memory", "_read", "_written", "octets")

    def __init__(self, drop: Callable[[Any], None], memory: int | None) -> None:
        self._drop = drop
        self._memory = memory
        self._first: deque[tuple[Any, int]] = deque()
        self._file: IO[bytes] | None = None
        self._in_file = 0
        self._written = self._read = 0  # positions in the file
        self.octets = 0

    def __len__(self) -> int:
        return len(self._first) + self._in_file

    @property
    def octets_in_memory(self) -> int:
        """The size of the items in memory."""
        return sum(size for _, size in self._first)

    def put(self, item: Any) -> None:
        """Add an item behind the others."""
        size = _size(item)
        self.octets += size
        if self._memory is None or not (
            self._in_file or len(self._first) > self._memory or self.octets > HIGH_WATER_OCTETS
        ):
            self._first.append((item, size))
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is empty
        record = pickle.dumps((item, size), pickle.HIGHEST_PROTOCOL)
        self._file.seek(self._written)
        self._file.write(len(record).to_bytes(8, "little") + record)
        self._written = self._file.tell()
        self._in_file += 1

    def pop(self) -> Any:
        """Take the first item."""
        if self._first:
            item, size = self._first.popleft()
        else:
            item, size = self._from_file()
        self.octets -= size
        return item

    def _from_file(self) -> tuple[Any, int]:
        if self._file is None:
            raise IndexError("there is no unread item")
        self._file.seek(self._read)
        length = int.from_bytes(self._file.read(8), "little")
        item: tuple[Any, int] = pickle.loads(self._file.read(length))
        self._read = self._file.tell()
        self._in_file -= 1
        if not self._in_file:
            self._close_file()
        return item

    def _close_file(self) -> None:
        file, self._file = self._file, None
        self._written = self._read = self._in_file = 0
        if file is not None:
            file.close()

    def drop_all(self) -> None:
        """Drop all items."""
        self._close_file()  # items that a file can hold do not need to be dropped
        self.octets = 0
        while self._first:
            self._drop(self._first.popleft()[0])


def _size(item: Any) -> int:
    """How many octets an item takes."""
    data_set = getattr(item, "data_set", None)
    return _OVERHEAD + (len(data_set) if isinstance(data_set, bytes) else 0)


class StreamRequest(Protocol):
    """The request of a stream, as the association keeps it.

    Attributes:
        is_forgotten: Whether the responses are not wanted any more.
        kept: The stream while a caller waits for it, because it must not be lost then.
    """

    message: Request
    ctx: PContextDef
    is_forgotten: bool
    kept: ResponseStream[Any] | None

    def when_over(self, call: Callable[[], None]) -> None:
        """Have a call made when the operation is over, whichever way."""


class Requests(Protocol):
    """What a stream needs of the requests of its association. They know more kinds of requests, hence Any."""

    def cancel_request(self, one: Any) -> None:
        """Send C-CANCEL-RQ."""

    def hold(self, one: Any) -> bool:
        """Stop reading; False when another caller waits, so that reading continues."""

    def go_on(self, one: Any) -> None:
        """Continue reading."""

    def waits(self, one: Any) -> None:
        """A caller waits for this stream, so others must not delay it."""


class ResponseStream(Generic[_T]):
    """The responses to one C-FIND, C-GET or C-MOVE.

    Iterate with ``async for``; inside ``async with``, leaving early sends C-CANCEL-RQ. The final response is the last
    item, so a caller that reads to the end sees a failure. If the association ends before the final response, iterating
    raises the reason.

    A slow reader slows the peer down, as the module says. When more than 1 GiB of responses is unread while another
    request of the association waits, the operation is cancelled, and its reader gets a LocalProtocolError after the
    items that are kept.
    """

    __slots__ = (
        "__weakref__",
        "_asce",
        "_convert",
        "_error",
        "_excess",
        "_final",
        "_high_water",
        "_is_cancelled",
        "_is_holding",
        "_is_read",
        "_next",
        "_one",
        "_unread",
        "_watchers",
    )

    #: Whether sub-operations of the request bring instances to the reader.
    takes_instances: ClassVar[bool] = False
    #: Whether a temporary file can hold unread items. Other items are bounded in number.
    can_spill: ClassVar[bool] = True
    #: How many items may be unread if a file cannot hold them.
    most_unread: ClassVar[int] = 128

    def __init__(
        self,
        asce: Requests,
        one: StreamRequest,
        convert: Callable[[Any], _T],
        high_water: int = HIGH_WATER,
    ) -> None:
        self._asce = asce
        self._one = one
        self._convert = convert
        self._high_water = high_water
        # The arguments of _convert: responses, or other objects that a subclass puts in.
        self._unread = Unread(self._drop, high_water if self.can_spill else None)
        self._next: defer.Deferred[Any] | None = None
        self._watchers: list[defer.Deferred[Status]] = []
        self._final: Response | None = None
        self._error: Exception | None = None
        self._excess: Exception | None = None  # too much was unread
        self._is_cancelled = False
        self._is_holding = False  # whether the transport is not read because of this stream
        self._is_read = False  # whether a caller iterates

    @property
    def message(self) -> Request:
        """The request, with its message ID."""
        return self._one.message

    @property
    def ctx(self) -> PContextDef:
        """The presentation context of the request."""
        return self._one.ctx

    @property
    def unread(self) -> Unread:
        """The items that have not been read."""
        return self._unread

    @property
    def is_waited_for(self) -> bool:
        """Whether a caller waits for the next item, or for the end."""
        return self._next is not None or bool(self._watchers)

    # -- what the association tells --------------------------------------------------------------

    def respond(self, response: Response) -> None:
        """Take a response."""
        if not status_of(response).is_pending:
            self._final = response
        self._put(response)
        if self._final is not None:
            self._tell_watchers()

    def fail(self, error: Exception) -> None:
        """End the stream, because no further response will come."""
        self._error = error
        if self._next is not None:
            self._take_next().errback(error)
        self._tell_watchers()

    def take_instance(self, ctx: PContextDef, message: Request) -> bool:
        """Take an instance that a sub-operation of this request has stored; True keeps its file open."""
        return False

    def go_on(self) -> None:
        """Keep responses instead of stopping the transport, because another caller waits."""
        self._release()

    def _take_next(self) -> defer.Deferred[Any]:
        """The reader's Deferred, which is about to be fired."""
        waiting, self._next = self._next, None
        assert waiting is not None
        self._keep()
        return waiting

    def _keep(self) -> None:
        """Hold the stream while a caller waits for it; otherwise its reader may lose it."""
        self._one.kept = self if self.is_waited_for else None

    def _put(self, item: Any) -> None:
        """Add an item to read."""
        if self._next is not None:
            self._take_next().callback(item)
        elif self._one.is_forgotten:
            self._drop(item)
        else:
            try:
                self._unread.put(item)
            except OSError as error:  # for example, the disk is full
                self._drop(item)
                self._give_up(f"the next item cannot be kept for its reader: {error!r:.200}")
                return
            if self._is_full and not self._is_holding and self._final is None:
                self._hold()

    @property
    def _is_full(self) -> bool:
        unread = self._unread
        return len(unread) > self._high_water or unread.octets > HIGH_WATER_OCTETS

    @staticmethod
    def _drop(item: Any) -> None:
        """Drop an item that will not be read."""

    def _drop_all(self) -> None:
        self._one.is_forgotten = True
        self._unread.drop_all()

    @property
    def _is_overfull(self) -> bool:
        """Whether more items are unread than can be kept while a caller waits."""
        unread = self._unread
        return unread.octets > SPILL_LIMIT or (
            not self.can_spill and len(unread) > self.most_unread
        )

    def _hold(self) -> None:
        """Let the peer wait, because too much is unread, unless another caller waits."""
        if self._watchers and not self._is_read:
            # A caller waits for the end, and no caller reads, so stopping would last for ever.
            self._drop_all()
        elif self._watchers and not self._is_overfull:
            pass  # the reader has begun, and may continue when the end has come
        elif self._asce.hold(self._one):
            self._is_holding = True
        elif self._is_overfull:
            self._give_up(
                f"{len(self._unread)} items were unread while something else on the association was waited "
                "for; read the stream first, or use another association"
            )

    def _give_up(self, reason: str) -> None:
        """Cancel the operation; the reader is told after the items that have been kept."""
        self._one.is_forgotten = True
        self._excess = LocalProtocolError(f"{self._one.message.OPERATION} was cancelled: {reason}")
        self.cancel()

    def _release(self) -> None:
        if self._is_holding:
            self._is_holding = False
            self._asce.go_on(self._one)

    def _tell_watchers(self) -> None:
        while self._watchers:
            self._tell(self._watchers.pop(0))
        self._keep()

    def _tell(self, watcher: defer.Deferred[Status]) -> None:
        if self._final is not None:
            watcher.callback(status_of(self._final))
        else:
            assert self._error is not None
            watcher.errback(afresh(self._error))

    def when_over(self, call: Callable[[], None]) -> None:
        """Have a call made when the operation is over, whichever way; that does not count as waiting for it."""
        self._one.when_over(call)

    # -- what users do -----------------------------------------------------------------------------

    @property
    def final(self) -> Response | None:
        """The final response, with its counters; None before it has come."""
        return self._final

    @property
    def is_cancelled(self) -> bool:
        """Whether this side has asked the peer to end the operation."""
        return self._is_cancelled

    @property
    def done(self) -> defer.Deferred[Status]:
        """Fires with the final status; a new Deferred at each access.

        If no caller iterates, the responses are dropped. If a caller has begun, unread items are kept, as when another
        request waits; unread instances of a C-GET beyond their bound have to be read first. Cancelling the Deferred
        ends the wait, but does not cancel the operation.
        """
        watcher: defer.Deferred[Status] = defer.Deferred(self._forget_watcher)
        if self._final is not None or self._error is not None:
            self._tell(watcher)
        else:
            self._watchers.append(watcher)
            self._keep()
            self._asce.waits(self._one)
            if self._is_holding:
                if not self._is_read:
                    self._drop_all()
                self._release()
        return watcher

    def _forget_watcher(self, watcher: defer.Deferred[Status]) -> None:
        self._watchers.remove(watcher)
        self._keep()

    def cancel(self) -> None:
        """Send C-CANCEL-RQ, once; the peer answers with a final response, which is FE00 if it has cancelled."""
        if not self._is_cancelled and self._final is None and self._error is None:
            self._is_cancelled = True
            self._asce.cancel_request(self._one)
            # Its final response must be read, whatever the reader does.
            self._release()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        self._is_read = True
        if self._unread:
            item = self._pop()
            if self._is_holding and len(self._unread) <= self._high_water // 4:
                self._release()
            return self._convert(item)
        if self._excess is not None:
            raise afresh(self._excess)
        if self._final is not None:
            raise StopAsyncIteration
        if self._error is not None:
            raise afresh(self._error)
        if self._next is not None:
            raise LocalProtocolError("the stream is being read already")
        waiting = self._next = defer.Deferred(self._next_cancelled)
        self._keep()
        self._asce.waits(self._one)
        return self._convert(await waiting)

    def _pop(self) -> Any:
        try:
            return self._unread.pop()
        except OSError as error:
            self._unread.drop_all()
            self._give_up(f"what was kept for its reader cannot be read: {error!r:.200}")
            assert self._excess is not None
            raise afresh(self._excess) from error

    def _next_cancelled(self, _: defer.Deferred[Any]) -> None:
        self._take_next()
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
        """Cancel because the reader has gone, and read to the final response."""
        self._drop_all()
        self.cancel()
        self._release()
