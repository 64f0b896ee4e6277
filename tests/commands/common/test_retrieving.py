"""How a C-MOVE or a C-GET has ended, in words."""

from types import SimpleNamespace
from typing import Any

import pytest

from netdicom_tx.commands.common.output import Output
from netdicom_tx.commands.common.retrieving import conclude
from netdicom_tx.dimsemessages import CMoveRQ

MOVE = "1.2.840.10008.5.1.4.1.2.2.2"


@pytest.mark.parametrize(
    ("counters", "said"),
    [
        ({}, "sent to WS1; the peer does not say how many instances"),
        ({"completed": 2}, "2 instances sent to WS1"),
        ({"completed": 1, "warning": 1, "failed": 0}, "2 instances sent to WS1"),
    ],
)
def test_instances_that_the_peer_has_not_counted_are_not_none(
    capsys: pytest.CaptureFixture[str], counters: dict[str, int], said: str
) -> None:
    request = CMoveRQ(affected_sop_class_uid=MOVE, move_destination="WS1", message_id=1)
    elements = {f"number_of_{name}_suboperations": count for name, count in counters.items()}
    session: Any = SimpleNamespace(output=Output(), is_interrupted=False)
    assert conclude(session, request.response(0x0000, **elements), None, [], "WS1") == 0
    assert capsys.readouterr().err == f"{said}\n"
