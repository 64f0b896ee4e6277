"""The pool of associations, over connections in memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectingCancelledError

from netdicom_tx import AE, AssociationPool, RemoteAE, verification_scp, verification_scu
from netdicom_tx.exceptions import AssociationRejectedError, LocalProtocolError
from netdicom_tx.sopclass import qr_find_scp, qr_find_scu
from netdicom_tx.testing import Pair, failure_of, success_of
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS as FIND
from netdicom_tx.uids import VERIFICATION_SOP_CLASS
from netdicom_tx.uids import ExplicitVRLittleEndian as EXPLICIT
from netdicom_tx.uids import ImplicitVRLittleEndian as IMPLICIT
from netdicom_tx.userdataitems import RoleSelection


class Peer(AE):
    def __init__(self, **options: Any) -> None:
        super().__init__("PEER", **options)
        self.add_scp(verification_scp)
        self.asked = 0
        self.reject: Callable[[], None] = lambda: None

    def on_association_request(self, asce: Any, assoc: Any) -> None:
        self.asked += 1
        self.reject()


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def pair(peer: Peer) -> Pair:
    return Pair(AE("SCU").add_scu(verification_scu), peer)


async def echo(pool: AssociationPool, pair: Pair, remote: Any) -> int:
    async with pool.association(remote) as asce:
        return int(await asce.get_scu(VERIFICATION_SOP_CLASS)())


def run(work: Any) -> defer.Deferred[Any]:
    return defer.Deferred.fromCoroutine(work)


@pytest.mark.slow
def test_a_thousand_operations_share_an_association(pair: Pair, peer: Peer) -> None:
    pool, remote = AssociationPool(pair.scu), pair.remote()
    for _ in range(1000):
        assert success_of(run(echo(pool, pair, remote))) == 0
    assert peer.asked == 1


def test_an_idle_association_is_released(pair: Pair, peer: Peer) -> None:
    """In order, by A-RELEASE; the next operation opens a new one."""
    pool, remote = AssociationPool(pair.scu, idle=30), pair.remote()
    success_of(run(echo(pool, pair, remote)))
    (asce,) = peer.associations
    pair.advance(29)
    assert pool.size == 1
    pair.advance(1.1)
    assert (pool.size, len(peer.associations)) == (0, 0)
    assert "released" in str(asce.error)
    success_of(run(echo(pool, pair, remote)))
    assert peer.asked == 2


def test_what_the_peer_has_closed_is_not_used_again(pair: Pair, peer: Peer) -> None:
    """Health on check-out."""
    pool, remote = AssociationPool(pair.scu), pair.remote()
    success_of(run(echo(pool, pair, remote)))
    for each in peer.associations:
        each.abort()
    pair.advance(0)
    assert success_of(run(echo(pool, pair, remote))) == 0
    assert peer.asked == 2


def test_who_comes_above_the_limit_waits_for_a_place(pair: Pair, peer: Peer) -> None:
    answers: list[defer.Deferred[int]] = []

    def later(context: object) -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    peer.on_receive_echo = later  # type: ignore[method-assign,assignment]
    pool, remote = AssociationPool(pair.scu, limit=2), pair.remote()
    running = [run(echo(pool, pair, remote)) for _ in range(3)]
    assert (len(answers), pool.size) == (2, 2)
    answers[0].callback(0)
    assert len(answers) == 3
    for each in answers[1:]:
        each.callback(0)
    assert [success_of(each) for each in running] == [0, 0, 0]
    assert peer.asked == 2


def test_a_peer_without_room_is_asked_again_later(pair: Pair, peer: Peer) -> None:
    """Rejected, transient (PS3.8 9.3.4): the second attempt comes after the back-off."""

    def once() -> None:
        if peer.asked == 1:
            raise AssociationRejectedError(2, 3, 2)

    peer.reject = once
    pool = AssociationPool(pair.scu, backoff=1)
    done = run(echo(pool, pair, pair.remote()))
    assert not done.called
    pair.advance(1)
    assert success_of(done) == 0


def test_a_permanent_rejection_is_final(pair: Pair, peer: Peer) -> None:
    def always() -> None:
        raise AssociationRejectedError(1, 1, 7)

    peer.reject = always
    pool = AssociationPool(pair.scu)
    assert isinstance(failure_of(run(echo(pool, pair, pair.remote()))), AssociationRejectedError)
    assert (peer.asked, pool.size) == (1, 0)


def test_attempts_end(pair: Pair, peer: Peer) -> None:
    def always() -> None:
        raise AssociationRejectedError(2, 3, 2)

    peer.reject = always
    pool = AssociationPool(pair.scu, attempts=3, backoff=1)
    done = run(echo(pool, pair, pair.remote()))
    pair.advance(1)
    pair.advance(2)
    assert isinstance(failure_of(done), AssociationRejectedError)
    assert (peer.asked, pool.size) == (3, 0)


def test_a_closed_pool_releases_and_lends_no_more(pair: Pair, peer: Peer) -> None:
    pool, remote = AssociationPool(pair.scu), pair.remote()
    success_of(run(echo(pool, pair, remote)))
    success_of(run(pool.close()))
    assert not peer.associations
    assert isinstance(failure_of(run(echo(pool, pair, remote))), LocalProtocolError)


def test_who_gives_up_waiting_leaves_the_place_to_others(pair: Pair, peer: Peer) -> None:
    """Cancelling the wait takes nobody's turn."""
    first: defer.Deferred[int] = defer.Deferred()
    peer.on_receive_echo = lambda context: first  # type: ignore[method-assign,assignment,return-value]
    pool, remote = AssociationPool(pair.scu, limit=1), pair.remote()
    one, two = run(echo(pool, pair, remote)), run(echo(pool, pair, remote))
    two.cancel()
    assert isinstance(failure_of(two), defer.CancelledError)
    first.callback(0)
    assert success_of(one) == 0
    peer.on_receive_echo = lambda context: 0  # type: ignore[method-assign,assignment,return-value]
    assert success_of(run(echo(pool, pair, remote))) == 0


