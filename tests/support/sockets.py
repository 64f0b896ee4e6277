"""Listeners that do what peers in trouble do."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# Linux has room for one connection more than the backlog says.
_WAITING = 4
_SYN_SENT = "02"


@contextmanager
def full_listener() -> Iterator[int]:
    """A port of 127.0.0.1 that answers no SYN, because its backlog is full (Linux)."""
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(_WAITING):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        yield int(full.getsockname()[1])


def attempts(port: int) -> int:
    """How many connections to a port of 127.0.0.1 are being attempted, by all processes."""
    place = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[2] == place and row[3] == _SYN_SENT for row in rows)
