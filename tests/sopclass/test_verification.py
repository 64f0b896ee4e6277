"""Verification (PS3.4 Annex A): C-ECHO in both roles."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx import AE, Status, verification_scp, verification_scu
from netdicom_tx.dimsemessages import CEchoRQ
from netdicom_tx.testing import connected, success_of
from support.doubles import (
    IMPLICIT,
    VERIFICATION,
    Node,
    calling,
    echo_rq,
    find_rq,
    p_data,
    store_rq,
)
from support.doubles import logged_failures as logged_failures


def test_an_echo_is_answered_with_success():
    scu, scp = AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(verification_scp)
    with connected(scu, scp) as pair:
        status = success_of(pair.requestor.get_scu(VERIFICATION)())
        assert status == 0
        assert str(status) == "Success (0x0000)"


def test_the_request_is_that_of_the_standard():
    """PS3.7 9.3.5.1: class of the context, a message ID, no data set."""
    caller, asce = calling(ae=AE("CALLER").add_scu(verification_scu))
    asce.get_scu(VERIFICATION)(77)
    (asked,) = caller.peer.messages()
    assert asked == CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=77)


def test_a_failing_status_is_a_result():
    caller, asce = calling(ae=AE("CALLER").add_scu(verification_scu))
    answer = asce.get_scu(VERIFICATION)(msg_id=1)
    caller.peer.send(echo_rq(1).response(0x0122, error_comment="not here"))
    assert str(success_of(answer)) == "Refused: SOP class not supported (0x0122): not here"


@pytest.mark.parametrize(
    "answer", [lambda: 0x0110, lambda: defer.succeed(Status(0x0110))], ids=["at once", "Deferred"]
)
def test_a_hook_answers(answer: Any):
    class Choosy(AE):
        def on_receive_echo(self, context: Any) -> Any:
            assert context.sop_class == VERIFICATION
            return answer()

    peer = Node(Choosy("NODE").add_scp(verification_scp)).associate()
    peer.send(echo_rq(1))
    assert peer.statuses() == [0x0110]


@pytest.mark.parametrize("request_", [store_rq(1), find_rq(1)])
def test_another_operation_is_not_recognized(request_: Any):
    """PS3.7 C.5.23: 0211."""
    peer = Node().associate({VERIFICATION: [IMPLICIT]})
    peer.send(request_, echo_rq(2))
    assert peer.statuses() == [0x0211, 0]


def test_an_echo_with_a_data_set_is_mistyped():
    """PS3.7 9.3.5.1: Command Data Set Type is 0101H. C.5.15: 0212, mistyped argument."""
    peer = Node().associate()
    asked = CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=1, data_set=b"????")
    peer.send(asked, echo_rq(2), p_data(1, 1, b""))
    assert peer.statuses() == [0x0212, 0]
