"""``netdicom retention``: show what the rules of a node delete, or apply them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common.failures import CommandError, ExitCode, Problem
from .common.options import examples, json_option
from .common.output import Output, counted

if TYPE_CHECKING:
    from ..amounts import Amount
    from ..archive.retention import Candidate, Rules, Run

__all__ = ["command"]

_COLUMNS = ("Study Instance UID", "received", "study date", "instances", "octets", "why")
_INSTEAD = "a running node applies the rules itself; to see what they delete now, add --dry-run to the command"


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom retention --config node.toml --dry-run",
        "netdicom retention --config node.toml --dry-run --json | jq -r .study_instance_uid",
    ),
)
@click.option(
    "--config",
    "config_file",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="The configuration file of the node, with its [retention].",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would go, and why; delete nothing.")
@json_option
def command(config_file: str, dry_run: bool, is_json: bool) -> int:
    """Apply the rules of [retention] to an archive without a running node, or show what they delete, by --dry-run.

    A running node applies its rules itself, so it needs only --dry-run. Studies that are protected, or for which an
    instance has just come, are not shown, because they stay.
    """
    from ..amounts import in_units
    from .common.node import node_options
    from .common.storage import must_be_storage

    output = Output(is_json=is_json)
    options = node_options(["--config", config_file])
    rules = options.configured.retention.rules()
    storage = Path(options["storage"])
    must_be_storage(storage, reads=False)
    if not rules.deletes:
        raise CommandError(
            Problem(
                ExitCode.NOTHING,
                "no rule deletes anything",
                f"{config_file} has no max_age, max_study_age or quota in [retention]",
                "netdicom config init shows the keys",
            )
        )
    database, reserve = options["database"], options.configured.storage.reserve
    if dry_run:
        planned = _plan(storage, database, rules, reserve)
        _show(output, planned)
        why = Counter(each.reason.value for each in planned)
        instances = sum(each.instances for each in planned)
        octets = sum(each.octets for each in planned)
        words = "would be deleted"
    else:
        done = _apply(storage, database, rules, reserve, config_file)
        why = Counter({each.value: count for each, count in done.studies.items()})
        instances, octets, words = done.instances, done.octets, "deleted"
        if is_json:
            output.json({"studies": dict(why), "instances": instances, "octets": octets})
    studies = counted(why.total(), "study").replace("studys", "studies")
    reasons = ", ".join(f"{count} for {reason}" for reason, count in why.items())
    output.note(
        f"{studies} with {counted(instances, 'instance')} ({in_units(octets)}) {words}"
        f"{f': {reasons}' if reasons else ''}"
    )
    return ExitCode.OK


def _plan(
    storage: Path, database: str | None, rules: Rules, reserve: Amount | None
) -> list[Candidate]:
    """What would go now."""
    from ..archive.retention import Keeper
    from .common.storage import must_be_storage, opened_index

    store = must_be_storage(storage)
    store.reserve = reserve
    with opened_index(storage, database) as index:
        return list(Keeper(store, index, rules).plan())


def _apply(
    storage: Path,
    database: str | None,
    rules: Rules,
    reserve: Amount | None,
    config_file: str,
) -> Run:
    """Delete what goes now.

    Raises:
        CommandError: A node runs there, or the disk or the database refuses.
    """
    from ..archive.retention import Keeper
    from ..archive.store.deletion import Deleter
    from .common.audit import deletions_audited
    from .common.storage import opened_archive

    with (
        opened_archive(storage, database, instead=_INSTEAD) as (store, index),
        deletions_audited(None, config_file) as on_deleted,
    ):
        store.reserve = reserve
        deleter = Deleter(store, index)
        deleter.on_deleted = on_deleted
        try:
            return Keeper(store, index, rules, deleter).run()
        except OSError as error:
            raise CommandError(
                Problem(
                    ExitCode.LOCAL_DISK,
                    "not all could be deleted",
                    str(error),
                    "check the disk, and try again",
                )
            ) from error


def _show(output: Output, planned: Sequence[Candidate]) -> None:
    """The studies that would go, in the order in which they would."""
    table = None if output.is_json else output.table(_COLUMNS)
    for each in planned:
        when = datetime.fromtimestamp(each.received).astimezone()
        if table is not None:
            received = f"{when:%Y-%m-%d %H:%M:%S}"
            row = (each.study_instance_uid, received, each.study_date, each.instances, each.octets)
            table.row((*row, each.reason.value))
            continue
        output.json(
            {
                "study_instance_uid": each.study_instance_uid,
                "received": when.isoformat(timespec="seconds"),
                "study_date": each.study_date,
                "instances": each.instances,
                "octets": each.octets,
                "why": each.reason.value,
            }
        )
    if table is not None:
        table.close()
