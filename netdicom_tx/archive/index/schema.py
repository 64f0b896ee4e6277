"""The tables of the index, generated from one table of attributes (PS3.4 C.6).

==========  ==========================================================================
patient     one row for each Patient ID and issuer, or for each study of a patient without an ID
study       one row for each Study Instance UID, with the patient's attributes as the study has them
series      one row for each Series Instance UID of a study
instance    one row for each SOP Instance UID, without a series when it belongs to no patient
header      for each instance its kept header, from which all other return keys are answered
deletion    one row for each instance whose row was deleted, while it may still have a file
protection  one row for each study that no rule of retention may delete
==========  ==========================================================================

The queue, the members of a group and others have tables of their own in the same metadata.

Each attribute has a column with the text that is answered. Where matching needs another form, it has further columns,
see :data:`KEY_FORMS`. Everything here is SQLAlchemy Core; SQL of a single database is in
:mod:`netdicom_tx.archive.index.engine`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

__all__ = [
    "ATTRIBUTES",
    "COMPUTED",
    "LEVELS",
    "STUDY_ROOT_ATTRIBUTES",
    "TABLES",
    "Attribute",
    "Level",
    "attributes_of",
    "big_integer",
    "deletion",
    "instance",
    "kept_header",
    "metadata",
    "patient",
    "protection",
    "series",
    "study",
]


class Level(StrEnum):
    """A level of the information models, by its value of (0008,0052), from the highest to the lowest."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def depth(self) -> int:
        """The number of levels above: 0 for PATIENT, 3 for IMAGE."""
        return LEVELS.index(self)


LEVELS: Final = tuple(Level)

# U, R, O: unique, required and optional keys of PS3.4 C.6.1.1 and C.6.2.1. X: keys that those lists do not have, but
# that viewers ask for (PS3.18 10.6.3 has most of them).
_TABLE = """
    PATIENT 0010,0010 PN 1 R PatientName
    PATIENT 0010,0020 LO 1 U PatientID
    PATIENT 0010,0021 LO 1 O IssuerOfPatientID
    PATIENT 0010,0024 SQ 1 X IssuerOfPatientIDQualifiersSequence
    PATIENT 0008,1120 SQ 1 O ReferencedPatientSequence
    PATIENT 0010,0030 DA 1 O PatientBirthDate
    PATIENT 0010,0032 TM 1 O PatientBirthTime
    PATIENT 0010,0040 CS 1 O PatientSex
    PATIENT 0010,1000 LO n X OtherPatientIDs
    PATIENT 0010,1001 PN n O OtherPatientNames
    PATIENT 0010,1002 SQ 1 O OtherPatientIDsSequence
    PATIENT 0010,2160 SH 1 O EthnicGroup
    PATIENT 0010,4000 LT 1 O PatientComments

    STUDY   0008,0020 DA 1 R StudyDate
    STUDY   0008,0030 TM 1 R StudyTime
    STUDY   0008,0050 SH 1 R AccessionNumber
    STUDY   0020,0010 SH 1 R StudyID
    STUDY   0020,000D UI 1 U StudyInstanceUID
    STUDY   0008,0063 SQ 1 O AnatomicRegionsInStudyCodeSequence
    STUDY   0008,0090 PN 1 O ReferringPhysicianName
    STUDY   0008,1030 LO 1 O StudyDescription
    STUDY   0008,1032 SQ 1 O ProcedureCodeSequence
    STUDY   0008,1060 PN n O NameOfPhysiciansReadingStudy
    STUDY   0008,1080 LO n O AdmittingDiagnosesDescription
    STUDY   0008,1110 SQ 1 O ReferencedStudySequence
    STUDY   0010,1010 AS 1 O PatientAge
    STUDY   0010,1020 DS 1 O PatientSize
    STUDY   0010,1030 DS 1 O PatientWeight
    STUDY   0010,2180 SH 1 O Occupation
    STUDY   0010,21B0 LT 1 O AdditionalPatientHistory
    STUDY   0020,1070 IS n O OtherStudyNumbers

    SERIES  0008,0060 CS 1 R Modality
    SERIES  0020,0011 IS 1 R SeriesNumber
    SERIES  0020,000E UI 1 U SeriesInstanceUID
    SERIES  0008,0021 DA 1 X SeriesDate
    SERIES  0008,0031 TM 1 X SeriesTime
    SERIES  0008,0070 LO 1 X Manufacturer
    SERIES  0008,0080 LO 1 X InstitutionName
    SERIES  0008,1010 SH 1 X StationName
    SERIES  0008,103E LO 1 X SeriesDescription
    SERIES  0008,1040 LO 1 X InstitutionalDepartmentName
    SERIES  0008,1050 PN n X PerformingPhysicianName
    SERIES  0008,1090 LO 1 X ManufacturerModelName
    SERIES  0018,0015 CS 1 X BodyPartExamined
    SERIES  0018,1030 LO 1 X ProtocolName
    SERIES  0020,0060 CS 1 X Laterality
    SERIES  0040,0244 DA 1 X PerformedProcedureStepStartDate
    SERIES  0040,0245 TM 1 X PerformedProcedureStepStartTime
    SERIES  0040,0275 SQ 1 X RequestAttributesSequence

    IMAGE   0020,0013 IS 1 R InstanceNumber
    IMAGE   0008,0018 UI 1 U SOPInstanceUID
    IMAGE   0008,0016 UI 1 O SOPClassUID
    IMAGE   0008,001A UI n O RelatedGeneralSOPClassUID
    IMAGE   0008,0023 DA 1 X ContentDate
    IMAGE   0008,0033 TM 1 X ContentTime
    IMAGE   0008,3001 SQ 1 O AlternateRepresentationSequence
    IMAGE   0008,3002 UI 1 O AvailableTransferSyntaxUID
    IMAGE   0028,0008 IS 1 X NumberOfFrames
    IMAGE   0040,0512 LO 1 O ContainerIdentifier
    IMAGE   0040,0560 SQ 1 O SpecimenDescriptionSequence
    IMAGE   0040,A043 SQ 1 O ConceptNameCodeSequence
    IMAGE   0040,A504 SQ 1 O ContentTemplateSequence
"""

