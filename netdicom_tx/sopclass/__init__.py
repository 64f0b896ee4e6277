"""Service classes of PS3.4, under the names of the seed page; everything is importable from here.

A service in the SCP role is a callable ``(asce, ctx, msg)``, in the SCU role ``(asce, ctx, *args,
**kwargs)``. Its attribute ``sop_classes`` names the abstract syntaxes it is registered for.
"""

from .base import (
    MessageDispatcher,
    MessageDispatcherSCP,
    MessageDispatcherSCU,
    sop_classes,
    store_in_file,
)
from .normalized import NormalizedSCU, normalized_scu
from .query_retrieve import (
    qr_find_scp,
    qr_find_scu,
    qr_get_scp,
    qr_get_scu,
    qr_move_scp,
    qr_move_scu,
)
from .storage import Instance, StoreResult, storage_scp, storage_scu, store_all
from .storage_commitment import (
    CommitmentResult,
    StorageCommitment,
    request_commitment,
    storage_commitment_scu,
)
from .verification import verification_scp, verification_scu
from .worklist import modality_work_list_scp, modality_work_list_scu

__all__ = [
    "CommitmentResult",
    "Instance",
    "MessageDispatcher",
    "MessageDispatcherSCP",
    "MessageDispatcherSCU",
    "NormalizedSCU",
    "StorageCommitment",
    "StoreResult",
    "modality_work_list_scp",
    "modality_work_list_scu",
    "normalized_scu",
    "qr_find_scp",
    "qr_find_scu",
    "qr_get_scp",
    "qr_get_scu",
    "qr_move_scp",
    "qr_move_scu",
    "request_commitment",
    "sop_classes",
    "storage_commitment_scu",
    "storage_scp",
    "storage_scu",
    "store_all",
    "store_in_file",
    "verification_scp",
    "verification_scu",
]
