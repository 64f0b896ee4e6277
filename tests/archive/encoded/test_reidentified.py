"""An instance under another SOP Instance UID: PS3.3 C.12.1, and everything else as it was."""

import io
import zlib
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence

from netdicom_tx.archive.encoded.reidentified import Replacement, reidentified
from netdicom_tx.archive.encoded.walk import InvalidDataSetError, walk
from netdicom_tx.dsutils import decode, encode
from netdicom_tx.part10 import part10_header, read_file_meta
from netdicom_tx.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

NEW = Replacement("2.25.99", "1.2.3", "MODALITY", "20261128101500+0000", "netdicom-tx")
SYNTAXES = [
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
]


def instance() -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.SOPInstanceUID = "1.2.3"
    ds.PatientName = "Doe^Jane"
    ds.ReferencedStudySequence = [Dataset()]
    ds.ReferencedStudySequence[0].ReferencedSOPInstanceUID = "1.2.3"
    return ds


def changed(ds: Dataset, syntax: str) -> Dataset:
    octets = encode(ds, syntax)
    return decode(b"".join(reidentified(octets, syntax, 0, NEW)), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_it_has_the_new_uid_and_says_what_it_replaced(syntax: str) -> None:
    """PS3.3 C.12.1.1.9: the previous value, when, by which system, from whom, and why."""
    found = changed(instance(), syntax)
    assert found.SOPInstanceUID == "2.25.99"
    (item,) = found.OriginalAttributesSequence
    (previous,) = item.ModifiedAttributesSequence
    assert previous == data_set(SOPInstanceUID="1.2.3")
    assert item.AttributeModificationDateTime == "20261128101500+0000"
    assert item.ModifyingSystem == "netdicom-tx"
    assert item.SourceOfPreviousValues == "MODALITY"
    assert item.ReasonForTheAttributeModification == "CORRECT"


def data_set(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_everything_else_stays(syntax: str) -> None:
    """References to the old UID, too: they mean the instance that came first."""
    found = changed(instance(), syntax)
    del found.OriginalAttributesSequence
    found.SOPInstanceUID = "1.2.3"
    assert found == instance()


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "rtplan.dcm", "JPEG2000.dcm", "MR_small_bigendian.dcm"]
)
def test_real_instances_stay_octet_for_octet(name: str) -> None:
    """What stands before and behind the two elements is copied."""
    whole = Path(str(get_testdata_file(name))).read_bytes()
    meta = read_file_meta(io.BytesIO(whole))
    result = b"".join(reidentified(whole, meta.transfer_syntax, meta.offset, NEW))
    assert walk(result, meta.transfer_syntax).sop_instance_uid == "2.25.99"
    data = whole[meta.offset :]
    place = data.index(walk(data, meta.transfer_syntax).sop_instance_uid.encode())
    assert result[: place - 8] == data[: place - 8]
    assert result.endswith(data[-100:])
    ours, theirs = decode(result, meta.transfer_syntax), dcmread(io.BytesIO(whole))
    assert set(ours.keys()) == set(theirs.keys()) | {0x04000561}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [True, False], ids=["undefined length", "defined length"])
def test_earlier_replacements_stay_in_front(syntax: str, undefined: bool) -> None:
    """The sequence has an item for each modification; the new one is the last."""
    ds = instance()
    earlier = data_set(ReasonForTheAttributeModification="COERCE")
    ds.OriginalAttributesSequence = Sequence([earlier])
    ds["OriginalAttributesSequence"].is_undefined_length = undefined
    ds.DataSetTrailingPadding = b"\1\2"
    found = changed(ds, syntax)
    reasons = [each.ReasonForTheAttributeModification for each in found.OriginalAttributesSequence]
    assert reasons == ["COERCE", "CORRECT"]
    assert found.DataSetTrailingPadding == b"\1\2"


def test_group_lengths_that_would_be_wrong_are_left_out() -> None:
    """PS3.5 7.2: retired, and they count the octets of the group."""
    octets = b"\x08\0\0\0\4\0\0\0\x10\0\0\0" + encode(instance(), IMPLICIT_VR_LITTLE_ENDIAN)
    result = b"".join(reidentified(octets, IMPLICIT_VR_LITTLE_ENDIAN, 0, NEW))
    assert decode(result, IMPLICIT_VR_LITTLE_ENDIAN).SOPInstanceUID == "2.25.99"
    assert not result.startswith(b"\x08\0\0\0")


def test_a_file_header_in_the_data_set_is_left_out() -> None:
    """It would name the old UID (PS3.10 7.1: a data set has none)."""
    plain = encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    header = part10_header("1.2.840.10008.5.1.4.1.1.2", "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN)
    result = b"".join(reidentified(header + plain, EXPLICIT_VR_LITTLE_ENDIAN, 0, NEW))
    assert result == b"".join(reidentified(plain, EXPLICIT_VR_LITTLE_ENDIAN, 0, NEW))


def test_padding_behind_the_data_set_stays_behind_it() -> None:
    octets = encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    result = b"".join(reidentified(octets + bytes(10), EXPLICIT_VR_LITTLE_ENDIAN, 0, NEW))
    assert result.endswith(bytes(10))
    assert walk(result, EXPLICIT_VR_LITTLE_ENDIAN).sop_instance_uid == "2.25.99"


def test_a_sequence_that_is_not_one_is_refused() -> None:
    octets = encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN) + b"\0\4\x61\5LO\2\0x "
    with pytest.raises(InvalidDataSetError, match=r"\(0400,0561\)"):
        b"".join(reidentified(octets, EXPLICIT_VR_LITTLE_ENDIAN, 0, NEW))


def test_a_deflated_data_set_that_is_cut_off_is_refused() -> None:
    syntax = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    with pytest.raises(InvalidDataSetError):
        b"".join(reidentified(encode(instance(), syntax)[:-20], syntax, 0, NEW))


def test_a_deflated_result_has_an_even_length() -> None:
    """PS3.5 A.5."""
    syntax = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    for number in range(20):
        ds = instance()
        ds.PatientID = "x" * number
        result = b"".join(reidentified(encode(ds, syntax), syntax, 0, NEW))
        assert len(result) % 2 == 0
        assert zlib.decompress(result, -15)
