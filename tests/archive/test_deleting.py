"""What peers see of a deletion while the node serves them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import pytest
from twisted.internet.task import Clock

from netdicom_tx import RemoteAE
from netdicom_tx.archive import ArchiveAE
from netdicom_tx.archive.index import withdrawal
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store.deletion import Deleted
from netdicom_tx.hooks import RequestContext
from netdicom_tx.memory import Wire
from netdicom_tx.testing import success_of
from support.archive.archives import archive
from support.archive.data_sets import CT_IMAGE_STORAGE
from test_node_machine import Line, Viewer, everything, finished, instance, study_of, uid_of

STUDY = study_of(0)


class Deleting(Viewer):
    """A viewer that has the study deleted when it gets the first instance of it."""

    node: Deletions

    def on_receive_store(self, context: Any, ds: BinaryIO) -> int:
        if not self.received:
            self.node.deleted = self.node.delete()
        return super().on_receive_store(context, ds)


class Deletions:
    """A node with a study of four instances, one of which is large, and a viewer."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock)
        self.viewer = Deleting("VIEWER", self.clock)
        self.viewer.node = self
        destination = RemoteAE("VIEWER", Line(self.wire, self.viewer))
        self.ae: ArchiveAE = archive(directory, threads=0, peers={"VIEWER": destination})
        self.ae._reactor = self.clock
        self.ae.start()
        self.wire.run()
        self.asce: Any = success_of(
            self.viewer.request_association(RemoteAE("NODE", Line(self.wire, self.ae)))
        )
        self.deleted = Deleted()
        for number in range(4):
            ds = instance(number)
            if number == 2:
                ds.PixelData = bytes(3 << 20)
            assert success_of(self.asce.get_scu(CT_IMAGE_STORAGE)(ds)) == 0x0000

    def close(self) -> None:
        for asce in tuple(self.ae.associations | self.viewer.associations):
            asce.drop()
        self.wire.run()
        success_of(self.ae.pause())
        self.ae.stop()

    def delete(self) -> Deleted:
        assert self.ae.index is not None
        with self.ae.index.reading() as reading:
            chosen = withdrawal.choose(reading, Level.STUDY, STUDY)
        return self.ae.deleter.delete(chosen)

    def files(self) -> int:
        return len(list(self.ae.store.instances.rglob("*.dcm")))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Deletions]:
    made = Deletions(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("how", ["get", "move"])
def test_a_retrieve_that_runs_is_finished(node: Deletions, how: str) -> None:
    """Whoever asks after the deletion finds nothing; the files go when the retrieve has ended."""
    if how == "get":
        stream = node.asce.get("STUDY", StudyInstanceUID=STUDY)
    else:
        stream = node.asce.move("STUDY", StudyInstanceUID=STUDY, to="VIEWER")
    finished(everything(stream))
    assert set(node.viewer.received) == {uid_of(number) for number in range(4)}
    assert node.deleted.instances == node.deleted.waiting == 4
    found = finished(everything(node.asce.find("STUDY", StudyInstanceUID=STUDY)))
    assert found == []
    assert node.files() == 4
    assert node.ae.deleter.finish() == 4
    assert node.files() == 0


def test_a_retrieve_whose_association_ends_keeps_nothing(node: Deletions) -> None:
    """Its lease ends with the association, whatever becomes of its operation."""
    (asce,) = node.ae.associations
    request = SimpleNamespace(message_id=99)
    node.ae.retrieval.on_begin(
        cast(RequestContext, SimpleNamespace(association=asce, request=request))
    )
    assert node.delete().waiting == 4
    assert node.ae.deleter.finish() == 0
    asce.abort()
    node.wire.run()
    assert node.ae.deleter.finish() == 4
    assert node.files() == 0


def test_nothing_waits_when_nothing_is_sent(node: Deletions) -> None:
    assert node.delete().waiting == 0
    assert node.files() == 0
    stream = node.asce.get("STUDY", StudyInstanceUID=STUDY)
    finished(everything(stream))
    assert node.viewer.received == {}
