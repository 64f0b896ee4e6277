"""Sub-operations begin with the first instance that a hook gives, and hold the hook when the peer is slower."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.error import ConnectionRefusedError

from netdicom_tx import (
    AE,
    AssociationAbortedError,
    PContextDef,
    RemoteAE,
    StatusError,
    Window,
    storage_scp,
)
from netdicom_tx.dimsemessages import Response
from netdicom_tx.dsutils import decode, part10_header
from netdicom_tx.negotiation import NO_WINDOW
from netdicom_tx.sopclass import (
    Instance,
    QueryRetrieveGet,
    qr_get_scp,
    qr_get_scu,
    qr_move_scp,
    qr_move_scu,
    sending,
    store_all,
)
from netdicom_tx.sopclass.retrieving import KEEP_ALIVE
from netdicom_tx.testing import Network, Pair, connected, failure_of, join, success_of
from netdicom_tx.uids import (
    DEFAULT_TRANSFER_SYNTAXES,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
)
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS as GET
from netdicom_tx.uids import STUDY_ROOT_MOVE_SOP_CLASS as MOVE
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT
from support.doubles import logged_failures as logged_failures
from support.doubles import logged_lines as logged_lines

FILES = [str(get_testdata_file(name)) for name in ("CT_small.dcm", "MR_small.dcm")]
MANY = 300
LITTLE = EXPLICIT_VR_LITTLE_ENDIAN


class Keeper(AE):
    """Takes instances; answers when the test lets it."""

    def __init__(
        self, title: str, transfer_syntaxes: Sequence[str] = DEFAULT_TRANSFER_SYNTAXES
    ) -> None:
        super().__init__(title)
        self.received: list[str] = []
        self.answer: Callable[[], Any] = lambda: 0
        self.add_scp(storage_scp, transfer_syntaxes=transfer_syntaxes)

    def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> Any:
        self.received.append(str(dcmread(ds, stop_before_pixels=True).SOPClassUID))
        return self.answer()


class Archive(AE):
    """Gives what the test says."""

    def __init__(self) -> None:
        super().__init__("ARCHIVE")
        self.add_scp(qr_get_scp).add_scp(qr_move_scp)
        self.remote: RemoteAE | None = None
        self.number = MANY
        self.instances: Any = ()

    def on_receive_get(self, context: PContextDef, ds: Dataset) -> Any:
        return self.number, self.instances

    def on_receive_move(self, context: PContextDef, ds: Dataset, destination: str) -> Any:
        return self.remote, self.number, self.instances


class Near:
    """An endpoint of an AE on the wire of a pair."""

    def __init__(self, pair: Pair, ae: AE) -> None:
        self.pair, self.ae = pair, ae
        self.connections = 0
        ae._reactor = pair.clock

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        self.connections += 1
        client = factory.buildProtocol(None)
        join(client, self.acceptor(), self.pair.wire)
        return defer.succeed(client)

    def acceptor(self) -> Any:
        return self.ae.acceptor_factory().buildProtocol(None)


class Retrieve:
    """A retrieve of either kind, with its archive and its receiver."""

    def __init__(self, kind: str, pair: Pair, archive: Archive, keeper: Keeper) -> None:
        self.kind, self.pair, self.archive, self.keeper = kind, pair, archive, keeper
        self.near = Near(pair, keeper)
        archive.remote = RemoteAE("KEEPER", self.near)  # type: ignore[arg-type]

    def start(self, instances: Any) -> Any:
        self.archive.instances = instances
        ds = Dataset()
        ds.QueryRetrieveLevel, ds.StudyInstanceUID = "STUDY", "1.2"
        if self.kind == "get":
            return self.pair.requestor.get_scu(GET)(ds)
        return self.pair.requestor.get_scu(MOVE)(ds, "KEEPER")

    def pending(self, stream: Any) -> tuple[int, int]:
        """Remaining and completed, as the last Pending response has them."""
        last = stream.progress if self.kind == "get" else read(stream)[-1][1]
        return last.number_of_remaining_suboperations, last.number_of_completed_suboperations


def final(stream: Any) -> Any:
    """The final status, when all has been read."""

    async def to_its_end() -> None:
        async for _ in stream:
            pass

    success_of(defer.Deferred.fromCoroutine(to_its_end()))
    return success_of(stream.done)


def read(stream: Any) -> list[Any]:
    """The items that a stream has now."""
    items = [stream.unread.pop() for _ in range(len(stream.unread))]
    return [stream._convert(each) for each in items]


@contextmanager
def retrieving(
    kind: str,
    window: Window = NO_WINDOW,
    transfer_syntaxes: Sequence[str] = DEFAULT_TRANSFER_SYNTAXES,
) -> Iterator[Retrieve]:
    archive, keeper = Archive(), Keeper("KEEPER", transfer_syntaxes)
    archive.window = keeper.window = window
    scu = keeper if kind == "get" else AE("SCU")
    scu.add_scu(qr_get_scu).add_scu(qr_move_scu)
    with connected(scu, archive) as pair:
        yield Retrieve(kind, pair, archive, keeper)


@pytest.fixture(params=["get", "move"])
def retrieve(request: pytest.FixtureRequest) -> Iterator[Retrieve]:
    with retrieving(request.param) as made:
        yield made


def test_an_async_generator_is_sent_from_its_first_item_on(retrieve: Retrieve) -> None:
    """And Pending responses go out while it looks for the next."""
    waits: list[defer.Deferred[None]] = [defer.Deferred() for _ in range(2)]

    async def instances() -> AsyncIterator[str]:
        yield FILES[0]
        for each in waits:
            await each
            yield FILES[1]

    retrieve.archive.number = 3
    stream = retrieve.start(instances())
    assert len(retrieve.keeper.received) == 1
    assert retrieve.pending(stream) == (2, 1)
    retrieve.pair.advance(KEEP_ALIVE)
    assert retrieve.pending(stream) == (2, 1)
    waits[0].callback(None)
    assert len(retrieve.keeper.received) == 2
    retrieve.pair.advance(KEEP_ALIVE)
    assert retrieve.pending(stream) == (1, 2)
    waits[1].callback(None)
    retrieve.pair.advance(0)
    assert final(stream) == 0x0000
    assert len(retrieve.keeper.received) == 3


class NeverReleased(Near):
    """The same, but A-RELEASE-RQ is never answered."""

    def acceptor(self) -> Any:
        protocol = super().acceptor()
        protocol.answer_release = lambda: None
        return protocol


def test_a_destination_that_does_not_agree_to_a_release_holds_up_no_final_response() -> None:
    """As gdcmscu 3.0.21 does, which is the destination of its own C-MOVE and waits for the response first."""
    archive, keeper = Archive(), Keeper("KEEPER")
    with connected(AE("SCU").add_scu(qr_move_scu), archive) as pair:
        retrieve = Retrieve("move", pair, archive, keeper)
        retrieve.archive.remote = RemoteAE("KEEPER", NeverReleased(pair, keeper))  # type: ignore[arg-type]
        stream = retrieve.start([FILES[0]])
        pair.advance(1)
        assert final(stream) == 0x0000
        assert len(keeper.received) == 1


class Late(Near):
    """The same, but nothing listens there at first."""

    refusals = 2

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        if self.refusals:
            self.refusals -= 1
            return defer.fail(ConnectionRefusedError())
        return super().connect(factory)


@pytest.mark.parametrize("refusals", [2, 100])
def test_a_destination_that_does_not_listen_yet_is_called_again(refusals: int) -> None:
    """As gdcmscu 3.0.21, which sends the C-MOVE-RQ first; whether it was quicker than the node was a matter of luck."""
    archive, keeper = Archive(), Keeper("KEEPER")
    with connected(AE("SCU").add_scu(qr_move_scu), archive) as pair:
        retrieve = Retrieve("move", pair, archive, keeper)
        late = Late(pair, keeper)
        late.refusals = refusals
        retrieve.archive.remote = RemoteAE("KEEPER", late)  # type: ignore[arg-type]
        stream = retrieve.start([FILES[0]])
        for _ in range(12):
            pair.advance(0.1)
        assert final(stream) == (0x0000 if refusals == 2 else 0xA702)
        assert len(keeper.received) == (refusals == 2)
        assert late.refusals in (0, 96)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_a_hook_is_not_read_further_than_the_peer_can_follow(retrieve: Retrieve, kind: str) -> None:
    begun: list[int] = []
    answers: list[defer.Deferred[int]] = []

    def generator() -> Iterator[str]:
        for number in range(MANY):
            begun.append(number)
            yield FILES[0]

    async def async_generator() -> AsyncIterator[str]:
        for each in generator():
            yield each

    def later() -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    retrieve.keeper.answer = later
    stream = retrieve.start(generator() if kind == "generator" else async_generator())
    retrieve.pair.advance(5)
    assert len(answers) == 1
    # Of C-GET the one on its way and the next; of C-MOVE what is read ahead besides.
    assert len(begun) <= (2 if retrieve.kind == "get" else 65)
    retrieve.keeper.answer = lambda: 0
    answers[0].callback(0)
    retrieve.pair.advance(0)
    assert final(stream) == 0x0000
    assert len(retrieve.keeper.received) == MANY


def told(stream: Any) -> list[int]:
    """The completed sub-operations of each Pending response, when all has been read."""
    completed: list[int] = []

    async def to_its_end() -> None:
        async for _, response in stream:
            if response.status == 0xFF00:
                completed.append(response.number_of_completed_suboperations)

    success_of(defer.Deferred.fromCoroutine(to_its_end()))
    return completed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "step"), [(3, 1), (100, 1), (199, 1), (200, 2), (1000, 10)], ids=str
)
def test_a_pending_response_tells_of_each_hundredth_part(number: int, step: int) -> None:
    """A study of a thousand images does not need a thousand of them; one for each percent is enough for progress."""
    with retrieving("move") as retrieve:
        retrieve.archive.number = number
        completed = told(retrieve.start([FILES[0]] * number))
    assert completed[0] == 1
    assert {later - earlier for earlier, later in pairwise(completed)} == {step}
    assert number - step <= completed[-1] < number


def test_a_pending_response_goes_out_each_second() -> None:
    """Of a large study over a slow line, whatever part of it has been performed."""
    answers: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    with retrieving("move") as retrieve:
        retrieve.keeper.answer = later
        retrieve.archive.number = 1000
        stream = retrieve.start([FILES[0]] * 1000)
        for _ in range(9):
            retrieve.pair.advance(0.25)
            answers[-1].callback(0)
            retrieve.pair.advance(0)
        completed = [response.number_of_completed_suboperations for _, response in read(stream)]
        assert completed == [1, 5, 9]
        retrieve.keeper.answer = lambda: 0
        answers[-1].callback(0)
        retrieve.pair.advance(0)
        assert final(stream) == 0x0000


def test_the_next_instance_is_ready_when_an_answer_comes(
    retrieve: Retrieve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is read while the peer keeps the one before; no further one is."""
    encoded: list[str] = []
    real = Instance.encoded

    def counted(self: Instance, transfer_syntax: str) -> Any:
        encoded.append(self.sop_instance_uid)
        return real(self, transfer_syntax)

    monkeypatch.setattr(Instance, "encoded", counted)
    answers: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    retrieve.keeper.answer = later
    retrieve.archive.number = 9
    stream = retrieve.start([FILES[0]] * 9)
    for number in range(1, 9):
        retrieve.pair.advance(0)
        assert (len(answers), len(encoded)) == (number, number + 1)
        answers[-1].callback(0)
    retrieve.pair.advance(0)
    answers[-1].callback(0)
    retrieve.pair.advance(0)
    assert final(stream) == 0x0000


