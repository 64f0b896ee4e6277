"""Application entities: what they propose, which peers they accept, and how they end."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import (
    CannotListenError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionRefusedError,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from netdicom_tx import (
    AE,
    Association,
    AssociationAbortedError,
    AssociationRejectedError,
    AssociationReleasedError,
    ConnectionLostError,
    DCMTimeoutError,
    EventHandlingError,
    NetDICOMError,
    RemoteAE,
    Timeouts,
    Window,
    storage_scp,
    store_in_file,
    verification_scp,
    verification_scu,
)
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.pdu import AAbort, AAssociateAC, AAssociateRQ
from netdicom_tx.sopclass import QueryRetrieveFind, qr_get_scp, suboperations
from netdicom_tx.statuses import SUCCESS
from netdicom_tx.testing import connected, failure_of, join, success_of
from netdicom_tx.uids import FIND_SOP_CLASSES, GET_SOP_CLASSES, STORAGE_SOP_CLASSES
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    MaximumLength,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UnknownItem,
    UserIdentity,
)
from support.doubles import (
    ABORT,
    AC,
    CT,
    DATA,
    EXPLICIT,
    FIND,
    IMPLICIT,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    RJ,
    VERIFICATION,
    Caller,
    Node,
    RawPeer,
    calling,
    echo_rq,
    message,
    pdu,
    request,
    store_rq,
)
from support.doubles import logged_failures as logged_failures

TIMEOUTS = Timeouts()
SECRET = UserIdentity(2, b"user", b"secret", False)


def nothing(asce: Association, ctx: Any, msg: Any) -> int:
    return 0


# -- what an AE is ---------------------------------------------------------------------------------------


def test_a_title_is_checked_and_stripped():
    """PS3.5 6.2, AE."""
    assert AE("  ARCHIVE ").ae_title == "ARCHIVE"
    assert RemoteAE(" PEER", "tcp:127.0.0.1:104").ae_title == "PEER"
    for wrong in ("", " ", "A" * 17, "A\\B", "A\n"):
        with pytest.raises(LocalProtocolError):
            AE(wrong)
        with pytest.raises(LocalProtocolError):
            RemoteAE(wrong, "tcp:127.0.0.1:104")


def test_a_string_is_no_list():
    """It would become a list of characters."""
    with pytest.raises(TypeError, match="supported_ts is a list or tuple of UIDs"):
        AE("ONE", EXPLICIT)
    for argument in ("called_ae_titles", "calling_ae_titles"):
        with pytest.raises(
            TypeError, match=rf"{argument} is a list of AE titles, such as \['TWO'\]"
        ):
            AE("ONE", **{argument: "TWO"})  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError):
            AE("ONE", **{argument: ["A" * 17]})  # type: ignore[arg-type]


def test_the_secret_of_a_remote_ae_is_not_shown():
    assert "secret" not in repr(RemoteAE("PEER", "tcp:127.0.0.1:104", SECRET))


def test_registrations_chain_and_take_the_transfer_syntaxes_of_the_ae():
    ae = AE("ONE", [IMPLICIT])
    assert ae.add_scp(verification_scp).add_scu(verification_scu, None, [EXPLICIT]) is ae
    as_scp, as_scu = ae.supported_scp.find(VERIFICATION), ae.supported_scu.find(VERIFICATION)
    assert as_scp is not None
    assert as_scp.transfer_syntaxes == (IMPLICIT,)
    assert as_scu is not None
    assert as_scu.transfer_syntaxes == (EXPLICIT,)
    assert AE("TWO").supported_scp.find(VERIFICATION) is None, "each AE has its own"


def test_the_reactor_is_the_default_one_when_none_is_given():
    from twisted.internet import reactor

    assert AE("ONE").reactor is reactor
    clock = Clock()
    assert AE("ONE", reactor=clock).clock is clock


# -- what it proposes ------------------------------------------------------------------------------------


def proposed(caller: Caller) -> list[tuple[str, tuple[str, ...]]]:
    return [
        (each.abstract_syntax, each.transfer_syntaxes)
        for each in caller.asked.presentation_contexts
    ]


def test_a_request_names_both_sides_and_what_is_registered():
    ae = AE("CALLER", max_pdu_length=12345).add_scu(verification_scu, None, [IMPLICIT])
    caller = Caller(ae, registered=True)
    assert (caller.asked.calling_ae_title, caller.asked.called_ae_title) == ("CALLER", "PEER")
    assert proposed(caller) == [(VERIFICATION, (IMPLICIT,))]
    assert caller.asked.maximum_length == 12345
    assert caller.asked.user_item(AsynchronousOperationsWindow) is None
    assert caller.asked.user_items(RoleSelection) == ()


def test_contexts_may_be_named():
    caller = Caller(AE("CALLER"), {CT: [IMPLICIT, EXPLICIT], MR: [EXPLICIT]})
    assert {uid for uid, _ in proposed(caller)} == {CT, MR}
    caller = Caller(AE("CALLER"), [(CT, [EXPLICIT]), (CT, [IMPLICIT])])
    assert proposed(caller) == [(CT, (EXPLICIT,)), (CT, (IMPLICIT,))]


def test_contexts_may_be_those_of_files():
    path = get_testdata_file("CT_small.dcm")
    caller = Caller(AE("CALLER"), None, for_files=[path])
    (uid, transfer_syntaxes) = proposed(caller)[0]
    assert (uid, transfer_syntaxes[0]) == (CT, EXPLICIT)


@pytest.mark.parametrize("what", ["missing", "no DICOM file"])
def test_a_file_that_cannot_be_read_fails_the_request(what, tmp_path: Path):
    path = tmp_path / "file"
    if what != "missing":
        path.write_bytes(b"no DICOM file")
    ae = AE("CALLER", reactor=Clock())
    error = failure_of(
        ae.request_association(RemoteAE("PEER", "tcp:127.0.0.1:104"), for_files=[path])
    )
    assert isinstance(error, OSError if what == "missing" else NetDICOMError)


def test_windows_roles_identity_and_more_go_with_the_request():
    items = [UnknownItem(0x7F, b"??")]
    roles = [RoleSelection(VERIFICATION, True, True)]
    caller = Caller(AE("CALLER", window=Window(3, 4)), roles=roles, user_items=items)
    asked = caller.asked
    assert asked.user_item(AsynchronousOperationsWindow) == AsynchronousOperationsWindow(3, 4)
    assert asked.user_items(RoleSelection) == tuple(roles)
    assert asked.user_item(UnknownItem) == items[0]
    assert asked.user_item(UserIdentity) is None
    caller = Caller(AE("CALLER"), identity=SECRET)
    assert caller.asked.user_item(UserIdentity) == SECRET


def test_what_c_get_brings_is_proposed_with_our_role():
    """PS3.4 C.4.3: the requestor is SCP of storage."""
    bringing = suboperations(STORAGE_SOP_CLASSES)(lambda asce, ctx: None)
    ae = AE("CALLER").add_scp(storage_scp).add_scu(bringing, GET_SOP_CLASSES[:1])
    caller = Caller(ae.add_scu(nothing, [CT]), registered=True)
    contexts = proposed(caller)
    assert len(contexts) <= 128
    assert contexts[0][0] == GET_SOP_CLASSES[0]
    assert len([uid for uid, _ in contexts if uid in STORAGE_SOP_CLASSES]) > 50
    roles = {each.sop_class_uid: each for each in caller.asked.user_items(RoleSelection)}
    assert roles[CT] == RoleSelection(CT, True, True)
    assert roles[MR] == RoleSelection(MR, False, True)
    assert GET_SOP_CLASSES[0] not in roles


def test_without_c_get_there_are_no_roles():
    ae = AE("CALLER").add_scp(storage_scp).add_scu(nothing, [CT])
    assert Caller(ae, registered=True).asked.user_items(RoleSelection) == ()


def test_what_a_service_brings_is_said_by_the_service():
    """The AE knows no service: another one than C-GET may have sub-operations."""
    private, brought = "1.2.3.4", "1.2.3.5"
    scu = suboperations([brought])(lambda asce, ctx: None)
    ae = AE("CALLER").add_scp(nothing, [brought]).add_scu(scu, [private])
    caller = Caller(ae, registered=True)
    assert [uid for uid, _ in proposed(caller)] == [private, brought, brought]
    assert caller.asked.user_items(RoleSelection) == (RoleSelection(brought, False, True),)


def test_nothing_to_propose_is_said_at_once():
    with pytest.raises(LocalProtocolError, match="add_scu"):
        AE("CALLER", reactor=Clock()).request_association(RemoteAE("PEER", "tcp:127.0.0.1:104"))


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "nonsense:x:1", "tcp:127.0.0.1", "tcp:127.0.0.1:one", ""]
)
def test_an_endpoint_that_is_none_is_refused_at_once_with_a_sentence(endpoint):
    from twisted.internet import reactor

    ae = AE("CALLER", reactor=reactor).add_scu(verification_scu)
    with pytest.raises(LocalProtocolError, match=re.escape(repr(endpoint))):
        ae.request_association(RemoteAE("PEER", endpoint))


def test_the_host_of_an_endpoint_is_what_a_certificate_is_held_against():
    for endpoint, host in (
        ("tcp:pacs.example:104", "pacs.example"),
        ("tcp:port=104:host=pacs.example", "pacs.example"),
        ("tcp:host=\\:\\:1:port=104", "::1"),
        ("unix", ""),
        (Endpoint(), ""),
    ):
        assert RemoteAE("PEER", endpoint)._host() == host  # type: ignore[arg-type]


# -- who gets what ---------------------------------------------------------------------------------------


def test_each_side_sees_what_was_agreed():
    scu = AE("SCU", max_pdu_length=1000, window=Window(5, 1)).add_scu(verification_scu)
    scp = AE("SCP", max_pdu_length=2000, window=Window(1, 3)).add_scp(verification_scp)
    with connected(scu, scp) as pair:
        ours, theirs = pair.requestor, pair.acceptor
        assert (ours.send_limit, theirs.send_limit) == (2000, 1000)
        assert (ours.window, theirs.window) == (Window(3, 1), Window(1, 3))
        assert (theirs.calling_ae_title, theirs.called_ae_title) == ("SCU", "SCP")
        (context,) = ours.accepted_contexts.values()
        assert (context.as_scu, context.as_scp) == (True, False)
        (context,) = theirs.accepted_contexts.values()
        assert (context.as_scu, context.as_scp) == (False, True)


def test_a_peer_cannot_grant_more_than_was_proposed():
    """PS3.7 D.3.3.3.2."""
    ae = AE("CALLER", window=Window(3, 2))
    _, asce = calling(ae=ae, items=(MaximumLength(0), AsynchronousOperationsWindow(9, 0)))
    assert asce.window == Window(3, 2)


def test_each_proposed_context_is_answered():
    """PS3.8 Table 9-18: 3, abstract syntax not supported; 4, transfer syntaxes not supported."""
    node = Node(AE("NODE").add_scp(nothing, [CT], [EXPLICIT]))
    peer = node.connect()
    peer.send(request({CT: [IMPLICIT, EXPLICIT], MR: [EXPLICIT], VERIFICATION: [IMPLICIT]}))
    ((kind, body),) = peer.take()
    assert kind == AC
    answer = AAssociateAC.decode(body)
    assert [each.result for each in answer.presentation_contexts] == [0, 3, 3]
    assert answer.presentation_contexts[0].transfer_syntax == EXPLICIT
    peer = node.connect()
    peer.send(request({CT: [IMPLICIT]}))
    ((_, body),) = peer.take()
    assert [each.result for each in AAssociateAC.decode(body).presentation_contexts] == [4]


def test_the_order_of_the_requestor_decides():
    node = Node(AE("NODE").add_scp(nothing, [CT], [EXPLICIT, IMPLICIT]))
    node.associate({CT: [IMPLICIT, EXPLICIT]})
    assert node.association().accepted_contexts[1].supported_ts == IMPLICIT


def test_roles_are_agreed():
    """PS3.7 D.3.3.4."""
    scu = AE("SCU").add_scu(verification_scu).add_scp(verification_scp)
    scp = AE("SCP").add_scp(verification_scp).add_scu(verification_scu)
    roles = [RoleSelection(VERIFICATION, True, True)]
    with connected(scu, scp, roles=roles) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == SUCCESS
        assert success_of(pair.acceptor.get_scu(VERIFICATION)()) == SUCCESS


def test_an_ae_that_performs_c_get_offers_to_store():
    """PS3.4 C.4.3: on the association on which it was asked."""
    ae = AE("NODE").add_scp(qr_get_scp)
    offer = ae.offer(CT)
    assert offer is not None
    assert (offer.as_scp, offer.as_scu) == (False, True)
    assert AE("NODE").offer(CT) is None


# -- peers it accepts ------------------------------------------------------------------------------------


def rejection(ae: AE, **fields: Any) -> tuple[int, int, int] | None:
    """What the AE answers to a request; None when it accepts."""
    node = Node(ae.add_scp(verification_scp))
    peer = node.connect()
    peer.send(request(**fields))
    ((kind, body),) = peer.take()
    if kind == AC:
        return None
    assert kind == RJ
    node.advance(ae.timeouts.artim)
    assert peer.is_lost
    return body[1], body[2], body[3]


def test_anybody_is_served_under_any_title():
    assert rejection(AE("NODE"), called_ae_title="ANY-SCP") is None


def test_titles_may_be_restricted():
    """PS3.8 Table 9-21: 1/1/7, called AE title not recognized; 1/1/3, calling."""
    assert rejection(AE("NODE", called_ae_titles=["A", "NODE"])) is None
    assert rejection(AE("NODE", called_ae_titles=["OTHER"])) == (1, 1, 7)
    assert rejection(AE("NODE", calling_ae_titles=["PEER"])) is None
    assert rejection(AE("NODE", calling_ae_titles=["OTHER"])) == (1, 1, 3)


class Doorkeeper(AE):
    """Decides by what the test says."""

    verdict: Callable[[], Any] = staticmethod(lambda: None)
    seen: Association

    def on_association_request(self, asce: Association, assoc: AAssociateRQ) -> Any:
        self.seen = asce
        assert asce.calling_ae_title == assoc.calling_ae_title == "PEER"
        assert asce.called_ae_title == "NODE"
        assert asce.peer_address is not None
        return self.verdict()


def guarded(verdict: Callable[[], Any], **options: Any) -> tuple[Node, RawPeer]:
    ae = Doorkeeper("NODE", **options).add_scp(verification_scp)
    ae.verdict = verdict
    node = Node(ae)
    peer = node.connect()
    peer.send(request())
    return node, peer


def refuse() -> None:
    raise AssociationRejectedError(2, 3, 1)


async def refuse_later() -> None:
    refuse()


@pytest.mark.parametrize(
    "verdict",
    [refuse, refuse_later, lambda: defer.fail(AssociationRejectedError(2, 3, 1))],
    ids=["at once", "coroutine", "Deferred"],
)
def test_a_hook_may_reject(verdict):
    node, peer = guarded(verdict)
    assert peer.rejection() == (2, 3, 1)
    assert isinstance(node.association().error, AssociationRejectedError)


@pytest.mark.parametrize("waits", [False, True])
def test_a_hook_may_let_in(waits):
    verdict: defer.Deferred[None] = defer.Deferred()
    node, peer = guarded(lambda: verdict if waits else None, timeouts=Timeouts(artim=2))
    if waits:
        assert peer.take() == []
        node.advance(TIMEOUTS.associate - 1)  # ARTIM does not run in Sta3
        verdict.callback(None)
    assert peer.kinds() == [AC]
    assert node.association().is_open


@pytest.mark.parametrize("form", ["at once", "later"])
def test_a_hook_that_fails_rejects_and_is_logged(form, failures):
    def fail() -> Any:
        error = ZeroDivisionError("a bug")
        if form == "later":
            return defer.fail(error)
        raise error

    _, peer = guarded(fail)
    assert peer.rejection() == (2, 1, 1)
    assert failures.texts() == ["a bug"]


@pytest.mark.parametrize(
    "end",
    [
        lambda peer: peer.send(AAbort(0, 0)),
        lambda peer: peer.send(pdu(0x42)),
        lambda peer: peer.transport.loseConnection(),
        lambda peer: peer.transport.abortConnection(),
    ],
    ids=["abort", "invalid", "close", "reset"],
)
@pytest.mark.parametrize("form", ["Deferred", "coroutine"])
def test_a_hook_is_cancelled_when_the_peer_does_not_wait(end, form):
    cancelled: list[bool] = []
    verdict: defer.Deferred[None] = defer.Deferred(lambda _: cancelled.append(True))

    async def wait() -> None:
        await verdict

    node, peer = guarded(wait if form == "coroutine" else lambda: verdict)
    end(peer)
    assert cancelled == [True]
    assert AC not in peer.kinds()
    node.advance(TIMEOUTS.artim)
    assert not node.ae.associations


def test_a_verdict_that_comes_too_late_is_nothing():
    """The hook does not mind the cancellation."""
    verdict: defer.Deferred[None] = defer.Deferred(lambda d: d.callback(None))
    node, peer = guarded(lambda: verdict)
    peer.send(AAbort(0, 0))
    assert peer.take() == []
    assert isinstance(node.ae.seen.error, AssociationAbortedError)


def test_a_hook_may_abort():
    class Impatient(AE):
        def on_association_request(self, asce: Association, assoc: AAssociateRQ) -> None:
            asce.abort()

    node = Node(Impatient("NODE").add_scp(verification_scp))
    peer = node.connect()
    peer.send(request())
    assert peer.abort() == (0, 0)


# -- how many --------------------------------------------------------------------------------------------


def test_more_associations_than_admitted_are_rejected():
    """PS3.8 Table 9-21: 2/3/2, transient, local limit exceeded."""
    node = Node(AE("NODE", max_associations=2).add_scp(verification_scp))
    first, second = node.associate(), node.associate()
    third = node.connect()
    third.send(request())
    assert third.rejection() == (2, 3, 2)
    for peer in (first, second):
        peer.send(echo_rq(1))
        assert peer.statuses() == [0]


def test_an_idle_association_gives_its_place_to_a_new_peer():
    """A peer that only holds associations open must not keep the others out."""
    node = Node(AE("NODE", max_associations=1).add_scp(verification_scp))
    idle = node.associate()
    node.advance(2)
    assert node.lives()
    assert idle.abort() == (0, 0)


def test_a_peer_that_sends_a_message_octet_by_octet_gives_its_place_too():
    node = Node(AE("NODE", max_associations=1).add_scp(verification_scp))
    slow = node.associate()
    octets = message(echo_rq(1))
    for number in range(4):
        slow.send(octets[number : number + 1])
        node.advance(10)
    slow.send(octets[4:5])
    assert node.lives()
    assert slow.abort() == (0, 0)


def test_a_message_that_comes_too_slowly_ends_its_association():
    """It never is quiet for long, so the idle timeout alone let it hold its place for days."""
    node = Node()
    slow, asce = node.associate(), node.association()
    octets = message(echo_rq(1))
    for number in range(10):
        slow.send(octets[number : number + 1])
        node.advance(TIMEOUTS.idle / 4)
        if asce.error is not None:
            break
    assert slow.abort() == (2, 0)
    assert "fewer than 64 octets a second" in str(asce.error)


@pytest.mark.parametrize(
    "end",
    [
        lambda peer: peer.send(pdu(RELEASE_RQ)),
        lambda peer: peer.send(AAbort(0, 0)),
        lambda peer: peer.send(pdu(0x42)),
        lambda peer: peer.transport.loseConnection(),
        lambda peer: peer.transport.abortConnection(),
    ],
    ids=["release", "abort", "invalid", "close", "reset"],
)
def test_an_association_that_is_over_makes_room(end):
    node = Node(AE("NODE", max_associations=1).add_scp(verification_scp))
    for _ in range(5):
        end(node.associate())
    assert node.lives()


def test_connections_that_ask_nothing_take_no_room():
    node = Node(AE("NODE", max_associations=1).add_scp(verification_scp))
    idle = [node.connect() for _ in range(5)]
    assert node.lives()
    node.advance(TIMEOUTS.artim)
    assert all(each.is_lost for each in idle)
    assert not node.ae.associations


def test_our_own_associations_take_no_room():
    caller, _ = calling(ae=AE("NODE", max_associations=1).add_scp(verification_scp))
    peer = RawPeer()
    join(peer, caller.ae.acceptor_factory().buildProtocol(None), caller.wire)
    peer.send(request())
    assert peer.kinds() == [AC]


def test_those_that_are_being_decided_on_count():
    """Two that ask at once must not both get the last place."""
    ae = Doorkeeper("NODE", max_associations=1).add_scp(verification_scp)
    verdict: defer.Deferred[None] = defer.Deferred()
    ae.verdict = lambda: verdict
    node = Node(ae)
    first, second = node.connect(), node.connect()
    first.send(request())
    second.send(request())
    assert second.rejection() == (2, 3, 2)
    verdict.callback(None)
    assert first.kinds() == [AC]


# -- connecting ------------------------------------------------------------------------------------------


class Endpoint:
    """Connects when the test lets it."""

    def __init__(self) -> None:
        self.cancelled = False
        self.connecting: defer.Deferred[Any] = defer.Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.cancelled = True

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        self.factory = factory
        return self.connecting


def connecting() -> tuple[Endpoint, Clock, defer.Deferred[Association]]:
    endpoint, clock = Endpoint(), Clock()
    ae = AE("CALLER", reactor=clock).add_scu(verification_scu)
    opening = ae.request_association(RemoteAE("PEER", endpoint))  # type: ignore[arg-type]
    return endpoint, clock, opening


def test_a_connection_that_is_refused_is_told_with_its_address():
    endpoint, clock, opening = connecting()
    endpoint.connecting.errback(ConnectionRefusedError())
    error = failure_of(opening)
    assert isinstance(error, ConnectionLostError)
    assert str(error).startswith("no connection to PEER at <")
    assert "Connection was refused" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert clock.getDelayedCalls() == []


def test_a_connection_must_come_in_time():
    endpoint, clock, opening = connecting()
    clock.advance(TIMEOUTS.connect - 1)
    assert not opening.called
    clock.advance(1)
    error = failure_of(opening)
    assert isinstance(error, DCMTimeoutError)
    assert (error.timer, error.seconds) == ("connect", TIMEOUTS.connect)
    assert endpoint.cancelled


def test_cancelling_gives_up_the_attempt():
    endpoint, clock, opening = connecting()
    opening.cancel()
    assert isinstance(failure_of(opening), defer.CancelledError)
    assert endpoint.cancelled
    assert clock.getDelayedCalls() == []


def test_an_endpoint_that_cannot_be_cancelled_changes_nothing():
    endpoint, _, opening = connecting()
    endpoint.connecting._canceller = lambda d: d.errback(ConnectionRefusedError())
    opening.cancel()
    assert isinstance(failure_of(opening), ConnectionLostError)


@pytest.mark.parametrize("then", ["connected", "failed", "silent"])
def test_cancelling_between_the_transport_and_the_endpoint_gives_up(then):
    """An endpoint that wraps another may take its time to say that it is connected, and know no cancelling."""
    endpoint, clock, opening = connecting()
    endpoint.connecting._canceller = None
    protocol = endpoint.factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    opening.cancel()
    assert isinstance(failure_of(opening), defer.CancelledError)
    assert transport.value().endswith(AAbort(0, 0).encode())
    if then == "connected":
        endpoint.connecting.callback(protocol)
    elif then == "failed":
        endpoint.connecting.errback(ConnectionRefusedError())
    protocol.connectionLost(Failure(ConnectionDone()))
    assert clock.getDelayedCalls() == []


def test_cancelling_is_a_cancelled_error_whatever_the_endpoint_calls_it():
    """Twisted's endpoints fail with a ConnectingCancelledError, which is not a CancelledError."""
    endpoint, clock, opening = connecting()
    twisted = ConnectingCancelledError(IPv4Address("TCP", "127.0.0.1", 104))
    endpoint.connecting._canceller = lambda d: d.errback(twisted)
    opening.cancel()
    assert isinstance(failure_of(opening), defer.CancelledError)
    assert clock.getDelayedCalls() == []


