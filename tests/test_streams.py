"""Streams whose reader is slow, busy or gone: nothing that waits is without an end, and nothing is lost."""

from __future__ import annotations

import errno
import gc
import tracemalloc
from collections.abc import Coroutine, Iterator
from io import BytesIO
from typing import Any, TypeVar

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.logger import LogEvent, globalLogPublisher

from netdicom_tx import AE, Association, StatusError, Timeouts, Window, storage_scp
from netdicom_tx.exceptions import AssociationAbortedError, DCMTimeoutError, LocalProtocolError
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.streams import HIGH_WATER, ResponseStream, Unread
from netdicom_tx.testing import Pair, failure_of, success_of
from support.serving import Archive, study

_T = TypeVar("_T")
MANY = 4 * HIGH_WATER


class Net:
    """An SCU, an archive with many matches, and the association between them."""

    def __init__(self, window: Window | None = None, timeouts: Timeouts | None = None) -> None:
        window = window or Window(1, 1)
        timeouts = timeouts or Timeouts(send=3600)
        self.scu = AE("SCU", window=window, timeouts=timeouts)
        self.archive = Archive()
        self.archive.window = window
        self.archive.timeouts = Timeouts(send=3600)
        self.archive.matches = [study(PatientID=str(n)) for n in range(MANY)]
        self.pair = Pair(self.scu, self.archive)
        self.asce: Association = success_of(self.scu.associate(self.pair.remote()))

    def start(self, work: Coroutine[Any, Any, _T]) -> defer.Deferred[_T]:
        return defer.Deferred.fromCoroutine(work)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.result(self.start(work))

    def result(self, deferred: defer.Deferred[_T]) -> _T:
        """The result of a Deferred, when all that is under way has been delivered."""
        self.pair.advance(0)
        return success_of(deferred)

    @property
    def is_read(self) -> bool:
        """Whether the requestor reads what the archive sends."""
        return not self.pair.network.connections[-1][0]._is_paused


@pytest.fixture(params=[Window(1, 1), Window(8, 8)], ids=["one at a time", "a window of 8"])
def net(request: pytest.FixtureRequest) -> Net:
    return Net(request.param)


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    found: list[LogEvent] = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


# -- a slow reader ----------------------------------------------------------------------------------


def test_a_slow_reader_slows_the_peer() -> None:
    net = Net()
    stream = net.asce.find(PatientID="")
    assert not net.is_read
    assert len(net.run(_all(stream))) == MANY
    assert net.is_read


async def _all(stream: Any) -> list[Any]:
    return [each async for each in stream]


async def _counted(stream: Any) -> tuple[int, Exception | None]:
    """How many items can be read, and what the reader is told behind them."""
    count = 0
    try:
        async for _ in stream:
            count += 1
    except Exception as error:
        return count, error
    return count, None


def test_the_whole_time_runs_while_nobody_reads() -> None:
    """``total`` is the end of every operation, also of one that nobody reads."""
    net = Net(timeouts=Timeouts(response=60, total=100))
    stream = net.asce.find(PatientID="")
    net.pair.advance(99)
    assert net.asce.is_open
    net.pair.advance(61)
    assert isinstance(net.asce.error, DCMTimeoutError)
    assert net.asce.error.timer == "total"
    assert not net.run(_counted(stream))[0] < HIGH_WATER, "what came before is read"


# -- somebody else waits ----------------------------------------------------------------------------


def test_another_request_is_answered_while_a_stream_is_unread(net: Net) -> None:
    stream = net.asce.find(PatientID="")
    assert net.result(net.asce.echo()) == 0x0000
    assert len(net.run(_all(stream))) == MANY, "and nothing is lost"


def test_each_match_may_be_asked_about_before_the_next(net: Net) -> None:
    async def nested() -> int:
        count = 0
        async for match in net.asce.find(PatientID=""):
            asked = net.asce.find("SERIES", PatientID=match.PatientID)
            async with asked as series:
                await anext(series)
            count += 1
        return count

    net.archive.on_receive_find = (  # type: ignore[method-assign]
        lambda _, ds: [
            study(PatientID=str(n)) for n in range(600 if ds.QueryRetrieveLevel == "STUDY" else 1)
        ]
    )
    assert net.run(nested()) == 600
    assert net.asce.operations == 0


def test_a_release_is_not_held_up(net: Net) -> None:
    async def work() -> list[Any]:
        stream = net.asce.find(PatientID="")
        await net.asce.release()
        return await _all(stream)

    assert len(net.run(work())) == MANY


def test_finish_is_not_held_up(net: Net) -> None:
    stream = net.asce.find(PatientID="")
    net.asce.finish()
    net.pair.advance(0)
    assert not net.archive.associations
    assert stream.final is not None


