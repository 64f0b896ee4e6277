"""DCMTK's worklist as a peer, and its ``findscu -W`` as a function."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from pydicom.dataset import Dataset

from ..node import Address
from ..processes import Process, free_port, program, run
from .archives import findscu
from .population import write_part10

# Brings the loopback interface of a new network namespace up, and becomes what follows.
_ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execvp(sys.argv[1], sys.argv[1:])
"""


@functools.cache
def _can_be_alone() -> bool:
    tools = all(shutil.which(each) for each in ("unshare", "nsenter"))
    probe = ["unshare", "-rn", sys.executable, "-c", _ALONE, "true"]
    return tools and subprocess.run(probe, capture_output=True, check=False).returncode == 0


class Wlmscpfs:
    """DCMTK's ``wlmscpfs`` on a directory of ``.wl`` files.

    It cannot be told to listen on loopback only; so it has a network of its own where the system lets us make
    one, and :meth:`inside` is a prefix for commands that are to reach it.

    Args:
        directory: With a directory below it for each AE title.
    """

    def __init__(self, directory: Path, ae_title: str, log: Path) -> None:
        executable = program("wlmscpfs")
        self.address = Address(ae_title, free_port())
        alone = ["unshare", "-rn", sys.executable, "-c", _ALONE] if _can_be_alone() else []
        self._process = Process(
            log,
            *alone,
            executable,
            *("--single-process", "--keep-char-set", "--data-files-path", directory),
            str(self.address.port),
            TCP_NODELAY="1",
        )
        echo = [*self.inside, program("echoscu"), "-aec", ae_title, *self.address.arguments]
        self._process.ready(lambda: run(*echo).returncode == 0, "wlmscpfs")

    @property
    def inside(self) -> list[str]:
        """What commands that talk to it begin with."""
        if not _can_be_alone():
            return []
        return ["nsenter", "-t", str(self._process.pid), "-U", "--preserve-credentials", "-n"]

    def close(self) -> None:
        """End it at once; it keeps nothing."""
        self._process.kill()


def worklist(
    address: Address, identifier: Dataset, directory: Path, prefix: list[str] | None = None
) -> list[Dataset]:
    """The answers to a query of ``findscu -W``; see :func:`~.archives.findscu`."""
    return findscu(address, "W", identifier, directory, prefix or ())


def write_wl(ds: Dataset, path: Path) -> None:
    """A worklist file, under a temporary name until it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    write_part10(ds, unfinished)
    unfinished.rename(path)
