"""The configuration file of the node: one model of its tables, read from TOML.

Each table is a class here, and :class:`Config` has one attribute for each. To add a table, write its class and add it
to ``Config``: unknown keys, types and lines are then taken care of. A field that an option of ``twistd dicom`` sets,
too, names it with :func:`_option`.

:func:`read` finds every mistake of a file at once, each with its line and with what to write instead. The keys of
former versions, which are the names of the options at the top level (``max-associations = 7``), mean the fields with
these options.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, NewType, get_args, get_origin

import attrs
from cattrs import (
    BaseValidationError,
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from .access import ANY_TITLE, EVERYTHING, Access, Network, Permission, Profile, Rule, network
from .archive import Duplicates
from .audit_trails import check_syslog
from .endpoints import server_endpoint
from .exceptions import LocalProtocolError, NetDICOMError
from .identity import Identities, JSONWebTokens, PasswordFile, UserNames
from .logs import LogUIDs
from .pdu import check_ae_title
from .tls import PROFILES

__all__ = [
    "EX_CONFIG",
    "TABLES",
    "Config",
    "ConfigurationError",
    "Mistake",
    "Peer",
    "Source",
    "lines_of",
    "read",
]

#: The exit status for a wrong configuration (sysexits.h).
EX_CONFIG: Final = 78

_Path = tuple[str | int, ...]

# The node reads its file in the reactor's thread: 256 KiB, enough for 2,000 peers, take a fraction of a second.
_LARGEST: Final = 256 * 1024


# -- mistakes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a configuration file.

    Attributes:
        text: What is wrong, with the key.
        hint: What to write instead; may be empty.
        line: The line, counted from 1; 0 when there is none.
    """

    text: str
    hint: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.text}{f'; {self.hint}' if self.hint else ''}"


class ConfigurationError(NetDICOMError):
    """The configuration file is wrong.

    Attributes:
        path: The file.
        mistakes: All that is wrong with it, in the order of the lines.
    """

    def __init__(self, path: str, mistakes: Iterable[Mistake]) -> None:
        self.path = path
        self.mistakes = tuple(sorted(mistakes, key=lambda each: each.line))
        (first, *more) = self.mistakes
        if more:
            lines = "".join(f"\n  {each}" for each in self.mistakes)
            super().__init__(f"{path} has {len(self.mistakes)} mistakes:{lines}")
        else:
            super().__init__(f"{path}: {first}")


class _WrongError(ValueError):
    """A value is wrong.

    Args:
        text: What was expected, and what came.
        hint: What to write instead.
        key: The key in a table that the value belongs to; empty when it is the value itself.
    """

    def __init__(self, text: str, hint: str = "", key: str = "") -> None:
        super().__init__(text)
        self.hint = hint
        self.key = key


