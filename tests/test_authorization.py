"""An application entity with rules: what is refused, at which point, and what the log says."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx import AE, storage_scp, verification_scp
from netdicom_tx.access import Access, Permission, Profile, Rule, network
from netdicom_tx.dimsemessages import CMoveRQ
from netdicom_tx.pdu import AAssociateAC
from netdicom_tx.sopclass import StorageCommitment, qr_find_scp, qr_move_scp
from netdicom_tx.uids import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_FIND_SOP_CLASS,
    STUDY_ROOT_MOVE_SOP_CLASS,
    VERIFICATION_SOP_CLASS,
    CTImageStorage,
)
from netdicom_tx.userdataitems import MaximumLength, RoleSelection
from support.doubles import Node, echo_rq, request
from support.doubles import logged_failures as logged_failures
from support.doubles import logged_lines as logged_lines

IMPLICIT = [IMPLICIT_VR_LITTLE_ENDIAN]
SERVED = {
    VERIFICATION_SOP_CLASS: IMPLICIT,
    CTImageStorage: IMPLICIT,
    STUDY_ROOT_FIND_SOP_CLASS: IMPLICIT,
    "1.2.3.4": IMPLICIT,
}


class Archive(AE):
    """Serves everything, and answers every C-MOVE with an unknown destination."""

    def on_receive_move(self, context: Any, ds: Any, destination: str) -> Any:
        return None, 0, ()


def node_with(access: Access | None, kind: type[AE] = Archive) -> Node:
    ae = kind("NODE", access=access)
    ae.add_scp(verification_scp).add_scp(storage_scp, [CTImageStorage])
    ae.add_scp(qr_find_scp).add_scp(qr_move_scp).add_scp(StorageCommitment())
    return Node(ae)


def only(*permissions: Permission, move_to: Sequence[str] | None = None) -> Access:
    """Rules that allow this to PEER, and nothing to others."""
    destinations = None if move_to is None else frozenset(move_to)
    return Access(
        (Rule(title="PEER", profile=Profile(frozenset(permissions), destinations)),), None
    )


def accepted(node: Node) -> AAssociateAC:
    answer = node.association().response_pdu
    assert answer is not None
    return answer


def results(node: Node) -> list[int]:
    return [each.result for each in accepted(node).presentation_contexts]


def test_contexts_of_services_that_a_peer_may_not_use_are_rejected_by_the_user() -> None:
    """PS3.8 9.3.3.2: 1 is a rejection of the user, and 3 means that the service does not exist."""
    node = node_with(only(Permission.ECHO, Permission.FIND))
    peer = node.connect()
    peer.send(request(SERVED))
    assert results(node) == [0, 1, 0, 3]


def test_without_rules_everything_is_served() -> None:
    node = node_with(None)
    node.connect().send(request(SERVED))
    assert results(node) == [0, 0, 0, 3]


def test_a_peer_that_may_get_may_be_brought_instances_but_not_store() -> None:
    """PS3.4 C.4.3: in a C-GET the requestor is the SCP of storage."""
    node = node_with(only(Permission.GET))
    node.ae.add_scu(storage_scp, [CTImageStorage])
    peer = node.connect()
    peer.send(
        request(
            {CTImageStorage: IMPLICIT}, MaximumLength(0), RoleSelection(CTImageStorage, True, True)
        )
    )
    answer = accepted(node)
    assert [each.result for each in answer.presentation_contexts] == [0]
    (role,) = answer.user_items(RoleSelection)
    assert (role.scu_role, role.scp_role) == (False, True)


@pytest.mark.parametrize(
    ("access", "reason"),
    [
        (
            Access(default=None),
            "calling AE title 'PEER' from requestor; expected a known peer",
        ),
        (
            Access((Rule(title="PEER", networks=(network("192.0.2.0/24"),)),)),
            "expected it from 192.0.2.0/24",
        ),
        (
            Access((Rule(title="PEER", certificate="peer.example"),)),
            "with no certificate; expected",
        ),
    ],
)
def test_a_peer_that_is_not_known_is_rejected(
    lines: list[str], access: Access, reason: str
) -> None:
    """PS3.8 Table 9-21: permanent, service-user, calling AE title not recognized; one line for it in a minute."""
    node = node_with(access)
    for _ in range(3):
        peer = node.connect()
        peer.send(request())
        assert peer.rejection() == (1, 1, 3)
    (line,) = [each for each in lines if "refused" in each]
    assert reason in line


def move(destination: str) -> CMoveRQ:
    return CMoveRQ(
        affected_sop_class_uid=STUDY_ROOT_MOVE_SOP_CLASS,
        message_id=1,
        move_destination=destination,
        data_set=b"\x08\0\x52\0\6\0\0\0STUDY ",
    )


@pytest.mark.parametrize(("destination", "status"), [("WS1", 0xA801), ("WS2", 0x0124)])
def test_a_destination_that_is_not_allowed_is_told_apart_from_an_unknown_one(
    lines: list[str], destination: str, status: int
) -> None:
    """PS3.4 Table C.4-2 has both: 0xA801 for a destination that is not known, 0x0124 for not authorized."""
    node = node_with(only(Permission.MOVE, move_to=["WS1"]))
    peer = node.associate({STUDY_ROOT_MOVE_SOP_CLASS: IMPLICIT})
    peer.send(move(destination))
    node.advance(0)
    assert peer.statuses() == [status]
    told = [each for each in lines if "0x0124" in each]
    assert len(told) == (status == 0x0124)
    assert all("C-MOVE to WS2 is not allowed" in each for each in told)


def test_new_rules_hold_for_the_next_operation() -> None:
    """An operator who closes the node need not wait for its peers to leave."""
    node = node_with(None)
    peer = node.associate()
    peer.send(echo_rq(1))
    node.ae.access = only(Permission.STORE)
    peer.send(echo_rq(2))
    node.ae.access = only(Permission.ECHO)
    peer.send(echo_rq(3))
    assert peer.statuses() == [0, 0x0124, 0]


class Policy(Archive):
    """Decides by what the test says."""

    verdict: Callable[[], Any]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked: list[tuple[str, str, Permission, str | None]] = []

    def on_authorize(self, context: Any, permission: Permission, destination: str | None) -> Any:
        operation = context.request.OPERATION
        self.asked.append(
            (context.association.calling_ae_title, operation, permission, destination)
        )
        return type(self).verdict()


async def _later(verdict: bool) -> bool:
    return verdict


@pytest.mark.parametrize("made", [lambda x: x, defer.succeed, _later])
@pytest.mark.parametrize(("verdict", "status"), [(True, 0), (False, 0x0124)])
def test_a_program_has_a_policy_of_its_own(
    made: Callable[[bool], Any], verdict: bool, status: int
) -> None:
    """The hook returns a value, a Deferred or a coroutine."""

    outcome = verdict

    class Own(Policy):
        verdict = staticmethod(lambda: made(outcome))

    node = node_with(None, Own)
    peer = node.associate()
    peer.send(echo_rq())
    assert peer.statuses() == [status]
    assert isinstance(node.ae, Own)
    assert node.ae.asked == [("PEER", "C-ECHO", Permission.ECHO, None)]


def test_a_policy_is_not_asked_about_what_the_rules_forbid() -> None:
    class Own(Policy):
        verdict = staticmethod(lambda: True)

    node = node_with(None, Own)
    peer = node.associate()
    node.ae.access = only()
    peer.send(echo_rq())
    assert peer.statuses() == [0x0124]
    assert isinstance(node.ae, Own)
    assert node.ae.asked == []


@pytest.mark.parametrize("wrong", [lambda: 1 / 0, lambda: None, lambda: defer.fail(OSError("x"))])
def test_a_policy_that_fails_allows_nothing(failures: Any, wrong: Callable[[], Any]) -> None:
    """None is not a verdict either: a forgotten return must not open the node."""

    class Own(Policy):
        verdict = staticmethod(wrong)

    peer = node_with(None, Own).associate()
    peer.send(echo_rq())
    assert peer.statuses() == [0x0110]
    assert len(failures.texts()) == 1


def test_rules_that_change_while_the_program_decides_hold_already() -> None:
    """Between the request and the acceptance an operator may close the node."""

    class Slow(Archive):
        verdict: defer.Deferred[None] = defer.Deferred()

        def on_association_request(self, asce: Any, assoc: Any) -> Any:
            return self.verdict

    node = node_with(None, Slow)
    node.connect().send(request(SERVED))
    node.ae.access = Access(default=None)
    Slow.verdict.callback(None)
    assert results(node) == [1, 1, 1, 3]
