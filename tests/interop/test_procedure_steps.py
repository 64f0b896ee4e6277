"""Performed procedure steps: pynetdicom as modality and as RIS of the node, our SCU as modality of pynetdicom."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from twisted.internet.defer import DeferredQueue
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE
from netdicom_tx.sopclass import (
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    procedure_step_scu,
)
from support.interop.ours import store
from support.interop.pynetdicom_workflow import (
    MPPS,
    NOTIFICATION,
    RETRIEVE,
    Told,
    associated,
    data_set,
    listening,
)
from support.interop.samples import Sample, copies
from support.interop.workflow import worklist, write_wl
from support.node import Node
from support.processes import WITH_PYNETDICOM, eventually

from .test_worklist import ITEMS, asking, ids, scheduled

pytestmark = WITH_PYNETDICOM

STEP = "1.2.826.0.1.3680043.10.1.1000"
NO_LONGER = "Performed Procedure Step Object may no longer be updated"


def new_step(label: str = "1", **attributes: Any) -> Dataset:
    """For the item of the worklist tests."""
    of_step = data_set(
        StudyInstanceUID=f"1.2.826.0.1.3680043.10.1.{label}",
        ReferencedStudySequence=[],
        AccessionNumber="A100",
        RequestedProcedureID=f"RP{label}",
        RequestedProcedureDescription=f"Procedure {label}",
        ScheduledProcedureStepID=f"S{label}",
        ScheduledProcedureStepDescription=f"Step {label}",
        ScheduledProtocolCodeSequence=[],
    )
    return data_set(
        **{
            "ScheduledStepAttributesSequence": [of_step],
            "PatientName": "Doe^Jane",
            "PatientID": "P1",
            "PatientBirthDate": "19700101",
            "PatientSex": "F",
            "ReferencedPatientSequence": [],
            "PerformedProcedureStepID": f"PPS{label}",
            "PerformedStationAETitle": "CT1",
            "PerformedStationName": "",
            "PerformedLocation": "",
            "PerformedProcedureStepStartDate": "20261123",
            "PerformedProcedureStepStartTime": "080100",
            "PerformedProcedureStepEndDate": "",
            "PerformedProcedureStepEndTime": "",
            "PerformedProcedureStepStatus": "IN PROGRESS",
            "PerformedProcedureStepDescription": "",
            "PerformedProcedureTypeDescription": "",
            "ProcedureCodeSequence": [],
            "Modality": "CT",
            "StudyID": "",
            "PerformedProtocolCodeSequence": [],
            "PerformedSeriesSequence": [],
            **attributes,
        }
    )


def final(state: str = "COMPLETED", *instances: tuple[str, str]) -> Dataset:
    series = data_set(
        PerformingPhysicianName="",
        ProtocolName="Abdomen",
        OperatorsName="",
        SeriesInstanceUID="1.2.826.0.1.3680043.10.1.2000",
        SeriesDescription="",
        RetrieveAETitle="",
        ReferencedImageSequence=[
            data_set(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)
            for sop_class, uid in instances
        ],
        ReferencedNonImageCompositeSOPInstanceSequence=[],
    )
    return data_set(
        PerformedProcedureStepStatus=state,
        PerformedProcedureStepEndDate="20261123",
        PerformedProcedureStepEndTime="083000",
        PerformedSeriesSequence=[series],
    )


def create(association: Association, ds: Dataset, uid: str = STEP) -> Any:
    """The response's command set."""
    return association.send_n_create(ds, UID(MPPS), UID(uid))[0]


def change(association: Association, ds: Dataset, uid: str = STEP) -> Any:
    return association.send_n_set(ds, UID(MPPS), UID(uid))[0]


def said(response: Any) -> tuple[int, str]:
    return int(response.Status), str(response.get("ErrorComment", ""))


def get(association: Association, tags: list[int], uid: str = STEP) -> tuple[int, Dataset | None]:
    status, found = association.send_n_get(tags, UID(RETRIEVE), UID(uid))
    return int(status.Status), found


