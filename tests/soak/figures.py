"""What a soak measures of the node's process, and how that is judged (Linux)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

#: From this many minutes on, the memory is judged; before, caches are still filled.
JUDGED: Final = 5.0
#: MiB by which the resident memory may rise from the second quarter of a soak to its last one.
RISE: Final = 16.0
#: By how many descriptors and threads the idle node may have more at the end than at the start. Threads and
#: connections to the database are made when they are first needed.
DESCRIPTORS: Final = 24
THREADS: Final = 24


@dataclass(frozen=True, slots=True)
class Sample:
    """The node's process at a moment.

    Attributes:
        seconds: Since the start of the soak.
        resident: MiB of resident memory.
    """

    seconds: float
    resident: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int, seconds: float) -> Sample:
        """A sample of now."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        return cls(
            seconds,
            int(status["VmRSS"].split()[0]) / 1024,
            len(os.listdir(f"/proc/{pid}/fd")),
            int(status["Threads"]),
        )


def slope(samples: Sequence[Sample]) -> float:
    """MiB an hour by which the resident memory rises, by least squares over the second half of the samples."""
    points = [(each.seconds / 3600, each.resident) for each in samples[len(samples) // 2 :]]
    mean_x, mean_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def rise(samples: Sequence[Sample]) -> float:
    """MiB of resident memory by which the last quarter is above the second one, on average."""
    quarter = max(len(samples) // 4, 1)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    return fmean(each.resident for each in last) - fmean(each.resident for each in second)


def problems(samples: Sequence[Sample], idle: Sample) -> list[str]:
    """What is wrong with the figures.

    Args:
        samples: Of the whole soak; the first was taken before the load.
        idle: Taken when the load had ended.
    """
    first, found = samples[0], []
    if samples[-1].seconds >= 60 * JUDGED and rise(samples) > RISE:
        found.append(f"the resident memory has risen by {rise(samples):.1f} MiB; expected {RISE}")
    if idle.descriptors > first.descriptors + DESCRIPTORS:
        found.append(f"{idle.descriptors} descriptors are open, {first.descriptors} at the start")
    if idle.threads > first.threads + THREADS:
        found.append(f"{idle.threads} threads run, {first.threads} at the start")
    return found
