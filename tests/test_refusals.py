"""What the log says of peers that are refused: one line, with the address, what came and what to do."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.logger import capturedLogs as captured_logs

from netdicom_tx import AE, storage_scp, verification_scp
from netdicom_tx.dimsemessages import CEchoRQ, CGetRQ
from netdicom_tx.exceptions import AssociationRejectedError
from netdicom_tx.pdu import AAssociateRQ, PresentationContextRQ
from netdicom_tx.refusals import (
    INTERVAL,
    TABLE_SIZE,
    Refusal,
    Refusals,
    not_asked,
    place,
    tls_failed,
)
from netdicom_tx.sopclass import qr_get_scp
from netdicom_tx.testing import join
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS
from support.doubles import (
    ABORT,
    CT,
    IMPLICIT,
    VERIFICATION,
    Node,
    RawPeer,
    message,
    pdu,
    request,
)
from support.doubles import logged_failures as logged_failures

# A Query/Retrieve Level, STUDY, in implicit VR.
QUERY = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
WARD = IPv4Address("TCP", "192.0.2.1", 50001)


class Log:
    """The lines of the log that say that somebody is refused."""

    def __init__(self, events: list[LogEvent]) -> None:
        self._events = events

    def lines(self, level: Any = LogLevel.warn) -> list[str]:
        """The lines of a level since the last call, without those that are lower."""
        found = [
            formatEvent(event)
            for event in self._events
            if event["log_namespace"].startswith("netdicom_tx") and event["log_level"] >= level
        ]
        self._events.clear()
        return found


@pytest.fixture
def log() -> Iterator[Log]:
    with captured_logs() as events:
        yield Log(events)


class Ward(Node):
    """A node whose peers come from an address."""

    def connect(self) -> RawPeer:
        peer = RawPeer()
        protocol = self.ae.acceptor_factory().buildProtocol(WARD)
        join(peer, protocol, self.wire, client_address=(WARD.host, WARD.port))
        return peer


def of(asked: AAssociateRQ, **changes: Any) -> bytes:
    return replace(asked, **changes).encode()


ASKED = request()


@pytest.fixture
def node() -> Ward:
    return Ward(
        AE("NODE", called_ae_titles=["NODE"], calling_ae_titles=["PEER"]).add_scp(verification_scp)
    )


# -- each kind -----------------------------------------------------------------------------------------

FIRST = {
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", ["an HTTP request came", "check the address"]),
    "HTTP, cut": (b"OPTION", ["an HTTP request came"]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n", ["an HTTP request came"]),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", ["a TLS ClientHello came", "turn TLS off"]),
    "SSH": (b"SSH-2.0-OpenSSH_9.0\r\n", ["not DICOM (53 53 48 2d", "A-ASSOCIATE-RQ"]),
    "HL7": (b"\x0bMSH|^~\\&|A|B\r", ["not DICOM (0b 4d 53 48"]),
    "zeros": (bytes(64), ["not DICOM (00 00"]),
    "too long": (
        struct.pack(">BxI", 1, 1 << 30),
        ["PDU type 01H of 1073741824 octets; expected 68 to"],
    ),
    "too long data": (
        struct.pack(">BxI", 4, 1 << 30),
        ["P-DATA-TF of 1073741824 octets; expected at most"],
    ),
    "a release": (pdu(5), ["AReleaseRQ came first; expected an association request"]),
    "data": (
        message(CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=1)),
        ["P-DATA-TF came first"],
    ),
    "version": (of(ASKED, protocol_version=2), ["another protocol version"]),
    "blank called title": (
        of(ASKED, called_ae_title=""),
        ["a blank called AE title; expected NODE", "correct"],
    ),
    "called title": (
        of(ASKED, called_ae_title="OTHER"),
        ["PEER at 192.0.2.1:50001: called AE title 'OTHER'; expected NODE"],
    ),
    "blank calling title": (
        of(ASKED, calling_ae_title=""),
        ["a blank calling AE title; expected 1 to 16"],
    ),
    "calling title": (
        of(ASKED, calling_ae_title="WHO"),
        ["calling AE title 'WHO'", "or add it to the peers"],
    ),
    "context name": (
        of(ASKED, application_context="1.2.3"),
        ["application context name 1.2.3; expected 1.2.840"],
    ),
    "no context": (
        of(ASKED, presentation_contexts=(PresentationContextRQ(1, CT, (IMPLICIT,)),)),
        [
            "no presentation context is accepted: CT Image Storage (abstract syntax not supported)",
            "and with what this AE title may do",
        ],
    ),
    "no transfer syntax": (
        of(ASKED, presentation_contexts=(PresentationContextRQ(1, VERIFICATION, ("1.2.3",)),)),
        ["Verification SOP Class (transfer syntax not supported)"],
    ),
    "nothing proposed": (
        of(ASKED, presentation_contexts=()),
        ["0 presentation contexts; expected 1 to 128"],
    ),
}


@pytest.mark.parametrize(("octets", "words"), FIRST.values(), ids=FIRST.keys())
def test_a_refusal_is_one_warning_that_says_what_to_do(
    node: Ward, log: Log, octets: bytes, words: list[str]
) -> None:
    """The address as host:port, what came, what was expected, and the advice."""
    peer = node.connect()
    peer.send(octets)
    peer.transport.loseConnection()
    (line,) = log.lines()
    assert "192.0.2.1:50001: " in line
    for each in words:
        assert each in line


@pytest.mark.parametrize("size", [1, 5, 50])
def test_a_request_that_is_cut_off_is_one_warning(node: Ward, log: Log, size: int) -> None:
    peer = node.connect()
    peer.send(ASKED.encode()[:size])
    peer.transport.loseConnection()
    (line,) = log.lines()
    assert f"192.0.2.1:50001: {size} octets came before the connection was closed" in line


def test_a_request_that_does_not_go_on_is_one_warning(node: Ward, log: Log) -> None:
    """ARTIM ends it (PS3.8 9.1.5)."""
    peer = node.connect()
    peer.send(ASKED.encode()[:50])
    node.advance(node.ae.timeouts.artim)
    (line,) = log.lines()
    assert "50 octets came within 30 s" in line


def test_a_port_scanner_is_no_warning(node: Ward, log: Log) -> None:
    """It connects and closes, or says nothing; one debug line a minute is enough for those, too."""
    for _ in range(3):
        node.connect().transport.loseConnection()
    node.connect()
    node.advance(node.ae.timeouts.artim)
    lines = log.lines(LogLevel.debug)
    assert len([line for line in lines if "nothing came" in line]) == 1
    assert not [line for line in lines if "refused" in line and "nothing came" not in line]


def test_a_full_node_and_one_that_stops_say_so(log: Log) -> None:
    node = Ward(AE("NODE", max_associations=1).add_scp(verification_scp))
    node.associate()
    node.connect().send(request())
    (line,) = log.lines()
    assert "all places for associations are taken; expected at most 1" in line
    node.ae.drain(5)
    node.connect().send(request())
    (line,) = log.lines()
    assert "this side is starting or stopping; let the peer try again later" in line


def test_a_hook_that_rejects_is_one_warning(log: Log) -> None:
    class Strict(AE):
        def on_association_request(self, asce: Any, assoc: AAssociateRQ) -> None:
            raise AssociationRejectedError(1, 1, 3)

    node = Ward(Strict("NODE").add_scp(verification_scp))
    node.connect().send(request())
    (line,) = log.lines()
    assert "PEER at 192.0.2.1:50001: on_association_request rejects it" in line


def test_an_association_that_is_aborted_is_one_warning(log: Log) -> None:
    node = Ward()
    peer = node.associate()
    peer.send(struct.pack(">BxI", 4, 1 << 30))
    assert peer.kinds() == [ABORT]
    (line,) = log.lines()
    assert line.startswith(
        "aborted the association with PEER at 192.0.2.1:50001: P-DATA-TF of 1073741824 octets; expected at most"
    )


def test_a_command_of_another_sop_class_is_one_warning(log: Log) -> None:
    """PS3.7 9.1; the Error Comment has the same words."""
    node = Ward()
    peer = node.associate()
    for number in (1, 2):
        peer.send(message(CEchoRQ(affected_sop_class_uid=CT, message_id=number)))
    answers = peer.messages()
    assert [answer.status for answer in answers] == [0x0122, 0x0122]
    (line,) = log.lines()
    assert "C-ECHO: " + answers[0].error_comment in line
    assert "but CT Image Storage; expected Verification SOP Class" in line


def test_a_c_get_without_the_scp_role_says_what_is_missing(log: Log) -> None:
    """PS3.7 D.3.3.4, PS3.4 C.4.3: one warning for all instances of the class, and the same in the Error Comment."""
    data_set = dcmread(get_testdata_file("CT_small.dcm"))

    class Archive(AE):
        def on_receive_get(self, context: Any, ds: Any) -> Any:
            return 3, [data_set, data_set, data_set]

    node = Ward(Archive("NODE").add_scp(qr_get_scp).add_scp(storage_scp))
    peer = node.associate({STUDY_ROOT_GET_SOP_CLASS: [IMPLICIT], CT: [IMPLICIT]})
    asked = CGetRQ(affected_sop_class_uid=STUDY_ROOT_GET_SOP_CLASS, message_id=1, data_set=QUERY)
    peer.send(message(asked))
    for _ in range(20):
        node.advance(0)
    final = [each for each in peer.messages() if each.status != 0xFF00][-1]
    assert (final.status, final.number_of_failed_suboperations) == (0xA702, 3)
    assert final.error_comment == "CT Image Storage was proposed without the SCP role"
    (line,) = log.lines()
    assert line == (
        f"refused PEER at 192.0.2.1:50001: C-GET: no usable presentation context for {CT}: it was negotiated "
        "without the SCP role of its requestor, PEER (PS3.7 D.3.3.4) (C-GET needs it: let the peer propose role "
        "selection)"
    )


# -- TLS -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "wrong version number",
            "something else than TLS came; expected a TLS ClientHello; turn TLS on",
        ),
        ("packet length too long", "something else than TLS came"),
        ("http request", "an HTTP request without TLS came; expected DICOM over TLS"),
        ("tlsv1 alert unknown ca", "the peer ended the TLS handshake: tlsv1 alert unknown ca"),
        ("unsupported protocol", "expected TLS 1.2 or newer; turn TLS 1.2 or 1.3 on at the peer"),
        ("no shared cipher", "expected one of the TLS profile of this side; compare the TLS"),
        ("peer did not return a certificate", "the peer has no certificate; expected a client"),
        ("length mismatch", "the TLS handshake failed: length mismatch; check the TLS version"),
        ("unexpected eof while reading", None),
    ],
)
def test_the_words_of_openssl_become_those_of_an_operator(reason: str, words: str | None) -> None:
    ssl = pytest.importorskip("OpenSSL.SSL")
    refusal = tls_failed(ssl.Error([("SSL routines", "", reason)]))
    assert refusal is None if words is None else words in str(refusal)


def test_a_client_is_told_that_the_port_has_no_tls() -> None:
    ssl = pytest.importorskip("OpenSSL.SSL")
    refusal = tls_failed(ssl.Error([("SSL routines", "", "wrong version number")]), is_client=True)
    assert str(refusal) == (
        "the peer does not speak TLS at this port; call this port without TLS, or another one"
    )


def test_other_errors_are_not_those_of_tls() -> None:
    ssl = pytest.importorskip("OpenSSL.SSL")
    assert tls_failed(ssl.Error()) is None
    assert tls_failed(OSError("no")) is None
    assert tls_failed(None) is None


# -- how often -----------------------------------------------------------------------------------------


class Told:
    """Refusals on a clock, with what the log says."""

    def __init__(self, log: Log) -> None:
        self.clock = Clock()
        self.lines: Callable[[], list[str]] = log.lines
        self.refusals = Refusals(lambda: self.clock)

    def tell(self, kind: str = "kind", address: Any = WARD) -> None:
        self.refusals.tell(address, Refusal(kind, f"{kind} came"))


@pytest.fixture
def told(log: Log) -> Told:
    return Told(log)


def test_a_host_has_one_line_a_minute_for_each_kind(told: Told) -> None:
    for port in range(100):
        told.tell(address=IPv4Address("TCP", "192.0.2.1", port))
        told.tell("other")
        told.clock.advance(0.5)
    assert told.lines() == ["refused 192.0.2.1:0: kind came", "refused 192.0.2.1:50001: other came"]
    told.tell(address=IPv4Address("TCP", "192.0.2.2", 1))
    assert told.lines() == ["refused 192.0.2.2:1: kind came"], "another host"


def test_what_had_no_line_is_told_later(told: Told) -> None:
    """At the next occasion; that line counts as one, too."""
    for _ in range(4):
        told.tell()
    told.lines()
    told.clock.advance(INTERVAL)
    told.refusals.catch_up()
    assert told.lines() == ["refused 192.0.2.1 3 times more within 60 s: kind came"]
    told.tell()
    told.clock.advance(INTERVAL - 1)
    told.tell()
    assert told.lines() == []
    told.clock.advance(1)
    told.tell()
    assert told.lines() == ["refused 192.0.2.1 2 times more within 60 s: kind came"]
    told.clock.advance(INTERVAL)
    told.refusals.catch_up()
    told.lines()
    told.clock.advance(INTERVAL)
    told.tell()
    assert told.lines() == ["refused 192.0.2.1:50001: kind came"], "it was quiet for a minute"


def test_what_had_no_line_is_told_at_the_end(told: Told) -> None:
    for _ in range(3):
        told.tell()
    told.lines()
    told.clock.advance(5)
    told.refusals.catch_up(at_end=True)
    told.refusals.catch_up(at_end=True)
    assert told.lines() == ["refused 192.0.2.1 2 times more within 5 s: kind came"]


def test_the_table_is_bounded(told: Told) -> None:
    for number in range(TABLE_SIZE + 5):
        told.tell(address=IPv4Address("TCP", f"10.0.{number // 256}.{number % 256}", 1))
    assert len(told.lines()) == TABLE_SIZE
    told.clock.advance(INTERVAL)
    told.refusals.catch_up()
    assert told.lines() == ["refused others 5 times, without a line for each"]


def test_a_stop_tells_what_had_no_line(log: Log) -> None:
    node = Ward()
    for _ in range(3):
        peer = node.connect()
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        peer.transport.loseConnection()
    log.lines()
    node.ae.drain(5)
    assert log.lines() == ["refused 192.0.2.1 2 times more within 0 s: an HTTP request came"]


# -- words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (WARD, "192.0.2.1:50001"),
        (IPv6Address("TCP", "2001:db8::1", 104), "[2001:db8::1]:104"),
        (UNIXAddress(b"/run/dicom"), "b'/run/dicom'"),
        (None, "an unknown address"),
    ],
)
def test_an_address_is_host_and_port(address: Any, text: str) -> None:
    assert place(address) == text


def test_what_a_peer_sends_cannot_forge_a_line() -> None:
    assert "\n" not in str(not_asked(b"\nDICOM\n\n", "PDU type 0AH; expected 01H to 07H"))
