"""Stores any number of instances at an AE, on as many associations as their contexts need (PS3.4 Annex B)."""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from itertools import islice
from typing import Any, ClassVar, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

from twisted.internet import defer, task
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .. import negotiation
from ..applicationentity import AE, RemoteAE
from ..arguments import check_number, check_type, several
from ..asceprovider import Association
from ..encoding import DataSetError, is_data_set
from ..exceptions import (
    AssociationRejectedError,
    ClassNotSupportedError,
    ConnectionLostError,
    DCMTimeoutError,
    LocalProtocolError,
    NetDICOMError,
)
from ..negotiation import MAXIMUM_CONTEXTS
from ..statuses import Status
from ..uids import DEFAULT_TRANSFER_SYNTAXES
from .base import settled
from .readahead import ReadAhead
from .storage import Instance, MoveOriginator, Source, store_instance

__all__ = ["Stop", "StoreResult", "Transcode", "Unavailable", "store_all"]

#: Given an association that did not accept the transfer syntax of an instance: another form of the instance, or None;
#: or a Deferred or coroutine of it.
Transcode = Callable[[Association, Instance], Any]

_T = TypeVar("_T")

# How many instances have their contexts planned together; this many headers are read ahead.
_PLANNED_TOGETHER = 1000
# How many instances of an asynchronous iterable are read ahead while others are sent; they may be whole data sets.
_READ_AHEAD = 64
# How many new associations in a row may end without any answer before the rest is given up. A peer that aborts at every
# instance must not be called again for each of ten thousand.
_FRUITLESS = 5
# The same for those that ended because the peer was silent, since each has cost a whole timeout.
_SILENT = 3
# After how many seconds a peer is called again that rejects an association for now (PS3.8 9.3.4, result 2) when another
# one has just ended: it may still count that one.
_REJECTED_FOR_NOW = (0.5, 1.0, 2.0)
# After how many seconds the destination of a C-MOVE is called again when nothing listens there. GDCM's gdcmscu is its
# own destination, begins to listen after it has sent the C-MOVE-RQ, and then waits a minute for the association.
_NOT_LISTENING = (0.05, 0.2, 0.75)
# How many seconds the final response of a C-MOVE waits for the destination to agree to a release. GDCM's gdcmscu is its
# own destination, and does not agree before it has that response.
_RELEASE_PATIENCE = 1.0
# Failures of one instance, which say nothing about the association.
_OF_THE_INSTANCE = (OSError, DataSetError, ClassNotSupportedError, LocalProtocolError)


class StoreResult(NamedTuple):
    """What became of one instance of :func:`store_all`.

    Attributes:
        source: The item of ``sources`` that the result is for.
        instance: The instance; None when its header could not be read.
        status: The status that the peer answered with; None when it did not answer.
        error: Why there is no status; None when there is one.
        is_given_up: Whether the instance was not tried, because the associations before it had failed; ``error``
            says why the last one did.
    """

    source: Source | Instance
    instance: Instance | None
    status: Status | None
    error: Exception | None
    is_given_up: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether the peer has the instance: the status is Success or a warning."""
        return self.status is not None and (self.status.is_success or self.status.is_warning)


class Unavailable:
    """Stands among the sources of a :func:`store_all` for an instance that could not be loaded.

    Args:
        error: Why.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


class Stop:
    """Asks :func:`store_all` to send no instance that it has not begun to send."""

    def __init__(self) -> None:
        self.is_set = False
        self._calls: list[Callable[[], object]] = []

    def set(self) -> None:
        """Ask for the end of sending; a second call changes nothing."""
        self.is_set = True
        while self._calls:
            self._calls.pop(0)()

    def when_set(self, call: Callable[[], object]) -> None:
        """Make this call when :meth:`set` is called, or at once if it was called before."""
        self._calls.append(call)
        if self.is_set:
            self.set()


