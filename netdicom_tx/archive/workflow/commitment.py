"""Storage commitment as the archive keeps it (PS3.4 Annex J): a promise is written down before it is made.

A request is a row, and the report that it is owed is a task of the queue. Both are committed before the N-ACTION is
answered with Success. Then every instance is looked up in the index, and its file is read to the end and compared with
its digest, so a damaged instance is never committed. The report goes out on the association of the request while the
peer holds that, and otherwise on an association of our own to the peer with that AE title. It is tried again until the
peer has it. A restart at any point loses nothing.

=================================  ===================================================================
failure reason (PS3.3 C.14.1.1)    given for
=================================  ===================================================================
0x0110 processing failure          a file that is missing, cannot be read, or is not what was stored
0x0112 no such object instance     an instance that the index does not have
0x0119 class/instance conflict     an instance that is kept with another SOP class
0x0122 SOP class not supported     an unknown instance of a SOP class that this AE does not store
0x0131 duplicate Transaction UID   every instance of a request whose Transaction UID was used before
=================================  ===================================================================
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from twisted.internet import defer

from ... import statuses
from ...applicationentity import AE, RemoteAE
from ...asceprovider import Association
from ...encoding import DataSetError
from ...exceptions import NetDICOMError, StatusError
from ...hooks import RequestContext
from ...logs import Logger
from ...negotiation import PContextDef
from ...sopclass import StorageCommitment
from ...sopclass.storage_commitment import Report, report_to, send_report
from ...statuses import Status
from ..index.entries import Files, InstanceRef
from ..index.index import Index, IndexUnavailableError
from ..index.record import digest_of_file, record_of
from ..index.schema import big_integer, instance, metadata
from .outbound import GiveUpError, Task
from .runner import QueueRunner

__all__ = ["ArchiveCommitment", "PeerUnknownError", "RefusedError", "commitment", "peer_of"]

KIND: Final = "commitment"
#: Seconds after which a transaction that was reported is forgotten, and its UID with it.
REMEMBERED: Final = 90 * 86400.0
#: How many requests of one AE title may wait for their report. One more is answered with 0x0213.
OWED_LIMIT: Final = 100
#: Seconds for which a file that was read and found whole counts as whole, as long as nothing has changed it.
TRUSTED: Final = 3600.0
# How many such files are remembered.
_TRUSTED_FILES: Final = 100_000
#: Statuses of a peer that may be others when it is asked again.
_PASSING: Final = (statuses.PROCESSING_FAILURE, statuses.RESOURCE_LIMITATION)

commitment = sa.Table(
    "commitment",
    metadata,
    sa.Column("id", big_integer, primary_key=True, autoincrement=True),
    # Several rows have the same one when a requestor has used it again.
    sa.Column("transaction_uid", sa.Text, nullable=False, index=True),
    # The AE title of the requestor.
    sa.Column("requestor", sa.Text, nullable=False),
    # Seconds since 1970.
    sa.Column("created", sa.Double, nullable=False),
    # Pairs of SOP class and instance.
    sa.Column("references", sa.JSON, nullable=False),
    # [SOP class, SOP instance, reason] of each instance that is not committed; NULL until the files have been read.
    sa.Column("failures", sa.JSON(none_as_null=True)),
    sa.Column("is_reported", sa.Boolean, nullable=False, server_default=sa.false()),
)
_C = commitment.c

_Reference = tuple[str, str]
# A file of this machine by what changes when it does; an object by its key, which never has other octets.
_Identity = tuple[int, int, int, int, int] | Path


class PeerUnknownError(NetDICOMError):
    """The node has no address for an AE title."""


class StoppingError(NetDICOMError):
    """The node stops before all files have been read."""


class RefusedError(NetDICOMError):
    """A peer answered with a failure that may be over at the next attempt.

    Args:
        text: The message.
        comment: The Error Comment of the peer, which is not part of the message, because messages are logged.
    """

    def __init__(self, text: str, comment: str = "") -> None:
        super().__init__(text)
        self.comment = comment


def peer_of(peers: Mapping[str, RemoteAE], ae_title: str) -> RemoteAE:
    """The address of an AE.

    Raises:
        PeerUnknownError: No peer of the node has this title.
    """
    found = peers.get(ae_title)
    if found is None:
        raise PeerUnknownError(
            f"{ae_title} is not a peer of this node, so its address is unknown: add it with --peer"
        )
    return found


def expect_success(status: Status) -> None:
    """Check that a peer has accepted a message.

    Raises:
        RefusedError: The peer may accept it later.
        GiveUpError: The peer will never accept it.
    """
    if status.is_failure:
        answered = f"the peer answered {Status(int(status), status.command)}"
        if status in _PASSING:
            raise RefusedError(answered, status.comment)
        raise GiveUpError(answered, status.comment)


class _Accepted(NamedTuple):
    """The rows of a request."""

    row_id: int
    task_id: int


class ArchiveCommitment(StorageCommitment):
    """Storage commitment of an archive, as SCP.

    Args:
        ae: The AE that reports when the requestor holds no association.
        index: The index, which also keeps the requests.
        runner: Performs the tasks; the performer is registered with it.
        in_thread: Runs a blocking call off the reactor thread.
        peers: The addresses to which reports are sent, by AE title.
        reading: Runs what reads files to their end, which can take minutes, so that nobody else waits for it. None
            means ``in_thread``.
        has_room: Whether the disk has more than its reserve.
    """

    _log = Logger()

    def __init__(
        self,
        ae: AE,
        index: Index,
        runner: QueueRunner,
        in_thread: Callable[..., defer.Deferred[Any]],
        peers: Mapping[str, RemoteAE],
        reading: Callable[..., defer.Deferred[Any]] | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self._ae = ae
        self._index = index
        self._runner = runner
        self._queue = runner.queue
        self._in_thread = in_thread
        self._peers = peers
        self._reading = reading or in_thread
        self.has_room = has_room
        self._stopped = threading.Event()
        self._trusted: OrderedDict[_Identity, float] = OrderedDict()
        # The rows that on_request() has written, for owe(), which follows it in the same turn.
        self._accepted: dict[tuple[Association, str], _Accepted] = {}
        runner.performers[KIND] = self.perform

    def stop(self) -> None:
        """Read no further; reports that are not ready stay owed. May be called from any thread."""
        self._stopped.set()

    def resume(self) -> None:
        """Read again after :meth:`stop`."""
        self._stopped.clear()

    # -- the request -------------------------------------------------------------------------------

    async def on_request(
        self, context: RequestContext, transaction_uid: str, uids: list[_Reference]
    ) -> tuple[RemoteAE | None, Iterable[_Reference], Iterable[tuple[str, str, int]]]:
        """Keep the request. Its instances are looked up after it has been answered.

        Raises:
            StatusError: 0x0213, the request cannot be kept, or too many requests of this AE wait for their report.
        """
        if not self.has_room():
            raise StatusError(statuses.RESOURCE_LIMITATION, "out of resources: disk space")
        asce = context.association
        requestor = asce.calling_ae_title
        try:
            accepted = await self._in_thread(self._accept, requestor, transaction_uid, uids)
        except IndexUnavailableError as error:
            self._log.error("a commitment request is refused: {error}", error=error)
            raise StatusError(statuses.RESOURCE_LIMITATION, "the database refuses") from error
        self._accepted[asce, transaction_uid] = accepted
        return None, (), ()

    def _accept(
        self, requestor: str, transaction_uid: str, uids: Sequence[_Reference]
    ) -> _Accepted:
        now = self._queue.time()
        known = sa.select(_C.id).where(_C.transaction_uid == transaction_uid).limit(1)
        owed = (
            sa.select(sa.func.count())
            .select_from(commitment)
            .where(_C.requestor == requestor, sa.not_(_C.is_reported))
        )
        old = commitment.delete().where(_C.is_reported, _C.created < now - REMEMBERED)

        def call(connection: sa.Connection) -> _Accepted | None:
            connection.execute(old)
            if (connection.scalar(owed) or 0) >= OWED_LIMIT:
                return None
            duplicate = connection.scalar(known) is not None
            reason = self.DUPLICATE_TRANSACTION_UID
            values = {
                "transaction_uid": transaction_uid,
                "requestor": requestor,
                "created": now,
                "references": [list(each) for each in uids],
                "failures": [[*each, reason] for each in uids] if duplicate else None,
            }
            made = connection.execute(commitment.insert(), values)
            assert made.inserted_primary_key is not None  # of one row it is known
            row_id = int(made.inserted_primary_key[0])
            task_id = self._queue.put(connection, KIND, requestor, {"row": row_id}, claimed=True)
            return _Accepted(row_id, task_id)

        accepted = self._index.write(call).result()
        if accepted is None:
            raise StatusError(
                statuses.RESOURCE_LIMITATION, f"{OWED_LIMIT} requests still wait for their report"
            )
        return accepted

    # -- the report --------------------------------------------------------------------------------

    def owe(
        self, asce: Association, ctx: PContextDef, remote: RemoteAE | None, report: Report
    ) -> None:
        """Report as soon as the files have been read; a report that cannot be sent is left to the queue."""
        accepted = self._accepted.pop((asce, report.transaction_uid))

        async def perform(task: Task) -> None:
            with asce.owing():  # reading all files may take long
                await self._perform(accepted.row_id, (asce, ctx))

        self._runner.adopt(accepted.task_id, KIND, asce.calling_ae_title, perform)

    async def perform(self, task: Task) -> None:
        """Report on an association of our own; the queue calls this.

        Raises:
            NetDICOMError: The report is still owed.
        """
        await self._perform(task.payload["row"], None)

    async def _perform(self, row_id: int, held: tuple[Association, PContextDef] | None) -> None:
        due = await self._reading(self._due, row_id)
        if due is None:
            return
        requestor, report = due
        status = None if held is None else await self._report_on(*held, report)
        if status is None:
            status = await report_to(self._ae, peer_of(self._peers, requestor), report)
        expect_success(status)
        await self._in_thread(self._reported, row_id)

    async def _report_on(
        self, asce: Association, ctx: PContextDef, report: Report
    ) -> Status | None:
        """Report on the association of the request; returns None when the requestor no longer holds it."""
        # A requestor that wants the report elsewhere has released by then.
        await asce.pause_for(self.same_association)
        if asce.is_open and ctx.as_scp:
            try:
                return await send_report(asce, ctx, report)
            except NetDICOMError as error:
                self._log.debug("no report on the same association: {error}", error=error)
        return None

    def _due(self, row_id: int) -> tuple[str, Report] | None:
        """The AE title that a report is owed to, and the report; None when it is no longer owed."""
        with self._index.reading() as connection:
            row = connection.execute(
                sa.select(_C.transaction_uid, _C.requestor, _C.references, _C.failures).where(
                    _C.id == row_id, sa.not_(_C.is_reported)
                )
            ).one_or_none()
        if row is None:
            return None
        references = [(sop_class, uid) for sop_class, uid in row.references]
        if row.failures is None:
            failures = list(self._failures(references))
            self._note(row_id, failures=[list(each) for each in failures])
        else:
            failures = [(sop_class, uid, reason) for sop_class, uid, reason in row.failures]
        failed = {each[:2] for each in failures}
        kept = tuple(each for each in references if each not in failed)
        return row.requestor, Report(row.transaction_uid, kept, tuple(failures))

    def _reported(self, row_id: int) -> None:
        self._note(row_id, is_reported=True)

    def _note(self, row_id: int, **values: object) -> None:
        statement = commitment.update().where(_C.id == row_id).values(values)

        def call(connection: sa.Connection) -> None:
            connection.execute(statement)

        self._index.write(call).result()

    # -- checking instances ------------------------------------------------------------------------

    def _failures(self, references: Iterable[_Reference]) -> Iterable[tuple[str, str, int]]:
        # An instance that is named twice is reported twice, but is read once.
        reasons: dict[_Reference, int] = {}
        for sop_class, uid in references:
            reason = reasons.get((sop_class, uid))
            if reason is None:
                reason = reasons[sop_class, uid] = self._reason(sop_class, uid)
            if reason:
                yield sop_class, uid, reason

    def _reason(self, sop_class: str, uid: str) -> int:
        """The failure reason of an instance; 0 when it is committed."""
        ref = self._index.get(uid)
        if ref is None:
            if self._ae.supported_scp.find(sop_class) is None:
                return self.REFERENCED_SOP_CLASS_NOT_SUPPORTED
            return self.NO_SUCH_OBJECT_INSTANCE
        if ref.sop_class_uid != sop_class:
            return self.CLASS_OR_INSTANCE_CONFLICT
        if not self._is_whole(ref):
            if self._index.get(uid) is None:
                return self.NO_SUCH_OBJECT_INSTANCE  # it was deleted in the meantime
            self._log.error("{path} is not what was stored: not committed", path=ref.path)
            return self.PROCESSING_FAILURE
        return 0

    def _is_whole(self, ref: InstanceRef) -> bool:
        """Whether the file of an instance is what was stored."""
        self._check()
        own = instance.c.sop_instance_uid == ref.sop_instance_uid
        with self._index.reading() as connection:
            digest = connection.scalar(sa.select(instance.c.digest).where(own))
        if ref.files is not None:
            return self._is_whole_there(ref, ref.files, digest)
        try:
            identity = _identity(ref.path)
            if self._is_trusted(identity):
                return True
            if digest:
                is_whole = bool(digest_of_file(ref.path, self._check) == digest)
                if is_whole:
                    self._trust(identity)
                return is_whole
            # The digest has not been computed yet, so only the structure of the file can be checked.
            record = record_of(ref.path)
        except (DataSetError, OSError, ValueError):
            return False
        if (record.sop_instance_uid, record.size) != (ref.sop_instance_uid, ref.size):
            return False
        self._index.set_digest(ref.sop_instance_uid, record.digest).result()
        return True

    def _is_whole_there(self, ref: InstanceRef, files: Files, digest: str | None) -> bool:
        """The same for an instance in a shared store; when that does not answer, the report is owed for a while.

        Raises:
            OSError: The shared store does not answer.
        """
        if self._is_trusted(ref.path):
            return True
        try:
            is_whole = files.digest(ref.path, ref.size, self._check) == digest
        except (FileNotFoundError, ValueError):
            return False
        if is_whole:
            self._trust(ref.path)
        return is_whole

    def _check(self) -> None:
        """Go on reading.

        Raises:
            StoppingError: The node stops.
        """
        if self._stopped.is_set():
            raise StoppingError("the node stops; the report is owed until it runs again")

    # -- files that were read a moment ago -----------------------------------------------------------

    def _is_trusted(self, identity: _Identity) -> bool:
        read = self._trusted.get(identity)
        return read is not None and time.monotonic() - read < TRUSTED

    def _trust(self, identity: _Identity) -> None:
        self._trusted[identity] = time.monotonic()
        self._trusted.move_to_end(identity)
        while len(self._trusted) > _TRUSTED_FILES:
            self._trusted.popitem(last=False)


def _identity(path: Path) -> _Identity:
    """What changes whenever somebody writes to a file, or puts another one in its place."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
