"""``twistd dicom``: its options, its sentences, how it starts and how it stops."""

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu, tap, verification_scu
from netdicom_tx.archive import ArchiveAE, Duplicates, FileStore
from netdicom_tx.archive.store import filestore
from netdicom_tx.archive.store.filestore import Kept, Spool
from netdicom_tx.asceprovider import Association
from netdicom_tx.dsutils import part10_header
from netdicom_tx.exceptions import AssociationReleasedError, ConnectionLostError
from netdicom_tx.tap import NodeService, Options, makeService
from netdicom_tx.uids import VERIFICATION_SOP_CLASS
from support import doubles
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.node import Node
from support.processes import CHECKOUT, Process, eventually, run
from twisted.plugins import netdicom_tx_plugin

LOOPBACK = "tcp:0:interface=127.0.0.1"
PATIENCE = 30.0


def parse(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


# -- options -------------------------------------------------------------------------------------------


def test_no_option_is_a_working_node() -> None:
    """Loopback only: like PostgreSQL's, the node is opened to the network on purpose."""
    assert dict(parse()) == {
        "aet": "NETDICOM",
        "listen": ["tcp:11112:interface=127.0.0.1"],
        "storage": "netdicom-archive",
        "database": None,
        "worklist": None,
        "forward-mpps": [],
        "notify-mpps": [],
        "notify-availability": [],
        "max-associations": 100,
        "move-associations": 1,
        "duplicates": Duplicates.KEEP,
        "peer": [],
        "peers": {},
        "unknown-sop-classes": 0,
        "match-unknown": 0,
        "no-fsync": 0,
        "strict-peers": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--aet", "PACS"], "aet", "PACS"),
        (["-a", " PACS 1 "], "aet", "PACS 1"),
        (["--storage", "/srv/dicom"], "storage", "/srv/dicom"),
        (["-s", "x"], "storage", "x"),
        (["--listen", "tcp:104"], "listen", ["tcp:104"]),
        (["-l", "tcp:104", "--listen", "unix:/x"], "listen", ["tcp:104", "unix:/x"]),
        (["--max-associations", "1"], "max-associations", 1),
        (["-m", "7"], "max-associations", 7),
        (["--move-associations", "4"], "move-associations", 4),
        (["--database", "sqlite:///x.db"], "database", "sqlite:///x.db"),
        (["--duplicates", "replace"], "duplicates", Duplicates.REPLACE),
        (["-d", "keep"], "duplicates", Duplicates.KEEP),
        (["--unknown-sop-classes"], "unknown-sop-classes", 1),
        (["-u"], "unknown-sop-classes", 1),
        (["--no-fsync"], "no-fsync", 1),
        (["--peer", "A@b:104", "--strict-peers"], "strict-peers", 1),
        (
            ["--peer", "PACS 1@pacs.example:104", "-p", "LOCAL@[::1]:11113"],
            "peers",
            {
                "PACS 1": RemoteAE("PACS 1", "tcp:pacs.example:104"),
                "LOCAL": RemoteAE("LOCAL", "tcp:\\:\\:1:11113"),
            },
        ),
    ],
)
def test_each_option_is_taken(arguments: list[str], name: str, value: object) -> None:
    """Long and short."""
    assert parse(*arguments)[name] == value


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--aet", ""], "--aet: "),
        (["--aet", "SEVENTEEN LETTERS"], "--aet: "),
        (["--aet", "A\\B"], "--aet: "),
        (
            ["--max-associations", "0"],
            "--max-associations: expected a whole number of 1 or more, not '0'",
        ),
        (["--move-associations", "0"], "--move-associations: expected a whole number of 1"),
        (["--strict-peers"], "--strict-peers without any --peer would serve nobody"),
        (["--peer", "PACS"], "--peer: expected AET@host:port, not 'PACS'"),
        (["--peer", "PACS@host"], "--peer: expected AET@host:port, not 'PACS@host'"),
        (["--peer", "PACS@:104"], "--peer: expected AET@host:port, not 'PACS@:104'"),
        (["--peer", "PACS@host:0"], "--peer: expected AET@host:port, not 'PACS@host:0'"),
        (["--peer", "PACS@host:65536"], "--peer: expected AET@host:port, not 'PACS@host:65536'"),
        (["--peer", "PACS@host:dicom"], "--peer: expected AET@host:port, not 'PACS@host:dicom'"),
        (["--peer", "SEVENTEEN LETTERS@host:104"], "--peer SEVENTEEN LETTERS@host:104: "),
        (["--config", "/none/such.toml"], "--config /none/such.toml: No such file or directory"),
        (["--max-associations", "-1"], "--max-associations: expected a whole number of 1"),
        (["-m", "many"], "--max-associations: expected a whole number of 1 or more, not 'many'"),
        (["--move-associations", "1.5"], "--move-associations: expected a whole number of 1"),
        (
            ["--worklist", "/none/such"],
            "--worklist: /none/such is not a directory; make it first",
        ),
        (["-w", __file__], "is not a directory"),
        (
            ["-p", "A@one:104", "-p", "B@two:104", "-p", "A@three:104"],
            "--peer A@three:104: there is another --peer with the AE title A",
        ),
        (["-p", "A@one:104", "-p", " A @two:104"], "another --peer with the AE title A"),
        (
            ["--duplicates", "both"],
            "--duplicates: expected keep or replace, not 'both'",
        ),
        (
            ["--listen", "carrier-pigeon:1"],
            "--listen: 'carrier-pigeon:1' is not a Twisted server endpoint such as "
            "tcp:11112:interface=127.0.0.1: Unknown endpoint type: 'carrier-pigeon'",
        ),
        (["--listen", "tcp"], "--listen: 'tcp' has no port"),
        (["--listen", "tcp:dicom"], "--listen: 'tcp:dicom' has no port"),
        (["-l", "tcp:104", "-l", "tcp:99999"], "--listen: 'tcp:99999' has no port"),
        (["--listen", "tcp:1:colour=red"], "--listen: 'tcp:1:colour=red' is not"),
        (["--listen", ""], "--listen: '' is not"),
        (["--listen", "ssl:1:privateKey=/none"], "'ssl:1:privateKey=/none' cannot be used: "),
        (["-l", f"ssl:1:privateKey={__file__}"], "a private key and its certificate in PEM form"),
        (["--listen", "systemd:domain=INET:index=0"], "'systemd:domain=INET:index=0' is not"),
        (["--colour"], "option --colour not recognized"),
    ],
)
def test_a_wrong_option_is_a_sentence(arguments: list[str], says: str) -> None:
    """It names the option, and what was expected where that is not plain."""
    with pytest.raises(usage.UsageError) as caught:
        parse(*arguments)
    assert says in str(caught.value)


