"""Compare the node with Orthanc and ``dcmqrscp`` as archives, for storing and retrieving.

*small*, *ct*, *big*: a plain socket stores a set into an empty archive, each instance after the response to
the previous one. The node and Orthanc have each instance on disk and in the index before they answer;
``dcmqrscp`` flushes nothing. *get*: the archive sends a CT study by C-GET to a plain socket that discards it.
*move*: the archive sends the study by C-MOVE to ``storescp --ignore``.

    python -m tests.bench.archive [--rounds N] [--sets small,ct,big,get,move] [--peers ...]
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from tests.bench.archives import dcmqrscp, orthanc, sink
from tests.bench.data import SETS, make_set
from tests.bench.peers import Peer, node
from tests.bench.raw_query import GET, MOVE, RawSCU, identifier
from tests.bench.raw_sender import RawSender
from tests.bench.tables import Contestant, chosen, names, rounds, table

PEERS = ("node", "nosync", "orthanc", "dcmqrscp")
STORED = ("small", "ct", "big")
COUNTS = {"small": 1000, "ct": 300, "big": 2}
RETRIEVED = 200

_MEGA = 1_000_000
_Start = Callable[[Path], AbstractContextManager[Peer]]


class Measured:
    """Starts archives and records what each of them costs."""

    def __init__(self, folder: Path, receiver: Peer) -> None:
        self._folder = folder
        self._number = 0
        to = f"--peer=SINK@127.0.0.1:{receiver.port}"
        self.start: dict[str, _Start] = {
            "node": lambda storage: node(storage, "node", [to]),
            "nosync": lambda storage: node(storage, "nosync", [to, "--no-fsync"]),
            "orthanc": lambda storage: orthanc(storage, receiver),
            "dcmqrscp": lambda storage: dcmqrscp(storage, receiver),
        }
        self.peaks: dict[str, int] = {}

    def storage(self, name: str) -> Path:
        """Return a new directory."""
        self._number += 1
        return self._folder / f"{name}-{self._number}"

    def store(self, name: str, sender: RawSender, count: int) -> float:
        """Store a set into an empty archive; return the instances per second."""
        with self.start[name](self.storage(name)) as peer:
            os.sync()
            began = time.perf_counter()
            sender.send(peer)
            seconds = time.perf_counter() - began
            self.note(peer)
            folder = peer.storage
        for path in folder.rglob("*"):
            # Truncate instead of delete, as in store_scp.
            if path.is_file():
                os.truncate(path, 0)
        return count / seconds

    def note(self, peer: Peer) -> None:
        """Record the peak of an archive's memory."""
        self.peaks[peer.name] = max(self.peaks.get(peer.name, 0), peer.peak_octets())

    def retrieve(self, peer: Peer, operation: str, sender: RawSender, octets: int) -> float:
        """Retrieve a study, to this process or to the receiver; return the MB per second."""
        storage = sender.sop_class if operation == GET else ""
        with RawSCU(peer, storage=storage) as scu:
            began = time.perf_counter()
            outcome = scu.run(
                operation,
                identifier("STUDY", study=sender.study),
                "SINK" if operation == MOVE else "",
            )
            seconds = time.perf_counter() - began
        if outcome.instances != RETRIEVED:
            raise RuntimeError(f"{peer.name}: {outcome.instances} instances of {RETRIEVED}")
        self.note(peer)
        return octets / seconds / _MEGA


def main() -> None:
    """Measure, and print the results."""
    sets = (*STORED, "get", "move")
    parser = argparse.ArgumentParser(description="Compare the node with other archives.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", type=names, default=list(sets), help=",".join(sets))
    parser.add_argument(
        "--peers", type=names, default=["node", "orthanc", "dcmqrscp"], help=",".join(PEERS)
    )
    parser.add_argument(
        "--cache", type=Path, help="where to keep the generated instances for the next run"
    )
    parser.add_argument(
        "--directory", type=Path, help="where the peers store (default: a temporary directory)"
    )
    arguments = parser.parse_args()
    wanted, peers = chosen(arguments.sets, sets), chosen(arguments.peers, PEERS)

    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as temporary,
        ExitStack() as stack,
    ):
        folder = Path(temporary)
        cache = arguments.cache or folder / "sets"
        measured = Measured(folder, stack.enter_context(sink(folder / "sink")))
        for name in STORED:
            if name in wanted:
                paths = make_set(cache, name, COUNTS[name])
                sender = RawSender(paths)
                measured.peaks.clear()
                contestants: list[Contestant] = [
                    (each, partial(measured.store, each, sender, len(paths))) for each in peers
                ]
                found = rounds(contestants, arguments.rounds, "instances/s")
                size = SETS[name].pixel_octets / _MEGA
                table(f"C-STORE {name} ({size:.2g} MB)", found, "instances/s", "node")
                _print_peaks(measured)
                del sender
        if {"get", "move"} & set(wanted):
            paths = make_set(cache, "ct", RETRIEVED)
            octets = sum(path.stat().st_size for path in paths)
            sender = RawSender(paths)
            measured.peaks.clear()
            loaded = {}
            for each in peers:
                loaded[each] = stack.enter_context(measured.start[each](measured.storage(each)))
                sender.send(loaded[each])
            for name, operation in (("get", GET), ("move", MOVE)):
                if name in wanted:
                    contestants = [
                        (each, partial(measured.retrieve, loaded[each], operation, sender, octets))
                        for each in peers
                    ]
                    found = rounds(contestants, arguments.rounds, "MB/s")
                    table(f"C-{name.upper()} of a CT study", found, "MB/s", "node")
            _print_peaks(measured)


def _print_peaks(measured: Measured) -> None:
    peaks = ", ".join(f"{name} {octets / _MEGA:.0f}" for name, octets in measured.peaks.items())
    print(f"  peak memory in MB: {peaks}", flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
