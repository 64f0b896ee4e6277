"""``netdicom reload``: make a running node read its configuration again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import click

from .common.checkup import pid_of_node
from .common.failures import CommandError, ExitCode, Problem
from .common.node import node_options
from .common.options import examples, json_option
from .common.output import Output

__all__ = ["command"]


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "netdicom reload --config /etc/netdicom/node.toml", "netdicom reload --storage /data/dicom"
    ),
)
@json_option
@click.argument("arguments", metavar="[OPTIONS OF THE NODE]...", nargs=-1, type=click.UNPROCESSED)
def command(is_json: bool, arguments: tuple[str, ...]) -> int:
    """Check the configuration, then make the running node read it again; no association is dropped.

    The node is found by its storage directory, which --config or --storage names. The command prints what
    has taken effect, and what needs a restart. The exit code is 78 when the configuration is wrong; the node then keeps
    its present one.
    """
    from ..archive.control import NodeAnswerError, NoNodeError, ask

    output = Output(is_json=is_json)
    root = Path(node_options(arguments)["storage"]).absolute()
    try:
        found = ask(root, "reload")
    except NodeAnswerError as error:
        is_wrong = error.kind == "refused"
        raise CommandError(
            Problem(
                ExitCode.CONFIGURATION if is_wrong else ExitCode.SOME_FAILED,
                "the node keeps the configuration that it has",
                str(error),
                "correct it, and reload again" if is_wrong else "look in the log of the node",
            )
        ) from error
    except (NoNodeError, OSError) as error:
        return _signalled(root, error, output)
    if is_json:
        output.json(found)
    else:
        for line in _report(found):
            output.line(line)
    return ExitCode.OK


def _report(found: dict[str, Any]) -> list[str]:
    """What the node has said, in lines."""
    if not found["read"]:
        return ["the node has no configuration file, and nothing to read again"]
    return [
        f"the node has read {' and '.join(found['read'])}",
        *(f"took effect: {each}" for each in found["applied"]),
        *(f"needs a restart: {each}" for each in found["waiting"]),
        *(() if found["applied"] or found["waiting"] else ("no value has changed",)),
    ]


def _signalled(root: Path, error: Exception, output: Output) -> int:
    """Reach a node that has no control socket by a signal; what came of it is in its log only."""
    pid = pid_of_node(root)
    if pid is None:
        raise CommandError(
            Problem(
                ExitCode.NOT_CONNECTED,
                f"no node runs on {root}",
                "",
                "name its configuration by --config FILE, or its directory by --storage DIR",
            )
        )
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as refused:
        raise CommandError(
            Problem(
                ExitCode.SOME_FAILED,
                f"the node (process {pid}) cannot be reached",
                f"{error}; {refused.strerror}",
                "run this as the user of the node, or as root",
            )
        ) from refused
    output.note(
        f"sent SIGHUP to the node (process {pid}), which has no control socket; its log says what came of it"
    )
    return ExitCode.OK
