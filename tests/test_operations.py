"""What this side performs for its peer, and how an answer is made of what a handler gives back."""

from __future__ import annotations

import io
import threading
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from twisted.internet import defer
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from netdicom_tx import (
    AE,
    Association,
    AssociationError,
    EventHandlingError,
    PContextDef,
    RemoteAE,
    ResponseStream,
    Status,
    StatusError,
    Timeouts,
    Window,
    statuses,
    storage_scp,
    store_in_file,
    verification_scu,
)
from netdicom_tx.dimsemessages import (
    CCancelRQ,
    CEchoRQ,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    NGetRQ,
    Request,
    decode_command,
)
from netdicom_tx.dsutils import decode, encode
from netdicom_tx.pdu import AAbort
from netdicom_tx.testing import MemoryTransport, join
from netdicom_tx.userdataitems import (
    AsynchronousOperationsWindow,
    MaximumLength,
    RoleSelection,
)
from support.doubles import (
    CT,
    DATA,
    FIND,
    IMPLICIT,
    RELEASE_RQ,
    VERIFICATION,
    Caller,
    File,
    Node,
    RawPeer,
    command,
    echo_rq,
    find_rq,
    keeping,
    message,
    p_data,
    pdu,
    store_rq,
    us,
)
from support.doubles import logged_failures as logged_failures

PRIVATE = "1.2.826.0.1.3680043.9.9999.1"


def cancel(message_id: int = 1) -> CCancelRQ:
    return CCancelRQ(message_id_being_responded_to=message_id)


def data_set(name: str, filler: int = 0) -> Dataset:
    found = Dataset()
    found.PatientName = name
    found.ImageComments = "x" * filler
    return found


def answering(service: Any, uid: str = FIND) -> tuple[Node, RawPeer]:
    """A node with this service, and a peer that is associated with it."""
    node = Node(AE("NODE").add_scp(service, [uid, VERIFICATION]))
    return node, node.associate({uid: [IMPLICIT]})


def gives(result: Any) -> Any:
    """A service that gives back always the same."""
    return lambda asce, ctx, msg: result


def answers(service: Any, request: Request | None = None) -> list[Any]:
    """What a peer gets of this service, data sets decoded; and the association goes on."""
    node, peer = answering(service)
    peer.send(request or find_rq(1))
    found = received(peer)
    assert node.association().is_open
    assert node.association().operations == 0
    return found


def received(peer: RawPeer) -> list[Any]:
    """(status, patient's name) of each response, or the status alone."""
    found: list[Any] = []
    body = b""
    for kind, part in peer.take():
        assert kind == DATA
        if part[5] & 1:
            found.append(part)
            body = b""
        else:
            body += part[6:]
            if part[5] & 2:
                found[-1] = (found[-1], str(decode(body, IMPLICIT).PatientName))
    return [
        (_status(each[0]), each[1]) if isinstance(each, tuple) else _status(each) for each in found
    ]


def _status(part: bytes) -> int:
    return decode_command(part[6:])[0].status


# -- what a service returns ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [statuses.SUCCESS, 0xA700, Status(0xB000), 0xC123])
def test_a_status_is_the_response_with_that_status(status):
    assert answers(gives(status)) == [status]


def test_a_comment_goes_with_its_status():
    """PS3.7 Annex C: Error Comment (0000,0902), 64 characters."""
    _, peer = answering(gives(Status(0xA700, "C-FIND", "no\r\nroom " + "x" * 80)))
    peer.send(find_rq(1))
    (response,) = peer.messages()
    assert response.error_comment == ("no/r/nroom " + "x" * 80)[:64]


def test_the_response_names_what_was_requested():
    """PS3.7 9.3 and 10.3: the IDs and UIDs of the request."""
    _, peer = answering(gives(0), CT)
    peer.send(store_rq(77, uid="1.2.3.4"))
    (response,) = peer.messages()
    assert response.message_id_being_responded_to == 77
    assert response.affected_sop_class_uid == CT
    assert response.affected_sop_instance_uid == "1.2.3.4"


def test_a_status_and_a_data_set_are_one_response():
    request = NGetRQ(requested_sop_class_uid=FIND, requested_sop_instance_uid="1.2", message_id=1)
    assert answers(gives((0x0107, data_set("A"))), request) == [(0x0107, "A")]


@pytest.mark.parametrize("wrap", [lambda data: data, io.BytesIO])
def test_a_data_set_may_be_encoded_already(wrap):
    assert answers(gives((0, wrap(encode(data_set("A"), IMPLICIT))))) == [(0, "A")]


def test_a_response_message_is_sent_as_it_is():
    response = CFindRSP(message_id_being_responded_to=1, status=0xA900, error_id=5)
    _, peer = answering(gives(response))
    peer.send(find_rq(1))
    (sent,) = peer.messages()
    assert (sent.status, sent.error_id) == (0xA900, 5)


