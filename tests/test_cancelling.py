"""What cancelling does to each Deferred that is handed out, on sockets, while the peer is at work.

While it connects, see test_connecting.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from twisted.internet import defer
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

import netdicom_tx
from netdicom_tx import AE, AssociationPool, RemoteAE, storage_scp, uids, verification_scp
from netdicom_tx.sopclass import (
    MessageDispatcherSCP,
    StorageCommitment,
    modality_work_list_scp,
    qr_find_scp,
    qr_get_scp,
    qr_move_scp,
    store_all,
)
from support.doubles import logged_failures as logged_failures

IMAGE = str(get_testdata_file("CT_small.dcm"))
ECHO = uids.VERIFICATION_SOP_CLASS
STEP = uids.ModalityPerformedProcedureStep


class Busy(AE):
    """Begins whatever it is asked for, and ends nothing by itself."""

    def __init__(self) -> None:
        super().__init__("NODE")
        self.begun: defer.DeferredQueue[str] = defer.DeferredQueue()
        self.cancelled: defer.DeferredQueue[str] = defer.DeferredQueue()
        self.running: list[defer.Deferred[Any]] = []
        self.decides = False  # rather than to accept
        for service in (
            verification_scp,
            storage_scp,
            qr_find_scp,
            qr_get_scp,
            qr_move_scp,
            modality_work_list_scp,
            StorageCommitment(),
        ):
            self.add_scp(service)
        self.add_scp(Steps(self), [STEP])

    def work(self, what: str) -> defer.Deferred[Any]:
        working: defer.Deferred[Any] = defer.Deferred(lambda _: self.cancelled.put(what))
        self.running.append(working)
        self.begun.put(what)
        return working

    def on_association_request(self, asce: Any, assoc: Any) -> Any:
        return self.work("association") if self.decides else None

    def on_receive_echo(self, context: Any) -> Any:
        return self.work("echo")

    def on_receive_store(self, context: Any, ds: Any) -> Any:
        return self.work("store")

    def on_receive_find(self, context: Any, ds: Any) -> Any:
        return self.work("find")

    def on_receive_get(self, context: Any, ds: Any) -> Any:
        return self.work("get")

    def on_receive_move(self, context: Any, ds: Any, destination: str) -> Any:
        return self.work("move")

    def on_commitment_request(self, remote_ae: str, asked: Any) -> Any:
        return self.work("commit")


class Steps(MessageDispatcherSCP):
    def __init__(self, node: Busy) -> None:
        self._node = node

    def n_create(self, asce: Any, ctx: Any, msg: Any) -> Any:
        return self._node.work("n_create")


async def first(items: Any) -> Any:
    return await anext(items)


async def gathered(items: Any) -> Any:
    return await items


#: What is asked on an association, by what the peer is then at work on.
REQUESTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "echo": ("echo", lambda asce: asce.echo()),
    "store": ("store", lambda asce: asce.store(IMAGE)),
    "find, the next": ("find", lambda asce: first(asce.find())),
    "find, all": ("find", lambda asce: gathered(asce.find())),
    "find, the end": ("find", lambda asce: asce.find().done),
    "worklist": ("find", lambda asce: first(asce.worklist())),
    "get": ("get", lambda asce: first(asce.get(StudyInstanceUID="1.2"))),
    "move": ("move", lambda asce: gathered(asce.move(StudyInstanceUID="1.2", to="ME"))),
    "commit": ("commit", lambda asce: asce.commit([("1.2.840.10008.5.1.4.1.1.2", "1.2.3")])),
    "n_create": ("n_create", lambda asce: asce.n_create(STEP)),
}
#: What is asked by one call.
ONE_SHOTS: dict[str, tuple[str, Callable[[AE, RemoteAE], Any]]] = {
    "echo": ("echo", lambda ae, remote: netdicom_tx.echo(remote, ae=ae)),
    "find": ("find", lambda ae, remote: gathered(netdicom_tx.find(remote, ae=ae))),
    "find, the next": ("find", lambda ae, remote: first(netdicom_tx.find(remote, ae=ae))),
    "get": (
        "get",
        lambda ae, remote: gathered(
            netdicom_tx.get(remote, StudyInstanceUID="1.2", ae=ae, into="never made")
        ),
    ),
    "move": (
        "move",
        lambda ae, remote: gathered(
            netdicom_tx.move(remote, StudyInstanceUID="1.2", to="ME", ae=ae)
        ),
    ),
}


class CancellingTests(TestCase):
    timeout = 120

    async def _begin(self) -> None:
        self.node, self.ae = Busy(), AE("ME")
        self.port = await self.node.listen("tcp:0:interface=127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.remote = RemoteAE("NODE", f"tcp:127.0.0.1:{self.port.getHost().port}")

    async def _gone(self) -> None:
        """Wait until neither side has an association; nothing unhandled is left then."""
        from twisted.internet import reactor

        while self.ae.associations or self.node.associations:
            await deferLater(reactor, 0.001)
        for each in self.node.running:
            each.cancel()  # the handlers of the others were cancelled with their associations
        self.node.running.clear()
        gc.collect()
        assert self.flushLoggedErrors() == []

    async def _cancel(self, calling: defer.Deferred[Any]) -> None:
        assert not calling.called
        calling.cancel()
        with pytest.raises(defer.CancelledError):
            await calling

    async def _requests(self, names: Any) -> None:
        await self._begin()
        for name in names:
            what, ask = REQUESTS[name]
            asce = await self.ae.associate(self.remote)
            calling = defer.ensureDeferred(ask(asce))
            assert await self.node.begun.get() == what
            await self._cancel(calling)
            assert asce.is_open, name
            if what in ("find", "get", "move") and name != "find, the end":
                assert await self.node.cancelled.get() == what  # by C-CANCEL
            asce.abort()
        await self._gone()

    async def test_a_request_is_forgotten_and_the_association_lives(self):
        await self._requests(["echo", "store", "commit", "n_create"])

    async def test_a_stream_is_cancelled_at_the_peer_and_the_association_lives(self):
        await self._requests(["find, the next", "find, all", "worklist", "get", "move"])

    async def test_waiting_for_the_end_of_a_stream_is_forgotten(self):
        await self._requests(["find, the end"])

    async def test_a_request_that_waits_for_its_turn_is_not_sent(self):
        await self._begin()
        asce = await self.ae.associate(self.remote)
        first_one, second = asce.echo(), asce.store(IMAGE)
        assert await self.node.begun.get() == "echo"
        await self._cancel(second)
        self.node.running[0].callback(0)
        assert await first_one == 0
        third = asce.find().done
        assert await self.node.begun.get() == "find"
        await self._cancel(third)
        asce.abort()
        await self._gone()

    async def test_a_call_of_its_own_aborts_its_association(self):
        await self._begin()
        for what, call in ONE_SHOTS.values():
            calling = defer.ensureDeferred(call(self.ae, self.remote))
            assert await self.node.begun.get() == what
            await self._cancel(calling)
            await self._gone()

    async def test_storing_many_ends_when_what_is_under_way_is_answered(self):
        await self._begin()
        for call in (
            lambda: gathered(netdicom_tx.store(self.remote, [IMAGE] * 3, ae=self.ae)),
            lambda: first(store_all(self.ae, self.remote, [IMAGE] * 3)),
        ):
            calling = defer.ensureDeferred(call())
            assert await self.node.begun.get() == "store"
            await self._cancel(calling)
            self.node.running[-1].callback(0)
            await self._gone()
            assert not self.node.begun.pending

    async def test_an_association_that_is_being_decided_on_is_aborted(self):
        await self._begin()
        self.node.decides = True
        for call in (
            lambda: self.ae.associate(self.remote),
            lambda: self.ae.request_association(self.remote, {ECHO: self.ae.supported_ts}),
            lambda: netdicom_tx.echo(self.remote, ae=self.ae),
            lambda: defer.ensureDeferred(gathered(netdicom_tx.find(self.remote, ae=self.ae))),
        ):
            calling = call()
            assert await self.node.begun.get() == "association"
            await self._cancel(calling)
            assert await self.node.cancelled.get() == "association"
            await self._gone()

    async def test_a_release_that_is_cancelled_is_an_abort(self):
        await self._begin()
        asce = await self.ae.associate(self.remote)
        asked = asce.echo()
        assert await self.node.begun.get() == "echo"
        releasing = asce.release()
        await self._cancel(releasing)
        with pytest.raises(netdicom_tx.AssociationAbortedError):
            await asked
        await self._gone()

    async def test_waiting_for_the_end_of_an_association_is_forgotten(self):
        await self._begin()
        asce = await self.ae.associate(self.remote)
        await self._cancel(asce.closed())
        assert asce.is_open
        await asce.release()
        await self._gone()

    async def test_a_drain_that_is_cancelled_aborts(self):
        await self._begin()
        asce = await self.ae.associate(self.remote)
        asked = asce.echo()
        assert await self.node.begun.get() == "echo"
        await self._cancel(self.node.drain(60))
        with pytest.raises(netdicom_tx.AssociationError):
            await asked
        await self._gone()

    async def test_a_borrower_leaves_its_place_to_the_next(self):
        await self._begin()
        pool = AssociationPool(self.ae, limit=1)

        async def borrow() -> int:
            contexts = {ECHO: self.ae.supported_ts}
            async with pool.association(self.remote, contexts) as asce:
                return int(await asce.echo())

        working = defer.Deferred.fromCoroutine(borrow())
        assert await self.node.begun.get() == "echo"
        waiting, following = (defer.Deferred.fromCoroutine(borrow()) for _ in range(2))
        await self._cancel(waiting)
        assert not following.called
        await self._cancel(working)
        assert await self.node.begun.get() == "echo"
        self.node.running[-1].callback(0)
        assert await following == 0
        for asce in self.ae.associations:
            asce.abort()
        await self._gone()
        await pool.close()
        assert pool.size == 0
