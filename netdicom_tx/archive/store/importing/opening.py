"""Have a storage directory ready for an import, beside a node or alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ...index.index import Index
from ...shared import Alone
from ..deletion import open_archive
from ..filestore import Duplicates, FileStore, InUseError, StorageError
from ..sharedstore import SharedStore

__all__ = ["beside", "opened_for_import"]

_FOLDER: Final = "importing"


def beside(store: FileStore) -> FileStore:
    """Have a store write under ``importing/``, where a node that starts removes nothing."""
    store.incoming = store.root / _FOLDER
    return store


class _Beside(Alone):
    """The share of a process beside a node: it knows nothing of what the node writes to the index."""

    is_shared = True

    @contextmanager
    def writing(self) -> Iterator[bool]:
        yield True


@contextmanager
def opened_for_import(store: FileStore, index: Index) -> Iterator[bool]:
    """Have a storage directory ready for :func:`import_files` while the block runs; the index is left closed.

    Without a running node, what a crash has left in the journal becomes files first.

    Returns:
        Whether a node is running.

    Raises:
        IndexUnavailableError: The database refuses.
        IndexUnusableError: The index cannot be used.
        StorageError: The directory cannot be used; another import is running; or a node is running, and instances
            are to be replaced, which its journal might undo.
    """
    replaces = store.duplicates is Duplicates.REPLACE
    is_running = False
    index.shared = _Beside()
    if isinstance(store, SharedStore):
        store.bind(index)
    try:
        open_archive(store, index)
        index.close()
    except InUseError as error:
        if replaces:
            raise InUseError(
                f"a node is running on {store.root}, so an import cannot replace instances: stop the node, or "
                "send the files to it: netdicom store"
            ) from error
        is_running = True
    if not replaces:
        store.close()  # a node may start while the import runs
    try:
        lock = _locked(store)
        try:
            if isinstance(store, SharedStore):
                store.reach()
            yield is_running
        finally:
            os.close(lock)
    finally:
        store.close()


def _locked(store: FileStore) -> int:
    """Make the folders, take the lock of imports, and remove what a killed one has left."""
    try:
        if not store.is_shared:
            store.make_folders()
        beside(store).incoming.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(
            store.incoming / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in store.incoming.iterdir():
                if leftover.name != "lock":
                    leftover.unlink()
        except BaseException:
            os.close(lock)
            raise
    except BlockingIOError as error:
        raise InUseError(
            f"another import into {store.root} is running: wait until it has ended"
        ) from error
    except OSError as error:
        raise StorageError(
            f"the storage directory {store.root} cannot be used: {error.strerror}"
        ) from error
    return lock
