"""TLS over real sockets, with certificates made for the test."""

import contextlib
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

pytest.importorskip("OpenSSL")
trustme = pytest.importorskip("trustme")

from cryptography.hazmat.primitives import serialization  # noqa: E402
from OpenSSL import SSL  # noqa: E402
from twisted.internet import reactor  # noqa: E402
from twisted.internet.endpoints import HostnameEndpoint  # noqa: E402
from twisted.internet.testing import MemoryReactorClock  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent  # noqa: E402
from twisted.trial.unittest import TestCase  # noqa: E402

from netdicom_tx import AE, RemoteAE, Timeouts, TLSOptions, verification_scp, verification_scu  # noqa: E402
from netdicom_tx.endpoints import server_endpoint  # noqa: E402
from netdicom_tx.exceptions import ConnectionLostError, LocalProtocolError  # noqa: E402
from netdicom_tx.tls import ServerContext  # noqa: E402
from netdicom_tx.uids import VERIFICATION_SOP_CLASS  # noqa: E402
from support.processes import eventually  # noqa: E402

ENDPOINT = HostnameEndpoint(MemoryReactorClock(), "localhost", 1)
LOOPBACK = "tcp:0:interface=127.0.0.1"


def sha256_of(path: str) -> str:
    """The fingerprint of the first certificate in a file."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    block = Path(path).read_text().split(begin)[1].split(end)[0]
    return sha256(ssl.PEM_cert_to_DER_cert(f"{begin}{block}{end}\n")).hexdigest()


class TLSTests(TestCase):
    """An SCP with TLS, called in several ways."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.authority = authority = trustme.CA()
        other = trustme.CA()
        authority.cert_pem.write_to_path(self.path("ca.pem"))
        other.cert_pem.write_to_path(self.path("other.pem"))
        for name, certificate in (
            ("server", authority.issue_cert("localhost", "127.0.0.1")),
            ("client", authority.issue_cert("client")),
            ("stranger", other.issue_cert("stranger")),
        ):
            certificate.private_key_and_cert_chain_pem.write_to_path(self.path(f"{name}.pem"))
        self.fingerprint = sha256_of(self.path("server.pem"))

    def path(self, name: str) -> str:
        return str(self.folder / name)

    async def serve(self, **options: Any) -> int:
        ae = AE("SCP").add_scp(verification_scp)
        port = await ae.listen(
            "tcp:0:interface=127.0.0.1", TLSOptions(certificate=self.path("server.pem"), **options)
        )
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port  # type: ignore[attr-defined]
        return number

    async def echo(self, port: int, tls: TLSOptions | None, host: str = "localhost") -> int:
        ae = AE("SCU").add_scu(verification_scu)
        remote = RemoteAE("SCP", f"tcp:{host}:{port}", tls=tls)
        async with await ae.request_association(remote) as asce:
            status = int(await asce.get_scu(VERIFICATION_SOP_CLASS)())
        await asce.closed()
        return status

    async def refused(self, port: int, tls: TLSOptions | None, words: str, **more: str) -> None:
        with pytest.raises(ConnectionLostError, match=words):
            await self.echo(port, tls, **more)

    async def test_a_server_is_trusted_by_its_authority_and_name(self) -> None:
        port = await self.serve()
        assert await self.echo(port, TLSOptions(trust=self.path("ca.pem"))) == 0
        # Many DICOM peers are called by address.
        trusted = TLSOptions(trust=self.path("ca.pem"))
        assert await self.echo(port, trusted, host="127.0.0.1") == 0
        await self.refused(
            port,
            TLSOptions(trust=self.path("ca.pem"), server_name="pacs.example"),
            "expected one for the name pacs",
        )
        await self.refused(port, TLSOptions(trust=self.path("other.pem")), "not trusted here")

    async def test_a_server_whose_certificate_has_expired_is_refused(self) -> None:
        """By its authority; its fingerprint is enough. The server has said so when it started."""
        past = datetime(2020, 1, 2, tzinfo=UTC)
        made = self.authority.issue_cert("localhost", not_before=past, not_after=past)
        made.private_key_and_cert_chain_pem.write_to_path(self.path("server.pem"))
        with capturedLogs() as logs:
            port = await self.serve()
        (line,) = _warnings(logs)
        assert re.search(r"server\.pem has expired on 2020-01-02 00:00 UTC, .*; renew it", line)
        await self.refused(port, TLSOptions(trust=self.path("ca.pem")), "expired on 2020-01-02")
        pinned = TLSOptions(fingerprint=sha256_of(self.path("server.pem")))
        assert await self.echo(port, pinned) == 0

    async def test_a_server_is_trusted_by_its_fingerprint_alone(self) -> None:
        """Self-signed, without a name, as hand-made DICOM certificates are."""
        port = await self.serve()
        with_colons = ":".join(
            self.fingerprint[i : i + 2].upper() for i in range(0, len(self.fingerprint), 2)
        )
        assert await self.echo(port, TLSOptions(fingerprint=with_colons)) == 0
        await self.refused(port, TLSOptions(fingerprint="0" * 64), self.fingerprint)
        several = TLSOptions(fingerprint=["0" * 64, self.fingerprint])
        assert await self.echo(port, several) == 0

    async def test_a_private_key_may_have_a_password(self) -> None:
        """OpenSSL would ask the terminal for it, and a node in the background has none."""
        self.encrypt("server.pem", "geheim")
        with pytest.raises(
            LocalProtocolError, match=r"server\.pem is encrypted; give its password"
        ):
            await self.serve()
        with pytest.raises(LocalProtocolError, match=r"cannot be decrypted with the password"):
            await self.serve(key_password="wrong")
        port = await self.serve(key_password="geheim")
        assert await self.echo(port, TLSOptions(trust=self.path("ca.pem"))) == 0
        assert "geheim" not in repr(TLSOptions(key_password="geheim"))

    def encrypt(self, name: str, password: str) -> None:
        """Give the private key in a file a password."""
        path = Path(self.path(name))
        pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
        path.write_bytes(key + pem[pem.index(b"-----BEGIN CERT") :])

    async def test_a_server_may_demand_a_certificate(self) -> None:
        """PS3.15 B.12: mutual authentication."""
        port = await self.serve(trust=self.path("ca.pem"))
        mine = TLSOptions(trust=self.path("ca.pem"), certificate=self.path("client.pem"))
        assert await self.echo(port, mine) == 0
        await self.refused(port, TLSOptions(trust=self.path("ca.pem")), "certificate required")
        strange = TLSOptions(trust=self.path("ca.pem"), certificate=self.path("stranger.pem"))
        await self.refused(port, strange, "alert")

    async def test_a_client_is_trusted_by_its_fingerprint_alone(self) -> None:
        """Also one of several, and though no authority is known."""
        pinned = sha256_of(self.path("stranger.pem"))
        port = await self.serve(fingerprint=["0" * 64, pinned])
        trusting = TLSOptions(trust=self.path("ca.pem"))
        assert await self.echo(port, replace(trusting, certificate=self.path("stranger.pem"))) == 0
        await self.refused(port, replace(trusting, certificate=self.path("client.pem")), "alert")
        await self.refused(port, trusting, "give this side a certificate")

    async def test_a_server_may_take_a_certificate_or_none(self) -> None:
        port = await self.serve(trust=self.path("ca.pem"), clients="optional")
        trusting = TLSOptions(trust=self.path("ca.pem"))
        assert await self.echo(port, trusting) == 0
        mine = replace(trusting, certificate=self.path("client.pem"))
        assert await self.echo(port, mine) == 0
        strange = replace(trusting, certificate=self.path("stranger.pem"))
        await self.refused(port, strange, "alert")

    async def test_a_server_may_ask_for_no_certificate(self) -> None:
        """Though it has authorities, which are those of the peers that it calls itself."""
        port = await self.serve(trust=self.path("ca.pem"), clients="none")
        assert await self.echo(port, TLSOptions(trust=self.path("ca.pem"))) == 0

    async def test_a_certificate_can_be_replaced_while_the_server_serves(self) -> None:
        """What is open goes on; what cannot be read changes nothing."""
        own = Path(self.path("own.pem"))
        own.write_bytes(Path(self.path("server.pem")).read_bytes())
        context = ServerContext(TLSOptions(certificate=own))
        ae = AE("SCP").add_scp(verification_scp)
        listening = await ae.listen(context.wrap(server_endpoint(reactor, LOOPBACK)))
        self.addCleanup(listening.stopListening)
        port: int = listening.getHost().port  # type: ignore[attr-defined]
        trusting = TLSOptions(trust=self.path("ca.pem"))
        scu = AE("SCU").add_scu(verification_scu)
        remote = RemoteAE("SCP", f"tcp:localhost:{port}", tls=trusting)
        async with await scu.request_association(remote) as before:
            own.write_text("nothing")
            with pytest.raises(LocalProtocolError, match="no certificate"):
                context.reload()
            assert await self.echo(port, trusting) == 0
            other = trustme.CA()
            other.cert_pem.write_to_path(self.path("other.pem"))
            other.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(own))
            context.reload()
            await self.refused(port, trusting, "not trusted here")
            assert await self.echo(port, TLSOptions(trust=self.path("other.pem"))) == 0
            assert await before.echo() == 0
        await before.closed()

    async def test_plain_dicom_on_a_tls_port_reaches_nobody(self) -> None:
        port = await self.serve()
        with capturedLogs() as logs:
            await self.refused(port, None, "lost")
            warned = lambda: any(map(self.is_warning, logs))  # noqa: E731
            await deferToThread(eventually, warned, "warning")
        (line,) = (formatEvent(each) for each in logs if self.is_warning(each))
        assert re.fullmatch(
            r"refused 127\.0\.0\.1:\d+: something else than TLS came; expected a TLS ClientHello; .*",
            line,
        )

    async def test_tls_on_a_plain_port_reaches_nobody(self) -> None:
        ae = AE("SCP").add_scp(verification_scp)
        listening = await ae.listen("tcp:0:interface=127.0.0.1")
        self.addCleanup(listening.stopListening)
        port: int = listening.getHost().port  # type: ignore[attr-defined]
        with capturedLogs() as logs:
            await self.refused(port, TLSOptions(trust=self.path("ca.pem")), "lost")
        (line,) = (formatEvent(each) for each in logs if self.is_warning(each))
        assert re.fullmatch(
            r"refused 127\.0\.0\.1:\d+: a TLS ClientHello came; expected DICOM without TLS; .*",
            line,
        )

    @staticmethod
    def is_warning(event: LogEvent) -> bool:
        """Whether the log says that somebody is refused."""
        return bool(event["log_level"] >= LogLevel.warn)


