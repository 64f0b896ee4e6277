"""HAProxy in front of nodes, with the configuration of the documentation."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trustme

from netdicom_tx.archive.control import ask
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.interop.haproxy import DEPLOY, Behind, HAProxy
from support.interop.population import UNCOMPRESSED
from support.interop.samples import Sample
from support.node import Node
from support.processes import eventually, free_port, program, run, succeed

pytestmark = pytest.mark.interop

CONFIG = """\
[node]
proxy_protocol = true
proxies = ["127.0.0.9"]
drain = {drain}
{more}
"""


def is_ready(ports: Behind) -> bool:
    """Whether a node says that it is ready."""
    try:
        with urlopen(f"http://127.0.0.1:{ports.http}/ready", timeout=30) as answer:
            return bool(answer.status == 200)
    except HTTPError as error:
        error.close()
        return False


@pytest.fixture
def start_nodes(tmp_path: Path) -> Iterator[Callable[..., list[tuple[Node, Behind]]]]:
    """Start nodes behind a proxy at ports that stay the same."""
    with ExitStack() as stack:

        def start(
            count: int, *options: str, more: str = "", drain: int = 0
        ) -> list[tuple[Node, Behind]]:
            made = []
            for number in range(1, count + 1):
                folder = tmp_path / f"node{number}"
                folder.mkdir()
                config = folder / "node.toml"
                config.write_text(CONFIG.format(drain=drain, more=more))
                ports = Behind(free_port(), free_port())
                node = Node(
                    folder,
                    *("--config", str(config), *options),
                    f"--listen=tcp:{ports.plain}:interface=127.0.0.1",
                    f"--http=tcp:{ports.http}:interface=127.0.0.1",
                )
                stack.callback(node.kill)
                node.start()
                # HAProxy takes a node for one that is up until it has looked.
                eventually(partial(is_ready, ports), "node that is ready")
                made.append((node, ports))
            return made

        yield start


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Callable[..., HAProxy]]:
    """Start HAProxy in front of nodes."""
    with ExitStack() as stack:

        def start(nodes: list[Behind], *arguments: Any) -> HAProxy:
            named = {f"node{number}": each for number, each in enumerate(nodes, 1)}
            proxy = stack.enter_context(closing(HAProxy(tmp_path, named, *arguments)))
            proxy.start()
            for name, ports in named.items():
                if ports.http:
                    proxy.wait_for("nodes", name, "UP")
            return proxy

        yield start


def plain(samples: tuple[Sample, ...]) -> list[Path]:
    """The images that every storescu sends."""
    return [
        each.path
        for each in samples
        if each.sop_class == CT_IMAGE_STORAGE
        and each.conforms
        and each.transfer_syntax in UNCOMPRESSED
    ]


def logged(node: Node, pattern: str) -> None:
    eventually(lambda: re.search(pattern, node.log), f"line {pattern}")


def send(proxy: HAProxy, *paths: Path) -> None:
    """Send files with DCMTK to the port of the proxy."""
    succeed(program("storescu"), "-aec", "NETDICOM", "127.0.0.1", str(proxy.port), *paths)


def test_the_configuration_is_right(tmp_path: Path) -> None:
    """Without a warning, as HAProxy reads it."""
    nodes = {f"node{number}": Behind(11112, 8042, 2762) for number in (1, 2, 3)}
    proxy = HAProxy(tmp_path, nodes)
    done = run(program("haproxy"), "-c", "-dW", "-f", proxy.config)
    assert done.returncode == 0, done.stdout
    assert "valid" in done.stdout
    text = proxy.config.read_text()
    assert text.count("    server node") == 9
    # Nothing is left that only holds in the documentation.
    assert not re.search(r"(?<!\d)(?:11112|8042)\b.*example", text)
    assert (DEPLOY / "compose.yaml").exists()


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_node_sees_the_peer(
    version: str,
    workers: str,
    start_nodes: Callable[..., list[tuple[Node, Behind]]],
    start_proxy: Callable[..., HAProxy],
    samples: tuple[Sample, ...],
) -> None:
    """Rules by network hold for the peer, and the log names it; the proxy calls from 127.0.0.9."""
    more = """
