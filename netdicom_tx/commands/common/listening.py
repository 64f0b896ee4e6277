"""Where to listen: a port, ``host:port``, or a Twisted endpoint string."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ...exceptions import LocalProtocolError
from .addresses import TLSFiles
from .failures import CommandError, ExitCode, Problem, bad_input

if TYPE_CHECKING:
    from .session import Session

__all__ = ["endpoint_string", "listen", "listening", "where"]

_ENDPOINT = re.compile(r"(tcp6?|unix|systemd|haproxy|fd):")


def endpoint_string(text: str) -> str:
    """A Twisted endpoint string for what was written.

    ``11112`` is that port on every IPv4 interface, ``127.0.0.1:11112`` on one.

    Raises:
        CommandError: It is none of the forms.
    """
    if _ENDPOINT.match(text):
        return text
    host, _, number = text.rpartition(":")
    if not (number.isascii() and number.isdecimal() and int(number) < 65536):
        raise bad_input(
            f"{text!r} is no place to listen",
            "expected a port, host:port, or a Twisted endpoint",
            "write 11112, 127.0.0.1:11112, or tcp:11112:interface=127.0.0.1",
        )
    if not host:
        return f"tcp:{number}"
    if host.startswith("["):
        address = host.strip("[]").replace(":", "\\:")
        return f"tcp6:{number}:interface={address}"
    return f"tcp:{number}:interface={host}"


async def listen(reactor: Any, ae: Any, text: str, tls: TLSFiles | None) -> Any:
    """Listen there; the port.

    Raises:
        CommandError: It is not possible.
    """
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.error import CannotListenError

    try:
        endpoint = serverFromString(reactor, endpoint_string(text))
        if tls is not None:
            endpoint = tls.options().wrap_server(endpoint)
        return await ae.listen(endpoint)
    except CannotListenError as error:
        raise CommandError(
            Problem(
                ExitCode.USAGE,
                f"cannot listen at {text}",
                str(error),
                "is another program there? ports below 1024 need root; name another with --listen",
            )
        ) from error
    except (ValueError, LocalProtocolError, ImportError) as error:
        raise bad_input(f"cannot listen at {text}", str(error), "see --help") from error


def where(port: Any) -> str:
    """``host:port`` of a listening port."""
    host = port.getHost()
    return f"{getattr(host, 'host', host)}:{getattr(host, 'port', '')}"


@asynccontextmanager
async def listening(session: Session, ae: Any, text: str | None) -> AsyncIterator[None]:
    """Listen while the block runs, and say where.

    Args:
        text: Where, as for :func:`endpoint_string`; None means not at all.

    Raises:
        CommandError: Listening there is not possible.
    """
    if text is None:
        yield
        return
    port = await listen(session.reactor, ae, text, None)
    session.output.note(f"{ae.ae_title} listening on {where(port)}")
    try:
        yield
    finally:
        await port.stopListening()
