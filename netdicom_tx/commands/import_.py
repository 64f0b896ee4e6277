"""``netdicom import``: take files into the archive of a node without the network."""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common.failures import CommandError, ExitCode, Problem, bad_input
from .common.options import (
    archive_options,
    audit_option,
    examples,
    json_option,
    node_option,
    whole_number,
)
from .common.output import Output, counted
from .common.report import Report

if TYPE_CHECKING:
    from ..archive.store.importing import ReaderError, Taken
    from .common.audit import Told
    from .common.storage import NodeFiles

__all__ = ["command"]

# How many files are named that were not taken; all are counted.
_NAMED = 20
# After how many new objects Python looks for garbage; there is hardly any.
_GARBAGE = 100_000
_NEW = frozenset(("stored", "replaced", "aside"))
_DUPLICATES = ("keep", "replace", "keep-both")


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom import /mnt/old-archive --storage /var/lib/netdicom",
        "netdicom import /mnt/cd --config node.toml",
        "netdicom import inbox/ --move --storage /var/lib/netdicom",
    ),
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@archive_options
@node_option
@click.option(
    "--copy", "source", flag_value="copy", default="copy", help="Copy the files (default)."
)
@click.option(
    "--link",
    "source",
    flag_value="link",
    help="Give the files a second name in the storage directory, where that is possible; others are copied.",
)
@click.option(
    "--move",
    "source",
    flag_value="move",
    help="Remove each file from its place when the instance is safe on the disk.",
)
@click.option(
    "--duplicates",
    type=click.Choice(_DUPLICATES),
    help="What happens to another data set with a SOP Instance UID that is here: keep the first, replace it "
    "(the node must not run), or keep-both (default: the node's, or keep).",
)
@click.option(
    "--unknown-sop-classes",
    is_flag=True,
    help="Also take instances of private and unknown SOP classes.",
)
@click.option(
    "--jobs",
    type=whole_number(1, 64),
    metavar="N",
    help="How many files are read at a time (default: one for each core; with a shared store, [storage] parallel).",
)
@audit_option
@click.option("-q", "--quiet", is_flag=True, help="Write no notes and no progress.")
@json_option
def command(
    paths: tuple[str, ...],
    storage: Path,
    database: str | None,
    config_file: str | None,
    source: str,
    duplicates: str | None,
    unknown_sop_classes: bool,
    jobs: int | None,
    audit: str | None,
    quiet: bool,
    is_json: bool,
) -> int:
    """Take files into the archive of a node without the network; the node may be running.

    Directories are searched for DICOM files; other files are skipped and counted. A DICOMDIR stands for its directory,
    and what it names must be there. Each instance
    is checked as if it had been sent, and is found by queries at once. An import that was interrupted, even by a
    power cut, is run again with the same arguments; what is there already is passed over quickly.

    The files go into the shared store when the node has one; name its configuration by --config.

    Exits with 1 when files could not be taken, with 10 when no file is an instance, and with 11 when the disk is
    full.
    """
    from .common.audit import Told, audited
    from .common.files import walk
    from .common.storage import node_files

    output = Output(is_json=is_json, is_quiet=quiet)
    # A DICOMDIR stands for the medium that it describes.
    paths = tuple(os.path.dirname(each) or "." if _is_dicomdir(each) else each for each in paths)
    node = node_files(storage, database, config_file, may_be_new=True)
    for path in paths:
        if not os.path.lexists(path):
            raise bad_input(
                f"{path or repr(path)} does not exist",
                "nothing was imported",
                "name files or directories",
            )
    done = _Done(output)
    common = os.path.commonpath([os.path.abspath(each) for each in paths])
    with _stopped_by_ctrl_c() as stopped, audited(audit, config_file) as auditor:
        told = Told(None if auditor is None else auditor.imported, Path(common))
        try:
            _import(
                done,
                told,
                node,
                itertools.takewhile(lambda _: not stopped, walk(paths)),
                lambda: sum(1 for _ in walk(paths)),
                source,
                duplicates,
                unknown_sop_classes,
                jobs,
            )
        except OSError as error:
            done.error = error
    return done.report(bool(stopped))


