"""Makes encoded response identifiers from rows of the index (PS3.4 C.4.1.1.3.2).

A query becomes a short program once, and each row runs through it. Attributes that have a column are written from the
row, and all others from the kept header of an instance. No data set is built.

The Specific Character Set is that of the request if it can represent the text, otherwise ISO_IR 192. The answer to a
request without one has none as long as the text is ASCII.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydicom.charset import encode_string, python_encoding

from ...encoding import coding_of
from ..encoded.elements import encode_element, is_binary, swapped
from ..encoded.values import decode
from ..index.record import NO_HEADER, KeptHeader
from ..index.schema import ATTRIBUTES, COMPUTED, TABLES, Attribute, Level
from .identifiers import Key, SequenceKey
from .items import accepts_items, in_coding, selected_items
from .matching import Query, ZoneTest, computed

__all__ = ["Answers", "encoder_of"]

_CHARACTER_SET, _LEVEL = 0x00080005, 0x00080052
_RETRIEVE_AE_TITLE, _AVAILABILITY, _TIMEZONE = 0x00080054, 0x00080056, 0x00080201

Encode = Callable[[str], bytes]


# -- characters -----------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def encoder_of(terms: Sequence[str]) -> Encode | None:
    """The function that encodes text in a Specific Character Set, or raises ``UnicodeEncodeError``.

    Args:
        terms: The values of Specific Character Set, as a tuple.

    Returns:
        The function; None when a term is unknown.
    """
    if not terms or any(term not in python_encoding for term in terms):
        return None
    codecs = [python_encoding[term] for term in terms]
    if len(terms) == 1 and not terms[0].startswith("ISO 2022"):
        if terms[0] in ("", "ISO_IR 6"):
            return _encode_ascii
        if terms[0] == "ISO_IR 13":
            return _encode_katakana
        return lambda text: text.encode(codecs[0])
    return lambda text: b"".join(_extended(each, codecs) for each in _PARTS.split(text))


def _encode_ascii(text: str) -> bytes:
    return text.encode("ascii")


# The method itself, without a function around it, because it is called for every value.
_encode_utf8: Encode = str.encode


def _encode_katakana(text: str) -> bytes:
    encoded = text.encode("shift_jis")
    if len(encoded) != len(text):
        raise UnicodeEncodeError("shift_jis", text, 0, len(text), "more than ISO IR 13 and 14")
    return encoded


# PS3.5 6.1.2.5.3: the first character set is active again after each of these.
_PARTS = re.compile(r"([\\^=\r\n\t\f])")


def _extended(text: str, codecs: list[str]) -> bytes:
    """Encode one part of a text with the escape sequences of code extensions (PS3.5 6.1.2.5)."""
    if text.isascii():
        return text.encode("ascii")
    first_is_ascii = codecs[0] == "iso8859"
    for character in text:
        beyond = first_is_ascii and character < "\u0100" and not character.isascii()
        if beyond or not any(_holds(codec, character) for codec in codecs):
            raise UnicodeEncodeError(codecs[0], text, 0, len(text), "not in the character sets")
    encoded: bytes = encode_string(text, codecs)
    if decode(encoded, codecs) != text:
        raise UnicodeEncodeError(codecs[0], text, 0, len(text), "cannot be read back")
    return encoded


@lru_cache(maxsize=65536)
def _holds(codec: str, character: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


# -- one answer after the other ---------------------------------------------------------------------------


_Call = Callable[[Sequence[Any], KeptHeader, Encode], bytes]


class _Step(NamedTuple):
    """A step that adds an element of a row to an answer. Most steps write text from a column, in one loop.

    Attributes:
        place: The place of the column with the text.
        head: The constants before the element, and the element up to its length.
        empty: The same with a length of zero, for an element without a value.
        pad: The octet that makes the length of a value even.
        lengths: The encoded lengths.
        call: The function that writes an element of any other kind.
    """

    place: int
    head: bytes
    empty: bytes
    pad: bytes
    lengths: Mapping[int, bytes]
    call: _Call | None


class _Text(NamedTuple):
    """An element whose text comes from a column."""

    place: int
    head: bytes
    pad: bytes
    lengths: Mapping[int, bytes]

    def write(self, text: str, encode: Encode) -> bytes:
        octets = encode(text)
        if len(octets) % 2:
            octets += self.pad
        return self.head + self.lengths[len(octets)] + octets


class _Lengths(dict[int, bytes]):
    """Encoded lengths, each made when it is needed for the first time."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._pack = struct.Struct(form).pack

    def __missing__(self, length: int) -> bytes:
        octets = self[length] = self._pack(length)
        return octets


_LENGTHS = {form: _Lengths(form) for form in ("<H", "<I", ">H", ">I")}


