"""Attribute matching: identifiers, and what PS3.4 C.2.2.2 says must be found.

The expected sets are written from the standard and the list of patients, not from what any program
answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from sqlalchemy.dialects import postgresql

import support.strategies  # noqa: F401 - its Hypothesis profile
from netdicom_tx.archive.encoded.elements import CANONICAL, encode_element
from netdicom_tx.archive.encoded.values import keys_of, person_name, sound
from netdicom_tx.archive.index.engine import open_engine
from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.index.schema import ATTRIBUTES, COMPUTED
from netdicom_tx.archive.query.answers import Answers
from netdicom_tx.archive.query.criteria import (
    Criterion,
    Equal,
    Fuzzy,
    Like,
    Name,
    Number,
    matches_wild_card,
    range_of,
)
from netdicom_tx.archive.query.matching import (
    InformationModel,
    MatchingError,
    QueryOptions,
    find_query,
)
from netdicom_tx.archive.query.search import Search
from netdicom_tx.dsutils import DataSetError, decode
from netdicom_tx.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from support.archive.databases import database_url
from support.archive.patients import (
    PATIENTS,
    SOP_CLASSES,
    STUDIES,
    add,
    archive,
    data_set,
    find,
    instance_uid,
    instances,
    labels,
    options,
    series_uid,
    study_uid,
)

ALL = " ".join(STUDIES)
UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with archive(tmp_path_factory.mktemp("archive")) as opened:
        yield opened


# (what it shows, level and flags, keys, what is found). Flags: patients.FLAGS; a P before them is the
# patient root. Without one of these the keys are in ISO_IR 192.
QUERIES: list[tuple[str, str, dict[str, Any], str]] = [
    # C.2.2.2.1 single value
    ("an identifier", "STUDY", {"PatientID": "SMITH"}, "S1"),
    ("an identifier in another case", "STUDY", {"PatientID": "smith"}, ""),
    ("an accession number", "STUDY", {"AccessionNumber": "ACC001"}, "A1"),
    ("an accession number in its case", "STUDY", {"AccessionNumber": "ACC003"}, ""),
    ("padding does not belong to a value", "STUDY", {"AccessionNumber": " ACC001  "}, "A1"),
    ("a code", "PATIENT P", {"PatientSex": "O"}, "DOE ODD%_!"),
    ("two keys are both to match", "STUDY", {"PatientID": "ADAMS", "StudyID": "2"}, "A2"),
    ("a date", "STUDY", {"StudyDate": "20200102"}, "A2"),
    ("a date with dots", "STUDY", {"StudyDate": "2020.01.02"}, "A2"),
    ("a time by its meaning", "STUDY", {"StudyTime": "2359"}, "A3"),
    ("the same time with seconds", "STUDY", {"StudyTime": "235900.000"}, "A3"),
    ("an hour is its beginning", "STUDY", {"StudyTime": "08"}, "A1"),
    ("a fraction of a second", "STUDY", {"StudyTime": "093000.250000"}, "A2"),
    ("a number by its value", "STUDY", {"PatientWeight": "7.05E1"}, "S1 S2"),
    ("an age", "STUDY", {"PatientAge": "042Y"}, "S1"),
    ("a number with a sign", "SERIES r", {"SeriesNumber": "+02"}, "A2.2 A3.2 M1.2 B1.2"),
    ("text beyond ASCII", "STUDY", {"StudyDescription": "Schädel"}, "M1"),
    ("nothing like it", "STUDY", {"StudyDescription": "Schadel"}, ""),
    ("quotes and dashes are text", "STUDY", {"PatientName": "100%_!'\";--^x"}, "O1"),
    ("a quote does not end a statement", "STUDY", {"PatientID": "' OR 1=1 --"}, ""),
    # C.2.2.2.2 list of UID
    (
        "a UID",
        "STUDY",
        {"StudyInstanceUID": study_uid("G1")},
        "G1",
    ),
    (
        "a list of UIDs",
        "STUDY",
        {"StudyInstanceUID": [study_uid("G1"), study_uid("R1"), "1.2.999"]},
        "G1 R1",
    ),
    ("a UID has no wild cards", "STUDY", {"StudyInstanceUID": "1.2.3.*"}, ""),
    (
        "a list of UIDs for another key than the unique one",
        "IMAGE r",
        {"SOPClassUID": [SOP_CLASSES["SR"], SOP_CLASSES["MR"]], "PatientID": "ADAMS"},
        "A3.1.1 A3.1.2 A3.1.3 A3.2.1",
    ),
    # C.2.2.2.3 universal; * and - are not allowed for dates and times, but are sent
    ("any date", "STUDY", {"PatientID": "ADAMS", "StudyDate": "*"}, "A1 A2 A3"),
    ("any time", "STUDY", {"PatientID": "ADAMS", "StudyTime": "* "}, "A1 A2 A3"),
    (
        "a range without ends",
        "STUDY",
        {"PatientID": "ADAMS", "StudyDate": "-", "StudyTime": " - "},
        "A1 A2 A3",
    ),
    ("no key", "STUDY", {}, ALL),
    (
        "keys without value",
        "STUDY",
        {"PatientName": "", "StudyDate": "", "ModalitiesInStudy": ""},
        ALL,
    ),
    ("a star alone", "STUDY", {"PatientName": "*", "StudyDescription": "*"}, ALL),
    ("many stars", "STUDY", {"PatientName": "*" * 5000}, ALL),
    # C.2.2.2.4 wild card
    ("a prefix", "STUDY", {"StudyDescription": "Thorax*"}, "A1 A2"),
    ("an end", "STUDY", {"StudyDescription": "*domen"}, "A2"),
    ("a middle", "STUDY", {"StudyDescription": "*mm?gr*"}, "S1 S2"),
    ("one character", "STUDY", {"AccessionNumber": "ACC00?"}, "A1 A2"),
    ("the case of text", "STUDY", {"AccessionNumber": "acc*"}, "A3"),
    ("no character is not one", "STUDY", {"AccessionNumber": "ACC001?"}, ""),
    ("no character is any sequence", "STUDY", {"AccessionNumber": "ACC001*"}, "A1"),
    ("an underscore is not a wild card", "STUDY", {"StudyDescription": "Knee_*"}, "D1"),
    ("a percent sign is not a wild card", "STUDY", {"AccessionNumber": "*0%"}, "J1"),
    ("nor is an exclamation mark", "STUDY", {"StudyDescription": "50%?off!*"}, "O1"),
    ("one character beyond ASCII", "STUDY", {"StudyDescription": "Cr?ne"}, "B1"),
    ("one ideograph", "STUDY", {"StudyDescription": "胸?"}, "Y1 C1 C2"),
    ("several values", "STUDY", {"StudyDescription": ["head", "Knee*"]}, "A3 D1 J1"),
    # Person names: C.2.2.2.1, C.2.2.2.4, PS3.5 6.2.1
    ("a name in any case", "STUDY", {"PatientName": "doe^jane"}, "J1"),
    ("a family name is all of a name", "STUDY", {"PatientName": "doe"}, "D1"),
    ("delimiters at the end may be there", "STUDY", {"PatientName": "Doe^^^^"}, "D1"),
    ("all of a family", "STUDY", {"PatientName": "doe*"}, "D1 J1"),
    ("a family with any given name, or none", "STUDY", {"PatientName": "Doe^*"}, "D1 J1"),
    ("any family", "STUDY", {"PatientName": "*^Mar?e"}, "S2"),
    ("a middle name", "STUDY", {"PatientName": "*^*^ann"}, "S1"),
    ("a suffix", "STUDY", {"PatientName": "*M.DIV."}, "A1 A2 A3"),
    ("a name cut short does not match", "STUDY", {"PatientName": "Smi"}, ""),
    ("umlauts in any case", "STUDY", {"PatientName": "MÜLLER^*"}, "M1"),
    ("accents count", "STUDY", {"PatientName": "Buc^Jerome"}, ""),
    ("romaji", "STUDY", {"PatientName": "yamada*"}, "Y1 Y2"),
    ("kanji", "STUDY", {"PatientName": "山田*"}, "Y1 Y2 K1"),
    ("kana", "STUDY", {"PatientName": "やまだ^は*"}, "K1"),
    ("half-width kana", "STUDY", {"PatientName": "ﾔﾏﾀﾞ*"}, "K1"),
    ("two groups, each in its place", "STUDY", {"PatientName": "Yamada^*=山田^*"}, "Y1 Y2"),
    ("one group in its place", "STUDY", {"PatientName": "=山田^太郎"}, "Y1 Y2"),
    ("a group in the wrong place", "STUDY", {"PatientName": "==山田^太郎"}, ""),
    ("the third group in its place", "STUDY", {"PatientName": "==やまだ*"}, "Y1 Y2 K1"),
    ("empty groups", "STUDY", {"PatientName": "=="}, ALL),
    ("hangul", "STUDY", {"PatientName": "홍^길동"}, "H1"),
    ("hangul and hanja", "STUDY", {"PatientName": "Hong*=洪*=홍*"}, "H1"),
    ("Greek capitals", "STUDY", {"PatientName": "ΔΙΟΝΥΣΙΟΣ*"}, "G1"),
    ("Greek with the other sigma", "STUDY", {"PatientName": "διονυσιοσ^*"}, "G1"),
    ("Cyrillic", "STUDY", {"PatientName": "люксембург^пётр"}, "R1"),
    ("Chinese", "STUDY", {"PatientName": "王^小东"}, "C1 C2"),
    ("Arabic", "STUDY", {"PatientName": "قباني^*"}, "AR1"),
    ("Hebrew", "STUDY", {"PatientName": "שרון*"}, "HE1"),
    ("one of several names", "STUDY", {"OtherPatientNames": "schmidt^*"}, "S1"),
    ("a whole one of several names", "STUDY", {"OtherPatientNames": "Smith^Marie"}, "S2"),
    ("no name over two of them", "STUDY", {"OtherPatientNames": "Jones*Maria"}, ""),
    ("one of several physicians", "STUDY", {"NameOfPhysiciansReadingStudy": "house*"}, "S1 S2"),
    ("one of several numbers", "STUDY", {"OtherStudyNumbers": "7"}, "S1"),
    ("not the beginning of one", "STUDY", {"OtherStudyNumbers": "12"}, "S1"),
    # Character sets of the identifier
    (
        "a key in ISO 2022 IR 87",
        "STUDY",
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "山田^太郎"},
        "Y1 Y2",
    ),
    (
        "a key in ISO 2022 IR 149",
        "STUDY",
        {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "홍*"},
        "H1",
    ),
    (
        "a key in ISO_IR 126",
        "STUDY",
        {"SpecificCharacterSet": "ISO_IR 126", "PatientName": "Διον*"},
        "G1",
    ),
    (
        "a key in ISO_IR 144",
        "STUDY",
        {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Люк*"},
        "R1",
    ),
    (
        "a key in ISO_IR 100",
        "STUDY",
        {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "müller*"},
        "M1",
    ),
    (
        "a key in GB18030",
        "STUDY",
        {"SpecificCharacterSet": "GB18030", "PatientName": "*=王*"},
        "C1 C2",
    ),
    # C.2.2.2.5 range
    ("a range of dates", "STUDY", {"StudyDate": "20200101-20200102"}, "A1 A2"),
    ("a range of one day", "STUDY", {"StudyDate": "20200101-20200101"}, "A1"),
    ("up to a date", "STUDY", {"StudyDate": "-20060704"}, "Y1"),
    ("from a date", "STUDY", {"StudyDate": "20230304-"}, "S2 O1"),
    ("a range with spaces", "STUDY", {"StudyDate": "20200101 - 20200102"}, "A1 A2"),
    ("a range from right to left", "STUDY", {"StudyDate": "20200102-20200101"}, ""),
    ("a leap day", "STUDY", {"StudyDate": "20240229"}, "O1"),
    ("two dates", "STUDY", {"StudyDate": ["20200101", "20210101"]}, "A1 D1"),
    ("a birth date", "PATIENT P", {"PatientBirthDate": "19800101-"}, "SMITH SMYTHE ODD%_!"),
    ("a range of times", "STUDY", {"StudyTime": "1800-180000"}, "Y1 G1"),
    ("the last minute of a range is all of it", "STUDY", {"StudyTime": "1800-1800"}, "Y1 G1 R1"),
    ("up to a time", "STUDY", {"StudyTime": "-0030"}, "D1 C2"),
    ("from a time", "STUDY", {"StudyTime": "2330-"}, "A3 C1"),
    (
        "date and time apart",
        "STUDY",
        {"StudyDate": "20060705-20060707", "StudyTime": "1000-180000"},
        "K1 H1 G1",
    ),
    (
        "date and time as one",
        "STUDY c",
        {"StudyDate": "20060704-20060706", "StudyTime": "1800-1100"},
        "Y1 Y2 K1",
    ),
    (
        "date and time as one, up to",
        "STUDY c",
        {"StudyDate": "-20060705", "StudyTime": "-095959"},
        "Y1 Y2",
    ),
    (
        "date and time as one, from",
        "STUDY c",
        {"StudyDate": "20230304-", "StudyTime": "120001-"},
        "O1",
    ),
    (
        "ranges of two forms stay apart",
        "STUDY c",
        {"StudyDate": "20060705-20060707", "StudyTime": "180000-"},
        "G1 R1",
    ),
    (
        "another time zone, by negotiation",
        "STUDY t",
        {"StudyDate": "20190630", "TimezoneOffsetFromUTC": "+0000"},
        "C1 C2",
    ),
    (
        "another time zone, date and time as one",
        "STUDY tc",
        {
            "StudyDate": "20190630-20190630",
            "StudyTime": "1600-1700",
            "TimezoneOffsetFromUTC": "+0000",
        },
        "C2",
    ),
    (
        "a time in another zone",
        "STUDY t",
        {"StudyTime": "1530", "TimezoneOffsetFromUTC": "+0000", "PatientID": "CHINESE"},
        "C1",
    ),
    (
        "no negotiation, no other zone",
        "STUDY",
        {"StudyDate": "20190630", "TimezoneOffsetFromUTC": "+0000"},
        "C1",
    ),
    # C.2.2.2.6 sequence
    ("an item", "STUDY", {"ProcedureCodeSequence": {"CodeValue": "P1"}}, "S1 S2"),
    (
        "two keys of one item",
        "STUDY",
        {"ProcedureCodeSequence": {"CodeValue": "P1", "CodingSchemeDesignator": "99X"}},
        "S1",
    ),
    ("wild cards in an item", "STUDY", {"ProcedureCodeSequence": {"CodeValue": "?2"}}, "S2"),
    ("no item like it", "STUDY", {"ProcedureCodeSequence": {"CodeValue": "P3"}}, ""),
    ("an item of empty keys", "STUDY", {"ProcedureCodeSequence": {"CodeValue": ""}}, ALL),
    ("an empty item", "STUDY", {"ProcedureCodeSequence": {}}, ALL),
    ("an empty sequence", "STUDY", {"ProcedureCodeSequence": []}, ALL),
    # C.2.2.2.7 and C.2.2.2.8, by negotiation
    ("two quotation marks without it", "STUDY", {"StudyDescription": '""'}, ""),
    ("any of several values", "STUDY", {"ModalitiesInStudy": ["MR", "SR"]}, "A3 K1 M1"),
    ("all of several values", "STUDY m", {"ModalitiesInStudy": ["CT", "PT"]}, "A2 M1 B1"),
    (
        "all of several values, in any order",
        "STUDY m",
        {"NameOfPhysiciansReadingStudy": ["House^Gregory", "Grey^Meredith"]},
        "S1",
    ),
    (
        "any of several values with a wild card",
        "STUDY m",
        {"ModalitiesInStudy": ["M?", "SR"]},
        "A3 K1 M1 S1 S2",
    ),
    # Computed attributes
    ("a modality in the study", "STUDY", {"ModalitiesInStudy": "MR"}, "A3 K1 M1"),
    ("a modality in its case", "STUDY", {"ModalitiesInStudy": "mr"}, ""),
    ("a SOP class in the study", "STUDY", {"SOPClassesInStudy": SOP_CLASSES["SR"]}, "A3"),
    ("a number of series", "STUDY", {"NumberOfStudyRelatedSeries": "3"}, "M1"),
    ("a number of instances", "PATIENT P", {"NumberOfPatientRelatedInstances": "9"}, "ADAMS"),
    # Fuzzy names, by negotiation
    ("a name by its sound", "STUDY f", {"PatientName": "Smit"}, "S1 S2"),
    ("words of a name in another order", "STUDY f", {"PatientName": "Mary Smith"}, "S1 S2"),
    ("a name without its accents", "STUDY f", {"PatientName": "Mueller"}, "M1"),
    ("a word that is not there", "STUDY f", {"PatientName": "Smith^John"}, ""),
    ("wild cards as ever", "STUDY f", {"PatientName": "Smi*"}, "S1"),
    ("ideographs as they are", "STUDY f", {"PatientName": "花子"}, "K1"),
    ("nothing by sound without it", "STUDY", {"PatientName": "Mueller"}, ""),
    # Levels and models
    ("patients", "PATIENT P", {}, " ".join(PATIENTS)),
    ("patients of a family", "PATIENT P", {"PatientName": "doe*"}, "DOE JANE"),
    ("patients in the retired model", "PATIENT Q", {"PatientName": "*山田*"}, "YAMADA KANA"),
    ("studies of a patient", "STUDY P", {"PatientID": "ADAMS"}, "A1 A2 A3"),
    ("studies in the retired model", "STUDY Q", {"PatientID": "YAMADA"}, "Y1 Y2"),
    ("series of a study", "SERIES", {"StudyInstanceUID": study_uid("A2")}, "A2.1 A2.2"),
    (
        "series of a modality",
        "SERIES P",
        {"PatientID": "ADAMS", "StudyInstanceUID": study_uid("A2"), "Modality": "P?"},
        "A2.2",
    ),
    (
        "a study of somebody else",
        "SERIES P",
        {"PatientID": "DOE", "StudyInstanceUID": study_uid("A2")},
        "",
    ),
    (
        "instances of a series",
        "IMAGE",
        {"StudyInstanceUID": study_uid("A3"), "SeriesInstanceUID": series_uid("A3.1")},
        "A3.1.1 A3.1.2 A3.1.3",
    ),
    (
        "an attribute that has no column",
        "IMAGE",
        {
            "StudyInstanceUID": study_uid("A3"),
            "SeriesInstanceUID": series_uid("A3.1"),
            "Rows": 128,
        },
        "A3.1.2",
    ),
    ("series of anybody", "SERIES r", {"Modality": "MR"}, "A3.1 K1.1 M1.2"),
    ("a key of the level above", "SERIES r", {"PatientName": "müller*"}, "M1.1 M1.2 M1.3"),
    ("instances by name", "IMAGE r", {"PatientName": "yamada*"}, "Y1.1.1 Y2.1.1"),
    ("a key of the level below", "STUDY r", {"Modality": "MR"}, "A3 K1 M1"),
    (
        "two keys below are of one series",
        "STUDY r",
        {"Modality": "PT", "SeriesNumber": "2"},
        "A2",
    ),
    ("a key two levels below", "PATIENT Pr", {"SOPClassUID": SOP_CLASSES["SR"]}, "ADAMS"),
]


def _model(flags: str) -> InformationModel:
    if "P" in flags:
        return InformationModel.PATIENT_ROOT
    return InformationModel.PATIENT_STUDY_ONLY if "Q" in flags else InformationModel.STUDY_ROOT


@pytest.mark.parametrize(
    ("query", "keys", "expected"), [row[1:] for row in QUERIES], ids=[row[0] for row in QUERIES]
)
def test_what_is_found(index: Index, query: str, keys: dict[str, Any], expected: str) -> None:
    level, _, flags = query.partition(" ")
    identifier = data_set(
        **{
            "SpecificCharacterSet": "ISO_IR 192",
            "QueryRetrieveLevel": level,
            UNIQUE[level]: "",
            **keys,
        }
    )
    answers = find(index, identifier, flags.strip("PQ"), model=_model(flags))
    assert sorted(labels(answers, level)) == sorted(expected.split())
    assert all(each.QueryRetrieveLevel == level for each in answers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "keys"), [row[1:3] for row in QUERIES], ids=[row[0] for row in QUERIES]
)
def test_queries_are_for_postgresql_too(query: str, keys: dict[str, Any]) -> None:
    """They compile, and have no BETWEEN: with a collation, PostgreSQL refuses it."""
    level, _, flags = query.partition(" ")
    identifier = data_set(**{"QueryRetrieveLevel": level, UNIQUE[level]: "", **keys})
    found = find_query(identifier, _model(flags), options(flags.strip("PQ")))
    answers = Answers(found, EXPLICIT_VR_LITTLE_ENDIAN, "ARCHIVE", lambda *_: 0)
    for statement in (found.ids(), answers.statement()):
        assert "BETWEEN" not in str(statement.compile(dialect=postgresql.dialect()))


# -- attributes without value ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study A1 as it is, and study A2 without date, description, accession number and birth date."""
    directory = tmp_path_factory.mktemp("unknown")
    made = [each for label, each in instances() if label.startswith(("A1.", "A2."))]
    for each in made:
        if each.StudyInstanceUID == study_uid("A2"):
            each.StudyDate = ""
            each.StudyDescription = None
            del each.AccessionNumber
            del each.ProcedureCodeSequence
            del each.OtherStudyNumbers
            del each.NameOfPhysiciansReadingStudy
    with Index(database_url(directory / "index.db")) as opened:
        add(opened, made, EXPLICIT_VR_LITTLE_ENDIAN)
    return directory / "index.db"


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"StudyDate": "20190101"}, ""),
    ({"StudyDate": "20200101"}, "A1"),
    ({"StudyDate": "20200101-"}, "A1"),
    ({"AccessionNumber": "nobody's"}, ""),
    ({"StudyDescription": "X*"}, ""),
    ({"ProcedureCodeSequence": {"CodeValue": "NONE"}}, "A1"),
    ({"OtherStudyNumbers": "99"}, "A1"),
]


