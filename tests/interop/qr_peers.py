"""Archives and a worklist of others, to be queried: DCMTK's ``dcmqrscp`` and ``wlmscpfs``, pynetdicom's ``qrscp``.

``dcmqrscp`` and ``wlmscpfs`` cannot be bound to one interface. So ``dcmqrscp`` serves only the AE
titles that it is told, each only from 127.0.0.1, and both hold made-up patients only.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from .peers import (
    OUR_SCU,
    Address,
    Process,
    accepts_connections,
    free_port,
    need_pynetdicom,
    program,
    succeed,
)


class DcmQRSCP:
    """DCMTK's archive, with its own directory.

    Args:
        destinations: AE title -> port on 127.0.0.1, that it knows for C-MOVE.
    """

    ae_title = "DCMQRSCP"

    def __init__(self, directory: Path, destinations: Mapping[str, int]) -> None:
        port = free_port()
        self.address = Address(self.ae_title, port)
        storage = directory / "storage"
        storage.mkdir(parents=True)
        known = {"DCMTK": 104, OUR_SCU: 104, **destinations}
        hosts = "".join(
            f"host{number} = ({title}, localhost, {at})\n"
            for number, (title, at) in enumerate(known.items())
        )
        group = ", ".join(f"host{number}" for number in range(len(known)))
        configuration = directory / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
            f"HostTable BEGIN\n{hosts}all = {group}\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{self.ae_title} {storage} RW (200, 1024mb) all\nAETable END\n"
        )
        self._process = Process(
            directory / "dcmqrscp.log", program("dcmqrscp"), "--config", configuration
        )
        self._process.ready(lambda: accepts_connections(port), "dcmqrscp")

    def load(self, paths: Iterable[Path]) -> None:
        """Store files; by one sender, for it loses instances with several."""
        succeed(
            *(program("storescu"), "--required", "-aet", "DCMTK", "-aec", self.ae_title),
            *(*self.address.arguments, *paths),
            TCP_NODELAY="1",
        )

    def close(self) -> None:
        self._process.kill()


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

    def load(self, paths: Iterable[Path]) -> None:
        """Store files."""
        succeed(
            *(program("storescu"), "--required", "-aec", self.ae_title),
            *(*self.address.arguments, *paths),
            TCP_NODELAY="1",
        )

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
            _entry(number, name, modality).save_as(files / f"{number}.wl", enforce_file_format=True)
        port = free_port()
        self.address = Address(self.ae_title, port)
        self._process = Process(
            directory / "wlmscpfs.log",
            *(program("wlmscpfs"), "--data-files-path", directory, *options, str(port)),
        )
        self._process.ready(lambda: accepts_connections(port), "wlmscpfs")

    def close(self) -> None:
        self._process.kill()


def _entry(number: int, name: str, modality: str) -> Dataset:
    """A scheduled procedure step with what wlmscpfs requires (PS3.4 Table K.6-1, return type 1)."""
    entry = Dataset()
    entry.file_meta = FileMetaDataset()
    entry.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    entry.file_meta.MediaStorageSOPClassUID = "1.2.276.0.7230010.3.1.0.1"
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
