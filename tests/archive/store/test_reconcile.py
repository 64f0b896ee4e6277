"""Files and index agree before anybody asks: RELIABILITY D5, D6."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netdicom_tx.archive.index.entries import Entry
from netdicom_tx.archive.index.index import Index, record_of
from netdicom_tx.archive.store import reconcile as module
from netdicom_tx.archive.store.filestore import FileStore
from netdicom_tx.archive.store.reconcile import Fault, Finding, reconcile, verify
from netdicom_tx.dsutils import part10_header
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.data_sets import CT_IMAGE_STORAGE, ct
from support.archive.databases import database_url


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    made = FileStore(tmp_path / "store", fsync=False)
    made.open()
    yield made
    made.close()


@pytest.fixture
def index(tmp_path: Path, store: FileStore) -> Iterator[Index]:
    with Index(database_url(tmp_path / "index.db"), root=store.root) as opened:
        yield opened


def keep(store: FileStore, uid: str, *, pixels: int = 512) -> Path:
    """A file of the store, as storing makes it."""
    path = store.path(uid)
    head = part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT_VR_LITTLE_ENDIAN)
    path.write_bytes(head + ct(uid, pixels))
    return path


def uids(index: Index) -> list[str]:
    return sorted(each.sop_instance_uid for each in index.entries())


def both(store: FileStore, index: Index, count: int = 5) -> list[str]:
    """Instances that are in both."""
    made = [f"1.2.{number}" for number in range(count)]
    for uid in made:
        index.add(record_of(keep(store, uid))).result(timeout=30)
    return made


def test_nothing_is_done_when_both_agree(
    store: FileStore, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fast at 100,000 instances: no file that has a row is opened."""
    both(store, index)

    def no(*arguments: object, **options: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(module, "record_of", no)
    done = reconcile(index, store)
    assert done.compared == 5
    assert done == module.Reconciled(compared=5)


def test_an_empty_archive_agrees(store: FileStore, index: Index) -> None:
    assert reconcile(index, store) == module.Reconciled()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [[0], [4], [0, 1, 2, 3, 4], [1, 3]])
def test_a_row_without_its_file_goes(store: FileStore, index: Index, lost: list[int]) -> None:
    made = both(store, index)
    gone = [made[number] for number in lost]
    for uid in gone:
        store.path(uid).unlink()
    done = reconcile(index, store)
    assert sorted(done.removed) == gone
    assert uids(index) == [uid for uid in made if uid not in gone]
    assert done.compared == 5 - len(lost)


def test_a_file_without_its_row_gets_one(store: FileStore, index: Index) -> None:
    """A crash between the rename and the commit."""
    made = both(store, index)
    new = [f"1.3.{number}" for number in range(5)]
    for uid in new:
        keep(store, uid)
    done = reconcile(index, store)
    assert sorted(done.indexed) == new
    assert uids(index) == sorted(made + new)
    ref = index.get("1.3.0")
    assert ref is not None
    assert ref.path == store.path("1.3.0")
    assert reconcile(index, store) == module.Reconciled(compared=10)


@pytest.mark.slow
def test_an_index_that_was_lost_is_made_again(store: FileStore, tmp_path: Path) -> None:
    made = [f"1.2.{number}" for number in range(600)]
    for uid in made:
        keep(store, uid, pixels=2)
    with Index(database_url(tmp_path / "new.db"), root=store.root) as index:
        assert len(reconcile(index, store).indexed) == 600
        assert uids(index) == sorted(made)


def test_a_file_of_another_size_is_read_again(store: FileStore, index: Index) -> None:
    """What a replacement leaves, when the crash comes before its row."""
    both(store, index)
    keep(store, "1.2.3", pixels=1024)
    done = reconcile(index, store)
    assert done.indexed == ["1.2.3"]
    assert reconcile(index, store).compared == 5


