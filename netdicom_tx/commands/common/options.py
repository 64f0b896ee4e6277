"""Every option that more than one command has, in DCMTK's spellings and in words.

This module needs click alone: ``netdicom COMMAND --help`` waits for no other library.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from .addresses import Address, TLSFiles, check_title, find_peer, overridden
from .config import Config, load_config
from .failures import CommandError, bad_input
from .output import Output

__all__ = [
    "LAYOUTS",
    "LEVELS",
    "ROOTS",
    "Common",
    "Group",
    "answer_options",
    "archive_options",
    "common_options",
    "examples",
    "found_option",
    "json_option",
    "key_option",
    "model_options",
    "node_option",
    "output_options",
    "parse_seconds",
    "peer_argument",
    "peers_argument",
    "place_options",
    "storage_option",
    "whole_number",
]

_F = TypeVar("_F", bound=Callable[..., Any])

# PS3.8 D.1: 0 means no limit. Smaller ones hardly hold a fragment.
_SMALLEST_PDU = 4096
_LARGEST_PDU = 0xFFFFFFFF
#: Information models by DCMTK's letters (PS3.4 C.6, K.6).
ROOTS = {"P": "patient root", "S": "study root", "O": "patient/study only", "W": "worklist"}
#: Query/Retrieve levels (PS3.4 C.6.1.1, C.6.2.1).
LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
#: How received instances are laid out in a directory, the default first.
LAYOUTS = ("study", "flat")

# The longest time that can be asked for, in seconds: a week.
_LONGEST = 7 * 86400.0


@dataclass(slots=True)
class Common:
    """The values of the common options.

    Attributes:
        calling: Our AE title; None means the configured one.
        called: The AE title to call the peer by; None means the one of its address.
        address: The peer, for a command that has one.
    """

    DEFAULT_TITLE: ClassVar[str] = "NETDICOM-SCU"
    config: Config
    output: Output
    calling: str | None = None
    called: str | None = None
    connect_timeout: float | None = None
    associate_timeout: float | None = None
    response_timeout: float | None = None
    max_pdu: int = 1 << 20
    verbose: int = 0
    tls: TLSFiles | None = None
    address: Address | None = field(default=None)

    def peer(self, text: str) -> Address:
        """The peer that an argument names, with what the options say about it.

        Raises:
            CommandError: The argument does not name a peer.
        """
        known = find_peer(text, self.config.peers, self.config.sources)
        return overridden(known, called=self.called, tls=self.tls)


def whole_number(least: int, most: int | None = None) -> Callable[[Any], int]:
    """The type of an option that is a whole number within limits.

    Args:
        least: The smallest number that is allowed.
        most: The largest one; None means that there is no limit.
    """

    def parse(text: Any) -> int:  # the text of an argument, or the default
        digits = str(text)
        if digits.isascii() and digits.isdecimal():
            number = int(digits)
            if number >= least and (most is None or number <= most):
                return number
        limit = "or more" if most is None else f"to {most}"
        raise click.BadParameter(f"{digits!r} is not a whole number of {least} {limit}")

    return parse


def parse_seconds(text: str) -> float:
    """The value of an option that is a time to wait."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST:
        raise click.BadParameter(f"{text!r} is not a number of seconds above 0 and up to a week")
    return seconds


def _pdu_size(text: str) -> int:
    try:
        size = int(text)
    except ValueError:
        size = -1
    if size != 0 and not _SMALLEST_PDU <= size <= _LARGEST_PDU:
        raise click.BadParameter(f"{text!r} is neither 0 (no limit) nor {_SMALLEST_PDU} or more")
    return size


