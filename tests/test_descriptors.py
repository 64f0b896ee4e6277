"""A node has a file descriptor for everything that its associations open."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
from twisted.logger import LogLevel, capturedLogs

from netdicom_tx.admission import BURST_LIMIT, HALF_OPEN_LIMIT
from netdicom_tx.descriptors import EACH, OTHERS, associations_for

NO_LIMIT = resource.RLIM_INFINITY
Limits = Callable[[int, int], list[tuple[int, int]]]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    """Sets the limits of the process, and gives those that it is asked for."""

    def set_to(soft: int, hard: int) -> list[tuple[int, int]]:
        asked: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda which, new: asked.append(new))
        return asked

    return set_to


def needed(associations: int) -> int:
    return EACH * associations + HALF_OPEN_LIMIT + OTHERS


@pytest.mark.parametrize("soft", [needed(100) + BURST_LIMIT, 1 << 20, NO_LIMIT])
def test_what_is_enough_stays(limits: Limits, soft: int) -> None:
    asked = limits(soft, NO_LIMIT)
    assert associations_for(100) == 100
    assert asked == []


@pytest.mark.parametrize("hard", [needed(1000), 1 << 20, NO_LIMIT])
def test_a_limit_is_raised_as_far_as_needed(limits: Limits, hard: int) -> None:
    asked = limits(1024, hard)
    assert associations_for(1000) == 1000
    # Many peers may call in the same moment.
    wanted = needed(1000) + BURST_LIMIT
    assert asked == [(wanted if hard == NO_LIMIT else min(wanted, hard), hard)]


def test_fewer_associations_are_admitted_where_the_limit_is_too_low(limits: Limits) -> None:
    asked = limits(256, needed(40))
    with capturedLogs() as events:
        assert associations_for(100) == 40
    assert asked == [(needed(40), needed(40))]
    (event,) = [each for each in events if each["log_level"] is LogLevel.warn]
    assert (event["possible"], event["needed"]) == (40, needed(100))


def test_one_association_is_always_admitted(limits: Limits) -> None:
    limits(64, 64)
    assert associations_for(100) == 1
