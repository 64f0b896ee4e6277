"""Two databases that were restored from one backup must not delete each other's objects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import ArchiveAE, IndexUnusableError
from netdicom_tx.archive.group.tables import node_table
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store.objects import ObjectStoreError
from netdicom_tx.archive.store.sharedstore import SharedStore
from netdicom_tx.archive.store.usage import DOCUMENT
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION_SOP_CLASS
from support.archive.archives import stored
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.archive.groups import shared_archive
from support.doubles import Node
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture

UID = "1.2.3"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ArchiveAE]]:
    """Starts the node of a group of one."""
    made: list[ArchiveAE] = []

    def started() -> ArchiveAE:
        made.append(shared_archive(tmp_path, grace=0))
        made[-1].start()
        return made[-1]

    yield started
    for each in made:
        each.stop()


def store_of(ae: ArchiveAE) -> SharedStore:
    assert isinstance(ae.store, SharedStore)
    return ae.store


def keys(ae: ArchiveAE) -> list[str]:
    return [each.key for each in store_of(ae).objects.list("instances/")]


def used(ae: ArchiveAE, **changes: Any) -> None:
    """Change what the document says, as a node with another database does."""
    objects = store_of(ae).objects
    found = json.loads(objects.document(DOCUMENT) or b"{}")
    octets = json.dumps({**found, **changes}).encode()
    objects.put(DOCUMENT, (octets,), len(octets))


def when(ae: ArchiveAE) -> float:
    return float(json.loads(store_of(ae).objects.document(DOCUMENT) or b"{}")["when"])


def set_back(folder: Path, seconds: float) -> None:
    """Let the database be an older state of itself, as after the restore of a backup."""
    ae = shared_archive(folder)
    assert ae.index is not None
    ae.store.open(ae.index.open)
    older = node_table.update().values(seen=node_table.c.seen - seconds)
    ae.index.write_apart(lambda connection: connection.execute(older).rowcount)
    ae.index.close()
    ae.store.close()


def refused(tmp_path: Path) -> str:
    ae = shared_archive(tmp_path)
    with pytest.raises(IndexUnusableError) as caught:
        ae.start()
    said = str(caught.value)
    assert "\n" not in said
    return said


def deletes(ae: ArchiveAE) -> None:
    """Store and delete an instance, whose object is left."""
    sender = Node(ae).associate(
        {
            CT_IMAGE_STORAGE: [EXPLICIT.transfer_syntax],
            VERIFICATION_SOP_CLASS: [IMPLICIT_VR_LITTLE_ENDIAN],
        }
    )
    assert stored(sender, ct(UID), UID) == 0x0000
    ae.deleter.delete_named(Level.IMAGE, UID)
    assert len(keys(ae)) == 1


def test_the_node_that_deletes_says_so_and_starts_again(
    start: Callable[..., ArchiveAE],
) -> None:
    ae = start()
    deletes(ae)
    assert ae.deleter.finish() == 1
    assert keys(ae) == []
    assert when(ae) > 0
    ae.stop()
    start()


@pytest.mark.parametrize(
    "changes", [{"node": "another"}, {}], ids=["an unknown node", "a later life of a node"]
)
def test_a_node_does_not_start_on_a_store_that_another_database_uses(
    tmp_path: Path, start: Callable[..., ArchiveAE], changes: dict[str, str]
) -> None:
    ae = start()
    ae.deleter.finish()
    used(ae, name="other", host="there", **changes)
    ae.stop()
    set_back(tmp_path, 3600)
    said = refused(tmp_path)
    assert "the node other on there used the store" in said
    assert "is not this one" in said
    assert "netdicom node adopt" in said


def test_a_node_whose_directory_was_lost_is_known_as_long_as_the_document_names_it(
    tmp_path: Path, start: Callable[..., ArchiveAE]
) -> None:
    """It gets an empty directory, and so another identity, and the other nodes may be started again."""
    ae = start()
    ae.deleter.finish()
    ae.stop()
    shutil.rmtree(tmp_path / "one")
    start().stop()
    ae = start()
    deletes(ae)
    assert ae.deleter.finish() == 1


def test_a_use_that_has_ended_is_forgotten(tmp_path: Path, start: Callable[..., ArchiveAE]) -> None:
    ae = start()
    ae.deleter.finish()
    used(ae, node="another", when=when(ae) - 1000)
    ae.stop()
    start()


def test_no_objects_are_deleted_when_another_database_appears(
    start: Callable[..., ArchiveAE], lines: list[str]
) -> None:
    ae = start()
    ae.deleter.finish()
    deletes(ae)
    used(ae, node="another", name="other")
    for _ in range(2):
        with pytest.raises(ObjectStoreError, match="the node other on"):
            ae.deleter.finish()
    assert len(keys(ae)) == 1
    assert len([each for each in lines if "no objects are deleted" in each]) == 1
    used(ae, when=when(ae) - 1000)
    assert ae.deleter.finish() == 1
    assert keys(ae) == []


@pytest.mark.parametrize("octets", [b"", b"[]", b'{"node": 1}', b"\xff"])
def test_a_document_that_cannot_be_read_is_written_again(
    start: Callable[..., ArchiveAE], octets: bytes
) -> None:
    ae = start()
    store_of(ae).objects.put(DOCUMENT, (octets,), len(octets))
    assert ae.deleter.finish() == 0
    assert when(ae) > 0


def test_an_operator_says_that_the_other_database_is_gone(
    tmp_path: Path, start: Callable[..., ArchiveAE]
) -> None:
    from netdicom_tx.archive.store.deletion import open_archive

    ae = start()
    ae.deleter.finish()
    used(ae, node="another")
    ae.stop()
    refused(tmp_path)
    adopted = shared_archive(tmp_path)
    assert adopted.index is not None
    open_archive(adopted.store, adopted.index, adopt=True)
    adopted.index.close()
    adopted.store.close()
    start()
