"""DIMSE messages and their command sets against PS3.7 6.3, 9, 10, C and E, pydicom and pynetdicom."""

import json
import struct
from contextlib import suppress
from dataclasses import fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pynetdicom import dimse_messages, dimse_primitives

from netdicom_tx import dimsemessages as dimse
from netdicom_tx.dimsemessages import (
    ELEMENTS,
    MESSAGE_TYPE,
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRSP,
    CMoveRQ,
    CStoreRQ,
    CStoreRSP,
    Message,
    NActionRQ,
    NActionRSP,
    NCreateRQ,
    NGetRQ,
    NSetRQ,
    Priority,
    Request,
    Response,
    UnknownRQ,
    UnknownRSP,
    decode_command,
    encode_command,
)
from netdicom_tx.exceptions import DIMSEProcessingError, LocalProtocolError
from netdicom_tx.statuses import Status
from support.strategies import KINDS, data_sets, messages, messages_of, uids

TABLES = json.loads((Path(__file__).parent / "standard" / "dimse_commands.json").read_text())
BY_FIELD = {int(entry["command_field"], 16): name for name, entry in TABLES["messages"].items()}
KEYWORD = {name: element.keyword for name, element in ELEMENTS.items()}
#: What the codec itself writes.
PROTOCOL = {"CommandGroupLength", "CommandField", "CommandDataSetType"}
#: PS3.7 Annex C: any response may carry them, depending on its status.
EXPLAINING = {"OffendingElement", "ErrorComment", "ErrorID", "AttributeIdentifierList"}

ECHO = CEchoRQ(message_id=7, affected_sop_class_uid="1.2.840.10008.1.1")
#: PS3.7 9.3.5.1 by hand: group length, affected SOP class, field, message ID, no data set.
ECHO_BYTES = bytes.fromhex(
    "00000000 04000000 38000000"
    "00000200 12000000 312e322e3834302e31303030382e312e3100"
    "00000001 02000000 3000"
    "00001001 02000000 0700"
    "00000008 02000000 0101"
)


def elements(data: bytes) -> dict[int, bytes]:
    """A command set taken apart by its grammar: element number -> value, in the order it has."""
    found: dict[int, bytes] = {}
    while data:
        group, number, length = struct.unpack_from("<HHI", data)
        assert group == 0
        assert number not in found
        assert len(data) >= 8 + length
        found[number], data = data[8 : 8 + length], data[8 + length :]
    return found


def command(**values: Any) -> bytes:
    """A command set out of (element number, value) pairs: for input that is wrong."""
    return b"".join(
        struct.pack("<HHI", 0, int(number[1:], 16), len(value)) + value
        for number, value in values.items()
    )


def us(value: int) -> bytes:
    return struct.pack("<H", value)


# -- the standard's tables ------------------------------------------------------------------------


def test_the_23_messages_are_there():
    """PS3.7 Tables 9.1-1, 10.1-1 and Annex E: each by its Command Field."""
    fields = {name: int(code, 16) for name, code in TABLES["command_fields"].items()}
    assert len(MESSAGE_TYPE) == 23
    assert set(MESSAGE_TYPE) == set(fields.values())
    for name, code in fields.items():
        kind = MESSAGE_TYPE[code]
        assert kind.__name__ == name.title().replace("-", "").replace("Rq", "RQ").replace(
            "Rsp", "RSP"
        )
        assert code == kind.COMMAND_FIELD
        assert name.startswith(kind.OPERATION)


def test_the_elements_are_those_of_annex_e():
    """PS3.7 Annex E.1: tag and keyword of every element that is not retired."""
    table = {
        entry["keyword"]: int(entry["tag"].split(",")[1], 16)
        for entry in TABLES["command_elements"].values()
        if entry["keyword"] != "CommandGroupLength"
    }
    assert {e.keyword: e.number for e in ELEMENTS.values()} == table
    assert [e.number for e in ELEMENTS.values()] == sorted(table.values())


SAMPLES = {"UI": "1.2.3", "US": 513, "AE": "TITLE", "LO": "why", "AT": (0x00100020, 0x7FE00010)}


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_element_is_written_by_its_value_representation(name):
    """PS3.7 Annex E.1 gives the VR, PS3.5 its bytes; pydicom writes the same."""
    element = ELEMENTS[name]
    vr = TABLES["command_elements"][element.keyword]["vr"]
    value = SAMPLES[vr]
    data_set = Dataset()
    data_set.add_new(Tag(0, element.number), vr, list(value) if isinstance(value, tuple) else value)
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, True
    write_dataset(written, data_set)
    (expected,) = elements(written.getvalue()).values()
    assert element.encode(value) == expected
    assert element.decode(expected) == value


def names(kind: type[Message], *, mandatory: bool = False) -> list[str]:
    """The fields that stand for elements; the mandatory ones have no default of None."""
    return [
        field.name
        for field in fields(kind)
        if field.name in ELEMENTS
        and not (mandatory and field.default is None and field.name != "message_id")
    ]


