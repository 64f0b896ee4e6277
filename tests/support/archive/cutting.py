"""A connection to PostgreSQL that breaks while the server commits."""

from __future__ import annotations

import socket
import threading
from enum import Enum
from typing import Self

__all__ = ["Cut", "Cutter"]

_OCTETS = 1 << 16


class Cut(Enum):
    """When the connection breaks."""

    NEVER = "never"
    BEFORE = "before the server has read COMMIT"
    AFTER = "after the server has committed, before it has said so"


class Cutter:
    """Forwards connections to a socket of the file system, and breaks the next one that commits.

    Args:
        path: The socket of the server.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.cut = Cut.NEVER
        #: How many connections were broken.
        self.count = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._threads[0].join()
        for each in self._sockets:
            _end(each)
        for thread in self._threads[1:]:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._path)
            self._sockets += near, far
            is_broken = threading.Event()
            for call in (self._send, self._receive):
                thread = threading.Thread(target=call, args=(near, far, is_broken))
                self._threads.append(thread)
                thread.start()

    def _send(self, near: socket.socket, far: socket.socket, is_broken: threading.Event) -> None:
        while octets := _read(near):
            if b"COMMIT" in octets and self.cut is not Cut.NEVER:
                cut, self.cut = self.cut, Cut.NEVER
                self.count += 1
                is_broken.set()
                if cut is Cut.BEFORE:
                    _end(near)
                    break
            if not _write(far, octets):
                break
        _end(far)

    def _receive(self, near: socket.socket, far: socket.socket, is_broken: threading.Event) -> None:
        while octets := _read(far):
            if is_broken.is_set() or not _write(near, octets):
                break
        _end(near)


def _read(near: socket.socket) -> bytes:
    try:
        return near.recv(_OCTETS)
    except OSError:
        return b""


def _write(far: socket.socket, octets: bytes) -> bool:
    try:
        far.sendall(octets)
    except OSError:  # the other side has ended the connection
        return False
    return True


def _end(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
