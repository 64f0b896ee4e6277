"""Log lines as text and as JSON."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEventAsClassicLogText,
    formatTime,
    globalLogPublisher,
)
from twisted.logger import Logger as TwistedLogger
from twisted.python import log as former_log
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import provider

from netdicom_tx.archive import Duplicates
from netdicom_tx.exceptions import AssociationReleasedError, LocalProtocolError
from netdicom_tx.log_output import (
    LogFile,
    LogFormat,
    event_as_json,
    event_as_text,
    give_observer,
    observer,
)
from netdicom_tx.logs import Level, Logger, LogUIDs, digest_of_uid, show_from, show_uids
from netdicom_tx.summary import AssociationSummary

NAME = "Doe^Jane"
UID = "1.2.826.0.1.3680043.10.7"


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def log(lines: list[str]) -> Logger:
    @provider(ILogObserver)
    def note(event: LogEvent) -> None:
        lines.append(event_as_json(event))

    return Logger(namespace="netdicom_tx.test", observer=note)


def only(lines: list[str]) -> Any:
    (line,) = lines
    assert "\n" not in line
    return json.loads(line)


def test_a_line_has_its_text_and_its_values(log: Logger, lines: list[str]) -> None:
    log.warn("{peer} sent\n{count} of {uid}", peer="CT1", count=3, uid=UID, event="sent", none=None)
    made = only(lines)
    assert made.pop("time").endswith("+00:00")
    assert made == {
        "level": "warn",
        "system": "netdicom_tx.test",
        "event": "sent",
        "message": f"CT1 sent\n3 of {UID}",
        "fields": {"peer": "CT1", "count": 3, "uid": UID, "none": None},
    }


def test_a_line_of_the_former_log_has_its_system_and_no_template() -> None:
    event = {
        "log_legacy": "x",
        "log_system": "Port",
        "log_namespace": "log_legacy",
        "log_format": "{log_text}",
        "log_text": "it is open",
    }
    made = json.loads(event_as_json(event))
    assert (made["system"], made["event"], made["message"]) == ("Port", "", "it is open")


def test_a_line_without_a_name_has_its_template(log: Logger, lines: list[str]) -> None:
    log.info("{peer} is here", peer="CT1")
    assert only(lines)["event"] == "{peer} is here"


@dataclass
class Pair:
    one: object
    other: object


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (2.5, 2.5),
        (Duplicates.KEEP_BOTH, "keep-both"),
        (Path("/srv"), "/srv"),
        ((1, "a"), [1, "a"]),
        ({"C-STORE": 12}, {"C-STORE": 12}),
        (Pair(1, Pair(b"\xff", None)), {"one": 1, "other": {"one": "b'\\xff'", "other": None}}),
        ([[[[[1]]]]], [[[["[1]"]]]]),
        (LocalProtocolError("expected this"), "expected this"),
    ],
)
def test_values_keep_what_json_can_say(
    log: Logger, lines: list[str], value: object, expected: object
) -> None:
    log.info("x", value=value)
    assert only(lines)["fields"] == {"value": expected}


def test_the_end_of_an_association_has_its_figures(log: Logger, lines: list[str]) -> None:
    summary = AssociationSummary(
        reason=AssociationReleasedError("released"),
        is_accepted=True,
        duration=1.5,
        performed={"C-STORE": 2},
        requested={},
        octets_received=7,
        octets_sent=8,
    )
    log.info("{summary}", summary=summary)
    found = only(lines)["fields"]["summary"]
    assert found["performed"] == {"C-STORE": 2}
    assert (found["duration"], found["octets_received"]) == (1.5, 7)


# -- patient data ------------------------------------------------------------------------------------


def test_no_exception_says_what_it_must_not(log: Logger, lines: list[str]) -> None:
    """Neither as a value, nor inside one, nor as a traceback."""
    try:
        raise ValueError(NAME)
    except ValueError as error:
        log.failure("{error}", error=error, pair=Pair(error, 1))
    made = only(lines)
    assert "Doe" not in lines[0]
    assert made["level"] == "critical"
    assert "ValueError" in made["traceback"]
    assert "raise ValueError" in made["traceback"]


def test_neither_do_the_failures_of_others(lines: list[str]) -> None:
    """Twisted logs what nobody handled, in its new and in its former way."""

    @provider(ILogObserver)
    def note(event: LogEvent) -> None:
        lines.append(event_as_json(event))

    TwistedLogger(namespace="twisted", observer=note).failure(
        "Unhandled Error", Failure(ValueError("Doe^Jane"))
    )
    event = {
        "log_failure": Failure(ValueError("Doe^Jane")),
        "log_legacy": "a traceback of Doe^Jane",
        "log_format": "{log_legacy}",
        "why": "went wrong",
        "isError": 1,
        "failure": Failure(ValueError("Doe^Jane")),
    }
    lines.append(event_as_json(event))
    assert "Doe" not in "".join(lines)
    assert json.loads(lines[1])["message"].startswith("went wrong: ")


@pytest.fixture
def digests() -> Iterator[None]:
    show_uids(LogUIDs.DIGEST, "NODE")
    yield
    show_uids(LogUIDs.PLAIN)


def test_digests_are_in_every_member(log: Logger, lines: list[str], digests: None) -> None:
    log.info("{uid} {more}", uid=UID, more={UID: [UID]})
    assert UID not in lines[0]
    digest = digest_of_uid(UID, "NODE")
    assert only(lines)["fields"] == {"uid": digest, "more": str({digest: [digest]})}


def test_lines_below_the_level_are_not_made(log: Logger, lines: list[str]) -> None:
    show_from(Level.WARN)
    log.debug("no")
    log.info("no")
    log.warn("yes")
    show_from(Level.DEBUG)
    log.debug("yes")
    assert [json.loads(each)["message"] for each in lines] == ["yes", "yes"]


# -- files -------------------------------------------------------------------------------------------


def written(form: LogFormat, path: Path | None) -> None:
    lines: Any = observer(form, path, MemoryReactorClock())
    Logger(namespace="a", observer=lines).info("{n} lines", n=1)
    if path is not None:
        lines._outFile.close()


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    written(LogFormat.JSON, path)
    written(LogFormat.TEXT, path)
    first, second = path.read_text().splitlines()
    assert json.loads(first)["fields"] == {"n": 1}
    assert second.endswith("[a#info] 1 lines")


def test_without_a_file_they_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    written(LogFormat.JSON, None)
    assert json.loads(capsys.readouterr().out)["message"] == "1 lines"


@pytest.mark.parametrize(
    "text", ["Factory starting on 104", "a socket starting on '/run/x y'", "(TCP Port 104 Closed)"]
)
def test_what_twisted_says_of_ports_is_shown_with_debug_only(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The node has lines of its own for that, with the address."""
    show_from(Level.INFO)
    write: Any = observer(LogFormat.TEXT, None, MemoryReactorClock())
    events: list[LogEvent] = []
    note: Any = events.append
    globalLogPublisher.addObserver(note)
    former_log.msg(text)
    globalLogPublisher.removeObserver(note)
    (of_twisted,) = events
    write(of_twisted)
    write({"log_format": text, "log_level": LogLevel.info, "log_namespace": "ours"})
    assert capsys.readouterr().out.count(text) == 1
    show_from(Level.DEBUG)
    write(of_twisted)
    assert text in capsys.readouterr().out


