"""How parts of an archive share its database: one writer, any number of readers.

:class:`Database` is what they ask for; the index has it, so that their rows are committed in its groups.
:class:`EngineDatabase` is the same for who has no index open: a command beside a running node, a test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from .engine import migrate, open_engine

__all__ = ["Database", "EngineDatabase"]

_T = TypeVar("_T")


class Database(Protocol):
    """One writer at a time, in this process."""

    def write(self, call: Callable[[sa.Connection], _T]) -> Future[_T]:
        """Run a call inside a transaction, alone or with those of others.

        It may be run again, after the transaction of its first run was rolled back: it does nothing but talk
        to the connection, and what it has to say against a request it returns rather than raises.

        Returns:
            Done with what the call returned when the transaction is committed.
        """

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection to read with."""


class EngineDatabase:
    """A database of one's own, without threads: each call is a transaction."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        migrate(self.engine)
        self._writing = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def write(self, call: Callable[[sa.Connection], _T]) -> Future[_T]:
        future: Future[Any] = Future()
        with self._writing:
            try:
                with self.engine.begin() as connection:
                    result = call(connection)
            except Exception as error:  # whatever it is, it belongs to who waits
                future.set_exception(error)
            else:
                future.set_result(result)
        return future

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with self.engine.connect() as connection:
            yield connection
