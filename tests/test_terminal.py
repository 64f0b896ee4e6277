"""The terminal of a process that goes into the background."""

import os

import pytest

from netdicom_tx.terminal import Terminal


def test_it_is_told_after_standard_error_has_gone(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.keep()
    terminal.keep()
    terminal.tell("cannot start: \udcff")
    terminal.tell("nobody reads this")
    assert capfd.readouterr().err == "cannot start: \\udcff\n"


def test_a_process_without_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    terminal = Terminal()
    terminal.keep()
    terminal.tell("x")
    terminal.close()


def test_a_reader_that_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    terminal = Terminal()
    terminal._descriptor = writer
    terminal.tell("x")
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(writer)
