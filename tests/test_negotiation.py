"""What is proposed, accepted and refused (PS3.8 9.3.2 to 9.3.4, PS3.7 D.3.3)."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import support.strategies  # noqa: F401 - its Hypothesis profile
from netdicom_tx import negotiation
from netdicom_tx.exceptions import AssociationError, LocalProtocolError, PDUProcessingError
from netdicom_tx.negotiation import (
    MAXIMUM_CONTEXTS,
    NO_WINDOW,
    Offer,
    PContextDef,
    Window,
    accepted_contexts,
    answer_contexts,
    answer_roles,
    answer_window,
    check_context_ids,
    confirmed,
    contexts_for_instances,
    contexts_to_receive,
    identification,
    plan_contexts,
    refusals,
    reject_reason,
)
from netdicom_tx.pdu import (
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    PresentationContextAC,
    PresentationContextRQ,
)
from netdicom_tx.uids import STORAGE_SOP_CLASSES, is_everywhere, is_rare
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserDataItem,
    UserIdentity,
    UserIdentityResponse,
)
from support.layouts import TABLES

CT, MR, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
JPEG, RLE = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
FIND, DEFLATED = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2.1.99"


def request(
    *contexts: tuple[str, tuple[str, ...]], items: tuple[UserDataItem, ...] = (), **values: object
) -> AAssociateRQ:
    """A request whose contexts have the IDs 1, 3, 5, ..."""
    proposals = tuple(
        PresentationContextRQ(2 * n + 1, uid, syntaxes)
        for n, (uid, syntaxes) in enumerate(contexts)
    )
    arguments = {
        "called_ae_title": "ACCEPTOR",
        "calling_ae_title": "REQUESTOR",
        "presentation_contexts": proposals,
        "user_information": items,
    }
    return AAssociateRQ(**arguments | values)


def answer(*contexts: tuple[int, int, str], items: tuple[UserDataItem, ...] = ()) -> AAssociateAC:
    return AAssociateAC(
        presentation_contexts=tuple(PresentationContextAC(*context) for context in contexts),
        user_information=items,
    )


def offering(**offers: Offer) -> Callable[[str], Offer | None]:
    """What an acceptor has, named by ``CT`` and ``MR``."""
    return {globals()[name]: offer for name, offer in offers.items()}.get


# -- the requestor's plan -------------------------------------------------------------------------


def test_uncompressed_transfer_syntaxes_share_a_context():
    """Between them a data set can be re-encoded without loss; each other one stands alone."""
    assert plan_contexts({FIND: (DEFLATED, EXPLICIT, IMPLICIT), VERIFICATION: (IMPLICIT,)}) == (
        PresentationContextRQ(1, FIND, (DEFLATED,)),
        PresentationContextRQ(3, FIND, (EXPLICIT, IMPLICIT)),
        PresentationContextRQ(5, VERIFICATION, (IMPLICIT,)),
    )


def test_storage_has_a_context_for_each_transfer_syntax_while_there_is_room():
    """An acceptor that picks implicit VR must not make us re-encode what is explicit."""
    assert plan_contexts({CT: (JPEG, EXPLICIT, IMPLICIT)}) == (
        PresentationContextRQ(1, CT, (JPEG,)),
        PresentationContextRQ(3, CT, (EXPLICIT,)),
        PresentationContextRQ(5, CT, (IMPLICIT,)),
    )
    many = dict.fromkeys(STORAGE_SOP_CLASSES[:100], (EXPLICIT, IMPLICIT))
    assert {context.transfer_syntaxes for context in plan_contexts(many)} == {(EXPLICIT, IMPLICIT)}


def test_the_order_of_preference_is_kept():
    """PS3.8 9.3.2.2: the ancestor proposed a set, in any order."""
    (context,) = plan_contexts({FIND: (IMPLICIT, EXPLICIT)})
    assert context.transfer_syntaxes == (IMPLICIT, EXPLICIT)
    (context,) = plan_contexts({FIND: (EXPLICIT, IMPLICIT)})
    assert context.transfer_syntaxes == (EXPLICIT, IMPLICIT)


def test_pairs_become_contexts_as_they_are():
    """A caller that names the contexts has its reasons."""
    assert plan_contexts([(CT, (JPEG, EXPLICIT)), (CT, [IMPLICIT])]) == (
        PresentationContextRQ(1, CT, (JPEG, EXPLICIT)),
        PresentationContextRQ(3, CT, (IMPLICIT,)),
    )


def test_what_is_named_twice_is_proposed_once():
    """A transfer syntax twice in one context says nothing more."""
    assert plan_contexts({CT: (IMPLICIT, JPEG, IMPLICIT, JPEG)}) == (
        PresentationContextRQ(1, CT, (IMPLICIT,)),
        PresentationContextRQ(3, CT, (JPEG,)),
    )


@given(st.integers(1, MAXIMUM_CONTEXTS))
def test_context_ids_are_odd_and_fit_an_octet(count):
    """PS3.8 9.3.2.2: 1 to 255; the ancestor's went up to 277."""
    contexts = plan_contexts({f"1.2.{n}": (IMPLICIT,) for n in range(count)})
    assert [context.context_id for context in contexts] == list(range(1, 2 * count, 2))
    check_context_ids(
        AAssociateRQ(called_ae_title="A", calling_ae_title="B", presentation_contexts=contexts)
    )


