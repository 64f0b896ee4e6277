"""``netdicom queue``: show what a node owes to peers, retry tasks, or drop them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common.failures import CommandError, ExitCode, Problem, bad_input
from .common.options import Group, examples, json_option, place_options
from .common.output import Output, counted

if TYPE_CHECKING:
    from ..archive.workflow.outbound import Queue, Task

__all__ = ["command"]

# The states of a task. They are those of archive.workflow.outbound, which is loaded when a command runs.
_STATES = WAITING, RUNNING, DEAD = "waiting", "running", "dead"
# How many tasks one statement names; SQLite allows 32766 values.
_AT_ONCE = 10_000


@click.group(
    cls=Group,
    epilog=examples(
        "netdicom queue list --storage /var/lib/netdicom",
        "netdicom queue list --state dead",
        "netdicom queue retry",
        "netdicom queue drop 17 18",
    ),
)
def command() -> None:
    """Show what a node owes to peers: commitment reports, procedure steps, notices of availability.

    A task is waiting for its next attempt, running, or dead: it has failed for days, or can never
    succeed. A task that is done leaves the queue. The node may be running; it reads the queue every ten
    seconds.
    """


@contextmanager
def _opened_queue(storage: Path, database: str | None) -> Iterator[Queue]:
    from ..archive.workflow.outbound import Queue
    from .common.storage import opened_index

    with opened_index(storage, database) as index:
        yield Queue(index, "netdicom queue")


@command.command(
    name="list",
    epilog=examples(
        "netdicom queue list --storage /var/lib/netdicom",
        "netdicom queue list --state dead --json | jq .last_error",
    ),
)
@place_options
@click.option(
    "--state", type=click.Choice(_STATES), help="Show only tasks in this state (default: all)."
)
@json_option
def list_command(storage: Path, database: str | None, state: str | None, is_json: bool) -> int:
    """Show the tasks, the oldest first; times are in the time zone of this machine."""
    output = Output(is_json=is_json)
    with _opened_queue(storage, database) as queue:
        tasks = queue.list(state)
    if is_json:
        for task in tasks:
            output.json(_document(task))
    else:
        columns = ("id", "kind", "destination", "state", "attempt", "created", "not before")
        table = output.table((*columns, "last error"))
        for task in tasks:
            table.row(
                (
                    *(task.id, task.kind, task.destination, task.state, task.attempt),
                    *(
                        f"{_time(each):%Y-%m-%d %H:%M:%S}"
                        for each in (task.created, task.not_before)
                    ),
                    task.last_error,
                )
            )
        table.close()
    states = Counter(task.state for task in tasks)
    parts = [f"{states[each]} {each}" for each in _STATES if states[each]]
    output.note(counted(len(tasks), "task") + (f": {', '.join(parts)}" if parts else ""))
    return ExitCode.OK


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds).astimezone()


def _document(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "kind": task.kind,
        "destination": task.destination,
        "state": task.state,
        "attempt": task.attempt,
        "created": _time(task.created).isoformat(timespec="seconds"),
        "not_before": _time(task.not_before).isoformat(timespec="seconds"),
        "last_error": task.last_error,
    }


@command.command(
    epilog=examples("netdicom queue retry", "netdicom queue retry 17 --storage /var/lib/netdicom")
)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=int)
@place_options
@json_option
def retry(ids: tuple[int, ...], storage: Path, database: str | None, is_json: bool) -> int:
    """Try tasks again now: those with the given numbers, or all that are dead.

    Their attempts are counted from one again.
    """
    output = Output(is_json=is_json)
    with _opened_queue(storage, database) as queue:
        chosen = _chosen(queue, ids) if ids else _dead(queue)
        done = _for_all(queue.retry, chosen)
    return _conclude(output, "retried", "to be tried again", done, chosen)


@command.command(
    epilog=examples(
        "netdicom queue drop 17 18", "netdicom queue drop --dead --storage /var/lib/netdicom"
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=int)
@click.option("--dead", "all_dead", is_flag=True, help="Drop all tasks that are dead.")
@place_options
@json_option
def drop(
    ids: tuple[int, ...], all_dead: bool, storage: Path, database: str | None, is_json: bool
) -> int:
    """Drop tasks for good: the peers never get what they are owed."""
    if bool(ids) == all_dead:
        raise bad_input(
            "it is not clear which tasks to drop",
            "expected either task numbers or --dead",
            "netdicom queue list shows the numbers",
        )
    output = Output(is_json=is_json)
    with _opened_queue(storage, database) as queue:
        chosen = _dead(queue) if all_dead else _chosen(queue, ids)
        done = _for_all(queue.drop, chosen)
    return _conclude(output, "dropped", "dropped", done, chosen)


def _dead(queue: Queue) -> list[int]:
    return [task.id for task in queue.list(DEAD)]


def _chosen(queue: Queue, ids: Collection[int]) -> list[int]:
    """The tasks with these numbers, each once.

    Raises:
        CommandError: A number is not that of a task, or the task is running; nothing has been changed.
    """
    states = {task.id: task.state for task in queue.list()}
    wanted = list(dict.fromkeys(ids))
    unknown = [each for each in wanted if each not in states]
    if unknown:
        raise bad_input(
            f"there is no task {_numbers(unknown)}",
            "a task that is done leaves the queue; nothing was changed",
            "netdicom queue list shows the tasks",
        )
    running = [each for each in wanted if states[each] == RUNNING]
    if running:
        raise bad_input(
            f"the node is running task {_numbers(running)} now",
            "its outcome is not known yet; nothing was changed",
            "look again in a minute: netdicom queue list",
        )
    return wanted


def _numbers(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))


def _for_all(call: Callable[[Collection[int]], Future[int]], ids: Sequence[int]) -> int:
    parts = [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]
    return sum(call(part).result() for part in parts)


def _conclude(output: Output, key: str, words: str, done: int, chosen: Sequence[int]) -> int:
    """Write how many tasks were changed; returns the exit code."""
    if output.is_json:
        output.json({key: done})
    else:
        output.line(f"{counted(done, 'task')} {words}")
    if done == len(chosen):
        return ExitCode.OK
    # The node has taken or finished the other tasks.
    left = len(chosen) - done
    raise CommandError(
        Problem(
            ExitCode.SOME_FAILED,
            f"{counted(left, 'task')} {'was left as it is' if left == 1 else 'were left as they are'}",
            "the node has taken or finished them in the meantime",
            "netdicom queue list shows the tasks",
        )
    )
