"""The journal: what was appended comes back, whatever is left of the files."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import support.strategies  # noqa: F401 - its Hypothesis profile
from netdicom_tx.archive.store import journal as journals
from netdicom_tx.archive.store.journal import PAGE, Entry, Journal, JournalError, sync_files

SIZE = 8 * PAGE


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of eight pages."""
    monkeypatch.setattr(journals, "SEGMENT_SIZE", SIZE)


def entry(octets: bytes) -> Entry:
    """The entry of some octets."""
    return Entry(octets, hashlib.sha256(octets).digest())


def left(folder: Path) -> list[bytes]:
    """What the next process finds."""
    found = list(Journal(folder).recover())
    assert all(hashlib.sha256(octets).hexdigest() == digest for octets, digest in found)
    return [octets for octets, _ in found]


def test_records_come_back_in_their_order(tmp_path: Path) -> None:
    """Also those of several segments, and of several calls."""
    journal = Journal(tmp_path)
    sent = [bytes([n]) * (n * 700) for n in range(1, 13)]
    for start in range(0, len(sent), 5):
        journal.append([entry(each) for each in sent[start : start + 5]])
    journal.close()
    assert len(list(tmp_path.glob("*.segment"))) > 1
    assert left(tmp_path) == sent


def test_an_empty_folder_has_no_records(tmp_path: Path) -> None:
    """Neither has a segment to which nothing was written."""
    assert left(tmp_path) == []
    (tmp_path / "1-1.segment").write_bytes(bytes(SIZE))
    (tmp_path / "1-2.segment").write_bytes(b"")
    assert left(tmp_path) == []