def test_a_step_from_its_beginning_to_its_end(node: Node) -> None:
    """PS3.4 F.7: created, changed, completed; F.8: and looked at."""
    with associated(node.address, "CT1", [MPPS, RETRIEVE]) as association:
        assert create(association, new_step()).Status == 0
        change_of = data_set(PerformedProcedureStepDescription="with contrast")
        assert change(association, change_of).Status == 0
        assert change(association, final()).Status == 0
        status, found = get(association, [0x00400252, 0x00400254, 0x00100010, 0x00400340])
        assert status == 0
        assert found is not None
        assert found.PerformedProcedureStepStatus == "COMPLETED"
        assert found.PerformedProcedureStepDescription == "with contrast"
        assert found.PatientName == "Doe^Jane"
        assert len(found.PerformedSeriesSequence) == 1


def test_each_refusal_has_its_status_and_the_association_lives_on(node: Node) -> None:
    """PS3.4 F.7.2, PS3.7 Annex C."""
    with associated(node.address, "CT1", [MPPS, RETRIEVE]) as association:
        refused = create(association, new_step(PerformedProcedureStepStatus="COMPLETED"))
        assert refused.Status == 0x0106
        incomplete = new_step()
        del incomplete.Modality
        refused = create(association, incomplete)
        assert (refused.Status, refused.ErrorComment) == (0x0120, "missing: Modality")
        refused = create(association, new_step(PerformedStationAETitle=""))
        assert (refused.Status, refused.ErrorComment) == (
            0x0121,
            "without a value: PerformedStationAETitle",
        )
        assert change(association, final()).Status == 0x0112
        assert get(association, [])[0] == 0x0112
        assert create(association, new_step()).Status == 0
        assert create(association, new_step()).Status == 0x0111
        refused = change(association, data_set(PatientName="Roe^Richard"))
        assert (refused.Status, refused.ErrorComment) == (0x0105, "may not be set: PatientName")
        assert change(association, data_set(PerformedProcedureStepStatus="PAUSED")).Status == 0x0106
        without_series = final()
        without_series.PerformedSeriesSequence = []
        assert change(association, without_series).Status == 0x0121
        assert change(association, final("DISCONTINUED")).Status == 0
        for late in (final(), data_set(PerformedProcedureStepStatus="IN PROGRESS")):
            refused = change(association, late)
            assert (refused.Status, refused.ErrorID) == (0x0110, 0xA710)
            assert refused.ErrorComment == NO_LONGER
        status, found = get(association, [0x00400252, 0x00091001])
        assert status == 0x0001
        assert found is not None
        assert found.PerformedProcedureStepStatus == "DISCONTINUED"


def test_what_each_state_demands_is_named_when_it_is_missing(node: Node) -> None:
    """PS3.4 Table F.7.2-1: the attributes of type 1 of N-CREATE, and of a final state."""
    series = "PerformedSeriesSequence"
    with associated(node.address, "CT1", [MPPS, RETRIEVE]) as association:
        for keyword in (
            "ScheduledStepAttributesSequence",
            "PerformedProcedureStepID",
            "PerformedStationAETitle",
            "PerformedProcedureStepStartDate",
            "PerformedProcedureStepStartTime",
            "PerformedProcedureStepStatus",
            "Modality",
        ):
            step = new_step()
            step[keyword].value = [] if step[keyword].VR == "SQ" else ""
            assert said(create(association, step)) == (0x0121, f"without a value: {keyword}")
            del step[keyword]
            assert said(create(association, step)) == (0x0120, f"missing: {keyword}")
        step = new_step()
        del step.ScheduledStepAttributesSequence[0].StudyInstanceUID
        assert said(create(association, step)) == (0x0120, "missing: StudyInstanceUID")
        assert create(association, new_step()).Status == 0
        for state in ("COMPLETED", "DISCONTINUED"):
            for keyword in (
                "PerformedProcedureStepEndDate",
                "PerformedProcedureStepEndTime",
                series,
            ):
                end = final(state)
                del end[keyword]
                wanted = 0x0121, f"without a value: {keyword}"
                assert said(change(association, end)) == wanted
            for keyword in ("ProtocolName", "SeriesInstanceUID"):
                end = final(state)
                del end[series].value[0][keyword]
                wanted = 0x0121, f"without a value: {keyword}"
                assert said(change(association, end)) == wanted
        # None of it has left a trace.
        assert get(association, []) == (0, new_step())
        assert change(association, final()).Status == 0


