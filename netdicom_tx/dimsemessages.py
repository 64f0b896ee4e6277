"""The 23 DIMSE messages and the codec of their command sets (PS3.7 6.3, 9.3, 10.3, Annex E).

A message is a frozen value: the elements of its command set in snake_case, and ``data_set``,
which is bytes, a binary file positioned at the data set, or None. The sender knows which messages
carry one. The codec adds Command Data Set Type (0000,0800), Command Group Length and Command Field.

============================  =====  ============================  =====
request                       field  response                      field
============================  =====  ============================  =====
:class:`CStoreRQ`             0001H  :class:`CStoreRSP`            8001H
:class:`CGetRQ`               0010H  :class:`CGetRSP`              8010H
:class:`CFindRQ`              0020H  :class:`CFindRSP`             8020H
:class:`CMoveRQ`              0021H  :class:`CMoveRSP`             8021H
:class:`CEchoRQ`              0030H  :class:`CEchoRSP`             8030H
:class:`CCancelRQ`            0FFFH  (none)
:class:`NEventReportRQ`       0100H  :class:`NEventReportRSP`      8100H
:class:`NGetRQ`               0110H  :class:`NGetRSP`              8110H
:class:`NSetRQ`               0120H  :class:`NSetRSP`              8120H
:class:`NActionRQ`            0130H  :class:`NActionRSP`           8130H
:class:`NCreateRQ`            0140H  :class:`NCreateRSP`           8140H
:class:`NDeleteRQ`            0150H  :class:`NDeleteRSP`           8150H
============================  =====  ============================  =====

A command set is always in implicit VR little endian, with ascending elements of even length. Its
grammar is fixed and tiny, so pydicom is not on this path.

Reading is liberal where the meaning is plain, because an abort helps nobody:

=====================================================  ===============================================
a command set has                                      it is read as
=====================================================  ===============================================
an element that its message does not have, or a        ignored
retired one
several values where one belongs                       the first of them
an optional element without a value, or with one that  absent
cannot be read
a Command Group Length that counts wrongly             what is there
the same element with the same value twice             once
something behind group 0000 of a response              :attr:`Response.stray`
a request without an element that it must have         :attr:`Request.missing`, to be answered 0212H
=====================================================  ===============================================

:attr:`Message.deviations` names each of these. What remains is an error: a set that is cut off or
contradicts itself, a request that cannot be answered, and a response that answers no request.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from enum import IntEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, BinaryIO, ClassVar, NamedTuple

from .exceptions import AbortReason, DIMSEProcessingError, LocalProtocolError, printable

__all__ = [
    "MESSAGE_TYPE",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_MEDIUM",
    "CCancelRQ",
    "CEchoRQ",
    "CEchoRSP",
    "CFindRQ",
    "CFindRSP",
    "CGetRQ",
    "CGetRSP",
    "CMoveRQ",
    "CMoveRSP",
    "CStoreRQ",
    "CStoreRSP",
    "DataSource",
    "Message",
    "NActionRQ",
    "NActionRSP",
    "NCreateRQ",
    "NCreateRSP",
    "NDeleteRQ",
    "NDeleteRSP",
    "NEventReportRQ",
    "NEventReportRSP",
    "NGetRQ",
    "NGetRSP",
    "NSetRQ",
    "NSetRSP",
    "Priority",
    "Request",
    "Response",
    "UnknownRQ",
    "UnknownRSP",
    "decode_command",
    "encode_command",
]

DataSource = bytes | BinaryIO
_GROUP_LENGTH, _COMMAND_FIELD, _DATA_SET_TYPE = 0x0000, 0x0100, 0x0800
_NO_DATA_SET = 0x0101
_DATA_SET_PRESENT = 0x0001
# The most octets of a command set that others are compared with; one for each size is kept.
_LONGEST_PATTERN = 1024
_ELEMENT = struct.Struct("<HHI")
_US = struct.Struct("<H")
_UL = struct.Struct("<I")


class Priority(IntEnum):
    """The priority of an operation (PS3.7 9.3.1.1). Honouring it is optional; most peers do not."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


PRIORITY_MEDIUM, PRIORITY_HIGH, PRIORITY_LOW = Priority.MEDIUM, Priority.HIGH, Priority.LOW


