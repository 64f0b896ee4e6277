"""What peers do wrong: one test for each fault, with the octets that show it.

The numbers are those of the project's table of faults. An A-ABORT is (source, reason): in Sta2 the
state table of PS3.8 wants AA-1, source 0; later it wants AA-8, source 2. After each fault the node
must live on, with nothing of it left behind.
"""

from __future__ import annotations

import gc
import io
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest
from twisted.internet import defer
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from netdicom_tx import (
    AE,
    AssociationAbortedError,
    AssociationReleasedError,
    ConnectionLostError,
    DCMTimeoutError,
    RemoteAE,
    Timeouts,
    storage_scp,
    verification_scp,
    verification_scu,
)
from netdicom_tx.asceprovider import IDENTIFIER_LIMIT
from netdicom_tx.dimsemessages import CCancelRQ, CEchoRQ, CEchoRSP, CStoreRQ
from netdicom_tx.fragments import COMMAND_SET_LIMIT, LARGEST_PDU
from netdicom_tx.pdu import (
    MAXIMUM_CONTROL_PDU_LENGTH,
    AAbort,
    AAssociateAC,
    AAssociateRQ,
    PresentationContextRQ,
)
from netdicom_tx.statuses import SUCCESS
from netdicom_tx.testing import failure_of, success_of
from netdicom_tx.userdataitems import MaximumLength, UnknownItem
from support.doubles import (
    ABORT,
    AC,
    CT,
    DATA,
    FIND,
    IMPLICIT,
    RELEASE_RP,
    RELEASE_RQ,
    RJ,
    RQ,
    VERIFICATION,
    Caller,
    Node,
    RawPeer,
    calling,
    command,
    echo_rq,
    find_rq,
    item,
    message,
    p_data,
    pdu,
    pdv,
    request,
    store_rq,
    us,
)
from support.doubles import logged_failures as logged_failures

TIMEOUTS = Timeouts()
RECEIVE_LIMIT = 1 << 16
CONTEXTS = {VERIFICATION: [IMPLICIT], CT: [IMPLICIT], FIND: [IMPLICIT]}
APPLICATION_CONTEXT = item(0x10, b"1.2.840.10008.3.1.1.1")


class Kept(io.BytesIO):
    """A file of the node, for a data set."""


class Target(AE):
    """What the faults are aimed at: C-ECHO, C-STORE into files, and a C-FIND that waits."""

    def __init__(self, **options: Any) -> None:
        super().__init__("NODE", max_pdu_length=RECEIVE_LIMIT, **options)
        self.files: list[Kept] = []
        self.stored: list[bytes] = []
        self.finding: list[defer.Deferred[int]] = []
        self.cancelled = 0
        self.add_scp(verification_scp).add_scp(storage_scp, [CT]).add_scp(self.find, [FIND])

    def get_file(self, asce: Any, context: Any, command_set: Any) -> tuple[BinaryIO, int]:
        self.files.append(Kept())
        return self.files[-1], 0

    def on_receive_store(self, context: Any, ds: BinaryIO) -> int:
        self.stored.append(ds.read())
        return 0

    def find(self, asce: Any, ctx: Any, msg: Any) -> defer.Deferred[int]:
        def cancel(_: object) -> None:
            self.cancelled += 1

        self.finding.append(defer.Deferred(cancel))
        return self.finding[-1]


@pytest.fixture
def node() -> Iterator[Node]:
    """A node that must live on."""
    gc.collect()  # what other tests left is not this one's
    target = Target()
    found = Node(target)
    yield found
    assert found.lives(), "C-ECHO on a new association"
    found.advance(TIMEOUTS.idle)
    found.advance(TIMEOUTS.artim)
    assert not target.associations, "no slot is lost"
    assert all(each.closed for each in target.files), "no file is left open"


