"""``netdicom versions``: show, adopt or drop what a node keeps aside: other content of an instance that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common.failures import CommandError, ExitCode, Problem, bad_input
from .common.options import examples, json_option, place_options
from .common.output import Output, counted

if TYPE_CHECKING:
    from ..archive import FileStore
    from ..archive.store.filestore import Version

__all__ = ["command"]

_COLUMNS = ("SOP Instance UID", "sender", "received", "octets", "file")


@click.command(
    epilog=examples(
        "netdicom versions --storage /var/lib/netdicom",
        "netdicom versions --json | jq -r .path",
        "netdicom versions --adopt 3fa9…-1b07….dcm",
    )
)
@place_options
@click.option(
    "--adopt",
    multiple=True,
    metavar="FILE",
    help="Store this version as a new instance, with a SOP Instance UID of its own (repeatable).",
)
@click.option(
    "--drop", multiple=True, metavar="FILE", help="Delete this version for good (repeatable)."
)
@json_option
def command(
    storage: Path,
    database: str | None,
    adopt: tuple[str, ...],
    drop: tuple[str, ...],
    is_json: bool,
) -> int:
    """List the versions of instances that a node keeps aside, adopt or drop them; the node may be running.

    A node that was started with --duplicates keep-both keeps the first instance of a SOP Instance UID, and sets others
    with different content aside. They are neither found nor sent. Each row names such a file and the AE that sent it;
    times are in the time zone of this machine.
    """
    from .common.storage import must_be_storage

    output = Output(is_json=is_json)
    store = must_be_storage(storage)
    found = list(store.versions())
    if adopt or drop:
        to_adopt, to_drop = _chosen(found, adopt), _chosen(found, drop)
        if both := [each.path.name for each in to_adopt if each in to_drop]:
            raise bad_input(f"{both[0]} cannot be adopted and dropped", "nothing was changed")
        return _adopt(output, storage, database, store, to_adopt) or _drop(output, store, to_drop)
    _list(output, store, found)
    return ExitCode.OK


def _list(output: Output, store: FileStore, found: Sequence[Version]) -> None:
    if output.is_json:
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


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds).astimezone()


def _chosen(found: Iterable[Version], names: Iterable[str]) -> list[Version]:
    """The versions with these names, each once.

    Raises:
        CommandError: A name is not that of a version.
    """
    known = {each.path.name: each for each in found}
    # The list shows paths, and the log of the node shows names.
    wanted = list(dict.fromkeys(Path(each).name for each in names))
    unknown = [each for each in wanted if each not in known]
    if unknown:
        raise bad_input(
            f"no version is called {unknown[0]}",
            "nothing was changed",
            "netdicom versions lists the files; --storage names the directory",
        )
    return [known[each] for each in wanted]


def _adopt(
    output: Output,
    storage: Path,
    database: str | None,
    store: FileStore,
    chosen: Sequence[Version],
) -> int:
    """Make each version an instance of its own; returns the exit code."""
    if not chosen:
        return ExitCode.OK
    from ..archive.store.adoption import adopt
    from .common.storage import opened_index

    with opened_index(storage, database) as index:

        def one(version: Version) -> None:
            done = adopt(store, index, version)
            if output.is_json:
                output.json(
                    {
                        "adopted": done.sop_instance_uid,
                        "sop_instance_uid": version.sop_instance_uid,
                        "path": str(store.path(done.sop_instance_uid)),
                    }
                )
            else:
                words = "is stored" if done.is_new else "was adopted before, and is stored"
                output.line(f"{version.path.name} {words} as {done.sop_instance_uid}")

        return _for_all(chosen, one, "adopted")


def _drop(output: Output, store: FileStore, chosen: Sequence[Version]) -> int:
    """Delete versions; returns the exit code."""

    def one(version: Version) -> None:
        store.drop(version)
        if output.is_json:
            output.json({"dropped": str(version.path)})
        else:
            output.line(f"{version.path.name} is deleted")

    return _for_all(chosen, one, "dropped")


def _for_all(chosen: Sequence[Version], call: Callable[[Version], None], done: str) -> int:
    """Do something with each version, also behind one with which it fails."""
    from ..encoding import DataSetError

    failed: list[str] = []
    for version in chosen:
        try:
            call(version)
        except OSError as error:
            raise CommandError(
                Problem(
                    ExitCode.LOCAL_DISK,
                    f"{version.path.name} could not be {done}",
                    str(error),
                    "it stays aside; check the disk and the permissions, and try again",
                )
            ) from error
        except DataSetError as error:
            failed.append(f"{version.path.name}: {error}")
    if failed:
        raise CommandError(
            Problem(
                ExitCode.SOME_FAILED,
                f"{counted(len(failed), 'version')} could not be {done}",
                failed[0],
                "they stay aside",
            )
        )
    return ExitCode.OK
