"""The workflow services of an archive, together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from twisted.internet import defer

from netdicom_tx import AE
from netdicom_tx.archive.workers import Workers
from netdicom_tx.archive.workflow.workflow import Workflow, WorkflowOptions
from netdicom_tx.archive.workflow.worklist_sources import WorklistTable
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.sopclass import (
    StorageCommitment,
    modality_work_list_scu,
    storage_commitment_scu,
)
from netdicom_tx.sopclass.procedure_step import (
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS as MPPS,
)
from netdicom_tx.sopclass.procedure_step import procedure_step_scu
from netdicom_tx.testing import success_of
from netdicom_tx.uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS as WORKLIST
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT
from support.archive.data_sets import CT_IMAGE_STORAGE as CT
from support.archive.data_sets import ct
from support.archive.nodes import Node, at_once
from support.archive.worklists import asking, encoded, scheduled


class Served(AE):
    """What a node passes on."""

    workflow: Workflow

    def on_mpps_create(self, uid: str, ds: Dataset) -> Any:
        return self.workflow.steps.create(uid, ds)

    def on_mpps_set(self, uid: str, ds: Dataset) -> Any:
        return self.workflow.steps.change(uid, ds)

    def on_mpps_get(self, uid: str, tags: Any) -> Any:
        return self.workflow.steps.get(uid, tags)

    def on_receive_find(self, context: PContextDef, ds: Dataset) -> Any:
        return self.workflow.worklist.find(context, ds)


class Modality(AE):
    """A scanner."""

    def __init__(self) -> None:
        super().__init__("CT1")
        for service in (modality_work_list_scu, procedure_step_scu, storage_commitment_scu):
            self.add_scu(service)
        self.add_scp(StorageCommitment())
        self.committed: list[Any] = []

    def on_commitment_response(self, uid: str, success: Any, failure: Any) -> None:
        self.committed += success


class Archive(Node):
    """A node with its workflow, and a directory of worklist files."""

    workflow: Workflow

    def __init__(self, directory: Path, peer: AE) -> None:
        self.files = directory / "worklist"
        self.files.mkdir()
        super().__init__(directory, peer)

    def make_ae(self) -> AE:
        return Served("NODE")

    def _open(self) -> None:
        super()._open()
        self.table = WorklistTable(self.index, at_once)
        # Not started: work is done where it is asked for.
        workers = Workers("test", 0)
        options = WorkflowOptions(worklist=self.files)
        self.workflow = Workflow(self.ae, self.index, workers, self.peers, options, "here")
        self.ae.workflow = self.workflow  # type: ignore[attr-defined]
        self.workflow.start(self.pair.clock)


@pytest.fixture
def modality() -> Modality:
    return Modality()


@pytest.fixture
def archive(tmp_path: Path, modality: Modality) -> Iterator[Archive]:
    node = Archive(tmp_path, modality)
    yield node
    success_of(node.workflow.stop())
    node.close()


def test_an_examination_from_the_worklist_to_the_commitment(
    archive: Archive, modality: Modality
) -> None:
    """What a modality does: it asks what to do, says that it does it, stores, and asks for safekeeping."""
    (archive.files / "1.wl").write_bytes(encoded(scheduled(ScheduledProcedureStepID="S1")))
    archive.table.put([scheduled(ScheduledProcedureStepID="S2")])
    asce = archive.associate()

    def worklist(**keys: Any) -> list[tuple[str, str]]:
        async def ask() -> list[tuple[str, str]]:
            keys_of_step = {"ScheduledProcedureStepStatus": None, **keys}
            return [
                (str(step.ScheduledProcedureStepID), str(step.ScheduledProcedureStepStatus or ""))
                async for ds, _ in asce.get_scu(WORKLIST)(asking(**keys_of_step))
                if ds is not None
                for step in ds.ScheduledProcedureStepSequence
            ]

        return sorted(success_of(defer.Deferred.fromCoroutine(ask())))

    assert worklist() == [("S1", ""), ("S2", "")]
    step = Dataset()
    step.ScheduledStepAttributesSequence = Sequence([Dataset()])
    step.ScheduledStepAttributesSequence[0].StudyInstanceUID = "1.2.3"
    step.ScheduledStepAttributesSequence[0].ScheduledProcedureStepID = "S1"
    step.PerformedProcedureStepID = "P1"
    step.PerformedStationAETitle = "CT1"
    step.PerformedProcedureStepStartDate, step.PerformedProcedureStepStartTime = "20261123", "10"
    step.PerformedProcedureStepStatus, step.Modality = "IN PROGRESS", "CT"
    performing = asce.get_scu(MPPS)()
    assert success_of(performing.create("1.2.9", step)) == 0
    assert worklist() == [("S1", "STARTED"), ("S2", "")]
    archive.keep("1.2.3.1.1", ct("1.2.3.1.1"))
    end = Dataset()
    end.PerformedProcedureStepStatus = "COMPLETED"
    end.PerformedProcedureStepEndDate, end.PerformedProcedureStepEndTime = "20261123", "11"
    end.PerformedSeriesSequence = Sequence([Dataset()])
    end.PerformedSeriesSequence[0].ProtocolName = "Abdomen"
    end.PerformedSeriesSequence[0].SeriesInstanceUID = "1.2.3.1"
    assert success_of(performing.set("1.2.9", end)) == 0
    assert worklist() == [("S2", "")]
    assert worklist(ScheduledProcedureStepStatus="COMPLETED") == [("S1", "COMPLETED")]
    assert success_of(asce.get_scu(COMMITMENT)("1.2.8", [(CT, "1.2.3.1.1")])) == 0
    archive.advance(1)
    assert modality.committed == [(CT, "1.2.3.1.1")]
    assert archive.workflow.queue.list() == []
