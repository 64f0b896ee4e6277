"""``netdicom protect``: keep studies from the rules of retention."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common.failures import CommandError, ExitCode, Problem, bad_input
from .common.options import archive_options, examples, json_option, node_option
from .common.output import Output, counted

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["command"]

_COLUMNS = ("Study Instance UID", "label", "protected", "instances")


@click.command(
    epilog=examples(
        "netdicom protect 1.2.840.113619.2.1 --label teaching --storage /var/lib/netdicom",
        "netdicom protect --config node.toml",
        "netdicom protect 1.2.840.113619.2.1 --release",
    )
)
@click.argument("studies", metavar="[STUDY]...", nargs=-1)
@click.option("--label", metavar="TEXT", default="", help="Why the studies are protected.")
@click.option("--release", is_flag=True, help="Protect these studies no longer.")
@archive_options
@node_option
@json_option
def command(
    studies: tuple[str, ...],
    label: str,
    release: bool,
    storage: Path,
    database: str | None,
    config_file: str | None,
    is_json: bool,
) -> int:
    """Keep studies from the rules of [retention], by their UIDs; the node may be running.

    Without a STUDY, the protected ones are listed. A study may be protected before it comes, and it stays protected
    when it is deleted by netdicom delete and sent again. The exit code is 1 when a study to be released is not
    protected.
    """
    from .common.storage import node_files, opened_index

    output = Output(is_json=is_json)
    if release and not studies:
        raise bad_input("nothing says which study to release", "name it by its UID")
    node = node_files(storage, database, config_file)
    with opened_index(node.storage, node.database) as index:
        if not studies:
            with index.reading() as reading:
                _list(output, reading)
        elif release:
            missing = index.write(_release(studies)).result()
            if missing:
                raise CommandError(
                    Problem(
                        ExitCode.SOME_FAILED,
                        f"{missing[0]} is not protected",
                        "all others are released",
                        "netdicom protect lists the studies that are",
                    )
                )
            output.note(f"{_studies(len(studies))} released")
        else:
            index.write(_protect(studies, label)).result()
            with index.reading() as reading:
                absent = _absent(reading, studies)
            for each in absent:
                output.note(
                    f"the archive does not have {each}: it is protected when it comes; check its UID"
                )
            output.note(f"{_studies(len(studies))} protected")
    return ExitCode.OK


def _studies(count: int) -> str:
    return "1 study is" if count == 1 else f"{count} studies are"


def _protect(studies: Sequence[str], label: str) -> Callable[[sa.Connection], None]:
    from ..archive.index.schema import protection

    values = [
        {"study_instance_uid": each, "label": label, "created": time.time()}
        for each in dict.fromkeys(studies)
    ]

    def write(connection: sa.Connection) -> None:
        connection.execute(protection.delete().where(protection.c.study_instance_uid.in_(studies)))
        connection.execute(protection.insert(), values)

    return write


def _absent(reading: sa.Connection, studies: Sequence[str]) -> list[str]:
    from ..archive.index import withdrawal
    from ..archive.index.schema import Level

    chosen = {each: withdrawal.choose(reading, Level.STUDY, each) for each in studies}
    return [each for each, instances in chosen.items() if not instances]


def _release(studies: Sequence[str]) -> Callable[[sa.Connection], list[str]]:
    from ..archive.index.schema import protection

    def write(connection: sa.Connection) -> list[str]:
        own = protection.c.study_instance_uid
        return [
            each
            for each in dict.fromkeys(studies)
            if not connection.execute(protection.delete().where(own == each)).rowcount
        ]

    return write


def _list(output: Output, reading: sa.Connection) -> None:
    import sqlalchemy as sa

    from ..archive.index import withdrawal
    from ..archive.index.schema import Level, protection

    rows = reading.execute(sa.select(protection).order_by(protection.c.created)).all()
    table = None if output.is_json else output.table(_COLUMNS)
    for uid, label, created in rows:
        when = datetime.fromtimestamp(created).astimezone()
        instances = len(withdrawal.choose(reading, Level.STUDY, uid))
        if table is None:
            output.json(
                {
                    "study_instance_uid": uid,
                    "label": label,
                    "protected": when.isoformat(timespec="seconds"),
                    "instances": instances,
                }
            )
        else:
            table.row((uid, label, f"{when:%Y-%m-%d %H:%M:%S}", instances))
    if table is not None:
        table.close()
    output.note(f"{counted(len(rows), 'study').replace('studys', 'studies')} protected")
