"""``netdicom versions``: show what a node keeps aside because another instance has its SOP Instance UID."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from .common.failures import ExitCode
from .common.options import examples, json_option, storage_option
from .common.output import Output, counted

__all__ = ["command"]

_COLUMNS = ("SOP Instance UID", "sender", "received", "octets", "file")


@click.command(
    epilog=examples(
        "netdicom versions --storage /var/lib/netdicom",
        "netdicom versions --json | jq -r .path",
    )
)
@storage_option
@json_option
def command(storage: Path, is_json: bool) -> int:
    """List the versions of instances that a node keeps aside; the node may be running.

    A node that was started with --duplicates keep-both keeps the first instance of a SOP Instance UID, and sets others
    with different content aside. They are neither found nor sent. Each row names such a file and the AE that sent it;
    times are in the time zone of this machine.
    """
    from .common.storage import must_be_storage

    output = Output(is_json=is_json)
    store = must_be_storage(storage)
    found = list(store.versions())
    if is_json:
        for each in found:
            output.json(
                {
                    "sop_instance_uid": each.sop_instance_uid,
                    "calling": each.sender,
                    "received": _time(each.received).isoformat(timespec="seconds"),
                    "size": each.size,
                    "path": str(each.path),
                    "first": str(store.path(each.sop_instance_uid)),
                }
            )
    else:
        table = output.table(_COLUMNS)
        for each in found:
            received = f"{_time(each.received):%Y-%m-%d %H:%M:%S}"
            table.row((each.sop_instance_uid, each.sender, received, each.size, each.path))
        table.close()
    instances = len({each.sop_instance_uid for each in found})
    output.note(f"{counted(len(found), 'version')} of {counted(instances, 'instance')}")
    return ExitCode.OK


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds).astimezone()
