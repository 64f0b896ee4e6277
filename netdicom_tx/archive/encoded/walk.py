"""Look through an encoded data set without decoding it: is it whole, and what does it say it is (PS3.5 7).

A data set that a node has promised to keep must be readable tomorrow, so its structure is walked
once, to its end, before Success is sent: every length fits, every sequence is closed. Values of a
few elements are picked up on the way. The walk is iterative and allocates nothing that the data
announces, so neither nesting nor a length of 4 GiB can hurt. Who reads the data set later may do
otherwise: what has more elements than an instance can need, or nests deeper, is refused.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import NamedTuple

from ...dsutils import is_deflated, is_implicit_vr, is_little_endian
from ...exceptions import NetDICOMError

__all__ = ["InvalidDataSetError", "Scanned", "scan"]

#: Sequences within sequences; what is in use has less than 10.
NESTING_LIMIT = 64
#: Elements, items and fragments. Enhanced multi-frame instances and whole slides have some 15 for
#: each of up to 100000 frames.
ELEMENT_LIMIT = 1 << 21
#: Octets of a deflated data set that are inflated for the walk, and how many for one that came.
INFLATED_LIMIT = 1 << 24
INFLATION_RATIO = 200

# PS3.5 7.1.2: the VRs with 16 bits of length, and those with 32.
_SHORT_VRS = frozenset(
    (
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO"),
        *(b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    )
)
_LONG_VRS = frozenset(
    (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
)
_UNDEFINED = 0xFFFFFFFF
_ITEM_TAG = b"\xfe\xff\x00\xe0"
_SEQUENCE_END_TAG = b"\xfe\xff\xdd\xe0"
# Octets of the heads of a sequence and of its item, at the least.
_SMALLEST_LEVEL = 16
# The groups that the walk looks at: identification, pixel data, delimiters.
_IDENTITY, _PIXELS, _DELIMITERS = 0x0008, 0x7FE0, 0xFFFE
_SOP_CLASS, _SOP_INSTANCE, _PIXEL_DATA = 0x0016, 0x0018, 0x0010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# No tag: the data set is over.
_END = -1
# Octets of a deflated data set that zlib is given at once; what it does not take, it copies.
_PIECE = 1 << 16

# Group, element and length, and the same with a VR of 16 bits of length; a length of 32 bits.
_IMPLICIT = struct.Struct("<HHI")
_LITTLE = (_IMPLICIT, struct.Struct("<HH2sH"), struct.Struct("<I"))
_BIG = (struct.Struct(">HHI"), struct.Struct(">HH2sH"), struct.Struct(">I"))

_Buffer = bytes | bytearray | memoryview | mmap.mmap


class InvalidDataSetError(NetDICOMError):
    """The octets are no whole data set in their transfer syntax."""


class Scanned(NamedTuple):
    """What was found.

    Attributes:
        pixel_data: Offset of the first element from (7FE0,0010) on, or of the end.
        is_whole: False when the walk of a deflated data set stopped at its limit.
    """

    sop_class_uid: str
    sop_instance_uid: str
    pixel_data: int
    is_whole: bool


def scan(data: _Buffer, transfer_syntax: str, offset: int = 0) -> Scanned:
    """Walk a data set.

    Args:
        data: Octets that hold it, a memory map for a large file.
        offset: Where it begins in them; it ends with them.

    Raises:
        InvalidDataSetError: It is cut off, or is none in this transfer syntax.
    """
    is_cut = False
    if is_deflated(transfer_syntax):
        data, is_cut = _inflate(data, offset)
        offset = 0
    walk = _Walk(data, offset, transfer_syntax)
    try:
        walk.run()
    except _BeyondTheEndError as error:
        if not is_cut:
            raise InvalidDataSetError(str(error)) from None
    return Scanned(walk.sop_class_uid, walk.sop_instance_uid, walk.pixel_data, not is_cut)


def _inflate(data: _Buffer, offset: int) -> tuple[bytearray, bool]:
    """What a deflated data set holds, up to the limit; and whether it holds more."""
    limit = min(INFLATED_LIMIT, (len(data) - offset) * INFLATION_RATIO + 4096)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = bytearray()
    with memoryview(data) as view:
        while offset < len(view) and not stream.eof:
            try:
                plain += stream.decompress(view[offset : offset + _PIECE], limit - len(plain))
            except zlib.error as error:
                raise InvalidDataSetError(f"the deflated data set is damaged: {error}") from error
            if len(plain) == limit:
                return plain, not stream.eof
            offset += _PIECE
    if not stream.eof:
        raise InvalidDataSetError("the deflated data set ends in its middle")
    return plain, False


class _BeyondTheEndError(Exception):
    """The octets end too early, which is no fault of what was inflated in part."""


class _Walk:
    """One walk, and what it has found so far.

    This stands on the receive path and most data sets have hundreds of elements: the loops step
    over a run of elements without a call for each.
    """

    def __init__(self, data: _Buffer, offset: int, transfer_syntax: str) -> None:
        self._data = data
        self._begin = offset
        self._end = len(data)
        self._is_implicit = is_implicit_vr(transfer_syntax)
        self._structs = _LITTLE if is_little_endian(transfer_syntax) else _BIG
        self._left = self._left_inside = ELEMENT_LIMIT
        self.sop_class_uid = ""
        self.sop_instance_uid = ""
        self.pixel_data = self._end

    def run(self) -> None:
        # The sequences with an open item around the current place, each with whether it has
        # implicit VR inside. Only undefined length opens anything: of the rest the end is known.
        around: list[tuple[int, bool]] = []
        is_implicit = self._is_implicit
        position = self._begin
        while True:
            # Among the elements of the data set, or of an item.
            elements = self._implicit_elements if is_implicit else self._explicit_elements
            tag, position, is_implicit = elements(position, NESTING_LIMIT - len(around))
            if tag == _END and not around:
                return
            if tag == _END:
                raise _BeyondTheEndError(f"sequence {_show(around[-1][0])} is not ended")
            if tag == _ITEM_END and around:
                tag, is_implicit = around.pop()
            elif tag >> 16 == _DELIMITERS:
                where = "inside an item" if around else "outside a sequence"
                raise InvalidDataSetError(f"delimiter {_show(tag)} {where}")
            # Between the items of a sequence, or the fragments of pixel data.
            room = NESTING_LIMIT - len(around)
            position, has_item = self._items(position, tag, is_implicit, room)
            if has_item:
                if len(around) == NESTING_LIMIT:
                    raise _too_deep()
                around.append((tag, is_implicit))
            else:
                is_implicit = around[-1][1] if around else self._is_implicit

    def _explicit_elements(self, position: int, room: int) -> tuple[int, int, bool]:
        """Step over elements.

        Args:
            room: Sequences that may be opened here, one in the other.

        Returns:
            The tag of the first that is a delimiter or of undefined length, the offset behind its
            head, and whether there is implicit VR inside.
        """
        data, end, last = self._data, self._end, self._end - 8
        _, head, long_length = self._structs
        unpack, unpack_length = head.unpack_from, long_length.unpack_from
        is_top, large = room == NESTING_LIMIT, room * _SMALLEST_LEVEL
        group = element = value = length = 0
        for left in range(self._left - 1, -1, -1):
            if position > last:
                break
            group, element, vr, length = unpack(data, position)
            if group >= _PIXELS:
                if group == _DELIMITERS:
                    self._left = left
                    return group << 16 | element, position + 8, False
                self._from_pixel_data(group, element, position, is_top)
            if vr in _SHORT_VRS:
                value = position + 8
            elif vr in _LONG_VRS:
                value = position + 12
                if value > end:
                    raise self._cut(group, element, 0, value)
                (length,) = unpack_length(data, position + 8)
                if length == _UNDEFINED:
                    self._left = left
                    # PS3.5 6.2.2: UN of undefined length has implicit VR little endian inside.
                    return group << 16 | element, value, vr == b"UN"
                if length >= large and (
                    vr == b"SQ" or (vr == b"UN" and data[value : value + 4] == _ITEM_TAG)
                ):
                    self._look_inside(value, value + length, room, vr == b"UN")
            elif vr.isalpha() and vr.isupper():
                value = position + 8  # a VR that is newer than this code
            else:
                raise InvalidDataSetError(
                    f"element {_show(group << 16 | element)} has no value representation: {vr!r}"
                )
            if group == _IDENTITY and is_top:
                self._identify(element, value, length)
            position = value + length
        else:
            raise _too_many()
        self._left = left
        if position > end:
            raise self._cut(group, element, length, value)
        return self._over(position, is_top)

    def _implicit_elements(self, position: int, room: int) -> tuple[int, int, bool]:
        """The same for implicit VR, which is always little endian."""
        data, end, last, unpack = self._data, self._end, self._end - 8, _IMPLICIT.unpack_from
        is_top, large = room == NESTING_LIMIT, room * _SMALLEST_LEVEL
        group = element = value = length = 0
        for left in range(self._left - 1, -1, -1):
            if position > last:
                break
            group, element, length = unpack(data, position)
            value = position + 8
            if group >= _PIXELS:
                if group == _DELIMITERS:
                    self._left = left
                    return group << 16 | element, value, True
                self._from_pixel_data(group, element, position, is_top)
            if length >= large:
                if length == _UNDEFINED:
                    self._left = left
                    return group << 16 | element, value, True
                if data[value : value + 4] == _ITEM_TAG:
                    self._look_inside(value, value + length, room, True)
            if group == _IDENTITY and is_top:
                self._identify(element, value, length)
            position = value + length
        else:
            raise _too_many()
        self._left = left
        if position > end:
            raise self._cut(group, element, length, value)
        return self._over(position, is_top)

    def _items(self, position: int, tag: int, is_implicit: bool, room: int) -> tuple[int, bool]:
        """Step over items; the offset behind the head of one of undefined length, or of the end."""
        head = _IMPLICIT if is_implicit else self._structs[0]
        data, last, unpack = self._data, self._end - 8, head.unpack_from
        length = 0
        for left in range(self._left - 1, -1, -1):
            if position > last:
                break
            group, element, length = unpack(data, position)
            position += 8
            inner = group << 16 | element
            if inner == _SEQUENCE_END:
                self._left = left
                return position, False
            if inner != _ITEM:
                raise InvalidDataSetError(
                    f"{_show(inner)} in sequence {_show(tag)}, where an item is expected"
                )
            if length == _UNDEFINED:
                self._left = left
                return position, True
            if length >= room * _SMALLEST_LEVEL and tag >> 16 < _PIXELS:
                self._look_inside(position, position + length, room, is_implicit)
            position += length
        else:
            raise _too_many()
        if position > self._end:
            raise self._cut(_ITEM >> 16, _ITEM & 0xFFFF, length, position - length)
        raise _BeyondTheEndError(f"sequence {_show(tag)} is not ended")

    def _look_inside(self, position: int, end: int, room: int, is_implicit: bool) -> None:
        """Refuse what nests too deep in a value of defined length, and let be what is no data set.

        Nothing in there can make the data set end early; but who reads it may recurse.
        """
        data, end = self._data, min(end, self._end)
        if not room and position < end:
            raise _too_deep()
        # What is open: its end, whether there is implicit VR inside, and whether there are items,
        # which may hold sequences, or fragments.
        around = [(end, is_implicit, True)]
        for left in range(self._left_inside - 1, -1, -1):
            end, is_implicit, has_items = around[-1]
            while position > end - 8:
                position = end
                around.pop()
                if not around:
                    self._left_inside = left
                    return
                end, is_implicit, has_items = around[-1]
            head, explicit_head, long_length = _LITTLE if is_implicit else self._structs
            group, element, length = head.unpack_from(data, position)
            value = position + 8
            if group == _DELIMITERS:
                if element == _SEQUENCE_END & 0xFFFF and len(around) > 1:
                    around.pop()
                elif has_items and len(around) > room:
                    raise _too_deep()
                position = value if has_items else value + length
                continue
            has_items = False
            if not is_implicit:
                _, _, vr, length = explicit_head.unpack_from(data, position)
                if vr in _LONG_VRS and value <= end - 4:
                    (length,) = long_length.unpack_from(data, value)
                    value += 4
                    is_implicit, has_items = vr == b"UN", vr == b"SQ"
                elif not (vr.isalpha() and vr.isupper()):
                    value = end
            if is_implicit:
                # No VR tells, so what follows must.
                following = data[value : value + 4]
                has_items = following == _ITEM_TAG
                if length == _UNDEFINED and not has_items:
                    value, length = (value + 8 if following == _SEQUENCE_END_TAG else end), 0
            if length == _UNDEFINED or (has_items and length):
                behind = end if length == _UNDEFINED else min(value + length, end)
                around.append((behind, is_implicit, has_items))
                position = value
            else:
                position = value + length
        raise _too_many()

    def _identify(self, element: int, value: int, length: int) -> None:
        if element not in (_SOP_CLASS, _SOP_INSTANCE):
            return
        uid = ""
        if length <= 64 and value + length <= self._end:
            uid = bytes(self._data[value : value + length]).decode("latin-1").rstrip("\0 ")
        if element == _SOP_CLASS:
            self.sop_class_uid = uid
        else:
            self.sop_instance_uid = uid

    def _from_pixel_data(self, group: int, element: int, position: int, is_top: bool) -> None:
        if is_top and (group > _PIXELS or element >= _PIXEL_DATA):
            self.pixel_data = min(self.pixel_data, position)

    def _over(self, position: int, is_top: bool) -> tuple[int, int, bool]:
        """The end of the octets, if it is one of elements too."""
        left = self._end - position
        # Who sends a last value of odd length may add a NUL to have an even fragment (PS3.8 Annex E).
        is_padding = left == 1 and (position - self._begin) % 2 and not self._data[position]
        if left and not (is_padding and is_top):
            raise _BeyondTheEndError(f"{left} stray octets where an element is expected")
        return _END, self._end, False

    def _cut(self, group: int, element: int, length: int, value: int) -> Exception:
        left = max(self._end - value, 0)
        return _BeyondTheEndError(
            f"element {_show(group << 16 | element)} says {length} octets, {left} are left"
        )


def _too_deep() -> InvalidDataSetError:
    return InvalidDataSetError(f"sequences are nested more than {NESTING_LIMIT} deep")


def _too_many() -> InvalidDataSetError:
    return InvalidDataSetError(f"the data set has more than {ELEMENT_LIMIT} elements")


def _show(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