class RefusalTests(TestCase):
    """A node refuses a peer with one line that says why and what to do; the peer is a raw ssl client."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        self.issue("server", self.authority, "localhost")

    def issue(self, name: str, authority: Any, *names: str, **more: Any) -> str:
        path = str(self.folder / f"{name}.pem")
        authority.issue_cert(*names, **more).private_key_and_cert_chain_pem.write_to_path(path)
        return path

    async def serve(self, artim: float = 30, **options: Any) -> int:
        ae = AE("SCP", timeouts=Timeouts(artim=artim)).add_scp(verification_scp)
        given = {"trust": self.folder / "ca.pem", **options}
        port = await ae.listen(
            LOOPBACK, TLSOptions(certificate=self.folder / "server.pem", **given)
        )
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port  # type: ignore[attr-defined]
        return number

    def client(self, certificate: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def refuse(self, port: int, context: ssl.SSLContext) -> None:
        """Call, and read until the node ends the connection; TLS 1.3 fails at the first read only."""
        with (
            contextlib.suppress(ssl.SSLError, OSError),
            socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            while secure.recv(1):
                pass

    async def line(self, context: ssl.SSLContext, **options: Any) -> str:
        """The one line of the node about a call."""
        port = await self.serve(**options)
        with capturedLogs() as logs:
            await deferToThread(self.refuse, port, context)
            await deferToThread(eventually, lambda: _warnings(logs), "warning")
        (line,) = _warnings(logs)
        return line

    async def test_a_certificate_that_has_expired(self) -> None:
        past = datetime(2020, 1, 2, tzinfo=UTC)
        old = self.issue("old", self.authority, "old", not_before=past, not_after=past)
        line = await self.line(self.client(old))
        assert "expired on 2020-01-02 00:00 UTC; expected a certificate of today; renew it" in line

    async def test_a_certificate_that_is_not_valid_yet(self) -> None:
        future = datetime(2150, 1, 2, tzinfo=UTC)
        early = self.issue("early", self.authority, "early", not_before=future, not_after=future)
        line = await self.line(self.client(early))
        assert "is not valid before 2150-01-02 00:00 UTC; expected a certificate of today" in line

    async def test_a_certificate_of_another_authority(self) -> None:
        strange = self.issue("strange", trustme.CA(), "strange")
        line = await self.line(self.client(strange))
        assert "is signed by an authority that is not trusted here (" in line
        assert "; have one issued for the peer, or trust its authority" in line

    async def test_a_certificate_whose_fingerprint_is_not_known(self) -> None:
        known = self.issue("known", self.authority, "known")
        line = await self.line(self.client(known), trust=None, fingerprint="0" * 64)
        assert f"has the SHA-256 fingerprint {sha256_of(known)}; expected one of the" in line

    async def test_no_certificate(self) -> None:
        line = await self.line(self.client())
        assert line.endswith(
            ": the peer has no certificate; expected a client certificate; give the peer a certificate of an "
            "authority that is trusted here"
        )

    async def test_a_certificate_that_is_trusted_is_served(self) -> None:
        """The other tests refuse what they name, and not every client."""
        usable = self.issue("usable", self.authority, "usable")
        context = self.client(usable)
        port = await self.serve()

        def call() -> str | None:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                return secure.version()

        assert await deferToThread(call) == "TLSv1.3"

    async def test_an_old_version(self) -> None:
        """RFC 8996: TLS 1.1 must not be used."""
        context = self.client()
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        line = await self.line(context)
        assert "the peer offers no TLS version that is allowed here" in line
        assert "expected TLS 1.2 or newer; turn TLS 1.2 or 1.3 on at the peer" in line

    async def test_no_cipher_suite_in_common(self) -> None:
        context = self.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES128-SHA")
        line = await self.line(context)
        assert "the peer offers no cipher suite that is allowed here" in line
        assert "expected one of the TLS profile of this side; compare the TLS profiles" in line

    async def test_a_handshake_that_is_never_finished(self) -> None:
        """PS3.8 9.1.4: ARTIM runs from the connection on, so the handshake is within it."""
        port = await self.serve(artim=0.3)

        def begin() -> bytes:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            hello = self.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                hello.do_handshake()
            with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
                plain.sendall(outgoing.read())
                octets = b""
                # The node answers the hello, waits for the rest, and closes.
                with contextlib.suppress(ConnectionError):
                    while found := plain.recv(1 << 16):
                        octets += found
                return octets

        assert await deferToThread(begin)

    async def test_a_handshake_that_is_never_begun(self) -> None:
        port = await self.serve(artim=0.3)

        def wait() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
                return plain.recv(1)

        with contextlib.suppress(ConnectionError):
            assert await deferToThread(wait) == b""

    async def test_a_renegotiation(self) -> None:
        """A peer cannot have the node repeat the handshake of TLS 1.2, which costs the node more than the peer."""
        port = await self.serve(clients="none")

        def renegotiate() -> bool:
            context = SSL.Context(SSL.TLS_METHOD)
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
                plain.settimeout(None)
                connection = SSL.Connection(context, plain)
                connection.set_connect_state()
                connection.do_handshake()
                try:
                    connection.renegotiate()
                    connection.do_handshake()
                except SSL.Error:
                    return False
                return connection.total_renegotiations() > 0

        assert not await deferToThread(renegotiate)


def _warnings(logs: Sequence[LogEvent]) -> list[str]:
    return [str(formatEvent(each)) for each in logs if each["log_level"] >= LogLevel.warn]


def test_bad_options_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="64 digits"):
        TLSOptions(fingerprint="abc")
    with pytest.raises(LocalProtocolError, match="no authorities are given"):
        TLSOptions(clients="required")
    with pytest.raises(LocalProtocolError, match="'required', 'optional' or 'none'"):
        TLSOptions(clients="maybe")  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="needs a certificate"):
        TLSOptions().context_factory()
    with pytest.raises(LocalProtocolError, match=r"absent\.pem: No such file"):
        TLSOptions(certificate=tmp_path / "absent.pem").context_factory()
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(LocalProtocolError, match="no certificate"):
        TLSOptions(certificate=empty).context_factory()
    with pytest.raises(LocalProtocolError, match=r"empty\.pem holds no certificate"):
        TLSOptions(trust=empty).wrap_client(ENDPOINT, "localhost")
    empty.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(LocalProtocolError, match=r"empty\.pem holds a damaged certificate"):
        TLSOptions(trust=empty).wrap_client(ENDPOINT, "localhost")
    ca = trustme.CA()
    ca.issue_cert("localhost").cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ca.issue_cert("localhost").private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    others = TLSOptions(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    with pytest.raises(LocalProtocolError, match=r"key\.pem does not belong to .*cert\.pem"):
        others.context_factory()
    with pytest.raises(LocalProtocolError, match=r"key\.pem does not belong to .*cert\.pem"):
        others.wrap_client(ENDPOINT, "localhost")
