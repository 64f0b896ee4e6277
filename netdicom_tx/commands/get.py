"""``netdicom get``: retrieve on the same association (PS3.4 C.4.3)."""

from __future__ import annotations

from typing import Any

import click
from pydicom.uid import UID, AllTransferSyntaxes

from .. import dsutils
from ..asceprovider import Association
from ..dimsemessages import Response
from ..negotiation import MAXIMUM_CONTEXTS, PContextDef
from ..requests import status_of
from ..sopclass import qr_get_scu, storage_scp
from ..uids import DEFAULT_TRANSFER_SYNTAXES, STORAGE_SOP_CLASSES, is_rare
from .failures import ExitCode, Problem, StatusFailure, bad_input
from .options import Common, common_options, examples, peer_argument
from .output import Output, printable_line
from .output import counted as plural
from .query import Query, key_option, model_options, retrieve_query
from .receiving import LAYOUTS, Arrived, OutputDirectory, ReceivingAE
from .session import Session, run


def output_options(command: Any) -> Any:
    """Where instances go."""
    for option in reversed(
        (
            click.option(
                "-o",
                "-od",
                "--output",
                "directory",
                default=".",
                metavar="DIR",
                help="Where to write; made when absent. The current directory.",
            ),
            click.option(
                "--layout",
                type=click.Choice(LAYOUTS),
                default=LAYOUTS[0],
                help="STUDY/SERIES/INSTANCE.dcm, or INSTANCE.dcm; study.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom get archive -k StudyInstanceUID=1.2.3 -o study/",
        "netdicom get archive -k SeriesInstanceUID=1.2.3.4 -x JPEG2000Lossless",
        "netdicom get archive -P -k PatientID=4711 --layout flat -o patient/",
    ),
)
@peer_argument
@key_option
@model_options("PSO")
@output_options
@click.option(
    "-x",
    "--transfer-syntax",
    "syntaxes",
    multiple=True,
    metavar="SYNTAX",
    help="Also take this one, by UID or keyword (JPEG2000Lossless), and rather; repeatable.",
)
@click.option(
    "--sop-class",
    "classes",
    multiple=True,
    metavar="CLASS",
    help="Take only this storage class, by UID or keyword (CTImageStorage); repeatable.",
)
@common_options
def command(
    common: Common,
    keys: tuple[str, ...],
    root: str,
    level: str | None,
    directory: str,
    layout: str,
    syntaxes: tuple[str, ...],
    classes: tuple[str, ...],
) -> int:
    """Retrieve on the same association (C-GET).

    Says on stdout, when that is no terminal, the path of each file as soon as it is written, synced
    and renamed. Without -x the peer is asked for uncompressed images.
    """
    query = retrieve_query(keys, root, level)
    identifier = query.identifier()
    taken = tuple(_named(text, STORAGE_SOP_CLASSES, "storage SOP class") for text in classes)
    wanted = tuple(_named(text, AllTransferSyntaxes, "transfer syntax") for text in syntaxes)
    contexts = get_contexts(query, taken or STORAGE_SOP_CLASSES, wanted)
    output = OutputDirectory(directory, layout)

    async def perform(session: Session) -> int:
        return await _get(session, query, identifier, contexts, output)

    return run(common, perform)


def _named(text: str, uids: Any, what: str) -> str:
    """A UID of some, by itself or by its keyword."""
    by_name = {UID(uid).keyword.lower(): str(uid) for uid in uids}
    if text in by_name.values():
        return text
    found = by_name.get(text.lower())
    if found is None or not text:
        raise bad_input(
            f"{text!r} is no {what}",
            "it is neither a UID nor a keyword of PS3.6",
            "see the keywords of PS3.6 Table A-1, for instance CTImageStorage, JPEG2000Lossless",
        )
    return found


def get_contexts(
    query: Query, classes: tuple[str, ...], syntaxes: tuple[str, ...]
) -> list[tuple[str, tuple[str, ...]]]:
    """What to propose: the C-GET, and what it may bring.

    A peer picks one transfer syntax of each context, so each that was asked for has a context of its
    own where there is room; where there is not, common classes come first.
    """
    plain = tuple(ts for ts in DEFAULT_TRANSFER_SYNTAXES if ts not in syntaxes)
    groups = [(ts,) for ts in syntaxes] + ([plain] if plain else [])
    room = MAXIMUM_CONTEXTS - 1
    ordered = sorted(classes, key=is_rare)
    if len(ordered) * len(groups) > room:
        groups = [(*syntaxes, *plain)]
    brought = [(uid, group) for uid in ordered for group in groups]
    return [(query.sop_class("C-GET"), DEFAULT_TRANSFER_SYNTAXES), *brought[:room]]


class Receipt:
    """Tells what arrives; shared by get and move."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.kept = 0
        self.refused = 0
        self.octets = 0

    def __call__(self, asce: Association, arrived: Arrived | None) -> None:
        if arrived is None:
            self.refused += 1
            return
        self.kept += 1
        self.octets += arrived.size
        if self._output.is_json:
            self._output.json(
                {
                    "file": arrived.path,
                    "sop_class_uid": arrived.sop_class_uid,
                    "sop_instance_uid": arrived.sop_instance_uid,
                    "transfer_syntax_uid": arrived.transfer_syntax,
                    "octets": arrived.size,
                }
            )
        elif not self._output.has_terminal:
            self._output.line(printable_line(arrived.path))


async def _get(
    session: Session,
    query: Query,
    identifier: Any,
    contexts: list[tuple[str, tuple[str, ...]]],
    output: OutputDirectory,
) -> int:
    address = session.common.address
    assert address is not None
    receipt = Receipt(session.output)
    sop_class = query.sop_class("C-GET")
    ae = session.ae(ReceivingAE, address, output, receipt).add_scu(qr_get_scu, [sop_class])
    brought: dict[str, None] = dict.fromkeys(uid for uid, _ in contexts[1:])
    ae.add_scp(
        storage_scp, brought, tuple(dict.fromkeys(ts for _, group in contexts for ts in group))
    )
    async with session.association(ae, address, contexts) as asce:
        stream = asce.get_scu(sop_class)(identifier)
        with (
            session.on_interrupt(stream.cancel),
            session.output.progress("get", unit="instances") as progress,
        ):
            seen = 0
            async for context, _ in stream:
                if context is not None:
                    follow(progress, stream.progress, receipt.octets - seen, receipt.kept)
                    seen = receipt.octets
        final = stream.final
        assert final is not None
        failures = failed_instances(final, asce, sop_class)
    return conclude(session, final, receipt, failures, output.path)


def follow(progress: Any, response: Response | None, octets: int, kept: int) -> None:
    """Draw how far the sub-operations are."""
    counted = {
        name: getattr(response, f"number_of_{name}_suboperations", None) or 0
        for name in ("remaining", "completed", "failed", "warning")
    }
    total = sum(counted.values())
    if total:
        progress.expect(total)
    progress.set(max(kept, total - counted["remaining"]), counted["failed"], octets)


def failed_instances(final: Response, asce: Association, sop_class: str) -> list[str]:
    """The Failed SOP Instance UID List (0008,0058) of a final response."""
    contexts: tuple[PContextDef, ...] = asce.contexts_for(sop_class)
    if not isinstance(final.data_set, bytes) or not contexts:
        return []
    try:
        found = dsutils.decode(final.data_set, contexts[0].supported_ts)
    except dsutils.DataSetError:
        return []
    value = found.get("FailedSOPInstanceUIDList") or []
    return [value] if isinstance(value, str) else [str(each) for each in value]


def conclude(
    session: Session,
    final: Response,
    receipt: Receipt | None,
    failures: list[str],
    where: str,
) -> int:
    """Say how it ended; the exit code."""
    output, operation, status = session.output, final.OPERATION, status_of(final)
    counted = {
        name: getattr(final, f"number_of_{name}_suboperations", None) or 0
        for name in ("completed", "failed", "warning")
    }
    problem = None
    if status.is_failure:
        problem = session.explain(StatusFailure(operation, status))
    elif status.is_warning or counted["failed"]:
        more = f"; failed: {', '.join(failures[:3])}" if failures else ""
        problem = Problem(
            ExitCode.SOME_FAILED,
            f"{plural(counted['failed'], 'instance')} could not be sent",
            f"{operation} ended with {status}{more}",
            "look in the log of the peer; images that are compressed there need -x SYNTAX"
            if operation == "C-GET"
            else "look in the logs of the peer and of the destination",
        )
    elif receipt is not None and counted["completed"] > receipt.kept + receipt.refused:
        problem = Problem(
            ExitCode.SOME_FAILED,
            f"the peer has sent {plural(counted['completed'], 'instance')}, {receipt.kept} arrived here",
            f"{operation} ended with {status}",
            "does the peer have another address for our AE title?",
        )
    if output.is_json:
        document: dict[str, Any] = {
            "status": f"{int(status):04X}",
            **counted,
            "failed_sop_instance_uids": failures,
        }
        if receipt is not None:
            document |= {"kept": receipt.kept, "octets": receipt.octets}
        if problem is not None:
            document["error"] = problem.as_json()
        output.json(document)
    number = counted["completed"] + counted["warning"] if receipt is None else receipt.kept
    if number or not status.is_failure:
        how = "sent to" if receipt is None else f"with {receipt.octets / 1e6:.1f} MB in"
        output.note(f"{plural(number, 'instance')} {how} {where}")
    if problem is None:
        return ExitCode.OK
    output.problem(problem, in_json=False)
    return problem.code
