"""The service of twistd dicom, started in this process."""

import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu, tap, verification_scu
from netdicom_tx.archive import FileStore, IndexUnusableError
from netdicom_tx.archive.store import reconcile
from netdicom_tx.archive.store.journal import Entry, Segment
from netdicom_tx.asceprovider import Association
from netdicom_tx.dsutils import part10_header
from netdicom_tx.exceptions import AssociationReleasedError, ConnectionLostError
from netdicom_tx.tap import NodeService, Options, makeService
from netdicom_tx.uids import VERIFICATION_SOP_CLASS
from support import doubles
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.processes import eventually

LOOPBACK = "tcp:0:interface=127.0.0.1"
PATIENCE = 30.0


def parse(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


def in_the_end(condition: Callable[[], bool]) -> Deferred[Any]:
    """Wait for a condition while the reactor runs."""
    waited: Deferred[Any] = deferToThread(eventually, condition, "condition")
    return waited


class ServiceTests(TestCase):
    """The service in this process, with its real threads and sockets."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.storage = tmp_path / "archive"
        self.index = f"sqlite:///{self.storage}/index.db"
        self.monkeypatch = monkeypatch
        self.lines: list[str] = []

        def observe(event: LogEvent) -> None:
            line = formatEvent(event)
            if "listening on" in line:
                self.lines.append(line)

        globalLogPublisher.addObserver(observe)
        yield
        globalLogPublisher.removeObserver(observe)

    def node(self, *arguments: str) -> NodeService:
        """A node that listens at a port of its own; stopped at the end of the test."""
        node = makeService(parse("--storage", str(self.storage), "--listen", LOOPBACK, *arguments))

        def stop() -> Any:  # None or a Deferred, as addCleanup takes it
            return node.stopService() if node.running else None

        self.addCleanup(stop)
        return node

    def started(self, *arguments: str) -> NodeService:
        node = self.node(*arguments)
        node.privilegedStartService()
        node.startService()
        return node

    def ports(self, node: NodeService) -> list[int]:
        listener = node.services[0]
        return [port.getHost().port for port in listener.ports]

    def remote(self, node: NodeService) -> RemoteAE:
        return RemoteAE("ANY-SCP", f"tcp:127.0.0.1:{self.ports(node)[0]}")

    async def associate(self, node: NodeService) -> Association:
        ae = AE("SCU").add_scu(verification_scu).add_scu(storage_scu, [CT_IMAGE_STORAGE])
        return await ae.request_association(self.remote(node))

    def instance(self, uid: str = "1.2.3") -> BytesIO:
        header = part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax)
        return BytesIO(header + ct(uid))

    async def test_one_line_says_all_when_it_starts(self) -> None:
        """The log line names the node, its port and its storage directory."""
        node = self.started()
        (port,) = self.ports(node)
        assert self.lines == [
            f"NETDICOM listening on 127.0.0.1:{port}, storage {self.storage}, index {self.index}"
        ]

    async def test_a_node_that_serves_everybody_says_so_once(self) -> None:
        """Unless the operator has decided that, or only this machine can reach it."""
        warnings: list[str] = []

        def observe(event: LogEvent) -> None:
            line = formatEvent(event)
            if "can be reached from the network" in line:
                warnings.append(line)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        config = self.storage.parent / "node.toml"
        config.write_text('[access]\ndefault = "all"\n')
        await self.started().stopService()
        self.monkeypatch.setattr(tap, "is_public", lambda host: True)
        await self.started("--strict-peers", "--peer", "A@127.0.0.1:104").stopService()
        await self.started("--config", str(config)).stopService()
        assert warnings == []
        await self.started().stopService()
        (line,) = warnings
        assert line.startswith("NETDICOM can be reached from the network, and peers that are not")

    async def test_it_listens_at_every_endpoint(self) -> None:
        """With a line for each."""
        node = self.started("--listen", LOOPBACK)
        ports = self.ports(node)
        assert self.lines == [
            f"NETDICOM listening on 127.0.0.1:{port}, storage {self.storage}, index {self.index}"
            for port in ports
        ]
        for port in ports:
            ae = AE("SCU").add_scu(verification_scu)
            remote = RemoteAE("X", f"tcp:127.0.0.1:{port}")
            async with await ae.request_association(remote) as asce:
                assert await asce.get_scu(VERIFICATION_SOP_CLASS)() == 0x0000

    async def test_a_port_is_announced_when_the_archive_is_open(self) -> None:
        """It is bound before, while the process may; who connects meanwhile waits, and is served then."""
        node = self.node()
        node.privilegedStartService()
        (port,) = self.ports(node)
        with socket.create_connection(("127.0.0.1", port)):
            assert self.lines == []
            assert not self.storage.exists()
            associating = Deferred.fromCoroutine(self.associate(node))
            node.startService()
            assert len(self.lines) == 1
            async with await associating as asce:
                assert await asce.get_scu(CT_IMAGE_STORAGE)(self.instance()) == 0x0000

    async def test_a_start_without_the_privileged_one_opens_the_store_too(self) -> None:
        """``twist`` calls startService alone, ``twistd`` privilegedStartService before it."""
        node = self.node()
        node.startService()
        async with await self.associate(node) as asce:
            assert await asce.get_scu(CT_IMAGE_STORAGE)(self.instance()) == 0x0000
        await in_the_end(node.ae.store.path("1.2.3").exists)
        assert len(self.lines) == 1

    async def test_a_stopped_node_gives_everything_back(self) -> None:
        """Port, threads and storage: another one can be started on the same."""
        threads = threading.active_count()
        node = self.started()
        remote = self.remote(node)
        asce = await self.associate(node)
        assert await asce.get_scu(CT_IMAGE_STORAGE)(self.instance()) == 0x0000
        closed = asce.closed()
        await node.stopService()
        assert isinstance(await closed, AssociationReleasedError)
        assert threading.active_count() == threads
        with pytest.raises(ConnectionLostError):
            await AE("SCU").add_scu(verification_scu).request_association(remote)
        again = FileStore(self.storage)
        again.open()
        again.close()

    async def test_a_store_in_flight_is_finished_and_answered(self) -> None:
        """Stopping waits for it; who asks for an association meanwhile finds nobody."""
        node = self.started()
        keeping, may_go_on = threading.Event(), threading.Event()
        real = node.ae.store.journal.append

        def slow(entries: Sequence[Entry]) -> list[Segment]:
            keeping.set()
            assert may_go_on.wait(PATIENCE)
            return real(entries)

        self.monkeypatch.setattr(node.ae.store.journal, "append", slow)
        remote = self.remote(node)
        asce = await self.associate(node)
        closed = asce.closed()
        storing = asce.get_scu(CT_IMAGE_STORAGE)(self.instance())
        await in_the_end(keeping.is_set)
        stopping = node.stopService()
        with pytest.raises(ConnectionLostError):
            await AE("SCU").add_scu(verification_scu).request_association(remote)
        assert not stopping.called
        may_go_on.set()
        assert await storing == 0x0000
        await stopping
        assert isinstance(await closed, AssociationReleasedError)
        assert node.ae.store.path("1.2.3").exists()

    async def test_who_does_not_come_to_an_end_is_aborted_when_the_grace_is_over(self) -> None:
        """An instance that stops arriving does not keep the node from stopping, and leaves nothing."""
        self.monkeypatch.setattr(tap, "GRACE", 0.05)
        self.monkeypatch.setattr("netdicom_tx.archive.store.spool.SPOOL_MEMORY", 64)
        node = self.started()
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{self.ports(node)[0]}")
        peer = await connectProtocol(endpoint, doubles.RawPeer())
        store = doubles.message(doubles.store_rq(data=ct("1.2.3", pixels=10_000)))
        peer.send(doubles.request({CT_IMAGE_STORAGE: [EXPLICIT.transfer_syntax]}))
        peer.send(store[:-100])
        await in_the_end(lambda: any(node.ae.store.incoming.glob("*")))
        await node.stopService()
        assert node.ae.associations == frozenset()
        assert list(node.ae.store.incoming.iterdir()) == []
        assert not node.ae.store.path("1.2.3").exists()
        peer.transport.abortConnection()

    async def test_a_port_in_use_is_a_sentence_and_an_exit(self) -> None:
        """Without privileges, and so after the store was opened: it is given back, with its threads."""
        threads = threading.active_count()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            node = makeService(
                parse("--storage", str(self.storage), "--listen", f"tcp:{port}:interface=127.0.0.1")
            )
            with pytest.raises(SystemExit) as caught:
                node.startService()
        assert str(caught.value).startswith(
            f"NETDICOM cannot listen: Couldn't listen on 127.0.0.1:{port}: "
        )
        assert threading.active_count() == threads
        again = FileStore(self.storage)
        again.open()
        again.close()

    async def test_a_storage_in_use_is_a_sentence_and_an_exit(self) -> None:
        """Two nodes on one storage directory would not know of each other's instances."""
        self.started()
        second = self.node()
        second.privilegedStartService()
        (port,) = self.ports(second)
        with pytest.raises(SystemExit) as caught:
            second.startService()
        assert str(caught.value) == (
            f"twistd dicom: the storage directory {self.storage} is in use by another node: stop "
            "that node, or give this one another directory"
        )
        assert len(self.lines) == 1, "the second node has announced a port"
        remote = RemoteAE("X", f"tcp:127.0.0.1:{port}")
        with pytest.raises(ConnectionLostError):
            await AE("SCU").add_scu(verification_scu).request_association(remote)

    async def test_an_index_that_turns_out_to_be_damaged_later_ends_the_node(self) -> None:
        """The reactor runs by then: the log has the sentence, and the process ends with status 1."""
        node = self.node()
        started: Deferred[None] = Deferred()
        ended: list[bool] = []
        self.monkeypatch.setattr(node.ae, "start_soon", lambda patience: started)
        self.monkeypatch.setattr(node._signals, "fail", lambda: ended.append(True))
        said: list[str] = []

        def observe(event: LogEvent) -> None:
            said.append(formatEvent(event))

        node.privilegedStartService()
        node.startService()
        globalLogPublisher.addObserver(observe)
        try:
            started.errback(IndexUnusableError("the index is damaged; move it away"))
        finally:
            globalLogPublisher.removeObserver(observe)
        assert ended == [True]
        assert said == ["twistd dicom: the index is damaged; move it away"]
        assert self.lines == []

    async def test_a_node_that_is_stopped_while_it_starts_announces_nothing(self) -> None:
        """It gives its storage directory back."""
        self.monkeypatch.setattr(tap, "_PATIENCE", 0.0)
        node = self.node()

        def endless(*_: object) -> Iterator[tuple[str, str, int]]:
            while True:
                yield "instances/0", "/none/such", 1

        self.monkeypatch.setattr(reconcile, "_listing", endless)
        node.privilegedStartService()
        node.startService()
        assert self.lines == []
        await node.stopService()
        assert self.lines == []
        again = FileStore(self.storage)
        again.open()
        again.close()

    async def test_an_unusable_database_is_a_sentence_and_an_exit(self) -> None:
        """And no port is announced; the storage directory is given back."""
        for url, says in (
            ("sqlite://", "twistd dicom: the index needs a database file, not one in memory; exp"),
            (
                "no url",
                "twistd dicom: the database URL cannot be read; expected one such as sqlite",
            ),
            (f"sqlite:///{self.storage}/none/x.db", "/none/x.db cannot be opened: unable to open"),
        ):
            node = self.node("--database", url)
            node.privilegedStartService()
            with pytest.raises(SystemExit, match=re.escape(says)):
                node.startService()
        assert self.lines == []
        again = FileStore(self.storage)
        again.open()
        again.close()
