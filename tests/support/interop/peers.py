"""The processes these tests talk to: how each is started, known to be ready, and ended.

Everything listens on 127.0.0.1 at a port the kernel chose, with one exception that is said at
:class:`Orthanc`. A process is ended by its own pid, never by a name.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydicom.filereader import read_file_meta_info

CHECKOUT = Path(__file__).resolve().parents[3]
REQUIRE_PEERS = os.environ.get("NETDICOM_TX_REQUIRE_PEERS") == "1"

# The calling AE title of our SCU in these tests.
OUR_SCU = "OURSCU"

# Enough for a loaded machine; a test that waits so long has failed.
PATIENCE = 30.0

T = TypeVar("T")


def absent(reason: str) -> None:
    """Skip the test for want of a peer; fail it where all peers are said to be installed."""
    if REQUIRE_PEERS:
        pytest.fail(f"{reason}, and NETDICOM_TX_REQUIRE_PEERS=1")
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of a peer's program."""
    # Debian has Orthanc in /usr/sbin, which is not on everybody's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        absent(f"{name} is not installed")
    return str(found)


def need_pynetdicom() -> None:
    """Skip or fail without pynetdicom."""
    if find_spec("pynetdicom") is None:
        absent("pynetdicom is not installed")


def eventually(
    condition: Callable[[], T | None], what: str, *, within: float = PATIENCE, every: float = 0.02
) -> T:
    """The first value of ``condition()`` that is neither None nor False.

    The only place that polls.

    Raises:
        AssertionError: It did not come within so many seconds.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, f"no {what} within {within:g} s"
        time.sleep(every)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, at most a minute; its outcome is for the caller to judge."""
    try:
        return subprocess.run(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=60,
            env={**os.environ, **environment},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        printed = (late.output or b"").decode(errors="replace")
        raise AssertionError(f"{command[0]} did not end within a minute:\n{printed}") from None


def succeed(*command: str | Path, **environment: str) -> str:
    """What a program printed; the test fails with it when the program did."""
    done = run(*command, **environment)
    assert done.returncode == 0, f"{done.args}\nexit {done.returncode}\n{done.stdout}"
    return done.stdout


def data_set_bytes(path: Path) -> bytes:
    """What follows the File Meta Information: the data set, as it is encoded.

    Found by File Meta Information Group Length (0002,0000), PS3.10 7.1.
    """
    octets = path.read_bytes()
    assert octets[128:136] == b"DICM\x02\x00\x00\x00", f"{path} is no Part 10 file"
    return octets[144 + int.from_bytes(octets[140:144], "little") :]


def by_instance(directory: Path, pattern: str = "**/*") -> dict[str, Path]:
    """The Part 10 files under a directory, by Media Storage SOP Instance UID."""
    found: dict[str, Path] = {}
    for path in directory.glob(pattern):
        if path.is_file():
            uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
            assert uid not in found, f"{uid} is in {found[uid]} and in {path}"
            found[uid] = path
    return found


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


class Process:
    """A program that runs beside the test, its output in a file, its directory that of the file."""

    def __init__(self, log: Path, *command: str | Path, **environment: str) -> None:
        self.log = log
        self._name = Path(command[0]).name
        with log.open("ab") as output:
            self._offset = output.tell()
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env={**os.environ, **environment},
            )
        self.pid = self._process.pid

    def text(self) -> str:
        """What it has printed since it was started."""
        return self.log.read_bytes()[self._offset :].decode(errors="replace")

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def ready(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait for a condition of its readiness; fail at once when it ends instead."""

        def check() -> T | None:
            value = condition()
            if not value:
                assert not self.ended(), f"{self._name} has ended:\n{self.text()}"
            return value

        try:
            return eventually(check, what)
        except BaseException:
            self.kill()
            raise

    def stop(self, within: float = 15.0) -> int:
        """Ask it to end (SIGTERM), wait, and kill it when it does not; its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self._name} did not end within {within:g} s of SIGTERM:\n{self.text()}"
            ) from None

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power switch would."""
        self._process.kill()
        self._process.wait(PATIENCE)


class Node:
    """``twistd -n dicom`` on its own storage directory; may be started again on the same."""

    ae_title = "NETDICOM"

    def __init__(self, directory: Path, *options: str) -> None:
        self.storage = directory / "archive"
        self._directory = directory
        self._options = options
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

    def start(self) -> None:
        """Start it and read from its log where it listens."""
        assert self._process is None, "the node is running"
        twistd = Path(sys.executable).with_name("twistd")
        process = Process(
            self._directory / "node.log",
            sys.executable,
            twistd,
            *("--pidfile=", "-n", "dicom", "--listen", "tcp:0:interface=127.0.0.1"),
            "--storage",
            self.storage,
            *("--aet", self.ae_title, *self._options),
            PYTHONPATH=os.pathsep.join(
                filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
            ),
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
            # twistd ends by the signal that it was sent, after it has shut down.
            status = process.stop()
            assert status == -signal.SIGTERM, f"the node ended with {status}:\n{process.text()}"
            assert "Server Shut Down" in process.text(), process.text()

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
        """The stored files, by SOP Instance UID."""
        return by_instance(self.storage, "instances/**/*.dcm")


class StoreSCP:
    """DCMTK's ``storescp``, one process for each association, as inetd runs it (option ``-id``).

    By itself it listens on every interface of the machine; behind this listener, only on loopback
    and at a port that the kernel chose.

    Args:
        directory: Where it puts what it receives; made when missing.
        options: Of ``storescp``.
        environment: For example ``TCP_NODELAY="1"``; without it, storescp runs as shipped.
    """

    ae_title = "STORESCP"

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._command = [program("storescp"), "--inetd", "--output-directory", str(directory)]
        self._command += options
        self._environment = {**os.environ, **environment}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(self.ae_title, self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name="storescp listener")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # close() has shut the listener down
            with connection:
                self._processes.append(
                    subprocess.Popen(
                        self._command,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=connection.fileno(),
                        env=self._environment,
                    )
                )

    def settled(self) -> None:
        """Wait until no association is open, and so everything received is in its file."""
        eventually(
            lambda: all(process.poll() is not None for process in self._processes),
            "end of storescp's associations",
        )

    def instances(self) -> dict[str, Path]:
        """The stored files, by SOP Instance UID."""
        self.settled()
        return by_instance(self.directory)

    def kill(self) -> None:
        """End its associations at once (SIGKILL)."""
        for process in self._processes:
            process.kill()
            process.wait(PATIENCE)

    def close(self) -> None:
        """Listen no more; end the associations that are left."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        self.kill()


