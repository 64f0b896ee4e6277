"""Records of instances, put straight into an index."""

from __future__ import annotations

from typing import Any

from netdicom_tx.archive.index.index import Index, InstanceRecord, record_of
from netdicom_tx.dsutils import encode
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN

from .patients import data_set

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def record(uid: str = "1.1", path: str = "/files/a.dcm", **values: Any) -> InstanceRecord:
    """An instance of patient P, study 2.1 and series 3.1, unless it says another."""
    made = data_set(
        **{
            "SOPClassUID": CT_IMAGE_STORAGE,
            "SOPInstanceUID": uid,
            "PatientID": "P",
            "StudyInstanceUID": "2.1",
            "SeriesInstanceUID": "3.1",
            **values,
        }
    )
    octets = encode(made, EXPLICIT_VR_LITTLE_ENDIAN)
    return record_of(octets, EXPLICIT_VR_LITTLE_ENDIAN, path=path, size=1000)


def add(index: Index, *records: InstanceRecord) -> None:
    for future in [index.add(each) for each in records]:
        future.result(timeout=30)
