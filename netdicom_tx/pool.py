"""Associations that are kept for the next operation: reuse, limits, idle release, reconnect with back-off.

Opening an association costs a connection and two round trips; a thousand small operations should
share one. What is borrowed is given back open, and released when nobody has wanted it for a
while::

    pool = AssociationPool(ae)
    async with pool.association(remote) as asce:
        await asce.get_scu(VERIFICATION_SOP_CLASS)()
    ...
    await pool.close()
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from .applicationentity import AE, RemoteAE
from .asceprovider import Association
from .exceptions import (
    AssociationRejectedError,
    ConnectionLostError,
    DCMTimeoutError,
    LocalProtocolError,
    NetDICOMError,
)

__all__ = ["AssociationPool"]


class _Peer:
    """The associations with one peer for one set of contexts."""

    def __init__(self) -> None:
        self.idle: list[tuple[Association, IDelayedCall]] = []
        self.borrowed = 0
        self.waiting: deque[defer.Deferred[None]] = deque()


class AssociationPool:
    """Open associations, by peer and contexts.

    Args:
        ae: Who calls.
        limit: Associations with one peer at once, for each set of contexts; who wants more waits.
        idle: Seconds after which an association that nobody wants is released.
        attempts: To open an association, when the peer cannot be reached or says that it has no room now
            (rejected, transient); a permanent rejection is final at once.
        backoff: Seconds before the second attempt; doubled for each further one, with jitter.
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
        if limit < 1 or attempts < 1:
            raise LocalProtocolError("a pool needs a limit and attempts of 1 or more")
        self._ae = ae
        self._limit = limit
        self._idle = idle
        self._attempts = attempts
        self._backoff = backoff
        self._peers: dict[Hashable, _Peer] = {}
        self._is_closed = False

    @property
    def size(self) -> int:
        """Associations that are open, borrowed or idle."""
        return sum(len(peer.idle) + peer.borrowed for peer in self._peers.values())

    @asynccontextmanager
    async def association(
        self,
        remote_ae: RemoteAE,
        contexts: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> AsyncIterator[Association]:
        """Borrow an association for the time of an ``async with`` block.

        It is given back when the block ends, with or without an exception; one that is over, or on
        which something is still under way, is not used again.

        Args:
            remote_ae: As for :meth:`AE.request_association`, and so are the others.

        Raises:
            NetDICOMError: It cannot be opened, as :meth:`AE.request_association` says.
        """
        key = _key(remote_ae, contexts, options)
        peer = self._peers.setdefault(key, _Peer())
        await self._turn(peer)
        try:
            asce = self._healthy(peer) or await self._open(remote_ae, contexts, options)
        except BaseException:
            self._next(peer)
            raise
        try:
            yield asce
        finally:
            if asce.is_open and not asce.operations and not self._is_closed:
                call = self._ae.clock.callLater(self._idle, self._expire, peer, asce)
                peer.idle.append((asce, call))
            elif asce.is_open:
                asce.finish()
            self._next(peer)

    async def _turn(self, peer: _Peer) -> None:
        if self._is_closed:
            raise LocalProtocolError("the pool is closed")
        if peer.borrowed >= self._limit:
            waiting: defer.Deferred[None] = defer.Deferred(peer.waiting.remove)
            peer.waiting.append(waiting)
            await waiting  # whoever gave back left its place to us
        else:
            peer.borrowed += 1

    def _next(self, peer: _Peer) -> None:
        if peer.waiting:
            peer.waiting.popleft().callback(None)
        else:
            peer.borrowed -= 1

    def _healthy(self, peer: _Peer) -> Association | None:
        # The last given back is the least likely to have been closed by the peer meanwhile.
        while peer.idle:
            asce, call = peer.idle.pop()
            call.cancel()
            if asce.is_open:
                return asce
        return None

    async def _open(
        self,
        remote_ae: RemoteAE,
        contexts: Mapping[str, Sequence[str]] | None,
        options: dict[str, Any],
    ) -> Association:
        delay = self._backoff
        for attempt in range(1, self._attempts + 1):
            try:
                return await self._ae.request_association(remote_ae, contexts, **options)
            except (AssociationRejectedError, ConnectionLostError, DCMTimeoutError) as error:
                final = isinstance(error, AssociationRejectedError) and error.result == 1
                if final or attempt == self._attempts or self._is_closed:
                    raise
                self._log.info(
                    "{peer}: attempt {attempt} of {attempts} failed: {error}",
                    peer=remote_ae.ae_title,
                    attempt=attempt,
                    attempts=self._attempts,
                    error=error,
                )
            # Jitter, so that many clients of a peer that comes back do not call at once.
            pause: defer.Deferred[None] = defer.Deferred()
            call = self._ae.clock.callLater(delay * random.uniform(0.5, 1), pause.callback, None)
            try:
                await pause
            finally:
                if call.active():
                    call.cancel()
            delay *= 2
        raise AssertionError("the loop returns or raises")

    def _expire(self, peer: _Peer, asce: Association) -> None:
        peer.idle = [entry for entry in peer.idle if entry[0] is not asce]
        asce.finish()

    async def close(self) -> None:
        """Release what is idle; what is borrowed ends when it is given back."""
        self._is_closed = True
        idle = [entry for peer in self._peers.values() for entry in peer.idle]
        for peer in self._peers.values():
            peer.idle = []
            while peer.waiting:
                peer.waiting.popleft().errback(LocalProtocolError("the pool is closed"))
        for asce, call in idle:
            if call.active():
                call.cancel()
            if asce.is_open:
                try:
                    await asce.release()
                except NetDICOMError as error:
                    self._log.debug("{asce}: {error}", asce=asce, error=error)


def _key(
    remote_ae: RemoteAE,
    contexts: Mapping[str, Sequence[str]] | None,
    options: dict[str, Any],
) -> Hashable:
    needs = None if contexts is None else tuple((k, tuple(v)) for k, v in contexts.items())
    return remote_ae, needs, tuple(sorted((k, repr(v)) for k, v in options.items()))
