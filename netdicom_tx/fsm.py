"""The state machine of the upper layer: Table 9-10 and Tables 9-6 to 9-9 of PS3.8 9.2, as data.

Everything that decides a transition is in this file, which knows no sockets, bytes or clocks.
Compare it with the standard line by line. An empty cell of the standard is ``.`` here; 54 of the
123 filled cells say AA-8.

The standard has two things in prose that are not in its tables:

- AE-6 and AR-8 have two outcomes each. The second is a row of its own here: ``AE-6 unacceptable``
  and ``AR-8 acceptor``.
- After AE-4, AR-3, AA-2 and AA-3 the transport is being closed *by us*, and will report so: Evt17
  in Sta1, an empty cell. :class:`netdicom_tx.upperlayer.UpperLayer` ignores what the transport says
  after that. This is the only addition.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["ACTIONS", "TABLE_9_10", "TRANSITIONS", "Action", "Event", "State", "Step"]


class State(Enum):
    """Tables 9-1 to 9-5."""

    # Members are compared by identity, so they are hashed by it: Enum's own hash costs a call for
    # each look-up.
    __hash__ = object.__hash__

    Sta1 = "idle"
    Sta2 = "transport open, awaiting A-ASSOCIATE-RQ"
    Sta3 = "awaiting the local A-ASSOCIATE response"
    Sta4 = "awaiting the transport to open"
    Sta5 = "awaiting A-ASSOCIATE-AC or -RJ"
    Sta6 = "established"
    Sta7 = "awaiting A-RELEASE-RP"
    Sta8 = "awaiting the local A-RELEASE response"
    Sta9 = "release collision, requestor: awaiting the local A-RELEASE response"
    Sta10 = "release collision, acceptor: awaiting A-RELEASE-RP"
    Sta11 = "release collision, requestor: awaiting A-RELEASE-RP"
    Sta12 = "release collision, acceptor: awaiting the local A-RELEASE response"
    Sta13 = "awaiting the transport to close"


class Event(Enum):
    """The rows of Table 9-10."""

    __hash__ = object.__hash__

    Evt1 = "A-ASSOCIATE request (local user)"
    Evt2 = "transport connection confirmed"
    Evt3 = "A-ASSOCIATE-AC PDU"
    Evt4 = "A-ASSOCIATE-RJ PDU"
    Evt5 = "transport connection indication"
    Evt6 = "A-ASSOCIATE-RQ PDU"
    Evt7 = "A-ASSOCIATE response, accept (local user)"
    Evt8 = "A-ASSOCIATE response, reject (local user)"
    Evt9 = "P-DATA request (local user)"
    Evt10 = "P-DATA-TF PDU"
    Evt11 = "A-RELEASE request (local user)"
    Evt12 = "A-RELEASE-RQ PDU"
    Evt13 = "A-RELEASE-RP PDU"
    Evt14 = "A-RELEASE response (local user)"
    Evt15 = "A-ABORT request (local user)"
    Evt16 = "A-ABORT PDU"
    Evt17 = "transport connection closed"
    Evt18 = "ARTIM timer expired"
    Evt19 = "unrecognized or invalid PDU"


TABLE_9_10 = """
        Sta1   Sta2   Sta3   Sta4   Sta5   Sta6   Sta7   Sta8   Sta9   Sta10  Sta11  Sta12  Sta13
