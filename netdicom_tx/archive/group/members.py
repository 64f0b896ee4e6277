"""The nodes that share an archive: each sends a heartbeat every few seconds, into its row of the table ``node``.

A node whose last heartbeat is more than :data:`DEAD_AFTER` seconds old, by the clock of the database, counts as dead.
When it comes back it continues, unless another process has taken its row in the meantime. All methods block. This
module depends neither on Twisted nor on the store.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa

from ...exceptions import NetDICOMError
from ..index import migrations
from ..index.engine import IndexUnusableError, be_brief, begin_to_write
from ..index.together import is_server, moment
from .tables import duty_table, node_table

__all__ = [
    "BEAT",
    "DEAD_AFTER",
    "MemberError",
    "Members",
    "Node",
    "NodeState",
    "OwnNode",
    "ReplacedError",
    "check_upgrade",
    "database_time",
    "is_dead",
    "lock_of",
    "members_of",
]

#: Seconds between two heartbeats.
BEAT: Final = 5.0
#: After how many seconds without a heartbeat a node counts as dead.
DEAD_AFTER: Final = 30.0
#: How many seconds the clock of a node may differ from that of the database, and from how many on this is logged.
SKEW_LIMIT: Final = 60.0
SKEW_TOLD: Final = 2.0
# After how many seconds without a heartbeat a node is removed from the list: 30 days.
_FORGOTTEN_AFTER: Final = 30 * 86400.0
# The run of a node that another one of its name has replaced, and for how many seconds its row stays at least: longer
# than the document of the store counts, see the module "usage".
_REPLACED: Final = ""
_REPLACED_FOR: Final = 3600.0
# For how many heartbeats a node watches another one that has its identity.
_WATCHED: Final = 2.5

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

_T = TypeVar("_T")
_N = node_table.c


class GroupDatabase(Protocol):
    """The part of an :class:`~netdicom_tx.archive.index.index.Index` that is needed here."""

    def write_apart(self, call: Callable[[sa.Connection], _T]) -> _T:
        """Call a function in a transaction of its own."""

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection for reading."""


class MemberError(IndexUnusableError):
    """The node cannot join the nodes that share its archive."""


class ReplacedError(NetDICOMError):
    """Another process has taken the place of this node."""


class NodeState(StrEnum):
    """The state of a node.

    Attributes:
        DEAD: It has sent no heartbeat for :data:`DEAD_AFTER` seconds. The table never has this state.
    """

    ALIVE = "alive"
    DRAINING = "draining"
    STOPPED = "stopped"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnNode:
    """What a node writes about itself into its row.

    Attributes:
        uuid: Identifies the node, also after a restart.
        name: Its name, which no other running node has.
        place: Its own directory.
        address: Where it listens.
        version: The version of the program.
        schema: The newest schema version that it knows.
        lock: What the lock of its directory protects, see :func:`lock_of`.
    """

    uuid: str
    name: str
    place: str = ""
    lock: str = ""
    address: str = ""
    version: str = ""
    schema: int = 0
    host: str = socket.gethostname()


class Node(NamedTuple):
    """A node of the group.

    Attributes:
        started: When it was started, in seconds since 1970.
        last: When it sent its last heartbeat, likewise.
        seen: How many seconds ago that was.
        doing: What it does, as it has written with that heartbeat.
        duties: The duties that it has.
    """

    uuid: str
    name: str
    host: str
    place: str
    address: str
    version: str
    schema: int
    run: str
    started: float
    last: float
    seen: float
    state: NodeState
    doing: Mapping[str, Any]
    duties: tuple[str, ...]

    @property
    def sign(self) -> tuple[str, str, float]:
        """A value that changes with each heartbeat."""
        return self.uuid, self.run, self.last

    @property
    def is_running(self) -> bool:
        """Whether the node runs, even if it accepts no more associations."""
        return self.state in (NodeState.ALIVE, NodeState.DRAINING)


def database_time(connection: sa.Connection) -> float:
    """The seconds since 1970 by the clock of the database."""
    if not is_server(connection):
        return time.time()
    return float(connection.scalar(sa.select(moment(connection))) or 0.0)


def lock_of(directory: Path) -> str:
    """What the lock of a directory protects: another text on another machine, and for a copy of the directory.

    A copy of a whole machine has its name, its paths and its files, but was booted on its own.
    """
    found = directory.stat()
    with suppress(OSError):
        boot = _BOOT.read_text("ascii").strip()
        return hashlib.sha256(f"{boot} {found.st_dev} {found.st_ino}".encode()).hexdigest()[:16]
    return f"{found.st_dev}-{found.st_ino}"


