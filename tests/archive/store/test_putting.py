"""Files of this machine are taken into a store that nodes share, beside its nodes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import Duplicates, Index
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store.filestore import InUseError
from netdicom_tx.archive.store.importing import Source, Taken, What, opened_for_import, put_files
from netdicom_tx.archive.store.objects import ObjectStoreError
from netdicom_tx.archive.store.reconcile import verify
from netdicom_tx.archive.store.sharedstore import SharedStore
from support.archive.archives import stored
from support.archive.data_sets import ct
from support.archive.groups import Member, shared_archive
from support.archive.part10_files import write

UID = "1.2.3"


class Importer:
    """A node of a group on whose directory no node runs."""

    def __init__(self, folder: Path, name: str = "importer", **options: Any) -> None:
        made = shared_archive(folder, name, **options)
        store, index = made.store, made.index
        assert isinstance(store, SharedStore)
        assert isinstance(index, Index)
        self.store, self.index = store, index

    def take(self, *paths: Path, jobs: int = 3, **options: Any) -> dict[str, Taken]:
        """What has become of files, by their names."""
        with opened_for_import(self.store, self.index), self.index:
            found = put_files(self.store, self.index, map(str, paths), jobs=jobs, **options)
            return {Path(each.path).name: each for each in found}


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    return Importer(tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Member]:
    """Another node of the group, which runs."""
    made = Member(tmp_path)
    yield made
    made.close()


def what(taken: dict[str, Taken]) -> dict[str, What]:
    return {name: each.what for name, each in taken.items()}


def test_files_become_objects_with_rows_that_other_nodes_find(
    importer: Importer, node: Member, tmp_path: Path
) -> None:
    files = [write(tmp_path / "in" / f"{number}.dcm", f"1.{number}") for number in range(20)]
    before = [each.read_bytes() for each in files]
    assert set(what(importer.take(*files)).values()) == {What.STORED}
    assert len(node.keys()) == 20
    assert all(node.data(f"1.{number}") for number in range(20))
    assert list(verify(node.index)) == []
    assert [each.read_bytes() for each in files] == before
    assert [each.name for each in importer.store.incoming.iterdir()] == ["lock"]


def test_what_is_there_is_passed_over(importer: Importer, node: Member, tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", UID)
    assert what(importer.take(file)) == {"a.dcm": What.STORED}
    assert what(importer.take(file)) == {"a.dcm": What.SAME}
    assert len(node.keys()) == 1


def test_one_instance_that_is_there_many_times_is_stored_once(
    importer: Importer, node: Member, tmp_path: Path
) -> None:
    files = [write(tmp_path / f"{number}.dcm", UID) for number in range(12)]
    found = list(what(importer.take(*files, jobs=6)).values())
    assert found.count(What.STORED) == 1
    assert found.count(What.SAME) == 11
    assert len(set(node.keys()) - set(node.pending())) == 1


@pytest.mark.parametrize(
    ("rule", "becomes"),
    [
        (Duplicates.KEEP, What.REFUSED),
        (Duplicates.REPLACE, What.REPLACED),
        (Duplicates.KEEP_BOTH, What.ASIDE),
    ],
)
def test_other_content_is_decided_as_if_it_was_sent(
    tmp_path: Path, node: Member, rule: Duplicates, becomes: What
) -> None:
    assert stored(node.sender(), ct(UID)) == 0x0000
    importer = Importer(tmp_path, duplicates=rule)
    assert what(importer.take(write(tmp_path / "a.dcm", UID))) == {"a.dcm": becomes}


def test_a_large_file_is_stored(importer: Importer, node: Member, tmp_path: Path) -> None:
    from netdicom_tx.dsutils import part10_header
    from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT

    data = ct(UID, pixels=5 << 20)
    file = tmp_path / "large.dcm"
    file.write_bytes(part10_header(CT_IMAGE_STORAGE, UID, EXPLICIT.transfer_syntax) + data)
    assert what(importer.take(file)) == {"large.dcm": What.STORED}
    assert (node.data() or b"").endswith(data)


def test_what_is_not_an_instance_is_skipped_or_named(importer: Importer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text")
    cut = write(tmp_path / "cut.dcm", UID)
    cut.write_bytes(cut.read_bytes()[:-3])
    taken = importer.take(tmp_path / "a.txt", cut, tmp_path / "absent.dcm")
    assert what(taken) == {"a.txt": What.SKIPPED, "cut.dcm": What.FAILED, "absent.dcm": What.FAILED}
    assert taken["cut.dcm"].reason


def test_moved_files_are_removed_when_they_are_there(
    importer: Importer, node: Member, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.dcm", UID)
    assert importer.take(file, source=Source.MOVE)["a.dcm"].is_removed
    assert not file.exists()
    assert node.data() is not None


def test_the_objects_of_the_store_are_never_moved_into_it(
    importer: Importer, node: Member, tmp_path: Path
) -> None:
    assert stored(node.sender(), ct(UID)) == 0x0000
    (key,) = node.keys()
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    (tmp_path / "second.dcm").hardlink_to(tmp_path / "shared" / key)
    paths = (tmp_path / "shared" / key, tmp_path / "link" / key, tmp_path / "second.dcm")
    taken = importer.take(*paths, source=Source.MOVE)
    assert set(what(taken).values()) == {What.SKIPPED}
    assert all(each.exists() for each in paths)


def test_a_store_that_does_not_answer_ends_the_import(
    importer: Importer, node: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise ObjectStoreError("the store is away")

    file = write(tmp_path / "a.dcm", UID)
    with monkeypatch.context() as patch:
        patch.setattr(importer.store.objects, "put", away)
        with pytest.raises(ObjectStoreError, match="is away"):
            importer.take(file, source=Source.MOVE)
    assert file.exists()
    assert node.data() is None
    assert what(importer.take(file)) == {"a.dcm": What.STORED}


def test_a_database_that_does_not_answer_ends_the_import(
    importer: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise IndexUnavailableError("away")

    monkeypatch.setattr(importer.index, "standing", away)
    with pytest.raises(IndexUnavailableError):
        importer.take(write(tmp_path / "a.dcm", UID))


def test_a_value_that_the_database_refuses_concerns_its_file_only(
    importer: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_new: Callable[..., Any] = importer.index.add_new

    def refused(record: Any) -> Any:
        if record.sop_instance_uid == UID:
            raise IndexUnavailableError("it is too long")
        return add_new(record)

    monkeypatch.setattr(importer.index, "add_new", refused)
    files = [write(tmp_path / "a.dcm", UID), write(tmp_path / "b.dcm", "1.2.4")]
    taken = importer.take(*files)
    assert what(taken) == {"a.dcm": What.FAILED, "b.dcm": What.STORED}
    assert taken["a.dcm"].reason == "it is too long"


def test_an_import_beside_the_node_uses_its_directory_without_its_cache(
    tmp_path: Path, node: Member
) -> None:
    node.close()
    running = Member(tmp_path, "importer", cache=1 << 20)
    importer = Importer(tmp_path, cache=1 << 20)
    part = tmp_path / "importer" / "cache" / "1-1.part"
    part.write_bytes(b"being fetched")
    assert what(importer.take(write(tmp_path / "a.dcm", UID))) == {"a.dcm": What.STORED}
    assert part.exists()
    assert running.data() is not None
    with pytest.raises(InUseError, match="cannot replace instances"):
        Importer(tmp_path, duplicates=Duplicates.REPLACE).take(tmp_path / "a.dcm")
    running.close()


def test_what_is_to_be_deleted_is_stored_again(
    importer: Importer, node: Member, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.dcm", UID)
    importer.take(file)
    node.ae.deleter.delete_named(Level.IMAGE, UID)
    assert what(importer.take(file)) == {"a.dcm": What.STORED}
    assert node.pending() == []
