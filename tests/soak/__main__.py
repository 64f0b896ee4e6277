"""Let peers store, find and retrieve for a time, and look at the node.

python -m tests.soak                          two hours
python -m tests.soak --minutes 10 --peers 8
python -m tests.soak --minutes 0.3 --peers 2  what the test suite runs

Every peer stores instances of its own, finds and retrieves its studies, checks each octet that it gets, and aborts an
association in the middle of a C-STORE now and then. Afterwards every acknowledged instance must be on the disk, and the
node may not have more memory, descriptors or threads than at the start. The exit status is 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pydicom import dcmread
from twisted.internet import defer, task

sys.path.insert(0, str(Path(__file__).parent.parent))

from soak.figures import JUDGED, Sample, problems, rise, slope
from soak.load import Counts, Peer, digest
from support.node import Node

# Seconds in which the node becomes idle when the peers have ended.
_SETTLING = 3.0


class Soak:
    """One soak of a node that runs."""

    def __init__(self, reactor: Any, node: Node, minutes: float, peers: int) -> None:
        self._reactor = reactor
        self._node = node
        self._seconds = 60 * minutes
        self._start = reactor.seconds()
        self.counts = Counts()
        address = f"{node.ae_title}@127.0.0.1:{node.address.port}"
        self.peers = [Peer(each, address, self.counts, reactor) for each in range(peers)]
        self.samples: list[Sample] = []

    async def run(self) -> Sample:
        """Put the load on; the sample of the idle node afterwards."""
        self._sample()
        sampling = task.LoopingCall(self._sample)
        sampling.clock = self._reactor
        ended = sampling.start(max(self._seconds / 240, 0.5), now=False)
        end = self._start + self._seconds
        await defer.gatherResults(
            [defer.Deferred.fromCoroutine(each.run(end)) for each in self.peers]
        )
        sampling.stop()
        await ended
        await task.deferLater(self._reactor, _SETTLING)
        return Sample.of(self._node.pid, self._reactor.seconds() - self._start)

    def _sample(self) -> None:
        elapsed = self._reactor.seconds() - self._start
        self.samples.append(Sample.of(self._node.pid, elapsed))

    def lost(self) -> list[str]:
        """Which acknowledged instances the stopped node does not have, or has otherwise."""
        there = self._node.instances()
        return [
            uid
            for peer in self.peers
            for uid, expected in peer.kept.items()
            if uid not in there or digest(dcmread(there[uid])) != expected
        ]


async def main(reactor: Any, arguments: argparse.Namespace, directory: Path) -> None:
    """Run a soak and print its figures.

    Raises:
        SystemExit: Something is wrong.
    """
    node = Node(directory)
    node.start()
    try:
        soak = Soak(reactor, node, arguments.minutes, arguments.peers)
        idle = await soak.run()
    finally:
        node.stop()
    lost, counts, samples = soak.lost(), soak.counts, soak.samples
    found = problems(samples, idle) + [f"{uid} is lost" for uid in lost] + counts.failures
    if "Traceback" in node.log:
        found.append("there is a traceback in the log of the node")
    kept = sum(len(each.kept) for each in soak.peers)
    rising = f"; rise {rise(samples):+.1f} MiB, slope {slope(samples):+.1f} MiB/h"
    if samples[-1].seconds < 60 * JUDGED:
        rising = ""
    print(
        f"minutes       {samples[-1].seconds / 60:.1f}, {arguments.peers} peers, {counts.visits} associations\n"
        f"operations    {counts.stored} C-STORE, {counts.found} C-FIND, {counts.retrieved} instances by C-GET, "
        f"{counts.aborted} aborted\n"
        f"instances     {kept} kept, {len(lost)} lost; {len(counts.failures)} failures\n"
        f"memory        {samples[0].resident:.1f} MiB before, {samples[-1].resident:.1f} MiB at the end, "
        f"peak {max(each.resident for each in samples):.1f} MiB{rising}\n"
        f"descriptors   {samples[0].descriptors} before, peak {max(each.descriptors for each in samples)}, "
        f"{idle.descriptors} idle afterwards\n"
        f"threads       {samples[0].threads} before, peak {max(each.threads for each in samples)}, "
        f"{idle.threads} idle afterwards"
    )
    if arguments.samples is not None:
        rows = (",".join(map(str, astuple(each))) for each in [*samples, idle])
        arguments.samples.write_text(
            "\n".join(("seconds,resident_mib,descriptors,threads", *rows, ""))
        )
    for each in found[:20]:
        print(f"WRONG: {each}")
    if found:
        raise SystemExit(1)


def parse() -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Soak the node.")
    parser.add_argument("--minutes", type=float, default=120, help="how long (default: 120)")
    parser.add_argument("--peers", type=int, default=4, help="how many at once (default: 4)")
    parser.add_argument("--samples", type=Path, help="write the samples to this CSV file")
    parser.add_argument("--directory", type=Path, help="where the node stores (default: /tmp)")
    return parser.parse_args()


if __name__ == "__main__":
    given = parse()
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        task.react(lambda reactor: defer.ensureDeferred(main(reactor, given, Path(folder))))
