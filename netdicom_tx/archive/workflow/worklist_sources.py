"""The sources of the worklist of an archive: a directory of files, and a table that steps are imported into.

================================  ==================================================================
:class:`WorklistDirectory`        ``*.wl`` files as ``wlmscpfs`` has them, in the directory or one below it
:class:`SharedWorklistDirectory`  the same, read by one of several nodes for all of them
:class:`WorklistTable`            rows of the archive's database
:func:`read_json`                 data sets in the DICOM JSON model (PS3.18 Annex F), for the table
:func:`read_csv`                  a line for each step, columns named by keyword, for the table
================================  ==================================================================
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from ... import dsutils
from ...exceptions import NetDICOMError
from ...logs import Logger, Trouble
from ...uids import (
    DEFLATED_TRANSFER_SYNTAXES,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from ..encoded.elements import CANONICAL
from ..encoded.values import NUMBERS, codecs_of, text_of
from ..encoded.walk import INFLATED_LIMIT, InvalidDataSetError, elements
from ..index.database import Database
from ..index.schema import big_integer, metadata
from .worklist import IWorklistSource, StepKey, WorklistItem

__all__ = [
    "SharedWorklistDirectory",
    "WorklistDirectory",
    "WorklistImportError",
    "WorklistTable",
    "read_csv",
    "read_item",
    "read_json",
    "worklist_file",
    "worklist_item",
]

#: How many octets a file may have; a real one has about 2000.
FILE_LIMIT: Final = 1 << 20
#: Seconds between two looks into a directory that is read for other nodes, too.
LOOK_EVERY: Final = 2.0

InThread = Callable[..., defer.Deferred[Any]]


class WorklistImportError(NetDICOMError):
    """A text cannot be imported; the message names the place."""


# -- files --------------------------------------------------------------------------------------------


def read_item(data: bytes) -> list[WorklistItem]:
    """Read the steps of a file, which is a Part 10 file or a data set alone.

    Raises:
        InvalidDataSetError: The file is neither, or has no Scheduled Procedure Step.
        DataSetError: The data set is deflated and damaged.
    """
    if data[128:132] == b"DICM":
        offset, transfer_syntax = _file_meta(data)
        if transfer_syntax in DEFLATED_TRANSFER_SYNTAXES:
            data, offset = dsutils.inflate(data[offset:], INFLATED_LIMIT), 0
        return WorklistItem.read(data, transfer_syntax, offset)
    return WorklistItem.read(data, _guessed(data))


def _file_meta(data: bytes) -> tuple[int, str]:
    """The offset of the data set and its transfer syntax. A header without the other mandatory elements will do."""
    offset, transfer_syntax = 132, EXPLICIT_VR_LITTLE_ENDIAN
    while data[offset : offset + 2] == b"\2\0":
        each = next(elements(data, CANONICAL, offset, len(data)))
        if each.tag == 0x00020010:
            transfer_syntax = text_of("UI", data[each.start : each.end], codecs_of(()))
        offset = each.behind
    return offset, transfer_syntax


def _guessed(data: bytes) -> str:
    """Guess the transfer syntax of a data set without a header from its first element."""
    if data[:1] == b"\0":
        return EXPLICIT_VR_BIG_ENDIAN
    return EXPLICIT_VR_LITTLE_ENDIAN if data[4:6].isalpha() else IMPLICIT_VR_LITTLE_ENDIAN


@implementer(IWorklistSource)
class WorklistDirectory:
    """The ``*.wl`` files in a directory and in its subdirectories, of which ``wlmscpfs`` has one for each AE.

    The directory is listed for each query, and only files that are new or have changed are read. A file that cannot be
    read is left out, and logged once.

    Args:
        path: The directory.
        in_thread: Runs a blocking call off the reactor thread.
    """

    _log = Logger()

    def __init__(self, path: str | os.PathLike[str], in_thread: InThread) -> None:
        self.path = Path(path)
        self._in_thread = in_thread
        self._reading = threading.Lock()
        # The result of stat and the steps of each file, by its path.
        self._known: dict[Path, tuple[str, list[WorklistItem]]] = {}

    def items(self, identifier: Dataset) -> defer.Deferred[list[WorklistItem]]:
        """Return all steps, whatever the identifier is."""
        return self._in_thread(self.read)

    def read(self) -> list[WorklistItem]:
        """Return all steps; blocks.

        Raises:
            OSError: The directory cannot be read.
        """
        with self._reading:
            known, self._known = self._known, {}
            for path in self._paths():
                try:
                    stamp = _stamp(path)
                    found = known.get(path)
                    if found is None or found[0] != stamp:
                        found = (stamp, self._read_one(path))
                    self._known[path] = found
                except OSError as error:
                    # The file was removed after it was listed, or this process may not read it.
                    self._log.debug("{path}: {error}", path=path, error=error)
            return [item for _, items in self._known.values() for item in items]

    def stamps(self) -> dict[Path, str]:
        """What changes whenever a file does, for each file; blocks.

        Raises:
            OSError: The directory cannot be read.
        """
        found = {}
        for path in self._paths():
            try:
                found[path] = _stamp(path)
            except OSError as error:
                self._log.debug("{path}: {error}", path=path, error=error)
        return found

    def _paths(self) -> Iterator[Path]:
        folders = []
        for entry in sorted(os.scandir(self.path), key=lambda entry: entry.name):
            if entry.name.endswith(".wl") and entry.is_file():
                yield Path(entry.path)
            elif entry.is_dir():
                folders.append(Path(entry.path))
        for folder in folders:
            yield from sorted(folder.glob("*.wl"))

    def _read_one(self, path: Path) -> list[WorklistItem]:
        return self.parsed(path, _octets(path))

    def parsed(self, path: Path, data: bytes) -> list[WorklistItem]:
        """The steps in the octets of a file; none, and a line in the log, when it is not a worklist item."""
        try:
            if len(data) > FILE_LIMIT:
                raise InvalidDataSetError(f"more than {FILE_LIMIT} octets")
            return read_item(data)
        except (InvalidDataSetError, dsutils.DataSetError) as error:
            self._log.error("{path} is not a worklist item: {error}", path=path, error=error)
            return []


def _stamp(path: Path) -> str:
    """What changes whenever somebody writes to a file, or puts another one in its place."""
    about = path.stat()
    return f"{about.st_mtime_ns} {about.st_size} {about.st_ino}"


def _octets(path: Path) -> bytes:
    """The octets of a file, as far as it may be long."""
    with path.open("rb") as file:
        return file.read(FILE_LIMIT + 1)


# -- files that one node reads for all ----------------------------------------------------------------

worklist_file = sa.Table(
    "worklist_file",
    metadata,
    # Below the directory.
    sa.Column("path", sa.Text, primary_key=True),
    # What the node that has read it knows it by: modification time, size and inode.
    sa.Column("stamp", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
_F = worklist_file.c


@implementer(IWorklistSource)
class SharedWorklistDirectory:
    """The ``*.wl`` files of a directory that one node reads for all nodes that share a database.

    The node that has the duty looks into the directory every two seconds, and for each query that it is asked, and
    keeps the files as rows. Every node answers from the rows. When the directory cannot be read, the rows stay.

    Args:
        path: The directory; None on a node that has none, which answers all the same.
        database: The database of the archive.
        in_thread: Runs a blocking call off the reactor thread.
        holds: Whether this node is the one to look into the directory now.
    """

    _log = Logger()

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        database: Database,
        in_thread: InThread,
        holds: Callable[[], bool],
    ) -> None:
        self._directory = None if path is None else WorklistDirectory(path, in_thread)
        self._database = database
        self._in_thread = in_thread
        self._holds = holds
        self._looking = threading.Lock()
        self._reading = threading.Lock()
        self._trouble = Trouble(self._log)
        self._clock: IReactorTime | None = None  # while it is started
        self._next: IDelayedCall | None = None
        # The steps of each row, by its path, with its octets.
        self._known: dict[str, tuple[bytes, list[WorklistItem]]] = {}

    def start(self, clock: IReactorTime) -> None:
        """Look into the directory from now on, whenever this node has the duty."""
        if self._directory is not None:
            self._clock = clock
            self._again()

    def stop(self) -> None:
        """Look into the directory no more."""
        self._clock = None
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _again(self, _: object = None) -> None:
        if self._clock is not None:
            self._next = self._clock.callLater(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._in_thread(self.look).addBoth(self._again)

    def items(self, identifier: Dataset) -> defer.Deferred[list[WorklistItem]]:
        """Return all steps, whatever the identifier is."""
        return self._in_thread(self.read)

    def read(self) -> list[WorklistItem]:
        """Return all steps; blocks."""
        self.look()
        statement = sa.select(_F.path, _F.data).order_by(_F.path)
        with self._reading, self._database.reading() as connection:
            known, self._known = self._known, {}
            for path, data in connection.execute(statement):
                found = known.get(path)
                if found is None or found[0] != data:
                    found = (data, _quietly_read(data))
                self._known[path] = found
            return [item for _, items in self._known.values() for item in items]

    def look(self) -> None:
        """Make the rows agree with the files if this node has the duty; blocks. What fails is logged."""
        if self._directory is None or not self._holds():
            return
        with self._looking:
            try:
                self._agree(self._directory)
            except Exception as error:  # of the directory or the database; the rows are answered
                self._trouble.met(
                    type(error),
                    "the worklist directory {path} cannot be read for the other nodes: {error}; what is known of it "
                    "is answered, and the node tries again every {seconds:g} s",
                    path=self._directory.path,
                    error=error,
                    seconds=LOOK_EVERY,
                )
            else:
                self._trouble.over("the worklist directory can be read for the other nodes again")

    def _agree(self, directory: WorklistDirectory) -> None:
        with self._database.reading() as connection:
            found = connection.execute(sa.select(_F.path, _F.stamp))
            rows = {row.path: row.stamp for row in found}
        names: set[str] = set()
        changed: dict[str, tuple[str, bytes]] = {}
        for path, stamp in directory.stamps().items():
            name = _name(path.relative_to(directory.path))
            names.add(name)
            if rows.get(name) != stamp:
                try:
                    data = _octets(path)
                except OSError as error:
                    self._log.debug("{path}: {error}", path=path, error=error)
                    continue
                # What is not a worklist item is kept as well, so that it is read and logged once.
                data = data if directory.parsed(path, data) else b""
                changed[name] = stamp, data
        gone = rows.keys() - names
        if not changed and not gone:
            return

        def call(connection: sa.Connection) -> None:
            for path in sorted({*changed, *gone}):
                connection.execute(worklist_file.delete().where(_F.path == path))
            for path, (stamp, data) in sorted(changed.items()):
                values = {"path": path, "stamp": stamp, "data": data}
                connection.execute(worklist_file.insert(), values)

        self._database.write(call).result()


def _name(path: Path) -> str:
    """A path as text that every database can keep."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _quietly_read(data: bytes) -> list[WorklistItem]:
    """The steps of a file that another node has read; none when it was not a worklist item."""
    return read_item(data) if data else []


