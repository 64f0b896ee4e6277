"""A quota that is half of what comes, while peers query and retrieve: nobody notices what goes.

``NETDICOM_TX_QUOTA_MIB`` is the quota; twice as much is sent.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scp, storage_scu
from netdicom_tx.amounts import Amount
from netdicom_tx.archive import ArchiveAE
from netdicom_tx.archive import retention as retention_module
from netdicom_tx.archive.retention import Keeper, Retention, Rules
from netdicom_tx.sopclass import qr_find_scu, qr_get_scu
from support.archive.archives import archive, shut_down
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.patients import data_set

MIB = int(os.environ.get("NETDICOM_TX_QUOTA_MIB", "32"))
SENDERS = 2
OF_STUDY = 8
PIXELS = max(1 << 17, MIB << 9)
STUDIES = (2 * MIB << 20) // (OF_STUDY * PIXELS)


def uid_of(study: int) -> str:
    return f"1.2.{study}"


class Viewer(AE):
    """Counts what C-GET brings, by study."""

    def __init__(self) -> None:
        super().__init__("VIEWER")
        self.add_scu(qr_find_scu).add_scu(qr_get_scu).add_scu(storage_scu, [CT_IMAGE_STORAGE])
        self.add_scp(storage_scp, [CT_IMAGE_STORAGE])
        self.received: dict[str, int] = {}

    def on_receive_store(self, context: Any, ds: Any) -> int:
        study = str(context.request.affected_sop_instance_uid).rpartition(".")[0]
        self.received[study] = self.received.get(study, 0) + 1
        return 0x0000


class QuotaTests(TestCase):
    """On the real reactor."""

    timeout = 600

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.monkeypatch = tmp_path, monkeypatch
        self.whole: set[int] = set()  # studies that were sent whole
        self.is_sending = True
        self.waited = 0  # files that were deleted while a retrieve was running
        self.peak = 0

    async def send(self, remote: RemoteAE, sender: int) -> None:
        """Store one study after the other."""
        ae = AE(f"CT{sender}").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        async with await ae.request_association(remote) as asce:
            store = asce.get_scu(CT_IMAGE_STORAGE)
            for study in range(sender, STUDIES, SENDERS):
                for number in range(OF_STUDY):
                    ds = data_set(
                        SOPClassUID=CT_IMAGE_STORAGE,
                        SOPInstanceUID=f"{uid_of(study)}.{number}",
                        PatientID=f"P{study}",
                        StudyInstanceUID=uid_of(study),
                        SeriesInstanceUID=f"{uid_of(study)}.0",
                    )
                    ds.PixelData = bytes([study % 251]) * PIXELS
                    ds["PixelData"].VR = "OW"
                    assert await store(ds) == 0x0000
                self.whole.add(study)

    async def studies(self, asce: Any, **keys: Any) -> dict[int, int]:
        """How many instances a query finds of each study."""
        stream = asce.find("STUDY", NumberOfStudyRelatedInstances=None, **keys)
        return {
            int(each.StudyInstanceUID.rpartition(".")[2]): int(each.NumberOfStudyRelatedInstances)
            async for each in stream
        }

    async def view(self, remote: RemoteAE) -> None:
        """Query, and retrieve the study that will be deleted next."""
        viewer = Viewer()
        async with await viewer.request_association(remote) as opened:
            asce: Any = opened
            while self.is_sending:
                sent = set(self.whole)
                found = await self.studies(asce, StudyInstanceUID="")
                assert all(found[each] == OF_STUDY for each in sent & found.keys())
                there = sorted(sent & found.keys())
                if not there:
                    await deferLater(reactor, 0.02)
                    continue
                viewer.received.clear()
                stream = asce.get("STUDY", StudyInstanceUID=uid_of(there[0]))
                async for _ in stream:
                    pass
                final = stream.final
                assert not final.number_of_failed_suboperations
                # It was there as a whole when the retrieve began, or not at all.
                assert viewer.received in ({}, {uid_of(there[0]): OF_STUDY})

    async def measure(self, ae: ArchiveAE) -> None:
        while self.is_sending:
            assert ae.index is not None
            counts = await deferToThread(ae.index.counts)
            self.peak = max(self.peak, counts.size)
            await deferLater(reactor, 0.1)

    @pytest.mark.slow
    async def test_twice_the_quota_is_sent_while_peers_query_and_retrieve(self) -> None:
        # Many deletions instead of few large ones.
        self.monkeypatch.setattr(retention_module, "_STUDIES", 1)
        ae = archive(self.directory)
        ae.start()
        index, store = ae.index, ae.store
        assert index is not None
        quota = MIB << 20
        keeper = Keeper(store, index, Rules(quota=Amount(octets=quota)), ae.deleter, rest=0.5)
        retention = Retention(keeper, reactor, period=0.1)
        retention.startService()
        real = ae.deleter.delete

        def delete(*arguments: Any) -> Any:
            done = real(*arguments)
            self.waited += done.waiting
            return done

        self.monkeypatch.setattr(ae.deleter, "delete", delete)
        port = await ae.listen("tcp:0:interface=127.0.0.1")
        host: Any = port.getHost()
        remote = RemoteAE("NODE", f"tcp:127.0.0.1:{host.port}")
        try:
            viewing = [Deferred.fromCoroutine(self.view(remote)) for _ in range(2)]
            viewing.append(Deferred.fromCoroutine(self.measure(ae)))
            sending = [Deferred.fromCoroutine(self.send(remote, each)) for each in range(SENDERS)]
            try:
                await gatherResults(sending, consumeErrors=True)
            finally:
                self.is_sending = False
            await gatherResults(viewing, consumeErrors=True)
            assert len(self.whole) == STUDIES
            for _ in range(600):
                counts = await deferToThread(index.counts)
                left = sum(1 for _ in store.instances.rglob("*.dcm"))
                if counts.size <= quota and left == counts.instances:
                    break
                await deferLater(reactor, 0.1)
            print(
                f"{2 * MIB} MiB sent, at most {self.peak >> 20} MiB kept, {counts.size >> 20} at the end; "
                f"{self.waited} files were deleted while retrieves ran"
            )
            # A twentieth of the quota is free after each run, and a group of studies more.
            assert quota // 2 < counts.size <= quota
            assert left == counts.instances == counts.studies * OF_STUDY
            rows = {path.path.rpartition("/")[2] for path in index.paths()}
            assert rows == {path.name for path in store.instances.rglob("*.dcm")}
            async with await Viewer().request_association(remote) as asce:
                found = await self.studies(asce, StudyInstanceUID="")
            assert set(found.values()) == {OF_STUDY}
            assert max(found) == STUDIES - 1
        finally:
            await retention.stopService()
            await maybeDeferred(port.stopListening)
            await shut_down(ae)
