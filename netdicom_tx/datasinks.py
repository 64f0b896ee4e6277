"""The message that is arriving, and where its data set goes: memory, or a file of the AE.

An error of the file is recorded, not raised. The rest of the data set is read and dropped, and the request is answered
with the failure. Only a data set that exceeds its limit in memory ends the
association.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from . import statuses
from .dimsemessages import Message, Request, Response
from .exceptions import DIMSEProcessingError, EventHandlingError, StatusError
from .fragments import DataSetSink, MessageReader
from .logs import Logger
from .negotiation import PContextDef
from .pdu import Fragment

__all__ = [
    "IDENTIFIER_LIMIT",
    "MEMORY_LIMIT",
    "FileSink",
    "MemorySink",
    "Received",
    "Reception",
    "give_up",
]

#: The most octets of a data set that is received into memory: an identifier, or the data set of an N-service.
IDENTIFIER_LIMIT = 1 << 20
#: The most octets of an instance that is received into memory, because its service does not ask for a file.
MEMORY_LIMIT = 1 << 26

_log = Logger()


def give_up(data_set: object) -> None:
    """Close the file of a data set that is no longer needed; a failure to close it is logged."""
    close = getattr(data_set, "close", None)
    if close is not None:
        try:
            close()
        except Exception as error:  # raised by the disk, or by the code that made the file
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

    @property
    def held(self) -> int:
        """How many octets are in memory."""
        return len(self._buffer)

    def finish(self) -> bytes:
        """The whole data set."""
        return bytes(self._buffer)

    def abandon(self) -> None:
        """Drop the part of the data set that has come."""
        self._buffer.clear()


class FileSink:
    """Passes a data set on to a file of the AE, and records why that fails.

    An exception of the hook or of the file does not end the association. The rest of the data set is read and dropped,
    and the request is answered with the failure.
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

    @property
    def held(self) -> int:
        """How many octets are in memory, as far as the file says so: its ``octets_in_memory``."""
        return int(getattr(self._file, "octets_in_memory", 0))

    def finish(self) -> BinaryIO | None:
        """The file, at the position that the AE has named; None when it has failed."""
        if self._file is not None:
            try:
                self._file.seek(self._start)
            except Exception as error:
                self._fail(error)
        return self._file

    def abandon(self) -> None:
        """Close the file; the data set does not come to its end."""
        file, self._file = self._file, None
        give_up(file)


class Received(NamedTuple):
    """A message that is complete.

    Attributes:
        ctx: The presentation context on which it came.
        message: The message; its data set is octets, or a file of the AE.
        failure: What a request must be answered with, because it is incomplete or its data set could not be
            kept; None otherwise.
    """

    ctx: PContextDef
    message: Message
    failure: EventHandlingError | None


class Reception:
    """Puts the fragments of one association together, and keeps the data set that is arriving.

    Args:
        contexts: The accepted presentation contexts, by ID.
        wants_file: Whether the service of a context takes the data sets of its requests in a file.
        open_file: Opens that file, and returns it with the position at which it is handed on.
    """

    def __init__(
        self,
        contexts: Mapping[int, PContextDef],
        wants_file: Callable[[PContextDef], bool],
        open_file: Callable[[PContextDef, Request], tuple[BinaryIO, int]],
    ) -> None:
        self._contexts = contexts
        self._wants_file = wants_file
        self._open_file = open_file
        self._reader = MessageReader(contexts, self._open_sink)
        self._sink: MemorySink | FileSink | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a data set has begun to come and is not complete."""
        return self._sink is not None

    @property
    def held(self) -> int:
        """How many octets of an incomplete message are in memory."""
        return self._reader.held + (0 if self._sink is None else self._sink.held)

    def receive(self, piece: Fragment) -> Received | None:
        """Take a fragment, and return the message if it is complete now.

        Raises:
            RemoteProtocolError: The peer breaks a rule, or exceeds a limit.
        """
        complete = self._reader.receive(piece)
        if complete is None:
            return None
        context_id, message, _ = complete
        ctx = self._contexts[context_id]
        sink, self._sink = self._sink, None
        failure: EventHandlingError | None = None
        if sink is not None:
            # Nobody else has this message yet, and a copy would cost as much as reading it did.
            object.__setattr__(message, "data_set", sink.finish())
            if isinstance(sink, FileSink):
                failure = sink.error
        if isinstance(message, Response):
            if message.stray and message.data_set is None:
                from . import dsutils

                data_set = dsutils.failed_instances(message.stray, ctx.supported_ts)
                message = replace(message, data_set=data_set)
        elif isinstance(message, Request) and message.missing:
            words = f"{', '.join(message.missing)} missing"
            failure = StatusError(statuses.MISTYPED_ARGUMENT, words)
        return Received(ctx, message, failure)

    def _open_sink(self, context_id: int, message: Message) -> DataSetSink:
        ctx = self._contexts[context_id]
        limit = IDENTIFIER_LIMIT
        if isinstance(message, Request):
            if self._wants_file(ctx):
                self._sink = FileSink(lambda: self._open_file(ctx, message))
                return self._sink
            if message.OPERATION == "C-STORE":
                limit = MEMORY_LIMIT
        self._sink = MemorySink(limit)
        return self._sink

    def end(self) -> None:
        """Drop the message that is arriving, because the association is over."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abandon()
