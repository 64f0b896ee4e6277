"""The commands of a user's shell, as scripts that run the interpreter of the tests."""

import os
import shlex
import sys
from pathlib import Path

from .measuring import variables
from .strict import STRICT

ROOT = Path(__file__).resolve().parents[2]


def put_commands(directory: Path) -> None:
    """Write ``netdicom`` and ``python`` into a directory, for the PATH."""
    for name, arguments in (("netdicom", "-m netdicom_tx"), ("python", "")):
        script = directory / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        script.chmod(0o755)


def environment(commands: Path, home: Path) -> dict[str, str]:
    """The variables of a shell that finds these commands and the system's, and no configuration.

    Its Python turns warnings into errors.
    """
    return {
        "PATH": f"{commands}:{os.defpath}",
        "HOME": str(home),
        "TERM": "dumb",
        "COLUMNS": "200",
        "PYTHONUTF8": "1",
        "PYTHONPATH": str(ROOT),
        **STRICT,
        **variables(),
    }
