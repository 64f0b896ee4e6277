"""How a node starts: store and index are opened, and made to agree before it serves anybody.

A comparison of many files takes long, so :class:`Preparation` has a thread for it, in which the node can give it up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from time import monotonic
from typing import Final

from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads

from ..logs import Logger
from .index.engine import IndexUnusableError
from .index.index import Index, IndexUnavailableError
from .store.deletion import open_archive
from .store.filestore import FileStore, StorageError
from .store.indexing import index_files
from .store.reconcile import Reconciled, reconcile

__all__ = ["Preparation", "make_agree", "open_both"]

_log = Logger()

# How many files are named that cannot be read; all are counted, and netdicom reindex names all.
_NAMED: Final = 10
# Seconds between two lines about a comparison of files and index that takes long.
_PROGRESS: Final = 10.0


class Preparation:
    """What a node must have done before it serves, in a thread of its own if need be.

    Args:
        work: Does it; it blocks, and calls :meth:`go_on` between its steps.
        done: Called on the reactor thread when the work is done.
        failed: Called on the reactor thread when the work has failed.
    """

    def __init__(
        self, work: Callable[[], None], done: Callable[[], None], failed: Callable[[], None]
    ) -> None:
        self._work = work
        self._done = done
        self._failed = failed
        self._thread: threading.Thread | None = None
        self._result: defer.Deferred[None] | None = None
        #: Set when the node is stopped while this is under way.
        self.is_given_up = threading.Event()

    @property
    def is_under_way(self) -> bool:
        """Whether the thread works."""
        return self._thread is not None

    def go_on(self) -> None:
        """End the work here if it was given up; called by the work.

        Raises:
            CancelledError: It was.
        """
        if self.is_given_up.is_set():
            raise defer.CancelledError("the archive is being stopped")

    def run(self) -> None:
        """Do the work at once; blocks.

        Raises:
            BaseException: Whatever the work raises.
        """
        self.is_given_up.clear()
        try:
            self._work()
        except BaseException:
            self._failed()
            raise
        self._done()

    def begin(self, reactor: IReactorFromThreads, patience: float) -> defer.Deferred[None]:
        """Do the work in a thread.

        Args:
            patience: How many seconds the caller is held up before the rest is left to the thread. Work that takes no
                longer is done, or has failed, when this method returns.

        Returns:
            Fires when the work is done. Fails with what the work raises, and with CancelledError when it is given up.
            Cancelling it ends the work; call :meth:`give_up` then.

        Raises:
            BaseException: Whatever the work raises while the caller is held up.
        """
        self.is_given_up.clear()
        future: Future[None] = Future()

        def work() -> None:
            try:
                self._work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

        self._thread = threading.Thread(target=work, name="netdicom-start", daemon=True)
        self._thread.start()
        wait([future], patience)
        self._result = defer.Deferred(lambda _: self.is_given_up.set())
        result = self._result
        if future.done():
            self._ended(future)
            error = future.exception()
            if error is not None:
                result.addErrback(lambda _: None)
                raise error
        else:
            _log.info(
                "files and index are being compared; requests for associations are rejected until that is done"
            )
            future.add_done_callback(lambda _: reactor.callFromThread(self._ended, future))
        return result

    def _ended(self, future: Future[None]) -> None:
        result, self._result = self._result, None
        self._thread = None
        if result is None or result.called:
            return
        error = future.exception()
        if error is None:
            self._done()
            result.callback(None)
        else:
            self._failed()
            result.errback(error)

    def give_up(self) -> None:
        """End the work if it is under way, and wait for its end."""
        self.is_given_up.set()
        thread, self._thread = self._thread, None
        result, self._result = self._result, None
        if thread is not None:
            thread.join()
        if result is not None:
            result.cancel()


def open_both(store: FileStore, index: Index | None) -> None:
    """Open store and index, and finish what the last run of the node began.

    Raises:
        StorageError: The storage directory cannot be used.
        IndexUnusableError: The index cannot be used.
    """
    if index is None:
        store.open()
    else:
        try:
            finished = open_archive(store, index)
        except IndexUnavailableError as error:
            raise IndexUnusableError(str(error)) from error
        if finished:
            _log.info(
                "the deletion of {instances} instances, which the last run began, is finished",
                instances=finished,
            )
    if store.recovered:
        _log.warn(
            "the node did not end in order: {recovered} files were made from the journal",
            recovered=store.recovered,
        )


def make_agree(store: FileStore, index: Index, go_on: Callable[[], None]) -> None:
    """Compare the files of a node with the rows of its index, and mend what differs; blocks.

    The log says every ten seconds how far the comparison has come.

    Args:
        go_on: Called between two files; what it raises ends the comparison.

    Raises:
        StorageError: The storage directory cannot be read.
        IndexUnusableError: The index cannot be read.
    """
    said = monotonic()

    def step(done: Reconciled) -> None:
        nonlocal said
        go_on()
        if monotonic() - said >= _PROGRESS:
            said = monotonic()
            _log.info(
                "{files} files have been compared with the index, and {indexed} of them were indexed",
                files=done.files,
                indexed=len(done.indexed),
            )

    try:
        found = reconcile(index, store, step)
        index_files(index, store.conflicts)
    except IndexUnavailableError as error:
        raise IndexUnusableError(
            f"{error}; if the file is damaged, move it away: the node makes a new index from "
            "the stored instances"
        ) from error
    except OSError as error:
        raise StorageError(
            f"the storage directory {store.root} cannot be read: {error.strerror}"
        ) from error
    if found.indexed or found.removed or found.unreadable:
        _log.warn(
            "index and files did not agree: {indexed} files were indexed, {removed} rows without "
            "a file were removed; {unreadable} files cannot be read and are not served",
            indexed=len(found.indexed),
            removed=len(found.removed),
            unreadable=len(found.unreadable),
        )
    for path, reason in found.unreadable[:_NAMED]:
        _log.warn("{path} is not served: {reason}", path=str(path), reason=reason)