def test_more_than_an_association_holds_is_refused_with_advice():
    """PS3.8 9.3.2.2: all storage SOP classes at once are more than 128."""
    with pytest.raises(LocalProtocolError, match=r"^210 presentation contexts .* 128: .*store_all"):
        plan_contexts(dict.fromkeys(STORAGE_SOP_CLASSES, (IMPLICIT,)))


@pytest.mark.parametrize("needs", [{}, []])
def test_nothing_to_propose_is_refused_with_advice(needs):
    """PS3.8 9.3.2: an A-ASSOCIATE-RQ has one context or more."""
    with pytest.raises(LocalProtocolError, match="add_scu"):
        plan_contexts(needs)


@pytest.mark.parametrize("needs", [{CT: ()}, [(CT, ())], {CT: (IMPLICIT,), MR: ()}])
def test_a_sop_class_without_transfer_syntax_is_refused(needs):
    """PS3.8 9.3.2.2: one or more; it must not disappear, nor go out without."""
    with pytest.raises(LocalProtocolError, match="no transfer syntax"):
        plan_contexts(needs)


def test_instances_are_proposed_in_their_own_transfer_syntax_first():
    """A file goes out as it is; the other default one stands behind a default one."""
    entries = contexts_for_instances(
        [(CT, EXPLICIT), (CT, JPEG), (MR, IMPLICIT), (CT, EXPLICIT), (CT, IMPLICIT)]
    )
    assert entries == [
        (CT, (EXPLICIT, IMPLICIT)),
        (CT, (JPEG,)),
        (MR, (IMPLICIT, EXPLICIT)),
        (CT, (IMPLICIT, EXPLICIT)),
    ]
    assert len(plan_contexts(entries)) == 4


@pytest.mark.parametrize("own", [BIG_ENDIAN, DEFLATED])
def test_little_endian_is_proposed_beside_what_few_can_read(own):
    """PS3.5 10.1: the default transfer syntax is offered wherever the sender can make it."""
    assert contexts_for_instances([(CT, own)]) == [(CT, (own, EXPLICIT, IMPLICIT))]


PLAIN = (EXPLICIT, IMPLICIT)


def test_a_class_that_every_site_has_is_received_on_a_context_for_each_plain_syntax():
    """PS3.8 9.3.3.2: the acceptor takes one transfer syntax of a context, and may convert nothing."""
    needs = [(uid, PLAIN) for uid in STORAGE_SOP_CLASSES]
    entries = contexts_to_receive(needs, 127)
    assert len(entries) == 127
    for uid in filter(is_everywhere, STORAGE_SOP_CLASSES):
        assert [syntaxes for each, syntaxes in entries if each == uid] == [(EXPLICIT,), (IMPLICIT,)]
    shared = [uid for uid, syntaxes in entries if syntaxes == PLAIN]
    assert len(shared) > 80
    assert not any(map(is_rare, shared))


