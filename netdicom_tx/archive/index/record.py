"""The record of an instance that the index keeps, made from its encoded data set."""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...dsutils import read_file_meta
from ...encoding import Buffer, Coding, DataSetError, coding_of
from ..encoded.elements import CANONICAL, Element
from ..encoded.files import walk_file
from ..encoded.recode import recode
from ..encoded.values import codecs_of, keys_of, text_of
from ..encoded.walk import InvalidDataSetError, Walked, elements, find, items, walk
from .schema import ATTRIBUTES, Level, attributes_of

__all__ = [
    "NO_HEADER",
    "UNKNOWN",
    "WANTED",
    "InstanceRecord",
    "KeptHeader",
    "Receipt",
    "digest_of",
    "digest_of_file",
    "record_of",
]

# How many octets of a file are hashed at a time; a multiple of the page size.
PIECE: Final = 1 << 20

_CHARACTER_SET, _TIMEZONE = 0x00080005, 0x00080201
_UNIVERSAL_ENTITY_ID, _UNIVERSAL_ENTITY_ID_TYPE = 0x00400032, 0x00400033
#: The tags of the elements from which a record is made.
WANTED: Final = frozenset((_CHARACTER_SET, _TIMEZONE, *ATTRIBUTES))
_BY_LEVEL: Final = {level: attributes_of(level) for level in Level}
#: The columns of attributes that an instance does not have.
_EMPTY: Final[Mapping[Level, Mapping[str, Any]]] = {
    level: {
        name: None if each.vr == "SQ" else ""
        for each in _BY_LEVEL[level]
        for name in (each.column, *each.key_columns)
    }
    for level in Level
}


class KeptHeader:
    """The header of an instance as the index keeps it: the data set up to its pixel data, without long values.

    Attributes:
        data: The elements as they were encoded in the data set, inflated.
        elements: The wanted elements of the top level that have a value; their offsets are in ``data``.
        coding: The coding of ``data``.
        codecs: The codecs of the text, from Specific Character Set (0008,0005).
    """

    __slots__ = ("codecs", "coding", "data", "elements")

    def __init__(self, data: bytes, found: dict[int, Element], coding: Coding) -> None:
        self.data = data
        self.elements = found
        self.coding = coding
        # Specific Character Set itself is of the default repertoire, though some write other octets in it.
        self.codecs = codecs_of(())
        terms = self.text(_CHARACTER_SET, "CS")
        self.codecs = codecs_of(tuple(terms.split("\\")) if terms else ())

    @classmethod
    def of(cls, packed: bytes, transfer_syntax: str, wanted: Collection[int]) -> KeptHeader:
        """Unpack a header from the index.

        Args:
            packed: The deflated header, see :attr:`InstanceRecord.packed`.
            transfer_syntax: The transfer syntax of the instance.
            wanted: The tags of the elements to be found.
        """
        data = zlib.decompress(packed, -zlib.MAX_WBITS)
        tags = {_CHARACTER_SET, *wanted}
        coding = coding_of(transfer_syntax)
        return cls(data, find(data, coding, tags), coding)

    def text(self, tag: int, vr: str) -> str:
        """The text of an attribute that is not a sequence; empty when the header does not have it."""
        element = self.elements.get(tag)
        if element is None:
            return ""
        value = self.data[element.start : element.end]
        return text_of(vr, value, self.codecs, little_endian=self.coding.little)

    def items(self, tag: int) -> bytes:
        """The items of a sequence, in explicit VR little endian and UTF-8.

        The result is empty when the header does not have the sequence, or when its contents are damaged.
        """
        element = self.elements.get(tag)
        if element is None or element.vr != "SQ":
            return b""
        try:
            return recode(self.data, element, self.codecs, CANONICAL)
        except DataSetError:
            return b""


#: The header of an instance about which nothing is known.
NO_HEADER: Final = KeptHeader(b"", {}, CANONICAL)