def test_a_time_that_is_up_is_a_timeout_whatever_the_endpoint_calls_it():
    endpoint, clock, opening = connecting()
    twisted = ConnectingCancelledError(IPv4Address("TCP", "127.0.0.1", 104))
    endpoint.connecting._canceller = lambda d: d.errback(twisted)
    clock.advance(TIMEOUTS.connect)
    error = failure_of(opening)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "connect"
    assert clock.getDelayedCalls() == []


def test_a_time_that_is_up_while_the_answer_is_awaited_is_another():
    caller = Caller()
    caller.advance(TIMEOUTS.connect)
    error = failure_of(caller.opening)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "associate"


# -- draining --------------------------------------------------------------------------------------------


class Busy:
    """A node with one operation that runs."""

    def __init__(self) -> None:
        self.answer: defer.Deferred[int] = defer.Deferred()
        service = lambda asce, ctx, msg: self.answer  # noqa: E731
        self.node = Node(AE("NODE").add_scp(service, [VERIFICATION]))
        self.peer = self.node.associate()
        self.peer.send(echo_rq(1))


def test_draining_without_associations_is_done():
    node = Node()
    assert success_of(node.ae.drain(10)) is None
    assert node.clock.getDelayedCalls() == []


def test_draining_rejects_what_asks():
    """PS3.8 Table 9-21: 2/3/1, transient, temporary congestion."""
    busy = Busy()
    late = busy.node.connect()
    drained = busy.node.ae.drain(10)
    assert late.is_lost, "it had not asked yet"
    late = busy.node.connect()
    late.send(request())
    assert late.rejection() == (2, 3, 1)
    late.transport.loseConnection()
    assert not drained.called


