"""Locks that keep stored files from being deleted."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netdicom_tx.archive.store.sharing import FolderLocks, Leases
from support.archive.system import descriptors


@pytest.fixture
def folders(tmp_path: Path) -> FolderLocks:
    made = FolderLocks(tmp_path)
    made.make()
    made.make()
    return made


def test_a_directory_of_an_earlier_version_gets_its_locks(tmp_path: Path) -> None:
    """netdicom versions --adopt stores beside a node, or without one."""
    with FolderLocks(tmp_path / "locks").shared("3f"):
        assert [each.name for each in (tmp_path / "locks").iterdir()] == ["3f.folder"]


def test_several_may_name_files_in_a_folder(folders: FolderLocks) -> None:
    with folders.shared("3f"), folders.shared("3f"), folders.alone("40"):
        pass


@pytest.mark.parametrize("first_is_alone", [True, False])
def test_who_deletes_is_alone(folders: FolderLocks, first_is_alone: bool) -> None:
    first, second = folders.alone, folders.shared
    if not first_is_alone:
        first, second = second, first
    done: list[str] = []

    def other() -> None:
        with second("3f"):
            done.append("second")

    thread = threading.Thread(target=other)
    with first("3f"):
        thread.start()
        thread.join(0.05)
        done.append("first")
    thread.join(30)
    assert done == ["first", "second"]


def test_a_generation_ends_with_its_last_lease(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    assert leases.ended() == 0
    first, second = leases.take(), leases.take()
    assert leases.turn() == 1
    later = leases.take()
    assert leases.ended() == 0
    first.release()
    first.release()
    assert leases.ended() == 0
    second.release()
    assert leases.ended() == 1
    assert leases.turn() == 2
    assert leases.turn() == 3
    assert leases.ended() == 1
    later.release()
    assert leases.ended() == 3
    assert [each.name for each in tmp_path.iterdir()] == ["4.lease"]


def test_an_earlier_lease_holds_up_all_later_generations(tmp_path: Path) -> None:
    """What was deleted later may have been found by the earlier retrieve as well."""
    leases = Leases(tmp_path)
    first = leases.take()
    leases.turn()
    leases.turn()
    assert leases.ended() == 0
    first.release()
    assert leases.ended() == 2


def test_a_lease_counts_although_its_generation_ends_while_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the generation is removed between its opening and its locking."""
    leases, deleter = Leases(tmp_path), Leases(tmp_path)
    leases.take().release()
    real: Callable[[int, int], None] = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        deleter.turn()
        assert deleter.ended() == 1
        real(descriptor, how)

    monkeypatch.setattr("netdicom_tx.archive.store.sharing.fcntl.flock", flock)
    lease = leases.take()
    generation = deleter.turn()
    assert deleter.ended() < generation
    lease.release()
    assert deleter.ended() == generation


def test_a_lease_that_cannot_be_taken_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = descriptors()
    monkeypatch.setattr("netdicom_tx.archive.store.sharing.fcntl.flock", refuse)
    with pytest.raises(OSError, match="No locks"):
        Leases(tmp_path).take()
    assert descriptors() == before


HOLDER = """
import sys
from pathlib import Path
from netdicom_tx.archive.store.sharing import Leases
lease = Leases(Path(sys.argv[1])).take()
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process with a lease."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"taken\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lease_counts_in_all_processes_and_ends_with_its_own(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    leases = Leases(tmp_path)
    assert leases.turn() == 1
    assert leases.ended() == 0
    holder.kill()
    holder.wait(30)
    assert leases.ended() == 1
