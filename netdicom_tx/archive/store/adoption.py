"""Adopt a version that a node keeps aside: store it as an instance of its own (PS3.3 C.12.1)."""

from __future__ import annotations

import errno
import mmap
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, NamedTuple

from ...part10 import read_file_meta
from ..encoded.reidentified import Replacement, reidentified
from ..index.index import Index
from ..index.record import record_of
from .filestore import FileStore, Version
from .sharedstore import SharedStore
from .spool import Spool

__all__ = ["Adopted", "adopt"]

_SYSTEM: Final = "netdicom-tx"


class Adopted(NamedTuple):
    """A version that was adopted.

    Attributes:
        version: What was kept aside.
        sop_instance_uid: The SOP Instance UID under which it is found now.
        is_new: False when the same version was adopted before.
    """

    version: Version
    sop_instance_uid: str
    is_new: bool


def adopt(store: FileStore, index: Index, version: Version) -> Adopted:
    """Store a version as a new instance, and delete the file that was kept aside.

    The new SOP Instance UID is derived from the old one and from the content. So after a crash, or when the sender
    has sent the version once more, the same version gets the same UID, and is there once. A node may be running: no
    other instance has that UID, and the node finds the instance when its row is committed.

    Raises:
        DataSetError: The version cannot be read.
        IndexUnavailableError: The database does not answer. The file of the new instance stays, and the next start
            of the node indexes it.
        OSError: The disk has failed; the version stays aside.
    """
    uid = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, version.path.stem).int}"
    if isinstance(store, SharedStore):
        store.bind(index)
        is_new = index.get(uid) is None
        if is_new:
            with store.version(version) as file, _reidentified(store, file, version, uid) as spool:
                store.keep_with_row(spool, lambda: None)
        store.drop(version)
        return Adopted(version, uid, is_new)
    path = store.path(uid)
    is_new = not path.exists()
    if is_new:
        if not store.has_room(version.size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        _store(store, version, uid)
    index.add(record_of(path)).result()
    store.drop(version)
    return Adopted(version, uid, is_new)


def _store(store: FileStore, version: Version, uid: str) -> None:
    with version.path.open("rb") as file, _reidentified(store, file, version, uid) as spool:
        store.keep(spool)


@contextmanager
def _reidentified(store: FileStore, file: BinaryIO, version: Version, uid: str) -> Iterator[Spool]:
    """A version as an instance of its own, which has arrived."""
    meta = read_file_meta(file)
    with (
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as octets,
        store.spool(meta.sop_class_uid, uid, meta.transfer_syntax, meta.source_ae_title) as spool,
    ):
        replacement = Replacement(
            uid,
            meta.sop_instance_uid,
            meta.source_ae_title,
            time.strftime("%Y%m%d%H%M%S+0000", time.gmtime()),
            _SYSTEM,
        )
        for piece in reidentified(octets, meta.transfer_syntax, meta.offset, replacement):
            spool.write(piece)
        yield spool