Evt1    AE-1   .      .      .      .      .      .      .      .      .      .      .      .
Evt2    .      .      .      AE-2   .      .      .      .      .      .      .      .      .
Evt3    .      AA-1   AA-8   .      AE-3   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-6
Evt4    .      AA-1   AA-8   .      AE-4   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-6
Evt5    AE-5   .      .      .      .      .      .      .      .      .      .      .      .
Evt6    .      AE-6   AA-8   .      AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-7
Evt7    .      .      AE-7   .      .      .      .      .      .      .      .      .      .
Evt8    .      .      AE-8   .      .      .      .      .      .      .      .      .      .
Evt9    .      .      .      .      .      DT-1   .      AR-7   .      .      .      .      .
Evt10   .      AA-1   AA-8   .      AA-8   DT-2   AR-6   AA-8   AA-8   AA-8   AA-8   AA-8   AA-6
Evt11   .      .      .      .      .      AR-1   .      .      .      .      .      .      .
Evt12   .      AA-1   AA-8   .      AA-8   AR-2   AR-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-6
Evt13   .      AA-1   AA-8   .      AA-8   AA-8   AR-3   AA-8   AA-8   AR-10  AR-3   AA-8   AA-6
Evt14   .      .      .      .      .      .      .      AR-4   AR-9   .      .      AR-4   .
Evt15   .      .      AA-1   AA-2   AA-1   AA-1   AA-1   AA-1   AA-1   AA-1   AA-1   AA-1   .
Evt16   .      AA-2   AA-3   .      AA-3   AA-3   AA-3   AA-3   AA-3   AA-3   AA-3   AA-3   AA-2
Evt17   .      AA-5   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AA-4   AR-5
Evt18   .      AA-2   .      .      .      .      .      .      .      .      .      .      AA-2
Evt19   .      AA-1   AA-8   .      AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-8   AA-7
"""


def _read(table: str) -> Mapping[tuple[Event, State], str]:
    header, *rows = (line.split() for line in table.strip().splitlines())
    return MappingProxyType(
        {
            (Event[event], State[state]): action
            for event, *actions in rows
            for state, action in zip(header, actions, strict=True)
            if action != "."
        }
    )


#: (event, state) -> the name of the action. A pair that is not in it is not possible.
TRANSITIONS: Mapping[tuple[Event, State], str] = _read(TABLE_9_10)


class Step(Enum):
    """The steps that actions consist of. Each makes one output of the event's payload."""

    __hash__ = object.__hash__

    OPEN_TRANSPORT = "issue the transport connect request"
    CLOSE_TRANSPORT = "close the transport connection"
    SEND = "send the PDU that the local user gave"
    SEND_DATA = "send the P-DATA-TF PDUs that the local user gave"
    SEND_USER_ABORT = "send A-ABORT, source service-user"
    SEND_PROVIDER_ABORT = "send A-ABORT, source service-provider"
    SEND_REJECT = "send A-ASSOCIATE-RJ of the service-provider"
    INDICATE = "hand the received PDU to the local user"
    INDICATE_PROVIDER_ABORT = "tell the local user that the provider aborted"
    INDICATE_TRANSPORT_CLOSED = "tell the local user that the transport is gone"
    START_ARTIM = "start, or restart, ARTIM"
    STOP_ARTIM = "stop ARTIM, if it runs"


class Action(NamedTuple):
    """A row of Tables 9-6 to 9-9: the steps in their order, and the next state."""

    steps: tuple[Step, ...]
    next_state: State


_S, _T = State, Step
ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        # Table 9-6: association establishment.
        "AE-1": Action((_T.OPEN_TRANSPORT,), _S.Sta4),
        "AE-2": Action((_T.SEND,), _S.Sta5),
        "AE-3": Action((_T.INDICATE,), _S.Sta6),
        "AE-4": Action((_T.INDICATE, _T.CLOSE_TRANSPORT), _S.Sta1),
        "AE-5": Action((_T.START_ARTIM,), _S.Sta2),
        "AE-6": Action((_T.STOP_ARTIM, _T.INDICATE), _S.Sta3),
        "AE-6 unacceptable": Action((_T.STOP_ARTIM, _T.SEND_REJECT, _T.START_ARTIM), _S.Sta13),
        "AE-7": Action((_T.SEND,), _S.Sta6),
        "AE-8": Action((_T.SEND, _T.START_ARTIM), _S.Sta13),
        # Table 9-7: data transfer.
        "DT-1": Action((_T.SEND_DATA,), _S.Sta6),
        "DT-2": Action((_T.INDICATE,), _S.Sta6),
        # Table 9-8: association release.
        "AR-1": Action((_T.SEND,), _S.Sta7),
        "AR-2": Action((_T.INDICATE,), _S.Sta8),
        "AR-3": Action((_T.INDICATE, _T.CLOSE_TRANSPORT), _S.Sta1),
        "AR-4": Action((_T.SEND, _T.START_ARTIM), _S.Sta13),
        "AR-5": Action((_T.STOP_ARTIM,), _S.Sta1),
        "AR-6": Action((_T.INDICATE,), _S.Sta7),
        "AR-7": Action((_T.SEND_DATA,), _S.Sta8),
        "AR-8": Action((_T.INDICATE,), _S.Sta9),
        "AR-8 acceptor": Action((_T.INDICATE,), _S.Sta10),
        "AR-9": Action((_T.SEND,), _S.Sta11),
        "AR-10": Action((_T.INDICATE,), _S.Sta12),
        # Table 9-9: association abort.
        "AA-1": Action((_T.SEND_USER_ABORT, _T.START_ARTIM), _S.Sta13),
        "AA-2": Action((_T.STOP_ARTIM, _T.CLOSE_TRANSPORT), _S.Sta1),
        "AA-3": Action((_T.INDICATE, _T.CLOSE_TRANSPORT), _S.Sta1),
        "AA-4": Action((_T.INDICATE_TRANSPORT_CLOSED,), _S.Sta1),
        "AA-5": Action((_T.STOP_ARTIM,), _S.Sta1),
        "AA-6": Action((), _S.Sta13),
        "AA-7": Action((_T.SEND_PROVIDER_ABORT,), _S.Sta13),
        "AA-8": Action(
            (_T.SEND_PROVIDER_ABORT, _T.INDICATE_PROVIDER_ABORT, _T.START_ARTIM), _S.Sta13
        ),
    }
)
