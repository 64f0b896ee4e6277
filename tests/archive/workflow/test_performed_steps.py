"""Performed procedure steps of an archive: kept, forwarded, announced."""

from __future__ import annotations

import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from twisted.internet import defer

from netdicom_tx import AE, StatusError, dsutils
from netdicom_tx.archive.workflow import performed_steps as module
from netdicom_tx.archive.workflow.outbound import DEAD, WAITING
from netdicom_tx.archive.workflow.performed_steps import ProcedureSteps
from netdicom_tx.sopclass.instance_availability import InstanceAvailabilityNotification
from netdicom_tx.sopclass.procedure_step import (
    MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS as NOTIFICATION,
)
from netdicom_tx.sopclass.procedure_step import (
    MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS as RETRIEVE,
)
from netdicom_tx.sopclass.procedure_step import (
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS as MPPS,
)
from netdicom_tx.sopclass.procedure_step import (
    ModalityPerformedProcedureStep,
    ProcedureStepError,
    procedure_step_scu,
)
from netdicom_tx.testing import failure_of, success_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.data_sets import CT_IMAGE_STORAGE as CT
from support.archive.data_sets import EXPLICIT, padded
from support.archive.nodes import Node

T = TypeVar("T")
UID = "1.2.826.0.1.3680043.10.1"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return success_of(defer.Deferred.fromCoroutine(coroutine))


def refusal(coroutine: Coroutine[Any, Any, Any]) -> int:
    error = failure_of(defer.Deferred.fromCoroutine(coroutine))
    assert isinstance(error, StatusError)
    assert error.status is not None
    return int(error.status)


