"""A database and a store that do not belong together are refused, before a row or a file has changed."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive import FileStore, Index, IndexUnusableError
from netdicom_tx.archive.group import identity
from netdicom_tx.archive.group.identity import DOCUMENT, ForeignError, check_own, read_document
from netdicom_tx.archive.group.tables import identity_table, store_table
from netdicom_tx.archive.index.record import record_of
from netdicom_tx.archive.store.deletion import open_archive
from netdicom_tx.archive.store.objects import DirectoryObjects
from netdicom_tx.archive.store.place import node_uuid
from netdicom_tx.archive.store.reconcile import reconcile
from netdicom_tx.archive.store.sharedstore import SharedStore
from netdicom_tx.dsutils import encode
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT
from support.archive.databases import database_url
from support.archive.patients import data_set
from support.archive.records import CT_IMAGE_STORAGE


class Deployment:
    """A storage directory and a database, which need not belong together."""

    def __init__(self, folder: Path, storage: str = "one", database: str = "one") -> None:
        self.folder = folder
        self.store = self.make_store(storage)
        url = database_url(folder / f"{database}.db")
        self.index = Index(url, root=self.store.root)

    def make_store(self, name: str) -> FileStore:
        return FileStore(self.folder / name, fsync=False)

    def open(self, *, adopt: bool = False) -> None:
        open_archive(self.store, self.index, adopt=adopt)

    def close(self) -> None:
        self.index.close()
        self.store.close()

    def start(self, *, adopt: bool = False) -> list[str]:
        """Start and stop, as a node does; returns the SOP Instance UIDs in the index."""
        self.open(adopt=adopt)
        try:
            if not self.store.is_shared:
                reconcile(self.index, self.store)
            return [each.sop_instance_uid for each in self.index.paths()]
        finally:
            self.close()

    def keep(self, uid: str = "1.2.3") -> None:
        """Have an instance."""
        self.open()
        try:
            octets = encode(data_set(SOPClassUID=CT_IMAGE_STORAGE, SOPInstanceUID=uid), IMPLICIT)
            with self.store.spool(CT_IMAGE_STORAGE, uid, IMPLICIT, "SENDER") as spool:
                spool.write(octets)
                kept = self.store.keep(spool)
            self.index.add(record_of(kept.path)).result()
        finally:
            self.close()

    def grow_old(self) -> None:
        """Be a deployment of a release that knew no identity."""
        (self.store.root / DOCUMENT).unlink(missing_ok=True)
        with self.index:
            self.index.write_apart(lambda each: each.execute(identity_table.delete()))
            self.index.write_apart(lambda each: each.execute(store_table.delete()))


class Group(Deployment):
    """The same for a node whose store is shared."""

    def make_store(self, name: str) -> FileStore:
        shared = self.folder / "shared"
        shared.mkdir(exist_ok=True)
        return SharedStore(self.folder / name, DirectoryObjects(shared, fsync=False), fsync=False)

    def __init__(self, folder: Path, storage: str = "one", database: str = "one") -> None:
        super().__init__(folder, storage, database)
        assert isinstance(self.store, SharedStore)
        self.store.bind(self.index)


def rows(deployment: Deployment) -> list[str]:
    with deployment.index:
        return [each.sop_instance_uid for each in deployment.index.paths()]


def test_a_new_archive_gets_an_identity_and_keeps_it(tmp_path: Path) -> None:
    one = Deployment(tmp_path)
    one.start()
    document = read_document(one.store.root)
    assert document is not None
    assert document.database
    assert document.store
    assert document.node == node_uuid(one.store)
    one.start()
    assert read_document(one.store.root) == document


def test_a_deployment_of_an_older_release_is_adopted(tmp_path: Path) -> None:
    old = Deployment(tmp_path)
    old.keep()
    old.grow_old()
    assert old.start() == ["1.2.3"]
    assert read_document(old.store.root) is not None


def test_an_older_deployment_with_a_wrong_directory_is_refused(tmp_path: Path) -> None:
    old = Deployment(tmp_path)
    old.keep()
    old.grow_old()
    wrong = Deployment(tmp_path, storage="wrong")
    with pytest.raises(ForeignError, match=r"has rows, but .*wrong has none of their files"):
        wrong.start()
    assert os.listdir(wrong.store.root) == ["lock"]
    assert rows(old) == ["1.2.3"]


def test_an_empty_directory_beside_a_database_in_use_is_refused(tmp_path: Path) -> None:
    one = Deployment(tmp_path)
    one.keep()
    wrong = Deployment(tmp_path, storage="wrong")
    with pytest.raises(ForeignError, match=r"belongs to the store in .*one, and .*wrong has no"):
        wrong.start()
    assert os.listdir(wrong.store.root) == ["lock"]
    assert one.start() == ["1.2.3"]


def test_the_directory_of_another_archive_is_refused(tmp_path: Path) -> None:
    one, two = Deployment(tmp_path), Deployment(tmp_path, "two", "two")
    one.keep("1.2.3")
    two.keep("1.2.4")
    with pytest.raises(ForeignError, match="belongs to another database than"):
        Deployment(tmp_path, "one", "two").start()
    assert one.start() == ["1.2.3"]
    assert two.start() == ["1.2.4"]


def test_a_database_that_is_new_becomes_the_index_of_the_files(tmp_path: Path) -> None:
    """The node makes a new index when the old one was moved away."""
    one = Deployment(tmp_path)
    one.keep()
    document = read_document(one.store.root)
    fresh = Deployment(tmp_path, database="fresh")
    assert fresh.start() == ["1.2.3"]
    assert read_document(one.store.root) == document


def test_a_lost_document_is_replaced_when_an_operator_says_so(tmp_path: Path) -> None:
    one = Deployment(tmp_path)
    one.keep()
    before = read_document(one.store.root)
    (one.store.root / DOCUMENT).unlink()
    with pytest.raises(IndexUnusableError, match="netdicom node adopt"):
        one.start()
    assert one.start(adopt=True) == ["1.2.3"]
    after = read_document(one.store.root)
    assert before is not None
    assert after is not None
    assert (after.database, after.store) == (before.database, before.store)
    assert one.start() == ["1.2.3"]


def test_a_store_is_adopted_by_another_database(tmp_path: Path) -> None:
    one, two = Deployment(tmp_path), Deployment(tmp_path, "two", "two")
    one.keep("1.2.3")
    two.keep("1.2.4")
    mixed = Deployment(tmp_path, "one", "two")
    assert mixed.start(adopt=True) == ["1.2.3"]
    assert mixed.start() == ["1.2.3"]


def test_a_first_start_that_was_interrupted_is_continued(tmp_path: Path) -> None:
    one = Deployment(tmp_path)
    one.keep()
    (one.store.root / DOCUMENT).unlink()
    with one.index:
        one.index.write_apart(lambda each: each.execute(store_table.update().values(marked=0)))
    assert one.start() == ["1.2.3"]
    with pytest.raises(ForeignError):
        Deployment(tmp_path, storage="other").start()


def test_a_document_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    one = Deployment(tmp_path)
    one.start()
    (one.store.root / DOCUMENT).write_text("{}")
    with pytest.raises(ForeignError, match="is not the identity of a store"):
        one.start()


def test_a_command_beside_a_node_refuses_the_database_of_another(tmp_path: Path) -> None:
    one, two = Deployment(tmp_path), Deployment(tmp_path, "two", "two")
    one.start()
    two.start()
    two.index.identify = partial(check_own, directory=one.store.root, url=two.index.url)
    with pytest.raises(ForeignError, match="belongs to another database than"):
        two.index.open()
    one.index.identify = partial(check_own, directory=one.store.root, url=one.index.url)
    with one.index:
        assert one.index.is_open


def test_the_nodes_of_a_group_have_one_store(tmp_path: Path) -> None:
    one, two = Group(tmp_path), Group(tmp_path, "two")
    one.start()
    two.start()
    documents = [read_document(each.store.root) for each in (one, two)]
    assert documents[0] is not None
    assert documents[1] is not None
    assert documents[0][:2] == documents[1][:2]
    assert documents[0].node != documents[1].node


def test_a_shared_store_has_one_database(tmp_path: Path) -> None:
    Group(tmp_path).start()
    with pytest.raises(ForeignError, match=r"belongs to another database than .*, which is empty"):
        Group(tmp_path, "two", "two").start()


def test_the_directory_of_a_node_of_another_archive_cannot_join(tmp_path: Path) -> None:
    alone = Deployment(tmp_path, "two", "two")
    alone.start()
    Group(tmp_path).start()
    joining = Group(tmp_path, "two", "one")
    with pytest.raises(ForeignError, match="has been used for another archive"):
        joining.start()
    joining.start(adopt=True)
    joining.start()


class Unconditional(DirectoryObjects):
    """A store that cannot put a document on the condition that there is none, such as Swift's."""

    def put_document(self, name: str, octets: bytes) -> bytes:
        if self.document(name) is None:
            self.put(name, [octets], len(octets))
        return self.document(name) or octets


