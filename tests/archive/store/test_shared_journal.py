"""Instances that a node acknowledges when they are in its journal, and puts into the shared store afterwards."""

import errno
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from netdicom_tx.archive import Index
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store import intake as intakes
from netdicom_tx.archive.store import journal as journals
from netdicom_tx.archive.store.deletion import Deleter
from netdicom_tx.archive.store.filestore import Duplicates, Kept, Outcome
from netdicom_tx.archive.store.intake import Intake
from netdicom_tx.archive.store.objects import DirectoryObjects, ObjectStoreError
from netdicom_tx.archive.store.sharedstore import Durability, SharedStore
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.archive.databases import database_url
from support.archive.intakes import Calls
from support.doubles import logged_lines as logged_lines
from support.processes import PATIENCE, eventually

UIDS = ["1.1", "1.2", "1.3", "1.4"]


class Running:
    """A node with a journal and a running intake."""

    def __init__(self, folder: Path, name: str = "one") -> None:
        (folder / "shared").mkdir(exist_ok=True)
        self.objects = DirectoryObjects(folder / "shared", fsync=False)
        self.store = SharedStore(folder / name, self.objects, durability=Durability.NODE)
        self.index = Index(database_url(folder / "index.db"), root=self.store.root)
        self.store.bind(self.index)
        self.intake = Intake(self.store, self.index)
        self.calls = Calls()
        self.store.open(self.index.open)
        self.index.settle = self.intake.settle
        self.intake.start(self.calls)  # type: ignore[arg-type]  # all that it needs

    def stop(self) -> None:
        self.intake.stop()
        self.index.close()
        self.store.close()

    def submit(self, uid: str, data: bytes | None = None) -> Deferred[Kept | None]:
        spool = self.store.spool(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax, "SENDER")
        spool.write(ct(uid) if data is None else data)
        return self.intake.keep(spool)

    def keep(self, uid: str, data: bytes | None = None) -> Kept | None:
        kept: Kept | None = self.calls.until(self.submit(uid, data))
        return kept

    def keys(self, prefix: str = "instances/") -> list[str]:
        return [each.key for each in self.objects.list(prefix)]

    def has(self, uid: str) -> bool:
        """Whether object and row are there."""
        here = self.index.standing([uid]).get(uid)
        return here is not None and self.objects.size(here.path) == here.size


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def node(name: str = "one") -> Running:
        made.append(Running(tmp_path, name))
        return made[-1]

    yield node
    for each in made:
        each.stop()


