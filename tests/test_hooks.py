"""Hooks: what they know of the request, and what they are told of an association."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx import (
    AE,
    Association,
    AssociationAbortedError,
    AssociationRejectedError,
    AssociationReleasedError,
    DCMTimeoutError,
    PContextDef,
    RequestContext,
    Status,
    Timeouts,
    storage_scu,
    uids,
)
from netdicom_tx.pdu import AAssociateAC, AAssociateRQ
from netdicom_tx.sopclass import storage_scp, verification_scp, verification_scu
from netdicom_tx.summary import AssociationSummary
from netdicom_tx.testing import Pair, connected, failure_of, success_of
from netdicom_tx.userdataitems import UserIdentity, UserIdentityResponse
from support.doubles import VERIFICATION, Node, echo_rq, request
from support.doubles import logged_failures as logged_failures
from support.overriding import Porter


class Hooked(AE):
    """Keeps the context of each hook that is called."""

    def __init__(self) -> None:
        super().__init__("NODE")
        self.contexts: list[RequestContext] = []
        self.add_scp(verification_scp).add_scp(storage_scp)

    def on_receive_echo(self, context: RequestContext) -> int:
        self.contexts.append(context)
        return 0

    def on_receive_store(self, context: PContextDef, ds: Any) -> int:
        """Its annotations are those of netdicom2, and it still overrides the hook of the base."""
        assert isinstance(context, RequestContext)
        self.contexts.append(context)
        return 0


def test_a_hook_knows_who_asks_and_what_for() -> None:
    from pydicom.data import get_testdata_file

    ae, path = Hooked(), str(get_testdata_file("CT_small.dcm"))
    scu = AE("CT1").add_scu(verification_scu).add_scu(storage_scu, [uids.CTImageStorage])
    with connected(scu, ae) as pair:
        success_of(pair.requestor.get_scu(VERIFICATION)(7))
        success_of(pair.requestor.get_scu(uids.CTImageStorage)(path, 8))
        echo, store = ae.contexts
        for context in (echo, store):
            assert context.association is pair.acceptor
            assert context.association.calling_ae_title == "CT1"
            assert context.association.peer_address.host == "ct1"  # type: ignore[union-attr]
        assert (echo.request.message_id, store.request.message_id) == (7, 8)
        assert store.request.sop_class_uid == uids.CTImageStorage
        assert str(store.request.sop_instance_uid).startswith("1.3.6.1")


def test_a_context_of_a_hook_is_as_good_as_the_accepted_one() -> None:
    """Equal, with the same hash, so that a hook may ask something back on it."""
    node = Node(Hooked())
    node.associate().send(echo_rq(3))
    (context,) = node.ae.contexts  # type: ignore[attr-defined]
    (accepted,) = node.association().accepted_contexts.values()
    assert context == accepted
    assert accepted == context
    assert hash(context) == hash(accepted)
    assert context != PContextDef(3, VERIFICATION, accepted.supported_ts)
    assert context != Status(0)
    assert repr(context).startswith("RequestContext(id=1")
    assert "request" not in repr(context)
    with pytest.raises(AttributeError):
        context.id = 3  # type: ignore[misc]


# -- the life of an association --------------------------------------------------------------------------


class Watching(AE):
    """Keeps what it is told of its associations.

    Attributes:
        does: What a hook does besides, by its name.
    """

    def __init__(self, title: str, **options: Any) -> None:
        super().__init__(title, **options)
        self.told: list[tuple[Any, ...]] = []
        self.does: dict[str, Callable[[], Any]] = {}

    def _told(self, name: str, *arguments: Any) -> Any:
        self.told.append((name, *arguments))
        return self.does[name]() if name in self.does else None

    def on_association_begun(self, asce: Association) -> Any:
        return self._told("begun", asce)

    def on_association_request(self, asce: Association, assoc: AAssociateRQ) -> Any:
        return self._told("request", asce)

    def on_association_accepted(self, asce: Association) -> Any:
        return self._told("accepted", asce)

    def on_association_response(self, response: AAssociateAC) -> Any:
        return self._told("response")

    def on_association_ended(self, asce: Association, summary: AssociationSummary) -> Any:
        return self._told("ended", asce, summary)

    @property
    def names(self) -> list[str]:
        return [each[0] for each in self.told]

    @property
    def summary(self) -> AssociationSummary:
        summary = self.told[-1][2]
        assert isinstance(summary, AssociationSummary)
        return summary


def test_both_sides_are_told_how_an_association_lives() -> None:
    """From the open transport to the closed one, with what has happened between."""
    scu = Watching("SCU").add_scu(verification_scu)
    scp = Watching("SCP").add_scp(verification_scp)
    with connected(scu, scp) as pair:
        assert scu.told == [
            ("begun", pair.requestor),
            ("accepted", pair.requestor),
            ("response",),
        ]
        assert scp.told == [
            ("begun", pair.acceptor),
            ("request", pair.acceptor),
            ("accepted", pair.acceptor),
        ]
        for _ in range(3):
            success_of(pair.requestor.get_scu(VERIFICATION)())
        assert pair.acceptor.summary.performed == {"C-ECHO": 3}
        assert pair.acceptor.summary.reason is None
        pair.advance(5)
        success_of(pair.requestor.release())
        pair.advance(0)
    assert (scu.names[-1], scp.names[-1]) == ("ended", "ended")
    assert scu.told[-1][1] is pair.requestor
    ours, theirs = scu.summary, scp.summary
    assert (ours.requested, ours.performed) == ({"C-ECHO": 3}, {})
    assert (theirs.requested, theirs.performed) == ({}, {"C-ECHO": 3})
    assert ours.octets_sent == theirs.octets_received == len(pair.transports[0].written)
    assert ours.octets_received == theirs.octets_sent == len(pair.transports[1].written)
    for each in (ours, theirs):
        assert isinstance(each.reason, AssociationReleasedError)
        assert (each.is_accepted, each.duration) == (True, 5)


def test_an_association_that_is_rejected_ends_too() -> None:
    scp = Watching("SCP").add_scp(verification_scp)

    def reject() -> None:
        raise AssociationRejectedError(1, 1, 3)

    scp.does["request"] = reject
    scu = Watching("SCU").add_scu(verification_scu)
    pair = Pair(scu, scp)
    error = failure_of(pair.request_association())
    pair.advance(scu.timeouts.artim)
    assert (scu.names, scp.names) == (["begun", "ended"], ["begun", "request", "ended"])
    assert scu.summary.reason is error
    assert not scp.summary.is_accepted
    assert isinstance(scp.summary.reason, AssociationRejectedError)


def test_a_connection_that_asks_nothing_ends_too() -> None:
    node = Node(Watching("NODE"))
    node.connect().transport.loseConnection()
    assert node.ae.names == ["begun", "ended"]  # type: ignore[attr-defined]
    assert node.ae.summary.octets_received == 0  # type: ignore[attr-defined]


def _raising() -> None:
    raise ZeroDivisionError("a bug")


async def _raising_later() -> None:
    _raising()


@pytest.mark.parametrize("hook", ["begun", "accepted", "ended"])
@pytest.mark.parametrize(
    "does",
    [_raising, _raising_later, lambda: defer.fail(ZeroDivisionError("a bug"))],
    ids=["at once", "coroutine", "Deferred"],
)
def test_a_hook_that_only_watches_changes_nothing_when_it_fails(
    hook: str, does: Any, failures: Any
) -> None:
    scu = Watching("SCU").add_scu(verification_scu)
    scp = Watching("SCP").add_scp(verification_scp)
    scp.does[hook] = scu.does[hook] = does
    with connected(scu, scp) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == 0
        success_of(pair.requestor.release())
    assert (scu.names[-1], scp.names[-1]) == ("ended", "ended")
    assert failures.texts() == ["a bug", "a bug"]


@pytest.mark.parametrize("form", ["value", "Deferred", "coroutine"])
def test_every_hook_of_an_association_may_answer_later(form: str) -> None:
    """A function, a Deferred and a coroutine are equal."""

    async def coroutine() -> None: ...

    does = {"value": lambda: None, "Deferred": lambda: defer.succeed(None), "coroutine": coroutine}
    scu = Watching("SCU").add_scu(verification_scu)
    scp = Watching("SCP").add_scp(verification_scp)
    for name in ("begun", "request", "accepted", "response", "ended"):
        scu.does[name] = scp.does[name] = does[form]
    with connected(scu, scp) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == 0
    assert scu.names == ["begun", "accepted", "response", "ended"]


def test_who_asks_waits_for_the_hook_that_hears_of_the_acceptance() -> None:
    heard: defer.Deferred[None] = defer.Deferred()
    scu = Watching("SCU").add_scu(verification_scu)
    scu.does["response"] = lambda: heard
    pair = Pair(scu, AE("SCP").add_scp(verification_scp))
    opening = pair.request_association()
    assert not opening.called
    heard.callback(None)
    assert success_of(opening).is_open


@pytest.mark.parametrize("end", ["fails", "takes too long", "is cancelled"])
def test_a_hook_that_does_not_take_the_acceptance_fails_the_request(end: str) -> None:
    scu = Watching("SCU").add_scu(verification_scu)
    heard: defer.Deferred[None] = defer.Deferred()
    scu.does["response"] = lambda: heard
    pair = Pair(scu, AE("SCP").add_scp(verification_scp))
    opening = pair.request_association()
    if end == "fails":
        heard.errback(ZeroDivisionError("a bug"))
        assert isinstance(failure_of(opening), ZeroDivisionError)
    elif end == "takes too long":
        pair.advance(scu.timeouts.associate)
        error = failure_of(opening)
        assert isinstance(error, DCMTimeoutError)
        assert error.timer == "associate"
    else:
        opening.cancel()
        assert isinstance(failure_of(opening), defer.CancelledError)
        pair.advance(0)
        heard.addErrback(lambda failure: failure.trap(defer.CancelledError))
    pair.advance(scu.timeouts.artim)
    assert heard.called
    assert not scu.associations
    assert isinstance(scu.summary.reason, AssociationAbortedError)
    assert pair.clock.getDelayedCalls() == []


# -- what on_association_request may say -----------------------------------------------------------------


@pytest.mark.parametrize("verdict", [True, False, 0, "yes", AAssociateRQ])
@pytest.mark.parametrize("form", ["value", "Deferred"])
def test_a_verdict_that_is_none_is_rejected_and_told(
    verdict: Any, form: str, failures: Any
) -> None:
    """PS3.8 Table 9-21: 2/1/1, transient, no reason given. The log says what is expected."""
    ae = Watching("NODE").add_scp(verification_scp)
    ae.does["request"] = lambda: verdict if form == "value" else defer.succeed(verdict)
    node = Node(ae)
    peer = node.connect()
    peer.send(request())
    assert peer.rejection() == (2, 1, 1)
    (told,) = failures.texts()
    assert f"on_association_request returned {verdict!r:.80}; expected None or a User" in told


def test_a_verdict_has_a_time(failures: Any) -> None:
    """The slot of an association that nobody decides on is not kept for ever."""
    ae = Watching("NODE", timeouts=Timeouts(associate=7)).add_scp(verification_scp)
    cancelled: list[bool] = []
    never: defer.Deferred[None] = defer.Deferred(lambda _: cancelled.append(True))
    ae.does["request"] = lambda: never
    node = Node(ae)
    peer = node.connect()
    peer.send(request())
    node.advance(6.9)
    assert peer.take() == []
    node.advance(0.1)
    assert peer.rejection() == (2, 1, 1)
    assert cancelled == [True]
    (told,) = failures.texts()
    assert "7 s (timeout 'associate')" in told
    node.advance(ae.timeouts.artim)
    assert not ae.associations
    assert node.clock.getDelayedCalls() == []


@pytest.mark.parametrize("form", ["value", "Deferred", "coroutine"])
def test_an_acceptor_may_answer_a_user_identity(form: str) -> None:
    """PS3.7 D.3.3.7.2; our own requestor, which insists on an answer, is content with it."""
    response = UserIdentityResponse(b"a ticket")

    async def coroutine() -> UserIdentityResponse:
        return response

    does = {
        "value": lambda: response,
        "Deferred": lambda: defer.succeed(response),
        "coroutine": coroutine,
    }
    scp = Watching("SCP").add_scp(verification_scp)
    scp.does["request"] = does[form]
    pair = Pair(AE("SCU").add_scu(verification_scu), scp)
    identity = UserIdentity(2, b"user", b"secret", positive_response_requested=True)
    remote = replace(pair.remote(), identity=identity)
    asce = success_of(pair.scu.request_association(remote))
    assert asce.response_pdu is not None
    assert asce.response_pdu.user_item(UserIdentityResponse) == response
    assert success_of(asce.get_scu(VERIFICATION)()) == 0


@pytest.mark.parametrize("identity", [None, UserIdentity(1, b"user", b"", False)])
def test_a_user_identity_is_answered_only_where_an_answer_is_wanted(
    identity: UserIdentity | None,
) -> None:
    """PS3.7 D.3.3.7.2: absent unless a positive response was requested."""
    scp = Watching("SCP").add_scp(verification_scp)
    scp.does["request"] = lambda: UserIdentityResponse(b"a ticket")
    pair = Pair(AE("SCU").add_scu(verification_scu), scp)
    remote = replace(pair.remote(), identity=identity)
    asce = success_of(pair.scu.request_association(remote))
    assert asce.response_pdu is not None
    assert asce.response_pdu.user_item(UserIdentityResponse) is None


def test_hooks_may_name_the_public_class_of_an_association():
    """Its methods complete in an editor, and mypy takes the override: tests/support is checked with the package."""
    porter = Porter("PORTER")
    porter.add_scp(verification_scp)
    caller = AE("CALLER").add_scu(verification_scu)
    with connected(caller, porter) as pair:
        assert success_of(pair.requestor.echo()) == 0x0000
        success_of(pair.requestor.release())
    assert porter.seen == [
        "begun",
        "request of CALLER to PORTER",
        "accepted, 1 open",
        "ended, performed 1",
    ]
