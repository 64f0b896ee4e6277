"""Back up an archive, also while its node is running: its index, a list of its files, and the files themselves.

A backup is a directory::

    backup.json                 what the backup is, with the digests of the three files below; written last
    index.db                    the index and all other tables, a consistent copy of the SQLite database
    identity.json               which database and store belong together
    files.jsonl                 a line for each file: path, size, SHA-256 and SOP Instance UID
    instances/3f/3fa9….dcm      the files, if they are part of the backup, as copies or as second names
    versions/3f/3fa9…-1b07….dcm likewise

A later backup into the same directory adds what is new, and removes what is no longer in the archive. A file that is
replaced in the archive gets another inode there, so a second name keeps what it had.

What was acknowledged before :func:`back_up` is called is in the backup. The node first puts instances into its journal,
so the journal is read before the index is copied, and what is in it is waited for.

With a store that nodes share, the files are objects. The database of a group is not copied; a backup of it that was
made before this one has no row whose object is missing here, unless it was deleted meanwhile.

All functions block.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa

from ..encoding import DataSetError
from ..exceptions import NetDICOMError
from ..part10 import read_file_meta
from .exporting import leased
from .group.identity import DOCUMENT, Document, read_document, write_document
from .index.entries import Entry
from .index.index import Index, IndexUnavailableError
from .index.record import digest_of_file, record_of
from .store.deletion import open_archive
from .store.filestore import FileStore, InUseError
from .store.journal import sync_files
from .store.objects import PIECE
from .store.place import place_of
from .store.sharedstore import SharedStore

__all__ = ["BackedUp", "BackupError", "Fault", "back_up", "check"]

_FORMAT: Final = 1
_MANIFEST, _INDEX, _LIST = "backup.json", "index.db", "files.jsonl"
_PIECE: Final = 1 << 20
# How many files, and how many octets, are synced at a time.
_FILES: Final = 256
_OCTETS: Final = 1 << 26
# For how many seconds a running node may take to make files and rows of what it has acknowledged.
_PATIENCE: Final = 30.0
_LOOK: Final = 0.05
# How often a journal is read whose segments vanish meanwhile.
_ATTEMPTS: Final = 5


class BackupError(NetDICOMError):
    """A backup cannot be made, or a directory is not a backup."""


@dataclass(slots=True)
class BackedUp:
    """What a backup has done so far.

    Attributes:
        files: How many files the archive has.
        octets: Their size.
        added: How many of them were copied, or got a second name, now.
        removed: How many were removed from the backup, because the archive does not have them any more.
        damaged: Files that are not what the index says, each with the reason. They are not in the backup.
        has_index: Whether the database was copied.
        has_files: Whether the backup has the files, and does not only list them.
    """

    files: int = 0
    octets: int = 0
    added: int = 0
    removed: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)
    has_index: bool = False
    has_files: bool = False


class Fault(NamedTuple):
    """A file of a backup that is missing or wrong."""

    path: str
    reason: str


class _File(NamedTuple):
    """A line of the list."""

    path: str
    size: int
    sha256: str
    sop_instance_uid: str

    def line(self) -> str:
        return json.dumps(self._asdict()) + "\n"

    @property
    def mark(self) -> int:
        # 64 bits: a million of them fit in 50 MB, and a collision is too unlikely to matter.
        return hash((self.path, self.size, self.sha256))


def _files_of(list_file: Path) -> Iterator[_File]:
    with list_file.open(encoding="utf-8") as lines:
        for line in lines:
            yield _File(**json.loads(line))


# -- making one ---------------------------------------------------------------------------------------


def back_up(
    store: FileStore,
    index: Index,
    target: Path,
    *,
    files: str = "",
    step: Callable[[BackedUp, int], object] = lambda *_: None,
    added: Callable[[Index, list[str]], object] = lambda *_: None,
) -> BackedUp:
    """Make a backup, or bring one up to date.

    Args:
        store: The store. When no node is running on it, what a crash has left in its journal becomes files first.
        index: Its index; it is not open, and is closed afterwards.
        target: The directory of the backup; it is created if it does not exist.
        files: ``"link"`` gives the files second names in the backup, ``"copy"`` copies them; with an empty string they
            are only listed, unless an earlier backup has them.
        step: Called with what was done, and with the number of all files, for each file; what it raises ends the work.
        added: Called with an index and the SOP Instance UIDs of instances whose files the backup has now and did not
            have before; for each group of files.

    Raises:
        BackupError: The directory is not that of a backup; or the node does not finish what it has acknowledged.
        IndexUnavailableError: The database does not answer.
        IndexUnusableError: The index cannot be used.
        StorageError: The storage directory cannot be used.
        OSError: A disk is full, or has failed.
    """
    if files == "link" and isinstance(store, SharedStore):
        raise BackupError(
            f"objects of {store.objects.place} cannot have second names: copy them, with --files copy"
        )
    former = _prepare(target)
    acknowledged = _acknowledged(store)
    if isinstance(store, SharedStore):
        store.bind(index)
    try:
        open_archive(store, index)
        store.close()
        is_running = False
    except InUseError:
        index.open()
        is_running = True
    making = _MakingOfObjects if isinstance(store, SharedStore) else _Making
    try:
        if isinstance(store, SharedStore):
            store.reach()
        with leased(store):
            if is_running:
                _wait_for(index, store, acknowledged)
            return making(store, index, target, files or former, step, added).run(acknowledged)
    finally:
        index.close()
        store.close()


def _prepare(target: Path) -> str:
    """Make the directory of a backup, or recognize it; returns how an earlier backup has the files."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = set(os.listdir(target))
    if there and not there & {_MANIFEST, f"{_INDEX}.part", f"{_LIST}.part"}:
        raise BackupError(
            f"{target} is not the directory of a backup: it has {sorted(there)[0]} in it; name an empty directory, or "
            "one of an earlier backup"
        )
    if (target / "lock").exists():
        raise BackupError(f"{target} is a storage directory; name another one for the backup")
    manifest = _manifest(target)
    return "" if manifest is None else str(manifest["files"])


