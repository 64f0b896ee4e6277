"""Response identifiers: what is in them, in which characters and which encoding (PS3.4 C.4.1.1.3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from netdicom_tx.archive.encoded.values import codecs_of, decode
from netdicom_tx.archive.index.index import Index, record_of
from netdicom_tx.archive.query.answers import encoder_of
from netdicom_tx.archive.query.matching import InformationModel
from netdicom_tx.archive.query.search import Search
from netdicom_tx.dsutils import decode as decode_data_set
from netdicom_tx.dsutils import encode
from netdicom_tx.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from support.archive.data_sets import EXPLICIT
from support.archive.databases import database_url
from support.archive.patients import (
    PATIENTS,
    add,
    archive,
    data_set,
    find,
    instances,
    options,
    study_uid,
)

SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
#: What every answer has, whatever was asked for.
ALWAYS = {"QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with archive(tmp_path_factory.mktemp("archive")) as opened:
        yield opened


def one(index: Index, label: str, flags: str = "", **keys: Any) -> Dataset:
    """The answer for a study."""
    identifier = data_set(
        QueryRetrieveLevel="STUDY", **{"StudyInstanceUID": study_uid(label), **keys}
    )
    (found,) = find(index, identifier, flags)
    return found


def keywords(answer: Dataset) -> set[str]:
    return {element.keyword for element in answer}


# -- what is in them --------------------------------------------------------------------------------------


def test_an_answer_has_what_was_asked_for_and_no_more(index: Index) -> None:
    found = one(index, "A1", PatientName="", StudyDate="20200101", OtherPatientIDs="")
    assert keywords(found) == ALWAYS | {
        "StudyInstanceUID",
        "PatientName",
        "StudyDate",
        "OtherPatientIDs",
    }
    assert found.PatientName == "Adams^John Robert Quincy^^Rev.^B.A. M.Div."
    assert found.StudyDate == "20200101"
    # Supported and without a value: of zero length (PS3.4 C.2.2.1.3).
    assert found["OtherPatientIDs"].is_empty
    assert found.QueryRetrieveLevel == "STUDY"
    assert found.RetrieveAETitle == "ARCHIVE"
    assert found.InstanceAvailability == "ONLINE"


def test_elements_are_in_order(index: Index) -> None:
    """PS3.5 7.1: Data Elements are ordered by increasing tag."""
    octets = Search(index).find(
        data_set(
            SpecificCharacterSet="ISO_IR 192",
            QueryRetrieveLevel="IMAGE",
            InstanceNumber="",
            Rows="",
            PatientName="",
            ModalitiesInStudy="",
        ),
        model=InformationModel.STUDY_ROOT,
        options=options("rt"),
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        retrieve_ae_title="ARCHIVE",
    )
    for each in octets:
        tags = list(decode_data_set(each, EXPLICIT_VR_LITTLE_ENDIAN).keys())
        assert tags == sorted(tags)


EVERYTHING = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "ModalitiesInStudy",
    "SOPClassesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "ProcedureCodeSequence",
    "NameOfPhysiciansReadingStudy",
    "OtherStudyNumbers",
    "PatientWeight",
    "PatientAge",
    "Rows",
    "SeriesDescription",
)


@pytest.mark.parametrize("charset", ["", "ISO_IR 100", "ISO_IR 192", "GB18030"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_answers_are_encoded_as_pydicom_encodes_them(
    index: Index, syntax: str, charset: str
) -> None:
    """Read back and written again they are the same octets; values do not depend on the encoding."""
    identifier = data_set(
        QueryRetrieveLevel="STUDY", StudyInstanceUID="", **dict.fromkeys(EVERYTHING)
    )
    if charset:
        identifier.SpecificCharacterSet = charset
    octets = list(
        Search(index).find(
            identifier,
            model=InformationModel.STUDY_ROOT,
            options=options(""),
            transfer_syntax=syntax,
            retrieve_ae_title="ARCHIVE",
        )
    )
    answers = [decode_data_set(each, syntax) for each in octets]
    reference = find(index, identifier, transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN)
    assert [each.to_json() for each in answers] == [each.to_json() for each in reference]
    for each, answer in zip(octets, answers, strict=True):
        answer.walk(lambda _, element: element.value)
        assert encode(answer, syntax) == each


def test_every_name_is_answered_as_it_was_stored(index: Index) -> None:
    found = find(
        index,
        data_set(QueryRetrieveLevel="PATIENT", PatientName="", PatientID=""),
        model=InformationModel.PATIENT_ROOT,
    )
    assert {str(each.PatientID): str(each.PatientName) for each in found} == {
        patient_id: row[0] for patient_id, row in PATIENTS.items()
    }


def test_computed_attributes(index: Index) -> None:
    """PS3.4 C.6.1.1.2 to C.6.1.1.4, and what viewers show beside a study."""
    found = one(
        index,
        "A3",
        **dict.fromkeys(
            (
                "ModalitiesInStudy",
                "SOPClassesInStudy",
                "NumberOfPatientRelatedStudies",
                "NumberOfPatientRelatedSeries",
                "NumberOfPatientRelatedInstances",
                "NumberOfStudyRelatedSeries",
                "NumberOfStudyRelatedInstances",
            )
        ),
    )
    assert list(found.ModalitiesInStudy) == ["MR", "SR"]
    assert list(found.SOPClassesInStudy) == [
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.840.10008.5.1.4.1.1.88.11",
    ]
    assert found.NumberOfPatientRelatedStudies == 3
    assert found.NumberOfPatientRelatedSeries == 5
    assert found.NumberOfPatientRelatedInstances == 9
    assert found.NumberOfStudyRelatedSeries == 2
    assert found.NumberOfStudyRelatedInstances == 4


def test_what_is_counted_below_is_answered_at_its_level_only(index: Index) -> None:
    assert "NumberOfSeriesRelatedInstances" not in one(
        index, "A3", NumberOfSeriesRelatedInstances=""
    )
    found = find(
        index,
        data_set(
            QueryRetrieveLevel="SERIES",
            StudyInstanceUID=study_uid("A3"),
            SeriesNumber="",
            NumberOfSeriesRelatedInstances="",
            NumberOfStudyRelatedSeries="",
            ModalitiesInStudy="",
        ),
    )
    assert [int(each.NumberOfSeriesRelatedInstances) for each in found] == [3, 1]
    assert {int(each.NumberOfStudyRelatedSeries) for each in found} == {2}
    assert {tuple(each.ModalitiesInStudy) for each in found} == {("MR", "SR")}


def test_a_study_without_modality_has_none(index: Index, tmp_path: Path) -> None:
    made = [each for label, each in instances() if label == "A1.1.1"]
    made[0].Modality = ""
    with Index(database_url(tmp_path / "index.db")) as empty:
        add(empty, made, EXPLICIT_VR_LITTLE_ENDIAN)
        assert one(empty, "A1", ModalitiesInStudy="")["ModalitiesInStudy"].is_empty
        key = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID="", ModalitiesInStudy="XA")
        assert find(empty, key) == []
        # PS3.4 C.2.2.1.2: what is unknown may be anything.
        assert len(find(empty, key, match_unknown=True)) == 1


def test_private_elements_and_group_lengths_are_not_answered(index: Index) -> None:
    identifier = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID=study_uid("A1"))
    octets = (
        encode(identifier, EXPLICIT_VR_LITTLE_ENDIAN)
        + EXPLICIT.element(0x00210000, "UL", bytes(4))
        + EXPLICIT.element(0x00210010, "LO", b"SOMEBODY")
        + EXPLICIT.element(0x00211001, "LO", b"")
    )
    octets = EXPLICIT.element(0x00080000, "UL", bytes(4)) + octets
    (found,) = Search(index).find(
        decode_data_set(octets, EXPLICIT_VR_LITTLE_ENDIAN),
        model=InformationModel.STUDY_ROOT,
        options=options(""),
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        retrieve_ae_title="ARCHIVE",
    )
    assert keywords(decode_data_set(found, EXPLICIT_VR_LITTLE_ENDIAN)) == ALWAYS | {
        "StudyInstanceUID"
    }


def test_the_zone_of_dates_is_answered_by_negotiation(index: Index) -> None:
    """PS3.3 C.12.1.1.8: dates are answered as they were stored, with the zone that they are in."""
    found = one(index, "C1", "t", StudyDate="", StudyTime="")
    assert found.TimezoneOffsetFromUTC == "+0800"
    assert (found.StudyDate, found.StudyTime) == ("20190630", "233000")
    assert "TimezoneOffsetFromUTC" not in one(index, "A1", "t", StudyDate="")
    assert "TimezoneOffsetFromUTC" not in one(index, "C1", StudyDate="")


# -- sequences ----------------------------------------------------------------------------------------------


def test_a_whole_sequence_is_answered_for_an_empty_key(index: Index) -> None:
    for key in ([], [{}]):
        found = one(index, "S2", ProcedureCodeSequence=key)
        assert [each.CodeValue for each in found.ProcedureCodeSequence] == ["P1", "P2"]
        assert found.ProcedureCodeSequence[0].CodingSchemeDesignator == "99Y"


def test_matching_items_are_answered_with_the_attributes_asked_for(index: Index) -> None:
    """PS3.4 C.2.2.2.6."""
    key = {"CodeValue": "?2", "CodeMeaning": "", "PurposeOfReferenceCodeSequence": []}
    found = one(index, "S2", ProcedureCodeSequence=key)
    (item,) = found.ProcedureCodeSequence
    assert keywords(item) == {"CodeValue", "CodeMeaning", "PurposeOfReferenceCodeSequence"}
    assert (item.CodeValue, item.CodeMeaning) == ("P2", "")


def test_a_sequence_that_is_not_there_is_of_zero_length(index: Index) -> None:
    found = one(index, "S2", ReferencedStudySequence={"ReferencedSOPInstanceUID": ""})
    assert len(found.ReferencedStudySequence) == 0


NESTED = {
    "ProcedureCodeSequence": [
        {"CodeValue": "1", "EquivalentCodeSequence": [{"CodeValue": "A"}, {"CodeValue": "B"}]},
        {"CodeValue": "2", "EquivalentCodeSequence": [{"CodeValue": "C"}]},
    ]
}


def test_sequences_are_matched_within_sequences(tmp_path: Path) -> None:
    made = [each for label, each in instances() if label == "A1.1.1"]
    made[0].update(data_set(**NESTED))
    with Index(database_url(tmp_path / "index.db")) as index:
        add(index, made, EXPLICIT_VR_LITTLE_ENDIAN)
        key = {"CodeValue": "", "EquivalentCodeSequence": {"CodeValue": "B"}}
        (item,) = one(index, "A1", ProcedureCodeSequence=key).ProcedureCodeSequence
        assert item.CodeValue == "1"
        assert [each.CodeValue for each in item.EquivalentCodeSequence] == ["B"]
        nothing = data_set(
            QueryRetrieveLevel="STUDY",
            ProcedureCodeSequence={"EquivalentCodeSequence": {"CodeValue": "D"}},
        )
        assert find(index, nothing) == []


# -- from the header ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Two instances of one study, in two encodings, with much that no column has."""
    made = [each for label, each in instances() if label in ("Y1.1.1", "A1.1.1")]
    for number, each in enumerate(made):
        each.update(
            data_set(
                StudyInstanceUID=study_uid("A1"),
                PixelSpacing=["0.5", "0.25"],
                FrameIncrementPointer=0x00181063,
                DiffusionBValue=1.5,
                EncapsulatedDocument=b"\1\2\3",
                ContentCreatorName="山田^太郎" if number == 1 else "Doe^John",
                ContentSequence=[{"CodeMeaning": "one"}, {"CodeMeaning": "two", "CodeValue": "2"}],
            )
        )
    with Index(database_url(tmp_path_factory.mktemp("rich") / "index.db")) as index:
        add(index, made[:1], EXPLICIT_VR_BIG_ENDIAN)
        add(index, made[1:], EXPLICIT_VR_LITTLE_ENDIAN)
        yield index


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_any_attribute_of_the_header_is_answered(rich: Index, syntax: str) -> None:
    """Values of every kind, from whatever encoding, into whatever encoding."""
    asked = {
        "QueryRetrieveLevel": "IMAGE",
        **dict.fromkeys(
            (
                "PixelSpacing",
                "FrameIncrementPointer",
                "DiffusionBValue",
                "EncapsulatedDocument",
                "ContentCreatorName",
                "Rows",
                "ImageComments",
            )
        ),
        "ContentSequence": {"CodeMeaning": "tw*"},
    }
    found = find(rich, data_set(**asked), "r", transfer_syntax=syntax)
    assert len(found) == 2
    for each in found:
        assert list(each.PixelSpacing) == [0.5, 0.25]
        assert each.FrameIncrementPointer == 0x00181063
        assert each.DiffusionBValue == 1.5
        assert each.EncapsulatedDocument == b"\1\2\3\0"
        assert each.Rows == 64
        assert each["ImageComments"].is_empty
        (item,) = each.ContentSequence
        assert (item.CodeMeaning, "CodeValue" in item) == ("two", False)
    assert [str(each.ContentCreatorName) for each in found] == ["Doe^John", "山田^太郎"]


