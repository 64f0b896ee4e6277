"""Data sets for the tests of the archive: written octet by octet, so that they can be broken at will."""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

from hypothesis import strategies as st

import support.strategies  # noqa: F401 - its Hypothesis profile
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


class _Open(NamedTuple):
    """A sequence that is being made: the items so far, of which the last one grows."""

    defined: bool
    items: list[bytes]


def make(encoding: Encoding, program: bytes) -> Made:
    """A valid data set by a program: each octet is an element, or begins or ends a sequence or item."""
    vrs = [vr for vr in LONG_VRS + SHORT_VRS if vr != "SQ"]
    whole, boundaries = b"", {0}
    around: list[_Open] = []

    def add(element: bytes) -> None:
        nonlocal whole
        if around:
            around[-1].items[-1] += element
        else:
            whole += element
            boundaries.add(len(whole))

    def close() -> None:
        done = around.pop()
        add(encoding.sequence(0x00091000 + len(around), *done.items, defined=done.defined))

    for octet in program:
        kind, more = octet % 8, octet // 8
        if kind < 4:
            add(encoding.element(0x00101000 + more, vrs[octet % len(vrs)], bytes(more % 4 * 2)))
        elif kind < 6:
            around.append(_Open(kind == 5, [b""]))
        elif around and kind == 6:
            around[-1].items.append(b"")
        elif around:
            close()
    while around:
        close()
    return Made(encoding, whole, frozenset(boundaries))


#: Valid data sets of every uncompressed transfer syntax, with sequences of both kinds of length.
data_sets = st.builds(make, st.sampled_from(ENCODINGS), st.binary(max_size=40))
