"""Storage commitment of an archive: RELIABILITY D11, over associations in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from netdicom_tx import AE, EventHandlingError, StatusError
from netdicom_tx.archive.index.record import digest_of_file
from netdicom_tx.archive.workflow import commitment as commitments
from netdicom_tx.archive.workflow.commitment import REMEMBERED, ArchiveCommitment, commitment
from netdicom_tx.archive.workflow.outbound import DEAD, RUNNING, WAITING
from netdicom_tx.dsutils import part10_header
from netdicom_tx.sopclass import StorageCommitment, storage_commitment_scu
from netdicom_tx.testing import success_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT
from support.archive.data_sets import CT_IMAGE_STORAGE as CT
from support.archive.data_sets import ct
from support.archive.nodes import Node

MR = "1.2.840.10008.5.1.4.1.1.4"
HERE = [(CT, f"1.2.{number}") for number in range(3)]


def count_reading(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read to their end from now on."""
    read: list[Path] = []

    def watched(path: Path, *arguments: Any) -> str:
        read.append(path)
        return digest_of_file(path, *arguments)

    monkeypatch.setattr(commitments, "digest_of_file", watched)
    return read


Report = tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str, int], ...]]


class Modality(AE):
    """Asks, and takes reports."""

    def __init__(self) -> None:
        super().__init__("MODALITY")
        self.add_scu(storage_commitment_scu).add_scp(StorageCommitment())
        self.reports: list[Report] = []
        self.refuses: int | None = None

    def on_commitment_response(self, transaction_uid: str, success: Any, failure: Any) -> None:
        self.reports.append((transaction_uid, tuple(success), tuple(failure)))
        if self.refuses is not None:
            raise StatusError(self.refuses)


class Archive(Node):
    """With three instances, and storage commitment."""

    service: ArchiveCommitment

    def _open(self) -> None:
        super()._open()
        self.service = ArchiveCommitment(
            self.ae, self.index, self.runner, self.in_thread, self.peers
        )
        self.ae.add_scp(self.service)
        self.runner.start(self.pair.clock)

    def ask(self, uids: list[tuple[str, str]], transaction: str = "1.9", hold: bool = True) -> Any:
        """A request; the association is released unless it is held."""
        asce = self.associate()
        assert success_of(asce.get_scu(COMMITMENT)(transaction, uids)) == 0x0000
        if not hold:
            success_of(asce.release())
        return asce

    def rows(self) -> int:
        with self.index.reading() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(commitment)) or 0


@pytest.fixture
def modality() -> Modality:
    return Modality()


@pytest.fixture
def archive(tmp_path: Path, modality: Modality) -> Iterator[Archive]:
    node = Archive(tmp_path, modality)
    for _, uid in HERE:
        node.keep(uid, ct(uid))
    yield node
    node.close()


def test_what_is_kept_is_committed_on_the_same_association(
    archive: Archive, modality: Modality
) -> None:
    """PS3.4 J.3.3: the requestor holds the association, and has the report on it."""
    archive.ask(HERE)
    archive.advance(1)
    assert modality.reports == [("1.9", tuple(HERE), ())]
    assert archive.line.calls == 0
    assert archive.queue.list() == []


