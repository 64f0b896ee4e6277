"""The DICOM upper layer of one connection, without I/O: events in, ordered outputs out (PS3.8 9.2).

There is one door. Every input becomes an event, which is looked up in Table 9-10. The machine
commits the new state, **and then** gives the outputs in the standard's order, so performing an
output may come back in with the next input. The caller must use up what it gives:
:meth:`UpperLayer.receive_data` is lazy, and takes the next PDU only when the outputs of the
previous one have been performed. An abort in between therefore stops the rest of the segment, as
the table demands (AA-6).

A peer's mistake raises nothing here: it becomes Evt19 and the A-ABORT reason that fits. A request
of our own side that the table does not have raises
:class:`~netdicom_tx.exceptions.LocalProtocolError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .exceptions import AbortReason, AbortSource, LocalProtocolError, PDUProcessingError
from .fsm import ACTIONS, TRANSITIONS, Event, State, Step
from .pdu import (
    MAXIMUM_CONTROL_PDU_LENGTH,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Fragment,
    PDUReader,
)

__all__ = [
    "CloseTransport",
    "Indicate",
    "OpenTransport",
    "Output",
    "ProviderAbort",
    "Send",
    "StartARTIM",
    "StopARTIM",
    "TransportClosed",
    "UpperLayer",
]


@dataclass(frozen=True, slots=True)
class ProviderAbort:
    """The indication that this side's provider aborts because of the peer's mistake (A-P-ABORT)."""

    reason: AbortReason
    detail: str


@dataclass(frozen=True, slots=True)
class TransportClosed:
    """The indication that the transport ended without a release or an abort (A-P-ABORT)."""

    detail: str


Indication = (
    AAssociateRQ
    | AAssociateAC
    | AAssociateRJ
    | AReleaseRQ
    | AReleaseRP
    | AAbort
    | Fragment
    | ProviderAbort
    | TransportClosed
)


# Outputs are used up at once, so nothing has to keep them from being changed; a frozen one takes three times as long.
@dataclass(slots=True)
class Send:
    """The output to write these octets."""

    data: Sequence[bytes | bytearray | memoryview]


@dataclass(slots=True)
class Indicate:
    """The output to tell the local user."""

    what: Indication


class _Bare(Enum):
    """The outputs without content."""

    OpenTransport = "open the transport"
    CloseTransport = "close the transport"
    StartARTIM = "start or restart ARTIM"
    StopARTIM = "stop ARTIM"


OpenTransport = _Bare.OpenTransport
CloseTransport = _Bare.CloseTransport
StartARTIM = _Bare.StartARTIM
StopARTIM = _Bare.StopARTIM
Output = Send | Indicate | _Bare

_EVENT_OF: dict[type, Event] = {
    AAssociateAC: Event.Evt3,
    AAssociateRJ: Event.Evt4,
    AAssociateRQ: Event.Evt6,
    Fragment: Event.Evt10,
    AReleaseRQ: Event.Evt12,
    AReleaseRP: Event.Evt13,
    AAbort: Event.Evt16,
}


@dataclass(frozen=True, slots=True)
class _Fault:
    """The payload of Evt19, and the reason why the table answers a PDU with AA-8."""

    reason: AbortReason
    detail: str


def _fault(payload: object, state: State) -> _Fault:
    """The reason for the abort: the reader's, or that the PDU does not fit the state."""
    if isinstance(payload, _Fault):
        return payload
    what = "P-DATA-TF" if isinstance(payload, Fragment) else type(payload).__name__
    return _Fault(
        AbortReason.UNEXPECTED_PDU, f"{what} is not expected in {state.name} ({state.value})"
    )


def _send_provider_abort(payload: object, state: State) -> Output:
    reason = _fault(payload, state).reason
    return Send((AAbort(AbortSource.SERVICE_PROVIDER, reason).encode(),))


def _indicate_provider_abort(payload: object, state: State) -> Output:
    fault = _fault(payload, state)
    return Indicate(ProviderAbort(fault.reason, fault.detail))


