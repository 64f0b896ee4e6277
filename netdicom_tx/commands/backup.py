"""``netdicom backup``: back up the archive of a node, or check a backup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common.failures import CommandError, ExitCode, Problem
from .common.options import (
    archive_options,
    audit_option,
    examples,
    json_option,
    node_option,
)
from .common.output import Output, counted
from .common.report import Report

if TYPE_CHECKING:
    from ..archive.backup import BackedUp

__all__ = ["command"]

# How many files are named that are damaged; all are counted.
_NAMED = 20


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom backup /mnt/backup --files copy --storage /var/lib/netdicom",
        "netdicom backup /mnt/backup --config node.toml",
        "netdicom backup --check /mnt/backup",
    ),
)
@click.argument("target", metavar="DEST", type=click.Path(file_okay=False, path_type=Path))
@archive_options
@node_option
@click.option(
    "--files",
    type=click.Choice(["copy", "link"]),
    help="Copy the files into the backup, or give them second names there, on the same file system (default: as in "
    "the last backup; in the first one, only list them).",
)
@click.option(
    "--check", "is_check", is_flag=True, help="Read the backup, and compare it with its digests."
)
@audit_option
@click.option("-q", "--quiet", is_flag=True, help="Write no notes and no progress.")
@json_option
def command(
    target: Path,
    storage: Path,
    database: str | None,
    config_file: str | None,
    files: str | None,
    is_check: bool,
    audit: str | None,
    quiet: bool,
    is_json: bool,
) -> int:
    """Back up the archive of a node to the directory DEST; the node may be running.

    The backup has a consistent copy of the SQLite index, and a list of all files with their digests. All that the node
    had acknowledged before is in it. A further backup to the same DEST adds what is new, and removes what the archive
    does not have any more. A PostgreSQL database is not copied: use pg_dump, and do so before.

    With a store that nodes share, --files copy copies its objects, and DEST can then be used as a shared directory.

    Exits with 1 when files are damaged, and with 11 when a disk is full.
    """
    output = Output(is_json=is_json, is_quiet=quiet)
    from ..archive.backup import BackupError
    from ..archive.store.objects import ObjectStoreError

    try:
        if is_check:
            return _check(output, target)
        return _back_up(output, target, storage, database, config_file, files or "", audit)
    except BackupError as error:
        raise CommandError(Problem(ExitCode.USAGE, str(error))) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        is_elsewhere = isinstance(error, ObjectStoreError)
        raise CommandError(
            Problem(
                ExitCode.SOME_FAILED if is_elsewhere else ExitCode.LOCAL_DISK,
                "the backup could not be completed",
                f"{where}{error.strerror or error}",
                f"look at the {'store' if is_elsewhere else 'disk'}, and back up again; an earlier backup in the "
                "directory is used again",
            )
        ) from error


def _back_up(
    output: Output,
    target: Path,
    storage: Path,
    database: str | None,
    config_file: str | None,
    files: str,
    audit: str | None,
) -> int:
    from ..archive import FileStore, IndexUnavailableError, IndexUnusableError, StorageError
    from ..archive.backup import back_up
    from .common.audit import Told, audited
    from .common.storage import index_of, node_files, shared_store

    node = node_files(storage, database, config_file)
    store = shared_store(node.storage) or FileStore(
        node.storage, fsync=node.fsync, duplicates=node.duplicates
    )
    index = index_of(store.root, node.database)
    try:
        with (
            audited(audit, config_file) as auditor,
            output.progress("backup", unit="files") as progress,
        ):
            told = Told(None if auditor is None else auditor.exported, target)

            def step(done: BackedUp, total: int) -> None:
                progress.expect(total)
                progress.set(done.files, len(done.damaged))

            done = back_up(store, index, target, files=files, step=step, added=told.tell)
    except (StorageError, IndexUnusableError, IndexUnavailableError) as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
    return _told(output, target, done, index.url, is_shared=store.is_shared)


def _told(output: Output, target: Path, done: BackedUp, url: str, *, is_shared: bool) -> int:
    """Tell what was backed up, and what was not; returns the exit code.

    Args:
        url: The database, which may not be in the backup.
        is_shared: Whether nodes share the store.
    """
    for path, reason in done.damaged[:_NAMED]:
        if not output.is_json:
            output.note(f"damaged: {path}: {reason}")
    if not done.has_index:
        output.note(
            f"the database {url} is not in the backup: copy it by its own means, such as pg_dump"
            + (", before this" if is_shared else "")
        )
    said = (
        f"{counted(done.files, 'file')} in {target}: {done.octets / 1e6:.1f} MB, {done.added} added"
    )
    if done.removed:
        said += f", {done.removed} removed"
    if not done.has_files:
        said = (
            f"{target} lists {counted(done.files, 'file')} ({done.octets / 1e6:.1f} MB) and has no copies of them; "
            "--files copy makes some"
        )
    return Report(
        document={
            "files": done.files,
            "octets": done.octets,
            "added": done.added,
            "removed": done.removed,
            "has_index": done.has_index,
            "has_files": done.has_files,
            "damaged": [{"path": path, "reason": reason} for path, reason in done.damaged],
        },
        summary=said,
        problem=_problem(done),
    ).show(output)


def _problem(done: BackedUp) -> Problem | None:
    if not done.damaged:
        return None
    path, reason = done.damaged[0]
    return Problem(
        ExitCode.SOME_FAILED,
        f"{counted(len(done.damaged), 'file')} of the archive could not be backed up",
        f"the first is {path}: {reason}",
        "netdicom verify checks the archive; all other files are in the backup",
    )


def _check(output: Output, target: Path) -> int:
    from ..archive.backup import check

    faults = 0
    with output.progress("check", unit="files") as progress:

        def step(number: int, total: int) -> None:
            progress.expect(total)
            progress.set(number, faults)

        for fault in check(target, step):
            faults += 1
            if output.is_json:
                output.json({"path": fault.path, "reason": fault.reason})
            else:
                output.line(f"{fault.path}: {fault.reason}")
    output.note(f"{target}: {counted(faults, 'fault') if faults else 'all is as it was backed up'}")
    return ExitCode.SOME_FAILED if faults else ExitCode.OK
