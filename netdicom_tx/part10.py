"""The header of a DICOM file: preamble, prefix and File Meta Information (PS3.10 7.1).

It is written and read by hand, because that is on the hot path of receiving. The data set behind it is left to
:mod:`netdicom_tx.dsutils`, which loads pydicom.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from .encoding import EXPLICIT, IMPLICIT, VRS, Coding, DataSetError, heads, identity
from .uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = ["FileMeta", "file_meta", "own_header_size", "part10_header", "read_file_meta"]

_PREAMBLE = bytes(128) + b"DICM"
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sxxI")
_GROUP_LENGTH_OCTETS = 12
# What stands before the value of (0002,0000).
_BEGIN = _PREAMBLE + _SHORT.pack(2, 0, b"UL", 4)
# The most octets of one element of File Meta Information; a real one has about 200 in all, and
# private information can make it longer.
_FILE_META_LIMIT = 1 << 20
# Octets of a file that are read at first.
_FILE_META_OCTETS = 1 << 10
# The transfer syntax of a data set in explicit VR, by the first octets of group 0008.
_EXPLICIT_OF_GROUP_8 = {b"\x08\0": EXPLICIT_VR_LITTLE_ENDIAN, b"\0\x08": EXPLICIT_VR_BIG_ENDIAN}


class FileMeta(NamedTuple):
    """What the Part 10 header of a file says, and where its data set begins.

    Attributes:
        offset: The number of octets from the beginning of the file to the data set.
        source_ae_title: The AE title of the sender (0002,0016); empty when the header has none.
        is_complete: Whether preamble, prefix and the three UIDs are there; only a lenient reader takes less.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    offset: int
    source_ae_title: str = ""
    is_complete: bool = True


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


@lru_cache(maxsize=256)
def _around(sop_class_uid: str, transfer_syntax: str) -> tuple[bytes, bytes]:
    """What stands before and behind the SOP Instance UID in a header of ours, without an AE title."""
    body = file_meta(sop_class_uid, "", transfer_syntax)[_GROUP_LENGTH_OCTETS:]
    empty = _uid_element(0x0003, "")
    before, _, behind = body.partition(empty)
    return before, behind


def own_header_size(
    data: bytes, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str
) -> int | None:
    """The length of the header of a file, if :func:`part10_header` has made it of these values; otherwise None.

    To compare octets costs less than to read elements, and most files that an archive sends are its own.
    """
    before, behind = _around(sop_class_uid, transfer_syntax)
    body = before + _uid_element(0x0003, sop_instance_uid) + behind
    start = len(_PREAMBLE) + _GROUP_LENGTH_OCTETS
    end = start + len(body)
    if data[: start - 4] != _BEGIN or data[start:end] != body:
        return None
    said = start + int.from_bytes(data[start - 4 : start], "little")
    if said == end:
        return end
    has_title = data[end : end + 6] == b"\2\0\x16\0AE"
    length = int.from_bytes(data[end + 6 : end + 8], "little")
    return said if has_title and end + _SHORT.size + length == said else None


# The elements that the header of a file must have.
_FILE_META_UIDS = {0x0002: "SOP Class", 0x0003: "SOP Instance", 0x0010: "Transfer Syntax"}


def read_file_meta(file: BinaryIO, *, is_lenient: bool = False) -> FileMeta:
    """Read the Part 10 header, and leave the file at its data set.

    The header ends where its group length (0002,0000) says, because some data sets begin with
    elements of group 0002 as well. When the group length is absent, or does not lead to the end of
    an element behind the three UIDs, the header ends at the first element of another group.

    Args:
        is_lenient: Also take what older systems have written: a file without the preamble, one that has only a data
            set, a header in implicit VR, and one that lacks the UID of the SOP class or of the instance.

    Raises:
        DataSetError: The file is not a DICOM file, or its header is damaged or lacks a UID.
    """
    # What stands where the archive has its files may be a pipe, which has no position.
    begin = file.tell() if is_lenient else 0
    raw = file.read(_FILE_META_OCTETS)
    start, coding = len(_PREAMBLE), EXPLICIT
    if raw[128:start] != b"DICM":
        start = _start_without_preamble(raw) if is_lenient else -1
        if start < 0:
            return _data_set_alone(file, begin, raw if is_lenient else b"")
    elif is_lenient and raw[start : start + 2] == b"\2\0" and raw[start + 4 : start + 6] not in VRS:
        coding = IMPLICIT
    values, offset, is_over = _file_meta_values(raw, start, coding)
    while not is_over and (more := file.read(_FILE_META_LIMIT)):
        if len(raw) > 2 * _FILE_META_LIMIT:
            raise DataSetError(f"the file header has more than {2 * _FILE_META_LIMIT} octets")
        raw += more
        values, offset, is_over = _file_meta_values(raw, start, coding)
    if not is_over and raw[offset : offset + 2] == b"\2\0" and len(raw) - offset >= _SHORT.size:
        raise DataSetError("the file ends inside its header")
    file.seek(begin + offset)
    is_complete = all(map(values.get, _FILE_META_UIDS))
    if is_lenient and not is_complete:
        _complete(values, file)
        file.seek(begin + offset)
    for number, what in _FILE_META_UIDS.items():
        if not values.get(number):
            raise DataSetError(f"the file header has no {what} UID (0002,{number:04X})")
    is_complete = is_complete and start == len(_PREAMBLE) and coding is EXPLICIT
    return FileMeta(
        *(values[0x0002], values[0x0003], values[0x0010], offset),
        *(values.get(0x0016, "").strip(" "), is_complete),
    )


def _complete(values: dict[int, str], file: BinaryIO) -> None:
    """Take the UIDs that a header lacks from the data set, at which the file is."""
    of_data_set = identity(file, values.get(0x0010, "")) or ("", "")
    for number, uid in zip((0x0002, 0x0003), of_data_set, strict=True):
        values[number] = values.get(number) or uid


def _start_without_preamble(raw: bytes) -> int:
    """Where group 0002 begins in a file that has no preamble; -1 when it does not begin with it."""
    start = 4 if raw[:4] == b"DICM" else 0
    return start if raw[start : start + 2] == b"\2\0" and raw[start + 4 : start + 6] in VRS else -1


def _data_set_alone(file: BinaryIO, begin: int, raw: bytes) -> FileMeta:
    """What a file says that has no header, and begins with the elements that name an instance.

    Args:
        begin: Where the file begins.
        raw: Its first octets.

    Raises:
        DataSetError: It does not.
    """
    if raw[4:6] in VRS:
        syntax = _EXPLICIT_OF_GROUP_8.get(raw[:2])
    else:
        syntax = IMPLICIT_VR_LITTLE_ENDIAN if raw[:2] == b"\x08\0" else None
    if syntax is not None:
        file.seek(begin)
        of_data_set = identity(file, syntax) or ("", "")
        if all(of_data_set):
            file.seek(begin)
            return FileMeta(*of_data_set, syntax, 0, is_complete=False)
    raise DataSetError("the file is not a DICOM file: expected 'DICM' at octet 128")


def _file_meta_values(raw: bytes, start: int, coding: Coding) -> tuple[dict[int, str], int, bool]:
    """The values of group 0002 by element number, the offset behind them, and whether those are all."""
    values: dict[int, str] = {}
    offset, end = start, -1
    for tag, _, value, length, behind in heads(raw, coding, offset, len(raw)):
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
