"""Pure decisions about what is proposed, accepted and refused when an association is made.

Presentation contexts (PS3.8 9.3.2.2, 9.3.3.2), transfer syntaxes, SCU and SCP roles (PS3.7
D.3.3.4), maximum length (PS3.8 D.1), the asynchronous operations window (PS3.7 D.3.3.3), and the
reasons to reject (PS3.8 9.3.4). :mod:`netdicom_tx.opening` asks for these decisions and sends the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from .arguments import check_number
from .exceptions import AssociationError, LocalProtocolError, PDUProcessingError
from .pdu import (
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    ContextResult,
    PresentationContextAC,
    PresentationContextRQ,
)
from .uids import (
    APPLICATION_CONTEXT_NAME,
    DEFAULT_TRANSFER_SYNTAXES,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_SOP_CLASSES,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
    as_tuple,
    is_everywhere,
    rarity,
)
from .userdataitems import (
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

__all__ = [
    "MAXIMUM_CONTEXTS",
    "NO_WINDOW",
    "Agreed",
    "Offer",
    "PContextDef",
    "Window",
    "accepted_contexts",
    "answer",
    "answer_contexts",
    "answer_roles",
    "answer_window",
    "check_context_ids",
    "confirmed",
    "context_entries",
    "contexts_for_instances",
    "contexts_to_receive",
    "identification",
    "plan_contexts",
    "refusals",
    "reject_reason",
]

#: Context IDs are odd and one octet: 1, 3, ... 255.
MAXIMUM_CONTEXTS = 128
_STORAGE = frozenset(STORAGE_SOP_CLASSES)
# Fragments of two octets need a PDU of eight.
_SMALLEST_USABLE_LENGTH = 8


@dataclass(frozen=True, slots=True)
class PContextDef:
    """An accepted presentation context, as services receive it.

    Attributes:
        id: The presentation context ID, 1 to 255.
        sop_class: The abstract syntax.
        supported_ts: The transfer syntax that was agreed on.
        as_scu: Whether this side may be the SCU.
        as_scp: Whether this side may be the SCP.
    """

    id: int
    sop_class: str
    supported_ts: str
    as_scu: bool = True
    as_scp: bool = False

    @property
    def transfer_syntax(self) -> str:
        return self.supported_ts

    @property
    def abstract_syntax(self) -> str:
        return self.sop_class


@dataclass(frozen=True, slots=True)
class Offer:
    """What an acceptor offers for an abstract syntax.

    Attributes:
        transfer_syntaxes: The transfer syntaxes that it accepts.
        as_scp: Whether it has a service that answers requests.
        as_scu: Whether it has a service that makes requests.
        is_refused: Whether the peer may not use all of it; a context that is left without a role is then rejected
            by the user, not as unsupported.
    """

    transfer_syntaxes: Sequence[str]
    as_scp: bool = True
    as_scu: bool = False
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """How many operations may be outstanding at once, from one side's own view; 0 means no limit.

    Attributes:
        invoked: The requests of this side.
        performed: The requests of the peer.

    Raises:
        TypeError, ValueError: One of them is not a number from 0 to 65535.
    """

    invoked: int = 1
    performed: int = 1

    def __post_init__(self) -> None:
        check_number("invoked", self.invoked, 0, most=0xFFFF)
        check_number("performed", self.performed, 0, most=0xFFFF)


#: Without negotiation there is one operation at a time (PS3.7 D.3.3.3).
NO_WINDOW = Window(1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What the two sides of an association have agreed on, from one side's own view.

    Attributes:
        answer: The A-ASSOCIATE-AC that says so.
        contexts: The accepted presentation contexts, with this side's roles, by ID.
        window: Operations outstanding at once.
        send_limit: The largest P-DATA-TF that the peer admits, in octets; 0 means no limit.
        extended: The answers to SOP class extended negotiation, by SOP class (PS3.7 D.3.3.5).
    """

    answer: AAssociateAC
    contexts: Mapping[int, PContextDef]
    window: Window
    send_limit: int
    extended: Mapping[str, bytes]


@lru_cache(maxsize=64)
def identification(receive_limit: int) -> tuple[UserDataItem, ...]:
    """The user items with which every request and answer of this side begins."""
    return (
        MaximumLength(receive_limit),
        ImplementationClassUID(IMPLEMENTATION_CLASS_UID),
        ImplementationVersionName(IMPLEMENTATION_VERSION_NAME),
    )