@pytest.mark.parametrize("kind", [DirectoryObjects, Unconditional])
def test_nodes_that_start_at_once_get_one_identity(
    tmp_path: Path, kind: type[DirectoryObjects]
) -> None:
    nodes = [Group(tmp_path, name) for name in ("one", "two", "three")]
    for node in nodes:
        assert isinstance(node.store, SharedStore)
        node.store.objects = kind(tmp_path / "shared", fsync=False)
    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(node.start) for node in nodes]:
            each.result()
    documents = {read_document(each.store.root) for each in nodes}
    assert len(documents) == 3
    assert len({each and each[:2] for each in documents}) == 1


def test_of_two_databases_that_get_one_store_at_once_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has found no document either, and writes its own behind ours."""
    one, two = Group(tmp_path), Group(tmp_path, "two", "two")
    assert isinstance(one.store, SharedStore)
    objects = one.store.objects = Unconditional(tmp_path / "shared", fsync=False)
    put = objects.put_document

    def other_follows(name: str, octets: bytes) -> bytes:
        there = put(name, octets)
        objects.delete([name])
        two.start()
        return there

    monkeypatch.setattr(objects, "put_document", other_follows)
    with pytest.raises(ForeignError, match="at the same time: start again"):
        one.start()
    assert two.start() == []


def test_a_store_that_gets_its_document_just_now_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other node has finished between the two looks at database and store."""
    one, two = Group(tmp_path), Group(tmp_path, "two")
    real = identity._facts

    def facts(connection: sa.Connection) -> object:
        found = real(connection)
        monkeypatch.undo()
        connection.rollback()
        one.start()
        return found

    monkeypatch.setattr(identity, "_facts", facts)
    two.start()
    documents = [read_document(each.store.root) for each in (one, two)]
    assert documents[0] is not None
    assert documents[1] is not None
    assert documents[0][:2] == documents[1][:2]
