"""A reactor's time that does not jump with the wall clock.

Twisted's reactors keep time by :func:`time.time`. When that is set forward, all timers fire early, and every
association ends by its timeouts; when it is set back, no timer fires until the wall clock has caught up.
:func:`use_monotonic_time` prevents both. ``twistd dicom`` and the ``netdicom`` commands call it; a program of your own
can do so before it runs the reactor.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.python import runtime

__all__ = ["use_monotonic_time"]


def use_monotonic_time(reactor: Any) -> None:
    """Let a reactor keep time by the monotonic clock.

    Calls that are scheduled already keep the time that they have left. Afterwards ``reactor.seconds()`` is not the
    time of day; Twisted's web server takes it for that in its access log. A reactor that does not keep time by the
    wall clock, such as a :class:`~twisted.internet.task.Clock`, stays as it is.
    """
    if getattr(reactor, "seconds", None) is not runtime.seconds:
        return
    scheduled = [(call, call.getTime() - reactor.seconds()) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for call, left in scheduled:
        call.seconds = time.monotonic
        call.reset(max(0.0, left))
