"""The node with TLS: DCMTK and Python's ssl call it, and it calls a peer (PS3.15 B.12)."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydicom import dcmread
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, TLSOptions, storage_scp, storage_scu
from netdicom_tx.exceptions import StatusError
from netdicom_tx.sopclass import qr_move_scu
from netdicom_tx.tls import PROFILES
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.interop import peers
from support.interop.peers import StoreSCP
from support.interop.samples import Sample
from support.node import Address, Node
from support.processes import (
    Process,
    eventually,
    free_port,
    need_pynetdicom,
    program,
    run,
    succeed,
)

VERIFICATION = "1.2.840.10008.1.1"
TLS_RELAY = Path(peers.__file__).with_name("TLSRelay.java")

pytestmark = pytest.mark.interop


class Authority:
    """Certificates in files, as the programs want them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(
        self, name: str, hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    ) -> tuple[Path, Path]:
        """The files of a new key and of its certificate."""
        # Profiles that are retired have suites for RSA alone.
        made = self._authority.issue_cert(*hosts, key_type=trustme.KeyType.RSA)
        key, certificate = self._folder / f"{name}.key", self._folder / f"{name}.pem"
        made.private_key_pem.write_to_path(str(key))
        made.cert_chain_pems[0].write_to_path(str(certificate))
        return key, certificate


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class SecureNode(Node):
    """A node that serves TLS beside its plain port."""

    def __init__(self, folder: Path, authority: Authority, *options: str) -> None:
        self.key, self.certificate = authority.issue("node")
        self.secure = Address(self.ae_title, free_port())
        super().__init__(
            folder,
            *(
                "--tls-listen",
                f"{self.secure.endpoint.replace('127.0.0.1:', '')}:interface=127.0.0.1",
            ),
            *("--tls-key", str(self.key), "--tls-certificate", str(self.certificate)),
            *("--tls-authorities", str(authority.file)),
            *options,
        )


@pytest.fixture
def node(tmp_path: Path, authority: Authority) -> Iterator[SecureNode]:
    started = SecureNode(tmp_path, authority)
    started.start()
    yield started
    started.stop()


def test_dcmtk_stores_with_mutual_authentication(
    node: SecureNode, authority: Authority, samples: tuple[Sample, ...]
) -> None:
    key, certificate = authority.issue("modality")
    sample = next(each for each in samples if each.name == "CT_small.dcm")
    succeed(
        program("storescu"),
        *("+tls", key, certificate, "+cf", authority.file),
        *node.secure.arguments,
        sample.path,
    )
    assert sample.instance in node.instances()


@pytest.mark.parametrize("profile", PROFILES)
def test_dcmtk_agrees_with_each_profile(tmp_path: Path, authority: Authority, profile: str) -> None:
    """Its profiles of BCP 195 are served by all of ours, its retired ones by none (PS3.15 B)."""
    node = SecureNode(tmp_path, authority, "--tls-profile", profile)
    key, certificate = authority.issue("modality")
    call = (program("echoscu"), "+tls", key, certificate, "+cf", authority.file)
    node.start()
    try:
        for theirs in ("--profile-bcp195-nd", "--profile-bcp195", "--profile-bcp195-ex"):
            succeed(*call, theirs, *node.secure.arguments)
        assert "refused" not in node.log_text()
        for retired in ("--profile-aes", "--profile-null"):
            assert run(*call, retired, *node.secure.arguments).returncode != 0
        words = "the peer offers no cipher suite that is allowed here"
        eventually(lambda: words in node.log_text(), "line that says why")
    finally:
        node.stop()


def test_dcmtk_without_a_certificate_is_refused(node: SecureNode, authority: Authority) -> None:
    done = run(program("echoscu"), "+tla", "+cf", authority.file, *node.secure.arguments)
    assert done.returncode != 0