def data_set(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def new_step(study: str = "1.2.3", step: str = "S1", **attributes: Any) -> Dataset:
    scheduled = data_set(StudyInstanceUID=study, ScheduledProcedureStepID=step)
    return data_set(
        **{
            "ScheduledStepAttributesSequence": Sequence([scheduled]),
            "PerformedProcedureStepID": "P1",
            "PerformedStationAETitle": "CT1",
            "PerformedProcedureStepStartDate": "20261123",
            "PerformedProcedureStepStartTime": "101500",
            "PerformedProcedureStepStatus": "IN PROGRESS",
            "Modality": "CT",
            **attributes,
        }
    )


def final(state: str = "COMPLETED", *instances: str) -> Dataset:
    references = [
        data_set(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=uid) for uid in instances
    ]
    images, others = Sequence(references[:1]), Sequence(references[1:])
    performed = data_set(
        ProtocolName="Abdomen",
        SeriesInstanceUID="1.2.3.1",
        ReferencedImageSequence=images,
        ReferencedNonImageCompositeSOPInstanceSequence=others,
    )
    return data_set(
        PerformedProcedureStepStatus=state,
        PerformedProcedureStepEndDate="20261123",
        PerformedProcedureStepEndTime="103000",
        PerformedSeriesSequence=Sequence([performed]),
    )


class Ris(AE):
    """Takes what is forwarded, notified and announced."""

    def __init__(self) -> None:
        super().__init__("RIS")
        self.told: list[tuple[str, ...]] = []
        self.notices: dict[str, Dataset] = {}
        self.refusals: list[StatusError | None] = []
        self.add_scu(procedure_step_scu)
        self.add_scu(ModalityPerformedProcedureStep(), [NOTIFICATION])
        self.add_scp(ModalityPerformedProcedureStep(), [MPPS])
        self.add_scp(InstanceAvailabilityNotification())

    def answer(self) -> None:
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None:
            raise refusal

    def on_mpps_create(self, uid: str, ds: Dataset) -> None:
        self.told.append(("create", uid, str(ds.PerformedProcedureStepStatus)))
        self.answer()

    def on_mpps_set(self, uid: str, ds: Dataset) -> None:
        self.told.append(("set", uid, str(ds.get("PerformedProcedureStepStatus", ""))))
        self.answer()

    def on_mpps_event(self, uid: str, event: int) -> None:
        self.told.append(("event", uid, str(event)))

    def on_instances_available(self, uid: str, ds: Dataset) -> None:
        self.told.append(("available", uid, str(ds.StudyInstanceUID)))
        self.notices[uid] = ds
        self.answer()


class Archive(Node):
    """A node with procedure steps."""

    options: dict[str, Any]
    steps: ProcedureSteps

    def __init__(self, directory: Path, peer: AE, **options: Any) -> None:
        self.options = options
        super().__init__(directory, peer)

    def _open(self) -> None:
        super()._open()
        self.steps = ProcedureSteps(
            self.ae, self.index, self.runner, self.in_thread, self.peers, **self.options
        )
        self.ae.add_scp(ModalityPerformedProcedureStep())
        for hook, method in {
            "on_mpps_create": self.steps.create,
            "on_mpps_set": self.steps.change,
            "on_mpps_get": self.steps.get,
        }.items():
            setattr(self.ae, hook, method)
        self.runner.start(self.pair.clock)

    def settle(self) -> None:
        self.advance(0)


@pytest.fixture
def ris() -> Ris:
    return Ris()


@pytest.fixture
def archive(tmp_path: Path, ris: Ris) -> Iterator[Archive]:
    node = Archive(tmp_path, ris)
    yield node
    node.close()


@pytest.fixture
def forwarding(tmp_path: Path, ris: Ris) -> Iterator[Archive]:
    """A node that sends everything on to the RIS."""
    node = Archive(tmp_path, ris, forward_to=["RIS"])
    yield node
    node.close()


# -- kept ---------------------------------------------------------------------------------------------


def test_a_step_is_kept_over_a_restart(archive: Archive) -> None:
    """RELIABILITY D11: as D1 and D2; the life cycle of PS3.4 F.7."""
    step = archive.associate().get_scu(MPPS)()
    assert success_of(step.create(UID, new_step())) == 0
    archive.restart()
    step = archive.associate().get_scu(MPPS)()
    assert success_of(step.set(UID, data_set(PerformedProcedureStepDescription="x"))) == 0
    assert success_of(step.set(UID, final())) == 0
    archive.restart()
    asce = archive.associate()
    assert success_of(asce.get_scu(MPPS)().set(UID, final())) == 0x0110
    status, ds = run(asce.get_scu(RETRIEVE)().get(UID))
    assert status == 0
    assert ds.PerformedProcedureStepStatus == "COMPLETED"
    assert ds.PerformedProcedureStepDescription == "x"
    assert ds.PerformedStationAETitle == "CT1"


def test_what_cannot_be_done_changes_nothing(archive: Archive) -> None:
    steps = archive.steps
    assert refusal(steps.change(UID, final())) == 0x0112
    assert refusal(steps.get(UID)) == 0x0112
    run(steps.create(UID, new_step()))
    assert refusal(steps.create(UID, new_step(PerformedProcedureStepID="P2"))) == 0x0111
    assert refusal(steps.change(UID, data_set(Modality="MR"))) == 0x0105
    broken = new_step()
    with pytest.warns(UserWarning, match="between 0 and 65535"):
        broken.add_new(0x00280010, "US", 70_000)
    assert refusal(steps.create("1.2.3.5", broken)) == 0x0110
    assert run(steps.get(UID)) == new_step()
    run(steps.change(UID, final("DISCONTINUED")))
    error = failure_of(defer.Deferred.fromCoroutine(steps.change(UID, final())))
    assert isinstance(error, ProcedureStepError)
    assert (error.status, error.error_id) == (0x0110, 0xA710)
    assert run(steps.get(UID)).PerformedProcedureStepStatus == "DISCONTINUED"


@pytest.mark.slow
def test_of_two_final_n_sets_at_once_one_wins(archive: Archive) -> None:
    """Each is a transaction; the second finds the state of the first."""
    states = ["COMPLETED", "DISCONTINUED"]
    for number in range(20):
        uid = f"{UID}.{number}"
        run(archive.steps.create(uid, new_step()))
        together = threading.Barrier(2)

        def end(state: str, uid: str = uid, together: threading.Barrier = together) -> int:
            together.wait(30)
            kept = archive.steps._change(uid, final(state))
            return 0 if kept.refusal is None else int(kept.refusal.status or 0)

        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(end, states))
        assert sorted(told) == [0, 0x0110]
        assert run(archive.steps.get(uid)).PerformedProcedureStepStatus == states[told.index(0)]