async def store_all(
    ae: AE,
    remote_ae: RemoteAE,
    sources: Iterable[Source | Instance] | AsyncIterable[Source | Instance],
    *,
    associations: int = 1,
    originator: MoveOriginator | None = None,
    stop: Stop | None = None,
    transcode: Transcode | None = None,
) -> AsyncGenerator[StoreResult, None]:
    """Store any number of instances, at constant memory.

    The contexts are derived from the instances, one for each SOP class and transfer syntax, and
    spread over several associations where one cannot hold them.

    A failure of one instance never stops the others. When an association ends while one instance was under way, that
    instance has failed, and the others go on a new association. When several were under way, each is tried once more
    by itself. The rest is given up only when no association can be opened, or when five new ones in a row have ended
    without any answer; three are enough when the peer is silent. A peer that rejects an association for
    now right after another one has ended is called three times more.

    Args:
        ae: The application entity that sends.
        remote_ae: The application entity to send to.
        sources: The instances: data sets, paths, open files, or instances whose header has been read. The iterable is
            read as they are sent. The first item of an asynchronous iterable is sent while the next ones are awaited.
        associations: How many associations are open at the same time.
        originator: The C-MOVE on whose behalf the instances are sent, if any.
        stop: When it is set, no further instance is sent; the generator ends with the results of those that were.
        transcode: Gives another form of an instance whose transfer syntax the peer did not accept, such as one with
            decompressed pixel data. With it, the default transfer syntaxes are proposed for every SOP class.

    Yields:
        A result for each source, in the order in which they are known.

    Raises:
        TypeError, ValueError: An argument is wrong. A generator raises this when its first item is asked for.

    After the generator is closed early, or the wait for its next result is cancelled, no more is sent, and the
    associations are released when the outstanding requests have been answered. Those of a C-MOVE are aborted, because
    nobody waits for its answers any more; a C-MOVE waits while
    :attr:`~netdicom_tx.AE.move_associations_per_peer` associations to its destination are open.
    """
    check_type("ae", ae, AE)
    check_type("remote_ae", remote_ae, RemoteAE, "a RemoteAE, such as RemoteAE.of('PACS@host:104')")
    check_number("associations", associations, 1)
    several("sources", sources, "paths, open files or data sets")
    stop = Stop() if stop is None else stop
    sender = _Sender(ae, remote_ae, associations, originator, transcode)
    stop.when_set(sender.stop)
    try:
        async with aclosing(_chunks(sources, ae.clock, stop)) as chunks:
            async for chunk in chunks:
                if stop.is_set:
                    break
                async for result in sender.send(chunk):
                    yield result
    except BaseException:
        if originator is not None:
            sender.abandon()
        raise
    finally:
        await sender.close()


async def _chunks(
    sources: Iterable[Source | Instance] | AsyncIterable[Source | Instance],
    clock: IReactorTime,
    stop: Stop,
) -> AsyncGenerator[list[Source | Instance], None]:
    """The instances that can be sent now, in chunks whose contexts can be planned together."""
    if not isinstance(sources, AsyncIterable):
        remaining = iter(sources)
        while chunk := list(islice(remaining, _PLANNED_TOGETHER)):
            yield chunk
        return
    ahead = ReadAhead(sources, _READ_AHEAD, clock)
    stop.when_set(ahead.stop)
    try:
        while chunk := await ahead.take(_READ_AHEAD):
            yield chunk
    finally:
        await ahead.close()


class _Item(NamedTuple):
    """An instance that is to be sent.

    Attributes:
        lost: How an earlier attempt failed, if the association ended while several instances were under way. Such an
            instance is sent alone.
    """

    source: Source | Instance
    instance: Instance
    lost: Exception | None = None


_Results = defer.DeferredQueue[StoreResult | Failure | None]


class _NotBegunError(NetDICOMError):
    """The association has ended, or the sending, before an instance had its turn."""

    is_unsent = True