def test_an_instance_that_is_named_again_and_again_is_looked_at_once(
    archive: Archive, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven thousand references to one instance were as many times its size of reading."""
    read = count_reading(monkeypatch)
    archive.ask([HERE[0]] * 500)
    archive.advance(1)
    assert modality.reports == [("1.9", (HERE[0],) * 500, ())]
    assert len(read) == 1


def test_a_file_that_was_read_a_moment_ago_is_not_read_again(
    archive: Archive, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_reading(monkeypatch)
    for number in range(3):
        archive.ask(HERE, transaction=f"1.9.{number}")
        archive.advance(1)
    assert len(read) == len(HERE)
    path = archive.store.path(HERE[0][1])
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    archive.ask(HERE, transaction="1.9.3")
    archive.advance(1)
    assert modality.reports[-1] == ("1.9.3", tuple(HERE[1:]), ((*HERE[0], 0x0110),))


def test_an_ae_title_can_be_owed_so_many_reports(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one peer fills the queue, and keeps the reader of files to itself."""
    monkeypatch.setattr(commitments, "OWED_LIMIT", 2)
    asce = archive.associate()
    archive.service.stop()  # nothing is ready
    answers = [success_of(asce.get_scu(COMMITMENT)(f"1.9.{n}", HERE)) for n in range(3)]
    assert answers == [0x0000, 0x0000, 0x0213]


def test_a_disk_that_is_full_to_its_reserve_takes_no_request(archive: Archive) -> None:
    """The reserve is for those who make room; requests alone could use it up."""
    has_room = False
    archive.service.has_room = lambda: has_room
    asce = archive.associate()
    assert success_of(asce.get_scu(COMMITMENT)("1.9.1", HERE)) == 0x0213
    has_room = True
    assert success_of(asce.get_scu(COMMITMENT)("1.9.1", HERE)) == 0x0000


def test_a_stop_ends_the_reading_and_the_report_stays_owed(
    archive: Archive, modality: Modality
) -> None:
    archive.service.stop()
    archive.ask(HERE)
    archive.advance(1)
    assert modality.reports == []
    (task,) = archive.queue.list()
    assert task.state in (WAITING, RUNNING)


@pytest.mark.slow
def test_a_requestor_that_released_has_the_report_on_an_association_of_the_node(
    archive: Archive, modality: Modality
) -> None:
    """PS3.4 J.3.3; at once, for there is nothing to wait for."""
    archive.ask(HERE, hold=False)
    archive.advance(0)
    assert modality.reports == [("1.9", tuple(HERE), ())]
    assert archive.line.calls == 1
    assert archive.queue.list() == []


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    """A whole instance, and another one."""
    head = part10_header(CT, "1.2.1", EXPLICIT_VR_LITTLE_ENDIAN)
    path.write_bytes(head + ct("1.2.1", fill=9))


def outgrow(path: Path) -> None:
    """A whole instance, and a larger one."""
    head = part10_header(CT, "1.2.1", EXPLICIT_VR_LITTLE_ENDIAN)
    path.write_bytes(head + ct("1.2.1", 1024))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil(path: Path) -> None:
    path.write_bytes(b"x" * 99)


HARMS = [outgrow, Path.unlink, empty, spoil]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "digest"),
    [(each, True) for each in (damage, swap, *HARMS)] + [(each, False) for each in HARMS],
)
def test_a_damaged_file_is_reported_as_failed_and_never_as_committed(
    archive: Archive, modality: Modality, harm: Any, digest: bool
) -> None:
    """D11: the file was opened and its digest verified; or looked through, when it has none."""
    if not digest:
        archive.index.set_digest("1.2.1", "").result(30)
    harm(archive.store.path("1.2.1"))
    archive.ask(HERE)
    archive.advance(1)
    assert modality.reports == [("1.9", (HERE[0], HERE[2]), ((CT, "1.2.1", 0x0110),))]


def test_a_file_without_digest_is_looked_through_and_its_digest_noted(
    archive: Archive, modality: Modality
) -> None:
    archive.index.set_digest("1.2.1", "").result(30)
    archive.ask(HERE)
    archive.advance(1)
    assert modality.reports == [("1.9", tuple(HERE), ())]
    (entry,) = [each for each in archive.index.entries() if each.sop_instance_uid == "1.2.1"]
    assert entry.digest.startswith("sha256:")


def test_each_failure_has_its_reason(archive: Archive, modality: Modality) -> None:
    """PS3.3 C.14.1.1."""
    print_queue = "1.2.840.10008.5.1.1.26"
    unknown, conflict, foreign = (CT, "1.2.77"), (MR, "1.2.1"), (print_queue, "1.2.78")
    archive.ask([*HERE[:1], unknown, conflict, foreign])
    archive.advance(1)
    assert modality.reports == [
        ("1.9", (HERE[0],), ((*unknown, 0x0112), (*conflict, 0x0119), (*foreign, 0x0122)))
    ]


@pytest.mark.parametrize("reported", [True, False])
def test_a_transaction_uid_that_is_used_again_fails_every_instance(
    archive: Archive, modality: Modality, reported: bool
) -> None:
    """0x0131, whether or not the first has its report already."""
    asce = archive.ask(HERE)
    if reported:
        archive.advance(1)
    assert success_of(asce.get_scu(COMMITMENT)("1.9", HERE[:1])) == 0
    archive.advance(1)
    assert modality.reports == [("1.9", tuple(HERE), ()), ("1.9", (), ((*HERE[0], 0x0131),))]
    assert archive.queue.list() == []


def test_an_instance_that_is_named_twice_is_reported_twice(
    archive: Archive, modality: Modality
) -> None:
    archive.ask([HERE[0], HERE[0], (CT, "1.2.77")])
    archive.advance(1)
    assert modality.reports == [("1.9", (HERE[0], HERE[0]), ((CT, "1.2.77", 0x0112),))]


