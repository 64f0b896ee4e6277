"""``netdicom`` and the peer of these tests, as processes."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from support.measuring import variables
from support.processes import PATIENCE, Process

ROOT = Path(__file__).resolve().parents[3]
PEER = Path(__file__).with_name("peer.py")


def environment(home: Path) -> dict[str, str]:
    """Ours to find, nobody's configuration, no terminal."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "HOME": str(home), **variables()}


def three_lines(err: str) -> bool:
    """Whether the last of what was said is an error in its form."""
    heads = [line[:7] for line in err.splitlines()[-3:]]
    return heads == ["error: ", "       ", "hint:  "]


def on_a_terminal(
    command: list[str], directory: Path, variables: dict[str, str]
) -> tuple[int, str]:
    """Run a command with a terminal as its stdout and stderr; its exit code, and what is seen."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        said = bytearray()
        try:
            while piece := screen.read(4096):
                said += piece
        except OSError:  # EIO: nobody has the other end any more
            pass
        return process.wait(PATIENCE), said.decode().replace("\r\n", "\n")


class Netdicom:
    """Runs ``netdicom`` in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(
        self, *arguments: object, within: float = 60, file_limit: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end.

        Args:
            file_limit: The largest file in octets that it can write.
        """
        command = [sys.executable, "-m", "netdicom_tx", *map(str, arguments)]
        surroundings = environment(self.directory)
        if file_limit is not None:
            command = ["prlimit", f"--fsize={file_limit}", *command]
            # The file with the measured coverage would meet the limit, too.
            surroundings = {
                name: value for name, value in surroundings.items() if name not in variables()
            }
        return subprocess.run(
            command,
            cwd=self.directory,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    def start(self, *arguments: object) -> "Running":
        """Start it."""
        return Running(self.directory, *arguments)


class Running:
    """A ``netdicom`` that runs beside the test; a context manager, that kills it."""

    def __init__(self, directory: Path, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "netdicom_tx", *map(str, arguments)],
            cwd=directory,
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdout = self._process.stdout
        self.stderr = self._process.stderr

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """As systemd does."""
        self._process.terminate()

    def end(self, within: float = PATIENCE) -> tuple[int, str, str]:
        """Its exit code, and what it has still said."""
        out, err = self._process.communicate(timeout=within)
        return self._process.returncode, out, err


class Peer:
    """``peer.py``: an SCP whose behaviour is chosen by how it is called."""

    def __init__(self, directory: Path, instances: Path) -> None:
        self.storage = directory / "storage"
        self.storage.mkdir()
        log = directory / "peer.log"
        self._process = Process(
            log, sys.executable, PEER, self.storage, instances, PYTHONPATH=str(ROOT)
        )
        # With the end of the line: what is printed may arrive in pieces.
        listening = self._process.ready(
            lambda: re.search(r"^listening (\d+)\n", self.log, re.MULTILINE), "listening peer"
        )
        self.port = int(listening[1])

    @property
    def log(self) -> str:
        """What it has said."""
        return self._process.text()

    def address(self, title: str = "PEER") -> str:
        return f"{title}@127.0.0.1:{self.port}"

    def ended(self) -> bool:
        return self._process.ended()

    def pause(self) -> None:
        """It answers nothing any more (SIGSTOP)."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.resume()
        self._process.kill()
