"""User-information sub-items of A-ASSOCIATE PDUs: types 51H to 59H (PS3.7 Annex D.3.3, PS3.8 Annex D.1).

======  ==========================================  ======================
type    class                                       section
======  ==========================================  ======================
51H     :class:`MaximumLength`                      PS3.8 D.1
52H     :class:`ImplementationClassUID`             PS3.7 D.3.3.2
53H     :class:`AsynchronousOperationsWindow`       PS3.7 D.3.3.3
54H     :class:`RoleSelection`                      PS3.7 D.3.3.4
55H     :class:`ImplementationVersionName`          PS3.7 D.3.3.2
56H     :class:`SOPClassExtendedNegotiation`        PS3.7 D.3.3.5
57H     :class:`SOPClassCommonExtendedNegotiation`  PS3.7 D.3.3.6
58H     :class:`UserIdentity`                       PS3.7 D.3.3.7.1
59H     :class:`UserIdentityResponse`               PS3.7 D.3.3.7.2
other   :class:`UnknownItem`                        kept as it came (PS3.8 D.2)
======  ==========================================  ======================

Each is a frozen value. ``encode()`` gives the whole item, and ``decode(body)`` reads the bytes
behind its length field. All integers are big endian. A body that is too short or disagrees with
its inner lengths raises :class:`~netdicom_tx.exceptions.PDUProcessingError` with the A-ABORT
reason that fits. :func:`decode_user_data` keeps such an item as a :class:`MalformedItem`, which everybody ignores,
because all of them but the maximum length are optional, or for people to read. The items that hold these are in
:mod:`netdicom_tx.pdu`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

from .exceptions import LocalProtocolError, PDUProcessingError, printable

__all__ = [
    "MAXIMUM_ITEMS",
    "AsynchronousOperationsWindow",
    "ImplementationClassUID",
    "ImplementationVersionName",
    "MalformedItem",
    "MaximumLength",
    "RoleSelection",
    "SOPClassCommonExtendedNegotiation",
    "SOPClassExtendedNegotiation",
    "UnknownItem",
    "UserDataItem",
    "UserIdentity",
    "UserIdentityResponse",
    "UserIdentityType",
    "decode_user_data",
    "split_items",
]

#: Sub-items of user information, and items of an A-ASSOCIATE PDU, at most. A requestor that sends a
#: role selection, an extended and a common extended negotiation for each of 128 SOP classes has 390.
MAXIMUM_ITEMS = 1024

_HEAD = struct.Struct(">BxH")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_TWO_U16 = struct.Struct(">HH")


class _ExcessError(PDUProcessingError):
    """An item is whole, and has so many parts that they would cost too much."""


def encode_item(item_type: int, body: bytes) -> bytes:
    """Make an item of its type, a reserved byte, a 16-bit length and its body."""
    if len(body) > 0xFFFF:
        raise LocalProtocolError(
            f"item {item_type:02X}H holds {len(body)} octets; its length field admits 65535"
        )
    return _HEAD.pack(item_type, len(body)) + body


def check_range(what: str, value: int, largest: int) -> None:
    """Refuse an integer that its field cannot hold."""
    if not 0 <= value <= largest:
        raise LocalProtocolError(f"{what} is 0 to {largest}, not {value}")


def check_text(what: str, *texts: str) -> None:
    """Refuse characters that have no octet. The caller checks which ones the standard admits."""
    for text in texts:
        if not text.isascii() and max(text) > "\xff":
            raise LocalProtocolError(
                f"{what} {printable(text)!r} has a character that is not in ISO 8859-1"
            )


def split_items(
    data: bytes, where: str, most: int = MAXIMUM_ITEMS
) -> Iterator[tuple[int, int, bytes]]:
    """Cut a run of items into (type, second byte, body).

    Args:
        where: The name of what holds the items, for error messages.
        most: How many items the run may have, so that a flood of small ones costs little.

    Raises:
        PDUProcessingError: An item is longer than what is left of the run, or there are too many.
    """
    offset, end, count = 0, len(data), 0
    while offset < end:
        if count == most:
            raise PDUProcessingError(f"{where} has more than {most} items")
        count += 1
        if end - offset < 4:
            raise PDUProcessingError(f"{end - offset} stray octets after the last item of {where}")
        item_type, length = _HEAD.unpack_from(data, offset)
        body = offset + 4
        if body + length > end:
            raise PDUProcessingError(
                f"item {item_type:02X}H says {length} octets, {where} has {end - body} left"
            )
        yield item_type, data[offset + 1], data[body : body + length]
        offset = body + length


def decode_uid(body: bytes) -> str:
    """Read a UID of a PDU, without the NUL or space that some peers send behind it (PS3.8 Annex F)."""
    return body.rstrip(b"\0 ").decode("latin-1")


def encode_uid(uid: str) -> bytes:
    """Write a UID for a PDU, without padding (PS3.8 Annex F)."""
    return uid.encode("latin-1")


def _count(part: bytes) -> bytes:
    """Put a 16-bit length before the octets that it counts."""
    check_range("the length of a field", len(part), 0xFFFF)
    return _U16.pack(len(part)) + part


def _counted(body: bytes, offset: int, what: str) -> tuple[bytes, int]:
    """Read a 16-bit length at ``offset``; return what it counts, and the offset behind that."""
    if offset + 2 > len(body):
        raise PDUProcessingError(f"{what}: length field missing at octet {offset}")
    (length,) = _U16.unpack_from(body, offset)
    end = offset + 2 + length
    if end > len(body):
        raise PDUProcessingError(
            f"{what}: field says {length} octets, {len(body) - offset - 2} are there"
        )
    return body[offset + 2 : end], end


def _exactly(body: bytes, size: int, what: str) -> bytes:
    if len(body) != size:
        raise PDUProcessingError(f"{what}: expected {size} octets, got {len(body)}")
    return body


@dataclass(frozen=True, slots=True)
class UnknownItem:
    """An item whose type this version does not know, kept as it came."""

    item_type: int
    data: bytes

    def __post_init__(self) -> None:
        check_range("an item type", self.item_type, 0xFF)

    def encode(self) -> bytes:
        return encode_item(self.item_type, self.data)


@dataclass(frozen=True, slots=True)
class MalformedItem:
    """An item of a known type whose body contradicts itself, kept as it came and ignored.

    The body may hold a credential, so it does not appear in ``repr``.
    """

    item_type: int
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_range("an item type", self.item_type, 0xFF)

    def encode(self) -> bytes:
        return encode_item(self.item_type, self.data)


@dataclass(frozen=True, slots=True)
class MaximumLength:
    """51H: the octets that the sender of this item can *receive* in one P-DATA-TF; 0 means no limit (D.1)."""

    ITEM_TYPE: ClassVar[int] = 0x51
    value: int

    def __post_init__(self) -> None:
        check_range("a maximum length", self.value, 0xFFFFFFFF)

    def encode(self) -> bytes:
        return encode_item(self.ITEM_TYPE, _U32.pack(self.value))

    @classmethod
    def decode(cls, body: bytes) -> MaximumLength:
        return cls(_U32.unpack(_exactly(body, 4, "maximum length (51H)"))[0])


@dataclass(frozen=True, slots=True)
class ImplementationClassUID:
    """52H: the implementation that the sender is; both sides must send it (PS3.7 D.3.3.2)."""

    ITEM_TYPE: ClassVar[int] = 0x52
    uid: str

    def __post_init__(self) -> None:
        check_text("the UID", self.uid)

    def encode(self) -> bytes:
        return encode_item(self.ITEM_TYPE, encode_uid(self.uid))

    @classmethod
    def decode(cls, body: bytes) -> ImplementationClassUID:
        return cls(decode_uid(body))


@dataclass(frozen=True, slots=True)
class AsynchronousOperationsWindow:
    """53H: how many operations may be outstanding, from the requestor's view; 0 means unlimited."""

    ITEM_TYPE: ClassVar[int] = 0x53
    invoked: int
    performed: int

    def __post_init__(self) -> None:
        check_range("a window", self.invoked, 0xFFFF)
        check_range("a window", self.performed, 0xFFFF)

    def encode(self) -> bytes:
        return encode_item(self.ITEM_TYPE, _TWO_U16.pack(self.invoked, self.performed))

    @classmethod
    def decode(cls, body: bytes) -> AsynchronousOperationsWindow:
        return cls(*_TWO_U16.unpack(_exactly(body, 4, "asynchronous operations window (53H)")))


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """54H: the roles that the *requestor* proposes, or is granted, for a SOP class (D.3.3.4)."""

    ITEM_TYPE: ClassVar[int] = 0x54
    sop_class_uid: str
    scu_role: bool
    scp_role: bool

    def __post_init__(self) -> None:
        check_text("the UID", self.sop_class_uid)

    def encode(self) -> bytes:
        roles = bytes((self.scu_role, self.scp_role))
        return encode_item(self.ITEM_TYPE, _count(encode_uid(self.sop_class_uid)) + roles)

    @classmethod
    def decode(cls, body: bytes) -> RoleSelection:
        uid, end = _counted(body, 0, "role selection (54H)")
        scu, scp = _exactly(body[end:], 2, "role selection (54H), roles")
        return cls(decode_uid(uid), scu == 1, scp == 1)