def _nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like a wrong one, as a hint."""
    words = list(known)
    found = difflib.get_close_matches(word.replace("-", "_"), words, 1, 0.6)
    if not found:
        found = difflib.get_close_matches(word, words, 1, 0.6)
    return f"did you mean {found[0]}?" if found else ""


# -- values ------------------------------------------------------------------------------------------

_Title = NewType("_Title", str)
_Endpoint = NewType("_Endpoint", str)
_Syslog = NewType("_Syslog", str)
_Directory = NewType("_Directory", str)  # one that exists
_AtLeast0 = NewType("_AtLeast0", int)
_AtLeast1 = NewType("_AtLeast1", int)
_Port = NewType("_Port", int)
_ProfileName = NewType("_ProfileName", str)
_Clients = NewType("_Clients", str)
_Default = NewType("_Default", object)  # a Profile or None

_CLIENTS = ("required", "optional", "none")
_KINDS = {str: "a string", int: "a whole number", bool: "true or false"}


def _plain(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _WrongError(f"expected {_KINDS[kind]}, got {value!r:.60}")
        return value

    return check


def _text(value: Any, kind: Any) -> str:
    """A string without NUL, which no name of a file or a host can have."""
    text: str = _plain(str)(value, kind)
    if "\0" in text:
        raise _WrongError("a string with NUL", "expected one without")
    return text


_number = _plain(int)


def _said(call: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    """A check that the library makes in its own words."""

    def check(value: Any, kind: Any) -> Any:
        text = _text(value, kind)
        try:
            found = call(text)
        except LocalProtocolError as error:
            raise _WrongError(str(error)) from error
        return found

    return check


def _check_endpoint(text: str) -> str:
    server_endpoint(None, text)
    return text


def _check_syslog(value: str) -> str:
    check_syslog(value)
    return value


def _from(least: int, most: int | None = None) -> Callable[[Any, Any], int]:
    def check(value: Any, kind: Any) -> int:
        number: int = _number(value, kind)
        if number < least or (most is not None and number > most):
            upto = f"from {least} to {most}" if most is not None else f"of {least} or more"
            raise _WrongError(f"expected a whole number {upto}, not '{number}'")
        return number

    return check


def _directory(value: Any, kind: Any) -> str:
    text: str = _text(value, kind)
    if not Path(text).is_dir():
        raise _WrongError(f"{text} is not a directory", "create it first")
    return text


def _one_of(words: Iterable[str], value: Any) -> str:
    known = list(words)
    text: str = _text(value, str)
    if text not in known:
        raise _WrongError(
            f"expected {', '.join(known[:-1])} or {known[-1]}, not {text!r}", _nearest(text, known)
        )
    return text


def _enumerated(value: Any, kind: type[Enum]) -> Enum:
    return kind(_one_of([each.value for each in kind], value))


def _permissions(value: Any) -> frozenset[Permission]:
    return frozenset(_converter.structure(value, tuple[Permission, ...]))


def _default_profile(value: Any, _: Any) -> Profile | None:
    if isinstance(value, list):
        return Profile(_permissions(value))
    words = {"all": EVERYTHING, "none": None}
    if not isinstance(value, str) or value not in words:
        raise _WrongError(
            f'expected "all", "none" or a list of permissions, got {value!r:.60}',
            _nearest(str(value), words),
        )
    return words[value]


# -- tables ------------------------------------------------------------------------------------------


def _option(name: str, *, is_negated: bool = False) -> dict[str, Any]:
    """The metadata of a field that an option of ``twistd dicom`` sets, too.

    Args:
        name: The option, which is also the key that former versions had for it.
        is_negated: Whether the option means the contrary of the field.
    """
    return {"option": name, "is_negated": is_negated}


@attrs.frozen(kw_only=True)
class Node:
    """``[node]``: who the node is and where it listens.

    Attributes:
        aet: The node's own AE title, 1 to 16 characters.
        listen: Twisted endpoints without TLS, such as ``"tcp:11112"``.
        tls_listen: Twisted endpoints with TLS, such as ``"tcp:2762"``; they need ``[tls]`` with a certificate.
        max_associations: How many associations may be open at the same time.
        max_associations_per_host: How many associations one host may have open.
        log_uids: How UIDs appear in the log: ``"plain"`` or ``"digest"``.
        max_associations_per_title: How many associations may be open with one calling AE title.
    """

    aet: _Title = attrs.field(default=_Title("NETDICOM"), metadata=_option("aet"))
    listen: tuple[_Endpoint, ...] = attrs.field(default=(), metadata=_option("listen"))
    tls_listen: tuple[_Endpoint, ...] = attrs.field(default=(), metadata=_option("tls-listen"))
    max_associations: _AtLeast1 = attrs.field(
        default=_AtLeast1(100), metadata=_option("max-associations")
    )
    max_associations_per_host: _AtLeast1 = attrs.field(
        default=_AtLeast1(20), metadata=_option("max-associations-per-host")
    )
    log_uids: LogUIDs = attrs.field(default=LogUIDs.PLAIN, metadata=_option("log-uids"))
    max_associations_per_title: _AtLeast1 | None = attrs.field(
        default=None, metadata=_option("max-associations-per-title")
    )


@attrs.frozen(kw_only=True)
class Storage:
    """``[storage]``: where and how instances are kept.

    Attributes:
        directory: The directory, which is created if it does not exist.
        duplicates: What happens to another data set with the same SOP Instance UID: ``"keep"``, ``"replace"`` or
            ``"keep-both"``.
        fsync: Whether files are synced to the disk before they are acknowledged.
        unknown_sop_classes: Whether instances of private and unknown SOP classes are kept, too.
        scrub: How many MiB of stored files the node compares with their digests in a second; 0 turns this off.
    """

    directory: str = attrs.field(default="netdicom-archive", metadata=_option("storage"))
    duplicates: Duplicates = attrs.field(default=Duplicates.KEEP, metadata=_option("duplicates"))
    fsync: bool = attrs.field(default=True, metadata=_option("no-fsync", is_negated=True))
    unknown_sop_classes: bool = attrs.field(default=False, metadata=_option("unknown-sop-classes"))
    scrub: _AtLeast0 = attrs.field(default=_AtLeast0(1), metadata=_option("scrub"))


@attrs.frozen(kw_only=True)
class Database:
    """``[database]``: the index.

    Attributes:
        url: The SQLAlchemy URL; without it, SQLite with ``index.db`` in the storage directory.
        match_unknown: Whether attributes without a value match every key of a query (PS3.4 C.2.2.1.2).
    """

    url: str | None = attrs.field(default=None, metadata=_option("database"))
    match_unknown: bool = attrs.field(default=False, metadata=_option("match-unknown"))


@attrs.frozen(kw_only=True)
class Limits:
    """``[limits]``: what one operation may take.

    Attributes:
        move_associations: How many associations a C-MOVE opens to its destination at the same time.
    """

    move_associations: _AtLeast1 = attrs.field(
        default=_AtLeast1(1), metadata=_option("move-associations")
    )


@attrs.frozen(kw_only=True)
class TLS:
    """``[tls]``: the fields of :class:`~netdicom_tx.TLSOptions`, for both roles.

    Attributes:
        certificate: The PEM file of the node's certificate, with its chain.
        key: The PEM file of the private key; without it, the file of the certificate.
        authorities: The PEM file of the authorities by which peers are trusted.
        clients: Certificates of peers that call: ``"required"``, ``"optional"`` or ``"none"``.
        profile: The TLS profile.
        fingerprints: The SHA-256 of the certificates that are trusted, whatever the authorities are.
        more_certificates: Certificates for peers that call by a name in them (SNI).
    """

    certificate: str | None = attrs.field(default=None, metadata=_option("tls-certificate"))
    key: str | None = attrs.field(default=None, metadata=_option("tls-key"))
    authorities: str | None = attrs.field(default=None, metadata=_option("tls-authorities"))
    clients: _Clients | None = attrs.field(default=None, metadata=_option("tls-clients"))
    profile: _ProfileName | None = attrs.field(default=None, metadata=_option("tls-profile"))
    fingerprints: tuple[str, ...] = attrs.field(default=(), metadata=_option("tls-fingerprint"))
    more_certificates: tuple[str, ...] = attrs.field(
        default=(), metadata=_option("tls-more-certificate")
    )


@attrs.frozen(kw_only=True)
class Worklist:
    """``[worklist]``: scheduled and performed procedure steps.

    Attributes:
        directory: The worklist files (.wl) in this directory are served.
        forward_mpps: The peers to which each performed procedure step is forwarded.
        notify_mpps: The peers that are notified of each change of a performed procedure step.
        notify_availability: The peers that are notified when all instances of a step are here.
    """

    directory: _Directory | None = attrs.field(default=None, metadata=_option("worklist"))
    forward_mpps: tuple[_Title, ...] = attrs.field(default=(), metadata=_option("forward-mpps"))
    notify_mpps: tuple[_Title, ...] = attrs.field(default=(), metadata=_option("notify-mpps"))
    notify_availability: tuple[_Title, ...] = attrs.field(
        default=(), metadata=_option("notify-availability")
    )


@attrs.frozen(kw_only=True)
class AccessTable:
    """``[access]``: what peers without a table of their own may do.

    Attributes:
        default: ``"all"``, ``"none"``, or a list of permissions; see :mod:`netdicom_tx.access`.
        strict_peers: Whether the node serves only its peers, and only under its own AE title.
        require_identity: Whether every peer has to send the identity of its user (PS3.7 D.3.3.7).
        password_file: The users with passwords; ``netdicom passwd`` writes the file.
        users: The users who need no password.
        jwt_key_file: The public key, in PEM form, or the secret by which JSON Web Tokens are checked.
        jwt_algorithms: The algorithms that tokens may be signed with.
        jwt_audience: What a token has to be for.
        jwt_issuer: Who has to have issued a token.
    """

    default: _Default = attrs.field(default=_Default(EVERYTHING))
    strict_peers: bool = attrs.field(default=False, metadata=_option("strict-peers"))
    require_identity: bool = False
    password_file: str | None = None
    users: tuple[str, ...] = ()
    jwt_key_file: str | None = None
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwt_audience: str | None = None
    jwt_issuer: str | None = None

    def identities(self) -> Identities | None:
        """The checkers of users; None without any.

        Raises:
            LocalProtocolError: A file cannot be used, or a package is missing.
        """
        checkers: list[Any] = []
        if self.password_file is not None:
            checkers.append(PasswordFile(Path(self.password_file).absolute()))
        if self.users:
            checkers.append(UserNames(self.users))
        if self.jwt_key_file is not None:
            try:
                key = Path(self.jwt_key_file).read_bytes()
            except OSError as error:
                raise LocalProtocolError(f"{self.jwt_key_file}: {error.strerror}") from error
            checkers.append(
                JSONWebTokens(
                    key.strip(),
                    self.jwt_algorithms,
                    audience=self.jwt_audience,
                    issuer=self.jwt_issuer,
                )
            )
        return Identities(checkers) if checkers else None


@attrs.frozen(kw_only=True)
class Peer:
    """``[[peer]]``: an AE that calls the node, is called by it, or both.

    Attributes:
        title: Its AE title; ``"*"`` holds for all titles from ``networks`` that have no table of their own.
        host: Its host name or address; without it, the node never calls the peer.
        port: Its port.
        tls: Whether the node calls it over TLS.
        networks: The addresses, or networks in CIDR notation, from which it calls; without them, every address.
        allow: What it may do; by default, everything.
        move_to: The AE titles to which it may have instances moved; by default, all that the node can call.
        certificate: The SHA-256 of its TLS certificate, or a name in it. Without this certificate nobody can
            call with its AE title.
        require_identity: Whether it has to send the identity of its user; by default as ``[access]`` says.
    """

    title: str
    host: str | None = None
    port: _Port | None = None
    tls: bool = False
    networks: tuple[Network, ...] = ()
    allow: tuple[Permission, ...] | None = None
    move_to: tuple[_Title, ...] | None = None
    certificate: str = ""
    require_identity: bool | None = None

    def rule(self, *, needs_identity: bool = False) -> Rule:
        """The rule for what it may do.

        Args:
            needs_identity: Whether it has to send the identity of its user, if the table does not say.
        """
        if self.require_identity is not None:
            needs_identity = self.require_identity
        allow = frozenset(Permission if self.allow is None else self.allow)
        move_to = None if self.move_to is None else frozenset(map(str, self.move_to))
        return Rule(
            title=self.title,
            networks=self.networks,
            profile=Profile(allow, move_to, needs_identity),
            certificate=self.certificate,
        )

    @property
    def address(self) -> str | None:
        """Where the node calls it, in the form of the option ``--peer``; None when it does not call it."""
        if self.host is None:
            return None
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'dicoms://' if self.tls else ''}{self.title}@{host}:{self.port}"


@attrs.frozen(kw_only=True)
class Audit:
    """``[audit]``: the audit trail of PS3.15 A.5. It names patients.

    Attributes:
        file: The file that messages are appended to.
        syslog: Syslog servers, as ``"tls://host:6514"``, ``"tcp://host:601"`` or ``"udp://address:514"``.
    """

    file: str | None = attrs.field(default=None, metadata=_option("audit"))
    syslog: tuple[_Syslog, ...] = attrs.field(default=(), metadata=_option("audit-syslog"))


@attrs.frozen(kw_only=True)
class Config:
    """A whole file.

    Attributes:
        peer: The peers that have a table.
        addresses: The peers of former versions, as ``AET@host:port``; a file has these or tables.
    """

    node: Node = attrs.field(factory=Node)
    storage: Storage = attrs.field(factory=Storage)
    database: Database = attrs.field(factory=Database)
    limits: Limits = attrs.field(factory=Limits)
    tls: TLS = attrs.field(factory=TLS)
    worklist: Worklist = attrs.field(factory=Worklist)
    audit: Audit = attrs.field(factory=Audit)
    access: AccessTable = attrs.field(factory=AccessTable)
    peer: tuple[Peer, ...] = ()
    addresses: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """The values of all options of ``twistd dicom`` that have a field, by the names of the options."""
        return {
            option: value
            for name, kind in TABLES.items()
            for field, option, is_negated in _options_of(kind)
            for stored in [getattr(getattr(self, name), field)]
            for value in [not stored if is_negated else stored]
        }

    def rules(self, titles: Iterable[str] = (), *, is_strict: bool = False) -> Access:
        """The rules for who may do what.

        Args:
            titles: Peers without a table, which may do everything.
            is_strict: Whether nobody else is served, whatever ``[access]`` says.
        """
        needed = self.access.require_identity
        given: Any = self.access.default
        default = None if is_strict or given is None else replace(given, require_identity=needed)
        return Access(
            (
                *(each.rule(needs_identity=needed) for each in self.peer),
                *(Rule(title=each, profile=Profile(require_identity=needed)) for each in titles),
            ),
            default,
        )


#: The tables that a file has once, by name.
TABLES: Final[Mapping[str, type]] = {
    "node": Node,
    "storage": Storage,
    "database": Database,
    "limits": Limits,
    "tls": TLS,
    "worklist": Worklist,
    "audit": Audit,
    "access": AccessTable,
}


def _options_of(table: type) -> Iterable[tuple[str, str, bool]]:
    """The fields of a table that options set: field, option, whether it is negated."""
    for each in attrs.fields(table):
        if "option" in each.metadata:
            yield each.name, each.metadata["option"], each.metadata["is_negated"]


#: Where each option is in the tables: the table, the field, and whether the option means the contrary.
_FIELDS: Final = {
    option: (name, field, is_negated)
    for name, kind in TABLES.items()
    for field, option, is_negated in _options_of(kind)
}

_converter = Converter(detailed_validation=True, forbid_extra_keys=True)
for _kind, _check in {
    str: _text,
    int: _number,
    bool: _plain(bool),
    _Title: _said(check_ae_title),
    _Endpoint: _said(_check_endpoint),
    _Syslog: _said(_check_syslog),
    _Directory: _directory,
    _AtLeast0: _from(0),
    _AtLeast1: _from(1),
    _Port: _from(1, 65535),
    _Default: _default_profile,
    Network: _said(network),
    Permission: _enumerated,
    Duplicates: _enumerated,
    LogUIDs: _enumerated,
}.items():
    _converter.register_structure_hook(_kind, _check)
_converter.register_structure_hook(_Clients, lambda value, _: _one_of(_CLIENTS, value))
_converter.register_structure_hook(_ProfileName, lambda value, _: _one_of(PROFILES, value))


def _is_tuple(kind: object) -> bool:
    return get_origin(kind) is tuple


def _tuple_hook(kind: Any) -> Callable[[Any, Any], Any]:
    """A tuple comes from an array, and not from anything else that can be iterated over."""
    structure = _converter.get_structure_hook(list[get_args(kind)[0]])  # type: ignore[misc]  # a type at run time

    def check(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise _WrongError(f"expected a list of strings, got {value!r:.60}")
        return tuple(structure(value, list))

    return check


_converter.register_structure_hook_factory(_is_tuple, _tuple_hook)


def _peer_hook(_: Any) -> Callable[[Any, Any], Peer]:
    structure = make_dict_structure_fn(Peer, _converter)

    def check(value: Any, kind: Any) -> Peer:
        peer: Peer = structure(value, kind)
        if peer.title != ANY_TITLE:
            try:
                peer = attrs.evolve(peer, title=check_ae_title(peer.title))
            except LocalProtocolError as error:
                raise _WrongError(str(error), key="title") from error
        elif not peer.networks:
            raise _WrongError(
                'title "*" needs networks', "[access] default is for all others", "title"
            )
        if (peer.host is None) != (peer.port is None):
            missing, there = ("host", "port") if peer.host is None else ("port", "host")
            raise _WrongError(
                f"{there} without {missing}",
                f"add {missing}, or leave both out for a peer that only calls",
                there,
            )
        if not peer.networks and "networks" in value:
            raise _WrongError(
                "networks is empty",
                "leave it out for a peer that calls from every address",
                "networks",
            )
        if "certificate" in value and not peer.certificate.strip():
            raise _WrongError(
                "certificate is empty", "leave it out, or write a name or a SHA-256", "certificate"
            )
        if peer.title == ANY_TITLE and peer.host is not None:
            raise _WrongError('title "*" cannot be called', "leave out host and port", "host")
        return peer

    return check


_converter.register_structure_hook_factory(lambda kind: kind is Peer, _peer_hook)


# -- reading -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A file that has been read, with what is needed to say where something stands in it.

    Attributes:
        path: The file, as it was named.
        config: What it says.
        given: The path of the key for each option that the file sets.
    """

    path: str
    config: Config
    given: Mapping[str, _Path]
    lines: Mapping[_Path, int]

    def mistake(self, option: str, text: str, hint: str = "") -> Mistake:
        """A mistake in the value of an option that the file sets."""
        where = self.given[option]
        return Mistake(f"{_named(where)}: {text}", hint, _line(self.lines, where))


