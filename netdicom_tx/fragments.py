"""Messages to P-DATA-TF PDUs, and fragments back to messages (PS3.8 9.3.5, Annexes D.1 and E).

Outgoing, :func:`cut_up` is lazy, and copies no data set that is in memory already; one that is read from a file costs
two fragments of memory, whatever its size. :func:`fragment` makes each PDU one piece. Incoming,
:class:`MessageReader` collects the command set, up to a limit, and passes the data set on to a
sink of its caller's choice while it arrives. A PDV that breaks the order of Annex E raises
:class:`~netdicom_tx.exceptions.DIMSEProcessingError` with the abort reason that fits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator
from functools import lru_cache
from typing import BinaryIO, Protocol, TypeAlias

from .dimsemessages import DataSource, Message, decode_command, encode_command
from .exceptions import AbortReason, DIMSEProcessingError, LocalProtocolError
from .pdu import Fragment

__all__ = [
    "COMMAND_SET_LIMIT",
    "EMPTY_PDV_LIMIT",
    "LARGEST_PDU",
    "PDU",
    "DataSetSink",
    "MessageReader",
    "cut_up",
    "fragment",
    "fragment_again",
    "fragment_command",
]

# The most octets of a command set; the largest in use, with long UIDs and lists, are below 2 KiB.
COMMAND_SET_LIMIT = 1 << 16

#: The most PDVs without a value in a message. PS3.8 Annex E admits them, and each costs as much as a
#: full one; a flood of them is an attack.
EMPTY_PDV_LIMIT = 64

# The most octets in the variable field of a P-DATA-TF that we send, whatever the peer admits.
# 131072: the largest PDU that DCMTK handles (ASC_MAXIMUMPDUSIZE).
LARGEST_PDU = 131072

# PDU type, reserved, PDU length, PDV length, context ID, message control header.
_HEAD = struct.Struct(">BxIIBB")
_P_DATA_TF = 0x04
_PDV_OVERHEAD = 6
_COMMAND, _LAST = 1, 2
_BETWEEN_MESSAGES = -1
# Up to how many octets it costs less to copy a fragment than to write it as a piece of its own.
_SMALL = 1 << 12

#: An encoded P-DATA-TF PDU: as one piece, or as the octets before its fragment and a view of the fragment.
PDU: TypeAlias = "bytes | bytearray | tuple[bytes, memoryview]"


def fragment(message: Message, *, context_id: int, limit: int) -> Iterator[bytes | bytearray]:
    """Cut a message into P-DATA-TF PDUs, the command set first.

    The command set is encoded at once. The rest is lazy: ``message.data_set`` is read when PDUs are wanted, so memory
    holds two fragments.

    Args:
        message: The message. A data set that is a file is read from its position to its end.
        context_id: The ID of an accepted presentation context, 1 to 255.
        limit: The most octets that the peer admits in one PDU's variable field; 0 means no limit.

    Returns:
        Encoded PDUs with one PDV each. The last one of each part has the *last* bit set. The first one raises
        LocalProtocolError when ``limit`` leaves no room for a fragment (1 to 7).

    Raises:
        LocalProtocolError: A value of the command set does not fit.

    Source: PS3.8 9.3.5, Annex D.1 (maximum length) and Annex E (message control header).
    """
    return map(_joined, cut_up(message, context_id=context_id, limit=limit))


def cut_up(message: Message, *, context_id: int, limit: int) -> Iterator[PDU]:
    """Cut a message like :func:`fragment`, but leave a data set that is in memory where it is."""
    return _cut_up(encode_command(message), message.data_set, context_id, limit)


def _joined(pdu: PDU) -> bytes | bytearray:
    return b"".join(pdu) if isinstance(pdu, tuple) else pdu


def _cut_up(
    command: bytes, data_set: DataSource | None, context_id: int, limit: int
) -> Iterator[PDU]:
    size = _fragment_size(limit)
    yield from _pdus(command, size, context_id, _COMMAND)
    if data_set is not None:
        yield from _pdus(data_set, size, context_id, 0)


def fragment_command(message: Message, *, context_id: int, limit: int) -> bytes:
    """Make the PDUs of the command set alone: a whole message, or a part for :func:`fragment_again`."""
    size = _fragment_size(limit)
    command = encode_command(message)
    length = len(command)
    if length <= size:
        return (
            _HEAD.pack(_P_DATA_TF, length + 6, length + 2, context_id, _COMMAND | _LAST) + command
        )
    return b"".join(map(_joined, _pdus(command, size, context_id, _COMMAND)))


def fragment_again(
    command: bytes, data_set: bytes, *, context_id: int, limit: int
) -> Iterator[PDU]:
    """Make the PDUs of a message that differs from another one only in its data set.

    The Pending responses of a C-FIND are such messages, and come by the thousand.

    Args:
        command: The result of :func:`fragment_command` for a message with a data set.
    """
    yield command
    yield from _pdus(data_set, _fragment_size(limit), context_id, 0)


# All fragments of an association have the same limit, and most peers admit one of a few.
@lru_cache(maxsize=64)
def _fragment_size(limit: int) -> int:
    """The octets of the largest fragment that the peer admits and that we send."""
    largest = min(limit, LARGEST_PDU) if limit else LARGEST_PDU
    # Annex E: each fragment has an even number of octets.
    size = (largest - _PDV_OVERHEAD) & ~1
    if size <= 0:
        raise LocalProtocolError(
            f"the peer admits PDUs of {limit} octets; 8 are needed for a fragment of two"
        )
    return size


def _pdus(source: DataSource, size: int, context_id: int, kind: int) -> Iterator[PDU]:
    if isinstance(source, bytes | bytearray | memoryview):
        return _cut(memoryview(source), size, context_id, kind)
    return _with_heads(_read(source, size), context_id, kind)


def _cut(view: memoryview, size: int, context_id: int, kind: int) -> Iterator[PDU]:
    """Cut octets that are in memory; a fragment that is not small is not copied."""
    left, offset = len(view), 0
    head = _HEAD.pack(_P_DATA_TF, size + 6, size + 2, context_id, kind)
    while left > size:
        piece = view[offset : offset + size]
        yield (head, piece) if size > _SMALL else head + piece
        offset += size
        left -= size
    padding = (
        left % 2
    )  # PS3.5 A.5: a deflated stream is padded to even length; nothing else is odd.
    length = left + padding
    head = _HEAD.pack(_P_DATA_TF, length + 6, length + 2, context_id, kind | _LAST)
    piece = view[offset:]
    yield (head, piece) if length > _SMALL and not padding else head + piece + bytes(padding)


def _with_heads(chunks: Iterator[bytearray], context_id: int, kind: int) -> Iterator[bytearray]:
    current = next(chunks, None)
    if current is None:
        current = bytearray(_HEAD.size)
    while current is not None:
        following = next(chunks, None)
        flags = kind
        if following is None:
            flags |= _LAST
            if len(current) % 2:
                current.append(0)  # as in _cut()
        length = len(current) - _HEAD.size
        _HEAD.pack_into(current, 0, _P_DATA_TF, length + 6, length + 2, context_id, flags)
        yield current
        current = following


def _read(file: BinaryIO, size: int) -> Iterator[bytearray]:
    """Cut a file into chunks of full size, the last one perhaps shorter, with room for a header."""
    readinto = getattr(file, "readinto", None)
    while True:
        chunk = bytearray(_HEAD.size + size)
        room = memoryview(chunk)[_HEAD.size :]
        filled = 0
        while filled < size:
            if readinto is not None:
                count = readinto(room[filled:])
            else:
                data = file.read(size - filled)
                count = len(data)
                room[filled : filled + count] = data
            if not count:
                break
            filled += count
        room.release()
        if filled:
            if filled < size:
                del chunk[_HEAD.size + filled :]
            yield chunk
        if filled < size:
            return


class DataSetSink(Protocol):
    """The place where the octets of a data set go while they arrive."""

    def write(self, data: memoryview, /) -> object:
        """Take some octets. They never change, so the sink may keep the view."""


class MessageReader:
    """Puts messages together from fragments.

    Args:
        contexts: The IDs of the accepted presentation contexts.
        open_sink: A function that gives the sink for a data set. It is called with the context ID
            and the message when the command set that announces the data set is complete.
    """

    __slots__ = (
        "_command",
        "_context_id",
        "_contexts",
        "_empty",
        "_message",
        "_open_sink",
        "_sink",
    )

    def __init__(
        self, contexts: Container[int], open_sink: Callable[[int, Message], DataSetSink]
    ) -> None:
        self._contexts = contexts
        self._open_sink = open_sink
        self._command = bytearray()
        self._context_id = _BETWEEN_MESSAGES
        self._empty = 0  # PDVs of this message without a value
        self._message: Message | None = None  # its data set is arriving
        self._sink: DataSetSink | None = None

    @property
    def is_between_messages(self) -> bool:
        return self._context_id == _BETWEEN_MESSAGES

    @property
    def held(self) -> int:
        """How many octets of an incomplete command set are in memory."""
        return len(self._command)

    @property
    def sink(self) -> DataSetSink | None:
        """The sink of the data set that is arriving; None when no data set is."""
        return self._sink

    def receive(self, piece: Fragment) -> tuple[int, Message, DataSetSink | None] | None:  # noqa: C901 - one branch for each rule of PS3.8 Annex E
        """Take a fragment.

        Returns:
            When the message is complete, the context ID, the message and the sink that has its data
            set; None before.

        Raises:
            DIMSEProcessingError: The fragment breaks the order of Annex E, or the command set
                cannot be read.
        """
        context_id, is_command, is_last, data = piece
        if context_id != self._context_id:
            self._begin(context_id)
        if not data and not is_last:
            self._count_empty(context_id)
        if self._message is None:
            if not is_command:
                raise DIMSEProcessingError(
                    f"data set on context {context_id} before a command set",
                    AbortReason.UNEXPECTED_PARAMETER,
                )
            if len(self._command) + len(data) > COMMAND_SET_LIMIT:
                raise DIMSEProcessingError(
                    f"command set of more than {COMMAND_SET_LIMIT} octets on context {context_id}"
                )
            if not is_last or self._command:
                self._command += data
                if not is_last:
                    return None
                whole = bytes(self._command)
                self._command.clear()
            else:
                whole = bytes(data)
            message, has_data_set = decode_command(whole)
            if has_data_set:
                self._message = message
                self._sink = self._open_sink(context_id, message)
                return None
            self._context_id = _BETWEEN_MESSAGES
            return context_id, message, None
        if is_command:
            raise DIMSEProcessingError(
                f"command set on context {context_id} inside a data set",
                AbortReason.UNEXPECTED_PARAMETER,
            )
        sink, complete = self._sink, self._message
        assert sink is not None
        if data:
            sink.write(memoryview(data))
        if not is_last:
            return None
        self._context_id, self._message, self._sink = _BETWEEN_MESSAGES, None, None
        return context_id, complete, sink

    def _begin(self, context_id: int) -> None:
        if context_id not in self._contexts:
            raise DIMSEProcessingError(
                f"PDV on presentation context {context_id}, which was not accepted",
                AbortReason.UNEXPECTED_PARAMETER,
            )
        if self._context_id != _BETWEEN_MESSAGES:
            raise DIMSEProcessingError(
                f"PDV on context {context_id} inside a message on context {self._context_id}",
                AbortReason.UNEXPECTED_PARAMETER,
            )
        self._context_id = context_id
        self._empty = 0

    def _count_empty(self, context_id: int) -> None:
        self._empty += 1
        if self._empty > EMPTY_PDV_LIMIT:
            raise DIMSEProcessingError(
                f"more than {EMPTY_PDV_LIMIT} PDVs without a value in a message on context {context_id}"
            )
