"""How an association ends: released by either side or both, aborted, lost, or idle for too long (PS3.8 7.2, 7.3).

:class:`Closing` is a small state machine on top of that of PS3.8 9.2. It decides *when* this side releases, answers a
release or gives up; :mod:`netdicom_tx.upperlayer` decides what may be sent then. A release must not lose what is under
way, so each state says what it waits for (:data:`WAITS`) and whether that wait has a time (:data:`TIMED`,
``timeouts.release``). Reading :data:`TABLE` from the top gives the usual course of each kind of end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .channel import Channel
from .dulprovider import Timeouts
from .exceptions import (
    AbortReason,
    AssociationAbortedError,
    AssociationError,
    AssociationRejectedError,
    AssociationReleasedError,
    ConnectionLostError,
    DCMTimeoutError,
    DIMSEProcessingError,
    NetDICOMError,
    afresh,
)
from .pdu import AAbort, AAssociateRJ, AReleaseRP, AReleaseRQ
from .upperlayer import Indication, ProviderAbort, TransportClosed

__all__ = ["TABLE", "TIMED", "TRANSITIONS", "WAITS", "Action", "Closing", "Event", "State", "Wait"]


class State(Enum):
    """How far an association is from its end."""

    __hash__ = object.__hash__

    OPENING = "the request is not answered yet"
    OPEN = "established; neither side wants to end it"
    FINISHING = "to be released as soon as nothing is under way"
    DRAINING = "we want to release; our requests still get their responses"
    YIELDING = "we want to release; operations for the peer have their time to end"
    HURRYING = "we want to release; only what has been answered still goes out"
    RELEASING = "A-RELEASE-RQ is sent"
    ANSWERING = "the peer wants to release; operations for it have their time to end"
    CONCEDING = "the peer wants to release; only what has been answered still goes out"
    OVER = "over; the transport may still be there"
    GONE = "over, and the transport is gone"


class Event(Enum):
    """An event that may lead to the end of the association."""

    __hash__ = object.__hash__

    OPENED = "the request has been accepted"
    FINISH = "this side is to end it in order, soon"
    RELEASE = "this side is to release it"
    SETTLED = "there is nothing left of what the state waits for"
    EXPIRED = "the time of the state is over"
    RELEASE_RQ = "A-RELEASE-RQ came"
    RELEASE_RP = "A-RELEASE-RP came"
    CLOSED = "the peer closed the transport"
    ENDED = "it is over, for whatever reason"
    DISCONNECTED = "the transport is gone"


class Action(Enum):
    """An action that is performed when the new state has been committed."""

    __hash__ = object.__hash__

    REFUSE_REQUESTS = "take no new request of ours"
    FAIL_REQUESTS = "fail our requests: the peer answers nothing any more (PS3.8 7.2.1)"
    ASK = "send A-RELEASE-RQ; no message may follow it"
    ANSWER = "send A-RELEASE-RP, and end"
    ANSWER_COLLISION = "send A-RELEASE-RP, unless the peer has to answer first (AR-8 to AR-10)"
    CONFIRM = "send A-RELEASE-RP if a collision still wants it, and end: released"
    CONCLUDE = "end: released"
    TIME_OUT = "end, and send A-ABORT: the peer has not answered in time"
    GIVE_UP = "send A-ABORT, and close the transport at once"


#: State, event, next state, action. An event that is missing in a state changes nothing.
TABLE = """
OPENING    OPENED        OPEN
OPENING    FINISH        OPENING    GIVE_UP
OPEN       FINISH        FINISHING
OPEN       RELEASE       DRAINING   REFUSE_REQUESTS
OPEN       RELEASE_RQ    ANSWERING  FAIL_REQUESTS
FINISHING  SETTLED       DRAINING   REFUSE_REQUESTS
FINISHING  RELEASE       DRAINING   REFUSE_REQUESTS
FINISHING  RELEASE_RQ    ANSWERING  FAIL_REQUESTS
DRAINING   SETTLED       YIELDING
DRAINING   RELEASE_RQ    ANSWERING  FAIL_REQUESTS
YIELDING   SETTLED       RELEASING  ASK
YIELDING   EXPIRED       HURRYING
YIELDING   RELEASE_RQ    ANSWERING  FAIL_REQUESTS
HURRYING   SETTLED       RELEASING  ASK
HURRYING   RELEASE_RQ    ANSWERING  FAIL_REQUESTS
RELEASING  RELEASE_RP    RELEASING  CONFIRM
RELEASING  RELEASE_RQ    RELEASING  ANSWER_COLLISION
RELEASING  CLOSED        RELEASING  CONCLUDE
RELEASING  EXPIRED       RELEASING  TIME_OUT
ANSWERING  SETTLED       ANSWERING  ANSWER
ANSWERING  EXPIRED       CONCEDING
CONCEDING  SETTLED       CONCEDING  ANSWER
OPENING    ENDED         OVER
OPEN       ENDED         OVER
FINISHING  ENDED         OVER
DRAINING   ENDED         OVER
YIELDING   ENDED         OVER
HURRYING   ENDED         OVER
RELEASING  ENDED         OVER
ANSWERING  ENDED         OVER
CONCEDING  ENDED         OVER
OVER       FINISH        OVER       GIVE_UP
OVER       DISCONNECTED  GONE
"""


def _read(table: str) -> Mapping[tuple[State, Event], tuple[State, Action | None]]:
    rows = (line.split() for line in table.strip().splitlines())
    return MappingProxyType(
        {
            (State[state], Event[event]): (State[after], Action[action[0]] if action else None)
            for state, event, after, *action in rows
        }
    )


#: :data:`TABLE` as a mapping.
TRANSITIONS = _read(TABLE)


class Wait(Enum):
    """What a state waits for."""

    __hash__ = object.__hash__

    REQUESTS = "our requests, until their final responses have come"
    OPERATIONS = "operations for the peer, until they are answered"
    ARRIVAL = "the rest of a data set that has begun to come"
    WORK = "what the AE still does behind its answers"
    ROOM = "room in the transport for the answers"


#: The waits that must have ended for :attr:`Event.SETTLED`; a state that is missing here does not settle.
WAITS: Mapping[State, frozenset[Wait]] = MappingProxyType(
    {
        State.FINISHING: frozenset((Wait.REQUESTS, Wait.OPERATIONS, Wait.ARRIVAL)),
        State.DRAINING: frozenset((Wait.REQUESTS,)),
        State.YIELDING: frozenset((Wait.OPERATIONS, Wait.ARRIVAL, Wait.ROOM)),
        State.HURRYING: frozenset((Wait.ROOM,)),
        State.ANSWERING: frozenset((Wait.OPERATIONS, Wait.WORK, Wait.ROOM)),
        State.CONCEDING: frozenset((Wait.ROOM,)),
    }
)
#: States in which ``timeouts.release`` runs.
TIMED = frozenset({State.YIELDING, State.RELEASING, State.ANSWERING})

_OPEN = State.OPEN
# How many seconds may pass between two looks at what comes.
_LOOK = 15.0
#: The least rate of a message that has begun, in octets a second, averaged over about :data:`_LOOK` seconds.
LEAST_RATE = 64


class Arrival(Protocol):
    """A data set that may be arriving."""

    @property
    def is_busy(self) -> bool:
        """Whether a data set is arriving."""

    def end(self) -> None:
        """The association is over."""


class Operations(Protocol):
    """The operations that this side performs for the peer."""

    @property
    def is_busy(self) -> bool:
        """Whether the peer waits for a response."""

    def close(self, reason: NetDICOMError) -> None:
        """Send nothing more."""

    def end(self, error: NetDICOMError) -> None:
        """The association is over."""


class Requests(Protocol):
    """The requests of this side."""

    @property
    def is_busy(self) -> bool:
        """Whether a response is outstanding."""

    def close(self, reason: NetDICOMError) -> None:
        """Take no new request."""

    def fail_all(self, reason: NetDICOMError) -> None:
        """No response will come."""

    def end(self, reason: NetDICOMError) -> None:
        """The association is over."""

    def let_go(self) -> None:
        """Make sure that a stream that is not read does not delay the end of the association."""


class Closing:
    """The end of one association.

    Args:
        channel: The transport.
        requests: The requests of this side.
        operations: The operations that it performs for the peer.
        arrival: The data set that may be arriving.
        clock: The time of all waits.
        timeouts: Uses ``release`` and ``idle``.
        finish_work: Called when the peer wants to release, and all has been answered. It returns None when nothing is
            left to do behind the answers, or a Deferred that fires when that has ended; the release waits for it.
        on_end: Called once, with the reason, when the association is over and its parts have been told.

    Attributes:
        state: How far the association is from its end; for logs and tests. Programs ask :attr:`is_open`.
        error: Why the association is over; None while it is not.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        requests: Requests,
        operations: Operations,
        arrival: Arrival,
        clock: IReactorTime,
        timeouts: Timeouts,
        finish_work: Callable[[], defer.Deferred[Any] | None],
        on_end: Callable[[NetDICOMError], None],
    ) -> None:
        self.state = State.OPENING
        self.error: NetDICOMError | None = None
        self._channel = channel
        self._requests = requests
        self._operations = operations
        self._arrival = arrival
        self._clock = clock
        self._timeouts = timeouts
        self._finish_work = finish_work
        self._work: defer.Deferred[Any] | None = None
        self._on_end = on_end
        self._timer: IDelayedCall | None = None  # of the state
        self._answer_within = timeouts.release  # for A-RELEASE-RP
        self._is_leaving = False  # this side ends all associations
        self._idle: IDelayedCall | None = None
        self._looked: float | None = None  # when, while a message was arriving
        self._octets = 0  # that had come by then
        self._slow_since: float | None = None
        self._owed = 0  # what the peer waits for besides responses
        self._room: defer.Deferred[None] | None = None
        self._released: list[defer.Deferred[None]] = []
        self._closed: list[defer.Deferred[AssociationError]] = []

    @property
    def is_open(self) -> bool:
        """Whether the association is established and not over."""
        return self.error is None and self.state is not State.OPENING

    # -- what the users of the association want ----------------------------------------------------

    def release(self) -> defer.Deferred[None]:
        """See :meth:`Association.release`."""
        if isinstance(self.error, AssociationReleasedError):
            return defer.succeed(None)
        if self.error is not None:
            return defer.fail(afresh(self.error))

        def cancel(deferred: defer.Deferred[None]) -> None:
            self._released.remove(deferred)
            self.abort()

        released: defer.Deferred[None] = defer.Deferred(cancel)
        self._released.append(released)
        self._take(Event.RELEASE)
        return released

    def finish(self, answer_within: float | None = None) -> None:
        """See :meth:`Association.finish`."""
        if answer_within is not None:
            self._is_leaving = True
            self._answer_within = min(answer_within, self._timeouts.release)
            if self.state is State.RELEASING:
                # A release was asked for before, with more time.
                self._start_timer(self._answer_within)
        self._requests.let_go()
        self._take(Event.FINISH)

    def abort(self) -> None:
        """See :meth:`Association.abort`."""
        self.fail(AssociationAbortedError(0, 0, by_peer=False))

    def fail(self, error: NetDICOMError) -> None:
        """End the association with a reason that only this side knows: the peer gets an A-ABORT."""
        if self.error is None:
            self.end(error)
            self._channel.abort()

    def time_out(self, timer: str, seconds: float) -> None:
        """A wait was longer than its timeout."""
        self.fail(DCMTimeoutError(timer, seconds))

    def closed(self) -> defer.Deferred[AssociationError]:
        """See :meth:`Association.closed`."""
        waiting: defer.Deferred[AssociationError] = defer.Deferred(self._closed.remove)
        self._closed.append(waiting)
        if self.state is State.GONE:
            self._tell_closed()
        return waiting

    def _tell_closed(self) -> None:
        reason = self.error
        if not isinstance(reason, AssociationError):
            reason = ConnectionLostError(str(reason or "the connection was closed"))
        while self._closed:
            self._closed.pop(0).callback(reason)

    # -- what happens to the association -----------------------------------------------------------

    def opened(self) -> None:
        """The association has been accepted; our own acceptance may still have to go out."""
        self._take(Event.OPENED)

    def established(self, *, watch_idle: bool) -> None:
        """The acceptance has come or has gone out, so a release that was wanted before begins now.

        Args:
            watch_idle: Whether to give up a silent peer, unless it waits for this side.
        """
        if self.error is not None:
            return
        if watch_idle:
            self._idle = self._clock.callLater(min(self._timeouts.idle, _LOOK), self._check_idle)
        if self._released:
            self._take(Event.RELEASE)

    def indicated(self, what: Indication) -> None:
        """The upper layer indicates something that may end the association."""
        match what:
            case AReleaseRQ():
                self._take(Event.RELEASE_RQ)
            case AReleaseRP():
                self._take(Event.RELEASE_RP)
            case AAssociateRJ(result, source, reason):
                self.end(AssociationRejectedError(result, source, reason))
            case AAbort(source, reason):
                self.end(AssociationAbortedError(source, reason))
            case ProviderAbort(reason, detail):
                self.end(AssociationAbortedError(2, reason, by_peer=False, detail=detail))
            case TransportClosed(detail):  # pragma: no branch - the others concern the opening
                # Some peers close instead of answering A-RELEASE-RQ; nothing is lost.
                self._take(Event.CLOSED)
                self.end(ConnectionLostError(f"the connection was lost: {detail}"))

    def disconnected(self) -> None:
        """The transport is gone, and :meth:`end` has been called."""
        self._take(Event.DISCONNECTED)
        _stop(self._timer)
        self._tell_closed()

    def end(self, error: NetDICOMError) -> None:
        """Fail everything that waits for the association, with this reason; only the first call counts."""
        if self.error is not None:
            return
        self.error = error
        self._take(Event.ENDED)
        _stop(self._idle)
        self._arrival.end()
        self._channel.end()
        self._operations.end(error)
        self._requests.end(error)
        while self._released:
            released = self._released.pop(0)
            if isinstance(error, AssociationReleasedError):
                released.callback(None)
            else:
                released.errback(afresh(error))
        self._on_end(error)
        if self._is_leaving:
            # Do this in the next turn, because an A-ABORT may still have to be written.
            self._timer = self._clock.callLater(0, self._channel.hang_up, self._answer_within)

    # -- the machine -------------------------------------------------------------------------------

    def settle(self) -> None:
        """A request or an operation has ended, and the end of the association may have waited for it."""
        if self.state is _OPEN:
            return  # the usual case, for each response
        waits = WAITS.get(self.state)
        if (
            waits is None
            or (Wait.REQUESTS in waits and self._requests.is_busy)
            or (Wait.OPERATIONS in waits and self._operations.is_busy)
            or (Wait.ARRIVAL in waits and self._arrival.is_busy)
            or (Wait.WORK in waits and self._is_at_work())
        ):
            return
        if Wait.ROOM in waits and self._channel.is_congested:
            self._await_room()
        else:
            self._take(Event.SETTLED)

    def _is_at_work(self) -> bool:
        if self._work is None:
            self._work = self._finish_work()
            if self._work is not None:
                self._work.addBoth(lambda _: self.settle())
        return self._work is not None and not self._work.called

    def _await_room(self) -> None:
        if self._room is not None:
            return

        def free(_: object) -> None:
            self._room = None
            self.settle()

        # This call is cancelled when the association ends before.
        self._room = self._channel.dul.when_writable()
        self._room.addCallbacks(free, lambda _: None)

    def _take(self, event: Event) -> None:
        cell = TRANSITIONS.get((self.state, event))
        if cell is None:
            return
        state, action = cell
        is_new = state is not self.state
        if is_new:
            _stop(self._timer)
            self.state = state
        if action is not None:
            self._perform(action)
        self.settle()
        # Usually nothing has to be waited for, and the state has changed again.
        if is_new and self.state is state:
            if state is State.RELEASING:
                self._start_timer(self._answer_within)
            elif state in TIMED:
                self._start_timer(self._timeouts.release)

    def _start_timer(self, seconds: float) -> None:
        _stop(self._timer)
        self._timer = self._clock.callLater(seconds, self._take, Event.EXPIRED)

    def _perform(self, action: Action) -> None:
        match action:
            case Action.REFUSE_REQUESTS:
                self._requests.close(AssociationReleasedError("the association is being released"))
            case Action.FAIL_REQUESTS:
                self._requests.fail_all(_released_by_peer())
            case Action.ASK:
                self._operations.close(
                    AssociationReleasedError("the association is being released")
                )
                self._channel.dul.release()
            case Action.ANSWER:
                self._channel.dul.answer_release()
                self.end(_released_by_peer())
            case Action.ANSWER_COLLISION:
                self._answer_if_possible()
            case Action.CONFIRM:
                self._answer_if_possible()
                self.end(AssociationReleasedError())
            case Action.CONCLUDE:
                self.end(AssociationReleasedError())
            case Action.TIME_OUT:
                self.time_out("release", self._answer_within)
            case Action.GIVE_UP:  # pragma: no branch - there is no other
                self.abort()
                self._channel.drop()

    def _answer_if_possible(self) -> None:
        dul = self._channel.dul
        if dul.machine.may_answer_release:
            dul.answer_release()

    # -- the idle rule -----------------------------------------------------------------------------

    @contextmanager
    def owing(self) -> Iterator[None]:
        """See :meth:`Association.owing`."""
        self._owed += 1
        try:
            yield
        finally:
            self._owed -= 1

    @property
    def is_owed(self) -> bool:
        """Whether the peer waits for something from this side other than a response."""
        return self._owed > 0

    @property
    def is_slow(self) -> bool:
        """Whether the peer has begun a message and sends less of it than :data:`LEAST_RATE`."""
        return self._slow_since is not None

    def _check_idle(self) -> None:
        now, dul, idle = self._clock.seconds(), self._channel.dul, self._timeouts.idle
        self._check_rate(now)
        # idle - (now - last_received) would be rounded, and could again and again be less than the clock can resolve.
        left = dul.last_received + idle - now
        is_busy = self._operations.is_busy or self._requests.is_busy
        if self._owed or (is_busy and not self._arrival.is_busy):
            left = idle
        if left <= 0:
            self._refuse(f"nothing came for {now - dul.last_received:g} s (timeout 'idle')")
        elif self._slow_since is not None and now - self._slow_since >= idle:
            self._refuse(
                f"a message comes with fewer than {LEAST_RATE} octets a second for "
                f"{now - self._slow_since:g} s (timeout 'idle')"
            )
        else:
            self._idle = self._clock.callLater(min(left, _LOOK), self._check_idle)

    def _check_rate(self, now: float) -> None:
        """Notice a peer that sends a message octet by octet, and so is never silent for long."""
        octets, _ = self._channel.octets
        is_arriving = (
            self._arrival.is_busy or not self._channel.dul.machine.is_between_pdus
        ) and not self._channel.is_held
        if not is_arriving:
            self._looked = self._slow_since = None
            return
        if self._looked is not None and now > self._looked:
            if octets - self._octets >= LEAST_RATE * (now - self._looked):
                self._slow_since = None
            elif self._slow_since is None:
                self._slow_since = self._looked
        self._looked, self._octets = now, octets

    def _refuse(self, why: str) -> None:
        self._channel.dul.invalid(DIMSEProcessingError(why, AbortReason.NOT_SPECIFIED))


def _released_by_peer() -> AssociationReleasedError:
    return AssociationReleasedError("the peer released the association")


def _stop(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
