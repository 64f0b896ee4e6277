"""``netdicom verify``: is every file of an archive still what was stored?"""

from __future__ import annotations

from pathlib import Path

import click

from .common.failures import ExitCode
from .common.options import archive_options, examples
from .common.output import Output

__all__ = ["command"]


@click.command(
    epilog=examples(
        "netdicom verify --storage /var/lib/netdicom", "netdicom verify --json | jq .path"
    )
)
@archive_options
@click.option("--json", "as_json", is_flag=True, help="A JSON document for each damaged file.")
def command(storage: Path, database: str | None, as_json: bool) -> int:
    """Read every file to its end and compare it with its digest; the node may run meanwhile."""
    from ..archive.store.reconcile import verify
    from .common.storage import opened_index

    output = Output(is_json=as_json)
    damaged = 0
    with opened_index(storage, database) as index:
        for finding in verify(index):
            damaged += 1
            if as_json:
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
    output.note(f"{instances} instances, {damaged} of them damaged")
    return ExitCode.SOME_FAILED if damaged else ExitCode.OK
