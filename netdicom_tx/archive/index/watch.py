"""The time limit of a search, and its cancellation.

A search runs in a thread, which cannot be stopped from outside. So it is given a :class:`Watch`: the database asks it
while a statement runs, and the search asks it between steps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ...exceptions import NetDICOMError

__all__ = ["SECONDS", "SearchEndedError", "Watch", "Watches"]

#: How long each step of a search may take.
SECONDS: Final = 30.0


class SearchEndedError(NetDICOMError):
    """A search has taken too long, or was cancelled."""


class Watch:
    """Watches a search, whose steps each have the same time.

    Args:
        seconds: How long a step may take.
        now: The clock, in seconds, which never goes back.
    """

    def __init__(
        self, seconds: float = SECONDS, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._now = now
        self._until = now() + seconds
        self._is_cancelled = False
        self._lock = threading.Lock()
        self._interrupts: set[Callable[[], object]] = set()

    def step(self) -> None:
        """Begin a step, and its time.

        Raises:
            SearchEndedError: The search was cancelled.
        """
        if self._is_cancelled:
            self.check()
        self._until = self._now() + self.seconds

    @property
    def is_over(self) -> bool:
        """Whether the search is to end."""
        return self._is_cancelled or self._now() > self._until

    def check(self) -> None:
        """Check that the search may continue.

        Raises:
            SearchEndedError: The step has taken too long, or the search was cancelled.
        """
        if self.is_over:
            raise self.error()

    def error(self) -> SearchEndedError:
        """Why the search is over."""
        if self._is_cancelled:
            return SearchEndedError("the search was cancelled")
        return SearchEndedError(
            f"the search takes more than {self.seconds:g} s; ask for less, for example for a range of dates"
        )

    def cancel(self) -> None:
        """Cancel the search; this may be called from any thread, and more than once."""
        with self._lock:
            self._is_cancelled = True
            for interrupt in self._interrupts:
                interrupt()

    def on_cancel(self, interrupt: Callable[[], object]) -> Callable[[], None]:
        """Call a function on cancellation, in the thread that cancels; this is for a database that cannot ask.

        Returns:
            A callable that removes the function. When it has returned, the function is not called any more.
        """
        with self._lock:
            self._interrupts.add(interrupt)
            if self._is_cancelled:
                interrupt()

        def forget() -> None:
            with self._lock:
                self._interrupts.discard(interrupt)

        return forget


class Watches:
    """The watches over all searches that are under way; for the thread of the reactor.

    Args:
        seconds: As for :class:`Watch`.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._watches: set[Watch] = set()

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """A watch that cancels its search when the block ends."""
        watch = Watch(self.seconds)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            watch.cancel()

    def cancel(self) -> None:
        """End all searches."""
        for watch in self._watches:
            watch.cancel()
