"""A PostgreSQL server whose commits survive a power cut, and what it has done for each of its databases."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psycopg

from support.archive.databases import PostgreSQL


@dataclass(frozen=True, slots=True)
class Work:
    """What a server has done for one database.

    Attributes:
        commits: Transactions that were committed.
        wal_octets: Octets of write-ahead log.
        wal_syncs: How often the log was flushed to the disk.
        rows: Rows that were inserted, changed or deleted.
        octets: The size of the database.
        connections: Connections of clients at the moment.
    """

    commits: int
    wal_octets: int
    wal_syncs: int
    rows: int
    octets: int
    connections: int

    def since(self, before: "Work") -> "Work":
        """What has been done between two looks."""
        return Work(
            self.commits - before.commits,
            self.wal_octets - before.wal_octets,
            self.wal_syncs - before.wal_syncs,
            self.rows - before.rows,
            self.octets - before.octets,
            self.connections,
        )


class Server(PostgreSQL):
    """A server whose commits survive a power cut, in a temporary folder."""

    def __init__(self) -> None:
        super().__init__(durable=True)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def make(self) -> str:
        """Make an empty database, and return its name."""
        self._number += 1
        name = f"bench{self._number}"
        with psycopg.connect(self.uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return name

    def work(self, database: str) -> Work:
        """What the server has done; its statistics are up to date about a second after the last transaction."""
        with psycopg.connect(self.uri(database), autocommit=True) as connection:
            row = connection.execute(
                "SELECT xact_commit, tup_inserted + tup_updated + tup_deleted, pg_database_size(datname),"
                " numbackends - 1, (SELECT wal_bytes::bigint FROM pg_stat_wal),"
                " (SELECT wal_sync FROM pg_stat_wal) FROM pg_stat_database WHERE datname = %s",
                (database,),
            ).fetchone()
        assert row is not None
        commits, rows, octets, connections, wal, syncs = row
        return Work(commits, wal, syncs, rows, octets, connections)
