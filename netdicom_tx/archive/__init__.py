"""The archive: an AE, a file store, an index, and what ``twistd dicom`` makes of them."""

from .filestore import Duplicates, FileStore, StorageError
from .index import Index, IndexUnavailableError
from .node import ArchiveAE
from .schema import IndexUnusableError

__all__ = [
    "ArchiveAE",
    "Duplicates",
    "FileStore",
    "Index",
    "IndexUnavailableError",
    "IndexUnusableError",
    "StorageError",
]
