"""``netdicom move``: have a peer send instances to another AE, or here (PS3.4 C.4.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from .common.addresses import Address, check_title
from .common.failures import bad_input
from .common.listening import endpoint_string, listening
from .common.options import (
    Common,
    common_options,
    examples,
    found_option,
    key_option,
    model_options,
    output_options,
    peer_argument,
)
from .common.session import Session, run

if TYPE_CHECKING:
    from .common.directory import OutputDirectory
    from .common.retrieving import Receipt
    from .common.selecting import Selection

_HERE = "here"  # --receive without a value
_PORT = 11112
# How many seconds open associations have to end once the C-MOVE is complete.
_GRACE = 2.0


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom move archive -k StudyInstanceUID=1.2.3 --to WORKSTATION1",
        "netdicom move archive -k PatientID=4711 -k StudyDate=20260101- --to WORKSTATION1",
        "netdicom move archive -k StudyInstanceUID=1.2.3 -aet WORKSTATION1 --receive=11112 -o study/",
    ),
)
@peer_argument
@key_option
@model_options("PSO")
@found_option
@click.option(
    "-aem",
    "--to",
    "destination",
    metavar="TITLE",
    help="Send to the AE with this title, which the peer must know.",
)
@click.option(
    "--receive",
    "endpoint",
    is_flag=False,
    flag_value=_HERE,
    metavar="[ENDPOINT]",
    help="Receive here: listen while the C-MOVE runs, at a port, host:port, or a Twisted endpoint "
    "(default: port 11112).",
)
@output_options
@common_options
def command(
    common: Common,
    keys: tuple[str, ...],
    root: str,
    level: str | None,
    limit: int,
    destination: str | None,
    endpoint: str | None,
    directory: str,
    layout: str,
) -> int:
    """Have a peer send instances to another AE, or here (C-MOVE).

    A study, series or instance is named by its UID, a patient by -P and the Patient ID. With other keys, such as a
    date or a modality, the peer is asked first (C-FIND), and each study or series that it has found is sent.

    The peer must know the AE title of the destination, with its address. With --receive a Storage
    SCP runs here for as long as the C-MOVE takes, under our own AE title (-aet) or that of --to. It
    listens on every interface, but without ENDPOINT only on 127.0.0.1 when the peer is on this machine.

    Exits with 10 when the peer has nothing that matches, and with 11 when the local disk is full.
    """
    from .common.directory import OutputDirectory
    from .common.selecting import selection

    wanted = selection(keys, root, level, limit)
    wanted.identifier()  # a value that cannot be sent is told before the peer is called
    if destination is None and endpoint is None:
        raise bad_input(
            "the destination is missing",
            "C-MOVE needs the AE title that the peer is to send to",
            "pass --to TITLE, or --receive to receive the instances here",
        )
    if destination is not None:
        destination = check_title(destination, "--to")
    output = None
    if endpoint is not None:
        assert common.address is not None
        endpoint = _listen_at(endpoint, common.address)
        output = OutputDirectory(directory, layout)

    async def perform(session: Session) -> int:
        return await _move(session, wanted, destination, endpoint, output)

    return run(common, perform)


def _listen_at(text: str, peer: Address) -> str:
    """The endpoint for ``--receive``; without a value it is opened no further than the peer needs."""
    if text == _HERE:
        text = f"127.0.0.1:{_PORT}" if peer.is_loopback else str(_PORT)
    return endpoint_string(text)


async def _move(
    session: Session,
    wanted: Selection,
    destination: str | None,
    endpoint: str | None,
    output: OutputDirectory | None,
) -> int:
    from ..applicationentity import AE
    from ..sopclass import qr_find_scu, qr_move_scu
    from .common.retrieving import (
        Receipt,
        conclude,
        conclude_all,
        failed_instances,
        follow,
        retrieve_each,
    )

    address = session.common.address
    assert address is not None
    query = wanted.query
    sop_class = query.sop_class("C-MOVE")
    ae = session.ae(AE, address).add_scu(qr_move_scu, [sop_class])
    if wanted.is_found_first:
        ae.add_scu(qr_find_scu, [query.sop_class("C-FIND")])
    title = destination or session.own_title(address)
    receipt = Receipt(session.output) if output is not None else None
    async with (
        _receiver(session, title, endpoint, output, receipt) as target,
        session.association(ae, address) as asce,
    ):
        if wanted.is_found_first:
            move = asce.get_scu(sop_class)
            done = await retrieve_each(
                *(session, asce, wanted, sop_class), lambda asked: move(asked, target), receipt
            )
        else:
            stream = asce.get_scu(sop_class)(wanted.identifier(), target)
            with (
                session.on_interrupt(stream.cancel),
                session.output.progress("move", unit="instances") as progress,
            ):
                seen = 0
                async for _, response in stream:
                    kept, octets = (receipt.number, receipt.octets) if receipt else (0, 0)
                    follow(progress, response, octets - seen, kept)
                    seen = octets
            final = stream.final
            assert final is not None
            failures = failed_instances(final, asce, sop_class)
    place = output.path if output is not None else title
    if wanted.is_found_first:
        return conclude_all(session, done, receipt, place)
    return conclude(session, final, receipt, failures, place)


@asynccontextmanager
async def _receiver(
    session: Session,
    title: str,
    endpoint: str | None,
    output: OutputDirectory | None,
    receipt: Receipt | None,
) -> AsyncIterator[Any]:
    """The destination: an AE title, or an AE that listens while the block runs."""
    if endpoint is None or output is None or receipt is None:
        yield title
        return
    from .common.receiving import ReceivingAE, serve

    target = session.ae(ReceivingAE, None, output, receipt, ae_title=title)
    serve(target, takes_all=True)
    try:
        async with listening(session, target, endpoint):
            yield target
    finally:
        if not session.is_interrupted:
            await target.drain(_GRACE)
