"""A running node, and entities in memory, for the tests of programs that use this package.

With pytest, name the module in ``conftest.py``; the fixtures below then exist::

    pytest_plugins = ["netdicom_tx.fixtures"]

    def test_my_sender(dicom_node):
        send_everything_to(dicom_node.address)
        assert len(dicom_node.files()) == 3

With trial or unittest, :func:`run_node` starts a node and stops it at the end of the test::

    class SenderTests(TestCase):
        def test_my_sender(self):
            node = run_node(self)

What needs no files and no second process is quicker with :mod:`netdicom_tx.testing`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from .testing import Network

__all__ = ["RunningNode", "dicom_network", "dicom_node", "run_node"]

# Seconds that a node may take to start, and to stop.
_PATIENCE = 60.0


class RunningNode:
    """``twistd -n dicom`` in a process of its own, on a free port of the loopback interface.

    A context manager; or call :meth:`start` and :meth:`stop`.

    Args:
        directory: Where its files go; None makes a directory that is deleted at the end.
        options: Further options of ``twistd dicom``.

    Attributes:
        port: Where it listens.
        storage: Its storage directory.
    """

    ae_title = "NETDICOM"

    def __init__(self, directory: Path | None = None, *options: str) -> None:
        self._own = None if directory is not None else tempfile.TemporaryDirectory("-dicom-node")
        root = Path(self._own.name) if self._own is not None else Path(directory or "")
        self.storage = root / "archive"
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        self._reader: threading.Thread | None = None

    @property
    def address(self) -> str:
        """``"NETDICOM@127.0.0.1:PORT"``, for :meth:`AE.associate` and the ``netdicom`` command."""
        return f"{self.ae_title}@127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return "".join(self._lines)

    def files(self) -> list[Path]:
        """The Part 10 files of the instances that it keeps."""
        return sorted(self.storage.glob("instances/*/*.dcm"))

    def start(self) -> Self:
        """Start it, and wait until it listens.

        Raises:
            RuntimeError: It did not start; the message has its log.
        """
        listening = threading.Event()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "twisted", "--log-format=text", "dicom"),
                *("--listen", "tcp:0:interface=127.0.0.1", "--aet", self.ae_title),
                *("--storage", str(self.storage), *self._options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(listening,), daemon=True)
        self._reader.start()
        if not listening.wait(_PATIENCE) or not self.port:
            self.stop()
            raise RuntimeError(f"the node did not start:\n{self.log}")
        return self

    def _read(self, listening: threading.Event) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            found = re.search(r"listening on 127\.0\.0\.1:(\d+)", line)
            if found is not None:
                self.port = int(found[1])
                listening.set()
        listening.set()

    def stop(self) -> None:
        """Stop it as an operator does (SIGTERM); files in a directory of its own are deleted."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert self._reader is not None
            self._reader.join()
            assert process.stdout is not None
            process.stdout.close()
        if self._own is not None:
            self._own.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def run_node(test: unittest.TestCase, *options: str) -> RunningNode:
    """A node that runs until the end of a test of trial or unittest.

    Args:
        options: Further options of ``twistd dicom``.
    """
    node = RunningNode(None, *options)
    test.addCleanup(node.stop)
    return node.start()


@pytest.fixture
def dicom_node(tmp_path: Path) -> Iterator[RunningNode]:
    """A node that runs until the end of the test, with its files under ``tmp_path``."""
    with RunningNode(tmp_path) as node:
        yield node


@pytest.fixture
def dicom_network() -> Iterator[Network]:
    """A network in memory for any number of application entities, without a port; see ``testing.Network``."""
    with Network() as network:
        yield network
