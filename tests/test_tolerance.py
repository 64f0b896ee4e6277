"""Peers of the field that do something oddly and mean it plainly: the association goes on.

The octets are what such peers send. :mod:`test_dimsemessages` and :mod:`test_pdu` show how each is read; here an
association lives through it, and one debug line names it.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from netdicom_tx import (
    AE,
    UNKNOWN_SOP_CLASSES,
    dsutils,
    storage_scp,
    uids,
    verification_scp,
    verification_scu,
)
from netdicom_tx.dimsemessages import CMoveRSP
from netdicom_tx.pdu import AAssociateAC, PresentationContextAC
from netdicom_tx.sopclass import qr_get_scu, qr_move_scu
from netdicom_tx.testing import success_of
from netdicom_tx.userdataitems import MalformedItem
from support.doubles import (
    ABORT,
    AC,
    CT,
    IMPLICIT,
    RELEASE_RP,
    RELEASE_RQ,
    RQ,
    VERIFICATION,
    Caller,
    Node,
    RawPeer,
    acceptance,
    calling,
    command,
    item,
    logged_failures,
    p_data,
    pdu,
    run,
    us,
)

__all__ = ["logged_failures"]

COMMIT = uids.StorageCommitmentPushModel
MOVE, GET = (
    uids.StudyRootQueryRetrieveInformationModelMove,
    uids.StudyRootQueryRetrieveInformationModelGet,
)
EXPLICIT, DEFLATED = uids.ExplicitVRLittleEndian, uids.DeflatedExplicitVRLittleEndian


@pytest.fixture(name="lines")
def debug_lines() -> Iterator[list[str]]:
    """The debug lines about deviations."""
    seen: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"] is LogLevel.debug and "deviation" in event:
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def context(number: int, *syntaxes: str, extra: bytes = b"") -> bytes:
    abstract, *transfer = syntaxes
    return item(
        0x20,
        bytes((number, 0, 0, 0))
        + item(0x30, abstract.encode())
        + b"".join(item(0x40, each.encode()) for each in transfer)
        + extra,
    )


def request(*contexts: bytes, user: bytes = b"") -> bytes:
    """An A-ASSOCIATE-RQ by hand."""
    return pdu(
        RQ,
        struct.pack(">HH", 1, 0)
        + b"NODE".ljust(16)
        + b"PEER".ljust(16)
        + bytes(32)
        + item(0x10, b"1.2.840.10008.3.1.1.1")
        + b"".join(contexts)
        + item(0x50, item(0x51, bytes(4)) + user),
    )


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def echo(message_id: int = 1) -> bytes:
    """A C-ECHO-RQ's command set."""
    return command(
        (0x0002, uid(VERIFICATION)),
        (0x0100, us(0x30)),
        (0x0110, us(message_id)),
        (0x0800, us(0x0101)),
    )


def ends_well(peer: RawPeer) -> bool:
    peer.send(pdu(RELEASE_RQ))
    return peer.kinds() == [RELEASE_RP]


# -- establishment (PS3.8 9.3.2, 9.3.3) -------------------------------------------------------------


@pytest.mark.parametrize("ids", [(1, 2), (2,), (0,), (254, 255)], ids=str)
def test_even_context_ids_are_accepted(ids: tuple[int, ...], lines: list[str]) -> None:
    """PS3.8 9.3.2.2 wants odd ones; dcm4che's stgcmtscu counts 1, 2."""
    node = Node(AE("NODE").add_scp(verification_scp, [VERIFICATION, COMMIT]))
    peer = node.connect()
    peer.send(
        request(*(context(n, (VERIFICATION, COMMIT)[at % 2], IMPLICIT) for at, n in enumerate(ids)))
    )
    ((kind, body),) = peer.take()
    assert kind == AC
    answers = AAssociateAC.decode(body).presentation_contexts
    assert [(each.context_id, each.result) for each in answers] == [(n, 0) for n in ids]
    peer.send(p_data(ids[0], 3, echo()))
    assert peer.statuses() == [0]
    assert lines == ["PEER: A-ASSOCIATE-RQ: a presentation context ID is even"]
    assert ends_well(peer)


@pytest.mark.parametrize(
    "extra",
    [item(0x41, b""), item(0x77, b"???"), item(0x30 - 1, b"1.2") + item(0x51, bytes(4))],
    ids=["an empty one", "one of another kind", "two"],
)
def test_unknown_sub_items_of_a_context_are_ignored(extra: bytes, lines: list[str]) -> None:
    """PS3.8 9.3.1: unrecognized items are ignored and skipped."""
    node = Node()
    peer = node.connect()
    peer.send(request(context(1, VERIFICATION, IMPLICIT, extra=extra)))
    assert peer.kinds() == [AC]
    peer.send(p_data(1, 3, echo()))
    assert peer.statuses() == [0]
    assert lines == ["PEER: A-ASSOCIATE-RQ: a presentation context has unknown sub-items"]
    assert ends_well(peer)