def config(tmp_path: Path, text: str) -> str:
    """A configuration file."""
    path = tmp_path / "node.toml"
    path.write_text(text)
    return str(path)


def test_options_can_come_from_a_file(tmp_path: Path) -> None:
    """The keys are the options' names."""
    path = config(
        tmp_path,
        """
        aet = "PACS"
        storage = "/srv/dicom"
        database = "postgresql://db/pacs"
        listen = ["tcp:104", "tcp:11112"]
        peer = ["A@a:104", "B@b:104"]
        max-associations = 7
        move-associations = 3
        duplicates = "replace"
        unknown-sop-classes = true
        match-unknown = true
        no-fsync = true
        strict-peers = true
        worklist = "."
        forward-mpps = ["A"]
        notify-mpps = ["A", "B"]
        notify-availability = ["B"]
        """,
    )
    assert dict(parse("--config", path)) == {
        "config": path,
        "aet": "PACS",
        "storage": "/srv/dicom",
        "database": "postgresql://db/pacs",
        "listen": ["tcp:104", "tcp:11112"],
        "peer": ["A@a:104", "B@b:104"],
        "peers": {"A": RemoteAE("A", "tcp:a:104"), "B": RemoteAE("B", "tcp:b:104")},
        "max-associations": 7,
        "move-associations": 3,
        "duplicates": Duplicates.REPLACE,
        "unknown-sop-classes": True,
        "match-unknown": True,
        "no-fsync": True,
        "strict-peers": True,
        "worklist": ".",
        "forward-mpps": ["A"],
        "notify-mpps": ["A", "B"],
        "notify-availability": ["B"],
    }


