"""Values of attributes as text, and in the forms that they are compared in (PS3.5 6.1, 6.2).

The index keeps and matches text: Unicode without padding, with a backslash between values. Dates and times also have
a *key*, which is digits that sort; person names have a key for each component group. All functions take any octets
and any text. Octets that cannot be read become the replacement character, and text that cannot be read gets an empty
key; only functions with a *Raises* section raise.
"""

from __future__ import annotations

import calendar
import re
import struct
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

__all__ = [
    "DEFAULT_REPERTOIRE",
    "NUMBERS",
    "TEXT_VRS",
    "Moment",
    "PersonName",
    "clean",
    "codecs_of",
    "date_range",
    "decode",
    "fold",
    "keys_of",
    "moment_range",
    "number_key",
    "offset_minutes",
    "person_name",
    "shifted",
    "sound",
    "split",
    "text_of",
    "time_range",
    "trimmed",
]

#: The codec of text without a Specific Character Set (0008,0005): ISO IR 6, with other octets read as Latin-1.
DEFAULT_REPERTOIRE: Final = ("iso8859",)
#: VRs whose characters depend on (0008,0005) (PS3.5 6.1.2.3).
TEXT_VRS: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
#: VRs that have one value, in which a backslash is a character.
_SINGLE: Final = frozenset(("LT", "ST", "UR", "UT"))
#: VRs whose leading spaces are significant.
_LEADING: Final = frozenset(("LT", "ST", "UC", "UT"))
#: VRs of binary numbers, and the format of one number in :mod:`struct`.
NUMBERS: Final = {
    "FD": "d",
    "FL": "f",
    "SL": "i",
    "SS": "h",
    "SV": "q",
    "UL": "I",
    "US": "H",
    "UV": "Q",
}

_ESCAPE = 0x1B
_FRAGMENT = re.compile(rb"\x1b?[^\x1b]+")
# PS3.5 6.1.2.5.3: the first character set is active again after each of these.
_DELIMITER = re.compile(rb"[\\^=\r\n\t\f]")
# These codecs of Python need the escape sequence.
_ESCAPING = ("iso2022_jp", "iso2022_jp_2")


# -- octets to text -----------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def codecs_of(terms: Sequence[str]) -> tuple[str, ...]:
    """Python's codecs for the values of Specific Character Set (0008,0005).

    An unknown term counts as the default repertoire, so that its text can be read in part.

    Args:
        terms: A tuple; empty when the attribute is absent.
    """
    found = []
    for term in terms:
        # Some peers write "ISO IR 100", "ISO-IR 192" or "ISO2022 IR 87".
        numbers = re.fullmatch(r"ISO[^0-9]?(IR|2022[^0-9]?IR)[^0-9]?(\d+)", term.strip())
        name = term.strip()
        if numbers is not None:
            extended = "2022" in numbers[1]
            name = f"ISO 2022 IR {numbers[2]}" if extended else f"ISO_IR {numbers[2]}"
        found.append(python_encoding.get(name, "iso8859"))
    return tuple(found) or DEFAULT_REPERTOIRE


def decode(value: bytes, codecs: Sequence[str]) -> str:
    """Decode the octets of a text, with code extensions (PS3.5 6.1.2.5)."""
    if _ESCAPE not in value:
        if value.isascii():
            return value.decode("ascii")
        return value.decode(codecs[0], "replace")
    return "".join(_fragment(each, codecs) for each in _FRAGMENT.findall(value))


def _fragment(value: bytes, codecs: Sequence[str]) -> str:
    if value[0] != _ESCAPE:
        return value.decode(codecs[0], "replace")
    size = 4 if value[1:3] in (b"$(", b"$)") else 3
    codec = CODES_TO_ENCODINGS.get(value[:size])
    if codec is None:
        return value.decode(codecs[0], "replace")
    if codec in _ESCAPING:
        return value.decode(codec, "replace")
    body = value[size:]
    end = _DELIMITER.search(body)
    cut = len(body) if end is None else end.start()
    return body[:cut].decode(codec, "replace") + body[cut:].decode(codecs[0], "replace")


def clean(text: str) -> str:
    """Remove what no database stores: NUL, and halves of surrogate pairs."""
    if "\0" in text:
        text = text.replace("\0", "")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text


