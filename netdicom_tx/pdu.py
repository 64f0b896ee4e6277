"""The seven PDUs of the DICOM upper layer, and the reader that finds them in a byte stream (PS3.8 9.3).

=====  ======================  =====================================================
type   class                   read as
=====  ======================  =====================================================
01H    :class:`AAssociateRQ`   a value, when complete
02H    :class:`AAssociateAC`   a value, when complete
03H    :class:`AAssociateRJ`   a value, when complete
04H    P-DATA-TF               :class:`Fragment` after fragment, as the bytes arrive
05H    :class:`AReleaseRQ`     a value, when complete
06H    :class:`AReleaseRP`     a value, when complete
07H    :class:`AAbort`         a value, when complete
=====  ======================  =====================================================

Values are frozen and checked when they are made; ``encode()`` gives the whole PDU. Reading is
tolerant where the standard says *not tested* (reserved bytes, padding of AE titles), and strict
about lengths and structure. The sub-items of the user information are in
:mod:`netdicom_tx.userdataitems`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, NamedTuple, TypeVar

from .exceptions import AbortReason, LocalProtocolError, PDUProcessingError, printable
from .uids import APPLICATION_CONTEXT_NAME
from .userdataitems import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MalformedItem,
    MaximumLength,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UnknownItem,
    UserDataItem,
    check_range,
    check_text,
    decode_uid,
    decode_user_data,
    encode_item,
    encode_uid,
    split_items,
)

__all__ = [
    "MAXIMUM_CONTEXT_ITEMS",
    "MAXIMUM_CONTROL_PDU_LENGTH",
    "PDU",
    "AAbort",
    "AAssociateAC",
    "AAssociateRJ",
    "AAssociateRQ",
    "AReleaseRP",
    "AReleaseRQ",
    "ContextResult",
    "Fragment",
    "PDUReader",
    "PresentationContextAC",
    "PresentationContextRQ",
    "check_ae_title",
]

#: The default of the most octets in the variable field of an A-ASSOCIATE-RQ or -AC. A request with
#: every transfer syntax of PS3.6 in each of 128 contexts, as a C-GET may send it, has 230 KiB.
MAXIMUM_CONTROL_PDU_LENGTH = 1 << 18
#: The most sub-items of all presentation contexts together: twice as many as such a request has.
MAXIMUM_CONTEXT_ITEMS = 1 << 14

_HEADER = struct.Struct(">BxI")
# The headers of a P-DATA-TF and of its only PDV.
_ONE_PDV = struct.Struct(">BxIIBB")
_PDV_HEADER = struct.Struct(">IBB")
_ASSOCIATE = struct.Struct(">HH16s16s32s")
_APPLICATION_CONTEXT, _CONTEXT_RQ, _CONTEXT_AC, _USER_INFORMATION = 0x10, 0x20, 0x21, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40

_Item = TypeVar("_Item")


def check_ae_title(title: str) -> str:
    """Check an AE title of ours, and drop the spaces around it.

    Returns:
        The title: 1 to 16 characters of the ISO 646 basic G0 set without a backslash (PS3.8 9.3.2,
        PS3.5 6.2 AE).

    Raises:
        TypeError: It is not text.
        LocalProtocolError: The text is not an AE title.
    """
    if not isinstance(title, str):
        raise TypeError(f"an AE title is text of 1 to 16 characters, not {title!r:.80}")
    stripped = title.strip(" ")
    if not 0 < len(stripped) <= 16 or any(not " " <= c <= "~" or c == "\\" for c in stripped):
        raise LocalProtocolError(
            "an AE title is 1 to 16 printable ASCII characters without backslash, not "
            f"{printable(title)!r}"
        )
    return stripped


def _pad(title: str) -> bytes:
    # Spaces, not NUL (PS3.8 9.3.2). ISO 8859-1, so that a peer's odd title goes back as it came.
    return title.encode("latin-1").ljust(16)


def _unpad(field_: bytes) -> str:
    # Leading and trailing spaces are not significant. Some peers pad with NUL, or leave garbage
    # behind one.
    return field_.decode("latin-1").lstrip(" \0").partition("\0")[0].rstrip(" ")


class ContextResult(IntEnum):
    """The answer to a proposed presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class PresentationContextRQ:
    """20H: a presentation context that is proposed (PS3.8 9.3.2.2).

    Attributes:
        context_id: Odd, 1 to 255. Some requestors use even IDs; they are told apart as well.
        abstract_syntax: Empty when a requestor has sent none or several; such a context is refused.
        transfer_syntaxes: In the order of the requestor's preference. A single empty one means that a requestor sent
            none; it is never accepted.
        unknown_items: Sub-items of another type, which a receiver ignores (PS3.8 9.3.1).
    """

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    unknown_items: tuple[UnknownItem, ...] = ()

    def __post_init__(self) -> None:
        check_range("a presentation context ID", self.context_id, 0xFF)
        check_text("the UID", self.abstract_syntax, *self.transfer_syntaxes)
        if not self.transfer_syntaxes:
            raise LocalProtocolError(
                f"presentation context {self.context_id} for {printable(self.abstract_syntax)} has no "
                "transfer syntax; expected 1 or more"
            )

    def encode(self) -> bytes:
        body = encode_item(_ABSTRACT_SYNTAX, encode_uid(self.abstract_syntax)) + b"".join(
            encode_item(_TRANSFER_SYNTAX, encode_uid(uid)) for uid in self.transfer_syntaxes
        )
        body += b"".join(item.encode() for item in self.unknown_items)
        return encode_item(_CONTEXT_RQ, bytes((self.context_id, 0, 0, 0)) + body)

    @classmethod
    def decode(cls, body: bytes, most: int = MAXIMUM_CONTEXT_ITEMS) -> PresentationContextRQ:
        if len(body) < 4:
            raise PDUProcessingError(
                f"presentation context (20H): expected 4 octets or more, got {len(body)}"
            )
        abstract: list[str] = []
        transfer: list[str] = []
        unknown: list[UnknownItem] = []
        for kind, _, data in split_items(body[4:], "presentation context (20H)", most):
            if kind == _ABSTRACT_SYNTAX:
                abstract.append(decode_uid(data))
            elif kind == _TRANSFER_SYNTAX:
                transfer.append(decode_uid(data))
            else:
                unknown.append(UnknownItem(kind, data))
        # The other contexts can be understood, so this one is refused by its answer.
        uid = abstract[0] if len(abstract) == 1 else ""
        return cls(body[0], uid, tuple(transfer) or ("",), tuple(unknown))

    @property
    def is_whole(self) -> bool:
        """Whether it has one abstract syntax, and a transfer syntax."""
        return bool(self.abstract_syntax) and any(self.transfer_syntaxes)


