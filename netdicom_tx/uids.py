"""SOP classes, transfer syntaxes and other UIDs, by the names of PS3.6 Annex A.

The registry itself is pydicom's; this module picks out of it the groups that services are
registered for, and names what the code of this package mentions.
"""

from __future__ import annotations

import re
from typing import Final

from pydicom._uid_dict import UID_dictionary as _REGISTRY

__all__ = [
    "ALL_TRANSFER_SYNTAXES",
    "APPLICATION_CONTEXT_NAME",
    "COMPOSITE_INSTANCE_ROOT_GET_SOP_CLASS",
    "COMPOSITE_INSTANCE_ROOT_MOVE_SOP_CLASS",
    "COMPRESSED_TRANSFER_SYNTAXES",
    "DEFAULT_TRANSFER_SYNTAXES",
    "DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN",
    "DEFLATED_TRANSFER_SYNTAXES",
    "EXPLICIT_VR_BIG_ENDIAN",
    "EXPLICIT_VR_LITTLE_ENDIAN",
    "FIND_SOP_CLASSES",
    "GET_SOP_CLASSES",
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "IMPLICIT_VR_LITTLE_ENDIAN",
    "MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS",
    "MOVE_SOP_CLASSES",
    "PATIENT_ROOT_FIND_SOP_CLASS",
    "PATIENT_ROOT_GET_SOP_CLASS",
    "PATIENT_ROOT_MOVE_SOP_CLASS",
    "PATIENT_STUDY_ONLY_FIND_SOP_CLASS",
    "PATIENT_STUDY_ONLY_GET_SOP_CLASS",
    "PATIENT_STUDY_ONLY_MOVE_SOP_CLASS",
    "STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS",
    "STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE",
    "STORAGE_SOP_CLASSES",
    "STUDY_ROOT_FIND_SOP_CLASS",
    "STUDY_ROOT_GET_SOP_CLASS",
    "STUDY_ROOT_MOVE_SOP_CLASS",
    "VERIFICATION_SOP_CLASS",
    "WITHOUT_BULK_DATA_GET_SOP_CLASS",
    "is_uid_like",
    "is_valid_uid",
    "name",
]

APPLICATION_CONTEXT_NAME: Final = "1.2.840.10008.3.1.1.1"

# A UUID-derived UID (PS3.5 B.2): it needs no registration authority. Fixed for good: peers use
# it to recognise the implementation (PS3.7 D.3.3.2).
IMPLEMENTATION_CLASS_UID: Final = "2.25.16708323153827991038189547129953292518"
IMPLEMENTATION_VERSION_NAME: Final = "NETDICOM_TX_0.1"

VERIFICATION_SOP_CLASS: Final = "1.2.840.10008.1.1"
STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS: Final = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE: Final = "1.2.840.10008.1.20.1.1"

PATIENT_ROOT_FIND_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_STUDY_ONLY_FIND_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.3.1"
PATIENT_STUDY_ONLY_MOVE_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.3.2"
PATIENT_STUDY_ONLY_GET_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.3.3"
# PS3.4 Annexes Y and Z: instances and parts of them by UID; instances without their bulk data.
COMPOSITE_INSTANCE_ROOT_MOVE_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.4.2"
COMPOSITE_INSTANCE_ROOT_GET_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.4.3"
WITHOUT_BULK_DATA_GET_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.2.5.3"
MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS: Final = "1.2.840.10008.5.1.4.31"

FIND_SOP_CLASSES: Final = (
    PATIENT_ROOT_FIND_SOP_CLASS,
    STUDY_ROOT_FIND_SOP_CLASS,
    PATIENT_STUDY_ONLY_FIND_SOP_CLASS,
)
MOVE_SOP_CLASSES: Final = (
    PATIENT_ROOT_MOVE_SOP_CLASS,
    STUDY_ROOT_MOVE_SOP_CLASS,
    PATIENT_STUDY_ONLY_MOVE_SOP_CLASS,
)
GET_SOP_CLASSES: Final = (
    PATIENT_ROOT_GET_SOP_CLASS,
    STUDY_ROOT_GET_SOP_CLASS,
    PATIENT_STUDY_ONLY_GET_SOP_CLASS,
)

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

