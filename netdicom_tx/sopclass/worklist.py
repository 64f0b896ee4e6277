"""Basic worklist management (PS3.4 Annex K): the modality worklist, a C-FIND."""

from __future__ import annotations

from typing import ClassVar

from pydicom.dataset import Dataset

from ..asceprovider import Association, ResponseStream
from ..negotiation import PContextDef
from ..statuses import Status
from ..uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS
from .base import sop_classes
from .query_retrieve import QueryRetrieveFind, qr_find_scu

__all__ = ["ModalityWorklist", "modality_work_list_scp", "modality_work_list_scu"]


@sop_classes([MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS])
def modality_work_list_scu(
    asce: Association,
    ctx: PContextDef,
    ds: Dataset,
    msg_id: int | None = None,
    *,
    timeout: float | None = None,
) -> ResponseStream[tuple[Dataset | None, Status]]:
    """Ask for scheduled procedure steps; the arguments are those of :func:`~netdicom_tx.sopclass.qr_find_scu`."""
    return qr_find_scu(asce, ctx, ds, msg_id, timeout=timeout)


class ModalityWorklist(QueryRetrieveFind):
    """The modality worklist, as SCP.

    Args:
        on_find: Answers a query, as :meth:`AE.on_receive_find` does; without it that hook is asked, whose
            ``context`` tells a worklist query from others.
        on_extended: Answers extended negotiation, as for :class:`~netdicom_tx.sopclass.QueryRetrieveFind`.
    """

    sop_classes: ClassVar[tuple[str, ...]] = (MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS,)


#: Answers a worklist query with what ``AE.on_receive_find`` yields.
modality_work_list_scp = ModalityWorklist()
