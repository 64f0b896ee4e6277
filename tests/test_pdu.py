"""PDUs and the reader of their stream, against PS3.8 9.3, pynetdicom, and bytes that are wrong."""

import struct
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import pdu as theirs
from pynetdicom import pdu_primitives as primitives
from pynetdicom.presentation import build_context

from netdicom_tx import pdu as ours
from netdicom_tx.exceptions import (
    AbortReason,
    LocalProtocolError,
    PDUProcessingError,
)
from netdicom_tx.pdu import (
    MAXIMUM_CONTROL_PDU_LENGTH,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    ContextResult,
    Fragment,
    PDUReader,
    PresentationContextAC,
    PresentationContextRQ,
    check_ae_title,
)
from netdicom_tx.uids import ALL_TRANSFER_SYNTAXES, STORAGE_SOP_CLASSES
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MalformedItem,
    MaximumLength,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
)
from support.layouts import TABLES, decode_pdu
from support.strategies import (
    aborts,
    ae_titles,
    associate_acs,
    associate_rjs,
    contexts_ac,
    contexts_rq,
    control_pdus,
    cuts,
    encoded,
    odd_ids,
    p_data_tf,
    p_datas,
    pdu_streams,
    uids,
)

VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
REQUEST = AAssociateRQ(
    called_ae_title="ACCEPTOR",
    calling_ae_title="REQUESTOR",
    presentation_contexts=(
        PresentationContextRQ(1, VERIFICATION, (EXPLICIT, IMPLICIT)),
        PresentationContextRQ(3, CT, (EXPLICIT,)),
    ),
    user_information=(
        MaximumLength(16382),
        ImplementationClassUID("1.2.3.4"),
        ImplementationVersionName("VERSION"),
        AsynchronousOperationsWindow(3, 1),
        RoleSelection(CT, True, True),
        SOPClassExtendedNegotiation(CT, b"\2\0\1\1\0\0"),
        UserIdentity(1, b"me"),
    ),
)
ACCEPTANCE = AAssociateAC(
    presentation_contexts=(
        PresentationContextAC(1, 0, IMPLICIT),
        PresentationContextAC(3, 4),
    ),
    user_information=(MaximumLength(0), ImplementationClassUID("1.2.3.4"), UserIdentityResponse()),
    reserved=b"ACCEPTOR".ljust(16) + b"REQUESTOR".ljust(16) + bytes(32),
)


def read(*data: bytes, limit: int = 0) -> list[object]:
    """Everything that a reader makes of these pieces."""
    reader = PDUReader(limit)
    return [item for piece in data for item in reader.feed(piece)]


# -- values and their bytes -----------------------------------------------------------------------


@pytest.mark.slow
@given(control_pdus)
def test_what_was_encoded_is_read_again(pdu):
    """PS3.8 9.3: every field of every PDU, whatever it holds."""
    (again,) = read(pdu.encode())
    assert again == pdu
    assert type(again) is type(pdu)


@given(associate_acs)
def test_the_reserved_octets_of_an_acceptance_are_carried(pdu):
    """PS3.8 9.3.3: 64 octets of the request are sent back, and not tested."""
    (again,) = read(pdu.encode())
    assert again.reserved == pdu.reserved


def associate_fields(pdu: AAssociateRQ | AAssociateAC, name: str) -> list[object]:
    """The variable items in the words of ``pdu_layouts.json``, user information left out."""
    items: list[object] = [
        ("application_context", {"application_context_name": pdu.application_context})
    ]
    for context in pdu.presentation_contexts:
        fields: dict[str, object] = {"presentation_context_id": context.context_id}
        if isinstance(context, PresentationContextRQ):
            fields["sub_items"] = [
                ("abstract_syntax", {"abstract_syntax_name": context.abstract_syntax}),
                *(
                    ("transfer_syntax", {"transfer_syntax_name": uid})
                    for uid in context.transfer_syntaxes
                ),
            ]
        else:
            fields["result"] = context.result
            fields["sub_items"] = [
                ("transfer_syntax", {"transfer_syntax_name": context.transfer_syntax})
            ]
        items.append((name, fields))
    return items


USER_INFORMATION = (MaximumLength(16382), ImplementationClassUID("1.2.3"))


@given(ae_titles, ae_titles, st.lists(contexts_rq, min_size=1, max_size=4), uids)
def test_a_request_reads_by_the_standards_layout(called, calling, contexts, application_context):
    """PS3.8 Tables 9-11 to 9-16: fixed part, items and sub-items."""
    pdu = AAssociateRQ(
        called_ae_title=called,
        calling_ae_title=calling,
        presentation_contexts=tuple(contexts),
        user_information=USER_INFORMATION,
        application_context=application_context,
    )
    name, fields = decode_pdu(pdu.encode())
    *items, (last, user) = fields.pop("variable_items")
    assert name == "A-ASSOCIATE-RQ"
    assert fields == {
        "protocol_version": 1,
        "called_ae_title": called,
        "calling_ae_title": calling,
    }
    assert items == associate_fields(pdu, "presentation_context_rq")
    assert (last, [item for item, _ in user["user_data"]]) == (
        "user_information",
        ["maximum_length", "implementation_class_uid"],
    )


