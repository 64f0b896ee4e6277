"""Associations that are kept open for the next operation, within a limit for each peer.

Opening an association costs a connection and two round trips; a thousand small operations should
share one. An association that was borrowed stays open when it is given back, and is released when it has not been
used for a while::

    pool = AssociationPool(ae)
    async with pool.association(remote) as asce:
        await asce.get_scu(VERIFICATION_SOP_CLASS)()
    ...
    await pool.close()
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater

from .applicationentity import AE, Contexts, RemoteAE
from .arguments import check_number, check_seconds, check_type, many
from .asceprovider import Association
from .exceptions import (
    AssociationRejectedError,
    ConnectionLostError,
    DCMTimeoutError,
    LocalProtocolError,
)
from .logs import Logger
from .negotiation import context_entries
from .userdataitems import RoleSelection, UserDataItem

__all__ = ["AssociationPool"]


class _Wanted:
    """A request for an association: a peer, and what is proposed to it."""

    def __init__(
        self,
        remote_ae: RemoteAE,
        contexts: Contexts | None,
        for_files: Iterable[str | os.PathLike[str]] | None,
        roles: Iterable[RoleSelection],
        user_items: Iterable[UserDataItem],
    ) -> None:
        check_type(
            "remote_ae", remote_ae, RemoteAE, "a RemoteAE, such as RemoteAE.of('PACS@host:104')"
        )
        self.remote_ae = remote_ae
        self.contexts: Contexts | None = contexts
        pairs: tuple[tuple[str, tuple[str, ...]], ...] | None = None
        if contexts is not None:
            pairs = context_entries(contexts)
            self.contexts = dict(pairs) if isinstance(contexts, Mapping) else pairs
        self.for_files: tuple[str | os.PathLike[str], ...] | None = None
        if for_files is not None:
            self.for_files = many("for_files", for_files, (str, os.PathLike), "paths")
        self.roles = many("roles", roles, RoleSelection, "RoleSelection items")
        self.user_items = many("user_items", user_items, UserDataItem, "user data items")
        self.key: Hashable = (
            remote_ae,
            isinstance(contexts, Mapping),
            pairs,
            self.for_files,
            self.roles,
            self.user_items,
        )

    def open(self, ae: AE) -> defer.Deferred[Association]:
        return ae.request_association(
            self.remote_ae,
            self.contexts,
            for_files=self.for_files,
            roles=self.roles,
            user_items=self.user_items,
        )


class _Peer:
    """The associations with one peer for one set of contexts."""

    def __init__(self) -> None:
        self.idle: list[tuple[Association, IDelayedCall]] = []
        self.borrowed = 0
        self.waiting: deque[defer.Deferred[None]] = deque()

    @property
    def is_unused(self) -> bool:
        return not (self.idle or self.borrowed or self.waiting)


class AssociationPool:
    """Open associations, by peer and contexts.

    Args:
        ae: The application entity that calls.
        limit: How many associations with one peer may be borrowed at the same time, for each set of contexts. A
            borrower above the limit waits.
        idle: After how many seconds without use an association is released.
        attempts: How often the pool tries to open an association, when the peer cannot be reached or says that it
            has no room now (rejected, transient). A permanent rejection is final at once.
        backoff: How many seconds to wait before the second attempt; doubled for each further one, with jitter.

    Raises:
        TypeError, ValueError: An argument is wrong.
    """

    _log = Logger()

    def __init__(
        self,
        ae: AE,
        *,
        limit: int = 4,
        idle: float = 30.0,
        attempts: int = 3,
        backoff: float = 0.5,
    ) -> None:
        check_type("ae", ae, AE)
        check_number("limit", limit, 1)
        check_seconds("idle", idle, zero=True)
        check_number("attempts", attempts, 1)
        check_seconds("backoff", backoff, zero=True)
        self._ae = ae
        self._limit = limit
        self._idle = idle
        self._attempts = attempts
        self._backoff = backoff
        self._peers: dict[Hashable, _Peer] = {}
        self._ending: set[Association] = set()
        self._opening: set[defer.Deferred[Association]] = set()
        self._is_closed = False

    @property
    def size(self) -> int:
        """How many associations are open: borrowed, idle, or about to end."""
        kept = sum(len(peer.idle) + peer.borrowed for peer in self._peers.values())
        return kept + len(self._ending)

    @asynccontextmanager
    async def association(
        self,
        remote_ae: RemoteAE,
        contexts: Contexts | None = None,
        *,
        for_files: Iterable[str | os.PathLike[str]] | None = None,
        roles: Iterable[RoleSelection] = (),
        user_items: Iterable[UserDataItem] = (),
    ) -> AsyncIterator[Association]:
        """Borrow an association for the time of an ``async with`` block.

        It is given back when the block ends, with or without an exception. If an operation is still under way on it,
        it is not lent again: it ends after that operation, or is aborted after ``timeouts.response`` seconds.

        Args:
            remote_ae: The application entity to call. All arguments are those of
                :meth:`AE.request_association`.

        Cancelling what waits in the block, or for a place or a connection before it, gives the place back and
        raises CancelledError; the other borrowers are not disturbed.

        Raises:
            TypeError, ValueError: An argument is wrong.
            LocalProtocolError: The pool is closed.
            NetDICOMError: It cannot be opened, as :meth:`AE.request_association` says.
        """
        wanted = _Wanted(remote_ae, contexts, for_files, roles, user_items)
        peer = self._peers.setdefault(wanted.key, _Peer())
        try:
            await self._turn(peer)
            try:
                asce = self._healthy(peer) or await self._opened(wanted)
                try:
                    yield asce
                finally:
                    self._give_back(wanted.key, peer, asce)
            finally:
                self._next(peer)
        finally:
            self._forget_unused(wanted.key, peer)

    def _give_back(self, key: Hashable, peer: _Peer, asce: Association) -> None:
        if asce.is_open and not asce.operations and not self._is_closed:
            call = self._ae.clock.callLater(self._idle, self._expire, key, peer, asce)
            peer.idle.append((asce, call))
        else:
            self._end(asce)

    def _end(self, asce: Association) -> None:
        """End an association when its operations have ended, or after a while at the latest."""
        if asce.error is not None:
            return
        self._ending.add(asce)
        deadline = self._ae.clock.callLater(asce.timeouts.response, asce.abort)

        def ended(_: object) -> None:
            self._ending.discard(asce)
            if deadline.active():
                deadline.cancel()

        asce.closed().addCallback(ended)
        asce.finish()

    def _forget_unused(self, key: Hashable, peer: _Peer) -> None:
        if peer.is_unused and self._peers.get(key) is peer:
            del self._peers[key]

    async def _turn(self, peer: _Peer) -> None:
        if self._is_closed:
            raise LocalProtocolError("the pool is closed")
        if peer.borrowed >= self._limit:
            waiting: defer.Deferred[None] = defer.Deferred(peer.waiting.remove)
            peer.waiting.append(waiting)
            await waiting  # the caller that gave back its association left its place to this one
        else:
            peer.borrowed += 1

    def _next(self, peer: _Peer) -> None:
        if peer.waiting:
            peer.waiting.popleft().callback(None)
        else:
            peer.borrowed -= 1

    def _healthy(self, peer: _Peer) -> Association | None:
        # The peer is least likely to have closed the association that was given back last.
        while peer.idle:
            asce, call = peer.idle.pop()
            call.cancel()
            if asce.is_open:
                return asce
        return None

    async def _opened(self, wanted: _Wanted) -> Association:
        """A new association, unless the pool is closed meanwhile."""
        opening = defer.Deferred.fromCoroutine(self._open(wanted))
        self._opening.add(opening)
        try:
            return await opening
        except defer.CancelledError:
            if self._is_closed:
                raise LocalProtocolError("the pool is closed") from None
            raise
        finally:
            self._opening.discard(opening)

    async def _open(self, wanted: _Wanted) -> Association:
        delay = self._backoff
        for attempt in range(1, self._attempts + 1):
            try:
                return await wanted.open(self._ae)
            except (AssociationRejectedError, ConnectionLostError, DCMTimeoutError) as error:
                final = isinstance(error, AssociationRejectedError) and error.result == 1
                if final or attempt == self._attempts:
                    raise
                self._log.info(
                    "{peer}: attempt {attempt} of {attempts} failed: {error}",
                    peer=wanted.remote_ae.ae_title,
                    attempt=attempt,
                    attempts=self._attempts,
                    error=error,
                )
            # Jitter, so that many clients of a peer that comes back do not call at once.
            await deferLater(self._ae.clock, delay * random.uniform(0.5, 1))
            delay *= 2
        raise AssertionError("the loop returns or raises")

    def _expire(self, key: Hashable, peer: _Peer, asce: Association) -> None:
        peer.idle = [entry for entry in peer.idle if entry[0] is not asce]
        self._end(asce)
        self._forget_unused(key, peer)

    async def close(self) -> None:
        """Release idle associations, and lend no more. A borrowed association ends when it is given back.

        Borrowers that wait for a place or for a connection get a LocalProtocolError. Cancelling the wait for the end
        does not stop the associations from ending.

        Returns when the idle associations, and those that were about to end, have ended.
        """
        self._is_closed = True
        for key, peer in list(self._peers.items()):
            idle, peer.idle = peer.idle, []
            for asce, call in idle:
                call.cancel()
                self._end(asce)
            while peer.waiting:
                peer.waiting.popleft().errback(LocalProtocolError("the pool is closed"))
            self._forget_unused(key, peer)
        for opening in list(self._opening):
            opening.cancel()
        for asce in list(self._ending):
            await asce.closed()