@given(
    st.lists(st.sampled_from(STORAGE_SOP_CLASSES), unique=True, min_size=1),
    st.integers(1, 127),
    st.permutations([EXPLICIT, IMPLICIT, JPEG, RLE, BIG_ENDIAN]),
    st.sets(st.sampled_from([JPEG, RLE])),
)
def test_contexts_to_receive_fit_and_lose_no_transfer_syntax(classes, room, syntaxes, alone):
    entries = contexts_to_receive([(uid, syntaxes) for uid in classes], room, tuple(alone))
    assert 0 < len(entries) <= room
    for uid in {uid for uid, _ in entries}:
        groups = [group for each, group in entries if each == uid]
        assert sorted(ts for group in groups for ts in group) == sorted(syntaxes)
        assert len(groups) == 1 or all(
            len(group) == 1 for group in groups if {*group} & {*alone, *PLAIN}
        )


def test_every_association_begins_with_what_is_obligatory():
    """PS3.8 D.1 and PS3.7 D.3.3.2: maximum length, implementation class UID, and version name."""
    length, implementation, version = identification(16384)
    assert length == MaximumLength(16384)
    assert isinstance(implementation, ImplementationClassUID)
    assert isinstance(version, ImplementationVersionName)
    assert 1 <= len(version.name) <= 16


# -- the requestor reads the answer ---------------------------------------------------------------

PROPOSED = request((CT, (JPEG,)), (CT, (EXPLICIT, IMPLICIT)), (MR, (IMPLICIT,)))


def test_accepted_contexts_have_the_transfer_syntax_that_was_chosen():
    """PS3.8 9.3.3.2: the answers may come in any order; refused ones are left out."""
    accepted = accepted_contexts(PROPOSED, answer((5, 3, ""), (3, 0, IMPLICIT), (1, 0, JPEG)))
    assert accepted == {3: PContextDef(3, CT, IMPLICIT), 1: PContextDef(1, CT, JPEG)}
    assert accepted[3].transfer_syntax == accepted[3].supported_ts == IMPLICIT
    assert accepted[3].abstract_syntax == accepted[3].sop_class == CT


@pytest.mark.parametrize(
    ("contexts", "reason", "message"),
    [
        (((5, 0, EXPLICIT),), 6, "context 5 was accepted with a transfer syntax"),
        (((1, 0, IMPLICIT),), 6, "context 1 was accepted with a transfer syntax"),
    ],
)
def test_an_answer_to_what_was_not_proposed_is_a_fault_of_the_peer(contexts, reason, message):
    """PS3.8 9.3.3.2: data in another encoding would be misread."""
    with pytest.raises(PDUProcessingError, match=message) as caught:
        accepted_contexts(PROPOSED, answer(*contexts))
    assert caught.value.abort_reason == reason


@pytest.mark.parametrize("extra", [(7, 0, IMPLICIT), (7, 0, "1.2.3"), (7, 3, ""), (2, 0, CT)])
def test_an_answer_to_a_context_that_was_not_proposed_is_ignored(extra):
    """PS3.8 9.3.3.2: it says nothing about the contexts that were."""
    found = accepted_contexts(PROPOSED, answer((1, 0, JPEG), extra))
    assert found == {1: PContextDef(1, CT, JPEG)}


@pytest.mark.parametrize(
    ("asked", "granted", "roles"),
    [
        (None, None, (True, False)),
        (None, (True, True), (True, False)),
        ((True, True), None, (True, False)),
        ((True, True), (True, True), (True, True)),
        ((True, True), (False, True), (False, True)),
        ((True, True), (True, False), (True, False)),
        ((False, True), (False, True), (False, True)),
        ((False, True), (True, True), (False, True)),
        ((True, False), (True, True), (True, False)),
    ],
)
def test_a_role_is_taken_when_it_was_proposed_and_accepted(asked, granted, roles):
    """PS3.7 D.3.3.4: no answer means the default, an answer for an unproposed role is ignored."""
    proposal = request((CT, (IMPLICIT,)), items=(RoleSelection(CT, *asked),) if asked else ())
    grant = answer((1, 0, IMPLICIT), items=(RoleSelection(CT, *granted),) if granted else ())
    context = accepted_contexts(proposal, grant)[1]
    assert (context.as_scu, context.as_scp) == roles


