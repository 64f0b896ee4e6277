"""``netdicom passwd``: set the password of a user who calls a node."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .common.failures import CommandError, ExitCode, Problem, bad_input
from .common.options import examples, json_option
from .common.output import Output

__all__ = ["command"]


@click.command(
    epilog=examples(
        "netdicom passwd /etc/netdicom/users alice",
        "netdicom passwd /etc/netdicom/users alice --stdin < password.txt",
    )
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("user")
@click.option(
    "--stdin",
    "from_stdin",
    is_flag=True,
    help="Read the password from the first line of standard input.",
)
@json_option
def command(file: Path, user: str, from_stdin: bool, is_json: bool) -> int:
    """Set the password of a user (PS3.7 D.3.3.7); FILE is made if there is none, for its owner to read.

    The node reads the file that [access] password_file names; the new password holds at once. The file keeps a scrypt
    hash of it. To remove a user, delete the line that begins with the name.
    """
    from ..exceptions import LocalProtocolError
    from ..passwords import check_user, write_password

    output = Output(is_json=is_json)
    try:
        check_user(user)
        password = sys.stdin.readline().rstrip("\r\n") if from_stdin else _asked(user)
        is_new = write_password(file, user, password)
    except LocalProtocolError as error:
        raise bad_input(f"the password of {user!r:.80} cannot be set", str(error)) from error
    except OSError as error:
        raise CommandError(
            Problem(
                ExitCode.LOCAL_DISK,
                f"{file} cannot be written",
                str(error.strerror),
                "run this as the owner of the file and of its directory",
            )
        ) from error
    if is_json:
        output.json({"file": str(file), "user": user, "is_new": is_new})
    output.note(f"{'added' if is_new else 'changed the password of'} {user} in {file}")
    return ExitCode.OK


def _asked(user: str) -> str:
    if not sys.stdin.isatty():
        raise bad_input(
            "nobody can be asked for the password, because the input is not a terminal",
            "nothing was changed",
            "pass --stdin to read it from the input",
        )
    password: str = click.prompt(
        f"New password for {user}", hide_input=True, confirmation_prompt=True, err=True
    )
    return password
