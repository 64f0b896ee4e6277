"""A performed procedure step, for the two programs that report one."""

from pydicom.dataset import Dataset


def data_set(**attributes):
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


scheduled = data_set(StudyInstanceUID="1.2.3", AccessionNumber="A-1", ScheduledProcedureStepID="7")
begun = data_set(
    ScheduledStepAttributesSequence=[scheduled],
    PatientName="Doe^Jane",
    PatientID="4711",
    Modality="CT",
    PerformedStationAETitle="CT1",
    PerformedProcedureStepID="1",
    PerformedProcedureStepStartDate="20261123",
    PerformedProcedureStepStartTime="1017",
    PerformedProcedureStepStatus="IN PROGRESS",
)
ended = data_set(
    PerformedProcedureStepStatus="COMPLETED",
    PerformedProcedureStepEndDate="20261123",
    PerformedProcedureStepEndTime="1031",
    PerformedSeriesSequence=[data_set(SeriesInstanceUID="1.2.3.4", ProtocolName="Head")],
)
