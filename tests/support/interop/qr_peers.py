"""Pynetdicom's archive, ``qrscp``, and DCMTK's worklist, ``wlmscpfs``.

``wlmscpfs`` cannot be bound to one interface; what it gives out are made-up patients.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from ..node import Address
from ..processes import Process, accepts_connections, free_port, need_pynetdicom, program


class PynetdicomQRSCP:
    """``python -m pynetdicom qrscp`` with its own database; bound to 127.0.0.1."""

    ae_title = "QRSCP"

    def __init__(self, directory: Path, destinations: Mapping[str, int]) -> None:
        need_pynetdicom()
        port = free_port()
        self.address = Address(self.ae_title, port)
        directory.mkdir(parents=True, exist_ok=True)
        storage = directory / "instances"
        configuration = directory / "qrscp.ini"
        configuration.write_text(
            "[DEFAULT]\n"
            f"ae_title: {self.ae_title}\nport: {port}\nmax_pdu: 0\nacse_timeout: 30\n"
            "dimse_timeout: 30\nnetwork_timeout: 30\nbind_address: 127.0.0.1\n"
            f"instance_location: {storage}\ndatabase_location: {directory / 'db.sqlite'}\n"
            "log_identifier: True\n"
            + "".join(
                f"[{title}]\naddress: 127.0.0.1\nport: {at}\n" for title, at in destinations.items()
            )
        )
        self._process = Process(
            directory / "qrscp.log",
            *(sys.executable, "-m", "pynetdicom", "qrscp", "--config", configuration),
        )
        self._process.ready(lambda: accepts_connections(port), "pynetdicom qrscp")

    def close(self) -> None:
        self._process.kill()


class WlmSCPFS:
    """DCMTK's worklist, answered from files.

    Args:
        entries: Patient's name and modality of each step.
    """

    ae_title = "WORKLIST"

    def __init__(self, directory: Path, entries: Iterable[tuple[str, str]], *options: str) -> None:
        files = directory / self.ae_title
        files.mkdir(parents=True)
        (files / "lockfile").touch()
        for number, (name, modality) in enumerate(entries):
            worklist_entry(number, name, modality).save_as(
                files / f"{number}.wl", enforce_file_format=True
            )
        port = free_port()
        self.address = Address(self.ae_title, port)
        self._process = Process(
            directory / "wlmscpfs.log",
            program("wlmscpfs"),
            "--data-files-path",
            directory,
            *options,
            str(port),
        )
        self._process.ready(lambda: accepts_connections(port), "wlmscpfs")

    def close(self) -> None:
        self._process.kill()


def worklist_entry(number: int, name: str, modality: str) -> Dataset:
    """A scheduled procedure step with what wlmscpfs requires (PS3.4 Table K.6-1, return type 1)."""
    entry = Dataset()
    entry.file_meta = FileMetaDataset()
    entry.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    entry.file_meta.MediaStorageSOPClassUID = UID("1.2.276.0.7230010.3.1.0.1")
    entry.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    entry.AccessionNumber = f"A{number}"
    entry.PatientName = name
    entry.PatientID = f"ID{number}"
    entry.PatientBirthDate = "19700101"
    entry.PatientSex = "O"
    entry.StudyInstanceUID = f"1.2.3.{number}"
    entry.RequestedProcedureDescription = "HEAD"
    entry.RequestedProcedureID = f"R{number}"
    step = Dataset()
    step.Modality = modality
    step.ScheduledStationAETitle = f"{modality}1"
    step.ScheduledProcedureStepStartDate = f"2026010{number % 9 + 1}"
    step.ScheduledProcedureStepStartTime = "120000"
    step.ScheduledPerformingPhysicianName = "DOC^TOR"
    step.ScheduledProcedureStepDescription = "HEAD"
    step.ScheduledProcedureStepID = f"S{number}"
    entry.ScheduledProcedureStepSequence = [step]
    return entry
