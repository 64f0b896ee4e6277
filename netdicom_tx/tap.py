"""``twistd dicom``: its options, and the service that it runs."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from .applicationentity import RemoteAE
from .archive import ArchiveAE, Duplicates, FileStore, Index, IndexUnusableError, StorageError
from .archive.store.scrub import Scrub
from .archive.workflow.workflow import WorkflowOptions
from .descriptors import associations_for
from .endpoints import server_endpoint
from .exceptions import LocalProtocolError
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

# The prefix of the address of a peer that is called over TLS.
_TLS_SCHEME = "dicoms://"
_TLS_LISTS = ("tls-listen", "tls-fingerprint", "tls-more-certificate")
# Options that name peers.
_TITLES = ("forward-mpps", "notify-mpps", "notify-availability")
# Options whose values are whole numbers, with the least one.
_NUMBERS = {
    "max-associations": 1,
    "max-associations-per-host": 1,
    "move-associations": 1,
    "scrub": 0,
}
# How a value in a configuration file is called there.
_KINDS = {str: "a string", int: "a whole number", bool: "true or false", list: "a list of strings"}


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
        self._is_wrong = False
        super().__init__()  # type: ignore[no-untyped-call]
        self["listen"] = []
        for name in _TLS_LISTS:
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
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError:
            self._is_wrong = True
            raise

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
        """Read these options, as keys, from a TOML file; options on the command line take precedence."""
        self["config"] = path

    opt_c = opt_config

    def _read_config(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                found = tomllib.load(file)
        except OSError as error:
            raise usage.UsageError(f"--config {path}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise usage.UsageError(f"--config {path}: {error}") from error
        kinds: dict[str, type] = dict.fromkeys(("listen", "peer", *_TLS_LISTS, *_TITLES), list)
        kinds |= dict.fromkeys(_NUMBERS, int)
        kinds |= {name: bool for name, *_ in self.optFlags}
        kinds |= {name: str for name, *_ in self.optParameters if name not in kinds}
        problems = [f"{key} is not an option" for key in found if key not in kinds]
        problems += [
            f"{key}: expected {_KINDS[kinds[key]]}, got {value!r}"
            for key, value in found.items()
            if key in kinds and type(value) is not kinds[key]
        ]
        if problems:
            raise usage.UsageError(f"--config {path}: " + "; ".join(problems))
        for key in found.keys() - self._given:
            self[key] = [str(each) for each in found[key]] if kinds[key] is list else found[key]

    def postOptions(self) -> None:  # noqa: C901 - one check for each option
        if self.get("config"):
            self._read_config(self["config"])
        try:
            self["aet"] = check_ae_title(self["aet"])
        except LocalProtocolError as error:
            raise usage.UsageError(f"--aet: {error}") from error
        for name, least in _NUMBERS.items():
            self[name] = _number(name, self[name], least)
        self["tls"] = self._tls()
        self["peers"] = _peers(self["peer"], self["tls"])
        for name in _TITLES:
            for title in self[name]:
                if title not in self["peers"]:
                    raise usage.UsageError(f"--{name} {title}: add --peer {title}@host:port")
        if self["strict-peers"] and not self["peers"]:
            raise usage.UsageError(
                "--strict-peers would serve nobody, because there is no --peer; add --peer AET@host:port"
            )
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
        if not self["tls-listen"]:
            self["listen"] = self["listen"] or [DEFAULT_LISTEN]
        elif self["tls"] is None or self["tls"].certificate is None:
            raise usage.UsageError(
                "--tls-listen needs --tls-certificate, the PEM file of the node's certificate"
            )
        for name in ("listen", "tls-listen"):
            for endpoint in self[name]:
                try:
                    server_endpoint(None, endpoint)
                except LocalProtocolError as error:
                    raise usage.UsageError(f"--{name}: {error}") from error

    def _tls(self) -> TLSOptions | None:
        """How the node speaks TLS, of both roles; None when no option says anything of it."""
        found = {
            field: self[name]
            for name, field in (
                ("tls-certificate", "certificate"),
                ("tls-key", "key"),
                ("tls-authorities", "trust"),
                ("tls-clients", "clients"),
                ("tls-profile", "profile"),
                ("tls-fingerprint", "fingerprint"),
                ("tls-more-certificate", "more_certificates"),
            )
            if self[name]
        }
        if not found:
            return None
        try:
            options = TLSOptions(**found)
            if options.certificate is not None:
                ServerContext(options)
        except LocalProtocolError as error:
            raise usage.UsageError(f"--tls-…: {error}") from error
        except ImportError as error:
            raise usage.UsageError(
                "--tls-…: TLS needs the extra packages: pip install 'netdicom-tx[tls]'"
            ) from error
        return options


def _number(name: str, value: object, least: int) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise usage.UsageError(
            f"--{name}: expected a whole number of {least} or more, not {text!r}"
        )
    return int(text)


def _peers(texts: list[str], tls: TLSOptions | None) -> dict[str, RemoteAE]:
    """The peers by their AE titles."""
    peers: dict[str, RemoteAE] = {}
    for text in texts:
        title, remote = _peer(text, tls)
        if title in peers:
            raise usage.UsageError(
                f"--peer {text}: another --peer has the AE title {title} too, so a C-MOVE could not tell "
                "them apart; give each title once"
            )
        peers[title] = remote
    return peers


def _peer(text: str, tls: TLSOptions | None) -> tuple[str, RemoteAE]:
    """Read ``AET@host:port`` or ``dicoms://AET@host:port``, where an IPv6 address stands in brackets."""
    over_tls = text.startswith(_TLS_SCHEME)
    title, at, address = text.removeprefix(_TLS_SCHEME).partition("@")
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (at and colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise usage.UsageError(f"--peer: expected AET@host:port, not {text!r}")
    escaped = host.replace(":", "\\:")
    try:
        # The node is a client here, and the name of the peer is that of its address.
        own = None if not over_tls else replace(tls or TLSOptions(), clients=None)
        remote = RemoteAE(title, f"tcp:{escaped}:{port}", tls=own)
    except LocalProtocolError as error:
        raise usage.UsageError(f"--peer {text}: {error}") from error
    return remote.ae_title, remote


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
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ae = ae
        self._context = ServerContext(tls) if tls is not None and tls_listen else None
        self._listener = _Listener(ae, listen, tls_listen or [], self._context)
        self._listener.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._signals = Signals(ae.reactor, self._abort, self._reload)
        self.turns = Turns(ae.reactor)

    def privilegedStartService(self) -> None:
        """Open the ports.

        Raises:
            StartError: A port cannot be opened.
        """
        use_monotonic_time(self.ae.reactor)
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
        # From now on, an operator may stop it.
        self._signals.install()
        self.ae.reactor.callWhenRunning(self._signals.install)
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

    def _not_started(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._log.critical("twistd dicom: {error}", error=failure.getErrorMessage())
        self._signals.fail()

    def _cannot_listen(self, error: CannotListenError) -> StartError:
        return StartError(f"{self.ae.ae_title} cannot listen: {error}")

    def stopService(self) -> Any:  # a Deferred, as IService allows
        stopped = super().stopService()  # type: ignore[no-untyped-call]
        return stopped.addBoth(lambda _: self.ae.pause()).addBoth(self._stopped)

    def _reload(self) -> str:
        if self._context is None:
            return ""
        self._context.reload()
        return "the TLS certificate, key and authorities"

    def _abort(self) -> None:
        for asce in self.ae.associations:
            asce.abort()
            asce.hang_up(_ABORTING)

    def _stopped(self, result: object) -> object:
        self._signals.uninstall()
        self.ae.stop()
        self.turns.stopService()
        return result


def makeService(options: Options) -> NodeService:
    """The service for ``twistd dicom`` with these options."""
    store = FileStore(
        options["storage"], fsync=not options["no-fsync"], duplicates=options["duplicates"]
    )
    peers = options["peers"]
    is_strict = bool(options["strict-peers"])
    ae = ArchiveAE(
        options["aet"],
        store,
        Index(options["database"] or f"sqlite:///{store.root / 'index.db'}", root=store.root),
        peers=peers,
        unknown_sop_classes=bool(options["unknown-sop-classes"]),
        match_unknown=bool(options["match-unknown"]),
        max_associations=options["max-associations"],
        max_associations_per_host=options["max-associations-per-host"],
        move_associations=options["move-associations"],
        called_ae_titles=[options["aet"]] if is_strict else None,
        calling_ae_titles=peers if is_strict else None,
        workflow=WorkflowOptions(
            worklist=Path(options["worklist"]) if options["worklist"] else None,
            forward_mpps=tuple(options["forward-mpps"]),
            notify_mpps=tuple(options["notify-mpps"]),
            notify_availability=tuple(options["notify-availability"]),
        ),
    )
    node = NodeService(ae, options["listen"], options["tls-listen"], options["tls"])
    if options["scrub"] and ae.index is not None:
        scrub = Scrub(ae.index, ae.reactor, rate=options["scrub"] * (1 << 20))
        scrub.setServiceParent(node)  # type: ignore[no-untyped-call]
    return node
