"""The log lines of this package: nothing of a patient is in them, and UIDs may be replaced by digests.

``Logger`` is the logger of every module. From the level *info* on it shows

- of an exception, its type, and its message only if the message is made by this package, by the operating system or
  from names in a program: others, such as ``ValueError``, quote what they do not like;
- of a status, its meaning without the Error Comment, which is free text of a peer;
- of a traceback, its lines of code, and the last line as above.

Observers get the exception itself as ``event["log_failure"].value``; what a program makes of it is up to the program.
"""

from __future__ import annotations

import hmac
import logging
import re
import warnings
from enum import StrEnum
from hashlib import sha256
from io import StringIO
from time import time
from typing import IO, Any, Final

from twisted.logger import Logger as TwistedLogger
from twisted.logger import LogLevel
from twisted.python import log as twisted_log
from twisted.python.failure import Failure
from twisted.python.reflect import qual

from .exceptions import EventHandlingError, NetDICOMError
from .statuses import Status

__all__ = [
    "Level",
    "LogUIDs",
    "Logger",
    "Trouble",
    "digest_of_uid",
    "quiet_pydicom",
    "show_from",
    "show_uids",
    "shown",
    "shown_failure",
    "shown_text",
]

# Their messages hold names of a program, or what the operating system says of a file of this machine.
_TELLING: Final = (NetDICOMError, OSError, NameError, AttributeError, ImportError)
_WITHHELD: Final = "its message is not logged, because it may hold patient data"
# PS3.5 9.1: numbers joined by periods. Three of them at least, or every decimal fraction would be a UID.
_UID: Final = re.compile(r"(?<![\w.])[0-2](?:\.(?:0|[1-9]\d*)){2,}(?![\w]|\.\d)")
_IPV4: Final = re.compile(r"[0-2](?:\.\d{1,3}){3}")
# UIDs that the standard registers say nothing of a patient.
_REGISTERED: Final = "1.2.840.10008."
_DIGITS: Final = 12
_LEVELS: Final = frozenset(LogLevel.iterconstants())
# Lines of these levels may show what others may not.
_PRIVATE: Final = frozenset(each for each in _LEVELS if each < LogLevel.info)
# What has nothing to hide, and what has when UIDs are shown as digests.
_NUMBERS: Final = frozenset((bool, int, float, type(None)))
_PLAIN: Final = _NUMBERS | {str}


class LogUIDs(StrEnum):
    """How UIDs appear in the log."""

    PLAIN = "plain"
    DIGEST = "digest"


class Level(StrEnum):
    """How important a log line is."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class _Settings:
    """The settings of the process, which has one log."""

    uids = LogUIDs.PLAIN
    key = b""
    level = LogLevel.debug
    hidden: frozenset[Any] = frozenset()  # the levels below


def show_from(level: Level) -> None:
    """Decide how important a log line of this package has to be to be written by this process from now on.

    Args:
        level: The least important level that is written.
    """
    _Settings.level = LogLevel.levelWithName(level.value)
    _Settings.hidden = frozenset(each for each in _LEVELS if each < _Settings.level)


def is_shown(level: Any) -> bool:
    """Whether a log line of this level is written by this process."""
    return bool(level >= _Settings.level)


def show_uids(how: LogUIDs, key: str = "") -> None:
    """Decide how UIDs appear in the log lines of this process from now on.

    Args:
        how: As they are, or as digests.
        key: What the digests depend on, such as the AE title of the node. Lines with the same UID have the same
            digest, also after a restart, as long as the key is the same.
    """
    _Settings.uids, _Settings.key = how, key.encode()


def digest_of_uid(uid: str, key: str) -> str:
    """What stands for a UID in the log of a node with this key."""
    return _digest(uid, key.encode())


def _digest(uid: str, key: bytes) -> str:
    return f"uid:{hmac.new(key, uid.encode(), sha256).hexdigest()[:_DIGITS]}"


def _without_uids(text: str) -> str:
    def replaced(found: re.Match[str]) -> str:
        uid = found[0]
        if uid.startswith(_REGISTERED) or _IPV4.fullmatch(uid):
            return uid
        return _digest(uid, _Settings.key)

    return _UID.sub(replaced, text)


def quiet_pydicom() -> None:
    """Drop the warnings of pydicom in this process, because they quote the values that they are about.

    ``twistd dicom`` calls this. A program that serves DICOM by itself should call it, too.
    """
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


def _is_telling(error: BaseException) -> bool:
    """Whether the message of an exception may be logged; that of a status may quote the Error Comment of a peer."""
    return isinstance(error, _TELLING) and not isinstance(error, EventHandlingError)


def _message(error: BaseException) -> str:
    """What a log line may say of an exception beside its type."""
    if isinstance(error, EventHandlingError):
        return "without a status" if error.status is None else f"status 0x{error.status:04X}"
    return str(error) if _is_telling(error) else f"({_WITHHELD})"


class _Shown:
    """A value whose UIDs are shown as digests, whatever the way in which it is formatted."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return _without_uids(str(self._value))

    def __repr__(self) -> str:
        return _without_uids(repr(self._value))

    def __format__(self, spec: str) -> str:
        return _without_uids(format(self._value, spec))

    def __getattr__(self, name: str) -> Any:  # a template may name an attribute
        return shown(getattr(self._value, name))


