"""TLS on the command line, with certificates made for the test."""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from ssl import PEM_cert_to_DER_cert

import pytest

from support.commands.running import Netdicom, Peer

pytest.importorskip("OpenSSL")
trustme = pytest.importorskip("trustme")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, another one, and a certificate of the first."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    trustme.CA().cert_pem.write_to_path(directory / "other.pem")
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    der = PEM_cert_to_DER_cert(server.cert_chain_pems[0].bytes().decode())
    (directory / "fingerprint").write_text(sha256(der).hexdigest())
    return directory


@pytest.fixture(scope="module")
def secure(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a ``netdicom receive`` with TLS."""
    netdicom = Netdicom(tmp_path_factory.mktemp("secure"))
    listen = ("receive", "--listen", "127.0.0.1:0", "-o", "inbox")
    with netdicom.start(*listen, "--tls-cert", certificates / "server.pem") as running:
        said = running.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert found is not None, said
        yield int(found[1])


def test_a_peer_is_called_with_tls(netdicom: Netdicom, secure: int, certificates: Path) -> None:
    """By an authority, by the fingerprint, and by what the configuration file says."""
    address = f"dicoms://X@127.0.0.1:{secure}"
    fingerprint = (certificates / "fingerprint").read_text()
    (netdicom.directory / "netdicom.toml").write_text(
        f'[peers.secure]\naddress = "X@127.0.0.1:{secure}"\n'
        f'tls = {{ trust = "{certificates / "ca.pem"}" }}\n'
    )
    for arguments in (
        [address, "--tls-ca", certificates / "ca.pem"],
        [address.removeprefix("dicoms://"), "--tls", "--tls-fingerprint", fingerprint],
        ["secure"],
    ):
        done = netdicom("echo", *arguments)
        assert done.returncode == 0, done.stderr


def test_no_tls_connection_has_its_code(
    netdicom: Netdicom, secure: int, certificates: Path, peer: Peer
) -> None:
    """Whose certificate it is, or that the peer speaks none: the hint differs."""
    for address, arguments, hint in (
        (f"X@127.0.0.1:{secure}", ["--tls-ca", certificates / "other.pem"], "--tls-ca FILE"),
        (f"X@127.0.0.1:{secure}", ["--tls-fingerprint", "ab" * 32], "--tls-ca FILE"),
        (peer.address(), ["--tls"], "without --tls"),
    ):
        done = netdicom("echo", address, *arguments, "-ta", 5)
        assert done.returncode == 9, done.stderr
        assert hint in done.stderr.splitlines()[-1]


def test_a_plain_call_to_a_port_with_tls_fails(netdicom: Netdicom, secure: int) -> None:
    done = netdicom("echo", f"X@127.0.0.1:{secure}", "-ta", 5)
    assert done.returncode == 6
    assert "--tls" in done.stderr.splitlines()[-1]
