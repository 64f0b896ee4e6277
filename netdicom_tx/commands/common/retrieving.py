"""The code that get, move and receive share: the progress of a retrieval, and the report of its end."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from ... import dsutils
from ...requests import status_of
from .failures import ExitCode, Problem, StatusFailure
from .output import Output, counted, printable_line
from .report import Report

if TYPE_CHECKING:
    from ...asceprovider import Association
    from ...dimsemessages import Response
    from ...negotiation import PContextDef
    from .directory import Arrived
    from .session import Session

__all__ = ["Receipt", "conclude", "failed_instances", "follow"]


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
    is_worth_saying = number or not status.is_failure
    return Report(
        document=document,
        summary=f"{counted(number, 'instance')} {how} {where}" if is_worth_saying else "",
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