class Receipt(NamedTuple):
    """When an instance was received, and from whom.

    Attributes:
        time: Seconds since 1970; 0 when it is not known.
        calling: The AE title of its sender; empty when it is not known.
        called: The AE title that it was sent to; empty when it is not known.
    """

    time: float = 0.0
    calling: str = ""
    called: str = ""


#: The receipt of an instance about which nothing is known.
UNKNOWN: Final = Receipt()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One instance, as :meth:`Index.add <netdicom_tx.archive.index.index.Index.add>` takes it.

    Attributes:
        path: The path of the file.
        size: The size of the file in octets.
        digest: The digest of the file, ``sha256:`` and hexadecimal digits; empty when it has not been computed.
        header: The header, with the elements of the tags :data:`WANTED`.
        packed: The header as the index stores it, deflated.
        receipt: When it was received, and from whom.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    path: Path
    size: int
    digest: str
    header: KeptHeader = field(repr=False, compare=False)
    packed: bytes = field(repr=False)
    receipt: Receipt = field(default=UNKNOWN, compare=False)

    @classmethod
    def of(
        cls,
        walked: Walked,
        transfer_syntax: str,
        *,
        path: Path,
        size: int,
        digest: str,
        receipt: Receipt = UNKNOWN,
    ) -> InstanceRecord:
        """The record of an instance that was walked through with the tags :data:`WANTED`.

        Args:
            walked: The results of the walk.
            path: The path of the file.
            size: The size of the file in octets.
            digest: The digest of the file, or an empty string.
            receipt: When it was received, and from whom.

        Raises:
            InvalidDataSetError: The data set has no SOP Class UID or no SOP Instance UID.
        """
        if not walked.sop_class_uid or not walked.sop_instance_uid:
            raise InvalidDataSetError("the data set has no SOP Class UID or no SOP Instance UID")
        header = KeptHeader(walked.header, walked.elements, coding_of(transfer_syntax))
        return cls(
            sop_class_uid=walked.sop_class_uid,
            sop_instance_uid=walked.sop_instance_uid,
            transfer_syntax=transfer_syntax,
            patient_id=header.text(0x00100020, "LO"),
            study_instance_uid=header.text(0x0020000D, "UI"),
            series_instance_uid=header.text(0x0020000E, "UI"),
            path=path,
            size=size,
            digest=digest,
            header=header,
            packed=zlib.compress(header.data, 1, -zlib.MAX_WBITS),
            receipt=receipt,
        )

    @property
    def identity(self) -> str:
        """What identifies the patient: Patient ID with its issuer, (0010,0021) and (0010,0024).

        The issuer is part of it because two hospitals may give one ID to two people. Two people without an ID are
        not one person, so the study identifies such a patient. The parts are separated by backslashes, which no
        value has (PS3.5 6.2).
        """
        if not self.patient_id:
            return f"\\{self.study_instance_uid}"
        issuer = self.header.text(0x00100021, "LO")
        universal = _universal_issuer(self.header.items(0x00100024))
        return "\\".join((self.patient_id, issuer, universal)).rstrip("\\")

    @property
    def has_series(self) -> bool:
        """Whether the instance belongs to a series; a colour palette, for example, belongs to no patient."""
        return bool(self.study_instance_uid and self.series_instance_uid)

    def values(self, level: Level) -> dict[str, Any]:
        """The values of the columns that a level's table has for attributes."""
        found = dict(_EMPTY[level])
        there = self.header.elements
        for attribute in _BY_LEVEL[level]:
            tag = attribute.tag
            if tag not in there:
                continue
            if attribute.vr == "SQ":
                found[attribute.column] = self.header.items(tag) or None
            else:
                text = self.header.text(tag, attribute.vr)
                found[attribute.column] = text
                if attribute.key_columns:
                    keys = keys_of(attribute.vr, text)
                    found.update(zip(attribute.key_columns, keys, strict=True))
        if level is not Level.PATIENT:
            found["timezone"] = self.header.text(_TIMEZONE, "SH")
        if level is Level.IMAGE:
            found["available_transfer_syntax_uid"] = self.transfer_syntax
        return found


