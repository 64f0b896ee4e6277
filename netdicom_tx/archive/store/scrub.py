"""The scrub of a running node: all files are read again, slowly, and compared with their digests.

A disk can lose or change octets without an error, and nobody notices before the file is needed. The scrub reads every
file over days, so that a damaged one is reported while a backup of it still exists. Its findings are in the log, and in
:attr:`Scrub.findings`; it changes nothing. ``netdicom verify`` reads all files at once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet import defer
from twisted.python.failure import Failure

from ...logs import Logger
from ..index.entries import Entry
from ..index.index import Index, IndexUnavailableError
from ..index.record import PIECE
from ..workers import Rounds
from .reconcile import Finding, examine

__all__ = ["Scrub"]

#: Seconds from the start of the service to the first round, when a node has other things to do.
FIRST: Final = 600.0
#: Seconds from the beginning of a round to that of the next one; a longer round is followed by the next at once.
PERIOD: Final = 7 * 86400.0
# Seconds to the next attempt when the index does not answer.
_RETRY: Final = 600.0
# Findings that are remembered; the log has all.
_REMEMBERED: Final = 1000


class Scrub(Rounds):
    """Reads the files of an archive round after round, in a thread of its own.

    A round begins at any file, so that the rounds of a node that is often restarted reach all of them. The service runs
    while the index is open. Stopping it takes no longer than to read a mebibyte.

    Args:
        index: The index, which has the digests. A file without one gets its digest, after a walk through it.
        reactor: The reactor of the node.
        rate: How many octets are read in a second.
        first: Seconds from the start of the service to the first round.
        period: Seconds from the beginning of a round to that of the next one.
        holds: Whether this node is the one of its group that reads the files.
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
        holds: Callable[[], bool] = lambda: True,
        threads: int = 1,
    ) -> None:
        if rate <= 0:
            raise ValueError(f"expected a rate above 0 octets in a second, not {rate}")
        super().__init__(reactor, first=first, retry=_RETRY, holds=holds, threads=threads)
        self.findings: dict[str, Finding] = {}
        self.compared = 0
        self.rounds = 0
        self._index = index
        self._rate = rate
        self._period = period
        self._going = threading.Event()
        self._going.set()

    # -- the service -------------------------------------------------------------------------------

    def stopService(self) -> defer.Deferred[None]:
        """Stop; fires when nothing is read any more."""
        stopped = super().stopService()
        self._going.set()
        return stopped

    def pause(self) -> None:
        """Read nothing until :meth:`resume`, not even of the file that is being read."""
        self._going.clear()

    def resume(self) -> None:
        """Go on where :meth:`pause` has interrupted."""
        self._going.set()

    # -- a round -----------------------------------------------------------------------------------

    def _do(self) -> float:
        began = self._reactor.seconds()
        self._go_through()
        return float(began + self._period - self._reactor.seconds())

    def _failed(self, failure: Failure) -> None:
        if failure.check(OSError):
            self._log.warn("scrub: {error}; the next round begins later", error=failure.value)
        elif failure.check(IndexUnavailableError):
            self._log.warn("scrub: the index does not answer: {error}", error=failure.value)
        else:
            self._log.failure("scrub: a round has failed", failure)

    def _go_through(self) -> None:
        self._wait(0)
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
                self._wait(octets / self._rate)

            self._wait(0)
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

    def _wait(self, seconds: float) -> None:
        """Wait for some seconds, and for the end of a pause, unless the round ends here."""
        self._stopping.wait(seconds)
        self._going.wait()
        self._go_on()