@contextmanager
def bounded(octets: int) -> Iterator[None]:
    """What happens inside must not take more memory than this."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < octets


def established(node: Node) -> RawPeer:
    return node.associate(CONTEXTS)


def associate_rq(
    *items: bytes,
    version: int = 1,
    called: bytes = b"NODE",
    calling: bytes = b"PEER",
) -> bytes:
    """An A-ASSOCIATE-RQ by hand; titles are padded with spaces when they are short."""
    return pdu(
        RQ,
        struct.pack(">HH", version, 0)
        + called.ljust(16)
        + calling.ljust(16)
        + bytes(32)
        + b"".join(items),
    )


def context_rq(context_id: int = 1, *uids: str) -> bytes:
    abstract, *transfer = uids or (VERIFICATION, IMPLICIT)
    return item(
        0x20,
        bytes((context_id, 0, 0, 0))
        + item(0x30, abstract.encode())
        + b"".join(item(0x40, uid.encode()) for uid in transfer),
    )


def user_information(*items: bytes) -> bytes:
    return item(0x50, b"".join(items))


MAXIMUM_LENGTH = item(0x51, struct.pack(">I", 0))
GOOD = (APPLICATION_CONTEXT, context_rq(), user_information(MAXIMUM_LENGTH))


def test_the_request_by_hand_is_a_good_one(node: Node):
    """Else the tests below would show nothing."""
    peer = node.connect()
    peer.send(associate_rq(*GOOD))
    assert peer.kinds() == [AC]


# -- connections -----------------------------------------------------------------------------------------


def test_case_01_a_connection_that_says_nothing_is_closed(node: Node):
    """By ARTIM; no PDU is owed, and nobody needs to read of it."""
    with capturedLogs() as logs:
        peer = node.connect()
        node.advance(TIMEOUTS.artim - 1)
        assert not peer.is_lost
        node.advance(1)
    assert peer.is_lost
    assert peer.received == b""
    assert all(each["log_level"] == LogLevel.debug for each in logs)


@pytest.mark.slow
def test_case_02_ten_thousand_health_checks_leave_nothing(node: Node):
    """A load balancer connects and closes all day."""

    def checks(count: int) -> None:
        for _ in range(count):
            node.connect().transport.loseConnection()

    with capturedLogs() as logs:
        checks(500)
    assert all(each["log_level"] == LogLevel.debug for each in logs)
    gc.collect()
    tracemalloc.start()
    try:
        checks(9500)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 64 * 1024
    assert not node.ae.associations
    assert node.clock.getDelayedCalls() == []


def half_a_request(node: Node) -> RawPeer:
    peer = node.connect()
    peer.send(request().encode()[:50])
    return peer


def half_a_data_set(node: Node) -> RawPeer:
    peer = established(node)
    peer.send(message(store_rq(1, bytes(1000)), 3)[:-1])
    assert not node.ae.files[-1].closed
    return peer


def with_an_operation(node: Node) -> RawPeer:
    peer = established(node)
    peer.send(message(find_rq(1), 5))
    assert len(node.ae.finding) == 1
    return peer


def in_release(node: Node) -> RawPeer:
    peer = with_an_operation(node)
    peer.send(pdu(RELEASE_RQ))
    return peer


def in_our_release(node: Node) -> RawPeer:
    peer = established(node)
    node.association().release().addErrback(lambda _: None)
    return peer


def after_an_abort(node: Node) -> RawPeer:
    peer = established(node)
    node.association().abort()
    return peer


STATES: list[Callable[[Node], RawPeer]] = [
    Node.connect,
    half_a_request,
    established,
    half_a_data_set,
    with_an_operation,
    in_release,
    in_our_release,
    after_an_abort,
]


@pytest.mark.parametrize("reach", STATES, ids=lambda reach: reach.__name__)
def test_case_03_a_reset_ends_all_in_every_state(node: Node, reach: Callable[[Node], RawPeer]):
    """AA-4, AA-5, AR-5."""
    peer = reach(node)
    closed = node.association().closed()
    peer.transport.abortConnection()
    assert isinstance(
        success_of(closed),
        AssociationAbortedError
        if reach is after_an_abort
        else AssociationReleasedError
        if reach is in_our_release
        else ConnectionLostError,
    )
    assert not node.ae.associations
    assert node.ae.cancelled == len(node.ae.finding)


def test_case_04_a_request_that_trickles_is_closed_when_artim_ends(node: Node):
    """ARTIM counts from the connection."""
    peer = node.connect()
    for octet in associate_rq(*GOOD)[: int(TIMEOUTS.artim)]:
        assert not peer.is_lost
        peer.send(bytes((octet,)))
        node.advance(1)
    assert peer.is_lost
    assert peer.received == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        bytes.fromhex("1603010200010001fc0303"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\xff" * 64,
    ],
)
def test_case_05_another_protocol_is_aborted(node: Node, octets: bytes):
    """AA-1; its octets are taken for no length."""
    peer = node.connect()
    with bounded(1 << 18):
        peer.send(octets)
        peer.send(bytes(1 << 16))
    assert peer.abort() == (0, 0)
    node.advance(TIMEOUTS.artim)
    assert peer.is_lost


@pytest.mark.parametrize(
    "first",
    [
        p_data(1, 3, b"????"),
        pdu(RELEASE_RQ),
        pdu(RELEASE_RP),
        AAssociateAC(presentation_contexts=()).encode(),
        pdu(RJ, bytes((0, 1, 1, 1))),
    ],
    ids=["P-DATA-TF", "A-RELEASE-RQ", "A-RELEASE-RP", "A-ASSOCIATE-AC", "A-ASSOCIATE-RJ"],
)
def test_case_07_a_first_pdu_that_is_no_request_is_aborted(node: Node, first: bytes):
    """AA-1 in Sta2."""
    peer = node.connect()
    peer.send(first)
    assert peer.abort() == (0, 0)
    peer.send(associate_rq(*GOOD))
    assert AC not in peer.kinds()


def test_case_08_a_first_pdu_that_is_an_abort_closes(node: Node):
    """AA-2."""
    peer = node.connect()
    peer.send(AAbort(0, 0))
    assert peer.is_lost
    assert peer.received == b""


# -- PDUs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0x00, 0x08, 0x42, 0xFF])
def test_case_09_an_unknown_pdu_is_aborted(node: Node, kind: int):
    """AA-8, 1: unrecognized PDU; what runs is cancelled."""
    peer = with_an_operation(node)
    peer.send(pdu(kind))
    assert peer.abort() == (2, 1)
    assert node.ae.cancelled == 1


def test_case_10_a_second_request_is_aborted(node: Node):
    """AA-8, 2: unexpected PDU."""
    peer = established(node)
    peer.send(associate_rq(*GOOD))
    assert peer.abort() == (2, 2)


@pytest.mark.parametrize("kind", range(1, 8))
@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF])
def test_case_11_a_length_that_cannot_be_is_aborted_from_the_header(
    node: Node, kind: int, length: int
):
    """AA-8, 6: invalid parameter value; nothing is collected."""
    peer = established(node)
    with bounded(1 << 16):
        peer.send(pdu(kind, b"", length))
        assert peer.abort() == (2, 6)
        peer.send(bytes(1 << 12))
    fresh = node.connect()
    fresh.send(pdu(kind, b"", length))
    assert fresh.abort() == (0, 0)


def test_case_12_a_request_of_more_than_256_kib_is_aborted(node: Node):
    peer = node.connect()
    with bounded(1 << 18):
        peer.send(pdu(RQ, b"", MAXIMUM_CONTROL_PDU_LENGTH + 1))
        assert peer.abort() == (0, 0)


@pytest.mark.parametrize("filler", [0x10, 0x21, 0x50, 0x99], ids="type {:02X}H".format)
def test_case_12_a_request_of_many_small_items_is_aborted(node: Node, filler: int):
    """Reading 16,000 items would cost as much as reading none that was wanted."""
    peer = node.connect()
    peer.send(associate_rq(*GOOD, *[item(filler, b"")] * 16_000))
    assert peer.abort() == (0, 0)  # AA-1, because it is not established yet


def test_case_12_a_request_of_less_than_256_kib_is_served(node: Node):
    contexts = [
        PresentationContextRQ(
            2 * n + 1, VERIFICATION, (IMPLICIT, *(f"1.2.840.10008.1.2.4.{k}" for k in range(64)))
        )
        for n in range(128)
    ]
    asked = AAssociateRQ(
        called_ae_title="NODE", calling_ae_title="PEER", presentation_contexts=tuple(contexts)
    )
    assert 200_000 < len(asked.encode()) < MAXIMUM_CONTROL_PDU_LENGTH
    peer = node.connect()
    peer.send(asked)
    assert peer.kinds() == [AC]


def test_case_13_a_p_data_longer_than_announced_is_aborted(node: Node):
    """PS3.8 D.1; from its header."""
    peer = established(node)
    peer.send(p_data(1, 0, bytes(RECEIVE_LIMIT - 6))[:6])
    assert peer.take() == []
    peer = established(node)
    peer.send(p_data(1, 0, bytes(RECEIVE_LIMIT - 5))[:6])
    assert peer.abort() == (2, 6)


@pytest.mark.parametrize("length", [0, 1, 9, 0x7FFFFFFF, 0xFFFFFFFF])
def test_case_14_a_pdv_that_does_not_fit_its_pdu_is_aborted(node: Node, length: int):
    peer = established(node)
    peer.send(pdu(DATA, pdv(1, 3, b"123456", length)))
    assert peer.abort() == (2, 6)


BEYOND = {
    "item": item(0x20, context_rq()[4:], 1000),
    "sub-item": item(0x20, bytes((1, 0, 0, 0)) + item(0x30, b"1.2", 1000)),
    "user information": item(0x50, item(0x51, bytes(4), 1000)),
    "half an item": b"\x20\x00\x00",
}


@pytest.mark.parametrize("name", BEYOND)
def test_case_15_an_item_beyond_its_pdu_is_aborted(node: Node, name: str):
    """In Sta2 by AA-1."""
    peer = node.connect()
    peer.send(associate_rq(APPLICATION_CONTEXT, BEYOND[name]))
    assert peer.abort() == (0, 0)


def test_case_15_a_field_beyond_its_sub_item_is_ignored_with_it(node: Node):
    """Where the item ends is known, and what it proposed is not done (PS3.8 9.3.1)."""
    peer = node.connect()
    cut = user_information(item(0x54, struct.pack(">H", 1000) + b"1.2"))
    peer.send(associate_rq(APPLICATION_CONTEXT, context_rq(), cut))
    assert peer.kinds() == [AC]


def test_case_15_an_item_of_the_answer_beyond_its_pdu_is_aborted():
    """In Sta5 by AA-8, 6: the requestor's side of it."""
    caller = Caller()
    caller.peer.send(
        pdu(
            AC,
            struct.pack(">HH", 1, 0)
            + bytes(64)
            + APPLICATION_CONTEXT
            + item(0x21, bytes((1, 0, 0, 0)) + item(0x40, IMPLICIT.encode(), 1000)),
        )
    )
    assert caller.peer.abort() == (2, 6)
    error = failure_of(caller.opening)
    assert isinstance(error, AssociationAbortedError)
    assert not error.by_peer


