"""The transport as the parts of an association use it: pressure in both directions."""

from __future__ import annotations

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from netdicom_tx.channel import Channel
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.testing import failure_of, success_of
from support.doubles import FIND, IMPLICIT, Node, Slow, echo_rq, find_rq, serving


def test_there_is_nothing_to_send_on_before_the_transport():
    channel = Channel(Clock())
    assert not channel.is_congested
    channel.abort()
    channel.drop()
    channel.end()
    with pytest.raises(LocalProtocolError, match="no transport"):
        channel.send(echo_rq().response(0), 1)


def test_a_hold_says_whose_fault_it_is():
    """A peer that asks for more than was agreed on waits for itself."""
    channel = Channel(Clock())
    peer, reader = object(), object()
    assert not channel.is_behind
    channel.pause(peer, for_peer=True)
    assert not channel.is_behind
    channel.pause(reader)
    assert channel.is_behind
    assert channel.is_held_by(reader)
    channel.resume(reader)
    assert not channel.is_behind
    assert not channel.is_held_by(reader)


def test_nothing_is_read_until_every_holder_lets_go():
    slow = Slow()
    node = serving(slow)
    peer = node.associate()
    asce = node.association()
    one, other = object(), object()
    asce.pause(one)
    asce.pause(other)
    peer.send(echo_rq(1))
    asce.resume(one)
    asce.resume(one)
    assert not slow.running
    asce.resume(other)
    assert slow.running


def test_a_long_result_lets_others_have_their_turn():
    node = Node()
    node.associate()
    order: list[str] = []
    breath = defer.Deferred.fromCoroutine(node.association().breathe())
    node.clock.callLater(0, order.append, "another")
    breath.addCallback(lambda _: order.append("this"))
    assert not breath.called
    node.wire.run()
    assert sorted(order) == ["another", "this"]


def test_a_breath_that_is_not_taken_leaves_no_timer():
    node = Node()
    node.associate()
    before = len(node.clock.getDelayedCalls())
    breath = defer.Deferred.fromCoroutine(node.association().breathe())
    breath.cancel()
    assert isinstance(failure_of(breath), defer.CancelledError)
    assert len(node.clock.getDelayedCalls()) == before


def test_a_result_that_the_peer_does_not_read_waits():
    node = serving(lambda asce, ctx, msg: (0, bytes(1 << 20)), FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    asce = node.association()
    assert not asce.is_congested
    peer.transport.pauseProducing()
    peer.send(find_rq(1))
    assert asce.is_congested
    breath = defer.Deferred.fromCoroutine(asce.breathe())
    node.wire.run()
    assert not breath.called
    peer.transport.resumeProducing()
    assert success_of(breath) is None
