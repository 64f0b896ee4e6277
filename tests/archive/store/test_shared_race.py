"""Nodes that receive one SOP Instance UID at the same moment, on PostgreSQL: the row decides, and nobody is misled."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from netdicom_tx.archive import Duplicates, Index
from netdicom_tx.archive.index import withdrawal
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store.deletion import Deleter
from netdicom_tx.archive.store.filestore import Outcome
from netdicom_tx.archive.store.objects import DirectoryObjects
from netdicom_tx.archive.store.sharedstore import SharedStore
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT
from support.archive.databases import PostgreSQL
from support.archive.groups import of_study

pytestmark = pytest.mark.interop

SENDERS = 4
UIDS = [f"1.2.{number}" for number in range(12)]


class Node:
    """The store and the index of a node."""

    def __init__(self, folder: Path, name: str, duplicates: Duplicates) -> None:
        (folder / "shared").mkdir(exist_ok=True)
        self.store = SharedStore(
            folder / name,
            DirectoryObjects(folder / "shared", fsync=False),
            fsync=False,
            duplicates=duplicates,
            grace=0,
        )
        self.index = Index(PostgreSQL.running().url(str(folder)), root=self.store.root)
        self.store.bind(self.index)
        self.store.open(self.index.open)

    def close(self) -> None:
        self.index.close()
        self.store.close()

    def keep(self, uid: str, fill: int) -> Outcome:
        spool = self.store.spool(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax, "SENDER")
        spool.write(of_study(uid, fill=fill))
        with spool:
            return self.store.keep_with_row(spool, lambda: None).outcome

    def octets(self, uid: str) -> bytes:
        ref = self.index.get(uid)
        assert ref is not None
        return self.store.octets(ref.path, ref.size)


@pytest.fixture
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Node]]:
    made = [Node(tmp_path, name, request.param) for name in ("one", "two")]
    yield made
    for each in made:
        each.close()


def at_once(nodes: list[Node], fills: list[int]) -> dict[str, list[Outcome]]:
    """Let each sender store each UID, with content of its own, all at the same time; what came of it by UID."""
    outcomes: dict[str, list[Outcome]] = {uid: [] for uid in UIDS}
    failures: list[BaseException] = []
    barrier = threading.Barrier(SENDERS)

    def send(number: int) -> None:
        try:
            for uid in UIDS:
                barrier.wait(60)
                outcomes[uid].append(nodes[number % 2].keep(uid, fills[number]))
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(SENDERS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    return outcomes


def check(nodes: list[Node]) -> None:
    """Every row has its object, and every other object goes."""
    one = nodes[0]
    Deleter(one.store, one.index).finish()
    paths = {str(ref.path) for ref in map(one.index.get, UIDS) if ref is not None}
    assert len(paths) == len(UIDS)
    assert {each.key for each in one.store.objects.list("instances/")} == paths
    for uid in UIDS:
        assert nodes[0].octets(uid) == nodes[1].octets(uid)


@pytest.mark.parametrize("nodes", [Duplicates.KEEP], indirect=True)
def test_one_of_several_contents_is_stored_and_the_others_are_refused(nodes: list[Node]) -> None:
    for outcomes in at_once(nodes, [1, 2, 3, 4]).values():
        assert Counter(outcomes) == {Outcome.STORED: 1, Outcome.REFUSED: SENDERS - 1}
    check(nodes)


@pytest.mark.parametrize("nodes", [Duplicates.KEEP], indirect=True)
def test_the_same_content_is_a_success_for_everybody(nodes: list[Node]) -> None:
    for outcomes in at_once(nodes, [1, 1, 1, 1]).values():
        assert set(outcomes) <= {Outcome.STORED, Outcome.SAME}
    check(nodes)


@pytest.mark.parametrize("nodes", [Duplicates.REPLACE], indirect=True)
def test_the_last_of_several_contents_counts(nodes: list[Node]) -> None:
    for outcomes in at_once(nodes, [1, 2, 3, 4]).values():
        assert Counter(outcomes) == {Outcome.STORED: 1, Outcome.REPLACED: SENDERS - 1}
    check(nodes)


@pytest.mark.parametrize("nodes", [Duplicates.KEEP_BOTH], indirect=True)
def test_all_of_several_contents_are_kept(nodes: list[Node]) -> None:
    for outcomes in at_once(nodes, [1, 2, 3, 4]).values():
        assert Counter(outcomes) == {Outcome.STORED: 1, Outcome.ASIDE: SENDERS - 1}
    check(nodes)
    versions = Counter(each.sop_instance_uid for each in nodes[0].store.versions())
    assert versions == dict.fromkeys(UIDS, SENDERS - 1)


@pytest.mark.parametrize("nodes", [Duplicates.KEEP], indirect=True)
def test_what_is_deleted_and_stored_at_once_is_there_or_not(nodes: list[Node]) -> None:
    """An object is never deleted whose row was committed."""
    one, two = nodes
    stop = threading.Event()
    failures: list[BaseException] = []

    def delete() -> None:
        deleter = Deleter(two.store, two.index)
        try:
            while not stop.is_set():
                for uid in UIDS[:3]:
                    deleter.delete_named(Level.IMAGE, uid)
                deleter.finish()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        for _ in range(15):
            for uid in UIDS[:3]:
                assert one.keep(uid, 1) in (Outcome.STORED, Outcome.SAME)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    for uid in UIDS[:3]:
        one.keep(uid, 1)
    Deleter(one.store, one.index).finish()
    for uid in UIDS[:3]:
        assert of_study(uid, fill=1) in one.octets(uid)
    with one.index.reading() as reading:
        assert withdrawal.listed(reading) == []
