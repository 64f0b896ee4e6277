"""The processes these tests talk to: how each is started, known to be ready, and ended.

Everything listens on 127.0.0.1 at a port the kernel chose, with one exception that is said at
:class:`Orthanc`. A process is ended by its own pid, never by a name.
"""

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..node import Address
from ..part10 import by_instance
from ..processes import (
    PATIENCE,
    Process,
    accepts_connections,
    eventually,
    free_port,
    need_pynetdicom,
    program,
)

# The calling AE title of our SCU in these tests.
OUR_SCU = "OURSCU"


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


class PynetdicomPeer:
    """A pynetdicom AE of ``pynetdicom_peer.py``, at the port that it prints."""

    ae_title = "PYNETDICOM"

    def __init__(self, directory: Path, *arguments: str | Path) -> None:
        need_pynetdicom()
        log = directory / "pynetdicom.log"
        self._process = Process(log, sys.executable, PYNETDICOM_PEER, *arguments)
        listening = self._process.ready(
            lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", self._process.text()),
            "pynetdicom peer",
        )
        self.address = Address(self.ae_title, int(listening[1]))

    def close(self) -> None:
        """End it; it keeps nothing, so at once."""
        self._process.kill()


class PynetdicomReceiver(PynetdicomPeer):
    """Writes each data set as the bytes that came."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "received"
        super().__init__(directory, "receive", self.directory)

    def instances(self) -> dict[str, Path]:
        """The stored files, by SOP Instance UID."""
        return by_instance(self.directory)


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

    def upload_many(self, files: Iterable[bytes]) -> None:
        """Give it instances over HTTP as one ZIP archive, which takes it a tenth of the time."""
        octets = io.BytesIO()
        with zipfile.ZipFile(octets, "w") as archive:
            for number, each in enumerate(files):
                archive.writestr(str(number), each)
        self._call("POST", "/instances", octets.getvalue())

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
