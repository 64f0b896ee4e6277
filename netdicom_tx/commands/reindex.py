"""``netdicom reindex``: make the index of an archive agree with its files."""

from __future__ import annotations

from pathlib import Path

import click

from .common.failures import ExitCode
from .common.options import archive_options, examples
from .common.output import Output

__all__ = ["command"]


@click.command(
    epilog=examples(
        "netdicom reindex --storage /var/lib/netdicom",
        "netdicom reindex --storage /var/lib/netdicom --from-scratch",
    )
)
@archive_options
@click.option(
    "--from-scratch", is_flag=True, help="Forget all rows first, and read every file again."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def command(storage: Path, database: str | None, from_scratch: bool, as_json: bool) -> int:
    """Index files that have no row, and remove rows that have no file; the node must not run.

    A node does the same when it starts, but for --from-scratch.
    """
    from ..archive.store.reconcile import reconcile
    from .common.storage import opened_index, opened_store

    output = Output(is_json=as_json)
    with opened_store(storage) as store, opened_index(storage, database) as index:
        if from_scratch:
            rows = [index.remove(row.sop_instance_uid) for row in index.paths()]
            for row in rows:
                row.result()
        done = reconcile(index, store)
        counts = index.counts()
    if as_json:
        output.json(
            {
                "agreed": done.compared,
                "indexed": len(done.indexed),
                "removed": len(done.removed),
                "unreadable": [
                    {"path": str(path), "reason": reason} for path, reason in done.unreadable
                ],
                "instances": counts.instances,
            }
        )
    else:
        output.line(
            f"{counts.instances} instances: {done.compared} agreed, {len(done.indexed)} indexed; "
            f"{len(done.removed)} rows without file removed"
        )
        for path, reason in done.unreadable:
            output.note(f"not indexed: {path}: {reason}")
    return ExitCode.SOME_FAILED if done.unreadable else ExitCode.OK
