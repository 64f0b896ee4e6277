"""One node with one process and with several: how much more eight associations store, and what that costs.

    python -m tests.bench.workers [--workers 1,2] [--rounds N] [--count N] [--sets small,ct]

Eight plain sockets store small instances at the same time, each on its own association. On a machine of two cores,
the senders compete with the node for them, so the processor time of both is printed: how much of the machine was
left for the node, and what an instance has cost it.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.bench.data import make_set
from tests.bench.peers import node
from tests.bench.raw_sender import RawSender
from tests.bench.tables import Contestant, names, rounds, table

_SENDERS = 8
_COUNTS = {"small": 4000, "ct": 400}


class Measured:
    """Starts nodes, and notes the processor time."""

    def __init__(self, folder: Path, senders: Sequence[RawSender], count: int) -> None:
        self._folder = folder
        self._senders = senders
        self._count = count
        self._number = 0
        self.cpu: dict[int, list[str]] = {}

    def store(self, workers: int) -> float:
        """Store all instances into an empty archive; the instances per second."""
        self._number += 1
        storage = self._folder / f"{workers}-{self._number}"
        with node(storage, workers=workers) as peer:
            os.sync()
            threads = [threading.Thread(target=each.send, args=(peer,)) for each in self._senders]
            own, theirs, began = time.process_time(), peer.cpu_seconds(), time.perf_counter()
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            seconds = time.perf_counter() - began
            own, theirs = time.process_time() - own, peer.cpu_seconds() - theirs
        self.cpu.setdefault(workers, []).append(
            f"node {theirs / self._count * 1000:.2f} ms each, {theirs / seconds:.2f} cores; "
            f"senders {own / seconds:.2f} cores"
        )
        return self._count / seconds


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description="Compare a node with itself, by workers.")
    parser.add_argument("--workers", type=names, default=["1", "2"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=0, help="how many instances are stored")
    parser.add_argument("--sets", type=names, default=["small"], help=",".join(_COUNTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        for name in arguments.sets:
            count = arguments.count or _COUNTS[name]
            paths = make_set(folder / "sets", name, count)
            senders = [RawSender(paths[number::_SENDERS]) for number in range(_SENDERS)]
            measured = Measured(folder, senders, count)
            contestants: list[Contestant] = [
                (each, partial(measured.store, int(each))) for each in arguments.workers
            ]
            found = rounds(contestants, arguments.rounds, "/s")
            table(f"{name}, by workers", found, "/s", arguments.workers[-1])
            for workers, lines in measured.cpu.items():
                for line in lines:
                    print(f"  workers={workers}: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