class Answers:
    """Turns the rows of one query into answers.

    Args:
        query: The query.
        transfer_syntax: The transfer syntax of the presentation context.
        retrieve_ae_title: The AE title from which the instances can be retrieved.
        minutes_of: Returns the offset from UTC in minutes, given the Timezone Offset From UTC, which may be empty, and
            the keys of a date and a time.
    """

    def __init__(
        self,
        query: Query,
        transfer_syntax: str,
        retrieve_ae_title: str,
        minutes_of: Callable[[str, str, str], int],
    ) -> None:
        self.query = query
        self._coding = coding_of(transfer_syntax)
        self._minutes_of = minutes_of
        self._table = TABLES[query.level]
        self._columns: list[sa.ColumnElement[Any]] = []
        self._places: dict[Any, int] = {}
        self._highest = query.level
        self._place_of(self._table.c.id)
        self._residual = [
            (self._place(attribute.level, attribute.column), criterion)
            for attribute, criterion in query.residual
        ]
        self._zones = [(each, *self._zone(each)) for each in query.zones]
        #: The tags of attributes that are read from the kept header of an instance.
        self.wanted: frozenset[int] = frozenset(each.tag for each in query.in_header)
        self._steps, self._end = self._program(retrieve_ae_title)
        self._texts = [each.place for each in self._steps if each.call is None]
        self._representative = -1
        if self.wanted:
            self._representative = self._place_of(query.representative().label("representative"))
        self._set_encoders()

    # -- what is selected ------------------------------------------------------------------------------

    def statement(self) -> sa.Select[Any]:
        """The statement for the rows of a page; their ids are bound to ``ids``."""
        source = self.query.joined(self._highest)
        condition = self._table.c.id.in_(sa.bindparam("ids", expanding=True))
        return sa.select(*self._columns).select_from(source).where(condition)

    def _place_of(self, column: sa.ColumnElement[Any]) -> int:
        if column not in self._places:
            self._places[column] = len(self._columns)
            self._columns.append(column)
        return self._places[column]

    def _place(self, level: Level, name: str) -> int:
        if level.depth < self._highest.depth:
            self._highest = level
        return self._place_of(TABLES[level].c[name])

    def _zone(self, test: ZoneTest) -> tuple[int, int, int]:
        attribute = ATTRIBUTES[test.date]
        other = ATTRIBUTES[test.time]
        return (
            self._place(test.level, attribute.key_columns[0]),
            self._place(test.level, other.key_columns[0]),
            self._place(test.level, "timezone"),
        )

    # -- the program -----------------------------------------------------------------------------------

    def _program(self, retrieve_ae_title: str) -> tuple[list[_Step], bytes]:
        """The steps, and the constants behind the last of them."""
        parts: dict[int, bytes | _Text | _Call] = {
            _LEVEL: self._constant(_LEVEL, "CS", self.query.level.value),
            _RETRIEVE_AE_TITLE: self._constant(_RETRIEVE_AE_TITLE, "AE", retrieve_ae_title),
            _AVAILABILITY: self._constant(_AVAILABILITY, "CS", "ONLINE"),
        }
        if self.query.options.timezone_adjustment and self.query.level is not Level.PATIENT:
            parts[_TIMEZONE] = self._timezone()
        for key in self.query.keys:
            asked = self._part(key)
            if asked is not None:
                parts[key.tag] = asked
        steps = []
        before = b""
        for tag in sorted(parts):
            part = parts[tag]
            if isinstance(part, bytes):
                before += part
                continue
            if isinstance(part, _Text):
                head = before + part.head
                empty = head + part.lengths[0]
                steps.append(_Step(part.place, head, empty, part.pad, part.lengths, None))
            else:
                steps.append(_Step(-1, before, b"", b"", {}, part))
            before = b""
        return steps, before

    def _part(self, key: Key) -> _Text | _Call | None:
        """The step that writes a key; None leaves the key out, which tells the peer that it is not supported."""
        depth = self.query.level.depth
        attribute = self.query.attributes.get(key.tag)
        if attribute is not None and attribute.level.depth <= depth:
            place = self._place(attribute.level, attribute.column)
            sought = key.criterion
            if isinstance(sought, SequenceKey):
                return lambda row, _, encode: self._sequence(
                    key.tag, selected_items(row[place], sought), encode
                )
            return self._text(key.tag, key.vr, place)
        attribute = COMPUTED.get(key.tag)
        if attribute is not None:
            return self._computed(attribute) if attribute.level.depth <= depth else None
        self.wanted |= {key.tag}
        return lambda _, header, encode: self._from_header(key, header, encode)

    def _computed(self, attribute: Attribute) -> _Call:
        if attribute.level.depth < self._highest.depth:
            self._highest = attribute.level
        place = self._place_of(computed(attribute).label(attribute.column))
        text = self._text(attribute.tag, attribute.vr, place)
        convert = _sorted if attribute.many else str
        return lambda row, _, encode: text.write(convert(row[place]), encode)

    def _timezone(self) -> _Call:
        place = self._place(self.query.level, "timezone")
        text = self._text(_TIMEZONE, "SH", place)
        return lambda row, _, encode: text.write(row[place], encode) if row[place] else b""

    def _constant(self, tag: int, vr: str, text: str) -> bytes:
        return encode_element(tag, vr, text.encode("ascii", "replace"), self._coding)

    def _text(self, tag: int, vr: str, place: int) -> _Text:
        empty = encode_element(tag, vr, b"", self._coding)
        # An element without a value ends with its length.
        size = 2 if len(empty) == 8 and not self._coding.implicit else 4
        lengths = _LENGTHS[self._coding.order + ("H" if size == 2 else "I")]
        return _Text(place, empty[:-size], b"\0" if vr == "UI" else b" ", lengths)

    def _set_encoders(self) -> None:
        terms = self.query.terms
        encode = encoder_of(terms)
        element = b""
        if encode is not None and terms != ("",):
            element = self._constant(_CHARACTER_SET, "CS", "\\".join(terms))
        # The second entry encodes text that is known to be ASCII, the third any other text.
        self._plain = (element, _encode_utf8, _encode_ascii)
        encode = encode or _encode_ascii
        self._asked = (element, encode, encode)
        self._any = (self._constant(_CHARACTER_SET, "CS", "ISO_IR 192"), _encode_utf8, _encode_utf8)

    # -- rows ------------------------------------------------------------------------------------------

    def representative(self, row: Sequence[Any]) -> int | None:
        """The id of the instance whose kept header a row needs."""
        found: int | None = row[self._representative] if self.wanted else None
        return found

    def accepts(self, row: Sequence[Any], header: KeptHeader) -> bool:
        """Whether a row passes the criteria that no clause can express."""
        for place, criterion in self._residual:
            if isinstance(criterion, SequenceKey):
                if not accepts_items(row[place], criterion):
                    return False
            elif not criterion.accepts(row[place]):
                return False
        for test, day, time, zone in self._zones:
            minutes = self._minutes_of(row[zone], row[day], row[time])
            if not test.accepts(row[day], row[time], minutes):
                return False
        return all(_accepts_header(header, key) for key in self.query.in_header)

    def encode(self, row: Sequence[Any], header: KeptHeader = NO_HEADER) -> bytes:
        """Encode the response identifier for a row."""
        if self.wanted:
            return self._encode_all(row, header)
        try:
            if "".join([row[place] for place in self._texts]).isascii():
                return self._written(row, header, *self._plain)
        except UnicodeEncodeError:
            pass  # the items of a sequence have other text
        return self._encode_all(row, header)

    def _encode_all(self, row: Sequence[Any], header: KeptHeader) -> bytes:
        try:
            return self._written(row, header, *self._asked)
        except UnicodeEncodeError:
            return self._written(row, header, *self._any)

    def _written(
        self,
        row: Sequence[Any],
        header: KeptHeader,
        element: bytes,
        encode_text: Encode,
        encode: Encode,
    ) -> bytes:
        parts = [element]
        for place, head, empty, pad, lengths, call in self._steps:
            if call is not None:
                parts.append(head)
                parts.append(call(row, header, encode))
            elif text := row[place]:
                octets = encode_text(text)
                if len(octets) % 2:
                    octets += pad
                parts.append(head + lengths[len(octets)] + octets)
            else:
                parts.append(empty)
        parts.append(self._end)
        return b"".join(parts)

    def _sequence(self, tag: int, items: bytes, encode: Encode) -> bytes:
        if encode is not _encode_utf8 and not items.isascii():
            # Items are kept in UTF-8, so all of the answer must be.
            raise UnicodeEncodeError("ascii", "", 0, 0, "text of an item")
        return encode_element(tag, "SQ", in_coding(items, self._coding), self._coding)

    def _from_header(self, key: Key, header: KeptHeader, encode: Encode) -> bytes:
        if isinstance(key.criterion, SequenceKey):
            items = selected_items(header.items(key.tag), key.criterion)
            return self._sequence(key.tag, items, encode)
        element = header.elements.get(key.tag)
        if element is None or element.vr == "SQ":
            return encode_element(key.tag, key.vr, b"", self._coding)
        if is_binary(element.vr):
            value = header.data[element.start : element.end]
            if header.coding.little != self._coding.little:
                value = swapped(element.vr, value)
        else:
            value = encode(header.text(key.tag, element.vr))
        return encode_element(key.tag, element.vr, value, self._coding)


def _accepts_header(header: KeptHeader, key: Key) -> bool:
    if isinstance(key.criterion, SequenceKey):
        return accepts_items(header.items(key.tag), key.criterion)
    return key.criterion is None or key.criterion.accepts(header.text(key.tag, key.vr))


def _sorted(values: str | None) -> str:
    return "\\".join(sorted(values.split("\\"))) if values else ""
