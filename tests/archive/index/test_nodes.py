"""Several nodes write to one PostgreSQL database at the same time: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from string import ascii_letters
from typing import Any

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.index import engine as engines
from netdicom_tx.archive.index import withdrawal
from netdicom_tx.archive.index.connections import Connections
from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.index.engine import Settings, open_engine
from netdicom_tx.archive.index.index import Index, IndexUnavailableError
from netdicom_tx.archive.index.record import Receipt
from netdicom_tx.archive.index.schema import Level, instance, patient, protection, series, study
from netdicom_tx.archive.index.withdrawal import Chosen, Standing, choose
from support.archive.cutting import Cut, Cutter
from support.archive.databases import PostgreSQL
from support.archive.records import add, record
from support.processes import PATIENCE, eventually

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def server() -> PostgreSQL:
    return PostgreSQL.running()


@pytest.fixture
def url(server: PostgreSQL, tmp_path: Path) -> str:
    return server.url(str(tmp_path))


@pytest.fixture
def nodes(url: str) -> Iterator[tuple[Index, Index]]:
    with Index(url) as one, Index(url) as other:
        yield one, other


def values(index: Index, *columns: sa.Column[Any]) -> list[tuple[Any, ...]]:
    with index.reading() as reading:
        return [tuple(row) for row in reading.execute(sa.select(*columns).order_by(columns[0]))]


def orphans(index: Index) -> list[str]:
    """The names of the tables with a row that nothing belongs to."""
    levels = ((patient, study), (study, series), (series, instance))
    with index.reading() as reading:
        return [
            above.name
            for above, below in levels
            if reading.execute(
                sa.select(above.c.id).where(
                    ~sa.exists(sa.select(below.c.id).where(below.c.parent_id == above.c.id))
                )
            ).first()
        ]


@contextmanager
def meanwhile(index: Index) -> Iterator[sa.Connection]:
    """A transaction of someone else, which is committed at the end of the block."""
    assert index._engine is not None
    with index._engine.begin() as connection:
        yield connection


def wait_for_lock(index: Index) -> None:
    """Wait until a transaction waits for another one."""
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    def is_waiting() -> bool:
        with index.reading() as reading:
            return bool(reading.scalar(waiting))

    eventually(is_waiting, "a transaction waits for another one")


# -- what a node remembers, and another one changes -----------------------------------------------------


def test_a_study_that_another_node_has_deleted_is_made_again(nodes: tuple[Index, Index]) -> None:
    one, other = nodes
    add(one, record("1.1"))
    assert other.remove("1.1").result(30)
    add(one, record("1.2"))
    assert other.get("1.2") is not None
    assert one.counts()[:4] == (1, 1, 1, 1)


def test_a_series_of_a_study_that_another_node_has_deleted(nodes: tuple[Index, Index]) -> None:
    one, other = nodes
    add(one, record("1.1", SeriesInstanceUID="3.1"))
    add(other, record("1.2", SeriesInstanceUID="3.1"))
    assert [other.remove(uid).result(30) for uid in ("1.1", "1.2")] == [True, True]
    add(other, record("1.3", SeriesInstanceUID="3.2"))
    add(one, record("1.4", SeriesInstanceUID="3.2"), record("1.5", SeriesInstanceUID="3.1"))
    assert one.counts()[:4] == (1, 1, 2, 3)
    assert orphans(one) == []


def test_a_value_that_another_node_has_filled_in_stays(nodes: tuple[Index, Index]) -> None:
    """The first instance that says it determines it, whoever has received that."""
    one, other = nodes
    add(one, record("1.1"))
    add(other, record("1.2"))
    add(one, record("1.3", AccessionNumber="FIRST", PatientName="First^Anna"))
    add(other, record("1.4", AccessionNumber="SECOND", PatientName="Second^Anna", StudyID="2"))
    assert values(one, study.c.accession_number, study.c.study_id) == [("FIRST", "2")]
    assert values(one, patient.c.patient_name, patient.c.patient_name_alphabetic) == [
        ("First^Anna", "first^anna")
    ]


def test_the_senders_that_several_nodes_note_are_all_noted(nodes: tuple[Index, Index]) -> None:
    one, other = nodes
    for number, (node, receipt) in enumerate(
        [
            (one, Receipt(1000.0, "CT1", "NODE")),
            (other, Receipt(1001.0, "CT2", "NODE")),
            (one, Receipt(1002.0, "CT3", "NODE")),
            (other, Receipt(1003.0, "CT4", "OTHER")),
            (one, Receipt(1020.0, "CT4", "")),
        ]
    ):
        add(node, replace(record(f"1.{number}"), receipt=receipt))
    (found,) = values(one, study.c.received, study.c.calling, study.c.called)
    assert found == (1020.0, "CT1\\CT2\\CT3\\CT4", "NODE\\OTHER")


# -- at the same moment -------------------------------------------------------------------------------


def test_what_is_replaced_while_another_node_deletes_it_is_there(
    nodes: tuple[Index, Index],
) -> None:
    """It came later than the deletion, and it was acknowledged."""
    one, other = nodes
    add(one, record("1.1", "/files/old.dcm"), record("1.2"))
    with meanwhile(other) as connection:
        (row,) = [each.row for each in choose(connection, Level.IMAGE, "1.1")]
        other._writer.remove_rows(connection, [row])
        adding = one.add(record("1.1", "/files/new.dcm"))
        wait_for_lock(one)
    adding.result(30)
    found = other.get("1.1")
    assert found is not None
    assert found.path == Path("/files/new.dcm")


def test_an_instance_that_comes_while_the_rest_of_its_series_is_deleted(
    nodes: tuple[Index, Index],
) -> None:
    one, other = nodes
    add(one, record("1.1"))
    with meanwhile(other) as connection:
        other._writer.remove(connection, "1.1")
        adding = one.add(record("1.2"))
        wait_for_lock(one)
    adding.result(30)
    assert other.counts()[:4] == (1, 1, 1, 1)


def test_two_nodes_that_delete_a_half_each_leave_nothing(
    nodes: tuple[Index, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them sees what the other one has not deleted yet."""
    one, other = nodes
    add(one, *(record(f"1.{number}") for number in range(8)))
    with one.reading() as reading:
        chosen = choose(reading, Level.STUDY, "2.1")
    both = threading.Barrier(2)
    for node in nodes:

        def prune(
            connection: sa.Connection,
            ids: Iterable[int],
            own: Callable[..., None] = node._writer._prune,
        ) -> None:
            both.wait(30)
            own(connection, ids)

        monkeypatch.setattr(node._writer, "_prune", prune)
    done = [one.withdraw(chosen[:4]), other.withdraw(chosen[4:])]
    assert [len(each.result(30)) for each in done] == [4, 4]
    assert one.counts() == (0, 0, 0, 0, 0)


