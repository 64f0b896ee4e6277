"""Make the files of an archive and its index agree, and verify that the files are what was stored.

The files decide: a row without a file is removed, and a file without a row gets one. The comparison reads names and
sizes only, both in order, and so needs little memory. A file is opened only when it has no row, or when its size is
not the one in its row.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from ...encoding import DataSetError
from ..encoded.walk import InvalidDataSetError
from ..index import entries as index_entries
from ..index.entries import Entry
from ..index.index import Index
from ..index.record import digest_of_file, record_of

__all__ = ["Fault", "Files", "Finding", "Folder", "Reconciled", "examine", "reconcile", "verify"]

# How many rows may be on their way to the writer: enough for several of its groups.
_AHEAD: Final = 256


class Folder(Protocol):
    """The part of a :class:`~netdicom_tx.archive.store.filestore.FileStore` that is needed here."""

    @property
    def instances(self) -> Path:
        """The folder that contains the folders with the files."""

    def path(self, sop_instance_uid: str) -> Path:
        """The path that the file of an instance has, or would have."""


#: The name that version 0.1 has for it.
Files = Folder


@dataclass(slots=True)
class Reconciled:
    """What :func:`reconcile` has done.

    Attributes:
        compared: How many files had the right row.
        indexed: The SOP Instance UIDs of files that got a row.
        removed: The SOP Instance UIDs of rows that had no file.
        unreadable: Files that are not a whole instance, or not the one that their name stands for, each with the
            reason. They stay where they are, and have no row.
    """

    compared: int = 0
    indexed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def files(self) -> int:
        """How many files have been looked at."""
        return self.compared + len(self.indexed) + len(self.unreadable)


def reconcile(  # noqa: C901 - a merge of two ordered listings
    index: Index, files: Folder, step: Callable[[Reconciled], object] = lambda _: None
) -> Reconciled:
    """Make files and index agree; blocks until the index is committed.

    Call this before the node serves anybody, for no instance may be added or removed in the meantime.

    Args:
        step: Called before each file with what has been done; what it raises ends the work.

    Raises:
        IndexUnavailableError: The database does not answer.
        OSError: The storage directory cannot be read.
    """
    done = Reconciled()
    waiting = _Waiting()

    def remove(uid: str) -> None:
        done.removed.append(uid)
        waiting.put(index.remove(uid))

    def add(path: Path) -> bool:
        try:
            # A digest would take all octets of the file; verify() stores it when it reads them anyway.
            record = record_of(path, digest="")
            if files.path(record.sop_instance_uid) != path:
                raise InvalidDataSetError("the file name does not fit the SOP Instance UID")
        except Exception as error:  # whatever a file has in it, the node must start
            done.unreadable.append((path, str(error) or type(error).__name__))
            return False
        done.indexed.append(record.sop_instance_uid)
        waiting.put(index.add(record))
        return True

    rows = index.paths()
    row = next(rows, None)
    for name, path, size in _listing(index, files):
        step(done)
        while row is not None and row.path < name:
            remove(row.sop_instance_uid)
            row = next(rows, None)
        if row is None or row.path != name:
            add(Path(path))
            continue
        if row.size == size:
            done.compared += 1
        elif not add(Path(path)):
            remove(row.sop_instance_uid)
        row = next(rows, None)
    while row is not None:
        remove(row.sop_instance_uid)
        row = next(rows, None)
    waiting.finish()
    return done


class _Waiting:
    """Rows on their way to the writer: enough that it never waits, but not all at once."""

    def __init__(self) -> None:
        self._futures: deque[Future[Any]] = deque()

    def put(self, future: Future[Any]) -> None:
        """Add one, and wait for the oldest ones when there are too many."""
        self._futures.append(future)
        while len(self._futures) > _AHEAD:
            self._futures.popleft().result()

    def finish(self) -> None:
        """Wait for all."""
        while self._futures:
            self._futures.popleft().result()


def _listing(index: Index, files: Folder) -> Iterator[tuple[str, str, int]]:
    """All files as (path in the form of the index, path, size), sorted by the first."""
    with os.scandir(files.instances) as entries:
        folders = sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
    for folder in folders:
        parent = files.instances / folder
        prefix = index.path_text(parent) + os.sep
        with os.scandir(parent) as entries:
            found = sorted(
                (each.name, each.path, each.stat(follow_symlinks=False).st_size)
                for each in entries
                if each.is_file(follow_symlinks=False)
            )
        for name, path, size in found:
            yield prefix + name, path, size


class Fault(Enum):
    """What is wrong with a file."""

    MISSING = "the file does not exist"
    UNREADABLE = "the file cannot be read as an instance"
    CHANGED = "the file is not what was stored"


class Finding(NamedTuple):
    """A file that is missing or wrong."""

    fault: Fault
    sop_instance_uid: str
    path: Path
    reason: str


def verify(index: Index, *, jobs: int = 1) -> Iterator[Finding]:
    """Read every file to its end, and compare it with the digest in the index.

    A file that has no digest yet is walked through, and its digest is stored.

    Args:
        jobs: How many files are read at a time.

    Raises:
        IndexUnavailableError: The database does not answer.
        OSError: The shared store does not answer.
    """
    waiting = _Waiting()
    for entry, found in _all_examined(index, jobs):
        if isinstance(found, Finding):
            # The instance may have been replaced or deleted since its row was read.
            if index.entry(entry.sop_instance_uid) == entry:
                yield found
        elif found is not None:
            waiting.put(index.set_digest(entry.sop_instance_uid, found))
    waiting.finish()


def _all_examined(index: Index, jobs: int) -> Iterator[tuple[Entry, Finding | str | None]]:
    """Examine all files, some at a time, and give the results in the order of the rows."""
    if jobs == 1:
        for entry in index.entries():
            yield entry, examine(entry)
        return
    begun: deque[tuple[Entry, Future[Finding | str | None]]] = deque()
    pool = ThreadPoolExecutor(jobs, "netdicom-verify")
    try:
        for entry in index.entries():
            begun.append((entry, pool.submit(examine, entry)))
            if len(begun) > 2 * jobs:
                first, future = begun.popleft()
                yield first, future.result()
        for first, future in begun:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def examine(entry: Entry, check: Callable[[], None] = lambda: None) -> Finding | str | None:
    """Read a file to its end, and compare it with the digest in the index; a file without one is walked through.

    Args:
        check: Called between pieces of a mebibyte; what it raises ends the reading.

    Returns:
        What is wrong with the file, or the digest that the index does not have yet, or None.

    Raises:
        OSError: The shared store does not answer, which says nothing about the file.
    """
    uid, path, size, expected, _, files = entry
    if files is not None:
        return _examined(entry, check, files)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return Finding(Fault.CHANGED, uid, path, "it is not a regular file")
        digest = digest_of_file(path, check)
        if expected:
            is_same = digest == expected
        else:
            record = record_of(path, digest=digest)
            is_same = (record.sop_instance_uid, record.size) == (uid, size)
    except FileNotFoundError:
        return Finding(Fault.MISSING, uid, path, "")
    except (DataSetError, OSError, ValueError) as error:
        return Finding(Fault.UNREADABLE, uid, path, str(error))
    if not is_same:
        return Finding(Fault.CHANGED, uid, path, f"{size} octets were stored")
    return None if expected else digest


def _examined(
    entry: Entry, check: Callable[[], None], files: index_entries.Files
) -> Finding | str | None:
    """The same for an object of a shared store."""
    uid, path, size, expected, *_ = entry
    try:
        digest = files.digest(path, size, check)
    except FileNotFoundError:
        return Finding(Fault.MISSING, uid, path, "")
    except ValueError as error:
        return Finding(Fault.CHANGED, uid, path, str(error))
    if not expected:
        return digest
    return (
        None
        if digest == expected
        else Finding(Fault.CHANGED, uid, path, f"{size} octets were stored")
    )
