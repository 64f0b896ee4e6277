"""Read a configuration file, and the variables that win over it.

:func:`read` finds every mistake of a file at once, each with its line and with what to write instead. The keys of
former versions, which are the names of the options at the top level (``max-associations = 7``), mean the fields with
these options.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import attrs
from cattrs import (
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)

from ..access import ANY_TITLE, Network, network
from ..environment import PREFIX, misspelled, variables
from .lines import Where, line_at, lines_of
from .mistakes import ConfigurationError, Mistake, WrongError, nearest
from .structure import converter
from .tables import FIELDS, SECRET_FILES, SECRETS, TABLES, Config, Peer, named

__all__ = ["Source", "read", "read_leniently"]

# The node reads its file in the reactor's thread: 256 KiB, enough for 2,000 peers, take a fraction of a second.
_LARGEST: Final = 256 * 1024
_LARGEST_SECRET: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A file and an environment that have been read, with what is needed to say where something stands in them.

    Attributes:
        path: The file, as it was named; ``"the environment"`` without one.
        config: What they say.
        given: The path of the key for each option that they set.
        found: The path of each key that they set, by its path in the tables.
        text: The text of the file.
    """

    path: str
    config: Config
    given: Mapping[str, Where]
    lines: Mapping[Where, int]
    found: Mapping[Where, Where]
    text: str = ""

    def origin(self, table: str, key: str) -> str:
        """Where the value of a key comes from: a variable, or a file with the line; empty for a default."""
        where = self.found.get((table, key))
        if where is None:
            return ""
        if str(where[0]).startswith(PREFIX):
            return str(where[0])
        return self.place(where)

    def place(self, where: Where) -> str:
        """The file and the line of a key or a table."""
        return f"{self.path}:{line_at(self.lines, where)}"

    def line(self, option: str) -> int:
        """The line of an option that the file sets; 0 for a variable."""
        return line_at(self.lines, self.given[option])

    def mistake(self, option: str, text: str, hint: str = "") -> Mistake:
        """A mistake in the value of an option that the file sets."""
        return self._mistake(self.given[option], text, hint)

    def mistake_in(self, table: str, key: str, text: str, hint: str = "") -> Mistake:
        """A mistake in the value of a key."""
        return self._mistake(self.found.get((table, key), (table, key)), text, hint)

    def _mistake(self, where: Where, text: str, hint: str) -> Mistake:
        key = next((each for each, found in self.found.items() if found == where), where)
        hint = hint or _hint(key)
        return Mistake(f"{named(where)}: {text}", hint, line_at(self.lines, where), key)


def read(
    path: str | None,
    place: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    *,
    without: Iterable[str] = (),
    text: str | None = None,
) -> Source:
    """Read a configuration file, and the variables that win over it.

    Args:
        path: The file, as it is called in messages; None reads the variables alone.
        place: Where the file is; None means ``path``.
        environment: The variables of the process; see :mod:`netdicom_tx.environment`.
        without: Keys at the top of the file that somebody else reads.
        text: What the file said when it was read earlier; None reads it.

    Raises:
        ConfigurationError: It cannot be read, or is wrong.
    """
    source, mistakes = read_leniently(path, place, environment, without=without, text=text)
    if mistakes:
        raise ConfigurationError(source.path, mistakes)
    return source


def read_leniently(
    path: str | None,
    place: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    *,
    without: Iterable[str] = (),
    text: str | None = None,
) -> tuple[Source, list[Mistake]]:
    """As :func:`read`, but leave out the values that are wrong.

    Returns:
        What the file says without them, and what is wrong.

    Raises:
        ConfigurationError: The file cannot be read, or is not TOML.
    """
    document: dict[str, Any] = {}
    if path is not None:
        text = _text_of(path, place) if text is None else text
        document = _document(path, text)
    text = text or ""
    for key in without:
        document.pop(key, None)
    lines = lines_of(text)
    mistakes: list[Mistake] = []
    former: dict[Where, Where] = {}

    def wrong(where: Where, text: str, hint: str = "") -> None:
        key = next((each for each, found in former.items() if found == where), where)
        mistakes.append(Mistake(f"{named(where)}: {text}", hint, line_at(lines, where), key))

    tables = _in_tables(document, former, wrong)
    _take_variables(tables, former, environment, wrong)
    _read_secrets(tables, former, wrong)
    unusable: list[Where] = []
    try:
        config = converter.structure(tables, Config)
    except BaseValidationError as error:
        _tell(error, (), former, wrong, unusable)
    _check_peers(tables, frozenset(unusable), wrong)
    _check_proxies(tables, frozenset(unusable), wrong)
    if unusable:
        _leave_out(tables, unusable)
        config = converter.structure(tables, Config)
    found: dict[Where, Where] = {
        (table, field): former.get((table, field), (table, field))
        for table in TABLES
        for field in tables.get(table, {})
    }
    given = {
        option: found[table, field]
        for option, (table, field, _) in FIELDS.items()
        if (table, field) in found
    }
    given |= {each: (each,) for each in ("peer", "access") if each in document or each in tables}
    name = path if path is not None else "the environment"
    return Source(name, config, given, lines, found, text), mistakes


