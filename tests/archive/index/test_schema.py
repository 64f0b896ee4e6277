"""The tables of the index against PS3.4 C.6, and their versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from netdicom_tx.archive.encoded import values
from netdicom_tx.archive.index import schema
from netdicom_tx.archive.index.schema import ATTRIBUTES, COMPUTED, Level

MODELS = json.loads(
    (Path(__file__).parents[2] / "standard" / "qr_information_model.json").read_text()
)["models"]


def _keys() -> list[Any]:
    rows = []
    for model in ("patient_root", "study_root"):
        for level, keys in MODELS[model]["keys"].items():
            if isinstance(keys, str):
                continue  # "as patient_root"
            rows += [
                pytest.param(model, level, key, id=f"{model}-{level}-{key['keyword']}")
                for key in keys
                if not key.get("nesting")
            ]
    return rows


@pytest.mark.parametrize(("model", "level", "key"), _keys())
def test_every_key_of_the_standard_is_known(model: str, level: str, key: dict[str, str]) -> None:
    """PS3.4 C.6.1.1 and C.6.2.1: unique, required and optional keys of each level."""
    tag = int(key["tag"].replace(",", ""), 16)
    attribute = ATTRIBUTES.get(tag) or COMPUTED[tag]
    assert attribute.keyword == key["keyword"]
    assert attribute.vr == key["vr"]
    # In the study root the patient's attributes are the study's (PS3.4 C.6.2.1.2).
    is_of_patient = model == "study_root" and attribute.level is Level.PATIENT
    assert attribute.level == level or is_of_patient
    if not is_of_patient:
        assert attribute.key_type == key["type"]


@pytest.mark.parametrize("attribute", [*ATTRIBUTES.values(), *COMPUTED.values()])
def test_the_table_agrees_with_the_data_dictionary(attribute: schema.Attribute) -> None:
    assert keyword_for_tag(attribute.tag) == attribute.keyword
    assert dictionary_VR(attribute.tag) == attribute.vr
    if attribute.keyword == "AvailableTransferSyntaxUID":
        return  # an archive that keeps what it got has one
    multiplicity = dictionary_VM(attribute.tag)
    # A sequence is one value, and so is a name in an identifier of a patient.
    assert attribute.many == (multiplicity != "1" and attribute.vr != "SQ")


@pytest.mark.parametrize("attribute", ATTRIBUTES.values())
def test_every_attribute_has_its_columns(attribute: schema.Attribute) -> None:
    table = schema.TABLES[attribute.level]
    assert attribute.column in table.c
    forms = schema.KEY_FORMS.get(attribute.vr, ())
    assert len(attribute.key_columns) == (0 if attribute.many else len(forms))
    assert all(name in table.c for name in attribute.key_columns)
    if attribute.key_columns:
        assert len(values.keys_of(attribute.vr, "")) == len(forms)


def test_the_tables_can_be_made_by_postgresql() -> None:
    for table in schema.TABLES.values():
        ddl = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert "BIGSERIAL" in ddl
        assert 'COLLATE "C"' in ddl
    assert "BYTEA" in str(CreateTable(schema.kept_header).compile(dialect=postgresql.dialect()))
