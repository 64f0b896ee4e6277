"""A machine that uses associations at random, and checks that they keep their promises.

Three application entities, in memory. A run is a list of steps: requests of all kinds, readers that stop half way,
handlers that take their time or fail, cancellations, aborts, releases, lost connections, and time. After the steps
nobody does anything any more, and only time passes. Then every Deferred has fired, and nothing is left.

``NETDICOM_TX_MACHINE_EXAMPLES`` is the number of runs, and ``--hypothesis-seed`` makes them the same again.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import provider

from netdicom_tx import (
    AE,
    Association,
    AssociationPool,
    DCMTimeoutError,
    NetDICOMError,
    PContextDef,
    Timeouts,
    Window,
    uids,
)
from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.sopclass import (
    Instance,
    qr_find_scp,
    qr_find_scu,
    qr_get_scp,
    qr_get_scu,
    qr_move_scp,
    qr_move_scu,
    storage_scp,
    storage_scu,
    verification_scp,
    verification_scu,
)
from netdicom_tx.testing import Network

EXAMPLES = int(os.environ.get("NETDICOM_TX_MACHINE_EXAMPLES", "1000"))
TIMEOUTS = Timeouts(
    connect=2, artim=3, associate=4, response=10, total=40, send=8, release=3, idle=20
)
#: Seconds within which all is over when nobody does anything any more.
HORIZON = 200

CT, ECHO = uids.CTImageStorage, uids.VERIFICATION_SOP_CLASS
FIND, GET, MOVE = (
    uids.STUDY_ROOT_FIND_SOP_CLASS,
    uids.STUDY_ROOT_GET_SOP_CLASS,
    uids.STUDY_ROOT_MOVE_SOP_CLASS,
)
EXPLICIT = uids.EXPLICIT_VR_LITTLE_ENDIAN
CONTEXTS = {uid: [EXPLICIT] for uid in (ECHO, CT, FIND, GET, MOVE)}


def image(number: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.PatientID = CT, f"1.2.3.{number}", "x" * 64
    return ds


IMAGES = [image(number) for number in range(4)]
ENCODED = [encode(each, EXPLICIT) for each in IMAGES]
FILES = [
    part10_header(CT, str(each.SOPInstanceUID), EXPLICIT) + octets
    for each, octets in zip(IMAGES, ENCODED, strict=True)
]


def asked(number: int) -> Dataset:
    """The identifier of a query that has so many matches."""
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.PatientID = "STUDY", str(number)
    return ds


def close(item: Any) -> None:
    """What a reader does that goes away with the file of an instance."""
    if hasattr(item[1], "close"):
        item[1].close()


class FaultError(Exception):
    """Raised by handlers and readers of this test."""


class Broken(BytesIO):
    """A Part 10 file whose second half cannot be read."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > len(self.getvalue()) - 40:
            raise OSError("cannot be read")
        return super().read(20)


class Bounded(Clock):
    """A clock on which what makes itself be called again and again, in no time, is an error."""

    _now = 0.0
    _calls = 0

    def callLater(self, when: float, *what: Any, **options: Any) -> DelayedCall:
        if self.seconds() > self._now:
            self._now, self._calls = self.seconds(), 0
        self._calls += 1
        assert self._calls < 100_000, f"still {what} at {self._now}"
        return super().callLater(when, *what, **options)


class LowWater(Association):
    """An association whose streams hold the peer up after a few unread items."""

    def request_many(self, *arguments: Any, **options: Any) -> Any:
        return super().request_many(*arguments, **{**options, "high_water": 8})


class Slow(AE):
    """Serves everything, at the pace and with the results that the steps of a run say."""

    association_class = LowWater

    def __init__(self, world: World, title: str, window: Window) -> None:
        super().__init__(title, timeouts=TIMEOUTS, window=window)
        self.world = world
        for service in (verification_scp, qr_find_scp, qr_get_scp, qr_move_scp, storage_scp):
            self.add_scp(service, [uid for uid in service.sop_classes if uid in CONTEXTS])
        self.add_scu(qr_get_scu, [GET])  # its sub-operations need the role of an SCP

    async def on_association_request(self, asce: Any, assoc: Any) -> None:
        await self.world.pace()

    async def on_receive_echo(self, context: PContextDef) -> int:
        await self.world.pace()
        return 0

    async def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
        ds.read(100)
        await self.world.pace()
        ds.read()
        return self.world.status

    def on_receive_find(self, context: PContextDef, ds: Dataset) -> Any:
        number = int(ds.PatientID)
        return self._matches(number) if number % 2 else (ENCODED[0] for _ in range(number))

    async def _matches(self, number: int) -> AsyncIterator[bytes]:
        for _ in range(number):
            await self.world.pace()
            yield ENCODED[0]

    async def on_receive_get(self, context: PContextDef, ds: Dataset) -> Any:
        await self.world.pace()
        return int(ds.PatientID), self._instances(int(ds.PatientID))

    async def on_receive_move(self, context: PContextDef, ds: Dataset, destination: str) -> Any:
        remote, *rest = self.world.destination(destination), *await self.on_receive_get(context, ds)
        return remote, *rest

    def _instances(self, number: int) -> Iterator[Instance]:
        return (Instance.of(IMAGES[each % 4]) for each in range(number))


