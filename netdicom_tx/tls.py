"""TLS for associations (PS3.15 Annex B): options for both sides, over any endpoint.

Twisted's ``tls:`` and ``ssl:`` endpoint strings are enough for one-way TLS with public names. DICOM
also needs client certificates, private authorities, peers that are called by address, certificates
that are known by their fingerprint, and the cipher suites of a profile. :class:`TLSOptions` has these.
It needs the extra ``tls`` (pyOpenSSL, service-identity).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.python.filepath import FilePath
from zope.interface import implementer

from .exceptions import LocalProtocolError, printable
from .logs import Logger
from .refusals import Refusal, refuse_certificate

__all__ = ["PROFILES", "Profile", "ServerContext", "TLSOptions"]

_Path = str | os.PathLike[str]
_log = Logger()
# How many days before its end a certificate of our own is warned about.
_NOTICE: Final = 30


# -- the profiles of PS3.15 --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Profile:
    """A secure transport connection profile of PS3.15 Annex B.

    Attributes:
        section: The section of Annex B.
        tls12: The cipher suites for TLS 1.2 by their IANA names, in the order of preference.
        tls13: The cipher suites for TLS 1.3; empty where the profile does not have TLS 1.3.
    """

    section: str
    tls12: tuple[str, ...]
    tls13: tuple[str, ...]


_RFC_9325 = (
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
)
_DHE_RSA = (
    "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
)
_TLS13 = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
)

#: The profiles by the names that options have for them.
#:
#: BCP 195 TLS (B.9, retired) is missing because it falls back to TLS 1.0, which RFC 8996 forbids.
PROFILES: Final = {
    "bcp195": Profile("B.12", _RFC_9325, _TLS13),
    "bcp195-modified": Profile(
        "B.13",
        (
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_CCM",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",
            # OpenSSL's security levels above 0 refuse these two, whose tag has 64 bits.
            "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8",
            "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
        ),
        (*_TLS13, "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"),
    ),
    # "Suites of similar or greater strength may be supported": those of RFC 9325, and TLS 1.3.
    "bcp195-nondowngrading": Profile("B.10", (*_RFC_9325, *_DHE_RSA), _TLS13),
    # No other suites are allowed, and those of TLS 1.3 are others. OpenSSL has no Camellia in GCM.
    "bcp195-extended": Profile("B.11", (*_RFC_9325, *_DHE_RSA), ()),
}

# ffdhe3072 of RFC 7919, for suites with DHE; the profiles demand 2048 bits or more.
_FFDHE3072 = """\
-----BEGIN DH PARAMETERS-----
MIIBiAKCAYEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEfz9zeNVs7ZRkDW7w09N75nAI4YbRvydbmyQd62R0mkff3
7lmMsPrBhtkcrv4TCYUTknC0EwyTvEN5RPT9RFLi103TZPLiHnH1S/9croKrnJ32
nuhtK8UiNjoNq8Uhl5sN6todv5pC1cRITgq80Gv6U93vPBsg7j/VnXwl5B0rZsYu
N///////////AgEC
-----END DH PARAMETERS-----
"""


def openssl_name(suite: str) -> str:
    """The name that OpenSSL has for a cipher suite of TLS 1.2, given its IANA name."""
    plain = suite.removeprefix("TLS_").replace("_WITH_", "_").replace("AES_", "AES")
    plain = plain.replace("CCM_8", "CCM8").replace("POLY1305_SHA256", "POLY1305")
    return plain.replace("_", "-")


# -- options -----------------------------------------------------------------------------------------


_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
# A private key that needs a password, in the form of PKCS #8 or in the former one.
_ENCRYPTED: Final = re.compile(rb"BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED")


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSOptions:
    """How one side speaks TLS, which is version 1.2 or newer.

    Attributes:
        certificate: The PEM file of our certificate, followed by its chain. A server needs one; a client
            needs one when the peer asks for it.
        key: The PEM file of the private key. None means that ``certificate`` holds the key, too.
        key_password: The password of an encrypted private key.
        trust: The PEM file of the authorities, or of the self-signed certificates, that we trust. For a
            client, None means the system's authorities.
        clients: What a server asks of its clients: a certificate that ``trust`` or ``fingerprint`` vouches for
            (``"required"``), such a certificate or none at all (``"optional"``), or nothing (``"none"``). None
            means ``"required"`` with either of these, and ``"none"`` without.
        server_name: The name in the server's certificate, for a client. None means the host that is called.
        fingerprint: The SHA-256 of the peer's certificate, or of those of several peers: 64 hexadecimal digits
            for each, with or without colons. Only this is checked then, whatever the certificate says and
            whatever ``trust`` holds.
        profile: The name of a profile in :data:`PROFILES`, which determines the versions and cipher suites.
        more_certificates: The PEM files of further certificates of a server, each with its chain and private key.
            A client that asks for one of the names in such a certificate gets it (SNI, RFC 6066); every
            other client gets ``certificate``.
    """

    certificate: _Path | None = None
    key: _Path | None = None
    key_password: str | None = field(default=None, repr=False)
    trust: _Path | None = None
    server_name: str | None = None
    fingerprint: str | Iterable[str] | None = None
    clients: Literal["required", "optional", "none"] | None = None
    profile: str = "bcp195"
    more_certificates: Iterable[_Path] = ()

    def __post_init__(self) -> None:
        if self.clients not in (None, "required", "optional", "none"):
            raise LocalProtocolError(
                f"clients is {self.clients!r:.80}; expected 'required', 'optional' or 'none'"
            )
        if self.profile not in PROFILES:
            raise LocalProtocolError(
                f"profile is {self.profile!r:.80}; expected {', '.join(PROFILES)}"
            )
        if isinstance(self.more_certificates, str | os.PathLike):
            raise LocalProtocolError(
                f"more_certificates is {self.more_certificates!r:.80}; expected a list of files"
            )
        object.__setattr__(self, "more_certificates", tuple(self.more_certificates))
        given = self.fingerprint
        if isinstance(given, str):
            object.__setattr__(self, "fingerprint", _digits(given))
        elif given is not None:
            object.__setattr__(self, "fingerprint", tuple(map(_digits, given)))
        if self.clients in ("required", "optional") and not (self.trust or self.fingerprint):
            raise LocalProtocolError(
                f"client certificates are {self.clients}, but no authorities are given that they could be "
                "checked with; expected `trust`, or `fingerprint`"
            )

    @property
    def _pinned(self) -> frozenset[str]:
        given = self.fingerprint
        return frozenset([given] if isinstance(given, str) else given or ())

    def wrap_client(self, endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        """Make an endpoint that speaks TLS over another one.

        Args:
            host: The host that is called, which the certificate must name.

        Raises:
            LocalProtocolError: A file cannot be used.
        """
        from twisted.internet.endpoints import wrapClientTLS

        wrapped: IStreamClientEndpoint = wrapClientTLS(
            _ClientContext(self, self.server_name or host), endpoint
        )
        return wrapped

    def check(self) -> None:
        """Read the files, as a server and a client would.

        Raises:
            LocalProtocolError: A file cannot be used.
            ImportError: The packages of TLS are missing.
        """
        if self.certificate is not None:
            ServerContext(self)
        elif self.trust is not None:
            self._authorities()

    def wrap_server(self, endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        """Make an endpoint that serves TLS over another one.

        Raises:
            LocalProtocolError: There is no certificate, or a file cannot be used.
        """
        return ServerContext(self).wrap(endpoint)

    def context_factory(self) -> Any:  # a CertificateOptions, whose module is an extra
        """Make the options of a TLS server, as Twisted takes them.

        They have the first certificate only, and they report a refused certificate in OpenSSL's words;
        :class:`ServerContext` has the others and reports it in a sentence.

        Raises:
            LocalProtocolError: There is no certificate, or a file cannot be used.
        """
        if self.certificate is None:
            raise LocalProtocolError("a TLS server needs a certificate; none was given")
        return self._server_options(self._own(), _load_chain(self.certificate)[1:])

    def _server_options(self, own: Any, chain: list[Any]) -> Any:
        from OpenSSL import SSL

        made = self._options(own, chain, self._authorities() if self._asks and self.trust else None)
        context = made.getContext()
        if self._asks:
            context.set_verify(self._verify_mode(), _judge(_NOBODY, self._pinned))
        profile = PROFILES[self.profile]
        if profile.tls13:
            context.set_tls13_ciphersuites(":".join(profile.tls13).encode())
        if any("_DHE_" in each for each in profile.tls12):
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(_FFDHE3072)
                file.flush()
                context.load_tmp_dh(file.name)
        # OpenSSL refuses what the client starts; this keeps it so for every version and configuration.
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        return made

    def _options(self, own: Any, chain: list[Any] | None, authorities: Any) -> Any:
        from twisted.internet.ssl import AcceptableCiphers, CertificateOptions, TLSVersion

        profile = PROFILES[self.profile]
        suites = ":".join(map(openssl_name, profile.tls12))
        return CertificateOptions(
            privateKey=own.privateKey.original if own else None,
            certificate=own.original if own else None,
            extraCertChain=chain or None,
            trustRoot=authorities,
            acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString(suites),
            raiseMinimumTo=TLSVersion.TLSv1_2,
            lowerMaximumSecurityTo=None if profile.tls13 else TLSVersion.TLSv1_2,
        )

    def _verify_mode(self) -> int:
        """How a server asks its clients for a certificate."""
        from OpenSSL import SSL

        is_optional = self.clients == "optional"
        return SSL.VERIFY_PEER | (0 if is_optional else SSL.VERIFY_FAIL_IF_NO_PEER_CERT)

    @property
    def _asks(self) -> bool:
        """Whether a server asks its clients for a certificate."""
        return (self.trust is not None or bool(self._pinned)) and self.clients != "none"

    def _own(self) -> Any:
        from OpenSSL import SSL, crypto
        from twisted.internet.ssl import PrivateCertificate

        if self.certificate is None:
            return None
        pem = _read(self.certificate)
        if self.key is not None:
            pem = _read(self.key) + b"\n" + pem
        if _ENCRYPTED.search(pem):
            pem = self._decrypted(pem) + b"\n" + pem[max(pem.find(_CERTIFICATE), 0) :]
        try:
            return PrivateCertificate.loadPEM(pem)
        except VerifyError as error:
            key = self.certificate if self.key is None else self.key
            raise LocalProtocolError(
                f"the private key {os.fspath(key)} does not belong to the "
                f"certificate {os.fspath(self.certificate)}; expected the key that it was made for"
            ) from error
        except (SSL.Error, crypto.Error, ValueError, TypeError) as error:
            raise LocalProtocolError(
                f"{os.fspath(self.certificate)} has no certificate with a private key; expected both in "
                "PEM form, or the key in the file that `key` names"
            ) from error

    def _decrypted(self, pem: bytes) -> bytes:
        """The private key without its password, which OpenSSL would ask the terminal for.

        Raises:
            LocalProtocolError: There is no password, or it is wrong.
        """
        from cryptography.hazmat.primitives import serialization

        key = self.certificate if self.key is None else self.key
        assert key is not None
        if self.key_password is None:
            raise LocalProtocolError(
                f"the private key {os.fspath(key)} is encrypted; give its password: `key_password`"
            )
        try:
            found = serialization.load_pem_private_key(pem, self.key_password.encode())
        except ValueError as error:
            raise LocalProtocolError(
                f"the private key {os.fspath(key)} cannot be decrypted with the password that was given"
            ) from error
        return found.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def _authorities(self) -> Any:
        from twisted.internet.ssl import Certificate, trustRootFromCertificates

        assert self.trust is not None
        return trustRootFromCertificates([Certificate(each) for each in _load_chain(self.trust)])


# -- server ------------------------------------------------------------------------------------------


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """The context of a TLS server, whose files can be read again while it serves.

    Args:
        options: The options of the server.

    Raises:
        LocalProtocolError: There is no certificate, or a file cannot be used.
    """

    def __init__(self, options: TLSOptions) -> None:
        self.options = options
        self._context = _server_context(options)

    def reload(self) -> None:
        """Read the files again, for the connections to come; those that are open go on.

        Raises:
            LocalProtocolError: A file cannot be used, and everything stays as it is.
        """
        self._context = _server_context(self.options)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """IOpenSSLServerConnectionCreator."""
        from OpenSSL import SSL

        connection = SSL.Connection(self._context, None)
        if self.options._asks:
            verdict = _judge(tlsProtocol, self.options._pinned)
            connection.set_verify(self.options._verify_mode(), verdict)
        return connection

    def wrap(self, endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        """Make an endpoint that serves TLS over another one."""
        from twisted.internet.endpoints import wrapServerTLS

        wrapped: IStreamServerEndpoint = wrapServerTLS(self, endpoint)
        return wrapped


def _server_context(options: TLSOptions) -> Any:
    """The context for a server's connections, which changes to that of a name the client asks for."""
    context = options.context_factory().getContext()
    assert options.certificate is not None  # the factory has checked it
    _check_validity(options.certificate, _load_chain(options.certificate)[0])
    by_name: dict[str, Any] = {}
    for path in options.more_certificates:
        chain = _load_chain(path)
        _check_validity(path, chain[0])
        own = TLSOptions(certificate=path)._own()
        further = options._server_options(own, chain[1:]).getContext()
        for name in _names(chain[0]):
            by_name.setdefault(name.lower(), further)
    if by_name:

        def choose(connection: Any) -> None:
            asked = (connection.get_servername() or b"").decode("ascii", "replace").lower()
            _, _, domain = asked.partition(".")
            found = by_name.get(asked) or by_name.get(f"*.{domain}")
            if found is not None:
                connection.set_context(found)

        context.set_tlsext_servername_callback(choose)
    return context


