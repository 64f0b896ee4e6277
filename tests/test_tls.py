"""TLS over real sockets, with certificates made for the test."""

import re
import ssl
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

pytest.importorskip("OpenSSL")
trustme = pytest.importorskip("trustme")

from twisted.internet import reactor  # noqa: E402
from twisted.internet.endpoints import HostnameEndpoint  # noqa: E402
from twisted.internet.testing import MemoryReactorClock  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent  # noqa: E402
from twisted.trial.unittest import TestCase  # noqa: E402

from netdicom_tx import AE, RemoteAE, TLSOptions, verification_scp, verification_scu  # noqa: E402
from netdicom_tx.endpoints import server_endpoint  # noqa: E402
from netdicom_tx.exceptions import ConnectionLostError, LocalProtocolError  # noqa: E402
from netdicom_tx.tls import ServerContext  # noqa: E402
from netdicom_tx.uids import VERIFICATION_SOP_CLASS  # noqa: E402
from support.processes import eventually  # noqa: E402

ENDPOINT = HostnameEndpoint(MemoryReactorClock(), "localhost", 1)
LOOPBACK = "tcp:0:interface=127.0.0.1"


class TLSTests(TestCase):
    """An SCP with TLS, called in several ways."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        authority, other = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(self.path("ca.pem"))
        other.cert_pem.write_to_path(self.path("other.pem"))
        for name, certificate in (
            ("server", authority.issue_cert("localhost", "127.0.0.1")),
            ("client", authority.issue_cert("client")),
            ("stranger", other.issue_cert("stranger")),
        ):
            certificate.private_key_and_cert_chain_pem.write_to_path(self.path(f"{name}.pem"))
        pem = next(
            "-----BEGIN CERTIFICATE-----" + block
            for block in Path(self.path("server.pem"))
            .read_text()
            .split("-----BEGIN CERTIFICATE-----")[1:]
        )
        self.fingerprint = sha256(ssl.PEM_cert_to_DER_cert(pem.strip() + "\n")).hexdigest()

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
            port, TLSOptions(trust=self.path("ca.pem"), server_name="pacs.example"), "mismatch"
        )
        await self.refused(port, TLSOptions(trust=self.path("other.pem")), "verify failed")

    async def test_a_server_is_trusted_by_its_fingerprint_alone(self) -> None:
        """Self-signed, without a name, as hand-made DICOM certificates are."""
        port = await self.serve()
        with_colons = ":".join(
            self.fingerprint[i : i + 2].upper() for i in range(0, len(self.fingerprint), 2)
        )
        assert await self.echo(port, TLSOptions(fingerprint=with_colons)) == 0
        await self.refused(port, TLSOptions(fingerprint="0" * 64), "verify failed")

    async def test_a_server_may_demand_a_certificate(self) -> None:
        """PS3.15 B.12: mutual authentication."""
        port = await self.serve(trust=self.path("ca.pem"))
        mine = TLSOptions(trust=self.path("ca.pem"), certificate=self.path("client.pem"))
        assert await self.echo(port, mine) == 0
        await self.refused(port, TLSOptions(trust=self.path("ca.pem")), "certificate required")
        strange = TLSOptions(trust=self.path("ca.pem"), certificate=self.path("stranger.pem"))
        await self.refused(port, strange, "alert")

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
            await self.refused(port, trusting, "verify failed")
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
