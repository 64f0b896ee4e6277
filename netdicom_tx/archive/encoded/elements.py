"""Single elements: where an element is, which VR it has, and how an element is written (PS3.5 7.1).

The index reads about fifty elements of each instance and answers each query with about ten. Both happen often, so
octets become octets here, without a data set in between.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR

from ...encoding import (
    EXPLICIT,
    IMPLICIT,
    LONG_VRS,
    UNDEFINED,
    UNITS,
    VRS,
    Coding,
    DataSetError,
    turned,
)

__all__ = [
    "CANONICAL",
    "Element",
    "element_of",
    "encode_element",
    "encode_item",
    "is_binary",
    "swapped",
    "vr_of",
]

#: The coding in which the index keeps sequences, with text in UTF-8: explicit VR little endian.
CANONICAL: Final = EXPLICIT
_UNITS: Final = {vr.decode("ascii"): unit for vr, unit in UNITS.items()}
_NAMES: Final = {vr: vr.decode("ascii") for vr in VRS if vr != b"UN"}
_SHORT_LIMIT = 0xFFFE
_DELIMITER = 8  # octets


class Element(NamedTuple):
    """Where an element of a data set is.

    Attributes:
        start: The offset of the value.
        end: The offset of the value's end; the delimiter of a sequence is not part of the value.
        behind: The offset of the next element.
        inside: The coding of the value, or of the items of a sequence.
    """

    tag: int
    vr: str
    start: int
    end: int
    behind: int
    inside: Coding


def element_of(
    tag: int, vr: bytes, value: int, length: int, behind: int, coding: Coding, shift: int = 0
) -> Element:
    """The element whose head :func:`~netdicom_tx.encoding.heads` has found.

    Args:
        shift: A number that is added to all offsets.
    """
    name = _NAMES.get(vr)
    if name is None:
        name = vr.decode("latin-1") if vr and vr != b"UN" else vr_of(tag)
    if vr == b"UN":
        # PS3.5 6.2.2: a sender that did not know the VR copied the value from implicit VR.
        coding = IMPLICIT
    end = behind
    if length == UNDEFINED:
        end -= _DELIMITER
        name = "SQ" if name == "UN" else name
    return Element(tag, name, value + shift, end + shift, behind + shift, coding)


@lru_cache(maxsize=8192)
def vr_of(tag: int) -> str:
    """The VR in the data dictionary, or UN. Where the dictionary has several, the one that can hold all values."""
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    if " or " in vr:
        return "OW" if "OW" in vr else "US"
    return vr if len(vr) == 2 else "UN"


def encode_element(tag: int, vr: str, value: bytes, coding: Coding) -> bytes:
    """Encode an element, with its value padded to an even length.

    Raises:
        DataSetError: The value is too long for its VR.
    """
    if len(value) % 2:
        value += b"\0" if vr in ("OB", "UI", "UN") else b" "
    group, number, order = tag >> 16, tag & 0xFFFF, coding.order
    if coding.implicit:
        return struct.pack(order + "HHI", group, number, len(value)) + value
    octets = vr.encode("latin-1")
    if octets in LONG_VRS:
        return struct.pack(order + "HH2s2xI", group, number, octets, len(value)) + value
    if len(value) > _SHORT_LIMIT:
        raise DataSetError(
            f"element ({group:04X},{number:04X}) has {len(value)} octets; its VR {vr} takes at most "
            f"{_SHORT_LIMIT} in explicit VR"
        )
    return struct.pack(order + "HH2sH", group, number, octets, len(value)) + value


def encode_item(content: bytes, coding: Coding) -> bytes:
    """Encode an item of a sequence, with a defined length."""
    return struct.pack(coding.order + "HHI", 0xFFFE, 0xE000, len(content)) + content


def is_binary(vr: str) -> bool:
    """Whether the values of a VR are numbers or octets instead of text."""
    return vr in _UNITS or vr in ("OB", "UN")


def swapped(vr: str, value: bytes) -> bytes:
    """The numbers of a value in the other byte order."""
    unit = _UNITS.get(vr)
    if unit is None:
        return value
    return turned(value[: len(value) // unit * unit], unit)
