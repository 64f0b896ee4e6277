"""The transport of an association, as its parts use it.

It sends messages in fragments that the peer admits, and stops reading while a part is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from .dimsemessages import Message
from .dulprovider import DULProtocol
from .exceptions import LocalProtocolError
from .fragments import PDU, cut_up, fragment_again, fragment_command

__all__ = ["Channel"]


class Channel:
    """Cuts messages to fragments that the peer admits, and reads nothing while a part holds it.

    Args:
        clock: The time of all waits.

    Attributes:
        send_limit: The largest P-DATA-TF that the peer admits, in octets; 0 means no limit.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.send_limit = 0
        self._clock = clock
        self._dul: DULProtocol | None = None
        # By identity; True means that the peer itself is the reason.
        self._holders: dict[int, bool] = {}

    def attach(self, dul: DULProtocol) -> None:
        """The transport is open."""
        self._dul = dul

    @property
    def dul(self) -> DULProtocol:
        """The upper layer.

        Raises:
            LocalProtocolError: There is no transport yet.
        """
        if self._dul is None:
            raise LocalProtocolError("the association has no transport yet")
        return self._dul

    @property
    def octets(self) -> tuple[int, int]:
        """How many octets have been received, and how many sent."""
        if self._dul is None:
            return 0, 0
        return self._dul.octets_received, self._dul.octets_sent

    @property
    def held(self) -> int:
        """How many octets of either direction are in memory here."""
        return 0 if self._dul is None else self._dul.held

    def abort(self) -> None:
        """Send A-ABORT, if there is a transport to send it on."""
        if self._dul is not None:
            self._dul.abort()

    def drop(self) -> None:
        """Close the connection without waiting for the peer; octets that the peer has not taken are lost."""
        if self._dul is not None:
            self._dul.abort_transport()

    def hang_up(self, seconds: float) -> None:
        """Close the connection when all that was written has gone out, or after some seconds at the latest."""
        if self._dul is not None:
            self._dul.hang_up(seconds)

    def end(self) -> None:
        """Give up all holds, because only a transport that reads notices that the peer has closed."""
        if self._holders and self._dul is not None:
            self._holders.clear()
            self._dul.resume_reading()

    # -- messages out ------------------------------------------------------------------------------

    def pdus(self, message: Message, context_id: int) -> Iterator[PDU]:
        """The P-DATA-TF PDUs of a message, made as they are asked for."""
        return cut_up(message, context_id=context_id, limit=self.send_limit)

    def send(
        self, message: Message, context_id: int, on_sent: Callable[[], None] | None = None
    ) -> None:
        """Send a message; ``on_sent`` is called when the transport has taken all of it.

        Raises:
            LocalProtocolError: There is no association to send it on, or a value of the command set does not fit.
        """
        if message.data_set is None:
            self.dul.send_message(self.command(message, context_id), on_sent)
        else:
            self.dul.send_message(self.pdus(message, context_id), on_sent)

    def command(self, message: Message, context_id: int) -> bytes:
        """The PDUs of a message without its data set; those of a Pending response are for :meth:`send_pending`."""
        return fragment_command(message, context_id=context_id, limit=self.send_limit)

    def send_pending(self, command: bytes, data_set: bytes, context_id: int) -> None:
        """Send a Pending response that differs from another one only in its data set."""
        self.dul.send_message(
            fragment_again(command, data_set, context_id=context_id, limit=self.send_limit)
        )

    @property
    def is_congested(self) -> bool:
        """Whether the peer is slow to read what this side sends."""
        return self._dul is not None and self._dul.is_congested

    async def breathe(self) -> None:
        """Wait while the peer is slow to read, or else for the reactor's next turn."""
        if self._dul is not None and self._dul.is_congested:
            await self._dul.when_writable()
            return
        turn: defer.Deferred[None] = defer.Deferred()
        call = self._clock.callLater(0, turn.callback, None)
        try:
            await turn
        finally:
            if call.active():
                call.cancel()

    @property
    def is_held(self) -> bool:
        """Whether the transport is not read, so that the peer cannot go on."""
        return bool(self._holders)

    # -- reading -----------------------------------------------------------------------------------

    def pause(self, holder: object, *, for_peer: bool = False) -> None:
        """Stop reading until every holder has called :meth:`resume`.

        Args:
            for_peer: Whether the peer itself is the reason, because it asks for more than was agreed on.
        """
        if not self._holders and self._dul is not None:
            self._dul.pause_reading()
        self._holders[id(holder)] = for_peer

    def resume(self, holder: object) -> None:
        """Give up one hold; see :meth:`pause`."""
        held = self._holders.pop(id(holder), None) is not None
        if held and not self._holders and self._dul is not None:
            self._dul.resume_reading()

    def is_held_by(self, holder: object) -> bool:
        """Whether this holder has called :meth:`pause` and not yet :meth:`resume`."""
        return id(holder) in self._holders

    @property
    def is_behind(self) -> bool:
        """Whether this side itself does not read, so that a response may be here already."""
        return not all(self._holders.values())