@pytest.mark.parametrize(("keys", "known"), UNKNOWN)
@pytest.mark.parametrize("match_unknown", [True, False])
def test_an_attribute_without_value_passes_any_key(
    unknown: Path, keys: dict[str, Any], known: str, match_unknown: bool
) -> None:
    """PS3.4 C.2.2.1.2: matching against a zero length required key is successful; can be left out."""
    identifier = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID="", **keys)
    with Index(database_url(unknown)) as index:
        found = labels(find(index, identifier, match_unknown=match_unknown), "STUDY")
    assert found == known.split() + (["A2"] if match_unknown else [])


@pytest.mark.parametrize(
    "keyword",
    ["StudyDate", "AccessionNumber", "StudyDescription", "NameOfPhysiciansReadingStudy"],
)
def test_empty_value_matching_finds_what_has_none(unknown: Path, keyword: str) -> None:
    """PS3.4 C.2.2.2.7, by negotiation: two quotation marks."""
    identifier = data_set(**{"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", keyword: '""'})
    with Index(database_url(unknown)) as index:
        assert labels(find(index, identifier, "e"), "STUDY") == ["A2"]


def test_combined_ranges_take_what_has_no_time(tmp_path: Path) -> None:
    """PS3.4 C.2.2.1.2: an unknown time may be any time of its day."""
    made = [each for label, each in instances() if label == "A1.1.1"]
    made[0].StudyTime = ""
    identifier = data_set(
        QueryRetrieveLevel="STUDY",
        StudyInstanceUID="",
        StudyDate="20200101-20200102",
        StudyTime="1200-1300",
    )
    with Index(database_url(tmp_path / "index.db")) as index:
        add(index, made, EXPLICIT_VR_LITTLE_ENDIAN)
        assert labels(find(index, identifier, "c", match_unknown=True), "STUDY") == ["A1"]
        assert labels(find(index, identifier, "c"), "STUDY") == []
        identifier.StudyDate = "20200102-20200103"
        assert labels(find(index, identifier, "c", match_unknown=True), "STUDY") == []


