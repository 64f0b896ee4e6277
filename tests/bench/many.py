"""Thousands of associations at once, opened in the same moment: how many are accepted, and what each costs.

    ulimit -n 20000; python -m tests.bench.many [--count 5000]

It prints how many associations the node has accepted, the memory that each of them needs while it is idle, and how
long C-ECHO takes: one at a time on associations drawn at random, and on all of them at once.
"""

import argparse
import errno
import random
import selectors
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.peers import Peer, node, status_octets
from tests.bench.raw_echo import associate_rq, echo_rq

_ACCEPTED = 2
_PATIENCE = 60.0
_DRAWN = 2000


def main() -> None:
    """Open them, and measure."""
    parser = argparse.ArgumentParser(description="Many associations at once.")
    parser.add_argument("--count", type=int, default=5000)
    count = parser.parse_args().count
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as temporary,
        node(Path(temporary) / "node", options=["--max-associations", str(count)]) as peer,
    ):
        before = status_octets(peer.pid, "VmRSS")
        began = time.perf_counter()
        open_ones = opened(peer, count)
        seconds = time.perf_counter() - began
        after = status_octets(peer.pid, "VmRSS")
        each = (after - before) / 1024 / max(1, len(open_ones))
        print(f"accepted            {len(open_ones)} of {count} in {seconds:.1f} s")
        print(f"resident            {after / 1e6:.0f} MB, {each:.1f} KiB for each")
        said("C-ECHO, one by one", [one(random.choice(open_ones)) for _ in range(_DRAWN)])
        said("C-ECHO, all at once", all_at_once(open_ones))


def said(what: str, seconds: Sequence[float]) -> None:
    """Print the median and the 99th percentile."""
    ordered = sorted(seconds)
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    print(f"{what:20}p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms")


def opened(peer: Peer, count: int) -> list[socket.socket]:
    """Connect all at once, ask for an association on each, and return the accepted ones."""
    request = associate_rq(peer.ae_title)
    waiting = selectors.DefaultSelector()
    for _ in range(count):
        each = socket.socket()
        each.setblocking(False)
        if each.connect_ex(("127.0.0.1", peer.port)) not in (0, errno.EINPROGRESS):
            raise RuntimeError("a connection cannot be opened; raise the limit: ulimit -n")
        waiting.register(each, selectors.EVENT_WRITE)
    accepted: list[socket.socket] = []
    deadline = time.monotonic() + _PATIENCE
    while waiting.get_map() and time.monotonic() < deadline:
        for key, mask in waiting.select(1):
            each = key.fileobj
            assert isinstance(each, socket.socket)
            try:
                if mask & selectors.EVENT_WRITE:
                    each.sendall(request)
                    waiting.modify(each, selectors.EVENT_READ)
                    continue
                answer = each.recv(4096)
            except OSError:
                answer = b""
            waiting.unregister(each)
            if answer[:1] == bytes([_ACCEPTED]):
                accepted.append(each)
    return accepted


def one(each: socket.socket) -> float:
    """Send C-ECHO on one association, and return the seconds that its answer took."""
    each.setblocking(True)
    began = time.perf_counter()
    each.sendall(echo_rq(1))
    each.recv(4096)
    return time.perf_counter() - began


def all_at_once(associations: Sequence[socket.socket]) -> list[float]:
    """Send C-ECHO on all associations, and return the seconds that each answer took."""
    waiting = selectors.DefaultSelector()
    began: dict[socket.socket, float] = {}
    for each in associations:
        waiting.register(each, selectors.EVENT_READ)
    for each in associations:
        began[each] = time.perf_counter()
        each.sendall(echo_rq(2))
    seconds: list[float] = []
    while waiting.get_map():
        for key, _ in waiting.select(_PATIENCE):
            each = key.fileobj
            assert isinstance(each, socket.socket)
            each.recv(4096)
            seconds.append(time.perf_counter() - began[each])
            waiting.unregister(each)
    return seconds


if __name__ == "__main__":
    main()
