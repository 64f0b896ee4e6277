"""What goes wrong with a C-STORE, from a hostile data set to a full disk; each case by its number.

After every case the association answers C-ECHO where it is still there, others are served, nothing
partial is left, no descriptor stays open, and nothing has changed outside the storage directory.
"""

import errno
import os
import subprocess
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu
from netdicom_tx.archive import ArchiveAE, Duplicates, FileStore, StorageError
from netdicom_tx.archive.store import filestore, intake, spool
from netdicom_tx.archive.store.filestore import Outcome
from netdicom_tx.archive.store.reconcile import verify
from netdicom_tx.asceprovider import Association
from netdicom_tx.fragments import fragment
from netdicom_tx.pdu import AAbort
from support import doubles
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
    ENCODINGS,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    Encoding,
    ct,
    deflated,
)
from support.archive.system import watch
from support.doubles import LoggedFailures, RawPeer
from support.doubles import logged_failures as logged_failures
from support.processes import eventually

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
PATIENCE = 30.0
each_encoding = pytest.mark.parametrize(
    "encoding", ENCODINGS, ids=lambda each: each.transfer_syntax
)


def tree(root: Path, but: Path) -> dict[Path, bytes | None]:
    """Everything below a directory, but for one folder in it."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
        if path != but and but not in path.parents
    }


def open_files(root: Path) -> list[str]:
    """Files of instances that this process has open; deleted ones too."""
    links = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(each))
        except FileNotFoundError:  # the one that listed
            continue
    return [each for each in links if each.startswith((f"{root}/incoming", f"{root}/instances/"))]


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    """An archive in memory, with the options of an indirect parameter; it must survive the test unharmed."""
    (tmp_path / "outside").write_bytes(b"untouched")
    opened = Archive(tmp_path / "root" / "archive", **getattr(request, "param", {}))
    before = tree(tmp_path, opened.store.root)
    yield opened
    assert opened.lives()
    assert list(opened.store.incoming.iterdir()) == []
    assert open_files(opened.store.root) == []
    assert tree(tmp_path, opened.store.root) == before
    opened.close()


@pytest.fixture(params=[1 << 20, 64], ids=["in memory", "in a file"])
def spooled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small instances arrive in memory, or in a file as big ones do."""
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", request.param)


# -- 53 to 59: what the data set says -----------------------------------------------------------------------


def test_case_53_a_class_that_is_not_of_the_context_is_refused(node: Archive) -> None:
    """0x0122, SOP class not supported, whatever the data set says."""
    peer = node.sender()
    for data in (ct("1.2.3"), EXPLICIT.identity("1.2.3", MR_IMAGE_STORAGE)):
        assert stored(peer, data, "1.2.3", MR_IMAGE_STORAGE) == 0x0122
    assert node.files() == set()


@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize(
    "data", [ct("1.2.4"), EXPLICIT.identity("1.2.3", MR_IMAGE_STORAGE), EXPLICIT.identity("../x")]
)
def test_case_54_a_data_set_of_another_instance_is_refused(node: Archive, data: bytes) -> None:
    """0xA900, data set does not match SOP class."""
    assert stored(node.sender(), data, "1.2.3") == 0xA900
    assert node.files() == set()


@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (ct("1.2.3", pixels=300_000)[:-2], EXPLICIT),
        (ct("1.2.3", pixels=300_000)[:-200_000], EXPLICIT),
        (ct("1.2.3", encoding=IMPLICIT), EXPLICIT),
        (ct("1.2.3", encoding=EXPLICIT), IMPLICIT),
        (bytes(300_001), EXPLICIT),
        (b"\xff" * 300_000, IMPLICIT),
        (b"", EXPLICIT),
    ],
    ids=["cut", "cut in half", "implicit", "explicit", "zeros", "ones", "empty"],
)
def test_case_55_what_is_no_data_set_is_refused_when_all_of_it_has_come(
    node: Archive, data: bytes, encoding: Encoding
) -> None:
    """0xC000, cannot understand; it came in several PDUs, and the association goes on behind them."""
    peer = node.sender(encoding)
    assert stored(peer, data) == 0xC000
    assert stored(peer, ct("1.2.3", encoding=encoding)) == 0x0000
    assert node.kept("1.2.3") == ct("1.2.3", encoding=encoding)