def test_above_image_level_the_first_instance_that_passes_answers(rich: Index) -> None:
    """A value of a lower level is one of an instance that the keys below admit."""
    found = one(rich, "A1", "r", SeriesDescription="", SOPInstanceUID="", ContentCreatorName="")
    assert found.ContentCreatorName == "Doe^John"
    uid = next(str(each.SOPInstanceUID) for label, each in instances() if label == "Y1.1.1")
    found = one(rich, "A1", "r", SOPInstanceUID=uid, ContentCreatorName="")
    assert found.SOPInstanceUID == uid
    assert found.ContentCreatorName == "山田^太郎"


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ({"ContentSequence": {"CodeMeaning": "two", "CodeValue": "2"}}, 2),
        ({"ContentSequence": {"CodeMeaning": "one", "CodeValue": "2"}}, 0),
        ({"ContentCreatorName": "山*"}, 1),
        ({"PixelSpacing": ".25"}, 2),
        ({"PixelSpacing": "1"}, 0),
    ],
)
def test_attributes_of_the_header_are_matched_at_image_level(
    rich: Index, keys: dict[str, Any], count: int
) -> None:
    identifier = data_set(SpecificCharacterSet="ISO_IR 192", QueryRetrieveLevel="IMAGE", **keys)
    assert len(find(rich, identifier, "r")) == count


