"""One run of a command: interruption, once, twice and three times."""

from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from netdicom_tx import AE
from netdicom_tx.commands.common.addresses import Address
from netdicom_tx.commands.common.config import Config
from netdicom_tx.commands.common.failures import ExitCode, StatusFailure
from netdicom_tx.commands.common.options import Common
from netdicom_tx.commands.common.output import Output
from netdicom_tx.commands.common.session import Session
from netdicom_tx.dulprovider import Timeouts
from netdicom_tx.exceptions import DCMTimeoutError
from netdicom_tx.statuses import Status
from netdicom_tx.testing import failure_of, success_of
from support.doubles import ABORT, DATA, Caller, echo


@pytest.fixture
def session() -> Session:
    return Session(Common(Config(), Output(is_quiet=True)), Clock())


def begin(session: Session, command: Any) -> defer.Deferred[int]:
    return defer.Deferred.fromCoroutine(session.perform(command))


def test_a_command_that_ends_gives_its_code(session: Session) -> None:
    async def command(_: Session) -> int:
        return 7

    assert success_of(begin(session, command)) == 7


def test_the_first_interruption_does_what_was_asked_for(session: Session) -> None:
    asked: list[str] = []
    waiting: defer.Deferred[None] = defer.Deferred()

    async def command(session: Session) -> int:
        with session.on_interrupt(lambda: asked.append("outer")):
            with session.on_interrupt(lambda: asked.append("inner")):
                await waiting
            return 0

    done = begin(session, command)
    session.interrupt()
    assert asked == ["inner"]
    assert not done.called
    waiting.callback(None)
    assert success_of(done) == ExitCode.INTERRUPTED


def test_what_begins_after_the_interruption_is_interrupted_at_once(session: Session) -> None:
    asked: list[str] = []

    async def command(session: Session) -> int:
        with session.on_interrupt(lambda: None):
            session.interrupt()
        with session.on_interrupt(lambda: asked.append("late")):
            return 0

    assert success_of(begin(session, command)) == ExitCode.INTERRUPTED
    assert asked == ["late"]


@pytest.mark.parametrize("has_action", [True, False])
def test_without_an_action_or_at_the_second_time_the_command_is_cancelled(
    session: Session, has_action: bool
) -> None:
    async def command(session: Session) -> int:
        if has_action:
            with session.on_interrupt(lambda: None):
                await defer.Deferred()
        await defer.Deferred()
        return 0

    done = begin(session, command)
    session.interrupt()
    if has_action:
        assert not done.called
        session.interrupt()
    assert success_of(done) == ExitCode.INTERRUPTED


def test_the_third_interruption_leaves_at_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)

    async def command(session: Session) -> int:
        with session.on_interrupt(lambda: None):
            try:
                await defer.Deferred()
            except defer.CancelledError:
                await defer.Deferred()  # something that will not end
        return 0

    begin(session, command)
    session.interrupt()
    session.interrupt()
    assert left == []
    session.interrupt()
    assert left == [130]


def test_a_server_ends_well_by_interruption(session: Session) -> None:
    async def command(session: Session) -> int:
        session.ends_by_interrupt = True
        await session.until_interrupted(defer.Deferred())
        return 0

    done = begin(session, command)
    session.interrupt()
    assert success_of(done) == 0


def test_a_wait_that_was_cancelled_by_another_is_an_error(session: Session) -> None:
    waiting: defer.Deferred[None] = defer.Deferred()

    async def command(session: Session) -> int:
        await session.until_interrupted(waiting)
        return 0

    done = begin(session, command)
    waiting.cancel()
    failed: list[Any] = []
    done.addErrback(failed.append)
    assert failed[0].check(defer.CancelledError)


def test_a_failure_after_an_interruption_is_the_interruption(session: Session) -> None:
    """What an abort makes of everything outstanding needs no explanation."""

    async def command(session: Session) -> int:
        with session.on_interrupt(lambda: None):
            session.interrupt()
        raise ValueError("the association is over")

    assert success_of(begin(session, command)) == ExitCode.INTERRUPTED


def test_sleeping_ends_with_its_time_or_with_an_interruption(session: Session) -> None:
    async def command(session: Session) -> int:
        await session.sleep(5)
        return 0

    done = begin(session, command)
    session.reactor.advance(5)
    assert success_of(done) == 0
    done = begin(session, command)
    session.interrupt()
    assert success_of(done) == ExitCode.INTERRUPTED


def test_a_silent_peer_does_not_stretch_the_end_of_a_command() -> None:
    """PS3.8 7.3: A-ABORT goes out; a peer that closes nothing is not waited for."""
    common = Common(Config(), Output(is_quiet=True), response_timeout=2)
    session = Session(common, Clock())
    caller = Caller(session.ae(AE, None))
    session.reactor = caller.clock
    asce = caller.accept()

    async def command(_: Session) -> int:
        await echo(asce)
        return 0

    done = begin(session, command)
    for _ in range(9):
        caller.advance(0.25)
    assert caller.peer.kinds() == [DATA, ABORT]
    assert caller.peer.is_lost
    assert isinstance(failure_of(done), DCMTimeoutError)


def test_a_command_waits_for_the_answer_to_a_release_as_for_any_answer() -> None:
    """-td means what it says, also where the peer has answered everything but A-RELEASE-RQ."""
    common = Common(Config(), Output(is_quiet=True), response_timeout=2)
    assert Session(common, Clock()).ae(AE, None).timeouts.release == 2
    common.response_timeout = None
    assert Session(common, Clock()).ae(AE, None).timeouts.release == Timeouts().release


@pytest.mark.parametrize(
    ("calling", "configured", "known", "expected"),
    [
        (None, None, None, "NETDICOM-SCU"),
        (None, "HERE", None, "HERE"),
        (None, "HERE", "KNOWN", "KNOWN"),
        ("OPTION", "HERE", "KNOWN", "OPTION"),
    ],
)
def test_what_we_call_ourselves(
    calling: str | None, configured: str | None, known: str | None, expected: str
) -> None:
    """The option, what the peer knows us by, our own title, the default."""
    common = Common(Config(ae_title=configured), Output(), calling=calling)
    assert Session(common, Clock()).own_title(Address("A", "h", 1, calling=known)) == expected


def test_without_a_peer_a_failure_is_explained_as_well(session: Session) -> None:
    problem = session.explain(StatusFailure("C-STORE", Status(0xA700, "C-STORE")))
    assert problem.what.startswith("the peer answered C-STORE")
