"""Storage (PS3.4 Annex B): C-STORE in both roles. Many instances: test_sending."""

from __future__ import annotations

import gc
import io
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from twisted.internet import defer
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from netdicom_tx import (
    AE,
    AssociationAbortedError,
    ClassNotSupportedError,
    EventHandlingError,
    Status,
    StatusError,
    storage_scp,
    storage_scu,
)
from netdicom_tx.applicationentity import _contexts_of
from netdicom_tx.archive.encoded.content import same_content
from netdicom_tx.asceprovider import Association
from netdicom_tx.dimsemessages import CStoreRQ
from netdicom_tx.dsutils import DataSetError, decode, part10_header, read_file_meta
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.sopclass import Arrival, Instance, storage
from netdicom_tx.sopclass.storage import MoveOriginator, reencoded, save_instance, store_instance
from netdicom_tx.testing import failure_of, success_of
from netdicom_tx.uids import (
    ALL_TRANSFER_SYNTAXES,
    STORAGE_SOP_CLASSES,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
)
from support.archive.data_sets import ct, deflated
from support.doubles import (
    CT,
    EXPLICIT,
    IMPLICIT,
    MR,
    Caller,
    Node,
    RawPeer,
    calling,
    echo_rq,
    store_rq,
)
from support.doubles import logged_failures as logged_failures

JPEG_2000 = "1.2.840.10008.1.2.4.90"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"


def sample(name: str) -> Path:
    """A file that pydicom brings along."""
    return Path(str(get_testdata_file(name, download=False)))


CT_FILE = sample("CT_small.dcm")
FILES = [
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_jp2klossless.dcm",
    "JPEG2000.dcm",
    "image_dfl.dcm",
    "rtplan.dcm",
]


def data_set_of(path: Path) -> bytes:
    """The octets behind the header, by pydicom."""
    with open(path, "rb") as file:
        file.seek(read_file_meta(file).offset)
        return file.read()


class Store(AE):
    """Keeps what it is sent, as octets of Part 10 files."""

    def __init__(self, transfer_syntaxes: Any = ALL_TRANSFER_SYNTAXES) -> None:
        super().__init__("STORE")
        self.add_scp(storage_scp, None, transfer_syntaxes)
        self.kept: list[bytes] = []
        self.answer: Any = lambda: 0
        self.file: BinaryIO

    def on_receive_store(self, context: Any, ds: BinaryIO) -> Any:
        self.file = ds
        assert ds.tell() == 0
        self.kept.append(ds.read())
        return self.answer()


def storing(
    contexts: Any, transfer_syntaxes: Any = ALL_TRANSFER_SYNTAXES
) -> tuple[Store, Association]:
    """An association with a store, of an AE of ours."""
    from netdicom_tx.testing import Pair

    scp = Store(transfer_syntaxes)
    pair = Pair(AE("SCU").add_scu(storage_scu, STORAGE_SOP_CLASSES), scp)
    return scp, success_of(pair.request_association(contexts))


def store(asce: Association, source: Any, msg_id: int | None = None) -> Any:
    ctx = next(iter(asce.accepted_contexts.values()))
    return storage_scu(asce, ctx, source, msg_id)


# -- SCU: what goes out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["path", "text", "file"])
def test_a_file_goes_out_as_it_is(name: str, kind: str):
    """Streamed, never decoded: octet for octet."""
    path = sample(name)
    instance = Instance.of(path)
    scp, asce = storing({instance.sop_class_uid: [instance.transfer_syntax]})
    with open(path, "rb") as file:
        source = {"path": path, "text": str(path), "file": file}[kind]
        assert success_of(store(asce, source)) == 0
        assert not file.closed
    (kept,) = scp.kept
    head = io.BytesIO(kept)
    meta = read_file_meta(head)
    assert meta.sop_class_uid == instance.sop_class_uid
    assert meta.sop_instance_uid == instance.sop_instance_uid
    assert meta.transfer_syntax == instance.transfer_syntax
    octets = data_set_of(path)
    assert kept[meta.offset :] == octets + b"\0" * (len(octets) % 2)


