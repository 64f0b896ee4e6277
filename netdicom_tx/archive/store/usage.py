"""Which database uses a shared store: two databases that were restored from one backup have the same identity.

Each of them would delete objects that the other one still needs. So the node that has the duty "deletion" leaves a
document in the store every minute, which says who it is, and when it was seen last by the clock of its database.
A database whose table ``node`` does not have that node, or has seen it only before that time, is another one. Its nodes
do not start, and delete no objects, until the document is a quarter of an hour old, or an operator says that the other
database is gone (``netdicom node adopt``).
"""

from __future__ import annotations

import json
import threading
from time import monotonic
from typing import Final, NamedTuple

import sqlalchemy as sa

from ...logs import Logger
from ..group.identity import ForeignError
from ..group.members import database_time
from ..group.tables import node_table
from ..index.index import Index
from .objects import ObjectStoreError
from .place import node_uuid
from .sharedstore import SharedStore

__all__ = ["DOCUMENT", "Usage", "check_usage"]

#: The name of the document.
DOCUMENT: Final = "used-by.json"
# How many seconds pass before the document is written again, and for how many it counts.
_WRITTEN_EVERY: Final = 60.0
_COUNTS: Final = 900.0
# By how many seconds a node may be ahead of its row: a standby server that takes over may have lost as much.
_LOST: Final = 30.0
_N = node_table.c


class _Used(NamedTuple):
    """Who uses a store.

    Attributes:
        node: The UUID of a node.
        when: When it was seen last, in seconds since 1970 by the clock of its database.
    """

    node: str
    name: str
    host: str
    database: str
    when: float

    def octets(self) -> bytes:
        return json.dumps(self._asdict(), indent=1).encode() + b"\n"

    @classmethod
    def of(cls, octets: bytes | None) -> _Used | None:
        """Read the document; None when there is none that can be read, so that it is written again."""
        try:
            found = json.loads(octets or b"")
            node, name, host, database, when = (found[each] for each in cls._fields)
            return cls(str(node), str(name), str(host), str(database), float(when))
        except (ValueError, KeyError, TypeError):
            return None


def check_usage(connection: sa.Connection, store: SharedStore, url: str) -> None:
    """Look whether another database uses a store, which is reachable; changes nothing.

    Args:
        url: The URL of this database, for people to read.

    Raises:
        ForeignError: It does.
        OSError: The store does not answer.
    """
    refusal = _refusal(connection, store, url)
    if refusal:
        raise ForeignError(refusal)


def _refusal(connection: sa.Connection, store: SharedStore, url: str) -> str:
    used = _Used.of(store.objects.document(DOCUMENT))
    if used is None:
        return ""
    ago = database_time(connection) - used.when
    if ago > _COUNTS:
        return ""
    seen = connection.scalar(sa.select(_N.seen).where(_N.uuid == used.node))
    if seen is not None and used.when <= seen + _LOST:
        return ""
    return (
        f"the node {used.name} on {used.host} used the store {store.objects.place} {max(0, ago):.0f} s ago with the "
        f"database {used.database}, which is not this one ({url}) though it has the same identity, as after the "
        "restore of a backup: give one of them a copy of the store; if the other one is gone, wait a quarter of an "
        "hour, or say so once: netdicom node adopt"
    )


class Usage:
    """The use of a shared store by one database. Any thread may call the methods, which block.

    Args:
        store: The store; it is open.
        index: The index with its database; likewise.
    """

    _log = Logger()

    def __init__(self, store: SharedStore, index: Index) -> None:
        self._store = store
        self._index = index
        self._guard = threading.Lock()
        self._written: float | None = None
        self._told = ""

    def confirm(self) -> None:
        """Look again before objects are deleted, and leave the document, if this node is known.

        Raises:
            ObjectStoreError: Another database uses the store, or the store does not answer.
            IndexUnavailableError: The database refuses.
        """
        with self._guard:
            with self._index.reading() as reading:
                refusal = _refusal(reading, self._store, str(self._index.url))
                own = _N.uuid == node_uuid(self._store)
                me = reading.execute(
                    sa.select(_N.uuid, _N.name, _N.host, _N.seen).where(own)
                ).one_or_none()
            if refusal:
                if self._told != refusal:
                    self._log.critical("no objects are deleted: {error}", error=refusal)
                self._told = refusal
                raise ObjectStoreError(refusal)
            self._told = ""
            if me is not None:
                uuid, name, host, seen = me
                used = _Used(uuid, name, host, str(self._index.url), seen)
                octets = used.octets()
                self._store.objects.put(DOCUMENT, (octets,), len(octets))
                self._written = monotonic()

    def keep(self) -> None:
        """Leave the document from time to time; see :meth:`confirm`."""
        written = self._written
        if written is None or monotonic() - written > _WRITTEN_EVERY:
            self.confirm()

    def forget(self) -> None:
        """Delete the document, because an operator says that no other database uses the store."""
        self._store.objects.delete([DOCUMENT])
