"""Query keys as they are written."""

from typing import Any

import pytest
from pydicom.dataset import Dataset

from netdicom_tx import dsutils
from netdicom_tx.commands.common.failures import CommandError, ExitCode
from netdicom_tx.commands.common.keys import identifier, parse_key, parse_keys, text_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

# pydicom's word on what a UID may be, when a wildcard is read back.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


def sent(*texts: str, level: str | None = None) -> Dataset:
    """What the peer reads of an identifier."""
    made = identifier(parse_keys(texts), level)
    for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN):
        read = dsutils.decode(dsutils.encode(made, syntax), syntax)
    return read


@pytest.mark.parametrize(
    ("text", "keyword", "value"),
    [
        ("PatientName=DOE*", "PatientName", "DOE*"),
        ("PatientName", "PatientName", ""),
        ("PatientName=", "PatientName", ""),
        ("0010,0020=4711", "PatientID", "4711"),
        ("(0010,0020)=4711", "PatientID", "4711"),
        ("00100020=4711", "PatientID", "4711"),
        ("StudyDate=20260101-20261231", "StudyDate", "20260101-20261231"),
        ("StudyDescription=a=b.c", "StudyDescription", "a=b.c"),
        ("StudyInstanceUID=1.2.3\\1.2.4", "StudyInstanceUID", ["1.2.3", "1.2.4"]),
        ("StudyInstanceUID=*", "StudyInstanceUID", "*"),
        ("SeriesNumber=3", "SeriesNumber", 3),
        ("Rows=512", "Rows", 512),
        ("FrameIncrementPointer=0018,1063", "FrameIncrementPointer", 0x00181063),
        ("TextComments=a\\b", "TextComments", "a\\b"),
    ],
)
def test_a_key_is_a_keyword_or_a_tag_with_a_value(text: str, keyword: str, value: Any) -> None:
    """PS3.4 C.2.2.2: wildcards, ranges and lists of UIDs are values of keys."""
    read = sent(text)
    assert list(read.dir()) == [keyword]
    found = read[keyword].value
    assert (found or "" if value == "" else found) == value


@pytest.mark.parametrize(
    "text",
    [
        "ScheduledProcedureStepSequence.Modality=CT",
        "ScheduledProcedureStepSequence[0].Modality=CT",
        "(0040,0100)[0].0008,0060=CT",
        "0040,0100.Modality=CT",
    ],
)
def test_a_path_leads_into_a_sequence(text: str) -> None:
    """PS3.4 C.2.2.2.6; the brackets are DCMTK's spelling."""
    (item,) = sent(text).ScheduledProcedureStepSequence
    assert list(item.dir()) == ["Modality"]
    assert item.Modality == "CT"


def test_keys_of_one_sequence_share_an_item() -> None:
    steps = "ScheduledProcedureStepSequence"
    read = sent(f"{steps}", f"{steps}.Modality=CT", f"{steps}.ScheduledStationAETitle", steps)
    assert [sorted(item.dir()) for item in read.ScheduledProcedureStepSequence] == [
        ["Modality", "ScheduledStationAETitle"]
    ]


def test_a_sequence_alone_is_returned_with_all_it_has() -> None:
    """PS3.4 C.2.2.2.6: zero length, not an empty item."""
    assert len(sent("ScheduledProcedureStepSequence").ScheduledProcedureStepSequence) == 0


def test_a_later_key_takes_the_place_of_an_earlier_one() -> None:
    assert sent("PatientID=1", "PatientID=2").PatientID == "2"


def test_a_private_element_goes_out_as_it_was_written() -> None:
    assert sent("0009,1001=x")[0x0009, 0x1001].value == b"x "


def test_the_level_stands_beside_the_keys() -> None:
    assert sent("PatientID=1", level="STUDY").QueryRetrieveLevel == "STUDY"


def test_a_value_beyond_ascii_says_its_character_set() -> None:
    """PS3.5 6.1.2.3; without need none is said, for peers that return what they are asked."""
    read = sent("PatientName=山田*")
    assert read.SpecificCharacterSet == "ISO_IR 192"
    assert read.PatientName == "山田*"
    assert "SpecificCharacterSet" not in sent("PatientName=DOE*")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("patientname=x", "PatientName"),
        ("PatientNme", "PatientName"),
        ("Patient_ID=1", "PatientID"),
        ("Study Date=1", "StudyDate"),
        ("PatientName.Foo=1", None),
        ("Fxyzzy", None),
        ("ScheduledProcedureStepSequence.Modalitty=CT", "Modality"),
    ],
)
def test_what_is_no_keyword_is_told_with_near_ones(text: str, near: str | None) -> None:
    with pytest.raises(CommandError) as caught:
        parse_key(text)
    problem = caught.value.problem
    assert problem.code == ExitCode.USAGE
    assert "is no DICOM keyword" in problem.what
    assert (near or "gggg,eeee=value") in problem.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no query key"),
        ("=x", "no query key"),
        ("ScheduledProcedureStepSequence[x].Modality", "no query key"),
        ("ScheduledProcedureStepSequence[4711].Modality", "no query key"),
        ("StudyDate.Modality=CT", "no query key"),
        ("0000,0100=1", "no query key"),
        ("0002,0010=1", "no query key"),
        ("0010,0000=1", "no query key"),
        ("ScheduledProcedureStepSequence=CT", "is a sequence"),
        ("Rows=abc", "no value for Rows"),
        ("Rows=70000", "no value for Rows"),
        ("SeriesNumber=abc", "no value for SeriesNumber"),
        ("SliceThickness=thin", "no value for SliceThickness"),
        ("FrameIncrementPointer=Rows", "no value for FrameIncrementPointer"),
        ("PixelData=1", "no value for PixelData"),
    ],
)
def test_a_key_that_cannot_be_sent_is_told(text: str, words: str) -> None:
    with pytest.raises(CommandError) as caught:
        identifier([parse_key(text)])
    problem = caught.value.problem
    assert (problem.code, bool(problem.evidence), bool(problem.hint)) == (2, True, True)
    assert words in problem.what


def test_values_are_shown_on_one_line_each() -> None:
    found = Dataset()
    found.PatientName = "DOE^JOHN"
    found.ImageType = ["ORIGINAL", "PRIMARY"]
    found.StudyDate = None
    for modality in ("CT", "MR"):
        step = Dataset()
        step.Modality = modality
        found.setdefault("ScheduledProcedureStepSequence", []).value.append(step)
    found.EncapsulatedDocument = b"abcd"

    def shown(key: str) -> str:
        return text_of(parse_key(key).values(found))

    assert shown("PatientName") == "DOE^JOHN"
    assert shown("ImageType") == "ORIGINAL\\PRIMARY"
    assert shown("StudyDate") == ""
    assert shown("PatientID") == ""
    assert shown("ScheduledProcedureStepSequence.Modality") == "CT; MR"
    assert shown("ScheduledProcedureStepSequence") == "2 items"
    assert shown("EncapsulatedDocument") == "4 octets"
    assert shown("0040,0100.PatientID") == ""


def test_a_key_is_named_by_its_keywords() -> None:
    assert parse_key("0040,0100.0008,0060").name == "ScheduledProcedureStepSequence.Modality"
    assert parse_key("0009,1001").name == "0009,1001"
