"""The file store: an instance has its name when all of it is on the disk, and not before."""

import errno
import io
import itertools
import os
import stat
import threading
import tracemalloc
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest

from netdicom_tx.archive import Duplicates, FileStore, StorageError
from netdicom_tx.archive.encoded.walk import InvalidDataSetError, Walked
from netdicom_tx.archive.store import filestore
from netdicom_tx.archive.store.filestore import Kept, MismatchError, Outcome
from netdicom_tx.archive.store.spool import SPOOL_MEMORY, Spool
from netdicom_tx.dsutils import read_file_meta
from support.archive.data_sets import (
    BIG_ENDIAN,
    CT_IMAGE_STORAGE,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    Encoding,
    ct,
    deflated,
)
from support.archive.system import Call, descriptors, files, watch

PATIENCE = 30.0
IN_MEMORY, IN_FILE = 1 << 20, 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    """An open store that keeps the first of two duplicates."""
    opened = FileStore(tmp_path / "archive")
    opened.open()
    yield opened
    opened.close()


@pytest.fixture(params=[IN_MEMORY, IN_FILE], ids=["in memory", "in a file"])
def spooled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small instances arrive in memory, or in a file as big ones do."""
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", request.param)


def spool(
    store: FileStore,
    data: bytes,
    instance: str = "1.2.3",
    *,
    sop_class: str = CT_IMAGE_STORAGE,
    encoding: Encoding = EXPLICIT,
    source: str = "SENDER",
    piece: int = 100,
) -> Spool:
    """A spool into which a data set has come, piece by piece."""
    made = store.spool(sop_class, instance, encoding.transfer_syntax, source)
    for start in range(0, len(data), piece):
        made.write(memoryview(data)[start : start + piece])
    return made


def keep(store: FileStore, data: bytes, instance: str = "1.2.3", **options: object) -> Kept:
    """Let an instance come, keep it, and close the spool as the end of an operation does."""
    arrived = spool(store, data, instance, **options)  # type: ignore[arg-type]
    try:
        return store.keep(arrived)
    finally:
        arrived.close()


def in_thread(call: Callable[[], Kept]) -> Future[Kept]:
    """Run in a thread that does not keep the tests from ending when it hangs."""
    future: Future[Kept] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def data_set(path: Path) -> bytes:
    """The data set of a file that is kept."""
    with path.open("rb") as file:
        read_file_meta(file)
        return file.read()


# -- what is kept --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spooled")
def test_an_instance_is_kept_as_it_came(store: FileStore) -> None:
    """Behind a Part 10 header that says where it came from (PS3.10 7.1), readable by pydicom."""
    data = ct("1.2.3")
    kept = keep(store, data)
    assert kept.outcome is Outcome.STORED
    assert kept.path == store.path("1.2.3")
    assert data_set(kept.path) == data
    assert isinstance(kept.walked, Walked)
    ds = pydicom.dcmread(kept.path)
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert ds.file_meta.MediaStorageSOPClassUID == CT_IMAGE_STORAGE
    assert ds.file_meta.TransferSyntaxUID == EXPLICIT.transfer_syntax
    assert ds.file_meta.SourceApplicationEntityTitle == "SENDER"
    assert files(store.root) == {str(kept.path.relative_to(store.root))}


def test_memory_and_file_give_the_same_file(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How an instance arrives leaves no trace."""
    found = []
    for limit in (IN_MEMORY, IN_FILE, 1):
        monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", limit)
        for piece in (1, 7, 4096):
            kept = keep(store, ct("1.2.3"), piece=piece)
            found.append((kept.walked, kept.path.read_bytes()))
            kept.path.unlink()
    assert found == found[:1] * 9


def test_many_small_fragments_do_not_pile_up(store: FileStore) -> None:
    """More buffers than one writev takes: the kernel's limit is 1024."""
    data = ct("1.2.3", pixels=5000)
    assert data_set(keep(store, data, piece=1).path) == data


