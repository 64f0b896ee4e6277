"""The archive that ``twistd dicom`` runs: an AE, a file store, an index and the workflow services."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names
from . import former as former  # makes the module names of version 0.1 importable

if TYPE_CHECKING:
    from .index.engine import IndexUnusableError
    from .index.index import Index, IndexUnavailableError
    from .node import ArchiveAE
    from .store.filestore import Duplicates, FileStore, StorageError

__all__ = [
    "ArchiveAE",
    "Duplicates",
    "FileStore",
    "Index",
    "IndexUnavailableError",
    "IndexUnusableError",
    "StorageError",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "index.engine": ("IndexUnusableError",),
            "index.index": ("Index", "IndexUnavailableError"),
            "node": ("ArchiveAE",),
            "store.filestore": ("Duplicates", "FileStore", "StorageError"),
        },
    )
