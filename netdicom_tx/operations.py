"""What this side performs for its peer: one request at a time becomes an :class:`Operation`.

It runs the service, sends what it returns or yields, and turns what it raises into a status. This is the only place
with a broad catch.

========================================  ===========================================================================
a service                                 the peer gets
========================================  ===========================================================================
returns a status                          the response with this status
returns (status, data set)                the response with both (N-GET, N-CREATE, ...)
returns a response message                that message
returns a Deferred or a coroutine         as above, when it fires
yields data sets or (data set, status)    a Pending response each, then the final one; FE00 after C-CANCEL
yields response messages                  those messages; one that is not Pending is the last
raises EventHandlingError                 the service's failure status, or the one it carries, and its comment
raises anything else                      0x0110 Processing failure; it is logged, the association lives on
has nothing for this operation            0x0211 Unrecognized operation
========================================  ===========================================================================
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterator
from typing import Any, Protocol

from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import dsutils, statuses
from .datasinks import give_up
from .dimsemessages import DataSource, Message, Request, Response, UnknownRQ
from .dispatch import Service
from .exceptions import (
    AssociationError,
    EventHandlingError,
    LocalProtocolError,
    NetDICOMError,
)
from .negotiation import PContextDef

__all__ = ["Operation"]

# Responses of a generator between two turns of the reactor: a C-CANCEL is seen after so many.
_RESPONSES_PER_TURN = 16

_FAILURE = {
    "C-STORE": statuses.C_STORE_CANNOT_UNDERSTAND,
    "C-FIND": statuses.C_FIND_UNABLE_TO_PROCESS,
    "C-GET": statuses.C_GET_UNABLE_TO_PROCESS,
    "C-MOVE": statuses.C_MOVE_UNABLE_TO_PROCESS,
}
_PENDING = (0xFF00, 0xFF01)
_CANCELLABLE = ("C-FIND", "C-GET", "C-MOVE")
_COUNTERS = (
    "number_of_remaining_suboperations",
    "number_of_completed_suboperations",
    "number_of_failed_suboperations",
    "number_of_warning_suboperations",
)


class Responder(Protocol):
    """What an operation needs of its association."""

    clock: IReactorTime

    @property
    def error(self) -> NetDICOMError | None:
        """Why the association is over; None while it is not."""

    @property
    def peer_title(self) -> str:
        """The AE title of the peer, safe for logs."""

    @property
    def is_congested(self) -> bool:
        """Whether the peer is behind with reading."""

    async def breathe(self) -> None:
        """Wait while the peer is behind with reading; otherwise for the reactor's next turn."""

    def send(self, message: Message, ctx: PContextDef | int) -> None:
        """Send a response."""

    def pending_command(self, response: Response, ctx: PContextDef) -> bytes:
        """Encode a Pending response without its data set."""

    def send_pending(self, command: bytes, data_set: bytes, ctx: PContextDef) -> None:
        """Send an encoded Pending response with a data set."""

    def has_answered(self, operation: Operation) -> bool:
        """Whether the service has itself sent the final response."""

    def hand_over(self, operation: Operation) -> bool:
        """Give the instance to whoever has asked for it; True when it was taken."""

    def operation_ended(self, operation: Operation) -> None:
        """The operation has come to its end."""


