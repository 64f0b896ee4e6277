"""``netdicom export``: take instances out of the archive of a node as files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from .common.failures import ExitCode, Problem, bad_input
from .common.options import (
    archive_options,
    audit_option,
    examples,
    json_option,
    key_option,
    node_option,
)
from .common.output import Output, counted
from .common.report import Report

if TYPE_CHECKING:
    from ..archive import Index
    from ..archive.exporting import Directory, Exported, Layout, Selected, Zip
    from ..archive.index.entries import InstanceRef
    from .common.audit import Told
    from .common.keys import Key
    from .common.storage import NodeFiles

__all__ = ["command"]

# How many instances are named that could not be exported; all are counted.
_NAMED = 20


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom export -k StudyInstanceUID=1.2.3 -o study/ --storage /var/lib/netdicom",
        "netdicom export -k PatientID=4711 -k Modality=CT --layout patient -o out/ --config node.toml",
        "netdicom export -k AccessionNumber=A17 --dicomdir --zip A17.zip",
    ),
)
@archive_options
@node_option
@key_option
@click.option(
    "--all", "is_all", is_flag=True, help="Export everything; without it, a key must have a value."
)
@click.option(
    "-o",
    "-od",
    "--output",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write to this directory, which is created if it does not exist.",
)
@click.option(
    "--zip",
    "archive",
    metavar="FILE",
    help="Write a ZIP file instead; - writes it to standard output.",
)
@click.option(
    "--layout",
    default="uids",
    metavar="TEMPLATE",
    help="Name the files by this template, such as {PatientID}/{StudyDate}/{InstanceNumber:05}.dcm, or in a known "
    "way: uids (STUDY/SERIES/INSTANCE.dcm, the default), patient, or flat.",
)
@click.option(
    "--dicomdir",
    "has_dicomdir",
    is_flag=True,
    help="Make a DICOM File-set with a DICOMDIR, for a CD or for another system; it has names of its own.",
)
@audit_option
@click.option("-q", "--quiet", is_flag=True, help="Write no notes and no progress.")
@json_option
def command(
    storage: Path,
    database: str | None,
    config_file: str | None,
    keys: tuple[str, ...],
    is_all: bool,
    directory: Path | None,
    archive: str | None,
    layout: str,
    has_dicomdir: bool,
    audit: str | None,
    quiet: bool,
    is_json: bool,
) -> int:
    """Take instances out of the archive of a node as files; the node may be running.

    The keys are those of netdicom find, at all levels at once. A file that is there already with the same content is
    left alone, so an export that was interrupted is run again; another file of that name is kept, and the new one gets
    a number. Files have their names when they are complete.

    Exits with 1 when instances could not be read, with 10 when nothing matches, and with 11 when the disk is full.
    """
    from ..archive.exporting import Exported, Layout, LayoutError
    from .common.audit import Told, audited
    from .common.keys import parse_keys
    from .common.storage import node_files, opened_index

    if (directory is None) is (archive is None):
        raise bad_input(
            "the export needs one place to write to",
            "expected either a directory or a ZIP file",
            "pass -o DIR, or --zip FILE",
        )
    if is_json and archive == "-":
        raise bad_input("--json and --zip - both write to standard output", "", "leave one out")
    parsed = parse_keys(keys)
    if not (is_all or any(key.value for key in parsed)):
        raise bad_input(
            "nothing says what to export: no key has a value",
            "the whole archive would be exported",
            "pass -k KEY=VALUE, or --all",
        )
    try:
        template = Layout(layout)
    except LayoutError as error:
        raise bad_input(f"the layout {layout!r} cannot be used", str(error)) from error
    if has_dicomdir and directory is not None and (directory / "DICOMDIR").exists():
        raise bad_input(
            f"{directory} holds a DICOMDIR already",
            "another one would take the place of what describes its files",
            "name an empty directory",
        )
    output = Output(is_json=is_json, is_quiet=quiet)
    node = node_files(storage, database, config_file)
    done = Exported()
    failure: OSError | None = None
    is_interrupted = False
    place = directory or Path("/dev/stdout" if archive == "-" else str(archive))
    with audited(audit, config_file) as auditor, opened_index(node.storage, node.database) as index:
        told = Told(None if auditor is None else auditor.exported, place)
        try:
            steps = _export(
                output, told, node, index, keys, template, has_dicomdir, directory, archive
            )
            for each in steps:
                done = each
        except OSError as error:
            failure = error
        except KeyboardInterrupt:
            is_interrupted = True
        told.rest(index)
    return _report(output, done, failure, is_interrupted, str(directory or archive))


def _export(
    output: Output,
    told: Told,
    node: NodeFiles,
    index: Index,
    keys: tuple[str, ...],
    layout: Layout,
    has_dicomdir: bool,
    directory: Path | None,
    archive: str | None,
) -> Iterator[Exported]:
    from ..archive.exporting import as_file_set, export, leased, named
    from ..archive.query.identifiers import MatchingError
    from .common.keys import parse_keys
    from .common.storage import must_be_storage

    with ExitStack() as stack:
        stack.enter_context(leased(must_be_storage(node.storage)))
        try:
            found = list(_selected(index, parse_keys(keys), layout, has_dicomdir))
        except MatchingError as error:
            raise bad_input("the keys cannot be matched", str(error)) from error
        if not found:
            return
        progress = stack.enter_context(
            output.progress("export", unit="instances", total=len(found))
        )
        failed: list[tuple[str, str]] = []
        files, dicomdir = named(found, layout), b""
        if has_dicomdir:
            paths, dicomdir, failed = as_file_set(each.ref for each in found)
            files = iter(paths)
        sink = _sink(directory, archive)
        stack.push(sink)
        done = None
        current: list[InstanceRef] = []
        failures = 0
        for done in export(_noted(files, current), sink):
            if current and len(done.failed) == failures:
                told.add(index, current[0].sop_instance_uid)
            current.clear()
            failures = len(done.failed)
            progress.set(done.stored + done.same + len(done.failed), len(done.failed))
            yield done
        if dicomdir:
            sink.put_octets(PurePosixPath("DICOMDIR"), dicomdir)
        if done is not None:
            done.failed += failed
            yield done


def _noted(
    files: Iterator[tuple[InstanceRef, PurePosixPath]], current: list[InstanceRef]
) -> Iterator[tuple[InstanceRef, PurePosixPath]]:
    """Note the instance that is being exported."""
    for ref, path in files:
        current[:] = [ref]
        yield ref, path


def _selected(
    index: Index, keys: Sequence[Key], layout: Layout, has_dicomdir: bool
) -> Iterator[Selected]:
    from ..archive.exporting import select, select_without_study
    from .common.keys import identifier

    yield from select(index, identifier(keys), () if has_dicomdir else layout.keywords)
    if not any(key.value for key in keys):
        # --all is all that the archive has, though no query finds these.
        yield from select_without_study(index)


def _sink(directory: Path | None, archive: str | None) -> Directory | Zip:
    from ..archive.exporting import Directory, Zip

    try:
        if directory is not None:
            return Directory(directory)
        assert archive is not None
        return Zip(sys.stdout.buffer if archive == "-" else Path(archive))
    except OSError as error:
        raise bad_input(
            f"{directory or archive} cannot be written",
            str(error.strerror),
            "name a place that can be written",
        ) from error


def _report(
    output: Output, done: Exported, failure: OSError | None, is_interrupted: bool, where: str
) -> int:
    for uid, reason in done.failed[:_NAMED]:
        if not output.is_json:
            output.note(f"failed: {uid}: {reason}")
    said = [f"{done.stored} written ({done.octets / 1e6:.1f} MB)"]
    if done.same:
        said.append(f"{done.same} there already")
    if done.failed:
        said.append(f"{len(done.failed)} failed")
    total = done.stored + done.same + len(done.failed)
    return Report(
        document={
            "exported": done.stored,
            "same": done.same,
            "octets": done.octets,
            "failures": [
                {"sop_instance_uid": uid, "reason": reason} for uid, reason in done.failed
            ],
        },
        summary=f"{counted(total, 'instance')} to {where}: {', '.join(said)}" if total else "",
        problem=_problem(done, failure, is_interrupted, where, total),
    ).show(output)


def _problem(
    done: Exported, failure: OSError | None, is_interrupted: bool, where: str, total: int
) -> Problem | None:
    if failure is not None:
        return Problem(
            ExitCode.LOCAL_DISK,
            f"{where} cannot be written",
            str(failure.strerror or failure),
            "make room on the disk, or name another place, and export again",
        )
    if is_interrupted:
        return Problem(
            ExitCode.INTERRUPTED,
            "the export was interrupted",
            "files that have their names are complete",
            "export again; files that are there are left alone",
        )
    if done.failed:
        uid, reason = done.failed[0]
        return Problem(
            ExitCode.SOME_FAILED,
            f"{counted(len(done.failed), 'instance')} could not be exported",
            f"the first is {uid}: {reason}",
            "netdicom verify checks the files of the archive",
        )
    if not total:
        return Problem(
            ExitCode.NOTHING,
            "there is nothing to export",
            "no instance of the archive matches the keys",
            "check the keys; --all exports everything",
        )
    return None
