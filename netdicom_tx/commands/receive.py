"""``netdicom receive``: receive instances into a directory (PS3.4 Annex B, SCP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..exceptions import AssociationError, AssociationReleasedError, printable
from .common.failures import ExitCode
from .common.listening import endpoint_string, listen, where
from .common.options import Common, common_options, examples, output_options
from .common.output import Output, counted, printable_line
from .common.session import Session, run

if TYPE_CHECKING:
    from ..asceprovider import Association
    from .common.directory import Arrived, OutputDirectory

_DEFAULT = "127.0.0.1:11112"
# How many seconds running operations have to end after Ctrl-C.
_GRACE = 10.0
_MAX_ASSOCIATIONS = 100


@click.command(
    epilog=examples(
        "netdicom receive -o inbox/",
        "netdicom receive --listen 0.0.0.0:11112 -aet WORKSTATION1 -o inbox/ --layout flat",
        "netdicom receive --listen 0.0.0.0:2762 --tls-cert our.pem -o inbox/",
    )
)
@click.option(
    "-l",
    "--listen",
    "endpoints",
    multiple=True,
    metavar="ENDPOINT",
    help="Listen here: a port of 127.0.0.1, host:port (0.0.0.0:PORT for every interface), or a Twisted "
    f"endpoint; may be repeated (default: {_DEFAULT}).",
)
@output_options
@click.option(
    "--accept-all",
    is_flag=True,
    help="Also accept private and unknown SOP classes.",
)
@common_options
def command(
    common: Common,
    endpoints: tuple[str, ...],
    directory: str,
    layout: str,
    accept_all: bool,
) -> int:
    """Receive instances into a directory, until Ctrl-C (C-STORE, C-ECHO).

    One line is written at the end of each association: the peer, the number of instances, how many were
    refused, their size, and how the association ended. Any called AE title is accepted. The port is open to
    this machine only, unless --listen names an interface.
    """
    from .common.directory import OutputDirectory

    places = [endpoint_string(each, interface="127.0.0.1") for each in endpoints or (_DEFAULT,)]
    output = OutputDirectory(directory, layout)

    async def perform(session: Session) -> int:
        return await _receive(session, places, output, accept_all)

    return run(common, perform)


@dataclass(slots=True)
class _Count:
    """What was received on an association; ``disk`` says why the local disk could not take some of it."""

    kept: int = 0
    refused: int = 0
    octets: int = 0
    disk: str = ""


class _Receipts:
    """Counts what is received on each association, and shows the result when the association ends."""

    def __init__(self, output: Output) -> None:
        self._shown = output
        self._counts: dict[Association, _Count] = {}

    def began(self, asce: Association) -> None:
        self._counts[asce] = _Count()
        asce.closed().addCallback(self._over, asce)

    def refused(self, asce: Association, error: Exception) -> None:
        if asce in self._counts:
            count = self._counts[asce]
            count.refused += 1
            if isinstance(error, OSError):
                count.disk = error.strerror or str(error)

    def kept(self, asce: Association, arrived: Arrived) -> None:
        count = self._counts.get(asce)
        if count is None:
            return
        count.kept += 1
        count.octets += arrived.size
        if self._shown.is_json:
            self._shown.json(
                {
                    "file": arrived.path,
                    "sop_class_uid": arrived.sop_class_uid,
                    "sop_instance_uid": arrived.sop_instance_uid,
                    "transfer_syntax_uid": arrived.transfer_syntax,
                    "octets": arrived.size,
                    "calling": printable(asce.calling_ae_title),
                }
            )

    def _over(self, reason: AssociationError, asce: Association) -> None:
        count = self._counts.pop(asce)
        host = getattr(asce.peer_address, "host", "")
        peer = f"{printable(asce.calling_ae_title)}@{host}"
        how = "released" if isinstance(reason, AssociationReleasedError) else str(reason)
        if self._shown.is_json:
            self._shown.json(
                {
                    "association": {
                        "peer": peer,
                        "kept": count.kept,
                        "refused": count.refused,
                        "octets": count.octets,
                        "end": how,
                        **({"disk": count.disk} if count.disk else {}),
                    }
                }
            )
        else:
            self._shown.line(
                printable_line(
                    f"{peer}: {counted(count.kept, 'instance')}, {count.refused} refused"
                    + (f" (our disk: {count.disk})" if count.disk else "")
                    + f", {count.octets / 1e6:.1f} MB; {how}"
                )
            )


async def _receive(
    session: Session, places: list[str], output: OutputDirectory, accept_all: bool
) -> int:
    from twisted.internet import defer

    from .common.receiving import ReceivingAE, serve

    session.ends_by_interrupt = True
    receipts = _Receipts(session.output)
    ae = session.ae(ReceivingAE, None, output, receipts, max_associations=_MAX_ASSOCIATIONS)
    serve(ae, takes_all=accept_all)
    ports = []
    for place in places:
        port = await listen(session.reactor, ae, place, session.common.tls)
        ports.append(port)
        host = port.getHost()
        if session.output.is_json:
            listening = {"host": getattr(host, "host", ""), "port": getattr(host, "port", 0)}
            session.output.json({"listening": {"ae_title": ae.ae_title, **listening}})
        session.output.note(f"{ae.ae_title} listening on {where(port)}, writing to {output.path}")
    forever: defer.Deferred[None] = defer.Deferred()
    await session.until_interrupted(forever)
    for port in ports:
        await port.stopListening()
    await ae.drain(_GRACE)
    return ExitCode.OK
