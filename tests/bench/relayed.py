"""What HAProxy needs to pass octets and connections on, in CPU time: a plain sender and a plain receiver on loopback.

python -m tests.bench.relayed [--gigabytes N] [--connections N]
"""

import argparse
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.bench.peers import cpu_seconds, free_port, listens, running, until

_PIECE = bytes(1 << 20)
_HAPROXY = "/usr/sbin/haproxy"
_CONFIGURATION = """
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen dicom
    bind 127.0.0.1:{port}
    server node 127.0.0.1:{to} send-proxy-v2
"""


def _receive(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # it was closed
            return
        # The relay may reset a connection that is over at once.
        with connection, suppress(ConnectionError):
            while connection.recv(len(_PIECE)):
                pass
            connection.sendall(b"x")


def _send(port: int, pieces: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        for _ in range(pieces):
            connection.sendall(_PIECE)
        connection.shutdown(socket.SHUT_WR)
        # The receiver has all.
        connection.recv(1)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.relayed", description=__doc__)
    parser.add_argument("--gigabytes", type=int, default=4)
    parser.add_argument("--connections", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        port = free_port()
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        threading.Thread(target=_receive, args=(listener,), daemon=True).start()
        configuration = Path(temporary) / "haproxy.cfg"
        to = listener.getsockname()[1]
        configuration.write_text(_CONFIGURATION.format(port=port, to=to), "utf-8")
        command = [_HAPROXY, "-db", "-f", str(configuration)]
        with running(command, Path(temporary) / "haproxy", {}) as (started, log):
            until(lambda: listens(port) or None, "HAProxy", started, log)
            used, began = cpu_seconds(started.pid), time.perf_counter()
            _send(port, arguments.gigabytes * 1000)
            seconds = time.perf_counter() - began
            used = (cpu_seconds(started.pid) - used) / arguments.gigabytes
            rate = arguments.gigabytes * len(_PIECE) * 1000 * 8 / seconds / 1e9
            print(f"one connection: {rate:.1f} Gbit/s, {used:.2f} CPU s for each GB")
            used, began = cpu_seconds(started.pid), time.perf_counter()
            for _ in range(arguments.connections):
                _send(port, 0)
            seconds = time.perf_counter() - began
            used = (cpu_seconds(started.pid) - used) / arguments.connections * 1000
            print(f"{arguments.connections / seconds:,.0f} connections/s, {used:.3f} CPU ms each")
        listener.close()


if __name__ == "__main__":
    main()