def test_a_data_set_goes_out_in_the_syntax_it_has():
    data = dcmread(CT_FILE)
    scp, asce = storing({CT: [IMPLICIT, EXPLICIT]})
    assert success_of(store(asce, data)) == 0
    stored = dcmread(io.BytesIO(scp.kept[0]))
    assert stored == data
    assert stored.file_meta.TransferSyntaxUID in (IMPLICIT, EXPLICIT)


def test_a_data_set_of_ones_own_needs_no_file_meta():
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.PatientID = CT, "1.2.3", "me"
    scp, asce = storing({CT: [EXPLICIT]})
    assert success_of(store(asce, data)) == 0
    assert dcmread(io.BytesIO(scp.kept[0])) == data


@pytest.mark.parametrize("source", [CT_FILE, io.BytesIO(CT_FILE.read_bytes()), dcmread(CT_FILE)])
def test_another_plain_syntax_is_made_when_only_that_was_accepted(source: Any):
    """PS3.5 Annex A: explicit and implicit VR little endian hold the same values."""
    data = dcmread(CT_FILE)
    scp, asce = storing({CT: [IMPLICIT]})
    assert success_of(store(asce, source)) == 0
    stored = dcmread(io.BytesIO(scp.kept[0]))
    assert stored.file_meta.TransferSyntaxUID == IMPLICIT
    assert stored == data


def test_the_context_whose_syntax_fits_is_taken():
    """Whichever was given: no file is re-encoded without need."""
    scp, asce = storing([(CT, [IMPLICIT]), (CT, [EXPLICIT])])
    assert success_of(store(asce, CT_FILE)) == 0
    assert read_file_meta(io.BytesIO(scp.kept[0])).transfer_syntax == EXPLICIT


def test_of_those_that_fit_the_given_context_is_taken():
    caller, asce = calling([(CT, [EXPLICIT]), (CT, [EXPLICIT])])
    storage_scu(asce, asce.accepted_contexts[3], str(CT_FILE))
    assert {body[4] for _, body in caller.peer.take()} == {3}


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("JPEG2000.dcm", EXPLICIT),
        ("MR_small.dcm", JPEG_2000),
        ("CT_small.dcm", None),
    ],
)
def test_an_instance_that_fits_no_context_is_refused(name: str, accepted: str | None):
    """Compressed pixels are not decoded, and none are compressed."""
    path = sample(name)
    instance = Instance.of(path)
    _, asce = storing({instance.sop_class_uid if accepted else MR: [accepted or EXPLICIT]})
    error = failure_of(store(asce, path))
    assert isinstance(error, ClassNotSupportedError)
    assert error.sop_class == instance.sop_class_uid
    assert asce.is_open


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/no/such/file.dcm", FileNotFoundError),
        (io.BytesIO(b"no DICOM"), DataSetError),
        (Dataset(), DataSetError),
    ],
)
def test_what_cannot_be_read_fails_alone(source: Any, expected: type[Exception]):
    _scp, asce = storing({CT: [EXPLICIT]})
    assert isinstance(failure_of(store(asce, source)), expected)
    assert asce.is_open
    assert success_of(store(asce, CT_FILE)) == 0


PLAIN = [
    *("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm"),
    *("rtplan.dcm", "reportsi.dcm"),
]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("accepted", UNCOMPRESSED_TRANSFER_SYNTAXES)
@pytest.mark.parametrize("kind", ["path", "file", "data set"])
def test_what_is_not_compressed_reaches_whoever_takes_any_such_syntax(
    name: str, accepted: str, kind: str
):
    """PS3.5 10.1, A.1 to A.3, A.5: the same content, and the same pixels."""
    path = sample(name)
    source = {"path": str, "file": lambda each: io.BytesIO(each.read_bytes()), "data set": dcmread}
    instance = Instance.of(path)
    scp, asce = storing({instance.sop_class_uid: [accepted]})
    assert success_of(store(asce, source[kind](path))) == 0
    kept = io.BytesIO(scp.kept[0])
    meta = read_file_meta(kept)
    assert meta.transfer_syntax == accepted
    assert same_content(
        data_set_of(path), instance.transfer_syntax, 0, scp.kept[0], accepted, meta.offset
    )