def test_draining_releases_who_is_idle():
    node = Node()
    peer = node.associate()
    drained = node.ae.drain(10)
    assert peer.kinds() == [RELEASE_RQ]
    assert not drained.called
    peer.send(pdu(RELEASE_RP))
    assert success_of(drained) is None
    assert node.clock.getDelayedCalls() == []


def test_draining_does_not_wait_for_a_silent_peer():
    """PS3.8 7.2, 7.3: an idle peer has one second to answer A-RELEASE-RQ; then it is sent A-ABORT."""
    node = Node()
    silent = node.associate()
    drained = node.ae.drain(10)
    assert silent.kinds() == [RELEASE_RQ]
    node.advance(0.9)
    assert not silent.take()
    assert not drained.called
    node.advance(0.1)
    assert silent.kinds() == [ABORT]
    assert silent.is_lost, "the peer does not close, so this side does"
    assert success_of(drained) is None
    assert node.clock.getDelayedCalls() == []


def test_draining_gives_one_second_after_the_last_operation():
    """PS3.8 7.2: the second begins with A-RELEASE-RQ, not with the stop."""
    busy = Busy()
    drained = busy.node.ae.drain(10)
    busy.node.advance(5)
    busy.answer.callback(0)
    assert busy.peer.kinds() == [DATA, RELEASE_RQ]
    busy.node.advance(0.9)
    assert not drained.called
    busy.node.advance(0.1)
    assert busy.peer.kinds() == [ABORT]
    assert success_of(drained) is None


