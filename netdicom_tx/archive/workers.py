"""Threads for blocking work with disks and databases.

The reactor's own threads are not used, because they look up host names, which must not wait for a disk.
"""

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
    """A few threads of one name, from :meth:`start` to :meth:`stop`.

    Args:
        name: The name of the threads.
        threads: How many threads there are at most. With 0 the caller does all work at once, which suits a test
            without a reactor.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self.threads = threads
        self._pool: ThreadPool | None = None
        self._reactor: IReactorFromThreads | None = None

    def start(self, reactor: IReactorFromThreads) -> None:
        """Start the threads; results come back on this reactor."""
        if self.threads:
            self._reactor = reactor
            self._pool = ThreadPool(1, self.threads, self._name)
            self._pool.start()

    def stop(self) -> None:
        """Finish the work that has begun, and end the threads."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()

    def run(self, call: Callable[..., _T], *arguments: Any) -> defer.Deferred[_T]:
        """Call a function in a thread.

        Returns:
            Fires with what the function returns. Fails with RuntimeError when the threads are not running.
            Cancelling it drops the result; the work itself continues.
        """
        if not self.threads:
            return defer.maybeDeferred(call, *arguments)
        if self._pool is None or self._reactor is None:
            return defer.fail(self._not_running())
        return deferToThreadPool(self._reactor, self._pool, call, *arguments)

    def run_then(  # noqa: C901 - each stage may be cancelled
        self, call: Callable[..., tuple[_T, Future[Any] | None]], *arguments: Any
    ) -> defer.Deferred[_T]:
        """Call a function in a thread that leaves part of the work to another thread.

        Args:
            call: Returns a result, and the future of what must also be done before the result counts.

        Returns:
            Fires with the result when both are done, after one hop to the reactor instead of two. Fails with
            RuntimeError when the threads are not running. Cancelling it drops the result; the work itself
            continues.
        """
        if not self.threads:

            def both() -> _T:
                result, future = call(*arguments)
                if future is not None:
                    future.result()
                return result

            return defer.maybeDeferred(both)
        if self._pool is None or self._reactor is None:
            return defer.fail(self._not_running())
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

            def finished(future: Future[Any]) -> None:
                error = future.exception()
                outcome = result if error is None else Failure(error)
                reactor.callFromThread(fire, outcome)

            future.add_done_callback(finished)

        self._pool.callInThread(work)
        return done

    def _not_running(self) -> RuntimeError:
        return RuntimeError(f"the {self._name} threads are not running: start the node first")
