"""What is fuzzed: for each parser a function of octets, the errors that it documents, and seeds.

The first octets of an input choose the transfer syntax, the information model and the options, so that one
corpus covers them all. Seeds are built by code.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import struct
import tempfile
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import jwt
from OpenSSL import crypto
from pydicom.dataset import Dataset
from twisted.cred.error import UnauthorizedLogin

from netdicom_tx import dimsemessages as dimse
from netdicom_tx import dsutils, pdu, refusals, tls, userdataitems
from netdicom_tx.archive.encoded.content import same_content
from netdicom_tx.archive.encoded.files import walk_file
from netdicom_tx.archive.encoded.walk import InvalidDataSetError, walk
from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.index.record import WANTED, InstanceRecord, record_of
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.query.identifiers import InformationModel
from netdicom_tx.archive.query.search import Search
from netdicom_tx.archive.workflow.worklist import WorklistItem, WorklistQuery
from netdicom_tx.archive.workflow.worklist_sources import (
    WorklistImportError,
    read_csv,
    read_item,
    read_json,
)
from netdicom_tx.encoding import DataSetError, inflate_part
from netdicom_tx.exceptions import DIMSEProcessingError, PDUProcessingError, StatusError
from netdicom_tx.fragments import MessageReader, fragment
from netdicom_tx.identity import JSONWebTokens, peer_certificate
from netdicom_tx.reencoding import reencode
from netdicom_tx.sopclass.normalized import data_set_of
from netdicom_tx.sopclass.query_retrieve import PARTS_LIMIT
from netdicom_tx.sopclass.step_rules import check_create, updated
from netdicom_tx.sopclass.storage_commitment import _asked
from netdicom_tx.testing import success_of
from netdicom_tx.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from netdicom_tx.upperlayer import UpperLayer
from support.archive import patients, worklists
from support.archive.data_sets import ENCODINGS, ct, deflated

#: Transfer syntaxes by the first octet of an input.
SYNTAXES: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)
MODELS: Final = tuple(InformationModel)
FLAGS: Final = "rcftem"
#: The largest input: as much as a peer sends in one association request, or in a long query.
LARGEST: Final = 1 << 16


@dataclass(frozen=True)
class Target:
    """A parser that a peer reaches.

    Attributes:
        parse: Takes an input; whatever it raises beside ``errors`` is a finding.
        errors: The errors that the parser documents.
        seeds: Makes the inputs that the others are made from.
    """

    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]


TARGETS: dict[str, Target] = {}


def target(
    name: str, *errors: type[Exception], seeds: Callable[[], Iterable[bytes]]
) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
    """Make a function a target."""

    def add(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
        TARGETS[name] = Target(parse, errors, seeds)
        return parse

    return add


# -- the upper layer ---------------------------------------------------------------------------------


def _request() -> pdu.AAssociateRQ:
    uid = "1.2.840.10008.1.1"
    return pdu.AAssociateRQ(
        called_ae_title="NETDICOM",
        calling_ae_title="FUZZ",
        presentation_contexts=(
            pdu.PresentationContextRQ(1, uid, SYNTAXES[:3]),
            pdu.PresentationContextRQ(3, "1.2.840.10008.5.1.4.1.1.2", SYNTAXES),
        ),
        user_information=_user_items(),
    )


def _user_items() -> tuple[Any, ...]:
    uid = "1.2.840.10008.5.1.4.1.2.2.1"
    return (
        userdataitems.MaximumLength(16384),
        userdataitems.ImplementationClassUID("1.2.3"),
        userdataitems.ImplementationVersionName("FUZZ"),
        userdataitems.AsynchronousOperationsWindow(4, 4),
        userdataitems.RoleSelection(uid, True, True),
        userdataitems.SOPClassExtendedNegotiation(uid, b"\1\1\1\1"),
        userdataitems.SOPClassCommonExtendedNegotiation(uid, "1.2.840.10008.4.2", (uid,), 0, b""),
        userdataitems.UserIdentity(2, b"user", b"password", True),
        userdataitems.UserIdentityResponse(b"ticket"),
    )


def _pdu_seeds() -> Iterator[bytes]:
    echo = b"".join(bytes(each) for each in fragment(_messages()[0], context_id=1, limit=64))
    answer = pdu.AAssociateAC(
        presentation_contexts=(pdu.PresentationContextAC(1, 0, SYNTAXES[0]),),
        user_information=_user_items()[:3],
    )
    request = _request().encode()
    for mode in b"\0\1":
        first = bytes([mode])
        yield first + request
        yield first + request + echo + pdu.AReleaseRQ().encode()
        yield first + answer.encode() + echo
        yield first + pdu.AAssociateRJ(1, 1, 7).encode()
        yield first + pdu.AReleaseRP().encode() + pdu.AAbort(2, 1).encode()


@target("pdus", PDUProcessingError, seeds=_pdu_seeds)
def parse_pdus(data: bytes) -> None:
    """The reader on a stream; the first octet decides whether it comes octet by octet."""
    reader = pdu.PDUReader(16384)
    stream = data[1:]
    step = 1 if data[:1] == b"\1" else max(len(stream), 1)
    for start in range(0, len(stream), step):
        for _ in reader.feed(stream[start : start + step]):
            pass


@target("upper-layer", seeds=_pdu_seeds)
def parse_upper_layer(data: bytes) -> None:
    """The state machine in both roles, which raises nothing whatever comes."""
    for is_requestor in (False, True):
        machine = UpperLayer(is_requestor=is_requestor, receive_limit=16384)
        if is_requestor:
            list(machine.associate(_request()))
        list(machine.transport_opened())
        for half in (data[1 : len(data) // 2], data[len(data) // 2 :]):
            list(machine.receive_data(half))


def _user_seeds() -> Iterator[bytes]:
    yield b"".join(each.encode() for each in _user_items())
    for each in _user_items():
        yield each.encode()


@target("user-items", PDUProcessingError, seeds=_user_seeds)
def parse_user_items(data: bytes) -> None:
    """The items of an association request, which are described for a debug log."""
    for each in userdataitems.decode_user_data(data):
        userdataitems.describe(each)


# -- certificates and tokens -------------------------------------------------------------------------


# A certificate for pacs.example, *.clinic.example, 127.0.0.1 and someone@clinic.example, called PACS.
_CERTIFICATE = """
MIICbjCCAhWgAwIBAgIUeLU3RrRVq03pkW1HCdeZeyTuWngwCgYIKoZIzj0EAwIwQDEXMBUGA1UECgwOdHJ1c3RtZSB2MS4y
LjExJTAjBgNVBAsMHFRlc3RpbmcgQ0EgI3Bzc1VYRVJXd2tPTDl5NGswIBcNMDAwMTAxMDAwMDAwWhgPMzAwMDAxMDEwMDAw
MDBaMFExFzAVBgNVBAoMDnRydXN0bWUgdjEuMi4xMScwJQYDVQQLDB5UZXN0aW5nIGNlcnQgI0Nfekw0Vkg4TUxseFZYNmYx
DTALBgNVBAMMBFBBQ1MwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASedcIydAOCbubmSC0rp6uamgAHBzTTCD4xCriugDg2
PA6zwSZirp3lJlmv36mzEp3fxlXjG8hUme+KQJl0obA7o4HZMIHWMB0GA1UdDgQWBBTtQXxQ3Jidur33+HuwxP0Fxqbl9TAM
BgNVHRMBAf8EAjAAMB8GA1UdIwQYMBaAFMYLilKgKIhIQ5XNQhhEkOY6L05iMEoGA1UdEQEB/wRAMD6CDHBhY3MuZXhhbXBs
ZYIQKi5jbGluaWMuZXhhbXBsZYcEfwAAAYEWc29tZW9uZUBjbGluaWMuZXhhbXBsZTAOBgNVHQ8BAf8EBAMCBaAwKgYDVR0l
AQH/BCAwHgYIKwYBBQUHAwIGCCsGAQUFBwMBBggrBgEFBQcDAzAKBggqhkjOPQQDAgNHADBEAiBnW0+faNpBSLUnN6k47AmT
JcdiiCe31L42GRPGQ2JPkgIgE0jyjn/6aScz1wsi4wY4YDT93/jQQRTAivy2jEf8Iko=
"""


def certificate_seeds() -> Iterator[bytes]:
    """A certificate in the form in which it is sent."""
    yield b64decode(_CERTIFICATE)


class _TLSTransport:
    """Stands for the transport that a certificate has come by."""

    def __init__(self, certificate: crypto.X509) -> None:
        self.getPeerCertificate = lambda: certificate


@target("certificates", crypto.Error, seeds=certificate_seeds)
def parse_certificate(data: bytes) -> None:
    """A certificate that OpenSSL has read: it is accepted or has a refusal, and the rules can look at it."""
    certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, data)
    for pinned, name, error in (
        *((frozenset[str](), None, number) for number in (9, 10, 20, 26, 66, 99)),
        *(
            (frozenset[str](), each, 0)
            for each in ("pacs.example", "ct.clinic.example", "127.0.0.1")
        ),
        (frozenset(["0" * 64]), None, 20),
    ):
        transport = _TLSTransport(certificate)
        is_accepted = tls._judge(transport, pinned, name)(None, certificate, error, 0, not error)
        assert is_accepted == (transport not in refusals._certificates)
    assert peer_certificate(_TLSTransport(certificate)) is not None


_SECRET = "of the fuzzer, and of nobody else"


def _token_seeds() -> Iterator[bytes]:
    yield jwt.encode({"sub": "Doe", "exp": 1 << 32}, _SECRET, "HS256").encode()
    yield jwt.encode({"sub": 7, "exp": "never"}, _SECRET, "HS256").encode()


@target("tokens", UnauthorizedLogin, seeds=_token_seeds)
def parse_token(data: bytes) -> None:
    """A JSON Web Token of a user identity item (PS3.7 D.3.3.7)."""
    token = SimpleNamespace(token=data)
    success_of(JSONWebTokens(_SECRET, ["HS256"]).requestAvatarId(token))


# -- messages ----------------------------------------------------------------------------------------


def _messages() -> tuple[dimse.Message, ...]:
    uid, instance = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    return (
        dimse.CEchoRQ(message_id=1, affected_sop_class_uid="1.2.840.10008.1.1"),
        dimse.CStoreRQ(
            message_id=2, affected_sop_class_uid=uid, affected_sop_instance_uid=instance, priority=0
        ),
        dimse.CFindRQ(message_id=3, affected_sop_class_uid=uid, priority=0),
        dimse.CMoveRQ(
            message_id=4, affected_sop_class_uid=uid, priority=0, move_destination="THERE"
        ),
        dimse.CCancelRQ(message_id_being_responded_to=4),
        dimse.NActionRQ(
            message_id=5,
            requested_sop_class_uid=uid,
            requested_sop_instance_uid=instance,
            action_type_id=1,
        ),
    )


def _command_seeds() -> Iterator[bytes]:
    for each in _messages():
        yield dimse.encode_command(each)


@target("commands", DIMSEProcessingError, seeds=_command_seeds)
def parse_command(data: bytes) -> None:
    """A command set, alone and in fragments."""
    message, _ = dimse.decode_command(data)
    repr(message)
    reader = MessageReader({1}, lambda _, __: BytesIO())
    half = len(data) // 2
    reader.receive(pdu.Fragment(1, True, False, memoryview(data)[:half]))
    reader.receive(pdu.Fragment(1, True, True, memoryview(data)[half:]))


# -- data sets ---------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """The first octets of an input, and the data set behind them."""

    syntax: str
    model: InformationModel
    flags: str
    data: bytes


def parts_of(data: bytes) -> Parts:
    """Read what the first three octets choose."""
    syntax, model, flags = (*data[:3], 0, 0, 0)[:3]
    return Parts(
        SYNTAXES[syntax % len(SYNTAXES)],
        MODELS[model % len(MODELS)],
        "".join(flag for bit, flag in enumerate(FLAGS) if flags >> bit & 1),
        data[3:],
    )


def _whole() -> Iterator[bytes]:
    """Small data sets in each transfer syntax, with the octets that choose it."""
    for number, encoding in enumerate((ENCODINGS[1], ENCODINGS[0], ENCODINGS[2])):
        head = bytes([number, 0, 0])
        yield head + ct("1.2.3.4", 32, encoding)
        nested = encoding.sequence(0x00081140, encoding.sequence(0x00081140, b"", defined=True))
        yield head + encoding.identity("1.2.3.4") + nested
        yield (
            head + encoding.identity("1.2.3.4") + encoding.element(0x00080005, "CS", b"ISO_IR 192")
        )
    plain = ct("1.2.3.4", 32)
    yield bytes([3, 0, 0]) + deflated(plain)
    frames = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack(
        "<HHI4s", 0xFFFE, 0xE000, 4, b"abcd"
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + frames + end
    yield bytes(3) + ENCODINGS[1].identity("1.2.3.4") + pixels
    for _, each in patients.instances():
        yield bytes(3) + dsutils.encode(each, EXPLICIT_VR_LITTLE_ENDIAN)
        break


def _recorded(walked: Any, syntax: str) -> None:
    """The values that the index would have of an instance."""
    record = InstanceRecord.of(walked, syntax, path=Path("/x"), size=1, digest="")
    _values(record)


def _values(record: InstanceRecord) -> None:
    assert record.identity is not None
    for level in Level:
        record.values(level)


@target("received", InvalidDataSetError, seeds=_whole)
def parse_received(data: bytes) -> None:
    """What C-STORE brings: the walk, and the row of the index."""
    parts = parts_of(data)
    _recorded(walk(parts.data, parts.syntax, 0, WANTED), parts.syntax)


@target("content", seeds=_whole)
def parse_content(data: bytes) -> None:
    """The comparison of an instance with one that is there, which raises nothing."""
    parts = parts_of(data)
    here = ct("1.2.3.4", 32)
    same_content(parts.data, parts.syntax, 0, here, EXPLICIT_VR_LITTLE_ENDIAN, 0)
    assert same_content(parts.data, parts.syntax, 0, parts.data, parts.syntax, 0) in (True, False)


@target("data-sets", DataSetError, seeds=_whole)
def parse_data_set(data: bytes) -> None:
    """The data set of a request, which pydicom reads; the identity in its first octets."""
    parts = parts_of(data)
    dsutils.identity(BytesIO(parts.data), parts.syntax)
    dsutils.failed_instances(parts.data, parts.syntax)
    dsutils.check_parts(parts.data, parts.syntax, PARTS_LIMIT)
    dsutils.decode(parts.data, parts.syntax, limit=1 << 20)


@target("deflated", DataSetError, seeds=_whole)
def parse_deflated(data: bytes) -> None:
    """The inflation, with a limit on what comes of it."""
    limit = 1 << 16
    with suppress(DataSetError):
        octets, _ = inflate_part(data, limit)
        assert len(octets) <= limit
    assert len(dsutils.inflate(data[3:], limit)) <= limit


def _bomb() -> bytes:
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 1 << 17)
    return stream.compress(element + bytes(1 << 17)) + stream.flush()


def _reencode_seeds() -> Iterator[bytes]:
    yield from _whole()
    yield bytes([3, 1, 0]) + _bomb()


@target("re-encoding", DataSetError, seeds=_reencode_seeds)
def parse_reencoded(data: bytes) -> None:
    """A retrieval in another transfer syntax, the second octet's; what is held at once is bounded."""
    parts = parts_of(data)
    wanted = SYNTAXES[(data[1:2] or b"\0")[0] % len(SYNTAXES)]
    source = BytesIO(parts.data)

    def take(piece: bytes) -> None:
        assert len(piece) <= 1 << 21, len(piece)

    leave_out = (lambda tag: tag >= 0x7FE00000) if "f" in parts.flags else None
    reencode(source.read, take, parts.syntax, wanted, leave_out)