def test_draining_shortens_a_release_that_was_asked_for_before():
    """timeouts.release is 10 s, which is too long for a process that stops."""
    node = Node()
    silent = node.associate()
    released = node.association().release()
    node.advance(5)
    drained = node.ae.drain(10)
    node.advance(1)
    assert silent.kinds() == [RELEASE_RQ, ABORT]
    assert isinstance(failure_of(released), DCMTimeoutError)
    assert success_of(drained) is None


def test_draining_does_not_wait_for_a_peer_that_releases_and_does_not_close():
    """PS3.8 AR-4: the peer has ARTIM to close the transport, which a process that stops does not wait for."""
    busy = Busy()
    drained = busy.node.ae.drain(10)
    busy.peer.send(pdu(RELEASE_RQ))
    busy.answer.callback(0)
    busy.node.advance(0)
    assert busy.peer.kinds() == [DATA, RELEASE_RP]
    assert busy.peer.is_lost
    assert success_of(drained) is None


def test_draining_lets_operations_end():
    busy = Busy()
    drained = busy.node.ae.drain(10)
    assert busy.peer.take() == []
    busy.answer.callback(0)
    assert busy.peer.kinds() == [DATA, RELEASE_RQ]
    busy.peer.send(pdu(RELEASE_RP))
    assert success_of(drained) is None