@given(sizes=st.lists(st.integers(1, 3 * PAGE), min_size=1, max_size=6), data=st.data())
@settings(max_examples=60)
def test_an_octet_that_is_wrong_costs_one_record_or_the_tail(
    tmp_path_factory: pytest.TempPathFactory, sizes: Sequence[int], data: st.DataObject
) -> None:
    """In its head, nobody knows where the next one begins; otherwise those behind it come back."""
    folder = tmp_path_factory.mktemp("journal")
    sent = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    journal = Journal(folder, fsync=False)
    segments = journal.append([entry(each) for each in sent])
    journal.close()
    which = data.draw(st.integers(0, len(sent) - 1))
    path = segments[which].path
    octets = bytearray(path.read_bytes())
    position = 0
    for each, segment in zip(sent[:which], segments, strict=False):
        if segment is segments[which]:
            position += -(-(64 + len(each)) // PAGE) * PAGE
    # The last four octets of the head mean nothing.
    at = position + data.draw(
        st.integers(0, 63 + len(sent[which])).filter(lambda n: n not in range(60, 64))
    )
    octets[at] ^= 0x10
    path.write_bytes(octets)
    is_head = at < position + 64
    expected = [
        each
        for n, each in enumerate(sent)
        if segments[n].path != path or n < which or (n > which and not is_head)
    ]
    assert left(folder) == expected


def test_a_cut_file_ends_the_segment(tmp_path: Path) -> None:
    """A file system may lose the length of a file that was not synced."""
    journal = Journal(tmp_path)
    (segment, _) = journal.append([entry(b"a" * 100), entry(b"b" * 100)])
    journal.close()
    os.truncate(segment.path, PAGE + 150)
    assert left(tmp_path) == [b"a" * 100]


def test_a_segment_is_used_again(tmp_path: Path) -> None:
    """Older records behind the new ones do not come back."""
    journal = Journal(tmp_path)
    old = journal.append([entry(bytes([n]) * 5000) for n in range(4)])
    assert len({each.path for each in old}) == 1
    journal.seal()
    assert journal.finished == []
    journal.finish(old)
    journal.retire(journal.finished)
    assert left(tmp_path) == []
    assert journal.is_empty
    new = journal.append([entry(b"new" * 100)])
    assert new[0].path == old[0].path
    assert left(tmp_path) == [b"new" * 100]
    journal.close()


def test_an_unfinished_segment_is_not_retired(tmp_path: Path) -> None:
    """One of its records is not a file yet."""
    journal = Journal(tmp_path)
    segments = journal.append([entry(b"a"), entry(b"b")])
    journal.seal()
    journal.finish(segments[:1])
    assert journal.finished == []
    journal.finish(segments[1:])
    assert journal.finished == segments[:1]
    journal.close()


def test_marked_records_do_not_come_back(tmp_path: Path) -> None:
    """Those that are not marked do, in each segment."""
    journal = Journal(tmp_path)
    sent = [bytes([n]) * 5000 for n in range(10)]
    segments = journal.append([entry(each) for each in sent])
    assert len({each.path for each in segments}) == 3
    for start, end, expected in ((0, 3, sent[3:]), (3, 6, sent[6:]), (6, 10, [])):
        journal.mark(segments[start:end])
        journal.finish(segments[start:end])
        assert left(tmp_path) == expected
    journal.append([entry(b"later")])
    assert left(tmp_path) == [b"later"]
    journal.close()


def test_the_mark_of_an_earlier_use_says_nothing(tmp_path: Path) -> None:
    """A segment is used again, and all of its new records are needed."""
    journal = Journal(tmp_path)
    old = journal.append([entry(bytes([n]) * 5000) for n in range(4)])
    journal.mark(old)
    journal.finish(old)
    journal.seal()
    journal.retire(journal.finished)
    new = [b"new" * 100, b"newer" * 100]
    segments = journal.append([entry(each) for each in new])
    assert segments[0].path == old[0].path
    assert left(tmp_path) == new
    journal.mark(segments[:1])
    assert left(tmp_path) == new[1:]
    journal.close()


@pytest.mark.parametrize("at", [0, 15, 23, 27])
def test_a_damaged_mark_brings_all_back(tmp_path: Path, at: int) -> None:
    """What is put twice does less harm than what is lost."""
    journal = Journal(tmp_path)
    segments = journal.append([entry(b"a" * 100), entry(b"b" * 100)])
    journal.mark(segments)
    assert left(tmp_path) == []
    journal.close()
    octets = bytearray(segments[0].path.read_bytes())
    octets[SIZE + at] ^= 0x10
    segments[0].path.write_bytes(octets)
    assert left(tmp_path) == [b"a" * 100, b"b" * 100]


def test_it_says_when_all_segments_are_full(tmp_path: Path) -> None:
    """Nothing is overwritten that is still needed."""
    journal = Journal(tmp_path)
    sent: list[bytes] = []
    for _ in range(journals.SEGMENTS):
        sent.append(os.urandom(7 * PAGE))
        journal.append([entry(sent[-1])])
    with pytest.raises(JournalError, match="full"):
        journal.append([entry(bytes(2 * PAGE))])
    journal.close()
    assert left(tmp_path) == sent


def test_it_makes_no_segment_without_room(tmp_path: Path) -> None:
    """The reserve of the disk counts."""
    asked: list[int] = []

    def has_room(octets: int) -> bool:
        asked.append(octets)
        return False

    journal = Journal(tmp_path, has_room=has_room)
    with pytest.raises(JournalError, match="room"):
        journal.append([entry(b"a")])
    assert asked == [SIZE]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_a_segment_that_the_disk_has_refused_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """After a failed sync nobody knows what is on the disk (D4)."""
    journal = Journal(tmp_path)
    first = journal.append([entry(b"a" * 100)])

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output"):
            journal.append([entry(b"b" * 100)])
    (second,) = journal.append([entry(b"c" * 100)])
    assert second.path != first[0].path
    found = left(tmp_path)
    assert (found[0], found[-1]) == (b"a" * 100, b"c" * 100)
    journal.finish(first)
    journal.retire(journal.finished)
    assert not first[0].path.exists()
    assert left(tmp_path) == [b"c" * 100]
    journal.close()


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may write less than it was given."""
    real = os.pwritev

    def short(descriptor: int, buffers: list[bytes], position: int) -> int:
        return real(descriptor, [b"".join(buffers)[:70]], position)

    monkeypatch.setattr(os, "pwritev", short)
    monkeypatch.setattr(journals, "_bypass_cache", lambda _: False)
    journal = Journal(tmp_path)
    journal.append([entry(b"a" * 9000), entry(b"b" * 10)])
    journal.close()
    assert left(tmp_path) == [b"a" * 9000, b"b" * 10]


@pytest.mark.parametrize("fsync", [True, False])
def test_records_go_past_the_page_cache(tmp_path: Path, fsync: bool) -> None:
    """To copy them into it would cost more; without a sync, it is all they need."""
    journal = Journal(tmp_path, fsync=fsync)
    (segment,) = journal.append([entry(b"a" * 9000)])
    flags = fcntl.fcntl(segment.descriptor, fcntl.F_GETFL)
    assert bool(flags & os.O_DIRECT) is segment.is_direct
    assert fsync or not segment.is_direct
    journal.close()
    assert left(tmp_path) == [b"a" * 9000]


def test_a_short_write_past_the_page_cache_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at a block, and so does the rest."""
    real = os.pwritev

    def short(descriptor: int, buffers: list[memoryview], position: int) -> int:
        return real(descriptor, [buffers[0][:PAGE]], position)

    monkeypatch.setattr(os, "pwritev", short)
    journal = Journal(tmp_path)
    journal.append([entry(b"a" * 9000), entry(b"b" * 10)])
    journal.close()
    assert left(tmp_path) == [b"a" * 9000, b"b" * 10]


def test_records_that_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More records than go past the page cache at a time."""
    monkeypatch.setattr(journals, "_DIRECT", 2 * PAGE)
    journal = Journal(tmp_path)
    contents = [bytes([n]) * size for n, size in enumerate((PAGE, 10, 3 * PAGE - 64), 1)]
    journal.append([entry(each) for each in contents])
    journal.close()
    assert left(tmp_path) == contents


@pytest.mark.parametrize("call", ["fcntl", "write"])
def test_a_file_system_that_has_only_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """It refuses the flag, or the write: then the journal goes through the cache."""

    asked: list[int] = []

    def set_flags(_: int, kind: int, value: int = 0) -> int:
        if kind == fcntl.F_GETFL:
            return os.O_RDWR
        asked.append(value)
        if call == "fcntl" and value != os.O_RDWR:
            raise OSError(errno.EINVAL, "Invalid argument")
        return 0

    def write(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", set_flags)
    monkeypatch.setattr(os, "pwrite", write)
    journal = Journal(tmp_path)
    (segment,) = journal.append([entry(b"a" * 9000)])
    assert not segment.is_direct
    assert asked[-1] == os.O_RDWR
    journal.close()
    assert left(tmp_path) == [b"a" * 9000]


@pytest.mark.parametrize("has_syncfs", [True, False])
def test_files_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_syncfs: bool
) -> None:
    """All at once, or each with its folder where the system cannot do that."""
    monkeypatch.setattr(journals, "_SYNCFS", (lambda _: 0) if has_syncfs else None)
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "a").write_bytes(b"a")
    with (tmp_path / "lock").open("w") as file:
        sync_files(file.fileno(), [str(tmp_path / "a")])
    assert synced == ([] if has_syncfs else [str(tmp_path / "a"), str(tmp_path)])


def test_a_failed_sync_of_the_file_system_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported like any other."""
    monkeypatch.setattr(journals, "_SYNCFS", lambda _: -1)
    with pytest.raises(OSError):  # noqa: PT011 - the number is that of the last call
        sync_files(0, [])


@pytest.mark.parametrize(
    ("release", "tells"),
    [("4.18.0-553.el8", False), ("5.7.19", False), ("5.8", True), ("6.1.0-13-amd64", True)],
)
def test_a_sync_of_the_file_system_must_tell_errors(release: str, tells: bool) -> None:
    """Older systems say nothing, and lose files without a word; then each file is synced."""
    assert journals._tells_errors(release) is tells


def test_a_segment_that_is_in_use_again_is_not_retired(tmp_path: Path) -> None:
    """Two threads want to retire it, and one of them is late."""
    journal = Journal(tmp_path)
    old = journal.append([entry(b"old")])
    journal.seal()
    journal.finish(old)
    late = journal.finished
    journal.retire(journal.finished)
    new = journal.append([entry(b"new")])
    assert new[0] is old[0]
    journal.seal()
    journal.retire(late)
    assert left(tmp_path) == [b"new"]
    journal.finish(new)
    journal.close()


def test_it_tells_how_many_of_a_group_it_has_taken(tmp_path: Path) -> None:
    """The others need another segment, and there is none."""
    journal = Journal(tmp_path)
    for _ in range(journals.SEGMENTS - 1):
        journal.append([entry(bytes(7 * PAGE))])
    taken = journal.append([entry(b"a"), entry(bytes(7 * PAGE))])
    assert len(taken) == 1
    assert left(tmp_path)[-1] == b"a"
    assert not journal.is_doubtful
    journal.close()


def test_a_segment_that_cannot_be_overwritten_is_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not used again, and it does not keep the others from being retired for ever."""
    journal = Journal(tmp_path)
    segments = journal.append([entry(b"a")])
    journal.seal()
    journal.finish(segments)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            journal.retire(journal.finished)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            journal.retire(journal.finished)
    journal.retire(journal.finished)
    assert journal.is_empty
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "link", "pipe"])
def test_what_is_not_a_segment_is_named(tmp_path: Path, kind: str) -> None:
    """A node has not made it; a pipe would hold up the start for ever."""
    path = tmp_path / "1-1.segment"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "other").touch()
        path.symlink_to("other")
    else:
        os.mkfifo(path)
    with pytest.raises(OSError, match="segment"):
        left(tmp_path)


def test_a_descriptor_that_cannot_be_closed_does_not_keep_the_others_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that stops closes its index, too."""
    journal = Journal(tmp_path)
    segments = [journal.append([entry(bytes(7 * PAGE))])[0] for _ in range(3)]
    real = os.close

    def close(descriptor: int) -> None:
        real(descriptor)
        if descriptor == segments[0].descriptor:
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        journal.close()
    for each in segments:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each.descriptor)
    journal.close()


