"""Threads for what blocks: disks and databases, never the reactor's own pool (DNS lives there)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

__all__ = ["Workers"]

_T = TypeVar("_T")


class Workers:
    """A few threads; until they are started, work is done where it is asked for.

    Args:
        name: Of the threads.
        threads: How many at the most.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads = threads
        self._pool: ThreadPool | None = None
        self._reactor: IReactorFromThreads | None = None

    def start(self, reactor: IReactorFromThreads) -> None:
        """Start the threads; results come back on this reactor."""
        self._reactor = reactor
        self._pool = ThreadPool(1, self._threads, self._name)
        self._pool.start()

    def stop(self) -> None:
        """Finish what was begun, and end the threads."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()

    def run(self, call: Callable[..., _T], *arguments: Any) -> defer.Deferred[_T]:
        """Do something in a thread.

        Cancelling the Deferred forgets the result; the work itself goes on.
        """
        if self._pool is None or self._reactor is None:
            return defer.maybeDeferred(call, *arguments)
        return deferToThreadPool(self._reactor, self._pool, call, *arguments)

    def run_then(
        self, call: Callable[..., tuple[_T, Future[Any] | None]], *arguments: Any
    ) -> defer.Deferred[_T]:
        """Do something in a thread that leaves work to somebody else.

        Args:
            call: Returns a result, and the future of what must also be done before it counts.

        Returns:
            Fires with the result when both are done. One hop to the reactor, not two. Cancelling it
            forgets the result; the work itself goes on.
        """
        if self._pool is None or self._reactor is None:

            def both() -> _T:
                result, future = call(*arguments)
                if future is not None:
                    future.result()
                return result

            return defer.maybeDeferred(both)
        reactor = self._reactor
        done: defer.Deferred[_T] = defer.Deferred(lambda _: None)

        def fire(outcome: _T | Failure) -> None:
            if not done.called:
                done.callback(outcome)

        def work() -> None:
            try:
                result, future = call(*arguments)
            except Exception:
                reactor.callFromThread(fire, Failure())
                return
            if future is None:
                reactor.callFromThread(fire, result)
                return

            def committed(finished: Future[Any]) -> None:
                error = finished.exception()
                outcome = result if error is None else Failure(error)
                reactor.callFromThread(fire, outcome)

            future.add_done_callback(committed)

        self._pool.callInThread(work)
        return done
