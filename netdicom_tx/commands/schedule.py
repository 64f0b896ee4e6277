"""``netdicom schedule``: add steps to a node's worklist, show them, and remove them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common.failures import CommandError, ExitCode, bad_input
from .common.options import Group, examples, json_option, place_options
from .common.output import Output, counted

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

    from ..archive.workflow.worklist_sources import WorklistTable

__all__ = ["command"]

_OF_STEP = (
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "Modality",
    "ScheduledStationAETitle",
    "ScheduledProcedureStepID",
)
_COLUMNS = ("date", "time", "modality", "station", "step", "patient", "patient ID", "study")

# PS3.4 Table K.6-1, type 1: the attributes that modalities query by and that distinguish steps. Start time and station
# are of type 1 as well, but may not be known when a step is planned.
_NEEDED = ("PatientID", "PatientName")
_NEEDED_OF_STEP = ("ScheduledProcedureStepID", "ScheduledProcedureStepStartDate", "Modality")
# One of these is needed; without them all orders of a patient would be one study.
_ORDER = ("StudyInstanceUID", "AccessionNumber", "RequestedProcedureID")
#: How many mistakes of a file are told at once.
_MOST_TOLD = 10
_EXPECTED = {
    "AE": "at most 16 characters",
    "CS": "at most 16 of A-Z, 0-9, space and underscore",
    "DA": "YYYYMMDD",
    "DT": "YYYYMMDDHHMMSS",
    "LO": "at most 64 characters",
    "SH": "at most 16 characters",
    "TM": "HHMMSS or HHMM",
    "UI": "numbers with dots between, at most 64 characters",
}


@click.group(
    cls=Group,
    epilog=examples(
        "netdicom schedule add orders.csv --storage /var/lib/netdicom",
        "netdicom schedule list",
        "netdicom schedule remove 1.2.3 SPS1",
    ),
)
def command() -> None:
    """Fill the worklist of a node with scheduled steps from CSV and JSON.

    The node may be running; its next answer includes what was added. The items in the directory that the
    node was given by --worklist are not shown here: change their files instead.
    """


@contextmanager
def _opened_table(storage: Path, database: str | None) -> Iterator[WorklistTable]:
    from twisted.internet.defer import maybeDeferred

    from ..archive.workflow.worklist_sources import WorklistTable
    from .common.storage import opened_index

    with opened_index(storage, database) as index:
        yield WorklistTable(index, maybeDeferred)


@command.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom schedule add orders.csv --storage /var/lib/netdicom",
        "netdicom schedule add monday.json tuesday.json",
        "netdicom schedule list --json | netdicom schedule add - --storage /srv/other",
    ),
)
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(dir_okay=False, allow_dash=True),
)
@place_options
@json_option
def add(files: tuple[str, ...], storage: Path, database: str | None, is_json: bool) -> int:
    """Add steps; a step replaces the one with the same study and step ID.

    A CSV file has one line for each step, and its first line names the attributes by keyword: PatientID,
    PatientName, AccessionNumber, ScheduledProcedureStepID, Modality, ScheduledProcedureStepStartDate and
    so on. A JSON file has data sets in the DICOM JSON model. FILE may be - for stdin. When anything in any
    file is wrong, nothing is added.
    """
    from ..archive.encoded.walk import InvalidDataSetError
    from ..dsutils import DataSetError

    output = Output(is_json=is_json)
    steps = [(file, ds) for file in files for ds in _read(file)]
    with _opened_table(storage, database) as table:
        try:
            added = table.put(ds for _, ds in steps)
        except (DataSetError, InvalidDataSetError) as error:
            raise _wrong(", ".join(files), str(error)) from error
    if is_json:
        output.json({"added": added})
    else:
        output.line(f"{counted(added, 'step')} added")
    if added < len(steps):
        output.note(
            f"{len(steps) - added} had the study and step ID of a later one, which was added instead"
        )
    return ExitCode.OK


def _read(file: str) -> list[Dataset]:
    """Read the steps of a file.

    Raises:
        CommandError: The file cannot be read, or a step in it is wrong.
    """
    from ..archive.workflow.worklist_sources import WorklistImportError, read_csv, read_json

    try:
        with click.open_file(file, encoding="utf-8-sig") as opened:
            text = opened.read()
    except OSError as error:
        raise bad_input(
            f"{file} cannot be read",
            str(error.strerror),
            "check the path and its permissions; nothing was added",
        ) from error
    except UnicodeDecodeError as error:
        raise _wrong(file, f"octet {error.start} is not UTF-8") from error
    if not text.strip():
        raise _wrong(file, "the file is empty")
    # A line of keywords never begins with a bracket.
    is_json = text.lstrip()[:1] in ("[", "{")
    try:
        found = read_json(text) if is_json else read_csv(text)
    except WorklistImportError as error:
        raise _wrong(file, str(error)) from error
    faults = [f"{place}: {fault}" for place, ds in found if (fault := _missing(ds) or _invalid(ds))]
    if faults:
        more = len(faults) - _MOST_TOLD
        told = faults[:_MOST_TOLD] + ([f"and {more} more"] if more > 0 else [])
        raise _wrong(file, "; ".join(told))
    return [ds for _, ds in found]


def _missing(ds: Dataset) -> str:
    """What a step lacks, in words; empty when it is complete."""
    missing = [each for each in _NEEDED if not ds.get(each)]
    for step in ds.ScheduledProcedureStepSequence:
        missing += [each for each in _NEEDED_OF_STEP if not step.get(each)]
    if missing:
        return f"{', '.join(missing)} missing"
    if not any(ds.get(each) for each in _ORDER):
        return f"one of {', '.join(_ORDER)} is needed"
    return ""


def _invalid(ds: Dataset) -> str:
    """The first value that its VR does not allow, and what the VR allows; empty when all are allowed."""
    from pydicom.multival import MultiValue

    for element in ds.iterall():
        values = element.value if isinstance(element.value, MultiValue) else [element.value]
        for value in values:
            if element.VR != "SQ" and value not in (None, "", b""):
                try:
                    _check(element.VR, value)
                except ValueError as error:
                    return f"{_name(element)} {str(value)!r:.60}; {_expected(element.VR, error)}"
    return ""


def _check(vr: str, value: object) -> None:
    """Check that a value is valid, and can be found by queries.

    Raises:
        ValueError: The value is not valid.
    """
    from pydicom import config
    from pydicom.valuerep import validate_value

    from ..archive.encoded.values import date_range

    # The types of pydicom for DS and IS are subclasses of int and float.
    is_binary = isinstance(value, int | float | bytes) and vr not in ("DS", "IS")
    plain = value if is_binary else str(value)
    if vr == "DA":
        date_range(str(plain))  # pydicom also accepts a range, which belongs into a query
    validate_value(vr, plain, config.RAISE)


def _name(element: DataElement) -> str:
    return element.keyword or str(element.tag)


def _expected(vr: str, error: ValueError) -> str:
    words = _EXPECTED.get(vr)
    return f"expected {words} ({vr})" if words else str(error).partition(" Please see")[0]


def _wrong(file: str, evidence: str) -> CommandError:
    return bad_input(
        f"{file} cannot be imported",
        evidence,
        "expected CSV with a line of keywords, or DICOM JSON, in UTF-8; nothing was added",
    )


@command.command(
    name="list",
    epilog=examples(
        "netdicom schedule list --storage /var/lib/netdicom",
        "netdicom schedule list --json | jq -s . > steps.json",
    ),
)
@place_options
@json_option
def list_command(storage: Path, database: str | None, is_json: bool) -> int:
    """Show the steps that were added."""
    output = Output(is_json=is_json)
    with _opened_table(storage, database) as table:
        steps = table.data_sets()
    if is_json:
        for ds in steps:
            output.json(ds.to_json_dict())
    else:
        shown = output.table(_COLUMNS)
        for ds in steps:
            shown.row(_cells(ds))
        shown.close()
    output.note(counted(len(steps), "step"))
    return ExitCode.OK


def _cells(ds: Dataset) -> Sequence[object]:
    step = ds.ScheduledProcedureStepSequence[0]
    return [
        *(step.get(keyword, "") for keyword in _OF_STEP),
        *(ds.get(keyword, "") for keyword in ("PatientName", "PatientID", "StudyInstanceUID")),
    ]


@command.command(
    no_args_is_help=True,
    epilog=examples("netdicom schedule remove 1.2.3 SPS1", "netdicom schedule remove 1.2.3 --json"),
)
@click.argument("study")
@click.argument("step", required=False, default="")
@place_options
@json_option
def remove(study: str, step: str, storage: Path, database: str | None, is_json: bool) -> int:
    """Remove the step with this Study Instance UID and step ID.

    Without STEP, the step that has no step ID is removed.
    """
    output = Output(is_json=is_json)
    with _opened_table(storage, database) as table:
        was_there = table.remove((study, step))
    if not was_there:
        raise bad_input(
            f"there is no step {step or 'without an ID'} of study {study}",
            "nothing was changed",
            "netdicom schedule list shows the steps",
        )
    if is_json:
        output.json({"removed": 1})
    else:
        output.line("1 step removed")
    return ExitCode.OK