class Operation:
    """One request that this side performs.

    Args:
        asce: Where it came in, and where the responses go.
        ctx: Its presentation context.
        msg: The request; a data set in a file is closed at the end of the operation.
        service: Who answers.
    """

    _log = Logger()

    def __init__(self, asce: Responder, ctx: PContextDef, msg: Request, service: Service) -> None:
        self.asce = asce
        self.ctx = ctx
        self.msg = msg
        self._service = service
        self._is_answered = False  # the final response has been sent
        self._last: Response | None = None  # the last one that was sent
        self._emitted = 0
        self._match_commands: dict[int, bytes] = {}
        self._is_cancelled = False  # C-CANCEL came
        self._is_over = False  # the service has come to its end
        self._interrupt: IDelayedCall | None = None
        self._running: defer.Deferred[None] | None = None

    @property
    def status(self) -> statuses.Status | None:
        """The final status; None while there is none."""
        return statuses.Status(self._last.status) if self._is_answered and self._last else None

    def start(self) -> None:
        """Run the service; the association is told when all is over."""
        running = defer.Deferred.fromCoroutine(self._run())
        self._running = running
        running.addBoth(self._ended)
        if self._is_stopped:  # by the service itself, before it first waited
            self._interrupt_soon()

    def cancel(self) -> None:
        """C-CANCEL-RQ came (PS3.7 9.3.2.3): close the generator, answer FE00."""
        if self.msg.OPERATION in _CANCELLABLE:
            self._is_cancelled = True
            self._interrupt_soon()

    def stop(self) -> None:
        """The association ended: nobody waits for an answer."""
        self._interrupt_soon()

    @property
    def _is_stopped(self) -> bool:
        return self.asce.error is not None

    def _interrupt_soon(self) -> None:
        # From a fresh turn: a coroutine can be cancelled only while it waits.
        if self._interrupt is None and self._running is not None and not self._is_over:
            self._interrupt = self.asce.clock.callLater(0, self._interrupt_now)

    def _interrupt_now(self) -> None:
        self._interrupt = None
        assert self._running is not None
        self._running.cancel()

    def _ended(self, result: object) -> None:
        self._is_over = True
        if self._interrupt is not None:
            self._interrupt.cancel()
        if isinstance(result, Failure):
            self._failed(result)  # what it said of its failure could not be sent either
        if not self._is_answered and not self._is_stopped and not self.asce.has_answered(self):
            self._log.error(
                "{operation} {id}: the handler gave no final status; expected one",
                operation=self.msg.OPERATION,
                id=self.msg.message_id,
            )
            self._respond(statuses.PROCESSING_FAILURE)
        if not self.asce.hand_over(self):
            give_up(self.msg.data_set)
        self.asce.operation_ended(self)

    # -- running the service -------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            operations = getattr(self._service, "operations", None)
            if isinstance(self.msg, UnknownRQ) or (
                operations is not None and self.msg.OPERATION not in operations
            ):
                self._respond(
                    statuses.UNRECOGNIZED_OPERATION,
                    comment=f"{self.msg.OPERATION} is no operation of this SOP class",
                )
                return
            result = self._service(self.asce, self.ctx, self.msg)
            if inspect.isawaitable(result):
                result = await result
            if isinstance(result, AsyncIterable):
                await self._stream_async(result)
            elif isinstance(result, Iterator | list):
                await self._stream(iter(result))
            else:
                self._finish(result)
        except defer.CancelledError:
            if self._is_cancelled:
                self._respond_cancelled()
            elif not self._is_stopped:
                self._log.failure(
                    "{operation} {id}: the handler's Deferred was cancelled",
                    operation=self.msg.OPERATION,
                    id=self.msg.message_id,
                )
                self._respond(statuses.PROCESSING_FAILURE)
        except EventHandlingError as error:
            status = error.status
            if status is None:
                status = _FAILURE.get(self.msg.OPERATION, statuses.PROCESSING_FAILURE)
            self._respond(status, comment=error.comment)
        except Exception as error:
            # Whatever a handler raises must not end the association of its peer, nor others.
            if error is not self.asce.error:  # else it waited for something on the association
                self._failed(Failure())

    def _failed(self, failure: Failure) -> None:
        self._log.failure(
            "{operation} {id} from {peer}: the handler failed",
            failure,
            operation=self.msg.OPERATION,
            id=self.msg.message_id,
            peer=self.asce.peer_title,
        )
        self._respond(statuses.PROCESSING_FAILURE)

    def _finish(self, result: object) -> None:
        if result is None:
            pass  # it has answered itself, or _ended sees that it has not
        elif isinstance(result, Response):
            self._send(result)
        elif isinstance(result, int):
            self._respond(result, comment=getattr(result, "comment", ""))
        elif isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], int):
            self._respond(result[0], result[1])
        else:
            raise LocalProtocolError(
                f"a handler returned {type(result).__name__}; expected a status, a response, "
                "(status, data set), a generator, a Deferred or a coroutine"
            )

    async def _stream(self, items: Iterator[object]) -> None:
        try:
            for item in items:
                if inspect.isawaitable(item):
                    item = await item
                if await self._emit(item):
                    break
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        self._complete()

    async def _stream_async(self, items: AsyncIterable[object]) -> None:
        try:
            async for item in items:
                if await self._emit(item):
                    break
        finally:
            aclose = getattr(items, "aclose", None)
            if aclose is not None:
                await aclose()
        self._complete()

    def _respond_cancelled(self) -> None:
        """FE00, with the counters of the last Pending response where there was one."""
        counters = {
            name: value
            for name in _COUNTERS
            if (value := getattr(self._last, name, None)) is not None
        }
        self._send(self.msg.response(statuses.CANCEL, **counters))

    def _complete(self) -> None:
        if self._is_cancelled:
            self._respond_cancelled()
        elif not self._is_answered:
            self._respond(statuses.SUCCESS)

    async def _emit(self, item: object) -> bool:
        """Send one item of a generator; True when it was the last, or nobody wants more."""
        if self._is_cancelled or self._is_stopped:
            return True
        if isinstance(item, Response):
            self._send(item)
        elif isinstance(item, int):
            self._respond(item, comment=getattr(item, "comment", ""))
        else:
            status: int = statuses.PENDING
            if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], int):
                item, status = item
            if isinstance(item, Dataset):
                item = dsutils.encode(item, self.ctx.supported_ts)
            if isinstance(item, bytes) and status in _PENDING:
                self._send_match(status, item)
            else:
                self._respond(status, item, getattr(status, "comment", ""))
        if self._is_answered:
            return True
        self._emitted += 1
        if self.asce.is_congested or self._emitted % _RESPONSES_PER_TURN == 0:
            await self.asce.breathe()
        return False

    # -- answering -----------------------------------------------------------------------------

    def _send_match(self, status: int, data_set: bytes) -> None:
        """A Pending response; all of an operation have the same command set, encoded once."""
        command = self._match_commands.get(status)
        try:
            if command is None:
                self._last = self.msg.response(status, data_set)
                command = self.asce.pending_command(self._last, self.ctx)
                self._match_commands[status] = command
            self.asce.send_pending(command, data_set, self.ctx)
        except AssociationError as error:
            self._log.debug("a response could not be sent: {error}", error=error)

    def _respond(self, status: int, data_set: object = None, comment: str = "") -> None:
        elements: dict[str, Any] = {"error_comment": comment} if comment else {}
        self._send(self.msg.response(status, self._encode(data_set), **elements))

    def _encode(self, data_set: object) -> DataSource | None:
        if isinstance(data_set, Dataset):
            return dsutils.encode(data_set, self.ctx.supported_ts)
        if data_set is None or isinstance(data_set, bytes) or hasattr(data_set, "read"):
            return data_set  # type: ignore[return-value]  # a file, by its read
        raise LocalProtocolError(
            f"a handler gave {type(data_set).__name__}; expected a Dataset, bytes or a file"
        )

    def _send(self, response: Response) -> None:
        if self._is_answered or self._is_stopped:
            return
        is_final = not statuses.Status(response.status).is_pending
        try:
            self.asce.send(response, self.ctx)
        except AssociationError as error:
            # It is about to be released: nobody can be told.
            self._log.debug("a response could not be sent: {error}", error=error)
        self._last = response
        self._is_answered = is_final
