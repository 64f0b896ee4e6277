"""What goes when it is old or when room is needed, and what stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from netdicom_tx.amounts import Amount
from netdicom_tx.archive import retention as retentions
from netdicom_tx.archive.index import withdrawal
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.index.record import Receipt
from netdicom_tx.archive.index.schema import Level, protection, study
from netdicom_tx.archive.node import ArchiveAE
from netdicom_tx.archive.retention import Keeper, Reason, Retention, Rules, Run
from netdicom_tx.archive.store.filestore import FileStore, Room
from netdicom_tx.dsutils import encode
from netdicom_tx.testing import success_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.archives import archive
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.patients import data_set
from support.doubles import LoggedFailures
from support.doubles import logged_failures as logged_failures
from support.doubles import logged_lines as logged_lines

DAY = 86400.0
#: 2026-11-28, at noon.
NOW = 1795867200.0
PIXELS = 10_000


class Kept:
    """An archive in which studies were received at some time."""

    def __init__(self, directory: Path) -> None:
        self.ae: ArchiveAE = archive(directory, threads=0)
        assert self.ae.index is not None
        self.store, self.index = self.ae.store, self.ae.index
        self.store.open()
        self.index.open()
        self.told: list[set[str]] = []
        self.ae.deleter.on_deleted = lambda gone, _: self.told.append(
            {each.study_instance_uid for each in gone if each.is_whole}
        )

    def close(self) -> None:
        self.ae.stop()

    def study(
        self,
        uid: str,
        days_ago: float,
        *,
        instances: int = 1,
        calling: str = "CT1",
        called: str = "NODE",
        date: str = "",
    ) -> None:
        for number in range(instances):
            sop_instance_uid = f"{uid}.{number}"
            ds = data_set(
                SOPClassUID=CT_IMAGE_STORAGE,
                SOPInstanceUID=sop_instance_uid,
                PatientID="P",
                StudyInstanceUID=uid,
                SeriesInstanceUID=f"{uid}.1",
                StudyDate=date,
            )
            ds.PixelData = bytes(PIXELS)
            ds["PixelData"].VR = "OW"
            spool = self.store.spool(
                CT_IMAGE_STORAGE, sop_instance_uid, EXPLICIT_VR_LITTLE_ENDIAN, calling, called
            )
            spool.receipt = Receipt(NOW - days_ago * DAY, calling, called)
            spool.write(encode(ds, EXPLICIT_VR_LITTLE_ENDIAN))
            _, row = self.ae._storing.keep_by_itself(spool)
            if row is not None:
                row.result(30)
            spool.close()

    def protect(self, uid: str) -> None:
        values = {"study_instance_uid": uid, "label": "teaching", "created": NOW}
        self.index.write(
            lambda connection: connection.execute(protection.insert(), values) and None
        ).result(30)

    def keeper(self, *, plans: bool = False, **rules: Any) -> Keeper:
        return Keeper(
            self.store,
            self.index,
            Rules(**rules),
            None if plans else self.ae.deleter,
            clock=lambda: NOW,
        )

    def studies(self) -> set[str]:
        with self.index.reading() as reading:
            return set(reading.scalars(sa.select(study.c.study_instance_uid)))

    def size(self) -> int:
        return self.index.counts().size


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.close()


def test_ages_are_those_of_the_clock_that_all_nodes_have(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a machine may jump while the node runs, and nothing goes for that."""
    kept.study("1.1", 20)
    kept.study("1.2", 10)
    monkeypatch.setattr(retentions, "database_time", lambda _: NOW + 15 * DAY)
    Keeper(kept.store, kept.index, Rules(max_age=30), kept.ae.deleter).run()
    assert kept.studies() == {"1.2"}


# -- age ---------------------------------------------------------------------------------------------


def test_a_study_goes_when_it_is_old(kept: Kept) -> None:
    kept.study("1.1", 31, instances=2)
    kept.study("1.2", 29)
    done = kept.keeper(max_age=30).run()
    assert (done.studies, done.instances, done.waiting) == ({Reason.AGE: 1}, 2, 0)
    assert done.octets > 2 * PIXELS
    assert kept.studies() == {"1.2"}
    assert kept.told == [{"1.1"}]


def test_a_new_instance_makes_a_study_young(kept: Kept) -> None:
    """Its age is that of what came last."""
    kept.study("1.1", 40)
    kept.study("1.1", 10, instances=2)
    assert kept.keeper(max_age=30).run().studies == {}


