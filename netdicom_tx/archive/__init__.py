"""The archive: an AE, a file store, an index, and what ``twistd dicom`` makes of them."""

from . import former as former  # makes the module names of version 0.1 importable
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