def _import(
    done: _Done,
    told: Told,
    node: NodeFiles,
    paths: Iterator[str],
    count: Callable[[], int],
    source: str,
    duplicates: str | None,
    unknown_sop_classes: bool,
    jobs: int | None,
) -> None:
    from ..archive import Duplicates, FileStore, IndexUnusableError, StorageError
    from ..archive.store.importing import (
        ReaderError,
        Source,
        import_files,
        opened_for_import,
        put_files,
        readers,
    )
    from .common.storage import index_of, shared_store, used

    # What was loaded stays; looking through it again and again would cost a quarter of the time.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    rule = node.duplicates if duplicates is None else Duplicates(duplicates)
    accepts_all = unknown_sop_classes or node.unknown_sop_classes
    shared = shared_store(node.storage)
    store: FileStore
    if shared is not None:
        store = shared
        store.duplicates = rule
    else:
        store = FileStore(node.storage, fsync=node.fsync, duplicates=rule, reserve=node.reserve)
    index = index_of(store.root, node.database)
    try:
        with (
            used(index),
            opened_for_import(store, index),
            ExitStack() as stack,
        ):
            if shared is not None:
                found = put_files(
                    shared,
                    index,
                    paths,
                    source=Source(source),
                    jobs=jobs or shared.parallel,
                    unknown_sop_classes=accepts_all,
                )
            else:
                reader = stack.enter_context(
                    readers(
                        store,
                        source=Source(source),
                        jobs=jobs or len(os.sched_getaffinity(0)),
                        unknown_sop_classes=accepts_all,
                    )
                )
                found = import_files(store, index, reader, paths)
            stack.enter_context(index)
            progress = stack.enter_context(done.output.progress("import", unit="files"))
            if progress.is_shown:
                progress.expect(count())
            try:
                for taken in found:
                    done.add(taken)
                    if taken.what.value in _NEW:
                        told.add(index, taken.sop_instance_uid)
                    progress.advance(taken.octets, failed=taken.what.value in ("failed", "refused"))
            finally:
                told.rest(index)
    except ReaderError as error:
        done.error = error
    except (StorageError, IndexUnusableError) as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error


def _is_dicomdir(path: str) -> bool:
    return os.path.basename(path).upper() == "DICOMDIR" and os.path.isfile(path)


def _missing(dicomdir: str) -> list[str]:
    """The files that a DICOMDIR names, and that are not there (PS3.10 8.6)."""
    from pydicom import dcmread

    root = os.path.dirname(dicomdir)
    found: list[str] = []
    for record in dcmread(dicomdir).get("DirectoryRecordSequence") or ():
        named = record.get("ReferencedFileID") or ()
        parts = [named] if isinstance(named, str) else [str(each) for each in named]
        # A CD shows its names in lower case on some systems.
        spellings = (parts, [each.lower() for each in parts])
        if parts and not any(os.path.exists(os.path.join(root, *each)) for each in spellings):
            found.append(os.path.join(root, *parts))
    return found