@given(st.lists(contexts_ac, min_size=1, max_size=4), uids, st.binary(min_size=64, max_size=64))
def test_an_acceptance_reads_by_the_standards_layout(contexts, application_context, reserved):
    """PS3.8 Tables 9-17 and 9-18."""
    pdu = AAssociateAC(
        presentation_contexts=tuple(contexts),
        user_information=USER_INFORMATION,
        application_context=application_context,
        reserved=reserved,
    )
    name, fields = decode_pdu(pdu.encode())
    *items, (last, _) = fields.pop("variable_items")
    assert (name, last) == ("A-ASSOCIATE-AC", "user_information")
    assert fields["protocol_version"] == 1
    assert (
        fields["reserved_called_ae_title"]
        + fields["reserved_calling_ae_title"]
        + fields["reserved_3"]
        == reserved
    )
    assert items == associate_fields(pdu, "presentation_context_ac")


@given(associate_rjs, aborts)
def test_a_rejection_and_an_abort_read_by_the_standards_layout(rejection, abort):
    """PS3.8 Tables 9-21 and 9-26."""
    name, fields = decode_pdu(rejection.encode())
    assert name == "A-ASSOCIATE-RJ"
    assert (fields["result"], fields["source"], fields["reason"]) == (
        rejection.result,
        rejection.source,
        rejection.reason,
    )
    name, fields = decode_pdu(abort.encode())
    assert name == "A-ABORT"
    assert (fields["source"], fields["reason"]) == (abort.source, abort.reason)


@pytest.mark.parametrize(
    ("pdu", "name"), [(AReleaseRQ(), "A-RELEASE-RQ"), (AReleaseRP(), "A-RELEASE-RP")]
)
def test_a_release_reads_by_the_standards_layout(pdu, name):
    """PS3.8 Tables 9-24 and 9-25."""
    assert decode_pdu(pdu.encode())[0] == name


def test_every_pdu_type_of_the_standard_is_known():
    """PS3.8 9.3.1: 01H to 07H; P-DATA-TF is read as fragments and has no value."""
    types = {layout["pdu_type"]: name for name, layout in TABLES["pdus"].items()}
    assert set(ours._CONTROL_PDUS) | {4} == set(types)


@pytest.mark.parametrize(
    ("enum", "table"),
    [(ContextResult, "pc_result"), (AbortReason, "abort_reason")],
)
def test_the_codes_are_the_standards(enum, table):
    """PS3.8 Tables 9-18 and 9-26."""
    words = {int(code): text.split(" (")[0] for code, text in TABLES["values"][table].items()}
    names = {member.value: member.name.lower() for member in enum}
    assert set(names) == set(words)
    for code, text in words.items():
        said = set(names[code].split("_"))
        assert said <= set(text.lower().replace("-", " ").split()), (names[code], text)


# -- pynetdicom as a second source ----------------------------------------------------------------


def their_associate(is_request: bool) -> primitives.A_ASSOCIATE:
    """What :data:`REQUEST` or :data:`ACCEPTANCE` says, in pynetdicom's words."""
    said = primitives.A_ASSOCIATE()
    said.application_context_name = "1.2.840.10008.3.1.1.1"
    said.calling_ae_title, said.called_ae_title = "REQUESTOR", "ACCEPTOR"
    length = primitives.MaximumLengthNotification()
    implementation = primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    contexts = [build_context(VERIFICATION, [EXPLICIT, IMPLICIT]), build_context(CT, [EXPLICIT])]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    identity = primitives.UserIdentityNegotiation()
    if not is_request:
        said.result = 0
        length.maximum_length_received = 0
        contexts[0].transfer_syntax = [IMPLICIT]
        contexts[0].result, contexts[1].result = 0, 4
        identity.server_response = b""
        said.presentation_context_definition_results_list = contexts
        said.user_information = [length, implementation, identity]
        return said
    length.maximum_length_received = 16382
    version = primitives.ImplementationVersionNameNotification()
    version.implementation_version_name = "VERSION"
    window = primitives.AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 3
    window.maximum_number_operations_performed = 1
    role = primitives.SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CT, True, True
    extended = primitives.SOPClassExtendedNegotiation()
    extended.sop_class_uid = CT
    extended.service_class_application_information = b"\2\0\1\1\0\0"
    identity.user_identity_type, identity.primary_field = 1, b"me"
    said.presentation_context_definition_list = contexts
    said.user_information = [length, implementation, version, window, role, extended, identity]
    return said


def their_rejection() -> primitives.A_ASSOCIATE:
    said = primitives.A_ASSOCIATE()
    said.result, said.result_source, said.diagnostic = 1, 1, 7
    return said


def their_abort() -> primitives.A_P_ABORT:
    said = primitives.A_P_ABORT()
    said.provider_reason = 2
    return said


def their_release(result: str | None) -> primitives.A_RELEASE:
    said = primitives.A_RELEASE()
    said.result = result
    return said


PAIRS = {
    "A-ASSOCIATE-RQ": (REQUEST, lambda: theirs.A_ASSOCIATE_RQ(their_associate(True))),
    "A-ASSOCIATE-RJ": (AAssociateRJ(1, 1, 7), lambda: theirs.A_ASSOCIATE_RJ(their_rejection())),
    "A-RELEASE-RQ": (AReleaseRQ(), lambda: theirs.A_RELEASE_RQ(their_release(None))),
    "A-RELEASE-RP": (AReleaseRP(), lambda: theirs.A_RELEASE_RP(their_release("affirmative"))),
    "A-ABORT": (AAbort(2, 2), lambda: theirs.A_ABORT_RQ(their_abort())),
}


