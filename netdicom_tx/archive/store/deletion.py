"""Delete instances so that rows, files and journal agree at every moment.

=====  ==========================================================================  ==================================
step   what is done                                                                after a crash, the start
=====  ==========================================================================  ==================================
1      the journal forgets what was received before                                finds nothing deleted
2      one transaction removes the rows, and puts the files on a list              deletes the files of the list
3      a file is deleted with its versions, when no lease needs it any more        deletes those that are left
4      the folders are synced, and the files taken off the list                    has nothing to do
=====  ==========================================================================  ==================================

From step 2 on, no query finds the instances. A retrieve that has found them before is finished, because it holds a
lease (:mod:`~netdicom_tx.archive.store.sharing`). An instance that is stored again is a fresh one, also while its old
file is still there: :meth:`FileStore.keep <netdicom_tx.archive.store.filestore.FileStore.keep>` asks whether a file
that it finds is one of these, and step 3 leaves a file alone whose instance has a row again.

The start finishes the list before the journal is replayed: what is in the journal was received after step 1.

All functions block.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Final, NamedTuple

import sqlalchemy as sa

from ..group.identity import bind, check
from ..group.members import check_upgrade
from ..index import withdrawal
from ..index.index import Index
from ..index.rights import check_rights
from ..index.schema import Level
from ..index.withdrawal import Chosen, Gone, Listed, Narrow
from .filestore import FileStore
from .objects import ObjectMissingError
from .place import node_uuid, place_of
from .sharedstore import SharedStore
from .usage import Usage, check_usage

__all__ = ["Deleted", "Deleter", "open_archive"]

# How many files are deleted between two changes of the list.
_AT_ONCE: Final = 128
# How many objects are deleted between two looks at whether the transaction still holds them.
_BETWEEN: Final = 16
# After how many seconds an object that may be deleted should have been: a database that was restored has old lists.
_OVERDUE: Final = 3600


class Deleted(NamedTuple):
    """What was deleted.

    Attributes:
        uids: The SOP Instance UIDs of the instances.
        octets: The size of their files.
        waiting: How many of the files go when the retrieves that send them have ended.
    """

    uids: tuple[str, ...] = ()
    octets: int = 0
    waiting: int = 0

    @property
    def instances(self) -> int:
        """How many instances are gone."""
        return len(self.uids)


def _nothing() -> None:
    """Have no journal that would have to forget."""


def _unclaimed(_: str) -> AbstractContextManager[None]:
    """Have no journal that would have to leave an instance alone."""
    return nullcontext()


class Deleter:
    """Deletes instances of one archive. Any thread may call the methods.

    Args:
        store: The store; it is open.
        index: The index; likewise.
        forget: Makes files and rows of what was acknowledged, and empties the journal.
        claim: Keeps an instance from becoming a file by way of the journal while the block runs.
    """

    def __init__(
        self,
        store: FileStore,
        index: Index,
        forget: Callable[[], None] = _nothing,
        claim: Callable[[str], AbstractContextManager[None]] = _unclaimed,
    ) -> None:
        self._store = store
        self._index = index
        # Objects wait for a time instead of leases, because their readers are on other nodes, too.
        self._shared = store if isinstance(store, SharedStore) else None
        self._usage = Usage(store, index) if isinstance(store, SharedStore) else None
        self._forget = forget
        self._claim = claim
        self._deleting = threading.Lock()
        #: Called with what was deleted and who asked for it; in the thread that has deleted it.
        self.on_deleted: Callable[[list[Gone], str], object] | None = None
        #: How many octets have left the index since the start.
        self.octets = 0

    def delete(
        self,
        chosen: Sequence[Chosen],
        narrow: Narrow = withdrawal.all_of,
        *,
        user: str = "",
    ) -> Deleted:
        """Delete instances for good.

        Args:
            chosen: The instances; those that are not there any more are left out.
            user: The name of the person who asks for it; empty for a rule.
            narrow: Decides inside the transaction which of the chosen instances are deleted.

        Raises:
            IndexUnavailableError: The database refuses. If the instances have left the index already, :meth:`finish`
                deletes their files.
            OSError: The disk has failed; likewise.
        """
        with self._deleting:
            self._forget()
            gone: list[Gone] = []

            def narrowed(connection: sa.Connection, chosen: Sequence[Chosen]) -> Sequence[Chosen]:
                left = narrow(connection, chosen)
                gone[:] = withdrawal.described(connection, left)
                return left

            found = self._index.withdraw(chosen, narrowed).result()
            if not found:
                return Deleted()
            if self.on_deleted is not None:
                with self._index.reading() as reading:
                    self.on_deleted(withdrawal.after(reading, gone), user)
            is_free = False
            if self._shared is not None:
                self._mark_due(found)
            else:
                generation = self._store.leases.turn()
                self._mark(found, generation)
                is_free = self._store.leases.ended() >= generation
            if is_free:
                self._remove(found)
            octets = sum(each.size for each in found)
            self.octets += octets
            uids = tuple(each.sop_instance_uid for each in found)
            return Deleted(uids, octets, 0 if is_free else len(found))

    def delete_named(self, level: Level, key: str, user: str = "") -> Deleted:
        """Delete all instances of a patient, study or series, or one instance.

        Args:
            key: As for :func:`~netdicom_tx.archive.index.withdrawal.choose`.
            user: The name of the person who asks for it.

        Raises:
            IndexUnavailableError: As for :meth:`delete`.
            OSError: Likewise.
        """
        with self._index.reading() as reading:
            chosen = withdrawal.choose(reading, level, key)
        return self.delete(chosen, user=user) if chosen else Deleted()

    def finish(self) -> int:
        """Delete the files of instances that have left the index, unless leases need them.

        Returns:
            How many are taken off the list.

        Raises:
            IndexUnavailableError: The database refuses.
            OSError: The disk has failed.
        """
        if self._shared is not None:
            return self._finish_shared(self._shared)
        with self._deleting:
            with self._index.reading() as reading:
                unmarked = withdrawal.listed(reading, (0, 0))
            if unmarked:
                # Their deletion was interrupted before it was known which leases may need them.
                self._mark(unmarked, self._store.leases.turn())
            ended = self._store.leases.ended()
            with self._index.reading() as reading:
                found = withdrawal.listed(reading, (1, ended))
            self._remove(found)
            return len(found)

    def _mark_due(self, found: Sequence[Listed]) -> None:
        assert self._shared is not None
        after, rows = self._shared.grace, [each.row for each in found]

        def mark(connection: sa.Connection) -> None:
            withdrawal.mark(connection, rows, int(withdrawal.clock(connection) + after))

        self._index.write(mark).result()

    def _finish_shared(self, store: SharedStore) -> int:
        """Delete the objects whose time has come; other nodes may do the same at the same moment."""
        with self._index.reading() as reading:
            unmarked = withdrawal.listed(reading, (0, 0))
        if unmarked:
            self._mark_due(unmarked)
        with self._index.reading() as reading:
            is_due = withdrawal.is_due(reading)
        assert self._usage is not None
        if not is_due:
            self._usage.keep()
            return 0
        self._usage.confirm()
        done = 0

        def delete(connection: sa.Connection) -> int:
            found = withdrawal.due(connection, _AT_ONCE)
            needed = withdrawal.with_paths(connection, found)
            now = withdrawal.clock(connection)
            needed |= {each.path for each in found if _is_put_again(store, each, now)}
            gone = [each.path for each in found if each.path not in needed]
            for start in range(0, len(gone), _BETWEEN):
                # Nobody can claim these before the transaction has ended. The server may have ended it, for example
                # because this node was suspended, and this says so.
                connection.execute(sa.select(1))
                store.objects.delete(gone[start : start + _BETWEEN])
            withdrawal.strike(connection, [each.row for each in found])
            return len(found)

        while count := self._index.write_apart(delete):
            done += count
        return done

    def finish_all(self) -> int:
        """Delete the files of all instances that have left the index: at a start, before the journal is replayed.

        Returns:
            How many were taken off the list.

        Raises:
            IndexUnavailableError: The database refuses.
            OSError: The disk has failed.
        """
        if self._shared is not None:
            return 0  # what is due is deleted while a node runs
        with self._index.reading() as reading:
            found = withdrawal.listed(reading)
        self._remove(found)
        return len(found)

    def _mark(self, found: Sequence[Listed], generation: int) -> None:
        rows = [each.row for each in found]
        self._index.write(partial(withdrawal.mark, rows=rows, generation=generation)).result()

    def _remove(self, found: Sequence[Listed]) -> None:
        for start in range(0, len(found), _AT_ONCE):
            part = found[start : start + _AT_ONCE]
            with ExitStack() as claims:
                for each in part:
                    claims.enter_context(self._claim(each.sop_instance_uid))
                self._remove_part(part)
            self._index.write(partial(withdrawal.strike, rows=[each.row for each in part])).result()

    def _remove_part(self, part: Sequence[Listed]) -> None:
        by_folder: dict[str, list[Listed]] = defaultdict(list)
        for each in part:
            by_folder[self._store.path(each.sop_instance_uid).parent.name].append(each)
        for name, group in sorted(by_folder.items()):
            with self._store.folders.alone(name):
                with self._index.reading() as reading:
                    here = withdrawal.there(reading, [each.sop_instance_uid for each in group])
                gone = [
                    each.sop_instance_uid for each in group if each.sop_instance_uid not in here
                ]
                self._store.discard(name, gone)


def _is_put_again(store: SharedStore, listed: Listed, now: float) -> bool:
    """Whether an object was put after it was listed, which the list does not know when the database was restored.

    Such an object stays, and gets its row by the comparison of objects and rows. It is not asked for what has become
    due as usual: there, an object that lost against another one is hardly older than its place on the list.
    """
    if now - listed.generation < _OVERDUE:
        return False
    try:
        return store.objects.modified(listed.path) > listed.generation - store.grace
    except ObjectMissingError:
        return False


def open_archive(store: FileStore, index: Index, *, adopt: bool = False) -> int:
    """Open a store and its index, which belong together, and finish the deletions that were begun.

    Args:
        adopt: Whether they belong together because an operator says so, see :mod:`~netdicom_tx.archive.group.identity`.

    Returns:
        How many instances were still on the list.

    Raises:
        StorageError: The storage directory cannot be used.
        IndexUnusableError: The index cannot be used, or is another archive's; then nothing was changed.
        IndexUnavailableError: The database refuses.
    """
    finished = 0

    def when_locked() -> None:
        place = place_of(store)

        def identify(connection: sa.Connection) -> None:
            if not adopt:
                check(connection, place, index.url)
            check_upgrade(connection, node_uuid(store))

        index.open(identify)
        with index.reading() as reading:
            check_rights(reading, index.url)
            if isinstance(store, SharedStore) and not adopt:
                check_usage(reading, store, index.url)
        if isinstance(store, SharedStore) and adopt:
            Usage(store, index).forget()
        bind(index, place, index.url, adopt=adopt)

    def before_recovery() -> None:
        nonlocal finished
        finished = Deleter(store, index).finish_all()

    try:
        store.open(before_recovery, when_locked)
        if not index.is_open:
            index.open()  # the lead has finished what was begun
    except BaseException:
        index.close()
        store.close()
        raise
    return finished
