"""``netdicom serve``: the node of ``twistd dicom`` in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .common.failures import CommandError, ExitCode, Problem
from .common.node import node_options
from .common.options import examples

__all__ = ["command"]


def _show_options(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    """Show the options of the node, for which its modules have to be loaded."""
    if not asked or context.resilient_parsing:
        return
    from ..options import Options

    click.echo(Options().getUsage().partition("Options:\n")[2].rstrip())
    context.exit()


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "netdicom serve --config /etc/netdicom/node.toml",
        "netdicom serve --listen tcp:11112 --storage /data --log-format json",
    ),
)
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append the log to this file, which SIGUSR1 opens again (default: standard output).",
)
@click.option(
    "--node-options",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_options,
    help="Show the options of the node and exit.",
)
@click.argument("arguments", metavar="[OPTIONS OF THE NODE]...", nargs=-1, type=click.UNPROCESSED)
def command(log_file: Path | None, arguments: tuple[str, ...]) -> int:
    """Run a node until SIGTERM or Ctrl-C.

    It is the node of twistd dicom, with the same options, configuration and variables (NETDICOM_...), without a pid
    file and without a change to the background.

    The exit code is 0 after a stop in order, 1 when the node cannot start or had to be aborted, 2 for a wrong option,
    and 78 for a wrong configuration.
    """
    options = node_options(arguments)
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner

    from ..log_output import LogFormat, observer
    from ..logs import Logger
    from ..tap import StartError, makeService

    try:
        lines = observer(options["log-format"], log_file, reactor)
    except OSError as error:
        raise CommandError(
            Problem(ExitCode.USAGE, f"{log_file} cannot be written", str(error.strerror))
        ) from error
    globalLogBeginner.beginLoggingTo([lines])
    try:
        node = makeService(options)
        node.privilegedStartService()
        node.startService()
    except StartError as error:
        # beginLoggingTo has made log lines of what is written here; the terminal gets the sentence itself.
        sys.stderr = sys.__stderr__
        reason = str(error).removeprefix("twistd dicom: ")
        if log_file is not None or options["log-format"] == LogFormat.JSON:
            Logger(__name__).critical(
                "the node cannot start: {error}", error=reason, event="start-failed"
            )
        raise CommandError(
            Problem(
                ExitCode.SOME_FAILED,
                "the node cannot start",
                reason,
                "netdicom doctor checks all that it needs",
            )
        ) from error
    running: Any = reactor
    running.addSystemEventTrigger("before", "shutdown", node.stopService)
    running.run()
    return ExitCode.OK