def read(path: str, place: Path | None = None) -> Source:
    """Read a configuration file.

    Args:
        path: The file, as it is called in messages.
        place: Where the file is; None means ``path``.

    Raises:
        ConfigurationError: It cannot be read, or is wrong.
    """
    try:
        with (place or Path(path)).open("rb") as file:
            octets = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(path, [Mistake(str(error.strerror))]) from error
    if len(octets) > _LARGEST:
        raise ConfigurationError(
            path, [Mistake(f"is too large; expected a file of at most {_LARGEST:,} octets")]
        )
    try:
        text = octets.decode("utf-8-sig")
        document = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigurationError(
            path, [Mistake("arrays or tables are nested too deeply", "see https://toml.io")]
        ) from error
    except ValueError as error:  # of tomllib, of a decoder, or of a number with too many digits
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(found[1]) if found is not None else 0
        raise ConfigurationError(
            path, [Mistake(str(error), "see https://toml.io", line)]
        ) from error
    lines = lines_of(text)
    mistakes: list[Mistake] = []

    def wrong(where: _Path, text: str, hint: str = "") -> None:
        mistakes.append(Mistake(f"{_named(where)}: {text}", hint, _line(lines, where)))

    tables, former = _in_tables(document, wrong)
    config = Config()
    try:
        config = _converter.structure(tables, Config)
    except BaseValidationError as error:
        _tell(error, (), former, wrong)
    if not mistakes:
        _check_peers(config, wrong)
    if mistakes:
        raise ConfigurationError(path, mistakes)
    given = {
        option: former.get((table, field), (table, field))
        for option, (table, field, _) in _FIELDS.items()
        if field in tables.get(table, {})
    }
    given |= {name: (name,) for name in ("peer", "access") if name in document}
    return Source(path, config, given, lines)


