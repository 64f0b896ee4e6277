"""The objects of a shared store: files with a key, which several nodes write, read and delete.

:class:`Objects` is the interface to a shared store. :class:`DirectoryObjects` keeps objects in a directory that several
machines mount, and :class:`~netdicom_tx.archive.store.s3.S3Objects` in a bucket. An object is written as a whole or not
at all, and never changes: its key contains the digest of its octets, so two writers of one key write the same octets.

:class:`DirectoryObjects` follows these rules, which a directory on NFS needs:

- A file is written under a temporary name, synced and closed before it gets its name, so that no other client ever
  opens a part of it (close-to-open consistency). A rename is atomic on the server.
- No lock is taken. The database decides between two writers.
- A client may remember for a minute that a name did not exist. A name that is not found is therefore looked up again
  after its directory was read anew.
- A file that another client deletes while it is being read fails with ESTALE. Objects are therefore deleted some
  minutes after nobody finds them any more.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from ...exceptions import LocalProtocolError, NetDICOMError
from .disk import sync_folder, write_all

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "DirectoryObjects",
    "ObjectDamagedError",
    "ObjectMissingError",
    "ObjectStoreError",
    "Objects",
    "ObjectsUnusableError",
    "Stored",
    "check_url",
    "directory_of",
    "probe",
]

#: How many octets are read from an object at a time, at most.
PIECE: Final = 1 << 23
_INCOMING: Final = ".incoming"
# After how many seconds a file that has not become an object is deleted; a large instance may take hours to write.
_ABANDONED: Final = 2 * 86400.0
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class ObjectsUnusableError(NetDICOMError):
    """The object store cannot be used as it is configured."""


class ObjectStoreError(OSError):
    """The object store does not answer, or refuses. It may work again later."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EIO, text)

    def __str__(self) -> str:
        return str(self.strerror)


class ObjectMissingError(ObjectStoreError, FileNotFoundError):
    """The object store does not have an object."""

    def __init__(self, key: str, place: str) -> None:
        super().__init__(f"{place} has no object {key}")


class ObjectDamagedError(ObjectStoreError):
    """An object is not what was stored."""


class Stored(NamedTuple):
    """An object that a store has.

    Attributes:
        size: Its size in octets.
        modified: When it was written, in seconds since 1970 by the clock of the store.
    """

    key: str
    size: int
    modified: float


class Objects(Protocol):
    """A store of objects. Any thread may call the methods, which block, and raise :class:`ObjectStoreError`."""

    @property
    def place(self) -> str:
        """Where the objects are, for people to read; without secrets."""

    def open(self) -> None:
        """Begin to use the store.

        Raises:
            ObjectsUnusableError: It cannot be used as it is configured.
        """

    def close(self) -> None:
        """End the use of the store."""

    def put(self, key: str, pieces: Iterable[ReadableBuffer], size: int) -> None:
        """Write an object durably. When this returns, all nodes can read the whole object.

        Args:
            pieces: Its octets.
            size: How many octets these are.
        """

    def read(self, key: str, start: int, end: int) -> bytes:
        """The octets of an object from one offset up to another one, of at most :data:`PIECE`.

        Raises:
            ObjectMissingError: There is no such object.
            ObjectDamagedError: It is shorter.
        """

    def size(self, key: str) -> int:
        """The size of an object in octets.

        Raises:
            ObjectMissingError: There is no such object.
        """

    def modified(self, key: str) -> float:
        """When an object was put, in seconds since 1970 by the clock of the store.

        Raises:
            ObjectMissingError: There is no such object.
        """

    def delete(self, keys: Collection[str]) -> None:
        """Delete objects; one that does not exist is no error."""

    def list(self, prefix: str) -> Iterator[Stored]:
        """The objects whose keys begin with a prefix that ends with a slash, in the order of their keys."""

    def document(self, name: str) -> bytes | None:
        """A small file of the store itself; None when it does not exist."""

    def put_document(self, name: str, octets: bytes) -> bytes:
        """Write a small file of the store itself, unless it exists; returns what is there then."""


def check_url(url: str) -> str:
    """Check the URL of a shared store, without touching the store.

    Raises:
        LocalProtocolError: The URL is neither ``s3://bucket/prefix`` nor ``file:///directory``.
    """
    try:
        parts = urlsplit(url)
        is_bucket = parts.scheme == "s3" and parts.netloc
        is_directory = parts.scheme == "file" and parts.path.strip("/") and not parts.netloc
    except ValueError:
        is_bucket = is_directory = False
    if not (is_bucket or is_directory) or parts.query or parts.fragment or "@" in parts.netloc:
        raise LocalProtocolError(
            f"{url!r:.200} is not the URL of a shared store; expected s3://bucket/prefix or file:///mnt/shared"
        )
    return url


