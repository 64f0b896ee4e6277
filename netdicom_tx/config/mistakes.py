"""Mistakes in a configuration file, and the messages about them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..exceptions import NetDICOMError
from .lines import Where

__all__ = ["EX_CONFIG", "ConfigurationError", "Mistake", "WrongError", "nearest"]

#: The exit status for a wrong configuration (sysexits.h).
EX_CONFIG: Final = 78


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a configuration file.

    Attributes:
        text: What is wrong, with the key.
        hint: What to write instead; may be empty.
        line: The line, counted from 1; 0 when there is none.
        key: The table and the key, as the tables of this version have them; empty when it concerns the whole file.
    """

    text: str
    hint: str = ""
    line: int = 0
    key: Where = ()

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.text}{f'; {self.hint}' if self.hint else ''}"


class ConfigurationError(NetDICOMError):
    """The configuration file is wrong.

    Attributes:
        path: The file.
        mistakes: All that is wrong with it, in the order of the lines.
    """

    def __init__(self, path: str, mistakes: Iterable[Mistake]) -> None:
        self.path = path
        self.mistakes = tuple(sorted(mistakes, key=lambda each: each.line))
        (first, *more) = self.mistakes
        if more:
            lines = "".join(f"\n  {each}" for each in self.mistakes)
            super().__init__(f"{path} has {len(self.mistakes)} mistakes:{lines}")
        else:
            super().__init__(f"{path}: {first}")


class WrongError(ValueError):
    """A value is wrong.

    Args:
        text: What was expected, and what came.
        hint: What to write instead.
        key: The key in a table that the value belongs to; empty when it is the value itself.
    """

    def __init__(self, text: str, hint: str = "", key: str = "") -> None:
        super().__init__(text)
        self.hint = hint
        self.key = key


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like a wrong one, as a hint."""
    words = list(known)
    for each in (word, word.lower(), word.lower().replace("-", "_")):
        found = difflib.get_close_matches(each, words, 1, 0.6)
        if found:
            break
    return f"did you mean {found[0]}?" if found else ""