def test_draining_ends_the_others_when_the_time_is_up():
    busy = Busy()
    silent = busy.node.associate()
    drained = busy.node.ae.drain(5)
    busy.node.advance(4)
    assert not drained.called
    busy.node.advance(1)
    assert success_of(drained) is None
    assert busy.peer.is_lost
    assert silent.is_lost
    assert busy.peer.kinds() == [ABORT]
    assert busy.answer.called, "the handler was cancelled"
    busy.answer.addErrback(lambda failure: failure.trap(defer.CancelledError))


def test_everybody_who_drains_is_told():
    node = Node()
    peer = node.associate()
    first, second = node.ae.drain(10), node.ae.drain(20)
    peer.send(pdu(RELEASE_RP))
    assert [success_of(first), success_of(second)] == [None, None]


def test_cancelling_a_drain_ends_all():
    busy = Busy()
    drained, other = busy.node.ae.drain(10), busy.node.ae.drain(10)
    drained.cancel()
    assert isinstance(failure_of(drained), defer.CancelledError)
    assert success_of(other) is None
    assert busy.peer.is_lost
    assert busy.node.clock.getDelayedCalls() == []


def test_draining_gives_up_what_is_being_opened():
    caller = Caller()
    drained = caller.ae.drain(10)
    assert isinstance(failure_of(caller.opening), AssociationAbortedError)
    assert success_of(drained) is None


