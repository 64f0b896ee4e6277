"""Programs run as with ``python -X dev -W error``, and what they then say of what is wrong.

Much of it ends no program: a file that is not closed, a failure that nobody has taken, a coroutine that
is not awaited. Python and Twisted write that to stderr or to the log, at the latest when the program ends.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Final, Self

from .processes import PATIENCE

_IGNORED: Final = (
    # Twisted's CertificateOptions hands pyOpenSSL's own objects to pyOpenSSL.
    "ignore:Passing pyOpenSSL:DeprecationWarning",
    # What has listened keeps a descriptor in reserve for when there are no more (twisted.internet.tcp), to its end.
    "ignore:unclosed file <_io.TextIOWrapper name='/dev/null' mode='r':ResourceWarning",
)
#: The environment variables in the place of the options; they hold for the programs of a program, too.
STRICT: Final = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": ",".join(["error", *_IGNORED])}
_TROUBLES: Final = (
    "Exception ignored",
    "ResourceWarning",
    "Traceback (most recent call last)",
    "Unhandled error in Deferred",
    "was never awaited",
    "was never retrieved",
)


def troubles(said: str) -> list[str]:
    """The lines with which a program says that something was not closed, not awaited or not handled."""
    return [line for line in said.splitlines() if any(each in line for each in _TROUBLES)]


def assert_clean(said: str) -> None:
    """Fail with what a program said, when it tells of such a thing."""
    assert not troubles(said), said


class Serving:
    """A Python program that serves during a ``with`` block.

    It is asked to end (SIGTERM) behind the block, and may have said nothing on stderr, nor of trouble on stdout.

    Attributes:
        output: Its stdout.
    """

    output: IO[str]

    def __init__(self, directory: Path, environment: Mapping[str, str], *arguments: str) -> None:
        self._errors = TemporaryFile("w+")  # noqa: SIM115 - closed at the end of the block
        self._process = Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env={**environment, **STRICT},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        with self._errors:
            try:
                rest, _ = self._process.communicate(timeout=PATIENCE)
            finally:
                self._process.kill()
                self._process.communicate()
            self._errors.seek(0)
            said = self._errors.read()
        assert said == "", said
        assert_clean(rest)
