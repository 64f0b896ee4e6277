"""What has happened on an association, in numbers: for metrics, accounting and logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .exceptions import NetDICOMError

__all__ = ["AssociationSummary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationSummary:
    """What has happened on an association so far.

    Attributes:
        reason: Why it is over, such as an :class:`~netdicom_tx.AssociationReleasedError`; None while it is not.
        is_accepted: Whether it was ever established.
        duration: The seconds since the transport was opened.
        performed: How many requests of the peer came, by operation: ``{"C-STORE": 12}``.
        requested: How many requests of ours went out, by operation.
        octets_received: The octets that the transport has received.
        octets_sent: The octets that the transport was given.
    """

    reason: NetDICOMError | None
    is_accepted: bool
    duration: float
    performed: Mapping[str, int]
    requested: Mapping[str, int]
    octets_received: int
    octets_sent: int
