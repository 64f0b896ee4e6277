"""The archive: an AE, a file store, an index, and what ``twistd dicom`` makes of them."""

from .filestore import Duplicates, FileStore, StorageError
from .index.index import Index, IndexUnavailableError
from .index.schema import IndexUnusableError
from .node import ArchiveAE

__all__ = [
    "ArchiveAE",
    "Duplicates",
    "FileStore",
    "Index",
    "IndexUnavailableError",
    "IndexUnusableError",
    "StorageError",
]