def test_a_restart_between_request_and_report_loses_nothing(
    archive: Archive, modality: Modality
) -> None:
    """D11; the requestor was told Success."""
    archive.ask(HERE)
    assert [task.state for task in archive.queue.list()] == [RUNNING]
    archive.restart()
    archive.advance(0)
    assert modality.reports == [("1.9", tuple(HERE), ())]
    assert archive.queue.list() == []


@pytest.mark.slow
def test_a_requestor_that_is_away_has_the_report_when_it_is_back(
    archive: Archive, modality: Modality
) -> None:
    """The first retry comes within a minute; a restart in between changes nothing."""
    archive.line.is_up = False
    archive.ask(HERE, hold=False)
    archive.advance(0)
    (task,) = archive.queue.list(WAITING)
    assert "refused" in task.last_error
    assert task.not_before - archive.now() < 60
    archive.restart()
    archive.line.is_up = False
    for _ in range(60):
        archive.advance(10)
    assert modality.reports == []
    calls = archive.line.calls
    assert 3 < calls < 10
    archive.line.is_up = True
    for _ in range(60):
        archive.advance(10)
    assert modality.reports == [("1.9", tuple(HERE), ())]
    assert archive.line.calls == calls + 1


def test_files_are_read_once_however_often_the_report_is_tried(
    archive: Archive, modality: Modality
) -> None:
    archive.line.is_up = False
    archive.ask(HERE, hold=False)
    archive.advance(0)
    archive.store.path("1.2.1").unlink()
    archive.line.is_up = True
    for _ in range(6):
        archive.advance(5)
    assert modality.reports == [("1.9", tuple(HERE), ())]


def test_an_association_that_ends_while_the_report_is_on_it_is_no_end(
    archive: Archive, modality: Modality
) -> None:
    """Then the report goes out on another."""
    asce = archive.ask(HERE)

    def vanish(*arguments: Any) -> Any:
        asce.abort()
        raise EventHandlingError

    modality.on_commitment_response = vanish  # type: ignore[method-assign]
    archive.advance(1)
    del modality.on_commitment_response
    assert archive.line.calls == 1
    archive.advance(0)
    for _ in range(4):
        archive.advance(5)
    assert modality.reports == [("1.9", tuple(HERE), ())]


def test_a_requestor_whose_address_is_not_known_is_told_on_its_association_or_never(
    archive: Archive, modality: Modality
) -> None:
    """No address is taken from a PDU; the operator sees what is owed, and may name the peer."""
    archive.peers.clear()
    archive.ask(HERE, "1.8")
    archive.advance(1)
    assert modality.reports == [("1.8", tuple(HERE), ())]
    archive.ask(HERE, hold=False)
    archive.advance(0)
    (task,) = archive.queue.list(WAITING)
    assert task.destination == "MODALITY"
    assert (
        task.last_error
        == "MODALITY is not a peer of this node, so its address is unknown: add it with --peer"
    )


@pytest.mark.parametrize(
    ("status", "state"), [(0x0112, DEAD), (0x0110, WAITING), (0x0213, WAITING)]
)
def test_a_report_that_is_refused(
    archive: Archive, modality: Modality, status: int, state: str
) -> None:
    """A peer that does not know the transaction will not know it later."""
    modality.refuses = status
    archive.ask(HERE)
    archive.advance(1)
    (task,) = archive.queue.list()
    assert (task.state, f"0x{status:04X}" in task.last_error) == (state, True)


def test_a_database_that_refuses_refuses_the_request(
    archive: Archive, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0x0213: nothing is promised that is not written down."""
    asce = archive.associate()
    archive.index.close()
    assert success_of(asce.get_scu(COMMITMENT)("1.9", HERE)) == 0x0213
    archive.index.open()
    assert archive.rows() == 0
    assert success_of(asce.get_scu(COMMITMENT)("1.9", HERE)) == 0
    archive.advance(1)
    assert modality.reports == [("1.9", tuple(HERE), ())]


def test_a_task_without_its_transaction_is_done(archive: Archive) -> None:
    """It was reported, but the node was killed before the task was gone."""
    archive.index.write(
        lambda connection: archive.queue.put(connection, "commitment", "MODALITY", {"row": 77})
    ).result(30)
    archive.runner.wake()
    assert archive.queue.list() == []
    assert archive.line.calls == 0


def test_what_was_reported_long_ago_is_forgotten(archive: Archive, modality: Modality) -> None:
    archive.ask(HERE, "1.8")
    archive.advance(1)
    archive._past += REMEMBERED
    archive.advance(1)
    archive.ask(HERE, "1.9")
    archive.advance(1)
    assert archive.rows() == 1
    archive.ask(HERE, "1.8")
    archive.advance(1)
    assert modality.reports[-1] == ("1.8", tuple(HERE), ())
