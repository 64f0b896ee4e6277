"""Places for associations: peers that use theirs keep it, and new peers get those that are not used."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from netdicom_tx.admission import (
    ACCEPTS_PER_TURN,
    BURST_LIMIT,
    GIVE_WAY,
    HALF_OPEN_LIMIT,
    HALF_OPEN_OCTETS,
    Admission,
    accept_in_turns,
)
from netdicom_tx.exceptions import AssociationAbortedError, NetDICOMError
from netdicom_tx.refusals import Refusal

WARD, CLINIC = "192.0.2.1", "192.0.2.2"


class Peer:
    """A guest that is told what it does."""

    peer_title = "PEER"
    error: NetDICOMError | None = None
    is_requested = False
    is_owed = False
    is_slow = False
    operations = 0
    age = 10.0
    held = 0
    silence = 0.0
    is_dropped = False

    def __init__(self, host: str | None = WARD, **standing: object) -> None:
        self.peer_address: IAddress | None = None if host is None else IPv4Address("TCP", host, 1)
        self.refusals: list[Refusal] = []
        vars(self).update(standing)

    def abort(self) -> None:
        self.error = AssociationAbortedError(0, 0, by_peer=False)

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def drop(self) -> None:
        self.is_dropped = True


def enter(admission: Admission, peer: Peer) -> bool:
    admission.opened(peer)
    return admission.asks(peer)


def test_all_come_in_while_there_is_room() -> None:
    admission = Admission(2)
    assert enter(admission, Peer())
    assert enter(admission, Peer())
    assert not enter(admission, Peer())


@pytest.mark.parametrize("total", [None, 100])
def test_a_host_has_its_share(total: int | None) -> None:
    admission = Admission(total, per_host=2)
    assert [enter(admission, Peer(WARD)) for _ in range(3)] == [True, True, False]
    assert enter(admission, Peer(CLINIC))


@pytest.mark.parametrize(
    "address",
    [IPv4Address("TCP", "127.0.0.1", 1), IPv6Address("TCP", "::1", 1), UNIXAddress("/s"), None],
    ids=repr,
)
def test_this_machine_has_no_share_of_its_own(address: IAddress | None) -> None:
    """A proxy speaks for many peers."""
    admission = Admission(10, per_host=1)
    peers = [Peer(), Peer()]
    for peer in peers:
        peer.peer_address = address
    assert all(enter(admission, peer) for peer in peers)


def test_an_association_that_is_over_has_no_place() -> None:
    admission = Admission(1)
    first = Peer()
    enter(admission, first)
    first.abort()
    assert enter(admission, Peer())


def test_an_idle_association_gives_way() -> None:
    admission = Admission(2)
    idle, idler = Peer(silence=5), Peer(silence=9)
    enter(admission, idle)
    enter(admission, idler)
    assert enter(admission, Peer())
    assert idler.error is not None
    assert idle.error is None


@pytest.mark.parametrize(
    "standing",
    [{"operations": 1, "silence": 9}, {"is_owed": True, "silence": 9}, {"silence": 0.5}],
    ids=["waits for a response", "waits for a report", "has just sent something"],
)
def test_an_association_in_use_keeps_its_place(standing: dict[str, object]) -> None:
    admission = Admission(1)
    busy = Peer(**standing)
    enter(admission, busy)
    assert not enter(admission, Peer())
    assert busy.error is None


def test_a_slow_sender_goes_before_an_idle_one() -> None:
    """It would never be idle for long."""
    admission = Admission(2)
    slow, idle = Peer(is_slow=True, operations=0, silence=0.1), Peer(silence=50)
    enter(admission, slow)
    enter(admission, idle)
    assert enter(admission, Peer())
    assert slow.error is not None
    assert idle.error is None


def test_a_crowd_goes_before_a_single_one() -> None:
    admission = Admission(3)
    single, *crowd = Peer(CLINIC, silence=50), Peer(WARD, silence=2), Peer(WARD, silence=3)
    for peer in (single, *crowd):
        enter(admission, peer)
    assert enter(admission, Peer("192.0.2.3"))
    assert [peer.error is None for peer in (single, *crowd)] == [True, True, False]


def test_connections_that_ask_for_nothing_are_bounded() -> None:
    """Each holds a descriptor and up to a whole A-ASSOCIATE-RQ; the crowd pays, not the one who comes by."""
    admission = Admission()
    honest = Peer(CLINIC)
    crowd = [Peer(WARD) for _ in range(HALF_OPEN_LIMIT)]
    for peer in (honest, *crowd):
        admission.opened(peer)
    assert [peer.is_dropped for peer in (honest, *crowd)] == [False, True] + [False] * (
        HALF_OPEN_LIMIT - 1
    )
    admission.closed(crowd[1])
    admission.opened(Peer(WARD))
    assert not crowd[2].is_dropped
    assert admission.asks(honest)


def test_a_title_has_its_share() -> None:
    """Wherever it calls from; others are not affected, and one that is idle gives way."""
    admission = Admission(per_title=2)
    scanner = [Peer(host, peer_title="CT1", silence=0.5) for host in (WARD, CLINIC, WARD)]
    assert [enter(admission, each) for each in scanner] == [True, True, False]
    assert enter(admission, Peer(WARD, peer_title="CT2"))
    scanner[0].silence = 9
    assert enter(admission, Peer(CLINIC, peer_title="CT1"))
    assert scanner[0].error is not None
    assert scanner[1].error is None


def test_many_peers_may_call_in_the_same_moment() -> None:
    """Their requests are on the way; those that do not come cost the connection a moment later."""
    clock = Clock()
    admission = Admission(clock=lambda: clock)
    peers = [Peer(WARD, age=0.1) for _ in range(HALF_OPEN_LIMIT + 100)]
    for peer in peers:
        admission.opened(peer)
    assert not any(peer.is_dropped for peer in peers)
    for peer in peers[:50]:
        assert admission.asks(peer)
    for peer in peers:
        peer.age += GIVE_WAY
    clock.advance(GIVE_WAY)
    assert [peer.is_dropped for peer in peers] == [False] * 50 + [True] * 50 + [False] * (
        HALF_OPEN_LIMIT
    )
    assert clock.getDelayedCalls() == []


def test_the_memory_of_incomplete_requests_is_bounded() -> None:
    """The greediest pay, however young they are; one that sends little, or has its association, does not."""
    admission = Admission()
    small, asked = Peer(age=0.1, held=1000), Peer(age=0.1, held=HALF_OPEN_OCTETS)
    greedy = [Peer(age=0.1, held=n << 18) for n in range(1, 17)]
    for peer in (small, asked, *greedy):
        admission.opened(peer)
    assert admission.asks(asked)
    admission.received(1 << 21)
    assert not any(peer.is_dropped for peer in greedy)
    admission.received(1 << 21)
    dropped = [peer for peer in greedy if peer.is_dropped]
    assert dropped == greedy[-len(dropped) :]
    assert sum(peer.held for peer in greedy if not peer.is_dropped) <= HALF_OPEN_OCTETS
    assert "fill 16 MiB" in str(dropped[0].refusals[0])
    assert not small.is_dropped
    assert not asked.is_dropped


def test_a_burst_is_bounded() -> None:
    """However young the connections are."""
    clock = Clock()
    admission = Admission(clock=lambda: clock)
    peers = [Peer(WARD, age=0.1) for _ in range(BURST_LIMIT + 1)]
    for peer in peers:
        admission.opened(peer)
    assert [peer.is_dropped for peer in peers] == [True] + [False] * BURST_LIMIT
    for peer in peers:
        admission.closed(peer)
    assert clock.getDelayedCalls() == []


def test_a_flood_of_connections_is_accepted_in_small_turns() -> None:
    """Twisted would accept more in each turn; those who are connected would wait for all of them."""

    class Port:
        numberAccepts = 100
        accepted: ClassVar[list[int]] = []

        def doRead(self) -> None:
            self.accepted.append(self.numberAccepts)
            self.numberAccepts += 20

    port: Any = Port()
    assert accept_in_turns(port) is port
    for _ in range(3):
        port.doRead()
    assert port.accepted == [ACCEPTS_PER_TURN] * 3


def test_a_port_of_another_kind_stays_as_it_is() -> None:
    port: Any = object()
    assert accept_in_turns(port) is port