def directory_of(url: str) -> Path | None:
    """The directory of a URL that begins with ``file:``; None for another URL."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def probe(objects: Objects) -> None:
    """Write, read, list and delete a small object, to check an open store.

    Raises:
        ObjectStoreError: The store refuses something, or does not give back what was put.
    """
    key, octets = f"probe/{uuid.uuid4().hex}", uuid.uuid4().bytes
    objects.put(key, (octets,), len(octets))
    try:
        if objects.size(key) != len(octets) or objects.read(key, 4, 8) != octets[4:8]:
            raise ObjectStoreError(f"{objects.place} does not give back what was put there")
        if key not in [each.key for each in objects.list("probe/")]:
            raise ObjectStoreError(f"{objects.place} does not list what was put there")
    finally:
        objects.delete([key])
        if isinstance(objects, DirectoryObjects):
            objects.tidy("probe")


class DirectoryObjects:
    """Objects in a directory that several machines mount, for example by NFS; see the module.

    Args:
        root: The directory. It has to exist, because a mount that is missing must not look like an empty store.
        fsync: Whether files survive a power cut of the machine that has the disk.
    """

    def __init__(self, root: str | os.PathLike[str], *, fsync: bool = True) -> None:
        self.root = Path(root).absolute()
        self._is_synced = fsync
        self._made: set[Path] = set()
        # A document that existed: without it, the directory is not the one that was opened.
        self._document = ""
        self._guard = threading.Lock()

    @property
    def place(self) -> str:
        """The directory."""
        return str(self.root)

    def open(self) -> None:
        """Check that files can be written, and delete what killed nodes have left in the incoming folder."""
        try:
            if not self.root.is_dir():
                raise ObjectsUnusableError(
                    f"the shared directory {self.root} does not exist: mount it, or create it once"
                )
            incoming = self.root / _INCOMING
            # Nothing is created here: this may be the empty directory where the store is to be mounted.
            folder = incoming if incoming.is_dir() else self.root
            self._write(folder / f".probe-{uuid.uuid4().hex}", (b"probe",), None, 5)
            if folder is incoming:
                self._clean(incoming)
        except OSError as error:
            raise ObjectsUnusableError(
                f"the shared directory {self.root} cannot be used: {error.strerror}; give the node's user the right "
                "to write there"
            ) from error

    def close(self) -> None:
        """Forget which folders exist."""
        with self._guard:
            self._made.clear()

    def _check_mounted(self) -> None:
        """Check that the directory is the store, and not the empty directory where it was mounted.

        Raises:
            ObjectStoreError: It no longer has the document that it had, or the server of the mount has failed.
        """
        if not self._document:
            return
        try:
            is_there = (self.root / self._document).exists()
        except OSError as error:  # ESTALE, for example
            raise ObjectStoreError(
                f"the shared directory {self.root} refuses: {error.strerror}"
            ) from error
        if not is_there:
            with self._guard:
                self._made.clear()
            raise ObjectStoreError(
                f"the shared directory {self.root} has no {self._document} any more: mount the store there again"
            )

    def _clean(self, incoming: Path) -> None:
        """Delete files that other nodes have left long ago."""
        now = time.time()
        for each in incoming.iterdir():
            with suppress(FileNotFoundError):
                if now - each.stat().st_mtime > _ABANDONED:
                    each.unlink()

    def _path(self, key: str) -> Path:
        return self.root / key

    def put(self, key: str, pieces: Iterable[ReadableBuffer], size: int) -> None:
        """Write a temporary file, sync it, give it its name, and sync its folder."""
        path = self._path(key)
        try:
            self._check_mounted()
            self._make_folder(path.parent)
            incoming = self.root / _INCOMING
            self._make_folder(incoming)
            self._write(incoming / uuid.uuid4().hex, pieces, path, size)
        except OSError as error:
            raise self._translated(error, key) from error

    def _write(
        self, temporary: Path, pieces: Iterable[ReadableBuffer], path: Path | None, size: int
    ) -> None:
        """Write a file of a known size, and give it a name; without a name, delete it again."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        written = 0
        try:
            try:
                for piece in pieces:
                    written += write_all(descriptor, piece)
                if written != size:
                    raise ObjectStoreError(f"{path} has {written} octets instead of {size}")
                if self._is_synced:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if path is not None:
                self._check_mounted()
                os.rename(temporary, path)
                self._sync(path.parent)
            else:
                os.unlink(temporary)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _make_folder(self, folder: Path) -> None:
        if folder in self._made:
            return
        missing = [each for each in (folder, *folder.parents) if self.root in each.parents]
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            self._sync(each.parent)
        with self._guard:
            self._made.add(folder)

    def _sync(self, folder: Path) -> None:
        if self._is_synced:
            sync_folder(folder)

    def read(self, key: str, start: int, end: int) -> bytes:
        """Read a part of a file."""
        try:
            descriptor = self._open(key)
            try:
                octets = os.pread(descriptor, end - start, start)
                while len(octets) < end - start:
                    more = os.pread(descriptor, end - start - len(octets), start + len(octets))
                    if not more:
                        raise ObjectDamagedError(f"{key} ends before octet {end}")
                    octets += more
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._translated(error, key) from error
        return octets

    def size(self, key: str) -> int:
        """The size of a file."""
        return self._status(key).st_size

    def modified(self, key: str) -> float:
        """When a file was written."""
        return self._status(key).st_mtime

    def _status(self, key: str) -> os.stat_result:
        try:
            descriptor = self._open(key)
            try:
                return os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._translated(error, key) from error

    def _open(self, key: str) -> int:
        path = self._path(key)
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:
            # An NFS client may remember that the name did not exist, until it reads the directory again.
            if path.name not in os.listdir(path.parent):
                raise
            descriptor = os.open(path, _FLAGS)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObjectStoreError(f"{path} is not a regular file")
        return descriptor

    def delete(self, keys: Collection[str]) -> None:
        """Delete files, and sync their folders."""
        folders = set()
        try:
            self._check_mounted()
            for key in keys:
                path = self._path(key)
                with suppress(FileNotFoundError):
                    os.unlink(path)
                    folders.add(path.parent)
            for folder in sorted(folders):
                self._sync(folder)
        except OSError as error:
            raise self._translated(error, "") from error

    def tidy(self, folder: str) -> None:
        """Remove a folder if it is empty, and the incoming folder if no node has used the directory yet."""
        # A node that is about to write there makes the folder again.
        with suppress(OSError), self._guard:
            self._made.discard(self.root / folder)
            os.rmdir(self.root / folder)
            if {each.name for each in self.root.iterdir()} == {_INCOMING}:
                self._made.discard(self.root / _INCOMING)
                os.rmdir(self.root / _INCOMING)

    def list(self, prefix: str) -> Iterator[Stored]:
        """The files below a folder."""
        self._check_mounted()
        try:
            yield from self._listed(self.root / prefix, prefix)
        except FileNotFoundError:
            if not os.path.isdir(self.root):
                raise ObjectStoreError(f"the shared directory {self.root} is not there") from None
        except OSError as error:
            raise self._translated(error, prefix) from error

    def _listed(self, folder: Path, prefix: str) -> Iterator[Stored]:
        with os.scandir(folder) as entries:
            found = sorted(
                # As the keys of an object store sort, in which a folder is a part of the key.
                (f"{each.name}/" if each.is_dir(follow_symlinks=False) else each.name, each)
                for each in entries
            )
        for name, entry in found:
            if name.endswith("/"):
                yield from self._listed(folder / entry.name, f"{prefix}{name}")
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # deleted since the folder was read
                    status = entry.stat(follow_symlinks=False)
                    yield Stored(prefix + name, status.st_size, status.st_mtime)

    def document(self, name: str) -> bytes | None:
        """The content of a file."""
        try:
            octets = (self.root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._translated(error, name) from error
        self._document = self._document or name
        return octets

    def put_document(self, name: str, octets: bytes) -> bytes:
        """Write a file, unless it exists."""
        temporary = self.root / _INCOMING / uuid.uuid4().hex
        try:
            (self.root / _INCOMING).mkdir(mode=0o700, exist_ok=True)
            temporary.write_bytes(octets)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            try:
                # link() fails when the name exists, and is atomic on NFS, too.
                os.link(temporary, self.root / name)
            except FileExistsError:
                octets = (self.root / name).read_bytes()
            finally:
                temporary.unlink(missing_ok=True)
            self._sync(self.root)
        except OSError as error:
            raise self._translated(error, name) from error
        self._document = self._document or name
        return octets

    def _translated(self, error: OSError, key: str) -> OSError:
        """The error in the words of an object store."""
        if isinstance(error, ObjectStoreError):
            return error
        if isinstance(error, FileNotFoundError) and os.path.isdir(self.root):
            try:
                self._check_mounted()
            except ObjectStoreError as gone:
                return gone
            return ObjectMissingError(key, self.place)
        reason = error.strerror or error
        return ObjectStoreError(f"the shared directory {self.root} refuses: {reason}")