def _universal_issuer(value: bytes) -> str:
    """The universal entity that issued a Patient ID (PS3.3 Table 10-18), from the first item of the sequence."""
    for start, end in items(value, CANONICAL, 0, len(value)):
        found = {
            each.tag: text_of("UT", value[each.start : each.end], ("utf-8",))
            for each in elements(value, CANONICAL, start, end)
            if each.tag in (_UNIVERSAL_ENTITY_ID, _UNIVERSAL_ENTITY_ID_TYPE)
        }
        entity = found.get(_UNIVERSAL_ENTITY_ID, "").replace("\\", "/")
        return f"{entity}\\{found.get(_UNIVERSAL_ENTITY_ID_TYPE, '')}" if entity else ""
    return ""


def record_of(
    source: str | os.PathLike[str] | Buffer,
    transfer_syntax: str | None = None,
    *,
    offset: int = 0,
    path: str | os.PathLike[str] | None = None,
    size: int | None = None,
    digest: str | None = None,
) -> InstanceRecord:
    """Make the record of an instance from its file, or from the octets of its data set.

    The data set is walked through to its end.

    Args:
        source: The path of a Part 10 file; or octets of a data set, which may end where its pixel data begins.
        transfer_syntax: The transfer syntax of octets; a file has its own.
        offset: The offset in octets where the data set begins.
        path: The path of the file, when ``source`` is octets or another path.
        size: The size of the file, when ``source`` is octets and not all of the file.
        digest: The digest of the file. By default, that of a file is computed, and that of octets is left empty.

    Raises:
        InvalidDataSetError: The data set is not whole, or has no SOP Class UID or no SOP Instance UID.
        DataSetError: The file is not a Part 10 file.
        OSError: The file cannot be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview, mmap.mmap)):
        if transfer_syntax is None:
            raise TypeError("octets need a transfer syntax: pass transfer_syntax")
        return InstanceRecord.of(
            walk(source, transfer_syntax, offset, WANTED),
            transfer_syntax,
            path=Path(path or ""),
            size=len(source) if size is None else size,
            digest=digest or "",
        )
    with open(source, "rb") as file:
        meta = read_file_meta(file)
        status = os.fstat(file.fileno())
        return InstanceRecord.of(
            walk_file(file.fileno(), meta.transfer_syntax, meta.offset, WANTED),
            meta.transfer_syntax,
            path=Path(path or source),
            size=status.st_size,
            digest=digest_of_file(Path(source)) if digest is None else digest,
            receipt=Receipt(status.st_mtime, meta.source_ae_title),
        )


def digest_of(data: Buffer) -> str:
    """The digest of the octets of a file, in the form in which the index has it.

    A memory map is read in pieces that are released one after the other, so that a large file is never resident as a
    whole.
    """
    if not isinstance(data, mmap.mmap):
        return "sha256:" + hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    with memoryview(data) as view:
        for start in range(0, len(view), PIECE):
            digest.update(view[start : start + PIECE])
            data.madvise(mmap.MADV_DONTNEED, start, min(PIECE, len(view) - start))
    return "sha256:" + digest.hexdigest()


def digest_of_file(path: Path, check: Callable[[], None] = lambda: None) -> str:
    """The digest of a file, see :func:`digest_of`.

    The file is read, not mapped, because a mapped file that is truncated in the meantime would end the process.

    Args:
        check: Called between pieces of a mebibyte; what it raises ends the reading.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        piece = bytearray(PIECE)
        while count := file.readinto(piece):
            check()
            digest.update(memoryview(piece)[:count])
        if file.tell() == 0:
            raise ValueError("the file is empty")
        if hasattr(os, "posix_fadvise"):
            # Pages that are read only once must not push other pages out of the cache.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return "sha256:" + digest.hexdigest()
