"""Instances as objects of a store that several nodes share, with their rows in one database.

An instance is one object, whose key contains the digest of its SOP Instance UID and the digest of its octets::

    instances/3f/<SHA-256 of the SOP Instance UID>-<32 digits of the SHA-256 of the file>.dcm
    versions/3f/<the same>.dcm       another data set with that UID, kept aside (:attr:`Duplicates.KEEP_BOTH`)

Two nodes that store the same octets write the same object, and two contents never overwrite each other. The row decides
which object counts, because a SOP Instance UID has one row. The other object is put on the list ``deletion``.

With :attr:`Durability.SHARED` an instance is acknowledged when its object exists and its row is committed. With
:attr:`Durability.NODE` it is acknowledged when it is in the journal of the node; object and row follow.

Only the node that has the duty "deletion" deletes objects. It waits some minutes after an object was put on the list,
so that retrieves on other nodes can end. A node that stores the same octets again in the meantime first takes the
object off the list, see :func:`~netdicom_tx.archive.index.withdrawal.claim`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, cast

from ...amounts import Amount
from ...dsutils import read_file_meta
from ...encoding import DataSetError
from ..index import withdrawal
from ..index.index import Index, IndexUnavailableError
from ..index.record import WANTED, InstanceRecord, record_of
from ..index.withdrawal import Standing
from ..names import digest_of_uid
from .fetching import PARALLEL, PATIENCE, Fetching
from .filestore import (
    VERSION_LIMIT,
    Duplicates,
    Kept,
    Outcome,
    StorageError,
    Version,
    check_announced,
)
from .objects import (
    PIECE,
    ObjectDamagedError,
    ObjectMissingError,
    Objects,
    ObjectStoreError,
)
from .spool import Spool

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Durability", "Incoming", "SharedStore", "key_of"]

#: The name of the file in the directory of a node that says where its instances are.
MARK: Final = "shared-store"
#: How long an object stays after its row is gone, in seconds: retrieves on other nodes may need it.
GRACE: Final = 600.0
#: How many segments the journal has at most. They have room for all that may wait for a store which is out of reach:
#: 256 MiB in 16,384 records, each of which is filled up to a page, and what stays free at the end of each segment.
SEGMENTS: Final = 12
_DIGITS: Final = 32
# How often a node decides again about an instance that others store at the same moment.
_ATTEMPTS: Final = 20
_GROUP: Final = 128


class Durability(Enum):
    """When an instance is acknowledged.

    Attributes:
        SHARED: When its object is in the shared store and its row is committed.
        NODE: When it is in the journal on the disk of the node; object and row follow.
    """

    SHARED = "shared"
    NODE = "node"


class Incoming(NamedTuple):
    """An instance of the journal on its way to the shared store.

    Attributes:
        digest: The SHA-256 of the octets, hexadecimal.
        record: Its record; None to make it from the octets.
    """

    sop_instance_uid: str
    octets: bytes
    digest: str
    record: InstanceRecord | None = None


def key_of(sop_instance_uid: str, digest: str, folder: str = "instances") -> str:
    """The key of an object.

    Args:
        digest: The SHA-256 of its octets, hexadecimal.
    """
    name = digest_of_uid(sop_instance_uid).hex()
    return f"{folder}/{name[:2]}/{name}-{digest[:_DIGITS]}.dcm"


class SharedStore(Fetching):
    """The instances in a shared store, and the directory of this node, which has its journal and cache.

    Args:
        root: The directory of the node, which no other node uses.
        objects: The shared store.
        durability: When an instance is acknowledged.
        cache: How many octets of objects the node keeps on its own disk.
        parallel: How many objects are put or read at a time.
        grace: How many seconds an object stays after its row is gone.
        patience: For how many seconds retrieves wait for a store that has begun to fail. Later ones do not wait until
            an object was read or put.
        fsync: As for :class:`FileStore`; it concerns the journal.
        duplicates: Likewise.
        reserve: Likewise, for the disk of the node.
    """

    segments = SEGMENTS

    def __init__(
        self,
        root: str | os.PathLike[str],
        objects: Objects,
        *,
        durability: Durability = Durability.SHARED,
        cache: int = 0,
        parallel: int = PARALLEL,
        grace: float = GRACE,
        patience: float = PATIENCE,
        fsync: bool = True,
        duplicates: Duplicates = Duplicates.KEEP,
        reserve: Amount | None = None,
    ) -> None:
        super().__init__(
            *(root, objects),
            cache=cache,
            parallel=parallel,
            patience=patience,
            fsync=fsync,
            duplicates=duplicates,
            reserve=reserve,
        )
        self.durability = durability
        self.grace = grace
        #: The index, which decides what counts; see :meth:`bind`.
        self.index: Index | None = None

    @property
    def is_journalled(self) -> bool:
        """Whether instances are acknowledged by the journal."""
        return self.durability is Durability.NODE

    def bind(self, index: Index) -> None:
        """Keep rows in an index, which is opened later, and read objects for it."""
        self.index = index
        index.files = self

    def _rows(self) -> Index:
        if self.index is None:
            raise StorageError("a shared store needs an index")
        return self.index

    # -- opening and closing ---------------------------------------------------------------------------

    def open(
        self,
        before_recovery: Callable[[], object] | None = None,
        when_locked: Callable[[], object] | None = None,
    ) -> None:
        """Lock the directory of the node, reach the shared store, and put there what a crash has left in the journal.

        Raises:
            StorageError: One of them cannot be used.
        """

        def reach() -> None:
            self.reach()
            if when_locked is not None:
                when_locked()

        super().open(before_recovery, reach)

    def make_folders(self) -> None:
        """Make the folders of the node."""
        for name in ("incoming", "journal", "locks", "locks/leases"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        # It tells commands which get only the directory that the instances are elsewhere.
        (self.root / MARK).write_text(f"{self.objects.place}\n", "utf-8")
        self._sync_directory(self.root)
        self.cache.open()

    def _recover(self) -> None:
        """Put what a crash has left in the journal."""
        self.recovered = 0
        workers = [
            self.journal_of(int(each.name))
            for each in sorted((self.root / "journal").iterdir())
            if each.name.isdecimal()
        ]
        for journal in (self.journal, *workers):
            for group in _groups(journal.recover()):
                found = self._rows().standing([self._uid_of(octets) for octets, _ in group])
                incoming = []
                for octets, digest in group:
                    uid = self._uid_of(octets)
                    self.recovered += found.get(uid, Standing()).path != key_of(uid, digest)
                    incoming.append(Incoming(uid, octets, digest))
                try:
                    self.place_all(incoming)
                except IndexUnavailableError as error:
                    raise StorageError(
                        f"what the journal has cannot be made rows: {error}"
                    ) from error
        for journal in (self.journal, *workers):
            journal.clear()

    # -- keys ------------------------------------------------------------------------------------------

    def name_of(self, sop_instance_uid: str, digest: str) -> str:
        """The key of an instance."""
        return key_of(sop_instance_uid, digest)

    def time_of(self, sop_instance_uid: str) -> float:
        """Not known: every row of a shared store has the time at which its study was received."""
        raise ObjectMissingError(sop_instance_uid, self.objects.place)

    def taken(self, sop_instance_uids: Sequence[str]) -> set[str] | None:
        """Those instances that may not be journalled, because the index has them, or their objects are to go."""
        return set(self._rows().standing(sop_instance_uids))

    # -- the way in ------------------------------------------------------------------------------------

    def keep_with_row(self, spool: Spool, forget: Callable[[], object]) -> Kept:
        """Make an instance durable: its object, then its row.

        Args:
            forget: Called before another instance is replaced, so that the journal does not bring it back.

        Raises:
            InvalidDataSetError: The data set is not whole.
            MismatchError: The data set is another instance than was announced.
            IndexUnavailableError: The database refuses.
            OSError: The object store refuses. Nothing of the instance can be found.
            ValueError: The spool is closed.
        """
        with spool.in_use():
            walked = spool.walk(WANTED)
            check_announced(spool, walked)
            digest = spool.digest()
            uid = spool.sop_instance_uid
            record = InstanceRecord.of(
                walked,
                spool.transfer_syntax,
                path=Path(key_of(uid, digest.removeprefix("sha256:"))),
                size=spool.size,
                digest=digest,
                receipt=spool.receipt,
            )
            for _ in range(_ATTEMPTS):
                kept = self._attempt(spool, record, forget)
                if kept is not None:
                    outcome, path, sender = kept
                    return Kept(outcome, path, walked, sender)
        raise ObjectStoreError(
            f"{uid} is stored and deleted by other nodes all the time; it was not kept"
        )

    def _attempt(
        self, spool: Spool, record: InstanceRecord, forget: Callable[[], object]
    ) -> tuple[Outcome, Path, str] | None:
        """Decide about an instance, and act; None when another node was faster."""
        index, key = self._rows(), str(record.path)
        began = monotonic()
        uid = record.sop_instance_uid
        here = index.standing([uid]).get(uid, Standing())
        if not here.path:
            self._claim(uid, key, here)
            self._put(key, spool.pieces, spool.size)
            other = index.add_new(record).result()
            if other is not None:
                # Another node was faster. The next attempt compares, and finds this object on the list.
                self._give_up(record)
                return None
            self._check_still(key, spool, began)
            return Outcome.STORED, record.path, ""
        outcome, sender = self._compared(spool, here, key)
        if outcome is Outcome.SAME:
            return outcome, Path(here.path), sender
        if outcome is Outcome.REPLACED:
            index.check()
            forget()
            self._claim(uid, key, here)
            self._put(key, spool.pieces, spool.size)
            if not index.exchange(record, here.path).result():
                self._give_up(record)
                return None
            self._check_still(key, spool, began)
            return outcome, record.path, sender
        if outcome is Outcome.ASIDE:
            outcome, path = self._kept_aside(uid, spool.pieces, spool)
            return outcome, path or Path(here.path), sender
        return outcome, Path(here.path), sender

    def _claim(self, sop_instance_uid: str, key: str, here: Standing) -> None:
        """Take an object off the list of what is to be deleted, before it is put again."""
        if key in here.pending:
            claim = partial(withdrawal.claim, paths=[(sop_instance_uid, key)])
            self._rows().write(claim).result()

    def _check_still(self, key: str, spool: Spool, began: float) -> None:
        """Put an object again that may have been deleted since, because all this has taken very long."""
        if monotonic() - began > self.grace / 2:
            try:
                self.objects.size(key)
            except ObjectMissingError:
                self._put(key, spool.pieces, spool.size)

    def _put(self, key: str, pieces: Callable[[], Iterable[ReadableBuffer]], size: int) -> None:
        with self._counting("put"):
            self.objects.put(key, pieces(), size)

    def _give_up(self, record: InstanceRecord) -> None:
        """Have an object deleted that does not count."""
        self._rows().write(
            partial(
                withdrawal.give_up,
                sop_instance_uid=record.sop_instance_uid,
                path=str(record.path),
                size=record.size,
                after=self.grace,
            )
        ).result()

    def _compared(self, spool: Spool, here: Standing, key: str) -> tuple[Outcome, str]:
        """What an instance is to the one that is here, and who has sent that one."""
        try:
            if here.path == key:
                if key in self._damaged or self.objects.size(key) != here.size:
                    self._put(key, spool.pieces, spool.size)
                    self._damaged.discard(key)
                return Outcome.SAME, spool.receipt.calling
            with io.BufferedReader(cast(Any, self.file(Path(here.path), here.size))) as file:
                meta = read_file_meta(file)
                if self._is_same(spool, file, meta):
                    return Outcome.SAME, meta.source_ae_title
        except ObjectMissingError:
            if here.path != key:
                return Outcome.REPLACED, ""
            # The object was lost, and is here again.
            self._put(key, spool.pieces, spool.size)
            return Outcome.SAME, ""
        except (DataSetError, ObjectDamagedError):
            # What is there is not an instance, and cannot be served.
            return Outcome.REPLACED, ""
        outcome = {
            Duplicates.KEEP: Outcome.REFUSED,
            Duplicates.REPLACE: Outcome.REPLACED,
            Duplicates.KEEP_BOTH: Outcome.ASIDE,
        }[self.duplicates]
        return outcome, meta.source_ae_title

    # -- versions --------------------------------------------------------------------------------------

    def _kept_aside(
        self,
        sop_instance_uid: str,
        pieces: Callable[[int], Iterable[ReadableBuffer]],
        spool: Spool | None,
    ) -> tuple[Outcome, Path | None]:
        """Keep a version of an instance, unless it is here or there are too many.

        Args:
            pieces: Gives the octets from an offset on.
            spool: The spool; None compares nothing.
        """
        whole, data_set, size = hashlib.sha256(), hashlib.sha256(), 0
        for piece in pieces(0):
            whole.update(piece)
            size += memoryview(piece).nbytes
        start = 0 if spool is None else spool.header_size
        for piece in pieces(start):
            data_set.update(piece)
        key = key_of(sop_instance_uid, data_set.hexdigest(), "versions")
        prefix = key[: -_DIGITS - len(".dcm")]
        there = [
            each
            for each in self.objects.list(f"{Path(key).parent}/")
            if each.key.startswith(prefix)
        ]
        if any(each.key == key for each in there):
            return Outcome.SAME, Path(key)
        if spool is not None:
            for each in there:
                with io.BufferedReader(cast(Any, self._read_whole(each.key, each.size))) as file:
                    if self._is_same(spool, file, read_file_meta(file)):
                        return Outcome.SAME, Path(each.key)
            if len(there) >= VERSION_LIMIT:
                return Outcome.REFUSED, None
        self._put(key, lambda: pieces(0), size)
        return Outcome.ASIDE, Path(key)

    def keep_aside(self, sop_instance_uid: str, path: Path, size: int) -> None:
        """Keep an object of an instance as a version of it, too.

        Raises:
            OSError: The object is missing or damaged, or the store does not answer.
        """
        with self._read_whole(str(path), size) as file:

            def pieces(start: int) -> Iterator[bytes]:
                file.seek(start)
                while piece := file.read(PIECE):
                    yield piece

            self._kept_aside(sop_instance_uid, pieces, None)

    def versions(self) -> Iterator[Version]:
        """The data sets that are kept aside; see :meth:`FileStore.versions`."""
        found: list[Version] = []
        for each in self.objects.list("versions/"):
            head = self.objects.read(each.key, 0, min(each.size, 1 << 14))
            try:
                meta = read_file_meta(io.BytesIO(head))
            except DataSetError:
                continue
            found.append(
                Version(
                    *(Path(each.key), meta.sop_instance_uid, meta.source_ae_title),
                    *(each.modified, each.size),
                )
            )
        return iter(sorted(found, key=lambda each: (each.path.name[:64], each.received, each.path)))

    def version(self, version: Version) -> BinaryIO:
        """A data set that is kept aside, as an open file of this machine.

        Raises:
            OSError: It cannot be read.
        """
        return self._read_whole(str(version.path), version.size)

    def drop(self, version: Version) -> None:
        """Delete a data set that is kept aside."""
        self.objects.delete([str(version.path)])

    # -- from the journal ------------------------------------------------------------------------------

    def place_all(self, incoming: Sequence[Incoming]) -> tuple[list[str], dict[str, BaseException]]:
        """Put instances that were acknowledged, and add their rows.

        When another node has stored one of them with other content, both count: that one stays, and this one is kept
        aside as a version.

        Returns:
            The SOP Instance UIDs of those that were kept aside, and those whose rows the index refuses for what is in
            them.

        Raises:
            IndexUnavailableError: The database refuses.
            OSError: The object store refuses.
        """
        index = self._rows()
        here = index.standing([each.sop_instance_uid for each in incoming])
        aside: list[str] = []
        refused: dict[str, BaseException] = {}
        new: list[tuple[Incoming, InstanceRecord]] = []
        for each in incoming:
            uid, key = each.sop_instance_uid, key_of(each.sop_instance_uid, each.digest)
            standing = here.get(uid, Standing())
            if standing.path == key:
                continue
            self._claim(uid, key, standing)
            try:
                record = each.record or self._record(each, key)
            except DataSetError as error:
                refused[uid] = error
                continue
            new.append((each, record))
        self._in_parallel(
            [
                partial(self._put, str(record.path), partial(_alone, each.octets), len(each.octets))
                for each, record in new
            ]
        )
        rows = [(each, record, index.add_new(record)) for each, record in new]
        for each, record, row in rows:
            try:
                other = row.result()
            except Exception as error:  # what the database says of a value has many kinds
                if isinstance(error, IndexUnavailableError):
                    # The database does not answer, or it does not take a value of this row only.
                    index.standing([each.sop_instance_uid])
                refused[each.sop_instance_uid] = error
                continue
            if other is not None and self._is_beside(each, record, other):
                aside.append(each.sop_instance_uid)
        return aside, refused

    @staticmethod
    def _record(each: Incoming, key: str) -> InstanceRecord:
        file = io.BytesIO(each.octets)
        meta = read_file_meta(file)
        return record_of(
            each.octets,
            meta.transfer_syntax,
            offset=meta.offset,
            path=key,
            digest=f"sha256:{each.digest}",
        )

    def _is_beside(self, each: Incoming, record: InstanceRecord, other: Standing) -> bool:
        """Keep acknowledged octets aside, unless what is there has the same data set."""
        file = io.BytesIO(each.octets)
        start = read_file_meta(file).offset
        is_same = False
        # What is damaged cannot be compared, and must not hold up what was acknowledged.
        with suppress(ObjectMissingError, ObjectDamagedError, DataSetError):
            there = self.octets(Path(other.path), other.size)
            meta = read_file_meta(io.BytesIO(there))
            is_same = (
                meta.transfer_syntax == record.transfer_syntax
                and there[meta.offset :] == each.octets[start:]
            )
        if not is_same:
            digest = hashlib.sha256(memoryview(each.octets)[start:]).hexdigest()
            key = key_of(each.sop_instance_uid, digest, "versions")
            self._put(key, partial(_alone, each.octets), len(each.octets))
        self._give_up(record)
        return not is_same

    def _in_parallel(self, calls: Sequence[Callable[[], object]]) -> None:
        """Make calls in the threads; raises the first error when all have ended."""
        pool = self._pool
        if pool is None:
            raise ObjectStoreError(f"{self.objects.place} is not open")
        futures = [pool.submit(each) for each in calls]
        wait(futures)
        for each in futures:
            each.result()


def _alone(octets: bytes) -> tuple[bytes]:
    """Octets as the only piece of an object."""
    return (octets,)


def _groups(records: Iterable[tuple[bytes, str]]) -> Iterator[list[tuple[bytes, str]]]:
    """The records of a journal, some at a time, and never many octets."""
    group: list[tuple[bytes, str]] = []
    octets = 0
    for each in records:
        group.append(each)
        octets += len(each[0])
        if len(group) >= _GROUP or octets >= PIECE:
            yield group
            group, octets = [], 0
    if group:
        yield group