@pytest.mark.parametrize("what", PAIRS)
def test_the_bytes_are_pynetdicoms(what):
    """A second reading of PS3.8 9.3, by another implementation."""
    our_pdu, make = PAIRS[what]
    assert our_pdu.encode() == make().encode()
    assert read(make().encode()) == [our_pdu]


def test_an_acceptance_of_pynetdicom_is_read():
    """PS3.8 Table 9-18: it leaves the transfer syntax out of a refusal, which is not significant."""
    their_bytes = theirs.A_ASSOCIATE_AC(their_associate(False)).encode()
    (read_pdu,) = read(their_bytes)
    assert read_pdu == ACCEPTANCE
    assert read_pdu.reserved == ACCEPTANCE.reserved


def test_an_acceptance_of_ours_is_read_by_pynetdicom():
    """PS3.8 Table 9-17: contexts, results, user information and the echoed titles."""
    their_pdu = theirs.A_ASSOCIATE_AC()
    their_pdu.decode(ACCEPTANCE.encode())
    assert [(c.context_id, c.result) for c in their_pdu.presentation_context] == [(1, 0), (3, 4)]
    assert their_pdu.presentation_context[0].transfer_syntax == IMPLICIT
    assert their_pdu.user_information.maximum_length == 0
    assert their_pdu.called_ae_title.strip() == "ACCEPTOR"
    assert their_pdu.calling_ae_title.strip() == "REQUESTOR"


@given(st.lists(st.tuples(odd_ids, st.binary(max_size=30)), min_size=1, max_size=4))
def test_p_data_of_pynetdicom_is_read(values):
    """PS3.8 Tables 9-22 and 9-23: several PDVs in one PDU."""
    said = primitives.P_DATA()
    said.presentation_data_value_list = [[cid, b"\2" + value] for cid, value in values]
    assert read(theirs.P_DATA_TF(said).encode()) == [
        Fragment(context_id, False, True, value) for context_id, value in values
    ]


# -- titles ---------------------------------------------------------------------------------------


@given(ae_titles)
def test_a_title_is_padded_with_spaces(title):
    """PS3.8 9.3.2: 16 characters, padded with spaces; the ancestor padded with NUL."""
    data = AAssociateRQ(
        called_ae_title=title, calling_ae_title="B", presentation_contexts=()
    ).encode()
    assert data[10:42] == title.encode().ljust(16, b" ") + b"B".ljust(16, b" ")


@pytest.mark.parametrize(
    ("field", "title"),
    [
        (b"ARCHIVE         ", "ARCHIVE"),
        (b"   ARCHIVE      ", "ARCHIVE"),
        (b"ARCHIVE\0\0\0\0\0\0\0\0\0", "ARCHIVE"),
        (b"ARCHIVE \0\0\0\0\0\0\0\0", "ARCHIVE"),
        (b"ARCHIVE\0garbage!", "ARCHIVE"),
        (b"\0\0\0\0\0\0\0\0\0ARCHIVE", "ARCHIVE"),
        (b"MY ARCHIVE      ", "MY ARCHIVE"),
        (b"                ", ""),
        (b"\xc4RCHIV", "\xc4RCHIV"),
    ],
)
def test_a_peers_title_is_read_without_its_padding(field, title):
    """PS3.8 9.3.2: outer spaces are not significant; NUL and the octets behind it do not belong to the title."""
    data = bytearray(REQUEST.encode())
    data[10:26] = field.ljust(16)
    (request,) = read(bytes(data))
    assert request.called_ae_title == title
    assert request.calling_ae_title == "REQUESTOR"


@pytest.mark.parametrize("title", ["A", "MY ARCHIVE", "X" * 16, "a_b-c.d'\"~!"])
def test_an_ae_title_of_the_standard_is_taken(title):
    """PS3.5 6.2 AE: the default repertoire without backslash and control characters."""
    assert check_ae_title(title) == title
    assert check_ae_title(f"  {title} ") == title


@pytest.mark.parametrize("title", ["", " ", " " * 16, "X" * 17, "A\\B", "A\nB", "\0", "Ä", "\x7f"])
def test_an_ae_title_that_is_none_is_refused(title):
    """PS3.8 9.3.2: 1 to 16 characters; a value of spaces alone is not allowed."""
    with pytest.raises(LocalProtocolError, match="AE title"):
        check_ae_title(title)


# -- values that cannot be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: PresentationContextRQ(257, VERIFICATION, (IMPLICIT,)),
        lambda: PresentationContextRQ(-1, VERIFICATION, (IMPLICIT,)),
        lambda: PresentationContextRQ(1, "1.2.\u0663", (IMPLICIT,)),
        lambda: PresentationContextRQ(1, VERIFICATION, ("1.2.\u0663",)),
        lambda: PresentationContextRQ(1, VERIFICATION, ()),
        lambda: PresentationContextAC(256, 0, IMPLICIT),
        lambda: PresentationContextAC(1, 256, IMPLICIT),
        lambda: PresentationContextAC(1, 0, "1.2.\u0663"),
        lambda: AAssociateRJ(256, 1, 1),
        lambda: AAssociateRJ(1, -1, 1),
        lambda: AAssociateRJ(1, 1, 256),
        lambda: AAbort(256, 0),
        lambda: AAbort(0, 256),
        lambda: AAssociateRQ(
            called_ae_title="X" * 17, calling_ae_title="B", presentation_contexts=()
        ),
        lambda: AAssociateRQ(
            called_ae_title="A", calling_ae_title="\u0663", presentation_contexts=()
        ),
        lambda: AAssociateRQ(
            called_ae_title="A",
            calling_ae_title="B",
            presentation_contexts=(),
            application_context="\u0663",
        ),
        lambda: AAssociateRQ(
            called_ae_title="A",
            calling_ae_title="B",
            presentation_contexts=(),
            protocol_version=1 << 16,
        ),
        lambda: AAssociateAC(presentation_contexts=(), application_context="\u0663"),
        lambda: AAssociateAC(presentation_contexts=(), protocol_version=-1),
        lambda: AAssociateAC(presentation_contexts=(), reserved=bytes(65)),
    ],
)
def test_a_value_that_no_pdu_can_hold_cannot_be_made(make):
    """A wire value is checked when it is made; a long title is not cut off in silence."""
    with pytest.raises(LocalProtocolError):
        make()


