"""One line for each operation that has failed."""

from types import SimpleNamespace
from typing import Any

import pytest

from netdicom_tx.archive.outcomes import tell_failure
from netdicom_tx.dimsemessages import CFindRQ, CGetRQ, CMoveRQ
from support.doubles import logged_lines as logged_lines
from support.doubles import store_rq

MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def told(msg: Any, status: int, **elements: Any) -> None:
    asce: Any = SimpleNamespace(peer_title="CT1")
    tell_failure(asce, msg, msg.response(status, **elements))


def test_a_move_says_how_much_of_it_failed(lines: list[str]) -> None:
    msg = CMoveRQ(affected_sop_class_uid=MOVE, move_destination="WS1", message_id=7)
    told(msg, 0xB000, number_of_completed_suboperations=3, number_of_failed_suboperations=2)
    (line,) = lines
    assert line.startswith("C-MOVE 7 from CT1 to WS1 ended with ")
    assert "(0xB000) (sent 3 of 5 instances); the lines above say which instances" in line


def test_only_a_move_has_a_destination_to_ask_for(lines: list[str]) -> None:
    for kind, more in ((CMoveRQ, {"move_destination": "WS1"}), (CGetRQ, {})):
        msg = kind(affected_sop_class_uid=MOVE, message_id=1, **more)
        told(msg, 0xA702, number_of_failed_suboperations=2)
    move, get = lines
    assert move.endswith("and why; does the destination answer? netdicom doctor")
    assert get.endswith("the lines above say which instances, and why")


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (0x0110, "the lines above say why"),
        (0xA700, "netdicom doctor"),
        (0xA900, "what its query model has"),
        (0xC000, "the Error Comment, which the peer has got, says why"),
        (0xC123, "PS3.4 and PS3.7 say what the status means"),
    ],
)
def test_a_failure_says_what_to_do(lines: list[str], status: int, hint: str) -> None:
    """And nothing of the Error Comment, which may quote the identifier."""
    msg = CFindRQ(affected_sop_class_uid=FIND, message_id=1)
    told(msg, status, error_comment="Doe^Jane")
    (line,) = lines
    assert f"0x{status:04X}" in line
    assert hint in line
    assert "Doe" not in line


def test_what_succeeds_or_is_told_elsewhere_has_no_line(lines: list[str]) -> None:
    """A cancelled query has not failed; the refusal of an instance is told where it is refused."""
    find = CFindRQ(affected_sop_class_uid=FIND, message_id=1)
    for status in (0x0000, 0xFE00, 0x0124):
        told(find, status)
    told(CMoveRQ(affected_sop_class_uid=MOVE, move_destination="X", message_id=1), 0xA801)
    told(store_rq(), 0xA700)
    assert lines == []