class _Turn:
    """Sends instances on one association, until it ends or there are no more.

    Attributes:
        answers: How many instances the peer has answered.
        lost: The instances that were under way when the association ended, each with its error.
    """

    def __init__(
        self,
        asce: Association,
        work: deque[_Item],
        results: _Results,
        originator: MoveOriginator | None,
        transcode: Transcode | None,
    ) -> None:
        self.answers = 0
        self.lost: list[tuple[_Item, Exception]] = []
        self._unsent: list[_Item] = []
        self._is_stopped = False
        self._asce = asce
        self._work = work
        self._results = results
        self._originator = originator
        self._transcode = transcode
        self._transcoding = defer.DeferredLock()
        self._running: set[int] = set()  # the message IDs of what has been begun
        self._finished: defer.Deferred[None] | None = None  # fires when one of them has ended

    async def run(self) -> None:
        """Send until there is no more work, or the association ends."""
        work, asce = self._work, self._asce
        while work and asce.is_open and not self._is_stopped:
            most = self._most_before(work[0])
            if len(self._running) > most:
                await self._until_running(most)
                continue  # another turn may have taken the first one, or put one back
            item = work.popleft()
            self._begin(item)
            if item.lost is not None:
                await self._until_running(0)
        await self._until_running(0)
        work.extendleft(reversed(self._unsent))

    def _most_before(self, item: _Item) -> int:
        """How many instances may be under way when this one is begun.

        One more than the window is made ready and waits, so that it can be sent when an answer comes. If the
        association ends first, it has not been sent. A data set of pydicom would be in memory twice, so it has to wait.
        """
        if item.lost is not None:
            return 0
        window = self._asce.window.invoked
        may_wait = window and not is_data_set(item.instance.source)
        return window if may_wait else max(1, window) - 1

    def stop(self) -> None:
        """Send nothing that has not been sent; the answers to the rest still count."""
        self._is_stopped = True
        for message_id in list(self._running):
            self._asce.withdraw(message_id)

    def abandon(self) -> None:
        """Abort the association."""
        self._is_stopped = True
        self._asce.abort()

    async def _until_running(self, most: int) -> None:
        while len(self._running) > most:
            self._finished = defer.Deferred()
            await self._finished

    def _begin(self, item: _Item) -> None:
        message_id = self._asce.next_message_id()
        self._running.add(message_id)
        sent = defer.maybeDeferred(self._store, item.instance, message_id)
        if self._transcode is not None:
            sent.addErrback(self._store_transcoded, item.instance, message_id, self._transcode)
        sent.addBoth(self._finish, item, message_id)

    def _store(self, instance: Instance, message_id: int) -> defer.Deferred[Status]:
        return store_instance(
            self._asce,
            instance,
            msg_id=message_id,
            originator=self._originator,
            is_wanted=lambda: not self._is_stopped,
        )

    def _store_transcoded(
        self, refused: Failure, instance: Instance, message_id: int, transcode: Transcode
    ) -> defer.Deferred[Status]:
        """Store another form of an instance, if its transfer syntax was not accepted and there is another form.

        A form of its own is in memory, and may be many times larger than the file. So one is made and sent at a time.
        """
        refused.trap(ClassNotSupportedError)

        def begin() -> defer.Deferred[Status]:
            if self._is_stopped or not self._asce.is_open:
                raise _NotBegunError
            other = defer.Deferred.fromCoroutine(settled(transcode(self._asce, instance)))
            return other.addCallback(
                lambda found: refused if found is None else self._store(found, message_id)
            )

        return self._transcoding.run(begin)

    def _finish(self, outcome: Status | Failure, item: _Item, message_id: int) -> None:
        self._running.discard(message_id)
        self._count(outcome, item)
        finished, self._finished = self._finished, None
        if finished is not None:
            finished.callback(None)

    def _count(self, outcome: Status | Failure, item: _Item) -> None:
        if not isinstance(outcome, Failure):
            self.answers += 1
            self._results.put(StoreResult(item.source, item.instance, outcome, None))
            return
        error = cast(Exception, outcome.value)
        is_withdrawn = self._is_stopped and isinstance(error, defer.CancelledError)
        if is_withdrawn or (isinstance(error, NetDICOMError) and error.is_unsent):
            self._unsent.append(item)
        elif self._asce.is_open or isinstance(error, _OF_THE_INSTANCE):
            self._results.put(StoreResult(item.source, item.instance, None, error))
        else:
            self.lost.append((item, error))


class _Places:
    """The associations that all C-MOVEs of an AE may have open to one destination.

    One peer, or many peers that ask for the same destination, would otherwise open any number of them there.
    """

    _all: ClassVar[WeakKeyDictionary[AE, dict[object, _Places]]] = WeakKeyDictionary()

    def __init__(self, limit: int, forget: Callable[[], object]) -> None:
        self._free = defer.DeferredSemaphore(limit)
        self._forget = forget
        self._users = 0

    @classmethod
    def of(cls, ae: AE, remote: RemoteAE) -> _Places:
        """The places at a destination."""
        places = cls._all.setdefault(ae, {})
        endpoint = remote.endpoint
        key = (remote.ae_title, endpoint if isinstance(endpoint, str) else id(endpoint))
        if key not in places:
            limit = max(ae.move_associations, ae.move_associations_per_peer)
            places[key] = cls(limit, lambda: places.pop(key))
        return places[key]

    async def take(self) -> None:
        """Wait for a place."""
        self._users += 1
        try:
            await self._free.acquire()
        except BaseException:
            self._leave()
            raise

    def give_back(self) -> None:
        """Let the next one have the place."""
        self._free.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._forget()