# -- the table ----------------------------------------------------------------------------------------

worklist_item = sa.Table(
    "worklist_item",
    metadata,
    sa.Column("id", big_integer, primary_key=True, autoincrement=True),
    sa.Column("study_instance_uid", sa.Text, nullable=False),
    sa.Column("step_id", sa.Text, nullable=False),
    # The data set in explicit VR little endian, in its own character set.
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("study_instance_uid", "step_id"),
)


@implementer(IWorklistSource)
class WorklistTable:
    """Worklist items in the database. All methods except :meth:`items` block.

    Args:
        database: The database of the archive.
        in_thread: Runs a blocking call off the reactor thread.
    """

    def __init__(self, database: Database, in_thread: InThread) -> None:
        self._database = database
        self._in_thread = in_thread
        self._reading = threading.Lock()
        # The steps of each row, by its octets.
        self._known: dict[bytes, list[WorklistItem]] = {}

    def items(self, identifier: Dataset) -> defer.Deferred[list[WorklistItem]]:
        """Return all steps, whatever the identifier is."""
        return self._in_thread(self.read)

    def read(self) -> list[WorklistItem]:
        """Return all steps; only rows that are new or have changed are decoded."""
        statement = sa.select(worklist_item.c.data).order_by(worklist_item.c.id)
        with self._reading, self._database.reading() as connection:
            known, self._known = self._known, {}
            for data in connection.scalars(statement):
                found = known.get(data)
                if found is None:
                    found = WorklistItem.read(data, EXPLICIT_VR_LITTLE_ENDIAN)
                self._known[data] = found
            return [item for items in self._known.values() for item in items]

    def data_sets(self) -> list[Dataset]:
        """Return all steps as they were imported, the oldest first."""
        statement = sa.select(worklist_item.c.data).order_by(worklist_item.c.id)
        with self._database.reading() as connection:
            rows = connection.scalars(statement).all()
        return [dsutils.decode(each, EXPLICIT_VR_LITTLE_ENDIAN) for each in rows]

    def put(self, data_sets: Iterable[Dataset]) -> int:
        """Insert items; an item replaces the one with the same study and step.

        Returns:
            The number of items.

        Raises:
            DataSetError: A data set cannot be encoded.
            InvalidDataSetError: A data set is not a worklist item.
        """
        rows = {}
        for ds in data_sets:
            data = dsutils.encode(_completed(ds), EXPLICIT_VR_LITTLE_ENDIAN)
            for item in WorklistItem.read(data, EXPLICIT_VR_LITTLE_ENDIAN)[:1]:
                rows[item.key] = data

        def call(connection: sa.Connection) -> None:
            for (study, step), data in rows.items():
                connection.execute(_of((study, step)))
                values = {"study_instance_uid": study, "step_id": step, "data": data}
                connection.execute(worklist_item.insert(), values)

        self._database.write(call).result()
        return len(rows)

    def remove(self, key: StepKey) -> bool:
        """Remove an item, and return whether it was there."""
        return self._database.write(lambda writer: writer.execute(_of(key)).rowcount).result() > 0


