"""Data sets and bytes: pydicom's codec by transfer syntax, and the Part 10 header (PS3.5, PS3.10 7.1).

The rest of the package moves data sets as bytes or as files of bytes. This module turns them into
:class:`pydicom.Dataset` on request. It writes the File Meta Information by hand, because that is
on the hot path of receiving.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import MutableSequence
from functools import lru_cache
from io import BytesIO
from itertools import islice
from typing import BinaryIO, NamedTuple

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
    EXPLICIT,
    LONG_VRS,
    UNDEFINED,
    DataSetError,
    coding_of,
    file_header_size,
    heads,
    inflate_part,
    is_deflated,
    is_implicit_vr,
    is_little_endian,
)
from .uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = [
    "DataSetError",
    "FileMeta",
    "check_parts",
    "decode",
    "encode",
    "failed_instances",
    "file_meta",
    "inflate",
    "is_deflated",
    "is_implicit_vr",
    "is_little_endian",
    "part10_header",
    "read_file_meta",
]

_PREAMBLE = bytes(128) + b"DICM"
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sxxI")
# The most octets of one element of File Meta Information; a real one has about 200 in all, and
# private information can make it longer.
_FILE_META_LIMIT = 1 << 20
# Octets of a file that are read at first.
_FILE_META_OCTETS = 1 << 10
# The most octets of a data set that the flat reader tries.
_FLAT_LIMIT = 1 << 16
_IDENTITY_OCTETS = 1 << 14
_NO_CHARSET = b""
_CHARACTER_SET = 0x00080005
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
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
        raise DataSetError(f"the data set cannot be read: {error!r:.200}") from error
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
    except LookupError:
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


def identity(file: BinaryIO, transfer_syntax: str) -> tuple[str, str] | None:
    """Read the SOP class and the SOP instance from the first octets of a data set.

    Args:
        file: A file that is positioned at the data set. Its position afterwards is undefined.

    Returns:
        The two UIDs, empty where absent; None when something unusual, such as a long element,
        stands before them.
    """
    raw = file.read(_IDENTITY_OCTETS)
    start = file_header_size(raw)
    if is_deflated(transfer_syntax):
        try:
            raw, _ = inflate_part(raw, _IDENTITY_OCTETS, start)
        except DataSetError:
            return None
        start = file_header_size(raw)
    found = {_SOP_CLASS: "", _SOP_INSTANCE: ""}
    for tag, _, value, _, behind in heads(raw, coding_of(transfer_syntax), start, len(raw)):
        if tag > _SOP_INSTANCE:
            return found[_SOP_CLASS], found[_SOP_INSTANCE]
        if behind > len(raw):
            return None
        if tag in found:
            found[tag] = raw[value:behind].decode("latin-1").rstrip("\0 ")
    return None


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
        raise DataSetError(f"the data set cannot be written: {error!r:.200}") from error
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


class FileMeta(NamedTuple):
    """What the Part 10 header of a file says, and where its data set begins.

    Attributes:
        offset: The number of octets from the beginning of the file to the data set.
        source_ae_title: The AE title of the sender (0002,0016); empty when the header has none.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    offset: int
    source_ae_title: str = ""


def _uid_element(number: int, uid: str) -> bytes:
    value = uid.encode("latin-1")
    value += b"\0" * (len(value) % 2)
    return _SHORT.pack(2, number, b"UI", len(value)) + value


def _text_element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("latin-1", "replace")
    value += b" " * (len(value) % 2)
    return _SHORT.pack(2, number, vr, len(value)) + value


def file_meta(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax: str,
    *,
    source_ae_title: str = "",
) -> bytes:
    """Make the File Meta Information, group 0002, in explicit VR little endian (PS3.10 7.1)."""
    body = b"".join(
        (
            _LONG.pack(2, 0x0001, b"OB", 2) + b"\0\1",
            _uid_element(0x0002, sop_class_uid),
            _uid_element(0x0003, sop_instance_uid),
            _uid_element(0x0010, transfer_syntax),
            _uid_element(0x0012, IMPLEMENTATION_CLASS_UID),
            _text_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _text_element(0x0016, b"AE", source_ae_title) if source_ae_title else b"",
        )
    )
    return _SHORT.pack(2, 0, b"UL", 4) + struct.pack("<I", len(body)) + body


def part10_header(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax: str,
    *,
    source_ae_title: str = "",
) -> bytes:
    """Make what stands before the data set in a file: preamble, prefix and File Meta Information."""
    return _PREAMBLE + file_meta(
        sop_class_uid, sop_instance_uid, transfer_syntax, source_ae_title=source_ae_title
    )


# The elements that the header of a file must have.
_FILE_META_UIDS = {0x0002: "SOP Class", 0x0003: "SOP Instance", 0x0010: "Transfer Syntax"}


def read_file_meta(file: BinaryIO) -> FileMeta:
    """Read the Part 10 header, and leave the file at its data set.

    The header ends where its group length (0002,0000) says, because some data sets begin with
    elements of group 0002 as well. When the group length is absent, or does not lead to the end of
    an element behind the three UIDs, the header ends at the first element of another group.

    Raises:
        DataSetError: The file is not a DICOM file, or its header is damaged or lacks a UID.
    """
    raw = file.read(_FILE_META_OCTETS)
    if raw[128 : len(_PREAMBLE)] != b"DICM":
        raise DataSetError("the file is not a DICOM file: expected 'DICM' at octet 128")
    values, offset, is_over = _file_meta_values(raw)
    while not is_over and (more := file.read(_FILE_META_LIMIT)):
        if len(raw) > 2 * _FILE_META_LIMIT:
            raise DataSetError(f"the file header has more than {2 * _FILE_META_LIMIT} octets")
        raw += more
        values, offset, is_over = _file_meta_values(raw)
    if not is_over and raw[offset : offset + 2] == b"\2\0" and len(raw) - offset >= _SHORT.size:
        raise DataSetError("the file ends inside its header")
    file.seek(offset)
    for number, what in _FILE_META_UIDS.items():
        if not values.get(number):
            raise DataSetError(f"the file header has no {what} UID (0002,{number:04X})")
    return FileMeta(
        values[0x0002], values[0x0003], values[0x0010], offset, values.get(0x0016, "").strip(" ")
    )


def _file_meta_values(raw: bytes) -> tuple[dict[int, str], int, bool]:
    """The values of group 0002 by element number, the offset behind them, and whether those are all."""
    values: dict[int, str] = {}
    offset, end = len(_PREAMBLE), -1
    for tag, _, value, length, behind in heads(raw, EXPLICIT, offset, len(raw)):
        number = tag & 0xFFFF
        if tag >> 16 != 2:
            return values, offset, True
        if length > _FILE_META_LIMIT:
            raise DataSetError(
                f"element (0002,{number:04X}) of the file header has {length} octets; expected "
                f"{_FILE_META_LIMIT} at most"
            )
        if behind > len(raw):
            break
        octets = raw[value:behind]
        if number == 0 and length == 4 and not values:
            end = behind + int.from_bytes(octets, "little")
        values.setdefault(number, octets.decode("latin-1").rstrip("\0 "))
        offset = behind
        if offset == end and all(values.get(each) for each in _FILE_META_UIDS):
            return values, offset, True
    return values, offset, False