# -- values of command elements -----------------------------------------------------------------


def _encode_us(value: int) -> bytes:
    return _US.pack(value)


def _decode_us(data: bytes) -> int:
    if len(data) < 2:
        raise ValueError(f"US of {len(data)} octets; expected 2")
    return int(_US.unpack_from(data)[0])


def _encode_ui(value: str) -> bytes:
    data = value.encode("latin-1")
    return data + b"\0" if len(data) % 2 else data


def _decode_ui(data: bytes) -> str:
    return data.decode("latin-1").rstrip("\0 ")


def _encode_text(value: str) -> bytes:
    # ISO 8859-1, so that a peer's odd AE title goes back as it came.
    data = value.encode("latin-1")
    return data + b" " if len(data) % 2 else data


def _encode_comment(value: str) -> bytes:
    return _encode_text(error_comment(value))


def _decode_text(data: bytes) -> str:
    return data.decode("latin-1").strip("\0 ")


def _encode_at(value: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)


def _decode_at(data: bytes) -> tuple[int, ...]:
    whole = data[: len(data) & ~3]
    return tuple(group << 16 | element for group, element in struct.iter_unpack("<HH", whole))


# Characters that NFKD does not turn into ISO 646; in an LO, a backslash separates values (PS3.5 6.2).
_IN_ASCII = str.maketrans(
    {"ß": "ss", "Æ": "AE", "æ": "ae", "Ø": "O", "ø": "o", "Œ": "OE", "œ": "oe", "Đ": "D", "đ": "d"}
    | {"Ł": "L", "ł": "l", "Þ": "Th", "þ": "th", "\u2044": "/", "\\": "/"}
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014", "-")
    | dict.fromkeys("\u2018\u2019\u201a", "'")
    | dict.fromkeys("\u201c\u201d\u201e", '"')
)
_COMMENT_LIMIT = 64
# Characters of a text that are looked at for such a comment.
_TEXT_LIMIT = 256
_CUT_ESCAPE = re.compile(r"<(U(\+[0-9A-F]*)?)?$")


def error_comment(text: str) -> str:
    """Make an Error Comment (0000,0902) of a text.

    The command set has no Specific Character Set, so a comment is ISO 646 (PS3.7 6.3.1), and as an
    LO it has up to 64 characters without control characters and backslashes (PS3.5 6.2). Letters
    lose their accents, other characters become their numbers (``<U+4E2D>``), line breaks and the
    like become escapes (``/n``), and a longer text ends behind a word.
    """
    plain = unicodedata.normalize("NFC", text[:_TEXT_LIMIT])
    whole = " ".join("".join(map(_in_ascii, plain)).split())
    if len(whole) <= _COMMENT_LIMIT:
        return whole
    head, _, _ = whole[: _COMMENT_LIMIT + 1].rpartition(" ")
    if len(head) > _COMMENT_LIMIT // 2:
        return head
    # A long word, such as a path, is cut where it must be.
    return _CUT_ESCAPE.sub("", whole[:_COMMENT_LIMIT])


def _in_ascii(character: str) -> str:
    if not character.isprintable():
        return (
            " "
            if unicodedata.category(character) == "Zs"
            else ascii(character)[1:-1].replace("\\", "/")
        )
    parts = unicodedata.normalize("NFKD", character).translate(_IN_ASCII)
    plain = "".join(part for part in parts if not unicodedata.combining(part))
    return plain if plain and plain.isascii() else f"<U+{ord(character):04X}>"


class _Element(NamedTuple):
    number: int  # the element number; the group is 0000
    keyword: str
    encode: Callable[[Any], bytes]  # Any: the type of the field that the element stands for
    decode: Callable[[bytes], Any]


def _element(number: int, keyword: str, vr: str) -> _Element:
    codecs: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
        "US": (_encode_us, _decode_us),
        "UI": (_encode_ui, _decode_ui),
        "AE": (_encode_text, _decode_text),
        "LO": (_encode_comment, _decode_text),
        "AT": (_encode_at, _decode_at),
    }
    return _Element(number, keyword, *codecs[vr])


