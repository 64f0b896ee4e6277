"""What the archives hold that are queried: invented patients, a larger study, and pydicom's samples.

Entities have labels, so that what is found can be written in a table: ``A2`` is a study of the
invented patients, ``A2.1`` its first series, ``A2.1.2`` an instance of that. A patient's label is the
Patient ID. What pydicom's samples bring is called after the first file that has it.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from support.archive.patients import instances as invented

from .samples import Sample, read

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
#: The label of a patient without Patient ID.
NOBODY = "(none)"
#: The transfer syntaxes that dcmqrscp takes as it comes.
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")

#: A study of four series, to be retrieved.
BULK = "BULK"
_BULK_STUDY = "1.2.4.1"
_BULK_SERIES, _BULK_INSTANCES = 4, 40


def bulk() -> list[tuple[str, Dataset]]:
    """The instances of the larger study, with their labels; a CT without pixels."""
    made = []
    for series in range(1, _BULK_SERIES + 1):
        for number in range(1, _BULK_INSTANCES + 1):
            ds = Dataset()
            ds.SpecificCharacterSet = "ISO_IR 100"
            ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
            ds.SOPInstanceUID = f"{_BULK_STUDY}.{series}.{number}"
            ds.StudyDate, ds.StudyTime = "19880808", "080808"
            ds.AccessionNumber = "BULK1"
            ds.Modality = "CT"
            ds.ReferringPhysicianName = "House^Gregory"
            ds.StudyDescription = "Whole body"
            ds.PatientName, ds.PatientID = "Bulk^Much", BULK
            ds.PatientBirthDate, ds.PatientSex = "19480808", "M"
            ds.StudyInstanceUID = _BULK_STUDY
            ds.SeriesInstanceUID = f"{_BULK_STUDY}.{series}"
            ds.StudyID = "88"
            ds.SeriesNumber, ds.InstanceNumber = series, number
            made.append((f"{BULK}.{series}.{number}", ds))
    return made


def write_part10(ds: Dataset, path: Path, *, implicit: bool = False) -> None:
    """A data set as a file that every peer reads."""
    ds.file_meta = FileMetaDataset()
    # An identifier has none, or several; pydicom wants one.
    sop_class, instance = ds.get("SOPClassUID"), ds.get("SOPInstanceUID")
    ds.file_meta.MediaStorageSOPClassUID = UID(
        sop_class if isinstance(sop_class, str) and sop_class else "1.2.3"
    )
    ds.file_meta.MediaStorageSOPInstanceUID = UID(
        instance if isinstance(instance, str) and instance else "1.2.3"
    )
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)


class Population:
    """Instances as files, and what they are called.

    Attributes:
        paths: The files, by the label of their instance, in the order in which they are sent.
        transfer_syntaxes: Of each file.
    """

    def __init__(self, directory: Path, samples: Iterable[Sample]) -> None:
        self.paths: dict[str, Path] = {}
        self.transfer_syntaxes: dict[str, str] = {}
        #: For each level, by label, the values of the first instance of the entity.
        self._first: dict[str, dict[str, Dataset]] = {level: {} for level in LEVELS}
        self._labels: dict[str, dict[str, str]] = {level: {} for level in LEVELS}
        for number, (label, ds) in enumerate([*invented(), *bulk()]):
            path = directory / f"{number:04d}.dcm"
            write_part10(ds, path, implicit=bool(number % 2))
            study, series, _ = label.split(".")
            labels = (str(ds.PatientID), study, f"{study}.{series}", label)
            self._add(labels, path, ds, str(ds.file_meta.TransferSyntaxUID))
        for sample in samples:
            if sample.in_hierarchy:
                assert sample.name not in self.paths, f"two files are called {sample.name}"
                ds = read(sample.path)
                patient = str(ds.get("PatientID") or NOBODY)
                labels = (patient, sample.name, sample.name, sample.name)
                self._add(labels, sample.path, ds, sample.transfer_syntax)

    def _add(self, labels: tuple[str, ...], path: Path, ds: Dataset, syntax: str) -> None:
        self.paths[labels[-1]] = path
        self.transfer_syntaxes[labels[-1]] = syntax
        for level, label in zip(LEVELS, labels, strict=True):
            key = str(ds.get(UNIQUE_KEYS[level]) or "")
            if key not in self._labels[level]:
                self._labels[level][key] = label
                self._first[level][label] = ds

    def label(self, level: str, key: str) -> str:
        """What is called by this unique key."""
        return self._labels[level].get(key, f"?{key}")

    def key(self, label: str, level: str | None = None) -> str:
        """The unique key of what has this label."""
        if level is None:
            level = LEVELS[min(1 + label.count("."), 3)]
        return str(self._first[level][label][UNIQUE_KEYS[level]].value)

    def all(self, level: str) -> frozenset[str]:
        """Every entity of a level."""
        return frozenset(self._first[level])

    def unknown(self, level: str, model: str, keywords: Iterable[str]) -> frozenset[str]:
        """Entities that have no value for any of these attributes (PS3.4 C.2.2.1.2).

        A unique key always has one (C.2.2.1.1); Patient ID is not a unique key in the study root (C.6.2.1).
        """
        wanted = {"Modality" if each == "ModalitiesInStudy" else each for each in keywords}
        unique = {UNIQUE_KEYS[each] for each in LEVELS} - ({"PatientID"} if model == "S" else set())
        if wanted & unique:
            return frozenset()
        return frozenset(
            label
            for label, ds in self._first[level].items()
            if all(_is_empty(ds, keyword) for keyword in wanted)
        )

    def instances(self, level: str, label: str) -> frozenset[str]:
        """The SOP Instance UIDs of all instances of an entity."""
        key = UNIQUE_KEYS[level]
        wanted = self._first[level][label].get(key)
        return frozenset(
            str(ds.SOPInstanceUID) for ds in self._first["IMAGE"].values() if ds.get(key) == wanted
        )

    @cached_property
    def uncompressed(self) -> Mapping[str, frozenset[str]]:
        """The entities of each level that have an uncompressed instance."""
        found: dict[str, set[str]] = {level: set() for level in LEVELS}
        for label, syntax in self.transfer_syntaxes.items():
            if syntax in UNCOMPRESSED:
                ds = self._first["IMAGE"][label]
                for level in LEVELS:
                    key = str(ds.get(UNIQUE_KEYS[level]) or "")
                    found[level].add(self._labels[level][key])
        return {level: frozenset(labels) for level, labels in found.items()}


def _is_empty(ds: Dataset, keyword: str) -> bool:
    # Delimiters alone are no name (PS3.5 6.2.1).
    return keyword not in ds or ds[keyword].is_empty or not str(ds[keyword].value).strip("^= ")
