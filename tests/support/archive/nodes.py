"""A node in memory with an index and a queue on the disk, and a peer that it talks to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.error import ConnectionRefusedError

from netdicom_tx import AE, RemoteAE
from netdicom_tx.archive.index.index import Index, record_of
from netdicom_tx.archive.store.filestore import FileStore
from netdicom_tx.archive.workflow.outbound import Queue
from netdicom_tx.archive.workflow.runner import QueueRunner
from netdicom_tx.dsutils import part10_header
from netdicom_tx.sopclass import storage_scp
from netdicom_tx.testing import Pair, join, success_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.databases import database_url

from .data_sets import CT_IMAGE_STORAGE

START = 1_800_000_000.0


def at_once(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
    """In the place of a thread."""
    return defer.maybeDeferred(call, *arguments)


class Line:
    """An endpoint of an AE in memory; peers are away when it says so."""

    def __init__(self, pair: Pair, ae: AE) -> None:
        self._pair, self._ae = pair, ae
        self.is_up = True
        self.calls = 0

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        self.calls += 1
        if not self.is_up:
            return defer.fail(ConnectionRefusedError())
        client = factory.buildProtocol(None)
        join(client, self._ae.acceptor_factory().buildProtocol(None), self._pair.wire)
        return defer.succeed(client)


class Node:
    """An archive's parts without the archive: started, killed and started again on one directory.

    Attributes:
        ae: The node.
        peer: Calls it, and is called by it over ``line``.
        is_dead: Whether it does nothing any more, and nobody has told it to stop.
    """

    def __init__(
        self, directory: Path, peer: AE, *, url: str | None = None, root: Path | None = None
    ) -> None:
        """
        Args:
            url: The URL of a database that several nodes share.
            root: The place of all files that the database names.
        """
        self.peer = peer
        self.owner = str(directory)
        self.is_dead = False
        self.store = FileStore(directory / "store", fsync=False)
        self.index = Index(
            url or database_url(directory / "index.db"), root=root or self.store.root
        )
        self._past = 0.0
        self._open()

    def _open(self) -> None:
        self.ae = self.make_ae().add_scp(storage_scp)
        self.pair = Pair(self.peer, self.ae)
        self.line = Line(self.pair, self.peer)
        self.peers = {self.peer.ae_title: RemoteAE(self.peer.ae_title, self.line)}  # type: ignore[arg-type]
        self.store.open()
        self.index.open()
        self.queue = Queue(self.index, self.owner, now=self.now, jitter=lambda: 0.5)
        self.runner = QueueRunner(self.queue, self.in_thread)

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        """In the place of a thread, as long as it lives."""
        return defer.Deferred() if self.is_dead else at_once(call, *arguments)

    def die(self) -> None:
        """Do nothing any more, while others on the same network go on."""
        self.is_dead = True
        for asce in list(self.ae.associations):
            asce.drop()
        self.pair.wire.run()

    def make_ae(self) -> AE:
        return AE("NODE")

    def now(self) -> float:
        return START + self._past + self.pair.clock.seconds()

    def advance(self, seconds: float) -> None:
        self.pair.advance(seconds)

    def close(self) -> None:
        self.kill()

    def kill(self) -> None:
        """End it without a word to anybody: what is not in the database is gone."""
        for asce in self.ae.associations | self.peer.associations:
            asce.drop()
        self.pair.wire.run()
        for call in list(self.pair.clock.getDelayedCalls()):
            call.cancel()
        self._past += self.pair.clock.seconds()
        self.index.close()
        self.store.close()

    def restart(self) -> None:
        """Begin again with what is in the database."""
        self.kill()
        self._open()

    def associate(self) -> Any:
        """An association of the peer with the node."""
        return success_of(self.pair.request_association())

    def keep(self, uid: str, data: bytes, sop_class: str = CT_IMAGE_STORAGE) -> Path:
        """An instance in store and index."""
        path = self.store.path(uid)
        path.write_bytes(part10_header(sop_class, uid, EXPLICIT_VR_LITTLE_ENDIAN) + data)
        self.index.add(record_of(path)).result(30)
        return path
