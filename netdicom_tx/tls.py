"""TLS for associations (PS3.15 Annex B.12: BCP 195): options for both sides, over any endpoint.

Twisted's ``tls:`` and ``ssl:`` endpoint strings are enough for one-way TLS with public names. DICOM
also needs client certificates, private authorities, peers that are called by address, and
certificates that are known by their fingerprint. :class:`TLSOptions` has these. It needs the extra
``tls`` (pyOpenSSL, service-identity).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from twisted.internet.error import VerifyError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.python.filepath import FilePath
from zope.interface import implementer

from .exceptions import LocalProtocolError

__all__ = ["ServerContext", "TLSOptions"]

_Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSOptions:
    """How one side speaks TLS, which is version 1.2 or newer.

    Attributes:
        certificate: The PEM file of our certificate, followed by its chain. A server needs one; a client
            needs one when the peer asks for it.
        key: The PEM file of the private key. None means that ``certificate`` holds the key, too.
        trust: The PEM file of the authorities, or of the self-signed certificates, that we trust. For a
            client, None means the system's authorities.
        clients: What a server asks of its clients: a certificate that ``trust`` vouches for (``"required"``), such
            a certificate or none at all (``"optional"``), or nothing (``"none"``). None means ``"required"`` with
            ``trust``, and ``"none"`` without it.
        server_name: The name in the server's certificate, for a client. None means the host that is called.
        fingerprint: The SHA-256 of the server's certificate, for a client: 64 hexadecimal digits, with or
            without colons. Only this is checked then, whatever the certificate says.
    """

    certificate: _Path | None = None
    key: _Path | None = None
    trust: _Path | None = None
    server_name: str | None = None
    fingerprint: str | None = None
    clients: Literal["required", "optional", "none"] | None = None

    def __post_init__(self) -> None:
        if self.clients not in (None, "required", "optional", "none"):
            raise LocalProtocolError(
                f"clients is {self.clients!r:.80}; expected 'required', 'optional' or 'none'"
            )
        if self.clients in ("required", "optional") and self.trust is None:
            raise LocalProtocolError(
                f"client certificates are {self.clients}, but no authorities are given that they could be "
                "checked with; expected `trust`"
            )
        if self.fingerprint is not None:
            digits = self.fingerprint.replace(":", "").lower()
            if len(digits) != 64 or digits.strip("0123456789abcdef"):
                raise LocalProtocolError(
                    f"{self.fingerprint!r:.80} is not a fingerprint; expected 64 digits, a "
                    "SHA-256 in hexadecimal"
                )
            object.__setattr__(self, "fingerprint", digits)

    def wrap_client(self, endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        """Make an endpoint that speaks TLS over another one.

        Args:
            host: The host that is called, which the certificate must name.

        Raises:
            LocalProtocolError: A file cannot be used.
        """
        from twisted.internet.endpoints import wrapClientTLS
        from twisted.internet.ssl import optionsForClientTLS, platformTrust

        name = self.server_name or host
        if self.fingerprint is not None:
            return wrapClientTLS(_Pinned(self, name), endpoint)
        own = self._own()
        creator = optionsForClientTLS(
            name,
            trustRoot=platformTrust() if self.trust is None else self._authorities(),
            clientCertificate=own,
            extraCertificateOptions=_modern(),
        )
        return wrapClientTLS(creator, endpoint)

    def wrap_server(self, endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        """Make an endpoint that serves TLS over another one.

        Raises:
            LocalProtocolError: There is no certificate, or a file cannot be used.
        """
        return ServerContext(self).wrap(endpoint)

    def context_factory(self) -> Any:  # a CertificateOptions, whose module is an extra
        """Make the options of a TLS server, as Twisted takes them.

        Raises:
            LocalProtocolError: There is no certificate, or a file cannot be used.
        """
        from twisted.internet.ssl import CertificateOptions

        own = self._own()
        if own is None:
            raise LocalProtocolError("a TLS server needs a certificate; none was given")
        chain = _load_chain(self.certificate)[1:]
        asks = self.trust is not None and self.clients != "none"
        made = CertificateOptions(
            privateKey=own.privateKey.original,
            certificate=own.original,
            extraCertChain=chain or None,
            trustRoot=self._authorities() if asks else None,
            **_modern(),
        )
        # Beside a trust root, this cannot be an argument.
        made.requireCertificate = asks and self.clients != "optional"
        return made

    def _own(self) -> Any:
        from OpenSSL import SSL, crypto
        from twisted.internet.ssl import PrivateCertificate

        if self.certificate is None:
            return None
        pem = _read(self.certificate)
        if self.key is not None:
            pem = _read(self.key) + b"\n" + pem
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

    def _authorities(self) -> Any:
        from twisted.internet.ssl import Certificate, trustRootFromCertificates

        assert self.trust is not None
        return trustRootFromCertificates([Certificate(each) for each in _load_chain(self.trust)])


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
        self._factory = options.context_factory()

    def reload(self) -> None:
        """Read the files again, for the connections to come; those that are open go on.

        Raises:
            LocalProtocolError: A file cannot be used, and everything stays as it is.
        """
        self._factory = self.options.context_factory()

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """IOpenSSLServerConnectionCreator."""
        from OpenSSL import SSL

        return SSL.Connection(self._factory.getContext(), None)

    def wrap(self, endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        """Make an endpoint that serves TLS over another one."""
        from twisted.internet.endpoints import wrapServerTLS

        wrapped: IStreamServerEndpoint = wrapServerTLS(self, endpoint)
        return wrapped


def _modern() -> dict[str, Any]:
    """The options that BCP 195 demands: no TLS below 1.2."""
    from twisted.internet.ssl import TLSVersion

    return {"raiseMinimumTo": TLSVersion.TLSv1_2}


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
    marker = b"-----BEGIN CERTIFICATE-----"
    blocks = _read(path).split(marker)[1:]
    if not blocks:
        raise LocalProtocolError(
            f"{os.fspath(path)} holds no certificate; expected one in PEM form"
        )
    try:
        return [crypto.load_certificate(crypto.FILETYPE_PEM, marker + block) for block in blocks]
    except crypto.Error as error:
        raise LocalProtocolError(f"{os.fspath(path)} holds a damaged certificate") from error


@implementer(IOpenSSLClientConnectionCreator)
class _Pinned:
    """Makes client connections that trust one certificate, known by its fingerprint."""

    def __init__(self, options: TLSOptions, name: str) -> None:
        from OpenSSL import SSL
        from twisted.internet.ssl import CertificateOptions

        own = options._own()
        context = CertificateOptions(
            privateKey=own.privateKey.original if own else None,
            certificate=own.original if own else None,
            **_modern(),
        ).getContext()
        wanted = options.fingerprint

        def verify(_: object, certificate: Any, error: int, depth: int, ok: int) -> bool:
            if depth:
                return True  # the issuers do not matter
            found: str = certificate.digest("sha256").decode().replace(":", "").lower()
            return found == wanted

        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        self._context = context
        self._name = name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """IOpenSSLClientConnectionCreator."""
        from OpenSSL import SSL

        connection = SSL.Connection(self._context, None)
        if not self._name.replace(".", "").replace(":", "").isdigit():
            connection.set_tlsext_host_name(self._name.encode("idna"))
        return connection
