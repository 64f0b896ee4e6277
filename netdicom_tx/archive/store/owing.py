"""Write the rows that the database has refused, as soon as it takes them.

An instance that is kept by itself gets its file first. When its row is refused, its sender is told so, but the file is
there, and it may have taken the place of another one. The row follows here, so that files and rows agree again without
a restart and without the sender's next attempt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from ...exceptions import NetDICOMError
from ...logs import Logger
from ..index.index import Index
from .filestore import FileStore
from .indexing import index_noted

__all__ = ["OwedRows"]

# After how many seconds the database is asked again.
_AGAIN: Final = 1.0


class OwedRows:
    """The instances whose files may have no row, and a thread that writes these rows while there are any.

    It does nothing before :meth:`start`.

    Args:
        store: The store; it is open until :meth:`stop`.
        index: The index; likewise.
        claim: Lets this process alone decide about a SOP Instance UID while its block runs.
    """

    _log = Logger()

    def __init__(
        self,
        store: FileStore,
        index: Index,
        claim: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._store = store
        self._index = index
        self._claim = claim
        self._state = threading.Condition()
        # What the condition guards.
        self._owed: dict[str, None] = {}
        self._thread: threading.Thread | None = None
        self._is_running = False

    def start(self) -> None:
        """Write rows from now on."""
        with self._state:
            self._is_running = True

    def owe(self, sop_instance_uid: str) -> None:
        """Have the row of an instance written, if there is a file without one. Any thread may call this."""
        with self._state:
            if not self._is_running:
                return
            self._owed[sop_instance_uid] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="netdicom-rows", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread; blocks. The next start writes the rows that are still owed."""
        with self._state:
            self._is_running = False
            self._owed.clear()
            self._state.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        made = 0
        while True:
            with self._state:
                self._state.wait_for(lambda: not self._owed, _AGAIN)
                if not self._owed:
                    self._thread = None
                    break
                owed = list(self._owed)
            made += self._write(owed)
        if made:
            self._log.info(
                "{made} instances whose rows the database had refused are in the index now",
                made=made,
            )

    def _write(self, owed: list[str]) -> int:
        """Write rows until the database refuses again; returns how many."""
        made = 0
        for uid in owed:
            try:
                made += index_noted(self._index, [self._store.path(uid)], self._claim)
            except NetDICOMError as error:
                self._log.debug("the row of {uid} is refused: {error}", uid=uid, error=error)
                break
            except OSError as error:
                self._log.debug("{uid} cannot be read: {error}", uid=uid, error=error)
                continue
            except Exception:  # whatever it is, the other rows do not wait for this one
                self._log.failure("the row of {uid} cannot be written", uid=uid)
            with self._state:
                self._owed.pop(uid, None)
        return made
