"""How fast one, two and three nodes take instances, on what; how long a query takes meanwhile; what the proxy costs.

python -m tests.scale.rates                          all shapes, three rounds
python -m tests.scale.rates --count 400 --rounds 1   a try
python -m tests.scale.rates --shapes postgresql-s3,proxy-3,orthanc-postgresql

Run it on an idle machine: the load shares the processors with what is measured. Only the ratios of one run mean
something. Each round measures every shape once, from an empty archive, so that what disturbs the machine disturbs all.
Eight plain sockets send instances of 4 KB, 100 on each association, while two others query. All is synced to the disk
before it is acknowledged, by the nodes, PostgreSQL, Swift and Orthanc, which all have their defaults. Before that, each
shape takes a hundred instances that do not count.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event

sys.path.insert(0, str(Path(__file__).parent.parent))

from scale.group import Group, Shape
from scale.load import Instance, Plan
from support.archive.databases import PostgreSQL
from tests.bench.archives import orthanc
from tests.bench.peers import Peer
from tests.bench.raw_query import FIND, RawSCU, identifier
from tests.bench.raw_sender import RawSender

_SENDERS = 8
_ASKERS = 2
# Seconds between two queries of one peer: without a pause, they would take a processor from those that store.
_PAUSE = 0.05
_PER_ASSOCIATION = 100
_ASSOCIATIONS = 50
_WARM = 100

Start = Callable[[], AbstractContextManager[Peer]]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one measurement of one shape has found; times are in seconds.

    Attributes:
        rate: Acknowledged instances in a second.
        finds: How long each C-FIND took while the senders were busy.
        associations: How long it took to open and release an association, one after another, in the end.
    """

    rate: float
    finds: Sequence[float]
    associations: Sequence[float]


class Load:
    """The instances that all shapes get, ready to be sent."""

    def __init__(self, folder: Path, count: int) -> None:
        plan = Plan(count, _SENDERS, common=0, large=0, middle=0)
        self.studies: list[str] = []
        self.count = 0
        self._senders: list[list[RawSender]] = []
        for number in range(1, _SENDERS + 1):
            instances = list(plan.of(number))
            self.studies += {each.study for each in instances}
            self.count += len(instances)
            self._senders.append(_prepared(folder, instances))
        more = Plan(_WARM * (_SENDERS + 1), _SENDERS + 1, common=0, large=0, middle=0)
        self._warm = _prepared(folder, list(more.of(_SENDERS + 1)))

    def measure(self, start: Start) -> Figures:
        """Start a shape, send everything, and end the shape."""
        with (
            start() as peer,
            ThreadPoolExecutor(_SENDERS + _ASKERS) as threads,
        ):
            _send(peer, self._warm)
            over = Event()
            asking = [threads.submit(self._ask, peer, number, over) for number in range(_ASKERS)]
            began = time.perf_counter()
            sending = [threads.submit(_send, peer, each) for each in self._senders]
            try:
                for each in sending:
                    each.result()
                seconds = time.perf_counter() - began
            finally:
                over.set()
            finds = [took for each in asking for took in each.result()]
            return Figures(self.count / seconds, finds, _associate(peer))

    def _ask(self, peer: Peer, number: int, over: Event) -> list[float]:
        """Query one study after another until the senders have ended."""
        took = []
        with RawSCU(peer) as scu:
            while not over.wait(_PAUSE):
                number = (number + _ASKERS) % len(self.studies)
                began = time.perf_counter()
                scu.run(FIND, identifier("STUDY", study=self.studies[number]))
                took.append(time.perf_counter() - began)
        return took


def _prepared(folder: Path, instances: Sequence[Instance]) -> list[RawSender]:
    """One sender for each association."""
    paths = []
    for each in instances:
        path = folder / f"{each.uid}.dcm"
        path.write_bytes(each.file().getbuffer())
        paths.append(path)
    starts = range(0, len(paths), _PER_ASSOCIATION)
    return [RawSender(paths[at : at + _PER_ASSOCIATION]) for at in starts]


def _send(peer: Peer, senders: Sequence[RawSender]) -> None:
    for each in senders:
        each.send(peer)