def test_transfer_syntaxes_keep_the_requestors_order():
    """PS3.8 9.3.2.2: the ancestor held them in a set, and lost the preference."""
    proposed = tuple(f"1.2.{n}" for n in range(40, 0, -1))
    context = PresentationContextRQ(1, VERIFICATION, proposed)
    (request,) = read(
        AAssociateRQ(
            called_ae_title="A", calling_ae_title="B", presentation_contexts=(context,)
        ).encode()
    )
    assert request.presentation_contexts[0].transfer_syntaxes == proposed


# -- access to the user information ---------------------------------------------------------------


def test_a_user_item_is_found_wherever_it_stands():
    """PS3.8 9.3.2.3: sub-items may come in any order; the ancestor took the first for 51H."""
    backwards = tuple(reversed(REQUEST.user_information))
    request = AAssociateRQ(
        called_ae_title="A",
        calling_ae_title="B",
        presentation_contexts=(),
        user_information=backwards,
    )
    assert request.maximum_length == 16382
    assert request.user_item(UserIdentity) == UserIdentity(1, b"me")
    assert request.user_items(RoleSelection) == (RoleSelection(CT, True, True),)
    assert request.user_item(UserIdentityResponse) is None
    assert request.user_items(UserIdentityResponse) == ()


def test_an_absent_maximum_length_means_no_limit():
    """PS3.8 D.1: 0 means no maximum, and an absent item means the same."""
    assert AAssociateAC(presentation_contexts=()).maximum_length == 0


def test_the_last_of_two_counts():
    """PS3.8 D.1 has one; a request with two is not refused for it."""
    acceptance = AAssociateAC(
        presentation_contexts=(), user_information=(MaximumLength(1), MaximumLength(2))
    )
    assert acceptance.maximum_length == 2


# -- tolerance of what is not tested ---------------------------------------------------------------


def test_reserved_octets_are_not_tested():
    """PS3.8 9.3: they are sent as 00H and not tested to this value when received."""
    data = bytearray(REQUEST.encode())
    data[1] = 0xFF
    data[8:10] = b"\xff\xff"
    data[42:74] = b"\xff" * 32
    first_context = data.index(b"\x20\0")
    data[first_context + 1] = 0xFF
    data[first_context + 5 : first_context + 8] = b"\xff\xff\xff"
    assert read(bytes(data)) == [REQUEST]
    assert read(b"\x05\xff\0\0\0\4\xff\xff\xff\xff") == [AReleaseRQ()]


def test_items_may_come_in_any_order():
    """PS3.8 9.3.2: no order is demanded; unknown items are kept."""
    fixed = REQUEST.encode()[:74]
    parts = [
        UnknownItem(0x77, b"?").encode(),
        b"\x50\0\0\x08" + MaximumLength(5).encode(),
        PresentationContextRQ(5, CT, (IMPLICIT,)).encode(),
        b"\x10\0\0\x03" + b"1.2",
        PresentationContextRQ(3, VERIFICATION, (IMPLICIT,)).encode(),
    ]
    body = fixed[6:] + b"".join(parts)
    (request,) = read(struct.pack(">BxI", 1, len(body)) + body)
    assert [context.context_id for context in request.presentation_contexts] == [5, 3]
    assert request.application_context == "1.2"
    assert request.maximum_length == 5
    assert request.unknown_items == (UnknownItem(0x77, b"?"),)


def _associate(*items: object, title: str = "A") -> AAssociateRQ:
    contexts = (PresentationContextRQ(1, "1.2.3", ("1.2.840.10008.1.2",)),)
    request = AAssociateRQ(
        called_ae_title="B",
        calling_ae_title=title,
        presentation_contexts=contexts,
        user_information=items,  # type: ignore[arg-type]
    )
    return AAssociateRQ.decode(request.encode()[6:])


def test_the_same_proposal_is_read_once():
    """A peer opens one association after the other, and proposes the same each time; its titles are its own."""
    first, second = _associate(MaximumLength(7)), _associate(MaximumLength(7), title="C")
    assert first.presentation_contexts is second.presentation_contexts
    assert (first.calling_ae_title, second.calling_ae_title) == ("A", "C")
    assert first.reserved != second.reserved
    assert _associate(MaximumLength(8)).maximum_length == 8


@pytest.mark.parametrize(
    "item",
    [
        UserIdentity(2, b"user", b"secret-of-proposal"),
        UserIdentityResponse(b"secret-of-proposal"),
        UnknownItem(0x60, b"secret-of-proposal"),
        MalformedItem(0x58, b"secret-of-proposal"),
    ],
)
def test_a_proposal_that_may_hold_a_credential_is_not_kept(item):
    """What a user has proved itself with does not stay in memory."""
    _associate(item)
    assert not any(b"secret-of-proposal" in kept for kept in ours._proposals)


