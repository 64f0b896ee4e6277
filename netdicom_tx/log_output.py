"""Where the log lines of a node go, and in which form: text, or one JSON object a line.

A JSON line has these members:

=============  ======================================================================================================
``time``       when, in UTC, as RFC 3339 has it
``level``      ``debug``, ``info``, ``warn``, ``error`` or ``critical``
``system``     the part of the program
``event``      a name that stays the same, such as ``association-ended``; without one, the text before its values are
               put in
``message``    the line as text
``fields``     the values of the line by name
``traceback``  where an exception came from, when there is one
=============  ======================================================================================================

What :mod:`netdicom_tx.logs` keeps out of a line is kept out of its JSON as well.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TextIO

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile as RotatedFile

from .logs import is_shown, shown, shown_failure, shown_text

__all__ = ["LogFile", "LogFormat", "event_as_json", "event_as_text", "give_observer", "observer"]


class LogFormat(StrEnum):
    """The form of the log lines."""

    TEXT = "text"
    JSON = "json"


# What Twisted keeps in an event for its own use or for its former log; the other keys are the values of a line.
_INTERNAL: Final = frozenset(
    ["message", "time", "system", "isError", "format", "text", "failure", "why", "event"]
)
# As the ports of Twisted tell of themselves.
_PORTS: Final = re.compile(r"\S.* starting on (\d+|b?'.*')\Z|\(\S.* Port .+ Closed\)\Z")
# Lines name users and machines, so not everybody may read them.
_MODE: Final = 0o640
# Deeper values are written as text.
_DEEPEST: Final = 4


def event_as_json(event: LogEvent) -> str:
    """An event as one line of JSON, without the line end."""
    level = event.get("log_level", LogLevel.info)
    failure = event.get("log_failure")
    made: dict[str, Any] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(
            timespec="milliseconds"
        ),
        "level": level.name,
        "system": _system(event),
        "event": event.get("event") or _template(event),
        "message": shown_text(_message(event)),
        "fields": {
            name: _plain(value)
            for name, value in event.items()
            if not name.startswith("log_") and name not in _INTERNAL
        },
    }
    if isinstance(failure, Failure):
        made["traceback"] = shown_failure(failure).getTraceback()
    return json.dumps(made, ensure_ascii=False, skipkeys=True)


def _is_about_ports(event: LogEvent) -> bool:
    """Whether Twisted tells that a port opens or closes, which the node tells in its own words."""
    if event.get("log_namespace") != "log_legacy" or "log_failure" in event:
        return False
    return _PORTS.match(event.get("log_text") or "") is not None


def _system(event: LogEvent) -> str:
    # The former log of Twisted names the part of a program by another key.
    former = str(event.get("log_system", "")) if "log_legacy" in event else ""
    return former or event.get("log_namespace") or "-"


def _template(event: LogEvent) -> str:
    return "" if "log_legacy" in event else event.get("log_format") or ""


def event_as_text(event: LogEvent) -> str | None:
    """An event as Twisted writes it, with its line end; None for one without text.

    Two lines of each association are written this way, which takes a quarter of the time that Twisted's own formatter
    takes. That one still writes all that is not plain: tracebacks, and calls in the format.
    """
    form = event.get("log_format")
    if type(form) is not str or "log_failure" in event or "log_flattened" in event or "()" in form:
        return _text_of_twisted(event)
    try:
        text = form.format_map(event)
    except Exception:  # whatever a value raises, Twisted's formatter says which one it was
        return _text_of_twisted(event)
    if not text:
        return None
    system = event.get("log_system")
    if system is None:
        level = event.get("log_level")
        system = f"{event.get('log_namespace') or '-'}#{'-' if level is None else level.name}"
    return f"{_time(event.get('log_time'))} [{system}] {text}\n".replace("\n", "\n\t")[:-1]


def _text_of_twisted(event: LogEvent) -> str | None:
    text: str | None = formatEventAsClassicLogText(event, _time)
    return text


def _time(when: float | None) -> str:
    return "-" if when is None else _second(int(when))


@lru_cache(maxsize=1)
def _second(when: int) -> str:
    """The time as text; many lines are written in one second."""
    text: str = formatTime(when, _TIME_FORMAT)
    return text


def _message(event: LogEvent) -> str:
    failure = event.get("log_failure")
    if isinstance(failure, Failure) and "log_legacy" in event:
        # The former log of Twisted makes the exception's own message a part of the text.
        return (
            f"{event.get('why') or 'Unhandled error'}: {shown_failure(failure).getErrorMessage()}"
        )
    return formatEvent(event)


def _plain(value: Any, depth: int = 0) -> Any:
    """A value of a line as JSON has it."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if type(value) in (int, float):
        return value
    if depth < _DEEPEST and not isinstance(value, str | bytes | BaseException):
        if is_dataclass(value) and not isinstance(value, type):
            return {
                each.name: _plain(getattr(value, each.name), depth + 1) for each in fields(value)
            }
        if isinstance(value, Mapping):
            return {shown_text(str(key)): _plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(each, depth + 1) for each in value]
    return shown_text(str(shown(value)))


