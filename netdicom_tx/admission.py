"""Decides which peers are served when not all can be: places for associations, and connections without a request.

:class:`Admission` knows every connection that a peer has opened, from the moment it is accepted by the transport. When
all places are taken, an association on which nothing happens is aborted for the next one. So a peer that only holds
connections open, or sends an octet now and then, does not keep others out.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReactorTime

from .arguments import check_number
from .exceptions import NetDICOMError
from .refusals import Refusal, place

__all__ = [
    "ACCEPTS_PER_TURN",
    "BACKLOG",
    "BURST_LIMIT",
    "GIVE_WAY",
    "HALF_OPEN_LIMIT",
    "Admission",
    "Guest",
    "accept_in_turns",
]

#: How many connections are accepted before those that exist are served again. Twisted accepts 100, and 20 more in each
#: turn that was not enough, so that a flood of connections would keep out everybody else.
ACCEPTS_PER_TURN: Final = 16

#: How many connections wait in the kernel to be accepted.
BACKLOG: Final = 1024
#: How many connections may exist for more than :data:`GIVE_WAY` seconds on which no A-ASSOCIATE-RQ has come yet. For
#: one more, the oldest one of the host with the most of them is closed.
HALF_OPEN_LIMIT: Final = 64
#: How many may exist at all, or as many as there may be associations, if that is more: many peers may call in the same
#: moment, and their requests are on the way.
BURST_LIMIT: Final = 1024
#: How many octets of incomplete requests may be in memory. When there are more, the connection with most is closed.
HALF_OPEN_OCTETS: Final = 1 << 24
# After how many octets that are received, of whatever kind, it is looked at.
_LOOK_OCTETS: Final = 1 << 22
#: After how many seconds of silence an association may be aborted for another one.
GIVE_WAY: Final = 1.0


class Guest(Protocol):
    """An association that a peer has opened, or is about to open."""

    peer_address: IAddress | None

    @property
    def peer_title(self) -> str:
        """The AE title of the peer, safe for logs."""

    @property
    def error(self) -> NetDICOMError | None:
        """Why it is over; None while it is not."""

    @property
    def is_requested(self) -> bool:
        """Whether the A-ASSOCIATE-RQ has come."""

    @property
    def operations(self) -> int:
        """How many requests of either side have no final response yet."""

    @property
    def is_owed(self) -> bool:
        """Whether the peer waits for something from this side other than a response."""

    @property
    def is_slow(self) -> bool:
        """Whether the peer has begun a message and sends less of it than is worth a place."""

    @property
    def age(self) -> float:
        """How many seconds ago the connection was opened."""

    @property
    def held(self) -> int:
        """How many octets of this peer are in memory."""

    @property
    def silence(self) -> float:
        """How many seconds ago something came last."""

    def refused(self, refusal: Refusal) -> None:
        """Let the log say that this peer is refused."""

    def abort(self) -> None:
        """End it: A-ABORT."""

    def drop(self) -> None:
        """Close the connection at once."""


class Admission:
    """The connections that peers have opened with one application entity.

    Args:
        total: How many associations peers may have open at the same time; None means any number.
        per_host: How many associations one host may have open; None means any number. The loopback interface is
            exempt, because a proxy on this machine stands for many hosts.
        per_title: How many associations may be open with one calling AE title; None means any number.
        clock: Gives the clock by which connections without a request are looked at again.
    """

    def __init__(
        self,
        total: int | None = None,
        per_host: int | None = None,
        per_title: int | None = None,
        clock: Callable[[], IReactorTime] | None = None,
    ) -> None:
        if total is not None:
            check_number("max_associations", total, 0)
        if per_host is not None:
            check_number("max_associations_per_host", per_host, 1)
        if per_title is not None:
            check_number("max_associations_per_title", per_title, 1)
        self.total = total
        self.per_host = per_host
        self.per_title = per_title
        # In the order in which they came, with their hosts; "" is unknown, or not limited.
        self._half_open: dict[Guest, str] = {}
        self._asked: dict[Guest, str] = {}
        #: How many associations a host has with other processes of this application entity.
        self.elsewhere: Callable[[str], int] = _nowhere
        self._clock = clock
        self._look: IDelayedCall | None = None
        self._received = 0  # octets since the last look at what is held

    def opened(self, guest: Guest) -> None:
        """A peer has connected."""
        self._half_open[guest] = _host(guest)
        self._relieve()

    def _relieve(self) -> None:
        """Close the oldest connections without a request when there are too many."""
        while len(self._half_open) > HALF_OPEN_LIMIT:
            crowd, _ = Counter(self._half_open.values()).most_common(1)[0]
            oldest = next(each for each, host in self._half_open.items() if host == crowd)
            is_burst = len(self._half_open) <= max(BURST_LIMIT, self.total or 0)
            if oldest.age < GIVE_WAY and is_burst:
                self._look_again()
                return
            self._close(
                oldest,
                f"{HALF_OPEN_LIMIT} other connections have sent no A-ASSOCIATE-RQ yet either",
            )

    def received(self, octets: int) -> None:
        """Octets came on some connection."""
        self._received += octets
        if self._received < _LOOK_OCTETS:
            return
        self._received = 0
        held = {each: each.held for each in self._half_open}
        total = sum(held.values())
        for guest in sorted(held, key=held.__getitem__, reverse=True):
            if total <= HALF_OPEN_OCTETS:
                return
            total -= held[guest]
            self._close(
                guest,
                f"incomplete requests for associations fill {HALF_OPEN_OCTETS >> 20} MiB, this one "
                f"{held[guest] >> 10} KiB",
            )

    def _close(self, guest: Guest, why: str) -> None:
        """Close a connection without a request."""
        del self._half_open[guest]
        guest.refused(Refusal("half open", why, verb="closed the connection from"))
        guest.drop()

    def _look_again(self) -> None:
        if self._look is None and self._clock is not None:
            self._look = self._clock().callLater(GIVE_WAY, self._looked)

    def _looked(self) -> None:
        self._look = None
        self._relieve()

    def asks(self, guest: Guest) -> bool:
        """The A-ASSOCIATE-RQ of a connection came.

        Returns:
            Whether there is a place for the association, also one that another association has just given up.
        """
        host = self._half_open.pop(guest, None)
        host = _host(guest) if host is None else host
        is_admitted = self._has_place(guest, host)
        if is_admitted:
            self._asked[guest] = host
        return is_admitted

    def closed(self, guest: Guest) -> None:
        """The connection is gone."""
        self._half_open.pop(guest, None)
        self._asked.pop(guest, None)
        if self._look is not None and not self._half_open:
            self._look.cancel()
            self._look = None

    def _has_place(self, guest: Guest, host: str) -> bool:
        # An association that gives way for one of these limits leaves its place to the others, too.
        if self.per_host is not None and host:
            neighbours = self._taken(guest, host)
            if len(neighbours) + self.elsewhere(host) >= self.per_host:
                return self._make_room(neighbours, guest)
        if self.per_title is not None:
            namesakes = [each for each in self._taken(guest) if each.peer_title == guest.peer_title]
            if len(namesakes) >= self.per_title:
                return self._make_room(namesakes, guest)
        # Usually there are places, and nothing has to be counted.
        if self.total is not None and len(self._asked) >= self.total:
            taken = self._taken(guest)
            if len(taken) >= self.total:
                return self._make_room(taken, guest)
        return True

    def _taken(self, guest: Guest, host: str | None = None) -> list[Guest]:
        """The associations that take a place: also those that are being decided on, but not those that are over."""
        return [
            each
            for each, its_host in self._asked.items()
            if each.error is None and each is not guest and host in (None, its_host)
        ]

    def _make_room(self, taken: list[Guest], guest: Guest) -> bool:
        """Abort one association on which nothing happens; False when there is no such association."""
        candidates = [each for each in taken if _may_give_way(each)]
        if not candidates:
            return False
        crowds = Counter(self._asked[each] for each in taken)
        loser = max(
            candidates,
            key=lambda each: (each.is_slow, crowds[self._asked[each]], each.silence),
        )
        loser.refused(
            Refusal(
                "gives way",
                f"nothing useful came for {loser.silence:.0f} s and all places are taken; its place goes to "
                + place(guest.peer_address),
                verb="aborted the association with",
            )
        )
        loser.abort()
        return True


def accept_in_turns(port: IListeningPort) -> IListeningPort:
    """Bound how many connections a port of Twisted accepts in a turn of the reactor, and return the port.

    More of them wait in the kernel then. If they were too many for its queue, it would drop the next one, whose sender
    tries again only after a second, and then after two.
    """
    any_port: Any = port  # of TCP or of a UNIX socket, which the interface does not tell
    accept = getattr(port, "doRead", None)
    if accept is not None and hasattr(port, "numberAccepts"):

        def accept_some() -> object:
            any_port.numberAccepts = min(any_port.numberAccepts, ACCEPTS_PER_TURN)
            return accept()

        any_port.doRead = accept_some
        handle = getattr(port, "socket", None)
        if isinstance(handle, socket.socket):
            handle.listen(BACKLOG)
    return port


def _nowhere(host: str) -> int:
    """There are no other processes."""
    return 0


def _may_give_way(guest: Guest) -> bool:
    if guest.is_slow:
        return True
    return not guest.operations and not guest.is_owed and guest.silence >= GIVE_WAY


def _host(guest: Guest) -> str:
    """The host of a peer; empty when it is unknown or is this machine."""
    host = getattr(guest.peer_address, "host", "")
    return "" if not host or _is_this_machine(host) else str(host)


@lru_cache(maxsize=1024)
def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
