"""A jump of the wall clock ends no association, and stops no timer."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, verification_scu
from netdicom_tx.monotonic import use_monotonic_time
from support.doubles import VERIFICATION
from support.node import Node
from support.processes import eventually, succeed

# What a process imports before all else; its wall clock is off by the number of seconds in a file.
_WALL_CLOCK = """
import os, time

def now(real=time.time):
    try:
        with open(os.environ["WALL_CLOCK"]) as file:
            return real() + float(file.read() or 0)
    except FileNotFoundError:
        return real()

time.time = now
"""


@pytest.fixture
def reactor() -> Iterator[Any]:
    """A reactor of its own; the one of the process stays as it is."""
    made = SelectReactor()
    yield made
    made.disconnectAll()


def test_a_reactor_keeps_time_by_the_monotonic_clock(reactor: Any) -> None:
    before = time.monotonic()
    assert reactor.seconds() > before + 1000, "the wall clock counts from 1970"
    use_monotonic_time(reactor)
    assert before <= reactor.seconds() <= time.monotonic()
    use_monotonic_time(reactor)
    assert before <= reactor.seconds() <= time.monotonic()


def test_what_is_scheduled_keeps_its_time_and_its_order(reactor: Any) -> None:
    fired: list[str] = []
    late = reactor.callLater(3600, fired.append, "late")
    reactor.callLater(0, fired.append, "first")
    reactor.timeout()  # moves them to the calls that the reactor has looked at
    reactor.callLater(0, fired.append, "second")
    use_monotonic_time(reactor)
    assert 3500 < late.getTime() - time.monotonic() <= 3600
    assert reactor.timeout() == 0
    reactor.runUntilCurrent()
    assert fired == ["first", "second"]
    assert 3500 < reactor.timeout() <= 3600
    late.reset(0)
    reactor.runUntilCurrent()
    assert fired == ["first", "second", "late"]


def test_a_clock_of_a_test_stays_as_it_is() -> None:
    clock = Clock()
    use_monotonic_time(clock)
    use_monotonic_time(object())
    assert clock.seconds() == 0


@pytest.mark.slow
class WallClockTests(TestCase):
    """``twistd dicom`` while the wall clock is set."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(_WALL_CLOCK)
        self.offset = tmp_path / "offset"
        path = (str(tmp_path / "site"), os.environ.get("PYTHONPATH", ""))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        monkeypatch.setenv("WALL_CLOCK", str(self.offset))
        self.running = Node(tmp_path)
        yield
        self.running.kill()

    async def test_a_jump_of_two_hours_ends_no_association_and_stops_no_timer(self) -> None:
        self.running.start()
        remote = RemoteAE("X", self.running.address.endpoint)
        ae = AE("SCU").add_scu(verification_scu)
        asce = await ae.request_association(remote)
        echo = asce.get_scu(VERIFICATION)
        assert await echo() == 0x0000
        for hours in (2, -2, 0):
            self.offset.write_text(str(hours * 3600))
            # The other association wakes the reactor up, which then looks at the timers of the first.
            async with await ae.request_association(remote) as other:
                assert await other.get_scu(VERIFICATION)() == 0x0000
            assert asce.is_open
            assert await echo() == 0x0000
        closed = asce.closed()
        asce.pause(self)  # a peer that does not answer the release, for which it has one second
        stopping = deferToThread(self.running.stop)
        await deferToThread(eventually, lambda: "ending in order" in self.running.log, "stop")
        self.offset.write_text("-7200")
        await stopping
        asce.resume(self)
        await closed


def test_the_wall_clock_of_the_test_can_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test before would show nothing."""

    (tmp_path / "sitecustomize.py").write_text(_WALL_CLOCK)
    (tmp_path / "offset").write_text("7200")
    program = "from twisted.internet import reactor; import time; print(reactor.seconds())"
    printed = succeed(
        sys.executable, "-c", program, PYTHONPATH=str(tmp_path), WALL_CLOCK=str(tmp_path / "offset")
    )
    assert float(printed) > time.time() + 3600
