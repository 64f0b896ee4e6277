"""Nodes that share a database know which of them are alive; one that is not seen is dead."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.group import members as module
from netdicom_tx.archive.group.members import (
    MemberError,
    Members,
    NodeState,
    OwnNode,
    ReplacedError,
    database_time,
    is_dead,
    lock_of,
    members_of,
)
from netdicom_tx.archive.group.tables import node_table
from netdicom_tx.archive.index.index import Index
from support.archive.databases import database_url


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(database_url(tmp_path / "index.db")) as index:
        yield index


def node(index: Index, name: str = "one", uuid: str = "", **options: object) -> Members:
    me = OwnNode(uuid=uuid or name, name=name, host="here", place=f"/data/{name}")
    return Members(index, me, sleep=lambda _: None, **options)  # type: ignore[arg-type]


def forget(index: Index, seconds: float, uuid: str = "one") -> None:
    """Let a node not have been seen for so long."""
    seen = node_table.c.seen - seconds
    index.write_apart(
        lambda each: each.execute(
            node_table.update().where(node_table.c.uuid == uuid).values(seen=seen)
        )
    )


def states(index: Index) -> dict[str, NodeState]:
    with index.reading() as reading:
        return {each.name: each.state for each in members_of(reading)}


def test_nodes_see_each_other(index: Index) -> None:
    assert node(index).join() == []
    (other,) = node(index, "two").join()
    assert (other.name, other.host, other.place) == ("one", "here", "/data/one")
    assert other.is_running
    assert states(index) == {"one": NodeState.ALIVE, "two": NodeState.ALIVE}


def test_a_node_that_is_not_seen_is_dead(index: Index) -> None:
    one = node(index)
    one.join()
    forget(index, module.DEAD_AFTER + 1)
    assert states(index) == {"one": NodeState.DEAD}
    one.beat()
    assert states(index) == {"one": NodeState.ALIVE}


def test_a_node_tells_what_it_does_until_it_stops(index: Index) -> None:
    one = node(index)
    one.join()
    one.beat({"associations": 3}, NodeState.DRAINING)
    with index.reading() as reading:
        (found,) = members_of(reading)
    assert found.state is NodeState.DRAINING
    assert found.doing == {"associations": 3}
    one.leave()
    assert states(index) == {"one": NodeState.STOPPED}


def test_two_live_nodes_cannot_have_one_name(index: Index) -> None:
    first = node(index)
    first.join()
    second = Members(index, OwnNode(uuid="other", name="one"), sleep=lambda _: first.beat())
    with pytest.raises(MemberError, match=r"another node called one runs on here"):
        second.join()


def test_a_copy_of_a_directory_cannot_run_beside_it(index: Index) -> None:
    first = node(index)
    first.join()
    copy = OwnNode(uuid="one", name="copy", host="here", place="/data/copy")
    with pytest.raises(MemberError, match=r"runs on here with the identity of this one"):
        Members(index, copy, sleep=lambda _: first.beat()).join()


def test_a_node_that_was_killed_is_replaced_when_it_gives_no_sign_of_life(index: Index) -> None:
    killed = node(index)
    killed.join()
    waits: list[float] = []
    fresh = Members(index, OwnNode(uuid="fresh", name="one", host="there"), sleep=waits.append)
    assert fresh.join() == []
    assert states(index) == {"one": NodeState.ALIVE}
    assert waits == [module.BEAT * 2.5]
    with pytest.raises(ReplacedError):
        killed.beat()


def test_the_row_of_a_replaced_node_goes_after_a_while(index: Index) -> None:
    """It stays for as long as the document of the store may name it, and is not listed."""

    def uuids() -> set[str]:
        with index.reading() as reading:
            return set(reading.scalars(sa.select(node_table.c.uuid)))

    node(index).join()
    node(index, uuid="fresh").join()
    assert uuids() == {"one", "fresh"}
    assert states(index) == {"one": NodeState.ALIVE}
    with index.reading() as reading:
        now = database_time(reading)
        assert reading.scalar(sa.select(is_dead(sa.literal("one"), now)))
    forget(index, 3601)
    node(index, "two").join()
    assert uuids() == {"fresh", "two"}


def test_two_nodes_may_exchange_their_directories(index: Index) -> None:
    """Each then has the identity of the other one."""
    for each in (node(index), node(index, "two")):
        each.join()
        each.leave()
    one, two = node(index, "one", "two"), node(index, "two", "one")
    one.join()
    two.join()
    one.beat()
    assert states(index) == {"one": NodeState.ALIVE, "two": NodeState.ALIVE}


def test_a_node_that_is_long_gone_leaves_the_list(index: Index) -> None:
    node(index).join()
    node(index, "two").join()
    forget(index, 31 * 86400)
    node(index, "three").join()
    assert set(states(index)) == {"two", "three"}


def test_a_restart_in_the_same_directory_waits_for_nobody(index: Index) -> None:
    node(index).join()

    def wait(_: float) -> None:
        raise AssertionError("it waits")

    again = Members(
        index, OwnNode(uuid="one", name="one", host="here", place="/data/one"), sleep=wait
    )
    again.join()


def test_a_copy_of_the_whole_machine_cannot_run_beside_it(index: Index) -> None:
    """It has the name of the host and the path of the directory, too."""
    me = OwnNode(uuid="one", name="one", host="here", place="/data/one", lock="one boot")
    first = Members(index, me)
    first.join()
    copy = Members(index, replace(me, lock="another"), sleep=lambda _: first.beat())
    with pytest.raises(MemberError, match=r"runs on here with the identity of this one"):
        copy.join()
    first.beat()


def test_the_lock_of_a_copy_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (tmp_path / "boot").write_text("another boot")
    known = {lock_of(one), lock_of(two)}
    assert lock_of(one) in known
    for boot in ("boot", "missing"):
        monkeypatch.setattr(module, "_BOOT", tmp_path / boot)
        known.add(lock_of(one))
    assert len(known) == 4


def test_a_clock_that_is_wrong_is_refused(index: Index) -> None:
    with index.reading() as reading:
        now = database_time(reading)
    with pytest.raises(MemberError, match=r"is 3[56]\d\d s behind that of the database.*NTP"):
        node(index, clock=lambda: now - 3600).join()
    assert states(index) == {}


def test_the_difference_of_the_clocks_is_measured(index: Index) -> None:
    with index.reading() as reading:
        now = database_time(reading)
    one = node(index, clock=lambda: now + 40)
    one.join()
    assert 20 < one.skew <= 40


def test_a_statement_can_ask_whether_a_node_is_dead(index: Index) -> None:
    node(index).join()
    node(index, "two").join()
    forget(index, module.DEAD_AFTER + 1, "two")

    def dead(uuid: str) -> bool:
        with index.reading() as reading:
            return bool(
                reading.scalar(sa.select(is_dead(sa.literal(uuid), database_time(reading))))
            )

    assert [dead(each) for each in ("one", "two", "unknown")] == [False, True, False]
