"""Performed procedure steps: the rules of PS3.4 Annex F as functions, and both roles in memory."""

import csv
import json
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from twisted.internet import defer

from netdicom_tx import AE, StatusError, dsutils
from netdicom_tx.dimsemessages import NCreateRQ, NEventReportRQ, NSetRQ, Response
from netdicom_tx.sopclass import normalized_scu
from netdicom_tx.sopclass.procedure_step import (
    EVENTS,
    MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS,
    MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS,
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
    RULES,
    ModalityPerformedProcedureStep,
    ProcedureStepError,
    Rule,
    check_create,
    notify_procedure_step,
    procedure_step_scu,
    report_procedure_step,
    selected,
    updated,
)
from netdicom_tx.statuses import DUPLICATE_SOP_INSTANCE, NO_SUCH_SOP_INSTANCE
from netdicom_tx.testing import Pair, connected, success_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.doubles import logged_failures as logged_failures

STANDARD = Path(__file__).parent.parent / "standard"
MPPS = MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS
RETRIEVE = MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS
NOTIFICATION = MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS
UID = "1.2.826.0.1.3680043.10.1"

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return success_of(defer.Deferred.fromCoroutine(coroutine))


def data_set(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def new_step(**attributes: Any) -> Dataset:
    """What a modality sends first: every attribute of type 1, and none more."""
    scheduled = data_set(StudyInstanceUID="1.2.3", AccessionNumber="A1")
    return data_set(
        **{
            "ScheduledStepAttributesSequence": Sequence([scheduled]),
            "PatientName": "Doe^Jane",
            "PerformedProcedureStepID": "P1",
            "PerformedStationAETitle": "CT1",
            "PerformedProcedureStepStartDate": "20261123",
            "PerformedProcedureStepStartTime": "101500",
            "PerformedProcedureStepStatus": "IN PROGRESS",
            "Modality": "CT",
            "PerformedSeriesSequence": Sequence(),
            **attributes,
        }
    )


def performed_series(**attributes: Any) -> Sequence:
    image = data_set(
        ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID="1.2.3.4"
    )
    return Sequence(
        [
            data_set(
                **{
                    "ProtocolName": "Abdomen",
                    "SeriesInstanceUID": "1.2.3.1",
                    "ReferencedImageSequence": Sequence([image]),
                    **attributes,
                }
            )
        ]
    )


def final(state: str = "COMPLETED", **attributes: Any) -> Dataset:
    """What a modality sends last."""
    return data_set(
        **{
            "PerformedProcedureStepStatus": state,
            "PerformedProcedureStepEndDate": "20261123",
            "PerformedProcedureStepEndTime": "103000",
            "PerformedSeriesSequence": performed_series(),
            **attributes,
        }
    )


def without(ds: Dataset, *keywords: str) -> Dataset:
    for keyword in keywords:
        delattr(ds, keyword)
    return ds


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


def test_the_sop_classes_are_those_of_the_registry() -> None:
    """PS3.6 Table A-1."""
    with (STANDARD / "sop_classes.csv").open() as file:
        names = {row["uid"]: row["name"] for row in csv.DictReader(file)}
    base = "Modality Performed Procedure Step"
    assert [names[uid] for uid in (MPPS, RETRIEVE, NOTIFICATION)] == [
        f"{base} SOP Class",
        f"{base} Retrieve SOP Class",
        f"{base} Notification SOP Class",
    ]


def test_the_events_are_those_of_the_standard() -> None:
    """PS3.4 Table F.9.1-1."""
    classes = json.loads((STANDARD / "service_statuses.json").read_text())["service_classes"]
    events = classes["mpps_notification"]["event_types"]
    assert [each["event_type_id"] for each in events] == list(EVENTS)
    assert [each["name"].split(" (")[0].upper() for each in events] == list(EVENTS.values())


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


# -- both roles -----------------------------------------------------------------------------------------


class Steps(AE):
    """An SCP that keeps its steps in a dictionary, as a user would write it."""

    def __init__(self) -> None:
        super().__init__("RIS")
        self.steps: dict[str, Dataset] = {}
        self.add_scp(ModalityPerformedProcedureStep())

    async def on_mpps_create(self, uid: str, ds: Dataset) -> None:
        if uid in self.steps:
            raise StatusError(DUPLICATE_SOP_INSTANCE)
        self.steps[uid] = ds

    def on_mpps_set(self, uid: str, modifications: Dataset) -> None:
        self.steps[uid] = updated(self.find(uid), modifications)

    def on_mpps_get(self, uid: str, tags: Any) -> Dataset:
        return self.find(uid)

    def find(self, uid: str) -> Dataset:
        if uid not in self.steps:
            raise StatusError(NO_SUCH_SOP_INSTANCE)
        return self.steps[uid]


@pytest.fixture
def ris() -> Steps:
    return Steps()


@pytest.fixture
def pair(ris: Steps) -> Iterator[Pair]:
    scu = AE("CT1").add_scu(procedure_step_scu).add_scu(normalized_scu, [NOTIFICATION])
    with connected(scu, ris) as pair:
        yield pair


def scu(pair: Pair, uid: str = MPPS) -> Any:
    return pair.requestor.get_scu(uid)()


def test_a_step_lives_from_creation_to_completion(pair: Pair, ris: Steps) -> None:
    """F.7: N-CREATE, N-SET while it runs, N-SET with COMPLETED."""
    step = scu(pair)
    assert success_of(step.create(UID, new_step())) == 0
    assert success_of(step.set(UID, data_set(PerformedProcedureStepDescription="x"))) == 0
    assert success_of(step.set(UID, final())) == 0
    assert ris.steps[UID].PerformedProcedureStepStatus == "COMPLETED"
    status = success_of(step.set(UID, final()))
    assert status == 0x0110
    assert status.comment == "Performed Procedure Step Object may no longer be updated"


def request(pair: Pair, message: Any) -> Response:
    (ctx,) = pair.requestor.contexts_for(MPPS)
    return success_of(pair.requestor.request(message, ctx))


def encoded(ds: Dataset, pair: Pair) -> bytes:
    (ctx,) = pair.requestor.contexts_for(MPPS)
    return dsutils.encode(ds, ctx.supported_ts)


def test_the_error_id_and_the_list_of_attributes_are_sent(pair: Pair) -> None:
    """PS3.7 Annex C: what explains a status."""
    response = request(
        pair,
        NCreateRQ(
            affected_sop_class_uid=MPPS,
            affected_sop_instance_uid=UID,
            data_set=encoded(without(new_step(), "Modality", "PerformedStationAETitle"), pair),
        ),
    )
    assert response.status == 0x0120
    assert response.attribute_identifier_list == (0x00400241, 0x00080060)
    assert response.error_comment == "missing: PerformedStationAETitle, Modality"
    success_of(scu(pair).create(UID, new_step()))
    success_of(scu(pair).set(UID, final()))
    again = NSetRQ(
        requested_sop_class_uid=MPPS,
        requested_sop_instance_uid=UID,
        data_set=encoded(final(), pair),
    )
    response = request(pair, again)
    assert (response.status, response.error_id) == (0x0110, 0xA710)


def test_a_step_without_a_uid_is_given_one(pair: Pair, ris: Steps) -> None:
    """PS3.7 10.1.5.1.4."""
    response = request(
        pair, NCreateRQ(affected_sop_class_uid=MPPS, data_set=encoded(new_step(), pair))
    )
    assert response.status == 0
    assert [getattr(response, "affected_sop_instance_uid", "")] == list(ris.steps)


def test_each_refusal_leaves_the_association_usable(pair: Pair) -> None:
    step = scu(pair)
    assert success_of(step.create("not a UID", new_step())) == 0x0117
    assert success_of(step.create(UID, Dataset())) == 0x0120
    assert success_of(step.set(UID, final())) == 0x0112
    broken = NSetRQ(
        requested_sop_class_uid=MPPS, requested_sop_instance_uid=UID, data_set=b"\x08\x00\x05\x00"
    )
    assert request(pair, broken).status == 0x0110
    empty = NSetRQ(requested_sop_class_uid=MPPS, requested_sop_instance_uid=UID)
    assert request(pair, empty).status == 0x0112
    assert success_of(step.create(UID, new_step())) == 0
    assert success_of(step.create(UID, new_step())) == 0x0111


@pytest.mark.parametrize(
    "damage",
    [
        lambda octets: octets[:-2],
        lambda octets: octets.replace(b"\x60\x00CS", b"\x60\x00ZZ"),
        lambda octets: octets + b"\x40\x00\x40\x03UN\0\0\x06\0\0\0octets",
    ],
    ids=["cut short", "no VR", "no sequence"],
)
def test_what_cannot_be_read_is_a_processing_failure(pair: Pair, ris: Steps, damage: Any) -> None:
    """0x0110 with a comment; it is no error of ours, which would be logged."""
    (ctx,) = pair.requestor.contexts_for(MPPS)
    assert ctx.supported_ts == EXPLICIT_VR_LITTLE_ENDIAN
    octets = damage(
        dsutils.encode(without(new_step(), "PerformedSeriesSequence"), ctx.supported_ts)
    )
    request = NCreateRQ(affected_sop_class_uid=MPPS, affected_sop_instance_uid=UID, data_set=octets)
    response = success_of(pair.requestor.request(request, ctx))
    assert response.status == 0x0110
    assert "the data set" in response.error_comment or "a value" in response.error_comment
    assert ris.steps == {}
    assert success_of(scu(pair).create(UID, new_step())) == 0


def test_a_step_is_retrieved(pair: Pair) -> None:
    """F.8: N-GET; what is not supported is told with 0x0001."""
    success_of(scu(pair).create(UID, new_step()))
    status, ds = run(scu(pair, RETRIEVE).get(UID))
    assert (int(status), ds) == (0, new_step())
    assert run(scu(pair, RETRIEVE).get(UID, [])) == (0, new_step())
    status, ds = run(scu(pair, RETRIEVE).get(UID, [0x00080060, 0x00091001]))
    assert (int(status), ds) == (0x0001, data_set(Modality="CT"))
    status, ds = run(scu(pair, RETRIEVE).get("1.2.9"))
    assert (int(status), ds) == (0x0112, None)


def test_each_operation_has_its_sop_class(pair: Pair) -> None:
    """F.7.2, F.8.2: N-SET is none of MPPS Retrieve, N-GET none of MPPS."""
    assert success_of(scu(pair, RETRIEVE).set(UID, final())) == 0x0211
    (ctx,) = pair.requestor.contexts_for(MPPS)
    response = success_of(normalized_scu(pair.requestor, ctx).n_get(UID))
    assert response.status == 0x0211


def test_a_hook_that_is_not_there_is_a_processing_failure() -> None:
    """Each is declared by the AE, and says its name to the peer."""
    bare, watcher = AE("RIS").add_scp(ModalityPerformedProcedureStep()), AE("CT1")
    watcher.add_scu(procedure_step_scu)
    watcher.add_scu(ModalityPerformedProcedureStep(), [NOTIFICATION])
    with connected(watcher, bare) as pair:
        (ctx,) = pair.acceptor.contexts_for(NOTIFICATION)
        answers = {
            "on_mpps_create": success_of(scu(pair).create(UID, new_step())),
            "on_mpps_set": success_of(scu(pair).set(UID, final())),
            "on_mpps_get": run(scu(pair, RETRIEVE).get(UID))[0],
            "on_mpps_event": success_of(report_procedure_step(pair.acceptor, ctx, UID, 1)),
        }
    for hook, status in answers.items():
        assert (status, status.comment) == (0x0110, f"{hook} is not implemented")


# -- notification ---------------------------------------------------------------------------------------


class Watcher(AE):
    """An SCU of MPPS Notification."""

    def __init__(self) -> None:
        super().__init__("WATCHER")
        self.events: list[tuple[str, int]] = []
        self.add_scu(ModalityPerformedProcedureStep(), [NOTIFICATION])

    def on_mpps_event(self, uid: str, event: int) -> None:
        self.events.append((uid, event))


def test_an_event_is_reported_on_the_association_of_the_watcher(ris: Steps) -> None:
    """F.9: the SCU opens it, and waits."""
    watcher = Watcher()
    with connected(watcher, ris) as pair:
        (ctx,) = pair.acceptor.contexts_for(NOTIFICATION)
        assert success_of(report_procedure_step(pair.acceptor, ctx, UID, 2)) == 0
        unknown = NEventReportRQ(
            affected_sop_class_uid=NOTIFICATION, affected_sop_instance_uid=UID, event_type_id=6
        )
        assert success_of(pair.acceptor.request(unknown, ctx)).status == 0x0113
    assert watcher.events == [(UID, 2)]


def test_an_event_is_reported_on_an_association_of_the_scp() -> None:
    """F.9: the SCP opens it, and takes its role by role selection (PS3.7 D.3.3.4)."""
    watcher = Watcher()
    scp = AE("RIS")
    pair = Pair(scp, watcher)
    assert run(notify_procedure_step(scp, pair.remote(), UID, 1)) == 0
    assert watcher.events == [(UID, 1)]
