"""Instances leave the index before their files are deleted, and stay on a list until these are gone.

The transaction that removes the rows of instances adds them to the table ``deletion``. Whatever happens afterwards, the
list says which files are left over.

All functions block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from .schema import Level, deletion, instance, patient, series, study

__all__ = [
    "Chosen",
    "Gone",
    "Listed",
    "Narrow",
    "Patient",
    "Standing",
    "Summary",
    "after",
    "all_of",
    "choose",
    "claim",
    "clock",
    "described",
    "due",
    "give_up",
    "is_being_deleted",
    "is_due",
    "listed",
    "mark",
    "octets_listed",
    "patients",
    "standing",
    "strike",
    "summary",
    "there",
    "with_paths",
    "withdraw",
]

# How many values one statement is given.
_AT_ONCE: Final = 500


class Chosen(NamedTuple):
    """An instance that is to be deleted.

    Attributes:
        row: The number of its row.
        path: The path of its file, in the form that the index stores.
        size: The size of its file in octets.
    """

    row: int
    sop_instance_uid: str
    path: str
    size: int


class Listed(NamedTuple):
    """An instance on the list of what is being deleted.

    Attributes:
        row: The number of its row on the list.
        generation: The generation of the leases that may need the file; 0 when that is not known.
    """

    row: int
    sop_instance_uid: str
    path: str
    size: int
    generation: int


class Standing(NamedTuple):
    """An instance in the index, and what is being deleted with its SOP Instance UID.

    Attributes:
        path: The path in the row, in the form of the index; empty when the instance is not there.
        size: The size of the file in octets.
        pending: The paths of files that are to be deleted.
    """

    path: str = ""
    size: int = 0
    pending: tuple[str, ...] = ()


class Gone(NamedTuple):
    """Instances of one SOP class that were deleted of a study.

    Attributes:
        instances: How many they are.
        is_whole: Whether nothing is left of the study.
    """

    study_instance_uid: str
    patient_id: str
    patient_name: str
    accession_number: str
    sop_class_uid: str
    instances: int
    is_whole: bool = False


#: Decides inside the transaction which of the chosen instances are removed.
Narrow = Callable[[sa.Connection, Sequence[Chosen]], Sequence[Chosen]]

_CHOSEN: Final = (instance.c.id, instance.c.sop_instance_uid, instance.c.path, instance.c.size)
_LISTED: Final = (
    deletion.c.id,
    deletion.c.sop_instance_uid,
    deletion.c.path,
    deletion.c.size,
    deletion.c.generation,
)
_KEYS: Final = {
    Level.PATIENT: patient.c.identity,
    Level.STUDY: study.c.study_instance_uid,
    Level.SERIES: series.c.series_instance_uid,
    Level.IMAGE: instance.c.sop_instance_uid,
}


def _below(level: Level) -> sa.FromClause:
    """The instances, joined with what they belong to, up to a level."""
    found: sa.FromClause = instance
    below = instance
    for table in (series, study, patient)[: 3 - level.depth]:
        found = found.join(table, below.c.parent_id == table.c.id)
        below = table
    return found


def choose(connection: sa.Connection, level: Level, key: str) -> list[Chosen]:
    """All instances of a patient, study or series, or one instance.

    Args:
        key: The identity of a patient, see :func:`patients`; or the Study Instance UID, Series Instance UID or SOP
            Instance UID.
    """
    statement = sa.select(*_CHOSEN).select_from(_below(level)).where(_KEYS[level] == key)
    return [Chosen(*row) for row in connection.execute(statement.order_by(instance.c.id))]


class Patient(NamedTuple):
    """A patient of the index.

    Attributes:
        identity: What identifies the patient: the Patient ID and what is known of its issuer.
    """

    identity: str
    patient_id: str
    issuer: str


def patients(
    connection: sa.Connection, patient_id: str, issuer: str | None = None
) -> list[Patient]:
    """The patients with a Patient ID, of which two hospitals may have given one ID to two people.

    Args:
        issuer: The Issuer of Patient ID (0010,0021); None means any.
    """
    table = patient.c
    statement = sa.select(table.identity, table.patient_id, table.issuer_of_patient_id).where(
        table.patient_id == patient_id
    )
    if issuer is not None:
        statement = statement.where(table.issuer_of_patient_id == issuer)
    return [Patient(*row) for row in connection.execute(statement.order_by(table.id))]


class Summary(NamedTuple):
    """How much some instances are, and what they belong to."""

    patients: int
    studies: int
    series: int
    instances: int
    octets: int


def summary(connection: sa.Connection, chosen: Sequence[Chosen]) -> Summary:
    """How much the chosen instances are."""
    found: list[set[int]] = [set(), set(), set()]
    for part in _parts(chosen):
        ids = [each.row for each in part]
        for row in connection.execute(_ABOVE, {"ids": ids}):
            for here, number in zip(found, row, strict=True):
                here.add(number)
    octets = sum(each.size for each in chosen)
    return Summary(len(found[0]), len(found[1]), len(found[2]), len(chosen), octets)


def all_of(_: sa.Connection, chosen: Sequence[Chosen]) -> Sequence[Chosen]:
    """All that was chosen: nothing else decides."""
    return chosen


def withdraw(
    connection: sa.Connection,
    remove_rows: Callable[[sa.Connection, Sequence[int]], object],
    chosen: Sequence[Chosen],
    narrow: Narrow,
) -> list[Listed]:
    """Remove instances, and put them on the list; see :meth:`Index.withdraw`."""
    found: list[Chosen] = []
    for part in _parts(narrow(connection, chosen)):
        ids = [each.row for each in part]
        # Another node may be about to remove or replace them.
        statement = sa.select(*_CHOSEN).where(instance.c.id.in_(ids)).order_by(instance.c.id)
        rows = connection.execute(statement.with_for_update())
        # A database may have given the number of a row that is gone to another one.
        here = {(row[0], row[1]): Chosen(*row) for row in rows}
        found += (here[key] for each in part if (key := (each.row, each.sop_instance_uid)) in here)
    if not found:
        return []
    remove_rows(connection, [each.row for each in found])
    values = [
        {"sop_instance_uid": each.sop_instance_uid, "path": each.path, "size": each.size}
        for each in found
    ]
    rows = connection.execute(deletion.insert().returning(*_LISTED), values)
    return sorted(Listed._make(row) for row in rows)


def listed(connection: sa.Connection, generations: tuple[int, int] | None = None) -> list[Listed]:
    """What is on the list.

    Args:
        generations: The first and the last generation of the leases that may need it; None means all of the list.

    Returns:
        In the order in which they were put on the list.
    """
    statement = sa.select(*_LISTED).order_by(deletion.c.id)
    if generations is not None:
        statement = statement.where(deletion.c.generation.between(*generations))
    return [Listed(*row) for row in connection.execute(statement)]


def mark(connection: sa.Connection, rows: Sequence[int], generation: int) -> None:
    """Note which leases may need files that are new on the list."""
    for start in range(0, len(rows), _AT_ONCE):
        own = deletion.c.id.in_(rows[start : start + _AT_ONCE])
        connection.execute(deletion.update().where(own).values(generation=generation))


def strike(connection: sa.Connection, rows: Sequence[int]) -> None:
    """Take instances off the list, because their files are gone."""
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        connection.execute(deletion.delete().where(deletion.c.id.in_(part)))


def there(connection: sa.Connection, sop_instance_uids: Sequence[str]) -> set[str]:
    """Those instances that the index has."""
    found: set[str] = set()
    for start in range(0, len(sop_instance_uids), _AT_ONCE):
        part = sop_instance_uids[start : start + _AT_ONCE]
        column = instance.c.sop_instance_uid
        found.update(connection.scalars(sa.select(column).where(column.in_(part))))
    return found


def described(connection: sa.Connection, chosen: Sequence[Chosen]) -> list[Gone]:
    """What the chosen instances are, before they are removed; those that belong to no study are left out."""
    found: dict[Gone, int] = {}
    for part in _parts(chosen):
        ids = [each.row for each in part]
        for *row, count in connection.execute(_DESCRIBED, {"ids": ids}):
            key = Gone._make((*row, 0, False))
            found[key] = found.get(key, 0) + count
    return [key._replace(instances=count) for key, count in found.items()]


def after(connection: sa.Connection, gone: Sequence[Gone]) -> list[Gone]:
    """The same, with the studies marked of which nothing is left."""
    uids = list({each.study_instance_uid for each in gone})
    left: set[str] = set()
    for start in range(0, len(uids), _AT_ONCE):
        column = study.c.study_instance_uid
        part = uids[start : start + _AT_ONCE]
        left.update(connection.scalars(sa.select(column).where(column.in_(part))))
    return [each._replace(is_whole=each.study_instance_uid not in left) for each in gone]


def is_being_deleted(connection: sa.Connection, sop_instance_uid: str) -> bool:
    """Whether the file of an instance is one that is being deleted."""
    row = deletion.c.sop_instance_uid == sop_instance_uid
    if connection.scalar(sa.select(deletion.c.id).where(row).limit(1)) is None:
        return False
    return not there(connection, [sop_instance_uid])


# -- a shared store: the generation on the list is the time from which on the file may be deleted --------------------


def clock(connection: sa.Connection) -> float:
    """The time by the clock of the database, in seconds since 1970: all nodes agree on it."""
    if connection.dialect.name == "sqlite":
        now: Any = sa.func.strftime("%s", "now")
    else:
        now = sa.func.extract("epoch", sa.func.clock_timestamp())
    return float(connection.scalar(sa.select(now)) or 0.0)


def standing(connection: sa.Connection, sop_instance_uids: Collection[str]) -> dict[str, Standing]:
    """What the index has of some instances, and which of their files are to be deleted."""
    found: dict[str, Standing] = {}
    uids = list(sop_instance_uids)
    for start in range(0, len(uids), _AT_ONCE):
        part = {"uids": uids[start : start + _AT_ONCE]}
        for uid, path, size, is_listed in connection.execute(_STANDING, part):
            here = found.get(uid, Standing())
            if is_listed:
                found[uid] = here._replace(pending=(*here.pending, path))
            else:
                found[uid] = here._replace(path=path, size=size)
    return found


def standing_for_good(
    connection: sa.Connection, sop_instance_uids: Collection[str]
) -> dict[str, Standing]:
    """The same, when those who are removing or replacing the rows have ended; call this in a transaction.

    A database may still be committing what a process had asked for that has been killed.
    """
    own = instance.c.sop_instance_uid.in_(list(sop_instance_uids))
    connection.execute(sa.select(instance.c.id).where(own).with_for_update()).all()
    return standing(connection, sop_instance_uids)


def claim(connection: sa.Connection, paths: Collection[tuple[str, str]]) -> None:
    """Take files off the list that are needed again; waits while another node deletes one of them.

    Args:
        paths: SOP Instance UIDs and paths.
    """
    every = list(paths)
    for start in range(0, len(every), _AT_ONCE):
        part = every[start : start + _AT_ONCE]
        connection.execute(
            deletion.delete().where(
                deletion.c.sop_instance_uid.in_([uid for uid, _ in part]),
                deletion.c.path.in_([path for _, path in part]),
            )
        )


def give_up(
    connection: sa.Connection, sop_instance_uid: str, path: str, size: int, after: float
) -> None:
    """Put a file on the list to which no row belongs any more.

    Args:
        after: From when on it may be deleted, in seconds from now.
    """
    values = {"sop_instance_uid": sop_instance_uid, "path": path, "size": size}
    due_at = int(clock(connection) + after)
    connection.execute(deletion.insert(), {**values, "generation": due_at})


def due(connection: sa.Connection, limit: int) -> list[Listed]:
    """Files that may be deleted now. No other node gets them, or claims them, before the transaction has ended."""
    statement = (
        sa.select(*_LISTED)
        .where(deletion.c.generation.between(1, int(clock(connection))))
        .order_by(deletion.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Listed(*row) for row in connection.execute(statement)]


def is_due(connection: sa.Connection) -> bool:
    """Whether there are files that may be deleted now."""
    due_now = deletion.c.generation.between(1, int(clock(connection)))
    return connection.scalar(sa.select(deletion.c.id).where(due_now).limit(1)) is not None


def with_paths(connection: sa.Connection, listed: Collection[Listed]) -> set[str]:
    """Those of the listed paths that rows of instances have."""
    found: set[str] = set()
    uids = list({each.sop_instance_uid for each in listed})
    for start in range(0, len(uids), _AT_ONCE):
        column = instance.c.sop_instance_uid
        part = uids[start : start + _AT_ONCE]
        found.update(connection.scalars(sa.select(instance.c.path).where(column.in_(part))))
    return found


def octets_listed(connection: sa.Connection) -> int:
    """How many octets the files on the list have."""
    return int(connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(deletion.c.size), 0))) or 0)


_UIDS: Final[Any] = sa.bindparam("uids", expanding=True)
_STANDING: Final = sa.union_all(
    sa.select(
        instance.c.sop_instance_uid, instance.c.path, instance.c.size, sa.literal(0).label("listed")
    ).where(instance.c.sop_instance_uid.in_(_UIDS)),
    sa.select(deletion.c.sop_instance_uid, deletion.c.path, deletion.c.size, sa.literal(1)).where(
        deletion.c.sop_instance_uid.in_(_UIDS)
    ),
)
_OF_STUDY: Final = (
    study.c.study_instance_uid,
    study.c.patient_id,
    study.c.patient_name,
    study.c.accession_number,
    instance.c.sop_class_uid,
)
_ABOVE: Final = (
    sa.select(study.c.parent_id, study.c.id, series.c.id)
    .select_from(_below(Level.STUDY))
    .where(instance.c.id.in_(sa.bindparam("ids", expanding=True)))
    .distinct()
)
_DESCRIBED: Final = (
    sa.select(*_OF_STUDY, sa.func.count())
    .select_from(_below(Level.STUDY))
    .where(instance.c.id.in_(sa.bindparam("ids", expanding=True)))
    .group_by(*_OF_STUDY)
)


def _parts(chosen: Sequence[Chosen]) -> Iterator[Sequence[Chosen]]:
    for start in range(0, len(chosen), _AT_ONCE):
        yield chosen[start : start + _AT_ONCE]