[access]
default = "none"
[[peer]]
title = "STORESCU"
networks = ["127.0.0.1"]
"""
    ((node, ports),) = start_nodes(1, "--workers", workers, more=more)
    proxy = start_proxy([ports], {"send-proxy-v2": version})
    send(proxy, *(images := plain(samples)[:3]))
    assert len(node.instances()) == len(images) > 0
    logged(node, r"association from STORESCU at 127\.0\.0\.1:\d+ to NETDICOM")
    refused = run(program("echoscu"), "127.0.0.1", str(proxy.port))
    assert refused.returncode != 0
    logged(node, r"refused ECHOSCU at 127\.0\.0\.1:\d+")
    assert "127.0.0.9" not in node.log


def test_checks_leave_no_line(
    start_nodes: Callable[..., list[tuple[Node, Behind]]],
    start_proxy: Callable[..., HAProxy],
) -> None:
    """Thirty of each kind, as many as a minute has: a connection that is closed, a C-ECHO, and ``/ready``."""
    ((node, ports),) = start_nodes(1)
    eventually(lambda: "listening on" in node.log and "status page" in node.log, "start")
    before = node.log
    connect = "\nbackend by-connection\n    option tcp-check\n"
    connect += "    server node1 node1:11112 send-proxy-v2 check\n"
    proxy = start_proxy([ports], {"inter 2s": "inter 50ms"}, connect)

    def counted() -> bool:
        snapshot = ask(node.storage, "status")
        echoes = sum(
            each["count"]
            for each in snapshot["operations"]
            if (each["operation"], each["status"]) == ("C-ECHO", 0)
        )
        return bool(echoes >= 30 and snapshot["associations"]["refused"].get("silence", 0) >= 30)

    eventually(counted, "30 checks of each kind")
    for backend in ("nodes", "nodes-by-echo", "by-connection"):
        assert proxy.status(backend, "node1") == "UP"
    assert node.log == before


def test_a_node_without_a_header_is_told_so(
    start_nodes: Callable[..., list[tuple[Node, Behind]]],
    start_proxy: Callable[..., HAProxy],
) -> None:
    """When the configuration of the proxy has been forgotten."""
    ((node, ports),) = start_nodes(1)
    proxy = start_proxy([ports], {" send-proxy-v2": ""})
    assert run(program("echoscu"), "127.0.0.1", str(proxy.port)).returncode != 0
    logged(node, r"refused 127\.0\.0\.9:\d+: octets came without a header \(01 00 .*send-proxy-v2")


class Authority:
    """A certificate for a node or the proxy, and the arguments of DCMTK's programs that call it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.pem = folder / "server.pem"
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self.pem))
        trusted = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(trusted))
        self.arguments = ("+tla", "+cf", str(trusted))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_tls_goes_through_to_the_node(
    workers: str,
    start_nodes: Callable[..., list[tuple[Node, Behind]]],
    start_proxy: Callable[..., HAProxy],
    tmp_path: Path,
) -> None:
    """The header is before TLS, which the node speaks with the peer."""
    authority = Authority(tmp_path)
    port = free_port()
    ((node, ports),) = start_nodes(
        1,
        *("--workers", workers, "--tls-certificate", str(authority.pem)),
        f"--tls-listen=tcp:{port}:interface=127.0.0.1",
    )
    proxy = start_proxy([ports._replace(tls=port)])
    proxy.wait_for("nodes-tls", "node1", "UP")
    succeed(program("echoscu"), *authority.arguments, "127.0.0.1", str(proxy.tls_port))
    logged(node, r"association from ECHOSCU at 127\.0\.0\.1:\d+")


def test_tls_may_end_at_the_proxy(
    start_nodes: Callable[..., list[tuple[Node, Behind]]],
    start_proxy: Callable[..., HAProxy],
    tmp_path: Path,
) -> None:
    """The node then sees no certificate, but still the address of the peer."""
    authority = Authority(tmp_path)
    ((node, ports),) = start_nodes(1)
    port = free_port()
    more = f"""
frontend ends-tls
    bind 127.0.0.1:{port} ssl crt {authority.pem} ssl-min-ver TLSv1.2
    default_backend nodes
"""
    start_proxy([ports], {}, more)
    succeed(program("echoscu"), *authority.arguments, "127.0.0.1", str(port))
    logged(node, r"association from ECHOSCU at 127\.0\.0\.1:\d+")


def test_senders_notice_nothing_of_a_rolling_restart(
    start_nodes: Callable[..., list[tuple[Node, Behind]]],
    start_proxy: Callable[..., HAProxy],
    samples: tuple[Sample, ...],
) -> None:
    """One node after the other is drained, stopped and started, while four senders go on: no association fails."""
    nodes = start_nodes(2, drain=10)
    # On a busy machine, a node may take long to answer, which must not make both of them go away at once.
    changes = {"inter 2s": "inter 500ms", "timeout check 5s": "timeout check 30s"}
    proxy = start_proxy([ports for _, ports in nodes], changes)
    proxy_port = str(proxy.port)
    is_over = threading.Event()
    images = plain(samples)
    counts = [0] * 4
    failures: list[str] = []

    def send_on(number: int) -> None:
        while not is_over.is_set():
            path = images[(counts[number] + number) % len(images)]
            done = run(program("storescu"), "-aec", "NETDICOM", "127.0.0.1", proxy_port, path)
            if done.returncode:
                failures.append(done.stdout)
            counts[number] += 1

    def gone_on() -> None:
        """Wait until each sender has sent some more."""
        before = list(counts)
        eventually(
            lambda: all(now > then + 2 for now, then in zip(counts, before, strict=True)), "senders"
        )

    senders = [threading.Thread(target=send_on, args=(number,)) for number in range(len(counts))]
    for each in senders:
        each.start()
    try:
        gone_on()
        for name, (node, _) in zip(("node1", "node2"), nodes, strict=True):
            os.kill(node.pid, signal.SIGTERM)
            node.ended_with(0)
            gone_on()
            node.start()
            proxy.wait_for("nodes", name, "UP")
        gone_on()
    finally:
        is_over.set()
        for each in senders:
            each.join()
    assert failures == []
    assert all("association from STORESCU" in node.log_text() for node, _ in nodes)
