"""Associations as their users hold them; their parts are in the files of their modules (PS3.7 7, PS3.8 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx import (
    AE,
    Association,
    AssociationAbortedError,
    AssociationReleasedError,
    ClassNotSupportedError,
    ConnectionLostError,
    DCMTimeoutError,
    Timeouts,
    Window,
    verification_scp,
    verification_scu,
)
from netdicom_tx.pdu import (
    AAbort,
    AAssociateAC,
    PresentationContextAC,
)
from netdicom_tx.statuses import SUCCESS
from netdicom_tx.testing import connected, failure_of, success_of
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    MaximumLength,
    RoleSelection,
)
from support.doubles import (
    COMMITMENT,
    CT,
    EXPLICIT,
    FIND,
    IMPLICIT,
    MR,
    RELEASE_RQ,
    VERIFICATION,
    Caller,
    Node,
    calling,
    context,
    echo,
    find_rq,
    p_data,
    pdu,
    request,
    run,
    serving,
    store_rq,
)
from support.doubles import logged_failures as logged_failures

TIMEOUTS = Timeouts()


# -- facts -----------------------------------------------------------------------------------------


def test_an_association_says_with_whom_it_is():
    caller, asce = calling()
    assert repr(asce) == "<Association to PEER, open>"
    assert asce.peer_title == "PEER"
    assert asce.remote_ae is caller.remote
    asce.abort()
    assert repr(asce) == "<Association to PEER, over>"
    node = Node()
    node.associate()
    assert repr(node.association()) == "<Association from PEER, open>"
    assert node.association().called_ae_title == "NODE"
    assert node.association().peer_address is not None


def test_the_title_of_a_peer_is_safe_for_logs():
    node = Node()
    peer = node.connect()
    peer.send(request(calling_ae_title="A\nB\x1b[2J"))
    (asce,) = node.ae.associations
    assert asce.peer_title == "A\\nB\\x1b[2J"


def test_contexts_come_in_the_order_they_were_proposed():
    _, asce = calling([(CT, [EXPLICIT]), (MR, [IMPLICIT]), (CT, [IMPLICIT])])
    assert [each.supported_ts for each in asce.contexts_for(CT)] == [EXPLICIT, IMPLICIT]
    assert asce.contexts_for(FIND) == ()


def test_refusals_are_told():
    caller = Caller(AE("CALLER").add_scu(verification_scu), {VERIFICATION: [IMPLICIT]})
    (asce,) = caller.ae.associations
    assert asce.refusals(VERIFICATION) == {}
    caller.peer.send(AAssociateAC(presentation_contexts=(PresentationContextAC(1, 3),)))
    assert success_of(caller.opening) is asce
    assert asce.refusals(VERIFICATION) == {IMPLICIT: "abstract syntax not supported"}
    with pytest.raises(ClassNotSupportedError, match="abstract syntax not supported"):
        asce.get_scu(VERIFICATION)


def test_an_scu_must_have_been_registered():
    _, asce = calling()
    with pytest.raises(ClassNotSupportedError, match="add_scu"):
        asce.get_scu(VERIFICATION)


def test_an_event_needs_a_context_and_takes_consent_for_granted():
    """Many SCUs do not answer role selection, and take N-EVENT-REPORT nevertheless."""
    _, asce = calling({COMMITMENT: [IMPLICIT]})
    ctx = asce.context_as_scp(COMMITMENT)
    assert ctx.as_scp
    assert asce.accepted_contexts[1] is ctx
    assert asce.context_as_scp(COMMITMENT) is ctx
    with pytest.raises(ClassNotSupportedError):
        asce.context_as_scp(CT)


def test_an_scu_needs_its_role():
    ae = AE("CALLER").add_scu(verification_scu)
    roles = [RoleSelection(VERIFICATION, True, True)]
    caller = Caller(ae, roles=roles)
    asce = caller.accept(MaximumLength(0), RoleSelection(VERIFICATION, False, True))
    with pytest.raises(ClassNotSupportedError, match="without the SCU role of this side"):
        asce.get_scu(VERIFICATION)


# -- the end, for all that waits -------------------------------------------------------------------


ENDS: dict[str, tuple[Callable[[Caller, Association], object], type[Exception]]] = {
    "abort": (lambda caller, asce: asce.abort(), AssociationAbortedError),
    "abort of the peer": (
        lambda caller, asce: caller.peer.send(AAbort(0, 0)),
        AssociationAbortedError,
    ),
    "invalid PDU": (lambda caller, asce: caller.peer.send(pdu(0x42)), AssociationAbortedError),
    "invalid message": (
        lambda caller, asce: caller.peer.send(p_data(1, 2, b"??")),
        AssociationAbortedError,
    ),
    "close": (lambda caller, asce: caller.peer.transport.loseConnection(), ConnectionLostError),
    "reset": (lambda caller, asce: caller.peer.transport.abortConnection(), ConnectionLostError),
    "no response": (lambda caller, asce: caller.advance(TIMEOUTS.response), DCMTimeoutError),
    "release of the peer": (
        lambda caller, asce: caller.peer.send(pdu(RELEASE_RQ)),
        AssociationReleasedError,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_all_that_is_outstanding_fails_with_the_same_reason(name):
    end, expected = ENDS[name]
    ae = AE("CALLER", window=Window(2, 1))
    caller, asce = calling(
        {VERIFICATION: [IMPLICIT], FIND: [IMPLICIT]},
        ae,
        (MaximumLength(0), AsynchronousOperationsWindow(2, 1)),
    )
    single = echo(asce)
    stream = asce.request_many(find_rq(), context(asce, FIND), lambda response: response)
    done, reading = stream.done, defer.Deferred.fromCoroutine(anext(stream))
    waiting = echo(asce)
    end(caller, asce)
    errors = [failure_of(each) for each in (single, done, reading, waiting)]
    assert isinstance(errors[0], expected)
    assert all(type(each) is type(errors[0]) for each in errors)
    assert all(each.__cause__ is errors[0].__cause__ for each in errors)
    assert len({id(each) for each in errors}) == len(errors), "each has one of its own"
    assert type(asce.error) is type(errors[0])
    assert failure_of(echo(asce)).__cause__ is asce.error
    assert asce.operations == 0
    # Nothing waits for ever: at most ARTIM is left.
    caller.advance(TIMEOUTS.artim)
    assert caller.peer.is_lost
    assert caller.clock.getDelayedCalls() == []


@pytest.mark.parametrize("name", ENDS)
def test_what_waits_for_a_release_is_told_of_the_end(name):
    end, expected = ENDS[name]
    caller, asce = calling()
    echo(asce).addErrback(lambda _: None)
    released = asce.release()
    end(caller, asce)
    if expected is AssociationReleasedError:
        assert success_of(released) is None
    else:
        assert isinstance(failure_of(released), expected)


# -- async with ------------------------------------------------------------------------------------


def test_a_block_releases_at_its_end():
    scu, scp = AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(verification_scp)

    async def main(opening: Any) -> int:
        async with await opening as asce:
            return await asce.get_scu(VERIFICATION)()

    with connected(scu, scp) as pair:
        acceptor_over = pair.acceptor.closed()
        assert run(main(defer.succeed(pair.requestor))) == SUCCESS
        assert isinstance(pair.requestor.error, AssociationReleasedError)
        assert isinstance(success_of(acceptor_over), AssociationReleasedError)


def test_a_block_that_raises_aborts():
    caller, asce = calling()

    async def main() -> None:
        async with asce:
            raise KeyError("of mine")

    with pytest.raises(KeyError, match="of mine"):
        run(main())
    assert caller.peer.abort() == (0, 0)


def test_a_block_that_is_thrown_away_aborts_when_it_is_gone():
    """Not while it is being closed: its abort would wake it ("coroutine already executing")."""
    caller, asce = calling()
    ended: list[Any] = []

    async def main() -> None:
        async with asce:
            await echo(asce)

    block = main()
    defer.Deferred.fromCoroutine(block).addErrback(ended.append)
    block.close()
    assert ended == []
    caller.clock.advance(0)
    assert isinstance(asce.error, AssociationAbortedError)
    assert [each.type for each in ended] == [RuntimeError]  # of Twisted: its coroutine is gone


def test_a_block_whose_association_was_lost_says_so():
    caller, asce = calling()

    async def main() -> None:
        async with asce:
            caller.peer.transport.loseConnection()

    with pytest.raises(ConnectionLostError):
        run(main())


def test_a_block_that_was_told_why_is_not_told_again():
    caller, asce = calling()
    told: list[Exception] = []

    async def main() -> None:
        async with asce:
            answer = echo(asce)
            caller.peer.transport.loseConnection()
            try:
                await answer
            except ConnectionLostError as error:
                told.append(error)

    run(main())
    assert [each.__cause__ for each in told] == [asce.error]


def test_a_block_whose_request_was_refused_for_the_end_is_not_told_again():
    """The request was made when the association was over already."""
    caller, asce = calling()
    told: list[Exception] = []

    async def main() -> None:
        async with asce:
            caller.peer.transport.loseConnection()
            try:
                await echo(asce)
            except ConnectionLostError as error:
                told.append(error)

    run(main())
    assert [each.__cause__ for each in told] == [asce.error]


# -- waiting ---------------------------------------------------------------------------------------


def test_a_pause_lasts_no_longer_than_the_association():
    node = Node()
    peer = node.associate()
    whole = defer.Deferred.fromCoroutine(node.association().pause_for(5))
    cut = defer.Deferred.fromCoroutine(node.association().pause_for(50))
    node.advance(5)
    assert success_of(whole) is None
    assert not cut.called
    peer.transport.abortConnection()
    assert success_of(cut) is None
    assert node.clock.getDelayedCalls() == []


# -- limits of the peer ----------------------------------------------------------------------------


def test_a_message_of_an_acceptor_keeps_to_what_the_peer_admits():
    """PS3.8 D.1."""
    node = serving(lambda asce, ctx, msg: (0, bytes(1000)), FIND)
    peer = node.associate({FIND: [IMPLICIT]}, MaximumLength(100))
    peer.send(find_rq(1))
    sizes = [len(body) for _, body in peer.take()]
    assert max(sizes) == 100
    assert len(sizes) > 10


def test_a_message_of_a_requestor_keeps_to_what_the_peer_admits():
    caller, asce = calling({CT: [IMPLICIT]}, items=(MaximumLength(100),))
    asce.request(store_rq(None, bytes(1000)), context(asce, CT))
    assert max(len(body) for _, body in caller.peer.take()) == 100
