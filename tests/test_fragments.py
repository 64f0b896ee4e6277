"""Messages to P-DATA-TF and back (PS3.8 9.3.5, Annexes D.1 and E)."""

import struct
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO, RawIOBase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import dimse_messages, dimse_primitives
from pynetdicom.pdu import P_DATA_TF

from netdicom_tx.dimsemessages import (
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CStoreRQ,
    Message,
    encode_command,
)
from netdicom_tx.exceptions import DIMSEProcessingError, LocalProtocolError
from netdicom_tx.fragments import (
    COMMAND_SET_LIMIT,
    EMPTY_PDV_LIMIT,
    LARGEST_PDU,
    MessageReader,
    cut_up,
    fragment,
    fragment_again,
    fragment_command,
)
from netdicom_tx.pdu import Fragment, PDUReader
from support.layouts import decode_pdu
from support.strategies import cuts, messages, odd_ids, p_data_tf

ECHO = CEchoRQ(message_id=1, affected_sop_class_uid="1.2.840.10008.1.1")


def store(data_set: Any) -> CStoreRQ:
    return CStoreRQ(
        message_id=1,
        affected_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        affected_sop_instance_uid="1.2.3",
        data_set=data_set,
    )


class Sinks:
    """Where data sets go: one buffer for each message that announces one."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, Message]] = []

    def __call__(self, context_id: int, message: Message) -> BytesIO:
        self.opened.append((context_id, message))
        return BytesIO()


def reader(*context_ids: int) -> MessageReader:
    return MessageReader(context_ids or range(1, 256, 2), Sinks())


def received(reader: MessageReader, stream: Iterable[bytes]) -> list[tuple[int, Message, Any]]:
    """Every message of a stream of P-DATA-TF, its data set as bytes."""
    pdus = PDUReader()
    found = []
    for piece in stream:
        for item in pdus.feed(piece):
            assert isinstance(item, Fragment)
            complete = reader.receive(item)
            if complete is not None:
                context_id, message, sink = complete
                found.append((context_id, message, None if sink is None else sink.getvalue()))
    return found


def pdvs(pdus: Iterable[bytes]) -> list[tuple[int, int, bytes]]:
    """(context ID, message control header, value) of PDUs, read by the standard's layout."""
    found = []
    for pdu in pdus:
        name, fields = decode_pdu(bytes(pdu))
        assert name == "P-DATA-TF"
        for _, item in fields["pdv_items"]:
            header, value = item["presentation_data_value"]
            found.append((item["presentation_context_id"], header, value))
    return found


# -- out ------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(messages, odd_ids, st.integers(8, 300), st.booleans())
def test_a_message_is_cut_as_annex_e_says(message, context_id, limit, from_file):
    """PS3.8 D.1 and E: one context, command before data set, even, within the limit, last once."""
    data_set = message.data_set
    if from_file and data_set is not None:
        file = BytesIO(b"##" + data_set)
        file.seek(2)
        message = replace(message, data_set=file)
    pdus = [bytes(pdu) for pdu in fragment(message, context_id=context_id, limit=limit)]
    assert all(len(pdu) - 6 <= limit for pdu in pdus)
    cut = pdvs(pdus)
    assert {cid for cid, _, _ in cut} == {context_id}
    assert all(len(value) % 2 == 0 for _, _, value in cut)
    commands = [(header, value) for _, header, value in cut if header & 1]
    data = [(header, value) for _, header, value in cut if not header & 1]
    assert cut == [(context_id, header, value) for header, value in commands + data]
    assert [header for header, _ in commands] == [1] * (len(commands) - 1) + [3]
    assert b"".join(value for _, value in commands) == encode_command(message)
    if data_set is None:
        assert data == []
    else:
        assert [header for header, _ in data] == [0] * (len(data) - 1) + [2]
        assert b"".join(value for _, value in data) == data_set


def test_zero_maximum_length_means_no_limit():
    """PS3.8 D.1: a value of 0 indicates that no maximum length is specified."""
    data = b"x" * 100_000
    cut = pdvs(fragment(store(data), context_id=1, limit=0))
    assert [len(value) for _, header, value in cut if not header & 1] == [100_000]