def _check_validity(path: _Path, certificate: Any) -> None:
    """Warn about a certificate that has expired, or will soon."""
    end = certificate.to_cryptography().not_valid_after_utc
    days = (end - datetime.now(UTC)).days
    if days < _NOTICE:
        _log.warn(
            "the certificate in {path} {verb} on {end:%Y-%m-%d %H:%M} UTC, and peers refuse it then; renew it",
            path=os.fspath(path),
            verb="has expired" if days < 0 else "expires",
            end=end,
        )


# -- client ------------------------------------------------------------------------------------------


@implementer(IOpenSSLClientConnectionCreator)
class _ClientContext:
    """Makes client connections to a host.

    Args:
        options: The options of the client.
        name: What the certificate must name, a host name or an address.

    Raises:
        LocalProtocolError: A file cannot be used.
    """

    def __init__(self, options: TLSOptions, name: str) -> None:
        from twisted.internet.ssl import platformTrust

        own = options._own()
        chain = _load_chain(options.certificate)[1:] if own else None
        self._pinned = options._pinned
        authorities = None
        if not self._pinned:
            authorities = platformTrust() if options.trust is None else options._authorities()
        self._context = options._options(own, chain, authorities).getContext()
        self._name = name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """IOpenSSLClientConnectionCreator."""
        from OpenSSL import SSL

        connection = SSL.Connection(self._context, None)
        if not _is_address(self._name):
            # RFC 6066 3: an address is not a name here.
            connection.set_tlsext_host_name(self._name.encode("idna"))
        connection.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
            _judge(tlsProtocol, self._pinned, self._name),
        )
        return connection


