"""How figures, times and DICOM values appear on the pages: filters of the templates."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = [
    "FILTERS",
    "ago",
    "clock",
    "day",
    "hour",
    "lasting",
    "number",
    "octets",
    "person",
    "place",
]

_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
_DASH: Final = "\N{EN DASH}"


def number(value: float) -> str:
    """A count: ``12,345``."""
    return f"{value:,.0f}"


def octets(value: float | None) -> str:
    """A size of three digits or so, with a decimal prefix: ``1.24 GB``."""
    if value is None:
        return _DASH
    size, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if abs(size) < 999.5:
            break
        size, unit = size / 1000, larger
    digits = 0 if unit == "B" or abs(size) >= 99.95 else 1 if abs(size) >= 9.995 else 2
    return f"{size:.{digits}f}{_THIN}{unit}"


def lasting(seconds: float | None) -> str:
    """A duration in its two largest units: ``3 d 4 h``."""
    if seconds is None:
        return _DASH
    left = max(0, int(seconds))
    parts: list[str] = []
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count}{_THIN}{unit}" if count else "")
    return " ".join(each for each in parts[:2] if each) or f"0{_THIN}s"


def ago(seconds: float, now: float) -> str:
    """How long ago something was: ``5 min ago``."""
    passed = now - seconds
    if passed < 5:
        return "just now"
    return f"{lasting(passed).split(' ')[0]} ago"


def clock(seconds: float | None) -> str:
    """A moment in the time zone of the node: ``2026-11-28 14:03:07``."""
    if seconds is None:
        return _DASH
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def day(text: str) -> str:
    """A DA: ``2026-11-28``; as it is when it is not a date."""
    found = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", text, re.ASCII)
    return "-".join(found.groups()) if found is not None else text


def hour(text: str) -> str:
    """A TM: ``14:03``; as it is when it is not a time."""
    found = re.match(r"(\d\d):?(\d\d)", text, re.ASCII)
    return f"{found[1]}:{found[2]}" if found is not None else text


def person(text: str) -> str:
    """A PN for people: ``Doe, Jane``, and other representations behind it."""
    groups = [_group(each) for each in text.split("=", 2)]
    shown = [each for each in groups if each]
    return " · ".join(shown)


def _group(text: str) -> str:
    family, _, others = text.partition("^")
    rest = " ".join(each.strip() for each in others.split("^") if each.strip())
    return f"{family.strip()}, {rest}" if family.strip() and rest else family.strip() or rest


def place(endpoint: str) -> str:
    """Where an endpoint listens: ``127.0.0.1:104``; the string itself when it says more than that."""
    found = re.fullmatch(
        r"tcp6?:(?:port=)?(\d+)(?::interface=((?:\\:|[^:])+))?", endpoint, re.ASCII
    )
    if found is None:
        return endpoint
    host = (found[2] or "").replace("\\:", ":")
    return f"[{host}]:{found[1]}" if ":" in host else f"{host or 'every address'}:{found[1]}"


#: The filters, by name.
FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    each.__name__: each for each in (number, octets, lasting, ago, clock, day, hour, person, place)
}