def test_the_next_segment_is_made_while_one_is_filled(tmp_path: Path) -> None:
    """It is asked for once, when half of a segment is used, and is full of zeros, which are synced."""
    journal = Journal(tmp_path)
    asked = []
    for number in range(8):
        journal.append([entry(bytes([number]) * 100)])
        asked.append(journal.wants_segment())
    assert asked == [False] * 4 + [True] + [False] * 3
    journal.prepare()
    journal.prepare()
    _, second = sorted(tmp_path.glob("*.segment"))
    assert second.read_bytes() == bytes(SIZE + PAGE)  # with the place of its mark
    (segment,) = journal.append([entry(b"the ninth")])
    assert (segment.path, segment.written) == (second, SIZE)
    journal.close()
    assert left(tmp_path)[-1] == b"the ninth"


def test_no_segment_is_made_ahead_when_there_may_be_no_more(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(8 * (journals.SEGMENTS - 1) + 5):
        journal.append([entry(bytes([number]) * 100)])
    before = set(tmp_path.iterdir())
    assert journal.wants_segment()
    journal.prepare()
    assert set(tmp_path.iterdir()) == before
    journal.close()


def test_no_segment_is_made_ahead_without_room(tmp_path: Path) -> None:
    room = [True]
    journal = Journal(tmp_path, has_room=lambda _: room[0])
    for number in range(5):
        journal.append([entry(bytes([number]) * 100)])
    before = set(tmp_path.iterdir())
    room[0] = False
    journal.prepare()
    assert set(tmp_path.iterdir()) == before
    journal.close()


def test_no_segment_is_asked_for_where_nothing_is_synced(tmp_path: Path) -> None:
    journal = Journal(tmp_path, fsync=False)
    for number in range(8):
        journal.append([entry(bytes([number]) * 100)])
    assert not journal.wants_segment()
    journal.close()


def test_a_segment_that_cannot_be_made_ahead_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    for number in range(5):
        journal.append([entry(bytes([number]) * 100)])
    before = set(tmp_path.iterdir())

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(journals, "_fill", refuse)
        with pytest.raises(OSError, match="the disk is full"):
            journal.prepare()
    assert set(tmp_path.iterdir()) == before
    journal.append([entry(b"goes on")])
    journal.close()


def test_large_records_are_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros are written first only where small records will stand."""
    monkeypatch.setattr(journals, "_LARGE", 2 * PAGE)
    written: list[int] = []
    write = os.pwritev

    def pwritev(descriptor: int, buffers: Sequence[bytes], position: int) -> int:
        written.append(sum(map(len, buffers)))
        return write(descriptor, buffers, position)

    monkeypatch.setattr(os, "pwritev", pwritev)
    journal = Journal(tmp_path)
    journal.append([entry(bytes(2 * PAGE))])
    assert written == [3 * PAGE]
    journal.append([entry(b"small")])
    assert written[1:] == [SIZE - 3 * PAGE, PAGE]
    journal.close()
