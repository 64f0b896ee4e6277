"""Files of the store, checked before they are sent.

The index says what a file is; the file may have been cut, lengthened, replaced, turned into a link, or damaged since.
What is sent in place of an instance would count as that instance at the receiver, for good.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Final, cast

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from ...dimsemessages import DataSource
from ...dsutils import FileMeta, inflate, read_file_meta
from ...encoding import FILE_HEADER_LIMIT, coding_of, file_header_size, is_deflated
from ...exceptions import NetDICOMError
from ...sopclass import Instance
from ..encoded.files import walk_file
from ..encoded.walk import Walked, walk
from ..index.index import InstanceRef

__all__ = [
    "ChangedError",
    "KeptInstance",
    "checked",
    "opened",
    "read_kept",
    "read_path",
]

#: Up to how many octets a file is read whole when it is sent; an image of a CT or MR has half a mebibyte.
AT_ONCE: Final = 1 << 21
# How many octets a deflated data set may have when it is inflated to be read.
_INFLATED_LIMIT: Final = 1 << 28


class ChangedError(NetDICOMError):
    """A file of the store is not what the index says."""


@contextmanager
def opened(ref: InstanceRef) -> Iterator[BinaryIO]:
    """Open the file of an instance: a regular one, of the size that was stored.

    Raises:
        ChangedError: It is something else.
        OSError: It cannot be opened.
    """
    # O_NONBLOCK: a pipe under this name must not hold anybody up. A link is not followed: ELOOP.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(ref.path, "rb", opener=lambda path, _: os.open(path, flags)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ChangedError(f"{ref.path.name} is not a regular file")
        if found.st_size != ref.size:
            raise ChangedError(
                f"{ref.path.name} has {found.st_size} octets; {ref.size} were stored"
            )
        yield file


def _meta(ref: InstanceRef, file: BinaryIO) -> FileMeta:
    meta = read_file_meta(file)
    if meta.transfer_syntax != ref.transfer_syntax:
        raise ChangedError(f"{ref.path.name} is in another transfer syntax than was stored")
    return meta


def _check_identity(ref: InstanceRef, walked: Walked) -> None:
    if (walked.sop_class_uid, walked.sop_instance_uid) != (ref.sop_class_uid, ref.sop_instance_uid):
        raise ChangedError(f"{ref.path.name} is another instance than was stored")


def read_kept(ref: InstanceRef) -> FileDataset:
    """Read the data set of an instance of the store, after a check of its file.

    Raises:
        ChangedError: The file is not what was stored.
        DataSetError: It is not a whole data set.
        OSError: It cannot be read.
    """
    with checked(ref) as (file, meta):
        return _data_set(file, ref.path, meta)


@contextmanager
def checked(ref: InstanceRef) -> Iterator[tuple[BinaryIO, FileMeta]]:
    """Open the file of an instance, at its data set, after a check of it; its header comes with it.

    Raises:
        ChangedError: The file is not what was stored.
        DataSetError: It is not a whole data set.
        OSError: It cannot be read.
    """
    with opened(ref) as file:
        meta = _meta(ref, file)
        _check_identity(ref, walk_file(file.fileno(), meta.transfer_syntax, meta.offset))
        file.seek(meta.offset)
        yield file, meta


def read_path(path: str | os.PathLike[str]) -> FileDataset:
    """Read the data set of a file.

    Raises:
        DataSetError: It is not a DICOM file.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        return _data_set(file, path, read_file_meta(file))


def _data_set(file: BinaryIO, path: str | os.PathLike[str], meta: FileMeta) -> FileDataset:
    """Read the data set behind the header of a file.

    It begins behind a file header that its sender may have put in front of it. pydicom looks for the end of the header
    by itself, and would take group 0002 of the data set for a part of it.
    """
    source, syntax = file, meta.transfer_syntax
    start = meta.offset + _skipped(file, meta.offset)
    if is_deflated(syntax):
        file.seek(start)
        source = BytesIO(inflate(file.read(), _INFLATED_LIMIT))
        start = _skipped(source, 0)
    source.seek(start)
    implicit, little = coding_of(syntax)
    found = read_dataset(source, implicit, little)
    file_meta = FileMetaDataset()
    file_meta.TransferSyntaxUID = UID(syntax)
    data_set = FileDataset(os.fspath(path), cast(Any, found), None, file_meta, implicit, little)
    data_set.set_original_encoding(implicit, little, found.original_character_set)
    return data_set


def _skipped(file: BinaryIO, start: int) -> int:
    """How many octets of file header stand in front of a data set."""
    file.seek(start)
    return file_header_size(file.read(FILE_HEADER_LIMIT))


@dataclass(frozen=True, slots=True)
class KeptInstance(Instance):
    """An instance of the store, whose file is checked when its turn has come.

    Attributes:
        ref: What the index says of it.
    """

    ref: InstanceRef | None = None

    @classmethod
    def of_ref(cls, ref: InstanceRef) -> KeptInstance:
        """The instance that the index names."""
        return cls(
            ref.sop_class_uid, ref.sop_instance_uid, ref.transfer_syntax, ref.path, None, ref
        )

    def encoded(self, transfer_syntax: str) -> DataSource:
        """The data set, as :meth:`Instance.encoded` gives it.

        Raises:
            ChangedError: The file is not what was stored.
            DataSetError: It is not a whole data set, or cannot be re-encoded.
            OSError: It cannot be read.
        """
        ref = self.ref
        assert ref is not None  # of_ref() has made it
        with opened(ref) as file:
            meta = _meta(ref, file)
            if ref.size > AT_ONCE:
                _check_identity(ref, walk_file(file.fileno(), meta.transfer_syntax, meta.offset))
            else:
                # What is sent is what was checked, and is read once.
                data = file.read()
                _check_identity(ref, walk(data, meta.transfer_syntax))
                if transfer_syntax == meta.transfer_syntax:
                    return data
        whole = Instance(
            *(self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax),
            *(self.source, meta.offset),
        )
        return whole.encoded(transfer_syntax)

    def takes_long(self, transfer_syntax: str) -> bool:
        """Whether :meth:`encoded` should be called in a thread: for a large file, whose check alone may take long.

        Raises:
            OSError: The file cannot be found or examined.
        """
        assert self.ref is not None  # of_ref() has made it
        return self.ref.size > AT_ONCE or Instance.takes_long(self, transfer_syntax)