# -- what is proposed ------------------------------------------------------------------------------------


def test_contexts_may_be_pairs(pair: Pair, peer: Peer) -> None:
    """As for request_association; an iterator of them too. Others have associations of their own."""
    pool, remote = AssociationPool(pair.scu), pair.remote()
    pairs = [(VERIFICATION_SOP_CLASS, [EXPLICIT]), (VERIFICATION_SOP_CLASS, [IMPLICIT])]

    async def borrow(contexts: Any) -> list[str]:
        async with pool.association(remote, contexts) as asce:
            return [ctx.supported_ts for ctx in asce.contexts_for(VERIFICATION_SOP_CLASS)]

    assert success_of(run(borrow(pairs))) == [EXPLICIT, IMPLICIT]
    assert success_of(run(borrow(iter(pairs)))) == [EXPLICIT, IMPLICIT]
    assert peer.asked == 1
    assert success_of(run(borrow({VERIFICATION_SOP_CLASS: [EXPLICIT, IMPLICIT]}))) == [EXPLICIT]
    assert (peer.asked, pool.size) == (2, 2)


def test_other_options_are_other_associations(pair: Pair, peer: Peer) -> None:
    pool, remote = AssociationPool(pair.scu), pair.remote()
    role = RoleSelection(VERIFICATION_SOP_CLASS, True, True)

    async def borrow(**options: Any) -> None:
        async with pool.association(remote, **options):
            pass

    for options in ({}, {"roles": [role]}, {"roles": (role,)}, {"roles": iter([role])}):
        success_of(run(borrow(**options)))
    assert peer.asked == 2


# -- what is left ----------------------------------------------------------------------------------------


def test_peers_that_nobody_wants_leave_nothing_behind(pair: Pair, peer: Peer) -> None:
    """A gateway that calls ever new peers, or titles, does not grow."""
    pool = AssociationPool(pair.scu, idle=30)
    for number in range(50):
        remote = replace(pair.remote(), ae_title=f"PEER{number}")
        assert success_of(run(echo(pool, pair, remote))) == 0
    assert (peer.asked, pool.size, len(pool._peers)) == (50, 50, 50)
    pair.advance(30)
    assert (pool.size, len(pool._peers), len(peer.associations)) == (0, 0, 0)
    assert pair.clock.getDelayedCalls() == []


def test_a_peer_that_cannot_be_had_leaves_nothing_behind(pair: Pair, peer: Peer) -> None:
    def always() -> None:
        raise AssociationRejectedError(1, 1, 7)

    peer.reject = always
    pool = AssociationPool(pair.scu)
    failure_of(run(echo(pool, pair, pair.remote())))
    assert pool._peers == {}


