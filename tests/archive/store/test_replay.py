"""Journals of several workers: what each has acknowledged is made files, by the next start or while others run."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive import ArchiveAE, FileStore, Index
from netdicom_tx.archive.index import withdrawal
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.index.record import record_of
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.shared import Shared
from netdicom_tx.archive.store.filestore import StorageError
from netdicom_tx.archive.store.indexing import index_noted
from netdicom_tx.archive.store.journal import Entry
from netdicom_tx.archive.store.keeping import keep_with_row
from netdicom_tx.archive.workflow.outbound import RUNNING, WAITING, owner_of
from netdicom_tx.dsutils import part10_header
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.archive.databases import PostgreSQL
from support.processes import eventually

UID = "1.2.3.4"


def file_of(uid: str, fill: int = 7) -> bytes:
    return part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax) + ct(uid, fill=fill)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    """The store of the lead."""
    store = FileStore(tmp_path / "archive", fsync=False)
    store.share(Shared.create())
    store.open()
    yield store
    store.close()


def journalled(store: FileStore, worker: int, *files: bytes) -> None:
    """A worker has acknowledged some instances, and has died."""
    (store.root / "journal" / str(worker)).mkdir(exist_ok=True)
    journal = store.journal_of(worker)
    journal.append([Entry(each, sha256(each).digest()) for each in files])
    journal.close()


@contextmanager
def claimed(uid: str) -> Iterator[None]:
    yield


def replayed(store: FileStore) -> list[Path]:
    """The files of the first worker."""
    found = list(store.replay(1, claimed))
    for path, uid, digest in found:
        assert path == store.path(uid)
        assert digest == f"sha256:{sha256(path.read_bytes()).hexdigest()}"
    return [each.path for each in found]


def versions(store: FileStore) -> list[bytes]:
    return [each.path.read_bytes() for each in store.versions()]


def test_the_start_makes_the_files_of_all_journals(store: FileStore) -> None:
    """Whatever the number of workers is now."""
    journalled(store, 1, file_of("1.1"))
    journalled(store, 7, file_of("1.7"), file_of("1.8"))
    store.close()
    alone = FileStore(store.root, fsync=False)
    alone.open()
    assert alone.recovered == 3
    assert alone.path("1.1").read_bytes() == file_of("1.1")
    assert alone.path("1.8").read_bytes() == file_of("1.8")
    assert alone.conflicts == []
    alone.close()
    alone.open()
    assert alone.recovered == 0
    alone.close()


def test_two_data_sets_of_one_uid_are_both_kept_by_a_start(store: FileStore) -> None:
    """Both were acknowledged: the second worker did not know of the first, which had just died."""
    journalled(store, 1, file_of(UID, fill=1))
    journalled(store, 2, file_of(UID, fill=2))
    store.close()
    store.open()
    assert store.path(UID).read_bytes() == file_of(UID, fill=2)
    assert versions(store) == [file_of(UID, fill=1)]
    assert store.conflicts == [store.path(UID)]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[FileStore]:
    """The store of a node without workers."""
    store = FileStore(tmp_path / "archive", fsync=False)
    store.open()
    yield store
    store.close()


def acknowledged(store: FileStore, *files: bytes) -> None:
    """A node without workers has acknowledged some instances, and was killed."""
    store.journal.append([Entry(each, sha256(each).digest()) for each in files])
    store.journal.close()
    store.close()


def test_what_was_imported_meanwhile_is_kept_by_a_start_without_workers(alone: FileStore) -> None:
    """The import did not know of what was in the journal only."""
    alone.path(UID).write_bytes(file_of(UID, fill=2))
    acknowledged(alone, file_of("1.1"), file_of(UID, fill=1))
    alone.open()
    assert alone.path(UID).read_bytes() == file_of(UID, fill=1)
    assert versions(alone) == [file_of(UID, fill=2)]
    assert alone.conflicts == [alone.path(UID)]


def test_what_a_node_has_replaced_itself_is_not_kept(alone: FileStore) -> None:
    alone.path(UID).write_bytes(file_of(UID, fill=1))
    acknowledged(alone, file_of(UID, fill=1), file_of(UID, fill=2))
    alone.open()
    assert alone.path(UID).read_bytes() == file_of(UID, fill=2)
    assert versions(alone) == []
    assert alone.conflicts == []


def test_a_torn_file_is_made_again(store: FileStore) -> None:
    """It is not another data set."""
    store.path(UID).write_bytes(file_of(UID)[:-9])
    journalled(store, 1, file_of(UID))
    store.close()
    store.open()
    assert store.path(UID).read_bytes() == file_of(UID)
    assert versions(store) == []


def test_the_lead_makes_the_files_of_a_dead_worker(store: FileStore) -> None:
    """Those that are there already are made again, because their last sync may have failed."""
    store.path("1.1").write_bytes(file_of("1.1"))
    journalled(store, 1, file_of("1.1"), file_of("1.2"))
    assert replayed(store) == [store.path("1.1"), store.path("1.2")]
    assert store.path("1.2").read_bytes() == file_of("1.2")
    assert replayed(store) == [store.path("1.1"), store.path("1.2")]
    store.drop_journal(1)
    assert replayed(store) == []


def test_what_has_come_since_then_stays(store: FileStore) -> None:
    """The data set of the dead worker is kept aside."""
    store.path(UID).write_bytes(file_of(UID, fill=2))
    journalled(store, 1, file_of(UID, fill=1))
    assert replayed(store) == []
    assert store.path(UID).read_bytes() == file_of(UID, fill=2)
    assert versions(store) == [file_of(UID, fill=1)]


def test_a_journal_that_no_node_has_written_is_refused(store: FileStore) -> None:
    journalled(store, 1, b"something else")
    with pytest.raises(StorageError, match="not a DICOM file"):
        list(store.replay(1, claimed))


def test_what_a_dead_process_has_left_is_deleted(store: FileStore) -> None:
    """And nothing of another process, whose number begins alike."""
    for name in ("77-1", "77-2", "771-1"):
        (store.incoming / name).write_bytes(b"")
    store.remove_leftovers(77)
    assert [each.name for each in store.incoming.iterdir()] == ["771-1"]


@pytest.fixture
def archive(store: FileStore) -> Iterator[ArchiveAE]:
    """The archive of the lead, which serves nobody."""
    store.close()
    index = Index(f"sqlite:///{store.root / 'index.db'}", root=store.root)
    archive = ArchiveAE("LEAD", store, index)
    archive.share(Shared.create())
    store.open()
    with index:
        yield archive


def index_of(archive: ArchiveAE) -> Index:
    assert archive.index is not None
    return archive.index


def test_the_lead_writes_the_rows_that_are_missing(archive: ArchiveAE) -> None:
    """The worker may have written some of them."""
    store, index = archive.store, index_of(archive)
    store.path("1.1").write_bytes(file_of("1.1"))
    index.add(record_of(store.path("1.1"))).result()
    journalled(store, 1, file_of("1.1"), file_of("1.2"))
    assert archive.take_over(1, 77) == 1
    assert index.counts().instances == 2
    assert index.get("1.2") is not None
    assert archive.take_over(1, 77) == 0


def test_two_journals_with_the_same_instance_are_taken_over_one_after_the_other(
    archive: ArchiveAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second worker has acknowledged another data set while the first one was dead, and has died as well."""
    store = archive.store
    store.make_folders()
    journalled(store, 1, file_of(UID, fill=1))
    journalled(store, 2, file_of(UID, fill=2))
    at_work = threading.Barrier(2)
    place = store.place

    def place_slowly(path: str, octets: bytes) -> None:
        with suppress(threading.BrokenBarrierError):
            at_work.wait(0.2)
        place(path, octets)

    monkeypatch.setattr(store, "place", place_slowly)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(archive.take_over, (1, 2), (77, 78)))
    (version,) = store.versions()
    kept = {store.path(UID).read_bytes(), version.path.read_bytes()}
    assert kept == {file_of(UID, fill=1), file_of(UID, fill=2)}
    assert index_of(archive).counts().instances == 1


