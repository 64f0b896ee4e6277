"""``netdicom verify``: check that every file of an archive is still what was stored."""

from __future__ import annotations

from pathlib import Path

import click

from .common.failures import ExitCode
from .common.options import examples, json_option, place_options
from .common.output import Output, counted

__all__ = ["command"]


@click.command(
    epilog=examples(
        "netdicom verify --storage /var/lib/netdicom", "netdicom verify --json | jq .path"
    )
)
@place_options
@json_option
def command(storage: Path, database: str | None, is_json: bool) -> int:
    """Read every file to its end and compare it with its digest; the node may be running.

    Each damaged file is one line, or with --json one document; the exit code is 1 when there are any.
    """
    from ..archive.store.reconcile import verify
    from ..archive.store.sharedstore import SharedStore
    from .common.storage import opened_index

    output = Output(is_json=is_json)
    damaged = 0
    with opened_index(storage, database) as index:
        # A disk reads one file after the other; an object store answers many requests at a time.
        jobs = index.files.parallel if isinstance(index.files, SharedStore) else 1
        for finding in verify(index, jobs=jobs):
            damaged += 1
            if is_json:
                output.json(
                    {
                        "fault": finding.fault.name.lower(),
                        "sop_instance_uid": finding.sop_instance_uid,
                        "path": str(finding.path),
                        "reason": finding.reason,
                    }
                )
            else:
                reason = f" ({finding.reason})" if finding.reason else ""
                output.line(f"{finding.path}: {finding.fault.value}{reason}")
        instances = index.counts().instances
    output.note(f"{counted(instances, 'instance')}, {damaged} of them damaged")
    return ExitCode.SOME_FAILED if damaged else ExitCode.OK
