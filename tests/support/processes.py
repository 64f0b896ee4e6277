"""Programs beside the tests: how one is found, started, known to be ready, and ended.

Everything listens on 127.0.0.1, at a port that is free. A process is ended by its own
process ID, never by a name.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, Self, TypeVar

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
REQUIRE_PEERS = os.environ.get("NETDICOM_TX_REQUIRE_PEERS") == "1"

# Enough for a loaded machine; a test that waits so long has failed.
PATIENCE = 30.0

#: Marks of a module that runs pynetdicom in its own process. On a busy machine, a thread of pynetdicom may fail when
#: both sides end an association at once, and leave its socket to the garbage collector. That is not ours to fail for.
WITH_PYNETDICOM = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

T = TypeVar("T")


def absent(reason: str) -> NoReturn:
    """Skip the test for want of a peer; fail it where all peers are said to be installed."""
    if REQUIRE_PEERS:
        pytest.fail(f"{reason}, and NETDICOM_TX_REQUIRE_PEERS=1")
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of a peer's program."""
    # Debian has Orthanc in /usr/sbin, which is not on everybody's PATH.
    path = [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"]
    for directory in os.pathsep.join(path).split(os.pathsep):
        found = shutil.which(name, path=directory)
        if found is not None and not _is_pynetdicoms(Path(found)):
            return found
    absent(f"{name} is not installed")


def _is_pynetdicoms(path: Path) -> bool:
    """Whether a program is a script of pynetdicom: some have the names of DCMTK's programs, but other options."""
    with path.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"#!") and b"pynetdicom" in head


def need_pynetdicom() -> None:
    """Skip or fail without pynetdicom."""
    if find_spec("pynetdicom") is None:
        absent("pynetdicom is not installed")


def eventually(
    condition: Callable[[], T | None], what: str, *, within: float = PATIENCE, every: float = 0.02
) -> T:
    """The first value of ``condition()`` that is neither None nor False.

    The only place that polls.

    Raises:
        AssertionError: It did not come within so many seconds.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, f"no {what} within {within:g} s"
        time.sleep(every)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago.

    It is below those that the system gives to clients, one of which could have it before the program that is to listen.
    """
    while True:
        # Hypothesis seeds the other generator, so that several processes of tests would get the same ports.
        port = 10_000 + secrets.randbelow(20_000)
        with suppress(OSError), closing(socket.create_server(("127.0.0.1", port))):
            return port


@contextmanager
def dead_port() -> Iterator[int]:
    """A port of 127.0.0.1 on which nobody can listen, and that refuses connections, until the end of the block."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, at most a minute; its outcome is for the caller to judge."""
    try:
        return subprocess.run(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=60,
            env={**os.environ, **environment},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        printed = (late.output or b"").decode(errors="replace")
        raise AssertionError(f"{command[0]} did not end within a minute:\n{printed}") from None


def succeed(*command: str | Path, **environment: str) -> str:
    """What a program printed; the test fails with it when the program did."""
    done = run(*command, **environment)
    assert done.returncode == 0, f"{done.args}\nexit {done.returncode}\n{done.stdout}"
    return done.stdout


class Process:
    """A program that runs beside the test, its output in a file, its directory that of the file."""

    def __init__(self, log: Path, *command: str | Path, **environment: str) -> None:
        self._start(log, command, environment)

    @classmethod
    def inheriting(
        cls, descriptors: Sequence[int], log: Path, *command: str | Path, **environment: str
    ) -> Self:
        """One that inherits file descriptors besides the standard ones."""
        process = cls.__new__(cls)
        process._start(log, command, environment, descriptors)
        return process

    def _start(
        self,
        log: Path,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> None:
        self.log = log
        self._name = Path(command[0]).name
        with log.open("ab") as output:
            self._offset = output.tell()
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env={**os.environ, **environment},
                pass_fds=descriptors,
            )
        self.pid = self._process.pid

    def text(self) -> str:
        """What it has printed since it was started."""
        return self.log.read_bytes()[self._offset :].decode(errors="replace")

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def ready(self, condition: Callable[[], T | None], what: str, *, within: float = PATIENCE) -> T:
        """Wait for a condition of its readiness; fail at once when it ends instead."""

        def check() -> T | None:
            value = condition()
            if not value:
                assert not self.ended(), f"{self._name} has ended:\n{self.text()}"
            return value

        try:
            return eventually(check, what, within=within)
        except BaseException:
            self.kill()
            raise

    def wait(self) -> int:
        """Wait until it has ended; its exit status."""
        return self._process.wait(PATIENCE)

    def stop(self, within: float = 15.0) -> int:
        """Ask it to end (SIGTERM), wait, and kill it when it does not; its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self._name} did not end within {within:g} s of SIGTERM:\n{self.text()}"
            ) from None

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power switch would."""
        self._process.kill()
        self._process.wait(PATIENCE)