def test_the_journal_stays_when_the_index_refuses(
    archive: ArchiveAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    journalled(archive.store, 1, file_of("1.1"))
    with monkeypatch.context() as patch:
        patch.setattr(Index, "add_many", lambda *_: failed_future())
        with pytest.raises(IndexUnavailableError):
            archive.take_over(1, 77)
    assert archive.take_over(1, 77) == 1
    assert index_of(archive).get("1.1") is not None


def failed_future() -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(IndexUnavailableError("the index refuses"))
    return future


class DeadWorker:
    """A worker that dies while it keeps instances by itself: what it asks of the index is not done any more."""

    def __init__(self, archive: ArchiveAE, monkeypatch: pytest.MonkeyPatch) -> None:
        lead = index_of(archive).shared
        assert isinstance(lead, Shared)
        self.shared = Shared(lead.descriptor, 1)
        self._archive = archive
        self._monkeypatch = monkeypatch

    def keeps(self, uid: str, *, has_row: bool) -> None:
        """Keep an instance; without a row, it dies before that is written."""
        archive, index = self._archive, index_of(self._archive)
        with self._monkeypatch.context() as patch:
            patch.setattr(index, "shared", self.shared)
            if not has_row:
                patch.setattr(index, "add", lambda _: Future())
            spool = archive.store.spool(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax, "SENDER")
            with spool:
                spool.write(ct(uid))
                _, row = keep_with_row(archive.store, index, spool, lambda: None)
                assert row is not None
                if has_row:
                    row.result()


@pytest.fixture
def dead_worker(archive: ArchiveAE, monkeypatch: pytest.MonkeyPatch) -> DeadWorker:
    return DeadWorker(archive, monkeypatch)


def stored(archive: ArchiveAE, uid: str) -> None:
    """An instance with its row."""
    path = archive.store.path(uid)
    path.write_bytes(file_of(uid))
    index_of(archive).add(record_of(path)).result()


def test_a_file_that_a_dead_worker_has_named_gets_its_row(
    archive: ArchiveAE, dead_worker: DeadWorker
) -> None:
    index = index_of(archive)
    dead_worker.keeps("1.1", has_row=True)
    dead_worker.keeps("1.2", has_row=False)
    assert index.get("1.2") is None
    assert archive.take_over(1, 77) == 1
    assert index.get("1.2") is not None
    assert index.counts().instances == 2
    assert archive.take_over(1, 77) == 0


def test_the_lead_does_not_wait_for_the_dead(
    archive: ArchiveAE, dead_worker: DeadWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers wait for what the worker had acknowledged, until all of it has its rows."""
    dead_worker.keeps("1.1", has_row=False)
    journalled(archive.store, 1, file_of("1.2"))

    def settle() -> None:
        pytest.fail("the lead waits for what it has to do itself")

    with monkeypatch.context() as patch:
        patch.setattr(index_of(archive), "settle", settle)
        assert archive.take_over(1, 77) == 2


def test_what_a_dead_worker_was_to_replace_stays(
    archive: ArchiveAE, dead_worker: DeadWorker
) -> None:
    """It had taken the row back, and had not named the new file."""
    stored(archive, UID)
    dead_worker.shared.note(UID)
    index_of(archive).remove(UID).result()
    assert archive.take_over(1, 77) == 1
    assert index_of(archive).get(UID) is not None


def test_a_row_that_the_database_is_still_taking_back_is_added_again(
    store: FileStore, tmp_path: Path
) -> None:
    """The worker was killed when it had asked for that, and the database commits it afterwards."""
    url = PostgreSQL.running().url(str(tmp_path))
    path = store.path(UID)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_of(UID))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with Index(url, root=store.root) as index, ThreadPoolExecutor(1) as threads:
        index.add(record_of(path)).result()
        with engine.begin() as dead:
            for statement in (
                "DELETE FROM header",
                "DELETE FROM instance",
                "DELETE FROM series",
                "DELETE FROM study",
                "DELETE FROM patient",
            ):
                dead.exec_driver_sql(statement)
            made = threads.submit(index_noted, index, [path], claimed)
            waits = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")

            def is_waiting() -> bool:
                with engine.connect() as connection:
                    return made.done() or bool(connection.scalar(waits))

            eventually(is_waiting, "wait for the transaction")
        assert made.result() == 1
        assert index.get(UID) is not None


def test_what_was_deleted_stays_so_when_a_worker_dies(
    archive: ArchiveAE, dead_worker: DeadWorker
) -> None:
    """The row is gone, and the file follows."""
    index = index_of(archive)
    stored(archive, UID)
    dead_worker.shared.note(UID)
    with index.reading() as reading:
        chosen = withdrawal.choose(reading, Level.IMAGE, UID)
    assert len(index.withdraw(chosen).result()) == 1
    assert archive.take_over(1, 77) == 0
    assert index.get(UID) is None


def test_a_note_without_a_file_is_no_instance(archive: ArchiveAE, dead_worker: DeadWorker) -> None:
    """The worker died before it had named the file; or something else has that name."""
    dead_worker.shared.note("1.1")
    dead_worker.shared.note("1.2")
    archive.store.path("1.2").write_bytes(b"something else")
    assert archive.take_over(1, 77) == 0
    assert index_of(archive).counts().instances == 0


def test_the_lead_takes_the_tasks_of_a_dead_worker(archive: ArchiveAE) -> None:
    """And not those of the other workers."""
    queue = archive.workflow.queue
    own = queue.owner
    for worker in (1, 2):
        queue.owner = owner_of(own, worker)
        index_of(archive).write(
            lambda connection: queue.put(connection, "kind", "PEER", {}, claimed=True)
        ).result()
    queue.owner = own
    archive.take_over(1, 77)
    assert [each.state for each in queue.list()] == [WAITING, RUNNING]
    queue.recover().result()
    assert [each.state for each in queue.list()] == [WAITING, WAITING]
