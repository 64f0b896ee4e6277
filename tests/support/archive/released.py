"""Databases as released versions of netdicom_tx have made them, on SQLite and on PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sqlalchemy as sa

__all__ = ["released"]

# The tables of the index compare text octet by octet; those of the workflow do not.
_OF_INDEX: Final = {"patient", "study", "series", "instance", "deletion", "protection"}
# The tables that others refer to come first; PostgreSQL checks each row as it comes.
_FIRST: Final = ("patient", "study", "series", "instance")
_TYPES: Final = (
    (r"^\tid INTEGER ", "\tid BIGSERIAL "),
    (r"(_id) INTEGER", r"\1 BIGINT"),
    (r" BLOB\b", " BYTEA"),
    (r" DOUBLE\b", " DOUBLE PRECISION"),
    (r" BOOLEAN DEFAULT 0", " BOOLEAN DEFAULT false"),
    (r" AUTOINCREMENT", ""),
)
_TABLE: Final = re.compile(r'^(?:CREATE TABLE|INSERT INTO) "?(\w+)')


def released(script: Path, url: str) -> None:
    """Fill an empty database.

    Args:
        script: What ``.dump`` of SQLite says of the database that the release has made.
        url: The database; for PostgreSQL, types and literals are those that the release chose there.
    """
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.executescript(script.read_text("utf-8"))
        connection.close()
        return
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as server:
        for statement in sorted(_statements(script), key=_order):
            server.exec_driver_sql(_translated(statement).replace("%", "%%"))
        for each in sa.inspect(server).get_table_names():
            if sa.inspect(server).get_pk_constraint(each)["constrained_columns"] == ["id"]:
                last = f"(SELECT max(id) FROM {each})"
                server.exec_driver_sql(f"SELECT setval('{each}_id_seq', {last})")
    engine.dispose()


def _statements(script: Path) -> Iterator[str]:
    pending = ""
    for line in script.read_text("utf-8").splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statement = pending.strip()
            pending = ""
            if statement.startswith(("CREATE", "INSERT")):
                yield statement


def _order(statement: str) -> tuple[int, int]:
    """Tables, then rows, then indexes."""
    found = _TABLE.match(statement)
    if found is None:
        return 2, 0
    place = _FIRST.index(found[1]) if found[1] in _FIRST else len(_FIRST)
    return int(statement.startswith("INSERT")), place


def _translated(statement: str) -> str:
    if statement.startswith("INSERT"):
        return re.sub(r"\bX'([0-9A-F]*)'", r"'\\x\1'", statement)
    found = _TABLE.match(statement)
    if found is not None and found[1] in _OF_INDEX:
        statement = re.sub(r" TEXT\b", ' TEXT COLLATE "C"', statement)
    for pattern, wanted in _TYPES:
        statement = re.sub(pattern, wanted, statement, flags=re.MULTILINE)
    return statement