@pytest.mark.parametrize("number", [0, 1, 300])
def test_leaving_the_loop_lets_the_association_end(net: Net, number: int) -> None:
    async def work() -> None:
        async with net.asce as asce:
            seen = 0
            async for _ in asce.find(PatientID=""):
                seen += 1
                if seen > number:
                    break

    done = net.start(work())
    gc.collect()
    net.pair.advance(0)
    net.result(done)
    assert not net.archive.associations


def test_one_unread_stream_does_not_hold_up_another(net: Net) -> None:
    unread = net.asce.find(PatientID="")
    assert len(net.run(_all(net.asce.find(PatientID="")))) == MANY
    assert len(net.run(_all(unread))) == MANY


def test_back_pressure_returns_when_nobody_else_waits() -> None:
    net = Net(Window(8, 8))
    net.archive.matches = (study(PatientID=str(n)) for n in range(100_000))
    stream = net.asce.find(PatientID="")
    assert net.result(net.asce.echo()) == 0x0000
    assert not net.is_read
    stream.cancel()


# -- a reader that is gone --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [10, MANY])
def test_a_dropped_stream_is_noticed_and_cancelled(
    net: Net, events: list[LogEvent], number: int
) -> None:
    net.archive.matches = (study(PatientID=str(n)) for n in range(number + 10_000))

    async def first() -> str:
        return str((await anext(net.asce.find(PatientID=""))).PatientID)

    assert net.run(first()) == "0"
    gc.collect()
    net.pair.advance(0)
    assert net.asce.operations == 0
    assert any("was dropped before" in str(each.get("log_format")) for each in events)
    assert net.result(net.asce.echo()) == 0x0000


def test_a_reader_that_nobody_holds_is_not_lost() -> None:
    """A coroutine that waits for an item keeps its stream, even if all others have dropped it."""
    net = Net()
    later: defer.Deferred[list[Dataset]] = defer.Deferred()
    net.archive.on_receive_find = lambda *_: later  # type: ignore[method-assign]
    seen: list[str] = []

    async def work() -> None:
        async for match in net.asce.find(PatientID=""):
            seen.append(match.PatientID)

    net.start(work())
    gc.collect()
    net.pair.advance(0)
    later.callback([study(PatientID="1")])
    assert seen == ["1"]


def test_a_cancelled_reader_leaves_the_association_usable(net: Net) -> None:
    later: defer.Deferred[list[Dataset]] = defer.Deferred()
    net.archive.on_receive_find = lambda *_: later  # type: ignore[method-assign]
    reading = net.start(_all(net.asce.find(PatientID="")))
    reading.cancel()
    assert isinstance(failure_of(reading), defer.CancelledError)
    net.pair.advance(0)
    assert net.result(net.asce.echo()) == 0x0000


# -- C-GET ------------------------------------------------------------------------------------------

FILE = str(get_testdata_file("CT_small.dcm"))


def copies(number: int) -> Iterator[Dataset]:
    data_set = dcmread(FILE)
    for each in range(number):
        data_set.SOPInstanceUID = f"1.2.3.{each}"
        yield data_set


def retrieve(net: Net, number: int) -> Any:
    net.archive.on_receive_get = lambda *_: (number, copies(number))  # type: ignore[method-assign]
    return net.asce.get(StudyInstanceUID="1.2.3")


def test_unread_instances_do_not_hold_up_a_request(net: Net) -> None:
    stream = retrieve(net, 40)
    assert net.result(net.asce.echo()) == 0x0000
    assert len(net.run(_all(stream))) == 40


def test_too_many_unread_instances_cancel_the_retrieve() -> None:
    """Each is an open file. What was kept is read, then the reader is told; nothing was answered Success and lost."""
    net = Net()
    stream = retrieve(net, 400)
    assert net.result(net.asce.echo()) == 0x0000
    kept, error = net.run(_counted(stream))
    assert isinstance(error, LocalProtocolError)
    assert "C-GET was cancelled" in str(error)
    assert kept >= ResponseStream.most_unread
    assert stream.final.number_of_completed_suboperations <= kept


@pytest.mark.parametrize("number", [3, 40])
def test_the_files_of_a_dropped_retrieve_are_closed(net: Net, number: int) -> None:
    """Under -W error a file that is left to the garbage collector fails the test."""
    retrieve(net, number)
    gc.collect()
    net.pair.advance(0)
    assert net.asce.operations == 0
    assert net.result(net.asce.echo()) == 0x0000


def test_an_instance_that_cannot_be_handed_over_is_a_failure_for_the_peer(
    net: Net, events: list[LogEvent]
) -> None:
    """PS3.4 C.4.3.3.1: it is counted and listed; Success for it would lose it."""

    class Receiver(AE):
        def on_receive_store(self, context: PContextDef, ds: Any) -> int:
            data_set = dcmread(ds)
            if int(str(data_set.SOPInstanceUID).rpartition(".")[2]) % 2:
                ds.close()
            return 0x0000

    net.scu = Receiver("SCU", window=net.scu.window).add_scp(storage_scp)
    net.pair = Pair(net.scu, net.archive)
    net.asce = success_of(net.scu.associate(net.pair.remote()))
    stream = retrieve(net, 6)
    assert len(net.run(_all(stream))) == 3
    final: Any = stream.final
    assert (final.status, final.number_of_completed_suboperations) == (0xB000, 3)
    assert final.number_of_failed_suboperations == 3
    assert net.result(net.asce.echo()) == 0x0000
    assert net.asce.operations == 0
    assert sum("cannot be handed" in str(each.get("log_format")) for each in events) == 3


