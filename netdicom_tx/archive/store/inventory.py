"""Compare the objects of a shared store with the rows of the index, while nodes run.

A node that is killed after it has written an object and before it has written the row leaves an object without a row.
Such an object is found here. It gets a row if no other object has its SOP Instance UID; otherwise it is put on the list
of objects to delete. A young object is left alone, because its row may be on its way. A row whose object is missing
stays, because it says what was lost; the scrub and ``netdicom verify`` report it. A listing that fails changes nothing.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from twisted.python.failure import Failure

from ...dsutils import read_file_meta
from ...encoding import DataSetError, is_deflated
from ...logs import Logger
from ..encoded.files import before_pixels, walk_file
from ..encoded.walk import walk
from ..group.members import database_time
from ..index import withdrawal
from ..index.index import Index, IndexUnavailableError
from ..index.record import WANTED, InstanceRecord, Receipt
from ..index.withdrawal import Standing
from ..workers import Rounds
from .cache import digest_in
from .objects import ObjectDamagedError, ObjectMissingError, Stored
from .sharedstore import SharedStore, key_of

__all__ = ["Inventoried", "Inventory", "compare"]

#: Seconds from the start of the service to the first round, and from one round to the next.
FIRST: Final = 3600.0
PERIOD: Final = 86400.0
#: How old an object must be, in seconds: its row may be held up for as long by a database that is away.
AGE: Final = 6 * 3600.0
# Seconds to the next attempt when the store or the index does not answer, or another node has the duty.
_RETRY: Final = 600.0
# How many rows are remembered at a time, by eight octets each.
_ROWS: Final = 1 << 21
_PREFIXES: Final = 256
# After how many rows or objects it is asked whether to go on.
_AT_ONCE: Final = 1000
# How many octets of an object are read first; an object that is smaller is compared with its digest.
_HEAD: Final = 1 << 17
# How many objects of each thread are on their way, and how often it is decided about one that others change.
_AHEAD: Final = 4
_ATTEMPTS: Final = 5


@dataclass(slots=True)
class Inventoried:
    """The result of a comparison.

    Attributes:
        compared: How many objects were listed.
        indexed: How many of them got a row.
        given_up: How many of them are to be deleted, because another one counts.
        unreadable: How many of them are not an instance; they stay.
    """

    compared: int = 0
    indexed: int = 0
    given_up: int = 0
    unreadable: int = 0


def _nothing() -> None:
    """Go on."""


def _unsaid(key: str, reason: str) -> None:
    """Say nothing of an object that cannot be read."""


def compare(
    store: SharedStore,
    index: Index,
    *,
    age: float = AGE,
    go_on: Callable[[], None] = _nothing,
    jobs: int = 1,
    keeps_all: bool = False,
    unreadable: Callable[[str, str], object] = _unsaid,
    step: Callable[[Inventoried], object] = lambda _: None,
) -> Inventoried:
    """Find objects without a row; blocks, for hours when there are many.

    Args:
        age: How old an object must be, in seconds.
        go_on: Called now and then, by any thread; what it raises ends the comparison.
        jobs: How many objects without a row are looked at at a time.
        keeps_all: Whether an object that does not count is kept aside as a version before it is to be deleted: when
            rows were lost, it may be one that somebody was told of.
        unreadable: Called for each object that is not an instance, with the reason.
        step: Called with what was done, for each object that was listed.

    Raises:
        IndexUnavailableError: The database does not answer.
        OSError: The shared store does not answer.
    """
    done = Inventoried()
    passes = max(1, min(_PREFIXES, -(-index.counts().instances // _ROWS)))
    width = -(-_PREFIXES // passes)
    settling = _Settling(store, index, go_on, keeps_all=keeps_all)
    with _Threads(settling, done, jobs, unreadable) as threads:
        for first in range(0, _PREFIXES, width):
            last = min(_PREFIXES, first + width)
            folders = [f"instances/{number:02x}/" for number in range(first, last)]
            # What comes after the rows were read is too young, or has its row by then. The clock of this machine may
            # jump, and others write at the same time.
            with index.reading() as reading:
                now = database_time(reading)
            rows = _rows(index, set(folders), go_on)
            for each in itertools.chain.from_iterable(map(store.objects.list, folders)):
                if not done.compared % _AT_ONCE:
                    go_on()
                done.compared += 1
                step(done)
                if now - each.modified >= age and not _has(rows, each.key):
                    threads.settle(each)
        threads.finish()
    return done


def _rows(index: Index, folders: set[str], go_on: Callable[[], None]) -> array[int]:
    """The marks of the objects that the rows name in some folders, sorted."""
    found = array("Q")
    length = len("instances/00/")
    for number, entry in enumerate(index.entries()):
        if not number % _AT_ONCE:
            go_on()
        key = str(entry.path)
        if key[:length] in folders:
            found.append(_mark(key))
    return array("Q", sorted(found))


def _mark(key: str) -> int:
    """A number of 64 bits for a key, which ends with a digest."""
    return _number(digest_in(key)) ^ _number(Path(key).name)


def _number(digits: str) -> int:
    """The number of the first 16 hexadecimal digits; 0 when there are none."""
    return int(digits[:16] or "0", 16)


def _has(rows: array[int], key: str) -> bool:
    try:
        mark = _mark(key)
    except ValueError:
        return True  # not a key of ours; another program has put it there
    place = bisect_left(rows, mark)
    return place < len(rows) and rows[place] == mark


class _Becomes(Enum):
    """The decision about an object that seemed to have no row."""

    NOTHING = "it has a row, or is to be deleted"
    INDEXED = "it has a row now"
    GIVEN_UP = "another one counts"


class _Settling:
    """Decides about objects that no row seemed to have. Any thread may call :meth:`settle`."""

    def __init__(
        self, store: SharedStore, index: Index, go_on: Callable[[], None], *, keeps_all: bool
    ) -> None:
        self._store = store
        self._index = index
        self._go_on = go_on
        self._keeps_all = keeps_all

    def settle(self, stored: Stored) -> _Becomes | str:
        """Decide about one; returns why it is not an instance, if that is so."""
        self._go_on()
        try:
            record = self._record(stored)
            for _ in range(_ATTEMPTS):
                found = self._decided(record, stored)
                if found is not None:
                    return found
        except ObjectMissingError:
            return _Becomes.NOTHING  # it was deleted meanwhile
        except (DataSetError, ObjectDamagedError) as error:
            return str(error)
        return _Becomes.NOTHING  # others change the instance all the time

    def _decided(self, record: InstanceRecord, stored: Stored) -> _Becomes | None:
        """Decide and act; None when another node was faster."""
        index, uid, key = self._index, record.sop_instance_uid, stored.key
        here = index.standing([uid]).get(uid, Standing())
        if here.path == key or key in here.pending:
            return _Becomes.NOTHING
        if not here.path:
            return None if index.add_new(record).result() is not None else _Becomes.INDEXED
        try:
            self._store.objects.size(here.path)
        except ObjectMissingError:
            # The row is that of a database that was restored, and its object was replaced since then.
            return _Becomes.INDEXED if index.exchange(record, here.path).result() else None
        if self._keeps_all:
            self._store.keep_aside(uid, Path(key), stored.size)
        index.write(
            partial(
                withdrawal.give_up,
                sop_instance_uid=uid,
                path=key,
                size=stored.size,
                after=self._store.grace,
            )
        ).result()
        return _Becomes.GIVEN_UP

    def _record(self, stored: Stored) -> InstanceRecord:
        """The record of an object, of which no more is read than what is in front of the pixel data.

        Raises:
            DataSetError: It is not an instance, or another one than its key says.
        """
        key, size = stored.key, stored.size
        head = self._store.objects.read(key, 0, min(size, _HEAD))
        meta = read_file_meta(io.BytesIO(head))
        digest = ""
        data: bytes | None = head[meta.offset :]
        if size > _HEAD:
            is_whole = is_deflated(meta.transfer_syntax)
            data = None if is_whole else before_pixels(head, meta.transfer_syntax, meta.offset)
        else:
            digest = hashlib.sha256(head).hexdigest()
        if data is not None:
            walked = walk(data, meta.transfer_syntax, 0, WANTED)
        else:
            with self._store.file(Path(key), size) as file:
                walked = walk_file(file.fileno(), meta.transfer_syntax, meta.offset, WANTED)
        digits = digest_in(key)
        if key_of(walked.sop_instance_uid, digits) != key or not (digest or digits).startswith(
            digits
        ):
            raise DataSetError("the object is another instance than its key says, or is damaged")
        return InstanceRecord.of(
            walked,
            meta.transfer_syntax,
            path=Path(key),
            size=size,
            # Without it, the scrub and netdicom verify compare the object with its key, and store it.
            digest=digest and f"sha256:{digest}",
            receipt=Receipt(stored.modified, meta.source_ae_title),
        )


class _Threads:
    """Looks at some objects at a time, and counts what becomes of them."""

    def __init__(
        self,
        settling: _Settling,
        done: Inventoried,
        jobs: int,
        unreadable: Callable[[str, str], object],
    ) -> None:
        self._settling = settling
        self._done = done
        self._most = jobs * _AHEAD
        self._unreadable = unreadable
        self._begun: deque[tuple[str, Future[_Becomes | str]]] = deque()
        self._pool = ThreadPoolExecutor(jobs, "netdicom-inventory")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def settle(self, stored: Stored) -> None:
        """Begin with one, and wait for the oldest one when there are too many."""
        self._begun.append((stored.key, self._pool.submit(self._settling.settle, stored)))
        if len(self._begun) >= self._most:
            self._end()

    def finish(self) -> None:
        """Wait for all."""
        while self._begun:
            self._end()

    def _end(self) -> None:
        key, future = self._begun.popleft()
        found = future.result()
        if found is _Becomes.INDEXED:
            self._done.indexed += 1
        elif found is _Becomes.GIVEN_UP:
            self._done.given_up += 1
        elif isinstance(found, str):
            self._done.unreadable += 1
            self._unreadable(key, found)


class Inventory(Rounds):
    """Compares objects and rows again and again, in a thread of its own, on the node that has this duty.

    Args:
        store: The shared store; it is open while the service runs.
        index: The index; likewise.
        reactor: The reactor of the node.
        holds: Whether this node has the duty.
        first: Seconds from the start of the service to the first round.
        period: Seconds from the end of a round to the next one.
        age: How old an object must be, in seconds.
        threads: With 0, a round is done at once on the reactor thread, which suits a test without a reactor.
    """

    name = "inventory"
    _log = Logger()

    def __init__(
        self,
        store: SharedStore,
        index: Index,
        reactor: Any,  # IReactorTime and IReactorFromThreads
        *,
        holds: Callable[[], bool] = lambda: True,
        first: float = FIRST,
        period: float = PERIOD,
        age: float = AGE,
        threads: int = 1,
    ) -> None:
        super().__init__(reactor, first=first, retry=_RETRY, holds=holds, threads=threads)
        self._store = store
        self._index = index
        self._period = period
        self._age = age

    def _do(self) -> float:
        self._go_on()
        done = compare(self._store, self._index, age=self._age, go_on=self._go_on)
        if done.indexed or done.given_up or done.unreadable:
            self._log.warn(
                "of {compared} objects {indexed} had no row and got one; {given_up} did not count, and are deleted; "
                "{unreadable} cannot be read, and stay",
                compared=done.compared,
                indexed=done.indexed,
                given_up=done.given_up,
                unreadable=done.unreadable,
            )
        return self._period

    def _failed(self, failure: Failure) -> None:
        if failure.check(OSError, IndexUnavailableError):
            self._log.warn(
                "objects and rows cannot be compared: {error}; nothing was changed, and it is tried again later",
                error=failure.value,
            )
        else:
            self._log.failure("objects and rows cannot be compared", failure)
