"""Sub-items of the user information against PS3.7 D.3.3, pynetdicom, and bytes that are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import pdu_items as theirs
from pynetdicom import pdu_primitives as primitives

from netdicom_tx import userdataitems as items
from netdicom_tx.exceptions import LocalProtocolError, PDUProcessingError
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MalformedItem,
    MaximumLength,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
    UserIdentityType,
    _decode_item,
    decode_user_data,
    describe,
)
from support.layouts import TABLES, decode_item
from support.strategies import any_user_item, uids, user_information, user_items

CT = "1.2.840.10008.5.1.4.1.1.2"


def described(item: object) -> tuple[str, dict[str, object]]:
    """An item in the words of ``pdu_layouts.json``."""
    match item:
        case MaximumLength(value):
            return "maximum_length", {"maximum_length_received": value}
        case ImplementationClassUID(uid):
            return "implementation_class_uid", {"implementation_class_uid": uid}
        case AsynchronousOperationsWindow(invoked, performed):
            return "asynchronous_operations_window", {
                "maximum_number_operations_invoked": invoked,
                "maximum_number_operations_performed": performed,
            }
        case RoleSelection(uid, scu, scp):
            return "role_selection", {"sop_class_uid": uid, "scu_role": scu, "scp_role": scp}
        case ImplementationVersionName(name):
            return "implementation_version_name", {"implementation_version_name": name}
        case SOPClassExtendedNegotiation(uid, information):
            return "sop_class_extended_negotiation", {
                "sop_class_uid": uid,
                "service_class_application_information": information,
            }
        case SOPClassCommonExtendedNegotiation(uid, service, related, version, trailer):
            return "sop_class_common_extended_negotiation", {
                "sub_item_version": version,
                "sop_class_uid": uid,
                "service_class_uid": service,
                "related_general_sop_class_identification": list(related),
                "reserved_trailer": trailer,
            }
        case UserIdentity(kind, primary, secondary, wants_response):
            return "user_identity_rq", {
                "user_identity_type": kind,
                "positive_response_requested": wants_response,
                "primary_field": primary,
                "secondary_field": secondary,
            }
        case UserIdentityResponse(response):
            return "user_identity_ac", {"server_response": response}
    raise AssertionError(item)


KNOWN = [kind for kind in user_items if kind is not UnknownItem]


def test_every_sub_item_of_the_standard_has_a_class():
    """PS3.8 D.1 and PS3.7 D.3.3: types 51H to 59H."""
    of_the_standard = {
        layout["item_type"]
        for layout in TABLES["items"].values()
        if layout["item_type"] in range(0x51, 0x100)
    }
    assert {kind.ITEM_TYPE for kind in KNOWN} == of_the_standard == set(range(0x51, 0x5A))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KNOWN)
@given(data=st.data())
def test_an_encoded_item_reads_by_the_standards_layout(kind, data):
    """PS3.7 Annex D.3.3, table by table: the fields, their order, their lengths."""
    item = data.draw(user_items[kind])
    if isinstance(item, ImplementationVersionName) and item.name != item.name.strip():
        # The layout's reader is strict about padding; a name of our choice has none.
        item = ImplementationVersionName("X")
    assert decode_item(item.encode()) == described(item)


@pytest.mark.slow
@given(user_information)
def test_what_was_encoded_is_read_again_in_its_order(information):
    """Sub-items may come in any order, and unknown ones are kept (PS3.8 D.2)."""
    assert decode_user_data(b"".join(item.encode() for item in information)) == information


# -- pynetdicom as a second source ----------------------------------------------------------------


def primitive(kind: str, **values: object) -> primitives.ServiceParameter:
    made = getattr(primitives, kind)()
    for name, value in values.items():
        setattr(made, name, value)
    return made


PAIRS = {
    "maximum length": (
        MaximumLength(16382),
        theirs.MaximumLengthSubItem,
        primitive("MaximumLengthNotification", maximum_length_received=16382),
    ),
    "implementation class UID": (
        ImplementationClassUID("1.2.826.0.1.3680043"),
        theirs.ImplementationClassUIDSubItem,
        primitive(
            "ImplementationClassUIDNotification", implementation_class_uid="1.2.826.0.1.3680043"
        ),
    ),
    "window": (
        AsynchronousOperationsWindow(3, 0xFFFF),
        theirs.AsynchronousOperationsWindowSubItem,
        primitive(
            "AsynchronousOperationsWindowNegotiation",
            maximum_number_operations_invoked=3,
            maximum_number_operations_performed=0xFFFF,
        ),
    ),
    "role": (
        RoleSelection(CT, True, False),
        theirs.SCP_SCU_RoleSelectionSubItem,
        primitive(
            "SCP_SCU_RoleSelectionNegotiation", sop_class_uid=CT, scu_role=True, scp_role=False
        ),
    ),
    "version name": (
        ImplementationVersionName("NETDICOM_TX"),
        theirs.ImplementationVersionNameSubItem,
        primitive(
            "ImplementationVersionNameNotification", implementation_version_name="NETDICOM_TX"
        ),
    ),
    "extended negotiation": (
        SOPClassExtendedNegotiation(CT, b"\1\0\1"),
        theirs.SOPClassExtendedNegotiationSubItem,
        primitive(
            "SOPClassExtendedNegotiation",
            sop_class_uid=CT,
            service_class_application_information=b"\1\0\1",
        ),
    ),
    "common extended negotiation": (
        SOPClassCommonExtendedNegotiation(CT, "1.2.840.10008.4.2", ("1.2.3", "1.2.840.1")),
        theirs.SOPClassCommonExtendedNegotiationSubItem,
        primitive(
            "SOPClassCommonExtendedNegotiation",
            sop_class_uid=CT,
            service_class_uid="1.2.840.10008.4.2",
            related_general_sop_class_identification=["1.2.3", "1.2.840.1"],
        ),
    ),
    "user name and passcode": (
        UserIdentity(2, b"user", b"pass", True),
        theirs.UserIdentitySubItemRQ,
        primitive(
            "UserIdentityNegotiation",
            user_identity_type=2,
            primary_field=b"user",
            secondary_field=b"pass",
            positive_response_requested=True,
        ),
    ),
    "user identity response": (
        UserIdentityResponse(b"ticket"),
        theirs.UserIdentitySubItemAC,
        primitive("UserIdentityNegotiation", server_response=b"ticket"),
    ),
}


@pytest.mark.parametrize("what", PAIRS)
def test_the_bytes_are_pynetdicoms(what):
    """A second reading of PS3.7 Annex D.3.3, by another implementation."""
    ours, their_class, their_primitive = PAIRS[what]
    their_item = their_class()
    their_item.from_primitive(their_primitive)
    assert ours.encode() == their_item.encode()
    assert decode_user_data(their_item.encode()) == (ours,)


# -- tolerance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [b"\0", b" ", b"\0\0"])
def test_a_padded_uid_is_read_without_its_padding(padding):
    """PS3.8 Annex F: UIDs in PDUs are not padded, but some peers do."""
    body = CT.encode() + padding
    data = bytes((0x52, 0, 0, len(body))) + body
    assert decode_user_data(data) == (ImplementationClassUID(CT),)


def test_the_reserved_octet_of_a_sub_item_is_not_tested():
    """PS3.7 D.3.3: it is sent as 00H and not tested; in 57H alone it is a version."""
    assert decode_user_data(b"\x51\xff\0\4\0\0\x40\0") == (MaximumLength(0x4000),)


def test_a_role_is_proposed_by_the_value_1_alone():
    """PS3.7 Table D.3-9: 0 and 1 are defined, and nothing is offered by another value."""
    assert decode_user_data(b"\x54\0\0\x07\0\3" + b"1.2\2\1") == (
        RoleSelection("1.2", False, True),
    )


def test_a_user_identity_may_end_behind_its_primary_field():
    """Some peers leave out the empty secondary field (PS3.7 D.3.3.7.1)."""
    assert decode_user_data(b"\x58\0\0\6\1\0\0\2me") == (UserIdentity(1, b"me"),)


def test_an_unknown_sub_item_is_kept_as_it_came():
    """PS3.8 D.2: it is ignored by an acceptor, and does not make it reject."""
    data = b"\xf3\0\0\3abc" + MaximumLength(0).encode()
    assert decode_user_data(data) == (UnknownItem(0xF3, b"abc"), MaximumLength(0))
    assert b"".join(item.encode() for item in decode_user_data(data)) == data


# -- what a peer does wrong -----------------------------------------------------------------------

WRONG = {
    "stray octets": (b"\x51\0\0", "3 stray octets"),
    "longer than what holds it": (b"\x51\0\0\5\0\0\0\0", "says 5 octets, .* has 4 left"),
    "maximum length of 3": (b"\x51\0\0\3abc", "expected 4 octets, got 3"),
    "maximum length of 5": (b"\x51\0\0\5abcde", "expected 4 octets, got 5"),
}
# These have a length that leads to the next item, so nothing else is lost with them.
MALFORMED = {
    "window of 3": (b"\x53\0\0\3abc", "expected 4 octets, got 3"),
    "role without a UID length": (b"\x54\0\0\1\0", "length field missing at octet 0"),
    "role whose UID is cut": (b"\x54\0\0\4\0\x09ab", "field says 9 octets, 2 are there"),
    "role with one role": (b"\x54\0\0\4\0\1a\1", "expected 2 octets, got 1"),
    "role with three": (b"\x54\0\0\6\0\1a\1\1\1", "expected 2 octets, got 3"),
    "56H that is cut": (b"\x56\0\0\3\0\2a", "field says 2 octets, 1 are there"),
    "57H without a service class": (b"\x57\0\0\3\0\1a", "length field missing at octet 3"),
    "57H with a cut UID in its list": (
        b"\x57\0\0\x0a\0\1a\0\1b\0\2\0\5",
        "field says 5 octets, 0 are there",
    ),
    "57H with half a length in its list": (
        b"\x57\0\0\x09\0\1a\0\1b\0\1\0",
        "length field missing at octet 0",
    ),
    "user identity of one octet": (b"\x58\0\0\1\1", "expected 6 octets, got 1"),
    "user identity without a field": (b"\x58\0\0\2\1\0", "length field missing at octet 2"),
    "user identity with a cut secondary": (
        b"\x58\0\0\x08\2\0\0\1a\0\5b",
        "secondary field: field says 5 octets, 1 are there",
    ),
    "response that is cut": (b"\x59\0\0\3\0\7a", "field says 7 octets, 1 are there"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_item_that_contradicts_itself_is_refused(what):
    """PS3.8 9.3.8: invalid PDU parameter value; the message says where."""
    data, message = WRONG[what]
    with pytest.raises(PDUProcessingError, match=message) as caught:
        decode_user_data(data)
    assert caught.value.abort_reason == 6


@pytest.mark.parametrize("what", MALFORMED)
def test_an_optional_item_that_contradicts_itself_is_kept_and_ignored(what):
    """PS3.8 9.3.1: what a receiver cannot understand and does not need is skipped."""
    data, message = MALFORMED[what]
    (found,) = decode_user_data(data)
    assert found == MalformedItem(data[0], data[4:])
    assert found.encode() == data
    assert "data" not in repr(found)  # it may hold a passcode
    with pytest.raises(PDUProcessingError, match=message):
        _decode_item(data[0], 0, data[4:])
    assert decode_user_data(data + MaximumLength(7).encode())[1:] == (MaximumLength(7),)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_items_or_a_processing_error(data):
    """Nothing else comes out; and what is understood can be sent again."""
    try:
        found = decode_user_data(data)
    except PDUProcessingError:
        return
    assert decode_user_data(b"".join(item.encode() for item in found)) == found


@given(any_user_item, st.data())
def test_an_item_cut_anywhere_is_refused(item, data):
    """The length field says more than there is."""
    encoded = item.encode()
    with pytest.raises(PDUProcessingError):
        decode_user_data(encoded[: data.draw(st.integers(1, len(encoded) - 1))])


@pytest.mark.slow
@given(any_user_item, st.data())
def test_an_item_whose_body_was_cut_is_an_item_or_a_processing_error(item, data):
    """The outer length is right, the inner ones are not."""
    encoded = item.encode()
    body = encoded[4 : 4 + data.draw(st.integers(0, len(encoded) - 4))]
    try:
        (found,) = decode_user_data(encoded[:2] + len(body).to_bytes(2, "big") + body)
    except PDUProcessingError:
        return
    assert isinstance(found, type(item) | MalformedItem)


# -- what our own side does wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaximumLength(-1),
        lambda: MaximumLength(1 << 32),
        lambda: AsynchronousOperationsWindow(-1, 1),
        lambda: AsynchronousOperationsWindow(1, 1 << 16),
        lambda: UserIdentity(256, b""),
        lambda: UnknownItem(-1, b""),
        lambda: SOPClassCommonExtendedNegotiation("1.2", "1.3", version=256),
        lambda: UserIdentity(1, bytes(1 << 16)),
        lambda: UserIdentity(2, b"", bytes(1 << 16)),
        lambda: UserIdentityResponse(bytes(1 << 16)),
        lambda: ImplementationClassUID("1.2.\u0663"),
        lambda: RoleSelection("1.2.\u0663", True, True),
        lambda: SOPClassExtendedNegotiation("\u0663", b""),
        lambda: SOPClassCommonExtendedNegotiation("1.2", "1.3", ("1.\u0663",)),
        lambda: ImplementationVersionName("ネット"),
    ],
)
def test_a_value_that_no_item_can_hold_cannot_be_made(make):
    """A wire value is checked when it is made: an invalid one never reaches the wire."""
    with pytest.raises(LocalProtocolError):
        make()


@pytest.mark.parametrize(
    "item",
    [
        UnknownItem(0xF0, bytes(1 << 16)),
        SOPClassExtendedNegotiation(CT, bytes(1 << 16)),
        SOPClassCommonExtendedNegotiation("1.2", "1.3", ("1." * 40 + "1",) * 1000),
    ],
)
def test_an_item_of_more_than_65535_octets_cannot_be_sent(item):
    """PS3.8 9.3.2: item lengths have 16 bits."""
    with pytest.raises(LocalProtocolError, match="65535"):
        item.encode()


@pytest.mark.parametrize("show", [repr, str, describe])
def test_credentials_are_not_shown(show):
    """Nobody reads a passcode or a ticket in a log."""
    text = show(UserIdentity(2, b"me-the-user", b"s3cret")) + show(UserIdentityResponse(b"t1cket"))
    assert "s3cret" not in text
    assert "me-the-user" not in text
    assert "t1cket" not in text


def test_an_item_is_described_in_one_harmless_line():
    """A version name may hold what a terminal obeys."""
    line = describe(ImplementationVersionName("\x1b[2J\nX" + "y" * 300))
    assert line.isprintable()
    assert len(line) <= 300


def test_the_types_of_user_identity_are_the_standards():
    """PS3.7 Table D.3-14."""
    words = TABLES["values"]["user_identity_type"]
    assert {str(kind.value) for kind in UserIdentityType} == set(words)
    assert "passcode" in words[str(UserIdentityType.USERNAME_PASSCODE.value)]
    assert "Kerberos" in words[str(UserIdentityType.KERBEROS.value)]
    assert "SAML" in words[str(UserIdentityType.SAML.value)]
    assert "JSON" in words[str(UserIdentityType.JWT.value)]


@given(uids)
def test_equal_items_are_equal_values(uid):
    """Values can be keys: frozen, hashed by what they hold."""
    assert {RoleSelection(uid, True, False): 1}[RoleSelection(uid, True, False)] == 1
    with pytest.raises(AttributeError):
        RoleSelection(uid, True, False).scu_role = False  # type: ignore[misc]


def test_the_module_names_what_it_offers():
    """A name in ``__all__`` that does not exist breaks every star import."""
    assert all(hasattr(items, name) for name in items.__all__)
