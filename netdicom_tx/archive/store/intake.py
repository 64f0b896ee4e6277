"""The way of a small instance into the archive: from the reactor to the journal, and behind the answer to file and row.

Three threads do the work. The *committer* takes all instances that wait, whichever association they come from: it walks
through each one, appends those that are new to the journal, syncs it once, and hands all results to the reactor in one
call. The *finisher* then makes files and rows, many at a time. The *retirer* syncs the files of a segment that is full,
so that it can be used again, and makes the next segment while one is being filled. So an instance crosses from the
reactor to a thread once and comes back once, and nobody waits for a file or a commit of its own.

An instance that is not simply new is not decided here: one whose SOP Instance UID is known, one that is not whole, one
with very many elements, or one for which the journal has no room. The answer None says so, and
:meth:`FileStore.keep <netdicom_tx.archive.store.filestore.FileStore.keep>` then finds out what is to become of it.

Whoever reads the index calls :meth:`Intake.settle` first, which waits until what was acknowledged is in it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads

from ...encoding import is_deflated
from ...logs import Logger
from ..encoded.walk import walk
from ..index.index import Index, IndexUnavailableError
from ..index.record import WANTED, InstanceRecord
from ..shared import Alone
from .filestore import FileStore, Kept, Outcome, check_announced
from .journal import Entry, Journal, JournalError, Segment, sync_files
from .sharedstore import Incoming, SharedStore
from .spool import Spool

__all__ = ["Intake", "IntakeFigures"]

#: How many instances go to the journal, or become files and rows, at a time.
GROUP_LIMIT: Final = 128
#: How many octets go to the journal at a time.
GROUP_OCTETS: Final = 1 << 24
#: How many octets may be acknowledged and not yet be files and rows. They are in memory as well.
BACKLOG_OCTETS: Final = 1 << 26
#: How many instances may be acknowledged and not yet be files and rows.
BACKLOG: Final = 2048
#: The same for a node that puts them into a shared store.
SHARED_BACKLOG_OCTETS: Final = 1 << 28
SHARED_BACKLOG: Final = 1 << 14
#: How many elements an instance may have that is walked through here, where others wait for it.
ELEMENTS: Final = 1 << 12
# For how many seconds the finisher gathers instances when nobody waits for it.
_GATHERING: Final = 0.05
# How often it looks then whether another process waits for it.
_GLANCE: Final = 0.005
# After how many seconds it tries again what the disk or the database has refused.
_AGAIN: Final = 1.0
# For how many seconds a reader waits for what was acknowledged.
_SETTLING: Final = 10.0


class IntakeFigures(NamedTuple):
    """What is on its way through the intake.

    Attributes:
        arriving: How many instances wait for the committer.
        instances: How many are acknowledged, and not yet files and rows.
        octets: How large those are.
        lag: For how many seconds none of them has become a file and a row.
        trouble: Why they cannot; empty when they can.
    """

    arriving: int
    instances: int
    octets: int
    lag: float
    trouble: str


class _Arrival:
    """An instance on its way, and the Deferred that waits for it."""

    __slots__ = ("answer", "digest", "kept", "octets", "path", "record", "segment", "spool")

    def __init__(self, spool: Spool, octets: bytes, answer: defer.Deferred[Kept | None]) -> None:
        self.spool = spool
        self.octets = octets
        self.answer = answer
        self.digest = b""
        self.path = ""
        self.record: InstanceRecord | None = None
        self.kept: Kept | None = None
        self.segment: Segment | None = None


class Intake:
    """The journal of a store with its three threads, from :meth:`start` to :meth:`stop`.

    Args:
        store: The store; it is open while the intake runs.
        index: The index; likewise.
    """

    _log = Logger()

    def __init__(self, store: FileStore, index: Index) -> None:
        self._shared = Alone()
        self._store = store
        self._index = index
        self._journal: Journal | None = None
        self._reactor: IReactorFromThreads | None = None
        self._arrivals: queue.SimpleQueue[_Arrival | None] = queue.SimpleQueue()
        self._committer: threading.Thread | None = None
        self._finisher: threading.Thread | None = None
        self._retirer: threading.Thread | None = None
        self._full: queue.SimpleQueue[bool] = queue.SimpleQueue()  # wakes the retirer, or ends it
        self._state = threading.Condition()
        # Held from the first octet of a group in the journal until the group is counted, and while segments are
        # retired; in this order, and before the guard.
        self._appending = threading.Lock()
        self._retiring = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        """What the guard guards, as it is at the beginning."""
        self._acknowledged: list[_Arrival] = []  # not yet files and rows
        self._uids: set[str] = set()  # theirs, and those of the group that is being committed
        self._octets = 0
        self._journalled = 0  # how many were acknowledged since the start
        self._finished = 0  # how many of them are files and rows
        self._hurry = 0  # somebody waits until that many are
        self._waiting: list[tuple[int, defer.Deferred[None]]] = []  # likewise, on the reactor
        self._claimed: Counter[str] = Counter()  # UIDs that FileStore.keep decides about
        self._failure: Exception | None = None  # why the finisher cannot go on
        self._is_stopping = False
        self._moved = 0.0  # when the first of them came, or the last ones became files and rows
        self._is_refused = False  # by the disk, the last group for the journal
        self._is_out_of_order = False  # a sync has failed; nothing more is journalled

    def share(self, shared: Alone) -> None:
        """Agree with the other processes of the node; call this before :meth:`start`."""
        self._shared = shared

    # -- running -------------------------------------------------------------------------------------

    def start(self, reactor: IReactorFromThreads) -> None:
        """Start the threads; answers come on this reactor."""
        self._reactor = reactor
        self._begin()
        self._journal = self._store.journal
        self._committer = threading.Thread(
            target=self._commit_all, name="netdicom-committer", daemon=True
        )
        self._finisher = threading.Thread(
            target=self._finish_all, name="netdicom-finisher", daemon=True
        )
        self._retirer = threading.Thread(
            target=self._retire_all, args=(self._journal,), name="netdicom-retirer", daemon=True
        )
        self._committer.start()
        self._finisher.start()
        self._retirer.start()

    def stop(self) -> None:
        """Make files and rows of all that was acknowledged, empty the journal, and end the threads.

        What the disk or the database refuses now stays in the journal for the next start.
        """
        committer, self._committer = self._committer, None
        if committer is None:
            return
        self._arrivals.put(None)
        committer.join()
        with self._state:
            self._is_stopping = True
            self._let_on()
            self._state.notify_all()
        assert self._finisher is not None
        self._finisher.join()
        self._finisher = None
        assert self._retirer is not None
        self._full.put(False)
        self._retirer.join()
        self._retirer = None
        journal, self._journal = self._journal, None
        assert journal is not None
        with suppress(OSError):  # it is in the log; the journal is left for the next start
            if not (self._acknowledged or self._is_out_of_order):
                journal.seal()
                self._retire(journal)
                journal.clear()
        journal.close()
        self._begin()

    # -- the way in ----------------------------------------------------------------------------------

    def keep(self, spool: Spool) -> defer.Deferred[Kept | None]:
        """Keep an instance that has arrived.

        Returns:
            Fires with what has become of it when it is on the disk for good; or with None when it must be kept by
            :meth:`FileStore.keep`. Cancelling it drops the answer.
        """
        octets = spool.in_memory()
        if octets is None or self._committer is None or is_deflated(spool.transfer_syntax):
            return defer.succeed(None)
        answer: defer.Deferred[Kept | None] = defer.Deferred(lambda _: None)
        self._arrivals.put(_Arrival(spool, octets, answer))
        return answer

    def settle(self) -> None:
        """Wait until all that was acknowledged before the call is in the index.

        That includes what the other processes of the node have acknowledged.

        Raises:
            IndexUnavailableError: The disk or the database refuses it at the moment.
        """
        with self._state:
            try:
                self._wait_for(self._journalled)
            except IndexUnavailableError:
                # What waits for a shared store is not found by other nodes either, and must not stop all queries.
                if not self._store.is_shared or isinstance(self._failure, IndexUnavailableError):
                    raise
        if not self._shared.settle(_SETTLING):
            raise self._unsettled()

    def when_settled(self) -> defer.Deferred[None] | None:
        """Have all that was acknowledged before the call finished soon.

        Returns:
            None when it is finished; otherwise a Deferred that fires when it is, or cannot be at the moment.
        """
        if self._finished >= self._journalled:
            return None
        with self._state:
            if self._failure is not None or self._is_stopping:
                return None
            waiting: defer.Deferred[None] = defer.Deferred(lambda _: None)
            self._waiting.append((self._journalled, waiting))
            self._hurry = max(self._hurry, self._journalled)
            self._state.notify_all()
        return waiting

    def trouble(self) -> str:
        """Why no more is acknowledged; empty when it is. The guard is not taken, because the reactor asks."""
        failure = self._failure
        is_full = len(self._acknowledged) >= SHARED_BACKLOG or self._octets >= SHARED_BACKLOG_OCTETS
        if failure is None or self._may_wait(lambda: not is_full):
            return ""
        return str(failure)

    def figures(self) -> IntakeFigures:
        """What is on its way now. The guard is not taken, because the reactor asks."""
        instances = len(self._acknowledged)
        return IntakeFigures(
            arriving=self._arrivals.qsize(),
            instances=instances,
            octets=self._octets,
            lag=monotonic() - self._moved if instances else 0.0,
            trouble=str(self._failure or ""),
        )

    def _let_on(self) -> None:
        """Fire the Deferreds of those who wait no longer; the guard is held."""
        ended = [
            waiting
            for count, waiting in self._waiting
            if count <= self._finished or self._failure is not None or self._is_stopping
        ]
        if ended:
            self._waiting = [each for each in self._waiting if each[1] not in ended]
            assert self._reactor is not None
            self._reactor.callFromThread(_fire, ended)

    def _wait_for(self, count: int) -> None:
        """Wait until so many are finished; the guard is held."""
        self._wait_until(lambda: self._finished >= count, count)

    def _wait_until_finished(self, sop_instance_uid: str) -> None:
        """Wait until an instance is a file and a row, if it is on the way to that; the guard is held."""
        self._wait_until(lambda: sop_instance_uid not in self._uids, self._journalled + 1)

    def _wait_until(self, is_done: Callable[[], bool], hurry: int) -> None:
        """Have so many finished soon, and wait for a condition; the guard is held.

        Raises:
            IndexUnavailableError: The disk or the database refuses at the moment.
        """
        if is_done():
            return
        self._hurry = max(self._hurry, hurry)
        self._state.notify_all()
        self._state.wait_for(lambda: is_done() or self._failure is not None, _SETTLING)
        if not is_done():
            raise self._unsettled()

    def _unsettled(self) -> IndexUnavailableError:
        reason = self._failure or f"this has taken more than {_SETTLING:.0f} s"
        return IndexUnavailableError(f"what was received last is not in the index yet: {reason}")

    @contextmanager
    def claim(self, sop_instance_uid: str) -> Iterator[None]:
        """Let :meth:`FileStore.keep` alone decide about a SOP Instance UID while the block runs.

        Raises:
            IndexUnavailableError: An instance with this UID was acknowledged, and cannot be finished at the moment; or
                the database refuses at the moment.
            OSError: The disk has failed, so that it is not known what a start would find in the journal.
        """
        with self._state:
            self._claimed[sop_instance_uid] += 1
        try:
            with self._state:
                self._wait_until_finished(sop_instance_uid)
                if isinstance(self._failure, IndexUnavailableError):
                    # It would refuse this row, too, after another long wait.
                    raise self._unsettled()
            if not self._shared.claim(sop_instance_uid, _SETTLING):
                raise self._unsettled()
            if self._journal is not None and self._journal.is_doubtful:
                # This instance may be among those, and a start would put the other content in the place of this one.
                self.forget()
            yield
        finally:
            with self._state:
                self._claimed[sop_instance_uid] -= 1
                if not self._claimed[sop_instance_uid]:
                    del self._claimed[sop_instance_uid]
                    if sop_instance_uid not in self._uids:
                        self._shared.release(sop_instance_uid)

    def forget(self) -> None:
        """Empty the journal before a file that was made from it is replaced; else a start might bring it back.

        Raises:
            IndexUnavailableError: What was acknowledged cannot be finished at the moment.
            OSError: The disk has failed.
        """
        journal = self._journal
        if journal is None or journal.is_empty:
            return
        with self._appending:
            # All that is in these segments is counted, so they can be retired when so many are finished.
            journal.seal()
            with self._state:
                count = self._journalled
        with self._state:
            self._wait_for(count)
        self._retire(journal)
        if self._is_out_of_order:
            raise OSError(errno.EIO, "the disk could not sync what was received before")

    # -- the committer -------------------------------------------------------------------------------

    def _commit_all(self) -> None:
        is_last = False
        while not is_last:
            arrival = self._arrivals.get()
            if arrival is None:
                return
            group, size = [arrival], len(arrival.octets)
            while len(group) < GROUP_LIMIT and size < GROUP_OCTETS:
                try:
                    arrival = self._arrivals.get_nowait()
                except queue.Empty:
                    break
                if arrival is None:
                    is_last = True
                    break
                group.append(arrival)
                size += len(arrival.octets)
            try:
                self._commit(group, size)
            except Exception:  # whatever it is, others wait for this thread
                self._log.failure("the journal cannot be used; instances are kept one by one")
            assert self._reactor is not None
            self._reactor.callFromThread(_answer, group)

    def _commit(self, group: list[_Arrival], size: int) -> None:
        """Decide about a group, and journal those that are new."""
        journal = self._journal
        assert journal is not None
        most, most_octets = BACKLOG, BACKLOG_OCTETS
        if self._store.is_shared:
            # What is acknowledged waits for the shared store as long as that is out of reach.
            most, most_octets = SHARED_BACKLOG, SHARED_BACKLOG_OCTETS
        with self._state:

            def has_place() -> bool:
                count = len(self._acknowledged) + len(group)
                return self._octets + size <= most_octets and count <= most

            if not has_place():
                self._hurry = self._journalled
                self._state.notify_all()
                self._state.wait_for(lambda: has_place() or self._failure is not None)
            if self._is_out_of_order or (
                self._failure is not None and not self._may_wait(has_place)
            ):
                return
            pending = self._octets
        new: list[_Arrival] = []
        try:
            taken = self._store.taken([each.spool.sop_instance_uid for each in group])
            if journal.is_doubtful:
                self.forget()
            # The files of what is acknowledged need as much room as the journal has already.
            if not self._store.has_room(pending + size):
                return
            new += (each for each in group if self._is_new(each, taken))
            if new:
                self._append(journal, new)
        except (OSError, JournalError, IndexUnavailableError) as error:
            self._could_not_journal(error)
        finally:
            left = [each for each in new if each.segment is None]
            if left:
                with self._state:
                    self._give_back(each.spool.sop_instance_uid for each in left)

    def _may_wait(self, has_place: Callable[[], bool]) -> bool:
        """Whether more may be acknowledged although the shared store refuses; the database has to answer."""
        refuses_rows = isinstance(self._failure, IndexUnavailableError)
        return self._store.is_shared and not refuses_rows and has_place()

    def _give_back(self, sop_instance_uids: Iterable[str]) -> None:
        """Give up the claims to SOP Instance UIDs that were new; the guard is held."""
        for uid in sop_instance_uids:
            self._uids.discard(uid)
            self._shared.release(uid)
        self._state.notify_all()

    def _append(self, journal: Journal, new: list[_Arrival]) -> None:
        """Append instances to the journal; they are acknowledged then."""
        with self._appending:
            segments = journal.append([Entry(each.octets, each.digest) for each in new])
            if journal.wants_segment():
                self._full.put(True)
            self._could_journal()
            # The others did not fit into the journal, and are left to the store.
            new = new[: len(segments)]
            for each, segment in zip(new, segments, strict=True):
                each.segment = segment
            with self._state:
                was_idle = not self._acknowledged
                if was_idle:
                    self._moved = monotonic()
                self._acknowledged += new
                self._octets += sum(len(each.octets) for each in new)
                self._journalled += len(new)
                self._shared.acknowledged(len(new))
                if was_idle or len(self._acknowledged) >= GROUP_LIMIT:
                    # Otherwise the finisher is at work, or gathers; waking it would cost more than the rest.
                    self._state.notify_all()

    def _could_not_journal(self, error: Exception) -> None:
        if isinstance(error, OSError) and not self._is_refused:
            self._is_refused = True
            self._log.error(
                "the disk refuses the journal: {error}; instances are kept one by one, which is slower, until it "
                "takes it again",
                error=error,
            )

    def _could_journal(self) -> None:
        if self._is_refused:
            self._is_refused = False
            self._log.info("the disk takes the journal again")

    def _is_new(self, arrival: _Arrival, taken: Collection[str] | None) -> bool:
        """Whether an instance is whole, and its SOP Instance UID is not known yet; which is then claimed.

        Args:
            taken: Those that are known; None when the files tell.
        """
        spool = arrival.spool
        uid = spool.sop_instance_uid
        try:
            walked = walk(
                arrival.octets, spool.transfer_syntax, spool.header_size, WANTED, limit=ELEMENTS
            )
            check_announced(spool, walked)
            digest = hashlib.sha256(arrival.octets)
            name = self._store.name_of(uid, digest.hexdigest())
            path = Path(name)
            record = InstanceRecord.of(
                walked,
                spool.transfer_syntax,
                path=path,
                size=len(arrival.octets),
                digest=f"sha256:{digest.hexdigest()}",
                receipt=spool.receipt,
            )
        except Exception:  # whatever it is, keep() finds it as well, and answers with the reason
            return False
        with self._state:
            if uid in self._uids or uid in self._claimed:
                return False
            self._uids.add(uid)
        # The reactor may wait for the guard, so the disk is asked without it.
        is_claimed = self._shared.claim(uid)
        if not is_claimed or (os.path.lexists(name) if taken is None else uid in taken):
            with self._state:
                self._uids.discard(uid)
                if is_claimed:
                    self._shared.release(uid)
                self._state.notify_all()
            return False
        arrival.digest, arrival.path, arrival.record = digest.digest(), name, record
        arrival.kept = Kept(Outcome.STORED, path, walked)
        return True

    # -- the finisher --------------------------------------------------------------------------------

    def _finish_all(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._acknowledged or self._is_stopping)
                if not self._acknowledged:
                    return
                self._gather()
                group = self._acknowledged[:GROUP_LIMIT]
            try:
                self._finish(group)
            except Exception as error:  # whatever it is, what was acknowledged stays in the journal
                if self._has_failed(error):
                    return
                continue
            self._has_finished(group)

    def _gather(self) -> None:
        """Wait a moment for more instances, unless somebody waits for those that are here; the guard is held."""

        def is_due() -> bool:
            return (
                self._is_stopping
                or self._hurry > self._finished
                or len(self._acknowledged) >= GROUP_LIMIT
                or self._shared.is_waited_for
            )

        if not self._shared.is_shared:
            self._state.wait_for(is_due, _GATHERING)
            return
        until = monotonic() + _GATHERING
        while not self._state.wait_for(is_due, _GLANCE) and monotonic() < until:
            continue

    def _finish(self, group: Sequence[_Arrival]) -> None:
        if isinstance(self._store, SharedStore):
            self._finish_shared(self._store, group)
            return
        records: list[InstanceRecord] = []
        for each in group:
            uid = each.spool.sop_instance_uid
            made = self._store.place_beside(each.path, each.octets, each.digest.hex(), uid)
            if made != each.path:
                self._log.warn(
                    "{uid} was imported with other content before what was received was a file; that is kept aside as "
                    "a version, which netdicom versions shows",
                    uid=uid,
                )
                # What is synced before the segment is used again, and made again when the database refuses.
                each.path, each.record = made, None
            if each.record is not None:
                records.append(each.record)
        refused = self._index.add_many(records).result()
        for uid, error in (refused or {}).items():
            self._log.error(
                "{uid} is kept as a file, but the index refuses its row, so no query finds it: {error}",
                uid=uid,
                error=error,
            )

    def _finish_shared(self, store: SharedStore, group: Sequence[_Arrival]) -> None:
        aside, refused = store.place_all(
            [
                Incoming(each.spool.sop_instance_uid, each.octets, each.digest.hex(), each.record)
                for each in group
            ]
        )
        for uid in aside:
            self._log.warn(
                "{uid} was stored by another node with other content before what was received was in the shared store; "
                "that is kept aside as a version, which netdicom versions shows",
                uid=uid,
            )
        for uid, error in refused.items():
            self._log.error(
                "{uid} is in the shared store, but the index refuses its row, so no query finds it: {error}",
                uid=uid,
                error=error,
            )

    def _has_failed(self, error: Exception) -> bool:
        """Wait before the next attempt; True when there is none, because the node stops."""
        with self._state:
            if self._failure is None:
                self._log.error(
                    "what was received last cannot be made files and rows: {error}; it is in the journal, nothing "
                    "is lost, and the node tries again every {seconds:g} s",
                    error=error,
                    seconds=_AGAIN,
                )
            self._failure = error
            self._let_on()
            self._state.notify_all()
            return self._state.wait_for(lambda: self._is_stopping, _AGAIN)

    def _has_finished(self, group: Sequence[_Arrival]) -> None:
        journal = self._journal
        assert journal is not None
        segments = [each.segment for each in group if each.segment is not None]
        for each, segment in zip(group, segments, strict=True):
            segment.paths.append(each.path)
        if self._store.is_shared:
            # Another node may delete or replace them from now on.
            try:
                journal.mark(segments)
            except OSError as error:
                self._could_not_journal(error)
        journal.finish(segments)
        with self._state:
            if self._failure is not None:
                self._failure = None
                self._log.info("what was received last is in files and rows now")
            del self._acknowledged[: len(group)]
            self._octets -= sum(len(each.octets) for each in group)
            self._finished += len(group)
            self._moved = monotonic()
            self._uids.difference_update(each.spool.sop_instance_uid for each in group)
            self._shared.finished(len(group))
            self._let_on()
            self._give_back(each.spool.sop_instance_uid for each in group)
        if journal.finished:
            # To sync may take long when other programs write, too, and readers wait for this thread.
            self._full.put(True)

    # -- the retirer ---------------------------------------------------------------------------------

    def _retire_all(self, journal: Journal) -> None:
        while self._full.get():
            with suppress(OSError):  # the committer makes the segment then, and says why it cannot
                journal.prepare()
            with suppress(OSError):  # it is in the log
                self._retire(journal)

    def _retire(self, journal: Journal) -> None:
        """Sync the files that were made from full segments, and use these again.

        Raises:
            OSError: The disk has failed.
        """
        with self._retiring:
            finished = journal.finished
            if not finished or self._is_out_of_order:
                return
            try:
                if self._store.is_synced and not self._store.is_shared:
                    sync_files(
                        self._store.descriptor, [path for each in finished for path in each.paths]
                    )
            except OSError as error:
                # A second sync might succeed although the first one has lost what it was to write.
                self._is_out_of_order = True
                self._log.error(
                    "the disk cannot sync the files of the archive: {error}; the journal keeps them for the next "
                    "start, and until then every instance is synced by itself",
                    error=error,
                )
                raise
            try:
                journal.retire(finished)
            except OSError as error:
                # This can be tried again, for the files are on the disk.
                self._could_not_journal(error)
                raise


def _answer(group: Sequence[_Arrival]) -> None:
    for each in group:
        if not each.answer.called:
            # What is not in the journal is left to the store.
            each.answer.callback(each.kept if each.segment is not None else None)


def _fire(ended: Sequence[defer.Deferred[None]]) -> None:
    for each in ended:
        if not each.called:
            each.callback(None)
