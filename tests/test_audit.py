"""Audit messages conform to the schema, and trails lose none without saying so."""

import base64
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree.ElementTree import Element

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import support.strategies  # noqa: F401 - its Hypothesis profile
from netdicom_tx import TLSOptions, audit, audit_trails
from netdicom_tx.audit import Action, AuditSource, Outcome, Participant, Patient, Study
from netdicom_tx.audit_trails import FileTrail, SyslogTrail, frame, syslog_trail
from netdicom_tx.endpoints import server_endpoint
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.tls import ServerContext
from support.audit_schema import checked
from support.doubles import logged_lines as logged_lines
from support.processes import eventually

SOURCE = AuditSource("NODE", "pacs", 7)
NODE, SCU, DEST = (
    Participant("NODE", "pacs"),
    Participant("SCU", "192.0.2.1", "ann"),
    Participant("DEST", "2001:db8::1"),
)
STUDY = Study("1.2.3", Patient("P1", "Doe^John"), "A1", {"1.2.840.10008.5.1.4.1.1.2": 12})

PERSON = Participant("ann", is_person=True)
MESSAGES: dict[str, Callable[[], bytes]] = {
    "start": lambda: audit.application_activity(SOURCE, is_start=True),
    "stop": lambda: audit.application_activity(SOURCE, is_start=False),
    "stored": lambda: audit.instances_transferred(
        SOURCE, SCU, NODE, STUDY, requestor=SCU, action=Action.CREATE
    ),
    "moved": lambda: audit.instances_transferred(
        *(SOURCE, NODE, DEST, STUDY),
        requestor=SCU,
        outcome=Outcome.MINOR_FAILURE,
        reason="2 of 12 instances have failed",
    ),
    "begun": lambda: audit.begin_transferring(SOURCE, NODE, DEST, STUDY, requestor=SCU),
    "accessed": lambda: audit.instances_accessed(SOURCE, SCU, STUDY, Action.UPDATE),
    "deleted": lambda: audit.study_deleted(SOURCE, SCU, STUDY),
    "exported": lambda: audit.data_exported(SOURCE, PERSON, "file:///mnt/out", STUDY),
    "imported": lambda: audit.data_imported(SOURCE, PERSON, "file:///mnt/in", STUDY),
    "queried": lambda: audit.query(
        SOURCE, SCU, NODE, "1.2.4", b"\x08\0\x52\0", "1.2.840.10008.1.2"
    ),
    "alert": lambda: audit.security_alert(SOURCE, SCU, "an unknown calling AE title"),
    "login": lambda: audit.user_authentication(SOURCE, SCU, is_accepted=True),
    "logout": lambda: audit.user_authentication(
        SOURCE, Participant("", "192.0.2.7", "anna"), is_accepted=True, is_logout=True
    ),
    "button": lambda: audit.restricted_function(SOURCE, PERSON, "task 5 is dropped"),
    "no login": lambda: audit.user_authentication(SOURCE, Participant("SCU"), is_accepted=False),
}


def event(message: Element) -> tuple[str, str]:
    """The code of the event, and its outcome."""
    found = message.find("EventIdentification")
    assert found is not None
    code = found.find("EventID")
    assert code is not None
    return code.attrib["csd-code"], found.attrib["EventOutcomeIndicator"]


def participants(message: Element) -> list[tuple[str, str, bool]]:
    """User ID, role, and whether it is the requestor."""
    return [
        (
            each.attrib["UserID"],
            "".join(role.attrib["csd-code"] for role in each.findall("RoleIDCode")),
            each.attrib["UserIsRequestor"] == "true",
        )
        for each in message.findall("ActiveParticipant")
    ]


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_conform_to_the_schema(name: str) -> None:
    """PS3.15 A.5.1."""
    octets = MESSAGES[name]()
    checked(octets)
    assert b"\n" not in octets


@pytest.mark.parametrize("name", MESSAGES)
def test_codes_are_those_of_the_dictionary(name: str) -> None:
    """PS3.16 Annex D, as pydicom has it."""
    known = {
        (code.value, code.meaning)
        for code in (getattr(codes.DCM, each) for each in dir(codes.DCM))
        if isinstance(code, Code)
    }
    found = [
        (each.attrib["csd-code"], each.attrib["originalText"])
        for each in checked(MESSAGES[name]()).iter()
        if each.attrib.get("codeSystemName") == "DCM"
    ]
    assert found
    assert set(found) <= known


