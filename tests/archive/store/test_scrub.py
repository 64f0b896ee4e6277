"""The scrub reads every file of a running node again, at its rate, and reports what is damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from netdicom_tx.archive.index.index import Index, IndexUnavailableError
from netdicom_tx.archive.store import scrub as module
from netdicom_tx.archive.store.reconcile import Fault
from netdicom_tx.archive.store.scrub import Scrub
from netdicom_tx.testing import success_of
from support.archive.archives import Archive, stored
from support.archive.data_sets import ct
from support.processes import eventually

UIDS = [f"1.2.{number}" for number in range(6)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive")
    sender = opened.sender()
    for uid in UIDS:
        assert stored(sender, ct(uid), uid) == 0x0000
    yield opened
    opened.close()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    def note(event: LogEvent) -> None:
        text = formatEvent(event)
        if text.startswith("scrub: "):
            found.append(text)

    globalLogPublisher.addObserver(note)
    yield found
    globalLogPublisher.removeObserver(note)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scrub(node: Archive, clock: Clock) -> Iterator[Scrub]:
    made = Scrub(node.index, clock, rate=1e12, first=60, period=1000, threads=0)
    made.startService()
    yield made
    success_of(made.stopService())
    assert clock.getDelayedCalls() == []


def change(path: Path) -> None:
    """One bit of the last value; the size and the time stay."""
    octets = bytearray(path.read_bytes())
    octets[-1] ^= 1
    path.write_bytes(octets)


def test_files_that_are_what_was_stored_are_counted(
    scrub: Scrub, clock: Clock, lines: list[str], node: Archive
) -> None:
    clock.advance(59)
    assert scrub.rounds == 0
    clock.advance(1)
    assert (scrub.rounds, scrub.compared, scrub.findings) == (1, len(UIDS), {})
    octets = sum(node.store.path(uid).stat().st_size for uid in UIDS)
    assert lines == [
        f"scrub: 6 files with {octets} octets were compared with their digests; 0 are damaged"
    ]
    clock.advance(999)
    assert scrub.rounds == 1
    clock.advance(1)
    assert scrub.rounds == 2


def link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (change, Fault.CHANGED),
        (lambda path: path.write_bytes(b""), Fault.UNREADABLE),
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), Fault.CHANGED),
        (lambda path: path.write_bytes(path.read_bytes() + b"xy"), Fault.CHANGED),
        (Path.unlink, Fault.MISSING),
        (link, Fault.CHANGED),
    ],
    ids=["a bit", "emptied", "cut", "longer", "gone", "a link"],
)
def test_a_damaged_file_is_one_line_of_the_log(
    scrub: Scrub,
    clock: Clock,
    lines: list[str],
    node: Archive,
    harm: Callable[[Path], object],
    fault: Fault,
) -> None:
    path = node.store.path(UIDS[3])
    whole = path.read_bytes()
    harm(path)
    clock.advance(60)
    assert {uid: each.fault for uid, each in scrub.findings.items()} == {UIDS[3]: fault}
    assert len(lines) == 2
    assert lines[0].startswith(f"scrub: {path}: {fault.value}")
    assert lines[1].endswith("1 are damaged")
    path.unlink(missing_ok=True)
    path.write_bytes(whole)
    clock.advance(1000)
    assert scrub.findings == {}


def test_a_finding_goes_with_its_instance(scrub: Scrub, clock: Clock, node: Archive) -> None:
    node.store.path(UIDS[0]).unlink()
    clock.advance(60)
    node.index.remove(UIDS[0]).result()
    clock.advance(1000)
    assert scrub.findings == {}


def test_a_digest_that_nobody_computed_is_noted(scrub: Scrub, clock: Clock, node: Archive) -> None:
    """As a new index leaves it: the file is walked through, and has a digest from then on."""
    digests = {each.sop_instance_uid: each.digest for each in node.index.entries()}
    for uid in UIDS:
        node.index.set_digest(uid, "").result()
    clock.advance(60)
    assert {each.sop_instance_uid: each.digest for each in node.index.entries()} == digests


@pytest.mark.parametrize("start", range(len(UIDS) + 1))
def test_a_round_begins_anywhere_and_reads_every_file_once(
    scrub: Scrub, clock: Clock, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    """A node that is restarted every day reaches all of its files in the end."""
    monkeypatch.setattr(module.random, "randrange", lambda _: start)
    seen: list[str] = []
    real = module.examine

    def examine(entry: Any, *arguments: Any) -> Any:
        seen.append(entry.sop_instance_uid)
        return real(entry, *arguments)

    monkeypatch.setattr(module, "examine", examine)
    clock.advance(60)
    assert seen == UIDS[start:] + UIDS[:start]


def test_an_instance_that_was_replaced_meanwhile_is_compared_again(
    scrub: Scrub, clock: Clock, node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file changes between the reading of its row and that of the file: no damage."""
    real, done = module.examine, []

    def examine(entry: Any, *arguments: Any) -> Any:
        if not done and entry.sop_instance_uid == UIDS[2]:
            done.append(True)
            node.index.remove(UIDS[2]).result()
            node.store.path(UIDS[2]).unlink()
            assert stored(node.sender(), ct(UIDS[2], fill=9), UIDS[2]) == 0x0000
        elif len(done) == 1 and entry.sop_instance_uid == UIDS[4]:
            done.append(True)
            node.index.remove(UIDS[4]).result()
            node.store.path(UIDS[4]).unlink()
        return real(entry, *arguments)

    monkeypatch.setattr(module.random, "randrange", lambda _: 0)
    monkeypatch.setattr(module, "examine", examine)
    clock.advance(60)
    assert len(done) == 2
    assert scrub.findings == {}


def test_an_index_that_does_not_answer_is_asked_again(
    scrub: Scrub, clock: Clock, lines: list[str], node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Index) -> int:
        raise IndexUnavailableError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(Index, "last_row", refuse)
        clock.advance(60)
    assert lines == ["scrub: the index does not answer: the database is away"]
    clock.advance(600)
    assert scrub.rounds == 1


def test_it_reads_at_its_rate(node: Archive, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is followed by the time that it may take; a small file by less than a large one."""
    uid = "1.3"
    assert stored(node.sender(), ct(uid, pixels=3 << 20), uid) == 0x0000
    scrub = Scrub(node.index, clock, rate=1 << 20, first=0, threads=0)
    waited: list[float] = []
    monkeypatch.setattr(scrub._stopping, "wait", waited.append)
    scrub.startService()
    clock.advance(0)
    octets = sum(node.store.path(each).stat().st_size for each in (*UIDS, uid))
    assert sum(waited) == pytest.approx(octets / (1 << 20))
    assert max(waited) == 1.0
    success_of(scrub.stopService())


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_is_more_than_nothing(node: Archive, rate: float) -> None:
    with pytest.raises(ValueError, match="a rate above 0"):
        Scrub(node.index, Clock(), rate=rate)


class ThreadTests(TestCase):
    """On a real reactor, with the thread."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, node: Archive) -> None:
        self.node = node

    def in_the_end(self, condition: Callable[[], bool]) -> Deferred[Any]:
        waited: Deferred[Any] = deferToThread(eventually, condition, "condition")
        return waited

    async def test_it_stops_in_the_middle_of_a_file(self) -> None:
        """At this rate the first file would take a year."""
        scrub = Scrub(self.node.index, reactor, rate=1e-5, first=0)
        reading = threading.Event()
        wait = scrub._stopping.wait

        def waiting(seconds: float) -> bool:
            if seconds:
                reading.set()
            return wait(seconds)

        scrub._stopping.wait = waiting  # type: ignore[method-assign]
        scrub.startService()
        await self.in_the_end(reading.is_set)
        await scrub.stopService()
        assert scrub.rounds == 0
        assert not scrub.running

    async def test_it_reads_nothing_while_it_is_paused_and_goes_on_then(self) -> None:
        scrub = Scrub(self.node.index, reactor, rate=1e12, first=0)
        scrub.pause()
        waiting = threading.Event()
        go_on = scrub._going.wait

        def wait(timeout: float | None = None) -> bool:
            waiting.set()
            return go_on(timeout)

        scrub._going.wait = wait  # type: ignore[method-assign]
        scrub.startService()
        await self.in_the_end(waiting.is_set)
        assert scrub.compared == 0
        scrub.resume()
        await self.in_the_end(lambda: scrub.rounds == 1)
        assert scrub.compared == len(UIDS)
        await scrub.stopService()

    async def test_it_stops_while_it_is_paused_and_starts_again(self) -> None:
        scrub = Scrub(self.node.index, reactor, rate=1e12, first=0)
        scrub.pause()
        scrub.startService()
        await scrub.stopService()
        scrub.startService()
        await self.in_the_end(lambda: scrub.rounds == 1)
        await scrub.stopService()
