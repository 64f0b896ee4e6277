"""The security of the status page: sessions, tokens against forged requests, names of hosts, headers.

A visitor has one cookie with a random value. The user is looked up by that value, and the token of each form is made
from it, so that a page of another origin cannot know it (OWASP: signed double-submit cookie).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

__all__ = ["HEADERS", "Hosts", "Sessions", "cookie_name"]

#: The headers of every response. Pages have neither scripts nor styles of their own, and no other site may frame them.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer a browser would send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

# A wall display that shows the page keeps its session by the events that it follows.
_IDLE: Final = 3600.0
_LONGEST: Final = 12 * 3600.0
_SESSIONS: Final = 1000

_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::\d{1,5})?")


def cookie_name(*place: str) -> bytes:
    """The name of the only cookie of a page.

    Args:
        place: What distinguishes the page from others on this host, whose cookies a browser sends along.
    """
    return b"netdicom-" + sha256("\n".join(place).encode()).hexdigest()[:8].encode()


class Hosts:
    """The names by which the node may be addressed.

    A page of another origin can let its own name point to this node (DNS rebinding). It cannot do that with
    an address, or with ``localhost``.

    Args:
        names: Further names, such as that of a reverse proxy.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = {"localhost", *(each.lower().rstrip(".") for each in names)}

    def knows(self, header: str) -> bool:
        """Whether the value of a Host header names this node."""
        found = _HOST.fullmatch(header)
        if found is None:
            return False
        host = found["six"] or found["name"]
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return host.lower().rstrip(".") in self._names
        return True


@dataclass(slots=True)
class _Session:
    user: str
    hash: str
    began: float
    seen: float


class Sessions:
    """The visitors who have logged in.

    Args:
        seconds: A monotonic clock.
        hash_of: Gives the hash of the password that a user has now; None when there is no such user.
    """

    def __init__(self, seconds: Callable[[], float], hash_of: Callable[[str], str | None]) -> None:
        self._seconds = seconds
        self._hash_of = hash_of
        self._key = secrets.token_bytes(32)
        self._sessions: dict[bytes, _Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    @staticmethod
    def new_value() -> str:
        """A new value of the cookie."""
        return secrets.token_urlsafe(32)

    @staticmethod
    def is_value(value: str) -> bool:
        """Whether a cookie has the form of :meth:`new_value`."""
        return re.fullmatch(r"[\w-]{43}", value, re.ASCII) is not None

    def open(self, value: str, user: str, password_hash: str) -> None:
        """Open a session; when there are too many, the one that was used least recently is closed.

        Args:
            password_hash: The hash of the password; the session holds as long as the user has it.
        """
        if len(self._sessions) >= _SESSIONS:
            del self._sessions[min(self._sessions, key=lambda each: self._sessions[each].seen)]
        now = self._seconds()
        self._sessions[_digest(value)] = _Session(user, password_hash, now, now)

    def user(self, value: str) -> str | None:
        """The user who has logged in with a value of the cookie; None when nobody has, or too long ago.

        Nor has one whose password was changed, or who was removed.
        """
        session = self._sessions.get(_digest(value))
        if session is None:
            return None
        now = self._seconds()
        if now - session.seen > _IDLE or now - session.began > _LONGEST:
            self.close(value)
            return None
        found = self._hash_of(session.user)
        if found is None or not hmac.compare_digest(found, session.hash):
            return None
        session.seen = now
        return session.user

    def close(self, value: str) -> None:
        """Log a visitor out."""
        self._sessions.pop(_digest(value), None)

    def token(self, value: str) -> str:
        """The token of the forms of a visitor."""
        return hmac.new(self._key, value.encode(), sha256).hexdigest()

    def is_token(self, value: str, token: str) -> bool:
        """Whether a form came with the token of its visitor."""
        return hmac.compare_digest(self.token(value).encode(), token.encode())


def _digest(value: str) -> bytes:
    """The key of a session: with a digest, the time of the look-up reveals nothing about other values."""
    return sha256(value.encode()).digest()