# -- certificates of peers ---------------------------------------------------------------------------

# The errors of a certificate that an operator can do something about, by OpenSSL's numbers (x509_vfy.h).
_NOT_YET_VALID = 9
_EXPIRED = 10
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)
_WRONG_PURPOSE = 26
_WEAK = (66, 67, 68)

_Verdict = Callable[[Any, Any, int, int, int], bool]


class _Nobody:
    """Stands for a transport where it is not known which one a certificate comes by."""


_NOBODY: Final = _Nobody()


def _judge(transport: object, pinned: frozenset[str], name: str | None = None) -> _Verdict:
    """Make the function that OpenSSL asks about each certificate of a peer, the peer's own last.

    OpenSSL says no more than "certificate verify failed", so the reason is kept for the log.

    Args:
        transport: The transport that the certificates come by.
        pinned: The fingerprints that are accepted; if it is empty, the authorities count.
        name: The host that the certificate must name; None accepts every name.
    """

    def verdict(_: object, certificate: Any, error: int, depth: int, ok: int) -> bool:
        try:
            if pinned:
                refusal = None if depth else _check_pin(certificate, pinned)
            elif not ok:
                refusal = _explain(certificate, error)
            else:
                refusal = None if depth or name is None else _check_name(certificate, name)
        except Exception:
            # The parser of `cryptography` is stricter than that of OpenSSL, and documents no closed set of errors.
            refusal = Refusal(
                "certificate",
                "the certificate of the peer cannot be read",
                "one in the form of RFC 5280",
                "have another one issued for the peer",
            )
        if refusal is None:
            return True
        refuse_certificate(transport, refusal)
        return False

    return verdict


