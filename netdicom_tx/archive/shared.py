"""What the processes of one node have in common beside files and database: counters, claims and a lock.

A node that runs with ``--workers N`` consists of N + 1 processes, each with a journal of its own. They must not
acknowledge two instances with one SOP Instance UID, a query must find what *any* of them has acknowledged, and one of
them writes to the index at a time. :class:`Shared` is how they agree: a few words of memory that all of them map, and
locks on byte ranges of that memory's file, which the system releases when a process dies. No message passes between
processes for an instance. :class:`Alone` has the same methods for a node of one process, and does nothing.

The words are 64 bits wide and written by one process each, apart from the last two rows::

    row                  words
    the slot of each     acknowledged   how many instances this process has acknowledged through its journal
    process              finished       how many of them are files and rows
                         wanted         up to which number another process waits for them
    generation           one            changes when rows that others may remember were changed or deleted
    unsafe               512 octets     one for each folder of the store whose sync has failed

This module knows neither Twisted nor the store.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

__all__ = ["LEAD", "MOST_WORKERS", "Alone", "Shared"]

#: The slot of the process that the user has started.
LEAD: Final = 0
#: How many workers a node may have.
MOST_WORKERS: Final = 64

_WORDS: Final = 8  # of a slot, so that two processes do not write to one cache line
_ACKNOWLEDGED, _FINISHED, _WANTED = range(3)
_GENERATION: Final = (MOST_WORKERS + 1) * _WORDS
_UNSAFE: Final = (_GENERATION + _WORDS) * 8
_FOLDERS: Final = 512
_SIZE: Final = _UNSAFE + _FOLDERS
# The first octet is locked by the process that writes to the index; those behind it stand for SOP Instance UIDs.
_INDEX_LOCK: Final = 0
_CLAIMS: Final = 1 << 62
# How often a process looks at the words of others for which it waits, in seconds.
_LOOK: Final = 0.001


class Alone:
    """The one process of a node, which agrees with itself."""

    #: Whether there are other processes.
    is_shared = False
    #: The slot of this process.
    slot = LEAD

    def claim(self, sop_instance_uid: str, patience: float = 0.0) -> bool:
        """Let no other process acknowledge a SOP Instance UID.

        Returns:
            False when another process has claimed it, and has not released it within so many seconds.
        """
        return True

    def release(self, sop_instance_uid: str) -> None:
        """Give up a claim."""

    def acknowledged(self, count: int) -> None:
        """So many more instances are in the journal of this process; call this before they are answered."""

    def finished(self, count: int) -> None:
        """So many more of them are files and rows."""

    @property
    def is_waited_for(self) -> bool:
        """Whether another process waits for what this one has acknowledged."""
        return False

    def settle(self, patience: float) -> bool:
        """Wait until what others had acknowledged before the call are files and rows.

        Returns:
            Whether they are, within so many seconds.
        """
        return True

    @contextmanager
    def writing(self) -> Iterator[bool]:
        """Be the process that writes to the index.

        Yields:
            Whether rows that this process remembers may have been changed by others.
        """
        yield False

    def changed(self) -> None:
        """Let the others forget the rows that they remember; called while :meth:`writing`."""

    def fail(self, folder: int) -> None:
        """The sync of a folder has failed; its number is below 512."""

    def has_failed(self, folder: int) -> bool:
        """Whether the sync of a folder has failed in some process."""
        return False


class Shared(Alone):
    """The share of one process; see the module.

    Args:
        descriptor: A file in memory, which the lead has made and its workers inherit.
        slot: The slot of this process: :data:`LEAD`, or the number of a worker.
    """

    is_shared = True

    def __init__(self, descriptor: int, slot: int) -> None:
        self.descriptor = descriptor
        self.slot = slot
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._words = memoryview(self._memory)[:_UNSAFE].cast("Q")
        self._unsafe = memoryview(self._memory)[_UNSAFE:]
        self._own = slot * _WORDS
        self._generation = self._words[_GENERATION]

    @classmethod
    def create(cls) -> Shared:
        """Make the memory, as the lead."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("netdicom-workers")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _SIZE)
        return cls(descriptor, LEAD)

    # -- claims --------------------------------------------------------------------------------------

    def claim(self, sop_instance_uid: str, patience: float = 0.0) -> bool:
        # The lock is never waited for in the kernel: it would take two threads of two processes for a deadlock.
        until = time.monotonic() + patience
        while not self._try(sop_instance_uid):
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK)
        return True

    def _try(self, sop_instance_uid: str) -> bool:
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(sop_instance_uid))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.ENOLCK):
                return False
            raise
        return True

    def release(self, sop_instance_uid: str) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, _place(sop_instance_uid))

    # -- what was acknowledged -------------------------------------------------------------------------

    def acknowledged(self, count: int) -> None:
        self._words[self._own + _ACKNOWLEDGED] += count

    def finished(self, count: int) -> None:
        self._words[self._own + _FINISHED] += count

    @property
    def is_waited_for(self) -> bool:
        return self._words[self._own + _WANTED] > self._words[self._own + _FINISHED]

    def settle(self, patience: float) -> bool:
        words = self._words
        behind: list[tuple[int, int]] = []
        for slot in range(MOST_WORKERS + 1):
            start = slot * _WORDS
            count = words[start + _ACKNOWLEDGED]
            if slot != self.slot and words[start + _FINISHED] < count:
                behind.append((start, count))
                words[start + _WANTED] = max(count, words[start + _WANTED])
        return not behind or self._wait(behind, patience)

    def _wait(self, behind: Sequence[tuple[int, int]], patience: float) -> bool:
        until = time.monotonic() + patience
        for start, count in behind:
            while self._words[start + _FINISHED] < count:
                if time.monotonic() >= until:
                    return False
                time.sleep(_LOOK)
        return True

    def complete(self, slot: int) -> None:
        """All that a process which has ended had acknowledged are files and rows."""
        start = slot * _WORDS
        self._words[start + _FINISHED] = self._words[start + _ACKNOWLEDGED]

    # -- the index -------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[bool]:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, _INDEX_LOCK)
        try:
            before, self._generation = self._generation, self._words[_GENERATION]
            yield before != self._generation
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, _INDEX_LOCK)

    def changed(self) -> None:
        self._words[_GENERATION] += 1
        self._generation = self._words[_GENERATION]

    # -- folders ---------------------------------------------------------------------------------------

    def fail(self, folder: int) -> None:
        self._unsafe[folder] = 1

    def has_failed(self, folder: int) -> bool:
        return bool(self._unsafe[folder])


def _place(sop_instance_uid: str) -> int:
    """The octet that stands for a SOP Instance UID; two of them have the same one once in 2^62."""
    digest = hashlib.sha256(sop_instance_uid.encode("utf-8", "surrogateescape")).digest()
    return 1 + int.from_bytes(digest[:8]) % _CLAIMS
