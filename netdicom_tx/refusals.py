"""Log lines about refused peers: what came, what was expected, and what to do about it.

A peer that is refused tries again, often many times a second. :class:`Refusals` therefore logs one line a minute for
each host and kind of refusal, and says later how many others there were.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import LogLevel

from .exceptions import printable
from .logs import Logger
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
    "refuse_certificate",
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


_LOOK = "look in the log of the peer for what is wrong with the certificate of this side"

# The words of OpenSSL about what it does not accept, and what they mean; "{}" stands for the words themselves.
_TLS_FAULTS: Final = (
    (
        ("http request", "proxy request"),
        Refusal("HTTP", "an HTTP request without TLS came", "DICOM over TLS", _CALLER),
    ),
    (
        ("wrong version number", "packet length too long", "unknown protocol"),
        Refusal(
            "no TLS",
            "something else than TLS came",
            "a TLS ClientHello",
            "turn TLS on at the peer, or let it call a port without TLS",
        ),
    ),
    (
        ("did not return a certificate",),
        Refusal(
            "certificate",
            "the peer has no certificate",
            "a client certificate",
            "give the peer a certificate of an authority that is trusted here",
        ),
    ),
    (
        ("unsupported protocol", "version too low", "inappropriate fallback"),
        Refusal(
            "TLS version",
            "the peer offers no TLS version that is allowed here ({})",
            "TLS 1.2 or newer",
            "turn TLS 1.2 or 1.3 on at the peer, or renew its software",
        ),
    ),
    (
        ("no shared cipher", "no suitable key share", "no suitable signature algorithm"),
        Refusal(
            "TLS cipher",
            "the peer offers no cipher suite that is allowed here ({})",
            "one of the TLS profile of this side",
            "compare the TLS profiles of both sides",
        ),
    ),
    (
        ("",),
        Refusal(
            "TLS",
            "the TLS handshake failed: {}",
            advice="check the TLS version, the cipher suites and the certificate of the peer",
        ),
    ),
)
# What an alert of the peer says about this side (RFC 8446 6.2), and what to do about it.
_ALERTS = {
    "certificate required": "give this side a certificate, because the peer demands one",
    "unknown ca": "let the peer trust the authority that signed the certificate of this side",
    "certificate expired": "renew the certificate of this side, or correct the clock of the peer",
    "bad certificate": _LOOK,
    "certificate unknown": _LOOK,
    "protocol version": "let the peer speak TLS 1.2 or newer",
    "handshake failure": "compare the TLS profiles of both sides, and give this side a certificate if the peer "
    "demands one",
}

# Why the certificate of a peer is refused, by the transport of the connection.
_certificates: WeakKeyDictionary[object, Refusal] = WeakKeyDictionary()


def refuse_certificate(transport: object, refusal: Refusal) -> None:
    """Keep why the certificate of a peer is refused, because OpenSSL's error does not tell.

    Args:
        transport: The transport that the certificate came by.
        refusal: The first reason counts.
    """
    _certificates.setdefault(transport, refusal)


def tls_failed(
    error: object, transport: object = None, *, is_client: bool = False
) -> Refusal | None:
    """The refusal for an error of OpenSSL; None for another error, and where the peer has only gone away.

    Args:
        error: Why the connection has ended.
        transport: The transport of the connection.
        is_client: Whether this side has opened the connection.
    """
    if type(error).__module__ != "OpenSSL.SSL" or type(error).__name__ != "Error":
        return None
    (queue, *_) = getattr(error, "args", ()) or ((),)
    said = printable(", ".join(str(entry[-1]) for entry in queue), 200)
    if "verify failed" in said and transport is not None and transport in _certificates:
        return _certificates[transport]
    if "alert" in said:
        advice = next(
            (advice for words, advice in _ALERTS.items() if words in said),
            "see that the peer trusts the certificate of this side, and speaks TLS 1.2 or newer",
        )
        return Refusal("TLS", f"the peer ended the TLS handshake: {said}", advice=advice)
    if "unexpected eof" in said or not said:
        return None
    found = next(found for words, found in _TLS_FAULTS if any(each in said for each in words))
    if is_client and found.kind == "no TLS":
        advice = "call this port without TLS, or another one"
        return Refusal("no TLS", "the peer does not speak TLS at this port", advice=advice)
    return replace(found, came=found.came.format(said))


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
                "not serving",
                "this side is starting or stopping",
                advice="let the peer try again later",
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
        advice="compare what the peer proposes with what is served here, and with what this AE title may do",
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
                event="refused",
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
                    event="refused",
                )
        if self._beyond and len(self._lines) < TABLE_SIZE:
            beyond, self._beyond = self._beyond, 0
            self._log.warn(
                "refused others {count} times, without a line for each",
                count=beyond,
                event="refused",
            )
