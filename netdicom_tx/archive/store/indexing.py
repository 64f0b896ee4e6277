"""Write the rows of files that have none: those of a process that has ended, and those that a scan has found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from ...encoding import DataSetError
from ...logs import Logger
from ...part10 import read_file_meta
from ..index.index import Index
from ..index.record import InstanceRecord, record_of
from ..index.withdrawal import standing_for_good
from .filestore import FileStore

__all__ = ["index_files", "index_journal", "index_noted"]

_log = Logger()

# How many files are compared with their rows at a time.
_TOGETHER: Final = 128


def index_files(index: Index, paths: Iterable[Path]) -> None:
    """Write the rows of stored files; blocks. A file that is not an instance is logged, and has no row.

    Raises:
        IndexUnavailableError: The database refuses.
        OSError: The disk has failed.
    """
    records: list[InstanceRecord] = []
    for path in paths:
        try:
            records.append(record_of(path))
        except DataSetError as error:
            _log.error("{path} has no row in the index: {error}", path=path, error=error)
    if records:
        index.add_many(records).result()


def index_journal(
    store: FileStore,
    index: Index,
    worker: int,
    claim: Callable[[str], AbstractContextManager[None]],
) -> int:
    """Make files and rows of what a worker that has ended had acknowledged, and drop its journal; blocks.

    Args:
        worker: The number of the worker.
        claim: As for :meth:`FileStore.replay`.

    Returns:
        How many of the instances had no row, or a row of another file.

    Raises:
        NetDICOMError, OSError: This is not possible at the moment, and must be tried again; the journal stays.
    """
    made = 0
    replayed = store.replay(worker, claim)
    while group := list(islice(replayed, _TOGETHER)):
        known = index.digests([each.sop_instance_uid for each in group])
        missing = [each for each in group if known.get(each.sop_instance_uid) != each.digest]
        index_files(index, [each.path for each in missing])
        made += len(missing)
    store.drop_journal(worker)
    return made


def index_noted(
    index: Index,
    paths: Iterable[Path],
    claim: Callable[[str], AbstractContextManager[None]],
) -> int:
    """Write the rows of files that a worker has named which has ended before their rows were there; blocks.

    Nobody was told that these instances are kept, but they are whole. One of them may be the data set that was to be
    replaced, whose row had been taken back.

    Args:
        paths: Where they are, if they got their names.
        claim: As for :meth:`FileStore.replay`.

    Returns:
        How many had no row.

    Raises:
        NetDICOMError, OSError: This is not possible at the moment, and must be tried again.
    """
    made = 0
    for path in paths:
        try:
            with path.open("rb") as file:
                uid = read_file_meta(file).sop_instance_uid
        except (FileNotFoundError, DataSetError):
            continue  # the file has not got its name, or is that of another program
        with claim(uid):
            # Neither a row nor on the list of what is being deleted.
            if uid not in index.write(partial(standing_for_good, sop_instance_uids=[uid])).result():
                index_files(index, [path])
                made += 1
    return made