# Explicit before implicit: it keeps the VR of private elements.
DEFAULT_TRANSFER_SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
# JPIP Referenced Deflate is deflated in the same way (PS3.5 A.7).
DEFLATED_TRANSFER_SYNTAXES: Final = (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.205",
)

# Storage-like in name, but other services, or of a time before DICOM storage had instances.
_NOT_STORAGE = {
    STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS,
    "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model (retired)
    "1.2.840.10008.1.3.10",  # Media Storage Directory: media only (PS3.10)
    "1.2.840.10008.5.1.1.27",  # Stored Print Storage (retired): print management
}

# Classes of PS3.6 that are newer than the registry of the oldest pydicom we support.
_NEWER_STORAGE = (
    "1.2.840.10008.5.1.4.1.1.9.100.1",  # Waveform Presentation State
    "1.2.840.10008.5.1.4.1.1.9.100.2",  # Waveform Acquisition Presentation State
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.66.8",  # Height Map Segmentation
    "1.2.840.10008.5.1.4.1.1.601.3",  # Thermography Image
    "1.2.840.10008.5.1.4.1.1.601.4",  # Thermography Multi-frame Image
    "1.2.840.10008.5.1.4.1.1.601.5",  # Ultrasound Waveform
)


def _storage(retired: str) -> tuple[str, ...]:
    return tuple(
        uid
        for uid, (title, kind, _, flag, _) in _REGISTRY.items()
        if kind == "SOP Class"
        and "Storage" in title
        and flag == retired
        and uid not in _NOT_STORAGE
    )


#: Every storage SOP class of PS3.4 B.5, B.6 and GG.3, the current ones before the retired.
STORAGE_SOP_CLASSES: Final = tuple(
    dict.fromkeys((*_storage(""), *_NEWER_STORAGE, *_storage("Retired")))
)

# Transfer syntaxes of PS3.6 that are newer than the registry of the oldest pydicom we support.
_NEWER_TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
)

#: Every transfer syntax of PS3.6, retired ones included: pydicom's, then those newer than it.
ALL_TRANSFER_SYNTAXES: Final = tuple(
    dict.fromkeys(
        (
            *(uid for uid, (_, kind, *_) in _REGISTRY.items() if kind == "Transfer Syntax"),
            *_NEWER_TRANSFER_SYNTAXES,
        )
    )
)

_UNCOMPRESSED = {
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.20",  # Papyrus 3 (retired): implicit VR
}
#: Transfer syntaxes that encapsulate pixel data (PS3.5 A.4).
COMPRESSED_TRANSFER_SYNTAXES: Final = tuple(
    uid for uid in ALL_TRANSFER_SYNTAXES if uid not in _UNCOMPRESSED
)

_COMMON = re.compile(r"Image|SR |RT |Presentation State|Segmentation|PDF|Key Object|Waveform|ECG")


def is_rare(storage_sop_class: str) -> bool:
    """Whether a storage SOP class gives way where there is no room for all of them."""
    entry = _REGISTRY.get(storage_sop_class)
    return entry is None or entry[3] == "Retired" or _COMMON.search(entry[0]) is None


_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*", re.ASCII)


def is_valid_uid(uid: str) -> bool:
    """Whether this is a UID: 1 to 64 characters, components without leading zeros (PS3.5 9.1)."""
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def is_uid_like(uid: str) -> bool:
    """Whether peers in the field would take this for a UID: 1 to 64 digits and dots.

    Some devices send components with leading zeros; their instances are worth keeping.
    """
    return 0 < len(uid) <= 64 and not uid.strip("0123456789.")


def name(uid: str) -> str:
    """The registered name of a UID, or the UID itself when it has none (private classes)."""
    entry = _REGISTRY.get(uid)
    # Some retired entries of the registry have no name.
    return (entry and entry[0]) or uid
