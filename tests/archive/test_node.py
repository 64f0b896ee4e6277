"""The archive AE: what it accepts, what it answers, and what is kept when it has answered."""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu, verification_scu
from netdicom_tx.amounts import Amount
from netdicom_tx.archive import (
    ArchiveAE,
    Duplicates,
    FileStore,
    Index,
    IndexUnusableError,
    StorageError,
)
from netdicom_tx.archive.encoded import walk as walking
from netdicom_tx.archive.index import record
from netdicom_tx.archive.index.commits import Committer
from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.store import reconcile as reconcile_module
from netdicom_tx.archive.store import spool
from netdicom_tx.archive.store.reconcile import verify
from netdicom_tx.archive.workflow.outbound import RUNNING, WAITING
from netdicom_tx.dsutils import part10_header, read_file_meta
from netdicom_tx.exceptions import AssociationRejectedError
from netdicom_tx.statuses import Status
from netdicom_tx.testing import connected
from netdicom_tx.uids import ALL_TRANSFER_SYNTAXES, STORAGE_SOP_CLASSES, VERIFICATION_SOP_CLASS
from support.archive.archives import (
    Archive,
    archive,
    data_set,
    is_heard,
    shut_down,
    store_rq,
    stored,
)
from support.archive.data_sets import (
    CT_IMAGE_STORAGE,
    DEFLATED,
    EXPLICIT,
    Made,
    ct,
    data_sets,
    deflated,
)
from support.archive.databases import database_url
from support.archive.system import watch
from support.doubles import LoggedFailures
from support.doubles import logged_failures as logged_failures
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture
from support.interop.samples import BROKEN, quiet, sources

DATA = Path(pydicom.__file__).parent / "data" / "test_files"
PRIVATE = "1.2.3.4.5.6.7"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Archive]:
    """An open archive in memory."""
    opened = Archive(tmp_path / "archive")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """One archive for many examples."""
    opened = Archive(tmp_path_factory.mktemp("archive"), duplicates=Duplicates.REPLACE)
    yield opened
    opened.close()


