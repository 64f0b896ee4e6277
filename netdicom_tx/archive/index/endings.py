"""Whether a transaction was committed whose answer was lost with the connection.

The server cannot be asked by the number of the transaction: one that has crashed has lost the transactions that it had
not written, and gives their numbers to others. So each transaction that must not be repeated leaves a note of its own
in the table ``ending``, in a row of its connection, and the note is committed with it or not at all.

Only PostgreSQL needs this: no connection to a file is lost during a commit.
"""

from __future__ import annotations

import uuid
from typing import Final, NamedTuple

import sqlalchemy as sa

from .schema import big_integer, metadata
from .together import is_server, moment

__all__ = ["Note", "note", "was_committed"]

_table: Final = sa.Table(
    "ending",
    metadata,
    # A name that the connection has for as long as it lasts.
    sa.Column("writer", sa.Text, primary_key=True),
    sa.Column("number", big_integer, nullable=False),
    # Seconds since 1970.
    sa.Column("noted", sa.Double, nullable=False),
)
# The rows of connections that are gone are deleted after so many seconds.
_KEPT: Final = 86_400.0

_NOTE: Final = sa.text(
    """
    INSERT INTO ending (writer, number, noted)
    SELECT :writer, :number, extract(epoch FROM statement_timestamp())
    WHERE pg_current_xact_id_if_assigned() IS NOT NULL
    ON CONFLICT (writer) DO UPDATE SET number = excluded.number, noted = excluded.noted
    RETURNING number
    """
)
# This waits for a transaction that is still about to write its note.
_ASK: Final = sa.text(
    """
    INSERT INTO ending (writer, number, noted)
    VALUES (:writer, 0, extract(epoch FROM statement_timestamp()))
    ON CONFLICT (writer) DO UPDATE SET noted = excluded.noted
    RETURNING number
    """
)


class Note(NamedTuple):
    """What a transaction has left.

    Attributes:
        writer: The name of its connection.
        number: Its number among those of this connection.
    """

    writer: str
    number: int


def note(connection: sa.Connection) -> Note | None:
    """Leave a note at the end of a transaction; None when it has changed nothing, or its outcome is always known."""
    if not is_server(connection):
        return None
    info = connection.info
    writer: str | None = info.get(__name__)
    made = Note(writer or uuid.uuid4().hex, info.get(f"{__name__} number", 0) + 1)
    if connection.scalar(_NOTE, made._asdict()) is None:
        return None
    info[__name__], info[f"{__name__} number"] = made
    if writer is None:
        _tidy(connection)
    return made


def _tidy(connection: sa.Connection) -> None:
    """Delete the rows of connections that are gone."""
    old = (
        sa.select(_table.c.writer)
        .where(_table.c.noted < moment(connection) - _KEPT)
        .with_for_update(skip_locked=True)
    )
    connection.execute(_table.delete().where(_table.c.writer.in_(old)))


def was_committed(connection: sa.Connection, left: Note) -> bool:
    """Whether the transaction that has left a note was committed.

    Raises:
        sqlalchemy.exc.DBAPIError: The database does not answer, or the transaction is still being committed.
    """
    with connection.begin():
        number = connection.scalar(_ASK, {"writer": left.writer})
    return bool(number == left.number)
