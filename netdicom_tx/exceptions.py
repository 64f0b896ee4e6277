"""The errors of netdicom_tx, in one tree.

::

    NetDICOMError
    ├── ProtocolError
    │   ├── LocalProtocolError            we asked for what is not possible now
    │   └── RemoteProtocolError           the peer broke PS3.7 or PS3.8; .abort_reason
    │       ├── PDUProcessingError        ... in a PDU (PS3.8)
    │       └── DIMSEProcessingError      ... in a DIMSE message (PS3.7)
    ├── AssociationError                  there is no association (any more)
    │   ├── AssociationRejectedError      .result .source .diagnostic
    │   ├── AssociationAbortedError       .source .reason_diag
    │   ├── AssociationReleasedError
    │   ├── ConnectionLostError
    │   └── ClassNotSupportedError        no accepted presentation context; .sop_class .answers
    ├── DCMTimeoutError                   .timer .seconds
    └── EventHandlingError                raise it in a handler; .status .comment
        └── StatusError

The names say first whose mistake it is: *Local* is our caller's, *Remote* is the peer's. A DIMSE
status, even a failing one, is a result and not an exception. A *handler* raises
:class:`EventHandlingError` to answer with one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar

__all__ = [
    "AbortReason",
    "AbortSource",
    "AssociationAbortedError",
    "AssociationError",
    "AssociationRejectedError",
    "AssociationReleasedError",
    "ClassNotSupportedError",
    "ConnectionLostError",
    "DCMTimeoutError",
    "DIMSEProcessingError",
    "EventHandlingError",
    "LocalProtocolError",
    "NetDICOMError",
    "PDUProcessingError",
    "ProtocolError",
    "RemoteProtocolError",
    "StatusError",
    "afresh",
    "printable",
]


class AbortSource(IntEnum):
    """Which service aborted the association (PS3.8 Table 9-26)."""

    SERVICE_USER = 0
    RESERVED = 1
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why the service provider aborted (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    RESERVED = 3
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER_VALUE = 6


_ABORT_SOURCES = {0: "service-user", 2: "service-provider"}
_ABORT_REASONS = {
    0: "reason not specified",
    1: "unrecognized PDU",
    2: "unexpected PDU",
    4: "unrecognized PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}
_REJECT_RESULTS = {1: "permanent", 2: "transient"}
_REJECT_SOURCES = {
    1: "service-user",
    2: "service-provider (ACSE)",
    3: "service-provider (presentation)",
}
_REJECT_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


def printable(text: object, limit: int = 64) -> str:
    """Make text from the wire safe for a log line or an error message.

    Control characters, line breaks and bidirectional marks become escapes.

    Args:
        limit: The most characters of the text that are kept.
    """
    said = str(text)[:limit]
    if said.isprintable():  # which line separators are not
        return said
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in said)


class NetDICOMError(Exception):
    """The base of every error of this package.

    Attributes:
        is_unsent: True when a request fails with this error because its association has ended before the request was
            sent, so that the peer knows nothing of it. Otherwise the peer may have performed it.
    """

    is_unsent = False


_Error = TypeVar("_Error", bound=BaseException)


def afresh(error: _Error) -> _Error:
    """The same error once more, for one more that waits, with the first one as its cause.

    An exception collects the traceback of each that raises it, and with it all their local variables.
    """
    another = error.__class__.__new__(error.__class__)
    another.args = error.args
    another.__dict__.update(error.__dict__)
    another.__cause__ = error.__cause__ if getattr(error, "_is_copy", False) else error
    another.__dict__["_is_copy"] = True
    return another


class ProtocolError(NetDICOMError):
    """One side broke a rule of PS3.7 or PS3.8."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that is not possible, or not possible now."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule of PS3.7 or PS3.8.

    Args:
        message: What was expected, what came, and where.
        abort_reason: The reason for the A-ABORT that answers it (PS3.8 9.3.8).
    """

    def __init__(
        self,
        message: str,
        abort_reason: AbortReason = AbortReason.INVALID_PARAMETER_VALUE,
    ) -> None:
        super().__init__(message)
        self.abort_reason = abort_reason


class PDUProcessingError(RemoteProtocolError):
    """A PDU of the peer cannot be understood (PS3.8 9.3)."""


class DIMSEProcessingError(RemoteProtocolError):
    """A DIMSE message of the peer cannot be understood (PS3.7, PS3.8 Annex E)."""


class AssociationError(NetDICOMError):
    """There is no association, or it has ended."""


class AssociationRejectedError(AssociationError):
    """The peer rejected the association.

    Attributes:
        result: 1 permanent, 2 transient.
        source: 1 service-user, 2 service-provider (ACSE), 3 service-provider (presentation).
        diagnostic: The reason, whose meaning depends on the source (PS3.8 Table 9-21).
    """

    def __init__(self, result: int, source: int, diagnostic: int) -> None:
        words = _REJECT_REASONS.get((source, diagnostic), "reserved reason")
        super().__init__(
            f"association rejected: {words} "
            f"(result {result} {_REJECT_RESULTS.get(result, 'reserved')}, "
            f"source {source} {_REJECT_SOURCES.get(source, 'reserved')}, reason {diagnostic}; "
            "PS3.8 9.3.4)"
        )
        self.result = result
        self.source = source
        self.diagnostic = diagnostic

    @property
    def is_transient(self) -> bool:
        """Whether the same association may be accepted a little later: the result is 2 (PS3.8 9.3.4)."""
        return self.result == 2


class AssociationAbortedError(AssociationError):
    """One of the two sides aborted the association.

    Attributes:
        source: 0 service-user, 2 service-provider.
        reason_diag: Why, when the source is the service-provider (PS3.8 Table 9-26).
        by_peer: True when the peer sent the A-ABORT.
    """

    def __init__(
        self, source: int, reason_diag: int = 0, *, by_peer: bool = True, detail: str = ""
    ) -> None:
        side = "the peer" if by_peer else "this side"
        super().__init__(
            f"association aborted by {side}: "
            f"{_ABORT_REASONS.get(reason_diag, 'reserved reason') if source else 'no reason given'}"
            f" (source {source} {_ABORT_SOURCES.get(source, 'reserved')}, reason {reason_diag}; "
            "PS3.8 9.3.8)" + (f": {detail}" if detail else "")
        )
        self.source = source
        self.reason_diag = reason_diag
        self.by_peer = by_peer


class AssociationReleasedError(AssociationError):
    """The association was released before the operation was complete."""

    def __init__(self, message: str = "the association has been released") -> None:
        super().__init__(message)


class ConnectionLostError(AssociationError):
    """The transport connection was closed, without a release and without an abort."""

    def __init__(self, message: str = "the peer closed the connection") -> None:
        super().__init__(message)


class ClassNotSupportedError(AssociationError):
    """No presentation context was accepted for this SOP class (and transfer syntax).

    Attributes:
        sop_class: The abstract syntax that was wanted.
        answers: What the peer answered, for each transfer syntax that was proposed with it.
        role: The role that was not negotiated, where the SOP class itself was accepted; otherwise empty.
    """

    def __init__(
        self, sop_class: str, answers: Mapping[str, str], hint: str = "", *, role: str = ""
    ) -> None:
        told = "; ".join(f"{printable(k)}: {v}" for k, v in answers.items())
        if role:
            told = f"it was negotiated without {role} (PS3.7 D.3.3.4)"
        # This side may lack the service.
        kind = "usable" if role or "accepted" in answers.values() else "accepted"
        super().__init__(
            f"no {kind} presentation context for {printable(sop_class)}: "
            + (told or "it was not proposed")
            + (f" ({hint})" if hint else "")
        )
        self.sop_class = sop_class
        self.answers = dict(answers)
        self.role = role


class DCMTimeoutError(NetDICOMError):
    """A wait was longer than its timeout.

    Attributes:
        timer: The timeout's name, a field of :class:`netdicom_tx.Timeouts`.
        seconds: The time that was waited.
    """

    def __init__(self, timer: str, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s (timeout {timer!r})")
        self.timer = timer
        self.seconds = seconds


class EventHandlingError(NetDICOMError):
    """Raise this in a handler or hook to answer the request with a failure status.

    Args:
        comment: Text for the peer, sent as the Error Comment (0000,0902), which has up to 64
            characters.
        status: The status to answer with. None lets the service choose its own failure, such as
            0xC000 Cannot Understand for storage.
    """

    def __init__(self, comment: str = "", status: int | None = None) -> None:
        super().__init__(comment or "the request could not be handled")
        self.comment = comment
        self.status = status


class StatusError(EventHandlingError):
    """Raise this in a handler to answer the request with exactly this status.

    Args:
        status: The status, 0x0000 to 0xFFFF; see :mod:`netdicom_tx.statuses`.
        comment: Text for the peer, sent as the Error Comment (0000,0902), which has up to 64
            characters.
    """

    def __init__(self, status: int, comment: str = "") -> None:
        super().__init__(
            f"{comment} (0x{status:04X})" if comment else f"status 0x{status:04X}", status
        )
        self.comment = comment
