"""Basic worklist management (PS3.4 Annex K): the modality worklist, a C-FIND."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from ..asceprovider import Association, ResponseStream
from ..dimsemessages import Request
from ..negotiation import PContextDef
from ..statuses import Status
from ..uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS
from .base import answers, sop_classes
from .query_retrieve import qr_find_scp, qr_find_scu

__all__ = ["modality_work_list_scp", "modality_work_list_scu"]


@sop_classes([MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS])
def modality_work_list_scu(
    asce: Association,
    ctx: PContextDef,
    ds: Dataset,
    msg_id: int | None = None,
    *,
    timeout: float | None = None,
) -> ResponseStream[tuple[Dataset | None, Status]]:
    """Ask for scheduled procedure steps; as :func:`~netdicom_tx.sopclass.qr_find_scu`."""
    return qr_find_scu(asce, ctx, ds, msg_id, timeout=timeout)


@answers("C-FIND")
@sop_classes([MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS])
def modality_work_list_scp(asce: Association, ctx: PContextDef, msg: Request) -> Any:
    """Answer with what ``AE.on_receive_find`` yields; its ``context`` tells it from other queries."""
    return qr_find_scp(asce, ctx, msg)
