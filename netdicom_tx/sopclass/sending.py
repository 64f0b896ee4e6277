"""Any number of instances, stored at an AE on the associations that this takes (PS3.4 Annex B)."""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from itertools import islice
from typing import NamedTuple, cast

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .. import dsutils, negotiation
from ..applicationentity import AE, RemoteAE
from ..asceprovider import Association
from ..exceptions import ConnectionLostError, NetDICOMError
from ..negotiation import MAXIMUM_CONTEXTS
from ..statuses import Status
from .readahead import ReadAhead
from .storage import Instance, MoveOriginator, Source, store_instance

__all__ = ["StoreResult", "store_all"]

# Instances whose contexts are planned together; so many headers are read ahead.
_PLANNED_TOGETHER = 1000
# Instances of an asynchronous iterable that are at hand while others are sent; they may be data sets.
_READ_AHEAD = 64


class StoreResult(NamedTuple):
    """What became of one instance of :func:`store_all`.

    Attributes:
        source: As it was given.
        instance: None when its header could not be read.
        status: Of the peer; None when it was not asked.
        error: Why there is no status; None when there is one.
    """

    source: Source | Instance
    instance: Instance | None
    status: Status | None
    error: Exception | None

    @property
    def is_stored(self) -> bool:
        """Success or a warning: the peer has it."""
        return self.status is not None and not self.status.is_failure


async def store_all(
    ae: AE,
    remote_ae: RemoteAE,
    sources: Iterable[Source | Instance] | AsyncIterable[Source | Instance],
    *,
    associations: int = 1,
    originator: MoveOriginator | None = None,
) -> AsyncGenerator[StoreResult, None]:
    """Store any number of instances, at constant memory.

    The contexts are derived from the instances, one for each SOP class and transfer syntax, and
    spread over several associations where one cannot hold them. A failure of one instance never
    stops the others; an association that ends is opened anew, unless nothing went through it.

    Args:
        ae: The application entity that sends.
        remote_ae: The application entity to send to.
        sources: What :func:`storage_scu` takes, or instances whose header has been read; consumed
            as they are sent. The first item of an asynchronous iterable is sent while the next ones are awaited.
        associations: How many associations are open at the same time.
        originator: The C-MOVE that this serves, if any.

    Yields:
        A result for each source, in the order in which they are known.

    Closing the generator early sends no more; the associations are released when what is outstanding
    has been answered.
    """
    sender = _Sender(ae, remote_ae, max(1, associations), originator)
    try:
        async with aclosing(_chunks(sources, ae.clock)) as chunks:
            async for chunk in chunks:
                async for result in sender.send(chunk):
                    yield result
    finally:
        await sender.close()


async def _chunks(
    sources: Iterable[Source | Instance] | AsyncIterable[Source | Instance], clock: IReactorTime
) -> AsyncGenerator[list[Source | Instance], None]:
    """What can be sent now, so much at once that its contexts can be planned together."""
    if not isinstance(sources, AsyncIterable):
        remaining = iter(sources)
        while chunk := list(islice(remaining, _PLANNED_TOGETHER)):
            yield chunk
        return
    ahead = ReadAhead(sources, _READ_AHEAD, clock)
    try:
        while chunk := await ahead.take(_READ_AHEAD):
            yield chunk
    finally:
        await ahead.close()


_Work = deque[tuple[Source | Instance, Instance]]


