"""The tables of a configuration file: a class for each.

To add a table, write its class, and add it to :class:`Config` and :data:`TABLES`: unknown keys, types and lines are
then taken care of. A field that an option of ``twistd dicom`` sets, too, names it with :func:`_option`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import attrs

from ..access import EVERYTHING, Access, Network, Permission, Profile, Rule
from ..amounts import Amount
from ..archive import Duplicates
from ..archive.index.engine import Settings
from ..archive.retention import Rules
from ..archive.store.fetching import PARALLEL
from ..archive.store.s3 import S3Options
from ..archive.store.sharedstore import Durability
from ..exceptions import LocalProtocolError
from ..identity import Identities, JSONWebTokens, PasswordFile, UnfitKeyError, UserNames
from ..log_output import LogFormat
from ..logs import Level, LogUIDs
from ..quirks import Quirks
from .kinds import (
    Addressing,
    AtLeast0,
    AtLeast1,
    Checksum,
    Clients,
    DatabaseURL,
    Days,
    Default,
    Directory,
    Encryption,
    Endpoint,
    HostName,
    HTTPServer,
    Octets,
    Parallel,
    PathName,
    PDULength,
    PeerHost,
    PeerName,
    Port,
    ProfileName,
    Seconds,
    StoreURL,
    Syntax,
    Syslog,
    Title,
)
from .lines import Where

__all__ = ["FIELDS", "SECRETS", "SECRET_FILES", "TABLES", "Config", "Peer", "key_of", "named"]


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
        workers: How many processes serve associations.
        log_level: Log lines from this level on are written: ``"debug"``, ``"info"``, ``"warn"`` or ``"error"``.
        log_format: The form of the log lines: ``"text"``, or ``"json"`` for one JSON object a line.
        proxy_protocol: Whether a proxy tells by the PROXY protocol who calls.
        proxies: The addresses, or networks in CIDR notation, of the proxies that are trusted.
        drain: How many seconds the node still serves new associations when it is told to stop, while it says that it
            is not ready.
        name: The name of the node in its group, which no other node has; by default, its host and directory.
    """

    aet: Title = attrs.field(default=Title("NETDICOM"), metadata=_option("aet"))
    listen: tuple[Endpoint, ...] = attrs.field(default=(), metadata=_option("listen"))
    tls_listen: tuple[Endpoint, ...] = attrs.field(default=(), metadata=_option("tls-listen"))
    max_associations: AtLeast1 = attrs.field(
        default=AtLeast1(100), metadata=_option("max-associations")
    )
    max_associations_per_host: AtLeast1 = attrs.field(
        default=AtLeast1(20), metadata=_option("max-associations-per-host")
    )
    log_uids: LogUIDs = attrs.field(default=LogUIDs.PLAIN, metadata=_option("log-uids"))
    max_associations_per_title: AtLeast1 | None = attrs.field(
        default=None, metadata=_option("max-associations-per-title")
    )
    workers: AtLeast1 = attrs.field(default=AtLeast1(1), metadata=_option("workers"))
    log_level: Level = attrs.field(default=Level.INFO, metadata=_option("log-level"))
    log_format: LogFormat = attrs.field(default=LogFormat.TEXT, metadata=_option("log-format"))
    proxy_protocol: bool = False
    proxies: tuple[Network, ...] = ()
    drain: Seconds = attrs.field(default=Seconds(0))
    name: str = ""


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
        reserve: How much of the disk is left free, such as ``"10 GiB"`` or ``"5 %"``; without it, 5 % of the disk, and
            at most 1 GiB.
        url: A store that several nodes share: ``"s3://bucket/prefix"`` or ``"file:///mnt/shared"``. The directory is
            then the node's own.
        durability: When an instance is acknowledged: when it is in the shared store (``"shared"``), or when it is in
            the journal of the node (``"node"``).
        cache: How much of the shared store is kept in the directory of the node, such as ``"20 GB"``.
        parallel: How many instances are put into the shared store, or read from it, at a time.
    """

    directory: PathName = attrs.field(
        default=PathName("netdicom-archive"), metadata=_option("storage")
    )
    duplicates: Duplicates = attrs.field(default=Duplicates.KEEP, metadata=_option("duplicates"))
    fsync: bool = attrs.field(default=True, metadata=_option("no-fsync", is_negated=True))
    unknown_sop_classes: bool = attrs.field(default=False, metadata=_option("unknown-sop-classes"))
    scrub: AtLeast0 = attrs.field(default=AtLeast0(1), metadata=_option("scrub"))
    reserve: Amount | None = None
    url: StoreURL | None = attrs.field(default=None, metadata=_option("storage-url"))
    durability: Durability | None = attrs.field(default=None, metadata=_option("durability"))
    cache: Octets | None = attrs.field(default=None, metadata=_option("cache"))
    parallel: Parallel = attrs.field(default=Parallel(PARALLEL))


@attrs.frozen(kw_only=True)
class S3:
    """``[s3]``: how the bucket of ``[storage] url`` is reached (extra ``s3``).

    Attributes:
        endpoint: The URL of the server; without it, Amazon's of the region.
        region: The region of the bucket; without it, that of ``AWS_REGION``, or ``us-east-1``.
        access_key: The access key; without it, that of the environment, of ``~/.aws/credentials`` or of the machine.
        secret_key: The secret key that belongs to it.
        secret_key_file: A file that holds the secret key.
        addressing: Where a request has the bucket: in the ``"path"``, or in the host name (``"virtual"``).
        encryption: How the server encrypts: ``"AES256"``, ``"aws:kms"`` or ``"aws:kms:dsse"``.
        kms_key: The key for ``"aws:kms"``.
        checksum: The checksum that is sent with each part: ``"sha256"``, ``"crc64nvme"`` or ``"none"``.
        authorities: The PEM file of the authorities that may have signed the certificate of the server, too.
        timeout: How many seconds a request may take; one that fails is repeated for up to 10 s.
    """

    endpoint: HTTPServer | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = attrs.field(default=None, repr=False)
    secret_key_file: str | None = None
    addressing: Addressing = attrs.field(default=Addressing("path"))
    encryption: Encryption | None = None
    kms_key: str | None = None
    checksum: Checksum = attrs.field(default=Checksum("sha256"))
    authorities: str | None = None
    timeout: AtLeast1 = attrs.field(default=AtLeast1(30))

    def options(self) -> S3Options:
        """The same for the store."""
        return S3Options(
            endpoint=self.endpoint or "",
            region=self.region or "",
            access_key=self.access_key or "",
            secret_key=self.secret_key or "",
            is_virtual=self.addressing == "virtual",
            encryption=self.encryption or "",
            kms_key=self.kms_key or "",
            checksum="" if self.checksum == "none" else self.checksum,
            authorities=self.authorities or "",
            timeout=float(self.timeout),
        )


@attrs.frozen(kw_only=True)
class Retention:
    """``[retention]``: which studies the node deletes, and which stay.

    Attributes:
        max_age: How many days after it was received a study is deleted; without it, age does not matter.
        max_study_age: How many days after its Study Date a study is deleted; with both ages, when both have passed.
        quota: How large the archive may become, such as ``"500 GB"``, or how much of its disk may be used, such as
            ``"80 %"``; the studies that were received first are then deleted.
        protect_calling: The calling AE titles whose studies are never deleted by a rule.
        protect_called: The called AE titles to which studies were sent that are never deleted by a rule.
    """

    max_age: Days | None = None
    max_study_age: Days | None = None
    quota: Amount | None = None
    protect_calling: tuple[Title, ...] = ()
    protect_called: tuple[Title, ...] = ()

    def rules(self) -> Rules:
        """The rules that a node applies."""
        return Rules(
            max_age=self.max_age,
            max_study_age=self.max_study_age,
            quota=self.quota,
            protect_calling=self.protect_calling,
            protect_called=self.protect_called,
        )


@attrs.frozen(kw_only=True)
class Database:
    """``[database]``: the index.

    Attributes:
        url: The SQLAlchemy URL; without it, SQLite with ``index.db`` in the storage directory.
        url_file: A file that holds the URL, because the URL holds a password.
        match_unknown: Whether attributes without a value match every key of a query (PS3.4 C.2.2.1.2).
        statement_timeout: After how many seconds PostgreSQL ends a statement; 0 means never.
        lock_timeout: After how many seconds it ends a statement that waits for others; 0 means never.
        idle_timeout: After how many seconds it ends a transaction in which nothing happens; 0 means never.
    """

    url: DatabaseURL | None = attrs.field(default=None, metadata=_option("database"))
    url_file: str | None = None
    match_unknown: bool = attrs.field(default=False, metadata=_option("match-unknown"))
    statement_timeout: Seconds = attrs.field(default=Seconds(60))
    lock_timeout: Seconds = attrs.field(default=Seconds(15))
    idle_timeout: Seconds = attrs.field(default=Seconds(300))

    def settings(self, name: str) -> Settings:
        """What connections to the server are set to.

        Args:
            name: The name of the node.
        """
        return Settings(
            statement_timeout=float(self.statement_timeout),
            lock_timeout=float(self.lock_timeout),
            idle_timeout=float(self.idle_timeout),
            application=f"netdicom {name}",
        )


@attrs.frozen(kw_only=True)
class Limits:
    """``[limits]``: what one operation may take.

    Attributes:
        move_associations: How many associations a C-MOVE opens to its destination at the same time.
    """

    move_associations: AtLeast1 = attrs.field(
        default=AtLeast1(1), metadata=_option("move-associations")
    )


@attrs.frozen(kw_only=True)
class TLS:
    """``[tls]``: the fields of :class:`~netdicom_tx.TLSOptions`, for both roles.

    Attributes:
        certificate: The PEM file of the node's certificate, with its chain.
        key: The PEM file of the private key; without it, the file of the certificate.
        key_password: The password of an encrypted private key.
        key_password_file: A file that holds the password.
        authorities: The PEM file of the authorities by which peers are trusted.
        clients: Certificates of peers that call: ``"required"``, ``"optional"`` or ``"none"``.
        profile: The TLS profile.
        fingerprints: The SHA-256 of the certificates that are trusted, whatever the authorities are.
        more_certificates: Certificates for peers that call by a name in them (SNI).
    """

    certificate: str | None = attrs.field(default=None, metadata=_option("tls-certificate"))
    key: str | None = attrs.field(default=None, metadata=_option("tls-key"))
    key_password: str | None = attrs.field(default=None, repr=False)
    key_password_file: str | None = None
    authorities: str | None = attrs.field(default=None, metadata=_option("tls-authorities"))
    clients: Clients | None = attrs.field(default=None, metadata=_option("tls-clients"))
    profile: ProfileName | None = attrs.field(default=None, metadata=_option("tls-profile"))
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

    directory: Directory | None = attrs.field(default=None, metadata=_option("worklist"))
    forward_mpps: tuple[Title, ...] = attrs.field(default=(), metadata=_option("forward-mpps"))
    notify_mpps: tuple[Title, ...] = attrs.field(default=(), metadata=_option("notify-mpps"))
    notify_availability: tuple[Title, ...] = attrs.field(
        default=(), metadata=_option("notify-availability")
    )


def _refuse(_: str, text: str) -> None:
    raise LocalProtocolError(text)


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

    default: Default = attrs.field(default=Default(EVERYTHING))
    strict_peers: bool = attrs.field(default=False, metadata=_option("strict-peers"))
    require_identity: bool = False
    password_file: str | None = None
    users: tuple[str, ...] = ()
    jwt_key_file: str | None = None
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwt_audience: str | None = None
    jwt_issuer: str | None = None

    def identities(self, wrong: Callable[[str, str], object] = _refuse) -> Identities | None:
        """The checkers of users; None without any.

        Args:
            wrong: Called with each key whose value cannot be used, and why.

        Raises:
            LocalProtocolError: A value cannot be used, and ``wrong`` is not given.
        """
        checkers: list[Any] = []
        if self.password_file is not None:
            try:
                checkers.append(PasswordFile(Path(self.password_file).absolute()))
            except LocalProtocolError as error:
                wrong("password_file", str(error))
        if self.users:
            checkers.append(UserNames(self.users))
        if self.jwt_key_file is not None:
            try:
                key = Path(self.jwt_key_file).read_bytes().strip()
                if not key:
                    wrong("jwt_key_file", f"{self.jwt_key_file} is empty")
                else:
                    checkers.append(
                        JSONWebTokens(
                            key,
                            self.jwt_algorithms,
                            audience=self.jwt_audience,
                            issuer=self.jwt_issuer,
                        )
                    )
            except OSError as error:
                wrong("jwt_key_file", f"{self.jwt_key_file}: {error.strerror}")
            except UnfitKeyError as error:
                wrong("jwt_key_file", f"{self.jwt_key_file}: {error}")
            except LocalProtocolError as error:
                wrong("jwt_algorithms", str(error))
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
        window: How many operations may be outstanding at once with it; 1 means that none is negotiated.
        max_pdu: The largest P-DATA-TF that it gets or may send, in octets.
        transfer_syntaxes: The only transfer syntaxes that are proposed to it or accepted from it, as UIDs or keywords.
        name: What the ``netdicom`` commands call it; by default, its AE title in any case.
    """

    title: str
    host: PeerHost | None = None
    port: Port | None = None
    tls: bool = False
    networks: tuple[Network, ...] = ()
    allow: tuple[Permission, ...] | None = None
    move_to: tuple[Title, ...] | None = None
    certificate: str = ""
    require_identity: bool | None = None
    window: AtLeast1 | None = None
    max_pdu: PDULength | None = None
    transfer_syntaxes: tuple[Syntax, ...] = ()
    name: PeerName | None = None

    @property
    def quirks(self) -> Quirks:
        """What is agreed on with it, whatever the node would negotiate."""
        syntaxes = tuple(map(str, self.transfer_syntaxes))
        return Quirks(window=self.window, max_pdu=self.max_pdu, transfer_syntaxes=syntaxes)

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
    syslog: tuple[Syslog, ...] = attrs.field(default=(), metadata=_option("audit-syslog"))


