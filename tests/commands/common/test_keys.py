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
    assert "is not a DICOM keyword" in problem.what
    assert (near or "gggg,eeee=value") in problem.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a query key"),
        ("=x", "not a query key"),
        ("ScheduledProcedureStepSequence[x].Modality", "not a query key"),
        ("ScheduledProcedureStepSequence[4711].Modality", "not a query key"),
        ("StudyDate.Modality=CT", "not a query key"),
        ("0000,0100=1", "not a query key"),
        ("0002,0010=1", "not a query key"),
        ("0010,0000=1", "not a query key"),
        ("ScheduledProcedureStepSequence=CT", "is a sequence"),
        ("Rows=abc", "not a value for Rows"),
        ("Rows=70000", "not a value for Rows"),
        ("SeriesNumber=abc", "not a value for SeriesNumber"),
        ("SliceThickness=thin", "not a value for SliceThickness"),
        ("FrameIncrementPointer=Rows", "not a value for FrameIncrementPointer"),
        ("PixelData=1", "not a value for PixelData"),
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


# -- dates and times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "StudyDate=20261101",
        "StudyDate=20261101-20261130",
        "StudyDate=20261101-",
        "StudyDate=-20261130",
        "StudyDate=20261101-20261101",
        "StudyDate=*",
        "StudyDate=",
        "StudyTime=0900-1200",
        "StudyTime=09",
        "StudyTime=090000.5-",
        "StudyTime=0900-09",
        "AcquisitionDateTime=20261101120000-20261101130000",
        "AcquisitionDateTime=20261101120000-0500",
        "AcquisitionDateTime=20261101120000-0500-20261101130000-0500",
        "AcquisitionDateTime=-20261101130000+0100",
        "AcquisitionDateTime=2026",
        "ScheduledProcedureStepSequence.ScheduledProcedureStepStartDate=20261101-20261130",
    ],
)
def test_a_date_a_time_and_a_range_of_them_are_sent(text: str) -> None:
    """PS3.4 C.2.2.2.5; the minus of a time zone does not make a range."""
    assert identifier([parse_key(text)])


@pytest.mark.parametrize(
    ("text", "evidence", "hint"),
    [
        ("StudyDate=2026-11-01", "did you mean 20261101?", "write YYYYMMDD"),
        ("StudyDate=2026.11.01", "did you mean 20261101?", "write YYYYMMDD"),
        ("StudyDate=01.11.2026", "expected YYYYMMDD", "20261101-20261130"),
        ("StudyDate=20261131", "expected YYYYMMDD", "20261101-20261130"),
        ("StudyDate=2026", "expected YYYYMMDD", "20261101-20261130"),
        ("StudyDate=202611*", "expected YYYYMMDD", "20261101-20261130"),
        ("StudyDate=-", "expected YYYYMMDD", "20261101-20261130"),
        ("StudyDate=20261130-20261101", "20261130 is after 20261101", "write YYYYMMDD"),
        ("StudyDate=20261101-2026113", "expected YYYYMMDD", "write YYYYMMDD"),
        ("StudyTime=09:00", "did you mean 0900?", "write HHMMSS, HHMM or HH"),
        ("StudyTime=1200-0900", "1200 is after 0900", "0900-1200"),
        ("StudyTime=2500", "expected HHMMSS", "0900-1200"),
        ("AcquisitionDateTime=2026-11-01T12:00:00", "did you mean 20261101120000?", "YYYYMMDDHH"),
        ("AcquisitionDateTime=2027-2026", "2027 is after 2026", "YYYYMMDDHHMMSS"),
        ("StudyDate=20261101\\2026-11-02", "expected YYYYMMDD", "write YYYYMMDD"),
    ],
)
def test_a_date_that_would_match_nothing_is_not_sent(text: str, evidence: str, hint: str) -> None:
    """The peer would refuse it, or answer that it has nothing."""
    with pytest.raises(CommandError) as caught:
        identifier([parse_key(text)])
    problem = caught.value.problem
    assert problem.code == ExitCode.USAGE
    assert evidence in problem.evidence
    assert hint in problem.hint