class _Sender:
    """The associations of a :func:`store_all`, used again while their contexts suffice."""

    def __init__(
        self, ae: AE, remote: RemoteAE, associations: int, originator: MoveOriginator | None
    ) -> None:
        self._ae = ae
        self._remote = remote
        self._limit = associations
        self._originator = originator
        self._open: list[Association] = []
        self._proposed: list[tuple[str, tuple[str, ...]]] = []
        self._lanes = 0  # that are running
        self._connecting: set[defer.Deferred[Association]] = set()
        self._is_stopped = False

    async def send(self, chunk: Sequence[Source | Instance]) -> AsyncIterator[StoreResult]:
        """Send some instances; results come as they are known, at most one for each."""
        results: defer.DeferredQueue[StoreResult | Failure | None] = defer.DeferredQueue()
        producing = defer.Deferred.fromCoroutine(self._produce(chunk, results))
        producing.addBoth(results.put)
        try:
            while True:
                result = await results.get()
                if isinstance(result, Failure):
                    result.raiseException()
                if result is None:
                    return
                yield result
        finally:
            if not producing.called:
                self._is_stopped = True
                for connecting in list(self._connecting):
                    connecting.cancel()

    async def _produce(
        self,
        chunk: Sequence[Source | Instance],
        results: defer.DeferredQueue[StoreResult | Failure | None],
    ) -> None:
        ready: list[tuple[Source | Instance, Instance]] = []
        for source in chunk:
            try:
                instance = source if isinstance(source, Instance) else Instance.of(source)
            except (OSError, dsutils.DataSetError) as error:
                results.put(StoreResult(source, None, None, error))
            else:
                ready.append((source, instance))
        for entries, group in _groups(ready):
            if not set(self._proposed).issuperset(entries):
                await self.close()
                # With what was needed before, so that kinds that take turns do not take an association each.
                both = list(dict.fromkeys([*self._proposed, *entries]))
                self._proposed = both if len(both) <= MAXIMUM_CONTEXTS else entries
            work = deque(group)
            self._lanes = min(self._limit, len(work))
            lanes = [
                defer.Deferred.fromCoroutine(self._lane(work, results)) for _ in range(self._lanes)
            ]
            await defer.gatherResults(lanes, consumeErrors=True)
            if self._is_stopped:
                return

    async def _lane(
        self, work: _Work, results: defer.DeferredQueue[StoreResult | Failure | None]
    ) -> None:
        """One association after the other, until there is no more work."""
        error: Exception | None = None
        while work and error is None and not self._is_stopped:
            try:
                asce = self._take_open() or await self._connect()
            except (NetDICOMError, defer.CancelledError) as refused:
                error = refused
                continue
            went_through = False
            try:
                went_through = await self._use(asce, work, results)
            finally:
                self._put_back(asce)
            if not asce.is_open and not went_through:
                error = asce.error or ConnectionLostError()
        self._lanes -= 1
        if error is not None and not self._lanes:
            # There is no other association that could do it.
            _give_up(work, error, results)

    async def _connect(self) -> Association:
        connecting = self._ae.request_association(self._remote, self._proposed)
        self._connecting.add(connecting)
        try:
            return await connecting
        finally:
            self._connecting.discard(connecting)

    def _put_back(self, asce: Association) -> None:
        if self._is_stopped:
            # Nobody waits for it; what was outstanding has been answered.
            asce.finish()
        elif asce.is_open:
            self._open.append(asce)

    def _take_open(self) -> Association | None:
        while self._open:
            asce = self._open.pop()
            if asce.is_open:
                return asce
        return None

    async def _use(
        self,
        asce: Association,
        work: _Work,
        results: defer.DeferredQueue[StoreResult | Failure | None],
    ) -> bool:
        """Send on one association; whether the peer has answered anything."""
        answered = False
        running: set[defer.Deferred[None]] = set()

        def finish(
            outcome: Status | Failure, source: Source | Instance, instance: Instance
        ) -> None:
            nonlocal answered
            if isinstance(outcome, Failure):
                results.put(StoreResult(source, instance, None, cast(Exception, outcome.value)))
            else:
                answered = True
                results.put(StoreResult(source, instance, outcome, None))

        while work and asce.is_open and not self._is_stopped:
            source, instance = work.popleft()
            sent = store_instance(asce, instance, originator=self._originator)
            done: defer.Deferred[None] = sent.addBoth(finish, source, instance)
            if not done.called:
                running.add(done)
                done.addCallback(lambda _, mine: running.discard(mine), done)
            # Twice the window: the next request is ready when an answer comes.
            while len(running) >= 2 * max(1, asce.window.invoked):
                await defer.DeferredList(list(running), fireOnOneCallback=True)
        while running:
            await defer.DeferredList(list(running))
        return answered

    async def close(self) -> None:
        """Release what is open."""
        opened, self._open = self._open, []
        for asce in opened:
            if asce.is_open:
                try:
                    await asce.release()
                except NetDICOMError:
                    asce.abort()


def _give_up(
    work: _Work,
    error: Exception,
    results: defer.DeferredQueue[StoreResult | Failure | None],
) -> None:
    """The same result for all that is left."""
    while work:
        source, instance = work.popleft()
        results.put(StoreResult(source, instance, None, error))


def _groups(
    ready: Sequence[tuple[Source | Instance, Instance]],
) -> Iterator[tuple[list[tuple[str, tuple[str, ...]]], list[tuple[Source | Instance, Instance]]]]:
    """Instances that fit one association, with its contexts."""
    entries = negotiation.contexts_for_instances(
        (instance.sop_class_uid, instance.transfer_syntax) for _, instance in ready
    )
    for start in range(0, len(entries), MAXIMUM_CONTEXTS):
        mine = entries[start : start + MAXIMUM_CONTEXTS]
        keys = {(sop_class, syntaxes[0]) for sop_class, syntaxes in mine}
        yield (
            mine,
            [
                (source, instance)
                for source, instance in ready
                if (instance.sop_class_uid, instance.transfer_syntax) in keys
            ],
        )
