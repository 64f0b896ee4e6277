"""Nobody's patients, whose names are written in ten character sets, with their studies.

The names of PS3.5 Annexes H, I and J are among them. Every attribute that is matched has a value; what has
none is for the tests to add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from netdicom_tx.archive.index.index import Index, record_of
from netdicom_tx.archive.query.matching import InformationModel, QueryOptions
from netdicom_tx.archive.query.search import Search
from netdicom_tx.dsutils import decode, encode
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from support.archive.databases import database_url

#: Patient ID: (name, Specific Character Set, birth date, sex).
PATIENTS: Mapping[str, tuple[str, str | list[str], str, str]] = {
    "ADAMS": ("Adams^John Robert Quincy^^Rev.^B.A. M.Div.", "", "19401231", "M"),
    "DOE": ("Doe", "ISO_IR 6", "19500101", "O"),
    "JANE": ("DOE^JANE", "ISO_IR 6", "19510203", "F"),
    "YAMADA": ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"], "19600229", "M"),
    "KANA": (
        "ﾔﾏﾀﾞ^ﾊﾅｺ=山田^花子=やまだ^はなこ",
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        "19610301",
        "F",
    ),
    "HONG": ("Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"], "19700707", "M"),
    "GREEK": ("Διονυσιος^Νίκος", "ISO_IR 126", "19711111", "M"),
    "RUSSIAN": ("Люксембург^Пётр", "ISO_IR 144", "19720101", "M"),
    "CHINESE": ("Wang^XiaoDong=王^小东", "GB18030", "19730101", "F"),
    "ARABIC": ("قباني^لنزار", "ISO_IR 127", "19740101", "M"),
    "HEBREW": ("שרון^דבורה", "ISO_IR 138", "19750101", "F"),
    "MUELLER": ("Müller^Jürgen", "ISO_IR 100", "19760101", "M"),
    "BUC": ("Buc^Jérôme", "ISO_IR 192", "19770101", "M"),
    "SMITH": ("Smith^Mary^Ann", "ISO_IR 100", "19800615", "F"),
    "SMYTHE": ("Smythe^Marie", "ISO_IR 100", "19810615", "F"),
    "ODD%_!": ("100%_!'\";--^x", "ISO_IR 100", "19820101", "O"),
}

#: Label: (Patient ID, date, time, offset, Accession Number, Study ID, description, series, other).
#: Series: modality and number of instances each.
STUDIES: Mapping[str, tuple[str, str, str, str, str, str, str, str, dict[str, Any]]] = {
    "A1": ("ADAMS", "20200101", "080000", "", "ACC001", "1", "Thorax", "CT2", {}),
    "A2": ("ADAMS", "20200102", "093000.25", "", "ACC002", "2", "Thorax/Abdomen", "CT2 PT1", {}),
    "A3": ("ADAMS", "20201231", "2359", "", "acc003", "3", "head", "MR3 SR1", {}),
    "D1": ("DOE", "20210101", "000000", "", "D-1", "1", "Knee_left", "CR1", {}),
    "J1": ("JANE", "20210615", "100000", "", "J100%", "7", "Knee left", "DX2", {}),
    "Y1": ("YAMADA", "20060704", "180000", "", "Y1", "1", "胸部", "CT1", {}),
    "Y2": ("YAMADA", "20060705", "095959", "", "Y2", "2", "胸部単純", "CR1", {}),
    "K1": ("KANA", "20060705", "100000", "", "K1", "1", "頭部", "MR1", {}),
    "H1": ("HONG", "20060706", "120000", "", "H1", "1", "흉부", "CT1", {}),
    "G1": ("GREEK", "20060707", "180000", "", "G1", "1", "Θώρακας", "US1", {}),
    "R1": ("RUSSIAN", "20060707", "180001", "", "R1", "1", "Грудь", "US1", {}),
    "C1": ("CHINESE", "20190630", "233000", "+0800", "C1", "1", "胸部", "CT1", {}),
    "C2": ("CHINESE", "20190701", "003000", "+0800", "C2", "2", "胸部", "CT1", {}),
    "AR1": ("ARABIC", "20180101", "120000", "", "AR1", "1", "صدر", "CT1", {}),
    "HE1": ("HEBREW", "20180102", "120000", "", "HE1", "1", "חזה", "CT1", {}),
    "M1": ("MUELLER", "20220101", "120000", "", "M1", "1", "Schädel", "CT1 MR1 PT1", {}),
    "B1": ("BUC", "20220202", "120000", "", "B1", "1", "Crâne", "PT1 CT1", {}),
    "S1": (
        "SMITH",
        "20230303",
        "120000",
        "",
        "S1",
        "1",
        "Mammography",
        "MG4",
        {
            "ProcedureCodeSequence": [{"CodeValue": "P1", "CodingSchemeDesignator": "99X"}],
            "NameOfPhysiciansReadingStudy": ["Grey^Meredith", "House^Gregory"],
            "OtherPatientNames": ["Jones^Mary", "Schmidt^Maria"],
            "OtherStudyNumbers": ["12", "007"],
            "PatientWeight": "70.50",
            "PatientAge": "042Y",
        },
    ),
    "S2": (
        "SMYTHE",
        "20230304",
        "120000",
        "",
        "S2",
        "1",
        "Mammography",
        "MG4",
        {
            "ProcedureCodeSequence": [
                {"CodeValue": "P1", "CodingSchemeDesignator": "99Y"},
                {"CodeValue": "P2", "CodingSchemeDesignator": "99X"},
            ],
            "NameOfPhysiciansReadingStudy": ["House^Gregory"],
            "OtherPatientNames": ["Smith^Marie"],
            "OtherStudyNumbers": ["120"],
            "PatientWeight": "70.5",
            "PatientAge": "041Y",
        },
    ),
    "O1": ("ODD%_!", "20240229", "120000", "", "a_b", "1", "50% off!", "OT1", {}),
}

#: What a study has that says nothing else of it: nothing that is matched is unknown.
_OTHERWISE: Mapping[str, Any] = {
    "ProcedureCodeSequence": [{"CodeValue": "NONE", "CodingSchemeDesignator": "99Z"}],
    "NameOfPhysiciansReadingStudy": ["Nobody"],
    "OtherPatientNames": ["Nobody"],
    "OtherStudyNumbers": ["99"],
    "PatientWeight": "1",
    "PatientAge": "001Y",
}

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "SR": "1.2.840.10008.5.1.4.1.1.88.11",
}
OTHER_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.7"
#: The flags of :func:`options`, in the order of PS3.4 Table C.5-1.
FLAGS = {
    "r": "relational",
    "c": "combined_datetime",
    "f": "fuzzy_names",
    "t": "timezone_adjustment",
    "e": "empty_value",
    "m": "multiple_value",
}


def options(flags: str) -> QueryOptions:
    """What was negotiated: a letter for each."""
    return QueryOptions(**{FLAGS[flag]: True for flag in flags})


def study_uid(label: str) -> str:
    """The Study Instance UID of a label."""
    return f"1.2.3.{list(STUDIES).index(label) + 1}"


def series_uid(label: str) -> str:
    """The Series Instance UID of a label such as ``A1.1``."""
    study, number = label.split(".")
    return f"{study_uid(study)}.{number}"


def instance_uid(label: str) -> str:
    """The SOP Instance UID of a label such as ``A1.1.2``."""
    series, _, number = label.rpartition(".")
    return f"{series_uid(series)}.{number}"


def data_set(**values: Any) -> Dataset:
    """A data set by keywords, not validated; dictionaries are items."""
    made = Dataset()
    for keyword, value in values.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        vr = dictionary_VR(tag)
        if vr == "SQ":
            many = [value] if isinstance(value, dict) else value
            value = Items(data_set(**each) for each in many or ())
        made[tag] = DataElement(tag, vr, value, validation_mode=config.IGNORE)
    return made


def instances() -> Iterator[tuple[str, Dataset]]:
    """Every instance with its label."""
    for label, row in STUDIES.items():
        patient_id, date, time, offset, accession, study_id, description, all_series, other = row
        name, charset, born, sex = PATIENTS[patient_id]
        for number, each in enumerate(all_series.split(), start=1):
            modality, count = each[:2], int(each[2:])
            for instance in range(1, count + 1):
                made = data_set(
                    PatientName=name,
                    PatientID=patient_id,
                    PatientBirthDate=born,
                    PatientSex=sex,
                    StudyDate=date,
                    StudyTime=time,
                    AccessionNumber=accession,
                    StudyID=study_id,
                    StudyDescription=description,
                    StudyInstanceUID=study_uid(label),
                    Modality=modality,
                    SeriesNumber=number,
                    SeriesInstanceUID=series_uid(f"{label}.{number}"),
                    SeriesDescription=f"{modality} of {label}",
                    SOPClassUID=SOP_CLASSES.get(modality, OTHER_SOP_CLASS),
                    SOPInstanceUID=instance_uid(f"{label}.{number}.{instance}"),
                    InstanceNumber=instance,
                    Rows=64 * instance,
                    **{**_OTHERWISE, **other},
                )
                if charset:
                    made.SpecificCharacterSet = charset
                if offset:
                    made.TimezoneOffsetFromUTC = offset
                yield f"{label}.{number}.{instance}", made


def add(index: Index, data_sets: Iterable[Dataset], transfer_syntax: str) -> None:
    """Put data sets into an index, as if they were files."""
    futures = []
    for each in data_sets:
        octets = encode(each, transfer_syntax)
        path = Path("/files") / f"{each.SOPInstanceUID}.dcm"
        futures.append(index.add(record_of(octets, transfer_syntax, path=path)))
    for future in futures:
        future.result(timeout=30)


@contextmanager
def archive(directory: Path, **arguments: Any) -> Iterator[Index]:
    """An open index with all patients; every other instance came in implicit VR."""
    with Index(database_url(directory / "index.db"), **arguments) as index:
        made = [each for _, each in instances()]
        add(index, made[::2], EXPLICIT_VR_LITTLE_ENDIAN)
        add(index, made[1::2], IMPLICIT_VR_LITTLE_ENDIAN)
        yield index


def find(
    index: Index,
    identifier: Dataset,
    flags: str = "",
    *,
    model: InformationModel = InformationModel.STUDY_ROOT,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    **how: Any,
) -> list[Dataset]:
    """The answers to an identifier, which travels encoded as over a network; ``how`` is for Search."""
    travelled = decode(encode(identifier, transfer_syntax), transfer_syntax)
    answers = Search(index, **how).find(
        travelled,
        model=model,
        options=options(flags),
        transfer_syntax=transfer_syntax,
        retrieve_ae_title="ARCHIVE",
    )
    return [decode(each, transfer_syntax) for each in answers]


def labels(answers: Sequence[Dataset], level: str) -> list[str]:
    """What was found, by label, or by Patient ID at PATIENT level."""
    if level == "PATIENT":
        return [str(each.PatientID) for each in answers]
    studies = {study_uid(label): label for label in STUDIES}
    if level == "STUDY":
        return [studies[each.StudyInstanceUID] for each in answers]
    keyword = "SeriesInstanceUID" if level == "SERIES" else "SOPInstanceUID"
    found = []
    for each in answers:
        parts = str(each[keyword].value).split(".")
        found.append(".".join((studies[".".join(parts[:4])], *parts[4:])))
    return found
