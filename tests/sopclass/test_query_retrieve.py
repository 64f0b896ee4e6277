"""C-FIND, C-MOVE and C-GET in both roles, over an association in memory."""

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from twisted.internet import defer

from netdicom_tx import (
    AE,
    ClassNotSupportedError,
    RemoteAE,
    Status,
    StatusError,
    Timeouts,
    storage_scp,
)
from netdicom_tx.dimsemessages import CCancelRQ, Response
from netdicom_tx.fragments import MessageReader
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.pdu import Fragment, PDUReader
from netdicom_tx.sopclass import (
    Instance,
    modality_work_list_scp,
    modality_work_list_scu,
    qr_find_scp,
    qr_find_scu,
    qr_get_scp,
    qr_get_scu,
    qr_move_scp,
    qr_move_scu,
)
from netdicom_tx.testing import Pair, connected, failure_of, success_of
from netdicom_tx.uids import (
    ALL_TRANSFER_SYNTAXES,
    MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS,
)
from netdicom_tx.uids import PATIENT_ROOT_GET_SOP_CLASS as GET
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS as FIND
from netdicom_tx.uids import STUDY_ROOT_MOVE_SOP_CLASS as MOVE

NAMES = ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "JPEG2000.dcm"]
FILES = [str(get_testdata_file(name)) for name in NAMES]


