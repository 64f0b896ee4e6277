"""``twistd`` whose disk fails when it is told to, and which notes what would survive a power cut.

``NETDICOM_TX_FAULTS`` names a directory. While it has a file ``fault`` with a name of :mod:`errno`, every call of the
file store that changes the disk fails with that error. What reaches the disk is noted in ``events``; :func:`cut` takes
back the rest. The database is not affected by either.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULTS = "NETDICOM_TX_FAULTS"
_WRITES = frozenset(
    ("write", "writev", "pwrite", "pwritev", "posix_fallocate", "fsync", "fdatasync")
)
_NAMES = frozenset(("rename", "unlink", "mkdir"))


class FaultyOS:
    """The ``os`` module for the store and the journal."""

    def __init__(self, directory: Path) -> None:
        self._fault = directory / "fault"
        self._events = os.open(directory / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __getattr__(self, name: str) -> Any:  # whatever os has
        real = getattr(os, name)
        if name in _WRITES or name in _NAMES or name == "open":
            return self._watched(name, real)
        return real

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._fail(name, *arguments)
            result = real(*arguments, **options)
            if name in ("pwrite", "pwritev"):
                self._note("w", _path(arguments[0]), arguments[2], result)
            elif name in ("fsync", "fdatasync"):
                path = _path(arguments[0])
                self._note("d" if os.path.isdir(path) else "s", path)
            elif name == "rename":
                folder = options.get("dst_dir_fd")
                name_ = arguments[1] if folder is None else f"{_path(folder)}/{arguments[1]}"
                self._note("r", arguments[0], name_)
            return result

        return call

    def _fail(self, name: str, *arguments: Any) -> None:
        try:
            number = getattr(errno, self._fault.read_text())
        except OSError:
            return
        is_read_only = number == errno.EROFS
        if name == "open":
            changes = arguments[1] & (os.O_CREAT | os.O_RDWR | os.O_WRONLY)
            if not (is_read_only and changes):
                return
        elif name in _NAMES and not is_read_only:
            return
        raise OSError(number, os.strerror(number))

    def _note(self, *words: object) -> None:
        os.write(self._events, ("\t".join(map(str, words)) + "\n").encode())

    def syncing(self, real: Callable[[int], int]) -> Callable[[int], int]:
        """The system call that syncs a file system."""

        def call(descriptor: int) -> int:
            self._note("F")
            result = real(descriptor)
            if not result:
                self._note("f")
            return result

        return call


def _path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def cut(directory: Path, storage: Path) -> tuple[int, int]:
    """Take back what a power cut may take from a store whose process is dead.

    Returns:
        How many records of the journal, and how many files.
    """
    events = [line.split("\t") for line in (directory / "events").read_text().splitlines()]
    # A sync of the whole file system counts for what was noted before it began.
    everything = 0
    begun = 0
    for number, (kind, *_) in enumerate(events):
        if kind == "F":
            begun = number
        elif kind == "f":
            everything = begun
    last_sync = {event[1]: number for number, event in enumerate(events) if event[0] in "sd"}
    records = files = 0
    for number, (kind, *words) in enumerate(events):
        if kind == "w":
            path = Path(words[0])
            if number > max(last_sync.get(words[0], -1), everything) and path.exists():
                with path.open("r+b") as segment:
                    segment.seek(int(words[1]))
                    segment.write(bytes(int(words[2])))
                records += 1
        elif kind == "r":
            path = Path(words[1])
            has_name = number < max(last_sync.get(os.path.dirname(words[1]), -1), everything)
            has_octets = last_sync.get(words[0], number) < number or number < everything
            if path.exists() and not (has_name and has_octets):
                if has_name:
                    os.truncate(path, path.stat().st_size // 2)
                else:
                    path.unlink()
                files += 1
    return records, files


def main() -> None:
    """Run twistd with the faults."""
    from netdicom_tx.archive.store import disk, filestore, journal, spool

    faulty: Any = FaultyOS(Path(os.environ[FAULTS]))
    for module in (disk, filestore, journal, spool):
        vars(module)["os"] = faulty
    real: Any = journal._SYNCFS
    if real is not None:
        vars(journal)["_SYNCFS"] = faulty.syncing(real)
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    sys.path[:] = [each for each in sys.path if each != str(Path(__file__).parent)]
    main()
