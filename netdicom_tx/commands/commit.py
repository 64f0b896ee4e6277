"""``netdicom commit``: ask a peer to keep instances for good (PS3.4 Annex J, storage commitment)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..exceptions import DCMTimeoutError, StatusError
from ..statuses import Status
from .common.addresses import Address
from .common.failures import CommandError, ExitCode, Problem, StatusFailure
from .common.listening import endpoint_string, listening
from .common.options import Common, common_options, examples, parse_seconds, peer_argument
from .common.output import Output, counted
from .common.report import Report
from .common.session import Session, run

if TYPE_CHECKING:
    from twisted.internet import defer

    from ..applicationentity import AE
    from ..asceprovider import Association
    from ..sopclass import CommitmentResult

# How many seconds a peer has to end the association on which it reported.
_GRACE = 2.0
_TIMEOUT = 300.0

#: SOP class and SOP instance.
_Reference = tuple[str, str]


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom commit ARCHIVE@10.0.0.5:104 image.dcm",
        "netdicom store archive study/ && netdicom commit archive study/",
        "netdicom commit archive study/ -aet CT1 --listen 11112 --timeout 3600",
    ),
)
@peer_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-l",
    "--listen",
    "endpoint",
    metavar="ENDPOINT",
    help="Listen here for a peer that reports on an association of its own: a port, host:port, or a Twisted "
    "endpoint (default: the peer reports on our association).",
)
@click.option(
    "--timeout",
    type=parse_seconds,
    default=_TIMEOUT,
    metavar="SECONDS",
    help="How long to wait for the report once the request is answered (default: 300).",
)
@common_options
def command(common: Common, paths: tuple[str, ...], endpoint: str | None, timeout: float) -> int:
    """Ask a peer to keep instances for good (storage commitment).

    The request names the instances in files, and in all DICOM files below directories; the files
    themselves are not sent. The command waits for the peer's report on each instance, which comes on the
    same association. With --listen the association is released, and the report comes on one that the peer
    opens; for that the peer must know our AE title (-aet) with this host and port.

    Exits with 10 when no file has an instance.
    """
    from .common.files import check_named

    check_named(paths, "committed")
    place = None if endpoint is None else endpoint_string(endpoint)
    files = _Files(paths, common.output)
    if not files.references:
        raise CommandError(
            Problem(
                ExitCode.NOTHING,
                "there is nothing to ask for",
                f"{counted(files.others, 'file')} looked at that are not DICOM instances, and "
                f"{len(files.unreadable)} that cannot be read",
                "name DICOM files (Part 10), or directories that hold some",
            )
        )

    async def perform(session: Session) -> int:
        result = await _ask(session, list(files.references), place, timeout)
        if result is None:
            return ExitCode.INTERRUPTED
        return _report(session, files, result).show(session.output)

    return run(common, perform)


class _Files:
    """The instances in the files.

    Attributes:
        references: The files of each instance; an instance in several files is requested once.
        unreadable: DICOM files that name no instance, with the reason.
        others: The number of files that are not instances.
    """

    def __init__(self, paths: Iterable[str], output: Output) -> None:
        from .common.files import walk

        self.references: dict[_Reference, list[str]] = {}
        self.unreadable: dict[str, str] = {}
        self.others = 0
        with output.progress("read", unit="files") as progress:
            for path in walk(paths):
                self._read(path)
                progress.advance(failed=path in self.unreadable)

    def _read(self, path: str) -> None:
        from ..dsutils import DataSetError
        from ..sopclass import Instance
        from .common.files import is_dicom, is_storable

        try:
            instance = Instance.of(path)
        except OSError as error:
            self.unreadable[path] = f"cannot be read: {error.strerror}"
        except DataSetError as error:
            if is_dicom(path):
                self.unreadable[path] = str(error)
            else:
                self.others += 1
        else:
            if is_storable(instance):
                reference = (instance.sop_class_uid, instance.sop_instance_uid)
                self.references.setdefault(reference, []).append(path)
            else:
                self.others += 1


async def _ask(
    session: Session, references: list[_Reference], endpoint: str | None, timeout: float
) -> CommitmentResult | None:
    """Ask for commitment; returns the report, or None after Ctrl-C."""
    from twisted.internet import defer

    from ..applicationentity import AE
    from ..sopclass import StorageCommitment, storage_commitment_scu

    address = session.common.address
    assert address is not None
    ae = session.ae(AE, address).add_scu(storage_commitment_scu).add_scp(StorageCommitment())
    try:
        async with listening(session, ae, endpoint):
            return await _request(session, ae, address, references, endpoint is None, timeout)
    except StatusError as error:
        raise StatusFailure("N-ACTION", _refusal(error)) from error
    except DCMTimeoutError as error:
        if error.timer != "commitment":
            raise
        evidence = f"the request was answered; no report came within {timeout:g} s of that"
        problem = _no_report(str(address), ExitCode.TIMEOUT, evidence, endpoint)
        raise CommandError(problem) from error
    except defer.CancelledError:
        if session.is_interrupted:
            raise
        evidence = "the report cannot come in another way, because this command does not listen"
        problem = _no_report(str(address), ExitCode.ABORTED, evidence, endpoint)
        raise CommandError(problem) from None
    finally:
        if endpoint is not None:
            await _ended(session, ae)


async def _request(
    session: Session,
    ae: AE,
    address: Address,
    references: list[_Reference],
    on_this_association: bool,
    timeout: float,
) -> CommitmentResult | None:
    """Ask for commitment and wait for the report; None after Ctrl-C.

    Raises:
        CancelledError: The association that was to bring the report ended without it.
    """
    from pydicom.uid import generate_uid
    from twisted.internet import defer

    from ..sopclass import request_commitment

    transaction = str(generate_uid())
    waiting: defer.Deferred[CommitmentResult] | None = None
    try:
        async with session.association(ae, address) as asce:
            waiting = defer.Deferred.fromCoroutine(
                request_commitment(asce, references, transaction_uid=transaction, timeout=timeout)
            )
            session.output.note(
                f"{address} is asked to commit {counted(len(references), 'instance')}, "
                f"transaction {transaction}"
            )
            if on_this_association:
                _end_with(session, asce, waiting)
                return await session.until_interrupted(waiting)
            # There is only one request on this association, which is released once that is answered.
        return await session.until_interrupted(waiting)
    finally:
        if waiting is not None:
            # Its failure has been reported, or no caller waits for it any more.
            waiting.addErrback(lambda _: None)
            waiting.cancel()


def _refusal(error: StatusError) -> Status:
    """The status of the answer to the request, with the peer's comment if there is one."""
    plain = Status(error.status or 0, "N-ACTION")
    comment = "" if error.comment.startswith(plain.meaning) else error.comment
    return Status(plain, "N-ACTION", comment)


