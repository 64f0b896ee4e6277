"""The plot of the last hour's throughput, as numbers that a template draws in SVG."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..archive.snapshots import Minute
from .formats import octets

__all__ = ["HEIGHT", "WIDTH", "Bar", "Plot", "plot_of"]

#: The size of the drawing, in its own units.
WIDTH, HEIGHT = 1360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 4, 8, 24
_DRAWN: Final = HEIGHT - _TOP - _BOTTOM
#: The least upper end of the axis, in octets per second.
_LEAST: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Bar:
    """What a minute is drawn as: what came goes up from the middle line, and what went goes down.

    Attributes:
        label: What the bar means, in words.
    """

    x: float
    width: float
    up: float
    down: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot.

    Attributes:
        middle: Where the middle line is.
        lines: The lines of the grid: where each is, and its label.
        ticks: The labels of the axis of time: where each is, and its text.
        received: How many octets came in the hour; ``sent`` went, and so many instances were kept.
    """

    middle: float
    bars: list[Bar]
    lines: list[tuple[float, str]]
    ticks: list[tuple[float, str]]
    received: int
    sent: int
    kept: int


def plot_of(minutes: Sequence[Minute]) -> Plot:
    """The plot of some minutes."""
    came = [each["received"] / 60 for each in minutes]
    went = [each["sent"] / 60 for each in minutes]
    top, bottom = _nice(max(came, default=0.0)), _nice(max(went, default=0.0))
    # Both directions have one scale. The one in which little happens has a fifth of the height.
    top, bottom = max(top, bottom / 4), max(bottom, top / 4)
    middle = _TOP + _DRAWN * top / (top + bottom)
    scale = _DRAWN / (top + bottom)
    step = (WIDTH - _LEFT - _RIGHT) / max(len(minutes), 1)
    bars, ticks = [], []
    for position, each in enumerate(minutes):
        x = _LEFT + position * step
        local = time.localtime(each["time"])
        label = (
            f"{local.tm_hour:02}:{local.tm_min:02}: {octets(each['received'])} received, "
            f"{octets(each['sent'])} sent, {each['instances_in']:,} instances kept"
        )
        bars.append(
            Bar(
                round(x + 1, 1),
                round(step - 2, 1),
                _height(came[position] * scale),
                _height(went[position] * scale),
                label,
            )
        )
        if local.tm_min % 10 == 0:
            ticks.append((round(x + step / 2, 1), f"{local.tm_hour:02}:{local.tm_min:02}"))
    return Plot(
        round(middle, 1),
        bars,
        [
            (_TOP, f"{octets(top)}/s"),
            (round((_TOP + middle) / 2, 1), f"{octets(top / 2)}/s"),
            (round(middle, 1), "0"),
            (_TOP + _DRAWN, f"{octets(bottom)}/s"),
        ],
        ticks,
        sum(each["received"] for each in minutes),
        sum(each["sent"] for each in minutes),
        sum(each["instances_in"] for each in minutes),
    )


def _height(units: float) -> float:
    """The height of a bar, which can be seen when there is anything."""
    return max(round(units, 1), 1.0) if units else 0.0


def _nice(most: float) -> float:
    """The next number that begins with 1, 2 or 5."""
    power = _LEAST
    while power * 10 < most:
        power *= 10
    return next(each * power for each in (1, 2, 5, 10) if each * power >= most)
