"""SOP classes, transfer syntaxes and other UIDs of PS3.6 Annex A, and what makes a UID.

Every UID that a network service names is here under its keyword in PS3.6 Table A-1:
``uids.CTImageStorage``, ``uids.JPEG2000Lossless``, ``uids.ModalityPerformedProcedureStep``. The
constants are plain strings. This module adds the groups of them that services are registered for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from . import _registry
from ._registry import *  # noqa: F403  # every constant, for those who import it from here

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
    "META_SOP_CLASSES",
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
    "UNCOMPRESSED_TRANSFER_SYNTAXES",
    "VERIFICATION_SOP_CLASS",
    "WITHOUT_BULK_DATA_GET_SOP_CLASS",
    "as_tuple",
    "is_everywhere",
    "is_rare",
    "is_uid_like",
    "is_valid_uid",
    "name",
    "rarity",
]

__all__ += _registry.__all__

APPLICATION_CONTEXT_NAME: Final = _registry.DICOMApplicationContext

# A UUID-derived UID (PS3.5 B.2) needs no registration authority. This one never changes: peers use
# it to recognise the implementation (PS3.7 D.3.3.2).
IMPLEMENTATION_CLASS_UID: Final = "2.25.16708323153827991038189547129953292518"
IMPLEMENTATION_VERSION_NAME: Final = "NETDICOM_TX_0.1"

VERIFICATION_SOP_CLASS: Final = _registry.Verification
STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS: Final = _registry.StorageCommitmentPushModel
STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE: Final = _registry.StorageCommitmentPushModelInstance

PATIENT_ROOT_FIND_SOP_CLASS: Final = _registry.PatientRootQueryRetrieveInformationModelFind
PATIENT_ROOT_MOVE_SOP_CLASS: Final = _registry.PatientRootQueryRetrieveInformationModelMove
PATIENT_ROOT_GET_SOP_CLASS: Final = _registry.PatientRootQueryRetrieveInformationModelGet
STUDY_ROOT_FIND_SOP_CLASS: Final = _registry.StudyRootQueryRetrieveInformationModelFind
STUDY_ROOT_MOVE_SOP_CLASS: Final = _registry.StudyRootQueryRetrieveInformationModelMove
STUDY_ROOT_GET_SOP_CLASS: Final = _registry.StudyRootQueryRetrieveInformationModelGet
PATIENT_STUDY_ONLY_FIND_SOP_CLASS: Final = (
    _registry.PatientStudyOnlyQueryRetrieveInformationModelFind
)
PATIENT_STUDY_ONLY_MOVE_SOP_CLASS: Final = (
    _registry.PatientStudyOnlyQueryRetrieveInformationModelMove
)
PATIENT_STUDY_ONLY_GET_SOP_CLASS: Final = _registry.PatientStudyOnlyQueryRetrieveInformationModelGet
# PS3.4 Annexes Y and Z: instances and parts of them by UID; instances without their bulk data.
COMPOSITE_INSTANCE_ROOT_MOVE_SOP_CLASS: Final = _registry.CompositeInstanceRootRetrieveMove
COMPOSITE_INSTANCE_ROOT_GET_SOP_CLASS: Final = _registry.CompositeInstanceRootRetrieveGet
WITHOUT_BULK_DATA_GET_SOP_CLASS: Final = _registry.CompositeInstanceRetrieveWithoutBulkDataGet
MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS: Final = (
    _registry.ModalityWorklistInformationModelFind
)

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

IMPLICIT_VR_LITTLE_ENDIAN: Final = _registry.ImplicitVRLittleEndian
EXPLICIT_VR_LITTLE_ENDIAN: Final = _registry.ExplicitVRLittleEndian
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = _registry.DeflatedExplicitVRLittleEndian
EXPLICIT_VR_BIG_ENDIAN: Final = _registry.ExplicitVRBigEndian

# Explicit before implicit, because it keeps the VR of private elements.
DEFAULT_TRANSFER_SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
#: Those that say the same in different ways, the best first (PS3.5 A.1, A.2, A.3, A.5): explicit VR keeps the VR of
#: every element, and big endian is retired.
UNCOMPRESSED_TRANSFER_SYNTAXES: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
# JPIP Referenced Deflate is deflated in the same way (PS3.5 A.7).
DEFLATED_TRANSFER_SYNTAXES: Final = (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    _registry.JPIPReferencedDeflate,
    _registry.JPIPHTJ2KReferencedDeflate,
)

# These have "Storage" in their names but belong to other services.
_NOT_STORAGE = {
    _registry.StorageCommitmentPushModel,
    _registry.StorageCommitmentPullModel,
    _registry.MediaStorageDirectoryStorage,  # media only (PS3.10)
    _registry.StoredPrintStorage,  # print management
}


def _storage(*, retired: bool) -> tuple[str, ...]:
    return tuple(
        uid
        for uid, (title, kind, is_retired) in _registry.REGISTRY.items()
        if kind == "SOP Class"
        and "Storage" in title
        and is_retired == retired
        and uid not in _NOT_STORAGE
    )


#: Every storage SOP class of PS3.4 B.5, B.6 and GG.3, the current ones before the retired ones.
STORAGE_SOP_CLASSES: Final = (*_storage(retired=False), *_storage(retired=True))

#: Every meta SOP class of PS3.6, including the retired ones.
META_SOP_CLASSES: Final = frozenset(
    uid for uid, (_, kind, _) in _registry.REGISTRY.items() if kind == "Meta SOP Class"
)

#: Every transfer syntax of PS3.6, including the retired ones.
ALL_TRANSFER_SYNTAXES: Final = tuple(
    uid for uid, (_, kind, _) in _registry.REGISTRY.items() if kind == "Transfer Syntax"
)

_NOT_ENCAPSULATED = {*UNCOMPRESSED_TRANSFER_SYNTAXES, _registry.Papyrus3ImplicitVRLittleEndian}
#: Transfer syntaxes that encapsulate pixel data (PS3.5 A.4).
COMPRESSED_TRANSFER_SYNTAXES: Final = tuple(
    uid for uid in ALL_TRANSFER_SYNTAXES if uid not in _NOT_ENCAPSULATED
)

# What every site has, the most frequent first.
_EVERYWHERE = (
    _registry.CTImageStorage,
    _registry.MRImageStorage,
    _registry.UltrasoundImageStorage,
    _registry.UltrasoundMultiFrameImageStorage,
    _registry.ComputedRadiographyImageStorage,
    _registry.DigitalXRayImageStorageForPresentation,
    _registry.DigitalMammographyXRayImageStorageForPresentation,
    _registry.SecondaryCaptureImageStorage,
    _registry.XRayAngiographicImageStorage,
    _registry.XRayRadiofluoroscopicImageStorage,
    _registry.NuclearMedicineImageStorage,
    _registry.PositronEmissionTomographyImageStorage,
    _registry.RTImageStorage,
    _registry.RTDoseStorage,
    _registry.RTStructureSetStorage,
    _registry.RTPlanStorage,
    _registry.EnhancedSRStorage,
    _registry.XRayRadiationDoseSRStorage,
    _registry.GrayscaleSoftcopyPresentationStateStorage,
    _registry.KeyObjectSelectionDocumentStorage,
    _registry.EncapsulatedPDFStorage,
    _registry.SegmentationStorage,
)
_COMMON = re.compile(r"Image|SR |RT |Presentation State|Segmentation|PDF|Key Object|Waveform|ECG")
_SPECIAL = re.compile(
    r"DICOS|Eddy|Confocal|Photoacoustic|Volum|Electro|Respiratory|Body Position|Extensible|Imaging Agent"
    r"|Brachy|Instruction|Radiation (Set|Record|Salvage)|Intent|Preparation|Segment Annotation"
)
# Standardized since 2024: few devices make them yet.
_TOO_NEW = {
    _registry.WaveformPresentationStateStorage,
    _registry.WaveformAcquisitionPresentationStateStorage,
    _registry.LabelMapSegmentationStorage,
    _registry.HeightMapSegmentationStorage,
    _registry.ThermographyImageStorage,
    _registry.ThermographyMultiFrameImageStorage,
    _registry.UltrasoundWaveformStorage,
}


def is_everywhere(storage_sop_class: str) -> bool:
    """Whether every site has instances of a storage SOP class."""
    return storage_sop_class in _EVERYWHERE


def is_rare(storage_sop_class: str) -> bool:
    """Whether a storage SOP class gives way when there is no room for all of them."""
    title, _, is_retired = _registry.REGISTRY.get(storage_sop_class, ("", "", True))
    return is_retired or storage_sop_class in _TOO_NEW or _COMMON.search(title) is None


def rarity(storage_sop_class: str) -> int:
    """A key that sorts storage SOP classes by how many sites have instances of them, the most common first."""
    if storage_sop_class in _EVERYWHERE:
        return _EVERYWHERE.index(storage_sop_class)
    title, _, _ = _registry.REGISTRY.get(storage_sop_class, ("", "", True))
    is_special = _SPECIAL.search(title) is not None
    return len(_EVERYWHERE) + is_special + 2 * is_rare(storage_sop_class)


_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*", re.ASCII)


def is_valid_uid(uid: str) -> bool:
    """Whether this is a UID: 1 to 64 characters, components without leading zeros (PS3.5 9.1)."""
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def is_uid_like(uid: str) -> bool:
    """Whether peers in the field would take this for a UID: 1 to 64 digits and dots.

    Some devices send components with leading zeros; their instances are worth keeping.
    """
    return 0 < len(uid) <= 64 and not uid.strip("0123456789.")


def as_tuple(argument: str, value: Iterable[str], *, besides: str = "") -> tuple[str, ...]:
    """Check an argument that is a list of UIDs, and copy it.

    A string is an iterable of strings too, so a list that was forgotten around one UID would
    silently become a list of characters.

    Args:
        argument: The name of the argument, for the error message.
        value: The UIDs, in the caller's order.
        besides: A word that may stand in the list instead of a UID.

    Raises:
        TypeError: ``value`` is a string, is not iterable, or holds something that is not a string.
        ValueError: A string in it is not a UID.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(
            f"{argument} is a list or tuple of UIDs, such as [uids.CTImageStorage], not {value!r:.80}"
        )
    checked = tuple(value)
    for each in checked:
        if not isinstance(each, str):
            raise TypeError(f"{argument} holds {each!r:.80}; expected UIDs, which are strings")
        if not is_uid_like(each) and not (besides and each == besides):
            raise ValueError(
                f"{argument} holds {each!r:.80}, which is not a UID; expected 1 to 64 digits and dots, "
                "or a constant such as uids.CTImageStorage"
            )
    return checked


def name(uid: str) -> str:
    """The registered name of a UID, or the UID itself when it has none (private classes)."""
    # Two retired SOP classes of the registry have no name.
    return _registry.REGISTRY.get(uid, ("",))[0] or uid