def _check_pin(certificate: Any, pinned: frozenset[str]) -> Refusal | None:
    found = _digits(certificate.digest("sha256").decode())
    if found in pinned:
        return None
    return Refusal(
        "certificate",
        f"the certificate of the peer ({_subject(certificate)}) has the SHA-256 fingerprint {found}",
        "one of the fingerprints that are configured here",
        "add it if the peer may connect",
    )


def _explain(certificate: Any, error: int) -> Refusal:
    own = certificate.to_cryptography()
    whose = f"the certificate of the peer ({_subject(certificate)})"
    if error == _EXPIRED:
        when = own.not_valid_after_utc
        came, expected = f"{whose} expired on {when:%Y-%m-%d %H:%M} UTC", "a certificate of today"
        advice = "renew it at the peer, or correct the clock of this side"
    elif error == _NOT_YET_VALID:
        when = own.not_valid_before_utc
        came = f"{whose} is not valid before {when:%Y-%m-%d %H:%M} UTC"
        expected, advice = "a certificate of today", "correct the clocks of both sides"
    elif error in _UNKNOWN_ISSUER:
        issuer = printable(own.issuer.rfc4514_string(), 120)
        came = f"{whose} is signed by an authority that is not trusted here ({issuer})"
        expected = "a certificate of an authority that is trusted here"
        advice = "have one issued for the peer, or trust its authority"
    elif error == _WRONG_PURPOSE:
        came, expected = f"{whose} is for another purpose", "one for this role (client or server)"
        advice = "look at its extended key usage, and have one issued for both roles"
    elif error in _WEAK:
        came, expected = f"{whose} has a weak key or signature", "RSA 2048, ECC 256, SHA-256"
        advice = "have a stronger one issued for the peer"
    else:
        came = f"{whose} is not valid (OpenSSL's verification error {error})"
        expected, advice = "", "look up the number in the manual of openssl verify"
    return Refusal("certificate", came, expected, advice)