def sample(kind: type[Message], names: list[str]) -> Message:
    vrs = {name: TABLES["command_elements"][KEYWORD[name]]["vr"] for name in names}
    return kind(**{name: SAMPLES[vr] for name, vr in vrs.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_has_the_elements_of_the_standard(kind):
    """PS3.7 9.3 and 10.3, table by table: all that are listed, mandatory ones always."""
    listed = {
        entry["keyword"]: entry
        for entry in TABLES["messages"][BY_FIELD[kind.COMMAND_FIELD]]["elements"]
    }
    numbers = {TABLES["command_elements"][k]["tag"]: k for k in TABLES["command_elements"]}

    def keywords(message: Message) -> set[str]:
        return {numbers[f"0000,{number:04X}"] for number in elements(encode_command(message))}

    extra = EXPLAINING if issubclass(kind, Response) else set()
    assert keywords(sample(kind, names(kind))) == set(listed) | extra
    mandatory = {keyword for keyword, entry in listed.items() if entry["usage"] == "M"}
    assert keywords(sample(kind, names(kind, mandatory=True))) == mandatory


@pytest.mark.parametrize("kind", KINDS)
def test_command_field_and_group_length_are_the_codecs(kind):
    """PS3.7 6.3.1 and Annex E: ascending, even, and the group length counts what follows it."""
    data = encode_command(sample(kind, names(kind)))
    found = elements(data)
    assert list(found) == sorted(found)
    assert all(len(value) % 2 == 0 for value in found.values())
    assert struct.unpack("<I", found[0x0000]) == (len(data) - 12,)
    assert found[0x0100] == us(kind.COMMAND_FIELD)


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_set_type_says_whether_a_data_set_follows(kind):
    """PS3.7 Annex E: 0101H means none, anything else that there is one."""
    message = sample(kind, names(kind))
    assert elements(encode_command(message))[0x0800] == us(0x0101)
    assert decode_command(encode_command(message)) == (message, False)
    data = encode_command(replace(message, data_set=b"ab"))
    assert elements(data)[0x0800] != us(0x0101)
    assert decode_command(data) == (message, True)


@pytest.mark.parametrize("data_set_type", [0x0000, 0x0001, 0x0102, 0xFFFF])
def test_any_other_data_set_type_means_that_one_follows(data_set_type):
    """PS3.7 Annex E (0000,0800): peers send 0000, 0001, 0102."""
    data = bytearray(ECHO_BYTES)
    data[-2:] = us(data_set_type)
    assert decode_command(bytes(data)) == (ECHO, True)


def test_priorities_are_the_standards():
    """PS3.7 Annex E (0000,0700)."""
    words = {priority.value: priority.name.lower() for priority in Priority}
    assert words == {int(code, 16): word for code, word in TABLES["priority"].items()}
    assert dimse.PRIORITY_LOW is Priority.LOW
    assert CStoreRQ(affected_sop_class_uid="1", affected_sop_instance_uid="2").priority == 0


@pytest.mark.parametrize("operation", TABLES["statuses_per_service"])
def test_a_response_can_carry_what_its_statuses_ask_for(operation):
    """PS3.7 Annex C: each status has elements that explain it."""
    field = int(TABLES["command_fields"][f"{operation}-RSP"], 16)
    ours = {KEYWORD[name] for name in names(MESSAGE_TYPE[field])}
    # The standard lists the type ID of an event and of an action beside each other.
    not_here = {"EventTypeID", "ActionTypeID"} - {
        "N-EVENT-REPORT": {"EventTypeID"},
        "N-ACTION": {"ActionTypeID"},
    }.get(operation, set())
    for code in TABLES["statuses_per_service"][operation]["general"]:
        asked = set(TABLES["general_statuses"][code]["elements"]) & set(TABLES["command_elements"])
        instance = set() if "AffectedSOPInstanceUID" in ours else {"AffectedSOPInstanceUID"}
        assert asked - not_here - instance <= ours, code


# -- bytes ----------------------------------------------------------------------------------------


def test_a_c_echo_is_these_bytes():
    """PS3.7 9.3.5.1, written down by hand from the table."""
    assert encode_command(ECHO) == ECHO_BYTES
    assert decode_command(ECHO_BYTES) == (ECHO, False)


@pytest.mark.slow
@given(messages)
def test_what_was_encoded_is_read_again(message):
    """PS3.7 6.3.1: every message, with and without its optional elements."""
    read, has_data_set = decode_command(encode_command(message))
    assert has_data_set == (message.data_set is not None)
    assert type(read) is type(message)
    assert read == replace(message, data_set=None)


@pytest.mark.slow
@given(messages)
def test_pydicom_writes_the_same_bytes(message):
    """A second encoder of implicit VR little endian, with the dictionary of PS3.7 Annex E."""
    data_set = Dataset()
    for name, keyword in KEYWORD.items():
        value = getattr(message, name, None)
        if value is not None:
            setattr(data_set, keyword, list(value) if isinstance(value, tuple) else value)
    data_set.CommandDataSetType = 0x0101 if message.data_set is None else 0x0001
    body = DicomBytesIO()
    body.is_little_endian, body.is_implicit_VR = True, True
    write_dataset(body, data_set)
    length = len(body.getvalue())
    assert encode_command(message) == struct.pack("<HHII", 0, 0, 4, length) + body.getvalue()


@pytest.mark.slow
@given(messages)
def test_pydicom_reads_the_same_values(message):
    """And a second decoder."""
    read = read_dataset(BytesIO(encode_command(message)), True, True)
    assert read.CommandField == message.command_field
    for name, keyword in KEYWORD.items():
        value = getattr(message, name, None)
        if isinstance(value, int):
            assert read[keyword].value == value


def their_slot(kind: type[Message]) -> str | None:
    """What pynetdicom calls the data set of a message: PS3.7's name for it."""
    entry = TABLES["messages"][BY_FIELD[kind.COMMAND_FIELD]]["data_set"]
    return entry["name"] and entry["name"].replace(" ", "")


def both_ways() -> list[tuple[type[Message], bool]]:
    """Each message with and without a data set, as far as PS3.7 allows."""
    presence = {
        kind: TABLES["messages"][BY_FIELD[kind.COMMAND_FIELD]]["data_set"]["presence"]
        for kind in KINDS
    }
    return [
        (kind, has_data_set)
        for kind in KINDS
        for has_data_set in (False, True)
        if presence[kind] != ("never" if has_data_set else "always")
    ]


@pytest.mark.parametrize(("kind", "has_data_set"), both_ways())
def test_the_bytes_are_pynetdicoms(kind, has_data_set):
    """A second reading of PS3.7 9.3 and 10.3, by another implementation."""
    name = BY_FIELD[kind.COMMAND_FIELD].replace("-", "_")
    service = "C_CANCEL" if kind is CCancelRQ else name.rpartition("_")[0]
    primitive = getattr(dimse_primitives, service)()
    listed = {e["keyword"] for e in TABLES["messages"][BY_FIELD[kind.COMMAND_FIELD]]["elements"]}
    # pynetdicom gives an explaining element with some statuses only.
    ours = sample(kind, [n for n in names(kind) if KEYWORD[n] in listed])
    if "status" in names(kind):
        ours = replace(ours, status=0xFF00)
    if "priority" in names(kind):
        ours = replace(ours, priority=2)
    for field in names(kind):
        value = getattr(ours, field)
        if value is not None:
            value = list(value) if isinstance(value, tuple) else value
            setattr(primitive, KEYWORD[field], value)
    if has_data_set:
        ours = replace(ours, data_set=b"ab")
        setattr(primitive, their_slot(kind), BytesIO(b"ab"))
    theirs = getattr(dimse_messages, name)()
    theirs.primitive_to_message(primitive)
    (their_pdata, *_) = theirs.encode_msg(1, 0)
    ((_, their_value),) = their_pdata.presentation_data_value_list
    assert encode_command(ours) == their_value[1:]


# -- values ---------------------------------------------------------------------------------------


def test_a_message_id_is_counted_by_the_association_before_it_is_sent():
    """A request without an ID is a request that was never sent."""
    with pytest.raises(LocalProtocolError, match="Message ID"):
        encode_command(CEchoRQ(affected_sop_class_uid="1.2"))
    with pytest.raises(LocalProtocolError, match="never sent"):
        CEchoRQ(affected_sop_class_uid="1.2").response(0)


@pytest.mark.parametrize(
    "message",
    [
        CEchoRQ(message_id=65536, affected_sop_class_uid="1.2"),
        CEchoRQ(message_id=-1, affected_sop_class_uid="1.2"),
        CEchoRQ(message_id=1, affected_sop_class_uid="1.2.\u0663"),
        CEchoRQ(message_id="1", affected_sop_class_uid="1.2"),  # type: ignore[arg-type]
        CEchoRSP(message_id_being_responded_to=1, status=0x10000),
        NGetRQ(
            message_id=1,
            requested_sop_class_uid="1",
            requested_sop_instance_uid="2",
            attribute_identifier_list=(1 << 32,),
        ),
    ],
)
def test_a_value_that_does_not_fit_is_our_callers_mistake(message):
    """PS3.7 Annex E: the message names the element, so that the caller can find it."""
    with pytest.raises(
        LocalProtocolError, match=rf"{message.OPERATION}: \w+ \(0000,[0-9A-F]{{4}}\)"
    ):
        encode_command(message)


@pytest.mark.parametrize(
    ("comment", "sent"),
    [
        ("plain", b"plain "),
        ("two\nlines", b"two\\nlines".replace(b"\\", b"/")),
        ("a\\b", b"a/b "),
        ("x" * 100, b"x" * 64),
        ("Störung", b"Storung "),
        ("sto\u0308ren", b"storen "),
        ("Größe über ½ \N{EM DASH} “Łódź”", b'Grosse uber 1/2 - "Lodz" '),
        ("患者 unknown", b"<U+60A3><U+8005> unknown "),
        ("no\N{NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}  break", b"no break "),
        ("\x1b[2J", b"/x1b[2J "),
        ("no presentation context was accepted for CT Image Storage with JPEG", None),
        ("/archive/" + "d" * 80, b"/archive/" + b"d" * 55),
        ("it is " + "y" * 80, b"it is " + b"y" * 58),
        ("x" * 60 + "患者", b"x" * 60),
        ("患" * 80, b"<U+60A3>" * 8),
        ("", b""),
    ],
)
def test_an_error_comment_is_a_long_string(comment, sent):
    """PS3.5 6.2 LO: at most 64 characters, no backslash, no control characters; ISO 646 here.

    Nothing becomes a question mark, and a longer one ends behind a word.
    """
    if sent is None:
        sent = b"no presentation context was accepted for CT Image Storage with"
    message = CEchoRSP(message_id_being_responded_to=1, status=0x0110, error_comment=comment)
    value = elements(encode_command(message))[0x0902]
    assert value.rstrip() == sent.rstrip()
    assert len(value) <= 64
    assert b"\\" not in value


@pytest.mark.parametrize("value", [b"1.2.3\0", b"1.2.3 ", b"1.2.3\0\0\0", b"1.2.3"])
def test_a_uid_is_read_without_its_padding(value):
    """PS3.5 9.4: one trailing NUL; some peers send a space, or an odd length."""
    data = command(x0002=value, x0100=us(0x30), x0110=us(1), x0800=us(0x0101))
    message, _ = decode_command(data)
    assert message.sop_class_uid == "1.2.3"


def test_a_message_knows_its_sop_class_and_instance():
    """Affected or requested, whichever it has."""
    affected = NCreateRQ(affected_sop_class_uid="1.2", affected_sop_instance_uid="1.3")
    requested = NSetRQ(requested_sop_class_uid="1.4", requested_sop_instance_uid="1.5")
    assert (affected.sop_class_uid, affected.sop_instance_uid) == ("1.2", "1.3")
    assert (requested.sop_class_uid, requested.sop_instance_uid) == ("1.4", "1.5")
    cancel = CCancelRQ(message_id_being_responded_to=1)
    assert (cancel.sop_class_uid, cancel.sop_instance_uid) == (None, None)


def test_the_data_set_does_not_show():
    """No patient data in a log line, nor a gigabyte."""
    assert "DOE" not in repr(CFindRQ(affected_sop_class_uid="1.2", data_set=b"DOE^JOHN"))


# -- responses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in KINDS if issubclass(k, Request)])
@settings(max_examples=20)
@given(data=st.data())
def test_a_response_answers_its_request(kind, data):
    """PS3.7 9.1 and 10.1: field, Message ID Being Responded To, and the UIDs marked (=)."""
    request = data.draw(messages_of(kind, data_sets))
    response = request.response(Status(0x0110), error_comment="why")
    assert response.command_field == request.command_field | 0x8000
    assert response.operation == request.OPERATION == response.OPERATION
    assert response.message_id_being_responded_to == request.message_id
    assert response.status == 0x0110
    assert response.affected_sop_class_uid == request.sop_class_uid
    assert response.error_comment == "why"
    if "affected_sop_instance_uid" in names(type(response)):
        assert response.affected_sop_instance_uid == request.sop_instance_uid


def test_a_response_keeps_what_its_maker_says():
    """The performer of an N-CREATE may assign the instance UID (PS3.7 10.3.5.2)."""
    request = NCreateRQ(message_id=1, affected_sop_class_uid="1.2")
    response = request.response(0, b"ab", affected_sop_instance_uid="9.9")
    assert response.affected_sop_instance_uid == "9.9"
    assert response.data_set == b"ab"
    named = replace(request, affected_sop_instance_uid="1.3")
    assert named.response(0).sop_instance_uid == "1.3"
    assert named.response(0, affected_sop_instance_uid="9.9").sop_instance_uid == "9.9"
    action = NActionRQ(
        message_id=2, requested_sop_class_uid="1", requested_sop_instance_uid="2", action_type_id=3
    ).response(0, action_type_id=3)
    assert isinstance(action, NActionRSP)
    assert action.action_type_id == 3


@pytest.mark.parametrize("wrong", [0.0, "0", 0x10000, -1])
def test_a_response_that_recurs_is_checked_each_time(wrong):
    """What was written before does not stand for a value that only looks like it."""
    response = CEchoRQ(message_id=7, affected_sop_class_uid="1.2").response(0)
    assert encode_command(response) == encode_command(response)
    for field in ("status", "message_id_being_responded_to"):
        with pytest.raises(LocalProtocolError):
            encode_command(replace(response, **{field: wrong}))
    with pytest.raises(LocalProtocolError, match="AffectedSOPClassUID"):
        encode_command(replace(response, affected_sop_class_uid=["1.2"]))  # type: ignore[arg-type]


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_command_sets_are_read_one_after_the_other_as_each_by_itself(several, data):
    """Whatever came before, also where a command set differs from it in a few octets."""
    for message in several:
        encoded = bytearray(encode_command(message))
        for _ in range(4):
            sent = bytes(encoded)
            try:
                expected = dimse._decode_command(sent)
            except DIMSEProcessingError:
                with pytest.raises(DIMSEProcessingError):
                    decode_command(sent)
            else:
                read = decode_command(sent)
                assert read == expected
                assert read[0].deviations == expected[0].deviations
            at = data.draw(st.integers(0, len(encoded) - 1))
            encoded[at] = data.draw(st.integers(0, 255))


def test_a_command_set_that_differs_in_its_message_id_is_read_by_that(monkeypatch):
    """A peer that sends the same request again and again costs little."""
    decode_command(encode_command(CEchoRQ(message_id=1, affected_sop_class_uid="1.2")))
    monkeypatch.setattr(dimse, "_decode_command", None)
    again = CEchoRQ(message_id=3, affected_sop_class_uid="1.2")
    first, second = (decode_command(encode_command(again)) for _ in range(2))
    assert first == second == (again, False)
    assert first[0] is not second[0]


def test_a_message_id_that_comes_twice_is_looked_at_each_time():
    """The same element twice is one, as long as both say the same."""
    twice = command(x0002=b"1.2\0", x0100=us(0x0030), x0110=us(5), x0800=us(0x0101))
    doubled = twice[12:] + struct.pack("<HHIH", 0, 0x0110, 2, 5)
    for _ in range(2):
        assert decode_command(doubled)[0].message_id == 5
    with pytest.raises(DIMSEProcessingError, match="twice"):
        decode_command(doubled.replace(us(5), us(6), 1))


def test_long_and_odd_command_sets_are_not_kept():
    """What peers send fills no memory."""
    before = dict(dimse._kept)
    decode_command(encode_command(CEchoRQ(message_id=1, affected_sop_class_uid="1" * 2000)))
    decode_command(command(x0002=b"", x0100=us(0x0030), x0110=us(5), x0800=us(0x0101)))
    assert dimse._kept == before


@given(uids)
def test_an_unknown_request_can_be_answered(uid):
    """PS3.7 C.5.23: 0x0211 unrecognized operation; the association lives on."""
    data = command(x0002=uid.encode(), x0100=us(0x0777), x0110=us(5), x0800=us(0x0101))
    request, has_data_set = decode_command(data)
    assert request == UnknownRQ(message_id=5, request_field=0x0777, affected_sop_class_uid=uid)
    assert (request.command_field, has_data_set) == (0x0777, False)
    response = request.response(0x0211)
    assert isinstance(response, UnknownRSP)
    found = elements(encode_command(response))
    assert found[0x0100] == us(0x8777)
    assert found[0x0120] == us(5)
    assert found[0x0900] == us(0x0211)
    assert found[0x0002].rstrip(b"\0") == uid.encode()


def test_a_cancel_has_no_response():
    """PS3.7 9.3.2.3: it is a request that is never answered; the ancestor made it a response."""
    assert not issubclass(CCancelRQ, Request | Response)
    assert 0x8FFF not in MESSAGE_TYPE


def test_only_a_sub_operation_has_a_move_originator():
    """PS3.7 9.3.1.1: the ancestor sent it with every C-STORE."""
    plain = CStoreRQ(message_id=1, affected_sop_class_uid="1", affected_sop_instance_uid="2")
    assert not {0x1030, 0x1031} & set(elements(encode_command(plain)))


# -- what a peer does wrong -----------------------------------------------------------------------

RQ = {"x0002": b"1.2\0", "x0100": us(0x30), "x0110": us(1), "x0800": us(0x0101)}


def counted(**values: Any) -> bytes:
    """A command set with the group length that is right."""
    body = command(**values)
    return command(x0000=struct.pack("<I", len(body))) + body


def without(number: str) -> bytes:
    return command(**{k: v for k, v in RQ.items() if k != number})


WRONG = {
    "stray octets": (command(**RQ) + b"\0" * 7, "7 stray octets"),
    "another group": (command(**RQ) + struct.pack("<HHI", 8, 0x18, 0), r"\(0008,0018\)"),
    "an element that is cut": (command(**RQ)[:-1], r"\(0000,0800\) says 2 octets, 1 are left"),
    "an element of 4 GiB": (
        struct.pack("<HHI", 0, 0x0902, 0xFFFFFFFF),
        r"\(0000,0902\) says 4294967295 octets, 0 are left",
    ),
    "an element twice": (command(**RQ) + command(x0110=us(2)), r"\(0000,0110\) comes twice"),
    "no Command Field": (without("x0100"), "lacks Command Field or Command Data Set Type"),
    "no Data Set Type": (without("x0800"), "lacks Command Field or Command Data Set Type"),
    "a Command Field of 1 octet": (command(**{**RQ, "x0100": b"0"}), "US of 1 octets; expected 2"),
    "a Data Set Type without a value": (command(**{**RQ, "x0800": b""}), "US of 0 octets"),
    "no Message ID": (without("x0110"), r"C-ECHO 0030H lacks MessageID \(0000,0110\)"),
    "a Message ID of 1 octet": (
        command(**{**RQ, "x0110": b"\1"}),
        r"lacks MessageID \(0000,0110\)",
    ),
    "a Message ID without a value": (command(**{**RQ, "x0110": b""}), r"lacks MessageID"),
    "an element behind the group": (
        counted(**RQ) + struct.pack("<HHI", 8, 0x18, 0),
        r"C-ECHO 0030H: element \(0008,0018\) stands behind group 0000",
    ),
    "octets behind the group": (counted(**RQ) + b"\0" * 7, "7 stray octets stand behind"),
    "a cancel of nothing": (command(x0100=us(0x0FFF), x0800=us(0x0101)), "lacks MessageIDBeing"),
    "a response without a status": (
        command(x0100=us(0x8030), x0120=us(1), x0800=us(0x0101)),
        r"lacks Status \(0000,0900\)",
    ),
    "a response to nothing": (
        command(x0100=us(0x8030), x0800=us(0x0101), x0900=us(0)),
        r"lacks MessageIDBeingRespondedTo \(0000,0120\)",
    ),
    "nothing at all": (b"", "lacks Command Field"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_command_set_is_refused(what):
    """PS3.7 6.3: what cannot be read cannot be answered; the association is aborted."""
    data, message = WRONG[what]
    with pytest.raises(DIMSEProcessingError, match=message) as caught:
        decode_command(data)
    assert caught.value.abort_reason == 6


def test_an_unknown_response_is_refused():
    """PS3.8 Table 9-26: nobody asked for it; unrecognized parameter."""
    data = command(x0100=us(0x8777), x0120=us(1), x0800=us(0x0101), x0900=us(0))
    with pytest.raises(DIMSEProcessingError, match="response 8777H") as caught:
        decode_command(data)
    assert caught.value.abort_reason == 4


def test_retired_and_unknown_elements_are_skipped():
    """PS3.7 E.2: old peers send Length to End, Initiator and Receiver."""
    retired = {int(e["tag"][5:], 16) for e in TABLES["retired_command_elements"].values()}
    assert {0x0001, 0x0200, 0x0300} <= retired
    data = command(
        x0001=b"\0" * 4,
        **RQ,
        **{f"x{number:04X}": b"ab" for number in sorted(retired - {1})},
        xFFFF=b"??",
    )
    message, _ = decode_command(data)
    assert message == CEchoRQ(message_id=1, affected_sop_class_uid="1.2")


def test_a_group_length_may_be_missing():
    """PS3.7 Annex E demands it; nothing depends on it."""
    assert decode_command(ECHO_BYTES[12:]) == (ECHO, False)


@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_a_message_or_a_processing_error(data):
    """Nothing else is raised."""
    with suppress(DIMSEProcessingError):
        decode_command(data)


@pytest.mark.slow
@given(messages, st.data())
def test_a_damaged_command_set_is_a_message_or_a_processing_error(message, data):
    """One octet changed anywhere; and what is understood can be encoded again."""
    damaged = bytearray(encode_command(message))
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    try:
        read, _ = decode_command(bytes(damaged))
    except DIMSEProcessingError:
        return
    encode_command(read)


@pytest.mark.slow
@given(messages, st.data())
def test_a_command_set_that_is_cut_is_refused_or_named(message, data):
    """Inside an element it cannot be read; between two it is read as one with a wrong group length."""
    encoded = encode_command(message)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    try:
        read, _ = decode_command(cut)
    except DIMSEProcessingError:
        return
    assert any("Command Group Length" in each for each in read.deviations)
    assert [each for each in elements(cut) if each != 0x0100] != elements(encoded)


# -- what a peer does oddly, and means plainly -----------------------------------------------------

MOVE_RSP = {
    "x0002": b"1.2\0",
    "x0100": us(0x8021),
    "x0120": us(1),
    "x0800": us(0x0101),
    "x0900": us(0xFF00),
}
STORE_RQ = {
    "x0002": b"1.2\0",
    "x0100": us(1),
    "x0110": us(1),
    "x0800": us(1),
    "x1000": b"1.3\0",
}
FIND_RQ = {"x0002": b"1.2\0", "x0100": us(0x20), "x0110": us(1), "x0800": us(1)}
ERROR_RSP = MOVE_RSP | {"x0100": us(0x8030), "x0900": us(0x0110)}
#: Command set -> the field that it is about, its value, and the words of the deviation.
ODD: dict[str, tuple[dict[str, bytes], str, Any, str]] = {
    "two values of a counter": (
        MOVE_RSP | {"x1021": us(2) + us(7)},
        "number_of_completed_suboperations",
        2,
        "C-MOVE response: NumberOfCompletedSuboperations has several values; the first is taken",
    ),
    "three values of a counter": (
        MOVE_RSP | {"x1022": us(1) * 3},
        "number_of_failed_suboperations",
        1,
        "NumberOfFailedSuboperations has several values",
    ),
    "a counter of 4 octets": (
        MOVE_RSP | {"x1023": struct.pack("<I", 5)},
        "number_of_warning_suboperations",
        5,
        "NumberOfWarningSuboperations has several values",
    ),
    "a counter and a half": (
        MOVE_RSP | {"x1020": us(3) + b"\0"},
        "number_of_remaining_suboperations",
        3,
        "NumberOfRemainingSuboperations has several values",
    ),
    "a counter without a value": (
        MOVE_RSP | {"x1020": b""},
        "number_of_remaining_suboperations",
        None,
        "NumberOfRemainingSuboperations cannot be read",
    ),
    "half a counter": (
        MOVE_RSP | {"x1021": b"\1"},
        "number_of_completed_suboperations",
        None,
        "NumberOfCompletedSuboperations cannot be read",
    ),
    "two statuses": (MOVE_RSP | {"x0900": us(0) + us(0x0110)}, "status", 0, "Status has several"),
    "a priority without a value": (
        FIND_RQ | {"x0700": b""},
        "priority",
        Priority.MEDIUM,
        "C-FIND request: Priority cannot be read",
    ),
    "two priorities": (FIND_RQ | {"x0700": us(2) + us(1)}, "priority", 2, "Priority has several"),
    "a priority of 1 octet": (
        STORE_RQ | {"x0700": b"\1"},
        "priority",
        0,
        "Priority cannot be read",
    ),
    "a move originator without a value": (
        STORE_RQ | {"x1030": b"", "x1031": b""},
        "move_originator_message_id",
        None,
        "MoveOriginatorMessageID cannot be read",
    ),
    "a move originator of blanks": (
        STORE_RQ | {"x1030": b" " * 16},
        "move_originator_application_entity_title",
        None,
        "MoveOriginatorApplicationEntityTitle has no value",
    ),
    "a move originator of NULs": (
        STORE_RQ | {"x1030": b"\0" * 16},
        "move_originator_application_entity_title",
        None,
        "MoveOriginatorApplicationEntityTitle has no value",
    ),
    "an error ID without a value": (
        ERROR_RSP | {"x0903": b""},
        "error_id",
        None,
        "C-ECHO response: ErrorID cannot be read",
    ),
    "two error IDs": (ERROR_RSP | {"x0903": us(9) + us(8)}, "error_id", 9, "ErrorID has several"),
    "an error comment without a value": (
        ERROR_RSP | {"x0902": b""},
        "error_comment",
        None,
        "ErrorComment has no value",
    ),
    "an instance UID without a value": (
        {"x0002": b"1.2\0", "x0100": us(0x0140), "x0110": us(1), "x0800": us(1), "x1000": b""},
        "affected_sop_instance_uid",
        None,
        "N-CREATE request: AffectedSOPInstanceUID has no value",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_value_is_read_by_what_it_means(what):
    """PS3.7 9.3 and 10.3 say one value each; an abort because of more or none would help nobody."""
    values, name, expected, words = ODD[what]
    message, _ = decode_command(counted(**dict(sorted(values.items()))))
    assert getattr(message, name) == expected
    assert any(words in each for each in message.deviations), message.deviations
    encode_command(message)


def test_a_uid_without_a_value_that_must_be_there_is_an_empty_one():
    """PS3.7 9.3.1.1: the service refuses it, with the status that it has for it."""
    message, _ = decode_command(counted(**{**STORE_RQ, "x1000": b""}))
    assert isinstance(message, CStoreRQ)
    assert message.affected_sop_instance_uid == ""
    assert message.missing == ()
    assert message.deviations == ("C-STORE request: AffectedSOPInstanceUID has no value",)


def test_half_a_tag_is_left_out():
    """PS3.5 6.2 AT: 4 octets each."""
    data = command(
        x0003=b"1",
        x0100=us(0x0110),
        x0110=us(1),
        x0800=us(257),
        x1001=b"2",
        x1005=b"\x10\0\x20\0ab",
    )
    message, _ = decode_command(data)
    assert message.attribute_identifier_list == (0x00100020,)


@pytest.mark.parametrize(
    "length",
    [
        *(struct.pack("<I", n) for n in (0, 3, 30, 41, 43, 54, 0xFFFFFFFF)),
        us(42),
        b"",
        struct.pack("<Q", 42),
    ],
    ids=bytes.hex,
)
def test_a_group_length_that_counts_wrongly_is_named(length):
    """PS3.7 Annex E (0000,0000): the elements themselves say where they end."""
    message, _ = decode_command(command(x0000=length, **RQ))
    assert message == CEchoRQ(message_id=1, affected_sop_class_uid="1.2")
    assert message.deviations == (
        "C-ECHO request: Command Group Length does not count the elements of group 0000",
    )


def test_a_command_set_as_it_should_be_has_no_deviation():
    """PS3.7 6.3: no line in the log for peers that do nothing odd."""
    for values in (RQ, MOVE_RSP, STORE_RQ, FIND_RQ, ERROR_RSP):
        message, _ = decode_command(counted(**values))
        assert message.deviations == ()
        assert decode_command(command(**values))[0].deviations == ()


def test_the_same_element_twice_is_one():
    """PS3.5 7.1: a tag comes once; there is no doubt about what this peer means."""
    message, _ = decode_command(command(**RQ) + command(x0110=us(1)))
    assert message.message_id == 1


#: The final response of Orthanc 1.10.1 to a C-GET whose two instances could not be sent.
ORTHANC = bytes.fromhex(
    "00000000040000006a000000000002001c000000312e322e3834302e31303030382e352e312e342e312e322e322e3300"
    "000000010200000010800000200102000000010000000008020000000101000000090200000000c0"
    "00002110020000000000000022100200000001000000231002000000000008005800080000"
    "00312e322e332e3800"
)


def test_what_stands_behind_the_group_of_a_response_is_kept_apart():
    """PS3.7 6.3.1: a command set is group 0000 alone; the counts of this C-GET must not be lost."""
    message, has_data_set = decode_command(ORTHANC)
    assert isinstance(message, CGetRSP)
    assert not has_data_set
    assert message.status == 0xC000
    assert message.number_of_completed_suboperations == 0
    assert message.number_of_failed_suboperations == 1
    assert message.stray == bytes.fromhex("08005800 08000000") + b"1.2.3.8\0"
    assert message.deviations == (
        "C-GET response: elements of other groups stand in the command set",
    )


@pytest.mark.parametrize(
    "stray",
    [
        b"\0",
        b"\0" * 7,
        b"\0" * 64,
        b"\xfc\xff\xfc\xff" + b"\0" * 8,
        b"?" * 20,
        command(x0900=us(0)),
    ],
    ids=["an octet", "seven octets", "zeros", "trailing padding", "text", "another status"],
)
@pytest.mark.parametrize("kind", [0x8001, 0x8010, 0x8020, 0x8021, 0x8030, 0x8140])
def test_what_stands_behind_a_response_changes_nothing_in_it(kind, stray):
    """Only what the group length counts is the response."""
    values = MOVE_RSP | {"x0100": us(kind)}
    message, _ = decode_command(counted(**values) + stray)
    assert message == decode_command(counted(**values))[0]
    assert message.stray == stray


def test_what_stands_behind_an_uncounted_response_is_found_by_its_group():
    """Without a group length, the first element of another group ends the command set."""
    failed = struct.pack("<HHI", 8, 0x58, 4) + b"1.2\0"
    message, _ = decode_command(command(**MOVE_RSP) + failed)
    assert message.stray == failed


#: Requests without what they must have, and what is then in its place.
INCOMPLETE = {
    "C-ECHO without a SOP class": (
        {k: v for k, v in RQ.items() if k != "x0002"},
        {"affected_sop_class_uid": ""},
        ("AffectedSOPClassUID (0000,0002)",),
    ),
    "C-STORE without an instance": (
        {k: v for k, v in STORE_RQ.items() if k != "x1000"},
        {"affected_sop_instance_uid": ""},
        ("AffectedSOPInstanceUID (0000,1000)",),
    ),
    "C-MOVE without a destination": (
        FIND_RQ | {"x0100": us(0x21)},
        {"move_destination": ""},
        ("MoveDestination (0000,0600)",),
    ),
    "N-ACTION with nothing": (
        {"x0100": us(0x0130), "x0110": us(1), "x0800": us(0x0101)},
        {"requested_sop_class_uid": "", "requested_sop_instance_uid": "", "action_type_id": 0},
        (
            "RequestedSOPClassUID (0000,0003)",
            "RequestedSOPInstanceUID (0000,1001)",
            "ActionTypeID (0000,1008)",
        ),
    ),
    "N-EVENT-REPORT with half an event type": (
        RQ | {"x0100": us(0x0100), "x1000": b"1.3\0", "x1002": b"\1"},
        {"event_type_id": 0},
        ("EventTypeID (0000,1002)",),
    ),
}


@pytest.mark.parametrize("what", INCOMPLETE)
def test_a_request_that_lacks_something_can_still_be_answered(what):
    """PS3.7 C.5.15: 0212, mistyped argument; its Message ID is there."""
    values, expected, missing = INCOMPLETE[what]
    message, _ = decode_command(counted(**values))
    assert isinstance(message, Request)
    assert message.missing == missing
    assert {name: getattr(message, name) for name in expected} == expected
    assert message.response(0x0212).message_id_being_responded_to == 1


def test_messages_are_values():
    """Equal by what they say, and never changed."""
    one = CStoreRSP(message_id_being_responded_to=1, status=0)
    assert one == CStoreRSP(message_id_being_responded_to=1, status=0)
    with pytest.raises(AttributeError):
        one.status = 1  # type: ignore[misc]
    assert one != CEchoRSP(message_id_being_responded_to=1, status=0)
    assert CFindRSP(message_id_being_responded_to=1, status=0) != CGetRSP(
        message_id_being_responded_to=1, status=0
    )
    assert CMoveRQ(affected_sop_class_uid="1", move_destination="A").message_id is None


# -- values ---------------------------------------------------------------------------------------


def test_messages_are_equal_by_what_they_say():
    """How a peer wrote the command set is for the log, and another class is another message."""
    one = CEchoRQ(affected_sop_class_uid="1.2", message_id=1)
    assert one == CEchoRQ(affected_sop_class_uid="1.2", message_id=1, deviations=("odd",))
    assert hash(one) == hash(replace(one, deviations=("odd",)))
    assert one != replace(one, message_id=2)
    assert one != replace(one, data_set=b"\0")
    assert one != CFindRQ(affected_sop_class_uid="1.2", message_id=1)
    assert one != ("1.2", 1)


def test_a_message_shows_its_elements_and_no_data_set():
    """A data set has patient data."""
    message = CEchoRQ(affected_sop_class_uid="1.2", message_id=1, data_set=b"secret")
    assert repr(message) == "CEchoRQ(message_id=1, affected_sop_class_uid='1.2')"
