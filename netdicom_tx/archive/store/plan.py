"""The store of a node as its configuration describes it, before it is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...amounts import Amount
from .fetching import PARALLEL
from .filestore import Duplicates, FileStore
from .objects import DirectoryObjects, Objects, directory_of
from .sharedstore import Durability, SharedStore

if TYPE_CHECKING:
    from .s3 import S3Options

__all__ = ["StorePlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlan:
    """The part of the configuration that describes the store.

    Attributes:
        root: The directory of the node.
        url: The URL of the shared store, ``s3://bucket/prefix`` or ``file:///directory``; None for a store in ``root``.
        durability: When an instance in a shared store is acknowledged.
        cache: How many octets of objects the node keeps in its own directory.
        parallel: How many objects are written or read at a time.
        s3: The options for a bucket; None means the environment alone.
        fsync: As for :class:`~netdicom_tx.archive.store.filestore.FileStore`, as are ``duplicates`` and ``reserve``.
    """

    root: Path
    url: str | None = None
    durability: Durability = Durability.SHARED
    cache: int = 0
    parallel: int = PARALLEL
    s3: S3Options | None = field(default=None, repr=False)
    fsync: bool = True
    duplicates: Duplicates = Duplicates.KEEP
    reserve: Amount | None = None

    def objects(self) -> Objects | None:
        """The objects of the shared store, not opened; None without a shared store."""
        if self.url is None:
            return None
        directory = directory_of(self.url)
        if directory is not None:
            return DirectoryObjects(directory, fsync=self.fsync)
        from .s3 import S3Objects

        return S3Objects(self.url, self.s3)

    def store(self) -> FileStore:
        """The store, not opened."""
        objects = self.objects()
        if objects is None:
            return FileStore(
                self.root, fsync=self.fsync, duplicates=self.duplicates, reserve=self.reserve
            )
        return SharedStore(
            self.root,
            objects,
            durability=self.durability,
            cache=self.cache,
            parallel=self.parallel,
            fsync=self.fsync,
            duplicates=self.duplicates,
            reserve=self.reserve,
        )
