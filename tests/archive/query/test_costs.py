"""What an instance costs on its way out of the archive, in units that no machine changes.

A rate depends on the machine, and so no test measures one (``python -m tests.bench`` does). The numbers here are what
rates come from: statements, hops between threads, reads of files, walks, copies and timers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import sqlalchemy as sa
from twisted.internet import defer

from archive.query.test_retrieval import Net
from netdicom_tx import AE, RequestContext, storage_scp
from netdicom_tx.archive.store import checked
from netdicom_tx.archive.workers import Workers
from netdicom_tx.dulprovider import DULProtocol
from netdicom_tx.sopclass import qr_move_scu
from netdicom_tx.testing import success_of
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS as GET
from netdicom_tx.userdataitems import RoleSelection
from support.archive.archives import Archive, stored
from support.archive.data_sets import CT_IMAGE_STORAGE as CT
from support.archive.data_sets import EXPLICIT, padded
from support.doubles import logged_lines as logged_lines

COUNT = 64
PIXELS = bytes(range(256)) * 400


def image(uid: str) -> bytes:
    return b"".join(
        (
            EXPLICIT.identity(uid),
            EXPLICIT.element(0x00100020, "LO", b"7 "),
            EXPLICIT.element(0x0020000D, "UI", padded("1.9")),
            EXPLICIT.element(0x0020000E, "UI", padded("1.9.1")),
            EXPLICIT.element(0x7FE00010, "OW", PIXELS),
        )
    )


class Receiver(AE):
    """Counts what it is sent, and reads nothing of it."""

    def __init__(self) -> None:
        super().__init__("DEST")
        self.add_scp(storage_scp, [CT], [EXPLICIT.transfer_syntax])
        self.received = 0

    def on_receive_store(self, context: RequestContext, ds: BinaryIO) -> int:
        self.received += 1
        return 0x0000


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    made = Net(Archive(tmp_path / "archive"))
    sender = made.node.sender()
    for number in range(COUNT):
        assert stored(sender, image(f"1.2.{number}"), f"1.2.{number}") == 0x0000
    yield made
    made.pair.close()
    made.node.close()


@pytest.fixture
def costs(net: Net, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What has been counted since the instances are there."""
    found: Counter[str] = Counter()

    def count(target: Any, name: str, what: str = "") -> None:
        real = getattr(target, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            found[what or name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(target, name, counted)

    real_open, real_read = os.open, os.read

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = real_open(path, *arguments, **options)
        found["files opened"] += os.fsdecode(path).endswith(".dcm")
        return descriptor

    def read(descriptor: int, size: int) -> bytes:
        octets = real_read(descriptor, size)
        found["reads"] += 1
        found["octets read"] += len(octets)
        return octets

    def written(self: DULProtocol, pieces: Any) -> None:
        views = [each for each in pieces if isinstance(each, memoryview)]
        found["octets written from where they were read"] += sum(map(len, views))
        real_write(self, pieces)

    real_write = DULProtocol._write
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr(DULProtocol, "_write", written)
    count(checked, "walk")
    count(Workers, "run", "hops")
    # Its clock is that of all; the receiver's timers are among them.
    count(net.pair.clock, "callLater", "timers")

    def executed(*_: Any) -> None:
        found["statements"] += 1

    assert net.node.index._engine is not None
    sa.event.listen(net.node.index._engine, "before_cursor_execute", executed)
    return found


def check(costs: Counter[str], net: Net) -> None:
    """The limits that C-GET and C-MOVE share."""
    sizes = sum(path.stat().st_size for path in net.node.store.instances.rglob("*.dcm"))
    # A study of any size: the search alone asks the index, and goes to a thread.
    assert costs["statements"] <= 6
    assert costs["hops"] <= 2
    # The file is opened once, read once as a whole, and walked once.
    assert costs["files opened"] == COUNT
    assert costs["reads"] == COUNT
    assert costs["octets read"] == sizes
    assert costs["walk"] == COUNT
    # Pixel data goes from there to the transport without a copy.
    assert costs["octets written from where they were read"] >= COUNT * len(PIXELS)


def test_a_study_that_is_got(net: Net, costs: Counter[str]) -> None:
    contexts = [(GET, [EXPLICIT.transfer_syntax]), (CT, [EXPLICIT.transfer_syntax])]
    asce = success_of(
        net.scu.associate(
            net.pair.remote(), contexts=contexts, roles=[RoleSelection(CT, True, True)]
        )
    )

    async def work() -> int:
        return len([each async for each in asce.get("STUDY", StudyInstanceUID="1.9")])

    assert success_of(defer.Deferred.fromCoroutine(work())) == COUNT
    check(costs, net)


def test_a_study_that_is_moved(net: Net, costs: Counter[str]) -> None:
    destination = Receiver()
    network = net.pair.network
    net.node.ae.peers["DEST"] = network.add(destination)
    asce = net.associate(qr_move_scu)

    async def work() -> None:
        await asce.move("STUDY", to="DEST", StudyInstanceUID="1.9")

    running = defer.Deferred.fromCoroutine(work())
    network.advance(0)
    success_of(running)
    assert destination.received == COUNT
    check(costs, net)
    # The wait for the response has one, and so has the receiver's watch over its handler.
    assert costs["timers"] <= 3 * COUNT
