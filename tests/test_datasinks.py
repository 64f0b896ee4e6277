"""The message that is arriving, and where its data set goes: memory, or a file of the AE."""

from __future__ import annotations

import errno
import io

import pytest
from twisted.internet import defer
from twisted.logger import capturedLogs

from netdicom_tx import (
    EventHandlingError,
    StatusError,
)
from netdicom_tx.asceprovider import IDENTIFIER_LIMIT
from netdicom_tx.datasinks import MemorySink, give_up
from netdicom_tx.exceptions import DIMSEProcessingError
from netdicom_tx.pdu import (
    AAbort,
)
from netdicom_tx.userdataitems import (
    MaximumLength,
    RoleSelection,
)
from support.doubles import (
    CT,
    FIND,
    IMPLICIT,
    Caller,
    File,
    Keeper,
    find_rq,
    keeping,
    message,
    serving,
    store_rq,
)
from support.doubles import logged_failures as logged_failures


def test_a_data_set_that_nobody_needs_is_closed():
    file = io.BytesIO()
    give_up(file)
    assert file.closed
    give_up(None)
    give_up(b"bytes")


def test_a_file_that_cannot_be_closed_is_logged():
    class Stuck:
        def close(self) -> None:
            raise OSError("stuck")

    with capturedLogs() as logs:
        give_up(Stuck())
    assert "could not be closed" in logs[0]["log_format"]


def test_a_data_set_in_memory_has_a_limit():
    sink = MemorySink(4)
    sink.write(memoryview(b"123"))
    sink.write(memoryview(b"4"))
    assert sink.finish() == b"1234"
    with pytest.raises(DIMSEProcessingError, match="more than 4 octets"):
        sink.write(memoryview(b"5"))


# -- a file of the AE ------------------------------------------------------------------------------


def test_a_data_set_arrives_in_a_file_that_is_closed_at_the_end():
    file = File()
    file.write(b"head")
    waiting: defer.Deferred[int] = defer.Deferred()
    _, ae, peer = keeping(file, start=2)
    ae.answer = waiting
    peer.send(store_rq(1, b"data"))
    assert ae.seen == [b"addata"]
    assert not file.closed
    waiting.callback(0)
    assert file.closed
    assert peer.statuses() == [0]


@pytest.mark.parametrize("where", ["open", "write", "seek", "write close", "seek close"])
def test_a_file_that_fails_is_answered_and_the_association_lives_on(where, failures):
    """PS3.4 B.2.3: A7xx, out of resources."""
    error = OSError(errno.ENOSPC, "no space left")
    file = error if where == "open" else File(*where.split())
    _, ae, peer = keeping(file, File())
    peer.send(store_rq(1, bytes(100_000)), store_rq(2, b"good"))
    assert peer.statuses() == [0xA700, 0]
    assert ae.seen == [b"good"]
    assert where == "open" or file.closed
    (logged,) = failures.texts()
    assert "cannot be kept" in logged


def test_a_file_that_cannot_be_closed_does_not_keep_the_operation():
    _, _, peer = keeping(File("close"), File())
    peer.send(store_rq(1), store_rq(2))
    assert peer.statuses() == [0, 0]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StatusError(0xA700, "the quota is used up"), 0xA700),
        (EventHandlingError("not from you"), 0xC000),
    ],
)
def test_a_hook_may_refuse_a_data_set_before_it_comes(error, status, failures):
    """It is read to its end all the same: the peer is in the middle of sending it."""
    _, _, peer = keeping(error, File())
    peer.send(store_rq(1, bytes(100_000)), store_rq(2))
    (refused, taken) = peer.messages()
    assert (refused.status, refused.error_comment) == (status, error.comment)
    assert taken.status == 0


