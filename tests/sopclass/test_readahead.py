"""Reading ahead: at once, never more than the limit, and closed whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from netdicom_tx.sopclass import readahead
from netdicom_tx.testing import failure_of, success_of
from support.doubles import logged_failures as logged_failures


class Source:
    """An asynchronous generator of numbers; each is given when the test lets it.

    Attributes:
        waits: The Deferreds of the items that are not given at once.
    """

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        self.begun = 0
        self.is_closed = False
        self.waits: list[defer.Deferred[None]] = []
        self.clean_up: Any = lambda: None

    async def items(self) -> AsyncIterator[int]:
        try:
            for number, kind in enumerate(self.kinds):
                self.begun += 1
                if kind == "later":
                    self.waits.append(defer.Deferred())
                    await self.waits[-1]
                elif kind == "error":
                    raise ValueError("a bug")
                yield number
        finally:
            self.is_closed = True
            self.clean_up()


class ReadAhead(readahead.ReadAhead[int]):
    """Reads; the reactor has a turn whenever it is asked for one."""

    def __init__(self, items: Any, limit: int) -> None:
        self.clock = Clock()
        super().__init__(items, limit, self.clock)
        self.turn()

    def turn(self) -> None:
        while self.clock.getDelayedCalls():
            self.clock.advance(0)


def take(ahead: ReadAhead, most: int = 10) -> defer.Deferred[list[int]]:
    taken = defer.Deferred.fromCoroutine(ahead.take(most))
    ahead.turn()
    return taken


def close(ahead: ReadAhead) -> defer.Deferred[list[int]]:
    return defer.Deferred.fromCoroutine(ahead.close())


def test_items_are_read_before_they_are_asked_for_up_to_the_limit() -> None:
    source = Source(*["at once"] * 5)
    ahead = ReadAhead(source.items(), 2)
    assert source.begun == 2
    assert success_of(take(ahead, 1)) == [0]
    assert source.begun == 3
    assert success_of(take(ahead)) == [1, 2]
    assert success_of(take(ahead)) == [3, 4]
    assert success_of(take(ahead)) == []
    assert source.is_closed


def test_an_item_is_given_as_soon_as_it_is_there() -> None:
    source = Source("later", "later", "at once")
    ahead = ReadAhead(source.items(), 8)
    first = take(ahead)
    assert not first.called
    source.waits[0].callback(None)
    assert success_of(first) == [0]
    second = take(ahead)
    source.waits[1].callback(None)
    assert success_of(second) == [1]
    assert success_of(take(ahead)) == [2]
    end = take(ahead)
    assert success_of(end) == []


def test_an_error_comes_after_the_items_before_it() -> None:
    ahead = ReadAhead(Source("at once", "at once", "error").items(), 8)
    assert success_of(take(ahead)) == [0, 1]
    for _ in range(2):
        assert isinstance(failure_of(take(ahead)), ValueError)


def test_closing_gives_what_nobody_has_taken_and_closes_the_source() -> None:
    source = Source(*["at once"] * 5)
    ahead = ReadAhead(source.items(), 2)
    assert success_of(close(ahead)) == [0, 1]
    assert (source.begun, source.is_closed) == (2, True)
    assert success_of(take(ahead)) == []


def test_closing_cancels_what_the_source_waits_for() -> None:
    source = Source("at once", "later")
    ahead = ReadAhead(source.items(), 8)
    assert success_of(close(ahead)) == [0]
    assert source.is_closed
    assert source.waits[0].called


def test_closing_after_the_end_is_nothing() -> None:
    ahead = ReadAhead(Source().items(), 8)
    assert success_of(take(ahead)) == []
    assert success_of(close(ahead)) == []


def test_whoever_takes_may_close_from_there() -> None:
    """The source is just giving an item: it is closed when it comes to rest."""
    source = Source("later", "at once")
    ahead = ReadAhead(source.items(), 8)

    async def take_and_close() -> list[int]:
        return [*await ahead.take(1), *await ahead.close()]

    done = defer.Deferred.fromCoroutine(take_and_close())
    source.waits[0].callback(None)
    assert success_of(done) == [0]
    assert (source.begun, source.is_closed) == (1, True)


def test_a_taker_that_is_cancelled_takes_nothing() -> None:
    source = Source("later")
    ahead = ReadAhead(source.items(), 8)
    waiting = take(ahead)
    waiting.cancel()
    assert isinstance(failure_of(waiting), defer.CancelledError)
    source.waits[0].callback(None)
    assert success_of(take(ahead)) == [0]


def test_a_clean_up_that_fails_is_told(failures: Any) -> None:
    source = Source("at once", "at once")

    def fail() -> None:
        raise OSError("no disk")

    source.clean_up = fail
    ahead = ReadAhead(source.items(), 1)
    assert success_of(close(ahead)) == [0]
    assert failures.texts() == ["no disk"]


def test_an_iterator_without_a_close_is_as_good() -> None:
    class Two:
        def __init__(self) -> None:
            self.left = [1, 2]

        def __aiter__(self) -> Two:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    ahead = ReadAhead(Two(), 8)
    assert success_of(take(ahead)) == [1, 2]
    assert success_of(take(ahead)) == []


@pytest.mark.parametrize("limit", [1, 3])
def test_nothing_is_lost_and_nothing_comes_twice(limit: int) -> None:
    source = Source(*["at once", "later", "at once", "at once", "later"] * 20)
    ahead = ReadAhead(source.items(), limit)
    found: list[int] = []

    async def all_of_them() -> None:
        while items := await ahead.take(2):
            found.extend(items)

    done = defer.Deferred.fromCoroutine(all_of_them())
    while not done.called:
        ahead.turn()
        if not source.waits[-1].called:
            source.waits[-1].callback(None)
    assert found == list(range(100))
