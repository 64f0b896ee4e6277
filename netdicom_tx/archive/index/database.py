"""How the parts of an archive share its database: one writer and any number of readers.

:class:`Database` is the interface that they need. The index provides it, so that their rows are committed in its
groups. :class:`EngineDatabase` provides it without an index, for a command beside a running node, or for a test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from .connections import Connections
from .engine import open_engine
from .migrations import migrate

__all__ = ["Database", "EngineDatabase"]

_T = TypeVar("_T")


class Database(Protocol):
    """A database to which one thread of this process writes at a time."""

    def write(self, call: Callable[[sa.Connection], _T]) -> Future[_T]:
        """Call a function inside a transaction, alone or together with others.

        The function may be called again after its transaction was rolled back. So it must do nothing but use the
        connection, and must return an objection instead of raising it.

        Returns:
            Is done, with what the function has returned, when the transaction is committed.
        """

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection for reading."""


class EngineDatabase:
    """A database without a thread of its own: each call is a transaction."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        migrate(self.engine)
        self._connections = Connections(self.engine)
        self._writing = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def write(self, call: Callable[[sa.Connection], _T]) -> Future[_T]:
        future: Future[Any] = Future()
        with self._writing:
            try:
                result = self._connections.write(call)
            except Exception as error:  # whatever it is, the waiting caller gets it
                future.set_exception(error)
            else:
                future.set_result(result)
        return future

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with self._connections.connect() as connection:
            yield connection