@pytest.mark.parametrize(
    ("odd", "result"),
    [
        (item(0x20, b"\3\0\0\0" + item(0x40, IMPLICIT.encode())), 3),
        (item(0x20, b"\3\0\0\0"), 3),
        (context(3, VERIFICATION), 4),
        (context(3, CT), 3),
        (context(3, VERIFICATION, ""), 4),
        (context(3, "", IMPLICIT), 3),
        (context(3, VERIFICATION, IMPLICIT, extra=item(0x30, CT.encode())), 3),
    ],
    ids=[
        "no abstract syntax",
        "nothing",
        "no transfer syntax",
        "no transfer syntax, and an unknown class",
        "an empty transfer syntax",
        "an empty abstract syntax",
        "two abstract syntaxes",
    ],
)
def test_a_context_that_lacks_a_syntax_is_refused_by_its_answer(
    odd: bytes, result: int, lines: list[str]
) -> None:
    """PS3.8 9.3.3.2: 3 abstract syntax, 4 transfer syntaxes not supported. The other contexts are accepted."""
    node = Node(AE("NODE").add_scp(verification_scp).add_scp(storage_scp, [UNKNOWN_SOP_CLASSES]))
    peer = node.connect()
    peer.send(request(context(1, VERIFICATION, IMPLICIT), odd))
    ((kind, body),) = peer.take()
    assert kind == AC
    answers = AAssociateAC.decode(body).presentation_contexts
    assert [(each.context_id, each.result) for each in answers] == [(1, 0), (3, result)]
    peer.send(p_data(1, 3, echo()))
    assert peer.statuses() == [0]
    assert lines == [
        "PEER: A-ASSOCIATE-RQ: a presentation context lacks its abstract or its transfer syntax"
    ]
    assert ends_well(peer)


@pytest.mark.parametrize(
    "user",
    [
        item(0x53, b"\0\1"),
        item(0x54, b"\0\x09" + b"1.2"),
        item(0x56, b""),
        item(0x57, b"\0\1"),
        item(0x58, b"\1"),
        item(0x58, b"\2\1\0\x40me"),
        item(0x53, b"") * 3,
    ],
    ids=["window", "role", "56H", "57H", "identity", "identity that is cut", "three of a kind"],
)
def test_a_malformed_sub_item_of_user_information_is_ignored(user: bytes, lines: list[str]) -> None:
    """PS3.8 9.3.1, PS3.7 D.3.3: all of these are optional, and without them the defaults hold."""
    node = Node()
    peer = node.connect()
    peer.send(request(context(1, VERIFICATION, IMPLICIT), user=user))
    assert peer.kinds() == [AC]
    peer.send(p_data(1, 3, echo()))
    assert peer.statuses() == [0]
    assert lines == [
        f"PEER: A-ASSOCIATE-RQ: user information sub-item {user[0]:02X}H is malformed, and is ignored"
    ]
    assert ends_well(peer)


def test_a_malformed_sub_item_of_an_answer_is_ignored(lines: list[str]) -> None:
    """Nothing was granted with it."""
    caller = Caller()
    answer = acceptance(caller.asked)
    odd = (*answer.user_information, MalformedItem(0x53, b"\0"))
    caller.peer.send(replace(answer, user_information=odd))
    assert success_of(caller.opening).is_open
    assert lines == [
        "PEER: A-ASSOCIATE-AC: user information sub-item 53H is malformed, and is ignored"
    ]


@pytest.mark.parametrize("user", [item(0x51, b"\0\0"), b"\x54\0\0\x20ab"], ids=["51H", "cut"])
def test_user_information_that_cannot_be_understood_ends_the_association(user: bytes) -> None:
    """PS3.8 9.3.8: how much the peer admits is not known, or a length leads beyond the PDU."""
    peer = Node().connect()
    peer.send(request(context(1, VERIFICATION, IMPLICIT), user=user))
    assert peer.kinds() == [ABORT]


@pytest.mark.parametrize("extra", [(7, 0, IMPLICIT), (2, 0, CT), (255, 3, "")], ids=str)
def test_an_answer_to_a_context_that_was_not_proposed_is_ignored(
    extra: tuple[int, int, str], lines: list[str]
) -> None:
    """PS3.8 9.3.3.2: it says nothing about the contexts that were proposed."""
    caller = Caller()
    good = PresentationContextAC(1, 0, IMPLICIT)
    answer = acceptance(caller.asked)
    caller.peer.send(replace(answer, presentation_contexts=(good, PresentationContextAC(*extra))))
    assert list(success_of(caller.opening).accepted_contexts) == [1]
    assert lines == [
        "PEER: A-ASSOCIATE-AC: it answers a presentation context that was not proposed"
    ]