class LogFile:
    """A file that lines are appended to, and that can be opened again when another program has moved it away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._open()

    def _open(self) -> TextIO:
        descriptor = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE
        )
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def reopen(self) -> None:
        """Go on in the file that has the name now."""
        fresh = self._open()
        self._file.close()
        self._file = fresh

    def close(self) -> None:
        """End with this file."""
        self._file.close()

    def write(self, text: str) -> None:
        """Append a text."""
        self._file.write(text)

    def flush(self) -> None:
        """Hand to the system what was written."""
        self._file.flush()


class _RotatedFile(RotatedFile):
    """The file of ``twistd``: a new one begins after a megabyte, and the former ones get numbers."""

    def __init__(self, name: str, directory: str) -> None:
        is_there = os.path.exists(os.path.join(directory, name))
        super().__init__(name, directory, defaultMode=None if is_there else _MODE)  # type: ignore[no-untyped-call]

    def write(self, data: str) -> None:
        super().write(data.encode(errors="backslashreplace"))  # type: ignore[no-untyped-call]


def observer(form: LogFormat, path: Path | None, reactor: Any) -> ILogObserver:
    """What writes the log lines of ``netdicom serve``.

    Args:
        form: The form of the lines.
        path: The file that they are appended to; None means standard output. SIGUSR1 makes the process open it again,
            which logrotate needs.
        reactor: The reactor, in whose thread the file is opened again.

    Raises:
        OSError: The file cannot be opened.
    """
    stream: Any = sys.stdout
    if path is not None:
        stream = file = LogFile(path)
        _at_user_signal(file.reopen, reactor)
    return _observer(form, stream)


def _at_user_signal(call: Callable[[], object], reactor: Any) -> None:
    """Have SIGUSR1 call a function in the reactor's thread, unless the signal has another use."""
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(call))


_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%z"


def _observer(form: LogFormat, stream: Any) -> ILogObserver:
    as_text = event_as_text if form is LogFormat.TEXT else _json_line

    def line(event: LogEvent) -> str | None:
        is_left_out = _is_about_ports(event) and not is_shown(LogLevel.debug)
        return None if is_left_out else as_text(event)

    lines: ILogObserver = FileLogObserver(stream, line)
    return lines


def _json_line(event: LogEvent) -> str:
    return f"{event_as_json(event)}\n"


def give_observer(
    form: LogFormat, runner: usage.Options, application: Componentized, reactor: Any
) -> None:
    """Let a runner of Twisted write lines in this form, where the runner would write its own.

    Args:
        form: The form of the lines.
        runner: The options of ``twistd`` or ``twist``. Their own ``--logger`` and ``--syslog`` win.
        application: What ``twistd`` asks for its observer.
        reactor: The reactor.

    Raises:
        SystemExit: The file cannot be written; the message is for the operator.
    """
    if "fileLogObserverFactory" in runner:  # twist
        if form is not LogFormat.TEXT:
            runner["fileLogObserverFactory"] = lambda stream: _observer(form, stream)
        return
    is_daemon = not runner.get("nodaemon")
    name = runner.get("logfile") or ("twistd.log" if is_daemon else "-")
    if runner.get("logger") or runner.get("syslog") or (is_daemon and name == "-"):
        return  # twistd ends a daemon that is to log to standard output
    stream: Any = sys.stdout
    if name != "-":
        try:
            stream = _RotatedFile.fromFullPath(name)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise SystemExit(
                f"twistd dicom: the log file {name} cannot be written: {error.strerror}; "
                "name another one: twistd --logfile FILE dicom"
            ) from error
        _at_user_signal(stream.rotate, reactor)
    application.setComponent(ILogObserver, _observer(form, stream))
