"""Results on stdout, the rest on stderr."""

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from twisted.internet import defer

from netdicom_tx.commands import run
from netdicom_tx.commands.common.failures import ExitCode, Problem
from netdicom_tx.commands.common.output import Output, counted, printable_line
from netdicom_tx.testing import success_of

Captured = pytest.CaptureFixture[str]


def test_elsewhere_than_on_a_terminal_a_table_is_lines_with_tabs(capsys: Captured) -> None:
    table = Output().table(("one", "two"))
    table.row((1, "a b"))
    assert capsys.readouterr().out == "one\ttwo\n1\ta b\n"
    table.row((2, ""))
    table.close()
    assert capsys.readouterr().out == "2\t\n"


def test_a_table_without_rows_has_a_head_when_it_is_complete(capsys: Captured) -> None:
    """The head of what has failed would look like a result."""
    Output().table(("one", "two")).close()
    assert capsys.readouterr().out == "one\ttwo\n"
    Output().table(("one", "two")).close(is_complete=False)
    assert capsys.readouterr().out == ""


def test_a_table_can_be_without_its_head(capsys: Captured) -> None:
    Output().table(("one",), has_head=False).row((1,))
    assert capsys.readouterr().out == "1\n"


def test_on_a_terminal_a_table_is_drawn(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table = Output().table(("one", "two"))
    table.row(("[red]x", "y" * 10))
    assert capsys.readouterr().out == ""
    table.close()
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    head, rule, row = drawn.splitlines()
    assert head.split() == ["one", "two"]
    assert set(rule.strip()) == {"─"}
    assert row.split() == ["[red]x", "y" * 10]  # no markup


UID = "1.2.826.0.1.3680043.8.498.45787841905188114249113254716285001982"


@pytest.mark.parametrize("columns", ["20", "60", "80", "100"])
def test_a_value_is_never_broken(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """A UID of 64 characters is copied in one piece, however narrow the terminal is."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    table = Output(has_color=False).table(("PatientName", "StudyInstanceUID", "StudyDescription"))
    table.row(("DOE^JOHN", UID, "a long description of the study"))
    table.row(("山田^太郎", UID, ""))
    table.close()
    lines = capsys.readouterr().out.splitlines()
    assert sum(UID in line for line in lines) == 2
    assert sum("a long description of the study" in line for line in lines) == 1
    assert " ".join(lines).split()[:2] == ["PatientName", "DOE^JOHN"]
    if int(columns) >= 66:
        assert max(map(len, lines)) <= int(columns)


def test_a_record_without_its_head_has_no_names(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    table = Output(has_color=False).table(("one", "two"), has_head=False)
    table.row((UID, 1))
    table.row((UID, 2))
    table.close()
    assert capsys.readouterr().out.splitlines() == [UID, "1", "", UID, "2"]


def test_what_a_peer_said_cannot_command_the_terminal() -> None:
    """Nor break the lines of a table."""
    assert printable_line("A\x1b[31m\tB\n\u202eC 山") == "A\\x1b[31m\\tB\\n\\u202eC 山"


def test_an_empty_table_on_a_terminal_says_nothing(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Output().table(("one",)).close()
    assert capsys.readouterr().out == ""


def test_a_note_is_one_line_without_control_characters(capsys: Captured) -> None:
    """The names of files on a medium are those of strangers."""
    Output().note("failed: a\x1b[31m\n\udcff.dcm")
    assert capsys.readouterr().err == "failed: a\\x1b[31m\\n\\udcff.dcm\n"


def test_notes_are_for_people(capsys: Captured) -> None:
    Output().note("hello")
    Output(is_quiet=True).note("silence")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_problem_is_three_lines_and_json_when_asked(capsys: Captured) -> None:
    problem = Problem(4, "what\x1b", "evidence", "hint")
    Output(is_quiet=True).problem(problem)
    assert capsys.readouterr() == (
        "",
        "error: what\\x1b\n       evidence\nhint:  hint\n",
    )
    Output(is_json=True).problem(problem)
    assert json.loads(capsys.readouterr().out)["error"]["code"] == 4
    Output(is_json=True).problem(problem, in_json=False)
    assert capsys.readouterr().out == ""


def test_without_a_terminal_progress_only_counts(capsys: Captured) -> None:
    with Output().progress("store", unit="files", total=3) as progress:
        progress.advance(10)
        progress.advance(10, failed=True)
        progress.expect(2)
    assert (progress.done, progress.failed, progress.is_shown) == (2, 1, False)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_progress_is_drawn_on_stderr(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, MB/s, and failures."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Output().progress("store", unit="files") as progress:
        progress.expect(3)
        progress.advance(5_000_000)
        progress.advance(5_000_000, failed=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/3 files" in err
    assert "MB/s" in err
    assert "1 failed" in err


def test_quiet_draws_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert not Output(is_quiet=True).progress("store", unit="files").is_shown


def test_numbers_and_things_agree() -> None:
    assert (counted(0, "file"), counted(1, "file"), counted(2, "file")) == (
        "0 files",
        "1 file",
        "2 files",
    )


@contextmanager
def full_pipe() -> Iterator[tuple[int, TextIO]]:
    """A stream that has no room, and the descriptor that is read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as stream:
        try:
            while True:
                os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
        yield reading, stream
        os.close(reading)


def test_a_line_for_a_reader_who_is_behind_is_written_by_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reactor must go on: a timer that ran out meanwhile would end the association."""
    in_thread: list[str] = []

    def defer_to_thread(_: object, stream: object, text: str) -> defer.Deferred[None]:
        in_thread.append(text)
        return defer.succeed(None)

    monkeypatch.setattr("twisted.internet.threads.deferToThread", defer_to_thread)
    with full_pipe() as (reading, stream), monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        output = Output()
        success_of(defer.Deferred.fromCoroutine(output.stream("one")))
        assert in_thread == ["one"]
        os.read(reading, 1 << 16)
        success_of(defer.Deferred.fromCoroutine(output.stream("two")))
        assert in_thread == ["one"]
        assert os.read(reading, 1 << 16) == b"two\n"
        # Longer than a pipe is sure to take.
        success_of(defer.Deferred.fromCoroutine(output.stream("y" * 5000)))
        assert in_thread == ["one", "y" * 5000]


@pytest.mark.parametrize("arguments", [["config", "init"], ["--help"], ["conformance"]])
def test_results_that_cannot_be_written_are_told(
    arguments: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, for example."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run(arguments) == ExitCode.LOCAL_DISK
    assert "cannot be written\n       No space left" in capsys.readouterr().err


def test_streams_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell closes them by ``>&-`` and ``2>&-``; Python has None then."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    output = Output(is_json=True)
    output.table(["one"]).row(["1"])
    with output.progress("store", unit="files") as progress:
        progress.advance()
    output.note("a note")
    output.problem(Problem(ExitCode.USAGE, "wrong"))
    assert not output.has_terminal


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_is_json_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    octets = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(octets, encoding))
    Output(is_json=True).json({"name": "Müller^日本😀"})
    assert json.loads(octets.getvalue().decode(encoding)) == {"name": "Müller^日本😀"}
