"""Log lines about refused peers: what came, what was expected, and what to do about it.

A peer that is refused tries again, often many times a second. :class:`Refusals` therefore logs one line a minute for
each host and kind of refusal, and says later how many others there were.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger, LogLevel

from .exceptions import printable
from .negotiation import refusals as answers_to
from .pdu import AAssociateAC, AAssociateRJ, AAssociateRQ
from .uids import name

__all__ = [
    "INTERVAL",
    "TABLE_SIZE",
    "Refusal",
    "Refusals",
    "aborted",
    "cut_off",
    "no_contexts",
    "not_asked",
    "place",
    "rejected",
    "tls_failed",
]

#: How many seconds pass between two lines for the same host and kind.
INTERVAL: Final = 60.0
#: How many hosts and kinds are remembered; above that, further ones are counted together.
TABLE_SIZE: Final = 1024

_CALLER = "check the address and the port in the program that called"
_TITLES = "correct the AE title in the configuration of the peer"
_SOFTWARE = "look for a newer version of the peer's software, or ask its maker"
_REQUEST = "an association request (A-ASSOCIATE-RQ)"
_HTTP: Final = (b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"DELETE ", b"PRI ")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a peer is refused.

    Attributes:
        kind: A short word; a host has one line a minute for each.
        came: What came, as a clause that follows the address.
        expected: What was expected; empty when that is obvious.
        advice: What to do about it; empty when nothing can be done.
        verb: What was done to the peer.
        is_noise: Whether it is not worth a warning.
    """

    kind: str
    came: str
    expected: str = ""
    advice: str = ""
    verb: str = "refused"
    is_noise: bool = False

    @property
    def level(self) -> Any:  # a constant of LogLevel, which has no type
        return LogLevel.debug if self.is_noise else LogLevel.warn

    def __str__(self) -> str:
        expected = f"expected {self.expected}" if self.expected else ""
        return "; ".join(filter(None, (self.came, expected, self.advice)))