@pytest.fixture
def lines_of() -> Iterator[Callable[[str], list[str]]]:
    """The lines of the log that name something."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield lambda name: [text for text in map(formatEvent, events) if name in text]
    globalLogPublisher.removeObserver(events.append)


def forget(node: Archive, uid: str) -> None:
    """Take an instance out, if it is there: the first of two that say the same would stay."""
    if node.kept(uid) is not None:
        node.store.path(uid).unlink()
        node.index.remove(uid).result()


# -- what is accepted --------------------------------------------------------------------------------------


def chunks(values: tuple[str, ...]) -> list[tuple[str, ...]]:
    """As many as one association can propose."""
    return [values[start : start + 128] for start in range(0, len(values), 128)]


@pytest.mark.parametrize("some", chunks(STORAGE_SOP_CLASSES), ids=lambda some: some[0])
def test_every_storage_sop_class_is_accepted(node: Archive, some: tuple[str, ...]) -> None:
    """PS3.4 B.5 and GG.3, and the retired ones."""
    wanted = {uid: [EXPLICIT.transfer_syntax] for uid in some}
    with connected(AE("SCU"), node.ae, wanted) as pair:
        accepted = pair.requestor.accepted_contexts.values()
        assert [ctx.sop_class for ctx in accepted] == list(some)


def test_every_transfer_syntax_is_accepted_as_it_is_proposed(node: Archive) -> None:
    """Nothing is decoded, so nothing need be known of it."""
    wanted = [(CT_IMAGE_STORAGE, [uid]) for uid in ALL_TRANSFER_SYNTAXES]
    with connected(AE("SCU"), node.ae, wanted) as pair:
        accepted = pair.requestor.accepted_contexts.values()
        assert [ctx.supported_ts for ctx in accepted] == list(ALL_TRANSFER_SYNTAXES)


def test_an_unknown_sop_class_is_refused(node: Archive) -> None:
    """PS3.8 9.3.3.2: abstract syntax not supported; what it would be is not known."""
    with connected(AE("SCU"), node.ae, {PRIVATE: [EXPLICIT.transfer_syntax]}) as pair:
        assert not pair.requestor.accepted_contexts


def test_an_unknown_sop_class_is_kept_by_option(tmp_path: Path) -> None:
    """Private ones, and those that are newer than this version."""
    node = Archive(tmp_path, unknown_sop_classes=True)
    peer = node.sender(sop_class=PRIVATE)
    data = EXPLICIT.identity("1.2.3", PRIVATE) + EXPLICIT.element(0x00090010, "LO", b"OURS")
    assert stored(peer, data, "1.2.3", PRIVATE) == 0x0000
    assert node.kept("1.2.3") == data
    node.close()


# -- what is kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1 << 20, 64], ids=["in memory", "in a file"])
def test_success_means_kept(node: Archive, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """File and row, and nothing else on the disk."""
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", limit)
    assert stored(node.sender(), ct("1.2.3")) == 0x0000
    assert node.kept("1.2.3") == ct("1.2.3")
    path = node.store.path("1.2.3")
    assert node.files() == {str(path.relative_to(node.store.root))}
    assert pydicom.dcmread(path).file_meta.SourceApplicationEntityTitle == "PEER"


@pytest.mark.parametrize("syntax", [EXPLICIT.transfer_syntax, DEFLATED])
def test_a_data_set_is_walked_and_inflated_once(
    node: Archive, monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    """For the file and for its row."""
    calls: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            calls.append(name)
            return call(*arguments)

        return counting

    for module, name in ((spool, "walk"), (record, "walk"), (walking, "inflate_part")):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    data = deflated(ct("1.2.3")) if syntax == DEFLATED else ct("1.2.3")
    assert stored(node.sender(EXPLICIT._replace(transfer_syntax=syntax)), data) == 0x0000
    assert node.kept("1.2.3") == data
    assert calls == ["walk", "inflate_part"][: 1 + (syntax == DEFLATED)]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_every_real_file_is_kept_as_it_is(long_lived: Archive, path: Path) -> None:
    """pydicom's own: compressed, big endian, deflated, SR, RT, private, in many character sets."""
    node = long_lived
    with path.open("rb") as file:
        meta = read_file_meta(file)
        data = file.read()
    with quiet():
        ds = pydicom.dcmread(path)
    encoding = EXPLICIT._replace(transfer_syntax=meta.transfer_syntax)
    peer = node.sender(encoding, str(ds.SOPClassUID))
    uid = str(ds.SOPInstanceUID)
    forget(node, uid)  # some are one instance, written in several ways
    assert stored(peer, data, uid, str(ds.SOPClassUID)) == 0x0000
    # PS3.5 A.5: a deflated stream of odd length goes out with a NUL behind it.
    assert node.kept(uid) == data + b"\0" * (len(data) % 2)
    peer.transport.abortConnection()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_real_file_is_refused(node: Archive, name: str) -> None:
    """Cut off, or in another transfer syntax than its header says: 0xC000."""
    with (DATA / name).open("rb") as file:
        meta = read_file_meta(file)
        data = file.read()
    peer = node.sender(EXPLICIT._replace(transfer_syntax=meta.transfer_syntax), meta.sop_class_uid)
    assert stored(peer, data, meta.sop_instance_uid, meta.sop_class_uid) == 0xC000
    assert node.files() == set()


@pytest.mark.parametrize("duplicates", Duplicates)
def test_the_same_instance_again_is_a_success_and_one_copy(
    tmp_path: Path, duplicates: Duplicates
) -> None:
    """The sender does not matter, and the row in the index still describes the file."""
    node = Archive(tmp_path, duplicates=duplicates)
    first = node.sender()
    assert stored(first, ct("1.2.3")) == 0x0000
    before = node.store.path("1.2.3").read_bytes()
    assert stored(first, ct("1.2.3")) == 0x0000
    with connected(AE("ANOTHER SENDER").add_scu(storage_scu, [CT_IMAGE_STORAGE]), node.ae) as pair:
        sent: list[Status] = []
        header = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax)
        file = BytesIO(header + ct("1.2.3"))
        pair.requestor.get_scu(CT_IMAGE_STORAGE)(file).addCallback(sent.append)
        assert sent == [0x0000]
    assert node.store.path("1.2.3").read_bytes() == before
    assert node.kept("1.2.3") == ct("1.2.3")
    assert list(verify(node.index)) == []
    node.close()