def is_dead(node: sa.ColumnElement[str], now: Any) -> sa.ColumnElement[bool]:
    """A condition for statements about other tables: the node is known and does not run.

    Args:
        node: The column with the UUID of the node.
        now: The time of the database, as a value or an expression.
    """
    gone = sa.or_(_N.state == NodeState.STOPPED, _N.seen < now - DEAD_AFTER)
    return sa.exists().where(_N.uuid == node, gone)


def members_of(connection: sa.Connection) -> list[Node]:
    """All nodes that the database knows, by name, without those that others of their name have replaced."""
    if not sa.inspect(connection).has_table(node_table.name):
        return []
    now = database_time(connection)
    duties: dict[str, list[str]] = {}
    held = sa.select(duty_table.c.node, duty_table.c.name).where(duty_table.c.until > now)
    for node, name in connection.execute(held.order_by(duty_table.c.name)):
        duties.setdefault(node, []).append(name)
    return [
        _node(row, now, tuple(duties.get(row.uuid, ())))
        for row in connection.execute(
            sa.select(node_table).where(_N.run != _REPLACED).order_by(_N.name, _N.uuid)
        )
    ]


def _node(row: sa.Row[Any], now: float, duties: tuple[str, ...]) -> Node:
    seen = max(0.0, now - row.seen)
    state = NodeState(row.state)
    if state is not NodeState.STOPPED and seen > DEAD_AFTER:
        state = NodeState.DEAD
    try:
        doing = json.loads(row.doing or "{}")
    except ValueError:
        doing = {}
    return Node(
        *(row.uuid, row.name, row.host, row.place, row.address, row.version, row.schema, row.run),
        *(row.started, row.seen, seen, state, doing, duties),
    )


def _nothing() -> None:
    """Do nothing: there are no duties to renew."""


def check_upgrade(connection: sa.Connection, node: str = "") -> None:
    """Check that the tables may be upgraded while other nodes run. This changes nothing.

    Args:
        node: The UUID of the node that would upgrade them.

    Raises:
        MemberError: A node runs that cannot work with the newer tables.
    """
    found = migrations.version_of(connection)
    if not 0 < found < migrations.VERSION:
        return
    for each in members_of(connection):
        if each.is_running and each.uuid != node and each.schema < migrations.OLDEST:
            raise MemberError(
                f"the database has schema version {found}, and the node {each.name} on {each.host} (netdicom_tx "
                f"{each.version}) works with versions up to {each.schema}: stop it before this program upgrades the "
                f"database to version {migrations.VERSION}"
            )


