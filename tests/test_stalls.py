"""A hostile query must not hold up the other peers of a node, nor its end.

The bounds here are for machines under any load. What is to be seen is the difference from the tens of seconds that
each of these queries once took.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet import defer
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, Status, verification_scu
from netdicom_tx.asceprovider import Association
from netdicom_tx.dimsemessages import CFindRQ
from netdicom_tx.exceptions import AssociationError
from netdicom_tx.sopclass import modality_work_list_scu, qr_find_scu
from netdicom_tx.streams import status_of
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN
from netdicom_tx.uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS as WORKLIST
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS as STUDY_ROOT
from support.node import Node

#: Seconds that an echo may take at most, on a machine that does much else.
PATIENCE = 3.0
PEERS = 4
ROUNDS = 2


def element(tag: int, value: bytes) -> bytes:
    """An element in implicit VR little endian."""
    padded = value + b" " * (len(value) % 2)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(padded)) + padded


def study(*keys: bytes) -> bytes:
    """A query at STUDY level."""
    return b"".join(sorted((element(0x00080052, b"STUDY"), *keys), key=lambda each: each[:4]))


def many(form: str, count: int) -> bytes:
    return "\\".join(form.format(number) for number in range(count)).encode()


UTF8 = element(0x00080005, b"ISO_IR 192")
QUERIES = {
    "a birth date of hyphens, worklist": (WORKLIST, element(0x00100030, b"1" + b"-" * 120_000)),
    "a birth date of hyphens": (STUDY_ROOT, study(element(0x00100030, b"1" + b"-" * 120_000))),
    "combining marks, worklist": (
        WORKLIST,
        UTF8 + element(0x00100010, "\u0315\u0300".encode() * 30_000),
    ),
    "modalities": (STUDY_ROOT, study(element(0x00080061, many("M{}", 5_000)))),
    "other patient IDs": (STUDY_ROOT, study(element(0x00101000, many("P{}", 3_000)))),
    "names of stars": (STUDY_ROOT, study(element(0x00100010, many("a{}" + "^*" * 30, 60)))),
    "130,000 empty items": (
        STUDY_ROOT,
        study(element(0x00081032, struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 130_000)),
    ),
    "130,000 elements": (
        STUDY_ROOT,
        b"".join(
            struct.pack("<HHI", 0x0011 + 2 * (n >> 16), n & 0xFFFF, 0) for n in range(130_000)
        ),
    ),
}


def raw_find(sop_class: str, identifier: bytes) -> Callable[[Association], defer.Deferred[Status]]:
    """A C-FIND with an identifier that no data set of ours would be."""

    def ask(asce: Association) -> defer.Deferred[Status]:
        (context,) = asce.contexts_for(sop_class)
        request = CFindRQ(affected_sop_class_uid=sop_class, data_set=identifier)
        stream = asce.request_many(request, context, status_of)
        return stream.done

    return ask


@pytest.mark.slow
@pytest.mark.usefixtures("a_node")
class StallTests(TestCase):
    """Four peers ask the same, as fast as they are answered."""

    node: Node

    async def others_are_served(self, name: str) -> None:
        sop_class, identifier = QUERIES[name]
        ask = raw_find(sop_class, identifier)
        remote = RemoteAE(self.node.ae_title, self.node.address.endpoint)
        scu = qr_find_scu if sop_class == STUDY_ROOT else modality_work_list_scu
        hostile = AE("HOSTILE")
        hostile.add_scu(scu, [sop_class], [IMPLICIT_VR_LITTLE_ENDIAN])

        async def attack() -> None:
            asce = await hostile.request_association(remote)
            try:
                for _ in range(ROUNDS):
                    await ask(asce)
            except AssociationError:
                pass  # an abort is an answer, too
            else:
                await asce.release()

        attacks = [defer.Deferred.fromCoroutine(attack()) for _ in range(PEERS)]
        running = defer.gatherResults(attacks)
        longest = 0.0
        async with await AE("HONEST").add_scu(verification_scu).request_association(remote) as asce:
            while not running.called:
                begun = time.monotonic()
                assert await asce.echo() == 0x0000
                longest = max(longest, time.monotonic() - begun)
        await running
        assert longest < PATIENCE
        begun = time.monotonic()
        self.node.stop()
        assert time.monotonic() - begun < 15


def _add(name: str) -> None:
    async def test(self: StallTests) -> None:
        await self.others_are_served(name)

    method = "test_" + "".join(each if each.isalnum() else "_" for each in name)
    setattr(StallTests, method, test)


for _name in QUERIES:
    _add(_name)


@pytest.fixture
def a_node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    node = Node(tmp_path)
    node.start()
    request.cls.node = node
    yield
    node.stop()