@pytest.mark.parametrize(
    ("flags", "keys", "unknown"),
    [
        ("c", {"StudyDate": "20200101-20200102", "StudyTime": "1200-1300"}, {"StudyTime": ""}),
        ("c", {"StudyDate": "20200101-20200102", "StudyTime": "1200-1300"}, {"StudyDate": ""}),
        ("t", {"StudyDate": "20200101", "TimezoneOffsetFromUTC": "+0000"}, {"StudyDate": ""}),
        ("", {"ModalitiesInStudy": "CT"}, {"Modality": ""}),
        ("m", {"NameOfPhysiciansReadingStudy": ["A", "B"]}, {"NameOfPhysiciansReadingStudy": ""}),
        ("m", {"PatientComments": ["A", "B"]}, {"PatientComments": ""}),
        ("", {"ReferencedStudySequence": {"ReferencedSOPInstanceUID": "1.2"}}, {}),
    ],
)
@pytest.mark.parametrize("match_unknown", [True, False])
def test_what_is_unknown_may_be_left_out_everywhere(
    tmp_path: Path,
    flags: str,
    keys: dict[str, Any],
    unknown: dict[str, Any],
    match_unknown: bool,
) -> None:
    made = [each for label, each in instances() if label == "A1.1.1"]
    made[0].update(data_set(**unknown))
    identifier = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID="", **keys)
    url = database_url(tmp_path / "index.db")
    with Index(url) as index:
        add(index, made, EXPLICIT_VR_LITTLE_ENDIAN)
        found = labels(find(index, identifier, flags, match_unknown=match_unknown), "STUDY")
    assert found == (["A1"] if match_unknown else [])


