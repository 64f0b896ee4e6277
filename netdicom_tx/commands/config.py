"""``netdicom config``: check, show or begin the configuration file of a node."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import click

from .common.failures import CommandError, ExitCode, Problem
from .common.node import node_options
from .common.options import Group, examples, json_option
from .common.output import Output, counted

__all__ = ["command"]


@click.group(
    cls=Group,
    no_args_is_help=True,
    epilog=examples(
        "netdicom config init node.toml",
        "netdicom config check node.toml && kill -HUP $(cat twistd.pid)",
    ),
)
def command() -> None:
    """Check, show or begin the configuration file of a node.

    It is the file that twistd dicom --config reads. The reference of the documentation lists its keys.
    """


@command.command(epilog=examples("netdicom config check node.toml"))
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path, is_json: bool) -> int:
    """Check FILE as a node does that starts with it; nothing is started or changed.

    Every mistake is shown, with its line and what to write instead. The exit code is 78 when there is one.
    """
    from ..config import ConfigurationError

    output = Output(is_json=is_json)
    try:
        options = node_options(["--config", str(file)])
    except CommandError as error:
        wrong = error.__cause__
        if is_json and isinstance(wrong, ConfigurationError):
            for each in wrong.mistakes:
                output.json({"line": each.line, "mistake": each.text, "hint": each.hint})
            click.echo(str(wrong), err=True)
            return ExitCode.CONFIGURATION
        raise
    peers = sorted(options["peers"])
    if is_json:
        output.json({"aet": options["aet"], "listen": options["listen"], "peers": peers})
    places = ", ".join((*options["listen"], *options["tls-listen"]))
    output.note(
        f"{file} is right: {options['aet']} at {places}, "
        f"{counted(len(peers), 'peer')} that the node can call"
    )
    return ExitCode.OK


@command.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "netdicom config show node.toml",
        "netdicom config show --config node.toml --max-associations 7",
        "docker exec node netdicom config show --json",
    ),
)
@click.argument("arguments", metavar="[FILE] [OPTIONS OF THE NODE]...", nargs=-1)
@json_option
def show(arguments: tuple[str, ...], is_json: bool) -> int:
    """Show the configuration that a node would have, and where each value comes from.

    That is an option of the node, a variable (NETDICOM_...), a line of the file, or the default. Passwords are not
    shown.
    """
    output = Output(is_json=is_json)
    given = list(arguments)
    if given and not given[0].startswith("-"):
        given.insert(0, "--config")
    options = node_options(given)
    tables: dict[str, dict[str, tuple[Any, str]]] = {}
    for table, key, value, origin in options.effective():
        tables.setdefault(table, {})[key] = (_safe(table, key, value), origin)
    peers = [
        (_peer_keys(each), options.place_of_peer(index))
        for index, each in enumerate(options.configured.peer)
    ]
    if is_json:
        output.json(
            {
                **{
                    table: {
                        key: {"value": value, "from": origin}
                        for key, (value, origin) in keys.items()
                    }
                    for table, keys in tables.items()
                },
                "peer": [{**keys, "from": origin} for keys, origin in peers],
                "addresses": options["peer"],
            }
        )
        return ExitCode.OK
    for line in _shown(tables, peers, options["peer"]):
        output.line(line)
    return ExitCode.OK


def _shown(
    tables: Mapping[str, Mapping[str, tuple[Any, str]]],
    peers: Iterable[tuple[Mapping[str, Any], str]],
    addresses: Sequence[str],
) -> Iterator[str]:
    if addresses:
        yield f"peer = {json.dumps(list(addresses))}"
    for table, keys in tables.items():
        yield f"\n[{table}]"
        for key, (value, origin) in keys.items():
            if value is None:
                yield f"# {key} is not set"
            else:
                yield f"{key + ' = ' + json.dumps(value, ensure_ascii=False):<50} # {origin}"
    for found, origin in peers:
        yield f"\n[[peer]] # {origin}"
        for key, value in found.items():
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}"


def _safe(table: str, key: str, value: Any) -> Any:
    """A value as TOML and JSON have it, without a password."""
    from ..config.tables import SECRET_FILES

    if (table, key) == ("database", "url") and value is not None:
        import sqlalchemy as sa

        from ..archive.index.urls import shown

        try:
            return shown(sa.engine.make_url(value))
        except sa.exc.ArgumentError:
            return "***"
    if value is not None and any(
        (table, key) == (where, secret) for (where, _), secret in SECRET_FILES.items()
    ):
        return "***"
    return _plain(value)


def _plain(value: Any) -> Any:
    from ..access import Permission, Profile

    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Profile):
        return "all" if set(value.allow) == set(Permission) else sorted(map(str, value.allow))
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _peer_keys(peer: Any) -> dict[str, Any]:
    """The keys of a peer that have a value."""
    import attrs

    found = {each.name: _plain(getattr(peer, each.name)) for each in attrs.fields(type(peer))}
    return {key: value for key, value in found.items() if value not in (None, [], "", False)}


@command.command(epilog=examples("netdicom config init > node.toml"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
def init(file: Path | None) -> int:
    """Write a configuration file with all keys, their defaults and meanings as comments; to FILE, or to the terminal.

    A FILE that exists is not changed; - is the terminal, too.
    """
    text = "\n".join(_template())
    if file is None or str(file) == "-":
        Output().line(text)
        return ExitCode.OK
    try:
        with file.open("x", encoding="utf-8") as made:
            made.write(f"{text}\n")
    except OSError as error:
        raise CommandError(
            Problem(
                ExitCode.LOCAL_DISK,
                f"{file} cannot be written",
                str(error.strerror),
                "name a new file in a directory that exists and that you may write to",
            )
        ) from error
    Output(is_json=False).note(
        f"wrote {file}: remove the # in front of each key that you change, then start netdicom serve --config {file}"
    )
    return ExitCode.OK


def _template() -> Iterator[str]:
    import attrs

    from ..config import TABLES, Peer

    yield "# The configuration of a node: netdicom serve --config FILE"
    yield "# Remove the # in front of each key that you change. The values are the defaults; <…> stands for no value."
    for header, kind in ((f"[{name}]", table) for name, table in TABLES.items()):
        yield f"\n{header}"
        meanings = _meanings(kind)
        for each in attrs.fields(kind):
            yield from _key(each.name, meanings.get(each.name, ""), _value(each.default))
    yield "\n# [[peer]]"
    meanings = _meanings(Peer)
    for each in attrs.fields(Peer):
        yield from _key(each.name, meanings.get(each.name, ""), _value(each.default))


def _key(name: str, meaning: str, value: str) -> Iterator[str]:
    if meaning:
        yield f"# {meaning}"
    yield f"# {name} = {value}"


def _value(default: Any) -> str:
    """A default as TOML."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Enum):
        return json.dumps(default.value)
    if isinstance(default, str | int):
        return json.dumps(default)
    if isinstance(default, tuple):
        return json.dumps(list(default))
    return "<…>"


def _meanings(kind: type) -> dict[str, str]:
    """What the fields of a table mean, by the attributes of its docstring."""
    documented = inspect.getdoc(kind) or ""
    _, _, attributes = documented.partition("Attributes:")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in found}
