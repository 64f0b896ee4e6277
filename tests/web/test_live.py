"""Pages that follow what happens: which parts are sent when, and that no reader holds up the node."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from netdicom_tx.passwords import write_password
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from netdicom_tx.web.live import STREAMS
from support.archive.archives import Archive
from support.archive.patients import add
from support.doubles import LoggedFailures
from support.doubles import logged_failures as noted_failures  # noqa: F401 - a fixture
from support.web import Browser, unchunked

from .test_studies import STUDY, instance

Make = Callable[..., Browser]


class Follower:
    """A browser that follows a page.

    Attributes:
        parts: The last content of each part, and ``count`` how many came.
    """

    def __init__(self, browser: Browser, page: str) -> None:
        cookie = f"Cookie: {browser.cookie}\r\n" if browser.cookie else ""
        self.transport: StringTransport = browser.send(
            f"GET /events?page={page} HTTP/1.1\r\nHost: localhost\r\n{cookie}\r\n".encode()
        )
        self.parts: dict[str, str] = {}
        self.count = 0

    @property
    def code(self) -> int:
        return int(self.transport.value().split()[1])

    def read(self) -> "Follower":
        """Take what has come."""
        _, _, body = self.transport.value().partition(b"\r\n\r\n")
        text = unchunked(body).decode()
        events = [each for each in text.split("\n\n") if each.startswith("event: part")]
        for each in events[self.count :]:
            part = json.loads(each.partition("data: ")[2])
            self.parts[part["name"]] = part["html"]
        self.count = len(events)
        return self

    @property
    def is_over(self) -> bool:
        return self.transport.disconnecting or self.transport.value().endswith(b"0\r\n\r\n")


@pytest.fixture
def clock(node: Archive) -> Clock:
    clock = node.ae.clock
    assert isinstance(clock, Clock)
    return clock


def pumped(clock: Clock, seconds: float) -> None:
    clock.pump([1.0] * int(seconds))


def test_all_parts_are_sent_at_first(page: Make, clock: Clock) -> None:
    follower = Follower(page(), "/")
    pumped(clock, 1)
    parts = follower.read().parts
    assert parts.keys() == {
        *("state", "figures", "throughput", "associations", "refusals", "storage", "node")
    }
    head = follower.transport.value().partition(b"\r\n\r\n")[0].lower()
    assert b"content-type: text/event-stream" in head
    assert b"cache-control: no-store" in head


def test_a_part_is_what_the_page_has(page: Make, clock: Clock) -> None:
    browser = page()
    follower = Follower(browser, "/peers")
    pumped(clock, 1)
    for html in follower.read().parts.values():
        assert html.strip() in browser.get("/peers").text


def test_a_study_that_arrives_is_sent(page: Make, node: Archive, clock: Clock) -> None:
    follower = Follower(page(), "/studies%3Fname%3Dpatient")
    pumped(clock, 1)
    assert "No study was found" in follower.read().parts["studies"]
    add(node.index, [instance(1)], EXPLICIT_VR_LITTLE_ENDIAN)
    pumped(clock, 2)
    assert "Patient, No001" in follower.read().parts["studies"]


def test_what_the_search_does_not_find_is_not_sent(page: Make, node: Archive, clock: Clock) -> None:
    follower = Follower(page(), "/studies%3Fname%3Dother")
    pumped(clock, 1)
    add(node.index, [instance(1)], EXPLICIT_VR_LITTLE_ENDIAN)
    pumped(clock, 4)
    assert follower.read().count == 1


def test_one_study_is_followed(page: Make, node: Archive, clock: Clock) -> None:
    add(node.index, [instance(1)], EXPLICIT_VR_LITTLE_ENDIAN)
    follower = Follower(page(), STUDY)
    pumped(clock, 1)
    assert "1 instance" in follower.read().parts["study"]
    add(node.index, [instance(1, SOPInstanceUID="1.2.1.1.2")], EXPLICIT_VR_LITTLE_ENDIAN)
    pumped(clock, 2)
    assert "2 instances" in follower.read().parts["study"]


def test_a_stream_ends_when_its_study_is_gone(page: Make, node: Archive, clock: Clock) -> None:
    add(node.index, [instance(1)], EXPLICIT_VR_LITTLE_ENDIAN)
    follower = Follower(page(), STUDY)
    pumped(clock, 1)
    node.index.remove("1.2.1.1.1").result(10)
    add(node.index, [instance(2), instance(3)], EXPLICIT_VR_LITTLE_ENDIAN)
    pumped(clock, 2)
    assert follower.is_over


def test_nothing_is_sent_when_nothing_happens_but_a_sign_of_life(page: Make, clock: Clock) -> None:
    follower = Follower(page(), "/studies")
    pumped(clock, 1)
    before = follower.transport.value()
    pumped(clock, 13)
    assert follower.transport.value() == before
    pumped(clock, 4)
    assert follower.transport.value()[len(before) :] == b"3\r\n:\n\n\r\n"


@pytest.mark.parametrize(
    "path",
    ["", "/nowhere", "/login", "/static/page.css", "/series/1", "/queue/retry", "//evil", "%2F%00"],
)
def test_only_pages_that_change_are_followed(page: Make, path: str) -> None:
    assert Follower(page(), path).code == 404


def test_a_stream_needs_what_its_page_needs(page: Make, users: str, clock: Clock) -> None:
    anonymous = page(allow_anonymous=False)
    assert Follower(anonymous, "/studies").code == 403
    assert Follower(anonymous, "/").code == 200
    browser = page(users_file=users)
    assert Follower(browser, "/").code == 401
    browser.log_in("anna", "secret")
    assert Follower(browser, "/studies").code == 200


def test_a_stream_of_another_origin_is_refused(page: Make) -> None:
    """DNS rebinding would let another page read it."""
    transport = page().send(b"GET /events?page=/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 421")


def test_a_stream_ends_when_its_user_logs_out(page: Make, users: str, clock: Clock) -> None:
    browser = page(users_file=users)
    browser.log_in("anna", "secret")
    browser.get("/")
    follower = Follower(browser, "/studies")
    pumped(clock, 1)
    browser.post("/logout")
    pumped(clock, 2)
    assert follower.is_over


def test_a_stream_ends_when_the_password_changes(page: Make, tmp_path: Path, clock: Clock) -> None:
    users = tmp_path / "users"
    write_password(users, "anna", "secret")
    browser = page(users_file=str(users))
    browser.log_in("anna", "secret")
    follower = Follower(browser, "/studies")
    pumped(clock, 1)
    assert not follower.is_over
    write_password(users, "anna", "another")
    pumped(clock, 2)
    assert follower.is_over


def test_a_stream_ends_after_an_hour(page: Make, clock: Clock) -> None:
    """The browser asks for another one."""
    follower = Follower(page(), "/studies")
    pumped(clock, 1)
    assert not follower.is_over
    clock.advance(3600)
    pumped(clock, 2)
    assert follower.is_over


def test_streams_are_bounded(page: Make, clock: Clock) -> None:
    browser = page()
    followers = [Follower(browser, "/") for _ in range(STREAMS)]
    assert Follower(browser, "/").code == 503
    assert browser.get("/").code == 200
    followers[0].transport.loseConnection()
    assert {each.code for each in followers} == {200}


def test_a_stream_that_is_left_makes_room(page: Make, clock: Clock) -> None:
    browser = page()
    followers = [Follower(browser, "/") for _ in range(STREAMS)]
    pumped(clock, 1)
    leave(browser, followers[3])
    assert Follower(browser, "/").code == 200
    pumped(clock, 3)
    assert "figures" in followers[4].read().parts


def leave(browser: Browser, follower: Follower) -> None:
    """Let the browser close a connection."""
    for protocol in list(browser.service.factory.protocols):
        if protocol.transport is follower.transport:
            protocol.connectionLost(Failure(ConnectionDone()))


def test_a_reader_that_is_slow_gets_nothing_until_it_reads(
    page: Make, node: Archive, clock: Clock
) -> None:
    follower = Follower(page(), "/studies")
    pumped(clock, 1)
    producer: Any = follower.transport.producer
    producer.pauseProducing()
    before = follower.transport.value()
    add(node.index, [instance(1)], EXPLICIT_VR_LITTLE_ENDIAN)
    pumped(clock, 6)
    assert follower.transport.value() == before
    producer.resumeProducing()
    pumped(clock, 2)
    assert "Patient, No001" in follower.read().parts["studies"]


def test_a_reader_that_stays_behind_is_dropped(page: Make, node: Archive, clock: Clock) -> None:
    browser = page()
    slow, other = Follower(browser, "/studies"), Follower(browser, "/studies")
    pumped(clock, 1)
    producer: Any = slow.transport.producer
    producer.pauseProducing()
    pumped(clock, 13)
    assert slow.transport.disconnected or slow.transport.disconnecting
    add(node.index, [instance(1)], EXPLICIT_VR_LITTLE_ENDIAN)
    pumped(clock, 2)
    assert "Patient, No001" in other.read().parts["studies"]


def test_a_page_that_fails_ends_its_stream_and_no_other(
    page: Make, clock: Clock, failures: LoggedFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = page()
    studies, peers = Follower(browser, "/studies"), Follower(browser, "/peers")
    pumped(clock, 1)

    def fail(*_: object) -> int:
        raise ZeroDivisionError("no answer")

    monkeypatch.setattr("netdicom_tx.web.lookup.last_row", fail)
    pumped(clock, 2)
    assert studies.is_over
    assert not peers.is_over
    assert failures.texts() == ["no answer"]


def test_all_streams_end_with_the_page(page: Make, clock: Clock) -> None:
    browser = page()
    followers = [Follower(browser, "/"), Follower(browser, "/studies")]
    pumped(clock, 1)
    browser.service.stopService()
    assert all(each.is_over for each in followers)
    assert [str(each) for each in clock.getDelayedCalls() if "_look" in str(each)] == []


def test_a_query_with_too_many_fields_is_refused(page: Make) -> None:
    follower = Follower(page(), "/studies%3F" + "a=1%26" * 60)
    assert follower.code == 400
