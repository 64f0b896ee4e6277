"""``twistd dicom``: its options, and the service that it runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError
from twisted.internet.error import CannotListenError
from twisted.python import usage
from twisted.python.failure import Failure

from .access import ANY_TITLE, Access
from .applicationentity import RemoteAE
from .archive import ArchiveAE, Duplicates, FileStore, Index, IndexUnusableError, StorageError
from .archive.auditing import Auditor, this_process
from .archive.store.scrub import Scrub
from .archive.workflow.workflow import WorkflowOptions
from .audit_trails import FileTrail, Trail, check_syslog, syslog_trail
from .budget import give_back_large_blocks
from .collector import spare_what_stays
from .config import EX_CONFIG, Config, ConfigurationError, Mistake, Source
from .config import read as read_config
from .descriptors import associations_for
from .endpoints import server_endpoint
from .exceptions import LocalProtocolError
from .identity import Identities
from .logs import Logger, LogUIDs, quiet_pydicom, show_uids
from .monotonic import use_monotonic_time
from .pdu import check_ae_title
from .service import AEService
from .signals import Signals
from .tls import ServerContext, TLSOptions
from .turns import Turns

__all__ = ["NodeService", "Options", "StartError", "makeService"]

DEFAULT_LISTEN = "tcp:11112:interface=127.0.0.1"
# Seconds that running operations have to end when the node stops.
GRACE = 10.0
# Seconds for which the start waits for files and index to agree, before the reactor runs.
_PATIENCE = 1.0
# Seconds that a peer has to take an A-ABORT when the node must end at once.
_ABORTING = 0.5

# For how many seconds a thread may keep the interpreter while the reactor waits for it. Python's own value is 5 ms, and
# the reactor waits that long for each thread that computes.
_SWITCHING = 0.001

# The prefix of the address of a peer that is called over TLS.
_TLS_SCHEME = "dicoms://"
# Options that may be repeated, apart from those with a meaning of their own.
_LISTS = ("tls-listen", "tls-fingerprint", "tls-more-certificate", "audit-syslog")
# Options that name peers.
_TITLES = ("forward-mpps", "notify-mpps", "notify-availability")
# Options whose values are whole numbers, with the least one.
_NUMBERS = {
    "max-associations": 1,
    "max-associations-per-host": 1,
    "max-associations-per-title": 1,
    "move-associations": 1,
    "scrub": 0,
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
# Options whose changes take effect when the file is read again.
_RELOADED = {"peer", "peers", "strict-peers", "config"}


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
    ]

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._from_file: set[str] = set()
        self._is_wrong = False
        self._arguments: list[str] = []
        self._source: Source | None = None
        self._mistakes: list[Mistake] = []
        #: The configuration file; None without one.
        self.config_path: Path | None = None
        #: What the file says; the defaults without a file.
        self.configured = Config()
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
        except usage.UsageError:
            self._is_wrong = True
            raise

    @property
    def is_access_configured(self) -> bool:
        """Whether the operator has decided what unknown peers may do."""
        source = self._source
        return bool(self["strict-peers"]) or (source is not None and "access" in source.given)

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
        """Take the options that the file sets and the command line does not.

        Raises:
            ConfigurationError: The file is wrong.
        """
        if self.config_path is None:
            # The runner may change the directory before the file is read again.
            self.config_path = Path(self["config"]).absolute()
        self._source = source = read_config(self["config"], self.config_path)
        self.configured = source.config
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
        if self.get("config"):
            self._read_config()
        self._check_values()
        self["tls"] = self._tls()
        self["peers"] = self._peers()
        titles = {*self["peers"], *(each.title for each in self.configured.peer)}
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
        self._check_listening()
        try:
            self.identities = self.configured.access.identities()
        except LocalProtocolError as error:
            self._complain("access", f"[access]: {error}", str(error))
        self._check_identities()
        if self._mistakes:
            raise ConfigurationError(self["config"], self._mistakes)
        others = titles - {each.title for each in self.configured.peer}
        self.access = self.configured.rules(sorted(others), is_strict=bool(self["strict-peers"]))
        self.titles = frozenset(titles)

    def _check_identities(self) -> None:
        """Who has to send an identity must be able to send one that is accepted."""
        peers = self.configured.peer
        is_required = self.configured.access.require_identity or any(
            each.require_identity for each in peers
        )
        if is_required and self.identities is None and not self._mistakes:
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
        try:
            self["duplicates"] = Duplicates(self["duplicates"])
        except ValueError as error:
            raise usage.UsageError(
                f"--duplicates: expected keep, replace or keep-both, not {self['duplicates']!r}"
            ) from error
        try:
            self["log-uids"] = LogUIDs(self["log-uids"])
        except ValueError as error:
            raise usage.UsageError(
                f"--log-uids: expected plain or digest, not {self['log-uids']!r}"
            ) from error

        for address in self["audit-syslog"]:
            try:
                check_syslog(address)
            except LocalProtocolError as error:
                raise usage.UsageError(f"--audit-syslog: {error}") from error

    def _check_listening(self) -> None:
        if not self["tls-listen"]:
            self["listen"] = self["listen"] or [DEFAULT_LISTEN]
        elif self["tls"] is None or self["tls"].certificate is None:
            self._complain(
                "tls-listen",
                "--tls-listen needs --tls-certificate, the PEM file of the node's certificate",
                "needs the PEM file of the node's certificate",
                "add certificate = … to [tls]",
            )
        for name in ("listen", "tls-listen"):
            for endpoint in self[name]:
                try:
                    server_endpoint(None, endpoint)
                except LocalProtocolError as error:
                    raise usage.UsageError(f"--{name}: {error}") from error

    def again(self) -> Options:
        """Read the configuration file again, with the same command line.

        Raises:
            ConfigurationError: The file is wrong now.
            LocalProtocolError: An option of the command line is wrong now.
        """
        fresh = Options()
        fresh.config_path = self.config_path
        try:
            fresh.parse(self._arguments)
        except usage.UsageError as error:
            raise LocalProtocolError(str(error)) from error
        return fresh

    def _tls(self) -> TLSOptions | None:
        """How the node speaks TLS, of both roles; None when no option says anything of it."""
        found = {field: self[name] for name, field in _TLS_FIELDS.items() if self[name]}
        if not found:
            return None
        try:
            options = TLSOptions(**found)
            if options.certificate is not None:
                ServerContext(options)
        except (LocalProtocolError, ImportError) as error:
            text = str(error)
            if isinstance(error, ImportError):
                text = "TLS needs the extra packages: pip install 'netdicom-tx[tls]'"
            given = [name for name in _TLS_FIELDS if name in self._from_file]
            self._complain(given[0] if given else "", f"--tls-…: {text}", text)
            return None
        return options

    def _peers(self) -> dict[str, RemoteAE]:
        """The peers that the node calls, by their AE titles."""
        tls = self["tls"]
        peers = {
            each.title: _remote(each.title, each.host, each.port, over_tls=each.tls, tls=tls)
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


def _number(name: str, value: object, least: int) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise usage.UsageError(
            f"--{name}: expected a whole number of {least} or more, not {text!r}"
        )
    return int(text)


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


def is_public(host: str) -> bool:
    """Whether others than this machine can reach a port at this address; empty for a local socket."""
    return bool(host) and not ip_address(host.partition("%")[0]).is_loopback


class StartError(SystemExit, Exception):
    """The node cannot start; the message is what the operator reads.

    It ends the process as SystemExit does. It is an Exception as well, because that is what twistd needs in the
    background to report the failure to the shell and to remove its pid file.
    """


class _Listener(AEService):
    """Ends the process when a port fails after the start, because a node that cannot listen is of no use."""

    # Log lines have the public name of the class, which an operator can look up in the reference.
    _log = Logger(namespace=f"{AEService.__module__}.{AEService.__qualname__}")

    def __init__(
        self,
        ae: ArchiveAE,
        listen: list[str],
        tls_listen: list[str],
        context: ServerContext | None,
    ) -> None:
        endpoints = [server_endpoint(ae.reactor, each) for each in listen]
        if context is not None:
            endpoints += [context.wrap(server_endpoint(ae.reactor, each)) for each in tls_listen]
        super().__init__(ae, endpoints, GRACE)
        self._reactor = ae.reactor

    def listening_failed(self, failure: Failure) -> None:
        super().listening_failed(failure)
        self._reactor.stop()


class NodeService(MultiService):
    """The running node: the store is open while it serves, and a little longer.

    Its ports are opened first, because that may need privileges that the store must not have. Until files and index
    agree, requests for associations are rejected as transient.

    Attributes:
        turns: Measures the turns of the reactor, and logs those that take too long.
    """

    _log = Logger()

    def __init__(
        self,
        ae: ArchiveAE,
        listen: list[str],
        tls_listen: list[str] | None = None,
        tls: TLSOptions | None = None,
        options: Options | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ae = ae
        self._options = options
        self._context = ServerContext(tls) if tls is not None and tls_listen else None
        self._listener = _Listener(ae, listen, tls_listen or [], self._context)
        self._listener.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._signals = Signals(ae.reactor, self._abort, self.reload)
        self.turns = Turns(ae.reactor)

    def privilegedStartService(self) -> None:
        """Open the ports.

        Raises:
            StartError: A port cannot be opened.
        """
        give_back_large_blocks()
        use_monotonic_time(self.ae.reactor)
        self._set_up_logging()
        if self.ae.max_associations is not None:
            self.ae.max_associations = associations_for(self.ae.max_associations)
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            raise self._cannot_listen(error) from error

    def startService(self) -> None:
        """Open the store as the user that the process has switched to, and begin to serve.

        Raises:
            StartError: The store or the index cannot be used, or a port cannot be opened.
        """
        use_monotonic_time(self.ae.reactor)
        self._set_up_logging()
        # From now on, an operator may stop it.
        self._signals.install()
        self.ae.reactor.callWhenRunning(self._signals.install)
        self.ae.reactor.callWhenRunning(spare_what_stays)
        try:
            started = self.ae.start_soon(_PATIENCE)
        except (StorageError, IndexUnusableError) as error:
            self._signals.uninstall()
            self._listener.stopService()
            raise StartError(f"twistd dicom: {error}") from error
        self.running = 1
        self.turns.startService()
        if started.called:
            self._serve()
        else:
            started.addCallback(lambda _: self._serve())
            started.addErrback(self._not_started)

    def _set_up_logging(self) -> None:
        """Keep what peers sent out of the log."""
        quiet_pydicom()
        if self._options is not None:
            show_uids(self._options["log-uids"], self.ae.ae_title)

    def _serve(self) -> None:
        """Begin to serve, when store and index agree."""
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            self.running = 0
            self._signals.uninstall()
            self.turns.stopService()
            # twist opens the ports only now. Threads that wait for work would keep the process alive.
            self.ae.stop()
            raise self._cannot_listen(error) from error
        if self._options is not None and not self._options.is_access_configured:
            self._warn_of_openness()

    def _not_started(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._log.critical("twistd dicom: {error}", error=failure.getErrorMessage())
        self._signals.fail()

    def _warn_of_openness(self) -> None:
        """Say that everybody may do everything, if others than this machine can reach the node."""
        hosts = [getattr(each.getHost(), "host", "") for each in self._listener.ports]
        if any(map(is_public, hosts)):
            self._log.warn(
                "{aet} can be reached from the network, and peers that are not configured may do everything: say "
                "what they may do by [access] default in the configuration file, or use --strict-peers",
                aet=self.ae.ae_title,
            )

    def _cannot_listen(self, error: CannotListenError) -> StartError:
        return StartError(f"{self.ae.ae_title} cannot listen: {error}")

    def stopService(self) -> Any:  # a Deferred, as IService allows
        stopped = super().stopService()  # type: ignore[no-untyped-call]
        return stopped.addBoth(lambda _: self.ae.pause()).addBoth(self._stopped)

    def reload(self) -> str:
        """Read the configuration file and the TLS files again.

        Raises:
            NetDICOMError: One of them is wrong; nothing has changed.
        """
        options = self._options
        fresh = None if options is None or options.config_path is None else options.again()
        read = []
        if self._context is not None:
            self._context.reload()
            read.append("the TLS certificate, key and authorities")
        if options is not None and fresh is not None:
            self._apply(options, fresh)
            read.insert(0, str(options.config_path))
        return " and ".join(read)

    def _apply(self, options: Options, fresh: Options) -> None:
        """Let the peers and the access rules of a file take effect; running associations continue."""
        self.ae.peers.clear()
        self.ae.peers.update(fresh["peers"])
        _give_access(self.ae, fresh)
        waiting = sorted(
            name for name in fresh if name not in _RELOADED and fresh[name] != options[name]
        )
        if waiting:
            self._log.warn(
                "{path} has other values for {names}, which take effect when the node is restarted",
                path=options.config_path,
                names=", ".join(waiting),
            )

    def _abort(self) -> None:
        for asce in self.ae.associations:
            asce.abort()
            asce.hang_up(_ABORTING)

    def _stopped(self, result: object) -> object:
        self._signals.uninstall()
        self.ae.stop()
        self.turns.stopService()
        return result


def _give_access(ae: ArchiveAE, options: Options) -> None:
    """Let the node serve the peers of these options only, and each as they say."""
    is_strict = bool(options["strict-peers"])
    ae.identities = options.identities
    ae.access = None if options.access.is_open else options.access
    ae.called_ae_titles = frozenset([ae.ae_title]) if is_strict else None
    # With a rule for every title of a network, the rules alone decide.
    is_closed = is_strict and ANY_TITLE not in options.titles
    ae.calling_ae_titles = options.titles if is_closed else None


def _auditor(options: Options, reactor: Any) -> Auditor | None:
    """What writes the audit trail; None when the options name no trail."""
    source = this_process(options["aet"])
    trails: list[Trail] = [FileTrail(options["audit"])] if options["audit"] else []
    for address in options["audit-syslog"]:
        trails.append(syslog_trail(address, source, options["tls"], reactor))
    return Auditor(source, trails) if trails else None


def makeService(options: Options) -> NodeService:
    """The service for ``twistd dicom`` with these options."""
    store = FileStore(
        options["storage"], fsync=not options["no-fsync"], duplicates=options["duplicates"]
    )
    ae = ArchiveAE(
        options["aet"],
        store,
        Index(options["database"] or f"sqlite:///{store.root / 'index.db'}", root=store.root),
        peers=options["peers"],
        unknown_sop_classes=bool(options["unknown-sop-classes"]),
        match_unknown=bool(options["match-unknown"]),
        max_associations=options["max-associations"],
        max_associations_per_host=options["max-associations-per-host"],
        max_associations_per_title=options["max-associations-per-title"],
        move_associations=options["move-associations"],
        workflow=WorkflowOptions(
            worklist=Path(options["worklist"]) if options["worklist"] else None,
            forward_mpps=tuple(options["forward-mpps"]),
            notify_mpps=tuple(options["notify-mpps"]),
            notify_availability=tuple(options["notify-availability"]),
        ),
    )
    _give_access(ae, options)
    ae.auditor = _auditor(options, ae.reactor)
    node = NodeService(ae, options["listen"], options["tls-listen"], options["tls"], options)
    if options["scrub"] and ae.index is not None:
        scrub = Scrub(ae.index, ae.reactor, rate=options["scrub"] * (1 << 20))
        scrub.setServiceParent(node)  # type: ignore[no-untyped-call]
    return node
