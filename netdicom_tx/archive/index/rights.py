"""The rights of a node in its database, which are checked at the start, and what to do when they are missing."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from .engine import IndexUnusableError, begin_to_write, reason
from .schema import metadata

__all__ = ["check_rights", "remedy_of"]

# SQLSTATE of PostgreSQL: insufficient privilege, and read-only transaction.
_NO_RIGHT: Final = "42501"
_READ_ONLY: Final = "25006"

# Errors without an SQLSTATE, because there was no connection yet; they are recognised by their words.
_IN_WORDS: Final = (
    (
        ("too many clients", "too many connections", "connection slots"),
        "the server allows no more connections: raise its max_connections, or let the nodes have fewer threads",
    ),
    (("does not exist",), "create it, or correct [database] url"),
    (
        ("authentication failed", "no password supplied", "pg_hba.conf"),
        "correct the user or the password in [database] url or url_file, or allow this host in pg_hba.conf",
    ),
    (
        ("refused", "resolve host", "timeout expired", "timed out", "no route", "unreachable"),
        "start the server, or correct [database] url",
    ),
    (
        ("no such file or directory", "starting up", "shutting down"),
        "start the server, or correct [database] url",
    ),
    (("invalid connection option",), "correct [database] url"),
)

_ON_POSTGRESQL: Final = sa.text(
    """
    SELECT c.relname FROM pg_catalog.pg_class c
    WHERE c.relkind = 'r' AND c.relname IN :names AND pg_catalog.pg_table_is_visible(c.oid) AND NOT (
        has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
    ) ORDER BY c.relname
    """
).bindparams(sa.bindparam("names", expanding=True))


def remedy_of(error: sa.exc.SQLAlchemyError) -> str:
    """What an operator can do about a refusal, as the end of a sentence; empty when that is not known."""
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None)
    if state == _READ_ONLY or "readonly database" in str(original):
        return (
            "; a node has to write: name the primary server, or let the user of the node write the file and its "
            "directory"
        )
    if state == _NO_RIGHT:
        return (
            "; the user of the database needs the right to make and change tables: make it the owner of the database, "
            "or GRANT CREATE ON SCHEMA"
        )
    if isinstance(original, Exception) and type(original).__module__.startswith("psycopg"):
        said = str(original).lower()
        for words, remedy in _IN_WORDS:
            if any(each in said for each in words):
                return f"; {remedy}"
    return ""


def check_rights(connection: sa.Connection, url: str) -> None:
    """Check that the node may change the rows of all tables. This changes nothing.

    Raises:
        IndexUnusableError: It may not change the rows of some table.
    """
    if connection.dialect.name == "postgresql":
        names = list(metadata.tables)
        refused = list(connection.scalars(_ON_POSTGRESQL, {"names": names}))
        if refused:
            raise IndexUnusableError(
                f"the user of the database {url} may not change the table {refused[0]}"
                f"{f' and {len(refused) - 1} more' if refused[1:] else ''}: GRANT SELECT, INSERT, UPDATE, DELETE ON "
                "ALL TABLES IN SCHEMA, or make it their owner"
            )
        is_read_only = connection.scalar(sa.text("SHOW transaction_read_only")) == "on"
        if is_read_only:
            raise IndexUnusableError(
                f"the database {url} is read-only; a node has to write: name the primary server ([database] url)"
            )
        return
    connection.rollback()
    try:
        begin_to_write(connection)
        connection.exec_driver_sql("UPDATE schema_version SET version = version")
    except sa.exc.DBAPIError as error:
        # A database that is locked for a while is not an error.
        if remedy := remedy_of(error):
            raise IndexUnusableError(
                f"the database {url} cannot be written: {reason(error)}{remedy}"
            ) from error
    finally:
        connection.rollback()