def test_a_study_goes_when_its_study_date_is_long_ago(kept: Kept) -> None:
    """One without a date stays."""
    kept.study("1.1", 1, date="20161127")
    kept.study("1.2", 1, date="20261127")
    kept.study("1.3", 1)
    kept.keeper(max_study_age=3650).run()
    assert kept.studies() == {"1.2", "1.3"}


def test_with_both_ages_a_study_goes_when_both_are_exceeded(kept: Kept) -> None:
    """An old study that was imported a moment ago stays."""
    kept.study("1.1", 1, date="20060101")
    kept.study("1.2", 40, date="20060101")
    kept.study("1.3", 40, date="20261101")
    kept.keeper(max_age=30, max_study_age=3650).run()
    assert kept.studies() == {"1.1", "1.3"}


# -- room --------------------------------------------------------------------------------------------


def test_the_oldest_received_studies_go_until_a_twentieth_of_the_quota_is_free(kept: Kept) -> None:
    for number, days in enumerate((5, 9, 7, 1, 3)):
        kept.study(f"1.{number}", days)
    keeper = kept.keeper(quota=Amount(octets=kept.size() - 1))
    done = keeper.run()
    assert (done.studies, done.missing) == ({Reason.QUOTA: 1}, 0)
    assert kept.studies() == {"1.0", "1.2", "1.3", "1.4"}
    assert keeper.run().studies == {}


def test_nothing_goes_within_the_quota(kept: Kept) -> None:
    kept.study("1.1", 5)
    assert kept.keeper(quota=Amount(octets=kept.size())).run() == Run()