class _Sender:
    """The associations of one :func:`store_all`, which are used again while their contexts suffice."""

    def __init__(
        self,
        ae: AE,
        remote: RemoteAE,
        associations: int,
        originator: MoveOriginator | None,
        transcode: Transcode | None,
    ) -> None:
        self._ae = ae
        self._remote = remote
        self._limit = associations
        self._originator = originator
        self._transcode = transcode
        self._open: list[Association] = []
        self._proposed: list[tuple[str, tuple[str, ...]]] = []
        self._lanes = 0  # how many are running
        self._not_listening = iter(_NOT_LISTENING if originator is not None else ())
        self._fruitless = 0  # new associations in a row that ended without any answer
        self._connecting: set[defer.Deferred[Any]] = set()
        self._turns: set[_Turn] = set()
        self._is_stopped = False

    async def send(self, chunk: Sequence[Source | Instance]) -> AsyncIterator[StoreResult]:
        """Send some instances, and yield the results as they are known, at most one for each."""
        results: _Results = defer.DeferredQueue()
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
                self.stop()

    def stop(self) -> None:
        """Send no further instance; the results of those that were sent still come."""
        self._is_stopped = True
        for turn in list(self._turns):
            turn.stop()
        self._stop_connecting()

    def abandon(self) -> None:
        """Abort the associations on which something is outstanding; its results come as failures."""
        self.stop()
        for turn in list(self._turns):
            turn.abandon()

    def _stop_connecting(self) -> None:
        for connecting in list(self._connecting):
            connecting.cancel()

    async def _produce(self, chunk: Sequence[Source | Instance], results: _Results) -> None:
        ready: list[_Item] = []
        for source in chunk:
            try:
                if isinstance(source, Unavailable):
                    raise source.error
                instance = source if isinstance(source, Instance) else Instance.of(source)
            except Exception as error:  # raised by the file, or by whatever stands for one
                results.put(StoreResult(source, None, None, error))
            else:
                ready.append(_Item(source, instance))
        for entries, group in _groups(ready, is_plain_proposed=self._transcode is not None):
            if not set(self._proposed).issuperset(entries):
                await self.close()
                # The new association has the former contexts, too. Otherwise two kinds of instances that take turns
                # would need a new association each time.
                both = list(dict.fromkeys([*self._proposed, *entries]))
                self._proposed = both if len(both) <= MAXIMUM_CONTEXTS else entries
            work = deque(group)
            self._lanes = min(self._limit, len(work))
            lanes = [
                defer.Deferred.fromCoroutine(self._lane(work, results)) for _ in range(self._lanes)
            ]
            await defer.gatherResults(lanes, consumeErrors=True)
            if self._is_stopped:
                for item in work:
                    if item.lost is not None:  # and is not tried again
                        results.put(StoreResult(item.source, item.instance, None, item.lost))
                return

    async def _lane(self, work: deque[_Item], results: _Results) -> None:
        """Use one association after the other, until there is no more work."""
        error: Exception | None = None
        pauses: Iterator[float] = iter(())
        while work and error is None and not self._is_stopped:
            reused = self._take_open()
            try:
                asce = reused or await self._connect(pauses)
            except (NetDICOMError, defer.CancelledError) as refused:
                error = refused
                continue
            turn = _Turn(asce, work, results, self._originator, self._transcode)
            self._turns.add(turn)
            try:
                await turn.run()
            finally:
                self._turns.discard(turn)
                self._put_back(asce)
            _settle(turn, work, results, is_new=reused is None)
            if not asce.is_open:
                pauses = iter(_REJECTED_FOR_NOW)
            if turn.answers:
                self._fruitless = 0
            elif not asce.is_open and reused is None:
                self._fruitless += 1
                is_silent = isinstance(asce.error, DCMTimeoutError)
                if self._fruitless >= (_SILENT if is_silent else _FRUITLESS):
                    error = asce.error or ConnectionLostError()
        self._lanes -= 1
        if not work and not self._turns:
            # A peer that serves one association at a time leaves the other requests unanswered.
            self._stop_connecting()
        if error is not None and not self._lanes:
            # No other association is left to send the rest on.
            _give_up(work, error, results)

    async def _connect(self, pauses: Iterator[float]) -> Association:
        """Open an association.

        Args:
            pauses: After how many seconds to try again when the peer rejects it for now.
        """
        while True:
            try:
                return await self._until_stopped(self._called())
            except AssociationRejectedError as error:
                pause = next(pauses, None) if error.is_transient else None
                if pause is None:
                    raise
            except ConnectionLostError as error:
                is_refused = isinstance(error.__cause__, ConnectionRefusedError)
                pause = next(self._not_listening, None) if is_refused else None
                if pause is None:
                    raise
            await self._until_stopped(task.deferLater(self._ae.clock, pause))

    def _called(self) -> defer.Deferred[Association]:
        if self._originator is None:
            return self._ae.request_association(self._remote, self._proposed)
        return defer.Deferred.fromCoroutine(self._connect_in_turn())

    async def _until_stopped(self, waiting: defer.Deferred[_T]) -> _T:
        self._connecting.add(waiting)
        try:
            return await waiting
        finally:
            self._connecting.discard(waiting)

    async def _connect_in_turn(self) -> Association:
        """Open an association when not too many C-MOVEs have one to this destination."""
        places = _Places.of(self._ae, self._remote)
        await places.take()
        try:
            asce = await self._ae.request_association(self._remote, self._proposed)
        except BaseException:
            places.give_back()
            raise
        asce.closed().addBoth(lambda _: places.give_back())
        return asce

    def _put_back(self, asce: Association) -> None:
        if self._is_stopped:
            # All that was outstanding has been answered, and the release is not waited for.
            asce.finish()
        elif asce.is_open:
            self._open.append(asce)

    def _take_open(self) -> Association | None:
        while self._open:
            asce = self._open.pop()
            if asce.is_open:
                return asce
        return None

    async def close(self) -> None:
        """Release the open associations; a C-MOVE does not wait for a peer that is slow to agree."""
        opened, self._open = self._open, []
        await defer.gatherResults(
            [defer.Deferred.fromCoroutine(self._release(asce)) for asce in opened if asce.is_open]
        )

    async def _release(self, asce: Association) -> None:
        released = asce.release()
        if self._originator is not None:
            released.addTimeout(_RELEASE_PATIENCE, self._ae.clock)
        try:
            await released
        except defer.TimeoutError:
            return  # timeouts.release ends the association
        except NetDICOMError:
            asce.abort()


