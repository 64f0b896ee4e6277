"""What went wrong, in the words of an operator: three lines and an exit code.

====  =========================================================================
code  meaning
====  =========================================================================
0     all well
1     finished with some failures (some instances; Warning B000 of GET and MOVE)
2     usage: an argument, a key, a file or an address that cannot be used
3     could not connect
4     association rejected
5     no acceptable presentation context
6     the peer aborted, broke the protocol, or closed the connection
7     timeout
8     DIMSE failure status
9     TLS failure
78    configuration error
130   interrupted
====  =========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...exceptions import AssociationRejectedError, ClassNotSupportedError, DCMTimeoutError
    from ...statuses import Status

__all__ = ["CommandError", "ExitCode", "Problem", "StatusFailure", "bad_input", "explain"]


class ExitCode(IntEnum):
    """Of every command; the numbers are part of the interface."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NOT_CONNECTED = 3
    REJECTED = 4
    NO_CONTEXT = 5
    ABORTED = 6
    TIMEOUT = 7
    STATUS = 8
    TLS = 9
    CONFIGURATION = 78
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a command failed.

    Attributes:
        what: What happened, one sentence without a full stop.
        evidence: What that is known from; a line each.
        hint: What to try.
    """

    code: int
    what: str
    evidence: str = ""
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        lines += [f"       {line}" for line in self.evidence.splitlines()]
        if self.hint:
            lines.append(f"hint:  {self.hint}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: the value of ``"error"``."""
        return {
            "code": int(self.code),
            "what": self.what,
            "evidence": self.evidence,
            "hint": self.hint,
        }


