"""What the processes of one node have in common beside files and database: counters, claims and a lock.

A node that runs with ``--workers N`` consists of N + 1 processes, each with a journal of its own. They must not
acknowledge two instances with one SOP Instance UID, a query must find what *any* of them has acknowledged, and one of
them writes to the index at a time. :class:`Shared` is how they agree: a few words of memory that all of them map, and
locks on byte ranges of that memory's file, which the system releases when a process dies. No message passes between
processes for an instance. :class:`Alone` has the same methods for a node of one process, and does nothing.

The words are 64 bits wide and written by one process each, apart from the generation and the folders::

    row                  words
    the slot of each     acknowledged   how many instances this process has acknowledged through its journal
    process              finished       how many of them are files and rows
                         wanted         up to which number another process waits for them
    generation           one            changes when rows that others may remember were changed or deleted
    unsafe               512 octets     one for each folder of the store whose sync has failed
    the notes of each    64 digests     of the SOP Instance UIDs whose files it is naming, and whose rows are not there
    process                             yet; all zeros when free

This module knows neither Twisted nor the store.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from .names import digest_of_uid

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
_NOTED: Final = _UNSAFE + _FOLDERS
_NOTES: Final = 64  # of each process
_DIGEST: Final = 32
_FREE: Final = bytes(_DIGEST)
_SIZE: Final = _NOTED + (MOST_WORKERS + 1) * _NOTES * _DIGEST
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

    def note(self, sop_instance_uid: str) -> int:
        """Note that the file of an instance is about to get its name, and that its row follows.

        A process that dies in between leaves a file without a row, and the lead looks for it. When there are very many
        notes, this waits until one is dropped.

        Returns:
            The number of the note, for :meth:`drop`.
        """
        return 0

    def drop(self, note: int) -> None:
        """Forget a note, because the row is there, or there is no file."""

    def noted(self, slot: int) -> list[bytes]:
        """The SHA-256 of each SOP Instance UID that a process had noted which has ended."""
        return []

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
        self._unsafe = memoryview(self._memory)[_UNSAFE:_NOTED]
        self._free_notes = list(range(_NOTES))
        self._note_dropped = threading.Condition()
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
        """All that a process which has ended had acknowledged or noted are files and rows."""
        start = slot * _WORDS
        self._words[start + _FINISHED] = self._words[start + _ACKNOWLEDGED]
        notes = _note(slot, 0)
        self._memory[notes.start : notes.start + _NOTES * _DIGEST] = bytes(_NOTES * _DIGEST)

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

    # -- files without a row ---------------------------------------------------------------------------

    def note(self, sop_instance_uid: str) -> int:
        with self._note_dropped:
            self._note_dropped.wait_for(lambda: self._free_notes)
            note = self._free_notes.pop()
        self._memory[_note(self.slot, note)] = digest_of_uid(sop_instance_uid)
        return note

    def drop(self, note: int) -> None:
        self._memory[_note(self.slot, note)] = _FREE
        with self._note_dropped:
            self._free_notes.append(note)
            self._note_dropped.notify()

    def noted(self, slot: int) -> list[bytes]:
        digests = (self._memory[_note(slot, note)] for note in range(_NOTES))
        return [each for each in digests if each != _FREE]

    # -- folders ---------------------------------------------------------------------------------------

    def fail(self, folder: int) -> None:
        self._unsafe[folder] = 1

    def has_failed(self, folder: int) -> bool:
        return bool(self._unsafe[folder])


def _note(slot: int, note: int) -> slice:
    """Where a note of a process stands in the memory."""
    start = _NOTED + (slot * _NOTES + note) * _DIGEST
    return slice(start, start + _DIGEST)


def _place(sop_instance_uid: str) -> int:
    """The octet that stands for a SOP Instance UID; two of them have the same one once in 2^62."""
    return 1 + int.from_bytes(digest_of_uid(sop_instance_uid)[:8]) % _CLAIMS
