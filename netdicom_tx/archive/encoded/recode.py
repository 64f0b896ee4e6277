"""Values of elements written in another coding, with text in UTF-8 (PS3.5 7.5)."""

from __future__ import annotations

from collections.abc import Sequence

from ...encoding import Buffer, Coding
from .elements import Element, encode_element, encode_item, swapped
from .values import TEXT_VRS, codecs_of, decode
from .walk import NESTING_LIMIT, InvalidDataSetError, elements, items

__all__ = ["recode"]

_CHARACTER_SET = 0x00080005


def recode(
    data: Buffer, element: Element, codecs: Sequence[str], target: Coding, *, depth: int = 0
) -> bytes:
    """The value of an element in another coding, with its text in UTF-8.

    Group lengths are left out because they would be wrong, and so is the Specific Character Set of an item.

    Args:
        codecs: The codecs of the text in ``data``; an item may have its own character set (PS3.5 7.5.3).
        target: The coding of the result.
        depth: The number of sequences around the element.

    Raises:
        DataSetError: A sequence cannot be read, or a value cannot be written in ``target``.
    """
    if element.vr == "SQ":
        return _sequence(data, element, codecs, target, depth)
    value = bytes(data[element.start : element.end])
    if element.vr in TEXT_VRS:
        is_plain = value.isascii() and b"\x1b" not in value
        return value if is_plain else decode(value, codecs).encode()
    return value if element.inside.little == target.little else swapped(element.vr, value)


def _sequence(
    data: Buffer, sequence: Element, codecs: Sequence[str], target: Coding, depth: int
) -> bytes:
    if depth > NESTING_LIMIT:
        raise InvalidDataSetError(f"sequences are nested more than {NESTING_LIMIT} deep")
    coding = sequence.inside
    parts = []
    for start, end in items(data, coding, sequence.start, sequence.end):
        body = []
        own = codecs
        for each in elements(data, coding, start, end):
            if each.tag == _CHARACTER_SET:
                terms = decode(bytes(data[each.start : each.end]), codecs)
                own = codecs_of(tuple(term.strip(" \0") for term in terms.split("\\")))
            elif each.tag & 0xFFFF:
                value = recode(data, each, own, target, depth=depth + 1)
                body.append(encode_element(each.tag, each.vr, value, target))
        parts.append(encode_item(b"".join(body), target))
    return b"".join(parts)
