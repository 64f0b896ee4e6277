"""How a node reads the objects of a store that nodes share: ahead of time, again after a failure, through its cache.

What is read is compared with the digest in its key before anybody gets it. A small object is read into memory; a large
one goes to a file of the node, by ranges, because it is walked through before its first octet is sent.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, BinaryIO, Final, NamedTuple, cast

from ...amounts import Amount
from ..index.entries import InstanceRef
from .cache import Cache, digest_in
from .disk import write_all
from .filestore import Duplicates, FileStore, StorageError
from .objects import (
    PIECE,
    ObjectDamagedError,
    ObjectMissingError,
    Objects,
    ObjectStoreError,
    ObjectsUnusableError,
)

__all__ = ["PARALLEL", "PATIENCE", "Fetching", "SharedFigures"]

#: For how many seconds retrieves wait for a store that has begun to fail: longer than the restart of a server takes.
PATIENCE: Final = 60.0
#: How many objects are put or read at a time.
PARALLEL: Final = 16
# For how many seconds an object is looked for that is missing or damaged: an overloaded server may say so for a moment.
_DOUBT: Final = 3.0
# While the store is away for longer than retrieves wait: after how many seconds an object is read, to see whether it is
# back. Others fail at once, or a retrieve of a thousand instances would fail for hours.
_LOOK_EVERY: Final = 5.0
# For how many seconds a failure says anything about the store.
_FRESH: Final = 30.0
# How many seconds pass between two attempts to read an object.
_PAUSES: Final = (0.5, 2.0)
# How many instances are read before they are needed, and how many octets of them are held in all.
_AHEAD: Final = 4
_AHEAD_OCTETS: Final = 1 << 26
_HELD: Final = 64
# Up to how many octets an object is read at once, into memory.
_SMALL: Final = 1 << 21
# How many damaged objects are remembered.
_REMEMBERED: Final = 10_000


class SharedFigures(NamedTuple):
    """What a node has done with its shared store since the start.

    Attributes:
        put: How many objects it has put, and in how many seconds.
        read: How many objects it has read, whole or in pieces, and in how many seconds.
        failures: How many of these attempts have failed, apart from those that found no object.
        cached: How many octets are in the cache, and how many may be.
        hits: How many objects were in the cache, and how many were not.
    """

    place: str
    put: int = 0
    put_seconds: float = 0.0
    read: int = 0
    read_seconds: float = 0.0
    failures: int = 0
    cached: int = 0
    cache_limit: int = 0
    hits: int = 0
    misses: int = 0


class _Held:
    """An open file that is closed when nobody needs it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def give(self) -> int:
        """Hand over the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class Fetching(FileStore):
    """The directory of a node, and how it reads the objects of a shared store.

    :class:`~netdicom_tx.archive.store.sharedstore.SharedStore` also puts them, and says what the arguments are.
    """

    is_shared = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        objects: Objects,
        *,
        cache: int,
        parallel: int,
        patience: float,
        fsync: bool,
        duplicates: Duplicates,
        reserve: Amount | None,
    ) -> None:
        super().__init__(root, fsync=fsync, duplicates=duplicates, reserve=reserve)
        self.objects = objects
        self.parallel = parallel
        self.patience = patience
        self.cache = Cache(self.root / "cache", cache)
        self._pool: ThreadPoolExecutor | None = None
        self._guard = Lock()
        self._counted = SharedFigures(objects.place)
        # The keys of objects that were found damaged: they are put again when their octets come again.
        self._damaged: set[str] = set()
        # Since when the store has failed, when it failed last, and how; None while it answers.
        self._failing: float | None = None
        self._failed = 0.0
        self._failure = ""
        self._next_look = 0.0
        self._numbers = itertools.count()
        # What is read before it is needed, by key, the oldest first; with its size.
        self._ahead: OrderedDict[str, tuple[int, Future[bytes | _Held]]] = OrderedDict()
        self._ahead_octets = 0

    def reach(self) -> None:
        """Reach the shared store without the lock of the directory, beside a node that may run; only to read.

        Raises:
            StorageError: It cannot be used.
        """
        try:
            self.objects.open()
            self.incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        except ObjectsUnusableError as error:
            raise StorageError(str(error)) from error
        except OSError as error:
            raise StorageError(f"{self.incoming} cannot be made: {error.strerror}") from error
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.parallel, "netdicom-objects")

    def close(self) -> None:
        """Unlock the directory, and leave the shared store."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        with self._guard:
            self._ahead.clear()
            self._ahead_octets = 0
        self.objects.close()
        self.cache.close()
        super().close()

    @contextmanager
    def _counting(self, what: str) -> Iterator[None]:
        """Count one object that is put or read, and how long that takes."""
        began, is_failed, is_answer = monotonic(), False, True
        try:
            yield
        except ObjectStoreError as error:
            is_failed = not isinstance(error, ObjectMissingError)
            self._failure = str(error)
            is_answer = isinstance(error, ObjectMissingError | ObjectDamagedError)
            raise
        finally:
            ended = monotonic()
            took = ended - began
            with self._guard:
                if is_answer:
                    self._failing = None
                else:
                    if not self._away(began):
                        self._failing = began
                    self._failed = ended
                now = self._counted
                changed: dict[str, Any] = {"failures": now.failures + is_failed}
                changed[what] = getattr(now, what) + 1
                changed[f"{what}_seconds"] = getattr(now, f"{what}_seconds") + took
                self._counted = now._replace(**changed)

    def figures(self) -> SharedFigures:
        """What was done since the start."""
        cache = self.cache
        return self._counted._replace(
            cached=cache.octets, cache_limit=cache.limit, hits=cache.hits, misses=cache.misses
        )

    # -- reading ---------------------------------------------------------------------------------------

    def ahead(self, refs: Sequence[InstanceRef], start: int) -> None:
        """Begin to read the objects that are needed next, within a bound on the memory of all retrieves."""
        pool = self._pool
        if pool is None:
            return
        for number, ref in enumerate(refs[start : start + _AHEAD]):
            if ref.size > _SMALL and number:
                return  # a large one goes to a file, and one of these at a time is enough
            key = str(ref.path)
            with self._guard:
                if key in self._ahead:
                    continue
                try:
                    future = pool.submit(self._fetched, key, ref.size)
                except RuntimeError:  # the node is stopping
                    return
                self._ahead[key] = ref.size, future
                self._ahead_octets += min(ref.size, _SMALL)
                while self._ahead_octets > _AHEAD_OCTETS or len(self._ahead) > _HELD:
                    self._drop(next(iter(self._ahead)))

    def _drop(self, key: str) -> Future[bytes | _Held] | None:
        """Take what is read ahead; the guard is held."""
        found = self._ahead.pop(key, None)
        if found is None:
            return None
        size, future = found
        self._ahead_octets -= min(size, _SMALL)
        return future

    def _away(self, now: float) -> float:
        """For how many seconds the store has been failing; 0 when it answers, or was not asked lately."""
        if self._failing is None or now - self._failed > _FRESH:
            return 0.0
        return max(0.0, now - self._failing)

    def _check_away(self) -> None:
        """Go on if the store answers, or if it is time to look whether it does.

        Raises:
            ObjectStoreError: The store has been away for longer than retrieves wait for it.
        """
        now = monotonic()
        with self._guard:
            if self._away(now) < self.patience or now >= self._next_look:
                self._next_look = now + _LOOK_EVERY
                return
        raise ObjectStoreError(self._failure)

    def _take(self, key: str, size: int) -> bytes | _Held:
        with self._guard:
            future = self._drop(key)
        if future is not None:
            with suppress(OSError, CancelledError):  # it is tried once more
                return future.result()
        return self._fetched(key, size)

    def again(self, error: BaseException, failing: float) -> float | None:
        """After how many seconds an object may be read that could not be read; None means not soon.

        A retrieve persists while the store is away for a short time. When it has been away for longer, the instances
        of a large retrieve do not wait one after the other.
        """
        if not isinstance(error, ObjectStoreError):
            return None
        limit = self.patience
        is_full = getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if is_full or isinstance(error, ObjectMissingError | ObjectDamagedError):
            limit = min(limit, _DOUBT)
        else:
            failing = max(failing, self._away(monotonic()))
        least, most = _PAUSES
        return None if failing >= limit else min(most, least + failing)

    def octets(self, path: Path, size: int) -> bytes:
        """All octets of an object, compared with the digest in its key.

        Raises:
            OSError: The object is missing or damaged, or the store does not answer.
        """
        found = self._take(str(path), size)
        if isinstance(found, bytes):
            return found
        with open(found.give(), "rb") as file:
            return file.read()

    def file(self, path: Path, size: int) -> BinaryIO:
        """The same as an open file without a buffer: a copy without a name, or one of the cache."""
        found = self._take(str(path), size)
        return self._as_file(found)

    def digest(self, path: Path, size: int, check: Callable[[], None]) -> str:
        """The digest of an object that is read to its end from the shared store, whatever the cache has."""
        key = str(path)
        found = self.objects.size(key)
        if found != size:
            raise ValueError(f"{found} octets are there instead of {size}")
        digest = hashlib.sha256()
        for start in range(0, size, _SMALL // 2):
            check()
            digest.update(self.objects.read(key, start, min(size, start + _SMALL // 2)))
        try:
            self._check(key, digest)
        except ObjectDamagedError:
            raise ValueError("its digest is not that in its key") from None
        return f"sha256:{digest.hexdigest()}"

    def _read_whole(self, key: str, size: int) -> BinaryIO:
        """An object whose key does not have the digest of its file."""
        return self._as_file(self._fetched(key, size))

    def _as_file(self, found: bytes | _Held) -> BinaryIO:
        if isinstance(found, bytes):
            descriptor = self._unnamed()
            try:
                write_all(descriptor, found)
                os.lseek(descriptor, 0, os.SEEK_SET)
            except BaseException:
                os.close(descriptor)
                raise
        else:
            descriptor = found.give()
        return cast(BinaryIO, open(descriptor, "rb", buffering=0))

    def _unnamed(self) -> int:
        """A new file of the node that nobody else finds."""
        path = self._temporary()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        os.unlink(path)
        return descriptor

    def _fetched(self, key: str, size: int) -> bytes | _Held:
        """Read an object: into memory when it is small and there is no cache, otherwise to a file, piece by piece."""
        descriptor = self.cache.get(key, size)
        if descriptor is not None:
            return _Held(descriptor)
        self._check_away()
        is_cached = (
            self.cache.is_open
            and bool(digest_in(key))
            and key.startswith("instances/")
            and size <= self.cache.limit
        )
        if size <= _SMALL and not is_cached:
            with self._counting("read"):
                octets = self.objects.read(key, 0, size)
                self._check(key, hashlib.sha256(octets))
            return octets
        cause: OSError | None = None
        for _ in range(2):
            try:
                return self._fetched_to_disk(key, size, is_cached)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                cause = error
            if not self.cache.make_room(size):
                break
        raise ObjectStoreError(
            f"the object {key} is not sent, because the disk of {self.root} is full and it has to have {size} octets "
            "there for a moment: make room on that disk"
        ) from cause

    def _fetched_to_disk(self, key: str, size: int, is_cached: bool) -> _Held:
        path = self.cache.temporary(next(self._numbers)) if is_cached else Path(self._temporary())
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        held = _Held(descriptor := os.open(path, flags, 0o600))
        try:
            with self._counting("read"):
                self._copy(key, size, descriptor)
            os.lseek(descriptor, 0, os.SEEK_SET)
            if is_cached:
                self.cache.put(key, path, size)
        finally:
            with suppress(FileNotFoundError):  # it is in the cache
                os.unlink(path)
        return held

    def _copy(self, key: str, size: int, descriptor: int) -> None:
        """Write an object to a file, piece by piece, and compare its digest."""
        digest = hashlib.sha256()
        for start in range(0, size, PIECE):
            octets = self.objects.read(key, start, min(size, start + PIECE))
            digest.update(octets)
            write_all(descriptor, octets)
        self._check(key, digest)

    def _check(self, key: str, digest: Any) -> None:  # of hashlib
        """Compare the digest of what was read with that of the key.

        Raises:
            ObjectDamagedError: They differ.
        """
        if key.startswith("instances/") and not digest.hexdigest().startswith(digest_in(key)):
            if len(self._damaged) < _REMEMBERED:
                self._damaged.add(key)
            raise ObjectDamagedError(
                f"the object {key} is damaged: its digest is not that of what was stored"
            )
        self._damaged.discard(key)
