"""What a group has in the end, as every one of its nodes says: queries, instances, reports."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from netdicom_tx import AE, RequestContext, storage_scp
from netdicom_tx.dsutils import read_file_meta
from netdicom_tx.sopclass import (
    CommitmentResult,
    StorageCommitment,
    qr_find_scu,
    qr_move_scu,
    storage_commitment_scu,
)
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE as WELL_KNOWN
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS, CTImageStorage
from netdicom_tx.userdataitems import RoleSelection
from scale.group import GroupNode
from scale.load import Instance, digest_of
from support.processes import PATIENCE

__all__ = ["Holding", "Requestor", "found_by", "retrieved_from"]

_COUNTS = {
    "NumberOfStudyRelatedInstances": None,
    "NumberOfStudyRelatedSeries": None,
    "ModalitiesInStudy": None,
    "AccessionNumber": None,
    "PatientID": None,
    "StudyDate": None,
}

#: Queries of several levels and keys: universal, single value, wildcard, range, list of UIDs, in sequence.
_STUDIES: tuple[dict[str, Any], ...] = (
    {},
    {"PatientID": "SCALE1"},
    {"PatientName": "SCALE^0*"},
    {"StudyDate": "20260103-20260107"},
    {"ModalitiesInStudy": "MR"},
    {"AccessionNumber": "A2-0"},
)


async def found_by(address: str, studies: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    """The sorted matches of many queries, by what was asked."""
    found = {}
    async with AE("LOOKING").associate(address, qr_find_scu) as asce:
        for keys in _STUDIES:
            found[f"STUDY {keys}"] = await _rows(asce.find("STUDY", **{**_COUNTS, **keys}))
        for study in studies:
            series = await _rows(
                asce.find(
                    "SERIES",
                    StudyInstanceUID=study,
                    Modality=None,
                    NumberOfSeriesRelatedInstances=None,
                )
            )
            found[f"SERIES {study}"] = series
            found[f"IMAGE {study}"] = await _images(asce, study)
    return found


async def _images(asce: Any, study: str) -> list[tuple[str, ...]]:
    rows = []
    async for one in asce.find("SERIES", StudyInstanceUID=study):
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": one.SeriesInstanceUID}
        rows += await _rows(asce.find("IMAGE", **uids, InstanceNumber=None, SOPClassUID=None))
    return sorted(rows)


async def _rows(matches: Any) -> list[tuple[str, ...]]:
    """Each match as text; where the match can be retrieved from is the node's own."""
    aside = {"RetrieveAETitle", "SpecificCharacterSet"}
    return sorted(
        [
            tuple(f"{each.keyword}={each.value}" for each in match if each.keyword not in aside)
            async for match in matches
        ]
    )


async def retrieved_from(address: str, study: str) -> dict[str, str]:
    """The digests of a study's instances, as C-GET brings them."""
    contexts = [
        (STUDY_ROOT_GET_SOP_CLASS, (ExplicitVRLittleEndian,)),
        (CTImageStorage, (ExplicitVRLittleEndian,)),
    ]
    roles = [RoleSelection(CTImageStorage, True, True)]
    brought = {}
    async with AE("LOOKING").associate(address, contexts=contexts, roles=roles) as asce:
        async for each in asce.get("STUDY", StudyInstanceUID=study):
            assert each.sop_instance_uid not in brought, f"{each.sop_instance_uid} came twice"
            brought[each.sop_instance_uid] = digest_of(each.file)
    return brought


class Requestor(AE):
    """A modality: it asks for commitments, takes the reports, and is the destination of moves.

    Attributes:
        reports: The results by transaction UID.
        came: When the first report of a transaction came, by ``time.monotonic()``.
        brought: The digests of the instances that were moved here, by UID.
        twice: The UIDs that came more than once.
    """

    def __init__(self, title: str, port: int) -> None:
        super().__init__(title)
        self.port = port
        self.reports: dict[str, list[CommitmentResult]] = {}
        self.came: dict[str, float] = {}
        self.brought: dict[str, str] = {}
        self.twice: list[str] = []
        # PS3.4 J.1: who opens the association for a report is its SCP, so this side is SCU.
        self.add_scu(storage_commitment_scu).add_scp(StorageCommitment())
        self.add_scp(storage_scp, transfer_syntaxes=[ExplicitVRLittleEndian])
        self._listening: Any = None

    async def listening(self) -> None:
        """Take reports and instances from now on."""
        self._listening = await self.listen(f"tcp:{self.port}:interface=127.0.0.1")

    async def end(self) -> None:
        """Take nothing more."""
        if self._listening is not None:
            await self._listening.stopListening()
            await self.drain(0)

    async def ask(self, address: str, instances: Iterable[Instance]) -> str:
        """Ask for a commitment, and release the association at once; the transaction UID."""
        information = Dataset()
        information.TransactionUID = generate_uid()
        information.ReferencedSOPSequence = Sequence([_reference(each) for each in instances])
        async with self.associate(address, COMMITMENT) as asce:
            reply = await asce.n_action(COMMITMENT, WELL_KNOWN, 1, information)
        assert reply.status.is_success, f"N-ACTION: {reply.status}"
        return str(information.TransactionUID)

    async def move(self, address: str, study: str) -> dict[str, str]:
        """Have a node send a study here; the digests of what came."""
        self.brought, self.twice = {}, []
        async with self.associate(address, qr_move_scu) as asce:
            last = await asce.move("STUDY", StudyInstanceUID=study, to=self.ae_title)
        assert last.failed == 0, f"C-MOVE of {study} by {address}: {last}"
        assert not self.twice, f"C-MOVE of {study} by {address}: {self.twice} came twice"
        return self.brought

    def on_receive_store(self, context: RequestContext, ds: BinaryIO) -> int:
        """Note an instance that a node sends."""
        uid = read_file_meta(ds).sop_instance_uid
        if uid in self.brought:
            self.twice.append(uid)
        self.brought[uid] = digest_of(ds)
        return 0

    def on_commitment_response(self, transaction_uid: str, success: Any, failure: Any) -> None:
        """Note a report."""
        result = CommitmentResult(transaction_uid, tuple(success), tuple(failure))
        self.reports.setdefault(transaction_uid, []).append(result)
        self.came.setdefault(transaction_uid, time.monotonic())


def _reference(instance: Instance) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CTImageStorage
    item.ReferencedSOPInstanceUID = instance.uid
    return item


class Holding:
    """A peer at a port that takes connections and never answers: whoever calls it is busy with it."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", port))
        self._listening.settimeout(2 * PATIENCE)
        self._calls: list[socket.socket] = []

    def caller(self, nodes: Iterable[GroupNode]) -> GroupNode:
        """Wait for a call; the node that makes it."""
        call, (_, port) = self._listening.accept()
        self._calls.append(call)
        (node,) = [node for node in nodes if node.runs and _has_connection(node.pid, port)]
        return node

    def end(self) -> None:
        """Close everything."""
        for each in (self._listening, *self._calls):
            each.close()


def _has_connection(pid: int, port: int) -> bool:
    """Whether a process has a TCP connection from this local port (Linux)."""
    local = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    inodes = {f"socket:[{line.split()[9]}]" for line in lines if line.split()[1].endswith(local)}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # A descriptor may be closed while they are read.
        with suppress(OSError):
            if str(descriptor.readlink()) in inodes:
                return True
    return False