def _settle(turn: _Turn, work: deque[_Item], results: _Results, *, is_new: bool) -> None:
    """Fail the instance that ended an association; put back those that may have been lost with it by chance."""
    # An association that was idle may have ended for that reason, whatever was sent last.
    is_guilty = len(turn.lost) == 1 and (is_new or turn.answers > 0)
    again = []
    for item, error in turn.lost:
        if is_guilty or item.lost is not None:
            results.put(StoreResult(item.source, item.instance, None, error))
        else:
            again.append(item._replace(lost=error))
    work.extendleft(reversed(again))


def _give_up(work: deque[_Item], error: Exception, results: _Results) -> None:
    """Give the same result to all instances that are left."""
    while work:
        item = work.popleft()
        given_up = item.lost is None
        results.put(
            StoreResult(item.source, item.instance, None, item.lost or error, is_given_up=given_up)
        )


def _groups(
    ready: Sequence[_Item], *, is_plain_proposed: bool
) -> Iterator[tuple[list[tuple[str, tuple[str, ...]]], list[_Item]]]:
    """Groups of instances that fit one association, each with its contexts.

    Args:
        is_plain_proposed: Whether the default transfer syntaxes are proposed for every SOP class.
    """
    entries = negotiation.contexts_for_instances(
        (item.instance.sop_class_uid, item.instance.transfer_syntax) for item in ready
    )
    size = MAXIMUM_CONTEXTS // 2 if is_plain_proposed else MAXIMUM_CONTEXTS
    for start in range(0, len(entries), size):
        mine = entries[start : start + size]
        keys = {(sop_class, syntaxes[0]) for sop_class, syntaxes in mine}
        plain: list[tuple[str, tuple[str, ...]]] = []
        if is_plain_proposed:
            has_plain = {uid for uid, syntaxes in mine if len(syntaxes) > 1}
            compressed = dict.fromkeys(uid for uid, _ in mine if uid not in has_plain)
            plain = [(uid, DEFAULT_TRANSFER_SYNTAXES) for uid in compressed]
        yield (
            [*mine, *plain],
            [
                item
                for item in ready
                if (item.instance.sop_class_uid, item.instance.transfer_syntax) in keys
            ],
        )
