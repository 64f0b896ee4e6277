"""Write the rows of instances, and of the patients, studies and series that they belong to.

The first instance of a patient, study or series determines its row. A later one only fills in values that are missing,
and values of the patient only when it names the same patient. A row that nothing belongs to any more is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from .record import InstanceRecord
from .schema import (
    ATTRIBUTES,
    LEVELS,
    TABLES,
    Attribute,
    Level,
    attributes_of,
    instance,
    kept_header,
)

__all__ = ["Writer"]

#: How many rows of one level are remembered.
_REMEMBERED: Final = 4096

_FILLED: Final[Mapping[Level, tuple[Attribute, ...]]] = {
    # The unique key identifies the row, so it is never filled in.
    level: tuple(each for each in attributes_of(level) if each.key_type != "U")
    for level in (Level.PATIENT, Level.STUDY, Level.SERIES)
}

_PATIENTS: Final = frozenset(each.tag for each in attributes_of(Level.PATIENT))


class _Entity:
    """A row of the database: its id and parent, and the tags of its attributes that have no value."""

    __slots__ = ("empty", "parent_id", "row_id")

    def __init__(self, level: Level, row: Mapping[str, Any]) -> None:
        self.row_id: int = row["id"]
        self.parent_id: int | None = row.get("parent_id")
        self.empty = {each.tag for each in _FILLED[level] if not row[each.column]}


class Writer:
    """The writer of the tables. It remembers rows, so nothing else may write to them.

    Args:
        path_text: Turns a path into the form that the index stores.
    """

    def __init__(self, path_text: Callable[[Path], str]) -> None:
        self._path_text = path_text
        self._known: dict[Level, dict[Any, _Entity]] = {level: {} for level in _FILLED}

    def forget(self) -> None:
        """Forget all rows that are remembered, because the last transaction was rolled back."""
        for known in self._known.values():
            known.clear()

    # -- instances ---------------------------------------------------------------------------------

    def add(self, connection: sa.Connection, records: Iterable[InstanceRecord]) -> None:
        """Add or replace instances; among records with the same UID the last one counts."""
        by_uid = {record.sop_instance_uid: record for record in records}
        found = _found(connection, by_uid)
        here = {uid: (row_id, parent) for uid, row_id, parent in found}
        rows, headers = [], {}
        for uid, record in by_uid.items():
            values = record.values(Level.IMAGE)
            values["parent_id"] = self._series(connection, record) if record.has_series else None
            values["path"] = self._path_text(record.path)
            values["size"] = record.size
            values["digest"] = record.digest
            if uid in here:
                self._replace(connection, here[uid], values, record.packed)
            else:
                rows.append(values)
                headers[uid] = record.packed
        if len(rows) == 1:
            # Instances that are sent one at a time come alone, and the statement for many rows costs more.
            (packed,) = headers.values()
            key = connection.execute(instance.insert(), rows[0]).inserted_primary_key
            assert key is not None  # it is known when one row was inserted
            connection.execute(kept_header.insert(), {"instance_id": key[0], "data": packed})
        elif rows:
            # RETURNING gives the rows in any order, so that they can be inserted by one statement.
            made = connection.execute(_INSERT, rows)
            connection.execute(
                kept_header.insert(),
                [{"instance_id": row_id, "data": headers[uid]} for row_id, uid in made],
            )

    def _replace(
        self,
        connection: sa.Connection,
        here: tuple[int, int | None],
        values: dict[str, Any],
        packed: bytes,
    ) -> None:
        row_id, parent = here
        own = instance.c.id == row_id
        connection.execute(instance.update().where(own).values(values))
        connection.execute(
            kept_header.update().where(kept_header.c.instance_id == row_id).values(data=packed)
        )
        if parent is not None and parent != values["parent_id"]:
            self._prune(connection, Level.SERIES, parent)

    def set_digest(self, connection: sa.Connection, sop_instance_uid: str, digest: str) -> None:
        """Store the digest of a file that had none."""
        own = instance.c.sop_instance_uid == sop_instance_uid
        connection.execute(instance.update().where(own).values(digest=digest))

    def remove(self, connection: sa.Connection, sop_instance_uid: str) -> bool:
        """Remove an instance, and return whether it was there."""
        found = connection.execute(_BY_UID, {"uid": sop_instance_uid}).one_or_none()
        if found is None:
            return False
        _, row_id, parent = found
        connection.execute(kept_header.delete().where(kept_header.c.instance_id == row_id))
        connection.execute(instance.delete().where(instance.c.id == row_id))
        if parent is not None:
            self._prune(connection, Level.SERIES, parent)
        return True

    def _prune(self, connection: sa.Connection, level: Level, row_id: int) -> None:
        """Delete a row that nothing belongs to, and the rows above it by the same rule."""
        below = TABLES[LEVELS[level.depth + 1]]
        if connection.scalar(sa.select(below.c.id).where(below.c.parent_id == row_id).limit(1)):
            return
        table = TABLES[level]
        parent = None
        if level is not Level.PATIENT:
            parent = connection.scalar(sa.select(table.c.parent_id).where(table.c.id == row_id))
        connection.execute(table.delete().where(table.c.id == row_id))
        self.forget()
        if parent is not None:
            self._prune(connection, LEVELS[level.depth - 1], parent)

    # -- what they belong to -------------------------------------------------------------------------

    def _series(self, connection: sa.Connection, record: InstanceRecord) -> int:
        own = {
            "parent_id": self._study(connection, record),
            "series_instance_uid": record.series_instance_uid,
        }
        found = self._known_or_found(connection, Level.SERIES, own)
        if found is None:
            return self._insert(connection, Level.SERIES, own, record)
        self._fill(connection, Level.SERIES, found, record)
        return found.row_id

    def _study(self, connection: sa.Connection, record: InstanceRecord) -> int:
        identity = {"identity": record.identity}
        own = {"study_instance_uid": record.study_instance_uid}
        patient = self._known_or_found(connection, Level.PATIENT, identity)
        found = self._known_or_found(connection, Level.STUDY, own)
        if found is None:
            if patient is None:
                parent = self._insert(connection, Level.PATIENT, identity, record)
            else:
                parent = patient.row_id
                self._fill(connection, Level.PATIENT, patient, record)
            return self._insert(connection, Level.STUDY, own, record, parent)
        # A study stays with the patient of its first instance, even if a later one names another.
        is_of_patient = patient is not None and patient.row_id == found.parent_id
        if patient is not None and is_of_patient:
            self._fill(connection, Level.PATIENT, patient, record)
        self._fill(
            connection, Level.STUDY, found, record, frozenset() if is_of_patient else _PATIENTS
        )
        return found.row_id

    def _known_or_found(
        self, connection: sa.Connection, level: Level, own: Mapping[str, Any]
    ) -> _Entity | None:
        key = tuple(own.values())
        known = self._known[level].get(key)
        if known is None:
            row = connection.execute(_FIND[level], own).one_or_none()
            if row is None:
                return None
            known = self._remember(level, key, row._asdict())
        return known

    def _remember(self, level: Level, key: tuple[Any, ...], row: Mapping[str, Any]) -> _Entity:
        known = self._known[level]
        if len(known) >= _REMEMBERED:
            del known[next(iter(known))]
        entity = known[key] = _Entity(level, row)
        return entity

    def _insert(
        self,
        connection: sa.Connection,
        level: Level,
        own: Mapping[str, Any],
        record: InstanceRecord,
        parent: int | None = None,
    ) -> int:
        values = {**record.values(level), **own}
        if parent is not None:
            values["parent_id"] = parent
        made = connection.execute(TABLES[level].insert(), values).inserted_primary_key
        assert made is not None  # it is known when one row was inserted
        row_id: int = made[0]
        self._remember(level, tuple(own.values()), {"id": row_id, **values})
        return row_id

    @staticmethod
    def _fill(
        connection: sa.Connection,
        level: Level,
        entity: _Entity,
        record: InstanceRecord,
        foreign: frozenset[int] = frozenset(),
    ) -> None:
        """Fill in the values that a row does not have, except those of the foreign tags."""
        wanted = entity.empty.intersection(record.header.elements) - foreign
        if not wanted:
            return
        values = record.values(level)
        new: dict[str, Any] = {}
        for tag in wanted:
            attribute = ATTRIBUTES[tag]
            if values[attribute.column]:
                columns = (attribute.column, *attribute.key_columns)
                new.update((name, values[name]) for name in columns)
                entity.empty.discard(tag)
        if new:
            table = TABLES[level]
            connection.execute(table.update().where(table.c.id == entity.row_id).values(new))


def _found(connection: sa.Connection, uids: Collection[str]) -> Iterable[Any]:
    """The UID, id and parent of those instances that the index has."""
    if len(uids) == 1:
        (uid,) = uids
        return connection.execute(_BY_UID, {"uid": uid})
    return connection.execute(_BY_UIDS, {"uids": list(uids)})


_FIND: Final = {
    level: sa.select(TABLES[level]).where(
        *(TABLES[level].c[name] == sa.bindparam(name) for name in names)
    )
    for level, names in (
        (Level.PATIENT, ("identity",)),
        (Level.STUDY, ("study_instance_uid",)),
        (Level.SERIES, ("parent_id", "series_instance_uid")),
    )
}
_IDENTITY: Final = sa.select(instance.c.sop_instance_uid, instance.c.id, instance.c.parent_id)
_BY_UID: Final = _IDENTITY.where(instance.c.sop_instance_uid == sa.bindparam("uid"))
_BY_UIDS: Final = _IDENTITY.where(
    instance.c.sop_instance_uid.in_(sa.bindparam("uids", expanding=True))
)
_INSERT: Final = instance.insert().returning(instance.c.id, instance.c.sop_instance_uid)
