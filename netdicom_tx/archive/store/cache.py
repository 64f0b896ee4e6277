"""Copies of objects on the disk of a node, up to a number of octets; the least recently used ones are deleted.

A copy gets its name when it is whole. It may be deleted while it is being read, because an open file can be read to its
end. After a crash, a copy may have lost octets that the system had not written. A copy from before the start is
therefore compared with the digest in its name before it is used.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Cache", "digest_in"]

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_DIGITS: Final = 32


def digest_in(key: str) -> str:
    """The first digits of the SHA-256 of an object's octets, which are a part of its key; empty when they are not."""
    _, separator, digest = Path(key).stem.rpartition("-")
    return digest if separator and len(digest) == _DIGITS else ""


class Cache:
    """Copies of objects in one directory, which one process uses at a time. Any thread may call the methods.

    Args:
        root: The directory.
        limit: How many octets all copies may have together; with 0, there are no copies.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self.limit = limit
        #: How many octets all copies have.
        self.octets = 0
        #: How many objects were found in the cache, and how many were not.
        self.hits = self.misses = 0
        #: Whether this process uses the directory, see :meth:`open`.
        self.is_open = False
        self._guard = threading.Lock()
        # By name, the least recently used one first; the size, and whether the digest was compared.
        self._copies: OrderedDict[str, tuple[int, bool]] = OrderedDict()

    def open(self) -> None:
        """Find the copies of an earlier run, and delete incomplete ones.

        Raises:
            OSError: The disk has failed.
        """
        with self._guard:
            self._copies.clear()
            self.octets = 0
            if self.limit:
                self._root.mkdir(mode=0o700, exist_ok=True)
            elif not self._root.is_dir():
                return
            self.is_open = bool(self.limit)
            found = []
            with os.scandir(self._root) as entries:
                for each in entries:
                    status = each.stat(follow_symlinks=False)
                    if digest_in(each.name) and each.is_file(follow_symlinks=False):
                        found.append((status.st_mtime_ns, each.name, status.st_size))
                    else:
                        os.unlink(each.path)
            for _, name, size in sorted(found):
                self._copies[name] = size, False
                self.octets += size
            self._evict()

    def close(self) -> None:
        """Leave the directory to another process."""
        with self._guard:
            self.is_open = False
            self._copies.clear()
            self.octets = 0

    def get(self, key: str, size: int) -> int | None:
        """Open the copy of an object; None when there is none, or it is not what was put there.

        Args:
            size: The size of the object.

        Returns:
            A descriptor, at the first octet.
        """
        name = _name(key)
        with self._guard:
            known = self._copies.get(name)
            if known is None:
                self.misses += bool(self.limit)
                return None
            self._copies.move_to_end(name)
        try:
            descriptor = os.open(self._root / name, _FLAGS)
        except OSError:
            self._forget(name)
            return None
        try:
            is_whole = os.fstat(descriptor).st_size == size
            if is_whole and not known[1]:
                is_whole = _digest(descriptor).startswith(digest_in(key))
            if is_whole:
                with suppress(OSError):  # the order after the next start is a little worse
                    os.utime(descriptor)
                with self._guard:
                    self.hits += 1
                    if name in self._copies:
                        self._copies[name] = size, True
                return descriptor
        except OSError:
            pass  # the copy cannot be read, and is fetched again
        os.close(descriptor)
        self._forget(name)
        return None

    def temporary(self, number: int) -> Path:
        """A path for a copy that is being made."""
        return self._root / f"{os.getpid()}-{number}.part"

    def put(self, key: str, path: Path, size: int) -> None:
        """Give a whole copy its name, and delete others if there are too many octets.

        Args:
            path: The copy, in the directory of the cache; it is gone afterwards.

        Raises:
            OSError: The disk has failed; the copy does not count.
        """
        name = _name(key)
        with self._guard:
            if size > self.limit:
                path.unlink()
                return
            os.rename(path, self._root / name)
            former = self._copies.pop(name, None)
            self.octets += size - (former[0] if former is not None else 0)
            self._copies[name] = size, True
            self._evict()

    def make_room(self, octets: int) -> bool:
        """Delete the least recently used copies, because the disk is full; returns whether there were any.

        Args:
            octets: How many octets are to become free.
        """
        with self._guard:
            before = self.octets
            self._evict(max(0, before - octets))
            return self.octets < before

    def _forget(self, name: str) -> None:
        with self._guard:
            known = self._copies.pop(name, None)
            if known is not None:
                self.octets -= known[0]
                with suppress(OSError):
                    os.unlink(self._root / name)

    def _evict(self, limit: int | None = None) -> None:
        while self.octets > (self.limit if limit is None else limit):
            name, (size, _) = self._copies.popitem(last=False)
            self.octets -= size
            with suppress(OSError):  # it is found again at the next start
                os.unlink(self._root / name)


def _name(key: str) -> str:
    return Path(key).name


def _digest(descriptor: int) -> str:
    with open(os.dup(descriptor), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.lseek(descriptor, 0, os.SEEK_SET)
    return digest