def test_a_generator_that_blocks_is_sent_from_its_first_item_on(retrieve: Retrieve) -> None:
    """The reactor has a turn between its items: the first is out before the second is found."""
    seen: list[int] = []

    def instances() -> Iterator[str]:
        for _ in range(5):
            seen.append(len(retrieve.keeper.received))
            yield FILES[0]

    retrieve.archive.number = 5
    assert final(retrieve.start(instances())) == 0x0000
    assert seen[:2] == [0, 1]


def test_an_error_of_the_generator_comes_after_what_it_gave(retrieve: Retrieve) -> None:
    async def instances() -> AsyncIterator[str]:
        yield FILES[0]
        yield FILES[1]
        raise StatusError(0xC123, "the tape is torn")

    status = final(retrieve.start(instances()))
    assert (status, status.comment) == (0xC123, "the tape is torn")
    assert len(retrieve.keeper.received) == 2


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_a_cancel_closes_the_generator(retrieve: Retrieve, kind: str) -> None:
    closed: list[bool] = []
    waiting: defer.Deferred[int] = defer.Deferred()

    def generator() -> Iterator[str]:
        try:
            yield from FILES * 100
        finally:
            closed.append(True)

    async def async_generator() -> AsyncIterator[str]:
        try:
            for each in FILES * 100:
                yield each
        finally:
            closed.append(True)

    retrieve.keeper.answer = lambda: waiting
    stream = retrieve.start(generator() if kind == "generator" else async_generator())
    retrieve.pair.advance(0)
    stream.cancel()
    retrieve.pair.advance(0)
    assert closed == [True]
    waiting.callback(0)
    retrieve.pair.advance(0)
    assert final(stream) == 0xFE00


