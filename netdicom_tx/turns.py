"""The turns of a reactor: how long the longest one took, and what has held up the others.

A reactor serves all peers in one thread. While it runs one function, nobody else is answered, and timers fire late. So
the time of every turn is taken, from the moment when the reactor has found something to do until it waits again, and a
turn that takes too long is a warning with the function that was running::

    turns = Turns(reactor)
    turns.startService()
    …
    turns.longest  # seconds

``twistd dicom`` measures always. A turn costs about a microsecond more, and a thread looks at the clock a few times in
a second.

The function is found by a thread that looks at the stack of the reactor's thread. A function in C that keeps all
threads from running cannot be seen from there; then the warning names the connection that was being served.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from types import CodeType, FrameType
from typing import Any, Final

from twisted.application.service import Service

from .logs import Logger

__all__ = ["INTERVAL", "LIMIT", "Turns"]

#: A turn that takes longer than this many seconds is logged.
LIMIT: Final = 0.2
#: How many seconds pass between two warnings about one cause.
INTERVAL: Final = 60.0
# How many seconds are a minute for Turns.recent().
MINUTE: Final = 60.0
# A turn that goes on for so many seconds is logged before it ends, because it may never end.
_ENDLESS: Final = 10.0
# How often the stack of a turn is looked at once the turn takes too long.
_LOOK: Final = 0.05
# How many causes are remembered.
_CAUSES: Final = 256
# How many functions are named at most.
_CALLS: Final = 3
# Packages whose functions only call others.
_CALLERS: Final = ("twisted", "netdicom_tx.turns", "__main__")
_STANDARD: Final = sys.stdlib_module_names


class Turns(Service):
    """Measures the turns of a reactor while it runs as a service.

    Args:
        reactor: The reactor. Those of Twisted that poll by themselves are measured: epoll, poll and select. With
            another one, such as the asyncio reactor, nothing is measured.
        limit: How many seconds a turn may take without a warning.

    Attributes:
        busy: How many seconds all turns together have taken.
        count: How many turns took longer than the limit.
    """

    name = "turns"
    _log = Logger()

    def __init__(self, reactor: Any, limit: float = LIMIT) -> None:
        self.busy = 0.0
        self._lately = 0.0  # the longest since the last minute ended for recent()
        self._longest = 0.0  # the longest before
        self._before = (monotonic(), 0.0)  # when that was, and the longest of that minute
        self.count = 0
        self._reactor = reactor
        self._limit = limit
        self._begun: float | None = None  # when the turn began; None while the reactor waits
        self._number = 0  # of turns that were too long, or are
        self._served = ""  # the connection that has held up the turn
        self._seen: tuple[float | None, list[str]] = (None, [])  # of the turn that began then
        self._told: OrderedDict[str, list[float]] = OrderedDict()  # when, how many since, longest
        self._thread = 0
        self._stopping = threading.Event()
        self._watchdog: threading.Thread | None = None
        self._hooks: dict[str, object] = {}
        self._earlier: dict[str, dict[str, object]] = {}  # hooks of others in the same places

    def startService(self) -> None:
        """Begin to measure."""
        super().startService()  # type: ignore[no-untyped-call]
        if not hasattr(self._reactor, "_doReadOrWrite"):
            return
        self._stopping.clear()
        self._hook()
        self._reactor.callWhenRunning(self._watch)

    def stopService(self) -> None:
        """Stop measuring, and restore the reactor."""
        super().stopService()  # type: ignore[no-untyped-call]
        for name, before in self._earlier.items():
            if self._reactor.__dict__.get(name) is self._hooks[name]:
                del self._reactor.__dict__[name]
                self._reactor.__dict__.update(before)
        self._earlier, self._hooks = {}, {}
        self._stopping.set()
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.join()
        self._begun = None

    @property
    def longest(self) -> float:
        """The longest turn in seconds."""
        return max(self._longest, self._lately)

    def recent(self) -> float:
        """The longest turn of this minute and the one before, in seconds; to be asked more often than that."""
        now = monotonic()
        if now - self._before[0] >= MINUTE:
            self._longest = self.longest
            self._before, self._lately = (now, self._lately), 0.0
        return max(self._before[1], self._lately)

    # -- measuring ---------------------------------------------------------------------------------

    def _hook(self) -> None:
        """Put stamps around what the reactor does in a turn."""
        reactor, limit = self._reactor, self._limit
        wait: Callable[[float | None], object] = reactor.doIteration
        serve: Callable[..., object] = reactor._doReadOrWrite
        run_calls: Callable[[], object] = reactor.runUntilCurrent

        def do_iteration(delay: float | None) -> None:
            begun = self._begun
            if begun is not None:
                taken = monotonic() - begun
                self._begun = None
                self.busy += taken
                if taken > self._lately:
                    self._lately = taken
                if taken > limit:
                    self._is_over(begun, taken)
            wait(delay)

        def do_read_or_write(selectable: object, *event: object) -> None:
            begun = monotonic()
            if self._begun is None:
                self._begun = begun
            serve(selectable, *event)
            if monotonic() - begun > limit:
                self._served = type(selectable).__name__

        def run_until_current() -> None:
            if self._begun is None:
                self._begun = monotonic()
            run_calls()

        self._hooks = {
            "doIteration": do_iteration,
            "_doReadOrWrite": do_read_or_write,
            "runUntilCurrent": run_until_current,
        }
        there = reactor.__dict__
        self._earlier = {name: {name: there[name]} if name in there else {} for name in self._hooks}
        there.update(self._hooks)

    def _is_over(self, begun: float, taken: float) -> None:
        """A turn has ended that was too long."""
        self.count += 1
        when, seen = self._seen
        served, self._served = self._served, ""
        if when == begun and seen:
            # What was seen most often has held up the turn.
            cause = max(seen, key=seen.count)
        else:
            cause = f"a function in C that serves {served}" if served else "a function in C"
        self._tell(cause, taken)

    def _tell(self, cause: str, taken: float) -> None:
        now = monotonic()
        told = self._told.get(cause)
        if told is not None and now - told[0] < INTERVAL:
            told[1] += 1
            told[2] = max(told[2], taken)
            return
        more = ""
        if told is not None and told[1]:
            more = f"; {told[1]:.0f} times more since the last line, up to {told[2]:.2f} s"
        self._told.pop(cause, None)
        self._told[cause] = [now, 0.0, 0.0]
        while len(self._told) > _CAUSES:
            self._told.popitem(last=False)
        self._log.warn(
            "the reactor was held up for {seconds:.2f} s by {cause}{more}; all peers have waited for that",
            seconds=taken,
            cause=cause,
            more=more,
        )

    # -- the watchdog ------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self.running or self._watchdog is not None:
            return
        self._thread = threading.get_ident()
        self._watchdog = threading.Thread(target=self._look, name="netdicom-turns", daemon=True)
        self._watchdog.start()

    def _look(self) -> None:
        """Look at the stack of each turn that is about to be too long; runs in a thread."""
        endless: float | None = None
        while not self._stopping.wait(self._limit / 2 if self._begun is None else _LOOK):
            begun = self._begun
            if begun is None or (taken := monotonic() - begun) < self._limit / 2:
                continue
            frame = sys._current_frames().get(self._thread)
            if frame is None or self._begun != begun:
                continue
            cause = where(frame)
            del frame
            when, seen = self._seen
            if when == begun:
                seen.append(cause)
            else:
                self._seen = (begun, [cause])
            if taken > _ENDLESS and endless != begun:
                endless = begun
                self._log.error(
                    "the reactor has been held up for {seconds:.0f} s by {cause}; no peer is served",
                    seconds=taken,
                    cause=cause,
                )


def where(frame: FrameType) -> str:
    """What a thread is doing, in words: the function, and who has called it, one for each package on the way."""
    said = [_name(frame)]
    package = _package(frame)
    outer = frame.f_back
    while outer is not None and len(said) < _CALLS:
        if not _is_foreign(outer) and _package(outer) != package:
            said.append(_name(outer))
            package = _package(outer)
        outer = outer.f_back
    return ", called by ".join(said)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_foreign(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return _package(frame) in _STANDARD or module.startswith(_CALLERS)


def _name(frame: FrameType) -> str:
    code: CodeType = frame.f_code
    module = frame.f_globals.get("__name__", code.co_filename)
    return f"{module}.{code.co_qualname} (line {frame.f_lineno})"
