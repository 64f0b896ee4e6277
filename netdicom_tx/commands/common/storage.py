"""The code that the commands for a node share: the node's storage directory and its index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from ...amounts import Amount
from ...archive import (
    Duplicates,
    FileStore,
    Index,
    IndexUnavailableError,
    IndexUnusableError,
    StorageError,
)
from .failures import CommandError, ExitCode, Problem, bad_input

if TYPE_CHECKING:
    from ...archive.index.entries import Files
    from ...archive.store.plan import StorePlan
    from ...archive.store.sharedstore import SharedStore

__all__ = [
    "NodeFiles",
    "index_of",
    "misplaced",
    "must_be_storage",
    "node_files",
    "opened_archive",
    "opened_index",
    "opened_shared",
    "shared_store",
    "used",
]

# The variables that say where a node keeps what the commands work on.
_VARIABLES = frozenset(
    {
        "NETDICOM_CONFIG",
        "NETDICOM_STORAGE_DIRECTORY",
        "NETDICOM_DATABASE_URL",
        "NETDICOM_DATABASE_URL_FILE",
        "NETDICOM_AUDIT_FILE",
        "NETDICOM_AUDIT_SYSLOG",
    }
)
# How many entries are named of a directory that is not a storage directory.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where a node keeps instances, and how.

    Attributes:
        database: The URL of the index; None means SQLite in the storage directory.
    """

    storage: Path
    database: str | None
    duplicates: Duplicates = Duplicates.KEEP
    fsync: bool = True
    unknown_sop_classes: bool = False
    reserve: Amount | None = None
    plan: StorePlan | None = None


# What a command knows of the store when the configuration of its node was named.
_PLAN: Final = "netdicom_tx.plan"


def node_files(
    storage: Path, database: str | None, config_file: str | None, *, may_be_new: bool = False
) -> NodeFiles:
    """The place that the options of a command name: by the configuration file of the node, or one by one.

    Without options it is the one that the variables of a node name, as they do in its container.

    Args:
        may_be_new: Whether the storage directory may be empty, or not exist yet.

    Raises:
        CommandError: The file cannot be used, or both are given, or the directory is not that of a node.
    """
    given = click.get_current_context().get_parameter_source
    is_named = any(
        given(each) is click.core.ParameterSource.COMMANDLINE for each in ("storage", "database")
    )
    if config_file is None and (is_named or not has_variables()):
        found = NodeFiles(storage, database)
        _warn_of_password(database)
    else:
        if is_named:
            raise bad_input(
                "--config cannot be combined with --storage or --database",
                f"{config_file} says where the node keeps its instances",
                "leave one of them out",
            )
        found = _configured(config_file)
    click.get_current_context().meta[_PLAN] = found.plan
    is_new = not found.storage.exists() or (
        found.storage.is_dir() and not any(found.storage.iterdir())
    )
    if not (may_be_new and is_new):
        must_be_storage(found.storage, reads=False)
    return found


def _warn_of_password(database: str | None) -> None:
    from ...archive.index.urls import PASSWORD_SEEN, has_password

    if has_password(database):
        click.echo(f"warning: {PASSWORD_SEEN}", err=True)


def has_variables() -> bool:
    """Whether variables of the environment say where a node keeps its instances."""
    return any(os.environ.get(each) for each in _VARIABLES)


def _configured(config_file: str | None) -> NodeFiles:
    from .node import node_options

    options = node_options(["--config", config_file] if config_file is not None else [])
    return NodeFiles(
        Path(options["storage"]),
        options["database"],
        options["duplicates"],
        not options["no-fsync"],
        bool(options["unknown-sop-classes"]),
        options.configured.storage.reserve,
        options.store_plan(),
    )


def must_be_storage(storage: Path, *, reads: bool = True) -> FileStore:
    """The storage directory of a node, which may be running.

    Args:
        reads: Whether instances are to be read; those of a node that shares its store are not in the directory.
    """
    from ...archive.group.identity import DOCUMENT

    shared = shared_store(storage) if reads else None
    if shared is not None:
        return shared
    store = FileStore(storage)
    # The directory of a node whose store is shared has no instances.
    if not store.instances.is_dir() and not (store.root / DOCUMENT).exists():
        raise bad_input(
            f"{storage} is not the storage directory of a node",
            f"{store.instances} does not exist; {_content(storage)}",
            "name the directory that twistd dicom was given by --storage; files in another layout are "
            "imported: netdicom import",
        )
    return store


def _plan(storage: Path) -> StorePlan | None:
    """How the node on a directory shares a store, if the configuration that was named says that."""
    context = click.get_current_context(silent=True)
    plan: StorePlan | None = None if context is None else context.meta.get(_PLAN)
    if plan is None or plan.url is None or plan.root.absolute() != storage.absolute():
        return None
    return plan