# Field name -> element (PS3.7 Annex E), ascending.
ELEMENTS: dict[str, _Element] = {
    "affected_sop_class_uid": _element(0x0002, "AffectedSOPClassUID", "UI"),
    "requested_sop_class_uid": _element(0x0003, "RequestedSOPClassUID", "UI"),
    "command_field": _element(0x0100, "CommandField", "US"),
    "message_id": _element(0x0110, "MessageID", "US"),
    "message_id_being_responded_to": _element(0x0120, "MessageIDBeingRespondedTo", "US"),
    "move_destination": _element(0x0600, "MoveDestination", "AE"),
    "priority": _element(0x0700, "Priority", "US"),
    "command_data_set_type": _element(0x0800, "CommandDataSetType", "US"),
    "status": _element(0x0900, "Status", "US"),
    "offending_element": _element(0x0901, "OffendingElement", "AT"),
    "error_comment": _element(0x0902, "ErrorComment", "LO"),
    "error_id": _element(0x0903, "ErrorID", "US"),
    "affected_sop_instance_uid": _element(0x1000, "AffectedSOPInstanceUID", "UI"),
    "requested_sop_instance_uid": _element(0x1001, "RequestedSOPInstanceUID", "UI"),
    "event_type_id": _element(0x1002, "EventTypeID", "US"),
    "attribute_identifier_list": _element(0x1005, "AttributeIdentifierList", "AT"),
    "action_type_id": _element(0x1008, "ActionTypeID", "US"),
    "number_of_remaining_suboperations": _element(0x1020, "NumberOfRemainingSuboperations", "US"),
    "number_of_completed_suboperations": _element(0x1021, "NumberOfCompletedSuboperations", "US"),
    "number_of_failed_suboperations": _element(0x1022, "NumberOfFailedSuboperations", "US"),
    "number_of_warning_suboperations": _element(0x1023, "NumberOfWarningSuboperations", "US"),
    "move_originator_application_entity_title": _element(
        0x1030, "MoveOriginatorApplicationEntityTitle", "AE"
    ),
    "move_originator_message_id": _element(0x1031, "MoveOriginatorMessageID", "US"),
}


