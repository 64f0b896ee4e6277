"""Compare the node with DCMTK's ``storescp`` as receivers, on the same machine within the same minutes.

Each round measures one peer and then the other, each freshly started with an empty directory. Figures are compared
only within a round, and the order changes from round to round. Modes:

* ``shipped``: ``storescu`` and ``storescp`` with their defaults, so with Nagle's algorithm;
* ``tuned``: both with ``TCP_NODELAY=1`` and PDUs of 131072 octets;
* ``raw``: the SCP as in ``tuned``; the sender is a plain socket that writes PDUs made beforehand.

The node is started in the same way for all three. It flushes every file to disk before it answers; ``storescp`` never
does. Two more peers show how much of the difference this causes: ``nosync`` is the node without flushing, and ``disk``
is not a peer but a loop that writes the same files one after the other, as durably as the node must.

    python -m tests.bench.store_scp [--rounds N] [--sets ct,big] [--modes tuned,raw] ...
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median

from tests.bench.data import make_set
from tests.bench.peers import Peer, node, part10_files, storescp, storescu
from tests.bench.raw_sender import RawSender

COUNTS = {"small": 1000, "ct": 300, "big": 4}
# With two stalls of 44 ms for each message, larger sets take longer and tell nothing more.
SHIPPED_COUNTS = {"small": 100, "ct": 100, "big": 4}
MODES = ("shipped", "tuned", "raw")
PEERS = ("node", "storescp", "nosync", "disk")

_MEGA = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one peer with one set, from one round or as medians."""

    mode: str
    set: str
    peer: str
    instances: int
    mb_per_second: float
    instances_per_second: float
    scp_cpu_seconds: float
    scp_peak_mb: float
    ratio: float | None = None
    rounds: int = 1


def measure(
    mode: str,
    name: str,
    paths: list[Path],
    start: AbstractContextManager[Peer],
    send: Callable[[Peer], None],
) -> Row:
    """Start a peer, send it a set, stop it.

    Raises:
        RuntimeError: Not every instance was stored.
    """
    octets = sum(path.stat().st_size for path in paths)
    with start as peer:
        _touch_memory(peer.storage.with_suffix(".touch"), octets)
        cpu, began = peer.cpu_seconds(), time.perf_counter()
        send(peer)
        seconds = time.perf_counter() - began
        cpu, peak = peer.cpu_seconds() - cpu, peer.peak_octets()
    kept = part10_files(peer.storage)
    if len(kept) != len(paths):
        raise RuntimeError(f"{peer.name} kept {len(kept)} of {len(paths)} instances")
    for path in kept:
        # Truncate instead of delete: ext4 creates files slowly for some seconds after many deletions.
        os.truncate(path, 0)
    return Row(
        mode=mode,
        set=name,
        peer=peer.name,
        instances=len(paths),
        mb_per_second=octets / seconds / _MEGA,
        instances_per_second=len(paths) / seconds,
        scp_cpu_seconds=cpu,
        scp_peak_mb=peak / _MEGA,
    )


