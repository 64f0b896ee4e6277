"""What holds for all tests."""

import gc
import os

import pytest


def pytest_collection_finish() -> None:
    """Keep the thousands of tests out of the garbage collector's way.

    It would look through all of them again and again, and most of all in tests that ask for a collection.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_auto_num_workers() -> int:
    """How many processes ``-n auto`` means: four at least, because tests wait for programs and clocks."""
    return max(4, os.cpu_count() or 1)
