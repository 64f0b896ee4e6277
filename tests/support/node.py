"""The node of ``twistd dicom`` as a process of its own."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx.archive.store.journal import Journal
from netdicom_tx.dsutils import read_file_meta

from .part10 import by_instance
from .processes import CHECKOUT, Process, eventually


@dataclass(frozen=True)
class Address:
    """Where an application entity is reached."""

    ae_title: str
    port: int

    @property
    def endpoint(self) -> str:
        """For Twisted's ``clientFromString``."""
        return f"tcp:127.0.0.1:{self.port}"

    @property
    def arguments(self) -> tuple[str, str]:
        """For the commands of DCMTK and pynetdicom."""
        return "127.0.0.1", str(self.port)


class Node:
    """``twistd -n dicom`` on its own storage directory; may be started again on the same."""

    ae_title = "NETDICOM"
    #: The program that is run.
    program = Path(sys.executable).with_name("twistd")

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.storage = directory / "archive"
        self._directory = directory
        self._options = options
        self._environment = environment
        self._process: Process | None = None
        self._port = 0

    @property
    def address(self) -> Address:
        """Where it listens; another port after each start."""
        return Address(self.ae_title, self._port)

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None, "the node is not running"
        return self._process.pid

    def log_text(self) -> str:
        """What it has logged since it was started."""
        assert self._process is not None, "the node is not running"
        return self._process.text()

    def start(self) -> None:
        """Start it and read from its log where it listens."""
        assert self._process is None, "the node is running"
        process = Process(
            self._directory / "node.log",
            sys.executable,
            self.program,
            *("--pidfile=", "-n", "dicom", "--listen", "tcp:0:interface=127.0.0.1"),
            "--storage",
            self.storage,
            *("--aet", self.ae_title, *self._options),
            PYTHONPATH=os.pathsep.join(
                filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
            ),
            **self._environment,
        )
        listening = process.ready(
            lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", process.text()), "listening node"
        )
        self._port = int(listening[1])
        self._process = process

    def stop(self) -> None:
        """Stop it as an operator does (SIGTERM)."""
        if self._process is not None:
            process, self._process = self._process, None
            status = process.stop()
            assert status == 0, f"the node ended with {status}:\n{process.text()}"
            assert "Server Shut Down" in process.text(), process.text()

    def ended_with(self, status: int) -> None:
        """Wait for its end, and check the exit status."""
        assert self._process is not None, "the node is not running"
        process, self._process = self._process, None
        found = process.wait()
        assert found == status, f"the node ended with {found}:\n{process.text()}"

    def kill(self) -> None:
        """Kill it as a crash does (SIGKILL)."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()

    @property
    def log(self) -> str:
        """Everything it has printed."""
        return (self._directory / "node.log").read_text(errors="replace")

    def instances(self) -> dict[str, Path]:
        """The stored files, by SOP Instance UID; a running node makes some of them behind its answer."""
        if self._process is None:
            return files(self.storage)
        return settled(self.storage)


class NodeTestCase(TestCase):
    """Starts nodes as processes, on one storage directory, and kills those that a test leaves.

    Attributes:
        directory: A directory of the test's own.
    """

    @pytest.fixture(autouse=True)
    def _nodes(self, tmp_path: Path) -> Iterator[None]:
        self.directory = tmp_path
        self._started: list[Node] = []
        yield
        for node in self._started:
            node.kill()

    def start_node(self, config: str, *options: str) -> Node:
        """Start a node with a configuration file."""
        path = self.directory / "node.toml"
        path.write_text(config)
        node = Node(self.directory, "--config", str(path), *options)
        self._started.append(node)
        node.start()
        return node

    def logged(self, node: Node, pattern: str) -> Deferred[re.Match[str]]:
        """Wait for a line of its log."""
        return deferToThread(eventually, lambda: re.search(pattern, node.log), pattern)


def files(storage: Path) -> dict[str, Path]:
    """The stored files in a storage directory, by SOP Instance UID."""
    return by_instance(storage, "instances/**/*.dcm")


def settled(storage: Path) -> dict[str, Path]:
    """The stored files of a running node, when they are all that it has acknowledged before the call."""
    promised = {
        read_file_meta(BytesIO(octets)).sop_instance_uid
        for folder in (storage / "journal", *(storage / "journal").glob("*/"))
        for octets, _ in Journal(folder).recover()
    }

    def all_files() -> dict[str, Path] | None:
        found = files(storage)
        return found if promised <= found.keys() else None

    return eventually(all_files, "file of each instance of the journal")
