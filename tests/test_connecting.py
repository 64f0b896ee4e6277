"""Connecting that takes for ever, on sockets: what is cancelled, and what is late, says so by its own name.

Twisted's endpoints fail with a ConnectingCancelledError in both cases, which is not a CancelledError.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from twisted.internet import defer
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

import netdicom_tx
from netdicom_tx import AE, AssociationPool, DCMTimeoutError, RemoteAE, Timeouts, uids
from netdicom_tx.sopclass import store_all
from support.doubles import logged_failures as logged_failures
from support.sockets import full_listener

ECHO = uids.VERIFICATION_SOP_CLASS
IMAGE = str(get_testdata_file("CT_small.dcm"))
ENDPOINTS: dict[str, Callable[[Any, int], Any]] = {
    "an address": lambda reactor, port: f"127.0.0.1:{port}",
    "a string": lambda reactor, port: f"tcp:127.0.0.1:{port}",
    "a TCP4ClientEndpoint": lambda reactor, port: TCP4ClientEndpoint(reactor, "127.0.0.1", port),
    "a HostnameEndpoint": lambda reactor, port: HostnameEndpoint(reactor, "127.0.0.1", port),
}


async def borrowed(ae: AE, remote: RemoteAE) -> None:
    pool = AssociationPool(ae, attempts=2, backoff=0)
    try:
        async with pool.association(remote, {ECHO: uids.DEFAULT_TRANSFER_SYNTAXES}):
            raise AssertionError("nobody is there")
    finally:
        assert (pool.size, pool._peers) == (0, {})


async def opened(ae: AE, remote: RemoteAE) -> None:
    async with ae.associate(remote, ECHO):
        raise AssertionError("nobody is there")


async def first(items: Any) -> Any:
    return await anext(items)


async def gathered(items: Any) -> Any:
    return await items


#: Everything public that connects.
CALLS: dict[str, Callable[[AE, RemoteAE], Any]] = {
    "request_association": lambda ae, remote: ae.request_association(
        remote, {ECHO: uids.DEFAULT_TRANSFER_SYNTAXES}
    ),
    "associate": lambda ae, remote: ae.associate(remote, ECHO),
    "async with associate": opened,
    "pool": borrowed,
    "echo": lambda ae, remote: netdicom_tx.echo(remote, ae=ae),
    "await find": lambda ae, remote: gathered(netdicom_tx.find(remote, ae=ae)),
    "async for of find": lambda ae, remote: first(netdicom_tx.find(remote, ae=ae)),
    "await get": lambda ae, remote: gathered(
        netdicom_tx.get(remote, StudyInstanceUID="1.2", ae=ae, into="never made")
    ),
    "await move": lambda ae, remote: gathered(
        netdicom_tx.move(remote, StudyInstanceUID="1.2", to="ME", ae=ae)
    ),
    "await store": lambda ae, remote: gathered(netdicom_tx.store(remote, IMAGE, ae=ae)),
    "store_all": lambda ae, remote: first(store_all(ae, remote, [IMAGE])),
}


class FullBacklogTests(TestCase):
    """A peer whose backlog is full answers no SYN."""

    timeout = 120

    @pytest.fixture(autouse=True)
    def _port(self) -> Iterator[None]:
        with full_listener() as full:
            self.full = full
            yield

    def call(self, name: str, endpoint: str, **timeouts: float) -> defer.Deferred[Any]:
        from twisted.internet import reactor

        self.ae = AE("ME", timeouts=Timeouts(**timeouts))
        remote = RemoteAE("PEER", ENDPOINTS[endpoint](reactor, self.full.port))
        return defer.ensureDeferred(CALLS[name](self.ae, remote))

    async def attempting(self) -> None:
        """Wait until a connection is being attempted."""
        from twisted.internet import reactor

        while not self.full.attempts():
            await deferLater(reactor, 0.001)

    def left(self) -> None:
        """Nothing is left behind, and nothing unhandled."""
        gc.collect()
        assert not self.ae.associations
        assert self.flushLoggedErrors() == []

    async def cancelled(self, name: str, endpoint: str = "a string", *, late: bool = True) -> None:
        calling = self.call(name, endpoint)
        if late:
            await self.attempting()
        calling.cancel()
        with pytest.raises(defer.CancelledError):
            await calling
        assert not self.full.attempts()
        self.left()

    async def timed_out(self, name: str, endpoint: str = "a string") -> None:
        try:
            (result,) = [await self.call(name, endpoint, connect=0.05)]
            # One bad association among many: it is the result of the instance.
            (result,) = result if isinstance(result, list) else [result]
            error: Any = result.error
        except DCMTimeoutError as raised:
            error = raised
        assert isinstance(error, DCMTimeoutError)
        assert (error.timer, error.seconds) == ("connect", 0.05)
        self.left()

    async def test_each_call_may_be_cancelled_before_it_has_begun_to_connect(self):
        for name in CALLS:
            await self.cancelled(name, late=False)

    async def test_each_call_may_be_cancelled_while_it_connects(self):
        for name in CALLS:
            await self.cancelled(name)

    async def test_cancelling_is_the_same_with_each_kind_of_endpoint(self):
        for endpoint in ENDPOINTS:
            await self.cancelled("request_association", endpoint)

    async def test_each_call_says_that_connecting_took_too_long(self):
        for name in CALLS:
            await self.timed_out(name)

    async def test_the_timeout_is_the_same_with_each_kind_of_endpoint(self):
        for endpoint in ENDPOINTS:
            await self.timed_out("request_association", endpoint)
