"""Objects of a shared store that no row has, because a node was killed between the two."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from netdicom_tx.archive.index.schema import Level, deletion
from netdicom_tx.archive.store import inventory as inventories
from netdicom_tx.archive.store.inventory import Inventoried, Inventory, compare
from netdicom_tx.archive.store.objects import ObjectStoreError
from netdicom_tx.archive.store.reconcile import Fault, verify
from netdicom_tx.archive.store.sharedstore import key_of
from netdicom_tx.dsutils import part10_header
from support.archive import databases
from support.archive.archives import stored
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.archive.groups import Member
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture

UID = "1.2.3"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path)
    yield made
    made.close()


def leave(node: Member, uid: str = UID, fill: int = 7) -> str:
    """Put an object without a row, as a node does that is killed then; its key."""
    header = part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax)
    octets = header + ct(uid, fill=fill)
    key = key_of(uid, hashlib.sha256(octets).hexdigest())
    node.store.objects.put(key, [octets], len(octets))
    return key


def test_an_object_without_a_row_gets_one(node: Member) -> None:
    leave(node)
    assert compare(node.store, node.index, age=0) == Inventoried(compared=1, indexed=1)
    assert (node.data() or b"").endswith(ct(UID))
    assert compare(node.store, node.index, age=0) == Inventoried(compared=1)


def test_a_young_object_is_left_alone(node: Member) -> None:
    leave(node)
    assert compare(node.store, node.index) == Inventoried(compared=1)
    assert node.data() is None


def test_an_object_is_young_by_the_clock_that_all_nodes_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this machine may jump while another node is about to write the row."""
    monkeypatch.setattr(databases, "_chosen", "postgresql")
    node = Member(tmp_path)
    leave(node)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 86400)
    assert compare(node.store, node.index) == Inventoried(compared=1)
    node.close()


def test_an_object_that_does_not_count_is_to_be_deleted(node: Member) -> None:
    assert stored(node.sender(), ct(UID, fill=1)) == 0x0000
    key = leave(node, fill=2)
    assert compare(node.store, node.index, age=0) == Inventoried(compared=2, given_up=1)
    assert node.pending() == [key]
    assert compare(node.store, node.index, age=0) == Inventoried(compared=2)


def test_what_is_being_deleted_gets_no_row(node: Member) -> None:
    assert stored(node.sender(), ct(UID)) == 0x0000
    node.ae.deleter.delete_named(Level.IMAGE, UID)
    assert compare(node.store, node.index, age=0) == Inventoried(compared=1)
    assert node.data() is None


def test_what_is_not_an_instance_stays(node: Member) -> None:
    key = leave(node)
    node.store.objects.put(key, [b"something else"], 14)
    node.store.objects.put("instances/00/readme.txt", [b"of another program"], 18)
    assert compare(node.store, node.index, age=0) == Inventoried(compared=2, unreadable=1)
    assert key in set(node.keys())


def test_a_damaged_object_does_not_hold_up_the_others(node: Member) -> None:
    key = leave(node)
    (whole,) = node.store.objects.list("instances/")
    node.store.objects.put(key, [bytes(whole.size)], whole.size)
    damaged = leave(node, "1.2.4")
    (octets,) = (
        node.store.objects.read(damaged, 0, each.size)
        for each in node.store.objects.list("instances/")
        if each.key == damaged
    )
    node.store.objects.put(damaged, [octets[:-2], b"\1\1"], len(octets))
    leave(node, "1.2.5")
    assert compare(node.store, node.index, age=0) == Inventoried(
        compared=3, indexed=1, unreadable=2
    )


