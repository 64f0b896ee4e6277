"""docs/examples/asgi_app.py, run as an ASGI server runs an application."""

import socket
import struct
import sys
from pathlib import Path
from typing import IO

import pytest

from support.doubles import AC, RELEASE_RQ, request
from support.processes import PATIENCE
from support.shell import ROOT
from support.strict import Serving

pytestmark = pytest.mark.slow

# The part of an ASGI server that matters here: a lifespan, and a request for each line of stdin.
SERVER = """
import asyncio, sys
import asgi_app

asgi_app.ENDPOINT = "tcp:0:interface=127.0.0.1"

async def main():
    loop = asyncio.get_running_loop()
    state, started, told, stopped = {}, asyncio.Event(), asyncio.Queue(), asyncio.Event()

    async def of_lifespan(message):
        assert message["type"] in ("lifespan.startup.complete", "lifespan.shutdown.complete"), message
        (started if "startup" in message["type"] else stopped).set()

    lifespan = asyncio.ensure_future(
        asgi_app.app({"type": "lifespan", "state": state}, told.get, of_lifespan)
    )
    told.put_nowait({"type": "lifespan.startup"})
    await started.wait()
    print(state["dicom_port"], flush=True)

    async def of_request(message):
        if message["type"] == "http.response.body":
            print(message["body"].decode(), flush=True)

    for peer in (f"WEB@127.0.0.1:{state['dicom_port']}", "127.0.0.1:1"):
        scope = {"type": "http", "state": state, "query_string": f"peer={peer}".encode()}
        await asgi_app.app(scope, told.get, of_request)
    # A server is stopped by a signal, which ends its lifespan.
    import signal
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    print("serving", flush=True)
    await stop.wait()
    told.put_nowait({"type": "lifespan.shutdown"})
    await stopped.wait()
    await lifespan

asyncio.run(main())
"""


def pdu_type(stream: IO[bytes]) -> int:
    """The type of the next PDU, which is read to its end."""
    kind, length = struct.unpack(">BxI", stream.read(6))
    stream.read(length)
    return int(kind)


def test_the_application_serves_and_asks_and_ends_in_order(tmp_path: Path) -> None:
    """The view has its answers, and a peer that holds an association gets a release, not an abort."""
    (tmp_path / "server.py").write_text(SERVER)
    path = f"{ROOT}:{ROOT / 'docs' / 'examples'}"
    with socket.socket() as peer, peer.makefile("rb") as stream:
        with Serving(tmp_path, {"PYTHONPATH": path, "PATH": ""}, "server.py") as server:
            port = int(server.output.readline())
            assert server.output.readline() == '{"status": "Success (0x0000)"}\n'
            assert "refused" in server.output.readline()
            assert server.output.readline() == "serving\n"
            peer.settimeout(PATIENCE)
            peer.connect(("127.0.0.1", port))
            peer.sendall(request().encode())
            assert pdu_type(stream) == AC
        assert pdu_type(stream) == RELEASE_RQ


def test_the_example_names_nothing_of_a_framework() -> None:
    """So it works with each of them."""
    text = (ROOT / "docs" / "examples" / "asgi_app.py").read_text("utf-8")
    imported = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    modules = {line.split()[1].partition(".")[0] for line in imported}
    assert modules <= {*sys.stdlib_module_names, "twisted", "netdicom_tx"}
