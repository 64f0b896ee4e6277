"""What the database gives to nodes that share it: one clock for all, and locks that are taken at once or not at all.

The clocks of machines differ, so times that several nodes compare come from the database server. An SQLite file is used
on one machine only, so the clock of that machine is used.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import sqlalchemy as sa

__all__ = ["is_server", "moment", "try_lock"]


def is_server(connection: sa.Connection) -> bool:
    """Whether nodes on other machines may share the database."""
    return connection.dialect.name == "postgresql"


def moment(connection: sa.Connection) -> Any:
    """The seconds since 1970 when a statement begins, as a value or an expression for the statement."""
    if not is_server(connection):
        return time.time()
    # This is the same for all rows of a statement, so that an index can be used for a comparison with it.
    return sa.cast(sa.extract("epoch", sa.func.statement_timestamp()), sa.Double)


def try_lock(connection: sa.Connection, name: str) -> bool:
    """Take a lock until the end of the transaction, unless another transaction has it.

    The transaction may hold locks of rows already, so waiting for another lock could be a deadlock. In SQLite only one
    transaction writes at a time, so no such lock is needed.

    Returns:
        Whether the lock was taken.
    """
    if not is_server(connection):
        return True
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(number))))