def test_a_patient_without_id_is_nobody_else(tmp_path: Path) -> None:
    """Two persons without an ID are not one person, whatever their names."""
    made = [each for label, each in instances() if label in ("A1.1.1", "A2.1.1")]
    for each in made:
        each.PatientID = ""
    with Index(database_url(tmp_path / "index.db")) as index:
        add(index, made, EXPLICIT_VR_LITTLE_ENDIAN)
        assert index.counts().patients == 2


# -- what cannot be answered ----------------------------------------------------------------------------

STUDY = study_uid("A1")
MALFORMED: list[tuple[str, str, dict[str, Any], int]] = [
    ("no level", "", {}, 0xA900),
    ("an empty level", "", {"QueryRetrieveLevel": ""}, 0xA900),
    ("a level of none", "", {"QueryRetrieveLevel": "FRAME"}, 0xA900),
    ("a level of another model", "", {"QueryRetrieveLevel": "PATIENT"}, 0xA900),
    ("a level in small letters", "", {"QueryRetrieveLevel": "study"}, 0xA900),
    ("a level below the model", "Q", {"QueryRetrieveLevel": "SERIES"}, 0xA900),
    ("no patient", "P", {"QueryRetrieveLevel": "STUDY"}, 0xA900),
    ("any patient", "P", {"QueryRetrieveLevel": "STUDY", "PatientID": ""}, 0xA900),
    ("wild patients", "P", {"QueryRetrieveLevel": "STUDY", "PatientID": "A*"}, 0xA900),
    ("two patients", "P", {"QueryRetrieveLevel": "STUDY", "PatientID": ["A", "B"]}, 0xA900),
    ("no study", "", {"QueryRetrieveLevel": "SERIES"}, 0xA900),
    (
        "two studies",
        "",
        {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": [STUDY, "1.2"]},
        0xA900,
    ),
    ("no series", "", {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": STUDY}, 0xA900),
    ("no such day", "", {"QueryRetrieveLevel": "STUDY", "StudyDate": "20240230"}, 0xC000),
    ("no date", "", {"QueryRetrieveLevel": "STUDY", "StudyDate": "2024-99-99"}, 0xC000),
    ("half a date", "", {"QueryRetrieveLevel": "STUDY", "StudyDate": "2024"}, 0xC000),
    ("a wild date", "", {"QueryRetrieveLevel": "STUDY", "StudyDate": "2024*"}, 0xC000),
    ("only hyphens", "", {"QueryRetrieveLevel": "STUDY", "StudyDate": "--"}, 0xC000),
    ("no time", "", {"QueryRetrieveLevel": "STUDY", "StudyTime": "2500"}, 0xC000),
    ("a wrong range", "", {"QueryRetrieveLevel": "STUDY", "StudyTime": "1000-soon"}, 0xC000),
    (
        "no zone",
        "t",
        {"QueryRetrieveLevel": "STUDY", "TimezoneOffsetFromUTC": "CET"},
        0xC000,
    ),
    (
        "two items",
        "",
        {"QueryRetrieveLevel": "STUDY", "ProcedureCodeSequence": [{"CodeValue": "1"}, {}]},
        0xC000,
    ),
    (
        "too many UIDs",
        "",
        {
            "QueryRetrieveLevel": "STUDY",
            "StudyInstanceUID": [f"1.{number}" for number in range(10_001)],
        },
        0xC000,
    ),
    (
        "too many wild cards",
        "",
        {"QueryRetrieveLevel": "STUDY", "StudyDescription": [f"{n}*" for n in range(101)]},
        0xC000,
    ),
    (
        "too long a wild card",
        "",
        {"QueryRetrieveLevel": "STUDY", "StudyDescription": "*?" * 1000},
        0xC000,
    ),
    (
        "a range of nothing but hyphens",
        "",
        {"QueryRetrieveLevel": "STUDY", "StudyDate": "1" + "-" * 60_000},
        0xC000,
    ),
    (
        "a time of 60,000 digits",
        "",
        {"QueryRetrieveLevel": "STUDY", "StudyTime": "1" * 60_000},
        0xC000,
    ),
    (
        "a name of combining marks in the wrong order",
        "",
        {
            "SpecificCharacterSet": "ISO_IR 192",
            "QueryRetrieveLevel": "STUDY",
            "PatientName": "\u0315\u0300" * 15_000,
        },
        0xC000,
    ),
    (
        "an age of 60,000 digits",
        "",
        {"QueryRetrieveLevel": "STUDY", "PatientAge": "1" * 60_000},
        0xC000,
    ),
    (
        "too many ranges",
        "",
        {"QueryRetrieveLevel": "STUDY", "StudyDate": [f"{1000 + n}0101-" for n in range(257)]},
        0xC000,
    ),
    (
        "too many names",
        "",
        {"QueryRetrieveLevel": "STUDY", "PatientName": [f"A{n}" for n in range(257)]},
        0xC000,
    ),
    (
        "too many values that must all be found",
        "m",
        {"QueryRetrieveLevel": "STUDY", "ModalitiesInStudy": [f"M{n}" for n in range(65)]},
        0xC000,
    ),
]


@pytest.mark.parametrize(
    ("flags", "keys", "status"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_a_malformed_identifier_gets_its_status(
    index: Index, flags: str, keys: dict[str, Any], status: int
) -> None:
    """PS3.4 Table C.4-1: 0xA900 identifier does not match SOP class, 0xCxxx unable to process."""
    with pytest.raises(MatchingError) as caught:
        # Implicit VR: in explicit VR no list of this length can be written.
        find(
            index,
            data_set(**keys),
            flags.strip("PQ"),
            model=_model(flags),
            transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN,
        )
    assert caught.value.status == status
    # PS3.7 E.2: Error Comment is LO. No value of a key is in it.
    assert 0 < len(caught.value.comment) <= 64
    assert not any(str(value) in caught.value.comment for value in keys.values() if value)


@pytest.mark.parametrize(
    "value", [Dataset(), [Dataset()], Items([Dataset()])], ids=["data set", "list", "sequence"]
)
def test_a_sequence_where_text_is_expected_is_refused(index: Index, value: Any) -> None:
    """A program may make such an identifier itself; one that comes over a network is never like this."""
    identifier = data_set(QueryRetrieveLevel="STUDY")
    identifier[0x00100010] = DataElement(0x00100010, "SQ", Items())
    identifier[0x00100010]._value = value
    with pytest.raises(MatchingError, match="PatientName is a sequence"):
        Search(index).find_pages(
            identifier,
            model=InformationModel.STUDY_ROOT,
            options=QueryOptions(),
            transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
            retrieve_ae_title="ARCHIVE",
        )


@pytest.mark.parametrize("value", ["text", b"octets", 7])
def test_something_else_where_a_sequence_is_expected_is_refused(index: Index, value: Any) -> None:
    identifier = data_set(QueryRetrieveLevel="STUDY", ProcedureCodeSequence=[])
    identifier[0x00081032]._value = value
    with pytest.raises(MatchingError, match="ProcedureCodeSequence is not a sequence"):
        Search(index).matches(identifier, InformationModel.STUDY_ROOT, QueryOptions())


def test_an_unknown_attribute_of_several_values_is_matched_by_any(index: Index) -> None:
    """The data dictionary says nothing of its multiplicity."""
    identifier = data_set(QueryRetrieveLevel="IMAGE", SOPInstanceUID=instance_uid("A1.1.1"))
    identifier.add_new(0x00180001, "LO", ["A", "B"])
    # Nobody has it: what is unknown may be anything, where that is asked for.
    assert len(find(index, identifier, "rm", match_unknown=True)) == 1
    assert find(index, identifier, "rm") == []


def test_too_many_keys_are_refused(index: Index) -> None:
    identifier = data_set(QueryRetrieveLevel="STUDY")
    for number in range(513):
        identifier.add_new(0x00180000 + 2 * number + 0x10, "LO", "")
    with pytest.raises(MatchingError, match="512 keys"):
        find(index, identifier)


def test_keys_nested_too_deep_are_refused(index: Index) -> None:
    item = data_set(CodeValue="1")
    for _ in range(9):
        item = data_set(ProcedureCodeSequence=[{}]) if item is None else _nested(item)
    item.QueryRetrieveLevel = "STUDY"
    with pytest.raises(MatchingError, match="nested"):
        find(index, item)


def _nested(item: Dataset) -> Dataset:
    outer = Dataset()
    outer.ProcedureCodeSequence = [item]
    return outer


def test_ten_thousand_uids_are_matched(index: Index) -> None:
    uids = [f"1.{number}" for number in range(9_999)] + [STUDY]
    identifier = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID=uids)
    answers = find(index, identifier, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN)
    assert labels(answers, "STUDY") == ["A1"]


def length_of(keys: dict[str, Any], flags: str = "") -> int:
    """How many characters the statement of a query has."""
    query = find_query(
        data_set(QueryRetrieveLevel="STUDY", **keys), InformationModel.STUDY_ROOT, options(flags)
    )
    return len(str(query.ids()))


def test_thousands_of_modalities_make_one_subquery(index: Index) -> None:
    """A subquery for each kept a database busy for minutes, and took a gigabyte to be compiled."""
    many = [f"M{number}" for number in range(5_000)]
    assert length_of({"ModalitiesInStudy": many}) == length_of({"ModalitiesInStudy": many[:2]})
    asked = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}
    identifier = data_set(**asked, ModalitiesInStudy=[*many, "CT"])
    answers = find(index, identifier, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN)
    one = find(index, data_set(**asked, ModalitiesInStudy="CT"))
    assert labels(answers, "STUDY") == labels(one, "STUDY") != []


def test_thousands_of_values_of_a_list_are_compared_without_a_clause_each() -> None:
    ids = [f"ID{number}" for number in range(3_000)]
    assert length_of({"OtherPatientIDs": ids}) < length_of({"OtherPatientIDs": ids[:10]})


def test_a_name_of_many_stars_is_looked_for_in_two_forms() -> None:
    name = "a^*^*"
    assert length_of({"PatientName": "a" + "^*" * 100}) == length_of({"PatientName": name})


@pytest.mark.parametrize(
    ("level", "keys", "status"),
    [
        pytest.param("STUDY", {"StudyDescription": "T*"}, 0xFF00, id="a column"),
        pytest.param("STUDY", {"ModalitiesInStudy": "CT"}, 0xFF00, id="a computed attribute"),
        pytest.param("STUDY", {"ProcedureCodeSequence": {"CodeValue": "P1"}}, 0xFF00, id="items"),
        pytest.param("STUDY", {"Modality": "CT"}, 0xFF00, id="a column below"),
        pytest.param("STUDY", {"Rows": ""}, 0xFF00, id="nothing to match"),
        pytest.param(
            "STUDY", {"PerformingPhysicianName": "A*"}, 0xFF01, id="wild cards in many, below"
        ),
        pytest.param("STUDY", {"Rows": 64}, 0xFF01, id="no column, above IMAGE"),
        pytest.param("STUDY", {"NumberOfSeriesRelatedInstances": "1"}, 0xFF01, id="a count below"),
        pytest.param(
            "STUDY", {"RequestAttributesSequence": {"CodeValue": "1"}}, 0xFF01, id="items below"
        ),
        pytest.param("IMAGE", {"Rows": 64}, 0xFF00, id="no column, at IMAGE"),
    ],
)
def test_the_status_says_whether_every_key_was_matched(
    index: Index, level: str, keys: dict[str, Any], status: int
) -> None:
    """PS3.4 Table C.4-1: 0xFF01 when an optional key was not supported for matching."""
    pages = Search(index).find_pages(
        data_set(QueryRetrieveLevel=level, **keys),
        model=InformationModel.STUDY_ROOT,
        options=options("r"),
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        retrieve_ae_title="ARCHIVE",
    )
    assert pages.status == status
    assert any(pages)


# -- retrieval ------------------------------------------------------------------------------------------


def _retrieved(index: Index, model: InformationModel, flags: str = "", **keys: Any) -> list[str]:
    refs = Search(index).matches(data_set(**keys), model, options(flags))
    by_uid = {str(each.SOPInstanceUID): label for label, each in instances()}
    assert all(ref.path == Path("/files") / f"{ref.sop_instance_uid}.dcm" for ref in refs)
    return [by_uid[ref.sop_instance_uid] for ref in refs]


RETRIEVALS: list[tuple[str, str, dict[str, Any], str]] = [
    ("a patient", "P", {"PatientID": "YAMADA"}, "Y1.1.1 Y2.1.1"),
    ("nobody", "P", {"PatientID": "NOBODY"}, ""),
    ("a study", "", {"StudyInstanceUID": study_uid("A2")}, "A2.1.1 A2.1.2 A2.2.1"),
    (
        "studies",
        "",
        {"StudyInstanceUID": [study_uid("Y1"), study_uid("K1")]},
        "Y1.1.1 K1.1.1",
    ),
    (
        "a series",
        "",
        {"StudyInstanceUID": study_uid("A2"), "SeriesInstanceUID": series_uid("A2.2")},
        "A2.2.1",
    ),
    (
        "a series of another study",
        "",
        {"StudyInstanceUID": study_uid("A1"), "SeriesInstanceUID": series_uid("A2.2")},
        "",
    ),
    (
        "instances",
        "",
        {
            "StudyInstanceUID": study_uid("A3"),
            "SeriesInstanceUID": series_uid("A3.1"),
            "SOPInstanceUID": [instance_uid("A3.1.1"), instance_uid("A3.1.3"), "1.2.3.4.5"],
        },
        "A3.1.1 A3.1.3",
    ),
    ("a series alone, relational", "r", {"SeriesInstanceUID": series_uid("A2.2")}, "A2.2.1"),
    (
        "a study in the retired model",
        "Q",
        {"PatientID": "YAMADA", "StudyInstanceUID": study_uid("Y2")},
        "Y2.1.1",
    ),
    ("an instance alone", "C", {"SOPInstanceUID": instance_uid("A3.2.1")}, "A3.2.1"),
    (
        "with a key that makes it less",
        "",
        {"StudyInstanceUID": study_uid("A2"), "Modality": "PT", "PatientName": "adams*"},
        "A2.2.1",
    ),
    (
        "with an attribute of the header that makes it less",
        "",
        {"StudyInstanceUID": study_uid("A2"), "Rows": 128},
        "A2.1.2",
    ),
]
LEVEL_OF = {each: level for level, each in UNIQUE.items()}


@pytest.mark.parametrize(
    ("flags", "keys", "expected"),
    [row[1:] for row in RETRIEVALS],
    ids=[row[0] for row in RETRIEVALS],
)
def test_what_is_retrieved(index: Index, flags: str, keys: dict[str, Any], expected: str) -> None:
    """PS3.4 C.4.2.1.4, C.4.2.2.1, Y.4."""
    level = [LEVEL_OF[each] for each in UNIQUE.values() if each in keys][-1]
    model = InformationModel.COMPOSITE_INSTANCE_ROOT if flags == "C" else _model(flags)
    found = _retrieved(index, model, flags.strip("PQC"), QueryRetrieveLevel=level, **keys)
    assert sorted(found) == sorted(expected.split())


@pytest.mark.parametrize(
    ("flags", "keys"),
    [
        pytest.param("", {"QueryRetrieveLevel": "STUDY"}, id="no study"),
        pytest.param("", {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}, id="empty"),
        pytest.param("P", {"QueryRetrieveLevel": "PATIENT", "PatientID": "*"}, id="anybody"),
        pytest.param("P", {"QueryRetrieveLevel": "PATIENT", "PatientID": "A?"}, id="wild"),
        pytest.param("P", {"QueryRetrieveLevel": "PATIENT", "PatientID": ["A", "B"]}, id="two"),
        pytest.param(
            "", {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2"}, id="not relational"
        ),
        pytest.param("r", {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": STUDY}, id="study"),
    ],
)
def test_nothing_is_retrieved_without_its_unique_key(
    index: Index, flags: str, keys: dict[str, Any]
) -> None:
    """An empty unique key must never mean the whole archive."""
    with pytest.raises(MatchingError) as caught:
        _retrieved(index, _model(flags), flags.strip("PQ"), **keys)
    assert caught.value.status == 0xA900


# -- negotiation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (b"\1", b"\1"),
        (b"\0", b"\0"),
        (b"\1\1\1\1\1\1\1", b"\1\1\1\1\0\1\1"),
        (b"\1\0\1", b"\1\0\1"),
        (b"\1\1\1\1\1\1\1\1\1", b"\1\1\1\1\0\1\1\0\0"),
        (b"\2\xff", b"\0\0"),
    ],
)
def test_extended_negotiation_says_what_is_done(offered: bytes, answered: bytes) -> None:
    """PS3.4 Table C.5-2; enhanced multi-frame conversion is not done."""
    assert QueryOptions.answer(offered) == answered
    accepted = QueryOptions.of(answered)
    assert accepted.relational == (answered[0] == 1)
    assert accepted.multiple_value == (len(answered) > 6)


def test_every_sop_class_has_its_model() -> None:
    models = json.loads(
        (Path(__file__).parents[2] / "standard" / "qr_information_model.json").read_text()
    )["models"]
    for name in ("patient_root", "study_root", "patient_study_only", "composite_instance_root"):
        for uid in models[name]["sop_classes"].values():
            assert InformationModel.of(uid) is InformationModel[name.upper()]


# -- tests of values, in Python as in SQL ----------------------------------------------------------------

CRITERIA: list[tuple[Criterion, str, bool]] = [
    (Criterion("LO", (Equal("a"), Equal("b"))), "b", True),
    (Criterion("LO", (Equal("a"), Equal("b")), is_all=True), "b", False),
    (Criterion("LO", (Equal("b"), Like("?")), is_all=True), "b", True),
    (Criterion("LO", (Equal("a"), Like("b*"))), "bc", True),
    (Criterion("LO", ()), "a", False),
    (Criterion("LO", (), takes_empty=True), "", True),
    (Criterion("DA", (range_of("DA", "20240101"),)), "not a date", False),
    (Criterion("DS", (Number("1.5"),)), "1.50", True),
    (Criterion("PN", (Fuzzy.of("Smit"),)), "Smith^John", True),
    (Criterion("PN", (Fuzzy.of("Smit"),)), "Jones", False),
]


@pytest.mark.parametrize(("criterion", "text", "passes"), CRITERIA)
def test_a_criterion_says_the_same_twice(
    connection: sa.Connection, criterion: Criterion, text: str, passes: bool
) -> None:
    assert criterion.accepts(text) == passes
    keys = (
        [sa.literal(each) for each in keys_of(criterion.vr, text)] if criterion.vr != "LO" else []
    )
    clause = criterion.clause(sa.literal(text), keys)
    assert bool(connection.scalar(sa.select(clause))) == passes


# -- any key at all --------------------------------------------------------------------------------------

PATTERNS = st.text(alphabet="ab*?%_!é\\'", max_size=12)
TEXTS = st.text(alphabet="ab*?%_!é'", min_size=1, max_size=12)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Connection]:
    engine = open_engine(database_url(tmp_path_factory.mktemp("clauses") / "index.db"))
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def _by_reference(pattern: str, text: str) -> bool:
    parts = {"*": ".*", "?": "."}
    expression = "".join(parts.get(each) or re.escape(each) for each in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


@given(pattern=PATTERNS, text=TEXTS)
def test_wild_cards_match_as_in_a_regular_expression(
    connection: sa.Connection, pattern: str, text: str
) -> None:
    expected = _by_reference(pattern, text)
    assert matches_wild_card(pattern, text) == expected
    clause = Like(pattern).clause(sa.literal(text), ())
    assert bool(connection.scalar(sa.select(clause))) == expected


def test_wild_cards_take_no_exponential_time() -> None:
    """Each star of a naive matcher would multiply the work."""
    assert not matches_wild_card("*a" * 500 + "b", "a" * 10_000)


# Both small sigmas and the capital one are among the letters.
NAMES = st.lists(
    st.lists(st.text(alphabet="aAb\u03c3\u03c2\u03a3山 ", max_size=3), min_size=1, max_size=5).map(
        "^".join
    ),
    min_size=1,
    max_size=3,
).map("=".join)
NAME_KEYS = st.lists(
    st.lists(st.text(alphabet="aAb\u03c3\u03c2\u03a3山*?", max_size=3), min_size=1, max_size=5).map(
        "^".join
    ),
    min_size=1,
    max_size=3,
).map("=".join)


@pytest.mark.slow
@given(key=NAME_KEYS, name=NAMES)
def test_names_match_in_python_as_in_sql(connection: sa.Connection, key: str, name: str) -> None:
    test = Name.of(key)
    columns = [sa.literal(each) for each in (*person_name(name), sound(name))]
    clause = test.clause(sa.literal(name), columns)
    assert bool(connection.scalar(sa.select(clause))) == test.accepts(name)


@given(name=NAMES)
def test_a_name_matches_itself(name: str) -> None:
    assert Name.of(name).accepts(name) or not name.strip("^= ")


DATES = st.dates(min_value=date(1500, 1, 1)).map("{:%Y%m%d}".format)


@given(day=DATES, ends=st.tuples(st.one_of(st.none(), DATES), st.one_of(st.none(), DATES)))
def test_a_range_of_dates_has_both_its_ends(
    connection: sa.Connection, day: str, ends: tuple[str | None, str | None]
) -> None:
    first, last = ends
    if first is None and last is None:
        return
    test = range_of("DA", f"{first or ''}-{last or ''}")
    expected = (first is None or first <= day) and (last is None or day <= last)
    assert test.accepts(day) == expected
    clause = test.clause(sa.literal(day), [sa.literal(day)])
    assert bool(connection.scalar(sa.select(clause))) == expected


@pytest.mark.parametrize(
    ("key", "value", "passes"),
    [
        ("20240101103000.0000", "20240101103000", True),
        ("20240101103000", "20240101103001", False),
        ("20240101", "20240101103000", False),
        ("20240101-20240101", "20240101103000", True),
        ("2024-2024", "20241231235959", True),
        ("-202401", "20240131235959", True),
        ("-202401", "20240201", False),
        ("202402-", "20240201", True),
        pytest.param("20240101103000+0100", "20240101093000+0000", True, id="one moment"),
        pytest.param("20240101103000-0500", "20240101153000+0000", True, id="a negative offset"),
        pytest.param("20240101103000+0100", "20240101103000", True, id="local time on one side"),
        pytest.param(
            "20240101100000+0100-20240101110000+0100", "20240101093000+0000", True, id="range"
        ),
        pytest.param(
            "20240101100000+0100-20240101110000+0100", "20240101103000+0000", False, id="not"
        ),
        ("20240101-20240102", "soon", False),
    ],
)
def test_date_times_are_moments(key: str, value: str, passes: bool) -> None:
    """PS3.4 C.2.2.2.1, C.2.2.2.5.3; the index has no such column, items of sequences have."""
    assert range_of("DT", key).accepts(value) == passes


VRS = st.sampled_from(re.findall("..", "AEASATCSDADSDTFDFLISLOLTOBOWPNSHSLSQSSSTTMUIULUNUSUT"))
TAGS = st.one_of(
    st.sampled_from([*ATTRIBUTES, *COMPUTED, 0x00080005, 0x00080052, 0x00080201, 0x00280010]),
    st.integers(0x00080000, 0x7FDFFFFF),
)
VALUES = st.one_of(
    st.binary(max_size=24),
    st.sampled_from(
        [b"", b"*", b"-", b'""', b"\\", b"=", b"^*", b"20200101-", b"CT\\MR", b"1.2.3.1"]
    ),
    st.text(alphabet="*?-=^\\\"'%_ 019aé山", max_size=16).map(str.encode),
)


@st.composite
def identifiers(draw: st.DrawFn) -> bytes:
    level = draw(st.sampled_from(["PATIENT", "STUDY", "SERIES", "IMAGE"])).encode()
    keys = draw(st.dictionaries(TAGS, st.tuples(VRS, VALUES), max_size=6))
    charset = draw(
        st.sampled_from([b"", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"ISO_IR 13", b"KLINGON"])
    )
    keys = {0x00080005: ("CS", charset), 0x00080052: ("CS", level), **keys}
    return b"".join(
        encode_element(tag, vr, value[:24], CANONICAL) for tag, (vr, value) in sorted(keys.items())
    )


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=identifiers(), flags=st.sets(st.sampled_from("rcftem")).map("".join))
def test_no_identifier_raises_anything_else(index: Index, octets: bytes, flags: str) -> None:
    """Whatever a peer sends: answers, or a status."""
    try:
        identifier = decode(octets, EXPLICIT_VR_LITTLE_ENDIAN)
    except DataSetError:
        return
    for transfer_syntax in (EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN):
        try:
            found = list(
                Search(index).find(
                    identifier,
                    model=InformationModel.PATIENT_ROOT,
                    options=options(flags),
                    transfer_syntax=transfer_syntax,
                    retrieve_ae_title="ARCHIVE",
                )
            )
        except MatchingError:
            return
        for each in found:
            decode(each, transfer_syntax).walk(lambda _, element: element.value)
    try:
        Search(index).matches(identifier, InformationModel.PATIENT_ROOT, options(flags))
    except MatchingError:
        return
