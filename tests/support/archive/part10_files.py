"""Part 10 files in directories, as other systems have written them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN

from .patients import data_set
from .records import CT_IMAGE_STORAGE

__all__ = ["facts", "octets_of", "write"]


def octets_of(uid: str, pixels: int = 512, **values: Any) -> bytes:
    """The data set of an instance of patient P, study 2.1 and series 3.1, unless it says another."""
    made = data_set(
        **{
            "SOPClassUID": CT_IMAGE_STORAGE,
            "SOPInstanceUID": uid,
            "StudyDate": "20261128",
            "Modality": "CT",
            "StudyDescription": "HEAD",
            "PatientName": "DOE^JANE",
            "PatientID": "P",
            "StudyInstanceUID": "2.1",
            "SeriesInstanceUID": "3.1",
            "StudyID": "1",
            "SeriesNumber": "1",
            "InstanceNumber": "1",
            **values,
        }
    )
    octets = encode(made, EXPLICIT_VR_LITTLE_ENDIAN)
    return octets + b"\xe0\x7f\x10\x00OW\0\0" + pixels.to_bytes(4, "little") + bytes(pixels)


def write(path: Path, uid: str, *, header_uid: str = "", pixels: int = 512, **values: Any) -> Path:
    """Write the file of an instance, with its folders.

    Args:
        header_uid: The SOP Instance UID of the header; by default it is that of the data set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = octets_of(uid, pixels, **values)
    sop_class = values.get("SOPClassUID", CT_IMAGE_STORAGE)
    header = part10_header(sop_class, header_uid or uid, EXPLICIT_VR_LITTLE_ENDIAN)
    path.write_bytes(header + data)
    return path


def facts(directory: Path) -> dict[str, tuple[str, int, int]]:
    """The digest, the time and the mode of each file below a directory."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
        for path in directory.rglob("*")
        if path.is_file()
    }
