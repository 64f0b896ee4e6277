"""Worklist, procedure step and commitment, as SCU: what a modality asks."""

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from netdicom_tx import AE
from netdicom_tx.sopclass import (
    StorageCommitment,
    modality_work_list_scu,
    request_commitment,
    storage_commitment_scu,
)
from netdicom_tx.sopclass.procedure_step import (
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
    procedure_step_scu,
)
from netdicom_tx.uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS as WORKLIST


def modality(title):
    ae = AE(title).add_scu(modality_work_list_scu).add_scu(procedure_step_scu)
    return ae.add_scu(storage_commitment_scu).add_scp(StorageCommitment())  # the report comes to us


async def scheduled(asce, station):
    """The steps of a station."""
    step, keys = Dataset(), Dataset()
    step.ScheduledStationAETitle = station
    step.Modality = step.ScheduledProcedureStepStartDate = step.ScheduledProcedureStepID = ""
    keys.PatientName = keys.PatientID = keys.AccessionNumber = keys.StudyInstanceUID = ""
    keys.ScheduledProcedureStepSequence = [step]
    return [item async for item, _ in asce.get_scu(WORKLIST)(keys) if item is not None]


async def perform(asce, item, series):
    """Tell that a step begins, and that it has ended; the statuses of both."""
    scheduled = item.ScheduledProcedureStepSequence[0]
    what_for = Dataset()
    what_for.StudyInstanceUID = item.StudyInstanceUID
    what_for.AccessionNumber = item.AccessionNumber
    what_for.ScheduledProcedureStepID = scheduled.ScheduledProcedureStepID
    step = Dataset()
    step.ScheduledStepAttributesSequence = [what_for]
    step.PatientName, step.PatientID = item.PatientName, item.PatientID
    step.Modality = scheduled.Modality
    step.PerformedStationAETitle = scheduled.ScheduledStationAETitle
    step.PerformedProcedureStepID = "1"
    step.PerformedProcedureStepStartDate = "20261123"
    step.PerformedProcedureStepStartTime = "1017"
    step.PerformedProcedureStepStatus = "IN PROGRESS"

    uid = generate_uid()
    scu = asce.get_scu(MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS)()
    begun = await scu.create(uid, step)

    end = Dataset()
    end.PerformedProcedureStepStatus = "COMPLETED"
    end.PerformedProcedureStepEndDate = "20261123"
    end.PerformedProcedureStepEndTime = "1031"
    end.PerformedSeriesSequence = [series]
    return begun, await scu.set(uid, end)


async def may_be_deleted(asce, instances):
    """Which of the instances, (SOP class, SOP instance) each, the peer has taken over."""
    result = await request_commitment(asce, instances)
    return result.committed