def test_what_is_no_operation_of_a_step_is_refused_and_the_association_lives_on(
    node: Node,
) -> None:
    """PS3.7 Annex C: 0x0211; and a request without a data set lacks all that it needs."""
    with associated(node.address, "CT1", [MPPS, RETRIEVE]) as association:
        answers = [
            association.send_n_delete(UID(MPPS), UID(STEP)),
            association.send_n_action(None, 1, UID(MPPS), UID(STEP))[0],
            association.send_n_get([], UID(MPPS), UID(STEP))[0],
            association.send_n_set(final(), UID(RETRIEVE), UID(STEP))[0],
            association.send_n_create(None, UID(MPPS), UID(STEP))[0],
        ]
        assert [int(each.Status) for each in answers] == [0x0211] * 4 + [0x0120]
        assert create(association, new_step()).Status == 0


def test_a_step_survives_a_kill(node: Node) -> None:
    """RELIABILITY D11: what was answered with Success is there after kill -9, in its state."""
    with associated(node.address, "CT1", [MPPS]) as association:
        assert create(association, new_step()).Status == 0
        node.kill()
    node.start()
    with associated(node.address, "CT1", [MPPS, RETRIEVE]) as association:
        assert get(association, []) == (0, new_step())
        assert create(association, new_step()).Status == 0x0111
        assert change(association, final()).Status == 0
        node.kill()
    node.start()
    with associated(node.address, "CT1", [MPPS, RETRIEVE]) as association:
        assert get(association, [0x00400252]) == (
            0,
            data_set(PerformedProcedureStepStatus="COMPLETED"),
        )
        assert change(association, final()).ErrorID == 0xA710