def place(address: IAddress | None) -> str:
    """An address as host:port, for logs."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None or port is None:
        return printable(getattr(address, "name", None) or address or "an unknown address")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- the reasons -------------------------------------------------------------------------------------


def not_asked(octets: bytes, detail: str) -> Refusal:
    """Something other than an association request came first.

    Args:
        octets: The first octets.
        detail: Why the upper layer does not accept them.
    """
    if any(octets.startswith(method[: len(octets)]) for method in _HTTP):
        return Refusal("HTTP", "an HTTP request came", "DICOM", _CALLER)
    if octets[:2] == b"\x16\x03":
        advice = "turn TLS off at the peer, or serve TLS at this port"
        return Refusal("TLS", "a TLS ClientHello came", "DICOM without TLS", advice)
    if octets[:1] not in (b"\1", b"\2", b"\3", b"\4", b"\5", b"\6", b"\7"):
        came = f"octets came that are not DICOM ({octets[:8].hex(' ')})"
        return Refusal("not DICOM", came, _REQUEST, _CALLER)
    what, _, where = detail.partition(" is not expected in ")
    if where:
        return Refusal("order", f"{what} came first", _REQUEST, _SOFTWARE)
    came, _, expected = detail.partition("; expected ")
    return Refusal(_kind(came), came, expected or _REQUEST, _SOFTWARE)


def _kind(came: str) -> str:
    """A word for the kind of fault of a PDU."""
    return "length" if " octets" in came else "PDU"


def cut_off(octets: int, end: str) -> Refusal:
    """A connection ends before the association request is complete.

    Args:
        octets: How many octets came.
        end: How the connection has ended.
    """
    if not octets:
        # Port scanners and health checks do this.
        return Refusal("silence", f"nothing came {end}", _REQUEST, is_noise=True)
    came = f"{octets} octets came {end}"
    return Refusal("cut off", came, f"the whole of {_REQUEST}", _CALLER)


# The words of OpenSSL about a peer that does not speak TLS.
_NO_TLS = ("wrong version number", "packet length too long", "unknown protocol")


def tls_failed(error: object) -> Refusal | None:
    """The refusal for an error of OpenSSL; None for another error, and where the peer has only gone away."""
    if type(error).__module__ != "OpenSSL.SSL" or type(error).__name__ != "Error":
        return None
    (queue, *_) = getattr(error, "args", ()) or ((),)
    said = printable(", ".join(str(entry[-1]) for entry in queue), 200)
    if "http request" in said or "proxy request" in said:
        return Refusal("HTTP", "an HTTP request without TLS came", "DICOM over TLS", _CALLER)
    if any(words in said for words in _NO_TLS):
        advice = "turn TLS on at the peer, or let it call a port without TLS"
        return Refusal("no TLS", "something else than TLS came", "a TLS ClientHello", advice)
    if "alert" in said:
        advice = (
            "see that the peer trusts the certificate of this side, and speaks TLS 1.2 or newer"
        )
        return Refusal("TLS", f"the peer ended the TLS handshake: {said}", advice=advice)
    if "unexpected eof" in said or not said:
        return None
    advice = "check the TLS version, the cipher suites and the certificate of the peer"
    return Refusal("TLS", f"the TLS handshake failed: {said}", advice=advice)


def rejected(
    request: AAssociateRQ,
    rejection: AAssociateRJ,
    *,
    words: str,
    called: Iterable[str] | None,
    limit: str,
) -> Refusal:
    """An association request is rejected (PS3.8 9.3.4).

    Args:
        request: The request.
        rejection: The answer to it.
        words: The reason, in the words of the standard.
        called: The AE titles that are served, if known.
        limit: How many associations may be open, in words.
    """
    match rejection.source, rejection.reason:
        case 1, 2:
            came = f"application context name {printable(request.application_context)}"
            return Refusal("context name", came, "1.2.840.10008.3.1.1.1 (PS3.7 A.2.1)", _SOFTWARE)
        case 1, 7:
            served = " or ".join(sorted(called)) if called else "1 to 16 characters"
            return Refusal("called", _title("called", request.called_ae_title), served, _TITLES)
        case 1, 3:
            came = _title("calling", request.calling_ae_title)
            if not request.calling_ae_title:
                return Refusal("calling", came, "1 to 16 characters", _TITLES)
            advice = f"{_TITLES}, or add it to the peers that are served here"
            return Refusal("calling", came, "that of a known peer", advice)
        case 3, 1:
            return Refusal(
                "stopping", "this side is stopping", advice="let the peer try again later"
            )
        case 3, 2:
            advice = "let the peer try again later, or raise the limit"
            return Refusal("full", "all places for associations are taken", limit, advice)
    return Refusal("rejected", f"the association is rejected: {words}")


def _title(role: str, title: str) -> str:
    return f"{role} AE title {printable(title)!r}" if title else f"a blank {role} AE title"


def no_contexts(request: AAssociateRQ, answer: AAssociateAC) -> Refusal:
    """An association is accepted, but it has no usable presentation context."""
    told = []
    for uid in dict.fromkeys(each.abstract_syntax for each in request.presentation_contexts):
        words = " or ".join(dict.fromkeys(answers_to(request, answer, uid).values()))
        told.append(f"{printable(name(uid))} ({words})")
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return Refusal(
        "contexts",
        f"no presentation context is accepted: {', '.join(told[:3])}{more}",
        advice="compare what the peer proposes with what is served here",
    )


def aborted(detail: str) -> Refusal:
    """An association is aborted because of what came on it."""
    came, _, expected = printable(detail, 200).partition("; expected ")
    advice = _SOFTWARE if expected else ""
    verb = "aborted the association with"
    return Refusal(f"aborted, {_kind(came)}", came, expected, advice, verb)


# -- the lines ---------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """The last line for a host and kind."""

    since: float
    refusal: Refusal
    others: list[int]  # one number: refusals that have had no line since


class Refusals:
    """The lines about the refusals of one application entity.

    Args:
        clock: Gives the clock.
    """

    _log = Logger()

    def __init__(self, clock: Callable[[], IReactorTime]) -> None:
        self._clock = clock
        # The last lines by host and kind, the oldest first.
        self._lines: OrderedDict[tuple[str, str], _Line] = OrderedDict()
        self._beyond = 0  # refusals for which the table had no room

    def tell(self, address: IAddress | None, refusal: Refusal, peer: str = "") -> None:
        """Log a refusal, or count it.

        Args:
            address: The address of the peer.
            refusal: Why it is refused.
            peer: Its AE title, safe for logs; empty when it is not known.
        """
        self.catch_up()
        key = (str(getattr(address, "host", address)), refusal.kind)
        who = f"{peer} at {place(address)}" if peer else place(address)
        line = self._lines.get(key)
        if line is not None:
            line.others[0] += 1
        elif len(self._lines) >= TABLE_SIZE:
            self._beyond += 1
        else:
            self._lines[key] = _Line(self._clock().seconds(), refusal, [0])
            self._log.emit(
                refusal.level,
                "{verb} {who}: {refusal}",
                verb=refusal.verb,
                who=who,
                refusal=refusal,
            )

    def catch_up(self, *, at_end: bool = False) -> None:
        """Log how many refusals have had no line, for each host and kind whose minute is over.

        Args:
            at_end: Whether this is the last call, which does not wait for the minute.
        """
        if not self._lines:
            return
        now = self._clock().seconds()
        while self._lines:
            key, line = next(iter(self._lines.items()))
            if not at_end and now - line.since < INTERVAL:
                break
            del self._lines[key]
            if line.others[0]:
                if not at_end:
                    self._lines[key] = _Line(now, line.refusal, [0])
                self._log.emit(
                    line.refusal.level,
                    "{verb} {host} {count} times more within {seconds:.0f} s: {came}",
                    verb=line.refusal.verb,
                    host=key[0],
                    count=line.others[0],
                    seconds=now - line.since,
                    came=line.refusal.came,
                )
        if self._beyond and len(self._lines) < TABLE_SIZE:
            beyond, self._beyond = self._beyond, 0
            self._log.warn("refused others {count} times, without a line for each", count=beyond)
