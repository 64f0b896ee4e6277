"""The engine of the index's database, and the version of its tables.

SQL and settings of a single kind of database are here and nowhere else.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event

from ...exceptions import NetDICOMError
from .migrations import STEPS
from .schema import metadata
from .watch import Watch

__all__ = [
    "VERSION",
    "IndexUnusableError",
    "file_of",
    "is_refusal",
    "migrate",
    "open_engine",
    "watched",
]


class IndexUnusableError(NetDICOMError):
    """The database of the index cannot be used."""


# -- versions -----------------------------------------------------------------------------------------

_version = sa.Table(
    "schema_version", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False)
)

#: The version of the tables in :mod:`netdicom_tx.archive.index.schema`. A new database gets this version at once. A new
#: table needs no step, because missing tables are created.
VERSION: Final = 2


def migrate(
    engine: sa.Engine,
    steps: Mapping[int, Callable[[sa.Connection], None]] = STEPS,
    version: int = VERSION,
) -> int:
    """Create the tables, or bring them up to ``version``.

    Each step is a transaction that also writes the new number, so an interrupted migration continues where it ended.

    Returns:
        The version that the database had; 0 when it was empty.

    Raises:
        IndexUnusableError: A newer version than this one has written the database.
    """
    with engine.begin() as connection:
        _version.create(connection, checkfirst=True)
        found = connection.scalar(sa.select(_version.c.version)) or 0
        if found > version:
            raise IndexUnusableError(
                f"the index has schema version {found}, but this netdicom_tx supports versions up to "
                f"{version}: start the netdicom_tx that wrote it, or a newer one"
            )
        if found == 0:
            metadata.create_all(connection)
            connection.execute(_version.insert().values(version=version))
            return 0
    for number in range(found + 1, version + 1):
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                # The driver begins a transaction before it changes rows, but not before it changes tables.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            steps[number](connection)
            connection.execute(_version.update().values(version=number))
    with engine.begin() as connection:
        metadata.create_all(connection)
    return found


# -- SQLite -------------------------------------------------------------------------------------------

_SQLITE = (
    "PRAGMA journal_mode = WAL",
    # Commits survive a power cut, not only a crash of the process.
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 10000",
    "PRAGMA foreign_keys = ON",
    # The log grows to 2000 pages of 4 KiB before it is written back, which saves syncs of the database file.
    "PRAGMA wal_autocheckpoint = 2000",
    # PS3.4 C.2.2.2.4: wild card matching is case-sensitive.
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA cache_size = -16384",
)


_EXAMPLES = "sqlite:////data/index.db or postgresql://user@host/name"


def _is_in_memory(url: sa.URL) -> bool:
    return ":memory:" in (url.database or ":memory:") or url.query.get("mode") == "memory"


def _configure(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in _SQLITE:
        cursor.execute(pragma)
    cursor.close()


def file_of(engine: sa.Engine) -> str | None:
    """The path of the database's file; None when it is not a file of this machine."""
    return engine.url.database if engine.dialect.name == "sqlite" else None


def _make_private(path: str) -> None:
    """Create the file of a database, for its owner alone: it has the names of patients in it.

    SQLite gives its other files the permissions of this one.
    """
    with suppress(OSError):  # SQLite itself says better what is wrong with the path
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def open_engine(url: str, *, readers: int = 4) -> sa.Engine:
    """Make the engine for a database URL: SQLite, or another database that SQLAlchemy supports.

    Args:
        readers: How many connections are kept open beside the writer's.

    Raises:
        IndexUnusableError: The URL is wrong, it names a database in memory, or the driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        # The text itself may have a password in it.
        raise IndexUnusableError(
            f"the database URL cannot be read; expected one such as {_EXAMPLES}"
        ) from error
    kind = parsed.get_backend_name()
    if kind == "sqlite" and _is_in_memory(parsed):
        raise IndexUnusableError(
            "the index needs a database file, not one in memory; expected a URL such as "
            "sqlite:////data/index.db"
        )
    try:
        engine = sa.create_engine(parsed, pool_size=readers + 1, max_overflow=readers)
    except sa.exc.NoSuchModuleError as error:
        raise IndexUnusableError(
            f"there is no database called {parsed.drivername!r}; expected a URL such as {_EXAMPLES}"
        ) from error
    except ImportError as error:
        extra = "; pip install 'netdicom-tx[postgres]'" if kind == "postgresql" else ""
        raise IndexUnusableError(
            f"the driver of the database {parsed.drivername!r} is not installed: {error}{extra}"
        ) from error
    except (sa.exc.ArgumentError, TypeError) as error:
        raise IndexUnusableError(f"the database URL cannot be used: {error}") from error
    if engine.dialect.is_async:
        raise IndexUnusableError(
            f"{parsed.drivername!r} is a driver for asyncio; expected a synchronous one, such as "
            f"{kind!r} alone"
        )
    if kind == "sqlite":
        event.listen(engine, "connect", _configure)
        if parsed.database is not None and not parsed.query.get("uri"):
            _make_private(parsed.database)
    return engine


# -- what statements do -------------------------------------------------------------------------------

# How many instructions of SQLite pass between two looks at the watch; about a millisecond.
_INSTRUCTIONS: Final = 50_000


@contextmanager
def watched(connection: sa.Connection, watch: Watch) -> Iterator[None]:
    """Have the statements of a connection end, with an error of the database, when the watch is over."""
    raw: Any = connection.connection.dbapi_connection
    if connection.dialect.name == "sqlite":
        raw.set_progress_handler(lambda: watch.is_over, _INSTRUCTIONS)
        try:
            yield
        finally:
            raw.set_progress_handler(None, 0)
        return
    if connection.dialect.name == "postgresql":
        milliseconds = max(1, int(watch.seconds * 1000))
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
    forget = watch.on_cancel(raw.cancel) if hasattr(raw, "cancel") else None
    try:
        yield
    finally:
        if forget is not None:
            forget()


def is_refusal(error: BaseException) -> bool:
    """Whether the database itself refuses: it is locked, full, damaged or gone.

    Otherwise one statement is at fault, with its values.
    """
    at_fault = (sa.exc.DataError, sa.exc.IntegrityError, sa.exc.ProgrammingError)
    if not isinstance(error, sa.exc.DBAPIError) or isinstance(error, at_fault):
        return False
    # SQLite says this much of any statement that is wrong in itself.
    return getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR
