"""Where the data set of an incoming message goes while it arrives: memory, or a file of the AE.

What goes wrong with a file is remembered and not raised: the rest of the data set is read and dropped,
and the request is answered with the failure. Only a data set that exceeds its limit in memory ends the
association.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from twisted.logger import Logger

from . import statuses
from .exceptions import DIMSEProcessingError, EventHandlingError

__all__ = ["FileSink", "MemorySink", "give_up"]

_log = Logger()


def give_up(data_set: object) -> None:
    """Close the file of a data set that nobody needs any more; a failure to close it is logged."""
    close = getattr(data_set, "close", None)
    if close is not None:
        try:
            close()
        except Exception as error:  # raised by the disk, or by whatever made the file
            _log.warn("the file of a data set could not be closed: {error!r}", error=error)


class MemorySink:
    """Collects a data set in memory, up to a limit."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def write(self, data: memoryview) -> None:
        if len(self._buffer) + len(data) > self._limit:
            raise DIMSEProcessingError(f"data set of more than {self._limit} octets")
        self._buffer += data

    def finish(self) -> bytes:
        return bytes(self._buffer)

    def abandon(self) -> None:
        self._buffer.clear()


class FileSink:
    """Passes a data set on to a file of the AE; remembers why it could not.

    Whatever the hook or the file raises does not end the association: the rest of the data set is
    read and dropped, and the request is answered with the failure.
    """

    __slots__ = ("_file", "_start", "error")

    def __init__(self, open_file: Callable[[], tuple[BinaryIO, int]]) -> None:
        self._file: BinaryIO | None = None
        self._start = 0
        self.error: EventHandlingError | None = None
        try:
            self._file, self._start = open_file()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, EventHandlingError):
            self.error = error
        elif isinstance(error, OSError):
            self.error = EventHandlingError(
                "out of resources: the data set cannot be kept", statuses.C_STORE_OUT_OF_RESOURCES
            )
            self.error.__cause__ = error
        else:
            self.error = EventHandlingError(status=statuses.PROCESSING_FAILURE)
            self.error.__cause__ = error
        self.abandon()

    def write(self, data: memoryview) -> None:
        if self._file is None:
            return
        try:
            self._file.write(data)
        except Exception as error:
            self._fail(error)

    def finish(self) -> BinaryIO | None:
        """The file, positioned where the AE said; None when it failed."""
        if self._file is not None:
            try:
                self._file.seek(self._start)
            except Exception as error:
                self._fail(error)
        return self._file

    def abandon(self) -> None:
        file, self._file = self._file, None
        give_up(file)
