"""What an instance is before it is sent: netdicom_tx.sopclass.Instance."""

from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from netdicom_tx.dsutils import DataSetError, encode, part10_header
from netdicom_tx.sopclass import Instance
from netdicom_tx.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN as DEFLATED
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

# Their file header has another SOP Instance UID than their data set.
CONTRADICTORY = ["rtplan.dcm", "rtdose.dcm", "badVR.dcm"]


@pytest.mark.parametrize("name", [*CONTRADICTORY, "CT_small.dcm", "MR_small_bigendian.dcm"])
def test_an_instance_is_what_its_data_set_says(name: str) -> None:
    """PS3.4 B.2.2: the UIDs of the command are those of the data set."""
    path = str(get_testdata_file(name))
    data_set = dcmread(path, stop_before_pixels=True)
    instance = Instance.of(path)
    assert instance.sop_instance_uid == data_set.SOPInstanceUID
    assert instance.sop_class_uid == data_set.SOPClassUID
    assert instance.transfer_syntax == data_set.file_meta.TransferSyntaxUID


def test_a_deflated_data_set_is_looked_into() -> None:
    path = str(get_testdata_file("image_dfl.dcm"))
    assert Instance.of(path).sop_instance_uid == dcmread(path).SOPInstanceUID


def test_an_open_file_is_left_at_its_data_set() -> None:
    """It is read from there when it is sent."""
    octets = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    file = BytesIO(octets)
    instance = Instance.of(file)
    assert instance.offset == file.tell()
    assert octets[file.tell() : file.tell() + 4] == b"\x08\x00\x05\x00"


def test_what_is_no_instance_is_refused_with_a_sentence() -> None:
    with pytest.raises(
        DataSetError, match="expected a Dataset, a path or an open binary file, got int"
    ):
        Instance.of(7)  # type: ignore[arg-type]
    with pytest.raises(DataSetError, match="not a DICOM file"):
        Instance.of(BytesIO(b"text"))


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED])
@pytest.mark.parametrize("second", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED])
@pytest.mark.parametrize("begin", [0, 128, 132], ids=["whole", "prefix", "group 0002"])
def test_of_two_file_headers_the_first_says_the_transfer_syntax(
    syntax: str, second: str, begin: int
) -> None:
    """PS3.10 7.1: its group length says where it ends; the other is a part of what is sent."""
    data_set = dcmread(str(get_testdata_file("CT_small.dcm")), stop_before_pixels=True)
    uids = data_set.SOPClassUID, data_set.SOPInstanceUID
    octets = part10_header(*uids, second)[begin:] + encode(data_set, syntax)
    instance = Instance.of(BytesIO(part10_header("1.9", "1.9.9", syntax) + octets))
    assert (instance.sop_class_uid, instance.sop_instance_uid) == uids
    assert instance.transfer_syntax == syntax
    assert cast(BinaryIO, instance.encoded(syntax)).read() == octets