def test_a_damaged_sequence_of_the_header_is_of_zero_length(tmp_path: Path) -> None:
    made = [each for label, each in instances() if label == "A1.1.1"]
    del made[0][0x00280010]
    made[0].add_new(0x00409096, "OB", b"no items")
    with Index(database_url(tmp_path / "index.db")) as index:
        octets = encode(made[0], EXPLICIT_VR_LITTLE_ENDIAN)
        octets = octets.replace(b"\x40\x00\x96\x90OB", b"\x40\x00\x96\x90SQ")
        index.add(record_of(octets, EXPLICIT_VR_LITTLE_ENDIAN)).result(timeout=30)
        key = {"RealWorldValueMappingSequence": {"LUTLabel": ""}}
        (found,) = find(index, data_set(QueryRetrieveLevel="IMAGE", **key), "r")
        assert len(found.RealWorldValueMappingSequence) == 0
        key = {"RealWorldValueMappingSequence": {"LUTLabel": "x"}}
        asked = data_set(QueryRetrieveLevel="IMAGE", **key)
        assert len(find(index, asked, "r", match_unknown=True)) == 1


# -- characters -----------------------------------------------------------------------------------------------

CHARSETS: list[tuple[str, Any, str, str, Any]] = [
    ("ASCII, none asked", None, "A1", "PatientName", None),
    ("ASCII, one asked", "ISO_IR 100", "A1", "PatientName", "ISO_IR 100"),
    ("not ASCII, none asked", None, "M1", "PatientName", "ISO_IR 192"),
    ("not ASCII, the default asked", "ISO_IR 6", "M1", "PatientName", "ISO_IR 192"),
    ("Latin-1 in Latin-1", "ISO_IR 100", "M1", "PatientName", "ISO_IR 100"),
    ("Greek in Latin-1", "ISO_IR 100", "G1", "PatientName", "ISO_IR 192"),
    ("Greek in Greek", "ISO_IR 126", "G1", "PatientName", "ISO_IR 126"),
    ("Cyrillic in Cyrillic", "ISO_IR 144", "R1", "PatientName", "ISO_IR 144"),
    ("UTF-8", "ISO_IR 192", "Y1", "PatientName", "ISO_IR 192"),
    ("Chinese in GB18030", "GB18030", "C1", "PatientName", "GB18030"),
    ("Arabic in GB18030", "GB18030", "AR1", "PatientName", "GB18030"),
    (
        "kanji in code extensions",
        ["", "ISO 2022 IR 87"],
        "Y1",
        "PatientName",
        ["", "ISO 2022 IR 87"],
    ),
    (
        "hangul in code extensions",
        ["", "ISO 2022 IR 149"],
        "H1",
        "PatientName",
        ["", "ISO 2022 IR 149"],
    ),
    (
        "half-width kana and kanji",
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        "K1",
        "PatientName",
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
    ),
    ("hangul beyond Japanese", ["", "ISO 2022 IR 87"], "H1", "PatientName", "ISO_IR 192"),
    ("umlauts beyond Japanese", ["", "ISO 2022 IR 87"], "M1", "PatientName", "ISO_IR 192"),
    ("an unknown set", "KLINGON", "M1", "PatientName", "ISO_IR 192"),
    ("an unknown set, ASCII", "KLINGON", "A1", "PatientName", None),
]


