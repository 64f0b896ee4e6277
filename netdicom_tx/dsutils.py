"""Data sets and bytes: pydicom's codec by transfer syntax (PS3.5).

The rest of the package moves data sets as bytes or as files of bytes. This module turns them into
:class:`pydicom.Dataset` on request. The header of a file, which it hands on, is that of
:mod:`netdicom_tx.part10`.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import MutableSequence
from functools import lru_cache
from io import BytesIO
from itertools import islice
from typing import BinaryIO

from pydicom.charset import convert_encodings, custom_encoders, default_encoding
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, PersonName

from .arguments import check_type
from .encoding import (
    LONG_VRS,
    UNDEFINED,
    DataSetError,
    coding_of,
    heads,
    identity,
    inflate_part,
    is_deflated,
    is_implicit_vr,
    is_little_endian,
)
from .part10 import FileMeta, file_meta, part10_header, read_file_meta
from .uids import IMPLICIT_VR_LITTLE_ENDIAN

__all__ = [
    "DataSetError",
    "FileMeta",
    "check_parts",
    "decode",
    "encode",
    "failed_instances",
    "file_meta",
    "identity",
    "inflate",
    "is_deflated",
    "is_implicit_vr",
    "is_little_endian",
    "part10_header",
    "read_file_meta",
]

# The most octets of a data set that the flat reader tries.
_FLAT_LIMIT = 1 << 16
_NO_CHARSET = b""
_CHARACTER_SET = 0x00080005
_DELIMITERS = 0xFFFE0000


def inflate(data: bytes, limit: int) -> bytes:
    """Undo the deflation of a data set (PS3.5 A.5), up to a limit.

    Args:
        limit: The most octets of the result, so that a small message cannot fill the memory.

    Raises:
        DataSetError: The stream is damaged, or its result is longer than the limit.
    """
    plain, is_whole = inflate_part(data, limit + 1)
    if len(plain) > limit:
        raise DataSetError(f"the deflated data set has more than {limit} octets when inflated")
    if not is_whole:
        raise DataSetError("the deflated data set is damaged: it ends before its stream does")
    return plain


def check_parts(data: bytes, transfer_syntax: str, limit: int) -> None:
    """Check how many elements and items a data set has, which costs far less than to decode them.

    A mebibyte has room for 130,000, which pydicom reads for seconds.

    Raises:
        DataSetError: It has more elements at the top, or more items at any depth, than the limit.
    """
    if len(data) <= 8 * limit or is_deflated(transfer_syntax):
        return
    coding = coding_of(transfer_syntax)
    item = b"\xfe\xff\x00\xe0" if coding.little else b"\xff\xfe\xe0\x00"
    elements = sum(1 for _ in islice(heads(data, coding, 0, len(data)), limit + 1))
    if elements > limit or data.count(item) > limit:
        raise DataSetError(f"the data set has more than {limit} elements or items")


def decode(data: bytes | BinaryIO, transfer_syntax: str, *, limit: int = 1 << 30) -> Dataset:
    """Read a data set from bytes, or from a file at its position.

    pydicom converts a value when it is first used.

    Args:
        transfer_syntax: The transfer syntax of the presentation context that it came on.
        limit: The most octets of a deflated data set after inflating it.

    Raises:
        DataSetError: The bytes are not a data set in that transfer syntax.
    """
    raw = data if isinstance(data, bytes) else data.read()
    if is_deflated(transfer_syntax):
        raw = inflate(raw, limit)
    if len(raw) <= _FLAT_LIMIT:
        flat = _decode_flat(raw, transfer_syntax)
        if flat is not None:
            return flat
    source = _Source(raw)
    try:
        data_set = read_dataset(
            source,
            is_implicit_VR=is_implicit_vr(transfer_syntax),
            is_little_endian=is_little_endian(transfer_syntax),
        )
    except Exception as error:  # pydicom documents no closed set of errors for bad input
        raise DataSetError(f"the data set cannot be read ({type(error).__name__})") from error
    # When a data set ends inside an element, pydicom returns what it has read, or nothing at all.
    # Half an identifier asks for more than its sender meant.
    if source.last.strip(b"\0") or (raw.strip(b"\0") and not data_set):
        raise DataSetError("the data set is damaged: it ends inside an element")
    for element in data_set.values():
        if isinstance(element, RawDataElement) and element.length != UNDEFINED:
            missing = element.value_tell + element.length - len(raw)
            if missing > 0:
                raise DataSetError(
                    f"the data set is damaged: {missing} octets of {element.tag} are missing"
                )
    return data_set


def _decode_flat(raw: bytes, transfer_syntax: str) -> Dataset | None:
    """Read a data set without sequences, as most identifiers are, several times faster than pydicom.

    Returns:
        The data set that pydicom would return; None when it has a sequence or is not whole.
    """
    coding = coding_of(transfer_syntax)
    implicit, little = coding
    elements: dict[BaseTag, RawDataElement] = {}
    charset, position, end = _NO_CHARSET, 0, len(raw)
    for number, vr, value, length, behind in heads(raw, coding, 0, end):
        if behind > end or number >= _DELIMITERS:
            return None
        if _is_sequence(number) if implicit else vr in LONG_VRS or not vr.isalpha():
            return None
        tag = BaseTag(number)
        octets = raw[value:behind]
        name = None if implicit else vr.decode("ascii")
        elements[tag] = RawDataElement(tag, name, length, octets, value, implicit, little)
        if number == _CHARACTER_SET:
            charset = octets
        position = behind
    if position < end:
        return None
    data_set = Dataset(elements)  # type: ignore[arg-type]  # it takes raw elements too
    try:
        data_set.set_original_encoding(implicit, little, _encodings(charset))
    except (LookupError, ValueError):  # the latter for a NUL inside a term
        return None
    return data_set


@lru_cache(maxsize=1024)
def _encodings(specific_character_set: bytes) -> list[str] | str:
    """Python's codecs for a value of Specific Character Set (0008,0005), as pydicom reads it."""
    if not specific_character_set:
        return default_encoding
    names = specific_character_set.decode("latin-1").rstrip("\0 ").split("\\")
    with warnings.catch_warnings():
        # An unknown character set is read as the default; the reader of the text will notice.
        warnings.simplefilter("ignore")
        found: list[str] = convert_encodings([each.strip() for each in names])
    return found