def _acknowledged(store: FileStore) -> set[str]:
    """The SOP Instance UIDs of what is in the journals of a running node."""
    folder = store.root / "journal"
    if not folder.is_dir():
        return set()
    workers = [int(each.name) for each in folder.iterdir() if each.name.isdecimal()]
    found: set[str] = set()
    for journal in (store.journal, *map(store.journal_of, workers)):
        # A segment that is gone was emptied before: all that was in it are files and rows.
        for _attempt in range(_ATTEMPTS):
            with suppress(FileNotFoundError):
                for octets, _ in journal.recover():
                    with suppress(DataSetError):
                        found.add(read_file_meta(io.BytesIO(octets)).sop_instance_uid)
                break
    return found


def _wait_for(index: Index, store: FileStore, acknowledged: set[str]) -> None:
    """Wait until what is in the journal are files and rows.

    A record that has been a file and a row for long, and was deleted since then, is not there, and never will be; the
    journal forgets what is deleted, so this ends.
    """
    left = acknowledged
    deadline = time.monotonic() + _PATIENCE
    while left := left - index.known(sorted(left)):
        if time.monotonic() > deadline:
            if all(store.path(each).exists() for each in left):
                return  # the index refuses their rows, and the log of the node has said so
            if not left & _acknowledged(store):
                return
            raise BackupError(
                f"{len(left)} instances that the node has acknowledged are not in its index after "
                f"{_PATIENCE:.0f} s; look in the log of the node: its disk or its database refuses"
            )
        time.sleep(_LOOK)


