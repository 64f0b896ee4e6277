"""The addresses of peers."""

import pytest
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from netdicom_tx.commands.common.addresses import Address, TLSFiles, find_peer, parse_address
from netdicom_tx.commands.common.failures import CommandError, ExitCode

PEERS = {"archive": Address("ARCHIVE", "10.0.0.5", 104)}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ARCHIVE@10.0.0.5:104", Address("ARCHIVE", "10.0.0.5", 104)),
        ("pacs.example:11112", Address("ANY-SCP", "pacs.example", 11112)),
        ("A B@host:1", Address("A B", "host", 1)),
        ("A@B@host:65535", Address("A@B", "host", 65535)),
        ("[::1]:104", Address("ANY-SCP", "::1", 104)),
        ("ARCHIVE@[fe80::1%eth0]:104", Address("ARCHIVE", "fe80::1%eth0", 104)),
        ("dicom://ARCHIVE@host:104", Address("ARCHIVE", "host", 104)),
        ("dicoms://ARCHIVE@host:2763", Address("ARCHIVE", "host", 2763, tls=TLSFiles())),
        ("dicoms://ARCHIVE@host", Address("ARCHIVE", "host", 2762, tls=TLSFiles())),
        ("dicoms://[::1]/", Address("ANY-SCP", "::1", 2762, tls=TLSFiles())),
    ],
)
def test_an_address_has_many_forms(text: str, address: Address) -> None:
    """``host:port`` is called ANY-SCP, as by DCMTK; 2762 is the registered port of DICOM over TLS."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("ARCHIVE@10.0.0.5", "the port is missing"),
        ("host:", "the port is missing"),
        ("host:0", "'0' is not a port"),
        ("host:65536", "'65536' is not a port"),
        ("host:dicom", "'dicom' is not a port"),
        ("host:\u0661\u0660\u0664", "is not a port"),
        ("host:+104", "is not a port"),
        ("@host:104", "the AE title before the @ is missing"),
        (":104", "the host is missing"),
        ("ARCHIVE@:104", "the host is missing"),
        ("A@ho st:104", "the host is missing"),
        ("::1:104", "an IPv6 address stands in brackets"),
        ("[::1:104", "the bracket is not closed"),
        ("[::1]104", "the bracket is not closed"),
        ("http://host:104", "unknown scheme 'http'"),
        ("SEVENTEENLETTERSX@host:104", "1 to 16 printable ASCII characters"),
        ("ARCH\\IVE@host:104", "1 to 16 printable ASCII characters"),
        ("\u30d1@host:104", "1 to 16 printable ASCII characters"),
    ],
)
def test_what_is_no_address_is_told_with_what_is_wrong(text: str, evidence: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_address(text)
    problem = caught.value.problem
    assert problem.code == ExitCode.USAGE
    assert evidence in problem.evidence
    assert problem.hint


def test_a_name_is_looked_up() -> None:
    assert find_peer("archive", PEERS) is PEERS["archive"]
    assert find_peer("archive:104", PEERS) == Address("ANY-SCP", "archive", 104)


def test_an_unknown_name_is_told_with_the_near_ones() -> None:
    with pytest.raises(CommandError) as caught:
        find_peer("archiv", PEERS, ["netdicom.toml"])
    problem = caught.value.problem
    assert "configured peers: archive (netdicom.toml)" in problem.evidence
    assert "did you mean archive" in problem.hint


@pytest.mark.parametrize("text", ["ARCHIVE@10.0.0.5:104", "ANY-SCP@[::1]:104"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.5", False), ("h", False)],
)
def test_loopback_is_known_without_asking(host: str, expected: bool) -> None:
    assert Address("A", host, 104).is_loopback is expected


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", TCP4ClientEndpoint),
        ("::1", TCP6ClientEndpoint),
        ("localhost", HostnameEndpoint),
    ],
)
def test_a_numeric_host_is_called_without_looking_for_others(host: str, kind: type) -> None:
    """HostnameEndpoint waits 0.3 s for a second address before it tells of a refusal."""
    assert isinstance(Address("A", host, 104).endpoint(MemoryReactorClock()), kind)