# These are answered by counting and collecting what is below a row.
_COMPUTED_TABLE = """
    PATIENT 0020,1200 IS 1 O NumberOfPatientRelatedStudies
    PATIENT 0020,1202 IS 1 O NumberOfPatientRelatedSeries
    PATIENT 0020,1204 IS 1 O NumberOfPatientRelatedInstances
    STUDY   0008,0061 CS n O ModalitiesInStudy
    STUDY   0008,0062 UI n O SOPClassesInStudy
    STUDY   0020,1206 IS 1 O NumberOfStudyRelatedSeries
    STUDY   0020,1208 IS 1 O NumberOfStudyRelatedInstances
    SERIES  0020,1209 IS 1 O NumberOfSeriesRelatedInstances
"""

#: By VR, the columns that an attribute of VM 1 has for matching, beside its text. Their values come from
#: :func:`netdicom_tx.archive.encoded.values.keys_of`.
KEY_FORMS: Final[Mapping[str, tuple[str, ...]]] = {
    "PN": ("alphabetic", "ideographic", "phonetic", "sound"),
    "DA": ("key",),
    "TM": ("key",),
    "DS": ("key",),
}


class Attribute(NamedTuple):
    """An attribute that the index knows.

    Attributes:
        many: Whether it may have several values; the column separates them with backslashes.
        key_type: U, R or O (PS3.4 C.2.2.1), or X for a key that the standard does not list.
        column: The name of the column with its text or its encoded items.
        key_columns: The names of the columns that are matched instead; empty when the first one is.
    """

    level: Level
    tag: int
    vr: str
    many: bool
    key_type: str
    keyword: str
    column: str
    key_columns: tuple[str, ...]


def _snake(keyword: str) -> str:
    """``SOPInstanceUID`` is ``sop_instance_uid``."""
    parts = re.findall(r"[A-Z]+s?(?![a-z])|[A-Z][a-z]+", keyword)
    return "_".join(parts).lower()


def _read(table: str) -> dict[int, Attribute]:
    found = {}
    for line in filter(None, map(str.strip, table.splitlines())):
        level, tag, vr, multiplicity, key_type, keyword = line.split()
        group, element = tag.split(",")
        many = multiplicity == "n"
        column = _snake(keyword)
        forms = () if many else KEY_FORMS.get(vr, ())
        attribute = Attribute(
            Level(level),
            int(group + element, 16),
            vr,
            many,
            key_type,
            keyword,
            column,
            tuple(f"{column}_{form}" for form in forms),
        )
        found[attribute.tag] = attribute
    return found


#: The attributes with columns, by tag.
ATTRIBUTES: Final[Mapping[int, Attribute]] = _read(_TABLE)
#: The attributes that are answered by counting, by tag.
COMPUTED: Final[Mapping[int, Attribute]] = _read(_COMPUTED_TABLE)


#: The same in the Study Root model, where the attributes of patients are the study's own (PS3.4 C.6.2.1).
STUDY_ROOT_ATTRIBUTES: Final[Mapping[int, Attribute]] = {
    tag: each._replace(level=Level.STUDY) if each.level is Level.PATIENT else each
    for tag, each in ATTRIBUTES.items()
}


def attributes_of(level: Level) -> tuple[Attribute, ...]:
    """The attributes that have columns in the table of a level.

    Those of a patient are in the table of studies as well: two studies of one patient may tell different
    names, and each is answered with its own.
    """
    known = STUDY_ROOT_ATTRIBUTES if level is Level.STUDY else ATTRIBUTES
    return tuple(each for each in known.values() if each.level is level)