class _Making:
    """One backup while it is being made."""

    def __init__(
        self,
        store: FileStore,
        index: Index,
        target: Path,
        files: str,
        step: Callable[[BackedUp, int], object],
        added: Callable[[Index, list[str]], object],
    ) -> None:
        self._store = store
        self._index = index
        self._target = target
        self._mode = files
        self._step = step
        self._added = added
        self._done = BackedUp(has_files=bool(files))
        self._root = -1

    def run(self, acknowledged: set[str]) -> BackedUp:
        self._root = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            copied = self._copy_database()
            before = self._before()
            if copied is None:
                self._list(self._index, before, acknowledged)
            else:
                snapshot = Index(f"sqlite:///{copied}", root=self._store.root)
                snapshot.files = self._index.files
                with snapshot:
                    self._list(snapshot, before, acknowledged)
                self._done.has_index = True
            self._finish(copied)
            self._remove_others()
            return self._done
        finally:
            os.close(self._root)

    def _copy_database(self) -> Path | None:
        """Copy the SQLite database as it is at one moment; None for another kind of database."""
        path = self._index.file
        if path is None:
            return None
        target = self._target / f"{_INDEX}.part"
        for leftover in (target, *self._target.glob(f"{_INDEX}.part-*")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
                source.backup(copy)
        except sqlite3.Error as error:
            raise IndexUnavailableError(f"the index cannot be copied: {error}") from error
        return target

    def _before(self) -> set[int]:
        """What an earlier backup has as files; or, if this one only lists them, has on its list."""
        manifest = _manifest(self._target)
        if manifest is None or (self._mode and not manifest.get("files")):
            return set()
        return {each.mark for each in _files_of(self._target / _LIST)}

    def _list(self, snapshot: Index, before: set[int], acknowledged: set[str]) -> None:
        """List all files, and take those that the backup does not have."""
        total = snapshot.counts().instances
        known = snapshot.known(sorted(acknowledged))
        without_row = sorted(acknowledged - known)
        with (self._target / f"{_LIST}.part").open("w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), 0o600)
            group: list[_File] = []
            octets = 0
            for entry in self._entries(snapshot, without_row):
                group.append(entry)
                octets += entry.size
                if len(group) >= _FILES or octets >= _OCTETS:
                    self._take(snapshot, group, before, out, total)
                    group, octets = [], 0
            self._take(snapshot, group, before, out, total)
            out.flush()
            os.fsync(out.fileno())

    def _entries(self, snapshot: Index, without_row: Iterable[str]) -> Iterator[_File]:
        for entry in snapshot.entries():
            yield self._listed(entry)
        for uid in without_row:
            path = self._store.path(uid)
            with suppress(DataSetError, FileNotFoundError, ValueError):
                snapshot.add(record := record_of(path)).result()
                yield self._file(path, record.size, record.digest, uid)
        for path in sorted(self._store.aside.glob("*/*.dcm")):
            with suppress(FileNotFoundError):
                yield self._file(path, path.stat().st_size, digest_of_file(path), "")

    def _listed(self, entry: Entry) -> _File:
        return self._file(entry.path, entry.size, entry.digest, entry.sop_instance_uid)

    def _file(self, path: Path, size: int, digest: str, uid: str) -> _File:
        relative = str(path.relative_to(self._store.root))
        return _File(relative, size, digest.removeprefix("sha256:"), uid)

    def _take(
        self, snapshot: Index, group: list[_File], before: set[int], out: io.TextIOBase, total: int
    ) -> None:
        """Take a group of files into the backup, sync them, and write their lines."""
        live = self._index.digests([each.sop_instance_uid for each in group])
        named: list[tuple[str, str]] = []
        new: list[str] = []
        for each in group:
            try:
                file = self._fresh(snapshot, each, live.get(each.sop_instance_uid, ""))
                is_new = not (file.mark in before and (not self._mode or self._has(file)))
                if self._mode and is_new:
                    named.append(self._bring(file))
                    self._done.added += 1
            except (DataSetError, ValueError, FileNotFoundError) as error:
                if isinstance(error, FileNotFoundError) and self._is_gone(snapshot, each):
                    continue
                self._done.damaged.append((each.path, str(error) or type(error).__name__))
            else:
                if is_new and file.sop_instance_uid:
                    new.append(file.sop_instance_uid)
                out.write(file.line())
                self._done.files += 1
                self._done.octets += file.size
            self._step(self._done, total)
        if named:
            sync_files(self._root, [temporary for temporary, _ in named])
            for temporary, path in named:
                os.rename(temporary, path)
                with suppress(FileNotFoundError):
                    os.unlink(temporary)  # two names of one file: to rename one does nothing
            sync_files(self._root, [path for _, path in named])
        if new:
            # The list and the copy of the index say who the patients are, too.
            self._added(snapshot, new)

    def _fresh(self, snapshot: Index, file: _File, live: str) -> _File:
        """A file as it is now, when it has no digest yet, or other content since the index was copied."""
        digest = live.removeprefix("sha256:")
        if file.sop_instance_uid and (not file.sha256 or (digest and digest != file.sha256)):
            return self._read_again(snapshot, file)
        return file

    def _read_again(self, snapshot: Index, file: _File) -> _File:
        path = self._store.root / file.path
        record = record_of(path)
        snapshot.add(record).result()
        return self._file(path, record.size, record.digest, file.sop_instance_uid)

    def _is_gone(self, snapshot: Index, file: _File) -> bool:
        """Whether a file is missing because its instance was deleted or replaced since its row was read."""
        return False  # no file is deleted meanwhile: the backup has a lease

    def _document(self) -> Document | None:
        """Which database and store belong together."""
        return read_document(self._store.root)

    def _has(self, file: _File) -> bool:
        try:
            return (self._target / file.path).stat().st_size == file.size
        except FileNotFoundError:
            return False

    def _bring(self, file: _File) -> tuple[str, str]:
        """Bring a file into the backup under a temporary name; returns that, and its path."""
        target = self._target / file.path
        for folder in (target.parent.parent, target.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        temporary = str(target.with_name(f".{target.name}.part"))
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        self._check_size(file)
        if self._mode == "link":
            try:
                os.link(self._store.root / file.path, temporary)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise BackupError(
                        f"{self._target} is on another file system, so its files cannot be second names: "
                        "copy them, with --files copy"
                    ) from error
                raise
        else:
            self._copy(temporary, file)
        return temporary, str(target)

    def _check_size(self, file: _File) -> None:
        found = (self._store.root / file.path).stat().st_size
        if found != file.size:
            raise ValueError(f"it has {found} octets; {file.size} were stored")

    def _pieces(self, file: _File) -> Iterator[bytes]:
        with (self._store.root / file.path).open("rb", buffering=0) as original:
            while piece := original.read(_PIECE):
                yield piece

    def _copy(self, temporary: str, file: _File) -> None:
        digest = hashlib.sha256()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as copy:
            for piece in self._pieces(file):
                digest.update(piece)
                left = memoryview(piece)
                while left:
                    left = left[copy.write(left) :]
        if digest.hexdigest() != file.sha256:
            os.unlink(temporary)
            raise ValueError("it is not what was stored")

    def _finish(self, copied: Path | None) -> None:
        """Give the list, the index and the manifest their names, in this order."""
        manifest: dict[str, Any] = {
            "format": _FORMAT,
            "created": time.time(),
            "storage": str(self._store.root),
            "database": sa.make_url(self._index.url).get_backend_name(),
            "files": self._mode,
            "count": self._done.files,
            "octets": self._done.octets,
        }
        # A node refuses a directory that does not have it beside a database that does.
        document = self._document()
        if document is not None:
            write_document(self._target, document)
            manifest[DOCUMENT] = digest_of_file(self._target / DOCUMENT).removeprefix("sha256:")
        for name, path in (
            (_LIST, self._target / f"{_LIST}.part"),
            (_INDEX, copied),
        ):
            if path is not None:
                manifest[name] = digest_of_file(path).removeprefix("sha256:")
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(path, self._target / name)
        temporary = self._target / f"{_MANIFEST}.part"
        with temporary.open("w", encoding="utf-8") as out:
            json.dump(manifest, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, self._target / _MANIFEST)
        os.fsync(self._root)

    def _remove_others(self) -> None:
        """Remove the files that are not on the list: their instances were deleted, or replaced."""
        folders = [self._target / each for each in ("instances", "versions")]
        if not any(each.is_dir() for each in folders):
            return
        listed = (
            {hash(each.path) for each in _files_of(self._target / _LIST)} if self._mode else set()
        )
        for folder in folders:
            for path in sorted(folder.glob("*/*")):
                if hash(str(path.relative_to(self._target))) not in listed:
                    path.unlink()
                    self._done.removed += 1


class _MakingOfObjects(_Making):
    """The same for a store that nodes share: what it has as files can be a shared directory."""

    _store: SharedStore

    def run(self, acknowledged: set[str]) -> BackedUp:
        self._brought: dict[str, Future[tuple[str, str]]] = {}
        with ThreadPoolExecutor(self._store.parallel, "netdicom-backup") as pool:
            self._pool = pool
            try:
                return super().run(acknowledged)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _entries(self, snapshot: Index, without_row: Iterable[str]) -> Iterator[_File]:
        # What has no row by now has no object either, and stays in the journal of the node.
        for entry in snapshot.entries():
            yield self._listed(entry)
        for each in self._store.versions():
            with suppress(FileNotFoundError), self._store.version(each) as file:
                digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
                yield _File(str(each.path), each.size, digest, "")

    def _file(self, path: Path, size: int, digest: str, uid: str) -> _File:
        return _File(str(path), size, digest.removeprefix("sha256:"), uid)

    def _take(
        self, snapshot: Index, group: list[_File], before: set[int], out: io.TextIOBase, total: int
    ) -> None:
        if self._mode:
            for each in group:
                if each.sha256 and not (each.mark in before and self._has(each)):
                    self._brought[each.path] = self._pool.submit(super()._bring, each)
        super()._take(snapshot, group, before, out, total)
        self._brought.clear()

    def _read_again(self, snapshot: Index, file: _File) -> _File:
        if file.sha256:
            return file  # it was replaced since then, and its object is still there
        digest = self._store.digest(Path(file.path), file.size, lambda: None)
        snapshot.set_digest(file.sop_instance_uid, digest).result()
        return file._replace(sha256=digest.removeprefix("sha256:"))

    def _is_gone(self, snapshot: Index, file: _File) -> bool:
        if not file.sop_instance_uid:
            return True
        entry = self._index.entry(file.sop_instance_uid)
        if entry is not None and str(entry.path) == file.path:
            return False
        if snapshot is not self._index:
            snapshot.remove(file.sop_instance_uid).result()
        return True

    def _document(self) -> Document | None:
        return place_of(self._store).identity()

    def _bring(self, file: _File) -> tuple[str, str]:
        brought = self._brought.get(file.path)
        return super()._bring(file) if brought is None else brought.result()

    def _check_size(self, file: _File) -> None:
        found = self._store.objects.size(file.path)
        if found != file.size:
            raise ValueError(f"it has {found} octets; {file.size} were stored")

    def _pieces(self, file: _File) -> Iterator[bytes]:
        for start in range(0, file.size, PIECE):
            yield self._store.objects.read(file.path, start, min(file.size, start + PIECE))


def _manifest(target: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((target / _MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BackupError(f"{target / _MANIFEST} cannot be read: {error}") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise BackupError(f"{target / _MANIFEST} is not that of a backup of this version")
    return found


# -- checking one -------------------------------------------------------------------------------------


def check(target: Path, step: Callable[[int, int], object] = lambda *_: None) -> Iterator[Fault]:
    """Read a whole backup, and compare it with its digests.

    Args:
        step: Called after each file with its number and with that of all files.

    Raises:
        BackupError: The directory is not a backup, or the backup was not completed.
        OSError: It cannot be read.
    """
    manifest = _manifest(target)
    if manifest is None:
        raise BackupError(f"{target} is not a complete backup: it has no {_MANIFEST}")
    if _INDEX in manifest:
        yield from _faults(target, _INDEX, None, manifest[_INDEX])
        yield from _faults_of_database(target / _INDEX)
    if DOCUMENT in manifest:
        yield from _faults(target, DOCUMENT, None, manifest[DOCUMENT])
    faults = list(_faults(target, _LIST, None, manifest[_LIST]))
    yield from faults
    if faults or not manifest["files"]:
        return
    for number, file in enumerate(_files_of(target / _LIST), 1):
        yield from _faults(target, file.path, file.size, file.sha256)
        step(number, manifest["count"])


def _faults(target: Path, name: str, size: int | None, sha256: str) -> Iterator[Fault]:
    path = target / name
    try:
        found = path.lstat().st_size
        if size is not None and found != size:
            yield Fault(name, f"it has {found} octets; {size} were backed up")
        elif digest_of_file(path) != f"sha256:{sha256}":
            yield Fault(name, "it is not what was backed up")
    except FileNotFoundError:
        yield Fault(name, "it is missing")
    except ValueError as error:
        yield Fault(name, str(error))


def _faults_of_database(path: Path) -> Iterator[Fault]:
    try:
        # Opened so, SQLite makes no file beside it.
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as database:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        yield Fault(path.name, said)
