"""Files to send: found in directories, read as far as their headers, and noted when a peer has them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ...encoding import DataSetError
from ...sopclass.storage import Instance
from .failures import bad_input

__all__ = ["FoundFile", "HeldBackError", "Journal", "Sending", "check_named", "walk"]

# Media Storage Directory: the index of a medium, which is never sent (PS3.10 8).
_DICOMDIR = "1.2.840.10008.1.3.10"


class HeldBackError(DataSetError):
    """The instance was not sent, because sending has been stopped."""


@dataclass(frozen=True, slots=True)
class FoundFile(os.PathLike[str]):
    """A file, with the size and time that distinguish it from a later one of the same name."""

    path: str
    size: int
    modified: int

    @classmethod
    def of(cls, path: str) -> FoundFile:
        """Look at a file.

        Raises:
            OSError: There is no such file, or it may not be looked at.
        """
        facts = os.stat(path)
        return cls(path, facts.st_size, facts.st_mtime_ns)

    def __fspath__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Sending(Instance):
    """An instance in a file that can be held back until its turn to be sent comes.

    Attributes:
        is_stopped: Called just before the instance is sent; True holds it back.
    """

    is_stopped: Callable[[], bool] = field(default=lambda: False, kw_only=True)

    def encoded(self, transfer_syntax: str) -> Any:
        """As for :class:`~netdicom_tx.sopclass.Instance`.

        Raises:
            HeldBackError: Nothing more is to be sent.
        """
        if self.is_stopped():
            raise HeldBackError("not sent: interrupted")
        return Instance.encoded(self, transfer_syntax)

    @classmethod
    def in_file(cls, file: FoundFile, is_stopped: Callable[[], bool]) -> Sending:
        """Read the header of a file, as :meth:`Instance.of` does.

        Raises:
            DataSetError: The file is not a DICOM file, or has no UIDs.
            OSError: The file cannot be read.
        """
        found = Instance.of(file)
        return cls(
            found.sop_class_uid,
            found.sop_instance_uid,
            found.transfer_syntax,
            file,
            found.offset,
            is_stopped=is_stopped,
        )


def walk(paths: Iterable[str]) -> Iterator[str]:
    """The files among some paths, and all files below those that are directories.

    They come in the order of their names. Links to directories are not followed, and no more than one
    directory's names for each level are held in memory. A directory that cannot be read is returned as if it
    were a file.
    """
    for path in paths:
        if os.path.isdir(path):
            yield from _below(path)
        else:
            yield path


def _below(directory: str) -> Iterator[str]:
    # A tree may be deeper than Python lets generators call each other.
    left = [iter([(directory, True)])]
    while left:
        path, is_directory = next(left[-1], ("", False))
        if not path:
            left.pop()
        elif not is_directory:
            if os.path.isfile(path):
                yield path
        else:
            try:
                with os.scandir(path) as entries:
                    found = sorted(
                        (each.path, each.is_dir(follow_symlinks=False)) for each in entries
                    )
            except OSError:
                yield path
            else:
                left.append(iter(found))


def check_named(paths: Iterable[str], done: str = "sent") -> None:
    """Check that every path is a directory or a file with an instance.

    Args:
        done: What was to be done with the files, for the message.

    Raises:
        CommandError: A path is neither; nothing has been sent then.
    """
    for path in paths:
        try:
            if os.path.isdir(path):
                with os.scandir(path):
                    continue
            # A pipe would block for ever, and its content cannot be read twice.
            if not os.path.isfile(path) and os.path.exists(path):
                raise DataSetError("it is not a regular file, but a pipe, a socket or a device")
            Instance.of(path)
        except OSError as error:
            raise bad_input(
                f"{path} cannot be read",
                str(error.strerror),
                "check the path and its permissions; nothing was sent",
            ) from error
        except DataSetError as error:
            raise bad_input(
                f"{path} cannot be {done}",
                str(error),
                "name DICOM files (Part 10), or directories: other files in these are skipped; nothing "
                "was sent",
            ) from error


def is_storable(instance: Instance) -> bool:
    """Whether an instance is sent by C-STORE: a DICOMDIR is not."""
    return instance.sop_class_uid != _DICOMDIR


def is_dicom(path: str) -> bool:
    """Whether a file says that it is DICOM (PS3.10 7.1); False when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


class Journal:
    """Notes what a peer has acknowledged, in a file of JSON lines.

    The first line names the peer. Each other line names a file with its size and time, so that a file
    that has changed is sent again. A line is written when the peer has answered; a last line that was cut
    off by a crash is ignored.

    Args:
        path: The journal; it is created if it does not exist.
        peer: The peer, as ``AET@host:port``.

    Raises:
        CommandError: The file is not a journal, or is that of another peer.
    """

    def __init__(self, path: str, peer: str) -> None:
        self._path = path
        self._known: set[int] = set()
        try:
            self._file: IO[bytes] = Path(path).open("a+b")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise bad_input(
                f"the journal {path} cannot be written", str(error.strerror), "name another file"
            ) from error
        try:
            self._load(peer)
        except BaseException:
            self._file.close()
            raise

    def _load(self, peer: str) -> None:
        self._file.seek(0)
        first = self._file.readline()
        if not first:
            self._append({"journal": "netdicom store", "peer": peer})
            return
        head = _parse(first)
        if head is None or head.get("journal") != "netdicom store":
            raise bad_input(
                f"{self._path} is not a journal of netdicom store",
                "its first line does not say so",
                "name another file for --resume; this one was left as it is",
            )
        if head.get("peer") != peer:
            raise bad_input(
                f"the journal {self._path} belongs to another peer",
                f"it is for {head.get('peer')}, and this run is for {peer}",
                "use one journal for each peer",
            )
        line = first
        for line in self._file:
            entry = _parse(line)
            if entry is not None:
                self._known.add(_mark(entry.get("file"), entry.get("size"), entry.get("modified")))
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def has(self, file: FoundFile) -> bool:
        """Whether the peer has acknowledged this file as it is now."""
        return _mark(os.path.abspath(file.path), file.size, file.modified) in self._known

    def add(self, file: FoundFile, instance: Instance) -> None:
        """Note that the peer has acknowledged a file."""
        self._append(
            {
                "file": os.path.abspath(file.path),
                "size": file.size,
                "modified": file.modified,
                "sop_instance_uid": instance.sop_instance_uid,
            }
        )

    def _append(self, entry: dict[str, object]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _mark(path: object, size: object, modified: object) -> int:
    # A hash of 64 bits: a million entries fit in 50 MB, and a collision is too unlikely to matter.
    return hash((path, size, modified))