def _end_with(
    session: Session, asce: Association, waiting: defer.Deferred[CommitmentResult]
) -> None:
    """Stop waiting when the association ends."""
    # Stop in the next turn of the reactor: a report that came just before the end has been taken by then.
    asce.closed().addCallback(lambda _: session.reactor.callLater(0, waiting.cancel))


async def _ended(session: Session, ae: AE) -> None:
    """Let the peer end its associations: it may still be reading our answer to its report."""
    from twisted.internet import defer

    if session.is_interrupted:
        return
    left = defer.DeferredList([asce.closed() for asce in ae.associations])
    left.addTimeout(_GRACE, session.reactor)
    with suppress(defer.TimeoutError):
        await left


def _no_report(peer: str, code: ExitCode, evidence: str, endpoint: str | None) -> Problem:
    if endpoint is None:
        hint = "it may report on an association of its own: use --listen PORT, and an AE title that it knows"
    else:
        hint = (
            "does it know our AE title (-aet) with this host and port? allow it more time: "
            "--timeout SECONDS"
        )
    what = "did not report in time"
    if code == ExitCode.ABORTED:
        what = "ended the association before it reported"
    return Problem(code, f"{peer} {what}", evidence, hint)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome for a file; ``reason`` is empty when its instance is committed."""

    path: str
    sop_class: str
    sop_instance: str
    reason: str
    code: int | None = None


def _outcomes(files: _Files, result: CommitmentResult) -> Iterator[_Outcome]:
    failed = {(sop_class, uid): code for sop_class, uid, code in result.failed}
    committed = set(result.committed)
    for reference, paths in files.references.items():
        code = failed.get(reference)
        reason = "" if reference in committed else "the report does not name it"
        if code is not None:
            reason = str(Status(code, "N-EVENT-REPORT")) if code else "no reason given"
        for path in paths:
            yield _Outcome(path, *reference, reason, code)
    for path, reason in files.unreadable.items():
        yield _Outcome(path, "", "", reason)


def _report(session: Session, files: _Files, result: CommitmentResult) -> Report:
    """The outcome for each file."""
    outcomes = list(_outcomes(files, result))
    failures = [each for each in outcomes if each.reason]
    problem = None
    if failures:
        first = failures[0]
        problem = Problem(
            ExitCode.SOME_FAILED,
            f"{len(failures)} of {counted(len(outcomes), 'file')} are not committed",
            f"the first is {first.path}: {first.reason}",
            "keep these files; send those that the peer does not have: netdicom store",
        )
    committed = len(outcomes) - len(failures)
    skipped = f", {files.others} skipped (not DICOM)" if files.others else ""
    return Report(
        document={
            "peer": str(session.common.address),
            "transaction_uid": result.transaction_uid,
            "committed": committed,
            "failed": len(failures),
            "skipped": {"not_dicom": files.others},
            "files": [_document(each) for each in outcomes],
        },
        columns=("commitment", "reason", "SOP instance", "file"),
        rows=(
            ("failed" if each.reason else "committed", each.reason, each.sop_instance, each.path)
            for each in outcomes
        ),
        summary=f"{committed} committed, {len(failures)} failed{skipped}",
        problem=problem,
    )


def _document(outcome: _Outcome) -> dict[str, Any]:
    return {
        "file": outcome.path,
        "sop_class_uid": outcome.sop_class,
        "sop_instance_uid": outcome.sop_instance,
        "committed": not outcome.reason,
        "reason": outcome.reason,
        "code": None if outcome.code is None else f"{outcome.code:04X}",
    }
