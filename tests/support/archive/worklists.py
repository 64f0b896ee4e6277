"""Worklist items and queries for the tests."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from netdicom_tx import dsutils
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN

OF_STEP = {
    "Modality",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
    "ScheduledProcedureStepLocation",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "ScheduledProcedureStepStatus",
    "ScheduledProtocolCodeSequence",
    "ScheduledStationAETitle",
    "ScheduledStationName",
}


def data_set(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def split(attributes: dict[str, Any]) -> Dataset:
    """A data set whose attributes of the step are in its sequence, if there are any."""
    step = {name: value for name, value in attributes.items() if name in OF_STEP}
    ds = data_set(**{name: value for name, value in attributes.items() if name not in OF_STEP})
    if step:
        ds.ScheduledProcedureStepSequence = Sequence([data_set(**step)])
    return ds


def scheduled(**attributes: Any) -> Dataset:
    """A worklist item with what the standard's type 1 return keys need."""
    return split(
        {
            "PatientName": "Doe^Jane",
            "PatientID": "P1",
            "StudyInstanceUID": "1.2.3",
            "RequestedProcedureID": "R1",
            "RequestedProcedureDescription": "CT abdomen",
            "AccessionNumber": "A1",
            "Modality": "CT",
            "ScheduledStationAETitle": "CT1",
            "ScheduledProcedureStepStartDate": "20261123",
            "ScheduledProcedureStepStartTime": "101500",
            "ScheduledPerformingPhysicianName": "House^Gregory",
            "ScheduledProcedureStepDescription": "Abdomen",
            "ScheduledProcedureStepID": "S1",
            **attributes,
        }
    )


def asking(**keys: Any) -> Dataset:
    """An identifier with these keys, and what is always asked for."""
    return split(
        {
            "PatientName": None,
            "PatientID": None,
            "StudyInstanceUID": None,
            "ScheduledProcedureStepID": None,
            **keys,
        }
    )


def encoded(ds: Dataset) -> bytes:
    return dsutils.encode(ds, EXPLICIT_VR_LITTLE_ENDIAN)


def decoded(data: bytes, transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Dataset:
    return dsutils.decode(data, transfer_syntax)


def received(ds: Dataset) -> Dataset:
    """As it is when it comes over the network."""
    return decoded(encoded(ds))
