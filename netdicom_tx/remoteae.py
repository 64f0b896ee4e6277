"""A peer as a value: its AE title, its address, and how it is to be called."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from .arguments import check_type
from .exceptions import LocalProtocolError
from .pdu import check_ae_title
from .quirks import NO_QUIRKS, Quirks
from .tls import TLSOptions
from .userdataitems import UserIdentity

__all__ = ["ANY_SCP", "RemoteAE"]

#: The called AE title when an address does not name one.
ANY_SCP = "ANY-SCP"
_FORMS = "'AETITLE@host:port', 'host:port' or an endpoint string such as 'tcp:host:port'"
_HOST_AND_PORT = re.compile(
    r"(\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})"
)


def _host_of(place: re.Match[str]) -> str:
    return place["v6"] or place["host"]


def _checked(peer: str, where: str) -> str:
    """The place of an address: ``host:port``, or an endpoint string."""
    match = _HOST_AND_PORT.fullmatch(where)
    if match is None and ":" not in where:
        raise LocalProtocolError(f"{peer!r} has no port; expected {_FORMS}")
    if match is not None and not 0 < int(match["port"]) < 65536:
        raise LocalProtocolError(f"{peer!r}: {match['port']} is not a port from 1 to 65535")
    return where


@dataclass(frozen=True, slots=True)
class RemoteAE:
    """An application entity to call.

    Args:
        ae_title: The called AE title.
        endpoint: ``"pacs.example:104"``, a Twisted client endpoint, or its string: ``"tcp:pacs.example:104"``.
        identity: The identity of our user, for the peer to check (PS3.7 D.3.3.7). When it requests a positive
            response and none comes, the association is aborted.
        tls: How TLS is spoken over the endpoint; None speaks without TLS.
        quirks: What is agreed on with this peer, whatever the application entity would negotiate.

    Raises:
        TypeError, LocalProtocolError: An argument is wrong.
    """

    ae_title: str
    endpoint: str | IStreamClientEndpoint
    identity: UserIdentity | None = field(default=None, repr=False)
    tls: TLSOptions | None = None
    quirks: Quirks = NO_QUIRKS

    def __post_init__(self) -> None:
        object.__setattr__(self, "ae_title", check_ae_title(self.ae_title))
        if not isinstance(self.endpoint, str) and not hasattr(self.endpoint, "connect"):
            raise TypeError(f"endpoint is {self.endpoint!r:.80}; expected {_FORMS}, or an endpoint")
        if self.identity is not None:
            check_type("identity", self.identity, UserIdentity)
        if self.tls is not None:
            check_type("tls", self.tls, TLSOptions, "TLSOptions")
        check_type("quirks", self.quirks, Quirks, "Quirks, such as Quirks(window=1)")

    @classmethod
    def of(cls, peer: str | RemoteAE | IStreamClientEndpoint) -> RemoteAE:
        """The application entity at an address.

        Args:
            peer: The address: ``"ARCHIVE@pacs.example:104"``. Without ``ARCHIVE@`` the peer is called
                ``ANY-SCP``, as DCMTK's tools do. An IPv6 address is written in brackets. A Twisted client endpoint
                string may replace host and port; an endpoint or a :class:`RemoteAE` may replace the string.

        Raises:
            LocalProtocolError: The address is not one of these forms.
        """
        if isinstance(peer, RemoteAE):
            return peer
        if not isinstance(peer, str):
            if not IStreamClientEndpoint.providedBy(peer):
                raise LocalProtocolError(
                    f"{peer!r:.60} is not an address; expected {_FORMS}, an endpoint, or a RemoteAE"
                )
            return cls(ANY_SCP, peer)
        title, at, where = peer.rpartition("@")
        if at and not title.strip():
            raise LocalProtocolError(f"{peer!r} has no AE title before the @; expected {_FORMS}")
        return cls(title or ANY_SCP, _checked(peer, where))

    def connector(self, reactor: Any) -> IStreamClientEndpoint:
        """The endpoint to connect with.

        Raises:
            LocalProtocolError: The string is not that of a client endpoint.
        """
        endpoint: IStreamClientEndpoint
        if isinstance(self.endpoint, str):
            place = _HOST_AND_PORT.fullmatch(self.endpoint)
            try:
                if place is not None:
                    endpoint = HostnameEndpoint(reactor, _host_of(place), int(place["port"]))
                else:
                    endpoint = clientFromString(reactor, self.endpoint)
            except (ValueError, TypeError) as error:  # TypeError: an argument is missing
                raise LocalProtocolError(
                    f"{self.endpoint!r} is not a client endpoint; expected one such as "
                    f"'tcp:pacs.example:104': {error}"
                ) from error
        else:
            endpoint = self.endpoint
        return endpoint if self.tls is None else self.tls.wrap_client(endpoint, self._host())

    def _host(self) -> str:
        """The host of an endpoint string, against which the name in a certificate is checked."""
        if not isinstance(self.endpoint, str):
            return ""
        place = _HOST_AND_PORT.fullmatch(self.endpoint)
        if place is not None:
            return _host_of(place)
        parts = re.split(r"(?<!\\):", self.endpoint)
        return next(
            (part[5:] for part in parts if part.startswith("host=")), parts[1] if parts[1:] else ""
        ).replace("\\:", ":")
