"""Every scenario against every peer that is installed, in one run: a table and a plot.

In each round, each peer is measured once, in rotating order, so that a disturbance affects all of them. A peer is
started anew for the scenarios that store. Rates are medians over the rounds; the ratio of a round is that of two
measurements that follow each other, and the median of these is printed.

    python -m tests.bench [--rounds N] [--scenarios small,ct,...] [--peers node,orthanc,...] [--output DIRECTORY]

With ``--database postgresql``, the node and Orthanc keep their index on a PostgreSQL server that is started for them,
Orthanc by its plugin, which then keeps the files there, too. What the server needs is counted as the peer's.

With ``--output``, ``performance.md`` and ``performance.svg`` are written there; the documentation includes them.
"""

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import which
from statistics import median

from tests.bench.archives import dcmqrscp, orthanc, sink
from tests.bench.data import make_set
from tests.bench.databases import Server
from tests.bench.peers import Peer, cpu_seconds, node, storescp, storescu
from tests.bench.raw_echo import RawEcho
from tests.bench.raw_query import FIND, GET, MOVE, RawSCU, identifier
from tests.bench.raw_sender import RawSender
from tests.bench.tables import chosen, names

_MEGA = 1_000_000
_PEERS = {
    "node": "twistd",
    "alone": "twistd",
    "orthanc": "Orthanc",
    "dcmqrscp": "dcmqrscp",
    "storescp": "storescp",
}
# A node with one process is the peer of one with several.
_OURS = ("node", "alone")
_ECHOES, _ASSOCIATIONS, _MATCHES, _STUDY = 3000, 500, 10_000, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is measured.

    Attributes:
        title: What the table calls it.
        unit: The unit of the rate.
        against: The peer that our ratio is to.
        peers: The peers that can do it.
    """

    title: str
    unit: str = "/s"
    against: str = "orthanc"
    peers: tuple[str, ...] = ("node", "orthanc", "dcmqrscp")


_STORING = ("node", "orthanc", "dcmqrscp", "storescp")
_SCENARIOS = {
    "small": Scenario(title="C-STORE small, one association", peers=_STORING),
    "small8": Scenario(title="C-STORE small, eight associations", peers=("node", "orthanc")),
    "workers8": Scenario(
        title="the same with two workers", against="alone", peers=("node", "alone")
    ),
    "ct": Scenario(title="C-STORE CT, one association", peers=_STORING),
    "big": Scenario(title="C-STORE big", against="storescp", peers=_STORING),
    "shipped": Scenario(
        title="storescu as shipped, small", against="storescp", peers=("node", "storescp")
    ),
    "echo": Scenario(title="C-ECHO, one association"),
    "associate": Scenario(title="associate, echo, release"),
    "find": Scenario(title="C-FIND, 10,000 responses", peers=("node", "orthanc")),
    "get": Scenario(title="C-GET of a CT study"),
    "move": Scenario(title="C-MOVE of a CT study"),
}
_COUNTS = {"small": 1000, "small8": 4000, "workers8": 4000, "ct": 300, "big": 2, "shipped": 50}


@dataclass(slots=True)
class Figures:
    """What was measured of one peer in one scenario."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # milliseconds for each
    peak: int = 0


