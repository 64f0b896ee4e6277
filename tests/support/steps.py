"""Performed procedure steps, as modalities make them."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

UID = "1.2.826.0.1.3680043.10.1"


def data_set(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def new_step(**attributes: Any) -> Dataset:
    """What a modality sends first: every attribute of type 1, and none more."""
    scheduled = data_set(StudyInstanceUID="1.2.3", AccessionNumber="A1")
    return data_set(
        **{
            "ScheduledStepAttributesSequence": Sequence([scheduled]),
            "PatientName": "Doe^Jane",
            "PerformedProcedureStepID": "P1",
            "PerformedStationAETitle": "CT1",
            "PerformedProcedureStepStartDate": "20261123",
            "PerformedProcedureStepStartTime": "101500",
            "PerformedProcedureStepStatus": "IN PROGRESS",
            "Modality": "CT",
            "PerformedSeriesSequence": Sequence(),
            **attributes,
        }
    )


def performed_series(**attributes: Any) -> Sequence:
    image = data_set(
        ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID="1.2.3.4"
    )
    return Sequence(
        [
            data_set(
                **{
                    "ProtocolName": "Abdomen",
                    "SeriesInstanceUID": "1.2.3.1",
                    "ReferencedImageSequence": Sequence([image]),
                    **attributes,
                }
            )
        ]
    )


def final(state: str = "COMPLETED", **attributes: Any) -> Dataset:
    """What a modality sends last."""
    return data_set(
        **{
            "PerformedProcedureStepStatus": state,
            "PerformedProcedureStepEndDate": "20261123",
            "PerformedProcedureStepEndTime": "103000",
            "PerformedSeriesSequence": performed_series(),
            **attributes,
        }
    )


def without(ds: Dataset, *keywords: str) -> Dataset:
    for keyword in keywords:
        delattr(ds, keyword)
    return ds
