"""Commitment, performed steps and worklist of two nodes that share one PostgreSQL database and one place of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.task import Clock

from netdicom_tx import AE, StatusError
from netdicom_tx.archive.group.duties import AllDuties, Duty
from netdicom_tx.archive.workflow import commitment as commitments
from netdicom_tx.archive.workflow.commitment import ArchiveCommitment
from netdicom_tx.archive.workflow.outbound import DEAD, LEASE, RUNNING
from netdicom_tx.archive.workflow.performed_steps import ProcedureSteps, procedure_step
from netdicom_tx.archive.workflow.workflow import Workflow, WorkflowOptions
from netdicom_tx.archive.workflow.worklist_sources import WorklistTable
from netdicom_tx.sopclass import StorageCommitment, procedure_step_scu, storage_commitment_scu
from netdicom_tx.sopclass.procedure_step import ModalityPerformedProcedureStep
from netdicom_tx.testing import success_of
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT
from support.archive.archives import Archive
from support.archive.data_sets import CT_IMAGE_STORAGE as CT
from support.archive.data_sets import ct
from support.archive.databases import PostgreSQL
from support.archive.nodes import Node
from support.archive.worklists import encoded, scheduled
from support.steps import UID, data_set, final, new_step

HERE = [(CT, f"1.2.{number}") for number in range(3)]
MPPS = "1.2.840.10008.3.1.2.3.3"


class Peer(AE):
    """A modality and a RIS in one."""

    def __init__(self) -> None:
        super().__init__("PEER")
        self.add_scu(storage_commitment_scu).add_scp(StorageCommitment())
        self.add_scu(procedure_step_scu)
        self.add_scp(ModalityPerformedProcedureStep(), [MPPS])
        self.reports: list[tuple[str, list[Any], list[Any]]] = []
        self.told: list[tuple[str, str]] = []
        self.refuses = False

    def on_commitment_response(self, transaction_uid: str, success: Any, failure: Any) -> None:
        self.reports.append((transaction_uid, list(success), list(failure)))

    def on_mpps_create(self, uid: str, ds: Any) -> None:
        self.tell("create", uid)

    def on_mpps_set(self, uid: str, ds: Any) -> None:
        self.tell("set", uid)

    def tell(self, what: str, uid: str) -> None:
        if self.refuses:
            raise StatusError(0x0117)
        self.told.append((what, uid))


class Member(Node):
    """A node with commitment and performed steps, which it forwards to the peer."""

    commitment: ArchiveCommitment
    steps: ProcedureSteps
    reads_long = False

    def _open(self) -> None:
        super()._open()
        common = self.ae, self.index, self.runner, self.in_thread, self.peers
        self.commitment = ArchiveCommitment(*common, self.read)
        self.steps = ProcedureSteps(*common, forward_to=["PEER"])
        self.ae.add_scp(self.commitment)
        self.ae.add_scp(ModalityPerformedProcedureStep())
        for hook, method in {
            "on_mpps_create": self.steps.create,
            "on_mpps_set": self.steps.change,
        }.items():
            setattr(self.ae, hook, method)
        self.runner.start(self.pair.clock)

    def read(self, call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        """Read files, which may take long."""
        return defer.Deferred() if self.reads_long else self.in_thread(call, *arguments)

    def ask(self, transaction: str = "1.9", uids: Sequence[tuple[str, str]] = HERE) -> Any:
        """Ask for commitment, and hold the association."""
        asce = self.associate()
        assert success_of(asce.get_scu(COMMITMENT)(transaction, list(uids))) == 0x0000
        return asce


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def nodes(tmp_path: Path, peer: Peer) -> Iterator[tuple[Member, Member]]:
    url = PostgreSQL.running().url(str(tmp_path))
    first = Member(tmp_path / "a", peer, url=url, root=tmp_path)
    second = Member(tmp_path / "b", peer, url=url, root=tmp_path)
    yield first, second
    for each in first, second:
        each.close()


# -- storage commitment -------------------------------------------------------------------------------


def test_another_node_reports_what_a_dead_node_has_promised(
    nodes: tuple[Member, Member], peer: Peer
) -> None:
    """PS3.4 J.3.3: the report comes on an association of its own."""
    a, b = nodes
    for _, uid in HERE:
        b.keep(uid, ct(uid))  # what another node has acknowledged counts
    a.reads_long = True
    a.ask()
    a.die()
    assert [task.state for task in b.queue.list()] == [RUNNING]
    b.advance(LEASE - 5)
    assert peer.reports == []
    b.advance(10)
    assert peer.reports == [("1.9", HERE, [])]
    assert b.queue.list() == []
    b.advance(2 * LEASE)
    assert len(peer.reports) == 1


def test_the_node_that_holds_the_association_reports_on_it_and_no_other_reports(
    nodes: tuple[Member, Member], peer: Peer
) -> None:
    a, b = nodes
    for _, uid in HERE:
        b.keep(uid, ct(uid))
    a.ask()
    for _ in range(10):
        a.advance(LEASE / 6)
    assert peer.reports == [("1.9", HERE, [])]
    assert (a.line.calls, b.line.calls) == (0, 0)


def test_a_transaction_uid_is_one_for_all_nodes(nodes: tuple[Member, Member], peer: Peer) -> None:
    a, b = nodes
    for _, uid in HERE:
        a.keep(uid, ct(uid))
    a.ask()
    a.advance(2)
    b.ask()
    b.advance(2)
    assert peer.reports[0] == ("1.9", HERE, [])
    assert peer.reports[1] == ("1.9", [], [(*each, 0x0131) for each in HERE])


def test_what_an_ae_title_is_owed_counts_over_all_nodes(
    nodes: tuple[Member, Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, "OWED_LIMIT", 2)
    a, b = nodes
    a.reads_long = b.reads_long = True  # nothing is ready
    a.ask("1.9.1")
    b.ask("1.9.2")
    assert success_of(b.associate().get_scu(COMMITMENT)("1.9.3", HERE)) == 0x0213


# -- performed procedure steps --------------------------------------------------------------------------


def test_a_step_that_begins_at_one_node_goes_on_at_another(
    nodes: tuple[Member, Member], peer: Peer
) -> None:
    """PS3.4 F.7.2: the statuses are those of one SCP."""
    first, second = (each.associate().get_scu(MPPS)() for each in nodes)
    assert success_of(first.create(UID, new_step())) == 0x0000
    assert success_of(second.create(UID, new_step())) == 0x0111
    assert success_of(second.set(UID, final())) == 0x0000
    assert success_of(first.set(UID, final())) == 0x0110
    assert success_of(first.set("1.2.3.99", final())) == 0x0112
    nodes[1].advance(5)
    assert peer.told == [("create", UID), ("set", UID)]


def test_changes_of_a_step_at_both_nodes_at_once_lose_nothing(
    nodes: tuple[Member, Member],
) -> None:
    a, b = nodes
    steps = [a.steps, b.steps]
    steps[0]._create(UID, new_step())
    rounds = 15
    words = [f"changed {number}" for number in range(2 * rounds)]

    def change(number: int) -> None:
        modification = data_set()
        modification.add_new(0x00091001 + number, "LO", words[number])
        kept = steps[number % 2]._change(UID, modification)
        assert kept.refusal is None

    at_once([partial(change, number) for number in range(2 * rounds)])
    step = a.steps.read(UID)
    assert step is not None
    assert [step[0x00091001 + number].value for number in range(2 * rounds)] == words


def test_of_many_that_begin_or_end_a_step_at_once_one_does(nodes: tuple[Member, Member]) -> None:
    def refusals(calls: Sequence[Callable[[], Any]]) -> list[int]:
        kept = at_once(calls)
        return sorted(0 if each.refusal is None else each.refusal.status for each in kept)

    for turn in range(5):
        uid = f"{UID}.{turn}"
        begin = [partial(node.steps._create, uid, new_step()) for node in nodes]
        assert refusals(begin) == [0, 0x0111]
        states = "COMPLETED", "DISCONTINUED"
        end = [
            partial(node.steps._change, uid, final(state))
            for node, state in zip(nodes, states, strict=True)
        ]
        assert refusals(end) == [0, 0x0110]


def test_nodes_that_change_the_same_steps_in_another_order_both_succeed(
    nodes: tuple[Member, Member],
) -> None:
    """Each node commits many changes in one transaction, and those of two nodes may wait for each other."""
    a, b = nodes
    uids = [f"{UID}.{number}" for number in range(10)]
    for uid in uids:
        a.steps._create(uid, new_step())

    def touch(node: Member, uid: str) -> Future[int]:
        wanted = sa.select(procedure_step.c.uid).where(procedure_step.c.uid == uid)

        def call(connection: sa.Connection) -> int:
            connection.execute(wanted.with_for_update())
            own = procedure_step.c.uid == uid
            changed = (
                procedure_step.update().where(own).values(updated=procedure_step.c.updated + 1)
            )
            return connection.execute(changed).rowcount

        return node.index.write(call)

    for _ in range(2):
        waiting = [
            touch(node, uid) for node, order in ((a, uids), (b, uids[::-1])) for uid in order
        ]
        assert [each.result(60) for each in waiting] == [1] * len(waiting)


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of calls that are made by as many threads."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: call(), calls))


# -- the worklist ---------------------------------------------------------------------------------------


def test_what_one_node_imports_all_answer(nodes: tuple[Member, Member]) -> None:
    a, b = (WorklistTable(each.index, each.in_thread) for each in nodes)
    a.put([scheduled()])
    (item,) = b.read()
    assert item.key == ("1.2.3", "S1")
    assert b.remove(item.key)
    assert a.read() == []


def test_the_same_items_imported_at_both_nodes_at_once_are_there_once(
    nodes: tuple[Member, Member],
) -> None:
    tables = [WorklistTable(each.index, each.in_thread) for each in nodes]
    items = [scheduled(ScheduledProcedureStepID=f"S{number}") for number in range(20)]
    for _ in range(5):
        at_once([partial(table.put, items) for table in tables])
    assert len(tables[0].read()) == len(items)


def test_a_node_that_joins_others_reads_its_directory_only_when_that_is_its_duty(
    tmp_path: Path,
) -> None:
    files = tmp_path / "worklist"
    files.mkdir()
    (files / "a.wl").write_bytes(encoded(scheduled()))
    nodes = [
        Archive(tmp_path / name, workflow=WorkflowOptions(worklist=path))
        for name, path in (("a", files), ("b", None))
    ]
    try:
        a, b = (each.ae.workflow for each in nodes)
        assert a.duties == (Duty.WORKLIST,)
        assert b.duties == ()
        holds = False

        class Duties(AllDuties):
            def holds(self, duty: Duty | str) -> bool:
                return holds and duty == Duty.WORKLIST

        def answers(each: Workflow) -> int:
            found = [success_of(source.items(Dataset())) for source in each.worklist.sources]
            return sum(map(len, found))

        assert answers(a) == 1
        for member in (a, b):
            member.join(str(uuid4()), Duties())
        assert answers(a) == 0
        holds = True
        assert answers(a) == 1
        holds = False
        assert answers(a) == 1
        clock = Clock()
        a.start(clock)
        assert len(a.queue.owner) == 36
        success_of(a.stop())
        assert clock.getDelayedCalls() == []
        a.close()
    finally:
        for node in nodes:
            node.close()


# -- operators --------------------------------------------------------------------------------------------


def test_any_node_retries_and_drops_what_another_gave_up(
    nodes: tuple[Member, Member], peer: Peer
) -> None:
    a, b = nodes
    peer.refuses = True
    uids = [f"{UID}.{number}" for number in range(2)]
    for uid in uids:
        success_of(a.associate().get_scu(MPPS)().create(uid, new_step()))
    a.advance(5)
    first, second = b.queue.list(DEAD)
    peer.refuses = False
    assert b.queue.drop([second.id]).result() == 1
    assert b.queue.retry([first.id]).result() == 1
    a.die()
    b.advance(5)
    assert peer.told == [("create", uids[0])]
    assert b.queue.list() == []