@pytest.mark.parametrize(
    ("asked", "label", "keyword", "answered"),
    [row[1:] for row in CHARSETS],
    ids=[row[0] for row in CHARSETS],
)
@pytest.mark.parametrize("other", ["StudyID", "Rows"])
def test_the_character_set_can_hold_the_answer(
    index: Index, asked: Any, label: str, keyword: str, answered: Any, other: str
) -> None:
    """PS3.4 C.4.1.1.3.2; the request's where possible. From rows and from headers alike."""
    keys = {keyword: "", other: "", **({} if asked is None else {"SpecificCharacterSet": asked})}
    identifier = data_set(QueryRetrieveLevel="STUDY", StudyInstanceUID=study_uid(label), **keys)
    octets = encode(identifier, EXPLICIT_VR_LITTLE_ENDIAN) if asked != "KLINGON" else None
    travelled = identifier if octets is None else decode_data_set(octets, EXPLICIT_VR_LITTLE_ENDIAN)
    (answer,) = Search(index).find(
        travelled,
        model=InformationModel.STUDY_ROOT,
        options=options(""),
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        retrieve_ae_title="ARCHIVE",
    )
    found = decode_data_set(answer, EXPLICIT_VR_LITTLE_ENDIAN)
    said = found.get("SpecificCharacterSet")
    assert (said if isinstance(said, str) or said is None else list(said)) == answered
    stored = next(
        str(each[keyword].value) for name, each in instances() if name.startswith(f"{label}.")
    )
    assert str(found[keyword].value) == stored