def test_an_answer_with_a_ticket_is_not_kept():
    """The response to a user identity may be a ticket (PS3.7 D.3.3.7.2)."""
    before = len(ours._answers)
    contexts = (PresentationContextAC(1, 0, "1.2.840.10008.1.2"),)
    items = (UserIdentityResponse(b"secret-of-answer"),)
    AAssociateAC(presentation_contexts=contexts, user_information=items).encode()
    assert not any(b"secret-of-answer" in kept.behind for kept in ours._answers.values())
    plain = AAssociateAC(presentation_contexts=contexts)
    assert plain.encode() == plain.encode()
    # The same contexts may be answered with something else.
    for other in (
        AAssociateAC(presentation_contexts=contexts, user_information=(MaximumLength(7),)),
        AAssociateAC(presentation_contexts=contexts, protocol_version=3),
        AAssociateAC(presentation_contexts=contexts, application_context="1.2"),
        AAssociateAC(presentation_contexts=contexts, unknown_items=(UnknownItem(0x60, b"x"),)),
    ):
        assert AAssociateAC.decode(other.encode()[6:]) == other
    assert len(ours._answers) <= before + 1


def test_few_and_short_proposals_are_kept():
    """Peers that send other octets each time fill no memory."""
    for number in range(200):
        _associate(MaximumLength(number), ImplementationClassUID("1." * 40 + str(number)))
    assert len(ours._proposals) <= 64
    for number in range(50):
        _associate(ImplementationVersionName(f"{number:16000}"))
    assert sum(map(len, ours._proposals)) <= 1 << 18
    _associate(ImplementationVersionName("x" * 20000))
    assert max(map(len, ours._proposals)) < 16500


def test_absent_user_information_is_accepted():
    """PS3.8 9.3.2.3 demands it; without it there is no limit and nothing to negotiate."""
    body = REQUEST.encode()[6:74] + b"\x10\0\0\x03" + b"1.2"
    (request,) = read(struct.pack(">BxI", 1, len(body)) + body)
    assert request.user_information == ()


@pytest.mark.parametrize("tail", [b"", b"\x40\0\0\0", b"\x40\0\0\3", b"\xff"])
def test_the_transfer_syntax_of_a_refused_context_is_not_significant(tail):
    """PS3.8 9.3.3.2: its value is not tested, so it may be absent, empty, or broken."""
    body = bytes((1, 0, 3, 0)) + tail
    assert PresentationContextAC.decode(body) == PresentationContextAC(1, 3)


# -- faults of the peer -----------------------------------------------------------------------------


def associate(*items: bytes, pdu_type: int = 1) -> bytes:
    body = bytes(68) + b"".join(items)
    return struct.pack(">BxI", pdu_type, len(body)) + body


APPLICATION_CONTEXT = b"\x10\0\0\x03" + b"1.2"


def context_rq(*items: bytes) -> bytes:
    body = b"\1\0\0\0" + b"".join(items)
    return struct.pack(">BxH", 0x20, len(body)) + body