class Bench:
    """Starts the peers, and measures."""

    def __init__(
        self, folder: Path, cache: Path, receiver: Peer, server: Server | None = None
    ) -> None:
        self._folder = folder
        self._cache = cache
        self._receiver = receiver
        self._server = server
        self._number = 0
        self._senders: dict[tuple[str, int, int], list[RawSender]] = {}
        self._loaded: dict[tuple[str, str], Peer] = {}
        self._stack = ExitStack()

    def close(self) -> None:
        """End the peers."""
        self._stack.close()

    def _start(self, name: str, workers: int = 1) -> AbstractContextManager[Peer]:
        self._number += 1
        storage = self._folder / f"{name}-{self._number}"
        server = self._server
        if name in _OURS:
            options = [f"--peer=SINK@127.0.0.1:{self._receiver.port}"]
            if server is not None:
                url = server.uri(server.make()).replace("postgresql:", "postgresql+psycopg:", 1)
                options += ["--database", url]
            return node(storage, name, options, workers if name == "node" else 1)
        if name == "orthanc":
            database = None if server is None else server.uri(server.make())
            return orthanc(storage, self._receiver, postgresql=database, with_files=True)
        if name == "dcmqrscp":
            return dcmqrscp(storage, self._receiver)
        return storescp(storage, tuned=True)

    def _sending(self, name: str, count: int, senders: int = 1) -> list[RawSender]:
        key = name, count, senders
        if key not in self._senders:
            paths = make_set(self._cache, name, count)
            self._senders[key] = [RawSender(paths[each::senders]) for each in range(senders)]
        return self._senders[key]

    def _with(self, kind: str, name: str) -> Peer:
        """A peer that has a set, for the scenarios that change nothing."""
        if (kind, name) not in self._loaded:
            peer = self._stack.enter_context(self._start(name))
            if kind != "nothing":
                (sender,) = self._sending(kind, _MATCHES if kind == "small" else _STUDY)
                sender.send(peer)
            self._loaded[kind, name] = peer
        return self._loaded[kind, name]

    def measure(self, scenario: str, name: str, figures: Figures) -> None:
        """Measure a peer once."""
        if scenario in _COUNTS:
            with self._fresh(scenario, name) as peer:
                count = _COUNTS[scenario]
                self._timed(peer, figures, count, partial(self._store, scenario, peer))
        elif scenario == "echo":
            peer = self._with("nothing", name)
            with RawEcho(peer) as scu:
                self._timed(
                    peer, figures, _ECHOES, lambda: [scu.echo(n + 1) for n in range(_ECHOES)]
                )
        elif scenario == "associate":
            peer = self._with("nothing", name)
            self._timed(peer, figures, _ASSOCIATIONS, partial(_associate, peer))
        else:
            self._ask(scenario, name, figures)

    @contextmanager
    def _fresh(self, scenario: str, name: str) -> Iterator[Peer]:
        if scenario == "shipped" and name == "storescp":
            self._number += 1
            with storescp(self._folder / f"{name}-{self._number}", tuned=False) as peer:
                yield peer
            return
        with self._start(name, 2 if scenario == "workers8" else 1) as peer:
            yield peer
            for path in peer.storage.rglob("*"):
                # Truncate instead of delete: the file system frees the blocks outside of the next measurement.
                if path.is_file():
                    os.truncate(path, 0)

    def _store(self, scenario: str, peer: Peer) -> None:
        count = _COUNTS[scenario]
        if scenario == "shipped":
            storescu(peer, make_set(self._cache, "small", count), tuned=False)
            return
        kind = "small" if scenario == "workers8" else scenario.rstrip("8")
        senders = self._sending(kind, count, 8 if scenario.endswith("8") else 1)
        if len(senders) == 1:
            senders[0].send(peer)
            return
        threads = [threading.Thread(target=each.send, args=(peer,)) for each in senders]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def _ask(self, scenario: str, name: str, figures: Figures) -> None:
        kind = "small" if scenario == "find" else "ct"
        peer = self._with(kind, name)
        (sender,) = self._sending(kind, _MATCHES if kind == "small" else _STUDY)
        storage = sender.sop_class if scenario == "get" else ""
        operation = {"find": FIND, "get": GET, "move": MOVE}[scenario]
        asked = (
            identifier("IMAGE", study=sender.study, series=sender.series, instance="")
            if scenario == "find"
            else identifier("STUDY", study=sender.study)
        )
        with RawSCU(peer, storage=storage) as scu:
            destination = "SINK" if scenario == "move" else ""
            count = _MATCHES if scenario == "find" else _STUDY
            self._timed(
                peer, figures, count, lambda: _checked(scu, operation, asked, destination, count)
            )

    def _timed(self, peer: Peer, figures: Figures, count: int, run: Callable[[], object]) -> None:
        os.sync()
        # A database server ends processes meanwhile, whose time it keeps.
        of_server = 0.0 if self._server is None else cpu_seconds(self._server.pid)
        cpu, began = peer.cpu_seconds(), time.perf_counter()
        run()
        seconds = time.perf_counter() - began
        figures.rates.append(count / seconds)
        used = peer.cpu_seconds() - cpu
        if self._server is not None:
            used += cpu_seconds(self._server.pid) - of_server
        figures.cpu.append(used / count * 1000)
        figures.peak = max(figures.peak, peer.peak_octets())


def _associate(peer: Peer) -> None:
    for _ in range(_ASSOCIATIONS):
        with RawEcho(peer) as scu:
            scu.echo()


def _checked(scu: RawSCU, operation: str, asked: bytes, destination: str, count: int) -> None:
    outcome = scu.run(operation, asked, destination)
    got = outcome.responses if operation == FIND else outcome.instances
    if got != count:
        raise RuntimeError(f"{got} of {count}")


# -- what is said of it --------------------------------------------------------------------------

Found = Mapping[str, Mapping[str, Figures]]


