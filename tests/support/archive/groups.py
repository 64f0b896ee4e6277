"""A node of a group for tests: in memory with raw peers, with a store that others share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netdicom_tx.archive import ArchiveAE, Index
from netdicom_tx.archive.store.objects import DirectoryObjects, Objects
from netdicom_tx.archive.store.sharedstore import SharedStore
from netdicom_tx.dsutils import read_file_meta
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION_SOP_CLASS
from support import doubles
from support.archive.databases import database_url

from .archives import Archive
from .data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct

__all__ = ["Member", "SharedArchive", "of_study", "shared_archive"]


def of_study(uid: str, pixels: int = 512, fill: int = 7) -> bytes:
    """A data set of the study 1.9."""
    data = ct(uid, pixels, fill=fill)
    more = EXPLICIT.element(0x0020000D, "UI", b"1.9\0") + EXPLICIT.element(
        0x0020000E, "UI", b"1.9.1\0"
    )
    at = data.index(b"\xe0\x7f\x10\x00")
    return data[:at] + more + data[at:]


def shared_archive(
    folder: Path,
    name: str = "one",
    *,
    objects: Objects | None = None,
    threads: int = 0,
    workflow: Any = None,
    **options: Any,
) -> ArchiveAE:
    """A node of the group that has a folder, in which the shared directory and the database are."""
    (folder / "shared").mkdir(exist_ok=True)
    made = objects or DirectoryObjects(folder / "shared", fsync=False)
    store = SharedStore(folder / name, made, fsync=False, **options)
    index = Index(database_url(folder / "index.db"), root=store.root)
    return ArchiveAE("NODE", store, index, threads=threads, workflow=workflow)


class Member(doubles.Node):
    """A node of a group, connected in memory; blocking work is done in the calling thread."""

    ae: ArchiveAE

    def __init__(self, folder: Path, name: str = "one", **options: Any) -> None:
        super().__init__(shared_archive(folder, name, **options))
        store, index = self.ae.store, self.ae.index
        assert isinstance(store, SharedStore)
        assert index is not None
        self.store, self.index = store, index
        store.open(index.open)

    def close(self) -> None:
        self.ae.stop()

    def sender(self) -> doubles.RawPeer:
        """A peer that may store, and ask whether it is heard."""
        return self.associate(
            {
                CT_IMAGE_STORAGE: [EXPLICIT.transfer_syntax],
                VERIFICATION_SOP_CLASS: [IMPLICIT_VR_LITTLE_ENDIAN],
            }
        )

    def keys(self, prefix: str = "instances/") -> list[str]:
        """The objects, whether or not they count."""
        return [each.key for each in self.store.objects.list(prefix)]

    def data(self, uid: str = "1.2.3") -> bytes | None:
        """The data set that counts, behind a header; None when the index has none."""
        ref = self.index.get(uid)
        return None if ref is None else self.store.octets(ref.path, ref.size)

    def pending(self) -> list[str]:
        """The objects that are to be deleted."""
        from netdicom_tx.archive.index import withdrawal

        with self.index.reading() as reading:
            return [each.path for each in withdrawal.listed(reading)]


class SharedArchive(Archive):
    """An archive whose store others may share: tests of an archive can be run on it."""

    def make(self, directory: Path, **options: Any) -> ArchiveAE:
        directory.parent.mkdir(exist_ok=True)
        return shared_archive(directory.parent, directory.name, **options)

    def files(self) -> set[str]:
        """What is in the folder of what arrives, and in the shared store."""
        assert isinstance(self.store, SharedStore)
        arriving = {str(path) for path in self.store.incoming.iterdir()}
        return arriving | {each.key for each in self.store.objects.list("instances/")}

    def kept(self, instance: str) -> bytes | None:
        """The data set that counts."""
        row = self.index.get(instance)
        if row is None:
            return None
        assert isinstance(self.store, SharedStore)
        with self.store.file(row.path, row.size) as file:
            file.seek(read_file_meta(file).offset)
            return file.read()
