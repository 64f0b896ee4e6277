"""Sets of live associations that end together: those of one listener, or all of an application entity."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from .asceprovider import Association

__all__ = ["RELEASE_GRACE", "Associations"]

#: The seconds that a peer has to answer A-RELEASE-RQ when all associations are ended.
RELEASE_GRACE = 1.0


class Associations:
    """A set of live associations, and whether it accepts new ones.

    Args:
        clock: Returns the clock that :meth:`drain` uses.
    """

    def __init__(self, clock: Callable[[], IReactorTime]) -> None:
        self._clock = clock
        self._live: set[Association] = set()
        self._drained: list[defer.Deferred[None]] = []
        #: Whether a peer that requests an association must be rejected.
        self.is_draining = False

    def __iter__(self) -> Iterator[Association]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)

    def add(self, asce: Association) -> None:
        """The transport of an association is open."""
        self._live.add(asce)

    def discard(self, asce: Association) -> None:
        """The transport of an association is gone."""
        self._live.discard(asce)
        self._check_drained()

    def drain(self, grace: float) -> defer.Deferred[None]:
        """Accept no new association, let operations end, then end the associations.

        Idle associations are released at once, those with a running operation when it is done. A peer that
        does not answer A-RELEASE-RQ within :data:`RELEASE_GRACE` seconds gets an A-ABORT, and so do all others
        after ``grace`` seconds.

        Returns:
            Fires when no association is left. Cancelling it aborts all associations.
        """
        self.is_draining = True
        deadline = self._clock().callLater(grace, self._abort_all)

        def cancel(deferred: defer.Deferred[None]) -> None:
            self._drained.remove(deferred)
            self._abort_all()

        drained: defer.Deferred[None] = defer.Deferred(cancel)
        self._drained.append(drained)
        for asce in list(self._live):
            asce.finish(RELEASE_GRACE)
        self._check_drained()

        def finished(result: None) -> None:  # or a Failure, which is passed on as it came
            if deadline.active():
                deadline.cancel()
            return result

        return drained.addBoth(finished)

    def _abort_all(self) -> None:
        for asce in list(self._live):
            asce.abort()
            asce.hang_up(RELEASE_GRACE)

    def _check_drained(self) -> None:
        while self._drained and not self._live:
            self._drained.pop(0).callback(None)
