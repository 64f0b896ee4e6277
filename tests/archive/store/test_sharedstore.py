"""Instances in a shared store: acknowledged when object and row are there, whichever node is asked."""

import errno
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import Duplicates, StorageError
from netdicom_tx.archive.index import withdrawal
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store import deletion as deletions
from netdicom_tx.archive.store import disk, fetching, sharedstore
from netdicom_tx.archive.store.objects import DirectoryObjects, ObjectMissingError, ObjectStoreError
from netdicom_tx.archive.store.sharedstore import SharedStore, key_of
from support.archive import databases
from support.archive.archives import stored
from support.archive.data_sets import EXPLICIT, ct
from support.archive.groups import Member, shared_archive

SUCCESS, DUPLICATE, NO_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = (
    0x0000,
    0x0111,
    0xA700,
    0xA900,
    0xC000,
)
UID = "1.2.3"
ONE, TWO = ct(UID, fill=1), ct(UID, fill=2)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path)
    yield made
    made.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Member]]:
    """Makes nodes of one group."""
    made: list[Member] = []

    def member(name: str = "one", **options: Any) -> Member:
        made.append(Member(tmp_path, name, **options))
        return made[-1]

    yield member
    for each in made:
        each.close()


def test_an_instance_is_an_object_and_a_row(node: Member) -> None:
    assert stored(node.sender(), ONE) == SUCCESS
    (key,) = node.keys()
    ref = node.index.get(UID)
    assert ref is not None
    assert str(ref.path) == key
    assert ref.files is node.store
    assert (node.data() or b"").endswith(ONE)
    assert list(node.store.incoming.iterdir()) == []


def test_another_node_finds_and_reads_it(make: Callable[..., Member]) -> None:
    assert stored(make("one").sender(), ONE) == SUCCESS
    assert (make("two").data() or b"").endswith(ONE)


def test_a_large_instance_is_an_object(node: Member) -> None:
    large = ct(UID, pixels=5 << 20)
    assert stored(node.sender(), large) == SUCCESS
    assert (node.data() or b"").endswith(large)
    assert list(node.store.incoming.iterdir()) == []


def test_the_same_content_is_there_once(make: Callable[..., Member]) -> None:
    one, two = make("one"), make("two")
    assert stored(one.sender(), ONE) == SUCCESS
    assert stored(one.sender(), ONE) == SUCCESS
    assert stored(two.sender(), ONE) == SUCCESS
    assert len(one.keys()) == 1


def test_other_content_is_refused(make: Callable[..., Member]) -> None:
    one, two = make("one"), make("two")
    assert stored(one.sender(), ONE) == SUCCESS
    assert stored(two.sender(), TWO) == DUPLICATE
    assert (one.data() or b"").endswith(ONE)
    assert len(one.keys()) == 1


def test_other_content_replaces_what_is_there(make: Callable[..., Member]) -> None:
    one, two = make("one"), make("two", duplicates=Duplicates.REPLACE)
    assert stored(one.sender(), ONE) == SUCCESS
    (former,) = one.keys()
    assert stored(two.sender(), TWO) == SUCCESS
    assert (one.data() or b"").endswith(TWO)
    assert one.pending() == [former]


def test_other_content_is_kept_aside(make: Callable[..., Member]) -> None:
    one, two = make("one"), make("two", duplicates=Duplicates.KEEP_BOTH)
    assert stored(one.sender(), ONE) == SUCCESS
    for _ in range(2):
        assert stored(two.sender(), TWO) == SUCCESS
    assert (one.data() or b"").endswith(ONE)
    (version,) = one.store.versions()
    assert version.sop_instance_uid == UID
    assert one.keys("versions/") == [str(version.path)]
    one.store.drop(version)
    assert list(two.store.versions()) == []


def test_no_more_versions_are_kept_than_the_limit(
    make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharedstore, "VERSION_LIMIT", 2)
    node = make(duplicates=Duplicates.KEEP_BOTH)
    statuses = [stored(node.sender(), ct(UID, fill=fill)) for fill in range(4)]
    assert statuses == [SUCCESS, SUCCESS, SUCCESS, DUPLICATE]


