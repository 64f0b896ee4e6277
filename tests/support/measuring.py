"""Coverage: of the programs that the tests start, and not of what is about time."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