@pytest.mark.parametrize("limit", [0, LARGEST_PDU, 0xFFFFFFFF])
def test_no_pdu_is_larger_than_peers_can_take(limit):
    """131072 is the largest that DCMTK handles, whatever a peer announces."""
    pdus = [bytes(p) for p in fragment(store(bytes(400_000)), context_id=1, limit=limit)]
    assert max(len(pdu) - 6 for pdu in pdus) == LARGEST_PDU == 131072
    assert len(pdus) == 1 + 4


@pytest.mark.parametrize("limit", [16384, 16383])
def test_a_fragment_is_as_large_as_the_peer_admits(limit):
    """PS3.8 D.1: the maximum counts the PDV's length, context ID and control header too."""
    pdus = list(fragment(store(bytes(50_000)), context_id=1, limit=limit))
    assert len(pdus[1]) - 6 == limit & ~1


@pytest.mark.parametrize("limit", range(1, 8))
def test_a_limit_without_room_is_refused(limit):
    """PS3.8 D.1 and E: six octets of header, and a fragment has an even number of octets."""
    with pytest.raises(LocalProtocolError, match=f"PDUs of {limit} octets; 8 are needed"):
        next(fragment(ECHO, context_id=1, limit=limit))


def test_the_smallest_limit_is_enough():
    """Two octets a PDU, and the message arrives."""
    pdus = list(fragment(store(b"abcdef"), context_id=1, limit=8))
    assert {len(pdu) for pdu in pdus} == {14}
    assert received(reader(), map(bytes, pdus)) == [(1, store(None), b"abcdef")]


def test_an_odd_data_set_is_padded():
    """PS3.5 A.5: only a deflated stream is odd, and it is padded with a NUL."""
    *_, (_, _, value) = pdvs(fragment(store(b"abc"), context_id=1, limit=0))
    assert value == b"abc\0"
    *_, (_, _, value) = pdvs(fragment(store(BytesIO(b"abc")), context_id=1, limit=8))
    assert value == b"c\0"


@pytest.mark.parametrize("source", [b"", BytesIO(b"")])
def test_an_empty_data_set_is_announced_and_ends(source):
    """PS3.8 E: an announced data set must have a last fragment, or the peer waits for ever."""
    assert pdvs(fragment(store(source), context_id=1, limit=0))[1:] == [(1, 2, b"")]


@pytest.mark.slow
@given(messages, odd_ids, st.integers(8, 300), st.lists(st.binary(max_size=60), max_size=3))
def test_a_command_set_that_is_cut_once_serves_every_data_set(message, context_id, limit, others):
    """PS3.4 C.4.1.1.4: Pending responses differ in their identifier alone; the octets are the same."""
    command = fragment_command(replace(message, data_set=b""), context_id=context_id, limit=limit)
    for data_set in others:
        again = fragment_again(command, data_set, context_id=context_id, limit=limit)
        whole = fragment(replace(message, data_set=data_set), context_id=context_id, limit=limit)
        assert b"".join(again) == b"".join(whole)


@pytest.mark.parametrize("limit", [1, 7])
def test_a_command_set_is_not_cut_where_there_is_no_room(limit):
    """PS3.8 D.1: as for the whole message."""
    with pytest.raises(LocalProtocolError, match="8 are needed"):
        fragment_command(ECHO, context_id=1, limit=limit)


def as_the_tables_say(message: CStoreRQ, data_set: bytes, limit: int) -> bytes:
    """PS3.8 Tables 9-22 and 9-23, written down a second time, without a thought of what it costs."""
    size = min(limit or LARGEST_PDU, LARGEST_PDU) - 6 & ~1
    stream = b""
    padded = data_set + bytes(len(data_set) % 2)
    for part, kind in ((encode_command(message), 1), (padded, 0)):
        for start in range(0, max(len(part), 1), size):
            value = part[start : start + size]
            last = 2 if start + size >= len(part) else 0
            stream += struct.pack(">BxIIBB", 4, len(value) + 6, len(value) + 2, 1, kind | last)
            stream += value
    return stream