ABSTRACT, TRANSFER = b"\x30\0\0\x03" + b"1.2", b"\x40\0\0\x03" + b"1.3"
WRONG = {
    "unknown type": (b"\x08\0\0\0\0\4abcd", 1, "type 08H; expected 01H to 07H$"),
    "type 0": (b"\0\0\0\0\0\4abcd", 1, "type 00H"),
    "HTTP": (b"GET / HTTP/1.1\r\n", 1, "looks like HTTP"),
    "HTTP server": (b"HTTP/1.1 400 Bad Request\r\n", 1, r"\(this looks like HTTP\)"),
    "SSH server": (b"SSH-2.0-OpenSSH_9.2\r\n", 1, r"\(this looks like SSH\)"),
    "TLS alert": (b"\x15\x03\x03\0\x02\x02\x46", 1, r"\(this looks like a port with TLS\)"),
    "TLS": (b"\x16\x03\x01\x02\0\x01\0\x01", 1, "TLS on a port without TLS"),
    "huge associate": (b"\1\0\0\x10\0\1", 6, "1048577 octets; expected 68 to 262144"),
    "huge abort": (b"\7\0\xff\xff\xff\xff", 6, "4294967295 octets"),
    "release of 0": (b"\5\0\0\0\0\0", 6, "0 octets; expected 4"),
    "release of 5": (b"\5\0\0\0\0\5", 6, "05H of 5 octets; expected 4 to 4"),
    "answer to release of 6": (b"\6\0\0\0\0\6", 6, "06H of 6 octets"),
    "abort of 7": (b"\7\0\0\0\0\7", 6, "07H of 7 octets"),
    "rejection of 8": (b"\3\0\0\0\0\x08", 6, "03H of 8 octets"),
    "request of 67": (b"\1\0\0\0\0\x43", 6, "01H of 67 octets; expected 68 to"),
    "acceptance of 67": (b"\2\0\0\0\0\x43", 6, "02H of 67 octets; expected 68 to"),
    "no application context": (associate(), 6, "0 application context items; expected 1"),
    "two of them": (associate(APPLICATION_CONTEXT * 2), 6, "2 application context items"),
    "two user informations": (
        associate(APPLICATION_CONTEXT, b"\x50\0\0\0" * 2),
        5,
        "2 user information items",
    ),
    "item beyond its PDU": (associate(APPLICATION_CONTEXT[:-1]), 6, "says 3 octets, .* has 2 left"),
    "stray octets": (associate(APPLICATION_CONTEXT, b"\1\2"), 6, "2 stray octets"),
    "sub-item beyond its item": (
        associate(APPLICATION_CONTEXT, b"\x50\0\0\x05\x51\0\0\4\1"),
        6,
        "user information .50H. has 1 left",
    ),
    "context of 3 octets": (
        associate(APPLICATION_CONTEXT, b"\x20\0\0\3\1\0\0"),
        6,
        "expected 4 octets or more, got 3",
    ),
    "answer of 3 octets": (
        associate(APPLICATION_CONTEXT, b"\x21\0\0\3\1\0\0", pdu_type=2),
        6,
        "expected 4 octets or more, got 3",
    ),
    "acceptance without transfer syntax": (
        associate(APPLICATION_CONTEXT, b"\x21\0\0\4\1\0\0\0", pdu_type=2),
        6,
        "context 1 has 0 transfer syntaxes",
    ),
    "acceptance with two": (
        associate(APPLICATION_CONTEXT, b"\x21\0\0\x12\1\0\0\0" + TRANSFER * 2, pdu_type=2),
        6,
        "context 1 has 2 transfer syntaxes",
    ),
    "P-DATA of 5 octets": (b"\4\0\0\0\0\5", 6, "P-DATA-TF of 5 octets"),
    "P-DATA of 0 octets": (b"\4\0\0\0\0\0", 6, "P-DATA-TF of 0 octets"),
    "P-DATA over the limit": (b"\4\0\0\0\1\1", 6, "257 octets; expected at most 256"),
    "PDV length 0": (b"\4\0\0\0\0\6\0\0\0\0\1\3", 6, "PDV of 0 octets"),
    "PDV length 1": (b"\4\0\0\0\0\6\0\0\0\1\1\3", 6, "PDV of 1 octets"),
    "PDV beyond its PDU": (b"\4\0\0\0\0\x08\0\0\0\5\1\3ab", 6, "5 octets in a P-DATA-TF with 8"),
    "PDV of 4 GiB": (b"\4\0\0\0\0\x08\xff\xff\xff\xff\1\3ab", 6, "PDV of 4294967295"),
    **{
        f"{n} stray octets behind a PDV": (
            struct.pack(">BxIIBB", 4, 8 + n, 4, 1, 3) + b"ab" + bytes(n),
            6,
            f"{n} stray octets after the last PDV",
        )
        for n in range(1, 6)
    },
}


@pytest.mark.parametrize(
    ("items", "abstract", "transfer"),
    [
        ((TRANSFER,), "", ("1.3",)),
        ((ABSTRACT, ABSTRACT, TRANSFER), "", ("1.3",)),
        ((ABSTRACT,), "1.2", ("",)),
        ((), "", ("",)),
    ],
    ids=["no abstract syntax", "two abstract syntaxes", "no transfer syntax", "nothing"],
)
def test_a_context_that_lacks_a_syntax_is_read(items, abstract, transfer):
    """PS3.8 9.3.2.2: it cannot be accepted, and the others can."""
    (request,) = read(associate(APPLICATION_CONTEXT, context_rq(*items)))
    assert request.presentation_contexts == (PresentationContextRQ(1, abstract, transfer),)
    assert not request.presentation_contexts[0].is_whole
    lacks = "A-ASSOCIATE-RQ: a presentation context lacks its abstract or its transfer syntax"
    assert lacks in request.deviations


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_pdu_is_refused_with_the_reason_that_fits(what):
    """PS3.8 9.3.8, Table 9-26; and the message says what was expected and what came."""
    data, reason, message = WRONG[what]
    with pytest.raises(PDUProcessingError, match=message) as caught:
        read(data, limit=256)
    assert caught.value.abort_reason == reason


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_pdu_is_refused_however_it_is_cut(what):
    """One octet at a time, the same refusal at the same octet at the latest."""
    data, _, message = WRONG[what]
    with pytest.raises(PDUProcessingError, match=message):
        read(*(data[n : n + 1] for n in range(len(data))), limit=256)


@pytest.mark.parametrize("method", [b"POST /", b"HEAD /", b"PUT / ", b"OPTION", b"CONNEC"])
def test_http_is_recognised_for_the_operator(method):
    """A health check or a browser on the DICOM port: the log should say so."""
    with pytest.raises(PDUProcessingError, match="looks like HTTP"):
        read(method)


@pytest.mark.parametrize(
    ("kind", "size"),
    [(AAssociateRQ, 67), (AAssociateAC, 0)]
    + [(kind, size) for kind in (AAssociateRJ, AReleaseRQ, AReleaseRP, AAbort) for size in (3, 5)],
)
def test_a_body_of_the_wrong_length_is_refused_without_the_reader_too(kind, size):
    """PS3.8 9.3: who decodes a body by hand gets the same error, not one of ``struct``."""
    with pytest.raises(PDUProcessingError, match=f"got {size}"):
        kind.decode(bytes(size))


def test_a_reader_that_has_failed_reads_no_more():
    """Nobody knows where the next PDU begins."""
    reader = PDUReader()
    with pytest.raises(PDUProcessingError):
        list(reader.feed(b"GET / HTTP/1.1\r\n"))
    assert list(reader.feed(AReleaseRQ().encode())) == []


