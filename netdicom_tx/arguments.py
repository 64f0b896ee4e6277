"""Checks of the arguments of public calls.

A wrong argument raises TypeError or ValueError in the call itself, with the argument's name, the value that was
given and what was expected. Lists of UIDs are checked by :func:`netdicom_tx.uids.as_tuple`, AE titles by
:func:`netdicom_tx.pdu.check_ae_title`.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterable, Iterable
from typing import Any, TypeVar

__all__ = [
    "check_callable",
    "check_data_source",
    "check_kind",
    "check_number",
    "check_seconds",
    "check_type",
    "many",
    "several",
]

_T = TypeVar("_T")
_Many = TypeVar("_Many", bound=Iterable[Any] | AsyncIterable[Any])


def check_type(
    argument: str, value: object, kind: type[Any] | tuple[type[Any], ...], expected: str = ""
) -> None:
    """Refuse a value of another class.

    Args:
        argument: The name of the argument, for the error message; so in all functions here.
        kind: The class; or several, and then ``expected`` is needed.
        expected: What was expected, in a user's words; empty names the class.

    Raises:
        TypeError: The value is not of this class.
    """
    if not isinstance(value, kind):
        if isinstance(kind, type):
            expected = expected or _with_article(kind.__name__)
        raise TypeError(f"{argument} is {_shown(value)}; expected {expected}")


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def check_kind(argument: str, value: object, base: type[Any]) -> None:
    """Refuse what is not a class that is, or extends, another one.

    Raises:
        TypeError: The value is not such a class.
    """
    if not (isinstance(value, type) and issubclass(value, base)):
        raise TypeError(
            f"{argument} is {value!r:.80}; expected {base.__name__}, or a class that extends it"
        )


def check_callable(argument: str, value: object) -> None:
    """Refuse what cannot be called.

    Raises:
        TypeError: The value cannot be called.
    """
    if not callable(value):
        raise TypeError(f"{argument} is {value!r:.80}; expected a callable")


def check_data_source(argument: str, value: object) -> None:
    """Refuse a value that cannot be sent as a data set. None stands for a message without a data set.

    Raises:
        TypeError: The value is neither octets nor a binary file.
    """
    is_octets = value is None or isinstance(value, bytes | bytearray | memoryview)
    if not (is_octets or hasattr(value, "read") or hasattr(value, "readinto")):
        raise TypeError(
            f"{argument} is {type(value).__name__}; expected bytes or a binary file: "
            "dsutils.encode(data_set, ctx.supported_ts) makes bytes of a pydicom.Dataset"
        )


def check_number(
    argument: str, value: int, least: int, *, most: int | None = None, unit: str = ""
) -> None:
    """Refuse what is not a whole number from ``least`` on, up to ``most`` where that is given.

    Raises:
        TypeError: The value is not an int; a bool does not count as one.
        ValueError: The value is less, or more.
    """
    bounds = f"{least} or greater" if most is None else f"{least} to {most}"
    expected = f"a whole number, {bounds}" + (f", of {unit}" if unit else "")
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} is {value!r:.80}; expected {expected}")
    if value < least or (most is not None and value > most):
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


def several(argument: str, values: _Many, expected: str) -> _Many:
    """Refuse one item where a list of files, data sets and the like is expected; the list itself is not consumed.

    Args:
        expected: What the items are, in the plural: ``"files or data sets"``.

    Raises:
        TypeError: It is one item instead of a list, or is not iterable.
    """
    # A mapping, or a pydicom.Dataset, could be iterated over, too.
    is_one = isinstance(values, str | bytes | os.PathLike) or (
        hasattr(values, "read") or hasattr(values, "keys")
    )
    if is_one or not isinstance(values, Iterable | AsyncIterable):
        raise TypeError(f"{argument} is {_shown(values)}; expected a list of {expected}")
    return values


def _shown(value: object) -> str:
    """A value in an error message; a data set is not shown, because it is about a patient."""
    return f"one {type(value).__name__}" if hasattr(value, "keys") else f"{value!r:.80}"


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
