"""Verification service class (PS3.4 Annex A): C-ECHO."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet import defer

from ..asceprovider import Association
from ..dimsemessages import CEchoRQ, Request
from ..hooks import Hooks
from ..negotiation import PContextDef
from ..requests import status_of
from ..statuses import Status
from ..uids import VERIFICATION_SOP_CLASS
from .base import answers, sop_classes

__all__ = ["verification_scp", "verification_scu"]


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


@answers("C-ECHO")
@sop_classes([VERIFICATION_SOP_CLASS])
def verification_scp(asce: Association, ctx: PContextDef, msg: Request) -> int | Awaitable[int]:
    """Answer C-ECHO with what ``AE.on_receive_echo`` returns."""
    hooks: Hooks = asce.ae
    return hooks.on_receive_echo(ctx)