def test_of_two_final_n_sets_at_once_one_wins(node: Node) -> None:
    """The other is told that the step may no longer be updated."""
    with (
        associated(node.address, "CT1", [MPPS]) as one,
        associated(node.address, "CT2", [MPPS]) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        for number in range(5):
            uid = f"{STEP}.{number}"
            assert create(one, new_step(), uid).Status == 0
            both = [(one, final("COMPLETED")), (other, final("DISCONTINUED"))]
            ending = [pool.submit(change, *each, uid) for each in both]
            told = sorted(int(each.result(30).Status) for each in ending)
            assert told == [0x0000, 0x0110]


def test_who_watches_is_told(node: Node) -> None:
    """PS3.4 F.9, on the association that the watcher holds."""
    told = Told()
    with (
        associated(node.address, "WATCHER", [NOTIFICATION], told),
        associated(node.address, "CT1", [MPPS]) as association,
    ):
        create(association, new_step())
        change(association, data_set(PerformedProcedureStepDescription="x"))
        change(association, final("DISCONTINUED"))
        assert [told.next() for _ in range(3)] == [("event", STEP, n) for n in (1, 4, 3)]


def test_the_worklist_follows(start_node: Callable[..., Node], tmp_path: Any) -> None:
    """What is being done is STARTED; what has ended is asked for no more."""
    directory = tmp_path / "worklist"
    directory.mkdir()
    for label in ("1", "2"):
        write_wl(scheduled(label, ITEMS[label]), directory / f"{label}.wl")
    node = start_node("--worklist", str(directory))
    queries = iter(range(100))

    def found(**keys: Any) -> list[str]:
        identifier = asking()
        for keyword, value in keys.items():
            setattr(identifier.ScheduledProcedureStepSequence[0], keyword, value)
        return ids(worklist(node.address, identifier, tmp_path / f"query{next(queries)}"))

    with associated(node.address, "CT1", [MPPS]) as association:
        assert found() == ["1", "2"]
        create(association, new_step("1"))
        assert found() == ["1", "2"]
        assert found(ScheduledProcedureStepStatus="STARTED") == ["1"]
        change(association, final())
        assert found() == ["2"]
        assert found(ScheduledProcedureStepStatus="COMPLETED") == ["1"]


def test_steps_are_forwarded_in_order_and_over_a_kill(
    start_node: Callable[..., Node],
) -> None:
    """The RIS is away when the step begins, the node is killed, and the RIS has all of it in the end."""
    told = Told()
    with listening("RIS", Told()) as first:
        port = first.port
    node = start_node(f"--peer=RIS@127.0.0.1:{port}", "--forward-mpps=RIS", "--notify-mpps=RIS")
    with associated(node.address, "CT1", [MPPS]) as association:
        create(association, new_step())
        change(association, data_set(PerformedProcedureStepDescription="x"))
        node.kill()
    with listening("RIS", told, port):
        node.start()
        with associated(node.address, "CT1", [MPPS]) as association:
            change(association, final())
        everything = [told.next(60) for _ in range(6)]
    messages = [each for each in everything if each[0] != "event"]
    events = [each for each in everything if each[0] == "event"]
    assert [(what, uid) for what, uid, _ in messages] == [
        ("create", STEP),
        ("set", STEP),
        ("set", STEP),
    ]
    assert [event for _, _, event in events] == [1, 4, 2]
    assert messages[0][2].PatientName == "Doe^Jane"
    assert messages[2][2].PerformedProcedureStepStatus == "COMPLETED"


class AvailabilityTests(TestCase):
    """The node and a RIS that wants to know what can be read."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, start_node: Callable[..., Node], samples: tuple[Sample, ...]) -> None:
        self.start = start_node
        names = ("CT_small.dcm", "MR_small.dcm")
        self.samples = [sample for sample in samples if sample.name in names]

    async def test_the_instances_of_a_step_are_announced_when_all_are_here(self) -> None:
        """PS3.4 Annex R."""
        told = Told()
        with listening("RIS", told) as ris:
            node = self.start(f"--peer=RIS@127.0.0.1:{ris.port}", "--notify-availability=RIS")
            await store(node.address, self.samples[:1])
            references = [(sample.sop_class, sample.instance) for sample in self.samples]

            def perform() -> None:
                with associated(node.address, "CT1", [MPPS]) as association:
                    create(association, new_step())
                    change(association, final("COMPLETED", *references))

            await deferToThread(perform)
            assert told.is_empty
            await store(node.address, self.samples[1:])
            # Two studies, two notices.
            notices = [(await deferToThread(told.next, 60))[2] for _ in range(2)]
        found = {
            str(instance.ReferencedSOPInstanceUID): (
                instance.InstanceAvailability,
                instance.RetrieveAETitle,
            )
            for notice in notices
            for series in notice.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        }
        assert found == {sample.instance: ("ONLINE", "NETDICOM") for sample in self.samples}
        for notice in notices:
            (step,) = notice.ReferencedPerformedProcedureStepSequence
            assert step.ReferencedSOPInstanceUID == STEP


class Reading(AE):
    """Our SCP of instance availability."""

    def __init__(self) -> None:
        super().__init__("READING")
        self.add_scp(InstanceAvailabilityNotification())
        self.notices: DeferredQueue[Dataset] = DeferredQueue()

    def on_instances_available(self, uid: str, ds: Dataset) -> None:
        self.notices.put(ds)


class OurTests(TestCase):
    """Our SCU, with pynetdicom and with the node; our SCP of what the node announces."""

    @pytest.fixture(autouse=True)
    def _fixtures(
        self, start_node: Callable[..., Node], samples: tuple[Sample, ...], tmp_path: Path
    ) -> None:
        self.start, self.samples, self.directory = start_node, samples, tmp_path

    async def test_our_scu_is_served_by_the_node(self) -> None:
        """From beginning to end, with what the node says to a step that has ended; and its events."""
        node = self.start()
        ae = AE("OURSCU").add_scu(procedure_step_scu)
        ae.add_scu(ModalityPerformedProcedureStep(), [NOTIFICATION])
        events: DeferredQueue[tuple[str, int]] = DeferredQueue()
        ae.on_mpps_event = lambda *event: events.put(event)  # type: ignore[method-assign]
        remote = RemoteAE(node.address.ae_title, node.address.endpoint)
        async with await ae.request_association(remote) as asce:
            step, look = asce.get_scu(MPPS)(), asce.get_scu(RETRIEVE)()
            assert await step.create(STEP, new_step()) == 0
            assert await step.create(STEP, new_step()) == 0x0111
            assert await step.set(STEP, final("DISCONTINUED")) == 0
            refused = await step.set(STEP, final())
            assert (refused, refused.comment) == (0x0110, NO_LONGER)
            assert await step.set(f"{STEP}.1", final()) == 0x0112
            status, found = await look.get(STEP, [0x00400252])
            assert (status, found.PerformedProcedureStepStatus) == (0, "DISCONTINUED")
            assert [await events.get(), await events.get()] == [(STEP, 1), (STEP, 3)]

    async def test_our_scp_is_told_when_all_instances_of_a_step_are_here(self) -> None:
        """One study: a notice that came too early would name but one of the two."""
        ae = Reading()
        port: Any = await ae.listen("tcp:0:interface=127.0.0.1")
        self.addCleanup(ae.drain, 1)
        self.addCleanup(port.stopListening)
        node = self.start(
            f"--peer=READING@127.0.0.1:{port.getHost().port}", "--notify-availability=READING"
        )
        (sample,) = [each for each in self.samples if each.name == "CT_small.dcm"]
        both = copies(sample, 2, self.directory / "copies")

        def perform() -> None:
            references = [(each.sop_class, each.instance) for each in both]
            with associated(node.address, "CT1", [MPPS]) as association:
                create(association, new_step())
                change(association, final("COMPLETED", *references))

        def has_looked() -> bool:
            with closing(sqlite3.connect(node.storage / "index.db")) as index:
                tasks = index.execute("SELECT last_error FROM task").fetchall()
            return tasks == [("1 of 2 instances have not arrived",)]

        await store(node.address, both[:1])
        await deferToThread(perform)
        await deferToThread(eventually, has_looked, "look at the instances of the step")
        await store(node.address, both[1:])
        notice = await ae.notices.get().addTimeout(60, ae.reactor)
        (series,) = notice.ReferencedSeriesSequence
        assert {each.ReferencedSOPInstanceUID for each in series.ReferencedSOPSequence} == {
            each.instance for each in both
        }

    async def test_our_scu_is_served_by_pynetdicom(self) -> None:
        told = Told()
        told.answers = [0x0000, 0x0000, 0x0110]
        with listening("RIS", told) as ris:
            ae = AE("OURSCU").add_scu(procedure_step_scu)
            asce = await ae.request_association(
                RemoteAE("RIS", ris.endpoint),
                {MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS: ["1.2.840.10008.1.2"]},
            )
            async with asce:
                step = asce.get_scu(MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS)()
                assert await step.create(STEP, new_step()) == 0
                assert await step.set(STEP, final()) == 0
                assert await step.set(STEP, final()) == 0x0110
        assert told.next()[2].PerformedProcedureStepID == "PPS1"
        assert told.next()[2].PerformedProcedureStepStatus == "COMPLETED"