def test_a_share_of_the_disk(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being deleted counts as free."""
    for number in range(4):
        kept.study(f"1.{number}", 9 - number)
    size = kept.size() // 4

    def room(_: FileStore) -> Room:
        used = sum(path.stat().st_size for path in kept.store.instances.rglob("*.dcm"))
        return Room(size * 100, size * 100 - used - 77 * size, 0)

    monkeypatch.setattr(FileStore, "room", room)
    lease = kept.store.leases.take()
    keeper = kept.keeper(quota=Amount(share=0.80))
    done = keeper.run()
    # A twentieth of the quota is more than there is.
    assert done.studies == {Reason.QUOTA: 4}
    assert done.waiting == 4
    assert keeper.needed() is None
    lease.release()


def test_a_quota_makes_room_before_the_reserve_is_reached(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        kept.study(f"1.{number}", 9 - number)
    size = kept.size() // 4
    monkeypatch.setattr(FileStore, "room", lambda _: Room(100 * size, 4 * size, 4 * size))
    assert kept.keeper(max_age=30).run().studies == {}
    assert kept.keeper(quota=Amount(octets=100 * size)).run().studies == {Reason.RESERVE: 2}
    assert kept.studies() == {"1.2", "1.3"}


def test_what_was_deleted_for_its_age_counts_for_the_quota(kept: Kept) -> None:
    for number, days in enumerate((40, 9, 7)):
        kept.study(f"1.{number}", days)
    size = kept.size() // 3
    planned = kept.keeper(plans=True, max_age=30, quota=Amount(octets=size * 5 // 2)).plan()
    assert [(each.study_instance_uid, each.reason) for each in planned] == [("1.0", Reason.AGE)]
    kept.keeper(max_age=30, quota=Amount(octets=size * 5 // 2)).run()
    assert kept.studies() == {"1.1", "1.2"}


# -- what stays ----------------------------------------------------------------------------------------


def test_what_is_protected_stays(kept: Kept) -> None:
    kept.study("1.1", 50)
    kept.protect("1.1")
    kept.study("1.2", 50, calling="RESEARCH")
    kept.study("1.3", 50, called="TEACHING")
    kept.study("1.4", 50)
    kept.study("1.4", 49, calling="RESEARCH", instances=2)
    kept.study("1.5", 50)
    rules: dict[str, Any] = {"protect_calling": ("RESEARCH",), "protect_called": ("TEACHING",)}
    kept.keeper(max_age=30, **rules).run()
    assert kept.studies() == {"1.1", "1.2", "1.3", "1.4"}
    done = kept.keeper(quota=Amount(octets=1), **rules).run()
    assert done.missing == kept.size() - 1
    assert kept.studies() == {"1.1", "1.2", "1.3", "1.4"}


def test_what_is_arriving_stays(kept: Kept) -> None:
    kept.study("1.1", 30 / DAY)
    kept.study("1.2", 61 / DAY)
    kept.keeper(quota=Amount(octets=1)).run()
    assert kept.studies() == {"1.1"}


@pytest.mark.parametrize("change", ["instance", "protection", "gone"])
def test_what_changes_after_it_was_chosen_stays(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The transaction that deletes it looks once more."""
    kept.study("1.1", 50)
    kept.study("1.2", 50)
    real = kept.ae.deleter.delete

    def delete(*arguments: Any) -> Any:
        if change == "instance":
            kept.study("1.1", 50, instances=2)
        elif change == "protection":
            kept.protect("1.1")
        else:
            with kept.index.reading() as reading:
                chosen = withdrawal.choose(reading, Level.STUDY, "1.1")
            real(chosen)
        return real(*arguments)

    monkeypatch.setattr(kept.ae.deleter, "delete", delete)
    assert kept.keeper(max_age=30).run().studies == {Reason.AGE: 1}
    assert kept.studies() == ({"1.1"} if change != "gone" else set())


def test_studies_of_an_earlier_version_are_as_old_as_their_files(kept: Kept) -> None:
    """The index did not know when a study was received."""
    kept.study("1.1", 1)
    kept.study("1.2", 1)
    kept.index.write(
        lambda connection: connection.execute(study.update().values(received=0.0)) and None
    ).result(30)
    path = kept.store.path("1.1.0")
    old = int(NOW - 50 * DAY)
    os.utime(path, (old, old))
    kept.keeper(max_age=30).run()
    assert kept.studies() == {"1.2"}


# -- how ---------------------------------------------------------------------------------------------


def test_studies_go_in_groups_until_somebody_stops(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netdicom_tx.archive.retention._STUDIES", 2)
    monkeypatch.setattr("netdicom_tx.archive.retention._PAGE", 2)
    for number in range(5):
        kept.study(f"1.{number}", 50)
    # The first answer lets it look for studies that have no date yet.
    answers = iter((True, True, True, False))
    assert kept.keeper(max_age=30).run(lambda: next(answers)).studies == {Reason.AGE: 4}
    assert kept.studies() == {"1.4"}
    assert len(kept.told) == 2
    assert kept.keeper(max_age=30).run(lambda: False).studies == {}
    assert kept.keeper(max_age=30).run().studies == {Reason.AGE: 1}


def test_without_rules_only_what_waits_goes(kept: Kept) -> None:
    """The retrieve that has sent it is over."""
    kept.study("1.1", 50)
    lease = kept.store.leases.take()
    kept.ae.deleter.delete_named(Level.STUDY, "1.1")
    assert kept.keeper().run() == Run()
    assert kept.store.path("1.1.0").exists()
    lease.release()
    assert kept.keeper().run() == Run()
    assert not kept.store.path("1.1.0").exists()


def test_a_study_without_its_file_has_no_time(kept: Kept) -> None:
    """It stays, and the node says elsewhere that the file is missing."""
    kept.study("1.1", 50)
    kept.index.write(
        lambda connection: connection.execute(study.update().values(received=0.0)) and None
    ).result(30)
    kept.store.path("1.1.0").unlink()
    assert kept.keeper(max_age=30).run() == Run()


def test_a_plan_ends_where_all_else_stays(kept: Kept) -> None:
    kept.study("1.1", 9)
    kept.study("1.2", 8)
    kept.protect("1.2")
    planned = kept.keeper(plans=True, quota=Amount(octets=1)).plan()
    assert [each.study_instance_uid for each in planned] == ["1.1"]


def test_a_plan_deletes_nothing(kept: Kept) -> None:
    for number in range(4):
        kept.study(f"1.{number}", 9 - number, instances=number + 1, date="20200102")
    keeper = kept.keeper(plans=True, max_age=8.5, quota=Amount(octets=kept.size() // 2))
    assert list(kept.keeper(plans=True, max_age=8.5).plan()) == list(keeper.plan())[:1]
    planned = list(keeper.plan())
    assert [(each.study_instance_uid, each.instances, each.reason) for each in planned] == [
        ("1.0", 1, Reason.AGE),
        ("1.1", 2, Reason.QUOTA),
        ("1.2", 3, Reason.QUOTA),
    ]
    assert (planned[0].received, planned[0].study_date) == (NOW - 9 * DAY, "20200102")
    assert len(kept.studies()) == 4


def test_the_octets_are_reckoned_between_counts(kept: Kept) -> None:
    """What comes and goes in between is in them."""
    now = [NOW]
    keeper = Keeper(kept.store, kept.index, Rules(), kept.ae.deleter, clock=lambda: now[0])
    assert keeper.octets() == 0
    kept.study("1.1", 5, instances=2)
    assert keeper.octets() == kept.size()
    kept.study("1.2", 5)
    assert keeper.octets() == kept.size() == keeper.octets()
    kept.keeper(max_age=1).run()
    assert keeper.octets() == 0
    kept.study("1.3", 5)
    assert keeper.octets() == kept.size()
    now[0] += 3600
    kept.index.write(
        lambda connection: connection.execute(sa.text("UPDATE instance SET size = 7")) and None
    ).result(30)
    assert keeper.octets() == 7


# -- the service ---------------------------------------------------------------------------------------


class Runs:
    """A keeper that does what the test says."""

    def __init__(self) -> None:
        self.rules = Rules(max_age=1)
        self.results: list[Run | Exception] = []
        self.count = 0

    def run(self, go_on: Callable[[], bool]) -> Run:
        self.count += 1
        result = self.results.pop(0) if self.results else Run()
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def service() -> Iterator[tuple[Retention, Runs, Clock]]:
    keeper, clock = Runs(), Clock()
    made = Retention(keeper, clock, period=5.0, threads=0)  # type: ignore[arg-type]  # all that it needs
    made.startService()
    yield made, keeper, clock
    success_of(made.stopService())
    assert clock.getDelayedCalls() == []


def test_a_run_has_one_line_when_it_has_deleted_something(
    service: tuple[Retention, Runs, Clock], lines: list[str]
) -> None:
    _, keeper, clock = service
    keeper.results = [
        Run(),
        Run({Reason.AGE: 1, Reason.QUOTA: 2}, 12, 3 << 20, 4),
        Run({Reason.AGE: 1}, 1, 1),
    ]
    clock.pump([5.0, 5.0, 5.0])
    assert keeper.count == 3
    assert lines == [
        "retention: 3 studies with 12 instances deleted, 3.0 MiB (age 1, quota 2); 4 files go when they are sent",
        "retention: 1 study with 1 instance deleted, 1 octet (age 1)",
    ]


def test_without_rules_it_looks_less_often(service: tuple[Retention, Runs, Clock]) -> None:
    """What waits for a retrieve is deleted then as well."""
    _, keeper, clock = service
    keeper.rules = Rules()
    clock.pump([5.0, 14.0])
    assert keeper.count == 1
    clock.advance(1)
    assert keeper.count == 2


def test_it_says_once_that_the_quota_cannot_be_kept(
    service: tuple[Retention, Runs, Clock], lines: list[str]
) -> None:
    _, keeper, clock = service
    keeper.results = [Run(missing=5 << 20), Run(missing=4 << 20), Run()]
    clock.pump([5.0] * 4)
    assert len(lines) == 2
    assert "cannot free 5.0 MiB more" in lines[0]
    assert "kept the quota again" in lines[1]


@pytest.mark.parametrize(
    "error", [IndexUnavailableError("gone"), OSError(errno.EIO, "Input/output error")]
)
def test_it_tries_again_when_disk_or_database_refuse(
    service: tuple[Retention, Runs, Clock], lines: list[str], error: Exception
) -> None:
    _, keeper, clock = service
    keeper.results = [error, error]
    clock.pump([5.0, 5.0, 25.0, 30.0])
    assert keeper.count == 3
    assert len(lines) == 2
    assert "nothing can be deleted at the moment" in lines[0]
    assert lines[1] == "retention goes on"


def test_without_rules_it_says_nothing_of_disk_or_database(
    service: tuple[Retention, Runs, Clock], lines: list[str]
) -> None:
    """Others do, and nobody waits for it."""
    _, keeper, clock = service
    keeper.rules = Rules()
    keeper.results = [IndexUnavailableError("gone")]
    clock.pump([5.0, 30.0])
    assert keeper.count == 2
    assert lines == []


def test_a_run_that_fails_is_no_reason_to_stop(
    service: tuple[Retention, Runs, Clock], failures: LoggedFailures
) -> None:
    _, keeper, clock = service
    keeper.results = [ValueError("a mistake")]
    clock.pump([5.0, 30.0])
    assert keeper.count == 2
    assert failures.texts() == ["a mistake"]


def test_it_stops_when_its_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, clock = Runs(), Clock()
    made = Retention(keeper, clock, threads=0)  # type: ignore[arg-type]  # all that it needs
    running: Deferred[Run] = Deferred()
    monkeypatch.setattr(made._workers, "run", lambda *_: running)
    made.startService()
    clock.advance(2)
    stopped = made.stopService()
    assert not stopped.called
    running.callback(Run())
    success_of(stopped)
    assert clock.getDelayedCalls() == []
