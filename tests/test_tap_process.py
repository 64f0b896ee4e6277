"""The node as a process: twistd dicom and twist dicom."""

import contextlib
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import twisted
from netdicom_tx import AE, RemoteAE, storage_scu, verification_scu
from netdicom_tx.archive import ArchiveAE, FileStore
from netdicom_tx.dsutils import part10_header
from netdicom_tx.exceptions import AssociationReleasedError
from netdicom_tx.logs import digest_of_uid
from netdicom_tx.tap import NodeService
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.node import Node, settled
from support.processes import CHECKOUT, Process, eventually, run

LOOPBACK = "tcp:0:interface=127.0.0.1"
#: How twistd ends after a wrong option: before 26.10 as if nothing had happened.
WRONG_OPTION = 1 if (twisted.version.major, twisted.version.minor) >= (26, 10) else 0


PYTHONPATH = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))


def dicom(*options: str | Path, runner: str = "twistd") -> CompletedProcess[str]:
    """Run a node that is expected to end by itself."""
    program = Path(sys.executable).with_name(runner)
    own = ("--pidfile=", "-n") if runner == "twistd" else ()
    return run(sys.executable, program, *own, "dicom", *options, PYTHONPATH=PYTHONPATH)


def refused(done: CompletedProcess[str], sentence: str, status: int = 1) -> None:
    """It ended by itself, told of a failure, and its last line is a sentence, not a traceback."""
    assert done.returncode == status, done.stdout
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


def cpu_seconds(pid: int) -> float:
    """The time that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
        await deferToThread(self.running.ended_with, 0)
        assert "Received SIGTERM" in self.running.log
        (kept,) = self.running.instances().values()
        assert kept.read_bytes().endswith(data)

    async def test_the_log_has_digests_in_the_place_of_uids(self) -> None:
        """--log-uids: lines about the same instance can still be related."""
        self.running = Node(self.directory, "--log-uids", "digest")
        self.running.start()
        uid = "1.2.826.0.1.3680043.10.5"
        header = part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax)
        ae = AE("SCU").add_scu(storage_scu, [CT_IMAGE_STORAGE])
        remote = RemoteAE("X", self.running.address.endpoint)
        async with await ae.request_association(remote) as asce:
            statuses = [
                await asce.get_scu(CT_IMAGE_STORAGE)(BytesIO(header + ct(uid, fill=fill)))
                for fill in (1, 2)
            ]
        assert statuses == [0x0000, 0x0111]
        await deferToThread(self.running.stop)
        assert f"{digest_of_uid(uid, 'NETDICOM')} from SCU is refused" in self.running.log
        assert uid not in self.running.log

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

    async def test_case_84_without_descriptors_those_who_are_served_stay_served(self) -> None:
        """EMFILE in accept: nobody new comes in, nothing spins; when there are descriptors again, all is well."""
        self.running.start()
        pid = self.running.pid
        ae = AE("SCU").add_scu(verification_scu)
        remote = RemoteAE("X", self.running.address.endpoint)
        asce = await ae.request_association(remote)
        assert await asce.echo() == 0x0000
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        count = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (count + 4, before[1]))
        with ExitStack() as stack:
            for _ in range(40):
                port = self.running.address.port
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            used = cpu_seconds(pid)
            for _ in range(20):
                assert await asce.echo() == 0x0000
                await deferLater(reactor, 0.05)
            assert cpu_seconds(pid) - used < 0.8, "it spins"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        async with await ae.request_association(remote) as other:
            assert await other.echo() == 0x0000
        await asce.release()

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
        assert settled(self.running.storage).keys() == {"1.2.3"}


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


#: What keeps a node in the background from starting: options, the exit status, and the sentence on the terminal.
FAULTS = {
    "port": (
        ("--listen", "tcp:{port}:interface=127.0.0.1"),
        1,
        "NETDICOM cannot listen: Couldn't listen on 127.0.0.1:{port}: [Errno 98] Address already in use. "
        "End the other program that listens there (ss -ltnp shows it), or name another port.",
    ),
    "storage": (
        ("--storage", "{file}"),
        1,
        "twistd dicom: the storage directory {file} cannot be used: File exists",
    ),
    "database": (
        ("--database", "sqlite:///{file}/index.db"),
        1,
        "twistd dicom: the index sqlite:///{file}/index.db cannot be opened: unable to open database file",
    ),
    "configuration": (
        ("--config", "{wrong}"),
        78,
        "{wrong}: line 2: [node] listn: is not a known key; did you mean listen?",
    ),
    "no configuration": (
        ("--config", "{file}.toml"),
        78,
        "{file}.toml: No such file or directory; check the path, or write a new file: netdicom config init {file}.toml",
    ),
}


def running_with(word: str) -> list[str]:
    """The processes with a word in their command line."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [str(each)] if word.encode() in each.read_bytes() else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_node_in_the_background_reports_that_it_cannot_start(tmp_path: Path, fault: str) -> None:
    """In a whole sentence; no pid file is left for the init system to trust, and no process."""
    options, status, sentence = FAULTS[fault]
    pid_file, file, wrong = tmp_path / "twistd.pid", tmp_path / "file", tmp_path / "wrong.toml"
    file.write_bytes(b"")
    wrong.write_text('[node]\nlistn = ["tcp:104"]\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"port": taken.getsockname()[1], "file": file, "wrong": wrong}
        done = run(
            *(sys.executable, Path(sys.executable).with_name("twistd")),
            *("--pidfile", pid_file, "--logfile", tmp_path / "twistd.log", "dicom"),
            *("--storage", tmp_path / "archive", "--listen", LOOPBACK),
            *(each.format(**known) for each in options),
            PYTHONPATH=PYTHONPATH,
        )
    assert done.returncode == status, done.stdout
    assert sentence.format(**known) in done.stdout
    # twistd reports first and tidies up afterwards: the shell can be back before the file is gone.
    eventually(lambda: not pid_file.exists(), "end of the pid file")
    eventually(lambda: not running_with(str(tmp_path)), "end of the processes")


@pytest.mark.slow
def test_a_node_in_the_background_gives_up_the_terminal(tmp_path: Path) -> None:
    """Once it has started: a shell that waits for the end of the output would wait for the end of the node."""
    pid_file, log = tmp_path / "twistd.pid", tmp_path / "twistd.log"
    done = run(
        *(sys.executable, Path(sys.executable).with_name("twistd")),
        *("--pidfile", pid_file, "--logfile", log, "dicom"),
        *("--storage", tmp_path / "archive", "--listen", LOOPBACK),
        PYTHONPATH=PYTHONPATH,
    )
    try:
        assert done.returncode == 0, done.stdout
        eventually(lambda: "listening on 127.0.0.1" in log.read_text(), "line")
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    eventually(lambda: not pid_file.exists(), "end of the pid file")


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
        (["-p", "A@h:1", "-p", "A@h:2"], "another --peer has the AE title A"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_a_node_with_a_wrong_option_refuses_to_start(options: list[str], sentence: str) -> None:
    """In a few lines: the mistake does not stand behind the help text."""
    done = dicom(*options)
    refused(done, sentence, WRONG_OPTION)
    assert len(done.stdout.splitlines()) < 8