# -- requestor ----------------------------------------------------------------------------------


def plan_contexts(
    needs: Mapping[str, Sequence[str]] | Iterable[tuple[str, Sequence[str]]],
) -> tuple[PresentationContextRQ, ...]:
    """Plan the presentation contexts for what is to be sent or asked.

    Args:
        needs: The transfer syntaxes of each abstract syntax, in the order of preference. An acceptor picks one of
            the transfer syntaxes of a context. Instances should be stored as they are, so each transfer syntax of
            a storage class has a context of its own while there is room; for other services the uncompressed
            ones share a context. Pairs of an abstract syntax and its transfer syntaxes become one context each,
            as they are.

    Raises:
        TypeError, ValueError: They are not of one of these forms.
        LocalProtocolError: There are no needs, or they exceed what one association can hold, or a SOP class has
            no transfer syntax.
    """
    entries = context_entries(needs)
    wanted: Sequence[tuple[str, tuple[str, ...]]] = entries
    if isinstance(needs, Mapping):
        wanted = _by_syntax(entries, _STORAGE)
        if len(wanted) > MAXIMUM_CONTEXTS:
            wanted = _by_syntax(entries, frozenset())
    if not wanted:
        raise LocalProtocolError(
            "an association needs a presentation context: register a service with add_scu, or name "
            "the contexts"
        )
    if len(wanted) > MAXIMUM_CONTEXTS:
        raise LocalProtocolError(
            f"{len(wanted)} presentation contexts are needed, an association holds "
            f"{MAXIMUM_CONTEXTS}: name those of the instances to be sent, or use store_all, which "
            "opens several associations"
        )
    return tuple(
        PresentationContextRQ(2 * index + 1, abstract_syntax, transfer_syntaxes)
        for index, (abstract_syntax, transfer_syntaxes) in enumerate(wanted)
    )