@dataclass(frozen=True, slots=True)
class ImplementationVersionName:
    """55H: the implementation's name, 1 to 16 characters for people to read (PS3.7 D.3.3.2)."""

    ITEM_TYPE: ClassVar[int] = 0x55
    name: str

    def __post_init__(self) -> None:
        check_text("the version name", self.name)

    def encode(self) -> bytes:
        return encode_item(self.ITEM_TYPE, self.name.encode("latin-1"))

    @classmethod
    def decode(cls, body: bytes) -> ImplementationVersionName:
        return cls(body.decode("latin-1"))


@dataclass(frozen=True, slots=True)
class SOPClassExtendedNegotiation:
    """56H: a SOP class, and bytes whose meaning its service class defines (PS3.7 D.3.3.5)."""

    ITEM_TYPE: ClassVar[int] = 0x56
    sop_class_uid: str
    application_information: bytes

    def __post_init__(self) -> None:
        check_text("the UID", self.sop_class_uid)

    def encode(self) -> bytes:
        uid = _count(encode_uid(self.sop_class_uid))
        return encode_item(self.ITEM_TYPE, uid + self.application_information)

    @classmethod
    def decode(cls, body: bytes) -> SOPClassExtendedNegotiation:
        uid, end = _counted(body, 0, "SOP class extended negotiation (56H)")
        return cls(decode_uid(uid), body[end:])