@lru_cache(maxsize=1024)
def _is_sequence(tag: int) -> bool:
    """Whether an element in implicit VR is a sequence, or may be one."""
    try:
        return dictionary_VR(tag) in ("SQ", "UN")
    except KeyError:
        return True


class _Source(BytesIO):
    """Remembers what was read last: nothing, or zeros for padding, when a data set is whole."""

    last = b""

    def read(self, size: int | None = -1, /) -> bytes:
        self.last = super().read(size)
        return self.last


def encode(data_set: Dataset, transfer_syntax: str) -> bytes:
    """Write a data set to bytes.

    This function neither compresses nor decompresses pixel data: the data set must already hold
    what the transfer syntax asks for. It leaves out group 0002, which is not part of a data set.

    Raises:
        TypeError: It is not a data set.
        DataSetError: A value cannot be written, or its text is not in the Specific Character Set
            (0008,0005). Without one, text is written as ISO 8859-1, as it is read.
    """
    check_type("data_set", data_set, Dataset, "a pydicom.Dataset")
    buffer = DicomBytesIO()
    buffer.is_little_endian = is_little_endian(transfer_syntax)
    buffer.is_implicit_VR = is_implicit_vr(transfer_syntax)
    try:
        plain = data_set
        if 0x00020000 <= min(data_set.keys(), default=0xFFFFFFFF) < 0x00030000:
            plain = data_set.group_dataset(0)
            for element in data_set:
                if element.tag.group != 2:
                    plain.add(element)
        _check_text(plain, None)
        write_dataset(buffer, plain)
    except DataSetError:
        raise
    except Exception as error:  # pydicom documents no closed set of errors for bad values
        raise DataSetError(f"the data set cannot be written ({type(error).__name__})") from error
    raw = buffer.getvalue()
    if is_deflated(transfer_syntax):
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        raw = stream.compress(raw) + stream.flush()
    # PS3.5 A.5: padded to an even length.
    return raw + b"\0" if len(raw) % 2 else raw


def failed_instances(stray: bytes, transfer_syntax: str) -> bytes | None:
    """The data set that a peer has put into the command set of its C-GET or C-MOVE response.

    Args:
        stray: Elements in implicit VR little endian, as a command set has them.
        transfer_syntax: The transfer syntax of the presentation context, which the data set should have had.

    Returns:
        Failed SOP Instance UID List (0008,0058) in that transfer syntax; None when it is not there.
    """
    try:
        found = decode(stray, IMPLICIT_VR_LITTLE_ENDIAN).group_dataset(8)
        if "FailedSOPInstanceUIDList" not in found:
            return None
        data_set = Dataset()
        data_set.FailedSOPInstanceUIDList = found.FailedSOPInstanceUIDList
        return encode(data_set, transfer_syntax)
    except (DataSetError, ValueError):  # ValueError: pydicom, of a value that is not a UID
        return None


_Terms = str | MutableSequence[str] | None


def _check_text(data_set: Dataset, terms: _Terms) -> None:
    """Refuse text for which pydicom would write question marks, which are wild cards in a key.

    Args:
        terms: The Specific Character Set of the enclosing data set, which an item without its own
            inherits (PS3.3 C.12.1.1.2).
    """
    terms = data_set.get("SpecificCharacterSet", terms)
    for element in data_set.values():
        if not isinstance(element, DataElement):
            continue  # written as it was read
        if element.VR == "SQ":
            for item in element.value:
                _check_text(item, terms)
        elif element.VR in CUSTOMIZABLE_CHARSET_VR:
            value = element.value
            for each in value if isinstance(value, MutableSequence) else [value]:
                text = str(each) if isinstance(each, str | PersonName) else ""
                if not text.isascii() and not _can_write(text, terms):
                    raise DataSetError(
                        f"{keyword_for_tag(element.tag)} {element.tag} cannot be written in its "
                        f"character set, {_named(terms)}; set Specific Character Set (0008,0005) to "
                        "one that has its characters, such as ISO_IR 192"
                    )


def _can_write(text: str, terms: _Terms) -> bool:
    """Whether pydicom writes all of a text, in one of the character sets or in several."""
    codecs = convert_encodings(terms)
    if len(codecs) == 1:
        return _has(codecs[0], text)
    return all(any(_has(codec, character) for codec in codecs) for character in text)


def _has(codec: str, text: str) -> bool:
    try:
        if codec in custom_encoders:
            custom_encoders[codec](text, errors="strict")
        else:
            text.encode(codec)
    except UnicodeError:
        return False
    return True


def _named(terms: _Terms) -> str:
    if not terms:
        return "ISO 8859-1 where there is no Specific Character Set"
    return terms if isinstance(terms, str) else "\\".join(terms)