def test_a_deferred_is_waited_for():
    waiting: defer.Deferred[int] = defer.Deferred()
    _, peer = answering(gives(waiting))
    peer.send(find_rq(1))
    assert peer.take() == []
    waiting.callback(0xA700)
    assert received(peer) == [0xA700]


def test_a_coroutine_is_waited_for():
    waiting: defer.Deferred[int] = defer.Deferred()

    async def service(asce: Association, ctx: PContextDef, msg: Request) -> tuple[int, Dataset]:
        return await waiting, data_set("A")

    _, peer = answering(service)
    peer.send(find_rq(1))
    assert peer.take() == []
    waiting.callback(0)
    assert received(peer) == [(0, "A")]


def test_a_service_may_answer_by_itself():
    def service(asce: Association, ctx: PContextDef, msg: Request) -> None:
        asce.send(msg.response(0xFF00), ctx)
        asce.send(msg.response(0x0000), ctx.id)

    assert answers(service) == [0xFF00, 0]


@pytest.mark.parametrize("result", [None, 0xFF00, Status(0xFF01)])
def test_a_service_that_gives_no_final_status_is_told_and_answered(result, failures):
    assert answers(gives(result))[-1] == 0x0110
    assert "no final status" in failures.texts()[0]


@pytest.mark.parametrize(
    "result",
    [
        "text",
        data_set("A"),
        1.5,
        (0, "text"),
        (0, 1, 2),
        b"data",
        bytearray(b"data"),
        {"PatientName": "A"},
        (data_set("A"), 0xFF00),
        io.BytesIO(b"data"),
        True,
        False,
        (True, data_set("A")),
        [True],
        ["text"],
    ],
)
def test_a_service_that_gives_something_else_is_told_and_answered(result, failures):
    assert answers(gives(result)) == [0x0110]
    assert "expected" in failures.texts()[0]


@pytest.mark.parametrize("status", [-1, 0x10000])
def test_a_status_that_is_none_is_told_and_answered(status, failures):
    assert answers(gives(status)) == [0x0110]
    assert "0x0000 to 0xFFFF" in failures.texts()[0]


def test_a_response_that_cannot_be_encoded_is_told_and_answered(failures):
    response = CFindRSP(message_id_being_responded_to=1, status=0, error_id=70000)
    assert answers(gives(response)) == [0x0110]
    assert "ErrorID" in failures.texts()[0]


def test_a_data_set_that_cannot_be_encoded_is_told_and_answered(failures):
    broken = Dataset()
    broken["PatientName"] = DataElement(0x00100010, "PN", object(), already_converted=True)
    assert answers(gives((0, broken))) == [0x0110]
    assert "cannot be written" in failures.texts()[0]


# -- what a service yields -------------------------------------------------------------------------------


def test_data_sets_are_pending_responses_and_success_follows():
    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        yield data_set("A")
        yield data_set("B"), 0xFF01

    assert answers(service) == [(0xFF00, "A"), (0xFF01, "B"), 0]


