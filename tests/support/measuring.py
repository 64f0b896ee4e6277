"""Coverage of the programs that the tests start, as a plugin of coverage.

coverage measures each Python that a test starts, if the test passes :func:`variables` on. A program
saves what it has measured when it exits. ``twistd`` does not exit: it shuts down, and then ends itself
with the signal that it was sent. Therefore, this plugin saves before a process sends itself a signal.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coverage.plugin_support import Plugins
    from coverage.types import TConfigurable


def variables() -> dict[str, str]:
    """The environment variables that a program needs to be measured; none without coverage."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


@contextmanager
def unmeasured() -> Iterator[None]:
    """Do not measure coverage in this block, which is about time."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


def coverage_init(_registry: "Plugins", _options: "TConfigurable") -> None:
    """Save the measurement before this process sends itself a signal. coverage calls this at its start."""
    from coverage import Coverage

    kill = os.kill

    def save_and_kill(pid: int, signum: int) -> None:
        measuring = Coverage.current()
        if pid == os.getpid() and measuring is not None:
            measuring.save()
        kill(pid, signum)

    os.kill = save_and_kill
