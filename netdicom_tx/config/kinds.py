"""The kinds of values that the keys of a configuration file have, and how each kind is checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NewType

from pydicom.uid import UID

from ..access import Network, Permission, network
from ..amounts import Amount
from ..archive import Duplicates, IndexUnusableError
from ..archive.index.engine import check_database
from ..archive.store.objects import check_url
from ..archive.store.sharedstore import Durability
from ..audit_trails import check_syslog
from ..endpoints import server_endpoint
from ..exceptions import LocalProtocolError
from ..log_output import LogFormat
from ..logs import Level, LogUIDs
from ..pdu import check_ae_title
from ..tls import PROFILES
from ..uids import ALL_TRANSFER_SYNTAXES
from .mistakes import WrongError, nearest

__all__ = [
    "CHECKS",
    "Addressing",
    "AtLeast0",
    "AtLeast1",
    "Checksum",
    "Clients",
    "DatabaseURL",
    "Days",
    "Default",
    "Directory",
    "Encryption",
    "Endpoint",
    "HTTPServer",
    "HostName",
    "Octets",
    "PDULength",
    "Parallel",
    "PathName",
    "PeerHost",
    "PeerName",
    "Port",
    "ProfileName",
    "Seconds",
    "StoreURL",
    "Syntax",
    "Syslog",
    "Title",
    "shown",
]

Title = NewType("Title", str)
Endpoint = NewType("Endpoint", str)
Syslog = NewType("Syslog", str)
Directory = NewType("Directory", str)  # one that exists
AtLeast0 = NewType("AtLeast0", int)
AtLeast1 = NewType("AtLeast1", int)
Port = NewType("Port", int)
ProfileName = NewType("ProfileName", str)
Syntax = NewType("Syntax", str)  # the UID of a transfer syntax
PeerName = NewType("PeerName", str)
PDULength = NewType("PDULength", int)
Clients = NewType("Clients", str)
Days = NewType("Days", int)
Seconds = NewType("Seconds", int)
Parallel = NewType("Parallel", int)
PathName = NewType("PathName", str)
HostName = NewType("HostName", str)
PeerHost = NewType("PeerHost", str)  # a name or an address
DatabaseURL = NewType("DatabaseURL", str)
StoreURL = NewType("StoreURL", str)
HTTPServer = NewType("HTTPServer", str)
Addressing = NewType("Addressing", str)
Encryption = NewType("Encryption", str)
Checksum = NewType("Checksum", str)
Octets = NewType("Octets", Amount)  # a number of octets, not a share of a disk
Default = NewType("Default", object)  # a Profile or None

_ADDRESSING = ("path", "virtual")
_ENCRYPTION = ("AES256", "aws:kms", "aws:kms:dsse")
_CHECKSUMS = ("sha256", "crc64nvme", "none")
_CLIENTS = ("required", "optional", "none")
# A service that nobody restarts for a century, and what fits into the integers of databases.
_LARGEST = 1_000_000_000
_KINDS = {str: "a string", int: "a whole number", bool: "true or false"}


def shown(value: Any) -> str:
    """A value of a wrong kind, as the file has it."""
    if isinstance(value, date | time):
        return f"the date or time {value}"
    if isinstance(value, bool):
        return str(value).lower()
    return "a table" if isinstance(value, dict) else f"{value!r:.60}"


def _written(kind: type, value: Any) -> str:
    """How to write what is of a wrong kind; empty when that cannot be told."""
    if kind is str and not isinstance(value, dict | list):
        return "write it in quotes"
    if kind is int and isinstance(value, str):
        return "write it in digits, without quotes"
    return "write it without quotes" if kind is bool else ""


def _plain(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise WrongError(f"expected {_KINDS[kind]}, got {shown(value)}", _written(kind, value))
        return value

    return check


def _text(value: Any, kind: Any) -> str:
    """A string without NUL, which no name of a file or a host can have."""
    text: str = _plain(str)(value, kind)
    if "\0" in text:
        raise WrongError("a string with NUL", "expected one without")
    return text


_number = _plain(int)


def _said(call: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    """A check that the library makes in its own words."""

    def check(value: Any, kind: Any) -> Any:
        text = _text(value, kind)
        try:
            found = call(text)
        except LocalProtocolError as error:
            raise WrongError(str(error)) from error
        return found

    return check


def _check_endpoint(text: str) -> str:
    server_endpoint(None, text)
    return text


def _check_syslog(value: str) -> str:
    check_syslog(value)
    return value


def _from(least: int, most: int = _LARGEST) -> Callable[[Any, Any], int]:
    def check(value: Any, kind: Any) -> int:
        number: int = _number(value, kind)
        if not least <= number <= most:
            is_open = most == _LARGEST and number < least
            upto = f"of {least} or more" if is_open else f"from {least} to {most}"
            raise WrongError(f"expected a whole number {upto}, not '{number}'")
        return number

    return check


def _octets(text: str) -> Amount:
    """A number of octets."""
    amount = Amount.read(text)
    if amount.share:
        raise LocalProtocolError(f'expected an amount such as "20 GB", not {text!r:.60}')
    return amount


def _http_server(value: Any, kind: Any) -> str:
    text = _text(value, kind)
    if not re.fullmatch(r"https?://[^\s/?#@]+/?", text):
        raise WrongError(
            f"{text!r:.60} is not the URL of a server", "write one such as https://s3.example:9000"
        )
    return text.rstrip("/")


def _database_url(value: Any, kind: Any) -> str:
    text = _text(value, kind)
    try:
        check_database(text)
    except IndexUnusableError as error:
        raise WrongError(str(error)) from error
    return text


def _path_name(value: Any, kind: Any) -> str:
    text = _text(value, kind)
    if not text.strip():
        raise WrongError("is empty", "name a directory, or leave it out")
    return text


def _host_name(value: Any, kind: Any) -> str:
    text = _text(value, kind)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", text):
        raise WrongError(
            f"{text!r:.60} is not the name of a host", "write it alone, such as pacs.example"
        )
    return text


def _peer_host(value: Any, kind: Any) -> str:
    text = _text(value, kind)
    is_address = ":" in text and _is_address(text)
    if not is_address and not re.fullmatch(r"[^\s/@:\[\]]{1,253}", text):
        raise WrongError(
            f"{text!r:.60} is not the name or the address of a host",
            "write it alone, without a port: pacs.example, 192.0.2.7 or 2001:db8::7",
        )
    return text


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _directory(value: Any, kind: Any) -> str:
    text: str = _text(value, kind)
    if not Path(text).is_dir():
        raise WrongError(f"{text} is not a directory", "create it first")
    return text


def _one_of(words: Iterable[str], value: Any) -> str:
    known = list(words)
    text: str = _text(value, str)
    if text not in known:
        raise WrongError(
            f"expected {', '.join(known[:-1])} or {known[-1]}, not {text!r}", nearest(text, known)
        )
    return text


def _enumerated(value: Any, kind: type[Enum]) -> Enum:
    return kind(_one_of([each.value for each in kind], value))


def _peer_name(value: Any, kind: Any) -> str:
    """A name that a command does not take for an address or an option."""
    text = _text(value, kind)
    if not re.fullmatch(r"[^\s@:-][^\s@:]*", text):
        raise WrongError(f"{text!r} is not a name of a peer", "write one word without @ and :")
    return text


def _syntax(value: Any, kind: Any) -> str:
    """A transfer syntax, by its UID or its keyword."""
    text = _text(value, kind)
    known = {UID(uid).keyword: uid for uid in ALL_TRANSFER_SYNTAXES}
    if text in known:
        return known[text]
    if text not in ALL_TRANSFER_SYNTAXES:
        raise WrongError(
            f"{text!r} is not a transfer syntax",
            nearest(text, known) or "write its UID or keyword",
        )
    return text


#: How the values of each kind are checked.
CHECKS: Final[Mapping[Any, Callable[[Any, Any], Any]]] = {
    str: _text,
    int: _number,
    bool: _plain(bool),
    Title: _said(check_ae_title),
    Endpoint: _said(_check_endpoint),
    Syslog: _said(_check_syslog),
    Directory: _directory,
    AtLeast0: _from(0),
    AtLeast1: _from(1),
    Port: _from(1, 65535),
    # Fragments of less would be mostly header.
    PDULength: _from(4096, (1 << 32) - 1),
    Syntax: _syntax,
    PeerName: _peer_name,
    Amount: _said(Amount.read),
    Network: _said(network),
    Permission: _enumerated,
    Duplicates: _enumerated,
    Durability: _enumerated,
    DatabaseURL: _database_url,
    PathName: _path_name,
    HostName: _host_name,
    PeerHost: _peer_host,
    # Longer ages than people have.
    Days: _from(1, 36_500),
    Seconds: _from(0, 86_400),
    Parallel: _from(1, 256),
    StoreURL: _said(check_url),
    HTTPServer: _http_server,
    Octets: _said(_octets),
    Addressing: lambda value, _: _one_of(_ADDRESSING, value),
    Encryption: lambda value, _: _one_of(_ENCRYPTION, value),
    Checksum: lambda value, _: _one_of(_CHECKSUMS, value),
    LogUIDs: _enumerated,
    Level: _enumerated,
    LogFormat: _enumerated,
    Clients: lambda value, _: _one_of(_CLIENTS, value),
    ProfileName: lambda value, _: _one_of(PROFILES, value),
}
