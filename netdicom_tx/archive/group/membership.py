"""The membership of a node in its group: it joins the other nodes, sends heartbeats, and leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from time import monotonic
from typing import Any, Final

from ...logs import Logger
from ..index.index import IndexUnavailableError
from .duties import AllDuties, Duties, Duty
from .members import (
    DEAD_AFTER,
    SKEW_TOLD,
    GroupDatabase,
    Members,
    Node,
    NodeState,
    OwnNode,
    ReplacedError,
)

__all__ = ["Membership"]

# No duties, as long as the log has named none.
_NONE: Final[tuple[str, ...]] = ()


def _nothing() -> None:
    """Tell nobody."""


class Membership:
    """A node in its group, from :meth:`join` to :meth:`leave`. A thread of its own sends the heartbeats.

    Args:
        index: The database, which is open.
        is_group: Whether other nodes may share the archive, so that each duty belongs to one of them.
        threads: With 0 there is no thread; call :meth:`beat` instead.
        wait: Waits for some seconds, or until the node leaves; returns whether it leaves.

    Attributes:
        doing: Returns what the node does, for ``netdicom node list``.
        state: Returns the state of the node.
        sleep: Waits for some seconds before the node joins, if another one has its identity.
        on_replaced: Called in the thread when another process has taken the place of this node, which must stop.
    """

    _log = Logger()

    def __init__(
        self,
        index: GroupDatabase,
        *,
        is_group: bool,
        threads: int = 1,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._index = index
        self._threads = threads
        self.is_group = is_group
        self.doing: Callable[[], Mapping[str, Any]] = dict
        self.state: Callable[[], NodeState] = lambda: NodeState.ALIVE
        self.on_replaced: Callable[[], object] = _nothing
        self.sleep: Callable[[float], object] = time.sleep
        self.is_replaced = False
        self._members: Members | None = None
        self._duties: AllDuties = AllDuties()
        self._own: Duties | None = None
        self._over = threading.Event()
        self._soon = threading.Event()
        self._wait = wait or self._rest
        self._thread: threading.Thread | None = None
        self._silent_since: float | None = None
        self._is_skew_told = False
        self._held = _NONE

    @property
    def is_joined(self) -> bool:
        """Whether the node has joined the others."""
        return self._members is not None

    @property
    def duties(self) -> tuple[str, ...]:
        """The duties that the node has."""
        return self._duties.held

    @property
    def skew(self) -> float:
        """By how many seconds the clock of this machine is ahead of that of the database."""
        return 0.0 if self._members is None else self._members.skew

    def holds(self, duty: Duty | str) -> bool:
        """Whether this node has a duty."""
        return self._duties.holds(duty)

    def trouble(self) -> str:
        """What is wrong with the membership; empty when nothing is."""
        if self.is_replaced:
            return "another process runs as this node"
        silent = self._silent_since
        if self.is_group and silent is not None and monotonic() - silent > DEAD_AFTER:
            return "the other nodes take this one for dead, because the database does not answer"
        return ""

    def figures(self) -> dict[str, Any] | None:
        """The figures of the group, as a ``Group`` of the snapshots without its time; blocks.

        Raises:
            IndexUnavailableError: The database refuses.
        """
        members = self._members
        if members is None:
            return None
        return {
            "node": members.me.name,
            "duties": list(self.duties) if self.is_group else [],
            "skew": members.skew,
            "nodes": [
                {
                    "name": each.name,
                    "host": each.host,
                    "version": each.version,
                    "state": each.state.value,
                    "seen": each.seen,
                    "duties": list(each.duties),
                    "associations": int(each.doing.get("associations", 0)),
                }
                for each in members.all()
            ],
        }

    # -- the life --------------------------------------------------------------------------------------

    def prepare(self, node: str, wanted: Collection[Duty | str]) -> AllDuties:
        """Set the identity of this node, before it joins the others.

        Args:
            node: The UUID of the node.
            wanted: The duties that it takes if no other node has them.

        Returns:
            The duties that it will have.
        """
        if self.is_group:
            self._own = self._duties = Duties(node, wanted)
        return self._duties

    def join(self, me: OwnNode, *, only_one: str = "") -> list[Node]:
        """Join the others; blocks.

        Args:
            only_one: Why no other node may run on the database; empty when others may.

        Returns:
            The other nodes that run.

        Raises:
            MemberError: The node cannot join them.
            IndexUnavailableError: The database refuses.
        """
        renew = (lambda *_: _nothing) if self._own is None else self._own.renew
        members = Members(self._index, me, renew, sleep=self.sleep)
        others = members.join(only_one=only_one)
        self._members = members
        self.is_replaced = False
        self._over.clear()
        self.beat()
        if self._threads:
            self._thread = threading.Thread(target=self._run, name="netdicom-member", daemon=True)
            self._thread.start()
        return others

    def _rest(self, seconds: float) -> bool:
        self._soon.wait(seconds)
        self._soon.clear()
        return self._over.is_set()

    def _run(self) -> None:
        members = self._members
        while members is not None and not self._wait(members.beat_seconds) and self.beat():
            pass

    def beat_soon(self) -> None:
        """Send a heartbeat at once, because the state has changed."""
        self._soon.set()

    def beat(self) -> bool:
        """Send a heartbeat; blocks.

        Returns:
            Whether the node is still a member.
        """
        members = self._members
        if members is None or self.is_replaced:
            return False
        began = monotonic()
        try:
            members.beat(self.doing(), self.state())
        except IndexUnavailableError as error:
            if self._silent_since is None:
                self._silent_since = began
                self._log.warn(
                    "the database does not answer: {error}; without it, this node counts as dead after {seconds} s",
                    error=error,
                    seconds=int(DEAD_AFTER),
                )
            return True
        except ReplacedError as error:
            self.is_replaced = True
            if self._own is not None:
                self._own.give_up()
            self._log.critical("{error}", error=error)
            self.on_replaced()
            return False
        except Exception:  # whatever it is, the thread must go on, or the node would count as dead
            self._log.failure("the node could not send a heartbeat")
            return True
        if self._silent_since is not None:
            self._silent_since = None
            self._log.info("the database answers again")
        self._tell(members)
        return True

    def _tell(self, members: Members) -> None:
        """Log what has changed."""
        is_wrong = abs(members.skew) > SKEW_TOLD
        if is_wrong and not self._is_skew_told:
            self._log.warn(
                "the clock of this machine is {seconds:.1f} s {way} that of the database: set the clocks by NTP",
                seconds=abs(members.skew),
                way="ahead of" if members.skew > 0 else "behind",
            )
        self._is_skew_told = is_wrong
        if self._own is not None and self._own.held != self._held:
            taken = [each for each in self._own.held if each not in self._held]
            self._held = self._own.held
            if taken:
                self._log.info("this node has the duties {duties} now", duties=", ".join(taken))

    def leave(self) -> None:
        """Give up the duties, and write that the node has stopped; blocks."""
        members, self._members = self._members, None
        self._over.set()
        self._soon.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        if self._own is not None:
            self._own.give_up()
        self._held = _NONE
        if members is not None and not self.is_replaced:
            try:
                members.leave()
            except IndexUnavailableError as error:
                self._log.warn(
                    "the others do not know that this node has stopped: {error}", error=error
                )
