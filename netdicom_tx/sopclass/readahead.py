"""Reads items before they are asked for, up to a limit.

A hook of C-GET or C-MOVE may return a slow generator of instances. :class:`ReadAhead` lets the first instances be sent
while the next ones are being found, and holds the generator when the peer is slower.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, Generic, TypeVar

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..logs import Logger

__all__ = ["ReadAhead"]

_T = TypeVar("_T")

# After how many items at the latest the reactor gets a turn. Whoever takes items that have all failed need not wait.
_IN_A_ROW = 16


class ReadAhead(Generic[_T]):
    """Reads an asynchronous iterable, from the start, up to a limit.

    Args:
        items: The iterable to read; it is closed at the end.
        limit: How many items may wait to be taken.
        clock: The reactor. It gets a turn between two items, because each of them may take a while, unless the second
            was waited for until there was room for it: then the pace is that of whoever takes them.
    """

    _log = Logger()

    def __init__(self, items: AsyncIterable[_T], limit: int, clock: IReactorTime) -> None:
        self._items = aiter(items)
        self._clock = clock
        self._limit = limit
        self._ready: deque[_T] = deque()
        self._is_over = False  # there will be no more items
        self._failure: Failure | None = None  # why there are no more
        self._coming: defer.Deferred[Any] | None = None  # the Deferred of the next item
        self._changed: list[defer.Deferred[None]] = []
        self._reading = defer.Deferred.fromCoroutine(self._read())
        self._reading.addBoth(self._ended)

    async def take(self, most: int) -> list[_T]:
        """Take items: at least one, or an empty list when there are no more.

        Raises:
            Exception: The iterator raised this, and all items before it have been taken.
        """
        while not self._ready and not self._is_over:
            await self._change()
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        if not taken and self._failure is not None:
            self._failure.raiseException()
        self._tell()
        return taken

    def stop(self) -> None:
        """Stop reading; the items that wait can still be taken."""
        self._limit = 0
        if self._coming is not None:
            self._coming.cancel()
        self._tell()

    async def close(self) -> list[_T]:
        """Stop reading, and close the iterator.

        Returns:
            The items that have not been taken.
        """
        self.stop()
        while not self._is_over:
            await self._change()
        left, self._ready = list(self._ready), deque()
        return left

    async def _read(self) -> None:
        in_a_row, has_waited = _IN_A_ROW, False  # the first is sent before the second is looked for
        try:
            while self._limit:
                self._coming = defer.Deferred.fromCoroutine(_next(self._items))
                item = await self._coming
                self._coming = None
                if not item:
                    break
                self._ready += item
                self._tell()
                in_a_row += 1
                while self._limit and len(self._ready) >= self._limit:
                    await self._change()
                    has_waited = True
                if self._limit and (not has_waited or in_a_row >= _IN_A_ROW):
                    in_a_row = 0
                    self._coming = deferLater(self._clock, 0)
                    await self._coming
                has_waited = False
        finally:
            self._coming = None
            aclose = getattr(self._items, "aclose", None)
            if aclose is not None:
                await aclose()

    def _ended(self, result: object) -> None:
        if isinstance(result, Failure):
            if self._limit:
                self._failure = result
            elif not result.check(defer.CancelledError):
                self._log.failure("the clean-up of a generator failed", result)
        self._is_over = True
        self._tell()

    async def _change(self) -> None:
        """Wait until an item is put or taken, or the end is reached."""
        changed: defer.Deferred[None] = defer.Deferred()
        self._changed.append(changed)
        await changed

    def _tell(self) -> None:
        waiting, self._changed = self._changed, []
        for each in waiting:
            if not each.called:  # it was cancelled
                each.callback(None)


async def _next(items: AsyncIterator[_T]) -> list[_T]:
    """The next item in a list of its own; an empty list at the end."""
    try:
        return [await anext(items)]
    except StopAsyncIteration:
        return []
