"""Measure the index: the cost of storing as it grows, the time of queries, and the rate of answers.

No network is involved, and files only in the last line. Records of CT images are added to the index in the same way
as by the node, eight at a time. The queries run at the full size.

    python -m tests.bench.index [--instances N] [--directory DIRECTORY] [--url URL] [--json FILE]
"""

import argparse
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from typing import Any

from pydicom.dataset import Dataset

from netdicom_tx.archive.index.index import Index, InstanceRecord, record_of
from netdicom_tx.archive.query.matching import InformationModel, QueryOptions
from netdicom_tx.archive.query.search import Search
from netdicom_tx.archive.store.filestore import FileStore
from netdicom_tx.archive.store.reconcile import reconcile
from netdicom_tx.dsutils import encode
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

PER_SERIES, PER_STUDY = 10, 20
STUDIES_OF_A_PATIENT = 2
OUTSTANDING = 8
ROUNDS = 21
# The attributes that a viewer's study list requests for each study.
STUDY_LIST = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "StudyDescription",
)
FAMILIES = ("SMITH", "JONES", "MÜLLER", "GARCIA", "YAMADA", "KIM", "IVANOV", "NGUYEN")

_CT: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "SeriesDate": "20260102",
    "AcquisitionDate": "20260102",
    "ContentDate": "20260102",
    "SeriesTime": "101112.5",
    "ContentTime": "101112.5",
    "Modality": "CT",
    "Manufacturer": "Measurement",
    "InstitutionName": "Hospital of Measurements",
    "InstitutionAddress": "Some Street 1\r\nSomewhere",
    "ReferringPhysicianName": "Refer^Ring",
    "StationName": "CT01",
    "StudyDescription": "Thorax with contrast",
    "SeriesDescription": "Thorax 5.0 B40f",
    "ManufacturerModelName": "Model",
    "PatientBirthDate": "19700101",
    "PatientSex": "O",
    "PatientAge": "056Y",
    "BodyPartExamined": "CHEST",
    "SliceThickness": "5",
    "KVP": "120",
    "DataCollectionDiameter": "500",
    "SoftwareVersions": "VA1",
    "ProtocolName": "Thorax",
    "ReconstructionDiameter": "370",
    "DistanceSourceToDetector": "1040",
    "DistanceSourceToPatient": "570",
    "GantryDetectorTilt": "0",
    "TableHeight": "133",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "XRayTubeCurrent": "250",
    "Exposure": "125",
    "FilterType": "0",
    "GeneratorPower": "30",
    "FocalSpots": "1.2",
    "ConvolutionKernel": "B40f",
    "PatientPosition": "HFS",
    "StudyID": "1",
    "ImagePositionPatient": ["-185", "-185", "-100"],
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "FrameOfReferenceUID": "2.25.1",
    "PositionReferenceIndicator": "",
    "SliceLocation": "-100",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "Rows": 512,
    "Columns": 512,
    "PixelSpacing": ["0.72", "0.72"],
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1200"],
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "PerformedProcedureStepStartDate": "20260102",
    "PerformedProcedureStepStartTime": "101000",
}


