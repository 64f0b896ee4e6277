"""Take instances out of an archive as files: in folders by a template, as a DICOM File-set, or in a ZIP file.

A file gets its name when all of it is on the disk. It contains the octets of the stored file, after a check of that
file. Names are made from values of the data set, so each part of a path is cleaned first; folders are opened one by one
without following links, and nothing is written outside the directory.

What was selected inside :func:`leased` stays on the disk until the end of its block.

All functions block.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import string
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Final, NamedTuple, Protocol

from pydicom import dcmread
from pydicom.datadict import keyword_dict
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.multival import MultiValue

from ..dsutils import decode
from ..encoding import FILE_HEADER_LIMIT, DataSetError, file_header_size
from ..folders import entered
from ..part10 import read_file_meta
from ..uids import EXPLICIT_VR_LITTLE_ENDIAN
from .index.entries import InstanceRef
from .index.index import Index
from .query.identifiers import InformationModel, QueryOptions
from .query.search import Search
from .store.checked import ChangedError, checked
from .store.filestore import FileStore
from .store.journal import sync_files

__all__ = [
    "LAYOUTS",
    "Directory",
    "Exported",
    "Layout",
    "LayoutError",
    "Selected",
    "Zip",
    "as_file_set",
    "export",
    "leased",
    "named",
    "select",
    "select_without_study",
]

#: Layouts that have a name.
LAYOUTS: Final[Mapping[str, str]] = {
    "uids": "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm",
    "patient": "{PatientID}/{StudyDate}_{StudyDescription}/{SeriesNumber}_{Modality}/{InstanceNumber:05}.dcm",
    "flat": "{SOPInstanceUID}.dcm",
}
# How many characters a part of a path has at most, so that a number can be added.
_PART: Final = 100
_UNKNOWN: Final = "unknown"
# What no file system of a common system takes in a name, or a shell reads in its own way.
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*^$`\'&;%!~#{}\[\]()\s]+')
_RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_PIECE: Final = 1 << 20
# How many files, and how many octets, are synced at a time.
_FILES: Final = 256
_OCTETS: Final = 1 << 26
# Transfer syntaxes below this one are compressed, and not made smaller once more (PS3.5 A.4).
_COMPRESSED: Final = "1.2.840.10008.1.2.4."


class LayoutError(ValueError):
    """A template for paths is wrong."""


class _Values(string.Formatter):
    """Fills in cleaned values; a width makes a number longer."""

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value = kwargs[str(key)].get(str(key))
        if value is None:
            return ""
        # A person's name can be iterated over, too.
        return "_".join(map(str, value)) if isinstance(value, MultiValue) else str(value)

    def format_field(self, value: Any, format_spec: str) -> Any:
        text = str(value)
        if format_spec and text.strip().lstrip("+-").isdecimal():
            text = format(int(text), format_spec)
        return _clean(text)


def _clean(text: str) -> str:
    """A value as a part of a path; empty when nothing is left."""
    # Characters that turn the direction of text round would show another suffix than the name has.
    shown = "".join(each for each in _FORBIDDEN.sub("_", text) if each.isprintable())
    return shown.strip("._- ")


class Layout:
    """A template for the paths of files, such as ``{PatientID}/{StudyDate}/{InstanceNumber:05}.dcm``.

    Args:
        template: A path with keywords of DICOM attributes in braces; a name of :data:`LAYOUTS` stands for one.

    Raises:
        LayoutError: The template is wrong.
    """

    def __init__(self, template: str) -> None:
        template = LAYOUTS.get(template, template)
        self._parts = template.split("/")
        suffix = re.search(r"\.[A-Za-z0-9]{1,10}$", template, re.ASCII)
        self._suffix = suffix[0] if suffix is not None else ""
        if not all(self._parts) or any(part in (".", "..") for part in self._parts):
            raise LayoutError(
                f"{template!r} is not a relative path of folders and a file; expected something like "
                f"{LAYOUTS['patient']}"
            )
        self.keywords: tuple[str, ...] = tuple(dict.fromkeys(self._read(template)))

    @staticmethod
    def _read(template: str) -> Iterator[str]:
        try:
            for _, name, width, conversion in string.Formatter().parse(template):
                if name is None:
                    continue
                if name not in keyword_dict or not name:
                    raise LayoutError(
                        f"{name!r} is not a DICOM keyword; expected one such as PatientID"
                    )
                if conversion or not re.fullmatch(r"(0\d{1,2})?", width or "", re.ASCII):
                    raise LayoutError(
                        f"{{{name}:{width}}} cannot be filled in; expected {{{name}}}, or {{{name}:05}} "
                        "for a number of five digits"
                    )
                yield name
        except LayoutError:
            raise
        except ValueError as error:
            raise LayoutError(f"the braces of {template!r} are wrong: {error}") from error

    def path(self, values: Dataset) -> PurePosixPath:
        """The path of an instance, below the directory."""
        by_keyword = dict.fromkeys(self.keywords, values)
        *folders, name = self._parts
        parts = [*folders, name.removesuffix(self._suffix)]
        made = [_part(_Values().vformat(part, (), by_keyword)) for part in parts]
        return PurePosixPath(*made[:-1], made[-1] + self._suffix)


def _part(text: str) -> str:
    """A part of a path: it is neither empty nor hidden, not too long, and no device of Windows."""
    # A template such as {StudyDate}_{StudyDescription} leaves its underscore where a value is empty.
    octets = (text.strip("._- ") or _UNKNOWN).encode("utf-8", "replace")[:_PART]
    part = octets.decode("utf-8", "ignore")
    return f"_{part}" if _RESERVED.fullmatch(part) else part


# -- what is exported ---------------------------------------------------------------------------------


class Selected(NamedTuple):
    """An instance that is to be exported.

    Attributes:
        values: The values of the attributes that were asked for.
    """

    ref: InstanceRef
    values: Dataset


@contextmanager
def leased(store: FileStore) -> Iterator[None]:
    """Keep files from being deleted while the block runs, once they were selected."""
    try:
        lease = store.leases.take()
    except FileNotFoundError:
        # A node that knew no deletion has made the directory, and none that deletes has run since.
        yield
        return
    try:
        yield
    finally:
        lease.release()


def select(index: Index, identifier: Dataset, keywords: Iterable[str] = ()) -> Iterator[Selected]:
    """Find the instances that match the keys of all levels.

    Args:
        identifier: The keys, as for a relational C-FIND at IMAGE level (PS3.4 C.4.1.3.2.1).
        keywords: The attributes whose values are needed.

    Raises:
        MatchingError: The keys cannot be matched.
        IndexUnavailableError: The database does not answer.
    """
    asked = Dataset()
    asked.update(identifier)
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel = "IMAGE"
    for keyword in ("SOPInstanceUID", *keywords):
        if keyword not in asked:
            setattr(asked, keyword, None)
    for answer in Search(index).find(
        asked,
        model=InformationModel.PATIENT_ROOT,
        options=QueryOptions(relational=True, multiple_value=True),
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        retrieve_ae_title="",
    ):
        values = decode(answer, EXPLICIT_VR_LITTLE_ENDIAN)
        ref = index.get(str(values.SOPInstanceUID))
        if ref is not None:
            yield Selected(ref, values)


def select_without_study(index: Index) -> Iterator[Selected]:
    """Find the instances that belong to no study; the values of their attributes count as empty.

    Raises:
        IndexUnavailableError: The database does not answer.
    """
    for uid in index.without_study():
        ref = index.get(uid)
        if ref is not None:
            values = Dataset()
            values.SOPInstanceUID = uid
            yield Selected(ref, values)


def named(
    selected: Iterable[Selected], layout: Layout
) -> Iterator[tuple[InstanceRef, PurePosixPath]]:
    """Give each instance its path in a layout."""
    return ((each.ref, layout.path(each.values)) for each in selected)


class Sink(Protocol):
    """Where files are written."""

    def put(self, path: PurePosixPath, source: BinaryIO, ref: InstanceRef) -> bool:
        """Write a file; returns False when the same file is there already."""

    def put_octets(self, path: PurePosixPath, octets: bytes) -> None:
        """Write a small file at the end."""

    def flush(self) -> None:
        """Give all files their names."""


@dataclass(slots=True)
class Exported:
    """What was exported.

    Attributes:
        stored: How many files were written.
        same: How many were there already.
        failed: The SOP Instance UIDs of instances that could not be read, each with the reason.
    """

    stored: int = 0
    same: int = 0
    octets: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def export(files: Iterable[tuple[InstanceRef, PurePosixPath]], sink: Sink) -> Iterator[Exported]:
    """Write files.

    Yields:
        What was exported so far, after each file; the same object every time.

    Raises:
        OSError: The disk that is written to is full, or has failed.
    """
    done = Exported()
    for ref, path in files:
        try:
            with checked(ref) as (source, _):
                source.seek(0)
                is_new = sink.put(path, source, ref)
        except (ChangedError, DataSetError) as error:
            done.failed.append((ref.sop_instance_uid, str(error)))
        except OSError as error:
            if error.filename is None or Path(os.fsdecode(error.filename)) != ref.path:
                raise
            done.failed.append((ref.sop_instance_uid, str(error.strerror)))
        else:
            done.stored += is_new
            done.same += not is_new
            done.octets += ref.size if is_new else 0
        yield done
    sink.flush()
    yield done


# -- directories --------------------------------------------------------------------------------------


class _Waiting(NamedTuple):
    """A file that is complete under its temporary name."""

    temporary: str
    path: PurePosixPath
    size: int


class Directory:
    """A directory that files are exported to; use it as a context manager.

    Args:
        root: The directory; it is created, with its parents, when it does not exist.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._count = itertools.count()
        self._waiting: list[_Waiting] = []
        self._octets = 0
        self._taken: set[PurePosixPath] = set()  # by files that wait

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._waiting:
            with suppress(OSError):
                os.unlink(each.temporary, dir_fd=self._root)
        os.close(self._root)

    def put(self, path: PurePosixPath, source: BinaryIO, ref: InstanceRef) -> bool:
        chosen = self._free(path, source)
        if chosen is None:
            return False
        source.seek(0)
        with self._new() as (temporary, file):
            shutil.copyfileobj(source, file, _PIECE)
            size = file.tell()
        self._wait(_Waiting(temporary, chosen, size))
        return True

    def put_octets(self, path: PurePosixPath, octets: bytes) -> None:
        self.flush()
        with self._new() as (temporary, file):
            file.write(octets)
        self._wait(_Waiting(temporary, path, len(octets)))
        self.flush()

    def _wait(self, each: _Waiting) -> None:
        self._waiting.append(each)
        self._taken.add(each.path)
        self._octets += each.size
        if len(self._waiting) >= _FILES or self._octets >= _OCTETS:
            self.flush()

    @contextmanager
    def _new(self) -> Iterator[tuple[str, IO[bytes]]]:
        """A new file with a temporary name, which is removed when the block fails."""
        temporary = f".netdicom-{os.getpid()}-{next(self._count)}.part"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o666, dir_fd=self._root)
        try:
            with open(descriptor, "wb") as file:
                yield temporary, file
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self._root)
            raise

    def flush(self) -> None:
        """Sync the files that wait, and give them their names."""
        waiting, self._waiting, self._octets = self._waiting, [], 0
        if not waiting:
            return
        sync_files(self._root, [str(self.root / each.temporary) for each in waiting])
        for number, each in enumerate(waiting):
            try:
                self._name(each)
            except BaseException:
                self._waiting = waiting[number:]
                raise
        self._taken.clear()
        sync_files(self._root, [str(self.root / each.path) for each in waiting])

    def _name(self, each: _Waiting) -> None:
        folder = entered(self._root, each.path.parent.parts)
        try:
            os.rename(each.temporary, each.path.name, src_dir_fd=self._root, dst_dir_fd=folder)
        finally:
            os.close(folder)

    def _free(self, path: PurePosixPath, source: BinaryIO) -> PurePosixPath | None:
        """A path that no other file has, like this one; None when the same file is there already."""
        for number in itertools.count(1):
            chosen = path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")
            if chosen in self._taken:
                continue
            folder = entered(self._root, path.parent.parts)
            try:
                here = os.open(
                    chosen.name,
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                    dir_fd=folder,
                )
            except FileNotFoundError:
                return chosen
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    raise
                continue
            finally:
                os.close(folder)
            with open(here, "rb") as file:
                if _is_same(file, source):
                    return None
        raise AssertionError("the numbers have no end")


