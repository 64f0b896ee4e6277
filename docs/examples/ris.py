"""Worklist, procedure steps and storage commitment as SCP: the core of a small RIS."""

from pydicom.dataset import Dataset
from twisted.internet.threads import deferToThread

from netdicom_tx import AE, StatusError, statuses
from netdicom_tx.archive.workflow.worklist import Worklist
from netdicom_tx.sopclass import (
    ModalityPerformedProcedureStep,
    ModalityWorklist,
    StorageCommitment,
    updated,
)


class Schedule:
    """A worklist source: one step here, the day's steps of your database in practice."""

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
        self.steps = {}
        self.kept = set()  # SOP Instance UIDs of the instances that are safe
        self.add_scp(ModalityWorklist(on_find=Worklist([source], in_thread).find))
        self.add_scp(ModalityPerformedProcedureStep(on_create=self.begin, on_set=self.change))
        self.add_scp(StorageCommitment(on_request=self.commit))

    def begin(self, context, uid, ds):
        if uid in self.steps:
            raise StatusError(statuses.DUPLICATE_SOP_INSTANCE)
        self.steps[uid] = ds

    def change(self, context, uid, modifications):
        if uid not in self.steps:
            raise StatusError(statuses.NO_SUCH_SOP_INSTANCE)
        self.steps[uid] = updated(self.steps[uid], modifications)

    def commit(self, context, transaction_uid, uids):
        success = [each for each in uids if each[1] in self.kept]
        failure = [
            (*each, StorageCommitment.NO_SUCH_OBJECT_INSTANCE)
            for each in uids
            if each[1] not in self.kept
        ]
        return None, success, failure  # None: report on the association of the request
