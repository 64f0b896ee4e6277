"""The index of an archive: opened, written to and read (PS3.4 C).

Methods that write return at once with a :class:`concurrent.futures.Future`; all others block. An instance is found by
every query that begins after the future of :meth:`Index.add` is done. This module needs no reactor.

:mod:`~netdicom_tx.archive.index.commits` has the thread that writes, :mod:`~netdicom_tx.archive.index.reader` what is
read, and :mod:`~netdicom_tx.archive.index.entries` the values in which it is returned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import sqlalchemy as sa

from ..shared import Alone
from . import withdrawal
from .commits import Committer
from .connections import Connections, IndexUnavailableError, translated
from .engine import (
    IndexUnusableError,
    Settings,
    file_of,
    is_on_network,
    open_engine,
    reason,
)
from .entries import Counts, Entry, Files, InstanceRef, PathRow
from .migrations import migrate
from .reader import Reader
from .record import InstanceRecord, record_of
from .rights import remedy_of
from .urls import shown
from .watch import SearchEndedError, Watch
from .withdrawal import Chosen, Listed, Narrow, Standing
from .writer import Writer

__all__ = [
    "Counts",
    "Entry",
    "Files",
    "Index",
    "IndexUnavailableError",
    "InstanceRecord",
    "InstanceRef",
    "PathRow",
    "SearchEndedError",
    "Standing",
    "Watch",
    "record_of",
]

_T = TypeVar("_T")


class Index(Reader):
    """The index in a database.

    Args:
        url: The SQLAlchemy database URL, for example ``sqlite:///archive/index.db``.
        root: The directory that stored paths are relative to, so that the archive can be moved.
        readers: How many connections for queries are kept open; as many again are opened when they are needed.
        settings: What connections to a PostgreSQL server are set to.
    """

    def __init__(
        self,
        url: str,
        *,
        root: Path | None = None,
        readers: int = 8,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(root)
        self._url = url
        self.settings = settings or Settings()
        self._prefix = "" if root is None else f"{root}{os.sep}"
        self._readers = readers
        self._file: str | None = None
        self._file_identity: tuple[int, int] | None = None
        self._writer = Writer(self.path_text)
        self._committer: Committer | None = None  # while the index is open
        #: Called by :meth:`open` to check that the database belongs to the archive.
        self.identify: Callable[[sa.Connection], object] | None = None
        #: Coordinates the processes that write to the same index; set it before :meth:`open`.
        self.shared = Alone()

    @property
    def url(self) -> str:
        """The URL of the database without its password, for people to read."""
        return shown(sa.engine.make_url(self._url))

    @property
    def is_server(self) -> bool:
        """Whether nodes of several machines may use the database."""
        try:
            return sa.engine.make_url(self._url).get_backend_name() != "sqlite"
        except (sa.exc.ArgumentError, ValueError):
            return False  # open() says what is wrong with it

    @property
    def file(self) -> str | None:
        """The path of the open database's file; None when it is not a file of this machine."""
        return self._file

    # -- opening and closing -----------------------------------------------------------------------

    def open(self, identify: Callable[[sa.Connection], object] | None = None) -> None:
        """Open the database, create or migrate its tables, and start the writer.

        Args:
            identify: Called before the tables are made or migrated; it may refuse a database by an exception. By
                default it is the attribute :attr:`identify`.

        Raises:
            IndexUnusableError: The database cannot be opened, or a newer version has written it.
        """
        engine = open_engine(self._url, readers=self._readers, settings=self.settings)
        path = file_of(engine)
        if self.shared.is_shared and path is not None and is_on_network(path):
            engine.dispose()
            raise IndexUnusableError(
                f"the index {path} is on a network file system, by which several processes cannot share an SQLite "
                "database: put it on a local disk (--database), use PostgreSQL, or run one worker"
            )
        try:
            identify = identify or self.identify
            if identify is not None:
                with engine.connect() as connection:
                    identify(connection)
            migrate(engine)
        except sa.exc.SQLAlchemyError as error:
            engine.dispose()
            raise IndexUnusableError(
                f"the index {shown(engine.url)} cannot be opened: {reason(error)}{remedy_of(error)}"
            ) from error
        except BaseException:
            engine.dispose()
            raise
        self._connections = Connections(engine)
        self._file = file_of(engine)
        self._file_identity = None if self._file is None else _identity(self._file)
        self._committer = Committer(self._connections, self._writer, self.shared, self._check_file)

    @property
    def _engine(self) -> sa.Engine | None:
        return None if self._connections is None else self._connections.engine

    @property
    def is_open(self) -> bool:
        """Whether the database is open."""
        return self._connections is not None

    def close(self) -> None:
        """Finish the writer's tasks, and close the database."""
        committer, self._committer = self._committer, None
        if committer is not None:
            committer.close()
        if self._connections is not None:
            self._connections.engine.dispose()
            self._connections = None

    def __enter__(self) -> Index:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def path_text(self, path: Path) -> str:
        """A path in the form that the index stores."""
        return str(path).removeprefix(self._prefix)

    # -- writing -----------------------------------------------------------------------------------

    def add(self, record: InstanceRecord) -> Future[None]:
        """Add an instance, or replace the one with the same UID.

        Returns:
            Is done when the row is committed; fails with :class:`IndexUnavailableError`. The instance is not added
            when the future is cancelled before the transaction begins.

        Raises:
            IndexUnavailableError: The index is not open.
        """
        return self._committing().submit((record,))

    def add_many(
        self, records: Sequence[InstanceRecord]
    ) -> Future[Mapping[str, BaseException] | None]:
        """Add instances in one transaction. Otherwise this is like :meth:`add`.

        Returns:
            Is done when the rows are committed. The result names the instances whose rows the database refuses
            for what is in them, by SOP Instance UID; it is None when there are none.
        """
        return self._committing().submit(tuple(records))

    def add_new(self, record: InstanceRecord) -> Future[Standing | None]:
        """Add an instance, unless there is one with its UID, which stays. Its file is not to be deleted any more.

        Returns:
            Is done when the row is committed, with the instance that was there, if it has another file. Otherwise
            this is like :meth:`add`.
        """
        return self._committing().submit((record,), only_new=True)

    def exchange(self, record: InstanceRecord, former: str) -> Future[bool]:
        """Let an instance take the place of another one, whose file is then to be deleted.

        Args:
            former: The path of the other one, in the form of the index.

        Returns:
            Is done, with False when that one was not there any more. Otherwise this is like :meth:`add`.
        """
        return self.write(lambda writer: self._writer.exchange(writer, record, former))

    def write(self, call: Callable[[sa.Connection], _T]) -> Future[_T]:
        """Have the writer call a function inside a transaction, together with other tasks.

        The function may be called again after the transaction was rolled back. It must not write to the tables of
        the index. Otherwise this is like :meth:`add`.

        Returns:
            Is done, with what the function has returned, when the transaction is committed.
        """
        return self._committing().submit(call=call)

    def write_apart(self, call: Callable[[sa.Connection], _T]) -> _T:
        """Call a function in a transaction of its own, which may take long, beside the writer; blocks.

        Only the list of what is deleted may be changed so, and the tables of the group.

        Raises:
            IndexUnavailableError: The database refuses.
        """
        connections = self._opened()
        try:
            return connections.write(call)
        except sa.exc.SQLAlchemyError as error:
            raise translated(error) from error

    def remove(self, sop_instance_uid: str) -> Future[bool]:
        """Remove an instance; the result tells whether it was there. Otherwise this is like :meth:`add`."""
        return self.write(lambda writer: self._writer.remove(writer, sop_instance_uid))

    def withdraw(
        self,
        chosen: Sequence[Chosen],
        narrow: Narrow = withdrawal.all_of,
    ) -> Future[list[Listed]]:
        """Remove instances whose files are to be deleted, and put them on the list of these in the same transaction.

        Args:
            chosen: The instances; those that are not there any more are left out.
            narrow: Called inside the transaction, for those of the chosen ones that are removed. It may be called
                again after the transaction was rolled back.

        Returns:
            The list of what was removed. Otherwise this is like :meth:`add`.
        """
        return self.write(
            lambda writer: withdrawal.withdraw(writer, self._writer.remove_rows, chosen, narrow)
        )

    def set_digest(self, sop_instance_uid: str, digest: str) -> Future[None]:
        """Store the digest of a file that had none. Otherwise this is like :meth:`add`."""
        return self.write(lambda writer: self._writer.set_digest(writer, sop_instance_uid, digest))

    def check(self) -> None:
        """Fail at once when the database has just refused, for callers who would hold up others while they wait.

        Raises:
            IndexUnavailableError: The database has refused the last transaction, not longer ago than a second.
        """
        if self._committer is not None:
            self._committer.check()

    def _committing(self) -> Committer:
        committer = self._committer
        if committer is None:
            raise IndexUnavailableError("the index is not open")
        return committer

    # -- whether it works --------------------------------------------------------------------------

    def probe(self) -> None:
        """Ask the database for nothing; blocks.

        Raises:
            IndexUnavailableError: The database does not answer, or would not keep a row.
        """
        self._check_file()
        self.check()
        with self.reading() as connection:
            connection.execute(sa.select(1))

    def _check_file(self) -> None:
        """Check that the database's file still has its name, because rows written to a deleted file are lost.

        Raises:
            IndexUnavailableError: The database's file was deleted or replaced.
        """
        if self._file is not None and _identity(self._file) != self._file_identity:
            raise IndexUnavailableError(
                f"the file {self._file} of the index was deleted or replaced while the node runs: "
                "restart the node, which makes files and index agree"
            )


def _identity(path: str) -> tuple[int, int] | None:
    """What distinguishes a file from a later one with the same name; None when the file does not exist."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