def counts(response: Response) -> tuple[int | None, ...]:
    """Completed, failed, warning and remaining."""
    return (
        response.number_of_completed_suboperations,
        response.number_of_failed_suboperations,
        response.number_of_warning_suboperations,
        response.number_of_remaining_suboperations,
    )


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("form", ["list", "generator"])
@pytest.mark.parametrize("kind", ["get", "move"])
def test_after_a_cancel_the_counts_are_what_happened(kind: str, form: str, window: int) -> None:
    """PS3.4 C.4.2.1.6: what is under way when C-CANCEL comes is answered, and counted, before FE00."""
    waiting: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    with retrieving(kind, Window(window, window)) as retrieve:
        retrieve.archive.number = 100
        retrieve.keeper.answer = later
        sources = FILES * 50
        stream = retrieve.start(sources if form == "list" else iter(sources))
        retrieve.pair.advance(0)
        for done, status in enumerate((0xA700, 0xB000, 0x0000)):
            waiting[done].callback(status)
            retrieve.pair.advance(0)
        under_way = waiting[3:]
        assert len(under_way) == window
        stream.cancel()
        retrieve.pair.advance(0)
        for each in under_way:
            assert not stream.done.called
            each.callback(0)
        retrieve.pair.advance(0)
        assert final(stream) == 0xFE00
        assert len(retrieve.keeper.received) == 3 + window
    assert counts(stream.final) == (1 + window, 1, 1, 97 - window)
    failed = decode(stream.final.data_set, LITTLE)
    assert failed.FailedSOPInstanceUIDList == dcmread(FILES[0]).SOPInstanceUID


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_retrieve_does_not_outlive_its_association(
    retrieve: Retrieve, is_cancelled: bool
) -> None:
    """Nobody is left to hear the counts: what is under way is not waited for."""
    never: defer.Deferred[int] = defer.Deferred()
    retrieve.keeper.answer = lambda: never
    stream = retrieve.start(FILES * 50)
    retrieve.pair.advance(0)
    if is_cancelled:
        stream.cancel()
        retrieve.pair.advance(0)
    retrieve.pair.requestor.abort()
    retrieve.pair.advance(0)
    assert isinstance(failure_of(stream.done), AssociationAbortedError)
    never.callback(0)
    retrieve.pair.advance(0)
    assert len(retrieve.keeper.received) == 1
    assert not any(each.is_open for each in retrieve.archive.associations)