# -- the hooks as they are -------------------------------------------------------------------------------


def test_an_echo_is_success():
    with connected(
        AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(verification_scp)
    ) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == SUCCESS


def test_what_is_not_implemented_says_so():
    ae = AE("NODE")
    for hook, arguments in (
        (ae.on_receive_store, (None, None)),
        (ae.on_receive_find, (None, None)),
        (ae.on_receive_get, (None, None)),
        (ae.on_receive_move, (None, None, "AET")),
        (ae.on_commitment_request, ("AET", [])),
        (ae.on_commitment_response, ("1.2", [], [])),
    ):
        with pytest.raises(EventHandlingError, match=hook.__name__):
            hook(*arguments)


def test_the_service_of_a_sop_class_answers_extended_negotiation():
    """PS3.7 D.3.3.5: in the answer, for the SOP classes whose service has something to say."""
    asked: list[Any] = []

    def answer(asce: Association, proposal: SOPClassExtendedNegotiation) -> bytes | None:
        asked.append((asce, proposal.application_information))
        return b"\1\0" if proposal.sop_class_uid == FIND else None

    node = Node(AE("NODE").add_scp(QueryRetrieveFind(on_extended=answer)).add_scp(nothing, [CT]))
    patients = FIND_SOP_CLASSES[0]
    items = [SOPClassExtendedNegotiation(uid, b"\1\1") for uid in (FIND, patients, CT, "1.2.3")]
    peer = node.connect()
    peer.send(request({FIND: [IMPLICIT]}, MaximumLength(0), *items))
    ((_, body),) = peer.take()
    (answered,) = AAssociateAC.decode(body).user_items(SOPClassExtendedNegotiation)
    assert answered == SOPClassExtendedNegotiation(FIND, b"\1\0")
    assert asked == [(node.association(), b"\1\1")] * 2
    assert node.association().extended == {FIND: b"\1\0"}


def broken(*_: Any) -> bytes:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("answer", [broken, lambda *_: "text", lambda *_: 0])
def test_a_mistake_in_extended_negotiation_costs_the_option_alone(answer: Any, failures: Any):
    """The proposal is not answered, and the log names the handler whose mistake it is."""
    node = Node(AE("NODE").add_scp(QueryRetrieveFind(on_extended=answer)))
    peer = node.connect()
    peer.send(
        request({FIND: [IMPLICIT]}, MaximumLength(0), SOPClassExtendedNegotiation(FIND, b"\1"))
    )
    ((_, body),) = peer.take()
    assert AAssociateAC.decode(body).user_items(SOPClassExtendedNegotiation) == ()
    assert node.association().is_open
    (failed,) = failures
    assert "on_extended failed" in failed["log_format"]
    failures.clear()