class _Done:
    """What was imported so far."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.counts: Counter[str] = Counter()
        self.linked = self.removed = self.octets = self.missing = 0
        self.failures: list[dict[str, str]] = []
        self.error: OSError | ReaderError | None = None

    def add(self, taken: Taken) -> None:
        what = taken.what.value
        self.counts[what] += 1
        self.linked += taken.is_linked and what == "stored"
        self.removed += taken.is_removed
        if what in _NEW:
            self.octets += taken.octets
        if what in ("failed", "refused") or (taken.reason and what != "skipped"):
            self._failed(taken.path, what, taken.reason)
        if what == "skipped" and _is_dicomdir(taken.path):
            self._look_into(taken.path)

    def _look_into(self, dicomdir: str) -> None:
        """Tell what a DICOMDIR names that is not on its medium."""
        try:
            missing = _missing(dicomdir)
        except Exception as error:  # whatever it has in it, the files are imported anyway
            self.output.note(f"{dicomdir} cannot be read: {error}")
            return
        self.missing += len(missing)
        for path in missing:
            self._failed(path, "missing", f"{dicomdir} names it, and it is not there")

    def _failed(self, path: str, what: str, reason: str) -> None:
        self.failures.append({"path": path, "what": what, "reason": reason})
        if len(self.failures) <= _NAMED and not self.output.is_json:
            self.output.note(f"{what}: {path}: {reason}")

    def report(self, is_interrupted: bool) -> int:
        """Report what was done; returns the exit code."""
        from ..archive.store.importing import What

        counts = {each.value: self.counts[each.value] for each in What}
        return Report(
            document={
                **counts,
                "linked": self.linked,
                "removed": self.removed,
                "missing": self.missing,
                "octets": self.octets,
                "failures": self.failures,
            },
            summary=self._summary(counts),
            problem=self._problem(counts, is_interrupted),
        ).show(self.output)

    def _summary(self, counts: dict[str, int]) -> str:
        words = {
            "stored": f"stored ({self.octets / 1e6:.1f} MB"
            + (f", {self.linked} by a second name)" if self.linked else ")"),
            "same": "there already",
            "replaced": "stored in the place of other content",
            "aside": "kept aside as versions",
            "refused": "refused because other content is there",
            "skipped": "skipped (not DICOM instances)",
            "failed": "failed",
        }
        said = [f"{number} {words[what]}" for what, number in counts.items() if number]
        if self.missing:
            said.append(f"{self.missing} named by a DICOMDIR and not there")
        if self.removed:
            said.append(f"{self.removed} removed from their places")
        return f"{counted(sum(counts.values()), 'file')}: {', '.join(said) or 'nothing was found'}"

    def _problem(self, counts: dict[str, int], is_interrupted: bool) -> Problem | None:
        from ..archive.store.objects import ObjectStoreError

        again = "import again with the same arguments; what is there is passed over"
        if self.error is not None and not isinstance(self.error, OSError):
            return Problem(
                ExitCode.SOME_FAILED, "the import was not completed", str(self.error), again
            )
        if self.error is not None:
            where = f"{self.error.filename}: " if self.error.filename else ""
            is_elsewhere = isinstance(self.error, ObjectStoreError)
            return Problem(
                ExitCode.SOME_FAILED if is_elsewhere else ExitCode.LOCAL_DISK,
                "the archive cannot be written",
                f"{where}{self.error.strerror or self.error}; all that is counted as stored is safe",
                f"when the store answers again, {again}"
                if is_elsewhere
                else f"make room on the disk, then {again}",
            )
        if is_interrupted:
            return Problem(
                ExitCode.INTERRUPTED,
                "the import was interrupted",
                "all that is counted as stored is safe",
                again,
            )
        failed = counts["failed"] + counts["refused"] + self.missing
        if failed:
            first = self.failures[0]
            return Problem(
                ExitCode.SOME_FAILED,
                f"{counted(failed, 'file')} could not be imported",
                f"the first is {first['path']}: {first['reason']}",
                "the files are where they were; --json lists all of them",
            )
        if not sum(counts.values()) - counts["skipped"]:
            return Problem(
                ExitCode.NOTHING,
                "there is nothing to import",
                f"{counted(counts['skipped'], 'file')} found, and none is an instance",
                "name the directory with the DICOM files (Part 10)",
            )
        return None


@contextmanager
def _stopped_by_ctrl_c() -> Iterator[list[int]]:
    """The signals that have asked to stop; the second one ends the block at once."""
    got: list[int] = []

    def stop(number: int, _: Any) -> None:
        if got:
            raise KeyboardInterrupt
        got.append(number)

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