def test_a_file_is_opened_again_when_it_was_moved(tmp_path: Path) -> None:
    """logrotate moves it away, and then asks for that by SIGUSR1."""
    path = tmp_path / "node.log"
    file = LogFile(path)
    file.write("one\n")
    path.rename(tmp_path / "node.log.1")
    file.reopen()
    file.write("two\n")
    file.flush()
    assert ((tmp_path / "node.log.1").read_text(), path.read_text()) == ("one\n", "two\n")
    assert path.stat().st_mode & 0o007 == 0
    file.close()


def line_of_twistd(
    form: LogFormat, path: Path, *, is_daemon: bool = True, **options: object
) -> str | None:
    """What ``twistd --logfile FILE`` writes; None when the file is left to twistd."""
    runner: Any = {"logfile": str(path), "nodaemon": not is_daemon, **options}
    application = Componentized()
    give_observer(form, runner, application, MemoryReactorClock())
    lines: Any = application.getComponent(ILogObserver, None)
    if lines is None:
        return None
    Logger(namespace="a", observer=lines).info("{text} lines", text="\udcff 1")
    lines._outFile.close()
    return path.read_text("utf-8")


@pytest.fixture
def user_signal() -> Iterator[None]:
    """The disposition of SIGUSR1 stays what it was."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("user_signal")
@pytest.mark.parametrize("is_daemon", [True, False])
def test_a_file_of_twistd_has_the_lines_of_standard_output(tmp_path: Path, is_daemon: bool) -> None:
    """Twisted's own lines have neither the part of the program nor the level."""
    line = line_of_twistd(LogFormat.TEXT, tmp_path / "node.log", is_daemon=is_daemon)
    assert line is not None
    assert line.endswith("[a#info] \\udcff 1 lines\n")
    assert (tmp_path / "node.log").stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("user_signal")