@dataclass(frozen=True, slots=True)
class PresentationContextAC:
    """21H: the answer to a proposed context (PS3.8 9.3.3.2).

    ``transfer_syntax`` is significant for an accepted context only.
    """

    context_id: int
    result: int
    transfer_syntax: str = ""

    def __post_init__(self) -> None:
        check_range("a presentation context ID", self.context_id, 0xFF)
        check_range("a result", self.result, 0xFF)
        check_text("the UID", self.transfer_syntax)

    def encode(self) -> bytes:
        # Some peers insist on the sub-item in refusals too, where it is not significant.
        syntax = encode_item(_TRANSFER_SYNTAX, encode_uid(self.transfer_syntax))
        return encode_item(_CONTEXT_AC, bytes((self.context_id, 0, self.result, 0)) + syntax)

    @classmethod
    def decode(cls, body: bytes) -> PresentationContextAC:
        if len(body) < 4:
            raise PDUProcessingError(
                f"presentation context (21H): expected 4 octets or more, got {len(body)}"
            )
        if body[2] != ContextResult.ACCEPTANCE:
            return cls(body[0], body[2])
        syntaxes = [
            decode_uid(data)
            for kind, _, data in split_items(
                body[4:], "presentation context (21H)", MAXIMUM_CONTEXT_ITEMS
            )
            if kind == _TRANSFER_SYNTAX
        ]
        if len(syntaxes) != 1:
            raise PDUProcessingError(
                f"accepted presentation context {body[0]} has {len(syntaxes)} transfer syntaxes; "
                "expected 1"
            )
        return cls(body[0], body[2], syntaxes[0])


