"""``netdicom service``: the systemd units of a node."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from .common.failures import CommandError, ExitCode, Problem, bad_input
from .common.node import node_options
from .common.options import Group, examples, json_option
from .common.output import Output, counted

__all__ = ["Plan", "command", "plan"]

_F = TypeVar("_F", bound=Callable[..., Any])

# The first line of what is written, by which it is known when it is to be replaced or removed.
_MARK: Final = "# Written by netdicom service install."
_SYSTEM_UNITS: Final = Path("/etc/systemd/system")
_SYSTEM_CONFIG: Final = Path("/etc/netdicom/node.toml")
# Ports below need a capability.
_UNPRIVILEGED: Final = 1024
# Where StateDirectory= of a system unit is.
_STATE: Final = Path("/var/lib")

# The node needs the network, its configuration and its own directories, and nothing else.
_HARDENING: Final = """\
LockPersonality=yes
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""
# A user's own systemd may not set these.
_SYSTEM_HARDENING: Final = """\
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the units of a node say.

    Attributes:
        name: The name of the units, without a suffix.
        is_user: Whether they are for the systemd of a user.
        config: The configuration file of the node.
        account: The account that a system unit runs under.
        port: The port that systemd opens; None when the node opens its own.
        program: The program that runs the node.
        writable: The directories outside the state directory that the node writes to.
        needs_low_ports: Whether the node opens ports below 1024 itself.
    """

    name: str
    is_user: bool
    config: Path
    account: str
    port: int | None
    program: Path
    writable: tuple[Path, ...]
    needs_low_ports: bool

    def units(self) -> dict[str, str]:
        """The text of each unit, by the name of its file."""
        units = {f"{self.name}.service": self._service()}
        if self.port is not None:
            units[f"{self.name}.socket"] = self._socket()
        return units

    def _service(self) -> str:
        words: list[str | Path] = [self.program, "serve", "--config", self.config]
        if self.port is not None:
            words += ["--listen", "systemd:domain=INET:name=dicom"]
        lines = [
            _MARK,
            "[Unit]",
            "Description=DICOM archive node",
            "Wants=network-online.target",
            "After=network-online.target",
        ]
        if self.port is not None:
            lines += [f"Requires={self.name}.socket", f"After={self.name}.socket"]
        if self.writable:
            lines.append(f"RequiresMountsFor={_words(self.writable)}")
        lines += [
            "",
            "[Service]",
            # The node says when it serves, and that its reactor is not stuck.
            "Type=notify",
            "WatchdogSec=60",
            f"ExecStart={_words(words)}",
            "ExecReload=kill -HUP $MAINPID",
        ]
        if not self.is_user:
            lines.append(f"User={self.account}")
        lines += [
            "UMask=0077",
            # A relative path of the configuration is below the state directory.
            f"StateDirectory={self.name}",
            "StateDirectoryMode=0700",
            f"WorkingDirectory=%S/{self.name}",
            # Longer than the node takes to end its associations.
            "TimeoutStopSec=30",
            "Restart=on-failure",
            "RestartSec=2",
            "# A wrong configuration file stays wrong.",
            f"RestartPreventExitStatus={int(ExitCode.CONFIGURATION)}",
            "",
            _HARDENING.rstrip(),
        ]
        if not self.is_user:
            lines += self._system_only()
        lines += ["", "[Install]"]
        if self.port is not None:
            lines.append(f"Also={self.name}.socket")
        lines.append(f"WantedBy={'default' if self.is_user else 'multi-user'}.target")
        return "\n".join(lines) + "\n"

    def _system_only(self) -> list[str]:
        lines = [_SYSTEM_HARDENING.rstrip()]
        at_home = any(_is_at_home(each) for each in (self.program, self.config, *self.writable))
        lines.append(f"ProtectHome={'read-only' if at_home else 'yes'}")
        if self.needs_low_ports:
            lines += [
                "AmbientCapabilities=CAP_NET_BIND_SERVICE",
                "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
            ]
        else:
            lines.append("CapabilityBoundingSet=")
        if self.writable:
            lines.append(f"ReadWritePaths={_words(self.writable)}")
        return lines

    def _socket(self) -> str:
        lines = [
            _MARK,
            "[Unit]",
            "Description=DICOM port of the archive node",
            "",
            "[Socket]",
            f"ListenStream=0.0.0.0:{self.port}",
            "FileDescriptorName=dicom",
            "Backlog=4096",
            "NoDelay=yes",
            "",
            "[Install]",
            "WantedBy=sockets.target",
        ]
        return "\n".join(lines) + "\n"


def _words(words: Iterable[str | Path]) -> str:
    """Words as systemd splits them again; see systemd.syntax(7) and systemd.service(5)."""
    return " ".join(_word(str(each)) for each in words)