def _of(key: StepKey) -> sa.Delete:
    own = worklist_item.c
    return worklist_item.delete().where(own.study_instance_uid == key[0], own.step_id == key[1])


def _completed(ds: Dataset) -> Dataset:
    """Give an order a Study Instance UID if it has none; many orders leave that to the worklist."""
    if not ds.get("StudyInstanceUID"):
        # The same order gets the same UID, however often it is imported.
        order = [str(ds.get(each, "")) for each in ("AccessionNumber", "RequestedProcedureID")]
        patient = str(ds.get("PatientID", ""))
        ds.StudyInstanceUID = generate_uid(entropy_srcs=[patient, *order])
    return ds


# -- imports ------------------------------------------------------------------------------------------

# The attributes that belong into the item of Scheduled Procedure Step Sequence (PS3.4 Table K.6-1).
_OF_STEP: Final = frozenset(
    (
        "Modality",
        "PreMedication",
        "RequestedContrastAgent",
        "ScheduledPerformingPhysicianName",
        "ScheduledProcedureStepDescription",
        "ScheduledProcedureStepID",
        "ScheduledProcedureStepLocation",
        "ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepStartTime",
        "ScheduledProcedureStepStatus",
        "ScheduledStationAETitle",
        "ScheduledStationName",
    )
)


