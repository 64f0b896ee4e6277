"""Hypothesis strategies for what goes over the wire: items, PDUs, messages, and cuts of a stream.

The values are valid: whatever a strategy makes can be encoded. Broken input is made in the tests.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from hypothesis import strategies as st

from netdicom_tx import dimsemessages as dimse
from netdicom_tx import pdu, userdataitems

octets = st.integers(0, 0xFF)
shorts = st.integers(0, 0xFFFF)
small_bytes = st.binary(max_size=24)

uids = st.lists(st.integers(0, 99999), min_size=2, max_size=8).map(
    lambda parts: ".".join(map(str, parts))
)
# PS3.5 6.2, AE: ISO 646 without backslash and control characters; outer spaces are not significant.
_AE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) != "\\")
ae_titles = st.one_of(
    st.text(_AE, min_size=1, max_size=16),
    st.builds(
        "{} {}".format, st.text(_AE, min_size=1, max_size=7), st.text(_AE, min_size=1, max_size=8)
    ),
)
odd_ids = st.integers(0, 127).map(lambda n: 2 * n + 1)

# -- user information (PS3.7 D.3.3) ---------------------------------------------------------------

maximum_lengths = st.builds(userdataitems.MaximumLength, st.integers(0, 0xFFFFFFFF))
version_names = st.text(_AE + " ", min_size=1, max_size=16)
_KNOWN_ITEMS = range(0x51, 0x5A)

user_items: dict[type, st.SearchStrategy[Any]] = {
    userdataitems.MaximumLength: maximum_lengths,
    userdataitems.ImplementationClassUID: st.builds(userdataitems.ImplementationClassUID, uids),
    userdataitems.AsynchronousOperationsWindow: st.builds(
        userdataitems.AsynchronousOperationsWindow, shorts, shorts
    ),
    userdataitems.RoleSelection: st.builds(
        userdataitems.RoleSelection, uids, st.booleans(), st.booleans()
    ),
    userdataitems.ImplementationVersionName: st.builds(
        userdataitems.ImplementationVersionName, version_names
    ),
    userdataitems.SOPClassExtendedNegotiation: st.builds(
        userdataitems.SOPClassExtendedNegotiation, uids, small_bytes
    ),
    userdataitems.SOPClassCommonExtendedNegotiation: st.builds(
        userdataitems.SOPClassCommonExtendedNegotiation,
        uids,
        uids,
        st.lists(uids, max_size=3).map(tuple),
        octets,
        small_bytes,
    ),
    userdataitems.UserIdentity: st.builds(
        userdataitems.UserIdentity, octets, small_bytes, small_bytes, st.booleans()
    ),
    userdataitems.UserIdentityResponse: st.builds(userdataitems.UserIdentityResponse, small_bytes),
    userdataitems.UnknownItem: st.builds(
        userdataitems.UnknownItem, octets.filter(lambda n: n not in _KNOWN_ITEMS), small_bytes
    ),
}
any_user_item = st.one_of(*user_items.values())
user_information = st.lists(any_user_item, max_size=5).map(tuple)

# -- PDUs (PS3.8 9.3) -----------------------------------------------------------------------------

contexts_rq = st.builds(
    pdu.PresentationContextRQ, octets, uids, st.lists(uids, min_size=1, max_size=3).map(tuple)
)
contexts_ac = st.one_of(
    st.builds(pdu.PresentationContextAC, octets, st.just(0), uids),
    st.builds(pdu.PresentationContextAC, octets, st.integers(1, 255)),
)
_unknown_items = st.lists(
    st.builds(
        userdataitems.UnknownItem,
        octets.filter(lambda n: n not in (0x10, 0x20, 0x21, 0x50)),
        small_bytes,
    ),
    max_size=2,
).map(tuple)
associate_rqs = st.builds(
    pdu.AAssociateRQ,
    called_ae_title=ae_titles,
    calling_ae_title=ae_titles,
    presentation_contexts=st.lists(contexts_rq, max_size=3).map(tuple),
    user_information=user_information,
    application_context=uids,
    protocol_version=shorts,
    unknown_items=_unknown_items,
)
associate_acs = st.builds(
    pdu.AAssociateAC,
    presentation_contexts=st.lists(contexts_ac, max_size=3).map(tuple),
    user_information=user_information,
    application_context=uids,
    protocol_version=shorts,
    unknown_items=_unknown_items,
    reserved=st.binary(min_size=64, max_size=64),
)
associate_rjs = st.builds(pdu.AAssociateRJ, octets, octets, octets)
aborts = st.builds(pdu.AAbort, octets, octets)
releases = st.sampled_from((pdu.AReleaseRQ(), pdu.AReleaseRP()))
control_pdus = st.one_of(associate_rqs, associate_acs, associate_rjs, aborts, releases)

#: (context ID, message control header, value) of a PDV.
pdvs = st.tuples(octets, st.integers(0, 3), st.binary(max_size=40))


def p_data_tf(items: Iterable[tuple[int, int, bytes]]) -> bytes:
    """A P-DATA-TF by hand (PS3.8 9.3.5), not through the code that is tested."""
    body = b"".join(
        struct.pack(">IBB", len(value) + 2, context_id, header) + value
        for context_id, header, value in items
    )
    return struct.pack(">BxI", 4, len(body)) + body


p_datas = st.lists(pdvs, min_size=1, max_size=4)

#: What a stream is made of: values of control PDUs, and lists of PDVs for a P-DATA-TF each.
pdu_streams = st.lists(st.one_of(control_pdus, p_datas), min_size=1, max_size=5)


def encoded(what: Any) -> bytes:
    return p_data_tf(what) if isinstance(what, list) else bytes(what.encode())


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces; now and then one by one, now and then with empty ones between."""
    if draw(st.integers(0, 7)) == 0 and len(data) < 2000:
        return [data[n : n + 1] for n in range(len(data))]
    where = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *where], [*where, len(data)], strict=True)]


# -- DIMSE messages (PS3.7 9.3, 10.3) -------------------------------------------------------------

_texts = st.text(_AE, min_size=1, max_size=64)
_tags = st.lists(st.integers(0, 0xFFFFFFFF), max_size=4).map(tuple)
_ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "affected_sop_class_uid": uids,
    "requested_sop_class_uid": uids,
    "affected_sop_instance_uid": uids,
    "requested_sop_instance_uid": uids,
    "move_destination": ae_titles,
    "move_originator_application_entity_title": ae_titles,
    "error_comment": _texts,
    "offending_element": _tags,
    "attribute_identifier_list": _tags,
}
KINDS: list[type[dimse.Message]] = sorted(
    dimse.MESSAGE_TYPE.values(), key=lambda kind: kind.COMMAND_FIELD
)


def messages_of(
    kind: type[dimse.Message], data_sets: st.SearchStrategy[Any] | None = None
) -> st.SearchStrategy[Any]:
    """Messages of one class; every optional element is now there, now absent."""
    arguments: dict[str, st.SearchStrategy[Any]] = {
        "data_set": st.none() if data_sets is None else data_sets
    }
    for field in fields(kind):
        if field.name == "data_set":
            continue
        element = _ELEMENTS.get(field.name, shorts)
        optional = field.default is not MISSING and field.name not in ("message_id", "priority")
        arguments[field.name] = st.none() | element if optional else element
    return st.builds(kind, **arguments)


data_sets = st.none() | st.binary(max_size=60).map(lambda b: b + b"\0" * (len(b) % 2))
messages = st.sampled_from(KINDS).flatmap(lambda kind: messages_of(kind, data_sets))
