"""The images that are sent: what pydicom has in its own wheel, as files of every kind.

Compressed in nine ways, deflated, big endian and implicit; multi-frame, SR, RT, waveform,
segmentation, private elements, a dozen character sets, and palettes, which belong to no patient.

Several share one SOP Instance UID: the same picture in ten transfer syntaxes. An archive keeps one
instance of a UID, so all but the first of them get another UID of the same length, written over the
old one. Every other octet is as pydicom has it.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset

from ..part10 import data_set_bytes

# SOP classes of the Non-Patient Object Storage Service Class, which DCMTK and Orthanc do not know.
COLOR_PALETTE_STORAGE = "1.2.840.10008.5.1.4.39.1"

_DATA = Path(pydicom.__file__).parent / "data"

# No whole data sets, on purpose, for pydicom's own tests.
BROKEN = {
    "MR_truncated.dcm": "ends within Pixel Data",
    "rtplan_truncated.dcm": "ends within a sequence",
    "SC_rgb_jpeg.dcm": "implicit VR in a transfer syntax with explicit VR",
}

# Whole, but with encapsulated Pixel Data of VR OW (PS3.5 A.4 wants OB): DCMTK does not send them,
# and pydicom changes them.
_NOT_CONFORMING = {"rtdose_rle.dcm", "rtdose_rle_1frame.dcm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A file to send.

    Attributes:
        name: What pydicom calls the file.
        sop_class: SOP Class UID of the data set.
        instance: SOP Instance UID of the data set; no other sample has it.
        conforms: Whether every peer reads it and leaves it as it is.
        in_hierarchy: Whether it says its study and series, without which Orthanc takes nothing.
    """

    path: Path
    name: str
    sop_class: str
    instance: str
    transfer_syntax: str
    conforms: bool
    in_hierarchy: bool

    @property
    def data_set(self) -> bytes:
        """The data set as it is encoded in the file."""
        return data_set_bytes(self.path)

    @property
    def sent(self) -> bytes:
        """The data set as it goes out: a deflated one of odd length gets a NULL (PS3.5 A.5)."""
        data_set = self.data_set
        return data_set + bytes(len(data_set) % 2)


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's complaints, as warnings and in the log, about values of its own files."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read(path: Path) -> FileDataset:
    """The file read by pydicom, every element decoded."""
    with quiet():
        ds = pydicom.dcmread(path)
        ds.walk(lambda _, element: element.value)
        return ds


def broken(name: str) -> Path:
    """One of the broken files of pydicom."""
    assert name in BROKEN
    return next(_DATA.rglob(name))


def as_pydicom_writes(path: Path) -> bytes:
    """The data set that pydicom makes of a file, in the transfer syntax of the file."""
    from pynetdicom.dsutils import encode

    with quiet():
        # Not read(): a value that has been decoded may be encoded in another way.
        ds = pydicom.dcmread(path)
        syntax = ds.file_meta.TransferSyntaxUID
        encoded = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert encoded is not None
    return encoded


def sources() -> list[Path]:
    """pydicom's files that are whole storable instances."""
    found = []
    for path in sorted(_DATA.rglob("*")):
        # Fifty slices in TINY_ALPHA are alike; one of them is enough.
        alike = "TINY_ALPHA" in path.parts and path.name != "IM000000"
        if not path.is_file() or path.name in BROKEN or alike:
            continue
        with path.open("rb") as file:
            # File Meta Information that says its length comes first (PS3.10 7.1).
            if file.read(136)[128:] != b"DICM\x02\x00\x00\x00":
                continue
        ds = read(path)
        if ds.get("SOPClassUID") and ds.get("SOPInstanceUID"):
            found.append(path)
    return found


def make_samples(directory: Path) -> tuple[Sample, ...]:
    """Copy the files to a directory, each with a SOP Instance UID of its own."""
    samples: list[Sample] = []
    seen: set[str] = set()
    for number, source in enumerate(sources()):
        octets = source.read_bytes()
        ds = read(source)
        old = str(ds.SOPInstanceUID)
        # Six digits that begin with 1: a valid component wherever they fall.
        instance = old if old not in seen else old[:-6] + str(100_000 + number)
        seen.add(instance)
        for other in {old, str(ds.file_meta.MediaStorageSOPInstanceUID)} - {instance}:
            assert len(other) == len(instance)
            octets = octets.replace(other.encode(), instance.encode())
        path = directory / f"{number:03d}-{source.name}"
        path.write_bytes(octets)
        sent = read(path)
        assert sent.SOPInstanceUID == sent.file_meta.MediaStorageSOPInstanceUID == instance
        samples.append(
            Sample(
                path=path,
                name=source.name,
                sop_class=str(ds.SOPClassUID),
                instance=instance,
                transfer_syntax=str(ds.file_meta.TransferSyntaxUID),
                conforms=source.name not in _NOT_CONFORMING,
                in_hierarchy="StudyInstanceUID" in ds and "SeriesInstanceUID" in ds,
            )
        )
    return tuple(samples)


def one_of_each(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The first of each pair of SOP class and transfer syntax."""
    first: dict[tuple[str, str], Sample] = {}
    for sample in samples:
        first.setdefault((sample.sop_class, sample.transfer_syntax), sample)
    return tuple(first.values())


def copies(sample: Sample, count: int, directory: Path) -> tuple[Sample, ...]:
    """As many instances as asked for, alike but for their SOP Instance UIDs."""
    directory.mkdir()
    made = []
    for number in range(count):
        instance = sample.instance[:-6] + str(900_000 + number)
        path = directory / f"{number:04d}.dcm"
        path.write_bytes(
            sample.path.read_bytes().replace(sample.instance.encode(), instance.encode())
        )
        made.append(replace(sample, path=path, instance=instance))
    return tuple(made)
