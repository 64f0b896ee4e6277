"""Finds the lines of the tables and keys of a TOML file, which tomllib does not report."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["Where", "line_at", "lines_of"]

#: The path of a table or a key: names, and indexes in arrays of tables.
Where = tuple[str | int, ...]

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_KEYS = re.compile(rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*")
_HEADER = re.compile(r"(\[\[?)[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_VALUE = re.compile(
    r"\"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2}|'''.*?''''{0,2}"
    r"|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|#[^\n]*|(?P<open>[\[{])|(?P<close>[\]}])|(?P<end>\n)"
    r"|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)


def lines_of(text: str) -> dict[Where, int]:
    """The line of each table and key in a text that is TOML; tomllib does not tell it."""
    lines: dict[Where, int] = {}
    counts: dict[Where, int] = {}  # how many elements an array of tables has
    table: Where = ()
    at = counted = 0
    line = 1
    while at < len(text):
        blank = _BLANK.match(text, at)
        if blank is not None:
            at = blank.end()
            continue
        line += text.count("\n", counted, at)
        counted = at
        header = _HEADER.match(text, at)
        keys = _KEYS.match(text, header.end() if header is not None else at)
        if keys is None:
            break  # tomllib has accepted something that is not known here; the lines above are right
        path = table if header is None else ()
        for key in re.findall(_KEY, keys[0]):
            path = (*path, key.strip("\"'"))
            if header is not None and path in counts and path != _plain_path(keys[0]):
                path = (*path, counts[path] - 1)
        for length in range(len(table) + 1, len(path)):  # tables that a dotted key makes
            lines.setdefault(path[:length], line)
        if header is None:
            lines.setdefault(path, line)
            at = _after_value(text, text.index("=", keys.end()) + 1)
            continue
        if header[1] == "[[":
            lines.setdefault(path, line)
            counts[path] = counts.get(path, 0) + 1
            path = (*path, counts[path] - 1)
        lines.setdefault(path, line)
        table = path
        at = text.find("\n", keys.end()) + 1 or len(text)
    return lines


def _plain_path(keys: str) -> Where:
    return tuple(each.strip("\"'") for each in re.findall(_KEY, keys))


def _after_value(text: str, at: int) -> int:
    """The position behind the line in which a value ends."""
    depth = 0
    while at < len(text):
        token = _VALUE.match(text, at)
        if token is None:
            return len(text)
        at = token.end()
        depth += (token["open"] is not None) - (token["close"] is not None)
        if token["end"] is not None and not depth:
            break
    return at


def line_at(lines: Mapping[Where, int], path: Where) -> int:
    """The line of a key, or of the nearest table around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 0
