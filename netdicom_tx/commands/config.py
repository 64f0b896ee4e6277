"""``netdicom config``: check the configuration file of a node, or begin one."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import click

from .common.failures import CommandError, ExitCode, Problem
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
    """Check the configuration file of a node, or begin one.

    It is the file that twistd dicom --config reads. The reference of the documentation lists its keys.
    """


@command.command(epilog=examples("netdicom config check node.toml"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def check(file: Path, is_json: bool) -> int:
    """Check FILE as a node does that starts with it; nothing is started or changed.

    Every mistake is shown, with its line and what to write instead. The exit code is 78 when there is one.
    """
    from twisted.python.usage import UsageError

    from ..config import ConfigurationError
    from ..tap import Options

    output = Output(is_json=is_json)
    options = Options()
    try:
        options.parse(["--config", str(file)])
    except ConfigurationError as error:
        if is_json:
            for each in error.mistakes:
                output.json({"line": each.line, "mistake": each.text, "hint": each.hint})
        click.echo(str(error), err=True)
        return ExitCode.CONFIGURATION
    except UsageError as error:
        raise CommandError(
            Problem(ExitCode.CONFIGURATION, f"{file} cannot be used", str(error))
        ) from error
    peers = sorted(options["peers"])
    if is_json:
        output.json({"aet": options["aet"], "listen": options["listen"], "peers": peers})
    places = ", ".join((*options["listen"], *options["tls-listen"]))
    output.note(
        f"{file} is right: {options['aet']} at {places}, "
        f"{counted(len(peers), 'peer')} that the node can call"
    )
    return ExitCode.OK


@command.command(epilog=examples("netdicom config init > node.toml"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
def init(file: Path | None) -> int:
    """Write a configuration file with all keys, their defaults and meanings as comments; to FILE, or to the terminal.

    A FILE that exists is not changed.
    """
    text = "\n".join(_template()) + "\n"
    if file is None:
        click.echo(text, nl=False)
        return ExitCode.OK
    try:
        with file.open("x", encoding="utf-8") as made:
            made.write(text)
    except OSError as error:
        raise CommandError(
            Problem(ExitCode.LOCAL_DISK, f"{file} cannot be written", str(error.strerror))
        ) from error
    Output(is_json=False).note(
        f"wrote {file}: take the marks from the keys that you change, then start twistd dicom --config {file}"
    )
    return ExitCode.OK


def _template() -> Iterator[str]:
    import attrs

    from ..config import TABLES, Peer

    yield "# The configuration of a node: twistd dicom --config FILE"
    yield "# Take the mark (#) from the keys that you change. The values are the defaults; <…> is a key without one."
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