def test_a_file_of_twistd_begins_anew_after_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text("x" * 1_000_000)
    path.chmod(0o600)
    line = line_of_twistd(LogFormat.JSON, path)
    assert line is not None
    assert json.loads(line)["system"] == "a"
    assert path.with_suffix(".log.1").stat().st_size == 1_000_000
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_twistd_does_itself_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    assert line_of_twistd(LogFormat.TEXT, path, logger="some.factory") is None
    assert line_of_twistd(LogFormat.TEXT, path, syslog=True) is None
    assert line_of_twistd(LogFormat.TEXT, Path("-")) is None
    assert not path.exists()


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"the log file .*none/log cannot be written: No such file"
    ):
        line_of_twistd(LogFormat.TEXT, tmp_path / "none" / "log")


class _Bad:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "event",
    [
        {"log_format": "nothing"},
        {"log_format": ""},
        {"log_format": None},
        {},
        {"log_format": b"octets", "log_namespace": "a.b", "log_level": LogLevel.warn},
        {
            "log_format": "{a} of {b!r}, {c:g} s, {d.name}",
            "a": 1,
            "b": "x",
            "c": 2.50,
            "d": LogLevel.info,
        },
        {"log_format": "two\nlines", "log_system": "the system", "log_time": 1.9e9},
        {"log_format": "{call()}", "call": lambda: "called", "log_time": 1.9e9 + 0.7},
        {"log_format": "{missing}", "log_time": 0.0},
        {"log_format": "{bad}", "bad": _Bad()},
        {"log_format": "{broken"},
        {"log_format": "failed", "log_failure": Failure(ValueError("why")), "log_time": 5.0},
    ],
)
def test_text_is_that_of_twisted(event: LogEvent) -> None:
    def at(when: float | None) -> str:
        return formatTime(when, "%Y-%m-%dT%H:%M:%S%z")

    expected, made = formatEventAsClassicLogText(event, at), event_as_text(event)
    # What could not be formatted names objects by their addresses, and shows where it failed.
    if expected is not None and "Unable to format event" in expected:
        assert made is not None
        assert made.splitlines()[0] == expected.splitlines()[0]
    else:
        assert made == expected


def test_a_line_is_made_whole_in_another_second() -> None:
    first = event_as_text({"log_format": "x", "log_time": 100.0})
    assert first != event_as_text({"log_format": "x", "log_time": 101.0})
    assert first == event_as_text({"log_format": "x", "log_time": 100.9})
