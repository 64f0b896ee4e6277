"""Data sets for the tests of the archive: written octet by octet, so that they can be broken at will."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st

from netdicom_tx.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
UNDEFINED = 0xFFFFFFFF
# PS3.5 7.1.2: the VRs whose length has 32 bits, and those where it has 16.
LONG_VRS = tuple(re.findall("..", "OBODOFOLOVOWSQSVUCUNURUTUV"))
SHORT_VRS = tuple(re.findall("..", "AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS"))


class Encoding(NamedTuple):
    """How elements are written."""

    transfer_syntax: str
    is_implicit: bool
    order: str

    def element(self, tag: int, vr: str, value: bytes = b"", length: int | None = None) -> bytes:
        """An element; ``length`` lies about its value."""
        size = len(value) if length is None else length
        head = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)
        if self.is_implicit or tag >> 16 == 0xFFFE:
            return head + struct.pack(self.order + "I", size) + value
        if vr in LONG_VRS:
            return head + vr.encode() + struct.pack(self.order + "HI", 0, size) + value
        return head + vr.encode() + struct.pack(self.order + "H", size) + value

    def items(self, *items: bytes, defined: bool = False) -> bytes:
        """The value of a sequence: items of undefined length and the end, or of defined length."""
        if defined:
            return b"".join(self.element(0xFFFEE000, "", item) for item in items)
        body = b"".join(
            self.element(0xFFFEE000, "", item, UNDEFINED) + self.element(0xFFFEE00D, "")
            for item in items
        )
        return body + self.element(0xFFFEE0DD, "")

    def sequence(self, tag: int, *items: bytes, defined: bool = False, vr: str = "SQ") -> bytes:
        """A sequence, of undefined length unless it is said."""
        value = self.items(*items, defined=defined)
        return self.element(tag, vr, value, None if defined else UNDEFINED)

    def identity(self, instance: str = "1.2.3", sop_class: str = CT_IMAGE_STORAGE) -> bytes:
        """The two elements that say what instance this is."""
        return self.element(0x00080016, "UI", padded(sop_class)) + self.element(
            0x00080018, "UI", padded(instance)
        )


IMPLICIT = Encoding(IMPLICIT_VR_LITTLE_ENDIAN, True, "<")
EXPLICIT = Encoding(EXPLICIT_VR_LITTLE_ENDIAN, False, "<")
BIG_ENDIAN = Encoding(EXPLICIT_VR_BIG_ENDIAN, False, ">")
ENCODINGS = (IMPLICIT, EXPLICIT, BIG_ENDIAN)
DEFLATED = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN


def padded(uid: str) -> bytes:
    """A UID of even length (PS3.5 9.1)."""
    return uid.encode() + b"\0" * (len(uid) % 2)


def deflated(plain: bytes) -> bytes:
    """PS3.5 A.5: a raw deflate stream, padded to even length."""
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = stream.compress(plain) + stream.flush()
    return packed + b"\0" * (len(packed) % 2)


def ct(instance: str, pixels: int = 512, encoding: Encoding = EXPLICIT, fill: int = 7) -> bytes:
    """A small data set of an instance, with so many octets of pixel data."""
    return (
        encoding.identity(instance)
        + encoding.element(0x00100020, "LO", b"PATIENT1")
        + encoding.sequence(0x00081140, encoding.identity("1.2.9"))
        + encoding.element(0x7FE00010, "OW", bytes([fill]) * pixels)
    )


class Made(NamedTuple):
    """A valid data set, and the offsets at which it may be cut so that a whole one is left."""

    encoding: Encoding
    octets: bytes
    boundaries: frozenset[int]


def _elements(encoding: Encoding) -> st.SearchStrategy[bytes]:
    """The encoded value of one element with its tag still open: ``tag -> octets``."""
    values = st.binary(max_size=9).map(lambda value: value + b"\0" * (len(value) % 2))
    plain: st.SearchStrategy[Callable[[int], bytes]] = st.builds(
        lambda vr, value: lambda tag: encoding.element(tag, vr, value),
        st.sampled_from([vr for vr in LONG_VRS + SHORT_VRS if vr != "SQ"]),
        values,
    )

    def nested(
        inner: st.SearchStrategy[Callable[[int], bytes]],
    ) -> st.SearchStrategy[Callable[[int], bytes]]:
        item = st.lists(inner, max_size=3).map(
            lambda makes: b"".join(make(0x00081000 + i) for i, make in enumerate(makes))
        )
        return st.builds(
            lambda items, defined: lambda tag: encoding.sequence(tag, *items, defined=defined),
            st.lists(item, max_size=3),
            st.booleans(),
        )

    return st.recursive(plain, nested, max_leaves=8)  # type: ignore[return-value]


@st.composite
def data_sets(draw: st.DrawFn) -> Made:
    """Valid data sets of every uncompressed transfer syntax, with sequences of both kinds."""
    encoding = draw(st.sampled_from(ENCODINGS))
    makes = draw(st.lists(_elements(encoding), max_size=6))
    octets, boundaries = b"", {0}
    for number, make in enumerate(makes):
        octets += make(0x00091000 + number)
        boundaries.add(len(octets))
    return Made(encoding, octets, frozenset(boundaries))
