"""Make the files of an archive and its index agree, and look whether the files are what they were.

Files are the truth: a row without its file goes, a file without its row gets one. The comparison
reads names and sizes only, in the order of both, and so holds little in memory; an instance is
opened when it has no row, or another size than its row says.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from ...dsutils import DataSetError
from ..encoded.walk import InvalidDataSetError
from ..index.index import Index
from ..index.record import digest_of, record_of

__all__ = ["Fault", "Files", "Finding", "Reconciled", "reconcile", "verify"]

# Several groups of the writer.
_AHEAD: Final = 256


class Files(Protocol):
    """What is needed of a :class:`~netdicom_tx.archive.store.filestore.FileStore`."""

    @property
    def instances(self) -> Path:
        """The folder whose folders have the files."""

    def path(self, sop_instance_uid: str) -> Path:
        """Where the file of an instance is, or would be."""


@dataclass(slots=True)
class Reconciled:
    """What was done.

    Attributes:
        compared: Files that have their rows.
        indexed: SOP Instance UIDs of files that got a row.
        removed: Those of rows that had no file.
        unreadable: Files that are no whole instance, or another than their name says, and why;
            they are left where they are, and are not in the index.
    """

    compared: int = 0
    indexed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def reconcile(index: Index, files: Files) -> Reconciled:
    """Make both agree; blocks until the index is committed.

    No instance may come or go in the meantime: this is for before a node listens.

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
            # A digest would need all octets; verify notes it when it reads them anyway.
            record = record_of(path, digest="")
            if files.path(record.sop_instance_uid) != path:
                raise InvalidDataSetError("its name is not the one of its SOP Instance UID")
        except (DataSetError, InvalidDataSetError, OSError, ValueError) as error:
            done.unreadable.append((path, str(error)))
            return False
        done.indexed.append(record.sop_instance_uid)
        waiting.put(index.add(record))
        return True

    rows = index.paths()
    row = next(rows, None)
    for name, path, size in _listing(index, files):
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
    """Rows on their way to the writer, so many that it never waits."""

    def __init__(self) -> None:
        self._futures: deque[Future[Any]] = deque()

    def put(self, future: Future[Any]) -> None:
        """Wait for the first ones when there are too many."""
        self._futures.append(future)
        while len(self._futures) > _AHEAD:
            self._futures.popleft().result()

    def finish(self) -> None:
        """Wait for all."""
        while self._futures:
            self._futures.popleft().result()


def _listing(index: Index, files: Files) -> Iterator[tuple[str, str, int]]:
    """Every file: (path as in the index, path, size), in the order of the first."""
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

    MISSING = "there is no file"
    UNREADABLE = "the file cannot be read as an instance"
    CHANGED = "the file is not what was stored"


class Finding(NamedTuple):
    """A file that is not as it should be."""

    fault: Fault
    sop_instance_uid: str
    path: Path
    reason: str


def verify(index: Index) -> Iterator[Finding]:
    """Read every file to its end and hold it against the digest in the index.

    A file whose digest nobody has computed yet is looked through, and its digest noted.

    Raises:
        IndexUnavailableError: The database does not answer.
    """
    waiting = _Waiting()
    for uid, path, size, digest in index.entries():
        try:
            found = _digest(path) if digest else record_of(path)
        except FileNotFoundError:
            yield Finding(Fault.MISSING, uid, path, "")
        except (DataSetError, InvalidDataSetError, OSError, ValueError) as error:
            yield Finding(Fault.UNREADABLE, uid, path, str(error))
        else:
            if isinstance(found, str):
                if found != digest:
                    yield Finding(Fault.CHANGED, uid, path, f"{size} octets were stored")
            elif found.sop_instance_uid != uid or found.size != size:
                yield Finding(Fault.CHANGED, uid, path, f"{size} octets were stored")
            else:
                waiting.put(index.set_digest(uid, found.digest))
    waiting.finish()


def _digest(path: Path) -> str:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return digest_of(view)
