"""Which database and which store belong together: each has an ID, and each knows the ID of the other.

A database keeps its own ID in the table ``archive_identity``, and the IDs of its stores in the table ``store``. A store
has a document, ``identity.json``, which names both. A node that finds a database and a store which do not belong
together refuses to start, before it has changed a row or a file. Otherwise it would conclude that all files are lost.

==================  ==================  ===========================================================================
the database        the store           what a node does at its start
==================  ==================  ===========================================================================
new                 new                 gives both an ID
has rows, no ID     new                 gives both an ID if the store has files of the rows: an older version made them
new                 has a document      makes a new index of the files; refuses a store that nodes share
has an ID           the document fits   goes on
anything else                           refuses; ``netdicom node adopt`` lets an operator say that they belong together
==================  ==================  ===========================================================================

The database knows a store before the store gets its document, and notes when the document has been written. So a start
that was interrupted in between can be continued, and a store that has lost its document is refused. All functions
block.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import sqlalchemy as sa

from ..index.engine import IndexUnusableError, begin_to_write
from ..index.schema import instance
from ..index.together import is_server
from .members import GroupDatabase, check_upgrade, database_time
from .tables import identity_table, store_table

__all__ = [
    "DOCUMENT",
    "Bound",
    "Document",
    "ForeignError",
    "Place",
    "bind",
    "check",
    "check_own",
    "read_document",
    "sample",
    "write_document",
]

#: The name of the document of a store.
DOCUMENT: Final = "identity.json"
# How many rows are compared with files.
_SAMPLE: Final = 16
_LOCK: Final = int.from_bytes(b"identity", "big") & 0x7FFF_FFFF_FFFF_FFFF


class ForeignError(IndexUnusableError):
    """A database and a store do not belong together. Nothing was changed."""


class Document(NamedTuple):
    """The identity of a store, as its document has it.

    Attributes:
        database: The ID of its database.
        store: Its own ID.
        node: The ID of the node that owns the directory; empty for a store that nodes share.
    """

    database: str
    store: str
    node: str = ""

    def octets(self) -> bytes:
        """The document as a file."""
        return json.dumps(self._asdict(), indent=1).encode() + b"\n"

    @classmethod
    def of(cls, octets: bytes, where: str) -> Document:
        """Read a file.

        Raises:
            ForeignError: The file is not such a document.
        """
        try:
            found = json.loads(octets)
            return cls(*(str(found[each]) for each in cls._fields))
        except (ValueError, KeyError, TypeError) as error:
            raise ForeignError(
                f"{where} is not the identity of a store: restore it from a backup, or have the store adopted: "
                "netdicom node adopt"
            ) from error


class Place(Protocol):
    """The part of a store that is needed here."""

    @property
    def place(self) -> str:
        """Where the store is, for people to read."""

    @property
    def is_shared(self) -> bool:
        """Whether several nodes use the store."""

    def identity(self) -> Document | None:
        """The document of the store; None when it has none."""

    def own(self) -> Document | None:
        """The document in the directory of this node; None when it has none."""

    def put_identity(self, document: Document, *, replace: bool = False) -> Document:
        """Write the document; without ``replace``, an existing one stays. Returns the one that the store has then."""

    def has_any(self, paths: Sequence[str]) -> bool:
        """Whether the store has one of these files; the paths have the form of the index."""


class Bound(NamedTuple):
    """A database and a store that belong together.

    Attributes:
        database: The ID of the database.
        store: The ID of the store.
        store_id: The number of the store in the database.
        is_new: Whether they were bound to each other just now.
    """

    database: str
    store: str
    store_id: int
    is_new: bool


class _Store(NamedTuple):
    id: int
    uuid: str
    place: str
    marked: int


class _Facts(NamedTuple):
    """The identity that a database has, and a sample of its paths."""

    uuid: str
    stores: tuple[_Store, ...]
    sample: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.sample

    def named(self, uuid: str) -> _Store | None:
        return next((each for each in self.stores if each.uuid == uuid), None)

    @property
    def places(self) -> str:
        return " and ".join(each.place for each in self.stores) or "no store"


def _facts(connection: sa.Connection) -> _Facts:
    there = set(sa.inspect(connection).get_table_names())
    uuid, stores = "", []
    if identity_table.name in there:
        uuid = connection.scalar(sa.select(identity_table.c.uuid)) or ""
    if store_table.name in there:
        columns = (store_table.c[each] for each in _Store._fields)
        rows = connection.execute(sa.select(*columns).order_by(store_table.c.id))
        stores = [_Store(*each) for each in rows]
    return _Facts(uuid, tuple(stores), sample(connection) if instance.name in there else ())


def sample(connection: sa.Connection) -> tuple[str, ...]:
    """The paths of the first and the last rows, in the form of the index."""
    half = sa.select(instance.c.path).limit(_SAMPLE // 2)
    found: list[str] = []
    for order in (instance.c.id, instance.c.id.desc()):
        found += connection.scalars(half.order_by(order))
    return tuple(dict.fromkeys(found))


def _refusal(found: _Facts, document: Document | None, place: Place, url: str) -> str:
    """Why a database and a store do not belong together; empty when they do."""
    refusal = _refusal_of_store(found, document, place, url)
    own = place.own()
    if refusal or document is None or own is None or own[:2] == document[:2]:
        return refusal
    return (
        f"the directory of this node has been used for another archive than the store {place.place}: give the node "
        "an empty [storage] directory; if it does belong to this archive, say so once: netdicom node adopt"
    )


def _refusal_of_store(found: _Facts, document: Document | None, place: Place, url: str) -> str:
    adopt = "; if they do belong together, say so once: netdicom node adopt"
    if not found.uuid:
        if found.is_empty:
            if document is not None and place.is_shared:
                return (
                    f"the store {place.place} belongs to another database than {url}, which is empty: name the "
                    f"database that the other nodes have ([database] url){adopt}"
                )
            return ""
        if place.has_any(found.sample):
            return ""
        return (
            f"the database {url} has rows, but {place.place} has none of their files: name the storage of this "
            f"database, or another database{adopt}"
        )
    if document is None:
        if any(not each.marked and each.place == place.place for each in found.stores):
            return ""  # the first start was interrupted
        return (
            f"the database {url} belongs to the store in {found.places}, and {place.place} has no {DOCUMENT}: name "
            f"the right storage, or restore that file from a backup{adopt}"
        )
    if document.database != found.uuid:
        return (
            f"the store {place.place} belongs to another database than {url}, which belongs to the store in "
            f"{found.places}: name the database of this store, or the store of this database{adopt}"
        )
    if found.named(document.store) is None:
        return (
            f"the store {place.place} is another one than the database {url} knows, which is in {found.places}: "
            f"name the right storage{adopt}"
        )
    return ""


def check(connection: sa.Connection, place: Place, url: str) -> None:
    """Check that a database and a store belong together. This changes nothing; the tables may be missing or old.

    Raises:
        ForeignError: They do not.
    """
    found, document = _seen(connection, place)
    refusal = _refusal(found, document, place, url)
    if refusal:
        raise ForeignError(refusal)


def _seen(connection: sa.Connection, place: Place) -> tuple[_Facts, Document | None]:
    """Read the identities of a database and a store; another node may be writing them at the same time."""
    document = place.identity()
    while True:
        connection.rollback()  # what has been read before may be old
        found, before = _facts(connection), document
        document = place.identity()
        if document == before:
            return found, document


def check_own(connection: sa.Connection, directory: Path, url: str) -> None:
    """Check that a database belongs to the node that owns a directory. This changes nothing, and the node may run.

    Raises:
        ForeignError: It belongs to another one.
        MemberError: The tables would have to be upgraded, and a node runs that cannot work with them then.
    """
    check_upgrade(connection)
    document = read_document(directory)
    found = _facts(connection)
    if document is not None and found.uuid and document.database != found.uuid:
        raise ForeignError(
            f"{directory} belongs to another database than {url}, which belongs to the store in {found.places}: name "
            "the database of this directory"
        )


def bind(database: GroupDatabase, place: Place, url: str, *, adopt: bool = False) -> Bound:
    """Give a database and a store an identity, or check the one that they have; the tables exist already.

    Args:
        adopt: Whether to bind them without a check, because an operator has said that they belong together.

    Raises:
        ForeignError: They do not belong together.
        IndexUnavailableError: The database refuses.
        OSError: The store refuses.
    """
    with database.reading() as reading:
        found, document = _seen(reading, place)
    if not adopt:
        refusal = _refusal(found, document, place, url)
        if refusal:
            raise ForeignError(refusal)
        known = None if document is None else found.named(document.store)
        if document is not None and known is not None and known.marked:
            # This is the usual start. The first one of a node gives its own directory a document.
            if place.own() is None:
                place.put_identity(document)
            return Bound(found.uuid, known.uuid, known.id, False)

    def enter(connection: sa.Connection) -> Bound:
        begin_to_write(connection)
        if is_server(connection):
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        # Another node may have been faster.
        return _entered(connection, place, url, place.identity(), adopt=adopt)

    bound = database.write_apart(enter)
    wanted = Document(bound.database, bound.store)
    marked = store_table.update().where(store_table.c.id == bound.store_id).values(marked=1)
    there: Document | None = place.put_identity(wanted, replace=adopt)
    if there is not None and there[:2] == wanted[:2]:
        database.write_apart(lambda connection: connection.execute(marked).rowcount)
        # Not every store can be asked to keep the first document: of two databases, the last one counts there.
        there = place.identity()
    if there is None or there[:2] != wanted[:2]:
        raise ForeignError(
            f"the store {place.place} was given to another database than {url} at the same time: start again"
        )
    return bound


def _entered(
    connection: sa.Connection, place: Place, url: str, document: Document | None, *, adopt: bool
) -> Bound:
    found = _facts(connection)
    if not adopt:
        refusal = _refusal(found, document, place, url)
        if refusal:
            raise ForeignError(refusal)
    now = database_time(connection)
    database = found.uuid or (document.database if document else "") or str(uuid.uuid4())
    if not found.uuid:
        connection.execute(identity_table.insert().values(id=1, uuid=database, made=now))
    store = found.named(document.store) if document else None
    store = store or next(iter(found.stores), None)
    if store is not None:
        return Bound(database, store.uuid, store.id, True)
    own = (document.store if document else "") or str(uuid.uuid4())
    values: dict[str, Any] = {
        "id": 1,
        "uuid": own,
        "kind": "shared" if place.is_shared else "directory",
        "place": place.place,
        "made": now,
    }
    connection.execute(store_table.insert().values(**values))
    return Bound(database, own, 1, True)


# -- the document in a directory ----------------------------------------------------------------------


def read_document(directory: Path) -> Document | None:
    """The document in a directory; None when there is none.

    Raises:
        ForeignError: The file is not such a document.
        OSError: It cannot be read.
    """
    path = directory / DOCUMENT
    try:
        return Document.of(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def write_document(directory: Path, document: Document) -> None:
    """Write the document in a directory, durably and at once.

    Raises:
        OSError: It cannot be written.
    """
    temporary = directory / f".{DOCUMENT}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(document.octets())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, directory / DOCUMENT)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some network file systems cannot sync a directory
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
