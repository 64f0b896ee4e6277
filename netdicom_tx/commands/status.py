"""``netdicom status``: what a node is doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import click

from .common.failures import CommandError, ExitCode, Problem
from .common.node import node_options
from .common.options import examples, json_option
from .common.output import Output, counted, printable_line

if TYPE_CHECKING:
    from ..archive.snapshots import (
        Disk,
        Forecast,
        GroupNode,
        LiveAssociation,
        Queue,
        RefusedPeer,
        SharedStore,
        Snapshot,
        Storage,
    )

__all__ = ["command", "lines"]

# How many associations and refusals are named.
_NAMED = 20
_MIB = 1 << 20


@click.command(
    epilog=examples(
        "netdicom status --storage /var/lib/netdicom",
        "netdicom status --config /etc/netdicom/node.toml --json | jq .health",
    )
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration file of the node, which names its storage directory.",
)
@click.option(
    "-s",
    "--storage",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The storage directory of the node (default: that of the configuration, or ./netdicom-archive).",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the node may take to answer.",
)
@json_option
def command(config: Path | None, storage: Path | None, timeout: float, is_json: bool) -> int:
    """Show what a running node is doing: associations, throughput, storage, queue, refusals.

    Run it as the user of the node, or as root. Without a running node it shows what is on the disk.

    The exit code is 0 when the node is ready, 1 when it is not, 3 when no node runs, and 7 when it does
    not answer in time.
    """
    arguments = [
        word
        for name, value in (("--config", config), ("--storage", storage))
        if value is not None
        for word in (name, str(value))
    ]
    options = node_options(arguments)
    from ..archive.control import NodeAnswerError, NoNodeError, ask

    root = Path(options["storage"])
    output = Output(is_json=is_json)
    try:
        snapshot: Snapshot = ask(root, "status", timeout=timeout)
    except NoNodeError as error:
        return _at_rest(output, root, options["database"], str(error))
    except NodeAnswerError as error:
        is_silent = error.kind == "silent"
        raise CommandError(
            Problem(
                ExitCode.TIMEOUT if is_silent else ExitCode.STATUS,
                str(error),
                hint="look at its log: what holds it up?" if is_silent else "look at its log",
            )
        ) from error
    except OSError as error:
        raise CommandError(
            Problem(
                ExitCode.LOCAL_DISK,
                f"the node on {root} cannot be asked",
                str(error.strerror),
                "run this as the user of the node, or as root",
            )
        ) from error
    if is_json:
        output.json({"running": True, **snapshot})
    else:
        for line in lines(snapshot):
            output.line(printable_line(line))
    return ExitCode.OK if snapshot["health"]["ready"] else ExitCode.SOME_FAILED


def _at_rest(output: Output, root: Path, database: str | None, reason: str) -> int:
    """Show what is known without a node."""
    from ..archive.control import NAME
    from ..archive.workflow.outbound import Queue as Table
    from .common.checkup import pid_of_node
    from .common.storage import must_be_storage, opened_index

    store = must_be_storage(root, reads=False)
    pid = pid_of_node(root)
    known: dict[str, Any] = {"disk": store.room()._asdict()}
    has_index = database is not None or (store.root / "index.db").exists()
    if has_index:
        with opened_index(root, database) as index:
            known["storage"] = index.counts()._asdict()
            known["queue"] = Table(index, "netdicom status").figures()._asdict()
    if output.is_json:
        output.json({"running": pid is not None, **known})
    else:
        if has_index:
            output.line(_storage(known["storage"]))
        output.line(_disk(known["disk"], None))
        if has_index:
            output.line(_queue(known["queue"], time()))
    if pid is None:
        problem = Problem(
            ExitCode.NOT_CONNECTED,
            reason,
            f"nobody listens at {root / NAME}",
            f"start one: netdicom serve --storage {root}",
        )
    else:
        problem = Problem(
            ExitCode.STATUS,
            f"the node on {root}, process {pid}, cannot be asked",
            f"nobody listens at {root / NAME}; the log of the node says why",
            "does the file system have sockets, and has somebody removed this one? then restart the node",
        )
    output.problem(problem, in_json=False)
    return problem.code


# -- in words ----------------------------------------------------------------------------------------


def lines(snapshot: Snapshot) -> Iterator[str]:
    """A snapshot in words."""
    yield from _node(snapshot)
    yield from _associations(snapshot)
    yield _last_hour(snapshot)
    yield from _operations(snapshot)
    if snapshot["storage"] is not None:
        yield _storage(snapshot["storage"])
    if snapshot["disk"] is not None:
        yield _disk(snapshot["disk"], snapshot["forecast"])
    if snapshot["queue"] is not None:
        yield _queue(snapshot["queue"], snapshot["time"])
    yield from _inside(snapshot)
    refusals = snapshot["refusals"]
    if refusals:
        yield "last refusals:"
        yield from (f"  {_refusal(each)}" for each in refusals[:_NAMED])


def _node(snapshot: Snapshot) -> Iterator[str]:
    first = min(snapshot["processes"], key=lambda each: each["started"])
    states = Counter(each["state"] for each in snapshot["processes"])
    pids = ", ".join(str(each["pid"]) for each in snapshot["processes"])
    many = "processes" if len(snapshot["processes"]) > 1 else "process"
    yield (
        f"{first['ae_title']}: netdicom_tx {first['version']}, {' and '.join(states)}, started "
        f"{_when(first['started'])} ({_span(snapshot['time'] - first['started'])} ago), {many} {pids}"
    )
    health = snapshot["health"]
    yield "ready" if health["ready"] else f"not ready: {'; '.join(health['reasons'])}"
    group = snapshot["group"]
    if group is not None:
        has = f", which has the duties {', '.join(group['duties'])}" if group["duties"] else ""
        yield f"node {group['node']} of {len(group['nodes'])}{has}"
        yield from (f"  {_member(each)}" for each in group["nodes"][:_NAMED])


def _member(node: GroupNode) -> str:
    return (
        f"{node['name']} on {node['host']}: {node['state']}, seen {_span(node['seen'])} ago, "
        f"netdicom_tx {node['version']}, {counted(node['associations'], 'association')}"
    )


def _associations(snapshot: Snapshot) -> Iterator[str]:
    part = snapshot["associations"]
    limit = "" if part["limit"] is None else f" (peers may open {part['limit']})"
    yield (
        f"associations: {len(part['live'])} now{limit}; since the start {sum(part['accepted'].values())} "
        f"accepted, {sum(part['refused'].values())} refusals"
    )
    for each in part["live"][:_NAMED]:
        yield f"  {_live(each, snapshot['time'])}"
    if len(part["live"]) > _NAMED:
        yield f"  and {len(part['live']) - _NAMED} more"


def _live(each: LiveAssociation, now: float) -> str:
    way = "to" if each["role"] == "requestor" else "from"
    doing = Counter(each["operations"])
    does = ", ".join(f"{count} {name}" if count > 1 else name for name, count in doing.items())
    title = each["title"] or "an unknown title"
    return (
        f"{way} {title} at {each['peer']}, {each['state']} for {_span(now - each['since'])}: {does or 'idle'}; "
        f"{_size(each['received'])} received ({_size(each['receiving'])}/s), {_size(each['sent'])} sent "
        f"({_size(each['sending'])}/s)"
    )


def _last_hour(snapshot: Snapshot) -> str:
    minutes = snapshot["minutes"]
    return (
        f"last hour: {counted(sum(each['instances_in'] for each in minutes), 'instance')} kept, "
        f"{sum(each['instances_out'] for each in minutes)} sent; "
        f"{_size(sum(each['received'] for each in minutes))} received, "
        f"{_size(sum(each['sent'] for each in minutes))} sent"
    )


def _operations(snapshot: Snapshot) -> Iterator[str]:
    from ..statuses import Status

    counts: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for each in snapshot["operations"]:
        name, status = each["operation"], each["status"]
        counts[name] += each["count"]
        seconds[name] = seconds.get(name, 0.0) + each["seconds"]
        if status is not None and Status(status, name).is_failure:
            failed[name] += each["count"]
    if counts:
        parts = [
            f"{count} {name} ({failed[name]} failed, {_duration(seconds[name] / count)} each)"
            for name, count in counts.most_common()
        ]
        yield f"performed since the start: {', '.join(parts)}"
    requested = snapshot["associations"]["requested"]
    if requested:
        parts = [f"{count} {name}" for name, count in Counter(requested).most_common()]
        yield f"requested since the start: {', '.join(parts)}"


def _storage(part: Storage) -> str:
    studies = "1 study" if part["studies"] == 1 else f"{part['studies']} studies"
    return (
        f"storage: {counted(part['patients'], 'patient')}, {studies}, {part['series']} series, "
        f"{counted(part['instances'], 'instance')}, {_size(part['size'])}"
    )


def _disk(part: Disk, forecast: Forecast | None) -> str:
    said = f"disk: {_size(part['free'])} of {_size(part['total'])} free, of which {_size(part['reserve'])} stay free"
    if forecast is None or forecast["per_day"] is None:
        return said
    said += f"; use grows by {_size(forecast['per_day'])} a day"
    if forecast["full_at"] is not None:
        said += f", full on {_when(forecast['full_at'])[:10]}"
    return said


def _queue(part: Queue, now: float) -> str:
    said = f"queue: {part['waiting']} waiting, {part['running']} running, {part['dead']} dead"
    if part["oldest"] is not None:
        said += f"; the oldest task is {_span(now - part['oldest'])} old"
    return said


def _shared(part: SharedStore | None) -> Iterator[str]:
    if part is None:
        return
    said = (
        f"shared store {part['place']}: {counted(part['put'], 'object')} put{_each(part['put'], part['put_seconds'])}, "
        f"{part['read']} read{_each(part['read'], part['read_seconds'])}, {part['failures']} failed"
    )
    if part["cache_limit"]:
        said += (
            f"; cache: {_size(part['cached'])} of {_size(part['cache_limit'])}, {part['hits']} found there, "
            f"{part['misses']} not"
        )
    yield said


def _each(count: int, seconds: float) -> str:
    return f" ({_duration(seconds / count)} each)" if count else ""


def _inside(snapshot: Snapshot) -> Iterator[str]:
    intake, reactor, memory = snapshot["intake"], snapshot["reactor"], snapshot["memory"]
    if intake is not None and not intake["instances"]:
        yield "journal: all that was kept is in files and rows"
    elif intake is not None:
        yield (
            f"journal: {counted(intake['instances'], 'instance')} ({_size(intake['octets'])}) not yet in files and "
            f"rows, no progress for {intake['lag']:.1f} s"
        )
    yield from _shared(snapshot["shared"])
    if reactor is not None:
        yield (
            f"reactor: longest turn {reactor['recent']:.3f} s lately, {reactor['longest']:.3f} s since the start; "
            f"{counted(reactor['held_up'], 'turn')} took too long"
        )
    resident = sum(each["resident"] for each in snapshot["processes"])
    if memory is not None:
        most = "" if memory["limit"] is None else f" of {memory['limit'] / _MIB:.0f} MiB"
        yield (
            f"memory: {resident / _MIB:.0f} MiB; associations hold {memory['held'] / _MIB:.1f} MiB{most}"
        )


def _refusal(each: RefusedPeer) -> str:
    who = f"{each['title']} at {each['peer']}" if each["title"] else each["peer"]
    times = f" {each['count']} times" if each["count"] > 1 else ""
    hint = f"; {each['hint']}" if each["hint"] else ""
    return f"{_when(each['time'])} {each['verb']} {who}{times}: {each['reason']}{hint}"


def _when(seconds: float) -> str:
    """A time in the time zone of this machine."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"


def _span(seconds: float) -> str:
    """A span in its two largest units."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number or parts:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _duration(seconds: float) -> str:
    """A short span in milliseconds, and a longer one in larger units."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 99.95 else _span(seconds)


def _size(octets: float) -> str:
    """A size with a decimal prefix."""
    size, unit = float(octets), "octets"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(size) < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "octets" or abs(size) >= 100 else f"{size:.1f} {unit}"
