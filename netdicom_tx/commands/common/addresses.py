"""The peer to call: ``AET@host:port``, ``host:port``, ``dicoms://AET@host:port``, or a name of ``[peers]``.

An IPv6 address stands in brackets. An address without an AE title is called ``ANY-SCP``, as DCMTK's tools do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .failures import bad_input

if TYPE_CHECKING:
    from ...quirks import Quirks
    from ...tls import TLSOptions

__all__ = [
    "ANY_SCP",
    "Address",
    "TLSFiles",
    "check_title",
    "find_peer",
    "overridden",
    "parse_address",
]

#: The called AE title for an address without one.
ANY_SCP = "ANY-SCP"
# PS3.15 Annex B.12: the registered port of DICOM over TLS.
_TLS_PORT = 2762
# The AE has a timeout for connecting, and the endpoint's own one of 30 s must not run out before that.
_LONGEST = 7 * 86400.0
_FORMS = (
    "write AET@host:port, host:port, or dicoms://AET@host:port, with an IPv6 address in brackets"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """How to speak TLS with a peer; the attributes are those of :class:`~netdicom_tx.TLSOptions`."""

    certificate: str | None = None
    key: str | None = None
    key_password: str | None = field(default=None, repr=False)
    trust: str | None = None
    server_name: str | None = None
    fingerprint: str | tuple[str, ...] | None = None

    def options(self) -> TLSOptions:
        """These settings as the options of the library.

        Raises:
            LocalProtocolError: The fingerprint is not a SHA-256 digest.
        """
        from ...tls import TLSOptions

        return TLSOptions(
            certificate=self.certificate,
            key=self.key,
            key_password=self.key_password,
            trust=self.trust,
            server_name=self.server_name,
            fingerprint=self.fingerprint,
        )


@dataclass(frozen=True, slots=True)
class Address:
    """A peer.

    Attributes:
        ae_title: The called AE title.
        calling: The calling AE title for this peer; None means the general one.
        tls: How to speak TLS with the peer; None means plain TCP.
        quirks: What is agreed on with it, whatever would be negotiated; None for nothing.
    """

    ae_title: str
    host: str
    port: int
    calling: str | None = None
    tls: TLSFiles | None = None
    quirks: Quirks | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether this looks like an address of this machine; no name is resolved."""
        return self.host == "localhost" or self.host.startswith("127.") or self.host == "::1"

    def endpoint(self, reactor: Any) -> Any:
        """The client endpoint to connect with.

        Raises:
            LocalProtocolError: A file for TLS cannot be used.
        """
        from twisted.internet import endpoints
        from twisted.internet.abstract import isIPAddress, isIPv6Address

        kind: Any = endpoints.HostnameEndpoint
        # HostnameEndpoint reports a refused connection only after 0.3 s (RFC 8305).
        if isIPAddress(self.host):
            kind = endpoints.TCP4ClientEndpoint
        elif isIPv6Address(self.host):
            kind = endpoints.TCP6ClientEndpoint
        endpoint = kind(reactor, self.host, self.port, timeout=_LONGEST)
        if self.tls is None:
            return endpoint
        return self.tls.options().wrap_client(endpoint, self.host)


def check_title(title: str, where: str) -> str:
    """Check an AE title, and strip the spaces around it.

    Args:
        where: The place where the title was written, for the message.

    Raises:
        CommandError: The text is not an AE title.
    """
    from ...exceptions import LocalProtocolError
    from ...pdu import check_ae_title

    try:
        return check_ae_title(title)
    except LocalProtocolError as error:
        raise bad_input(
            f"{title!r} is not an AE title",
            f"{where}: {error}",
            "pass the title that the peer knows",
        ) from error


def parse_address(text: str) -> Address:
    """Read an address in one of its forms.

    Raises:
        CommandError: The text is not an address; the message says what is missing.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "dicom", text
    if scheme not in ("dicom", "dicoms"):
        raise bad_input(f"{text!r} is not an address", f"unknown scheme {scheme!r}", _FORMS)
    title, _, where = rest.rstrip("/").rpartition("@")
    if "@" in rest and not title:
        raise bad_input(
            f"{text!r} is not an address", "the AE title before the @ is missing", _FORMS
        )
    host, number = _host_and_port(text, where)
    if not number and scheme == "dicoms":
        number = str(_TLS_PORT)
    if not number:
        raise bad_input(f"{text!r} is not an address", "the port is missing", _FORMS)
    # isdecimal alone would accept the digits of other scripts.
    if not (number.isascii() and number.isdecimal() and 0 < int(number) < 65536):
        raise bad_input(
            f"{text!r} is not an address", f"{number!r} is not a port from 1 to 65535", _FORMS
        )
    return Address(
        check_title(title, f"in {text!r}") if title else ANY_SCP,
        host,
        int(number),
        tls=TLSFiles() if scheme == "dicoms" else None,
    )


def _host_and_port(text: str, where: str) -> tuple[str, str]:
    if where.startswith("["):
        host, closed, rest = where[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise bad_input(f"{text!r} is not an address", "the bracket is not closed", _FORMS)
        number = rest[1:]
    else:
        host, _, number = where.partition(":")
        if ":" in number:
            raise bad_input(
                f"{text!r} is not an address",
                "an IPv6 address stands in brackets: [::1]:104",
                _FORMS,
            )
    if not host or any(c.isspace() or not c.isprintable() for c in host):
        raise bad_input(f"{text!r} is not an address", "the host is missing", _FORMS)
    return host, number


def find_peer(text: str, peers: Mapping[str, Address], sources: Iterable[object] = ()) -> Address:
    """The peer with this name, or at this address.

    Args:
        peers: The configured peers, by name.
        sources: The configuration files that were read, for the message.

    Raises:
        CommandError: The text is neither a name nor an address.
    """
    if text in peers:
        return peers[text]
    alike = [name for name in peers if name.casefold() == text.casefold()]
    if len(alike) == 1:
        return peers[alike[0]]
    if "@" in text or ":" in text:
        return parse_address(text)
    near = difflib.get_close_matches(text, peers, n=3)
    if near:
        hint = f"did you mean {' or '.join(near)}? otherwise {_FORMS}"
    elif "." in text:
        hint = f"a host needs its port: {text}:104 or {text}:11112"
    else:
        hint = f"{_FORMS}, or add it to the configuration file"
    files = ", ".join(str(each) for each in sources)
    known = ", ".join(sorted(peers)) or "none"
    raise bad_input(
        f"no peer is called {text!r}",
        f"configured peers: {known} ({files or 'there is no configuration file'})",
        hint,
    )


def overridden(address: Address, *, called: str | None, tls: TLSFiles | None) -> Address:
    """The address, with the values that the command line overrides."""
    if called is not None:
        address = replace(address, ae_title=check_title(called, "-aec"))
    if tls is not None:
        address = replace(address, tls=tls)
    return address
