"""The audit trail of commands that delete, import, export or back up without the node."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from .failures import CommandError, ExitCode, Problem

if TYPE_CHECKING:
    from ...archive.auditing import Auditor
    from ...archive.index.index import Index
    from ...archive.index.withdrawal import Gone
    from ...audit import AuditSource
    from ...options import Options

__all__ = ["Told", "audited", "deletions_audited", "this_user"]

# Of how many instances the studies are told at once; a command that is killed has told of all but the last ones.
_GROUP = 10_000
# How many messages wait for a syslog server.
_AT_ONCE = 5_000


@contextmanager
def audited(audit: str | None, config_file: str | None) -> Iterator[Auditor | None]:
    """Open the audit trail of the node; None without a trail.

    Args:
        audit: A file that the command names.
        config_file: The configuration file of the node, which names a file and syslog servers.

    Raises:
        CommandError: The file cannot be written.
    """
    from ...archive.auditing import Auditor, this_process
    from .node import node_options
    from .storage import has_variables

    title = "NETDICOM"
    options: Options | None = None
    if config_file is not None or has_variables():
        options = node_options(["--config", config_file] if config_file is not None else [])
        title, audit = options["aet"], audit or options["audit"]
    source = this_process(title)
    trails: list[_Kept] = []
    if audit is not None:
        trails.append(_File(audit))
    if options is not None and options["audit-syslog"]:
        trails.append(_Syslog(options, source))
    if not trails:
        yield None
        return
    try:
        yield Auditor(source, trails)
    finally:
        for each in trails:
            each.finish()


@contextmanager
def deletions_audited(
    audit: str | None, config_file: str | None
) -> Iterator[Callable[[Sequence[Gone], str], object] | None]:
    """Audit deletions; None without a trail."""
    from ...archive.auditing import StudyRow

    with audited(audit, config_file) as auditor:
        if auditor is None:
            yield None
            return
        yield lambda gone, user: auditor.deleted(
            [(StudyRow(*each[:-1]), each.is_whole) for each in gone], user
        )


def this_user() -> str:
    """The name of the user who has called the command; a container may run as a number without a name."""
    try:
        return getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


class Told:
    """Tells an audit trail of instances that come or go, by their studies.

    Args:
        tell: Takes the studies, the user and the place: ``imported`` or ``exported`` of an
            :class:`~netdicom_tx.archive.auditing.Auditor`; None without a trail.
        place: The directory or the file.
    """

    def __init__(self, tell: Callable[..., object] | None, place: Path) -> None:
        self._tell = tell
        self._uri = place.absolute().as_uri()
        self._uids: list[str] = []

    def add(self, index: Index, sop_instance_uid: str) -> None:
        """Note an instance that has come or gone; the index has it."""
        if self._tell is not None:
            self._uids.append(sop_instance_uid)
            if len(self._uids) >= _GROUP:
                self.rest(index)

    def rest(self, index: Index) -> None:
        """Tell of the instances that have not been told of."""
        uids, self._uids = self._uids, []
        self.tell(index, uids)

    def tell(self, index: Index, sop_instance_uids: list[str]) -> None:
        """Tell of instances now."""
        from ...archive.auditing import StudyRow

        if self._tell is not None and sop_instance_uids:
            rows = [StudyRow(*each) for each in index.studies_of(sop_instance_uids)]
            self._tell(rows, this_user(), self._uri)


class _Kept:
    """A trail of a command, which may wait."""

    def start(self) -> None:
        """Begin to keep messages."""

    def stop(self) -> Any:
        """Do nothing: the command finishes its trails."""

    def write(self, message: bytes) -> None:
        """Keep a message."""
        raise NotImplementedError

    def finish(self) -> None:
        """Keep what waits."""
        raise NotImplementedError


class _File(_Kept):
    """The file of a trail."""

    def __init__(self, path: str) -> None:
        from ...audit_trails import FileTrail

        self._path = path
        self._trail = FileTrail(path)
        self._waiting: list[bytes] = []
        try:
            self._trail.check()
        except OSError as error:
            raise CommandError(
                Problem(
                    ExitCode.LOCAL_DISK,
                    f"the audit trail {path} cannot be written",
                    f"{error.strerror}; nothing was done",
                )
            ) from error

    def write(self, message: bytes) -> None:
        self._waiting.append(message)
        if len(self._waiting) >= _AT_ONCE:
            self._append()

    def _append(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._trail.append(waiting)

    def finish(self) -> None:
        self._append()
        if self._trail.lost:
            _warn(
                f"the audit trail {self._path} cannot be written: it lacks {self._trail.lost} messages"
            )


class _Syslog(_Kept):
    """The syslog servers of a trail; they get the messages at the end of the command.

    Args:
        options: The options of the node.
    """

    def __init__(self, options: Options, source: AuditSource) -> None:
        self._options = options
        self._source = source
        # On the disk, because a large import has many messages.
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish()

    def write(self, message: bytes) -> None:
        self._messages.write(message + b"\n")

    def finish(self) -> None:
        with self._messages:
            if self._messages.tell():
                self._run()

    def _run(self) -> None:
        from twisted.internet import defer, reactor
        from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
        from zope.interface import directlyProvides

        any_reactor: Any = reactor  # no type has all of its interfaces

        def told(event: Any) -> None:
            if event["log_level"] is LogLevel.error:
                _warn(formatEvent(event))

        directlyProvides(told, ILogObserver)
        observer: Any = told

        def begin() -> None:
            sending = defer.Deferred.fromCoroutine(self._send(any_reactor))
            sending.addBoth(lambda result: (any_reactor.stop(), result)[1])
            sending.addErrback(lambda failure: _warn(f"syslog: {failure.getErrorMessage()}"))

        globalLogPublisher.addObserver(observer)
        try:
            any_reactor.callWhenRunning(begin)
            any_reactor.run(installSignalHandlers=False)
        finally:
            globalLogPublisher.removeObserver(observer)

    async def _send(self, reactor: Any) -> None:
        from ...audit_trails import syslog_trail

        for address in self._options["audit-syslog"]:
            self._messages.seek(0)
            while part := list(itertools.islice(self._messages, _AT_ONCE)):
                trail = syslog_trail(address, self._source, self._options["tls"], reactor)
                trail.start()
                for each in part:
                    trail.write(each.removesuffix(b"\n"))
                await trail.stop()


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)
