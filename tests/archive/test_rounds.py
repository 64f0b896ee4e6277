"""Rounds of everything that may befall a running node: nothing that was acknowledged is lost, nothing is there in part.

Each round lets four senders store without a pause, does something to the node, and then looks at the disk. There is
one round of each kind, or as many as ``NETDICOM_TX_ROUNDS`` says. A disk that is full or read-only is simulated inside
the process, because a file system of its own needs privileges; so is the power cut, which takes back what no sync has
covered.
"""

import os
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu
from netdicom_tx.dsutils import part10_header
from netdicom_tx.exceptions import AssociationError
from support import faulty_twistd
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT
from support.archive.survivors import made, survivors
from support.node import Node

ROUNDS = int(os.environ.get("NETDICOM_TX_ROUNDS", "1"))
SENDERS = 4
#: Seconds within which every answer must come, whatever befalls the node.
PATIENCE = 15.0

LIMIT = 180 + 60 * ROUNDS
pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT)]


class FaultyNode(Node):
    """A node whose disk fails when it is told to."""

    program = Path(faulty_twistd.__file__)


class RoundTests(TestCase):
    """On one storage directory, round after round."""

    timeout = LIMIT

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.faults = tmp_path / "faults"
        self.faults.mkdir()
        self.node = FaultyNode(
            tmp_path, "--max-associations", "20", NETDICOM_TX_FAULTS=str(self.faults)
        )
        self.store = self.node.storage
        self.seed = int.from_bytes(os.urandom(4))
        self.random = random.Random(self.seed)
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self.refused = 0
        self.longest = 0.0
        self.answers: list[int] = []
        self.waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self.is_over = False
        yield
        self.node.kill()

    # -- the load ------------------------------------------------------------------------------------

    async def send(self, turn: int, sender: int) -> None:
        """Store one instance after the other, until the round is over or the node is gone."""
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        number = 0
        try:
            asce = await ae.request_association(RemoteAE("X", self.node.address.endpoint))
            while not self.is_over:
                uid = f"1.{turn}.{sender}.{number}"
                number += 1
                header = part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax)
                self.sent.add(uid)
                begun = time.monotonic()
                status = await asce.get_scu(CT_IMAGE_STORAGE)(BytesIO(header + made(uid)))
                self.longest = max(self.longest, time.monotonic() - begun)
                self.note(uid, int(status))
            await asce.release()
        except AssociationError:
            pass  # the node is gone

    def note(self, uid: str, status: int) -> None:
        """An answer came."""
        assert status in (0x0000, 0xA700), f"{status:04X} for {uid}"
        self.answers.append(status)
        if status:
            self.refused += 1
        else:
            self.acknowledged.add(uid)
        for condition, deferred in list(self.waiting):
            if condition():
                self.waiting.remove((condition, deferred))
                deferred.callback(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for answers."""
        deferred: Deferred[None] = Deferred()
        self.waiting.append((condition, deferred))
        await deferred.addTimeout(4 * PATIENCE, reactor)

    async def some(self, least: int = 1, most: int = 40) -> None:
        """Wait for some more answers, and a little longer."""
        enough = len(self.answers) + self.random.randrange(least, most)
        await self.until(lambda: len(self.answers) >= enough)
        await deferLater(reactor, self.random.uniform(0, 0.02))

    async def rounds(self, befall: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Under load, let something befall the node; look at the disk afterwards, in a node that was started again."""
        await deferToThread(self.node.start)
        for turn in range(ROUNDS):
            self.is_over = False
            senders = [Deferred.fromCoroutine(self.send(turn, each)) for each in range(SENDERS)]
            sending = gatherResults(senders, consumeErrors=True)
            await befall(turn)
            self.is_over = True
            await sending
            await deferToThread(self.restarted)
            await deferToThread(self.check)
        print(
            f"{ROUNDS} rounds, seed {self.seed}: {len(self.acknowledged)} acknowledged, {self.refused} refused, "
            f"longest answer {self.longest:.2f} s, 0 lost, 0 partial"
        )
        assert self.longest < PATIENCE
        await deferToThread(self.node.stop)

    def restarted(self) -> None:
        """Start the node again, in order if it still runs."""
        self.node.stop()
        self.node.start()

    def check(self) -> None:
        """Check what is on the disk now, when a restarted node has answered."""
        found = survivors(self.store)
        assert found <= self.sent
        lost = self.acknowledged - found
        assert not lost, f"seed {self.seed}: lost {sorted(lost)}"

    # -- what befalls it -----------------------------------------------------------------------------

    async def test_kill_9(self) -> None:
        async def befall(turn: int) -> None:
            await self.some()
            self.node.kill()

        await self.rounds(befall)

    async def test_power_cut(self) -> None:
        """What was not synced is gone; in half of the rounds the index, too."""

        async def befall(turn: int) -> None:
            await self.some()
            self.node.kill()
            records, files = faulty_twistd.cut(self.faults, self.store)
            print(f"taken back: {records} records of the journal, {files} files")
            (self.faults / "events").unlink()
            if self.random.random() < 0.5:
                for path in self.store.glob("index.db*"):
                    path.unlink()

        await self.rounds(befall)

    async def test_sigterm(self) -> None:
        """Every instance that has begun is answered; the node ends within its time with status 0."""

        async def befall(turn: int) -> None:
            await self.some()
            begun = time.monotonic()
            await deferToThread(self.node.stop)
            assert time.monotonic() - begun < PATIENCE

        await self.rounds(befall)

    async def failing(self, fault: str) -> None:
        """The disk fails for a while: everything is refused, and then nothing any more."""

        async def befall(turn: int) -> None:
            await self.some()
            (self.faults / "new").write_text(fault)
            (self.faults / "new").rename(self.faults / "fault")
            refused = self.refused + self.random.randrange(1, 20)
            await self.until(lambda: self.refused >= refused)
            (self.faults / "fault").unlink()
            kept = len(self.acknowledged) + 20
            await self.until(lambda: len(self.acknowledged) >= kept)

        await self.rounds(befall)

    async def test_full_disk(self) -> None:
        await self.failing("ENOSPC")

    async def test_read_only_disk(self) -> None:
        await self.failing("EROFS")

    async def test_locked_database(self) -> None:
        """Another process holds it: each answer comes in time, and all is well when it lets go."""

        async def befall(turn: int) -> None:
            await self.some()
            with closing(sqlite3.connect(self.store / "index.db", timeout=60)) as other:
                other.execute("BEGIN EXCLUSIVE")
                answers = len(self.answers) + self.random.randrange(1, 9)
                await self.until(lambda: len(self.answers) >= answers)
                other.rollback()
            kept = len(self.acknowledged) + 20
            await self.until(lambda: len(self.acknowledged) >= kept)

        await self.rounds(befall)

    async def test_deleted_database(self) -> None:
        """Files of it are removed while it is used: nothing that is acknowledged then is missing after a start."""

        async def befall(turn: int) -> None:
            await self.some()
            for path in self.store.glob("index.db*"):
                path.unlink()
            await self.some(8, 40)

        await self.rounds(befall)
