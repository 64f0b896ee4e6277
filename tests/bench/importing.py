"""Import against sending: the same files into two archives, over loopback and without the network.

    python -m tests.bench.importing [--count 10000] [--jobs 2] [--associations 4]

Each way has an archive of its own, both on one disk, and both sync. It prints instances a second, and the CPU seconds
of all processes that have taken part; on a machine with other work these say more than the rate.
"""

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.bench.data import make_set
from tests.bench.peers import node

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: processes whose parent has ended become our children


class Cost(NamedTuple):
    """What a way has cost, in seconds."""

    wall: float
    cpu: float


def main() -> None:
    """Measure both ways."""
    parser = argparse.ArgumentParser(description="Import against sending.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--associations", type=int, default=4)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        files = Path(temporary) / "files"
        make_set(files, "small", options.count)
        sent = _sent(Path(temporary), files, options.associations)
        imported = {
            how: _imported(Path(temporary) / how, files, how, options.jobs)
            for how in ("copy", "link")
        }
        for what, cost in {"send": sent, **imported}.items():
            rate = options.count / cost.wall
            print(
                f"{what:6}{rate:8.0f} instances a second{cost.wall:8.2f} s{cost.cpu:8.2f} s of CPU"
                f"{sent.wall / cost.wall:8.1f} times as fast{sent.cpu / cost.cpu:8.1f} times less CPU"
            )


def _sent(temporary: Path, files: Path, associations: int) -> Cost:
    before = _cpu()
    with node(temporary / "node", options=[]) as peer:
        began = time.perf_counter()
        _run("store", f"{peer.ae_title}@127.0.0.1:{peer.port}", files, "--jobs", associations)
        wall = time.perf_counter() - began
    return Cost(wall, _cpu() - before)


def _imported(storage: Path, files: Path, how: str, jobs: int) -> Cost:
    before, began = _cpu(), time.perf_counter()
    _run("import", files, "--storage", storage, f"--{how}", "--jobs", jobs)
    return Cost(time.perf_counter() - began, _cpu() - before)


def _run(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "netdicom_tx", *map(str, arguments), "--quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _cpu() -> float:
    """The CPU seconds of all processes that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, 0)[0]:
            pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
