"""``kill -9`` of a running node at random moments: everything acknowledged is there (RELIABILITY D2, D5)."""

import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu
from netdicom_tx.dsutils import part10_header
from netdicom_tx.exceptions import AssociationError
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT
from support.archive.survivors import made, survivors
from support.interop.ours import echo
from support.node import Node

SENDERS = 4
ROUNDS = 4


class KillTests(TestCase):
    """Senders of our own store without end, until the node is gone."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.node = Node(tmp_path)
        self.store = self.node.storage
        self.random = random.Random()
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self.last_answer = 0
        self.enough: Deferred[None] = Deferred()
        yield
        self.node.kill()

    async def send(self, sender: int, turn: int) -> None:
        """Store one instance after the other, until the association ends."""
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        remote = RemoteAE("X", self.node.address.endpoint)
        number = 0
        try:
            asce = await ae.request_association(remote)
            while True:
                uid = f"1.{turn}.{sender}.{number}"
                number += 1
                header = part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax)
                self.sent.add(uid)
                answer = await asce.get_scu(CT_IMAGE_STORAGE)(BytesIO(header + made(uid)))
                assert answer == 0x0000, f"{answer!r} for {uid}"
                self.acknowledged.add(uid)
                if len(self.acknowledged) == self.last_answer:
                    self.enough.callback(None)
        except AssociationError:
            pass  # the node is dead

    async def crash(self, turn: int) -> str:
        """Kill it in the midst of its work; says when that was."""
        answers, delay = self.random.randrange(1, 60), self.random.uniform(0, 0.02)
        self.last_answer = len(self.acknowledged) + answers
        self.enough = Deferred()
        killed = self.enough.addCallback(lambda _: deferLater(reactor, delay, self.node.kill))
        senders = [Deferred.fromCoroutine(self.send(each, turn)) for each in range(SENDERS)]
        await gatherResults([killed, *senders], consumeErrors=True)
        return f"round {turn}: killed {delay * 1000:.1f} ms after {answers} answers"

    def check(self) -> None:
        """Check what is on the disk now, when a restarted node has answered."""
        found = survivors(self.store)
        assert found <= self.sent
        lost = self.acknowledged - found
        assert not lost, f"lost: {sorted(lost)}"

    @pytest.mark.slow
    async def test_everything_acknowledged_survives_kill_9(self) -> None:
        """Four times on the same storage; then it takes what was left of the last round."""
        self.node.start()
        for turn in range(ROUNDS):
            # Shown when the test fails.
            print(await self.crash(turn))
            await deferToThread(self.node.start)
            assert await echo(self.node.address) == 0x0000
            await deferToThread(self.check)
        left = sorted(self.sent - self.acknowledged)
        assert left, "nothing was under way when the node was killed"
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        async with await ae.request_association(RemoteAE("X", self.node.address.endpoint)) as asce:
            for uid in left:
                header = part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax)
                sent = BytesIO(header + made(uid))
                assert await asce.get_scu(CT_IMAGE_STORAGE)(sent) == 0x0000
                self.acknowledged.add(uid)
        await deferToThread(self.node.stop)
        self.check()
        assert "Traceback" not in self.node.log
