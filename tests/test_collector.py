"""The garbage collector of a node looks at what is new, and less often."""

import gc
from collections.abc import Iterator

import pytest

from netdicom_tx.collector import spare_what_stays


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_what_exists_is_looked_at_no_more() -> None:
    """Later garbage is still found."""
    kept: list[list[object]] = [[] for _ in range(1000)]
    spare_what_stays()
    assert gc.get_freeze_count() > len(kept)
    assert gc.get_threshold()[0] > 700
    assert not any(each is kept[0] for each in gc.get_objects())
    later: list[object] = []
    later.append(later)
    del later
    assert gc.collect() >= 1
