"""The configuration file: our AE title and our peers, in TOML.

::

    ae_title = "WORKSTATION1"                # our own AE title

    [peers]
    archive = "ARCHIVE@10.0.0.5:104"

    [peers.cloud]
    address = "CLOUD@pacs.example:2762"
    ae_title = "GATEWAY"                     # our own AE title for this peer
    tls = { trust = "ca.pem", certificate = "our.pem" }

The configuration file of a node is such a file, too: ``[node] aet`` is our AE title, and each ``[[peer]]`` with a host
is a peer, with the files of ``[tls]``. One file may have both.

``~/.config/netdicom/config.toml`` (below ``XDG_CONFIG_HOME``, if that is set) is read first, then
``netdicom.toml`` in the current directory, which takes precedence; ``--config FILE``, or the one that the variable
``NETDICOM_CONFIG`` names, is read instead of both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .addresses import Address, TLSFiles, check_title, parse_address
from .failures import CommandError, ExitCode, Problem

__all__ = ["Config", "load_config"]

_TOP = ("ae_title", "peers")
_VARIABLE = "NETDICOM_CONFIG"
# What only the node reads: others may not be allowed to, lack a driver, or be on another machine.
_OF_THE_NODE = (
    ("database", "url"),
    ("database", "url_file"),
    ("s3", "secret_key_file"),
    ("worklist", "directory"),
)
_PEER = ("address", "ae_title", "tls")
_TLS = tuple(each.name for each in fields(TLSFiles))
_TLS_PATHS = ("certificate", "key", "trust")


@dataclass(slots=True)
class Config:
    """The content of the configuration files.

    Attributes:
        ae_title: Our own AE title; None when no file names it.
        sources: The files that were read.
    """

    ae_title: str | None = None
    peers: dict[str, Address] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)


def default_files() -> list[Path]:
    """The files that are read by default; a later one overrides an earlier one."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return [Path(home, "netdicom", "config.toml"), Path("netdicom.toml")]


def load_config(file: str | None = None) -> Config:
    """Read the configuration.

    Args:
        file: The file to read instead of the default ones; it must exist. None reads the one that NETDICOM_CONFIG
            names, if that is set.

    Raises:
        CommandError: A file cannot be used (exit code 78); the message lists every fault with its path.
    """
    config = Config()
    file = file or os.environ.get(_VARIABLE) or None
    for path in default_files() if file is None else [Path(file)]:
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError as error:
            if file is None:
                continue
            raise _unusable(path, [str(error.strerror)]) from error
        except OSError as error:
            raise _unusable(path, [str(error.strerror)]) from error
        except UnicodeDecodeError as error:
            raise _unusable(path, ["it is not UTF-8"]) from error
        content = _parsed(path, text)
        faults = []
        if any(isinstance(content[key], dict | list) for key in content.keys() - set(_TOP)):
            faults = _read_tables(path, config)
            content = {key: content[key] for key in content.keys() & set(_TOP)}
        faults += _Reader(path).read(content, config)
        if faults:
            raise _unusable(path, faults)
        config.sources.append(path)
    return config


def _parsed(path: Path, text: str) -> dict[str, Any]:
    import tomllib  # most users have no such file

    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise _unusable(path, ["arrays or tables are nested too deeply"]) from error
    except ValueError as error:  # of tomllib, or of a number with too many digits
        raise _unusable(path, [str(error)]) from error


def _read_tables(path: Path, config: Config) -> list[str]:
    """Add the AE title and the peers of a node's tables; returns what is wrong with them."""
    from ...access import ANY_TITLE
    from ...config import ConfigurationError, read_leniently

    try:
        source, mistakes = read_leniently(str(path), environment=os.environ, without=_TOP)
    except ConfigurationError as error:
        return [str(each) for each in error.mistakes]
    faults = [str(each) for each in mistakes if each.key[:2] not in _OF_THE_NODE]
    if faults:
        return faults
    found = source.config
    if source.origin("node", "aet"):
        config.ae_title = str(found.node.aet)
    files = found.tls
    tls = TLSFiles(
        certificate=files.certificate,
        key=files.key,
        key_password=files.key_password,
        trust=files.authorities,
        fingerprint=tuple(files.fingerprints) or None,
    )
    for each in found.peer:
        if each.host is not None and each.port is not None and each.title != ANY_TITLE:
            config.peers[str(each.name or each.title)] = Address(
                each.title,
                each.host,
                int(each.port),
                tls=tls if each.tls else None,
                quirks=each.quirks,
            )
    return []


def _unusable(path: Path, faults: list[str]) -> CommandError:
    return CommandError(
        Problem(
            ExitCode.CONFIGURATION,
            f"the configuration file {path} cannot be used",
            "\n".join(faults),
            "correct it, or name another one with --config FILE",
        )
    )


class _Reader:
    """Reads one file, and continues after a fault."""

    def __init__(self, path: Path) -> None:
        self._directory = path.parent
        self._faults: list[str] = []

    def read(self, content: Mapping[str, Any], config: Config) -> list[str]:
        """Add the content of a file to the configuration; returns the faults that were found."""
        self._known(content, "", _TOP)
        title = self._text(content, "", "ae_title")
        if title is not None:
            config.ae_title = self._title(title, "ae_title")
        peers = content.get("peers", {})
        if not isinstance(peers, dict):
            self._faults.append(f"peers: expected a table, not {_kind(peers)}")
            return self._faults
        for name, value in peers.items():
            peer = self._peer(f"peers.{name}", value)
            if peer is not None:
                config.peers[name] = peer
        return self._faults

    def _peer(self, where: str, value: object) -> Address | None:
        if isinstance(value, str):
            return self._address(where, value)
        if not isinstance(value, dict):
            self._faults.append(f'{where}: expected "AET@host:port" or a table, not {_kind(value)}')
            return None
        self._known(value, where, _PEER)
        text = self._text(value, where, "address")
        if text is None:
            if "address" not in value:
                self._faults.append(f'{where}.address: is missing; expected "AET@host:port"')
            return None
        address = self._address(f"{where}.address", text)
        calling = self._text(value, where, "ae_title")
        if calling is not None:
            calling = self._title(calling, f"{where}.ae_title")
        tls = self._tls(f"{where}.tls", value.get("tls"))
        if address is None:
            return None
        return replace(address, calling=calling, tls=tls or address.tls)

    def _tls(self, where: str, value: object) -> TLSFiles | None:
        if value is None or value is False:
            return None
        if value is True:
            return TLSFiles()
        if not isinstance(value, dict):
            self._faults.append(f"{where}: expected true, false or a table, not {_kind(value)}")
            return None
        self._known(value, where, _TLS)
        given = {each: self._text(value, where, each) for each in _TLS}
        for each in _TLS_PATHS:
            path = given[each]
            if path is not None:  # the path is relative to the file that names it
                given[each] = str(self._directory / path)
        return TLSFiles(**given)

    def _address(self, where: str, text: str) -> Address | None:
        try:
            return parse_address(text)
        except CommandError as error:
            self._faults.append(f"{where}: {error.problem.what}: {error.problem.evidence}")
            return None

    def _title(self, text: str, where: str) -> str | None:
        try:
            return check_title(text, where)
        except CommandError as error:
            self._faults.append(error.problem.evidence)
            return None

    def _text(self, table: Mapping[str, Any], where: str, key: str) -> str | None:
        value = table.get(key)
        if value is not None and not isinstance(value, str):
            self._faults.append(f"{_path(where, key)}: expected a string, not {_kind(value)}")
            return None
        return value

    def _known(self, table: Mapping[str, Any], where: str, keys: tuple[str, ...]) -> None:
        for key in table:
            if key not in keys:
                self._faults.append(
                    f"{_path(where, key)}: is unknown; expected one of {', '.join(keys)}"
                )


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _kind(value: object) -> str:
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "a table",
    }
    return kinds.get(type(value), type(value).__name__)