def test_a_file_that_became_useless_loses_its_row(store: FileStore, index: Index) -> None:
    """A power cut without fsync."""
    both(store, index)
    path = store.path("1.2.3")
    path.write_bytes(path.read_bytes()[:-10])
    done = reconcile(index, store)
    assert done.removed == ["1.2.3"]
    assert [each for each, _ in done.unreadable] == [path]
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"no DICOM", b"\0" * 200])
def test_a_file_that_is_no_instance_is_reported_and_left(
    store: FileStore, index: Index, content: bytes
) -> None:
    path = store.instances / "00" / "stranger.dcm"
    path.write_bytes(content)
    ((found, reason),) = reconcile(index, store).unreadable
    assert found == path
    assert reason
    assert path.read_bytes() == content
    assert uids(index) == []


def test_a_file_under_another_name_is_reported(store: FileStore, index: Index) -> None:
    """Two files of one instance would take the row from each other for ever."""
    keep(store, "1.2.3").rename(store.path("1.2.4"))
    ((path, reason),) = reconcile(index, store).unreadable
    assert path == store.path("1.2.4")
    assert "name" in reason
    assert uids(index) == []


def test_links_and_folders_are_not_followed(store: FileStore, index: Index, tmp_path: Path) -> None:
    """RELIABILITY case 60."""
    outside = tmp_path / "outside.dcm"
    keep(store, "1.2.3").rename(outside)
    store.path("1.2.3").symlink_to(outside)
    (store.instances / "00" / "folder").mkdir()
    (store.instances / "zz").symlink_to(tmp_path)
    (store.instances / "file").write_bytes(b"")
    assert reconcile(index, store) == module.Reconciled()


# -- digests ------------------------------------------------------------------------------------------------


def test_a_verified_archive_has_no_findings(store: FileStore, index: Index) -> None:
    both(store, index)
    assert list(verify(index)) == []


def test_findings_name_the_file_and_the_fault(store: FileStore, index: Index) -> None:
    both(store, index)
    store.path("1.2.1").unlink()
    path = store.path("1.2.2")
    octets = bytearray(path.read_bytes())
    octets[-1] ^= 1
    path.write_bytes(octets)
    store.path("1.2.3").write_bytes(b"")
    assert [(each.fault, each.sop_instance_uid, each.path) for each in verify(index)] == [
        (Fault.MISSING, "1.2.1", store.path("1.2.1")),
        (Fault.CHANGED, "1.2.2", path),
        (Fault.UNREADABLE, "1.2.3", store.path("1.2.3")),
    ]


def test_a_digest_that_nobody_computed_is_noted(store: FileStore, index: Index) -> None:
    path = keep(store, "1.2.1")
    reconcile(index, store)
    assert [each.digest for each in index.entries()] == [""]
    assert list(verify(index)) == []
    assert [each.digest for each in index.entries()] == [record_of(path).digest]


@pytest.mark.parametrize("pixels", [2, 512])
def test_without_a_digest_another_instance_is_noticed(
    store: FileStore, index: Index, pixels: int
) -> None:
    path = keep(store, "1.2.1")
    reconcile(index, store)
    keep(store, "1.2.2" if pixels == 512 else "1.2.1", pixels=pixels).rename(path)
    (finding,) = verify(index)
    assert finding.fault is Fault.CHANGED


@pytest.mark.slow
def test_an_archive_larger_than_a_page_is_verified(
    store: FileStore, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1100):
        keep(store, f"1.2.{number}", pixels=2)
    reconcile(index, store)
    store.path("1.2.1099").unlink()
    assert [each.sop_instance_uid for each in verify(index)] == ["1.2.1099"]


def test_what_is_deleted_while_its_file_is_read_is_no_finding(
    store: FileStore, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that runs may delete at any time."""
    index.add(record_of(keep(store, "1.2.3"))).result(timeout=30)
    real = module.examine

    def examine(entry: Entry) -> Finding | str | None:
        store.path("1.2.3").unlink()
        index.remove("1.2.3").result(timeout=30)
        return real(entry)

    monkeypatch.setattr(module, "examine", examine)
    assert list(verify(index)) == []
