"""The TLS profiles of PS3.15 Annex B: which versions and cipher suites a server of each accepts.

The expectation is the table in ``tests/standard/tls_profiles.json``, the peer is Python's ``ssl``, whose
OpenSSL is another one than that of pyOpenSSL. Handshakes are performed in memory.
"""

import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("OpenSSL")
trustme = pytest.importorskip("trustme")

from OpenSSL import SSL  # noqa: E402

from netdicom_tx.exceptions import LocalProtocolError  # noqa: E402
from netdicom_tx.tls import PROFILES, ServerContext, TLSOptions, openssl_name  # noqa: E402

TABLE = json.loads((Path(__file__).parent / "standard" / "tls_profiles.json").read_text())[
    "profiles"
]
#: Suites that no profile has, with OpenSSL's names: static RSA, CBC, and no encryption at all.
OTHERS = {
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_NULL_SHA256": "NULL-SHA256",
    "TLS_ECDHE_RSA_WITH_NULL_SHA": "ECDHE-RSA-NULL-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384": "ECDHE-RSA-AES256-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_DHE_RSA_WITH_AES_128_CBC_SHA": "DHE-RSA-AES128-SHA",
    "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "DHE-RSA-CHACHA20-POLY1305",
}


def _listed(section: str) -> set[str]:
    """The cipher suites that the table has for a section, required or recommended."""
    found = TABLE[section]
    suites = {
        each
        for key in (
            "rfc9325_recommended_tls12",
            "tls12_suites_required",
            "cipher_suites_required",
            "cipher_suites_recommended",
            "recommended",
        )
        for each in found.get(key, ())
    }
    # OpenSSL has no Camellia in GCM, which no profile requires.
    return {each for each in suites if "CAMELLIA" not in each}


EVERY = sorted(
    set(OTHERS).union(*(_listed(each) for each in ("B.9", "B.10", "B.11", "B.12", "B.13")))
)


class Authority:
    """A server's certificates with both kinds of keys."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.files: dict[str, Path] = {}
        for name, kind in (("RSA", trustme.KeyType.RSA), ("ECDSA", trustme.KeyType.ECDSA)):
            self.files[name] = folder / f"{name}.pem"
            self.issue(self.files[name], "node.example", kind)

    def issue(self, file: Path, name: str, kind: Any = trustme.KeyType.ECDSA) -> None:
        made = self.authority.issue_cert(name, key_type=kind)
        made.private_key_and_cert_chain_pem.write_to_path(str(file))

    def client(self, certificate: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    @staticmethod
    def digest(file: Path) -> str:
        """The fingerprint of the first certificate in a file."""
        end = "-----END CERTIFICATE-----"
        block = file.read_text().partition(end)[0].partition("-----BEGIN CERT")[2]
        return sha256(ssl.PEM_cert_to_DER_cert(f"-----BEGIN CERT{block}{end}\n")).hexdigest()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


class Plain:
    """A server whose connections are made by the context factory alone."""

    def __init__(self, options: TLSOptions) -> None:
        self._context = options.context_factory().getContext()

    def serverConnectionForTLS(self, _: object) -> Any:
        return SSL.Connection(self._context, None)


class Transport:
    """Stands for Twisted's TLS protocol, which a connection is made for."""


def handshake(server: Any, client: ssl.SSLContext, name: str = "node.example") -> Any:
    """Perform a handshake in memory.

    Returns:
        The client's side of the connection.

    Raises:
        ssl.SSLError: The client refuses, or was refused.
        SSL.Error: The server refuses.
    """
    ours = server.serverConnectionForTLS(Transport())
    ours.set_accept_state()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(incoming, outgoing, server_hostname=name)
    for _ in range(10):
        are_done = True
        try:
            theirs.do_handshake()
        except ssl.SSLWantReadError:
            are_done = False
        if outgoing.pending:
            ours.bio_write(outgoing.read())
        try:
            ours.do_handshake()
        except SSL.WantReadError:
            are_done = False
        with suppress(SSL.WantReadError):
            incoming.write(ours.bio_read(1 << 16))
        if are_done:
            return theirs
    raise AssertionError("the handshake does not end")