# -- requests that are rejected --------------------------------------------------------------------------


def test_case_16_another_protocol_version_is_rejected(node: Node):
    """RJ 1/2/2; bit 0 alone is tested (PS3.8 9.3.2)."""
    peer = node.connect()
    peer.send(associate_rq(*GOOD, version=2))
    assert peer.rejection() == (1, 2, 2)
    peer = node.connect()
    peer.send(associate_rq(*GOOD, version=3))
    assert peer.kinds() == [AC]


def test_case_17_another_application_context_is_rejected(node: Node):
    """RJ 1/1/2."""
    peer = node.connect()
    peer.send(associate_rq(item(0x10, b"1.2.3"), *GOOD[1:]))
    assert peer.rejection() == (1, 1, 2)


def test_case_18_an_unknown_called_title_is_rejected(node: Node):
    """RJ 1/1/7."""
    node.ae.called_ae_titles = frozenset({"NODE"})
    peer = node.connect()
    peer.send(associate_rq(*GOOD, called=b"ANOTHER"))
    assert peer.rejection() == (1, 1, 7)


def test_case_19_a_calling_title_that_is_not_allowed_is_rejected(node: Node):
    """RJ 1/1/3."""
    node.ae.calling_ae_titles = frozenset({"PEER"})
    peer = node.connect()
    peer.send(associate_rq(*GOOD, calling=b"ANOTHER"))
    assert peer.rejection() == (1, 1, 3)


