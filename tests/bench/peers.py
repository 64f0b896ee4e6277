"""Start the peers to measure, and read their resource use from ``/proc`` (Linux)."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]

# DCMTK reads this variable when it opens a connection; without it, Nagle's algorithm stays on.
_NAGLE_OFF = "TCP_NODELAY"

# The largest maximum length that DCMTK's tools accept (ASC_MAXIMUMPDUSIZE).
LARGEST_PDU = 131072

_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A running SCP."""

    name: str
    ae_title: str
    pid: int
    port: int
    storage: Path

    def cpu_seconds(self) -> float:
        """The user and system CPU seconds used so far, including all children."""
        return cpu_seconds(self.pid)

    def peak_octets(self) -> int:
        """The peak resident memory so far (``VmHWM``), summed over the processes."""
        return sum(_peak(pid) for pid in _family(self.pid))


@contextmanager
def node(
    storage: Path, name: str = "node", options: Sequence[str] = (), workers: int = 1
) -> Iterator[Peer]:
    """Run ``twistd dicom`` on a port that the system chooses.

    Args:
        storage: Folder of the received files.
        name: The name of the peer in the figures.
        options: Further options of ``twistd dicom``.
        workers: How many processes serve; all of them serve when this returns.
    """
    if workers > 1:
        options = [*options, "--workers", str(workers)]
    command = [
        str(Path(sys.executable).with_name("twistd")),
        *("--pidfile=", "-n", "dicom"),
        *("--listen", "tcp:0:interface=127.0.0.1"),
        *("--storage", str(storage), "--aet", "NETDICOM"),
        *options,
    ]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = dcmtk_environment(tuned=False) | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with running(command, storage, environment) as (process, log):

        def announced() -> int | None:
            found = re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text("utf-8", "replace"))
            return int(found[1]) if found else None

        def complete() -> bool | None:
            serving = log.read_text("utf-8", "replace").count(" serves")
            return workers == 1 or serving >= workers or None

        port = until(announced, "the node's line with its port", process, log)
        until(complete, "the lines of its workers", process, log)
        yield Peer(name=name, ae_title="NETDICOM", pid=process.pid, port=port, storage=storage)


@contextmanager
def storescp(storage: Path, *, tuned: bool) -> Iterator[Peer]:
    """Run DCMTK's ``storescp``, which does not flush its files to disk.

    Args:
        storage: Folder of the received files.
        tuned: Turn Nagle's algorithm off and use the largest maximum length; otherwise use the defaults.
    """
    port = free_port()
    storage.mkdir(parents=True)
    command = [tool("storescp"), "-od", str(storage), str(port)]
    if tuned:
        command[1:1] = ["--max-pdu", str(LARGEST_PDU)]
    with running(command, storage, dcmtk_environment(tuned=tuned)) as (process, log):
        # Look instead of connecting: this process serves one association at a time.
        until(lambda: listens(port) or None, f"a listener on port {port}", process, log)
        yield Peer(
            name="storescp", ae_title="STORESCP", pid=process.pid, port=port, storage=storage
        )


def storescu(peer: Peer, paths: list[Path], *, tuned: bool) -> None:
    """Send files to a peer with DCMTK's ``storescu`` on one association.

    Raises:
        RuntimeError: ``storescu`` failed, or the peer refused an instance.
    """
    command = [tool("storescu"), "-R", "-aec", peer.ae_title]
    if tuned:
        command += ["--max-pdu", str(LARGEST_PDU), "--max-send-pdu", str(LARGEST_PDU)]
    command += ["127.0.0.1", str(peer.port), *map(str, paths)]
    environment = dcmtk_environment(tuned=tuned)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode or ended.stderr:
        raise RuntimeError(f"storescu to {peer.name}: {ended.returncode} {ended.stderr[-2000:]}")


def dcmtk_environment(*, tuned: bool) -> dict[str, str]:
    """Return the environment, with or without the variable that turns Nagle's algorithm off in DCMTK."""
    environment = {name: value for name, value in os.environ.items() if name != _NAGLE_OFF}
    return environment | {_NAGLE_OFF: "1"} if tuned else environment


def part10_files(folder: Path) -> list[Path]:
    """Return all Part 10 files below a directory."""
    return [path for path in folder.rglob("*") if path.is_file() and _is_part10(path)]


def status_octets(pid: int | str, field: str) -> int:
    """Return a memory field of ``/proc/PID/status``, such as ``VmHWM`` or ``VmRSS``, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    if not found:
        raise RuntimeError(f"/proc/{pid}/status has no {field}")
    return int(found[1]) * _KIB


def _peak(pid: int) -> int:
    # A child that has ended but has not been waited for uses no memory.
    status = Path(f"/proc/{pid}/status")
    return status_octets(pid, "VmHWM") if "VmHWM" in status.read_text("ascii") else 0


def forget_peak(pid: int | str) -> int:
    """Reset the peak of resident memory to the current value, and return that."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")
    return status_octets(pid, "VmHWM")


def _is_part10(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text("ascii").split():
            yield from _family(int(child))


def cpu_seconds(pid: int) -> float:
    """The user and system CPU seconds that a process has used so far, with all of its children."""
    return sum(_cpu_seconds(each) for each in _family(pid))


def _cpu_seconds(pid: int) -> float:
    # proc(5): fields 14 to 17 are utime, stime, cutime and cstime; the name may contain spaces.
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except FileNotFoundError:  # it has ended since it was listed, and its parent has its time
        return 0.0
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def tool(name: str) -> str:
    # pynetdicom installs tools with the same names next to the interpreter.
    mine = str(Path(sys.executable).parent)
    elsewhere = [d for d in os.get_exec_path() if d != mine]
    found = shutil.which(name, path=os.pathsep.join(elsewhere))
    if not found:
        raise SystemExit(f"{name} not found: install DCMTK")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    # State 0A is LISTEN; the local address ends with the port in hexadecimal.
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False


@contextmanager
def running(
    command: list[str], storage: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = storage.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=storage.parent, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(
    look: Callable[[], _T | None], what: str, process: subprocess.Popen[bytes], log: Path
) -> _T:
    deadline = time.monotonic() + 30
    while (seen := look()) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no {what}:\n{log.read_text('utf-8', 'replace')[-4000:]}")
        time.sleep(0.01)
    return seen