@dataclass(frozen=True, slots=True)
class SOPClassCommonExtendedNegotiation:
    """57H: the general SOP classes that a SOP class specializes; only requests have it (PS3.7 D.3.3.6)."""

    ITEM_TYPE: ClassVar[int] = 0x57
    sop_class_uid: str
    service_class_uid: str
    related_general_sop_classes: tuple[str, ...] = ()
    # The byte that is reserved in other items is a version here; later versions may add fields.
    version: int = 0
    trailer: bytes = b""

    def __post_init__(self) -> None:
        check_text("the UID", self.sop_class_uid, self.service_class_uid)
        check_text("the UID", *self.related_general_sop_classes)
        check_range("a version", self.version, 0xFF)

    def encode(self) -> bytes:
        related = b"".join(_count(encode_uid(uid)) for uid in self.related_general_sop_classes)
        parts = (encode_uid(self.sop_class_uid), encode_uid(self.service_class_uid), related)
        encoded = encode_item(self.ITEM_TYPE, b"".join(map(_count, parts)) + self.trailer)
        return encoded[:1] + bytes((self.version,)) + encoded[2:]

    @classmethod
    def decode(cls, body: bytes, version: int = 0) -> SOPClassCommonExtendedNegotiation:
        what = "SOP class common extended negotiation (57H)"
        sop_class, end = _counted(body, 0, what)
        service, end = _counted(body, end, what)
        related, end = _counted(body, end, what)
        uids: list[str] = []
        offset = 0
        while offset < len(related):
            if len(uids) >= MAXIMUM_ITEMS:
                raise _ExcessError(f"{what} has more than {MAXIMUM_ITEMS} related SOP classes")
            uid, offset = _counted(related, offset, what)
            uids.append(decode_uid(uid))
        return cls(decode_uid(sop_class), decode_uid(service), tuple(uids), version, body[end:])