@pytest.mark.parametrize(
    "title", [b"NODE\0\0\0", b"NODE".ljust(16, b"\0"), b"  NODE", b"NODE\0xyz"]
)
def test_case_20_a_title_with_odd_padding_is_accepted(node: Node, title: bytes):
    node.ae.called_ae_titles = frozenset({"NODE"})
    peer = node.connect()
    peer.send(associate_rq(*GOOD, called=title))
    assert peer.kinds() == [AC]
    assert node.association().called_ae_title == "NODE"


@pytest.mark.parametrize("side", ["called", "calling"])
@pytest.mark.parametrize(
    "title", [b"", b"\0" * 16, b"A\nB", b"A\x1b[2J", b"A\\B", b"\xff\xfe", b"A\x7f"]
)
def test_case_21_a_title_that_is_none_is_rejected(node: Node, side: str, title: bytes):
    """RJ 1/1/7 or 1/1/3; in the log it does no harm."""
    peer = node.connect()
    with capturedLogs() as logs:
        peer.send(associate_rq(*GOOD, **{side: title}))
    assert peer.rejection() == (1, 1, 7 if side == "called" else 3)
    for each in logs:
        text = each["log_format"].format(**each)
        assert text.isprintable(), text


@pytest.mark.parametrize("title", [b"../x", b"/etc/passwd", b".."])
def test_case_21_a_title_like_a_path_is_a_title_like_any_other(
    node: Node, title: bytes, tmp_path: Any, monkeypatch: Any
):
    """PS3.5 6.2 admits it. A node that knows its peers rejects it; of nobody's title a path is made."""
    monkeypatch.chdir(tmp_path)
    peer = node.connect()
    peer.send(associate_rq(*GOOD, calling=title, called=title))
    assert peer.kinds() == [AC]
    assert list(tmp_path.rglob("*")) == []
    node.ae.calling_ae_titles = frozenset({"PEER"})
    peer = node.connect()
    peer.send(associate_rq(*GOOD, calling=title))
    assert peer.rejection() == (1, 1, 3)