def test_no_row_goes_because_its_object_is_missing(
    node: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored(node.sender(), ct(UID)) == 0x0000
    node.store.objects.delete(node.keys())
    assert compare(node.store, node.index, age=0) == Inventoried()
    assert node.index.get(UID) is not None


def test_a_row_of_an_older_database_gets_the_object_that_replaced_its_own(node: Member) -> None:
    assert stored(node.sender(), ct(UID, fill=1)) == 0x0000
    (former,) = node.keys()
    key = leave(node, fill=2)
    node.store.objects.delete([former])
    assert compare(node.store, node.index, age=0) == Inventoried(compared=1, indexed=1)
    assert (node.data() or b"").endswith(ct(UID, fill=2))
    assert node.pending() == [former]
    assert node.keys() == [key]


@pytest.mark.parametrize("is_put_again", [True, False])
def test_what_was_put_again_after_a_restored_list_was_written_stays(
    node: Member, is_put_again: bool
) -> None:
    assert stored(node.sender(), ct(UID)) == 0x0000
    (key,) = node.keys()
    node.ae.deleter.delete_named(Level.IMAGE, UID)
    long_ago = time.time() - 7200
    overdue = deletion.update().values(generation=int(long_ago))
    node.index.write(lambda connection: connection.execute(overdue).rowcount).result()
    if not is_put_again:
        written = long_ago - 2 * node.store.grace
        os.utime(Path(node.store.objects.place) / key, (written, written))
    node.ae.deleter.finish()
    assert node.keys() == ([key] if is_put_again else [])
    assert node.pending() == []
    assert compare(node.store, node.index, age=0).indexed == is_put_again


def test_when_rows_were_lost_what_does_not_count_is_kept_aside(node: Member) -> None:
    assert stored(node.sender(), ct(UID, fill=1)) == 0x0000
    key = leave(node, fill=2)
    for _ in range(2):
        compare(node.store, node.index, age=0, keeps_all=True)
    (version,) = node.store.versions()
    with node.store.version(version) as file:
        assert file.read().endswith(ct(UID, fill=2))
    assert node.pending() == [key]


@pytest.mark.parametrize("pixels", [512, 5 << 20])
def test_no_more_of_an_object_is_read_than_its_row_needs(
    node: Member, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored(node.sender(), ct(UID, pixels=pixels)) == 0x0000
    before = node.index.get(UID)
    (entry,) = node.index.entries()
    node.index.remove(UID).result()
    read = node.store.objects.read
    octets = 0

    def counted(key: str, start: int, end: int) -> bytes:
        nonlocal octets
        octets += end - start
        return read(key, start, end)

    with monkeypatch.context() as patch:
        patch.setattr(node.store.objects, "read", counted)
        assert compare(node.store, node.index, age=0, jobs=3).indexed == 1
    assert octets <= 1 << 17
    assert node.index.get(UID) == before
    assert list(verify(node.index)) == []
    assert next(node.index.entries()).digest == entry.digest


def test_of_fragments_only_what_is_in_front_is_read(node: Member) -> None:
    header = part10_header(CT_IMAGE_STORAGE, UID, JPEG_BASELINE)
    frame = b"\xff\xd8" + bytes(400_000)
    pixels = (
        b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0"
        + len(frame).to_bytes(4, "little")
        + frame
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )
    data = ct(UID)
    octets = header + data[: data.index(b"\xe0\x7f\x10\x00")] + pixels
    key = key_of(UID, hashlib.sha256(octets).hexdigest())
    node.store.objects.put(key, [octets], len(octets))
    assert compare(node.store, node.index, age=0).indexed == 1
    assert list(verify(node.index)) == []
    ref = node.index.get(UID)
    assert ref is not None
    assert ref.transfer_syntax == JPEG_BASELINE


def test_a_damaged_object_is_named(node: Member) -> None:
    key = leave(node)
    octets = node.store.objects.read(key, 0, node.store.objects.size(key))
    changed = octets[:-1] + b"x"
    node.store.objects.put(key, [changed], len(changed))
    named: list[tuple[str, str]] = []
    compare(node.store, node.index, age=0, unreadable=lambda *each: named.append(each))
    assert [each for each, _ in named] == [key]
    assert node.data() is None


def test_many_objects_are_verified_at_a_time(node: Member) -> None:
    uids = [f"1.2.{number}" for number in range(30)]
    for uid in uids:
        assert stored(node.sender(), ct(uid), uid) == 0x0000
    keys = [str(each.path) for each in node.index.entries()]
    node.store.objects.delete([keys[3], keys[29]])
    found = list(verify(node.index, jobs=4))
    assert [str(each.path) for each in found] == [keys[3], keys[29]]
    assert {each.fault for each in found} == {Fault.MISSING}


def test_a_store_that_does_not_answer_is_not_a_damaged_object(
    node: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored(node.sender(), ct(UID)) == 0x0000

    def away(*_: Any) -> Any:
        raise ObjectStoreError("the store is away")

    monkeypatch.setattr(node.store.objects, "read", away)
    with pytest.raises(ObjectStoreError, match="is away"):
        list(verify(node.index, jobs=4))


def test_the_digest_of_a_large_object_is_compared_with_its_key(node: Member) -> None:
    assert stored(node.sender(), ct(UID, pixels=5 << 20)) == 0x0000
    (key,) = node.keys()
    node.index.remove(UID).result()
    compare(node.store, node.index, age=0)
    size = node.store.objects.size(key)
    node.store.objects.put(key, [node.store.objects.read(key, 0, size - 1), b"x"], size)
    (finding,) = verify(node.index)
    assert finding.fault is Fault.CHANGED
    assert next(node.index.entries()).digest == ""


def test_the_rows_of_a_large_index_are_read_in_parts(
    node: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventories, "_ROWS", 3)
    sender = node.sender()
    uids = [f"1.2.{number}" for number in range(12)]
    for uid in uids:
        assert stored(sender, ct(uid), uid) == 0x0000
    leave(node, "1.3")
    assert compare(node.store, node.index, age=0) == Inventoried(compared=13, indexed=1)


def test_the_service_tells_what_it_has_done(node: Member, lines: list[str]) -> None:
    clock = Clock()
    service = Inventory(node.store, node.index, clock, first=5, period=10, age=0, threads=0)
    service.startService()
    leave(node)
    clock.advance(5)
    (line,) = lines
    assert line.startswith("of 1 objects 1 had no row and got one")
    clock.advance(10)
    assert len(lines) == 1
    service.stopService()


def test_the_service_does_nothing_without_its_duty(node: Member) -> None:
    clock = Clock()
    service = Inventory(
        node.store, node.index, clock, first=5, age=0, holds=lambda: False, threads=0
    )
    service.startService()
    leave(node)
    clock.advance(5)
    assert node.data() is None
    service.stopService()


def test_a_listing_that_fails_changes_nothing(
    node: Member, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    def away(*_: Any) -> Any:
        raise ObjectStoreError("the store is away")

    clock = Clock()
    service = Inventory(node.store, node.index, clock, first=5, age=0, threads=0)
    service.startService()
    leave(node)
    with monkeypatch.context() as patch:
        patch.setattr(node.store.objects, "list", away)
        clock.advance(5)
    assert "the store is away; nothing was changed" in lines[0]
    clock.advance(600)
    assert node.data() is not None
    service.stopService()