_Wrong = Callable[..., None]


def _in_tables(
    document: Mapping[str, Any], wrong: _Wrong
) -> tuple[dict[str, Any], dict[_Path, _Path]]:
    """Move the keys of former versions into the tables.

    Returns:
        The tables, and the former path of each key that was moved.
    """
    tables: dict[str, Any] = {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in document.items()
        if key not in _FIELDS or isinstance(value, dict)
    }
    former: dict[_Path, _Path] = {}
    for key, value in document.items():
        if key in tables or key not in _FIELDS:
            continue
        table, field, is_negated = _FIELDS[key]
        inside = tables.setdefault(table, {})
        if not isinstance(inside, dict):
            continue  # which is told as a mistake of the table
        if field in inside:
            wrong(
                (key,), f"is given twice, here and as {_named((table, field))}", "keep one of them"
            )
            continue
        former[table, field] = (key,)
        inside[field] = not value if is_negated and isinstance(value, bool) else value
    peers = tables.get("peer")
    if isinstance(peers, list) and not any(isinstance(each, dict) for each in peers):
        tables["addresses"] = tables.pop("peer")
        former["addresses",] = ("peer",)
    return tables, former


def _tell(error: Exception, path: _Path, former: Mapping[_Path, _Path], wrong: _Wrong) -> None:
    """Tell each mistake of an error of cattrs."""
    here = _former(path, former)
    if isinstance(error, ClassValidationError | IterableValidationError):
        inside, others = error.group_exceptions()
        for inner, note in inside:
            key = note.index if isinstance(note, IterableValidationNote) else note.name
            _tell(inner, (*path, key), former, wrong)
        for inner in others:
            _tell(inner, path, former, wrong)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [each.name for each in attrs.fields(error.cl) if each.name != "addresses"]
        known += _FIELDS if error.cl is Config else ()
        for key in sorted(error.extra_fields):
            wrong((*path, key), "is not a known key", _nearest(key, known))
    elif isinstance(error, KeyError):  # a field without a default
        wrong(path[:-1], f"has no {error.args[0]}", f"add {error.args[0]} = …")
    elif isinstance(error, _WrongError):
        wrong((*here, error.key) if error.key else here, str(error), error.hint)
    else:  # a value where a table belongs
        wrong(here, "expected a table", f"write [{path[0]}] on a line of its own")


