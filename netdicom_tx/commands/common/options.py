"""The options that every command has, in DCMTK's spellings and in words."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from .addresses import Address, TLSFiles, check_title, find_peer, overridden
from .config import Config, load_config
from .failures import CommandError
from .output import Output

__all__ = [
    "LAYOUTS",
    "LEVELS",
    "ROOTS",
    "Common",
    "answer_options",
    "archive_options",
    "common_options",
    "examples",
    "key_option",
    "model_options",
    "output_options",
    "parse_seconds",
    "peer_argument",
    "peers_argument",
]

_F = TypeVar("_F", bound=Callable[..., Any])

# PS3.8 D.1: a smaller one holds no fragment; 0 means no limit.
_SMALLEST_PDU = 4096
_LARGEST_PDU = 0xFFFFFFFF
#: Information models by DCMTK's letters (PS3.4 C.6, K.6).
ROOTS = {"P": "patient root", "S": "study root", "O": "patient/study only", "W": "worklist"}
#: Query/Retrieve levels (PS3.4 C.6.1.1, C.6.2.1).
LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
#: How received instances are laid out in a directory, the default first.
LAYOUTS = ("study", "flat")

# Seconds that anybody may want to wait: a week.
_LONGEST = 7 * 86400.0


@dataclass(slots=True)
class Common:
    """What the common options say.

    Attributes:
        calling: AE title of ours; None means the configured one.
        called: AE title to call the peer by; None means the one of its address.
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
        """The peer that an argument names, with what the options say of it.

        Raises:
            CommandError: It names none.
        """
        known = find_peer(text, self.config.peers, self.config.sources)
        return overridden(known, called=self.called, tls=self.tls)


def parse_seconds(text: str) -> float:
    """The value of an option that is a time to wait."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST:
        raise click.BadParameter(f"{text!r} is no number of seconds above 0")
    return seconds


def _pdu_size(text: str) -> int:
    try:
        size = int(text)
    except ValueError:
        size = -1
    if size != 0 and not _SMALLEST_PDU <= size <= _LARGEST_PDU:
        raise click.BadParameter(f"{text!r} is not 0 (no limit), nor {_SMALLEST_PDU} or more")
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
    click.option("-aet", "--calling", metavar="TITLE", help="Call ourselves so."),
    click.option(
        "-aec", "--called", metavar="TITLE", help="Call the peer so, whatever its address says."
    ),
    click.option(
        "-to",
        "-tc",
        "--connect-timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help="To connect; 30.",
    ),
    click.option(
        "-ta",
        "--associate-timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help="For the answer to an association request; 30.",
    ),
    click.option(
        "-td",
        "--response-timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help="For each DIMSE response; 60.",
    ),
    click.option(
        "-pdu",
        "--max-pdu",
        type=_pdu_size,
        default=1 << 20,
        metavar="OCTETS",
        help="The longest PDU that we admit; 0 is any.",
    ),
    click.option(
        "--tls", "use_tls", is_flag=True, help="Speak TLS (also: dicoms:// in the address)."
    ),
    click.option("--tls-ca", "trust", metavar="FILE", help="PEM file of whom we trust."),
    click.option("--tls-cert", "certificate", metavar="FILE", help="PEM file of our certificate."),
    click.option("--tls-key", "key", metavar="FILE", help="PEM file of its key."),
    click.option("--tls-name", "server_name", metavar="NAME", help="In the peer's certificate."),
    click.option(
        "--tls-fingerprint",
        "fingerprint",
        metavar="SHA256",
        help="Trust the peer's certificate by its digest.",
    ),
    click.option("--json", "is_json", is_flag=True, help="Results as JSON."),
    click.option("--no-color", is_flag=True, help="No colors; so does NO_COLOR."),
    click.option("-q", "--quiet", is_flag=True, help="No notes, no progress."),
    click.option("-v", "--verbose", count=True, help="Say more; -vv for the whole log."),
    click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help="Instead of ~/.config/netdicom/config.toml and ./netdicom.toml.",
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's help, kept line by line."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def common_options(command: _F) -> _F:
    """Add the common options; the command gets a :class:`Common` as its first argument.

    What it raises is said in three lines, and is the exit code.
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

    decorated: Any = wrapper
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    result: _F = decorated
    return result


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
    decorated: Any = click.argument("peer", metavar="PEER", shell_complete=_complete_peer)(command)
    result: _F = decorated
    return result


def peers_argument(command: _F) -> _F:
    """One peer or several, as they are written."""
    decorated: Any = click.argument(
        "peers", metavar="PEER...", nargs=-1, required=True, shell_complete=_complete_peer
    )(command)
    result: _F = decorated
    return result


def key_option(command: _F) -> _F:
    """``-k``."""
    decorated: Any = click.option(
        "-k",
        "--key",
        "keys",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="A keyword, gggg,eeee, or Sequence.Keyword; repeatable.",
    )(command)
    result: _F = decorated
    return result


def model_options(letters: str) -> Callable[[_F], _F]:
    """``-P -S -O`` (``-W``), ``--root`` and ``--level``.

    Args:
        letters: Of :data:`ROOTS`, that the command knows.
    """

    def add(command: _F) -> _F:
        decorated: Any = click.option(
            "--level",
            type=click.Choice(LEVELS, case_sensitive=False),
            metavar="LEVEL",
            help="PATIENT, STUDY, SERIES or IMAGE; by default that of the deepest unique key.",
        )(command)
        for letter in reversed(letters):
            decorated = click.option(
                f"-{letter}",
                "root",
                flag_value=letter,
                help=f"{ROOTS[letter].capitalize()} model{', the default' * (letter == 'S')}.",
            )(decorated)
        decorated = click.option(
            "--root",
            "root",
            type=click.Choice(list(letters), case_sensitive=False),
            metavar="|".join(letters),
            default="S",
            help="The same, by its letter.",
        )(decorated)
        result: _F = decorated
        return result

    return add


def answer_options(command: Any) -> Any:
    """How answers are shown, and how many."""
    for option in reversed(
        (
            click.option(
                "-r",
                "--return",
                "returned",
                multiple=True,
                metavar="KEY",
                help="A column of the answer, as -k KEY without a value; repeatable.",
            ),
            click.option(
                "--limit", type=click.IntRange(1), help="Cancel after so many answers (C-CANCEL)."
            ),
            click.option("--csv", "is_csv", is_flag=True, help="Results as CSV."),
            click.option(
                "--no-header", is_flag=True, help="No line with the names of the columns."
            ),
        )
    ):
        command = option(command)
    return command


def output_options(command: Any) -> Any:
    """Where instances go."""
    for option in reversed(
        (
            click.option(
                "-o",
                "-od",
                "--output",
                "directory",
                default=".",
                metavar="DIR",
                help="Where to write; made when absent. The current directory.",
            ),
            click.option(
                "--layout",
                type=click.Choice(LAYOUTS),
                default=LAYOUTS[0],
                help="STUDY/SERIES/INSTANCE.dcm, or INSTANCE.dcm; study.",
            ),
        )
    ):
        command = option(command)
    return command


def archive_options(command: _F) -> _F:
    """``--storage`` and ``--database``, as ``twistd dicom`` has them."""
    for option in (
        click.option(
            "--database",
            metavar="URL",
            help="Of the index; SQLite, index.db in the storage directory.",
        ),
        click.option(
            "-s",
            "--storage",
            type=click.Path(file_okay=False, path_type=Path),
            default="netdicom-archive",
            help="The node's directory; ./netdicom-archive.",
        ),
    ):
        command = option(command)
    return command