@pytest.mark.parametrize("where", ["open", "write", "seek"])
def test_a_hook_that_fails_is_answered_and_the_association_lives_on(where, failures):
    error = ZeroDivisionError("a bug")
    file = error if where == "open" else File(where, error=error)
    _, _, peer = keeping(file, File())
    peer.send(store_rq(1), store_rq(2))
    assert peer.statuses() == [0x0110, 0]
    assert failures.texts()


@pytest.mark.parametrize("end", ["abort", "reset"])
def test_a_data_set_that_does_not_come_to_its_end_is_given_up(end):
    file = File()
    node, ae, peer = keeping(file)
    peer.send(message(store_rq(1, bytes(1000)))[:-1])
    assert not file.closed
    if end == "abort":
        peer.send(b"!", AAbort(0, 0))
        assert ae.seen
    else:
        peer.transport.abortConnection()
        assert not ae.seen
    assert file.closed
    assert node.lives()


def test_a_file_that_cannot_be_closed_does_not_keep_the_association():
    file = File("close")
    node, _, peer = keeping(file)
    peer.send(message(store_rq(1, bytes(1000)))[:-1])
    peer.transport.abortConnection()
    assert file.closed
    assert not node.ae.associations


def test_files_that_wait_for_their_turn_are_closed_with_the_association():
    files = [File("close"), File(), File()]
    _, ae, peer = keeping(*files)
    ae.answer = defer.Deferred()
    peer.send(*(store_rq(n) for n in (1, 2, 3)))
    assert len(ae.seen) == 1
    peer.transport.abortConnection()
    assert [each.closed for each in files] == [False, True, True], "the first one is in use"
    ae.answer.callback(0)
    assert files[0].closed


def test_the_file_of_a_refused_duplicate_is_closed():
    files = [File(), File()]
    _, ae, peer = keeping(*files)
    ae.answer = defer.Deferred()
    peer.send(store_rq(1), store_rq(1))
    assert peer.statuses() == [0x0210]
    assert [each.closed for each in files] == [False, True]


def test_what_c_get_brings_may_be_taken_by_nobody():
    """A C-STORE that comes to a requestor with no such request outstanding is closed at its end."""
    ae = Keeper(File())
    roles = [RoleSelection(CT, False, True)]
    caller = Caller(ae, {CT: [IMPLICIT]}, roles=roles)
    caller.accept(MaximumLength(0), *roles)
    file = ae.files[0]
    caller.peer.send(store_rq(1))
    assert caller.peer.statuses() == [0]
    assert file.closed
    ae.files.append(File())
    ae.answer = 0xA700
    file = ae.files[0]
    caller.peer.send(store_rq(1))
    assert file.closed


# -- memory ----------------------------------------------------------------------------------------


def test_an_instance_may_arrive_in_memory():
    seen: list[bytes] = []
    node = serving(lambda asce, ctx, msg: (seen.append(msg.data_set), 0)[1], CT)
    peer = node.associate({CT: [IMPLICIT]})
    peer.send(store_rq(1, bytes(IDENTIFIER_LIMIT + 2)))
    assert peer.statuses() == [0]
    assert seen == [bytes(IDENTIFIER_LIMIT + 2)]


def test_what_arrives_in_memory_has_a_limit(monkeypatch):
    monkeypatch.setattr("netdicom_tx.datasinks.MEMORY_LIMIT", 1000)
    node = serving(lambda asce, ctx, msg: 0, CT)
    peer = node.associate({CT: [IMPLICIT]})
    peer.send(store_rq(1, bytes(1000)))
    assert peer.statuses() == [0]
    peer.send(store_rq(1, bytes(1002)))
    assert peer.abort() == (2, 6)


def test_an_identifier_has_a_limit():
    node = serving(lambda asce, ctx, msg: 0, FIND)
    peer = node.associate({FIND: [IMPLICIT]})
    peer.send(find_rq(1, bytes(IDENTIFIER_LIMIT)))
    assert peer.statuses() == [0]
    peer.send(find_rq(1, bytes(IDENTIFIER_LIMIT + 2)))
    assert peer.abort() == (2, 6)
