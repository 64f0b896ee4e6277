"""The node under systemd, as far as the node sees it: a socket that is handed over."""

import os
import socket
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from support.processes import CHECKOUT, Process, run

pytestmark = pytest.mark.slow

# systemd gives the sockets from file descriptor 3 on, and says for which process they are (sd_listen_fds(3)).
HANDING_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="dicom")
os.execv(sys.argv[2], sys.argv[2:])
"""
PYTHONPATH = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))


def echo(port: int) -> int:
    """How ``netdicom echo`` ends."""
    command = (sys.executable, "-m", "netdicom_tx", "echo", f"127.0.0.1:{port}")
    return run(*command, PYTHONPATH=PYTHONPATH).returncode


def listens(node: Process) -> bool:
    return "listening on" in node.text()


@pytest.mark.parametrize("which", ["index=0", "name=dicom"])
@pytest.mark.parametrize(
    "runner", ["netdicom serve", "twist --log-format=text dicom", "twistd -n --pidfile= dicom"]
)
def test_the_node_serves_on_a_socket_that_it_was_given(
    tmp_path: Path, runner: str, which: str
) -> None:
    """It serves a peer that called before it ran, and leaves the socket open for the next process."""
    name, *words = runner.split()
    program = (
        ["-m", "netdicom_tx"] if name == "netdicom" else [Path(sys.executable).with_name(name)]
    )
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
        closing(socket.create_connection(listener.getsockname())),
    ):
        port = listener.getsockname()[1]
        for start in (1, 2):
            node = Process.inheriting(
                [listener.fileno()],
                tmp_path / f"{start}.log",
                *(sys.executable, "-c", HANDING_OVER, str(listener.fileno())),
                *(sys.executable, *program, *words),
                *("--listen", f"systemd:domain=INET:{which}", "--storage", tmp_path / "archive"),
                PYTHONPATH=PYTHONPATH,
            )
            try:
                node.ready(partial(listens, node), "node")
                assert echo(port) == 0
                assert f"listening on 127.0.0.1:{port}" in node.text()
            finally:
                assert node.stop() == 0