def _elsewhere(storage: Path) -> str | None:
    """Where the instances of the node on a directory are, if not there."""
    from ...archive.store.sharedstore import MARK

    try:
        return (storage / MARK).read_text("utf-8").strip()
    except OSError:
        return None


def _unknown(storage: Path, place: str) -> CommandError:
    return bad_input(
        f"the node on {storage} keeps its instances in a store that nodes share, {place}",
        "the directory alone does not say how that is reached",
        "name the configuration file of the node: --config",
    )


class _Unreached:
    """Stands for a shared store while nothing is read of it."""

    def __init__(self, storage: Path, place: str) -> None:
        self._error = _unknown(storage, place)

    def __getattr__(self, name: str) -> Any:
        raise self._error


def shared_store(storage: Path) -> SharedStore | None:
    """The store that a node shares with others, reached; None when the node has a store of its own.

    Raises:
        CommandError: It cannot be reached, or it is not known how.
    """
    from ...archive.store.sharedstore import SharedStore

    plan = _plan(storage)
    if plan is None:
        place = _elsewhere(storage)
        if place is None:
            return None
        raise _unknown(storage, place)
    store = plan.store()
    assert isinstance(store, SharedStore)
    try:
        store.reach()
    except StorageError as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
    return store


def _bound(index: Index, store: FileStore) -> Index:
    """Let an index read the objects of a shared store."""
    from ...archive.store.sharedstore import SharedStore

    if isinstance(store, SharedStore):
        store.bind(index)
    elif (place := _elsewhere(store.root)) is not None:
        index.files = cast("Files", _Unreached(store.root, place))
    return index


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
def opened_archive(
    storage: Path,
    database: str | None,
    *,
    instead: str = "stop the node, and run the command again",
) -> Iterator[tuple[FileStore, Index]]:
    """The storage directory, locked, and its index; it is refused while a node runs on it.

    Args:
        instead: The hint for a user whose node is running.
    """
    from ...archive.store.deletion import open_archive
    from ...archive.store.filestore import InUseError

    store = must_be_storage(storage)
    index = _bound(index_of(store.root, database), store)
    try:
        open_archive(store, index)
    except InUseError as error:
        raise CommandError(
            Problem(
                ExitCode.CONFIGURATION,
                f"the storage directory {store.root} is in use by another node, or by another command",
                "the command changes the archive by itself, so nothing else may use it meanwhile",
                instead,
            )
        ) from error
    except (StorageError, IndexUnusableError, IndexUnavailableError) as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
    try:
        with used(index), _reached():
            yield store, index
    finally:
        store.close()


@contextmanager
def opened_index(storage: Path, database: str | None) -> Iterator[Index]:
    """The index of a storage directory; its database contains the other tables, too.

    A node may be running on the directory.
    """
    place = _elsewhere(storage)
    if place is not None and database is None:
        # Its index is not in the directory either.
        raise _unknown(storage, place)
    store = must_be_storage(storage, reads=_plan(storage) is not None)
    index = _bound(index_of(store.root, database), store)
    try:
        index.open()
    except IndexUnusableError as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
    with used(index), _reached():
        yield index


@contextmanager
def _reached() -> Iterator[None]:
    """Tell of a shared store that does not answer any more."""
    from ...archive.store.objects import ObjectStoreError

    try:
        yield
    except ObjectStoreError as error:
        raise CommandError(
            Problem(
                ExitCode.SOME_FAILED,
                "the command was not completed",
                str(error),
                "when the store answers again, run it again",
            )
        ) from error


@contextmanager
def opened_shared(store: SharedStore, database: str | None) -> Iterator[Index]:
    """The index of a store that nodes share, beside these nodes; they belong together. The store is closed at the end.

    Args:
        store: From :func:`shared_store`.
    """
    from ...archive.group.identity import check
    from ...archive.group.members import check_upgrade
    from ...archive.store.place import place_of

    index = _bound(index_of(store.root, database), store)
    place = place_of(store)

    def identify(connection: Any) -> None:
        check(connection, place, index.url)
        check_upgrade(connection)

    try:
        try:
            index.open(identify)
        except (IndexUnusableError, OSError) as error:
            raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
        with used(index):
            yield index
    finally:
        store.close()


def index_of(root: Path, database: str | None) -> Index:
    """The index of a storage directory; it is not open."""
    from ...archive.group.identity import check_own

    index = Index(database or f"sqlite:///{root / 'index.db'}", root=root)
    index.identify = partial(check_own, directory=root, url=index.url)
    return index


@contextmanager
def used(index: Index) -> Iterator[None]:
    """Close an open index at the end of the block; the database may refuse in the meantime."""
    try:
        yield
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