@pytest.mark.parametrize(
    "ids",
    [[], [1, 1], [2, 2], [*list(range(1, 256, 2)), 1]],
    ids=["none", "twice", "even and twice", "129"],
)
def test_case_22_contexts_that_cannot_be_told_apart_are_aborted(node: Node, ids: list[int]):
    """PS3.8 9.3.2.2; in Sta3 by AA-8, 6."""
    peer = node.connect()
    peer.send(
        associate_rq(
            APPLICATION_CONTEXT,
            *(context_rq(each) for each in ids),
            user_information(MAXIMUM_LENGTH),
        )
    )
    assert peer.abort() == (2, 6)


def results(peer: RawPeer) -> list[int]:
    ((kind, body),) = peer.take()
    assert kind == AC
    return [each.result for each in AAssociateAC.decode(body).presentation_contexts]


def test_case_23_an_unknown_abstract_syntax_is_result_3(node: Node):
    """PS3.8 Table 9-18."""
    peer = node.connect()
    peer.send(request({"1.2.3.4": [IMPLICIT], VERIFICATION: [IMPLICIT]}))
    assert results(peer) == [3, 0]


def test_case_24_no_common_transfer_syntax_is_result_4(node: Node):
    peer = node.connect()
    peer.send(request({CT: ["1.2.3.4", "1.2.3.5"], VERIFICATION: [IMPLICIT]}))
    assert results(peer) == [4, 0]


@pytest.mark.parametrize("then", ["release", "idle"])
def test_case_25_a_request_of_which_nothing_is_accepted_is_accepted(node: Node, then: str):
    """It is the requestor's to release; or it idles out."""
    peer = node.connect()
    peer.send(request({"1.2.3.4": [IMPLICIT]}))
    assert results(peer) == [3]
    if then == "release":
        peer.send(pdu(RELEASE_RQ))
        assert peer.kinds() == [RELEASE_RP]
    else:
        node.advance(TIMEOUTS.idle)
        assert peer.abort() == (2, 0)


@pytest.mark.parametrize("last", [IMPLICIT, "1.2.9999"])
def test_case_26_four_thousand_transfer_syntaxes_are_decided_on_at_once(last: str):
    """An item holds 65535 octets: 4000 short UIDs. The work is linear in them."""
    compared = 0

    class Counted(str):
        """A UID that counts how often it is compared."""

        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    served = [Counted(f"1.3.{n}") for n in range(1000)]
    node = Node(AE("NODE").add_scp(verification_scp, None, [*served, Counted(IMPLICIT)]))
    uids = [f"1.2.{n}" for n in range(4000)]
    asked = associate_rq(
        APPLICATION_CONTEXT,
        context_rq(1, VERIFICATION, *uids, last),
        user_information(MAXIMUM_LENGTH),
    )
    peer = node.connect()
    compared = 0
    peer.send(asked)
    # Trying each with each would take four million comparisons.
    assert compared < 5000
    assert results(peer) == [0 if last == IMPLICIT else 4]


@pytest.mark.parametrize("maximum", [None, 0, 8, 4096, 0xFFFFFFFF])
def test_case_27_whatever_the_peer_admits_is_kept_to(maximum: int | None):
    """PS3.8 D.1: absent or 0 means no limit; our own limit is what DCMTK can take."""
    ae = AE("NODE").add_scp(lambda asce, ctx, msg: (0, bytes(1000)), [FIND])
    node = Node(ae)
    sub_item = () if maximum is None else (item(0x51, struct.pack(">I", maximum)),)
    peer = node.connect()
    peer.send(
        associate_rq(
            APPLICATION_CONTEXT, context_rq(1, FIND, IMPLICIT), user_information(*sub_item)
        )
    )
    assert peer.kinds() == [AC]
    peer.send(find_rq(1))
    parts = [body for _, body in peer.take()]
    assert max(map(len, parts)) <= (maximum or LARGEST_PDU)
    assert b"".join(each[6:] for each in parts if not each[5] & 1) == bytes(1000)
    assert parts[-1][5] & 2


@pytest.mark.parametrize("maximum", [1, 6, 7])
def test_case_27_a_peer_that_admits_nothing_is_rejected(node: Node, maximum: int):
    """No fragment of a message fits in so little."""
    peer = node.connect()
    sub_item = item(0x51, struct.pack(">I", maximum))
    peer.send(associate_rq(*GOOD[:2], user_information(sub_item)))
    assert peer.rejection() == (1, 1, 1)


