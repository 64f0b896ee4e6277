"""Keep an instance as a file and a row, one at a time: the way of what is not simply new.

A node keeps so what its intake leaves to it, and an import what its processes leave to it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..encoded.walk import Walked
from ..index.index import Index, IndexUnavailableError
from ..index.record import WANTED, InstanceRecord, record_of
from ..index.withdrawal import is_being_deleted
from .filestore import FileStore, Kept, file_identity
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
    owe: Callable[[str], object],
) -> tuple[Kept, Future[Any] | None]:
    """Keep an instance as :func:`keep_with_row` does, when journals may have one with its SOP Instance UID.

    While all processes of the node empty their journals, nothing is claimed or locked here: the lead may be making the
    files of a worker that has died, and one of them may be this instance. Afterwards, no journal gets this instance as
    long as its file stays where it is. When the file is another one then, everything is done again.

    Args:
        claim: Lets this process alone decide about a SOP Instance UID while its block runs.
        forget: Empties the journals; it blocks.
        owe: As for :func:`keep_with_row`.

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
                here = file_identity(store.path(uid))
                is_forgotten = here is not None and here == forgotten
                try:
                    check = _nothing if is_forgotten else _refuse
                    return keep_with_row(store, index, spool, check, owe)
                except _MustForgetError:
                    pass
            forget()
            forgotten = here


def _refuse() -> None:
    raise _MustForgetError


def _nothing() -> None:
    """No journal has it."""


def keep_with_row(
    store: FileStore,
    index: Index,
    spool: Spool,
    forget: Callable[[], object],
    owe: Callable[[str], object] = lambda _: None,
) -> tuple[Kept, Future[Any] | None]:
    """Keep the file of an instance, then add its row.

    When the row cannot be written, the file stays. ``owe``, the scan of the next start or the sender's next attempt
    adds the row. So an instance that was not acknowledged may be there, but never a part of one. When this process is a
    worker that dies between the two, the lead adds the row.

    Args:
        forget: Called before a file is replaced, so that no journal brings it back.
        owe: Called with the SOP Instance UID when its file may have no row, because the database refuses.

    Returns:
        What :meth:`FileStore.keep` returns, and the future of the row; None when there is no row to be written.

    Raises:
        Exception: What :meth:`FileStore.keep` and :meth:`Index.get` raise.
    """
    if isinstance(store, SharedStore):
        return store.keep_with_row(spool, forget), None
    return _Keeping(store, index, spool, forget, owe).keep()


class _Keeping:
    """An instance that is being kept; the parameters are those of :func:`keep_with_row`."""

    def __init__(
        self,
        store: FileStore,
        index: Index,
        spool: Spool,
        forget: Callable[[], object],
        owe: Callable[[str], object],
    ) -> None:
        self._store, self._index, self._spool = store, index, spool
        self._forget, self._owe = forget, owe
        self._uid = spool.sop_instance_uid
        self._record: InstanceRecord | None = None
        self._row: Future[Any] | None = None
        # Whether the file that is here is to be deleted.
        self._is_deleted = False
        # Whether the row of the instance that is here was taken back.
        self._is_taken_back = False

    def keep(self) -> tuple[Kept, Future[Any] | None]:
        note = self._index.shared.note(self._uid)
        try:
            kept = self._store.keep(
                self._spool,
                wanted=WANTED,
                when_walked=self._read,
                before_replacing=self._replace,
                when_named=self._named,
                is_there=self._is_there,
                when_same=self._same,
            )
        finally:
            if self._row is not None:
                self._row.add_done_callback(partial(self._written, note))
            else:
                if self._is_taken_back:
                    self._owe(self._uid)
                self._index.shared.drop(note)
        return kept, self._row

    def _read(self, walked: Walked) -> None:
        self._record = InstanceRecord.of(
            walked,
            self._spool.transfer_syntax,
            path=self._store.path(self._uid),
            size=self._spool.size,
            digest=self._spool.digest(),
            receipt=self._spool.receipt,
        )

    def _replace(self) -> None:
        # All others that replace something wait for this one.
        self._index.check()
        self._forget()
        self._is_taken_back = True
        self._index.remove(self._uid).result()

    def _is_there(self) -> bool:
        with self._index.reading() as reading:
            self._is_deleted = is_being_deleted(reading, self._uid)
        return not self._is_deleted

    def _named(self) -> None:
        assert self._record is not None
        self._row = self._index.add(self._record)
        if self._is_deleted:
            # The file that was here is to be deleted; this one has to have its row before anybody looks.
            self._row.result()

    def _same(self) -> None:
        # The thread that brought the file has not added the row yet, or could not. The row describes the file that is
        # here, because its header may be another.
        if self._index.get(self._uid) is None:
            self._index.add(record_of(self._store.path(self._uid))).result()

    def _written(self, note: int, row: Future[Any]) -> None:
        if isinstance(row.exception(), IndexUnavailableError):
            self._owe(self._uid)
        self._index.shared.drop(note)
