"""What log lines show of exceptions, statuses and UIDs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel, eventAsText, formatEvent
from twisted.python.failure import Failure

from netdicom_tx.exceptions import LocalProtocolError, StatusError
from netdicom_tx.logs import Logger, LogUIDs, Trouble, digest_of_uid, show_uids
from netdicom_tx.statuses import Status
from netdicom_tx.uids import VERIFICATION_SOP_CLASS
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture

UID = "1.2.826.0.1.3680043.10.5"


@pytest.fixture
def events() -> list[LogEvent]:
    return []


@pytest.fixture
def log(events: list[LogEvent]) -> Logger:
    return Logger("test", observer=events.append)  # type: ignore[arg-type]  # a function will do


@pytest.fixture
def digests() -> Iterator[None]:
    show_uids(LogUIDs.DIGEST, "NODE")
    yield
    show_uids(LogUIDs.PLAIN)


def failed(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException:
        return Failure()


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (LocalProtocolError("expected a title"), "expected a title"),
        (OSError(28, "No space left"), "[Errno 28] No space left"),
        (NameError("name 'x' is not defined"), "name 'x' is not defined"),
        (ValueError("Doe^Jane"), "ValueError (its message is not logged, because it may hold"),
        (StatusError(0x0110, "Doe^Jane"), "StatusError status 0x0110"),
    ],
)
def test_an_exception_is_shown_if_nobody_is_quoted(
    log: Logger, events: list[LogEvent], error: Exception, shown: str
) -> None:
    log.warn("failed: {error}", error=error)
    assert formatEvent(events[0]).startswith(f"failed: {shown}")
    log.failure("failed", failed(error))
    text = eventAsText(events[1])
    assert shown.split(" ", 1)[1].split(",")[0] in text
    assert "Doe" not in text
    assert "raise error" in text
    assert events[1]["log_failure"].check(type(error))
    assert events[1]["log_failure"].value is error


def test_debug_lines_show_everything(log: Logger, events: list[LogEvent]) -> None:
    log.debug("failed: {error}", error=ValueError("Doe^Jane"))
    assert formatEvent(events[0]) == "failed: Doe^Jane"


def test_a_status_is_shown_without_the_comment_of_the_peer(
    log: Logger, events: list[LogEvent]
) -> None:
    log.warn("{status}", status=Status(0x0112, "N-SET", "Doe^Jane"))
    assert formatEvent(events[0]) == "No such SOP instance (0x0112)"


def test_uids_are_plain_by_default(log: Logger, events: list[LogEvent]) -> None:
    log.info("{uid} came", uid=UID)
    assert formatEvent(events[0]) == f"{UID} came"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (UID, "{digest}"),
        (f"a ({UID}) and {UID}.", "a ({digest}) and {digest}."),
        (f"/srv/{UID}.dcm", "/srv/{digest}.dcm"),
        (f"/srv/x-{UID}/1", "/srv/x-{digest}/1"),
        (LocalProtocolError(f"no {UID}"), "no {digest}"),
        (VERIFICATION_SOP_CLASS, VERIFICATION_SOP_CLASS),
        ("127.0.0.1:11112", "127.0.0.1:11112"),
        ("192.168.1.2", "192.168.1.2"),
        ("took 1.25 s", "took 1.25 s"),
        (0.25, "0.25"),
        (None, "None"),
        (Status(0), "Success (0x0000)"),
    ],
)
def test_digests_replace_uids(
    log: Logger, events: list[LogEvent], digests: None, value: Any, shown: str
) -> None:
    """But not those that the standard registers, nor addresses and fractions."""
    log.info("{value}", value=value)
    assert formatEvent(events[0]) == shown.format(digest=digest_of_uid(UID, "NODE"))


def test_a_digest_is_the_same_in_each_line_of_a_node() -> None:
    assert digest_of_uid(UID, "NODE") == digest_of_uid(UID, "NODE") != digest_of_uid(UID, "OTHER")
    assert digest_of_uid(UID, "NODE").startswith("uid:")


def test_digests_are_in_tracebacks_and_formats(
    log: Logger, events: list[LogEvent], digests: None
) -> None:
    log.failure(
        "{uid!r:>9} of {status.meaning}", failed(LocalProtocolError(UID)), uid=UID, status=Status(0)
    )
    assert UID not in eventAsText(events[0])
    assert UID not in repr(events[0]["log_failure"])
    assert repr(digest_of_uid(UID, "NODE")) in formatEvent(events[0])
    assert digest_of_uid(UID, "NODE") in eventAsText(events[0])


def test_a_number_is_formatted_as_a_number(
    log: Logger, events: list[LogEvent], digests: None
) -> None:
    log.emit(LogLevel.info, "{seconds:.1f}", seconds=1.26)
    assert formatEvent(events[0]) == "1.3"


def test_a_trouble_is_told_when_it_begins_and_when_it_is_over(lines: list[str]) -> None:
    trouble = Trouble(Logger())
    trouble.over("it works again")
    for kind in ("full", "full", "broken", "broken"):
        trouble.met(kind, "the disk is {kind}", kind=kind)
    trouble.over("the disk works again; {count} instances were refused")
    trouble.over("the disk works again; {count} instances were refused")
    trouble.met("full", "the disk is {kind}", kind="full", level=LogLevel.warn)
    assert lines == [
        "the disk is full",
        "the disk is broken",
        "the disk works again; 4 instances were refused",
        "the disk is full",
    ]