@each_encoding
@pytest.mark.parametrize(
    "end",
    [
        lambda encoding: encoding.element(0x00091001, "OB", b"abcd", 0xFFFFFFFE),
        lambda encoding: encoding.element(0x00091001, "SQ", b"", UNDEFINED),
        lambda encoding: encoding.element(0x7FE00010, "OB", b"", UNDEFINED),
        lambda encoding: encoding.sequence(0x00091001, b"")[:-8],
    ],
    ids=["length", "sequence", "fragments", "delimiter"],
)
def test_case_56_a_length_that_lies_is_refused(
    node: Archive, encoding: Encoding, end: Callable[[Encoding], bytes]
) -> None:
    """0xC000, and nothing is allocated for it."""
    peer = node.sender(encoding)
    tracemalloc.start()
    try:
        assert stored(peer, encoding.identity() + end(encoding)) == 0xC000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert node.files() == set()


@each_encoding
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "never closed"])
def test_case_57_sequences_nested_ten_thousand_deep_are_refused(
    node: Archive, encoding: Encoding, is_closed: bool
) -> None:
    """0xC000, without recursion."""
    opening = encoding.element(0x00081140, "SQ", b"", UNDEFINED) + encoding.element(
        0xFFFEE000, "", b"", UNDEFINED
    )
    closing = encoding.element(0xFFFEE00D, "") + encoding.element(0xFFFEE0DD, "")
    data = encoding.identity() + opening * 10_000 + closing * 10_000 * is_closed
    assert stored(node.sender(encoding), data) == 0xC000
    assert node.files() == set()


@each_encoding
@pytest.mark.parametrize("tag", [0x00081140, 0x00400275], ids=["not indexed", "indexed"])
def test_case_57_nesting_of_defined_length_is_refused(
    node: Archive, encoding: Encoding, tag: int
) -> None:
    """It is refused too, because a later reader may recurse."""
    inside = b""
    for _ in range(2000):
        inside = encoding.sequence(tag, inside, defined=True)
    assert stored(node.sender(encoding), encoding.identity() + inside) == 0xC000
    assert node.files() == set()


@pytest.mark.parametrize(
    "uid",
    [
        *("../../outside", "/abs", "../..", "a/b", "1.2\\3", "~", "", " ", "1." * 32 + "1"),
        *("1" * 65, "1.2\0.3", "1.2.\xe9", "\xff" * 64, "1.2.3\n", "x" * 60_000, "-1", "1,2"),
    ],
    ids=ascii,
)
def test_case_58_a_uid_that_is_none_is_refused(node: Archive, uid: str) -> None:
    """0xA900 or 0xC000; nothing is written under such a name, or outside."""
    peer = node.sender()
    data = EXPLICIT.identity(uid[:64].encode("latin-1").decode("latin-1").replace("\xe9", "e"))
    for each in (data, ct("1.2.3")):
        assert stored(peer, each, uid) in (0xA900, 0xC000)
    assert node.files() == set()


@pytest.mark.parametrize("uid", [".", "..", "1..2", ".1", "1.", "01.002", "1" * 64])
def test_case_58_a_uid_that_is_bad_and_harmless_is_kept(node: Archive, uid: str) -> None:
    """Some devices send such; the name of the file is a digest."""
    data = ct(uid)
    assert stored(node.sender(), data, uid) == 0x0000
    assert node.kept(uid) == data
    (name,) = node.files()
    assert name.startswith("instances/")
    assert uid not in (Path(name).name, Path(name).parent.name)


