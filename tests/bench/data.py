"""Generate the sets of instances that the benchmarks send: the same bytes on every machine.

=======  ==========================================  ===========
set      one instance                                data set
=======  ==========================================  ===========
small    Secondary Capture, 56 x 56 pixels of 8 bit  about 4 KB
ct       CT image, 512 x 512 pixels of 16 bit        about 0.5 MB
big      Enhanced CT, 256 frames of 512 x 512        about 134 MB
huge     Enhanced CT, 2048 frames of 512 x 512       over 1 GiB
=======  ==========================================  ===========

All are Explicit VR Little Endian. pydicom writes the headers, and the pixels are appended in chunks, so that
the last set does not need a gibibyte of memory. No real data is used: names are invented and pixels are noise.

    python -m tests.bench.data DIRECTORY [SET ...]
"""

import argparse
import hashlib
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SetKind:
    """The properties that all instances of a set share."""

    sop_class: UID
    modality: str
    side: int  # Rows and Columns
    bits: int  # allocated to one pixel: 8 or 16
    frames: int = 1

    @property
    def pixel_octets(self) -> int:
        """The length of the Pixel Data value in bytes."""
        return self.side * self.side * self.bits // 8 * self.frames


SETS: Mapping[str, SetKind] = {
    "small": SetKind(sop_class=SecondaryCaptureImageStorage, modality="OT", side=56, bits=8),
    "ct": SetKind(sop_class=CTImageStorage, modality="CT", side=512, bits=16),
    "big": SetKind(sop_class=EnhancedCTImageStorage, modality="CT", side=512, bits=16, frames=256),
    "huge": SetKind(
        sop_class=EnhancedCTImageStorage, modality="CT", side=512, bits=16, frames=2048
    ),
}


def make_set(directory: Path, name: str, count: int) -> list[Path]:
    """Generate the first ``count`` instances of a set, or find those of an earlier call.

    Args:
        directory: The caller's cache; the files are in ``directory / name``.
        name: A key of ``SETS``.
        count: The number of instances.

    Returns:
        The files in the order of their instance numbers.
    """
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.dcm" for number in range(1, count + 1)]
    for number, path in enumerate(paths, start=1):
        if not path.exists():
            _write(path, name, number)
    return paths


def data_set_offset(path: Path) -> int:
    """Return the position of the data set in a Part 10 file.

    PS3.10 7.1: preamble, prefix and group length fill 144 octets; the length counts from there.
    """
    return 144 + int(read_file_meta_info(path).FileMetaInformationGroupLength)


def _write(path: Path, name: str, number: int) -> None:
    kind = SETS[name]
    # The next run must not mistake an incomplete set for a complete one.
    partial = path.with_suffix(".partial")
    _header(name, number).save_as(partial, enforce_file_format=True)
    with partial.open("ab") as file:
        _append_pixels(file, kind, seed=f"{name} {number}")
    partial.rename(path)


def _append_pixels(file: BinaryIO, kind: SetKind, *, seed: str) -> None:
    # PS3.5 7.1.2: group, element, VR, two reserved octets, length of 32 bits.
    vr = b"OB" if kind.bits == 8 else b"OW"
    file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, kind.pixel_octets))
    noise = random.Random(seed).randbytes(min(_CHUNK, kind.pixel_octets))
    left = kind.pixel_octets
    while left:
        left -= file.write(noise[:left])


def _header(name: str, number: int) -> FileDataset:
    kind = SETS[name]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind.sop_class
    meta.MediaStorageSOPInstanceUID = _uid(name, "instance", number)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = kind.sop_class
    ds.SOPInstanceUID = _uid(name, "instance", number)
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20260102"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "101112"
    ds.AccessionNumber = f"BENCH{name.upper()}"
    ds.Modality = kind.modality
    ds.Manufacturer = "Measurement"
    ds.StudyDescription = f"Measurement of {name} instances"
    ds.PatientName = "Bench^Mark"
    ds.PatientID = f"BENCH-{name.upper()}"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.StudyInstanceUID = _uid(name, "study", 0)
    ds.SeriesInstanceUID = _uid(name, "series", 0)
    ds.FrameOfReferenceUID = _uid(name, "frame of reference", 0)
    ds.StudyID = "1"
    ds.SeriesNumber = 1
    ds.InstanceNumber = number
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = kind.side
    ds.BitsAllocated = ds.BitsStored = kind.bits
    ds.HighBit = kind.bits - 1
    ds.PixelRepresentation = 0
    if kind.frames > 1:
        ds.NumberOfFrames = kind.frames
        ds.PerFrameFunctionalGroupsSequence = Sequence(_frame(n) for n in range(kind.frames))
    return ds


def _frame(number: int) -> Dataset:
    content = Dataset()
    content.FrameAcquisitionNumber = number + 1
    content.DimensionIndexValues = [1, number + 1]
    position = Dataset()
    position.ImagePositionPatient = [0, 0, number]
    groups = Dataset()
    groups.FrameContentSequence = Sequence([content])
    groups.PlanePositionSequence = Sequence([position])
    return groups


def _uid(*parts: object) -> UID:
    # PS3.5 B.2: a UID under 2.25 is an unsigned integer of 128 bits.
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16])}")


def main() -> None:
    """Generate whole sets in a directory, to inspect them or to use them with another tool."""
    parser = argparse.ArgumentParser(description="Generate the instances that the benchmarks send.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("sets", nargs="*", default=["small", "ct", "big"], metavar="SET")
    parser.add_argument("--count", type=int, default=1, help="the number of instances in each set")
    arguments = parser.parse_args()
    for name in arguments.sets:
        for path in make_set(arguments.directory, name, arguments.count):
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