def test_text_in_the_character_set_of_the_step_is_kept(archive: Archive) -> None:
    """PS3.4 F.7.2.2.2; N-SET need not say it again."""
    japanese = data_set(SpecificCharacterSet=["", "ISO 2022 IR 87"])
    head = dsutils.encode(japanese, EXPLICIT_VR_LITTLE_ENDIAN)
    japanese.PerformedProcedureStepDescription = "山田"
    octets = dsutils.encode(japanese, EXPLICIT_VR_LITTLE_ENDIAN).removeprefix(head)
    ds = new_step(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada=山田")
    run(archive.steps.create(UID, ds))
    run(archive.steps.change(UID, dsutils.decode(octets, EXPLICIT_VR_LITTLE_ENDIAN)))
    step = run(archive.steps.get(UID))
    assert str(step.PatientName) == "Yamada=山田"
    assert step.PerformedProcedureStepDescription == "山田"


def test_a_database_that_refuses_refuses_the_request(archive: Archive) -> None:
    archive.index.close()
    assert refusal(archive.steps.create(UID, new_step())) == 0x0213
    archive.index.open()
    run(archive.steps.create(UID, new_step()))


# -- the worklist -------------------------------------------------------------------------------------


def test_a_disk_that_is_full_to_its_reserve_refuses_the_request(archive: Archive) -> None:
    """The reserve is for those who make room."""
    has_room = False
    archive.steps.has_room = lambda: has_room
    assert refusal(archive.steps.create(UID, new_step())) == 0x0213
    has_room = True
    run(archive.steps.create(UID, new_step()))
    has_room = False
    assert refusal(archive.steps.change(UID, final())) == 0x0213


def test_the_state_of_scheduled_steps_follows(archive: Archive) -> None:
    """The last performed step of a scheduled one counts."""
    steps = archive.steps
    keys = {("1.2.3", "S1"), ("1.2.3", "S2"), ("1.2.4", "S1")}
    assert steps.states(keys) == {}
    run(steps.create("1.9.1", new_step()))
    run(steps.create("1.9.2", new_step("1.2.4")))
    assert steps.states(keys) == {("1.2.3", "S1"): "STARTED", ("1.2.4", "S1"): "STARTED"}
    run(steps.change("1.9.1", final("DISCONTINUED")))
    run(steps.change("1.9.2", final()))
    assert steps.states(keys) == {("1.2.3", "S1"): "DISCONTINUED", ("1.2.4", "S1"): "COMPLETED"}
    archive.advance(1)
    run(steps.create("1.9.3", new_step()))
    assert steps.states({("1.2.4", "S2")}) == {}
    assert steps.states({("1.2.3", "S1")}) == {("1.2.3", "S1"): "STARTED"}


def test_many_steps_are_looked_up_in_parts(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    for number in range(5):
        run(archive.steps.create(f"1.9.{number}", new_step(f"1.2.{number}")))
    keys = {(f"1.2.{number}", "S1") for number in range(7)}
    assert len(archive.steps.states(keys)) == 5


# -- forwarding ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_messages_are_forwarded_in_their_order(forwarding: Archive, ris: Ris) -> None:
    run(forwarding.steps.create(UID, new_step()))
    run(forwarding.steps.change(UID, data_set(PerformedProcedureStepDescription="x")))
    run(forwarding.steps.change(UID, final()))
    forwarding.settle()
    assert ris.told == [
        ("create", UID, "IN PROGRESS"),
        ("set", UID, ""),
        ("set", UID, "COMPLETED"),
    ]
    assert forwarding.queue.list() == []


def test_what_was_refused_here_is_not_forwarded(forwarding: Archive, ris: Ris) -> None:
    assert refusal(forwarding.steps.change(UID, final())) == 0x0112
    assert forwarding.queue.list() == []


@pytest.mark.slow
def test_a_ris_that_is_away_has_all_when_it_is_back(forwarding: Archive, ris: Ris) -> None:
    """Over a restart, and in order."""
    forwarding.line.is_up = False
    run(forwarding.steps.create(UID, new_step()))
    run(forwarding.steps.change(UID, final()))
    forwarding.restart()
    for _ in range(30):
        forwarding.advance(2)
    assert ris.told == [("create", UID, "IN PROGRESS"), ("set", UID, "COMPLETED")]


def test_what_the_ris_has_from_a_lost_attempt_is_not_sent_for_ever(
    forwarding: Archive, ris: Ris
) -> None:
    """The answer was lost, not the message: 0x0111, and 0x0110 with A710, say so."""
    ris.refusals = [
        StatusError(0x0111),
        ProcedureStepError(0x0110, "may no longer be updated", error_id=0xA710),
    ]
    run(forwarding.steps.create(UID, new_step()))
    run(forwarding.steps.change(UID, final()))
    forwarding.settle()
    assert forwarding.queue.list() == []


@pytest.mark.parametrize(("status", "state"), [(0x0120, DEAD), (0x0110, WAITING)])
def test_a_message_that_is_refused(forwarding: Archive, ris: Ris, status: int, state: str) -> None:
    ris.refusals = [StatusError(status)]
    run(forwarding.steps.create(UID, new_step()))
    forwarding.settle()
    (task,) = forwarding.queue.list()
    assert (task.state, task.destination, task.kind) == (state, "RIS", "mpps")


def test_a_peer_without_the_sop_class_is_tried_again(tmp_path: Path) -> None:
    """It may have it after its next update; the operator sees it in the queue."""
    node = Archive(tmp_path, AE("RIS").add_scu(procedure_step_scu), forward_to=["RIS"])
    run(node.steps.create(UID, new_step()))
    node.settle()
    (task,) = node.queue.list(WAITING)
    assert "context" in task.last_error or "class" in task.last_error.lower()
    node.close()


# -- notification -------------------------------------------------------------------------------------


def test_who_watches_has_the_events(archive: Archive, ris: Ris) -> None:
    """PS3.4 F.9: in progress, updated, completed; on the association of the watcher."""
    archive.associate()
    run(archive.steps.create(UID, new_step()))
    run(archive.steps.change(UID, data_set(PerformedProcedureStepDescription="x")))
    run(archive.steps.change(UID, final()))
    archive.settle()
    assert ris.told == [("event", UID, "1"), ("event", UID, "4"), ("event", UID, "2")]


def test_a_watcher_that_goes_away_disturbs_nobody(archive: Archive, ris: Ris) -> None:
    asce = archive.associate()
    ris.on_mpps_event = lambda *_: asce.abort()  # type: ignore[method-assign,assignment]
    run(archive.steps.create(UID, new_step()))
    archive.settle()
    run(archive.steps.change(UID, final("DISCONTINUED")))
    assert run(archive.steps.get(UID)).PerformedProcedureStepStatus == "DISCONTINUED"


def test_configured_peers_have_the_events(tmp_path: Path, ris: Ris) -> None:
    node = Archive(tmp_path, ris, notify=["RIS"])
    run(node.steps.create(UID, new_step()))
    run(node.steps.change(UID, final("DISCONTINUED")))
    node.settle()
    assert ris.told == [("event", UID, "1"), ("event", UID, "3")]
    node.close()


def test_an_event_comes_once_though_the_one_before_is_under_way(tmp_path: Path, ris: Ris) -> None:
    """The node reports on an association of its own, not on one that a watcher holds."""
    node = Archive(tmp_path, ris, notify=["RIS"])
    waiting: list[defer.Deferred[None]] = []

    def later(uid: str, event: int) -> defer.Deferred[None]:
        ris.told.append(("event", uid, str(event)))
        waiting.append(defer.Deferred())
        return waiting[-1]

    ris.on_mpps_event = later  # type: ignore[method-assign,assignment]
    run(node.steps.create(UID, new_step()))
    node.settle()
    run(node.steps.change(UID, final()))
    node.settle()
    assert ris.told == [("event", UID, "1")]
    waiting.pop().callback(None)
    node.settle()
    assert ris.told == [("event", UID, "1"), ("event", UID, "2")]
    waiting.pop().callback(None)
    node.settle()
    assert node.queue.list() == []
    node.close()


# -- availability -------------------------------------------------------------------------------------


def image(uid: str, study: str = "1.2.3", series: str = "1.2.3.1") -> bytes:
    return (
        EXPLICIT.identity(uid)
        + EXPLICIT.element(0x00100020, "LO", b"P1")
        + EXPLICIT.element(0x0020000D, "UI", padded(study))
        + EXPLICIT.element(0x0020000E, "UI", padded(series))
    )


@pytest.fixture
def announcing(tmp_path: Path, ris: Ris) -> Iterator[Archive]:
    node = Archive(tmp_path, ris, available_to=["RIS"])
    yield node
    node.close()


def test_a_step_is_announced_when_its_instances_are_here(announcing: Archive, ris: Ris) -> None:
    """PS3.4 Annex R; after a restart too."""
    announcing.keep("1.2.3.1.1", image("1.2.3.1.1"))
    run(announcing.steps.create(UID, new_step()))
    run(announcing.steps.change(UID, final("COMPLETED", "1.2.3.1.1", "1.2.3.2.1")))
    announcing.settle()
    assert ris.told == []
    (task,) = announcing.queue.list(WAITING)
    assert (task.last_error, task.attempt) == ("1 of 2 instances have not arrived", 0)
    announcing.restart()
    announcing.keep("1.2.3.2.1", image("1.2.3.2.1", series="1.2.3.2"))
    for _ in range(3):
        announcing.advance(10)
    ((uid, ds),) = ris.notices.items()
    assert ris.told == [("available", uid, "1.2.3")]
    (step,) = ds.ReferencedPerformedProcedureStepSequence
    assert step.ReferencedSOPInstanceUID == UID
    told = {
        each.SeriesInstanceUID: [
            (item.ReferencedSOPInstanceUID, item.InstanceAvailability, item.RetrieveAETitle)
            for item in each.ReferencedSOPSequence
        ]
        for each in ds.ReferencedSeriesSequence
    }
    assert told == {
        "1.2.3.1": [("1.2.3.1.1", "ONLINE", "NODE")],
        "1.2.3.2": [("1.2.3.2.1", "ONLINE", "NODE")],
    }
    assert announcing.queue.list() == []


def test_each_study_has_its_notice_and_none_comes_twice(announcing: Archive, ris: Ris) -> None:
    """A peer that got it in an attempt whose answer was lost answers 0x0111."""
    announcing.keep("1.2.3.1.1", image("1.2.3.1.1"))
    announcing.keep("1.2.4.1.1", image("1.2.4.1.1", "1.2.4", "1.2.4.1"))
    ris.refusals = [None, StatusError(0x0110), StatusError(0x0111)]
    run(announcing.steps.create(UID, new_step()))
    run(announcing.steps.change(UID, final("DISCONTINUED", "1.2.3.1.1", "1.2.4.1.1")))
    announcing.settle()
    for _ in range(4):
        announcing.advance(5)
    assert [study for _, _, study in ris.told] == ["1.2.3", "1.2.4", "1.2.3", "1.2.4"]
    assert len(ris.notices) == 2
    assert announcing.queue.list() == []


def test_a_step_without_instances_is_not_announced(announcing: Archive, ris: Ris) -> None:
    run(announcing.steps.create(UID, new_step()))
    run(announcing.steps.change(UID, final("DISCONTINUED")))
    assert announcing.queue.list() == []


def test_instances_that_never_come_are_given_up(announcing: Archive, ris: Ris) -> None:
    run(announcing.steps.create(UID, new_step()))
    run(announcing.steps.change(UID, final("COMPLETED", "1.2.3.1.1")))
    announcing._past += module.WAIT_FOR_INSTANCES
    announcing.advance(20)
    (task,) = announcing.queue.list(DEAD)
    assert task.last_error == "1 of 1 instances have not arrived"


def test_a_step_that_is_gone_is_not_announced(announcing: Archive) -> None:
    announcing.index.write(
        lambda connection: announcing.queue.put(connection, "availability", "RIS", {"uid": "1.7"})
    ).result(30)
    announcing.runner.wake()
    (task,) = announcing.queue.list(DEAD)
    assert task.last_error == "there is no procedure step 1.7"
