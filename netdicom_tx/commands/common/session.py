"""One run of a command: the reactor, the signals, the application entities, and the exit code.

The first Ctrl-C ends the command in order: the running operation is cancelled (C-CANCEL), and the association is
released. The second one aborts the association (A-ABORT), and a third one exits at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from .addresses import Address
from .failures import CommandError, ExitCode, Problem, bad_input, explain

if TYPE_CHECKING:
    from twisted.internet import defer
    from twisted.logger import LogEvent

    from ...applicationentity import AE, RemoteAE
    from ...asceprovider import Association
    from .options import Common

__all__ = ["Session", "run"]

_T = TypeVar("_T")
_AE = TypeVar("_AE", bound="AE")

# How many seconds a peer has to close its side at the end of a command; a silent peer must not prolong a timeout.
_CLOSING = 0.25


class Session:
    """The surroundings of a running command.

    Attributes:
        common: The values of the common options.
        is_interrupted: Whether Ctrl-C was pressed.
        ends_by_interrupt: Whether Ctrl-C is the normal end of this command.
    """

    def __init__(self, common: Common, reactor: Any) -> None:
        self.common = common
        self.output = common.output
        self.reactor = reactor
        self.is_interrupted = False
        self.ends_by_interrupt = False
        self._is_aborted = False
        self._aes: list[AE] = []
        self._actions: list[Callable[[], object]] = []
        self._running: defer.Deferred[int] | None = None

    # -- application entities ----------------------------------------------------------------------

    def own_title(self, address: Address | None = None) -> str:
        """Our own AE title, for a peer."""
        common = self.common
        known = address.calling if address is not None else None
        return common.calling or known or common.config.ae_title or common.DEFAULT_TITLE

    def ae(
        self, kind: Callable[..., _AE], address: Address | None, *arguments: Any, **options: Any
    ) -> _AE:
        """Make an application entity that ends with this run.

        Args:
            kind: The class of the application entity.
            address: The peer that it calls; None for one that serves.
            arguments: Arguments of the class that follow the AE title.
        """
        from ...dulprovider import Timeouts

        common = self.common
        defaults = Timeouts()
        associate = common.associate_timeout or defaults.associate
        made = kind(
            options.pop("ae_title", None) or self.own_title(address),
            *arguments,
            reactor=self.reactor,
            max_pdu_length=common.max_pdu,
            timeouts=Timeouts(
                connect=common.connect_timeout or defaults.connect,
                associate=associate,
                response=common.response_timeout or defaults.response,
                release=min(defaults.release, common.response_timeout or defaults.release),
            ),
            **options,
        )
        self._aes.append(made)
        return made

    def remote(self, address: Address) -> RemoteAE:
        """The peer, as the library's RemoteAE.

        Raises:
            CommandError: TLS with the peer is not possible.
        """
        from ...applicationentity import RemoteAE
        from ...exceptions import LocalProtocolError

        try:
            remote = RemoteAE(address.ae_title, address.endpoint(self.reactor))
            return remote if address.quirks is None else replace(remote, quirks=address.quirks)
        except LocalProtocolError as error:
            raise bad_input(
                f"TLS with {address} cannot be set up", str(error), "check the --tls options"
            ) from error
        except ImportError as error:
            raise bad_input(
                "TLS needs packages that are not installed",
                str(error),
                "pip install 'netdicom-tx[tls]'",
            ) from error

    def explain(self, error: BaseException, address: Address | None = None) -> Problem:
        """Turn an error into a problem.

        Args:
            address: The peer that the error concerns; None means the peer of the command.

        Raises:
            BaseException: The error itself, when neither a peer nor a user can cause it.
        """
        peer = address or self.common.address
        if peer is None:
            return explain(error, "the peer", self.own_title(), "")
        return explain(error, str(peer), self.own_title(peer), peer.ae_title)

    @asynccontextmanager
    async def association(
        self, ae: AE, address: Address, contexts: Any = None
    ) -> AsyncIterator[Association]:
        """An association, which is released at the end of the block, and aborted after an exception.

        Args:
            contexts: The presentation contexts, as for :meth:`AE.request_association`.
        """
        remote = self.remote(address)
        connecting = ae.request_association(remote, contexts)
        with self.on_interrupt(connecting.cancel):
            asce = await connecting
        if self.common.verbose:
            self.output.note(f"{address}: {len(asce.accepted_contexts)} contexts accepted")
        # Unless the block has its own action, Ctrl-C waits for outstanding requests and then releases the association.
        with self.on_interrupt(lambda: None):
            async with asce:
                yield asce

    # -- interruption --------------------------------------------------------------------------------

    @contextmanager
    def on_interrupt(self, action: Callable[[], object]) -> Iterator[None]:
        """Run an action at the first Ctrl-C while the block runs, or at once if it was pressed before."""
        if self.is_interrupted:
            action()
        self._actions.append(action)
        try:
            yield
        finally:
            self._actions.remove(action)

    async def sleep(self, seconds: float) -> None:
        """Wait some seconds; Ctrl-C ends the wait."""
        from twisted.internet.task import deferLater

        waiting: defer.Deferred[None] = deferLater(self.reactor, seconds, lambda: None)
        await self.until_interrupted(waiting)

    async def until_interrupted(self, waiting: defer.Deferred[_T]) -> _T | None:
        """The result of a Deferred; None when Ctrl-C cancelled it."""
        from twisted.internet.defer import CancelledError

        with self.on_interrupt(waiting.cancel):
            try:
                return await waiting
            except CancelledError:
                if self.is_interrupted:
                    return None
                raise

    def interrupt(self) -> None:
        """React to Ctrl-C."""
        if self._is_aborted:
            os._exit(ExitCode.INTERRUPTED)
        if self.is_interrupted:
            self._is_aborted = True
            self._abort()
            return
        self.is_interrupted = True
        self.output.note("interrupted: ending in order; Ctrl-C once more aborts")
        if self._actions:
            self._actions[-1]()
        else:
            self._abort()

    def _abort(self) -> None:
        for ae in self._aes:
            for asce in ae.associations:
                asce.abort()
        if self._running is not None:
            self._running.cancel()

    # -- from the beginning to the end -----------------------------------------------------------------

    async def perform(self, command: Callable[[Session], Coroutine[Any, Any, int]]) -> int:
        """Run a command; returns the exit code."""
        from twisted.internet import defer

        running = defer.Deferred.fromCoroutine(command(self))
        self._running = running
        try:
            code = await running
        except (defer.CancelledError, Exception) as error:
            if not self.is_interrupted:
                raise
            code = ExitCode.INTERRUPTED
            if self.common.verbose and not isinstance(error, defer.CancelledError):
                self.output.note(str(error))
        finally:
            self._running = None
            await self._close()
        if self.is_interrupted and not (self.ends_by_interrupt and not self._is_aborted):
            return ExitCode.INTERRUPTED
        return code

    async def _close(self) -> None:
        """Close every connection; a peer has a moment to close its side first."""
        from twisted.internet import defer

        left = [asce for ae in self._aes for asce in ae.associations]
        for asce in left:
            asce.abort()
        closing = defer.DeferredList([asce.closed() for asce in left], consumeErrors=True)
        closing.addTimeout(_CLOSING, self.reactor)
        with suppress(defer.TimeoutError):
            await closing
        for asce in left:
            asce.drop()


def run(common: Common, command: Callable[[Session], Coroutine[Any, Any, int]]) -> int:
    """Run a command in the reactor; returns the exit code.

    Raises:
        CommandError: The command failed.
    """
    from twisted.internet import defer, reactor

    from ...monotonic import use_monotonic_time

    any_reactor: Any = reactor  # no type has all of its interfaces
    use_monotonic_time(any_reactor)
    _begin_logging(common.verbose)
    session = Session(common, any_reactor)
    outcome: list[Any] = []

    def started() -> None:
        performing = defer.Deferred.fromCoroutine(session.perform(command))
        performing.addBoth(outcome.append)
        performing.addBoth(lambda _: any_reactor.stop())

    def on_signal(*_: object) -> None:
        any_reactor.callFromThread(session.interrupt)

    before = {each: signal.signal(each, on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
    any_reactor.callWhenRunning(started)
    try:
        any_reactor.run(installSignalHandlers=False)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    (result,) = outcome
    if isinstance(result, int):
        return result
    error: BaseException = result.value
    if isinstance(error, BrokenPipeError):
        # The reader of the results has closed the pipe. Buffered output must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.SOME_FAILED
    raise CommandError(session.explain(error)) from error


def _begin_logging(verbose: int) -> None:
    """Show the library's log on stderr, from a level that -v lowers."""
    import logging

    from twisted.logger import (
        FilteringLogObserver,
        ILogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        formatEvent,
        globalLogBeginner,
    )
    from zope.interface import provider

    from .output import printable_line

    # pydicom warns about values that a peer has sent, which the user cannot change.
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    level = (LogLevel.error, LogLevel.info, LogLevel.debug)[min(verbose, 2)]

    @provider(ILogObserver)
    def show(event: LogEvent) -> None:
        ours = event["log_namespace"].startswith("netdicom_tx")
        if not ours and verbose < 2 and event["log_level"] < LogLevel.warn:
            return  # what Twisted says about its ports and its main loop
        text = printable_line(formatEvent(event))
        sys.stderr.write(f"{event['log_level'].name}: {text}\n")
        failure = event.get("log_failure")
        if failure is not None:
            sys.stderr.write(failure.getTraceback())

    observer = FilteringLogObserver(show, [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], discardBuffer=True, redirectStandardIO=False)
