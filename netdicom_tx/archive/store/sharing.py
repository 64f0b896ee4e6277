"""Locks that protect stored files from their deletion, between threads and between processes.

A :class:`FolderLock` is held by a thread that gives a file its name, and alone by one that deletes files in the same
folder. A :class:`Lease` is held while instances are sent: they were found in the index, and their files are opened one
after the other, when their turn has come. What is deleted in the meantime leaves the index at once, and the disk when
all leases of that time have ended.

The locks are those of the operating system, on files under ``locks/`` and ``locks/leases/``. They end with the process
that holds them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

__all__ = ["FolderLocks", "Lease", "Leases"]


def _open(path: Path) -> int:
    # Some network file systems lock only files that are open for writing.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        # A command works on the directory of an earlier version, which had no locks.
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


class FolderLocks:
    """A lock for each folder with stored files.

    Args:
        root: The folder of the locks.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def make(self) -> None:
        """Make the files that are locked, so that files can be deleted when the disk is full.

        Raises:
            OSError: The disk has failed.
        """
        there = set(os.listdir(self._root))
        for number in range(256):
            if f"{number:02x}.folder" not in there:
                os.close(_open(self._root / f"{number:02x}.folder"))

    @contextmanager
    def _held(self, name: str, how: int) -> Iterator[None]:
        descriptor = _open(self._root / f"{name}.folder")
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def shared(self, name: str) -> AbstractContextManager[None]:
        """Let nobody delete in a folder while the block runs; waits until nobody does."""
        return self._held(name, fcntl.LOCK_SH)

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Let nobody name a file in a folder while the block runs; waits until nobody does."""
        return self._held(name, fcntl.LOCK_EX)


class Lease:
    """Keeps the files of deleted instances on the disk, until it is released."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Need the files no longer; a second call changes nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class Leases:
    """The leases of one storage directory, in numbered generations: one has a file that its leases lock.

    Args:
        root: The folder of their files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def _generations(self) -> list[int]:
        names = (each.removesuffix(".lease") for each in os.listdir(self._root))
        return sorted(int(each) for each in names if each.isdecimal())

    def _path(self, generation: int) -> Path:
        return self._root / f"{generation}.lease"

    def take(self) -> Lease:
        """Take a lease, before the index is asked which instances there are.

        Raises:
            OSError: The disk has failed.
        """
        while True:
            path = self._path(max(self._generations(), default=1))
            descriptor = _open(path)
            try:
                with suppress(BlockingIOError, FileNotFoundError):
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    # Otherwise the generation has ended between the listing and the lock.
                    if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                        return Lease(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def turn(self) -> int:
        """Begin a new generation, after instances have left the index; returns the number of the one before.

        Raises:
            OSError: The disk has failed.
        """
        generation = max(self._generations(), default=1)
        os.close(_open(self._path(generation + 1)))
        return generation

    def ended(self) -> int:
        """The number of the last generation of which, and before which, no lease is left; 0 when there is none.

        Raises:
            OSError: The disk has failed.
        """
        *former, newest = self._generations() or [1]
        for generation in former:
            descriptor = _open(self._path(generation))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._path(generation).unlink(missing_ok=True)
            except BlockingIOError:
                return generation - 1
            finally:
                os.close(descriptor)
        return newest - 1
