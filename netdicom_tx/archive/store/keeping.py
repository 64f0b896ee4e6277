"""Keep an instance as a file and a row, one at a time: the way of what is not simply new.

A node keeps so what its intake leaves to it, and an import what its processes leave to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..encoded.walk import Walked
from ..index.index import Index
from ..index.record import WANTED, InstanceRecord, record_of
from ..index.withdrawal import is_being_deleted
from .filestore import FileStore, Kept
from .sharedstore import SharedStore
from .spool import Spool

__all__ = ["keep_claimed", "keep_with_row"]


class _MustForgetError(Exception):
    """An instance is to be replaced that a journal may still have."""


def keep_claimed(
    store: FileStore,
    index: Index,
    spool: Spool,
    claim: Callable[[str], AbstractContextManager[None]],
    forget: Callable[[], object],
) -> tuple[Kept, Future[Any] | None]:
    """Keep an instance as :func:`keep_with_row` does, when journals may have one with its SOP Instance UID.

    While all processes of the node empty their journals, nothing is claimed or locked here: the lead may be making the
    files of a worker that has died, and one of them may be this instance. Afterwards, no journal gets this instance as
    long as its file stays where it is. When the file is another one then, everything is done again.

    Args:
        claim: Lets this process alone decide about a SOP Instance UID while its block runs.
        forget: Empties the journals; it blocks.

    Returns:
        What :func:`keep_with_row` returns.

    Raises:
        Exception: What :func:`keep_with_row`, ``claim`` and ``forget`` raise.
    """
    uid = spool.sop_instance_uid
    if isinstance(store, SharedStore):
        # Its node is one process, whose own journal needs no claim to be emptied.
        with claim(uid):
            return keep_with_row(store, index, spool, forget)
    forgotten: tuple[int, int] | None = None
    with spool.in_use():
        while True:
            with claim(uid):
                here = _identity(store.path(uid))
                is_forgotten = here is not None and here == forgotten
                try:
                    return keep_with_row(store, index, spool, _nothing if is_forgotten else _refuse)
                except _MustForgetError:
                    pass
            forget()
            forgotten = here


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from one that takes its name later; None when there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _refuse() -> None:
    raise _MustForgetError


def _nothing() -> None:
    """No journal has it."""


def keep_with_row(
    store: FileStore, index: Index, spool: Spool, forget: Callable[[], object]
) -> tuple[Kept, Future[Any] | None]:
    """Keep the file of an instance, then add its row.

    When the row cannot be written, the file stays. The scan of the next start or the sender's next attempt adds the
    row. So an instance that was not acknowledged may be there, but never a part of one. When this process is a worker
    that dies between the two, the lead adds the row.

    Args:
        forget: Called before a file is replaced, so that no journal brings it back.

    Returns:
        What :meth:`FileStore.keep` returns, and the future of the row; None when there is no row to be written.

    Raises:
        Exception: What :meth:`FileStore.keep` and :meth:`Index.get` raise.
    """
    if isinstance(store, SharedStore):
        return store.keep_with_row(spool, forget), None
    uid = spool.sop_instance_uid
    records: list[InstanceRecord] = []
    rows: list[Future[Any]] = []
    is_deleted = False

    def read(walked: Walked) -> None:
        records.append(
            InstanceRecord.of(
                walked,
                spool.transfer_syntax,
                path=store.path(uid),
                size=spool.size,
                digest=spool.digest(),
                receipt=spool.receipt,
            )
        )

    def replaced() -> None:
        # All others that replace something wait for this one.
        index.check()
        forget()
        index.remove(uid).result()

    def is_there() -> bool:
        nonlocal is_deleted
        with index.reading() as reading:
            is_deleted = is_being_deleted(reading, uid)
        return not is_deleted

    def named() -> None:
        rows.append(index.add(records[0]))
        if is_deleted:
            # The file that was here is to be deleted; this one has to have its row before anybody looks.
            rows[0].result()

    def same() -> None:
        # The thread that brought the file has not added the row yet, or could not. The row describes the file that is
        # here, because its header may be another.
        if index.get(uid) is None:
            index.add(record_of(store.path(uid))).result()

    note = index.shared.note(uid)
    try:
        kept = store.keep(
            spool,
            wanted=WANTED,
            when_walked=read,
            before_replacing=replaced,
            when_named=named,
            is_there=is_there,
            when_same=same,
        )
    finally:
        if rows:
            rows[0].add_done_callback(lambda _: index.shared.drop(note))
        else:
            index.shared.drop(note)
    return kept, rows[0] if rows else None