@pytest.mark.parametrize("name", ["forward-mpps", "notify-mpps", "notify-availability"])
def test_what_is_sent_to_must_be_a_peer(name: str) -> None:
    """No address is taken from anywhere else."""
    with pytest.raises(usage.UsageError, match=f"--{name} RIS: add --peer RIS@host:port"):
        parse(f"--{name}", "RIS")


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    """What the file says of others stays."""
    path = config(
        tmp_path, 'aet = "PACS"\nlisten = ["tcp:104"]\nmax-associations = 7\nno-fsync = false'
    )
    options = parse("-c", path, "--aet", "OTHER", "--listen", "tcp:105", "--no-fsync")
    assert (options["aet"], options["listen"]) == ("OTHER", ["tcp:105"])
    assert (options["max-associations"], options["no-fsync"]) == (7, 1)


def test_an_option_with_the_value_of_its_default_wins_over_the_file(tmp_path: Path) -> None:
    """Given is given."""
    path = config(tmp_path, 'aet = "PACS"\nmax-associations = 7')
    options = parse("--config", path, "--aet", "NETDICOM", "--max-associations", "100")
    assert (options["aet"], options["max-associations"]) == ("NETDICOM", 100)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("aet = ", "Invalid value"),
        ('colour = "red"', "colour: there is no such option"),
        ("aet = 7", "aet: expected a string, got 7"),
        ('listen = "tcp:104"', "listen: expected a list of strings, got 'tcp:104'"),
        ('max-associations = "7"', "max-associations: expected a whole number, got '7'"),
        ("max-associations = true", "max-associations: expected a whole number, got True"),
        ("no-fsync = 1", "no-fsync: expected true or false, got 1"),
        ("aet = 7\nx = 1", "x: there is no such option; aet: expected a string, got 7"),
        ("max-associations = 0", "--max-associations: expected a whole number of 1 or more"),
        ('listen = ["x"]', "'x' is not"),
        ('worklist = "/none"', "--worklist: /none is not a directory"),
        ("peer = [7]", "--peer: expected AET@host:port, not '7'"),
    ],
)
def test_a_wrong_file_is_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    """All that is wrong with it at once, as far as it can be read."""
    path = config(tmp_path, text)
    with pytest.raises(usage.UsageError) as caught:
        parse("--config", path)
    assert says in str(caught.value)


def test_the_help_tells_of_every_option() -> None:
    """And of what happens without any."""
    printed = str(Options())
    for name in set(parse()) - {"peers"} | {"config"}:
        assert f"--{name}" in printed
    assert "127.0.0.1, port 11112, as" in " ".join(printed.split())


def test_the_service_is_made_as_the_options_say(tmp_path: Path) -> None:
    """Nothing is opened before it is started."""
    options = parse(
        *("--aet", "PACS", "--storage", str(tmp_path / "a"), "--max-associations", "3"),
        *("--duplicates", "replace", "--unknown-sop-classes", "--no-fsync", "--listen", LOOPBACK),
    )
    service = makeService(options)
    ae = service.ae
    assert (ae.ae_title, ae.max_associations) == ("PACS", 3)
    assert ae.store.root == tmp_path / "a"
    assert ae.store.duplicates is Duplicates.REPLACE
    assert ae.index is not None
    assert ae.index.url == f"sqlite:///{tmp_path}/a/index.db"
    assert ae.supported_scp.find("1.2.3.4.5") is not None
    assert (ae.called_ae_titles, ae.calling_ae_titles) == (None, None)
    assert not ae.store.root.exists()
    assert makeService(parse()).ae.supported_scp.find("1.2.3.4.5") is None


def test_strict_peers_serves_the_named_ones_only_and_under_its_own_title() -> None:
    """Without it, anybody under any title: DCMTK's tools say ANY-SCP."""
    ae = makeService(parse("--peer", "A@a:104", "--peer", "B@b:104", "--strict-peers")).ae
    assert ae.called_ae_titles == {"NETDICOM"}
    assert ae.calling_ae_titles == {"A", "B"}
    assert ae.peers.keys() == {"A", "B"}


def test_a_password_of_the_database_is_not_told() -> None:
    """The line at the start goes into logs."""
    ae = makeService(parse("--database", "postgresql://me:secret@db/pacs", "-s", "/x")).ae
    assert ae.about() == ", storage /x, index postgresql://me:***@db/pacs"


def test_the_plugin_names_what_there_is() -> None:
    """``twistd`` imports the module by this name, and takes these two from it."""
    maker = netdicom_tx_plugin.dicom
    assert (maker.tapname, maker.module) == ("dicom", "netdicom_tx.tap")
    assert maker.options is Options
    assert maker.makeService is makeService