def test_text_in_items_makes_the_answer_utf8(tmp_path: Path) -> None:
    """Items are kept in UTF-8; one set holds for all of an answer."""
    made = [each for label, each in instances() if label == "M1.1.1"]
    made[0].update(data_set(ProcedureCodeSequence={"CodeValue": "1", "CodeMeaning": "Schädel"}))
    with Index(database_url(tmp_path / "index.db")) as index:
        add(index, made, EXPLICIT_VR_LITTLE_ENDIAN)
        for charset in ("ISO_IR 100", "ISO_IR 192"):
            found = one(
                index,
                "M1",
                SpecificCharacterSet=charset,
                PatientName="",
                ProcedureCodeSequence={"CodeValue": "1", "CodeMeaning": ""},
            )
            assert found.SpecificCharacterSet == "ISO_IR 192"
            assert found.ProcedureCodeSequence[0].CodeMeaning == "Schädel"
            assert found.PatientName == "Müller^Jürgen"
        found = one(index, "M1", StudyID="", ProcedureCodeSequence=[])
        assert found.ProcedureCodeSequence[0].CodeMeaning == "Schädel"


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (("ISO_IR 13",), "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (("ISO 2022 IR 6", "ISO 2022 IR 87"), "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (("ISO 2022 IR 13", "ISO 2022 IR 87"), "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (("", "ISO 2022 IR 149"), "Hong^Gildong=洪^吉洞=홍^길동"),
        (("", "ISO 2022 IR 126", "ISO 2022 IR 144"), "Διον\\Люкс\\plain"),
        (("ISO 2022 IR 100", "ISO 2022 IR 126"), "Müller^Διον"),
        (("ISO_IR 127",), "قباني^لنزار"),
        (("ISO_IR 138",), "שרון^דבורה"),
        (("GBK",), "王^小东"),
    ],
)
def test_text_comes_back_from_its_character_set(terms: tuple[str, ...], text: str) -> None:
    """PS3.5 6.1.2.5 and Annexes H to K."""
    encode_text = encoder_of(terms)
    assert encode_text is not None
    assert decode(encode_text(text), codecs_of(terms)) == text


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (("ISO_IR 13",), "山田"),
        (("ISO_IR 6",), "é"),
        (("", "ISO 2022 IR 87"), "é"),
        (("", "ISO 2022 IR 87"), "홍"),
        (("", "ISO 2022 IR 87"), "山\x1b(B"),
    ],
)
def test_what_a_character_set_lacks_is_refused(terms: tuple[str, ...], text: str) -> None:
    encode_text = encoder_of(terms)
    assert encode_text is not None
    with pytest.raises(UnicodeEncodeError):
        encode_text(text)


def test_the_octets_of_the_standards_example() -> None:
    """PS3.5 H.3.1: Yamada Tarou in ISO 2022 IR 87."""
    encode_text = encoder_of(("", "ISO 2022 IR 87"))
    assert encode_text is not None
    assert encode_text("Yamada^Tarou=山田^太郎=やまだ^たろう") == (
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
    )
