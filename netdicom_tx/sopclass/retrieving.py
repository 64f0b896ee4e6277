"""The C-STORE sub-operations of C-MOVE and C-GET (PS3.4 C.4.2.3, C.4.3.3): performed, counted and told.

:func:`moved` and :func:`got` perform them, :func:`told` makes responses of their results. They begin with the first
instance that a hook gives, and the hook is asked for more as they proceed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import aclosing
from os import PathLike
from typing import Any

from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import dsutils, statuses
from ..applicationentity import RemoteAE
from ..dimsemessages import Request, Response
from ..exceptions import ClassNotSupportedError, LocalProtocolError, NetDICOMError
from ..hooks import RequestContext
from .base import settled
from .readahead import ReadAhead
from .sending import StoreResult, store_all
from .storage import Instance, MoveOriginator, store_instance

__all__ = ["KEEP_ALIVE", "Counters", "got", "moved", "told"]

_log = Logger()

#: Seconds between Pending responses while a sub-operation takes its time, so that no SCU's timer runs out.
KEEP_ALIVE = 10.0

_Results = AsyncGenerator[StoreResult, None]


# -- performed --------------------------------------------------------------------------------------


async def moved(context: RequestContext, remote: RemoteAE, instances: Any) -> _Results:
    """Send instances to the destination of a C-MOVE, on associations of our own."""
    asce = context.association
    # A list is planned as a whole; what comes bit by bit begins at once.
    sources = instances if isinstance(instances, list | tuple) else _settled_each(instances)
    results = store_all(
        asce.ae,
        remote,
        sources,
        associations=asce.ae.move_associations,
        originator=MoveOriginator(asce.calling_ae_title, context.request.message_id or 0),
    )
    async with aclosing(results):
        async for result in results:
            if result.error is not None:
                _log.warn(
                    "C-MOVE for {peer} to {destination}: {error}",
                    peer=asce.peer_title,
                    destination=remote.ae_title,
                    error=result.error,
                )
            yield result


async def got(
    context: RequestContext, instances: Any, transcode: Callable[[RequestContext, Instance], Any]
) -> _Results:
    """Send instances to the requestor of a C-GET, on its association.

    Args:
        context: The request.
        instances: What the hook gave.
        transcode: Gives another form of an instance that the requestor does not take.
    """

    async def begun() -> AsyncGenerator[defer.Deferred[StoreResult], None]:
        async with aclosing(_each(instances)) as sources:
            async for source in sources:
                yield defer.Deferred.fromCoroutine(_send(context, source, transcode))

    # Twice the window, with the one that is awaited: the next instance is ready when an answer comes.
    asce = context.association
    sending = ReadAhead(begun(), 2 * max(1, asce.window.invoked) - 1, asce.clock)
    try:
        while first := await sending.take(1):
            yield await first[0]
    finally:
        for each in await sending.close():
            each.addErrback(lambda _: None)
            each.cancel()


async def _send(
    context: RequestContext, source: Any, transcode: Callable[[RequestContext, Instance], Any]
) -> StoreResult:
    asce = context.association
    instance: Instance | None = None
    try:
        source = await settled(source)
        instance = source if isinstance(source, Instance) else Instance.of(source)
        try:
            status = await store_instance(asce, instance)
        except ClassNotSupportedError as refused:
            other = await settled(transcode(context, instance))
            if other is None:
                raise refused
            status = await store_instance(asce, other)
    except (OSError, NetDICOMError) as error:
        _log.warn("C-GET for {peer}: {error}", peer=asce.peer_title, error=error)
        return StoreResult(source, instance, None, error)
    return StoreResult(source, instance, status, None)


async def _settled_each(instances: Any) -> AsyncGenerator[Any, None]:
    async with aclosing(_each(instances)) as sources:
        async for source in sources:
            yield await settled(source)


async def _each(instances: Any) -> AsyncGenerator[Any, None]:
    """The instances that a hook gave, by an iterable or an asynchronous one, which is closed at the end.

    Raises:
        LocalProtocolError: They are something else.
    """
    if isinstance(instances, AsyncIterable):
        iterator = aiter(instances)
        try:
            async for each in iterator:
                yield each
        finally:
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()
        return
    is_one = isinstance(instances, Dataset | Mapping | str | bytes | PathLike)
    if is_one or hasattr(instances, "read") or not isinstance(instances, Iterable):
        raise LocalProtocolError(
            f"a handler gave {type(instances).__name__} for the instances; expected an iterable of them"
        )
    items = iter(instances)
    try:
        for each in items:
            yield each
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


# -- counted and told -------------------------------------------------------------------------------


class Counters:
    """The counters of sub-operations, and the responses that carry them (PS3.4 C.4.2.1.6).

    Args:
        context: The request.
        number: How many instances the hook has announced.
    """

    def __init__(self, context: RequestContext, number: int) -> None:
        self._context = context
        self._number = number
        self.completed = self.failed = self.warning = 0
        self._failures: list[str] = []

    @property
    def _request(self) -> Request:
        return self._context.request

    @property
    def remaining(self) -> int:
        return max(0, self._number - self.completed - self.failed - self.warning)

    def add(self, result: StoreResult) -> None:
        """Count a sub-operation."""
        if result.status is None or result.status.is_failure:
            self.failed += 1
            if result.instance is not None:
                self._failures.append(result.instance.sop_instance_uid)
        elif result.status.is_warning:
            self.warning += 1
        else:
            self.completed += 1

    def _elements(self) -> dict[str, Any]:
        # US: more than 65535 cannot be said.
        return {
            "number_of_completed_suboperations": min(self.completed, 0xFFFF),
            "number_of_failed_suboperations": min(self.failed, 0xFFFF),
            "number_of_warning_suboperations": min(self.warning, 0xFFFF),
        }

    def pending(self) -> Response:
        """The Pending response."""
        return self._request.response(
            statuses.PENDING,
            number_of_remaining_suboperations=min(self.remaining, 0xFFFF),
            **self._elements(),
        )

    def final(self) -> Response:
        """The last response: Success; 0xB000 when some failed or were warned about; 0xA702 when all failed."""
        status = 0x0000
        if self.failed and not self.completed and not self.warning:
            status = 0xA702
        elif self.failed or self.warning:
            status = 0xB000
        data_set = None
        if self._failures:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = self._failures
            data_set = dsutils.encode(identifier, self._context.supported_ts)
        return self._request.response(status, data_set, **self._elements())


async def told(
    context: RequestContext, number: int, results: _Results
) -> AsyncGenerator[Response, None]:
    """The responses to a retrieve: one for each result, one now and then meanwhile, and the final one."""
    count = Counters(context, number)
    clock = context.association.clock
    async with aclosing(results):
        while True:
            # A Failure by its type: that is what the list below makes of an error.
            upcoming: defer.Deferred[StoreResult | Failure | None] = defer.Deferred.fromCoroutine(
                _next(results)
            )
            # Fires in either case, and does not fail.
            arrival = defer.DeferredList([upcoming], consumeErrors=True)
            try:
                while not arrival.called:
                    tick: defer.Deferred[None] = deferLater(clock, KEEP_ALIVE)
                    either: list[defer.Deferred[Any]] = [arrival, tick]
                    await defer.DeferredList(either, fireOnOneCallback=True, consumeErrors=True)
                    tick.cancel()
                    if not arrival.called:
                        yield count.pending()
                ((_, result),) = await arrival
            finally:
                if not arrival.called:
                    # The generator of the results must have come to rest before it can be closed.
                    upcoming.cancel()
                    await arrival
            if isinstance(result, Failure):
                result.raiseException()
            if result is None:
                break
            count.add(result)
            if count.remaining:
                yield count.pending()
    yield count.final()


async def _next(results: _Results) -> StoreResult | Failure | None:
    # Not anext(results, None), which resumes at the wrong place when it has waited (Python 3.11).
    try:
        return await anext(results)
    except StopAsyncIteration:
        return None
