"""The C-STORE sub-operations of C-MOVE and C-GET, and the responses about them (PS3.4 C.4.2.3, C.4.3.3).

:func:`moved` and :func:`got` perform the sub-operations, and :class:`Responses` makes responses of their results. They
begin with the first instance that a hook gives, and the hook is asked for more as they proceed.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from inspect import isawaitable
from os import PathLike
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from .. import dsutils, statuses
from ..applicationentity import RemoteAE
from ..dimsemessages import Request, Response
from ..exceptions import ClassNotSupportedError, LocalProtocolError, NetDICOMError
from ..hooks import RequestContext
from ..logs import Logger
from ..refusals import Refusal
from ..statuses import Status
from ..uids import name
from .base import ae_of, settled
from .readahead import ReadAhead
from .sending import Stop, StoreResult, Transcode, Unavailable, store_all
from .storage import Instance, MoveOriginator, store_instance

__all__ = ["KEEP_ALIVE", "Counters", "Responses", "got", "moved"]

_log = Logger()

#: How many seconds may pass between Pending responses while a sub-operation runs, so that no SCU's timer runs out.
KEEP_ALIVE = 10.0
# A Pending response follows a sub-operation when this part of all has been performed since the last one, or when so
# many seconds have passed: a study of two thousand images makes a hundred of them.
_PART, _SECONDS = 100, 1.0

# How many instances of a retrieve that fail have a line of their own.
_TOLD = 5

_Results = AsyncGenerator[StoreResult, None]


# -- performed --------------------------------------------------------------------------------------


async def moved(context: RequestContext, remote: RemoteAE, instances: Any, stop: Stop) -> _Results:
    """Send instances to the destination of a C-MOVE, on associations that this side opens.

    Args:
        context: The context of the request.
        remote: The destination.
        instances: The instances that the hook returned.
        stop: Ends the sending; what has been sent is still answered.
    """
    asce = context.association
    ae = ae_of(asce)
    transcode: Transcode | None = getattr(ae, "transcode", None)
    # The contexts for a list are planned together. Instances that come one by one are sent at once.
    is_whole = isinstance(instances, list | tuple) and not any(map(isawaitable, instances))
    sources = instances if is_whole else _settled_each(instances)
    results = store_all(
        ae,
        remote,
        sources,
        associations=ae.move_associations,
        originator=MoveOriginator(asce.calling_ae_title, context.request.message_id or 0),
        stop=stop,
        transcode=transcode,
    )
    failures = _Failures("C-MOVE", asce.peer_title, f" to {remote.ae_title}")
    try:
        async with aclosing(results):
            async for result in results:
                if not result.is_stored:
                    failures.tell(result.instance, result.error or result.status)
                yield result
    finally:
        failures.end()


async def got(
    context: RequestContext,
    instances: Any,
    transcode: Callable[[RequestContext, Instance], Any],
    stop: Stop,
) -> _Results:
    """Send instances to the requestor of a C-GET, on its association.

    Args:
        context: The context of the request.
        instances: The instances that the hook returned.
        transcode: Returns another form of an instance whose transfer syntax the requestor does not accept.
        stop: Ends the sending; what has been sent is still answered.
    """
    getting = _Getting(context, transcode, stop)

    async def begun() -> AsyncGenerator[defer.Deferred[StoreResult | None], None]:
        async with aclosing(_each(instances)) as sources:
            async for source in sources:
                yield defer.Deferred.fromCoroutine(getting.send(source))

    # Twice the window, so that the next instance is ready when an answer comes.
    asce = context.association
    sending = ReadAhead(begun(), 2 * max(1, asce.window.invoked) - 1, asce.clock)
    stop.when_set(sending.stop)
    stop.when_set(getting.withdraw)
    try:
        while first := await sending.take(1):
            result = await first[0]
            if result is not None:
                yield result
    finally:
        for each in await sending.close():
            each.addErrback(lambda _: None)
            each.cancel()
        getting.failures.end()


class _Failures:
    """Logs the instances of one retrieve that fail: the first ones with their reasons, and how many more there are.

    A destination that does not answer lets every instance of a study fail for the same reason.
    """

    def __init__(self, operation: str, peer: str, to: str = "") -> None:
        self._about = {"operation": operation, "peer": peer, "to": to}
        self._count = 0

    def tell(self, instance: Instance | None, reason: object) -> None:
        """An instance has failed."""
        self._count += 1
        if self._count <= _TOLD:
            _log.warn(
                "{operation} for {peer}{to}: {uid} failed: {reason}",
                **self._about,
                uid=_uid(instance),
                reason=reason,
            )

    def end(self) -> None:
        """No more instances come."""
        if self._count > _TOLD:
            _log.warn(
                "{operation} for {peer}{to}: {count} more failed",
                **self._about,
                count=self._count - _TOLD,
            )


class _Getting:
    """The sub-operations of one C-GET."""

    def __init__(
        self,
        context: RequestContext,
        transcode: Callable[[RequestContext, Instance], Any],
        stop: Stop,
    ) -> None:
        self._context = context
        self._asce = context.association
        self._transcode = transcode
        self._stop = stop
        self._message_ids: set[int] = set()  # of the requests that were made
        self._preparing: set[defer.Deferred[Any]] = set()
        self.failures = _Failures("C-GET", self._asce.peer_title)

    def withdraw(self) -> None:
        """Cancel what has not been sent."""
        for each in list(self._preparing):
            each.cancel()
        for message_id in list(self._message_ids):
            self._asce.withdraw(message_id)

    async def send(self, source: Any) -> StoreResult | None:
        """Send one instance; None when it was not begun before the stop."""
        instance: Instance | None = None
        try:
            source = await self._prepared(source)
            instance = source if isinstance(source, Instance) else Instance.of(source)
            try:
                status = await self._store(instance)
            except ClassNotSupportedError as refused:
                if refused.role:
                    raise  # another form has the same fate
                other = await self._prepared(self._transcode(self._context, instance))
                if other is None:
                    raise refused
                status = await self._store(other)
        except defer.CancelledError:
            if self._stop.is_set:
                return None
            raise
        except (OSError, NetDICOMError) as error:
            self._warn(instance, error)
            return StoreResult(source, instance, None, error)
        except Exception as error:
            # Whatever an item of the hook, or its other form, raises: the other instances are sent all the same.
            _log.failure(
                "C-GET for {peer}: {uid} cannot be loaded",
                peer=self._asce.peer_title,
                uid=_uid(instance),
            )
            return StoreResult(source, instance, None, error)
        result = StoreResult(source, instance, status, None)
        if not result.is_stored:
            self._warn(instance, status)
        return result

    async def _prepared(self, what: Any) -> Any:
        if isinstance(what, Instance) or not isawaitable(what):
            return what
        preparing = defer.Deferred.fromCoroutine(settled(what))
        self._preparing.add(preparing)
        try:
            return await preparing
        finally:
            self._preparing.discard(preparing)

    async def _store(self, instance: Instance) -> Status:
        if self._stop.is_set:
            raise defer.CancelledError
        message_id = self._asce.next_message_id()
        self._message_ids.add(message_id)
        try:
            return await store_instance(
                self._asce, instance, msg_id=message_id, is_wanted=lambda: not self._stop.is_set
            )
        finally:
            self._message_ids.discard(message_id)

    def _warn(self, instance: Instance | None, reason: object) -> None:
        if isinstance(reason, ClassNotSupportedError) and reason.role:
            # All instances of a SOP class fail for this reason.
            self._asce.refused(Refusal("role", f"C-GET: {reason}"))
            return
        self.failures.tell(instance, reason)


def _uid(instance: Instance | None) -> str:
    return "an instance without UIDs" if instance is None else instance.sop_instance_uid


async def _settled_each(instances: Any) -> AsyncGenerator[Any, None]:
    async with aclosing(_each(instances)) as sources:
        async for source in sources:
            try:
                found = await settled(source)
            except defer.CancelledError:
                raise
            except (
                Exception
            ) as error:  # raised by an item of the hook; it concerns this instance alone
                _log.failure("an instance of a C-MOVE cannot be loaded")
                found = Unavailable(error)
            yield found


async def _each(instances: Any) -> AsyncGenerator[Any, None]:
    """The instances of an iterable or an asynchronous one that a hook returned; it is closed at the end.

    Raises:
        LocalProtocolError: The hook returned something else.
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
            f"a handler returned {type(instances).__name__} for the instances; expected an iterable"
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
        context: The context of the request.
        number: How many instances the hook has announced.
    """

    def __init__(self, context: RequestContext, number: int) -> None:
        self._context = context
        self._number = number
        self.completed = self.failed = self.warning = 0
        self._failures: list[str] = []
        self._lacks_role = ""  # a SOP class

    @property
    def _request(self) -> Request:
        return self._context.request

    @property
    def remaining(self) -> int:
        return max(0, self._number - self.completed - self.failed - self.warning)

    def add(self, result: StoreResult) -> None:
        """Count a sub-operation."""
        if not result.is_stored:
            self.failed += 1
            if result.instance is not None:
                self._failures.append(result.instance.sop_instance_uid)
            if isinstance(result.error, ClassNotSupportedError) and result.error.role:
                self._lacks_role = result.error.sop_class
        elif result.status is not None and result.status.is_warning:
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
        """The final response: Success; 0xB000 when some failed or got a warning; 0xA702 when all failed."""
        status, comment = 0x0000, None
        if self.failed and not self.completed and not self.warning:
            status = 0xA702
            if self._lacks_role:
                comment = f"{name(self._lacks_role)} was proposed without the SCP role"
        elif self.failed or self.warning:
            status = 0xB000
        return self._request.response(
            status, self._identifier(), error_comment=comment, **self._elements()
        )

    def cancelled(self) -> Response:
        """The response after C-CANCEL, in which the sub-operations that were not begun count as remaining."""
        return self._request.response(
            statuses.CANCEL,
            self._identifier(),
            number_of_remaining_suboperations=min(self.remaining, 0xFFFF),
            **self._elements(),
        )

    def _identifier(self) -> bytes | None:
        """The UIDs of the instances that failed (PS3.4 C.4.2.1.4.2)."""
        if not self._failures:
            return None
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = self._failures
        return dsutils.encode(identifier, self._context.supported_ts)


class Responses(AsyncIterator[Response]):
    """The responses to a retrieve: some while there are results, some while a result takes long, and the final one.

    Closing the iterator ends the sub-operations without awaiting their answers; :meth:`cancelled` awaits them.

    Args:
        context: The request.
        number: How many instances the hook has announced.
        results: The sub-operations.
        stop: Asks the sub-operations to end.
    """

    def __init__(self, context: RequestContext, number: int, results: _Results, stop: Stop) -> None:
        self._asce = context.association
        self._count = Counters(context, number)
        self._results = results
        self._stop = stop
        self._step = max(1, number // _PART)
        self._upcoming: defer.Deferred[_Outcome] | None = None
        self._either: defer.Deferred[None] | None = (
            None  # fires with the next result, or when it takes too long
        )
        self._since = 0.0  # the clock's time when the wait for it began
        self._tick: IDelayedCall | None = None
        self._responses = self._told()

    async def __anext__(self) -> Response:
        return await self._responses.__anext__()

    async def aclose(self) -> None:
        await self._responses.aclose()
        if self._upcoming is not None:
            # The generator of the results can be closed only while it does not run.
            at_rest = defer.DeferredList([self._upcoming], consumeErrors=True)
            self._upcoming.cancel()
            await at_rest
        await self._results.aclose()

    async def cancelled(self) -> Response:
        """The response after C-CANCEL, with the counters of what has been done.

        No further sub-operation is begun, and those that are under way are awaited.
        """
        self._stop.set()
        while True:
            if self._upcoming is None:
                self._upcoming = defer.Deferred.fromCoroutine(_next(self._results))
            result = await self._taken()
            if result is None:
                return self._count.cancelled()
            self._count.add(result)

    async def _told(self) -> AsyncGenerator[Response, None]:
        clock, count = self._asce.clock, self._count
        untold, told = 0, float("-inf")
        try:
            while True:
                while not await self._arrived():
                    told = clock.seconds()
                    yield count.pending()
                result = await self._taken()
                if result is None:
                    break
                count.add(result)
                untold += 1
                if count.remaining and (untold >= self._step or clock.seconds() - told >= _SECONDS):
                    untold, told = 0, clock.seconds()
                    yield count.pending()
        finally:
            if self._tick is not None:
                self._tick.cancel()
        yield count.final()

    async def _arrived(self) -> bool:
        """Wait for the next result; False when it takes so long that the peer needs a Pending response."""
        if self._upcoming is None:
            self._upcoming = defer.Deferred.fromCoroutine(_next(self._results))
        if not self._upcoming.called:
            # Cancelling this wait must not cancel the sub-operations.
            self._either = defer.Deferred()
            self._since = self._asce.clock.seconds()
            if self._tick is None:
                self._tick = self._asce.clock.callLater(KEEP_ALIVE, self._look)
            self._upcoming.addBoth(_wake, self._either)
            await self._either
        return self._upcoming.called

    def _look(self) -> None:
        """End a wait that has taken too long. One timer serves all waits, because most are over soon."""
        left = self._since + KEEP_ALIVE - self._asce.clock.seconds()
        if left > 0:
            self._tick = self._asce.clock.callLater(left, self._look)
            return
        self._tick = None
        if self._either is not None and not self._either.called:
            self._either.callback(None)

    async def _taken(self) -> StoreResult | None:
        upcoming, self._upcoming = self._upcoming, None
        assert upcoming is not None
        result, failure = await upcoming
        if failure is not None:
            failure.raiseException()
        return result


def _wake(result: Any, waiting: defer.Deferred[None]) -> Any:
    if not waiting.called:
        waiting.callback(None)
    return result


class _Outcome(NamedTuple):
    """A result or an error; with neither, there are no more results."""

    result: StoreResult | None
    failure: Failure | None = None


async def _next(results: _Results) -> _Outcome:
    # anext(results, None) would resume at the wrong place after it has waited (Python 3.11).
    try:
        return _Outcome(await anext(results))
    except StopAsyncIteration:
        return _Outcome(None)
    except defer.CancelledError:
        raise
    except Exception:
        # Code that the callbacks of a failing Deferred resume cannot await that Deferred.
        return _Outcome(None, Failure())
