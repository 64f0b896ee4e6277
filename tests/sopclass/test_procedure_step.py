"""Performed procedure steps: both roles in memory."""

import csv
import json
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydicom.dataset import Dataset
from twisted.internet import defer

from netdicom_tx import AE, StatusError, dsutils
from netdicom_tx.dimsemessages import NCreateRQ, NEventReportRQ, NSetRQ, Response
from netdicom_tx.sopclass import normalized_scu
from netdicom_tx.sopclass.procedure_step import (
    EVENTS,
    MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS,
    MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS,
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
    ModalityPerformedProcedureStep,
    notify_procedure_step,
    procedure_step_scu,
    report_procedure_step,
)
from netdicom_tx.sopclass.step_rules import updated
from netdicom_tx.statuses import DUPLICATE_SOP_INSTANCE, NO_SUCH_SOP_INSTANCE
from netdicom_tx.testing import Pair, connected, success_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, is_valid_uid
from support.doubles import Node, command, p_data, us
from support.doubles import logged_failures as logged_failures
from support.steps import UID, data_set, final, new_step, without

STANDARD = Path(__file__).parent.parent / "standard"
MPPS = MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS
RETRIEVE = MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS
NOTIFICATION = MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return success_of(defer.Deferred.fromCoroutine(coroutine))


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
    """0x0110 with a comment; it is not an error of this side, which would be logged."""
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
    """F.7.2, F.8.2: N-SET does not belong to MPPS Retrieve, and N-GET does not belong to MPPS."""
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


@pytest.mark.parametrize(
    "value", [None, b"", b"\0\0", b"  "], ids=["absent", "empty", "NULs", "blank"]
)
def test_an_empty_sop_instance_uid_is_assigned_as_an_absent_one(
    ris: Steps, value: bytes | None
) -> None:
    """PS3.7 10.1.5.1.4: the performer assigns one, and says so in the response."""
    peer = Node(ris).associate({MPPS: [IMPLICIT_VR_LITTLE_ENDIAN]})
    elements = [
        (0x0002, MPPS.encode() + b"\0"),
        (0x0100, us(0x0140)),
        (0x0110, us(1)),
        (0x0800, us(1)),
    ]
    if value is not None:
        elements.append((0x1000, value))
    octets = dsutils.encode(new_step(), IMPLICIT_VR_LITTLE_ENDIAN)
    peer.send(p_data(1, 3, command(*elements)), p_data(1, 2, octets))
    (answer,) = peer.messages()
    assert answer.status == 0x0000
    assert list(ris.steps) == [answer.affected_sop_instance_uid]
    assert is_valid_uid(answer.affected_sop_instance_uid)