def accepts(server: ServerContext, client: ssl.SSLContext) -> str | None:
    """The suite that a handshake ends with, by OpenSSL's name; None where the server refuses."""
    try:
        (cipher, _, _) = handshake(server, client).cipher()
    except (ssl.SSLError, SSL.Error):
        return None
    return str(cipher)


def only(client: ssl.SSLContext, cipher: str) -> ssl.SSLContext:
    """Let a client offer one suite of TLS 1.2, by OpenSSL's name."""
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"{cipher}:@SECLEVEL=0")
    return client


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_names_the_suites_of_the_standard(profile: str) -> None:
    found = PROFILES[profile]
    listed = _listed(found.section)
    assert listed <= set(found.tls12) or found.section == "B.12"
    more = set(found.tls12) - listed
    # B.10: "suites of similar or greater strength may be supported".
    assert more <= (_listed("B.12") if found.section == "B.10" else set())
    suites = TABLE[found.section].get("tls13_suites", {}).get("suites")
    assert suites is None or set(suites) == set(found.tls13)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_server_accepts_the_suites_of_its_profile_and_no_others(
    authority: Authority, profile: str
) -> None:
    """PS3.15 B.10 to B.13, for TLS 1.2."""
    accepted: set[str] = set()
    refused: set[str] = set()
    servers = {
        kind: ServerContext(TLSOptions(certificate=file, profile=profile))
        for kind, file in authority.files.items()
    }
    for suite in EVERY:
        cipher = OTHERS.get(suite) or openssl_name(suite)
        kind = "ECDSA" if "ECDSA" in suite else "RSA"
        found = accepts(servers[kind], only(authority.client(), cipher))
        assert found in (None, cipher)
        (refused if found is None else accepted).add(suite)
    expected = {each for each in PROFILES[profile].tls12 if not each.endswith("CCM_8")}
    assert accepted == expected
    assert refused >= set(OTHERS)


@pytest.mark.parametrize("profile", PROFILES)
def test_tls_1_3_is_preferred_where_the_profile_has_it(authority: Authority, profile: str) -> None:
    """PS3.15 B.12: a server prefers TLS 1.3 when it is offered."""
    server = ServerContext(TLSOptions(certificate=authority.files["ECDSA"], profile=profile))
    version = handshake(server, authority.client()).version()
    assert version == ("TLSv1.2" if profile == "bcp195-extended" else "TLSv1.3")


def test_the_modified_profile_supports_every_suite_of_tls_1_3(authority: Authority) -> None:
    """PS3.15 B.13: a server shall support them all. Python cannot offer them one by one, pyOpenSSL can."""
    server = ServerContext(
        TLSOptions(certificate=authority.files["ECDSA"], profile="bcp195-modified")
    )
    accepted = set()
    for suite in PROFILES["bcp195-modified"].tls13:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_tls13_ciphersuites(suite.encode())
        # The client's level decides whether it may offer the suite whose tag has 64 bits.
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        client = SSL.Connection(context, None)
        client.set_connect_state()
        ours = server.serverConnectionForTLS(Transport())
        ours.set_accept_state()
        with suppress(SSL.Error):
            for one, other in ((client, ours), (ours, client)) * 3:
                with suppress(SSL.WantReadError):
                    one.do_handshake()
                with suppress(SSL.WantReadError):
                    other.bio_write(one.bio_read(1 << 16))
        if ours.get_cipher_name() == suite:
            accepted.add(suite)
    assert accepted == set(PROFILES["bcp195-modified"].tls13) - {"TLS_AES_128_CCM_8_SHA256"}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_are_refused_by_every_profile(
    authority: Authority, profile: str, version: ssl.TLSVersion
) -> None:
    """RFC 8996: TLS 1.0 and 1.1 must not be used."""
    client = authority.client()
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        client.minimum_version = client.maximum_version = version
    server = ServerContext(TLSOptions(certificate=authority.files["RSA"], profile=profile))
    with pytest.raises((SSL.Error, ssl.SSLError), match=r"unsupported protocol|version too low"):
        handshake(server, client)


