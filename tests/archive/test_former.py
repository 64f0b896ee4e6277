"""Names that the documentation of version 0.1 has are importable where it has them."""

import importlib
import subprocess
import sys

import pytest

from netdicom_tx.archive.query.search import Pages
from netdicom_tx.archive.store.filestore import FileStore
from netdicom_tx.archive.workflow.worklist import Worklist

#: What ``docs/reference/archive.md`` listed.
NAMES = {
    "commitment": "ArchiveCommitment PeerUnknownError RefusedError commitment peer_of",
    "database": "Database EngineDatabase",
    "filestore": "Duplicates FileStore Kept MismatchError Outcome Spool StorageError",
    "identifiers": "Identifier InformationModel Key MatchingError QueryOptions SequenceKey",
    "index": "Counts Entry Index IndexUnavailableError InstanceRecord InstanceRef Pages PathRow record_of",
    "matching": "InformationModel Query QueryOptions ZoneTest computed find_query retrieve_query",
    "node": "ArchiveAE",
    "procedure_steps": "ProcedureSteps procedure_step scheduled_step",
    "queue": "DEAD RUNNING WAITING GiveUpError NotYetError Performer Queue QueueRunner Task task_table",
    "reconcile": "Fault Files Finding Reconciled reconcile verify",
    "record": "InstanceRecord digest_of record_of",
    "retrieval": "Retrieval",
    "schema": "ATTRIBUTES IndexUnusableError Level metadata migrate open_engine patient",
    "workflow": "Workflow WorkflowOptions",
    "worklist": "ENDED IWorklistSource StepKey Worklist WorklistItem WorklistQuery",
    "worklist_sources": "WorklistDirectory WorklistImportError WorklistTable read_csv read_json",
}


@pytest.mark.parametrize("module", NAMES)
def test_a_former_module_has_its_public_names(module: str) -> None:
    found = importlib.import_module(f"netdicom_tx.archive.{module}")
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_a_former_name_is_the_same_object() -> None:
    """An ``isinstance`` or an ``except`` must not depend on where a name comes from."""
    former = importlib.import_module("netdicom_tx.archive.filestore")
    assert former.FileStore is FileStore
    assert importlib.import_module("netdicom_tx.archive.index").Pages is Pages
    assert importlib.import_module("netdicom_tx.archive.worklist").Worklist is Worklist


@pytest.mark.slow
def test_a_former_module_is_importable_by_itself() -> None:
    """Nothing of the archive need be imported before."""
    program = "from netdicom_tx.archive.worklist import Worklist; import netdicom_tx.archive.queue as q; q.Task"
    subprocess.run([sys.executable, "-c", program], check=True)