def test_the_user_is_told_what_the_peer_said_to_each_transfer_syntax():
    """PS3.8 Table 9-18, in words for the operator."""
    proposal = request((CT, (JPEG,)), (CT, (EXPLICIT, IMPLICIT)), (MR, (IMPLICIT,)), (CT, (RLE,)))
    said = answer((1, 4, ""), (3, 0, IMPLICIT), (5, 3, ""))
    assert refusals(proposal, said, CT) == {
        JPEG: "transfer syntax not supported",
        EXPLICIT: "another was chosen",
        IMPLICIT: "accepted",
        RLE: "not answered",
    }
    assert refusals(proposal, said, MR) == {IMPLICIT: "abstract syntax not supported"}
    assert refusals(proposal, said, VERIFICATION) == {}


@pytest.mark.parametrize(
    ("result", "word"),
    [(1, "user"), (2, "reason"), (3, "abstract syntax"), (4, "transfer syntax"), (77, "77")],
)
def test_each_result_has_its_words(result, word):
    """PS3.8 Table 9-18; and a reserved one its number."""
    told = refusals(request((CT, (RLE,))), answer((1, result, "")), CT)[RLE]
    assert word in told
    assert word in TABLES["values"]["pc_result"].get(str(result), "77").replace("-", " ")


# -- the acceptor: the association as a whole -----------------------------------------------------

GOOD = request((CT, (IMPLICIT,)))


@pytest.mark.parametrize(
    ("values", "rejection"),
    [
        ({}, None),
        ({"application_context": "1.2.3"}, AAssociateRJ(1, 1, 2)),
        ({"called_ae_title": ""}, AAssociateRJ(1, 1, 7)),
        ({"called_ae_title": "A\\B"}, AAssociateRJ(1, 1, 7)),
        ({"called_ae_title": "A\x1b"}, AAssociateRJ(1, 1, 7)),
        ({"calling_ae_title": ""}, AAssociateRJ(1, 1, 3)),
        ({"calling_ae_title": "..\\x"}, AAssociateRJ(1, 1, 3)),
        ({"calling_ae_title": "\xc4"}, AAssociateRJ(1, 1, 3)),
        ({"user_information": (MaximumLength(0),)}, None),
        ({"user_information": (MaximumLength(8),)}, None),
        ({"user_information": (MaximumLength(7),)}, AAssociateRJ(1, 1, 1)),
        ({"user_information": (MaximumLength(1),)}, AAssociateRJ(1, 1, 1)),
        ({"user_information": (MaximumLength(0xFFFFFFFF),)}, None),
    ],
)
def test_a_request_is_rejected_for_what_it_says(values, rejection):
    """PS3.8 Table 9-21: application context, titles, and a length in which nothing fits."""
    assert reject_reason(replace(GOOD, **values)) == rejection


@pytest.mark.parametrize(
    ("called", "calling", "rejection"),
    [
        (None, None, None),
        (("ACCEPTOR", "OTHER"), ("REQUESTOR",), None),
        (("OTHER",), None, AAssociateRJ(1, 1, 7)),
        (None, ("OTHER",), AAssociateRJ(1, 1, 3)),
        (("acceptor",), None, AAssociateRJ(1, 1, 7)),
        ((), None, AAssociateRJ(1, 1, 7)),
        (("OTHER",), ("OTHER",), AAssociateRJ(1, 1, 7)),
    ],
)
def test_a_title_that_is_not_served_is_rejected(called, calling, rejection):
    """PS3.8 Table 9-21, source 1, reasons 3 and 7; the ancestor never looked at the called one."""
    found = reject_reason(GOOD, called_ae_titles=called, calling_ae_titles=calling)
    assert found == rejection


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "0 presentation contexts"),
        ([1, 3, 1], "ID 1 comes twice"),
        ([2, 4, 2], "ID 2 comes twice"),
        ([*range(1, 256, 2), 1], "129 presentation contexts; expected 1 to 128"),
    ],
)
def test_context_ids_that_cannot_be_told_apart_are_a_fault_of_the_peer(ids, message):
    """PS3.8 9.3.2.2: unique within the association."""
    proposal = AAssociateRQ(
        called_ae_title="A",
        calling_ae_title="B",
        presentation_contexts=tuple(PresentationContextRQ(n, CT, (IMPLICIT,)) for n in ids),
    )
    with pytest.raises(PDUProcessingError, match=message) as caught:
        check_context_ids(proposal)
    assert caught.value.abort_reason == 6