class _Reason:
    """An exception, as a log line shows it."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __str__(self) -> str:
        return f"{type(self._error).__name__} {_message(self._error)}"

    def __repr__(self) -> str:
        return f"<{self}>"


class _PrivateFailure(Failure):
    """A failure whose text does not show a message that may hold patient data."""

    @classmethod
    def of(cls, failure: Failure) -> _PrivateFailure:
        made = cls.__new__(cls)
        made.__dict__.update(failure.__dict__)
        return made

    def getErrorMessage(self) -> str:
        error = self.value
        return shown_text(_message(error) if isinstance(error, BaseException) else str(self.type))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {qual(type(self.value))}: {self.getErrorMessage()}>"

    __str__ = __repr__

    def printTraceback(
        self,
        file: IO[str] | None = None,
        elideFrameworkCode: bool = False,
        detail: str = "default",
    ) -> None:
        plain = Failure.__new__(Failure)
        plain.__dict__.update(self.__dict__)
        plain.value = Exception(self.getErrorMessage())
        text = StringIO()
        # Never "verbose", which shows the values of variables.
        plain.printTraceback(text, detail="brief" if detail == "brief" else "default")
        target: Any = twisted_log.logerr if file is None else file
        target.write(shown_text(text.getvalue()))


def shown_text(text: str) -> str:
    """A text of a log line, with digests for its UIDs if the process shows them so."""
    return _without_uids(text) if _Settings.uids is LogUIDs.DIGEST else text


def shown_failure(failure: Failure) -> Failure:
    """A failure whose text has no message that may hold patient data."""
    return failure if isinstance(failure, _PrivateFailure) else _PrivateFailure.of(failure)


def shown(value: object) -> object:
    """A value of a log event, without what may not be seen."""
    if isinstance(value, Failure):
        return shown_failure(value)
    if isinstance(value, Status):
        return Status(int(value), value.command)
    if isinstance(value, BaseException) and not _is_telling(value):
        return _Reason(value)
    if _Settings.uids is LogUIDs.PLAIN or isinstance(value, int | float | None):
        return value
    return _Shown(value)


class Logger(TwistedLogger):
    """A logger for what peers may have a part in; the module says what it does not show."""

    def emit(self, level: Any, format: str | None = None, **kwargs: object) -> None:
        if level in _Settings.hidden:
            return
        if level not in _PRIVATE:
            plain = _PLAIN if _Settings.uids is LogUIDs.PLAIN else _NUMBERS
            kwargs = {
                name: value if type(value) in plain else shown(value)
                for name, value in kwargs.items()
            }
        if level not in _LEVELS or "log_trace" in kwargs:
            super().emit(level, format, **kwargs)
            return
        # This is what Twisted does, but for a look-up that sorts the levels for each line.
        kwargs.update(
            log_logger=self,
            log_level=level,
            log_namespace=self.namespace,
            log_source=self.source,
            log_format=format,
            log_time=time(),
        )
        self.observer(kwargs)


class Trouble:
    """Something that does not work for a while, and is met again and again in the meantime.

    The log has a line when it begins or becomes another one, and a line when it is over.

    Args:
        log: The logger of the lines.

    Attributes:
        count: How often it was met since it has begun; 0 when it is over.
    """

    def __init__(self, log: TwistedLogger) -> None:
        self.count = 0
        self._log = log
        self._kind: object = None

    def met(
        self, kind: object, format: str, /, *, level: Any = LogLevel.error, **fields: object
    ) -> None:
        """It is met.

        Args:
            kind: Compares equal as long as it is the same trouble.
            format: The template of the line.
            level: The level of the line.
            fields: What the template names.
        """
        self.count += 1
        if kind != self._kind:
            self._kind = kind
            self._log.emit(level, format, **fields)

    def over(self, format: str, /, **fields: object) -> None:
        """What did not work has worked; the template may name ``count``."""
        if self.count:
            self._log.info(format, count=self.count, **fields)
            self.count, self._kind = 0, None