@pytest.mark.parametrize("maximum", [1, 7])
def test_case_27_an_acceptor_that_admits_nothing_gets_nothing(maximum: int):
    """The requestor's side: the request fails, and nothing goes out."""
    caller, asce = calling(items=(MaximumLength(maximum),))
    error = failure_of(asce.request(echo_rq(None), asce.contexts_for(VERIFICATION)[0]))
    assert f"{maximum} octets" in str(error)
    assert caller.peer.take() == []


def test_case_27_a_huge_maximum_costs_no_memory():
    """We cut by ourselves, and read the file as it goes out."""
    caller, asce = calling({CT: [IMPLICIT]}, items=(MaximumLength(0xFFFFFFFF),))
    caller.peer.transport.pauseProducing()
    source = io.BytesIO(bytes(1 << 24))
    with bounded(1 << 22):
        asce.request(store_rq(None, source), asce.contexts_for(CT)[0]).addErrback(lambda _: None)
    asce.abort()


def test_case_28_unknown_user_information_is_ignored(node: Node):
    """PS3.8 D.2."""
    peer = node.connect()
    unknown = (item(0x5F, b"whatever"), item(0x00, b""), item(0xFF, bytes(300)))
    peer.send(associate_rq(*GOOD[:2], user_information(*unknown, MAXIMUM_LENGTH)))
    assert peer.kinds() == [AC]
    asked = node.association().request_pdu
    assert asked is not None
    assert len(asked.user_items(UnknownItem)) == 3


# -- release ---------------------------------------------------------------------------------------------


def test_case_34_a_release_collision_ends_at_the_requestor():
    """AR-8, AR-9, AR-3."""
    caller, asce = calling()
    released = asce.release()
    caller.peer.send(pdu(RELEASE_RQ))
    assert caller.peer.kinds() == [RELEASE_RQ, RELEASE_RP]
    caller.peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None
    assert caller.peer.is_lost


def test_case_34_a_release_collision_ends_at_the_acceptor(node: Node):
    """AR-8, AR-10, AR-4."""
    peer = established(node)
    released = node.association().release()
    peer.send(pdu(RELEASE_RQ))
    assert peer.kinds() == [RELEASE_RQ]
    peer.send(pdu(RELEASE_RP))
    assert success_of(released) is None
    assert peer.kinds() == [RELEASE_RP]


def test_case_35_data_after_a_release_request_is_aborted(node: Node):
    """AA-8 in Sta8, 2: unexpected PDU."""
    peer = with_an_operation(node)
    peer.send(pdu(RELEASE_RQ), message(echo_rq(2)))
    assert peer.abort() == (2, 2)
    assert node.ae.cancelled == 1


def test_case_36_a_release_waits_for_what_runs(node: Node):
    """AR-7: its answer goes out before."""
    peer = with_an_operation(node)
    peer.send(pdu(RELEASE_RQ))
    assert peer.take() == []
    node.ae.finding[0].callback(0)
    assert peer.kinds() == [DATA, RELEASE_RP]


def test_case_36_a_release_does_not_wait_for_ever(node: Node):
    peer = with_an_operation(node)
    peer.send(pdu(RELEASE_RQ))
    node.advance(TIMEOUTS.release)
    assert peer.kinds() == [RELEASE_RP]
    assert node.ae.cancelled == 1


def test_case_37_a_release_that_is_not_answered_is_an_abort(node: Node):
    peer = established(node)
    released = node.association().release()
    node.advance(TIMEOUTS.release)
    assert peer.kinds() == [RELEASE_RQ, ABORT]
    error = failure_of(released)
    assert isinstance(error, DCMTimeoutError)
    assert error.timer == "release"
    node.advance(TIMEOUTS.artim)
    assert peer.is_lost


@pytest.mark.parametrize("last", ["abort", "release"])
def test_case_38_a_peer_that_does_not_close_is_closed(node: Node, last: str):
    """ARTIM in Sta13, whatever it still says."""
    peer = established(node)
    if last == "abort":
        node.association().abort()
    else:
        peer.send(pdu(RELEASE_RQ))
    assert peer.kinds() == [ABORT if last == "abort" else RELEASE_RP]
    node.advance(TIMEOUTS.artim - 1)
    peer.send(message(echo_rq(1)))
    assert peer.take() == []
    assert not peer.is_lost
    node.advance(1)
    assert peer.is_lost
    assert not node.ae.associations


# -- messages --------------------------------------------------------------------------------------------


def test_case_41_an_endless_command_set_is_aborted(node: Node):
    peer = established(node)
    sent = 0
    with bounded(4 * COMMAND_SET_LIMIT):
        while peer.received[-10:-9] != b"\x07":
            peer.send(p_data(1, 1, bytes(4096)))
            sent += 4096
            assert sent <= COMMAND_SET_LIMIT + 4096
    assert peer.take()[-1] == (ABORT, bytes((0, 0, 2, 6)))


