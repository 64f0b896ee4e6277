"""Requests that are outstanding: one response, or a stream of them (PS3.7 7.5)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx import AE, Association, ConnectionLostError, ResponseStream, Timeouts, Window
from netdicom_tx.dimsemessages import CCancelRQ, CFindRQ, Response
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.pdu import AAbort
from netdicom_tx.requests import HIGH_WATER, status_of
from netdicom_tx.testing import failure_of, success_of
from netdicom_tx.userdataitems import AsynchronousOperationsWindow, MaximumLength
from support.doubles import FIND, IMPLICIT, VERIFICATION, Caller, calling, echo_rq, find_rq, run
from support.doubles import logged_failures as logged_failures

LOW_WATER = HIGH_WATER // 4
TIMEOUTS = Timeouts()


def matches(*numbers: int, final: int | None = None) -> list[Response]:
    """Pending responses to message 1, told apart by their comment; and a final one."""
    found = [find_rq(1).response(0xFF00, error_comment=str(n)) for n in numbers]
    return found if final is None else [*found, find_rq(1).response(final)]


def searching(**options: Any) -> tuple[Caller, Association, ResponseStream[str]]:
    """A C-FIND of ours that is out; its stream makes a text of each response."""
    caller, asce = calling({FIND: [IMPLICIT]})
    stream = search(asce, **options)
    assert [type(each) for each in caller.peer.messages()] == [CFindRQ]
    return caller, asce, stream


def search(asce: Association, **options: Any) -> ResponseStream[str]:
    return asce.request_many(
        find_rq(),
        asce.contexts_for(FIND)[0],
        lambda response: response.error_comment or f"{response.status:04X}",
        **options,
    )


async def read_all(stream: ResponseStream[str]) -> list[str]:
    return [each async for each in stream]


def reading(stream: ResponseStream[str]) -> defer.Deferred[str]:
    return defer.Deferred.fromCoroutine(anext(stream))


def cancels(caller: Caller) -> int:
    """C-CANCEL-RQs that came since the last call; nothing else may have come."""
    sent = caller.peer.messages()
    assert all(isinstance(each, CCancelRQ) for each in sent)
    assert all(each.message_id_being_responded_to == 1 for each in sent)
    return len(sent)


# -- one response ----------------------------------------------------------------------------------------


def test_a_request_has_one_response():
    caller, asce = calling()
    answer = asce.request(echo_rq(None), asce.contexts_for(VERIFICATION)[0])
    caller.peer.send(echo_rq(1).response(0xFF00), echo_rq(1).response(0))
    assert success_of(answer).status == 0xFF00, "C-ECHO has no Pending status"


@pytest.mark.parametrize("then", ["response", "end"])
def test_a_request_that_was_cancelled_hears_nothing_any_more(then):
    caller, asce = calling()
    answer = asce.request(echo_rq(None), asce.contexts_for(VERIFICATION)[0])
    answer.cancel()
    assert isinstance(failure_of(answer), defer.CancelledError)
    if then == "response":
        caller.peer.send(echo_rq(1).response(0))
    else:
        asce.abort()
    assert asce.operations == 0


def test_a_request_is_told_of_the_end():
    _, asce = calling()
    answer = asce.request(echo_rq(None), asce.contexts_for(VERIFICATION)[0])
    asce.abort()
    assert failure_of(answer).__cause__ is asce.error


# -- reading ---------------------------------------------------------------------------------------------


def test_responses_are_read_in_order_and_the_final_one_is_the_last():
    caller, _, stream = searching()
    caller.peer.send(*matches(1, 2, 3, final=0xA700))
    assert run(read_all(stream)) == ["1", "2", "3", "A700"]
    assert stream.final is not None
    assert stream.final.status == 0xA700
    assert run(read_all(stream)) == [], "it is at its end"


def test_who_reads_waits_for_what_comes():
    caller, _, stream = searching()
    whole = defer.Deferred.fromCoroutine(read_all(stream))
    for response in matches(1, 2, final=0):
        assert not whole.called
        caller.peer.send(response)
    assert success_of(whole) == ["1", "2", "0000"]


def test_two_cannot_read_one_stream_at_once():
    caller, _, stream = searching()
    first = reading(stream)
    assert isinstance(failure_of(reading(stream)), LocalProtocolError)
    caller.peer.send(*matches(1))
    assert success_of(first) == "1"


def test_the_data_set_comes_with_its_response():
    caller, asce = calling({FIND: [IMPLICIT]})
    stream = asce.request_many(
        find_rq(), asce.contexts_for(FIND)[0], lambda response: response.data_set
    )
    caller.peer.send(find_rq(1).response(0xFF01, b"identifier"))
    assert success_of(reading(stream)) == b"identifier"


# -- done ------------------------------------------------------------------------------------------------


def test_everybody_who_waits_for_the_end_has_a_deferred_of_his_own():
    caller, _, stream = searching()
    first, second = stream.done, stream.done
    first.addCallback(lambda status: "mine")
    caller.peer.send(*matches(1, final=0xB000))
    assert success_of(first) == "mine"
    status = success_of(second)
    assert (status, status.command) == (0xB000, "C-FIND")
    assert success_of(stream.done) == 0xB000


def test_a_wait_for_the_end_can_be_forgotten():
    caller, _, stream = searching()
    first, second = stream.done, stream.done
    first.cancel()
    assert isinstance(failure_of(first), defer.CancelledError)
    assert cancels(caller) == 0, "the operation goes on"
    caller.peer.send(*matches(final=0))
    assert success_of(second) == 0


def test_the_first_who_hears_of_the_end_may_forget_the_others():
    caller, _, stream = searching()
    first, second = stream.done, stream.done
    first.addCallback(lambda _: second.cancel())
    caller.peer.send(*matches(final=0))
    success_of(first)
    assert isinstance(failure_of(second), defer.CancelledError)


def test_waiting_for_the_end_without_reading_is_no_deadlock():
    """The responses are dropped: nobody will read them."""
    caller, _, stream = searching()
    done = stream.done
    caller.peer.send(*matches(*range(3 * HIGH_WATER), final=0))
    assert success_of(done) == 0


def test_waiting_for_the_end_after_the_transport_paused_is_no_deadlock():
    caller, _, stream = searching()
    caller.peer.send(*matches(*range(HIGH_WATER + 1)))
    caller.peer.send(*matches(final=0))
    assert stream.final is None, "the transport is paused"
    assert success_of(stream.done) == 0


def test_who_reads_and_waits_for_the_end_misses_nothing():
    caller, _, stream = searching()
    caller.peer.send(*matches(0))
    assert success_of(reading(stream)) == "0"
    done = stream.done
    caller.peer.send(*matches(*range(1, HIGH_WATER + 2)))
    caller.peer.send(*matches(final=0))
    assert run(read_all(stream)) == [str(n) for n in range(1, HIGH_WATER + 2)] + ["0000"]
    assert success_of(done) == 0


# -- cancelling ------------------------------------------------------------------------------------------


def test_a_cancel_is_sent_once():
    """PS3.7 9.3.2.3; the peer answers with a final response."""
    caller, _, stream = searching()
    stream.cancel()
    stream.cancel()
    assert cancels(caller) == 1
    caller.peer.send(*matches(1, final=0xFE00))
    assert run(read_all(stream)) == ["1", "FE00"]


def test_an_operation_that_is_over_is_not_cancelled():
    caller, _, stream = searching()
    caller.peer.send(*matches(final=0))
    stream.cancel()
    assert cancels(caller) == 0


def test_a_cancel_after_the_association_is_over_is_nothing():
    caller, asce, stream = searching()
    asce.abort()
    caller.peer.abort()
    stream.cancel()
    assert caller.peer.take() == []


def test_cancelling_a_request_that_still_waits_takes_it_back():
    caller, asce, first = searching()
    second = search(asce)
    second.cancel()
    assert cancels(caller) == 0
    assert run(read_all(second)) == ["FE00"]
    caller.peer.send(*matches(final=0))
    assert success_of(first.done) == 0
    assert caller.peer.take() == []
    assert asce.operations == 0


def test_cancelling_what_is_read_cancels_the_operation():
    """It reads on to the final response, and the association can be used again."""
    caller, asce, stream = searching()
    waiting = reading(stream)
    waiting.cancel()
    assert isinstance(failure_of(waiting), defer.CancelledError)
    assert cancels(caller) == 1
    caller.peer.send(*matches(*range(2 * HIGH_WATER), final=0xFE00))
    assert success_of(stream.done) == 0xFE00
    assert asce.operations == 0
    assert run(read_all(stream)) == []


def test_a_cancel_lets_the_final_response_through():
    """Even when nobody reads: it may stand behind what is paused."""
    caller, _, stream = searching()
    caller.peer.send(*matches(*range(HIGH_WATER + 1)))
    stream.cancel()
    caller.peer.send(*matches(final=0xFE00))
    assert cancels(caller) == 1
    assert stream.final is not None


# -- async with ------------------------------------------------------------------------------------------


def test_leaving_a_block_early_cancels_once_and_waits_for_the_end():
    caller, _, stream = searching()

    async def first() -> str:
        async with stream:
            async for each in stream:
                return each
        raise AssertionError  # pragma: no cover - something was sent

    caller.peer.send(*matches(1, 2, 3))
    found = defer.Deferred.fromCoroutine(first())
    assert not found.called
    assert cancels(caller) == 1
    caller.peer.send(*matches(4, final=0xFE00))
    assert success_of(found) == "1"


def test_a_block_that_raises_cancels_and_does_not_wait():
    caller, asce, stream = searching()

    async def main() -> None:
        async with stream:
            raise KeyError("of mine")

    with pytest.raises(KeyError):
        run(main())
    assert cancels(caller) == 1
    caller.peer.send(*matches(1, final=0xFE00))
    assert asce.operations == 0


def test_a_block_that_reads_to_the_end_cancels_nothing():
    caller, _, stream = searching()

    async def main() -> list[str]:
        async with stream:
            return await read_all(stream)

    caller.peer.send(*matches(1, final=0))
    assert run(main()) == ["1", "0000"]
    assert cancels(caller) == 0


def test_leaving_a_block_after_the_end_drops_what_is_unread():
    caller, _, stream = searching()

    async def main() -> None:
        async with stream:
            pass

    caller.peer.send(*matches(1, 2, final=0))
    run(main())
    assert cancels(caller) == 0
    assert run(read_all(stream)) == []


def test_leaving_a_block_resumes_what_it_had_paused():
    caller, asce, stream = searching()

    async def main() -> None:
        async with stream:
            pass

    caller.peer.send(*matches(*range(HIGH_WATER + 1)))
    left = defer.Deferred.fromCoroutine(main())
    caller.peer.send(*matches(final=0xFE00))
    success_of(left)
    assert asce.operations == 0


# -- pressure --------------------------------------------------------------------------------------------


def test_a_slow_reader_pauses_the_transport_and_resumes_it():
    caller, _, stream = searching()
    caller.peer.send(*matches(*range(HIGH_WATER + 1)))
    caller.peer.send(*matches(-1, final=0))
    assert stream.final is None
    for n in range(HIGH_WATER - LOW_WATER):
        assert success_of(reading(stream)) == str(n)
    assert stream.final is None
    success_of(reading(stream))
    assert stream.final is not None
    assert len(run(read_all(stream))) == LOW_WATER + 2


def test_no_timeout_runs_while_the_reader_is_slow():
    """It is we who do not read; the answer may be here already."""
    caller, asce, stream = searching()
    caller.peer.send(*matches(*range(HIGH_WATER + 1)))
    caller.peer.send(*matches(final=0))
    caller.advance(10 * TIMEOUTS.response)
    assert asce.is_open
    assert run(read_all(stream))[-1] == "0000"


def test_a_peer_that_asks_for_too_much_does_not_stop_the_timeouts():
    """We do not read it, but not because our reader is slow: an answer may never come."""
    caller, asce = calling({VERIFICATION: [IMPLICIT]}, AE("CALLER"))
    never: defer.Deferred[int] = defer.Deferred()
    asce.ae.add_scp(lambda asce, ctx, msg: never, [VERIFICATION])
    answer = asce.request(echo_rq(None), asce.contexts_for(VERIFICATION)[0])
    caller.peer.send(echo_rq(1), echo_rq(2))
    caller.advance(TIMEOUTS.response)
    assert failure_of(answer).__cause__ is asce.error


def test_the_high_water_may_be_ones_own():
    caller, _, stream = searching(high_water=2)
    for response in matches(1, 2, 3, final=0):
        caller.peer.send(response)
    assert stream.final is None
    assert success_of(reading(stream)) == "1"
    assert success_of(reading(stream)) == "2"
    assert success_of(reading(stream)) == "3"
    assert stream.final is not None


# -- the end of the association --------------------------------------------------------------------------


def test_a_reader_is_told_of_the_end_when_it_has_read_what_came():
    caller, asce, stream = searching()
    caller.peer.send(*matches(1))
    caller.peer.transport.loseConnection()
    assert success_of(reading(stream)) == "1"
    error = failure_of(reading(stream))
    assert isinstance(error, ConnectionLostError)
    assert error.__cause__ is asce.error
    assert failure_of(reading(stream)).__cause__ is asce.error
    assert failure_of(stream.done).__cause__ is asce.error


def test_a_reader_that_waits_is_told_of_the_end():
    caller, asce, stream = searching()
    waiting = reading(stream)
    caller.peer.send(AAbort(0, 0))
    assert failure_of(waiting).__cause__ is asce.error


def test_a_block_is_left_when_the_association_is_lost():
    caller, _, stream = searching()

    async def main() -> list[str]:
        async with stream:
            return await read_all(stream)

    whole = defer.Deferred.fromCoroutine(main())
    caller.peer.transport.abortConnection()
    assert isinstance(failure_of(whole), ConnectionLostError)


def test_a_request_that_cannot_be_made_is_a_stream_that_fails():
    caller, asce = calling({FIND: [IMPLICIT]})
    asce.abort()
    caller.peer.abort()
    stream = search(asce)
    assert failure_of(reading(stream)).__cause__ is asce.error
    assert failure_of(stream.done).__cause__ is asce.error


def test_streams_share_a_window():
    window = AsynchronousOperationsWindow(2, 1)
    caller, asce = calling(
        {FIND: [IMPLICIT]}, AE("CALLER", window=Window(2, 1)), (MaximumLength(0), window)
    )
    streams = [search(asce), search(asce)]
    asked = caller.peer.messages()
    for n in (1, 0, 1, 0):
        caller.peer.send(asked[n].response(0xFF00, error_comment=f"of {n}"))
    caller.peer.send(asked[0].response(0), asked[1].response(0))
    assert [run(read_all(each)) for each in streams] == [
        ["of 0", "of 0", "0000"],
        ["of 1", "of 1", "0000"],
    ]


# -- the parts -------------------------------------------------------------------------------------------


def test_the_status_of_a_response_has_its_words():
    status = status_of(find_rq(1).response(0xA700, error_comment="later"))
    assert str(status) == "Refused: out of resources (0xA700): later"
