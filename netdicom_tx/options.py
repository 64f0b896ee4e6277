"""The options of ``twistd dicom``, and the configuration file that they name."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.python import usage

from .access import Access
from .amounts import Amount
from .applicationentity import RemoteAE
from .archive import Duplicates
from .archive.shared import MOST_WORKERS
from .archive.store.objects import check_url
from .archive.store.plan import StorePlan
from .archive.store.sharedstore import Durability
from .audit_trails import check_syslog
from .config import EX_CONFIG, TABLES, Config, ConfigurationError, Mistake, Source, read_leniently
from .endpoints import may_be_public, place_of, server_endpoint
from .exceptions import LocalProtocolError
from .identity import Identities
from .log_output import LogFormat
from .logs import Level, LogUIDs
from .passwords import read_passwords
from .pdu import check_ae_title
from .tls import TLSOptions

__all__ = ["CONFIG_VARIABLE", "Options", "part_of"]

#: The variable that names the configuration file when ``--config`` does not.
CONFIG_VARIABLE = "NETDICOM_CONFIG"

DEFAULT_LISTEN = "tcp:11112:interface=127.0.0.1"
# The prefix of the address of a peer that is called over TLS.
_TLS_SCHEME = "dicoms://"
# Options that may be repeated, apart from those with a meaning of their own.
_LISTS = (
    "tls-listen",
    "tls-fingerprint",
    "tls-more-certificate",
    "audit-syslog",
    "http-host",
    "http-operator",
)
# Options that name peers.
_TITLES = ("forward-mpps", "notify-mpps", "notify-availability")
# Options whose values are whole numbers, with the least one.
_NUMBERS = {
    "max-associations": 1,
    "max-associations-per-host": 1,
    "max-associations-per-title": 1,
    "move-associations": 1,
    "scrub": 0,
    "workers": 1,
}
# The kinds of endpoints whose connections a process can give to another one.
_HANDED_ON = ("tcp", "tcp6", "unix", "systemd")
# Options whose values are words.
_WORDS: dict[str, type[Enum]] = {
    "duplicates": Duplicates,
    "log-uids": LogUIDs,
    "log-level": Level,
    "log-format": LogFormat,
}
# The fields of TLSOptions that options set.
_TLS_FIELDS = {
    "tls-certificate": "certificate",
    "tls-key": "key",
    "tls-authorities": "trust",
    "tls-clients": "clients",
    "tls-profile": "profile",
    "tls-fingerprint": "fingerprint",
    "tls-more-certificate": "more_certificates",
}


# Limits of all associations, of which each worker has a part.
_DIVIDED = ("max-associations", "max-associations-per-title")


def part_of(total: int, number: int, workers: int) -> int:
    """The part of a worker, from 1 on, in a limit that all of them have together."""
    return total // workers + (number <= total % workers)


class Options(usage.Options):
    """The options of ``twistd dicom``."""

    synopsis = "[twistd options] dicom [options]"
    longdesc = (
        "A DICOM archive node. Without options it serves on 127.0.0.1, port 11112, as NETDICOM, "
        "and keeps what it receives in ./netdicom-archive. Open it to the network with "
        "--listen tcp:11112"
    )
    optParameters: ClassVar[list[list[Any]]] = [
        ["aet", "a", "NETDICOM", "The node's own AE title, 1 to 16 characters."],
        [
            "storage",
            "s",
            "netdicom-archive",
            "Keep received instances in this directory, which is created if it does not exist.",
        ],
        [
            "storage-url",
            None,
            None,
            "Keep instances in a store that several nodes share, s3://bucket/prefix or file:///mnt/shared; the storage "
            "directory is then the node's own. Needs PostgreSQL.",
        ],
        [
            "durability",
            None,
            None,
            "When an instance of a shared store is acknowledged: when it is there (shared), or when it is in the "
            "journal of the node (node). [default: shared]",
        ],
        [
            "cache",
            None,
            None,
            "How much of a shared store is kept in the storage directory, such as 20GB. [default: nothing]",
        ],
        [
            "database",
            None,
            None,
            "The SQLAlchemy URL of the index. [default: SQLite, index.db in the storage directory]",
        ],
        [
            "audit",
            None,
            None,
            "Append audit messages (PS3.15 A.5) to this file. They name patients; only the owner can read it.",
        ],
        [
            "worklist",
            "w",
            None,
            "Serve the worklist files (.wl) in this directory; changes take effect at once.",
        ],
        [
            "max-associations",
            "m",
            100,
            "How many associations may be open at the same time. At the limit an idle one is aborted for the next; "
            "if none is idle, the next is rejected as transient.",
        ],
        [
            "max-associations-per-host",
            None,
            20,
            "How many associations one host may have open; this machine's own addresses are exempt.",
        ],
        [
            "max-associations-per-title",
            None,
            None,
            "How many associations may be open with one calling AE title. [default: as many as there are]",
        ],
        [
            "workers",
            None,
            1,
            "How many processes serve associations; with more than one, the node uses as many cores.",
        ],
        ["tls-certificate", None, None, "PEM file of the node's certificate, with its chain."],
        [
            "tls-key",
            None,
            None,
            "PEM file of the private key. [default: in the file of the certificate]",
        ],
        [
            "tls-authorities",
            None,
            None,
            "PEM file of the authorities, or of self-signed certificates, by which peers are trusted.",
        ],
        [
            "tls-clients",
            None,
            None,
            "Certificates of peers that call: required, optional or none. "
            "[default: required with --tls-authorities or --tls-fingerprint, else none]",
        ],
        [
            "tls-profile",
            None,
            None,
            "The TLS profile: bcp195, bcp195-modified, bcp195-nondowngrading or bcp195-extended. "
            "[default: bcp195]",
        ],
        [
            "move-associations",
            None,
            1,
            "How many associations a C-MOVE opens to its destination at the same time.",
        ],
        [
            "duplicates",
            "d",
            "keep",
            "What to do when another data set with the same SOP Instance UID arrives: keep the first and "
            "answer 0x0111 (keep), replace it (replace), or keep the new one aside (keep-both; see netdicom "
            "versions).",
        ],
        [
            "scrub",
            None,
            1,
            "How many MiB of stored files the node reads in a second to compare them with their digests; it logs "
            "those that are damaged. 0 turns this off.",
        ],
        [
            "log-uids",
            None,
            "plain",
            "How UIDs appear in the log: as they are (plain), or as short digests (digest).",
        ],
        [
            "http",
            None,
            None,
            "Serve the status page at this Twisted endpoint, such as tcp:8042:interface=127.0.0.1.",
        ],
        [
            "http-users",
            None,
            None,
            "The password file of the users of the status page; netdicom passwd writes it.",
        ],
        ["http-title", None, None, "What the status page is called. [default: the AE title]"],
        [
            "log-level",
            None,
            "info",
            "Log lines from this level on: debug, info, warn or error.",
        ],
        [
            "log-format",
            None,
            "text",
            "The form of the log lines: text, or json for one JSON object a line. twist has an option of its own.",
        ],
    ]
    optFlags: ClassVar[list[list[Any]]] = [
        ["unknown-sop-classes", "u", "Also keep instances of private and unknown SOP classes."],
        [
            "match-unknown",
            None,
            "Let attributes without a value match every key of a query (PS3.4 C.2.2.1.2).",
        ],
        [
            "no-fsync",
            None,
            "Do not sync files to the disk: faster, but a power cut may lose instances.",
        ],
        ["strict-peers", None, "Serve only the peers named by --peer, and only under --aet."],
        [
            "http-anonymous",
            None,
            "Let everybody who can reach the status page see patient data and use its buttons.",
        ],
    ]

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._from_file: set[str] = set()
        self._on_command_line: frozenset[str] = frozenset()
        self._is_wrong = False
        self._arguments: list[str] = []
        self._source: Source | None = None
        self._mistakes: list[Mistake] = []
        #: Whether the options are read as far as they can be; all mistakes of the file are raised at the end.
        self.is_lenient = False
        #: The configuration file; None without one.
        self.config_path: Path | None = None
        #: What the file said earlier; None reads it.
        self.config_text: str | None = None
        #: The number of the worker that these options are for, and how many there are; None for the whole node.
        self.part: tuple[int, int] | None = None
        #: What the file says; the defaults without a file.
        self.configured = Config()
        #: What the file said when the node was started.
        self.begun = Config()
        #: Who may do what.
        self.access = Access()
        #: The checkers of users; None when users are not checked.
        self.identities: Identities | None = None
        #: The AE titles of all peers.
        self.titles: frozenset[str] = frozenset()
        super().__init__()  # type: ignore[no-untyped-call]
        self["listen"] = []
        for name in _LISTS:
            self[name] = []
        self["peer"] = []
        for name in _TITLES:
            self[name] = []
        self._given.clear()

    def __setitem__(self, name: str, value: object) -> None:
        # Every option that is set while options are parsed was given, even if it equals the default.
        self._given.add(name)
        super().__setitem__(name, value)

    def parseOptions(self, options: Any = None) -> None:
        """Read the command line and the configuration file.

        Raises:
            UsageError: The command line is wrong.
            SystemExit: The configuration file is wrong; its mistakes are printed, and the status is 78.
        """
        try:
            self.parse(options)
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(EX_CONFIG) from error

    def parse(self, options: Any = None) -> None:
        """As :meth:`parseOptions`, but a wrong file raises ConfigurationError."""
        self._arguments = list(sys.argv[1:] if options is None else options)
        try:
            super().parseOptions(self._arguments)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            self._is_wrong = True
            unknown = _UNKNOWN_OPTION.fullmatch(str(error))
            known = [each.rstrip("=") for each in self.longOpt]
            near = difflib.get_close_matches(unknown[1], known, 1) if unknown is not None else []
            if near:
                raise usage.UsageError(f"{error}; did you mean --{near[0]}?") from error
            raise

    @property
    def is_access_configured(self) -> bool:
        """Whether the operator has decided what unknown peers may do."""
        source = self._source
        return bool(self["strict-peers"]) or (source is not None and "access" in source.given)

    def effective(self) -> Iterator[tuple[str, str, Any, str]]:
        """Each key of a table with its value and where it comes from: ``"default"``, a variable, a place, an option."""
        for table, kind in TABLES.items():
            for each in attrs.fields(kind):
                value = getattr(getattr(self.configured, table), each.name)
                option = each.metadata.get("option")
                origin = self._source.origin(table, each.name) if self._source is not None else ""
                if option is not None:
                    value = self[option]
                    if each.metadata["is_negated"] or isinstance(each.default, bool):
                        value = bool(value) is not each.metadata["is_negated"]
                    if option in self._on_command_line:
                        origin = f"--{option}"
                yield table, each.name, value, origin or "default"

    def place_of_peer(self, index: int) -> str:
        """Where the table of a peer stands."""
        return self._source.place(("peer", index)) if self._source is not None else ""

    def getUsage(self, width: int | None = None) -> str:
        """The help text, or one line after a mistake, because twistd prints this before the error."""
        if self._is_wrong:
            return "twistd dicom --help shows the options.\n"
        text: str = super().getUsage(width)
        return text

    def opt_listen(self, endpoint: str) -> None:
        """Serve at this Twisted endpoint; may be repeated (default: tcp:11112:interface=127.0.0.1)."""
        self["listen"] = [*self["listen"], endpoint]

    opt_l = opt_listen

    def opt_tls_listen(self, endpoint: str) -> None:
        """Serve TLS at this Twisted endpoint, such as tcp:2762; may be repeated. Needs --tls-certificate."""
        self["tls-listen"] = [*self["tls-listen"], endpoint]

    def opt_tls_fingerprint(self, fingerprint: str) -> None:
        """Trust only peers whose certificate has this SHA-256, whatever the authorities are; may be repeated."""
        self["tls-fingerprint"] = [*self["tls-fingerprint"], fingerprint]

    def opt_tls_more_certificate(self, path: str) -> None:
        """Present this certificate to peers that call by a name in it (SNI); a PEM file with key; may be repeated."""
        self["tls-more-certificate"] = [*self["tls-more-certificate"], path]

    def opt_audit_syslog(self, address: str) -> None:
        """Send audit messages to this syslog server: tls://host:6514, tcp:// or udp://; may be repeated."""
        self["audit-syslog"] = [*self["audit-syslog"], address]

    def opt_http_host(self, name: str) -> None:
        """Serve the status page under this name, too, such as that of a reverse proxy; may be repeated."""
        self["http-host"] = [*self["http-host"], name]

    def opt_http_operator(self, user: str) -> None:
        """Let this user of the status page use its buttons, and the others only look; may be repeated."""
        self["http-operator"] = [*self["http-operator"], user]

    def opt_peer(self, peer: str) -> None:
        """Allow C-MOVE to send to this peer: AET@host:port, or dicoms://AET@host:port for TLS; may be repeated."""
        self["peer"] = [*self["peer"], peer]

    opt_p = opt_peer

    def opt_forward_mpps(self, title: str) -> None:
        """Forward each performed procedure step to the --peer with this AE title; may be repeated."""
        self["forward-mpps"].append(title)

    def opt_notify_mpps(self, title: str) -> None:
        """Notify the --peer with this AE title of each change of a performed procedure step; may be repeated."""
        self["notify-mpps"].append(title)

    def opt_notify_availability(self, title: str) -> None:
        """Notify the --peer with this AE title when all instances of a step are here; may be repeated."""
        self["notify-availability"].append(title)

    def opt_config(self, path: str) -> None:
        """Read this TOML file: tables such as [node] and [[peer]]; options on the command line win over it."""
        self["config"] = path

    opt_c = opt_config

    def _read_config(self) -> None:
        """Take the options that the file and the environment set and the command line does not.

        Raises:
            ConfigurationError: One of them is wrong.
        """
        path = self.get("config") or os.environ.get(CONFIG_VARIABLE) or None
        if path is not None and self.config_path is None:
            # The runner may change the directory before the file is read again.
            self.config_path = Path(path).absolute()
        if path is not None:
            self["config"] = path
        self._source = source = self._read_source(path)
        self.configured = self.begun = source.config
        values = source.config.options()
        for name in source.given.keys() & values.keys() - self._given:
            value = values[name]
            self[name] = list(map(str, value)) if isinstance(value, tuple) else value
            self._from_file.add(name)
        self._from_file |= source.given.keys() & {"access"}
        if "peer" in source.given:
            if "peer" not in self._given:
                self["peer"] = list(source.config.addresses)
                self._from_file.add("peer")
            elif source.config.peer:
                raise usage.UsageError(
                    f"--peer: {self['config']} has [[peer]] tables, which it would replace together with "
                    "their permissions; add the peer there"
                )

    def _read_source(self, path: str | None) -> Source:
        try:
            source, mistakes = read_leniently(
                path, self.config_path, os.environ, text=self.config_text
            )
        except ConfigurationError as error:
            if not self.is_lenient:
                raise
            source, mistakes = read_leniently(None, None, os.environ)
            source = replace(source, path=str(path))
            mistakes = [*error.mistakes, *mistakes]
        self._mistakes += mistakes
        return source

    def _lack(self, table: str, options: Iterable[str], text: str) -> None:
        """Note that packages are missing, which is wrong whoever has asked for them.

        Raises:
            UsageError: The file has not asked for them, and the options are not read as far as they can be.
        """
        assert self._source is not None
        line = next((self._source.line(each) for each in options if each in self._from_file), None)
        if line is None and not self.is_lenient:
            raise usage.UsageError(text)
        self._mistakes.append(Mistake(text, line=line or 0, key=(table,)))

    def _complain(self, option: str, text: str, in_file: str = "", hint: str = "") -> None:
        """Note a mistake of the file, to tell it with the others.

        Args:
            option: The option that is wrong.
            text: What is wrong, for the command line.
            in_file: What is wrong, without the name of the option.
            hint: What to write in the file.

        Raises:
            UsageError: The option does not come from the file.
        """
        if self._source is None or option not in self._from_file:
            raise usage.UsageError(text)
        self._mistakes.append(self._source.mistake(option, in_file or text, hint))

    def postOptions(self) -> None:
        self._on_command_line = frozenset(self._given)
        self._read_config()
        self._check_values()
        self["tls"] = self._tls()
        self["peers"] = self._peers()
        titles = {*self["peers"], *(each.title for each in self.configured.peer)}
        if self._is_right("peer", "addresses"):
            self._check_titles(titles)
        self._check_listening()
        self._check_http()
        self._check_workers()
        self._check_files()
        self._check_store()
        self.identities = self.configured.access.identities(self._wrong_access)
        self._check_identities()
        if self._mistakes and self._source is not None:
            raise ConfigurationError(self._source.path, self._mistakes)
        others = titles - {each.title for each in self.configured.peer}
        self.access = self.configured.rules(sorted(others), is_strict=bool(self["strict-peers"]))
        self.titles = frozenset(titles)

    def _is_right(self, *names: str) -> bool:
        """Whether no value of these tables, or of these keys, written ``"node.listen"``, was left out as wrong.

        What depends on several values is not told when one of them was.
        """
        return not any(
            name in (each[0], ".".join(map(str, each)))
            or (len(each) == 1 and name.startswith(f"{each[0]}."))
            for each in self.wrong
            for name in names
            if each
        )

    def _check_titles(self, titles: set[str]) -> None:
        """Check what names peers."""
        for name in _TITLES:
            for title in self[name]:
                if title not in self["peers"]:
                    self._complain(
                        name,
                        f"--{name} {title}: add --peer {title}@host:port",
                        f"{title} is not a peer with host and port",
                        f"add a [[peer]] table for {title}",
                    )
        if self["strict-peers"] and not titles:
            self._complain(
                "strict-peers",
                "--strict-peers would serve nobody, because there is no --peer; add --peer AET@host:port",
                "nobody would be served, because there is no peer",
                "add a [[peer]] table",
            )

    def _wrong_access(self, key: str, text: str) -> None:
        """Note that a key of ``[access]`` cannot be used."""
        assert self._source is not None
        hint = "netdicom passwd writes it" if key == "password_file" else ""
        self._mistakes.append(self._source.mistake_in("access", key, text, hint))

    def _check_identities(self) -> None:
        """Who has to send an identity must be able to send one that is accepted."""
        peers = self.configured.peer
        is_required = self.configured.access.require_identity or any(
            each.require_identity for each in peers
        )
        if is_required and self.identities is None and self._is_right("access", "peer"):
            option = "access" if self.configured.access.require_identity else "peer"
            self._complain(
                option,
                "require_identity needs users",
                "require_identity would let nobody in, because no user is known",
                "add password_file, users or jwt_key_file to [access]",
            )

    def _check_values(self) -> None:
        """Check what the command line says; what the file says has been checked."""
        try:
            self["aet"] = check_ae_title(self["aet"])
        except LocalProtocolError as error:
            raise usage.UsageError(f"--aet: {error}") from error
        for name, least in _NUMBERS.items():
            if self[name] is not None:
                self[name] = _number(name, self[name], least)
        if self["worklist"] is not None and not Path(self["worklist"]).is_dir():
            raise usage.UsageError(
                f"--worklist: {self['worklist']} is not a directory; create it first"
            )
        for name, kind in _WORDS.items():
            self[name] = _word(name, self[name], kind)
        self._check_store_values()
        for address in self["audit-syslog"]:
            try:
                check_syslog(address)
            except LocalProtocolError as error:
                raise usage.UsageError(f"--audit-syslog: {error}") from error

    def _check_store_values(self) -> None:
        if self["durability"] is not None:
            self["durability"] = _word("durability", self["durability"], Durability)
        try:
            if self["storage-url"] is not None:
                check_url(self["storage-url"])
            if isinstance(self["cache"], str):
                self["cache"] = Amount.read(self["cache"])
        except LocalProtocolError as error:
            raise usage.UsageError(str(error)) from error

    def _check_listening(self) -> None:
        if not self["tls-listen"]:
            if self._is_right("node.listen", "node.tls_listen"):
                self["listen"] = self["listen"] or [DEFAULT_LISTEN]
        elif self._is_right("tls") and (self["tls"] is None or self["tls"].certificate is None):
            self._complain(
                "tls-listen",
                "--tls-listen needs --tls-certificate, the PEM file of the node's certificate",
                "needs the PEM file of the node's certificate",
                "add certificate = … to [tls]",
            )
        self._check_ports()
        for name in ("listen", "tls-listen"):
            for endpoint in self[name]:
                try:
                    server_endpoint(None, endpoint)
                except LocalProtocolError as error:
                    raise usage.UsageError(f"--{name}: {error}") from error
                is_plain = endpoint.partition(":")[0] in _HANDED_ON
                if self.configured.node.proxy_protocol and not is_plain:
                    self._complain(
                        name,
                        f"--{name}: [node] proxy_protocol needs an endpoint of {', '.join(_HANDED_ON)}, not "
                        f"{endpoint!r}; TLS is served by --tls-listen",
                        f"proxy_protocol needs endpoints of {', '.join(_HANDED_ON)}",
                        "serve TLS by tls_listen",
                    )

    def _check_ports(self) -> None:
        """No port can be opened twice."""
        seen: list[tuple[int, bool, str]] = []
        http = [("http", self["http"])] if self["http"] is not None else []
        listeners = [(name, each) for name in ("listen", "tls-listen") for each in self[name]]
        for name, endpoint in (*listeners, *http):
            place = place_of(endpoint)
            if place is None or not place[0]:
                continue
            port, _, host = place
            if any(
                place[:2] == each[:2] and (host == each[2] or not (host and each[2]))
                for each in seen
            ):
                said = f"port {port} is served by another endpoint too"
                hint = "name another port, or leave one out"
                self._complain(name, f"--{name} {endpoint}: {said}; {hint}", said, hint)
            seen.append(place)

    def _check_http(self) -> None:
        if self["http"] is None:
            return
        if find_spec("klein") is None or find_spec("jinja2") is None:
            self._lack(
                "http", ["http"], "--http needs the extra packages: pip install 'netdicom-tx[web]'"
            )
        try:
            server_endpoint(None, self["http"])
        except LocalProtocolError as error:
            self._complain("http", f"--http: {error}", str(error))
        if (
            self["http-operator"]
            and self["http-users"] is None
            and self._is_right("http.users_file")
        ):
            self._complain(
                "http-operator",
                "--http-operator needs --http-users, the password file of the users",
                "needs the password file of the users",
                "add users_file = … to [http]",
            )
        self._check_http_is_guarded()
        if self["http-users"] is not None:
            self["http-users"] = str(Path(self["http-users"]).absolute())
            try:
                read_passwords(Path(self["http-users"]))
            except LocalProtocolError as error:
                self._complain("http-users", f"--http-users: {error}", str(error))

    def _check_http_is_guarded(self) -> None:
        """Patient data is not for everybody who can reach the page."""
        is_guarded = self["http-users"] is not None or self["http-anonymous"]
        is_known = self._is_right("http.users_file", "http.allow_anonymous")
        if may_be_public(self["http"]) and not is_guarded and is_known:
            said = (
                f"the status page at {self['http']} could be reached from the network by everybody"
            )
            self._complain(
                "http",
                f"--http: {said}; name a password file by --http-users, serve it at 127.0.0.1, or allow that by "
                "--http-anonymous",
                said,
                "add users_file = … (netdicom passwd writes it), serve it at interface=127.0.0.1, or write "
                "allow_anonymous = true",
            )

    def _check_files(self) -> None:
        """Check the files that are opened when the node starts, as far as that changes nothing."""
        audit = self["audit"]
        # Its directory may be made when the service is started, as systemd does.
        if audit and "audit" in self._from_file and not self.is_lenient and Path(audit).is_dir():
            said = f"{audit} is a directory"
            self._complain("audit", f"--audit: {said}", said, "name a file in it")
        authorities = self.configured.s3.authorities
        if authorities is not None and self._source is not None:
            try:
                Path(authorities).read_bytes()
            except OSError as error:
                said = f"{authorities}: {error.strerror}"
                hint = "name a PEM file that the user of the node may read"
                self._mistakes.append(self._source.mistake_in("s3", "authorities", said, hint))

    def _check_store(self) -> None:
        """Check what a shared store needs, and what needs one."""
        directory = Path(self["storage"])
        if directory.exists() and not directory.is_dir() and "storage" in self._from_file:
            said = f"{directory} is not a directory"
            hint = "name another one; it is created if it does not exist"
            self._complain("storage", f"--storage: {said}; {hint}", said, hint)
        if self["storage-url"] is None:
            for name in ("durability", "cache"):
                if self[name] is not None and self._is_right("storage.url"):
                    self._complain(
                        name,
                        f"--{name} needs --storage-url, the store that nodes share",
                        "is for a store that nodes share",
                        "add url = … to [storage]",
                    )
            return
        is_postgresql = str(self["database"] or "").startswith("postgresql")
        if not is_postgresql and self._is_right("database.url", "database.url_file"):
            self._complain(
                "storage-url",
                "--storage-url needs PostgreSQL, because nodes cannot share an SQLite database; add --database "
                "postgresql://user@host/name",
                "needs PostgreSQL, because nodes cannot share an SQLite database",
                'add url = "postgresql://user@host/name" to [database]',
            )
        if self["workers"] > 1:
            self._complain(
                "workers",
                "--workers is for one node with a store of its own; with --storage-url start more nodes instead",
                "is for one node with a store of its own",
                "start more nodes instead",
            )
        quota = self.configured.retention.quota
        if quota is not None and quota.share:
            self._complain(
                "storage-url",
                f"[retention] quota {quota} is a share of a disk, but a shared store is not a disk",
                f"[retention] quota {quota} is a share of a disk, but a shared store is not a disk",
                'write an amount such as "500 GB"',
            )

    @property
    def shows_password(self) -> bool:
        """Whether the password of the database stands in the command line, which every user of the machine can read."""
        if "database" not in self._on_command_line:
            return False
        from .archive.index.urls import has_password

        return has_password(self["database"])

    def store_plan(self) -> StorePlan:
        """How the node keeps its instances."""
        storage = self.configured.storage
        return StorePlan(
            root=Path(self["storage"]),
            url=self["storage-url"],
            durability=self["durability"] or Durability.SHARED,
            cache=self["cache"].octets if self["cache"] is not None else 0,
            parallel=storage.parallel,
            s3=self.configured.s3.options(),
            fsync=not self["no-fsync"],
            duplicates=self["duplicates"],
            reserve=storage.reserve,
        )

    def _check_workers(self) -> None:
        """Check what several processes need, and take the part of one of them."""
        workers = self["workers"]
        if workers > MOST_WORKERS:
            said = f"expected at most {MOST_WORKERS}, not {workers}"
            self._complain("workers", f"--workers: {said}", said, "each one takes a core")
        for name in _DIVIDED if workers > 1 else ():
            is_right = self._is_right(f"node.{name.replace('-', '_')}")
            if is_right and self[name] is not None and self[name] < workers:
                self._complain(
                    name,
                    f"--{name} {self[name]} cannot be divided among --workers {workers}; expected {workers} or more, "
                    "or fewer workers",
                    f"{self[name]} cannot be divided among {workers} workers",
                    f"write {workers} or more, or fewer workers",
                )
        for name in ("listen", "tls-listen") if workers > 1 else ():
            for endpoint in self[name]:
                if endpoint.partition(":")[0] not in _HANDED_ON:
                    self._complain(
                        name,
                        f"--{name}: --workers {workers} needs an endpoint of {', '.join(_HANDED_ON)}, not "
                        f"{endpoint!r}; TLS is served by --tls-listen",
                        f"{workers} workers need endpoints of {', '.join(_HANDED_ON)}",
                        "serve TLS by tls_listen",
                    )
        if self.part is not None:
            for name in _DIVIDED:
                if self[name] is not None:
                    self[name] = part_of(self[name], *self.part)

    @property
    def wrong(self) -> frozenset[tuple[str | int, ...]]:
        """The tables and keys whose values are wrong and were left out; see :attr:`is_lenient`."""
        return frozenset(each.key[:2] for each in self._mistakes)

    @property
    def config_source(self) -> str | None:
        """What the configuration file said when it was read; None without one."""
        return None if self.config_path is None or self._source is None else self._source.text

    @property
    def arguments(self) -> list[str]:
        """The command line."""
        return list(self._arguments)

    def again(self) -> Options:
        """Read the configuration file again, with the same command line.

        Raises:
            ConfigurationError: The file is wrong now.
            LocalProtocolError: An option of the command line is wrong now.
        """
        fresh = Options()
        fresh.config_path = self.config_path
        fresh.part = self.part
        try:
            fresh.parse(self._arguments)
        except usage.UsageError as error:
            raise LocalProtocolError(str(error)) from error
        return fresh

    def take(self, fresh: Options, names: Iterable[str]) -> None:
        """Take over the values of some options, and what the file says, because they have taken effect."""
        for name in names:
            self[name] = fresh[name]
        self.configured, self.access, self.titles = fresh.configured, fresh.access, fresh.titles
        self.identities = fresh.identities

    def _tls(self) -> TLSOptions | None:
        """How the node speaks TLS, of both roles; None when no option says anything of it."""
        found = {field: self[name] for name, field in _TLS_FIELDS.items() if self[name]}
        if not found or not self._check_tls_files():
            return None
        found["key_password"] = self.configured.tls.key_password
        try:
            options = TLSOptions(**found)
            options.check()
        except ImportError:
            self._lack(
                "tls",
                _TLS_FIELDS,
                "--tls-…: TLS needs the extra packages: pip install 'netdicom-tx[tls]'",
            )
            return None
        except LocalProtocolError as error:
            text = str(error)
            given = [name for name in _TLS_FIELDS if name in self._from_file]
            # The file that the text begins with is the one that is wrong.
            given.sort(key=lambda name: not text.startswith(str(self[name])))
            self._complain(given[0] if given else "", f"--tls-…: {text}", text)
            return None
        return options

    def _check_tls_files(self) -> bool:
        """Check each value of TLS by itself; returns whether they can be used together."""
        wrong: list[tuple[str, str, str]] = []
        for name in ("tls-certificate", "tls-key", "tls-authorities", "tls-more-certificate"):
            given = self[name]
            for path in given if isinstance(given, list) else [given] if given else []:
                try:
                    Path(path).read_bytes()
                except (OSError, ValueError) as error:
                    said = getattr(error, "strerror", None) or error
                    hint = "name a PEM file that the user of the node may read"
                    wrong.append((name, f"{path}: {said}", hint))
        if self["tls-key"] and not self["tls-certificate"] and self._is_right("tls.certificate"):
            said = "there is no certificate for this key"
            wrong.append(("tls-key", said, "add certificate = … to [tls]"))
        if (
            self["tls-clients"] in ("required", "optional")
            and not (self["tls-authorities"] or self["tls-fingerprint"])
            and self._is_right("tls.authorities", "tls.fingerprints")
        ):
            said = (
                f"client certificates are {self['tls-clients']}, but nothing says which are trusted"
            )
            wrong.append(("tls-clients", said, "add authorities = … or fingerprints = … to [tls]"))
        for fingerprint in self["tls-fingerprint"]:
            try:
                TLSOptions(fingerprint=fingerprint)
            except LocalProtocolError as error:
                hint = "openssl x509 -noout -fingerprint -sha256 -in FILE shows it"
                wrong.append(("tls-fingerprint", str(error), hint))
        for name, said, hint in wrong:
            self._complain(name, f"--{name}: {said}", said, hint)
        return not wrong

    def _peers(self) -> dict[str, RemoteAE]:
        """The peers that the node calls, by their AE titles."""
        tls = self["tls"]
        peers = {
            each.title: replace(
                _remote(each.title, each.host, each.port, over_tls=each.tls, tls=tls),
                quirks=each.quirks,
            )
            for each in self.configured.peer
            if each.host is not None and each.port is not None
        }
        for text in self["peer"]:
            try:
                remote = _peer(text, tls)
                if remote.ae_title in peers:
                    raise usage.UsageError(
                        f"--peer {text}: another --peer has the AE title {remote.ae_title} too, so a C-MOVE "
                        "could not tell them apart; give each title once"
                    )
            except usage.UsageError as error:
                self._complain("peer", str(error), str(error).removeprefix("--peer").lstrip(" :"))
            else:
                peers[remote.ae_title] = remote
        return peers