def query(**keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.update({})
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


class Receiver(AE):
    """Keeps what it is sent, in memory."""

    def __init__(self, title: str, **options: Any) -> None:
        super().__init__(title, **options)
        self.received: list[tuple[PContextDef, Dataset]] = []
        self.answers: dict[str, int] = {}
        self.add_scp(storage_scp, transfer_syntaxes=ALL_TRANSFER_SYNTAXES)

    def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
        data_set = dcmread(ds)
        self.received.append((context, data_set))
        return self.answers.get(str(data_set.SOPClassUID), 0x0000)


class Archive(Receiver):
    """Has the files, and finds what the test says."""

    matches: Any = ()
    sources: Any = FILES
    destinations: dict[str, RemoteAE]
    asked: list[tuple[PContextDef, Dataset]]

    def __init__(self) -> None:
        # It bears a peer that does not read for an hour.
        super().__init__("ARCHIVE", timeouts=Timeouts(send=3600))
        self.destinations = {}
        self.asked = []
        for service in (qr_find_scp, qr_move_scp, qr_get_scp, modality_work_list_scp):
            self.add_scp(service)

    def on_receive_find(self, context: PContextDef, ds: Dataset) -> Any:
        self.asked.append((context, ds))
        return self.matches() if callable(self.matches) else self.matches

    def on_receive_move(self, context: PContextDef, ds: Dataset, destination: str) -> Any:
        self.asked.append((context, ds))
        return self.destinations.get(destination), len(self.sources), self.sources

    def on_receive_get(self, context: PContextDef, ds: Dataset) -> Any:
        self.asked.append((context, ds))
        return len(self.sources), self.sources


def read(stream: Any) -> list[Any]:
    """All items of a stream that has all of them."""

    async def collect() -> list[Any]:
        return [item async for item in stream]

    return success_of(defer.Deferred.fromCoroutine(collect()))


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def pair(archive: Archive) -> Iterator[Pair]:
    scu = Receiver("SCU")
    for service in (qr_find_scu, qr_move_scu, qr_get_scu, modality_work_list_scu):
        scu.add_scu(service)
    with connected(scu, archive) as made:
        yield made


def messages(octets: bytes) -> list[Any]:
    """The DIMSE messages in what one side wrote."""

    class Anywhere:
        def __contains__(self, _: object) -> bool:
            return True

    class Nowhere:
        def write(self, data: object, /) -> None:
            del data

    reader = MessageReader(Anywhere(), lambda *_: Nowhere())  # type: ignore[arg-type]
    found = [
        reader.receive(piece)
        for piece in PDUReader().feed(bytes(octets))
        if isinstance(piece, Fragment)
    ]
    return [each[1] for each in found if each is not None]


# -- C-FIND -----------------------------------------------------------------------------------------


def test_matches_come_as_data_sets_and_the_final_status_last(pair: Pair, archive: Archive) -> None:
    """netdicom2: (data set, status) until the status is not Pending; the last has no data set."""
    archive.matches = [query(PatientID="1"), (query(PatientID="2"), 0xFF01)]
    items = read(pair.requestor.get_scu(FIND)(query(PatientID="*")))
    assert [(ds and ds.PatientID, int(status)) for ds, status in items] == [
        ("1", 0xFF00),
        ("2", 0xFF01),
        (None, 0x0000),
    ]
    assert archive.asked[0][1].PatientID == "*"


@pytest.mark.parametrize("kind", ["iterator", "async", "coroutine", "deferred"])
def test_a_hook_may_give_its_matches_in_any_way(pair: Pair, archive: Archive, kind: str) -> None:
    async def later() -> AsyncIterator[Dataset]:
        yield query(PatientID="1")

    async def coroutine() -> list[Dataset]:
        return [query(PatientID="1")]

    archive.matches = {
        "iterator": lambda: iter([query(PatientID="1")]),
        "async": later,
        "coroutine": coroutine,
        "deferred": lambda: defer.succeed([query(PatientID="1")]),
    }[kind]
    items = read(pair.requestor.get_scu(FIND)(query()))
    assert [int(status) for _, status in items] == [0xFF00, 0x0000]


def test_a_failure_of_the_query_is_the_last_item(pair: Pair, archive: Archive) -> None:
    """PS3.4 C.4.1.1.4: a failing status is a result, and cannot be taken for "no match"."""

    def refuse() -> Iterable[Dataset]:
        raise StatusError(0xA700, "too much to do")

    archive.matches = refuse
    ((ds, status),) = read(pair.requestor.get_scu(FIND)(query()))
    assert ds is None
    assert (int(status), status.comment) == (0xA700, "too much to do")


def test_leaving_a_stream_early_sends_c_cancel_once(pair: Pair, archive: Archive) -> None:
    """PS3.7 9.3.2.3: the generator is closed, FE00 is the answer, the association goes on."""
    closed: list[bool] = []

    async def endless() -> AsyncIterator[Dataset]:
        try:
            while True:
                yield query(PatientID="1")
        finally:
            closed.append(True)

    archive.matches = endless

    async def take_one() -> Any:
        async with pair.requestor.get_scu(FIND)(query()) as stream:
            async for _ in stream:
                break
        return stream

    stream = success_of(defer.Deferred.fromCoroutine(take_one()))
    assert success_of(stream.done) == 0xFE00
    assert closed == [True]
    sent = messages(pair.transports[0].written)
    assert len([each for each in sent if isinstance(each, CCancelRQ)]) == 1
    archive.matches = []
    assert read(pair.requestor.get_scu(FIND)(query())) == [(None, Status(0))]


@pytest.mark.slow
def test_a_reader_that_is_behind_pauses_the_peer(pair: Pair, archive: Archive) -> None:
    """10,000 matches, none of them read: what has been sent is bounded."""
    archive.matches = lambda: (query(PatientID=str(number)) for number in range(10_000))
    stream = pair.requestor.get_scu(FIND)(query())
    assert len(pair.transports[1].written) < 500_000
    items = read(stream)
    assert len(items) == 10_001
    assert [ds.PatientID for ds, _ in items[:-1]] == [str(number) for number in range(10_000)]


@pytest.mark.slow
def test_a_slow_reader_is_not_taken_for_a_silent_peer(pair: Pair, archive: Archive) -> None:
    """No timeout runs while it is we who do not read."""
    archive.matches = lambda: (query() for _ in range(1000))
    stream = pair.requestor.get_scu(FIND)(query())
    for _ in range(10):
        pair.advance(50)
    assert len(read(stream)) == 1001


def test_who_waits_for_the_end_alone_gets_it(pair: Pair, archive: Archive) -> None:
    archive.matches = lambda: (query() for _ in range(1000))
    assert success_of(pair.requestor.get_scu(FIND)(query()).done) == 0x0000


def test_an_identifier_that_cannot_be_read_is_refused(pair: Pair) -> None:
    """PS3.4 Table C.4-1: Cxxx, unable to process."""
    stream = pair.requestor.get_scu(FIND)(query())
    read(stream)
    ctx = stream.ctx
    request = stream.message.__class__(affected_sop_class_uid=FIND, data_set=b"\x08\x00\x05")
    response = success_of(pair.requestor.request(request, ctx))
    assert response.status == 0xC000
    nothing = stream.message.__class__(affected_sop_class_uid=FIND)
    assert success_of(pair.requestor.request(nothing, ctx)).status == 0xA900


def test_the_worklist_is_a_find_of_its_own_class(pair: Pair, archive: Archive) -> None:
    """PS3.4 K.4.1.1: the hook knows by the context what was asked."""
    archive.matches = [query(PatientID="1")]
    scu = pair.requestor.get_scu(MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS)
    assert len(read(scu(query()))) == 2
    assert archive.asked[0][0].sop_class == MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS


# -- C-MOVE -----------------------------------------------------------------------------------------


@pytest.fixture
def destination(pair: Pair, archive: Archive) -> Receiver:
    """An AE that the archive knows as DEST."""
    ae = Receiver("DEST")
    archive.destinations["DEST"] = pair.network.add(ae)
    return ae


def counters(response: Response) -> tuple[Any, ...]:
    return tuple(
        getattr(response, f"number_of_{name}_suboperations", None)
        for name in ("remaining", "completed", "failed", "warning")
    )


def test_move_sends_all_to_the_destination_as_they_are(
    pair: Pair, archive: Archive, destination: Receiver
) -> None:
    """PS3.4 C.4.2: contexts planned from the instances; counters exact in each Pending response."""
    items = read(pair.requestor.get_scu(MOVE)(query(), "DEST"))
    assert [int(status) for status, _ in items] == [0xFF00, 0xFF00, 0xFF00, 0x0000]
    assert [counters(response) for _, response in items] == [
        (3, 1, 0, 0),
        (2, 2, 0, 0),
        (1, 3, 0, 0),
        (None, 4, 0, 0),
    ]
    kept = {str(ds.SOPInstanceUID): ctx.supported_ts for ctx, ds in destination.received}
    for file in FILES:
        sent = dcmread(file)
        assert kept[str(sent.SOPInstanceUID)] == sent.file_meta.TransferSyntaxUID


def test_an_unknown_destination_is_a801(pair: Pair) -> None:
    """PS3.4 Table C.4-2; the comment says what is missing."""
    ((status, _),) = read(pair.requestor.get_scu(MOVE)(query(), "NOWHERE"))
    assert int(status) == 0xA801
    assert "NOWHERE" in status.comment


def test_nothing_to_move_is_success(pair: Pair, archive: Archive, destination: Receiver) -> None:
    """The ancestor carried on without a destination."""
    archive.sources = []
    ((status, response),) = read(pair.requestor.get_scu(MOVE)(query(), "DEST"))
    assert (int(status), counters(response)) == (0x0000, (None, 0, 0, 0))


def test_a_partial_failure_is_a_warning_with_a_list(
    pair: Pair, archive: Archive, destination: Receiver, tmp_path: Path
) -> None:
    """PS3.4 C.4.2.1.6: B000, and the UIDs of what failed; the rest is not stopped by it."""
    mr = dcmread(FILES[1])
    destination.answers[str(mr.SOPClassUID)] = 0xA700
    status, response = read(pair.requestor.get_scu(MOVE)(query(), "DEST"))[-1]
    assert (int(status), counters(response)) == (0xB000, (None, 3, 1, 0))
    assert mr.SOPInstanceUID.encode() in bytes(response.data_set)


def test_when_all_fails_the_move_failed(
    pair: Pair, archive: Archive, destination: Receiver
) -> None:
    """PS3.4 Table C.4-2: A702."""
    destination.max_associations = 0
    status, response = read(pair.requestor.get_scu(MOVE)(query(), "DEST"))[-1]
    assert (int(status), counters(response)) == (0xA702, (None, 0, 4, 0))


def test_a_file_that_is_gone_fails_alone(
    pair: Pair, archive: Archive, destination: Receiver, tmp_path: Path
) -> None:
    """Deleted behind our back: counted, the others delivered."""
    gone = Instance.of(FILES[0])
    archive.sources = [
        Instance(gone.sop_class_uid, gone.sop_instance_uid, gone.transfer_syntax, tmp_path / "x"),
        *FILES[1:],
    ]
    status, response = read(pair.requestor.get_scu(MOVE)(query(), "DEST"))[-1]
    assert (int(status), counters(response)) == (0xB000, (None, 3, 1, 0))


def test_move_to_an_ae_of_ours_tells_what_arrived(pair: Pair, archive: Archive) -> None:
    """PS3.7 9.3.1.1: by Move Originator AE title and message ID."""
    scu = pair.scu
    archive.destinations["SCU"] = pair.network.remote(scu)
    stream = pair.requestor.get_scu(MOVE)(query(), scu)
    read(stream)
    assert {each.sop_instance_uid for each in stream.arrivals} == {
        str(dcmread(file).SOPInstanceUID) for file in FILES
    }


def test_a_move_that_is_cancelled_stops_with_its_counters(
    pair: Pair, archive: Archive, destination: Receiver
) -> None:
    """PS3.4 C.4.2.3.1: FE00; no further sub-operation begins, and the one under way is counted."""
    waiting: defer.Deferred[int] = defer.Deferred()
    destination.on_receive_store = lambda *_: waiting  # type: ignore[method-assign,assignment]
    stream = pair.requestor.get_scu(MOVE)(query(), "DEST")
    pair.advance(11)  # a Pending response tells that it goes on
    stream.cancel()
    pair.advance(0)
    waiting.callback(0)
    pair.advance(0)
    status, response = read(stream)[-1]
    assert (int(status), counters(response)) == (0xFE00, (3, 1, 0, 0))


# -- C-GET ------------------------------------------------------------------------------------------


def test_get_brings_instances_on_the_same_association(pair: Pair, archive: Archive) -> None:
    """PS3.4 C.4.3: each on its own context, with its own transfer syntax, through on_receive_store."""
    archive.sources = FILES[:3]
    items = read(pair.requestor.get_scu(GET)(query()))
    scu = pair.scu
    assert isinstance(scu, Receiver)
    assert [str(ds.SOPInstanceUID) for _, ds in scu.received] == [
        str(dcmread(file).SOPInstanceUID) for file in FILES[:3]
    ]
    assert [ctx.sop_class for ctx, _ in scu.received] == [
        str(dcmread(file).SOPClassUID) for file in FILES[:3]
    ]
    assert [ctx and ctx.sop_class for ctx, _ in items][:-1] == [
        ctx.sop_class for ctx, _ in scu.received
    ]
    assert items[-1] == (None, Status(0))


def test_what_the_requestor_cannot_take_is_counted_and_listed(pair: Pair, archive: Archive) -> None:
    """PS3.4 C.4.3.1.4: JPEG 2000 was not proposed."""
    stream = pair.requestor.get_scu(GET)(query())
    assert int(read(stream)[-1][1]) == 0xB000
    assert counters(stream.final) == (None, 3, 1, 0)
    assert dcmread(FILES[3]).SOPInstanceUID.encode() in bytes(stream.final.data_set)


def test_another_form_of_an_instance_is_sent_where_there_is_one(
    pair: Pair, archive: Archive
) -> None:
    """AE.transcode is asked for what the requestor cannot take."""
    archive.sources = [FILES[3]]
    plain = dcmread(FILES[0])
    archive.transcode = lambda asce, instance: Instance.of(plain)  # type: ignore[method-assign]
    assert int(read(pair.requestor.get_scu(GET)(query()))[-1][1]) == 0x0000


def test_the_instance_after_the_next_is_not_begun(pair: Pair, archive: Archive) -> None:
    """One is on its way, one is at hand; a C-CANCEL forgets that one."""
    begun: list[str] = []

    def sources() -> Iterator[str]:
        for each in FILES * 3:
            begun.append(each)
            yield each

    archive.on_receive_get = lambda context, ds: (len(FILES) * 3, sources())  # type: ignore[method-assign]
    waiting: list[defer.Deferred[int]] = []

    def keep(context: PContextDef, ds: BinaryIO) -> defer.Deferred[int]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    pair.scu.on_receive_store = keep  # type: ignore[method-assign]
    stream = pair.requestor.get_scu(GET)(query())
    assert (len(waiting), len(begun)) == (1, 2)
    waiting[0].callback(0)
    assert (len(waiting), len(begun)) == (2, 3)
    stream.cancel()
    waiting[1].callback(0)
    assert success_of(stream.done) == 0xFE00
    assert (len(waiting), len(begun)) == (2, 3)
    assert len(read(stream)) == 3  # what was sent before the C-CANCEL, and the status


def test_an_instance_is_open_while_it_is_read(pair: Pair, archive: Archive) -> None:
    archive.sources = FILES[:2]

    async def go() -> list[Any]:
        files = []
        async for ctx, instance in pair.requestor.get_scu(GET)(query()):
            if ctx is not None:
                assert dcmread(instance).SOPClassUID == ctx.sop_class
                files.append(instance)
        return files

    assert [file.closed for file in success_of(defer.Deferred.fromCoroutine(go()))] == [True, True]


def test_an_operation_needs_an_accepted_context(pair: Pair) -> None:
    """The error tells what was proposed and what the peer said."""
    with pytest.raises(ClassNotSupportedError, match="was not proposed"):
        pair.requestor.get_scu("1.2.3")


def test_a_query_fails_with_what_ended_the_association(pair: Pair, archive: Archive) -> None:
    forever: defer.Deferred[Any] = defer.Deferred()
    archive.matches = lambda: forever
    stream = pair.requestor.get_scu(FIND)(query())
    pair.acceptor.abort()
    pair.wire.run()
    assert "aborted by the peer" in str(failure_of(stream.done))
