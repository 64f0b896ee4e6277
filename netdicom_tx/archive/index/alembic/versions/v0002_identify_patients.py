"""Version 2: a patient is known by Patient ID and issuer; a study has the patient's attributes as its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

from netdicom_tx.archive.index.record import InstanceRecord, KeptHeader
from netdicom_tx.archive.index.schema import (
    Level,
    attributes_of,
    instance,
    kept_header,
    patient,
    series,
    study,
)

revision: Final = "0002"
down_revision: Final = "0001"

# The columns that are new in version 2.
_ISSUER: Final = "issuer_of_patient_id_qualifiers_sequence"
_OF_PATIENT: Final = (
    "patient_name",
    "patient_name_alphabetic",
    "patient_name_ideographic",
    "patient_name_phonetic",
    "patient_name_sound",
    "patient_id",
    "issuer_of_patient_id",
    "patient_birth_date",
    "patient_birth_date_key",
    "patient_birth_time",
    "patient_birth_time_key",
    "patient_sex",
    "other_patient_ids",
    "other_patient_names",
    "ethnic_group",
    "patient_comments",
)
_SEQUENCES: Final = (
    _ISSUER,
    "referenced_patient_sequence",
    "other_patient_ids_sequence",
)
_INDEXES: Final = (
    "patient_id",
    "patient_name_alphabetic",
    "patient_name_ideographic",
    "patient_name_phonetic",
    "patient_birth_date_key",
)
_TAGS: Final = frozenset(each.tag for each in attributes_of(Level.PATIENT))
# How many studies have their instances read together.
_PAGE: Final = 200
# Marks the rows of version 1 while those of version 2 are made, for no value has a backslash.
_OLD: Final = "\\version 1\\"


def _add_columns(connection: sa.Connection) -> None:
    binary = sa.LargeBinary().compile(connection.dialect)
    connection.execute(sa.text(f"ALTER TABLE patient ADD COLUMN {_ISSUER} {binary}"))
    for name in _OF_PATIENT:
        kind = study.c[name].type.compile(connection.dialect)
        connection.execute(
            sa.text(f"ALTER TABLE study ADD COLUMN {name} {kind} DEFAULT '' NOT NULL")
        )
    for name in _SEQUENCES:
        connection.execute(sa.text(f"ALTER TABLE study ADD COLUMN {name} {binary}"))
    for name in _INDEXES:
        connection.execute(sa.text(f"CREATE INDEX ix_study_{name} ON study ({name})"))


def _studies(connection: sa.Connection) -> Iterator[tuple[int, list[InstanceRecord]]]:
    """Each study with its instances, in the order in which they came; a page of studies is read at a time."""
    ids = connection.scalars(sa.select(study.c.id).order_by(study.c.id)).all()
    for start in range(0, len(ids), _PAGE):
        found = _instances(connection, ids[start : start + _PAGE])
        for study_id, group in groupby(found, key=lambda each: each[0]):
            yield study_id, [record for _, record in group]


def _instances(
    connection: sa.Connection, ids: Sequence[int]
) -> Iterator[tuple[int, InstanceRecord]]:
    rows = connection.execute(
        sa.select(
            study.c.id,
            study.c.study_instance_uid,
            instance.c.available_transfer_syntax_uid,
            kept_header.c.data,
        )
        .select_from(
            instance.join(series, instance.c.parent_id == series.c.id)
            .join(study, series.c.parent_id == study.c.id)
            .join(kept_header, kept_header.c.instance_id == instance.c.id)
        )
        .where(study.c.id.in_(ids))
        .order_by(study.c.id, instance.c.id)
    ).all()
    for row_id, study_uid, syntax, data in rows:
        kept = KeptHeader.of(data, syntax, _TAGS)
        yield (
            row_id,
            InstanceRecord(
                sop_class_uid="",
                sop_instance_uid="",
                transfer_syntax=syntax,
                patient_id=kept.text(0x00100020, "LO"),
                study_instance_uid=study_uid,
                series_instance_uid="",
                path=Path(),
                size=0,
                digest="",
                header=kept,
                packed=data,
            ),
        )


def _filled(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Fill attributes that have no value from another instance of the same patient."""
    for attribute in attributes_of(Level.PATIENT):
        if not values[attribute.column]:
            for name in (attribute.column, *attribute.key_columns):
                values[name] = more[name]


def upgrade() -> None:
    """Make the one row for a Patient ID one row for each issuer."""
    connection = op.get_bind()
    _add_columns(connection)
    old = patient.c.id.cast(sa.Text)
    connection.execute(patient.update().values(identity=sa.literal(_OLD).concat(old)))
    patients: dict[str, tuple[int, dict[str, Any]]] = {}
    for study_id, records in _studies(connection):
        identity = records[0].identity
        own = records[0].values(Level.PATIENT)
        for record in records[1:]:
            if record.identity == identity:
                _filled(own, record.values(Level.PATIENT))
        if identity in patients:
            _filled(patients[identity][1], own)
        else:
            made = connection.execute(patient.insert().values(identity=identity, **own))
            assert made.inserted_primary_key is not None  # it is known when one row was inserted
            patients[identity] = made.inserted_primary_key[0], dict(own)
        connection.execute(
            study.update()
            .where(study.c.id == study_id)
            .values(parent_id=patients[identity][0], **own)
        )
    for row_id, values in patients.values():
        connection.execute(patient.update().where(patient.c.id == row_id).values(values))
    used = sa.select(study.c.parent_id)
    connection.execute(
        patient.delete().where(
            patient.c.identity.startswith(_OLD, autoescape=True), patient.c.id.not_in(used)
        )
    )