# -- files -------------------------------------------------------------------------------------------


def _file_seeds() -> Iterator[bytes]:
    for each in _whole():
        parts = parts_of(each)
        header = dsutils.part10_header("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", parts.syntax)
        yield header + parts.data


@target("files", DataSetError, seeds=_file_seeds)
def parse_file(data: bytes) -> None:
    """A Part 10 file, as the start of the node and ``reindex`` read it."""
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, data)
        _values(record_of(f"/proc/self/fd/{descriptor}", digest=""))
        with open(f"/proc/self/fd/{descriptor}", "rb") as file:
            meta = dsutils.read_file_meta(file)
        walk_file(descriptor, meta.transfer_syntax, meta.offset)
    finally:
        os.close(descriptor)


# -- queries -----------------------------------------------------------------------------------------


@cache
def _index() -> Index:
    """An index with patients, which lives as long as the process."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    index = Index(f"sqlite:///{folder}/index.db")
    index.open()
    atexit.register(index.close)
    made = [each for _, each in patients.instances()]
    patients.add(index, made, EXPLICIT_VR_LITTLE_ENDIAN)
    return index


def _identifier_seeds() -> Iterator[bytes]:
    keys: tuple[dict[str, Any], ...] = (
        {"QueryRetrieveLevel": "STUDY", "PatientName": "Doe*^?", "StudyDate": "20200101-20251231"},
        {
            "QueryRetrieveLevel": "STUDY",
            "StudyTime": "10-12",
            "StudyInstanceUID": "1.2.3.1\\1.2.3.2",
        },
        {"QueryRetrieveLevel": "PATIENT", "PatientID": "P1", "PatientBirthDate": "-19991231"},
        {
            "QueryRetrieveLevel": "SERIES",
            "StudyInstanceUID": "1.2.3.1",
            "Modality": "CT",
            "RequestAttributesSequence": {"ScheduledProcedureStepID": "S*"},
        },
        {
            "QueryRetrieveLevel": "IMAGE",
            "StudyInstanceUID": "1.2.3.1",
            "SeriesInstanceUID": "1.2.3.1.1",
            "SOPInstanceUID": "1.2.3.1.1.1",
            "InstanceNumber": "1",
        },
        {
            "QueryRetrieveLevel": "STUDY",
            "ModalitiesInStudy": "CT\\MR",
            "SpecificCharacterSet": "\\ISO 2022 IR 87",
            "TimezoneOffsetFromUTC": "+0130",
            "PatientName": "Yamada^Tarou=\x1b$B;3ED\x1b(B",
            "NumberOfStudyRelatedInstances": "",
        },
    )
    for number, each in enumerate(keys):
        for syntax in (0, 1, 2):
            made = dsutils.encode(patients.data_set(**each), SYNTAXES[syntax])
            yield bytes([syntax, number % len(MODELS), (1 << number) - 1]) + made


@target("identifiers", DataSetError, StatusError, seeds=_identifier_seeds)
def parse_identifier(data: bytes) -> None:
    """C-FIND and C-GET, from the identifier to the answers of the database."""
    parts = parts_of(data)
    dsutils.check_parts(parts.data, parts.syntax, PARTS_LIMIT)
    identifier = dsutils.decode(parts.data, parts.syntax, limit=1 << 20)
    options = patients.options(parts.flags)
    search = Search(_index(), match_unknown="e" in parts.flags)
    with suppress(StatusError):
        search.matches(identifier, parts.model, options)
    answers = search.find(
        identifier,
        model=parts.model,
        options=options,
        transfer_syntax=parts.syntax,
        retrieve_ae_title="NETDICOM",
    )
    for answer in answers:
        dsutils.decode(answer, parts.syntax)


# -- worklist ----------------------------------------------------------------------------------------


@cache
def _items() -> list[WorklistItem]:
    return [
        *WorklistItem.of(worklists.scheduled()),
        *WorklistItem.of(
            worklists.scheduled(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
        ),
    ]


def _worklist_seeds() -> Iterator[bytes]:
    asked = (
        worklists.asking(Modality="CT", ScheduledProcedureStepStartDate="20260101-20261231"),
        worklists.asking(PatientName="D*", ScheduledProcedureStepStartTime="08-12"),
        worklists.asking(ScheduledStationAETitle="CT1", ScheduledProcedureStepStatus="SCHEDULED"),
    )
    for each in asked:
        for number, syntax in enumerate(SYNTAXES[:3]):
            yield bytes([number, 0, 0]) + dsutils.encode(each, syntax)


@target("worklist-queries", DataSetError, StatusError, seeds=_worklist_seeds)
def parse_worklist_query(data: bytes) -> None:
    """The identifier of a worklist query, matched with items and answered."""
    parts = parts_of(data)
    dsutils.check_parts(parts.data, parts.syntax, PARTS_LIMIT)
    query = WorklistQuery(dsutils.decode(parts.data, parts.syntax, limit=1 << 20))
    assert query.asks_for_status in (True, False)
    for item in _items():
        query.accepts(item)
        dsutils.decode(query.answer(item, parts.syntax), parts.syntax)


def _worklist_file_seeds() -> Iterator[bytes]:
    ds = worklists.scheduled(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jörg")
    for syntax in SYNTAXES:
        made = dsutils.encode(ds, syntax)
        yield dsutils.part10_header("1.2.840.10008.5.1.4.31", "1.2.3.4", syntax) + made
    yield dsutils.encode(ds, EXPLICIT_VR_LITTLE_ENDIAN)
    yield dsutils.encode(ds, IMPLICIT_VR_LITTLE_ENDIAN)


@target("worklist-files", DataSetError, seeds=_worklist_file_seeds)
def parse_worklist_file(data: bytes) -> None:
    """A file of a worklist directory, and the answers for its steps."""
    query = WorklistQuery(
        worklists.received(worklists.asking(PatientName="*", AccessionNumber=None))
    )
    for item in read_item(data):
        assert item.key is not None
        assert item.start is not None
        query.accepts(item)
        query.answer(item.with_status("STARTED"), EXPLICIT_VR_LITTLE_ENDIAN)


def _json_seeds() -> Iterator[bytes]:
    ds = worklists.scheduled()
    yield json.dumps(ds.to_json_dict()).encode()
    yield json.dumps([ds.to_json_dict()] * 2).encode()


@target("worklist-json", WorklistImportError, seeds=_json_seeds)
def parse_worklist_json(data: bytes) -> None:
    """What ``netdicom schedule`` imports as JSON."""
    _import(read_json(data.decode("utf-8", "replace")))


def _csv_seeds() -> Iterator[bytes]:
    yield b"PatientName,PatientID,Modality,ScheduledProcedureStepStartDate\nDoe^J,1,CT,20260101\n"
    yield 'PatientName,StudyInstanceUID\n"Müller^J",1.2\nA,B\n'.encode()


@target("worklist-csv", WorklistImportError, seeds=_csv_seeds)
def parse_worklist_csv(data: bytes) -> None:
    """What ``netdicom schedule`` imports as CSV."""
    _import(read_csv(data.decode("utf-8", "replace")))


def _import(found: Iterable[tuple[str, Dataset]]) -> None:
    for _, ds in found:
        # The import reports this error with the place.
        with suppress(DataSetError):
            WorklistItem.of(ds)


# -- procedure steps and commitment ------------------------------------------------------------------


def _step() -> Dataset:
    return patients.data_set(
        ScheduledStepAttributesSequence={
            "StudyInstanceUID": "1.2",
            "AccessionNumber": "A",
            "RequestedProcedureID": "R",
            "RequestedProcedureDescription": "",
            "ScheduledProcedureStepID": "S",
        },
        PatientName="Doe",
        PatientID="1",
        PerformedProcedureStepID="P",
        PerformedStationAETitle="CT",
        PerformedProcedureStepStartDate="20260101",
        PerformedProcedureStepStartTime="101010",
        PerformedProcedureStepStatus="IN PROGRESS",
        Modality="CT",
        PerformedSeriesSequence={
            "ProtocolName": "X",
            "SeriesInstanceUID": "1.2.3",
            "ReferencedImageSequence": {
                "ReferencedSOPClassUID": "1.2",
                "ReferencedSOPInstanceUID": "1.2.3.4",
            },
        },
    )


def _request_with(data: bytes) -> tuple[Any, dimse.NActionRQ]:
    """A request with a data set, and what a handler needs of its presentation context."""
    parts = parts_of(data)
    message = dimse.NActionRQ(
        message_id=1,
        requested_sop_class_uid="1.2.840.10008.1.20.1",
        requested_sop_instance_uid="1.2.840.10008.1.20.1.1",
        action_type_id=1,
        data_set=parts.data,
    )
    return SimpleNamespace(supported_ts=parts.syntax), message


def _step_seeds() -> Iterator[bytes]:
    final = {
        "PerformedProcedureStepStatus": "COMPLETED",
        "PerformedProcedureStepEndDate": "20260101",
    }
    for number, syntax in enumerate(SYNTAXES[:3]):
        yield bytes([number, 0, 0]) + dsutils.encode(_step(), syntax)
        yield bytes([number, 0, 0]) + dsutils.encode(patients.data_set(**final), syntax)


@target("procedure-steps", DataSetError, StatusError, seeds=_step_seeds)
def parse_step(data: bytes) -> None:
    """N-CREATE and N-SET of a performed procedure step, and what would be kept of it."""
    context, message = _request_with(data)
    ds = data_set_of(context, message)
    assert ds is not None
    with suppress(StatusError, DataSetError):
        dsutils.encode(updated(_step(), ds), EXPLICIT_VR_LITTLE_ENDIAN)
    check_create(ds)
    dsutils.encode(ds, EXPLICIT_VR_LITTLE_ENDIAN)


def _commitment_seeds() -> Iterator[bytes]:
    items = [
        {
            "ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            "ReferencedSOPInstanceUID": f"1.2.{each}",
        }
        for each in range(3)
    ]
    ds = patients.data_set(TransactionUID="1.2.3", ReferencedSOPSequence=items)
    for number, syntax in enumerate(SYNTAXES[:3]):
        yield bytes([number, 0, 0]) + dsutils.encode(ds, syntax)


@target("commitment", StatusError, DataSetError, seeds=_commitment_seeds)
def parse_commitment(data: bytes) -> None:
    """N-ACTION of storage commitment: the instances that it names."""
    transaction_uid, uids = _asked(*_request_with(data))
    assert transaction_uid
    assert all(isinstance(each, str) for pair in uids for each in pair)