def text_of(vr: str, value: bytes, codecs: Sequence[str], *, little_endian: bool = True) -> str:
    """The value of an element as text.

    Args:
        vr: Any VR but SQ. A VR that is neither text nor number gives empty text.
    """
    if vr in NUMBERS:
        return "\\".join(map(_number, _unpack(vr, value, little_endian)))
    if vr == "AT":
        pairs = struct.iter_unpack("<HH" if little_endian else ">HH", value[: len(value) // 4 * 4])
        return "\\".join(f"{group:04X}{element:04X}" for group, element in pairs)
    if vr in ("OB", "OD", "OF", "OL", "OV", "OW", "UN"):
        return ""
    # The padding goes first, because it may be a NUL (PS3.5 6.2, UI).
    text = clean(decode(value.rstrip(b"\0 "), codecs))
    return _trimmed(vr, text)


def _unpack(vr: str, value: bytes, little_endian: bool) -> Iterable[float]:
    form = ("<" if little_endian else ">") + NUMBERS[vr]
    whole = len(value) // struct.calcsize(form) * struct.calcsize(form)
    return (each for (each,) in struct.iter_unpack(form, value[:whole]))


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def split(vr: str, text: str) -> list[str]:
    """The values in an attribute's text; an empty list when the text is empty."""
    if not text:
        return []
    return [text] if vr in _SINGLE or "\\" not in text else text.split("\\")


def _trimmed(vr: str, text: str) -> str:
    values = [each.rstrip(" ") if vr in _LEADING else each.strip(" ") for each in split(vr, text)]
    if vr == "IS":
        values = list(map(_integer, values))
    if vr == "PN":
        # Delimiters alone are not a name.
        values = [each if each.strip("^= ") else "" for each in values]
    return "\\".join(values)


def _integer(text: str) -> str:
    """Write an integer in one way: ``007`` and ``+7`` become ``7`` (PS3.5 6.2, IS)."""
    return str(int(text)) if _INTEGER.fullmatch(text) else text


_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")


def trimmed(vr: str, text: str) -> str:
    """Text that did not come as octets, in the form that :func:`text_of` gives."""
    return _trimmed(vr, clean(text).rstrip("\0 "))


# -- person names -------------------------------------------------------------------------------------


class PersonName(NamedTuple):
    """The component groups of a person name, folded, without trailing empty components (PS3.5 6.2.1)."""

    alphabetic: str
    ideographic: str
    phonetic: str


def fold(text: str) -> str:
    """Text in the form in which names are compared: composed, and in one case.

    Each character stays one character, so that ``?`` matches it; therefore ``ß`` does not become ``ss``.
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFC", text)
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(c if len(c.casefold()) > 1 else c.casefold() for c in text)


def person_name(text: str) -> PersonName:
    """The component groups of a name, or of a key that matches names."""
    groups = [_group(each) for each in fold(text).split("=", 2)]
    return PersonName(*groups, *[""] * (3 - len(groups)))


def _group(text: str) -> str:
    if "^" not in text:
        return text.strip(" ")
    # PS3.5 6.2.1.1: trailing empty components and their delimiters may be left out.
    return "^".join(each.strip(" ") for each in text.split("^")).rstrip("^")


_WORD = re.compile(r"[^\W\d_]+")
_SOUNDS = {
    letter: digit
    for letters, digit in (
        ("bfpv", "1"),
        ("cgjkqsxz", "2"),
        ("dt", "3"),
        ("l", "4"),
        ("mn", "5"),
        ("r", "6"),
    )
    for letter in letters
}


def sound(text: str) -> str:
    """The text that fuzzy matching compares: the sounds of a name's words, with a space around each.

    The sound of a word in Latin letters is its Soundex code, which ignores accents. Any other word is folded and
    otherwise kept. Components and groups make no difference.
    """
    words = dict.fromkeys(_sound(word) for word in _WORD.findall(fold(text)))
    return f" {' '.join(words)} " if words else ""


def _sound(word: str) -> str:
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c)
    ).replace("ß", "ss")
    if not (plain.isascii() and plain.isalpha()):
        return word
    code, last = plain[0].upper(), _SOUNDS.get(plain[0], "")
    for letter in plain[1:]:
        digit = _SOUNDS.get(letter, "")
        if digit and digit != last:
            code += digit
        # Vowels separate letters of the same sound; h and w do not.
        if letter not in "hw":
            last = digit
    return code[:4].ljust(4, "0")


# -- dates, times, numbers ------------------------------------------------------------------------------

_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")
_TIME = re.compile(
    r"([01][0-9]|2[0-3])(?::?([0-5][0-9])(?::?([0-5][0-9]|60)(?:\.([0-9]{1,6}))?)?)?"
)
# Years begin with 1500, so that the end of a range cannot be read as an offset from UTC.
_MOMENT = re.compile(
    r"((?:1[5-9]|[2-9][0-9])[0-9]{2}(?:[0-9]{2}){0,2}"
    r"|(?:1[5-9]|[2-9][0-9])[0-9]{6}(?:[0-9]{2}){0,3}(?:\.[0-9]{1,6})?)"
    r"([+-](?:0[0-9]|1[0-4])[0-5][0-9])?"
)


class Moment(NamedTuple):
    """The period that a date, a time or a date-time covers at its precision, both ends included.

    The ends are keys: 8 digits for a date, 12 for a time, 20 for a date-time.

    Attributes:
        first: The first moment.
        last: The last moment.
        offset: The offset from UTC in minutes, when a date-time has one.
    """

    first: str
    last: str
    offset: int | None = None


def date_range(text: str) -> Moment:
    """The day of a DA; the form of ACR-NEMA, ``2026.11.23``, is read as well.

    Raises:
        ValueError: The text is not a date.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.40} is not a date; expected YYYYMMDD")
    year, _, month, day = found.groups()
    date(int(year), int(month), int(day))
    return Moment(year + month + day, year + month + day)


def time_range(text: str) -> Moment:
    """The period of a TM; the form of ACR-NEMA, ``10:15:00``, is read as well.

    Raises:
        ValueError: The text is not a time.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.40} is not a time; expected HHMMSS, or fewer digits")
    hour, minute, second, fraction = (each or "" for each in found.groups())
    return Moment(
        hour + (minute or "00") + (second or "00") + fraction.ljust(6, "0"),
        hour + (minute or "59") + (second or "59") + fraction.ljust(6, "9"),
    )


def moment_range(text: str) -> Moment:
    """The period of a DT, in UTC when it has an offset.

    Raises:
        ValueError: The text is not a date-time.
    """
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r:.40} is not a date-time; expected YYYYMMDDHHMMSS, or fewer digits"
        )
    digits, offset = found.groups()
    digits, _, fraction = digits.partition(".")
    year, month, day = digits[:4], digits[4:6] or "01", digits[6:8] or "01"
    date(int(year), int(month), int(day))
    whole = time_range(digits[8:] + (f".{fraction}" if fraction else "")) if digits[8:] else None
    first = year + month + day + (whole.first if whole else "0" * 12)
    if whole is not None:
        last = year + month + day + whole.last
    else:
        last_month = digits[4:6] or "12"
        last_day = digits[6:8] or str(calendar.monthrange(int(year), int(last_month))[1])
        last = year + last_month + last_day + "235959999999"
    if offset is None:
        return Moment(first, last)
    minutes = offset_minutes(offset)
    return Moment(shifted(first, -minutes), shifted(last, -minutes), minutes)


_OFFSET = re.compile(r"([+-])(0[0-9]|1[0-4])([0-5][0-9])")


def offset_minutes(text: str) -> int:
    """The minutes from UTC in an offset such as ``+0130`` (PS3.3 C.12.1.1.8).

    Raises:
        ValueError: The text is not an offset.
    """
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.40} is not an offset from UTC; expected something like +0130")
    minutes = int(found[2]) * 60 + int(found[3])
    return -minutes if found[1] == "-" else minutes


def shifted(moment: str, minutes: int) -> str:
    """A key of 20 digits, that many minutes later; a date that Python cannot have stays as it is."""
    try:
        day = date(int(moment[:4]), int(moment[4:6]), int(moment[6:8]))
        total = int(moment[8:10]) * 60 + int(moment[10:12]) + minutes
        day += timedelta(total // 1440)
    except (OverflowError, ValueError):
        return moment
    return f"{day:%Y%m%d}".rjust(8, "0") + f"{total % 1440 // 60:02}{total % 60:02}" + moment[12:]


def number_key(text: str) -> str:
    """A number in one form, so that ``70.50`` equals ``7.05e1`` (PS3.5 6.2, DS); empty when it is not a number."""
    try:
        return repr(float(text))
    except ValueError:
        return ""


def keys_of(vr: str, text: str) -> tuple[str, ...]:
    """The values of an attribute's key columns, in the order of ``schema.KEY_FORMS``; for attributes of VM 1."""
    if vr == "PN":
        return (*person_name(text), sound(text)) if text else ("", "", "", "")
    if not text:
        return ("",)
    if vr == "DS":
        return (number_key(text),)
    try:
        return ((date_range if vr == "DA" else time_range)(text).first,)
    except ValueError:
        return ("",)
