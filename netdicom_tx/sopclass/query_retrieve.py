"""Query/Retrieve service class (PS3.4 Annex C): C-FIND, C-MOVE and C-GET.

The SCUs return a :class:`~netdicom_tx.asceprovider.ResponseStream`; its last item carries the final
status:

=====================  ======================================================================
:func:`qr_find_scu`    (data set, status) for each match, then (None, status)
:func:`qr_move_scu`    (status, response) for each response, the final one included
:func:`qr_get_scu`     (context, instance) for each instance received, then (None, status)
=====================  ======================================================================

The SCPs ask a handler which data sets or instances match, and do the rest: sub-operations
(:mod:`netdicom_tx.sopclass.retrieving`), counters, the list of failures, C-CANCEL and statuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar, Final

from pydicom.dataset import Dataset

from .. import dsutils, statuses
from ..applicationentity import AE
from ..arguments import check_type
from ..asceprovider import Association, ResponseStream
from ..dimsemessages import (
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    Request,
    Response,
)
from ..exceptions import LocalProtocolError, StatusError
from ..hooks import RequestContext
from ..negotiation import PContextDef
from ..pdu import check_ae_title
from ..requests import status_of
from ..statuses import Status
from ..uids import FIND_SOP_CLASSES, GET_SOP_CLASSES, MOVE_SOP_CLASSES, STORAGE_SOP_CLASSES
from ..userdataitems import SOPClassExtendedNegotiation
from .base import MessageDispatcherSCP, ae_of, aside, settled, sop_classes, suboperations
from .retrieving import Responses, got, moved
from .sending import Stop
from .storage import Arrival, Instance, Storage

__all__ = [
    "GetStream",
    "MoveStream",
    "QueryRetrieveFind",
    "QueryRetrieveGet",
    "QueryRetrieveMove",
    "qr_find_scp",
    "qr_find_scu",
    "qr_get_scp",
    "qr_get_scu",
    "qr_move_scp",
    "qr_move_scu",
]

#: The type of a handler that answers extended negotiation; see :class:`QueryRetrieveFind`.
Extended = Callable[[Association, SOPClassExtendedNegotiation], bytes | None]

#: How many elements and how many items an identifier may have.
PARTS_LIMIT: Final = 4_096
# How many instances of a C-GET may wait for their reader, each with an open file.
_UNREAD_INSTANCES = 8


def _encoded(ctx: PContextDef, ds: Dataset) -> bytes:
    return dsutils.encode(ds, ctx.supported_ts)


async def _identifier(asce: Association, ctx: PContextDef, msg: Request) -> Dataset:
    """The identifier of a request.

    Raises:
        StatusError: The request has no identifier (0xA900), or it cannot be read (0xC000).
    """
    data = msg.data_set
    if data is None:
        raise StatusError(0xA900, "the request has no identifier")

    def read() -> Dataset:
        if isinstance(data, bytes):
            dsutils.check_parts(data, ctx.supported_ts, PARTS_LIMIT)
        return dsutils.decode(data, ctx.supported_ts)

    try:
        return await settled(aside(asce, msg, read))
    except dsutils.DataSetError as error:
        raise StatusError(0xC000, str(error)) from error


def _parts(answer: Any, expected: str) -> Any:
    """The parts of the result of a handler.

    Raises:
        LocalProtocolError: The result does not have the expected parts.
    """
    count = len(expected.split(", "))
    is_whole = isinstance(answer, tuple | list) and len(answer) == count
    if not is_whole or not isinstance(answer[-2], int):
        raise LocalProtocolError(
            f"a handler returned {type(answer).__name__}; expected ({expected})"
        )
    return answer


# -- C-FIND -----------------------------------------------------------------------------------------


@sop_classes(FIND_SOP_CLASSES)
def qr_find_scu(
    asce: Association,
    ctx: PContextDef,
    ds: Dataset,
    msg_id: int | None = None,
    *,
    timeout: float | None = None,
) -> ResponseStream[tuple[Dataset | None, Status]]:
    """Ask for the data sets that match an identifier.

    Args:
        asce: The association to ask on.
        ctx: The context of the information model.
        ds: The identifier: what to match, and which attributes to return.
        msg_id: The message ID, 0 to 65535; None lets the association count.
        timeout: Seconds to each response; None means ``timeouts.response``.

    Returns:
        A stream of (data set, status), and at the end (None, final status).

    Raises:
        DataSetError: The identifier cannot be encoded.
    """

    def convert(response: Response) -> tuple[Dataset | None, Status]:
        found = None
        if response.data_set is not None:
            found = dsutils.decode(response.data_set, ctx.supported_ts)
        return found, status_of(response)

    request = CFindRQ(
        affected_sop_class_uid=ctx.sop_class, message_id=msg_id, data_set=_encoded(ctx, ds)
    )
    return asce.request_many(request, ctx, convert, timeout=timeout)


class QueryRetrieveFind(MessageDispatcherSCP):
    """Query, as SCP.

    Args:
        on_find: Returns the matches, as :meth:`AE.on_receive_find` does; by default that hook is asked.
        on_extended: Answers extended negotiation of its SOP classes (PS3.4 C.5): called with the association and
            the proposed :class:`~netdicom_tx.userdataitems.SOPClassExtendedNegotiation`, it returns the
            application information of the answer, or None for no answer.
    """

    sop_classes: ClassVar[tuple[str, ...]] = FIND_SOP_CLASSES
    operations: ClassVar[tuple[str, ...]] = ("C-FIND",)

    def __init__(
        self,
        *,
        on_find: Callable[[RequestContext, Dataset], Any] | None = None,
        on_extended: Extended | None = None,
    ) -> None:
        self._use(on_find=on_find, on_extended=on_extended)

    async def c_find(self, asce: Association, ctx: PContextDef, msg: Request) -> Any:
        """Answer C-FIND (PS3.4 C.4.1)."""
        identifier = await _identifier(asce, ctx, msg)
        return await settled(self.on_find(RequestContext.of(asce, ctx, msg), identifier))

    def on_find(self, context: RequestContext, ds: Dataset) -> Any:
        """Find the matches; see :meth:`AE.on_receive_find`."""
        ae = ae_of(context.association)
        if hasattr(ae, "find_for"):
            return ae.find_for(context.association, context, ds)
        return ae.on_receive_find(context, ds)


#: Answers C-FIND with the matches that ``AE.on_receive_find`` yields, then Success.
qr_find_scp = QueryRetrieveFind()


# -- C-MOVE -----------------------------------------------------------------------------------------


class MoveStream(ResponseStream[tuple[Status, Response]]):
    """The responses to a C-MOVE.

    Attributes:
        arrivals: The instances that have arrived for this C-MOVE, when the destination is an AE of ours.
    """

    __slots__ = ("arrivals",)

    arrivals: list[Arrival]


@sop_classes(MOVE_SOP_CLASSES)
def qr_move_scu(
    asce: Association,
    ctx: PContextDef,
    ds: Dataset,
    dest_ae: str | AE,
    msg_id: int | None = None,
    *,
    timeout: float | None = None,
) -> MoveStream:
    """Have the instances that match an identifier sent to a destination.

    Args:
        asce: The association to ask on.
        ctx: The context of the information model.
        ds: The identifier, with unique keys or lists of UIDs.
        dest_ae: The AE title of the destination, which the peer must know; or an AE of this program that listens. In
            that case ``arrivals`` of the stream has the instances that have arrived.
        msg_id: The message ID, 0 to 65535; None lets the association count.
        timeout: Seconds to each response; None means ``timeouts.response``.

    Returns:
        A stream of (status, response), with the final response last. The responses have the counters.
    """
    check_type("dest_ae", dest_ae, (str, AE), "an AE title, or an AE of ours")
    title = check_ae_title(dest_ae) if isinstance(dest_ae, str) else dest_ae.ae_title
    request = CMoveRQ(
        affected_sop_class_uid=ctx.sop_class,
        move_destination=title,
        message_id=asce.next_message_id() if msg_id is None else msg_id,
        data_set=_encoded(ctx, ds),
    )
    # Watch before the request is sent, because the first instance may arrive before this function returns.
    key = (asce.calling_ae_title, request.message_id or 0)
    arrivals: list[Arrival] = []
    watching = [] if isinstance(dest_ae, str) else [(each, dest_ae) for each in _storages(dest_ae)]
    for service, ae in watching:
        service.watch_arrivals(ae, *key, arrivals)

    def forget() -> None:
        for service, ae in watching:
            service.forget_arrivals(ae, *key)

    try:
        stream = asce.request_many(
            request,
            ctx,
            lambda response: (status_of(response), response),
            timeout=timeout,
            kind=MoveStream,
        )
    except Exception:  # an argument is wrong
        forget()
        raise
    stream.arrivals = arrivals
    if watching:
        stream.when_over(forget)
    return stream


def _storages(ae: AE) -> set[Storage]:
    """The storage services of an AE."""
    return {entry.service for _, entry in ae.supported_scp if isinstance(entry.service, Storage)}


class QueryRetrieveMove(MessageDispatcherSCP):
    """C-MOVE, as SCP: instances are sent to the destination that a handler returns (PS3.4 C.4.2.3).

    The contexts of the associations to the destination are planned from the instances. When the destination does not
    accept the transfer syntax of an instance, ``AE.transcode(asce, instance)`` is asked for another form, if the AE has
    that method; ``asce`` is the association to the destination. A Pending response goes out
    for each instance, and more in between when one takes long. An unknown
    destination is answered with 0xA801. The final status is Success, 0xB000 when some sub-operations failed, or
    0xA702 when all did; the response lists the UIDs that failed.

    Args:
        on_move: Returns the address of the destination, how many instances there are, and the instances, as
            :meth:`AE.on_receive_move` does; by default that hook is asked.
        on_extended: As for :class:`QueryRetrieveFind`.
    """

    sop_classes: ClassVar[tuple[str, ...]] = MOVE_SOP_CLASSES
    operations: ClassVar[tuple[str, ...]] = ("C-MOVE",)

    def __init__(
        self,
        *,
        on_move: Callable[[RequestContext, Dataset, str], Any] | None = None,
        on_extended: Extended | None = None,
    ) -> None:
        self._use(on_move=on_move, on_extended=on_extended)

    async def c_move(
        self, asce: Association, ctx: PContextDef, msg: CMoveRQ
    ) -> AsyncIterator[Response] | int:
        """Answer C-MOVE."""
        context = RequestContext.of(asce, ctx, msg)
        asked = self.on_move(context, await _identifier(asce, ctx, msg), msg.move_destination)
        remote, number, instances = _parts(await settled(asked), "remote AE, number, instances")
        if remote is None:
            return Status(
                statuses.C_MOVE_DESTINATION_UNKNOWN,
                "C-MOVE",
                f"move destination {msg.move_destination} is not known here",
            )
        stop = Stop()
        return Responses(context, number, moved(context, remote, instances, stop), stop)

    def on_move(self, context: RequestContext, ds: Dataset, destination: str) -> Any:
        """Find the destination and the instances; see :meth:`AE.on_receive_move`."""
        ae = ae_of(context.association)
        if hasattr(ae, "move_for"):
            return ae.move_for(context.association, context, ds, destination)
        return ae.on_receive_move(context, ds, destination)


#: Sends the instances that ``AE.on_receive_move`` returns to the destination that it returns.
qr_move_scp = QueryRetrieveMove()


# -- C-GET ------------------------------------------------------------------------------------------


class GetStream(ResponseStream[tuple[PContextDef | None, Any]]):
    """The instances of a C-GET as (context, instance), and at the end (None, final status).

    An instance is an open Part 10 file at its beginning, or a :class:`pydicom.Dataset` when the storage
    service of the AE does not receive into files. A file is closed when the next item is asked for, and when an
    ``async with`` block of the stream ends. After a plain ``break`` the file is its reader's, who closes it.

    Attributes:
        progress: The last response, which has the counters.
    """

    __slots__ = ("_current", "progress")

    takes_instances: ClassVar[bool] = True
    can_spill: ClassVar[bool] = False  # its items are open files

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.progress: Response | None = None
        self._current: Any = None  # the file that the reader has now

    def respond(self, response: Response) -> None:
        self.progress = response
        if not status_of(response).is_pending:
            super().respond(response)

    def take_instance(self, ctx: PContextDef, message: Request) -> bool:
        if self._one.is_forgotten:
            return False
        source = message.data_set
        if isinstance(source, bytes):
            self._put((ctx, dsutils.decode(source, ctx.supported_ts)))
            return True
        if source is None:
            return False
        source.seek(0)
        self._put((ctx, source))
        return True

    async def __anext__(self) -> tuple[PContextDef | None, Any]:
        self._close_current()
        ctx, instance = await super().__anext__()
        self._current = instance
        return ctx, instance

    def _close_current(self) -> None:
        current, self._current = self._current, None
        close = getattr(current, "close", None)
        if close is not None:
            close()

    @staticmethod
    def _drop(item: Any) -> None:
        if isinstance(item, tuple):
            close = getattr(item[1], "close", None)
            if close is not None:
                close()

    def _drop_all(self) -> None:
        self._close_current()
        super()._drop_all()


def _get_item(item: Any) -> tuple[PContextDef | None, Any]:
    return (None, status_of(item)) if isinstance(item, Response) else item


@suboperations(STORAGE_SOP_CLASSES)
@sop_classes(GET_SOP_CLASSES)
def qr_get_scu(
    asce: Association,
    ctx: PContextDef,
    ds: Dataset,
    msg_id: int | None = None,
    *,
    timeout: float | None = None,
) -> GetStream:
    """Retrieve the instances that match an identifier on this association.

    Each instance goes to the storage service of our AE (``add_scp(storage_scp)``), and so to
    ``on_receive_store`` with its own context, like any C-STORE; the status of that service is the answer. A reader
    of the stream has the instance afterwards. The storage classes must have been proposed with the SCP role, as
    :meth:`AE.request_association` does for those that the AE serves.

    Args:
        asce: The association to ask on.
        ctx: The context of the information model.
        ds: The identifier, with unique keys or lists of UIDs.
        msg_id: The message ID, 0 to 65535; None lets the association count.
        timeout: Seconds to each response or instance; None means ``timeouts.response``.
    """
    request = CGetRQ(
        affected_sop_class_uid=ctx.sop_class, message_id=msg_id, data_set=_encoded(ctx, ds)
    )
    return asce.request_many(
        request,
        ctx,
        _get_item,
        timeout=timeout,
        kind=GetStream,
        high_water=_UNREAD_INSTANCES,
    )


class QueryRetrieveGet(MessageDispatcherSCP):
    """C-GET, as SCP: instances are sent on the association of the request (PS3.4 C.4.3.3).

    An instance goes out in its own transfer syntax, on a context in which the requestor is SCP. When
    no such context was accepted, a handler may return another form of it. An instance that cannot be sent is
    counted as failed and listed. The final status is Success, 0xB000 or 0xA702, as for C-MOVE.

    Args:
        on_get: Returns how many instances there are, and the instances, as :meth:`AE.on_receive_get` does;
            by default that hook is asked.
        on_transcode: Returns another form of an instance; see :meth:`on_transcode`.
        on_extended: As for :class:`QueryRetrieveFind`.
    """

    sop_classes: ClassVar[tuple[str, ...]] = GET_SOP_CLASSES
    operations: ClassVar[tuple[str, ...]] = ("C-GET",)
    suboperations: ClassVar[tuple[str, ...]] = STORAGE_SOP_CLASSES

    def __init__(
        self,
        *,
        on_get: Callable[[RequestContext, Dataset], Any] | None = None,
        on_transcode: Callable[[RequestContext, Instance], Any] | None = None,
        on_extended: Extended | None = None,
    ) -> None:
        self._use(on_get=on_get, on_transcode=on_transcode, on_extended=on_extended)

    async def c_get(
        self, asce: Association, ctx: PContextDef, msg: CGetRQ
    ) -> AsyncIterator[Response]:
        """Answer C-GET."""
        context = RequestContext.of(asce, ctx, msg)
        asked = self.on_get(context, await _identifier(asce, ctx, msg))
        number, instances = _parts(await settled(asked), "number, instances")
        stop = Stop()
        return Responses(context, number, got(context, instances, self.on_transcode, stop), stop)

    def on_get(self, context: RequestContext, ds: Dataset) -> Any:
        """Find the instances; see :meth:`AE.on_receive_get`."""
        ae = ae_of(context.association)
        if hasattr(ae, "get_for"):
            return ae.get_for(context.association, context, ds)
        return ae.on_receive_get(context, ds)

    def on_transcode(self, context: RequestContext, instance: Instance) -> Any:
        """Return another form of an instance whose transfer syntax the requestor does not accept.

        Args:
            context: The presentation context, the association and the request; the ``accepted_contexts`` of the
                association say what the requestor accepts.
            instance: The instance.

        Returns:
            An :class:`~netdicom_tx.sopclass.Instance`, or None when there is no other form; or a Deferred or
            coroutine of it. By default ``AE.transcode(asce, instance)`` is asked, if the AE has that method.
        """
        ae = ae_of(context.association)
        if hasattr(ae, "transcode"):
            return ae.transcode(context.association, instance)
        return None


#: Sends the instances that ``AE.on_receive_get`` returns, on the association of the request.
qr_get_scp = QueryRetrieveGet()