def test_case_42_an_endless_identifier_is_aborted(node: Node):
    peer = established(node)
    head = message(find_rq(1, b""), 5)
    peer.send(head[: -len(pdu(DATA, pdv(5, 2, b"")))])
    peer.take()
    sent = 0
    with bounded(4 * IDENTIFIER_LIMIT):
        while peer.received[-10:-9] != b"\x07":
            peer.send(p_data(5, 0, bytes(32768)))
            sent += 32768
            assert sent <= IDENTIFIER_LIMIT + 32768
    assert peer.abort() == (2, 6)
    assert node.ae.finding == []


def test_case_43_a_data_set_before_a_command_is_aborted(node: Node):
    """5: unexpected PDU parameter."""
    peer = established(node)
    peer.send(p_data(1, 0, b"data"))
    assert peer.abort() == (2, 5)


def test_case_43_a_command_inside_a_data_set_is_aborted(node: Node):
    peer = established(node)
    head, _ = _pdus(message(store_rq(1, bytes(1000)), 3))
    peer.send(head, message(echo_rq(2), 3))
    assert peer.abort() == (2, 5)
    assert node.ae.stored == []


def _pdus(octets: bytes) -> Iterator[bytes]:
    while octets:
        (length,) = struct.unpack_from(">2xI", octets)
        yield octets[: 6 + length]
        octets = octets[6 + length :]


@pytest.mark.parametrize("context_id", [0, 2, 7, 255])
def test_case_44_a_context_that_was_not_accepted_is_aborted(node: Node, context_id: int):
    peer = established(node)
    peer.send(message(echo_rq(1), context_id))
    assert peer.abort() == (2, 5)


def test_case_45_two_contexts_in_one_message_are_aborted(node: Node):
    peer = established(node)
    head, body = _pdus(message(store_rq(1, bytes(100)), 3))
    peer.send(head, body.replace(b"\x03\x02", b"\x01\x02", 1))
    assert peer.abort() == (2, 5)
    assert node.ae.stored == []


ECHO = [
    (0x0002, VERIFICATION.encode() + b"\0"),
    (0x0100, us(0x0030)),
    (0x0110, us(1)),
    (0x0800, us(0x0101)),
]


@pytest.mark.slow
def test_the_command_by_hand_is_a_good_one(node: Node):
    peer = established(node)
    peer.send(p_data(1, 3, command(*ECHO)))
    assert peer.statuses() == [0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "octets",
    [
        command(*ECHO)[:-1],
        command(*ECHO)[:-9],
        command(*ECHO, (0x0110, us(2))),
        command(*ECHO[:2], ECHO[3]),
        command(ECHO[0], (0x0100, b"\x30"), *ECHO[2:]),
        command(*ECHO).replace(b"\0\0\0\1", b"\x08\0\0\1", 1),
        b"",
        b"\0" * 7,
    ],
    ids=[
        "truncated value",
        "truncated header",
        "element twice",
        "no message ID",
        "odd US",
        "another group",
        "empty",
        "no header",
    ],
)
def test_case_46_a_command_set_that_contradicts_itself_is_aborted(node: Node, octets: bytes):
    peer = established(node)
    peer.send(p_data(1, 3, octets))
    assert peer.abort() == (2, 6)


@pytest.mark.parametrize("field", [0x0000, 0x0002, 0x0666, 0x7FFF])
@pytest.mark.parametrize("context_id", [1, 3, 5])
def test_case_47_an_unknown_operation_is_refused(node: Node, field: int, context_id: int):
    """PS3.7 C.5.23: 0211, unrecognized operation; the association goes on."""
    peer = established(node)
    peer.send(p_data(context_id, 3, command(ECHO[0], (0x0100, us(field)), *ECHO[2:])), echo_rq(2))
    ((_, refusal), (_, answer)) = peer.take()
    assert b"\x00\x09\x02\x00\x00\x00\x11\x02" in refusal
    assert b"\x00\x09\x02\x00\x00\x00\x00\x00" in answer


def test_case_47_an_unknown_response_is_aborted(node: Node):
    peer = established(node)
    peer.send(p_data(1, 3, command((0x0100, us(0x8666)), (0x0120, us(1)), *ECHO[3:])))
    assert peer.abort() == (2, 4)


def test_case_48_a_response_that_nobody_asked_for_is_ignored(node: Node):
    peer = established(node)
    peer.send(CEchoRSP(message_id_being_responded_to=9, status=0), echo_rq(1))
    assert peer.statuses() == [0]


