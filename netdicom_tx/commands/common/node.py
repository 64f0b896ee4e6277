"""The configuration of a node, for the commands that concern one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .failures import CommandError, ExitCode, Problem

if TYPE_CHECKING:
    from ...config import Mistake
    from ...options import Options

__all__ = ["lenient_options", "node_options"]


def node_options(arguments: Sequence[str]) -> Options:
    """The options of a node with these arguments, with its file and its variables.

    Args:
        arguments: Those of ``twistd dicom``.

    Raises:
        CommandError: They are wrong: exit code 78 for a file or a variable, else 2.
    """
    from ...config import ConfigurationError

    try:
        return _parsed(_options(), arguments)
    except ConfigurationError as error:
        raise CommandError(
            Problem(
                ExitCode.CONFIGURATION,
                "the configuration is wrong",
                str(error),
                "correct it; netdicom config init writes all keys with their meanings",
            )
        ) from error


def lenient_options(arguments: Sequence[str]) -> tuple[Options, list[Mistake]]:
    """As :func:`node_options`, but leave out the values of the file that are wrong.

    Returns:
        The options, and what is wrong with the file.

    Raises:
        CommandError: The arguments are wrong.
    """
    from ...config import ConfigurationError

    options = _options()
    options.is_lenient = True
    try:
        return _parsed(options, arguments), []
    except ConfigurationError as error:
        return options, list(error.mistakes)


def _options() -> Options:
    from ...options import Options

    return Options()


def _parsed(options: Options, arguments: Sequence[str]) -> Options:
    from twisted.python.usage import UsageError

    try:
        options.parse(list(arguments))
    except UsageError as error:
        is_of_file = list(arguments[:1]) == ["--config"] and len(arguments) <= 2
        raise CommandError(
            Problem(
                ExitCode.CONFIGURATION if is_of_file else ExitCode.USAGE,
                "the options of the node are wrong",
                str(error),
                "netdicom serve --node-options lists them",
            )
        ) from error
    return options
