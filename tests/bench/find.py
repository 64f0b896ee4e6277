"""Compare C-FIND: the node with other archives, and our SCU with pynetdicom's.

All archives hold one series of small instances. *scp*: a plain socket queries each archive for all of them and
counts the answers. *scu*: our SCU and pynetdicom's query the same archive and decode each answer.

Loading pynetdicom's ``qrscp`` and ``dcmqrscp`` with ten thousand instances takes minutes. They hold only a part of
them, so rates are compared. ``generator`` is a pynetdicom SCP that returns ten thousand answers without looking
anything up.

    python -m tests.bench.find [--rounds N] [--sets scp,scu] [--count N] [--part N]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench.archives import dcmqrscp, orthanc, program, qrscp
from tests.bench.data import make_set
from tests.bench.peers import ROOT, Peer, dcmtk_environment, node
from tests.bench.raw_query import FIND, RawSCU, identifier
from tests.bench.raw_sender import RawSender
from tests.bench.tables import Contestant, chosen, names, rounds, table

PEERS = ("node", "orthanc", "dcmqrscp", "qrscp", "generator")


def ask(peer: Peer, expected: int, study: str, series: str) -> float:
    """Query an archive; return the answers per second."""
    with RawSCU(peer) as scu:
        began = time.perf_counter()
        outcome = scu.run(FIND, identifier("IMAGE", study=study, series=series, instance=""))
        seconds = time.perf_counter() - began
    if outcome.responses != expected:
        raise RuntimeError(f"{peer.name}: {outcome.responses} answers of {expected}")
    return expected / seconds


def scu(whose: str, peer: Peer, expected: int, study: str, series: str) -> float:
    """Run an SCU in its own process; return the answers per second."""
    command = [sys.executable, "-m", "tests.bench.scus", "find", whose]
    ended = subprocess.run(
        [*command, peer.ae_title, str(peer.port), study, series],
        env=dcmtk_environment(tuned=False),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ended.stdout)
    if found["count"] != expected:
        raise RuntimeError(f"{whose} took {found['count']} of {expected} answers: {ended.stderr}")
    return float(expected / found["seconds"])


def main() -> None:
    """Load the archives, measure, and print the results."""
    parser = argparse.ArgumentParser(description="Compare C-FIND in both roles.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", type=names, default=["scp", "scu"], help="scp,scu")
    parser.add_argument("--peers", type=names, default=list(PEERS), help=",".join(PEERS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument(
        "--part", type=int, default=1000, help="the number of instances in dcmqrscp and qrscp"
    )
    parser.add_argument(
        "--cache", type=Path, help="where to keep the generated instances for the next run"
    )
    arguments = parser.parse_args()
    sets = chosen(arguments.sets, ("scp", "scu"))
    wanted = chosen(arguments.peers, PEERS)

    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        paths = make_set(arguments.cache or folder / "sets", "small", arguments.count)
        loader = RawSender(paths)
        part = RawSender(paths[: arguments.part])
        start = {
            "node": partial(node, folder / "node"),
            "orthanc": partial(orthanc, folder / "orthanc"),
            "dcmqrscp": partial(dcmqrscp, folder / "dcmqrscp"),
            "qrscp": partial(qrscp, folder / "qrscp"),
        }
        peers: dict[str, tuple[Peer, int]] = {}
        for name in wanted:
            if name == "generator":
                made = program(name, folder / name, "answer", str(arguments.count))
                peers[name] = stack.enter_context(made), arguments.count
                continue
            peer = stack.enter_context(start[name]())
            is_part = name in ("dcmqrscp", "qrscp")
            began = time.perf_counter()
            (part if is_part else loader).send(peer)
            peers[name] = peer, arguments.part if is_part else arguments.count
            print(f"  {name} loaded in {time.perf_counter() - began:.1f} s", file=sys.stderr)
        study, series = loader.study, loader.series

        if "scp" in sets:
            contestants: list[Contestant] = [
                (name, partial(ask, *peers[name], study, series)) for name in wanted
            ]
            table("C-FIND SCP", rounds(contestants, arguments.rounds, "/s"), "answers/s", "node")
        if "scu" in sets:
            for name in ("node", "orthanc"):
                if name in wanted:
                    contestants = [
                        (whose, partial(scu, whose, *peers[name], study, series))
                        for whose in ("ours", "pynetdicom")
                    ]
                    found = rounds(contestants, arguments.rounds, "/s")
                    table(f"C-FIND SCU, from {name}", found, "answers/s", "ours")


if __name__ == "__main__":
    main()
