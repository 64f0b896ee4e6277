"""What all peers together have in memory is bounded: they wait, and none comes in; then one is aborted."""

from __future__ import annotations

import subprocess
import sys

import pytest
from twisted.internet.task import Clock

from netdicom_tx import AE, verification_scp
from netdicom_tx.budget import PATIENCE, MemoryBudget
from netdicom_tx.refusals import Refusal
from support.doubles import (
    ABORT,
    CT,
    FIND,
    IMPLICIT,
    VERIFICATION,
    Node,
    RawPeer,
    echo_rq,
    find_rq,
    message,
    request,
    store_rq,
)

LIMIT = 1000


class Peer:
    """An association that holds what the test says."""

    def __init__(self, held: int) -> None:
        self.held = held
        self.is_paused = False
        self.refusals: list[Refusal] = []
        self.is_aborted = False

    def pause(self, holder: object) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume(self, holder: object) -> None:
        assert self.is_paused
        self.is_paused = False

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def abort(self) -> None:
        self.is_aborted = True
        self.held = 0


class World:
    """A budget with a clock and some peers."""

    def __init__(self, *held: int, limit: int | None = LIMIT) -> None:
        self.clock = Clock()
        self.budget = MemoryBudget(limit, lambda: self.clock)
        self.peers = [Peer(each) for each in held]
        for each in self.peers:
            self.budget.add(each)

    @property
    def waiting(self) -> list[int]:
        """Which peers are not read."""
        return [number for number, each in enumerate(self.peers) if each.is_paused]

    def end(self) -> None:
        """All go away, and leave no timer behind."""
        for each in self.peers:
            self.budget.discard(each)
        assert not self.clock.getDelayedCalls()


def test_peers_that_hold_little_are_not_disturbed() -> None:
    world = World(100, 200, 300)
    world.budget.received(LIMIT)
    assert world.budget.total == 600
    assert (world.waiting, world.budget.is_overdrawn) == ([], False)
    world.end()


def test_it_is_not_looked_at_for_every_segment() -> None:
    """It is looked at after a sixteenth of the limit."""
    world = World(900, 900)
    world.budget.received(LIMIT // 16 - 1)
    assert world.budget.total == 0
    world.budget.received(2)
    assert world.budget.total == 1800
    world.end()


def test_the_greediest_waits_first_and_then_the_next() -> None:
    """As long as it is too much; no new association is admitted meanwhile."""
    world = World(100, 700, 500)
    world.budget.received(LIMIT)
    assert world.waiting == [1]
    assert world.budget.is_overdrawn
    world.budget.received(LIMIT)
    assert world.waiting == [1, 2]
    world.peers[2].held = 0
    world.clock.advance(0.25)
    assert world.waiting == [1, 2], "800 of 1000 are still held"
    world.peers[1].held = 600
    world.clock.advance(0.25)
    assert world.waiting == []
    assert not world.budget.is_overdrawn
    world.end()


def test_when_waiting_does_not_help_the_greediest_is_aborted() -> None:
    """An identifier that is not complete is not complete either when its peer waits."""
    world = World(100, 700, 500)
    world.budget.received(LIMIT)
    world.clock.pump([0.25] * int(PATIENCE / 0.25 + 1))
    assert [each.is_aborted for each in world.peers] == [False, True, False]
    (refusal,) = world.peers[1].refusals
    assert refusal.kind == "memory"
    world.clock.advance(0.25)
    assert world.waiting == []
    world.end()


def test_a_peer_that_waits_and_goes_away_is_forgotten() -> None:
    world = World(700, 500)
    world.budget.received(LIMIT)
    world.budget.discard(world.peers[0])
    assert not world.budget.is_overdrawn
    world.peers.pop(0)
    world.end()


def test_without_a_limit_nothing_is_counted() -> None:
    world = World(10**12, limit=None)
    world.budget.received(10**12)
    assert world.waiting == []
    world.end()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_octet_is_a_mistake(limit: int) -> None:
    with pytest.raises(ValueError, match="memory_limit"):
        AE("NODE", memory_limit=limit)


def node(limit: int) -> Node:
    """It keeps instances in memory."""
    ae = AE("NODE", memory_limit=limit).add_scp(verification_scp)
    return Node(ae.add_scp(lambda asce, ctx, msg: 0, [CT, FIND]))


CONTEXTS = {CT: [IMPLICIT], FIND: [IMPLICIT], VERIFICATION: [IMPLICIT]}
SIZE = 400_000


@pytest.mark.parametrize(
    "octets", [message(store_rq(1, bytes(SIZE)), 1), message(find_rq(1, bytes(SIZE)), 3)]
)
def test_incomplete_messages_of_many_peers_are_bounded(octets: bytes) -> None:
    """Three peers of 400 KB are too many for 1 MB: one waits, none comes in, then one is aborted for the others."""
    here = node(1_000_000)
    peers = [here.associate(CONTEXTS) for _ in range(4)]
    for peer in peers[:3]:
        peer.send(octets[:-10])
    assert here.ae._memory.is_overdrawn
    assert here.ae._memory.total > 1_000_000
    late = here.connect()
    late.send(request(CONTEXTS))
    assert late.rejection() == (2, 3, 2)
    assert _is_heard(peers[3]), "others are served"
    here.advance(PATIENCE + 1)
    left = [peer for peer in peers[:3] if ABORT not in peer.kinds()]
    for peer in left:
        peer.send(octets[-10:])
    here.advance(0.25)
    assert [peer.statuses() for peer in left] == [[0]] * 2
    assert not here.ae._memory.is_overdrawn
    assert _is_heard(here.associate(CONTEXTS))


def test_a_peer_that_completes_its_message_goes_on() -> None:
    """Its memory is free again, and all are read."""
    here = node(1_000_000)
    peers = [here.associate(CONTEXTS) for _ in range(3)]
    octets = message(store_rq(1, bytes(SIZE)))
    for peer in peers:
        peer.send(octets[:-10])
    assert here.ae._memory.is_overdrawn
    for peer in peers:
        peer.send(octets[-10:])
    here.advance(0.25)
    here.advance(0.25)
    assert [peer.statuses() for peer in peers] == [[0]] * 3
    assert not here.ae._memory.is_overdrawn


def _is_heard(peer: RawPeer) -> bool:
    peer.send(message(echo_rq(9), 5))
    return peer.statuses() == [0]


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another one")
def test_memory_that_threads_have_used_goes_back_to_the_system() -> None:
    """Else each thread would keep what it has inflated once."""
    program = """
import os, sys, threading
from netdicom_tx.budget import give_back_large_blocks

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def work():
    for size in (5, 10, 15, 20):
        block = bytearray(size << 20)
    barrier.wait()
    del block
    barrier.wait()
    barrier.wait()

give_back_large_blocks()
barrier = threading.Barrier(9)
before = resident()
threads = [threading.Thread(target=work) for _ in range(8)]
for each in threads:
    each.start()
barrier.wait()
barrier.wait()
print(resident() - before)
barrier.wait()
"""
    grown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(grown.stdout) < 40


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another one")
@pytest.mark.parametrize("threads", [False, True])
def test_memory_of_an_image_is_used_again(threads: bool) -> None:
    """Else the kernel would clear 129 pages for each CT image, which costs as much as to hash it."""
    program = f"""
import resource, threading
from netdicom_tx.budget import give_back_large_blocks

def work():
    held = [bytearray(1 << 19) for _ in range(8)]
    del held
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        bytearray(1 << 19)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

give_back_large_blocks()
if {threads}:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""
    faults = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    # 12,800 when each block is cleared.
    assert int(faults.stdout) < 2_000