def _touch_memory(path: Path, octets: int) -> None:
    """Let the page cache use as much memory as the set will need, and free it again.

    On a virtual machine, the first use of a memory page costs several times as much as writing it, so the first peer
    would pay for both. The sync prevents one peer's unwritten pages from being written in the other's time.
    """
    block = bytes(_MEGA)
    with path.open("wb") as file:
        for _ in range(octets // _MEGA + 64):
            file.write(block)
    path.unlink()
    os.sync()


def write_durably(name: str, paths: list[Path], folder: Path, mode: str) -> Row:
    """Write a set as durably as a durable receiver must, and do nothing else."""
    contents = [path.read_bytes() for path in paths]
    folder.mkdir()
    _touch_memory(folder.with_suffix(".touch"), sum(map(len, contents)))
    cpu, began = time.process_time(), time.perf_counter()
    for number, content in enumerate(contents):
        temporary = folder / f"{number}.partial"
        with temporary.open("xb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        temporary.rename(folder / f"{number}.dcm")
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    for path in folder.iterdir():
        os.truncate(path, 0)
    return Row(
        mode=mode,
        set=name,
        peer="disk",
        instances=len(paths),
        mb_per_second=sum(map(len, contents)) / seconds / _MEGA,
        instances_per_second=len(paths) / seconds,
        scp_cpu_seconds=cpu,
        scp_peak_mb=0,
    )


def compare(
    mode: str, name: str, paths: list[Path], rounds: int, peers: list[str], folder: Path
) -> list[list[Row]]:
    """Measure peers with one set, round by round.

    Args:
        mode: A key of ``MODES``.
        name: The name of the set.
        paths: The files of the set.
        rounds: The number of rounds.
        peers: The peers, from ``PEERS``.
        folder: The directory in which the peers store.

    Returns:
        For each round, the rows of the peers, in their order.
    """
    tuned = mode != "shipped"
    if mode == "raw":
        send = RawSender(paths).send
    else:

        def send(peer: Peer) -> None:
            storescu(peer, paths, tuned=tuned)

    results = []
    for number in range(rounds):
        rows = {}
        for peer in peers if number % 2 else peers[::-1]:
            storage = folder / f"{mode}-{name}-{number}-{peer}"
            if peer == "disk":
                rows[peer] = write_durably(name, paths, storage, mode)
            else:
                start = {
                    "node": partial(node, storage),
                    "nosync": partial(node, storage, "nosync", ["--no-fsync"]),
                    "storescp": partial(storescp, storage, tuned=tuned),
                }[peer]
                rows[peer] = measure(mode, name, paths, start(), send)
            print(_line(rows[peer]), file=sys.stderr, flush=True)
        results.append([rows[peer] for peer in peers])
    return results


def medians(results: list[list[Row]]) -> list[Row]:
    """Return the median of each column over the rounds; a ratio is the median of the ratios of the rounds."""
    yardstick = [next((row for row in rows if row.peer == "storescp"), None) for rows in results]
    return [
        Row(
            mode=rows[0].mode,
            set=rows[0].set,
            peer=rows[0].peer,
            instances=rows[0].instances,
            mb_per_second=median(row.mb_per_second for row in rows),
            instances_per_second=median(row.instances_per_second for row in rows),
            scp_cpu_seconds=median(row.scp_cpu_seconds for row in rows),
            scp_peak_mb=median(row.scp_peak_mb for row in rows),
            ratio=_ratio(rows, yardstick),
            rounds=len(rows),
        )
        for rows in zip(*results, strict=True)
    ]


def _ratio(rows: Sequence[Row], yardstick: list[Row | None]) -> float | None:
    ratios = [
        row.instances_per_second / other.instances_per_second
        for row, other in zip(rows, yardstick, strict=True)
        if other is not None
    ]
    return median(ratios) if ratios else None


def environment() -> dict[str, str | int | None]:
    """Return the facts about the machine that a reader of the figures needs."""
    dcmtk = subprocess.run(["dcmdump", "--version"], capture_output=True, text=True, check=False)
    return {
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "twisted": metadata.version("twisted"),
        "dcmtk": dcmtk.stdout.partition("\n")[0].strip("$ "),
    }


_HEAD = (
    f"{'mode':8} {'set':6} {'peer':9} {'instances':>9} {'MB/s':>8} {'inst/s':>8} "
    f"{'SCP CPU s':>9} {'CPU ms/inst':>11} {'peak MB':>8} {'ratio':>7}"
)


def _line(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:7.2f}"
    return (
        f"{row.mode:8} {row.set:6} {row.peer:9} {row.instances:9d} {row.mb_per_second:8.2f} "
        f"{row.instances_per_second:8.1f} {row.scp_cpu_seconds:9.2f} "
        f"{row.scp_cpu_seconds / row.instances * 1000:11.2f} {row.scp_peak_mb:8.1f} {ratio:>7}"
    ).rstrip()


def _names(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(allowed):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        return chosen

    return names


def _counts(text: str) -> dict[str, int]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if unknown := {name for name, _, _ in pairs} - set(COUNTS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return {name: int(count) for name, _, count in pairs}


def main() -> None:
    """Measure, print the medians, and write all figures to a file if requested."""
    parser = argparse.ArgumentParser(description="Compare the node with DCMTK's storescp.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", type=_names(COUNTS), default=list(COUNTS), metavar="SET,...")
    parser.add_argument(
        "--peers", type=_names(PEERS), default=["node", "storescp"], metavar="PEER,..."
    )
    parser.add_argument("--modes", type=_names(MODES), default=list(MODES), metavar="MODE,...")
    parser.add_argument(
        "--counts",
        type=_counts,
        default={},
        metavar="SET=N,...",
        help="the number of instances to send, in every mode",
    )
    parser.add_argument(
        "--cache", type=Path, help="where to keep the generated sets for the next run"
    )
    parser.add_argument(
        "--directory", type=Path, help="where the peers store (default: a temporary directory)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as temporary:
        folder = Path(temporary)
        table, measured = [], []
        for mode in arguments.modes:
            counts = (SHIPPED_COUNTS if mode == "shipped" else COUNTS) | arguments.counts
            for name in arguments.sets:
                paths = make_set(arguments.cache or folder / "sets", name, counts[name])
                results = compare(mode, name, paths, arguments.rounds, arguments.peers, folder)
                table += medians(results)
                measured += [row for rows in results for row in rows]
    print(_HEAD)
    print("\n".join(map(_line, table)))
    if arguments.json:
        figures = {
            "environment": environment(),
            "medians": [asdict(row) for row in table],
            "measured": [asdict(row) for row in measured],
        }
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
