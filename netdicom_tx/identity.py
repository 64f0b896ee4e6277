"""Who a peer is, beyond its AE title: the certificate that it has shown."""

from __future__ import annotations

from typing import Any

from .access import Certificate

__all__ = ["peer_certificate"]


def peer_certificate(transport: Any) -> Certificate | None:
    """What the rules look at in the certificate of a TLS peer; None without TLS, or without a certificate.

    Args:
        transport: The transport of the association. Those that speak TLS have ``getPeerCertificate``.
    """
    get = getattr(transport, "getPeerCertificate", None)
    found = None if get is None else get()
    if found is None:
        return None
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    certificate = found.to_cryptography()
    names = [
        str(each.value)
        for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    ]
    return Certificate(
        certificate.fingerprint(SHA256()).hex(), (*names, *_alternative_names(certificate))
    )


def _alternative_names(certificate: Any) -> list[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # there is none, or it cannot be read
        return []
    names: list[str] = []
    for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
        names += found.get_values_for_type(kind)
    return [*names, *map(str, found.get_values_for_type(x509.IPAddress))]
