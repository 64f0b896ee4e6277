"""The node with TLS: DCMTK and Python's ssl call it, and it calls a peer (PS3.15 B.12)."""

import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pydicom import dcmread
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, TLSOptions, storage_scp, storage_scu
from netdicom_tx.sopclass import qr_move_scu
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.interop.samples import Sample
from support.node import Address, Node
from support.processes import eventually, free_port, program, run, succeed

pytestmark = pytest.mark.interop


class Authority:
    """Certificates in files, as the programs want them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str) -> tuple[Path, Path]:
        """The files of a new key and of its certificate."""
        made = self._authority.issue_cert("localhost", "127.0.0.1")
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
    eventually(lambda: "all stays as it is" in node.log_text(), "line that says so")
    assert serial() == second


@pytest.mark.usefixtures("_node")
class MoveTests(TestCase):
    """The node as the client of a destination with TLS."""

    @pytest.fixture(autouse=True)
    def _node(self, tmp_path: Path, samples: tuple[Sample, ...]) -> None:
        self.folder = tmp_path
        self.sample = next(each for each in samples if each.name == "CT_small.dcm")

    async def test_a_c_move_goes_over_tls(self) -> None:
        study = dcmread(self.sample.path, stop_before_pixels=True).StudyInstanceUID
        authority = Authority(self.folder)
        key, certificate = authority.issue("viewer")
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
                final = [each async for each in stream]
            assert final
            assert arrived == ["one"]
        finally:
            await deferToThread(node.stop)
