"""Crashes in a row: after each, files, index and what is served say the same.

Where the node is killed is drawn anew in every run; a failure prints the seed.
"""

import os
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scp
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.sopclass import qr_get_scu
from netdicom_tx.uids import ALL_TRANSFER_SYNTAXES, STUDY_ROOT_GET_SOP_CLASS
from support.archive.patients import data_set
from support.interop.archives import findscu
from support.interop.peers import OUR_SCU
from support.interop.samples import Sample, copies, read
from support.node import Node
from support.part10 import data_set_bytes
from support.processes import Process, eventually, program

pytestmark = pytest.mark.interop

ROUNDS = 3
SENDERS = 4
EACH = 25  # instances of a sender in a round

# storescu prints its progress dots into the same lines.
_SAID = re.compile(r"I: Sending file: (\S+)|I: Received Store Response \(Success\)")


class Receiver(AE):
    """Takes what C-GET brings."""

    def on_receive_store(self, context: PContextDef, ds: object) -> int:
        return 0x0000


class CrashTests(TestCase):
    """SIGKILL at random moments, under four senders, on one archive."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, node: Node, samples: tuple[Sample, ...], tmp_path: Path) -> None:
        self.node = node
        self.directory = tmp_path
        self.sample = next(s for s in samples if s.name == "MR_small_implicit.dcm")
        self.sent = copies(self.sample, ROUNDS * SENDERS * EACH, tmp_path / "copies")
        self.study = read(self.sample.path)

    def senders(self, number: int, instances: Sequence[Sample]) -> list[Process]:
        """The running storescu of a round."""
        return [
            Process(
                self.directory / f"storescu-{number}-{which}.log",
                program("storescu"),
                *("--verbose", "--required", "--propose-implicit", *self.node.address.arguments),
                *(sample.path for sample in instances[which::SENDERS]),
                TCP_NODELAY="1",
            )
            for which in range(SENDERS)
        ]

    def told(self, senders: Sequence[Process]) -> list[Sample]:
        """What a success has been printed for."""
        by_path = {str(sample.path): sample for sample in self.sent}
        found, path = [], ""
        for sender in senders:
            for said in _SAID.finditer(sender.text()):
                if said[1]:
                    path = said[1]
                else:
                    found.append(by_path[path])
        return found

    def crash(self, number: int, enough: int) -> list[Sample]:
        """Kill the node after so many acknowledgements, start it again; what was acknowledged."""
        one_round = self.sent[number * SENDERS * EACH :][: SENDERS * EACH]
        senders = self.senders(number, one_round)
        eventually(lambda: len(self.told(senders)) >= enough, "acknowledgement", every=0.001)
        self.node.kill()
        for sender in senders:
            eventually(sender.ended, "end of storescu")
        self.node.start()
        return self.told(senders)

    def indexed(self, name: str) -> list[str]:
        """The instances that DCMTK finds, in the order in which they come."""
        asked = data_set(
            QueryRetrieveLevel="IMAGE",
            StudyInstanceUID=self.study.StudyInstanceUID,
            SeriesInstanceUID=self.study.SeriesInstanceUID,
            SOPInstanceUID="",
        )
        answers = findscu(self.node.address, "S", asked, self.directory / name)
        return [str(each.SOPInstanceUID) for each in answers]

    def counted(self, name: str) -> int:
        """The instances that the index counts in all of its studies."""
        asked = data_set(
            QueryRetrieveLevel="STUDY", StudyInstanceUID="", NumberOfStudyRelatedInstances=""
        )
        answers = findscu(self.node.address, "S", asked, self.directory / name)
        return sum(int(each.NumberOfStudyRelatedInstances) for each in answers)

    async def retrieved(self) -> dict[str, bytes]:
        """The data sets that C-GET brings."""
        ae = Receiver(OUR_SCU).add_scu(qr_get_scu)
        ae.add_scp(storage_scp, [self.sample.sop_class], ALL_TRANSFER_SYNTAXES)
        asked: Dataset = data_set(
            QueryRetrieveLevel="STUDY", StudyInstanceUID=self.study.StudyInstanceUID
        )
        found: dict[str, bytes] = {}
        path = self.directory / "retrieved.dcm"
        remote = RemoteAE(self.node.ae_title, self.node.address.endpoint)
        async with await ae.request_association(remote) as asce:
            async for context, item in asce.get_scu(STUDY_ROOT_GET_SOP_CLASS)(asked):
                if context is None:
                    assert item == 0x0000
                    break
                path.write_bytes(item.read())
                found[str(read(path).SOPInstanceUID)] = data_set_bytes(path)
        return found

    async def test_files_index_and_what_is_served_agree_after_every_crash(self) -> None:
        """Acknowledged is readable, found and retrievable; nothing else is there but whole."""
        seed = int.from_bytes(os.urandom(4))
        draw = random.Random(seed)
        acknowledged: dict[str, Sample] = {}
        by_uid = {sample.instance: sample for sample in self.sent}
        for number in range(ROUNDS):
            enough = draw.randint(1, SENDERS * EACH - 10)
            told = await deferToThread(self.crash, number, enough)
            acknowledged |= {sample.instance: sample for sample in told}
            say = f"seed {seed}, round {number}, killed after {enough}"

            kept = self.node.instances()
            assert acknowledged.keys() <= kept.keys() <= by_uid.keys(), say
            for uid, path in kept.items():
                assert data_set_bytes(path) == by_uid[uid].sent, say
            left = [p for p in self.node.storage.glob("incoming/**/*") if p.is_file()]
            assert left == [], say

            found = await deferToThread(self.indexed, f"images-{number}")
            assert sorted(found) == sorted(kept), say
            count = await deferToThread(self.counted, f"studies-{number}")
            assert count == len(kept), say
            got = await self.retrieved()
            assert got == {uid: by_uid[uid].sent for uid in kept}, say
