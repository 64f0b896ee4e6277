"""The ``netdicom`` command: tools for users of DICOM, and for operators of a node.

Each command is a module of its own that is imported when the command is called, so the list of commands is shown
without loading the library.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import keyword
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from .common.failures import CommandError, ExitCode, Problem
from .common.options import Group, examples
from .common.output import Output, unwritten

__all__ = ["cli", "main"]

#: What each command does, in one line; its module has the same name.
COMMANDS = {
    "echo": "Ask whether peers are there (C-ECHO).",
    "store": "Send files and directories (C-STORE).",
    "commit": "Ask a peer to keep instances for good (storage commitment).",
    "find": "Query a peer (C-FIND).",
    "get": "Retrieve on the same association (C-GET).",
    "move": "Have a peer send to another AE, or here (C-MOVE).",
    "receive": "Receive instances into a directory (C-STORE).",
    "worklist": "Query a modality worklist (C-FIND).",
    "serve": "Run a node in the foreground.",
    "reload": "Make a running node read its configuration again.",
    "status": "Show what a node is doing.",
    "node": "List the nodes that share an archive, or adopt a store.",
    "doctor": "Check all that a node needs, and say what to do.",
    "import": "Take files into a node's archive without the network.",
    "export": "Take instances out of a node's archive as files.",
    "backup": "Back up a node's archive: index, list of files, files.",
    "reindex": "Make the index of a node's archive agree with its files.",
    "verify": "Check that every file of a node's archive is what was stored.",
    "versions": "List, adopt or drop what a node keeps aside under a UID it has.",
    "delete": "Delete patients, studies, series or instances from a node's archive.",
    "retention": "Show what the rules of a node delete, or apply them.",
    "protect": "Keep studies from the rules of retention.",
    "queue": "Show what a node owes to peers; retry tasks or drop them.",
    "config": "Check, show or begin the configuration file of a node.",
    "conformance": "Print the conformance statement of a node (PS3.2).",
    "service": "Write the systemd units of a node, or remove them.",
    "passwd": "Set the password of a user who calls a node.",
    "schedule": "Fill the worklist of a node from CSV and JSON.",
}


class _Commands(Group):
    """Loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        # A module cannot be called import.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f".{name}", __name__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from .. import __version__

        click.echo(f"netdicom {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
    epilog=examples(
        "netdicom echo ARCHIVE@10.0.0.5:104",
        "netdicom store archive images/ --jobs 4",
        "netdicom find archive -k PatientName='DOE*'",
        "netdicom get archive -k StudyInstanceUID=1.2.3 -o study/",
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """DICOM from the command line.

    A PEER is AET@host:port, host:port, dicoms://AET@host:port, or a name from the configuration file.

    Exit codes: 0 success; 1 some failed; 2 usage; 3 not connected; 4 rejected; 5 no presentation
    context; 6 aborted or protocol error; 7 timeout; 8 failure status; 9 TLS; 10 nothing to send or to
    retrieve; 11 local disk; 78 configuration; 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``netdicom`` and exit.

    Args:
        arguments: The arguments; None means those of the process.
    """
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run ``netdicom``; returns the exit code."""
    if not sys.warnoptions:
        # pydicom warns about values that a peer has sent, which the user cannot change.
        warnings.simplefilter("ignore")
    asked = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code: Any = cli.main(
            args=asked,
            prog_name="netdicom",
            standalone_mode=False,
        )
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()  # the help itself
        else:
            Output(is_json="--json" in asked).problem(_usage(error))
        return ExitCode.USAGE
    except CommandError as error:
        Output(is_json="--json" in asked).problem(error.problem)
        return error.problem.code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except OSError as error:
        # Click writes texts of help itself.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename is not None:
            raise
        problem = unwritten(error)
        Output(is_json="--json" in asked).problem(problem, in_json=False)
        return ExitCode.LOCAL_DISK
    return int(code or 0)


def _usage(error: click.ClickException) -> Problem:
    """An error of click about the arguments, in the form of our own errors."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "netdicom"
    usage = context.get_usage().replace("Usage: ", "usage: ") if context is not None else ""
    message = error.format_message().rstrip(".")
    hint = f"{path} --help shows an example"
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        message = f"no such option {name}"
        near = difflib.get_close_matches(name, error.possibilities or (), 1, 0.7)
        hint = f"did you mean {near[0]}?" if near else hint
    extra = re.search(r"unexpected extra argument \((.*)\)", message)
    if extra is not None and path.endswith(" receive"):
        hint = f"to listen at a port: --listen {extra[1]}"
    elif extra is not None and extra[1].isdecimal():
        hint = "a peer is one word: AET@host:port"
    return Problem(ExitCode.USAGE, message[:1].lower() + message[1:], usage, hint)
