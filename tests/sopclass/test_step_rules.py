"""The rules of PS3.4 Annex F: what a performed procedure step must have, and how it may change."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from netdicom_tx import dsutils
from netdicom_tx.sopclass.step_rules import (
    RULES,
    ProcedureStepError,
    Rule,
    check_create,
    selected,
    updated,
)
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.steps import data_set, final, new_step, performed_series, without

STANDARD = Path(__file__).parent.parent / "standard"


# -- the table --------------------------------------------------------------------------------------


def rows(rules: Any, depth: int = 0, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Rule]]:
    for rule in rules:
        here = (*path, f"{rule.tag >> 16:04X},{rule.tag & 0xFFFF:04X}")
        yield here, rule
        yield from rows(rule.items, depth + 1, here)


def standard_rows() -> dict[tuple[str, ...], dict[str, Any]]:
    """The rows of PS3.4 Table F.7.2-1, by the tags that lead to them."""
    table = json.loads((STANDARD / "qr_information_model.json").read_text())["mpps"]
    path: list[str] = []
    found = {}
    for entry in table["attributes"]:
        path = [*path[: entry["nesting"]], entry["tag"]]
        found[tuple(path)] = entry
    return found


def test_every_rule_is_that_of_the_standard() -> None:
    """PS3.4 Table F.7.2-1."""
    standard = standard_rows()
    for path, rule in rows(RULES.values()):
        entry = standard[path]
        assert rule.create == entry["n_create"].split("/")[1], path
        modify = "-" if entry["n_set"] == "Not allowed" else entry["n_set"].split("/")[1]
        assert rule.modify == modify, path
        expected = entry["final"] if entry["final"] in ("1", "2") else "."
        assert rule.final == expected, path


def test_no_attribute_that_the_standard_demands_is_left_out() -> None:
    """All of the top level, and below it those of type 1 and 2 whose sequence is one of ours."""
    ours = {path for path, _ in rows(RULES.values())}
    for path, entry in standard_rows().items():
        demanded = entry["n_create"] in ("1/1", "2/2")
        assert path in ours or (len(path) > 1 and not (demanded and path[:-1] in ours))


# -- N-CREATE -----------------------------------------------------------------------------------------


def refusal(ds: Dataset) -> tuple[int, tuple[int, ...]]:
    with pytest.raises(ProcedureStepError) as caught:
        check_create(ds)
    assert caught.value.status is not None
    return int(caught.value.status), caught.value.attributes


def test_a_step_with_the_attributes_of_type_1_is_created() -> None:
    """Those of type 2 may be absent: many modalities leave them out."""
    check_create(new_step())


@pytest.mark.parametrize("state", ["COMPLETED", "DISCONTINUED", "SCHEDULED"])
def test_a_step_begins_in_progress(state: str) -> None:
    """PS3.4 F.7.2.1.3."""
    assert refusal(new_step(PerformedProcedureStepStatus=state)) == (0x0106, (0x00400252,))


TYPE_1 = [
    "ScheduledStepAttributesSequence",
    "PerformedProcedureStepID",
    "PerformedStationAETitle",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepStatus",
    "Modality",
]


@pytest.mark.parametrize("keyword", TYPE_1)
def test_an_attribute_of_type_1_must_be_there(keyword: str) -> None:
    """PS3.7 C.5.13: 0x0120 with the Attribute Identifier List."""
    tag = int(new_step()[keyword].tag)
    assert refusal(without(new_step(), keyword)) == (0x0120, (tag,))


@pytest.mark.parametrize("keyword", TYPE_1)
def test_an_attribute_of_type_1_must_have_a_value(keyword: str) -> None:
    """PS3.7 C.5.14: 0x0121."""
    ds = new_step(**{keyword: None})
    assert refusal(ds) == (0x0121, (int(ds[keyword].tag),))


def test_spaces_are_no_value() -> None:
    assert refusal(new_step(PerformedProcedureStepID="  ")) == (0x0121, (0x00400253,))


def test_the_items_of_sequences_have_their_rules() -> None:
    """A scheduled step belongs to a study, a series has a protocol and a UID."""
    ds = new_step(ScheduledStepAttributesSequence=Sequence([data_set(AccessionNumber="A1")]))
    assert refusal(ds) == (0x0120, (0x0020000D,))
    ds = new_step(
        PerformedSeriesSequence=Sequence([data_set(SeriesInstanceUID="", ProtocolName="X")])
    )
    assert refusal(ds) == (0x0121, (0x0020000E,))


def shaped(ds: Dataset, tag: int, vr: str, value: Any) -> Dataset:
    """A data set with an attribute in a VR that is not its own."""
    ds.add_new(tag, vr, value)
    return ds


MISSHAPEN = [
    (0x00400270, "LO", "text"),
    (0x00400340, "ST", "text"),
    (0x00080060, "SQ", [Dataset()]),
    (0x00400252, "SQ", [data_set(Modality="CT")]),
    (0x00080005, "SQ", []),
]


@pytest.mark.parametrize(("tag", "vr", "value"), MISSHAPEN)
def test_what_should_be_a_sequence_and_is_none_is_refused_and_the_reverse(
    tag: int, vr: str, value: Any
) -> None:
    """0x0106, and no error of ours (PS3.7 10.1.5.1.6)."""
    assert refusal(shaped(new_step(), tag, vr, value)) == (0x0106, (tag,))


def test_a_study_has_one_uid() -> None:
    scheduled = shaped(Dataset(), 0x0020000D, "UI", ["1.2.3", "1.2.4"])
    ds = new_step(ScheduledStepAttributesSequence=Sequence([scheduled]))
    assert refusal(ds) == (0x0106, (0x0020000D,))


# -- N-SET --------------------------------------------------------------------------------------------


def set_refusal(current: Dataset, modifications: Dataset) -> ProcedureStepError:
    with pytest.raises(ProcedureStepError) as caught:
        updated(current, modifications)
    return caught.value


def test_a_step_changes_while_it_is_in_progress() -> None:
    """F.7.2.2.2: optional attributes too; a sequence is replaced."""
    current = new_step(PerformedSeriesSequence=performed_series())
    before = current.to_json()
    result = updated(
        current,
        data_set(
            PerformedProcedureStepDescription="CT abdomen",
            PerformedSeriesSequence=performed_series(ProtocolName="Thorax"),
        ),
    )
    assert result.PerformedProcedureStepDescription == "CT abdomen"
    assert [each.ProtocolName for each in result.PerformedSeriesSequence] == ["Thorax"]
    assert result.PatientName == "Doe^Jane"
    assert result.PerformedProcedureStepStatus == "IN PROGRESS"
    assert current.to_json() == before


@pytest.mark.parametrize("state", ["COMPLETED", "DISCONTINUED"])
def test_a_step_ends(state: str) -> None:
    assert updated(new_step(), final(state)).PerformedProcedureStepStatus == state


@pytest.mark.parametrize("state", ["COMPLETED", "DISCONTINUED"])
@pytest.mark.parametrize(
    "modifications",
    [
        final(),
        final("DISCONTINUED"),
        data_set(PerformedProcedureStepStatus="IN PROGRESS"),
        Dataset(),
    ],
    ids=["complete", "discontinue", "resume", "nothing"],
)
def test_a_final_state_is_final(state: str, modifications: Dataset) -> None:
    """PS3.4 Table F.7.2-2: 0x0110, Error ID A710, and this comment."""
    error = set_refusal(updated(new_step(), final(state)), modifications)
    assert error.status == 0x0110
    assert error.error_id == 0xA710
    assert error.comment == "Performed Procedure Step Object may no longer be updated"


@pytest.mark.parametrize("state", ["SCHEDULED", "", "ARRIVED"])
def test_there_are_three_states(state: str) -> None:
    error = set_refusal(new_step(), data_set(PerformedProcedureStepStatus=state))
    assert (error.status, error.attributes) == (0x0106, (0x00400252,))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientName", "Roe^Richard"), ("Modality", "MR"), ("PerformedProcedureStepStartTime", "11")],
)
def test_what_may_not_be_set_is_refused(keyword: str, value: str) -> None:
    """Table F.7.2-1, not allowed in N-SET: 0x0105 with the Attribute Identifier List."""
    error = set_refusal(new_step(), data_set(**{keyword: value}))
    assert (error.status, error.attributes) == (0x0105, (int(new_step()[keyword].tag),))


@pytest.mark.parametrize(("tag", "vr", "value"), MISSHAPEN[1:])
def test_what_is_set_has_the_shape_of_what_is_created(tag: int, vr: str, value: Any) -> None:
    error = set_refusal(new_step(), shaped(final(), tag, vr, value))
    assert (error.status, error.attributes) == (0x0106, (tag,))


def test_a_series_that_is_set_names_one_instance_each() -> None:
    """The node looks for each until it has come."""
    images = Sequence([shaped(Dataset(), 0x00081155, "UI", ["1.2.3", "1.2.4"])])
    images[0].ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds = final(PerformedSeriesSequence=performed_series(ReferencedImageSequence=images))
    error = set_refusal(new_step(), ds)
    assert (error.status, error.attributes) == (0x0106, (0x00081155,))


def test_saying_again_what_the_step_says_is_no_change() -> None:
    """Modalities that send the whole step each time are served."""
    modifications = final()
    modifications.update(
        without(new_step(), "PerformedProcedureStepStatus", "PerformedSeriesSequence")
    )
    assert updated(new_step(), modifications).PerformedProcedureStepStatus == "COMPLETED"


@pytest.mark.parametrize(
    ("keyword", "tag"),
    [
        ("PerformedProcedureStepEndDate", 0x00400250),
        ("PerformedProcedureStepEndTime", 0x00400251),
        ("PerformedSeriesSequence", 0x00400340),
    ],
)
@pytest.mark.parametrize("state", ["COMPLETED", "DISCONTINUED"])
def test_a_final_state_needs_its_end_and_its_series(state: str, keyword: str, tag: int) -> None:
    """F.7.2.2.2; PS3.7 10.1.3.1.9 has 0x0121 for N-SET, and not 0x0120."""
    error = set_refusal(new_step(), without(final(state), keyword))
    assert (error.status, error.attributes) == (0x0121, (tag,))
    error = set_refusal(new_step(), final(state, **{keyword: None}))
    assert (error.status, error.attributes) == (0x0121, (tag,))


def test_what_was_set_before_counts_in_the_final_state() -> None:
    step = updated(new_step(), without(final(), "PerformedProcedureStepStatus"))
    result = updated(step, data_set(PerformedProcedureStepStatus="COMPLETED"))
    assert result.PerformedProcedureStepEndTime == "103000"


def test_a_series_in_n_set_has_its_protocol_and_uid() -> None:
    modifications = data_set(PerformedSeriesSequence=Sequence([data_set(SeriesDescription="x")]))
    error = set_refusal(new_step(), modifications)
    assert (error.status, error.attributes) == (0x0121, (0x00181030, 0x0020000E))


def decoded(ds: Dataset) -> Dataset:
    """As it comes over the network."""
    return dsutils.decode(dsutils.encode(ds, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)


JAPANESE = ["", "ISO 2022 IR 87"]


def test_text_without_a_character_set_is_in_that_of_the_step() -> None:
    """F.7.2.2.2: N-SET uses the character set of the N-CREATE."""
    step = decoded(new_step(SpecificCharacterSet=JAPANESE, PatientName="Yamada^Tarou=山田^太郎"))
    sent = data_set(SpecificCharacterSet=JAPANESE, PerformedProcedureStepDescription="山田")
    octets = dsutils.encode(sent, EXPLICIT_VR_LITTLE_ENDIAN)
    head = dsutils.encode(data_set(SpecificCharacterSet=JAPANESE), EXPLICIT_VR_LITTLE_ENDIAN)
    modifications = dsutils.decode(octets.removeprefix(head), EXPLICIT_VR_LITTLE_ENDIAN)
    result = decoded(updated(step, modifications))
    assert result.PerformedProcedureStepDescription == "山田"
    assert str(result.PatientName) == "Yamada^Tarou=山田^太郎"


def test_text_in_two_character_sets_becomes_unicode() -> None:
    step = decoded(new_step(SpecificCharacterSet=JAPANESE, PatientName="Yamada^Tarou=山田^太郎"))
    modifications = decoded(
        data_set(SpecificCharacterSet="ISO_IR 100", PerformedProcedureStepDescription="Schädel")
    )
    result = decoded(updated(step, modifications))
    assert result.SpecificCharacterSet == "ISO_IR 192"
    assert result.PerformedProcedureStepDescription == "Schädel"
    assert str(result.PatientName) == "Yamada^Tarou=山田^太郎"


# -- N-GET --------------------------------------------------------------------------------------------


def test_n_get_gives_all_or_what_is_asked() -> None:
    step = new_step(SpecificCharacterSet="ISO_IR 192")
    assert selected(step, None) == (step, ())
    found, unsupported = selected(step, [0x00080060, 0x00400250, 0x00080060, 0x00091001])
    assert found == data_set(
        SpecificCharacterSet="ISO_IR 192", Modality="CT", PerformedProcedureStepEndDate=None
    )
    assert unsupported == (0x00091001,)
