"""How an association begins, on either side (PS3.8 7.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx import (
    AE,
    Association,
    AssociationAbortedError,
    AssociationRejectedError,
    ConnectionLostError,
    DCMTimeoutError,
    Timeouts,
    Window,
    verification_scp,
)
from netdicom_tx.pdu import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    PresentationContextAC,
)
from netdicom_tx.testing import failure_of, success_of
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    MaximumLength,
    UserIdentity,
    UserIdentityResponse,
)
from support.doubles import (
    AC,
    EXPLICIT,
    RELEASE_RQ,
    Caller,
    Node,
    RawPeer,
    acceptance,
    calling,
    pdu,
    request,
    serving,
)
from support.doubles import logged_failures as logged_failures

TIMEOUTS = Timeouts()


# -- requestor -------------------------------------------------------------------------------------


def test_a_rejection_is_told_with_its_codes():
    caller = Caller()
    caller.peer.send(AAssociateRJ(1, 1, 7))
    error = failure_of(caller.opening)
    assert isinstance(error, AssociationRejectedError)
    assert (error.result, error.source, error.diagnostic) == (1, 1, 7)
    assert not caller.ae.associations


def test_an_answer_that_was_not_proposed_is_aborted():
    """PS3.8 9.3.3.2: data in another transfer syntax would be misread."""
    caller = Caller()
    caller.peer.send(AAssociateAC(presentation_contexts=(PresentationContextAC(1, 0, EXPLICIT),)))
    error = failure_of(caller.opening)
    assert isinstance(error, AssociationAbortedError)
    assert (error.source, error.reason_diag, error.by_peer) == (2, 6, False)
    assert caller.peer.abort() == (2, 6)


def test_the_peer_must_answer_the_request_in_time():
    caller = Caller()
    caller.advance(TIMEOUTS.associate - 1)
    assert not caller.opening.called
    caller.advance(1)
    error = failure_of(caller.opening)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "associate"
    assert caller.peer.abort() == (0, 0)


def test_an_answer_in_time_ends_that_wait():
    caller, asce = calling()
    caller.advance(TIMEOUTS.associate)
    assert asce.is_open


def test_cancelling_while_the_answer_is_awaited_aborts():
    caller = Caller()
    caller.opening.cancel()
    assert isinstance(failure_of(caller.opening), defer.CancelledError)
    assert caller.peer.abort() == (0, 0)
    caller.peer.send(acceptance(caller.asked))
    assert not any(each.is_open for each in caller.ae.associations)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda peer: peer.send(AAbort(0, 0)), AssociationAbortedError),
        (lambda peer: peer.send(AAbort(2, 1)), AssociationAbortedError),
        (lambda peer: peer.transport.loseConnection(), ConnectionLostError),
        (lambda peer: peer.transport.abortConnection(), ConnectionLostError),
        (lambda peer: peer.send(pdu(0xFF)), AssociationAbortedError),
        (lambda peer: peer.send(pdu(RELEASE_RQ)), AssociationAbortedError),
    ],
)
def test_a_request_fails_with_what_ended_the_negotiation(end, expected):
    caller = Caller()
    end(caller.peer)
    assert isinstance(failure_of(caller.opening), expected)


def test_a_hook_sees_the_acceptance():
    class Curious(AE):
        seen: Any = None

        def on_association_response(self, response: AAssociateAC) -> None:
            self.seen = response

    ae = Curious("CALLER")
    _, asce = calling(ae=ae)
    assert ae.seen is asce.response_pdu


def test_a_hook_that_fails_fails_the_request():
    class Picky(AE):
        def on_association_response(self, response: AAssociateAC) -> None:
            raise ValueError("not this one")

    caller = Caller(Picky("CALLER"))
    caller.peer.send(acceptance(caller.asked))
    error = failure_of(caller.opening)
    assert isinstance(error, ValueError)
    assert caller.peer.abort() == (0, 0)


def test_a_hook_that_aborts_fails_the_request():
    class Fickle(AE):
        def on_association_response(self, response: AAssociateAC) -> None:
            for each in self.associations:
                each.abort()

    caller = Caller(Fickle("CALLER"))
    caller.peer.send(acceptance(caller.asked))
    assert isinstance(failure_of(caller.opening), AssociationAbortedError)
    assert caller.peer.abort() == (0, 0)


@pytest.mark.parametrize("confirmed", [True, False])
def test_an_identity_that_must_be_confirmed_is_waited_for(confirmed):
    """PS3.7 D.3.3.7.2: an acceptor that does not check identities sends no response item."""
    caller = Caller(user_items=[UserIdentity(1, b"user", b"", True)])
    response = (UserIdentityResponse(b""),) if confirmed else ()
    caller.peer.send(acceptance(caller.asked, MaximumLength(0), *response))
    if confirmed:
        assert success_of(caller.opening).is_open
    else:
        assert "did not confirm" in str(failure_of(caller.opening))
        assert caller.peer.abort() == (0, 0)


# -- acceptor --------------------------------------------------------------------------------------


class Doorkeeper(AE):
    """Decides by what the test says; more of it is in test_applicationentity."""

    verdict: Callable[[], Any]

    def on_association_request(self, asce: Association, assoc: Any) -> Any:
        return self.verdict()


def asking(verdict: Callable[[], Any], **fields: Any) -> tuple[Node, RawPeer]:
    ae = Doorkeeper("NODE").add_scp(verification_scp)
    ae.verdict = verdict
    node = Node(ae)
    peer = node.connect()
    peer.send(request(**fields))
    return node, peer


def test_an_acceptor_may_be_asked_and_waited_for():
    verdict: defer.Deferred[None] = defer.Deferred()
    node, peer = asking(lambda: verdict)
    assert not node.association().is_open
    verdict.callback(None)
    assert peer.kinds() == [AC]
    assert node.association().is_open


@pytest.mark.parametrize(
    ("error", "codes"),
    [(AssociationRejectedError(1, 1, 3), (1, 1, 3)), (ZeroDivisionError("a bug"), (2, 1, 1))],
)
def test_an_acceptor_may_reject(error, codes, failures):
    node, peer = asking(lambda: defer.fail(error))
    assert peer.rejection() == codes
    assert isinstance(node.association().error, AssociationRejectedError)
    assert failures.texts() == ([] if codes[0] == 1 else ["a bug"])


def test_an_acceptor_that_was_left_decides_nothing():
    cancelled: list[bool] = []
    verdict: defer.Deferred[None] = defer.Deferred(
        lambda d: (cancelled.append(True), d.callback(None))
    )
    _, peer = asking(lambda: verdict)
    peer.send(AAbort(0, 0))
    assert cancelled == [True]
    assert peer.take() == []
    cancelled.clear()
    _, peer = asking(lambda: defer.Deferred(lambda _: cancelled.append(True)))
    peer.transport.abortConnection()
    assert cancelled == [True]


def test_a_mistake_in_a_verdict_is_told_even_when_the_peer_has_left(failures):
    verdict: defer.Deferred[None] = defer.Deferred(
        lambda d: d.errback(ZeroDivisionError("a bug in the clean-up"))
    )
    _, peer = asking(lambda: verdict)
    peer.send(AAbort(0, 0))
    assert failures.texts() == ["a bug in the clean-up"]


def test_an_acceptor_that_is_left_at_once_waits_for_nothing():
    """The abort is here before the acceptance has been sent to its end."""
    verdict: defer.Deferred[None] = defer.Deferred()
    node, peer = asking(lambda: verdict)
    peer.dataReceived = lambda data: peer.send(AAbort(0, 0))  # type: ignore[method-assign]
    verdict.callback(None)
    assert node.clock.getDelayedCalls() == []


def test_an_acceptor_has_its_own_view_of_the_window():
    node = serving(verification_scp, window=Window(4, 5))
    node.associate(None, MaximumLength(0), AsynchronousOperationsWindow(2, 9))
    assert node.association().window == Window(4, 2)


def test_a_request_that_cannot_be_answered_is_aborted():
    node = Node()
    peer = node.connect()
    peer.send(request({}))
    assert peer.abort() == (2, 6)
    assert not node.association().is_open


def test_an_acceptor_rejects_by_itself():
    node = serving(verification_scp, called_ae_titles=["OTHER"])
    peer = node.connect()
    peer.send(request())
    assert peer.rejection() == (1, 1, 7)