@pytest.mark.parametrize("value", [b"..", b".", b"../../outside ", b"/etc/passwd ", b"a\0b "])
def test_case_59_names_in_the_data_set_lead_nowhere(node: Archive, value: bytes) -> None:
    """Patient ID, Study and Series Instance UID are no part of a path."""
    value += b" " * (len(value) % 2)
    data = (
        EXPLICIT.identity()
        + EXPLICIT.element(0x00100020, "LO", value)
        + EXPLICIT.element(0x0020000D, "UI", value)
        + EXPLICIT.element(0x0020000E, "UI", value)
    )
    assert stored(node.sender(), data) == 0x0000
    assert node.kept("1.2.3") == data


# -- 60 to 62: links, bombs, giants -------------------------------------------------------------------------


def test_case_60_a_link_planted_for_an_instance_is_not_followed(
    node: Archive, tmp_path: Path, failures: LoggedFailures
) -> None:
    """0xA700, and an error in the log; the fixture looks at what it points to."""
    node.store.path("1.2.3").symlink_to(tmp_path / "outside")
    assert stored(node.sender(), ct("1.2.3")) == 0xA700
    assert len(failures.texts()) == 1
    assert node.store.path("1.2.3").is_symlink()
    node.store.path("1.2.3").unlink()
    assert stored(node.sender(), ct("1.2.3")) == 0x0000


def test_case_60_a_link_planted_for_a_folder_is_not_followed(
    node: Archive, tmp_path: Path, failures: LoggedFailures
) -> None:
    """The same; other folders are not touched by it."""
    folder = node.store.path("1.2.3").parent
    folder.rmdir()
    folder.symlink_to(tmp_path / "root")
    peer = node.sender()
    assert stored(peer, ct("1.2.3")) == 0xA700
    assert len(failures.texts()) == 1
    assert stored(peer, ct("1.2.4"), "1.2.4") == 0x0000


def bomb(size: int) -> bytes:
    """A deflated image of one colour."""
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = bytearray(stream.compress(EXPLICIT.identity()))
    packed += stream.compress(EXPLICIT.element(0x7FE00010, "OB", b"", length=size))
    for _ in range(size >> 20):
        packed += stream.compress(bytes(1 << 20))
    packed += stream.flush()
    return bytes(packed) + b"\0" * (len(packed) % 2)


@pytest.mark.slow
def test_case_61_a_deflate_bomb_is_kept_as_it_came(node: Archive) -> None:
    """Quarter of a MiB that is 256 MiB inflated: it may be honest, and costs what it came with."""
    data = bomb(1 << 28)
    assert len(data) < 1 << 19
    peer = node.sender(EXPLICIT._replace(transfer_syntax=DEFLATED))
    tracemalloc.start()
    try:
        assert stored(peer, data) == 0x0000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert node.kept("1.2.3") == data


@pytest.mark.parametrize(
    "data", [b"\xff" * 1000, deflated(ct("1.2.3"))[:-20], b"", deflated(b"\xff" * 1000)]
)
def test_case_61_a_damaged_deflate_stream_is_refused(node: Archive, data: bytes) -> None:
    """0xC000."""
    peer = node.sender(EXPLICIT._replace(transfer_syntax=DEFLATED))
    assert stored(peer, data) == 0xC000
    assert node.files() == set()


def test_case_62_an_instance_of_more_than_4_gib_is_walked_and_named(tmp_path: Path) -> None:
    """Offsets have 64 bits; the pixels are a hole in the file here, so that they cost no disk."""
    store = FileStore(tmp_path, fsync=False)
    store.open()
    length = 0xFFFFFFF0
    with store.spool(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax, "") as arriving:
        arriving.write(EXPLICIT.identity())
        for tag in (0x7FE00008, 0x7FE00010):
            arriving.write(EXPLICIT.element(tag, "OB", b"", length=length))
            os.lseek(arriving.flush_to_file(), length, os.SEEK_CUR)
        arriving.write(EXPLICIT.element(0xFFFCFFFC, "OB", b"the end "))
        tracemalloc.start()
        try:
            kept = store.keep(arriving)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept.outcome is Outcome.STORED
    assert kept.path.stat().st_size > 2 * length
    assert peak < 1 << 20
    with store.spool(CT_IMAGE_STORAGE, "1.2.4", EXPLICIT.transfer_syntax, "") as arriving:
        arriving.write(EXPLICIT.identity("1.2.4"))
        arriving.write(EXPLICIT.element(0x7FE00010, "OB", b"", length=length))
        os.lseek(arriving.flush_to_file(), length - 1, os.SEEK_CUR)
        arriving.write(b"x")
        assert store.keep(arriving).outcome is Outcome.STORED
    with store.spool(CT_IMAGE_STORAGE, "1.2.5", EXPLICIT.transfer_syntax, "") as arriving:
        arriving.write(EXPLICIT.identity("1.2.5"))
        arriving.write(EXPLICIT.element(0x7FE00010, "OB", b"", length=length))
        os.lseek(arriving.flush_to_file(), length - 2, os.SEEK_CUR)
        arriving.write(b"x")
        with pytest.raises(
            filestore.NetDICOMError, match=f"{length} octets, {length - 1} are left"
        ):
            store.keep(arriving)
    store.close()