def test_what_stands_before_the_wrong_pdu_is_handed_on():
    """The iterator raises where the fault is, not before."""
    received = PDUReader().feed(AReleaseRQ().encode() + b"\x08\0\0\0\0\0")
    assert next(received) == AReleaseRQ()
    with pytest.raises(PDUProcessingError):
        next(received)


# -- the stream -------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.data())
def test_any_cut_of_the_stream_gives_the_same(data):
    """TCP promises an order, not a cutting."""
    things = data.draw(pdu_streams)
    stream = b"".join(map(encoded, things))
    reader = PDUReader()
    found: list[object] = []
    for piece in data.draw(cuts(stream)):
        for item in reader.feed(piece):
            if isinstance(item, Fragment):
                last = found[-1] if found else None
                if isinstance(last, list) and not last[4]:
                    assert last[:2] == [item.context_id, item.is_command]
                    last[2], last[3] = item.is_last, last[3] + bytes(item.data)
                else:
                    last = [*item[:3], bytes(item.data), False]
                    found.append(last)
                last[4] = not reader._pdv_left
            else:
                found.append(item)
    expected: list[object] = []
    for thing in things:
        if isinstance(thing, list):
            expected += [[cid, h & 1 == 1, h & 2 == 2, value, True] for cid, h, value in thing]
        else:
            expected.append(thing)
    assert found == expected
    assert reader.is_between_pdus


@pytest.mark.slow
@given(p_datas, st.data())
def test_the_last_fragment_of_a_cut_pdv_is_the_last_octets_of_it(items, data):
    """PS3.8 Annex E: the *last* bit belongs to the PDV's end, not to each part of it."""
    pieces = data.draw(cuts(p_data_tf(items)))
    fragments = read(*pieces)
    assert sum(fragment.is_last for fragment in fragments) == sum(h & 2 == 2 for _, h, _ in items)
    for fragment in fragments:
        assert isinstance(fragment, Fragment)


@given(st.binary(max_size=400), st.sampled_from([0, 64]))
def test_arbitrary_bytes_are_pdus_or_a_processing_error(data, limit):
    """Whatever comes, nothing else is raised, and nothing is held beyond a control PDU."""
    reader = PDUReader(limit)
    try:
        for item in reader.feed(data):
            assert item is not None
    except PDUProcessingError:
        assert list(reader.feed(data)) == []


@given(control_pdus, st.data())
def test_a_damaged_pdu_is_a_pdu_or_a_processing_error(pdu, data):
    """One octet is changed anywhere, lengths included; nothing else comes out."""
    damaged = bytearray(pdu.encode())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(damaged))
    except PDUProcessingError:
        return
    for item in found:
        if not isinstance(item, Fragment):
            assert read(item.encode()) == [item]


def test_a_stream_may_end_between_pdus_only():
    """A peer that closes the connection anywhere else has cut off a PDU."""
    reader = PDUReader()
    assert reader.is_between_pdus
    data = p_data_tf([(1, 3, b"ab"), (1, 2, b"")]) + AReleaseRQ().encode()
    ends = []
    for n in range(len(data)):
        list(reader.feed(data[n : n + 1]))
        ends.append(reader.is_between_pdus)
    assert [n + 1 for n, end in enumerate(ends) if end] == [20, 30]


def test_a_pdv_of_its_control_header_alone_is_accepted():
    """PS3.8 Annex E: it must not be sent; receivers should accept it."""
    assert read(p_data_tf([(1, 3, b"")])) == [Fragment(1, True, True, b"")]
    assert read(p_data_tf([(1, 1, b""), (1, 3, b"ab")])) == [
        Fragment(1, True, False, b""),
        Fragment(1, True, True, b"ab"),
    ]


def test_the_upper_bits_of_the_control_header_are_not_checked():
    """PS3.8 E.2: bits 2 to 7 are sent as 0 and not checked."""
    assert read(p_data_tf([(1, 0xFF, b"ab"), (1, 0xFC, b"cd")])) == [
        Fragment(1, True, True, b"ab"),
        Fragment(1, False, False, b"cd"),
    ]


def test_a_pdv_may_fill_the_limit_to_the_octet():
    """PS3.8 D.1: the maximum counts the variable field, PDV headers included."""
    assert len(read(p_data_tf([(1, 0, bytes(250))]), limit=256)) == 1
    with pytest.raises(PDUProcessingError):
        read(p_data_tf([(1, 0, bytes(251))]), limit=256)


def test_fragments_are_views_and_copy_nothing():
    """The hot path: a data set goes from the transport's bytes to its sink without a copy."""
    data = p_data_tf([(1, 0, b"x" * 1000)])
    (fragment,) = read(data)
    assert isinstance(fragment.data, memoryview)
    assert fragment.data.obj is data


def traced_peak(reader: PDUReader, pieces: Iterable[bytes]) -> int:
    tracemalloc.start()
    try:
        for piece in pieces:
            for _ in reader.feed(piece):
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_p_data_is_never_held():
    """A P-DATA-TF of 4 GiB passes through; memory holds a view of the piece that came."""
    reader = PDUReader()
    piece = bytes(1 << 16)
    header = struct.pack(">BxIIBB", 4, 0xFFFFFFFF, 0xFFFFFFFB, 1, 0)
    assert traced_peak(reader, [header, *[piece] * 256]) < 1 << 14


