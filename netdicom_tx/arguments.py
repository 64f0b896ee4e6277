"""Checks of the arguments of public calls.

A wrong argument raises TypeError or ValueError in the call itself, with the argument's name, the value that was
given and what was expected. Lists of UIDs are checked by :func:`netdicom_tx.uids.as_tuple`, AE titles by
:func:`netdicom_tx.pdu.check_ae_title`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = ["check_number", "check_seconds", "check_type", "many"]

_T = TypeVar("_T")


def check_type(argument: str, value: object, kind: type[Any], expected: str = "") -> None:
    """Refuse a value of another class.

    Args:
        argument: The name of the argument, for the error message; so in all functions here.
        kind: The class.
        expected: What was expected, in a user's words; empty names the class.

    Raises:
        TypeError: The value is not of this class.
    """
    if not isinstance(value, kind):
        raise TypeError(
            f"{argument} is {value!r:.80}; expected {expected or _with_article(kind.__name__)}"
        )


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def check_number(argument: str, value: int, least: int, *, unit: str = "") -> None:
    """Refuse what is not a whole number from ``least`` on.

    Raises:
        TypeError: The value is not an int; a bool does not count as one.
        ValueError: The value is less.
    """
    expected = f"a whole number, {least} or greater" + (f", of {unit}" if unit else "")
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} is {value!r:.80}; expected {expected}")
    if value < least:
        raise ValueError(f"{argument} is {value!r:.80}; expected {expected}")


def check_seconds(argument: str, value: float, *, zero: bool = False) -> None:
    """Refuse what cannot be a timeout, when it is given and not when it would be waited for.

    Args:
        zero: Whether 0 is a sensible value.

    Raises:
        TypeError: The value is not a number; a bool does not count as one.
        ValueError: The value is not greater than 0, or is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{argument} is {value!r:.80}; expected seconds as a number, such as 30 or 0.5"
        )
    if not (0 < value < math.inf or (zero and value == 0)):
        least = "of 0 or greater" if zero else "greater than 0"
        raise ValueError(
            f"{argument} is {value!r:.80}; expected seconds {least} and finite. Every wait "
            "ends: use a large number for a long one"
        )


def many(argument: str, values: Iterable[_T], kind: Any, expected: str) -> tuple[_T, ...]:
    """Copy an argument that is a list, whose items are of one class.

    Args:
        kind: The class, or whatever else ``isinstance`` takes.
        expected: What the items are, in the plural: ``"AE titles"``.

    Raises:
        TypeError: It is one item instead of a list, is not iterable, or holds something of another class.
    """
    is_one = isinstance(values, (str, bytes, kind))
    if is_one or not isinstance(values, Iterable):
        raise TypeError(f"{argument} is {values!r:.80}; expected a list of {expected}")
    copied = tuple(values)
    for each in copied:
        if not isinstance(each, kind):
            raise TypeError(f"{argument} holds {each!r:.80}; expected {expected}")
    return copied