def _word(text: str) -> str:
    plain = text.replace("%", "%%").replace("$", "$$")
    if not re.search(r"[\s'\"\\;]", plain):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_at_home(path: Path) -> bool:
    """Whether a path is in a place that ProtectHome=yes hides."""
    return any(path.is_relative_to(each) for each in ("/home", "/root", "/run/user"))


# -- from the command line to a plan -----------------------------------------------------------------


def _unit_options(called: _F) -> _F:
    """The options that say what the units are to be."""
    for option in reversed(
        [
            click.option(
                "--user", "is_user", is_flag=True, help="For your own systemd, without root."
            ),
            click.option(
                "--config",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help=f"The configuration file of the node (default: {_SYSTEM_CONFIG}; "
                "with --user netdicom/node.toml below ~/.config).",
            ),
            click.option(
                "--account",
                default="netdicom",
                show_default=True,
                metavar="NAME",
                help="The account that the node runs under; without a meaning with --user.",
            ),
            click.option(
                "--socket",
                "port",
                type=click.IntRange(1, 65535),
                metavar="PORT",
                help="Let systemd open this port, so that no connection is refused while the node restarts. "
                "It replaces the listen of the configuration file.",
            ),
        ]
    ):
        called = option(called)
    return called


def _name_option(called: _F) -> _F:
    return click.option(
        "--name",
        default="netdicom",
        show_default=True,
        metavar="NAME",
        help="The name of the units, for a machine with several nodes.",
    )(called)


def _to_option(called: _F) -> _F:
    return click.option(
        "--to",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIRECTORY",
        help=f"The directory of the units (default: {_SYSTEM_UNITS}; with --user systemd/user below ~/.config).",
    )(called)


def _config_home() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _directory(to: Path | None, *, is_user: bool) -> Path:
    if to is not None:
        return to
    return _config_home() / "systemd" / "user" if is_user else _SYSTEM_UNITS


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise bad_input(
            f"{name!r} cannot be the name of a unit",
            "expected letters, digits, '-', '_' and '.'",
            "for example: --name netdicom-test",
        )
    return name


def plan(
    name: str,
    *,
    config: Path | None = None,
    is_user: bool = False,
    account: str = "netdicom",
    port: int | None = None,
) -> Plan:
    """Read the configuration file, so that the units allow what the node will need.

    Args:
        name: The name of the units, without a suffix.
        config: The configuration file; None means the one in the usual place.
        is_user: Whether the units are for the systemd of a user.
        account: The account that a system unit runs under.
        port: The port that systemd opens; None when the node opens its own.

    Raises:
        CommandError: The file is wrong or missing, or the program that runs the node is missing.
    """
    given = config or (_config_home() / "netdicom" / "node.toml" if is_user else _SYSTEM_CONFIG)
    path = given.absolute()
    options = node_options(["--config", str(path)])
    # Not resolved: the link in a virtual environment is what makes it one.
    program = Path(sys.executable).with_name("netdicom")
    if not program.exists():
        raise CommandError(
            Problem(
                ExitCode.USAGE,
                f"{program} is missing, and the unit would start it",
                "pip installs it beside the interpreter",
                "run this command with the Python that netdicom_tx is installed for",
            )
        )
    state = _STATE / name
    written = [Path(options["storage"])]
    if options["audit"]:
        written.append(Path(options["audit"]).parent)
    writable = tuple(
        dict.fromkeys(
            each for each in written if each.is_absolute() and not each.is_relative_to(state)
        )
    )
    listens = [*([] if port is not None else options["listen"]), *options["tls-listen"]]
    listens += [options["http"]] if options["http"] else []
    return Plan(
        name=_checked_name(name),
        is_user=is_user,
        config=path,
        account=account,
        port=port,
        program=program,
        writable=writable,
        needs_low_ports=any(map(_is_low, listens)),
    )


def _is_low(endpoint: str) -> bool:
    found = re.match(r"(?:tcp6?|ssl):(?:.*?port=)?(\d+)", endpoint)
    return found is not None and 0 < int(found[1]) < _UNPRIVILEGED


# -- the commands ------------------------------------------------------------------------------------


@click.group(
    cls=Group,
    no_args_is_help=True,
    epilog=examples(
        "netdicom service show --config /etc/netdicom/node.toml",
        "netdicom service install --socket 104",
        "netdicom service install --user --config node.toml",
        "netdicom service remove",
    ),
)
def command() -> None:
    """Write the systemd units that run a node, or remove them.

    The units run the node with its configuration file, as an account of its own, and allow it nothing but the
    network and its own directories.
    """


@command.command(epilog=examples("netdicom service show --socket 104"))
@_unit_options
@_name_option
@json_option
def show(
    is_user: bool, config: Path | None, account: str, port: int | None, name: str, is_json: bool
) -> int:
    """Print the units that install would write; nothing is written."""
    units = plan(name, is_user=is_user, config=config, account=account, port=port).units()
    _print(Output(is_json=is_json), units)
    return ExitCode.OK