@pytest.mark.parametrize("ids", [[2], [0], [1, 2, 3, 4], [254, 0, 255]])
def test_even_context_ids_can_be_told_apart(ids):
    """PS3.8 9.3.2.2 wants odd ones; dcm4che's stgcmtscu sends 1 and 2."""
    check_context_ids(
        AAssociateRQ(
            called_ae_title="A",
            calling_ae_title="B",
            presentation_contexts=tuple(PresentationContextRQ(n, CT, (IMPLICIT,)) for n in ids),
        )
    )


# -- the acceptor: contexts -----------------------------------------------------------------------


def test_each_context_gets_the_result_that_fits():
    """PS3.8 Table 9-18: 3 abstract syntax, 4 transfer syntaxes; the ancestor always said 1."""
    proposal = request(
        (CT, (JPEG, IMPLICIT)), (MR, (IMPLICIT,)), (CT, (RLE,)), (VERIFICATION, (RLE,))
    )
    answers, accepted = answer_contexts(proposal, offering(CT=Offer((IMPLICIT, EXPLICIT))))
    assert [(context.context_id, int(context.result)) for context in answers] == [
        (1, 0),
        (3, 3),
        (5, 4),
        (7, 3),
    ]
    assert answers[0].transfer_syntax == IMPLICIT
    assert accepted == {1: PContextDef(1, CT, IMPLICIT, as_scu=False, as_scp=True)}


@given(
    st.permutations([JPEG, RLE, EXPLICIT, IMPLICIT]),
    st.lists(st.sampled_from([JPEG, RLE, EXPLICIT, IMPLICIT]), min_size=1),
)
def test_the_requestors_preference_decides(proposed, taken):
    """The requestor knows in which one its data sets are; the first that we can take is chosen."""
    answers, accepted = answer_contexts(
        request((CT, tuple(proposed))), offering(CT=Offer(tuple(taken)))
    )
    expected = next(uid for uid in proposed if uid in taken)
    assert answers[0].transfer_syntax == accepted[1].transfer_syntax == expected


@pytest.mark.parametrize(
    ("proposed", "expected"),
    [
        ((BIG_ENDIAN, EXPLICIT, IMPLICIT), EXPLICIT),
        ((BIG_ENDIAN, IMPLICIT, EXPLICIT), IMPLICIT),
        ((BIG_ENDIAN, JPEG, IMPLICIT), IMPLICIT),
        ((BIG_ENDIAN, JPEG), BIG_ENDIAN),
        ((BIG_ENDIAN,), BIG_ENDIAN),
        ((IMPLICIT, BIG_ENDIAN), IMPLICIT),
        ((DEFLATED, EXPLICIT), DEFLATED),
    ],
)
def test_little_endian_is_taken_rather_than_big_endian(proposed, expected):
    """PS3.5 A.3 is retired, and a sender that offers little endian too can convert what it has."""
    offer = Offer((BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG))
    answers, accepted = answer_contexts(request((CT, proposed)), offering(CT=offer))
    assert answers[0].transfer_syntax == accepted[1].transfer_syntax == expected


def test_an_offer_is_asked_for_once():
    """128 contexts of one SOP class do not cost 128 look-ups of a policy."""
    asked: list[str] = []

    def offers(uid: str) -> Offer:
        asked.append(uid)
        return Offer((IMPLICIT,))

    proposal = request(*[(CT, (IMPLICIT,))] * 100, (MR, (RLE,)))
    answers, accepted = answer_contexts(proposal, offers)
    assert asked == [CT, MR]
    assert (len(answers), len(accepted)) == (101, 100)