def test_what_is_under_way_when_it_is_given_back_counts_until_it_has_ended(
    pair: Pair, peer: Peer
) -> None:
    answer: defer.Deferred[int] = defer.Deferred()
    peer.on_receive_echo = lambda context: answer  # type: ignore[method-assign,assignment,return-value]
    pool, remote = AssociationPool(pair.scu), pair.remote()

    async def leave() -> list[defer.Deferred[int]]:
        async with pool.association(remote) as asce:
            return [asce.get_scu(VERIFICATION_SOP_CLASS)()]

    (status,) = success_of(run(leave()))
    assert pool.size == 1
    answer.callback(0)
    assert success_of(status) == 0
    assert (pool.size, len(peer.associations)) == (0, 0)


def test_what_never_ends_is_aborted_in_the_end(pair: Pair, peer: Peer) -> None:
    """A stream that nobody reads holds the transport: the association ends all the same."""
    matches = [Dataset() for _ in range(2000)]
    peer.on_receive_find = lambda context, ds: matches  # type: ignore[method-assign]
    peer.add_scp(qr_find_scp)
    pair.scu.add_scu(qr_find_scu)
    pool, remote = AssociationPool(pair.scu), pair.remote()

    async def first() -> Any:
        async with pool.association(remote) as asce:
            stream = asce.get_scu(FIND)(Dataset())
            return [stream, await anext(stream)]

    stream, _ = success_of(run(first()))
    closing = run(pool.close())
    pair.advance(pair.scu.timeouts.response)
    assert success_of(closing) is None
    assert (pool.size, len(peer.associations), len(pair.scu.associations)) == (0, 0, 0)
    stream.done.addErrback(lambda _: None)


def test_a_pool_that_closes_tells_who_waits_and_takes_back_what_is_borrowed(
    pair: Pair, peer: Peer
) -> None:
    answer: defer.Deferred[int] = defer.Deferred()
    peer.on_receive_echo = lambda context: answer  # type: ignore[method-assign,assignment,return-value]
    pool, remote = AssociationPool(pair.scu, limit=1), pair.remote()
    borrowed, waiting = run(echo(pool, pair, remote)), run(echo(pool, pair, remote))
    assert success_of(run(pool.close())) is None
    assert "closed" in str(failure_of(waiting))
    answer.callback(0)
    assert success_of(borrowed) == 0
    assert (pool.size, len(pool._peers), len(peer.associations)) == (0, 0, 0)


def test_a_borrower_that_is_cancelled_gets_nothing(pair: Pair, peer: Peer) -> None:
    """However the endpoint calls it: no other attempt is made."""
    hanging: list[defer.Deferred[Any]] = []

    class Hanging:
        def connect(self, factory: Any) -> defer.Deferred[Any]:
            error = ConnectingCancelledError(IPv4Address("TCP", "127.0.0.1", 104))
            hanging.append(defer.Deferred(lambda d: d.errback(error)))
            return hanging[-1]

    pool = AssociationPool(pair.scu)
    waiting = run(echo(pool, pair, RemoteAE("PEER", Hanging())))  # type: ignore[arg-type]
    waiting.cancel()
    assert isinstance(failure_of(waiting), defer.CancelledError)
    assert (len(hanging), pool.size, pool._peers) == (1, 0, {})
    assert pair.clock.getDelayedCalls() == []


@pytest.mark.parametrize("when", ["between two attempts", "while it is asked for"])
def test_a_pool_that_closes_lends_nothing_that_is_being_opened(
    pair: Pair, peer: Peer, when: str
) -> None:
    def busy() -> None:
        raise AssociationRejectedError(2, 3, 2)

    undecided: defer.Deferred[None] = defer.Deferred()
    if when == "between two attempts":
        peer.reject = busy
    else:
        peer.on_association_request = lambda asce, assoc: undecided  # type: ignore[method-assign,assignment]
    pool, remote = AssociationPool(pair.scu), pair.remote()
    waiting = run(echo(pool, pair, remote))
    peer.reject = lambda: None
    assert success_of(run(pool.close())) is None
    assert str(failure_of(waiting)) == "the pool is closed"
    undecided.callback(None)
    pair.advance(10)
    assert (pool.size, len(pool._peers), len(pair.scu.associations)) == (0, 0, 0)
