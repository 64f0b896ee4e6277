"""What the index keeps of an instance, taken from its encoded data set."""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...dsutils import read_file_meta
from ...encoding import Buffer, Coding, DataSetError, coding_of
from ..encoded.elements import CANONICAL, Element
from ..encoded.recode import recode
from ..encoded.values import codecs_of, keys_of, text_of
from ..encoded.walk import InvalidDataSetError, Walked, elements, find, items, walk
from .schema import ATTRIBUTES, Level, attributes_of

__all__ = ["NO_HEADER", "WANTED", "InstanceRecord", "KeptHeader", "digest_of", "record_of"]

# Octets of a file that are hashed at a time; a multiple of the page size.
_PIECE: Final = 1 << 22

_CHARACTER_SET, _TIMEZONE = 0x00080005, 0x00080201
_UNIVERSAL_ENTITY_ID, _UNIVERSAL_ENTITY_ID_TYPE = 0x00400032, 0x00400033
#: The tags of the elements that an instance's record is made of.
WANTED: Final = frozenset((_CHARACTER_SET, _TIMEZONE, *ATTRIBUTES))
_BY_LEVEL: Final = {level: attributes_of(level) for level in Level}
#: The columns of attributes that are not there.
_EMPTY: Final[Mapping[Level, Mapping[str, Any]]] = {
    level: {
        name: None if each.vr == "SQ" else ""
        for each in _BY_LEVEL[level]
        for name in (each.column, *each.key_columns)
    }
    for level in Level
}


class KeptHeader:
    """A data set up to its pixel data, without long values.

    Attributes:
        data: Encoded as it came, but inflated.
        elements: At the top level, of the tags of interest and not empty; positions are in ``data``.
        codecs: Of its text (0008,0005).
    """

    __slots__ = ("codecs", "coding", "data", "elements")

    def __init__(self, data: bytes, found: dict[int, Element], coding: Coding) -> None:
        self.data = data
        self.elements = found
        self.coding = coding
        self.codecs: tuple[str, ...] = ()
        terms = self.text(_CHARACTER_SET, "CS")
        self.codecs = codecs_of(tuple(terms.split("\\")) if terms else ())

    @classmethod
    def of(cls, packed: bytes, transfer_syntax: str, wanted: Collection[int]) -> KeptHeader:
        """Of what stands in the index.

        Args:
            wanted: The tags of interest.
        """
        data = zlib.decompress(packed, -zlib.MAX_WBITS)
        tags = {_CHARACTER_SET, *wanted}
        coding = coding_of(transfer_syntax)
        return cls(data, find(data, coding, tags), coding)

    def text(self, tag: int, vr: str) -> str:
        """The text of an attribute that is no sequence; empty when it is not there."""
        element = self.elements.get(tag)
        if element is None:
            return ""
        value = self.data[element.start : element.end]
        return text_of(vr, value, self.codecs, little_endian=self.coding.little)

    def items(self, tag: int) -> bytes:
        """The items of a sequence, in explicit VR little endian and UTF-8.

        Nothing when it is not there, or damaged inside.
        """
        element = self.elements.get(tag)
        if element is None or element.vr != "SQ":
            return b""
        try:
            return recode(self.data, element, self.codecs, CANONICAL)
        except DataSetError:
            return b""


#: Of an instance of which nothing is known.
NO_HEADER: Final = KeptHeader(b"", {}, CANONICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One instance, as :meth:`Index.add <netdicom_tx.archive.index.index.Index.add>` takes it.

    Attributes:
        path: Where its file is.
        size: Octets of the file.
        digest: ``sha256:`` and hexadecimal digits, of the file; empty when nobody computed it.
        packed: The header, deflated: what stands in the index of it.
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

    @classmethod
    def of(
        cls, walked: Walked, transfer_syntax: str, *, path: Path, size: int, digest: str
    ) -> InstanceRecord:
        """The record of an instance that has been walked through with the tags :data:`WANTED`.

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
        )

    @property
    def identity(self) -> str:
        """Who the patient is: Patient ID with its issuer, (0010,0021) and (0010,0024).

        Two hospitals may give one ID to two people. Without an ID the study says who it is: two people
        without an ID are not one person. A value has no backslash (PS3.5 6.2), so it separates the parts.
        """
        if not self.patient_id:
            return f"\\{self.study_instance_uid}"
        issuer = self.header.text(0x00100021, "LO")
        universal = _universal_issuer(self.header.items(0x00100024))
        return "\\".join((self.patient_id, issuer, universal)).rstrip("\\")

    @property
    def has_series(self) -> bool:
        """False for what belongs to no patient, such as a colour palette."""
        return bool(self.study_instance_uid and self.series_instance_uid)

    def values(self, level: Level) -> dict[str, Any]:
        """The columns of a level's table that come from attributes."""
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
    """The universal entity that issued a Patient ID (PS3.3 Table 10-18), of the sequence's first item."""
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
    """What the index keeps of an instance.

    All of it is walked through, to see that it is whole.

    Args:
        source: A Part 10 file; or octets of a data set, which may end where its pixel data begins.
        transfer_syntax: Of octets.
        offset: Where the data set begins in octets.
        path: Where the file is; ``source`` when that is one.
        size: Octets of the file; of octets their number when not given.
        digest: Of the file; of a file it is computed when not given.

    Raises:
        InvalidDataSetError: It is no whole data set, or has no SOP Class or Instance UID.
        DataSetError: The file is no Part 10 file.
        OSError: The file cannot be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview, mmap.mmap)):
        if transfer_syntax is None:
            raise TypeError("octets need their transfer syntax")
        return InstanceRecord.of(
            walk(source, transfer_syntax, offset, WANTED),
            transfer_syntax,
            path=Path(path or ""),
            size=len(source) if size is None else size,
            digest=digest or "",
        )
    with open(source, "rb") as file:
        meta = read_file_meta(file)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return InstanceRecord.of(
                walk(view, meta.transfer_syntax, meta.offset, WANTED),
                meta.transfer_syntax,
                path=Path(path or source),
                size=len(view),
                digest=digest_of(view) if digest is None else digest,
            )


def digest_of(data: Buffer) -> str:
    """The digest of a file's octets, as it stands in the index.

    In pieces, and of a memory map each is given back: else a large file would be resident whole.
    """
    if not isinstance(data, mmap.mmap):
        return "sha256:" + hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    with memoryview(data) as view:
        for start in range(0, len(view), _PIECE):
            digest.update(view[start : start + _PIECE])
            data.madvise(mmap.MADV_DONTNEED, start, min(_PIECE, len(view) - start))
    return "sha256:" + digest.hexdigest()