def test_four_thousand_transfer_syntaxes_are_answered():
    """A request of hostile size gets its answer, result 0 or 4."""
    many = tuple(f"1.2.{n}" for n in range(4000))
    offers = offering(CT=Offer((*(f"1.3.{n}" for n in range(100)), "1.2.3999")))
    (taken,), _ = answer_contexts(request((CT, many)), offers)
    assert (taken.result, taken.transfer_syntax) == (0, "1.2.3999")
    (refused,), _ = answer_contexts(request((CT, many[:-1])), offers)
    assert refused.result == 4


# -- the acceptor: roles --------------------------------------------------------------------------


def roles_for(proposed: tuple[bool, bool] | None, offer: Offer) -> tuple[object, ...]:
    """What is answered to a role selection: the item's roles, and the acceptor's own."""
    items = (RoleSelection(CT, *proposed),) if proposed else ()
    proposal = request((CT, (IMPLICIT,)), items=items)
    answers = answer_roles(proposal, offering(CT=offer))
    _, accepted = answer_contexts(proposal, offering(CT=offer))
    ours = (accepted[1].as_scu, accepted[1].as_scp) if accepted else None
    return ((answers[0].scu_role, answers[0].scp_role) if answers else None), ours


SCP, SCU = Offer((IMPLICIT,)), Offer((IMPLICIT,), as_scp=False, as_scu=True)
BOTH = Offer((IMPLICIT,), as_scp=True, as_scu=True)


@pytest.mark.parametrize(
    ("proposed", "offer", "answered", "ours"),
    [
        # Nothing proposed: the requestor is SCU, the acceptor SCP, and nothing is answered.
        (None, SCP, None, (False, True)),
        (None, BOTH, None, (False, True)),
        (None, SCU, None, None),
        ((True, False), SCP, (True, False), (False, True)),
        ((True, True), SCP, (True, False), (False, True)),
        ((True, True), BOTH, (True, True), (True, True)),
        ((False, True), BOTH, (False, True), (True, False)),
        ((False, True), SCU, (False, True), (True, False)),
        # Roles that this side cannot complement.
        ((False, True), SCP, (False, False), None),
        ((True, False), SCU, (False, False), None),
        ((False, False), BOTH, (False, False), None),
    ],
)
def test_a_role_is_granted_that_was_proposed_and_can_be_complemented(
    proposed, offer, answered, ours
):
    """PS3.7 D.3.3.4.2: 1 is never returned for a role proposed with 0; without a role, result 3."""
    assert roles_for(proposed, offer) == (answered, ours)


def test_a_role_for_what_is_not_proposed_or_not_known_is_not_answered():
    """PS3.7 D.3.3.4: never in the answer when the request had none for a context."""
    items = (RoleSelection(MR, True, True), RoleSelection(CT, True, True))
    proposal = request((CT, (IMPLICIT,)), (VERIFICATION, (IMPLICIT,)), items=items)
    assert answer_roles(proposal, offering(CT=BOTH, MR=BOTH)) == (RoleSelection(CT, True, True),)
    assert answer_roles(proposal, offering()) == ()


@given(st.tuples(st.booleans(), st.booleans()), st.booleans(), st.booleans())
def test_both_sides_agree_on_the_roles(proposed, as_scp, as_scu):
    """What the acceptor answers and keeps is what the requestor reads out of it, mirrored."""
    offers = offering(CT=Offer((IMPLICIT,), as_scp=as_scp, as_scu=as_scu))
    proposal = request((CT, (IMPLICIT,)), items=(RoleSelection(CT, *proposed),))
    contexts, kept = answer_contexts(proposal, offers)
    said = AAssociateAC(
        presentation_contexts=contexts, user_information=answer_roles(proposal, offers)
    )
    read = accepted_contexts(proposal, said)
    assert set(read) == set(kept)
    for context_id, context in read.items():
        assert (context.as_scu, context.as_scp) == (
            kept[context_id].as_scp,
            kept[context_id].as_scu,
        )
        assert context.as_scu or context.as_scp


