"""Rounds, medians and ratios: what the comparisons of archives and senders have in common."""

import sys
from collections.abc import Callable, Iterable, Sequence
from statistics import median

#: Somebody measured, and what is measured once, as (higher is better) per second.
Contestant = tuple[str, Callable[[], float]]


def rounds(contestants: Sequence[Contestant], count: int, unit: str) -> dict[str, list[float]]:
    """Measure all of them round by round, in turning order, so that what disturbs disturbs all."""
    found: dict[str, list[float]] = {name: [] for name, _ in contestants}
    for number in range(count):
        for name, measure in contestants if number % 2 else contestants[::-1]:
            found[name].append(measure())
            print(f"  {name:14} {found[name][-1]:10.1f} {unit}", file=sys.stderr, flush=True)
    return found


def table(title: str, found: dict[str, list[float]], unit: str, ours: str) -> None:
    """Print the medians, and the median of the rounds' ratios of ours to each."""
    print(f"{title:32} {unit:>10} {'ours is':>9}")
    for name, values in found.items():
        ratio = ""
        if name != ours:
            pairs = zip(found[ours], values, strict=True)
            ratio = f"{median(mine / other for mine, other in pairs):8.2f}x"
        print(f"  {name:30} {median(values):10.1f} {ratio:>9}")
    sys.stdout.flush()


def names(text: str) -> list[str]:
    """A list with commas."""
    return text.split(",")


def chosen(given: Iterable[str], known: Sequence[str]) -> list[str]:
    """The names, in the order of those known.

    Raises:
        SystemExit: One is not.
    """
    given = list(given)
    if unknown := set(given) - set(known):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    return [each for each in known if each in given]
