"""Retention: which studies go when they are old, or when room is needed, and the service that deletes them.

A study is deleted as a whole, the one that was received first before the others. A rule of age deletes what is older;
the quota and the reserve of the disk delete until a twentieth of the quota is free again, so that they do not begin
anew with the next instance. A study stays

* when an operator has protected it (``netdicom protect``),
* when one of its senders or receivers is protected by its AE title,
* while it is arriving: something came for it during the last minute.

When a study was received is the time of its last instance, about to ten seconds. Instances that belong to no study,
such as colour palettes, count for the quota and are never deleted by a rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from twisted.python.failure import Failure

from ..amounts import Amount, in_units
from ..logs import Logger
from .group.duties import AllDuties, Duty
from .group.members import database_time
from .index import withdrawal
from .index.index import Index, IndexUnavailableError
from .index.schema import Level, instance, protection, series, study
from .index.withdrawal import Chosen
from .store.deletion import Deleter
from .store.filestore import FileStore
from .workers import Rounds

__all__ = [
    "Candidate",
    "Keeper",
    "Reason",
    "Retention",
    "Rules",
    "Run",
]

#: Seconds between two looks at what there is.
PERIOD: Final = 2.0
# The same when no rule deletes anything, and only files may wait for the retrieves that send them.
_QUIET: Final = 15.0
#: For how many seconds nothing may have come for a study that a rule deletes.
REST: Final = 60.0
# Which part of the quota is free after it was enforced.
_HYSTERESIS: Final = 20
# How many studies, and about how many instances, are deleted together.
_STUDIES: Final = 32
_INSTANCES: Final = 500
# How many studies are read at a time.
_PAGE: Final = 100
# After how many seconds the octets of the archive are summed up again instead of being reckoned.
_RECOUNTED: Final = 3600.0
_DAY: Final = 86400.0
# Seconds to the next attempt when the index or the disk refuses.
_RETRY: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may stay.

    Attributes:
        max_age: The number of days since a study was received after which it goes; None means that it stays.
        max_study_age: The same since its Study Date. With both, a study goes when both are exceeded.
        quota: How many octets the archive may have, or which share of the disk may be used.
        protect_calling: AE titles; what they have sent stays.
        protect_called: AE titles; what was sent to them stays.
    """

    max_age: float | None = None
    max_study_age: float | None = None
    quota: Amount | None = None
    protect_calling: tuple[str, ...] = ()
    protect_called: tuple[str, ...] = ()

    @property
    def deletes(self) -> bool:
        """Whether any rule deletes anything."""
        return (self.max_age, self.max_study_age, self.quota) != (None, None, None)


class Reason(Enum):
    """Why a study goes."""

    AGE = "age"
    QUOTA = "quota"
    RESERVE = "reserve"


class Candidate(NamedTuple):
    """A study that goes.

    Attributes:
        row: The number of its row.
        received: When it was received, in seconds since 1970.
        study_date: Its Study Date as YYYYMMDD; empty when it has none.
        octets: The size of its files.
    """

    row: int
    study_instance_uid: str
    received: float
    study_date: str
    instances: int
    octets: int
    reason: Reason


@dataclass(slots=True)
class Run:
    """What one run has done.

    Attributes:
        studies: How many studies were deleted for each reason.
        waiting: How many files go when the retrieves that send them have ended.
        missing: How many octets could not be freed, because what is left is protected or is just arriving.
    """

    studies: dict[Reason, int] = field(default_factory=dict)
    instances: int = 0
    octets: int = 0
    waiting: int = 0
    missing: int = 0


class _Study(NamedTuple):
    """A row of a study."""

    row: int
    uid: str
    received: float
    calling: str
    called: str
    date: str


