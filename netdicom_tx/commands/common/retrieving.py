"""The code that get, move and receive share: the progress of a retrieval, and the report of its end."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.datadict import keyword_for_tag

from ... import dsutils
from ...requests import status_of
from .failures import ExitCode, Problem, StatusFailure
from .output import Output, counted, printable_line
from .report import Report
from .selecting import Found, find_first, things

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ...asceprovider import Association
    from ...dimsemessages import Response
    from ...negotiation import PContextDef
    from .directory import Arrived
    from .selecting import Selection
    from .session import Session

__all__ = [
    "Receipt",
    "Retrieved",
    "conclude",
    "conclude_all",
    "failed_instances",
    "follow",
    "retrieve_each",
]


class Receipt:
    """Counts and shows the instances that a C-GET or C-MOVE brings.

    Attributes:
        number: The number of instances that were kept.
        octets: The size of these instances.
        failed: The number of instances that arrived and were not kept.
        failure: Why the first of these was not kept; an OSError of the disk takes precedence.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self.number = 0
        self.octets = 0
        self.failed = 0
        self.failure: Exception | None = None

    def began(self, asce: Association) -> None:
        """Show nothing: only instances are counted."""

    def refused(self, asce: Association, error: Exception) -> None:
        self.failed += 1
        if self.failure is None or (
            isinstance(error, OSError) and not isinstance(self.failure, OSError)
        ):
            self.failure = error

    def kept(self, asce: Association, arrived: Arrived) -> None:
        self.number += 1
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


def follow(progress: Any, response: Response | None, octets: int, kept: int) -> None:
    """Show how many sub-operations are done."""
    counts = {
        name: getattr(response, f"number_of_{name}_suboperations", None) or 0
        for name in ("remaining", "completed", "failed", "warning")
    }
    total = sum(counts.values())
    if total:
        progress.expect(total)
    progress.set(max(kept, total - counts["remaining"]), counts["failed"], octets)


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
    """Report how a C-GET or C-MOVE ended; returns the exit code.

    Args:
        receipt: The instances that arrived here; None when they went to another AE.
        failures: The SOP Instance UIDs that the peer could not send.
        where: The directory or the AE title that the instances went to.
    """
    status = status_of(final)
    counts = {
        name: getattr(final, f"number_of_{name}_suboperations", None)
        for name in ("completed", "failed", "warning")
    }
    document: dict[str, Any] = {
        "status": f"{int(status):04X}",
        **{name: number or 0 for name, number in counts.items()},
        "failed_sop_instance_uids": failures,
    }
    if receipt is None:
        number, how = (counts["completed"] or 0) + (counts["warning"] or 0), "sent to"
    else:
        number, how = receipt.number, f"with {receipt.octets / 1e6:.1f} MB in"
        document |= {"kept": receipt.number, "octets": receipt.octets}
    said = f"{counted(number, 'instance')} {how} {where}"
    if receipt is None and not any(each is not None for each in counts.values()):
        # PS3.7 9.3.4.2: the counters are required in Pending responses only.
        said = f"sent to {where}; the peer does not say how many instances"
    is_worth_saying = number or not status.is_failure
    return Report(
        document=document,
        summary=said if is_worth_saying else "",
        problem=_problem(session, final, receipt, failures, counts, where),
    ).show(session.output)


def _problem(
    session: Session,
    final: Response,
    receipt: Receipt | None,
    failures: list[str],
    counts: dict[str, int | None],
    where: str,
) -> Problem | None:
    """Why a retrieval failed; None when it succeeded."""
    operation, status = final.OPERATION, status_of(final)
    ended = f"{operation} ended with {status}"
    if receipt is not None and receipt.failure is not None:
        return _not_kept(receipt, where)
    if status.is_failure:
        return session.explain(StatusFailure(operation, status))
    if status.is_warning or counts["failed"]:
        more = f"; failed: {', '.join(failures[:3])}" if failures else ""
        return Problem(
            ExitCode.SOME_FAILED,
            f"{counted(counts['failed'] or 0, 'instance')} could not be sent",
            f"{ended}{more}",
            "look in the peer's log; instances that are compressed there need -x SYNTAX"
            if operation == "C-GET"
            else "look in the logs of the peer and of the destination",
        )
    completed = counts["completed"]
    if receipt is not None and (completed or 0) > receipt.number:
        return Problem(
            ExitCode.SOME_FAILED,
            f"the peer sent {counted(completed or 0, 'instance')}, but {receipt.number} arrived here",
            ended,
            "does the peer have another address for our AE title?",
        )
    arrived = completed if receipt is None else receipt.number
    if arrived == 0 and not counts["warning"] and not session.is_interrupted:
        return Problem(
            ExitCode.NOTHING,
            "the peer has nothing that matches",
            f"{ended}, and no instance was sent",
            "check the keys; netdicom find shows what the peer has",
        )
    return None


def _not_kept(receipt: Receipt, where: str) -> Problem:
    """Why instances that arrived were not kept."""
    number = counted(receipt.failed, "instance")
    if isinstance(receipt.failure, OSError):
        error = receipt.failure
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return Problem(
            ExitCode.LOCAL_DISK,
            f"{number} could not be written to {where} on this machine",
            f"{reason}; {receipt.number} written",
            f"{'make room' if is_full else 'look at the directory'}, or name another one with -o DIR, and "
            "retrieve again",
        )
    return Problem(
        ExitCode.SOME_FAILED,
        f"netdicom refused {number} of the peer",
        f"the first: {receipt.failure}; {receipt.number} written",
        "the peer's copies are damaged, or are not the instances that it announced",
    )