def context_entries(
    contexts: Mapping[str, Sequence[str]] | Iterable[tuple[str, Sequence[str]]],
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Check what presentation contexts are to be made of, and copy it as pairs.

    Raises:
        TypeError: It is not a mapping or a list of pairs; or what should be transfer syntaxes is not a list.
        ValueError: A string in it is not a UID.
    """
    given: object = contexts
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(
            f"contexts is {contexts!r:.80}; expected transfer syntaxes by abstract syntax, such as "
            "{uids.CTImageStorage: [uids.EXPLICIT_VR_LITTLE_ENDIAN]}, or pairs of the two"
        )
    entries = []
    for each in given.items() if isinstance(given, Mapping) else given:
        if not isinstance(each, tuple | list) or len(each) != 2:
            raise TypeError(
                f"contexts holds {each!r:.80}; expected pairs of an abstract syntax and a list of "
                "transfer syntaxes"
            )
        (abstract_syntax,) = as_tuple("contexts", each[:1])
        entries.append((abstract_syntax, as_tuple(f"contexts[{abstract_syntax!r}]", each[1])))
    return tuple(entries)


def _by_syntax(
    needs: Iterable[tuple[str, tuple[str, ...]]], apart: frozenset[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """One entry for each transfer syntax; the default ones share an entry, except for the classes in ``apart``."""
    wanted: list[tuple[str, tuple[str, ...]]] = []
    for abstract_syntax, transfer_syntaxes in needs:
        if not transfer_syntaxes:
            # PresentationContextRQ refuses it; a SOP class must not disappear in silence.
            wanted.append((abstract_syntax, ()))
        proposed = tuple(dict.fromkeys(transfer_syntaxes))
        shared: tuple[str, ...] = ()
        if abstract_syntax not in apart:
            shared = tuple(ts for ts in proposed if ts in DEFAULT_TRANSFER_SYNTAXES)
        groups = dict.fromkeys(shared if ts in shared else (ts,) for ts in proposed)
        wanted.extend((abstract_syntax, group) for group in groups)
    return wanted


def contexts_for_instances(
    instances: Iterable[tuple[str, str]],
) -> list[tuple[str, tuple[str, ...]]]:
    """Plan one context for each SOP class and transfer syntax of the instances that are to be stored.

    An uncompressed transfer syntax stands first in its context, with the default ones behind it: the acceptor
    may then ask for a re-encoded data set instead of refusing the instance. So little endian is always proposed
    beside big endian and beside a deflated one (PS3.5 10.1).

    Args:
        instances: The SOP class and the transfer syntax of each instance.

    Returns:
        Pairs for :func:`plan_contexts`, in the order of first appearance. They may be more than one association
        can hold.
    """
    entries: list[tuple[str, tuple[str, ...]]] = []
    for sop_class, transfer_syntax in dict.fromkeys(instances):
        others: tuple[str, ...] = ()
        if transfer_syntax in UNCOMPRESSED_TRANSFER_SYNTAXES:
            others = tuple(ts for ts in DEFAULT_TRANSFER_SYNTAXES if ts != transfer_syntax)
        entries.append((sop_class, (transfer_syntax, *others)))
    return entries


def contexts_to_receive(
    sop_classes: Iterable[tuple[str, Sequence[str]]], room: int, alone: Sequence[str] = ()
) -> list[tuple[str, tuple[str, ...]]]:
    """Plan the contexts on which a C-GET may bring instances.

    An acceptor picks one transfer syntax of each context, and may be unable to convert what it has. So the default
    transfer syntaxes have a context each for the classes that every site has, and for others as far as there is room;
    otherwise all transfer syntaxes of a class share one.

    Args:
        sop_classes: Pairs of a storage class and its transfer syntaxes, in the order of preference. The rarest ones
            are left out when there is no room for them.
        room: How many contexts there may be.
        alone: Further transfer syntaxes that have a context of their own where the default ones have.

    Returns:
        Pairs for :func:`plan_contexts`.
    """
    apart = {*alone, *DEFAULT_TRANSFER_SYNTAXES}
    ordered = sorted(sop_classes, key=lambda each: rarity(each[0]))
    split = {uid: _split(syntaxes, apart) for uid, syntaxes in ordered}
    # One context each; then those that every site has take up to half of the room; then all others what is left.
    left = room // 2
    wide: set[str] = set()
    for uid, _ in ordered:
        if is_everywhere(uid) and len(split[uid]) <= left:
            wide.add(uid)
            left -= len(split[uid])
    kept = []
    left = room
    for uid, syntaxes in ordered:
        needed = len(split[uid]) if uid in wide else 1
        if needed <= left:
            kept.append((uid, tuple(syntaxes)))
            left -= needed
    entries = []
    for uid, syntaxes in kept:
        if uid not in wide and len(split[uid]) - 1 <= left:
            wide.add(uid)
            left -= len(split[uid]) - 1
        entries += [(uid, group) for group in (split[uid] if uid in wide else [syntaxes])]
    return entries


def _split(transfer_syntaxes: Sequence[str], apart: Container[str]) -> list[tuple[str, ...]]:
    """Groups of transfer syntaxes: some are alone, and the others together."""
    others = tuple(ts for ts in transfer_syntaxes if ts not in apart)
    groups = ((ts,) if ts in apart else others for ts in transfer_syntaxes)
    return list(dict.fromkeys(groups))


def accepted_contexts(request: AAssociateRQ, answer: AAssociateAC) -> dict[int, PContextDef]:
    """The contexts that the acceptor accepted, with the requestor's roles, by ID.

    Raises:
        PDUProcessingError: The answer names a transfer syntax that was not proposed.
    """
    proposed = {context.context_id: context for context in request.presentation_contexts}
    asked = {item.sop_class_uid: item for item in request.user_items(RoleSelection)}
    granted = {item.sop_class_uid: item for item in answer.user_items(RoleSelection)}
    accepted: dict[int, PContextDef] = {}
    for context in answer.presentation_contexts:
        proposal = proposed.get(context.context_id)
        # An answer to what was not proposed says nothing about the others: it is ignored.
        if proposal is None or context.result != ContextResult.ACCEPTANCE:
            continue
        if context.transfer_syntax not in proposal.transfer_syntaxes:
            raise PDUProcessingError(
                f"presentation context {context.context_id} was accepted with a transfer syntax "
                "that was not proposed for it"
            )
        uid = proposal.abstract_syntax
        # PS3.7 D.3.3.4: no answer to role selection means the default roles, and an answer for a
        # role that was not proposed is ignored.
        as_scu, as_scp = True, False
        if uid in asked and uid in granted:
            as_scu = asked[uid].scu_role and granted[uid].scu_role
            as_scp = asked[uid].scp_role and granted[uid].scp_role
        accepted[context.context_id] = PContextDef(
            context.context_id, uid, context.transfer_syntax, as_scu, as_scp
        )
    return accepted


def confirmed(request: AAssociateRQ, answer: AAssociateAC) -> Agreed:
    """What a requestor and its acceptor have agreed on, when the acceptor has accepted.

    Raises:
        PDUProcessingError: The answer names a transfer syntax that was not proposed.
        AssociationError: The acceptor did not confirm the user identity, which the request asked
            for.
    """
    contexts = accepted_contexts(request, answer)
    identity = request.user_item(UserIdentity)
    if (
        identity is not None
        and identity.positive_response_requested
        and answer.user_item(UserIdentityResponse) is None
    ):
        # PS3.7 D.3.3.7.2: absent when the acceptor does not check identities.
        raise AssociationError("the peer did not confirm the user identity")
    proposed = request.user_item(AsynchronousOperationsWindow)
    granted = answer.user_item(AsynchronousOperationsWindow)
    window = NO_WINDOW
    if proposed is not None and granted is not None:
        # PS3.7 D.3.3.3.2: the answer is not larger than the proposal.
        window = Window(
            _smaller(granted.invoked, proposed.invoked),
            _smaller(granted.performed, proposed.performed),
        )
    return Agreed(
        answer=answer,
        contexts=contexts,
        window=window,
        send_limit=answer.maximum_length,
        extended={
            item.sop_class_uid: item.application_information
            for item in answer.user_items(SOPClassExtendedNegotiation)
        },
    )


_RESULT_WORDS = {
    0: "accepted",
    1: "rejected by the user",
    2: "rejected without a reason",
    3: "abstract syntax not supported",
    4: "transfer syntax not supported",
}


def refusals(request: AAssociateRQ, answer: AAssociateAC, sop_class: str) -> dict[str, str]:
    """For each transfer syntax proposed with a SOP class, what the acceptor said to it."""
    results = {context.context_id: context for context in answer.presentation_contexts}
    told: dict[str, str] = {}
    for proposal in request.presentation_contexts:
        if proposal.abstract_syntax != sop_class:
            continue
        context = results.get(proposal.context_id)
        for transfer_syntax in proposal.transfer_syntaxes:
            if context is None:
                told[transfer_syntax] = "not answered"
            elif context.result:
                told[transfer_syntax] = _RESULT_WORDS.get(
                    context.result, f"result {context.result}"
                )
            elif context.transfer_syntax == transfer_syntax:
                told[transfer_syntax] = "accepted"
            else:
                told[transfer_syntax] = "another was chosen"
    return told


# -- acceptor -----------------------------------------------------------------------------------


def reject_reason(
    request: AAssociateRQ,
    *,
    called_ae_titles: Iterable[str] | None = None,
    calling_ae_titles: Iterable[str] | None = None,
) -> AAssociateRJ | None:
    """Why this request must be rejected, or None (PS3.8 9.3.4).

    The upper layer has checked the protocol version before (AE-6).

    Args:
        request: The request.
        called_ae_titles: The AE titles under which this side serves; None means any.
        calling_ae_titles: The AE titles of the peers that are served; None means any.
    """
    if request.application_context != APPLICATION_CONTEXT_NAME:
        return AAssociateRJ(1, 1, 2)
    if not _is_ae_title(request.called_ae_title) or (
        called_ae_titles is not None and request.called_ae_title not in called_ae_titles
    ):
        return AAssociateRJ(1, 1, 7)
    if not _is_ae_title(request.calling_ae_title) or (
        calling_ae_titles is not None and request.calling_ae_title not in calling_ae_titles
    ):
        return AAssociateRJ(1, 1, 3)
    if 0 < request.maximum_length < _SMALLEST_USABLE_LENGTH:
        # No fragment of a message fits into such a PDU. Table 9-21 has no reason for that.
        return AAssociateRJ(1, 1, 1)
    return None


def _is_ae_title(title: str) -> bool:
    # What is printable in ASCII is " " to "~".
    return 0 < len(title) <= 16 and title.isascii() and title.isprintable() and "\\" not in title


def check_context_ids(request: AAssociateRQ) -> None:
    """Refuse a request whose context IDs cannot be told apart (PS3.8 9.3.2.2).

    Raises:
        PDUProcessingError: No context, more than 128, or an ID that comes twice. Even IDs can be
            told apart as well as odd ones; dcm4che's stgcmtscu sends them.
    """
    contexts = request.presentation_contexts
    if not 0 < len(contexts) <= MAXIMUM_CONTEXTS:
        raise PDUProcessingError(
            f"{len(contexts)} presentation contexts; expected 1 to {MAXIMUM_CONTEXTS}"
        )
    seen: set[int] = set()
    for context in contexts:
        if context.context_id in seen:
            raise PDUProcessingError(f"presentation context ID {context.context_id} comes twice")
        seen.add(context.context_id)


def answer_roles(
    request: AAssociateRQ, offers: Callable[[str], Offer | None]
) -> tuple[RoleSelection, ...]:
    """The answers to role selection: each role that was proposed and that we can complement (PS3.7 D.3.3.4).

    Proposals for a SOP class that no context proposes, or that we do not have, stay unanswered.
    """
    asked = request.user_items(RoleSelection)
    if not asked:
        return ()
    proposed = {context.abstract_syntax for context in request.presentation_contexts}
    answers: dict[str, RoleSelection] = {}
    for item in asked:
        offer = offers(item.sop_class_uid) if item.sop_class_uid in proposed else None
        if offer is not None:
            answers[item.sop_class_uid] = RoleSelection(
                item.sop_class_uid, item.scu_role and offer.as_scp, item.scp_role and offer.as_scu
            )
    return tuple(answers.values())


def answer_contexts(
    request: AAssociateRQ, offers: Callable[[str], Offer | None]
) -> tuple[tuple[PresentationContextAC, ...], dict[int, PContextDef]]:
    """Decide on each proposed context.

    The transfer syntax is the first of the requestor's that we can take: the requestor knows in
    which one its data sets are. Big endian is retired, so it is taken only when nothing else is offered with it that
    needs no compression (PS3.5 A.3).

    Args:
        request: The request.
        offers: Gives what we have for an abstract syntax; None when we have nothing.

    Returns:
        The answers, in the order of the proposals; and the accepted contexts with our roles.
    """
    roles = {item.sop_class_uid: item for item in answer_roles(request, offers)}
    answers: list[PresentationContextAC] = []
    accepted: dict[int, PContextDef] = {}
    known: dict[str, tuple[Offer, frozenset[str]] | None] = {}
    for context in request.presentation_contexts:
        uid = context.abstract_syntax
        if uid not in known:
            found = offers(uid) if uid else None
            known[uid] = None if found is None else (found, frozenset(found.transfer_syntaxes))
        entry = known[uid]
        # It is not significant in a refusal.
        first = context.transfer_syntaxes[0] or IMPLICIT_VR_LITTLE_ENDIAN
        as_scu, as_scp = False, False
        if entry is not None:
            offer, takes = entry
            as_scp = offer.as_scp
            if uid in roles:
                as_scp, as_scu = roles[uid].scu_role, roles[uid].scp_role
        if entry is None or not (as_scu or as_scp):
            result = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
            if entry is not None and entry[0].is_refused:
                result = ContextResult.USER_REJECTION
        else:
            chosen = _chosen(context.transfer_syntaxes, takes)
            if chosen is not None:
                answers.append(
                    PresentationContextAC(context.context_id, ContextResult.ACCEPTANCE, chosen)
                )
                accepted[context.context_id] = PContextDef(
                    context.context_id, uid, chosen, as_scu, as_scp
                )
                continue
            result = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
        answers.append(PresentationContextAC(context.context_id, result, first))
    return tuple(answers), accepted


def _chosen(proposed: Sequence[str], takes: Container[str]) -> str | None:
    taken = [ts for ts in proposed if ts in takes]
    if taken and taken[0] == EXPLICIT_VR_BIG_ENDIAN:
        taken = [ts for ts in taken if ts in DEFAULT_TRANSFER_SYNTAXES] or taken
    return taken[0] if taken else None


def answer_window(
    offered: AsynchronousOperationsWindow | None, ours: Window
) -> tuple[AsynchronousOperationsWindow | None, Window]:
    """What an acceptor answers to a proposed window, and the window it then has itself.

    Args:
        offered: The proposal, from the requestor's view; None when there was no proposal.
        ours: The window that this side would take.

    Returns:
        The item for the answer, which is never larger than the offer, or None when there was no proposal; and the
        acceptor's own view of the window.
    """
    if offered is None:
        return None, NO_WINDOW
    invoked = _smaller(offered.invoked, ours.performed)
    performed = _smaller(offered.performed, ours.invoked)
    return AsynchronousOperationsWindow(invoked, performed), Window(performed, invoked)


def _smaller(a: int, b: int) -> int:
    """The smaller of two limits, where 0 means no limit."""
    return min(a, b) if a and b else a or b


class _Decision(NamedTuple):
    """What was decided on a proposal, under which terms."""

    proposal: tuple[object, object]  # the contexts and the user information
    offered: Mapping[str, Offer | None]
    window: Window
    receive_limit: int
    contexts: tuple[PresentationContextAC, ...]
    accepted: Mapping[int, PContextDef]
    user_information: tuple[UserDataItem, ...]
    agreed_window: Window


# By the identity of the contexts, which are the same object for the same octets. A peer that opens one association
# after the other gets the same answer each time, if nothing has changed on this side.
_decisions: dict[int, _Decision] = {}
_MOST_DECISIONS = 64


def _decide(
    request: AAssociateRQ,
    offered: Mapping[str, Offer | None],
    window: Window,
    receive_limit: int,
) -> _Decision:
    """Decide on the contexts, the roles and the window of a request, or find what was decided before."""
    kept = _decisions.get(id(request.presentation_contexts))
    if (
        kept is not None
        and kept.proposal[0] is request.presentation_contexts
        and kept.proposal[1] is request.user_information
        and kept.offered == offered
        and kept.window == window
        and kept.receive_limit == receive_limit
    ):
        return kept
    contexts, accepted = answer_contexts(request, offered.get)
    window_item, agreed_window = answer_window(
        request.user_item(AsynchronousOperationsWindow), window
    )
    decision = _Decision(
        (request.presentation_contexts, request.user_information),
        offered,
        window,
        receive_limit,
        contexts,
        MappingProxyType(accepted),
        (
            *identification(receive_limit),
            *((window_item,) if window_item is not None else ()),
            *answer_roles(request, offered.get),
        ),
        agreed_window,
    )
    if request.is_shared:
        if len(_decisions) >= _MOST_DECISIONS:
            del _decisions[next(iter(_decisions))]  # the one that has been kept for longest
        _decisions[id(request.presentation_contexts)] = decision
    return decision


def answer(
    request: AAssociateRQ,
    *,
    offers: Callable[[str], Offer | None],
    window: Window,
    receive_limit: int,
    extended: Callable[[SOPClassExtendedNegotiation], bytes | None],
    identity: UserIdentityResponse | None = None,
) -> Agreed:
    """How an acceptor accepts a request, when there is no reason to reject it.

    Args:
        offers: What we have for an abstract syntax; None when nothing.
        window: The operations at once that we would do.
        receive_limit: The largest P-DATA-TF that we admit, in octets; 0 means no limit.
        extended: Our answer to SOP class extended negotiation; None leaves it unanswered.
        identity: Our answer to the user identity, sent when the peer has asked for one.
    """
    # PS3.7 D.3.3.7.2: only where a positive response was requested.
    asked = request.user_item(UserIdentity)
    if asked is None or not asked.positive_response_requested:
        identity = None
    # They are asked each time, because the services and the rules may have changed.
    proposed = dict.fromkeys([each.abstract_syntax for each in request.presentation_contexts])
    offered = {uid: offers(uid) for uid in proposed if uid}
    decision = _decide(request, offered, window, receive_limit)
    extensions = {
        item.sop_class_uid: information
        for item in request.user_items(SOPClassExtendedNegotiation)
        if (information := extended(item)) is not None
    }
    user_information = decision.user_information
    if extensions or identity is not None:
        user_information = (
            *user_information,
            *(SOPClassExtendedNegotiation(*each) for each in extensions.items()),
            *((identity,) if identity is not None else ()),
        )
    return Agreed(
        answer=AAssociateAC(
            presentation_contexts=decision.contexts,
            user_information=user_information,
            reserved=request.reserved,
        ),
        contexts=decision.accepted,
        window=decision.agreed_window,
        send_limit=request.maximum_length,
        extended=extensions,
    )