def test_another_instance_than_announced_is_refused(node: Member) -> None:
    assert stored(node.sender(), ONE, "1.2.4") == MISMATCH
    assert node.keys() == []


def test_a_cut_data_set_is_refused(node: Member) -> None:
    assert stored(node.sender(), ONE[:-3]) == CANNOT_UNDERSTAND
    assert node.keys() == []


@pytest.mark.parametrize("fill", [1, 2], ids=["the same content", "other content"])
def test_another_node_may_be_faster(
    make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch, fill: int
) -> None:
    """Two nodes receive one SOP Instance UID at once: the row decides, and the loser decides again."""
    one, two = make("one"), make("two")
    real = one.store.objects.put

    def put(*arguments: Any) -> None:
        monkeypatch.undo()
        assert stored(two.sender(), ct(UID, fill=fill)) == SUCCESS
        real(*arguments)

    monkeypatch.setattr(one.store.objects, "put", put)
    assert stored(one.sender(), ONE) == (SUCCESS if fill == 1 else DUPLICATE)
    ref = one.index.get(UID)
    assert ref is not None
    assert set(one.keys()) - set(one.pending()) == {str(ref.path)}


def test_an_instance_that_another_node_replaces_at_once_is_decided_again(
    make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make("one", duplicates=Duplicates.REPLACE)
    two = make("two", duplicates=Duplicates.REPLACE)
    assert stored(one.sender(), ct(UID, fill=9)) == SUCCESS
    real = one.store.objects.put

    def put(*arguments: Any) -> None:
        monkeypatch.undo()
        assert stored(two.sender(), TWO) == SUCCESS
        real(*arguments)

    monkeypatch.setattr(one.store.objects, "put", put)
    assert stored(one.sender(), ONE) == SUCCESS
    assert (two.data() or b"").endswith(ONE)
    assert len(set(one.keys()) - set(one.pending())) == 1


# -- deletion ----------------------------------------------------------------------------------------


def delete(node: Member) -> None:
    assert node.ae.deleter.delete_named(Level.IMAGE, UID).waiting == 1


def test_an_object_stays_a_while_after_its_row(make: Callable[..., Member]) -> None:
    node = make()
    assert stored(node.sender(), ONE) == SUCCESS
    delete(node)
    assert node.data() is None
    assert node.ae.deleter.finish() == 0
    assert node.keys() == node.pending() != []


def test_an_object_goes_when_its_time_has_come(make: Callable[..., Member]) -> None:
    node = make(grace=0)
    assert stored(node.sender(), ONE) == SUCCESS
    delete(node)
    assert node.ae.deleter.finish() == 1
    assert node.keys() == node.pending() == []


def test_an_instance_that_comes_again_is_not_deleted(make: Callable[..., Member]) -> None:
    node = make(grace=0)
    assert stored(node.sender(), ONE) == SUCCESS
    delete(node)
    assert stored(node.sender(), ONE) == SUCCESS
    assert node.ae.deleter.finish() == 0
    assert (node.data() or b"").endswith(ONE)


def test_an_instance_that_comes_while_it_is_deleted_stays(
    make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is gone, and the same octets are put, before the list has the object."""
    one, two = make("one"), make("two")
    real = one.store.objects.put

    def put(*arguments: Any) -> None:
        real(*arguments)
        monkeypatch.undo()
        assert stored(two.sender(), ONE) == SUCCESS
        delete(two)

    monkeypatch.setattr(one.store.objects, "put", put)
    assert stored(one.sender(), ONE) == SUCCESS
    assert one.pending() == []


def test_a_deletion_that_was_interrupted_goes_on(make: Callable[..., Member]) -> None:
    node = make(grace=0)
    assert stored(node.sender(), ONE) == SUCCESS
    with node.index.reading() as reading:
        chosen = withdrawal.choose(reading, Level.IMAGE, UID)
    node.index.withdraw(chosen).result()
    assert node.ae.deleter.finish_all() == 0
    assert node.ae.deleter.finish() == 1
    assert node.keys() == []


def test_objects_stay_on_the_list_while_the_store_refuses(
    make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make(grace=0)
    assert stored(node.sender(), ONE) == SUCCESS
    delete(node)
    with monkeypatch.context() as patch:
        patch.setattr(node.store.objects, "delete", refuse)
        with pytest.raises(ObjectStoreError):
            node.ae.deleter.finish()
    assert node.keys() == node.pending()
    assert node.ae.deleter.finish() == 1


def test_a_node_that_was_suspended_while_it_deleted_deletes_no_more(
    make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has ended its transaction meanwhile, so another node may have stored the same octets again."""
    monkeypatch.setattr(databases, "_chosen", "postgresql")
    monkeypatch.setattr(deletions, "_BETWEEN", 1)
    node = make(grace=0)
    uids = ["1.1", "1.2", "1.3"]
    sender = node.sender()
    for uid in uids:
        assert stored(sender, ct(uid), uid) == SUCCESS
        node.ae.deleter.delete_named(Level.IMAGE, uid)
    ends = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    )
    right = node.store.objects.delete

    def suspended(keys: Sequence[str]) -> None:
        right(keys)
        node.index.write_apart(lambda connection: connection.exec_driver_sql(ends).all())

    with monkeypatch.context() as patch:
        patch.setattr(node.store.objects, "delete", suspended)
        with pytest.raises(IndexUnavailableError):
            node.ae.deleter.finish()
    assert len(node.keys()) == 2
    assert len(node.pending()) == 3
    assert node.ae.deleter.finish() == 3
    assert node.keys() == node.pending() == []


# -- faults ------------------------------------------------------------------------------------------


def refuse(*_: Any) -> None:
    raise ObjectStoreError("the store refuses: the test says so")


def test_a_store_that_refuses_is_answered_with_a700(
    node: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(node.store.objects, "put", refuse)
        assert stored(node.sender(), ONE) == NO_RESOURCES
    assert node.data() is None
    assert stored(node.sender(), ONE) == SUCCESS


def test_an_index_that_refuses_leaves_nothing_to_be_found(
    node: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_row(*_: Any) -> None:
        raise IndexUnavailableError("the index refuses")

    with monkeypatch.context() as patch:
        patch.setattr(node.index, "add_new", no_row)
        assert stored(node.sender(), ONE) == NO_RESOURCES
    assert node.data() is None
    assert stored(node.sender(), ONE) == SUCCESS


def test_an_object_that_was_lost_is_put_again(node: Member) -> None:
    assert stored(node.sender(), ONE) == SUCCESS
    node.store.objects.delete(node.keys())
    with pytest.raises(ObjectMissingError):
        node.data()
    assert stored(node.sender(), ONE) == SUCCESS
    assert (node.data() or b"").endswith(ONE)


def test_other_content_takes_the_place_of_a_lost_object(node: Member) -> None:
    assert stored(node.sender(), ONE) == SUCCESS
    node.store.objects.delete(node.keys())
    assert stored(node.sender(), TWO) == SUCCESS
    assert (node.data() or b"").endswith(TWO)


def test_a_damaged_object_is_not_read(node: Member) -> None:
    assert stored(node.sender(), ONE) == SUCCESS
    (key,) = node.keys()
    octets = bytearray(node.store.objects.read(key, 0, node.store.objects.size(key)))
    octets[-1] ^= 1
    node.store.objects.put(key, [octets], len(octets))
    with pytest.raises(ObjectStoreError, match="is damaged"):
        node.data()


@pytest.mark.parametrize("found_by", ["a retrieve", "the scrub"])
def test_a_damaged_object_is_mended_when_its_octets_come_again(node: Member, found_by: str) -> None:
    assert stored(node.sender(), ONE) == SUCCESS
    (key,) = node.keys()
    size = node.store.objects.size(key)
    node.store.objects.put(key, [bytes(size)], size)
    if found_by == "the scrub":
        with pytest.raises(ValueError, match="its digest"):
            node.store.digest(Path(key), size, lambda: None)
    else:
        with pytest.raises(ObjectStoreError, match="is damaged"):
            node.data()
    assert stored(node.sender(), ONE) == SUCCESS
    assert (node.data() or b"").endswith(ONE)


def test_an_object_that_was_cut_is_replaced_by_what_comes(node: Member) -> None:
    assert stored(node.sender(), ONE) == SUCCESS
    (key,) = node.keys()
    size = node.store.objects.size(key)
    node.store.objects.put(key, [bytes(size - 2)], size - 2)
    assert stored(node.sender(), TWO) == SUCCESS
    assert (node.data() or b"").endswith(TWO)


def test_a_key_names_the_instance_and_its_octets() -> None:
    key = key_of(UID, "ab" * 32)
    assert key.startswith("instances/c4/c47f5b18")
    assert key.endswith("-" + "ab" * 16 + ".dcm")


def test_a_shared_store_needs_an_index(tmp_path: Path) -> None:
    from netdicom_tx.archive import ArchiveAE

    store = SharedStore(tmp_path / "one", DirectoryObjects(tmp_path))
    with pytest.raises(StorageError, match="needs an index"):
        ArchiveAE("NODE", store)


def test_a_store_that_is_away_is_told_at_the_start(tmp_path: Path) -> None:
    ae = shared_archive(tmp_path, objects=DirectoryObjects(tmp_path / "away"))
    with pytest.raises(StorageError, match="mount it, or create it once"):
        ae.start()


def test_encodings_are_kept_as_they_come(node: Member) -> None:
    assert stored(node.sender(), ct(UID, encoding=EXPLICIT)) == SUCCESS
    ref = node.index.get(UID)
    assert ref is not None
    assert ref.transfer_syntax == EXPLICIT.transfer_syntax


def test_a_large_object_is_read_in_pieces(node: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    large = ct(UID, pixels=8 << 20)
    assert stored(node.sender(), large) == SUCCESS
    monkeypatch.setattr(fetching, "PIECE", 1 << 16)
    ref = node.index.get(UID)
    assert ref is not None
    tracemalloc.start()
    try:
        with node.store.file(ref.path, ref.size) as file:
            assert file.seek(0, 2) == ref.size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_directory_of_the_node_says_where_its_instances_are(node: Member) -> None:
    mark = node.store.root / sharedstore.MARK
    assert mark.read_text("utf-8") == f"{node.store.objects.place}\n"


def test_what_is_done_with_the_store_is_counted(
    node: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored(node.sender(), ONE) == SUCCESS
    assert node.data() is not None
    with monkeypatch.context() as patch:
        patch.setattr(node.store.objects, "put", refuse)
        assert stored(node.sender(), ct("1.2.4"), "1.2.4") == NO_RESOURCES
    figures = node.store.figures()
    assert (figures.put, figures.read, figures.failures) == (2, 1, 1)
    assert node.ae.observations.shared is not None
    assert node.ae.observations.shared()["place"] == node.store.objects.place


@pytest.mark.parametrize("has_copies", [True, False])
def test_a_full_disk_is_told_unless_the_cache_can_make_room(
    make: Callable[..., Member], monkeypatch: pytest.MonkeyPatch, has_copies: bool
) -> None:
    node = make(cache=8 << 20)
    large = ct(UID, pixels=5 << 20)
    assert stored(node.sender(), large) == SUCCESS
    assert stored(node.sender(), ct("1.2.4"), "1.2.4") == SUCCESS
    if has_copies:
        assert node.data("1.2.4") is not None

    def full(descriptor: int, octets: Any) -> int:
        if node.store.cache.octets or not has_copies:
            raise OSError(errno.ENOSPC, "No space left on device")
        return disk.write_all(descriptor, octets)

    monkeypatch.setattr("netdicom_tx.archive.store.fetching.write_all", full)
    if has_copies:
        assert (node.data() or b"").endswith(large)
    else:
        with pytest.raises(ObjectStoreError, match="make room on that disk"):
            node.data()
    assert not list((node.store.root / "cache").glob("*.part"))
