"""How many functions of this package a C-ECHO and an association call, which does not depend on the machine.

The limits are a little above what is counted now. A function more for each message is rarely worth a thought; ten more
are, because every message of every peer pays for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import netdicom_tx
from netdicom_tx import uids, verification_scp
from netdicom_tx.uids import STORAGE_SOP_CLASSES
from support.doubles import AC, RELEASE_RQ, RawPeer, echo_rq, pdu, request, serving

_PACKAGE = str(Path(netdicom_tx.__file__).parent)


class Calls:
    """How many functions of the package were called."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_PACKAGE):
            self.count += 1


@contextmanager
def counted() -> Iterator[Calls]:
    """Count the calls within the block."""
    calls = Calls()
    before = sys.getprofile()
    sys.setprofile(calls.note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def of(work: Callable[[], object]) -> int:
    """How many calls something takes when it is done for the third time, and nothing is new any more."""
    for _ in range(2):
        work()
    with counted() as calls:
        work()
    return calls.count


def test_a_c_echo_costs_few_calls() -> None:
    """From the octets of the request to those of the response, and what is kept of it: 92 now."""
    peer = serving(verification_scp).associate()
    numbers = iter(range(1, 100))
    assert of(lambda: peer.send(echo_rq(next(numbers)))) <= 105
    assert peer.statuses() == [0, 0, 0]


def test_an_association_costs_few_calls() -> None:
    """From the connection to its end, with a C-ECHO: 436 now."""
    node = serving(verification_scp)

    def associate() -> RawPeer:
        peer = node.associate()
        peer.send(echo_rq())
        peer.send(pdu(RELEASE_RQ))
        peer.transport.loseConnection()
        return peer

    assert of(associate) <= 490
    assert not node.ae.associations


def test_a_proposal_that_is_known_costs_little_for_each_context() -> None:
    """A modality proposes the same contexts each time: 14 calls for each now."""
    node = serving(verification_scp)
    syntaxes = (uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN)

    def proposing(count: int) -> Callable[[], object]:
        contexts = dict.fromkeys(sorted(STORAGE_SOP_CLASSES)[:count], syntaxes)
        octets = request(contexts).encode()

        def associate() -> None:
            peer = node.connect()
            peer.transport.write(octets)
            assert peer.kinds() == [AC]
            peer.transport.loseConnection()

        return associate

    assert (of(proposing(40)) - of(proposing(10))) / 30 <= 18