@attrs.frozen(kw_only=True)
class Http:
    """``[http]``: the status page (extra ``web``).

    Attributes:
        listen: The Twisted endpoint that it is served at, such as ``"tcp:8042:interface=127.0.0.1"``; without it,
            there is no page.
        users_file: The password file of its users; ``netdicom passwd`` writes it.
        operators: The users who may use the buttons, while the others only look; without it, all may use them.
        allow_anonymous: Whether everybody who can reach the page may see patient data and use its buttons.
        hosts: The names under which the page is visited, apart from ``localhost`` and addresses.
        title: What the page is called; without it, the AE title.
    """

    listen: Endpoint | None = attrs.field(default=None, metadata=_option("http"))
    users_file: str | None = attrs.field(default=None, metadata=_option("http-users"))
    operators: tuple[str, ...] = attrs.field(default=(), metadata=_option("http-operator"))
    allow_anonymous: bool = attrs.field(default=False, metadata=_option("http-anonymous"))
    hosts: tuple[HostName, ...] = attrs.field(default=(), metadata=_option("http-host"))
    title: str | None = attrs.field(default=None, metadata=_option("http-title"))


@attrs.frozen(kw_only=True)
class Config:
    """A whole file.

    Attributes:
        peer: The peers that have a table.
        addresses: The peers of former versions, as ``AET@host:port``; a file has these or tables.
    """

    node: Node = attrs.field(factory=Node)
    storage: Storage = attrs.field(factory=Storage)
    s3: S3 = attrs.field(factory=S3)
    retention: Retention = attrs.field(factory=Retention)
    database: Database = attrs.field(factory=Database)
    limits: Limits = attrs.field(factory=Limits)
    tls: TLS = attrs.field(factory=TLS)
    worklist: Worklist = attrs.field(factory=Worklist)
    audit: Audit = attrs.field(factory=Audit)
    access: AccessTable = attrs.field(factory=AccessTable)
    http: Http = attrs.field(factory=Http)
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
    "s3": S3,
    "retention": Retention,
    "database": Database,
    "limits": Limits,
    "tls": TLS,
    "worklist": Worklist,
    "audit": Audit,
    "access": AccessTable,
    "http": Http,
}


