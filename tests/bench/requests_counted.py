"""A relay in front of an object store that counts the HTTP requests that pass through it, by method."""

import re
import socket
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

# The body of a request ends without a line end, right before the next request.
_REQUEST = re.compile(rb"(DELETE|GET|HEAD|POST|PUT) /[^ \r\n]* HTTP/1\.1\r\n")
_PIECE = 1 << 16


class Relay:
    """Listens on a free port of 127.0.0.1, and passes what comes to another one.

    Args:
        port: The port of the object store.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.counted: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                for each in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass, args=each, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_counted: bool) -> None:
        rest = b""
        with suppress(OSError):  # one end has closed, and so do we
            while data := source.recv(_PIECE):
                if is_counted:
                    # A request line may come in two pieces; it is counted when it is complete.
                    rest += data
                    end = 0
                    for found in _REQUEST.finditer(rest):
                        self.counted[found[1].decode("ascii")] += 1
                        end = found.end()
                    rest = rest[max(end, len(rest) - 2048) :]
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
