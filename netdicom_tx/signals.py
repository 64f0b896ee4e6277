"""The effects of an operator's signals on the process of a node.

==========================  =====================================================================================
signal                      the node
==========================  =====================================================================================
SIGTERM or SIGINT           stops the reactor, so that its services end in order; the exit status is 0
a second one                aborts all associations and ends, within two seconds; the exit status is 1
a third one                 ends at once; the exit status is 1
SIGHUP                      reads its configuration file and its TLS files again, and continues
==========================  =====================================================================================
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ReactorNotRunning

from .exceptions import NetDICOMError
from .logs import Logger

__all__ = ["Signals"]

# How many seconds a process has to end after the second signal; a thread that has not ended by then is abandoned.
_AT_ONCE = 2.0
# For how many seconds a second SIGHUP waits: the files are read in the reactor's thread.
_BETWEEN_RELOADS: Final = 1.0


class Signals:
    """Handles the signals of a process that runs a reactor.

    Args:
        reactor: The reactor.
        abort: Ends all associations now.
        reload: Reads files again, and returns a text that names them, for the log; the text is empty when there is
            nothing to reload.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, abort: Callable[[], None], reload: Callable[[], str] = lambda: ""
    ) -> None:
        self._reactor = reactor
        self._abort = abort
        self._reload_now = reload
        self._is_reload_due = False
        self._reloaded = -_BETWEEN_RELOADS
        self._stops = 0  # signals that ask for the end
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take the place of the handlers of the reactor and of those that Python and the system have.

        Call it before the reactor runs, and again when it runs: then it has installed its own. Handlers of others
        stay.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number, default, own in (
            (signal.SIGTERM, signal.SIG_DFL, "sigTerm"),
            (signal.SIGINT, signal.default_int_handler, "sigInt"),
        ):
            if signal.getsignal(number) in (default, getattr(self._reactor, own, default)):
                self._before[number] = signal.signal(number, self._stop)
        if getattr(self._reactor, "_exitSignal", None) is not None:
            # It came between the reactor's own handlers and ours. The reactor stops, but the runners of Twisted
            # would end the process by the signal.
            self._reactor._exitSignal = None
            self._stops += 1
        # A system without SIGHUP has no such name, and a process under nohup ignores it.
        hang_up = getattr(signal, "SIGHUP", None)
        if hang_up and self._before and signal.getsignal(hang_up) is signal.SIG_DFL:
            self._before[hang_up] = signal.signal(hang_up, self._reload)

    def uninstall(self) -> None:
        """Restore the former handlers, unless one of ours has been called to end the process."""
        if not self._stops:
            while self._before:
                signal.signal(*self._before.popitem())

    def fail(self) -> None:
        """Stop the reactor, and let the process end with status 1, because it cannot do its work."""
        # The runners of Twisted end with status 0 when the reactor has stopped.
        atexit.register(_exit)
        self._reactor.stop()

    def _reload(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload_soon)

    def _reload_soon(self) -> None:
        """Reload at once, or a while after the last time; the signals in between are one."""
        if self._is_reload_due:
            return
        self._is_reload_due = True
        wait = self._reloaded + _BETWEEN_RELOADS - self._reactor.seconds()
        if wait > 0:
            self._reactor.callLater(wait, self._reload_in_turn)
        else:
            self._reload_in_turn()

    def _reload_in_turn(self) -> None:
        self._is_reload_due = False
        self._reloaded = self._reactor.seconds()
        try:
            read = self._reload_now()
        except NetDICOMError as error:
            self._log.error(
                "Received SIGHUP, but the former options stay in effect: {error}",
                error=error,
                event="reload-failed",
            )
            return
        self._log.info(
            "Received SIGHUP. {what}; other changes need a restart of the node",
            what=f"Read {read} again" if read else "There is nothing to reload",
        )

    def _stop(self, number: int, frame: object) -> None:
        self._stops += 1
        name = signal.Signals(number).name
        if self._stops == 1:
            self._reactor.callFromThread(self._stop_in_order, name)
        elif self._stops == 2:
            end = threading.Timer(_AT_ONCE, _exit)
            end.daemon = True
            end.start()
            self._reactor.callFromThread(self._stop_now, name)
        else:
            _exit()

    def _stop_in_order(self, name: str) -> None:
        self._log.info(
            "Received {name}: ending in order; a second signal aborts what is running",
            name=name,
            event="stopping",
        )
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            self._log.debug("the reactor is being stopped already")

    def _stop_now(self, name: str) -> None:
        self._log.warn("Received {name} again: aborting all associations", name=name)
        # The runners of Twisted end with status 0 when the reactor has stopped.
        atexit.register(_exit)
        self._abort()


def _exit() -> None:
    """End the process with status 1, whatever its threads do."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)