Step = tuple[str, int, int]


class World:
    """A run: what there is, and what the steps do to it."""

    def __init__(self, window: int) -> None:
        self._files = open_files()
        self.is_slow = False
        self.takes_time = False  # somebody has a reason to answer late
        self.status = 0
        self.waiting: list[defer.Deferred[None]] = []  # handlers
        self.results: list[tuple[str, defer.Deferred[Any]]] = []
        self.fired: list[int] = []
        self.problems: list[str] = []
        self.asces: list[Association] = []
        self.streams: list[Any] = []
        self.paused: list[Association] = []
        limits = Window(window, window)
        self.entities = [Slow(self, title, limits) for title in ("A", "B", "C")]
        self.network = Network(*self.entities, clock=Bounded())
        self.pool = AssociationPool(self.entities[0], limit=1, idle=5, attempts=2)

    def destination(self, title: str) -> Any:
        return next((self.network.remote(e) for e in self.entities if e.ae_title == title), None)

    # -- the pace of handlers ------------------------------------------------------------------

    async def pace(self) -> None:
        if self.is_slow:
            waiting: defer.Deferred[None] = defer.Deferred()
            self.waiting.append(waiting)
            await waiting

    # -- what is watched -------------------------------------------------------------------------

    def watch(self, what: str, deferred: defer.Deferred[Any]) -> None:
        """Note whether it fires, and with what."""
        index = len(self.results)
        self.results.append((what, deferred))
        self.fired.append(0)

        def fired(result: object) -> None:
            self.fired[index] += 1

        def failed(failure: Any) -> None:
            error = failure.value
            if not isinstance(error, NetDICOMError | defer.CancelledError | FaultError | OSError):
                self.problems.append(f"{what} failed: {failure.getTraceback()}")

        deferred.addErrback(failed)
        deferred.addBoth(fired)

    def run(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        self.watch(what, defer.Deferred.fromCoroutine(work))

    # -- steps -----------------------------------------------------------------------------------

    def do(self, step: Step) -> None:
        name, one, other = step
        getattr(self, f"do_{name}")(one, other)
        self.network.advance(0)
        if not self.takes_time:
            # Everybody answers at once, so nothing that anybody waits for takes any time.
            self.problems.extend(
                f"{what} is held up by nobody"
                for (what, _), fired in zip(self.results, self.fired, strict=True)
                if not fired and what != "closed"
            )

    def asce(self, one: int) -> Association | None:
        """One of the associations, mostly one that is open."""
        self.asces = [each for each in self.asces if each.error is None or one % 8 == 0]
        return self.asces[one % len(self.asces)] if self.asces else None

    def stream(self, one: int) -> Any:
        return self.streams[one % len(self.streams)] if self.streams else None

    def ask(self, asce: Association, kind: int, number: int) -> Any:
        """Begin a request of a kind; the number is how many matches it has, say."""
        context = {ctx.sop_class: ctx for ctx in asce.accepted_contexts.values()}
        match kind % 7:
            case 0 | 1:
                return verification_scu(asce, context[ECHO])
            case 2:
                return storage_scu(asce, context[CT], IMAGES[number % 4])
            case 3:
                kind_of_file = Broken if number % 8 == 7 else BytesIO
                return storage_scu(asce, context[CT], kind_of_file(FILES[number % 4]))
            case 4:
                return qr_find_scu(
                    asce, context[FIND], asked(number % 4 if number < 128 else number // 4)
                )
            case 5:
                return qr_get_scu(
                    asce, context[GET], asked(number % 4 if number < 128 else number // 8)
                )
            case _:
                title = ("A", "C", "X")[number % 3]
                return qr_move_scu(asce, context[MOVE], asked(number % 8), title)

    def request(self, asce: Association, kind: int, number: int) -> None:
        begun = self.ask(asce, kind, number)
        if isinstance(begun, defer.Deferred):
            self.watch("request", begun)
        else:
            self.streams.append(begun)

    def do_open(self, one: int, other: int) -> None:
        caller, called = self.entities[one % 3], self.entities[other % 2]
        asked = caller.request_association(self.network.remote(called), CONTEXTS)
        asked.addCallback(self._opened)
        self.watch("open", asked)

    def _opened(self, asce: Association) -> None:
        self.asces.append(asce)
        self.watch("closed", asce.closed())

    def do_acceptor(self, one: int, other: int) -> None:
        """The acceptor's end is used as well."""
        found = [each for each in self.entities[one % 2].associations if not each.is_requestor]
        if found and not any(found[0] is each for each in self.asces):
            self.asces.append(found[0])

    def do_request(self, one: int, other: int) -> None:
        asce = self.asce(one)
        if asce is not None and asce.accepted_contexts:
            if not asce.is_requestor:
                return
            self.request(asce, one // 8, other)

    def do_requests(self, one: int, other: int) -> None:
        for each in range(other % 12):
            self.do_request(one + 8 * each, other)

    def do_block(self, one: int, other: int) -> None:
        """What a program does in ``async with``."""
        self.run("block", self._block(self.entities[one % 3], self.entities[0], one // 4, other))

    async def _block(self, caller: AE, called: AE, how: int, number: int) -> None:
        asked = caller.request_association(self.network.remote(called), CONTEXTS)
        async with await asked as asce:
            await self._use(asce, how, number)

    def do_pool(self, one: int, other: int) -> None:
        self.run("pool", self._borrow(self.entities[1 + one % 2], one // 2, other))

    async def _borrow(self, called: AE, how: int, number: int) -> None:
        async with self.pool.association(self.network.remote(called), CONTEXTS) as asce:
            await self._use(asce, how, number)

    async def _use(self, asce: Association, how: int, number: int) -> None:
        begun = self.ask(asce, how // 6, number)
        if isinstance(begun, defer.Deferred):
            await begun
            return
        await self._read(asce, begun, how % 6)

    async def _read(self, asce: Association, stream: Any, how: int) -> None:
        context = {ctx.sop_class: ctx for ctx in asce.accepted_contexts.values()}
        if how == 0:
            async with stream:
                async for _ in stream:
                    break
            return
        async for item in stream:
            try:
                match how:
                    case 1:
                        break
                    case 2:
                        raise FaultError("by the reader")
                    case 3:
                        await verification_scu(asce, context[ECHO])
                    case 4:
                        async with qr_find_scu(asce, context[FIND], asked(2)) as nested:
                            [each async for each in nested]
            finally:
                close(item)

    def do_read(self, one: int, other: int) -> None:
        asce, stream = self.asce(one), self.stream(one)
        if stream is not None and asce is not None and asce.accepted_contexts:
            self.run("read", self._read(asce, stream, other % 6))

    def do_next(self, one: int, other: int) -> None:
        stream = self.stream(one)
        if stream is not None:
            self.run("next", self._next(stream))

    async def _next(self, stream: Any) -> None:
        async for item in stream:
            close(item)
            return

    def do_forget_stream(self, one: int, other: int) -> None:
        if self.streams:
            del self.streams[one % len(self.streams)]
            if other % 2:
                gc.collect(0)

    def do_done(self, one: int, other: int) -> None:
        stream = self.stream(one)
        if stream is not None:
            self.watch("done", stream.done)

    def do_cancel_stream(self, one: int, other: int) -> None:
        stream = self.stream(one)
        if stream is not None:
            stream.cancel()

    def do_cancel(self, one: int, other: int) -> None:
        pending = [
            deferred
            for (_, deferred), fired in zip(self.results, self.fired, strict=True)
            if not fired
        ]
        if pending:
            pending[-1 - one % len(pending)].cancel()

    def do_slow(self, one: int, other: int) -> None:
        self.is_slow = one % 3 != 0
        self.takes_time |= self.is_slow
        self.status = (0, 0, 0xB000, 0xA700)[other % 4]

    def do_handler(self, one: int, other: int) -> None:
        """A handler that waits goes on, or fails."""
        for _ in range(1 + other // 64):
            waiting = [each for each in self.waiting if not each.called]
            if not waiting:
                return
            handler = waiting[one % len(waiting)]
            if other % 8:
                handler.callback(None)
            else:
                handler.errback(FaultError("by a handler"))

    def do_pause(self, one: int, other: int) -> None:
        asce = self.asce(one)
        if asce is not None and asce.is_open:
            asce.pause(self)
            self.takes_time = True
            self.paused.append(asce)

    def do_resume(self, one: int, other: int) -> None:
        if self.paused:
            self.paused.pop().resume(self)

    def do_end(self, one: int, other: int) -> None:
        asce = self.asce(one)
        if asce is None:
            return
        # The requestor may have a stream that is unread, so its operation does not end.
        self.takes_time |= not asce.is_requestor
        match other % 8:
            case 0 | 1 | 2:
                self.watch("release", asce.release())
            case 3:
                self.watch("release", asce.release())
                self.watch("release", asce.release())
            case 4:
                asce.abort()
            case 5 | 6:
                asce.finish()
            case _:
                asce.drop()

    def do_lose(self, one: int, other: int) -> None:
        """The network loses a connection."""
        ends = self.network.connections
        if ends:
            ends[one % len(ends)][other % 2].abortConnection()

    def do_advance(self, one: int, other: int) -> None:
        self.network.advance((0.1, 1, 3, 5, 8, 12)[one % 6])

    # -- the end -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Only time passes; then nothing is left."""
        while self.paused:
            self.paused.pop().resume(self)
        self.network.advance(HORIZON)
        for (what, _), fired in zip(self.results, self.fired, strict=True):
            if fired != 1:
                self.problems.append(f"{what} has fired {fired} times")
        if not all(each.called for each in self.waiting):
            self.problems.append("a handler still waits")
        for call in self.network.clock.getDelayedCalls():
            self.problems.append(f"still to be called: {call}")
        for each in self.entities:
            self.problems.extend(f"still there: {asce!r}" for asce in each.associations)
        if self.pool.size:
            self.problems.append(f"the pool has {self.pool.size} associations")
        # Streams that nobody has read have kept files open as long as somebody had them.
        self.streams.clear()
        self.results.clear()
        self.asces.clear()
        self.waiting.clear()
        GARBAGE.collect()
        self.network.advance(0)
        self.problems.extend(f"open: {each}" for each in open_files() if each not in self._files)
        self.network.close()


def open_files() -> list[str]:
    """The files that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(each)
        except FileNotFoundError:  # of the directory that was read
            continue
        if target.startswith("/") and not target.startswith(("/dev", "/proc")):
            found.append(target)
    return found


class Collector:
    """Collects garbage after each run, but does not look at what Hypothesis keeps again and again."""

    def __init__(self) -> None:
        self._runs = 0

    def begin(self) -> None:
        """Before a run: nothing is there but what stays. What is frozen is never collected."""
        self._runs += 1
        if self._runs % 20 == 0:
            gc.collect()
            gc.freeze()

    def collect(self) -> None:
        gc.collect()


GARBAGE = Collector()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """What has been logged as an error or was not closed, and is not one of this test's."""
    seen: list[str] = []
    monkeypatch.setattr(
        "sys.unraisablehook", lambda what: seen.append(f"{what.exc_value!r} in {what.object!r}")
    )

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            if failure is None:
                seen.append(str(event["log_format"]))
            elif not failure.check(FaultError, DCMTimeoutError):
                seen.append(failure.getTraceback())

    def taken() -> list[str]:
        found = seen[:]
        seen.clear()
        return found

    globalLogPublisher.addObserver(observe)
    gc.collect()
    gc.freeze()
    yield taken
    gc.unfreeze()
    globalLogPublisher.removeObserver(observe)


NAMES = {
    "open": 3,
    "request": 6,
    "requests": 1,
    "block": 3,
    "pool": 2,
    "read": 3,
    "next": 2,
    "forget_stream": 2,
    "done": 1,
    "cancel_stream": 1,
    "cancel": 3,
    "slow": 2,
    "handler": 4,
    "acceptor": 1,
    "pause": 1,
    "resume": 1,
    "end": 2,
    "lose": 1,
    "advance": 3,
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from([name for name, weight in NAMES.items() for _ in range(weight)]),
        st.integers(0, 255),
        st.integers(0, 255),
    ),
    min_size=4,
    max_size=30,
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(window=st.sampled_from([1, 1, 2, 8]), steps=STEPS)
@pytest.mark.slow
def test_nothing_is_left_when_time_has_passed(
    logged: Callable[[], list[str]], window: int, steps: list[Step]
) -> None:
    GARBAGE.begin()
    world = World(window)
    world.do(("open", 0, 1))
    for step in steps:
        world.do(step)
    world.finish()
    world.problems += logged()
    assert not world.problems, "\n".join(world.problems)