# -- memory -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hundred_thousand_unread_matches_take_little_memory() -> None:
    net = Net()
    request = net.asce.find(PatientID="")._responses.message
    unread = Unread(lambda _: None, HIGH_WATER)
    tracemalloc.start()
    try:
        for _ in range(100_000):
            unread.put(request.response(0xFF00, b"x" * 200))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(unread) == 100_000
    assert taken < 16 << 20
    unread.drop_all()


def test_what_is_unread_is_read_in_order_from_memory_and_file() -> None:
    dropped: list[Any] = []
    unread = Unread(dropped.append, 3)
    for number in range(10):
        unread.put(number)
    assert [unread.pop() for _ in range(7)] == list(range(7))
    for number in range(10, 13):
        unread.put(number)
    assert [unread.pop() for _ in range(len(unread))] == list(range(7, 13))
    assert (len(unread), unread.octets) == (0, 0)
    with pytest.raises(IndexError):
        unread.pop()


def test_what_no_file_can_hold_is_dropped_one_by_one() -> None:
    dropped: list[Any] = []
    unread = Unread(dropped.append, None)
    for number in range(10):
        unread.put(number)
    unread.drop_all()
    assert dropped == list(range(10))
    assert len(unread) == 0


def test_too_many_octets_of_responses_cancel_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netdicom_tx.streams.SPILL_LIMIT", 100_000)
    net = Net(Window(8, 8))
    net.archive.matches = (study(PatientID=str(n)) for n in range(100_000))
    stream = net.asce.find(PatientID="")
    net.result(net.asce.release())
    kept, error = net.run(_counted(stream))
    assert isinstance(error, LocalProtocolError)
    assert "C-FIND was cancelled" in str(error)
    assert HIGH_WATER < kept < 2_000


class Full:
    """A temporary file on a disk that is full, or broken."""

    def __init__(self, failing: str) -> None:
        self._failing = failing
        self._file = BytesIO()

    def __getattr__(self, name: str) -> Any:
        if name == self._failing:
            raise OSError(errno.ENOSPC, "no space left")
        return getattr(self._file, name)


@pytest.mark.parametrize(("failing", "least"), [("write", HIGH_WATER), ("read", HIGH_WATER)])
def test_a_disk_that_keeps_nothing_costs_the_query_and_not_the_association(
    monkeypatch: pytest.MonkeyPatch, failing: str, least: int
) -> None:
    monkeypatch.setattr("netdicom_tx.streams.tempfile.TemporaryFile", lambda: Full(failing))
    net = Net(Window(8, 8))
    stream = net.asce.find(PatientID="")
    assert net.result(net.asce.echo()) == 0x0000
    kept, error = net.run(_counted(stream))
    assert isinstance(error, LocalProtocolError)
    assert "no space left" in str(error)
    assert least <= kept < MANY
    assert net.result(net.asce.echo()) == 0x0000


# -- the end is waited for ----------------------------------------------------------------------------


def test_the_end_comes_when_the_reader_has_stopped_half_way(net: Net) -> None:
    """A caller that waits for the end does not wait for a reader that may never come back."""
    stream = net.asce.find(PatientID="")
    net.run(anext(stream))
    assert net.result(stream.done) == 0x0000
    assert len(net.run(_all(stream))) == MANY - 1, "and the reader may come back"


# -- one reason for many ----------------------------------------------------------------------------


def test_each_that_waits_has_an_exception_of_its_own() -> None:
    """One for all would collect the traceback, and the local variables, of each that raises it."""
    net = Net(Window(0, 0))
    never: defer.Deferred[int] = defer.Deferred()
    net.archive.on_receive_echo = lambda *_: never  # type: ignore[method-assign]
    waiting = [net.asce.echo() for _ in range(50)]
    net.asce.abort()
    errors = [failure_of(each) for each in waiting]
    errors += [failure_of(net.asce.echo()) for _ in range(50)]
    assert len({id(each) for each in errors}) == 100
    assert all(isinstance(each, AssociationAbortedError) for each in errors)
    assert {id(each.__cause__) for each in errors} == {id(net.asce.error)}


def test_a_failure_is_told_to_its_reader_once_it_has_read() -> None:
    net = Net()
    net.archive.matches = [study(PatientID="1"), 0xA700]

    async def work() -> None:
        stream = net.asce.find(PatientID="")
        await anext(stream)
        with pytest.raises(StatusError):
            await anext(stream)

    net.run(work())
