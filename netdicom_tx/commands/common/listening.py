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

_ENDPOINT = re.compile(r"(tcp6?|ssl|unix|systemd|haproxy|fd):")
_FORMS = "write 11112, 127.0.0.1:11112, 0.0.0.0:11112, or tcp:11112:interface=127.0.0.1"


def endpoint_string(text: str, interface: str = "") -> str:
    """The Twisted endpoint string for what was written.

    Args:
        text: ``11112`` is that port of ``interface``, ``127.0.0.1:11112`` that of another.
        interface: A numeric address; empty means every IPv4 interface.

    Raises:
        CommandError: The text has none of the forms.
    """
    if _ENDPOINT.match(text):
        return text
    host, _, number = text.rpartition(":")
    if not (number.isascii() and number.isdecimal() and int(number) < 65536):
        raise bad_input(
            f"{text!r} is not a place to listen",
            "expected a port from 0 to 65535, host:port, or a Twisted endpoint",
            _FORMS,
        )
    host = host or interface
    if not host:
        return f"tcp:{number}"
    if host.startswith("["):
        address = host.strip("[]").replace(":", "\\:")
        return f"tcp6:{number}:interface={address}"
    return f"tcp:{number}:interface={host}"


async def listen(reactor: Any, ae: Any, text: str, tls: TLSFiles | None) -> Any:
    """Listen at an endpoint string; returns the port.

    Raises:
        CommandError: Listening there is not possible.
    """
    from twisted.internet.error import CannotListenError

    from ...endpoints import server_endpoint

    hint = _FORMS
    try:
        if text.startswith("ssl:"):
            hint = "name both files: ssl:2762:privateKey=KEY.pem:certKey=CERTIFICATE.pem"
        endpoint = server_endpoint(reactor, text)
        if tls is not None:
            hint = "check the --tls options"
            endpoint = tls.options().wrap_server(endpoint)
        return await ae.listen(endpoint)
    except (CannotListenError, OSError) as error:
        raise CommandError(
            Problem(
                ExitCode.USAGE,
                f"cannot listen at {text}",
                str(error),
                "does another program listen there? ports below 1024 need root; name another place with "
                "--listen",
            )
        ) from error
    except LocalProtocolError as error:
        raise bad_input(f"cannot listen at {text}", str(error), hint) from error
    except ImportError as error:
        raise bad_input(
            "TLS needs packages that are not installed",
            str(error),
            "pip install 'netdicom-tx[tls]'",
        ) from error


@asynccontextmanager
async def listening(session: Session, ae: Any, text: str | None) -> AsyncIterator[None]:
    """Listen while the block runs, and say where.

    Args:
        text: An endpoint string; None means that nothing is opened.

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


def where(port: Any) -> str:
    """``host:port`` of a listening port."""
    host = port.getHost()
    return f"{getattr(host, 'host', host)}:{getattr(host, 'port', '')}"
