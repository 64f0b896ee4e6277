"""Part 10 files as octets and by what they hold, read by pydicom and not by us."""

from pathlib import Path

from pydicom.filereader import read_file_meta_info


def data_set_bytes(path: Path) -> bytes:
    """What follows the File Meta Information: the data set, as it is encoded.

    Found by File Meta Information Group Length (0002,0000), PS3.10 7.1.
    """
    octets = path.read_bytes()
    assert octets[128:136] == b"DICM\x02\x00\x00\x00", f"{path} is not a Part 10 file"
    return octets[144 + int.from_bytes(octets[140:144], "little") :]


def by_instance(directory: Path, pattern: str = "**/*") -> dict[str, Path]:
    """The Part 10 files under a directory, by Media Storage SOP Instance UID."""
    found: dict[str, Path] = {}
    for path in directory.glob(pattern):
        if path.is_file():
            uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
            assert uid not in found, f"{uid} is in {found[uid]} and in {path}"
            found[uid] = path
    return found
