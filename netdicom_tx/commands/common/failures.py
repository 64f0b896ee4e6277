"""Why a command failed, in the words of an operator: three lines and an exit code.

====  ==========================================================================
code  meaning
====  ==========================================================================
0     success
1     some instances failed (also: Warning B000 of C-GET and C-MOVE)
2     usage: an argument, a key, a file or an address cannot be used
3     the connection could not be made
4     the peer rejected the association
5     the peer accepted no presentation context
6     the peer aborted, broke the protocol, or closed the connection
7     timeout
8     the peer answered with a failure status
9     TLS failed
10    there was nothing to send, to import or to retrieve
11    the local disk is full or cannot be written
78    the configuration file, or the directory of a node, cannot be used
130   interrupted
====  ==========================================================================
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
    """The exit codes of every command; the numbers are part of the interface."""

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
    NOTHING = 10
    LOCAL_DISK = 11
    CONFIGURATION = 78
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a command failed.

    Attributes:
        code: The exit code.
        what: What happened: one sentence without a full stop.
        evidence: What shows that it happened; may have several lines.
        hint: What to try next.
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
        """The value of ``"error"`` in a document of ``--json``."""
        return {
            "code": int(self.code),
            "what": self.what,
            "evidence": self.evidence,
            "hint": self.hint,
        }


class CommandError(Exception):
    """A command cannot go on, for the reason in ``problem``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def bad_input(what: str, evidence: str = "", hint: str = "") -> CommandError:
    """The error for input that cannot be used: exit code 2."""
    return CommandError(Problem(ExitCode.USAGE, what, evidence, hint))


class StatusFailure(Exception):
    """An operation ended with a failing DIMSE status."""

    def __init__(self, operation: str, status: Status) -> None:
        super().__init__(f"{operation}: {status}")
        self.operation = operation
        self.status = status


# PS3.8 Table 9-21, by source and reason.
_AFTER_REJECTION = {
    (1, 1): "it gives no reason; look in its log: it may not know our AE title (-aet TITLE)",
    (1, 3): "ask its administrator to add our AE title, or pass one that it knows: -aet TITLE",
    (1, 7): "ask its administrator for its AE title, or pass it: -aec TITLE",
    (3, 1): "it is busy; try again later",
    (3, 2): "it has too many associations open; try again later, or with fewer --jobs",
}
_AFTER_TIMEOUT = {
    "connect": "does a firewall block the port? allow it more time: -to SECONDS",
    "associate": "does a DICOM application listen there? allow it more time: -ta SECONDS",
    "response": "it may be busy; allow it more time: -td SECONDS",
}
_AFTER_STATUS = {
    0xA700: "the peer is out of resources; look at its disk and its log",
    0xA701: "the peer is out of resources; ask for less at once",
    0xA702: "the peer could not send the instances; look in its log and in that of the receiver",
    0xA801: "the peer does not know the move destination; have it added there, with its address",
    0xA900: "the peer does not accept these keys; check the level and its unique key",
    0x0111: "the peer keeps another instance with this UID; compare the two",
    0x0122: "the peer does not perform this operation for this SOP class",
    0x0124: "the peer does not allow this; ask its administrator",
}


def explain(error: BaseException, peer: str, calling: str, called: str) -> Problem:  # noqa: C901 - a table of kinds of errors
    """Turn an error of the library into a problem.

    Args:
        peer: The peer as the user knows it, such as ``ARCHIVE@10.0.0.5:104``.
        calling: Our AE title.
        called: The AE title that we called.

    Raises:
        BaseException: The error itself, when neither a peer nor a user can cause it.
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
        case exceptions.AssociationAbortedError(source=2, reason_diag=1, by_peer=False):
            return Problem(
                ExitCode.ABORTED,
                f"{peer} does not speak DICOM",
                str(error),
                "check the port: another program listens there, or one that speaks TLS",
            )
        case exceptions.AssociationAbortedError() | exceptions.AssociationReleasedError():
            return Problem(
                ExitCode.ABORTED,
                f"{peer} ended the association before the operation was complete"
                if getattr(error, "by_peer", True)
                else f"the association with {peer} had to be aborted",
                str(error),
                "look in the peer's log for the reason; -vv shows what happened before",
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

    if error.role:
        return Problem(
            ExitCode.NO_CONTEXT,
            f"{peer} accepted {name(printable(error.sop_class))}, but not {error.role}",
            str(error),
            "the peer does not take part in this service in that role; see its conformance statement",
        )
    answers = "; ".join(f"{name(printable(ts))}: {said}" for ts, said in error.answers.items())
    return Problem(
        ExitCode.NO_CONTEXT,
        f"{peer} accepted no presentation context for {name(printable(error.sop_class))}",
        answers or "it was not proposed",
        "the peer does not offer this service or these transfer syntaxes, or not to our AE title (-aet): ask what it "
        "allows, and see its conformance statement",
    )


def _timed_out(error: DCMTimeoutError, peer: str) -> Problem:
    return Problem(
        ExitCode.TIMEOUT,
        f"{peer} did not answer in time",
        str(error),
        _AFTER_TIMEOUT.get(error.timer, "check the network, and look in the peer's log"),
    )


def _no_connection(error: BaseException, peer: str) -> Problem:
    from twisted.internet import error as internet

    from ...exceptions import NetDICOMError

    cause = error.__cause__
    while isinstance(
        cause, NetDICOMError
    ):  # the same loss, reported to one of several waiting callers
        error, cause = cause, cause.__cause__
    if cause is None:
        detail = str(error)
        if "SSL" in detail or "TLS: " in detail:
            return _no_tls(peer, detail)
        return Problem(
            ExitCode.ABORTED,
            f"the connection with {peer} was lost",
            detail,
            "did the peer stop? does a DICOM application listen there? does it expect TLS (--tls)?",
        )
    if type(cause).__module__.startswith("OpenSSL") or "SSL" in type(cause).__name__:
        return _no_tls(peer, repr(cause))
    what, hint = "cannot be reached", "check the host and the port; is the peer running?"
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
    hint = "does the peer demand our certificate? pass it: --tls-cert FILE"
    if "does not speak TLS" in detail:
        hint = "the peer does not speak TLS at this port; call it without --tls, as AET@host:port"
    elif "verify failed" in detail or "the certificate of the peer" in detail:
        hint = "trust the peer's certificate: --tls-ca FILE, or --tls-fingerprint SHA256"
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
