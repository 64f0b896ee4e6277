"""What holds for all tests."""

import gc
import os
import warnings
from collections.abc import Iterator

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from zope.interface import provider

_UNHANDLED: list[str] = []


@provider(ILogObserver)
def _observe(event: LogEvent) -> None:
    """Note the failure of a Deferred that nobody has taken, which Twisted only logs."""
    if event.get("log_namespace") == "twisted.internet.defer" and "log_failure" in event:
        _UNHANDLED.append(event["log_failure"].getTraceback())


def pytest_configure() -> None:
    """Begin to log; until then, Twisted keeps the last events, and with them what they are about."""
    with warnings.catch_warnings():  # which else would be logged from now on
        globalLogBeginner.beginLoggingTo([_observe], discardBuffer=True, redirectStandardIO=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest: in several processes, all others would wait for it in the end."""
    items.sort(key=lambda item: item.path.name != "test_nested_queries.py")


def pytest_collection_finish() -> None:
    """Keep the thousands of tests out of the garbage collector's way.

    It would look through all of them again and again, and most of all in tests that ask for a collection.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def unhandled() -> Iterator[list[str]]:
    """Failures of Deferreds that nobody has taken: none at the end, unless the test has cleared the list."""
    yield _UNHANDLED
    _fail_for_unhandled()


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_to_the_collector() -> Iterator[None]:
    """What the tests of a module leave unhandled, unclosed or not awaited fails there, and not in others."""
    yield
    gc.collect()
    _fail_for_unhandled()


def _fail_for_unhandled() -> None:
    if _UNHANDLED:
        said = "\n".join(_UNHANDLED)
        _UNHANDLED.clear()
        pytest.fail(f"Unhandled error in Deferred:\n{said}")


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_auto_num_workers() -> int:
    """How many processes ``-n auto`` means: four at least, because tests wait for programs and clocks."""
    return max(4, os.cpu_count() or 1)
