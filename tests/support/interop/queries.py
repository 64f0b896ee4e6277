"""Queries, and what is found by PS3.4 C.2.2.2: the judge of every archive that is asked.

``found`` names invented entities, and those of pydicom's samples that have a value which matches. Not
written there, since the rule is one for all: an entity that has no value for any of the attributes
asked for is found too (PS3.4 C.2.2.1.2).

``dcmqrscp`` tells where DCMTK's archive answers something else, and which clause is then with us.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset

from support.archive.patients import SOP_CLASSES, data_set, instance_uid, series_uid, study_uid

from .population import NOBODY, UNIQUE_KEYS, Population

#: Instead of labels: everything of the level.
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Differs:
    """How another archive's answer is not the one of the table.

    Not told here, since it is one rule for all: dcmqrscp does not find what has no value.

    Attributes:
        why: The clause.
        missing: Labels that it does not find.
        extra: Labels that it finds, ``EVERY`` for all others.
    """

    why: str
    missing: str = ""
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and its answer.

    Attributes:
        what: What it shows.
        at: The level; behind it P or O when not in the study root.
        keys: Values to match; the unique key of the level is asked for in any case.
        found: Labels.
        charset: The Specific Character Set of the request; the values are ASCII when it is empty.
    """

    what: str
    at: str
    keys: Mapping[str, Any]
    found: str
    charset: str = ""
    dcmqrscp: Differs | None = field(default=None, kw_only=True)

    @property
    def level(self) -> str:
        return self.at.split()[0]

    @property
    def model(self) -> str:
        words = self.at.split()
        return words[1] if len(words) > 1 else "S"

    @property
    def terms(self) -> Sequence[str]:
        """Values of Specific Character Set."""
        return self.charset.split("\\") if self.charset else ()


JAPANESE = "\\ISO 2022 IR 87"
KATAKANA = "ISO 2022 IR 13\\ISO 2022 IR 87"
KOREAN = "\\ISO 2022 IR 149"
UTF8 = "ISO_IR 192"

_CASE = "C.2.2.2.1: names may be matched without their case; dcmqrscp does not"
_GROUPS = "C.2.2.2.1, PS3.5 6.2.1.2: a name has component groups; dcmqrscp matches the whole value"
_OCTETS = "C.2.2.2: characters are matched; of these sets dcmqrscp matches the octets"
_OPTIONAL = "C.2.2.1.3: an optional key need not be matched; dcmqrscp does not know it"
_NUMBERS = "C.2.2.2.1: a DS may be compared as a number or as text, which dcmqrscp does"
_EMPTY_GROUP = "PS3.5 6.2.1.2: an empty group at the end may be there or not; dcmqrscp wants it"

_DOES = "6154 17106 6293 15820 4919 5641"
_EARLY = (
    "BULK 17106 6154 6293 15820 4919 5641 ExplVR_BigEnd.dcm CT_small.dcm MR_small.dcm JPEG-lossy.dcm "
    "badVR.dcm examples_jpeg2k.dcm liver_1frame.dcm rtplan.dcm"
)