_NAMES = {
    "calling",
    "called",
    "connect_timeout",
    "associate_timeout",
    "response_timeout",
    "max_pdu",
    "verbose",
}
_TLS_NAMES = ("certificate", "key", "trust", "server_name", "fingerprint")

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "-aet",
        "--calling",
        metavar="TITLE",
        help=f"Our own AE title (default: the configured one, or {Common.DEFAULT_TITLE}).",
    ),
    click.option(
        "-aec",
        "--called",
        metavar="TITLE",
        help="The AE title to call the peer by (default: the one of its address).",
    ),
    click.option(
        "-to",
        "-tc",
        "--connect-timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help="How long to wait for a connection (default: 30, for echo 10).",
    ),
    click.option(
        "-ta",
        "--associate-timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help="How long to wait for the answer to an association request (default: 30, for echo 10).",
    ),
    click.option(
        "-td",
        "--response-timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help="How long to wait for each DIMSE response (default: 60).",
    ),
    click.option(
        "-pdu",
        "--max-pdu",
        type=_pdu_size,
        default=1 << 20,
        metavar="OCTETS",
        help="The longest PDU that we accept; 0 means any (default: 1048576).",
    ),
    click.option(
        "--tls", "use_tls", is_flag=True, help="Speak TLS (also: dicoms:// in the address)."
    ),
    click.option(
        "--tls-ca",
        "trust",
        metavar="FILE",
        help="Trust the certificates in this PEM file (default: those of the system).",
    ),
    click.option("--tls-cert", "certificate", metavar="FILE", help="Our certificate, a PEM file."),
    click.option(
        "--tls-key",
        "key",
        metavar="FILE",
        help="The private key of our certificate, a PEM file (default: in --tls-cert).",
    ),
    click.option(
        "--tls-name",
        "server_name",
        metavar="NAME",
        help="The name in the peer's certificate (default: the host that is called).",
    ),
    click.option(
        "--tls-fingerprint",
        "fingerprint",
        metavar="SHA256",
        help="Trust the peer's certificate by its SHA-256 digest alone.",
    ),
    click.option("--json", "is_json", is_flag=True, help="Write the results as JSON."),
    click.option("--no-color", is_flag=True, help="Use no colors; NO_COLOR=1 does the same."),
    click.option("-q", "--quiet", is_flag=True, help="Write no notes and no progress."),
    click.option(
        "-v", "--verbose", count=True, help="Write more; -vv writes the whole log of the library."
    ),
    click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help="Read this file instead of ~/.config/netdicom/config.toml and ./netdicom.toml.",
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's help; click keeps it line by line."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def common_options(command: _F) -> _F:
    """Add the common options; the command gets a :class:`Common` as its first argument.

    A :class:`CommandError` that the command raises is written in three lines, and gives the exit code.
    """

    @functools.wraps(command)
    def wrapper(**given: Any) -> int:
        output = Output(
            is_json=given.pop("is_json"),
            is_quiet=given.pop("quiet"),
            has_color=not given.pop("no_color"),
        )
        use_tls = given.pop("use_tls")
        tls = {name: given.pop(name) for name in _TLS_NAMES}
        named = {name: given.pop(name) for name in _NAMES}
        try:
            common = Common(
                load_config(given.pop("config_file")),
                output,
                tls=TLSFiles(**tls) if use_tls or any(tls.values()) else None,
                **named,
            )
            if common.calling is not None:
                common.calling = check_title(common.calling, "-aet")
            peer = given.pop("peer", None)
            if peer is not None:
                common.address = common.peer(peer)
            code: int = command(common, **given)
        except CommandError as error:
            output.problem(error.problem)
            return error.problem.code
        return code

    decorated: _F = _decorated(wrapper, _OPTIONS)
    return decorated


def _decorated(command: Any, options: list[Callable[[Any], Any]]) -> Any:
    """Add some options to the command, in their order."""
    for option in reversed(options):
        command = option(command)
    return command