def test_the_best_of_several_syntaxes_is_made():
    """Explicit VR keeps every VR, and big endian is the last resort."""
    scp, asce = storing([(MR, [BIG_ENDIAN]), (MR, [IMPLICIT]), (MR, [EXPLICIT]), (MR, [DEFLATED])])
    asce.accepted_contexts.pop(1)
    for expected in (EXPLICIT, DEFLATED, IMPLICIT):
        assert success_of(store(asce, sample("MR_small_bigendian.dcm"))) == 0
        assert read_file_meta(io.BytesIO(scp.kept.pop())).transfer_syntax == expected
        used = next(k for k, v in asce.accepted_contexts.items() if v.supported_ts == expected)
        asce.accepted_contexts.pop(used)


def hidden(path: Path, vr: str = "LO", value: bytes = b"Siemens Header Anonymizer ") -> Path:
    """A CT image in explicit VR with an element whose VR implicit VR cannot say."""
    octets = CT_FILE.read_bytes()
    end = octets.index(b"\x10\0\x10\0PN")
    element = struct.pack("<HH2sH", 0x8, 0x1140, vr.encode(), len(value)) + value
    path.write_bytes(octets[:end] + element + octets[end:])
    return path


@pytest.mark.parametrize("kind", ["path", "file", "data set"])
def test_an_instance_that_the_peer_would_misread_fails_alone(tmp_path: Path, kind: str):
    """PS3.5 7.1.3, A.1: a text in the tag of a sequence; the attribute is named."""
    path = hidden(tmp_path / "hidden.dcm")
    source = {"path": str, "file": lambda each: io.BytesIO(each.read_bytes()), "data set": dcmread}
    scp, asce = storing({CT: [IMPLICIT]})
    error = failure_of(store(asce, source[kind](path)))
    assert isinstance(error, DataSetError)
    assert "ReferencedImageSequence (0008,1140) has the VR LO" in str(error)
    assert success_of(store(asce, CT_FILE)) == 0
    assert len(scp.kept) == 1


def test_a_data_set_that_was_never_explicit_is_checked_too():
    """A program may give an element a VR with pydicom that its transfer syntax cannot express."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = IMPLICIT
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "1.2.3"
    item = Dataset()
    item.add_new(0x00120064, "LO", "text")
    ds.ReferencedStudySequence = [item]
    _, asce = storing({CT: [IMPLICIT]})
    assert "(0012,0064) has the VR LO" in str(failure_of(store(asce, ds)))
    item.add_new(0x00120064, "LO", "")
    assert success_of(store(asce, ds)) == 0


class Pool:
    """Threads that the test runs."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def callInThreadWithCallback(self, on_result: Any, call: Any, *arguments: Any) -> None:
        self.waiting.append(lambda: on_result(*self._outcome(call, arguments)))

    @staticmethod
    def _outcome(call: Any, arguments: Any) -> tuple[bool, Any]:
        try:
            return True, call(*arguments)
        except Exception:
            return False, Failure()


