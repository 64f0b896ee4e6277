"""Service classes of PS3.4, under the names of netdicom2; everything is importable from here.

A service in the SCP role is a callable ``(asce, ctx, msg)``, in the SCU role ``(asce, ctx, *args,
**kwargs)``. Its attribute ``sop_classes`` names the abstract syntaxes it is registered for.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .base import (
        MessageDispatcher,
        MessageDispatcherSCP,
        MessageDispatcherSCU,
        sop_classes,
        store_in_file,
        suboperations,
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
        EVENTS,
        MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS,
        MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS,
        MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
        ModalityPerformedProcedureStep,
        ProcedureStepSCU,
        mpps_create_scu,
        mpps_get_scu,
        mpps_set_scu,
        notify_procedure_step,
        procedure_step_scu,
        report_procedure_step,
    )
    from .query_retrieve import (
        QueryRetrieveFind,
        QueryRetrieveGet,
        QueryRetrieveMove,
        qr_find_scp,
        qr_find_scu,
        qr_get_scp,
        qr_get_scu,
        qr_move_scp,
        qr_move_scu,
    )
    from .sending import StoreResult, store_all
    from .step_rules import (
        COMPLETED,
        DISCONTINUED,
        IN_PROGRESS,
        ProcedureStepError,
        check_create,
        updated,
    )
    from .storage import (
        Arrival,
        Instance,
        Storage,
        save_instance,
        storage_scp,
        storage_scu,
    )
    from .storage_commitment import (
        CommitmentResult,
        StorageCommitment,
        request_commitment,
        storage_commitment_scu,
    )
    from .verification import Verification, verification_scp, verification_scu
    from .worklist import ModalityWorklist, modality_work_list_scp, modality_work_list_scu

__all__ = [
    "COMPLETED",
    "DISCONTINUED",
    "EVENTS",
    "INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS",
    "IN_PROGRESS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS",
    "Arrival",
    "Available",
    "CommitmentResult",
    "Instance",
    "InstanceAvailabilityNotification",
    "MessageDispatcher",
    "MessageDispatcherSCP",
    "MessageDispatcherSCU",
    "ModalityPerformedProcedureStep",
    "ModalityWorklist",
    "NormalizedSCU",
    "ProcedureStepError",
    "ProcedureStepSCU",
    "QueryRetrieveFind",
    "QueryRetrieveGet",
    "QueryRetrieveMove",
    "Storage",
    "StorageCommitment",
    "StoreResult",
    "Verification",
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
    "save_instance",
    "sop_classes",
    "storage_commitment_scu",
    "storage_scp",
    "storage_scu",
    "store_all",
    "store_in_file",
    "suboperations",
    "updated",
    "verification_scp",
    "verification_scu",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "base": (
                "MessageDispatcher",
                "MessageDispatcherSCP",
                "MessageDispatcherSCU",
                "sop_classes",
                "store_in_file",
                "suboperations",
            ),
            "instance_availability": (
                "INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS",
                "Available",
                "InstanceAvailabilityNotification",
                "availability",
                "check_availability",
                "instance_availability_scu",
            ),
            "normalized": (
                "NormalizedSCU",
                "data_set_of",
                "normalized_scu",
            ),
            "procedure_step": (
                "EVENTS",
                "MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS",
                "MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS",
                "MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS",
                "ModalityPerformedProcedureStep",
                "ProcedureStepSCU",
                "mpps_create_scu",
                "mpps_get_scu",
                "mpps_set_scu",
                "notify_procedure_step",
                "procedure_step_scu",
                "report_procedure_step",
            ),
            "query_retrieve": (
                "QueryRetrieveFind",
                "QueryRetrieveGet",
                "QueryRetrieveMove",
                "qr_find_scp",
                "qr_find_scu",
                "qr_get_scp",
                "qr_get_scu",
                "qr_move_scp",
                "qr_move_scu",
            ),
            "sending": (
                "StoreResult",
                "store_all",
            ),
            "step_rules": (
                "COMPLETED",
                "DISCONTINUED",
                "IN_PROGRESS",
                "ProcedureStepError",
                "check_create",
                "updated",
            ),
            "storage": (
                "Arrival",
                "Instance",
                "Storage",
                "save_instance",
                "storage_scp",
                "storage_scu",
            ),
            "storage_commitment": (
                "CommitmentResult",
                "StorageCommitment",
                "request_commitment",
                "storage_commitment_scu",
            ),
            "verification": (
                "Verification",
                "verification_scp",
                "verification_scu",
            ),
            "worklist": (
                "ModalityWorklist",
                "modality_work_list_scp",
                "modality_work_list_scu",
            ),
        },
    )