_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"\s*")


def read_json(text: str) -> list[tuple[str, Dataset]]:
    """Read data sets in the DICOM JSON model: a list of objects, or objects one after another.

    Returns:
        Each data set with its place, such as ``"item 2"``.

    Raises:
        WorklistImportError: The text is not JSON, or an object is not a worklist item.
    """
    found = list(_documents(text))
    data_sets = []
    for number, each in enumerate(found[0] if found and isinstance(found[0], list) else found, 1):
        if not isinstance(each, dict) or not all(isinstance(tag, dict) for tag in each.values()):
            raise WorklistImportError(
                f'item {number} is not a data set: expected {{"00100020": {{"vr": "LO", ...}}, ...}}'
            )
        try:
            ds = Dataset.from_json(each)
        except Exception as error:  # pydicom documents no closed set of errors for bad input
            raise WorklistImportError(f"item {number} is not a data set: {error!r:.200}") from error
        data_sets.append((f"item {number}", _unicode(ds, f"item {number}")))
    return data_sets


def _documents(text: str) -> Iterator[Any]:
    position = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches anything
    try:
        while position < len(text):
            found, end = _DECODER.raw_decode(text, position)
            yield found
            position = _SPACE.match(text, end).end()  # type: ignore[union-attr]
    except (ValueError, RecursionError) as error:
        raise WorklistImportError(f"the text is not JSON: {error}") from error


def read_csv(text: str) -> list[tuple[str, Dataset]]:
    """Read a step from each line; the first line names the attributes by keyword.

    Attributes of the scheduled procedure step, such as ``Modality``, go into its sequence.

    Returns:
        Each data set with its place, such as ``"line 3"``: the last line of its row.

    Raises:
        WorklistImportError: The text is not CSV, a column is not named by a keyword, or a line has more values than
            there are columns.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        names, lines = rows.fieldnames or (), [(rows.line_num, row) for row in rows]
    except csv.Error as error:
        raise WorklistImportError(
            f"the text is not CSV behind line {rows.line_num}: {error}"
        ) from error
    vrs = {}
    for name in names:
        tag = tag_for_keyword(name)
        vrs[name] = "SQ" if tag is None else dictionary_VR(tag)
        if vrs[name] == "SQ":
            raise WorklistImportError(f"column {name!r:.60} is not the keyword of an attribute")
    data_sets = []
    for number, row in lines:
        where = f"line {number}"
        if None in row:
            raise WorklistImportError(f"{where} has more values than there are columns")
        ds, step = Dataset(), Dataset()
        for name, value in row.items():
            if value:
                try:
                    plain = int(value) if vrs[name] in NUMBERS else value
                    setattr(step if name in _OF_STEP else ds, name, plain)
                except ValueError as error:
                    raise WorklistImportError(f"{where}, {name}: {error!s:.200}") from error
        ds.ScheduledProcedureStepSequence = Sequence([step])
        data_sets.append((where, _unicode(ds, where)))
    return data_sets


def _unicode(ds: Dataset, where: str) -> Dataset:
    """Give a data set a character set that can hold its text.

    Raises:
        WorklistImportError: The data set is not a worklist item.

    """
    if not any(ds.get("ScheduledProcedureStepSequence") or ()):
        raise WorklistImportError(f"{where} has no scheduled procedure step")
    ds.SpecificCharacterSet = "ISO_IR 192"
    return ds
