"""The soak itself for a moment, and how its figures are judged."""

import subprocess
import sys

import pytest

from soak.figures import JUDGED, RISE, Sample, problems, rise, slope
from support.processes import CHECKOUT


def samples(minutes: float, mebibytes_an_hour: float) -> list[Sample]:
    """A hundred samples of a node whose memory rises."""
    step = minutes * 60 / 99
    return [
        Sample(each * step, 80 + mebibytes_an_hour * each * step / 3600, 20, 10)
        for each in range(100)
    ]


def test_the_slope_of_the_memory_is_that_of_the_samples() -> None:
    assert slope(samples(60, 12)) == pytest.approx(12)
    assert rise(samples(60, 12)) == pytest.approx(6, abs=0.2)
    assert slope(samples(60, 0)) == 0
    assert slope([Sample(0, 80, 20, 10)]) == 0


def test_memory_that_rises_is_a_problem_after_some_minutes() -> None:
    idle = Sample(7200, 80, 20, 10)
    assert problems(samples(120, 0.5), idle) == []
    (problem,) = problems(samples(120, 3 * RISE), idle)
    assert "the resident memory has risen" in problem
    assert problems(samples(JUDGED / 2, 1000), idle) == [], "caches are being filled"


def test_descriptors_and_threads_that_stay_are_a_problem() -> None:
    found = problems(samples(120, 0), Sample(7200, 80, 200, 100))
    assert found == [
        "200 descriptors are open, 20 at the start",
        "100 threads run, 10 at the start",
    ]


@pytest.mark.slow
def test_a_node_is_soaked_for_a_moment() -> None:
    """Nothing is lost, nothing fails, and nothing stays open; the memory is judged in longer runs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "0.3", "--peers", "2"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert ", 0 lost; 0 failures" in done.stdout
