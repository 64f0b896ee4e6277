"""The scrub of a running node: all files are read again, slowly, and compared with their digests.

A disk can lose or change octets without an error, and nobody notices before the file is needed. The scrub reads every
file over days, so that a damaged one is reported while a backup of it still exists. Its findings are in the log, and in
:attr:`Scrub.findings`; it changes nothing. ``netdicom verify`` reads all files at once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet import defer

from ...logs import Logger
from ..index.index import Entry, Index, IndexUnavailableError
from ..index.record import PIECE
from ..workers import Workers
from .reconcile import Finding, examine

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["Scrub"]

#: Seconds from the start of the service to the first round, when a node has other things to do.
FIRST: Final = 600.0
#: Seconds from the beginning of a round to that of the next one; a longer round is followed by the next at once.
PERIOD: Final = 7 * 86400.0
# Seconds to the next attempt when the index does not answer.
_RETRY: Final = 600.0
# Findings that are remembered; the log has all.
_REMEMBERED: Final = 1000


class _StoppedError(Exception):
    """The service is stopping."""


class Scrub(Service):
    """Reads the files of an archive round after round, in a thread of its own.

    A round begins at any file, so that the rounds of a node that is often restarted reach all of them. The service runs
    while the index is open. Stopping it takes no longer than to read a mebibyte.

    Args:
        index: The index, which has the digests. A file without one gets its digest, after a walk through it.
        reactor: The reactor of the node.
        rate: How many octets are read in a second.
        first: Seconds from the start of the service to the first round.
        period: Seconds from the beginning of a round to that of the next one.
        threads: With 0, a round is done at once on the reactor thread, which suits a test without a reactor.

    Attributes:
        findings: What is damaged or missing, by SOP Instance UID, as of the last round and the present one.
        compared: How many files the present round has read, or the last one when none is under way.
        rounds: How many rounds are complete.
    """

    name = "scrub"
    _log = Logger()

    def __init__(
        self,
        index: Index,
        reactor: Any,  # IReactorTime and IReactorFromThreads
        *,
        rate: float,
        first: float = FIRST,
        period: float = PERIOD,
        threads: int = 1,
    ) -> None:
        if rate <= 0:
            raise ValueError(f"expected a rate above 0 octets in a second, not {rate}")
        self.findings: dict[str, Finding] = {}
        self.compared = 0
        self.rounds = 0
        self._index = index
        self._reactor = reactor
        self._rate = rate
        self._first, self._period = first, period
        self._workers = Workers("netdicom-scrub", threads)
        self._next: IDelayedCall | None = None
        self._round: defer.Deferred[None] | None = None
        self._stopping = threading.Event()
        self._going = threading.Event()
        self._going.set()

    # -- the service -------------------------------------------------------------------------------

    def startService(self) -> None:
        """Have the first round begin in a while."""
        super().startService()  # type: ignore[no-untyped-call]
        self._stopping.clear()
        self._workers.start(self._reactor)
        self._next = self._reactor.callLater(self._first, self._begin)

    def stopService(self) -> defer.Deferred[None]:
        """Stop; fires when nothing is read any more."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping.set()
        self._going.set()
        if self._next is not None and self._next.active():
            self._next.cancel()
        ended: defer.Deferred[None] = defer.succeed(None)
        if self._round is not None:
            running = self._round
            ended = defer.Deferred()
            running.addBoth(lambda _: ended.callback(None))
        return ended.addCallback(lambda _: self._workers.stop())

    def pause(self) -> None:
        """Read nothing until :meth:`resume`, not even of the file that is being read."""
        self._going.clear()

    def resume(self) -> None:
        """Go on where :meth:`pause` has interrupted."""
        self._going.set()

    # -- a round -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        began = self._reactor.seconds()
        self._round = going_on = self._workers.run(self._go_through)
        seconds = going_on.addCallbacks(lambda _: self._period, self._failed)
        seconds.addCallback(self._ended, began)

    def _failed(self, failure: Any) -> float:  # a Failure
        if failure.check(_StoppedError):
            return 0.0
        if failure.check(IndexUnavailableError):
            self._log.warn("scrub: the index does not answer: {error}", error=failure.value)
        else:
            self._log.failure("scrub: a round has failed", failure)
        return _RETRY

    def _ended(self, seconds: float, began: float) -> None:
        self._round = None
        if self.running:
            wait = max(0.0, began + seconds - self._reactor.seconds())
            self._next = self._reactor.callLater(wait, self._begin)

    def _go_through(self) -> None:
        """One round, in the thread."""
        self.compared, damaged, octets = 0, set(), 0
        for entry in self._entries():
            finding = self._examined(entry)
            self.compared += 1
            octets += entry.size
            if finding is None:
                self.findings.pop(entry.sop_instance_uid, None)
                continue
            damaged.add(entry.sop_instance_uid)
            if len(self.findings) < _REMEMBERED:
                self.findings[entry.sop_instance_uid] = finding
            self._log.error(
                "scrub: {path}: {fault}{reason}; restore it from a backup, or send the instance again",
                path=finding.path,
                fault=finding.fault.value,
                reason=f" ({finding.reason})" if finding.reason else "",
            )
        for uid in self.findings.keys() - damaged:
            # The instance is not in the index any more.
            del self.findings[uid]
        self.rounds += 1
        self._log.info(
            "scrub: {files} files with {octets} octets were compared with their digests; {damaged} are damaged",
            files=self.compared,
            octets=octets,
            damaged=len(damaged),
        )

    def _entries(self) -> Iterator[Entry]:
        """All instances, from any one on and around to it."""
        start = random.randrange(self._index.last_row() + 1)
        yield from self._index.entries(start)
        for entry in self._index.entries():
            if entry.row > start:
                return
            yield entry

    def _examined(self, entry: Entry) -> Finding | None:
        """Compare one file, at the rate."""
        while True:
            left = entry.size

            def pace() -> None:
                nonlocal left
                octets = max(0, min(left, PIECE))
                left -= octets
                self._go_on(octets / self._rate)

            self._go_on(0)
            found = examine(entry, pace)
            if found is None:
                return None
            # The instance may have been replaced or removed since its row was read.
            now = self._index.entry(entry.sop_instance_uid)
            if now is None:
                return None
            if now != entry:
                entry = now
                continue
            if isinstance(found, Finding):
                return found
            self._index.set_digest(entry.sop_instance_uid, found).result()
            return None

    def _go_on(self, seconds: float) -> None:
        """Wait for some seconds, and for the end of a pause.

        Raises:
            _StoppedError: The service is stopping.
        """
        self._stopping.wait(seconds)
        self._going.wait()
        if self._stopping.is_set():
            raise _StoppedError