class PynetdicomStoreSCP:
    """``python -m pynetdicom storescp``: it decodes each data set and encodes it again."""

    ae_title = "STORESCP"

    def __init__(self, directory: Path) -> None:
        need_pynetdicom()
        self.directory = directory / "received"
        port = free_port()
        self.address = Address(self.ae_title, port)
        self._process = Process(
            directory / "storescp.log",
            *(sys.executable, "-m", "pynetdicom", "storescp", "--bind-address", "127.0.0.1"),
            "--output-directory",
            self.directory,
            str(port),
        )
        self._process.ready(lambda: accepts_connections(port), "pynetdicom storescp")

    def instances(self) -> dict[str, Path]:
        """The stored files, by SOP Instance UID."""
        return by_instance(self.directory)

    def close(self) -> None:
        """End it; it keeps nothing, so at once."""
        self._process.kill()


class PynetdicomReceiver:
    """A pynetdicom AE that writes each data set as the bytes that came; ``pynetdicom_peer.py``."""

    ae_title = "PYNETDICOM"

    def __init__(self, directory: Path) -> None:
        need_pynetdicom()
        self.directory = directory / "received"
        self._process = Process(
            directory / "pynetdicom.log",
            sys.executable,
            PYNETDICOM_PEER,
            "receive",
            self.directory,
        )
        listening = self._process.ready(
            lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", self._process.text()),
            "pynetdicom receiver",
        )
        self.address = Address(self.ae_title, int(listening[1]))

    def instances(self) -> dict[str, Path]:
        """The stored files, by SOP Instance UID."""
        return by_instance(self.directory)

    def close(self) -> None:
        """End it; it keeps nothing, so at once."""
        self._process.kill()