def _options_of(table: type) -> Iterable[tuple[str, str, bool]]:
    """The fields of a table that options set: field, option, whether it is negated."""
    for each in attrs.fields(table):
        if "option" in each.metadata:
            yield each.name, each.metadata["option"], each.metadata["is_negated"]


#: Where each option is in the tables: the table, the field, and whether the option means the contrary.
FIELDS: Final = {
    option: (name, field, is_negated)
    for name, kind in TABLES.items()
    for field, option, is_negated in _options_of(kind)
}

#: The keys that name the file of a secret, and the key that they stand for.
SECRET_FILES: Final = {
    ("database", "url_file"): "url",
    ("tls", "key_password_file"): "key_password",
    ("s3", "secret_key_file"): "secret_key",
}
# What excludes each other: a secret and the name of its file.
SECRETS: Final = {
    (table, one): other
    for (table, key), secret in SECRET_FILES.items()
    for one, other in ((key, secret), (secret, key))
}


def key_of(option: str) -> str:
    """The key that an option sets, as an operator knows it: ``[node] log_level``; the option when there is none."""
    if option not in FIELDS:
        return option
    table, field, _ = FIELDS[option]
    return named((table, field))


def named(path: Where) -> str:
    """A key as an operator knows it: ``[node] aet``, ``[[peer]] 2 port``, ``max-associations``."""
    (first, *rest) = path
    words = [f"entry {each + 1}" if isinstance(each, int) else _bare(each) for each in rest]
    if first == "peer" and rest and isinstance(rest[0], int):
        return " ".join([f"[[peer]] {rest[0] + 1}", *words[1:]])
    if first in TABLES and rest:
        return " ".join([f"[{first}]", *words])
    return " ".join([_bare(str(first)), *words])


def _bare(key: str) -> str:
    """A key as TOML has it, in quotes when it has other characters than letters."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
