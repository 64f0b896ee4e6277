"""Items of sequences: matching them with a key, and answering with them (PS3.4 C.2.2.2.6).

The index keeps sequences in explicit VR little endian with text in UTF-8, see
:data:`~netdicom_tx.archive.encoded.elements.CANONICAL`.
"""

from __future__ import annotations

from functools import lru_cache

from ...encoding import Coding
from ..encoded.elements import CANONICAL, Element, encode_element, encode_item
from ..encoded.recode import recode
from ..encoded.values import text_of
from ..encoded.walk import elements, items
from .criteria import Criterion
from .identifiers import Key, SequenceKey

__all__ = ["accepts_items", "in_coding", "selected_items"]

_UTF8 = ("utf-8",)
_Item = dict[int, tuple[str, bytes]]


@lru_cache(maxsize=512)
def _read(data: bytes) -> tuple[_Item, ...]:
    found = []
    for start, end in items(data, CANONICAL, 0, len(data)):
        inside = elements(data, CANONICAL, start, end)
        found.append({each.tag: (each.vr, data[each.start : each.end]) for each in inside})
    return tuple(found)


def accepts_items(data: bytes | None, key: SequenceKey) -> bool:
    """Whether some item passes; the key decides about a sequence without items."""
    if key.is_universal:
        return True
    found = _read(data) if data else ()
    if not found:
        return key.takes_empty
    return any(_accepts(item, key) for item in found)


def _accepts(item: _Item, key: SequenceKey) -> bool:
    return all(_accepts_element(item.get(each.tag), each) for each in key.keys)


def _accepts_element(element: tuple[str, bytes] | None, key: Key) -> bool:
    vr, value = element or (key.vr, b"")
    if isinstance(key.criterion, SequenceKey):
        return accepts_items(value if vr == "SQ" else b"", key.criterion)
    return not isinstance(key.criterion, Criterion) or key.criterion.accepts(
        text_of(vr, value, _UTF8)
    )


def selected_items(data: bytes | None, key: SequenceKey) -> bytes:
    """The matching items with the attributes that are asked for; all of the sequence when none are."""
    if not data or not key.keys:
        return data or b""
    return b"".join(
        encode_item(_selected(item, key), CANONICAL) for item in _read(data) if _accepts(item, key)
    )


def _selected(item: _Item, key: SequenceKey) -> bytes:
    parts = []
    for each in key.keys:
        vr, value = item.get(each.tag, (each.vr, b""))
        if vr == "SQ" and isinstance(each.criterion, SequenceKey):
            value = selected_items(value, each.criterion)
        parts.append(encode_element(each.tag, vr, value, CANONICAL))
    return b"".join(parts)


@lru_cache(maxsize=1024)
def in_coding(data: bytes, coding: Coding) -> bytes:
    """The value of a sequence in another coding, with text in UTF-8."""
    if coding == CANONICAL:
        return data
    whole = Element(0, "SQ", 0, len(data), len(data), CANONICAL)
    return recode(data, whole, _UTF8, coding)