# -- the tables -------------------------------------------------------------------------------------

metadata = sa.MetaData()

# Text is compared octet by octet in every database, because ranges of dates and prefixes of names rely on it.
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
#: The type of keys that the database counts: SQLite counts rows only with a column of exactly this type.
big_integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, _Text, nullable=False, server_default="", **options)


def _columns(level: Level) -> list[sa.Column[Any]]:
    columns: list[sa.Column[Any]] = []
    for attribute in attributes_of(level):
        if attribute.vr == "SQ":
            columns.append(sa.Column(attribute.column, sa.LargeBinary))
        else:
            columns.append(_text(attribute.column))
        columns += map(_text, attribute.key_columns)
    return columns


def _identifier() -> sa.Column[int]:
    return sa.Column("id", big_integer, primary_key=True, autoincrement=True)


def _parent(table: sa.Table, *, nullable: bool = False) -> sa.Column[int]:
    """The column with the row of the level above."""
    return sa.Column("parent_id", big_integer, sa.ForeignKey(table.c.id), nullable=nullable)


patient = sa.Table(
    "patient",
    metadata,
    _identifier(),
    # Patient ID and its issuer, see InstanceRecord.identity; without an ID, the study that it is known by.
    _text("identity", unique=True),
    *_columns(Level.PATIENT),
)
study = sa.Table(
    "study",
    metadata,
    _identifier(),
    _parent(patient),
    # (0008,0201), the offset from UTC of the dates and times in this row.
    _text("timezone"),
    *_columns(Level.STUDY),
    # When something of it was received last, in seconds since 1970 and about to ten seconds; 0 when that is not known.
    sa.Column("received", sa.Double, nullable=False, server_default="0"),
    # The AE titles that have sent it and that it was sent to, separated by backslashes.
    _text("calling"),
    _text("called"),
)
series = sa.Table(
    "series",
    metadata,
    _identifier(),
    _parent(study),
    _text("timezone"),
    *_columns(Level.SERIES),
)
# The column of Available Transfer Syntax UID has the transfer syntax of the file.
instance = sa.Table(
    "instance",
    metadata,
    _identifier(),
    _parent(series, nullable=True),
    _text("timezone"),
    *_columns(Level.IMAGE),
    _text("path"),
    sa.Column("size", sa.BigInteger, nullable=False),
    # The digest of the file: "sha256:" and hexadecimal digits; empty when it was never computed.
    _text("digest"),
)
kept_header = sa.Table(
    "header",
    metadata,
    sa.Column("instance_id", big_integer, sa.ForeignKey(instance.c.id), primary_key=True),
    # The header, deflated (RFC 1951).
    sa.Column("data", sa.LargeBinary, nullable=False),
)
# The list of what is being deleted: a row is added by the transaction that deletes the instance, and goes when the file
# is gone. See netdicom_tx.archive.store.deletion.
deletion = sa.Table(
    "deletion",
    metadata,
    _identifier(),
    _text("sop_instance_uid", index=True),
    _text("path"),
    sa.Column("size", sa.BigInteger, nullable=False),
    # Of the leases that may need the file; 0 when that is not known yet. See netdicom_tx.archive.store.sharing.
    sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
)
# It is not a column of the study, so that it outlives a study that is deleted and sent again, and a new index of the
# files.
protection = sa.Table(
    "protection",
    metadata,
    sa.Column("study_instance_uid", _Text, primary_key=True),
    # Why, in the words of the operator.
    _text("label"),
    # Seconds since 1970.
    sa.Column("created", sa.Double, nullable=False),
)
#: The table of a level.
TABLES: Final[Mapping[Level, sa.Table]] = {
    Level.PATIENT: patient,
    Level.STUDY: study,
    Level.SERIES: series,
    Level.IMAGE: instance,
}

_INDEXED: Final[Mapping[sa.Table, tuple[str, ...]]] = {
    patient: (
        "patient_id",
        "patient_name_alphabetic",
        "patient_name_ideographic",
        "patient_name_phonetic",
        "patient_birth_date_key",
    ),
    study: (
        "parent_id",
        "study_date_key",
        "accession_number",
        "study_id",
        "received",
        "patient_id",
        "patient_name_alphabetic",
        "patient_name_ideographic",
        "patient_name_phonetic",
        "patient_birth_date_key",
    ),
    series: ("series_instance_uid",),
    instance: ("parent_id",),
}
for _table, _names in _INDEXED.items():
    for _name in _names:
        sa.Index(f"ix_{_table.name}_{_name}", _table.c[_name])
sa.Index("ux_study_uid", study.c.study_instance_uid, unique=True)
sa.Index("ux_series_uid", series.c.parent_id, series.c.series_instance_uid, unique=True)
sa.Index("ux_instance_uid", instance.c.sop_instance_uid, unique=True)