# -- several retrievals, one for each study or series that was found --------------------------------


@dataclass(slots=True)
class Retrieved:
    """How several retrievals have ended.

    Attributes:
        level: Their level.
        found: What was found, and is to be retrieved.
        ended: What was retrieved, with the final response and the SOP Instance UIDs that the peer could not send.
    """

    level: str
    found: Sequence[Found]
    ended: list[tuple[Found, Response, list[str]]] = field(default_factory=list)

    def count(self, name: str) -> int:
        """The sub-operations of all of them that ended in one way."""
        return sum(
            getattr(final, f"number_of_{name}_suboperations", None) or 0
            for _, final, _ in self.ended
        )


async def retrieve_each(
    session: Session,
    asce: Association,
    wanted: Selection,
    sop_class: str,
    start: Callable[[Dataset], Any],
    receipt: Receipt | None,
) -> Retrieved:
    """Find what the keys of a selection say, and retrieve one after the other.

    Args:
        start: Starts a C-GET or C-MOVE with an identifier.
        receipt: The instances that arrive here; None when they go to another AE.

    Raises:
        CommandError: More was found than the limit allows.
        StatusFailure: A C-FIND has failed.
    """
    done = Retrieved(wanted.level, await find_first(session, asce, wanted))
    with session.output.progress("retrieve", unit=wanted.thing, total=len(done.found)) as progress:
        seen = 0
        for found in done.found:
            if session.is_interrupted:
                break
            stream = start(wanted.identifier(found))
            with session.on_interrupt(stream.cancel):
                async for _ in stream:
                    octets = receipt.octets if receipt is not None else 0
                    progress.set(len(done.ended), progress.failed, octets - seen)
                    seen = octets
            final = stream.final
            assert final is not None
            done.ended.append((found, final, failed_instances(final, asce, sop_class)))
            progress.advance(failed=status_of(final).is_failure)
    return done


def conclude_all(session: Session, done: Retrieved, receipt: Receipt | None, where: str) -> int:
    """Report how several retrievals have ended; returns the exit code.

    Args:
        receipt: The instances that arrived here; None when they went to another AE.
        where: The directory or the AE title that the instances went to.
    """
    counts = {name: done.count(name) for name in ("completed", "failed", "warning")}
    number = counts["completed"] + counts["warning"] if receipt is None else receipt.number
    document: dict[str, Any] = {
        "found": len(done.found),
        **counts,
        "failed_sop_instance_uids": [uid for _, _, failures in done.ended for uid in failures],
        "retrievals": [
            {
                **{keyword_for_tag(tag): value for tag, value in found.items()},
                "status": f"{int(status_of(final)):04X}",
                "completed": getattr(final, "number_of_completed_suboperations", None) or 0,
            }
            for found, final, _ in done.ended
        ],
    }
    if receipt is not None:
        document |= {"kept": receipt.number, "octets": receipt.octets}
    how = "sent to" if receipt is None else f"with {receipt.octets / 1e6:.1f} MB in"
    of = f"{len(done.ended)} of {things(len(done.found), done.level)}"
    return Report(
        document=document,
        summary=f"{of}: {counted(number, 'instance')} {how} {where}" if done.found else "",
        problem=_problem_of_all(session, done, receipt, counts, where),
    ).show(session.output)


def _problem_of_all(
    session: Session,
    done: Retrieved,
    receipt: Receipt | None,
    counts: dict[str, int],
    where: str,
) -> Problem | None:
    if session.is_interrupted:
        return None
    if not done.found:
        return Problem(
            ExitCode.NOTHING,
            "the peer has nothing that matches",
            f"C-FIND found no {things(2, done.level).removeprefix('2 ')} with these keys",
            "check the keys; netdicom find shows what the peer has",
        )
    if receipt is not None and receipt.failure is not None:
        return _not_kept(receipt, where)
    refused = [
        (final, status_of(final)) for _, final, _ in done.ended if status_of(final).is_failure
    ]
    if refused:
        final, status = refused[0]
        if len(refused) == len(done.found):
            return session.explain(StatusFailure(final.OPERATION, status))
        return Problem(
            ExitCode.SOME_FAILED,
            f"{len(refused)} of {things(len(done.found), done.level)} could not be retrieved",
            f"{final.OPERATION} ended with {status}",
            "look in the peer's log; with --json each retrieval is listed with its status",
        )
    if counts["failed"]:
        return Problem(
            ExitCode.SOME_FAILED,
            f"{counted(counts['failed'], 'instance')} could not be sent",
            f"{len(done.ended)} of {things(len(done.found), done.level)} were retrieved",
            "look in the logs of the peer and of the destination; --json names the instances",
        )
    arrived = counts["completed"] + counts["warning"] if receipt is None else receipt.number
    if receipt is not None and counts["completed"] > receipt.number:
        return Problem(
            ExitCode.SOME_FAILED,
            f"the peer sent {counted(counts['completed'], 'instance')}, but {receipt.number} arrived here",
            f"{things(len(done.ended), done.level)} retrieved",
            "does the peer have another address for our AE title?",
        )
    if not arrived:
        return Problem(
            ExitCode.NOTHING,
            "the peer has sent nothing",
            f"C-FIND found {things(len(done.found), done.level)}, but no instance was sent",
            "does the peer have the instances, or only their names? look in its log",
        )
    return None