def _only(items: tuple[UserDataItem, ...], kind: type[_Item]) -> _Item | None:
    """The last user item of a class; None when the class has no item."""
    found = None
    for item in items:
        if isinstance(item, kind):
            found = item
    return found


class _Associate:
    """What A-ASSOCIATE-RQ and A-ASSOCIATE-AC share: access to their user information."""

    __slots__ = ()
    _NAME: ClassVar[str]
    user_information: tuple[UserDataItem, ...]

    def user_item(self, kind: type[_Item]) -> _Item | None:
        """The user item of this class, whatever its position; None when it is absent."""
        return _only(self.user_information, kind)

    def user_items(self, kind: type[_Item]) -> tuple[_Item, ...]:
        """All user items of this class, in order."""
        return tuple([item for item in self.user_information if isinstance(item, kind)])

    def _deviations(self, ids: Iterable[int]) -> Iterator[str]:
        if [context_id for context_id in ids if context_id % 2 == 0]:
            yield f"{self._NAME}: a presentation context ID is even"
        if not self.user_information:
            yield f"{self._NAME}: there is no user information"
        for item in self.user_items(MalformedItem):
            yield f"{self._NAME}: user information sub-item {item.item_type:02X}H is malformed, and is ignored"

    @property
    def maximum_length(self) -> int:
        """Octets that the sender of this PDU admits in a P-DATA-TF; 0, no limit, when absent."""
        item = self.user_item(MaximumLength)
        return 0 if item is None else item.value


