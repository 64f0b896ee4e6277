"""Processes that read files, a part of them each."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Protocol

from ....exceptions import NetDICOMError
from ..filestore import FileStore
from .found import Found, Source
from .reading import FileReader, Settings, in_parts

__all__ = ["Processes", "Reader", "ReaderError", "readers"]

_ENDED: Final = "a process that reads files has ended; did the memory run out?"


class ReaderError(NetDICOMError):
    """A process that reads files has ended before its work."""


class Reader(Protocol):
    """Looks at files, and gives them their names in the archive."""

    source: Source

    def found(self, paths: Iterable[str]) -> Iterator[list[Found]]:
        """What the files are, in any order; called once."""


@contextmanager
def readers(
    store: FileStore,
    *,
    source: Source = Source.COPY,
    jobs: int = 1,
    unknown_sop_classes: bool = False,
) -> Iterator[Reader]:
    """Have processes that read files while the block runs.

    A process without threads is forked, so begin this before the index is opened.

    Args:
        store: The store, from :func:`opened_for_import`.
        source: What becomes of the files.
        jobs: How many processes look at files. With 1 this process does.
        unknown_sop_classes: Whether instances of private and unknown SOP classes are taken, too.
    """
    settings = Settings(
        *(str(store.root), store.is_synced, store.reserve, source, unknown_sop_classes)
    )
    if jobs == 1:
        reader = FileReader(settings)
        try:
            yield reader
        finally:
            reader.close()
        return
    processes = Processes(settings)
    try:
        processes.start(jobs)
        yield processes
    finally:
        processes.stop()


def _work(ours: Connection, settings: Settings, copied: Sequence[Connection]) -> None:
    """The life of a process: parts of the files come, and what was found goes back; it ends with the connection."""
    # Signals are for the process that has started this one; when that ends, the connection does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Files make no cycles of objects; looking for some costs a fifth of the time.
    gc.freeze()
    gc.disable()
    for each in copied:
        each.close()
    reader = FileReader(settings)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            paths = ours.recv()
            try:
                for group in reader.take(paths) if paths else [reader.rest()]:
                    ours.send(group)
            except Exception as error:  # whatever it is, the other process must end the import
                ours.send(error)
            ours.send(None)


@dataclass(slots=True)
class _Process:
    """A process with the parts that it has."""

    process: Any
    connection: Connection
    parts: int = 0
    is_asked_for_rest: bool = False  # by an empty part

    def give(self, part: list[str]) -> None:
        """Give it a part; an empty one asks for the rest.

        Raises:
            ReaderError: The process has ended.
        """
        try:
            self.connection.send(part)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ReaderError(_ENDED) from error
        self.parts += 1

    def received(self) -> list[Found] | None:
        """What it has sent; None when it is done with a part.

        Raises:
            Exception: What it has met.
            ReaderError: The process has ended.
        """
        try:
            message: list[Found] | Exception | None = self.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise ReaderError(_ENDED) from error
        if isinstance(message, Exception):
            raise message
        return message


class Processes:
    """Processes that have a :class:`FileReader` each."""

    def __init__(self, settings: Settings) -> None:
        self.source = settings.source
        self._settings = settings
        self._processes: list[_Process] = []

    def start(self, jobs: int) -> None:
        # A process with threads must not be forked, because one of them may hold a lock. A server of processes, which
        # is started then, loads our modules once more.
        is_alone = threading.active_count() == 1 and sys.platform == "linux"
        context: Any = multiprocessing.get_context("fork" if is_alone else "forkserver")
        if not is_alone:
            context.set_forkserver_preload([__name__])
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            # The ends that a fork has copied, too, would keep the connections open when this process is killed.
            copied = [*(each.connection for each in self._processes), ours] if is_alone else []
            process = context.Process(
                target=_work, args=(theirs, self._settings, copied), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(_Process(process, ours))

    def stop(self) -> None:
        for each in self._processes:
            each.connection.close()
        for each in self._processes:
            each.process.join()

    def found(self, paths: Iterable[str]) -> Iterator[list[Found]]:
        parts = in_parts(paths)
        # Each has a second part when the first one is done.
        for process in (*self._processes, *self._processes):
            part = next(parts, None)
            if part is not None:
                process.give(part)
        by_connection = {each.connection: each for each in self._processes}
        while busy := [each.connection for each in self._processes if each.parts]:
            for connection in wait(busy):
                assert isinstance(connection, Connection)
                process = by_connection[connection]
                message = process.received()
                if message is not None:
                    yield message
                    continue
                process.parts -= 1
                part = next(parts, None)
                if part is not None:
                    process.give(part)
                elif not process.parts and not process.is_asked_for_rest:
                    process.is_asked_for_rest = True
                    process.give([])
