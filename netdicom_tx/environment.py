"""The environment as a source of the configuration: ``NETDICOM_<TABLE>_<KEY>``, for containers.

``NETDICOM_NODE_MAX_ASSOCIATIONS=7`` means ``max_associations = 7`` in ``[node]``. A list is written with commas, or as
TOML. An empty variable means the same as none. :mod:`netdicom_tx.config` checks the values like those of a file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from .access import Permission

__all__ = ["PREFIX", "Variable", "misspelled", "variables"]

PREFIX: Final = "NETDICOM_"
# The variables by which Docker and Kubernetes announce a service that is called "netdicom" or "netdicom-node".
_ANNOUNCED: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP)(_\w+)?)"
)
# How similar a variable has to be to a known one to be taken for a mistyped one.
_SIMILAR: Final = 0.85
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that sets a key.

    Attributes:
        value: The value, as TOML would have it; the text itself when it is not what the key needs.
    """

    name: str
    table: str
    key: str
    value: Any


def variables(environment: Mapping[str, str], tables: Mapping[str, type]) -> Iterator[Variable]:
    """The variables that set a key of a table.

    Args:
        environment: All variables of the process.
        tables: The classes of the tables, by name.
    """
    for name, (table, key, kind) in _known(tables).items():
        text = environment.get(name, "").strip()
        if text:
            yield Variable(name, table, key, _value(text, kind))


def misspelled(
    environment: Mapping[str, str], tables: Mapping[str, type]
) -> Iterator[tuple[str, str]]:
    """The variables that look like one that sets a key but are not known, each with the most similar one or ``""``.

    A variable of another program that begins with ``NETDICOM_`` is not one of them.
    """
    known = _known(tables)
    heads = tuple(f"{PREFIX}{table.upper()}_" for table in tables)
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in known or not environment[name].strip():
            continue
        found = difflib.get_close_matches(name, known, 1, _SIMILAR)
        if found or (name.startswith(heads) and not _ANNOUNCED.search(name)):
            near = difflib.get_close_matches(name, known, 1, 0.6)
            yield name, near[0] if near else ""


def _known(tables: Mapping[str, type]) -> dict[str, tuple[str, str, Any]]:
    """The table, the key and the type for each variable."""
    return {
        f"{PREFIX}{table}_{key}".upper(): (table, key, hint)
        for table, kind in tables.items()
        for key, hint in get_type_hints(kind).items()
    }


def _value(text: str, hint: Any) -> Any:
    kind = _plain(hint)
    if kind is object:  # [access] default: a word, or a list of permissions
        words = [each.strip() for each in text.split(",")]
        kind = tuple if len(words) > 1 or words[0] in set(Permission) else str
        if text.startswith("["):
            kind = tuple
    if kind is tuple:
        return _list(text)
    if kind is bool:
        return _WORDS.get(text.lower(), text)
    if kind is int and re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    return text


def _list(text: str) -> Any:
    if not text.startswith("["):
        return [each.strip() for each in text.split(",") if each.strip()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _plain(hint: Any) -> Any:
    """The type that TOML has for an annotation: tuple for a list, or bool, int or str; object for either."""
    if isinstance(hint, UnionType) or get_origin(hint) is not None:
        if get_origin(hint) is tuple:
            return tuple
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
        return _plain(hint)
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    return hint
