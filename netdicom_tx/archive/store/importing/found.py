"""What is known of a file that is imported, and what becomes of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

from ....encoding import Coding
from ...encoded.elements import Element
from ...index.record import InstanceRecord, KeptHeader, Receipt
from ..filestore import Outcome

__all__ = ["IN_ARCHIVE", "OF_OUTCOME", "Found", "Mark", "Source", "Taken", "What"]


class Source(Enum):
    """What becomes of the files that are imported.

    Attributes:
        COPY: Their data sets are copied, behind a header of our own, as those of instances that are sent.
        LINK: They get a second name, and no octet is copied; where that is not possible, they are copied.
        MOVE: The same, and their first name is removed when the instance is on the disk for good.
    """

    COPY = "copy"
    LINK = "link"
    MOVE = "move"


class What(Enum):
    """What has become of a file.

    Attributes:
        STORED: It is a new instance.
        SAME: The instance was here, with the same content.
        REPLACED: It is stored in the place of other content.
        ASIDE: It is kept aside as a version.
        REFUSED: Other content is here, and stays.
        SKIPPED: It is not an instance: not a DICOM file, or a DICOMDIR.
        FAILED: It cannot be read, is damaged, or is not an instance that a node stores.
    """

    STORED = "stored"
    SAME = "same"
    REPLACED = "replaced"
    ASIDE = "aside"
    REFUSED = "refused"
    SKIPPED = "skipped"
    FAILED = "failed"


OF_OUTCOME: Final = {
    Outcome.STORED: What.STORED,
    Outcome.SAME: What.SAME,
    Outcome.REPLACED: What.REPLACED,
    Outcome.ASIDE: What.ASIDE,
    Outcome.REFUSED: What.REFUSED,
}
IN_ARCHIVE: Final = frozenset((What.STORED, What.SAME, What.REPLACED, What.ASIDE))


class Taken(NamedTuple):
    """A file that was looked at.

    Attributes:
        path: The path of the file.
        octets: Its size.
        sop_instance_uid: Its SOP Instance UID; empty when it is not an instance.
        reason: Why it was not taken, or why its first name could not be removed.
        is_linked: Whether the archive has a second name of the file, and not a copy.
        is_removed: Whether the first name is gone.
    """

    path: str
    what: What
    octets: int = 0
    sop_instance_uid: str = ""
    reason: str = ""
    is_linked: bool = False
    is_removed: bool = False


class Mark(NamedTuple):
    """What tells a file from one that takes its name later."""

    device: int
    inode: int
    modified: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        return cls(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


@dataclass(slots=True)
class Found:
    """A file on its way from a process to this one.

    Attributes:
        what: None when :meth:`FileStore.keep` must decide.
        original: What it was when it was read.
        temporary: The path of the octets; empty when the original gets a second name.
        named: The file that got the name in the archive, as (device, inode).
    """

    path: str
    what: What | None
    original: Mark | None = None
    sop_instance_uid: str = ""
    reason: str = ""
    record: InstanceRecord | None = None
    temporary: str = ""
    named: tuple[int, int] | None = None
    is_linked: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        # As plain tuples it is pickled in a third of the time, and ten thousand of them a second are.
        what = None if self.what is None else self.what.value
        original = None if self.original is None else tuple(self.original)
        record = None if self.record is None else _flat(self.record)
        rest = self.sop_instance_uid, self.reason, self.temporary, self.named, self.is_linked
        return _unflattened, (self.path, what, original, record, rest)

    def taken(self) -> Taken:
        assert self.what is not None
        octets = 0 if self.original is None else self.original.size
        return Taken(
            *(self.path, self.what, octets, self.sop_instance_uid, self.reason, self.is_linked)
        )


def _flat(record: InstanceRecord) -> tuple[Any, ...]:
    header = record.header
    elements = [tuple(each) for each in header.elements.values()]
    return (
        *(record.sop_class_uid, record.sop_instance_uid, record.transfer_syntax),
        *(record.patient_id, record.study_instance_uid, record.series_instance_uid),
        *(str(record.path), record.size, record.digest, record.packed, tuple(record.receipt)),
        *(header.data, elements, tuple(header.coding)),
    )


def _unflattened(
    path: str,
    what: str | None,
    original: tuple[int, int, int, int] | None,
    flat: tuple[Any, ...] | None,
    rest: tuple[str, str, str, tuple[int, int] | None, bool],
) -> Found:
    sop_instance_uid, reason, temporary, named, is_linked = rest
    record = None
    if flat is not None:
        *identity, file, size, digest, packed, receipt, data, elements, coding = flat
        by_tag = {each[0]: Element._make(each) for each in elements}
        sop_class_uid, uid, transfer_syntax, patient_id, study_uid, series_uid = identity
        record = InstanceRecord(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=uid,
            transfer_syntax=transfer_syntax,
            patient_id=patient_id,
            study_instance_uid=study_uid,
            series_instance_uid=series_uid,
            path=Path(file),
            size=size,
            digest=digest,
            header=KeptHeader(data, by_tag, Coding._make(coding)),
            packed=packed,
            receipt=Receipt._make(receipt),
        )
    return Found(
        path,
        None if what is None else What(what),
        None if original is None else Mark._make(original),
        sop_instance_uid,
        reason,
        record,
        temporary,
        named,
        is_linked,
    )
