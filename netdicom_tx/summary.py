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

    def __str__(self) -> str:
        """The numbers in words, for a log line: ``12 C-STORE performed, 6.3 MB received, 2 kB sent in 1.4 s``."""
        said = [
            f"{count} {operation} {done}"
            for counts, done in ((self.performed, "performed"), (self.requested, "requested"))
            for operation, count in counts.items()
        ]
        said += (f"{_size(self.octets_received)} received", f"{_size(self.octets_sent)} sent")
        return f"{', '.join(said)} in {self.duration:.1f} s"


def _size(octets: int) -> str:
    """A size for people: three digits or so, with a decimal prefix."""
    size, unit = float(octets), "octets"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "octets" or size >= 100 else f"{size:.1f} {unit}"
