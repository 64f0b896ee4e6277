"""Threads for blocking work with disks and databases.

The reactor's own threads are not used, because they look up host names, which must not wait for a disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

__all__ = ["NotRunningError", "Rounds", "Workers"]

_T = TypeVar("_T")


class NotRunningError(RuntimeError):
    """The threads have not been started, or have been stopped."""


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

    def _not_running(self) -> NotRunningError:
        return NotRunningError(f"the {self._name} threads are not running: start the node first")


class _EndedError(Exception):
    """The round ends: the service is stopping, or another node of the group has the duty now."""


class Rounds(Service):
    """A service that does something in a thread, again and again; a subclass says what.

    The subclass calls :meth:`_go_on` between the steps of a round, which then ends soon when the service is stopped or
    another node takes the duty over.

    Args:
        reactor: The reactor of the node.
        first: Seconds from the start of the service to the first round.
        retry: Seconds from a round that has failed, or that another node does, to the next one.
        holds: Whether this node is the one of its group that does it.
        threads: With 0, a round is done at once on the reactor thread, which suits a test without a reactor.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        first: float,
        retry: float,
        holds: Callable[[], bool] = lambda: True,
        threads: int = 1,
    ) -> None:
        self._reactor = reactor  # IReactorTime and IReactorFromThreads
        self._first = first
        self._retry = retry
        self._holds = holds
        self._workers = Workers(f"netdicom-{self.name}", threads)
        self._next: IDelayedCall | None = None
        self._running: defer.Deferred[float] | None = None
        # Set in the reactor's thread, and read in the thread of the round.
        self._stopping = threading.Event()

    def startService(self) -> None:
        """Have the first round begin in a while."""
        super().startService()  # type: ignore[no-untyped-call]
        self._stopping.clear()
        self._workers.start(self._reactor)
        self._next = self._reactor.callLater(self._first, self._begin)

    def stopService(self) -> defer.Deferred[None]:
        """Stop; fires when no round is under way any more."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping.set()
        if self._next is not None and self._next.active():
            self._next.cancel()
        ended: defer.Deferred[None] = defer.succeed(None)
        if self._running is not None:
            running = self._running
            ended = defer.Deferred()
            running.addBoth(lambda _: ended.callback(None))
        return ended.addCallback(lambda _: self._workers.stop())

    # -- what a subclass says ----------------------------------------------------------------------

    def _do(self) -> float:
        """Do one round, in the thread; returns the seconds to the next one."""
        raise NotImplementedError

    def _failed(self, failure: Failure) -> None:
        """Log why a round has failed."""
        raise NotImplementedError

    # -- one round after the other -----------------------------------------------------------------

    def _go_on(self) -> None:
        """End the round here if this node is not to do it any more; called in the thread."""
        if self._stopping.is_set() or not self._holds():
            raise _EndedError

    def _begin(self) -> None:
        self._running = running = self._workers.run(self._do)
        running.addErrback(self._not_done).addCallback(self._ended)

    def _not_done(self, failure: Failure) -> float:
        if not failure.check(_EndedError):
            self._failed(failure)
        return self._retry

    def _ended(self, seconds: float) -> None:
        self._running = None
        if self.running:
            self._next = self._reactor.callLater(max(0.0, seconds), self._begin)
