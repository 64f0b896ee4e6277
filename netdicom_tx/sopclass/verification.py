"""Verification service class (PS3.4 Annex A): C-ECHO."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from twisted.internet import defer

from ..asceprovider import Association
from ..dimsemessages import CEchoRQ, Request
from ..hooks import RequestContext
from ..negotiation import PContextDef
from ..requests import status_of
from ..statuses import Status
from ..uids import VERIFICATION_SOP_CLASS
from .base import MessageDispatcherSCP, ae_of, sop_classes

__all__ = ["Verification", "verification_scp", "verification_scu"]


@sop_classes([VERIFICATION_SOP_CLASS])
def verification_scu(
    asce: Association, ctx: PContextDef, msg_id: int | None = None
) -> defer.Deferred[Status]:
    """Ask whether the peer is there and speaks DICOM.

    Args:
        asce: The association to ask on.
        ctx: The context of Verification.
        msg_id: The message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status; fails and cancels as :meth:`Association.request` says.
    """
    request = CEchoRQ(affected_sop_class_uid=ctx.sop_class, message_id=msg_id)
    return asce.request(request, ctx).addCallback(status_of)


class Verification(MessageDispatcherSCP):
    """Verification, as SCP.

    Args:
        on_echo: Answers a request with a status; without it ``AE.on_receive_echo(context)`` does.
    """

    sop_classes: ClassVar[tuple[str, ...]] = (VERIFICATION_SOP_CLASS,)
    operations: ClassVar[tuple[str, ...]] = ("C-ECHO",)

    def __init__(
        self, *, on_echo: Callable[[RequestContext], int | Awaitable[int]] | None = None
    ) -> None:
        self._use(on_echo=on_echo)

    def c_echo(self, asce: Association, ctx: PContextDef, msg: Request) -> int | Awaitable[int]:
        """Answer C-ECHO (PS3.4 A.4)."""
        return self.on_echo(RequestContext.of(asce, ctx, msg))

    def on_echo(self, context: RequestContext) -> int | Awaitable[int]:
        """Say whether the AE is there; see :meth:`AE.on_receive_echo`."""
        hooks = ae_of(context.association)
        return hooks.on_receive_echo(context)


#: Answers C-ECHO with what ``AE.on_receive_echo`` returns.
verification_scp = Verification()
