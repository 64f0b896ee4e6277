"""Add the rows of what has its name in the archive, decide about the rest, and remove originals."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any, Final, NamedTuple

from ....encoding import DataSetError
from ....part10 import read_file_meta
from ...encoded.files import walk_file
from ...index.index import Index
from ...index.record import InstanceRecord, record_of
from ...index.withdrawal import is_being_deleted
from ..filestore import FileStore, Outcome
from ..keeping import keep_with_row
from .found import IN_ARCHIVE, OF_OUTCOME, Found, Mark, Source, Taken, What
from .processes import Reader
from .reading import PIECE

__all__ = ["AHEAD", "Committing", "import_files", "removed"]

#: How many groups may wait for their rows.
AHEAD: Final = 2


def import_files(
    store: FileStore, index: Index, reader: Reader, paths: Iterable[str]
) -> Iterator[Taken]:
    """Import files. What is returned is on the disk for good, with its row.

    Args:
        store: The store, from :func:`opened_for_import`.
        index: The index; it is open.
        reader: From :func:`readers`.
        paths: The paths of the files. They are taken as they are needed, so all of them are never in memory.

    Raises:
        IndexUnavailableError: The database does not answer.
        OSError: The disk of the archive is full, or has failed.
        ReaderError: A process has ended unexpectedly.
    """
    committing = Committing(store, index, reader.source)
    begun: deque[_Begun] = deque()
    for group in reader.found(paths):
        begun.append(committing.begin(group))
        if len(begun) > AHEAD:
            yield from committing.end(begun.popleft())
    while begun:
        yield from committing.end(begun.popleft())


class _Begun(NamedTuple):
    """A group whose rows are being added."""

    group: list[Found]
    rows: Future[Any]


class Committing:
    """Adds the rows of what the processes have named, decides about the rest, and removes originals."""

    def __init__(self, store: FileStore, index: Index, source: Source) -> None:
        self._store = store
        self._index = index
        self._source = source

    def begin(self, group: list[Found]) -> _Begun:
        """Have the rows of a group added."""
        return _Begun(group, self._index.add_many([each.record for each in group if each.record]))

    def end(self, begun: _Begun) -> Iterator[Taken]:
        """Wait for the rows, and give the results."""
        group = begun.group
        refused = begun.rows.result() or {}
        for each in group:
            if each.record is not None:
                self._look_again(each, refused)
        self._add_missing([each for each in group if each.what is What.SAME])
        for each in group:
            if each.what is None:
                self._decide(each)
            yield self._ended(each)

    def _look_again(self, found: Found, refused: Any) -> None:
        """See to it that the row is that of the file, for a node may have put its own in the place of ours."""
        assert found.record is not None
        if found.sop_instance_uid in refused:
            found.what = What.FAILED
            found.reason = f"the index refuses it: {refused[found.sop_instance_uid]}"
            return
        path = found.record.path
        try:
            status = os.stat(path, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == found.named:
                return
            self._index.add(record_of(path)).result()
        except FileNotFoundError:
            pass  # it was deleted at once
        found.what, found.is_linked = None, False

    def _add_missing(self, same: Sequence[Found]) -> None:
        """Add the rows that a killed import has not added, and leave to the store what is being deleted."""
        known = self._index.known([each.sop_instance_uid for each in same])
        missing = [each for each in same if each.sop_instance_uid not in known]
        if not missing:
            return
        folders = {self._store.path(each.sop_instance_uid).parent.name for each in missing}
        with ExitStack() as locks:
            # Nobody deletes a file between the look at it and its row.
            for name in sorted(folders):
                locks.enter_context(self._store.folders.shared(name))
            with self._index.reading() as reading:
                gone = [is_being_deleted(reading, each.sop_instance_uid) for each in missing]
            records: dict[str, InstanceRecord] = {}
            for each, is_gone in zip(missing, gone, strict=True):
                try:
                    if not is_gone:
                        path = self._store.path(each.sop_instance_uid)
                        records[each.sop_instance_uid] = record_of(path)
                except (DataSetError, OSError, ValueError):
                    pass  # the store finds out what is wrong
                if each.sop_instance_uid not in records:
                    each.what = None
            self._index.add_many(list(records.values())).result()

    def _decide(self, found: Found) -> None:
        """Have the store decide, as for an instance that is sent."""
        try:
            self._keep(found)
        except (DataSetError, ValueError) as error:
            found.what, found.reason = What.FAILED, str(error)

    def _keep(self, found: Found) -> None:
        try:
            # It may have gone since it was read, when another path has named it; or another kind of file is there.
            descriptor = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            found.what, found.reason = What.FAILED, error.strerror or str(error)
            return
        with open(descriptor, "rb") as file:
            found.original = Mark.of(os.fstat(file.fileno()))
            if not self._store.has_room(found.original.size):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._store.root))
            meta = read_file_meta(file, is_lenient=True)
            walked = walk_file(file.fileno(), meta.transfer_syntax, meta.offset)
            with self._store.spool(
                *(walked.sop_class_uid, walked.sop_instance_uid),
                *(meta.transfer_syntax, meta.source_ae_title),
            ) as spool:
                while piece := file.read(PIECE):
                    spool.write(piece)
                kept, row = keep_with_row(self._store, self._index, spool, lambda: None)
        if row is not None:
            row.result()
        elif kept.outcome is Outcome.REFUSED:
            found.reason = "another data set with this SOP Instance UID is here, and stays"
        found.what = OF_OUTCOME[kept.outcome]

    def _ended(self, found: Found) -> Taken:
        taken = removed(found, self._source, [os.path.realpath(self._store.root)])
        if taken.is_removed and taken.is_linked:
            self._own(found)
        return taken

    def _own(self, found: Found) -> None:
        """Give a file whose only name is that in the archive the mode and the time of one that was received."""
        path = self._store.path(found.sop_instance_uid)
        with suppress(OSError):  # it may belong to another user
            os.chmod(path, 0o600)
            os.utime(path)


def removed(found: Found, source: Source, own: Sequence[str]) -> Taken:
    """What has become of a file; one that is moved is removed, because it is in the archive now.

    Args:
        own: The real paths of what belongs to the archive, of which nothing is removed.
    """
    taken = found.taken()
    if source is not Source.MOVE or taken.what not in IN_ARCHIVE:
        return taken
    if os.path.realpath(found.path).startswith(tuple(f"{each}{os.sep}" for each in own)):
        return taken  # it is the file of the archive itself
    try:
        if Mark.of(os.stat(found.path)) != found.original:
            return taken._replace(reason="it is kept: it was changed while it was imported")
        os.unlink(found.path)
    except FileNotFoundError:
        pass  # somebody else has removed it
    except OSError as error:
        return taken._replace(reason=f"it is kept: {error.strerror}")
    return taken._replace(is_removed=True)