def test_an_unknown_profile_is_refused_with_a_sentence() -> None:
    with pytest.raises(LocalProtocolError, match=r"profile is 'old'; expected bcp195, bcp195-mod"):
        TLSOptions(profile="old")
    with pytest.raises(LocalProtocolError, match="expected a list of files"):
        TLSOptions(more_certificates="one.pem")


# -- client certificates -------------------------------------------------------------------------------


def test_the_plain_context_factory_asks_for_certificates_too(
    authority: Authority, tmp_path: Path
) -> None:
    """It is for any API of Twisted, and asks for fingerprints as for authorities."""
    known, other = tmp_path / "known.pem", tmp_path / "other.pem"
    for file in (known, other):
        authority.issue(file, "client")
    digest = authority.digest(known)
    authority.authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for options, taken, refused in (
        ({"fingerprint": digest}, known, (None, other)),
        ({"trust": tmp_path / "ca.pem"}, other, (None,)),
        ({"fingerprint": digest, "clients": "optional"}, None, (other,)),
    ):
        made = TLSOptions(certificate=authority.files["ECDSA"], **options)
        assert handshake(Plain(made), authority.client(taken)).version()
        for each in refused:
            with pytest.raises((SSL.Error, ssl.SSLError)):
                handshake(Plain(made), authority.client(each))


def test_a_name_that_is_asked_for_needs_a_client_certificate_as_well(
    authority: Authority, tmp_path: Path
) -> None:
    """The context of another certificate has the same rules for clients."""
    authority.issue(tmp_path / "pacs.pem", "pacs.example")
    authority.issue(tmp_path / "client.pem", "client")
    authority.authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for options in (
        {"trust": tmp_path / "ca.pem"},
        {"fingerprint": authority.digest(tmp_path / "client.pem")},
    ):
        server = ServerContext(
            TLSOptions(
                certificate=authority.files["ECDSA"],
                more_certificates=[tmp_path / "pacs.pem"],
                **options,
            )
        )
        mine = authority.client(tmp_path / "client.pem")
        assert handshake(server, mine, "pacs.example").version()
        with pytest.raises(SSL.Error, match="did not return a certificate"):
            handshake(server, authority.client(), "pacs.example")


# -- names ---------------------------------------------------------------------------------------------


@pytest.fixture
def named(authority: Authority, tmp_path: Path) -> Callable[[str], set[str]]:
    """Call a server that has several certificates by a name: the names in the one that it presents."""
    files: list[Path] = []
    for name in ("pacs.example", "*.clinic.example"):
        files.append(tmp_path / f"{len(files)}.pem")
        authority.issue(files[-1], name)
    server = ServerContext(
        TLSOptions(certificate=authority.files["ECDSA"], more_certificates=files)
    )
    client = authority.client()
    client.check_hostname = False

    def call(name: str) -> set[str]:
        found = handshake(server, client, name).getpeercert()
        return {value for _, value in found["subjectAltName"]}

    return call


@pytest.mark.parametrize(
    ("asked", "presented"),
    [
        ("pacs.example", "pacs.example"),
        ("PACS.example", "pacs.example"),
        ("ct.clinic.example", "*.clinic.example"),
        ("node.example", "node.example"),
        ("unknown.example", "node.example"),
        ("127.0.0.1", "node.example"),
    ],
)
def test_a_server_presents_the_certificate_of_the_name_that_is_asked_for(
    named: Callable[[str], set[str]], asked: str, presented: str
) -> None:
    """RFC 6066 3: server name indication; without a match, the first certificate is presented."""
    assert named(asked) == {presented}
