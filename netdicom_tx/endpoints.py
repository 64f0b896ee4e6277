r"""Endpoint strings of listeners, checked before anything is opened.

``tcp:11112``, ``tcp6:11112:interface=\:\:1``, ``ssl:2762:privateKey=key.pem:certKey=cert.pem``, and the other forms
that Twisted's plugins add. Twisted reports a mistake in such a string with any of a dozen exceptions, or only when
the port is opened; :func:`server_endpoint` reports it with one that says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet import defer
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python.failure import Failure

from .exceptions import LocalProtocolError

__all__ = ["failed_at_once", "is_public", "may_be_public", "place_of", "server_endpoint"]

_EXAMPLE = "tcp:11112:interface=127.0.0.1"
#: How many connections the system holds that the node has not accepted yet; it may allow fewer (somaxconn).
BACKLOG = 4096
_SEPARATOR = re.compile(r"(?<!\\):")


def server_endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    """Make the endpoint that a string names.

    Args:
        reactor: The reactor to listen with later; to check a string, any object will do.

    Raises:
        LocalProtocolError: The string does not name an endpoint, or a file that it names cannot be used.
    """
    _check_port(text)
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, _with_backlog(text))
    except ImportError as error:
        raise LocalProtocolError(
            f"{text!r} needs packages that are not installed ({error}); "
            "pip install 'netdicom-tx[tls]'"
        ) from error
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        raise LocalProtocolError(f"{text!r} cannot be used: {file}{error.strerror}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise LocalProtocolError(
            f"{text!r} is not a Twisted server endpoint such as {_EXAMPLE}: {error}"
        ) from error
    except Exception as error:  # what pyOpenSSL raises has no base class of its own
        if not (isinstance(error, VerifyError) or type(error).__module__.startswith("OpenSSL")):
            raise
        raise LocalProtocolError(
            f"{text!r} cannot be used: privateKey and certKey must name a private key and its "
            f"certificate in PEM form{_reason(error)}"
        ) from error
    return endpoint


def _with_backlog(text: str) -> str:
    """Let many peers call in the same moment, where the text does not say how many; Twisted's own number is 50."""
    kind, *arguments = _SEPARATOR.split(text)
    has_own = any(each.startswith("backlog=") for each in arguments)
    return text if has_own or kind not in ("tcp", "tcp6", "ssl") else f"{text}:backlog={BACKLOG}"


def _check_port(text: str) -> None:
    """Twisted takes any number, and fails when it opens the port."""
    kind, *arguments = _SEPARATOR.split(text)
    if kind not in ("tcp", "tcp6", "ssl"):
        return
    named = [each[5:] for each in arguments if each.startswith("port=")]
    port = (named or arguments or [""])[0]
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise LocalProtocolError(
            f"{text!r} has no port from 0 to 65535; expected an endpoint such as {_EXAMPLE}"
        )


def _reason(error: Exception) -> str:
    """The words of OpenSSL, the last of ``[(library, function, reason)]``; or those of Twisted."""
    if isinstance(error, VerifyError):
        return f" ({error})"
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return f" ({entries[-1][-1]})" if entries and entries[-1][-1] else ""


def place_of(text: str) -> tuple[int, bool, str] | None:
    """The port of an endpoint string for TCP, whether it is IPv6, and its interface, which is empty for all of them."""
    kind, *arguments = _SEPARATOR.split(text)
    if kind not in ("tcp", "tcp6", "ssl"):
        return None
    values = dict(
        zip(("port", "interface"), (each for each in arguments if "=" not in each), strict=False)
    )
    values |= {each.partition("=")[0]: each.partition("=")[2] for each in arguments if "=" in each}
    port, host = values.get("port", ""), values.get("interface", "").replace("\\", "")
    is_six = kind == "tcp6" or ":" in host
    number = int(port) if port.isdecimal() else 0
    return number, is_six, "" if host in ("0.0.0.0", "::") else host


def may_be_public(text: str) -> bool:
    """Whether others than this machine could reach a port that an endpoint string names, as far as the string says."""
    place = place_of(text)
    if place is None:
        return False
    try:
        return not place[2] or is_public(place[2])
    except ValueError:  # a name, whose address is known when the port is open
        return False


def is_public(host: str) -> bool:
    """Whether others than this machine can reach a port at this address; empty for a local socket."""
    return bool(host) and not ip_address(host.partition("%")[0]).is_loopback


def failed_at_once(
    openings: Sequence[defer.Deferred[Any]], failed_later: Callable[[Failure], object]
) -> None:
    """Raise why a port could not be opened, as a service does that is being started.

    Args:
        openings: What endpoints have returned. Most have fired already.
        failed_later: Called for each that fails only after this call, and was not cancelled.

    Raises:
        CannotListenError: One of the ports could not be opened.
    """
    failures: list[Failure] = []
    is_starting = True

    def failed(failure: Failure) -> None:
        if failure.check(defer.CancelledError):
            return
        if is_starting:
            failures.append(failure)
        else:
            failed_later(failure)

    for each in openings:
        each.addErrback(failed)
    is_starting = False
    if failures:
        failures[0].raiseException()