def test_what_two_nodes_delete_is_listed_once(nodes: tuple[Index, Index]) -> None:
    one, _ = nodes
    add(one, record("1.1"), record("1.2"))
    with one.reading() as reading:
        chosen = choose(reading, Level.STUDY, "2.1")
    both = threading.Barrier(2)

    def together(_: sa.Connection, those: Sequence[Chosen]) -> Sequence[Chosen]:
        if not both.broken:
            both.wait(30)
        return those

    done = [node.withdraw(chosen, together) for node in nodes]
    assert sorted(len(each.result(30)) for each in done) == [0, 2]


def test_a_study_that_comes_to_two_nodes_with_two_patients(nodes: tuple[Index, Index]) -> None:
    """It stays with the first one, and the other one is no patient of the archive."""
    one, other = nodes
    with meanwhile(other) as connection:
        other._writer.add(connection, [record("1.1", PatientID="FIRST")])
        adding = one.add(record("1.2", PatientID="SECOND"))
        wait_for_lock(one)
    adding.result(30)
    assert values(one, patient.c.patient_id) == [("FIRST",)]
    assert one.counts().instances == 2


def test_the_first_of_two_contents_stays(
    nodes: tuple[Index, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other node adds its own after this one has found nothing, and before it writes."""
    one, other = nodes
    find_standing = withdrawal.standing
    looks: list[int] = []

    def standing(connection: sa.Connection, uids: Collection[str]) -> dict[str, Standing]:
        found = find_standing(connection, uids)
        looks.append(1)
        if len(looks) == 1:
            add(other, record("1.1", "/files/first.dcm"))
        return found

    monkeypatch.setattr(withdrawal, "standing", standing)
    assert one.add_new(record("1.1", "/files/second.dcm")).result(30) == Standing(
        "/files/first.dcm", 1000
    )
    assert len(looks) == 2


@pytest.mark.slow
def test_nodes_that_hammer_one_study_lose_and_double_nothing(url: str) -> None:
    """Three nodes add the same and other instances, while one of them deletes the study again and again."""
    random = Random(5)
    uids = [f"1.{number}" for number in range(40)]

    def made(uid: str) -> Any:
        number = int(uid[2:])
        return record(
            uid,
            StudyInstanceUID=f"2.{number % 2}",
            SeriesInstanceUID=f"3.{number % 4}",
            PatientID=f"P{number % 2}",
            AccessionNumber=f"A{number % 2}",
        )

    with ExitStack() as stack:
        nodes = [stack.enter_context(Index(url)) for _ in range(3)]
        deleted = 0
        for _ in range(6):
            futures = [
                node.add(made(uid)) for node in nodes for uid in random.sample(uids, len(uids))
            ]
            for _ in range(3):
                with nodes[0].reading() as reading:
                    chosen = choose(reading, Level.STUDY, "2.0")
                deleted += len(nodes[0].withdraw(chosen).result(60))
            for each in futures:
                each.result(60)
            # What was deleted comes once more, now that nobody deletes.
            for each in [nodes[1].add(made(uid)) for uid in uids]:
                each.result(60)
            assert nodes[2].counts()[:4] == (2, 2, 4, 40)
            assert {uid for uid in uids if nodes[2].get(uid)} == set(uids)
            assert orphans(nodes[2]) == []
        assert deleted


# -- transactions that are performed again ------------------------------------------------------------


def test_a_deadlock_is_resolved(nodes: tuple[Index, Index]) -> None:
    """PostgreSQL ends one of the two with 40P01; it is performed again, alone."""
    one, other = nodes
    names = ("a", "b")
    one.write(_protect(names)).result(30)
    both = threading.Barrier(2)
    calls: list[str] = []

    def label(first: str, second: str, value: str) -> Any:
        def call(connection: sa.Connection) -> None:
            calls.append(value)
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '50ms'")
            for number, name in enumerate((first, second)):
                if number and len(calls) <= 2:
                    both.wait(30)
                own = protection.c.study_instance_uid == name
                connection.execute(
                    protection.update().where(own).values(label=protection.c.label + value)
                )

        return call

    futures = [one.write(label("a", "b", "1")), other.write(label("b", "a", "2"))]
    for each in futures:
        each.result(30)
    assert len(calls) == 3
    assert [sorted(each) for (each,) in values(one, protection.c.label)] == [["1", "2"]] * 2


def _protect(names: Sequence[str]) -> Any:
    def call(connection: sa.Connection) -> None:
        rows = [{"study_instance_uid": each, "label": "", "created": 0.0} for each in names]
        connection.execute(protection.insert(), rows)

    return call


def test_a_serialisation_failure_is_resolved(server: PostgreSQL, tmp_path: Path) -> None:
    """A server whose transactions are serialisable ends one of two that read before both write (40001)."""
    url = server.url(str(tmp_path), options="-c default_transaction_isolation=serializable")
    both = threading.Barrier(2)
    calls: list[int] = []

    def count(connection: sa.Connection) -> int:
        calls.append(1)
        found = connection.scalar(sa.select(protection.c.created)) or 0.0
        if len(calls) <= 2:
            both.wait(30)
        connection.execute(protection.update().values(created=found + 1.0))
        return len(calls)

    with Index(url) as one, Index(url) as other:
        one.write(_protect(["a"])).result(30)
        futures = [each.write(count) for each in (one, other)]
        for future in futures:
            future.result(30)
        assert len(calls) == 3
        assert values(one, protection.c.created) == [(2.0,)]


def test_a_command_beside_the_nodes_resolves_them_as_well(url: str, nodes: Any) -> None:
    database = EngineDatabase(url)
    tries: list[int] = []

    def call(connection: sa.Connection) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise sa.exc.OperationalError("", None, _Failure("40P01"))

    database.write(call).result(30)
    assert len(tries) == 3
    database.close()


class _Failure(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def test_a_transaction_that_is_always_disturbed_fails_in_the_end(
    nodes: tuple[Index, Index],
) -> None:
    tries: list[int] = []

    def call(connection: sa.Connection) -> None:
        tries.append(1)
        raise sa.exc.OperationalError("", None, _Failure("40001"))

    assert isinstance(nodes[0].write(call).exception(30), IndexUnavailableError)
    assert len(tries) == 8


# -- a connection that is lost --------------------------------------------------------------------------


@pytest.fixture
def cutter(server: PostgreSQL) -> Iterator[Cutter]:
    with Cutter(server.socket) as made:
        yield made


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
def test_a_commit_that_nobody_has_answered_is_done_once(
    server: PostgreSQL, cutter: Cutter, tmp_path: Path, cut: Cut
) -> None:
    """The server knows whether it has committed. A task that was queued must not be queued twice, nor be lost."""
    calls: list[int] = []

    def call(connection: sa.Connection) -> str:
        calls.append(1)
        connection.execute(protection.update().values(created=protection.c.created + 1.0))
        return "done"

    with Index(server.url(str(tmp_path), port=cutter.port)) as index:
        index.write(_protect(["a"])).result(30)
        cutter.cut = cut
        assert index.write(call).result(30) == "done"
        assert cutter.count == 1
        assert len(calls) == (2 if cut is Cut.BEFORE else 1)
        assert values(index, protection.c.created) == [(1.0,)]


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
def test_an_instance_whose_commit_nobody_has_answered_is_there_once(
    server: PostgreSQL, cutter: Cutter, tmp_path: Path, cut: Cut
) -> None:
    with Index(server.url(str(tmp_path), port=cutter.port)) as index:
        add(index, record("1.1"))
        cutter.cut = cut
        add(index, record("1.2"))
        assert cutter.count == 1
        assert index.counts()[:4] == (1, 1, 1, 2)


# -- values that the database does not take -------------------------------------------------------------


def test_a_value_that_no_index_can_hold_harms_no_other_instance(
    nodes: tuple[Index, Index],
) -> None:
    """An entry of an index has at most 2704 octets. Only the instance that has such a value is refused."""
    one, _ = nodes
    long = "".join(Random(1).choices(ascii_letters, k=8000))
    refused = one.add_many(
        [record("1.1"), record("1.2", StudyInstanceUID="2.2", PatientID=long), record("1.3")]
    ).result(30)
    assert refused is not None
    assert list(refused) == ["1.2"]
    one.check()
    assert [one.get(uid) is not None for uid in ("1.1", "1.2", "1.3")] == [True, False, True]


def test_a_user_without_rights_is_a_refusal_of_the_database(
    url: str, nodes: tuple[Index, Index]
) -> None:
    """Otherwise each instance would be taken for one with a wrong value."""
    one, _ = nodes

    def forbidden(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET LOCAL ROLE pg_read_all_settings")
        connection.exec_driver_sql("SELECT * FROM pg_authid")

    assert isinstance(one.write(forbidden).exception(30), IndexUnavailableError)
    with pytest.raises(IndexUnavailableError, match="permission denied"):
        one.check()


# -- what connections are set to ------------------------------------------------------------------------


def shown(url: str, settings: Settings, *names: str) -> list[str]:
    engine = open_engine(url, settings=settings)
    with engine.connect() as connection:
        connection.rollback()
        found = [str(connection.exec_driver_sql(f"SHOW {each}").scalar()) for each in names]
    engine.dispose()
    return found


def test_connections_are_set_to_the_timeouts_of_the_node(url: str) -> None:
    settings = Settings(
        statement_timeout=7.0, lock_timeout=0.5, idle_timeout=61.0, application="netdicom NODE1"
    )
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "application_name",
    )
    assert shown(url, settings, *names) == ["7s", "500ms", "61s", "netdicom NODE1"]


def test_an_option_in_the_url_counts_more(server: PostgreSQL, tmp_path: Path) -> None:
    url = server.url(str(tmp_path), options="-c statement_timeout=3s")
    found = shown(
        f"{url}&application_name=mine", Settings(), "statement_timeout", "application_name"
    )
    assert found == ["3s", "mine"]


@pytest.mark.parametrize(
    ("default", "found"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")]
)
def test_a_commit_waits_for_the_disk_whatever_the_default(
    url: str, server: PostgreSQL, tmp_path: Path, default: str, found: str
) -> None:
    """The default is that of the role here; a stricter one stays."""
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE careless SUPERUSER LOGIN")
        connection.exec_driver_sql(f"ALTER ROLE careless SET synchronous_commit = {default}")
    try:
        theirs = url.replace("://tests@", "://careless@")
        assert shown(theirs, Settings(), "synchronous_commit") == [found]
        asked = server.url(str(tmp_path), options="-c synchronous_commit=off")
        assert shown(asked, Settings(), "synchronous_commit") == ["off"]
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP ROLE careless")
        engine.dispose()


def test_a_statement_that_takes_too_long_is_ended(url: str) -> None:
    with Index(url, settings=Settings(statement_timeout=2.0)) as index:
        with (
            pytest.raises(IndexUnavailableError, match="statement timeout"),
            index.reading() as reading,
        ):
            reading.execute(sa.select(sa.func.pg_sleep(30)))
        add(index, record("1.1"))


def test_a_transaction_that_changes_something_may_not_be_idle_for_long(url: str) -> None:
    """Its node may be suspended, or its machine lost, and others wait for its locks."""
    asked = sa.text("SHOW idle_in_transaction_session_timeout")
    with Index(url) as index:
        assert index.write(lambda writer: writer.scalar(asked)).result() == "15s"
        with index.reading() as reading:
            assert reading.scalar(asked) == "5min"


def test_a_node_that_is_suspended_while_it_writes_does_not_hold_up_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_BRIEF", 0.2)
    suspended, goes_on = threading.Event(), threading.Event()

    def suspend(connection: sa.Connection) -> None:
        if not suspended.is_set():
            connection.exec_driver_sql("UPDATE series SET parent_id = parent_id")
            suspended.set()
            assert goes_on.wait(PATIENCE)
        connection.exec_driver_sql("UPDATE series SET parent_id = parent_id")

    with Index(url) as one, Index(url) as two:
        add(one, record("1.1"))
        waiting = one.write(suspend)
        assert suspended.wait(PATIENCE)
        two.write(suspend).result(PATIENCE)
        goes_on.set()
        waiting.result(PATIENCE)  # it is tried again


def test_a_comparison_of_files_and_rows_takes_its_time(url: str) -> None:
    """It waits for the disk between two parts, and a large index is sorted before the first one."""
    with Index(url) as index:
        add(index, record("1.1"), record("1.2"))
    with Index(url, settings=Settings(idle_timeout=1.0)) as index:
        paths = index.paths()
        next(paths)
        eventually(lambda: _idle_for(index) > 1.5, "the limit has passed")
        assert len(list(paths)) == 1


def _idle_for(index: Index) -> float:
    """For how many seconds the transaction that has waited longest has done nothing."""
    longest = sa.text(
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0) FROM pg_stat_activity "
        "WHERE state = 'idle in transaction' AND pid <> pg_backend_pid()"
    )
    with index.reading() as reading:
        return float(reading.scalar(longest) or 0.0)


def test_whoever_waits_too_long_for_others_is_refused(url: str) -> None:
    with Index(url, settings=Settings(lock_timeout=0.1)) as index:
        add(index, record("1.1"))
        with meanwhile(index) as connection:
            connection.exec_driver_sql("LOCK TABLE instance")
            refused = index.add(record("1.2")).exception(30)
        assert isinstance(refused, IndexUnavailableError)
        assert "lock timeout" in str(refused)


def test_a_server_that_is_away_is_not_asked_by_everybody(url: str) -> None:
    """It is tried again after a while, which becomes longer."""
    engine = open_engine("postgresql+psycopg://nobody@/nowhere?host=/nowhere")
    connections = Connections(engine)
    tries: list[int] = []
    sa.event.listen(engine, "do_connect", lambda *_: tries.append(1))
    for _ in range(100):
        with pytest.raises(IndexUnavailableError, match="the database does not answer"):
            connections.connect()
    assert len(tries) < 10
    engine.dispose()