# -- the asynchronous operations window -----------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "ours", "answered", "view"),
    [
        (None, Window(8, 8), None, NO_WINDOW),
        ((4, 2), Window(8, 8), (4, 2), Window(2, 4)),
        ((4, 2), Window(1, 3), (3, 1), Window(1, 3)),
        ((0, 0), Window(5, 7), (7, 5), Window(5, 7)),
        ((4, 2), Window(0, 0), (4, 2), Window(2, 4)),
        ((0, 0), Window(0, 0), (0, 0), Window(0, 0)),
        ((1, 1), Window(8, 8), (1, 1), Window(1, 1)),
    ],
)
def test_a_window_is_answered_from_the_requestors_view(offered, ours, answered, view):
    """PS3.7 D.3.3.3: 0 is unlimited, absent is 1 and 1, and nothing is answered unasked."""
    item = AsynchronousOperationsWindow(*offered) if offered else None
    expected = AsynchronousOperationsWindow(*answered) if answered else None
    assert answer_window(item, ours) == (expected, view)


windows = st.integers(0, 0xFFFF)


@given(windows, windows, windows, windows)
def test_an_answered_window_is_never_larger_than_the_offer(invoked, performed, ours_in, ours_out):
    """PS3.7 D.3.3.3: an offer of 0 may be answered with any number, no other with more."""
    item, view = answer_window(
        AsynchronousOperationsWindow(invoked, performed), Window(ours_out, ours_in)
    )
    assert item is not None
    for said, offered, ours in (
        (item.invoked, invoked, ours_in),
        (item.performed, performed, ours_out),
    ):
        assert offered == 0 or 0 < said <= offered
        assert ours == 0 or 0 < said <= ours
    assert (view.performed, view.invoked) == (item.invoked, item.performed)


# -- what both sides have agreed on ---------------------------------------------------------------


def accepting(proposal: AAssociateRQ, ours: Window = NO_WINDOW) -> negotiation.Agreed:
    """What an acceptor of CT agrees on that admits 4096 octets and answers extensions backwards."""
    return negotiation.answer(
        proposal,
        offers=offering(CT=Offer([IMPLICIT])),
        window=ours,
        receive_limit=4096,
        extended=lambda item: item.application_information[::-1] or None,
    )


def test_both_sides_agree_on_the_same():
    proposal = request(
        (CT, (EXPLICIT, IMPLICIT)),
        (MR, (IMPLICIT,)),
        items=(
            MaximumLength(16384),
            AsynchronousOperationsWindow(4, 2),
            RoleSelection(CT, True, True),
            SOPClassExtendedNegotiation(CT, b"ab"),
            SOPClassExtendedNegotiation(MR, b""),
        ),
    )
    acceptor = accepting(proposal, Window(8, 3))
    requestor = confirmed(proposal, acceptor.answer)
    assert acceptor.contexts == {1: PContextDef(1, CT, IMPLICIT, as_scu=False, as_scp=True)}
    assert requestor.contexts == {1: PContextDef(1, CT, IMPLICIT, as_scu=True, as_scp=False)}
    assert (acceptor.window, requestor.window) == (Window(2, 3), Window(3, 2))
    assert (acceptor.send_limit, requestor.send_limit) == (16384, 4096)
    assert acceptor.extended == requestor.extended == {CT: b"ba"}
    assert requestor.answer is acceptor.answer


def arrived(proposal: AAssociateRQ) -> AAssociateRQ:
    """A request as it comes from the peer."""
    return AAssociateRQ.decode(proposal.encode()[6:])


def test_the_same_proposal_gets_the_same_answer():
    """It is decided on once, but each answer repeats the titles of its request (PS3.8 9.3.3)."""
    proposals = [
        arrived(request((CT, (EXPLICIT, IMPLICIT)), (MR, (IMPLICIT,)), calling_ae_title=title))
        for title in ("ONE", "OTHER")
    ]
    first, second = map(accepting, proposals)
    assert first.answer.presentation_contexts is second.answer.presentation_contexts
    assert first.contexts == second.contexts
    for proposal, agreed in zip(proposals, (first, second), strict=True):
        assert agreed.answer.reserved == proposal.reserved
        for _ in range(2):
            assert [each[1] for each in results(agreed.answer)] == [0, 3]
            assert agreed.answer.encode()[10:74] == proposal.reserved


