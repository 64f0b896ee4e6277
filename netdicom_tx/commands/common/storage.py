"""What the commands for who runs a node share: its archive, without the node or beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...archive import (
    FileStore,
    Index,
    IndexUnavailableError,
    IndexUnusableError,
    StorageError,
)
from .failures import CommandError, ExitCode, Problem, bad_input

__all__ = ["opened_index", "opened_store"]


def _must_be_storage(storage: Path) -> FileStore:
    store = FileStore(storage)
    if not store.instances.is_dir():
        raise bad_input(
            f"{storage} is no storage directory of a node",
            f"there is no {store.instances}",
            "name the one that twistd dicom was given by --storage",
        )
    return store


@contextmanager
def opened_store(storage: Path) -> Iterator[FileStore]:
    """The storage directory, locked; refused while a node runs on it."""
    store = _must_be_storage(storage)
    try:
        store.open()
    except StorageError as error:
        raise CommandError(
            Problem(ExitCode.CONFIGURATION, str(error), hint="stop the node first")
        ) from error
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened_index(storage: Path, database: str | None) -> Iterator[Index]:
    """The index of a storage directory, whose database has the other tables too; a node may be running on it."""
    root = _must_be_storage(storage).root
    index = Index(database or f"sqlite:///{root / 'index.db'}", root=root)
    try:
        index.open()
    except IndexUnusableError as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
    try:
        yield index
    except IndexUnavailableError as error:
        raise CommandError(
            Problem(
                ExitCode.CONFIGURATION,
                f"the database {index.url} cannot be used",
                str(error),
                "is another program holding it? try again",
            )
        ) from error
    finally:
        index.close()
