"""The code that the commands for a node share: the node's storage directory and its index."""

from __future__ import annotations

import os
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

__all__ = ["misplaced", "must_be_storage", "opened_index", "opened_store"]

# How many entries are named of a directory that is not a storage directory.
_NAMED = 3


def must_be_storage(storage: Path) -> FileStore:
    """The storage directory of a node, which may be running."""
    store = FileStore(storage)
    if not store.instances.is_dir():
        raise bad_input(
            f"{storage} is not the storage directory of a node",
            f"{store.instances} does not exist; {_content(storage)}",
            "name the directory that twistd dicom was given by --storage; files in another layout are "
            "imported by sending them to a node: netdicom store",
        )
    return store


def _content(directory: Path) -> str:
    """The content of a directory, in a few words."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        return f"{directory}: {error.strerror}"
    if not names:
        return f"{directory} is empty"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{directory} holds {', '.join(names[:_NAMED])}{more}"


@contextmanager
def opened_store(storage: Path) -> Iterator[FileStore]:
    """The storage directory, locked; it is refused while a node runs on it."""
    store = must_be_storage(storage)
    try:
        store.open()
    except StorageError as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened_index(storage: Path, database: str | None) -> Iterator[Index]:
    """The index of a storage directory; its database contains the other tables, too.

    A node may be running on the directory.
    """
    root = must_be_storage(storage).root
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
                "does another program hold it? try again",
            )
        ) from error
    finally:
        index.close()


def misplaced(store: FileStore) -> Iterator[Path]:
    """Files below ``instances/`` that are not where a node keeps files, because another program put them there."""
    with os.scandir(store.instances) as entries:
        top = sorted(entries, key=lambda entry: entry.name)
    for entry in top:
        if not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)
            continue
        with os.scandir(entry.path) as entries:
            folders = sorted(each.path for each in entries if each.is_dir(follow_symlinks=False))
        for folder in folders:
            for parent, _, names in os.walk(folder):
                yield from (Path(parent, name) for name in sorted(names))
