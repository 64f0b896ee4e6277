"""The engine of the index's database, and the version of its tables.

This is the one place for what only one kind of database knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event

from ...exceptions import NetDICOMError
from .migrations import STEPS
from .schema import metadata

__all__ = ["VERSION", "IndexUnusableError", "migrate", "open_engine"]


class IndexUnusableError(NetDICOMError):
    """The database of the index cannot be used."""


# -- versions -----------------------------------------------------------------------------------------

_version = sa.Table(
    "schema_version", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False)
)

#: The version of the tables in :mod:`netdicom_tx.archive.index.schema`. A new database is made at this version
#: at once, and a new table needs no step: what is missing is made.
VERSION: Final = 2


def migrate(
    engine: sa.Engine,
    steps: Mapping[int, Callable[[sa.Connection], None]] = STEPS,
    version: int = VERSION,
) -> int:
    """Make the tables, or bring them up to ``version``.

    Each step is a transaction of its own with the new number, so that what was interrupted goes on
    where it stood.

    Returns:
        The version that was found; 0 for an empty database.

    Raises:
        IndexUnusableError: The database is of a newer version than this program.
    """
    with engine.begin() as connection:
        _version.create(connection, checkfirst=True)
        found = connection.scalar(sa.select(_version.c.version)) or 0
        if found > version:
            raise IndexUnusableError(
                f"the index has schema version {found}, and this netdicom_tx knows versions up to "
                f"{version}: start the version that wrote it, or one that is newer"
            )
        if found == 0:
            metadata.create_all(connection)
            connection.execute(_version.insert().values(version=version))
            return 0
    for number in range(found + 1, version + 1):
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                # The driver begins a transaction only before a change of rows, not before one of tables.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            steps[number](connection)
            connection.execute(_version.update().values(version=number))
    with engine.begin() as connection:
        metadata.create_all(connection)
    return found


# -- the one place for what only SQLite knows ---------------------------------------------------------

# 2000 pages of 4 KiB in the log before it is written back: fewer syncs of the database file.
_SQLITE = (
    "PRAGMA journal_mode = WAL",
    # Survives a power cut, and not only a crash of the process.
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 10000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA wal_autocheckpoint = 2000",
    # PS3.4 C.2.2.2.4: wild card matching is case-sensitive.
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA cache_size = -16384",
)


_EXAMPLES = "sqlite:////data/index.db or postgresql://user@host/name"


def _is_in_memory(url: sa.URL) -> bool:
    return ":memory:" in (url.database or ":memory:") or url.query.get("mode") == "memory"


def open_engine(url: str, *, readers: int = 4) -> sa.Engine:
    """The engine for a database URL, of SQLite or of any other that SQLAlchemy knows.

    Args:
        readers: Connections beside the writer's that are kept.

    Raises:
        IndexUnusableError: The URL is wrong, names a database in memory, or its driver is missing.
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
            f"{parsed.drivername!r} is a driver for asyncio; expected one that waits, such as "
            f"{kind!r} alone"
        )
    if kind == "sqlite":

        def configure(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            for pragma in _SQLITE:
                cursor.execute(pragma)
            cursor.close()

        event.listen(engine, "connect", configure)
    return engine