class Gate:
    """Holds up, or refuses, what is put."""

    def __init__(self, node: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened = threading.Event()
        self._real = node.objects.put
        self.refuses = False
        monkeypatch.setattr(node.objects, "put", self._put)

    def open(self) -> None:
        self.refuses = False
        self._opened.set()

    def _put(self, *arguments: Any) -> None:
        if self.refuses:
            raise ObjectStoreError("the store refuses: the test says so")
        assert self._opened.wait(PATIENCE)
        self._real(*arguments)


def test_an_instance_is_acknowledged_before_it_is_in_the_shared_store(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make()
    gate = Gate(node, monkeypatch)
    kept = node.keep("1.1")
    assert kept is not None
    assert kept.outcome is Outcome.STORED
    assert node.keys() == []
    gate.open()
    assert node.index.get("1.1") is not None
    assert node.has("1.1")


def test_what_a_crash_leaves_in_the_journal_is_put_at_the_next_start(
    tmp_path: Path, make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make()
    gate = Gate(node, monkeypatch)
    for uid in UIDS:
        assert node.keep(uid) is not None
    shutil.copytree(tmp_path / "one", tmp_path / "after", ignore=shutil.ignore_patterns("*.sock"))
    again = make("after")
    assert again.store.recovered == len(UIDS)
    assert all(map(again.has, UIDS))
    gate.open()


def test_a_second_start_finds_nothing_to_do(tmp_path: Path, make: Callable[..., Running]) -> None:
    node = make()
    for uid in UIDS:
        assert node.keep(uid) is not None
    node.index.settle()
    shutil.copytree(tmp_path / "one", tmp_path / "after")
    assert make("after").store.recovered == 0
    assert len(node.keys()) == len(UIDS)


def test_a_store_that_refuses_for_a_while_loses_nothing(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr(intakes, "_AGAIN", 0.01)
    node = make()
    gate = Gate(node, monkeypatch)
    gate.refuses = True
    assert node.keep("1.1") is not None
    eventually(lambda: bool(node.intake.figures().trouble), "the store refuses")
    for uid in UIDS[1:]:
        assert node.keep(uid) is not None
    assert node.intake.trouble() == ""  # more is taken
    node.index.settle()  # queries go on, and do not find it yet
    assert node.index.get("1.1") is None
    gate.open()
    eventually(lambda: len(node.index.standing(UIDS)) == len(UIDS), "all have rows")
    eventually(lambda: not node.intake.figures().trouble, "the trouble is over")
    assert all(map(node.has, UIDS))
    said = [each for each in lines if "received last" in each]
    assert len(said) == 2
    assert "the store refuses" in said[0]
    assert "now" in said[1]


def test_no_more_is_acknowledged_than_may_wait(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intakes, "SHARED_BACKLOG", 3)
    monkeypatch.setattr(intakes, "_AGAIN", 0.01)
    node = make()
    gate = Gate(node, monkeypatch)
    gate.refuses = True
    assert node.keep("1.1") is not None
    eventually(lambda: bool(node.intake.figures().trouble), "the store refuses")
    kept = [node.keep(uid) for uid in UIDS[1:]]
    assert [each is not None for each in kept] == [True, True, False]
    assert "the store refuses" in node.intake.trouble()
    gate.open()


@pytest.mark.parametrize("pixels", [100, 4000, 25_000])
def test_the_journal_has_room_for_all_that_may_wait(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    """A hundredth and less of everything: the octets, the instances, and the segments."""
    scale = 256
    monkeypatch.setattr(journals, "SEGMENT_SIZE", journals.SEGMENT_SIZE // scale)
    monkeypatch.setattr(intakes, "SHARED_BACKLOG_OCTETS", intakes.SHARED_BACKLOG_OCTETS // scale)
    monkeypatch.setattr(intakes, "SHARED_BACKLOG", intakes.SHARED_BACKLOG // scale)
    node = make()
    gate = Gate(node, monkeypatch)
    gate.refuses = True
    assert node.keep("1.1", ct("1.1", pixels)) is not None
    eventually(lambda: bool(node.intake.figures().trouble), "the store refuses")
    count = 1
    while node.keep(f"1.2.{count}", ct(f"1.2.{count}", pixels)) is not None:
        count += 1
    found = node.intake.figures()
    assert found.instances == count
    assert (
        count == intakes.SHARED_BACKLOG
        or found.octets > intakes.SHARED_BACKLOG_OCTETS - pixels - 2000
    )
    gate.open()
    eventually(lambda: not node.intake.figures().instances, "all is in the store")
    eventually(
        lambda: len(list((node.store.root / "journal").glob("*.segment"))) <= journals.SEGMENTS + 1,
        "the segments that are needed seldom are gone",
    )


def test_what_another_node_has_is_not_decided_by_the_journal(make: Callable[..., Running]) -> None:
    one, two = make("one"), make("two")
    assert one.keep("1.1") is not None
    one.index.settle()
    assert two.keep("1.1", ct("1.1", fill=9)) is None


def test_two_contents_that_two_nodes_acknowledge_are_both_kept(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    one, two = make("one"), make("two")
    gate = Gate(one, monkeypatch)
    assert one.keep("1.1", ct("1.1", fill=1)) is not None
    assert two.keep("1.1", ct("1.1", fill=2)) is not None
    two.index.settle()
    gate.open()
    one.index.settle()
    ref = one.index.get("1.1")
    assert ref is not None
    assert one.store.octets(ref.path, ref.size).endswith(ct("1.1", fill=2))
    (version,) = one.store.versions()
    assert one.store.objects.read(str(version.path), 0, version.size).endswith(ct("1.1", fill=1))
    (line,) = [each for each in lines if "kept aside" in each]
    assert "stored by another node" in line


def test_the_same_content_from_two_nodes_is_there_once(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = make("one"), make("two")
    gate = Gate(one, monkeypatch)
    assert one.keep("1.1") is not None
    assert two.keep("1.1") is not None
    two.index.settle()
    gate.open()
    one.index.settle()
    assert len(one.keys()) == 1
    assert list(one.store.versions()) == []


def crashed(tmp_path: Path, node: Running) -> None:
    """Keep the directory of a node as a crash would leave it: all is in the store, and the journal was not emptied."""
    node.index.settle()
    eventually(lambda: not node.intake.figures().instances, "all is in the store")
    shutil.copytree(tmp_path / "one", tmp_path / "after", ignore=shutil.ignore_patterns("*.sock"))


def test_what_another_node_has_deleted_does_not_come_back_after_a_crash(
    tmp_path: Path, make: Callable[..., Running]
) -> None:
    """A deleted instance is gone, although the journal of the node that had received it has it still."""
    one, two = make("one"), make("two")
    for uid in UIDS:
        assert one.keep(uid) is not None
    crashed(tmp_path, one)
    deleted = Deleter(two.store, two.index, two.intake.forget).delete_named(Level.IMAGE, "1.1")
    assert deleted.uids == ("1.1",)
    again = make("after")
    assert again.store.recovered == 0
    assert again.index.get("1.1") is None
    assert set(again.index.standing(UIDS[1:])) == set(UIDS[1:])


def test_what_another_node_has_replaced_is_no_version_after_a_crash(
    tmp_path: Path, make: Callable[..., Running]
) -> None:
    one, two = make("one"), make("two")
    assert one.keep("1.1", ct("1.1", fill=1)) is not None
    crashed(tmp_path, one)
    two.store.duplicates = Duplicates.REPLACE
    spool = two.store.spool(CT_IMAGE_STORAGE, "1.1", EXPLICIT.transfer_syntax, "SENDER")
    spool.write(ct("1.1", fill=2))
    assert two.store.keep_with_row(spool, two.intake.forget).outcome is Outcome.REPLACED
    again = make("after")
    assert list(again.store.versions()) == []
    ref = again.index.get("1.1")
    assert ref is not None
    assert again.store.octets(ref.path, ref.size).endswith(ct("1.1", fill=2))


def test_a_mark_that_the_disk_refuses_loses_nothing(
    tmp_path: Path, make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    node = make()

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "the test says so")

    monkeypatch.setattr(node.store.journal, "mark", refuse)
    assert node.keep("1.1") is not None
    crashed(tmp_path, node)
    assert [each for each in lines if "the disk refuses the journal" in each]
    assert make("after").has("1.1")


def test_a_damaged_object_does_not_hold_up_other_content(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """What is there cannot be compared, so what was acknowledged is kept aside."""
    one, two = make("one"), make("two")
    gate = Gate(one, monkeypatch)
    assert one.keep("1.1", ct("1.1", fill=1)) is not None
    assert two.keep("1.1", ct("1.1", fill=2)) is not None
    two.index.settle()
    path = one.objects.root / two.keys()[0]
    octets = bytearray(path.read_bytes())
    octets[-1] ^= 1
    path.write_bytes(octets)
    gate.open()
    one.index.settle()
    assert not one.intake.figures().trouble
    assert len(list(one.store.versions())) == 1


def test_a_row_that_the_index_refuses_does_not_hold_up_the_others(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    node = make()
    real = node.index.add_new

    def add_new(record: Any) -> Any:
        if record.sop_instance_uid == "1.2":
            record = None
        return real(record)

    monkeypatch.setattr(node.index, "add_new", add_new)
    for uid in UIDS:
        assert node.keep(uid) is not None
    node.index.settle()
    assert set(node.index.standing(UIDS)) == set(UIDS) - {"1.2"}
    assert [each for each in lines if "the index refuses its row" in each]