# How getopt, and Twisted with it, tells of an option that there is not.
_UNKNOWN_OPTION = re.compile(r"option --([\w-]+) not recognized")


def _number(name: str, value: object, least: int) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise usage.UsageError(
            f"--{name}: expected a whole number of {least} or more, not {text!r}"
        )
    return int(text)


def _word(name: str, value: object, kind: type[Enum]) -> Enum:
    try:
        return kind(value)
    except ValueError as error:
        *words, last = (each.value for each in kind)
        raise usage.UsageError(
            f"--{name}: expected {', '.join(words)} or {last}, not {value!r}"
        ) from error


def _peer(text: str, tls: TLSOptions | None) -> RemoteAE:
    """Read ``AET@host:port`` or ``dicoms://AET@host:port``, where an IPv6 address stands in brackets."""
    title, at, address = text.removeprefix(_TLS_SCHEME).partition("@")
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (at and colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise usage.UsageError(f"--peer: expected AET@host:port, not {text!r}")
    try:
        return _remote(title, host, int(port), over_tls=text.startswith(_TLS_SCHEME), tls=tls)
    except LocalProtocolError as error:
        raise usage.UsageError(f"--peer {text}: {error}") from error


def _remote(
    title: str, host: str, port: int, *, over_tls: bool, tls: TLSOptions | None
) -> RemoteAE:
    """A peer that the node calls."""
    escaped = host.replace(":", "\\:")
    # The node is a client here, and the name of the peer is that of its address.
    own = replace(tls or TLSOptions(), clients=None) if over_tls else None
    return RemoteAE(title, f"tcp:{escaped}:{port}", tls=own)