class Moves:
    """That many C-MOVEs of as many requestors to one destination, which does not answer."""

    def __init__(self, number: int, **options: Any) -> None:
        self.archive, self.keeper = Archive(), Keeper("KEEPER")
        for name, value in options.items():
            setattr(self.archive, name, value)
        self.unanswered: defer.Deferred[int] = defer.Deferred()
        self.keeper.answer = lambda: self.unanswered
        self.archive.instances = FILES * 5
        peers = [AE(f"SCU{each}").add_scu(qr_move_scu) for each in range(number)]
        self.network = Network(self.archive, self.keeper, *peers)
        self.archive.remote = self.network.remote(self.keeper)
        remote = self.network.remote(self.archive)
        self.requestors = [success_of(peer.request_association(remote)) for peer in peers]
        ds = Dataset()
        ds.QueryRetrieveLevel, ds.StudyInstanceUID = "STUDY", "1.2"
        self.streams = [each.get_scu(MOVE)(ds, "KEEPER") for each in self.requestors]
        self.network.advance(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.network.close()
        self.unanswered.callback(0)

    def at_the_destination(self) -> int:
        """How many associations there are."""
        return sum(each.is_open for each in self.keeper.associations)


def test_moves_to_one_destination_share_a_few_associations() -> None:
    """Sixty peers that ask at once do not open sixty associations there, and leave none behind."""
    with Moves(60) as moves:
        assert moves.at_the_destination() == 8
        for each in moves.requestors[:30]:
            each.abort()
        moves.network.advance(0)
        # Those of the requestors that are gone were ended at once, and others have their places.
        assert moves.at_the_destination() == 8
        for each in moves.requestors[30:]:
            each.abort()
        moves.network.advance(0)
        assert moves.at_the_destination() == 0
        assert sending._Places._all[moves.archive] == {}
        for stream in moves.streams:
            assert isinstance(failure_of(stream.done), AssociationAbortedError)


def test_a_move_that_waits_for_its_turn_is_served_in_the_end() -> None:
    """Its requestor hears of it meanwhile (PS3.4 C.4.2.3)."""
    with Moves(2, move_associations_per_peer=1) as moves:
        assert moves.at_the_destination() == 1
        moves.network.advance(KEEP_ALIVE + 1)
        assert len(read(moves.streams[1])) == 1
        moves.keeper.answer = lambda: 0
        moves.requestors[0].abort()
        moves.network.advance(0)
        assert len(moves.keeper.received) == 1 + 10
        assert final(moves.streams[1]) == 0x0000


def test_what_is_lost_after_a_cancel_has_failed() -> None:
    """The association to the destination ends under three instances: none is tried again, and none is forgotten."""
    waiting: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    with retrieving("move", Window(3, 3)) as retrieve:
        retrieve.archive.number = 10
        retrieve.keeper.answer = later
        stream = retrieve.start(FILES * 5)
        retrieve.pair.advance(0)
        stream.cancel()
        retrieve.pair.advance(0)
        for each in retrieve.keeper.associations:
            each.abort()
        retrieve.pair.advance(0)
        assert final(stream) == 0xFE00
        assert retrieve.near.connections == 1
        for unheard in waiting:
            unheard.callback(0)
    assert counts(stream.final) == (0, 3, 0, 7)
    assert len(decode(stream.final.data_set, LITTLE).FailedSOPInstanceUIDList) == 3


def test_an_instance_that_is_found_after_a_cancel_is_not_begun(retrieve: Retrieve) -> None:
    """The hook is still looking for it when C-CANCEL comes."""
    retrieve.archive.number = 1
    found: defer.Deferred[str] = defer.Deferred(lambda _: None)
    found.addErrback(lambda _: FILES[0])
    stream = retrieve.start(iter([found]))
    retrieve.pair.advance(0)
    stream.cancel()
    retrieve.pair.advance(0)
    assert final(stream) == 0xFE00
    assert counts(stream.final) == (0, 0, 0, 1)
    assert not retrieve.keeper.received


@pytest.mark.parametrize("status", [0xFE00, 0xFF00, 0xFF01, 0x0001, 0x0107, 0x1234])
def test_a_status_that_c_store_does_not_have_is_a_failure(retrieve: Retrieve, status: int) -> None:
    """PS3.4 C.4.2.1.6, Table B.2-1: it is counted as failed, and its instance is listed."""
    retrieve.archive.number = 2
    answers = [status, 0x0000]
    retrieve.keeper.answer = lambda: answers.pop(0)
    stream = retrieve.start(FILES)
    retrieve.pair.advance(0)
    assert final(stream) == 0xB000
    assert counts(stream.final) == (1, 1, 0, None)
    failed = decode(stream.final.data_set, LITTLE)
    assert failed.FailedSOPInstanceUIDList == dcmread(FILES[0]).SOPInstanceUID


def test_the_first_failures_are_told_one_by_one_and_the_others_counted(
    retrieve: Retrieve, lines: list[str]
) -> None:
    """A destination that refuses fills no log."""
    retrieve.keeper.answer = lambda: 0xA700
    final(retrieve.start(FILES * 4))
    about = [line for line in lines if " failed" in line and line.startswith("C-")]
    assert len(about) == 6
    assert all("failed: " in line for line in about[:5])
    assert about[5].endswith(": 3 more failed")


@pytest.mark.parametrize(
    "given", ["/a/path.dcm", b"octets", Dataset(), 7, None, {"a": 1}], ids=repr
)
def test_one_thing_is_not_taken_for_instances(
    retrieve: Retrieve, given: Any, failures: Any
) -> None:
    """A string would be taken for a list of paths of one character each."""
    assert final(retrieve.start(given)) == 0x0110
    (told,) = failures.texts()
    assert f"a handler returned {type(given).__name__} for the instances" in told


def test_a_hook_that_returns_something_else_is_told_what_is_expected(
    retrieve: Retrieve, failures: Any
) -> None:
    retrieve.archive.on_receive_get = lambda context, ds: FILES  # type: ignore[method-assign]
    retrieve.archive.on_receive_move = lambda context, ds, destination: None  # type: ignore[method-assign]
    assert final(retrieve.start(())) == 0x0110
    (told,) = failures.texts()
    assert "expected (" in told
    assert "number, instances)" in told


@pytest.mark.parametrize("form", [iter, list, tuple])
def test_an_item_may_be_awaited(retrieve: Retrieve, form: Any) -> None:
    retrieve.archive.number = 2
    items = form([defer.succeed(each) for each in FILES])
    assert final(retrieve.start(items)) == 0x0000
    assert len(retrieve.keeper.received) == 2


# -- store_all -------------------------------------------------------------------------------------------


def closed() -> io.BytesIO:
    file = io.BytesIO(Path(FILES[0]).read_bytes())
    file.close()
    return file


BAD: dict[str, Callable[[], Any]] = {
    "a Deferred that fails": lambda: defer.fail(KeyError("no such instance")),
    "a closed file": closed,
    "something else": lambda: 5,
}


@pytest.mark.parametrize("form", [list, iter])
@pytest.mark.parametrize("bad", BAD)
def test_an_item_that_cannot_be_loaded_fails_alone(
    retrieve: Retrieve, bad: str, form: Any, failures: Any
) -> None:
    """Whatever it raises; the others are sent, and the counts say so."""
    retrieve.archive.number = 3
    stream = retrieve.start(form([FILES[0], BAD[bad](), FILES[1]]))
    assert final(stream) == 0xB000
    last = stream.final
    assert last.number_of_completed_suboperations == 2
    assert last.number_of_failed_suboperations == 1
    assert len(retrieve.keeper.received) == 2
    failures.clear()


def test_another_form_that_cannot_be_made_fails_alone(failures: Any) -> None:
    """A decoder may raise anything."""

    def broken(context: Any, instance: Any) -> Any:
        raise RuntimeError("a broken code stream")

    with retrieving("get", transfer_syntaxes=[EXPLICIT_VR_LITTLE_ENDIAN]) as retrieve:
        service = QueryRetrieveGet(on_transcode=broken)
        retrieve.archive.supported_scp = AE("A").add_scp(service).supported_scp
        retrieve.archive.number = 2
        stream = retrieve.start([str(get_testdata_file("JPEG2000.dcm")), FILES[0]])
        assert final(stream) == 0xB000
        assert stream.final.number_of_completed_suboperations == 1
    assert failures.texts() == ["a broken code stream"]


def test_store_all_takes_an_async_iterable_as_it_comes() -> None:
    """Kinds that take turns share an association: what was proposed before is proposed again."""
    keeper, pair = Keeper("KEEPER"), Pair(AE("SCU"), AE("X"))
    near = Near(pair, keeper)
    wait: defer.Deferred[None] = defer.Deferred()

    async def sources() -> AsyncIterator[str]:
        yield FILES[0]
        await wait
        for _ in range(20):
            yield FILES[1]
            yield FILES[0]

    async def go() -> list[int]:
        remote = RemoteAE("KEEPER", near)  # type: ignore[arg-type]
        return [int(each.status or 0) async for each in store_all(pair.scu, remote, sources())]

    done = defer.Deferred.fromCoroutine(go())
    assert len(keeper.received) == 1
    wait.callback(None)
    pair.advance(0)
    assert success_of(done) == [0] * 41
    assert near.connections == 2


# -- what the receiver cannot take, or would misread --------------------------------------------------------

ODD = {
    "text in the tag of a sequence": (0x00120064, "LO", b"Siemens Healthcare Header Anonymizer"),
    "UN in the tag of a sequence": (0x00120064, "UN", b"Siemens Healthcare Header Anonymizer"),
    "a number in the tag of a text": (0x00100030, "US", b"\1\0"),
    "a sequence in the tag of a text": (0x00100030, "SQ", EXPLICIT.items(b"", defined=True)),
}


@pytest.mark.parametrize("kind", ["get", "move"])
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("depth", [0, 2])
def test_what_implicit_vr_would_garble_fails_alone(
    kind: str, odd: str, depth: int, tmp_path: Path, lines: list[str]
) -> None:
    """PS3.5 7.1.3, A.1: the receiver would take the VR from its dictionary."""
    tag, vr, value = ODD[odd]
    element = EXPLICIT.element(tag, vr, value)
    for _ in range(depth):
        element = EXPLICIT.sequence(0x00081140, element)
    path = tmp_path / "odd.dcm"
    path.write_bytes(part10_header(CT_IMAGE_STORAGE, "1.2.3.9", LITTLE) + element)
    with retrieving(kind, transfer_syntaxes=[IMPLICIT_VR_LITTLE_ENDIAN]) as retrieve:
        retrieve.archive.number = 3
        stream = retrieve.start([str(path), *FILES])
        retrieve.pair.advance(0)
        assert final(stream) == 0xB000
        assert len(retrieve.keeper.received) == 2
    assert counts(stream.final) == (2, 1, 0, None)
    assert decode(stream.final.data_set, LITTLE).FailedSOPInstanceUIDList == "1.2.3.9"
    (line,) = [line for line in lines if "failed" in line]
    assert "1.2.3.9" in line
    assert f"({tag >> 16:04X},{tag & 0xFFFF:04X})" in line


NAMES = ("MR_small_bigendian.dcm", "image_dfl.dcm", "MR_small_implicit.dcm", "CT_small.dcm")


@pytest.mark.parametrize("kind", ["get", "move"])
@pytest.mark.parametrize("taken", UNCOMPRESSED_TRANSFER_SYNTAXES)
def test_what_is_not_compressed_reaches_whoever_takes_any_such_syntax(
    kind: str, taken: str
) -> None:
    """PS3.5 10.1."""
    files = [str(get_testdata_file(name)) for name in NAMES]
    # A receiver of big endian must take little endian, too; it is offered both.
    takes = [taken] if taken in DEFAULT_TRANSFER_SYNTAXES else [taken, IMPLICIT_VR_LITTLE_ENDIAN]
    with retrieving(kind, transfer_syntaxes=takes) as retrieve:
        retrieve.archive.number = len(files)
        stream = retrieve.start(files)
        retrieve.pair.advance(0)
        assert final(stream) == 0x0000
        assert len(retrieve.keeper.received) == len(files)
    assert counts(stream.final) == (len(files), 0, 0, None)


def test_a_window_lets_several_instances_of_a_get_be_on_their_way() -> None:
    archive, keeper = Archive(), Keeper("KEEPER").add_scu(qr_get_scu)
    archive.window = keeper.window = Window(4, 4)
    answers: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    async def instances() -> AsyncIterator[str]:
        for _ in range(20):
            yield FILES[0]

    keeper.answer = later
    archive.number, archive.instances = 20, instances()
    with connected(keeper, archive) as pair:
        stream = pair.requestor.get_scu(GET)(Dataset())
        assert len(answers) == 4
        keeper.answer = lambda: 0
        for each in answers:
            each.callback(0)
        assert final(stream) == 0x0000