@pytest.mark.slow
@given(
    st.integers(0, 20_000) | st.integers(2 * LARGEST_PDU - 20, 2 * LARGEST_PDU + 20),
    st.sampled_from([0, 0xFFFFFFFF]) | st.integers(1000, 2 * LARGEST_PDU),
    st.sampled_from([bytes, memoryview, bytearray, BytesIO]),
)
def test_the_octets_are_the_same_wherever_the_data_set_is(length, limit, make):
    """In memory it is not copied, and from a file it is read behind the head of its PDU."""
    data_set = (b"0123456789abcdef" * (length // 16 + 1))[:length]
    expected = as_the_tables_say(store(data_set), data_set, limit)
    pieces: list[Any] = []
    for pdu in cut_up(store(make(data_set)), context_id=1, limit=limit):
        pieces += pdu if isinstance(pdu, tuple) else [pdu]
    assert b"".join(pieces) == expected
    assert b"".join(fragment(store(make(data_set)), context_id=1, limit=limit)) == expected


def test_a_data_set_in_memory_is_not_copied():
    """An image has half a mebibyte, and a study a thousand of them; each copy costs as much as reading the file."""
    data_set = bytes(4 * (LARGEST_PDU - 6))
    tracemalloc.start()
    try:
        pdus = list(cut_up(store(data_set), context_id=1, limit=0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    views = [pdu[1] for pdu in pdus if isinstance(pdu, tuple)]
    assert sum(map(len, views)) == len(data_set)
    assert all(view.obj is data_set for view in views)
    assert peak < 10_000


class Trickle(RawIOBase):
    """A file that gives a few octets at a time, and counts what it gave."""

    def __init__(self, data: bytes, most: int) -> None:
        self.data, self.most, self.given = data, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self.most, len(self.data) - self.given)
        buffer[:size] = self.data[self.given : self.given + size]
        self.given += size
        return size


class Plain:
    """What has ``read`` and nothing else."""

    def __init__(self, data: bytes) -> None:
        self.file = BytesIO(data)

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, 5))


@pytest.mark.parametrize("size", [0, 2, 10, 42, 250, 252])
@pytest.mark.parametrize("make", [lambda data: Trickle(data, 7), Plain, BytesIO, memoryview])
def test_short_reads_do_not_make_short_fragments(make, size):
    """A pipe or a socket gives what it has: fragments are filled nevertheless."""
    data = bytes(range(size))
    cut = pdvs(fragment(store(make(data)), context_id=1, limit=48))[1:]
    data_fragments = [value for _, header, value in cut if not header & 1]
    assert b"".join(data_fragments) == data
    assert all(len(value) == 42 for value in data_fragments[:-1])


def test_a_file_is_read_as_pdus_are_asked_for():
    """A data set of any size costs two fragments of memory, not its length."""
    source = Trickle(bytes(1000), 1000)
    pdus = fragment(store(source), context_id=1, limit=106)
    next(pdus)
    assert source.given == 0
    next(pdus)
    assert source.given <= 2 * 100
    for _ in range(3):
        next(pdus)
    assert source.given <= 5 * 100


class Endless(RawIOBase):
    """A data set of many megabytes that exists nowhere."""

    left = 64 << 20

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self.left)
        self.left -= size
        return size


