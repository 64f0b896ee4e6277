"""Make the tables of an index, or bring them up to the version of this program.

The Alembic revisions in :mod:`netdicom_tx.archive.index.alembic` are the steps from one version to the next: revision
``0003`` turns version 2 into version 3. The table ``schema_version`` has the number. The first release has it already,
so an earlier release refuses a database that a later one has changed. ``alembic_version`` has the same number for
Alembic.

Each revision is one transaction, which also writes the new number, so an interrupted migration continues where it
stopped. The transaction holds a lock of the database: when several processes start at the same time, one of them
migrates and the others wait.

The nodes of a group are upgraded one after the other. So the table ``schema_support`` says which programs can work with
the tables: those that know version :data:`OLDEST` or a later one. A revision that only adds tables and columns, which
are nullable or have a default, leaves that number unchanged; any other revision raises it to its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from .engine import IndexUnusableError, begin_to_write, take_time
from .schema import metadata

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["OLDEST", "VERSION", "migrate", "version_of"]

_SCRIPTS: Final = Path(__file__).with_name("alembic")
#: The folders with revisions.
_REVISIONS = (_SCRIPTS / "versions",)
#: The version of the tables in :mod:`netdicom_tx.archive.index.schema`, which a new database gets at once.
VERSION: Final = max(int(each.name[1:5]) for each in _REVISIONS[0].glob("v*.py"))
#: The oldest version whose program works with tables of this version.
OLDEST: Final = 4

_version = sa.Table(
    "schema_version", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False)
)
_support = sa.Table(
    "schema_support", sa.MetaData(), sa.Column("oldest", sa.Integer, nullable=False)
)
# The lock of PostgreSQL under which tables are made and changed: "netdicom" as a number.
_LOCK: Final = int.from_bytes(b"netdicom", "big") & 0x7FFF_FFFF_FFFF_FFFF
# How many milliseconds a process waits for another one that migrates an SQLite database.
_PATIENCE: Final = 600_000
# Alembic can perform one migration at a time in a process.
_migrating = threading.Lock()


def version_of(connection: sa.Connection) -> int:
    """The version of the tables; 0 when there are none."""
    if not sa.inspect(connection).has_table(_version.name):
        return 0
    return int(connection.scalar(sa.select(_version.c.version)) or 0)


def _is_newer(connection: sa.Connection, found: int) -> bool:
    """Whether a newer program has written the tables, and this one can still work with them.

    Raises:
        IndexUnusableError: This program cannot work with them.
    """
    if found <= VERSION:
        return False
    oldest = found
    if sa.inspect(connection).has_table(_support.name):
        oldest = int(connection.scalar(sa.select(_support.c.oldest)) or found)
    if oldest > VERSION:
        raise IndexUnusableError(
            f"the index has schema version {found}, but this netdicom_tx supports versions up to "
            f"{VERSION}: start the netdicom_tx that wrote it, or a newer one"
        )
    return True


def _note_support(connection: sa.Connection) -> None:
    """Write which programs can work with the tables."""
    _support.create(connection, checkfirst=True)
    connection.execute(_support.delete())
    connection.execute(_support.insert().values(oldest=OLDEST))


def migrate(engine: sa.Engine) -> int:
    """Create the tables, or migrate them to :data:`VERSION`; also creates tables that are missing.

    Returns:
        The version that the database had; 0 when it was empty. A newer one is left as it is.

    Raises:
        IndexUnusableError: A newer version has written the database, and this one cannot work with it.
    """
    with engine.connect() as connection:
        found = version_of(connection)
        if _is_newer(connection, found):
            return found
        there = set(sa.inspect(connection).get_table_names())
    # Nothing is locked, and Alembic is not loaded, when there is nothing to do.
    if found == VERSION and there.issuperset({*metadata.tables, "alembic_version"}):
        return found
    with _migrating:
        first = version = _step(engine)
        while version < VERSION:
            version = _step(engine)
    return first


def _step(engine: sa.Engine) -> int:
    """Perform one step, and return the version before it; the last step creates the missing tables."""
    with _locked(engine) as connection:
        found = version_of(connection)
        if _is_newer(connection, found):
            return found  # another node was faster
        _note_support(connection)
        if 0 < found < VERSION:
            _stamp(connection, found)
            _upgrade(connection, found + 1)
            connection.execute(_version.update().values(version=found + 1))
            return found
        metadata.create_all(connection)
        _stamp(connection, VERSION)
        if not found:
            _version.create(connection, checkfirst=True)
            connection.execute(_version.insert().values(version=VERSION))
    return found


@contextmanager
def _locked(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction during which no other process makes or changes tables."""
    kind = engine.dialect.name
    with engine.connect() as connection:
        patience = None
        if kind == "sqlite":
            patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {_PATIENCE}")
            connection.rollback()
        try:
            with connection.begin():
                begin_to_write(connection)
                if kind == "postgresql":
                    # A large database takes long, and other processes wait for the lock as long.
                    take_time(connection)
                    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                yield connection
        finally:
            if patience is not None:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")


# -- Alembic ------------------------------------------------------------------------------------------


def _revision(version: int) -> str:
    return f"{version:04}"


def _stamp(connection: sa.Connection, version: int) -> None:
    """Write the number of ``schema_version`` into Alembic's table, which earlier releases did not have."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    context = MigrationContext.configure(connection)
    if context.get_current_revision() != _revision(version):
        context.stamp(ScriptDirectory.from_config(_config(connection)), _revision(version))


def _upgrade(connection: sa.Connection, version: int) -> None:
    from alembic.command import upgrade

    upgrade(_config(connection), _revision(version))


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config

    options: dict[str, Any] = {"connection": connection}
    config = Config(attributes=options)
    places = os.pathsep.join(map(str, _REVISIONS))
    for name, value in {
        "script_location": str(_SCRIPTS),
        "version_locations": places,
        "path_separator": "os",
    }.items():
        config.set_main_option(name, value.replace("%", "%%"))
    return config