def record(number: int, files: FileStore) -> InstanceRecord:
    """Return the record of an instance by its number, which determines its series, study and patient."""
    study, patient = number // PER_STUDY, number // PER_STUDY // STUDIES_OF_A_PATIENT
    made = _plain(
        SOPInstanceUID=f"2.25.4.{study}.{number}",
        StudyDate=f"20{10 + study % 15:02}{1 + study % 12:02}{1 + study % 28:02}",
        StudyTime=f"{study % 24:02}1112",
        AccessionNumber=f"A{study}",
        PatientName=f"{FAMILIES[patient % 8]}{patient % 977}^{patient % 89}",
        PatientID=f"PID{patient}",
        StudyInstanceUID=f"2.25.2.{study}",
        SeriesInstanceUID=f"2.25.3.{study}.{number % PER_STUDY // PER_SERIES}",
        SeriesNumber=str(1 + number % PER_STUDY // PER_SERIES),
        InstanceNumber=str(1 + number % PER_SERIES),
    )
    octets = b"".join(made[tag] for tag in sorted(made))
    path = files.path(f"2.25.4.{study}.{number}")
    return record_of(octets, EXPLICIT_VR_LITTLE_ENDIAN, path=path, size=0)


def _elements(values: dict[str, Any]) -> dict[int, bytes]:
    made = {}
    for keyword, value in values.items():
        one = Dataset()
        setattr(one, keyword, value)
        (element,) = one
        if keyword == "PatientName":
            # The element is encoded without the character set of its data set, so give it bytes.
            one[element.tag].value = str(value).encode("latin-1")
        made[int(element.tag)] = encode(one, EXPLICIT_VR_LITTLE_ENDIAN)
    return made


_TEMPLATE = _elements(_CT)


def _plain(**values: str) -> dict[int, bytes]:
    return {**_TEMPLATE, **_elements(values)}


class Report:
    """Collects the figures and prints each at once."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.figures[f"{name}, {unit}"] = round(value, 3)
        print(f"{name:<58} {value:>12,.2f} {unit}", flush=True)


def store(index: Index, files: FileStore, numbers: range, report: Report) -> None:
    """Add instances, eight outstanding at a time, and report the time."""
    records = [record(number, files) for number in numbers]
    waiting: deque[Future[None]] = deque()
    wall, cpu = time.perf_counter(), time.process_time()
    for each in records:
        waiting.append(index.add(each))
        if len(waiting) == OUTSTANDING:
            waiting.popleft().result()
    for future in waiting:
        future.result()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    name = f"instances {numbers.start:,} to {numbers.stop:,}"
    report.add(f"store {name}", len(numbers) / wall, "instances/s")
    report.add(f"store {name}", cpu / len(numbers) * 1e6, "us of CPU each")


def fill(index: Index, files: FileStore, numbers: range) -> None:
    """Add instances as fast as possible."""
    for start in range(numbers.start, numbers.stop, 2000):
        part = range(start, min(start + 2000, numbers.stop))
        for future in [index.add(record(number, files)) for number in part]:
            future.result()


def find(
    index: Index, level: str, *keywords: str, relational: bool = True, **keys: Any
) -> Iterator[bytes]:
    """Return the answers to a query with keys and empty keys."""
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 100"
    identifier.QueryRetrieveLevel = level
    for keyword in keywords:
        setattr(identifier, keyword, None)
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return Search(index).find(
        identifier,
        model=InformationModel.STUDY_ROOT,
        options=QueryOptions(relational=relational),
        transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN,
        retrieve_ae_title="ARCHIVE",
    )


def timed(call: Callable[[], Iterator[bytes]], rounds: int = ROUNDS) -> tuple[float, int]:
    """Return the median time in seconds, and the number of answers."""
    seconds = []
    count = 0
    for _ in range(rounds):
        begin = time.perf_counter()
        count = sum(1 for _ in call())
        seconds.append(time.perf_counter() - begin)
    return median(seconds), count


def queries(index: Index, report: Report) -> None:
    """Measure the most frequent queries at STUDY level."""
    for name, keys in (
        ("PatientID", {"PatientID": "PID17"}),
        ("a day", {"StudyDate": "20150607"}),
        ("a month", {"StudyDate": "20150601-20150630"}),
        ("a name with a star", {"PatientName": "SMITH17*"}),
        ("a name between stars", {"PatientName": "*ITH17*"}),
        ("an accession number", {"AccessionNumber": "A17"}),
        ("a modality of a day", {"StudyDate": "20150607", "ModalitiesInStudy": "CT"}),
    ):
        seconds, count = timed(lambda keys=keys: find(index, "STUDY", *STUDY_LIST, **keys))  # type: ignore[misc]
        report.add(f"find studies by {name} ({count})", seconds * 1e3, "ms")
    seconds, count = timed(
        lambda: find(
            index, "IMAGE", "SOPInstanceUID", "InstanceNumber", SeriesInstanceUID="2.25.3.17.0"
        )
    )
    report.add(f"find the instances of a series ({count})", seconds * 1e3, "ms")


def streams(index: Index, report: Report) -> None:
    """Measure queries with many answers."""
    columns = (
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "InstanceNumber",
        "SOPClassUID",
    )

    # About a tenth of all instances, so 10,000 of 100,000.
    years = {"StudyDate": "20150101-20160630"}
    for name, call in (
        ("every study, 10 attributes", lambda: find(index, "STUDY", *STUDY_LIST)),
        (
            "every study, with modalities and counts",
            lambda: find(
                index,
                "STUDY",
                *STUDY_LIST,
                "ModalitiesInStudy",
                "NumberOfStudyRelatedSeries",
                "NumberOfStudyRelatedInstances",
            ),
        ),
        ("instances of 18 months", lambda: find(index, "IMAGE", *columns, **years)),
        (
            "instances of 18 months, 2 attributes from headers",
            lambda: find(index, "IMAGE", *columns, "Rows", "Columns", **years),
        ),
    ):
        begin = time.process_time()
        seconds, count = timed(call, 5)
        cpu = (time.process_time() - begin) / 5
        report.add(f"answers: {name} ({count})", count / seconds, "answers/s")
        report.add(f"answers: {name}", cpu / count * 1e6, "us of CPU each")
    tracemalloc.start()
    count = sum(1 for _ in find(index, "IMAGE", *columns))
    report.add(f"answers: peak memory of {count:,}", tracemalloc.get_traced_memory()[1] / 1e6, "MB")
    tracemalloc.stop()


def start(index: Index, files: FileStore, report: Report) -> None:
    """Measure the comparison of files and rows at start, with empty files that have the right names."""
    files.open()
    for each in index.entries():
        files.path(each.sop_instance_uid).touch()
    seconds = time.perf_counter()
    done = reconcile(index, files)
    report.add(
        f"start: compare {done.compared:,} files with rows", time.perf_counter() - seconds, "s"
    )
    assert not done.removed
    assert not done.indexed
    files.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the index.")
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument(
        "--directory", type=Path, help="where to create the database; it is not removed"
    )
    parser.add_argument(
        "--url", help="the URL of an empty database (default: SQLite in the directory)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory: Path = arguments.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        files = FileStore(directory / "store", fsync=False)
        report = Report()
        url = arguments.url or f"sqlite:///{directory / 'index.db'}"
        with Index(url, root=files.root) as index:
            octets = b"".join(_TEMPLATE[tag] for tag in sorted(_TEMPLATE))
            octets += _elements({"SOPInstanceUID": "1.2"})[0x00080018]
            begin = time.process_time()
            for _ in range(2000):
                record_of(octets, EXPLICIT_VR_LITTLE_ENDIAN)
            each = (time.process_time() - begin) / 2000
            report.add(
                f"record of a header of {len(_TEMPLATE)} elements", each * 1e6, "us of CPU each"
            )
            there = 0
            for size in (1_000, 10_000, arguments.instances):
                if size > arguments.instances:
                    break
                fill(index, files, range(there, size))
                store(index, files, range(size, size + 1000), report)
                there = size + 1000
            report.add("size of the database", _size(directory) / there, "octets each")
            queries(index, report)
            streams(index, report)
            start(index, files, report)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.figures, indent=2) + "\n")


def _size(directory: Path) -> int:
    return sum(os.path.getsize(path) for path in directory.glob("index.db*"))


if __name__ == "__main__":
    sys.exit(main())
