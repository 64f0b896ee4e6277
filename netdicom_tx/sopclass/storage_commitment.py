"""Storage commitment service class, push model (PS3.4 Annex J).

The SCU asks by N-ACTION for the safekeeping of instances. The SCP reports by N-EVENT-REPORT which instances it
keeps, on the same association or on one that it opens itself. :class:`StorageCommitment` is the service for the
incoming messages of both sides, as on netdicom2's Service SOP Classes page. :func:`storage_commitment_scu` sends the
request, and :func:`request_commitment` also waits for the report.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from twisted.internet import defer

from .. import dsutils, statuses
from ..applicationentity import AE, RemoteAE
from ..arguments import check_seconds, several
from ..asceprovider import Association
from ..dimsemessages import NActionRQ, NEventReportRQ, Request, Response
from ..exceptions import DCMTimeoutError, LocalProtocolError, NetDICOMError, StatusError
from ..hooks import RequestContext
from ..logs import Logger
from ..negotiation import PContextDef
from ..requests import status_of
from ..statuses import Status
from ..uids import (
    DEFAULT_TRANSFER_SYNTAXES,
    STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS,
    STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE,
)
from ..userdataitems import RoleSelection
from .base import (
    MessageDispatcherSCP,
    ae_of,
    aside,
    in_thread,
    settled,
    sop_classes,
    taken_out,
)
from .normalized import data_set_of

__all__ = [
    "CommitmentResult",
    "Report",
    "StorageCommitment",
    "request_commitment",
    "send_report",
    "storage_commitment_scu",
]

_log = Logger()
# How many instances the data set of a report is made of on the reactor thread.
_AT_ONCE = 50
_Reference = tuple[str, str]
_Failure = tuple[str, str, int]
_Decision = tuple[RemoteAE | None, Iterable[_Reference] | None, Iterable[_Failure] | None]


class CommitmentResult(NamedTuple):
    """The result of a transaction, as the SCP reports it.

    Attributes:
        transaction_uid: The transaction UID of the request.
        committed: (SOP class, SOP instance) of each instance that the SCP keeps.
        failed: (SOP class, SOP instance, reason) of each instance that it does not keep; the reasons are the
            constants of :class:`StorageCommitment`.
    """

    transaction_uid: str
    committed: tuple[_Reference, ...]
    failed: tuple[_Failure, ...]


class Report(NamedTuple):
    """An N-EVENT-REPORT that is owed to the requestor of a commitment."""

    transaction_uid: str
    success: tuple[_Reference, ...]
    failure: tuple[_Failure, ...]

    def information(self) -> Dataset:
        """The data set of the report (PS3.4 Table J.3-2)."""
        ds = Dataset()
        ds.TransactionUID = self.transaction_uid
        if self.success:
            ds.ReferencedSOPSequence = Sequence([_reference(*each) for each in self.success])
        if self.failure:
            items = []
            for sop_class, sop_instance, reason in self.failure:
                item = _reference(sop_class, sop_instance)
                item.FailureReason = reason
                items.append(item)
            ds.FailedSOPSequence = Sequence(items)
        return ds

    @property
    def event_type(self) -> int:
        """The Event Type ID: 1 when every instance is kept, 2 when there are failures (PS3.4 J.3.3.1.1)."""
        return 2 if self.failure else 1


def _reference(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    return item


def _references(ds: Dataset, keyword: str) -> list[_Failure]:
    """(class, instance, failure reason or 0) of each item of a sequence, which is emptied; nothing without a sequence.

    Raises:
        StatusError: The attribute is not a sequence, or an item does not name an instance; the status is 0x0115.
    """
    items = ds.get(keyword)
    whole = items is None or isinstance(items, Sequence)
    found = []
    for item in taken_out(items) if items and whole else ():
        reason = item.get("FailureReason")
        reason = reason if isinstance(reason, int) else 0
        found.append(
            (_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"), reason)
        )
    if not whole or not all(sop_class and instance for sop_class, instance, _ in found):
        raise StatusError(statuses.INVALID_ARGUMENT_VALUE, f"{keyword} is incomplete")
    return found


def _uid(ds: Dataset, keyword: str) -> str:
    """The single value of an attribute; empty when there is no value or more than one."""
    value = ds.get(keyword)
    return str(value) if isinstance(value, str) else ""


class StorageCommitment(MessageDispatcherSCP):
    """Storage commitment, as SCP of requests and as receiver of reports.

    A request is answered with Success, and the report follows: on the same association when the
    requestor still holds it after :attr:`same_association` seconds, otherwise on a new one. A report that
    :func:`request_commitment` waits for goes there; every other one goes to ``on_report``.

    Args:
        on_request: Decides on a request; see :meth:`on_request`.
        on_report: Handles a report; see :meth:`on_report`.
    """

    sop_classes: ClassVar[tuple[str, ...]] = (STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS,)

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    RESOURCE_LIMITATION = 0x0213
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    CLASS_OR_INSTANCE_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION_UID = 0x0131

    #: How many seconds after the response to the request the report is sent. A requestor that wants the report on
    #: another association has released this one by then.
    same_association = 1.0

    def __init__(
        self,
        *,
        on_request: Callable[[RequestContext, str, list[_Reference]], Any] | None = None,
        on_report: Callable[[RequestContext, CommitmentResult], Any] | None = None,
    ) -> None:
        self._use(on_request=on_request, on_report=on_report)

    # -- handlers ----------------------------------------------------------------------------------

    def on_request(
        self, context: RequestContext, transaction_uid: str, uids: list[_Reference]
    ) -> _Decision | Awaitable[_Decision]:
        """Decide on a request for the safekeeping of instances.

        Args:
            context: The presentation context, the association and the request.
            transaction_uid: The transaction UID of the request.
            uids: (SOP class, SOP instance) of each instance.

        Returns:
            What :meth:`AE.on_commitment_request` returns; by default that hook is asked.

        Raises:
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        hooks = ae_of(context.association)
        decision: _Decision | Awaitable[_Decision] = hooks.on_commitment_request(
            context.association.calling_ae_title, uids
        )
        return decision

    def on_report(self, context: RequestContext, result: CommitmentResult) -> Any:
        """Handle a report that no caller waits for.

        Args:
            context: The presentation context, the association and the request.
            result: What the peer keeps and what it does not.

        Returns:
            Any value, or a Deferred or coroutine, after which the report is answered. By default
            :meth:`AE.on_commitment_response` is called.

        Raises:
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        hooks = ae_of(context.association)
        return hooks.on_commitment_response(result.transaction_uid, result.committed, result.failed)

    # -- N-ACTION ----------------------------------------------------------------------------------

    async def n_action(self, asce: Association, ctx: PContextDef, msg: NActionRQ) -> Response:
        """Answer N-ACTION (PS3.4 J.3.2)."""
        if msg.action_type_id != 1:
            raise StatusError(
                statuses.NO_SUCH_ACTION_TYPE, f"action type {msg.action_type_id}; expected 1"
            )
        if msg.requested_sop_instance_uid != STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE:
            raise StatusError(
                statuses.NO_SUCH_SOP_INSTANCE, "not the well-known instance of the push model"
            )
        transaction_uid, uids = await settled(aside(asce, msg, lambda: _asked(ctx, msg)))
        context = RequestContext.of(asce, ctx, msg)
        remote, success, failure = await settled(self.on_request(context, transaction_uid, uids))
        report = Report(transaction_uid, tuple(success or ()), tuple(failure or ()))
        self.owe(asce, ctx, remote, report)
        return msg.response(statuses.SUCCESS, action_type_id=1)

    def owe(
        self, asce: Association, ctx: PContextDef, remote: RemoteAE | None, report: Report
    ) -> None:
        """Send a report when it is due. Override this method if reports must survive a restart."""
        defer.Deferred.fromCoroutine(self._report(asce, ctx, remote, report)).addErrback(
            lambda failure: _log.failure("a commitment report failed", failure)
        )

    async def _report(
        self, asce: Association, ctx: PContextDef, remote: RemoteAE | None, report: Report
    ) -> None:
        try:
            status = await self.deliver(asce, ctx, remote, report)
        except NetDICOMError as error:
            _log.error(
                "the commitment report {uid} for {peer} is lost: {error}",
                uid=report.transaction_uid,
                peer=asce.peer_title,
                error=error,
            )
        else:
            if status.is_failure:
                _log.warn(
                    "{peer} answered the commitment report {uid} with {status}",
                    peer=asce.peer_title,
                    uid=report.transaction_uid,
                    status=status,
                )

    async def deliver(
        self, asce: Association, ctx: PContextDef, remote: RemoteAE | None, report: Report
    ) -> Status:
        """Send a report on the association of its request if that is still open, otherwise on a new one.

        Raises:
            NetDICOMError: The report has not reached the peer.
        """
        await asce.pause_for(self.same_association)
        if asce.is_open and ctx.as_scp:
            try:
                return await send_report(asce, ctx, report)
            except NetDICOMError:
                if remote is None:
                    raise
        if remote is None:
            raise DCMTimeoutError("same association", self.same_association)
        return await report_to(ae_of(asce), remote, report)

    # -- N-EVENT-REPORT ----------------------------------------------------------------------------

    async def n_event_report(
        self, asce: Association, ctx: PContextDef, msg: NEventReportRQ
    ) -> Response:
        """Answer N-EVENT-REPORT (PS3.4 J.3.3)."""
        if msg.event_type_id not in (1, 2):
            raise StatusError(
                statuses.NO_SUCH_EVENT_TYPE, f"event type {msg.event_type_id}; expected 1 or 2"
            )
        ds = await settled(aside(asce, msg, lambda: _information(ctx, msg)))
        transaction_uid = _uid(ds, "TransactionUID")
        if not transaction_uid:
            raise StatusError(
                statuses.INVALID_ARGUMENT_VALUE, "Transaction UID (0008,1195) is missing"
            )
        success = tuple(each[:2] for each in _references(ds, "ReferencedSOPSequence"))
        failure = tuple(_references(ds, "FailedSOPSequence"))
        result = CommitmentResult(transaction_uid, success, failure)
        waiting = self._waiting.pop(transaction_uid, None)
        if waiting is None:
            await settled(self.on_report(RequestContext.of(asce, ctx, msg), result))
        else:
            # Fire in the next turn: the caller that waits may release the association, and the report must be
            # answered before that.
            asce.clock.callLater(0, _fire, waiting, result)
        return msg.response(statuses.SUCCESS, event_type_id=msg.event_type_id)

    # -- reports that are waited for ---------------------------------------------------------------

    @cached_property
    def _waiting(self) -> dict[str, defer.Deferred[CommitmentResult]]:
        """The Deferreds of callers that wait for a report, by transaction UID."""
        return {}

    def await_report(self, transaction_uid: str) -> defer.Deferred[CommitmentResult]:
        """Wait for the report of a transaction, which may come on any association.

        Cancelling the Deferred forgets the wait; a report that comes then goes to :meth:`on_report`.
        """
        waiting: defer.Deferred[CommitmentResult] = defer.Deferred(
            lambda _: self.forget_report(transaction_uid)
        )
        self._waiting[transaction_uid] = waiting
        return waiting

    def forget_report(self, transaction_uid: str) -> None:
        """Stop waiting for the report of a transaction."""
        self._waiting.pop(transaction_uid, None)


def _fire(waiting: defer.Deferred[CommitmentResult], result: CommitmentResult) -> None:
    if not waiting.called:
        waiting.callback(result)


def _asked(ctx: PContextDef, msg: Request) -> tuple[str, list[tuple[str, str]]]:
    """The Transaction UID of a request, and the instances that it names.

    Raises:
        StatusError: One of them is missing, or cannot be read.
    """
    ds = _information(ctx, msg)
    transaction_uid = _uid(ds, "TransactionUID")
    if not transaction_uid:
        raise StatusError(statuses.MISSING_ATTRIBUTE, "Transaction UID (0008,1195) is missing")
    uids = [each[:2] for each in _references(ds, "ReferencedSOPSequence")]
    if not uids:
        raise StatusError(
            statuses.INVALID_ARGUMENT_VALUE, "Referenced SOP Sequence (0008,1199) is empty"
        )
    return transaction_uid, uids


def _information(ctx: PContextDef, msg: Request) -> Dataset:
    ds = data_set_of(ctx, msg)
    if ds is None:
        raise StatusError(statuses.INVALID_ARGUMENT_VALUE, "the request has no data set")
    return ds


async def send_report(asce: Association, ctx: PContextDef, report: Report) -> Status:
    """Send an N-EVENT-REPORT on an association on which this side is SCP."""

    def encoded() -> bytes:
        ds = report.information()
        octets = dsutils.encode(ds, ctx.supported_ts)
        for each in ds:
            if each.VR == "SQ":
                deque(taken_out(each.value), maxlen=0)
        return octets

    # The data set of thousands of instances takes seconds to be made.
    is_large = len(report.success) + len(report.failure) > _AT_ONCE
    data_set = await settled(in_thread(asce, encoded) if is_large else encoded())
    request = NEventReportRQ(
        affected_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS,
        affected_sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE,
        event_type_id=report.event_type,
        data_set=data_set,
    )
    return status_of(await asce.request(request, ctx))


async def report_to(ae: AE, remote: RemoteAE, report: Report) -> Status:
    """Send an N-EVENT-REPORT on an association of our own, as SCP by role selection (PS3.4 J.3.3).

    Raises:
        NetDICOMError: The association cannot be opened, or ends.
    """
    uid = STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS
    asce = await ae.request_association(
        remote,
        {uid: DEFAULT_TRANSFER_SYNTAXES},
        roles=[RoleSelection(uid, scu_role=False, scp_role=True)],
    )
    async with asce:
        return await send_report(asce, asce.context_as_scp(uid), report)


@sop_classes([STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS])
def storage_commitment_scu(
    asce: Association,
    ctx: PContextDef,
    transaction_uid: str,
    uids: Iterable[_Reference],
    msg_id: int | None = None,
) -> defer.Deferred[Status]:
    """Ask for the safekeeping of instances; the report comes to ``AE.on_commitment_response``.

    Args:
        asce: The association to ask on.
        ctx: The context of the SOP class.
        transaction_uid: The transaction UID, which must be new for each request.
        uids: (SOP class, SOP instance) of each instance.
        msg_id: The message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status of the request itself; fails and cancels as :meth:`Association.request` says.

    Raises:
        TypeError, ValueError, LocalProtocolError: An argument is wrong.
    """
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = Sequence(
        [_reference(*each) for each in several("uids", uids, "pairs of SOP class and SOP instance")]
    )
    request = NActionRQ(
        requested_sop_class_uid=ctx.sop_class,
        requested_sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE,
        action_type_id=1,
        message_id=msg_id,
        data_set=dsutils.encode(ds, ctx.supported_ts),
    )
    return asce.request(request, ctx).addCallback(status_of)


async def request_commitment(
    asce: Association,
    uids: Iterable[_Reference],
    *,
    transaction_uid: str | None = None,
    timeout: float = 300.0,
    scu: Callable[..., Any] | None = None,
) -> CommitmentResult:
    """Ask for the safekeeping of instances, and wait for the report, which may come on any association.

    The AE must have :class:`StorageCommitment` as SCP, and must listen where the peer reports on an association
    of its own. Cancelling the wait forgets the report; the request itself is not taken back.

    Args:
        asce: The association to ask on.
        uids: (SOP class, SOP instance) of each instance.
        transaction_uid: The transaction UID; None makes a new one.
        timeout: How many seconds to wait for the report.
        scu: A callable that sends the request; None means the one that :meth:`Association.get_scu` returns.

    Raises:
        LocalProtocolError: The AE has no :class:`StorageCommitment` that could receive the report.
        StatusError: The peer refused the request.
        DCMTimeoutError: The report has not come within ``timeout``.
        NetDICOMError: The association ended before the request was answered.
    """
    check_seconds("timeout", timeout)
    registration = asce.scp_for(STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS)
    service = None if registration is None else registration.service
    if not isinstance(service, StorageCommitment):
        raise LocalProtocolError(
            "request_commitment waits for a report, and this AE has no service that receives one: "
            "add_scp(StorageCommitment())"
        )
    uid = transaction_uid or str(generate_uid())
    waiting = service.await_report(uid)
    try:
        ask = scu or asce.get_scu(STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS)
        status = await ask(uid, list(uids))
        if status.is_failure:
            raise StatusError(int(status), status.comment or str(status).rpartition(" (")[0])
        waiting.addTimeout(
            timeout, asce.clock, lambda *_: defer.fail(DCMTimeoutError("commitment", timeout))
        )
        return await waiting
    finally:
        service.forget_report(uid)