class Members:
    """The row of one node, and those of the others.

    Args:
        database: The database, from :meth:`join` to :meth:`leave`.
        me: What the node writes about itself.
        renew: Called inside the transaction of each heartbeat, with the time of the database. It renews the duties of
            the node, and returns a function to call when the transaction is committed.
        beat: Seconds between two heartbeats.
        sleep: Waits for some seconds.
        clock: Gives the seconds since 1970 by the clock of this machine.
    """

    def __init__(
        self,
        database: GroupDatabase,
        me: OwnNode,
        renew: Callable[[sa.Connection, float], Callable[[], object]] = lambda *_: _nothing,
        *,
        beat: float = BEAT,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.me = me
        self.beat_seconds = beat
        #: By how many seconds the clock of this machine is ahead of that of the database.
        self.skew = 0.0
        self._database = database
        self._renew = renew
        self._sleep = sleep
        self._clock = clock
        self._run = ""

    # -- coming and going ----------------------------------------------------------------------------

    def join(self, *, only_one: str = "") -> list[Node]:
        """Write the row of the node, which is alive from now on.

        A node with the same identity or name whose last heartbeat is recent may be a process that was killed. So it
        is watched for a few seconds, and prevents the start only if it sends another heartbeat.

        Args:
            only_one: Why no other node may run on the database; empty when others may.

        Returns:
            The other nodes that run.

        Raises:
            MemberError: A node with this name or identity runs elsewhere, or the clock of this machine is wrong.
            IndexUnavailableError: The database refuses.
        """
        run = f"{self.me.lock}.{uuid.uuid4().hex}"
        rivals = self._rivals(self.all(), only_one)
        if rivals:
            self._sleep(self.beat_seconds * _WATCHED)
            signs = {each.sign for each in rivals}
            for each in self._rivals(self.all(), only_one):
                if each.sign not in signs:
                    raise self._in_the_way(each, only_one)
        self._check_clock()
        self._database.write_apart(lambda connection: self._enter(connection, run))
        self._run = run
        return [each for each in self.all() if each.uuid != self.me.uuid and each.is_running]

    def all(self) -> list[Node]:
        """All nodes that the database knows, by name.

        Raises:
            IndexUnavailableError: The database refuses.
        """
        with self._database.reading() as reading:
            return members_of(reading)

    def _rivals(self, nodes: Sequence[Node], only_one: str) -> list[Node]:
        """The running nodes that have the identity of this one, or must not run beside it."""
        return [
            each
            for each in nodes
            if each.is_running
            and (only_one or each.uuid == self.me.uuid or each.name == self.me.name)
            # The directory is locked, so the process of this machine that has used it last has ended.
            and (each.uuid, each.host, each.place, each.run.partition(".")[0])
            != (self.me.uuid, self.me.host, self.me.place, self.me.lock)
        ]

    def _in_the_way(self, other: Node, only_one: str) -> MemberError:
        if other.uuid == self.me.uuid:
            return MemberError(
                f"the node {other.name} runs on {other.host} with the identity of this one: a copy of its directory "
                "must not run beside it; stop that node, or give this one an empty [storage] directory"
            )
        if other.name != self.me.name:
            return MemberError(f"the node {other.name} runs on {other.host}, and {only_one}")
        return MemberError(
            f"another node called {other.name} runs on {other.host}, and each node of a group needs a name of its "
            "own: choose another one ([node] name), or stop that node"
        )

    def _check_clock(self) -> None:
        before = self._clock()
        with self._database.reading() as reading:
            now = database_time(reading)
        self._note_skew(before, now)
        if abs(self.skew) > SKEW_LIMIT:
            way = "ahead of" if self.skew > 0 else "behind"
            raise MemberError(
                f"the clock of this machine is {abs(self.skew):.0f} s {way} that of the database, and at most "
                f"{SKEW_LIMIT:.0f} s are accepted: set the clocks by NTP"
            )

    def _note_skew(self, before: float, now: float) -> None:
        """Reckon the difference, in favour of this clock: the answer came somewhere between two looks at it."""
        after = self._clock()
        self.skew = before - now if now < before else after - now if now > after else 0.0

    def _enter(self, connection: sa.Connection, run: str) -> None:
        begin_to_write(connection)
        be_brief(connection)
        now = database_time(connection)
        me = self.me
        values: dict[str, Any] = {
            "name": me.name,
            "host": me.host,
            "place": me.place,
            "address": me.address,
            "version": me.version,
            "schema": me.schema,
            "run": run,
            "started": now,
            "seen": now,
            "state": NodeState.ALIVE.value,
            "doing": "{}",
        }
        changed = connection.execute(
            node_table.update().where(_N.uuid == me.uuid).values(**values)
        ).rowcount
        if not changed:
            connection.execute(node_table.insert().values(uuid=me.uuid, **values))
        # A node that another one of this name has replaced is not listed any more. Its row stays for a while, because
        # the document of the store may name it.
        replaced = sa.and_(_N.name == me.name, _N.uuid != me.uuid)
        connection.execute(
            node_table.update()
            .where(replaced)
            .values(run=_REPLACED, state=NodeState.STOPPED.value, doing="{}")
        )
        gone = sa.and_(_N.run == _REPLACED, _N.seen < now - _REPLACED_FOR)
        connection.execute(
            node_table.delete().where(sa.or_(gone, _N.seen < now - _FORGOTTEN_AFTER))
        )

    def beat(
        self, doing: Mapping[str, Any] | None = None, state: NodeState = NodeState.ALIVE
    ) -> None:
        """Send a heartbeat.

        Args:
            doing: What the node does, for ``netdicom node list``.

        Raises:
            ReplacedError: Another process has taken the place of this node.
            IndexUnavailableError: The database refuses.
        """

        def call(connection: sa.Connection) -> tuple[float, float, Callable[[], object]] | None:
            begin_to_write(connection)
            be_brief(connection)
            before = self._clock()
            now = database_time(connection)
            changed = connection.execute(
                node_table.update()
                .where(_N.uuid == self.me.uuid, _N.run == self._run)
                .values(seen=now, state=state.value, doing=json.dumps(doing or {}))
            ).rowcount
            if not changed:
                return None
            return before, now, self._renew(connection, now)

        done = self._database.write_apart(call)
        if done is None:
            raise ReplacedError(
                f"another process runs as the node {self.me.name}, or its row was deleted: this one must stop"
            )
        before, now, committed = done
        committed()
        self._note_skew(before, now)

    def leave(self) -> None:
        """Write that the node has stopped, and give up its duties.

        Raises:
            IndexUnavailableError: The database refuses. The node counts as dead later.
        """

        def call(connection: sa.Connection) -> None:
            begin_to_write(connection)
            be_brief(connection)
            now = database_time(connection)
            changed = connection.execute(
                node_table.update()
                .where(_N.uuid == self.me.uuid, _N.run == self._run)
                .values(seen=now, state=NodeState.STOPPED.value, doing="{}")
            ).rowcount
            if changed:
                connection.execute(
                    duty_table.update().where(duty_table.c.node == self.me.uuid).values(until=0.0)
                )

        self._database.write_apart(call)