def _is_same(here: IO[bytes], source: BinaryIO) -> bool:
    """Whether two files have the same octets."""
    source.seek(0)
    try:
        while True:
            piece = here.read(_PIECE)
            if piece != source.read(_PIECE):
                return False
            if not piece:
                return True
    except IsADirectoryError:
        return False


# -- ZIP files ----------------------------------------------------------------------------------------


class Zip:
    """A ZIP file that is written as a stream; use it as a context manager.

    It gets its name when it is complete. What is exported to ``-`` is written to a stream instead.

    Args:
        target: The path of the file, or a stream.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, target: Path | IO[bytes]) -> None:
        self._path = target if isinstance(target, Path) else None
        self._temporary: Path | None = None
        if isinstance(target, Path) and target.exists() and not target.is_file():
            # A pipe or a device is written to; a file of its name would take its place.
            self._file: IO[bytes] = target.open("wb")
        elif isinstance(target, Path):
            self._temporary = target.with_name(f".{target.name}-{os.getpid()}.part")
            self._file = self._temporary.open("xb")  # closed by __exit__
        else:
            self._file = target
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._taken: set[PurePosixPath] = set()

    def __enter__(self) -> Zip:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._zip.close()
                self._file.flush()
                if self._temporary is not None and self._path is not None:
                    os.fsync(self._file.fileno())
                    os.rename(self._temporary, self._path)
                    self._temporary = None
        finally:
            if self._path is not None:
                # After a failure there is no end to be written.
                self._zip.fp = None
                with contextlib.suppress(OSError):
                    self._file.close()
            if self._temporary is not None:
                with suppress(OSError):
                    self._temporary.unlink()

    def put(self, path: PurePosixPath, source: BinaryIO, ref: InstanceRef) -> bool:
        chosen = path
        for number in itertools.count(2):
            if chosen not in self._taken:
                break
            chosen = path.with_name(f"{path.stem}_{number}{path.suffix}")
        self._taken.add(chosen)
        info = zipfile.ZipInfo(str(chosen))
        info.external_attr = 0o644 << 16
        if not ref.transfer_syntax.startswith(_COMPRESSED):
            info.compress_type = zipfile.ZIP_DEFLATED
        with self._zip.open(info, "w", force_zip64=ref.size > 1 << 30) as file:
            shutil.copyfileobj(source, file, _PIECE)
        return True

    def put_octets(self, path: PurePosixPath, octets: bytes) -> None:
        self._zip.writestr(str(path), octets)

    def flush(self) -> None:
        """Nothing waits."""


# -- DICOM File-sets ----------------------------------------------------------------------------------

# Where the pixel data begins at the latest, in a file that has a header of its sender in front of the data set.
_BEFORE_PIXELS: Final = 1 << 24
# What a directory record must have (PS3.3 F.5), by the levels of what is often missing.
_REQUIRED: Final = {
    "PatientID": _UNKNOWN.upper(),
    "StudyDate": "19000101",
    "StudyTime": "000000",
    "StudyID": "0",
    "Modality": "OT",
    "SeriesNumber": "0",
    "InstanceNumber": "0",
}


def as_file_set(
    refs: Iterable[InstanceRef], name: str = "NETDICOM"
) -> tuple[list[tuple[InstanceRef, PurePosixPath]], bytes, list[tuple[str, str]]]:
    """Plan a DICOM File-set (PS3.10 8).

    pydicom makes the names and the DICOMDIR from the headers. The files are the stored ones, octet for octet.
    Attributes that a directory record must have, and that an instance lacks, are filled in: in the DICOMDIR only.

    Args:
        name: The File-set ID, at most 16 characters.

    Returns:
        The paths of the instances, the octets of the DICOMDIR, and the SOP Instance UIDs of those that it cannot
        describe, each with the reason.
    """
    by_uid: dict[str, InstanceRef] = {}
    failed: list[tuple[str, str]] = []
    with _file_set(name) as files, tempfile.TemporaryDirectory(prefix="netdicom-") as folder:
        for ref in refs:
            try:
                files.add(_header(ref))
            except Exception as error:  # whatever a file has in it, the others are exported
                failed.append((ref.sop_instance_uid, str(error) or type(error).__name__))
                # pydicom has added it before it writes its file, and would miss that file when it writes the set.
                files.remove([e for e in files if e.SOPInstanceUID == ref.sop_instance_uid])
            else:
                by_uid[ref.sop_instance_uid] = ref
        root = Path(folder) / "set"
        files.write(root)
        paths = [
            (by_uid[str(each.SOPInstanceUID)], PurePosixPath(Path(each.path).relative_to(root)))
            for each in files
        ]
        return paths, (root / "DICOMDIR").read_bytes(), failed


@contextmanager
def _file_set(name: str) -> Iterator[FileSet]:
    made = FileSet()
    made.ID = name
    try:
        yield made
    finally:
        # pydicom leaves its temporary directory to the garbage collector, which warns of it.
        made._stage["t"].cleanup()


def _header(ref: InstanceRef) -> Dataset:
    """The header of an instance, with all that a directory record needs."""
    with ref.path.open("rb") as file:
        offset = read_file_meta(file).offset
        # A sender's file header in front of the data set is kept, but pydicom does not read what is behind it.
        front = file_header_size(file.read(FILE_HEADER_LIMIT))
        if not front:
            source: Path | BinaryIO = ref.path
        else:
            file.seek(0)
            octets = file.read(offset)
            file.seek(offset + front)
            source = BytesIO(octets + file.read(_BEFORE_PIXELS))
    header: Dataset = dcmread(source, stop_before_pixels=True, defer_size=1 << 16)
    for tag in [each for each in header.keys() if each.group == 2]:  # noqa: SIM118 -- an iterator would read the values
        del header[tag]
    header.SOPInstanceUID = (
        ref.sop_instance_uid
    )  # of several, or a padded one, the index has the one that counts
    for keyword, value in _REQUIRED.items():
        if not header.get(keyword):
            setattr(header, keyword, value)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not header.get(keyword):
            raise ValueError(f"it has no {keyword}, which a DICOMDIR needs (PS3.3 F.5)")
    if "PatientName" not in header:
        header.PatientName = ""
    return header
