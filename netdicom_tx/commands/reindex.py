"""``netdicom reindex``: make the index of an archive agree with its files."""

from __future__ import annotations

from pathlib import Path

import click

from .common.failures import ExitCode, Problem
from .common.options import archive_options, examples, json_option
from .common.output import Output, counted
from .common.report import Report

__all__ = ["command"]

# How many misplaced files are named; all are counted.
_NAMED = 20


@click.command(
    epilog=examples(
        "netdicom reindex --storage /var/lib/netdicom",
        "netdicom reindex --storage /var/lib/netdicom --from-scratch",
    )
)
@archive_options
@click.option(
    "--from-scratch", is_flag=True, help="Remove all rows first, and read every file again."
)
@json_option
def command(storage: Path, database: str | None, from_scratch: bool, is_json: bool) -> int:
    """Index files that have no row, and remove rows that have no file; the node must not run.

    A node does the same at its start, without --from-scratch. Files that cannot be indexed are named and
    left alone; the exit code is 1 when there are any.
    """
    from ..archive.store.reconcile import reconcile
    from .common.storage import misplaced, opened_index, opened_store

    output = Output(is_json=is_json)
    with opened_store(storage) as store, opened_index(storage, database) as index:
        if from_scratch:
            rows = [index.remove(row.sop_instance_uid) for row in index.paths()]
            for row in rows:
                row.result()
        done = reconcile(index, store)
        counts = index.counts()
        others = list(misplaced(store))
    refused = [
        *done.unreadable,
        *((path, "the file is not where a node keeps files") for path in others),
    ]
    if not is_json:
        output.line(
            f"{counted(counts.instances, 'instance')}: {done.compared} agreed, "
            f"{len(done.indexed)} indexed; {counted(len(done.removed), 'row')} without a file removed"
        )
        for path, reason in refused[: len(done.unreadable) + _NAMED]:
            output.note(f"not indexed: {path}: {reason}")
    return Report(
        document={
            "agreed": done.compared,
            "indexed": len(done.indexed),
            "removed": len(done.removed),
            "unreadable": [
                {"path": str(path), "reason": reason} for path, reason in done.unreadable
            ],
            "misplaced": [str(path) for path in others],
            "instances": counts.instances,
        },
        problem=_problem(refused, bool(others)),
    ).show(output)


def _problem(refused: list[tuple[Path, str]], has_misplaced: bool) -> Problem | None:
    if not refused:
        return None
    path, reason = refused[0]
    return Problem(
        ExitCode.SOME_FAILED,
        f"{counted(len(refused), 'file')} could not be indexed",
        f"the first is {path}: {reason}",
        "move misplaced files out, and send them to the running node: netdicom store"
        if has_misplaced
        else "restore such a file from a backup, or move it out",
    )