def _text_of(path: str, place: Path | None) -> str:
    """The text of a file.

    Raises:
        ConfigurationError: It cannot be read, or is not text.
    """
    try:
        with (place or Path(path)).open("rb") as file:
            octets = file.read(_LARGEST + 1)
    except OSError as error:
        hint = "name a file that the user of the node may read"
        if isinstance(error, FileNotFoundError):
            hint = f"check the path, or write a new file: netdicom config init {path}"
        raise ConfigurationError(path, [Mistake(str(error.strerror), hint)]) from error
    if len(octets) > _LARGEST:
        raise ConfigurationError(
            path, [Mistake(f"is too large; expected a file of at most {_LARGEST:,} octets")]
        )
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        what = f"octet 0x{octets[error.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8; TOML has no other encoding"
        raise ConfigurationError(path, [Mistake(what, hint, line)]) from error


def _document(path: str, text: str) -> dict[str, Any]:
    """What TOML says of a text.

    Raises:
        ConfigurationError: It is not TOML.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigurationError(
            path, [Mistake("arrays or tables are nested too deeply", "see https://toml.io")]
        ) from error
    except ValueError as error:  # of tomllib, or of a number with too many digits
        found = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        line = int(found[1]) if found is not None else 0
        what = str(error)[: found.start()] if found else str(error)
        at = f", at column {found[2]}" if found else ""
        if what.endswith(" (at end of document)"):
            line = text.count("\n") + 1
        raise ConfigurationError(path, [Mistake(what + at, _remedy(what), line)]) from error


#: What to write where tomllib has found something else.
_REMEDIES: Final = (
    ("Invalid value", 'write text in quotes: aet = "ARCHIVE"'),
    ("Invalid statement", "write key = value, and tables as [node]"),
    ("Expected '=' after a key", "write key = value, and tables as [node]"),
    ("Cannot overwrite a value", "this key is given twice; keep one of them"),
    ("Cannot declare", "this table is there twice; join them"),
)


def _remedy(what: str) -> str:
    return next(
        (hint for start, hint in _REMEDIES if what.startswith(start)), "see https://toml.io"
    )


_Wrong = Callable[..., None]


def _in_tables(
    document: Mapping[str, Any], former: dict[Where, Where], wrong: _Wrong
) -> dict[str, Any]:
    """Move the keys of former versions into the tables, and note the former path of each key that is moved."""
    tables: dict[str, Any] = {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in document.items()
        if key not in FIELDS or isinstance(value, dict)
    }
    for key, value in document.items():
        if key in tables or key not in FIELDS:
            continue
        table, field, is_negated = FIELDS[key]
        inside = tables.setdefault(table, {})
        if not isinstance(inside, dict):
            continue  # which is told as a mistake of the table
        if field in inside:
            wrong(
                (key,), f"is given twice, here and as {named((table, field))}", "keep one of them"
            )
            continue
        former[table, field] = (key,)
        inside[field] = not value if is_negated and isinstance(value, bool) else value
    peers = tables.get("peer")
    if isinstance(peers, list) and not any(isinstance(each, dict) for each in peers):
        tables["addresses"] = tables.pop("peer")
        former["addresses",] = ("peer",)
    return tables


def _take_variables(
    tables: dict[str, Any],
    former: dict[Where, Where],
    environment: Mapping[str, str],
    wrong: _Wrong,
) -> None:
    """Let variables win over the keys of the file."""
    for each in variables(environment, TABLES):
        inside = tables.setdefault(each.table, {})
        if isinstance(inside, dict):
            # The secret itself and the name of its file exclude each other, but the variable wins over both.
            inside.pop(SECRETS.get((each.table, each.key)), None)
            inside[each.key] = each.value
            former[each.table, each.key] = (each.name,)
    for name, near in misspelled(environment, TABLES):
        wrong((name,), "is not a known variable", f"did you mean {near}?" if near else "")


def _read_secrets(tables: dict[str, Any], former: dict[Where, Where], wrong: _Wrong) -> None:
    """Read the values of keys that name the file of a secret."""
    for (table, key), secret in SECRET_FILES.items():
        inside = tables.get(table)
        if not isinstance(inside, dict) or not isinstance(inside.get(key), str):
            continue
        where = former.get((table, key), (table, key))
        if secret in inside:
            wrong(where, f"{secret} is given as well", "keep one of them")
            continue
        try:
            found = _secret_in(inside[key])
        except WrongError as error:
            wrong(where, f"{inside[key]}: {error}", error.hint)
        else:
            inside[secret] = found
            former[table, secret] = where


def _secret_in(path: str) -> str:
    """The secret in a file, which is one line.

    Raises:
        WrongError: It has none, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            octets = file.read(_LARGEST_SECRET + 1)
        text = octets.decode("utf-8-sig").strip()
    except OSError as error:
        raise WrongError(
            str(error.strerror), "make it readable for the user of the node"
        ) from error
    except UnicodeDecodeError as error:
        raise WrongError("is not UTF-8", "write the secret alone, on one line") from error
    except ValueError as error:  # a NUL in its name
        raise WrongError(str(error), "name a file") from error
    if len(octets) > _LARGEST_SECRET or len(text.splitlines()) != 1:
        what = "is empty" if not text else "has more than one line"
        raise WrongError(what, "write the secret alone, on one line")
    return text