def test_the_file_of_a_data_set_is_a_part_10_file():
    """PS3.10 7.1; who sent it is in Source Application Entity Title."""
    seen: list[Any] = []
    data = dcmread(get_testdata_file("CT_small.dcm"))

    @store_in_file
    def service(asce: Association, ctx: Any, msg: Any) -> int:
        seen.append(dcmread(msg.data_set))
        return 0

    with open(get_testdata_file("CT_small.dcm"), "rb") as file:
        from netdicom_tx.dsutils import read_file_meta

        file.seek(read_file_meta(file).offset)
        octets = file.read()
    node = Node(AE("NODE").add_scp(service, [CT]))
    peer = node.associate({CT: [EXPLICIT]})
    peer.send(store_rq(1, octets, data.SOPInstanceUID))
    assert peer.statuses() == [0]
    (stored,) = seen
    assert stored == data
    assert stored.file_meta.MediaStorageSOPClassUID == CT
    assert stored.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    assert stored.file_meta.TransferSyntaxUID == EXPLICIT
    assert stored.file_meta.SourceApplicationEntityTitle == "PEER"


# -- as a service, on sockets ----------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["startService", "privilegedStartService"])
def test_a_port_that_cannot_be_opened_fails_the_start(start):
    """The process is its owner's: CannotListenError, no port is left open, and the next start may succeed."""
    from twisted.internet import reactor

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        endpoints = ["tcp:0:interface=127.0.0.1", f"tcp:{port}:interface=127.0.0.1"]
        service = AE("NODE", reactor=reactor).as_service(*endpoints)
        for _ in range(2):
            with pytest.raises(CannotListenError, match=f"{port}.*in use"):
                getattr(service, start)()
            assert (service.ports, service.running) == ([], False)
    service.startService()
    assert len(service.ports) == 2
    service.stopService()


class Port(StringTransport):
    """A listening port."""

    def stopListening(self) -> None: ...


class Recording:
    """A server endpoint that keeps the factory."""

    factory: Factory

    def listen(self, factory: Factory) -> defer.Deferred[Any]:
        self.factory = factory
        return defer.succeed(Port())


class Late:
    """A server endpoint that opens when the test lets it."""

    def __init__(self) -> None:
        self.opening: defer.Deferred[Any] = defer.Deferred()

    def listen(self, factory: Factory) -> defer.Deferred[Any]:
        return self.opening


def test_a_port_that_cannot_be_opened_later_is_told_and_nothing_is_stopped(failures):
    stopped: list[bool] = []

    class Reactor(Clock):
        def stop(self) -> None:
            stopped.append(True)

    endpoint = Late()
    service = AE("NODE", reactor=Reactor()).as_service(endpoint)  # type: ignore[arg-type]
    service.startService()
    endpoint.opening.errback(CannotListenError("127.0.0.1", 104, OSError("no")))
    assert stopped == []
    assert service.running
    (event,) = failures
    assert event["log_level"] is LogLevel.critical
    assert (event["aet"], "127.0.0.1:104" in event["error"]) == ("NODE", True)
    failures.clear()


def test_a_port_that_opens_after_the_start_is_announced_then():
    """And one that opens between the privileged start and the start, with the start."""
    early, late = Late(), Late()
    service = AE("NODE", reactor=Clock()).as_service(early, late)  # type: ignore[arg-type]
    with capturedLogs() as logs:
        service.privilegedStartService()
        early.opening.callback(StringTransport())
        assert not logs
        service.startService()
        assert len(logs) == 1
        late.opening.callback(StringTransport())
    assert len(logs) == 2


def test_a_second_start_that_cannot_listen_fails_too():
    first = Late()
    service = AE("NODE", reactor=Clock()).as_service(first)  # type: ignore[arg-type]
    service.startService()
    success_of(service.stopService())
    for _ in range(2):
        first.opening = defer.fail(CannotListenError("127.0.0.1", 104, OSError("no")))
        with pytest.raises(CannotListenError, match=r"127\.0\.0\.1:104"):
            service.startService()


def test_a_service_that_stops_ends_its_own_associations_only():
    """Not those of another service of the AE, nor those that the AE has requested itself."""
    caller, ours = calling(ae=AE("NODE").add_scp(verification_scp))
    ae, endpoints = caller.ae, [Recording(), Recording()]
    services = [ae.as_service(each) for each in endpoints]  # type: ignore[arg-type]
    for each in services:
        each.startService()
    peers = [RawPeer() for _ in endpoints]
    for peer, endpoint in zip(peers, endpoints, strict=True):
        join(peer, endpoint.factory.buildProtocol(None), caller.wire)
        peer.send(request())
        assert peer.kinds() == [AC]
    stopped = services[0].stopService()
    assert [peer.kinds() for peer in peers] == [[RELEASE_RQ], []]
    late = [RawPeer() for _ in endpoints]
    for peer, endpoint in zip(late, endpoints, strict=True):
        join(peer, endpoint.factory.buildProtocol(None), caller.wire)
        peer.send(request())
    assert late[0].rejection() == (2, 3, 1)
    assert late[1].kinds() == [AC]
    late[0].transport.loseConnection()
    peers[0].send(pdu(RELEASE_RP))
    assert success_of(stopped) is None
    peers[1].send(echo_rq(1))
    assert peers[1].statuses() == [0]
    assert ours.is_open
    assert len(services[1].associations) == 2
    services[0].startService()
    join(again := RawPeer(), endpoints[0].factory.buildProtocol(None), caller.wire)
    again.send(request())
    assert again.kinds() == [AC]


