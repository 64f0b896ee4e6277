"""What systemd is told of the node: that it is ready, that it reloads or stops, and that it is alive (sd_notify(3)).

A unit with ``Type=notify`` is started when the node says that it serves, not when its process exists. With
``WatchdogSec=`` systemd restarts a node whose reactor is stuck, because the reactor itself says that it is alive. A
start or a stop that takes long asks for more time, as long as the reactor runs. Without ``NOTIFY_SOCKET`` in the
environment nothing is said.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Final

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .logs import Logger

__all__ = ["Supervised"]

# Seconds between two words while it starts or stops, and what each asks for.
_EXTENSION: Final = 10.0
_EXTENDED: Final = 60.0
# Seconds between two lines of status.
_STATUS: Final = 30.0


class Supervised:
    """Speaks to the service manager for a process.

    Args:
        clock: Gives the clock.
        status: Says in a line what the process does; may ask its workers first.
        environment: Has ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC``. They are removed, because a child process must not
            speak for this one.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Callable[[], IReactorTime],
        status: Callable[[], Awaitable[str]],
        environment: MutableMapping[str, str] = os.environ,
    ) -> None:
        self._clock = clock
        self._status = status
        self._environment = environment
        self._address = ""
        self._watchdog: float | None = None  # seconds between two words to the watchdog
        self._calls: dict[str, IDelayedCall] = {}
        self._is_ready = False
        self._is_deaf = False  # the manager has not taken the last word

    def starting(self, status: str) -> None:
        """The process starts, and has said nothing yet."""
        self._address = self._environment.pop("NOTIFY_SOCKET", "")
        microseconds = self._environment.pop("WATCHDOG_USEC", "")
        process = self._environment.pop("WATCHDOG_PID", "")
        if microseconds.isdecimal() and process in ("", str(os.getpid())):
            # Half of the time, as sd_watchdog_enabled(3) recommends.
            self._watchdog = int(microseconds) / 2e6
        self._extend(status)

    def ready(self) -> None:
        """Peers are served."""
        self._is_ready = True
        self._cancel("extend")
        self._tell(f"READY=1\nMAINPID={os.getpid()}")
        self._alive()
        self._tell_status()

    def reloading(self) -> None:
        """The configuration is read again, until :meth:`reloaded`."""
        if self._is_ready:
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(time.monotonic() * 1e6)}")

    def reloaded(self) -> None:
        """The configuration has been read, or was wrong; peers are served as before."""
        if self._is_ready:
            self._tell("READY=1")

    def stopping(self, status: str) -> None:
        """The process stops."""
        self._is_ready = False
        self._cancel("status")
        self._tell("STOPPING=1")
        self._extend(status)

    def stop(self) -> None:
        """Say nothing more."""
        self._is_ready = False
        for name in list(self._calls):
            self._cancel(name)
        self._address = ""

    # -- again and again ---------------------------------------------------------------------------

    def _extend(self, status: str) -> None:
        """Ask for time, and again while it is needed."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(_EXTENDED * 1e6)}\nSTATUS={status}")
        self._later("extend", _EXTENSION, self._extend, status)

    def _alive(self) -> None:
        if self._address and self._watchdog is not None:
            self._tell("WATCHDOG=1")
            self._later("watchdog", self._watchdog, self._alive)

    def _tell_status(self) -> None:
        async def tell() -> None:
            status = await self._status()
            if self._is_ready:
                self._tell(f"STATUS={status}")
                self._later("status", _STATUS, self._tell_status)

        if self._address:
            defer.Deferred.fromCoroutine(tell()).addErrback(
                lambda failure: self._log.failure("the service manager is told no status", failure)
            )

    def _later(self, name: str, seconds: float, call: Callable[..., None], *arguments: str) -> None:
        self._cancel(name)
        if self._address:
            self._calls[name] = self._clock().callLater(seconds, call, *arguments)

    def _cancel(self, name: str) -> None:
        call = self._calls.pop(name, None)
        if call is not None and call.active():
            call.cancel()

    # -- the socket --------------------------------------------------------------------------------

    def _tell(self, variables: str) -> None:
        """Send a datagram, unless the manager does not take it at the moment."""
        if not self._address:
            return
        # A name that begins with @ is in the abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
                speaker.setblocking(False)
                speaker.sendto(variables.encode(), address)
        except OSError as error:
            if not self._is_deaf:
                self._log.warn(
                    "the service manager does not take messages at NOTIFY_SOCKET={address}: {error}",
                    address=self._address,
                    error=error,
                )
            self._is_deaf = True
        else:
            self._is_deaf = False