@pytest.mark.usefixtures("spooled")
def test_a_write_may_be_short(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """writev(2) may write less than it was given, and in the middle of a buffer."""
    watched = watch(monkeypatch, longest=33)
    data = ct("1.2.3")
    assert data_set(keep(store, data).path) == data
    assert sum(each.name == "writev" for each in watched.calls) > len(data) // 33


def test_a_big_instance_does_not_stay_in_memory(store: FileStore) -> None:
    """64 MiB come, are walked by a memory map and kept, with no more than the spool's share held."""
    head = EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OW", b"", length=64 << 20)
    piece = bytes(1 << 16)
    tracemalloc.start()
    try:
        arriving = spool(store, head)
        for _ in range(1 << 10):
            arriving.write(memoryview(bytearray(piece)))
        kept = store.keep(arriving)
        again = spool(store, head)
        for _ in range(1 << 10):
            again.write(memoryview(bytearray(piece)))
        same = store.keep(again)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arriving.close()
    again.close()
    assert (kept.outcome, same.outcome) == (Outcome.STORED, Outcome.SAME)
    assert kept.path.stat().st_size > 64 << 20
    assert peak < 4 * SPOOL_MEMORY


@pytest.mark.parametrize(
    "instance",
    [
        "../../etc/x",
        "/abs",
        "..",
        ".",
        "",
        "1." * 40,
        "1.2\0.3",
        "1.2/3",
        "1.2\\3",
        "\xe9\xff",
        "~",
    ],
)
def test_no_name_is_made_of_what_a_peer_wrote(store: FileStore, instance: str) -> None:
    """Whatever comes as UID, its path is a digest inside the directory."""
    path = store.path(instance)
    assert path.parent.parent == store.instances
    assert path.parent.name == path.name[:2]
    assert set(path.stem) <= set("0123456789abcdef")
    assert len(path.stem) == 64
    assert path.suffix == ".dcm"
    spooled = store.spool(CT_IMAGE_STORAGE, instance, EXPLICIT.transfer_syntax, "A/../B")
    assert spooled.path.parent == store.incoming


def test_files_and_folders_are_for_their_owner_only(store: FileStore) -> None:
    """0600 and 0700, whatever the umask lets through."""
    before = os.umask(0)
    try:
        other = FileStore(store.root.parent / "other")
        other.open()
        kept = keep(other, ct("1.2.3"))
        arriving = spool(other, ct("1.2.4"))
        arriving.flush_to_file()
    finally:
        os.umask(before)
    for path in (kept.path, arriving.path, other.root / "lock"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (other.root, other.incoming, other.instances, kept.path.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    arriving.close()
    other.close()


# -- what is not kept ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (ct("1.2.4"), "SOP Instance UID (0008,0018) of the data set is not that"),
        (EXPLICIT.identity("1.2.3", "1.2.840.10008.5.1.4.1.1.4"), "SOP Class UID (0008,0016) of"),
        (EXPLICIT.element(0x00100010, "PN", b"A^B "), "the data set has no SOP Class UID"),
        (EXPLICIT.identity("", CT_IMAGE_STORAGE), "the data set has no SOP Instance UID"),
    ],
)
def test_another_instance_than_announced_is_not_kept(
    store: FileStore, data: bytes, says: str
) -> None:
    """Index and file would say different things."""
    with pytest.raises(MismatchError) as caught:
        keep(store, data)
    assert says in str(caught.value)
    assert files(store.root) == set()


@pytest.mark.usefixtures("spooled")
def test_what_is_no_whole_data_set_is_not_kept(store: FileStore) -> None:
    """And nothing of it stays."""
    before = descriptors()
    with pytest.raises(InvalidDataSetError):
        keep(store, ct("1.2.3")[:-1])
    assert files(store.root) == set()
    assert descriptors() == before


@pytest.mark.usefixtures("spooled")
def test_what_stops_arriving_is_gone_when_it_is_closed(store: FileStore) -> None:
    """The peer is gone, or the disk was full: the spool is closed and never kept."""
    arriving = spool(store, ct("1.2.3"))
    arriving.close()
    arriving.close()
    assert arriving.closed
    assert files(store.root) == set()


# -- durability ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spooled")
def test_nothing_is_named_before_it_is_on_the_disk(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it written, the file synced, only then renamed; then the folder synced, before keep returns."""
    watched = watch(monkeypatch)
    arriving = spool(store, ct("1.2.3"))
    kept = store.keep(arriving)
    temporary, folder = arriving.path, kept.path.parent
    calls = [each for each in watched.calls if each.name not in ("close", "open")]
    writes = calls.index(Call("fsync", temporary))
    assert writes >= 1
    assert calls[:writes] == [Call("writev", temporary)] * writes
    assert calls[writes:] == [
        Call("fsync", temporary),
        Call("rename", temporary),
        Call("fsync", folder),
    ]
    arriving.close()


@pytest.mark.parametrize("duplicates", Duplicates)
def test_a_duplicate_is_answered_behind_the_sync_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, duplicates: Duplicates
) -> None:
    """The one who stored it first may be between its rename and its sync."""
    store = FileStore(tmp_path, duplicates=duplicates)
    store.open()
    path = keep(store, ct("1.2.3")).path
    for data in (ct("1.2.3"), ct("1.2.3", fill=8)):
        watched = watch(monkeypatch)
        keep(store, data)
        synced = [each.path for each in watched.calls if each.name == "fsync"]
        folders = synced[1:]  # behind the file itself
        assert folders[0] == path.parent
        is_aside = duplicates is Duplicates.KEEP_BOTH and data != ct("1.2.3")
        expected = [store.root / "versions" / path.parent.name] if is_aside else []
        assert folders[1:] == expected
    store.close()


def test_without_fsync_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option gives up durability over a power cut; the rename still stands behind the writes."""
    watched = watch(monkeypatch)
    store = FileStore(tmp_path, fsync=False)
    store.open()
    keep(store, ct("1.2.3"))
    names = [each.name for each in watched.calls]
    assert "fsync" not in names
    assert names.index("writev") < names.index("rename")
    store.close()


def test_a_new_directory_is_synced_into_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance is as durable as the entries of the folders above it, all the way to an old one."""
    watched = watch(monkeypatch)
    store = FileStore(tmp_path / "a" / "b" / "c")
    store.open()
    synced = {each.path for each in watched.calls if each.name == "fsync"}
    assert synced >= {tmp_path, tmp_path / "a", tmp_path / "a" / "b", store.root, store.instances}
    store.close()


def test_a_parent_that_may_not_be_read_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory in /var/lib is the node's own, the one above may be closed to it (mode 0711)."""
    (tmp_path / "archive").mkdir()
    real = os.open

    def guarded(path: os.PathLike[str], flags: int, *more: int, **options: int) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", guarded)
    store = FileStore(tmp_path / "archive")
    store.open()
    assert keep(store, ct("1.2.3")).outcome is Outcome.STORED
    store.close()


def attempt(store: FileStore, arriving: Spool, data: bytes) -> int:
    """Let an instance come and keep it; the error number of what failed, or 0."""
    try:
        for start in range(0, len(data), 100):
            arriving.write(data[start : start + 100])
        store.keep(arriving)
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize(
    ("here", "duplicates"),
    [(None, Duplicates.KEEP), (7, Duplicates.KEEP), (8, Duplicates.KEEP), (8, Duplicates.REPLACE)],
    ids=["new", "same", "other, kept", "other, replaced"],
)
def test_a_failure_of_any_call_leaves_nothing_partial(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: int,
    here: int | None,
    duplicates: Duplicates,
) -> None:
    """The first call fails, then the second, and so on until none is left to fail.

    What was here stays, or is replaced whole; no temporary file, no descriptor stays; and when the
    disk is well again, the same instance is stored without a restart, unless a folder could not be synced.
    """
    store = FileStore(tmp_path, duplicates=duplicates)
    store.open()
    before = descriptors()
    failures = 0
    for number in itertools.count(1):
        instance = f"1.2.{number}"
        data = ct(instance)
        first = None if here is None else ct(instance, fill=here)
        if first is not None:
            keep(store, first, instance)
        with monkeypatch.context() as patch:
            watched = watch(patch, number, error)
            arriving = spool(store, b"", instance)
            raised = attempt(store, arriving, data)
            arriving.close()
            failures += raised == error
            assert raised in (0, error)
        assert list(store.incoming.iterdir()) == []
        assert descriptors() == before
        path = store.path(instance)
        found = data_set(path) if path.exists() else None
        if not watched.has_failed:
            assert found == (first if here == 8 and duplicates is Duplicates.KEEP else data)
            break
        named = any(each.name == "rename" for each in watched.calls[: number - 1])
        assert found in ([first, data] if named else [first])
        failed = watched.calls[number - 1]
        if failed == Call("fsync", path.parent):
            store.close()
            store.open()
        keep(store, data, instance)
        assert data_set(path) in (first, data)
    assert failures >= 4
    store.close()


def test_a_directory_that_cannot_be_synced_leaves_a_whole_instance(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its name already, and another sender may have been told so: it is not taken back."""
    watched = watch(monkeypatch, 2, errno.EIO, only="fsync")
    with pytest.raises(OSError, match="Input/output error"):
        keep(store, ct("1.2.3"))
    assert watched.has_failed
    assert data_set(store.path("1.2.3")) == ct("1.2.3")


def test_a_directory_that_could_not_be_synced_is_not_tried_again(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second sync succeeds when the kernel has dropped what it could not write; it would be a false promise."""
    with monkeypatch.context() as patch:
        watch(patch, 2, errno.EIO, only="fsync")
        with pytest.raises(OSError, match="Input/output error"):
            keep(store, ct("1.2.3"))
    with monkeypatch.context() as patch:
        watched = watch(patch)
        with pytest.raises(OSError, match="restart the node"):
            keep(store, ct("1.2.3"))
        assert "fsync" not in [each.name for each in watched.calls]
    # Other folders are not affected.
    assert store.path("1.2.4").parent != store.path("1.2.3").parent
    assert keep(store, ct("1.2.4"), "1.2.4").outcome is Outcome.STORED
    store.close()
    store.open()
    assert keep(store, ct("1.2.3")).outcome is Outcome.SAME


def test_a_folder_of_versions_that_could_not_be_synced_is_not_tried_again(
    both: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for data sets that are kept aside."""
    keep(both, ct("1.2.3"))
    other = ct("1.2.3", pixels=64)
    with monkeypatch.context() as patch:
        watch(patch, 3, errno.EIO, only="fsync")
        with pytest.raises(OSError, match="Input/output error"):
            keep(both, other)
    with pytest.raises(OSError, match="restart the node"):
        keep(both, other)


def test_a_file_that_cannot_be_synced_is_never_named(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed fsync may have dropped the pages: trying again would call it good."""
    watched = watch(monkeypatch, 1, errno.EIO, only="fsync")
    with pytest.raises(OSError, match="Input/output error"):
        keep(store, ct("1.2.3"))
    assert [each.name for each in watched.calls].count("fsync") == 1
    assert files(store.root) == set()


def test_closing_a_spool_does_not_fail(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens at the end of an operation, where nobody can answer; what stays goes at the next start."""
    arriving = spool(store, ct("1.2.3"))
    arriving.flush_to_file()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _refuse)
        watch(patch, 1, errno.EIO, only="close")
        arriving.close()
    assert arriving.closed
    assert len(files(store.root)) == 1
    store.close()
    store.open()
    assert files(store.root) == set()


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


# -- duplicates ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize("duplicates", Duplicates)
def test_the_same_data_set_again_is_one_copy(tmp_path: Path, duplicates: Duplicates) -> None:
    """The sender does not matter; the header says which one was first."""
    store = FileStore(tmp_path, duplicates=duplicates)
    store.open()
    first = keep(store, ct("1.2.3"), source="FIRST")
    before = first.path.read_bytes()
    again = keep(store, ct("1.2.3"), source="SECOND")
    assert again.outcome is Outcome.SAME
    assert again.path == first.path
    assert first.path.read_bytes() == before
    assert len(files(store.root)) == 1
    store.close()


OTHERS = {
    "one octet": (ct("1.2.3", fill=8), EXPLICIT),
    "longer": (ct("1.2.3", pixels=1024), EXPLICIT),
    "shorter": (ct("1.2.3", pixels=256), EXPLICIT),
    "more elements": (ct("1.2.3") + EXPLICIT.element(0x7FE10010, "LO", b"ab"), EXPLICIT),
    "other transfer syntax": (ct("1.2.3", encoding=BIG_ENDIAN, fill=8), BIG_ENDIAN),
    "other name of the transfer syntax": (
        ct("1.2.3"),
        EXPLICIT._replace(transfer_syntax="1.2.840.10008.1.2.4.50"),
    ),
}


WRITTEN_OTHERWISE = {
    "without padding": (ct("1.2.3"), EXPLICIT),
    "implicit": (ct("1.2.3", encoding=IMPLICIT), IMPLICIT),
    "big endian": (ct("1.2.3", encoding=BIG_ENDIAN), BIG_ENDIAN),
    "deflated": (deflated(ct("1.2.3")), EXPLICIT._replace(transfer_syntax=DEFLATED)),
    "group lengths": (EXPLICIT.element(0x00080000, "UL", b"abcd") + ct("1.2.3"), EXPLICIT),
}


@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize("duplicates", Duplicates)
@pytest.mark.parametrize("other", WRITTEN_OTHERWISE.values(), ids=WRITTEN_OTHERWISE)
def test_the_same_content_written_otherwise_is_the_same_instance(
    tmp_path: Path, duplicates: Duplicates, other: tuple[bytes, Encoding]
) -> None:
    """PS3.5 Annex A: how a data set is written is not what it says; the first copy stays."""
    store = FileStore(tmp_path, duplicates=duplicates)
    store.open()
    first = ct("1.2.3") + EXPLICIT.element(0xFFFCFFFC, "OB", b"ab")
    kept = keep(store, first)
    data, encoding = other
    assert keep(store, data, encoding=encoding).outcome is Outcome.SAME
    assert data_set(kept.path) == first
    assert len(files(store.root)) == 1
    store.close()


def test_an_instance_that_takes_the_name_during_the_comparison_is_compared(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two senders at once: no instance disappears under another one's name."""
    real, calls = filestore.file_identity, []

    def identity(name: str, folder: int) -> tuple[int, int] | None:
        calls.append(name)
        if len(calls) == 1:
            assert keep(store, ct("1.2.3", fill=8), source="FIRST").outcome is Outcome.STORED
        return real(name, folder)

    monkeypatch.setattr(filestore, "file_identity", identity)
    store._naming = threading.RLock()  # type: ignore[assignment]
    kept = keep(store, ct("1.2.3"))
    assert (kept.outcome, kept.earlier_sender) == (Outcome.REFUSED, "FIRST")
    assert data_set(kept.path) == ct("1.2.3", fill=8)


@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize("duplicates", Duplicates)
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_data_set_is_kept_out_or_replaces_the_first(
    tmp_path: Path, duplicates: Duplicates, other: tuple[bytes, Encoding]
) -> None:
    """By the option; one of the two is there, whole."""
    store = FileStore(tmp_path, duplicates=duplicates)
    store.open()
    first = keep(store, ct("1.2.3"))
    data, encoding = other
    second = keep(store, data, encoding=encoding)
    if duplicates is Duplicates.KEEP_BOTH:
        assert second.outcome is Outcome.ASIDE
        assert data_set(first.path) == ct("1.2.3")
        assert data_set(second.path) == data
        assert second.path.is_relative_to(store.root / "versions")
        store.close()
        return
    assert second.path == first.path
    assert len(files(store.root)) == 1
    if duplicates is Duplicates.KEEP:
        assert second.outcome is Outcome.REFUSED
        assert data_set(first.path) == ct("1.2.3")
    else:
        assert second.outcome is Outcome.REPLACED
        assert data_set(first.path) == data
        with first.path.open("rb") as file:
            assert read_file_meta(file).transfer_syntax == encoding.transfer_syntax
    store.close()


@pytest.mark.parametrize("garbage", [b"", b"DICM" * 100, ct("1.2.3")], ids=["no", "bad", "bare"])
def test_what_is_no_instance_is_replaced(store: FileStore, garbage: bytes) -> None:
    """A damaged file under the name of an instance cannot be served; the instance can."""
    store.path("1.2.3").write_bytes(garbage)
    kept = keep(store, ct("1.2.3"))
    assert kept.outcome is Outcome.REPLACED
    assert data_set(kept.path) == ct("1.2.3")


@pytest.mark.parametrize("duplicates", Duplicates)
@pytest.mark.parametrize("alike", [True, False], ids=["alike", "different"])
def test_of_eight_at_once_one_wins_whole(
    tmp_path: Path, duplicates: Duplicates, alike: bool
) -> None:
    """Threads that keep the same SOP Instance UID at the same time."""
    store = FileStore(tmp_path, duplicates=duplicates)
    store.open()
    data = [ct("1.2.3", pixels=1 << 16, fill=7 if alike else fill) for fill in range(8)]
    ready = threading.Barrier(8)

    def one(content: bytes) -> Outcome:
        arriving = spool(store, content, piece=1 << 16)
        ready.wait(PATIENCE)
        try:
            return store.keep(arriving).outcome
        finally:
            arriving.close()

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(one, data))
    assert outcomes.count(Outcome.STORED) == 1
    others = set(outcomes) - {Outcome.STORED}
    path = store.path("1.2.3")
    if alike:
        assert others == {Outcome.SAME}
    elif duplicates is Duplicates.KEEP:
        assert others == {Outcome.REFUSED}
        assert data_set(path) == data[outcomes.index(Outcome.STORED)]
    elif duplicates is Duplicates.KEEP_BOTH:
        assert others == {Outcome.ASIDE}
        assert data_set(path) == data[outcomes.index(Outcome.STORED)]
        kept = [path, *(each.path for each in store.versions())]
        assert sorted(map(data_set, kept)) == sorted(data)
    else:
        assert others == {Outcome.REPLACED}
    assert data_set(path) in data
    names = {str(path.relative_to(store.root))}
    assert {each for each in files(store.root) if not each.startswith("versions")} == names
    store.close()


@pytest.mark.parametrize("duplicates", Duplicates)
def test_who_is_told_of_names_hears_of_them_in_their_order(
    tmp_path: Path, duplicates: Duplicates
) -> None:
    """Else the index would say of the last data set what is true of the one before."""
    store = FileStore(tmp_path, duplicates=duplicates)
    store.open()
    told: list[int] = []
    others: list[threading.Thread] = []

    def one(fill: int, when_named: Callable[[], object]) -> None:
        arriving = spool(store, ct("1.2.3", fill=fill))
        store.keep(arriving, when_named=when_named)
        arriving.close()

    def named_first() -> None:
        second = threading.Thread(target=one, args=(8, lambda: told.append(8)))
        second.start()
        # It must not come through; if it could, it would have, by now.
        second.join(0.3)
        others.append(second)
        told.append(7)

    one(7, named_first)
    others[0].join(PATIENCE)
    if duplicates is Duplicates.REPLACE:
        assert told == [7, 8]
    else:
        assert told == [7]
    assert data_set(store.path("1.2.3")) == ct("1.2.3", fill=told[-1])
    store.close()


# -- versions that are kept aside --------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path) -> Iterator[FileStore]:
    opened = FileStore(tmp_path, duplicates=Duplicates.KEEP_BOTH)
    opened.open()
    yield opened
    opened.close()


def test_a_version_comes_once_however_it_is_written(both: FileStore) -> None:
    """PS3.5 A.1: the same content in implicit VR is not another version."""
    keep(both, ct("1.2.3"))
    first = keep(both, ct("1.2.3", fill=8), source="SECOND")
    again = keep(both, ct("1.2.3", fill=8, encoding=IMPLICIT), encoding=IMPLICIT)
    assert (first.outcome, again.outcome) == (Outcome.ASIDE, Outcome.SAME)
    assert again.path == first.path
    assert keep(both, ct("1.2.3")).outcome is Outcome.SAME
    (version,) = both.versions()
    size = first.path.stat().st_size
    assert version[:3] == (first.path, "1.2.3", "SECOND")
    assert version.size == size
    assert data_set(first.path) == ct("1.2.3", fill=8)


def test_versions_are_listed_by_instance_with_the_oldest_first(both: FileStore) -> None:
    for uid in ("1.2.3", "1.2.4"):
        for fill in range(4):
            kept = keep(both, ct(uid, fill=fill), instance=uid)
            os.utime(kept.path, (fill, fill))
    found = list(both.versions())
    by_instance = sorted(("1.2.3", "1.2.4"), key=lambda uid: both.path(uid).name)
    assert [each.sop_instance_uid for each in found] == [u for u in by_instance for _ in range(3)]
    assert [each.received for each in found] == [1, 2, 3, 1, 2, 3]


def test_what_is_no_version_is_not_listed(both: FileStore) -> None:
    keep(both, ct("1.2.3"))
    path = keep(both, ct("1.2.3", fill=8)).path
    path.with_name(f"{path.stem[:64]}-text.dcm").write_text("no version")
    path.with_name(f"{path.stem[:64]}-link.dcm").symlink_to(path)
    os.mkfifo(path.with_name(f"{path.stem[:64]}-pipe.dcm"))
    assert [each.path for each in both.versions()] == [path]


def test_a_store_without_versions_lists_none(store: FileStore) -> None:
    assert list(store.versions()) == []


def test_of_one_instance_a_limited_number_of_versions_is_kept(
    both: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that changes its instance each time it sends it does not fill the disk."""
    monkeypatch.setattr(filestore, "VERSION_LIMIT", 3)
    kept = [keep(both, ct("1.2.3", fill=fill)).outcome for fill in range(6)]
    assert kept == [Outcome.STORED, *[Outcome.ASIDE] * 3, *[Outcome.REFUSED] * 2]
    assert keep(both, ct("1.2.3", fill=2)).outcome is Outcome.SAME


# -- a spool that is closed too early ----------------------------------------------------------------------


@pytest.mark.usefixtures("spooled")
def test_a_spool_that_is_closed_while_it_is_kept_is_kept(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost in the meantime: the thread that keeps the instance goes on undisturbed.

    A descriptor that is closed under it may be another file by the time it is used.
    """
    scanning, may_go_on = threading.Event(), threading.Event()
    real = Spool.walk

    def slow(arriving: Spool, wanted: Collection[int]) -> Walked:
        scanning.set()
        assert may_go_on.wait(PATIENCE)
        return real(arriving, wanted)

    monkeypatch.setattr(Spool, "walk", slow)
    before = descriptors()
    arriving = spool(store, ct("1.2.3"))
    keeping = in_thread(lambda: store.keep(arriving))
    assert scanning.wait(PATIENCE)
    arriving.close()
    may_go_on.set()
    assert keeping.result(PATIENCE).outcome is Outcome.STORED
    assert arriving.closed
    assert data_set(store.path("1.2.3")) == ct("1.2.3")
    assert len(files(store.root)) == 1
    assert descriptors() == before


@pytest.mark.usefixtures("spooled")
def test_a_spool_that_is_closed_while_its_thread_is_awaited_is_not_kept(store: FileStore) -> None:
    """The work was queued when the connection was lost."""
    arriving = spool(store, ct("1.2.3"))
    arriving.close()
    with pytest.raises(ValueError, match="closed"):
        store.keep(arriving)
    assert files(store.root) == set()


# -- what somebody planted -----------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that does not belong to the store."""
    path = tmp_path / "outside"
    path.write_bytes(b"untouched")
    return path


@pytest.mark.parametrize("duplicates", Duplicates)
def test_a_symbolic_link_for_an_instance_is_not_followed(
    tmp_path: Path, outside: Path, duplicates: Duplicates
) -> None:
    """Neither read nor written through, nor replaced in silence."""
    store = FileStore(tmp_path / "archive", duplicates=duplicates)
    store.open()
    store.path("1.2.3").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        keep(store, ct("1.2.3"))
    assert outside.read_bytes() == b"untouched"
    assert store.path("1.2.3").is_symlink()
    assert len(files(store.root)) == 1
    store.close()


def test_a_symbolic_link_for_a_folder_is_not_followed(store: FileStore, tmp_path: Path) -> None:
    """Planted while the node runs."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = store.path("1.2.3").parent
    folder.rmdir()
    folder.symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        keep(store, ct("1.2.3"))
    assert list(elsewhere.iterdir()) == []
    assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize("name", ["incoming", "instances", "instances/3f"])
def test_a_store_with_a_symbolic_link_for_a_folder_does_not_open(tmp_path: Path, name: str) -> None:
    """Planted while it did not run; the sentence names it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"untouched")
    planted = tmp_path / "archive" / name
    planted.parent.mkdir(parents=True)
    planted.symlink_to(elsewhere)
    store = FileStore(tmp_path / "archive")
    with pytest.raises(StorageError, match=f"{planted.name} is a symbolic link"):
        store.open()
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]


def test_a_symbolic_link_for_the_lock_is_not_followed(tmp_path: Path, outside: Path) -> None:
    """The lock is truncated when it is taken."""
    root = tmp_path / "archive"
    root.mkdir()
    (root / "lock").symlink_to(outside)
    with pytest.raises(StorageError, match="cannot be used"):
        FileStore(root).open()
    assert outside.read_bytes() == b"untouched"


def test_a_symbolic_link_among_what_arrives_is_not_followed(
    store: FileStore, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O_EXCL: a temporary file is new, or none."""
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", IN_FILE)
    arriving = store.spool(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax, "")
    arriving.path.symlink_to(outside)
    with pytest.raises(FileExistsError):
        arriving.write(ct("1.2.3"))
    arriving.close()
    assert outside.read_bytes() == b"untouched"


def test_a_folder_for_an_instance_is_an_error(store: FileStore) -> None:
    """And costs no descriptor."""
    store.path("1.2.3").mkdir()
    before = descriptors()
    with pytest.raises(IsADirectoryError):
        keep(store, ct("1.2.3"))
    assert descriptors() == before


def test_a_pipe_for_an_instance_is_replaced(store: FileStore) -> None:
    """Opening it for reading would wait for ever, and every other instance with it."""
    os.mkfifo(store.path("1.2.3"))
    kept = in_thread(lambda: keep(store, ct("1.2.3"))).result(PATIENCE)
    assert kept.outcome is Outcome.REPLACED
    assert data_set(store.path("1.2.3")) == ct("1.2.3")


# -- opening -------------------------------------------------------------------------------------------------


def test_a_store_is_opened_once(store: FileStore) -> None:
    """The lock belongs to the open file: a second store in this process is refused like another node."""
    second = FileStore(store.root)
    with pytest.raises(StorageError) as caught:
        second.open()
    assert str(caught.value) == (
        f"the storage directory {store.root} is in use by another node: stop that node, or give this "
        "one another directory"
    )
    store.close()
    second.open()
    second.close()
    second.close()


def test_the_lock_says_who_holds_it(store: FileStore) -> None:
    """For the operator who looks."""
    assert (store.root / "lock").read_text() == f"{os.getpid()}\n"


def test_a_refused_store_leaves_the_other_alone(store: FileStore) -> None:
    """What arrives there is no leftover."""
    arriving = spool(store, ct("1.2.3"))
    arriving.flush_to_file()
    before = descriptors()
    with pytest.raises(StorageError):
        FileStore(store.root).open()
    assert descriptors() == before
    assert store.keep(arriving).outcome is Outcome.STORED
    arriving.close()


def test_leftovers_are_removed_at_the_next_start(store: FileStore, outside: Path) -> None:
    """After a crash there are temporary files; what is kept stays, and a link is only a link."""
    kept = keep(store, ct("1.2.3"))
    for number in range(3):
        spool(store, ct("1.2.4")).path.with_name(f"1-{number}").write_bytes(b"partial")
    (store.incoming / "link").symlink_to(outside)
    store.close()
    store.open()
    assert files(store.root) == {str(kept.path.relative_to(store.root))}
    assert outside.read_bytes() == b"untouched"


def test_a_store_may_be_given_as_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon changes its directory later."""
    monkeypatch.chdir(tmp_path)
    assert FileStore("archive").root == tmp_path / "archive"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path, name: str) -> None:
    """No traceback for the operator."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        StorageError, match=f"the storage directory {tmp_path / name} cannot be used"
    ):
        FileStore(tmp_path / name).open()


@pytest.mark.parametrize("name", ["fsync", "open"])
def test_a_failure_at_the_start_gives_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The next try finds the directory free."""
    store = FileStore(tmp_path)
    before = descriptors()
    with monkeypatch.context() as patch:
        watch(patch, 2, errno.EIO, only=name)
        with pytest.raises(StorageError, match="Input/output error"):
            store.open()
    assert descriptors() == before
    store.open()
    store.close()


@pytest.mark.parametrize(
    ("total", "free", "has_room"),
    [
        (1000 << 30, (1 << 30) + 4096, True),
        (1000 << 30, 1 << 30, False),
        (10 << 30, (1 << 29) + 4096, True),
        (10 << 30, 1 << 29, False),
        (10 << 30, 0, False),
    ],
)
def test_some_of_the_disk_is_left_free(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, total: int, free: int, has_room: bool
) -> None:
    """5 % of the disk, at most 1 GiB."""

    class Disk:
        f_frsize, f_blocks, f_bavail = 4096, total >> 12, free >> 12

    monkeypatch.setattr(os, "statvfs", lambda _: Disk)
    assert store.has_room() is has_room


# -- a spool as a file ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spooled")
def test_a_spool_reads_like_a_file(store: FileStore) -> None:
    """Every way to read and to move, beside a BytesIO of the same octets."""
    data = ct("1.2.3")
    with spool(store, data) as arrived:
        assert (arrived.readable(), arrived.writable(), arrived.seekable()) == (True, True, True)
        assert arrived.tell() == 0
        judge = io.BytesIO(arrived.read())
        assert judge.getvalue().endswith(data)
        assert len(judge.getvalue()) == arrived.header_size + len(data)
        steps: list[Callable[[io.RawIOBase | io.BytesIO], object]] = [
            lambda file: file.read(),
            lambda file: file.seek(3),
            lambda file: file.read(5),
            lambda file: file.tell(),
            lambda file: file.seek(4, os.SEEK_CUR),
            lambda file: file.read(1000),
            lambda file: file.seek(-10, os.SEEK_END),
            lambda file: file.read(4),
            lambda file: file.read(100),
            lambda file: file.read(1),
            lambda file: file.seek(10_000),
            lambda file: file.read(1),
            lambda file: file.seek(0),
            lambda file: file.readline(),
            lambda file: file.readinto(bytearray(7)),
            lambda file: file.tell(),
        ]
        judge.seek(0, os.SEEK_END)
        assert [step(arrived) for step in steps] == [step(judge) for step in steps]


@pytest.mark.usefixtures("spooled")
def test_pydicom_reads_a_spool(store: FileStore) -> None:
    """It is the Part 10 file that a service's hook is given."""
    with spool(store, ct("1.2.3")) as arrived:
        ds = pydicom.dcmread(arrived)
        assert ds.SOPInstanceUID == "1.2.3"
        assert ds.PixelData == bytes([7]) * 512


@pytest.mark.usefixtures("spooled")
def test_a_spool_can_be_read_while_it_grows(store: FileStore) -> None:
    """What was written is there, wherever it is held."""
    with spool(store, b"abcd") as arrived:
        arrived.seek(arrived.header_size)
        assert arrived.read() == b"abcd"
        arrived.write(b"efgh")
        assert arrived.read() == b"efgh"