@implementer(IReactorThreads)
class Reactor(Clock):
    """A clock with threads."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()

    def getThreadPool(self) -> Pool:
        return self.pool

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        call(*arguments)


def threaded(monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Association, Pool]:
    """An association on which every file is large."""
    scp, asce = storing({CT: [IMPLICIT]})
    reactor = Reactor()
    monkeypatch.setattr(type(asce.ae), "reactor", property(lambda _: reactor))
    monkeypatch.setattr(storage, "_AT_ONCE", 10)
    monkeypatch.setattr(storage, "_IN_MEMORY", 10)
    return scp, asce, reactor.pool


def test_a_large_file_is_re_encoded_in_a_thread(monkeypatch: pytest.MonkeyPatch):
    """Others are served meanwhile; and the result is in a file, which is closed afterwards."""
    scp, asce, pool = threaded(monkeypatch)
    made: list[BinaryIO] = []
    real = Instance.encoded
    monkeypatch.setattr(
        Instance, "encoded", lambda *arguments: made.append(real(*arguments)) or made[-1]
    )
    sent = store(asce, CT_FILE)
    assert not sent.called
    pool.waiting.pop()()
    assert success_of(sent) == 0
    assert dcmread(io.BytesIO(scp.kept[0])) == dcmread(CT_FILE)
    assert made[0].closed


def test_a_file_that_cannot_be_re_encoded_in_a_thread_fails_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    scp, asce, pool = threaded(monkeypatch)
    sent = store(asce, hidden(tmp_path / "hidden.dcm"))
    pool.waiting.pop()()
    assert isinstance(failure_of(sent), DataSetError)
    assert asce.is_open
    assert not scp.kept


@pytest.mark.parametrize("is_whole", [True, False])
def test_cancelling_leaves_nothing_behind_when_the_thread_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_whole: bool
):
    """It was at its end when the call was cancelled."""
    scp, asce, pool = threaded(monkeypatch)
    made: list[BinaryIO] = []
    real = Instance.encoded

    def encoded(*arguments: Any) -> Any:
        try:
            made.append(real(*arguments))  # type: ignore[arg-type]
        finally:
            sent.cancel()
        return made[-1]

    monkeypatch.setattr(Instance, "encoded", encoded)
    sent = store(asce, CT_FILE if is_whole else hidden(tmp_path / "hidden.dcm"))
    pool.waiting.pop()()
    assert isinstance(failure_of(sent), defer.CancelledError)
    assert [each.closed for each in made] == [True] * is_whole
    assert not scp.kept


def test_cancelling_ends_the_re_encoding_in_the_thread(monkeypatch: pytest.MonkeyPatch):
    """A deflated data set may have a thousand times its size, and its peer may be gone."""
    scp, asce, pool = threaded(monkeypatch)
    pieces: list[bytes] = []

    def reencode(read: Any, write: Any, *_: object) -> None:
        for piece in iter(lambda: read(100), b""):
            pieces.append(piece)
            write(piece)
            if len(pieces) == 3:
                sent.cancel()

    monkeypatch.setattr(storage, "reencode", reencode)
    sent = store(asce, CT_FILE)
    pool.waiting.pop()()
    assert isinstance(failure_of(sent), defer.CancelledError)
    assert len(pieces) == 3
    assert not scp.kept
    # The thread is used again.
    monkeypatch.undo()
    with reencoded(io.BytesIO(ct("1.2.3")), EXPLICIT, IMPLICIT) as result:
        assert result.read()


@pytest.mark.parametrize(
    ("source", "target"), [(DEFLATED, EXPLICIT), (DEFLATED, IMPLICIT), (EXPLICIT, BIG_ENDIAN)]
)
def test_re_encoding_takes_the_same_memory_whatever_the_size(
    tmp_path: Path, source: str, target: str
):
    """A data set of 12 MiB, of which deflation leaves 12 KiB."""
    data = ct("1.2.3", pixels=12 << 20)
    path = tmp_path / "large.dcm"
    header = part10_header(CT, "1.2.3", source)
    path.write_bytes(header + (deflated(data) if source == DEFLATED else data))
    instance = Instance.of(path)
    assert instance.takes_long(target)
    tracemalloc.start()
    try:
        with instance.encoded(target) as made:
            size = made.seek(0, io.SEEK_END)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 12 << 20
    assert peak < 6 << 20


def test_a_syntax_that_is_compressed_cannot_be_made():
    with pytest.raises(DataSetError, match="cannot be re-encoded to JPEG 2000"):
        Instance.of(CT_FILE).encoded(JPEG_2000)


def test_a_header_may_be_read_when_the_instance_is_sent():
    """A caller that knows which instance it is does not have to open the file before."""
    known = Instance.of(CT_FILE)
    scp, asce = storing({CT: [EXPLICIT]})
    later = Instance(known.sop_class_uid, known.sop_instance_uid, EXPLICIT, CT_FILE, None)
    assert success_of(store_instance(asce, later)) == 0
    meta = read_file_meta(io.BytesIO(scp.kept[0]))
    assert scp.kept[0][meta.offset :] == data_set_of(CT_FILE)


def test_the_request_says_what_the_standard_wants():
    """PS3.7 9.3.1.1."""
    caller, asce = calling({CT: [EXPLICIT]})
    store(asce, CT_FILE, 77)
    asked = command_of(caller.peer)
    assert asked.message_id == 77
    assert asked.affected_sop_class_uid == CT
    assert asked.affected_sop_instance_uid == dcmread(CT_FILE).SOPInstanceUID
    assert asked.move_originator_application_entity_title is None
    assert asked.move_originator_message_id is None


def command_of(peer: RawPeer) -> Any:
    return peer.messages()[0]


def test_a_sub_operation_names_its_originator():
    caller, asce = calling({CT: [EXPLICIT]})
    store_instance(asce, Instance.of(CT_FILE), originator=MoveOriginator("MOVER", 5))
    asked = command_of(caller.peer)
    assert asked.move_originator_application_entity_title == "MOVER"
    assert asked.move_originator_message_id == 5


def test_the_status_comes_with_its_words():
    caller, asce = calling({CT: [EXPLICIT]})
    answer = store(asce, CT_FILE)
    caller.peer.send(command_of(caller.peer).response(0xB007, error_comment="odd"))
    status = success_of(answer)
    assert (status, status.command, status.comment) == (0xB007, "C-STORE", "odd")


# -- SCU: files -------------------------------------------------------------------------------------------


def big_file(tmp_path: Path) -> tuple[Path, bytes]:
    """A file of 4 MiB: more than a transport takes at once. Its data set."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CT, "1.2.3"
    data.PixelData = bytes(range(256)) * (1 << 14)
    data["PixelData"].VR = "OB"
    data.ensure_file_meta()
    data.file_meta.TransferSyntaxUID = EXPLICIT
    path = tmp_path / "big.dcm"
    data.save_as(path, enforce_file_format=True)
    return path, data_set_of(path)


