"""What an instance is before it is sent: netdicom_tx.sopclass.Instance."""

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from netdicom_tx.dsutils import DataSetError
from netdicom_tx.sopclass import Instance

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
