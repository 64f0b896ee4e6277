"""What an instance, a query and an idle node cost the database server: transactions, log, rows, connections, CPU time.

The figures of docs/explanation/scale.md come from here. A node runs on a PostgreSQL server with its defaults; a plain
socket stores small instances over one association, and over eight, and then queries. Each figure is a median of rounds.

With ``--store shared`` the instances are in a directory that nodes share, and with ``--store s3`` in Debian's Swift
with its S3 API, whose requests are counted; a study is also retrieved then, by a node whose cache is empty. An instance
is acknowledged when its object and its row are durable.

    python -m tests.bench.footprint [--store own|shared|s3] [--rounds N] [--count N] [--cache DIRECTORY]
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tests.bench.data import make_set
from tests.bench.databases import Server
from tests.bench.peers import Peer, cpu_seconds, node
from tests.bench.raw_query import FIND, GET, RawSCU, identifier
from tests.bench.raw_sender import RawSender
from tests.bench.requests_counted import Relay

_COLUMNS = (
    "rate",
    "commits",
    "WAL octets",
    "WAL flushes",
    "rows",
    "octets in tables",
    "node CPU ms",
    "server CPU ms",
    "PUT",
    "GET",
    "other requests",
)
_QUERIES, _IDLE = 200, 20.0
# The server's statistics of a connection come about a second late.
_LATE = 2.0


class Footprint:
    """Measures on one server."""

    def __init__(self, server: Server, peer: Peer, database: str, relay: Relay | None) -> None:
        self._server, self._peer, self._database = server, peer, database
        self._relay = relay

    def _requests(self) -> tuple[int, int, int]:
        if self._relay is None:
            return 0, 0, 0
        counted = dict(self._relay.counted)
        put, get = counted.pop("PUT", 0), counted.pop("GET", 0)
        return put, get, sum(counted.values())

    def of(self, call: Callable[[], object], count: int) -> dict[str, float]:
        """What one of ``count`` costs that a call does."""
        time.sleep(_LATE)
        before, asked = self._server.work(self._database), self._requests()
        began = time.perf_counter()
        ours, theirs = self._peer.cpu_seconds(), cpu_seconds(self._server.pid)
        call()
        seconds = time.perf_counter() - began
        ours, theirs = self._peer.cpu_seconds() - ours, cpu_seconds(self._server.pid) - theirs
        time.sleep(_LATE)
        done = self._server.work(self._database).since(before)
        figures = (
            count / seconds,
            done.commits / count,
            done.wal_octets / count,
            done.wal_syncs / count,
            done.rows / count,
            done.octets / count,
            ours / count * 1000,
            theirs / count * 1000,
            *((now - then) / count for now, then in zip(self._requests(), asked, strict=True)),
        )
        return dict(zip(_COLUMNS, figures, strict=True))

    def connections(self) -> int:
        """How many connections the node has."""
        return self._server.work(self._database).connections


def _send(peer: Peer, senders: list[RawSender]) -> None:
    threads = [threading.Thread(target=each.send, args=(peer,)) for each in senders]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def _retrieve(peer: Peer, sender: RawSender, count: int) -> None:
    with RawSCU(peer, storage=sender.sop_class) as scu:
        outcome = scu.run(GET, identifier("STUDY", study=sender.study))
    if outcome.instances != count:
        raise RuntimeError(f"{outcome.instances} of {count}")


@contextmanager
def _storing_in(kind: str, folder: Path) -> Iterator[tuple[list[str], Relay | None]]:
    """The options of a node that keeps its instances in a store of this kind, and what counts its requests."""
    if kind == "own":
        yield [], None
    elif kind == "shared":
        (folder / "shared").mkdir()
        yield ["--storage-url", f"file://{folder / 'shared'}"], None
    else:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from support.archive.objectstore import ObjectStore

        store = ObjectStore()
        try:
            bucket = store.bucket()
            with Relay(store.port) as relay:
                configuration = folder / "s3.toml"
                configuration.write_text(
                    f'[s3]\nendpoint = "http://127.0.0.1:{relay.port}"\n'
                    f'access_key = "{bucket.access_key}"\nsecret_key = "{bucket.secret_key}"\n',
                    "utf-8",
                )
                yield ["--config", str(configuration), "--storage-url", bucket.url], relay
        finally:
            store.end()


def _query(peer: Peer, asked: bytes) -> None:
    with RawSCU(peer) as scu:
        for _ in range(_QUERIES):
            scu.run(FIND, asked)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.footprint", description=__doc__)
    parser.add_argument("--store", choices=("own", "shared", "s3"), default="own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000, help="instances that are stored at once")
    parser.add_argument("--cache", type=Path, help="where the instances are kept for the next run")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    connections: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        paths = make_set(arguments.cache or folder / "sets", "small", arguments.count)
        one = [RawSender(paths)]
        eight = [RawSender(paths[each::8]) for each in range(8)]
        server = stack.enter_context(Server())
        for number in range(arguments.rounds):
            for name, senders in (("one association", one), ("eight associations", eight)):
                place = folder / f"{name}-{number}"
                place.mkdir()
                database = server.make()
                url = server.uri(database).replace("postgresql:", "postgresql+psycopg:", 1)
                with _storing_in(arguments.store, place) as (options, relay):
                    options = [*options, "--database", url]
                    with node(place / "node", options=options) as peer:
                        footprint = Footprint(server, peer, database, relay)
                        measured = footprint.of(lambda: _send(peer, senders), arguments.count)  # noqa: B023
                        found.setdefault(f"C-STORE, {name}", []).append(measured)
                        connections[f"storing, {name}"] = footprint.connections()
                    if name != "one association":
                        continue
                    # In a shared store, it was another node that stored them.
                    own = "node" if arguments.store == "own" else "other"
                    with node(place / own, options=options) as peer:
                        footprint = Footprint(server, peer, database, relay)
                        asked = identifier("STUDY", study=one[0].study)
                        measured = footprint.of(lambda: _query(peer, asked), _QUERIES)  # noqa: B023
                        found.setdefault("C-FIND of a study", []).append(measured)
                        if arguments.store != "own":
                            measured = footprint.of(
                                lambda: _retrieve(peer, one[0], arguments.count),
                                arguments.count,
                            )
                            found.setdefault("C-GET of a study", []).append(measured)
                        measured = footprint.of(lambda: time.sleep(_IDLE), int(_IDLE))
                        found.setdefault("idle, for each second", []).append(measured)
                        connections["querying"] = footprint.connections()
    print(f"| for each | {' | '.join(_COLUMNS)} |")
    print("|---" + "|--:" * len(_COLUMNS) + "|")
    for name, rounds in found.items():
        cells = [f"{median(each[column] for each in rounds):,.3g}" for column in _COLUMNS]
        print(f"| {name} | {' | '.join(cells)} |")
    print(", ".join(f"{name}: {count} connections" for name, count in connections.items()))


if __name__ == "__main__":
    main()