def _check_name(certificate: Any, name: str) -> Refusal | None:
    from service_identity import CertificateError, VerificationError
    from service_identity.cryptography import (
        verify_certificate_hostname,
        verify_certificate_ip_address,
    )

    try:
        if _is_address(name):
            verify_certificate_ip_address(certificate.to_cryptography(), name)
        else:
            ascii_name = name.encode("idna").decode("ascii")
            verify_certificate_hostname(certificate.to_cryptography(), ascii_name)
    except (CertificateError, VerificationError):
        names = printable(", ".join(_names(certificate)) or "no name", 200)
        return Refusal(
            "certificate",
            f"the certificate of the peer is for {names}",
            f"one for the name {printable(name, 120)}",
            "call the peer by a name in its certificate, or set the name that it has to have",
        )
    return None


def _is_address(name: str) -> bool:
    return bool(isIPAddress(name) or isIPv6Address(name))


def _subject(certificate: Any) -> str:
    return printable(certificate.to_cryptography().subject.rfc4514_string() or "no subject", 120)


def _names(certificate: Any) -> list[str]:
    """The host names and addresses that a certificate is for."""
    from cryptography import x509

    try:
        found = (
            certificate.to_cryptography()
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value
        )
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [
        *found.get_values_for_type(x509.DNSName),
        *map(str, found.get_values_for_type(x509.IPAddress)),
    ]


# -- files -------------------------------------------------------------------------------------------


def _digits(fingerprint: str) -> str:
    """The hexadecimal digits of a SHA-256, in lower case."""
    digits = fingerprint.strip().replace(":", "").lower()
    if len(digits) != 64 or digits.strip("0123456789abcdef"):
        raise LocalProtocolError(
            f"{fingerprint!r:.80} is not a fingerprint; expected 64 digits, a SHA-256 in hexadecimal"
        )
    return digits


def _read(path: _Path) -> bytes:
    try:
        content: bytes = FilePath(os.fspath(path)).getContent()
    except OSError as error:
        raise LocalProtocolError(f"{os.fspath(path)}: {error.strerror}") from error
    return content


def _load_chain(path: _Path | None) -> list[Any]:
    """The certificates of a PEM file, in order."""
    from OpenSSL import crypto

    assert path is not None
    blocks = _read(path).split(_CERTIFICATE)[1:]
    if not blocks:
        raise LocalProtocolError(
            f"{os.fspath(path)} holds no certificate; expected one in PEM form"
        )
    try:
        return [
            crypto.load_certificate(crypto.FILETYPE_PEM, _CERTIFICATE + block) for block in blocks
        ]
    except crypto.Error as error:
        raise LocalProtocolError(f"{os.fspath(path)} holds a damaged certificate") from error
