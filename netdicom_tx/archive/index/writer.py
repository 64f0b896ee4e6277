"""Write the rows of instances, and of the patients, studies and series that they belong to.

The first instance of a patient, study or series determines its row. A later one only fills in values that are missing,
and values of the patient only when it names the same patient. A row that nothing belongs to any more is deleted.

Several nodes write to one PostgreSQL database at the same time. What this module remembers of a row, and what it has
read before it writes, may be out of date then. So a value is filled in where the row has none when it is written; a row
that is replaced or removed is locked first; and a row whose parent is gone is refused by its foreign key. Then the
transaction is performed again. Rows are locked in one order, so that deadlocks are rare: instances, and then from
patients down to series. SQLite has one writer at a time, and ignores the locks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from . import withdrawal
from .engine import DisturbedError, insert_new
from .record import InstanceRecord, Receipt
from .schema import (
    ATTRIBUTES,
    LEVELS,
    TABLES,
    Attribute,
    Level,
    attributes_of,
    deletion,
    instance,
    kept_header,
    study,
)
from .withdrawal import Standing

__all__ = ["Writer"]

#: How many rows of one level are remembered.
_REMEMBERED: Final = 4096
# After how many seconds the time at which a study was received is written again.
_RECEIVED_EVERY: Final = 10.0

_FILLED: Final[Mapping[Level, tuple[Attribute, ...]]] = {
    # The unique key identifies the row, so it is never filled in.
    level: tuple(each for each in attributes_of(level) if each.key_type != "U")
    for level in (Level.PATIENT, Level.STUDY, Level.SERIES)
}

_PATIENTS: Final = frozenset(each.tag for each in attributes_of(Level.PATIENT))


class _Entity:
    """A row of the database: its id and parent, and the tags of its attributes that have no value."""

    __slots__ = ("called", "calling", "empty", "parent_id", "received", "row_id")

    def __init__(self, level: Level, row: Mapping[str, Any]) -> None:
        self.row_id: int = row["id"]
        self.parent_id: int | None = row.get("parent_id")
        self.empty = {each.tag for each in _FILLED[level] if not row[each.column]}
        self.received: float = row.get("received", 0.0)
        self.calling: str = row.get("calling", "")
        self.called: str = row.get("called", "")

    def received_from(self, receipt: Receipt) -> dict[str, Any]:
        """What changes when something more of a study was received, by column."""
        new: dict[str, Any] = {}
        if receipt.time - self.received >= _RECEIVED_EVERY:
            self.received = new["received"] = receipt.time
        if receipt.calling and receipt.calling not in self.calling.split("\\"):
            self.calling = new["calling"] = f"{self.calling}\\{receipt.calling}".lstrip("\\")
        if receipt.called and receipt.called not in self.called.split("\\"):
            self.called = new["called"] = f"{self.called}\\{receipt.called}".lstrip("\\")
        return new


class Writer:
    """The writer of the tables. It remembers rows, so nothing else may write to them.

    Args:
        path_text: Turns a path into the form that the index stores.
    """

    def __init__(self, path_text: Callable[[Path], str]) -> None:
        self._path_text = path_text
        self._known: dict[Level, dict[Any, _Entity]] = {level: {} for level in _FILLED}
        #: Whether rows were changed or deleted that another writer may remember; whoever looks at it resets it.
        self.has_changed = False

    def forget(self) -> None:
        """Forget all rows that are remembered, because the last transaction was rolled back."""
        for known in self._known.values():
            known.clear()

    # -- instances ---------------------------------------------------------------------------------

    def add(
        self, connection: sa.Connection, records: Iterable[InstanceRecord], *, are_new: bool = False
    ) -> None:
        """Add or replace instances; among records with the same UID the last one counts.

        Args:
            are_new: Whether none of them is there. One that another node adds meanwhile is not replaced: the unique
                key refuses it.
        """
        by_uid = {record.sop_instance_uid: record for record in records}
        if len(by_uid) > 1 and connection.dialect.name != "sqlite":
            # Within a study they stay in the order in which they came, because the first one determines its row.
            by_uid = dict(sorted(by_uid.items(), key=_place))
        found = () if are_new else _found(connection, by_uid)
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

    def add_new(
        self, connection: sa.Connection, records: Iterable[InstanceRecord]
    ) -> dict[tuple[str, str], Standing]:
        """Add those instances that are not there; of records with the same UID the first one counts.

        Their files are not to be deleted any more.

        Returns:
            What is there instead, by the SOP Instance UID and the path of each record whose file does not count.
        """
        every = list(records)
        first: dict[str, InstanceRecord] = {}
        for record in every:
            first.setdefault(record.sop_instance_uid, record)
        here = withdrawal.standing(connection, first)
        there = {uid: each for uid, each in here.items() if each.path}
        fresh = [record for uid, record in first.items() if uid not in there]
        if fresh:
            self.add(connection, fresh, are_new=True)
        pending = [(uid, path) for uid, each in here.items() for path in each.pending]
        if pending:
            wanted = {(uid, self._path_text(record.path)) for uid, record in first.items()}
            withdrawal.claim(connection, wanted.intersection(pending))
        lost: dict[tuple[str, str], Standing] = {}
        for record in every:
            uid, path = record.sop_instance_uid, self._path_text(record.path)
            own = first[uid]
            counts = there.get(uid) or Standing(self._path_text(own.path), own.size)
            if counts.path != path:
                lost[uid, str(record.path)] = counts
        return lost

    def exchange(self, connection: sa.Connection, record: InstanceRecord, former: str) -> bool:
        """Replace an instance if it has this path, and put that path on the list of what is to be deleted."""
        own = instance.c.sop_instance_uid == record.sop_instance_uid
        # Nobody else may replace it before the transaction has ended.
        here = connection.execute(
            sa.select(instance.c.path, instance.c.size).where(own).with_for_update()
        ).one_or_none()
        if here is None or here[0] != former:
            return False
        self.add(connection, [record])
        path = self._path_text(record.path)
        withdrawal.claim(connection, [(record.sop_instance_uid, path)])
        if path != former:
            connection.execute(
                deletion.insert(),
                {"sop_instance_uid": record.sop_instance_uid, "path": former, "size": here[1]},
            )
        return True

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
            self._prune(connection, [parent])

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
            self._prune(connection, [parent])
        return True

    def remove_rows(self, connection: sa.Connection, row_ids: Sequence[int]) -> None:
        """Remove the instances with these numbers, and what nothing belongs to afterwards."""
        parents: set[int] = set()
        for start in range(0, len(row_ids), _AT_ONCE):
            ids = {"ids": list(row_ids[start : start + _AT_ONCE])}
            found = connection.scalars(_PARENTS, ids)
            parents.update(each for each in found if each is not None)
            connection.execute(_REMOVE_HEADERS, ids)
            connection.execute(_REMOVE, ids)
        self._prune(connection, parents)

    def _prune(self, connection: sa.Connection, series_ids: Iterable[int]) -> None:
        """Delete series that nothing belongs to, and the rows above them by the same rule."""
        ids = sorted(series_ids)
        if connection.dialect.name != "sqlite":
            # When two remove half of a series each, the second one waits, and sees that nothing is left.
            for start in range(0, len(ids), _AT_ONCE):
                _lock_above(connection, ids[start : start + _AT_ONCE])
        for each in ids:
            self._prune_row(connection, Level.SERIES, each)

    def _prune_row(self, connection: sa.Connection, level: Level, row_id: int) -> None:
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
        self.has_changed = True
        if parent is not None:
            self._prune_row(connection, LEVELS[level.depth - 1], parent)

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
            time, calling, called = record.receipt
            more = {"parent_id": parent, "received": time, "calling": calling, "called": called}
            return self._insert(connection, Level.STUDY, own, record, more)
        # A study stays with the patient of its first instance, even if a later one names another.
        is_of_patient = patient is not None and patient.row_id == found.parent_id
        if patient is not None and is_of_patient:
            self._fill(connection, Level.PATIENT, patient, record)
        self._fill(
            connection, Level.STUDY, found, record, frozenset() if is_of_patient else _PATIENTS
        )
        if found.received_from(record.receipt):
            self._note_receipt(connection, found, record.receipt)
        return found.row_id

    @staticmethod
    def _note_receipt(connection: sa.Connection, found: _Entity, receipt: Receipt) -> None:
        """Note that something more of a study was received, beside what others have noted meanwhile."""
        own_row = study.c.id == found.row_id
        there = connection.execute(_RECEIPT.where(own_row)).one_or_none()
        if there is None:
            raise DisturbedError
        found.received, found.calling, found.called = there
        new = found.received_from(receipt)
        if new:
            connection.execute(study.update().where(own_row).values(new))

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
        more: Mapping[str, Any] | None = None,
    ) -> int:
        values = {**record.values(level), **own, **(more or {})}
        row_id = insert_new(connection, TABLES[level], values)
        if row_id is None:
            # What was inserted above this row may be wrong, too.
            raise DisturbedError
        self._remember(level, tuple(own.values()), {"id": row_id, **values})
        return row_id

    def _fill(
        self,
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
        table = TABLES[level]
        new: dict[str, Any] = {}
        for tag in wanted:
            attribute = ATTRIBUTES[tag]
            if values[attribute.column]:
                # Another node may have filled it in since the row was read.
                own = table.c[attribute.column]
                is_empty = own.is_(None) if attribute.vr == "SQ" else own == ""
                for name in (attribute.column, *attribute.key_columns):
                    new[name] = sa.case((is_empty, values[name]), else_=table.c[name])
                entity.empty.discard(tag)
        if new:
            connection.execute(table.update().where(table.c.id == entity.row_id).values(new))
            self.has_changed = True


def _place(item: tuple[str, InstanceRecord]) -> tuple[str, str]:
    """Two nodes that write to the same patients and studies lock them in the same order."""
    return item[1].identity, item[1].study_instance_uid


def _lock_above(connection: sa.Connection, series_ids: Sequence[int]) -> None:
    """Lock series and what they belong to, from patients down."""
    rows = connection.execute(_ABOVE, {"ids": series_ids}).all()
    for table, ids in (
        (TABLES[Level.PATIENT], {row[0] for row in rows}),
        (study, {row[1] for row in rows}),
        (TABLES[Level.SERIES], set(series_ids)),
    ):
        own = sa.select(table.c.id).where(table.c.id.in_(ids)).order_by(table.c.id)
        connection.execute(own.with_for_update()).all()


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
# Their rows stay as they are until the end of the transaction.
_IDENTITY: Final = (
    sa.select(instance.c.sop_instance_uid, instance.c.id, instance.c.parent_id)
    .order_by(instance.c.id)
    .with_for_update()
)
_RECEIPT: Final = sa.select(study.c.received, study.c.calling, study.c.called).with_for_update()
_BY_UID: Final = _IDENTITY.where(instance.c.sop_instance_uid == sa.bindparam("uid"))
_BY_UIDS: Final = _IDENTITY.where(
    instance.c.sop_instance_uid.in_(sa.bindparam("uids", expanding=True))
)
# How many values one statement is given.
_AT_ONCE: Final = 500
_IDS: Final[Any] = sa.bindparam("ids", expanding=True)
_PARENTS: Final = sa.select(instance.c.parent_id).where(instance.c.id.in_(_IDS)).distinct()
_ABOVE: Final = (
    sa.select(study.c.parent_id, study.c.id)
    .select_from(study.join(TABLES[Level.SERIES], TABLES[Level.SERIES].c.parent_id == study.c.id))
    .where(TABLES[Level.SERIES].c.id.in_(_IDS))
)
_REMOVE_HEADERS: Final = kept_header.delete().where(kept_header.c.instance_id.in_(_IDS))
_REMOVE: Final = instance.delete().where(instance.c.id.in_(_IDS))
_INSERT: Final = instance.insert().returning(instance.c.id, instance.c.sop_instance_uid)
