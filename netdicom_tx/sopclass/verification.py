"""Verification service class (PS3.4 Annex A): C-ECHO."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet import defer

from ..asceprovider import Association
from ..dimsemessages import CEchoRQ, Request, Response
from ..negotiation import PContextDef
from ..statuses import Status
from ..uids import VERIFICATION_SOP_CLASS
from .base import sop_classes

__all__ = ["verification_scp", "verification_scu"]


def status_of(response: Response) -> Status:
    """The status of a response, with its words and its Error Comment."""
    return Status(response.status, response.OPERATION, response.error_comment or "")


@sop_classes([VERIFICATION_SOP_CLASS])
def verification_scu(
    asce: Association, ctx: PContextDef, msg_id: int | None = None
) -> defer.Deferred[Status]:
    """Ask whether the peer is there and speaks DICOM.

    Args:
        msg_id: Message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status; fails and cancels as :meth:`Association.request` says.
    """
    request = CEchoRQ(affected_sop_class_uid=ctx.sop_class, message_id=msg_id)
    return asce.request(request, ctx).addCallback(status_of)


@sop_classes([VERIFICATION_SOP_CLASS])
def verification_scp(asce: Association, ctx: PContextDef, msg: Request) -> int | Awaitable[int]:
    """Answer C-ECHO with what ``AE.on_receive_echo`` returns."""
    return asce.ae.on_receive_echo(ctx)
