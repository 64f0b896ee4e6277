"""A node that drains: not ready, but it serves, so that a balancer notices before the port closes."""

import os
import re
import signal
from urllib.error import HTTPError
from urllib.request import urlopen

from twisted.internet.threads import deferToThread

from netdicom_tx import AE, RemoteAE, verification_scu
from support.doubles import echo
from support.node import Node, NodeTestCase
from support.processes import eventually


def readiness(port: int) -> tuple[int, str]:
    """What ``/ready`` answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


class DrainTests(NodeTestCase):
    """``twistd -n dicom`` as a process."""

    def start(self, seconds: int, *options: str) -> tuple[Node, int]:
        """Start a node, and return it with the port of its status page."""
        config = f"[node]\ndrain = {seconds}\n"
        node = self.start_node(config, "--http=tcp:0:interface=127.0.0.1", *options)
        found = eventually(lambda: re.search(r"http://127\.0\.0\.1:(\d+)", node.log), "page")
        port = int(found[1])
        eventually(lambda: readiness(port)[0] == 200, "node that is ready")
        return node, port

    async def serve_while_draining(self, *options: str) -> None:
        node, port = self.start(3600, *options)
        os.kill(node.pid, signal.SIGTERM)
        await deferToThread(eventually, lambda: readiness(port)[0] == 503, "draining node")
        assert readiness(port)[1] == "not ready\nthe node is draining\n"
        ae = AE("SCU").add_scu(verification_scu)
        self.addCleanup(ae.drain, 0)
        async with await ae.request_association(RemoteAE("ANY", node.address.endpoint)) as asce:
            await echo(asce)
        os.kill(node.pid, signal.SIGTERM)  # does not wait for the hour
        await deferToThread(node.ended_with, 1)
        assert "peers are served for 3600 s more" in node.log

    async def test_new_associations_are_served_until_the_balancer_has_noticed(self) -> None:
        await self.serve_while_draining()

    async def test_workers_serve_as_well(self) -> None:
        await self.serve_while_draining("--workers", "2")

    async def test_the_node_then_ends_in_order(self) -> None:
        node, _ = self.start(1)
        await deferToThread(node.stop)
        assert re.search("served for 1 s more(?s:.*)has stopped", node.log)
