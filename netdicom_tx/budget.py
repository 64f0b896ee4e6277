"""One account of what all peers together have in memory, and what happens when it is overdrawn.

Each part of an association has a bound of its own: a PDU, a command set, an identifier, what is unread. Hundreds of
associations that use all of it can still fill the memory. :class:`MemoryBudget` adds up what they hold. When that is
more than the limit, the association that holds most is not read any more, so its peer waits; new associations are
rejected as transient (local limit exceeded). When that does not help within :data:`PATIENCE` seconds, the association
that holds most is aborted.

Instances that go to a file do not count, apart from what is still in memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .arguments import check_number
from .refusals import Refusal

__all__ = ["LIMIT", "PATIENCE", "Holder", "MemoryBudget", "give_back_large_blocks"]

#: How many octets all associations of an application entity may hold in memory.
LIMIT: Final = 1 << 28
#: For how many seconds peers wait before one of them is aborted for the others.
PATIENCE: Final = 5.0
# How often it is looked at while peers wait, in seconds.
_LOOK: Final = 0.25
# After this part of the limit has been received, it is looked at: a division costs less than an account of every octet.
_PART: Final = 16
_MIB: Final = 1 << 20
# M_MMAP_THRESHOLD of malloc.h, and what counts as large.
_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 1 << 22
# M_TRIM_THRESHOLD, and how much free memory is kept for smaller blocks.
_TRIM_THRESHOLD: Final = -1
_KEPT: Final = 1 << 25


def give_back_large_blocks() -> None:
    """Let the C library give memory of several MiB back to the system when it is freed.

    The GNU C library does so at first, and no longer after the first block of a size was freed; then each thread keeps
    what it has used once. With the value that changes this, it would also give back what smaller blocks have used as
    soon as that is free, and the kernel would clear its pages again for the next image, which costs as much as to
    hash it. So 32 MiB are kept. Other libraries stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _KEPT)


class Holder(Protocol):
    """An association, as the budget sees it."""

    @property
    def held(self) -> int:
        """How many octets of this peer are in memory."""

    def pause(self, holder: object) -> None:
        """Stop reading until :meth:`resume`."""

    def resume(self, holder: object) -> None:
        """Read again."""

    def refused(self, refusal: Refusal) -> None:
        """Let the log say that this peer is refused."""

    def abort(self) -> None:
        """End it: A-ABORT."""


class MemoryBudget:
    """What the associations of an application entity hold in memory.

    Args:
        limit: How many octets they may hold; None means any number.
        clock: Gives the clock.

    Attributes:
        total: How many octets they held when that was looked at last.
    """

    def __init__(self, limit: int | None, clock: Callable[[], IReactorTime]) -> None:
        if limit is not None:
            check_number("memory_limit", limit, 1, unit="octets")
        self.limit = limit
        self.total = 0
        self._clock = clock
        self._holders: set[Holder] = set()
        self._waiting: dict[Holder, None] = {}  # in the order in which they were paused
        self._since = 0.0  # when it was overdrawn
        self._received = 0  # octets since the last look
        self._next: IDelayedCall | None = None

    @property
    def held(self) -> int:
        """How many octets the associations hold now."""
        return sum(each.held for each in self._holders)

    @property
    def waiting(self) -> int:
        """How many associations are not read at the moment."""
        return len(self._waiting)

    @property
    def is_overdrawn(self) -> bool:
        """Whether new associations must be rejected."""
        return bool(self._waiting)

    def add(self, holder: Holder) -> None:
        """An association begins."""
        self._holders.add(holder)

    def discard(self, holder: Holder) -> None:
        """An association is gone."""
        self._holders.discard(holder)
        self._waiting.pop(holder, None)
        if self._waiting or not self._next:
            return
        self._next.cancel()
        self._next = None

    def received(self, octets: int) -> None:
        """Octets came on some association."""
        self._received += octets
        if self.limit is not None and self._received * _PART >= self.limit:
            self._look()

    def _look(self) -> None:
        assert self.limit is not None
        self._received = 0
        held = {each: each.held for each in self._holders}
        self.total = sum(held.values())
        # Some room is left before they go on, so that not all of them come and go at every look.
        if self.total > (self.limit * 3 // 4 if self._waiting else self.limit):
            self._relieve(held)
        else:
            waiting, self._waiting = self._waiting, {}
            for holder in waiting:
                holder.resume(self)
        if self._waiting and self._next is None:
            self._next = self._clock().callLater(_LOOK, self._look_again)

    def _look_again(self) -> None:
        self._next = None
        self._look()

    def _relieve(self, held: dict[Holder, int]) -> None:
        """Let the greediest peer that does not wait wait; abort one when that does not help."""
        now = self._clock().seconds()
        if not self._waiting:
            self._since = now
        reading = [each for each in held if each not in self._waiting]
        if reading and self.total > (self.limit or 0):
            greediest = max(reading, key=held.__getitem__)
            if held[greediest]:
                self._waiting[greediest] = None
                greediest.pause(self)
        if now - self._since < PATIENCE:
            return
        self._since = now
        greediest = max(held, key=held.__getitem__)
        greediest.refused(
            Refusal(
                "memory",
                f"all associations together hold {self.total // _MIB} MiB in memory, this one "
                f"{held[greediest] // _MIB} MiB",
                f"at most {(self.limit or 0) // _MIB} MiB",
                "let the peer try again later, or raise memory_limit",
                verb="aborted the association with",
            )
        )
        greediest.abort()