def test_the_same_instance_again_gets_the_row_that_the_first_did_not(
    node: Archive, failures: LoggedFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index was away after the file was named: the sender tries again, and it is found."""

    def refuse(_: object) -> None:
        raise IndexUnavailableError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(node.index, "add", refuse)
        assert stored(node.sender(), ct("1.2.3")) == 0xA700
    assert len(failures.texts()) == 1
    assert stored(node.sender(), ct("1.2.3")) == 0x0000
    assert node.kept("1.2.3") == ct("1.2.3")
    assert list(verify(node.index)) == []


def test_another_data_set_of_the_same_uid_is_refused(
    node: Archive, lines_of: Callable[[str], list[str]]
) -> None:
    """PS3.7 C.5.8: 0x0111, duplicate SOP instance; one line names both senders."""
    peer = node.sender()
    assert stored(peer, ct("1.2.3")) == 0x0000
    peer.send(store_rq(ct("1.2.3", fill=8)))
    (response,) = peer.messages()
    assert response.status == 0x0111
    assert response.error_comment == "another data set with this SOP Instance UID is kept"
    assert node.kept("1.2.3") == ct("1.2.3")
    assert lines_of("1.2.3") == [
        "1.2.3 from PEER is refused: an instance with this UID and other content came from PEER"
    ]
    assert is_heard(peer)


def test_another_data_set_of_the_same_uid_replaces_the_first_by_option(tmp_path: Path) -> None:
    """File and row change together."""
    node = Archive(tmp_path, duplicates=Duplicates.REPLACE)
    peer = node.sender()
    assert stored(peer, ct("1.2.3")) == 0x0000
    assert stored(peer, ct("1.2.3", pixels=1024)) == 0x0000
    assert node.kept("1.2.3") == ct("1.2.3", pixels=1024)
    assert list(verify(node.index)) == []
    assert len(node.files()) == 1
    node.close()


def test_another_data_set_of_the_same_uid_is_kept_aside_by_option(
    tmp_path: Path, lines_of: Callable[[str], list[str]]
) -> None:
    """Success for both; queries and retrieves know the first one only, and so does a new index."""
    node = Archive(tmp_path, duplicates=Duplicates.KEEP_BOTH)
    peer = node.sender()
    first, second = ct("1.2.3"), ct("1.2.3", pixels=1024)
    for data in (first, second, second, first):
        assert stored(peer, data) == 0x0000
    assert node.kept("1.2.3") == first
    (version,) = node.store.versions()
    assert data_set(version.path) == second
    assert lines_of("1.2.3") == [
        f"1.2.3 from PEER is kept aside as versions/{version.path.name}: an instance with this UID and other "
        "content came from PEER"
    ]
    assert list(verify(node.index)) == []
    assert node.index.counts().instances == 1
    node.close()
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    node.ae.start()
    assert node.kept("1.2.3") == first
    assert node.index.counts().instances == 1
    node.close()


def test_a_version_that_comes_again_gives_a_lost_row_to_the_first(tmp_path: Path) -> None:
    """The row is that of the instance that is served, not of the version."""
    node = Archive(tmp_path, duplicates=Duplicates.KEEP_BOTH)
    peer = node.sender()
    assert stored(peer, ct("1.2.3")) == 0x0000
    assert stored(peer, ct("1.2.3", fill=8)) == 0x0000
    node.index.remove("1.2.3").result()
    assert stored(peer, ct("1.2.3", fill=8)) == 0x0000
    assert node.kept("1.2.3") == ct("1.2.3")
    node.close()


@pytest.mark.parametrize("duplicates", Duplicates)
def test_without_an_index_files_are_kept_all_the_same(
    tmp_path: Path, duplicates: Duplicates
) -> None:
    """An archive for who has an index of his own."""
    store = FileStore(tmp_path, fsync=False, duplicates=duplicates)
    store.open()
    with connected(
        AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE]), ArchiveAE("NODE", store, threads=0)
    ) as pair:
        for fill, status in ((7, 0x0000), (8, 0x0111 if duplicates is Duplicates.KEEP else 0)):
            header = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax)
            answers: list[Status] = []
            file = BytesIO(header + ct("1.2.3", fill=fill))
            pair.requestor.get_scu(CT_IMAGE_STORAGE)(file).addCallback(answers.append)
            assert answers == [status]
    last = 8 if duplicates is Duplicates.REPLACE else 7
    assert data_set(store.path("1.2.3")) == ct("1.2.3", fill=last)
    store.close()


# -- anything ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(data_sets)
@settings(max_examples=60)
def test_whatever_is_a_data_set_is_kept(long_lived: Archive, made: Made) -> None:
    """Elements of every VR with values that mean nothing, nested in every way."""
    peer = long_lived.sender(made.encoding)
    data = made.encoding.identity() + made.octets
    forget(long_lived, "1.2.3")
    assert stored(peer, data) == 0x0000
    assert long_lived.kept("1.2.3") == data
    peer.transport.abortConnection()


@pytest.mark.slow
@given(st.binary(max_size=200), st.booleans(), st.sampled_from(["explicit", "deflated"]))
@settings(max_examples=60)
def test_whatever_is_none_is_refused(
    long_lived: Archive, octets: bytes, is_named: bool, kind: str
) -> None:
    """0xC000 or 0xA900, never 0x0110, and the association lives on."""
    data = EXPLICIT.identity("1.2.4") * is_named + octets
    syntax = EXPLICIT.transfer_syntax
    if kind == "deflated":
        data, syntax = deflated(data), DEFLATED
    peer = long_lived.sender(EXPLICIT._replace(transfer_syntax=syntax))
    assert stored(peer, data, "1.2.4") in ((0x0000, 0xC000) if is_named else (0xA900, 0xC000))
    peer.transport.abortConnection()


@pytest.mark.parametrize("kind", ["deep", "many"])
def test_what_no_program_could_read_is_refused(
    node: Archive, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """0xC000, and nothing is kept; the association lives on."""
    monkeypatch.setattr(walking, "ELEMENT_LIMIT", 10_000)
    data = b""
    for _ in range(1000):
        data = EXPLICIT.sequence(0x00081140, data, defined=True)
    if kind == "many":
        data = EXPLICIT.element(0x00100010, "PN") * 20_000
    peer = node.sender()
    assert stored(peer, EXPLICIT.identity("1.2.3") + data) == 0xC000
    assert node.kept("1.2.3") is None
    assert node.files() == set()
    assert is_heard(peer)


# -- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_to_its_reserve_refuses_before_anything_is_written(
    node: Archive, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """0xA700; the data set is read and dropped. When there is room again, instances are kept again.

    The log has a line when that begins, and one when it ends.
    """
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", 64)
    peer = node.sender()
    with monkeypatch.context() as patch:
        patch.setattr(node.store, "has_room", lambda: False)
        watched = watch(patch)
        assert stored(peer, ct("1.2.3")) == 0xA700
        assert watched.calls == []
        assert stored(peer, ct("1.2.3")) == 0xA700
    assert stored(peer, ct("1.2.3")) == 0x0000
    assert len([each for each in lines if each.startswith("instances are refused with ")]) == 1
    assert [each for each in lines if "again" in each] == [
        "instances are kept again; 2 were refused"
    ]


def test_the_log_says_when_the_reserve_of_the_disk_is_reached_and_when_there_is_room(
    node: Archive, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """One line each, however many instances are refused."""
    peer = node.sender()
    with monkeypatch.context() as patch:
        patch.setattr(node.store, "reserve", Amount(share=1.0))
        for _ in range(3):
            assert stored(peer, ct("1.2.3")) == 0xA700
    assert stored(peer, ct("1.2.3")) == 0x0000
    (begins, ends) = [each for each in lines if "instances are" in each]
    assert "instances are refused with 0xA700" in begins
    assert "[retention]" in begins
    assert ends == "instances are kept again; 3 were refused"


@pytest.mark.parametrize(
    ("reserve", "octets"),
    [(None, 1 << 30), (Amount(octets=5), 5), (Amount(share=0.1), 10 << 30)],
)
def test_the_reserve_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserve: Amount | None, octets: int
) -> None:
    """5 % of the disk, at most 1 GiB, or what is configured."""
    disk = SimpleNamespace(f_blocks=100 << 20, f_frsize=1 << 10, f_bavail=50 << 20)
    monkeypatch.setattr("netdicom_tx.archive.store.filestore.os.statvfs", lambda _: disk)
    assert FileStore(tmp_path, reserve=reserve).room() == (100 << 30, 50 << 30, octets)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize(
    ("call", "limit"),
    [("open", 64), ("writev", 64), ("writev", 1 << 20), ("rename", 64)],
    ids=["open", "write in the middle", "write at the end", "rename"],
)
def test_a_disk_that_refuses_is_out_of_resources(
    node: Archive,
    monkeypatch: pytest.MonkeyPatch,
    failures: LoggedFailures,
    call: str,
    limit: int,
    error: int,
) -> None:
    """0xA700, logged; nothing stays, and when the disk is well again instances are kept again."""
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", limit)
    peer = node.sender()
    with monkeypatch.context() as patch:
        watched = watch(patch, 1, error, only=call)
        assert stored(peer, ct("1.2.3")) == 0xA700
        assert watched.has_failed
    assert len(failures.texts()) == 1
    assert node.files() == set()
    assert node.index.get("1.2.3") is None
    assert stored(peer, ct("1.2.3")) == 0x0000
    assert node.kept("1.2.3") == ct("1.2.3")


@pytest.mark.parametrize(("number", "stays"), [(1, False), (2, True)], ids=["file", "folder"])
def test_what_cannot_be_synced_is_not_acknowledged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failures: LoggedFailures,
    number: int,
    stays: bool,
) -> None:
    """0xA700. A folder that fails leaves the instance, whole: it may be there, but it is not promised.

    Nothing is promised for that folder before the store is opened again.
    """
    node = Archive(tmp_path, fsync=True)
    with monkeypatch.context() as patch:
        watched = watch(patch, number, errno.EIO, only="fsync")
        assert stored(node.sender(), ct("1.2.3")) == 0xA700
        assert watched.has_failed
    assert len(failures.texts()) == 1
    path = node.store.path("1.2.3")
    assert (path.exists() and data_set(path) == ct("1.2.3")) is stays
    assert list(node.store.incoming.iterdir()) == []
    if stays:
        assert stored(node.sender(), ct("1.2.3")) == 0xA700
        assert failures.texts() == []  # it has been said
        node.close()
        node.open()
    assert stored(node.sender(), ct("1.2.3")) == 0x0000
    assert node.kept("1.2.3") == ct("1.2.3")
    node.close()


def test_the_log_says_when_a_disk_begins_to_refuse_and_when_it_ends(
    node: Archive, monkeypatch: pytest.MonkeyPatch, failures: LoggedFailures, lines: list[str]
) -> None:
    """Not for each of thousands of instances; another reason is another line."""
    peer = node.sender()
    with monkeypatch.context() as patch:
        for number, repeats in ((errno.ENOSPC, 3), (errno.EIO, 2)):
            error = OSError(number, os.strerror(number))

            def fail(*_: object, error: OSError = error, **__: object) -> NoReturn:
                raise error

            patch.setattr(node.store, "keep", fail)
            for n in range(repeats):
                assert stored(peer, ct(f"1.2.{n}"), f"1.2.{n}") == 0xA700
    assert len(failures.texts()) == 2
    assert stored(peer, ct("1.2.3")) == 0x0000
    assert stored(peer, ct("1.2.4"), "1.2.4") == 0x0000
    assert [each for each in lines if "kept again" in each] == [
        "instances are kept again; 5 were refused"
    ]


def test_a_storage_directory_that_is_gone_is_out_of_resources(
    node: Archive, failures: LoggedFailures
) -> None:
    """The disk may be unmounted, for example; the association continues."""
    moved = node.store.root.rename(node.store.root.with_name("moved"))
    peer = node.sender()
    assert stored(peer, ct("1.2.3")) == 0xA700
    assert len(failures.texts()) == 1
    moved.rename(node.store.root)
    assert stored(peer, ct("1.2.3")) == 0x0000


def test_an_index_that_is_away_is_out_of_resources(node: Archive, failures: LoggedFailures) -> None:
    """0xA700 says which of the two it was; what a restart finds is whole."""
    peer = node.sender()
    node.index.close()
    peer.send(store_rq(ct("1.2.3")))
    (response,) = peer.messages()
    assert response.status == 0xA700
    assert response.error_comment == "out of resources: the index refuses"
    assert len(failures.texts()) == 1
    node.index.open()
    assert stored(peer, ct("1.2.3")) == 0x0000
    assert node.kept("1.2.3") == ct("1.2.3")


def test_a_row_that_does_not_commit_is_out_of_resources(
    node: Archive, monkeypatch: pytest.MonkeyPatch, failures: LoggedFailures
) -> None:
    """The answer waits for the commit, not for the queue to it."""

    def refuse(*_: object) -> None:
        raise IndexUnavailableError("the disk of the database is full")

    peer = node.sender()
    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_transaction", refuse)
        assert stored(peer, ct("1.2.3")) == 0xA700
    assert len(failures.texts()) == 1
    assert stored(peer, ct("1.2.3")) == 0x0000


def test_an_error_of_ours_is_logged(
    node: Archive, monkeypatch: pytest.MonkeyPatch, failures: LoggedFailures
) -> None:
    """0x0110, processing failure: whatever kind of error it is, somebody must hear of it."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(node.store, "keep", fail)
    assert stored(node.sender(), ct("1.2.3")) == 0x0110
    assert failures.texts() == ["nobody thought of this"]


# -- starting and stopping ---------------------------------------------------------------------------------------


@pytest.mark.sqlite
def test_an_archive_that_cannot_open_its_index_gives_the_store_back(tmp_path: Path) -> None:
    """The next try finds it free."""
    (tmp_path / "index.db").mkdir()
    ae = archive(tmp_path)
    with pytest.raises(IndexUnusableError):
        ae.start()
    ae.store.open()
    ae.store.close()


def test_an_archive_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    """Nothing happens."""
    archive(tmp_path).stop()


def test_what_a_crash_left_without_a_row_is_indexed_at_the_start(tmp_path: Path) -> None:
    """And rows whose files are gone are taken out, before anybody is served; the log tells."""
    node = Archive(tmp_path)
    peer = node.sender()
    for uid in ("1.2.1", "1.2.2", "1.2.3"):
        assert stored(peer, ct(uid), uid) == 0x0000
    node.index.remove("1.2.1").result()
    node.store.path("1.2.2").unlink()
    garbage = node.store.path("1.2.9")
    garbage.write_bytes(b"garbage")
    node.close()
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        node.ae.start()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert lines == [
        "index and files did not agree: 1 files were indexed, 1 rows without a file were removed; 1 files "
        "cannot be read and are not served",
        f"{garbage} is not served: the file is not a DICOM file: expected 'DICM' at octet 128",
    ]
    assert node.kept("1.2.1") == ct("1.2.1")
    assert node.kept("1.2.2") is None
    assert node.kept("1.2.3") == ct("1.2.3")
    node.close()


def test_nodes_of_one_title_and_database_do_not_take_each_others_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start takes back those running tasks that belong to the same host and the same directory."""

    def node(host: str, storage: str) -> ArchiveAE:
        monkeypatch.setattr("socket.gethostname", lambda: host)
        index = Index(database_url(tmp_path / "index.db"), root=tmp_path / storage)
        index.open()
        return ArchiveAE("NODE", FileStore(tmp_path / storage), index)

    nodes = [node("h1", "a"), node("h1", "b"), node("h2", "a")]
    for each in nodes:
        queue = each.workflow.queue
        put = partial(queue.put, kind="report", destination="RIS", payload=0, claimed=True)
        queue.database.write(put).result()
    nodes.append(node("h1", "a"))
    restarted = nodes[-1].workflow.queue
    restarted.recover().result()
    assert [task.state for task in restarted.list()] == [WAITING, RUNNING, RUNNING]
    for each in nodes:
        each.stop()


def test_an_archive_without_an_index_starts_and_stops(tmp_path: Path) -> None:
    """It says where it keeps what."""
    ae = ArchiveAE("NODE", FileStore(tmp_path), reactor=Clock())
    ae.start()
    ae.stop()
    assert ae.about() == f", storage {tmp_path}"


def logged_lines() -> tuple[list[str], Callable[[], None]]:
    """What is logged from now on, and what ends that."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    return lines, lambda: globalLogPublisher.removeObserver(observe)


def test_a_replacement_does_not_wait_for_an_index_that_has_just_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: LoggedFailures
) -> None:
    """All others would wait behind it, each for as long again: the answers came after 20 and 30 s."""
    node = Archive(tmp_path, duplicates=Duplicates.REPLACE)
    peer = node.sender()
    assert stored(peer, ct("1.2.3")) == 0x0000

    def refuse() -> None:
        raise IndexUnavailableError("the index refuses: database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(node.index, "check", refuse)
        patch.setattr(node.index, "remove", lambda _: pytest.fail("it would wait here"))
        assert stored(peer, ct("1.2.3", pixels=1024)) == 0xA700
    assert len(failures.texts()) == 1
    assert node.kept("1.2.3") == ct("1.2.3")
    assert stored(peer, ct("1.2.3", pixels=1024)) == 0x0000
    node.close()


class StartedTests(TestCase):
    """With its threads, on the real reactor, through sockets."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "archive"

    async def start(self, ae: ArchiveAE) -> RemoteAE:
        """Started and listening until the end of the test."""
        ae.start()
        port = await ae.listen("tcp:0:interface=127.0.0.1")

        async def stop() -> None:
            await port.stopListening()
            await shut_down(ae)

        self.addCleanup(stop)
        return RemoteAE("NODE", f"tcp:127.0.0.1:{port.getHost().port}")

    async def send(self, remote: RemoteAE, instances: dict[str, bytes]) -> list[int]:
        """Store on one association, one after the other; C-ECHO at the end."""
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE]).add_scu(verification_scu)
        async with await ae.request_association(remote) as asce:
            statuses = []
            ctx = asce.contexts_for(CT_IMAGE_STORAGE)[0]
            for uid, data in instances.items():
                response = await asce.request(store_rq(data, uid, message_id=None), ctx)
                statuses.append(int(response.status))
            assert await asce.get_scu(VERIFICATION_SOP_CLASS)() == 0x0000
            return statuses

    async def test_nobody_is_served_before_files_and_index_agree(self) -> None:
        """D6: 100,000 files take long. Meanwhile the reactor is free, peers are rejected, and the log says how far."""
        ae = archive(self.directory)
        lines, remove = logged_lines()
        self.addCleanup(remove)
        clock, may_go_on = [0.0], threading.Event()

        def listing(*_: object) -> Iterator[tuple[str, str, int]]:
            for number in range(100_000):
                clock[0] += 0.001
                if number == 50_000:
                    assert may_go_on.wait(30)
                yield f"instances/{number:06}", f"/none/such/{number}", 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconcile_module, "_listing", listing)
            patch.setattr("netdicom_tx.archive.starting.monotonic", lambda: clock[0])
            started = ae.start_soon()
            port = await ae.listen("tcp:0:interface=127.0.0.1")
            self.addCleanup(port.stopListening)
            remote = RemoteAE("NODE", f"tcp:127.0.0.1:{port.getHost().port}")
            with pytest.raises(AssociationRejectedError, match="congestion"):
                await self.send(remote, {})
            assert not started.called
            may_go_on.set()
            await started
        assert await self.send(remote, {"1.2.1": ct("1.2.1")}) == [0x0000]
        await shut_down(ae)
        assert lines[0].startswith("files and index are being compared; requests for associations")
        assert sum("files have been compared with the index" in line for line in lines) >= 8
        assert any("0 files were indexed" in line and "100000 files" in line for line in lines)

    async def test_an_archive_that_is_stopped_while_it_starts_ends_at_once(self) -> None:
        """The comparison ends before the next file, and the store is given back."""
        ae = archive(self.directory)
        looked_at: list[int] = []
        in_the_middle = threading.Event()

        def listing(*_: object) -> Iterator[tuple[str, str, int]]:
            for number in range(100_000):
                looked_at.append(number)
                if number == 10:
                    in_the_middle.set()
                    assert ae._preparation.is_given_up.wait(30)
                yield f"instances/{number:06}", f"/none/such/{number}", 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconcile_module, "_listing", listing)
            started = ae.start_soon()
            assert in_the_middle.wait(30)
            await shut_down(ae)
            with pytest.raises(CancelledError):
                await started
        assert len(looked_at) == 11
        ae.store.open()
        ae.store.close()

    async def test_a_start_in_a_thread_fails_with_one_sentence(self) -> None:
        """Whether it fails before the patience is over or later; the store is given back."""
        ae = archive(self.directory)
        broken = IndexUnavailableError("no such page")

        def listing(*_: object) -> Iterator[tuple[str, str, int]]:
            yield from ()
            raise broken

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconcile_module, "_listing", listing)
            with pytest.raises(IndexUnusableError, match="no such page; if the file is damaged"):
                ae.start_soon(30.0)
            going_on = threading.Event()
            patch.setattr(
                reconcile_module, "_listing", lambda *_: listing() if going_on.wait(30) else None
            )
            started = ae.start_soon()
            going_on.set()
            with pytest.raises(IndexUnusableError, match="no such page; if the file is damaged"):
                await started
            patch.setattr(
                reconcile_module,
                "_listing",
                lambda *_: (_ for _ in ()).throw(OSError(5, "no disk")),
            )
            with pytest.raises(StorageError, match="cannot be read: no disk"):
                ae.start_soon(30.0)
        ae.start()
        await shut_down(ae)

    @pytest.mark.sqlite
    async def test_files_and_rows_are_there_when_the_association_has_been_released(self) -> None:
        """A script that has stored may look at the directory, and another process at the index."""
        ae = archive(self.directory)
        remote = await self.start(ae)
        sent = {f"1.2.{n}": ct(f"1.2.{n}") for n in range(10)}
        assert await self.send(remote, sent) == [0x0000] * len(sent)
        assert all(data_set(ae.store.path(uid)) == data for uid, data in sent.items())
        assert ae.index is not None
        with sqlite3.connect(self.directory / "index.db") as rows:
            assert rows.execute("SELECT count(*) FROM instance").fetchone() == (len(sent),)
        rows.close()

    @pytest.mark.sqlite
    async def test_a_release_does_not_wait_for_a_disk_that_stalls(self) -> None:
        """Neither that of the sender for long, nor that of another peer at all; both would run into a timeout."""
        ae = archive(self.directory)
        remote = await self.start(ae)
        may_go_on = threading.Event()
        self.addCleanup(may_go_on.set)
        real = ae.store.place

        def place(path: str, octets: bytes) -> None:
            assert may_go_on.wait(60)
            real(path, octets)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ae.store, "place", place)
            sender = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
            asce = await sender.request_association(remote)
            ctx = asce.contexts_for(CT_IMAGE_STORAGE)[0]
            response = await asce.request(store_rq(ct("1.2.3"), "1.2.3", message_id=None), ctx)
            assert response.status == 0x0000
            patch.setattr("netdicom_tx.archive.storing._RELEASE_WAITS", 1000)
            assert await self.send(remote, {}) == []
            patch.setattr("netdicom_tx.archive.storing._RELEASE_WAITS", 0.1)
            await asce.release()
            assert not ae.store.path("1.2.3").exists()
            may_go_on.set()

    async def test_parallel_senders_are_served_by_threads(self) -> None:
        """Each gets its own answers; everything is kept, small and large."""
        ae = archive(self.directory)
        in_reactor = threading.get_ident()
        writers: set[int] = set()
        real = ae.store.keep

        def keep(spool: Any, **options: Any) -> Any:
            writers.add(threading.get_ident())
            return real(spool, **options)

        ae.store.keep = keep  # type: ignore[method-assign]
        remote = await self.start(ae)
        sent = [
            {
                f"1.{sender}.{n}": ct(f"1.{sender}.{n}", pixels=[512, 3 << 20][n % 2])
                for n in range(6)
            }
            for sender in range(4)
        ]
        results = await gatherResults(
            [Deferred.fromCoroutine(self.send(remote, instances)) for instances in sent]
        )
        assert results == [[0x0000] * 6] * 4
        assert writers
        assert in_reactor not in writers
        assert ae.index is not None
        assert ae.index.counts().instances == 24
        for instances in sent:
            for uid, data in instances.items():
                assert data_set(ae.store.path(uid)) == data
        assert list(ae.store.incoming.iterdir()) == []

    async def test_each_answer_is_its_own(self) -> None:
        """Good and bad instances by turns, through threads."""
        ae = archive(self.directory)
        remote = await self.start(ae)
        instances = {
            "1.2.1": ct("1.2.1"),
            "1.2.2": ct("1.2.2")[:-2],
            "1.2.3": ct("1.2.9"),
            "1.2.4": ct("1.2.4"),
        }
        assert await self.send(remote, instances) == [0x0000, 0xC000, 0xA900, 0x0000]
        assert await self.send(remote, {"1.2.1": ct("1.2.1", fill=8)}) == [0x0111]

    async def test_work_is_done_in_a_thread_while_it_runs(self) -> None:
        """Before and after it is refused, for it would hold up the reactor."""
        ae = archive(self.directory)
        here = threading.get_ident()
        with pytest.raises(RuntimeError, match="not running"):
            await ae.in_thread(threading.get_ident)
        ae.start()
        assert await ae.in_thread(threading.get_ident) != here
        await shut_down(ae)
        with pytest.raises(RuntimeError, match="not running"):
            await ae.in_thread(threading.get_ident)

    async def test_a_restarted_archive_has_what_it_had(self) -> None:
        """And indexes what a crash left without a row."""
        ae = archive(self.directory)
        remote = await self.start(ae)
        assert await self.send(remote, {"1.2.1": ct("1.2.1")}) == [0x0000]
        await shut_down(ae)
        for path in self.directory.glob("index.db*"):
            path.unlink()
        ae.start()
        assert ae.index is not None
        found = ae.index.get("1.2.1")
        assert found is not None
        assert data_set(found.path) == ct("1.2.1")
