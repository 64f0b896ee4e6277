"""Duties: work that only one node of a group may do at a time.

The table ``duty`` says which node has a duty, and until when, by the clock of the database. That node renews it with
each heartbeat (:mod:`~.members`). When the node stops, or has sent no heartbeat for :data:`TERM` seconds, the next node
that looks at the table takes the duty over. :meth:`Duties.holds` does not ask the database: it compares the monotonic
clock with the time at which the last renewal began.

A node that is alone has all duties, see :class:`AllDuties`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Final

import sqlalchemy as sa

from .tables import duty_table, node_table

__all__ = ["TERM", "AllDuties", "Duties", "Duty"]

#: How many seconds a duty lasts without being renewed.
TERM: Final = 30.0
# How many seconds before that the node stops beginning new work.
_MARGIN: Final = 5.0
_D = duty_table.c


class Duty(StrEnum):
    """The kinds of work that only one node of a group does."""

    RETENTION = "retention"
    SCRUB = "scrub"
    RECONCILE = "reconcile"
    DELETION = "deletion"
    WORKLIST = "worklist"


class AllDuties:
    """The duties of a node that runs alone: it has all of them."""

    def holds(self, duty: Duty | str) -> bool:
        """Whether this node may do this work now and for the next few seconds."""
        return True

    @property
    def held(self) -> tuple[str, ...]:
        """The duties that this node has, in alphabetical order."""
        return tuple(sorted(each.value for each in Duty))


class Duties(AllDuties):
    """The duties of one node of a group. Any thread may ask; only one thread at a time renews.

    Args:
        node: The UUID of the node.
        wanted: The duties that it takes if no other node has them.
        seconds: The monotonic clock.
    """

    def __init__(
        self,
        node: str,
        wanted: Collection[Duty | str] = tuple(Duty),
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node = node
        self.wanted = tuple(sorted(str(each) for each in wanted))
        self._seconds = seconds
        # Until when, by the monotonic clock.
        self._until: dict[str, float] = {}

    def holds(self, duty: Duty | str) -> bool:
        return self._seconds() < self._until.get(str(duty), 0.0)

    @property
    def held(self) -> tuple[str, ...]:
        return tuple(each for each in self.wanted if self.holds(each))

    def renew(self, connection: sa.Connection, now: float) -> Callable[[], None]:
        """Renew the duties of this node, and take those that no other node has, inside a transaction.

        Args:
            now: The time of the database.

        Returns:
            A function to call when the transaction is committed. The node has the duties from then on.
        """
        until = self._seconds() + TERM - _MARGIN
        found: dict[str, float] = {}
        known = set(connection.scalars(sa.select(_D.name)))
        for name in self.wanted:
            if name not in known:
                _make(connection, name)
            stopped = sa.exists().where(
                node_table.c.uuid == _D.node, node_table.c.state == "stopped"
            )
            is_free = sa.or_(_D.node == self.node, _D.until < now, stopped)
            since = sa.case((_D.node == self.node, _D.since), else_=now)
            # A node that was suspended in this transaction holds its rows. To wait for it would cost the heartbeat.
            row = sa.select(_D.name).where(_D.name == name).with_for_update(skip_locked=True)
            if connection.scalar(row) is None:
                continue
            taken = connection.execute(
                duty_table.update()
                .where(_D.name == name, is_free)
                .values(node=self.node, since=since, until=now + TERM)
            ).rowcount
            if taken:
                found[name] = until

        def committed() -> None:
            self._until = found

        return committed

    def give_up(self) -> None:
        """Have no duties any more."""
        self._until = {}


def _make(connection: sa.Connection, name: str) -> None:
    """Make the row of a duty, unless another node makes it at the same time."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgresql

        connection.execute(insert_postgresql(duty_table).values(name=name).on_conflict_do_nothing())
        return
    from sqlalchemy.dialects.sqlite import insert as insert_sqlite

    connection.execute(insert_sqlite(duty_table).values(name=name).on_conflict_do_nothing())