def test_an_async_generator_is_the_same():
    waiting: defer.Deferred[None] = defer.Deferred()

    async def service(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        yield data_set("A")
        await waiting
        yield data_set("B"), 0xFF01

    _, peer = answering(service)
    peer.send(find_rq(1))
    assert received(peer) == [(0xFF00, "A")]
    waiting.callback(None)
    assert received(peer) == [(0xFF01, "B"), 0]


def test_an_async_iterator_without_a_close_is_as_good():
    class Two:
        def __init__(self) -> None:
            self._names = ["A", "B"]

        def __aiter__(self) -> Two:
            return self

        async def __anext__(self) -> Dataset:
            if not self._names:
                raise StopAsyncIteration
            return data_set(self._names.pop(0))

    assert answers(gives(Two())) == [(0xFF00, "A"), (0xFF00, "B"), 0]


@pytest.mark.parametrize(
    "make",
    [list, iter, tuple, deque, Sequence, lambda sets: dict(enumerate(sets)).values()],
    ids=["list", "iterator", "tuple", "deque", "pydicom's Sequence", "dict.values()"],
)
def test_other_iterables_are_the_same(make):
    assert answers(gives(make([data_set("A"), data_set("B")]))) == [
        (0xFF00, "A"),
        (0xFF00, "B"),
        0,
    ]


def test_a_generator_may_be_found_first():
    waiting: defer.Deferred[Any] = defer.Deferred()
    _, peer = answering(gives(waiting))
    peer.send(find_rq(1))
    waiting.callback(iter([data_set("A")]))
    assert received(peer) == [(0xFF00, "A"), 0]


def test_a_generator_may_yield_what_has_to_be_waited_for():
    waiting: defer.Deferred[Dataset] = defer.Deferred()
    _, peer = answering(gives(iter([waiting, data_set("B")])))
    peer.send(find_rq(1))
    assert received(peer) == []
    waiting.callback(data_set("A"))
    assert received(peer) == [(0xFF00, "A"), (0xFF00, "B"), 0]


def test_a_generator_may_end_with_another_status():
    closed: list[bool] = []

    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        try:
            yield data_set("A")
            yield Status(0xB000, comment="not all")
            raise AssertionError  # pragma: no cover - nobody wants more
        finally:
            closed.append(True)

    assert answers(service) == [(0xFF00, "A"), 0xB000]
    assert closed


def test_an_async_generator_may_end_with_another_status():
    closed: list[bool] = []

    async def service(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        try:
            yield data_set("A")
            yield 0xA700
            raise AssertionError  # pragma: no cover - nobody wants more
        finally:
            closed.append(True)

    kept: list[Any] = []  # so that it is not closed by being forgotten

    def keeping(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        kept.append(service(asce, ctx, msg))
        found: AsyncIterator[Any] = kept[0]
        return found

    assert answers(keeping) == [(0xFF00, "A"), 0xA700]
    assert closed


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_clean_up_that_fails_after_the_last_response_is_told_and_not_answered(kind, failures):
    """A request has one final response."""

    def plain(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        try:
            yield 0xA700
        finally:
            raise ZeroDivisionError("a bug")

    async def coming(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        try:
            yield 0xA700
        finally:
            raise ZeroDivisionError("a bug")

    assert answers(plain if kind == "sync" else coming) == [0xA700]
    assert failures.texts() == ["a bug"]


def test_a_generator_may_yield_response_messages():
    """C-GET and C-MOVE have counters in theirs; one that is not Pending is the last."""

    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        yield msg.response(0xFF00, number_of_remaining_suboperations=1)
        yield msg.response(0xB000, number_of_failed_suboperations=1)
        raise AssertionError  # pragma: no cover - nobody wants more

    _, peer = answering(service)
    peer.send(CGetRQ(affected_sop_class_uid=FIND, message_id=1, data_set=b"??"))
    first, last = peer.messages()
    assert (first.status, first.number_of_remaining_suboperations) == (0xFF00, 1)
    assert (last.status, last.number_of_failed_suboperations) == (0xB000, 1)


def test_a_generator_that_yields_nothing_is_success():
    assert answers(gives(iter(()))) == [0]


def test_a_generator_may_yield_files_and_encoded_data_sets():
    octets = encode(data_set("A"), IMPLICIT)
    assert answers(gives(iter([io.BytesIO(octets), octets, (octets, 0xFF01)]))) == [
        (0xFF00, "A"),
        (0xFF00, "A"),
        (0xFF01, "A"),
        0,
    ]


def test_a_generator_may_end_with_a_status_and_a_data_set():
    """A list of what failed comes with the final response of C-GET and C-MOVE (PS3.4 C.4.3.1.3)."""
    last = Status(0xB000, comment="not all")
    _, peer = answering(gives(iter([(data_set("failed"), last)])))
    peer.send(find_rq(1))
    (response, *_) = [decode_command(part[6:])[0] for _, part in peer.take() if part[5] & 1]
    assert (response.status, response.error_comment) == (0xB000, "not all")


# -- what a service has nothing for ----------------------------------------------------------------------


def test_an_operation_that_a_service_does_not_name_is_refused():
    """PS3.7 C.5.23: 0211; the service does not see it."""

    def service(asce: Association, ctx: PContextDef, msg: Request) -> int:
        assert isinstance(msg, CFindRQ)
        return 0

    service.operations = ("C-FIND",)  # type: ignore[attr-defined]
    _, peer = answering(service)
    peer.send(echo_rq(1), find_rq(2))
    refused, answered = peer.messages()
    assert (refused.status, answered.status) == (0x0211, 0)
    assert refused.error_comment == "C-ECHO is not an operation of this SOP class"


def test_an_operation_that_nobody_knows_reaches_no_service():
    """PS3.7 C.5.23: 0211."""
    _, peer = answering(lambda *_: pytest.fail("it has no such operation"))
    unknown = command((0x0100, us(0x0666)), (0x0110, us(1)), (0x0800, us(0x0101)))
    peer.send(p_data(1, 3, unknown))
    ((_, part),) = peer.take()
    assert b"\x00\x09\x02\x00\x00\x00\x11\x02" in part


# -- what a service raises -------------------------------------------------------------------------------


def in_every_form(error: Exception) -> dict[str, Any]:
    """Services that fail with this error, whatever they are."""

    def plain(asce: Association, ctx: PContextDef, msg: Request) -> int:
        raise error

    def deferred(asce: Association, ctx: PContextDef, msg: Request) -> defer.Deferred[int]:
        return defer.fail(error)

    async def coroutine(asce: Association, ctx: PContextDef, msg: Request) -> int:
        raise error

    def generator(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        raise error
        yield

    async def async_generator(
        asce: Association, ctx: PContextDef, msg: Request
    ) -> AsyncIterator[Any]:
        raise error
        yield

    def item(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        yield defer.fail(error)

    return {
        each.__name__: each
        for each in (plain, deferred, coroutine, generator, async_generator, item)
    }


FORMS = sorted(in_every_form(ValueError()))


@pytest.mark.parametrize("form", FORMS)
def test_whatever_is_raised_is_logged_and_answered(form, failures):
    """0x0110, and the association lives on."""
    assert answers(in_every_form(ZeroDivisionError("a bug"))[form]) == [0x0110]
    assert failures.texts() == ["a bug"]


@pytest.mark.parametrize("form", FORMS)
def test_a_status_error_is_answered_with_its_status_and_comment(form):
    _, peer = answering(in_every_form(StatusError(0xA701, "too many"))[form])
    peer.send(find_rq(1))
    (response,) = peer.messages()
    assert (response.status, response.error_comment) == (0xA701, "too many")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (replace(store_rq(1), affected_sop_class_uid=FIND), 0xC000),
        (find_rq(1), 0xC000),
        (CGetRQ(affected_sop_class_uid=FIND, message_id=1, data_set=b"??"), 0xC000),
        (
            NGetRQ(requested_sop_class_uid=FIND, requested_sop_instance_uid="1", message_id=1),
            0x0110,
        ),
        (CEchoRQ(affected_sop_class_uid=FIND, message_id=1), 0x0110),
    ],
)
def test_a_handling_error_is_answered_with_the_failure_of_the_service(request_, status):
    """PS3.4 Tables B.2-1, C.4-1 to C.4-3; PS3.7 Annex C for the others."""
    assert answers(in_every_form(EventHandlingError("no"))["plain"], request_) == [status]


def test_a_generator_that_fails_has_sent_what_it_had():
    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        yield data_set("A")
        raise StatusError(0xA700)

    assert answers(service) == [(0xFF00, "A"), 0xA700]


@pytest.mark.parametrize("status", [0xFF00, 70000])
def test_an_error_whose_status_is_no_final_one_is_told_and_answered(status, failures):
    assert answers(in_every_form(StatusError(status))["plain"])[-1] == 0x0110
    assert failures.texts()


def test_a_deferred_that_somebody_else_cancels_is_told_and_answered(failures):
    waiting: defer.Deferred[int] = defer.Deferred()
    _, peer = answering(gives(waiting))
    peer.send(find_rq(1))
    waiting.cancel()
    assert received(peer) == [0x0110]
    assert len(failures.texts()) == 1


# -- C-CANCEL (PS3.7 9.3.2.3) ----------------------------------------------------------------------------


class Eager(RawPeer):
    """Sends C-CANCEL-RQ as soon as it has got so many octets."""

    after = 500

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if len(self.received) > self.after:
            self.after = 1 << 60
            self.send(cancel())


def test_a_generator_is_closed_and_fe00_is_sent():
    made: list[int] = []
    closed: list[bool] = []

    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        try:
            while True:
                made.append(1)
                yield data_set("A")
        finally:
            closed.append(True)

    node, peer = answering(service)
    eager = Eager()
    eager.transport = peer.transport
    peer.transport.protocol = eager
    peer.send(find_rq(1))
    found = received(eager)
    assert found[-1] == 0xFE00
    assert set(found[:-1]) == {(0xFF00, "A")}
    assert closed == [True]
    assert len(made) < 100, "a cancel is seen after a few responses"
    assert node.association().operations == 0


@pytest.mark.parametrize("form", ["deferred", "coroutine", "item", "generator"])
def test_what_a_handler_waits_for_is_cancelled_and_fe00_is_sent(form):
    cancelled: list[bool] = []
    waiting: defer.Deferred[Any] = defer.Deferred(lambda _: cancelled.append(True))

    def deferred(asce: Association, ctx: PContextDef, msg: Request) -> defer.Deferred[Any]:
        return waiting

    async def coroutine(asce: Association, ctx: PContextDef, msg: Request) -> Any:
        return await waiting

    def item(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        yield waiting

    async def generator(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        yield await waiting

    node, peer = answering(locals()[form])
    peer.send(find_rq(1))
    peer.send(cancel(), cancel())
    assert received(peer) == [0xFE00]
    assert cancelled == [True]
    assert node.association().operations == 0


def test_fe00_has_the_counters_of_the_last_response():
    """PS3.4 C.4.2.1.6 and C.4.3.1.5."""
    waiting: defer.Deferred[Any] = defer.Deferred()

    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        yield msg.response(
            0xFF00, number_of_remaining_suboperations=7, number_of_completed_suboperations=3
        )
        yield waiting

    _, peer = answering(service)
    peer.send(CGetRQ(affected_sop_class_uid=FIND, message_id=1, data_set=b"??"))
    peer.send(cancel())
    _, last = peer.messages()
    assert isinstance(last, CGetRSP)
    assert last.status == 0xFE00
    assert last.number_of_remaining_suboperations == 7
    assert last.number_of_completed_suboperations == 3
    assert last.number_of_failed_suboperations is None


def test_a_handler_may_answer_a_cancel_itself():
    async def service(asce: Association, ctx: PContextDef, msg: Request) -> int:
        try:
            await defer.Deferred()
        except defer.CancelledError:
            return 0xB000
        raise AssertionError  # pragma: no cover - it never fires

    _, peer = answering(service)
    peer.send(find_rq(1))
    peer.send(cancel())
    assert received(peer) == [0xB000]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_generator_that_holds_on_is_asked_no_more(kind):
    """It swallows the interruption, and yields on."""
    waiting: defer.Deferred[Any] = defer.Deferred()

    async def obstinate(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        try:
            await waiting
        except defer.CancelledError:
            yield data_set("A")
            raise AssertionError from None  # pragma: no cover - nobody asks

    async def item() -> Dataset:
        try:
            await waiting
        except defer.CancelledError:
            return data_set("A")
        raise AssertionError  # pragma: no cover - it never fires

    def holding(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        yield item()
        raise AssertionError  # pragma: no cover - nobody asks

    _, peer = answering(obstinate if kind == "async" else holding)
    peer.send(find_rq(1))
    peer.send(cancel())
    assert received(peer) == [0xFE00]


def test_a_clean_up_that_fails_is_told_and_answered(failures):
    async def service(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        try:
            yield await defer.Deferred()
        finally:
            raise ZeroDivisionError("a bug")

    _, peer = answering(service)
    peer.send(find_rq(1))
    peer.send(cancel())
    assert received(peer) == [0x0110]
    assert failures.texts() == ["a bug"]


def test_a_cancel_for_another_message_is_ignored():
    waiting: defer.Deferred[int] = defer.Deferred()
    _, peer = answering(gives(waiting))
    peer.send(cancel(1), find_rq(1), cancel(2))
    waiting.callback(0)
    assert received(peer) == [0]
    peer.send(cancel(1))
    assert peer.take() == []


def test_only_find_get_and_move_can_be_cancelled():
    """PS3.7 9.3.2.3, 9.3.3.3, 9.3.4.3: no other operation has a C-CANCEL."""
    waiting: defer.Deferred[int] = defer.Deferred()
    _, peer = answering(gives(waiting), CT)
    peer.send(store_rq(1), cancel(1))
    waiting.callback(0)
    assert received(peer) == [0]


def test_a_cancel_that_comes_too_late_changes_nothing():
    """It crosses the final response."""
    first: defer.Deferred[int] = defer.Deferred()
    node, peer = answering(gives(first))
    peer.send(find_rq(1))
    node.wire.do(lambda: (peer.send(cancel(1)), first.callback(0)))
    assert received(peer) == [0]


# -- the end of the association --------------------------------------------------------------------------

ENDS: dict[str, Any] = {
    "abort": lambda node, peer: node.association().abort(),
    "abort of the peer": lambda node, peer: peer.send(AAbort(0, 0)),
    "close": lambda node, peer: peer.transport.loseConnection(),
    "reset": lambda node, peer: peer.transport.abortConnection(),
    "invalid PDU": lambda node, peer: peer.send(pdu(0x42)),
    "release": lambda node, peer: (
        peer.send(pdu(RELEASE_RQ)),
        node.advance(node.ae.timeouts.release),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_a_handler_waits_for_is_cancelled_with_the_association(end):
    cancelled: list[bool] = []
    waiting: defer.Deferred[int] = defer.Deferred(lambda _: cancelled.append(True))
    node, peer = answering(gives(waiting))
    peer.send(find_rq(1))
    ENDS[end](node, peer)
    assert cancelled == [True]
    node.advance(node.ae.timeouts.artim)
    assert not node.ae.associations


@pytest.mark.parametrize("end", [each for each in ENDS if each not in ("invalid PDU", "release")])
def test_a_generator_that_the_peer_does_not_read_is_closed_with_the_association(end):
    """That is not a failure of the handler, and is not logged as one."""
    closed: list[bool] = []

    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        try:
            while True:
                yield data_set("A", 1000)
        finally:
            closed.append(True)

    node, peer = answering(service)
    peer.transport.pauseProducing()
    peer.send(find_rq(1))
    assert not closed
    ENDS[end](node, peer)
    assert closed == [True]


@pytest.mark.parametrize(
    ("uid", "request_", "status"),
    [
        (FIND, find_rq(1), 0xC000),
        (CT, store_rq(1), 0xC000),
        (
            FIND,
            NGetRQ(requested_sop_class_uid=FIND, requested_sop_instance_uid="1.2", message_id=1),
            0x0110,
        ),
    ],
    ids=["C-FIND", "C-STORE", "N-GET"],
)
def test_case_82_a_handler_that_never_answers_is_answered_for(failures, uid, request_, status):
    """A failure for the peer, a line in the log; the handler is cancelled, and the association goes on."""
    cancelled: list[bool] = []
    waiting: defer.Deferred[int] = defer.Deferred(lambda _: cancelled.append(True))
    node, peer = answering(gives(waiting), uid)
    peer.send(request_)
    node.advance(node.ae.timeouts.handler - 1)
    assert not cancelled
    node.advance(1)
    first, *_ = peer.messages()
    assert first.status == status
    assert first.error_comment == "no answer from the handler in time"
    assert cancelled == [True]
    (line,) = failures
    assert formatEvent(line) == (
        f"{request_.OPERATION} 1 from PEER: the handler has given no answer for 300 s; it is cancelled (timeout "
        "'handler')"
    )
    failures.texts()
    assert node.association().is_open
    assert node.association().operations == 0


def test_case_82_a_handler_may_take_long_while_it_answers(failures):
    """Each Pending response renews its time; it is given up when none follows."""
    cancelled: list[bool] = []
    waiting: list[defer.Deferred[Any]] = []

    async def service(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        while True:
            waiting.append(defer.Deferred(lambda _: cancelled.append(True)))
            yield await waiting[-1]

    node, peer = answering(service)
    peer.send(find_rq(1))
    for _ in range(5):
        node.advance(200)
        waiting[-1].callback(data_set("A"))
    assert received(peer) == [(0xFF00, "A")] * 5
    node.advance(299)
    assert not cancelled
    node.advance(1)
    assert received(peer) == [0xC000]
    assert len(failures.texts()) == 1
    assert cancelled == [True]
    assert node.association().operations == 0


def test_case_82_a_handler_that_takes_no_cancel_is_answered_for_once(failures):
    """It may go on, but nobody hears of it any more."""

    async def service(asce: Association, ctx: PContextDef, msg: Request) -> int:
        try:
            await defer.Deferred()
        except defer.CancelledError:
            await last
        return 0

    last: defer.Deferred[None] = defer.Deferred()
    node, peer = answering(service)
    peer.send(find_rq(1))
    for _ in range(3):
        node.advance(300)
    assert received(peer) == [0xC000]
    assert len(failures.texts()) == 1
    last.callback(None)
    assert received(peer) == []
    assert node.association().operations == 0


def test_a_clean_up_that_waits_does_not_outlive_the_association():
    cancelled: list[str] = []

    async def service(asce: Association, ctx: PContextDef, msg: Request) -> AsyncIterator[Any]:
        try:
            yield await defer.Deferred(lambda _: cancelled.append("work"))
        finally:
            await defer.Deferred(lambda _: cancelled.append("clean-up"))

    node, peer = answering(service)
    peer.send(find_rq(1))
    peer.send(cancel())
    assert cancelled == ["work"]
    node.association().abort()
    node.wire.run()
    assert cancelled == ["work", "clean-up"]


def test_a_handler_that_ends_the_association_before_it_waits_is_cancelled():
    cancelled: list[bool] = []

    async def service(asce: Association, ctx: PContextDef, msg: Request) -> int:
        asce.abort()
        await defer.Deferred(lambda _: cancelled.append(True))
        return 0  # pragma: no cover - it is cancelled

    _, peer = answering(service)
    peer.send(find_rq(1))
    assert cancelled == [True]
    assert peer.abort() == (0, 0)


def test_a_handler_whose_own_request_fails_with_the_association_is_no_failure():
    async def service(asce: Association, ctx: PContextDef, msg: Request) -> int:
        await asce.get_scu(VERIFICATION)()
        return 0  # pragma: no cover - the association ends before

    node = Node(AE("NODE").add_scp(service, [VERIFICATION]).add_scu(verification_scu))
    role = RoleSelection(VERIFICATION, True, True)
    peer = node.associate(None, MaximumLength(0), role)
    peer.send(echo_rq(1))
    node.advance(node.ae.timeouts.response)
    assert node.association().operations == 0


def test_another_error_is_a_failure_even_when_the_association_is_over(failures):
    waiting: defer.Deferred[int] = defer.Deferred(lambda d: d.errback(ZeroDivisionError("a bug")))
    _, peer = answering(gives(waiting))
    peer.send(find_rq(1))
    peer.transport.abortConnection()
    assert failures.texts() == ["a bug"]


def test_an_answer_that_is_ready_when_the_association_is_over_goes_nowhere():
    waiting: defer.Deferred[int] = defer.Deferred()
    node, peer = answering(gives(waiting))
    peer.send(find_rq(1))
    node.wire.do(lambda: (peer.send(AAbort(0, 0)), node.wire.do(lambda: waiting.callback(0))))
    assert peer.take() == []


def test_an_answer_while_we_release_is_not_sent():
    """There is no Evt9 in Sta7."""
    waiting: defer.Deferred[int] = defer.Deferred()
    node, peer = answering(gives(waiting))
    peer.send(find_rq(1))
    node.association().release()
    node.advance(Timeouts().release)  # so long it has for an answer
    waiting.callback(0)
    assert peer.kinds() == [RELEASE_RQ]
    assert node.association().operations == 0


# -- what was received, after the end --------------------------------------------------------------------


def a_deferred(waiting: defer.Deferred[int]) -> Any:
    return waiting


async def a_coroutine(waiting: defer.Deferred[int]) -> int:
    return await waiting


@pytest.mark.parametrize("form", [a_deferred, a_coroutine])
@pytest.mark.parametrize("end", ENDS)
def test_a_received_file_stays_open_until_its_handler_ends(end, form):
    file, waiting = File(), defer.Deferred[int]()
    node, ae, peer = keeping(file)
    ae.answer = form(waiting)
    peer.send(store_rq(1))
    ENDS[end](node, peer)
    node.advance(node.ae.timeouts.artim)
    assert not node.ae.associations
    assert not file.closed
    waiting.callback(0)
    assert file.closed
    node.advance(node.ae.timeouts.response)
    assert not node.clock.getDelayedCalls()


@pytest.mark.parametrize("form", [a_deferred, a_coroutine])
@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), StatusError(0xA700)])
def test_a_received_file_is_closed_when_its_handler_fails_after_the_end(form, error, failures):
    """A failure that would have been an answer goes nowhere; a mistake is told."""
    file, waiting = File(), defer.Deferred[int]()
    _, ae, peer = keeping(file)
    ae.answer = form(waiting)
    peer.send(store_rq(1))
    peer.transport.abortConnection()
    waiting.errback(error)
    assert file.closed
    assert failures.texts() == (["a bug"] if isinstance(error, ZeroDivisionError) else [])


@pytest.mark.parametrize("form", [a_deferred, a_coroutine])
def test_a_handler_that_does_not_end_after_the_association_is_cancelled_in_time(form):
    file, cancelled = File(), list[bool]()
    node, ae, peer = keeping(file)
    ae.answer = form(defer.Deferred(lambda _: cancelled.append(True)))
    peer.send(store_rq(1))
    peer.transport.abortConnection()
    node.advance(node.ae.timeouts.response - 1)
    assert not cancelled
    assert not file.closed
    with capturedLogs() as logs:
        node.advance(1)
    assert cancelled == [True]
    assert file.closed
    assert "is still at work 60 s after the end" in formatEvent(logs[0])
    assert not node.clock.getDelayedCalls()


def test_the_file_of_a_cancelled_handler_is_closed_when_it_has_cleaned_up():
    file, cleaned = File(), defer.Deferred[None]()
    node, ae, peer = keeping(file)

    async def keep() -> int:
        try:
            return await defer.Deferred[int]()
        finally:
            await cleaned

    ae.answer = keep()
    peer.send(store_rq(1))
    peer.transport.abortConnection()
    node.advance(node.ae.timeouts.response)
    assert not file.closed
    cleaned.callback(None)
    assert file.closed


class ThreadTests(TestCase):
    """A thread reads what was received, and the association ends meanwhile."""

    timeout = 120

    async def _ends(self, end: Any) -> None:
        from twisted.internet import reactor

        begun, go_on = defer.Deferred[Any](), threading.Event()
        self.addCleanup(go_on.set)
        read, ended = defer.Deferred[bytes](), defer.Deferred[None]()

        def keep(file: BinaryIO) -> bytes:
            first = file.read(4)
            reactor.callFromThread(begun.callback, file)
            assert go_on.wait(30)
            return first + file.read()

        class Keeping(AE):
            async def on_receive_store(self, context: Any, ds: BinaryIO) -> int:
                octets = await deferToThread(keep, ds)
                ds.seek(0)  # still open for the handler that waits for the thread
                read.callback(octets)
                return statuses.SUCCESS

            def on_association_ended(self, asce: Any, summary: Any) -> None:
                ended.callback(None)

        ae = Keeping("NODE").add_scp(storage_scp, [CT])
        service = ae.as_service("tcp:0:interface=127.0.0.1", grace=0)
        service.startService()
        remote = RemoteAE("NODE", f"tcp:127.0.0.1:{service.ports[0].getHost().port}")
        asce = await AE("SCU").request_association(remote, {CT: [IMPLICIT]})
        sent = asce.request(store_rq(data=bytes(1_000_000)), asce.contexts_for(CT)[0])
        file = await begun
        stopped = end(asce, service)
        await ended
        with pytest.raises(AssociationError):
            await sent
        assert not file.closed
        go_on.set()
        assert (await read).endswith(bytes(1_000_000))
        # The turn in which the handler ends closes it.
        await deferLater(reactor, 0)
        assert file.closed
        await stopped
        await service.stopService()

    async def test_the_peer_aborts(self):
        await self._ends(lambda asce, service: defer.succeed(asce.abort()))

    async def test_the_connection_is_lost(self):
        await self._ends(lambda asce, service: defer.succeed(asce.drop()))

    async def test_the_service_stops(self):
        await self._ends(lambda asce, service: service.stopService())


def test_a_match_while_we_release_is_not_sent():
    waiting: defer.Deferred[Dataset] = defer.Deferred()
    node, peer = answering(gives(iter([waiting, data_set("B")])))
    peer.send(find_rq(1))
    node.association().release()
    node.advance(Timeouts().release)
    waiting.callback(data_set("A"))
    assert peer.kinds() == [RELEASE_RQ]
    assert node.association().operations == 0


# -- memory ----------------------------------------------------------------------------------------------


def test_a_peer_that_does_not_read_holds_the_generator():
    """Bounded: what the transport takes, and no more."""
    made: list[int] = []

    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        for n in range(50_000):
            made.append(n)
            yield encode(data_set("A", 1000), IMPLICIT), 0xFF00

    node, peer = answering(service)
    peer.transport.pauseProducing()
    tracemalloc.start()
    try:
        peer.send(find_rq(1))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(made) < 2 * MemoryTransport.high_water // 1000
    assert held < 1 << 20
    before = len(made)
    node.wire.run()
    assert len(made) == before
    peer.transport.abortConnection()
    assert len(made) == before


def test_a_peer_that_reads_again_gets_the_rest():
    _, peer = answering(gives(iter([data_set("A", 1000)] * 1000)))
    peer.transport.pauseProducing()
    peer.send(find_rq(1))
    for _ in range(10):
        peer.transport.resumeProducing()
        peer.transport.pauseProducing()
    peer.transport.resumeProducing()
    found = received(peer)
    assert len(found) == 1001
    assert found[-1] == 0


def test_several_generators_share_a_peer_that_reads_slowly():
    service = lambda asce, ctx, msg: iter([data_set(str(msg.message_id), 1000)] * 200)  # noqa: E731
    node = Node(AE("NODE", window=Window(1, 3)).add_scp(service, [FIND]))
    window = AsynchronousOperationsWindow(3, 1)
    peer = node.associate({FIND: [IMPLICIT]}, MaximumLength(0), window)
    peer.transport.pauseProducing()
    peer.send(find_rq(1), find_rq(2), find_rq(3))
    assert node.association().operations == 3
    peer.transport.resumeProducing()
    found = received(peer)
    assert [found.count((0xFF00, str(n))) for n in (1, 2, 3)] == [200, 200, 200]
    assert found.count(0) == 3
    assert found.index(0) > 400, "they take turns"


def test_the_reactor_has_its_turn_between_responses():
    """A long result does not keep others from being served."""
    node = Node(AE("NODE").add_scp(gives(0), [VERIFICATION]))
    order: list[str] = []

    def service(asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Any]:
        node.clock.callLater(0, order.append, "other work")
        for n in range(100):
            order.append(str(n))
            yield data_set("A")

    node.ae.add_scp(service, [FIND])
    peer = RawPeer()
    join(peer, node.ae.acceptor_factory().buildProtocol(None), node.wire)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.send(find_rq(1))
    assert 0 < order.index("other work") < 50


# -- the file of a data set ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 0xB000, 0xA700])
def test_what_c_get_brings_is_handed_to_who_reads_it(status):
    """PS3.4 C.4.3: sub-operations; what was kept is not closed, what failed is."""
    taken: list[Any] = []

    class Taking(ResponseStream[Any]):
        def take_instance(self, ctx: PContextDef, message: Request) -> bool:
            taken.append(message.data_set)
            return True

    class Receiver(AE):
        def get_file(self, asce: Any, context: Any, command_set: Any) -> tuple[BinaryIO, int]:
            self.file = io.BytesIO()
            return self.file, 0

    ae = Receiver("CALLER").add_scp(store_in_file(gives(status)), [CT])
    roles = [RoleSelection(CT, False, True)]
    caller = Caller(ae, {FIND: [IMPLICIT], CT: [IMPLICIT]}, roles=roles)
    asce = caller.accept(MaximumLength(0), *roles)
    stream = asce.request_many(
        find_rq(), asce.contexts_for(FIND)[0], lambda item: item, kind=Taking
    )
    caller.peer.send(message(store_rq(1), 3))
    assert stream.final is None
    assert taken == ([] if status == 0xA700 else [ae.file])
    assert ae.file.closed == (status == 0xA700)
