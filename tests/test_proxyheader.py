"""The header of the PROXY protocol, against its specification and against the parser of Twisted."""

import ipaddress
import socket
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser

from netdicom_tx.proxyheader import LIMIT, V1_LIMIT, ProxyHeader, ProxyHeaderError, read_header
from support.proxies import SIGNATURE, binary, tcp4

PORTS = st.integers(0, 65535)


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, tuple[str, int]]:
    """A header of either version for a peer by TCP, and what it says."""
    version = draw(st.sampled_from((4, 6)))
    addresses = st.ip_addresses(v=4) if version == 4 else st.ip_addresses(v=6)
    source, destination = draw(addresses), draw(addresses)
    port, other = draw(PORTS), draw(PORTS)
    plain = getattr(source, "ipv4_mapped", None) or source
    if draw(st.booleans()):
        line = f"PROXY TCP{version} {source} {destination} {port} {other}\r\n"
        return line.encode(), (str(plain), port)
    body = source.packed + destination.packed + struct.pack("!HH", port, other)
    more = draw(st.binary(max_size=64))
    return binary(1, 0x11 if version == 4 else 0x21, body + more), (str(plain), port)


@given(headers(), st.binary(max_size=32))
def test_a_header_tells_the_source_and_where_it_ends(
    header: tuple[bytes, tuple[str, int]], rest: bytes
) -> None:
    """Sections 2.1 and 2.2: the octets behind the header are of the connection that is forwarded."""
    octets, source = header
    assert read_header(octets + rest) == ProxyHeader(len(octets), source)


@given(headers())
def test_every_beginning_of_a_header_waits_for_more(header: tuple[bytes, object]) -> None:
    """A stream may be cut anywhere."""
    octets, _ = header
    assert all(read_header(octets[:size]) is None for size in range(1, len(octets)))


@given(headers())
def test_twisted_reads_the_same(header: tuple[bytes, tuple[str, int]]) -> None:
    octets, (host, port) = header
    parser = V2Parser() if octets.startswith(SIGNATURE) else V1Parser()
    info, rest = parser.feed(octets + b"rest")
    assert info is not None
    assert rest == b"rest"
    theirs = ipaddress.ip_address(info.source.host)  # type: ignore[union-attr]
    assert str(getattr(theirs, "ipv4_mapped", None) or theirs) == host
    assert info.source.port == port  # type: ignore[union-attr]


@given(
    st.binary(min_size=1, max_size=300),
    st.sampled_from((b"", SIGNATURE, b"PROXY ", b"PROXY TCP4 ")),
)
def test_arbitrary_octets_are_a_header_or_wait_or_are_refused(octets: bytes, before: bytes) -> None:
    try:
        found = read_header(before + octets)
    except ProxyHeaderError:
        return
    if found is None:
        assert len(before + octets) < LIMIT
    else:
        assert found.size <= len(before + octets)


@given(st.binary(min_size=2, max_size=200), st.sampled_from((0x20, 0x21)))
def test_what_twisted_refuses_is_refused(body: bytes, command: int) -> None:
    """Twisted's parser also takes octets for a header that the specification does not allow."""
    octets = SIGNATURE + bytes([command]) + body
    try:
        ours = read_header(octets)
    except ProxyHeaderError:
        return
    assume(ours is not None)
    try:
        info, _ = V2Parser().feed(octets)
    except InvalidProxyHeader:  # pragma: no cover - a difference, which the test shows
        pytest.fail("Twisted refuses what is accepted here")
    assert info is not None


@pytest.mark.parametrize(
    "line", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"]
)
def test_unknown_tells_no_source(line: bytes) -> None:
    """Section 2.1: the receiver ignores anything that follows UNKNOWN up to CR LF."""
    assert read_header(line + b"\x01") == ProxyHeader(len(line))


@pytest.mark.parametrize(
    ("command", "family", "body"),
    [
        (0, 0x00, b""),
        (0, 0x11, socket.inet_aton("192.0.2.7") * 2 + b"\0\1\0\2"),
        (0, 0xFF, b"anything"),
        (1, 0x00, b""),
        (1, 0x00, b"\x03\x00\x04abcd"),
        (1, 0x12, socket.inet_aton("192.0.2.7") * 2 + b"\0\1\0\2"),
        (1, 0x31, b"/run/proxy".ljust(108, b"\0") * 2),
    ],
)
def test_local_and_what_is_not_tcp_tell_no_source(command: int, family: int, body: bytes) -> None:
    """Section 2.2: the receiver uses the real addresses of the connection, and accepts it."""
    octets = binary(command, family, body)
    assert read_header(octets + b"\x01") == ProxyHeader(len(octets))


def test_a_mapped_address_is_the_one_of_version_4() -> None:
    """RFC 4291 2.5.5.2; a proxy that listens for both versions sends such addresses."""
    found = read_header(b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 2\r\n")
    assert found is not None
    assert found.source == ("192.0.2.7", 1)


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"\x01\x00\x00\x00\x00\xcd", "without a header"),
        (b"GET / HTTP/1.1\r\n", "without a header"),
        (b"PROXYTCP4", "without a header"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n", "malformed"),
        (b"PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 \r\n", "malformed"),
        (b"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.256 192.0.2.1 1 2\r\n", "wrong address"),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", "wrong address"),
        (b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", "wrong address"),
        (b"PROXY TCP4 192.0.2.7 \xff 1 2\r\n", "wrong address"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n", "wrong port"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 99999\r\n", "wrong port"),
        (b"PROXY UNKNOWN " + b"x" * V1_LIMIT, "without an end in 107 octets"),
        (SIGNATURE + b"\x11", "version 1 with command 1"),
        (SIGNATURE + b"\x22", "version 2 with command 2"),
        (binary(1, 0x13, bytes(12)), "family 0x13"),
        (binary(1, 0x41, bytes(12)), "family 0x41"),
        (binary(1, 0x11, bytes(11)), "11 octets of addresses"),
        (binary(1, 0x21, bytes(12)), "12 octets of addresses"),
        (binary(1, 0x11, b"", 65535), "65551 octets"),
        (binary(0, 0x00, b"", LIMIT), "4112 octets"),
    ],
)
def test_a_wrong_header_is_refused(octets: bytes, said: str) -> None:
    with pytest.raises(ProxyHeaderError, match=said):
        read_header(octets)


def test_the_largest_header_of_version_1_is_read() -> None:
    """Section 2.1: the worst case has 107 octets."""
    line = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535"
    line = line.ljust(V1_LIMIT - 2, b"x") + b"\r\n"
    assert read_header(line) == ProxyHeader(V1_LIMIT)


def test_more_behind_the_addresses_is_ignored() -> None:
    """Section 2.2.1: the receiver ignores the TLVs that it does not know."""
    octets = tcp4("192.0.2.7", 49152, b"\x05\x00\x03abc")
    assert read_header(octets) == ProxyHeader(len(octets), ("192.0.2.7", 49152))
