"""``netdicom reindex``: make the index of an archive agree with its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common.failures import CommandError, ExitCode, Problem, bad_input
from .common.options import examples, json_option, place_options
from .common.output import Output, counted
from .common.report import Report

if TYPE_CHECKING:
    from ..archive.store.sharedstore import SharedStore

__all__ = ["command"]

# How many misplaced files are named; all are counted.
_NAMED = 20


@click.command(
    epilog=examples(
        "netdicom reindex --storage /var/lib/netdicom",
        "netdicom reindex --storage /var/lib/netdicom --from-scratch",
        "netdicom reindex --config node.toml",
    )
)
@place_options
@click.option(
    "--from-scratch", is_flag=True, help="Remove all rows first, and read every file again."
)
@json_option
def command(storage: Path, database: str | None, from_scratch: bool, is_json: bool) -> int:
    """Index files that have no row, and remove rows that have no file; the node must not run.

    A node does the same at its start, without --from-scratch. Files that cannot be indexed are named and
    left alone; the exit code is 1 when there are any.

    With a store that nodes share, the nodes may run, and no row is removed: objects that have no row get one. Use it
    when the database was lost, or restored from an older backup.
    """
    from ..archive.store.reconcile import reconcile
    from .common.storage import misplaced, opened_archive, shared_store

    output = Output(is_json=is_json)
    shared = shared_store(storage)
    if shared is not None:
        return _of_group(output, shared, database, from_scratch)
    with opened_archive(
        storage, database, instead="stop the node; it does the same when it starts again"
    ) as (store, index):
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


def _of_group(output: Output, store: SharedStore, database: str | None, from_scratch: bool) -> int:
    """Give rows to objects of a store that nodes share."""
    from ..archive.store.inventory import Inventoried, compare
    from .common.storage import opened_shared

    place = store.objects.place
    if from_scratch:
        store.close()
        raise bad_input(
            f"--from-scratch cannot be used with a store that nodes share, {place}",
            "other nodes would find nothing in the meantime",
            "to begin with an empty database, name one under [database], run netdicom node adopt, and then netdicom "
            "reindex",
        )
    unreadable: list[tuple[str, str]] = []

    with opened_shared(store, database) as index, output.progress("reindex", unit="objects") as bar:

        def step(done: Inventoried) -> None:
            bar.set(done.compared, done.unreadable)

        try:
            done = compare(
                store,
                index,
                age=0,
                jobs=store.parallel,
                keeps_all=True,
                unreadable=lambda *each: unreadable.append(each),
                step=step,
            )
        except OSError as error:
            raise CommandError(
                Problem(
                    ExitCode.SOME_FAILED,
                    "objects and rows could not be compared to the end",
                    str(error),
                    "when the store answers again, run it again; what has a row is passed over",
                )
            ) from error
        instances = index.counts().instances
    said = f"{counted(instances, 'instance')}: {counted(done.compared, 'object')} compared, {done.indexed} indexed"
    if done.given_up:
        said += f"; {done.given_up} with the SOP Instance UID of another one kept aside as versions"
    if not output.is_json:
        output.line(said)
        for key, reason in unreadable[:_NAMED]:
            output.note(f"not indexed: {key}: {reason}")
    problem = None
    if unreadable:
        problem = Problem(
            ExitCode.SOME_FAILED,
            f"{counted(len(unreadable), 'object')} could not be indexed",
            f"the first is {unreadable[0][0]}: {unreadable[0][1]}",
            "restore such an object from a backup, or delete it",
        )
    return Report(
        document={
            "compared": done.compared,
            "indexed": done.indexed,
            "aside": done.given_up,
            "unreadable": [{"path": key, "reason": reason} for key, reason in unreadable],
            "instances": instances,
        },
        problem=problem,
    ).show(output)


def _problem(refused: list[tuple[Path, str]], has_misplaced: bool) -> Problem | None:
    if not refused:
        return None
    path, reason = refused[0]
    return Problem(
        ExitCode.SOME_FAILED,
        f"{counted(len(refused), 'file')} could not be indexed",
        f"the first is {path}: {reason}",
        "move misplaced files out, and import them: netdicom import"
        if has_misplaced
        else "restore such a file from a backup, or move it out",
    )