# What makes the output of each step, of the payload of the event and of the state before it. The payload is what the
# event has, by the table: hence Any.
_MAKERS: dict[Step, Callable[[Any, State], Output]] = {
    Step.OPEN_TRANSPORT: lambda payload, state: OpenTransport,
    Step.CLOSE_TRANSPORT: lambda payload, state: CloseTransport,
    Step.SEND: lambda payload, state: Send((payload.encode(),)),
    Step.SEND_DATA: lambda payload, state: Send(payload),
    Step.SEND_USER_ABORT: lambda payload, state: Send((AAbort(AbortSource.SERVICE_USER).encode(),)),
    Step.SEND_PROVIDER_ABORT: _send_provider_abort,
    # Permanent, ACSE related, protocol version not supported (PS3.8 Table 9-21).
    Step.SEND_REJECT: lambda payload, state: Send((AAssociateRJ(1, 2, 2).encode(),)),
    Step.INDICATE: lambda payload, state: Indicate(payload),
    Step.INDICATE_PROVIDER_ABORT: _indicate_provider_abort,
    Step.INDICATE_TRANSPORT_CLOSED: lambda payload, state: Indicate(payload),
    Step.START_ARTIM: lambda payload, state: StartARTIM,
    Step.STOP_ARTIM: lambda payload, state: StopARTIM,
}
# What makes the outputs of each action, the next state, and whether the machine is over then.
_ROWS = {
    name: (
        tuple(_MAKERS[step] for step in action.steps),
        action.next_state,
        Step.CLOSE_TRANSPORT in action.steps,
    )
    for name, action in ACTIONS.items()
}
# The actions of which _outcome() says more.
_LOOKED_AT = frozenset(("AE-6", "AR-8", "AA-1"))
# The rows of P-DATA, which are taken most: their action hands the payload on and does nothing else. What makes the
# output, and the next state.
_PASSING: dict[tuple[Event, State], tuple[Callable[[Any], Output], State]] = {
    pair: (Indicate if steps == (Step.INDICATE,) else Send, next_state)
    for pair, name in TRANSITIONS.items()
    for steps, next_state in (ACTIONS[name],)
    if pair[0] in (Event.Evt9, Event.Evt10) and steps in ((Step.INDICATE,), (Step.SEND_DATA,))
}


