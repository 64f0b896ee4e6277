"""HAProxy in front of nodes of a test, with the configuration of ``docs/deploy/haproxy``."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from support.processes import CHECKOUT, Process, accepts_connections, eventually, free_port, program

__all__ = ["DEPLOY", "Behind", "HAProxy"]

#: Where the configuration is.
DEPLOY = CHECKOUT / "docs" / "deploy" / "haproxy"


class Behind(NamedTuple):
    """The ports of a node."""

    plain: int = 0
    http: int = 0
    tls: int = 0


class HAProxy:
    """HAProxy with the configuration of the documentation, at other ports.

    Args:
        folder: Where its configuration, its socket and its log are.
        nodes: The nodes by the names that the configuration has for them; the others are left out.
        changes: What else stands in place of something in the configuration.
        more: What is added to it.
    """

    def __init__(
        self,
        folder: Path,
        nodes: Mapping[str, Behind],
        changes: Mapping[str, str] | None = None,
        more: str = "",
    ) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self._program = program("haproxy")
        self._folder = folder
        self._socket = folder / "admin.sock"
        self.config = folder / "haproxy.cfg"
        text = "\n".join((DEPLOY / each).read_text() for each in ("haproxy.cfg", "echo-check.cfg"))
        text += more
        for before, after in {
            "/run/haproxy/admin.sock": str(self._socket),
            "bind :104\n": f"bind 127.0.0.1:{self.port}\n",
            "bind :2762\n": f"bind 127.0.0.1:{self.tls_port}\n",
            # Another address than that of the peers.
            "    default-server ": "    source 127.0.0.9\n    default-server ",
            **(changes or {}),
        }.items():
            assert before in text, before
            text = text.replace(before, after)
        for name, ports in nodes.items():
            text = re.sub(rf"\b{name}:11112\b", f"127.0.0.1:{ports.plain}", text)
            text = re.sub(rf"\b{name}:2762\b", f"127.0.0.1:{ports.tls}", text)
            text = re.sub(rf"(server {name} .*check port) 8042", rf"\1 {ports.http}", text)
        lines = [each for each in text.splitlines() if not re.search(r" node\d:", each)]
        self.config.write_text("\n".join(lines) + "\n")
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        log = self._folder / "haproxy.log"
        self._process = Process(log, self._program, "-db", "-f", self.config)
        self._process.ready(lambda: accepts_connections(self.port), "listening HAProxy")

    def close(self) -> None:
        """End it; it keeps nothing, so at once."""
        if self._process is not None:
            self._process.kill()

    def command(self, words: str) -> str:
        """What it answers to a command at its socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._socket))
            connection.sendall(f"{words}\n".encode())
            return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()

    def status(self, backend: str, node: str) -> str:
        """What it thinks of a node, such as UP or DOWN."""
        said = self.command("show stat")
        names, *lines = said.lstrip("# ").splitlines()
        rows = [dict(zip(names.split(","), each.split(","), strict=False)) for each in lines]
        (found,) = [
            each["status"]
            for each in rows
            if (each.get("pxname"), each.get("svname")) == (backend, node)
        ]
        return found

    def wait_for(self, backend: str, node: str, status: str) -> None:
        """Wait until it thinks so of a node."""
        what = f"{node} that is {status} for HAProxy"
        eventually(lambda: self.status(backend, node).startswith(status), what)
