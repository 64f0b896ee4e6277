"""Eight hostile peers at full speed: others are served, memory comes back, and the node stops when it is told to.

Each attack takes ten seconds, so they run only with ``NETDICOM_TX_ATTACKS=1``; one runs always, for a second. Bounds
are for machines that do much else; ``pytest -s`` prints what was measured.
"""

import os
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu, verification_scu
from netdicom_tx.dsutils import part10_header
from netdicom_tx.sopclass import modality_work_list_scu, qr_find_scu
from netdicom_tx.uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS as WORKLIST
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS
from support.archive.data_sets import CT_IMAGE_STORAGE, ct
from support.attacks import ATTACKS, BOMB, DEFLATED_BOMB, bomb
from support.node import Node
from support.processes import CHECKOUT, Process

IS_ASKED = os.environ.get("NETDICOM_TX_ATTACKS") == "1"
SECONDS = 10.0 if IS_ASKED else 1.0
PEERS = 8
#: Seconds for the longest echo, and for a new peer to be served, on a machine that does much else.
PATIENCE = 3.0
ALWAYS = "33 associations"


def megabytes(pid: int) -> float:
    """The resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.slow
class AttackTests(TestCase):
    """Of a node in a process of its own, by processes of their own."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.directory = tmp_path
        self.node = Node(tmp_path, "--max-associations", "50")
        self.attackers: list[Process] = []
        yield
        for each in self.attackers:
            each.kill()
        self.node.kill()

    def begin(self, name: str) -> None:
        """Start the attackers, and wait until they attack."""
        self.attackers = [
            Process(
                self.directory / f"attacker-{each}.log",
                *(sys.executable, "-m", "support.attacks", name, str(self.node.address.port)),
                PYTHONPATH=os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "tests"))),
            )
            for each in range(PEERS)
        ]
        for each in self.attackers:
            each.ready(lambda each=each: "ready" in each.text(), "attacker")  # type: ignore[misc]

    def remote(self) -> RemoteAE:
        return RemoteAE("X", self.node.address.endpoint)

    async def prepare(self, name: str) -> None:
        """What the attack needs to find in the archive."""
        scu = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE], [DEFLATED_BOMB.transfer_syntax])
        if "bomb" in name:
            syntax, uid = DEFLATED_BOMB.transfer_syntax, BOMB
            data = await deferToThread(bomb)
        elif "7,000" in name:
            scu = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
            syntax, uid = "1.2.840.10008.1.2.1", "1.2.3.1"
            data = ct(uid, pixels=100 << 20)
        else:
            return
        header = part10_header(CT_IMAGE_STORAGE, uid, syntax)
        async with await scu.request_association(self.remote()) as asce:
            assert await asce.get_scu(CT_IMAGE_STORAGE)(BytesIO(header + data)) == 0x0000

    async def warm_up(self) -> None:
        """Have the node load what it needs for queries."""
        scu = AE("HONEST").add_scu(qr_find_scu).add_scu(modality_work_list_scu)
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", "1.2.3.1"
        async with await scu.request_association(self.remote()) as asce:
            for sop_class in (STUDY_ROOT_FIND_SOP_CLASS, WORKLIST):
                async for _ in asce.get_scu(sop_class)(asked):
                    pass

    async def attacked(self, name: str) -> None:
        await deferToThread(self.node.start)
        await self.prepare(name)
        honest = AE("HONEST").add_scu(verification_scu)
        asce = await honest.request_association(self.remote())
        assert await asce.echo() == 0x0000
        await self.warm_up()
        before = peak = megabytes(self.node.pid)
        await deferToThread(self.begin, name)
        echoes: list[float] = []
        newcomers: list[float] = []
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            begun = time.monotonic()
            assert await asce.echo() == 0x0000
            echoes.append(time.monotonic() - begun)
            if len(echoes) % 50 == 1:
                begun = time.monotonic()
                async with await honest.request_association(self.remote()) as other:
                    assert await other.echo() == 0x0000
                newcomers.append(time.monotonic() - begun)
                peak = max(peak, megabytes(self.node.pid))
            await deferLater(reactor, 0.01)
        for each in self.attackers:
            assert not each.ended(), each.text()
        await asce.release()
        begun = time.monotonic()
        await deferToThread(self.node.stop)
        stopped = time.monotonic() - begun
        echoes.sort()
        print(
            f"{name}: {len(echoes)} echoes, p50 {echoes[len(echoes) // 2] * 1000:.1f} ms, "
            f"p99 {echoes[len(echoes) * 99 // 100] * 1000:.0f} ms, longest {echoes[-1] * 1000:.0f} ms; "
            f"a new peer within {max(newcomers) * 1000:.0f} ms; {before:.0f} to {peak:.0f} MiB; "
            f"SIGTERM {stopped:.1f} s"
        )
        assert echoes[-1] < PATIENCE
        assert max(newcomers) < PATIENCE
        assert stopped < 15


def _add(name: str) -> None:
    async def test(self: AttackTests) -> None:
        await self.attacked(name)

    method = "test_" + "".join(each if each.isalnum() else "_" for each in name)
    if name != ALWAYS:
        test = pytest.mark.skipif(not IS_ASKED, reason="NETDICOM_TX_ATTACKS=1 is not set")(test)
    setattr(AttackTests, method, test)


for _name in ATTACKS:
    _add(_name)
