"""An index with many rows, filled by COPY of PostgreSQL, and how the server finds rows in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from random import Random
from typing import Any, Final

import sqlalchemy as sa
from pydicom.dataset import Dataset

from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.index.schema import instance, kept_header, patient, series, study
from netdicom_tx.archive.query.matching import InformationModel, QueryOptions
from netdicom_tx.archive.query.search import Search
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN
from support.archive.records import record

__all__ = ["QUERIES", "Ask", "ask", "fill", "scans", "statements", "uid_of"]

_SERIES, _INSTANCES = 4, 25
_FAMILIES: Final = ("SMITH", "JONES", "MÜLLER", "GARCIA", "YAMADA", "KIM", "IVANOV", "NGUYEN")
_GIVEN: Final = ("ANNA", "BOB", "CHEN", "DORA", "EMIL", "FINN", "GINA", "HUGO")
_MODALITIES: Final = ("CT", "CT", "MR", "MR", "MR", "CR", "US", "SR")
#: The tables that grow with the archive.
_LARGE: Final = {"patient", "study", "series", "instance", "header"}


def uid_of(number: int, *more: int) -> str:
    """A UID as long as those of devices."""
    return ".".join(
        ("1.2.826.0.1.3680043.9999.20260102101112", str(1_000_000 + number), *map(str, more))
    )


def fill(index: Index, studies: int) -> int:
    """Add studies, each of 4 series with 25 instances each, two to a patient, over ten years.

    Returns:
        How many instances there are.
    """
    assert index._engine is not None
    random = Random(1)
    of_studies = _studies(studies, random)
    patients = (studies + 1) // 2
    kept = record("1.1", InstanceNumber="1", Rows=512).packed
    with index._engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        _copy(
            raw,
            patient,
            ("id", "identity", "patient_id", *_NAMES),
            ((n, f"P{n}", f"P{n}", *_name(n)) for n in range(1, patients + 1)),
        )
        _copy(
            raw,
            study,
            (
                *("id", "parent_id", "patient_id", *_NAMES, "study_instance_uid"),
                *("study_date", "study_date_key", "study_time", "study_time_key"),
                *("accession_number", "study_id", "study_description", "received"),
            ),
            of_studies,
        )
        rows = ((s, n) for s in range(1, studies + 1) for n in range(_SERIES))
        _copy(
            raw,
            series,
            ("id", "parent_id", "series_instance_uid", "modality", "series_number"),
            (
                (row, s, uid_of(s, n), random.choice(_MODALITIES), str(n))
                for row, (s, n) in enumerate(rows, 1)
            ),
        )
        many = studies * _SERIES * _INSTANCES
        _copy(
            raw,
            instance,
            (
                *("id", "parent_id", "sop_instance_uid", "sop_class_uid", "instance_number"),
                *("available_transfer_syntax_uid", "path", "size", "digest"),
            ),
            (
                (
                    *(n + 1, n // _INSTANCES + 1, uid_of(n // 100 + 1, n // 25 % 4, n % 25)),
                    *("1.2.840.10008.5.1.4.1.1.2", str(n % 25 + 1), "1.2.840.10008.1.2.1"),
                    *(f"instances/{n % 256:02x}/{n:064x}.dcm", 526_000, f"{n:064x}"),
                )
                for n in range(many)
            ),
        )
        _copy(raw, kept_header, ("instance_id", "data"), ((n + 1, kept) for n in range(many)))
        for table in (patient, study, series, instance):
            last = f"(SELECT max(id) FROM {table.name})"
            raw.execute(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), {last})")
        raw.commit()
        raw.autocommit = True
        for table in (patient, study, series, instance, kept_header):
            raw.execute(f"VACUUM ANALYZE {table.name}")
        raw.autocommit = False
    return many


_NAMES: Final = ("patient_name", "patient_name_alphabetic", "patient_birth_date_key")


def _name(number: int) -> tuple[str, str, str]:
    name = f"{_FAMILIES[number % 8]}{number // 64}^{_GIVEN[number // 8 % 8]}"
    return name, name.lower(), f"19{number % 100:02}0101"


def _studies(studies: int, random: Random) -> Iterator[tuple[Any, ...]]:
    for number in range(1, studies + 1):
        of = (number + 1) // 2
        day = (date(2015, 1, 1) + timedelta(days=random.randrange(3650))).strftime("%Y%m%d")
        time = f"{random.randrange(24):02}{random.randrange(60):02}00"
        yield (
            *(number, of, f"P{of}", *_name(of), uid_of(number)),
            *(day, day, time, f"{time}000000"),
            *(f"A{number:07}", str(number % 7), "Thorax", float(number)),
        )


def _copy(
    raw: Any, table: sa.Table, columns: Sequence[str], rows: Iterator[tuple[Any, ...]]
) -> None:
    statement = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN"
    with raw.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


# -- typical queries ----------------------------------------------------------------------------------

Ask = Callable[[Index], Iterator[bytes]]
_LIST: Final = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription"),
)
_COUNTS: Final = (
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)


def ask(
    level: str, *keywords: str, model: InformationModel = InformationModel.STUDY_ROOT, **keys: Any
) -> Ask:
    """A query with keys, and with keys that have no value."""
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = level
    for keyword in keywords:
        setattr(identifier, keyword, None)
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)

    def call(index: Index) -> Iterator[bytes]:
        return Search(index).find(
            identifier,
            model=model,
            options=QueryOptions(relational=True),
            transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN,
            retrieve_ae_title="ARCHIVE",
        )

    return call


def _study(*more: str, **keys: Any) -> Ask:
    return ask("STUDY", *_LIST, *more, **keys)


#: What viewers and routers ask. All of it is there in an index with 60 studies and more.
QUERIES: Final[dict[str, Ask]] = {
    "studies of a day": _study(StudyDate="20150607"),
    "studies of a month": _study(StudyDate="20150601-20150630"),
    "studies of a day, with counts": _study(*_COUNTS, StudyDate="20150607"),
    "studies of a month, with counts": _study(*_COUNTS, StudyDate="20150601-20150630"),
    "studies by the begin of a name": _study(PatientName="SMITH1*"),
    "studies by a whole name": _study(PatientName="SMITH1^ANNA"),
    "studies by name and month": _study(PatientName="SM*", StudyDate="20150601-20150630"),
    "studies by accession number": _study(AccessionNumber="A0000017"),
    "studies by Patient ID": _study(PatientID="P17"),
    "studies by birth date": _study(PatientBirthDate="19170101", PatientName="S*"),
    "studies of a modality of a day": _study(StudyDate="20150607", ModalitiesInStudy="SR"),
    "studies of a modality of a month": _study(
        *_COUNTS, StudyDate="20150601-20150630", ModalitiesInStudy="SR"
    ),
    "a study by UID, with counts": _study(*_COUNTS, StudyInstanceUID=uid_of(17)),
    "50 studies by UID": _study(StudyInstanceUID=[uid_of(n) for n in range(1, 51)]),
    "the study of an instance": _study(SOPInstanceUID=uid_of(17, 1, 1)),
    "a patient by ID": ask(
        *("PATIENT", "PatientName", "NumberOfPatientRelatedInstances"),
        model=InformationModel.PATIENT_ROOT,
        PatientID="P17",
    ),
    "patients by the begin of a name": ask(
        "PATIENT", "PatientID", model=InformationModel.PATIENT_ROOT, PatientName="SMITH1*"
    ),
    "series of a study": ask(
        *("SERIES", "SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"),
        StudyInstanceUID=uid_of(17),
    ),
    "a series by UID alone": ask("SERIES", "Modality", SeriesInstanceUID=uid_of(17, 1)),
    "instances of a series": ask(
        *("IMAGE", "SOPInstanceUID", "InstanceNumber", "Rows"),
        StudyInstanceUID=uid_of(17),
        SeriesInstanceUID=uid_of(17, 1),
    ),
    "instances of a study": ask("IMAGE", "SOPInstanceUID", StudyInstanceUID=uid_of(17)),
    "25 instances by UID": ask(
        *("IMAGE", "InstanceNumber"), SOPInstanceUID=[uid_of(17, 1, n) for n in range(25)]
    ),
}


# -- plans --------------------------------------------------------------------------------------------


@contextmanager
def statements(index: Index) -> Iterator[list[tuple[str, Any]]]:
    """What is executed in the block."""
    found: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("SELECT"):
            found.append((statement, parameters))

    sa.event.listen(index._engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(index._engine, "before_cursor_execute", note)


def scans(index: Index, found: Sequence[tuple[str, Any]], *, forced: bool) -> list[str]:
    """The large tables that statements read from the begin to the end, with the statements.

    Args:
        forced: Whether the server reads tables in this way only where it cannot do otherwise, which small tables need.
    """
    said = []
    with index.reading() as reading:
        if forced:
            for each in ("seqscan", "mergejoin", "hashjoin"):
                reading.exec_driver_sql(f"SET LOCAL enable_{each} = off")
        for statement, parameters in found:
            plan: Any = reading.exec_driver_sql(
                f"EXPLAIN (FORMAT JSON) {statement}", parameters
            ).scalar()
            said += [
                f"{node['Relation Name']}: {statement}"
                for node in _nodes(plan[0]["Plan"])
                if node.get("Relation Name") in _LARGE and _is_whole(node)
            ]
    return said


def _is_whole(node: dict[str, Any]) -> bool:
    """Whether all rows are visited, in the order of the table or of an index."""
    kind = node["Node Type"]
    return kind == "Seq Scan" or (
        kind in ("Index Scan", "Index Only Scan") and "Index Cond" not in node
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)
