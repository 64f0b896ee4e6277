"""Files of the store, checked before they are sent.

The index says what a file is; the file may have been cut, lengthened, replaced, turned into a link, or damaged since.
What is sent in place of an instance would count as that instance at the receiver, for good.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader, BytesIO, RawIOBase
from typing import Any, BinaryIO, Final, cast

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from ...dimsemessages import DataSource
from ...dsutils import FileMeta, inflate, read_file_meta
from ...encoding import FILE_HEADER_LIMIT, coding_of, file_header_size, is_deflated
from ...exceptions import NetDICOMError
from ...part10 import own_header_size
from ...sopclass import Instance
from ..encoded.files import walk_file
from ..encoded.walk import Walked, walk
from ..index.entries import Files, InstanceRef

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


# O_NONBLOCK: a pipe under this name must not hold anybody up. A link is not followed: ELOOP.
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _open(ref: InstanceRef) -> int:
    descriptor = os.open(ref.path, _FLAGS)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ChangedError(f"{ref.path.name} is not a regular file")
        if found.st_size != ref.size:
            raise ChangedError(
                f"{ref.path.name} has {found.st_size} octets; {ref.size} were stored"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def opened(ref: InstanceRef) -> Iterator[BinaryIO]:
    """Open the file of an instance: a regular one, of the size that was stored.

    Raises:
        ChangedError: It is something else.
        OSError: It cannot be opened.
    """
    if ref.files is not None:
        with BufferedReader(cast(RawIOBase, ref.files.file(ref.path, ref.size))) as file:
            yield cast(BinaryIO, file)
        return
    with open(_open(ref), "rb") as file:
        yield file


def _read(ref: InstanceRef) -> bytes:
    """Read the file of an instance: one system call, into memory that nobody clears before."""
    if ref.files is not None:
        return ref.files.octets(ref.path, ref.size)
    descriptor = _open(ref)
    try:
        data = os.read(descriptor, ref.size)
        while len(data) < ref.size and (more := os.read(descriptor, ref.size - len(data))):
            data += more
    finally:
        os.close(descriptor)
    return data


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
        ahead: Has those read that are sent next.
    """

    ref: InstanceRef | None = None
    ahead: Callable[[], object] | None = None

    @classmethod
    def of_ref(cls, ref: InstanceRef, ahead: Callable[[], object] | None = None) -> KeptInstance:
        """The instance that the index names."""
        identity = ref.sop_class_uid, ref.sop_instance_uid, ref.transfer_syntax
        return cls(*identity, ref.path, None, ref, ahead)

    @classmethod
    def of_refs(cls, refs: Sequence[InstanceRef]) -> Iterator[KeptInstance]:
        """The instances that the index names; while one is sent, the next ones are read if they are far away."""
        for number, ref in enumerate(refs, 1):
            files = ref.files
            yield cls.of_ref(ref, None if files is None else partial(files.ahead, refs, number))

    def encoded(self, transfer_syntax: str) -> DataSource:
        """The data set, as :meth:`Instance.encoded` gives it.

        Raises:
            ChangedError: The file is not what was stored.
            DataSetError: It is not a whole data set, or cannot be re-encoded.
            OSError: It cannot be read.
        """
        ref = self.ref
        assert ref is not None  # of_ref() has made it
        if self.ahead is not None:
            self.ahead()
        if ref.files is not None and ref.size > AT_ONCE:
            return self._encoded_file(ref, ref.files, transfer_syntax)
        source: Any = self.source
        if ref.size > AT_ONCE:
            with opened(ref) as file:
                offset = _meta(ref, file).offset
                _check_identity(ref, walk_file(file.fileno(), ref.transfer_syntax, offset))
        else:
            # What is sent is what was checked, and is read once.
            data = _read(ref)
            identity = ref.sop_class_uid, ref.sop_instance_uid, ref.transfer_syntax
            offset = own_header_size(data, *identity) or _meta(ref, BytesIO(data)).offset
            _check_identity(ref, walk(data, ref.transfer_syntax, offset))
            if transfer_syntax == ref.transfer_syntax:
                # A view is sent as octets are; the type is narrow because what is received is never one.
                return cast(bytes, memoryview(data)[offset:])
            if ref.files is not None:
                source = BytesIO(data)
                source.seek(offset)
        whole = Instance(
            *(self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax),
            *(source, offset),
        )
        return whole.encoded(transfer_syntax)

    def _encoded_file(self, ref: InstanceRef, files: Files, transfer_syntax: str) -> DataSource:
        """The data set of a large file that was not on this machine."""
        file = files.file(ref.path, ref.size)
        is_sent = False
        try:
            meta = read_file_meta(file)
            if meta.transfer_syntax != ref.transfer_syntax:
                raise ChangedError(f"{ref.path.name} is in another transfer syntax than was stored")
            _check_identity(ref, walk_file(file.fileno(), ref.transfer_syntax, meta.offset))
            file.seek(meta.offset)
            identity = self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax
            source = Instance(*identity, file).encoded(transfer_syntax)
            is_sent = source is file
            return source
        finally:
            if not is_sent:
                file.close()

    def again(self, error: BaseException, failing: float) -> float | None:
        """When :meth:`encoded` is called again: a store that is not on this machine may be away for a short time."""
        assert self.ref is not None  # of_ref() has made it
        return None if self.ref.files is None else self.ref.files.again(error, failing)

    def takes_long(self, transfer_syntax: str) -> bool:
        """Whether :meth:`encoded` should be called in a thread: for a large file, whose check alone may take long.

        Raises:
            OSError: The file cannot be found or examined.
        """
        assert self.ref is not None  # of_ref() has made it
        return (
            self.ref.files is not None
            or self.ref.size > AT_ONCE
            or Instance.takes_long(self, transfer_syntax)
        )