def test_case_49_a_message_id_in_use_is_refused(node: Node):
    """PS3.7 C.5.9: 0210, duplicate invocation; the first goes on."""
    peer = with_an_operation(node)
    peer.send(message(find_rq(1), 5))
    assert peer.statuses() == [0x0210]
    node.ae.finding[0].callback(0)
    assert peer.statuses() == [0]
    assert len(node.ae.finding) == 1


def test_case_50_a_c_echo_with_a_data_set_is_mistyped(node: Node):
    """PS3.7 9.3.5.1; C.5.15: 0212, mistyped argument."""
    peer = established(node)
    peer.send(CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=1, data_set=b"????"))
    assert peer.statuses() == [0x0212]
    peer.send(echo_rq(2))
    assert peer.statuses() == [0]


def test_case_50_a_c_store_without_a_data_set_cannot_be_understood(node: Node):
    peer = established(node)
    nothing = CStoreRQ(affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3", message_id=1)
    peer.send(message(nothing, 3))
    assert peer.statuses() == [0xC000]
    peer.send(message(store_rq(2), 3))
    assert peer.statuses() == [0]


def test_case_51_a_cancel_for_nothing_is_ignored(node: Node):
    peer = established(node)
    for number in (0, 1, 65535):
        peer.send(message(CCancelRQ(message_id_being_responded_to=number), 5))
    peer.send(echo_rq(1))
    assert peer.statuses() == [0]


# -- on sockets ------------------------------------------------------------------------------------------


class SocketTests(TestCase):
    """What a socket does otherwise than a pair of queues."""

    timeout = 60

    async def _listen(self, **options: Any) -> TCP4ClientEndpoint:
        from twisted.internet import reactor

        self.ae = Target(**options)
        port = await self.ae.listen("tcp:0:interface=127.0.0.1")
        self.addCleanup(port.stopListening)
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)

    async def _lives(self, endpoint: TCP4ClientEndpoint) -> None:
        scu = AE("SCU").add_scu(verification_scu)
        asce = await scu.request_association(RemoteAE("NODE", endpoint))
        assert await asce.get_scu(VERIFICATION)() == SUCCESS
        over = [each.closed() for each in (asce, *self.ae.associations)]
        await asce.release()
        for each in over:
            await each
        assert not self.ae.associations

    async def test_case_02_health_checks_leave_no_file_descriptor(self):
        endpoint = await self._listen()
        gone: defer.DeferredQueue[None] = defer.DeferredQueue()
        closed = self.ae.association_closed

        def notice(asce: Any) -> None:
            closed(asce)
            gone.put(None)

        self.ae.association_closed = notice  # type: ignore[method-assign]
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(200):
            peer = await endpoint.connect(Factory.forProtocol(Protocol))
            peer.transport.loseConnection()
        for _ in range(200):
            await gone.get()
        assert not self.ae.associations
        if before:  # pragma: no branch - Linux
            # The last few of the peers' own ends may still be closing.
            assert len(os.listdir("/proc/self/fd")) < before + 20
        self.ae.association_closed = closed  # type: ignore[method-assign]
        await self._lives(endpoint)

    async def test_case_03_a_reset_is_a_lost_connection(self):
        """With an RST, which queues in memory do not have."""
        endpoint = await self._listen()
        scu = AE("SCU").add_scu(verification_scu)
        asce = await scu.request_association(RemoteAE("NODE", endpoint))
        assert await asce.get_scu(VERIFICATION)() == SUCCESS
        (acceptor,) = self.ae.associations
        over = [asce.closed(), acceptor.closed()]
        asce.drop()
        for each in over:
            assert isinstance(await each, ConnectionLostError)
        await self._lives(endpoint)

    async def test_case_38_a_socket_that_the_peer_keeps_open_is_closed(self):
        endpoint = await self._listen(timeouts=Timeouts(artim=0.05))

        class Deaf(Protocol):
            """Says something, and neither reads nor closes."""

            def connectionMade(self) -> None:
                self.transport.write(b"nonsense")
                self.transport.pauseProducing()

            def connectionLost(self, reason: Any = None) -> None:
                gone.callback(None)

        gone: defer.Deferred[None] = defer.Deferred()
        opened: defer.Deferred[Any] = defer.Deferred()
        self.ae.association_opened = lambda asce, tell=self.ae.association_opened: (  # type: ignore[method-assign]
            tell(asce),
            opened.callback(asce) if not opened.called else None,
        )
        peer = await endpoint.connect(Factory.forProtocol(Deaf))
        await (await opened).closed()
        assert not self.ae.associations
        peer.transport.resumeProducing()
        await gone
        await self._lives(endpoint)