@pytest.mark.parametrize(
    ("name", "code", "outcome"),
    [
        ("start", "110100", "0"),
        ("stored", "110104", "0"),
        ("moved", "110104", "4"),
        ("begun", "110102", "0"),
        ("accessed", "110103", "0"),
        ("deleted", "110105", "0"),
        ("exported", "110106", "0"),
        ("imported", "110107", "0"),
        ("queried", "110112", "0"),
        ("alert", "110113", "4"),
        ("login", "110114", "0"),
        ("no login", "110114", "4"),
        ("logout", "110114", "0"),
        ("button", "110113", "0"),
    ],
)
def test_events(name: str, code: str, outcome: str) -> None:
    """The codes of PS3.15 A.5.3."""
    assert event(checked(MESSAGES[name]())) == (code, outcome)


def test_the_participants_of_a_transfer() -> None:
    """Source, destination, and a third one that has asked for it (Table A.5.3.7-1)."""
    assert participants(checked(MESSAGES["stored"]())) == [
        ("SCU", "110153", True),
        ("NODE", "110152", False),
    ]
    assert participants(checked(MESSAGES["moved"]())) == [
        ("NODE", "110153", False),
        ("DEST", "110152", False),
        ("SCU", "", True),
    ]


def test_the_participants_of_an_export_and_an_import() -> None:
    """The person, the process and the medium (PS3.15 A.5.3.4 and A.5.3.5)."""
    exported = checked(MESSAGES["exported"]())
    assert participants(exported) == [
        ("ann", "110153", True),
        ("NODE", "110153", False),
        ("file:///mnt/out", "110154", False),
    ]
    assert [each.attrib["csd-code"] for each in exported.iter("MediaType")] == ["110037"]
    assert participants(checked(MESSAGES["imported"]())) == [
        ("ann", "110152", True),
        ("NODE", "110152", False),
        ("file:///mnt/in", "110155", False),
    ]


def test_applications_are_known_by_their_titles() -> None:
    """A.5.2.2, which A.5.3.1 demands of an application that starts; a person has a user name."""
    (started,) = checked(MESSAGES["start"]()).findall("ActiveParticipant")
    assert started.attrib["AlternativeUserID"] == "AETITLES=NODE"
    assert started.attrib["UserName"] == "netdicom_tx[7]"
    for each in checked(MESSAGES["moved"]()).findall("ActiveParticipant"):
        assert each.attrib["AlternativeUserID"] == f"AETITLES={each.attrib['UserID']}"
    person, _ = checked(MESSAGES["login"]()).findall("ActiveParticipant")
    assert person.attrib["UserID"] == "ann"
    assert "AlternativeUserID" not in person.attrib


def test_a_study_is_described_where_the_schema_has_it() -> None:
    """A.5.1.1: SOP classes and accession numbers are inside of ParticipantObjectDescription."""
    description = checked(MESSAGES["stored"]()).find(
        "ParticipantObjectIdentification/ParticipantObjectDescription"
    )
    assert description is not None
    assert [each.tag for each in description] == ["Accession", "SOPClass"]


def test_a_query_has_its_identifier() -> None:
    """Octet for octet, with the transfer syntax that it is in."""
    message = checked(MESSAGES["queried"]())
    asked = message.findtext(".//ParticipantObjectQuery")
    assert asked is not None
    assert base64.b64decode(asked) == b"\x08\0\x52\0"
    detail = message.find(".//ParticipantObjectDetail")
    assert detail is not None
    assert base64.b64decode(detail.attrib["value"]) == b"1.2.840.10008.1.2"


@given(st.text(), st.text(), st.text())
def test_any_text_makes_a_document(title: str, name: str, reason: str) -> None:
    """What XML cannot have is left out, and markup is text."""
    peer = Participant(title, title, name)
    study = Study(title, Patient(title, name), title)
    checked(audit.security_alert(SOURCE, peer, reason))
    message = checked(audit.instances_transferred(SOURCE, peer, NODE, study, requestor=NODE))
    assert message.find("script") is None


# -- files -------------------------------------------------------------------------------------------