PYNETDICOM_PEER = Path(__file__).with_name("pynetdicom_peer.py")


class Orthanc:
    """Orthanc with a configuration and directories of its own, told over its REST interface.

    Its HTTP server is bound to 127.0.0.1. Its DICOM server cannot be: Orthanc 1.10 listens on every
    interface. So it answers only the AE titles below, and each only from 127.0.0.1.
    """

    ae_title = "ORTHANC"

    def __init__(self, directory: Path, *, known: Iterable[str]) -> None:
        executable = program("Orthanc")
        dicom, self._http = free_port(), free_port()
        self.address = Address(self.ae_title, dicom)
        configuration = {
            "Name": "netdicom_tx interop",
            "StorageDirectory": str(directory / "db"),
            "IndexDirectory": str(directory / "db"),
            "Plugins": [],
            "HttpPort": self._http,
            "HttpBindAddresses": ["127.0.0.1"],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.ae_title,
            "DicomPort": dicom,
            "DicomCheckModalityHost": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "UnknownSopClassAccepted": True,
            # The port is where Orthanc would reach them; these only send.
            "DicomModalities": {title: [title, "127.0.0.1", 104] for title in known},
        }
        path = directory / "orthanc.json"
        path.write_text(json.dumps(configuration))
        self._process = Process(directory / "orthanc.log", executable, path)
        self._process.ready(self._answers, "answer of Orthanc")

    def _answers(self) -> bool:
        try:
            self.rest("/system")
        except (OSError, urllib.error.URLError):
            return False
        return accepts_connections(self.address.port)

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._http}{path}", data=body, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(
                    f"Orthanc answered {error.code} to {method} {path}: "
                    f"{error.read().decode(errors='replace')}"
                ) from None

    def rest(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Call the REST interface; what it answers is JSON, whose shape depends on the path."""
        octets = None if body is None else json.dumps(body).encode()
        answer = self._call(method or ("GET" if body is None else "POST"), path, octets)
        return json.loads(answer) if answer else None

    def upload(self, path: Path) -> str:
        """Give it a file over HTTP; its identifier of the instance."""
        return str(json.loads(self._call("POST", "/instances", path.read_bytes()))["ID"])

    def file(self, identifier: str) -> bytes:
        """The file of an instance that it holds."""
        return self._call("GET", f"/instances/{identifier}/file", None)

    def modality(self, address: Address) -> str:
        """Make an application entity known to it as the one that it sends to."""
        name = f"port-{address.port}"
        self.rest(
            f"/modalities/{name}",
            {"AET": address.ae_title, "Host": "127.0.0.1", "Port": address.port},
            "PUT",
        )
        return f"/modalities/{name}"

    def clear(self) -> None:
        """Forget all instances."""
        for patient in self.rest("/patients"):
            self.rest(f"/patients/{patient}", method="DELETE")

    def instances(self, directory: Path) -> dict[str, Path]:
        """What it holds, written to a directory, by SOP Instance UID."""
        directory.mkdir(parents=True, exist_ok=True)
        for identifier in self.rest("/instances"):
            (directory / identifier).write_bytes(self.file(identifier))
        return by_instance(directory)

    def close(self) -> None:
        """End it at once: it needs three seconds to end itself, and keeps nothing."""
        self._process.kill()
