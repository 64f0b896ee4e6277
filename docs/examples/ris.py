"""Worklist, procedure steps and commitment, as SCP: what a small RIS answers."""

from pydicom.dataset import Dataset
from twisted.internet.threads import deferToThread

from netdicom_tx import AE, StatusError, statuses
from netdicom_tx.archive.workflow.worklist import Worklist
from netdicom_tx.sopclass import StorageCommitment, modality_work_list_scp
from netdicom_tx.sopclass.procedure_step import ModalityPerformedProcedureStep, updated


class Schedule:
    """A worklist source: here one step, else what your database has for the day."""

    def items(self, identifier):
        step = Dataset()
        step.Modality = "CT"
        step.ScheduledStationAETitle = "CT1"
        step.ScheduledProcedureStepStartDate = "20261123"
        step.ScheduledProcedureStepStartTime = "1015"
        step.ScheduledProcedureStepID = "7"
        item = Dataset()
        item.PatientName, item.PatientID = "Doe^Jane", "4711"
        item.AccessionNumber = "A-1"
        item.StudyInstanceUID = "1.2.3"
        item.ScheduledProcedureStepSequence = [step]
        return [item]


class RIS(AE):
    def __init__(self, title, source, in_thread=deferToThread):
        super().__init__(title)
        self.worklist = Worklist([source], in_thread)
        self.steps = {}
        self.kept = set()  # SOP Instance UIDs of what is safe
        self.add_scp(modality_work_list_scp)
        self.add_scp(ModalityPerformedProcedureStep())
        self.add_scp(StorageCommitment())

    def on_receive_find(self, context, ds):
        return self.worklist.find(context, ds)

    def on_mpps_create(self, uid, ds):
        if uid in self.steps:
            raise StatusError(statuses.DUPLICATE_SOP_INSTANCE)
        self.steps[uid] = ds

    def on_mpps_set(self, uid, modifications):
        if uid not in self.steps:
            raise StatusError(statuses.NO_SUCH_SOP_INSTANCE)
        self.steps[uid] = updated(self.steps[uid], modifications)

    def on_commitment_request(self, remote_ae, uids):
        success = [each for each in uids if each[1] in self.kept]
        failure = [
            (*each, StorageCommitment.NO_SUCH_OBJECT_INSTANCE)
            for each in uids
            if each[1] not in self.kept
        ]
        return None, success, failure  # reported on the association of the request
