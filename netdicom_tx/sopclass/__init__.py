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
from .instance_availability import (
    INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS,
    Available,
    InstanceAvailabilityNotification,
    availability,
    check_availability,
    instance_availability_scu,
)
from .normalized import NormalizedSCU, data_set_of, normalized_scu
from .procedure_step import (
    COMPLETED,
    DISCONTINUED,
    EVENTS,
    IN_PROGRESS,
    MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS,
    MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS,
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
    ModalityPerformedProcedureStep,
    ProcedureStepError,
    ProcedureStepSCU,
    check_create,
    mpps_create_scu,
    mpps_get_scu,
    mpps_set_scu,
    notify_procedure_step,
    procedure_step_scu,
    report_procedure_step,
    updated,
)
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
    "COMPLETED",
    "DISCONTINUED",
    "EVENTS",
    "INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS",
    "IN_PROGRESS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS",
    "Available",
    "CommitmentResult",
    "Instance",
    "InstanceAvailabilityNotification",
    "MessageDispatcher",
    "MessageDispatcherSCP",
    "MessageDispatcherSCU",
    "ModalityPerformedProcedureStep",
    "NormalizedSCU",
    "ProcedureStepError",
    "ProcedureStepSCU",
    "StorageCommitment",
    "StoreResult",
    "availability",
    "check_availability",
    "check_create",
    "data_set_of",
    "instance_availability_scu",
    "modality_work_list_scp",
    "modality_work_list_scu",
    "mpps_create_scu",
    "mpps_get_scu",
    "mpps_set_scu",
    "normalized_scu",
    "notify_procedure_step",
    "procedure_step_scu",
    "qr_find_scp",
    "qr_find_scu",
    "qr_get_scp",
    "qr_get_scu",
    "qr_move_scp",
    "qr_move_scu",
    "report_procedure_step",
    "request_commitment",
    "sop_classes",
    "storage_commitment_scu",
    "storage_scp",
    "storage_scu",
    "store_all",
    "store_in_file",
    "updated",
    "verification_scp",
    "verification_scu",
]