@dataclass(frozen=True, slots=True, kw_only=True)
class AAssociateRQ(_Associate):
    """01H: the request for an association (PS3.8 9.3.2)."""

    PDU_TYPE: ClassVar[int] = 0x01
    _NAME: ClassVar[str] = "A-ASSOCIATE-RQ"
    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextRQ, ...]
    user_information: tuple[UserDataItem, ...] = ()
    application_context: str = APPLICATION_CONTEXT_NAME
    protocol_version: int = 1
    unknown_items: tuple[UnknownItem, ...] = ()
    #: The 64 octets of titles and reserved field as they came; an answer repeats them.
    reserved: bytes = field(default=b"", repr=False, compare=False)

    def __post_init__(self) -> None:
        check_text("the AE title", self.called_ae_title, self.calling_ae_title)
        # A peer's title may be odd; check_ae_title checks ours.
        for title in (self.called_ae_title, self.calling_ae_title):
            check_range("the length of an AE title", len(title), 16)
        check_text("the UID", self.application_context)
        check_range("a protocol version", self.protocol_version, 0xFFFF)

    @property
    def is_shared(self) -> bool:
        """Whether other requests with the same proposal have the same objects."""
        return any(
            each.presentation_contexts is self.presentation_contexts for each in _proposals.values()
        )

    @property
    def deviations(self) -> tuple[str, ...]:
        """How the request differs from PS3.8 without harm, in words for a log line."""
        contexts = self.presentation_contexts
        odd = list(self._deviations([context.context_id for context in contexts]))
        if [context for context in contexts if context.unknown_items]:
            odd.append(f"{self._NAME}: a presentation context has unknown sub-items")
        if [context for context in contexts if not context.is_whole]:
            odd.append(
                f"{self._NAME}: a presentation context lacks its abstract or its transfer syntax"
            )
        return tuple(odd)

    def encode(self) -> bytes:
        return _encode_associate(
            self.PDU_TYPE,
            self.protocol_version,
            _pad(self.called_ae_title) + _pad(self.calling_ae_title) + bytes(32),
            self,
        )

    @classmethod
    def decode(cls, body: bytes) -> AAssociateRQ:
        _check_size(body, cls._NAME)
        titles = body[4 : _ASSOCIATE.size]
        behind = body[_ASSOCIATE.size :]
        proposal = _proposals.get(behind)
        if proposal is None:
            proposal = _decode_proposal(behind, cls._NAME)
            _keep_proposal(behind, proposal)
        return cls(
            called_ae_title=_unpad(titles[:16]),
            calling_ae_title=_unpad(titles[16:32]),
            presentation_contexts=proposal.presentation_contexts,
            user_information=proposal.user_information,
            application_context=proposal.application_context,
            protocol_version=int.from_bytes(body[:2], "big"),
            unknown_items=proposal.unknown_items,
            reserved=titles,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AAssociateAC(_Associate):
    """02H: the association is accepted (PS3.8 9.3.3).

    ``reserved`` repeats 64 octets of the request, which a receiver does not test.
    """

    PDU_TYPE: ClassVar[int] = 0x02
    _NAME: ClassVar[str] = "A-ASSOCIATE-AC"
    presentation_contexts: tuple[PresentationContextAC, ...]
    user_information: tuple[UserDataItem, ...] = ()
    application_context: str = APPLICATION_CONTEXT_NAME
    protocol_version: int = 1
    unknown_items: tuple[UnknownItem, ...] = ()
    reserved: bytes = field(default=b"", repr=False, compare=False)

    def __post_init__(self) -> None:
        check_range("the length of the reserved octets", len(self.reserved), 64)
        check_text("the UID", self.application_context)
        check_range("a protocol version", self.protocol_version, 0xFFFF)

    def deviations(self, request: AAssociateRQ) -> tuple[str, ...]:
        """How the answer to a request differs from PS3.8 without harm, in words for a log line."""
        proposed = {context.context_id for context in request.presentation_contexts}
        ids = {context.context_id for context in self.presentation_contexts}
        odd = list(self._deviations(ids & proposed))
        if ids - proposed:
            odd.append(f"{self._NAME}: it answers a presentation context that was not proposed")
        if proposed - ids:
            odd.append(f"{self._NAME}: it does not answer every presentation context")
        return tuple(odd)

    def encode(self) -> bytes:
        titles = self.reserved.ljust(64, b"\0")
        kept = _answers.get(id(self.presentation_contexts))
        if (
            kept is not None
            and kept.presentation_contexts is self.presentation_contexts
            and kept.user_information is self.user_information
            and kept.application_context == self.application_context
            and kept.protocol_version == self.protocol_version
            and not self.unknown_items
        ):
            return kept.before + titles + kept.behind
        encoded = _encode_associate(self.PDU_TYPE, self.protocol_version, titles, self)
        if not self.unknown_items and _holds_no_credential(self.user_information):
            _keep_answer(self, encoded)
        return encoded

    @classmethod
    def decode(cls, body: bytes) -> AAssociateAC:
        _check_size(body, cls._NAME)
        items = _items_of(body[_ASSOCIATE.size :], cls._NAME)
        return cls(
            presentation_contexts=tuple(
                PresentationContextAC.decode(data) for data in items[_CONTEXT_AC]
            ),
            user_information=decode_user_data(b"".join(items[_USER_INFORMATION])),
            application_context=decode_uid(items[_APPLICATION_CONTEXT][0]),
            protocol_version=int.from_bytes(body[:2], "big"),
            unknown_items=tuple(items.unknown),
            reserved=body[4 : _ASSOCIATE.size],
        )


def _encode_associate(
    pdu_type: int, version: int, titles: bytes, pdu: AAssociateRQ | AAssociateAC
) -> bytes:
    body = b"".join(
        (
            struct.pack(">HH", version, 0),
            titles,
            encode_item(_APPLICATION_CONTEXT, encode_uid(pdu.application_context)),
            *(context.encode() for context in pdu.presentation_contexts),
            encode_item(
                _USER_INFORMATION, b"".join(item.encode() for item in pdu.user_information)
            ),
            *(item.encode() for item in pdu.unknown_items),
        )
    )
    return _HEADER.pack(pdu_type, len(body)) + body


class _Proposal(NamedTuple):
    """What stands in an A-ASSOCIATE-RQ behind its titles; nothing of it can change."""

    presentation_contexts: tuple[PresentationContextRQ, ...]
    user_information: tuple[UserDataItem, ...]
    application_context: str
    unknown_items: tuple[UnknownItem, ...]


# The octets of proposals, with what they say: a peer opens one association after the other with the same proposal.
_proposals: dict[bytes, _Proposal] = {}
_MOST_PROPOSALS = 64
# The octets of the longest proposal that is kept, and of all together. Even if peers make as many objects of them as
# they can, these take a few megabytes.
_LONGEST_PROPOSAL = 1 << 14
_ALL_PROPOSALS = 1 << 18
_WITHOUT_CREDENTIAL = (
    MaximumLength,
    ImplementationClassUID,
    AsynchronousOperationsWindow,
    RoleSelection,
    ImplementationVersionName,
    SOPClassExtendedNegotiation,
)


def _decode_proposal(behind: bytes, what: str) -> _Proposal:
    items = _items_of(behind, what)
    return _Proposal(
        _decode_contexts(items[_CONTEXT_RQ]),
        decode_user_data(b"".join(items[_USER_INFORMATION])),
        decode_uid(items[_APPLICATION_CONTEXT][0]),
        tuple(items.unknown),
    )


def _keep_proposal(behind: bytes, proposal: _Proposal) -> None:
    """Keep a proposal, unless it is long or may hold a credential."""
    is_known = not proposal.unknown_items and _holds_no_credential(proposal.user_information)
    if is_known and len(behind) <= _LONGEST_PROPOSAL:
        _proposals[behind] = proposal
        while len(_proposals) > _MOST_PROPOSALS or sum(map(len, _proposals)) > _ALL_PROPOSALS:
            del _proposals[next(iter(_proposals))]  # the one that has been kept for longest


def _holds_no_credential(items: Iterable[UserDataItem]) -> bool:
    return all(isinstance(item, _WITHOUT_CREDENTIAL) for item in items)


class _Encoded(NamedTuple):
    """An A-ASSOCIATE-AC that was encoded, apart from the 64 octets that repeat those of the request."""

    presentation_contexts: tuple[PresentationContextAC, ...]
    user_information: tuple[UserDataItem, ...]
    application_context: str
    protocol_version: int
    before: bytes
    behind: bytes


# By the identity of the contexts: what is decided on once is often answered again.
_answers: dict[int, _Encoded] = {}


def _keep_answer(answer: AAssociateAC, encoded: bytes) -> None:
    if len(_answers) >= _MOST_PROPOSALS:
        del _answers[next(iter(_answers))]
    titles = _HEADER.size + 4
    _answers[id(answer.presentation_contexts)] = _Encoded(
        answer.presentation_contexts,
        answer.user_information,
        answer.application_context,
        answer.protocol_version,
        encoded[:titles],
        encoded[titles + 64 :],
    )


def _decode_contexts(bodies: list[bytes]) -> tuple[PresentationContextRQ, ...]:
    contexts: list[PresentationContextRQ] = []
    left = MAXIMUM_CONTEXT_ITEMS
    for body in bodies:
        context = PresentationContextRQ.decode(body, left)
        contexts.append(context)
        left -= 1 + len(context.transfer_syntaxes) + len(context.unknown_items)
    return tuple(contexts)


class _Items(dict[int, list[bytes]]):
    def __init__(self) -> None:
        super().__init__({_APPLICATION_CONTEXT: [], _USER_INFORMATION: []})
        self[_CONTEXT_RQ] = []
        self[_CONTEXT_AC] = []
        self.unknown: list[UnknownItem] = []


def _check_size(body: bytes, what: str) -> None:
    if len(body) < _ASSOCIATE.size:
        raise PDUProcessingError(
            f"{what}: expected {_ASSOCIATE.size} octets or more, got {len(body)}"
        )


def _items_of(behind: bytes, what: str) -> _Items:
    """The items that stand behind the titles of an A-ASSOCIATE PDU."""
    items = _Items()
    for kind, _, data in split_items(behind, what):
        if kind in items:
            items[kind].append(data)
        else:
            items.unknown.append(UnknownItem(kind, data))
    if len(items[_APPLICATION_CONTEXT]) != 1:
        raise PDUProcessingError(
            f"{what} has {len(items[_APPLICATION_CONTEXT])} application context items; expected 1"
        )
    # Absent user information says no more than "no limit, nothing to negotiate".
    if len(items[_USER_INFORMATION]) > 1:
        raise PDUProcessingError(
            f"{what} has {len(items[_USER_INFORMATION])} user information items; expected 1",
            AbortReason.UNEXPECTED_PARAMETER,
        )
    return items


def _encode_short(pdu_type: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> bytes:
    return _HEADER.pack(pdu_type, 4) + bytes((a, b, c, d))


def _four(body: bytes, what: str) -> bytes:
    if len(body) != 4:
        raise PDUProcessingError(f"{what}: expected 4 octets, got {len(body)}")
    return body


@dataclass(frozen=True, slots=True)
class AAssociateRJ:
    """03H: the association is rejected (PS3.8 9.3.4, Table 9-21)."""

    PDU_TYPE: ClassVar[int] = 0x03
    result: int
    source: int
    reason: int

    def __post_init__(self) -> None:
        for value in (self.result, self.source, self.reason):
            check_range("a code of A-ASSOCIATE-RJ", value, 0xFF)

    def encode(self) -> bytes:
        return _encode_short(self.PDU_TYPE, 0, self.result, self.source, self.reason)

    @classmethod
    def decode(cls, body: bytes) -> AAssociateRJ:
        _, result, source, reason = _four(body, "A-ASSOCIATE-RJ")
        return cls(result, source, reason)


@dataclass(frozen=True, slots=True)
class AReleaseRQ:
    """05H: the request to release the association (PS3.8 9.3.6)."""

    PDU_TYPE: ClassVar[int] = 0x05

    def encode(self) -> bytes:
        return _encode_short(self.PDU_TYPE)

    @classmethod
    def decode(cls, body: bytes) -> AReleaseRQ:
        _four(body, "A-RELEASE-RQ")
        return cls()


@dataclass(frozen=True, slots=True)
class AReleaseRP:
    """06H: the consent to the release (PS3.8 9.3.7)."""

    PDU_TYPE: ClassVar[int] = 0x06

    def encode(self) -> bytes:
        return _encode_short(self.PDU_TYPE)

    @classmethod
    def decode(cls, body: bytes) -> AReleaseRP:
        _four(body, "A-RELEASE-RP")
        return cls()


@dataclass(frozen=True, slots=True)
class AAbort:
    """07H: the end of the association, at once (PS3.8 9.3.8, Table 9-26)."""

    PDU_TYPE: ClassVar[int] = 0x07
    source: int = 0
    reason: int = 0

    def __post_init__(self) -> None:
        check_range("a source", self.source, 0xFF)
        check_range("a reason", self.reason, 0xFF)

    def encode(self) -> bytes:
        return _encode_short(self.PDU_TYPE, 0, 0, self.source, self.reason)

    @classmethod
    def decode(cls, body: bytes) -> AAbort:
        _, _, source, reason = _four(body, "A-ABORT")
        return cls(source, reason)


PDU = AAssociateRQ | AAssociateAC | AAssociateRJ | AReleaseRQ | AReleaseRP | AAbort
_CONTROL_PDUS = {
    pdu.PDU_TYPE: pdu
    for pdu in (AAssociateRQ, AAssociateAC, AAssociateRJ, AReleaseRQ, AReleaseRP, AAbort)
}
_P_DATA_TF = 0x04
_ASSOCIATE_PDUS = (AAssociateRQ.PDU_TYPE, AAssociateAC.PDU_TYPE)


class Fragment(NamedTuple):
    """A part of the value of a PDV, as much of it as had arrived (PS3.8 9.3.5.1, Annex E).

    Attributes:
        context_id: The ID of the presentation context.
        is_command: Whether it belongs to a command set and not to a data set.
        is_last: Whether the command set or data set ends with it.
        data: Octets, perhaps none: a view into what was fed to the reader.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview | bytes


class PDUReader:
    """Turns a byte stream, cut anywhere, into PDUs and fragments.

    P-DATA-TF is handed on while its bytes arrive and is never held whole. Any other PDU is
    collected, up to a limit; a longer one is refused from its six-octet header. A peer's mistake
    raises :class:`PDUProcessingError` from the iterator, with the reason for the A-ABORT. The reader
    is then finished and yields no more.

    Args:
        receive_limit: The most octets that we admit in the variable field of a P-DATA-TF; 0 means
            no limit.
        associate_limit: The most octets that we admit in the variable field of an A-ASSOCIATE PDU.
    """

    __slots__ = (
        "_context_id",
        "_failed",
        "_flags",
        "_held",
        "_need",
        "_pdu_left",
        "_pdu_type",
        "_pdv_left",
        "associate_limit",
        "receive_limit",
    )

    def __init__(
        self, receive_limit: int = 0, associate_limit: int = MAXIMUM_CONTROL_PDU_LENGTH
    ) -> None:
        self.receive_limit = receive_limit
        self.associate_limit = associate_limit
        self._held = bytearray()  # a header or a control PDU, incomplete
        self._need = 6  # octets until _held is complete
        self._pdu_type = 0  # 0: between PDUs
        self._pdu_left = 0  # of a P-DATA-TF, behind what was read
        self._pdv_left = 0  # of a PDV's value
        self._context_id = 0
        self._flags = 0
        self._failed = False

    @property
    def is_between_pdus(self) -> bool:
        """Whether the stream could end here without cutting a PDU off."""
        return not self._pdu_type and not self._held

    @property
    def held(self) -> int:
        """How many octets of an incomplete PDU are in memory."""
        return len(self._held)

    def discard(self) -> None:
        """Forget an incomplete PDU, because no more of it will come."""
        self._held = bytearray()

    @property
    def titles(self) -> tuple[str, str] | None:
        """The called and the calling AE title of an A-ASSOCIATE-RQ that has not come whole.

        They are in the first 74 octets, so they are known long before the request is. None without
        a request, and when the request has been handed on.
        """
        if self._pdu_type != AAssociateRQ.PDU_TYPE or len(self._held) < _ASSOCIATE.size:
            return None
        _, _, called, calling, _ = _ASSOCIATE.unpack_from(self._held)
        return _unpad(called), _unpad(calling)

    def feed(self, data: bytes) -> Iterator[PDU | Fragment]:
        """Read the next bytes of the stream. This is lazy: take everything before feeding more.

        Raises:
            PDUProcessingError: From the iterator, at the PDU that is wrong.
        """
        view = memoryview(data)
        offset, end = 0, len(view)
        while offset < end and not self._failed:
            if self._pdv_left:
                # The hot path: octets of a PDV's value.
                size = min(self._pdv_left, end - offset)
                self._pdv_left -= size
                self._pdu_left -= size
                flags = self._flags
                fragment = Fragment(
                    self._context_id,
                    flags & 1 == 1,
                    flags & 2 == 2 and not self._pdv_left,
                    view[offset : offset + size],
                )
                offset += size
                if not self._pdu_left:
                    self._pdu_type, self._need = 0, 6
                yield fragment
                continue
            held = self._held
            if not (self._pdu_type or held) and end - offset >= _ONE_PDV.size:
                # Most P-DATA-TF PDUs have one PDV. Whatever is not such a PDU, or is wrong, goes the long way below.
                kind, length, pdv_length, context_id, flags = _ONE_PDV.unpack_from(view, offset)
                if (
                    kind == _P_DATA_TF
                    and length == pdv_length + 4 > 6
                    and (length <= self.receive_limit or not self.receive_limit)
                ):
                    offset += _ONE_PDV.size
                    behind = offset + pdv_length - 2
                    if behind <= end:
                        fragment = Fragment(
                            context_id, flags & 1 == 1, flags & 2 == 2, view[offset:behind]
                        )
                        offset = behind
                        yield fragment
                        continue
                    self._pdu_type = kind
                    self._context_id, self._flags = context_id, flags
                    self._pdu_left = self._pdv_left = pdv_length - 2
                    continue
            take = min(self._need - len(held), end - offset)
            held += view[offset : offset + take]
            offset += take
            if len(held) < self._need:
                break
            whole = bytes(held)
            held.clear()
            try:
                produced = self._advance(whole)
            except PDUProcessingError:
                self._failed = True
                raise
            if produced is not None:
                yield produced

    def _advance(self, whole: bytes) -> PDU | Fragment | None:
        """Take a header or a control PDU that is complete."""
        if not self._pdu_type:
            self._start_pdu(whole)
            return None
        if self._pdu_type == _P_DATA_TF:
            return self._start_pdv(whole)
        pdu = _CONTROL_PDUS[self._pdu_type]
        self._pdu_type, self._need = 0, 6
        return pdu.decode(whole)

    def _start_pdu(self, header: bytes) -> None:
        pdu_type, length = _HEADER.unpack(header)
        if pdu_type == _P_DATA_TF:
            if self.receive_limit and length > self.receive_limit:
                raise PDUProcessingError(
                    f"P-DATA-TF of {length} octets; expected at most {self.receive_limit}"
                )
            if length < 6:
                raise PDUProcessingError(
                    f"P-DATA-TF of {length} octets; expected one PDV of 6 octets or more"
                )
            self._pdu_left = length
            self._need = 6
        elif pdu_type in _CONTROL_PDUS:
            # PS3.8 Tables 9-11 to 9-26.
            least, most = 4, 4
            if pdu_type in _ASSOCIATE_PDUS:
                least, most = _ASSOCIATE.size, self.associate_limit
            if not least <= length <= most:
                raise PDUProcessingError(
                    f"PDU type {pdu_type:02X}H of {length} octets; expected {least} to {most}"
                )
            self._need = length
        else:
            raise PDUProcessingError(
                f"PDU type {pdu_type:02X}H; expected 01H to 07H{_guess(header)}",
                AbortReason.UNRECOGNIZED_PDU,
            )
        self._pdu_type = pdu_type

    def _start_pdv(self, header: bytes) -> Fragment | None:
        length, context_id, flags = _PDV_HEADER.unpack(header)
        # The length counts the context ID and the message control header, but not its own field.
        if length < 2 or length + 4 > self._pdu_left:
            raise PDUProcessingError(
                f"PDV of {length} octets in a P-DATA-TF with {self._pdu_left} left; "
                f"expected 2 to {self._pdu_left - 4}"
            )
        self._pdu_left -= 6
        self._pdv_left = length - 2
        self._context_id = context_id
        self._flags = flags
        rest = self._pdu_left - self._pdv_left
        if 0 < rest < 6:
            raise PDUProcessingError(f"{rest} stray octets after the last PDV of a P-DATA-TF")
        if self._pdv_left:
            return None
        # PS3.8 Annex E: a PDV of the control header alone should be accepted.
        if not self._pdu_left:
            self._pdu_type = 0
        return Fragment(context_id, flags & 1 == 1, flags & 2 == 2, b"")


def _guess(header: bytes) -> str:
    """Name the other protocol that the first octets of a connection belong to, if they tell."""
    if header[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN"):
        return " (this looks like HTTP)"
    if header[:2] == b"\x16\x03":
        return " (this looks like TLS on a port without TLS)"
    # What comes from a peer that was called, and is something else.
    for octets, name in ((b"HTTP", "HTTP"), (b"SSH-", "SSH"), (b"\x15\x03", "a port with TLS")):
        if header.startswith(octets):
            return f" (this looks like {name})"
    return ""
