"""Whom we call: an application entity as a value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from .exceptions import LocalProtocolError
from .pdu import check_ae_title
from .tls import TLSOptions
from .userdataitems import UserIdentity

__all__ = ["RemoteAE"]


@dataclass(frozen=True, slots=True)
class RemoteAE:
    """An application entity to call.

    Args:
        ae_title: Under which we call it.
        endpoint: A Twisted client endpoint, or its string: ``"tcp:pacs.example:104"``.
        identity: Who our user is, for the peer to check (PS3.7 D.3.3.7). When it asks for a positive
            response and none comes, the association is aborted.
        tls: Speak TLS over the endpoint, in this way.
    """

    ae_title: str
    endpoint: str | IStreamClientEndpoint
    identity: UserIdentity | None = field(default=None, repr=False)
    tls: TLSOptions | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ae_title", check_ae_title(self.ae_title))

    def connector(self, reactor: Any) -> IStreamClientEndpoint:
        """The endpoint to connect with.

        Raises:
            LocalProtocolError: The endpoint string is none.
        """
        if isinstance(self.endpoint, str):
            try:
                endpoint: IStreamClientEndpoint = clientFromString(reactor, self.endpoint)
            except (ValueError, TypeError) as error:  # TypeError: an argument is missing
                raise LocalProtocolError(
                    f"{self.endpoint!r} is no client endpoint such as 'tcp:pacs.example:104': {error}"
                ) from error
        else:
            endpoint = self.endpoint
        return endpoint if self.tls is None else self.tls.wrap_client(endpoint, self._host())

    def _host(self) -> str:
        """The host of an endpoint string, for the check of the certificate's name."""
        if not isinstance(self.endpoint, str):
            return ""
        parts = re.split(r"(?<!\\):", self.endpoint)
        return next(
            (part[5:] for part in parts if part.startswith("host=")), parts[1] if parts[1:] else ""
        ).replace("\\:", ":")
