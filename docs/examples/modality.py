"""Worklist, procedure step and storage commitment as SCU: what a modality requests."""

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from netdicom_tx import AE
from netdicom_tx.sopclass import (
    StorageCommitment,
    modality_work_list_scu,
    procedure_step_scu,
    storage_commitment_scu,
)
from netdicom_tx.uids import ModalityPerformedProcedureStep


def modality(title):
    ae = AE(title).add_scu(modality_work_list_scu).add_scu(procedure_step_scu)
    # The report of a commitment may come on an association that the peer opens.
    return ae.add_scu(storage_commitment_scu).add_scp(StorageCommitment())


async def scheduled(asce, station):
    """Return the scheduled steps of a station."""
    return await asce.worklist(ScheduledStationAETitle=station)


async def perform(asce, item, series):
    """Report that a step begins and that it has ended; return both statuses."""
    scheduled = item.ScheduledProcedureStepSequence[0]
    request = Dataset()
    request.StudyInstanceUID = item.StudyInstanceUID
    request.AccessionNumber = item.AccessionNumber
    request.ScheduledProcedureStepID = scheduled.ScheduledProcedureStepID
    step = Dataset()
    step.ScheduledStepAttributesSequence = [request]
    step.PatientName, step.PatientID = item.PatientName, item.PatientID
    step.Modality = scheduled.Modality
    step.PerformedStationAETitle = scheduled.ScheduledStationAETitle
    step.PerformedProcedureStepID = "1"
    step.PerformedProcedureStepStartDate = "20261123"
    step.PerformedProcedureStepStartTime = "1017"
    step.PerformedProcedureStepStatus = "IN PROGRESS"

    end = Dataset()
    end.PerformedProcedureStepStatus = "COMPLETED"
    end.PerformedProcedureStepEndDate = "20261123"
    end.PerformedProcedureStepEndTime = "1031"
    end.PerformedSeriesSequence = [series]

    uid = generate_uid()
    created = await asce.n_create(ModalityPerformedProcedureStep, step, uid)
    ended = await asce.n_set(ModalityPerformedProcedureStep, uid, end)
    return created.status, ended.status


async def may_be_deleted(asce, instances):
    """Return those of the instances (SOP class, SOP instance) that the peer has committed to."""
    return (await asce.commit(instances)).committed