def test_a_large_data_set_costs_the_memory_of_its_fragments():
    """64 MiB go out through three PDUs of memory."""
    tracemalloc.start()
    try:
        sent = sum(len(pdu) for pdu in fragment(store(Endless()), context_id=1, limit=0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent > 64 << 20
    assert peak < 4 * LARGEST_PDU


def test_what_does_not_fit_its_element_is_refused_before_anything_is_sent():
    """A half-sent message could not be taken back."""
    with pytest.raises(LocalProtocolError):
        next(fragment(CEchoRQ(affected_sop_class_uid="1.2"), context_id=1, limit=0))


@pytest.mark.parametrize("limit", [0, 16382, 20, 50])
def test_the_bytes_are_pynetdicoms(limit):
    """A second reading of PS3.8 Annex E, by another implementation."""
    identifier = bytes(range(200))
    primitive = dimse_primitives.C_FIND()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.2.2.1"
    primitive.Priority = 2
    primitive.Identifier = BytesIO(identifier)
    theirs = dimse_messages.C_FIND_RQ()
    theirs.primitive_to_message(primitive)
    ours = CFindRQ(
        message_id=7,
        affected_sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1",
        priority=2,
        data_set=identifier,
    )
    assert [bytes(pdu) for pdu in fragment(ours, context_id=3, limit=limit)] == [
        P_DATA_TF(pdata).encode() for pdata in theirs.encode_msg(3, limit)
    ]


# -- in -------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.lists(st.tuples(messages, odd_ids, st.integers(8, 200)), max_size=4), st.data())
def test_any_cut_of_the_stream_gives_the_same_messages(things, data):
    """Neither TCP's cutting nor the peer's PDU sizes show in a message."""
    stream = b"".join(
        bytes(pdu)
        for message, context_id, limit in things
        for pdu in fragment(message, context_id=context_id, limit=limit)
    )
    under_test = reader()
    assert received(under_test, data.draw(cuts(stream))) == [
        (context_id, replace(message, data_set=None), message.data_set)
        for message, context_id, _ in things
    ]
    assert under_test.is_between_messages


def test_messages_behind_each_other_in_one_pdu_are_all_received():
    """PS3.8 E.2: the ancestor left its loop at the first last fragment, and lost the rest."""
    command = encode_command(ECHO)
    with_data = encode_command(store(b"ab"))
    first, last = (1, 3, command), (1, 3, command)
    pdu = p_data_tf([first, (3, 1, with_data[:10]), (3, 3, with_data[10:]), (3, 2, b"ab"), last])
    assert received(reader(), [pdu]) == [(1, ECHO, None), (3, store(None), b"ab"), (1, ECHO, None)]


def test_a_data_set_goes_to_its_sink_while_it_arrives():
    """A data set is a stream: nothing but the command set is collected here."""
    sinks = Sinks()
    under_test = MessageReader((1,), sinks)
    assert under_test.receive(Fragment(1, True, True, encode_command(store(b"ab")))) is None
    assert sinks.opened == [(1, store(None))]
    sink = under_test.sink
    assert isinstance(sink, BytesIO)
    for n, piece in enumerate((b"ab", b"cd", b"")):
        assert under_test.receive(Fragment(1, False, False, memoryview(piece))) is None
        assert sink.getvalue() == b"abcd"[: 2 * n + 2]
    assert not under_test.is_between_messages
    assert under_test.receive(Fragment(1, False, True, b"")) == (1, store(None), sink)
    assert under_test.is_between_messages
    assert under_test.sink is None


def test_no_sink_is_opened_for_a_message_without_data_set():
    """PS3.7 Annex E (0000,0800): 0101H ends the message with its command set."""
    sinks = Sinks()
    under_test = MessageReader((1,), sinks)
    assert under_test.receive(Fragment(1, True, True, encode_command(ECHO))) == (1, ECHO, None)
    assert sinks.opened == []


def test_what_the_sink_raises_comes_out():
    """A full disk is its caller's affair, and no fault of the peer."""

    class Full:
        def write(self, data: memoryview) -> None:
            raise OSError("no space left")

    under_test = MessageReader((1,), lambda context_id, message: Full())
    under_test.receive(Fragment(1, True, True, encode_command(store(b"ab"))))
    with pytest.raises(OSError, match="no space"):
        under_test.receive(Fragment(1, False, True, b"ab"))


COMMAND = encode_command(store(b"ab"))
WRONG = {
    "a context that was not accepted": ([(5, 3, COMMAND)], 5, "context 5, which was not accepted"),
    "context 0": ([(0, 3, COMMAND)], 5, "context 0, which was not accepted"),
    "context 0 inside a message": ([(1, 1, COMMAND), (0, 3, b"")], 5, "context 0"),
    "a data set without command set": ([(1, 2, b"ab")], 5, "context 1 before a command set"),
    "a data set inside a command set": (
        [(1, 1, COMMAND[:10]), (1, 2, b"ab")],
        5,
        "context 1 before a command set",
    ),
    "a command set inside a data set": (
        [(1, 3, COMMAND), (1, 0, b"ab"), (1, 3, COMMAND)],
        5,
        "command set on context 1 inside a data set",
    ),
    "another context inside a command set": (
        [(1, 1, COMMAND[:10]), (3, 3, COMMAND[10:])],
        5,
        "context 3 inside a message on context 1",
    ),
    "another context inside a data set": (
        [(1, 3, COMMAND), (3, 2, b"ab")],
        5,
        "context 3 inside a message on context 1",
    ),
    "a data set behind a message without one": (
        [(1, 3, encode_command(ECHO)), (1, 2, b"ab")],
        5,
        "context 1 before a command set",
    ),
    "a command set that cannot be read": ([(1, 3, COMMAND[12:-1])], 6, "says 6 octets, 5 are left"),
    "a command set without an end": (
        [(1, 1, bytes(1024))] * (COMMAND_SET_LIMIT // 1024 + 1),
        6,
        "command set of more than 65536 octets on context 1",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_fragment_that_breaks_annex_e_is_refused(what):
    """PS3.8 E.2 and Table 9-26: no interleaving, no data set without its command set."""
    items, reason, message = WRONG[what]
    with pytest.raises(DIMSEProcessingError, match=message) as caught:
        received(reader(1, 3), [p_data_tf([item]) for item in items])
    assert caught.value.abort_reason == reason


def test_a_command_set_may_fill_its_limit():
    """The bound is on the command set alone, and is far above what is in use."""
    long = CEchoRSP(
        message_id_being_responded_to=1,
        status=0,
        attribute_identifier_list=(0x00100010,) * 16_000,
    )
    size = len(encode_command(long))
    assert COMMAND_SET_LIMIT - 2000 < size < COMMAND_SET_LIMIT
    pdus = fragment(long, context_id=1, limit=0)
    assert received(reader(), map(bytes, pdus)) == [(1, long, None)]


def test_an_endless_command_set_does_not_fill_memory():
    """Fragments without an end stop at the bound."""
    under_test = reader()
    for _ in range(EMPTY_PDV_LIMIT):
        assert under_test.receive(Fragment(1, True, False, b"")) is None
    endless = (Fragment(1, True, False, bytes(4096)) for _ in range(10_000))
    tracemalloc.start()
    try:
        with pytest.raises(DIMSEProcessingError):
            list(map(under_test.receive, endless))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * COMMAND_SET_LIMIT


@pytest.mark.parametrize("part", ["command set", "data set"])
def test_a_flood_of_pdvs_without_a_value_is_refused(part):
    """PS3.8 Annex E admits some; each costs what a full one costs, and brings nothing."""
    under_test = reader()
    is_command = part == "command set"
    if not is_command:
        under_test.receive(Fragment(1, True, True, encode_command(store(b"ab"))))
    empty = Fragment(1, is_command, False, b"")
    for _ in range(EMPTY_PDV_LIMIT):
        assert under_test.receive(empty) is None
    with pytest.raises(DIMSEProcessingError, match="more than 64 PDVs without a value") as caught:
        under_test.receive(empty)
    assert caught.value.abort_reason == 6


def test_each_message_may_have_pdvs_without_a_value():
    """The bound is for a message; a long association is not punished for them."""
    under_test = reader()
    for _ in range(100):
        for _ in range(EMPTY_PDV_LIMIT):
            assert under_test.receive(Fragment(1, True, False, b"")) is None
        assert under_test.receive(Fragment(1, True, True, encode_command(ECHO))) == (1, ECHO, None)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.sampled_from((0, 1, 2, 3)), st.integers(0, 3), st.binary(max_size=40)),
        max_size=8,
    )
)
def test_arbitrary_fragments_are_messages_or_a_processing_error(items):
    """Nothing else is raised by what a peer sends."""
    under_test = reader(1, 3)
    with suppress(DIMSEProcessingError):
        received(under_test, [p_data_tf([item]) for item in items])


@pytest.mark.slow
@given(messages, odd_ids, st.data())
def test_a_message_with_a_damaged_octet_is_a_message_or_a_processing_error(
    message, context_id, data
):
    """Wherever in the command set or the data set it is."""
    pdus = [bytes(pdu) for pdu in fragment(message, context_id=context_id, limit=64)]
    number = data.draw(st.integers(0, len(pdus) - 1))
    damaged = bytearray(pdus[number])
    damaged[data.draw(st.integers(10, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    pdus[number] = bytes(damaged)
    with suppress(DIMSEProcessingError):
        received(reader(), pdus)


def test_the_header_of_a_pdu_is_by_hand_the_same():
    """PS3.8 Tables 9-22 and 9-23, the golden bytes of one small PDU."""
    command = encode_command(ECHO)
    (pdu,) = fragment(ECHO, context_id=5, limit=0)
    assert bytes(pdu) == (
        b"\x04\x00" + struct.pack(">II", len(command) + 6, len(command) + 2) + b"\x05\x03" + command
    )