def held(tmp_path: Path) -> tuple[Caller, Association, Any, bytes]:
    """A transfer that stands in the middle, because the peer does not read."""
    path, octets = big_file(tmp_path)
    caller, asce = calling({CT: [EXPLICIT]})
    caller.peer.transport.pauseProducing()
    return caller, asce, store(asce, path), octets


def sent_data_set(peer: RawPeer) -> bytes:
    return b"".join(body[6:] for _, body in peer.take() if not body[5] & 1)


def test_a_file_is_read_as_it_goes_out(tmp_path: Path):
    caller, _, answer, octets = held(tmp_path)
    caller.peer.transport.resumeProducing()
    assert sent_data_set(caller.peer) == octets
    caller.peer.send(store_rq(1).response(0))
    assert success_of(answer) == 0


def test_cancelling_does_not_stop_the_transfer(tmp_path: Path):
    """The peer is in the middle of it: what it gets is whole, and its answer is swallowed."""
    caller, asce, answer, octets = held(tmp_path)
    answer.cancel()
    assert isinstance(failure_of(answer), defer.CancelledError)
    caller.peer.transport.resumeProducing()
    assert sent_data_set(caller.peer) == octets
    caller.peer.send(store_rq(1).response(0))
    assert asce.operations == 0


@pytest.mark.slow
def test_a_transfer_that_was_cancelled_leaves_no_file_open(tmp_path: Path):
    """ResourceWarning would be an error."""
    caller, asce, answer, _ = held(tmp_path)
    answer.cancel()
    failure_of(answer)
    asce.abort()
    caller.advance(asce.timeouts.artim)
    del answer
    gc.collect()


@pytest.mark.slow
def test_a_transfer_that_the_association_cuts_off_leaves_no_file_open(tmp_path: Path):
    _, asce, answer, _ = held(tmp_path)
    asce.abort()
    assert isinstance(failure_of(answer), AssociationAbortedError)
    del answer
    gc.collect()