def test_a_context_that_is_not_answered_is_not_accepted(lines: list[str]) -> None:
    """PS3.8 9.3.3.2: each proposal has an answer; the others count all the same."""
    caller = Caller(contexts={VERIFICATION: [IMPLICIT], CT: [IMPLICIT]})
    caller.peer.send(AAssociateAC(presentation_contexts=(PresentationContextAC(3, 0, IMPLICIT),)))
    assert list(success_of(caller.opening).accepted_contexts) == [3]
    assert lines == [
        "PEER: A-ASSOCIATE-AC: there is no user information",
        "PEER: A-ASSOCIATE-AC: it does not answer every presentation context",
    ]


def test_an_association_without_oddities_has_no_line(lines: list[str]) -> None:
    node = Node()
    assert node.lives()
    caller = Caller()
    caller.peer.send(acceptance(caller.asked))
    assert success_of(caller.opening).is_open
    assert lines == []


# -- requests (PS3.7 9.3, 10.3) ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ([(0x0700, b"")], "Priority cannot be read"),
        ([(0x0700, us(0) + us(1))], "Priority has several values; the first is taken"),
        ([(0x1030, b"")], "MoveOriginatorApplicationEntityTitle has no value"),
        ([(0x1030, b" " * 16)], "MoveOriginatorApplicationEntityTitle has no value"),
        ([(0x1031, b"")], "MoveOriginatorMessageID cannot be read"),
    ],
)
def test_a_c_store_with_an_odd_element_is_kept(
    elements: list[tuple[int, bytes]], words: str, lines: list[str]
) -> None:
    """PS3.7 9.3.1.1; and the kind of deviation has one line, however often it comes."""
    kept = []

    class Keeper(AE):
        def on_receive_store(self, ctx, ds):  # type: ignore[no-untyped-def]
            kept.append(ds.read())
            return 0

    node = Node(Keeper("NODE").add_scp(storage_scp))
    peer = node.associate({CT: [IMPLICIT]})
    for number in (1, 2):
        rest = [(0x0100, us(1)), (0x0110, us(number)), (0x0800, us(1)), (0x1000, uid("1.2.3"))]
        values = sorted([(0x0002, uid(CT)), *rest, *elements])
        peer.send(p_data(1, 3, command(*values)), p_data(1, 2, b"\x08\0\x60\0\2\0\0\0CT"))
    assert peer.statuses() == [0, 0]
    assert [each[-2:] for each in kept] == [b"CT", b"CT"]
    assert lines == [f"PEER: C-STORE request: {words}"]
    assert ends_well(peer)


@pytest.mark.parametrize("length", [0, 4, 0x2D, 0xFFFFFFFF])
def test_a_wrong_command_group_length_is_not_believed(length: int, lines: list[str]) -> None:
    """PS3.7 Annex E (0000,0000): the elements say where they end."""
    peer = Node().associate()
    peer.send(p_data(1, 3, struct.pack("<HHII", 0, 0, 4, length) + echo()[12:]))
    assert peer.statuses() == [0]
    assert lines == [
        "PEER: C-ECHO request: Command Group Length does not count the elements of group 0000"
    ]
    assert ends_well(peer)


@pytest.mark.parametrize(
    ("elements", "comment"),
    [
        (
            [(0x0100, us(0x30)), (0x0110, us(1)), (0x0800, us(0x0101))],
            "AffectedSOPClassUID (0000,0002) missing",
        ),
        (
            [
                (0x0003, uid(VERIFICATION)),
                (0x0100, us(0x0130)),
                (0x0110, us(1)),
                (0x0800, us(0x0101)),
                (0x1001, uid("1.2")),
            ],
            "ActionTypeID (0000,1008) missing",
        ),
        (
            [(0x0100, us(0x0130)), (0x0110, us(1)), (0x0800, us(0x0101))],
            "RequestedSOPClassUID (0000,0003), RequestedSOPInstanceUID",
        ),
        (
            [
                (0x0002, uid(VERIFICATION)),
                (0x0100, us(0x21)),
                (0x0110, us(1)),
                (0x0800, us(0x0101)),
            ],
            "MoveDestination (0000,0600) missing",
        ),
    ],
    ids=["C-ECHO", "N-ACTION without a type", "N-ACTION of nothing", "C-MOVE to nowhere"],
)
def test_a_request_that_lacks_an_element_is_mistyped(
    elements: list[tuple[int, bytes]], comment: str
) -> None:
    """PS3.7 C.5.15: 0212, mistyped argument; the association goes on."""
    peer = Node().associate()
    peer.send(p_data(1, 3, command(*elements)))
    ((status, words),) = ((each.status, each.error_comment) for each in peer.messages())
    assert (status, words) == (0x0212, comment)
    peer.send(p_data(1, 3, echo(2)))
    assert peer.statuses() == [0]


