"""Measure memory: our SCU sends one instance of more than 1 GiB to the node; each may need 32 MiB.

For each process, the peak of resident memory during the transfer (``VmHWM``) is compared with the resident memory
just before: for the node when it has announced its port, for the sender when it has imported the library and created
its AE. Neither is warmed up, so code that the first association loads counts. The exit status is 1 if either
process grows by more, or if the stored data set differs from the one that was sent.

    python -m tests.bench.memory [--cache DIRECTORY]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react

from tests.bench.data import data_set_offset, make_set
from tests.bench.peers import (
    ROOT,
    dcmtk_environment,
    forget_peak,
    node,
    part10_files,
    status_octets,
)

LIMIT = 32 * 2**20

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """The resident memory of a process before a transfer and at its peak, in bytes."""

    before: int
    peak: int

    @property
    def octets(self) -> int:
        """The difference between the peak and the memory before."""
        return self.peak - self.before


def transfer(path: Path, folder: Path) -> tuple[dict[str, Growth], float]:
    """Send a file from our SCU to our node, each in its own process.

    Returns:
        The growth of both processes, and the seconds that the sending process took.

    Raises:
        RuntimeError: The file did not arrive whole.
    """
    command = [sys.executable, "-m", "tests.bench.memory", "--send", str(path)]
    with node(folder / "storage") as peer:
        before = forget_peak(peer.pid)
        began = time.perf_counter()
        sender = subprocess.run(
            [*command, f"tcp:127.0.0.1:{peer.port}"],
            cwd=ROOT,
            env=dcmtk_environment(tuned=False),
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.perf_counter() - began
        received = Growth(before=before, peak=status_octets(peer.pid, "VmHWM"))
    (kept,) = part10_files(peer.storage)
    if not same_data_set(path, kept):
        raise RuntimeError("the data set kept is not the one sent")
    return {"node": received, "SCU": Growth(**json.loads(sender.stdout))}, seconds


def same_data_set(one: Path, other: Path) -> bool:
    """Return whether two Part 10 files contain the same data set, byte for byte."""
    with one.open("rb") as file, other.open("rb") as copy:
        file.seek(data_set_offset(one))
        copy.seek(data_set_offset(other))
        while chunk := file.read(_MIB):
            if chunk != copy.read(_MIB):
                return False
        return not copy.read(1)


async def send(reactor: IReactorCore, path: Path, endpoint: str) -> None:
    """Send one file with the library and print the growth as JSON; this is the sending process."""
    from netdicom_tx import AE, RemoteAE, storage_scu

    sop_class = read_file_meta_info(path).MediaStorageSOPClassUID
    ae = AE("BENCH").add_scu(storage_scu, [sop_class])
    before = forget_peak("self")
    async with await ae.request_association(RemoteAE("NETDICOM", endpoint)) as asce:
        status = await asce.get_scu(sop_class)(path)
    if status != 0:
        raise RuntimeError(f"status {status}")
    growth = Growth(before=before, peak=status_octets("self", "VmHWM"))
    print(json.dumps(asdict(growth)))


def main() -> None:
    """Transfer the instance, print both growths, and fail if one exceeds the limit."""
    parser = argparse.ArgumentParser(
        description="Measure the memory of a transfer of more than 1 GiB."
    )
    parser.add_argument(
        "--cache", type=Path, help="where to keep the generated instance for the next run"
    )
    parser.add_argument(
        "--directory", type=Path, help="where the node stores (default: a temporary directory)"
    )
    parser.add_argument("--send", nargs=2, metavar=("FILE", "ENDPOINT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send:
        react(send, (Path(arguments.send[0]), arguments.send[1]))

    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as temporary:
        folder = Path(temporary)
        (path,) = make_set(arguments.cache or folder / "sets", "huge", 1)
        size = path.stat().st_size
        growths, seconds = transfer(path, folder)
    print(f"{size} octets in {seconds:.1f} s, start of the sender included")
    print(f"{'process':8} {'before MiB':>10} {'peak MiB':>10} {'growth MiB':>10}")
    for name, growth in growths.items():
        before, peak, grown = (n / _MIB for n in (growth.before, growth.peak, growth.octets))
        print(f"{name:8} {before:10.1f} {peak:10.1f} {grown:10.1f}")
    if any(growth.octets >= LIMIT for growth in growths.values()):
        sys.exit(f"growth of {LIMIT / _MIB:.0f} MiB or more")


if __name__ == "__main__":
    main()
