"""The archive: an AE, a file store, and what ``twistd dicom`` makes of them."""

from .filestore import Duplicates, FileStore, StorageError
from .node import ArchiveAE

__all__ = ["ArchiveAE", "Duplicates", "FileStore", "StorageError"]
