"""``netdicom get``: retrieve on the same association (PS3.4 C.4.3)."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from ..negotiation import MAXIMUM_CONTEXTS, contexts_to_receive
from ..uids import DEFAULT_TRANSFER_SYNTAXES, STORAGE_SOP_CLASSES
from .common.failures import bad_input
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
    from .common.query import Query
    from .common.selecting import Selection

_EXAMPLES = {
    "storage SOP class": "CTImageStorage",
    "transfer syntax": "JPEG2000Lossless",
}


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom get archive -k StudyInstanceUID=1.2.3 -o study/",
        "netdicom get archive -k SeriesInstanceUID=1.2.3.4 -x JPEG2000Lossless",
        "netdicom get archive -k Modality=CT -k StudyDate=20260101-20260131 -o january/",
        "netdicom get archive -P -k PatientID=4711 --layout flat -o patient/",
    ),
)
@peer_argument
@key_option
@model_options("PSO")
@found_option
@output_options
@click.option(
    "-x",
    "--transfer-syntax",
    "syntaxes",
    multiple=True,
    metavar="SYNTAX",
    help="Accept this transfer syntax too, and prefer it: a UID or a keyword such as JPEG2000Lossless; "
    "may be repeated (default: uncompressed ones only).",
)
@click.option(
    "--sop-class",
    "classes",
    multiple=True,
    metavar="CLASS",
    help="Accept only this storage class: a UID or a keyword such as CTImageStorage; may be repeated "
    "(default: all common ones).",
)
@common_options
def command(
    common: Common,
    keys: tuple[str, ...],
    root: str,
    level: str | None,
    limit: int,
    directory: str,
    layout: str,
    syntaxes: tuple[str, ...],
    classes: tuple[str, ...],
) -> int:
    """Retrieve on the same association (C-GET).

    A study, series or instance is named by its UID, a patient by -P and the Patient ID. With other keys, such as a
    date or a modality, the peer is asked first (C-FIND), and each study or series that it has found is retrieved.

    When stdout is not a terminal, the path of each file is written to it as soon as the file is safe on
    the disk. Without -x the peer is asked for uncompressed images.

    Exits with 10 when the peer has nothing that matches, and with 11 when the local disk is full.
    """
    from pydicom.uid import AllTransferSyntaxes

    from .common.directory import OutputDirectory
    from .common.selecting import selection

    wanted = selection(keys, root, level, limit)
    query = wanted.query
    wanted.identifier()  # a value that cannot be sent is told before the peer is called
    taken = tuple(_named(text, STORAGE_SOP_CLASSES, "storage SOP class") for text in classes)
    preferred = tuple(_named(text, AllTransferSyntaxes, "transfer syntax") for text in syntaxes)
    before = (query.sop_class("C-FIND"),) if wanted.is_found_first else ()
    contexts = get_contexts(query, taken or STORAGE_SOP_CLASSES, preferred, before)
    output = OutputDirectory(directory, layout)

    async def perform(session: Session) -> int:
        return await _get(session, wanted, contexts, output)

    return run(common, perform)


def _named(text: str, uids: Any, what: str) -> str:
    """The UID that an argument names, by itself or by its keyword.

    Raises:
        CommandError: No UID of ``uids`` has this name.
    """
    from pydicom.uid import UID

    by_name = {UID(uid).keyword.lower(): str(uid) for uid in uids}
    if text in by_name.values():
        return text
    found = by_name.get(text.lower())
    if found is None or not text:
        near = difflib.get_close_matches(text.lower(), by_name, n=2)
        known = " or ".join(UID(by_name[each]).keyword for each in near)
        raise bad_input(
            f"{text!r} is not a {what}",
            "expected a UID or a keyword of PS3.6 Table A-1",
            f"did you mean {known}?" if near else f"for example {_EXAMPLES[what]}",
        )
    return found


def get_contexts(
    query: Query, classes: tuple[str, ...], syntaxes: tuple[str, ...], before: tuple[str, ...] = ()
) -> list[tuple[str, tuple[str, ...]]]:
    """The presentation contexts to propose: one for the C-GET, and those of the instances that it may bring.

    The transfer syntaxes that the user has asked for stand before the uncompressed ones.

    Args:
        before: The SOP classes of what is asked before.
    """
    wanted = tuple(dict.fromkeys((*syntaxes, *DEFAULT_TRANSFER_SYNTAXES)))
    brought = contexts_to_receive(
        [(uid, wanted) for uid in classes], MAXIMUM_CONTEXTS - 1 - len(before), alone=wanted
    )
    asked = [(uid, DEFAULT_TRANSFER_SYNTAXES) for uid in (query.sop_class("C-GET"), *before)]
    return [*asked, *brought]


async def _get(
    session: Session,
    wanted: Selection,
    contexts: list[tuple[str, tuple[str, ...]]],
    output: OutputDirectory,
) -> int:
    from ..sopclass import qr_find_scu, qr_get_scu, storage_scp
    from .common.receiving import ReceivingAE
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
    receipt = Receipt(session.output)
    query = wanted.query
    sop_class = query.sop_class("C-GET")
    ae = session.ae(ReceivingAE, address, output, receipt).add_scu(qr_get_scu, [sop_class])
    asked = 1
    if wanted.is_found_first:
        ae.add_scu(qr_find_scu, [query.sop_class("C-FIND")])
        asked = 2
    brought: dict[str, None] = dict.fromkeys(uid for uid, _ in contexts[asked:])
    ae.add_scp(
        storage_scp, brought, tuple(dict.fromkeys(ts for _, group in contexts for ts in group))
    )
    async with session.association(ae, address, contexts) as asce:
        if wanted.is_found_first:
            start = asce.get_scu(sop_class)
            done = await retrieve_each(session, asce, wanted, sop_class, start, receipt)
        else:
            stream = asce.get_scu(sop_class)(wanted.identifier())
            with (
                session.on_interrupt(stream.cancel),
                session.output.progress("get", unit="instances") as progress,
            ):
                seen = 0
                async for context, _ in stream:
                    if context is not None:
                        follow(progress, stream.progress, receipt.octets - seen, receipt.number)
                        seen = receipt.octets
            final = stream.final
            assert final is not None
            failures = failed_instances(final, asce, sop_class)
    if wanted.is_found_first:
        return conclude_all(session, done, receipt, output.path)
    return conclude(session, final, receipt, failures, output.path)