def ratio(of: Mapping[str, Figures], other: str) -> float:
    """Our rate in terms of another peer's: the median over the rounds."""
    pairs = zip(of["node"].rates, of[other].rates, strict=True)
    return median(ours / theirs for ours, theirs in pairs)


def markdown(found: Found, rounds: int) -> str:
    """The table."""
    lines = [
        f"Medians of {rounds} rounds on {platform.system()}, {os.cpu_count()} processors, Python "
        f"{platform.python_version()}. *Ratio* is the node's rate in terms of the peer's in the same round.",
        "",
        "| scenario | peer | rate | CPU ms each | peak MB | ratio |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for key, of in found.items():
        scenario = _SCENARIOS[key]
        for name, figures in of.items():
            said = ""
            if name != "node" and "node" in of:
                said = f"{ratio(of, name):.2f}"
                said = f"**{said}**" if name == scenario.against else said
            lines.append(
                f"| {scenario.title} | {name} | {median(figures.rates):,.0f}{scenario.unit} | "
                f"{median(figures.cpu):.3f} | {figures.peak / _MEGA:.0f} | {said} |"
            )
    return "\n".join(lines) + "\n"


def plot(found: Found) -> str:
    """The ratios as bars, in SVG: one bar for each scenario, and a line where both are equal."""
    bars = [
        (_SCENARIOS[key].title, _SCENARIOS[key].against, ratio(of, _SCENARIOS[key].against))
        for key, of in found.items()
        if "node" in of and _SCENARIOS[key].against in of
    ]
    left, wide, high = 250, 420, 26
    scale = wide / max(2.0, *(min(value, 10) for *_, value in bars)) if bars else wide
    height = high * len(bars) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 130} {height}" '
        'font-family="sans-serif" font-size="13" role="img">',
        "<title>The rate of netdicom_tx in terms of its peers' rates</title>",
    ]
    for number, (title, against, value) in enumerate(bars):
        y = 10 + number * high
        colour = "#2a7f62" if value >= 1 else "#b5651d"
        length = min(value, 10) * scale
        parts += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end" fill="currentColor">{title}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{length:.0f}" height="{high - 9}" fill="{colour}"/>',
            f'<text x="{left + length + 6:.0f}" y="{y + 14}" fill="currentColor">{value:.2f} x {against}</text>',
        ]
    one, bottom = left + scale, height - 30
    parts += [
        f'<line x1="{one:.0f}" y1="6" x2="{one:.0f}" y2="{bottom}" stroke="currentColor" '
        'stroke-dasharray="4 3"/>',
        f'<text x="{one:.0f}" y="{bottom + 16}" text-anchor="middle" fill="currentColor">as fast</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Measure, and print the table."""
    installed = [name for name, program in _PEERS.items() if name in _OURS or which(program)]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenarios", type=names, default=list(_SCENARIOS))
    parser.add_argument("--peers", type=names, default=installed)
    parser.add_argument("--database", choices=("own", "postgresql"), default="own")
    parser.add_argument("--cache", type=Path, help="where the instances are kept for the next run")
    parser.add_argument("--output", type=Path, help="where the table and the plot are written")
    arguments = parser.parse_args()
    found = measured(
        chosen(arguments.scenarios, list(_SCENARIOS)),
        chosen(arguments.peers, installed),
        arguments.rounds,
        arguments.cache,
        is_postgresql=arguments.database == "postgresql",
    )
    table = markdown(found, arguments.rounds)
    print(table)
    if arguments.output is not None:
        (arguments.output / "performance.md").write_text(table, "utf-8")
        (arguments.output / "performance.svg").write_text(plot(found), "utf-8")


def measured(
    scenarios: Sequence[str],
    peers: Sequence[str],
    rounds: int,
    cache: Path | None,
    *,
    is_postgresql: bool = False,
) -> dict[str, dict[str, Figures]]:
    """Measure each scenario with each peer that can do it, as often as there are rounds."""
    found: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        receiver = stack.enter_context(sink(folder / "sink"))
        server = stack.enter_context(Server()) if is_postgresql else None
        bench = Bench(folder, cache or folder / "sets", receiver, server)
        stack.callback(bench.close)
        for key in scenarios:
            wanted = [name for name in peers if name in _SCENARIOS[key].peers]
            found[key] = {name: Figures() for name in wanted}
            for number in range(rounds):
                for name in wanted if number % 2 else wanted[::-1]:
                    bench.measure(key, name, found[key][name])
                    rate = found[key][name].rates[-1]
                    print(f"  {key:10} {name:10} {rate:10.1f}/s", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