class CommandError(Exception):
    """A command cannot go on, for this reason."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def bad_input(what: str, evidence: str = "", hint: str = "") -> CommandError:
    """What the user gave cannot be used: exit code 2."""
    return CommandError(Problem(ExitCode.USAGE, what, evidence, hint))


class StatusFailure(Exception):
    """An operation ended with a failing DIMSE status."""

    def __init__(self, operation: str, status: Status) -> None:
        super().__init__(f"{operation}: {status}")
        self.operation = operation
        self.status = status


# PS3.8 Table 9-21, by source and reason.
_AFTER_REJECTION = {
    (
        1,
        1,
    ): "it gives no reason: look in its log; often it wants to know the calling AE title first",
    (1, 3): "ask its administrator to add your AE title, or pass the one it knows with -aet TITLE",
    (1, 7): "ask its administrator for its AE title, or pass it with -aec TITLE",
    (3, 1): "it is busy: try again later",
    (3, 2): "it has no association left: try again later, with fewer --jobs",
}
_AFTER_TIMEOUT = {
    "connect": "is a firewall in the way? give it more time with -to SECONDS",
    "associate": "does a DICOM application listen there? give it more time with -ta SECONDS",
    "response": "it may be busy: give it more time with -td SECONDS",
}
_AFTER_STATUS = {
    0xA700: "the peer is out of resources: look at its disk and its log",
    0xA701: "the peer is out of resources: ask for less at once",
    0xA702: "the peer could not send the instances: look in its log, and at what the receiver takes",
    0xA801: "the peer does not know the move destination: have it added there, with its address",
    0xA900: "the peer does not take these keys: check the level and its unique key",
    0x0111: "the peer holds another instance with this UID, and keeps it: compare the two",
    0x0122: "the peer does not do this operation for this SOP class",
    0x0124: "the peer does not allow it: ask its administrator",
}


def explain(error: BaseException, peer: str, calling: str, called: str) -> Problem:
    """The problem that an error of the library is.

    Args:
        peer: As the user knows it, ``ARCHIVE@10.0.0.5:104``.
        calling: Our AE title.
        called: The AE title that we called.

    Raises:
        BaseException: The error itself, when it is none that a peer or a user can cause.
    """
    from ... import exceptions

    match error:
        case CommandError(problem=problem):
            return problem
        case StatusFailure():
            return _failing_status(error, peer)
        case exceptions.AssociationRejectedError():
            return _rejected(error, peer, calling, called)
        case exceptions.ClassNotSupportedError():
            return _not_supported(error, peer)
        case exceptions.DCMTimeoutError():
            return _timed_out(error, peer)
        case exceptions.ConnectionLostError():
            return _no_connection(error, peer)
        case exceptions.AssociationAbortedError() | exceptions.AssociationReleasedError():
            return Problem(
                ExitCode.ABORTED,
                f"{peer} ended the association before the operation was complete"
                if getattr(error, "by_peer", True)
                else f"the association with {peer} had to be aborted",
                str(error),
                "look in its log for the reason; -vv shows what went before",
            )
        case exceptions.RemoteProtocolError():
            return Problem(
                ExitCode.ABORTED,
                f"{peer} broke the protocol",
                str(error),
                "does a DICOM application listen there?",
            )
        case exceptions.NetDICOMError():
            return Problem(ExitCode.USAGE, "this cannot be done", str(error), "see --help")
        case OSError():
            what = f"{error.filename} cannot be used" if error.filename else "the system refused"
            return Problem(ExitCode.USAGE, what, str(error.strerror or error), "check the path")
    raise error


def _rejected(error: AssociationRejectedError, peer: str, calling: str, called: str) -> Problem:
    words, _, numbers = str(error).removeprefix("association rejected: ").partition(" (")
    hint = _AFTER_REJECTION.get((error.source, error.diagnostic), "look in its log for the reason")
    return Problem(
        ExitCode.REJECTED,
        f"{peer} rejected the association: {words}",
        f'{numbers.removesuffix(")")}; we called it "{called}", and ourselves "{calling}"',
        hint,
    )


def _not_supported(error: ClassNotSupportedError, peer: str) -> Problem:
    from ...exceptions import printable
    from ...uids import name

    answers = "; ".join(f"{name(printable(ts))}: {said}" for ts, said in error.answers.items())
    return Problem(
        ExitCode.NO_CONTEXT,
        f"{peer} accepted no presentation context for {name(printable(error.sop_class))}",
        answers or "it was not proposed",
        "the peer does not offer this service, or not in these transfer syntaxes: look at its "
        "conformance statement",
    )


def _timed_out(error: DCMTimeoutError, peer: str) -> Problem:
    return Problem(
        ExitCode.TIMEOUT,
        f"{peer} did not answer in time",
        str(error),
        _AFTER_TIMEOUT.get(error.timer, "look at the network and at the peer's log"),
    )


def _no_connection(error: BaseException, peer: str) -> Problem:
    from twisted.internet import error as internet

    cause = error.__cause__
    if cause is None:
        detail = str(error)
        if "SSL" in detail:
            return _no_tls(peer, detail)
        return Problem(
            ExitCode.ABORTED,
            f"the connection with {peer} was lost",
            detail,
            "did the peer stop? does a DICOM application listen there? does it want TLS: --tls",
        )
    if type(cause).__module__.startswith("OpenSSL") or "SSL" in type(cause).__name__:
        return _no_tls(peer, repr(cause))
    what, hint = "cannot be reached", "check host and port; is it running?"
    match cause:
        case internet.ConnectionRefusedError():
            what = "refused the connection: nobody listens at this port"
        case internet.DNSLookupError():
            what, hint = "cannot be reached: its host name is unknown", "check the host name"
        case internet.TimeoutError():
            return Problem(
                ExitCode.TIMEOUT,
                f"{peer} did not answer in time",
                str(cause),
                _AFTER_TIMEOUT["connect"],
            )
    return Problem(ExitCode.NOT_CONNECTED, f"{peer} {what}", str(cause), hint)


def _no_tls(peer: str, detail: str) -> Problem:
    hint = "does it want our certificate? --tls-cert FILE"
    if "wrong version number" in detail or "packet length" in detail:
        hint = "it speaks no TLS at this port: call it without --tls, as AET@host:port"
    elif "verify failed" in detail:
        hint = "whose certificate is it? --tls-ca FILE, or --tls-fingerprint SHA256"
    return Problem(ExitCode.TLS, f"no TLS connection with {peer}", detail, hint)


def _failing_status(error: StatusFailure, peer: str) -> Problem:
    code = int(error.status)
    hint = _AFTER_STATUS.get(code, "look in the peer's log for the reason")
    if code in range(0xA901, 0xAA00):
        hint = _AFTER_STATUS[0xA900]
    return Problem(
        ExitCode.STATUS,
        f"{peer} answered {error.operation} with a failure",
        str(error.status),
        hint,
    )