def test_a_file_has_a_line_for_each_message(tmp_path: Path) -> None:
    """Also those that wait when it is closed; others cannot read it, and it can be renamed."""
    path = tmp_path / "audit.log"
    trail = FileTrail(str(path))
    trail.start()
    sent = [b"<%d/>" % n for n in range(1000)]
    for each in sent[:500]:
        trail.write(each)
    eventually(lambda: path.stat().st_size > 0, "message")
    path.rename(tmp_path / "audit.log.1")
    for each in sent[500:]:
        trail.write(each)
    trail.stop()
    found = (tmp_path / "audit.log.1").read_bytes() + path.read_bytes()
    assert found.splitlines() == sent
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        FileTrail(str(tmp_path / "nowhere" / "audit.log")).start()


def test_lost_messages_are_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """When it begins, and when it ends; nobody waits meanwhile."""
    trail = FileTrail(str(tmp_path / "audit.log"))
    trail.start()
    real = trail._open

    def fail() -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trail, "_open", fail)
    for _ in range(10):
        trail.write(b"<lost/>")
    eventually(lambda: trail._lost == 10, "lost messages")
    monkeypatch.setattr(trail, "_open", real)
    trail.write(b"<kept/>")
    trail.stop()
    assert (tmp_path / "audit.log").read_bytes() == b"<kept/>\n"
    assert sum("cannot be written" in each for each in lines) == 1
    assert sum("10 messages were lost" in each for each in lines) == 1


def test_a_line_that_a_full_disk_has_cut_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """The next message is on a line of its own, and only those that are not whole count as lost."""
    path = tmp_path / "audit.log"
    trail = FileTrail(str(path))
    real, places = os.write, [8, 0]

    def write(descriptor: int, octets: Any) -> int:
        if not places:
            return real(descriptor, octets)
        place = places.pop(0)
        if not place:
            raise OSError(28, "No space left on device")
        return real(descriptor, octets[:place])

    monkeypatch.setattr(os, "write", write)
    trail.append([b"<one/>", b"<two/>", b"<three/>"])
    trail.append([b"<four/>"])
    assert path.read_bytes() == b"<one/>\n<\n<four/>\n"
    assert any("2 messages were lost" in each for each in lines)


def test_a_stop_does_not_wait_for_a_disk_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """The log says what is lost."""
    monkeypatch.setattr(audit_trails, "_LAST", 0.01)
    trail = FileTrail(str(tmp_path / "audit.log"))
    answers = threading.Event()
    monkeypatch.setattr(trail, "append", lambda _: answers.wait(60))
    trail.start()
    trail.write(b"<lost/>")
    trail.stop()
    answers.set()
    assert any("what waits is lost" in each for each in lines)


def test_a_pipe_that_nobody_reads_stops_the_start(tmp_path: Path) -> None:
    """The node must not wait for a reader."""
    path = tmp_path / "audit.pipe"
    os.mkfifo(path)
    trail = FileTrail(str(path))
    opening = threading.Thread(target=lambda: refused.append(trail_error(trail)), daemon=True)
    refused: list[str] = []
    opening.start()
    eventually(lambda: bool(refused), "the start has ended")
    assert "No such device or address" in refused[0]


def trail_error(trail: FileTrail) -> str:
    """Why a trail does not start."""
    try:
        trail.start()
    except OSError as error:
        return str(error)
    return ""


# -- syslog --------------------------------------------------------------------------------------------


def test_a_file_on_a_disk_that_hangs_fills_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """What does not fit into the queue is lost, and the log says how much."""
    monkeypatch.setattr(audit_trails, "QUEUE_LIMIT", 3)
    trail = FileTrail(str(tmp_path / "audit"))
    for n in range(10):
        trail.write(b"<%d/>" % n)
    assert sum("further ones are lost" in each for each in lines) == 1
    trail.start()
    trail.stop()
    assert (tmp_path / "audit").read_bytes() == b"<0/>\n<1/>\n<2/>\n"
    assert sum("7 messages were lost" in each for each in lines) == 1


def test_a_frame() -> None:
    """RFC 5424: priority, version, time, host, application, process, message ID, no structured data, a BOM."""
    header, _, text = frame(SOURCE, "<x>ä</x>".encode()).partition(b"\xef\xbb\xbf")
    fields = header.decode().split(" ")
    assert fields[0] == "<85>1"
    assert fields[2:] == ["pacs", "netdicom_tx", "7", "DICOM+RFC3881", "-", ""]
    assert text == "<x>ä</x>".encode()


