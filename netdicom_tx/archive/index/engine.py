"""The engine of the index's database.

SQL and settings of a single kind of database are here and nowhere else.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql

from ...exceptions import NetDICOMError
from .urls import read
from .watch import Watch

__all__ = [
    "DisturbedError",
    "IndexUnusableError",
    "Settings",
    "be_brief",
    "begin_to_write",
    "check_database",
    "file_of",
    "insert_new",
    "is_conflict",
    "is_loss",
    "is_on_network",
    "is_refusal",
    "open_engine",
    "reason",
    "take_time",
    "watched",
]


class IndexUnusableError(NetDICOMError):
    """The database of the index cannot be used."""


class DisturbedError(Exception):
    """Another process has changed the same rows meanwhile: the transaction is to be performed again."""


# -- SQLite -------------------------------------------------------------------------------------------

_SQLITE = (
    "PRAGMA busy_timeout = 10000",
    # Commits survive a power cut, not only a crash of the process.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    # The log grows to 2000 pages of 4 KiB before it is written back, which saves syncs of the database file.
    "PRAGMA wal_autocheckpoint = 2000",
    # PS3.4 C.2.2.2.4: wild card matching is case-sensitive.
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA cache_size = -16384",
)
# For how many seconds a new database may be busy while another process gives it its log, and how often that is tried.
_NEW: Final = 10.0
_TRY: Final = 0.01


# -- PostgreSQL ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What connections to a PostgreSQL server are set to. An option in the URL counts more.

    Attributes:
        statement_timeout: After how many seconds the server ends a statement; 0 means never.
        lock_timeout: After how many seconds it ends one that waits for others; 0 means never.
        idle_timeout: After how many seconds it ends a transaction in which nothing happens; 0 means never.
        application: The name of the node in ``pg_stat_activity``.
    """

    statement_timeout: float = 60.0
    lock_timeout: float = 15.0
    idle_timeout: float = 300.0
    application: str = "netdicom_tx"

    def parameters(self) -> dict[str, int]:
        """The settings as PostgreSQL names them, in milliseconds."""
        return {
            "statement_timeout": round(self.statement_timeout * 1000),
            "lock_timeout": round(self.lock_timeout * 1000),
            "idle_in_transaction_session_timeout": round(self.idle_timeout * 1000),
        }


_SETTINGS: Final = Settings()
# After how many seconds without a statement the server ends a transaction that changes something.
_BRIEF: Final = 15.0

# What libpq is told, unless the URL says it. A host that has vanished is noticed within half a minute.
_LIBPQ: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


# A commit is on the disk when it is answered, also where the server, the database or the user has another default. Any
# value but this one waits for the disk.
_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)


def _postgresql_url(url: sa.URL, settings: Settings) -> sa.URL:
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        # PGAPPNAME counts more than this one.
        more = {**_LIBPQ, "fallback_application_name": settings.application}
        url = url.set(query={**more, **url.query})
    return url


def _set_on_connect(engine: sa.Engine, settings: Settings) -> None:
    given = str(engine.url.query.get("options", ""))
    wanted = {name: each for name, each in settings.parameters().items() if name not in given}
    statements = [f"SET {name} = {each}" for name, each in wanted.items()]
    if "synchronous_commit" not in given:
        statements.append(_DURABLE)
    statement = "; ".join(statements)

    def configure(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.commit()

    if statements:
        event.listen(engine, "connect", configure)


def take_time(connection: sa.Connection) -> None:
    """Let the transaction take as long as it does, also between two statements."""
    if connection.dialect.name == "postgresql":
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {name} = 0")


def be_brief(connection: sa.Connection) -> None:
    """Have the server end this transaction soon if nothing happens in it, because others may wait for its locks.

    The node may be suspended, or its machine lost, and the server keeps the connection of a lost machine for long.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            f"SET LOCAL idle_in_transaction_session_timeout = {round(_BRIEF * 1000)}"
        )


def insert_new(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> int | None:
    """Insert a row, and return its number; None when another process has inserted one with the same key meanwhile.

    Raises:
        sqlalchemy.exc.IntegrityError: The same, from a database that cannot go on after it.
    """
    if connection.dialect.name == "postgresql":
        statement = postgresql.insert(table).on_conflict_do_nothing().returning(table.c.id)
        found: int | None = connection.scalar(statement, values)
        return found
    made = connection.execute(table.insert(), values).inserted_primary_key
    assert made is not None  # it is known when one row was inserted
    number: int = made[0]
    return number


# -- engines ------------------------------------------------------------------------------------------

_EXAMPLES = "sqlite:////data/index.db or postgresql://user@host/name"


def _is_in_memory(url: sa.URL) -> bool:
    return ":memory:" in (url.database or ":memory:") or url.query.get("mode") == "memory"


def _configure(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in _SQLITE:
        cursor.execute(pragma)
    _write_ahead(cursor)
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Give a database its log; it has one for good then.

    SQLite does not wait here, whatever its timeout, when another process is giving the same database its log.
    """
    until = time.monotonic() + _NEW
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_TRY)
        else:
            return