def _former(path: _Path, former: Mapping[_Path, _Path]) -> _Path:
    """The path in the file of a path in the tables."""
    for length in range(len(path), 0, -1):
        if path[:length] in former:
            return (*former[path[:length]], *path[length:])
    return path


def _check_peers(config: Config, wrong: _Wrong) -> None:
    """Check what concerns several peers."""
    seen: set[str] = set()
    shared: set[Network] = set()
    callable_ = {peer.title for peer in config.peer if peer.host is not None}
    for index, peer in enumerate(config.peer):
        for number, each in enumerate(peer.networks if peer.title == ANY_TITLE else ()):
            if each in shared:
                wrong(
                    ("peer", index, "networks", number),
                    f'another peer "*" has the network {each} too',
                    "join them",
                )
            shared.add(each)
        if peer.title in seen:
            wrong(
                ("peer", index, "title"),
                f"another peer has the AE title {peer.title} too",
                "join them",
            )
        if peer.title != ANY_TITLE:
            seen.add(peer.title)
        for title in peer.move_to or ():
            if title not in callable_:
                wrong(
                    ("peer", index, "move_to"),
                    f"{title} is not a peer with host and port",
                    _nearest(title, callable_) or "add one",
                )


# -- lines -------------------------------------------------------------------------------------------

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_KEYS = re.compile(rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*")
_HEADER = re.compile(r"(\[\[?)[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_VALUE = re.compile(
    r"\"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2}|'''.*?''''{0,2}"
    r"|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|#[^\n]*|(?P<open>[\[{])|(?P<close>[\]}])|(?P<end>\n)"
    r"|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)


def lines_of(text: str) -> dict[_Path, int]:
    """The line of each table and key in a text that is TOML; tomllib does not tell it."""
    lines: dict[_Path, int] = {}
    counts: dict[_Path, int] = {}  # how many elements an array of tables has
    table: _Path = ()
    at = counted = 0
    line = 1
    while at < len(text):
        blank = _BLANK.match(text, at)
        if blank is not None:
            at = blank.end()
            continue
        line += text.count("\n", counted, at)
        counted = at
        header = _HEADER.match(text, at)
        keys = _KEYS.match(text, header.end() if header is not None else at)
        if keys is None:
            break  # tomllib has accepted something that is not known here; the lines above are right
        path = table if header is None else ()
        for key in re.findall(_KEY, keys[0]):
            path = (*path, key.strip("\"'"))
            if header is not None and path in counts and path != _plain_path(keys[0]):
                path = (*path, counts[path] - 1)
        if header is None:
            lines.setdefault(path, line)
            at = _after_value(text, text.index("=", keys.end()) + 1)
            continue
        if header[1] == "[[":
            lines.setdefault(path, line)
            counts[path] = counts.get(path, 0) + 1
            path = (*path, counts[path] - 1)
        lines.setdefault(path, line)
        table = path
        at = text.find("\n", keys.end()) + 1 or len(text)
    return lines


def _plain_path(keys: str) -> _Path:
    return tuple(each.strip("\"'") for each in re.findall(_KEY, keys))


def _after_value(text: str, at: int) -> int:
    """The position behind the line in which a value ends."""
    depth = 0
    while at < len(text):
        token = _VALUE.match(text, at)
        if token is None:
            return len(text)
        at = token.end()
        depth += (token["open"] is not None) - (token["close"] is not None)
        if token["end"] is not None and not depth:
            break
    return at


def _line(lines: Mapping[_Path, int], path: _Path) -> int:
    """The line of a key, or of the nearest table around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 0


def _named(path: _Path) -> str:
    """A key as an operator knows it: ``[node] aet``, ``[[peer]] 2 port``, ``max-associations``."""
    (first, *rest) = path
    words = [f"entry {each + 1}" if isinstance(each, int) else each for each in rest]
    if first == "peer" and rest and isinstance(rest[0], int):
        return " ".join([f"[[peer]] {rest[0] + 1}", *words[1:]])
    if first in TABLES and rest:
        return " ".join([f"[{first}]", *words])
    return " ".join([str(first), *words])
