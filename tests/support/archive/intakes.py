"""The part of a reactor that an intake needs."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from support.processes import PATIENCE


class Calls:
    """The part of a reactor that the intake needs: calls that wait until the test performs them."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.hops = 0

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        self._calls.put(lambda: call(*arguments))

    def until(self, waiting: Deferred[Any]) -> Any:
        """Perform calls until a Deferred has fired, and return its result."""
        results: list[Any] = []
        waiting.addBoth(results.append)
        while not results:
            self._calls.get(timeout=PATIENCE)()
            self.hops += 1
        return results[0]
