"""What get, move and receive share: where instances go, and how a retrieval is told."""

from __future__ import annotations

from typing import Any

from ... import dsutils
from ...asceprovider import Association
from ...dimsemessages import Response
from ...negotiation import PContextDef
from ...requests import status_of
from .failures import ExitCode, Problem, StatusFailure
from .output import Output, counted, printable_line
from .receiving import Arrived
from .report import Report
from .session import Session

__all__ = ["Receipt", "conclude", "failed_instances", "follow"]


class Receipt:
    """Counts and shows the instances that a C-GET or C-MOVE brings.

    Attributes:
        number: How many were kept.
        failed: How many were not.
        octets: The size of those that were kept.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self.number = 0
        self.failed = 0
        self.octets = 0

    def began(self, asce: Association) -> None:
        """An association is nothing to tell of."""

    def refused(self, asce: Association, error: Exception) -> None:
        self.failed += 1

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
    """Draw how far the sub-operations are."""
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
        receipt: What arrived here; None when the instances went to another AE.
        failures: The SOP Instance UIDs that the peer could not send.
        where: The directory or the AE title that the instances went to.
    """
    status = status_of(final)
    counts = {
        name: getattr(final, f"number_of_{name}_suboperations", None) or 0
        for name in ("completed", "failed", "warning")
    }
    document: dict[str, Any] = {
        "status": f"{int(status):04X}",
        **counts,
        "failed_sop_instance_uids": failures,
    }
    if receipt is None:
        number, how = counts["completed"] + counts["warning"], "sent to"
    else:
        number, how = receipt.number, f"with {receipt.octets / 1e6:.1f} MB in"
        document |= {"kept": receipt.number, "octets": receipt.octets}
    is_worth_saying = number or not status.is_failure
    return Report(
        document=document,
        summary=f"{counted(number, 'instance')} {how} {where}" if is_worth_saying else "",
        problem=_problem(session, final, receipt, failures, counts),
    ).show(session.output)


def _problem(
    session: Session,
    final: Response,
    receipt: Receipt | None,
    failures: list[str],
    counts: dict[str, int],
) -> Problem | None:
    """Why a retrieval failed, if it did."""
    operation, status = final.OPERATION, status_of(final)
    if status.is_failure:
        return session.explain(StatusFailure(operation, status))
    if status.is_warning or counts["failed"]:
        more = f"; failed: {', '.join(failures[:3])}" if failures else ""
        return Problem(
            ExitCode.SOME_FAILED,
            f"{counted(counts['failed'], 'instance')} could not be sent",
            f"{operation} ended with {status}{more}",
            "look in the log of the peer; images that are compressed there need -x SYNTAX"
            if operation == "C-GET"
            else "look in the logs of the peer and of the destination",
        )
    if receipt is not None and counts["completed"] > receipt.number + receipt.failed:
        return Problem(
            ExitCode.SOME_FAILED,
            f"the peer has sent {counted(counts['completed'], 'instance')}, "
            f"{receipt.number} arrived here",
            f"{operation} ended with {status}",
            "does the peer have another address for our AE title?",
        )
    return None
