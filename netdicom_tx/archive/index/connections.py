"""Connections to the database of an index, which outlast a server that goes away for a while.

While the server does not answer, a new connection is tried after 50 ms, 100 ms and so on, up to two seconds. Calls in
between are refused at once. The log has one line when the server stops answering, and one when it answers again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import random
from typing import Final, TypeVar

import sqlalchemy as sa

from ...exceptions import NetDICOMError
from ...logs import Logger, Trouble
from .endings import Note, note, was_committed
from .engine import is_conflict, is_loss, reason
from .urls import shown

__all__ = ["Connections", "IndexUnavailableError", "attempts", "translated"]

_T = TypeVar("_T")

# How often a transaction is tried that conflicts with others. A transaction that can never succeed fails within 0.3 s.
_ATTEMPTS: Final = 8
# The delays before another attempt and another connection, in seconds; they double up to the longest.
_FIRST, _LONGEST_ATTEMPT, _LONGEST_CONNECTION = 0.005, 0.1, 2.0
_FIRST_CONNECTION: Final = 0.05
# For how many seconds the server is asked whether it has committed.
_OUTCOME: Final = 10.0


class IndexUnavailableError(NetDICOMError):
    """The database of the index does not answer, or refuses. It may work again later."""


def translated(error: BaseException) -> BaseException:
    """An error of the database in the form in which callers of the index get it; other errors stay as they are."""
    if isinstance(error, sa.exc.SQLAlchemyError):
        return IndexUnavailableError(f"the index refuses: {reason(error)}")
    return error


def attempts(kind: str) -> Iterator[bool]:
    """Count the attempts at a transaction, with a random delay between them; yields whether an attempt is the last one.

    Args:
        kind: The kind of the database. In SQLite, a transaction conflicts at most once.
    """
    count = 2 if kind == "sqlite" else _ATTEMPTS
    yield False
    for number in range(1, count):
        if number > 1:
            # Half of the delay is random, so that two transactions that conflict do not meet again.
            time.sleep(_jittered(min(_LONGEST_ATTEMPT, _FIRST * 2**number)))
        yield number == count - 1


def _jittered(delay: float) -> float:
    return delay * (1 + random()) / 2


class Connections:
    """The connections of one index.

    All methods may be called in any thread, and block.
    """

    _log = Logger()

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._is_server = engine.dialect.name != "sqlite"
        self._lock = threading.Lock()
        self._trouble = Trouble(self._log)
        self._delay = 0.0
        self._next = 0.0
        self._why = ""

    def connect(self) -> sa.Connection:
        """Take a connection from the pool.

        Raises:
            IndexUnavailableError: The server does not answer, or did not a moment ago.
        """
        if not self._is_server:
            return self.engine.connect()
        if time.monotonic() < self._next:
            raise IndexUnavailableError(self._why)
        try:
            connection = self.engine.connect()
        except sa.exc.DBAPIError as error:
            raise self._gone(error) from error
        if self._delay:
            self._back()
        return connection

    def _gone(self, error: sa.exc.DBAPIError) -> IndexUnavailableError:
        with self._lock:
            self._delay = min(_LONGEST_CONNECTION, self._delay * 2 or _FIRST_CONNECTION)
            self._next = time.monotonic() + _jittered(self._delay)
            self._why = f"the database does not answer: {reason(error)}"
            self._trouble.met(
                "gone",
                "the database {url} does not answer: {reason}; what needs it is refused until it answers",
                url=shown(self.engine.url),
                reason=reason(error),
            )
        return IndexUnavailableError(self._why)

    def _back(self) -> None:
        with self._lock:
            self._delay = self._next = 0.0
            self._trouble.over("the database answers again")

    def transact(
        self,
        connection: sa.Connection,
        call: Callable[[sa.Connection], _T],
        *,
        may_repeat: bool = False,
    ) -> _T:
        """Perform a transaction.

        When the connection is lost during the commit, it is not known whether the server has committed. Then the server
        is asked for the note that the transaction has left, unless the transaction may be repeated.

        Args:
            may_repeat: Whether the transaction can be performed twice with the same effect.

        Raises:
            IndexUnavailableError: The outcome is not known, because the server does not come back.
        """
        left = None
        is_whole = False
        try:
            with connection.begin():
                result = call(connection)
                if not may_repeat:
                    left = note(connection)
                is_whole = True
        except sa.exc.DBAPIError as error:
            if not (is_whole and is_loss(error) and left is not None):
                raise
            connection.close()
            if not self._was_committed(left):
                raise
        return result

    def _was_committed(self, left: Note) -> bool:
        until = time.monotonic() + _OUTCOME
        while True:
            with suppress(IndexUnavailableError, sa.exc.DBAPIError), self.connect() as connection:
                return was_committed(connection, left)
            if time.monotonic() >= until:
                raise IndexUnavailableError(
                    "the connection to the database was lost during a commit, and the database does not come back to "
                    "say whether it has committed"
                )
            time.sleep(_jittered(_LONGEST_ATTEMPT))

    def write(self, call: Callable[[sa.Connection], _T]) -> _T:
        """Perform a transaction on a connection of its own; it is tried again after a conflict with another one."""
        for is_last in attempts(self.engine.dialect.name):
            with self.connect() as connection:
                try:
                    return self.transact(connection, call)
                except sa.exc.DBAPIError as error:
                    if is_last or not is_conflict(error):
                        raise
        raise AssertionError("there is a last attempt")
