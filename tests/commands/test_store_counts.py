"""What becomes of each file, counted."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from netdicom_tx.commands.common.addresses import Address
from netdicom_tx.commands.common.config import Config
from netdicom_tx.commands.common.files import FoundFile, HeldBackError, Journal, Sending
from netdicom_tx.commands.common.options import Common
from netdicom_tx.commands.common.output import Output
from netdicom_tx.commands.common.session import Session
from netdicom_tx.commands.store import _NAMED, _Found, _take, _Tally
from netdicom_tx.dsutils import DataSetError
from netdicom_tx.exceptions import (
    AssociationAbortedError,
    AssociationRejectedError,
    ClassNotSupportedError,
    ConnectionLostError,
)
from netdicom_tx.sopclass import StoreResult
from netdicom_tx.statuses import Status

CT = str(get_testdata_file("CT_small.dcm"))
FILE = FoundFile.of(CT)
INSTANCE = Sending.in_file(FILE, lambda: False)


class Run:
    """A run, without a peer."""

    def __init__(self, journal: Journal | None = None) -> None:
        output = Output(is_quiet=True)
        common = Common(Config(), output, address=Address("ARCHIVE", "h", 104))
        self.session = Session(common, None)
        self.tally = _Tally(output)
        self.found = _Found((CT,), journal, self.tally)
        self.progress = output.progress("store", unit="files")

    def take(
        self, status: int | None = None, error: Exception | None = None, is_given_up: bool = False
    ) -> None:
        said = None if status is None else Status(status, "C-STORE")
        result = StoreResult(FILE, INSTANCE, said, error, is_given_up)
        _take(result, self.session, self.found, self.tally, self.progress)

    @property
    def code(self) -> int:
        problem = self.tally.problem()
        return 0 if problem is None else problem.code


@pytest.fixture
def run() -> Run:
    return Run()


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007])
def test_success_and_warnings_are_stored(run: Run, status: int) -> None:
    """PS3.4 B.2.3: with a warning the instance is kept."""
    run.take(status)
    assert (run.tally.stored, run.tally.failed, run.code) == (1, 0, 0)
    assert run.tally.octets == FILE.size


REFUSED = ClassNotSupportedError("1.2", {"1.2.840.10008.1.2": "not supported"})
LOST = ConnectionLostError()


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([0xA700], 8),
        ([0xA700, 0xC000], 8),
        ([0xA700, 0x0000], 1),
        ([REFUSED], 5),
        ([REFUSED, 0xA700], 1),
        ([REFUSED, 0x0000], 1),
        ([DataSetError("damaged")], 1),
        ([OSError(5, "I/O error")], 1),
        ([LOST], 6),
        ([LOST, LOST], 6),
        ([AssociationAbortedError(0), 0x0000], 1),
        ([0x0000, LOST], 1),
        ([REFUSED, LOST], 1),
    ],
)
def test_the_exit_code_follows_from_all_outcomes(run: Run, outcomes: list[Any], code: int) -> None:
    for outcome in outcomes:
        if isinstance(outcome, int):
            run.take(status=outcome)
        else:
            run.take(error=outcome)
    assert run.code == code


REJECTED = AssociationRejectedError(1, 1, 7)


@pytest.mark.parametrize(
    ("before", "given_up", "code"),
    [
        ([], REJECTED, 4),
        ([0x0000], REJECTED, 4),
        # What ended the last association is the reason; what follows follows from it.
        ([LOST], REJECTED, 6),
        ([0x0000, LOST], REJECTED, 6),
        ([AssociationAbortedError(0)], LOST, 6),
        # The peer has answered since.
        ([LOST, 0x0000], REJECTED, 4),
    ],
)
def test_a_run_that_was_given_up_has_the_code_of_the_reason(
    run: Run, before: list[Any], given_up: Exception, code: int
) -> None:
    """What is left is not called for again, is counted, and is told once."""
    for outcome in before:
        if isinstance(outcome, int):
            run.take(status=outcome)
        else:
            run.take(error=outcome)
    assert not run.found.is_stopped
    told = len(run.tally.failures)
    for _ in range(3):
        run.take(error=given_up, is_given_up=True)
    assert run.code == code
    assert run.found.is_stopped
    assert list(run.found) == []
    assert run.tally.failed == 3 + sum(each != 0x0000 for each in before)
    assert len(run.tally.failures) == told + 1


def test_what_was_held_back_is_neither_stored_nor_failed(run: Run) -> None:
    run.take(error=HeldBackError("interrupted"))
    assert (run.tally.stored, run.tally.failed, run.tally.kinds) == (0, 0, {})


def test_failures_are_named_up_to_a_limit(run: Run) -> None:
    """Memory stays constant, whatever happens; all are counted."""
    for _ in range(_NAMED + 5):
        run.take(0xA700)
    assert (len(run.tally.failures), run.tally.failed) == (_NAMED, _NAMED + 5)


def test_only_what_was_acknowledged_is_noted(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"), "ARCHIVE@h:104")
    run = Run(journal)
    for status in (0xA700, 0x0000, 0x0111):
        run.take(status)
    run.take(error=LOST)
    journal.close()
    assert len((tmp_path / "journal").read_text().splitlines()) == 2


def test_what_cannot_be_sent_is_sorted(tmp_path: Path) -> None:
    """Vanished files are failures, others and a DICOMDIR are skipped, what is noted is skipped."""
    output = Output(is_quiet=True)
    tally = _Tally(output)
    (tmp_path / "text").write_text("no DICOM")
    paths = [str(tmp_path / "vanished"), str(tmp_path / "text"), CT]
    dicomdir = get_testdata_file("DICOMDIR")
    if dicomdir is not None:
        paths.append(str(dicomdir))
    found = list(_Found(tuple(paths), None, tally))
    assert [each.source for each in found] == [FILE]
    assert (tally.failed, tally.others) == (1, len(paths) - 2)
    assert _Found(tuple(paths), None, tally).total() == len(paths)