class UpperLayer:
    """The machine of one connection.

    Args:
        is_requestor: Whether this side is the requestor of the association, which decides about
            release collisions.
        receive_limit: The most octets that we admit in a P-DATA-TF; 0 means no limit.
        associate_limit: The most octets that we admit in an A-ASSOCIATE PDU.
    """

    def __init__(
        self,
        *,
        is_requestor: bool,
        receive_limit: int = 0,
        associate_limit: int = MAXIMUM_CONTROL_PDU_LENGTH,
    ) -> None:
        self.is_requestor = is_requestor
        self._reader = PDUReader(receive_limit, associate_limit)
        self._state = State.Sta1
        # One side has closed the transport: whatever it still reports is ignored.
        self._is_over = False
        self._request: AAssociateRQ | None = None
        #: Why the machine has refused what came instead of an acceptable A-ASSOCIATE-RQ, of which the standard
        #: indicates nothing to the user; empty while it has not.
        self.refusal = ""

    @property
    def state(self) -> State:
        """The state, for logs, errors and tests. The properties below tell what is possible."""
        return self._state

    @property
    def receive_limit(self) -> int:
        """The most octets that we admit in a P-DATA-TF; 0 means no limit."""
        return self._reader.receive_limit

    @property
    def held(self) -> int:
        """How many octets of an incomplete PDU are in memory."""
        return self._reader.held

    def discard(self) -> None:
        """Forget an incomplete PDU, because the transport is gone."""
        self._reader.discard()

    @property
    def titles(self) -> tuple[str, str] | None:
        """The called and the calling AE title, while an A-ASSOCIATE-RQ is arriving."""
        return self._reader.titles

    @property
    def is_between_pdus(self) -> bool:
        """Whether no PDU has begun to come and is not complete."""
        return self._reader.is_between_pdus

    @property
    def is_established(self) -> bool:
        return self._state is State.Sta6

    @property
    def may_send_data(self) -> bool:
        """Whether Table 9-10 has Evt9 in this state."""
        return (Event.Evt9, self._state) in TRANSITIONS

    @property
    def is_over(self) -> bool:
        """Whether nothing more can happen."""
        return self._is_over

    # -- the local user ------------------------------------------------------------------------

    def associate(self, request: AAssociateRQ) -> Iterable[Output]:
        """Evt1: ask for a transport. The request is sent when that is open."""
        outputs = self._take(Event.Evt1, request)
        self._request = request
        return outputs

    def accept(self, answer: AAssociateAC) -> Iterable[Output]:
        """Evt7."""
        return self._take(Event.Evt7, answer)

    def reject(self, answer: AAssociateRJ) -> Iterable[Output]:
        """Evt8."""
        return self._take(Event.Evt8, answer)

    def send_data(self, pdus: Sequence[bytes | bytearray | memoryview]) -> Iterable[Output]:
        """Evt9: encoded P-DATA-TF PDUs, as many as may go out in one turn; each may be in several pieces."""
        return self._take(Event.Evt9, pdus)

    def release(self) -> Iterable[Output]:
        """Evt11."""
        return self._take(Event.Evt11, AReleaseRQ())

    def answer_release(self) -> Iterable[Output]:
        """Evt14."""
        return self._take(Event.Evt14, AReleaseRP())

    def abort(self) -> Iterable[Output]:
        """Evt15."""
        return self._take(Event.Evt15, AAbort(AbortSource.SERVICE_USER))

    @property
    def may_answer_release(self) -> bool:
        """Whether Table 9-10 has Evt14 in this state."""
        return (Event.Evt14, self._state) in TRANSITIONS

    @property
    def may_abort(self) -> bool:
        """Whether Table 9-10 has Evt15 in this state."""
        return (Event.Evt15, self._state) in TRANSITIONS

    # -- the transport -------------------------------------------------------------------------

    def transport_opened(self) -> Iterable[Output]:
        """Evt2 for the requestor, Evt5 for the acceptor."""
        if self._is_over:
            return ()
        if self.is_requestor:
            return self._take(Event.Evt2, self._request)
        return self._take(Event.Evt5, None)

    def transport_closed(self, detail: str = "the peer closed the connection") -> Iterable[Output]:
        """Evt17."""
        if self._is_over or self._state is State.Sta1:
            return ()
        outputs = self._take(Event.Evt17, TransportClosed(detail))
        self._is_over = True
        return outputs

    def receive_data(self, data: bytes) -> Iterator[Output]:
        """Take octets of the peer: Evt3, 4, 6, 10, 12, 13 and 16, and Evt19 for anything else."""
        pdus = self._reader.feed(data)
        while not self._is_over:
            try:
                pdu = next(pdus, None)
            except PDUProcessingError as error:
                yield from self._take(Event.Evt19, _Fault(error.abort_reason, str(error)))
                return
            if pdu is None:
                return
            yield from self._take(_EVENT_OF[type(pdu)], pdu)

    def invalid_data(self, error: PDUProcessingError | Exception) -> Iterable[Output]:
        """Evt19 for a mistake that only the local user can see, in a PDV or a message."""
        if self._is_over:
            return ()
        reason = getattr(error, "abort_reason", AbortReason.NOT_SPECIFIED)
        return self._take(Event.Evt19, _Fault(reason, str(error)))

    def artim_expired(self) -> Iterable[Output]:
        """Evt18."""
        if self._is_over:
            return ()
        return self._take(Event.Evt18, None)

    # -- the door ------------------------------------------------------------------------------

    def _take(self, event: Event, payload: object) -> Iterable[Output]:
        before = self._state
        passing = _PASSING.get((event, before))
        if passing is not None and not self._is_over:
            make, self._state = passing
            return (make(payload),)
        name = TRANSITIONS.get((event, before))
        # A machine serves one connection: Sta1 at its end is not the Sta1 at its beginning.
        if name is None or self._is_over:
            raise LocalProtocolError(
                f"{event.value} is not possible in {before.name} ({before.value})"
            )
        if name in _LOOKED_AT:
            name = self._outcome(name, payload, before)
        makers, next_state, closes = _ROWS[name]
        # The outputs are made before the state is committed: what cannot be encoded has not happened.
        outputs = [make(payload, before) for make in makers]
        self._state = next_state
        if closes:
            self._is_over = True
        return outputs

    def _outcome(self, name: str, payload: object, before: State) -> str:
        """The row of the action; two actions have a second row."""
        if name == "AE-6":
            # PS3.8 9.3.2: only bit 0 of the protocol version is tested.
            if isinstance(payload, AAssociateRQ) and not payload.protocol_version & 1:
                self.refusal = (
                    "A-ASSOCIATE-RQ of another protocol version; expected bit 0 of the version"
                )
                return "AE-6 unacceptable"
        elif name == "AR-8":
            if not self.is_requestor:
                return "AR-8 acceptor"
        elif before is State.Sta2:  # AA-1
            self.refusal = _fault(payload, before).detail
        return name
