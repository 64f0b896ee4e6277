"""A node behind a proxy: rules, limits and lines see the peer, with one process and with several."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from typing import Any

import pytest
import trustme
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.threads import deferToThread

from netdicom_tx import AE, RemoteAE, verification_scu
from netdicom_tx.archive.control import ask
from netdicom_tx.asceprovider import Association
from netdicom_tx.exceptions import AssociationRejectedError
from netdicom_tx.sopclass import qr_find_scu
from netdicom_tx.tls import TLSOptions
from support.doubles import echo
from support.node import Node, NodeTestCase
from support.processes import eventually
from support.proxies import Proxied, binary, tcp4

CONFIG = """\
[node]
proxy_protocol = true
proxies = ["127.0.0.1"]
max_associations_per_host = 2
{more}

[access]
default = "none"

[[peer]]
title = "SCU"
networks = ["192.0.2.0/24"]
"""


class ProxiedNodeTests(NodeTestCase):
    """The node as a process, and this one as the proxy."""

    def start(self, *options: str, more: str = "") -> Node:
        return self.start_node(CONFIG.format(more=more), *options)

    async def associate(
        self, node: Node, header: bytes, port: int = 0, at: str = "", **options: Any
    ) -> Association:
        plain = clientFromString(reactor, at or f"tcp:127.0.0.1:{port or node.address.port}")
        ae = AE("SCU").add_scu(verification_scu)
        self.addCleanup(ae.drain, 0)
        return await ae.request_association(RemoteAE("ANY", Proxied(plain, header), **options))

    async def serve_by_address(self, node: Node) -> None:
        """Rules, limits for each host and lines are about the peer."""
        first = await self.associate(node, tcp4("192.0.2.7", 49152))
        await echo(first)
        await self.logged(node, r"association from SCU at 192\.0\.2\.7:49152 to ANY")
        second = await self.associate(node, b"PROXY TCP4 192.0.2.7 192.0.2.1 49153 104\r\n")
        other = await self.associate(node, tcp4("192.0.2.8", 1))
        with pytest.raises(AssociationRejectedError):
            await self.associate(node, tcp4("198.51.100.1", 1))
        await self.logged(node, r"refused SCU at 198\.51\.100\.1:1: calling AE title 'SCU'")
        with pytest.raises(AssociationRejectedError):
            await self.associate(node, binary(0, 0, b""))
        await self.logged(node, r"refused SCU at 127\.0\.0\.1:\d+: calling AE title 'SCU'")
        assert [each.error for each in (second, other)] == [None, None]

    async def test_one_process(self) -> None:
        await self.serve_by_address(self.start())

    async def test_several_processes(self) -> None:
        """The lead reads the header, and gives the connection with the address to a worker."""
        await self.serve_by_address(self.start("--workers", "2"))

    async def test_the_limit_for_each_host_is_that_of_the_peer(self) -> None:
        """The peers of a proxy are not one host."""
        node = self.start()
        others = [
            await self.associate(node, tcp4(f"192.0.2.{number}", 1)) for number in range(1, 7)
        ]
        of_one_host = [await self.associate(node, tcp4("192.0.2.99", each)) for each in (1, 2)]
        with contextlib.suppress(AssociationRejectedError):
            # There is a place if one of the two has been silent for a second, which is then aborted.
            of_one_host.append(await self.associate(node, tcp4("192.0.2.99", 3)))
        await deferToThread(
            eventually, lambda: sum(each.error is None for each in of_one_host) <= 2, "limit"
        )
        assert not any(each.error for each in others)

    async def serve_at_a_local_socket(self, *options: str) -> None:
        path = self.directory / "s"
        node = self.start(f"--listen=unix:{path}", *options)
        asce = await self.associate(node, tcp4("192.0.2.7", 9), at=f"unix:{path}")
        await echo(asce)
        snapshot = await deferToThread(ask, node.storage, "status")
        assert [each["peer"] for each in snapshot["associations"]["live"]] == ["192.0.2.7:9"]
        await self.logged(node, r"association from SCU at 192\.0\.2\.7:9 to ANY")

    async def test_a_proxy_may_call_at_a_local_socket(self) -> None:
        await self.serve_at_a_local_socket()

    async def test_several_processes_may_serve_a_local_socket(self) -> None:
        await self.serve_at_a_local_socket("--workers", "2")

    async def test_the_audit_trail_names_the_peer(self) -> None:
        """And not the proxy (PS3.15 A.5.3.7)."""
        trail = self.directory / "audit"
        node = self.start("--audit", str(trail))
        await echo(await self.associate(node, tcp4("192.0.2.7", 9)))
        with pytest.raises(AssociationRejectedError):
            await self.associate(node, tcp4("198.51.100.1", 1))
        await deferToThread(
            eventually, lambda: "198.51.100.1" in trail.read_text(), "audit message"
        )
        assert 'NetworkAccessPointID="198.51.100.1"' in trail.read_text()

    async def test_tls_begins_behind_the_header(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("pacs.example")
        chain = self.directory / "node.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(str(chain))
        trusted = self.directory / "ca.pem"
        authority.cert_pem.write_to_path(str(trusted))
        node = self.start(
            *("--tls-listen", "tcp:0:interface=127.0.0.1", "--tls-certificate", str(chain))
        )
        found = eventually(
            lambda: re.findall(r"listening on 127\.0\.0\.1:(\d+)", node.log)[1:], "second port"
        )
        tls = TLSOptions(trust=str(trusted), server_name="pacs.example")
        asce = await self.associate(node, tcp4("192.0.2.7", 7), int(found[0]), tls=tls)
        await echo(asce)
        await self.logged(node, r"association from SCU at 192\.0\.2\.7:7 to ANY")

    async def test_the_trusted_proxies_change_while_it_runs(self) -> None:
        node = self.start()
        config = self.directory / "node.toml"
        changed = config.read_text().replace("127.0.0.1", "192.0.2.10")
        config.write_text(changed.replace("proxy_protocol = true", "proxy_protocol = false"))
        os.kill(node.pid, signal.SIGHUP)
        await self.logged(node, r"\[node\] proxies changed and took effect")
        await self.logged(node, r"other values for \[node\] proxy_protocol, which take effect when")
        with socket.create_connection(node.address.arguments) as raw:
            raw.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                assert raw.recv(1) == b""
        await self.logged(node, "that is not from a proxy; expected one from 192.0.2.10/32")

    async def test_checks_leave_no_line(self) -> None:
        """An association that can do more than echo has its lines, wherever it comes from."""
        node = self.start_node('[node]\nproxies = ["127.0.0.1"]\n')
        with socket.create_connection(node.address.arguments):
            pass
        check = AE("CHECK").add_scu(verification_scu)
        peer = AE("PEER").add_scu(verification_scu).add_scu(qr_find_scu)
        for ae in (check, peer):
            self.addCleanup(ae.drain, 0)
            remote = RemoteAE("ANY", node.address.endpoint)
            async with await ae.request_association(remote) as asce:
                await echo(asce)
        await self.logged(node, "association with PEER is over")
        assert "association from PEER at 127.0.0.1" in node.log
        assert "CHECK" not in node.log
        assert "nothing came" not in node.log
        snapshot = await deferToThread(ask, node.storage, "status")
        assert snapshot["associations"]["refused"] == {"silence": 1}
        assert snapshot["associations"]["accepted"] == {"acceptor": 2}

    async def test_without_a_header_there_is_one_line(self) -> None:
        """Not one for each connection."""
        node = self.start()
        for _ in range(3):
            with socket.create_connection(node.address.arguments) as raw:
                raw.sendall(bytes.fromhex("0100000000cd"))
                raw.settimeout(30)
                with contextlib.suppress(ConnectionResetError):
                    assert raw.recv(1) == b""
        await self.logged(node, "octets came without a header")
        assert node.log.count("octets came without a header") == 1