def _associate(peer: Peer) -> list[float]:
    took = []
    for _ in range(_ASSOCIATIONS):
        began = time.perf_counter()
        with RawSCU(peer):
            pass
        took.append(time.perf_counter() - began)
    return took


@contextmanager
def _group(shape: Shape) -> Iterator[Peer]:
    """A group; the figures are not about one process, so it has none."""
    settings = {"node": {"max_associations_per_host": 100}}
    with Group(shape, settings=settings, durable=True) as group:
        port = int(group.address.rpartition(":")[2])
        yield Peer(name=str(shape), ae_title="ARCHIVE", pid=0, port=port, storage=group.folder)


@contextmanager
def _orthanc(*, on_postgresql: bool) -> Iterator[Peer]:
    with ExitStack() as parts:
        folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="orthanc-"))
        uri = None
        if on_postgresql:
            server = PostgreSQL(durable=True)
            parts.callback(server.end)
            uri = server.uri()
        yield parts.enter_context(orthanc(Path(folder) / "storage", postgresql=uri))


#: What is measured, by a short name; the first one is what the others are compared with.
SHAPES: Mapping[str, tuple[str, Start]] = {
    name: (str(shape), partial(_group, shape))
    for name, shape in {
        "sqlite-files": Shape(1, "sqlite", "local", proxy=False),
        "postgresql-files": Shape(1, "postgresql", "local", proxy=False),
        "postgresql-shared": Shape(1, "postgresql", "shared", proxy=False),
        "postgresql-s3": Shape(1, "postgresql", "s3", proxy=False),
        "proxy-1": Shape(1, "postgresql", "s3"),
        "proxy-2": Shape(2, "postgresql", "s3"),
        "proxy-3": Shape(3, "postgresql", "s3"),
        "shared-2": Shape(2, "postgresql", "shared"),
        "shared-3": Shape(3, "postgresql", "shared"),
    }.items()
} | {
    "orthanc-sqlite": ("Orthanc, sqlite, files", partial(_orthanc, on_postgresql=False)),
    "orthanc-postgresql": ("Orthanc, postgresql, files", partial(_orthanc, on_postgresql=True)),
}


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _table(found: dict[str, list[Figures]], count: int) -> None:
    """Print Markdown: medians over the rounds, and the median of the ratios within the rounds."""
    rounds = len(next(iter(found.values())))
    print(
        f"{count} instances, {_SENDERS} senders, {_ASKERS} peers that query; {rounds} rounds; "
        f"{os.cpu_count()} processors ({platform.machine()}), {platform.system()} {platform.release()}"
    )
    print()
    first = next(iter(found))
    print("| | inst/s | ratio | C-FIND p50 ms | C-FIND p99 ms | associate p50 ms |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, figures in found.items():
        pairs = zip(figures, found[first], strict=True)
        ratio = median(mine.rate / other.rate for mine, other in pairs)
        finds = [each for one in figures for each in one.finds]
        associations = [each for one in figures for each in one.associations]
        print(
            f"| `{name}`: {SHAPES[name][0]} | {median(one.rate for one in figures):.0f} | {ratio:.2f} "
            f"| {1000 * median(finds):.1f} | {1000 * _percentile(finds, 99):.1f} "
            f"| {1000 * median(associations):.1f} |"
        )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Rates of groups of nodes.")
    parser.add_argument("--count", type=int, default=4000, help="instances in all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--shapes", default=",".join(SHAPES), help="names with commas; the first is the reference"
    )
    asked = parser.parse_args()
    names = asked.shapes.split(",")
    if unknown := set(names) - set(SHAPES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    with tempfile.TemporaryDirectory(prefix="rates-") as folder:
        load = Load(Path(folder), asked.count)
        found: dict[str, list[Figures]] = {name: [] for name in names}
        for number in range(asked.rounds):
            for name in names if number % 2 else names[::-1]:
                found[name].append(load.measure(SHAPES[name][1]))
                print(f"{name:20} {found[name][-1].rate:8.1f} inst/s", file=sys.stderr, flush=True)
    _table(found, load.count)


if __name__ == "__main__":
    main()
