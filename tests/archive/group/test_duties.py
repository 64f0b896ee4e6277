"""What only one node may do is done by one node, and by another one when that one dies."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.group.duties import TERM, AllDuties, Duties, Duty
from netdicom_tx.archive.group.members import Members, OwnNode, database_time, members_of
from netdicom_tx.archive.group.tables import duty_table
from netdicom_tx.archive.index.engine import Settings, open_engine
from netdicom_tx.archive.index.index import Index
from support.archive.databases import PostgreSQL, database_url

ALL = tuple(sorted(each.value for each in Duty))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(database_url(tmp_path / "index.db")) as index:
        yield index


class Node:
    """A node with a clock of its own, which looks at the duties when it is told to."""

    def __init__(self, index: Index, name: str) -> None:
        self.now = 1000.0
        self.duties = Duties(name, seconds=lambda: self.now)
        self.members = Members(index, OwnNode(uuid=name, name=name), self.duties.renew)
        self.members.join()

    def beat(self) -> tuple[str, ...]:
        self.members.beat()
        return self.duties.held


def pass_by(index: Index, seconds: float) -> None:
    """Let the duties be older."""
    until = duty_table.c.until - seconds
    index.write_apart(lambda each: each.execute(duty_table.update().values(until=until)))


def test_a_node_that_is_alone_has_all_duties() -> None:
    assert AllDuties().holds(Duty.RETENTION)
    assert AllDuties().held == ALL


def test_the_first_node_has_the_duties_and_keeps_them(index: Index) -> None:
    one, two = Node(index, "one"), Node(index, "two")
    assert one.beat() == ALL
    assert two.beat() == ()
    assert one.beat() == ALL
    with index.reading() as reading:
        assert {each.name: each.duties for each in members_of(reading)} == {"one": ALL, "two": ()}


def test_another_node_takes_over_what_is_not_renewed(index: Index) -> None:
    one, two = Node(index, "one"), Node(index, "two")
    one.beat()
    pass_by(index, TERM + 1)
    assert two.beat() == ALL
    assert one.beat() == ()


def test_a_node_that_cannot_renew_stops_before_another_one_begins(index: Index) -> None:
    one = Node(index, "one")
    one.beat()
    one.now += TERM - 4
    assert one.duties.held == ()


def test_a_node_that_stops_passes_its_duties_on_at_once(index: Index) -> None:
    one, two = Node(index, "one"), Node(index, "two")
    one.beat()
    one.members.leave()
    assert two.beat() == ALL


def test_a_node_that_is_suspended_in_its_heartbeat_stops_no_other_node(tmp_path: Path) -> None:
    """It holds the rows of its duties, and the others do not wait for them, so they stay alive."""
    url = PostgreSQL.running().url(str(tmp_path))
    with Index(url, settings=Settings(lock_timeout=0.2)) as index:
        one, two = Node(index, "one"), Node(index, "two")
        one.beat()
        pass_by(index, TERM + 1)
        engine = open_engine(url)
        with engine.connect() as suspended:
            one.duties.renew(suspended, database_time(suspended))
            assert two.beat() == ()
            suspended.rollback()
        engine.dispose()
        assert two.beat() == ALL
        assert one.beat() == ()


def test_the_server_ends_a_heartbeat_that_is_suspended(tmp_path: Path) -> None:
    """Otherwise nobody could take its duties, or its name, for minutes."""
    seen: list[str] = []

    def renew(connection: sa.Connection, _: float) -> Callable[[], None]:
        asked = "SHOW idle_in_transaction_session_timeout"
        seen.append(str(connection.exec_driver_sql(asked).scalar()))
        return lambda: None

    with Index(PostgreSQL.running().url(str(tmp_path))) as index:
        members = Members(index, OwnNode(uuid="one", name="one"), renew)
        members.join()
        members.beat()
    assert seen == ["15s"]


def test_a_renewal_that_is_not_committed_does_not_count(index: Index) -> None:
    one = Node(index, "one")

    def renew_and_fail(connection: object) -> None:
        one.duties.renew(connection, database_time(connection))  # type: ignore[arg-type]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        index.write_apart(renew_and_fail)
    assert one.duties.held == ()
