"""Where the data set of an incoming message goes; the sinks at work are in test_operations."""

from __future__ import annotations

import io

import pytest
from twisted.logger import capturedLogs

from netdicom_tx.datasinks import MemorySink, give_up
from netdicom_tx.exceptions import DIMSEProcessingError


def test_a_data_set_that_nobody_needs_is_closed():
    file = io.BytesIO()
    give_up(file)
    assert file.closed
    give_up(None)
    give_up(b"bytes")


def test_a_file_that_cannot_be_closed_is_logged():
    class Stuck:
        def close(self) -> None:
            raise OSError("stuck")

    with capturedLogs() as logs:
        give_up(Stuck())
    assert "could not be closed" in logs[0]["log_format"]


def test_a_data_set_in_memory_has_a_limit():
    sink = MemorySink(4)
    sink.write(memoryview(b"123"))
    sink.write(memoryview(b"4"))
    assert sink.finish() == b"1234"
    with pytest.raises(DIMSEProcessingError, match="more than 4 octets"):
        sink.write(memoryview(b"5"))
