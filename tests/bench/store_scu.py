"""Compare our C-STORE SCU with DCMTK's ``storescu`` and pynetdicom's, sending to the same sink.

The sink is ``storescp --ignore`` with ``TCP_NODELAY=1``, which accepts everything and keeps nothing. *command* is
``netdicom store``, and *library* is ``store_all`` in a program. DCMTK's ``storescu`` runs with ``TCP_NODELAY=1`` too.
Times are those of whole processes; for *library* there is also the time without its start (``library-start``), because
the start of Python alone takes half a second. *pynetdicom* is pynetdicom's ``storescu``.

    python -m tests.bench.store_scu [--rounds N] [--sets small,ct]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.bench.archives import sink
from tests.bench.data import make_set
from tests.bench.peers import LARGEST_PDU, ROOT, Peer, dcmtk_environment, tool
from tests.bench.tables import Contestant, chosen, names, rounds, table

SENDERS = ("command", "library", "library-start", "storescu", "pynetdicom")
# The number of different instances, and the number that is sent: each several times, as links.
COUNTS = {"small": (1000, 10000), "ct": (300, 4000)}
# pynetdicom waits 40 ms for a delayed acknowledgement in each instance, so fewer are enough.
PYNETDICOM_COUNT = 100


def send(name: str, peer: Peer, folder: Path, count: int) -> float:
    """Send the instances; return the instances per second.

    Raises:
        RuntimeError: Not all instances were accepted.
    """
    python = [sys.executable, "-m"]
    address = f"{peer.ae_title}@127.0.0.1:{peer.port}"
    command = {
        "command": [*python, "netdicom_tx", "store", "-q", address, str(folder)],
        "storescu": [
            *(tool("storescu"), "-R", "--max-pdu", str(LARGEST_PDU)),
            *("--max-send-pdu", str(LARGEST_PDU), "+sd"),
            *("127.0.0.1", str(peer.port), str(folder)),
        ],
        "pynetdicom": [
            *(*python, "pynetdicom", "storescu", "-q", "-aec", peer.ae_title, "-cx", "-r"),
            *("-pdu", str(LARGEST_PDU), "127.0.0.1", str(peer.port), str(folder)),
        ],
    }.get(
        name,
        [*python, "tests.bench.scus", "store", "SINK", str(peer.port), str(folder)],
    )
    environment = dcmtk_environment(tuned=True) | {"PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if ended.returncode:
        raise RuntimeError(f"{name}: {ended.returncode} {ended.stdout} {ended.stderr[-2000:]}")
    if name.startswith("library"):
        said = json.loads(ended.stdout)
        if said["count"] != count:
            raise RuntimeError(f"{name}: {said}")
        if name.endswith("-start"):
            seconds = said["seconds"]
    return count / seconds


def links(paths: list[Path], folder: Path, count: int) -> Path:
    """Make a directory with the given number of links to a few files."""
    folder.mkdir(parents=True)
    for number in range(count):
        os.link(paths[number % len(paths)], folder / f"{number:05d}.dcm")
    return folder


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description="Compare senders.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", type=names, default=list(COUNTS), help=",".join(COUNTS))
    parser.add_argument("--peers", type=names, default=list(SENDERS), help=",".join(SENDERS))
    parser.add_argument(
        "--cache", type=Path, help="where to keep the generated instances for the next run"
    )
    arguments = parser.parse_args()
    wanted = chosen(arguments.peers, SENDERS)

    # Hard links work only within one file system.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.cache) as temporary:
        folder = Path(temporary)
        for name in chosen(arguments.sets, list(COUNTS)):
            different, count = COUNTS[name]
            paths = make_set(arguments.cache or folder / "sets", name, different)
            many = links(paths, folder / f"{name}-many", count)
            few = links(paths, folder / f"{name}-few", PYNETDICOM_COUNT)
            with sink(folder / f"sink-{name}") as peer:
                contestants: list[Contestant] = [
                    (each, partial(send, each, peer, few, PYNETDICOM_COUNT))
                    if each.startswith("pynetdicom")
                    else (each, partial(send, each, peer, many, count))
                    for each in wanted
                ]
                found = rounds(contestants, arguments.rounds, "instances/s")
            for ours in ("command", "library-start"):
                if ours in found:
                    table(f"C-STORE SCU {name}, to {ours}", found, "instances/s", ours)


if __name__ == "__main__":
    main()