def results(sent: AAssociateAC) -> list[tuple[int, int]]:
    """The results as they come to the peer."""
    read = AAssociateAC.decode(sent.encode()[6:])
    return [(each.context_id, each.result) for each in read.presentation_contexts]


def test_a_proposal_is_decided_on_anew_when_something_has_changed():
    """A service may have been added, or a rule have been changed, since the peer has asked before."""
    proposal = arrived(request((CT, (EXPLICIT, IMPLICIT)), items=(MaximumLength(4096),)))

    def answered(offer: Offer | None, window: Window = NO_WINDOW, limit: int = 4096) -> str:
        agreed = negotiation.answer(
            proposal,
            offers=lambda uid: offer,
            window=window,
            receive_limit=limit,
            extended=lambda item: None,
        )
        (context,) = agreed.answer.presentation_contexts
        assert results(agreed.answer) == [(1, context.result)]
        return f"{context.result} {context.transfer_syntax} {agreed.answer.maximum_length}"

    assert answered(Offer([IMPLICIT])) == f"0 {IMPLICIT} 4096"
    assert answered(Offer([EXPLICIT])) == f"0 {EXPLICIT} 4096"
    assert answered(None) == f"3 {EXPLICIT} 4096"
    assert answered(Offer([], is_refused=True, as_scp=False)) == f"1 {EXPLICIT} 4096"
    assert answered(Offer([EXPLICIT]), limit=100) == f"0 {EXPLICIT} 100"


def test_what_was_decided_on_is_not_kept_without_end():
    """Peers that propose something else each time fill no memory."""
    for number in range(200):
        accepting(arrived(request((f"1.2.{number}", (IMPLICIT,))))).answer.encode()
    assert len(negotiation._decisions) <= 64


def test_nothing_is_agreed_on_that_was_not_asked_for():
    proposal = request((CT, (IMPLICIT,)))
    acceptor = accepting(proposal, Window(8, 8))
    assert acceptor.answer.user_information == identification(4096)
    assert acceptor.answer.reserved == proposal.reserved
    assert acceptor.window == NO_WINDOW
    unasked = answer((1, 0, IMPLICIT), items=(AsynchronousOperationsWindow(8, 8),))
    assert confirmed(proposal, unasked).window == NO_WINDOW


@pytest.mark.parametrize(
    ("proposed", "granted", "window"),
    [
        ((0, 0), (5, 7), Window(5, 7)),
        ((4, 2), (0, 0), Window(4, 2)),
        ((4, 2), (9, 9), Window(4, 2)),
        ((0, 0), (0, 0), Window(0, 0)),
    ],
)
def test_a_granted_window_is_not_larger_than_the_proposal(proposed, granted, window):
    """PS3.7 D.3.3.3.2; 0 is unlimited."""
    proposal = request((CT, (IMPLICIT,)), items=(AsynchronousOperationsWindow(*proposed),))
    said = answer((1, 0, IMPLICIT), items=(AsynchronousOperationsWindow(*granted),))
    assert confirmed(proposal, said).window == window


@pytest.mark.parametrize(
    ("positive", "answered", "is_confirmed"),
    [(True, True, True), (True, False, False), (False, False, True)],
)
def test_an_identity_must_be_confirmed_when_that_was_asked_for(positive, answered, is_confirmed):
    """PS3.7 D.3.3.7.2: an acceptor that does not check identities sends no response item."""
    proposal = request((CT, (IMPLICIT,)), items=(UserIdentity(1, b"user", b"", positive),))
    items = (UserIdentityResponse(b""),) if answered else ()
    said = answer((1, 0, IMPLICIT), items=items)
    if is_confirmed:
        assert confirmed(proposal, said).contexts
    else:
        with pytest.raises(AssociationError, match="did not confirm"):
            confirmed(proposal, said)


def test_an_answer_that_was_not_proposed_is_not_agreed_on():
    with pytest.raises(PDUProcessingError):
        confirmed(request((CT, (IMPLICIT,))), answer((1, 0, EXPLICIT)))
