"""``twistd dicom``: its options, and the service that it runs."""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor
from twisted.python import usage

from .archive import ArchiveAE, Duplicates, FileStore, StorageError
from .exceptions import LocalProtocolError
from .pdu import check_ae_title

__all__ = ["NodeService", "Options", "makeService"]

DEFAULT_LISTEN = "tcp:11112:interface=127.0.0.1"
# Seconds that running operations have when the node stops.
GRACE = 10.0


class Options(usage.Options):
    """What ``twistd dicom`` accepts."""

    synopsis = "[twistd options] dicom [options]"
    longdesc = (
        "A DICOM archive node. Without options it serves on 127.0.0.1, port 11112, as NETDICOM, "
        "and keeps what it receives in ./netdicom-archive. Open it to the network with "
        "--listen tcp:11112"
    )
    optParameters = [  # noqa: RUF012 - usage.Options reads a list of the class
        ["aet", "a", "NETDICOM", "AE title of the node, 1 to 16 characters."],
        ["storage", "s", "netdicom-archive", "Directory for what is received; made when absent."],
        [
            "max-associations",
            "m",
            100,
            "Associations at once; more are rejected as transient.",
            int,
        ],
        [
            "duplicates",
            "d",
            "keep",
            "When an instance comes with a data set that differs from the one that is here: keep "
            "the first and answer 0x0111 (keep), or replace it (replace).",
        ],
    ]
    optFlags = [  # noqa: RUF012 - as above
        ["unknown-sop-classes", "u", "Also keep instances of private and unknown SOP classes."],
        ["no-fsync", None, "Give up durability over a power cut, for speed."],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """Serve at this Twisted endpoint; repeatable. Default: tcp:11112:interface=127.0.0.1."""
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def postOptions(self) -> None:
        try:
            self["aet"] = check_ae_title(self["aet"])
        except LocalProtocolError as error:
            raise usage.UsageError(f"--aet: {error}") from error
        if self["max-associations"] < 1:
            raise usage.UsageError("--max-associations: expected 1 or more")
        try:
            self["duplicates"] = Duplicates(self["duplicates"])
        except ValueError as error:
            raise usage.UsageError(
                f"--duplicates: expected keep or replace, not {self['duplicates']!r}"
            ) from error
        self["listen"] = self["listen"] or [DEFAULT_LISTEN]
        for endpoint in self["listen"]:
            try:
                serverFromString(MemoryReactor(), endpoint)
            except (ValueError, TypeError) as error:
                raise usage.UsageError(
                    f"--listen: expected a Twisted server endpoint such as {DEFAULT_LISTEN}, "
                    f"not {endpoint!r}: {error}"
                ) from error


class NodeService(MultiService):
    """The running node: the store is open while it listens, and a little longer."""

    def __init__(self, ae: ArchiveAE, listen: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ae = ae
        endpoints = [serverFromString(ae.reactor, each) for each in listen]
        self._listener: Service = ae.as_service(*endpoints, grace=GRACE)
        self._listener.setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Open the store, as the user that the process now is; nobody has been served yet."""
        try:
            self.ae.start()
        except StorageError as error:
            raise SystemExit(f"twistd dicom: {error}") from error
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Any:  # a Deferred, as IService allows
        stopped = super().stopService()  # type: ignore[no-untyped-call]
        return stopped.addBoth(self._stopped)

    def _stopped(self, result: object) -> object:
        self.ae.stop()
        return result


def makeService(options: Options) -> NodeService:
    """The service for ``twistd dicom`` with these options."""
    ae = ArchiveAE(
        options["aet"],
        FileStore(
            options["storage"], fsync=not options["no-fsync"], duplicates=options["duplicates"]
        ),
        unknown_sop_classes=bool(options["unknown-sop-classes"]),
        max_associations=options["max-associations"],
    )
    return NodeService(ae, options["listen"])
