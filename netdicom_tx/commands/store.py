"""``netdicom store``: send files and directories (PS3.4 Annex B), any number at constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ..exceptions import ClassNotSupportedError
from ..negotiation import NO_WINDOW, Window
from ..uids import name
from .common.failures import ExitCode, Problem, StatusFailure
from .common.options import Common, common_options, examples, peer_argument, whole_number
from .common.output import Output, Progress, counted
from .common.report import Report
from .common.session import Session, run

if TYPE_CHECKING:
    from ..sopclass import StoreResult
    from .common.files import FoundFile, Journal, Sending

# How many failures the JSON document names, and how many reasons a person reads; all are counted.
_NAMED = 1000
_REASONS = 10


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom store ARCHIVE@10.0.0.5:104 image.dcm",
        "netdicom store archive /media/cdrom --jobs 4",
        "netdicom store archive big-study/ --resume big-study.journal",
    ),
)
@peer_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-j",
    "--jobs",
    type=whole_number(1, 64),
    default=1,
    metavar="N",
    help="Open N associations at the same time (default: 1).",
)
@click.option(
    "--window",
    type=whole_number(1, 64),
    default=1,
    metavar="N",
    help="Send up to N instances on each association before waiting for an answer, if the peer "
    "grants it (default: 1).",
)
@click.option(
    "--resume",
    metavar="FILE",
    help="Record in FILE what the peer has acknowledged, and skip what FILE records already.",
)
@click.option("--fail-fast", is_flag=True, help="Stop after the first failure.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, without calling the peer.")
@common_options
def command(
    common: Common,
    paths: tuple[str, ...],
    jobs: int,
    window: int,
    resume: str | None,
    fail_fast: bool,
    dry_run: bool,
) -> int:
    """Send files, and all DICOM files below directories (C-STORE).

    Files in a directory that are not DICOM are skipped and counted. A file is sent as it is. When the peer
    refuses an uncompressed transfer syntax, the data set is re-encoded to another one that the peer accepts;
    compressed images are never touched.

    Exits with 10 when there was nothing to send.
    """
    from .common.files import Journal, check_named

    check_named(paths)
    with ExitStack() as stack:
        journal = None
        if resume is not None:
            journal = Journal(resume, str(common.address))
            stack.callback(journal.close)
        tally = _Tally(common.output, common.verbose > 0, dry_run)
        found = _Found(paths, journal, tally)
        if dry_run:
            return _rehearse(found, tally)

        async def perform(session: Session) -> int:
            return await _send(session, found, tally, jobs, window, fail_fast)

        return run(common, perform)


@dataclass(slots=True)
class _Tally:
    """Counts the files, the instances and their outcomes.

    Attributes:
        others: Files that are not DICOM.
        before: Files that the peer acknowledged in an earlier run.
        octets: The size of the stored instances.
        kinds: The numbers of instances and octets, by SOP class and outcome.
        reasons: How many files failed for each reason, and the first one.
        codes: The exit codes of all failures.
        refusal: Why the first instance failed, when the peer or the association was the reason.
        lost: Why the last association ended under an instance; None once the peer has answered again.
        broken: Why no further instance can be sent.
    """

    output: Output
    is_verbose: bool = False
    is_rehearsal: bool = False
    stored: int = 0
    failed: int = 0
    others: int = 0
    before: int = 0
    octets: int = 0
    kinds: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)
    codes: set[int] = field(default_factory=set)
    refusal: Problem | None = None
    lost: Problem | None = None
    broken: Problem | None = None

    def count(self, instance: Sending, outcome: str) -> None:
        entry = self.kinds.setdefault((instance.sop_class_uid, outcome), [0, 0])
        entry[0] += 1
        entry[1] += _file(instance).size

    def fail(self, path: str, reason: str, code: int, *, is_named: bool = True) -> None:
        """Count a file that was not stored.

        Args:
            is_named: Whether it is named; one of those that nothing was tried for stands for the others.
        """
        self.failed += 1
        self.codes.add(code)
        if is_named and len(self.failures) < _NAMED:
            self.failures.append({"file": path, "reason": reason, "code": int(code)})
        number, first = self.reasons.get(reason, (0, path))
        self.reasons[reason] = number + 1, first
        if self.is_verbose and is_named:
            self.output.note(f"failed: {path}: {reason}")

    def tell_failures(self) -> None:
        """Write a line for each reason why files were not stored."""
        if self.is_verbose:
            return  # each file has had its line
        for reason, (number, first) in list(self.reasons.items())[:_REASONS]:
            what = first if number == 1 else f"{counted(number, 'file')}, the first is {first}"
            self.output.note(f"failed: {what}: {reason}")
        if len(self.reasons) > _REASONS:
            more = counted(len(self.reasons) - _REASONS, "more reason")
            self.output.note(f"failed: {more}; -v shows each file")

    def problem(self) -> Problem | None:
        """Why the run failed; None when it succeeded."""
        if self.broken is not None:
            return self.broken
        if self.failed:
            return self._some_failed()
        if self.kinds or self.before:
            return None
        return Problem(
            ExitCode.NOTHING,
            "there was nothing to send",
            f"{counted(self.others, 'file')} looked at, none of them a DICOM instance",
            "name DICOM files (Part 10), or directories that hold some",
        )

    def _some_failed(self) -> Problem:
        if self.refusal is not None and not self.stored and len(self.codes) == 1:
            return self.refusal
        first = self.failures[0]
        if self.is_rehearsal:
            others = sum(count for count, _ in self.kinds.values())
            return Problem(
                ExitCode.SOME_FAILED,
                f"{self.failed} of {self.failed + others} files cannot be sent",
                f"the first is {first['file']}: {first['reason']}",
                "the others would be sent; nothing was sent now",
            )
        return Problem(
            ExitCode.SOME_FAILED,
            f"{self.failed} of {self.failed + self.stored} files could not be stored",
            f"the first is {first['file']}: {first['reason']}",
            "the others are stored; with --resume only those that failed are sent again",
        )


def _file(instance: Sending) -> FoundFile:
    from .common.files import FoundFile

    assert isinstance(instance.source, FoundFile)
    return instance.source


class _Found:
    """The instances to be sent, one after another; files that are not sent are counted.

    Attributes:
        is_stopped: Whether no further instance is wanted.
    """

    def __init__(self, paths: tuple[str, ...], journal: Journal | None, tally: _Tally) -> None:
        self.is_stopped = False
        self.journal = journal
        self._paths = paths
        self._tally = tally

    def stop(self) -> None:
        self.is_stopped = True

    def total(self) -> int:
        """The number of files, DICOM or not."""
        from .common.files import walk

        return sum(1 for _ in walk(self._paths))

    def __iter__(self) -> Iterator[Sending]:
        from ..encoding import DataSetError
        from .common.files import FoundFile, Sending, is_dicom, is_storable, walk

        tally = self._tally
        for path in walk(self._paths):
            if self.is_stopped:
                return
            try:
                file = FoundFile.of(path)
                if self.journal is not None and self.journal.has(file):
                    tally.before += 1
                    continue
                instance = Sending.in_file(file, lambda: self.is_stopped)
            except OSError as error:
                tally.fail(path, f"cannot be read: {error.strerror}", ExitCode.SOME_FAILED)
            except DataSetError as error:
                if is_dicom(path):
                    tally.fail(path, str(error), ExitCode.SOME_FAILED)
                else:
                    tally.others += 1
            else:
                if is_storable(instance):
                    yield instance
                else:
                    tally.others += 1


def _rehearse(found: _Found, tally: _Tally) -> int:
    for instance in found:
        if not tally.output.is_json:
            kind, syntax = name(instance.sop_class_uid), name(instance.transfer_syntax)
            tally.output.line(f"{_file(instance).path}\t{kind}\t{syntax}")
        tally.count(instance, "would be sent")
    tally.tell_failures()
    return _report(tally, None, "-", has_table=False).show(tally.output)


async def _send(
    session: Session, found: _Found, tally: _Tally, jobs: int, window: int, fail_fast: bool
) -> int:
    from ..applicationentity import AE
    from ..sopclass import store_all

    address = session.common.address
    assert address is not None
    begin = time.monotonic()
    ae = session.ae(AE, address, window=Window(window, window) if window > 1 else NO_WINDOW)
    with (
        session.output.progress("store", unit="files") as progress,
        session.on_interrupt(found.stop),
    ):
        total = found.total() if progress.is_shown else 0
        async for result in store_all(ae, session.remote(address), found, associations=jobs):
            _take(result, session, found, tally, progress)
            progress.expect(total - tally.others - tally.before)
            if tally.failed and fail_fast:
                found.stop()
    tally.tell_failures()
    return _report(tally, time.monotonic() - begin, str(address)).show(session.output)


def _take(
    result: StoreResult, session: Session, found: _Found, tally: _Tally, progress: Progress
) -> None:
    """Count what became of one instance."""
    from ..encoding import DataSetError
    from .common.files import HeldBackError, Sending

    instance = result.instance
    assert isinstance(instance, Sending)
    file, status, error = _file(instance), result.status, result.error
    if isinstance(error, HeldBackError):
        return
    if status is not None:
        tally.lost = None
        tally.count(instance, str(status))
        if not result.is_stored:
            tally.refusal = tally.refusal or session.explain(StatusFailure("C-STORE", status))
            tally.fail(file.path, str(status), ExitCode.STATUS)
        else:
            tally.stored += 1
            tally.octets += file.size
            if found.journal is not None:
                found.journal.add(file, instance)
    elif isinstance(error, OSError | DataSetError):
        # A DataSetError comes from re-encoding here: the header has been read before.
        tally.count(instance, "cannot be read" if isinstance(error, OSError) else "cannot be sent")
        reason = error.strerror if isinstance(error, OSError) else None
        tally.fail(file.path, reason or str(error), ExitCode.SOME_FAILED)
    else:
        assert error is not None
        _take_failure(instance, session.explain(error), result, tally)
        if result.is_given_up:
            found.stop()
    progress.advance(file.size, failed=not result.is_stored)


def _take_failure(instance: Sending, problem: Problem, result: StoreResult, tally: _Tally) -> None:
    """Count an instance that failed with its association, or for lack of one."""
    file = _file(instance)
    tally.refusal = tally.refusal or problem
    if isinstance(result.error, ClassNotSupportedError):
        tally.count(instance, "no presentation context")
        tally.fail(file.path, f"{problem.what}: {problem.evidence}", problem.code)
        return
    tally.count(instance, "not sent")
    if not result.is_given_up:
        tally.lost = problem
        tally.fail(file.path, f"{problem.what}: {problem.evidence}", problem.code)
    else:
        is_first = tally.broken is None
        # The reason is what ended the last association; a refusal of the next one follows from that.
        tally.broken = tally.broken or tally.lost or problem
        tally.fail(file.path, f"not tried: {problem.what}", problem.code, is_named=is_first)


def _report(tally: _Tally, seconds: float | None, peer: str, *, has_table: bool = True) -> Report:
    """The end of a run.

    Args:
        seconds: How long it took; None when nothing was sent.
    """
    document = {
        "peer": peer,
        "stored": tally.stored,
        "failed": tally.failed,
        "skipped": {"not_dicom": tally.others, "acknowledged_before": tally.before},
        "octets": tally.octets,
        "seconds": None if seconds is None else round(seconds, 3),
        "summary": [
            {
                "sop_class_uid": sop_class,
                "sop_class": name(sop_class),
                "outcome": outcome,
                "instances": count,
                "octets": octets,
            }
            for (sop_class, outcome), (count, octets) in sorted(tally.kinds.items())
        ],
        "failures": tally.failures,
    }
    rows = (
        (name(sop_class), outcome, count, f"{octets / 1e6:.1f}")
        for (sop_class, outcome), (count, octets) in sorted(tally.kinds.items())
    )
    return Report(
        document=document,
        columns=("SOP class", "status", "files", "MB") if has_table and tally.kinds else (),
        rows=rows,
        summary=_summary(tally, seconds),
        problem=tally.problem(),
    )


def _summary(tally: _Tally, seconds: float | None) -> str:
    reasons = [
        f"{number} {what}"
        for number, what in (
            (tally.others, "not DICOM"),
            (tally.before, "acknowledged before"),
        )
        if number
    ]
    return (
        f"{tally.stored} stored, {tally.failed} failed, {tally.others + tally.before} skipped"
        + (f" ({', '.join(reasons)})" if reasons else "")
        + (f"; {tally.octets / 1e6:.1f} MB in {seconds:.1f} s" if seconds is not None else "")
    )