class Server(Protocol):
    """A syslog server that counts octets."""

    def __init__(self, messages: list[bytes]) -> None:
        self._buffer = b""
        self._messages = messages

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while b" " in self._buffer:
            length, _, rest = self._buffer.partition(b" ")
            if len(rest) < int(length):
                return
            self._messages.append(rest[: int(length)])
            self._buffer = rest[int(length) :]


class SyslogTests(TestCase):
    """Against servers on sockets."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = tmp_path
        self.monkeypatch = monkeypatch

    def setUp(self) -> None:
        self.messages: list[bytes] = []

    def serve(self, port: int = 0) -> Any:
        factory = Factory.forProtocol(lambda: Server(self.messages))
        tcp: Any = reactor
        listening = tcp.listenTCP(port, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        return listening

    async def came(self, count: int) -> None:
        await deferToThread(eventually, lambda: len(self.messages) >= count, "messages")

    async def test_messages_come_over_tcp(self) -> None:
        """In their order; those written before the connection too, and those written before the stop."""
        port = self.serve().getHost().port
        trail = syslog_trail(f"tcp://127.0.0.1:{port}", SOURCE, None, reactor)
        trail.start()
        for n in range(100):
            trail.write(b"<%d/>" % n)
        await trail.stop()
        await self.came(100)
        assert [each.rpartition(b"\xbf")[2] for each in self.messages] == [
            b"<%d/>" % n for n in range(100)
        ]

    async def test_a_server_that_does_not_read_fills_no_memory(self) -> None:
        """What it does not take waits in the queue, which is bounded; a stop does not wait for it for ever."""
        self.monkeypatch.setattr(audit_trails, "QUEUE_LIMIT", 3)
        self.monkeypatch.setattr(audit_trails, "_LAST", 0.1)
        connected: Deferred[Any] = Deferred()

        class Deaf(Protocol):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()  # type: ignore[union-attr]  # there is one
                connected.callback(self)

        tcp: Any = reactor
        port = tcp.listenTCP(0, Factory.forProtocol(Deaf), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        address = f"tcp://127.0.0.1:{port.getHost().port}"
        trail = syslog_trail(address, SOURCE, None, reactor)
        assert isinstance(trail, SyslogTrail)
        trail.start()
        deaf = await connected
        while trail._connection is None:
            await deferLater(tcp, 0)
        for _ in range(50):
            trail.write(b"x" * (1 << 20))
        assert len(trail._waiting) == 3
        assert trail._lost > 0
        await trail.stop()
        deaf.transport.abortConnection()

    async def test_messages_come_over_tls(self) -> None:
        """RFC 5425; the server is known by its certificate."""
        pytest.importorskip("OpenSSL")
        authority = pytest.importorskip("trustme").CA()
        trusted, own = str(self.directory / "ca.pem"), str(self.directory / "server.pem")
        authority.cert_pem.write_to_path(trusted)
        issued = authority.issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(own)
        context = ServerContext(TLSOptions(certificate=own))
        factory = Factory.forProtocol(lambda: Server(self.messages))
        endpoint = server_endpoint(reactor, "tcp:0:interface=127.0.0.1")
        port = await context.wrap(endpoint).listen(factory)
        self.addCleanup(port.stopListening)
        trusting = TLSOptions(trust=trusted)
        address: Any = port.getHost()
        trail = syslog_trail(f"tls://localhost:{address.port}", SOURCE, trusting, reactor)
        trail.start()
        for n in range(10):
            trail.write(b"<%d/>" % n)
        await self.came(10)
        await trail.stop()
        assert self.messages[9].endswith(b"<9/>")

    async def test_a_server_with_a_wrong_certificate_gets_nothing(self) -> None:
        """No message is lost to it, either."""
        authority = trustme.CA()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "server.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
        trusted = path.with_suffix(".ca")
        authority.cert_pem.write_to_path(str(trusted))
        tcp: Any = reactor
        served: set[Protocol] = set()

        class Counted(Server):
            def connectionMade(self) -> None:
                served.add(self)

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                served.discard(self)

        factory = Factory.forProtocol(lambda: Counted(self.messages))
        tls = TLSOptions(certificate=str(path))
        listening: Any = await tls.wrap_server(
            TCP4ServerEndpoint(tcp, 0, interface="127.0.0.1")
        ).listen(factory)
        self.addCleanup(listening.stopListening)
        address = f"tls://127.0.0.1:{listening.getHost().port}"
        wrong: Any = syslog_trail(address, SOURCE, TLSOptions(fingerprint="00" * 32), reactor)
        wrong.start()
        for _ in range(5):
            wrong.write(b"<kept/>")
        await deferToThread(eventually, lambda: wrong._is_away, "refusal")
        assert len(wrong._waiting) == 5
        own = TLSOptions(trust=str(trusted))
        right = syslog_trail(address, SOURCE, own, reactor)
        right.start()
        right.write(b"<come/>")
        await self.came(1)
        await right.stop()
        assert [each.rpartition(b"\xbf")[2] for each in self.messages] == [b"<come/>"]
        wrong._waiting.clear()
        await wrong.stop()
        await deferToThread(eventually, lambda: not served, "end of the connections")

    async def test_a_message_that_udp_cannot_send_is_told(self) -> None:
        """It must not end the operation that it is about."""
        trail: Any = syslog_trail("udp://127.0.0.1:9", SOURCE, None, reactor)
        trail.start()
        for _ in range(3):
            trail.write(b"x" * 100_000)
        assert trail._lost == 3
        await trail.stop()

    async def test_messages_come_over_udp(self) -> None:
        """One in a datagram."""
        messages = self.messages

        class Receiver(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                messages.append(datagram)

        udp: Any = reactor
        port = udp.listenUDP(0, Receiver(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        trail = syslog_trail(f"udp://127.0.0.1:{port.getHost().port}", SOURCE, None, reactor)
        trail.start()
        trail.write(b"<x/>")
        await self.came(1)
        await trail.stop()
        assert self.messages[0].endswith(b"<x/>")

    async def test_a_server_that_comes_later_gets_what_waits(self) -> None:
        """The trail calls it again."""
        listening = self.serve()
        port = listening.getHost().port
        await listening.stopListening()
        trail = syslog_trail(f"tcp://127.0.0.1:{port}", SOURCE, None, reactor)
        trail.start()
        trail.write(b"<early/>")
        self.serve(port)
        await self.came(1)
        await trail.stop()
        assert self.messages[0].endswith(b"<early/>")


def test_a_full_queue_loses_the_oldest_and_says_so(
    monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """Memory is bounded, and the service goes on."""

    class Nowhere:
        def connect(self, _: object) -> Deferred[Any]:
            return Deferred()

    monkeypatch.setattr(audit_trails, "QUEUE_LIMIT", 3)
    trail = SyslogTrail(SOURCE, Nowhere(), "tls://logs", Clock())
    trail.start()
    for n in range(10):
        trail.write(b"<%d/>" % n)
    assert sum("the oldest are lost" in each for each in lines) == 1
    assert [each[-4:] for each in trail._waiting] == [b"<7/>", b"<8/>", b"<9/>"]


def test_a_server_that_closes_each_connection_does_not_fill_the_log(lines: list[str]) -> None:
    """One line a minute when it is lost, and one when it is back."""
    clock = Clock()
    made: list[Any] = []

    class Closing:
        def connect(self, factory: Any) -> Deferred[Any]:
            made.append(factory.buildProtocol(None))
            made[-1].makeConnection(StringTransport())
            return succeed(made[-1])

    trail = SyslogTrail(SOURCE, Closing(), "tcp://logs", clock)
    trail.start()
    for _ in range(20):
        made[-1].connectionLost(Failure(ConnectionDone()))
        clock.pump([0.1] * 29)
    assert len(made) > 10
    assert sum("cannot be reached" in each for each in lines) == 1
    assert sum("reached again" in each for each in lines) == 1


def test_a_host_for_udp_is_a_number() -> None:
    """Nothing looks a name up before a datagram is sent."""
    with pytest.raises(LocalProtocolError, match="names a host"):
        syslog_trail("udp://logs.example.org:514", SOURCE, None, reactor)
    syslog_trail("udp://[::1]:514", SOURCE, None, reactor)


@pytest.mark.parametrize(
    "address",
    ["", "logs", "http://logs", "tls://", "tls://logs:0", "tls://logs:65536", "tcp://a:b"],
)
def test_a_wrong_address_is_explained(address: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"tls://logs\.example\.org:6514"):
        syslog_trail(address, SOURCE, TLSOptions(), reactor)
