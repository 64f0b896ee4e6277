"""The peers of a soak, and what they know of the node."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from pydicom.dataset import Dataset
from twisted.internet import defer, task

from netdicom_tx import AE, NetDICOMError
from netdicom_tx.uids import CTImageStorage

#: How many instances a peer has; from then on it stores them again, so that the disk does not fill.
INSTANCES: Final = 400
_PER_STUDY: Final = 20
_PER_VISIT: Final = 5
# Every so many visits, a peer aborts the association in the middle of a C-STORE.
_ABORTS: Final = 10


@dataclass
class Counts:
    """What the peers have done, and what went wrong."""

    stored: int = 0
    found: int = 0
    retrieved: int = 0
    aborted: int = 0
    visits: int = 0
    failures: list[str] = field(default_factory=list)


def digest(ds: Dataset) -> str:
    """The digest of what is different in each instance."""
    return hashlib.sha256(ds.PixelData).hexdigest()


class Peer:
    """One peer, whose instances are its own.

    Args:
        number: Of the peer.
        address: The address of the node, for :meth:`AE.associate`.
        counts: Of all peers.
        reactor: The reactor.

    Attributes:
        kept: The digests of the instances that the node has acknowledged, by SOP Instance UID.
    """

    def __init__(self, number: int, address: str, counts: Counts, reactor: Any) -> None:
        self._number = number
        self._address = address
        self._counts = counts
        self._reactor = reactor
        self._random = Random(number)
        self._next = 0
        self.kept: dict[str, str] = {}

    async def run(self, end: float) -> None:
        """Visit the node again and again until the reactor's clock says that it is enough."""
        while self._reactor.seconds() < end:
            try:
                await self.visit()
            except Exception as error:  # whatever it is, it is a failure of the soak, which goes on
                self._counts.failures.append(f"peer {self._number}: {error!r:.300}")
            self._counts.visits += 1
            await task.deferLater(self._reactor, 0.02 * self._random.random())

    async def visit(self) -> None:
        """Store some instances, find and retrieve a study, and release the association, or abort it."""
        async with AE(f"SOAK{self._number}").associate(self._address) as asce:
            for _ in range(_PER_VISIT):
                await self._store(asce)
            study = self._study(self._random.choice(range(min(self._next, INSTANCES))))
            await self._find(asce, study)
            await self._get(asce, study)
            if self._counts.visits % _ABORTS == 0:
                await self._abort(asce)

    def _study(self, number: int) -> str:
        return f"1.2.826.0.1.{self._number + 1}.{number // _PER_STUDY + 1}"

    def _instance(self, number: int) -> Dataset:
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{self._study(number)}.1.{number + 1}"
        ds.PatientName, ds.PatientID = f"Soak^{self._number}", f"SOAK{self._number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = self._study(number), f"{self._study(number)}.1"
        ds.StudyDate, ds.Modality, ds.InstanceNumber = "20260101", "CT", number + 1
        random = Random(f"{self._number}.{number}")
        # Small ones and large ones, which take different ways through the node.
        ds.PixelData = random.randbytes(random.choice((2048, 65536, 65536, 524288)))
        ds["PixelData"].VR = "OW"
        return ds

    async def _store(self, asce: Any) -> None:
        ds = self._instance(self._next % INSTANCES)
        self._next += 1
        status = await asce.store(ds)
        if status != 0x0000:
            raise AssertionError(f"C-STORE: {status}")
        self.kept[ds.SOPInstanceUID] = digest(ds)
        self._counts.stored += 1

    def _of_study(self, study: str) -> dict[str, str]:
        return {uid: each for uid, each in self.kept.items() if uid.startswith(f"{study}.")}

    async def _find(self, asce: Any, study: str) -> None:
        keys = {"StudyInstanceUID": study, "NumberOfStudyRelatedInstances": None}
        (found,) = await asce.find("STUDY", **keys)
        count = int(found.NumberOfStudyRelatedInstances)
        # An instance whose C-STORE was aborted may be there, too.
        if not len(self._of_study(study)) <= count <= _PER_STUDY:
            raise AssertionError(f"C-FIND: {count} instances, {len(self._of_study(study))} stored")
        self._counts.found += 1

    async def _get(self, asce: Any, study: str) -> None:
        brought = {}
        async for each in asce.get("STUDY", StudyInstanceUID=study):
            brought[each.sop_instance_uid] = digest(each.dataset())
        for uid, expected in self._of_study(study).items():
            if brought.get(uid) != expected:
                raise AssertionError(f"C-GET: {uid} is missing or has changed")
        self._counts.retrieved += len(brought)

    async def _abort(self, asce: Any) -> None:
        stored: defer.Deferred[Any] = asce.store(self._instance(self._next % INSTANCES))
        asce.abort()
        try:
            await stored
        except NetDICOMError:
            self._counts.aborted += 1
