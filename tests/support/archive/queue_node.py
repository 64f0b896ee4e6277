"""A program that performs the tasks of a queue as a node does, and writes down when it begins and ends each of them.

Usage: ``python queue_node.py URL NAME LOG LEASE SKEW``. Its clock is wrong by SKEW seconds. A line of the log has the
name, the number of the task, ``begin``, ``end`` or ``cancelled``, and a time that all processes share.
"""

from __future__ import annotations

import os
import random
import sys
import time

url, name, log, lease, skew = sys.argv[1:]
right = time.time
time.time = lambda: right() + float(skew)

from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import CancelledError  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402

from netdicom_tx.archive.index.database import EngineDatabase  # noqa: E402
from netdicom_tx.archive.workflow.outbound import Queue, Task  # noqa: E402
from netdicom_tx.archive.workflow.runner import QueueRunner  # noqa: E402

written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(task: Task, what: str) -> None:
    os.write(written, f"{name} {task.id} {what} {time.monotonic()}\n".encode())


async def perform(task: Task) -> None:
    note(task, "begin")
    try:
        await deferLater(reactor, random.uniform(0.01, 0.05), str)
    except CancelledError:
        note(task, "cancelled")
        raise
    note(task, "end")


runner = QueueRunner(
    Queue(EngineDatabase(url), name, lease=float(lease)), deferToThread, {"report": perform}
)
reactor.callWhenRunning(runner.start, reactor)
reactor.addSystemEventTrigger("before", "shutdown", runner.stop)
reactor.run()