def _print(output: Output, units: dict[str, str]) -> None:
    if output.is_json:
        output.json(units)
        return
    for number, text in enumerate(units.values()):
        output.line((f"\n{text}" if number else text).removesuffix("\n"))


@command.command(
    epilog=examples(
        "netdicom service install",
        "netdicom service install --user --config node.toml --dry-run",
    )
)
@_unit_options
@_name_option
@_to_option
@click.option("--dry-run", is_flag=True, help="Print the files and what they would contain.")
@click.option("--force", is_flag=True, help="Overwrite units that are there.")
@json_option
def install(
    is_user: bool,
    config: Path | None,
    account: str,
    port: int | None,
    name: str,
    to: Path | None,
    dry_run: bool,
    force: bool,
    is_json: bool,
) -> int:
    """Write the units, without starting anything; existing files are only overwritten with --force."""
    output = Output(is_json=is_json)
    planned = plan(name, is_user=is_user, config=config, account=account, port=port)
    directory = _directory(to, is_user=is_user)
    files = {directory / unit: text for unit, text in planned.units().items()}
    if not force and not dry_run:
        _check_absent(files)
    if dry_run:
        output.note(f"would write {counted(len(files), 'file')}: {_listed(files)}")
        _print(output, {str(path): text for path, text in files.items()})
        return ExitCode.OK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, "utf-8")
    except OSError as error:
        raise _not_written(error, directory, is_user=is_user) from error
    if is_json:
        output.json({"written": [str(each) for each in files]})
    output.note(f"wrote {_listed(files)}")
    if not is_user and not _has_account(account):
        output.note(
            f"there is no account {account} yet: useradd --system --home-dir {_STATE / name} "
            f"--shell /usr/sbin/nologin {account}"
        )
    missing = [each for each in planned.writable if not each.is_dir()]
    if missing and not is_user:
        output.note(
            f"make what the node writes to: install -d -o {account} -m 700 {shlex.join(map(str, missing))}"
        )
    output.note(f"start the node: {_start(planned)}")
    return ExitCode.OK


def _check_absent(files: Iterable[Path]) -> None:
    present = [each for each in files if each.exists()]
    if present:
        raise bad_input(
            f"{_listed(present)} {'is' if len(present) == 1 else 'are'} there already",
            "nothing was written",
            "look at what would change with show, and write with --force",
        )


def _listed(paths: Iterable[Path]) -> str:
    return " and ".join(map(str, paths))


def _not_written(error: OSError, directory: Path, *, is_user: bool) -> CommandError:
    hint = "run this as root, or install for your own account with --user"
    return CommandError(
        Problem(
            ExitCode.LOCAL_DISK,
            f"{error.filename or directory} cannot be written",
            str(error.strerror),
            "check the permissions of the directory" if is_user else hint,
        )
    )


def _has_account(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _systemctl(*, is_user: bool) -> str:
    return "systemctl --user" if is_user else "systemctl"


def _start(planned: Plan) -> str:
    control = _systemctl(is_user=planned.is_user)
    return (
        f"{control} daemon-reload && {control} enable --now {' '.join(reversed(planned.units()))}"
    )


@command.command(epilog=examples("netdicom service remove", "netdicom service remove --user"))
@click.option("--user", "is_user", is_flag=True, help="The units of your own systemd.")
@_name_option
@_to_option
@click.option("--dry-run", is_flag=True, help="Print what would be removed.")
@click.option("--force", is_flag=True, help="Remove units that this command has not written, too.")
@json_option
def remove(
    is_user: bool, name: str, to: Path | None, dry_run: bool, force: bool, is_json: bool
) -> int:
    """Remove the units that install has written. Configuration and storage of the node stay."""
    output = Output(is_json=is_json)
    directory = _directory(to, is_user=is_user)
    units = [f"{_checked_name(name)}{suffix}" for suffix in (".service", ".socket")]
    found = [path for path in (directory / each for each in units) if path.exists()]
    if not found:
        raise CommandError(
            Problem(
                ExitCode.NOTHING, f"there is no {units[0]} in {directory}", "nothing was removed"
            )
        )
    _check_ours(found, force=force)
    if not dry_run:
        try:
            for path in found:
                path.unlink()
        except OSError as error:
            raise _not_written(error, directory, is_user=is_user) from error
    if is_json:
        output.json({"removed": [str(each) for each in found], "dry_run": dry_run})
    output.note(f"{'would remove' if dry_run else 'removed'} {_listed(found)}")
    control = _systemctl(is_user=is_user)
    names = " ".join(each.name for each in found)
    output.note(f"if the node runs, stop it: {control} disable --now {names}")
    return ExitCode.OK


def _check_ours(found: Sequence[Path], *, force: bool) -> None:
    foreign = [path for path in found if not path.read_text("utf-8", "replace").startswith(_MARK)]
    if foreign and not force:
        raise bad_input(
            f"{_listed(foreign)} was not written by netdicom service install",
            f"its first line is not {_MARK!r}; nothing was removed",
            "remove it yourself, or with --force",
        )
