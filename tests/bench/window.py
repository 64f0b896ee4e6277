"""Compare sizes of the asynchronous operations window (PS3.7 D.3.3.3): sixteen C-STORE at a time with one.

Our SCU and our SCP run in one process over loopback. The SCP's handler takes 50 ms for each request.

    python -m tests.bench.window [--rounds N] [--sets 1,4,16]
"""

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from twisted.internet import defer, task
from twisted.internet.interfaces import IReactorCore

from netdicom_tx import AE, RemoteAE, Window, storage_scp, storage_scu
from netdicom_tx.negotiation import PContextDef
from tests.bench.data import SETS, make_set
from tests.bench.tables import names

HANDLER = 0.05
COUNT = 64


class Slow(AE):
    """An SCP whose handler waits and does nothing else."""

    async def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
        await task.deferLater(self.clock, HANDLER, lambda: None)
        return 0x0000


async def stores(reactor: Any, size: int, paths: list[Path]) -> float:
    """Send all instances with a window of this size; return the seconds."""
    window = Window(size, size)
    sop_class = SETS["small"].sop_class
    scp = Slow("SLOW", reactor=reactor, window=window).add_scp(storage_scp, [sop_class])
    port: Any = await scp.listen("tcp:0:interface=127.0.0.1")
    try:
        scu = AE("BENCH", reactor=reactor, window=window).add_scu(storage_scu, [sop_class])
        remote = RemoteAE("SLOW", f"tcp:127.0.0.1:{port.getHost().port}")
        async with await scu.request_association(remote) as asce:
            store = asce.get_scu(sop_class)
            began = time.perf_counter()
            statuses = await defer.gatherResults([store(path) for path in paths])
            seconds = time.perf_counter() - began
        if any(status != 0 for status in statuses):
            raise RuntimeError(f"not all were taken: {statuses}")
        return seconds
    finally:
        await port.stopListening()


async def measure(reactor: IReactorCore, sizes: list[int], rounds: int) -> None:
    """Measure in rounds and print the medians."""
    with TemporaryDirectory(prefix="bench-") as temporary:
        paths = make_set(Path(temporary), "small", COUNT)
        found: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(rounds):
            for size in sizes:
                found[size].append(await stores(reactor, size, paths))
    one = median(found[sizes[0]])
    print(f"{COUNT} C-STORE, {HANDLER * 1000:.0f} ms each in the handler")
    for size, seconds in found.items():
        print(f"  window {size:3d} {median(seconds):7.2f} s {one / median(seconds):6.1f} x")


def main() -> None:
    """Run the measurement in the reactor."""
    parser = argparse.ArgumentParser(
        description="Compare sizes of the asynchronous operations window."
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", type=names, default=["1", "4", "16"], help="sizes")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sets]
    task.react(
        lambda reactor: defer.Deferred.fromCoroutine(measure(reactor, sizes, arguments.rounds))
    )


if __name__ == "__main__":
    main()
