"""``kill -9`` of a running node while it deletes: a study is there as a whole, or gone."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu
from netdicom_tx.archive.control import NodeAnswerError, NoNodeError, ask
from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.patients import data_set
from support.node import Node

ROUNDS = 3
STUDIES, OF_STUDY = 12, 5


class KillTests(TestCase):
    """Studies are sent, and then deleted one after the other until the node is gone."""

    timeout = 600

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.node = Node(tmp_path)
        self.random = random.Random()
        self.deleted: set[str] = set()
        self.enough: Deferred[None] = Deferred()
        yield
        self.node.kill()

    async def send(self, studies: list[str]) -> None:
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        async with await ae.request_association(RemoteAE("X", self.node.address.endpoint)) as asce:
            for study in studies:
                for number in range(OF_STUDY):
                    uid = f"{study}.{number}"
                    ds = data_set(
                        SOPClassUID=CT_IMAGE_STORAGE,
                        SOPInstanceUID=uid,
                        PatientID="P",
                        StudyInstanceUID=study,
                        SeriesInstanceUID=f"{study}.0",
                    )
                    header = part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT_VR_LITTLE_ENDIAN)
                    octets = header + encode(ds, EXPLICIT_VR_LITTLE_ENDIAN)
                    assert await asce.get_scu(CT_IMAGE_STORAGE)(BytesIO(octets)) == 0x0000

    async def delete(self, studies: list[str], answers: int) -> None:
        """Delete one after the other, until the node is dead."""
        for study in studies:
            try:
                found = await deferToThread(
                    ask, self.node.storage, "delete", level="STUDY", keys=[study]
                )
            except (NodeAnswerError, NoNodeError):
                return
            assert found[0][0] == OF_STUDY
            self.deleted.add(study)
            if len(self.deleted) == answers:
                self.enough.callback(None)

    def check(self, sent: list[str]) -> None:
        """What is there when a restarted node serves again."""
        storage = self.node.storage
        names = {path.name for path in (storage / "instances").rglob("*.dcm")}
        with closing(sqlite3.connect(f"file:{storage}/index.db?mode=ro", uri=True)) as index:
            rows = index.execute("SELECT sop_instance_uid, path FROM instance").fetchall()
            (listed,) = index.execute("SELECT count(*) FROM deletion").fetchone()
        assert names == {path.rpartition("/")[2] for _, path in rows}
        assert listed == 0
        there = Counter(uid.rpartition(".")[0] for uid, _ in rows)
        assert set(there.values()) <= {OF_STUDY}, there
        assert not self.deleted & there.keys()
        # One may have been deleted whose answer nobody has heard.
        assert len(set(sent) - self.deleted - there.keys()) <= 1

    @pytest.mark.slow
    async def test_a_study_is_there_as_a_whole_or_gone(self) -> None:
        await deferToThread(self.node.start)
        for turn in range(ROUNDS):
            studies = [f"1.{turn}.{number}" for number in range(STUDIES)]
            await self.send(studies)
            answers, delay = self.random.randrange(1, 6), self.random.uniform(0, 0.03)
            self.deleted.clear()
            self.enough = Deferred()
            deleting = Deferred.fromCoroutine(self.delete(studies, answers))
            await self.enough
            await deferLater(reactor, delay)
            await deferToThread(self.node.kill)
            # Shown when the test fails.
            print(f"round {turn}: killed {delay * 1000:.1f} ms after {answers} answers")
            await deleting
            await deferToThread(self.node.start)
            await deferToThread(self.check, studies)
            for study in studies:
                await deferToThread(ask, self.node.storage, "delete", level="STUDY", keys=[study])
        await deferToThread(self.node.stop)
        assert "Traceback" not in self.node.log
