"""Measure how long the commands take to start: ``netdicom``, DCMTK's ``echoscu``, and what Python itself takes.

    python -m tests.bench.startup [--rounds N]

Every command calls a node of ours on loopback. Each round runs all of them once, so that another load of the machine
slows all of them down alike. ``real`` depends on that load; ``cpu``, the user and system seconds, hardly does.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from pydicom.data import get_testdata_file

from tests.bench.peers import ROOT, node

_NETDICOM = (sys.executable, "-m", "netdicom_tx")


def once(command: Sequence[str]) -> tuple[float, float]:
    """Run a command to its end; return the seconds of wall time and of CPU time."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def commands(port: int) -> dict[str, Sequence[str]]:
    """The commands to compare, by the name in the table."""
    peer = f"127.0.0.1:{port}"
    python = (sys.executable, "-c")
    return {
        "python, empty": (*python, ""),
        "python, the reactor": (*python, "import twisted.internet.reactor"),
        "python, the reactor and pydicom": (*python, "import pydicom, twisted.internet.reactor"),
        "netdicom --help": (*_NETDICOM, "--help"),
        "netdicom echo": (*_NETDICOM, "echo", peer),
        "netdicom find": (*_NETDICOM, "find", peer, "-k", "PatientID=1"),
        "netdicom store": (*_NETDICOM, "store", peer, str(get_testdata_file("CT_small.dcm"))),
        "echoscu": ("echoscu", "127.0.0.1", str(port)),
    }


def main() -> None:
    """Measure and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="rounds to measure (default: 11)")
    rounds: int = parser.parse_args().rounds
    with TemporaryDirectory(prefix="bench-") as storage, node(Path(storage)) as peer:
        asked = commands(peer.port)
        for command in asked.values():
            once(command)  # writes the byte code, and fills the page cache
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
        for _ in range(rounds):
            for name, command in asked.items():
                found[name].append(once(command))
    print(f"{'':32} {'real s':>8} {'cpu s':>8}")
    for name, values in found.items():
        real, cpu = (median(each) for each in zip(*values, strict=True))
        print(f"{name:32} {real:8.3f} {cpu:8.3f}")


if __name__ == "__main__":
    main()