def test_an_announced_length_costs_nothing_until_the_octets_come():
    """The ancestor grew to whatever a peer announced."""
    header = struct.pack(">BxI", 1, MAXIMUM_CONTROL_PDU_LENGTH)
    assert traced_peak(PDUReader(), [header, bytes(100)]) < 1 << 14


def test_a_control_pdu_that_comes_octet_by_octet_is_not_copied_again_and_again():
    """The ancestor joined and sliced its buffer for each read: quadratic in the PDU's length."""
    contexts = tuple(
        PresentationContextRQ(2 * n + 1, CT, tuple(f"1.2.{k}" for k in range(40)))
        for n in range(128)
    )
    request = AAssociateRQ(
        called_ae_title="A", calling_ae_title="B", presentation_contexts=contexts
    )
    data = request.encode()
    assert len(data) > 40_000
    reader = PDUReader()
    held = [
        sum(1 for _ in reader.feed(data[n : n + 1])) or len(reader._held) for n in range(len(data))
    ]
    assert held[-1] == 1
    assert max(held) < len(data)


def test_the_largest_control_pdu_is_read():
    """The bound is about the variable field, and another one can be given."""
    for limit in (MAXIMUM_CONTROL_PDU_LENGTH, 1 << 20):
        frame = len(associate(APPLICATION_CONTEXT)) - 6
        fillers, rest = divmod(limit - frame, 0xF000)
        items = [UnknownItem(0xF0, bytes(0xF000 - 4)).encode()] * fillers
        items.append(UnknownItem(0xF0, bytes(rest - 4)).encode())
        data = associate(APPLICATION_CONTEXT, *items)
        assert len(data) == limit + 6
        (request,) = PDUReader(associate_limit=limit).feed(data)
        assert len(request.unknown_items) == fillers + 1
        with pytest.raises(PDUProcessingError, match=f"expected 68 to {limit - 1}"):
            list(PDUReader(associate_limit=limit - 1).feed(data))


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


MANY = {
    "transfer syntaxes": (
        associate(
            APPLICATION_CONTEXT,
            *[item(0x20, b"\1\0\0\0" + ABSTRACT + item(0x40, b"") * 4000)] * 5,
        ),
        r"presentation context \(20H\) has more than 380 items",
    ),
    "unknown sub-items": (
        associate(
            APPLICATION_CONTEXT,
            *[item(0x20, b"\1\0\0\0" + ABSTRACT + TRANSFER + item(0x99, b"") * 4000)] * 5,
        ),
        r"presentation context \(20H\) has more than 376 items",
    ),
    "items": (
        associate(APPLICATION_CONTEXT, item(0x99, b"") * 1024),
        "A-ASSOCIATE-RQ has more than 1024 items",
    ),
    "user items": (
        associate(APPLICATION_CONTEXT, item(0x50, item(0x77, b"") * 1025)),
        r"user information \(50H\) has more than 1024 items",
    ),
    "related SOP classes": (
        associate(
            APPLICATION_CONTEXT,
            item(0x50, item(0x57, struct.pack(">HHH", 0, 0, 2050) + bytes(2050))),
        ),
        r"\(57H\) has more than 1024 related SOP classes",
    ),
}


@pytest.mark.parametrize("what", MANY)
def test_too_many_small_items_are_refused(what):
    """1 MiB of items of 4 octets cost a second before anybody had looked at the AE titles."""
    data, words = MANY[what]
    with pytest.raises(PDUProcessingError, match=words) as caught:
        read(data)
    assert caught.value.abort_reason == 6


def test_as_many_items_as_the_standard_has_room_for_are_read():
    """PS3.8 9.3.2.2 and PS3.7 D.3.3: 128 contexts with every transfer syntax, each class with all its items."""
    syntaxes = b"".join(item(0x40, each.encode()) for each in ALL_TRANSFER_SYNTAXES)
    contexts = [item(0x20, bytes((2 * n + 1, 0, 0, 0)) + ABSTRACT + syntaxes) for n in range(128)]
    classes = [uid.encode() for uid in STORAGE_SOP_CLASSES[:128]]
    sized = [struct.pack(">H", len(uid)) + uid for uid in classes]
    user = [
        encoded
        for uid in sized
        for encoded in (
            item(0x54, uid + b"\1\1"),
            item(0x56, uid + b"\1"),
            item(0x57, uid + uid + bytes(2)),
        )
    ]
    data = associate(APPLICATION_CONTEXT, *contexts, item(0x50, b"".join(user)))
    (request,) = read(data)
    assert len(request.presentation_contexts) == 128
    assert len(request.user_information) == 3 * 128


def test_the_titles_are_known_from_the_first_74_octets():
    """PS3.8 Table 9-11: they stand before the items, so a caller may be refused for its title."""
    reader = PDUReader()
    data = REQUEST.encode()
    assert reader.titles is None
    assert list(reader.feed(data[:73])) == []
    assert reader.titles is None
    assert list(reader.feed(data[73:74])) == []
    assert reader.titles == (REQUEST.called_ae_title, REQUEST.calling_ae_title)
    assert len(list(reader.feed(data[74:]))) == 1
    assert reader.titles is None


def test_a_request_does_not_show_what_its_reserved_octets_hold():
    """Equality and ``repr`` are about what the standard says, not about octets nobody tests."""
    (again,) = read(REQUEST.encode())
    assert again.reserved != REQUEST.reserved
    assert again == REQUEST
    assert "reserved" not in repr(again)
