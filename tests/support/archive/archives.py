"""The whole archive AE for tests: in memory with raw peers, or on a real reactor with its threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netdicom_tx.archive import ArchiveAE, Duplicates, FileStore, Index
from netdicom_tx.dimsemessages import CStoreRQ
from netdicom_tx.dsutils import read_file_meta
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION_SOP_CLASS
from support import doubles
from support.archive.databases import database_url
from support.doubles import RawPeer

from .data_sets import CT_IMAGE_STORAGE, EXPLICIT, Encoding

STORE, ECHO = 1, 3  # presentation contexts


def archive(
    directory: Path,
    *,
    duplicates: Duplicates = Duplicates.KEEP,
    fsync: bool = False,
    **options: Any,
) -> ArchiveAE:
    """An archive, which does not sync by default, because most tests are not about that."""
    store = FileStore(directory, fsync=fsync, duplicates=duplicates)
    index = Index(database_url(directory / "index.db"), root=directory)
    return ArchiveAE("NODE", store, index, **options)


async def shut_down(ae: ArchiveAE) -> None:
    """Stop a started archive as the node does; on the real reactor."""
    await ae.pause()
    await ae.drain(5)
    ae.stop()


class Archive(doubles.Node):
    """An open archive, connected in memory; blocking work is done in the calling thread."""

    ae: ArchiveAE

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(self.make(directory, **options))
        assert self.ae.index is not None
        self.store, self.index = self.ae.store, self.ae.index
        self.open()

    def make(self, directory: Path, **options: Any) -> ArchiveAE:
        return archive(directory, threads=0, **options)

    def open(self) -> None:
        self.store.open(self.index.open)

    def close(self) -> None:
        self.ae.stop()

    def sender(self, encoding: Encoding = EXPLICIT, sop_class: str = CT_IMAGE_STORAGE) -> RawPeer:
        """A peer that may store, and ask whether it is heard."""
        return self.associate(
            {
                sop_class: [encoding.transfer_syntax],
                VERIFICATION_SOP_CLASS: [IMPLICIT_VR_LITTLE_ENDIAN],
            }
        )

    def files(self) -> set[str]:
        """What is in the folders, complete or not."""
        return {
            str(path.relative_to(self.store.root))
            for folder in (self.store.incoming, self.store.instances)
            for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }

    def kept(self, instance: str) -> bytes | None:
        """The data set that is kept; index and files agree about it."""
        path = self.store.path(instance)
        row = self.index.get(instance)
        if row is None:
            assert not path.exists()
            return None
        assert row.path == path
        assert row.size == path.stat().st_size
        return data_set(path)


def data_set(path: Path) -> bytes:
    """The data set of a file that is kept."""
    with path.open("rb") as file:
        read_file_meta(file)
        return file.read()


def store_rq(
    data: bytes | None,
    instance: str = "1.2.3",
    sop_class: str = CT_IMAGE_STORAGE,
    message_id: int | None = 7,
) -> CStoreRQ:
    return CStoreRQ(
        affected_sop_class_uid=sop_class,
        affected_sop_instance_uid=instance,
        message_id=message_id,
        data_set=data,
    )


def stored(peer: RawPeer, data: bytes | None, *claims: Any, **more: Any) -> int:
    """Send a C-STORE; its status, when the association is as usable as before."""
    peer.send(store_rq(data, *claims, **more))
    (status,) = peer.statuses()
    assert is_heard(peer)
    return status


def is_heard(peer: RawPeer) -> bool:
    """Whether C-ECHO is answered with Success."""
    peer.send(doubles.message(doubles.echo_rq(9), ECHO))
    return peer.statuses() == [0x0000]