def test_a_file_that_waits_for_its_turn_is_not_open(monkeypatch: pytest.MonkeyPatch):
    """Thousands may wait."""
    caller, asce = calling({CT: [EXPLICIT]})
    instance = Instance.of(CT_FILE)
    opened: list[Any] = []
    real = open

    def counting(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr("builtins.open", counting)
    answers = [store_instance(asce, instance) for _ in range(10)]
    assert len(opened) == 1
    for n in range(1, 11):
        caller.peer.send(store_rq(n).response(0))
    assert len(opened) == 10
    assert [success_of(each) for each in answers] == [0] * 10


def test_a_file_that_goes_away_while_it_waits_ends_the_association(tmp_path: Path, failures: Any):
    """Its command has gone out, and cannot be taken back."""
    path = tmp_path / "copy.dcm"
    path.write_bytes(CT_FILE.read_bytes())
    caller, asce = calling({CT: [EXPLICIT]})
    first, second = store(asce, CT_FILE), store(asce, path)
    path.unlink()
    caller.peer.send(store_rq(1).response(0))
    assert success_of(first) == 0
    error = failure_of(second)
    assert isinstance(error, LocalProtocolError)
    assert "FileNotFoundError" in str(error)
    assert failures.texts()


def test_an_open_file_is_read_from_its_position():
    with open(CT_FILE, "rb") as file:
        prefix = io.BytesIO(b"something else" + file.read())
    prefix.seek(len(b"something else"))
    scp, asce = storing({CT: [EXPLICIT]})
    with pytest.raises(DataSetError):
        Instance.of(io.BytesIO(b"something else"))
    assert success_of(store(asce, prefix)) == 0
    meta = read_file_meta(io.BytesIO(scp.kept[0]))
    assert scp.kept[0][meta.offset :] == data_set_of(CT_FILE)


# -- SCP --------------------------------------------------------------------------------------------------


def received(ae: Store, *requests: Any) -> list[int]:
    node = Node(ae)
    peer = node.associate({CT: [IMPLICIT]})
    peer.send(*requests)
    assert node.association().is_open
    return peer.statuses()


def test_an_instance_goes_to_the_hook_as_a_part_10_file():
    ae = Store()
    assert received(ae, store_rq(1, b"octets")) == [0]
    (kept,) = ae.kept
    assert kept[128:132] == b"DICM"
    assert kept.endswith(b"octets")
    assert ae.file.closed


@pytest.mark.parametrize(
    "answer",
    [
        lambda: 0xB000,
        lambda: Status(0xB000),
        lambda: defer.succeed(0xB000),
        lambda: _later(0xB000),
        lambda: _raise(StatusError(0xB000)),
    ],
    ids=["int", "Status", "Deferred", "coroutine", "raised"],
)
@pytest.mark.parametrize("originator", [None, 7])
def test_the_status_is_what_the_hook_gives(answer: Any, originator: int | None):
    ae = Store()
    ae.answer = answer
    asked = CStoreRQ(
        affected_sop_class_uid=CT,
        affected_sop_instance_uid="1.2.3",
        message_id=1,
        data_set=b"octets",
        move_originator_application_entity_title=None if originator is None else "MOVER",
        move_originator_message_id=originator,
    )
    arrivals: list[Arrival] = []
    storage_scp.watch_arrivals(ae, "MOVER", 7, arrivals)
    assert received(ae, asked) == [0xB000]
    raised = answer.__code__.co_names[:1] == ("_raise",)
    told = [(each.sop_instance_uid, each.status) for each in arrivals]
    assert told == ([] if originator is None or raised else [("1.2.3", 0xB000)])
    storage_scp.forget_arrivals(ae, "MOVER", 7)


def test_arrivals_are_told_to_who_watches_them():
    """PS3.7 9.3.1.1: a C-STORE of a C-MOVE names its originator. Each AE of a service has its own."""
    ae, other = Store(), Store()
    theirs = CStoreRQ(
        affected_sop_class_uid=CT,
        affected_sop_instance_uid="1.2.3",
        message_id=1,
        data_set=b"octets",
        move_originator_application_entity_title="US",
        move_originator_message_id=7,
    )
    arrived: dict[str, list[Arrival]] = {"ours": [], "another": [], "elsewhere": []}
    storage_scp.watch_arrivals(ae, "US", 7, arrived["ours"])
    storage_scp.watch_arrivals(ae, "US", 8, arrived["another"])
    storage_scp.watch_arrivals(other, "US", 7, arrived["elsewhere"])
    assert received(ae, theirs, store_rq(2)) == [0, 0]
    assert arrived == {"ours": [Arrival(CT, "1.2.3", 0)], "another": [], "elsewhere": []}
    for each, message_id in ((ae, 7), (ae, 8), (other, 7)):
        storage_scp.forget_arrivals(each, "US", message_id)


async def _later(status: int) -> int:
    return status


def _raise(error: Exception) -> Any:
    raise error


def test_an_error_of_the_hook_is_cannot_understand():
    """PS3.4 Table B.2-1: Cxxx."""
    ae = Store()
    ae.answer = lambda: _raise(EventHandlingError("no such patient"))
    assert received(ae, store_rq(1)) == [0xC000]


def test_a_hook_that_is_not_there_says_so():
    node = Node(AE("NODE").add_scp(storage_scp))
    peer = node.associate({CT: [IMPLICIT]})
    peer.send(store_rq(1))
    (response,) = peer.messages()
    assert (response.status, response.error_comment) == (
        0x0110,
        "on_receive_store is not implemented",
    )


def test_what_contradicts_itself_is_refused_and_not_seen():
    """PS3.7 C.5.6: 0122 for another class than that of the context; PS3.4 B.2.3: A9xx."""
    ae = Store()
    other = CStoreRQ(
        affected_sop_class_uid=MR,
        affected_sop_instance_uid="1.2.3",
        message_id=1,
        data_set=b"octets",
    )
    assert received(ae, other, store_rq(2, uid="../../etc/passwd"), store_rq(3, uid="")) == [
        0x0122,
        0xA900,
        0xA900,
    ]
    assert ae.kept == []


def test_a_request_without_an_instance_cannot_be_understood():
    ae = Store()
    nothing = CStoreRQ(affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3", message_id=1)
    assert received(ae, nothing) == [0xC000]
    assert ae.kept == []


def test_another_operation_is_not_recognized():
    assert received(Store(), echo_rq(1), store_rq(2)) == [0x0211, 0]


def test_all_storage_classes_are_served():
    """PS3.4 Annex B.5."""
    ae = Store()
    assert all(ae.supported_scp.find(uid) for uid in STORAGE_SOP_CLASSES)
    assert storage_scp.store_in_file  # type: ignore[attr-defined]


def test_what_was_stored_can_be_read():
    data = dcmread(CT_FILE)
    scp, asce = storing({CT: [EXPLICIT]})
    assert success_of(store(asce, data)) == 0
    meta = read_file_meta(io.BytesIO(scp.kept[0]))
    assert decode(scp.kept[0][meta.offset :], EXPLICIT) == data


class Interrupted(io.BytesIO):
    """A file during whose copying something else happens."""

    def __init__(self, octets: bytes, meanwhile: Any) -> None:
        super().__init__(octets)
        self._meanwhile = meanwhile

    def read(self, size: int | None = -1) -> bytes:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().read(size)


def test_two_copies_under_one_path_do_not_meet(tmp_path):
    """A peer that was cut off sends an instance again, and the first copy is not complete yet."""
    path = tmp_path / "saved.dcm"
    first = Interrupted(b"first", lambda: save_instance(io.BytesIO(b"the second one"), path))
    save_instance(first, path)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_copy_that_fails_leaves_the_earlier_file(tmp_path):
    """The file of a handler that took too long is closed under its thread."""
    path = tmp_path / "saved.dcm"
    save_instance(io.BytesIO(b"good"), path)
    closed: Interrupted = Interrupted(b"bad", lambda: closed.close())
    with pytest.raises(ValueError, match="closed file"):
        save_instance(closed, path)
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("left_out", [128, 132, None], ids=["preamble", "prefix", "header"])
def test_a_file_of_an_older_system_is_sent(tmp_path: Path, left_out: int | None) -> None:
    """It has no preamble, or no header at all, and its data set says which instance it is."""
    whole, known = Path(CT_FILE).read_bytes(), Instance.of(CT_FILE)
    path = tmp_path / "old"
    path.write_bytes(whole[known.offset if left_out is None else left_out :])
    found = Instance.of(path)
    assert replace(found, source=CT_FILE, offset=known.offset) == known
    source: Any = found.encoded(found.transfer_syntax)
    assert source.read() == whole[known.offset :]
    assert _contexts_of([path]) == _contexts_of([CT_FILE])