class UserIdentityType(IntEnum):
    """What the primary field of a :class:`UserIdentity` holds (PS3.7 Table D.3-14)."""

    USERNAME = 1
    USERNAME_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """58H: the identity of the requestor's user (PS3.7 D.3.3.7.1).

    ``primary`` and ``secondary`` are bytes: user names and passcodes are UTF-8, tickets and
    assertions need not be text. Only type 2 has a ``secondary``. Neither appears in ``repr``, so
    that neither appears in a log.
    """

    ITEM_TYPE: ClassVar[int] = 0x58
    identity_type: int
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)
    positive_response_requested: bool = False

    def __post_init__(self) -> None:
        check_range("a type of user identity", self.identity_type, 0xFF)
        check_range("the length of the primary field", len(self.primary), 0xFFFF)
        check_range("the length of the secondary field", len(self.secondary), 0xFFFF)

    def encode(self) -> bytes:
        head = bytes((self.identity_type, self.positive_response_requested))
        return encode_item(self.ITEM_TYPE, head + _count(self.primary) + _count(self.secondary))

    @classmethod
    def decode(cls, body: bytes) -> UserIdentity:
        if len(body) < 2:
            raise PDUProcessingError(f"user identity (58H): expected 6 octets, got {len(body)}")
        primary, end = _counted(body, 2, "user identity (58H), primary field")
        # Some peers leave the empty secondary field out altogether.
        secondary = b""
        if end < len(body):
            secondary, end = _counted(body, end, "user identity (58H), secondary field")
        return cls(body[0], primary, secondary, body[1] == 1)


@dataclass(frozen=True, slots=True)
class UserIdentityResponse:
    """59H: the acceptor's answer to a :class:`UserIdentity` that asked for one (D.3.3.7.2).

    The response may be a ticket, so it does not appear in ``repr`` either.
    """

    ITEM_TYPE: ClassVar[int] = 0x59
    server_response: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        check_range("the length of the server response", len(self.server_response), 0xFFFF)

    def encode(self) -> bytes:
        return encode_item(self.ITEM_TYPE, _count(self.server_response))

    @classmethod
    def decode(cls, body: bytes) -> UserIdentityResponse:
        return cls(_counted(body, 0, "user identity response (59H)")[0])


UserDataItem = (
    MaximumLength
    | ImplementationClassUID
    | AsynchronousOperationsWindow
    | RoleSelection
    | ImplementationVersionName
    | SOPClassExtendedNegotiation
    | SOPClassCommonExtendedNegotiation
    | UserIdentity
    | UserIdentityResponse
    | UnknownItem
    | MalformedItem
)

_DECODERS = {
    item.ITEM_TYPE: item.decode
    for item in (
        MaximumLength,
        ImplementationClassUID,
        AsynchronousOperationsWindow,
        RoleSelection,
        ImplementationVersionName,
        SOPClassExtendedNegotiation,
        UserIdentity,
        UserIdentityResponse,
    )
}


def decode_user_data(body: bytes) -> tuple[UserDataItem, ...]:
    """Read the sub-items of a user information item (50H), in the order they came.

    Raises:
        PDUProcessingError: A sub-item is cut off, or has too many parts; or the maximum length, which every side
            sends, is not 4 octets.
    """
    items: list[UserDataItem] = []
    for item_type, second, data in split_items(body, "user information (50H)"):
        try:
            items.append(_decode_item(item_type, second, data))
        except PDUProcessingError as error:
            if item_type == MaximumLength.ITEM_TYPE or isinstance(error, _ExcessError):
                raise
            items.append(MalformedItem(item_type, data))
    return tuple(items)


def _decode_item(item_type: int, second: int, data: bytes) -> UserDataItem:
    if item_type == SOPClassCommonExtendedNegotiation.ITEM_TYPE:
        return SOPClassCommonExtendedNegotiation.decode(data, second)
    if item_type in _DECODERS:
        return _DECODERS[item_type](data)
    return UnknownItem(item_type, data)


def describe(item: UserDataItem) -> str:
    """Describe an item in one line for a debug log, without a credential."""
    return printable(repr(item), 200)
