"""What holds for all tests."""

import gc
import os
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from zope.interface import provider

from netdicom_tx.logs import Level, show_from
from support.archive import databases
from support.archive.objectstore import Bucket, ObjectStore

# The machine may be busy, so a slow example is not a failure. A property takes over what holds when it is read, so this
# stands here, before all of them.
settings.register_profile(
    "netdicom_tx", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("netdicom_tx")

_UNHANDLED: list[str] = []
# The files whose few tests take minutes; the longest first.
_LONGEST = (
    *("interop/test_nested_queries.py", "scale/test_faults.py", "archive/group/test_two_nodes.py"),
    *("interop/test_haproxy.py", "test_workforce.py", "scale/test_workflow.py"),
    *("archive/test_rounds.py", "interop/test_browser.py", "test_docs.py"),
)


@provider(ILogObserver)
def _observe(event: LogEvent) -> None:
    """Note the failure of a Deferred that nobody has taken, which Twisted only logs."""
    if event.get("log_namespace") == "twisted.internet.defer" and "log_failure" in event:
        _UNHANDLED.append(event["log_failure"].getTraceback())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=databases.KINDS,
        default="sqlite",
        help="the kind of database that the tests of the archive use",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin to log; until then, Twisted keeps the last events, and with them what they are about."""
    databases.use(config.getoption("--database"))
    if hasattr(config.option, "loadscopereorder"):
        # Several processes take the files in the order below, not by the number of their tests.
        config.option.loadscopereorder = False
    # A shell lets what it runs in the background ignore SIGINT, and `nohup` SIGHUP; programs that tests start would
    # inherit that.
    for number, action in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, action)
    with warnings.catch_warnings():  # which else would be logged from now on
        globalLogBeginner.beginLoggingTo([_observe], discardBuffer=True, redirectStandardIO=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is about SQLite where another database is tested, and put the tests in order."""
    if not databases.is_sqlite():
        not_here = pytest.mark.skip(reason="the test is about SQLite")
        for item in items:
            if item.get_closest_marker("sqlite") is not None:
                item.add_marker(not_here)
    if not os.environ.get("NETDICOM_TX_COVER_PROGRAMS"):
        # They wait for programs, which are not measured, and their clocks run while they are.
        for item in items:
            if _is_waiting(item):
                item.add_marker("no_cover")
    place = _order(items)
    items.sort(key=lambda item: place[item.path])


def _is_waiting(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in ("interop", "slow"))


def _order(items: list[pytest.Item]) -> dict[Path, int]:
    """The places of the files, such that several processes end at about the same time.

    The files that take longest come first, for all others would wait for them in the end. Files whose tests wait for
    programs take turns with those that only compute, and the files with the fewest tests come last.
    """
    tests = Counter(item.path for item in items)
    waiting = {item.path for item in items if _is_waiting(item)}
    by_size = sorted(tests, key=lambda path: (-tests[path], path))
    kinds = ([path for path in by_size if (path in waiting) == waits] for waits in (True, False))
    in_turns = [path for both in zip_longest(*kinds) for path in both if path is not None]
    here = Path(__file__).parent
    rank = {here / name: number for number, name in enumerate(_LONGEST)}
    in_turns.sort(key=lambda path: rank.get(path, len(rank)))
    return {path: number for number, path in enumerate(in_turns)}


def pytest_collection_finish() -> None:
    """Keep the thousands of tests out of the garbage collector's way.

    It would look through all of them again and again, and most of all in tests that ask for a collection.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def bucket() -> Bucket:
    """An empty bucket of an object store that runs; the test is skipped where Swift is not installed."""
    return ObjectStore.running().bucket()


@pytest.fixture(autouse=True)
def unhandled() -> Iterator[list[str]]:
    """Failures of Deferreds that nobody has taken: none at the end, unless the test has cleared the list."""
    yield _UNHANDLED
    _fail_for_unhandled()


@pytest.fixture(autouse=True)
def _log_of_a_process() -> Iterator[None]:
    """A node that a test runs in its own process decides about the log of the process, for that test alone."""
    yield
    show_from(Level.DEBUG)


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