def test_a_strangers_certificate_is_refused(
    node: SecureNode, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    key, certificate = Authority(tmp_path / "other").issue("stranger")
    done = run(
        program("echoscu"),
        *("+tls", key, certificate, "+cf", authority.file),
        *node.secure.arguments,
    )
    assert done.returncode != 0


def test_plain_dicom_on_the_tls_port_is_refused(node: SecureNode) -> None:
    assert run(program("echoscu"), *node.secure.arguments).returncode != 0
    succeed(program("echoscu"), *node.address.arguments)


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def test_both_versions_of_tls_are_served(
    node: SecureNode, authority: Authority, version: ssl.TLSVersion
) -> None:
    """BCP 195, RFC 9325: 1.2 is supported, 1.3 is preferred."""
    assert _served(node, authority, version) == version.name.replace("_", ".")


def _served(node: SecureNode, authority: Authority, version: ssl.TLSVersion) -> str | None:
    """The version in which a handshake with a client's certificate ends."""
    key, certificate = authority.issue("client")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(certificate, key)
    context.minimum_version = context.maximum_version = version
    where = ("127.0.0.1", node.secure.port)
    with (
        socket.create_connection(where, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.version()


def test_older_versions_are_refused(node: SecureNode, authority: Authority) -> None:
    """PS3.15 B.12: TLS 1.0 and 1.1 are forbidden (RFC 8996)."""
    with pytest.raises((ssl.SSLError, OSError)), pytest.warns(DeprecationWarning, match="TLSv1_1"):
        _served(node, authority, ssl.TLSVersion.TLSv1_1)


def test_a_signal_has_the_certificate_read_again(node: SecureNode, authority: Authority) -> None:
    """A certificate is renewed without a restart; one that cannot be read changes nothing."""

    def serial() -> int:
        key, certificate = authority.issue("client")
        context = ssl.create_default_context(cafile=str(authority.file))
        context.load_cert_chain(certificate, key)
        with (
            socket.create_connection(("127.0.0.1", node.secure.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return int(str(secure.getpeercert()["serialNumber"]), 16)  # type: ignore[index]

    first = serial()
    authority.issue("node")
    os.kill(node.pid, signal.SIGHUP)
    eventually(lambda: serial() != first, "new certificate")
    second = serial()
    node.certificate.write_text("nothing")
    os.kill(node.pid, signal.SIGHUP)
    eventually(lambda: "the former options stay in effect" in node.log_text(), "line that says so")
    assert serial() == second


VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def _as_client(authority: Authority, version: str) -> ssl.SSLContext:
    """What Python's ssl needs of a client that has a certificate."""
    key, certificate = authority.issue("caller")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(certificate, key)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


def _as_server(authority: Authority, version: str) -> ssl.SSLContext:
    """What Python's ssl needs of a server that demands certificates."""
    key, certificate = authority.issue("called")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


@pytest.mark.parametrize("version", VERSIONS)
def test_pynetdicom_calls_with_mutual_authentication(
    node: SecureNode, authority: Authority, version: str
) -> None:
    need_pynetdicom()
    from pynetdicom import AE as TheirAE

    caller = TheirAE("CALLER")
    caller.add_requested_context(VERIFICATION)
    with warnings.catch_warnings():
        # pynetdicom looks at each certificate in a way that Python has deprecated.
        warnings.simplefilter("ignore")
        association = caller.associate(
            "127.0.0.1",
            node.secure.port,
            ae_title=node.ae_title,
            tls_args=(_as_client(authority, version), "localhost"),
        )
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()


@pytest.mark.parametrize("version", VERSIONS)
def test_pynetdicom_is_called_with_mutual_authentication(
    authority: Authority, version: str
) -> None:
    need_pynetdicom()
    from pynetdicom import AE as TheirAE

    called = TheirAE("CALLED")
    called.add_supported_context(VERIFICATION)
    server = called.start_server(
        ("127.0.0.1", 0), block=False, ssl_context=_as_server(authority, version)
    )
    assert server is not None
    assert server.socket is not None
    try:
        _echo("CALLED", server.socket.getsockname()[1], authority)
    finally:
        server.shutdown()


def _echo(title: str, port: int, authority: Authority) -> None:
    """Call a peer over TLS, with a certificate, from the command line."""
    key, certificate = authority.issue("ours")
    succeed(
        *(sys.executable, "-m", "netdicom_tx", "echo", f"dicoms://{title}@localhost:{port}"),
        *("--tls-ca", authority.file, "--tls-cert", certificate, "--tls-key", key),
    )


def test_storescp_is_sent_to_with_mutual_authentication(
    authority: Authority, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """DCMTK as the server demands our certificate."""
    key, certificate = authority.issue("storescp")
    theirs = StoreSCP(
        tmp_path / "received",
        *("+tls", str(key), str(certificate), "+cf", str(authority.file), "--require-peer-cert"),
    )
    sample = next(each for each in samples if each.name == "CT_small.dcm")
    ours_key, ours = authority.issue("ours")
    command = (sys.executable, "-m", "netdicom_tx", "store")
    address = f"dicoms://{theirs.ae_title}@localhost:{theirs.address.port}"
    trusting = ("--tls-ca", authority.file)
    try:
        refused = run(*command, address, sample.path, *trusting)
        assert refused.returncode != 0
        succeed(
            *command,
            *(address, sample.path, *trusting),
            *("--tls-cert", ours, "--tls-key", ours_key),
        )
        assert set(theirs.instances()) == {sample.instance}
    finally:
        theirs.close()


def _java_relay(
    folder: Path, authority: Authority, role: str, version: str, port: int
) -> tuple[Process, int]:
    """Java's TLS in front of a port, and where it listens."""
    key, certificate = authority.issue("java")
    own, trusted, password = folder / "own.p12", folder / "trusted.p12", "changeit"
    succeed(
        *(program("openssl"), "pkcs12", "-export", "-inkey", key, "-in", certificate),
        *("-out", own, "-passout", f"pass:{password}"),
    )
    succeed(
        *(program("keytool"), "-importcert", "-noprompt", "-alias", "ca", "-file", authority.file),
        *("-keystore", trusted, "-storetype", "PKCS12", "-storepass", password),
    )
    process = Process(
        folder / "relay.log",
        program("java"),
        "-XX:TieredStopAtLevel=1",
        *(f"-Djavax.net.ssl.keyStore={own}", f"-Djavax.net.ssl.keyStorePassword={password}"),
        *(f"-Djavax.net.ssl.trustStore={trusted}",),
        *(f"-Djavax.net.ssl.trustStorePassword={password}",),
        *(TLS_RELAY, role, f"TLSv{version}", str(port)),
    )
    found = process.ready(
        lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", process.text()), "Java's relay"
    )
    return process, int(found[1])


@pytest.mark.parametrize("version", VERSIONS)
def test_java_calls_with_mutual_authentication(
    node: SecureNode, authority: Authority, version: str, tmp_path: Path
) -> None:
    """JSSE is the TLS of dcm4che and of most archives."""
    program("javac")
    relay, port = _java_relay(tmp_path, authority, "client", version, node.secure.port)
    try:
        succeed(program("echoscu"), "-aec", node.ae_title, "127.0.0.1", str(port))
    finally:
        relay.kill()


@pytest.mark.parametrize("version", VERSIONS)
def test_java_is_called_with_mutual_authentication(
    node: SecureNode, authority: Authority, version: str, tmp_path: Path
) -> None:
    program("javac")
    relay, port = _java_relay(tmp_path, authority, "server", version, node.address.port)
    try:
        _echo(node.ae_title, port, authority)
    finally:
        relay.kill()


@pytest.mark.parametrize(("option", "version"), [("-tls1_2", "1.2"), ("-tls1_3", "1.3")])
def test_openssl_is_told_why_it_is_refused(
    node: SecureNode, authority: Authority, option: str, version: str
) -> None:
    """A missing certificate is an alert for the peer, and a line in the log of the node."""
    command = (program("openssl"), "s_client", "-connect", f"127.0.0.1:{node.secure.port}")
    done = subprocess.run(
        [*command, "-CAfile", authority.file, option],
        input="",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"TLSv{version}" in done.stdout
    line = "the peer has no certificate; expected a client certificate"
    eventually(lambda: line in node.log_text(), "line that says so")


@pytest.mark.usefixtures("_node")
class MoveTests(TestCase):
    """The node as the client of a destination with TLS."""

    @pytest.fixture(autouse=True)
    def _node(self, tmp_path: Path, samples: tuple[Sample, ...]) -> None:
        self.folder = tmp_path
        self.sample = next(each for each in samples if each.name == "CT_small.dcm")

    async def move(self, *hosts: str) -> tuple[list[str], str]:
        """Have the node move a study to a viewer whose certificate is for these hosts.

        Returns:
            What arrived there, and the node's log.
        """
        study = dcmread(self.sample.path, stop_before_pixels=True).StudyInstanceUID
        authority = Authority(self.folder)
        key, certificate = authority.issue("viewer", hosts)
        viewer = AE("VIEWER").add_scp(storage_scp)
        arrived: list[str] = []

        def keep(context: object, ds: object) -> int:
            arrived.append("one")
            return 0

        viewer.on_receive_store = keep  # type: ignore[method-assign]
        listening = await viewer.listen(
            "tcp:0:interface=127.0.0.1",
            TLSOptions(certificate=certificate, key=key, trust=authority.file),
        )
        self.addCleanup(listening.stopListening)
        port = listening.getHost().port  # type: ignore[attr-defined]
        node = SecureNode(self.folder, authority, "--peer", f"dicoms://VIEWER@127.0.0.1:{port}")
        await deferToThread(node.start)
        try:
            await deferToThread(
                succeed, program("storescu"), *node.address.arguments, self.sample.path
            )
            ae = AE("OURSCU").add_scu(qr_move_scu).add_scu(storage_scu, [CT_IMAGE_STORAGE])
            remote = RemoteAE(node.ae_title, node.address.endpoint)
            async with await ae.request_association(remote) as asce:
                stream = asce.move("STUDY", StudyInstanceUID=study, to="VIEWER")
                self.answers: list[Any] = [each async for each in stream]
        except StatusError as error:
            self.answers = [error]
        finally:
            await deferToThread(node.stop)
        return arrived, node.log

    async def test_a_c_move_goes_over_tls(self) -> None:
        arrived, _ = await self.move("localhost", "127.0.0.1")
        assert self.answers
        assert arrived == ["one"]

    async def test_a_c_move_does_not_go_to_a_certificate_of_another_name(self) -> None:
        arrived, log = await self.move("elsewhere.example")
        assert arrived == []
        (error,) = self.answers
        assert error.status == 0xA702
        assert "the certificate of the peer is for elsewhere.example; expected one for the" in log