# -- 63 and 64: who goes away ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize(
    "leave",
    [
        lambda peer: peer.transport.abortConnection(),
        lambda peer: peer.transport.loseConnection(),
        lambda peer: peer.send(AAbort(0, 0)),
        lambda peer: (peer.send(b"\x04\0\0\0\x10\0\0"), peer.transport.abortConnection()),
        lambda peer: peer.send(b"\x09" * 10),
    ],
    ids=["reset", "closed", "aborted", "reset within a PDU", "garbage"],
)
@pytest.mark.parametrize("sent", [1, 2, 10], ids=["command", "command and data", "almost all"])
def test_case_63_what_a_lost_connection_leaves_is_removed(
    node: Archive, leave: Callable[[RawPeer], None], sent: int
) -> None:
    """In the middle of the data set: no file, no row, no descriptor."""
    pdus = list(fragment(store_rq(ct("1.2.3", pixels=10_000)), context_id=1, limit=1024))
    assert len(pdus) > 10
    peer = node.sender()
    peer.send(*pdus[:sent])
    leave(peer)
    assert node.files() == set()
    assert node.kept("1.2.3") is None


def test_case_63_what_does_not_go_on_is_ended_and_removed(
    node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that says nothing any more is cut off when the idle timeout is over."""
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", 64)
    peer = node.sender()
    peer.send(doubles.message(store_rq(ct("1.2.3", pixels=10_000)))[:-100])
    assert len(node.files()) == 1
    node.advance(node.ae.timeouts.idle + 1)
    assert node.files() == set()
    assert doubles.ABORT in peer.kinds()


class StartedTests(TestCase):
    """What takes threads: an archive on the real reactor."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.directory = tmp_path / "archive"
        yield
        assert list(self.directory.glob("incoming/*")) == []
        assert open_files(self.directory) == []

    async def start(self, **options: Any) -> ArchiveAE:
        """Started and listening until the end of the test."""
        ae = archive(self.directory, **options)
        ae.start()
        port = await ae.listen("tcp:0:interface=127.0.0.1")
        self.remote = RemoteAE("NODE", f"tcp:127.0.0.1:{port.getHost().port}")

        async def stop() -> None:
            await port.stopListening()
            await shut_down(ae)

        self.addCleanup(stop)
        return ae

    async def associate(self) -> Association:
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        return await ae.request_association(
            self.remote, {CT_IMAGE_STORAGE: [EXPLICIT.transfer_syntax]}
        )

    def store(self, asce: Association, data: bytes, uid: str = "1.2.3") -> Deferred[int]:
        """Send a C-STORE; its status."""
        (ctx,) = asce.contexts_for(CT_IMAGE_STORAGE)
        answer = asce.request(store_rq(data, uid, message_id=None), ctx)
        return answer.addCallback(lambda response: int(response.status))

    async def in_the_end(self, condition: Callable[[], bool]) -> None:
        await deferToThread(eventually, condition, "condition")

    def hold(self, module: Any, name: str) -> tuple[list[Any], threading.Event]:
        """Let the calls of a function wait for an event; the first arguments of those that came."""
        waiting: list[Any] = []
        may_go_on = threading.Event()
        real = getattr(module, name)

        def held(first: Any, *arguments: Any, **options: Any) -> Any:
            waiting.append(first)
            assert may_go_on.wait(PATIENCE)
            return real(first, *arguments, **options)

        self.patch(module, name, held)
        self.addCleanup(may_go_on.set)
        return waiting, may_go_on

    @pytest.mark.slow
    async def test_case_64_an_instance_that_nobody_waits_for_any_more_is_kept_whole(self) -> None:
        """The connection is lost behind the last PDV, while a thread is keeping the instance."""
        ae = await self.start()
        assert ae.index is not None
        waiting, may_go_on = self.hold(spool, "walk")
        in_committer, committer_may_go_on = self.hold(intake, "walk")
        sent = {f"1.2.{n}": ct(f"1.2.{n}", pixels=pixels) for n, pixels in ((1, 512), (2, 3 << 20))}
        for number, (uid, data) in enumerate(sent.items()):
            asce = await self.associate()
            answer = self.store(asce, data, uid)
            answer.addErrback(lambda _: None)
            await self.in_the_end(
                lambda number=number: len(waiting) + len(in_committer) > number  # type: ignore[misc]
            )
            asce.drop()
            await answer
        assert len(in_committer) == 1
        await self.in_the_end(lambda: not ae.associations)
        may_go_on.set()
        committer_may_go_on.set()
        index = ae.index
        await self.in_the_end(lambda: index.counts().instances == 2)
        for uid, data in sent.items():
            assert data_set(ae.store.path(uid)) == data
        await self.in_the_end(lambda: not open_files(self.directory))
        assert list(verify(index)) == []

    async def test_case_64_an_instance_that_no_thread_has_come_to_is_kept(self) -> None:
        """The thread is busy; the connection is lost before it is free."""
        ae = await self.start()
        assert ae.index is not None
        waiting, may_go_on = self.hold(ae.store.journal, "append")
        busy = [self.store(await self.associate(), ct("1.3.0"), "1.3.0")]
        await self.in_the_end(lambda: len(waiting) == 1)
        busy += [self.store(await self.associate(), ct(f"1.3.{n}"), f"1.3.{n}") for n in (1, 2, 3)]
        asce = await self.associate()
        answer = self.store(asce, ct("1.2.3"))
        answer.addErrback(lambda _: None)
        await self.in_the_end(lambda: sum(each.operations for each in ae.associations) == 5)
        asce.drop()
        await answer
        await self.in_the_end(lambda: len(ae.associations) == 4)
        may_go_on.set()
        assert await gatherResults(busy) == [0x0000] * 4
        assert self.flushLoggedErrors() == []
        again = await self.associate()
        assert await self.store(again, ct("1.2.9"), "1.2.9") == 0x0000
        index = ae.index
        await self.in_the_end(lambda: index.counts().instances == 6)
        assert data_set(ae.store.path("1.2.3")) == ct("1.2.3")
        for each in list(ae.associations):
            each.abort()

    # -- 68: eight at once -----------------------------------------------------------------------------

    async def eight(self, data: list[bytes]) -> list[int]:
        """Eight associations that store the same SOP Instance UID at once."""
        associations = await gatherResults(
            [Deferred.fromCoroutine(self.associate()) for _ in range(8)]
        )
        statuses = await gatherResults(
            [self.store(asce, each) for asce, each in zip(associations, data, strict=True)]
        )
        await gatherResults([asce.release() for asce in associations])
        return list(statuses)

    async def test_case_68_the_same_instance_from_eight_at_once_is_one_copy(self) -> None:
        """All are told of success, and it is true."""
        ae = await self.start()
        data = ct("1.2.3", pixels=1 << 18)
        assert await self.eight([data] * 8) == [0x0000] * 8
        assert data_set(ae.store.path("1.2.3")) == data
        assert ae.index is not None
        assert ae.index.counts().instances == 1
        assert list(verify(ae.index)) == []

    async def test_case_68_of_eight_that_differ_one_is_kept_whole(self) -> None:
        """The sender that gets Success is the one whose data set is there."""
        ae = await self.start()
        data = [ct("1.2.3", pixels=1 << 18, fill=fill) for fill in range(8)]
        statuses = await self.eight(data)
        assert sorted(statuses) == [0x0000] + [0x0111] * 7
        assert data_set(ae.store.path("1.2.3")) == data[statuses.index(0x0000)]
        assert ae.index is not None
        assert list(verify(ae.index)) == []

    @pytest.mark.slow
    async def test_case_68_of_eight_that_replace_each_other_one_is_kept_whole(self) -> None:
        """The row is that of the file."""
        ae = await self.start(duplicates=Duplicates.REPLACE)
        data = [ct("1.2.3", pixels=(1 << 18) + 2 * fill, fill=fill) for fill in range(8)]
        assert await self.eight(data) == [0x0000] * 8
        assert data_set(ae.store.path("1.2.3")) in data
        assert ae.index is not None
        assert ae.index.counts().instances == 1
        assert list(verify(ae.index)) == []


# -- 65: the disk ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB; only root may mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield path
    # Lazily: what a failed test has left open must not keep it.
    subprocess.run(["umount", "-l", path], check=True)


def test_case_65_a_disk_that_becomes_full_refuses_and_recovers(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, failures: LoggedFailures
) -> None:
    """0xA700 in mid-write and at the reserve, on an association that goes on; without a restart."""
    monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", 1 << 16)
    node = Archive(small_disk / "archive")
    peer = node.sender()
    assert stored(peer, ct("1.2.1"), "1.2.1") == 0x0000
    assert stored(peer, ct("1.2.2", pixels=10 << 20), "1.2.2") == 0xA700
    assert len(failures.texts()) == 1
    assert list(node.store.incoming.iterdir()) == []
    assert stored(peer, ct("1.2.3"), "1.2.3") == 0x0000

    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        disk = os.statvfs(small_disk)
        file.write(bytes(disk.f_bavail * disk.f_frsize - (300 << 10)))
    assert not node.store.has_room()
    assert stored(peer, ct("1.2.4"), "1.2.4") == 0xA700
    ballast.unlink()
    assert stored(peer, ct("1.2.4"), "1.2.4") == 0x0000
    assert [node.kept(uid) for uid in ("1.2.1", "1.2.3", "1.2.4")] == [
        ct("1.2.1"),
        ct("1.2.3"),
        ct("1.2.4"),
    ]
    assert node.kept("1.2.2") is None
    assert len(node.files()) == 3
    node.close()


@pytest.mark.usefixtures("spooled")
@pytest.mark.parametrize("node", [{"fsync": True}], indirect=True, ids=["fsync"])
@pytest.mark.parametrize("call", ["writev", "fsync"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_case_65_a_disk_that_fails_is_no_success(
    node: Archive, monkeypatch: pytest.MonkeyPatch, failures: LoggedFailures, call: str, error: int
) -> None:
    """0xA700, once: a failed fsync is not tried again."""
    peer = node.sender()
    with monkeypatch.context() as patch:
        watched = watch(patch, 1, error, only=call)
        assert stored(peer, ct("1.2.3")) == 0xA700
        assert [each.name for each in watched.calls].count(call) == 1
    assert len(failures.texts()) == 1
    assert node.files() == set()
    assert stored(peer, ct("1.2.3")) == 0x0000


# -- 90: two nodes -----------------------------------------------------------------------------------------------


def test_case_90_a_second_node_on_the_same_storage_does_not_start(node: Archive) -> None:
    """It reports that, and touches nothing: a file that arrives at the first node is not a leftover."""
    octets = doubles.message(store_rq(ct("1.2.3", pixels=3 << 20)))
    peer = node.sender()
    peer.send(octets[:-100])
    assert len(node.files()) == 1
    with pytest.raises(StorageError, match="is in use by another node"):
        archive(node.store.root).start()
    peer.send(octets[-100:])
    assert peer.statuses() == [0x0000]
    assert is_heard(peer)
    assert node.kept("1.2.3") == ct("1.2.3", pixels=3 << 20)
