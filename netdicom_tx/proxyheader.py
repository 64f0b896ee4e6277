"""The header of the PROXY protocol, in which a proxy names the peer whose connection it forwards.

For TCP, the proxy itself is the peer of each connection. So it sends a header before the first octet of the peer.
Version 1 of the header is a line of text, version 2 has a binary form::

    PROXY TCP4 192.0.2.7 192.0.2.1 49152 104 CR LF

    signature 12 | version and command 1 | family 1 | length 2 | source, destination, ports | more (TLV)

Source: *The PROXY protocol, versions 1 and 2*, sections 2.1 and 2.2 (``doc/proxy-protocol.txt`` of HAProxy).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = ["LIMIT", "V1_LIMIT", "ProxyHeader", "ProxyHeaderError", "read_header"]

#: How many octets a header of version 1 has at most, with CR LF (section 2.1).
V1_LIMIT: Final = 107
#: How many octets of a header of version 2 are accepted. A proxy may add more behind the addresses, such as the names
#: of a certificate. The length could announce 64 KiB, but that would only be a way to fill the memory.
LIMIT: Final = 4096

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = len(_SIGNATURE) + 4
_WORD: Final = b"PROXY "
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")
_LINE: Final = re.compile(rb"PROXY (TCP4|TCP6) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")
# The addresses of each family in version 2: source, destination and their ports. A UNIX socket has paths. Families that
# are not streams are read and not used.
_FAMILIES: Final = {
    0x00: None,
    0x11: struct.Struct("!4s4sHH"),
    0x12: struct.Struct("!4s4sHH"),
    0x21: struct.Struct("!16s16sHH"),
    0x22: struct.Struct("!16s16sHH"),
    0x31: struct.Struct("!108s108s"),
    0x32: struct.Struct("!108s108s"),
}
_STREAMS: Final[Mapping[int, type[IPv4Address | IPv6Address]]] = {
    0x11: IPv4Address,
    0x21: IPv6Address,
}


class ProxyHeaderError(Exception):
    """A connection does not begin with a header of the PROXY protocol."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A complete header.

    Attributes:
        size: The number of its octets; the octets of the peer follow.
        source: The host and the port of the peer. None when the header does not name them: the connection is the
            proxy's own (LOCAL, for example a health check), the proxy does not know them (UNKNOWN), or the peer has not
            come by TCP.
    """

    size: int
    source: tuple[str, int] | None = None


def read_header(octets: bytes) -> ProxyHeader | None:
    """Read the header at the beginning of a connection.

    Args:
        octets: All octets that have come so far, at least one.

    Returns:
        The header; None while more octets are needed, up to :data:`LIMIT`.

    Raises:
        ProxyHeaderError: It cannot become a header, whatever follows, or it is too large.
    """
    if octets.startswith(_SIGNATURE[: len(octets)]):
        return _read_binary(octets)
    if octets.startswith(_WORD[: len(octets)]):
        return _read_line(octets)
    raise ProxyHeaderError(f"octets came without a header ({octets[:8].hex(' ')})")


def _read_line(octets: bytes) -> ProxyHeader | None:
    line, end, _ = octets[:V1_LIMIT].partition(b"\r\n")
    if not end:
        if len(octets) >= V1_LIMIT:
            raise ProxyHeaderError(
                f"a header of version 1 came without an end in {V1_LIMIT} octets"
            )
        return None
    size = len(line) + len(end)
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader(size)
    found = _LINE.fullmatch(line)
    if found is None:
        raise ProxyHeaderError("a header of version 1 came that is malformed")
    family, *hosts, source_port, destination_port = found.groups()
    kind = IPv4Address if family == b"TCP4" else IPv6Address
    try:
        # An address with a zone is refused: the zone has a meaning only for the proxy.
        source, _ = (kind(each.decode("ascii").replace("%", " ")) for each in hosts)
    except ValueError as error:
        raise ProxyHeaderError("a header of version 1 came with a wrong address") from error
    if max(int(source_port), int(destination_port)) > 0xFFFF:
        raise ProxyHeaderError("a header of version 1 came with a wrong port")
    return ProxyHeader(size, (_plain(source), int(source_port)))


def _read_binary(octets: bytes) -> ProxyHeader | None:
    if len(octets) > 12 and octets[12] not in (0x20, 0x21):
        raise ProxyHeaderError(
            f"a header came of version {octets[12] >> 4} with command {octets[12] & 15}; "
            "known are version 2 with 0 or 1"
        )
    if len(octets) < _FIXED:
        return None
    length = int.from_bytes(octets[14:_FIXED], "big")
    size = _FIXED + length
    if size > LIMIT:
        raise ProxyHeaderError(f"a header of {size} octets came; at most {LIMIT} are accepted")
    is_local = octets[12] == 0x20
    family = octets[13]
    if not is_local:
        if family not in _FAMILIES:
            raise ProxyHeaderError(f"a header came with the unknown address family 0x{family:02x}")
        form = _FAMILIES[family]
        if form is not None and length < form.size:
            raise ProxyHeaderError(
                f"a header came with {length} octets of addresses; {form.size} were expected"
            )
    if len(octets) < size:
        return None
    if is_local or family not in _STREAMS:
        return ProxyHeader(size)  # the rest of a LOCAL header is ignored
    form = _FAMILIES[family]
    assert form is not None
    source, _, port, _ = form.unpack_from(octets, _FIXED)
    return ProxyHeader(size, (_plain(_STREAMS[family](source)), port))


def _plain(address: IPv4Address | IPv6Address) -> str:
    """The text of an address; an IPv4 address in IPv6 notation (RFC 4291 2.5.5.2) is that IPv4 address."""
    return str(getattr(address, "ipv4_mapped", None) or address)