def test_stopping_gives_up_what_is_not_open_yet():
    endpoint = Late()
    service = AE("NODE", reactor=Clock()).as_service(endpoint)  # type: ignore[arg-type]
    service.startService()
    assert success_of(service.stopService()) is None
    assert endpoint.opening.called


def test_what_an_ae_is_about_is_said_with_its_port():
    class Talkative(AE):
        def about(self) -> str:
            return ", and more"

    endpoint = Late()
    service = Talkative("NODE", reactor=Clock()).as_service(endpoint)  # type: ignore[arg-type]
    service.startService()
    with capturedLogs() as logs:
        endpoint.opening.callback(StringTransport())
    assert logs[0]["more"] == ", and more"


class SocketTests(TestCase):
    """A node and its peers on loopback."""

    timeout = 20

    def setUp(self) -> None:
        self.scp = AE("SCP").add_scp(verification_scp)
        self.scu = AE("SCU").add_scu(verification_scu)

    def remote(self, port: int) -> RemoteAE:
        return RemoteAE("SCP", f"tcp:127.0.0.1:{port}")

    async def test_an_ae_listens_and_is_called(self):
        port = await self.scp.listen("tcp:0:interface=127.0.0.1")
        remote = self.remote(port.getHost().port)
        async with await self.scu.request_association(remote) as asce:
            assert await asce.get_scu(VERIFICATION)() == SUCCESS
            acceptor = next(iter(self.scp.associations))
            assert acceptor.peer_address.host == "127.0.0.1"
            over = [asce.closed(), acceptor.closed()]
        reasons = [await each for each in over]
        assert all(isinstance(each, AssociationReleasedError) for each in reasons)
        await port.stopListening()

    async def test_an_endpoint_object_is_as_good(self):
        from twisted.internet import reactor

        port = await self.scp.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        asce = await self.scu.request_association(RemoteAE("SCP", endpoint))
        over = [asce.closed(), next(iter(self.scp.associations)).closed()]
        await asce.release()
        for each in over:
            await each
        await port.stopListening()

    async def test_a_connection_is_kept_alive_on_both_sides(self):
        """A peer that has lost its power is noticed, although a handler works and nothing is expected from it."""
        port = await self.scp.listen("tcp:0:interface=127.0.0.1")
        asce = await self.scu.request_association(self.remote(port.getHost().port))
        sides = [asce, next(iter(self.scp.associations))]
        assert all(each._channel.dul.transport.getTcpKeepAlive() for each in sides)
        over = [each.closed() for each in sides]
        await asce.release()
        for each in over:
            await each
        await port.stopListening()

    async def test_a_port_in_use_is_an_error(self):
        port = await self.scp.listen("tcp:0:interface=127.0.0.1")
        try:
            with pytest.raises(CannotListenError, match="in use"):
                await self.scp.listen(f"tcp:{port.getHost().port}:interface=127.0.0.1")
        finally:
            await port.stopListening()

    async def test_nobody_there_is_an_error_with_the_address(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            number = unused.getsockname()[1]
        with pytest.raises(
            ConnectionLostError, match=f"no connection to SCP at tcp:127.0.0.1:{number}"
        ):
            await self.scu.request_association(self.remote(number))

    async def test_an_attempt_that_hangs_is_cancelled_or_timed_out(self):
        """A listener whose backlog is full answers no SYN (Linux)."""
        with socket.socket() as full, ExitStack() as stack:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            remote = self.remote(full.getsockname()[1])
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    waiting.connect(full.getsockname())
            opening = self.scu.request_association(remote)
            opening.cancel()
            with pytest.raises(defer.CancelledError):
                await opening
            self.scu.timeouts = Timeouts(connect=0.05)
            with pytest.raises(DCMTimeoutError, match="'connect'"):
                await self.scu.request_association(remote)

    async def test_a_peer_that_says_nothing_is_a_timeout(self):
        from twisted.internet import reactor

        mute = Factory.forProtocol(Protocol)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(mute)
        self.scu.timeouts = Timeouts(associate=0.05, artim=0.05)
        opening = self.scu.request_association(self.remote(port.getHost().port))
        with pytest.raises(DCMTimeoutError, match="'associate'"):
            await opening
        (asce,) = self.scu.associations
        await asce.closed()
        await port.stopListening()

    async def test_a_service_serves_while_it_runs(self):
        service = self.scp.as_service("tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1")
        with capturedLogs() as logs:
            service.privilegedStartService()
            assert not [each for each in logs if "listening on" in each["log_format"]]
            service.startService()
        assert len(service.ports) == 2
        numbers = [each.getHost().port for each in service.ports]
        said = [each for each in logs if "listening on" in each["log_format"]]
        assert [each["port"] for each in said] == numbers
        assert {each["aet"] for each in said} == {"SCP"}
        opened = [await self.scu.request_association(self.remote(each)) for each in numbers]
        over = [each.closed() for each in opened]
        await service.stopService()
        assert service.ports == []
        assert not self.scp.associations
        assert all([isinstance(await each, AssociationReleasedError) for each in over])
        with pytest.raises(ConnectionLostError):
            await self.scu.request_association(self.remote(numbers[0]))

    async def test_a_service_can_be_started_again(self):
        service = self.scp.as_service("tcp:0:interface=127.0.0.1")
        for _ in range(2):
            service.startService()
            (port,) = service.ports
            asce = await self.scu.request_association(self.remote(port.getHost().port))
            assert await asce.get_scu(VERIFICATION)() == SUCCESS
            over = asce.closed()
            await service.stopService()
            await over
