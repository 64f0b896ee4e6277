"""Performs the tasks of the outbound queue, on the reactor of the node.

The runner claims what is due, hands each task to the performer of its kind, renews the lease while the performer works,
and notes how the attempt has ended. The table and its rules are in :mod:`~netdicom_tx.archive.workflow.outbound`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import LogLevel

from ...exceptions import NetDICOMError
from ...logs import Logger, Trouble
from ..index.connections import IndexUnavailableError
from .outbound import (
    PER_DESTINATION,
    POLL,
    RUNNING,
    GiveUpError,
    NotYetError,
    Queue,
    Task,
)

__all__ = ["Performer", "QueueRunner"]

#: Seconds between two attempts to note that a task has ended.
NOTE_AGAIN: Final = 2.0
#: How many tasks one runner performs at once.
CONCURRENCY: Final = 8


class _Performance(NamedTuple):
    """A task that is being performed.

    Attributes:
        work: The work of the performer; it is cancelled when the runner stops.
        ended: Fires when the work has ended and its end has been noted.
    """

    task: Task
    work: defer.Deferred[None]
    ended: defer.Deferred[None]


#: Performs a task. It returns when the peer has what it is owed, and raises when the peer does not have it.
Performer = Callable[[Task], Awaitable[object]]


class QueueRunner:
    """Performs the tasks that are due, several at once, each by the performer of its kind.

    Args:
        queue: The table.
        in_thread: Runs a blocking call off the reactor thread.
        performers: The performers by kind. More may be added until :meth:`start`.
    """

    _log = Logger()

    def __init__(
        self,
        queue: Queue,
        in_thread: Callable[..., defer.Deferred[Any]],
        performers: Mapping[str, Performer] | None = None,
    ) -> None:
        self.queue = queue
        self.performers: dict[str, Performer] = dict(performers or {})
        self._clock: IReactorTime | None = None  # while it is started
        self._in_thread = in_thread
        self._running: dict[int, _Performance] = {}
        # Until when the leases of those tasks last for certain, by the clock of the reactor.
        self._held_until: dict[int, float] = {}
        self._naps: set[defer.Deferred[None]] = set()
        self._looking: defer.Deferred[None] | None = None
        self._is_refused = False  # by the database, the last time
        self._noting = Trouble(self._log)
        self._away: dict[str, Trouble] = {}  # the destinations that do not take their tasks
        self._is_awake = False  # something may have become due since the table was looked at
        self._timer: IDelayedCall | None = None
        self._heart: IDelayedCall | None = None
        #: Tells another process that a task has become due, when that one performs them. This one then performs only
        #: the tasks that it adopts.
        self.delegate: Callable[[], object] | None = None

    # -- running -----------------------------------------------------------------------------------

    def start(self, clock: IReactorTime) -> None:
        """Take back the tasks that were being performed when this owner was killed, and begin."""
        self._clock = clock
        self._beat(clock)
        if self.delegate is not None:
            self.delegate()
            return
        self._look(self._in_thread(lambda: self.queue.recover().result()))

    def stop(self) -> defer.Deferred[None]:
        """Claim no more tasks, and give up those that are being performed; they stay in the table.

        Returns:
            Fires when no task is being performed.
        """
        # A node that was refused at its start has nothing to leave.
        was_running, self._clock = self._clock is not None, None
        for timer in (self._timer, self._heart):
            if timer is not None and timer.active():
                timer.cancel()
        running = list(self._running.values())
        waiting = [each.ended for each in running]
        if self._looking is not None:
            waiting.append(self._looking)
        ended = defer.DeferredList([_follow(each) for each in waiting])
        for each in running:
            # A task that has been performed is still noted as done.
            each.work.cancel()
        for nap in list(self._naps):
            nap.cancel()
        return ended.addCallback(lambda _: self._leave() if was_running else None)

    def _leave(self) -> defer.Deferred[None] | None:
        """Leave to the other nodes what was being performed, when there are others."""
        if not self.queue.is_of_group:
            return None
        owner = self.queue.owner
        leaving = self._in_thread(lambda: self.queue.recover(owner).result())
        # If the database refuses, the leases run out.
        return leaving.addErrback(
            lambda failure: self._log.warn(
                "the tasks of this node could not be left to others: {error}", error=failure.value
            )
        )

    def wake(self) -> None:
        """Look at the table now, because a task has become due."""
        if self.delegate is not None:
            if self._clock is not None:
                self.delegate()
            return
        self._is_awake = True
        if self._clock is not None and self._looking is None:
            self._look(defer.succeed(None))

    def adopt(
        self, task_id: int, kind: str, destination: str, perform: Performer
    ) -> defer.Deferred[None]:
        """Perform a task that was inserted as claimed, by a performer of the caller's own.

        Args:
            kind: The kind with which the task was inserted.
            destination: The destination with which the task was inserted.

        Returns:
            Fires when the attempt is over, whether it succeeded or not.
        """
        now = self.queue.now()
        task = Task(
            id=task_id,
            kind=kind,
            destination=destination,
            chain="",
            payload=None,
            state=RUNNING,
            attempt=1,
            created=now,
            not_before=now,
            lease_until=now + self.queue.lease,
            owner=self.queue.owner,
            last_error="",
        )
        # The task was inserted a moment ago, which the reserve of a lease covers.
        return self._perform(task, perform, self._lease_from_now())

    @property
    def performing(self) -> list[Task]:
        """The tasks that are being performed."""
        return [each.task for each in self._running.values()]

    # -- looking at the table ----------------------------------------------------------------------

    def _look(self, ready: defer.Deferred[Any]) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        # Set before it begins: it may end at once.
        looking: defer.Deferred[None] = defer.Deferred()
        self._looking = looking

        def ended(_: object) -> None:
            self._looking = None
            looking.callback(None)

        defer.Deferred.fromCoroutine(self._look_until_idle(ready)).addBoth(ended)

    async def _look_until_idle(self, ready: defer.Deferred[Any]) -> None:
        left = POLL
        try:
            await ready
            self._is_awake = True
            while self._is_awake and self._clock is not None:
                self._is_awake = False
                while self._clock is not None and await self._claim():
                    pass
                kinds = list(self.performers)
                left = await self._in_thread(self.queue.look_again, kinds)
        except IndexUnavailableError as error:
            if self._clock is not None and not self._is_refused:
                self._is_refused = True
                self._log.error(
                    "the queue cannot be looked at: {error}; the node tries again every {seconds:g} s",
                    error=error,
                    seconds=POLL,
                )
        except Exception:  # whatever it is, it may work again soon
            if self._clock is not None:
                self._log.failure("the queue cannot be looked at")
        else:
            if self._is_refused:
                self._is_refused = False
                self._log.info("the queue can be looked at again")
        if self._clock is not None:
            self._timer = self._clock.callLater(left, self.wake)

    async def _claim(self) -> bool:
        """Claim a task that is due and begin to perform it; returns whether there was one."""
        if len(self._running) >= CONCURRENCY:
            return False
        at_work = [task.destination for task in self.performing]
        busy = {each for each in at_work if at_work.count(each) >= PER_DESTINATION}
        kinds, performing = list(self.performers), list(self._running)
        held_until = self._lease_from_now()
        task: Task | None = await self._in_thread(
            lambda: self.queue.claim(kinds=kinds, busy=busy, performing=performing).result()
        )
        if task is not None:
            self._perform(task, self.performers[task.kind], held_until)
        return task is not None

    # -- leases ------------------------------------------------------------------------------------

    @property
    def _beat_every(self) -> float:
        return self.queue.held / 6

    def _lease_from_now(self) -> float:
        """Until when a lease lasts that is taken or renewed after this call, with a reserve, by the reactor's clock."""
        if self._clock is None:
            return inf
        return self._clock.seconds() + self.queue.held - self._beat_every

    def _beat(self, clock: IReactorTime) -> None:
        self._heart = clock.callLater(self._beat_every, self._beat, clock)
        if not self._running:
            return
        ids = list(self._running)
        defer.Deferred.fromCoroutine(self._renew(ids)).addErrback(
            lambda failure: self._log.failure("leases cannot be renewed", failure)
        )
        # Those that were not renewed for long are lost before the next beat.
        late = clock.seconds()
        self._give_up(each for each in ids if self._held_until.get(each, inf) <= late)

    async def _renew(self, ids: Collection[int]) -> None:
        held_until = self._lease_from_now()
        ours: set[int] = await self._in_thread(lambda: self.queue.renew(ids).result())
        for each in ours & self._running.keys():
            self._held_until[each] = held_until
        self._give_up(set(ids) - ours)

    def _give_up(self, ids: Iterable[int]) -> None:
        """Stop what is being performed without a lease, because another node may perform it now."""
        for each in [self._running[number] for number in ids if number in self._running]:
            self._held_until.pop(each.task.id, None)
            if not each.work.called:
                self._log.warn(
                    "{kind} {id} for {destination} is given up, because its lease could not be renewed; "
                    "it is performed again",
                    kind=each.task.kind,
                    id=each.task.id,
                    destination=each.task.destination,
                )
                each.work.cancel()

    # -- performing --------------------------------------------------------------------------------

    def _perform(self, task: Task, perform: Performer, held_until: float) -> defer.Deferred[None]:
        async def work() -> None:
            await perform(task)

        ended: defer.Deferred[None] = defer.Deferred()
        working = defer.Deferred.fromCoroutine(work())
        self._running[task.id] = _Performance(task, working, ended)
        self._held_until[task.id] = held_until

        def over(_: object) -> None:
            del self._running[task.id]
            self._held_until.pop(task.id, None)
            ended.callback(None)
            self.wake()

        defer.Deferred.fromCoroutine(self._see_to_the_end(task, working)).addBoth(over)
        return ended

    async def _see_to_the_end(self, task: Task, working: defer.Deferred[None]) -> None:
        failure: BaseException | None = None
        try:
            await working
        except defer.CancelledError:
            # The runner was stopped, or the lease is lost. It runs out, or is taken back at the next start.
            return
        except Exception as error:  # whatever a peer or a performer raises, the task is kept
            failure = error
            self._tell(task, error)
        else:
            away = self._away.pop(task.destination, None)
            if away is not None:
                away.over(
                    "{destination} takes what it is owed again; {count} attempts had failed",
                    destination=task.destination,
                )
        while not await self._is_noted(task, failure):
            # Nobody else performs it as long as the lease is renewed; then it would be performed again.
            if self._clock is None or task.id not in self._held_until:
                self._log.warn(
                    "the end of {kind} {id} could not be noted, so it is performed again",
                    kind=task.kind,
                    id=task.id,
                )
                return
            await self._nap(self._clock)

    async def _is_noted(self, task: Task, failure: BaseException | None) -> bool:
        """Try to note how a task has ended; returns whether this was possible."""
        try:
            await self._in_thread(self._note, task, failure)
        except Exception as error:  # whatever the database raises
            self._noting.met(
                type(error),
                "the end of {kind} {id} cannot be noted: {error}; the node tries again every {seconds:g} s",
                level=LogLevel.error,
                kind=task.kind,
                id=task.id,
                error=error,
                seconds=NOTE_AGAIN,
            )
            return False
        self._noting.over("the ends of tasks can be noted again; {count} attempts had failed")
        return True

    async def _nap(self, clock: IReactorTime) -> None:
        """Wait before the next attempt to note something; stopping ends this."""
        nap: defer.Deferred[None] = deferLater(clock, NOTE_AGAIN, _nothing)
        self._naps.add(nap)
        try:
            await nap
        except defer.CancelledError:
            return
        finally:
            self._naps.discard(nap)

    def _note(self, task: Task, failure: BaseException | None) -> None:
        noting = self.queue.done(task.id) if failure is None else self.queue.failed(task, failure)
        noting.result()

    def _tell(self, task: Task, error: BaseException) -> None:
        say: Callable[..., None] = self._log.failure
        if isinstance(error, NotYetError):
            say = self._log.debug
        elif isinstance(error, GiveUpError):
            say = self._log.warn
        elif isinstance(error, NetDICOMError):
            # A peer that does not answer, or refuses, is not a fault of this program. It may be away for days.
            away = self._away.setdefault(task.destination, Trouble(self._log))
            say = partial(away.met, type(error), level=LogLevel.warn)
        say(
            "{kind} {id} for {destination}, attempt {attempt}: {error}",
            kind=task.kind,
            id=task.id,
            destination=task.destination,
            attempt=task.attempt,
            error=error,
        )


def _nothing() -> None:
    """The end of a nap."""


def _follow(deferred: defer.Deferred[None]) -> defer.Deferred[None]:
    """Fires when another does, and leaves that one its result."""
    following: defer.Deferred[None] = defer.Deferred()

    def fire(result: None) -> None:
        following.callback(None)
        return result

    deferred.addBoth(fire)
    return following