class Keeper:
    """Applies the rules to one archive. One thread may call it at a time.

    Args:
        store: The store; it is open.
        index: The index; likewise.
        deleter: Deletes what the rules say; None only plans.
        rest: For how many seconds nothing may have come for a study that goes.
        clock: Gives the time in seconds since 1970; None means the clock of the database, which all nodes have.
    """

    def __init__(
        self,
        store: FileStore,
        index: Index,
        rules: Rules,
        deleter: Deleter | None = None,
        *,
        rest: float = REST,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.rules = rules
        #: Whether this node is the one of its group that has a duty.
        self.holds: Callable[[Duty], bool] = AllDuties().holds
        self._store = store
        self._index = index
        self._deleter = deleter
        self._rest = rest
        self._clock = clock or self._time_of_database
        # The octets of the archive as they were counted or reckoned last, with the number of the last row that is in
        # them, when they were counted, and how much had been deleted by then.
        self._octets = 0
        self._last = 0
        self._counted: float | None = None
        self._deleted = 0

    def _time_of_database(self) -> float:
        with self._index.reading() as reading:
            return database_time(reading)

    # -- how much there is ---------------------------------------------------------------------------

    def octets(self) -> int:
        """How many octets the files of the archive have, apart from those that are being deleted.

        They are summed up now and then, and reckoned in between, because a sum reads the whole table.
        """
        deleted = 0 if self._deleter is None else self._deleter.octets
        now = self._clock()
        with self._index.reading() as reading:
            is_stale = self._counted is None or not 0 <= now - self._counted < _RECOUNTED
            # A database may give the numbers of rows that were deleted to new ones.
            if is_stale or deleted != self._deleted:
                self._octets, self._last = self._sum(reading, 0)
                self._counted, self._deleted = now, deleted
            else:
                more, last = self._sum(reading, self._last)
                self._octets += more
                self._last = max(last, self._last)
        return self._octets

    @staticmethod
    def _sum(reading: sa.Connection, last: int) -> tuple[int, int]:
        octets, highest = reading.execute(_SUM, {"last": last}).one()
        return int(octets or 0), int(highest or 0)

    def needed(self) -> tuple[int, Reason] | None:
        """How many octets have to go for the quota or the reserve, and for which; None when there is room."""
        quota = self.rules.quota
        if quota is None:
            return None
        room = self._store.room()
        with self._index.reading() as reading:
            going = withdrawal.octets_listed(reading)
        if quota.share:
            limit, used = quota.of(room.total), room.total - room.free - going
        else:
            limit, used = quota.octets, self.octets()
        if used > limit:
            return used - limit + limit // _HYSTERESIS, Reason.QUOTA
        if self._store.is_shared:
            return (
                None  # the reserve is for the disk of the node, which a deletion does not make free
            )
        free = room.free + going
        if free <= room.reserve + room.reserve // 4:
            return room.reserve + room.reserve // 2 - free, Reason.RESERVE
        return None

    # -- what goes -----------------------------------------------------------------------------------

    def plan(self) -> Iterator[Candidate]:
        """The studies that go now, in the order in which they go."""
        self.date_studies()
        octets = 0
        aged: set[int] = set()
        for candidate in self._aged():
            aged.add(candidate.row)
            octets += candidate.octets
            yield candidate
        needed = self.needed()
        if needed is None:
            return
        missing, reason = needed[0] - octets, needed[1]
        for candidate in self._candidates((), reason):
            if missing <= 0:
                return
            if candidate.row not in aged:
                missing -= candidate.octets
                yield candidate

    def _aged(self) -> Iterator[Candidate]:
        """The studies that are too old."""
        if self.rules.max_age is not None or self.rules.max_study_age is not None:
            yield from self._candidates(self._too_old(), Reason.AGE)

    def _for_room(self, done: Run) -> Iterator[Candidate]:
        """The studies that go for the quota or the reserve."""
        needed = self.needed()
        if needed is None:
            return
        missing, reason = needed
        for candidate in self._candidates((), reason):
            missing -= candidate.octets
            yield candidate
            if missing <= 0:
                return
        done.missing = missing

    def _too_old(self) -> Iterable[sa.ColumnElement[bool]]:
        now = self._clock()
        if self.rules.max_age is not None:
            yield study.c.received < now - self.rules.max_age * _DAY
        if self.rules.max_study_age is not None:
            day = time.strftime("%Y%m%d", time.gmtime(now - self.rules.max_study_age * _DAY))
            yield study.c.study_date_key != ""
            yield study.c.study_date_key < day

    def _candidates(
        self, conditions: Iterable[sa.ColumnElement[bool]], reason: Reason
    ) -> Iterator[Candidate]:
        statement = _STUDIES_LEFT.where(
            study.c.received <= self._clock() - self._rest, *conditions
        ).limit(_PAGE)
        last = (0.0, 0)
        while True:
            with self._index.reading() as reading:
                rows = [
                    _Study(*row)
                    for row in reading.execute(statement, {"time": last[0], "row": last[1]})
                ]
            for row in rows:
                last = row.received, row.row
                if self._is_protected(row):
                    continue
                with self._index.reading() as reading:
                    instances, octets = reading.execute(_SIZE, {"row": row.row}).one()
                yield Candidate(
                    *(row.row, row.uid, row.received, row.date, instances, int(octets or 0)), reason
                )
            if len(rows) < _PAGE:
                return

    def _is_protected(self, row: _Study) -> bool:
        """Whether a study stays because of its titles."""
        calling, called = set(row.calling.split("\\")), set(row.called.split("\\"))
        rules = self.rules
        return bool(calling & set(rules.protect_calling) or called & set(rules.protect_called))

    def date_studies(self, go_on: Callable[[], bool] = lambda: True) -> None:
        """Find out when studies were received of which the index does not know it, by the times of their files."""
        last = 0
        while go_on():
            with self._index.reading() as reading:
                rows = reading.execute(_UNDATED, {"row": last}).all()
            if not rows:
                return
            times: dict[int, float] = {}
            for row_id, uid in rows:
                last = row_id
                try:
                    times[row_id] = self._store.time_of(uid)
                except OSError:
                    continue  # the file is gone, or the disk is
            if times:
                self._index.write(_setting(times)).result()

    # -- a run -----------------------------------------------------------------------------------------

    def run(self, go_on: Callable[[], bool] = lambda: True) -> Run:
        """Delete what the rules say, and the files that wait for retrieves which have ended.

        Args:
            go_on: Asked before each group of studies; the run ends when it returns False.

        Raises:
            IndexUnavailableError: The database refuses.
            OSError: The disk has failed.
        """
        assert self._deleter is not None  # otherwise there is a plan only
        done = Run()
        if self.holds(Duty.DELETION):
            self._deleter.finish()
        if not self.rules.deletes or not self.holds(Duty.RETENTION):
            return done
        self.date_studies(go_on)
        for candidates in (self._aged(), self._for_room(done)):
            for group in _groups(candidates):
                if not go_on() or not self.holds(Duty.RETENTION):
                    return done
                self._delete(group, self._deleter, done)
        return done

    def _delete(self, group: Sequence[Candidate], deleter: Deleter, done: Run) -> None:
        chosen: dict[int, list[Chosen]] = {}
        with self._index.reading() as reading:
            for each in group:
                chosen[each.row] = withdrawal.choose(reading, Level.STUDY, each.study_instance_uid)
        every = [one for each in chosen.values() for one in each]
        gone: list[Candidate] = []

        def narrow(connection: sa.Connection, _: Sequence[Chosen]) -> Sequence[Chosen]:
            gone[:] = [
                each for each in group if _is_as_before(connection, each, len(chosen[each.row]))
            ]
            return [one for each in gone for one in chosen[each.row]]

        deleted = deleter.delete(every, narrow)
        for each in gone:
            done.studies[each.reason] = done.studies.get(each.reason, 0) + 1
        done.instances += deleted.instances
        done.octets += deleted.octets
        done.waiting += deleted.waiting


def _groups(candidates: Iterator[Candidate]) -> Iterator[list[Candidate]]:
    """Studies that are deleted together."""
    group: list[Candidate] = []
    for candidate in candidates:
        group.append(candidate)
        if len(group) >= _STUDIES or sum(each.instances for each in group) >= _INSTANCES:
            yield group
            group = []
    if group:
        yield group


def _is_as_before(connection: sa.Connection, candidate: Candidate, instances: int) -> bool:
    """Whether nothing has come for a study since it was chosen, and nobody has protected it."""
    row = connection.execute(
        sa.select(study.c.received, study.c.study_instance_uid).where(study.c.id == candidate.row)
    ).one_or_none()
    if row is None or tuple(row) != (candidate.received, candidate.study_instance_uid):
        return False
    own = protection.c.study_instance_uid == candidate.study_instance_uid
    if connection.scalar(sa.select(protection.c.study_instance_uid).where(own)) is not None:
        return False
    found, _ = connection.execute(_SIZE, {"row": candidate.row}).one()
    return bool(found == instances)


def _setting(times: dict[int, float]) -> Callable[[sa.Connection], None]:
    def write(connection: sa.Connection) -> None:
        for row_id, received in times.items():
            own = sa.and_(study.c.id == row_id, study.c.received == 0)
            connection.execute(study.update().where(own).values(received=received))

    return write


_SUM: Final = sa.select(sa.func.sum(instance.c.size), sa.func.max(instance.c.id)).where(
    instance.c.id > sa.bindparam("last")
)
_SIZE: Final = (
    sa.select(sa.func.count(), sa.func.sum(instance.c.size))
    .select_from(instance.join(series, instance.c.parent_id == series.c.id))
    .where(series.c.parent_id == sa.bindparam("row"))
)
_STUDIES_LEFT: Final = (
    sa.select(
        study.c.id,
        study.c.study_instance_uid,
        study.c.received,
        study.c.calling,
        study.c.called,
        study.c.study_date_key,
    )
    .where(
        study.c.received > 0,
        sa.or_(
            study.c.received > sa.bindparam("time"),
            sa.and_(study.c.received == sa.bindparam("time"), study.c.id > sa.bindparam("row")),
        ),
        sa.not_(sa.exists().where(protection.c.study_instance_uid == study.c.study_instance_uid)),
    )
    .order_by(study.c.received, study.c.id)
)
_NEWEST: Final = (
    sa.select(instance.c.sop_instance_uid)
    .select_from(instance.join(series, instance.c.parent_id == series.c.id))
    .where(series.c.parent_id == study.c.id)
    .order_by(instance.c.id.desc())
    .limit(1)
    .correlate(study)
    .scalar_subquery()
)
_UNDATED: Final = (
    sa.select(study.c.id, _NEWEST)
    .where(study.c.received == 0, study.c.id > sa.bindparam("row"))
    .order_by(study.c.id)
    .limit(_PAGE)
)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


class Retention(Rounds):
    """Applies the rules again and again, in a thread of its own, while the index is open.

    It runs without rules as well, for the files that wait for retrieves which have ended.

    Args:
        keeper: Applies the rules.
        reactor: The reactor of the node.
        period: Seconds between two runs.
        threads: With 0, a run is done at once on the reactor thread, which suits a test without a reactor.
    """

    name = "retention"
    _log = Logger()

    def __init__(
        self,
        keeper: Keeper,
        reactor: Any,  # IReactorTime and IReactorFromThreads
        *,
        period: float = PERIOD,
        threads: int = 1,
    ) -> None:
        super().__init__(reactor, first=period, retry=max(_RETRY, period), threads=threads)
        self.keeper = keeper
        self._period = period
        self._trouble = ""
        self._is_short = False

    def _do(self) -> float:
        self._tell(self.keeper.run(lambda: not self._stopping.is_set()))
        return self._period if self.keeper.rules.deletes else max(self._period, _QUIET)

    def _tell(self, run: Run) -> None:
        """Log what was deleted, and what could not be."""
        if self._trouble:
            self._log.info("retention goes on")
            self._trouble = ""
        if run.studies:
            self._log.info(
                "retention: {studies} with {instances} deleted, {octets} ({reasons}){waiting}",
                studies=_counted(sum(run.studies.values()), "study", "studies"),
                instances=_counted(run.instances, "instance", "instances"),
                octets=in_units(run.octets),
                reasons=", ".join(f"{each.value} {count}" for each, count in run.studies.items()),
                waiting=f"; {_counted(run.waiting, 'file goes', 'files go')} when they are sent"
                if run.waiting
                else "",
            )
        if bool(run.missing) != self._is_short:
            self._is_short = bool(run.missing)
            if self._is_short:
                self._log.warn(
                    "retention cannot free {octets} more: all other studies are protected, or have just arrived",
                    octets=in_units(run.missing),
                )
            else:
                self._log.info("retention has kept the quota again")

    def _failed(self, failure: Failure) -> None:
        if not failure.check(IndexUnavailableError, OSError):
            self._log.failure("retention has failed", failure)
        elif not self._trouble and self.keeper.rules.deletes:
            self._trouble = failure.getErrorMessage()
            self._log.warn(
                "retention: nothing can be deleted at the moment: {error}", error=self._trouble
            )