# -- the service in this process -----------------------------------------------------------------------


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
        (listener,) = node.services
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
        """Who it is, where it listens, where instances go."""
        node = self.started()
        (port,) = self.ports(node)
        assert self.lines == [
            f"NETDICOM listening on 127.0.0.1:{port}, storage {self.storage}, index {self.index}"
        ]

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
        assert node.ae.store.path("1.2.3").exists()
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
        real = node.ae.store.keep

        def slow(spool: Spool, **options: Any) -> Kept:
            keeping.set()
            assert may_go_on.wait(PATIENCE)
            return real(spool, **options)

        self.monkeypatch.setattr(node.ae.store, "keep", slow)
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
        self.monkeypatch.setattr(filestore, "SPOOL_MEMORY", 64)
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


# -- the process -----------------------------------------------------------------------------------------

PYTHONPATH = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))


def dicom(*options: str | Path, runner: str = "twistd") -> CompletedProcess[str]:
    """Run a node that is expected to end by itself."""
    program = Path(sys.executable).with_name(runner)
    own = ("--pidfile=", "-n") if runner == "twistd" else ()
    return run(sys.executable, program, *own, "dicom", *options, PYTHONPATH=PYTHONPATH)


def refused(done: CompletedProcess[str], sentence: str) -> None:
    """It ended by itself, told of a failure, and its last line is a sentence, not a traceback."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert "listening on" not in done.stdout
    assert sentence in done.stdout.rstrip().splitlines()[-1]


class Interrupting(BytesIO):
    """A file that stops a process when half of it has been read."""

    def __init__(self, content: bytes, pid: int) -> None:
        super().__init__(content)
        self._half = len(content) // 2
        self._pid: int | None = pid

    def readinto(self, buffer: Any) -> int:  # what the buffer protocol takes
        if self._pid is not None and self.tell() > self._half:
            os.kill(self._pid, signal.SIGTERM)
            self._pid = None
        return super().readinto(buffer)


@pytest.mark.slow
class ProcessTests(TestCase):
    """``twistd -n dicom`` as a process."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.directory = tmp_path
        self.running = Node(tmp_path)
        yield
        self.running.kill()

    async def test_it_says_one_line_and_stops_at_once_with_nothing_to_do(self) -> None:
        """SIGTERM: an idle association is released, not waited for; twistd ends as it was told to."""
        self.running.start()
        starting = [line for line in self.running.log.splitlines() if "NETDICOM" in line]
        assert len(starting) == 1
        assert starting[0].endswith(
            f"NETDICOM listening on 127.0.0.1:{self.running.address.port}, storage "
            f"{self.running.storage}, index sqlite:///{self.running.storage}/index.db"
        )
        ae = AE("SCU").add_scu(verification_scu)
        asce = await ae.request_association(RemoteAE("X", self.running.address.endpoint))
        closed = asce.closed()
        stopped = deferToThread(self.running.stop)
        assert isinstance(await closed, AssociationReleasedError)
        await stopped
        assert "Traceback" not in self.running.log

    async def test_a_store_in_flight_is_finished_when_the_process_is_told_to_stop(self) -> None:
        """SIGTERM in the middle of a data set: the rest of it is taken, kept and answered."""
        self.running.start()
        data = ct("1.2.3", pixels=8 << 20)
        header = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax)
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        asce = await ae.request_association(RemoteAE("X", self.running.address.endpoint))
        closed = asce.closed()
        content = Interrupting(header + data, self.running.pid)
        assert await asce.get_scu(CT_IMAGE_STORAGE)(content) == 0x0000
        assert isinstance(await closed, AssociationReleasedError)
        await deferToThread(self.running.stop)
        assert "Received SIGTERM" in self.running.log
        (kept,) = self.running.instances().values()
        assert kept.read_bytes().endswith(data)

    async def test_a_second_node_on_the_same_storage_refuses_to_start(self) -> None:
        """And the first goes on."""
        self.running.start()
        second = await deferToThread(dicom, "--storage", self.running.storage, "--listen", LOOPBACK)
        refused(second, f"twistd dicom: the storage directory {self.running.storage} is in use")
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        header = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax)
        async with await ae.request_association(
            RemoteAE("X", self.running.address.endpoint)
        ) as asce:
            sent = BytesIO(header + ct("1.2.3"))
            assert await asce.get_scu(CT_IMAGE_STORAGE)(sent) == 0x0000

    async def test_twist_runs_it_too(self) -> None:
        """The other runner of Twisted; it does not daemonize."""
        twist = Path(sys.executable).with_name("twist")
        process = Process(
            self.directory / "twist.log",
            *(sys.executable, twist, "--log-format", "text", "dicom", "--listen", LOOPBACK),
            *("--storage", self.running.storage),
            PYTHONPATH=PYTHONPATH,
        )
        self.addCleanup(process.kill)
        port = process.ready(
            lambda: re.search(r"listening on 127\.0\.0\.1:(\d+), storage", process.text()), "line"
        )[1]
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        header = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT.transfer_syntax)
        async with await ae.request_association(RemoteAE("X", f"tcp:127.0.0.1:{port}")) as asce:
            sent = BytesIO(header + ct("1.2.3"))
            assert await asce.get_scu(CT_IMAGE_STORAGE)(sent) == 0x0000
        assert self.running.instances().keys() == {"1.2.3"}


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_a_node_that_cannot_listen_refuses_to_start(tmp_path: Path, runner: str) -> None:
    """Instead of running deaf; the sentence says where and why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = dicom(
            *("--storage", tmp_path / "archive", "--listen", f"tcp:{port}:interface=127.0.0.1"),
            runner=runner,
        )
    refused(done, f"NETDICOM cannot listen: Couldn't listen on 127.0.0.1:{port}: ")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["port", "storage"])
def test_a_node_in_the_background_reports_that_it_cannot_start(tmp_path: Path, fault: str) -> None:
    """twistd tells the shell, and no pid file is left for the init system to trust."""
    storage, pid_file = tmp_path / "archive", tmp_path / "twistd.pid"
    if fault == "storage":
        storage.write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if fault == "port" else 0
        done = run(
            *(sys.executable, Path(sys.executable).with_name("twistd")),
            *("--pidfile", pid_file, "--logfile", tmp_path / "twistd.log", "dicom"),
            *("--storage", storage, "--listen", f"tcp:{port}:interface=127.0.0.1"),
            PYTHONPATH=PYTHONPATH,
        )
    assert done.returncode == 1
    assert "NETDICOM cannot listen" in done.stdout if fault == "port" else "storage" in done.stdout
    assert not pid_file.exists()


def test_a_node_whose_port_fails_later_ends(tmp_path: Path) -> None:
    """Some endpoints take their time; a node that hears nobody must not look alive."""
    stopped: list[bool] = []

    class Reactor(MemoryReactorClock):
        def stop(self) -> None:
            stopped.append(True)

    ae = ArchiveAE("NODE", FileStore(tmp_path / "archive"), reactor=Reactor())
    node = NodeService(ae, ["tcp:0"])
    node._listener.listening_failed(Failure(CannotListenError("127.0.0.1", 104, OSError("no"))))
    assert stopped == [True]


@pytest.mark.slow
def test_a_node_whose_storage_cannot_be_made_refuses_to_start(tmp_path: Path) -> None:
    """The sentence says what is wrong with it."""
    (tmp_path / "file").write_bytes(b"")
    done = dicom("--storage", tmp_path / "file", "--listen", LOOPBACK)
    refused(done, f"twistd dicom: the storage directory {tmp_path / 'file'} cannot be used: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--listen", "carrier-pigeon:1"], "Unknown endpoint type"),
        (
            ["-l", "tcp:0:interface=127.0.0.1", "-l", "tcp:99999"],
            "--listen: 'tcp:99999' has no port",
        ),
        (["-l", f"ssl:0:privateKey={__file__}"], "a private key and its certificate"),
        (["-m", "many"], "--max-associations: expected a whole number of 1 or more, not 'many'"),
        (["-w", "/none/such"], "--worklist: /none/such is not a directory"),
        (["-p", "A@h:1", "-p", "A@h:2"], "another --peer with the AE title A"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_a_node_with_a_wrong_option_refuses_to_start(options: list[str], sentence: str) -> None:
    """In a few lines: the mistake does not stand behind the help text."""
    done = dicom(*options)
    refused(done, sentence)
    assert len(done.stdout.splitlines()) < 8
