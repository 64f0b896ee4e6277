"""Run a group of nodes on this machine until Ctrl-C, and say where its parts are.

python -m tests.scale                     three nodes, PostgreSQL, an object store with the S3 API, HAProxy
python -m tests.scale --store shared      a shared directory instead of the object store
python -m tests.scale --nodes 1 --database sqlite --store local --no-proxy
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from scale.group import Group, Peer, Shape


def _peer(text: str) -> Peer:
    title, _, port = text.partition("=")
    return Peer(title, int(port))


def main() -> None:
    """Start all, wait for a signal, end all."""
    parser = argparse.ArgumentParser(description="Run a group of nodes until Ctrl-C.")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--store", choices=("local", "shared", "s3"), default="s3")
    parser.add_argument("--no-proxy", action="store_true", help="leave HAProxy out")
    parser.add_argument(
        "--peer",
        type=_peer,
        action="append",
        default=[],
        metavar="TITLE=PORT",
        help="a peer on this machine that the nodes may send to",
    )
    asked = parser.parse_args()
    shape = Shape(asked.nodes, asked.database, asked.store, not asked.no_proxy)
    ending = {signal.SIGINT, signal.SIGTERM}
    # Also while it starts, so that what has been started is ended.
    for each in ending:
        signal.signal(each, lambda *_: sys.exit(0))
    with Group(shape, asked.peer) as group:
        print(f"{shape}, in {group.folder}")
        if group.proxy is not None:
            print(f"  the group     {group.address}")
        for node in group.nodes:
            page = f"http://127.0.0.1:{node.http_port}/"
            print(f"  {node.name:<13} {node.address}  {page}  pid {node.pid}")
        if group.bucket is not None:
            bucket = group.bucket
            print(f"  object store  {bucket.endpoint}  {bucket.url}")
            print(f"                access key {bucket.access_key}, secret key {bucket.secret_key}")
        if group.postgresql is not None:
            print(f"  database      {group.postgresql.url('group')}")
        print("Press Ctrl-C to end all.", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
