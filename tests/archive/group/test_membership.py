"""A node lives among others: it joins them, tells what it does, and leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive.group.duties import Duty
from netdicom_tx.archive.group.members import MemberError, Members, NodeState, OwnNode, members_of
from netdicom_tx.archive.group.membership import Membership
from netdicom_tx.archive.index.index import Index, IndexUnavailableError
from support import doubles
from support.archive.databases import database_url
from support.archive.groups import Member
from support.doubles import LoggedFailures, logged_failures  # noqa: F401 - a fixture

REJECTED = 3  # the type of an A-ASSOCIATE-RJ PDU


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(database_url(tmp_path / "index.db")) as index:
        yield index


def member(index: Any, name: str = "one", **options: Any) -> Membership:
    made = Membership(index, is_group=True, threads=0, **options)
    made.prepare(name, tuple(Duty))
    return made


def join(made: Membership, name: str = "one", **options: Any) -> None:
    made.join(OwnNode(uuid=name, name=name, host="here"), **options)


def states(index: Index) -> dict[str, NodeState]:
    with index.reading() as reading:
        return {each.name: each.state for each in members_of(reading)}


def test_a_node_has_the_duties_as_soon_as_it_has_joined(index: Index) -> None:
    one, two = member(index), member(index, "two")
    assert not one.holds(Duty.SCRUB)
    join(one)
    join(two, "two")
    assert one.holds(Duty.SCRUB)
    assert two.duties == ()
    one.leave()
    assert not one.holds(Duty.SCRUB)
    two.beat()
    assert two.holds(Duty.SCRUB)
    assert states(index) == {"one": NodeState.STOPPED, "two": NodeState.ALIVE}
    two.leave()


def test_a_node_outside_a_group_has_all_duties(index: Index) -> None:
    alone = Membership(index, is_group=False, threads=0)
    alone.prepare("one", tuple(Duty))
    assert alone.holds(Duty.RETENTION)


def test_the_thread_tells_what_a_node_does(index: Index) -> None:
    made = Membership(index, is_group=True)
    made.prepare("one", ())
    told: list[int] = []

    def doing() -> dict[str, int]:
        told.append(1)
        return {"associations": len(told)}

    made.doing = doing
    join(made)
    made.state = lambda: NodeState.DRAINING
    made.beat_soon()
    made.leave()
    assert len(told) >= 1


def test_a_node_that_is_replaced_has_no_duties(index: Index, failures: LoggedFailures) -> None:
    one = member(index)
    told: list[str] = []
    one.on_replaced = lambda: told.append("replaced")
    join(one)
    join(member(index))
    assert not one.beat()
    assert told == ["replaced"]
    assert failures.texts() == ["{error}"]
    assert one.duties == ()
    assert one.trouble() == "another process runs as this node"
    one.leave()
    assert states(index) == {"one": NodeState.ALIVE}


def test_a_node_whose_place_is_taken_takes_no_associations(tmp_path: Path) -> None:
    node = Member(tmp_path)
    try:
        assert node.ae.membership is not None
        assert node.lives()
        node.ae.membership.is_replaced = True
        peer = node.connect()
        peer.send(doubles.request())
        assert peer.kinds() == [REJECTED]
    finally:
        node.close()


def test_an_error_does_not_end_the_signs_of_life(index: Index, failures: LoggedFailures) -> None:
    one = member(index)
    join(one)

    def fail() -> dict[str, int]:
        raise ValueError("it is not known")

    one.doing = fail
    assert one.beat()
    assert failures.texts() == ["it is not known"]
    one.doing = dict
    assert one.beat()
    one.leave()


def test_a_database_that_does_not_answer_is_told_once(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = member(index)
    join(one)

    def refuse(_: object) -> None:
        raise IndexUnavailableError("it is gone")

    with monkeypatch.context() as patched:
        patched.setattr(index, "write_apart", refuse)
        assert one.beat()
        assert one.beat()
        assert one.trouble() == ""
        patched.setattr("netdicom_tx.archive.group.membership.DEAD_AFTER", -1.0)
        assert "take this one for dead" in one.trouble()
        one.leave()


def test_a_database_for_one_node_takes_no_second_one(index: Index) -> None:
    one = member(index)
    join(one)
    two = Members(index, OwnNode(uuid="two", name="two"), sleep=lambda _: one.beat())
    with pytest.raises(MemberError, match="the node one runs on here, and SQLite serves one node"):
        two.join(only_one="SQLite serves one node")
