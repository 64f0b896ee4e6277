"""Listeners that do what peers in trouble do."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# Linux has room for one connection more than the backlog says.
_WAITING = 4
_SYN_SENT = "02"


class Full:
    """A listener of 127.0.0.1 that answers no SYN, because its backlog is full (Linux).

    Attributes:
        port: Where it listens.
    """

    def __init__(self, port: int, own: frozenset[int]) -> None:
        self.port = port
        self._own = own  # the ports of the connections that fill the backlog

    def attempts(self) -> int:
        """How many others, in all processes, are trying to connect."""
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return sum(
            row[2] == f"0100007F:{self.port:04X}"
            and row[3] == _SYN_SENT
            and int(row[1].split(":")[1], 16) not in self._own
            for row in rows
        )


@contextmanager
def full_listener() -> Iterator[Full]:
    """Such a listener, for the time of the block."""
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        own = set()
        for _ in range(_WAITING):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(full.getsockname())
            own.add(waiting.getsockname()[1])
        yield Full(full.getsockname()[1], frozenset(own))