def _complete_peer(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    try:
        config = load_config()
    except CommandError:
        return []
    return [name for name in config.peers if name.startswith(incomplete)]


def peer_argument(command: _F) -> _F:
    """One peer, which becomes :attr:`Common.address`."""
    argument = click.argument("peer", metavar="PEER", shell_complete=_complete_peer)
    decorated: _F = argument(command)
    return decorated


def peers_argument(command: _F) -> _F:
    """One peer or several, as they are written."""
    argument = click.argument(
        "peers", metavar="PEER...", nargs=-1, required=True, shell_complete=_complete_peer
    )
    decorated: _F = argument(command)
    return decorated


class Group(click.Group):
    """A group that suggests the nearest command for one that it does not have."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            commands = self.list_commands(ctx)
            near = difflib.get_close_matches(args[0].lower(), commands, n=1, cutoff=0.5)
            raise bad_input(
                f"{ctx.command_path} has no command {args[0]!r}",
                f"the commands are {', '.join(commands)}",
                f"did you mean {near[0]}?"
                if near
                else f"{ctx.command_path} --help shows the commands",
            )
        return super().resolve_command(ctx, args)


# -- queries and retrievals -------------------------------------------------------------------------


def key_option(command: _F) -> _F:
    """``-k``."""
    option = click.option(
        "-k",
        "--key",
        "keys",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="Match or return this attribute: a keyword, gggg,eeee, or Sequence.Keyword; may be repeated.",
    )
    decorated: _F = option(command)
    return decorated


def model_options(letters: str) -> Callable[[_F], _F]:
    """``-P -S -O`` (``-W``), ``--root`` and ``--level``.

    Args:
        letters: The letters of :data:`ROOTS` that the command has.
    """
    options = [
        click.option(
            "--root",
            "root",
            type=click.Choice(list(letters), case_sensitive=False),
            metavar="|".join(letters),
            default="S",
            help="Use the information model with this letter (default: S).",
        ),
        *(
            click.option(
                f"-{letter}",
                "root",
                flag_value=letter,
                help=f"Use the {ROOTS[letter]} model{' (default)' * (letter == 'S')}.",
            )
            for letter in letters
        ),
        click.option(
            "--level",
            type=click.Choice(LEVELS, case_sensitive=False),
            metavar="LEVEL",
            help="Ask at this level: PATIENT, STUDY, SERIES or IMAGE (default: that of the deepest "
            "unique key).",
        ),
    ]

    def add(command: _F) -> _F:
        decorated: _F = _decorated(command, options)
        return decorated

    return add


def answer_options(command: _F) -> _F:
    """``-r``, ``--limit``, ``--csv`` and ``--no-header``: how many answers are shown, and how."""
    options = [
        click.option(
            "-r",
            "--return",
            "returned",
            multiple=True,
            metavar="KEY",
            help="Return this attribute as a column, as -k KEY without a value does; may be repeated.",
        ),
        click.option(
            "--limit",
            type=whole_number(1),
            metavar="N",
            help="Stop after N answers, with C-CANCEL (default: no limit).",
        ),
        click.option("--csv", "is_csv", is_flag=True, help="Write the results as CSV."),
        click.option(
            "--no-header", is_flag=True, help="Leave out the line with the names of the columns."
        ),
    ]
    decorated: _F = _decorated(command, options)
    return decorated


def found_option(command: _F) -> _F:
    """``--limit``, for a retrieval by keys that are found first."""
    option = click.option(
        "--limit",
        type=whole_number(1),
        default=1000,
        metavar="N",
        help="When the peer is asked first: retrieve nothing if more than N studies or series match (default: 1000).",
    )
    decorated: _F = option(command)
    return decorated


def output_options(command: _F) -> _F:
    """``-o`` and ``--layout``: where instances are written."""
    options = [
        click.option(
            "-o",
            "-od",
            "--output",
            "directory",
            default=".",
            metavar="DIR",
            help="Write to this directory, which is created if it does not exist (default: the current one).",
        ),
        click.option(
            "--layout",
            type=click.Choice(LAYOUTS),
            default=LAYOUTS[0],
            help="Name the files STUDY/SERIES/INSTANCE.dcm (study, the default) or INSTANCE.dcm (flat).",
        ),
    ]
    decorated: _F = _decorated(command, options)
    return decorated


# -- the commands for a node ------------------------------------------------------------------------


def storage_option(command: _F) -> _F:
    """``--storage``, as ``twistd dicom`` has it."""
    option = click.option(
        "-s",
        "--storage",
        type=click.Path(file_okay=False, path_type=Path),
        default="netdicom-archive",
        metavar="DIR",
        help="The storage directory of the node (default: ./netdicom-archive).",
    )
    decorated: _F = option(command)
    return decorated


def archive_options(command: _F) -> _F:
    """``--storage`` and ``--database``, as ``twistd dicom`` has them."""
    options = [
        storage_option,
        click.option(
            "--database",
            metavar="URL",
            help="The SQLAlchemy URL of the node's index (default: SQLite, index.db in the storage "
            "directory).",
        ),
    ]
    decorated: _F = _decorated(command, options)
    return decorated


def audit_option(command: _F) -> _F:
    """``--audit``, for a command that does by itself what an audit trail has to tell."""
    option = click.option(
        "--audit",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="Append the audit messages to this file (default: what --config says).",
    )
    decorated: _F = option(command)
    return decorated


def node_option(command: _F) -> _F:
    """``--config``, for a command that reads the configuration file of a node."""
    option = click.option(
        "--config",
        "config_file",
        type=click.Path(),
        metavar="FILE",
        help="Take the storage directory and the database from the configuration file of the node.",
    )
    decorated: _F = option(command)
    return decorated


def place_options(command: _F) -> _F:
    """``--storage`` and ``--database``, or ``--config`` or the variables of the node, which say both.

    The command gets ``storage``, the storage directory of a node, and ``database``, the URL or None.
    """

    @functools.wraps(command)
    def wrapper(**given: Any) -> int:
        from .storage import node_files

        place = node_files(*(given.pop(each) for each in ("storage", "database", "config_file")))
        code: int = command(storage=place.storage, database=place.database, **given)
        return code

    decorated: _F = _decorated(wrapper, [archive_options, node_option])
    return decorated


def json_option(command: _F) -> _F:
    """``--json``, for a command without the common options."""
    option = click.option("--json", "is_json", is_flag=True, help="Write the results as JSON.")
    decorated: _F = option(command)
    return decorated