# -- the messages -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Message:
    """What all messages share.

    Comparing and showing them is written once here, instead of generated for each of the classes, which would take a
    third of the time in which this module is loaded.

    Attributes:
        data_set: The data set in the transfer syntax of the presentation context, as bytes or as a
            file that is read from its position; None when the message has none.
        deviations: How the command set that was read differs from PS3.7, in words for a log line.
            One kind of deviation always has the same words.
    """

    COMMAND_FIELD: ClassVar[int] = 0
    OPERATION: ClassVar[str] = ""
    data_set: DataSource | None = field(default=None, repr=False)
    deviations: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def _compared(self) -> tuple[object, ...]:
        return tuple(getattr(self, each.name) for each in fields(self) if each.compare)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message) or other.__class__ is not self.__class__:
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def __repr__(self) -> str:
        shown = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr]
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def command_field(self) -> int:
        return self.COMMAND_FIELD

    @property
    def sop_class_uid(self) -> str | None:
        """The affected or the requested SOP class, whichever the message has."""
        return getattr(self, "affected_sop_class_uid", None) or getattr(
            self, "requested_sop_class_uid", None
        )

    @property
    def sop_instance_uid(self) -> str | None:
        """The affected or the requested SOP instance, whichever the message has."""
        return getattr(self, "affected_sop_instance_uid", None) or getattr(
            self, "requested_sop_instance_uid", None
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Request(Message):
    """A request.

    Attributes:
        message_id: 0 to 65535; None until the association has counted it.
        missing: Elements without which the request has no meaning and that did not come, such as
            ``"ActionTypeID (0000,1008)"``. They are an empty string or 0 in it.
    """

    message_id: int | None = None
    missing: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def response(
        self, status: int, data_set: DataSource | None = None, **elements: Any
    ) -> Response:
        """Make the response to this request, with the IDs of the request.

        Args:
            status: The status, 0x0000 to 0xFFFF.
            data_set: The encoded data set of the response.
            elements: Further elements by field name. Each has its own type, hence Any.
        """
        if self.message_id is None:
            raise LocalProtocolError(
                f"{self.OPERATION}: a request that was never sent has no response"
            )
        kind, repeated = _ANSWERS[type(self)]
        if kind is UnknownRSP:
            elements["request_field"] = self.command_field
        for name, own in repeated:
            value = getattr(self, own)
            if value and name not in elements:
                elements[name] = value
        return kind(
            message_id_being_responded_to=self.message_id,
            status=status,
            data_set=data_set,
            **elements,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Response(Message):
    """A response. Any response may have the elements of Annex C that explain a status.

    Attributes:
        stray: Elements that stood behind group 0000 of the command set, in implicit VR little
            endian. PS3.7 6.3.1 has no room for them; Orthanc 1.10 lists the instances that failed
            in a C-GET there.
    """

    message_id_being_responded_to: int
    status: int
    affected_sop_class_uid: str | None = None
    offending_element: tuple[int, ...] | None = None
    error_comment: str | None = None
    error_id: int | None = None
    attribute_identifier_list: tuple[int, ...] | None = None
    stray: bytes = field(default=b"", repr=False, compare=False)

    @property
    def operation(self) -> str:
        """The name of the operation, such as ``"C-STORE"``."""
        return self.OPERATION


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CEchoRQ(Request):
    """The C-ECHO request (PS3.7 9.3.5.1)."""

    COMMAND_FIELD: ClassVar[int] = 0x0030
    OPERATION: ClassVar[str] = "C-ECHO"
    affected_sop_class_uid: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CEchoRSP(Response):
    """The C-ECHO response (PS3.7 9.3.5.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8030
    OPERATION: ClassVar[str] = "C-ECHO"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CStoreRQ(Request):
    """The C-STORE request (PS3.7 9.3.1.1). Only the sub-operations of a C-MOVE name a move originator."""

    COMMAND_FIELD: ClassVar[int] = 0x0001
    OPERATION: ClassVar[str] = "C-STORE"
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    priority: int = Priority.MEDIUM
    move_originator_application_entity_title: str | None = None
    move_originator_message_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CStoreRSP(Response):
    """The C-STORE response (PS3.7 9.3.1.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8001
    OPERATION: ClassVar[str] = "C-STORE"
    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CFindRQ(Request):
    """The C-FIND request (PS3.7 9.3.2.1)."""

    COMMAND_FIELD: ClassVar[int] = 0x0020
    OPERATION: ClassVar[str] = "C-FIND"
    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CFindRSP(Response):
    """The C-FIND response (PS3.7 9.3.2.2). Only a Pending response has an identifier."""

    COMMAND_FIELD: ClassVar[int] = 0x8020
    OPERATION: ClassVar[str] = "C-FIND"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _SubOperations(Response):
    number_of_remaining_suboperations: int | None = None
    number_of_completed_suboperations: int | None = None
    number_of_failed_suboperations: int | None = None
    number_of_warning_suboperations: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CGetRQ(Request):
    """The C-GET request (PS3.7 9.3.3.1)."""

    COMMAND_FIELD: ClassVar[int] = 0x0010
    OPERATION: ClassVar[str] = "C-GET"
    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CGetRSP(_SubOperations):
    """The C-GET response (PS3.7 9.3.3.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8010
    OPERATION: ClassVar[str] = "C-GET"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CMoveRQ(Request):
    """The C-MOVE request (PS3.7 9.3.4.1)."""

    COMMAND_FIELD: ClassVar[int] = 0x0021
    OPERATION: ClassVar[str] = "C-MOVE"
    affected_sop_class_uid: str
    move_destination: str
    priority: int = Priority.MEDIUM


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CMoveRSP(_SubOperations):
    """The C-MOVE response (PS3.7 9.3.4.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8021
    OPERATION: ClassVar[str] = "C-MOVE"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CCancelRQ(Message):
    """The C-CANCEL request (PS3.7 9.3.2.3). It names the request that is to be cancelled, and has no response."""

    COMMAND_FIELD: ClassVar[int] = 0x0FFF
    OPERATION: ClassVar[str] = "C-CANCEL"
    message_id_being_responded_to: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NEventReportRQ(Request):
    """The N-EVENT-REPORT request (PS3.7 10.3.1.1)."""

    COMMAND_FIELD: ClassVar[int] = 0x0100
    OPERATION: ClassVar[str] = "N-EVENT-REPORT"
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    event_type_id: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NEventReportRSP(Response):
    """The N-EVENT-REPORT response (PS3.7 10.3.1.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8100
    OPERATION: ClassVar[str] = "N-EVENT-REPORT"
    affected_sop_instance_uid: str | None = None
    event_type_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NGetRQ(Request):
    """The N-GET request (PS3.7 10.3.2.1). One without an attribute list asks for all attributes."""

    COMMAND_FIELD: ClassVar[int] = 0x0110
    OPERATION: ClassVar[str] = "N-GET"
    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    attribute_identifier_list: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NGetRSP(Response):
    """The N-GET response (PS3.7 10.3.2.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8110
    OPERATION: ClassVar[str] = "N-GET"
    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NSetRQ(Request):
    """The N-SET request (PS3.7 10.3.3.1)."""

    COMMAND_FIELD: ClassVar[int] = 0x0120
    OPERATION: ClassVar[str] = "N-SET"
    requested_sop_class_uid: str
    requested_sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NSetRSP(Response):
    """The N-SET response (PS3.7 10.3.3.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8120
    OPERATION: ClassVar[str] = "N-SET"
    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NActionRQ(Request):
    """The N-ACTION request (PS3.7 10.3.4.1)."""

    COMMAND_FIELD: ClassVar[int] = 0x0130
    OPERATION: ClassVar[str] = "N-ACTION"
    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    action_type_id: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NActionRSP(Response):
    """The N-ACTION response (PS3.7 10.3.4.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8130
    OPERATION: ClassVar[str] = "N-ACTION"
    affected_sop_instance_uid: str | None = None
    action_type_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NCreateRQ(Request):
    """The N-CREATE request (PS3.7 10.3.5.1). The performer assigns the instance UID when it has none."""

    COMMAND_FIELD: ClassVar[int] = 0x0140
    OPERATION: ClassVar[str] = "N-CREATE"
    affected_sop_class_uid: str
    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NCreateRSP(Response):
    """The N-CREATE response (PS3.7 10.3.5.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8140
    OPERATION: ClassVar[str] = "N-CREATE"
    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NDeleteRQ(Request):
    """The N-DELETE request (PS3.7 10.3.6.1)."""

    COMMAND_FIELD: ClassVar[int] = 0x0150
    OPERATION: ClassVar[str] = "N-DELETE"
    requested_sop_class_uid: str
    requested_sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NDeleteRSP(Response):
    """The N-DELETE response (PS3.7 10.3.6.2)."""

    COMMAND_FIELD: ClassVar[int] = 0x8150
    OPERATION: ClassVar[str] = "N-DELETE"
    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class UnknownRQ(Request):
    """A request whose Command Field is not in PS3.7. Its answer is 0x0211."""

    OPERATION: ClassVar[str] = "unknown operation"
    request_field: int
    affected_sop_class_uid: str | None = None

    @property
    def command_field(self) -> int:
        return self.request_field


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class UnknownRSP(Response):
    """The answer to an :class:`UnknownRQ`."""

    OPERATION: ClassVar[str] = "unknown operation"
    request_field: int

    @property
    def command_field(self) -> int:
        return self.request_field | 0x8000


_RESPONSE_OF: dict[type[Message], type[Response]] = {
    CStoreRQ: CStoreRSP,
    CGetRQ: CGetRSP,
    CFindRQ: CFindRSP,
    CMoveRQ: CMoveRSP,
    CEchoRQ: CEchoRSP,
    NEventReportRQ: NEventReportRSP,
    NGetRQ: NGetRSP,
    NSetRQ: NSetRSP,
    NActionRQ: NActionRSP,
    NCreateRQ: NCreateRSP,
    NDeleteRQ: NDeleteRSP,
    UnknownRQ: UnknownRSP,
}
_KNOWN: tuple[type[Message], ...] = (
    *(kind for kind in _RESPONSE_OF if kind is not UnknownRQ),
    CCancelRQ,
    *(kind for kind in _RESPONSE_OF.values() if kind is not UnknownRSP),
)
#: Command Field -> message class.
MESSAGE_TYPE: dict[int, type[Message]] = {kind.COMMAND_FIELD: kind for kind in _KNOWN}


def _own_elements(kind: type[Message]) -> dict[str, _Element]:
    names = {f.name for f in fields(kind)} | {"command_field", "command_data_set_type"}
    return {name: element for name, element in ELEMENTS.items() if name in names}


_FIELDS = {kind: _own_elements(kind) for kind in (*_KNOWN, UnknownRQ, UnknownRSP)}
# The elements that a message must have; a request without an ID could not be answered.
_MANDATORY = {
    kind: tuple(
        f.name
        for f in fields(kind)
        if f.name in ELEMENTS and (f.default is MISSING or f.name == "message_id")
    )
    for kind in _FIELDS
}
# Element number -> (field name, decoder), for each class; Command Field and Data Set Type apart.
_READERS = {
    kind: {
        e.number: (name, e.decode)
        for name, e in own.items()
        if e.number not in (_COMMAND_FIELD, _DATA_SET_TYPE)
    }
    for kind, own in _FIELDS.items()
}
_WRITERS = {
    kind: tuple((name, e.number, e.encode, e.keyword) for name, e in own.items())
    for kind, own in _FIELDS.items()
}


def _answer(kind: type[Message]) -> tuple[type[Response], tuple[tuple[str, str], ...]]:
    """The response to a kind of request, and which of its fields repeat which ones of the request."""
    response = _RESPONSE_OF[kind]
    repeated = (
        (f"affected_{what}", f"{prefix}_{what}")
        for what in ("sop_class_uid", "sop_instance_uid")
        for prefix in ("affected", "requested")
    )
    return response, tuple(
        (field, own)
        for field, own in repeated
        if field in _FIELDS[response] and own in _FIELDS[kind]
    )


_ANSWERS = {kind: _answer(kind) for kind in _RESPONSE_OF}
# The messages that recur with nothing new but a message ID: those that name no instance.
_RECURRING: dict[type[Message], dict[str, _Element]] = {
    kind: own
    for kind, own in _FIELDS.items()
    if issubclass(kind, Request | Response) and kind not in (UnknownRQ, UnknownRSP)
    if not any(name.endswith("sop_instance_uid") for name in own)
}


# -- writing ------------------------------------------------------------------------------------


def _rest(kind: type[Message]) -> tuple[Callable[[Any], object], object]:
    """What reads the elements of a response besides those of a pattern, and what it finds when it has none of them."""
    names = _RECURRING[kind].keys() & {f.name for f in fields(kind)}
    names -= {"affected_sop_class_uid", "message_id_being_responded_to", "status"}
    return attrgetter(*names), (None,) * len(names)


_REST: dict[type[Message], tuple[Callable[[Any], object], object]] = {
    kind: _rest(kind) for kind in _RECURRING if issubclass(kind, Response)
}


# By the type as well, because 0.0 == 0, but only one of them can be written.
@lru_cache(maxsize=256, typed=True)
def _pattern(
    kind: type[Response], sop_class_uid: str | None, status: int, has_data_set: bool
) -> tuple[bytes, bytes]:
    """The command set of a response with nothing in it but this, before and behind the message ID."""
    message = kind(
        message_id_being_responded_to=0,
        affected_sop_class_uid=sop_class_uid,
        status=status,
        data_set=b"" if has_data_set else None,
    )
    whole = _encode_command(message)
    (place,) = _places_of_id(whole, message)
    return whole[:place], whole[place + _US.size :]


def _places_of_id(command: bytes, message: Message) -> list[int]:
    """The offsets at which the command set of a message has its message ID; a peer may repeat an element."""
    wanted = ELEMENTS[_id_of(message)].number
    places = []
    offset = 0
    while offset < len(command):
        _, number, length = _ELEMENT.unpack_from(command, offset)
        offset += _ELEMENT.size
        if number == wanted:
            places.append(offset)
        offset += length
    return places


def _id_of(message: Message) -> str:
    return "message_id" if isinstance(message, Request) else "message_id_being_responded_to"


def encode_command(message: Message) -> bytes:
    """Write the command set of a message, group length included (PS3.7 6.3.1).

    Raises:
        LocalProtocolError: A value does not fit its element.
    """
    rest = _REST.get(type(message))
    if rest is not None:
        read, nothing = rest
        if read(message) == nothing:
            assert isinstance(message, Response)
            return _from_pattern(message)
    return _encode_command(message)


def _from_pattern(message: Response) -> bytes:
    """Write a response that says nothing but its status; it differs from others in the message ID."""
    try:
        before, behind = _pattern(
            type(message),  # type: ignore[arg-type]  # mypy looks at the hash of its instances
            message.affected_sop_class_uid,
            message.status,
            message.data_set is not None,
        )
        return before + _US.pack(message.message_id_being_responded_to) + behind
    except (struct.error, TypeError):
        return _encode_command(message)  # which says what cannot be written


def _encode_command(message: Message) -> bytes:
    parts: list[bytes] = []
    pack = _ELEMENT.pack
    for name, number, encode, keyword in _WRITERS[type(message)]:
        if name == "command_data_set_type":
            value: Any = _NO_DATA_SET if message.data_set is None else _DATA_SET_PRESENT
        else:
            value = getattr(message, name)
        if value is None:
            if name == "message_id":
                raise LocalProtocolError(f"{message.OPERATION}: Message ID (0000,0110) is missing")
            continue
        try:
            data = encode(value)
        except (struct.error, UnicodeError, TypeError, AttributeError) as error:
            raise LocalProtocolError(
                f"{message.OPERATION}: {keyword} (0000,{number:04X}) cannot be "
                f"{printable(repr(value))}: {error}"
            ) from error
        parts.append(pack(0, number, len(data)))
        parts.append(data)
    body = b"".join(parts)
    return pack(0, 0, 4) + _UL.pack(len(body)) + body


def decode_command(data: bytes) -> tuple[Message, bool]:
    """Read a complete command set.

    Returns:
        The message, still without its data set, and whether a data set follows.

    Raises:
        DIMSEProcessingError: The command set is cut off, contradicts itself, or lacks an element
            without which the request cannot be answered or the response answers no request.
    """
    kept = _kept.get(len(data))
    # Those who send many messages of a kind send the same octets again and again, with another message ID.
    if kept is not None and data.startswith(kept.before) and data.endswith(kept.behind):
        (number,) = _US.unpack_from(data, len(kept.before))
        return kept.kind(**{kept.id: number}, **kept.others), kept.has_data_set
    message, has_data_set = _decode_command(data)
    if type(message) in _RECURRING and len(data) <= _LONGEST_PATTERN and _is_plain(message):
        _keep(data, message, has_data_set)
    return message, has_data_set


def _decode_command(data: bytes) -> tuple[Message, bool]:
    values, stray, odd = _elements(data)
    try:
        command_field = _decode_us(values.pop(_COMMAND_FIELD, b""))
        data_set_type = _decode_us(values.pop(_DATA_SET_TYPE, b""))
    except ValueError as error:
        raise DIMSEProcessingError(
            f"the command set lacks Command Field or Command Data Set Type: {error}"
        ) from error
    return _build(command_field, values, stray, odd), data_set_type != _NO_DATA_SET


def _elements(data: bytes) -> tuple[dict[int, bytes], bytes, list[str]]:
    """Cut a command set into the values of group 0000 by element number.

    Returns:
        The values, what stands behind them, and the deviations.
    """
    values: dict[int, bytes] = {}
    odd: list[str] = []
    offset, end, counted = 0, len(data), None
    while offset < end:
        # Whatever is not an element of the group is stray when the group length does not count it.
        is_behind = counted is not None and offset >= counted
        if end - offset < _ELEMENT.size:
            if is_behind:
                break
            raise DIMSEProcessingError(f"{end - offset} stray octets end the command set")
        group, number, length = _ELEMENT.unpack_from(data, offset)
        if group or (is_behind and number in values):
            break
        offset += _ELEMENT.size
        if length > end - offset:
            raise DIMSEProcessingError(
                f"command element (0000,{number:04X}) says {length} octets, {end - offset} are left"
            )
        value = data[offset : offset + length]
        if values.setdefault(number, value) != value:
            raise DIMSEProcessingError(
                f"command element (0000,{number:04X}) comes twice, with different values"
            )
        offset += length
        if number == _GROUP_LENGTH and length == _UL.size:
            counted = offset + _UL.unpack(value)[0]
    if counted != offset and (counted is not None or _GROUP_LENGTH in values):
        odd.append("Command Group Length does not count the elements of group 0000")
    return values, data[offset:], odd


def _build(command_field: int, values: dict[int, bytes], stray: bytes, odd: list[str]) -> Message:
    """Make the message of a command set's values."""
    arguments: dict[str, Any] = {}
    kind = MESSAGE_TYPE.get(command_field)
    if kind is None:
        if command_field & 0x8000:
            raise DIMSEProcessingError(
                f"response {command_field:04X}H is not in PS3.7",
                AbortReason.UNRECOGNIZED_PARAMETER,
            )
        kind, arguments["request_field"] = UnknownRQ, command_field
    if stray:
        if not issubclass(kind, Response):
            raise DIMSEProcessingError(
                f"{kind.OPERATION} {command_field:04X}H: {_describe(stray)} behind group 0000 of the "
                "command set"
            )
        odd.append("elements of other groups stand in the command set")
        arguments["stray"] = stray
    _read_values(kind, values, arguments, odd)
    missing = [name for name in _MANDATORY[kind] if name not in arguments]
    if missing:
        words = tuple(f"{(e := ELEMENTS[name]).keyword} (0000,{e.number:04X})" for name in missing)
        if not issubclass(kind, Request) or "message_id" in missing:
            raise DIMSEProcessingError(
                f"{kind.OPERATION} {command_field:04X}H lacks {', '.join(words)}"
            )
        arguments["missing"] = words
        for name in missing:
            arguments[name] = 0 if ELEMENTS[name].decode is _decode_us else ""
    if odd:
        what = f"{kind.OPERATION} {'response' if issubclass(kind, Response) else 'request'}"
        arguments["deviations"] = tuple(f"{what}: {words}" for words in odd)
    return kind(**arguments)


def _read_values(
    kind: type[Message], values: dict[int, bytes], arguments: dict[str, Any], odd: list[str]
) -> None:
    """Decode the elements that a message has."""
    readers, mandatory = _READERS[kind], _MANDATORY[kind]
    for number, value in values.items():
        reader = readers.get(number)
        if reader is None:
            continue
        name, decode = reader
        try:
            found = decode(value)
        except ValueError:
            odd.append(f"{ELEMENTS[name].keyword} cannot be read")
            continue
        if decode is _decode_us and len(value) != _US.size:
            odd.append(f"{ELEMENTS[name].keyword} has several values; the first is taken")
        if found == "":
            odd.append(f"{ELEMENTS[name].keyword} has no value")
            if name not in mandatory:
                continue
        arguments[name] = found


class _Kept(NamedTuple):
    """A command set that was read, which others repeat with another message ID."""

    before: bytes  # the message ID
    behind: bytes
    kind: type[Message]
    id: str  # the name of the field
    others: dict[str, Any]  # the other fields
    has_data_set: bool


# By their sizes. Peers may replace what others have left here, which costs no more than to read each command set.
_kept: dict[int, _Kept] = {}


def _keep(data: bytes, message: Message, has_data_set: bool) -> None:
    """Keep a command set, to compare the next ones with it."""
    places = _places_of_id(data, message)
    if len(places) > 1:
        return
    (place,) = places
    others = {
        each.name: getattr(message, each.name) for each in fields(message) if each.name in ELEMENTS
    }
    name = _id_of(message)
    del others[name]
    before, behind = data[:place], data[place + _US.size :]
    _kept[len(data)] = _Kept(before, behind, type(message), name, others, has_data_set)


def _is_plain(message: Message) -> bool:
    """Whether a message that was read is nothing but what its fields say."""
    return not (
        message.deviations or getattr(message, "missing", ()) or getattr(message, "stray", b"")
    )


def _describe(stray: bytes) -> str:
    if len(stray) < _ELEMENT.size:
        return f"{len(stray)} stray octets stand"
    group, number, _ = _ELEMENT.unpack_from(stray)
    return f"element ({group:04X},{number:04X}) stands"
