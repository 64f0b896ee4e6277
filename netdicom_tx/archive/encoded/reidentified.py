"""An instance under another SOP Instance UID, with everything else octet for octet as it was.

PS3.3 C.12.1 asks for a new UID where the attributes of an instance differ, and its Original Attributes Sequence
(0400,0561) says which values were replaced, when, by whom and why.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from ...encoding import Buffer, Coding, coding_of, is_deflated
from .elements import encode_element, encode_item
from .walk import InvalidDataSetError, elements, plain

__all__ = ["Replacement", "reidentified"]

_SOP_INSTANCE: Final = 0x00080018
_ORIGINAL_ATTRIBUTES: Final = 0x04000561
# Group lengths of the two groups, and Length to End: retired elements (PS3.5 7.2), which would be wrong afterwards.
_LENGTHS: Final = frozenset((0x00080000, 0x00080001, 0x04000000))
#: Replace incorrect values (PS3.3 C.12.1.1.9).
_REASON: Final = "CORRECT"
_PIECE: Final = 1 << 20


class Replacement(NamedTuple):
    """A SOP Instance UID that replaces another one.

    Attributes:
        uid: The new SOP Instance UID.
        replaced: The SOP Instance UID that the data set has.
        source: The AE title of the sender; empty when it is not known.
        moment: The time of the replacement as a DT with an offset from UTC, such as ``"20261128101500+0000"``.
        system: The name of the system that replaces it.
    """

    uid: str
    replaced: str
    source: str
    moment: str
    system: str

    def item(self, coding: Coding) -> bytes:
        """The item of Original Attributes Sequence that describes the replacement."""

        def element(tag: int, vr: str, text: str) -> bytes:
            return encode_element(tag, vr, text.encode("ascii", "replace"), coding)

        previous = encode_item(element(_SOP_INSTANCE, "UI", self.replaced), coding)
        return encode_item(
            encode_element(0x04000550, "SQ", previous, coding)  # Modified Attributes Sequence
            + element(0x04000562, "DT", self.moment)  # Attribute Modification DateTime
            + element(0x04000563, "LO", self.system)  # Modifying System
            + element(0x04000564, "LO", self.source)  # Source of Previous Values
            + element(0x04000565, "CS", _REASON),  # Reason for the Attribute Modification
            coding,
        )


def reidentified(
    data: Buffer, transfer_syntax: str, offset: int, replacement: Replacement
) -> Iterator[bytes]:
    """A data set with another SOP Instance UID, and with an item that says so.

    A file header that its sender has put in front of the data set is left out, because it names the old UID. The
    sequences, the order and the form of all other elements stay.

    Args:
        data: The octets that contain the data set, and end with it.
        transfer_syntax: The transfer syntax of the data set, and of the result.
        offset: The offset in ``data`` where the data set begins.

    Yields:
        The octets of the result, in pieces of up to a mebibyte.

    Raises:
        InvalidDataSetError: The data set cannot be read, has too many octets when inflated, or has an Original
            Attributes Sequence that is not a sequence.
    """
    coding = coding_of(transfer_syntax)
    found = plain(data, transfer_syntax, offset)
    if not found.is_whole:
        raise InvalidDataSetError("the data set has too many octets when it is inflated")
    pieces = _pieces(found.data, coding, found.offset, replacement)
    if not is_deflated(transfer_syntax):
        yield from pieces
        return
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    size = 0
    for piece in (*map(stream.compress, pieces), stream.flush()):
        size += len(piece)
        yield piece
    if size % 2:
        yield b"\0"  # PS3.5 A.5: padded to an even length


def _pieces(data: Buffer, coding: Coding, start: int, replacement: Replacement) -> Iterator[bytes]:
    changes: list[tuple[int, int, bytes]] = []  # from, to, and what takes the place
    previous = b""
    position = place = start
    for each in elements(data, coding, start, len(data)):
        if each.tag == _SOP_INSTANCE:
            named = encode_element(each.tag, "UI", replacement.uid.encode("ascii"), coding)
            changes.append((position, each.behind, named))
        elif each.tag == _ORIGINAL_ATTRIBUTES:
            if each.vr != "SQ" or each.inside != coding:
                raise InvalidDataSetError("Original Attributes Sequence (0400,0561) is not one")
            previous += bytes(data[each.start : each.end])
            changes.append((position, each.behind, b""))
        elif each.tag in _LENGTHS:
            changes.append((position, each.behind, b""))
        position = each.behind
        if each.tag <= _ORIGINAL_ATTRIBUTES:
            place = position
    items = previous + replacement.item(coding)
    changes.append((place, place, encode_element(_ORIGINAL_ATTRIBUTES, "SQ", items, coding)))
    for begin, behind, octets in sorted(changes):
        yield from _cut(data, start, begin)
        yield octets
        start = behind
    yield from _cut(data, start, len(data))


def _cut(data: Buffer, start: int, end: int) -> Iterator[bytes]:
    for position in range(start, end, _PIECE):
        yield bytes(data[position : min(position + _PIECE, end)])
