"""Take files of this machine into a store that nodes share, several at a time.

Threads do it here, and not processes as for the directory of a single node: most of the time goes into waiting for the
store and the database. Each instance is stored as if it had been sent: its object is put, then its row is committed.
So a node of the group may store the same instance at the same time, and a killed import leaves nothing but an object
without a row, which the next import puts again.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from typing import Final

from ....part10 import FileMeta
from ...encoded.walk import Walked
from ...index.index import Index, IndexUnavailableError
from ..filestore import Kept, Outcome
from ..objects import DirectoryObjects
from ..sharedstore import SharedStore
from ..spool import Spool
from .committing import removed
from .found import OF_OUTCOME, Found, Mark, Source, Taken, What
from .reading import PIECE, ArchiveFailedError, Looking

__all__ = ["put_files"]

#: How many files of each thread are on their way, or wait for those before them.
AHEAD: Final = 4


def put_files(
    store: SharedStore,
    index: Index,
    paths: Iterable[str],
    *,
    source: Source = Source.COPY,
    jobs: int = 1,
    unknown_sop_classes: bool = False,
) -> Iterator[Taken]:
    """Import files. What is returned is an object in the store, with its row.

    Args:
        store: The store, from :func:`opened_for_import`.
        index: The index; it is open.
        paths: The paths of the files. They are taken as they are needed, so all of them are never in memory.
        source: What becomes of the files; none of them can get a second name.
        jobs: How many files are taken at a time.
        unknown_sop_classes: Whether instances of private and unknown SOP classes are taken, too.

    Raises:
        IndexUnavailableError: The database does not answer.
        OSError: The store does not answer, or the disk of this node is full.
    """
    putting = _Putting(store, index, source, unknown_sop_classes=unknown_sop_classes)
    rest = iter(paths)
    begun: deque[Future[Taken]] = deque()
    with ThreadPoolExecutor(jobs, "netdicom-import") as pool:
        try:
            for path in itertools.islice(rest, jobs * AHEAD):
                begun.append(pool.submit(putting.take, path))
            while begun:
                yield begun.popleft().result()
                for path in itertools.islice(rest, 1):
                    begun.append(pool.submit(putting.take, path))
        finally:
            for each in begun:
                each.cancel()


class _Putting(Looking):
    """Stores files one by one; any thread may call :meth:`take`."""

    def __init__(
        self, store: SharedStore, index: Index, source: Source, *, unknown_sop_classes: bool
    ) -> None:
        self._store = store
        self._index = index
        self._source = source
        # The shared directory, which may be below the one that is imported.
        self._shared = store.objects.root if isinstance(store.objects, DirectoryObjects) else None
        places = [store.root] if self._shared is None else [store.root, self._shared]
        super().__init__([str(each) for each in places], unknown_sop_classes=unknown_sop_classes)
        self._busy: set[str] = set()
        self._changed = Condition()
        self._real = [os.path.realpath(each) for each in places]

    def take(self, path: str) -> Taken:
        """Take one file.

        Raises:
            IndexUnavailableError: The database does not answer.
            OSError: The store does not answer, or the disk of this node is full.
        """
        return removed(self._look(path), self._source, self._real)

    def _prepared(
        self,
        path: str,
        file: io.FileIO,
        mark: Mark,
        meta: FileMeta,
        walked: Walked,
        octets: bytes | None,
    ) -> Found:
        found = Found(path, None, mark, walked.sop_instance_uid)
        with self._store.spool(
            # As for an instance that is sent, the UIDs of the data set count, and the header is ours.
            *(walked.sop_class_uid, walked.sop_instance_uid),
            *(meta.transfer_syntax, meta.source_ae_title),
        ) as spool:
            for piece in _pieces(file, meta.offset, octets):
                self._write(spool, piece)
            with self._alone(walked.sop_instance_uid):
                kept = self._kept(spool)
        found.what = OF_OUTCOME[kept.outcome]
        if kept.outcome is Outcome.REFUSED:
            found.reason = "another data set with this SOP Instance UID is here, and stays"
        elif self._is_object(kept.path, mark):
            found.what, found.reason = What.SKIPPED, "it is in the shared directory"
        return found

    @contextmanager
    def _alone(self, sop_instance_uid: str) -> Iterator[None]:
        """Let no other thread store the same instance, so that only one of them finds it to be new."""
        with self._changed:
            self._changed.wait_for(lambda: sop_instance_uid not in self._busy)
            self._busy.add(sop_instance_uid)
        try:
            yield
        finally:
            with self._changed:
                self._busy.remove(sop_instance_uid)
                self._changed.notify_all()

    def _write(self, spool: Spool, piece: memoryview | bytes) -> None:
        """Write to a spool, which goes to the disk of the node when it is large."""
        if spool.octets_in_memory < spool.size and not self._store.has_room():
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._store.root))
            raise ArchiveFailedError(full)
        try:
            spool.write(piece)
        except OSError as error:
            raise ArchiveFailedError(error) from error

    def _kept(self, spool: Spool) -> Kept:
        try:
            return self._store.keep_with_row(spool, lambda: None)
        except OSError as error:
            raise ArchiveFailedError(error) from error
        except IndexUnavailableError:
            try:
                # The database does not answer, or it does not take a value of this row only.
                self._index.standing([spool.sop_instance_uid])
            except IndexUnavailableError as error:
                raise ArchiveFailedError(error) from error
            raise

    def _is_object(self, kept: Path, mark: Mark) -> bool:
        """Whether a file is the object itself, by another path to the shared directory."""
        if self._shared is None:
            return False
        try:
            there = os.stat(self._shared / kept)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mark.device, mark.inode)


def _pieces(file: io.FileIO, offset: int, octets: bytes | None) -> Iterator[memoryview | bytes]:
    """The data set of a file."""
    if octets is not None:
        yield memoryview(octets)[offset:]
        return
    file.seek(offset)
    while piece := file.read(PIECE):
        yield piece
