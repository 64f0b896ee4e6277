"""Rounds, medians and ratios for the comparisons of archives and senders."""

import sys
from collections.abc import Callable, Iterable, Sequence
from statistics import median

#: The name of a peer, and a function that measures it once and returns a rate per second (higher is better).
Contestant = tuple[str, Callable[[], float]]


def rounds(contestants: Sequence[Contestant], count: int, unit: str) -> dict[str, list[float]]:
    """Measure all peers in each round, in rotating order, so that disturbances affect all of them."""
    found: dict[str, list[float]] = {name: [] for name, _ in contestants}
    for number in range(count):
        for name, measure in contestants if number % 2 else contestants[::-1]:
            found[name].append(measure())
            print(f"  {name:14} {found[name][-1]:10.1f} {unit}", file=sys.stderr, flush=True)
    return found


def table(title: str, found: dict[str, list[float]], unit: str, ours: str) -> None:
    """Print the medians, and for each peer the median of our ratio to it over the rounds."""
    print(f"{title:32} {unit:>10} {'ours is':>9}")
    for name, values in found.items():
        ratio = ""
        if name != ours:
            pairs = zip(found[ours], values, strict=True)
            ratio = f"{median(mine / other for mine, other in pairs):8.2f}x"
        print(f"  {name:30} {median(values):10.1f} {ratio:>9}")
    sys.stdout.flush()


def names(text: str) -> list[str]:
    """Split a list at its commas."""
    return text.split(",")


def chosen(given: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return the chosen names in the order of the known ones.

    Raises:
        SystemExit: A name is unknown.
    """
    given = list(given)
    if unknown := set(given) - set(known):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    return [each for each in known if each in given]