# -- responses (PS3.7 9.3) ----------------------------------------------------------------------------


def response(kind: int, status: int, *elements: tuple[int, bytes]) -> bytes:
    values = [(0x0100, us(kind)), (0x0120, us(1)), (0x0800, us(0x0101)), (0x0900, us(status))]
    return command(*sorted([*values, *elements]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(us(2) + us(2), 2), (us(2) * 3, 2), (struct.pack("<I", 2), 2), (b"", None), (b"\2", None)],
    ids=["two values", "three values", "4 octets", "no value", "half a value"],
)
def test_odd_counters_end_no_c_move(value: bytes, expected: int | None, lines: list[str]) -> None:
    """PS3.7 9.3.4.2: each counter is one US; pynetdicom has met two values."""
    caller, asce = calling({MOVE: [IMPLICIT]}, AE("CALLER").add_scu(qr_move_scu))
    stream = asce.get_scu(MOVE)(dsutils.decode(b"", IMPLICIT), "DEST")
    caller.peer.take()
    for status in (0xFF00, 0xFF00, 0):
        counters = [(number, value) for number in (0x1021, 0x1022, 0x1023)]
        caller.peer.send(p_data(1, 3, response(0x8021, status, *counters)))

    async def read() -> list[CMoveRSP]:
        return [answer async for _, answer in stream]

    answers = run(read())
    assert [each.status for each in answers] == [0xFF00, 0xFF00, 0]
    assert {each.number_of_completed_suboperations for each in answers} == {expected}
    assert len(lines) == 3
    assert all("Suboperations" in each for each in lines)
    assert asce.is_open


@pytest.mark.parametrize("value", [b"", us(1) + us(2), b"\1"], ids=["no value", "two", "half"])
def test_an_odd_error_id_ends_nothing(value: bytes) -> None:
    """PS3.7 C.4: it explains a status, which says enough without it."""
    caller, asce = calling(ae=AE("CALLER").add_scu(verification_scu))
    echoed = asce.get_scu(VERIFICATION)()
    caller.peer.take()
    caller.peer.send(p_data(1, 3, response(0x8030, 0x0110, (0x0903, value))))
    assert success_of(echoed) == 0x0110
    assert asce.is_open


def failed_list(value: bytes) -> bytes:
    return struct.pack("<HHI", 8, 0x58, len(value)) + value


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED], ids=uids.name)
@pytest.mark.parametrize(
    ("stray", "failed"),
    [
        (failed_list(b"1.2.3.8\0"), ["1.2.3.8"]),
        (failed_list(b"1.2.3.8\\1.2.3.9 "), ["1.2.3.8", "1.2.3.9"]),
        (failed_list(b"1.2.3.8\0") + struct.pack("<HHI", 9, 1, 2) + b"??", ["1.2.3.8"]),
        (bytes(16), None),
        (b"?", None),
    ],
    ids=["one", "two", "something else", "zeros", "an octet"],
)
def test_the_failed_list_in_the_command_set_of_a_c_get_is_not_lost(
    syntax: str, stray: bytes, failed: list[str] | None, lines: list[str]
) -> None:
    """PS3.4 C.4.3.1.4.2: Orthanc 1.10 has it behind group 0000, whatever the transfer syntax is."""
    caller, asce = calling({GET: [syntax]}, AE("CALLER").add_scu(qr_get_scu))
    stream = asce.get_scu(GET)(dsutils.decode(b"", IMPLICIT))
    caller.peer.take()
    counters = ((0x1021, us(3)), (0x1022, us(1)), (0x1023, us(0)))
    caller.peer.send(p_data(1, 3, response(0x8010, 0xB000, *counters) + stray))
    final = success_of(stream.done)
    assert final == 0xB000
    response_ = stream.progress
    assert response_.number_of_completed_suboperations == 3
    assert response_.number_of_failed_suboperations == 1
    if failed is None:
        assert response_.data_set is None
    else:
        listed = dsutils.decode(response_.data_set, syntax).FailedSOPInstanceUIDList
        assert [listed] == failed if isinstance(listed, str) else list(listed) == failed
    assert lines == ["PEER: C-GET response: elements of other groups stand in the command set"]
    assert asce.is_open
