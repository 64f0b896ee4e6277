"""One log line for each operation of a peer that has failed, with what to do."""

from __future__ import annotations

from typing import Final

from ..asceprovider import Association
from ..dimsemessages import Request, Response
from ..exceptions import printable
from ..logs import Logger
from ..statuses import C_MOVE_DESTINATION_UNKNOWN, NOT_AUTHORIZED, Status

__all__ = ["tell_failure"]

_log = Logger()

# What has a line of its own that says more: a C-STORE is told where an instance is refused, and the disk is told once.
_TOLD_ELSEWHERE: Final = frozenset({NOT_AUTHORIZED, C_MOVE_DESTINATION_UNKNOWN})
_HINTS: Final = {
    0x0110: "the lines above say why",
    0x0111: "the peer has created it before; it may change it",
    0x0112: "the peer has not created it here, or it has been deleted",
    0x0118: "the peer should propose what the conformance statement lists",
    0x0122: "the peer should propose what the conformance statement lists",
    0x0213: "see disk and database: netdicom doctor",
    0xA700: "see disk and database: netdicom doctor",
    0xA701: "see disk and database: netdicom doctor",
    0xA702: "the lines above say which instances, and why",
    0xA900: "the peer should send what its query model has, or correct the key that its message names",
    0xC000: "the Error Comment, which the peer has got, says why",
    0xB000: "the lines above say which instances; the peer may ask for them again",
}


def tell_failure(asce: Association, msg: Request, response: Response) -> None:
    """Log that an operation of a peer has ended with a failure or a warning, unless that is told elsewhere."""
    status = Status(response.status, msg.OPERATION)
    if msg.OPERATION == "C-STORE" or not (status.is_failure or status.is_warning):
        return
    if status in _TOLD_ELSEWHERE:
        return
    failed = getattr(response, "number_of_failed_suboperations", None)
    done = getattr(response, "number_of_completed_suboperations", None)
    destination = getattr(msg, "move_destination", None)
    counts = f" (sent {done or 0} of {(done or 0) + failed} instances)" if failed else ""
    to = f" to {printable(destination)}" if destination else ""
    _log.warn(
        "{operation} {id} from {peer}{to} ended with {status}{counts}; {hint}",
        operation=msg.OPERATION,
        id=msg.message_id,
        peer=asce.peer_title,
        to=to,
        status=status,
        counts=counts,
        hint=_HINTS.get(int(status), "PS3.4 and PS3.7 say what the status means")
        + (
            "; does the destination answer? netdicom doctor"
            if destination and status == 0xA702
            else ""
        ),
        failed=failed,
        event="operation-failed",
    )