QUERIES: Sequence[Asked] = (
    # -- C.2.2.2.1 single value matching
    Asked("an identifier", "STUDY", {"PatientID": "ADAMS"}, "A1 A2 A3"),
    Asked("an identifier in another case", "STUDY", {"PatientID": "adams"}, ""),
    Asked("per cent, underscore and mark are text", "STUDY", {"PatientID": "ODD%_!"}, "O1"),
    Asked("an accession number", "STUDY", {"AccessionNumber": "ACC001"}, "A1"),
    Asked("the case of an accession number", "STUDY", {"AccessionNumber": "acc003"}, "A3"),
    Asked("a per cent sign", "STUDY", {"AccessionNumber": "J100%"}, "J1"),
    Asked("an underscore", "STUDY", {"AccessionNumber": "a_b"}, "O1"),
    Asked("a study's identifier", "STUDY", {"StudyID": "7"}, "J1"),
    Asked("a date", "STUDY", {"StudyDate": "20060705"}, "Y2 K1"),
    Asked("a leap day", "STUDY", {"StudyDate": "20240229"}, "O1"),
    Asked("a time", "STUDY", {"StudyTime": "100000"}, "J1 K1"),
    Asked("a time by its meaning", "STUDY", {"StudyTime": "1000"}, "J1 K1"),
    Asked("two keys are both to match", "STUDY", {"PatientID": "ADAMS", "StudyID": "2"}, "A2"),
    Asked(
        "a number by its value",
        "STUDY",
        {"PatientWeight": "70.5"},
        "S1 S2",
        dcmqrscp=Differs(_NUMBERS, missing="S1"),
    ),
    Asked("a patient", "PATIENT P", {"PatientID": "DOE"}, "DOE"),
    Asked("a code", "PATIENT P", {"PatientSex": "F", "PatientName": "Sm*"}, "SMITH SMYTHE"),
    Asked(
        "a number of a series",
        "SERIES",
        {"StudyInstanceUID": study_uid("M1"), "SeriesNumber": "2"},
        "M1.2",
    ),
    Asked("a modality", "SERIES", {"StudyInstanceUID": study_uid("A2"), "Modality": "PT"}, "A2.2"),
    Asked(
        "a number of an instance",
        "IMAGE",
        {
            "StudyInstanceUID": study_uid("S1"),
            "SeriesInstanceUID": series_uid("S1.1"),
            "InstanceNumber": "3",
        },
        "S1.1.3",
    ),
    Asked(
        "an attribute that no table lists",
        "IMAGE",
        {"StudyInstanceUID": study_uid("S1"), "SeriesInstanceUID": series_uid("S1.1"), "Rows": 128},
        "S1.1.2",
        dcmqrscp=Differs(_OPTIONAL, extra="S1.1.1 S1.1.3 S1.1.4"),
    ),
    # -- C.2.2.2.2 list of UID matching
    Asked("a UID", "STUDY", {"StudyInstanceUID": study_uid("A2")}, "A2"),
    Asked(
        "a list of UIDs",
        "STUDY",
        {"StudyInstanceUID": [study_uid("A1"), study_uid("Y1"), study_uid("G1"), "1.2.999"]},
        "A1 Y1 G1",
    ),
    Asked("a UID that is not there", "STUDY", {"StudyInstanceUID": "1.2.999"}, ""),
    Asked("a UID has no wild cards", "STUDY", {"StudyInstanceUID": "1.2.3.*"}, ""),
    Asked(
        "a list of series",
        "SERIES",
        {
            "StudyInstanceUID": study_uid("M1"),
            "SeriesInstanceUID": [series_uid("M1.1"), series_uid("M1.3")],
        },
        "M1.1 M1.3",
    ),
    Asked(
        "a list of instances",
        "IMAGE",
        {
            "StudyInstanceUID": study_uid("S1"),
            "SeriesInstanceUID": series_uid("S1.1"),
            "SOPInstanceUID": [instance_uid("S1.1.4"), instance_uid("S1.1.2")],
        },
        "S1.1.2 S1.1.4",
    ),
    Asked(
        "a class of instances",
        "IMAGE",
        {
            "StudyInstanceUID": study_uid("A3"),
            "SeriesInstanceUID": series_uid("A3.1"),
            "SOPClassUID": [SOP_CLASSES["MR"], SOP_CLASSES["SR"]],
        },
        "A3.1.1 A3.1.2 A3.1.3",
    ),
    # -- C.2.2.2.3 universal matching
    Asked("no key", "STUDY", {}, EVERY),
    Asked(
        "keys without value", "STUDY", {"PatientName": "", "StudyDate": "", "StudyTime": ""}, EVERY
    ),
    Asked("a star alone", "STUDY", {"PatientID": "*"}, EVERY),
    Asked("all patients", "PATIENT P", {"PatientName": ""}, EVERY),
    Asked(
        "all series of a study", "SERIES", {"StudyInstanceUID": study_uid("M1")}, "M1.1 M1.2 M1.3"
    ),
    Asked(
        "all instances of a series",
        "IMAGE",
        {"StudyInstanceUID": study_uid("S1"), "SeriesInstanceUID": series_uid("S1.1")},
        "S1.1.1 S1.1.2 S1.1.3 S1.1.4",
    ),
    # -- C.2.2.2.4 wild card matching
    Asked("a prefix", "STUDY", {"AccessionNumber": "ACC*"}, "A1 A2"),
    Asked("one character", "STUDY", {"AccessionNumber": "ACC00?"}, "A1 A2"),
    Asked("no character is not one", "STUDY", {"AccessionNumber": "ACC001?"}, ""),
    Asked("no character is any sequence", "STUDY", {"AccessionNumber": "ACC001*"}, "A1"),
    Asked("a middle", "STUDY", {"StudyDescription": "*mm?gr*"}, "S1 S2"),
    Asked("an underscore is not a wild card", "STUDY", {"StudyDescription": "Knee_*"}, "D1"),
    Asked("a question mark is one", "STUDY", {"StudyDescription": "Knee?left"}, "D1 J1"),
    Asked("text with a star", "STUDY", {"PatientID": "*_!"}, "O1"),
    Asked("a family name", "STUDY", {"PatientName": "Adams^*"}, "A1 A2 A3"),
    Asked("a given name", "STUDY", {"PatientName": "*^Mary^Ann"}, "S1"),
    Asked("a name with a letter open", "STUDY", {"PatientName": "Sm?th*"}, "S1 S2"),
    Asked(
        "names, without their case",
        "STUDY",
        {"PatientName": "doe^*"},
        f"D1 J1 {_DOES}",
        dcmqrscp=Differs(_CASE, missing=f"D1 J1 {_DOES}"),
    ),
    Asked(
        "the whole of a long name",
        "STUDY",
        {"PatientName": "Adams^John Robert Quincy^^Rev.^B.A. M.Div."},
        "A1 A2 A3",
    ),
    Asked("patients by name", "PATIENT P", {"PatientName": "Doe^Pe*"}, "98890234"),
    # -- C.2.2.2.5 range matching
    Asked("days", "STUDY", {"StudyDate": "20060705-20060707"}, "Y2 K1 H1 G1 R1"),
    Asked("up to a day", "STUDY", {"StudyDate": "-20050101"}, _EARLY),
    Asked("from a day", "STUDY", {"StudyDate": "20220101-"}, "M1 B1 S1 S2 O1"),
    Asked("times", "STUDY", {"StudyTime": "080000-093000.25"}, "A1 A2 BULK"),
    Asked("up to a time", "STUDY", {"StudyTime": "-003000"}, "D1 C2 6154 6293"),
    Asked("from a time", "STUDY", {"StudyTime": "2330-"}, "A3 C1"),
    Asked(
        "days and times are two ranges",
        "STUDY",
        {"StudyDate": "20060705-20060707", "StudyTime": "100000-180000"},
        "K1 H1 G1",
    ),
    Asked("births", "PATIENT P", {"PatientBirthDate": "19600101-19611231"}, "YAMADA KANA"),
    Asked(
        "a range and a name",
        "STUDY",
        {"StudyDate": "20200101-20201231", "PatientName": "ADAMS*"},
        "A1 A2 A3",
        dcmqrscp=Differs(_CASE, missing="A1 A2 A3"),
    ),
    # -- C.2.2.2.6 sequence matching
    Asked(
        "one item has all of it",
        "STUDY",
        {"ProcedureCodeSequence": {"CodeValue": "P1", "CodingSchemeDesignator": "99X"}},
        "S1",
        dcmqrscp=Differs(_OPTIONAL, extra=EVERY),
    ),
    Asked(
        "some item has it",
        "STUDY",
        {"ProcedureCodeSequence": {"CodeValue": "P2"}},
        "S2",
        dcmqrscp=Differs(_OPTIONAL, extra=EVERY),
    ),
    Asked("an item without values", "STUDY", {"ProcedureCodeSequence": {"CodeValue": ""}}, EVERY),
    # -- several values in the entity: one of them is enough (C.2.2.2)
    Asked("one of several names", "STUDY", {"NameOfPhysiciansReadingStudy": "Grey^*"}, "S1"),
    Asked(
        "a modality of the study",
        "STUDY",
        {"ModalitiesInStudy": "PT"},
        "A2 M1 B1",
        dcmqrscp=Differs(_OPTIONAL, extra=EVERY),
    ),
    Asked(
        "modalities and a name",
        "STUDY",
        {"ModalitiesInStudy": "MR", "PatientName": "A*"},
        "A3",
        dcmqrscp=Differs(_OPTIONAL, extra="A1 A2 ExplVR_BigEnd.dcm waveform_ecg.dcm"),
    ),
    # -- person names in many character sets (PS3.5 6.1.2.5, 6.2.1; PS3.4 C.2.2.2.1)
    Asked(
        "kanji",
        "STUDY",
        {"PatientName": "山田^太郎"},
        "Y1 Y2 chrH31.dcm chrH32.dcm",
        JAPANESE,
        dcmqrscp=Differs(_GROUPS, missing="Y1 Y2 chrH31.dcm chrH32.dcm"),
    ),
    Asked(
        "kanji with a star",
        "STUDY",
        {"PatientName": "山田^*"},
        "Y1 Y2 K1 chrH31.dcm chrH32.dcm",
        JAPANESE,
        dcmqrscp=Differs(_GROUPS, missing="Y1 Y2 K1 chrH31.dcm chrH32.dcm"),
    ),
    Asked(
        "kanji in UTF-8",
        "STUDY",
        {"PatientName": "??^花子"},
        "K1",
        UTF8,
        dcmqrscp=Differs(_GROUPS, missing="K1"),
    ),
    Asked(
        "all groups of a name",
        "STUDY",
        {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
        "Y1 Y2 chrH31.dcm",
        JAPANESE,
    ),
    Asked(
        "the ideographic group",
        "STUDY",
        {"PatientName": "*=山田^太郎"},
        "Y1 Y2 chrH31.dcm chrH32.dcm",
        JAPANESE,
        dcmqrscp=Differs(_GROUPS, missing="Y1 Y2 chrH31.dcm chrH32.dcm"),
    ),
    Asked(
        "the phonetic group",
        "STUDY",
        {"PatientName": "==やまだ^は*"},
        "K1",
        JAPANESE,
        dcmqrscp=Differs(_GROUPS, missing="K1"),
    ),
    Asked(
        "kana in any group",
        "STUDY",
        {"PatientName": "やまだ^たろう"},
        "Y1 Y2 chrH31.dcm chrH32.dcm chrJapMulti.dcm",
        JAPANESE,
        dcmqrscp=Differs(_GROUPS, missing="Y1 Y2 chrH31.dcm chrH32.dcm"),
    ),
    Asked("katakana of half width", "STUDY", {"PatientName": "ﾔﾏﾀﾞ^*"}, "K1 chrH32.dcm", KATAKANA),
    Asked(
        "hanja",
        "STUDY",
        {"PatientName": "洪^吉洞"},
        "H1 chrI2.dcm",
        KOREAN,
        dcmqrscp=Differs(_GROUPS, missing="H1 chrI2.dcm"),
    ),
    Asked(
        "hangul",
        "STUDY",
        {"PatientName": "홍^*"},
        "H1 chrI2.dcm",
        KOREAN,
        dcmqrscp=Differs(_GROUPS, missing="H1 chrI2.dcm"),
    ),
    Asked("hangul in UTF-8", "STUDY", {"PatientName": "김희중"}, "chrKoreanMulti.dcm", UTF8),
    Asked("Greek", "STUDY", {"PatientName": "Διονυσιος*"}, "G1 chrGreek.dcm", "ISO_IR 126"),
    Asked(
        "Greek without its case",
        "STUDY",
        {"PatientName": "ΔΙΟΝΥΣΙΟΣ^νίκος"},
        "G1",
        UTF8,
        dcmqrscp=Differs(_CASE, missing="G1"),
    ),
    Asked("Cyrillic", "STUDY", {"PatientName": "Люксембург*"}, "R1", "ISO_IR 144"),
    Asked("Cyrillic in UTF-8", "STUDY", {"PatientName": "*^Пётр"}, "R1", UTF8),
    Asked(
        "Chinese",
        "STUDY",
        {"PatientName": "Wang^XiaoDong=王^小东"},
        "C1 C2 chrX2.dcm",
        "GB18030",
        dcmqrscp=Differs(_EMPTY_GROUP, missing="chrX2.dcm"),
    ),
    Asked(
        "Chinese in UTF-8",
        "STUDY",
        {"PatientName": "王^小東"},
        "chrX1.dcm",
        UTF8,
        dcmqrscp=Differs(_GROUPS, missing="chrX1.dcm"),
    ),
    Asked("Arabic", "STUDY", {"PatientName": "قباني*"}, "AR1 chrArab.dcm", "ISO_IR 127"),
    Asked("Hebrew", "STUDY", {"PatientName": "שרון^דבורה"}, "HE1 chrHbrw.dcm", "ISO_IR 138"),
    Asked("an umlaut", "STUDY", {"PatientName": "Müller^*"}, "M1", "ISO_IR 100"),
    Asked("an umlaut in UTF-8", "STUDY", {"PatientName": "Äneas^Rüdiger"}, "chrGerm.dcm", UTF8),
    Asked(
        "an accent, stored in two sets",
        "STUDY",
        {"PatientName": "Buc^Jérôme"},
        "B1 chrFren.dcm",
        "ISO_IR 100",
    ),
    Asked(
        "a Japanese patient",
        "PATIENT P",
        {"PatientName": "*=*=やまだ^はなこ"},
        "KANA",
        JAPANESE,
        dcmqrscp=Differs(_OCTETS, missing="KANA"),
    ),
    # -- text in many character sets
    Asked(
        "a description in kanji",
        "STUDY",
        {"StudyDescription": "胸部*"},
        "Y1 Y2 C1 C2",
        JAPANESE,
        dcmqrscp=Differs(_OCTETS, missing="Y2 C1 C2"),
    ),
    Asked("a description in hangul", "STUDY", {"StudyDescription": "흉부"}, "H1", UTF8),
    Asked("a description in Greek", "STUDY", {"StudyDescription": "Θώρ*"}, "G1", "ISO_IR 126"),
    Asked(
        "one ideograph is one character",
        "STUDY",
        {"StudyDescription": "胸?"},
        "Y1 C1 C2",
        UTF8,
        dcmqrscp=Differs(_OCTETS, missing="Y1 C1 C2"),
    ),
    # -- the other roots, and the keys above the level (C.4.1.2.1, C.6.1, C.6.3)
    Asked("studies of a patient", "STUDY P", {"PatientID": "CHINESE"}, "C1 C2"),
    Asked(
        "series by way of the patient",
        "SERIES P",
        {"PatientID": "ADAMS", "StudyInstanceUID": study_uid("A3")},
        "A3.1 A3.2",
    ),
    Asked(
        "a study of another patient",
        "SERIES P",
        {"PatientID": "DOE", "StudyInstanceUID": study_uid("A3")},
        "",
    ),
    Asked(
        "instances by way of the patient",
        "IMAGE P",
        {
            "PatientID": "JANE",
            "StudyInstanceUID": study_uid("J1"),
            "SeriesInstanceUID": series_uid("J1.1"),
        },
        "J1.1.1 J1.1.2",
    ),
    Asked("a patient, without series", "PATIENT O", {"PatientID": "HEBREW"}, "HEBREW"),
    Asked(
        "a study, without series", "STUDY O", {"PatientID": "YAMADA", "StudyDate": "20060705"}, "Y2"
    ),
)


def identifier(asked: Asked) -> Dataset:
    keys: dict[str, Any] = {"QueryRetrieveLevel": asked.level, UNIQUE_KEYS[asked.level]: ""}
    keys |= asked.keys
    if asked.charset:
        keys["SpecificCharacterSet"] = list(asked.terms)
    return data_set(**keys)


def labels(population: Population, asked: Asked, answers: list[Dataset]) -> list[str]:
    """What was found, by label; patients without a Patient ID have no unique key, and do not count."""
    key = UNIQUE_KEYS[asked.level]
    found = [population.label(asked.level, str(each.get(key) or "")) for each in answers]
    return sorted(label for label in found if asked.level != "PATIENT" or label != NOBODY)


def known_matches(population: Population, asked: Asked) -> frozenset[str]:
    """What has a value that matches."""
    if asked.found == EVERY:
        return population.all(asked.level) - {NOBODY}
    return frozenset(asked.found.split())


def expected(population: Population, asked: Asked) -> list[str]:
    """What is to be found: what has a value that matches; what has none matches no key."""
    return sorted(known_matches(population, asked) - {NOBODY})