def file_of(engine: sa.Engine) -> str | None:
    """The path of the database's file; None when it is not a file of this machine."""
    return engine.url.database if engine.dialect.name == "sqlite" else None


def _make_private(path: str) -> None:
    """Create the file of a database, for its owner alone: it has the names of patients in it.

    SQLite gives its other files the permissions of this one.
    """
    with suppress(OSError):  # SQLite itself says better what is wrong with the path
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _read(url: str, settings: Settings) -> sa.URL:
    try:
        parsed = read(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        # The text itself may have a password in it.
        raise IndexUnusableError(
            f"the database URL cannot be read; expected one such as {_EXAMPLES}"
        ) from error
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        parsed = _postgresql_url(parsed, settings)
    if kind == "sqlite" and _is_in_memory(parsed):
        raise IndexUnusableError(
            "the index needs a database file, not one in memory; expected a URL such as "
            "sqlite:////data/index.db"
        )
    return parsed


def open_engine(url: str, *, readers: int = 4, settings: Settings = _SETTINGS) -> sa.Engine:
    """Make the engine for a database URL: SQLite, or another database that SQLAlchemy supports.

    Args:
        readers: How many connections are kept open beside the writer's. As many again are opened when they are needed.
        settings: What connections to a PostgreSQL server are set to.

    Raises:
        IndexUnusableError: The URL is wrong, it names a database in memory, or the driver is not installed.
    """
    parsed = _read(url, settings)
    kind = parsed.get_backend_name()
    engine = _engine(parsed, readers)
    if kind == "postgresql":
        _set_on_connect(engine, settings)
    if kind == "sqlite":
        event.listen(engine, "connect", _configure)
        if parsed.database is not None and not parsed.query.get("uri"):
            _make_private(parsed.database)
    return engine


def check_database(url: str) -> None:
    """Check the URL of a database, without opening it.

    Raises:
        IndexUnusableError: As :func:`open_engine`.
    """
    _engine(_read(url, _SETTINGS), 1)


def _engine(parsed: sa.URL, readers: int) -> sa.Engine:
    kind = parsed.get_backend_name()
    try:
        engine = sa.create_engine(
            parsed,
            pool_size=readers + 1,
            max_overflow=readers,
            # A server may have been restarted since a connection was used last.
            pool_pre_ping=kind != "sqlite",
        )
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
    return engine


# The file systems whose files are on another machine, as the kernel calls them.
_NETWORK: Final = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|ceph|glusterfs|fuse\.(sshfs|glusterfs|ceph.*|s3fs|rclone)|afs|ncpfs|lustre|beegfs"
)


def is_on_network(path: str, mounts: str = "/proc/self/mounts") -> bool:
    """Whether a file is on another machine, so that the processes of this one cannot share memory of SQLite by it."""
    real = os.path.realpath(path)
    kinds: dict[str, str] = {}
    with suppress(OSError), open(mounts, encoding="utf-8", errors="replace") as file:
        for line in file:
            _, place, kind, *_ = line.split()
            # A later mount hides an earlier one; a blank is written as an octal number.
            kinds[re.sub(r"\\([0-7]{3})", lambda each: chr(int(each[1], 8)), place)] = kind
    while real not in kinds and real != os.path.dirname(real):
        real = os.path.dirname(real)
    return _NETWORK.fullmatch(kinds.get(real, "")) is not None


def begin_to_write(connection: sa.Connection) -> None:
    """Take the lock of the database at the beginning of a transaction, where the driver takes it at the first change.

    What the transaction reads before it writes is then still true when it writes.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


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


# SQLSTATE: the classes of data, integrity and of what exceeds a limit, such as a value that no index can hold.
_AT_FAULT: Final = ("22", "23", "54")
# Serialisation failure, deadlock, and a row that another transaction has inserted or deleted.
_DISTURBED: Final = ("40001", "40P01", "23505", "23503")


def _sqlstate(error: sa.exc.DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""


def is_refusal(error: BaseException) -> bool:
    """Whether the database itself refuses: it is locked, full, damaged or gone, or allows nothing.

    Otherwise one statement is at fault, with its values.
    """
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = _sqlstate(error)
    if state:
        return not state.startswith(_AT_FAULT)
    if isinstance(error, sa.exc.DataError | sa.exc.IntegrityError | sa.exc.ProgrammingError):
        return False
    # SQLite says this much of any statement that is wrong in itself.
    return getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR


def is_conflict(error: BaseException) -> bool:
    """Whether another process has disturbed a transaction, which may work when it is performed again."""
    if not isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, DisturbedError)
    state = _sqlstate(error)
    return state in _DISTURBED or (not state and isinstance(error, sa.exc.IntegrityError))


def is_loss(error: BaseException) -> bool:
    """Whether the connection was lost."""
    return isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated


def reason(error: BaseException) -> str:
    """The message of the database, without the statement and its values."""
    original = getattr(error, "orig", None)
    said = error if original is None else original
    return (str(said).splitlines() or [type(said).__name__])[0]