def _tell(
    error: Exception,
    path: Where,
    former: Mapping[Where, Where],
    wrong: _Wrong,
    unusable: list[Where],
) -> None:
    """Tell each mistake of an error of cattrs, and note which values cannot be used."""
    here = _former(path, former)
    if isinstance(error, ClassValidationError | IterableValidationError):
        inside, others = error.group_exceptions()
        for inner, note in inside:
            key = note.index if isinstance(note, IterableValidationNote) else note.name
            _tell(inner, (*path, key), former, wrong, unusable)
        for inner in others:
            _tell(inner, path, former, wrong, unusable)
    elif isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            _tell(inner, path, former, wrong, unusable)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [each.name for each in attrs.fields(error.cl) if each.name != "addresses"]
        known += FIELDS if error.cl is Config else ()
        for key in sorted(error.extra_fields):
            words = [*TABLES, "peer"] if error.cl is Config else known
            hint = nearest(key, known) or f"expected one of {', '.join(words)}"
            wrong((*path, key), "is not a known key", hint)
            unusable.append((*path, key))
    elif isinstance(error, KeyError):  # a field without a default
        wrong(path[:-1], f"has no {error.args[0]}", f"add {error.args[0]} = …")
        unusable.append(path[:-1])
    elif isinstance(error, WrongError):
        where = (*here, error.key) if error.key else here
        # The value of a secret is not told.
        is_secret = path[:2] in SECRETS and path[:2] not in SECRET_FILES and ", got " in str(error)
        text = "expected a string without NUL" if is_secret else str(error)
        wrong(where, text, error.hint or _hint((*path, error.key)))
        unusable.append(path)
    else:  # a value where a table belongs
        header = "[[peer]]" if path[0] == "peer" else f"[{path[0]}]"
        wrong(here, "expected a table", f"write {header} on a line of its own")
        unusable.append(path)


def _hint(path: Where) -> str:
    """What to write for a key, when nothing better is known."""
    names = [each for each in path if isinstance(each, str) and each]
    table: Any = Peer if names[0] == "peer" else TABLES.get(names[0])
    fields = {} if table is None else {each.name: each for each in attrs.fields(table)}
    default = fields[names[1]].default if len(names) > 1 and names[1] in fields else None
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, bool | int | str) and default != "":
        return f"the default is {names[1]} = {json.dumps(default)}"
    return "netdicom config init shows what each key means"


def _leave_out(tables: dict[str, Any], unusable: Iterable[Where]) -> None:
    """Take values out of the tables: a key, an element of a list, or a whole peer."""
    gone = object()
    lists: list[list[Any]] = []
    for path in unusable:
        *above, last = path[:2] if path[0] == "peer" else path
        inside: Any = tables
        for each in above:
            inside = inside.get(each)
        if isinstance(inside, list) and isinstance(last, int):
            inside[last] = gone
            lists.append(inside)
        elif isinstance(inside, dict):
            inside.pop(last, None)
    for inside in lists:
        inside[:] = [each for each in inside if each is not gone]


def _former(path: Where, former: Mapping[Where, Where]) -> Where:
    """The path in the file of a path in the tables."""
    for length in range(len(path), 0, -1):
        if path[:length] in former:
            return (*former[path[:length]], *path[length:])
    return path


def _check_proxies(tables: Mapping[str, Any], unusable: Collection[Where], wrong: _Wrong) -> None:
    """Whoever may send a header of the PROXY protocol must be known."""
    node = tables.get("node")
    is_told = any(each[:1] == ("node",) and each[1:2] in _PROXY for each in unusable)
    if is_told or not isinstance(node, dict):
        return
    if node.get("proxy_protocol") and not node.get("proxies"):
        wrong(
            ("node", "proxy_protocol"),
            "needs proxies, because whoever may send a header may call itself as it likes",
            'add the addresses of the proxies: proxies = ["192.0.2.10"]',
        )


_PROXY: Final = (("proxy_protocol",), ("proxies",), ())


def _check_peers(tables: Mapping[str, Any], unusable: Collection[Where], wrong: _Wrong) -> None:
    """Check what concerns several peers, also those in which something else is wrong."""
    peers: list[tuple[Where, str, dict[str, Any]]] = []
    for index, each in enumerate(_list_of(tables.get("peer"))):
        if isinstance(each, dict):
            usable = _usable(each, ("peer", index), unusable)
            peers.append((("peer", index), str(usable.get("title", "")).strip(), usable))
    _check_names(peers, wrong)
    callable_ = {title for _, title, peer in peers if "host" in peer}
    shared: set[Network] = set()
    for where, title, peer in peers:
        for number, each in enumerate(peer.get("networks", ()) if title == ANY_TITLE else ()):
            if each is None:
                continue
            if network(each) in shared:
                wrong(
                    (*where, "networks", number),
                    f'another peer "*" has the network {network(each)} too',
                    "join them",
                )
            shared.add(network(each))
        for each in (each.strip() for each in peer.get("move_to", ()) if each is not None):
            if each not in callable_:
                wrong(
                    (*where, "move_to"),
                    f"{each} is not a peer with host and port",
                    nearest(each, callable_) or "add one",
                )


def _check_names(peers: Iterable[tuple[Where, str, Mapping[str, Any]]], wrong: _Wrong) -> None:
    """Each peer has an AE title and a name of its own."""
    titles = [title for _, title, _ in peers]
    seen: set[str] = set()
    names: set[str] = set()
    for where, title, peer in peers:
        if title and title in seen:
            wrong((*where, "title"), f"another peer has the AE title {title} too", "join them")
        if title != ANY_TITLE:
            seen.add(title)
        name = peer.get("name")
        if name is None:
            continue
        if name in names:
            wrong((*where, "name"), f"another peer has the name {name} too", "name one")
        elif name != title and name in titles:
            wrong(
                (*where, "name"),
                f"another peer has the AE title {name}, by which the commands call it",
                "choose another name",
            )
        names.add(name)


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _usable(peer: Mapping[str, Any], where: Where, unusable: Collection[Where]) -> dict[str, Any]:
    """The values of a peer that have the right kind, with None for each element of a list that has not."""
    found = {key: value for key, value in peer.items() if (*where, key) not in unusable}
    for key, value in found.items():
        if isinstance(value, list):
            found[key] = [
                None if (*where, key, number) in unusable else each
                for number, each in enumerate(value)
            ]
    return found
